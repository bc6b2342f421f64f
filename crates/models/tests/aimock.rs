//! Each dialect against a model server that others wrote, so that our encoders and decoders are
//! not only tested against our own server.
//!
//! `cargo xtask test` installs it and names its folder in `BEDPLATE_AIMOCK_DIR`. When that is set,
//! a missing server is a failure.

mod support;

use models::{Dialect, Endpoint};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use support::{answered, call, user};
use types::{FaultClass, Item};

const VARIABLE: &str = "BEDPLATE_AIMOCK_DIR";
const SERVER: &str = "node_modules/@copilotkit/aimock/dist/cli.js";
const FIXTURES: &str = r#"{"fixtures": [
  {"match": {"userMessage": "look around", "hasToolResult": false},
   "response": {"content": "I look.", "toolCalls": [
     {"name": "shell", "arguments": {"command": "ls"}},
     {"name": "read_file", "arguments": {"path": "a.txt"}}]}},
  {"match": {"userMessage": "look around", "hasToolResult": true},
   "response": {"content": "There is one file: a.txt.", "reasoning": "Short."}}
]}"#;

const DIALECTS: [Dialect; 3] = [Dialect::Responses, Dialect::Chat, Dialect::Messages];

struct Server {
    child: Child,
    base_url: String,
    _fixtures: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts the server; `None` when nobody asked for it.
fn start() -> Option<Server> {
    let folder = PathBuf::from(std::env::var_os(VARIABLE)?);
    let program = folder.join(SERVER);
    assert!(program.is_file(), "{VARIABLE} is set, but there is no {}", program.display());
    let fixtures = tempfile::tempdir().expect("a directory");
    let file = fixtures.path().join("fixtures.json");
    std::fs::write(&file, FIXTURES).expect("writes");
    let mut child = Command::new("node")
        .arg(&program)
        .args(["-p", "0", "--strict", "--validate-on-load", "-f"])
        .arg(&file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("node runs");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let address = lines.find_map(|line| {
        let line = line.expect("text");
        line.split_once("listening on ").map(|(_, address)| address.to_owned())
    });
    // The pipe stays open, or the server could not write its log.
    std::thread::spawn(move || lines.for_each(drop));
    Some(Server {
        child,
        base_url: format!("{}/v1", address.expect("it says where it listens").trim()),
        _fixtures: fixtures,
    })
}

fn endpoint(server: &Server, dialect: Dialect) -> Endpoint {
    let mut endpoint = Endpoint::script(&server.base_url, dialect);
    endpoint.provider = "aimock".into();
    endpoint
}

fn calls(items: &[Item]) -> Vec<(&str, String)> {
    let mut calls = Vec::new();
    for item in items {
        if let Item::ToolCall { name, arguments, .. } = item {
            calls.push((name.as_str(), arguments.to_string()));
        }
    }
    calls
}

#[tokio::test]
async fn a_foreign_server_takes_our_requests_and_we_read_its_streams() {
    let Some(server) = start() else { return };
    for [first, second] in DIALECTS.iter().flat_map(|a| DIALECTS.map(|b| [*a, b])) {
        let mut items = vec![user("look around")];
        let reply = call(&endpoint(&server, first), None, &items).await.expect("it answers");
        let expected = [
            ("shell", "{\"command\":\"ls\"}".to_owned()),
            ("read_file", "{\"path\":\"a.txt\"}".to_owned()),
        ];
        assert_eq!(calls(&reply.answer.items), expected);
        assert!(reply.answer.items.contains(&Item::AssistantMessage { text: "I look.".into() }));
        answered(&mut items, &reply.answer.items, "a.txt");
        let reply = call(&endpoint(&server, second), None, &items).await.expect("it answers");
        let text = "There is one file: a.txt.".to_owned();
        assert_eq!(reply.answer.items.last(), Some(&Item::AssistantMessage { text }));
        assert!(
            matches!(&reply.answer.items[0], Item::Reasoning { summary, .. } if summary == "Short."),
            "{:?}",
            reply.answer.items
        );
    }
}

#[tokio::test]
async fn a_foreign_server_s_refusal_has_its_class() {
    let Some(server) = start() else { return };
    for dialect in DIALECTS {
        let failed = call(&endpoint(&server, dialect), None, &[user("unknown")]).await;
        let fault = failed.expect_err("it has no fixture").fault;
        assert_eq!((fault.http_status, fault.class), (503, FaultClass::Transient));
        assert!(fault.failure.message.contains("no fixture matched"), "{}", fault.failure);
    }
}
