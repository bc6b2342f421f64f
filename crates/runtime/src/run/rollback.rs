//! The run's part in going back, and in being given a name.

use super::{Draft, RunTask};
use crate::error::RuntimeError;
use std::sync::Arc;
use store::Durability;
use types::{Body, LayerId, Link};

impl RunTask {
    /// Goes back to a record of this run. `last` is the record that the person saw as its last.
    pub(super) async fn go_back(
        &mut self,
        at: u64,
        to: LayerId,
        last: u64,
        by: String,
    ) -> Result<(), RuntimeError> {
        let refuse = |reason: &str| RuntimeError::RunState {
            run: self.run.to_string(),
            reason: reason.to_owned(),
        };
        if self.active {
            return Err(refuse("it lives; suspend it first"));
        }
        if self.state.next_seq != last + 1 {
            return Err(refuse("it went on in the meantime"));
        }
        let layers = Arc::clone(&self.parts.layers);
        let wanted = to.clone();
        let there = tokio::task::spawn_blocking(move || layers.stack(&wanted).map(drop)).await;
        there
            .map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?
            .map_err(|error| RuntimeError::part(&error))?;
        self.world.close(&self.parts).await;
        let body = Body::RolledBack { to, reason: String::new(), at: Some(at), by };
        let draft = Draft::new(body).because(Link::Compensates, Some(last));
        self.record(Durability::Synced, draft).await?;
        self.keep_again().await
    }

    /// Results on the host are those of the moment that the run is at.
    async fn keep_again(&self) -> Result<(), RuntimeError> {
        if self.state.ended.is_none() || self.state.artifacts.is_empty() {
            return Ok(());
        }
        let layers = Arc::clone(&self.parts.layers);
        let (layer, target) = (self.layer(), self.parts.home.artifacts(&self.run));
        let globs = self.state.manifest().artifacts.clone();
        let kept = tokio::task::spawn_blocking(move || {
            crate::artifacts::keep(&layers, &layer, &globs, &target)
        });
        let kept = kept.await.map_err(|e| RuntimeError::OwnerGone { reason: e.to_string() })?;
        kept.map(drop)
    }

    /// Gives this moment a name; its layer is on the disk first.
    pub(super) async fn snapshot(&mut self, name: String, by: String) -> Result<(), RuntimeError> {
        self.flush().await?;
        let body = Body::SnapshotTaken { name, layer: self.layer(), by };
        self.record(Durability::Synced, Draft::new(body)).await.map(|_| ())
    }
}
