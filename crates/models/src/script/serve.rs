//! The scripted model's HTTP server: loopback only, every size and wait limited.

use super::history::{self, Refusal};
use super::pick::pick;
use super::render::{Reply, input_tokens};
use super::{Fault, FaultKind, Script};
use crate::error::ModelError;
use crate::fault::SCRIPT_EXHAUSTED;
use crate::limits::{FAULT_RAW_BYTES_MAX, REPLY_BYTES_MAX, REQUEST_BYTES_MAX};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use types::Digest;
use types::manifest::Dialect;

/// Connections served at once.
const CONNECTIONS_MAX: usize = 128;
/// How long a client may take to send its request's header.
const HEADER_WAIT: Duration = Duration::from_secs(30);
/// How long a stalled reply is kept open.
const STALL_WAIT: Duration = Duration::from_secs(600);
/// Bytes of one piece of a body.
const PIECE_BYTES: usize = 4096;
/// An endless reply does end, beyond what any client of ours takes.
const ENDLESS_BYTES_MAX: usize = 2 * REPLY_BYTES_MAX;
/// Pause before accepting again when the host has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves a script until it is dropped.
///
/// # Errors
/// [`ModelError::NotLoopback`] when the listener is reachable from other machines.
pub async fn serve(script: Arc<Script>, listener: TcpListener) -> Result<(), ModelError> {
    let address = listener.local_addr();
    if !address.as_ref().is_ok_and(|address| address.ip().is_loopback()) {
        return Err(ModelError::NotLoopback {
            address: address.map_or_else(|error| error.to_string(), |address| address.to_string()),
        });
    }
    let server = Arc::new(Server { fired: Mutex::new(vec![0; script.turns.len()]), script });
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Connections end with this future: the set aborts them when it is dropped.
    let mut connections = JoinSet::new();
    loop {
        let permit = permits.clone().acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(server.clone(), stream, permit));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, permit: OwnedSemaphorePermit) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(server.answer(request).await) }
    });
    // An error here is the client's leaving, or a fault that was asked for.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    drop(permit);
}

struct Server {
    script: Arc<Script>,
    /// How often each turn's fault has fired.
    fired: Mutex<Vec<u32>>,
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Response<Pieces> {
        let path = request.uri().path().trim_end_matches('/').to_owned();
        let dialect = match (request.method(), path.as_str()) {
            (&Method::GET, "/v1/models") => return json_reply(StatusCode::OK, &self.models()),
            (&Method::POST, "/v1/chat/completions") => Dialect::Chat,
            (&Method::POST, "/v1/responses") => Dialect::Responses,
            (&Method::POST, "/v1/messages" | "/v1/messages/count_tokens") => Dialect::Messages,
            _ => {
                let why = format!("unknown address: {} {path}", request.method());
                return error(Dialect::Chat, StatusCode::NOT_FOUND, "not_found", &why);
            }
        };
        let body = Limited::new(request.into_body(), REQUEST_BYTES_MAX).collect().await;
        let Ok(body) = body else {
            let why = "the body cannot be read or is too large";
            return error(dialect, StatusCode::PAYLOAD_TOO_LARGE, "too_large", why);
        };
        let body = body.to_bytes();
        if path.ends_with("/count_tokens") {
            return json_reply(StatusCode::OK, &json!({"input_tokens": input_tokens(&body)}));
        }
        self.reply(dialect, &body)
    }

    fn models(&self) -> Value {
        json!({
            "object": "list",
            "data": [{"id": self.script.name, "object": "model", "created": 0, "owned_by": "bedplate"}],
        })
    }

    fn reply(&self, dialect: Dialect, body: &[u8]) -> Response<Pieces> {
        let asked = match history::read(dialect, body) {
            Ok(asked) => asked,
            Err(Refusal(why)) => {
                return error(dialect, StatusCode::BAD_REQUEST, "invalid_request", &why);
            }
        };
        let Some(at) = pick(&self.script, &asked.steps) else {
            let why = format!(
                "{} has {} turns and none is left",
                self.script.name,
                self.script.turns.len()
            );
            return error(dialect, StatusCode::BAD_REQUEST, SCRIPT_EXHAUSTED, &why);
        };
        let turn = &self.script.turns[at];
        let reply = Reply {
            dialect,
            turn,
            model: &asked.model,
            request: Digest::of(body),
            request_bytes: body.len() as u64,
        };
        if let Some(fault) = turn.fault.as_ref().filter(|fault| self.fires(at, fault)) {
            return faulty(&reply, fault);
        }
        if asked.stream {
            stream_reply(Pieces::whole(reply.stream()))
        } else {
            json_reply(StatusCode::OK, &reply.whole())
        }
    }

    /// Whether a turn's fault happens now; counts it.
    fn fires(&self, at: usize, fault: &Fault) -> bool {
        let mut fired = self.fired.lock().expect("nothing panics while it holds the counters");
        let fires = fault.times.is_none_or(|times| fired[at] < times);
        fired[at] = fired[at].saturating_add(u32::from(fires));
        fires
    }
}

/// The reply of a turn whose fault fires. Faults of a body are shown in a stream.
fn faulty(reply: &Reply<'_>, fault: &Fault) -> Response<Pieces> {
    match fault.kind {
        FaultKind::Status { status, retry_after } => {
            let status = StatusCode::from_u16(status).expect("the script was checked");
            let why = "the script asks for this error";
            let mut response = error(reply.dialect, status, "scripted_fault", why);
            if let Some(seconds) = retry_after {
                response.headers_mut().insert("retry-after", seconds.into());
            }
            response
        }
        FaultKind::Stall => {
            let mut pieces = Pieces::whole(reply.endless().0);
            pieces.end = End::Stall(Box::pin(tokio::time::sleep(STALL_WAIT)));
            stream_reply(pieces)
        }
        FaultKind::CutAt(bytes) => {
            let mut body = reply.stream();
            let cut = usize::try_from(bytes).unwrap_or(usize::MAX);
            let ends_early = cut < body.len();
            body.truncate(cut);
            let mut pieces = Pieces::whole(body);
            if ends_early {
                pieces.end = End::Cut { flushed: false };
            }
            stream_reply(pieces)
        }
        FaultKind::Garbage => {
            let garbage = b"\x00\xff{]not an event\n\ndata: {\"choices\": [\n\ndata: ]\xfe\n\n";
            stream_reply(Pieces::whole(garbage.to_vec()))
        }
        FaultKind::Endless => {
            let (first, again) = reply.endless();
            let mut pieces = Pieces::whole(first);
            pieces.end = End::Again { piece: again.into(), bytes_left: ENDLESS_BYTES_MAX };
            stream_reply(pieces)
        }
    }
}

fn stream_reply(pieces: Pieces) -> Response<Pieces> {
    let mut response = Response::new(pieces);
    let kind = http::HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn json_reply(status: StatusCode, value: &Value) -> Response<Pieces> {
    let mut response = Response::new(Pieces::whole(value.to_string().into_bytes()));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// An error as the providers shape it.
fn error(dialect: Dialect, status: StatusCode, code: &str, message: &str) -> Response<Pieces> {
    debug_assert!(message.len() < FAULT_RAW_BYTES_MAX);
    let kind = match (dialect, status.as_u16()) {
        (Dialect::Messages, 529) => "overloaded_error",
        (Dialect::Messages, 500..) => "api_error",
        (_, 500..) => "server_error",
        _ => "invalid_request_error",
    };
    let mut body =
        json!({"error": {"message": message, "type": kind, "param": null, "code": code}});
    if dialect == Dialect::Messages {
        body["type"] = "error".into();
    }
    json_reply(status, &body)
}

/// A body in pieces, and how it ends.
struct Pieces {
    pieces: VecDeque<Bytes>,
    end: End,
}

enum End {
    /// As it should.
    Good,
    /// The connection breaks, once what came before is on its way: that is flushed while the body
    /// says that it has nothing yet.
    Cut { flushed: bool },
    /// Nothing comes any more.
    Stall(Pin<Box<Sleep>>),
    /// The same piece, again and again.
    Again { piece: Bytes, bytes_left: usize },
}

impl Pieces {
    fn whole(body: Vec<u8>) -> Self {
        let body = Bytes::from(body);
        let starts = (0..body.len()).step_by(PIECE_BYTES);
        let pieces = starts.map(|at| body.slice(at..body.len().min(at + PIECE_BYTES))).collect();
        Self { pieces, end: End::Good }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(piece) = self.pieces.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match &mut self.end {
            End::Good => Poll::Ready(None),
            End::Cut { flushed: true } => {
                Poll::Ready(Some(Err(io::Error::other("the script cuts here"))))
            }
            End::Cut { flushed } => {
                *flushed = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            End::Stall(sleep) => sleep.as_mut().poll(context).map(|()| None),
            End::Again { piece, bytes_left } => {
                if *bytes_left < piece.len() {
                    return Poll::Ready(None);
                }
                *bytes_left -= piece.len();
                Poll::Ready(Some(Ok(Frame::data(piece.clone()))))
            }
        }
    }
}
