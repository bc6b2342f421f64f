//! Calls over real HTTP: against the strict scripted server, and against servers that misbehave.

mod support;

use models::{Dialect, Finish, Secret, Timeouts};
use std::time::Duration;
use support::{answered, call, endpoint, raw_server, scripted, user};
use types::{FaultClass, Item};

const DIALECTS: [Dialect; 3] = [Dialect::Responses, Dialect::Chat, Dialect::Messages];

const TURNS: &str = r#"
[[turn]]
text = "I look."
reasoning = "what is there?"
calls = [
  { tool = "shell", arguments = { command = "ls" } },
  { tool = "shell", arguments = { command = "pwd ü" } },
]
[[turn]]
tool = "shell"
arguments = { command = "cat a.txt" }
[[turn]]
text = "Done: it says hello."
[[turn]]
text = "It was denied."
when = { contains = "denied" }
"#;

fn names(items: &[Item]) -> Vec<&'static str> {
    let name = |item: &Item| match item {
        Item::UserMessage { .. } => "user",
        Item::AssistantMessage { .. } => "say",
        Item::Reasoning { .. } => "think",
        Item::ToolCall { .. } => "call",
        Item::ToolResult { .. } => "result",
    };
    items.iter().map(name).collect()
}

#[tokio::test]
async fn a_run_goes_through_in_any_dialect() {
    for dialect in DIALECTS {
        let (base_url, _server) = scripted(TURNS).await;
        let endpoint = endpoint(&base_url, dialect);
        let mut items = vec![user("go")];
        let first = call(&endpoint, None, &items).await.expect("answers");
        assert_eq!(names(&first.answer.items), ["think", "say", "call", "call"]);
        assert_eq!(first.answer.finish, Finish::ToolCalls);
        assert!(!first.answer.usage_estimated && first.answer.usage.output_tokens > 0);
        assert_eq!(first.http_status, 200);
        answered(&mut items, &first.answer.items, "a.txt");
        let second = call(&endpoint, None, &items).await.expect("answers");
        assert_eq!(names(&second.answer.items), ["call"]);
        answered(&mut items, &second.answer.items, "hello");
        let third = call(&endpoint, None, &items).await.expect("answers");
        let text = "Done: it says hello.".to_owned();
        assert_eq!(third.answer.items, [Item::AssistantMessage { text }]);
        answered(&mut items, &third.answer.items, "");
        items.push(user("more"));
        let fault = call(&endpoint, None, &items).await.expect_err("exhausted").fault;
        assert_eq!(
            (fault.class, fault.failure.code.as_str(), fault.http_status),
            (FaultClass::Rejected, "BP-MODEL-012", 400)
        );
    }
}

#[tokio::test]
async fn the_dialect_may_change_in_the_middle_of_a_tool_call() {
    let orders = DIALECTS.iter().flat_map(|first| DIALECTS.map(|second| [*first, second]));
    for order in orders {
        let (base_url, _server) = scripted(TURNS).await;
        let mut items = vec![user("go")];
        for step in 0..3 {
            let endpoint = endpoint(&base_url, order[step % 2]);
            let reply = call(&endpoint, None, &items).await.expect("any server takes it");
            answered(&mut items, &reply.answer.items, "a.txt");
        }
        assert_eq!(
            names(&items),
            ["user", "think", "say", "call", "call", "result", "result", "call", "result", "say"]
        );
    }
}

#[tokio::test]
async fn ids_of_other_providers_and_opaque_parts_are_never_rejected() {
    for dialect in DIALECTS {
        let (base_url, _server) = scripted(TURNS).await;
        let endpoint = endpoint(&base_url, dialect);
        let odd = [&"x".repeat(200), "functions.shell:0|é"];
        let mut answer = vec![Item::Reasoning {
            summary: "theirs".into(),
            opaque: Some(
                serde_json::json!({"type": "reasoning", "encrypted_content": "of another"}),
            ),
            origin: types::Origin { provider: "openai".into(), model: "gpt-5".into() },
        }];
        answer.extend(odd.map(|id| Item::ToolCall {
            call_id: id.to_owned(),
            name: "shell".into(),
            arguments: serde_json::Value::String("{broken".into()),
        }));
        let mut items = vec![user("go")];
        answered(&mut items, &answer, "r");
        items.swap(4, 5);
        let reply = call(&endpoint, None, &items).await.expect("accepted");
        assert_eq!(names(&reply.answer.items), ["call"]);
        items.truncate(4);
        items.push(user("the run went on without the results"));
        call(&endpoint, None, &items).await.expect("accepted");
    }
}

#[tokio::test]
async fn when_picks_a_turn_by_what_came_last() {
    for dialect in DIALECTS {
        let (base_url, _server) = scripted(TURNS).await;
        let endpoint = endpoint(&base_url, dialect);
        let mut items = vec![user("go")];
        let first = call(&endpoint, None, &items).await.expect("answers");
        answered(&mut items, &first.answer.items, "denied: no rule");
        let second = call(&endpoint, None, &items).await.expect("answers");
        assert_eq!(second.answer.items, [Item::AssistantMessage { text: "It was denied.".into() }]);
        answered(&mut items, &second.answer.items, "");
        items.push(user("try again"));
        let third = call(&endpoint, None, &items).await.expect("answers");
        assert_eq!(names(&third.answer.items), ["call"], "the turn in order was not used up");
    }
}

/// The class, code and wait of a script's only turn.
async fn check_fault(fault: &str, dialect: Dialect, expected: (FaultClass, &str, Option<u64>)) {
    let text = format!("[[turn]]\ntext = \"{}\"\nfault = {fault}\n", "words ".repeat(50));
    let (base_url, _server) = scripted(&text).await;
    let mut endpoint = endpoint(&base_url, dialect);
    endpoint.timeouts = Timeouts { idle_ms: 300, ..Timeouts::SCRIPT };
    let failed = call(&endpoint, None, &[user("go")]).await.expect_err(fault);
    let seen =
        (failed.fault.class, failed.fault.failure.code.as_str(), failed.fault.retry_after_ms);
    assert_eq!(seen, expected, "{fault} {dialect:?}: {:?}", failed.fault);
    assert!(failed.raw.len() <= models::limits::FAULT_RAW_BYTES_MAX);
}

#[tokio::test]
async fn every_fault_has_its_class_and_code() {
    use FaultClass::{Auth, Gone, Rejected, Transient};
    for dialect in DIALECTS {
        check_fault(
            "{ status = 429, retry_after = 1 }",
            dialect,
            (Transient, "BP-MODEL-003", Some(1000)),
        )
        .await;
        check_fault("{ status = 529 }", dialect, (Transient, "BP-MODEL-004", None)).await;
        check_fault("{ status = 500 }", dialect, (Transient, "BP-MODEL-004", None)).await;
        check_fault("{ status = 401 }", dialect, (Auth, "BP-MODEL-001", None)).await;
        check_fault("{ status = 404 }", dialect, (Gone, "BP-MODEL-011", None)).await;
        check_fault("{ status = 422 }", dialect, (Rejected, "BP-MODEL-010", None)).await;
        check_fault("{ stall = true }", dialect, (Transient, "BP-MODEL-007", None)).await;
        check_fault("{ cut_at = 120 }", dialect, (Transient, "BP-MODEL-006", None)).await;
        check_fault("{ cut_at = 0 }", dialect, (Transient, "BP-MODEL-006", None)).await;
        check_fault("{ garbage = true }", dialect, (Transient, "BP-MODEL-005", None)).await;
        check_fault("{ endless = true }", dialect, (Transient, "BP-MODEL-008", None)).await;
    }
}

#[tokio::test]
async fn a_fault_fires_as_often_as_it_says() {
    let text = "[[turn]]\ntext = \"at last\"\nfault = { status = 503, times = 2 }\n";
    let (base_url, _server) = scripted(text).await;
    let endpoint = endpoint(&base_url, Dialect::Chat);
    for _ in 0..2 {
        call(&endpoint, None, &[user("go")]).await.expect_err("fires");
    }
    call(&endpoint, None, &[user("go")]).await.expect("answers");
}

#[tokio::test]
async fn the_whole_call_ends_after_its_total_time() {
    let reply = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n".to_vec();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut stream, _) = listener.accept().await.expect("a client");
        support::read_request(&mut stream).await;
        stream.write_all(&reply).await.expect("takes it");
        let mut beat = tokio::time::interval(Duration::from_millis(20));
        while stream.write_all(b": still here\n\n").await.is_ok() {
            beat.tick().await;
        }
    });
    let mut endpoint = endpoint(&format!("http://{address}/v1"), Dialect::Chat);
    endpoint.timeouts.total_ms = 300;
    let failed = call(&endpoint, None, &[user("go")]).await.expect_err("too long");
    assert_eq!(failed.fault.failure.code, "BP-MODEL-008");
    assert_eq!(failed.fault.class, FaultClass::Transient);
    server.abort();
}

fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

#[tokio::test]
async fn a_server_that_sends_the_key_back_gives_it_to_nobody() {
    let key = Secret::new(b"sk-very-secret-123".to_vec());
    let said = r#"{"choices":[{"index":0,"message":{"content":"key sk-very-secret-123"},"finish_reason":"stop"}]}"#;
    let replies = [
        http("401 Unauthorized", "", r#"{"error":{"message":"bad key sk-very-secret-123"}}"#),
        http("500 Oops", "", "sk-very-secret-123"),
        http("200 OK", "", said),
        http("200 OK", "", "data: sk-very-secret-123\n\n"),
    ];
    for reply in replies {
        let (base_url, server) = raw_server(reply).await;
        let result = call(&endpoint(&base_url, Dialect::Chat), Some(&key), &[user("go")]).await;
        let (shown, raw) = match &result {
            Ok(reply) => (format!("{:?}", reply.answer), &reply.raw),
            Err(failed) => (format!("{:?}", failed.fault), &failed.raw),
        };
        assert!(!shown.contains("sk-very-secret"), "{shown}");
        assert!(!String::from_utf8_lossy(raw).contains("sk-very-secret"));
        server.abort();
    }
}

#[tokio::test]
async fn keys_are_sent_as_a_bearer_and_refused_when_they_cannot_be() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        String::from_utf8(support::read_request(&mut stream).await).expect("text")
    });
    let mut endpoint = endpoint(&format!("http://{address}/v1"), Dialect::Chat);
    endpoint.key_env = Some("ACME_KEY".into());
    let missing = call(&endpoint, None, &[user("go")]).await.expect_err("no key");
    assert_eq!(
        (missing.fault.class, missing.fault.failure.code.as_str()),
        (FaultClass::Auth, "BP-MODEL-002")
    );
    assert!(missing.fault.failure.message.contains("ACME_KEY"));
    let broken = Secret::new(b"two\nlines-secret".to_vec());
    let broken = call(&endpoint, Some(&broken), &[user("go")]).await.expect_err("no header");
    assert_eq!(broken.fault.failure.code, "BP-MODEL-016");
    assert!(!format!("{:?}", broken.fault).contains("lines-secret"));
    let key = Secret::new(b"sk-good-key\n".to_vec());
    let _ = call(&endpoint, Some(&key), &[user("go")]).await;
    let seen = server.await.expect("one request");
    assert!(seen.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("authorization: Bearer sk-good-key\r\n"), "{seen}");
}

#[tokio::test]
async fn redirects_are_not_followed_and_nobody_is_a_fault() {
    let (elsewhere, _server) = scripted(TURNS).await;
    let redirect =
        http("307 Temporary Redirect", &format!("location: {elsewhere}/chat/completions\r\n"), "");
    let (base_url, server) = raw_server(redirect).await;
    let failed = call(&endpoint(&base_url, Dialect::Chat), None, &[user("go")])
        .await
        .expect_err("not followed");
    assert_eq!(
        (failed.fault.failure.code.as_str(), failed.fault.http_status),
        ("BP-MODEL-010", 307)
    );
    server.abort();
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = free.local_addr().expect("bound");
    drop(free);
    let nobody = endpoint(&format!("http://{address}/v1"), Dialect::Chat);
    let failed = call(&nobody, None, &[user("go")]).await.expect_err("nobody listens");
    assert_eq!(
        (failed.fault.class, failed.fault.failure.code.as_str()),
        (FaultClass::Transient, "BP-MODEL-009")
    );
    assert!(
        failed.fault.failure.message.contains(&address.to_string()),
        "{}",
        failed.fault.failure
    );
    let mut unknown = nobody.clone();
    unknown.base_url = "http://no-such-host.invalid/v1".into();
    unknown.timeouts.connect_ms = 500;
    unknown.timeouts.header_ms = 500;
    let failed = call(&unknown, None, &[user("go")]).await.expect_err("no such host");
    assert!(["BP-MODEL-007", "BP-MODEL-009"].contains(&failed.fault.failure.code.as_str()));
}

#[tokio::test]
async fn a_short_reply_cut_at_every_byte_is_an_answer_or_a_fault() {
    let event = |json: &str| format!("data: {json}\n\n");
    let body = event(r#"{"choices":[{"index":0,"delta":{"content":"hi"}}]}"#)
        + &event(
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1}}"#,
        )
        + "data: [DONE]\n\n";
    let chunked = format!(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    let closed = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{body}");
    for whole in [chunked, closed] {
        let mut answers = 0;
        for at in 0..=whole.len() {
            let (base_url, server) = raw_server(whole.as_bytes()[..at].to_vec()).await;
            match call(&endpoint(&base_url, Dialect::Chat), None, &[user("go")]).await {
                Ok(reply) => {
                    assert_eq!(reply.answer.items, [Item::AssistantMessage { text: "hi".into() }]);
                    answers += 1;
                }
                Err(failed) => {
                    assert_eq!(failed.fault.class, FaultClass::Transient, "{:?}", failed.fault);
                }
            }
            server.abort();
        }
        assert!(answers > 0 && answers < whole.len() / 2, "{answers}");
    }
}

#[tokio::test]
async fn a_script_is_served_on_loopback_only() {
    use types::Coded as _;
    let script = models::script::parse(TURNS, "t").expect("good");
    let everywhere = tokio::net::TcpListener::bind("0.0.0.0:0").await.expect("binds");
    let error =
        models::script::serve(std::sync::Arc::new(script), everywhere).await.expect_err("refused");
    assert_eq!(error.code(), "BP-MODEL-019");
}

#[tokio::test]
async fn other_clients_are_served_too() {
    let (base_url, _server) = scripted(TURNS).await;
    let address = base_url.trim_start_matches("http://").trim_end_matches("/v1").to_owned();
    let ask = |head: &'static str, body: &'static str| {
        let address = address.clone();
        async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut stream = tokio::net::TcpStream::connect(address).await.expect("listens");
            let request = format!(
                "{head} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(request.as_bytes()).await.expect("takes it");
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.expect("text");
            reply
        }
    };
    let models = ask("GET /v1/models", "").await;
    assert!(
        models.starts_with("HTTP/1.1 200") && models.contains("\"id\":\"turns.toml\""),
        "{models}"
    );
    let whole = ask(
        "POST /v1/chat/completions",
        r#"{"model":"m","messages":[{"role":"user","content":"go"}]}"#,
    )
    .await;
    assert!(
        whole.contains("\"object\":\"chat.completion\"") && whole.contains("I look."),
        "{whole}"
    );
    let whole = ask("POST /v1/responses", r#"{"model":"m","input":"go"}"#).await;
    assert!(whole.contains("\"object\":\"response\"") && whole.contains("I look."), "{whole}");
    let whole = ask(
        "POST /v1/messages?beta=true",
        r#"{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"go"}]}"#,
    )
    .await;
    assert!(whole.contains("\"type\":\"message\"") && whole.contains("I look."), "{whole}");
    let counted = ask("POST /v1/messages/count_tokens", "{\"model\":\"m\"}").await;
    assert!(counted.contains("{\"input_tokens\":4}"), "{counted}");
    let refused = ask(
        "POST /v1/chat/completions",
        r#"{"model":"m","messages":[{"role":"tool","tool_call_id":"1","content":"r"}]}"#,
    )
    .await;
    assert!(refused.starts_with("HTTP/1.1 400"), "{refused}");
    let unknown = ask("GET /", "").await;
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
}

/// Serves one reply over TLS and gives the base address and the authority's certificate.
async fn tls_server(reply: Vec<u8>) -> (String, String) {
    use tokio::io::AsyncWriteExt as _;
    use tokio_rustls::rustls;
    let name = vec!["localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(name).expect("a certificate");
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .expect("a key that fits");
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let port = listener.local_addr().expect("bound").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            support::read_request(&mut stream).await;
            let _ = stream.write_all(&reply).await;
            let _ = stream.shutdown().await;
        }
    });
    (format!("https://localhost:{port}/v1"), made.cert.pem())
}

#[tokio::test]
async fn tls_trusts_the_host_and_what_the_operator_names() {
    let said = r#"{"choices":[{"index":0,"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
    let (base_url, certificate) = tls_server(http("200 OK", "", said)).await;
    let mut endpoint = endpoint(&base_url, Dialect::Chat);
    let stranger = call(&endpoint, None, &[user("go")]).await.expect_err("not trusted").fault;
    assert_eq!(
        (stranger.class, stranger.failure.code.as_str()),
        (FaultClass::Transient, "BP-MODEL-009")
    );
    assert!(stranger.failure.message.contains("certificate"), "{}", stranger.failure);
    endpoint.trust = vec![certificate];
    call(&endpoint, None, &[user("go")]).await.expect("trusted now");
    endpoint.trust = vec!["no certificate".into()];
    let unusable = call(&endpoint, None, &[user("go")]).await.expect_err("no PEM").fault;
    assert_eq!(unusable.failure.code, "BP-MODEL-016");
}

#[tokio::test]
async fn a_reply_is_relayed_as_it_came_but_for_the_key() {
    use models::{Client, Piece};
    let said = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"sk-very-secret hi\"}}]}\n\ndata: [DONE]\n\n";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let reply = http("200 OK", "", said);
    let server = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt as _;
        let (mut stream, _) = listener.accept().await.expect("a client");
        let seen = support::read_request(&mut stream).await;
        stream.write_all(&reply).await.expect("takes it");
        String::from_utf8(seen).expect("text")
    });
    let key = Secret::new(b"sk-very-secret".to_vec());
    let headers = [
        ("anthropic-beta".to_owned(), "a-1".to_owned()),
        ("authorization".to_owned(), "Bearer other".to_owned()),
    ];
    let (mut raw, mut text) = (Vec::new(), String::new());
    let mut on_piece = |piece: Piece<'_>| match piece {
        Piece::Raw(bytes) => raw.extend_from_slice(bytes),
        Piece::Text(said) => text.push_str(said),
    };
    let endpoint = endpoint(&format!("http://{address}/v1"), Dialect::Chat);
    let body = bytes::Bytes::from_static(b"{}");
    let client = Client::from_host();
    let called = client.relay(&endpoint, "m", Some(&key), &headers, body, &mut on_piece).await;
    let reply = called.expect("answers");
    assert_eq!(String::from_utf8(raw).expect("text"), said.replace("sk-very-secret", "[key]"));
    assert_eq!(reply.answer.items, [Item::AssistantMessage { text: "[key] hi".into() }]);
    assert_eq!(text, "[key] hi");
    let seen = server.await.expect("one request");
    assert!(seen.contains("anthropic-beta: a-1\r\n"), "{seen}");
    assert!(seen.contains("authorization: Bearer sk-very-secret\r\n"), "{seen}");
    assert!(!seen.contains("other"), "{seen}");
}

#[tokio::test]
async fn the_messages_dialect_has_its_own_headers() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a client");
        String::from_utf8(support::read_request(&mut stream).await).expect("text")
    });
    let endpoint = endpoint(&format!("http://{address}/v1"), Dialect::Messages);
    let key = Secret::new(b"sk-ant-key".to_vec());
    let _ = call(&endpoint, Some(&key), &[user("go")]).await;
    let seen = server.await.expect("one request");
    assert!(seen.starts_with("POST /v1/messages HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("x-api-key: sk-ant-key\r\n"), "{seen}");
    assert!(seen.contains("anthropic-version: 2023-06-01\r\n"), "{seen}");
    assert!(!seen.contains("authorization"), "{seen}");
}
