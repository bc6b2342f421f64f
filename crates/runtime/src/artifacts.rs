//! Results: files of the workspace that the manifest names, copied out as plain files.

use crate::error::RuntimeError;
use globset::{GlobBuilder, GlobSetBuilder};
use sandbox::FileKind;
use sandbox::layers::LayerStore;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use types::{Digest, LayerId};

/// Most files kept of one run.
pub const ARTIFACT_FILES_MAX: usize = 1_000;
/// Largest result, in bytes.
pub const ARTIFACT_BYTES_MAX: u64 = 256 << 20;

/// A kept file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) path: String,
    pub(crate) sha256: Digest,
    pub(crate) bytes: u64,
}

/// Copies every regular file that a glob matches to `target`, and names what was kept, sorted.
pub(crate) fn keep(
    layers: &LayerStore,
    layer: &LayerId,
    globs: &[String],
    target: &Path,
) -> Result<Vec<Kept>, RuntimeError> {
    let mut builder = GlobSetBuilder::new();
    for glob in globs {
        let glob = GlobBuilder::new(glob).literal_separator(true).build();
        builder.add(glob.map_err(|error| RuntimeError::ConfigFile {
            path: "[artifacts] paths".into(),
            reason: error.to_string(),
        })?);
    }
    let wanted = builder.build().map_err(|error| RuntimeError::ConfigFile {
        path: "[artifacts] paths".into(),
        reason: error.to_string(),
    })?;
    let files = layers.list_files(layer).map_err(|error| RuntimeError::part(&error))?;
    let mut kept = Vec::new();
    let files = files.into_iter().filter(|file| file.kind == FileKind::File);
    for path in files.map(|file| file.path).filter(|path| wanted.is_match(path)) {
        if kept.len() == ARTIFACT_FILES_MAX {
            let what = "the list of results, in files,".to_owned();
            let bytes = kept.len() as u64 + 1;
            return Err(RuntimeError::TooLarge { what, bytes, limit: ARTIFACT_FILES_MAX as u64 });
        }
        let source = layers.open_file(layer, &path).map_err(|error| RuntimeError::part(&error))?;
        kept.push(copy(source, path, target)?);
    }
    kept.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(kept)
}

fn copy(mut source: File, path: String, target: &Path) -> Result<Kept, RuntimeError> {
    let to = target.join(&path);
    let fail = |reason: String| RuntimeError::Apply { path: to.clone(), reason };
    let size = source.metadata().map_err(|error| fail(error.to_string()))?.len();
    if size > ARTIFACT_BYTES_MAX {
        let what = format!("the result {path}");
        return Err(RuntimeError::TooLarge { what, bytes: size, limit: ARTIFACT_BYTES_MAX });
    }
    let mut bytes = Vec::new();
    Read::take(&mut source, ARTIFACT_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(|error| fail(error.to_string()))?;
    let parent = to.parent().expect("a result lies in a directory");
    std::fs::create_dir_all(parent).map_err(|error| fail(error.to_string()))?;
    // Written beside and renamed, so that a crash leaves the old one or the new one.
    let temporary = to.with_extension("bedplate-partial");
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, &to)
    };
    write().map_err(|error| fail(error.to_string()))?;
    Ok(Kept { path, sha256: Digest::of(&bytes), bytes: bytes.len() as u64 })
}
