//! The endpoint of one sandbox: HTTP in, a question to the owner, HTTP out. A guest's bytes are
//! hostile: they give a request, or an error in its own dialect.

use super::bodies::Bodies;
use super::{Call, Said, lock, refused};
use crate::error::GateError;
use crate::limits::{GUEST_BODY_MS_MAX, GUEST_CALLS_MAX};
use crate::message::{GuestAsk, GuestModels};
use boundary::{Endpoint, EndpointAnswer, EndpointBody};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use models::Dialect;
use models::guest::{self, GuestCall, GuestFault, HttpReply};
use models::limits::REQUEST_BYTES_MAX;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use types::Digest;

/// Characters of a path that a guest is told again.
const PATH_CHARS_MAX: usize = 100;

/// How the owner is asked: gives the number of the question.
pub(crate) type AskOwner = Arc<dyn Fn(GuestAsk, Arc<Call>) + Send + Sync>;

/// The endpoint of one sandbox.
#[derive(Clone)]
pub(crate) struct Door {
    models: Arc<GuestModels>,
    ask: AskOwner,
    places: Arc<Semaphore>,
    bodies: Arc<Mutex<Bodies>>,
}

impl Door {
    pub(crate) fn new(models: GuestModels, ask: AskOwner) -> Self {
        Self {
            models: Arc::new(models),
            ask,
            places: Arc::new(Semaphore::new(GUEST_CALLS_MAX)),
            bodies: Arc::default(),
        }
    }

    /// Whether the request shows the key of this run.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let token = self.models.token.as_bytes();
        let bearer = headers.get("authorization").map(http::HeaderValue::as_bytes);
        let bearer = bearer.and_then(|value| value.strip_prefix(b"Bearer "));
        let key = headers.get("x-api-key").map(http::HeaderValue::as_bytes);
        [bearer, key].into_iter().flatten().any(|shown| shown == token)
    }

    async fn respond(self, request: Request<Incoming>) -> Response<EndpointBody> {
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let call = guest::paths(head.method.as_str(), path);
        let dialect = match call {
            Some(GuestCall::Answer(dialect)) => dialect,
            Some(GuestCall::CountTokens) => Dialect::Messages,
            _ => Dialect::Chat,
        };
        if !self.knows(&head.headers) {
            return whole(refused(&GateError::GuestKey, 401, dialect));
        }
        match call {
            Some(GuestCall::Models) => self.list(None),
            Some(GuestCall::Model(name)) => self.list(Some(&name)),
            Some(GuestCall::CountTokens) => match read(body).await {
                Ok(body) => json(guest::count_tokens(&body)),
                Err((error, status)) => whole(refused(&error, status, dialect)),
            },
            Some(GuestCall::Answer(dialect)) => self.model(dialect, &head, body).await,
            None => {
                let method = head.method.to_string();
                let path = path.chars().take(PATH_CHARS_MAX).collect();
                whole(refused(&GateError::GuestAddress { method, path }, 404, dialect))
            }
        }
    }

    fn list(&self, only: Option<&str>) -> Response<EndpointBody> {
        let names: Vec<&str> = self.models.names.iter().map(String::as_str).collect();
        match guest::models(&names, only) {
            Some(body) => json(body),
            None => {
                let path = only.unwrap_or_default().chars().take(PATH_CHARS_MAX);
                let path = format!("/v1/models/{}", path.collect::<String>());
                let error = GateError::GuestAddress { method: "GET".to_owned(), path };
                whole(refused(&error, 404, Dialect::Chat))
            }
        }
    }

    /// An answer of a model. The body is read when there is a place for the call.
    async fn model(self, dialect: Dialect, head: &Parts, body: Incoming) -> Response<EndpointBody> {
        let place = Arc::clone(&self.places).acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let body = match read(body).await {
            Ok(body) => body,
            Err((error, status)) => return whole(refused(&error, status, dialect)),
        };
        let request = match guest::decode_request(dialect, &body) {
            Ok(request) => request,
            Err(error) => return whole(guest::render_error(dialect, &GuestFault::from(&error))),
        };
        let headers = head.headers.iter();
        let headers =
            headers.filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let digest = Digest::of(&body);
        let delta = lock(&self.bodies).delta(&body);
        let ask = GuestAsk {
            dialect,
            key: guest::request_key(&request),
            digest,
            bytes: body.len() as u64,
            base: delta.base,
            head_bytes: delta.head_bytes,
            tail_bytes: delta.tail_bytes,
            dropped: request.dropped.clone(),
            body: delta.between,
        };
        let (said, mut hears) = mpsc::unbounded_channel();
        let call = Call {
            headers: guest::forward_headers(headers),
            request,
            body,
            digest,
            bodies: Arc::clone(&self.bodies),
            said,
            rest: Mutex::default(),
        };
        (self.ask)(ask, Arc::new(call));
        match hears.recv().await {
            Some(Said::Whole(reply)) => whole(reply),
            Some(Said::Begin(kind)) => {
                let body = Relayed { hears, _place: place };
                let response = Response::builder().header("content-type", kind);
                let response = response.header("cache-control", "no-cache");
                response.body(body.boxed_unsync()).expect("these headers are good")
            }
            // The network was closed, or what comes first is no beginning, which is a defect.
            Some(Said::Part(_)) | None => whole(refused(&GateError::GuestGone, 503, dialect)),
        }
    }
}

impl Endpoint for Door {
    fn answer(&self, request: Request<Incoming>) -> EndpointAnswer {
        Box::pin(self.clone().respond(request))
    }
}

/// Reads a body in bounded time and room; else why not, and the status that says so.
async fn read(body: Incoming) -> Result<Bytes, (GateError, u16)> {
    let wait = Duration::from_millis(GUEST_BODY_MS_MAX);
    let broken = |why: &str| GateError::GuestBody { why: why.to_owned() };
    match tokio::time::timeout(wait, Limited::new(body, REQUEST_BYTES_MAX).collect()).await {
        Err(_) => Err((broken("it takes too long"), 408)),
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => {
            Err((broken(&format!("it has more than {REQUEST_BYTES_MAX} bytes")), 413))
        }
        Ok(Err(_)) => Err((broken("it broke off"), 400)),
    }
}

fn json(body: Vec<u8>) -> Response<EndpointBody> {
    let headers = vec![("content-type", "application/json".to_owned())];
    whole(HttpReply { status: 200, headers, body })
}

fn whole(reply: HttpReply) -> Response<EndpointBody> {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    let body = Full::new(Bytes::from(reply.body)).map_err(|never| match never {});
    response.body(body.boxed_unsync()).expect("our own headers are good")
}

/// An answer as it comes. It holds the call's place.
struct Relayed {
    hears: mpsc::UnboundedReceiver<Said>,
    _place: OwnedSemaphorePermit,
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        loop {
            match self.hears.poll_recv(cx) {
                Poll::Ready(Some(Said::Part(bytes))) if bytes.is_empty() => {}
                Poll::Ready(Some(Said::Part(bytes))) => {
                    return Poll::Ready(Some(Ok(Frame::data(bytes))));
                }
                // Nothing else comes after the beginning.
                Poll::Ready(_) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
