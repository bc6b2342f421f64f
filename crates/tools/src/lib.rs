//! What a tool is.
//!
//! A tool call is *planned* before anything else happens to it: its arguments are read strictly,
//! its effect class is found, and what it asks of policy is written down. Planning is a function of
//! the manifest and the call; performing is the runtime's and the sandbox's.
//!
//! What always holds: a plan asks policy for everything it will do; an effect class comes from the
//! operator's manifest or from what the sandbox can prove, else it is `irreversible`.

mod builtin;
pub mod host;
mod path;
mod plan;

pub use builtin::{SHELL_TIMEOUT_MS_MAX, specs};
pub use path::{ARTIFACT_PREFIX, WORKSPACE, in_workspace};
pub use plan::{Plan, Refusal, command_line, plan};
