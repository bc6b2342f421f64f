//! Copying a host directory into a layer.

use super::disk::{failed, give_to_sandbox};
use crate::SandboxError;
use std::fs::{File, FileTimes, Metadata};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

/// Deepest directory that is copied.
const DEPTH_MAX: usize = 256;

/// A copy in progress.
pub(super) struct Copy {
    source: PathBuf,
    home: Option<(u64, u64)>,
    limit_bytes: u64,
    bytes: u64,
    depth: usize,
}

impl Copy {
    pub(super) fn new(source: &Path, home: &Path, limit_bytes: u64) -> Self {
        let home = home.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
        Self { source: source.to_owned(), home, limit_bytes, bytes: 0, depth: 0 }
    }

    /// Copies what a directory holds into `to`, which exists.
    pub(super) fn tree(&mut self, from: &Path, to: &Path) -> Result<(), SandboxError> {
        if self.depth > DEPTH_MAX {
            let what = "the depth of a workspace's directories".to_owned();
            return Err(SandboxError::TooMany { what, max: DEPTH_MAX as u64 });
        }
        let meta = from.metadata().map_err(|error| failed("read", from, &error))?;
        // A directory that cannot be read is there, and empty.
        for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
            let (source, target) = (entry.path(), to.join(entry.file_name()));
            let Ok(meta) = source.symlink_metadata() else { continue };
            self.entry(&source, &target, &meta)?;
        }
        like_source(to, &meta)
    }

    fn entry(&mut self, source: &Path, target: &Path, meta: &Metadata) -> Result<(), SandboxError> {
        if meta.is_dir() {
            if self.home == Some((meta.dev(), meta.ino())) {
                return Ok(());
            }
            std::fs::create_dir(target).map_err(|error| failed("create", target, &error))?;
            self.depth += 1;
            self.tree(source, target)?;
            self.depth -= 1;
            return Ok(());
        }
        if meta.is_symlink() {
            let link = std::fs::read_link(source).map_err(|error| failed("read", source, &error))?;
            symlink(link, target).map_err(|error| failed("create", target, &error))?;
            return give_to_sandbox(target);
        }
        if !meta.is_file() {
            return Ok(());
        }
        self.bytes = self.bytes.saturating_add(meta.len());
        if self.bytes > self.limit_bytes {
            let (path, limit_bytes) = (self.source.clone(), self.limit_bytes);
            return Err(SandboxError::ImportTooLarge { path, limit_bytes });
        }
        match std::fs::copy(source, target) {
            Ok(_) => like_source(target, meta),
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                let _ = std::fs::remove_file(target);
                Ok(())
            }
            // It was removed while we copied.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("copy", source, &error)),
        }
    }
}

/// Permissions and times of the source; the sandbox as owner. No set-id bits come along.
fn like_source(target: &Path, meta: &Metadata) -> Result<(), SandboxError> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |error: std::io::Error| failed("copy", target, &error);
    let mode = std::fs::Permissions::from_mode(meta.mode() & 0o777 | 0o600);
    let mode = if meta.is_dir() {
        std::fs::Permissions::from_mode(meta.mode() & 0o777 | 0o700)
    } else {
        mode
    };
    std::fs::set_permissions(target, mode).map_err(fail)?;
    let mut times = FileTimes::new();
    if let Ok(modified) = meta.modified() {
        times = times.set_modified(modified);
    }
    File::open(target).and_then(|file| file.set_times(times)).map_err(fail)?;
    give_to_sandbox(target)
}
