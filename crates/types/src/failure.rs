//! Failures people read: a stable code, what happened and why, and what to do next.

use serde::{Deserialize, Serialize};
use std::fmt;

/// An error with a stable code. `Display` says what happened and why; `next` says what to do.
pub trait Coded: std::error::Error {
    /// The stable code, `BP-AREA-NNN`, which has a page under `docs/errors/`.
    fn code(&self) -> &'static str;

    /// The next step, one or two sentences, addressed to the reader.
    fn next(&self) -> String;

    /// The same as a value that can travel and be stored.
    fn failure(&self) -> Failure {
        Failure { code: self.code().to_owned(), message: self.to_string(), next: self.next() }
    }
}

/// A failure as a value: what crosses a process boundary and what the log keeps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// `BP-AREA-NNN`.
    pub code: String,
    /// What happened and why.
    pub message: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub next: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}
