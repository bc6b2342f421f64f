//! What the privacy tier refuses, each with its code. No message holds a value it guards.

use types::Coded;

/// Why a configuration, a value or a text is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrivacyError {
    /// BP-PRIVACY-001: a secret so short that it would be found everywhere.
    #[error(
        "the value of secret \"{name}\" has {bytes} bytes, at least {min} are needed to recognise it"
    )]
    SecretTooShort {
        /// The secret's name.
        name: String,
        /// Its length in bytes, without white space at its ends.
        bytes: usize,
        /// The least length.
        min: usize,
    },
    /// BP-PRIVACY-002: something is over its limit.
    #[error("{what} is {actual}, the limit is {limit}")]
    TooLarge {
        /// What: `the value of a secret, in bytes`.
        what: &'static str,
        /// How much it is.
        actual: usize,
        /// How much it may be.
        limit: usize,
    },
    /// BP-PRIVACY-003: the mapping of a run is full.
    #[error("this run has no room for another pseudonym: {what} would pass {limit}")]
    MappingFull {
        /// Which limit: `the number of values`.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// BP-PRIVACY-004: the replaced text would not come back as it was.
    #[error("the replaced text would not restore to what it was, so it is not sent")]
    NotRestorable,
    /// BP-PRIVACY-005: a stored mapping or set of fingerprints that this crate did not write.
    #[error("the stored {what} cannot be used: {reason}")]
    BadStored {
        /// `mapping`, `fingerprints`.
        what: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// BP-PRIVACY-006: a configuration that cannot work.
    #[error("{what} cannot be looked for: {reason}")]
    BadConfig {
        /// `a name`, `a canary`.
        what: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// BP-PRIVACY-007: a canary stands in what would be sent.
    #[error(
        "a canary stands in the request, so it is not sent: something reached the context that must never travel"
    )]
    Canary,
    /// BP-PRIVACY-008: a value of the vault stands where nothing can take its place.
    #[error(
        "the value of secret \"{name}\" stands in the request where it cannot be masked, so it is not sent"
    )]
    SecretStays {
        /// The secret's name.
        name: String,
    },
}

impl Coded for PrivacyError {
    fn code(&self) -> &'static str {
        match self {
            Self::SecretTooShort { .. } => "BP-PRIVACY-001",
            Self::TooLarge { .. } => "BP-PRIVACY-002",
            Self::MappingFull { .. } => "BP-PRIVACY-003",
            Self::NotRestorable => "BP-PRIVACY-004",
            Self::BadStored { .. } => "BP-PRIVACY-005",
            Self::BadConfig { .. } => "BP-PRIVACY-006",
            Self::Canary => "BP-PRIVACY-007",
            Self::SecretStays { .. } => "BP-PRIVACY-008",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::SecretTooShort { .. } => {
                "Replace the secret by a longer one; one so short can be guessed as well."
            }
            Self::TooLarge { .. } => "Make it smaller, or split it.",
            Self::MappingFull { .. } => {
                "Start a new run, or send such data by a local route that needs no pseudonyms."
            }
            Self::NotRestorable => {
                "Send the request by a local route, or take the text with look-alike pseudonyms out of it."
            }
            Self::BadStored { .. } => "Start a new run; what was stored is damaged or from another version.",
            Self::Canary => {
                "Find out with `bedplate show RUN` how it got there; then start a new run."
            }
            Self::SecretStays { .. } => {
                "Replace the secret with `bedplate secret set`, find out with `bedplate show RUN` how its value got there, and start a new run."
            }
            Self::BadConfig { .. } => "Correct the entry in the configuration.",
        }
        .to_owned()
    }
}
