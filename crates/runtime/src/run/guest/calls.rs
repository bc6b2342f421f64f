//! A guest's calls of models, by the way of the built-in loop's: decided, reserved, recorded, sent
//! by the gate, recorded. Many may be going at once; each is a step at a time here.
//!
//! ```text
//!  asked --in the log--> served, over
//!        --decide--> prepare --budget, record--> sent --recorded--> the guest has its end, over
//!           ^  `---------`------------------------`--fault: the next entry of the route--.
//!           `-----------------------------------------------------------------------------'
//!                                                     none is left: refused, over
//! ```
//!
//! What always holds: nothing is sent before its decision, its reservation and what the guest asked
//! are durable; a guest has the end of an answer only when the answer is recorded.

use crate::error::RuntimeError;
use crate::run::model::Target;
use crate::run::model::withheld;
use crate::run::passage::TAIL_MS_MAX;
use crate::run::privacy::Report;
use crate::run::{Draft, RunTask};
use gate::{
    Answer, Answered, Finish, GuestAsk, GuestLink, NotPrepared, Prepared, PrivacyFindings, Secret,
};
use models::guest::GuestFault;
use models::{DECODER_VERSION, ENCODER_VERSION, Endpoint};
use policy::Decision;
use std::collections::BTreeMap;
use std::time::Duration;
use store::{Durability, Read as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use types::manifest::{RouteEntry, SCRIPT_PROVIDER};
use types::{
    BRANCH_MAIN, Body, Coded as _, Failure, FaultClass, Link, ModelFault, Usage, Usd, Verdict,
};

/// Status of a call that policy denies.
const DENIED: u16 = 403;
/// Status of a call that the budget does not have.
const TOO_DEAR: u16 = 402;
/// Status of a call that no model is configured for.
const NO_MODEL: u16 = 404;

/// What comes back from the gate.
#[derive(Debug)]
pub(in crate::run) enum Step {
    /// A request was encoded, or cannot be.
    Prepared { ask: u64, result: Result<Prepared, NotPrepared> },
    /// The provider answered, or did not.
    Answered { ask: u64, answered: Answered },
}

/// Calls that are going, by the number of the gate's question.
#[derive(Debug)]
pub(in crate::run) struct Calls {
    going: BTreeMap<u64, Going>,
    tell: mpsc::UnboundedSender<Step>,
    steps: mpsc::UnboundedReceiver<Step>,
}

/// One call at one entry of the route.
#[derive(Debug)]
struct Going {
    ask: GuestAsk,
    link: GuestLink,
    hop: u32,
    /// Where it is tried.
    at: Option<At>,
    /// What it needs to be sent there.
    permit: Option<(Decision, Option<Secret>)>,
    /// The record that announced it at this entry.
    record: Option<u64>,
    /// The record that first announced it, which keeps the body.
    first: Option<u64>,
    /// Why the entry before gave nothing.
    last: Option<(u16, ModelFault)>,
    task: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone)]
struct At {
    entry: RouteEntry,
    endpoint: Endpoint,
    /// Whether no pseudonym may stand in what the provider writes.
    plain: bool,
}

impl Going {
    fn new(ask: GuestAsk, link: GuestLink) -> Self {
        let (at, permit, record, first) = (None, None, None, None);
        Self { ask, link, hop: 0, at, permit, record, first, last: None, task: None }
    }

    /// Whether the guest gets the provider's own bytes.
    fn is_native(&self, at: &At) -> bool {
        let own = self.ask.dialect == at.endpoint.dialect;
        own && at.plain && at.entry.provider != SCRIPT_PROVIDER
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Default for Calls {
    fn default() -> Self {
        let (tell, steps) = mpsc::unbounded_channel();
        Self { going: BTreeMap::new(), tell, steps }
    }
}

impl Calls {
    /// What comes next; never, when nothing is going.
    pub(in crate::run) async fn next(&mut self) -> Step {
        self.steps.recv().await.expect("we hold the sender ourselves")
    }
}

impl RunTask {
    /// A guest wants an answer: of the log, else of a model.
    pub(in crate::run) async fn on_guest_ask(
        &mut self,
        ask: u64,
        asked: GuestAsk,
    ) -> Result<(), RuntimeError> {
        let Some(link) = self.world.net.as_ref().and_then(|net| net.guests()) else {
            return Ok(());
        };
        if self.acting.is_none() {
            // A check, or what is left of a guest that has ended.
            let failure = no_guest();
            link.refuse(ask, DENIED, failure, None).await;
            return Ok(());
        }
        if let Some(answer) = self.state.guest.answer_to(&asked.key) {
            return self.serve_recorded(ask, &asked, &link, answer).await;
        }
        if let Some(expected) = self.state.guest.diverges(&asked.key) {
            let served = self.state.guest.served();
            let body = Body::GuestDiverged { key: asked.key, expected, served };
            self.record(Durability::Written, Draft::new(body)).await?;
        }
        self.calls.going.insert(ask, Going::new(asked, link));
        self.try_entries(ask).await
    }

    /// Gives an answer of the log again: nothing leaves, nothing is paid.
    async fn serve_recorded(
        &mut self,
        ask: u64,
        asked: &GuestAsk,
        link: &GuestLink,
        answer: u64,
    ) -> Result<(), RuntimeError> {
        let records = self.parts.store.records_page(&self.run, BRANCH_MAIN, answer, 1);
        let records = records.map_err(|error| RuntimeError::part(&error))?;
        let Some(Body::GuestAnswered { items, native, finish, usage, .. }) =
            records.into_iter().next().map(|record| record.body)
        else {
            unreachable!("the fold names records of answers");
        };
        let raw = self.parts.store.attachment(&self.run, BRANCH_MAIN, answer, "raw");
        let raw = raw.map_err(|error| RuntimeError::part(&error))?.unwrap_or_default();
        let body = Body::GuestServed { key: asked.key, answer };
        let draft = Draft::new(body).because(Link::ResultOf, Some(answer));
        self.record(Durability::Written, draft).await?;
        let finish = finish_of(&finish);
        let answer = Answer { items, usage, usage_estimated: false, finish };
        link.serve(ask, answer, native, raw).await;
        Ok(())
    }

    /// Tries the entries of the route from the call's own on, until one is being prepared; refuses
    /// the guest when none is left.
    async fn try_entries(&mut self, ask: u64) -> Result<(), RuntimeError> {
        loop {
            let Some(hop) = self.calls.going.get(&ask).map(|going| going.hop) else {
                return Ok(());
            };
            let manifest = self.state.manifest();
            let route = manifest.routes.get(&manifest.agent.model);
            let Some(entry) = route.and_then(|route| route.get(hop as usize)).cloned() else {
                return self.refuse_last(ask).await;
            };
            let decision = self.decide_guest(&self.guest_target(&entry), None);
            let fault = if decision.verdict == Verdict::Permit {
                self.flush().await?;
                match self.endpoint(&entry).await {
                    Ok((endpoint, key)) => {
                        let at = At { entry, endpoint, plain: true };
                        match self.prepare_guest(ask, at, (decision, key)) {
                            Ok(()) => return Ok(()),
                            Err(fault) => (DENIED, fault),
                        }
                    }
                    Err(fault) => (GuestFault::from(&fault).status, fault),
                }
            } else {
                (DENIED, self.deny_guest(decision).await?)
            };
            if let Some(going) = self.calls.going.get_mut(&ask) {
                going.last = Some(fault);
                going.hop += 1;
            }
        }
    }

    /// The entry, as the built-in loop would call it.
    fn guest_target(&self, entry: &RouteEntry) -> Target {
        self.target(self.state.manifest().agent.model.clone(), entry.clone())
    }

    /// Asks policy about a call: with what would be sent as it is, and what it carries.
    fn decide_guest(&self, target: &Target, report: Option<&Report>) -> Decision {
        let mut carried = self.carried_out();
        if let Some(report) = report {
            carried.labels.join(&report.labels);
        }
        let by = &self.actor.on_behalf_of;
        self.gatekeeper.decide(&[target.request(report)], &carried, by, false)
    }

    /// The privacy router's word on a request that is put together: what is recorded of it, and the
    /// decision, or why it does not go there. A guest does not wait for a person: what would be
    /// asked is refused.
    fn guest_report(
        &self,
        target: &Target,
        prepared: &Prepared,
        decision: Decision,
    ) -> (Option<Draft>, Result<Decision, (Decision, Failure)>) {
        let report = self.report(&prepared.findings, target.local);
        let changes = !report.bare.is_empty() || !report.labels.is_empty();
        let decision = if changes { self.decide_guest(target, Some(&report)) } else { decision };
        let failure = self.stands_against(target, &report, &decision);
        let noted = !report.found.is_empty() || !prepared.unsaved.is_empty();
        let unsaved = if failure.is_some() { &[][..] } else { &prepared.unsaved };
        let started = self.acting.and_then(|id| self.action(id).started);
        let draft = report.draft(target, Some(prepared.digest), unsaved, started);
        let word = match failure {
            Some((decision, failure)) => Err((decision, failure)),
            None => Ok(decision),
        };
        (noted.then_some(draft), word)
    }

    /// Records that policy does not let an entry be called.
    async fn deny_guest(&mut self, decision: Decision) -> Result<ModelFault, RuntimeError> {
        let failure = decision.failure().unwrap_or_else(|| Failure {
            code: "BP-RUN-007".to_owned(),
            message: format!("policy wants a person to approve this model: {}", decision.reason),
            next: "Permit call_model for this route; model calls are not asked one by one."
                .to_owned(),
        });
        let carried = self.carried_out();
        let body = decision_made(decision, Verdict::Deny, carried);
        self.record(Durability::Written, Draft::new(body)).await?;
        Ok(rejected(failure))
    }

    fn prepare_guest(
        &mut self,
        ask: u64,
        at: At,
        permit: (Decision, Option<Secret>),
    ) -> Result<(), ModelFault> {
        let local = self.guest_target(&at.entry).local;
        let order = self.privacy_order(local).map_err(rejected)?;
        let tell = self.calls.tell.clone();
        let Some(going) = self.calls.going.get_mut(&ask) else { return Ok(()) };
        let (link, endpoint) = (going.link.clone(), at.endpoint.clone());
        let model = at.entry.model.clone();
        (going.at, going.permit) = (Some(at), Some(permit));
        going.task = Some(tokio::spawn(async move {
            let result = link.prepare(ask, endpoint, model, order).await;
            let _ = tell.send(Step::Prepared { ask, result });
        }));
        Ok(())
    }

    /// Takes what came back from the gate.
    pub(in crate::run) async fn on_guest_step(&mut self, step: Step) -> Result<(), RuntimeError> {
        match step {
            Step::Prepared { ask, result: Ok(prepared) } => {
                self.announce_guest(ask, prepared).await
            }
            Step::Prepared { ask, result: Err(NotPrepared::Fault(fault)) } => {
                self.next_entry(ask, fault).await
            }
            Step::Prepared { ask, result: Err(NotPrepared::Withheld { failure, findings }) } => {
                self.withheld_from(ask, failure, &findings).await
            }
            Step::Answered { ask, answered } => self.on_guest_answer(ask, answered).await,
        }
    }

    /// The router does not let the request out, whatever policy says.
    async fn withheld_from(
        &mut self,
        ask: u64,
        failure: Failure,
        findings: &PrivacyFindings,
    ) -> Result<(), RuntimeError> {
        let Some(going) = self.calls.going.get_mut(&ask) else { return Ok(()) };
        let (Some(at), Some((decision, _))) = (going.at.clone(), going.permit.take()) else {
            return Ok(());
        };
        let target = self.guest_target(&at.entry);
        let started = self.acting.and_then(|id| self.action(id).started);
        let found = self.report(findings, target.local).draft(&target, None, &[], started);
        let decision = withheld(decision, &["privacy".to_owned()], &failure);
        self.turn_guest_down(ask, Some(found), decision, failure).await
    }

    /// Records why a call does not go to its entry; the next one may take it.
    async fn turn_guest_down(
        &mut self,
        ask: u64,
        found: Option<Draft>,
        decision: Decision,
        failure: Failure,
    ) -> Result<(), RuntimeError> {
        let carried = self.carried_out();
        let mut drafts: Vec<Draft> = found.into_iter().collect();
        drafts.push(Draft::new(decision_made(decision, Verdict::Deny, carried)));
        self.append(Durability::Written, drafts).await?;
        let Some(going) = self.calls.going.get_mut(&ask) else { return Ok(()) };
        going.last = Some((DENIED, rejected(failure)));
        going.hop += 1;
        // Boxed: trying entries comes back here.
        Box::pin(self.try_entries(ask)).await
    }

    /// This entry gave nothing.
    async fn next_entry(&mut self, ask: u64, fault: ModelFault) -> Result<(), RuntimeError> {
        let Some(going) = self.calls.going.get_mut(&ask) else { return Ok(()) };
        if fault.class == FaultClass::Interrupted {
            // The guest was told in its stream, or has gone.
            self.calls.going.remove(&ask);
            return Ok(());
        }
        going.last = Some((GuestFault::from(&fault).status, fault));
        going.hop += 1;
        self.try_entries(ask).await
    }

    /// Reserves the budget and records the call; then it is sent.
    async fn announce_guest(&mut self, ask: u64, prepared: Prepared) -> Result<(), RuntimeError> {
        let Some(mut going) = self.calls.going.remove(&ask) else { return Ok(()) };
        let mut at = going.at.clone().expect("it was prepared for an entry");
        let (decision, key) = going.permit.take().expect("it was permitted for an entry");
        let target = self.guest_target(&at.entry);
        let (found, word) = self.guest_report(&target, &prepared, decision);
        let decision = match word {
            Ok(decision) => decision,
            Err((decision, failure)) => {
                drop(prepared);
                self.calls.going.insert(ask, going);
                return self.turn_guest_down(ask, found, decision, failure).await;
            }
        };
        at.plain = self.has_no_pseudonyms() && prepared.unsaved.is_empty();
        going.at = Some(at.clone());
        let cost = self.prices()?.cost(&at.endpoint, &at.entry.model, &prepared.estimate.usage());
        let tokens = prepared.estimate.tokens();
        let budget = &self.state.manifest().budget;
        let now = self.parts.clock.now_ms();
        if let Some(failure) = kernel::over_budget(budget, &self.state.spent, now, cost, tokens) {
            drop(prepared);
            return self.refuse_guest(ask, &going, TOO_DEAR, failure).await;
        }
        let mut drafts: Vec<Draft> = found.into_iter().collect();
        let decided = self.state.next_seq + drafts.len() as u64;
        let decision = decision_made(decision, Verdict::Permit, self.carried_out());
        let started = self.acting.and_then(|id| self.action(id).started);
        let (call, between) = self.guest_called(&going, &at, &prepared, cost);
        let call = Draft::new(call)
            .because(Link::DecidedBy, Some(decided))
            .because(Link::AskedIn, started)
            .because(Link::RetryOf, going.record)
            .with("request", between);
        drafts.extend([Draft::new(decision), call]);
        let written = self.append(Durability::Synced, drafts).await?;
        let record = written.last().expect("the call was written").stamp.seq;
        self.keep_pseudonyms(&prepared.unsaved);
        going.link.noted(ask, record).await;
        let (tell, gate) = (self.calls.tell.clone(), self.parts.gate.clone());
        going.task = Some(tokio::spawn(async move {
            let answered = gate.send(prepared, key, |_| ()).await;
            let _ = tell.send(Step::Answered { ask, answered });
        }));
        going.first = going.first.or(Some(record));
        going.record = Some(record);
        self.calls.going.insert(ask, going);
        Ok(())
    }

    /// The record of a call, and of its body what no earlier record has.
    fn guest_called(
        &self,
        going: &Going,
        at: &At,
        prepared: &Prepared,
        cost: Option<Usd>,
    ) -> (Body, Vec<u8>) {
        let ask = &going.ask;
        // Another entry of the route is asked with the body that is recorded already.
        let (base, head_bytes, tail_bytes, between) = match going.first {
            Some(first) => (Some(first), ask.bytes, 0, Vec::new()),
            None => (ask.base, ask.head_bytes, ask.tail_bytes, ask.body.to_vec()),
        };
        let dropped = if going.is_native(at) { Vec::new() } else { ask.dropped.clone() };
        let body = Body::GuestCalled {
            dialect: ask.dialect,
            key: ask.key,
            asked: ask.digest,
            asked_bytes: ask.bytes,
            base,
            head_bytes,
            tail_bytes,
            dropped,
            hop: going.hop,
            route: self.state.manifest().agent.model.clone(),
            provider: at.entry.provider.clone(),
            model: at.entry.model.clone(),
            credential: at.endpoint.key_env.clone(),
            encoder: ENCODER_VERSION,
            request: prepared.digest,
            request_bytes: prepared.bytes,
            cost: cost.unwrap_or(Usd::ZERO),
            tokens: prepared.estimate.tokens(),
        };
        (body, between)
    }

    /// Records what became of a call. An answer's end is the guest's from then on.
    async fn on_guest_answer(&mut self, ask: u64, answered: Answered) -> Result<(), RuntimeError> {
        let Some(going) = self.calls.going.get(&ask) else { return Ok(()) };
        let (link, call) = (going.link.clone(), going.record.expect("it was recorded, then sent"));
        let at = going.at.clone().expect("it was sent to an entry");
        let native = going.is_native(&at);
        let (raw, result) = (answered.raw.to_vec(), answered.result);
        let body = match &result {
            Ok(answer) => {
                let cost = self.prices()?.cost(&at.endpoint, &at.entry.model, &answer.usage);
                Body::GuestAnswered {
                    call,
                    items: answer.items.clone(),
                    native,
                    finish: finish_word(answer.finish),
                    usage: answer.usage,
                    cost: cost.unwrap_or(Usd::ZERO),
                    decoder: DECODER_VERSION,
                    error: None,
                    restored: answered.restored,
                }
            }
            Err(fault) => no_answer(call, Usd::ZERO, fault.clone()),
        };
        let mut draft = Draft::new(body).because(Link::ResultOf, Some(call));
        if !raw.is_empty() {
            draft = draft.with("raw", raw);
        }
        self.record(Durability::Written, draft).await?;
        match result {
            Ok(_) => {
                self.calls.going.remove(&ask);
                link.finish(ask).await;
                Ok(())
            }
            Err(fault) => self.next_entry(ask, fault).await,
        }
    }

    /// No entry of the route is left.
    async fn refuse_last(&mut self, ask: u64) -> Result<(), RuntimeError> {
        let Some(going) = self.calls.going.remove(&ask) else { return Ok(()) };
        let (status, failure) = match &going.last {
            Some((status, fault)) => (*status, fault.failure.clone()),
            None => (NO_MODEL, self.no_model()),
        };
        self.refuse_guest(ask, &going, status, failure).await
    }

    fn no_model(&self) -> Failure {
        let route = self.state.manifest().agent.model.clone();
        let hint = ", so no model answers a guest".to_owned();
        RuntimeError::NoRoute { route, hint }.failure()
    }

    /// Records that a guest is refused, and tells it in its dialect.
    async fn refuse_guest(
        &mut self,
        ask: u64,
        going: &Going,
        status: u16,
        failure: Failure,
    ) -> Result<(), RuntimeError> {
        let after_ms = going.last.as_ref().and_then(|(_, fault)| fault.retry_after_ms);
        let body = Body::GuestRefused { key: going.ask.key, status, failure: failure.clone() };
        let started = self.acting.and_then(|id| self.action(id).started);
        let draft = Draft::new(body).because(Link::ResultOf, going.record.or(started));
        self.record(Durability::Written, draft).await?;
        going.link.refuse(ask, status, failure, after_ms).await;
        Ok(())
    }

    /// The guest is over: what it still waits for ends too. A provider that answers soon is heard,
    /// since it is paid; else the reservation counts as spent.
    pub(in crate::run) async fn settle_calls(
        &mut self,
        by_itself: bool,
    ) -> Result<(), RuntimeError> {
        let until = Instant::now() + Duration::from_millis(TAIL_MS_MAX);
        while by_itself && self.calls.going.values().any(|going| going.record.is_some()) {
            match tokio::time::timeout_at(until, self.calls.next()).await {
                Ok(Step::Answered { ask, answered }) => self.on_guest_answer(ask, answered).await?,
                Ok(Step::Prepared { ask, .. }) => drop(self.calls.going.remove(&ask)),
                Err(_) => break,
            }
        }
        self.calls = Calls::default();
        let open: Vec<(u64, Usd)> = self.state.guest.in_flight().collect();
        for (call, cost) in open {
            let failure = no_guest();
            let (class, http_status) = (FaultClass::Interrupted, 0);
            let fault = ModelFault { class, failure, http_status, retry_after_ms: None };
            let draft = Draft::new(no_answer(call, cost, fault));
            let draft = draft.because(Link::ResultOf, Some(call));
            self.record(Durability::Written, draft).await?;
        }
        Ok(())
    }
}

fn rejected(failure: Failure) -> ModelFault {
    let class = FaultClass::Rejected;
    ModelFault { class, failure, http_status: 0, retry_after_ms: None }
}

fn no_guest() -> Failure {
    Failure {
        code: "BP-RUN-022".to_owned(),
        message: "no guest runs now that could use an answer".to_owned(),
        next: "Models are called by the run's own guest, while it runs.".to_owned(),
    }
}

fn no_answer(call: u64, cost: Usd, fault: ModelFault) -> Body {
    Body::GuestAnswered {
        call,
        items: Vec::new(),
        native: false,
        finish: String::new(),
        usage: Usage::default(),
        cost,
        decoder: DECODER_VERSION,
        error: Some(fault),
        restored: Vec::new(),
    }
}

fn decision_made(decision: Decision, verdict: Verdict, carried: types::Carried) -> Body {
    Body::DecisionMade {
        action: None,
        verdict,
        approved: false,
        policies: decision.policies,
        reason: decision.reason,
        policy_set: decision.policy_set,
        input: decision.input,
        carried,
    }
}

/// Why a model stopped, as it stands in the log.
fn finish_word(finish: Finish) -> String {
    let word = match finish {
        Finish::Stop => "stop",
        Finish::ToolCalls => "tool_calls",
        Finish::Length => "length",
        Finish::Filtered => "filtered",
    };
    word.to_owned()
}

fn finish_of(word: &str) -> Finish {
    match word {
        "tool_calls" => Finish::ToolCalls,
        "length" => Finish::Length,
        "filtered" => Finish::Filtered,
        _ => Finish::Stop,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_has_a_code() {
        assert_eq!(no_guest().code, "BP-RUN-022");
    }

    #[test]
    fn why_a_model_stopped_is_read_as_it_was_written() {
        for finish in [Finish::Stop, Finish::ToolCalls, Finish::Length, Finish::Filtered] {
            assert_eq!(finish_of(&finish_word(finish)), finish);
        }
    }
}
