//! Money as whole millionths of a US dollar: no floating point in budgets.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An amount in millionths of a US dollar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Usd {
    /// Millionths of a dollar.
    pub micros: u64,
}

impl Usd {
    /// Nothing.
    pub const ZERO: Self = Self { micros: 0 };

    /// An amount from a decimal number of dollars; `None` when negative, not finite or too large.
    #[must_use]
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        const DOLLARS_MAX: f64 = 1_000_000_000.0;
        if !(0.0..=DOLLARS_MAX).contains(&dollars) {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "range checked above"
        )]
        let micros = (dollars * 1_000_000.0).round() as u64;
        Some(Self { micros })
    }

    /// The sum, held at the largest amount.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self { micros: self.micros.saturating_add(other.micros) }
    }

    /// The difference, nothing when the other is more.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self { micros: self.micros.saturating_sub(other.micros) }
    }

    /// The amount as a number of dollars, for JSON that people read.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "display only")]
    pub fn dollars(self) -> f64 {
        self.micros as f64 / 1_000_000.0
    }
}

impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cents_exact = self.micros.is_multiple_of(10_000);
        let places = if cents_exact { 2 } else { 6 };
        write!(f, "${:.places$}", self.dollars())
    }
}

#[cfg(test)]
mod tests {
    use super::Usd;

    #[test]
    fn dollars_to_micros_and_text() {
        let check = |dollars: f64, text: &str| {
            assert_eq!(Usd::from_dollars(dollars).expect("in range").to_string(), text);
        };
        check(0.0, "$0.00");
        check(2.5, "$2.50");
        check(0.000_123, "$0.000123");
        assert_eq!(Usd::from_dollars(-0.01), None);
        assert_eq!(Usd::from_dollars(f64::NAN), None);
    }
}
