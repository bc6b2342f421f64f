//! The network of a sandbox that no run owns: a command's own (`sandbox run --policy`).
//!
//! The same boundary, rules and effect classes as a run's network, judged in the command's process.
//! There is no run, so there is no log of one: each decision is a line in a trail beside the home's
//! log, written before a byte leaves and synced before what cannot be taken back.
//!
//! What always holds: nothing is permitted before its line is written; when that fails, nothing is
//! permitted any more. Nobody can be asked here, so what policy asks about is denied, and so is the
//! twin of what was sent irreversibly. It never prints.

use crate::clock::Clock;
use crate::error::RuntimeError;
use crate::home::Home;
use crate::run::network::{
    asked_by_name, bundle_text, config_of, denied, effect_of, permit_of, trust_variables,
};
use crate::run::secrets::{as_it_is, placeholder_of};
use gate::{
    Denial, Gate, NetConfig, NetMessage, NetPassage, NetQuestion, NetRequest, NetVerdict, Network,
    SecretGiven,
};
use policy::{Because, Decision, DecisionInput, PolicySet, Principal};
use sandbox::Listeners;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;
use types::{
    ActionRequest, AsOf, Body, Carried, Coded as _, Digest, EffectClass, Failure, Labels, Verdict,
};
use vault::Held;
use zeroize::Zeroizing;

/// What a program is told when policy asks and there is nobody: `BP-RUN-018`.
const NOBODY_TO_ASK: &str = "BP-RUN-018";
/// The trail of a home.
const TRAIL_FILE: &str = "sandbox-network.jsonl";
/// Bytes of a trail; a full one permits nothing until it is moved away.
const TRAIL_BYTES_MAX: u64 = 256 << 20;
/// Denials of one sandbox that are told and written; later ones are answered alike.
const DENIALS_TOLD_MAX: usize = 256;
/// How long what is still open is waited for when the command has ended, milliseconds.
const TAIL_MS_MAX: u64 = 2_000;
/// Bytes of randomness that tell one sandbox's placeholders from another's.
const NONCE_BYTES: usize = 32;

/// Under what a sandbox reaches the world.
#[derive(Debug, Clone)]
pub struct Terms {
    /// What is permitted.
    pub set: PolicySet,
    /// To whom.
    pub principal: Principal,
    /// How hosts are reached.
    pub network: types::manifest::Network,
    /// The authorities it names, read.
    pub trust: Vec<String>,
    /// Secrets by the variable that holds their placeholder.
    pub secrets: BTreeMap<String, String>,
}

/// Something that was denied, for people.
#[derive(Debug, Clone)]
pub struct Refused {
    /// What it was.
    pub action: ActionRequest,
    /// Why.
    pub decision: Decision,
}

/// Lines about what was decided, one file a home.
#[derive(Debug)]
struct Trail {
    file: File,
    path: PathBuf,
}

impl Trail {
    fn open(home: &Home) -> Result<Self, RuntimeError> {
        home.prepare()?;
        let path = home.path().join(TRAIL_FILE);
        let file = File::options().create(true).append(true).mode(0o600).open(&path);
        let trail = Self { file: file.map_err(|error| cannot_write(&path, error))?, path };
        trail.has_room(TRAIL_BYTES_MAX).map(|()| trail)
    }

    fn has_room(&self, max: u64) -> Result<(), RuntimeError> {
        let meta = self.file.metadata().map_err(|error| cannot_write(&self.path, error))?;
        if meta.len() < max { Ok(()) } else { Err(cannot_write(&self.path, "it is full")) }
    }

    /// One line in one write, so that lines of several commands do not mix.
    fn write(&mut self, line: &serde_json::Value, synced: bool) -> Result<(), RuntimeError> {
        self.has_room(TRAIL_BYTES_MAX)?;
        let text = format!("{line}\n");
        let written = self.file.write_all(text.as_bytes());
        let written = written.and_then(|()| if synced { self.file.sync_data() } else { Ok(()) });
        written.map_err(|error| cannot_write(&self.path, error))
    }
}

fn cannot_write(path: &Path, reason: impl ToString) -> RuntimeError {
    let reason = format!("{} cannot be written: {}", path.display(), reason.to_string());
    RuntimeError::Network { reason }
}

/// A secret of one request.
struct Used {
    name: String,
    placeholder: String,
    given: SecretGiven,
}

/// The network of one sandbox, until it is dropped.
pub struct Outside {
    gate: Gate,
    held: Held,
    network: Option<Network>,
    listeners: Listeners,
    config: NetConfig,
    authority: Zeroizing<Vec<u8>>,
    terms: Terms,
    nonce: [u8; NONCE_BYTES],
    trail: Trail,
    clock: Clock,
    next_permit: u64,
    /// Permits in flight.
    open: BTreeMap<u64, InFlight>,
    /// What was sent, or may have been, and cannot be taken back.
    sent: BTreeSet<Digest>,
    heard: Labels,
    /// What the oldest answer counts from, wall milliseconds.
    oldest_ms: Option<u64>,
    told: BTreeSet<String>,
}

/// What was permitted and is not over.
#[derive(Debug, Default)]
struct InFlight {
    /// Whether a byte of it may have left.
    sent: bool,
    /// What its answer says about its age.
    as_of: Option<AsOf>,
}

impl std::fmt::Debug for Outside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outside").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Outside {
    /// Has the gate serve the network of a new sandbox. `held` are the home's secrets; `bundle` is
    /// where the certificates that its programs must trust are written.
    ///
    /// # Errors
    /// When the trail or the certificates cannot be written, `[network]` cannot be used, or the
    /// gate cannot serve.
    pub async fn open(
        gate: Gate,
        home: &Home,
        listeners: Listeners,
        terms: Terms,
        held: Held,
        bundle: &Path,
    ) -> Result<Self, RuntimeError> {
        if terms.network.record || terms.network.replay.is_some() {
            let reason = "only a run can record or replay what the world said".to_owned();
            return Err(RuntimeError::Network { reason });
        }
        let trail = Trail::open(home)?;
        let config = config_of(&terms.network, terms.trust.clone(), None)?;
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|error| RuntimeError::Network {
            reason: format!("there is no randomness: {error}"),
        })?;
        let network = gate.open_network(&listeners, config.clone(), None).await;
        let network = network.map_err(RuntimeError::Part)?;
        std::fs::write(bundle, bundle_text(network.certificate_pem()))
            .map_err(|error| cannot_write(bundle, error))?;
        Ok(Self {
            gate,
            held,
            authority: network.authority(),
            network: Some(network),
            listeners,
            config,
            terms,
            nonce,
            trail,
            clock: Clock::new(),
            next_permit: 1,
            open: BTreeMap::new(),
            sent: BTreeSet::new(),
            heard: Labels::none(),
            oldest_ms: None,
            told: BTreeSet::new(),
        })
    }

    /// What programs find in their environment: where certificates are, and placeholders.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        let secrets = self.terms.secrets.iter();
        let placeholders = secrets.map(|(name, secret)| (name.clone(), self.placeholder(secret)));
        trust_variables().into_iter().chain(placeholders).collect()
    }

    fn placeholder(&self, secret: &str) -> String {
        let parts: [&[u8]; 2] = [&self.nonce, secret.as_bytes()];
        placeholder_of(secret, Digest::of_parts("bedplate placeholder 2", &parts))
    }

    /// Serves until something is denied that was not told before. Never ends by itself.
    pub async fn serve(&mut self) -> Refused {
        loop {
            let message = match &mut self.network {
                Some(network) => network.next().await,
                // Without a gate nothing leaves: connections wait, and end with the command.
                None => std::future::pending().await,
            };
            match message {
                Some(NetMessage::Asked { ask, question }) => {
                    if let Some(refused) = self.on_question(ask, question).await {
                        return refused;
                    }
                }
                Some(
                    NetMessage::Withdrawn { .. }
                    | NetMessage::Minted { .. }
                    | NetMessage::Kept { .. },
                ) => {}
                Some(NetMessage::Passed { permit, passage, .. }) => {
                    self.on_passage(permit, passage);
                }
                None => self.serve_again().await,
            }
        }
    }

    /// When the command has ended: what is still open ends too, and is written.
    pub async fn close(mut self) {
        let until = Instant::now() + Duration::from_millis(TAIL_MS_MAX);
        while !self.open.is_empty() {
            let Some(network) = &mut self.network else { break };
            match tokio::time::timeout_at(until, network.next()).await {
                Ok(Some(NetMessage::Passed { permit, passage, .. })) => {
                    self.on_passage(permit, passage);
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => break,
            }
        }
        self.cut_off("it was cut off with its command");
    }

    fn cut_off(&mut self, why: &str) {
        for (permit, flight) in std::mem::take(&mut self.open) {
            self.ended(permit, (0, 0, 0), Some(why.to_owned()), flight);
        }
    }

    /// The gate died. What was in flight may have been sent; another gate serves from here on.
    async fn serve_again(&mut self) {
        self.network = None;
        for flight in self.open.values_mut() {
            flight.sent = true;
        }
        self.cut_off("the gate died");
        let (config, authority) = (self.config.clone(), self.authority.clone());
        let opened = self.gate.open_network(&self.listeners, config, Some(authority)).await;
        self.network = opened.ok();
    }

    async fn on_question(&mut self, ask: u64, question: NetQuestion) -> Option<Refused> {
        match question {
            NetQuestion::Name { host } => self.on_name(ask, host).await,
            NetQuestion::Connect { host, port } => self.on_connect(ask, host, port).await,
            NetQuestion::Request { request } => self.on_request(ask, *request).await,
            // No guest runs here, and no endpoint is served.
            NetQuestion::Model { .. } => None,
            NetQuestion::Still { .. } => {
                // This policy never changes, so nothing asks; what asks nevertheless ends.
                self.answer(ask, NetVerdict::Deny(cannot_decide()), Vec::new()).await;
                None
            }
        }
    }

    async fn answer(&self, ask: u64, verdict: NetVerdict, secrets: Vec<SecretGiven>) {
        if let Some(network) = &self.network {
            network.answer(ask, verdict, secrets).await;
        }
    }

    fn carried(&self) -> Carried {
        let now = self.clock.now_ms();
        let oldest_input_age = self.oldest_ms.map_or(0, |from| now.saturating_sub(from) / 1_000);
        Carried { labels: self.heard.clone(), oldest_input_age }
    }

    fn judge(&self, action: &ActionRequest) -> Decision {
        let question = DecisionInput::new(self.terms.principal.clone(), action.clone());
        self.terms.set.decide(&DecisionInput { carried: self.carried(), ..question })
    }

    /// A name is answered when any rule may permit it, and then it has told nobody anything.
    async fn on_name(&mut self, ask: u64, host: String) -> Option<Refused> {
        if self.terms.set.may_permit_host(&host) {
            self.answer(ask, permit_of(0), Vec::new()).await;
            return None;
        }
        let action = asked_by_name(host);
        let decision = self.judge(&action);
        self.refuse(ask, action, decision, Digest::of(b"name")).await
    }

    /// A connection: carried unread when policy says `connect`, else read as HTTP.
    async fn on_connect(&mut self, ask: u64, host: String, port: u16) -> Option<Refused> {
        let action = ActionRequest::Connect { host: host.clone(), port };
        let decision = self.judge(&action);
        let permit = self.next_permit.to_be_bytes();
        let digest = Digest::of_parts("bedplate connection 1", &[host.as_bytes(), &permit]);
        if decision.verdict == Verdict::Permit {
            return self.permit(ask, action, decision, digest, Vec::new()).await;
        }
        if self.terms.set.may_permit_host(&host) {
            self.answer(ask, NetVerdict::Inspect, Vec::new()).await;
            return None;
        }
        self.refuse(ask, action, decision, digest).await
    }

    async fn on_request(&mut self, ask: u64, request: NetRequest) -> Option<Refused> {
        let mut decision = self.judge(&request.action);
        let irreversible = effect_of(&request.action) == EffectClass::Irreversible;
        let twin = irreversible && self.sent.contains(&request.digest);
        if decision.verdict == Verdict::Permit && twin {
            decision.verdict = Verdict::Ask;
            decision.reason = "the same was sent before, or may have been".to_owned();
        }
        if decision.verdict != Verdict::Permit {
            return self.refuse(ask, request.action, decision, request.digest).await;
        }
        let secrets = match self.secrets_for(&request) {
            Ok(secrets) => secrets,
            Err(failure) => return self.cannot_use(ask, request.action, decision, failure).await,
        };
        if irreversible {
            self.sent.insert(request.digest);
        }
        self.permit(ask, request.action, decision, request.digest, secrets).await
    }

    /// The placeholders of a request whose secrets may go to its host, with their values.
    ///
    /// # Errors
    /// Why a secret that may be used cannot be opened: its placeholder is not sent instead.
    fn secrets_for(&mut self, request: &NetRequest) -> Result<Vec<Used>, Failure> {
        let mut used = Vec::new();
        let ActionRequest::HttpRequest { host, .. } = &request.action else { return Ok(used) };
        let known: BTreeSet<String> = self.terms.secrets.values().cloned().collect();
        for (name, placeholder) in &request.placeholders {
            if !known.contains(name) || self.placeholder(name) != *placeholder {
                continue;
            }
            let action = ActionRequest::UseSecret { secret: name.clone(), host: host.clone() };
            if self.judge(&action).verdict != Verdict::Permit {
                continue;
            }
            let credential = self.held.get(name).map_err(|error| error.failure())?;
            let Some(given) = as_it_is(credential) else { return Err(no_tokens_here(name)) };
            used.push(Used { name: name.clone(), placeholder: placeholder.clone(), given });
        }
        Ok(used)
    }

    /// Writes a permit with the secrets it puts in, and only then lets it go.
    async fn permit(
        &mut self,
        ask: u64,
        action: ActionRequest,
        decision: Decision,
        digest: Digest,
        secrets: Vec<Used>,
    ) -> Option<Refused> {
        let permit = self.next_permit;
        self.next_permit += 1;
        let line = self.decided(&action, &decision, digest);
        let names: Vec<&String> = secrets.iter().map(|used| &used.name).collect();
        let synced = effect_of(&action) != EffectClass::Read;
        let line = json!({ "permit": permit, "secrets": names, "record": line });
        if let Err(error) = self.write(line, synced) {
            let decision = Decision {
                verdict: Verdict::Deny,
                because: Because::Failed,
                reason: format!("the decision cannot be recorded: {error}"),
                ..decision
            };
            self.answer(ask, NetVerdict::Deny(cannot_decide()), Vec::new()).await;
            return Some(Refused { action, decision });
        }
        if let ActionRequest::HttpRequest { host, .. } | ActionRequest::Connect { host, .. } =
            &action
        {
            let said = self.terms.network.labels.get(host).cloned();
            self.heard.join(&said.unwrap_or_else(|| Labels::one("untrusted")));
        }
        self.open.insert(permit, InFlight::default());
        let placeholders = secrets.iter().map(|used| used.placeholder.clone()).collect();
        let values = secrets.into_iter().map(|used| used.given).collect();
        let verdict = NetVerdict::Permit { permit, secrets: placeholders, quiet: false };
        self.answer(ask, verdict, values).await;
        None
    }

    /// Turns down what policy permits, because a secret of it cannot be opened.
    async fn cannot_use(
        &mut self,
        ask: u64,
        action: ActionRequest,
        decision: Decision,
        failure: Failure,
    ) -> Option<Refused> {
        let reason = failure.message.clone();
        let decision =
            Decision { verdict: Verdict::Deny, because: Because::Failed, reason, ..decision };
        let line = json!({ "record": self.decided(&action, &decision, Digest::of(b"secret")) });
        let _ = self.write(line, false);
        let message = "a secret of this request cannot be used; the operator sees why".to_owned();
        let denial = Denial { code: failure.code, message, approval: None };
        self.answer(ask, NetVerdict::Deny(denial), Vec::new()).await;
        Some(Refused { action, decision })
    }

    async fn refuse(
        &mut self,
        ask: u64,
        action: ActionRequest,
        decision: Decision,
        digest: Digest,
    ) -> Option<Refused> {
        let mut verdict = denied(&decision);
        if let (Verdict::Ask, NetVerdict::Deny(denial)) = (decision.verdict, &mut verdict) {
            NOBODY_TO_ASK.clone_into(&mut denial.code);
            "a person would have to approve this, and nobody can be asked here"
                .clone_into(&mut denial.message);
        }
        let new = self.told.len() < DENIALS_TOLD_MAX && self.told.insert(action.resource());
        if new {
            let line = json!({ "record": self.decided(&action, &decision, digest) });
            // What is denied stays denied when it cannot be written.
            let _ = self.write(line, false);
        }
        self.answer(ask, verdict, Vec::new()).await;
        new.then_some(Refused { action, decision })
    }

    fn decided(&self, action: &ActionRequest, decision: &Decision, bound: Digest) -> Body {
        Body::EgressDecided {
            during: None,
            request: Box::new(action.clone()),
            bound,
            effect: effect_of(action),
            verdict: decision.verdict,
            approved: None,
            policies: decision.policies.clone(),
            reason: decision.reason.clone(),
            policy_set: decision.policy_set,
            input: decision.input,
            carried: self.carried(),
            failure: None,
            exchange: None,
            replays: None,
        }
    }

    fn write(&mut self, mut line: serde_json::Value, synced: bool) -> Result<(), RuntimeError> {
        line["time_ms"] = self.clock.now_ms().into();
        line["process"] = std::process::id().into();
        line["principal"] = self.terms.principal.name.clone().into();
        self.trail.write(&line, synced)
    }

    fn on_passage(&mut self, permit: u64, passage: NetPassage) {
        let Some(flight) = self.open.get_mut(&permit) else { return };
        let (traffic, why) = match passage {
            NetPassage::Sent => {
                flight.sent = true;
                return;
            }
            NetPassage::Dated { as_of } => {
                flight.as_of = Some(as_of);
                let from_ms = as_of.counts_from(self.clock.now_ms());
                self.oldest_ms = Some(self.oldest_ms.map_or(from_ms, |oldest| oldest.min(from_ms)));
                return;
            }
            NetPassage::Answered { status, bytes_up, bytes_down } => {
                flight.sent = true;
                ((status, bytes_up, bytes_down), None)
            }
            NetPassage::Failed { why } => ((0, 0, 0), Some(why)),
        };
        let flight = self.open.remove(&permit).expect("it was found above");
        self.ended(permit, traffic, why, flight);
    }

    fn ended(
        &mut self,
        egress: u64,
        (status, bytes_up, bytes_down): (u16, u64, u64),
        failure: Option<String>,
        flight: InFlight,
    ) {
        let InFlight { sent, as_of } = flight;
        let body = Body::EgressEnded {
            egress,
            status,
            bytes_up,
            bytes_down,
            failure,
            sent,
            as_of,
            kept: None,
        };
        // It is over; the next permit will find that nothing can be written.
        let _ = self.write(json!({ "permit": egress, "record": body }), false);
    }
}

/// Tokens are made for runs, where the request for one is recorded.
fn no_tokens_here(name: &str) -> Failure {
    let reason = format!("the secret '{name}' is a client that tokens are made for");
    let failure = RuntimeError::Network { reason }.failure();
    Failure { next: "Use it in a run: `bedplate run`.".to_owned(), ..failure }
}

fn cannot_decide() -> Denial {
    Denial {
        code: "BP-GATE-014".to_owned(),
        message: "the runtime cannot decide now".to_owned(),
        approval: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded;

    #[test]
    fn a_full_trail_takes_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let mut trail = Trail::open(&Home::at(dir.path())).unwrap();
        trail.write(&json!({ "a": 1 }), true).unwrap();
        trail.write(&json!({ "b": 2 }), false).unwrap();
        let text = std::fs::read_to_string(dir.path().join(TRAIL_FILE)).unwrap();
        assert_eq!(text, "{\"a\":1}\n{\"b\":2}\n");
        assert!(trail.has_room(text.len() as u64 + 1).is_ok());
        let full = trail.has_room(text.len() as u64).unwrap_err();
        assert_eq!(full.code(), "BP-RUN-015");
    }
}
