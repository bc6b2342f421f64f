//! The door over a connection in memory, with an owner that notes what it is asked.

use super::*;
use crate::limits::{GUEST_BODY_MS_MAX, GUEST_CALLS_MAX};
use crate::message::GuestModels;
use boundary::Endpoint as _;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use models::limits::REQUEST_BYTES_MAX;
use models::{Finish, Piece};
use serde_json::{Value, json};
use std::convert::Infallible;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use types::{Item, Usage};

/// A door, its calls, and how many questions came.
struct World {
    door: Door,
    calls: Arc<Calls>,
    asked: Arc<Mutex<Vec<crate::message::GuestAsk>>>,
}

impl World {
    fn new() -> Self {
        let (calls, asked) = (Arc::<Calls>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (entered, noted) = (Arc::clone(&calls), Arc::clone(&asked));
        let ask = move |ask, call| {
            let mut noted = lock(&noted);
            noted.push(ask);
            entered.enter(noted.len() as u64, call);
        };
        let models = GuestModels { token: "run-key".to_owned(), names: vec!["m".to_owned()] };
        Self { door: Door::new(models, Arc::new(ask)), calls, asked }
    }

    fn asked(&self) -> usize {
        lock(&self.asked).len()
    }

    /// A connection of a guest.
    fn connect(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let door = self.door.clone();
        let service = service_fn(move |request| {
            let answer = door.answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(theirs), service),
        );
        ours
    }

    /// Sends a request and reads all that comes.
    async fn call(&self, head: &str, body: &[u8]) -> String {
        let mut stream = self.connect();
        send(&mut stream, head, body).await;
        read(stream).await
    }
}

async fn send(stream: &mut DuplexStream, head: &str, body: &[u8]) {
    let length = body.len();
    let head = format!(
        "{head} HTTP/1.1\r\nhost: models.bedplate.internal\r\nauthorization: Bearer run-key\r\n\
         connection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("it is read");
    // Who refuses early does not read the rest.
    let _ = stream.write_all(body).await;
}

async fn read(mut stream: DuplexStream) -> String {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

const CHAT: &str = "POST /v1/chat/completions";

fn question(text: &str) -> Vec<u8> {
    json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string().into_bytes()
}

fn answer(text: &str) -> Answer {
    Answer {
        items: vec![Item::AssistantMessage { text: text.to_owned() }],
        usage: Usage::default(),
        usage_estimated: false,
        finish: Finish::Stop,
    }
}

fn scripted() -> Endpoint {
    Endpoint::script("http://127.0.0.1:1/v1", models::Dialect::Responses)
}

/// Lets everything that can go on go on.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_is_no_call_of_a_model_is_answered_here() {
    let world = World::new();
    let check = |said: &str, status: &str, code: &str| {
        assert!(said.starts_with(&format!("HTTP/1.1 {status}")) && said.contains(code), "{said}");
    };
    check(&world.call("POST /v1/embeddings", b"{}").await, "404", "BP-GATE-016");
    check(&world.call("GET /v1/models", b"").await, "200", "\"id\":\"m\"");
    check(&world.call("GET /v1/models/other", b"").await, "404", "BP-GATE-016");
    check(&world.call("POST /v1/messages/count_tokens", b"123").await, "200", "input_tokens");
    check(&world.call(CHAT, b"no JSON").await, "400", "BP-MODEL-020");
    let mut stream = world.connect();
    let head =
        format!("{CHAT} HTTP/1.1\r\nhost: x\r\nx-api-key: other\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it is read");
    check(&read(stream).await, "401", "BP-GATE-015");
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn the_end_of_an_answer_waits_until_it_is_recorded() {
    let world = World::new();
    let mut stream = world.connect();
    let body = json!({"model": "m", "stream": true,
                      "messages": [{"role": "user", "content": "u"}]});
    send(&mut stream, CHAT, body.to_string().as_bytes()).await;
    settle().await;
    assert_eq!(world.asked(), 1);
    let encoded = world.calls.prepare(1, &scripted(), "turns.toml").expect("encodes");
    let mut relay = encoded.relay;
    relay.piece(Piece::Text("Hel"));
    relay.answered(&answer("Hello"));
    settle().await;
    let mut seen = vec![0; 64 << 10];
    let count = stream.read(&mut seen).await.expect("it began");
    let begun = String::from_utf8_lossy(&seen[..count]).into_owned();
    assert!(begun.contains("Hel") && !begun.contains("[DONE]"), "{begun}");
    world.calls.finish(1);
    let rest = read(stream).await;
    assert!(rest.contains("\"lo\"") && rest.contains("[DONE]"), "{rest}");
    assert_eq!(
        world.calls.prepare(1, &scripted(), "m").err().map(|f| f.failure.code),
        Some("BP-GATE-018".to_owned())
    );
}

#[tokio::test]
async fn another_model_may_answer_while_nothing_was_said() {
    let world = World::new();
    let mut stream = world.connect();
    send(&mut stream, CHAT, &question("u")).await;
    settle().await;
    let fault = GateError::Died.fault();
    for _ in 0..2 {
        let encoded = world.calls.prepare(1, &scripted(), "m").expect("encodes");
        encoded.relay.failed(&fault);
    }
    world.calls.refuse(1, 503, &fault.failure, None);
    let said = read(stream).await;
    assert!(said.starts_with("HTTP/1.1 503") && said.contains("BP-GATE-001"), "{said}");
}

#[tokio::test]
async fn an_answer_of_the_log_is_given_as_the_guest_wants_it_now() {
    let world = World::new();
    let raw = b"data: {\"native\":1}\n\n".to_vec();
    for (at, (native, stream, wanted)) in [
        (true, true, "{\"native\":1}"),
        (true, false, "\"content\":\"Hello\""),
        (false, true, "Hello"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut connection = world.connect();
        let mut body: Value = serde_json::from_slice(&question("u")).expect("JSON");
        body["stream"] = stream.into();
        let body = body.to_string();
        send(&mut connection, CHAT, body.as_bytes()).await;
        settle().await;
        world.calls.serve(at as u64 + 1, &answer("Hello"), native, raw.clone());
        let said = read(connection).await;
        assert!(said.contains(wanted), "{native} {stream}: {said}");
    }
}

#[tokio::test]
async fn as_many_calls_go_at_once_as_may_and_more_wait() {
    let world = World::new();
    let mut connections = Vec::new();
    for _ in 0..=GUEST_CALLS_MAX {
        let mut stream = world.connect();
        send(&mut stream, CHAT, &question("u")).await;
        connections.push(stream);
    }
    settle().await;
    assert_eq!(world.asked(), GUEST_CALLS_MAX);
    world.calls.refuse(1, 403, &GateError::Died.failure(), None);
    settle().await;
    assert_eq!(world.asked(), GUEST_CALLS_MAX + 1);
}

#[tokio::test]
async fn a_body_has_a_limit_at_its_edge() {
    let world = World::new();
    let padded = |bytes: usize| {
        let mut body = question("u");
        body.resize(bytes, b' ');
        body
    };
    let said = world.call(CHAT, &padded(REQUEST_BYTES_MAX + 1)).await;
    assert!(said.starts_with("HTTP/1.1 413") && said.contains("BP-GATE-017"), "{said}");
    assert_eq!(world.asked(), 0);
    let mut stream = world.connect();
    send(&mut stream, CHAT, &padded(REQUEST_BYTES_MAX)).await;
    settle().await;
    assert_eq!(world.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let world = World::new();
    let mut stream = world.connect();
    let head = format!(
        "{CHAT} HTTP/1.1\r\nhost: x\r\nx-api-key: run-key\r\ncontent-length: 9\r\n\r\nhalf"
    );
    stream.write_all(head.as_bytes()).await.expect("it is read");
    settle().await;
    tokio::time::advance(std::time::Duration::from_millis(GUEST_BODY_MS_MAX - 1)).await;
    settle().await;
    let mut seen = [0; 4096];
    let now = tokio::time::timeout(std::time::Duration::ZERO, stream.read(&mut seen)).await;
    assert!(now.is_err(), "it is waited for");
    tokio::time::advance(std::time::Duration::from_millis(2)).await;
    let count = stream.read(&mut seen).await.expect("an answer");
    let said = String::from_utf8_lossy(&seen[..count]).into_owned();
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
}

#[test]
fn a_guest_s_error_has_the_shape_of_its_dialect() {
    let reply = refused(&GateError::GuestKey, 401, models::Dialect::Messages);
    let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
    assert_eq!((reply.status, &body["type"]), (401, &json!("error")));
}
