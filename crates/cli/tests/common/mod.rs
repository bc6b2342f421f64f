//! Driving the real binary over a home of its own.
#![allow(dead_code, reason = "each test file uses what it needs")]
#![allow(clippy::print_stderr, reason = "a failed test shows its owner's log")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for a condition.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// The binary under test; another one when `BEDPLATE_BIN` says so.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("BEDPLATE_BIN")
        .map_or_else(|| env!("CARGO_BIN_EXE_bedplate").into(), PathBuf::from)
}

/// The repository; another place when `BEDPLATE_SOURCE` says so.
pub(crate) fn source() -> PathBuf {
    let here = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("BEDPLATE_SOURCE").map_or_else(here, PathBuf::from)
}

/// A home and a scratch directory, removed at the end with everything that still runs there.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("scratch")).expect("a directory");
        Self { dir }
    }

    /// The home itself; not created until a command does.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub(crate) fn scratch(&self) -> &Path {
        // Leaked once a test: a borrow of a joined path.
        Box::leak(self.dir.path().join("scratch").into_boxed_path())
    }

    pub(crate) fn bedplate(&self, arguments: &[&str]) -> Call {
        let mut command = Command::new(binary());
        command
            .args(["--home", self.path().to_str().expect("UTF-8")])
            .args(arguments)
            .env_remove("BEDPLATE_HOME")
            .env_remove("BEDPLATE_CRASH")
            .env_remove("OPENAI_API_KEY")
            .env_remove("ANTHROPIC_API_KEY")
            .env("TMPDIR", self.scratch())
            .env("NO_COLOR", "1")
            .current_dir(self.scratch())
            .stdin(Stdio::null());
        Call { command }
    }

    pub(crate) fn runs(&self) -> Vec<Value> {
        let ps = json(&self.bedplate(&["ps", "--json"]).run().stdout);
        ps["runs"].as_array().cloned().unwrap_or_default()
    }

    pub(crate) fn owner_pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.path().join("owner.pid")).ok()?.trim().parse().ok()
    }

    /// `kill -9` of the owner and of everything it started.
    pub(crate) fn kill_everything(&self) {
        for pid in self.processes() {
            let _ =
                Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
        if let Some(pid) = self.owner_pid() {
            let _ =
                Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status();
        }
    }

    /// Processes that work in this home or carry its mark.
    pub(crate) fn processes(&self) -> Vec<i32> {
        processes_of(self.dir.path())
    }

    pub(crate) fn wait_for_owner_to_leave(&self) {
        // To look at every process costs the one that is waited for its time.
        if let Some(owner) = self.owner_pid() {
            let place = Path::new("/proc").join(owner.to_string()).join("cmdline");
            let home = self.path().to_string_lossy().into_owned();
            let lives = || {
                String::from_utf8_lossy(&std::fs::read(&place).unwrap_or_default()).contains(&home)
            };
            wait_until("the owner to leave", || !lives());
        }
        wait_until("the owner's processes to leave", || self.processes().is_empty());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.path().join("owner.log")).unwrap_or_default();
            eprintln!("owner.log of the failed test:\n{log}");
        }
        self.kill_everything();
    }
}

/// Waits for a condition, and fails when it does not come.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < WAIT_MAX, "waited too long for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn processes_of(dir: &Path) -> Vec<i32> {
    let me = std::process::id().to_string();
    let dir = dir.to_str().expect("UTF-8");
    // A search of text is optimised wherever these tests are not.
    let holds = |bytes: &[u8]| String::from_utf8_lossy(bytes).contains(dir);
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    let found = entries.filter(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name == me.as_str() || !name.bytes().all(|b| b.is_ascii_digit()) {
            return false;
        }
        let read = |what: &str| std::fs::read(entry.path().join(what)).unwrap_or_default();
        let cwd = std::fs::read_link(entry.path().join("cwd")).unwrap_or_default();
        holds(&read("cmdline"))
            || holds(&read("environ"))
            || holds(cwd.as_os_str().as_encoded_bytes())
    });
    found.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).collect()
}

/// What a home left behind beside its own data: processes, mounts, cgroups, temporary files.
pub(crate) fn leftovers(home: PathBuf) -> Vec<String> {
    let outer = home.parent().expect("a home lies in a directory");
    let mut left: Vec<String> =
        processes_of(outer).into_iter().map(|pid| format!("process {pid}")).collect();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let name = outer.to_str().expect("UTF-8");
    left.extend(
        mounts.lines().filter(|line| line.contains(name)).map(|line| format!("mount {line}")),
    );
    let uppers = std::fs::read_dir(home.join("uppers")).into_iter().flatten().flatten();
    left.extend(uppers.map(|entry| format!("upper {:?}", entry.file_name())));
    left
}

/// One call of the binary.
pub(crate) struct Call {
    command: Command,
}

/// What it said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Call {
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn cwd(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    pub(crate) fn run(mut self) -> Said {
        let output = self.command.output().expect("the binary starts");
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs it, and fails unless it succeeds.
    pub(crate) fn succeed(self) -> Said {
        let said = self.run();
        assert_eq!(said.code, 0, "{}\n{}", said.stdout, said.stderr);
        said
    }
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A copy of an example, so that it can be changed and applied to.
pub(crate) fn example(scratch: &Path, name: &str) -> PathBuf {
    let to = scratch.join(name);
    copy_tree(&source().join("examples").join(name), &to);
    to
}

pub(crate) fn copy_tree(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(status.success(), "{} -> {}", from.display(), to.display());
}
