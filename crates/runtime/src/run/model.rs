//! Model calls: routed, decided, budgeted, recorded, then sent by the gate.

use super::{Draft, RunTask};
use crate::config;
use crate::error::RuntimeError;
use gate::{ModelCall, Prepared, Secret};
use models::{DECODER_VERSION, Dialect, ENCODER_VERSION, Endpoint, Prices};
use std::path::Path;
use store::Durability;
use types::manifest::{RouteEntry, SCRIPT_PROVIDER};
use types::{
    ActionRequest, Body, Coded, Digest, EndStatus, Failure, FaultClass, Item, Link, ModelFault,
    Usage, Usd, Verdict,
};

/// Most tokens one answer may have; part of every reservation.
const OUTPUT_TOKENS_MAX: u64 = 16_384;
/// What every agent is told before its own instructions.
const PREAMBLE: &str = "You work in a sandbox. Your files are in /workspace. Use the tools you are \
    given; some actions need a permission you may not have, and the answer says so. When the work \
    is done, say so in plain words without calling a tool.";

impl RunTask {
    /// One attempt at one entry of the route.
    pub(super) async fn call_model(&mut self, hop: u32, attempt: u32) -> Result<(), RuntimeError> {
        let entry = self.route_entry(hop)?;
        let decision = self.gatekeeper.decide(
            &[self.model_request(&entry)],
            &self.carried(),
            &self.actor.on_behalf_of,
            false,
        );
        if decision.verdict != Verdict::Permit {
            return self.model_denied(decision).await;
        }
        self.flush().await?;
        let (endpoint, key) = match self.endpoint(&entry).await {
            Ok(found) => found,
            Err(fault) => return self.model_failed(None, fault, Vec::new()).await,
        };
        let prepared = match self.prepare(&entry, endpoint.clone()).await {
            Ok(prepared) => prepared,
            Err(fault) => return self.model_failed(None, fault, Vec::new()).await,
        };
        let reserve = prepared.estimate.usage();
        let cost = self.prices()?.cost(&endpoint, &entry.model, &reserve);
        let budget = &self.state.manifest().budget;
        let now = self.parts.clock.now_ms();
        let tokens = prepared.estimate.tokens();
        let over = kernel::over_budget(budget, &self.state.spent, now, cost, tokens);
        if let Some(failure) = over {
            drop(prepared);
            return self.end(EndStatus::Failed, Some(failure)).await;
        }
        let called = self
            .announce(hop, attempt, &entry, &prepared, cost.unwrap_or(Usd::ZERO), decision)
            .await?;
        self.send(called, &entry, &endpoint, prepared, key).await
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

    pub(super) fn model_request(&self, entry: &RouteEntry) -> ActionRequest {
        let manifest = self.state.manifest();
        let local = entry.provider == SCRIPT_PROVIDER
            || models::resolve(&entry.provider, &manifest.providers).is_ok_and(|e| e.local);
        ActionRequest::CallModel {
            route: manifest.agent.model.clone(),
            provider: entry.provider.clone(),
            model: entry.model.clone(),
            local,
        }
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

    async fn prepare(
        &self,
        entry: &RouteEntry,
        endpoint: Endpoint,
    ) -> Result<Prepared, ModelFault> {
        let manifest = self.state.manifest();
        let call = ModelCall {
            endpoint,
            model: entry.model.clone(),
            instructions: format!("{PREAMBLE}\n\n{}", manifest.agent.instructions),
            items: self.state.items.iter().map(|placed| placed.item.clone()).collect(),
            tools: tools::specs(manifest),
            max_output_tokens: OUTPUT_TOKENS_MAX,
        };
        self.parts.gate.prepare(call).await
    }

    /// Records the reservation and the call, durable before a byte is sent.
    async fn announce(
        &mut self,
        hop: u32,
        attempt: u32,
        entry: &RouteEntry,
        prepared: &Prepared,
        cost: Usd,
        decision: policy::Decision,
    ) -> Result<u64, RuntimeError> {
        let decided = self.state.next_seq;
        let decision = Body::DecisionMade {
            action: None,
            verdict: decision.verdict,
            approved: false,
            policies: decision.policies,
            reason: decision.reason,
            policy_set: decision.policy_set,
            input: decision.input,
            carried: self.carried(),
        };
        let items = self.state.items.len() as u64;
        let sent_before = self.state.items_sent as usize;
        let call = Body::ModelCalled {
            hop,
            attempt,
            route: self.state.manifest().agent.model.clone(),
            provider: entry.provider.clone(),
            model: entry.model.clone(),
            purpose: "act".to_owned(),
            items,
            prefix: prefix_digest(self.state.items[..sent_before].iter().map(|p| &p.item)),
            encoder: ENCODER_VERSION,
            request: prepared.digest,
            request_bytes: prepared.bytes,
        };
        let last_input = self.state.items.last().map(|placed| placed.seq);
        let reserve = Body::BudgetReserved { cost, tokens: prepared.estimate.tokens() };
        let drafts = vec![
            Draft::new(decision),
            Draft::new(reserve),
            Draft::new(call)
                .because(Link::DecidedBy, Some(decided))
                .because(Link::ResultOf, last_input),
        ];
        let written = self.append(Durability::Synced, drafts).await?;
        Ok(written[2].stamp.seq)
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

    /// Policy does not let this entry be called: the next one is tried, or the run fails.
    async fn model_denied(&mut self, decision: policy::Decision) -> Result<(), RuntimeError> {
        let failure = decision.failure().unwrap_or_else(|| Failure {
            code: "BP-RUN-007".to_owned(),
            message: format!("policy wants a person to approve this model: {}", decision.reason),
            next: "Permit call_model for this route; model calls are not asked one by one."
                .to_owned(),
        });
        let body = Body::DecisionMade {
            action: None,
            verdict: Verdict::Deny,
            approved: false,
            policies: decision.policies,
            reason: decision.reason,
            policy_set: decision.policy_set,
            input: decision.input,
            carried: self.carried(),
        };
        self.record(Durability::Written, Draft::new(body)).await?;
        self.model_failed(None, fault(FaultClass::Rejected, failure), Vec::new()).await
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
