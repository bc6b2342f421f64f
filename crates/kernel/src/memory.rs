//! A run's memory: the tree it began with, the tree it has, and when that is brought to the others.
//!
//! ```text
//!  started --sealed--> differs --the run's end: offered--> merged: begins with that again
//!                         ^                         \---> refused: kept, until it changes
//!                         '-- sealed ---------------------'
//! ```
//!
//! What always holds: an attempt of a rollout offers nothing, and what was refused is offered again
//! by itself only after it changed.

use crate::state::State;
use serde::Serialize;
use types::manifest::MemoryAccess;
use types::{Body, LayerId, MemoryOf, MemoryStart};

/// The memory of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Whose.
    pub of: MemoryOf,
    /// The version that `base` is.
    pub version: u64,
    /// The tree that the run's changes are changes of.
    pub base: LayerId,
    /// The run's tree now.
    pub layer: LayerId,
    /// The tree that was refused last.
    pub refused: Option<LayerId>,
}

impl Memory {
    pub(crate) fn new(start: &MemoryStart) -> Self {
        let (of, version, base) = (start.of.clone(), start.version, start.layer.clone());
        Self { of, version, layer: base.clone(), base, refused: None }
    }

    /// Whether the run has changed anything that others do not see yet.
    #[must_use]
    pub fn differs(&self) -> bool {
        self.layer != self.base
    }
}

impl State {
    pub(crate) fn fold_memory(&mut self, body: &Body) {
        let memory = self.memory.as_mut().expect("only a run with memory has records of it");
        match body {
            Body::MemorySealed { layer, parent, .. } => {
                assert_eq!(*parent, memory.layer, "a layer of memory stands on the one before");
                memory.layer = layer.clone();
            }
            Body::MemoryOffered { .. } => {}
            Body::MemoryMerged { version, layer, .. } => {
                memory.version = *version;
                memory.base = layer.clone();
                memory.layer = layer.clone();
                memory.refused = None;
            }
            Body::MemoryRefused { .. } => memory.refused = Some(memory.layer.clone()),
            other => unreachable!("not a record of memory: {}", other.kind()),
        }
    }

    /// Whether the run's end brings its memory to the others.
    pub(crate) fn owes_memory(&self) -> bool {
        let may_write = self.manifest().memory.is_some_and(|m| m.access == MemoryAccess::Write);
        let due =
            |memory: &Memory| memory.differs() && memory.refused.as_ref() != Some(&memory.layer);
        self.attempt.is_none() && may_write && self.memory.as_ref().is_some_and(due)
    }
}
