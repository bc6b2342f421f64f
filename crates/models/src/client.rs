//! One call of one model: HTTP/1.1, no redirect followed, one attempt, every wait limited.
//!
//! ```text
//!  connect --connect_ms--> header --header_ms--> body --idle_ms between pieces--> end
//!  `------------------------------- total_ms -------------------------------------'
//! ```

use crate::decode::{Answer, Context, Decoder};
use crate::error::ModelError;
use crate::limits::FAULT_RAW_BYTES_MAX;
use crate::provider::{Endpoint, Timeouts};
use crate::redact::{Scrub, Secret, provider_text, scrub_bytes};
use crate::resolver::Resolver;
use crate::{fault, tls};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use types::manifest::Dialect;
use types::{Digest, ModelFault, Origin};

/// Sets of trusted certificates for which connections are kept.
const POOLS_MAX: usize = 16;
/// Bytes of an error reply that are read.
const ERROR_BODY_BYTES_MAX: usize = 64 << 10;
/// Unused connections to one host.
const IDLE_CONNECTIONS_MAX: usize = 4;
/// The version of the Messages dialect that we speak.
const MESSAGES_VERSION: &str = "2023-06-01";

type Https = Pool<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// Calls models. Cheap to share; keeps connections, never a key.
pub struct Client {
    roots: RootCertStore,
    resolver: Resolver,
    pools: Mutex<HashMap<(Digest, u64), Https>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A complete answer and what it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The reply's bytes as they came, but for a key that was in them.
    pub raw: Vec<u8>,
    /// What they mean.
    pub answer: Answer,
    /// HTTP status.
    pub http_status: u16,
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallFault {
    /// Why, and what can be done about it.
    pub fault: ModelFault,
    /// The first [`FAULT_RAW_BYTES_MAX`] bytes of what came, but for a key that was in them.
    pub raw: Vec<u8>,
}

/// What a reply brings as it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text of the answer.
    Text(&'a str),
    /// Bytes of the reply, but for a key that was in them: for a guest that speaks the dialect.
    Raw(&'a [u8]),
}

/// What is sent besides the endpoint's own.
struct Sent<'a> {
    key: Option<&'a Secret>,
    headers: &'a [(String, String)],
    body: Bytes,
}

/// A failure before it is put into words for the owner.
struct Failed {
    error: ModelError,
    status: u16,
    retry_after_ms: Option<u64>,
}

impl From<ModelError> for Failed {
    fn from(error: ModelError) -> Self {
        Self { error, status: 0, retry_after_ms: None }
    }
}

impl Client {
    /// A client that trusts the host's authorities and resolves names as the host does. Reads
    /// files: make it before confinement.
    #[must_use]
    pub fn from_host() -> Self {
        Self::trusting(tls::host_authorities())
    }

    /// The same with these authorities, for who has read them already.
    #[must_use]
    pub fn trusting(authorities: impl IntoIterator<Item = CertificateDer<'static>>) -> Self {
        Self {
            roots: tls::roots(authorities),
            resolver: Resolver::from_host(),
            pools: Mutex::new(HashMap::new()),
        }
    }

    /// Sends an encoded request and decodes the reply. Text goes to `on_text` as it comes. There
    /// is one attempt: trying again is the caller's business.
    ///
    /// # Errors
    /// [`CallFault`], boxed: a coded fault with its class and the bytes that came. No error holds
    /// the key.
    pub async fn call(
        &self,
        endpoint: &Endpoint,
        model: &str,
        key: Option<&Secret>,
        request: Bytes,
        on_text: &mut (dyn FnMut(&str) + Send),
    ) -> Result<Reply, Box<CallFault>> {
        let mut on_piece = |piece: Piece<'_>| {
            if let Piece::Text(text) = piece {
                on_text(text);
            }
        };
        self.relay(endpoint, model, key, &[], request, &mut on_piece).await
    }

    /// The same for a guest's request: `headers` are sent besides ours and never instead of one of
    /// them, and the reply's bytes are given as they come, before what they mean is known. Those
    /// of a refusal are not.
    ///
    /// # Errors
    /// As [`Client::call`].
    pub async fn relay(
        &self,
        endpoint: &Endpoint,
        model: &str,
        key: Option<&Secret>,
        headers: &[(String, String)],
        request: Bytes,
        on_piece: &mut (dyn FnMut(Piece<'_>) + Send),
    ) -> Result<Reply, Box<CallFault>> {
        let context = Context {
            origin: Origin { provider: endpoint.provider.clone(), model: model.to_owned() },
            request: Digest::of(&request),
            request_bytes: request.len() as u64,
        };
        let mut raw = Vec::new();
        let sent = Sent { key, headers, body: request };
        let called = self.attempt(endpoint, &context, sent, &mut raw, on_piece).await;
        match called {
            Ok((answer, http_status)) => Ok(Reply { raw, answer, http_status }),
            Err(failed) => {
                raw.truncate(FAULT_RAW_BYTES_MAX);
                let fault = failed.error.fault(failed.status, failed.retry_after_ms);
                Err(Box::new(CallFault { fault, raw }))
            }
        }
    }

    async fn attempt(
        &self,
        endpoint: &Endpoint,
        context: &Context,
        sent: Sent<'_>,
        raw: &mut Vec<u8>,
        on_piece: &mut (dyn FnMut(Piece<'_>) + Send),
    ) -> Result<(Answer, u16), Failed> {
        let key = sent.key;
        let mut decoder = Decoder::new(endpoint.dialect, context.clone())?;
        let pool = self.pool(endpoint)?;
        let message = message(endpoint, sent)?;
        let deadlines = Deadlines::new(endpoint);
        let until = deadlines.after(endpoint.timeouts.connect_ms + endpoint.timeouts.header_ms);
        let response = match timeout_at(until, pool.request(message)).await {
            Err(_) => return Err(deadlines.stalled("waiting for the reply to begin").into()),
            Ok(Err(error)) => return Err(unreachable(endpoint, key, &error).into()),
            Ok(Ok(response)) => response,
        };
        let status = response.status().as_u16();
        let retry_after_ms = fault::retry_after_ms(response.headers());
        let with_status = |error| Failed { error, status, retry_after_ms };
        if !response.status().is_success() {
            read_error(response, &deadlines, raw).await;
            if let Some(clean) = scrub_bytes(raw, key.map(Secret::expose).unwrap_or_default()) {
                *raw = clean;
            }
            let error = fault::from_status(&endpoint.provider, status, raw, key);
            return Err(with_status(error));
        }
        let mut scrub = Scrub::new(key);
        // Nobody sees the reply before a key that the server sent back is taken out.
        let mut take = |clean: &[u8]| {
            on_piece(Piece::Raw(clean));
            raw.extend_from_slice(clean);
            decoder.feed(clean, &mut |text| on_piece(Piece::Text(text)))?;
            Ok(decoder.is_complete())
        };
        let read = read_reply(response, &deadlines, &mut |bytes| take(&scrub.feed(bytes))).await;
        read.and_then(|()| take(&scrub.finish())).map_err(with_status)?;
        let answer = decoder.finish().map_err(with_status)?;
        Ok((answer, status))
    }

    /// The connections for this set of trusted certificates.
    fn pool(&self, endpoint: &Endpoint) -> Result<Https, ModelError> {
        let parts: Vec<&[u8]> = endpoint.trust.iter().map(String::as_bytes).collect();
        let name = (Digest::of_parts("trust", &parts), endpoint.timeouts.connect_ms);
        let mut pools = self.pools.lock().expect("nothing panics while it holds the pools");
        if let Some(pool) = pools.get(&name) {
            return Ok(pool.clone());
        }
        let tls = tls::config(&endpoint.provider, &self.roots, &endpoint.trust)?;
        let mut tcp = HttpConnector::new_with_resolver(self.resolver.clone());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_millis(endpoint.timeouts.connect_ms)));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        if pools.len() >= POOLS_MAX {
            pools.clear();
        }
        pools.insert(name, pool.clone());
        Ok(pool)
    }
}

/// When the phases of one call end.
struct Deadlines {
    provider: String,
    timeouts: Timeouts,
    start: Instant,
}

impl Deadlines {
    fn new(endpoint: &Endpoint) -> Self {
        Self {
            provider: endpoint.provider.clone(),
            timeouts: endpoint.timeouts,
            start: Instant::now(),
        }
    }

    /// `ms` from now, but not after the end of the whole call.
    fn after(&self, ms: u64) -> Instant {
        let end = self.start + Duration::from_millis(self.timeouts.total_ms);
        end.min(Instant::now() + Duration::from_millis(ms))
    }

    fn stalled(&self, phase: &'static str) -> ModelError {
        let total = Duration::from_millis(self.timeouts.total_ms);
        if self.start.elapsed() >= total {
            return ModelError::TooLarge {
                provider: self.provider.clone(),
                limit: total.as_secs(),
                unit: "seconds",
            };
        }
        let ms = if phase.ends_with("begin") {
            self.timeouts.connect_ms + self.timeouts.header_ms
        } else {
            self.timeouts.idle_ms
        };
        ModelError::Stalled { provider: self.provider.clone(), seconds: ms.div_ceil(1000), phase }
    }
}

/// The HTTP request. The key is in one header, marked so that it is never shown.
fn message(endpoint: &Endpoint, sent: Sent<'_>) -> Result<Request<Full<Bytes>>, ModelError> {
    let Sent { key, headers, body } = sent;
    let bad = |why: &str| ModelError::BadEndpoint {
        provider: endpoint.provider.clone(),
        why: why.to_owned(),
    };
    if let (Some(variable), None) = (&endpoint.key_env, key) {
        return Err(ModelError::KeyMissing {
            provider: endpoint.provider.clone(),
            variable: variable.clone(),
        });
    }
    let path = match endpoint.dialect {
        Dialect::Responses => "/responses",
        Dialect::Messages => "/messages",
        Dialect::Chat | Dialect::Gemini => "/chat/completions",
    };
    let uri: Uri = format!("{}{path}", endpoint.base_url)
        .parse()
        .map_err(|_| bad("base_url is no address"))?;
    let mut message = Request::post(uri)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "text/event-stream, application/json")
        .header(USER_AGENT, concat!("bedplate/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(body))
        .map_err(|_| bad("base_url is no address"))?;
    if endpoint.dialect == Dialect::Messages {
        let version = HeaderValue::from_static(MESSAGES_VERSION);
        message.headers_mut().insert("anthropic-version", version);
    }
    if let Some(key) = key {
        let (name, before) = match endpoint.dialect {
            Dialect::Messages => (HeaderName::from_static("x-api-key"), &b""[..]),
            _ => (AUTHORIZATION, &b"Bearer "[..]),
        };
        let mut header = HeaderValue::from_bytes(&[before, key.expose()].concat())
            .map_err(|_| bad("the key holds characters that no header may have"))?;
        header.set_sensitive(true);
        message.headers_mut().insert(name, header);
    }
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(|_| bad("a header has no usable name"))?;
        let value =
            HeaderValue::try_from(value).map_err(|_| bad("a header has no usable value"))?;
        message.headers_mut().entry(name).or_insert(value);
    }
    Ok(message)
}

async fn within<T>(until: Instant, future: impl Future<Output = T>) -> Option<T> {
    timeout_at(until, future).await.ok()
}

/// Reads as much of an error reply as is needed; what cannot be read is left out.
async fn read_error(response: Response<Incoming>, deadlines: &Deadlines, raw: &mut Vec<u8>) {
    let mut body = response.into_body();
    while raw.len() < ERROR_BODY_BYTES_MAX {
        let until = deadlines.after(deadlines.timeouts.idle_ms);
        let Some(Some(Ok(frame))) = within(until, body.frame()).await else {
            return;
        };
        if let Some(data) = frame.data_ref() {
            let room = ERROR_BODY_BYTES_MAX - raw.len();
            raw.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
}

/// Reads the reply until it is over. `on_bytes` takes every piece and says whether the answer is
/// complete: what goes wrong after that does not matter.
async fn read_reply(
    response: Response<Incoming>,
    deadlines: &Deadlines,
    on_bytes: &mut (dyn FnMut(&[u8]) -> Result<bool, ModelError> + Send),
) -> Result<(), ModelError> {
    let mut body = response.into_body();
    let (mut bytes, mut complete) = (0, false);
    loop {
        let until = deadlines.after(deadlines.timeouts.idle_ms);
        let frame = match within(until, body.frame()).await {
            None | Some(Some(Err(_))) if complete => return Ok(()),
            None => return Err(deadlines.stalled("in the middle of the reply")),
            Some(None) => return Ok(()),
            Some(Some(Err(_))) => {
                return Err(ModelError::Cut { provider: deadlines.provider.clone(), bytes });
            }
            Some(Some(Ok(frame))) => frame,
        };
        if let Some(data) = frame.data_ref() {
            bytes += data.len() as u64;
            complete = on_bytes(data)?;
        }
    }
}

/// No connection, or it broke before the reply's header.
fn unreachable(
    endpoint: &Endpoint,
    key: Option<&Secret>,
    error: &hyper_util::client::legacy::Error,
) -> ModelError {
    let mut why = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !why.contains(&text) {
            why = format!("{why}: {text}");
        }
        source = cause.source();
    }
    let address = endpoint.base_url.parse::<Uri>().ok();
    let address = address.as_ref().and_then(Uri::authority).map(ToString::to_string);
    ModelError::Unreachable {
        provider: endpoint.provider.clone(),
        address: address.unwrap_or_else(|| "its address".into()),
        why: provider_text(&why, key),
    }
}
