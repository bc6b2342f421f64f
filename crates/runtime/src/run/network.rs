//! The network of the run's sandbox: what its programs want to send is decided, recorded and
//! answered here, by the run's own task.
//!
//! ```text
//!   asked by the gate -> policy -> permit: recorded, durable, then answered -> ended: recorded
//!                               -> deny:   recorded, answered
//!                               -> ask:    recorded, held for a short time -> answered by a person
//!                                                                          -> denied with its id
//! ```
//!
//! What always holds: nothing is permitted before its record is durable; an approval is spent by
//! one request of exactly its digest, decided again with the policy and labels of then; a twin of
//! what was sent irreversibly is asked, whatever policy permits; while no gate serves, nothing
//! leaves.

use super::gatekeeper::approvers_of;
use super::secrets::{Used, is_for_token};
use super::unserved::Unserved;
use super::{Draft, RunTask};
use crate::error::RuntimeError;
use crate::parts::Parts;
use gate::{
    Denial, GuestLink, NetConfig, NetMessage, NetQuestion, NetRequest, NetVerdict, Network,
    SecretGiven, TOKEN_OPERATION,
};
use policy::Decision;
use privacy::Fingerprints;
use sandbox::Listeners;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use store::Durability;
use tokio::time::Instant;
use types::manifest::APPROVAL_EXPIRES_MS_DEFAULT;
use types::{
    ActionId, ActionRequest, ApprovalVerdict, AsOf, Body, BodyKind, Carried, Digest, EffectClass,
    Failure, Labels, Link, Verdict,
};
use zeroize::Zeroizing;

/// How long a request waits on its connection for a person when `[network] ask_wait` does not say,
/// milliseconds.
const ASK_WAIT_MS_DEFAULT: u64 = 20_000;
/// Denials of one action that are recorded; later ones of the same kind are answered alike.
const DENIALS_RECORDED_MAX: usize = 256;
/// Variables that name the file of certificates to programs that do not look at the system's.
const TRUST_VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "AWS_CA_BUNDLE",
    "DENO_CERT",
];
/// What a program is told when a person is asked about its request: `BP-RUN-016`.
const ASKED: &str = "BP-RUN-016";
/// What a program is told when a person denied its request: `BP-RUN-017`.
const REFUSED_BY_PERSON: &str = "BP-RUN-017";
/// What a program is told when the value of a secret stands in its request: `BP-PRIVACY-013`.
const LEAKED: &str = "BP-PRIVACY-013";
/// What comes from a host that the operator says nothing about.
const FOREIGN: &str = "untrusted";

/// A request that a person is asked about, waiting on its connection.
pub(super) struct Held {
    ask: u64,
    asked: u64,
    until: Instant,
    request: Box<NetRequest>,
}

/// The network of one sandbox.
pub(super) struct Net {
    network: Option<Network>,
    unserved: Option<Unserved>,
    listeners: Listeners,
    config: NetConfig,
    authority: Zeroizing<Vec<u8>>,
    bundle: PathBuf,
    pub(super) held: Vec<Held>,
    /// Permits in flight, and whether a byte of each may have left.
    pub(super) open: BTreeMap<u64, bool>,
    /// What was denied during this action and stands in the log.
    pub(super) denied: BTreeSet<String>,
    /// Hosts that answered during this action.
    pub(super) heard: BTreeSet<String>,
    /// What answers say about their age, by permit, until their end is recorded.
    pub(super) dated: BTreeMap<u64, AsOf>,
    /// Answers that are kept, by permit, until their end is recorded.
    pub(super) kept: BTreeMap<u64, Result<Vec<u8>, String>>,
    /// Ends of reading requests, recorded together with what comes next, or soon.
    pub(super) ended: Vec<Draft>,
    /// When they are recorded at the latest.
    pub(super) ends_due: Option<Instant>,
}

impl std::fmt::Debug for Net {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Net").field("open", &self.open).finish_non_exhaustive()
    }
}

impl Net {
    /// Has the gate serve the network of a new sandbox.
    pub(super) async fn open(
        parts: &Parts,
        listeners: Listeners,
        config: NetConfig,
    ) -> Result<Self, RuntimeError> {
        let network = parts.gate.open_network(&listeners, config.clone(), None).await;
        let network = network.map_err(RuntimeError::Part)?;
        let bundle = parts.home.trust_file().map_err(|error| cannot_trust(&error))?;
        let text = bundle_text(network.certificate_pem());
        std::fs::write(&bundle, text).map_err(|error| cannot_trust(&error))?;
        Ok(Self {
            authority: network.authority(),
            network: Some(network),
            unserved: None,
            listeners,
            config,
            bundle,
            held: Vec::new(),
            open: BTreeMap::new(),
            denied: BTreeSet::new(),
            heard: BTreeSet::new(),
            dated: BTreeMap::new(),
            kept: BTreeMap::new(),
            ended: Vec::new(),
            ends_due: None,
        })
    }

    /// Where the certificates stand on the host.
    pub(super) fn bundle(&self) -> PathBuf {
        self.bundle.clone()
    }

    /// What comes next: a message, or a held request whose time is over. Never ends by itself.
    pub(super) async fn next(&mut self) -> Next {
        let first = self.held.iter().map(|held| held.until).chain(self.ends_due).min();
        let over = async {
            match first {
                Some(until) => tokio::time::sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let again = self.unserved.as_ref().and_then(|unserved| unserved.again);
        let heard = async {
            match (&mut self.network, again) {
                (Some(network), _) => network.next().await,
                (None, Some(again)) => {
                    tokio::time::sleep_until(again).await;
                    None
                }
                (None, None) => std::future::pending().await,
            }
        };
        tokio::select! {
            message = heard => message.map_or(Next::Gone, Next::Message),
            () = over => Next::Over,
        }
    }

    /// The way to the guests of the sandbox, while a gate serves.
    pub(super) fn guests(&self) -> Option<GuestLink> {
        self.network.as_ref().map(Network::guests)
    }

    /// Gives a request the answer that was kept for it.
    pub(super) async fn answer_kept(
        &mut self,
        ask: u64,
        permit: u64,
        (answer, as_of): (Vec<u8>, Option<AsOf>),
    ) {
        self.dated.extend(as_of.map(|as_of| (permit, as_of)));
        if let Some(network) = &self.network {
            network.answer_kept(ask, permit, answer).await;
        }
    }

    async fn answer(&self, ask: u64, verdict: NetVerdict) {
        self.answer_with(ask, verdict, Vec::new()).await;
    }

    async fn answer_with(&self, ask: u64, verdict: NetVerdict, secrets: Vec<SecretGiven>) {
        if let Some(network) = &self.network {
            network.answer(ask, verdict, secrets).await;
        }
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.bundle);
    }
}

fn cannot_trust(error: &std::io::Error) -> RuntimeError {
    RuntimeError::Network { reason: format!("its certificates cannot be written: {error}") }
}

/// How the manifest says that a sandbox reaches the world. `trust` are its files, read.
pub(crate) fn config_of(
    network: &types::manifest::Network,
    trust: Vec<String>,
    prints: Option<Fingerprints>,
) -> Result<NetConfig, RuntimeError> {
    let mut resolve = BTreeMap::new();
    for (name, address) in &network.resolve {
        let parsed = address.parse().map_err(|_| RuntimeError::Network {
            reason: format!("`resolve` of {name}: {address:?} is no address with a port"),
        })?;
        resolve.insert(name.clone(), parsed);
    }
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| RuntimeError::Network {
        reason: format!("there is no randomness: {error}"),
    })?;
    let as_of = network.as_of.clone();
    let keep = network.record;
    Ok(NetConfig { resolve, trust, seed, as_of, keep, models: None, prints })
}

/// The host's authorities and the sandbox's own.
pub(crate) fn bundle_text(own: &str) -> String {
    let host = sandbox::TRUST_INSIDE.iter().find_map(|path| std::fs::read_to_string(path).ok());
    format!("{}\n{own}", host.unwrap_or_default())
}

/// What a permit says besides its decision.
#[derive(Debug, Default)]
pub(super) struct Terms<'a> {
    /// The record whose approval it spends.
    pub(super) approved: Option<u64>,
    /// What the same request is known by in other runs, where that is not its digest.
    pub(super) exchange: Option<Digest>,
    /// The record of another run whose answer it gets.
    pub(super) replays: Option<u64>,
    /// Secrets that are put in, by name and placeholder.
    pub(super) secrets: &'a [(String, String)],
}

/// What happened on a network.
#[derive(Debug)]
pub(super) enum Next {
    /// It said something.
    Message(NetMessage),
    /// A held request's time is over.
    Over,
    /// The gate died.
    Gone,
}

/// What comes next on the run's network; never, when there is none.
pub(super) async fn next(net: &mut Option<Net>) -> Next {
    match net {
        Some(net) => net.next().await,
        None => std::future::pending().await,
    }
}

/// The environment by which programs find certificates.
pub(crate) fn trust_variables() -> Vec<(String, String)> {
    let file = sandbox::TRUST_INSIDE[0];
    TRUST_VARIABLES.iter().map(|name| ((*name).to_owned(), file.to_owned())).collect()
}

/// What sending a request twice would mean.
pub(crate) fn effect_of(action: &ActionRequest) -> EffectClass {
    let ActionRequest::HttpRequest { method, facts, .. } = action else {
        return EffectClass::Irreversible;
    };
    let operation = facts.as_ref().map_or("", |facts| facts.operation.as_str());
    match (operation, method.as_str()) {
        ("git fetch" | "package install", _) | (_, "GET" | "HEAD" | "OPTIONS") => EffectClass::Read,
        // Another token is made, and the one before goes on to be good.
        (TOKEN_OPERATION, _) | (_, "PUT" | "DELETE") => EffectClass::Idempotent,
        _ => EffectClass::Irreversible,
    }
}

/// What a person is shown: the request line, its headers and its body as it would be sent, but for
/// secrets, whose placeholders stand in it.
fn shown(request: &NetRequest) -> String {
    let ActionRequest::HttpRequest { host, method, port, scheme, query, facts, .. } =
        &request.action
    else {
        return request.action.resource();
    };
    let usual = matches!((scheme.as_str(), *port), ("https", 443) | ("http", 80));
    let port = if usual { String::new() } else { format!(":{port}") };
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let mut text = format!("{method} {scheme}://{host}{port}{}{query}\n", request.raw_path);
    let facts = facts.as_deref().cloned().unwrap_or_default();
    for header in &facts.headers {
        text.push_str(&header.replacen('=', ": ", 1));
        text.push('\n');
    }
    if !request.body.is_empty() {
        text.push('\n');
        text.push_str(&request.body);
    }
    let shown = request.body.len() as u64;
    let more = match facts.body.kind {
        BodyKind::Streamed => {
            "\n[the body goes on as it comes; what follows is not shown]".to_owned()
        }
        _ if request.body_bytes > shown => format!("\n[{} bytes in all]", request.body_bytes),
        _ => String::new(),
    };
    text + &more
}

/// What policy is asked to explain why a name is not answered: the least one could want there.
pub(crate) fn asked_by_name(host: String) -> ActionRequest {
    ActionRequest::HttpRequest {
        host,
        method: "GET".to_owned(),
        path: "/".to_owned(),
        port: 443,
        scheme: "https".to_owned(),
        query: String::new(),
        facts: None,
    }
}

/// A permit without secrets.
pub(crate) const fn permit_of(permit: u64) -> NetVerdict {
    NetVerdict::Permit { permit, secrets: Vec::new(), quiet: false }
}

/// A denial, as a program in the sandbox may read it.
pub(crate) fn denied(decision: &Decision) -> NetVerdict {
    let failure = decision.failure();
    let code = failure.map_or_else(|| "BP-POLICY-001".to_owned(), |failure| failure.code);
    let message = "policy does not permit this; the operator sees why".to_owned();
    NetVerdict::Deny(Denial { code, message, approval: None })
}

impl RunTask {
    /// Takes what happened on the network while an effect is awaited.
    pub(super) async fn on_network(&mut self, next: Next) -> Result<(), RuntimeError> {
        let during = self.acting;
        match next {
            Next::Message(NetMessage::Asked { ask, question }) => {
                self.on_question(during, ask, question).await
            }
            Next::Message(NetMessage::Withdrawn { ask }) => {
                if let Some(net) = &mut self.world.net {
                    net.held.retain(|held| held.ask != ask);
                }
                Ok(())
            }
            Next::Message(NetMessage::Minted { placeholder, token, expires_s }) => {
                self.on_minted(&placeholder, token, expires_s);
                Ok(())
            }
            Next::Message(NetMessage::Kept { permit, answer }) => {
                if let Some(net) = &mut self.world.net {
                    net.kept.insert(permit, answer);
                }
                Ok(())
            }
            Next::Message(NetMessage::Passed { permit, passage, sent }) => {
                self.on_passage(permit, passage, sent).await
            }
            Next::Over => {
                self.let_go().await;
                self.record_ends().await
            }
            Next::Gone => self.serve_again().await,
        }
    }

    async fn on_question(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        question: NetQuestion,
    ) -> Result<(), RuntimeError> {
        match question {
            NetQuestion::Name { host } => self.on_name(during, ask, host).await,
            NetQuestion::Connect { host, port } => self.on_connect(during, ask, host, port).await,
            NetQuestion::Request { request } => self.on_request(during, ask, request).await,
            NetQuestion::Model { ask: asked } => self.on_guest_ask(ask, *asked).await,
            NetQuestion::Still { action, permit } => {
                let verdict = self.still(&action, permit);
                self.tell_gate(ask, verdict).await;
                Ok(())
            }
        }
    }

    pub(super) async fn tell_gate(&self, ask: u64, verdict: NetVerdict) {
        if let Some(net) = &self.world.net {
            net.answer(ask, verdict).await;
        }
    }

    /// What a request carries: the context, and what its own command has heard so far.
    pub(super) fn carried_out(&self) -> Carried {
        let mut carried = self.carried();
        for host in self.world.net.iter().flat_map(|net| &net.heard) {
            carried.labels.join(&self.labels_of(host));
        }
        let now = self.parts.clock.now_ms();
        let dated = self.world.net.iter().flat_map(|net| net.dated.values());
        let dated = dated.map(|as_of| as_of.counts_from(now));
        let oldest = dated.chain(self.state.oldest_input_ms).min();
        carried.oldest_input_age = self.age_of(oldest);
        carried
    }

    pub(super) fn judge(&self, action: &ActionRequest, approved: bool) -> Decision {
        let carried = self.carried_out();
        let requests = std::slice::from_ref(action);
        self.gatekeeper.decide(requests, &carried, &self.actor.on_behalf_of, approved)
    }

    /// What programs find in their environment: where certificates are, and a placeholder for
    /// each secret the manifest names.
    pub(super) fn network_environment(&self) -> Vec<(String, String)> {
        let mut variables = trust_variables();
        variables.extend(self.attempt_environment());
        for (variable, secret) in &self.state.manifest().secrets {
            variables.push((variable.clone(), self.placeholder(secret)));
        }
        variables
    }

    /// A name: answered when any rule may permit it, and then it has told nobody anything.
    async fn on_name(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        host: String,
    ) -> Result<(), RuntimeError> {
        if self.gatekeeper.set().may_permit_host(&host) {
            self.tell_gate(ask, permit_of(0)).await;
            return Ok(());
        }
        let action = asked_by_name(host);
        let decision = self.judge(&action, false);
        let verdict = denied(&decision);
        self.record_denial(during, &action, Digest::of(b"name"), &decision).await?;
        self.tell_gate(ask, verdict).await;
        Ok(())
    }

    /// A connection: carried unread when policy says `connect`, else read as HTTP.
    async fn on_connect(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        host: String,
        port: u16,
    ) -> Result<(), RuntimeError> {
        let action = ActionRequest::Connect { host: host.clone(), port };
        let decision = self.judge(&action, false);
        if decision.verdict == Verdict::Permit && self.world.exchanges.is_some() {
            let why = "a connection that is carried unread has no answers".to_owned();
            let digest = Digest::of(host.as_bytes());
            return self.not_recorded(during, ask, (&action, digest), decision, why).await;
        }
        if decision.verdict == Verdict::Permit {
            // Each connection is its own: nobody can say what it carries.
            let seq = self.state.next_seq.to_be_bytes();
            let parts: [&[u8]; 3] = [host.as_bytes(), &port.to_be_bytes(), &seq];
            let digest = Digest::of_parts("bedplate connection 1", &parts);
            let terms = Terms::default();
            let permit = self.permit(during, &action, digest, &decision, terms).await?;
            self.tell_gate(ask, permit_of(permit)).await;
            return Ok(());
        }
        if self.gatekeeper.set().may_permit_host(&host) {
            self.tell_gate(ask, NetVerdict::Inspect).await;
            return Ok(());
        }
        let digest = Digest::of(host.as_bytes());
        let verdict = denied(&decision);
        self.record_denial(during, &action, digest, &decision).await?;
        self.tell_gate(ask, verdict).await;
        Ok(())
    }

    async fn on_request(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        request: Box<NetRequest>,
    ) -> Result<(), RuntimeError> {
        if !request.leaked.is_empty() {
            return self.on_leak(during, ask, &request).await;
        }
        let decision = self.judge(&request.action, false);
        let effect = self.effect_here(&request.action);
        let twin =
            effect == EffectClass::Irreversible && self.state.egress.has_twin(&request.digest);
        match decision.verdict {
            Verdict::Permit if !twin => {
                self.let_through(during, ask, &request, decision, None).await
            }
            Verdict::Deny => self.turn_down(during, ask, &request, decision).await,
            Verdict::Permit | Verdict::Ask => {
                let now = self.parts.clock.now_ms();
                let grant = self.state.egress.grant(&request.digest, now);
                // What is approved for the rest of the run is, but for the same bytes once more.
                let stands = || {
                    let requests = std::slice::from_ref(&request.action);
                    (!twin).then(|| self.gatekeeper.stands_approved(&self.state, requests))?
                };
                match grant.or_else(stands) {
                    Some(asked) => self.spend(during, ask, &request, asked).await,
                    None => self.hold(during, ask, request, decision, twin).await,
                }
            }
        }
    }

    /// The value of a secret stands in a request, where only its placeholder may: denied whatever
    /// policy says, and recorded without what the request says, since the value is in it.
    async fn on_leak(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        request: &NetRequest,
    ) -> Result<(), RuntimeError> {
        let mut bare = request.action.clone();
        if let ActionRequest::HttpRequest { path, query, facts, .. } = &mut bare {
            "/".clone_into(path);
            query.clear();
            *facts = None;
        }
        let names = request.leaked.join(", ");
        let why = Failure {
            code: LEAKED.to_owned(),
            message: format!("the value of secret {names} stands in it, not its placeholder"),
            next: "Replace the secret; find with `bedplate show RUN` where its value came from."
                .to_owned(),
        };
        let policies = vec!["privacy.vault".to_owned()];
        let decision = Decision { verdict: Verdict::Deny, policies, ..self.judge(&bare, false) };
        self.record_refusal(during, &bare, request.digest, &decision, Some(why)).await?;
        let denial = Denial {
            code: LEAKED.to_owned(),
            message: "the value of a secret stands in it; the operator sees which".to_owned(),
            approval: None,
        };
        self.tell_gate(ask, NetVerdict::Deny(denial)).await;
        Ok(())
    }

    /// Lets a request through by an approval, if policy still permits it with one.
    async fn spend(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        request: &NetRequest,
        asked: u64,
    ) -> Result<(), RuntimeError> {
        let decision = self.judge(&request.action, true);
        match decision.verdict {
            Verdict::Permit => self.let_through(during, ask, request, decision, Some(asked)).await,
            Verdict::Ask | Verdict::Deny => self.turn_down(during, ask, request, decision).await,
        }
    }

    async fn turn_down(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        request: &NetRequest,
        decision: Decision,
    ) -> Result<(), RuntimeError> {
        self.record_denial(during, &request.action, request.digest, &decision).await?;
        self.tell_gate(ask, denied(&decision)).await;
        Ok(())
    }

    /// Records a permit with the secrets it puts in, and answers it.
    async fn let_through(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        request: &NetRequest,
        decision: Decision,
        approved: Option<u64>,
    ) -> Result<(), RuntimeError> {
        if let Some(exchanges) = self.world.exchanges.clone() {
            return self.replay(&exchanges, during, ask, request, decision, approved).await;
        }
        let used = match self.secrets_for(request) {
            Ok(used) => used,
            Err(failure) => return self.cannot_use(during, ask, request, decision, failure).await,
        };
        let Used { names, given, by_token } = used;
        let placeholders = names.iter().map(|(_, placeholder)| placeholder.clone()).collect();
        let (action, digest) = (&request.action, request.digest);
        let exchange = Some(request.exchange).filter(|exchange| *exchange != digest);
        let terms = Terms { approved, exchange, replays: None, secrets: &names };
        let permit = self.permit(during, action, digest, &decision, terms).await?;
        self.tokens.carry(permit, by_token);
        if let Some(net) = &self.world.net {
            let quiet = effect_of(action) == EffectClass::Read;
            let verdict = NetVerdict::Permit { permit, secrets: placeholders, quiet };
            net.answer_with(ask, verdict, given).await;
        }
        Ok(())
    }

    /// Turns down what policy permits, because a secret of it cannot be opened.
    async fn cannot_use(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        request: &NetRequest,
        decision: Decision,
        failure: Failure,
    ) -> Result<(), RuntimeError> {
        let code = failure.code.clone();
        let message = "a secret of this request cannot be used; the operator sees why".to_owned();
        let (action, digest) = (&request.action, request.digest);
        self.record_refusal(during, action, digest, &decision, Some(failure)).await?;
        let denial = Denial { code, message, approval: None };
        self.tell_gate(ask, NetVerdict::Deny(denial)).await;
        Ok(())
    }

    /// Records a permit, durable as its class asks, and only then lets it go.
    pub(super) async fn permit(
        &mut self,
        during: Option<ActionId>,
        action: &ActionRequest,
        digest: Digest,
        decision: &Decision,
        terms: Terms<'_>,
    ) -> Result<u64, RuntimeError> {
        let Terms { approved, exchange, replays, secrets } = terms;
        let effect = self.effect_here(action);
        if effect != EffectClass::Read {
            self.flush().await?;
        }
        let mut body = self.decided(during, action, digest, decision);
        if let Body::EgressDecided { approved: spends, exchange: key, replays: answer, .. } =
            &mut body
        {
            (*spends, *key, *answer) = (approved, exchange, replays);
        }
        let seq = self.state.next_seq;
        let started = during.map(|id| self.action(id).started).unwrap_or_default();
        let mut drafts = vec![
            Draft::new(body).because(Link::ResultOf, started).because(Link::ApprovedBy, approved),
        ];
        let host = match action {
            ActionRequest::HttpRequest { host, .. } | ActionRequest::Connect { host, .. } => host,
            _ => unreachable!("only requests and connections are permitted here"),
        };
        for (secret, _) in secrets {
            let (secret, host) = (secret.clone(), host.clone());
            let used = Body::SecretUsed { secret, host, under: seq };
            drafts.push(Draft::new(used).because(Link::DecidedBy, Some(seq)));
        }
        drafts.extend(self.take_ends());
        let durability =
            if effect == EffectClass::Read { Durability::Written } else { Durability::Synced };
        self.append(durability, drafts).await?;
        if let Some(net) = &mut self.world.net {
            net.open.insert(seq, effect == EffectClass::Read);
            if !is_for_token(action) {
                net.heard.insert(host.clone());
            }
        }
        Ok(seq)
    }

    fn decided(
        &self,
        during: Option<ActionId>,
        action: &ActionRequest,
        digest: Digest,
        decision: &Decision,
    ) -> Body {
        Body::EgressDecided {
            during,
            request: Box::new(action.clone()),
            bound: digest,
            effect: self.effect_here(action),
            verdict: decision.verdict,
            approved: None,
            policies: decision.policies.clone(),
            reason: decision.reason.clone(),
            policy_set: decision.policy_set,
            input: decision.input,
            carried: self.carried_out(),
            failure: None,
            exchange: None,
            replays: None,
        }
    }

    /// What sending a request twice would mean. What is answered from a record is not sent.
    fn effect_here(&self, action: &ActionRequest) -> EffectClass {
        if self.world.exchanges.is_some() { EffectClass::Read } else { effect_of(action) }
    }

    /// Each thing that is denied stands in the log once for an action, up to a limit.
    async fn record_denial(
        &mut self,
        during: Option<ActionId>,
        action: &ActionRequest,
        digest: Digest,
        decision: &Decision,
    ) -> Result<(), RuntimeError> {
        self.record_refusal(during, action, digest, decision, None).await
    }

    /// The same; `why` when it is not policy that refuses.
    pub(super) async fn record_refusal(
        &mut self,
        during: Option<ActionId>,
        action: &ActionRequest,
        digest: Digest,
        decision: &Decision,
        why: Option<Failure>,
    ) -> Result<(), RuntimeError> {
        let Some(net) = &mut self.world.net else { return Ok(()) };
        let full = net.denied.len() >= DENIALS_RECORDED_MAX;
        let said = why.as_ref().map_or(String::new(), |why| format!("{}{}", why.code, why.message));
        if full || !net.denied.insert(format!("{said} {}", action.resource())) {
            return Ok(());
        }
        let mut body = self.decided(during, action, digest, decision);
        if let Body::EgressDecided { verdict, reason, failure, .. } = &mut body {
            *verdict = Verdict::Deny;
            if let Some(why) = &why {
                reason.clone_from(&why.message);
            }
            *failure = why;
        }
        let started = during.map(|id| self.action(id).started).unwrap_or_default();
        let draft = Draft::new(body).because(Link::ResultOf, started);
        self.record(Durability::Written, draft).await.map(|_| ())
    }

    /// Asks a person, unless one is asked already, and lets the request wait on its connection.
    async fn hold(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        request: Box<NetRequest>,
        mut decision: Decision,
        twin: bool,
    ) -> Result<(), RuntimeError> {
        let now = self.parts.clock.now_ms();
        let asked = match self.state.egress.question(&request.digest, now) {
            Some(asked) => asked,
            None => {
                if twin && decision.verdict == Verdict::Permit {
                    decision.reason = "the same was sent before, or may have been".to_owned();
                }
                decision.verdict = Verdict::Ask;
                self.ask_about(during, &request, &decision, now).await?
            }
        };
        let wait_ms = self.state.manifest().network.ask_wait_ms.unwrap_or(ASK_WAIT_MS_DEFAULT);
        let until = Instant::now() + Duration::from_millis(wait_ms);
        if let Some(net) = &mut self.world.net {
            net.held.push(Held { ask, asked, until, request });
        }
        Ok(())
    }

    async fn ask_about(
        &mut self,
        during: Option<ActionId>,
        request: &NetRequest,
        decision: &Decision,
        now_ms: u64,
    ) -> Result<u64, RuntimeError> {
        let permissions = self.state.manifest().permissions.as_ref();
        let wait_ms = permissions.and_then(|p| p.approval_expires_ms);
        let egress = self.state.next_seq;
        let body = self.decided(during, &request.action, request.digest, decision);
        let started = during.map(|id| self.action(id).started).unwrap_or_default();
        let asked = Body::EgressAsked {
            egress,
            shown: shown(request),
            bound: request.digest,
            expires_ms: now_ms.saturating_add(wait_ms.unwrap_or(APPROVAL_EXPIRES_MS_DEFAULT)),
            needs: approvers_of(decision),
        };
        let drafts = vec![
            Draft::new(body).because(Link::ResultOf, started),
            Draft::new(asked).because(Link::DecidedBy, Some(egress)),
        ];
        let written = self.append(Durability::Synced, drafts).await?;
        Ok(written[1].stamp.seq)
    }

    /// Held requests whose time is over are told where their question stands.
    async fn let_go(&mut self) {
        let run = self.run.clone();
        let Some(net) = &mut self.world.net else { return };
        let now = Instant::now();
        let (over, held) = std::mem::take(&mut net.held).into_iter().partition(|h| h.until <= now);
        net.held = held;
        let over: Vec<Held> = over;
        for held in over {
            let denial = Denial {
                code: ASKED.to_owned(),
                message: "a person must approve this; try again when it is approved".to_owned(),
                approval: Some(format!("{run}-{}", held.asked)),
            };
            net.answer(held.ask, NetVerdict::Deny(denial)).await;
        }
    }

    /// A person has answered a question about a request: whoever waits for it hears.
    pub(super) async fn release_held(
        &mut self,
        asked: u64,
        verdict: ApprovalVerdict,
    ) -> Result<(), RuntimeError> {
        let during = self.acting;
        let Some(net) = &mut self.world.net else { return Ok(()) };
        let (mut mine, rest): (Vec<Held>, Vec<Held>) =
            std::mem::take(&mut net.held).into_iter().partition(|held| held.asked == asked);
        net.held = rest;
        // One request spends the approval; the others ask again.
        if verdict == ApprovalVerdict::Approved && !mine.is_empty() {
            let first = mine.remove(0);
            self.spend(during, first.ask, &first.request, asked).await?;
        }
        for held in mine {
            if verdict == ApprovalVerdict::Approved {
                self.on_request(during, held.ask, held.request).await?;
                continue;
            }
            let denial = Denial {
                code: REFUSED_BY_PERSON.to_owned(),
                message: "a person denied this".to_owned(),
                approval: None,
            };
            self.tell_gate(held.ask, NetVerdict::Deny(denial)).await;
        }
        Ok(())
    }

    /// Whether something that was permitted may go on under the policy of now: with the approval it
    /// was permitted with, if any. A connection without a permit of its own has its requests judged.
    fn still(&self, action: &ActionRequest, permit: Option<u64>) -> NetVerdict {
        let host = match action {
            ActionRequest::HttpRequest { host, .. } | ActionRequest::Connect { host, .. } => host,
            _ => return denied(&self.judge(action, false)),
        };
        let passed = permit.and_then(|permit| self.state.egress.passed.get(&permit));
        let decision = self.judge(action, passed.is_some_and(|egress| egress.approved));
        let goes_on = match permit {
            None => self.gatekeeper.set().may_permit_host(host),
            Some(_) => decision.verdict == Verdict::Permit,
        };
        if goes_on {
            return permit_of(0);
        }
        denied(&decision)
    }

    /// Serves a network again that no gate serves.
    ///
    /// # Errors
    /// Why no gate serves it: a command does not begin without one.
    pub(super) async fn ensure_served(&mut self) -> Result<(), RuntimeError> {
        let served = self.world.net.as_ref().is_none_or(|net| net.network.is_some());
        if served {
            return Ok(());
        }
        self.serve_again().await?;
        let unserved = self.world.net.as_ref().and_then(|net| net.unserved.as_ref());
        unserved.map_or(Ok(()), |unserved| Err(RuntimeError::Part(unserved.failure.clone())))
    }

    /// The gate died. What was in flight may have been sent; another gate serves from here on.
    async fn serve_again(&mut self) -> Result<(), RuntimeError> {
        let Some(net) = &mut self.world.net else { return Ok(()) };
        net.network = None;
        net.held.clear();
        let open = std::mem::take(&mut net.open);
        for egress in open.into_keys() {
            let why = "the gate died".to_owned();
            self.record_end(egress, (0, 0, 0), Some(why), true).await?;
        }
        self.record_ends().await?;
        let Some(net) = &mut self.world.net else { return Ok(()) };
        let (config, authority) = (net.config.clone(), net.authority.clone());
        let network = self.parts.gate.open_network(&net.listeners, config, Some(authority)).await;
        // Without one, nothing leaves: connections wait for the next try, or end with the command.
        let before = net.unserved.take();
        match network {
            Ok(network) => net.network = Some(network),
            Err(failure) => net.unserved = Some(Unserved::after(before, failure)),
        }
        Ok(())
    }

    /// What the operator says about a host, else that nobody vouches for it.
    pub(super) fn labels_of(&self, host: &str) -> Labels {
        let said = self.state.manifest().network.labels.get(host);
        said.cloned().unwrap_or_else(|| Labels::one(FOREIGN))
    }

    /// Policy has changed: what is open is asked about again.
    pub(super) async fn recheck_network(&self) {
        if let Some(network) = self.world.net.as_ref().and_then(|net| net.network.as_ref()) {
            network.recheck().await;
        }
    }
}
