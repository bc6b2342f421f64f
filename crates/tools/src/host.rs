//! Command tools on the host: run as the operator, under a supervisor that lets nothing survive.
//!
//! ```text
//! owner --spec--> supervisor (`bedplate __toolhost`) --argv, stdin--> tool
//!       <-ran---
//! ```
//!
//! The supervisor adopts whatever the tool leaves behind, and kills all of it when the tool ends,
//! when its time is up, or when the owner's end of the pipe closes, however the owner died. It
//! collects bytes and never looks at them. Both carry the run's id in their environment, so that
//! [`kill_processes_with_env`] finds them after any crash.

mod client;
mod error;
mod supervisor;
mod sweep;

pub use client::{TOOLHOST_ARGUMENT, run};
pub use error::HostToolError;
pub use supervisor::toolhost_main;
pub use sweep::kill_processes_with_env;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Bytes of standard error kept of a tool.
pub const STDERR_BYTES_MAX: u64 = 64 << 10;
/// Largest specification, in bytes.
pub const SPEC_BYTES_MAX: usize = 16 << 20;

/// A program to run on the host.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct HostTool {
    /// Program and arguments; a relative program with a slash stands in `cwd`.
    pub argv: Vec<String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// All of its environment.
    pub env: Vec<(String, String)>,
    /// Standard input, then end of file.
    pub stdin: Vec<u8>,
    /// Time limit, milliseconds.
    pub timeout_ms: u64,
    /// Bytes of standard output kept; the rest is counted and dropped.
    pub stdout_bytes_max: u64,
}

/// How a tool ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Exit status; `None` when a signal killed it.
    pub exit: Option<i32>,
    /// Whether its time was up.
    pub timed_out: bool,
    /// Standard output, as far as it was kept.
    pub stdout: Vec<u8>,
    /// Bytes of standard output in all.
    pub stdout_bytes: u64,
    /// Standard error, as far as it was kept.
    pub stderr: Vec<u8>,
    /// Milliseconds from start to end.
    pub took_ms: u64,
}

/// What the supervisor reports before the bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    not_started: Option<String>,
    exit: Option<i32>,
    timed_out: bool,
    stdout_kept: usize,
    stdout_bytes: u64,
    stderr_kept: usize,
    took_ms: u64,
}
