//! Model calls: routed, looked into, decided, budgeted, recorded, then sent by the gate.

use super::privacy::Report;
use super::{Draft, RunTask};
use crate::config;
use crate::error::RuntimeError;
use gate::{ModelCall, NotPrepared, Prepared, Secret};
use kernel::ModelPhase;
use models::{DECODER_VERSION, Dialect, ENCODER_VERSION, Endpoint, Prices};
use std::path::Path;
use store::Durability;
use types::manifest::{APPROVAL_EXPIRES_MS_DEFAULT, MemoryAccess, RouteEntry, SCRIPT_PROVIDER};
use types::{
    ActionRequest, Body, Carried, Coded, Digest, EndStatus, Failure, FaultClass, Item, Link,
    ModelFault, Treatment, Usage, Usd, Verdict,
};

/// Most tokens one answer may have; part of every reservation.
const OUTPUT_TOKENS_MAX: u64 = 16_384;
/// What `[privacy]` refuses to send to anyone.
const REFUSED: &str = "BP-PRIVACY-010";
/// Policy asks about a call without looking at what is sent.
const ASK_AT_EVERY_STEP: &str = "BP-RUN-007";
/// What every agent is told before its own instructions.
const PREAMBLE: &str = "You work in a sandbox. Your files are in /workspace. Use the tools you are \
    given; some actions need a permission you may not have, and the answer says so. When the work \
    is done, say so in plain words without calling a tool.";

/// What an agent with memory is told besides.
const PREAMBLE_MEMORY: &str = "What you keep in /memory outlives this run: read it first, and";
const MEMORY_WRITABLE: &str = "write down there what a later run should know.";
const MEMORY_READ_ONLY: &str = "do not try to change it.";

/// An entry of a route, and where it is.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) route: String,
    pub(super) entry: RouteEntry,
    /// Whether its provider is on this machine.
    pub(super) local: bool,
}

impl Target {
    /// What policy is asked, with what would be sent as it is.
    pub(super) fn request(&self, report: Option<&Report>) -> ActionRequest {
        ActionRequest::CallModel {
            route: self.route.clone(),
            provider: self.entry.provider.clone(),
            model: self.entry.model.clone(),
            local: self.local,
            privacy: report.map(|report| report.bare.clone()).unwrap_or_default(),
        }
    }
}

/// What became of a call.
enum Tried {
    /// It was sent, asked about, or is over.
    Settled,
    /// It may go to a provider on this machine, and this is none.
    LocalOnly(Box<Turned>),
}

/// Why a call does not go where it was meant to, for the record.
struct Turned {
    /// What the router found, if it was looked.
    found: Option<Draft>,
    decision: policy::Decision,
    failure: Failure,
}

/// A call that may be sent.
struct Ready {
    endpoint: Endpoint,
    key: Option<Secret>,
    prepared: Prepared,
    report: Report,
    decision: policy::Decision,
    /// The record that asked, when a person approved exactly this.
    approved: Option<u64>,
}

impl RunTask {
    /// One attempt at one entry of the route, or at the local route where this may not go there.
    pub(super) async fn call_model(&mut self, hop: u32, attempt: u32) -> Result<(), RuntimeError> {
        let route = self.state.manifest().agent.model.clone();
        let target = self.target(route, self.route_entry(hop)?);
        let turned = match self.try_target(&target, (hop, attempt), Vec::new()).await? {
            Tried::Settled => return Ok(()),
            Tried::LocalOnly(turned) => turned,
        };
        let Some(local) = self.local_target() else {
            return self.refuse_call(*turned).await;
        };
        let before = turned.found.into_iter().collect();
        match self.try_target(&local, (hop, attempt), before).await? {
            Tried::Settled => Ok(()),
            Tried::LocalOnly(turned) => self.refuse_call(*turned).await,
        }
    }

    pub(super) fn target(&self, route: String, entry: RouteEntry) -> Target {
        let providers = &self.state.manifest().providers;
        let local = entry.provider == SCRIPT_PROVIDER
            || models::resolve(&entry.provider, providers).is_ok_and(|e| e.local);
        Target { route, entry, local }
    }

    /// The first entry of `[privacy] local_route`, if it is on this machine.
    fn local_target(&self) -> Option<Target> {
        let route = self.gatekeeper.privacy().local_route.as_ref()?;
        let entry = self.state.manifest().routes.get(route)?.first()?;
        Some(self.target(route.clone(), entry.clone())).filter(|target| target.local)
    }

    fn route_entry(&self, hop: u32) -> Result<RouteEntry, RuntimeError> {
        let manifest = self.state.manifest();
        let route = manifest.routes.get(&manifest.agent.model);
        let entry = route.and_then(|route| route.get(hop as usize)).cloned();
        entry.ok_or_else(|| RuntimeError::NoRoute {
            route: manifest.agent.model.clone(),
            hint: format!(" with an entry {hop}"),
        })
    }

    /// Asks policy about a call: with what would be sent as it is, and what it carries.
    fn decide_call(
        &self,
        target: &Target,
        report: Option<&Report>,
        approved: bool,
    ) -> policy::Decision {
        let carried = self.carried_by_call(report);
        self.gatekeeper.decide(
            &[target.request(report)],
            &carried,
            &self.actor.on_behalf_of,
            approved,
        )
    }

    /// What a call carries: the context, and what the router has just found in it.
    fn carried_by_call(&self, report: Option<&Report>) -> Carried {
        let mut carried = self.carried();
        if let Some(report) = report {
            carried.labels.join(&report.labels);
        }
        carried
    }

    /// One attempt at one provider. `before` is what was found for another that may not have this.
    async fn try_target(
        &mut self,
        target: &Target,
        (hop, attempt): (u32, u32),
        mut before: Vec<Draft>,
    ) -> Result<Tried, RuntimeError> {
        let decision = self.decide_call(target, None, false);
        if decision.verdict == Verdict::Deny {
            let failure = decision.failure().expect("a denial has a code");
            let turned = Turned { found: before.pop(), decision, failure };
            return self.turned(target, turned).await;
        }
        self.flush().await?;
        let (endpoint, key) = match self.endpoint(&target.entry).await {
            Ok(found) => found,
            Err(fault) => return self.settled_by(fault).await,
        };
        let prepared = match self.prepare(target, endpoint.clone()).await {
            Ok(prepared) => prepared,
            Err(NotPrepared::Fault(fault)) => return self.settled_by(fault).await,
            Err(NotPrepared::Withheld { failure, findings }) => {
                let report = self.report(&findings, target.local);
                let found = Some(report.draft(target, None, &[], self.last_input()));
                let decision = withheld(decision, &["privacy".to_owned()], &failure);
                self.refuse_call(Turned { found, decision, failure }).await?;
                return Ok(Tried::Settled);
            }
        };
        let report = self.report(&prepared.findings, target.local);
        let changes = !report.bare.is_empty() || !report.labels.is_empty();
        let decision =
            if changes { self.decide_call(target, Some(&report), false) } else { decision };
        if let Some(turned) = self.turned_away(target, &report, &prepared, &decision) {
            return self.turned(target, turned).await;
        }
        let asks = report.has(Treatment::Ask) || decision.verdict == Verdict::Ask;
        let approved = match &self.state.model {
            ModelPhase::Approved(question) if question.bound == prepared.digest => {
                Some(question.seq)
            }
            _ => None,
        };
        let mut ready = Ready { endpoint, key, prepared, report, decision, approved: None };
        if asks {
            let Some(asked) = approved else {
                self.ask_about_call(target, before, ready).await?;
                return Ok(Tried::Settled);
            };
            ready.approved = Some(asked);
            ready.decision = self.decide_call(target, Some(&ready.report), true);
            if ready.decision.verdict != Verdict::Permit {
                self.model_denied(ready.decision).await?;
                return Ok(Tried::Settled);
            }
        }
        self.go(target, (hop, attempt), before, ready).await?;
        Ok(Tried::Settled)
    }

    async fn settled_by(&mut self, fault: ModelFault) -> Result<Tried, RuntimeError> {
        self.model_failed(None, fault, Vec::new()).await.map(|()| Tried::Settled)
    }

    /// A call that may not go to this provider: the local route may take it, unless it is that.
    async fn turned(&mut self, target: &Target, turned: Turned) -> Result<Tried, RuntimeError> {
        let final_word = turned.failure.code == REFUSED || turned.failure.code == ASK_AT_EVERY_STEP;
        if !target.local && !final_word && self.local_target().is_some() {
            return Ok(Tried::LocalOnly(Box::new(turned)));
        }
        self.refuse_call(turned).await.map(|()| Tried::Settled)
    }

    /// What stands against sending this, if anything does.
    fn turned_away(
        &self,
        target: &Target,
        report: &Report,
        prepared: &Prepared,
        decision: &policy::Decision,
    ) -> Option<Turned> {
        let found = || {
            let report = report.clone();
            (!report.found.is_empty())
                .then(|| report.draft(target, Some(prepared.digest), &[], self.last_input()))
        };
        if let Some((decision, failure)) = self.forbidden(target, report, decision) {
            return Some(Turned { found: found(), decision, failure });
        }
        let about_data =
            !report.bare.is_empty() || !self.carried_by_call(Some(report)).labels.is_empty();
        if decision.verdict == Verdict::Ask && !about_data {
            let failure = asks_at_every_step(decision);
            return Some(Turned { found: None, decision: decision.clone(), failure });
        }
        None
    }

    /// What a person could not change: `[privacy]` refuses it, it must stay on this machine, or
    /// policy denies it.
    fn forbidden(
        &self,
        target: &Target,
        report: &Report,
        decision: &policy::Decision,
    ) -> Option<(policy::Decision, Failure)> {
        let by_router = |treatment, failure: Failure| {
            let decision = withheld(decision.clone(), &report.rules(treatment), &failure);
            Some((decision, failure))
        };
        let provider = &target.entry.provider;
        if report.has(Treatment::Refuse) {
            let what = report.what(Treatment::Refuse);
            return by_router(Treatment::Refuse, refused(&what, provider));
        }
        if report.has(Treatment::Local) && !target.local {
            let what = report.what(Treatment::Local);
            return by_router(Treatment::Local, local_only(&what, provider));
        }
        if decision.verdict == Verdict::Deny {
            let failure = decision.failure().expect("a denial has a code");
            return Some((decision.clone(), failure));
        }
        None
    }

    /// The same for who cannot wait for a person: what would be asked is refused too.
    pub(super) fn stands_against(
        &self,
        target: &Target,
        report: &Report,
        decision: &policy::Decision,
    ) -> Option<(policy::Decision, Failure)> {
        if let Some(forbidden) = self.forbidden(target, report, decision) {
            return Some(forbidden);
        }
        if report.has(Treatment::Ask) {
            let what = report.what(Treatment::Ask);
            let failure = refused(&what, &target.entry.provider);
            let rules = report.rules(Treatment::Ask);
            return Some((withheld(decision.clone(), &rules, &failure), failure));
        }
        (decision.verdict == Verdict::Ask).then(|| (decision.clone(), asks_at_every_step(decision)))
    }

    /// Asks a person about exactly these bytes; they are put together again when one has answered.
    async fn ask_about_call(
        &mut self,
        target: &Target,
        before: Vec<Draft>,
        ready: Ready,
    ) -> Result<(), RuntimeError> {
        let Ready { prepared, report, decision, .. } = ready;
        let now = self.parts.clock.now_ms();
        let permissions = self.state.manifest().permissions.as_ref();
        let wait_ms = permissions.and_then(|p| p.approval_expires_ms);
        let shown = shown(target, &prepared, &report, &decision);
        let carried = self.carried_by_call(Some(&report));
        let mut rules = report.rules(Treatment::Ask);
        rules.extend(decision.policies.iter().cloned());
        let reason = match report.what(Treatment::Ask) {
            what if what.is_empty() => decision.reason.clone(),
            what => format!("a person decides about {what}"),
        };
        let decided =
            policy::Decision { verdict: Verdict::Ask, policies: rules, reason, ..decision };
        let unsaved = prepared.unsaved.to_vec();
        let mut drafts = before;
        drafts.push(report.draft(target, Some(prepared.digest), &unsaved, self.last_input()));
        let seq = self.state.next_seq + drafts.len() as u64;
        drafts.push(Draft::new(decision_body(decided, carried)));
        let asked = Body::ModelAsked {
            provider: target.entry.provider.clone(),
            model: target.entry.model.clone(),
            shown,
            bound: prepared.digest,
            expires_ms: now.saturating_add(wait_ms.unwrap_or(APPROVAL_EXPIRES_MS_DEFAULT)),
        };
        drafts.push(Draft::new(asked).because(Link::DecidedBy, Some(seq)));
        self.append(Durability::Synced, drafts).await?;
        self.keep_pseudonyms(&unsaved);
        Ok(())
    }

    /// Within budget, recorded, sent.
    async fn go(
        &mut self,
        target: &Target,
        (hop, attempt): (u32, u32),
        before: Vec<Draft>,
        mut ready: Ready,
    ) -> Result<(), RuntimeError> {
        let prepared = &ready.prepared;
        let reserve = prepared.estimate.usage();
        let cost = self.prices()?.cost(&ready.endpoint, &target.entry.model, &reserve);
        let budget = &self.state.manifest().budget;
        let now = self.parts.clock.now_ms();
        let tokens = prepared.estimate.tokens();
        let over = kernel::over_budget(budget, &self.state.spent, now, cost, tokens);
        if let Some(failure) = over {
            drop(ready);
            return self.end(EndStatus::Failed, Some(failure)).await;
        }
        let cost = cost.unwrap_or(Usd::ZERO);
        let called = self.announce((hop, attempt), target, before, &mut ready, cost).await?;
        let Ready { endpoint, key, prepared, .. } = ready;
        self.send(called, &target.entry, &endpoint, prepared, key).await
    }

    /// The record of the conversation's last item.
    fn last_input(&self) -> Option<u64> {
        self.state.items.last().map(|placed| placed.seq)
    }

    pub(super) fn prices(&self) -> Result<Prices, RuntimeError> {
        let path = self.parts.home.path().join("prices.toml");
        let text = if path.exists() { Some(config::read_text(&path)?) } else { None };
        Prices::with_override(text.as_deref()).map_err(|error| RuntimeError::part(&error))
    }

    /// Where the entry is reached, and its key.
    pub(super) async fn endpoint(
        &self,
        entry: &RouteEntry,
    ) -> Result<(Endpoint, Option<Secret>), ModelFault> {
        if entry.provider == SCRIPT_PROVIDER {
            let base = self.script_server(&entry.model).await?;
            return Ok((Endpoint::script(&base, Dialect::Responses), None));
        }
        let providers = &self.state.manifest().providers;
        let mut endpoint = models::resolve(&entry.provider, providers)
            .map_err(|error| fault(FaultClass::Gone, error.failure()))?;
        for file in &self.state.manifest().network.trust {
            let text = config::read_text(&self.world.beside_manifest(Path::new(file)));
            let unreadable =
                |error: RuntimeError| fault(FaultClass::Rejected, error.into_failure());
            endpoint.trust.push(text.map_err(unreadable)?);
        }
        let Some(variable) = &endpoint.key_env else {
            return Ok((endpoint, None));
        };
        match self.keys.0.get(variable) {
            Some(key) => {
                let key = Secret::new(key.clone().into_bytes());
                Ok((endpoint, Some(key)))
            }
            None => {
                let error = models::ModelError::KeyMissing {
                    provider: entry.provider.clone(),
                    variable: variable.clone(),
                };
                Err(fault(FaultClass::Auth, error.failure()))
            }
        }
    }

    /// The scripted model of this path, served by the gate over real HTTP.
    async fn script_server(&self, path: &str) -> Result<String, ModelFault> {
        let path = self.world.beside_manifest(Path::new(path));
        let rejected = |failure| fault(FaultClass::Rejected, failure);
        let text = config::read_text(&path).map_err(|error| rejected(error.into_failure()))?;
        let name = path.display().to_string();
        let started = self.parts.gate.script_start(&name, &text, self.run.as_str()).await;
        started.map_err(rejected)
    }

    /// What the model is told before the conversation: the same at every step, so that a provider's
    /// cache holds.
    fn instructions(&self) -> String {
        let own = &self.state.manifest().agent.instructions;
        let rest = match self.memory_access() {
            None => return format!("{PREAMBLE}\n\n{own}"),
            Some(MemoryAccess::Write) => MEMORY_WRITABLE,
            Some(MemoryAccess::Read) => MEMORY_READ_ONLY,
        };
        format!("{PREAMBLE} {PREAMBLE_MEMORY} {rest}\n\n{own}")
    }

    async fn prepare(
        &mut self,
        target: &Target,
        endpoint: Endpoint,
    ) -> Result<Prepared, NotPrepared> {
        let order = self.privacy_order(target.local);
        let order = order.map_err(|failure| fault(FaultClass::Rejected, failure))?;
        let manifest = self.state.manifest();
        let call = ModelCall {
            endpoint,
            model: target.entry.model.clone(),
            instructions: self.instructions(),
            items: self.state.items.iter().map(|placed| placed.item.clone()).collect(),
            tools: tools::specs(manifest),
            max_output_tokens: OUTPUT_TOKENS_MAX,
        };
        self.parts.gate.prepare(call, order).await
    }

    /// Records what was found, the decision, the reservation and the call, durable before a byte is
    /// sent.
    async fn announce(
        &mut self,
        (hop, attempt): (u32, u32),
        target: &Target,
        before: Vec<Draft>,
        ready: &mut Ready,
        cost: Usd,
    ) -> Result<u64, RuntimeError> {
        let prepared = &ready.prepared;
        let mut drafts = before;
        let report = std::mem::take(&mut ready.report);
        let carried = self.carried_by_call(Some(&report));
        let unsaved = prepared.unsaved.to_vec();
        if !report.found.is_empty() || !unsaved.is_empty() {
            drafts.push(report.draft(target, Some(prepared.digest), &unsaved, self.last_input()));
        }
        let decided = self.state.next_seq + drafts.len() as u64;
        let mut decision = decision_body(ready.decision.clone(), carried);
        if let Body::DecisionMade { approved, .. } = &mut decision {
            *approved = ready.approved.is_some();
        }
        let items = self.state.items.len() as u64;
        let sent_before = self.state.items_sent as usize;
        let call = Body::ModelCalled {
            hop,
            attempt,
            route: target.route.clone(),
            provider: target.entry.provider.clone(),
            model: target.entry.model.clone(),
            purpose: "act".to_owned(),
            items,
            prefix: prefix_digest(self.state.items[..sent_before].iter().map(|p| &p.item)),
            encoder: ENCODER_VERSION,
            request: prepared.digest,
            request_bytes: prepared.bytes,
            approved: ready.approved,
        };
        let reserve = Body::BudgetReserved { cost, tokens: prepared.estimate.tokens() };
        drafts.push(Draft::new(decision).because(Link::ApprovedBy, ready.approved));
        drafts.push(Draft::new(reserve));
        drafts.push(
            Draft::new(call)
                .because(Link::DecidedBy, Some(decided))
                .because(Link::ApprovedBy, ready.approved)
                .because(Link::ResultOf, self.last_input()),
        );
        let written = self.append(Durability::Synced, drafts).await?;
        self.keep_pseudonyms(&unsaved);
        Ok(written.last().expect("the call was written").stamp.seq)
    }

    async fn send(
        &mut self,
        called: u64,
        entry: &RouteEntry,
        endpoint: &Endpoint,
        prepared: Prepared,
        key: Option<Secret>,
    ) -> Result<(), RuntimeError> {
        let parts = std::sync::Arc::clone(&self.parts);
        let sent = self.unless_stopped(async move { parts.gate.send(prepared, key, |_| ()).await });
        let Some(answered) = sent.await else {
            return Ok(());
        };
        let raw = answered.raw.to_vec();
        match answered.result {
            Ok(answer) => {
                let usage = answer.usage;
                let cost = self.prices()?.cost(endpoint, &entry.model, &usage).unwrap_or(Usd::ZERO);
                let delivered: Vec<u64> = self.state.undelivered.iter().copied().collect();
                let answer = Body::ModelAnswered {
                    items: answer.items,
                    usage,
                    cost,
                    decoder: DECODER_VERSION,
                    error: None,
                    restored: answered.restored,
                };
                let answer =
                    Draft::new(answer).because(Link::ResultOf, Some(called)).with("raw", raw);
                let mut drafts = vec![answer, settled(cost, usage)];
                if !delivered.is_empty() {
                    let delivered = Body::Delivered { actions: delivered };
                    drafts.push(Draft::new(delivered).because(Link::ResultOf, Some(called)));
                }
                self.append(Durability::Written, drafts).await.map(|_| ())
            }
            Err(fault) => self.model_failed(Some(called), fault, raw).await,
        }
    }

    async fn model_failed(
        &mut self,
        called: Option<u64>,
        fault: ModelFault,
        raw: Vec<u8>,
    ) -> Result<(), RuntimeError> {
        let body = Body::ModelAnswered {
            items: Vec::new(),
            usage: Usage::default(),
            cost: Usd::ZERO,
            decoder: DECODER_VERSION,
            error: Some(fault),
            restored: Vec::new(),
        };
        let mut draft = Draft::new(body).because(Link::ResultOf, called);
        if !raw.is_empty() {
            draft = draft.with("raw", raw);
        }
        let mut drafts = vec![draft];
        if called.is_some() {
            drafts.push(settled(Usd::ZERO, Usage::default()));
        }
        self.append(Durability::Written, drafts).await.map(|_| ())
    }

    /// This entry is not called: the next one is tried, or the run fails.
    async fn refuse_call(&mut self, turned: Turned) -> Result<(), RuntimeError> {
        let carried = self.carried();
        let decision = policy::Decision { verdict: Verdict::Deny, ..turned.decision };
        let mut drafts: Vec<Draft> = turned.found.into_iter().collect();
        drafts.push(Draft::new(decision_body(decision, carried)));
        self.append(Durability::Written, drafts).await?;
        self.model_failed(None, fault(FaultClass::Rejected, turned.failure), Vec::new()).await
    }

    /// Policy of now does not permit what a person approved.
    async fn model_denied(&mut self, decision: policy::Decision) -> Result<(), RuntimeError> {
        let failure = decision.failure().unwrap_or_else(|| asks_at_every_step(&decision));
        self.refuse_call(Turned { found: None, decision, failure }).await
    }

    pub(super) async fn change_route(
        &mut self,
        hop: u32,
        failure: Failure,
    ) -> Result<(), RuntimeError> {
        let from = String::from(self.route_entry(self.state.hop)?);
        let to = String::from(self.route_entry(hop)?);
        let body = Body::RouteChanged { from, to, hop, failure };
        self.record(Durability::Written, Draft::new(body)).await.map(|_| ())
    }
}

fn decision_body(decision: policy::Decision, carried: Carried) -> Body {
    Body::DecisionMade {
        action: None,
        verdict: decision.verdict,
        approved: false,
        policies: decision.policies,
        reason: decision.reason,
        policy_set: decision.policy_set,
        input: decision.input,
        carried,
    }
}

/// The decision when the router has the last word.
pub(super) fn withheld(
    decision: policy::Decision,
    rules: &[String],
    failure: &Failure,
) -> policy::Decision {
    let (policies, reason) = (rules.to_vec(), failure.message.clone());
    policy::Decision { verdict: Verdict::Deny, policies, reason, ..decision }
}

fn refused(what: &str, provider: &str) -> Failure {
    Failure {
        code: REFUSED.to_owned(),
        message: format!("[privacy] does not let {provider} have what stands in the request: {what}"),
        next: "See with `bedplate show RUN` what was found; take it out of the input, or change [privacy]."
            .to_owned(),
    }
}

fn local_only(what: &str, provider: &str) -> Failure {
    Failure {
        code: "BP-PRIVACY-011".to_owned(),
        message: format!(
            "what stands in the request may go to a provider on this machine only, and {provider} is none: {what}"
        ),
        next: "Name a route with such a provider as [privacy] local_route.".to_owned(),
    }
}

/// An ask that has nothing to do with what is sent would stop the run at every step.
fn asks_at_every_step(decision: &policy::Decision) -> Failure {
    Failure {
        code: ASK_AT_EVERY_STEP.to_owned(),
        message: format!("policy wants a person to approve this model: {}", decision.reason),
        next: "Permit call_model for this route; a model call is asked about for its data only."
            .to_owned(),
    }
}

/// What a person is shown: where it would go, what was found, and every value that would be sent
/// as it is, marked, with the text around it.
fn shown(
    target: &Target,
    prepared: &Prepared,
    report: &Report,
    decision: &policy::Decision,
) -> String {
    let place = if target.local { "on this machine" } else { "not on this machine" };
    let mut text = format!(
        "call_model {} ({place})\n{} bytes, sha256 {}\n",
        String::from(target.entry.clone()),
        prepared.bytes,
        prepared.digest
    );
    for found in &report.found {
        let names = if found.names.is_empty() {
            String::new()
        } else {
            format!(" {}", found.names.join(", "))
        };
        text += &format!(
            "{} x {}{names}: {} ({})\n",
            found.count,
            found.kind,
            found.treatment.as_str(),
            found.rule
        );
    }
    if decision.verdict == Verdict::Ask {
        text += &format!("policy asks: {}\n", decision.reason);
    }
    if !prepared.findings.shown.is_empty() {
        text += "\n";
        text += &prepared.findings.shown;
    }
    text
}

fn fault(class: FaultClass, failure: Failure) -> ModelFault {
    ModelFault { class, failure, http_status: 0, retry_after_ms: None }
}

fn settled(cost: Usd, usage: Usage) -> Draft {
    let tokens = usage.input_tokens.saturating_add(usage.output_tokens);
    Draft::new(Body::BudgetSpent { cost, tokens })
}

/// Digest of the items a call shares with the one before it.
fn prefix_digest<'a>(items: impl Iterator<Item = &'a Item>) -> Digest {
    let encoded: Vec<Vec<u8>> =
        items.map(|item| serde_json::to_vec(item).expect("an item is plain data")).collect();
    let parts: Vec<&[u8]> = encoded.iter().map(Vec::as_slice).collect();
    Digest::of_parts("bedplate prefix 1", &parts)
}
