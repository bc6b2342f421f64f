//! Plain directories of the host, on which the same program works as in the sandbox.

use super::{Folder, is_root};
use sandbox::HOST_ID_AS_ROOT;
use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The program.
pub(crate) const PERFORM: &str = include_str!("perform.py");

/// A folder of plain directories.
pub(crate) struct Plain {
    folder: Folder,
    made: Cell<u64>,
}

/// The program at work on one.
pub(crate) struct Outside(Child);

impl Plain {
    pub(crate) fn new() -> Self {
        Self { folder: Folder::new(), made: Cell::new(0) }
    }

    fn path(&self) -> PathBuf {
        self.made.set(self.made.get() + 1);
        self.folder.0.join(self.made.get().to_string())
    }

    /// A directory with nothing in it, of whoever the agent is on the host.
    pub(crate) fn empty(&self) -> PathBuf {
        let dir = self.path();
        std::fs::create_dir(&dir).unwrap();
        if is_root() {
            chown(&dir, Some(HOST_ID_AS_ROOT), Some(HOST_ID_AS_ROOT)).unwrap();
        }
        dir
    }

    /// A copy. For an ordinary user, whose overlay breaks them with the first write, each name of a
    /// file is a file of its own in it.
    pub(crate) fn copy(&self, dir: &Path) -> PathBuf {
        let copy = self.path();
        let words: &[&str] = if is_root() {
            &["cp", "-a"]
        } else {
            &["unshare", "--map-root-user", "cp", "-a", "--no-preserve=links"]
        };
        let paths = [dir.as_os_str(), copy.as_os_str()];
        let words = words.iter().map(OsStr::new).chain(paths);
        let words: Vec<&OsStr> = words.collect();
        assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{words:?}");
        copy
    }

    /// A file for a program to read.
    pub(crate) fn file(&self, text: &str) -> PathBuf {
        let file = self.folder.0.join("input");
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Starts a program, with no more rights than the agent has.
    pub(crate) fn start(&self, dir: &Path, file: &Path, program: &str) -> Outside {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-c", program]).current_dir(dir).stdout(Stdio::piped());
        command.stdin(std::fs::File::open(file).unwrap());
        if is_root() {
            command.uid(HOST_ID_AS_ROOT).gid(HOST_ID_AS_ROOT);
        }
        Outside(command.spawn().unwrap())
    }
}

impl Outside {
    /// What it says.
    pub(crate) fn end(self) -> Vec<String> {
        let done = self.0.wait_with_output().unwrap();
        assert!(done.status.success(), "{:?}", done.status);
        String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}
