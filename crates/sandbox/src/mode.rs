//! Whose rights we have: real root's, or an ordinary user's within its own user namespace.
//!
//! Owner, spawner and layer store must agree, because root's overlays keep their marks in
//! `trusted.*` attributes and a user's in `user.*`.

use crate::spec::HOST_ID_AS_ROOT;
use crate::sys;
use std::sync::OnceLock;

const CAP_SYS_ADMIN: u64 = 21;

/// How this installation works on this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Root of the machine's first user namespace.
    Root,
    /// Anybody else, among them root of a container.
    User,
}

impl Mode {
    /// Finds out, once per process. The spawner asks before it enters its own namespace.
    pub(crate) fn here() -> Self {
        static HERE: OnceLock<Mode> = OnceLock::new();
        *HERE.get_or_init(|| {
            let admin =
                sys::effective_capabilities().is_ok_and(|bits| bits & (1 << CAP_SYS_ADMIN) != 0);
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
            if rustix::process::geteuid().is_root() && admin && whole {
                Self::Root
            } else {
                Self::User
            }
        })
    }

    /// The agent's uid and gid as the spawner's user namespace names it.
    pub(crate) const fn agent_id(self) -> u32 {
        match self {
            Self::Root => HOST_ID_AS_ROOT,
            Self::User => 0,
        }
    }

    /// Prefix of the overlay's extended attributes.
    pub(crate) const fn xattr_prefix(self) -> &'static str {
        match self {
            Self::Root => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }
}
