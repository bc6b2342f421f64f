//! A caller's side of a run: its openings and steps, recorded by the run's one task.

use super::{Draft, RunTask};
use crate::error::RuntimeError;
use kernel::AskedStep;
use std::time::Duration;
use store::Durability;
use types::{Body, Link, Step, WaitReason};

/// How long a run stays with its sandbox while its caller does something else.
const CALLER_IDLE: Duration = Duration::from_secs(60);

impl RunTask {
    /// A program opened the run: steps are its from here on.
    pub(super) async fn open_again(
        &mut self,
        key: String,
        opening: String,
        by: String,
    ) -> Result<(), RuntimeError> {
        if self.state.caller.as_ref().is_none_or(|caller| caller.key != key) {
            return Err(RuntimeError::CallerKey { key });
        }
        if self.state.ended.is_some() {
            // Its steps are read from the log by whoever asks; the log stays as it ended.
            return Ok(());
        }
        let body = Body::CallerOpened { key, opening, by };
        self.record(Durability::Written, Draft::new(body)).await.map(|_| ())
    }

    /// Records a step, unless it is in the log already. The kernel does the rest.
    pub(super) async fn take_step(
        &mut self,
        opening: &str,
        at: u64,
        step: Step,
    ) -> Result<(), RuntimeError> {
        let asked = self.state.place_step(opening, at, &step);
        let asked = asked.map_err(|fault| RuntimeError::part(&fault).as_refusal())?;
        if let AskedStep::Known(Some(_)) = asked {
            return Ok(());
        }
        self.must_live("a step")?;
        if matches!(self.state.suspended, Some((WaitReason::Person, _))) {
            let reason = "a person set it aside; `bedplate resume RUN` goes on".to_owned();
            return Err(RuntimeError::RunState { run: self.run.to_string(), reason });
        }
        // Somebody thinks between two steps: what the operator wrote meanwhile counts.
        self.gatekeeper.refresh(&self.state, &self.actor)?;
        if asked == AskedStep::New {
            let last = self.state.items.last().map(|placed| placed.seq);
            let draft = Draft::new(Body::StepTaken { at, step }).because(Link::ResultOf, last);
            self.record(Durability::Written, draft).await?;
        }
        Ok(())
    }

    /// The next step is the caller's: it is waited for, then the run is left as it is.
    pub(super) async fn await_caller(&mut self) -> Result<(), RuntimeError> {
        match tokio::time::timeout(CALLER_IDLE, self.inbox.recv()).await {
            Ok(Some(post)) => Box::pin(self.take(post)).await,
            Ok(None) | Err(_) => self.active = false,
        }
        Ok(())
    }
}
