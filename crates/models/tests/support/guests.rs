//! An endpoint for guests on loopback, from the parts that the gate uses, in front of a scripted
//! model of any dialect.

use super::{endpoint, scripted};
use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use models::guest::{self, GuestCall, GuestFault, GuestRequest, HttpReply, Renderer};
use models::{Client, Dialect, Endpoint, Piece, Secret};
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;
use types::{Digest, Item};

type Sent = Response<Full<Bytes>>;

/// A running endpoint.
pub(crate) struct Served {
    pub(crate) base_url: String,
    server: Arc<Server>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Served {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Served {
    /// The dialects of the calls that were answered.
    pub(crate) fn answered(&self) -> Vec<Dialect> {
        let seen = self.server.seen.lock().expect("whole");
        let dialect = |(_, call): &(String, Option<GuestCall>)| match call {
            Some(GuestCall::Answer(dialect)) => Some(*dialect),
            _ => None,
        };
        seen.iter().filter_map(dialect).collect()
    }

    /// Whether the model called only tools that it was offered.
    pub(crate) fn offered_all(&self) -> bool {
        !self.server.unoffered.load(Ordering::Relaxed)
    }

    /// Addresses that the endpoint has not.
    pub(crate) fn unknown(&self) -> Vec<String> {
        let seen = self.server.seen.lock().expect("whole");
        let unknown = seen.iter().filter(|(_, call)| call.is_none());
        unknown.map(|(line, _)| line.clone()).collect()
    }

    /// Everything that was asked.
    pub(crate) fn log(&self) -> Vec<String> {
        let seen = self.server.seen.lock().expect("whole");
        seen.iter().map(|(line, _)| line.clone()).collect()
    }
}

struct Server {
    client: Client,
    model: Endpoint,
    seen: Mutex<Vec<(String, Option<GuestCall>)>>,
    unoffered: AtomicBool,
}

/// Serves guests, whom a script answers through this dialect.
pub(crate) async fn serve(turns: &str, dialect: Dialect) -> Served {
    let (model_url, task) = scripted(turns).await;
    served(endpoint(&model_url, dialect), task).await
}

/// Serves guests, whom a provider of their own dialect answers: the endpoint behind this one.
pub(crate) async fn serve_native(behind: &Served, dialect: Dialect) -> Served {
    let mut model = endpoint(&format!("{}/v1", behind.base_url), dialect);
    model.provider = "behind".into();
    model.key_env = Some("KEY".into());
    served(model, tokio::spawn(async {})).await
}

async fn served(model: Endpoint, model_task: JoinHandle<()>) -> Served {
    let server = Arc::new(Server {
        client: Client::from_host(),
        model,
        seen: Mutex::new(Vec::new()),
        unoffered: AtomicBool::new(false),
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let base_url = format!("http://{}", listener.local_addr().expect("bound"));
    let shared = server.clone();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = shared.clone();
            let service = service_fn(move |request| {
                let server = server.clone();
                async move { Ok::<_, Infallible>(server.answer(request).await) }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
    Served { base_url, server, tasks: [task, model_task] }
}

fn sent(reply: HttpReply) -> Sent {
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(Bytes::from(reply.body))).expect("good headers")
}

fn json(body: Vec<u8>) -> Sent {
    let headers = vec![("content-type", "application/json".to_owned())];
    sent(HttpReply { status: 200, headers, body })
}

impl Server {
    async fn answer(&self, request: Request<Incoming>) -> Sent {
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let call = guest::paths(head.method.as_str(), &path);
        let token = [&head.headers.get("authorization"), &head.headers.get("x-api-key")]
            .into_iter()
            .any(|value| value.is_some_and(|value| value.as_bytes().ends_with(b"run-1")));
        let line = format!("{} {path} token {token}", head.method);
        self.seen.lock().expect("whole").push((line, call.clone().filter(|_| token)));
        let body = body.collect().await.expect("a whole request").to_bytes();
        match call {
            Some(GuestCall::Answer(dialect)) => self.model_answer(dialect, &head, &body).await,
            Some(GuestCall::CountTokens) => json(guest::count_tokens(&body)),
            Some(GuestCall::Models) => json(guest::models(&["default"], None).expect("a list")),
            Some(GuestCall::Model(_)) | None => {
                let fault = GuestFault::new(404, "X", "there is nothing here");
                sent(guest::render_error(Dialect::Chat, &fault))
            }
        }
    }

    async fn model_answer(&self, dialect: Dialect, head: &Parts, body: &[u8]) -> Sent {
        let request = match guest::decode_request(dialect, body) {
            Ok(request) => request,
            Err(error) => return sent(guest::render_error(dialect, &GuestFault::from(&error))),
        };
        let (model, provider) = ("turns.toml", self.model.provider.as_str());
        let native = guest::is_native(&request, self.model.dialect, provider);
        let encoded = request.encode_for(self.model.dialect, provider, model).expect("encodes");
        let headers = head
            .headers
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let headers = if native { guest::forward_headers(headers) } else { Vec::new() };
        let key = native.then(|| Secret::new(b"the-key-of-run-1".to_vec()));
        let mut renderer = Renderer::of(&request, Digest::of(body));
        let mut bytes = if native { Vec::new() } else { renderer.begin() };
        let mut on_piece = |piece: Piece<'_>| match piece {
            Piece::Raw(raw) if native => bytes.extend_from_slice(raw),
            Piece::Text(text) if !native => bytes.extend(renderer.text(text)),
            _ => {}
        };
        let (endpoint, encoded) = (&self.model, Bytes::from(encoded));
        let called = self
            .client
            .relay(endpoint, model, key.as_ref(), &headers, encoded, &mut on_piece)
            .await;
        match called {
            Ok(reply) => {
                self.note_calls(&request, &reply.answer.items);
                if !native {
                    bytes.extend(renderer.answer(&reply.answer));
                }
                let headers = vec![("content-type", renderer.content_type().to_owned())];
                sent(HttpReply { status: 200, headers, body: bytes })
            }
            Err(failed) => {
                let note = failed.fault.failure.to_string();
                self.seen.lock().expect("whole").push((note, None));
                sent(guest::render_error(dialect, &GuestFault::from(&failed.fault)))
            }
        }
    }

    /// Notes when the model calls what it was not offered.
    fn note_calls(&self, request: &GuestRequest, items: &[Item]) {
        let offered = |name: &String| request.tools.iter().any(|tool| tool.name == *name);
        // A native answer names tools as the guest does.
        let known = |name: &String| request.guest_tools.values().any(|tool| tool.name == *name);
        let unoffered = items.iter().any(
            |item| matches!(item, Item::ToolCall { name, .. } if !offered(name) && !known(name)),
        );
        self.unoffered.fetch_or(unoffered, Ordering::Relaxed);
    }
}
