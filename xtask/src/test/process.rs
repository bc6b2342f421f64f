//! One child process with a log and a limit.
//!
//! Always: no standard input, a process group of its own, killed whole when the limit passes.
//! Never: a wait for the end of a pipe that a grandchild may hold open; output goes to a file.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// What to run.
pub(super) struct Job {
    pub(super) command: Command,
    /// Where standard output and error go together; without, they are the terminal's.
    pub(super) log: Option<PathBuf>,
    pub(super) limit: Duration,
}

/// How it ended.
pub(super) struct Outcome {
    /// None when the limit passed or nothing started.
    status: Option<ExitStatus>,
    /// What the log holds.
    pub(super) output: String,
    limit: Duration,
}

impl Outcome {
    /// A command that could not be started is an outcome too.
    pub(super) fn not_started(why: String) -> Self {
        Self { status: None, output: why, limit: Duration::ZERO }
    }

    pub(super) fn status_ok(&self) -> bool {
        self.status.is_some_and(|s| s.success())
    }

    /// # Errors
    /// How it ended, if not well.
    pub(super) fn success(&self) -> Result<(), String> {
        match self.status {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(status.to_string()),
            None if self.limit.is_zero() => Err("did not start".to_owned()),
            None => Err(format!("killed after {} s", self.limit.as_secs())),
        }
    }
}

/// Runs a job to its end or its limit.
///
/// # Errors
/// When the log cannot be made or the command cannot be started.
pub(super) fn run(mut job: Job) -> Result<Outcome, String> {
    if let Some(log) = &job.log {
        let file = log.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| File::create(log));
        let file = file.map_err(|e| format!("cannot write {}: {e}", log.display()))?;
        let second = file.try_clone().map_err(|e| e.to_string())?;
        job.command.stdout(file).stderr(second);
    }
    let program = job.command.get_program().to_string_lossy().into_owned();
    let child = job.command.stdin(Stdio::null()).process_group(0).spawn();
    let child = child.map_err(|e| format!("cannot start {program}: {e}"))?;
    let status = wait(child, job.limit);
    let output = job.log.map(|log| fs::read(log).unwrap_or_default()).unwrap_or_default();
    let output = String::from_utf8_lossy(&output).into_owned();
    Ok(Outcome { status, output, limit: job.limit })
}

fn wait(mut child: Child, limit: Duration) -> Option<ExitStatus> {
    let group = child.id();
    let (tell, told) = mpsc::channel();
    let waiter = thread::spawn(move || tell.send(child.wait()));
    let status = told.recv_timeout(limit);
    if status.is_err() {
        kill(&format!("-{group}"));
    }
    drop(waiter.join());
    status.ok()?.ok()
}

/// Kills a process, or a group when the number is negative.
pub(super) fn kill(target: &str) {
    let done = Command::new("sh").args(["-c", "kill -s KILL -- \"$1\"", "sh", target]).status();
    if let Err(error) = done {
        println!("cannot kill {target}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn shell(script: &str, limit: Duration) -> Outcome {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let name = format!("xtask-process-{}-{}", std::process::id(), script.len());
        let log = std::env::temp_dir().join(name);
        let outcome = run(Job { command, log: Some(log.clone()), limit }).unwrap();
        fs::remove_file(log).unwrap();
        outcome
    }

    #[test]
    fn output_and_status_come_back() {
        let outcome = shell("echo a; echo b >&2; exit 3", Duration::from_secs(60));
        assert_eq!(outcome.output, "a\nb\n");
        assert_eq!(outcome.success().unwrap_err(), "exit status: 3");
    }

    #[test]
    fn the_limit_kills_the_whole_group() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "(sleep 20; echo alive) & wait"]).stdout(writer);
        let outcome = run(Job { command, log: None, limit: Duration::from_millis(300) }).unwrap();
        assert!(outcome.success().unwrap_err().starts_with("killed"));
        // The end comes when nobody holds the other side any more, the grandchild included.
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        assert_eq!(said, "");
    }

    #[test]
    fn a_missing_program_is_told() {
        let job = |command| Job { command, log: None, limit: Duration::from_secs(60) };
        assert!(run(job(Command::new("/nonexistent"))).err().unwrap().contains("/nonexistent"));
    }
}
