//! Containment left out on purpose, so that the escape corpus can be seen to notice.
//!
//! Only a build with the `weakened` feature can leave anything out. Without it [`Weakened::lacks`]
//! is constantly false and no request can change that.

use serde::{Deserialize, Serialize};

/// A part of the containment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Weaken {
    /// The system call filter.
    Seccomp,
    /// Landlock.
    Landlock,
    /// The network namespace.
    Network,
    /// The pid namespace, and with it the private /proc.
    Processes,
    /// The IPC namespace.
    Ipc,
    /// The masks and locks over denied paths.
    Masks,
    /// Read-only system mounts.
    ReadOnly,
    /// The private root: the host's own is used.
    Root,
    /// Dropping capabilities and the change of identity.
    Privileges,
    /// Closing descriptors.
    Descriptors,
    /// Limits.
    Limits,
    /// The sandbox's look at its own containment. Holds nothing by itself: left out together with
    /// another part, so that the corpus sees what that part alone holds.
    SelfProbe,
}

impl Weaken {
    /// Every part that holds something.
    pub const ALL: [Self; 11] = [
        Self::Seccomp,
        Self::Landlock,
        Self::Network,
        Self::Processes,
        Self::Ipc,
        Self::Masks,
        Self::ReadOnly,
        Self::Root,
        Self::Privileges,
        Self::Descriptors,
        Self::Limits,
    ];
}

/// What a spawner leaves out: nothing, in every build that is shipped.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Weakened {
    #[cfg(feature = "weakened")]
    #[serde(default)]
    parts: Vec<Weaken>,
}

impl Weakened {
    #[cfg(feature = "weakened")]
    pub(crate) fn new(parts: Vec<Weaken>) -> Self {
        Self { parts }
    }

    /// Whether a part is left out.
    #[cfg(feature = "weakened")]
    pub(crate) fn lacks(&self, part: Weaken) -> bool {
        self.parts.contains(&part)
    }

    /// Whether a part is left out: never.
    #[cfg(not(feature = "weakened"))]
    pub(crate) const fn lacks(&self, _: Weaken) -> bool {
        false
    }
}
