//! The API as programs use it: who is served, what is told, and streams that lose nothing.

use crate::support::{Said, World, call, say, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Child;

/// Connections that the server serves at once, on each address.
const CONNECTIONS_MAX: usize = 128;
/// Bytes of a body that it takes.
pub(crate) const BODY_BYTES_MAX: usize = 2 << 20;

/// A server of a world's home, ended with the test.
pub(crate) struct Server<'a> {
    world: &'a World,
    child: Child,
    address: String,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    body: String,
    /// The body, when it was not sent in pieces.
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        self.json()
    }

    pub(crate) fn fails(self, status: u16, code: &str) -> Value {
        let told = self.is(status);
        assert_eq!(told["error"]["code"], code, "{told}");
        assert!(told["error"]["next"].as_str().is_some_and(|next| !next.is_empty()), "{told}");
        told
    }
}

impl<'a> Server<'a> {
    pub(crate) fn start(world: &'a World) -> Self {
        let mut child = world.start(&["serve", "--json", "--listen", "127.0.0.1:0"]);
        let stdout = child.stdout.take().expect("piped");
        let mut told = serde_json::Deserializer::from_reader(stdout).into_iter::<Value>();
        let Some(Ok(told)) = told.next() else {
            panic!("{:?}", Said::of(child.wait_with_output().expect("ends")));
        };
        let url = told["url"].as_str().expect("a url");
        let address = url.strip_prefix("http://").expect("http").to_owned();
        Self { world, child, address }
    }

    fn token(&self) -> String {
        let path = self.world.home().join("serve.token");
        std::fs::read_to_string(path).expect("a token").trim().to_owned()
    }

    pub(crate) fn local(&self) -> UnixStream {
        UnixStream::connect(self.world.home().join("serve.sock")).expect("it listens")
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        ask(self.local(), "GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        ask(self.local(), "POST", path, &[], body.to_string().as_bytes())
    }

    /// Bytes as they are.
    pub(crate) fn send(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        ask(self.local(), method, path, &[], body)
    }

    fn tcp(&self) -> TcpStream {
        TcpStream::connect(&self.address).expect("it listens")
    }

    /// Over TCP, with exactly these headers.
    fn over_tcp(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.tcp(), "GET", path, headers, b"")
    }

    pub(crate) fn run(&self) -> String {
        let agent = self.world.project();
        let made = self.post("/v1/runs", &json!({ "agent": agent })).is(201);
        made["run"].as_str().expect("a run").to_owned()
    }

    pub(crate) fn status(&self, run: &str) -> String {
        let run = self.get(&format!("/v1/runs/{run}")).is(200);
        run["status"].as_str().expect("a status").to_owned()
    }

    pub(crate) fn until(&self, run: &str, status: &str) {
        until(status, || self.status(run) == status);
    }
}

impl Drop for Server<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn write_request(
    stream: &mut impl Write,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &[u8],
) {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in [("Connection", "close"), ("Host", "localhost")] {
        if !headers.iter().any(|(given, _)| *given == name) {
            head += &format!("{name}: {value}\r\n");
        }
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    // A server that has refused already may read no more.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

pub(crate) fn ask(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    write_request(&mut stream, (method, path), headers, body);
    let mut all = Vec::new();
    // What came before a reset counts.
    let _ = stream.read_to_end(&mut all);
    let text = String::from_utf8_lossy(&all).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        whole_of(body)
    } else {
        body.to_owned()
    };
    let begin = all.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
    Answer { status, head: head.to_lowercase(), body, bytes: all.split_off(begin) }
}

fn whole_of(chunked: &str) -> String {
    let (mut rest, mut whole) = (chunked, String::new());
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        whole += &after[..length];
        rest = &after[length + 2..];
        if length == 0 {
            break;
        }
    }
    whole
}

/// The numbers of a stream's events, and what its end says.
fn numbers(stream: &str) -> (Vec<u64>, Option<Value>) {
    let mut seen = Vec::new();
    for event in stream.split("\n\n") {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        if field("event: ") == Some("end") {
            let data = field("data: ").expect("data");
            return (seen, serde_json::from_str(data).ok());
        }
        let Some(id) = field("id: ") else { continue };
        let record: Value = serde_json::from_str(field("data: ").expect("data")).expect("JSON");
        let id: u64 = id.parse().expect("a number");
        assert_eq!(record["seq"], id);
        seen.push(id);
    }
    (seen, None)
}

/// An agent that opens a ticket, which is asked about.
fn asking() -> World {
    let world = World::new();
    let tool = "[permissions]\npreset = \"observe\"\nask = [\"ticket\"]\n[artifacts]\npaths = [\"*.md\"]\n\
        [[tool]]\nname = \"ticket\"\ndescription = \"x\"\ncommand = [\"./ticket\"]\neffect = \"irreversible\"\n";
    let turns = [
        call("Note.", "write_file", "path = \"note.md\"\ncontent = \"hello\""),
        call("Now.", "ticket", ""),
        say("Opened."),
    ];
    world.agent(tool, &turns.concat());
    world.program("ticket", "#!/bin/sh\necho one >> tickets\necho '{}'\n");
    world
}

#[test]
fn a_run_is_started_asked_about_approved_and_read() {
    let world = asking();
    let server = Server::start(&world);
    assert_eq!(server.get("/v1/runs").is(200), json!({ "runs": [] }));
    let run = server.run();
    server.until(&run, "waiting");
    let listed = server.get(&format!("/v1/approvals?run={run}")).is(200);
    let by_command = world.run(&["approvals", "--json"]).exits(0).json();
    assert_eq!(listed, by_command, "the API and the command tell the same");
    let id = listed["approvals"][0]["id"].as_str().expect("an id").to_owned();
    server.post(&format!("/v1/approvals/{run}-1/approve"), &json!({})).fails(409, "BP-RUN-010");
    server.post(&format!("/v1/approvals/{id}/approve"), &json!({})).is(202);
    server.until(&run, "done");
    let document = server.get(&format!("/v1/runs/{run}")).is(200);
    assert_eq!(document, world.run(&["resume", &run, "--json"]).exits(0).json());
    assert_eq!(world.read("tickets").lines().count(), 1);
    let kept = server.get(&format!("/v1/runs/{run}/artifacts")).is(200);
    assert_eq!(kept["artifacts"][0]["path"], "note.md");
    assert_eq!(server.get(&format!("/v1/runs/{run}/artifacts/note.md")).body, "hello");
    let listed = server.get("/v1/runs").is(200);
    assert_eq!(listed, world.run(&["ps", "--json"]).exits(0).json());
    let trail = server.get(&format!("/v1/runs/{run}/records?from=2&limit=3")).is(200);
    assert_eq!((trail["records"][0]["seq"].clone(), trail["next"].clone()), (json!(2), json!(5)));
}

#[test]
fn a_run_is_told_suspended_resumed_and_cancelled() {
    let world = World::new();
    let turns = [
        call("Wait.", "wait", "signal = \"go\""),
        say("Gone."),
        call("Wait.", "wait", "signal = \"again\""),
        say("Never."),
    ];
    world.agent("[permissions]\npreset = \"observe\"\nallow = [\"wait\"]\n", &turns.concat());
    let server = Server::start(&world);
    let run = server.run();
    server.until(&run, "waiting");
    let at = |verb: &str| format!("/v1/runs/{run}/{verb}");
    server.post(&at("signal"), &json!({ "name": "go", "payload": [1] })).is(202);
    server.until(&run, "done");
    server.post(&at("cancel"), &json!({})).fails(409, "BP-RUN-011");
    server.post(&at("send"), &json!({ "text": "More." })).is(202);
    server.until(&run, "waiting");
    server.post(&at("suspend"), &json!({})).is(202);
    server.post(&at("resume"), &json!({})).is(202);
    server.post(&at("cancel"), &json!({})).is(202);
    server.until(&run, "cancelled");
}

#[test]
fn a_stream_has_no_gap_and_no_duplicate_from_any_number() {
    let world = asking();
    let server = Server::start(&world);
    let run = server.run();
    // One reader from the beginning, while the run goes on and its owner dies.
    let mut following = server.local();
    write_request(&mut following, ("GET", &format!("/v1/runs/{run}/events")), &[], b"");
    server.until(&run, "waiting");
    world.kill_owner();
    let listed = server.get("/v1/approvals").is(200);
    let id = listed["approvals"][0]["id"].as_str().expect("an id").to_owned();
    server.post(&format!("/v1/approvals/{id}/approve"), &json!({})).is(202);
    let mut told = String::new();
    following.read_to_string(&mut told).expect("it ends with the run");
    let (_, body) = told.split_once("\r\n\r\n").expect("a head");
    let (seen, end) = numbers(&whole_of(body));
    let end = end.expect("an end");
    let all: Vec<u64> = (0..end["next"].as_u64().expect("a number")).collect();
    assert_eq!((seen, &end["ended"]), (all.clone(), &json!(true)));
    for from in 0..=all.len() {
        let path = format!("/v1/runs/{run}/events?from={from}");
        assert_eq!(numbers(&server.get(&path).body).0, all[from..], "from {from}");
        let Some(last) = from.checked_sub(1).map(|last| last.to_string()) else { continue };
        let read = [("Last-Event-ID", last.as_str())];
        let path = format!("/v1/runs/{run}/events?from=0");
        let again = ask(server.local(), "GET", &path, &read, b"");
        assert_eq!(numbers(&again.body).0, all[from..], "after {last}");
    }
    let beyond = all.len() + 1;
    let path = format!("/v1/runs/{run}/events?from={beyond}");
    server.get(&path).fails(400, "BP-SERVE-005");
}

#[test]
fn a_stream_of_what_lives_is_told_at_once_and_may_stop_at_the_end_of_now() {
    let world = asking();
    let server = Server::start(&world);
    let run = server.run();
    server.until(&run, "waiting");
    let now = server.get(&format!("/v1/runs/{run}/events?follow=false"));
    assert!(now.head.contains("text/event-stream"), "{}", now.head);
    let (seen, end) = numbers(&now.body);
    assert_eq!(end, Some(json!({ "next": seen.len(), "ended": false })));
    let mut following = BufReader::new(server.local());
    let path = format!("/v1/runs/{run}/events?from={}", seen.len());
    write_request(following.get_mut(), ("GET", &path), &[], b"");
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        following.read_line(&mut line).expect("a head");
    }
    let deny = json!({ "reason": "no" });
    let listed = server.get("/v1/approvals").is(200);
    let id = listed["approvals"][0]["id"].as_str().expect("an id");
    server.post(&format!("/v1/approvals/{id}/deny"), &deny).is(202);
    let mut rest = String::new();
    following.read_to_string(&mut rest).expect("it ends with the run");
    assert!(rest.contains("approval_given") && rest.contains("event: end"), "{rest}");
}

#[test]
fn on_tcp_the_token_is_asked_for_and_other_hosts_are_refused() {
    let world = asking();
    let server = Server::start(&world);
    let (token, host) = (format!("Bearer {}", server.token()), server.address.as_str());
    let check = |headers: &[(&str, &str)], expected: Result<(), (u16, &str)>| {
        let answer = server.over_tcp("/v1/runs", headers);
        match expected {
            Ok(()) => drop(answer.is(200)),
            Err((status, code)) => drop(answer.fails(status, code)),
        }
    };
    let right = ("Authorization", token.as_str());
    let ours = ("Host", host);
    check(&[ours, right], Ok(()));
    check(&[ours], Err((401, "BP-SERVE-002")));
    check(&[ours, ("Authorization", "Bearer 00")], Err((401, "BP-SERVE-002")));
    check(&[("Host", "evil.example"), right], Err((403, "BP-SERVE-003")));
    check(&[ours, right, ("Origin", "https://evil.example")], Err((403, "BP-SERVE-003")));
    let described = server.over_tcp("/openapi.json", &[ours]).is(200);
    assert_eq!(described["openapi"], "3.1.0");
    // Who has no token learns nothing of what there is.
    server.over_tcp("/v1/nothing", &[ours]).fails(401, "BP-SERVE-002");
    server.over_tcp("/v1/nothing", &[ours, right]).fails(404, "BP-SERVE-004");
    let page = [("Origin", "http://localhost")];
    ask(server.local(), "GET", "/v1/runs", &page, b"").fails(403, "BP-SERVE-003");
}

#[test]
fn what_cannot_be_used_is_refused_and_changes_nothing() {
    let world = asking();
    let server = Server::start(&world);
    let runs = |body: Value, status: u16, code: &str| {
        drop(server.post("/v1/runs", &body).fails(status, code));
    };
    let (project, home) = (world.project(), world.path());
    runs(json!({}), 400, "BP-SERVE-005");
    runs(json!({ "agent": "relative" }), 400, "BP-SERVE-005");
    runs(json!({ "agent": project, "task": "both" }), 400, "BP-SERVE-005");
    runs(json!({ "agent": project, "unknown": 1 }), 400, "BP-SERVE-005");
    runs(json!({ "task": "no workspace" }), 400, "BP-SERVE-005");
    runs(json!({ "agent": home }), 422, "BP-CONFIG-006");
    runs(json!({ "agent": project, "model": "nope" }), 422, "BP-CONFIG-008");
    ask(server.local(), "POST", "/v1/runs", &[], b"{").fails(400, "BP-SERVE-005");
    server.get("/v1/runs?x=1").fails(400, "BP-SERVE-005");
    server.get("/v1/runs/nope").fails(404, "BP-STORE-007");
    server.get("/v1/runs/last/events").fails(404, "BP-STORE-007");
    server.post("/v1/approvals/nope/approve", &json!({})).fails(409, "BP-RUN-010");
    ask(server.local(), "PUT", "/v1/runs", &[], b"").fails(404, "BP-SERVE-004");
    assert_eq!(server.get("/v1/runs").is(200), json!({ "runs": [] }));
}

#[test]
fn bodies_and_connections_have_their_limits() {
    let world = asking();
    let server = Server::start(&world);
    let body = |bytes: usize| {
        let mut text = String::from("{\"unknown\":\"");
        text += &"x".repeat(bytes - text.len() - 2);
        text + "\"}"
    };
    let post = |bytes: usize| ask(server.local(), "POST", "/v1/runs", &[], body(bytes).as_bytes());
    post(BODY_BYTES_MAX).fails(400, "BP-SERVE-005");
    post(BODY_BYTES_MAX + 1).fails(413, "BP-SERVE-006");
    // Each says half a word, so that it is served and not done.
    let begun = |_| {
        let mut stream = server.tcp();
        stream.write_all(b"GET /v1").expect("taken");
        stream
    };
    let mut held: Vec<TcpStream> = (0..CONNECTIONS_MAX - 1).map(begun).collect();
    let host = [("Host", server.address.as_str())];
    until("the last place is served", || server.over_tcp("/openapi.json", &host).status == 200);
    // The place of the question before may not be free yet, and then this one is refused too.
    let mut refused = None;
    until("no place is left", || {
        held.push(begun(0));
        let answer = server.over_tcp("/openapi.json", &host);
        refused = Some(answer).filter(|answer| answer.status == 503);
        refused.is_some()
    });
    refused.expect("it was waited for").fails(503, "BP-SERVE-008");
    server.get("/openapi.json").is(200);
    drop(held);
    until("there are places again", || server.over_tcp("/openapi.json", &host).status == 200);
}

#[test]
fn one_server_a_home_and_a_new_one_after_a_kill() {
    let world = asking();
    let server = Server::start(&world);
    world.run(&["serve"]).fails(2, "BP-SERVE-001");
    let elsewhere = World::new();
    elsewhere.run(&["serve", "--listen", "0.0.0.0:0"]).fails(2, "BP-SERVE-001");
    // The kill leaves the socket and the token; the next server takes their places.
    let old = server.token();
    drop(server);
    assert!(world.home().join("serve.sock").exists());
    let server = Server::start(&world);
    assert_ne!(server.token(), old);
    server.get("/v1/runs").is(200);
}
