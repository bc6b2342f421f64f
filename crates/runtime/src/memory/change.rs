//! What people change in a memory.

use super::offer::measured;
use super::{Memories, Origin, Version};
use crate::error::RuntimeError;
use crate::protocol::Bytes64;
use crate::registry::Registry;
use sandbox::layers::{LayerStore, Revision};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use types::manifest::MEMORY_BYTES_MAX;
use types::{Labels, MemoryOf};

/// A person's change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum MemoryChange {
    /// Create or replace a file.
    Write {
        /// Relative to the memory.
        path: String,
        /// Its content, as base64.
        bytes: Bytes64,
    },
    /// Remove a file, or a directory with all in it.
    Remove {
        /// Relative to the memory.
        path: String,
    },
    /// Make an earlier version the newest again.
    Revert {
        /// Its number.
        version: u64,
    },
    /// Remove the memory with all its versions.
    Forget,
}

/// Makes a person's change, and says what became of it.
pub(crate) async fn changed(
    registry: &Registry,
    of: MemoryOf,
    wanted: MemoryChange,
    by: String,
) -> Result<Vec<String>, RuntimeError> {
    let parts = Arc::clone(&registry.parts);
    let made = tokio::task::spawn_blocking(move || {
        let time_ms = parts.clock.now_ms();
        let made = change(&parts.memories, &parts.layers, &of, wanted, (by, time_ms))?;
        Ok(match made {
            Some(version) => format!("{of}: version {version}"),
            None => format!("{of}: forgotten"),
        })
    });
    let made = made.await.map_err(|e| RuntimeError::OwnerGone { reason: e.to_string() })?;
    made.map(|line| vec![line])
}

/// Makes a person's change. Gives the version it made; none when the memory was forgotten.
fn change(
    memories: &Memories,
    layers: &LayerStore,
    of: &MemoryOf,
    change: MemoryChange,
    (by, time_ms): (String, u64),
) -> Result<Option<u64>, RuntimeError> {
    let part = |error| RuntimeError::part(&error);
    let newest = memories.newest(of)?;
    let before = match &newest {
        Some(version) => version.layer.clone(),
        None if matches!(change, MemoryChange::Write { .. }) => layers.empty().map_err(part)?,
        None => return Err(RuntimeError::NoMemory { what: of.to_string() }),
    };
    let mut labels = newest.as_ref().map_or_else(Labels::none, |version| version.labels.clone());
    let layer = match change {
        MemoryChange::Write { path, bytes } => {
            let revision = Revision::Write { path, bytes: bytes.0 };
            layers.revise(&before, &[revision]).map_err(part)?
        }
        MemoryChange::Remove { path } => {
            layers.revise(&before, &[Revision::Remove { path }]).map_err(part)?
        }
        MemoryChange::Revert { version } => {
            let version = memories.version(of, version)?;
            labels = version.labels;
            version.layer
        }
        MemoryChange::Forget => return memories.forget(of).map(|()| None),
    };
    let (entries, bytes) = measured(layers, &layer, MEMORY_BYTES_MAX)?;
    layers.flush(&layer).map_err(part)?;
    let version = Version {
        number: newest.map_or(0, |version| version.number) + 1,
        changed: layers.changes(&before, &layer).map_err(part)?.len() as u64,
        layer,
        origin: Origin::Person { name: by },
        time_ms,
        labels,
        entries,
        bytes,
    };
    if memories.add(of, &version)? {
        return Ok(Some(version.number));
    }
    let reason = "it changed meanwhile: look at it, then try again".to_owned();
    Err(RuntimeError::Memory { path: memories.dir.clone(), reason })
}
