//! The home directory: where things are, whether we may use it, and its first making.
//!
//! ```text
//! HOME/log/lock      held (flock) by the one process that writes
//! HOME/log/log.db    the log: headers, sealed content, branches, runs, settings
//! HOME/log/keys/     one file per run: its key
//! HOME/log/blobs/    one file per large payload, sealed
//! ```
//!
//! What always holds: a home that is refused is left exactly as it was; `log.db` appears whole.

use crate::StoreError;
use crate::files::{Files, io_error, sync_dir};
use crate::sql;
use rustix::fs::{Access, FlockOperation};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes of an SQLite file's header, and where the numbers we need are in it.
const DB_HEADER_BYTES: usize = 100;
const DB_MAGIC: &[u8; 16] = b"SQLite format 3\0";
const USER_VERSION_AT: usize = 60;
const APPLICATION_ID_AT: usize = 68;

#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// As the operator named it.
    path: PathBuf,
    /// `HOME/log`.
    dir: PathBuf,
    pub(crate) keys: Files,
    pub(crate) blobs: Files,
}

/// Held as long as this process is the one that writes.
#[derive(Debug)]
pub(crate) struct OwnerLock(#[expect(dead_code, reason = "closing it releases the lock")] File);

/// Held as long as nobody can begin to write; absent when there is no lock, as in a copy.
#[derive(Debug)]
pub(crate) struct StillLock(
    #[expect(dead_code, reason = "closing it releases the lock")] Option<File>,
);

impl Home {
    pub(crate) fn at(path: &Path) -> Self {
        let dir = path.join("log");
        Self {
            path: path.to_owned(),
            keys: Files::at(dir.join("keys")),
            blobs: Files::at(dir.join("blobs")),
            dir,
        }
    }

    pub(crate) fn db(&self) -> PathBuf {
        self.dir.join("log.db")
    }

    pub(crate) fn wal(&self) -> PathBuf {
        self.dir.join("log.db-wal")
    }

    fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Whether there is a log to read. Changes nothing.
    pub(crate) fn check_readable(&self) -> Result<bool, StoreError> {
        self.check_dir(&self.path)?;
        self.check_dir(&self.dir)?;
        self.check_log()
    }

    /// Checks, locks, and makes what is missing.
    pub(crate) fn own(&self) -> Result<OwnerLock, StoreError> {
        for dir in [&self.path, &self.dir] {
            if self.check_dir(dir)? {
                self.check_ours(dir)?;
            }
        }
        self.check_log()?;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| self.refused(&error))?;
        let lock = self.lock()?;
        if !self.check_log()? {
            self.create_log()?;
        }
        for files in [&self.keys, &self.blobs] {
            files.prepare().map_err(|error| self.refused(&error))?;
        }
        self.sync_names().map_err(|error| self.refused(&error))?;
        Ok(lock)
    }

    /// `false` when there is nothing at `dir`.
    fn check_dir(&self, dir: &Path) -> Result<bool, StoreError> {
        match std::fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => Ok(true),
            Ok(_) => Err(StoreError::HomeUnusable {
                path: self.shown(),
                why: format!("{} is not a directory", dir.display()),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                Err(StoreError::HomeUnusable { path: self.shown(), why: error.to_string() })
            }
        }
    }

    fn check_ours(&self, dir: &Path) -> Result<(), StoreError> {
        let owner = std::fs::metadata(dir).map_err(|error| self.refused(&error))?.uid();
        let user = rustix::process::geteuid().as_raw();
        if owner != user {
            let path = self.shown();
            return Err(StoreError::HomeNotOurs { path, owner, user });
        }
        let access = Access::WRITE_OK | Access::EXEC_OK;
        rustix::fs::access(dir, access).map_err(|error| self.refused(&error.into()))
    }

    /// Whether there is a log, and it is one of ours. Reads the file's first bytes only: opening it
    /// as a database could change it.
    fn check_log(&self) -> Result<bool, StoreError> {
        let path = self.db();
        let not_a_log = |why: String| StoreError::NotALog { path: path.display().to_string(), why };
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened.map_err(|error| not_a_log(error.to_string()))?,
        };
        let mut header = [0; DB_HEADER_BYTES];
        file.read_exact(&mut header).map_err(|_| not_a_log("it is too short".to_owned()))?;
        if !header.starts_with(DB_MAGIC)
            || number(&header, APPLICATION_ID_AT) != sql::APPLICATION_ID
        {
            return Err(not_a_log("another program made it".to_owned()));
        }
        match number(&header, USER_VERSION_AT) {
            sql::VERSION => Ok(true),
            found => Err(StoreError::WrongVersion {
                path: path.display().to_string(),
                found,
                supported: sql::VERSION,
            }),
        }
    }

    fn lock(&self) -> Result<OwnerLock, StoreError> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(self.dir.join("lock")).map_err(|error| self.refused(&error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(OwnerLock(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Busy { path: self.shown() }),
            Err(error) => Err(self.refused(&error.into())),
        }
    }

    /// A log in a directory that we cannot write, such as one on read-only media: SQLite cannot make
    /// its shared memory there. While the result is held, and as nothing waits in a write-ahead
    /// log, the file does not change. `None`: it may, or it can be opened as usual.
    pub(crate) fn still(&self) -> Option<StillLock> {
        rustix::fs::access(&self.dir, Access::WRITE_OK).err()?;
        let waiting = std::fs::metadata(self.wal()).map_or(0, |meta| meta.len());
        let lock = match File::open(self.dir.join("lock")) {
            Ok(file) => {
                rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).ok()?;
                Some(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => return None,
        };
        (waiting == 0).then_some(StillLock(lock))
    }

    /// Under the lock: made under another name, so that it appears whole.
    fn create_log(&self) -> Result<(), StoreError> {
        let making = self.dir.join("log.db.new");
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let left = self.dir.join(format!("log.db.new{suffix}"));
            match std::fs::remove_file(left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.refused(&error));
                }
                _ => {}
            }
        }
        let mut options = OpenOptions::new();
        options.create_new(true).write(true).mode(0o600);
        options.open(&making).map_err(|error| self.refused(&error))?;
        sql::create(&making)?;
        File::open(&making)
            .and_then(|file| file.sync_all())
            .and_then(|()| std::fs::rename(&making, self.db()))
            .map_err(|error| self.refused(&error))
    }

    /// Makes the names of everything here durable, up to the home's own.
    fn sync_names(&self) -> io::Result<()> {
        sync_dir(&self.dir)?;
        sync_dir(&self.path)?;
        match self.path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => sync_dir(parent),
            _ => Ok(()),
        }
    }

    fn refused(&self, error: &io::Error) -> StoreError {
        let (path, why) = (self.shown(), error.to_string());
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::HomeReadOnly { path, why }
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                StoreError::HomeUnusable { path, why }
            }
            _ => io_error(&format!("prepare {path}"), error),
        }
    }
}

fn number(header: &[u8; DB_HEADER_BYTES], at: usize) -> u32 {
    let bytes = header[at..at + 4].try_into().expect("four bytes");
    u32::from_be_bytes(bytes)
}
