//! The layer store's files: metadata, locks, removal, syncing.

use crate::mode::Mode;
use crate::{HOST_ID_AS_ROOT, SandboxError};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::fs::{File, Permissions};
use std::io::{Error, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use types::LayerId;

/// Extension of a layer that has no name yet.
pub(super) const STAGED: &str = "staged";
const META_FILE: &str = "meta.json";

/// What is known of a layer beside its tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) parent: Option<LayerId>,
    /// Bytes written since the import, in this layer and below.
    pub(super) grown_bytes: u64,
    /// The boot it was sealed in.
    pub(super) boot: String,
    /// Whether it survives a power cut.
    pub(super) flushed: bool,
    /// A layer without a parent that holds the same.
    pub(super) flat: Option<LayerId>,
}

pub(super) fn failed(action: &str, path: &Path, error: &Error) -> SandboxError {
    SandboxError::Store { action: action.to_owned(), path: path.to_owned(), why: error.to_string() }
}

pub(super) fn new_id() -> Result<LayerId, SandboxError> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|error| SandboxError::setup("random bytes", error))?;
    Ok(LayerId::from_random(random))
}

/// As root, a file of a workspace belongs to the sandbox's host id, never to root.
pub(super) fn give_to_sandbox(path: &Path) -> Result<(), SandboxError> {
    if Mode::here() != Mode::Root {
        return Ok(());
    }
    let id = Some(HOST_ID_AS_ROOT);
    std::os::unix::fs::lchown(path, id, id).map_err(|error| failed("give away", path, &error))
}

/// Takes a lock file, creating it.
pub(super) fn lock(path: &Path, upper: &str) -> Result<File, SandboxError> {
    let open = File::options().create(true).truncate(false).write(true).open(path);
    let file = open.map_err(|error| failed("lock", path, &error))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| SandboxError::UpperInUse { upper: upper.to_owned() })?;
    Ok(file)
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<(), SandboxError> {
    std::fs::rename(from, to).map_err(|error| failed("rename", from, &error))
}

pub(super) fn children(dir: &Path) -> Result<Vec<PathBuf>, SandboxError> {
    let entries = std::fs::read_dir(dir).map_err(|error| failed("read", dir, &error))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Removes a tree whatever permissions a sandbox gave its directories. What resists stays, and is
/// tried again when uppers are reaped.
pub(super) fn remove_tree(dir: &Path) {
    let Ok(meta) = dir.symlink_metadata() else { return };
    if !meta.is_dir() {
        let _ = std::fs::remove_file(dir);
        return;
    }
    let _ = std::fs::set_permissions(dir, Permissions::from_mode(0o700));
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        remove_tree(&entry.path());
    }
    let _ = std::fs::remove_dir(dir);
}

/// Entries below a directory, and the bytes of its regular files.
pub(super) fn count(dir: &Path) -> Result<(u64, u64), SandboxError> {
    let (mut entries, mut bytes) = (0, 0);
    for path in children(dir)? {
        let meta = path.symlink_metadata().map_err(|error| failed("read", &path, &error))?;
        entries += 1;
        if meta.is_dir() {
            let _ = readable_dir(&path);
            let (inner_entries, inner_bytes) = count(&path)?;
            entries += inner_entries;
            bytes += inner_bytes;
        } else if meta.is_file() {
            bytes += meta.len();
        }
    }
    Ok((entries, bytes))
}

/// A sandbox may take its own rights to a directory away; ours come back for as long as it takes
/// to read it. Returns the mode to restore.
fn readable_dir(path: &Path) -> Option<u32> {
    const OWNER_ALL: u32 = 0o700;
    let mode = path.symlink_metadata().ok()?.permissions().mode();
    if mode & OWNER_ALL == OWNER_ALL || Mode::here() == Mode::Root {
        return None;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode | OWNER_ALL)).ok()?;
    Some(mode)
}

pub(super) fn sync_path(path: &Path) -> Result<(), SandboxError> {
    let file = File::open(path).map_err(|error| failed("sync", path, &error))?;
    file.sync_all().map_err(|error| failed("sync", path, &error))
}

/// Syncs every file and directory of a tree.
pub(super) fn sync_tree(dir: &Path) -> Result<(), SandboxError> {
    for path in children(dir)? {
        let meta = path.symlink_metadata().map_err(|error| failed("sync", &path, &error))?;
        if meta.is_dir() {
            sync_tree(&path)?;
        } else if meta.is_file() {
            match File::open(&path) {
                Ok(file) => file.sync_all().map_err(|error| failed("sync", &path, &error))?,
                Err(_) => sync_unreadable(&path, meta.permissions())?,
            }
        }
    }
    sync_path(dir)
}

/// A file without the owner's right to read is still ours to sync.
fn sync_unreadable(path: &Path, permissions: Permissions) -> Result<(), SandboxError> {
    let set = |permissions| {
        std::fs::set_permissions(path, permissions).map_err(|error| failed("sync", path, &error))
    };
    set(Permissions::from_mode(permissions.mode() | 0o400))?;
    let synced = sync_path(path);
    set(permissions)?;
    synced
}

/// Replaces a layer's metadata: the old one or the new one is there, never half of either.
pub(super) fn write_meta(dir: &Path, meta: &Meta, durable: bool) -> Result<(), SandboxError> {
    let path = dir.join(META_FILE);
    let temporary = dir.join("meta.new");
    let bytes = serde_json::to_vec(meta).expect("metadata is plain data");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, &path)
    };
    write().map_err(|error| failed("write", &path, &error))?;
    if durable { sync_path(dir) } else { Ok(()) }
}

pub(super) fn read_meta(dir: &Path, layer: &LayerId) -> Result<Meta, SandboxError> {
    let absent = || SandboxError::NoSuchLayer { layer: layer.to_string(), lost: false };
    let bytes = std::fs::read(dir.join(META_FILE)).map_err(|_| absent())?;
    serde_json::from_slice(&bytes)
        .map_err(|error| failed("read", &dir.join(META_FILE), &Error::other(error)))
}
