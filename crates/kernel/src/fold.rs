//! `fold`: records to state. All transitions are here.

use crate::memory::Memory;
use crate::quorum::Quorum;
use crate::state::{
    Action, Ambiguity, Asked, CheckState, Ended, ModelCall, ModelPhase, ModelQuestion, Phase,
    Placed, Signal, State, Timer,
};
use types::{
    ActionId, ApprovalVerdict, AsOf, Body, EffectClass, Failure, FaultClass, Item, Labels,
    ModelFault, OutcomeStatus, Output, Record, Resolution, TimerPurpose, Verdict, WaitReason,
};

/// A person did not let a model have what it would have been sent.
const NOT_LET: &str = "BP-PRIVACY-009";

impl State {
    /// Folds records into a new state.
    #[must_use]
    pub fn of<'a>(records: impl IntoIterator<Item = &'a Record>) -> Self {
        crate::each(records, |_, _| {})
    }

    /// Folds one record.
    ///
    /// # Panics
    /// When the record's number is not the next one: the store never gives such a log. When it goes
    /// back to an earlier one ([`Body::goes_back_to`]), which [`State::of`] alone can follow.
    pub fn fold(&mut self, record: &Record) {
        let seq = record.stamp.seq;
        assert_eq!(seq, self.next_seq, "records are folded in order, without gaps");
        self.next_seq = seq + 1;
        self.fold_time(record);
        match &record.body {
            Body::RunStarted { .. } | Body::Resumed { .. } | Body::Suspended { .. } => {
                self.fold_lifecycle(seq, record);
            }
            Body::Forked { origin, attempt, .. } => {
                self.fold_fork(seq, origin);
                self.attempt = *attempt;
            }
            Body::ItemAdded { .. }
            | Body::ModelCalled { .. }
            | Body::ModelAnswered { .. }
            | Body::ModelAsked { .. }
            | Body::Delivered { .. }
            | Body::RouteChanged { .. }
            | Body::BudgetReserved { .. }
            | Body::BudgetSpent { .. } => self.fold_thinking(seq, &record.body),
            Body::ActionProposed { .. }
            | Body::DecisionMade { .. }
            | Body::ApprovalAsked { .. }
            | Body::ApprovalGiven { .. }
            | Body::ApprovalRevoked { .. } => self.fold_asking(seq, &record.body),
            Body::ActionStarted { .. }
            | Body::ActionFinished { .. }
            | Body::ActionInDoubt { .. }
            | Body::ActionResolved { .. } => {
                self.signals.retain(|signal| !record.causes.iter().any(|c| c.seq == signal.seq));
                self.fold_acting(seq, &record.body);
            }
            Body::CheckStarted { .. }
            | Body::CheckPassed { .. }
            | Body::CheckFailed { .. }
            | Body::ArtifactRecorded { .. }
            | Body::RunEnded { .. } => self.fold_finishing(seq, &record.body),
            Body::LayerSealed { layer, .. } => self.layer = Some(layer.clone()),
            Body::MemorySealed { .. }
            | Body::MemoryOffered { .. }
            | Body::MemoryMerged { .. }
            | Body::MemoryRefused { .. } => self.fold_memory(&record.body),
            Body::RolledBack { to, at, .. } => {
                assert_eq!(*at, None, "what goes back is folded with what it goes back to");
                self.fold_rollback(to);
            }
            Body::TimerSet { due_ms, purpose } => self.fold_timer(seq, *due_ms, purpose),
            Body::TimerFired { timer } => self.fold_fired(*timer),
            Body::SignalReceived { name, payload, .. } => self.fold_signal(seq, name, payload),
            Body::LabelAdded { labels } | Body::PrivacyChecked { labels, .. } => {
                self.labels.join(labels);
            }
            Body::PolicyChanged { allow, .. } => self.fold_policy(allow),
            Body::CancelRequested { .. } => self.cancel = true,
            Body::EgressDecided { .. } | Body::EgressAsked { .. } | Body::EgressEnded { .. } => {
                self.fold_egress(seq, &record.body);
            }
            Body::GuestCalled { .. }
            | Body::GuestAnswered { .. }
            | Body::GuestServed { .. }
            | Body::GuestDiverged { .. }
            | Body::GuestRefused { .. } => self.guest.fold(seq, &record.body, &mut self.spent),
            Body::CallerOpened { key, opening, .. } => self.fold_opening(key, opening),
            Body::StepTaken { at, step } => self.fold_step(seq, *at, step),
            Body::ArtifactApplied { .. } | Body::SecretUsed { .. } | Body::SnapshotTaken { .. } => {
            }
        }
    }

    /// The conversation and what it costs.
    fn fold_thinking(&mut self, seq: u64, body: &Body) {
        match body {
            Body::ItemAdded { item } => self.fold_item(seq, item),
            Body::ModelCalled { items, .. } => {
                self.model = ModelPhase::InFlight(ModelCall { seq, items: *items });
                self.attempts += 1;
            }
            Body::ModelAnswered { items, error, .. } => match error {
                None => self.fold_answer(seq, items),
                Some(fault) => self.model = ModelPhase::Failed(fault.clone()),
            },
            Body::ModelAsked { provider, model, shown, bound, expires_ms } => {
                self.model = ModelPhase::Asked(ModelQuestion {
                    seq,
                    what: format!("{provider}/{model}"),
                    shown: shown.clone(),
                    bound: *bound,
                    expires_ms: *expires_ms,
                });
            }
            Body::Delivered { actions } => {
                for action in actions {
                    self.undelivered.remove(action);
                }
            }
            Body::RouteChanged { hop, .. } => {
                self.hop = *hop;
                self.attempts = 0;
                self.model = ModelPhase::Idle;
            }
            Body::BudgetReserved { cost, tokens } => {
                self.spent.reserved_cost = *cost;
                self.spent.reserved_tokens = *tokens;
            }
            Body::BudgetSpent { cost, tokens } => {
                self.spent.cost = self.spent.cost.plus(*cost);
                self.spent.tokens += tokens;
                self.spent.reserved_cost = types::Usd::ZERO;
                self.spent.reserved_tokens = 0;
            }
            other => unreachable!("not a record of thinking: {}", other.kind()),
        }
    }

    /// Checks, results, the end.
    fn fold_finishing(&mut self, seq: u64, body: &Body) {
        match body {
            Body::CheckStarted { name, .. } => self.checking = Some(name.clone()),
            Body::CheckPassed { name, .. } => self.fold_check(seq, name, true),
            Body::CheckFailed { name, .. } => self.fold_check(seq, name, false),
            Body::ArtifactRecorded { path, .. } => {
                self.artifacts.insert(path.clone(), seq);
            }
            Body::RunEnded { status, output, error } => {
                self.close_open_calls(seq);
                self.ended = Some(Ended {
                    status: *status,
                    output: output.clone(),
                    error: error.clone(),
                    seq,
                });
                self.cancel = false;
                self.timers.clear();
                self.close_end(seq);
            }
            other => unreachable!("not a record of the end: {}", other.kind()),
        }
    }

    /// Live time is counted from record to record while an owner lives.
    pub(crate) fn fold_time(&mut self, record: &Record) {
        let now = record.stamp.time_ms;
        let taken_up = matches!(
            record.body,
            Body::RunStarted { .. } | Body::Resumed { .. } | Body::Forked { .. }
        );
        let was_live = self.suspended.is_none() && self.ended.is_none() && !taken_up;
        if was_live {
            self.spent.wall_ms += now.saturating_sub(self.spent.live_since_ms);
        }
        self.spent.live_since_ms = now;
        self.last_ms = self.last_ms.max(now);
    }

    fn fold_lifecycle(&mut self, seq: u64, record: &Record) {
        match &record.body {
            Body::RunStarted { manifest, base, memory, .. } => {
                assert_eq!(seq, 0, "a run starts once");
                self.manifest = Some(manifest.clone());
                self.base = Some(base.clone());
                self.layer = Some(base.clone());
                self.memory = memory.as_deref().map(Memory::new);
                let labels = memory.as_deref().map(|memory| &memory.labels);
                labels.into_iter().for_each(|labels| self.labels.join(labels));
            }
            Body::Resumed { epoch } => {
                assert!(*epoch > self.epoch, "epochs only grow");
                self.epoch = *epoch;
                self.interrupt();
            }
            Body::Suspended { reason, failure } => {
                self.suspended = Some((reason.clone(), failure.clone()));
            }
            other => unreachable!("not a lifecycle record: {}", other.kind()),
        }
    }

    /// A new owner took the run up: what was in flight is interrupted, what was decided is to be
    /// decided again under the policy of now.
    fn interrupt(&mut self) {
        if self.may_start_again() {
            self.start_again();
        }
        if matches!(self.suspended, Some((WaitReason::Model, _))) {
            self.hop = 0;
        }
        self.suspended = None;
        self.checking = None;
        self.attempts = 0;
        let stays = match &self.model {
            ModelPhase::Backoff { .. } | ModelPhase::Asked(_) | ModelPhase::Approved(_) => true,
            // What a person said holds for another owner too.
            ModelPhase::Failed(fault) => fault.failure.code == NOT_LET,
            ModelPhase::Idle | ModelPhase::InFlight(_) => false,
        };
        if !stays {
            self.model = ModelPhase::Idle;
        }
        self.spent.forfeit();
        self.guest.interrupt();
        self.egress.interrupt();
        let egress = &self.egress;
        for action in self.actions.values_mut() {
            action.phase = match std::mem::replace(&mut action.phase, Phase::Settled) {
                Phase::Permitted => match action.approved {
                    Some(asked) => Phase::Approved { asked },
                    None => Phase::Proposed,
                },
                // What left a command counts as if the command were it.
                Phase::Started
                    if action.effect.max(egress.highest(action.id).unwrap_or(action.effect))
                        == EffectClass::Irreversible =>
                {
                    Phase::Ambiguous(Ambiguity::Crash)
                }
                Phase::Started => Phase::Interrupted,
                other => other,
            };
        }
    }

    /// A guest that did not do its work is begun again by a person: what it did is undone first.
    fn start_again(&mut self) {
        self.reopen();
        for action in self.actions.values_mut().filter(|action| action.phase == Phase::Settled) {
            let ran = action.started.is_some();
            action.phase = if ran { Phase::Interrupted } else { Phase::Proposed };
        }
    }

    pub(crate) fn fold_item(&mut self, seq: u64, item: &Item) {
        if let Item::ToolResult { call_id, labels, .. } = item {
            self.unproposed.retain(|id| id != call_id);
            self.spent.actions += 1;
            self.labels.join(labels);
            self.close_step(seq);
        }
        if let Item::UserMessage { .. } = item {
            self.reopen();
        }
        // A guest's own start, or a caller's own call, which no model asked for.
        if let Item::ToolCall { call_id, .. } = item {
            self.unproposed.push(call_id.clone());
        }
        self.items.push(Placed { seq, item: item.clone() });
    }

    /// New instructions: an ended run goes on, and its checks are due again.
    fn reopen(&mut self) {
        self.ended = None;
        self.checks.clear();
        self.artifacts.clear();
        self.checking = None;
    }

    fn fold_answer(&mut self, seq: u64, items: &[Item]) {
        if let ModelPhase::InFlight(call) = &self.model {
            self.items_sent = call.items;
        }
        self.model = ModelPhase::Idle;
        self.attempts = 0;
        self.answered = Some(seq);
        self.checks.clear();
        self.artifacts.clear();
        self.close_step(seq);
        for item in items {
            // A caller chooses which of them it carries out.
            if let (Item::ToolCall { call_id, .. }, None) = (item, &self.caller) {
                self.unproposed.push(call_id.clone());
            }
            self.items.push(Placed { seq, item: item.clone() });
        }
    }

    /// What is proposed, decided and asked.
    fn fold_asking(&mut self, seq: u64, body: &Body) {
        match body {
            Body::ActionProposed { call_id, tool, effect, requests } => {
                self.unproposed.retain(|id| id != call_id);
                self.spent.actions += 1;
                let action = Action {
                    id: seq,
                    call_id: call_id.clone(),
                    tool: tool.clone(),
                    effect: *effect,
                    requests: requests.clone(),
                    phase: Phase::Proposed,
                    attempts: 0,
                    decided: None,
                    started: None,
                    approved: None,
                    output: None,
                };
                self.actions.insert(seq, action);
            }
            Body::DecisionMade { action, verdict, reason, .. } => match action {
                Some(id) => self.fold_decision(seq, *id, *verdict, reason),
                None if *verdict == Verdict::Deny => self.denials += 1,
                None => {}
            },
            Body::ApprovalAsked { action, expires_ms, shown, needs, .. } => {
                let (expires_ms, shown) = (*expires_ms, shown.clone());
                let asked = Asked { seq, expires_ms, shown, quorum: Quorum::new(*needs) };
                self.action_mut(*action).phase = Phase::Asked(asked);
            }
            Body::ApprovalGiven { asked, verdict, reason, by, opens, .. } => {
                let enough =
                    *verdict != ApprovalVerdict::Approved || self.fold_yes(*asked, by, opens);
                if enough {
                    self.fold_approval(seq, *asked, *verdict, by, reason);
                }
            }
            Body::ApprovalRevoked { asked, .. } => {
                self.standing.remove(asked);
                self.fold_policy(&[]);
            }
            other => unreachable!("not a record of asking: {}", other.kind()),
        }
    }

    /// What is begun and what became of it.
    fn fold_acting(&mut self, seq: u64, body: &Body) {
        match body {
            Body::ActionStarted { action, attempt, .. } => {
                let action = self.action_mut(*action);
                action.phase = Phase::Started;
                action.attempts = *attempt;
                action.started = Some(seq);
            }
            Body::ActionFinished { action, status, output, labels, exit, as_of, .. } => {
                self.count_input(seq, *as_of);
                self.fold_outcome(seq, *action, *status, *exit, output, labels);
            }
            Body::ActionInDoubt { action, .. } => {
                self.action_mut(*action).phase = Phase::InDoubt { seq };
            }
            Body::ActionResolved { action, resolution, result, .. } => {
                self.fold_resolution(seq, *action, *resolution, result.as_ref());
            }
            other => unreachable!("not an action's record: {}", other.kind()),
        }
    }

    fn action_mut(&mut self, id: ActionId) -> &mut Action {
        self.actions.get_mut(&id).expect("a record names an action proposed before it")
    }

    fn fold_decision(&mut self, seq: u64, id: ActionId, verdict: Verdict, reason: &str) {
        let action = self.action_mut(id);
        action.decided = Some(seq);
        match verdict {
            Verdict::Permit => action.phase = Phase::Permitted,
            Verdict::Ask => {
                action.approved = None;
                action.phase = Phase::NeedsApproval;
            }
            Verdict::Deny => {
                self.denials += 1;
                self.settle(seq, id, format!("denied by policy: {reason}"), true, &Labels::none());
            }
        }
    }

    /// One person's yes. Whether enough have said it.
    fn fold_yes(&mut self, asked: u64, by: &str, opens: &[String]) -> bool {
        // What is sent to a model takes one person, and opens nothing.
        if self.model_question().is_some_and(|question| question.seq == asked) {
            return true;
        }
        let of_request = self.egress.grants.get_mut(&asked).map(|grant| &mut grant.quorum);
        let quorum = of_request.or_else(|| {
            self.actions.values_mut().find_map(|action| match &mut action.phase {
                Phase::Asked(question) if question.seq == asked => Some(&mut question.quorum),
                _ => None,
            })
        });
        let opened = quorum.expect("an answer names an open question").approve(by, opens);
        if let Some(entries) = opened.as_ref().filter(|entries| !entries.is_empty()) {
            self.standing.insert(asked, entries.clone());
        }
        opened.is_some()
    }

    fn fold_approval(
        &mut self,
        seq: u64,
        asked: u64,
        verdict: ApprovalVerdict,
        by: &str,
        why: &str,
    ) {
        if self.egress.answer(asked, verdict) {
            match verdict {
                ApprovalVerdict::Approved => self.approvals += 1,
                ApprovalVerdict::Denied => self.denials += 1,
                ApprovalVerdict::Expired => {}
            }
            return;
        }
        if self.model_question().is_some_and(|question| question.seq == asked) {
            return self.fold_model_answer(verdict, by, why);
        }
        let found = self.actions.values().find_map(|action| match &action.phase {
            Phase::Asked(question) if question.seq == asked => Some(action.id),
            _ => None,
        });
        let id = found.expect("an answer names an open question");
        match verdict {
            ApprovalVerdict::Approved => {
                self.approvals += 1;
                let action = self.action_mut(id);
                action.approved = Some(asked);
                action.phase = Phase::Approved { asked };
            }
            ApprovalVerdict::Denied => {
                self.denials += 1;
                let reason = if why.is_empty() { String::new() } else { format!(": {why}") };
                self.settle(seq, id, format!("denied by {by}{reason}"), true, &Labels::none());
            }
            ApprovalVerdict::Expired => {
                let text = "nobody approved this in time; it was not done".to_owned();
                self.settle(seq, id, text, true, &Labels::none());
            }
        }
    }

    /// What a person says about a model call: it is sent once, or not at all.
    fn fold_model_answer(&mut self, verdict: ApprovalVerdict, by: &str, why: &str) {
        let ModelPhase::Asked(question) = std::mem::replace(&mut self.model, ModelPhase::Idle)
        else {
            unreachable!("the caller saw the question");
        };
        let message = match verdict {
            ApprovalVerdict::Approved => {
                self.approvals += 1;
                self.model = ModelPhase::Approved(question);
                return;
            }
            ApprovalVerdict::Denied => {
                self.denials += 1;
                let reason = if why.is_empty() { String::new() } else { format!(": {why}") };
                format!("{by} did not let {} have this{reason}", question.what)
            }
            ApprovalVerdict::Expired => {
                format!("nobody approved in time what {} would have been sent", question.what)
            }
        };
        let failure = Failure {
            code: NOT_LET.to_owned(),
            message,
            next: "Go on with `bedplate send RUN TEXT`, or change [privacy] and start a new run."
                .to_owned(),
        };
        let class = FaultClass::Rejected;
        let fault = ModelFault { class, failure, http_status: 0, retry_after_ms: None };
        self.model = ModelPhase::Failed(fault);
    }

    fn fold_outcome(
        &mut self,
        seq: u64,
        id: ActionId,
        status: OutcomeStatus,
        exit: Option<i32>,
        output: &Output,
        labels: &Labels,
    ) {
        if self.is_guest() {
            self.guest.ended = Some((status, exit));
        }
        self.egress.command_ended();
        let retries_left = self.attempts_left(id);
        let action = self.action_mut(id);
        action.output = Some(output.clone());
        let began = !matches!(status, OutcomeStatus::Ok | OutcomeStatus::NotStarted);
        if began && action.effect == EffectClass::Irreversible {
            let reported = status == OutcomeStatus::Failed && exit.is_some();
            if !reported || self.has_probe(id) {
                self.action_mut(id).phase = Phase::Ambiguous(Ambiguity::Unclear);
                return;
            }
        } else if began && retries_left {
            action.phase = Phase::RetryDue;
            return;
        }
        let is_error = status != OutcomeStatus::Ok;
        self.settle(seq, id, output.text.clone(), is_error, labels);
    }

    /// An input counts from what it says of itself, else from when it came; the oldest counts.
    fn count_input(&mut self, seq: u64, as_of: Option<AsOf>) {
        let from_ms = as_of.map_or(self.last_ms, |as_of| as_of.counts_from(self.last_ms));
        if self.oldest_input_ms.is_none_or(|oldest| from_ms < oldest) {
            self.oldest_input_ms = Some(from_ms);
            self.oldest_input = Some(seq);
        }
    }

    fn tool_config(&self, id: ActionId) -> Option<&types::manifest::CommandTool> {
        let name = &self.actions.get(&id)?.tool;
        self.manifest().tools.iter().find(|tool| tool.name == *name)
    }

    fn has_probe(&self, id: ActionId) -> bool {
        self.tool_config(id).is_some_and(|tool| tool.probe.is_some())
    }

    fn attempts_left(&self, id: ActionId) -> bool {
        let done = self.actions.get(&id).map_or(0, |action| action.attempts);
        self.tool_config(id).is_some_and(|tool| done < tool.attempts)
    }

    fn fold_resolution(
        &mut self,
        seq: u64,
        id: ActionId,
        resolution: Resolution,
        result: Option<&serde_json::Value>,
    ) {
        let unclear = self.actions[&id].phase == Phase::Ambiguous(Ambiguity::Unclear);
        match resolution {
            Resolution::Happened => {
                let text = result.map_or_else(
                    || "it is known to have happened; its result was lost".to_owned(),
                    serde_json::Value::to_string,
                );
                self.settle(seq, id, text, false, &Labels::none());
            }
            Resolution::NotHappened if unclear => {
                let told = self.actions[&id].output.as_ref().map(|o| o.text.clone());
                let text = format!("it did not happen. {}", told.unwrap_or_default());
                self.settle(seq, id, text, true, &Labels::none());
            }
            Resolution::NotHappened => {
                let action = self.action_mut(id);
                action.phase = match action.approved {
                    Some(asked) => Phase::Approved { asked },
                    None => Phase::Proposed,
                };
            }
            Resolution::Abandoned => {
                let text = "abandoned: nobody knows whether it happened".to_owned();
                self.settle(seq, id, text, true, &Labels::none());
            }
        }
    }

    /// The outcome joins the conversation.
    pub(crate) fn settle(
        &mut self,
        seq: u64,
        id: ActionId,
        text: String,
        is_error: bool,
        labels: &Labels,
    ) {
        let action = self.action_mut(id);
        assert_ne!(action.phase, Phase::Settled, "an action is settled once");
        action.phase = Phase::Settled;
        let item = Item::ToolResult {
            call_id: action.call_id.clone(),
            output: text,
            is_error,
            labels: labels.clone(),
        };
        self.labels.join(labels);
        self.items.push(Placed { seq, item });
        self.undelivered.insert(id);
        self.close_step(seq);
    }

    /// An ended run owes the model an answer to each of its calls, or it could never go on; only
    /// what is in doubt stays open.
    fn close_open_calls(&mut self, seq: u64) {
        let is_open = |phase: &Phase| !matches!(phase, Phase::Settled | Phase::InDoubt { .. });
        let open: Vec<ActionId> =
            self.actions.values().filter(|a| is_open(&a.phase)).map(|a| a.id).collect();
        for id in open {
            self.settle(seq, id, "the run was ended before this".to_owned(), true, &Labels::none());
        }
        for call_id in std::mem::take(&mut self.unproposed) {
            self.close_step(seq);
            let output = "the run was ended before this".to_owned();
            let item = Item::ToolResult { call_id, output, is_error: true, labels: Labels::none() };
            self.items.push(Placed { seq, item });
        }
        self.model = ModelPhase::Idle;
    }

    fn fold_rollback(&mut self, to: &types::LayerId) {
        self.layer = Some(to.clone());
        // A guest begins again where the run began; anything else had sealed nothing yet.
        let guest = self.is_guest();
        if let Some(memory) = self.memory.as_mut().filter(|_| guest) {
            memory.layer = memory.base.clone();
        }
        for action in self.actions.values_mut() {
            if action.phase == Phase::Interrupted && action.effect == EffectClass::Workspace {
                action.phase = Phase::RolledBack;
            }
        }
    }

    fn fold_signal(&mut self, seq: u64, name: &str, payload: &serde_json::Value) {
        self.signals.push(Signal { seq, name: name.to_owned(), payload: payload.clone() });
    }

    fn fold_timer(&mut self, seq: u64, due_ms: u64, purpose: &TimerPurpose) {
        match purpose {
            TimerPurpose::ModelRetry => self.model = ModelPhase::Backoff { timer: seq },
            TimerPurpose::ActionRetry(id) => {
                self.action_mut(*id).phase = Phase::Backoff { timer: seq };
            }
            TimerPurpose::Wait(id) => {
                // A timer without end stands for waiting on a signal alone.
                let timer = (due_ms != u64::MAX).then_some(seq);
                self.action_mut(*id).phase = Phase::Waiting { timer };
                if timer.is_none() {
                    return;
                }
            }
            TimerPurpose::ApprovalExpiry(_) => {}
        }
        self.timers.insert(seq, Timer { seq, due_ms, purpose: purpose.clone() });
    }

    fn fold_fired(&mut self, timer: u64) {
        let Some(timer) = self.timers.remove(&timer) else {
            return;
        };
        match timer.purpose {
            TimerPurpose::ModelRetry => self.model = ModelPhase::Idle,
            TimerPurpose::ActionRetry(id) => {
                let action = self.action_mut(id);
                action.phase = match action.approved {
                    Some(asked) => Phase::Approved { asked },
                    None => Phase::Proposed,
                };
            }
            TimerPurpose::Wait(_) | TimerPurpose::ApprovalExpiry(_) => {}
        }
    }

    fn fold_check(&mut self, seq: u64, name: &str, passed: bool) {
        self.egress.command_ended();
        self.checking = None;
        self.checks.push(CheckState { name: name.to_owned(), passed, seq });
    }

    /// An answer that an action heard is an input; one that a check heard reaches nobody.
    fn fold_egress(&mut self, seq: u64, body: &Body) {
        if let Body::EgressEnded { egress, as_of: Some(as_of), .. } = body {
            let heard =
                self.egress.passed.get(egress).is_some_and(|passed| passed.during.is_some());
            if heard {
                self.count_input(seq, Some(*as_of));
            }
        }
        self.denials += u64::from(self.egress.fold(seq, body));
    }

    /// Live policy: what was permitted and not started is decided again.
    fn fold_policy(&mut self, allow: &[String]) {
        self.allowed.extend(allow.iter().cloned());
        for action in self.actions.values_mut() {
            if action.phase == Phase::Permitted {
                action.phase = match action.approved {
                    Some(asked) => Phase::Approved { asked },
                    None => Phase::Proposed,
                };
            }
        }
    }
}
