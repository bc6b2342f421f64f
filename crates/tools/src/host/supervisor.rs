//! The supervisor process of one command tool.

use super::sweep::kill_children;
use super::{HostTool, Report, SPEC_BYTES_MAX, STDERR_BYTES_MAX};
use rustix::process::{Pid, WaitOptions, WaitStatus};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What the supervisor waits for.
enum Event {
    /// The tool ended.
    Ended(Option<i32>),
    /// The owner is gone, or gave up.
    OwnerGone,
    /// No process is left below.
    Childless,
}

/// Entry of `bedplate __toolhost`: reads a specification, runs the tool, reports.
#[must_use]
pub fn toolhost_main() -> i32 {
    let Some(tool) = read_spec() else { return 2 };
    let _ = rustix::process::setsid();
    if rustix::process::set_child_subreaper(Some(rustix::process::getpid())).is_err() {
        return report(&not_started("this kernel cannot adopt orphans".to_owned()), &[], &[]);
    }
    match start(&tool) {
        Ok(child) => supervise(tool, child),
        Err(error) => report(&not_started(error.to_string()), &[], &[]),
    }
}

/// `None` when the owner died before the specification was complete: nothing was started.
fn read_spec() -> Option<HostTool> {
    let mut stdin = std::io::stdin().lock();
    let mut length = [0u8; 4];
    stdin.read_exact(&mut length).ok()?;
    let length = u32::from_be_bytes(length) as usize;
    if length > SPEC_BYTES_MAX {
        return None;
    }
    let mut spec = vec![0u8; length];
    stdin.read_exact(&mut spec).ok()?;
    serde_json::from_slice(&spec).ok()
}

fn start(tool: &HostTool) -> std::io::Result<Child> {
    let (program, arguments) =
        tool.argv.split_first().ok_or_else(|| std::io::Error::other("the command is empty"))?;
    // A relative program with a slash stands beside the manifest, whatever PATH says.
    let program = if program.contains('/') { tool.cwd.join(program) } else { program.into() };
    Command::new(program)
        .args(arguments)
        .current_dir(&tool.cwd)
        .env_clear()
        .envs(tool.env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

fn supervise(tool: HostTool, mut child: Child) -> i32 {
    let begun = Instant::now();
    let (events, happened) = channel();
    let main = Pid::from_child(&child);
    let mut input = child.stdin.take().expect("standard input is piped");
    let stdin = tool.stdin;
    // A tool that does not read its input is no error.
    let _ = std::thread::spawn(move || input.write_all(&stdin));
    let out = child.stdout.take().expect("standard output is piped");
    let err = child.stderr.take().expect("standard error is piped");
    let out = collect(out, tool.stdout_bytes_max);
    let err = collect(err, STDERR_BYTES_MAX);
    watch_owner(events.clone());
    reap(main, events);
    let deadline = begun + Duration::from_millis(tool.timeout_ms);
    let (exit, timed_out) = until_over(&happened, deadline);
    kill_all(&happened);
    let (stdout, stdout_bytes) = out.join().unwrap_or_default();
    let (stderr, _) = err.join().unwrap_or_default();
    let header = Report {
        not_started: None,
        exit,
        timed_out,
        stdout_kept: stdout.len(),
        stdout_bytes,
        stderr_kept: stderr.len(),
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    };
    report(&header, &stdout, &stderr)
}

/// Reads to the end; keeps the first bytes and counts all.
fn collect(mut from: impl Read + Send + 'static, bytes_max: u64) -> JoinHandle<(Vec<u8>, u64)> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        let mut total = 0u64;
        let mut buffer = [0u8; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            total += count as u64;
            let room = bytes_max.saturating_sub(kept.len() as u64);
            let take = count.min(usize::try_from(room).unwrap_or(usize::MAX));
            kept.extend_from_slice(&buffer[..take]);
        }
        (kept, total)
    })
}

/// The owner writes nothing more; the end of its pipe means that it is gone or gave up.
fn watch_owner(events: Sender<Event>) {
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = events.send(Event::OwnerGone);
    });
}

/// Reaps the tool and every orphan, until none is left.
fn reap(main: Pid, events: Sender<Event>) {
    std::thread::spawn(move || {
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if pid == main => {
                    let _ = events.send(Event::Ended(exit_of(status)));
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => {
                    let _ = events.send(Event::Childless);
                    return;
                }
            }
        }
    });
}

fn exit_of(status: WaitStatus) -> Option<i32> {
    status.exit_status()
}

/// Until the tool ended, its time is up, or the owner is gone.
fn until_over(happened: &Receiver<Event>, deadline: Instant) -> (Option<i32>, bool) {
    match happened.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Event::Ended(exit)) => (exit, false),
        Ok(Event::OwnerGone | Event::Childless) | Err(RecvTimeoutError::Disconnected) => {
            (None, false)
        }
        Err(RecvTimeoutError::Timeout) => (None, true),
    }
}

/// Kills everything below, again and again, since a killed parent hands its children to us.
fn kill_all(happened: &Receiver<Event>) {
    /// Between two looks for new orphans.
    const LOOK_AGAIN: Duration = Duration::from_millis(2);
    loop {
        kill_children();
        match happened.recv_timeout(LOOK_AGAIN) {
            Ok(Event::Childless) | Err(RecvTimeoutError::Disconnected) => return,
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

fn not_started(reason: String) -> Report {
    Report {
        not_started: Some(reason),
        exit: None,
        timed_out: false,
        stdout_kept: 0,
        stdout_bytes: 0,
        stderr_kept: 0,
        took_ms: 0,
    }
}

fn report(header: &Report, stdout: &[u8], stderr: &[u8]) -> i32 {
    let json = serde_json::to_vec(header).expect("a report is plain data");
    let length = u32::try_from(json.len()).expect("a report is short");
    let mut out = std::io::stdout().lock();
    let parts: [&[u8]; 4] = [&length.to_be_bytes(), &json, stdout, stderr];
    let written = parts.iter().try_for_each(|part| out.write_all(part)).and_then(|()| out.flush());
    i32::from(written.is_err())
}
