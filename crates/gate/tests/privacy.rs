//! The privacy router in the real gate process: what a provider got of the golden corpus, what
//! came back, and what was withheld.

#![allow(clippy::unwrap_used, reason = "the corpus of another crate, whose tests may panic")]

#[path = "../../privacy/tests/it/cases.rs"]
#[allow(dead_code, reason = "the corpus of another crate, of which a part is used here")]
mod cases;
#[path = "../../privacy/tests/it/maker.rs"]
#[allow(dead_code, reason = "the corpus of another crate, of which a part is used here")]
mod maker;

use cases::Case;
use gate::{Gate, ModelCall, NotPrepared, PrivacyOrder};
use models::{Dialect, Endpoint};
use privacy::Kind;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use types::{Coded as _, Item, Treatment};

const HARNESS: &str = env!("CARGO_BIN_EXE_gate-harness");
/// Cases of one request.
const BATCH: usize = 200;
/// Between the messages of a batch in the provider's answer.
const BETWEEN: &str = "\n\u{1}\n";

type Bodies = Arc<Mutex<Vec<String>>>;

/// A provider that keeps the bodies it gets and says all user messages back, a character a piece.
async fn provider() -> (Endpoint, Bodies) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let bodies = Bodies::default();
    let notes = Arc::clone(&bodies);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            answer(stream, &notes).await;
        }
    });
    (Endpoint::script(&format!("http://{address}/v1"), Dialect::Chat), bodies)
}

async fn answer(mut stream: TcpStream, notes: &Bodies) {
    let (mut seen, mut buffer) = (Vec::new(), vec![0; 65536]);
    let body = loop {
        let text = String::from_utf8_lossy(&seen);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_ascii_lowercase();
            let length = length.split("content-length: ").nth(1).and_then(|l| l.lines().next());
            if body.len() >= length.and_then(|length| length.parse().ok()).unwrap_or(0) {
                break body.to_owned();
            }
        }
        match stream.read(&mut buffer).await {
            Ok(count @ 1..) => seen.extend_from_slice(&buffer[..count]),
            _ => return,
        }
    };
    let said = messages(&body).join(BETWEEN);
    notes.lock().expect("no panic").push(body);
    let mut out = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n"
        .to_owned();
    for c in said.chars() {
        let piece = json!({"choices": [{"index": 0, "delta": {"content": c.to_string()}}]});
        out += &format!("data: {piece}\n\n");
    }
    let end = json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]});
    out += &format!("data: {end}\n\ndata: [DONE]\n\n");
    let _ = stream.write_all(out.as_bytes()).await;
}

/// The texts of the user's messages in a request.
fn messages(body: &str) -> Vec<String> {
    let body: Value = serde_json::from_str(body).expect("a request is JSON");
    let all = body["messages"].as_array().expect("messages").iter();
    let users = all.filter(|message| message["role"] == "user");
    users.map(|message| message["content"].as_str().expect("text").to_owned()).collect()
}

fn call(endpoint: &Endpoint, texts: impl Iterator<Item = String>) -> ModelCall {
    ModelCall {
        endpoint: endpoint.clone(),
        model: "m".into(),
        instructions: "Say it back.".into(),
        items: texts.map(|text| Item::UserMessage { text }).collect(),
        tools: Vec::new(),
        max_output_tokens: 1_000,
    }
}

fn order(kept: &[u8]) -> PrivacyOrder {
    PrivacyOrder {
        treatments: Kind::ALL.iter().map(|kind| (*kind, Treatment::Pseudonym)).collect(),
        known: types::Digest::of(b"the corpus"),
        names: maker::NAMES.map(str::to_owned).to_vec(),
        canaries: maker::CANARIES.map(str::to_owned).to_vec(),
        prints: Some(cases::prints()),
        show: false,
        seed: [4; 32],
        kept: kept.to_vec().into(),
    }
}

fn has(case: &Case, kind: Kind) -> bool {
    case.expected.iter().any(|(found, ..)| *found == kind)
}

#[tokio::test]
async fn the_corpus_goes_through_the_gate_and_no_value_of_it_goes_up() {
    let gate = Gate::start(HARNESS).await.expect("the gate starts");
    let (endpoint, bodies) = provider().await;
    let (canaries, rest): (Vec<Case>, Vec<Case>) =
        cases::all().into_iter().partition(|case| has(case, Kind::Canary));
    let (secrets, plain): (Vec<Case>, Vec<Case>) =
        rest.into_iter().partition(|case| has(case, Kind::Secret));
    let mut kept = Vec::new();
    let mut back = 0;
    for batch in plain.chunks(BATCH).chain(secrets.chunks(BATCH)) {
        let call = call(&endpoint, batch.iter().map(|case| case.text.clone()));
        let prepared = gate.prepare(call, order(&kept)).await.expect("it may be sent");
        kept.extend_from_slice(&prepared.unsaved);
        let answered = gate.send(prepared, None, |_| ()).await;
        let answer = answered.result.expect("an answer");
        let Some(Item::AssistantMessage { text }) = answer.items.first() else {
            panic!("no text: {answer:?}");
        };
        for (case, said) in batch.iter().zip(text.split(BETWEEN)) {
            if !has(case, Kind::Secret) {
                assert_eq!(said, case.text, "{} does not come back", case.place);
                back += 1;
            }
        }
    }
    let bodies = bodies.lock().expect("no panic").clone();
    let sent: Vec<String> = bodies.iter().flat_map(|body| messages(body)).collect();
    for (case, sent) in plain.iter().chain(&secrets).zip(&sent) {
        for (kind, start, end) in &case.expected {
            // A finding may reach further than the corpus says, never less far.
            assert!(!sent.contains(&case.text[*start..*end]), "{kind} of {}: {sent}", case.place);
        }
    }
    for value in maker::VAULT.iter().chain(&maker::CANARIES) {
        let escaped = json!(value).to_string();
        let inside = &escaped[1..escaped.len() - 1];
        assert!(!bodies.iter().any(|body| body.contains(inside)), "{value} went up");
    }
    for case in &canaries {
        let call = call(&endpoint, std::iter::once(case.text.clone()));
        match gate.prepare(call, order(&kept)).await {
            Err(NotPrepared::Withheld { failure, findings }) => {
                assert_eq!(failure.code, "BP-PRIVACY-007", "{}", case.place);
                assert!(findings.found.contains_key(&Kind::Canary));
            }
            other => panic!("{}: {other:?}", case.place),
        }
    }
    println!(
        "{} cases: {back} came back exactly, {} with values of the vault, {} withheld",
        plain.len() + secrets.len() + canaries.len(),
        secrets.len(),
        canaries.len()
    );
    assert!(back >= 2_000 && secrets.len() >= 50 && canaries.len() >= 20);
}

#[tokio::test]
async fn another_gate_knows_the_pseudonyms_that_were_kept() {
    let (endpoint, bodies) = provider().await;
    let text = || std::iter::once("Write to ada@example.org.".to_owned());
    let mut kept = Vec::new();
    for _ in 0..2 {
        let gate = Gate::start(HARNESS).await.expect("the gate starts");
        let seed = PrivacyOrder { seed: [kept.len() as u8; 32], ..order(&kept) };
        let prepared = gate.prepare(call(&endpoint, text()), seed).await.expect("it may");
        kept.extend_from_slice(&prepared.unsaved);
        let answered = gate.send(prepared, None, |_| ()).await;
        assert_eq!(answered.restored.len(), 1);
        assert_eq!(answered.restored[0].kinds, ["email"]);
        assert!(!answered.raw.windows(3).any(|window| window == b"ada"), "kept as it came");
    }
    let bodies = bodies.lock().expect("no panic").clone();
    assert_eq!(messages(&bodies[0]), messages(&bodies[1]));
}

#[tokio::test]
async fn a_value_that_cannot_be_masked_and_a_mapping_that_is_none_stop_the_call() {
    let gate = Gate::start(HARNESS).await.expect("the gate starts");
    let (endpoint, bodies) = provider().await;
    let mut named = call(&endpoint, std::iter::once("hello".to_owned()));
    named.model = maker::VAULT[1].to_owned();
    match gate.prepare(named, order(&[])).await {
        Err(NotPrepared::Withheld { failure, findings }) => {
            assert_eq!(failure.code, "BP-PRIVACY-008");
            assert_eq!(findings.secrets.iter().collect::<Vec<_>>(), ["vault-1"]);
        }
        other => panic!("{other:?}"),
    }
    let call = call(&endpoint, std::iter::once("hello".to_owned()));
    match gate.prepare(call, order(b"no mapping")).await {
        Err(NotPrepared::Withheld { failure, .. }) => assert_eq!(failure.code, "BP-PRIVACY-005"),
        other => panic!("{other:?}"),
    }
    assert!(bodies.lock().expect("no panic").is_empty());
    let code = privacy::PrivacyError::Canary.code();
    assert_eq!(code, "BP-PRIVACY-007");
}
