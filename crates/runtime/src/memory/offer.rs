//! A run's tree becomes a version of its memory, together with what others did meanwhile.

use super::{ENTRIES_MAX, Memories, Origin, Version};
use crate::error::RuntimeError;
use sandbox::layers::{LayerStore, Merged, Side};
use types::{Labels, LayerId, MemoryOf, RunId};

/// How often a version's number may be taken by somebody else before we give up.
const RACES_MAX: usize = 16;
/// Conflicting paths that the message names; the record has more.
const NAMED_MAX: usize = 3;

/// What a run brings.
#[derive(Debug)]
pub(crate) struct Offer {
    pub(crate) of: MemoryOf,
    pub(crate) run: RunId,
    /// The tree that its changes are changes of, and which version that is.
    pub(crate) base: LayerId,
    pub(crate) version: u64,
    /// Its tree.
    pub(crate) tree: LayerId,
    /// Where what the run knew came from.
    pub(crate) labels: Labels,
    /// Whose change counts where both changed the same.
    pub(crate) prefer: Option<Side>,
    pub(crate) bytes_max: u64,
    pub(crate) time_ms: u64,
}

/// Merges an offer into the newest version, as one more version. The same tree of the same run is
/// brought once, however often it is asked for.
pub(crate) fn offer(
    memories: &Memories,
    layers: &LayerStore,
    offer: &Offer,
) -> Result<Version, RuntimeError> {
    let origin = Origin::Run { run: offer.run.clone(), tree: offer.tree.clone() };
    for _ in 0..RACES_MAX {
        let versions = memories.versions(&offer.of)?;
        if let Some(done) = versions.iter().find(|version| version.origin == origin) {
            return Ok(done.clone());
        }
        let newest = versions.first();
        let theirs = match newest {
            Some(version) => version.layer.clone(),
            None if offer.version == 0 => offer.base.clone(),
            // It was forgotten meanwhile: what the run only read does not come back.
            None => layers.empty().map_err(|error| RuntimeError::part(&error))?,
        };
        let merged = layers.merge(&offer.base, &offer.tree, &theirs, offer.prefer);
        let (layer, changed) = match merged.map_err(|error| RuntimeError::part(&error))? {
            Merged::Layer { layer, changed } => (layer, changed),
            Merged::Conflicts(paths) => return Err(conflict(paths)),
        };
        if let Some(newest) = newest.filter(|newest| newest.layer == layer) {
            return Ok(newest.clone());
        }
        let (entries, bytes) = measured(layers, &layer, offer.bytes_max)?;
        layers.flush(&layer).map_err(|error| RuntimeError::part(&error))?;
        let mut labels = newest.map_or_else(Labels::none, |version| version.labels.clone());
        labels.join(&offer.labels);
        let version = Version {
            number: newest.map_or(0, |version| version.number) + 1,
            layer,
            origin: origin.clone(),
            time_ms: offer.time_ms,
            labels,
            changed,
            entries,
            bytes,
        };
        if memories.add(&offer.of, &version)? {
            return Ok(version);
        }
    }
    Err(RuntimeError::Memory {
        path: memories.dir.clone(),
        reason: "others kept changing it meanwhile".to_owned(),
    })
}

fn conflict(paths: Vec<String>) -> RuntimeError {
    let shown = paths.iter().take(NAMED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
    let more = paths.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    RuntimeError::MemoryConflict { shown: format!("{shown}{more}"), paths }
}

/// Entries and bytes of a tree that may be a memory.
pub(super) fn measured(
    layers: &LayerStore,
    layer: &LayerId,
    bytes_max: u64,
) -> Result<(u64, u64), RuntimeError> {
    let files = layers.list_files(layer).map_err(|error| RuntimeError::part(&error))?;
    let is_file = |file: &&sandbox::FileStat| file.kind == sandbox::FileKind::File;
    let bytes = files.iter().filter(is_file).map(|file| file.size).sum();
    if files.len() > ENTRIES_MAX {
        let what = format!("{} files and directories, and the limit is {ENTRIES_MAX}", files.len());
        return Err(RuntimeError::MemoryTooLarge { what });
    }
    if bytes > bytes_max {
        let what = format!("{bytes} bytes, and the limit is {bytes_max}");
        return Err(RuntimeError::MemoryTooLarge { what });
    }
    Ok((files.len() as u64, bytes))
}
