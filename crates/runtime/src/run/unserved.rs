//! A network that no gate serves: why, and when another gate is tried.
//!
//! Always: the tries are counted and few, and further apart each time. Never: a network that waits
//! for a gate lets something leave.

use std::time::Duration;
use tokio::time::Instant;
use types::Failure;

/// How often another gate is tried before a network stays without one until the next command.
const TRIES_MAX: u32 = 5;
/// Pause before the second try, doubled for each further one, milliseconds.
const PAUSE_MS: u64 = 100;

/// Why no gate serves a network.
#[derive(Debug)]
pub(super) struct Unserved {
    pub(super) failure: Failure,
    tries: u32,
    /// When another gate is tried; never by itself after [`TRIES_MAX`].
    pub(super) again: Option<Instant>,
}

impl Unserved {
    /// One more try that failed.
    pub(super) fn after(before: Option<Self>, failure: Failure) -> Self {
        let tries = 1 + before.map_or(0, |before| before.tries.min(TRIES_MAX));
        let pause = Duration::from_millis(PAUSE_MS << (tries - 1));
        let again = (tries < TRIES_MAX).then(|| Instant::now() + pause);
        Self { failure, tries, again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_try_is_not_followed_by_another() {
        let code = "BP-GATE-002".to_owned();
        let failure = Failure { code, message: "no gate".to_owned(), next: String::new() };
        let mut unserved = Unserved::after(None, failure.clone());
        for _ in 2..TRIES_MAX {
            assert!(unserved.again.is_some());
            unserved = Unserved::after(Some(unserved), failure.clone());
        }
        unserved = Unserved::after(Some(unserved), failure.clone());
        assert_eq!((unserved.tries, unserved.again), (TRIES_MAX, None));
        // A command that begins tries once more.
        unserved = Unserved::after(Some(unserved), failure);
        assert_eq!(unserved.again, None);
    }
}
