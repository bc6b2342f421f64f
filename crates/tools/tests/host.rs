//! Command tools under their supervisor, for real.

use std::path::Path;
use tools::host::{HostTool, HostToolError, Ran, kill_processes_with_env, run};
use types::Coded;

/// The supervisor: a small program of this crate that only calls its entry.
const SUPERVISOR: &str = env!("CARGO_BIN_EXE_toolhost-harness");

fn tool(script: &str, mark: &str) -> HostTool {
    HostTool {
        argv: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        cwd: "/tmp".into(),
        env: vec![
            ("PATH".to_owned(), "/usr/bin:/bin".to_owned()),
            ("BEDPLATE_RUN".to_owned(), mark.to_owned()),
        ],
        stdin: b"{\"a\":1}".to_vec(),
        timeout_ms: 20_000,
        stdout_bytes_max: 1_000,
    }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("builds").block_on(future)
}

fn ran(tool: HostTool) -> Result<Ran, HostToolError> {
    block(run(Path::new(SUPERVISOR), tool))
}

/// Whether a process with this mark lives.
fn alive(mark: &str) -> bool {
    let entry = format!("BEDPLATE_RUN={mark}");
    std::fs::read_dir("/proc").expect("proc").flatten().any(|process| {
        let environ = std::fs::read(process.path().join("environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
    })
}

#[test]
fn a_tool_reads_its_input_and_sees_only_its_environment() {
    let ran = ran(tool("cat; echo; env; echo bad >&2; exit 3", "t-env")).expect("runs");
    let stdout = String::from_utf8(ran.stdout).expect("text");
    let mut lines = stdout.lines();
    assert_eq!(lines.next(), Some("{\"a\":1}"));
    for name in lines.filter_map(|line| line.split('=').next()) {
        assert!(["BEDPLATE_RUN", "PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name), "{name}");
    }
    assert_eq!((ran.exit, ran.timed_out), (Some(3), false));
    assert_eq!(ran.stderr, b"bad\n");
}

#[test]
fn a_tool_that_ignores_its_input_is_no_error() {
    let mut big = tool("exit 0", "t-input");
    big.stdin = vec![b'x'; 2 << 20];
    assert_eq!(ran(big).expect("runs").exit, Some(0));
}

#[test]
fn output_over_the_cap_is_counted_and_dropped() {
    let check = |bytes: u64| {
        let ran = ran(tool(&format!("head -c {bytes} /dev/zero"), "t-cap")).expect("runs");
        assert_eq!(ran.stdout_bytes, bytes);
        assert_eq!(ran.stdout.len() as u64, bytes.min(1_000));
    };
    check(1_000);
    check(1_001);
    check(50_000_000);
}

#[test]
fn death_by_signal_is_no_exit_status() {
    let ran = ran(tool("kill -9 $$", "t-signal")).expect("runs");
    assert_eq!((ran.exit, ran.timed_out), (None, false));
}

#[test]
fn what_a_tool_leaves_behind_dies_with_it() {
    let script = "setsid sh -c 'sleep 600 & sleep 600' & (setsid sleep 600 &) ; exit 0";
    assert_eq!(ran(tool(script, "t-orphans")).expect("runs").exit, Some(0));
    assert!(!alive("t-orphans"));
}

#[test]
fn a_time_limit_ends_everything() {
    let mut slow = tool("setsid sleep 600 & trap '' TERM; sleep 600", "t-timeout");
    slow.timeout_ms = 50;
    let ran = ran(slow).expect("runs");
    assert!(ran.timed_out);
    assert_eq!(ran.exit, None);
    assert!(!alive("t-timeout"));
}

#[test]
fn giving_up_ends_everything() {
    let dir = tempfile::tempdir().expect("a directory");
    let ready = dir.path().join("ready");
    let status = std::process::Command::new("mkfifo").arg(&ready).status().expect("mkfifo");
    assert!(status.success());
    let script = format!("echo up > {}; setsid sleep 600", ready.display());
    block(async {
        let running = run(Path::new(SUPERVISOR), tool(&script, "t-drop"));
        let up = tokio::task::spawn_blocking(move || std::fs::read_to_string(ready));
        tokio::select! {
            ended = running => panic!("{ended:?}"),
            said = up => assert_eq!(said.expect("joins").expect("reads"), "up\n"),
        }
    });
    kill_processes_with_env("BEDPLATE_RUN=t-drop").expect("nothing is left");
    assert!(!alive("t-drop"));
}

#[test]
fn a_sweep_finds_a_tool_whose_supervisor_was_killed() {
    let mut orphan = std::process::Command::new("/bin/sleep")
        .arg("600")
        .env("BEDPLATE_RUN", "t-sweep")
        .spawn()
        .expect("starts");
    assert!(alive("t-sweep"));
    kill_processes_with_env("BEDPLATE_RUN=t-sweep").expect("ends it");
    assert_eq!(orphan.wait().expect("reaped").code(), None);
    assert!(!alive("t-sweep"));
}

#[test]
fn a_program_that_is_not_there_says_so() {
    let mut missing = tool("", "t-missing");
    missing.argv = vec!["./no-such-program".to_owned()];
    assert_eq!(ran(missing).expect_err("not there").code(), "BP-TOOL-003");
}

#[test]
fn a_supervisor_that_fails_is_named() {
    let error = block(run(Path::new("/bin/false"), tool("true", "t-false"))).expect_err("fails");
    assert_eq!(error.code(), "BP-TOOL-004");
    let error = HostToolError::StillAlive { pid: 7, reason: "r".to_owned() };
    assert_eq!(error.code(), "BP-TOOL-005");
}
