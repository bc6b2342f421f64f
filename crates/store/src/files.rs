//! A directory of small and large secrets, one file each, named by a random id: run keys, and
//! payloads too large for a row.
//!
//! What always holds: a file with a final name is whole and durable; a file that no row names yet
//! is *staged* by a guard for as long as it may still become named, so that [`Files::sweep`] never
//! removes a file that a concurrent append is about to name.

use crate::StoreError;
use crate::prepare::random;
use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) const ID_BYTES: usize = 16;
pub(crate) type FileId = [u8; ID_BYTES];
const TEMPORARY: &str = ".tmp";
/// Bytes of zeros written at once over a file being destroyed.
const WIPE_BYTES: usize = 64 << 10;

#[derive(Debug, Clone)]
pub(crate) struct Files {
    dir: PathBuf,
    staged: Arc<Mutex<HashSet<FileId>>>,
}

/// A file that is written and not named by a row yet. Keep it until that is decided.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) id: FileId,
    staged: Arc<Mutex<HashSet<FileId>>>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        lock(&self.staged).remove(&self.id);
    }
}

fn lock(staged: &Mutex<HashSet<FileId>>) -> MutexGuard<'_, HashSet<FileId>> {
    // A set is never left half changed.
    staged.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    pub(crate) fn at(dir: PathBuf) -> Self {
        Self { dir, staged: Arc::default() }
    }

    /// Makes the directory if it is missing.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            made => made,
        }
    }

    fn path(&self, id: &FileId) -> PathBuf {
        self.dir.join(name(id))
    }

    /// Writes a new file and makes it durable.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<Staged, StoreError> {
        let mut id = FileId::default();
        random(&mut id)?;
        lock(&self.staged).insert(id);
        let staged = Staged { id, staged: Arc::clone(&self.staged) };
        let temporary = self.dir.join(name(&id) + TEMPORARY);
        let written = write_whole(&temporary, bytes)
            .and_then(|()| std::fs::rename(&temporary, self.path(&id)))
            .and_then(|()| sync_dir(&self.dir));
        if let Err(error) = written {
            // What is left behind is swept later.
            let _ = std::fs::remove_file(&temporary);
            let _ = std::fs::remove_file(self.path(&id));
            return Err(io_error("write a payload file", &error));
        }
        Ok(staged)
    }

    pub(crate) fn read(&self, id: &FileId) -> io::Result<Vec<u8>> {
        std::fs::read(self.path(id))
    }

    /// Removes a file; it may be gone already.
    pub(crate) fn remove(&self, id: &FileId) -> Result<(), StoreError> {
        remove_if_there(&self.path(id)).map_err(|e| io_error("remove a payload file", &e))
    }

    /// Overwrites a file with zeros, durably, and removes it, durably; it may be gone already.
    pub(crate) fn destroy(&self, id: &FileId) -> Result<(), StoreError> {
        wipe(&self.path(id))
            .and_then(|()| remove_if_there(&self.path(id)))
            .and_then(|()| sync_dir(&self.dir))
            .map_err(|error| io_error("destroy a key file", &error))
    }

    /// Files that nobody stages, for [`Files::sweep`]. List before reading which are named: a file
    /// named in between was staged or named at every moment.
    pub(crate) fn candidates(&self) -> Result<Vec<Candidate>, StoreError> {
        let failed = |error: io::Error| io_error("list payload files", &error);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(id) = entry.file_name().to_str().and_then(id_of) else {
                continue;
            };
            found.push(Candidate {
                id,
                path: entry.path(),
                bytes: entry.metadata().map_or(0, |meta| meta.len()),
            });
        }
        let staged = lock(&self.staged);
        found.retain(|candidate| !staged.contains(&candidate.id));
        Ok(found)
    }

    /// Destroys the candidates that `named` does not contain. Returns their number and size.
    pub(crate) fn sweep(
        &self,
        candidates: Vec<Candidate>,
        named: &HashSet<FileId>,
    ) -> Result<(u64, u64), StoreError> {
        let (mut count, mut bytes) = (0, 0);
        for candidate in candidates {
            let temporary = candidate.path != self.path(&candidate.id);
            if temporary || !named.contains(&candidate.id) {
                wipe(&candidate.path)
                    .and_then(|()| remove_if_there(&candidate.path))
                    .map_err(|error| io_error("remove a payload file", &error))?;
                count += 1;
                bytes += candidate.bytes;
            }
        }
        Ok((count, bytes))
    }
}

/// A file that may be garbage.
#[derive(Debug)]
pub(crate) struct Candidate {
    id: FileId,
    path: PathBuf,
    bytes: u64,
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn wipe(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let zeros = [0; WIPE_BYTES];
    let mut left = file.metadata()?.len();
    file.rewind()?;
    while left > 0 {
        let chunk = usize::try_from(left).unwrap_or(WIPE_BYTES).min(WIPE_BYTES);
        file.write_all(&zeros[..chunk])?;
        left -= chunk as u64;
    }
    file.sync_all()
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn name(id: &FileId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn id_of(name: &str) -> Option<FileId> {
    let name = name.strip_suffix(TEMPORARY).unwrap_or(name);
    let mut id = FileId::default();
    if name.len() != 2 * ID_BYTES || !name.is_ascii() {
        return None;
    }
    for (index, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&name[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(id)
}

/// An error of the system as ours: a full device is told apart.
pub(crate) fn io_error(doing: &str, error: &io::Error) -> StoreError {
    let why = error.to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full { why }
        }
        _ => StoreError::Io { doing: doing.to_owned(), why },
    }
}
