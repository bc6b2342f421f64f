//! Finding and ending processes: a supervisor's children, and what earlier attempts left.

use super::HostToolError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

/// How long a killed process may take to go, seconds.
const DEATH_SECONDS_MAX: i64 = 10;
/// How often we look again for processes that were forked while we looked.
const ROUNDS_MAX: usize = 100;

/// Kills every child of this process, once.
pub(super) fn kill_children() {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    for pid in pids() {
        let is_child = Pid::from_raw(pid).filter(|_| parent_of(pid) == Some(me));
        if let Some(child) = is_child {
            let _ = kill_process(child, Signal::KILL);
        }
    }
}

fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The fourth field of `/proc/PID/stat`, after the name in parentheses.
fn parent_of(pid: i32) -> Option<i32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 2..].split(' ').nth(1)?.parse().ok()
}

fn has_environment(pid: i32, entry: &str) -> bool {
    let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
}

/// Kills every process with this entry (`NAME=value`) in its environment, this one excepted, and
/// returns once none is left. Sees processes of the same user; as root, all.
///
/// # Errors
/// [`HostToolError::StillAlive`].
pub fn kill_processes_with_env(entry: &str) -> Result<(), HostToolError> {
    let me = rustix::process::getpid().as_raw_nonzero().get();
    for _ in 0..ROUNDS_MAX {
        let found: Vec<i32> =
            pids().into_iter().filter(|pid| *pid != me && has_environment(*pid, entry)).collect();
        if found.is_empty() {
            return Ok(());
        }
        for pid in found {
            end(pid, entry)?;
        }
    }
    Err(HostToolError::StillAlive { pid: 0, reason: "new ones appear all the time".to_owned() })
}

/// Ends one process and waits until it is gone.
fn end(pid: i32, entry: &str) -> Result<(), HostToolError> {
    let alive = |reason: String| HostToolError::StillAlive { pid, reason };
    let Some(id) = Pid::from_raw(pid) else {
        return Ok(());
    };
    let handle = match pidfd_open(id, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(alive(error.to_string())),
    };
    // The number may have been given to another process since we looked.
    if !has_environment(pid, entry) {
        return Ok(());
    }
    match pidfd_send_signal(&handle, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(error) => return Err(alive(error.to_string())),
    }
    let mut fds = [PollFd::new(&handle, PollFlags::IN)];
    let limit = Timespec { tv_sec: DEATH_SECONDS_MAX, tv_nsec: 0 };
    match poll(&mut fds, Some(&limit)) {
        Ok(1..) => Ok(()),
        Ok(0) => Err(alive(format!("it did not end within {DEATH_SECONDS_MAX} s of being killed"))),
        Err(error) => Err(alive(error.to_string())),
    }
}
