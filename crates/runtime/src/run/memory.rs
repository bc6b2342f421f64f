//! The run's part in its memory: what it begins with, and what it brings to the runs to come.

use super::{Draft, RunTask};
use crate::error::RuntimeError;
use crate::memory::{self, Offer, Version};
use crate::parts::Parts;
use crate::protocol::NewRun;
use sandbox::layers::Side;
use std::sync::Arc;
use store::Durability;
use types::manifest::MemoryAccess;
use types::{Body, Digest, Failure, Link, MemoryOf, MemoryStart, Verdict};

/// The memory that a new run begins with.
pub(super) async fn begin(
    parts: &Arc<Parts>,
    new: &NewRun,
) -> Result<Option<Box<MemoryStart>>, RuntimeError> {
    let Some(of) = MemoryOf::of(&new.manifest, &new.by) else { return Ok(None) };
    let parts = Arc::clone(parts);
    let begun = tokio::task::spawn_blocking(move || {
        let start = match parts.memories.newest(&of)? {
            Some(newest) => MemoryStart {
                of,
                version: newest.number,
                layer: newest.layer,
                labels: newest.labels,
            },
            None => {
                let layer = parts.layers.empty().map_err(|error| RuntimeError::part(&error))?;
                MemoryStart { of, version: 0, layer, labels: types::Labels::none() }
            }
        };
        Ok(Some(Box::new(start)))
    });
    begun.await.map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?
}

impl RunTask {
    /// Whether programs of this run may write to its memory; `None` when it has none.
    pub(super) fn memory_access(&self) -> Option<MemoryAccess> {
        self.state.memory.as_ref()?;
        self.state.manifest().memory.map(|memory| memory.access)
    }

    /// Brings what the run changed in its memory to what others see of it: records that it will,
    /// does it, records what came of it. Gives the reason when it was refused.
    pub(super) async fn merge_memory(
        &mut self,
        prefer: Option<Side>,
        by: String,
    ) -> Result<Option<Failure>, RuntimeError> {
        let memory = self.state.memory.clone().expect("only a run with memory offers it");
        let decision = Body::DecisionMade {
            action: None,
            verdict: Verdict::Permit,
            approved: !by.is_empty(),
            policies: vec![format!("memory: {}", memory.of)],
            reason: "the operator's manifest gives this agent its memory".to_owned(),
            policy_set: self.gatekeeper.set().digest(),
            input: Digest::of_parts("bedplate memory 1", &[memory.layer.as_str().as_bytes()]),
            carried: self.carried(),
        };
        let decided = self.state.next_seq;
        let offered = Body::MemoryOffered { layer: memory.layer.clone(), by };
        let drafts = vec![
            Draft::new(decision).because(Link::AskedIn, self.state.answered),
            Draft::new(offered).because(Link::DecidedBy, Some(decided)),
        ];
        self.append(Durability::Synced, drafts).await?;
        let offer = Offer {
            of: memory.of,
            run: self.run.clone(),
            base: memory.base,
            version: memory.version,
            tree: memory.layer,
            labels: self.state.labels.clone(),
            prefer,
            bytes_max: self.state.manifest().memory.map_or(0, |memory| memory.bytes_max),
            time_ms: self.parts.clock.now_ms(),
        };
        let parts = Arc::clone(&self.parts);
        let merged = tokio::task::spawn_blocking(move || {
            memory::offer(&parts.memories, &parts.layers, &offer)
        });
        let merged = merged.await;
        let merged = merged.map_err(|e| RuntimeError::OwnerGone { reason: e.to_string() })?;
        let (body, refused) = match merged {
            Ok(Version { number, layer, changed, .. }) => {
                (Body::MemoryMerged { version: number, layer, changed }, None)
            }
            Err(error) => {
                let conflicts = match &error {
                    RuntimeError::MemoryConflict { paths, .. } => paths.clone(),
                    _ => Vec::new(),
                };
                let failure = error.into_failure();
                (Body::MemoryRefused { failure: failure.clone(), conflicts }, Some(failure))
            }
        };
        let draft = Draft::new(body).because(Link::ResultOf, Some(decided + 1));
        self.record(Durability::Synced, draft).await?;
        Ok(refused)
    }

    /// A person has the run's memory merged, whatever the run's state: it must only be at rest.
    pub(super) async fn merge_memory_again(
        &mut self,
        prefer: Option<Side>,
        by: String,
    ) -> Result<(), RuntimeError> {
        let refuse = |reason: &str| RuntimeError::RunState {
            run: self.run.to_string(),
            reason: reason.to_owned(),
        };
        if self.active {
            return Err(refuse("it lives; its end brings its memory, or suspend it first"));
        }
        let Some(memory) = &self.state.memory else {
            return Err(RuntimeError::NoMemory { what: format!("run {}", self.run) });
        };
        if self.memory_access() != Some(MemoryAccess::Write) || !memory.differs() {
            return Err(refuse("it changed nothing in its memory that is not there already"));
        }
        match self.merge_memory(prefer, by).await? {
            None => Ok(()),
            Some(failure) => Err(RuntimeError::Part(failure)),
        }
    }
}
