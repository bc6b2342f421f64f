//! Everything that can go wrong here, each with a stable code and a next step.
//!
//! The texts go to the operator. A sandbox learns only an errno.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use types::Coded;

/// An error of the sandbox crate. It travels between spawner and owner as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum SandboxError {
    /// The spawner process did not come up.
    #[error("the spawner could not be started: {why}")]
    SpawnerStart {
        /// What failed.
        why: String,
    },
    /// The spawner process is gone, and every sandbox with it.
    #[error("the spawner process is gone; its sandboxes ended with it")]
    SpawnerGone,
    /// A message between owner and spawner is too long or malformed.
    #[error("a message between owner and spawner cannot be used: {why}")]
    Frame {
        /// What is wrong with it.
        why: String,
    },
    /// The kernel refuses a part of a sandbox's network.
    #[error("the network of a sandbox cannot be made ({step}): {why}")]
    Network {
        /// What was done.
        step: String,
        /// What the kernel said.
        why: String,
    },
    /// The kernel or its configuration refuses user namespaces.
    #[error("user namespaces are refused here: {why}")]
    UserNamespaces {
        /// Which step failed and how.
        why: String,
    },
    /// The overlay of the workspace cannot be mounted.
    #[error("the workspace cannot be mounted as an overlay: {why}")]
    Overlay {
        /// Which step failed and how.
        why: String,
    },
    /// Landlock is missing or too old for what is asked.
    #[error("Landlock is missing or too old: {why}")]
    Landlock {
        /// What is missing.
        why: String,
    },
    /// Seccomp filters cannot be installed.
    #[error("seccomp filters cannot be installed: {why}")]
    Seccomp {
        /// What failed.
        why: String,
    },
    /// Limits by cgroups are demanded, and there are none we may use.
    #[error("limits enforced by the kernel are demanded, but {why}")]
    LimitsStrength {
        /// Why there are none.
        why: String,
    },
    /// No live sandbox has this id.
    #[error("there is no live sandbox {id}")]
    NoSuchSandbox {
        /// The id.
        id: u64,
    },
    /// A named limit of this crate is reached.
    #[error("{what} is limited to {max}")]
    TooMany {
        /// What there is too much of.
        what: String,
        /// The limit.
        max: u64,
    },
    /// A containment step failed; the sandbox was not used.
    #[error("the sandbox could not be built: {step}: {why}")]
    Setup {
        /// The step.
        step: String,
        /// The system's answer.
        why: String,
    },
    /// A path rule cannot be enforced as written.
    #[error("the path rule for '{path}' cannot be enforced: {why}")]
    Rule {
        /// The path as written.
        path: String,
        /// Why not.
        why: String,
    },
    /// The imported directory is larger than the workspace may be.
    #[error("'{}' holds more than {limit_bytes} bytes", path.display())]
    ImportTooLarge {
        /// The directory.
        path: PathBuf,
        /// The limit.
        limit_bytes: u64,
    },
    /// No layer has this id, or it did not survive a power cut.
    #[error("there is no layer '{layer}'{}", if *.lost { ": it was never flushed and the machine restarted since" } else { "" })]
    NoSuchLayer {
        /// The id.
        layer: String,
        /// Whether it was there before the machine restarted.
        lost: bool,
    },
    /// Another process writes to this upper.
    #[error("the writable layer '{upper}' is in use")]
    UpperInUse {
        /// Its id.
        upper: String,
    },
    /// Reading or writing the layer store failed.
    #[error("the layer store failed to {action} '{}': {why}", path.display())]
    Store {
        /// What was tried.
        action: String,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        why: String,
    },
    /// The program is not there.
    #[error("'{program}' is not found in the sandbox")]
    ProgramNotFound {
        /// As asked.
        program: String,
    },
    /// The program is there and cannot be executed.
    #[error("'{program}' cannot be executed in the sandbox: {why}")]
    ProgramNotExecutable {
        /// As asked.
        program: String,
        /// The system's answer.
        why: String,
    },
    /// A file operation names nothing.
    #[error("there is no '{path}'")]
    NoSuchFile {
        /// As asked.
        path: String,
    },
    /// A file operation names something of the wrong kind.
    #[error("'{path}' is {found}")]
    WrongKind {
        /// As asked.
        path: String,
        /// What it is: "a directory", "not a regular file".
        found: String,
    },
    /// A file operation is not permitted inside the sandbox.
    #[error("'{path}' may not be {access} in this sandbox")]
    PathDenied {
        /// As asked.
        path: String,
        /// `read` or `written`.
        access: String,
    },
    /// An edit did not match as often as expected.
    #[error("the text to replace occurs {found} times in '{path}', not {expected}")]
    EditMismatch {
        /// As asked.
        path: String,
        /// How often it occurs.
        found: u64,
        /// How often it should.
        expected: u64,
    },
    /// A file operation failed for another reason.
    #[error("'{path}' could not be used: {why}")]
    FileOp {
        /// As asked.
        path: String,
        /// The system's answer.
        why: String,
    },
    /// A request that cannot mean anything.
    #[error("the request is not valid: {why}")]
    Invalid {
        /// What is wrong.
        why: String,
    },
    /// The sandbox tried its own containment, and something got through.
    #[error("the sandbox is not contained ({probe}): {why}")]
    NotContained {
        /// Which probe got through.
        probe: String,
        /// What it found.
        why: String,
    },
    /// A process could not confine itself.
    #[error("the gate could not confine itself: {step}: {why}")]
    Confine {
        /// The step.
        step: String,
        /// The system's answer.
        why: String,
    },
}

impl SandboxError {
    /// A failed containment step.
    pub(crate) fn setup(step: &str, why: impl ToString) -> Self {
        Self::Setup { step: step.to_owned(), why: why.to_string() }
    }

    /// A failed step of a sandbox's network.
    pub(crate) fn network(step: &str, why: &std::io::Error) -> Self {
        Self::Network { step: step.to_owned(), why: why.to_string() }
    }

    /// A request that cannot mean anything.
    pub(crate) fn invalid(why: impl ToString) -> Self {
        Self::Invalid { why: why.to_string() }
    }
}

impl Coded for SandboxError {
    fn code(&self) -> &'static str {
        match self {
            Self::SpawnerStart { .. } => "BP-SANDBOX-001",
            Self::SpawnerGone => "BP-SANDBOX-002",
            Self::Frame { .. } => "BP-SANDBOX-003",
            Self::UserNamespaces { .. } => "BP-SANDBOX-004",
            Self::Overlay { .. } => "BP-SANDBOX-005",
            Self::Landlock { .. } => "BP-SANDBOX-006",
            Self::Seccomp { .. } => "BP-SANDBOX-007",
            Self::LimitsStrength { .. } => "BP-SANDBOX-008",
            Self::NoSuchSandbox { .. } => "BP-SANDBOX-009",
            Self::TooMany { .. } => "BP-SANDBOX-010",
            Self::Setup { .. } => "BP-SANDBOX-011",
            Self::Rule { .. } => "BP-SANDBOX-012",
            Self::ImportTooLarge { .. } => "BP-SANDBOX-013",
            Self::NoSuchLayer { .. } => "BP-SANDBOX-014",
            Self::UpperInUse { .. } => "BP-SANDBOX-015",
            Self::Store { .. } => "BP-SANDBOX-016",
            Self::ProgramNotFound { .. } => "BP-SANDBOX-017",
            Self::ProgramNotExecutable { .. } => "BP-SANDBOX-018",
            Self::NoSuchFile { .. } => "BP-SANDBOX-019",
            Self::WrongKind { .. } => "BP-SANDBOX-020",
            Self::PathDenied { .. } => "BP-SANDBOX-021",
            Self::EditMismatch { .. } => "BP-SANDBOX-022",
            Self::FileOp { .. } => "BP-SANDBOX-023",
            Self::Invalid { .. } => "BP-SANDBOX-024",
            Self::Confine { .. } => "BP-SANDBOX-026",
            Self::Network { .. } => "BP-SANDBOX-027",
            Self::NotContained { .. } => "BP-SANDBOX-028",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::SpawnerStart { .. }
            | Self::Setup { .. }
            | Self::Landlock { .. }
            | Self::Seccomp { .. }
            | Self::Confine { .. } => {
                "Run `bedplate doctor`: it tries each part of the sandbox and says what to change."
            }
            Self::Network { .. } => {
                "As root, load the kernel's nftables modules (`modprobe -a nft_redir nft_ct \
                 nft_reject_inet nf_nat`); `bedplate doctor` tries it."
            }
            Self::NotContained { .. } => {
                "Nothing was started in it. Run `bedplate doctor`, and report this privately: the \
                 kernel or another program undoes what holds a sandbox."
            }
            Self::SpawnerGone => "Resume the run: it starts a new spawner. Nothing sealed is lost.",
            Self::Frame { .. } => "Send less in one request; a long input belongs in a file.",
            Self::UserNamespaces { .. } => {
                "Allow them for this program or run as root: `bedplate doctor` prints the recipe \
                 for this machine."
            }
            Self::Overlay { .. } => {
                "Put --home on ext4, xfs or btrfs. In a container, mount a volume there: an \
                 overlay cannot be the upper of another."
            }
            Self::LimitsStrength { .. } => {
                "Start with `systemd-run --user --scope -p Delegate=yes`, or set `[sandbox] \
                 limits_strength = \"any\"`."
            }
            Self::NoSuchSandbox { .. } => "List the live ones with `bedplate sandbox ls`.",
            Self::TooMany { .. } => "Wait until something ends, or ask for less at once.",
            Self::Rule { .. } => {
                "Name a path that exists in the workspace and has no symbolic link in it."
            }
            Self::ImportTooLarge { .. } => {
                "Raise `[sandbox] limits` disk, or name a smaller workspace."
            }
            Self::NoSuchLayer { .. } => "Go back to an older layer with `bedplate rollback`.",
            Self::UpperInUse { .. } => "Wait for the run that holds it, or cancel that run.",
            Self::Store { .. } => "Check the disk's space and the rights of --home.",
            Self::ProgramNotFound { .. } => {
                "Install it on the host under /usr, or in the workspace, and name it by its path."
            }
            Self::ProgramNotExecutable { .. } => "Set its executable bit, or name its interpreter.",
            Self::NoSuchFile { .. } => "List the directory to see what is there.",
            Self::WrongKind { .. } => "Name a regular file.",
            Self::PathDenied { .. } => "Change the path rules of the policy if this is intended.",
            Self::EditMismatch { .. } => {
                "Give more of the surrounding text, or the number of places to change."
            }
            Self::FileOp { .. } => "Look at the reason; the workspace may be full or read-only.",
            Self::Invalid { .. } => "Correct the request.",
        }
        .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code has a page and a next step. (Those of a missing kernel feature cannot be
    /// provoked on a machine that has it: BP-SANDBOX-004, BP-SANDBOX-006, BP-SANDBOX-007,
    /// BP-SANDBOX-011, BP-SANDBOX-026, BP-SANDBOX-027.)
    #[test]
    fn every_code_has_its_page() {
        let why = || "why".to_owned();
        let all = [
            SandboxError::SpawnerGone,
            SandboxError::SpawnerStart { why: why() },
            SandboxError::Frame { why: why() },
            SandboxError::UserNamespaces { why: why() },
            SandboxError::Overlay { why: why() },
            SandboxError::Landlock { why: why() },
            SandboxError::Seccomp { why: why() },
            SandboxError::LimitsStrength { why: why() },
            SandboxError::NoSuchSandbox { id: 1 },
            SandboxError::setup("step", "why"),
            SandboxError::UpperInUse { upper: why() },
            SandboxError::Confine { step: why(), why: why() },
            SandboxError::network("step", &std::io::Error::other("why")),
            SandboxError::NotContained { probe: why(), why: why() },
        ];
        for error in all {
            let page =
                format!("{}/../../docs/errors/{}.md", env!("CARGO_MANIFEST_DIR"), error.code());
            let text = std::fs::read_to_string(&page).unwrap();
            assert!(text.starts_with(&format!("# {}: ", error.code())), "{page}");
            assert!(!error.next().is_empty() && !error.to_string().is_empty());
            let travelled: SandboxError =
                serde_json::from_str(&serde_json::to_string(&error).unwrap()).unwrap();
            assert_eq!(travelled, error);
        }
    }

    #[test]
    fn landlock_of_an_old_kernel_is_refused() {
        let error = crate::confine::Fence::new(crate::confine::LANDLOCK_ABI_MIN - 1).unwrap_err();
        assert_eq!(error.code(), "BP-SANDBOX-006");
        assert!(crate::confine::Fence::new(crate::confine::LANDLOCK_ABI_MIN).is_ok());
    }
}
