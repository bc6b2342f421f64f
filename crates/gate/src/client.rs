//! The owner's client: one gate process, started when needed, used from many tasks.

use crate::error::GateError;
use crate::frame::Attachment;
use crate::limits::{OUTPUT_BYTES_MAX, RESTART_WINDOW_MS, STARTS_MAX};
use crate::link::{Last, Link, Pending};
use crate::message::{
    Event, ModelCall, NetConfig, PrivacyFindings, PrivacyOrder, ReadText, Request,
};
use crate::network::Network;
use bytes::Bytes;
use models::{Answer, Estimate, Secret};
use serde_json::Value;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use types::{AsOf, AsOfField, Coded as _, Digest, Failure, ModelFault, Restored};
use zeroize::Zeroizing;

/// The gate as the owner uses it. Clones share one process. When it has died, the next use starts
/// another, at most [`STARTS_MAX`] times within [`RESTART_WINDOW_MS`].
#[derive(Debug, Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    exe: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    link: Option<Arc<Link>>,
    starts: VecDeque<Instant>,
}

/// A model call that is encoded and lies in the gate. Dropping it unsent forgets it there.
#[derive(Debug)]
pub struct Prepared {
    number: u64,
    link: Arc<Link>,
    sent: bool,
    /// Digest of the bytes that will be sent.
    pub digest: Digest,
    /// How many they are.
    pub bytes: u64,
    /// The most it may use.
    pub estimate: Estimate,
    /// What the privacy router found.
    pub findings: PrivacyFindings,
    /// New pseudonyms, to be kept before the call is sent: they go into [`PrivacyOrder::kept`].
    pub unsaved: Bytes,
}

/// Why a call was not prepared.
#[derive(Debug, Clone, PartialEq)]
pub enum NotPrepared {
    /// It cannot be encoded, or the gate died.
    Fault(ModelFault),
    /// The privacy router does not let it out, whatever policy says.
    Withheld {
        /// Why.
        failure: Failure,
        /// What was found.
        findings: Box<PrivacyFindings>,
    },
}

impl From<ModelFault> for NotPrepared {
    fn from(fault: ModelFault) -> Self {
        Self::Fault(fault)
    }
}

/// How a model call ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// The answer, or why there is none.
    pub result: Result<Answer, ModelFault>,
    /// The reply's bytes, all of an answer's, the first of a fault's.
    pub raw: Bytes,
    /// HTTP status, 0 when there was none.
    pub http_status: u16,
    /// Where values were put back for pseudonyms.
    pub restored: Vec<Restored>,
}

impl Gate {
    /// Starts the gate: `exe` run with [`crate::GATE_ARGUMENT`] must call [`crate::gate_main`].
    ///
    /// # Errors
    /// [`GateError::CannotStart`], [`GateError::NotConfined`].
    pub async fn start(exe: impl Into<PathBuf>) -> Result<Self, GateError> {
        let gate = Self {
            inner: Arc::new(Inner { exe: exe.into(), state: Mutex::new(State::default()) }),
        };
        gate.link().await?;
        Ok(gate)
    }

    /// Process id of the gate that lives now.
    pub async fn pid(&self) -> Option<u32> {
        self.inner.state.lock().await.link.as_ref()?.pid()
    }

    /// Encodes a model call and passes it through the privacy router; nothing leaves this machine.
    ///
    /// # Errors
    /// A fault of class `Rejected` when the call cannot be encoded, `Transient` when the gate died;
    /// [`NotPrepared::Withheld`] when the router does not let it out.
    pub async fn prepare(
        &self,
        call: ModelCall,
        privacy: PrivacyOrder,
    ) -> Result<Prepared, NotPrepared> {
        let kept = Secret::new(privacy.kept.to_vec());
        let (call, privacy) = (Box::new(call), Box::new(privacy));
        let link = self.link().await.map_err(|error| error.fault())?;
        let request = Request::Prepare { call, privacy };
        Prepared::ask(link, request, kept).await
    }

    /// Sends a prepared call with its key; text goes to `on_text` as it comes, and pieces may be
    /// left out when `on_text` is slow. Dropping the future cancels the call.
    pub async fn send(
        &self,
        mut prepared: Prepared,
        key: Option<Secret>,
        mut on_text: impl FnMut(&str) + Send,
    ) -> Answered {
        prepared.sent = true;
        let request = Request::Send { prepared: prepared.number };
        let key = key.map(Attachment::Secret).into_iter().collect();
        let mut pending = match prepared.link.ask(request, key).await {
            Ok(pending) => pending,
            Err(error) => return faulted(error.fault(), Bytes::new()),
        };
        while let Some(text) = pending.delta().await {
            on_text(&text);
        }
        match pending.last().await {
            Ok((Event::Answered { answer, http_status, restored }, raw)) => {
                Answered { result: Ok(*answer), raw, http_status, restored }
            }
            Ok((Event::Faulted { fault }, raw)) => faulted(fault, raw),
            Ok((Event::Failed { failure }, raw)) => faulted(transient(failure), raw),
            Ok((other, _)) => faulted(unexpected(&other).fault(), Bytes::new()),
            Err(error) => faulted(error.fault(), Bytes::new()),
        }
    }

    /// Serves a script on loopback and gives its base address. The same name, text and instance
    /// give the same server, whose fault counters go on; an instance is usually a run. Cheap: call
    /// it before each model call, since a restarted gate has forgotten its scripts.
    ///
    /// # Errors
    /// `BP-MODEL-013` when the script cannot be read; codes of the gate.
    pub async fn script_start(
        &self,
        name: &str,
        text: &str,
        instance: &str,
    ) -> Result<String, Failure> {
        let request = Request::ScriptStart { name: name.to_owned(), instance: instance.to_owned() };
        let text = Attachment::Plain(Bytes::copy_from_slice(text.as_bytes()));
        match self.ask(request, vec![text]).await? {
            Event::ScriptStarted { base_url } => Ok(base_url),
            other => Err(failure_of(other)),
        }
    }

    /// Parses what a tool printed as one JSON value that fits the schema.
    ///
    /// # Errors
    /// `BP-GATE-007`, `BP-GATE-008`, `BP-GATE-009`, `BP-GATE-013`; codes of the gate.
    pub async fn parse_json(&self, bytes: Bytes, schema: Option<Value>) -> Result<Value, Failure> {
        self.parse_dated(bytes, schema, None).await.map(|(value, _)| value)
    }

    /// The same, and what the value says about its age when `as_of` says where that stands.
    ///
    /// # Errors
    /// Those of [`Self::parse_json`].
    pub async fn parse_dated(
        &self,
        bytes: Bytes,
        schema: Option<Value>,
        as_of: Option<AsOfField>,
    ) -> Result<(Value, Option<AsOf>), Failure> {
        let attached = vec![Attachment::Plain(bytes)];
        match self.ask(Request::ParseJson { schema, as_of }, attached).await? {
            Event::Json { value, as_of } => Ok((value, as_of)),
            other => Err(failure_of(other)),
        }
    }

    /// Checks a value against a JSON Schema.
    ///
    /// # Errors
    /// `BP-GATE-008`, `BP-GATE-009`; codes of the gate.
    pub async fn check_arguments(&self, value: Value, schema: Value) -> Result<(), Failure> {
        self.expect_good(Request::CheckArguments { value, schema }).await
    }

    /// Sees whether a JSON Schema can be used.
    ///
    /// # Errors
    /// `BP-GATE-009`; codes of the gate.
    pub async fn compile_schema(&self, schema: Value) -> Result<(), Failure> {
        self.expect_good(Request::CompileSchema { schema }).await
    }

    /// Makes output readable in at most `cap_bytes` (but at least 128): head and tail with a line
    /// between when it is longer.
    ///
    /// # Errors
    /// `BP-GATE-013` above [`OUTPUT_BYTES_MAX`]; codes of the gate.
    pub async fn read_output(&self, bytes: Bytes, cap_bytes: u64) -> Result<ReadText, Failure> {
        if bytes.len() > OUTPUT_BYTES_MAX {
            let too_large = GateError::InputTooLarge {
                bytes: bytes.len() as u64,
                limit: OUTPUT_BYTES_MAX as u64,
            };
            return Err(too_large.failure());
        }
        let attached = vec![Attachment::Plain(bytes)];
        match self.ask(Request::ReadOutput { cap_bytes }, attached).await? {
            Event::Text { read } => Ok(read),
            other => Err(failure_of(other)),
        }
    }

    /// Serves the network of a sandbox. The listeners stay with the caller, for the next gate when
    /// this one dies; `authority` is that of the network before.
    ///
    /// # Errors
    /// `BP-GATE-014`; codes of the gate.
    pub async fn open_network(
        &self,
        listeners: &sandbox::Listeners,
        config: NetConfig,
        authority: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Network, Failure> {
        let link = self.link().await.map_err(|error| error.failure())?;
        Network::open(link, listeners, config, authority).await
    }

    async fn expect_good(&self, request: Request) -> Result<(), Failure> {
        match self.ask(request, Vec::new()).await? {
            Event::Good => Ok(()),
            other => Err(failure_of(other)),
        }
    }

    async fn ask(&self, request: Request, attached: Vec<Attachment>) -> Result<Event, Failure> {
        let asked = async {
            let pending: Pending = self.link().await?.ask(request, attached).await?;
            let last: Last = pending.last().await?;
            Ok::<_, GateError>(last.0)
        };
        asked.await.map_err(|error| error.failure())
    }

    /// The live process, started anew when it is gone.
    async fn link(&self) -> Result<Arc<Link>, GateError> {
        let mut state = self.inner.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| link.is_live()) {
            return Ok(link.clone());
        }
        state.link = None;
        let now = Instant::now();
        let window = Duration::from_millis(RESTART_WINDOW_MS);
        while state.starts.front().is_some_and(|start| now.duration_since(*start) >= window) {
            state.starts.pop_front();
        }
        if state.starts.len() >= STARTS_MAX {
            return Err(GateError::KeepsDying {
                starts: STARTS_MAX,
                seconds: RESTART_WINDOW_MS / 1000,
            });
        }
        state.starts.push_back(now);
        let link = Link::start(&self.inner.exe).await?;
        state.link = Some(link.clone());
        Ok(link)
    }
}

impl Prepared {
    /// Has a call encoded and kept.
    ///
    /// # Errors
    /// As [`Gate::prepare`].
    pub(crate) async fn ask(
        link: Arc<Link>,
        request: Request,
        kept: Secret,
    ) -> Result<Self, NotPrepared> {
        let pending = link.ask(request, vec![Attachment::Secret(kept)]).await;
        let pending = pending.map_err(|error| error.fault())?;
        let (event, unsaved) = pending.last().await.map_err(|error| error.fault())?;
        match event {
            Event::Prepared { prepared, digest, bytes, input_tokens, output_tokens, findings } => {
                Ok(Self {
                    number: prepared,
                    link,
                    sent: false,
                    digest,
                    bytes,
                    estimate: Estimate { input_tokens, output_tokens },
                    findings: *findings,
                    unsaved,
                })
            }
            Event::Withheld { failure, findings } => {
                Err(NotPrepared::Withheld { failure, findings })
            }
            Event::Faulted { fault } => Err(fault.into()),
            Event::Failed { failure } => Err(transient(failure).into()),
            other => Err(unexpected(&other).fault().into()),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if !self.sent {
            let prepared = self.number;
            self.link.tell(Request::Release { prepared });
        }
    }
}

fn faulted(fault: ModelFault, raw: Bytes) -> Answered {
    Answered { http_status: fault.http_status, result: Err(fault), raw, restored: Vec::new() }
}

fn transient(failure: Failure) -> ModelFault {
    ModelFault {
        class: types::FaultClass::Transient,
        failure,
        http_status: 0,
        retry_after_ms: None,
    }
}

pub(crate) fn failure_of(event: Event) -> Failure {
    match event {
        Event::Failed { failure } => failure,
        other => unexpected(&other).failure(),
    }
}

fn unexpected(event: &Event) -> GateError {
    let name = match event {
        Event::Ready { .. } => "ready",
        Event::Prepared { .. } => "prepared",
        Event::Withheld { .. } => "withheld",
        Event::Delta { .. } => "delta",
        Event::Answered { .. } => "answered",
        Event::Faulted { .. } => "faulted",
        Event::ScriptStarted { .. } => "script_started",
        Event::Json { .. } => "json",
        Event::Text { .. } => "text",
        Event::NetOpened { .. } => "net_opened",
        Event::NetAsked { .. } => "net_asked",
        Event::NetWithdrawn { .. } => "net_withdrawn",
        Event::NetPassed { .. } => "net_passed",
        Event::NetKept { .. } => "net_kept",
        Event::NetMinted { .. } => "net_minted",
        Event::Good => "good",
        Event::Failed { .. } => "failed",
    };
    GateError::Protocol { why: format!("'{name}' answers something else") }
}
