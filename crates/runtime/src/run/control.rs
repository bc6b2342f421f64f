//! What commands ask of a run, and how its task takes it.

use super::{Draft, RunTask};
use crate::error::RuntimeError;
use crate::registry::Wanted;
use kernel::{GrantPhase, Phase};
use serde_json::Value;
use store::Durability;
use tokio::sync::oneshot;
use types::{ApprovalVerdict, Body, Item, Link, Resolution, ResolvedBy};

/// A backward jump of the wall clock beyond this expires every open approval.
const CLOCK_BACKWARD_MS_MAX: u128 = 60_000;

/// A request on its way to a run's task.
#[derive(Debug)]
pub(crate) struct Post {
    pub(crate) wanted: Wanted,
    pub(crate) done: oneshot::Sender<Result<(), RuntimeError>>,
}

/// A change that a command asks for.
#[derive(Debug)]
pub(crate) enum Control {
    Send { text: String },
    Signal { name: String, payload: Value, by: String },
    Answer { asked: u64, approve: bool, reason: String, by: String },
    Resolve { seq: u64, resolution: Resolution, result: Option<Value>, by: String },
    Cancel { by: String },
    Suspend,
    Allow { entries: Vec<String>, by: String },
    Applied { changes: Vec<String>, by: String },
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
            Control::Answer { asked, approve, reason, by } => {
                self.answer(asked, approve, reason, by).await
            }
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
            Control::Applied { changes, by } => {
                let body = Body::ArtifactApplied { changes, by };
                self.record(Durability::Synced, Draft::new(body)).await.map(|_| ())
            }
        }
    }

    fn must_live(&self, what: &str) -> Result<(), RuntimeError> {
        if self.state.ended.is_none() {
            return Ok(());
        }
        let reason = format!("it has ended, so {what} has nothing to act on");
        Err(RuntimeError::RunState { run: self.run.to_string(), reason })
    }

    fn refuse(&self, seq: u64, reason: &str) -> RuntimeError {
        RuntimeError::Approval { id: format!("{}-{seq}", self.run), reason: reason.to_owned() }
    }

    async fn answer(
        &mut self,
        asked: u64,
        approve: bool,
        reason: String,
        by: String,
    ) -> Result<(), RuntimeError> {
        let of_action = self.state.actions.values().find_map(|action| match &action.phase {
            Phase::Asked(question) if question.seq == asked => Some(question.expires_ms),
            _ => None,
        });
        let grant = self.state.egress.grants.get(&asked);
        let of_egress = grant.filter(|g| g.phase == GrantPhase::Asked).map(|g| g.expires_ms);
        let of_model = self.state.model_question().filter(|q| q.seq == asked);
        let of_model = of_model.map(|question| question.expires_ms);
        let Some(expires_ms) = of_action.or(of_egress).or(of_model) else {
            let in_doubt =
                self.state.actions.values().any(|a| a.phase == Phase::InDoubt { seq: asked });
            let why = if in_doubt {
                "it is in doubt, not asked: use bedplate resolve"
            } else {
                "it is settled already, or no approval"
            };
            return Err(self.refuse(asked, why));
        };
        if self.parts.clock.now_ms() >= expires_ms || self.clock_went_back(asked)? {
            self.record_answer(asked, ApprovalVerdict::Expired, String::new(), String::new())
                .await?;
            return Err(self.refuse(asked, "it has expired; nothing was done"));
        }
        let verdict = if approve { ApprovalVerdict::Approved } else { ApprovalVerdict::Denied };
        self.record_answer(asked, verdict, by, reason).await?;
        self.release_held(asked, verdict).await
    }

    fn clock_went_back(&self, seq: u64) -> Result<bool, RuntimeError> {
        use store::Read;
        let records = self.parts.store.records_page(&self.run, types::BRANCH_MAIN, seq, 1);
        let records = records.map_err(|error| RuntimeError::part(&error))?;
        let jump = records.first().and_then(|record| self.parts.clock.backward_jump(record));
        Ok(jump.is_some_and(|jump| jump.as_millis() > CLOCK_BACKWARD_MS_MAX))
    }

    pub(super) async fn record_answer(
        &mut self,
        asked: u64,
        verdict: ApprovalVerdict,
        by: String,
        reason: String,
    ) -> Result<(), RuntimeError> {
        let body = Body::ApprovalGiven { asked, verdict, by, reason };
        let draft = Draft::new(body).because(Link::ResultOf, Some(asked));
        self.record(Durability::Synced, draft).await.map(|_| ())
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
