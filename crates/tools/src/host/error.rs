//! What can go wrong around a command tool, beside the tool itself.

use types::Coded;

/// A tool that could not be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostToolError {
    /// The program could not be started.
    #[error("'{program}' could not be started: {reason}")]
    NotStarted {
        /// The program.
        program: String,
        /// The system's answer.
        reason: String,
    },
    /// The supervisor failed or was killed.
    #[error("the supervisor of '{program}' is gone: {reason}")]
    Supervisor {
        /// The program.
        program: String,
        /// What is known.
        reason: String,
    },
    /// A process of an earlier attempt could not be ended.
    #[error("process {pid} of an earlier attempt is still alive: {reason}")]
    StillAlive {
        /// Its id.
        pid: i32,
        /// Why.
        reason: String,
    },
}

impl Coded for HostToolError {
    fn code(&self) -> &'static str {
        match self {
            Self::NotStarted { .. } => "BP-TOOL-003",
            Self::Supervisor { .. } => "BP-TOOL-004",
            Self::StillAlive { .. } => "BP-TOOL-005",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::NotStarted { .. } => {
                "Check the tool's command in the manifest: it runs in the manifest's directory."
            }
            Self::Supervisor { .. } => {
                "Resume the run: the action is probed before anything is done again."
            }
            Self::StillAlive { .. } => "End that process, then resume the run.",
        }
        .to_owned()
    }
}
