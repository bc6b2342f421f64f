//! Labels say where data came from. They only ever accumulate.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A set of labels, such as `untrusted` or `confidential:payroll`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Labels(BTreeSet<String>);

impl Labels {
    /// No labels.
    #[must_use]
    pub const fn none() -> Self {
        Self(BTreeSet::new())
    }

    /// One label.
    #[must_use]
    pub fn one(label: &str) -> Self {
        Self(BTreeSet::from([label.to_owned()]))
    }

    /// Adds every label of `other`.
    pub fn join(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The labels, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}
