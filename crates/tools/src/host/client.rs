//! The owner's side: start a supervisor, give it its specification, take its report.

use super::{HostTool, HostToolError, Ran, Report, SPEC_BYTES_MAX};
use std::path::Path;
use std::process::Stdio;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

/// The argument that makes the `bedplate` binary a supervisor.
pub const TOOLHOST_ARGUMENT: &str = "__toolhost";

/// Runs a tool. Dropping the future kills it and everything it started.
///
/// # Errors
/// [`HostToolError::NotStarted`], [`HostToolError::Supervisor`].
pub async fn run(exe: &Path, tool: HostTool) -> Result<Ran, HostToolError> {
    let program = tool.argv.first().cloned().unwrap_or_default();
    let gone = |reason: String| HostToolError::Supervisor { program: program.clone(), reason };
    let spec = serde_json::to_vec(&tool).map_err(|error| gone(error.to_string()))?;
    if spec.len() > SPEC_BYTES_MAX {
        return Err(gone(format!("its input has more than {SPEC_BYTES_MAX} bytes")));
    }
    // The supervisor carries the tool's environment, so that it too is found after a crash.
    let mut supervisor = Command::new(exe)
        .arg(TOOLHOST_ARGUMENT)
        .env_clear()
        .envs(tool.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| gone(error.to_string()))?;
    let mut life = supervisor.stdin.take().expect("standard input is piped");
    let mut answer = supervisor.stdout.take().expect("standard output is piped");
    let length = u32::try_from(spec.len()).expect("checked above").to_be_bytes();
    life.write_all(&length).await.map_err(|error| gone(error.to_string()))?;
    life.write_all(&spec).await.map_err(|error| gone(error.to_string()))?;
    let mut bytes = Vec::new();
    answer.read_to_end(&mut bytes).await.map_err(|error| gone(error.to_string()))?;
    let _ = supervisor.wait().await;
    drop(life);
    let (report, stdout, stderr) =
        split(&bytes).ok_or_else(|| gone("its report is cut".to_owned()))?;
    match report.not_started {
        Some(reason) => Err(HostToolError::NotStarted { program, reason }),
        None => Ok(Ran {
            exit: report.exit,
            timed_out: report.timed_out,
            stdout,
            stdout_bytes: report.stdout_bytes,
            stderr,
            took_ms: report.took_ms,
        }),
    }
}

/// A report: length, JSON, kept output, kept errors.
fn split(bytes: &[u8]) -> Option<(Report, Vec<u8>, Vec<u8>)> {
    let (length, rest) = bytes.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize;
    let (header, rest) = rest.split_at_checked(length)?;
    let report: Report = serde_json::from_slice(header).ok()?;
    let (stdout, rest) = rest.split_at_checked(report.stdout_kept)?;
    let (stderr, rest) = rest.split_at_checked(report.stderr_kept)?;
    let (stdout, stderr) = (stdout.to_vec(), stderr.to_vec());
    rest.is_empty().then_some((report, stdout, stderr))
}
