//! Walking, measuring, syncing and removing trees that a sandbox has written.
//!
//! Nothing runs on a tree while it is handled here, so it does not change under us; still, no
//! symbolic link is ever followed. An ordinary user may find directories it shut itself out of
//! (mode 0): they are opened for the moment and shut again.

use super::{at, fail};
use crate::SandboxError;
use crate::mode::Mode;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Directories deep a tree may be. Deeper ones do not fit into a path either.
pub(super) const DEPTH_MAX: usize = 1000;
/// Bytes of a block as `stat` counts them.
const BLOCK_BYTES: u64 = 512;

/// One entry of a directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: std::ffi::OsString,
    pub(super) path: PathBuf,
    pub(super) meta: Metadata,
}

/// The entries of a directory, sorted by name.
pub(super) fn entries(dir: &Path) -> Result<Vec<Entry>, SandboxError> {
    let read = || -> io::Result<Vec<Entry>> {
        let mut list = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            list.push(Entry {
                name: entry.file_name(),
                path: entry.path(),
                meta: entry.metadata()?,
            });
        }
        Ok(list)
    };
    let mut list = at("list", dir, opened(dir, read))?;
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// Does something with a file or directory of ours even if its mode, or that of a directory above
/// it, shuts us out: they are opened for the moment.
pub(super) fn opened<T>(path: &Path, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
    match act() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            let mut shut = Vec::new();
            let result = open_above(path, &mut shut).and_then(|()| act());
            for (path, mode) in shut.into_iter().rev() {
                fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
            }
            result
        }
        other => other,
    }
}

/// Opens what is ours and shut, from the top down, and notes how it was.
fn open_above(path: &Path, shut: &mut Vec<(PathBuf, u32)>) -> io::Result<()> {
    let us = rustix::process::geteuid().as_raw();
    let mut above: Vec<&Path> = path.ancestors().collect();
    above.reverse();
    for path in above {
        let meta = fs::symlink_metadata(path)?;
        let mode = meta.permissions().mode() & 0o7777;
        if meta.uid() == us && !meta.is_symlink() && mode & 0o700 != 0o700 {
            fs::set_permissions(path, fs::Permissions::from_mode(mode | 0o700))?;
            shut.push((path.to_owned(), mode));
        }
    }
    Ok(())
}

/// Visits everything below `dir`, parents before children, and whole directories after them too.
pub(super) fn walk(
    dir: &Path,
    before: &mut dyn FnMut(&Entry) -> Result<(), SandboxError>,
    after: &mut dyn FnMut(&Path) -> Result<(), SandboxError>,
) -> Result<(), SandboxError> {
    let mut open = vec![(dir.to_owned(), entries(dir)?.into_iter())];
    while let Some((dir, rest)) = open.last_mut() {
        match rest.next() {
            Some(entry) => {
                before(&entry)?;
                if entry.meta.is_dir() {
                    let inner = entries(&entry.path)?.into_iter();
                    open.push((entry.path, inner));
                    if open.len() > DEPTH_MAX {
                        return Err(fail("walk", &open[0].0, "it is too deep"));
                    }
                }
            }
            None => {
                after(dir)?;
                open.pop();
            }
        }
    }
    Ok(())
}

/// Bytes allocated below a directory.
pub(super) fn bytes(dir: &Path) -> Result<u64, SandboxError> {
    let mut sum = 0;
    let mut count = |entry: &Entry| {
        if !entry.meta.is_dir() {
            sum += entry.meta.blocks() * BLOCK_BYTES;
        }
        Ok(())
    };
    walk(dir, &mut count, &mut |_| Ok(()))?;
    Ok(sum)
}

/// Writes every file and directory below `dir`, and itself, through to the disk.
pub(super) fn sync(dir: &Path) -> Result<(), SandboxError> {
    let sync_one = |path: &Path| {
        let open = || {
            File::options()
                .read(true)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(path)
                .and_then(|file| file.sync_all())
        };
        at("sync", path, opened(path, open))
    };
    let mut file = |entry: &Entry| {
        if entry.meta.is_file() {
            sync_one(&entry.path)?;
        }
        Ok(())
    };
    walk(dir, &mut file, &mut |dir| sync_one(dir))
}

/// Removes a tree, whatever its modes. What is not there is no error.
///
/// # Errors
/// [`SandboxError::Store`].
pub fn remove(dir: &Path) -> Result<(), SandboxError> {
    match fs::remove_dir_all(dir) {
        Ok(()) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            return Err(fail("remove", dir, error));
        }
        Err(_) => {}
    }
    // Directories that shut even us out: open them all, then try again.
    let unlock = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    at("remove", dir, unlock(dir))?;
    let mut open = |entry: &Entry| {
        if entry.meta.is_dir() {
            at("remove", &entry.path, unlock(&entry.path))?;
        }
        Ok(())
    };
    walk(dir, &mut open, &mut |_| Ok(()))?;
    at("remove", dir, fs::remove_dir_all(dir))
}

/// Gives a file or directory to the agent's host uid, as root. A link itself is given, not what it
/// leads to.
pub(super) fn give_away(mode: Mode, path: &Path) -> Result<(), SandboxError> {
    match super::owner(mode) {
        Some(id) => at("hand over", path, std::os::unix::fs::lchown(path, Some(id), Some(id))),
        None => Ok(()),
    }
}

/// Whether two regular files hold the same bytes.
pub(super) fn same_bytes(a: &Path, b: &Path) -> Result<bool, SandboxError> {
    const BUFFER_BYTES_MAX: u64 = 64 << 10;
    let open = |path: &Path| {
        let act = || {
            File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
        };
        at("read", path, opened(path, act))
    };
    let (mut file_a, mut file_b) = (open(a)?, open(b)?);
    // Most files are small, and are read whole; their end shows in a buffer that is not full.
    let length = at("read", a, file_a.metadata())?.len();
    let bytes = length.saturating_add(1).min(BUFFER_BYTES_MAX) as usize;
    let (mut left, mut right) = (vec![0; bytes], vec![0; bytes]);
    loop {
        let count = at("read", a, fill(&mut file_a, &mut left))?;
        let other = at("read", b, fill(&mut file_b, &mut right))?;
        if left[..count] != right[..other] {
            return Ok(false);
        }
        if count < bytes {
            return Ok(true);
        }
    }
}

fn fill(file: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_the_same_to_their_last_byte() {
        let dir = tempfile::tempdir().expect("a directory");
        let check = |a: &[u8], b: &[u8]| {
            let (left, right) = (dir.path().join("a"), dir.path().join("b"));
            fs::write(&left, a).expect("written");
            fs::write(&right, b).expect("written");
            assert_eq!(same_bytes(&left, &right).expect("read"), a == b, "{} bytes", a.len());
        };
        for bytes in [0, 1, 65_534, 65_535, 65_536, 65_537, 200_000] {
            let one = vec![b'x'; bytes];
            check(&one, &one);
            if let Some((last, rest)) = one.split_last() {
                check(&one, &[rest, &[last + 1]].concat());
                check(&one, rest);
            }
            check(&one, &[&one[..], b"y"].concat());
        }
    }
}
