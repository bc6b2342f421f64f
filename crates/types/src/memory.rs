//! Whose memory a run has: what outlives runs is kept for one agent and whom it serves.

use crate::manifest::{Manifest, Serves};
use crate::{Digest, Labels, LayerId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Digits of a memory's id.
const ID_DIGITS: usize = 24;

/// Whose memory it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemoryOf {
    /// The agent's name.
    pub agent: String,
    /// The kind of whom it serves.
    pub serves: Serves,
    /// The user's login, or the team's name.
    pub name: String,
}

impl MemoryOf {
    /// The memory that a run of this manifest, made by `user`, has; `None` without `[memory]`.
    #[must_use]
    pub fn of(manifest: &Manifest, user: &str) -> Option<Self> {
        let serves = manifest.memory?.serves;
        let name = match serves {
            Serves::User => user,
            Serves::Team => &manifest.agent.team,
        };
        Some(Self { agent: manifest.agent.name.clone(), serves, name: name.to_owned() })
    }

    /// A name for it that is fit for a directory: no two memories have the same.
    #[must_use]
    pub fn id(&self) -> String {
        let parts = [self.agent.as_bytes(), self.serves.word().as_bytes(), self.name.as_bytes()];
        Digest::of_parts("bedplate memory 1", &parts).to_string()[..ID_DIGITS].to_owned()
    }
}

impl fmt::Display for MemoryOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} {}", self.agent, self.serves.word(), self.name)
    }
}

/// The memory that a run begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryStart {
    /// Whose.
    pub of: MemoryOf,
    /// Which version of it; 0 is an empty one that nobody wrote.
    pub version: u64,
    /// Its tree.
    pub layer: LayerId,
    /// Where what it holds came from.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_share_a_memory() {
        let of = |agent: &str, serves, name: &str| MemoryOf {
            agent: agent.to_owned(),
            serves,
            name: name.to_owned(),
        };
        let all = [
            of("a", Serves::User, "bc"),
            of("ab", Serves::User, "c"),
            of("a", Serves::Team, "bc"),
            of("a", Serves::User, "b"),
        ];
        let ids: std::collections::BTreeSet<String> = all.iter().map(MemoryOf::id).collect();
        assert_eq!(ids.len(), all.len());
        assert!(ids.iter().all(|id| id.len() == ID_DIGITS));
    }
}
