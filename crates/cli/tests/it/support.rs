//! A world of its own for each test: a home, a project, and the binary to drive.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The binary under test.
pub(crate) fn binary() -> PathBuf {
    std::env::var_os("BEDPLATE_BIN")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_bedplate")), PathBuf::from)
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}\n{}", self.stdout, self.stderr))
    }

    /// Asserts the exit status, showing everything when it is another.
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts that it failed with this code and status.
    pub(crate) fn fails(self, exit: i32, code: &str) -> Self {
        let said = self.exits(exit);
        assert!(said.stderr.contains(&format!("error {code}: ")), "{code}: {}", said.stderr);
        said
    }
}

/// A temporary home and a project beside it.
#[derive(Debug)]
pub(crate) struct World {
    dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("bpt").tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("p")).expect("made");
        Self { dir }
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.dir.path().join("h")
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.dir.path().join("p")
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file of the project.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.project().join(path);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    /// Writes an executable file of the project.
    pub(crate) fn program(&self, path: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        self.write(path, text);
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(self.project().join(path), mode).expect("set");
    }

    pub(crate) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.project().join(path)).expect("a file of the project")
    }

    /// Writes a manifest with a scripted model: what goes after `[routes]`, and the turns.
    pub(crate) fn agent(&self, more: &str, turns: &str) {
        let manifest = format!(
            "schema = 1\n[agent]\nname = \"tester\"\ninstructions = \"Do it.\"\nmodel = \"default\"\n\
             [routes]\ndefault = [\"script/turns.toml\"]\n{more}"
        );
        self.write("bedplate.toml", &manifest);
        self.write("turns.toml", turns);
    }

    /// The binary with this home, in the project, without keys or a terminal.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command
            .args(arguments)
            .current_dir(self.project())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.path())
            .env("LOGNAME", "ada")
            .env("BEDPLATE_HOME", self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Said {
        Said::of(self.command(arguments).output().expect("the binary runs"))
    }

    /// Starts a command and does not wait for it.
    pub(crate) fn start(&self, arguments: &[&str]) -> std::process::Child {
        self.command(arguments).spawn().expect("the binary runs")
    }

    /// The live owner's process id.
    pub(crate) fn owner(&self) -> Option<i32> {
        let text = std::fs::read_to_string(self.home().join("owner.pid")).ok()?;
        text.trim().parse().ok()
    }

    /// Kills the owner, and waits until it is gone.
    pub(crate) fn kill_owner(&self) {
        let Some(pid) = self.owner().and_then(rustix::process::Pid::from_raw) else {
            return;
        };
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        if let Ok(handle) = handle {
            let mut poll = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
            let _ = rustix::event::poll(&mut poll, Some(&limit));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.kill_owner();
    }
}

/// Waits until `done` holds, looking again at short intervals, at most 30 seconds.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    const LOOKS_MAX: u32 = 3_000;
    let nobody = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    for _ in 0..LOOKS_MAX {
        if done() {
            return;
        }
        let _ = rustix::event::poll(&mut [], Some(&nobody));
    }
    panic!("waited too long until {what}");
}

/// A turn that calls a tool; the arguments are TOML lines.
pub(crate) fn call(text: &str, tool: &str, arguments: &str) -> String {
    format!("[[turn]]\ntext = \"{text}\"\ntool = \"{tool}\"\n[turn.arguments]\n{arguments}\n")
}

/// A turn that only speaks.
pub(crate) fn say(text: &str) -> String {
    format!("[[turn]]\ntext = \"{text}\"\n")
}
