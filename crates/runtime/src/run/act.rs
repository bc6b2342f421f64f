//! Actions: proposed, decided, asked, started, finished.

use super::effect_kinds::Outcome;
use super::gatekeeper::approvers_of;
use super::world::Sealed;
use super::{Draft, RunTask};
use crate::error::RuntimeError;
use kernel::Action;
use serde_json::Value;
use store::Durability;
use tools::Plan;
use types::{
    ActionId, Body, Carried, Digest, EffectClass, Item, Labels, LayerId, Link, OutcomeStatus,
    Output, TimerPurpose, Verdict, manifest::APPROVAL_EXPIRES_MS_DEFAULT,
};

impl RunTask {
    /// The action, which the kernel named a moment ago.
    pub(super) fn action(&self, id: ActionId) -> &Action {
        self.state.actions.get(&id).expect("the kernel names actions of its own state")
    }

    /// The layer under the workspace now.
    pub(super) fn layer(&self) -> LayerId {
        self.state.layer.clone().expect("a run has a base layer from its first record")
    }

    fn plan_of(&self, call_id: &str) -> Result<Plan, tools::Refusal> {
        let (name, arguments) =
            self.state.arguments(call_id).expect("a call is in the conversation");
        tools::plan(self.state.manifest(), name, arguments)
    }

    /// Proposes an action for a tool call, or answers the call with why there is none.
    pub(super) async fn propose(&mut self, call_id: &str) -> Result<(), RuntimeError> {
        let asked_in = self.state.asked_in();
        let body = match self.checked_plan(call_id).await? {
            Ok(plan) => {
                let manifest = self.state.manifest();
                let (tool, _) = self.state.arguments(call_id).expect("planned above");
                Body::ActionProposed {
                    call_id: call_id.to_owned(),
                    tool: tool.to_owned(),
                    effect: plan.effect(manifest),
                    requests: plan.requests(manifest),
                }
            }
            Err(why) => Body::ItemAdded {
                item: Item::ToolResult {
                    call_id: call_id.to_owned(),
                    output: why,
                    is_error: true,
                    labels: Labels::none(),
                },
            },
        };
        let draft = Draft::new(body).because(Link::AskedIn, asked_in);
        self.record(Durability::Written, draft).await.map(|_| ())
    }

    /// Plans, and holds a command tool's arguments against its schema, where hostile bytes are
    /// read.
    async fn checked_plan(&self, call_id: &str) -> Result<Result<Plan, String>, RuntimeError> {
        let plan = match self.plan_of(call_id) {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Err(refusal.to_string())),
        };
        let Plan::Command { index, input } = &plan else {
            return Ok(Ok(plan));
        };
        let tool = &self.state.manifest().tools[*index];
        let Some(schema) = &tool.input_schema else {
            return Ok(Ok(plan));
        };
        match self.parts.gate.check_arguments(input.clone(), schema.clone()).await {
            Ok(()) => Ok(Ok(plan)),
            Err(why) => {
                Ok(Err(format!("the arguments of '{}' do not fit: {}", tool.name, why.message)))
            }
        }
    }

    /// What this moment's action carries.
    pub(super) fn carried(&self) -> Carried {
        Carried {
            labels: self.state.labels.clone(),
            oldest_input_age: self.age_of(self.state.oldest_input_ms),
        }
    }

    /// Seconds since the oldest input, none of which is 0.
    pub(super) fn age_of(&self, oldest_ms: Option<u64>) -> u64 {
        let now = self.parts.clock.now_ms();
        oldest_ms.map_or(0, |ms| now.saturating_sub(ms) / 1_000)
    }

    pub(super) async fn decide(
        &mut self,
        id: ActionId,
        approved: Option<u64>,
    ) -> Result<(), RuntimeError> {
        let action = self.action(id);
        let carried = self.carried();
        let mut approved = approved;
        let body = if action.requests.is_empty() {
            self.own_output_decision(id, carried)
        } else {
            let on_behalf_of = &self.actor.on_behalf_of;
            let decide = |approved: bool| {
                self.gatekeeper.decide(&action.requests, &carried, on_behalf_of, approved)
            };
            let mut decision = decide(approved.is_some());
            if decision.verdict == Verdict::Ask {
                // A person may have approved its like for the rest of the run.
                approved = self.gatekeeper.stands_approved(&self.state, &action.requests);
                decision = decide(approved.is_some());
            }
            Body::DecisionMade {
                action: Some(id),
                verdict: decision.verdict,
                approved: approved.is_some(),
                policies: decision.policies,
                reason: decision.reason,
                policy_set: decision.policy_set,
                input: decision.input,
                carried,
            }
        };
        let draft =
            Draft::new(body).because(Link::ResultOf, Some(id)).because(Link::ApprovedBy, approved);
        self.record(Durability::Written, draft).await.map(|_| ())
    }

    /// Reading again what this run was already shown asks nothing new.
    fn own_output_decision(&self, id: ActionId, carried: Carried) -> Body {
        Body::DecisionMade {
            action: Some(id),
            verdict: Verdict::Permit,
            approved: false,
            policies: Vec::new(),
            reason: "an output of this run, which it was permitted to make".to_owned(),
            policy_set: self.gatekeeper.set().digest(),
            input: Digest::of(b"own output"),
            carried,
        }
    }

    pub(super) async fn ask(&mut self, id: ActionId) -> Result<(), RuntimeError> {
        let action = self.action(id);
        let (tool, arguments) =
            self.state.arguments(&action.call_id).expect("proposed from a call");
        let shown = shown(tool, arguments);
        let permissions = self.state.manifest().permissions.as_ref();
        let wait_ms = permissions.and_then(|p| p.approval_expires_ms);
        let now = self.parts.clock.now_ms();
        let of = &self.actor.on_behalf_of;
        let decision = self.gatekeeper.decide(&action.requests, &self.carried(), of, false);
        let body = Body::ApprovalAsked {
            needs: approvers_of(&decision),
            action: id,
            bound: Digest::of_parts("bedplate approval 1", &[shown.as_bytes()]),
            shown,
            expires_ms: now.saturating_add(wait_ms.unwrap_or(APPROVAL_EXPIRES_MS_DEFAULT)),
        };
        let decided = action.decided;
        let draft = Draft::new(body).because(Link::DecidedBy, decided);
        self.record(Durability::Synced, draft).await.map(|_| ())
    }

    /// Records the intent, then acts, then records the outcome.
    pub(super) async fn start(&mut self, id: ActionId, attempt: u32) -> Result<(), RuntimeError> {
        let action = self.action(id).clone();
        let Ok(plan) = self.plan_of(&action.call_id) else {
            unreachable!("a proposed action was planned from the same manifest and call");
        };
        if matches!(action.effect, EffectClass::Irreversible | EffectClass::Idempotent) {
            self.flush().await?;
        }
        let key = self.key_of(id);
        let intent = Body::ActionStarted {
            action: id,
            attempt,
            key: key.clone(),
            epoch: self.epoch,
            layer: self.layer(),
        };
        let durability = match action.effect {
            EffectClass::Read => Durability::Written,
            _ => Durability::Synced,
        };
        let intent = Draft::new(intent)
            .because(Link::DecidedBy, action.decided)
            .because(Link::ApprovedBy, action.approved)
            .because(Link::RetryOf, action.started);
        if let Plan::Wait { seconds, .. } = &plan {
            return self.start_waiting(id, intent, *seconds).await;
        }
        self.record(durability, intent).await?;
        self.acting = Some(id);
        let outcome = self.perform(&action, &plan, &key).await;
        self.acting = None;
        match outcome? {
            Some(outcome) => self.finish(id, attempt, outcome).await,
            None => self.stopped(&action).await,
        }
    }

    /// The key of an action: the same for every attempt, another for every fork.
    pub(super) fn key_of(&self, id: ActionId) -> String {
        let branch = types::BRANCH_MAIN.to_be_bytes();
        let parts: [&[u8]; 3] = [self.run.as_str().as_bytes(), &branch, &id.to_be_bytes()];
        Digest::of_parts("bedplate idempotency key 1", &parts).to_string()[..32].to_owned()
    }

    async fn start_waiting(
        &mut self,
        id: ActionId,
        intent: Draft,
        seconds: Option<u64>,
    ) -> Result<(), RuntimeError> {
        let now = self.parts.clock.now_ms();
        let due_ms = seconds.map_or(u64::MAX, |s| now.saturating_add(s.saturating_mul(1_000)));
        let timer = Draft::new(Body::TimerSet { due_ms, purpose: TimerPurpose::Wait(id) })
            .because(Link::ResultOf, Some(id));
        self.append(Durability::Synced, vec![intent, timer]).await.map(|_| ())
    }

    pub(super) async fn finish_wait(
        &mut self,
        id: ActionId,
        signal: Option<u64>,
    ) -> Result<(), RuntimeError> {
        let found = self.state.signals.iter().find(|s| Some(s.seq) == signal);
        let text = match found {
            Some(signal) => format!("signal '{}' came: {}", signal.name, signal.payload),
            None => "the time is over; no signal came".to_owned(),
        };
        let body = Body::ActionFinished {
            action: id,
            attempt: 1,
            status: OutcomeStatus::Ok,
            exit: None,
            output: Output { bytes: text.len() as u64, text, artifact: None },
            layer: self.layer(),
            took_ms: 0,
            labels: Labels::none(),
            as_of: None,
        };
        let started = self.action(id).started;
        let draft =
            Draft::new(body).because(Link::ResultOf, started).because(Link::ResultOf, signal);
        self.record(Durability::Written, draft).await.map(|_| ())
    }

    /// Records an outcome, with the layer it made.
    pub(super) async fn finish(
        &mut self,
        id: ActionId,
        attempt: u32,
        outcome: Outcome,
    ) -> Result<(), RuntimeError> {
        let started = self.action(id).started;
        let mut drafts = Vec::new();
        let layer = match &outcome.sealed.workspace {
            Some(Sealed { layer, changed }) => {
                let (layer, changed, parent) = (layer.clone(), *changed, self.layer());
                let body = Body::LayerSealed { layer: layer.clone(), parent, changed };
                drafts.push(Draft::new(body).because(Link::ResultOf, started));
                layer
            }
            None => self.layer(),
        };
        if let (Some(sealed), Some(memory)) = (&outcome.sealed.memory, &self.state.memory) {
            let (layer, changed) = (sealed.layer.clone(), sealed.changed);
            let body = Body::MemorySealed { layer, parent: memory.layer.clone(), changed };
            drafts.push(Draft::new(body).because(Link::ResultOf, started));
        }
        let body = Body::ActionFinished {
            action: id,
            attempt,
            status: outcome.status,
            exit: outcome.exit,
            output: outcome.output,
            layer,
            took_ms: outcome.took_ms,
            labels: outcome.labels,
            as_of: outcome.as_of,
        };
        let mut draft = Draft::new(body).because(Link::ResultOf, started);
        if let Some(bytes) = outcome.kept {
            draft = draft.with("output", bytes);
        }
        drafts.push(draft);
        self.append(Durability::Written, drafts).await.map(|_| ())
    }
}

/// What a person is shown: the tool and every argument, nothing left out.
fn shown(tool: &str, arguments: &Value) -> String {
    let pretty = serde_json::to_string_pretty(arguments).unwrap_or_default();
    format!("{tool} {pretty}")
}
