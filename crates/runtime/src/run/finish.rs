//! The end of the work: checks on a copy of the workspace, then what is kept as results.

use super::{Draft, RunTask};
use crate::artifacts;
use crate::error::RuntimeError;
use std::sync::Arc;
use store::Durability;
use types::{Body, Digest, EndStatus, Link, OutcomeStatus, Verdict};

impl RunTask {
    /// Runs a check of the manifest. Its changes to the workspace are dropped.
    pub(super) async fn final_check(&mut self, index: usize) -> Result<(), RuntimeError> {
        let check = self.state.manifest().checks[index].clone();
        let answered = self.state.answered;
        let decision = Body::DecisionMade {
            action: None,
            verdict: Verdict::Permit,
            approved: false,
            policies: vec![format!("check[{index}]: {}", check.name)],
            reason: "the operator's manifest names this check".to_owned(),
            policy_set: self.gatekeeper.set().digest(),
            input: Digest::of_parts("bedplate check 1", &[check.command.as_bytes()]),
            carried: self.carried(),
        };
        let started =
            Body::CheckStarted { name: check.name.clone(), command: check.command.clone() };
        let decided = self.state.next_seq;
        let drafts = vec![
            Draft::new(decision).because(Link::AskedIn, answered),
            Draft::new(started).because(Link::DecidedBy, Some(decided)),
        ];
        let started = decided + 1;
        self.append(Durability::Written, drafts).await?;
        let Some(outcome) = self.run_check(index).await? else {
            return Ok(());
        };
        let body = if outcome.status == OutcomeStatus::Ok {
            Body::CheckPassed { name: check.name, output: outcome.output }
        } else {
            Body::CheckFailed { name: check.name, exit: outcome.exit, output: outcome.output }
        };
        let mut draft = Draft::new(body).because(Link::ResultOf, Some(started));
        if let Some(bytes) = outcome.kept {
            draft = draft.with("output", bytes);
        }
        self.record(Durability::Written, draft).await.map(|_| ())
    }

    /// Keeps what the manifest names, then ends the run as done.
    pub(super) async fn keep_artifacts(&mut self) -> Result<(), RuntimeError> {
        self.flush().await?;
        let layers = Arc::clone(&self.parts.layers);
        let layer = self.layer();
        let globs = self.state.manifest().artifacts.clone();
        let target = self.parts.home.artifacts(&self.run);
        let kept =
            tokio::task::spawn_blocking(move || artifacts::keep(&layers, &layer, &globs, &target));
        let kept = kept.await.map_err(|e| RuntimeError::OwnerGone { reason: e.to_string() })??;
        let answered = self.state.answered;
        let mut drafts: Vec<Draft> = kept
            .into_iter()
            .map(|kept| {
                let body = Body::ArtifactRecorded {
                    path: kept.path,
                    sha256: kept.sha256,
                    bytes: kept.bytes,
                };
                Draft::new(body).because(Link::ResultOf, answered)
            })
            .collect();
        let output = self.state.last_words();
        let end = Body::RunEnded { status: EndStatus::Done, output, error: None };
        drafts.push(Draft::new(end).because(Link::ResultOf, answered));
        self.active = false;
        self.append(Durability::Synced, drafts).await.map(|_| ())
    }
}
