//! The home: one directory that holds all state.

use crate::error::RuntimeError;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Paths of a home.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

impl Home {
    /// The home at this path, which must be absolute.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Creates the directory when it is not there.
    ///
    /// # Errors
    /// When it is no directory, or cannot be made or written.
    pub fn prepare(&self) -> Result<(), RuntimeError> {
        let fail = |reason: String| RuntimeError::Home { path: self.0.clone(), reason };
        match std::fs::metadata(&self.0) {
            Ok(meta) if !meta.is_dir() => return Err(fail("it is a file".to_owned())),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut builder = std::fs::DirBuilder::new();
                builder.recursive(true).mode(0o700);
                builder.create(&self.0).map_err(|error| fail(error.to_string()))?;
            }
            Err(error) => return Err(fail(error.to_string())),
        }
        rustix::fs::access(&self.0, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|error| fail(format!("it cannot be written: {error}")))
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The owner's lock.
    #[must_use]
    pub fn lock(&self) -> PathBuf {
        self.0.join("owner.lock")
    }

    /// The owner's process id.
    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.0.join("owner.pid")
    }

    /// The owner's socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("owner.sock")
    }

    /// What the owner and its children print.
    #[must_use]
    pub fn owner_log(&self) -> PathBuf {
        self.0.join("owner.log")
    }

    /// Where certificates for live sandboxes stand; whatever is there when an owner starts is left
    /// over.
    #[must_use]
    pub fn trust(&self) -> PathBuf {
        self.0.join("trust")
    }

    /// A file name for the certificates of one sandbox.
    ///
    /// # Errors
    /// When its directory cannot be made, or there is no randomness.
    pub fn trust_file(&self) -> std::io::Result<PathBuf> {
        std::fs::create_dir_all(self.trust())?;
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(std::io::Error::other)?;
        Ok(self.trust().join(format!("{:016x}.pem", u64::from_ne_bytes(random))))
    }

    /// Results of a run, as plain files.
    #[must_use]
    pub fn artifacts(&self, run: &types::RunId) -> PathBuf {
        self.0.join("artifacts").join(run.as_str())
    }
}
