//! Memories: what agents keep beyond their runs, each a line of versions.
//!
//! ```text
//!  version n --a run's end: merged--> version n + 1 --a person: changed--> version n + 2
//! ```
//!
//! On disk, below the home: `memory/ID/about.json` and `memory/ID/versions/NUMBER.json`; the trees are
//! layers. What always holds: a version's number is given once, by the kernel, to whoever names its
//! file first; its tree is on the disk before it; nothing of a version changes afterwards. A memory
//! belongs to one agent and one user or team.
//!
//! Everything here blocks.

mod change;
mod offer;

pub use change::MemoryChange;
pub(crate) use change::changed;
pub(crate) use offer::{Offer, offer};

use crate::error::RuntimeError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use types::{Labels, LayerId, MemoryOf, RunId};

/// Versions of one memory that are kept; older ones go when a new one comes.
pub const VERSIONS_MAX: u64 = 100;
/// Bytes of one file that a person writes.
pub const FILE_BYTES_MAX: u64 = 16 << 20;
/// Files and directories of one memory.
pub const ENTRIES_MAX: usize = 10_000;

const DIR: &str = "memory";
const ABOUT: &str = "about.json";
const VERSIONS: &str = "versions";
/// Digits of a version's number in its file's name.
const DIGITS: usize = 10;

/// Whose change made a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A run brought this tree of its own.
    Run {
        /// The run.
        run: RunId,
        /// Its tree.
        tree: LayerId,
    },
    /// A person.
    Person {
        /// Who.
        name: String,
    },
}

/// One version of a memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Its number, from 1.
    pub number: u64,
    /// Its tree.
    pub layer: LayerId,
    /// Who made it.
    pub origin: Origin,
    /// When, wall milliseconds.
    pub time_ms: u64,
    /// Where what it holds came from.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// Paths that differ from the version before.
    pub changed: u64,
    /// Files and directories.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// The memories of a home.
#[derive(Debug, Clone)]
pub struct Memories {
    dir: PathBuf,
}

/// An error of the files of a memory.
fn fail(path: &Path, error: &impl ToString) -> RuntimeError {
    RuntimeError::Memory { path: path.to_owned(), reason: error.to_string() }
}

impl Memories {
    /// Those of this home. Nothing is read yet.
    #[must_use]
    pub fn new(home: &Path) -> Self {
        Self { dir: home.join(DIR) }
    }

    fn versions_dir(&self, of: &MemoryOf) -> PathBuf {
        self.dir.join(of.id()).join(VERSIONS)
    }

    fn file(&self, of: &MemoryOf, number: u64) -> PathBuf {
        self.versions_dir(of).join(format!("{number:0DIGITS$}.json"))
    }

    /// Every memory that has a version, with the newest.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`].
    pub fn list(&self) -> Result<Vec<(MemoryOf, Version)>, RuntimeError> {
        let mut list = Vec::new();
        for path in entries(&self.dir)? {
            let Some(of) = read::<MemoryOf>(&path.join(ABOUT))? else { continue };
            if let Some(newest) = self.newest(&of)? {
                list.push((of, newest));
            }
        }
        list.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(list)
    }

    /// The newest version; `None` when nobody has written to it.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`].
    pub fn newest(&self, of: &MemoryOf) -> Result<Option<Version>, RuntimeError> {
        match self.numbers(of)?.last() {
            Some(number) => read(&self.file(of, *number)),
            None => Ok(None),
        }
    }

    /// The versions that are kept, the newest first.
    ///
    /// # Errors
    /// [`RuntimeError::Memory`].
    pub fn versions(&self, of: &MemoryOf) -> Result<Vec<Version>, RuntimeError> {
        let mut versions = Vec::new();
        for number in self.numbers(of)?.into_iter().rev() {
            versions.extend(read(&self.file(of, number))?);
        }
        Ok(versions)
    }

    /// One version.
    ///
    /// # Errors
    /// [`RuntimeError::NoMemory`] when it is not kept, [`RuntimeError::Memory`].
    pub fn version(&self, of: &MemoryOf, number: u64) -> Result<Version, RuntimeError> {
        let found = read(&self.file(of, number))?;
        found.ok_or_else(|| RuntimeError::NoMemory { what: format!("version {number} of {of}") })
    }

    fn numbers(&self, of: &MemoryOf) -> Result<Vec<u64>, RuntimeError> {
        let number = |path: PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let mut numbers: Vec<u64> =
            entries(&self.versions_dir(of))?.into_iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Adds a version. `false` when somebody else took its number first.
    pub(crate) fn add(&self, of: &MemoryOf, version: &Version) -> Result<bool, RuntimeError> {
        let dir = self.versions_dir(of);
        let made = fs::create_dir_all(&dir)
            .and_then(|()| fs::set_permissions(&self.dir, fs::Permissions::from_mode(0o700)));
        made.map_err(|error| fail(&dir, &error))?;
        let about = self.dir.join(of.id()).join(ABOUT);
        if !about.exists() {
            put(&about, of)?;
        }
        let file = self.file(of, version.number);
        let staged = dir.join(format!("{}.new", version.layer));
        put(&staged, version)?;
        let named = fs::hard_link(&staged, &file);
        let _ = fs::remove_file(&staged);
        match named {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            Err(error) => return Err(fail(&file, &error)),
        }
        sync_dir(&dir)?;
        for old in self.numbers(of)? {
            if old + VERSIONS_MAX <= version.number {
                let _ = fs::remove_file(self.file(of, old));
            }
        }
        Ok(true)
    }

    /// Removes a memory with all its versions.
    pub(crate) fn forget(&self, of: &MemoryOf) -> Result<(), RuntimeError> {
        let dir = self.dir.join(of.id());
        if self.newest(of)?.is_none() {
            return Err(RuntimeError::NoMemory { what: of.to_string() });
        }
        fs::remove_dir_all(&dir).map_err(|error| fail(&dir, &error))?;
        sync_dir(&self.dir)
    }

    /// The layers that some version needs.
    pub(crate) fn in_use(&self) -> Result<Vec<LayerId>, RuntimeError> {
        let mut layers = Vec::new();
        for (of, _) in self.list()? {
            layers.extend(self.versions(&of)?.into_iter().map(|version| version.layer));
        }
        Ok(layers)
    }
}

/// The paths in a directory; none when it is not there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, RuntimeError> {
    match fs::read_dir(dir) {
        Ok(list) => Ok(list.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(fail(dir, &error)),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, RuntimeError> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| fail(path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(path, &error)),
    }
}

/// Writes a file whole, and through to the disk.
fn put(path: &Path, value: &impl Serialize) -> Result<(), RuntimeError> {
    let bytes = serde_json::to_vec(value).expect("plain data");
    let write = || {
        let staged = path.with_extension("part");
        let mut file = File::create(&staged)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)
    };
    write().map_err(|error| fail(path, &error))
}

fn sync_dir(dir: &Path) -> Result<(), RuntimeError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| fail(dir, &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::manifest::Serves;

    fn of(name: &str) -> MemoryOf {
        MemoryOf { agent: "a".to_owned(), serves: Serves::User, name: name.to_owned() }
    }

    fn version(number: u64) -> Version {
        Version {
            number,
            layer: LayerId::from_random(number.to_be_bytes()),
            origin: Origin::Person { name: "ada".to_owned() },
            time_ms: 1,
            labels: Labels::none(),
            changed: 1,
            entries: 1,
            bytes: 1,
        }
    }

    #[test]
    fn a_number_is_given_once_and_old_versions_go() {
        let home = tempfile::tempdir().expect("a directory");
        let memories = Memories::new(home.path());
        assert_eq!(memories.newest(&of("ada")).expect("read"), None);
        for number in 1..=VERSIONS_MAX + 1 {
            assert!(memories.add(&of("ada"), &version(number)).expect("added"));
        }
        let second = Version { bytes: 2, ..version(VERSIONS_MAX + 1) };
        assert!(!memories.add(&of("ada"), &second).expect("asked"), "its number is taken");
        let kept = memories.versions(&of("ada")).expect("read");
        assert_eq!(kept.len() as u64, VERSIONS_MAX);
        assert_eq!(kept[0], version(VERSIONS_MAX + 1));
        assert_eq!(kept.last().map(|version| version.number), Some(2));
        assert_eq!(memories.newest(&of("bob")).expect("read"), None, "another user's is another");
        assert_eq!(memories.in_use().expect("read").len() as u64, VERSIONS_MAX);
        memories.forget(&of("ada")).expect("forgotten");
        assert!(memories.list().expect("read").is_empty());
        let error = memories.forget(&of("ada")).expect_err("it is gone");
        assert_eq!(types::Coded::code(&error), "BP-RUN-027");
    }

    #[test]
    fn a_broken_file_is_said_and_left() {
        let home = tempfile::tempdir().expect("a directory");
        let memories = Memories::new(home.path());
        memories.add(&of("ada"), &version(1)).expect("added");
        fs::write(memories.file(&of("ada"), 1), "{").expect("broken");
        let error = memories.newest(&of("ada")).expect_err("it cannot be read");
        assert_eq!(types::Coded::code(&error), "BP-RUN-026");
        assert!(memories.file(&of("ada"), 1).exists());
    }
}
