//! The world as an ordinary user sees it, for the tests that root has already run.
//!
//! Always: a user id nobody has, a home and a temporary folder of its own, the repository at its
//! own path though root's home is closed to others. All of it lies in one folder and in the mount
//! namespace of each test executable, so nothing is left. Never: a change to the host's users.

use super::build::{Binary, Build};
use super::left;
use crate::tree;
use std::ffi::OsString;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

const SCRIPT: &str = include_str!("ordinary.sh");
const NAME: &str = "bedplate-test";

/// Where the search for a user id that nobody has begins, downwards.
const UID_FIRST: u32 = 65_501;
const UID_TRIES: u32 = 100;

/// The prepared folder and the user.
#[derive(Debug)]
pub(super) struct World {
    folder: PathBuf,
    root: PathBuf,
    target: PathBuf,
    closed: Vec<PathBuf>,
    uid: u32,
}

impl World {
    /// Prepares the folder, and shows that the user can be had at all.
    ///
    /// # Errors
    /// What cannot be made, or what this host does not allow its ordinary users.
    pub(super) fn make(root: &Path, target: &Path, build: &Build) -> Result<Self, String> {
        let folder = env::temp_dir().join(format!("bpu{}", std::process::id()));
        let uid = free_uid().ok_or("no user id is free")?;
        let world = Self {
            closed: closed_above(&[root, target]),
            folder,
            root: root.to_owned(),
            target: target.to_owned(),
            uid,
        };
        let prepared = world.prepare(build);
        let ready = prepared.map_err(|e| format!("cannot make {}: {e}", world.folder.display()));
        match ready.and_then(|()| world.probe()) {
            Ok(()) => Ok(world),
            Err(why) => {
                let left = world.close().err().map(|left| format!("; {left}"));
                Err(why + &left.unwrap_or_default())
            }
        }
    }

    fn prepare(&self, build: &Build) -> io::Result<()> {
        fs::create_dir_all(self.folder.join("target"))?;
        open(&self.folder)?;
        open(&self.folder.join("target"))?;
        copy(&self.root, &self.folder.join("tree"))?;
        for own in ["home", "tmp"] {
            fs::create_dir(self.folder.join(own))?;
            chown(self.folder.join(own), Some(self.uid), Some(self.uid))?;
        }
        let home = self.folder.join("home");
        let user = format!("{NAME}:x:{0}:{0}::{1}:/bin/sh\n", self.uid, home.display());
        self.extend("passwd", &user)?;
        self.extend("group", &format!("{NAME}:x:{}:\n", self.uid))?;
        self.admit(build)?;
        open_all(&self.target.join("peers"))
    }

    /// Lets the user run what was built.
    ///
    /// # Errors
    /// The first file whose permissions cannot be widened.
    pub(super) fn admit(&self, build: &Build) -> io::Result<()> {
        build.executables().try_for_each(|file| open_up_to(file, &self.target))
    }

    /// The host's file with a line more, to be mounted over it.
    fn extend(&self, name: &str, line: &str) -> io::Result<()> {
        let mut text = fs::read_to_string(Path::new("/etc").join(name))?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let copy = self.folder.join(name);
        fs::write(&copy, text + line)?;
        open(&copy)
    }

    fn probe(&self) -> Result<(), String> {
        let own = ["sh", "-c", "test \"$(id -un)\" = \"$0\" && test -r Cargo.toml", NAME];
        self.check(&own, "cannot become an ordinary user here")?;
        let space = ["unshare", "--user", "--map-root-user", "--mount", "true"];
        let hint = "ordinary users may not make user namespaces here \
            (sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, \
            kernel.apparmor_restrict_unprivileged_userns)";
        self.check(&space, hint)
    }

    fn check(&self, command: &[&str], hint: &str) -> Result<(), String> {
        let mut enter = self.enter(&self.root);
        let out = enter.args(command).output().map_err(|e| format!("cannot start unshare: {e}"))?;
        let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        if out.status.success() { Ok(()) } else { Err(format!("{hint}: {said}")) }
    }

    /// A command in this world; its arguments are what to run in `folder`.
    fn enter(&self, folder: &Path) -> Command {
        let closed: Vec<_> = self.closed.iter().map(|c| format!("{}\n", c.display())).collect();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"]);
        command.env("WORLD", &self.folder).env("ROOT", &self.root).env("TARGET", &self.target);
        command.env("CLOSED", closed.concat()).env("USER_ID", self.uid.to_string());
        command.env("FOLDER", folder);
        command
    }

    /// Runs a test executable as the ordinary user, with nothing of our environment.
    pub(super) fn command(&self, binary: &Binary, variables: &[(OsString, OsString)]) -> Command {
        let mut command = self.enter(&binary.folder);
        command.args(["env", "-i", "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8"]);
        command.arg(format!("USER={NAME}")).arg(format!("LOGNAME={NAME}"));
        let own = [("HOME", "home"), ("TMPDIR", "tmp")];
        let own = own.map(|(name, folder)| (name.into(), self.folder.join(folder).into()));
        for (name, value) in own.iter().chain(variables) {
            let mut pair = name.clone();
            pair.push("=");
            pair.push(value);
            command.arg(pair);
        }
        command.arg(&binary.path).args(&binary.program);
        command
    }

    /// Takes everything away again.
    ///
    /// # Errors
    /// Processes that the user still had, or files that cannot be removed.
    pub(super) fn close(&self) -> Result<(), String> {
        let alone = left::check_user(self.uid);
        let gone = fs::remove_dir_all(&self.folder);
        alone?;
        gone.map_err(|e| format!("cannot remove {}: {e}", self.folder.display()))
    }
}

fn free_uid() -> Option<u32> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let taken = |uid: u32| {
        let text = uid.to_string();
        users.lines().any(|line| line.split(':').nth(2) == Some(text.as_str()))
    };
    (UID_FIRST - UID_TRIES..=UID_FIRST).rev().find(|uid| !taken(*uid) && !left::has_any(*uid))
}

/// The highest folder above each path that others may not enter.
fn closed_above(paths: &[&Path]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in paths {
        let mut above: Vec<_> = path.ancestors().skip(1).collect();
        above.reverse();
        let closed = above
            .into_iter()
            .find(|folder| fs::metadata(folder).is_ok_and(|m| m.permissions().mode() & 0o001 == 0));
        found.extend(closed.map(Path::to_owned));
    }
    found.dedup();
    found
}

/// Copies a folder of sources so that everybody may read it.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    open(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        let target = to.join(&name);
        if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, target)?;
        } else if kind.is_dir() {
            if !tree::is_skipped(&name.to_string_lossy()) {
                copy(&entry.path(), &target)?;
            }
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
            open(&target)?;
        }
    }
    Ok(())
}

/// Lets everybody read a file or enter a folder, and run what its owner may run.
fn open(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    let shared = if mode & 0o100 == 0 { 0o444 } else { 0o555 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode | shared))
}

fn open_up_to(file: &Path, top: &Path) -> io::Result<()> {
    file.ancestors().take_while(|path| path.starts_with(top)).try_for_each(open)
}

fn open_all(path: &Path) -> io::Result<()> {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if meta.is_symlink() {
        return Ok(());
    }
    open(path)?;
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            open_all(&entry?.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_open_and_leaves_out_what_is_no_source() {
        let base = env::temp_dir().join(format!("xtask-copy-{}", std::process::id()));
        let from = base.join("from");
        fs::create_dir_all(from.join("target")).unwrap();
        fs::create_dir_all(from.join("a")).unwrap();
        fs::write(from.join("a/b.sh"), "x").unwrap();
        fs::set_permissions(from.join("a/b.sh"), fs::Permissions::from_mode(0o700)).unwrap();
        symlink("b.sh", from.join("a/c")).unwrap();
        copy(&from, &base.join("to")).unwrap();
        let mode = fs::metadata(base.join("to/a/b.sh")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert_eq!(fs::read_link(base.join("to/a/c")).unwrap(), Path::new("b.sh"));
        assert!(!base.join("to/target").exists());
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_closed_folder_above_is_found_once() {
        let base = env::temp_dir().join(format!("xtask-closed-{}", std::process::id()));
        fs::create_dir_all(base.join("a/b")).unwrap();
        fs::set_permissions(&base, fs::Permissions::from_mode(0o700)).unwrap();
        let (one, two) = (base.join("a"), base.join("a/b"));
        // The temporary folder itself may be closed to others already.
        let found = closed_above(&[&one, &two]);
        assert!(found.len() == 1 && base.starts_with(&found[0]), "{found:?}");
        assert_eq!(closed_above(&[Path::new("/usr/bin")]), [] as [&Path; 0]);
        fs::remove_dir_all(base).unwrap();
    }
}
