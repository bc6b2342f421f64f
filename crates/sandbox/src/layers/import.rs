//! Copying a host directory into a layer.

use super::tree::{self, Entry};
use super::{at, fail};
use crate::SandboxError;
use crate::mode::Mode;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use types::LayerId;

/// Entries an import takes at most.
const ENTRIES_MAX: u64 = 2_000_000;
/// Names of left out entries that are kept; the rest is counted.
const SKIPPED_NAMES_MAX: usize = 100;
/// Permission bits that are kept: nothing set-uid or set-gid.
const MODE_KEPT: u32 = 0o1777;

/// What an import took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The new layer.
    pub layer: LayerId,
    /// Entries taken.
    pub entries: u64,
    /// Bytes of regular files taken.
    pub bytes: u64,
    /// Sockets, fifos and devices left out, the first hundred by name.
    pub skipped: Vec<String>,
    /// How many were left out.
    pub skipped_count: u64,
}

/// Copies `host` to `target`, which must not exist. `home` is left out if it is inside.
pub(super) fn copy(
    host: &Path,
    target: &Path,
    home: &Path,
    mode: Mode,
    bytes_max: u64,
) -> Result<Imported, SandboxError> {
    let root = at("read", host, fs::metadata(host))?;
    if !root.is_dir() {
        return Err(fail("import", host, "it is not a directory"));
    }
    let home = at("read", home, fs::metadata(home))?;
    let mut report = Imported {
        layer: LayerId::from_random([0; 8]),
        entries: 0,
        bytes: 0,
        skipped: Vec::new(),
        skipped_count: 0,
    };
    let mut dirs: Vec<(std::path::PathBuf, Metadata)> = vec![(target.to_owned(), root)];
    at("create", target, fs::create_dir(target))?;
    let mut todo = vec![(host.to_owned(), target.to_owned())];
    while let Some((from, to)) = todo.pop() {
        for entry in tree::entries(&from)? {
            let to = to.join(&entry.name);
            report.entries += 1;
            if report.entries > ENTRIES_MAX {
                return Err(SandboxError::TooMany {
                    what: "the number of files of a workspace".to_owned(),
                    max: ENTRIES_MAX,
                });
            }
            let ours = (entry.meta.dev(), entry.meta.ino()) == (home.dev(), home.ino());
            if entry.meta.is_dir() && !ours {
                at("create", &to, fs::create_dir(&to))?;
                todo.push((entry.path, to.clone()));
                dirs.push((to, entry.meta));
            } else if (entry.meta.is_file() || entry.meta.is_symlink()) && !ours {
                report.bytes += if entry.meta.is_file() { entry.meta.len() } else { 0 };
                if report.bytes > bytes_max {
                    return Err(SandboxError::ImportTooLarge {
                        path: host.to_owned(),
                        limit_bytes: bytes_max,
                    });
                }
                copy_leaf(&entry.path, &to, mode)?;
            } else {
                skip(&mut report, host, &entry);
            }
        }
    }
    // Last, so that a directory that may not be written could be filled before.
    for (dir, meta) in dirs.into_iter().rev() {
        tree::give_away(mode, &dir)?;
        copy_attributes(&dir, &meta)?;
    }
    Ok(report)
}

fn skip(report: &mut Imported, host: &Path, entry: &Entry) {
    report.entries -= 1;
    report.skipped_count += 1;
    if report.skipped.len() < SKIPPED_NAMES_MAX {
        let name = entry.path.strip_prefix(host).unwrap_or(&entry.path);
        report.skipped.push(name.to_string_lossy().into_owned());
    }
}

/// Copies a regular file or a symbolic link, by sharing its blocks where the file system can.
pub(super) fn copy_leaf(from: &Path, to: &Path, mode: Mode) -> Result<(), SandboxError> {
    let meta = at("read", from, fs::symlink_metadata(from))?;
    if meta.is_symlink() {
        let target = at("read", from, fs::read_link(from))?;
        at("create", to, symlink(target, to))?;
        tree::give_away(mode, to)?;
        return at("date", to, set_times(to, &meta));
    }
    let open =
        || File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(from);
    let source = at("read", from, open())?;
    let mut target = at("create", to, File::create_new(to))?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_err() {
        let mut source = source;
        at("copy", from, io::copy(&mut source, &mut target))?;
    }
    drop(target);
    tree::give_away(mode, to)?;
    copy_attributes(to, &meta)
}

/// Gives a file or directory the permissions and times of another.
pub(super) fn copy_attributes(to: &Path, meta: &Metadata) -> Result<(), SandboxError> {
    let bits = fs::Permissions::from_mode(meta.permissions().mode() & MODE_KEPT);
    at("protect", to, fs::set_permissions(to, bits))?;
    at("date", to, set_times(to, meta))
}

fn set_times(path: &Path, meta: &Metadata) -> io::Result<()> {
    let time = |seconds: i64, nanos: i64| Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    Ok(rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
