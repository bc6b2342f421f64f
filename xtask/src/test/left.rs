//! What the tests left behind: a sandbox that is gone leaves nothing, and neither does a test.

use super::process::kill;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

/// An owner leaves by itself when nothing is live; this long it may take.
const GRACE: Duration = Duration::from_secs(15);

/// How often to look meanwhile.
const PAUSE: Duration = Duration::from_millis(200);

/// Looks for processes whose temporary folder is ours, and for mounts in it.
///
/// # Errors
/// What is still there after a while; it is killed and unmounted then.
pub(super) fn check(temporary: &Path) -> Result<(), String> {
    let mounts = || mounts_in(temporary);
    let processes = || processes(|process| has_temporary(process, temporary));
    settle(|| [processes(), mounts()].concat())
}

/// Removes a folder of ours. The kernel shuts an overlay's work directories even for who made them;
/// as their owner we open them again.
///
/// # Errors
/// When something in it is not ours.
pub(super) fn remove_folder(folder: &Path) -> io::Result<()> {
    if fs::remove_dir_all(folder).is_ok() {
        return Ok(());
    }
    open_folders(folder)?;
    fs::remove_dir_all(folder)
}

fn open_folders(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}

/// Looks for processes of a user.
///
/// # Errors
/// Which there are after a while; they are killed then.
pub(super) fn check_user(uid: u32) -> Result<(), String> {
    settle(|| of_user(uid))
}

/// Whether a user has processes now.
pub(super) fn has_any(uid: u32) -> bool {
    !of_user(uid).is_empty()
}

fn of_user(uid: u32) -> Vec<Left> {
    processes(|process| fs::metadata(process).is_ok_and(|m| m.uid() == uid))
}

/// Something that should be gone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Left {
    Process(String, String),
    Mount(PathBuf),
}

fn settle(look: impl Fn() -> Vec<Left>) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let left = look();
        if left.is_empty() {
            return Ok(());
        }
        if started.elapsed() > GRACE {
            left.iter().for_each(remove);
            return Err(left.iter().map(describe).collect::<Vec<_>>().join(", "));
        }
        #[allow(clippy::disallowed_methods)] // Nothing tells us; GRACE limits the looking.
        std::thread::sleep(PAUSE);
    }
}

fn describe(left: &Left) -> String {
    match left {
        Left::Process(pid, command) => format!("process {pid} ({command})"),
        Left::Mount(path) => format!("mount {}", path.display()),
    }
}

fn remove(left: &Left) {
    match left {
        Left::Process(pid, _) => kill(pid),
        Left::Mount(path) => {
            drop(std::process::Command::new("umount").arg("--lazy").arg(path).status());
        }
    }
}

fn processes(is_ours: impl Fn(&Path) -> bool) -> Vec<Left> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = entries.filter(|e| e.file_name().as_bytes().iter().all(u8::is_ascii_digit));
    let ours = numbered.filter(|e| is_ours(&e.path()) && !is_zombie(&e.path()));
    ours.map(|e| Left::Process(e.file_name().to_string_lossy().into(), command(&e.path())))
        .collect()
}

fn is_zombie(process: &Path) -> bool {
    let stat = fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

fn command(process: &Path) -> String {
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

fn has_temporary(process: &Path, temporary: &Path) -> bool {
    let variable = [b"TMPDIR=", temporary.as_os_str().as_bytes()].concat();
    let environment = fs::read(process.join("environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == variable)
}

fn mounts_in(folder: &Path) -> Vec<Left> {
    let table = fs::read("/proc/self/mountinfo").unwrap_or_default();
    let points =
        table.split(|byte| *byte == b'\n').filter_map(|line| line.split(|b| *b == b' ').nth(4));
    let points = points.map(|point| PathBuf::from(OsStr::from_bytes(point)));
    points.filter(|point| point.starts_with(folder)).map(Left::Mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    fn lingering(folder: &Path) -> Child {
        let mut command = Command::new("cat");
        command.env("TMPDIR", folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn a_folder_that_is_shut_is_removed() {
        let folder = std::env::temp_dir().join(format!("xtask-shut-{}", std::process::id()));
        let inner = folder.join("work/work");
        fs::create_dir_all(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o000)).unwrap();
        remove_folder(&folder).unwrap();
        assert!(!folder.exists());
    }

    #[test]
    fn a_process_with_our_temporary_folder_is_found_until_it_ends() {
        let folder = std::env::temp_dir().join(format!("xtask-left-{}", std::process::id()));
        let look = || processes(|process| has_temporary(process, &folder));
        assert_eq!(look(), []);
        let mut child = lingering(&folder);
        // The child shows its own environment only once it runs its program.
        let found = settle_for(|| look().len() == 1);
        assert!(found, "not found");
        assert_eq!(look()[0], Left::Process(child.id().to_string(), "cat".to_owned()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(look(), []);
    }

    fn settle_for(done: impl Fn() -> bool) -> bool {
        let started = Instant::now();
        while !done() && started.elapsed() < GRACE {
            std::thread::yield_now();
        }
        done()
    }

    #[test]
    fn mounts_are_found_by_folder() {
        assert!(mounts_in(Path::new("/proc")).contains(&Left::Mount("/proc".into())));
        assert_eq!(mounts_in(Path::new("/nonexistent")), []);
    }
}
