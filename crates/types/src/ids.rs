//! Identifiers. Random ones are made by the runtime (this crate has no randomness); here they are
//! checked, so that a bad one cannot travel.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Characters of a random identifier: Crockford's base 32, lower case.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const RANDOM_CHARS: usize = 12;

/// The text is not an identifier of this kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a {kind} id")]
pub struct IdError {
    /// Which kind was expected.
    pub kind: &'static str,
    /// What was given, cut to 80 characters.
    pub text: String,
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// An id from 8 random bytes (60 bits are used).
            #[must_use]
            pub fn from_random(random: [u8; 8]) -> Self {
                let mut bits = u64::from_be_bytes(random);
                let mut text = String::with_capacity(RANDOM_CHARS);
                for _ in 0..RANDOM_CHARS {
                    text.push(char::from(ALPHABET[(bits & 31) as usize]));
                    bits >>= 5;
                }
                Self(text)
            }

            /// Reads an id.
            ///
            /// # Errors
            /// When the text is not 12 characters of the alphabet.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let good = text.len() == RANDOM_CHARS && text.bytes().all(|b| ALPHABET.contains(&b));
                if good {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError { kind: $kind, text: text.chars().take(80).collect() })
                }
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

random_id!(
    /// One durable execution.
    RunId,
    "run"
);
random_id!(
    /// One immutable layer of a workspace.
    LayerId,
    "layer"
);

impl RunId {
    /// The id of the run that a caller names by this key: the same for the same key, always.
    #[must_use]
    pub fn of_key(key: &str) -> Self {
        let digest = crate::Digest::of_parts("bedplate caller key 1", &[key.as_bytes()]);
        let bytes = digest.0;
        Self::from_random(std::array::from_fn(|at| bytes[at]))
    }
}

/// A branch of a run's log. The first is [`BRANCH_MAIN`].
pub type BranchId = u32;

/// The branch a run starts on.
pub const BRANCH_MAIN: BranchId = 0;

/// An action's number within its branch: the sequence number of the record that proposed it.
pub type ActionId = u64;

/// An approval, named by its run and the record that asked: `k3f9x2m8q1zt-17`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ApprovalId {
    /// The run that asks.
    pub run: RunId,
    /// Sequence number of the asking record.
    pub seq: u64,
}

impl ApprovalId {
    /// Reads an approval id.
    ///
    /// # Errors
    /// When the text is not `RUN-NUMBER`.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let bad = || IdError { kind: "approval", text: text.chars().take(80).collect() };
        let (run, seq) = text.split_once('-').ok_or_else(bad)?;
        let canonical = seq.len() <= 19 && seq.bytes().all(|b| b.is_ascii_digit());
        if !canonical {
            return Err(bad());
        }
        Ok(Self {
            run: RunId::parse(run).map_err(|_| bad())?,
            seq: seq.parse().map_err(|_| bad())?,
        })
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.seq)
    }
}

impl fmt::Debug for ApprovalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApprovalId({self})")
    }
}

impl TryFrom<String> for ApprovalId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        Self::parse(&text)
    }
}

impl From<ApprovalId> for String {
    fn from(id: ApprovalId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_read_back() {
        let id = RunId::from_random([7, 1, 200, 3, 9, 255, 0, 42]);
        assert_eq!(RunId::parse(id.as_str()), Ok(id));
    }

    #[test]
    fn bad_ids_are_refused() {
        for bad in ["", "short", "UPPERCASE000", "has/slash000", "0123456789abc", "ilou00000000"] {
            assert!(RunId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn approval_ids_name_run_and_record() {
        let id = ApprovalId::parse("0123456789ab-17").expect("valid");
        assert_eq!((id.run.as_str(), id.seq), ("0123456789ab", 17));
        assert_eq!(id.to_string(), "0123456789ab-17");
        for bad in ["0123456789ab", "0123456789ab-", "0123456789ab-x", "0123456789ab--1"] {
            assert!(ApprovalId::parse(bad).is_err(), "{bad}");
        }
    }
}
