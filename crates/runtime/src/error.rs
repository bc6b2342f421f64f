//! What can go wrong above the parts, with codes.

use std::path::PathBuf;
use types::{Coded, Failure};

/// An error of the runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The home cannot be used.
    #[error("the home {} cannot be used: {reason}", path.display())]
    Home {
        /// Where it is.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The owner did not start.
    #[error("the owner of {} did not start: {reason}", home.display())]
    OwnerStart {
        /// The home.
        home: PathBuf,
        /// Why.
        reason: String,
    },
    /// The owner went away in the middle of a request.
    #[error("the owner went away: {reason}")]
    OwnerGone {
        /// Why, as far as it is known.
        reason: String,
    },
    /// The owner is another build.
    #[error("the owner of this home is bedplate {owner}, and this is {ours}")]
    OwnerVersion {
        /// Its version.
        owner: String,
        /// Ours.
        ours: String,
    },
    /// A frame on the owner's socket is not one.
    #[error("a malformed frame on the owner's socket: {reason}")]
    Frame {
        /// Why.
        reason: String,
    },
    /// A file that the manifest names, or the manifest, cannot be read.
    #[error("{} cannot be read: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is no manifest here.
    #[error("there is no bedplate.toml in {}", dir.display())]
    NoManifest {
        /// The directory.
        dir: PathBuf,
    },
    /// The files of a memory cannot be used.
    #[error("the memory at {} cannot be used: {reason}", path.display())]
    Memory {
        /// Where they are.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// There is no such memory, or no such version of it.
    #[error("there is no memory to find here: {what}")]
    NoMemory {
        /// What was looked for.
        what: String,
    },
    /// A run and others changed the same in a memory.
    #[error("others changed the same in this memory meanwhile: {shown}")]
    MemoryConflict {
        /// The first of them, for people.
        shown: String,
        /// Which.
        paths: Vec<String>,
    },
    /// A memory would be too large.
    #[error("the memory would have {what}")]
    MemoryTooLarge {
        /// What of it.
        what: String,
    },
    /// The workspace is not a directory.
    #[error("the workspace {} cannot be used: {reason}", path.display())]
    Workspace {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The agent's route is not defined.
    #[error("there is no route '{route}'{hint}")]
    NoRoute {
        /// Its name.
        route: String,
        /// Known routes.
        hint: String,
    },
    /// The approval is settled, expired, or none.
    #[error("{id} cannot be answered: {reason}")]
    Approval {
        /// As given.
        id: String,
        /// Why.
        reason: String,
    },
    /// Policy does not let this person answer.
    #[error("{person} may not answer {id}: {reason}")]
    Approver {
        /// As given.
        id: String,
        /// Who.
        person: String,
        /// Why.
        reason: String,
    },
    /// A caller cannot name a run by this, or the agent has a loop of its own.
    #[error(
        "'{key}' cannot name a run that takes steps: a key has 1 to 128 letters, digits and ._-:/@, and the agent no command of its own"
    )]
    CallerKey {
        /// As given.
        key: String,
    },
    /// The run is not in a state for this.
    #[error("run {run}: {reason}")]
    RunState {
        /// The run.
        run: String,
        /// Why.
        reason: String,
    },
    /// Host files changed since the run began.
    #[error("nothing was applied: {} changed on the host since the run began: {}", paths.len(), paths.join(", "))]
    Conflict {
        /// Which.
        paths: Vec<String>,
    },
    /// Something after the record cannot be taken back.
    #[error(
        "run {run} was left as it is: going back to record {at} would not take back {}",
        what.join("; ")
    )]
    CannotTakeBack {
        /// The run.
        run: String,
        /// The record.
        at: u64,
        /// What.
        what: Vec<String>,
    },
    /// Bringing changes to the host failed.
    #[error("applying to {} failed: {reason}", path.display())]
    Apply {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// A run whose answers were not kept cannot be replayed.
    #[error("run {run} has no answers to replay")]
    NothingToReplay {
        /// The run.
        run: String,
    },
    /// A sandbox's network cannot be served.
    #[error("the network of the sandbox cannot be served: {reason}")]
    Network {
        /// Why.
        reason: String,
    },
    /// Too much on standard input or in a request.
    #[error("{what} has {bytes} bytes, and the limit is {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// What the operator wrote cannot be used, says another part.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// Another part failed, with its own code.
    #[error("{}", .0.message)]
    Part(Failure),
}

impl RuntimeError {
    /// An error of another part, its code kept.
    pub fn part(error: &impl Coded) -> Self {
        Self::Part(error.failure())
    }

    /// The failure as it is shown, its own code kept.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        match self {
            Self::Part(failure) | Self::Refused(failure) => failure,
            other => other.failure(),
        }
    }

    /// Whether another part failed with this code.
    pub(crate) fn failed_with(&self, code: &str) -> bool {
        matches!(self, Self::Part(failure) if failure.code == code)
    }

    /// The same, as a mistake of the operator's configuration.
    #[must_use]
    pub fn as_refusal(self) -> Self {
        match self {
            Self::Part(failure) => Self::Refused(failure),
            other => other,
        }
    }

    /// Whether it is a mistake of usage or configuration (exit status 2).
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Home { .. }
                | Self::ConfigFile { .. }
                | Self::NoManifest { .. }
                | Self::Workspace { .. }
                | Self::NoRoute { .. }
                | Self::Approval { .. }
                | Self::Approver { .. }
                | Self::TooLarge { .. }
                | Self::CallerKey { .. }
                | Self::NothingToReplay { .. }
                | Self::NoMemory { .. }
                | Self::MemoryTooLarge { .. }
                | Self::Refused(_)
        )
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        Self::Part(failure)
    }
}

impl Coded for RuntimeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Home { .. } => "BP-OWNER-001",
            Self::OwnerStart { .. } => "BP-OWNER-002",
            Self::OwnerGone { .. } => "BP-OWNER-003",
            Self::OwnerVersion { .. } => "BP-OWNER-004",
            Self::Frame { .. } => "BP-OWNER-005",
            Self::ConfigFile { .. } => "BP-CONFIG-005",
            Self::NoManifest { .. } => "BP-CONFIG-006",
            Self::Workspace { .. } => "BP-CONFIG-007",
            Self::NoRoute { .. } => "BP-CONFIG-008",
            Self::Approval { .. } => "BP-RUN-010",
            Self::RunState { .. } => "BP-RUN-011",
            Self::Approver { .. } => "BP-RUN-019",
            Self::Conflict { .. } => "BP-RUN-012",
            Self::Apply { .. } => "BP-RUN-013",
            Self::TooLarge { .. } => "BP-RUN-014",
            Self::Network { .. } => "BP-RUN-015",
            Self::CannotTakeBack { .. } => "BP-RUN-023",
            Self::NothingToReplay { .. } => "BP-RUN-024",
            Self::Memory { .. } => "BP-RUN-026",
            Self::NoMemory { .. } => "BP-RUN-027",
            Self::MemoryConflict { .. } => "BP-RUN-028",
            Self::MemoryTooLarge { .. } => "BP-RUN-029",
            Self::CallerKey { .. } => "BP-SERVE-015",
            Self::Part(_) | Self::Refused(_) => "BP-RUN-000",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Home { .. } => "Give a directory you can write with --home DIR or BEDPLATE_HOME.",
            Self::OwnerStart { .. } => {
                "Read owner.log in the home; `bedplate doctor` says what this host can do."
            }
            Self::OwnerGone { .. } => {
                "Run the command again, or `bedplate resume last`: nothing recorded is lost."
            }
            Self::OwnerVersion { .. } => {
                "Wait until its runs are at rest, or end them; it leaves by itself."
            }
            Self::Frame { .. } => "Use the same bedplate for the owner and the command.",
            Self::ConfigFile { .. } => {
                "Correct the path in the manifest, or make the file readable."
            }
            Self::NoManifest { .. } => {
                "Write one with `bedplate init`, or give a task: bedplate run \"TASK\"."
            }
            Self::Workspace { .. } => {
                "Correct [sandbox] workspace in the manifest; it is relative to the manifest."
            }
            Self::NoRoute { .. } => "Add it to [routes], or choose one with --model.",
            Self::Approval { .. } => "`bedplate approvals` lists what is open.",
            Self::Approver { .. } => {
                "Ask somebody whom the policy lets `approve` this run, or change the policy."
            }
            Self::RunState { .. } => "`bedplate show RUN` says where it stands.",
            Self::Conflict { .. } => {
                "Look at `bedplate diff RUN`; move your own changes aside, then apply again."
            }
            Self::CannotTakeBack { run, at, .. } => {
                return format!(
                    "If it may stay done: bedplate rollback {run} --to {at} --leave-effects; \
                     or begin a new run there: bedplate fork {run} --at {at}"
                );
            }
            Self::Apply { .. } => {
                "Make the file writable and apply again: what is already there is left."
            }
            Self::Network { .. } => {
                "Check the disk's space and the rights of --home; then resume the run."
            }
            Self::NothingToReplay { .. } => {
                "Name a run that was started with --record-network, or start one."
            }
            Self::Memory { .. } => {
                "Check the disk's space and the rights of memory/ in the home, then try again."
            }
            Self::NoMemory { .. } => {
                "`bedplate memory ls` lists them; an agent has one with [memory] in its manifest."
            }
            Self::MemoryConflict { .. } => {
                "`bedplate memory diff RUN` shows its changes; \
                 `bedplate memory merge RUN --take run|memory` says whose count."
            }
            Self::MemoryTooLarge { .. } => {
                "Raise [memory] limit, or remove what is no longer needed: bedplate memory rm."
            }
            Self::TooLarge { .. } => "Put large input into a file of the workspace.",
            Self::CallerKey { .. } => {
                "Use another key, and an agent whose manifest has no [agent] command."
            }
            Self::Part(failure) | Self::Refused(failure) => return failure.next.clone(),
        }
        .to_owned()
    }
}
