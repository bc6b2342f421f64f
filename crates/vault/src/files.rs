//! The vault's directory: whole files of ours alone, replaced at once, overwritten before they go.

use crate::{Result, VaultError};
use rustix::event::Timespec;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Bytes of a record's file; what is longer is none of ours.
const RECORD_BYTES_MAX: usize = 72 << 10;
/// How often the lock is tried: for ten seconds.
const LOCK_TRIES_MAX: u64 = 1_000;
/// Between two tries, milliseconds.
const LOCK_PAUSE_MS: u64 = 10;
/// What a record's file is called after the secret's name.
const SUFFIX: &str = ".secret";
/// What a file is called that is not whole yet.
const UNFINISHED: &str = ".new";
/// Permissions of others: none.
const OTHERS: u32 = 0o077;

/// What tells one state of a file from another: where it lies, its size, and when bytes or rights
/// last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    place: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Of what lies under this path, a link itself; none when there is nothing.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let meta = std::fs::symlink_metadata(path).ok()?;
        Some(Self {
            place: (meta.dev(), meta.ino()),
            bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// What lies under a path.
pub(crate) enum Found {
    Nothing,
    TooLong,
    Bytes(Zeroizing<Vec<u8>>),
}

/// The directory of records.
#[derive(Debug)]
pub(crate) struct Dir(PathBuf);

/// Held while the vault is written.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it releases the lock")] File);

impl Dir {
    pub(crate) const fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}{SUFFIX}"))
    }

    /// Whether the directory is there. Refuses one that is not ours alone.
    pub(crate) fn check(&self) -> Result<bool> {
        match std::fs::symlink_metadata(&self.0) {
            Ok(meta) if meta.is_dir() => check_ours(&self.0, &meta).map(|()| true),
            Ok(_) => Err(exposed(&self.0, "it is no directory")),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("look at the vault", &error)),
        }
    }

    /// Makes the directory when it is not there.
    pub(crate) fn prepare(&self) -> Result<()> {
        if self.check()? {
            return Ok(());
        }
        match DirBuilder::new().mode(0o700).create(&self.0) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(failed("make the vault", &error));
            }
            _ => {}
        }
        self.check()?;
        sync_parent(&self.0).map_err(|error| failed("make the vault", &error))
    }

    /// Waits until no other command writes here.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let pause = Timespec { tv_sec: 0, tv_nsec: (LOCK_PAUSE_MS * 1_000_000).cast_signed() };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).write(true).mode(0o600);
        let file = options.open(self.0.join("lock"));
        let file = file.map_err(|error| failed("lock the vault", &error))?;
        for _ in 0..LOCK_TRIES_MAX {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Lock(file)),
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let _ = rustix::event::poll(&mut [], Some(&pause));
                }
                Err(error) => return Err(failed("lock the vault", &error.into())),
            }
        }
        Err(VaultError::Busy { seconds: LOCK_TRIES_MAX * LOCK_PAUSE_MS / 1_000 })
    }

    /// Removes what a crash left unfinished. Under the lock.
    pub(crate) fn sweep(&self) -> Result<()> {
        for name in self.listed()? {
            if name.ends_with(UNFINISHED) {
                destroy(&self.0.join(name)).map_err(|error| failed("clear the vault", &error))?;
            }
        }
        Ok(())
    }

    /// The names of all records, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let mut names: Vec<String> = self
            .listed()?
            .iter()
            .filter_map(|name| name.strip_suffix(SUFFIX).map(str::to_owned))
            .collect();
        names.sort_unstable();
        Ok(names)
    }

    fn listed(&self) -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed("list the vault", &error)),
        };
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect::<io::Result<_>>().map_err(|error| failed("list the vault", &error))
    }

    /// Whether there is a record, in whatever state.
    pub(crate) fn has(&self, name: &str) -> bool {
        std::fs::symlink_metadata(self.file(name)).is_ok()
    }

    /// The state of a record's file; `None` when there is none.
    pub(crate) fn stamp(&self, name: &str) -> Option<Stamp> {
        Stamp::of(&self.file(name))
    }

    /// A record's bytes; `None` when there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        match read_ours(&self.file(name), RECORD_BYTES_MAX)? {
            Found::Nothing => Ok(None),
            Found::Bytes(bytes) => Ok(Some(bytes)),
            Found::TooLong => {
                let why = format!("it has more than {RECORD_BYTES_MAX} bytes");
                Err(VaultError::Damaged { name: name.to_owned(), why })
            }
        }
    }

    /// Puts a record in the place of the one before, which is then overwritten. Under the lock.
    pub(crate) fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.file(name);
        let before = OpenOptions::new().write(true).open(&path).ok();
        write_whole(&path, bytes)?;
        // Its name is gone; who has it open still, reads a whole record or zeros, which is none.
        before.map_or(Ok(()), |file| wipe(&file)).map_err(|error| failed("overwrite", &error))
    }

    /// Overwrites and removes a record; `false` when there is none. Under the lock.
    pub(crate) fn destroy(&self, name: &str) -> Result<bool> {
        let gone = |error: io::Error| failed("remove a secret", &error);
        let there = destroy(&self.file(name)).map_err(gone)?;
        File::open(&self.0).and_then(|dir| dir.sync_all()).map_err(gone)?;
        Ok(there)
    }
}

/// Reads a regular file of ours that nobody else may touch; links are not followed.
pub(crate) fn read_ours(path: &Path, bytes_max: usize) -> Result<Found> {
    let doing = format!("read {}", path.display());
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(Found::Nothing),
        Err(rustix::io::Errno::LOOP) => return Err(exposed(path, "it is a link")),
        Err(error) => return Err(failed(&doing, &error.into())),
    };
    let meta = file.metadata().map_err(|error| failed(&doing, &error))?;
    if !meta.is_file() {
        return Err(exposed(path, "it is no regular file"));
    }
    check_ours(path, &meta)?;
    // Room for all of it at once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(bytes_max + 1));
    let mut file = file.take(bytes_max as u64 + 1);
    file.read_to_end(&mut bytes).map_err(|error| failed(&doing, &error))?;
    if bytes.len() > bytes_max { Ok(Found::TooLong) } else { Ok(Found::Bytes(bytes)) }
}

/// Writes a file beside its final name, durably, then gives it that name, durably.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(UNFINISHED);
    let unfinished = PathBuf::from(unfinished);
    let write = || {
        destroy(&unfinished)?;
        let mut options = OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        sync_parent(path)
    };
    write().map_err(|error| {
        // Swept later, if it cannot be removed now.
        let _ = destroy(&unfinished);
        failed(&format!("write {}", path.display()), &error)
    })
}

/// Overwrites a file with zeros, durably, and removes it; `false` when there is none.
fn destroy(path: &Path) -> io::Result<bool> {
    match OpenOptions::new().write(true).custom_flags(libc_nofollow()).open(path) {
        Ok(file) => wipe(&file)?,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        // A link, or something that cannot be written: its name goes all the same.
        Err(_) => {}
    }
    std::fs::remove_file(path).map(|()| true)
}

const fn libc_nofollow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

fn wipe(mut file: &File) -> io::Result<()> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(RECORD_BYTES_MAX);
    file.rewind()?;
    file.write_all(&vec![0; length])?;
    file.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

fn check_ours(path: &Path, meta: &Metadata) -> Result<()> {
    let user = rustix::process::geteuid().as_raw();
    if meta.uid() != user {
        return Err(exposed(path, &format!("it belongs to user {}", meta.uid())));
    }
    let mode = meta.mode() & 0o777;
    if mode & OTHERS != 0 {
        return Err(exposed(path, &format!("its mode is {mode:03o}")));
    }
    Ok(())
}

fn exposed(path: &Path, why: &str) -> VaultError {
    VaultError::Exposed { path: path.to_owned(), why: why.to_owned() }
}

fn failed(doing: &str, error: &io::Error) -> VaultError {
    VaultError::Io { doing: doing.to_owned(), why: error.to_string() }
}

/// Random bytes of the kernel.
pub(crate) fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| VaultError::Io {
        doing: "get random bytes".to_owned(),
        why: error.to_string(),
    })
}
