//! What commands ask of a run, and how its task takes it.

use super::{Draft, RunTask};
use crate::error::RuntimeError;
use crate::registry::Wanted;
use kernel::Phase;
use sandbox::layers::Side;
use serde_json::Value;
use store::Durability;
use tokio::sync::oneshot;
use types::{Body, Item, LayerId, Link, Resolution, ResolvedBy, Step};

/// A request on its way to a run's task.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) wanted: Wanted,
    pub(crate) done: oneshot::Sender<Result<(), RuntimeError>>,
}

/// What a person says to something that is asked.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The record that asked.
    pub(crate) asked: u64,
    pub(crate) approve: bool,
    /// Whether the narrow rule stays approved for the rest of the run.
    pub(crate) for_run: bool,
    /// Why not.
    pub(crate) reason: String,
    pub(crate) by: String,
    /// The login that brought it, when it speaks for another.
    pub(crate) through: String,
}

/// A change that a command asks for.
#[derive(Debug)]
pub(crate) enum Control {
    Send { text: String },
    Signal { name: String, payload: Value, by: String },
    Answer(Answer),
    Resolve { seq: u64, resolution: Resolution, result: Option<Value>, by: String },
    Cancel { by: String },
    Suspend,
    Allow { entries: Vec<String>, by: String },
    Applied { changes: Vec<String>, by: String },
    RollBack { at: u64, to: LayerId, last: u64, by: String },
    Snapshot { name: String, by: String },
    MergeMemory { prefer: Option<Side>, by: String },
    Open { key: String, opening: String, by: String },
    Step { opening: String, at: u64, step: Step },
}

impl RunTask {
    /// Takes one post: records what it changes, then answers it.
    pub(super) async fn take(&mut self, post: Post) {
        let Wanted { keys, resume, control } = post.wanted;
        let rekeyed = super::secrets::name_a_key(&keys);
        self.keys.join(keys);
        if rekeyed {
            self.held = super::secrets::held(self.parts.home.path(), &self.keys);
        }
        let mut result = match control {
            Some(control) => self.control(control).await,
            None => Ok(()),
        };
        if result.is_ok() && resume && !self.active {
            result = self.take_up().await;
        }
        let _ = post.done.send(result);
    }

    async fn control(&mut self, control: Control) -> Result<(), RuntimeError> {
        match control {
            Control::Send { .. } if self.state.is_guest() => {
                let reason = "its agent is a program, which takes no messages".to_owned();
                Err(RuntimeError::RunState { run: self.run.to_string(), reason })
            }
            Control::Send { text } => {
                let body = Body::ItemAdded { item: Item::UserMessage { text } };
                self.record(Durability::Synced, Draft::new(body)).await.map(|_| ())
            }
            Control::Signal { name, payload, by } => {
                self.must_live("a signal")?;
                let body = Body::SignalReceived { name, payload, by };
                self.record(Durability::Synced, Draft::new(body)).await.map(|_| ())
            }
            Control::Answer(answer) => self.answer(answer).await,
            Control::Resolve { seq, resolution, result, by } => {
                self.resolve(seq, resolution, result, by).await
            }
            Control::Cancel { by } => {
                self.must_live("cancel")?;
                let body = Body::CancelRequested { by };
                self.record(Durability::Synced, Draft::new(body)).await.map(|_| ())
            }
            Control::Suspend => {
                self.suspend = self.active;
                Ok(())
            }
            Control::Allow { entries, by } => {
                let mut allowed = self.state.allowed.clone();
                allowed.extend(entries.iter().cloned());
                let policy_set = self.gatekeeper.check(&self.state, &self.actor, &allowed)?;
                let body = Body::PolicyChanged { policy_set, allow: entries, by };
                self.record(Durability::Synced, Draft::new(body)).await?;
                self.gatekeeper.reload(&self.state, &self.actor)?;
                self.recheck_network().await;
                Ok(())
            }
            Control::RollBack { at, to, last, by } => self.go_back(at, to, last, by).await,
            Control::Snapshot { name, by } => self.snapshot(name, by).await,
            Control::MergeMemory { prefer, by } => self.merge_memory_again(prefer, by).await,
            Control::Open { key, opening, by } => self.open_again(key, opening, by).await,
            Control::Step { opening, at, step } => self.take_step(&opening, at, step).await,
            Control::Applied { changes, by } => {
                let body = Body::ArtifactApplied { changes, by };
                self.record(Durability::Synced, Draft::new(body)).await.map(|_| ())
            }
        }
    }

    pub(super) fn must_live(&self, what: &str) -> Result<(), RuntimeError> {
        if self.state.ended.is_none() {
            return Ok(());
        }
        let reason = format!("it has ended, so {what} has nothing to act on");
        Err(RuntimeError::RunState { run: self.run.to_string(), reason })
    }

    pub(super) fn refuse(&self, seq: u64, reason: &str) -> RuntimeError {
        RuntimeError::Approval { id: format!("{}-{seq}", self.run), reason: reason.to_owned() }
    }

    async fn resolve(
        &mut self,
        seq: u64,
        resolution: Resolution,
        result: Option<Value>,
        by: String,
    ) -> Result<(), RuntimeError> {
        let found = self.state.actions.values().find(|a| a.phase == Phase::InDoubt { seq });
        let Some(action) = found.map(|action| action.id) else {
            return Err(self.refuse(seq, "no action is in doubt under this id"));
        };
        let by = ResolvedBy::Person(by);
        let body = Body::ActionResolved { action, resolution, by, result };
        let draft = Draft::new(body).because(Link::ResultOf, Some(seq));
        self.record(Durability::Synced, draft).await.map(|_| ())
    }
}
