//! The gate as a real process: the harness is nothing but `gate_main`.

use bytes::Bytes;
use gate::{Answered, Gate, ModelCall, NotPrepared, PrivacyOrder, Secret, limits};
use models::{Dialect, Endpoint};
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use types::{AsOf, AsOfField, FaultClass, Item, ToolSpec};

const HARNESS: &str = env!("CARGO_BIN_EXE_gate-harness");

const TURNS: &str = r#"
[[turn]]
text = "I look."
reasoning = "what is there?"
calls = [
  { tool = "shell", arguments = { command = "ls" } },
  { tool = "shell", arguments = { command = "pwd" } },
]
[[turn]]
tool = "shell"
arguments = { command = "cat a.txt" }
[[turn]]
text = "Done."
"#;

async fn start() -> Gate {
    Gate::start(HARNESS).await.expect("the gate starts")
}

fn user(text: &str) -> Item {
    Item::UserMessage { text: text.into() }
}

fn model_call(base_url: &str, dialect: Dialect, items: &[Item]) -> ModelCall {
    ModelCall {
        endpoint: Endpoint::script(base_url, dialect),
        model: "turns.toml".into(),
        instructions: "Be brief.".into(),
        items: items.to_vec(),
        tools: vec![ToolSpec {
            name: "shell".into(),
            description: "Runs a command.".into(),
            input_schema: json!({"type": "object"}),
        }],
        max_output_tokens: 1000,
    }
}

async fn ask(gate: &Gate, call: ModelCall, key: Option<Secret>) -> (Answered, String) {
    let prepared = gate.prepare(call, PrivacyOrder::default()).await.expect("prepared");
    let said = Arc::new(Mutex::new(String::new()));
    let heard = said.clone();
    let on_text = move |text: &str| heard.lock().expect("no panic").push_str(text);
    let answered = gate.send(prepared, key, on_text).await;
    let said = said.lock().expect("no panic").clone();
    (answered, said)
}

/// A server that answers every connection with these bytes.
async fn raw_server(reply: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0u8; 65536];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(&reply).await;
            let _ = stream.shutdown().await;
        }
    });
    format!("http://{address}/v1")
}

/// A server that takes requests and never answers; tells when one has come.
async fn silent_server() -> (String, tokio::sync::mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (came, coming) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut buffer = [0u8; 65536];
            let _ = stream.read(&mut buffer).await;
            let _ = came.send(()).await;
            open.push(stream);
        }
    });
    (format!("http://{address}/v1"), coming)
}

fn answer_items(answered: &Answered) -> Vec<Item> {
    answered.result.as_ref().expect("an answer").items.clone()
}

fn give_results(items: &mut Vec<Item>, answer: &[Item]) {
    items.extend_from_slice(answer);
    for item in answer {
        if let Item::ToolCall { call_id, .. } = item {
            items.push(Item::ToolResult {
                call_id: call_id.clone(),
                output: "a.txt".into(),
                is_error: false,
                labels: types::Labels::none(),
            });
        }
    }
}

#[tokio::test]
async fn a_run_of_a_scripted_model_with_its_dialect_changing_midway() {
    let gate = start().await;
    for order in [[Dialect::Responses, Dialect::Chat], [Dialect::Chat, Dialect::Responses]] {
        let mut items = vec![user("go")];
        for step in 0..3 {
            let base_url = gate.script_start("turns.toml", TURNS, "run").await.expect("served");
            let call = model_call(&base_url, order[step % 2], &items);
            let (answered, said) = ask(&gate, call, None).await;
            let answer = answer_items(&answered);
            assert!(!answered.raw.is_empty() && answered.http_status == 200);
            assert_eq!(said, ["I look.", "", "Done."][step]);
            give_results(&mut items, &answer);
        }
        assert_eq!(items.last(), Some(&Item::AssistantMessage { text: "Done.".into() }));
    }
}

#[tokio::test]
async fn what_is_prepared_is_what_is_sent() {
    let gate = start().await;
    let call = model_call("http://127.0.0.1:1/v1", Dialect::Chat, &[user("go")]);
    let request = models::ModelRequest {
        provider: call.endpoint.provider.clone(),
        model: call.model.clone(),
        instructions: call.instructions.clone(),
        items: call.items.clone(),
        tools: call.tools.clone(),
        max_output_tokens: call.max_output_tokens,
    };
    let bytes = models::encode(Dialect::Chat, &request).expect("encodes");
    let prepared = gate.prepare(call, PrivacyOrder::default()).await.expect("prepared");
    assert_eq!(prepared.digest, types::Digest::of(&bytes));
    assert_eq!(prepared.bytes, bytes.len() as u64);
    assert_eq!(prepared.estimate, models::estimate(bytes.len() as u64, 1000));
    let mut call = model_call("http://127.0.0.1:1/v1", Dialect::Gemini, &[]);
    call.endpoint.provider = "google".into();
    let refused = gate.prepare(call, PrivacyOrder::default()).await.expect_err("not built");
    let NotPrepared::Fault(fault) = refused else { panic!("{refused:?}") };
    assert_eq!((fault.class, fault.failure.code.as_str()), (FaultClass::Rejected, "BP-MODEL-015"));
}

#[tokio::test]
async fn the_oldest_prepared_call_makes_room() {
    let gate = start().await;
    let call = || model_call("http://127.0.0.1:1/v1", Dialect::Chat, &[user("go")]);
    let first = gate.prepare(call(), PrivacyOrder::default()).await.expect("prepared");
    let mut others = Vec::new();
    for _ in 1..limits::PREPARED_MAX {
        others.push(gate.prepare(call(), PrivacyOrder::default()).await.expect("prepared"));
    }
    let last = gate.prepare(call(), PrivacyOrder::default()).await.expect("prepared");
    let gone = gate.send(first, None, |_| {}).await.result.expect_err("gone");
    assert_eq!((gone.class, gone.failure.code.as_str()), (FaultClass::Transient, "BP-GATE-006"));
    let there = gate.send(last, None, |_| {}).await.result.expect_err("nobody listens");
    assert_eq!(there.failure.code, "BP-MODEL-009");
}

#[tokio::test]
async fn keys_reach_the_provider_and_nobody_else() {
    let key = "sk-very-secret-123";
    let body = format!("{{\"error\":{{\"message\":\"bad key {key}\"}}}}");
    let reply = format!("HTTP/1.1 401 No\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let base_url = raw_server(reply.into_bytes()).await;
    let gate = start().await;
    let mut call = model_call(&base_url, Dialect::Chat, &[user("go")]);
    call.endpoint.key_env = Some("ACME_KEY".into());
    let secret = Secret::new(key.as_bytes().to_vec());
    let (answered, _) = ask(&gate, call.clone(), Some(secret)).await;
    let shown = format!("{answered:?} {}", String::from_utf8_lossy(&answered.raw));
    assert!(!shown.contains(key) && shown.contains("[key]"), "{shown}");
    assert_eq!(answered.result.expect_err("refused").failure.code, "BP-MODEL-001");
    let (answered, _) = ask(&gate, call, None).await;
    assert_eq!(answered.result.expect_err("no key").failure.code, "BP-MODEL-002");
}

#[tokio::test]
async fn scripts_are_checked_shared_and_apart() {
    let gate = start().await;
    let failure =
        gate.script_start("t.toml", "[[turn]]\ntxet = \"a\"\n", "run").await.expect_err("refused");
    assert_eq!(failure.code, "BP-MODEL-013");
    assert!(failure.message.contains("line 2") && !failure.next.is_empty(), "{failure}");
    let text = "[[turn]]\ntext = \"a\"\nfault = { status = 503, times = 1 }\n";
    let one = gate.script_start("t.toml", text, "run 1").await.expect("served");
    let same = gate.script_start("t.toml", text, "run 1").await.expect("served");
    let other = gate.script_start("t.toml", text, "run 2").await.expect("served");
    assert_eq!(one, same);
    assert_ne!(one, other);
    for base_url in [&one, &other] {
        let call = || model_call(base_url, Dialect::Responses, &[user("go")]);
        let (answered, _) = ask(&gate, call(), None).await;
        assert_eq!(answered.result.expect_err("fires").failure.code, "BP-MODEL-004");
        ask(&gate, call(), None).await.0.result.expect("fired once");
    }
}

#[tokio::test]
async fn the_script_not_asked_for_longest_makes_room() {
    let gate = start().await;
    let text = "[[turn]]\ntext = \"a\"\n";
    let first = gate.script_start("t", text, "first").await.expect("served");
    for run in 0..limits::SCRIPTS_MAX {
        gate.script_start("t", text, &format!("run {run}")).await.expect("served");
    }
    let call = model_call(&first, Dialect::Chat, &[user("go")]);
    let fault = ask(&gate, call, None).await.0.result.expect_err("it is gone");
    assert_eq!(fault.failure.code, "BP-MODEL-009");
    let again = gate.script_start("t", text, "first").await.expect("served");
    let call = model_call(&again, Dialect::Chat, &[user("go")]);
    ask(&gate, call, None).await.0.result.expect("it is back");
}

#[tokio::test]
async fn output_of_tools_is_read_in_the_gate() {
    let gate = start().await;
    let schema = json!({"type": "object", "required": ["id"]});
    let parse =
        |text: &'static str, schema| gate.parse_json(Bytes::from_static(text.as_bytes()), schema);
    assert_eq!(parse("{\"id\": 1}", Some(schema.clone())).await, Ok(json!({"id": 1})));
    let code =
        |result: Result<serde_json::Value, types::Failure>| result.expect_err("refused").code;
    assert_eq!(code(parse("{}", Some(schema.clone())).await), "BP-GATE-008");
    assert_eq!(code(parse("{", None).await), "BP-GATE-007");
    gate.check_arguments(json!({"id": 1}), schema.clone()).await.expect("fits");
    let refused = gate.check_arguments(json!([]), schema.clone()).await.expect_err("does not fit");
    assert_eq!(refused.code, "BP-GATE-008");
    gate.compile_schema(schema).await.expect("good");
    let refused = gate.compile_schema(json!({"$ref": "http://127.0.0.1:1/x"})).await;
    assert_eq!(refused.expect_err("not fetched").code, "BP-GATE-009");
    let read =
        gate.read_output(Bytes::from_static(b"\x1b[31mred\x1b[0m\x07"), 1000).await.expect("read");
    assert_eq!((read.text.as_str(), read.truncated), ("red\u{2407}", false));
    let large = Bytes::from(vec![b'x'; limits::OUTPUT_BYTES_MAX]);
    let read = gate.read_output(large.clone(), 1000).await.expect("read");
    assert!(read.truncated && read.text.len() <= 1000);
    let too_large = Bytes::from(vec![b'x'; limits::OUTPUT_BYTES_MAX + 1]);
    let refused = gate.read_output(too_large, 1000).await.expect_err("too large");
    assert_eq!(refused.code, "BP-GATE-013");
    let old = Bytes::from_static(b"{\"at\": \"2024-12-31T23:59:59Z\"}");
    for (pointer, expected) in
        [("/at", AsOf::At(1_735_689_599_000)), ("/updated_at", AsOf::Unreadable)]
    {
        let field = AsOfField::Json(pointer.to_owned());
        let (_, as_of) = gate.parse_dated(old.clone(), None, Some(field)).await.expect("parsed");
        assert_eq!(as_of, Some(expected), "{pointer}");
    }
    let beyond_a_frame = Bytes::from(vec![b' '; limits::FRAME_BYTES_MAX]);
    let refused = gate.parse_json(beyond_a_frame, None).await.expect_err("too large");
    assert_eq!(refused.code, "BP-GATE-004");
}

fn kill(pid: u32) {
    let killed = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(killed.expect("there is kill").success());
}

#[tokio::test]
async fn when_the_gate_dies_what_is_in_flight_fails_at_once_and_the_next_use_works() {
    let gate = start().await;
    let (base_url, mut coming) = silent_server().await;
    let mut calls = Vec::new();
    for _ in 0..3 {
        let (gate, call) = (gate.clone(), model_call(&base_url, Dialect::Chat, &[user("go")]));
        calls.push(tokio::spawn(async move { ask(&gate, call, None).await.0 }));
    }
    for _ in 0..3 {
        coming.recv().await.expect("each is in flight");
    }
    let kept = gate
        .prepare(model_call(&base_url, Dialect::Chat, &[]), PrivacyOrder::default())
        .await
        .expect("prepared");
    let before = gate.pid().await.expect("lives");
    kill(before);
    for call in calls {
        let fault = call.await.expect("no panic").result.expect_err("died");
        assert_eq!(
            (fault.class, fault.failure.code.as_str()),
            (FaultClass::Transient, "BP-GATE-001")
        );
    }
    let fault = gate.send(kept, None, |_| {}).await.result.expect_err("it was in the old one");
    assert_eq!((fault.class, fault.failure.code.as_str()), (FaultClass::Transient, "BP-GATE-001"));
    gate.compile_schema(json!({})).await.expect("another gate works");
    assert_ne!(gate.pid().await.expect("lives"), before);
}

#[tokio::test]
async fn a_gate_that_keeps_dying_is_given_up() {
    const USES_MAX: usize = 100_000;
    let gate = start().await;
    let mut failures: Vec<String> = Vec::new();
    let given_up = |failures: &[String]| failures.last().is_some_and(|code| code == "BP-GATE-012");
    for _ in 0..=limits::STARTS_MAX {
        let Some(pid) = gate.pid().await else { break };
        kill(pid);
        // Uses may still meet the dying process; sooner or later one meets a new one, or none.
        for _ in 0..USES_MAX {
            if let Err(failure) = gate.compile_schema(json!({})).await {
                failures.push(failure.code);
            }
            if gate.pid().await != Some(pid) || given_up(&failures) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(failures.last().map(String::as_str), Some("BP-GATE-012"), "{failures:?}");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_cancelled() {
    let gate = start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let base_url = format!("http://{}/v1", listener.local_addr().expect("bound"));
    let call = model_call(&base_url, Dialect::Chat, &[user("go")]);
    let asking = tokio::spawn({
        let gate = gate.clone();
        async move { ask(&gate, call, None).await }
    });
    let (mut stream, _) = listener.accept().await.expect("it is sent");
    let mut buffer = vec![0u8; 65536];
    assert!(stream.read(&mut buffer).await.expect("a request") > 0);
    asking.abort();
    let end = async { while stream.read(&mut buffer).await.is_ok_and(|bytes| bytes > 0) {} };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(10), end).await;
    waited.expect("the gate closes the connection");
    gate.compile_schema(json!({})).await.expect("the gate lives");
}

#[tokio::test]
async fn more_than_the_limit_in_flight_is_refused() {
    let gate = start().await;
    let (base_url, mut coming) = silent_server().await;
    let mut calls = Vec::new();
    for _ in 0..limits::IN_FLIGHT_MAX {
        let (gate, call) = (gate.clone(), model_call(&base_url, Dialect::Chat, &[user("go")]));
        calls.push(tokio::spawn(async move { ask(&gate, call, None).await.0 }));
        coming.recv().await.expect("it is in flight");
    }
    let refused = gate.compile_schema(json!({})).await.expect_err("busy");
    assert_eq!(refused.code, "BP-GATE-005");
    calls.pop().expect("there is one").abort();
    let freed = async {
        while gate.compile_schema(json!({})).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(10), freed).await;
    waited.expect("a cancelled call frees its place");
    for call in calls {
        call.abort();
    }
}

#[tokio::test]
async fn what_is_no_gate_is_not_used() {
    let check = async |exe: &Path| {
        use types::Coded as _;
        let error = Gate::start(exe).await.expect_err("refused");
        assert_eq!(error.code(), "BP-GATE-002", "{error}");
    };
    check(Path::new("/bin/true")).await;
    check(Path::new("/no/such/program")).await;
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_says_nothing_is_given_up() {
    use types::Coded as _;
    let error = Gate::start("/usr/bin/yes").await.expect_err("it is silent");
    assert_eq!(error.code(), "BP-GATE-002");
    assert!(error.to_string().contains("not ready within 10000 ms"), "{error}");
}

#[tokio::test]
async fn the_gate_leaves_with_its_owner() {
    let gate = start().await;
    let pid = gate.pid().await.expect("lives");
    drop(gate);
    let gone = async {
        while Path::new(&format!("/proc/{pid}/exe")).read_link().is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let waited = tokio::time::timeout(std::time::Duration::from_secs(10), gone).await;
    waited.expect("no gate without an owner");
}

#[tokio::test]
async fn many_ask_at_once() {
    let gate = start().await;
    let asks = (0..100).map(|number| {
        let gate = gate.clone();
        tokio::spawn(async move {
            let bytes = Bytes::from(format!("{{\"n\": {number}}}"));
            gate.parse_json(bytes, None).await
        })
    });
    for (number, asked) in asks.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(asked.await.expect("no panic"), Ok(json!({"n": number})));
    }
}

/// A program that says these words on its socket and then reads until the end.
fn fake_gate(header: &str, then: &str) -> tempfile::TempPath {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let total = u32::try_from(header.len() + 4).expect("short").to_be_bytes();
    let length = u32::try_from(header.len()).expect("short").to_be_bytes();
    let octal = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\{byte:03o}")).collect::<String>();
    let words = octal(&[&total, &length, header.as_bytes(), then.as_bytes()].concat());
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    write!(file, "#!/bin/sh\nprintf '{words}' >&0\ncat >/dev/null\n").expect("writes");
    file.flush().expect("writes");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o700)).expect("is ours");
    // What this process has open for writing, none of its threads could execute: another process
    // makes the copy.
    let copy = file.path().with_extension("copy");
    let copied = std::process::Command::new("cp").arg("-p").args([file.path(), &copy]).status();
    assert!(copied.expect("there is cp").success());
    tempfile::TempPath::try_from_path(copy).expect("an absolute path")
}

#[tokio::test]
async fn a_gate_that_is_not_confined_is_not_used() {
    use types::Coded as _;
    let fake = fake_gate(
        r#"{"id":0,"event":{"ready":{"failure":{"code":"BP-GATE-011","message":"no Landlock here"}}}}"#,
        "",
    );
    let error = Gate::start(fake.to_path_buf()).await.expect_err("refused");
    assert_eq!(error.code(), "BP-GATE-011");
    assert!(error.to_string().contains("no Landlock here"), "{error}");
}

#[tokio::test]
async fn a_gate_that_talks_nonsense_is_dropped() {
    let fake = fake_gate(r#"{"id":0,"event":{"ready":{}}}"#, "nonsense");
    let gate = Gate::start(fake.to_path_buf()).await.expect("it said it was ready");
    let failure = gate.compile_schema(json!({})).await.expect_err("no answer");
    assert_eq!(failure.code, "BP-GATE-001");
}

/// The process that works: the gate goes on as a child of the one that was started.
async fn working_pid(gate: &Gate) -> String {
    let pid = gate.pid().await.expect("lives");
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.expect("the process is there");
    children.split_whitespace().next().expect("it has a child").to_owned()
}

#[tokio::test]
async fn the_gate_that_works_is_confined() {
    let gate = start().await;
    let pid = working_pid(&gate).await;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("lives");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("is there").trim().to_owned()
    };
    assert_eq!(field("Seccomp:"), "2", "a filter of system calls");
    assert_eq!(field("NoNewPrivs:"), "1");
    for set in ["CapEff:", "CapPrm:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
}

#[tokio::test]
async fn confined_it_can_still_resolve_and_speak_tls() {
    let gate = start().await;
    let base_url = raw_server(b"this is no TLS".to_vec()).await;
    let port = base_url.trim_end_matches("/v1").rsplit(':').next().expect("a port").to_owned();
    let tls = model_call(&format!("https://localhost:{port}/v1"), Dialect::Chat, &[user("go")]);
    let fault = ask(&gate, tls, None).await.0.result.expect_err("no TLS");
    assert_eq!(fault.failure.code, "BP-MODEL-009");
    let mut unknown = model_call("http://no-such-host.invalid/v1", Dialect::Chat, &[user("go")]);
    unknown.endpoint.timeouts.connect_ms = 1000;
    unknown.endpoint.timeouts.header_ms = 1000;
    let fault = ask(&gate, unknown, None).await.0.result.expect_err("no such host");
    assert!(["BP-MODEL-007", "BP-MODEL-009"].contains(&fault.failure.code.as_str()), "{fault:?}");
    gate.compile_schema(json!({})).await.expect("it lives");
}

#[tokio::test]
async fn when_only_the_working_child_dies_the_next_use_works_too() {
    let gate = start().await;
    let pid = working_pid(&gate).await;
    kill(pid.parse().expect("a number"));
    let first = gate.compile_schema(json!({})).await;
    if let Err(failure) = first {
        assert_eq!(failure.code, "BP-GATE-001");
        gate.compile_schema(json!({})).await.expect("another gate works");
    }
}
