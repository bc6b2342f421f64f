//! Kept sandboxes over HTTP: commands streamed as they run, files byte for byte, moments, and what
//! is left when a process dies. Then the same with the Python client.

use crate::serve::{BODY_BYTES_MAX, Server, write_request};
use crate::steps::{python, source};
use crate::support::{World, until};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Entries that are listed at once.
const ENTRIES_MAX: usize = 1_000;
/// Longest a command may run, in seconds.
const TIMEOUT_S_MAX: u64 = 3_600;

/// A sandbox behind a server.
struct Kept<'a> {
    server: &'a Server<'a>,
    id: String,
}

impl<'a> Kept<'a> {
    fn create(server: &'a Server<'a>, asked: &Value) -> Self {
        let made = server.post("/v1/sandboxes", asked).is(201);
        Self::of(server, &made["sandbox"])
    }

    fn of(server: &'a Server<'a>, id: &Value) -> Self {
        Self { server, id: id.as_str().expect("an id").to_owned() }
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/sandboxes/{}{rest}", self.id)
    }

    fn exec(&self, asked: &Value) -> Stream {
        let mut stream = BufReader::new(self.server.local());
        let limit = Some(Duration::from_secs(60));
        stream.get_ref().set_read_timeout(limit).expect("set");
        let body = asked.to_string();
        let stay = [("Connection", "keep-alive")];
        write_request(stream.get_mut(), ("POST", &self.path("/exec")), &stay, body.as_bytes());
        Stream::of(stream)
    }

    /// Runs a command to its end: its output and its last event.
    fn run(&self, command: &str) -> (String, Value) {
        let (_, printed, end) = self.exec(&json!({ "command": command })).rest();
        (String::from_utf8(printed).expect("text"), end)
    }

    fn exec_path(&self, exec: &Value, rest: &str) -> String {
        self.path(&format!("/execs/{exec}{rest}"))
    }

    fn result(&self, exec: &Value) -> Value {
        self.server.get(&self.exec_path(exec, "?wait_ms=30000")).is(200)
    }

    fn write(&self, path: &str, bytes: &[u8]) -> crate::serve::Answer {
        self.server.send("PUT", &self.path(&format!("/files/{path}")), bytes)
    }

    fn read(&self, path: &str) -> Vec<u8> {
        let answer = self.server.get(&self.path(&format!("/files/{path}")));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.bytes
    }
}

/// Server-sent events as they come.
struct Stream {
    stream: BufReader<UnixStream>,
    text: String,
    /// What was printed so far, on either.
    seen: String,
}

impl Stream {
    fn of(mut stream: BufReader<UnixStream>) -> Self {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).expect("a head") > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200") && head.contains("text/event-stream"), "{head}");
        Self { stream, text: String::new(), seen: String::new() }
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let (Some(kind), Some(data)) = (field("event: "), field("data: ")) else {
                    continue;
                };
                return Some((kind.to_owned(), serde_json::from_str(data).expect("JSON")));
            }
            let mut length = String::new();
            self.stream.read_line(&mut length).expect("it goes on");
            let length = usize::from_str_radix(length.trim(), 16).unwrap_or(0);
            if length == 0 {
                return None;
            }
            let mut piece = vec![0; length + 2];
            self.stream.read_exact(&mut piece).expect("whole");
            self.text += std::str::from_utf8(&piece[..length]).expect("UTF-8");
        }
    }

    /// The number of the command.
    fn started(&mut self) -> Value {
        let (kind, data) = self.next().expect("an event");
        assert_eq!(kind, "started", "{data}");
        data["exec"].clone()
    }

    /// Reads until this was printed, on either: the two come in no order.
    fn until(&mut self, wanted: &str) {
        while !self.seen.contains(wanted) {
            let (kind, data) = self.next().expect("an event");
            let seen = &self.seen;
            assert!(matches!(kind.as_str(), "stdout" | "stderr"), "{kind} {data} after {seen}");
            self.seen += &String::from_utf8_lossy(&bytes(&data));
        }
    }

    /// All that is printed, in all and on standard output, and the last event.
    fn rest(mut self) -> (Vec<u8>, Vec<u8>, Value) {
        let (mut all, mut printed) = (Vec::new(), Vec::new());
        while let Some((kind, data)) = self.next() {
            match kind.as_str() {
                "started" => {}
                "stdout" => {
                    printed.extend(bytes(&data));
                    all.extend(bytes(&data));
                }
                "stderr" => all.extend(bytes(&data)),
                _ => {
                    assert!(self.next().is_none(), "it is the last event");
                    return (all, printed, data);
                }
            }
        }
        panic!("no last event after {:?}", String::from_utf8_lossy(&all));
    }
}

fn bytes(data: &Value) -> Vec<u8> {
    BASE64.decode(data["bytes"].as_str().expect("text")).expect("base64")
}

/// A directory with one file.
fn workspace(world: &World) -> Value {
    world.write("w/old.txt", "as it was\n");
    json!({ "workspace": world.project().join("w") })
}

/// A policy's file, for a sandbox.
fn governed(world: &World, permissions: &str) -> Value {
    world.write("g/bedplate.toml", &format!("schema = 1\n[permissions]\n{permissions}\n"));
    json!({ "policy": world.project().join("g/bedplate.toml") })
}

#[test]
fn a_command_is_streamed_while_it_runs_and_reads_what_is_sent() {
    let world = World::new();
    let server = Server::start(&world);
    let sandbox = Kept::create(&server, &workspace(&world));
    let script = "echo out; echo err >&2; read line; echo got $line; echo new > new.txt; exit 3";
    let mut stream = sandbox.exec(&json!({ "command": script, "stdin": true }));
    let exec = stream.started();
    // What was printed is here before the command can go on: it waits for what is sent now.
    stream.until("out\n");
    stream.until("err\n");
    let running = server.get(&sandbox.exec_path(&exec, "?wait_ms=0")).is(202);
    assert_eq!(running["status"], "running", "{running}");
    let listed = server.get("/v1/sandboxes").is(200);
    assert_eq!(listed["sandboxes"][0]["status"], "running", "{listed}");
    let second = sandbox.server.post(&sandbox.path("/exec"), &json!({ "command": "true" }));
    second.fails(409, "BP-RUN-011");
    let path = sandbox.exec_path(&exec, "/input");
    let taken = server.send("POST", &path, b"hello\n").is(200);
    assert_eq!(taken["taken"], 6);
    stream.until("got hello\n");
    let (_, _, end) = stream.rest();
    assert_eq!((&end["status"], &end["exit"]), (&json!("failed"), &json!(3)), "{end}");
    assert!(end["output"].as_str().expect("text").contains("got hello"), "{end}");
    let now = server.get(&sandbox.path("")).is(200);
    assert_eq!((&now["layer"], &now["status"]), (&end["layer"], &json!("idle")), "{now}");
    assert_eq!(sandbox.result(&exec), end, "the log has what the stream told");
    server.send("POST", &path, b"late").fails(409, "BP-SERVE-019");
    assert_eq!(sandbox.run("cat new.txt old.txt").0, "new\nas it was\n");
    world.run(&["verify", &sandbox.id]).exits(0);
}

#[test]
fn input_is_whole_and_its_end_is_the_sender_s() {
    let world = World::new();
    let server = Server::start(&world);
    let sandbox = Kept::create(&server, &json!({}));
    // Without anything to read, reading ends at once.
    assert_eq!(sandbox.run("cat; echo over").0, "over\n");
    let asked = json!({ "command": ["cat"], "input": BASE64.encode([0, 255, 10]) });
    assert_eq!(sandbox.exec(&asked).rest().1, [0, 255, 10]);
    let mut stream = sandbox.exec(&json!({ "command": "cat", "stdin": true }));
    let exec = stream.started();
    let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    std::thread::scope(|scope| {
        let read = scope.spawn(|| stream.rest());
        let (first, second) = sent.split_at(200_001);
        let path = sandbox.exec_path(&exec, "/input");
        server.send("POST", &path, first).is(200);
        server.send("POST", &format!("{path}?end=true"), second).is(200);
        let (_, printed, end) = read.join().expect("read");
        assert!(printed == sent && end["exit"] == 0, "{} bytes, {end}", printed.len());
    });
}

#[test]
fn a_command_may_have_a_terminal_whose_size_changes() {
    let world = World::new();
    let server = Server::start(&world);
    let sandbox = Kept::create(&server, &json!({}));
    let command = "test -t 0 && test -t 1 && stty size; read word; stty size; echo $word";
    let asked = json!({ "command": command, "terminal": { "rows": 24, "columns": 80 } });
    let mut stream = sandbox.exec(&asked);
    let exec = stream.started();
    stream.until("24 80");
    let size = json!({ "rows": 50, "columns": 132 });
    server.post(&sandbox.exec_path(&exec, "/resize"), &size).is(200);
    server.send("POST", &sandbox.exec_path(&exec, "/input"), b"typed\r").is(200);
    stream.until("50 132");
    stream.until("typed");
    assert_eq!(stream.rest().2["exit"], 0);
    server.post(&sandbox.exec_path(&exec, "/resize"), &size).fails(409, "BP-SERVE-019");
}

#[test]
fn the_exit_status_is_exact_and_time_is_limited() {
    let world = World::new();
    let server = Server::start(&world);
    let sandbox = Kept::create(&server, &json!({}));
    let end = |asked: Value| sandbox.exec(&asked).rest().2;
    assert_eq!(end(json!({ "command": ["missing-program"] }))["exit"], 127);
    assert_eq!(end(json!({ "command": "kill -9 $$" }))["exit"], 137);
    assert_eq!(end(json!({ "command": "exit 255" }))["exit"], 255);
    let words = json!({ "command": ["printf", "%s|", "a b", "it's", "$HOME", "*"] });
    assert_eq!(sandbox.exec(&words).rest().1, b"a b|it's|$HOME|*|");
    let end = end(json!({ "command": "sleep 600", "timeout_s": 1 }));
    assert_eq!(end["status"], "timed_out", "{end}");
    let refused = |asked: Value| {
        server.post(&sandbox.path("/exec"), &asked).fails(400, "BP-SERVE-005");
    };
    refused(json!({ "command": "true", "timeout_s": 0 }));
    refused(json!({ "command": "true", "timeout_s": TIMEOUT_S_MAX + 1 }));
    refused(json!({ "command": " " }));
    refused(json!({ "command": [] }));
    refused(json!({ "command": "a\u{0}b" }));
    refused(json!({ "command": "true", "input": "no base64" }));
    let longest = json!({ "command": "true", "timeout_s": TIMEOUT_S_MAX });
    assert_eq!(sandbox.exec(&longest).rest().2["exit"], 0);
}

#[test]
fn it_is_named_gone_back_to_forked_compared_and_removed() {
    let world = World::new();
    let server = Server::start(&world);
    let sandbox = Kept::create(&server, &workspace(&world));
    let named = server.post(&sandbox.path("/snapshot"), &json!({ "name": "start" })).is(201);
    assert_eq!(named, json!({ "sandbox": sandbox.id, "snapshot": "start" }));
    sandbox.run("echo changed > old.txt");
    let diff = |path: &str| server.get(&sandbox.path(path)).is(200)["changes"].clone();
    let changed = json!([{ "kind": "changed", "path": "old.txt", "bytes": 8 }]);
    assert_eq!(diff("/diff"), changed);
    assert_eq!(diff("/diff?from=start"), changed);
    assert_eq!(diff("/diff?from=start&to=%40start"), json!([]));
    let text = diff("/diff?text=true")[0]["text"].as_str().expect("text").to_owned();
    assert!(text.contains("-as it was\n+changed\n"), "{text}");
    let forked = json!({ "at": "start", "count": 2 });
    let forked = server.post(&sandbox.path("/fork"), &forked).is(201);
    let forks: Vec<Kept<'_>> = forked["sandboxes"]
        .as_array()
        .expect("two")
        .iter()
        .map(|id| Kept::of(&server, id))
        .collect();
    for (number, fork) in forks.iter().enumerate() {
        assert_eq!(fork.read("old.txt"), b"as it was\n");
        fork.write("mine.txt", number.to_string().as_bytes()).is(200);
    }
    let between = format!("/diff?to={}", forks[1].id);
    let between = server.get(&forks[0].path(&between)).is(200);
    assert_eq!(between["changes"][0]["path"], "mine.txt", "{between}");
    server.post(&sandbox.path("/rollback"), &json!({ "to": "start" })).is(200);
    assert_eq!(sandbox.read("old.txt"), b"as it was\n");
    assert_eq!(sandbox.run("cat old.txt").0, "as it was\n");
    // The command line sees the same ones.
    let listed = server.get("/v1/sandboxes").is(200);
    assert_eq!(listed, world.run(&["sandbox", "ls", "--json"]).exits(0).json());
    assert_eq!(listed["sandboxes"].as_array().map(Vec::len), Some(3));
    for sandbox in [&sandbox, &forks[0], &forks[1]] {
        server.send("DELETE", &sandbox.path(""), b"").is(200);
    }
    assert_eq!(server.get("/v1/sandboxes").is(200), json!({ "sandboxes": [] }));
    assert_eq!(server.get("/v1/runs").is(200), json!({ "runs": [] }), "nothing is left");
}

#[test]
fn a_key_is_one_sandbox_and_what_is_unknown_is_said() {
    let world = World::new();
    let server = Server::start(&world);
    let mut asked = workspace(&world);
    world.write("p.cedar", "permit (principal, action == Action::\"run_command\", resource);\n");
    asked["policy"] = json!(world.project().join("p.cedar"));
    asked["key"] = json!("ci/17");
    let sandbox = Kept::create(&server, &asked);
    let again = server.post("/v1/sandboxes", &asked).is(200);
    assert_eq!(again["sandbox"], sandbox.id.as_str());
    assert_eq!(std::fs::read_dir(world.home().join("sandboxes")).expect("there").count(), 1);
    sandbox.run("true");
    let refused = |asked: Value, status: u16, code: &str| {
        server.post("/v1/sandboxes", &asked).fails(status, code);
    };
    refused(json!({ "key": "a b" }), 422, "BP-SERVE-015");
    refused(json!({ "key": "k".repeat(121) }), 422, "BP-SERVE-015");
    refused(json!({ "workspace": "w" }), 400, "BP-SERVE-005");
    refused(json!({ "workspace": world.project().join("none") }), 422, "BP-CONFIG-007");
    refused(json!({ "unknown": 1 }), 400, "BP-SERVE-005");
    assert_eq!(std::fs::read_dir(world.home().join("sandboxes")).expect("there").count(), 1);
    let longest = Kept::create(&server, &json!({ "key": "k".repeat(120) }));
    server.send("DELETE", &longest.path(""), b"").is(200);
    server.send("DELETE", &longest.path(""), b"").fails(404, "BP-STORE-007");
    server.get("/v1/sandboxes/none").fails(404, "BP-STORE-007");
    world.agent("[permissions]\npreset = \"observe\"\n", &crate::support::say("Done."));
    let run = server.run();
    server.until(&run, "done");
    server.get(&format!("/v1/sandboxes/{run}")).fails(404, "BP-CLI-017");
    let exec = json!({ "command": "true" });
    server.post(&format!("/v1/sandboxes/{run}/exec"), &exec).fails(404, "BP-CLI-017");
    for exec in ["0", "999"] {
        server.get(&sandbox.path(&format!("/execs/{exec}"))).fails(404, "BP-SERVE-020");
    }
    server.get(&sandbox.path("/execs/x")).fails(400, "BP-SERVE-005");
    server.get(&sandbox.path("/execs/0?wait_ms=60001")).fails(400, "BP-SERVE-005");
    let moment = |path: &str, body: Value, status: u16, code: &str| {
        server.post(&sandbox.path(path), &body).fails(status, code);
    };
    moment("/rollback", json!({ "to": "nowhere" }), 404, "BP-CLI-018");
    moment("/rollback", json!({ "to": "9999" }), 404, "BP-CLI-010");
    moment("/fork", json!({ "at": "nowhere" }), 404, "BP-CLI-018");
    moment("/fork", json!({ "count": 0 }), 400, "BP-SERVE-005");
    moment("/fork", json!({ "count": 1_001 }), 400, "BP-SERVE-005");
    server.get(&sandbox.path("/diff?text=yes")).fails(400, "BP-SERVE-005");
}

#[test]
fn files_are_exact_and_are_steps_of_the_log() {
    let world = World::new();
    let server = Server::start(&world);
    let sandbox = Kept::create(&server, &workspace(&world));
    let all: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let written = sandbox.write("deep%2Fdir%2Fall.bin", &all).is(200);
    assert_eq!((&written["status"], &written["done"]), (&json!("ok"), &json!(true)), "{written}");
    assert_eq!(sandbox.read("deep%2Fdir%2Fall.bin"), all);
    let (sum, _) =
        sandbox.run("wc -c < deep/dir/all.bin; head -c 2 deep/dir/all.bin | od -An -tx1");
    assert_eq!(sum.split_whitespace().collect::<Vec<_>>(), ["70000", "00", "01"]);
    sandbox.write("empty", b"").is(200);
    assert_eq!(sandbox.read("empty"), b"");
    sandbox.write("old.txt", "ü\n".as_bytes()).is(200);
    assert_eq!(sandbox.run("cat old.txt").0, "ü\n");
    let shown = world.run(&["show", &sandbox.id]).exits(0).stdout;
    assert!(shown.contains("write_file") && shown.contains("decision_made"), "{shown}");
    let part = |range: &str| {
        let path = sandbox.path("/files/deep%2Fdir%2Fall.bin");
        crate::serve::ask(server.local(), "GET", &path, &[("Range", range)], b"")
    };
    let middle = part("bytes=256-259");
    assert_eq!((middle.status, middle.bytes.as_slice()), (206, &[0, 1, 2, 3][..]));
    assert!(middle.head.contains("content-range: bytes 256-259/70000"), "{}", middle.head);
    assert_eq!(part("bytes=69999-").bytes, all[69_999..]);
    part("bytes=70000-").fails(416, "BP-SERVE-024");
    let stat = server.get(&sandbox.path("/stat/deep%2Fdir%2Fall.bin")).is(200);
    assert_eq!((&stat["kind"], &stat["bytes"]), (&json!("file"), &json!(70_000)), "{stat}");
    let names = |path: &str| {
        let listed = server.get(&sandbox.path(path)).is(200);
        let entries = listed["entries"].as_array().expect("entries").iter();
        let names: Vec<String> =
            entries.map(|entry| entry["name"].as_str().expect("a name").to_owned()).collect();
        (names, listed["next"].clone())
    };
    assert_eq!(
        names("/files"),
        (vec!["deep".into(), "empty".into(), "old.txt".into()], Value::Null)
    );
    assert_eq!(names("/files?path=deep%2Fdir").0, ["all.bin"]);
    assert_eq!(names("/files?from=1&limit=1"), (vec!["empty".into()], json!(2)));
    server.get(&sandbox.path("/files?path=none")).fails(404, "BP-SERVE-018");
    server.get(&sandbox.path("/files?path=empty")).fails(400, "BP-SERVE-017");
    let many = |limit: usize| server.get(&sandbox.path(&format!("/files?limit={limit}")));
    many(ENTRIES_MAX).is(200);
    many(ENTRIES_MAX + 1).fails(400, "BP-SERVE-005");
    world.run(&["verify", &sandbox.id]).exits(0);
}

#[test]
fn paths_that_lead_out_and_bodies_too_large_are_refused() {
    let world = World::new();
    let server = Server::start(&world);
    let sandbox = Kept::create(&server, &workspace(&world));
    let script = "mkdir d; ln -s d in; echo inside > d/f; ln -s /etc/passwd out; ln -s .. up;\
        ln -s /workspace/d absolute; mkfifo pipe; ln -s loop loop";
    assert_eq!(sandbox.run(script).1["exit"], 0);
    let before = server.get(&sandbox.path("")).is(200)["layer"].clone();
    let refused = [
        "..%2Fold.txt",
        "d%2F..%2F..%2Fx",
        "%2Fetc%2Fpasswd",
        "out",
        "up%2Fetc%2Fpasswd",
        "loop",
        "pipe",
        "d",
        "a%00b",
    ];
    for path in refused {
        server.get(&sandbox.path(&format!("/files/{path}"))).fails(400, "BP-SERVE-017");
        sandbox.write(path, b"x").fails(400, "BP-SERVE-017");
    }
    server.get(&sandbox.path("/files/none")).fails(404, "BP-SERVE-018");
    sandbox.write("old.txt%2Fbelow", b"x").fails(409, "BP-SERVE-023");
    assert_eq!(server.get(&sandbox.path("")).is(200)["layer"], before, "nothing was written");
    let link = server.get(&sandbox.path("/stat/out")).is(200);
    assert_eq!((&link["kind"], &link["target"]), (&json!("link"), &json!("/etc/passwd")), "{link}");
    assert_eq!(server.get(&sandbox.path("/stat/pipe")).is(200)["kind"], "other");
    // Links that stay inside lead where they lead.
    assert_eq!(sandbox.read("in%2Ff"), b"inside\n");
    sandbox.write("absolute%2Ff", b"changed").is(200);
    assert_eq!(sandbox.read("%2Fworkspace%2Fd%2Ff"), b"changed");
    assert_eq!(sandbox.run("test -L absolute && cat d/f").0, "changed");
    let largest = vec![0xab; BODY_BYTES_MAX];
    sandbox.write("large", &largest).is(200);
    assert!(sandbox.read("large") == largest);
    sandbox.write("larger", &[largest, vec![0]].concat()).fails(413, "BP-SERVE-006");
    server.get(&sandbox.path("/files/larger")).fails(404, "BP-SERVE-018");
}

#[test]
fn a_policy_denies_and_asks() {
    let world = World::new();
    let server = Server::start(&world);
    let sandbox = Kept::create(&server, &governed(&world, "deny = [\"shell\", \"write_file\"]"));
    let (printed, end) = sandbox.run("echo out");
    assert_eq!(
        (printed.as_str(), &end["status"], &end["exit"]),
        ("", &json!("denied"), &Value::Null)
    );
    assert_eq!(end["layer"], Value::Null, "{end}");
    sandbox.write("a", b"x").fails(403, "BP-SERVE-022");
    server.get(&sandbox.path("/files/a")).fails(404, "BP-SERVE-018");
    // The policy is the operator's, and holds as it is now.
    governed(&world, "ask = [\"shell\"]");
    let mut stream = sandbox.exec(&json!({ "command": "echo out; echo made > made" }));
    let exec = stream.started();
    let (all, _, waiting) = stream.rest();
    assert_eq!((all.len(), &waiting["status"]), (0, &json!("waiting")), "{waiting}");
    let approve = |waiting: &Value| {
        let id = waiting["approvals"][0]["id"].as_str().expect("an id");
        server.post(&format!("/v1/approvals/{id}/approve"), &json!({})).is(202);
    };
    let asked = server.get(&sandbox.exec_path(&exec, "?wait_ms=0")).is(202);
    assert_eq!(asked, waiting);
    server.get(&sandbox.path("/files/made")).fails(404, "BP-SERVE-018");
    let second = json!({ "command": "true" });
    server.post(&sandbox.path("/exec"), &second).fails(409, "BP-RUN-011");
    approve(&waiting);
    let done = sandbox.result(&exec);
    assert_eq!((&done["exit"], &done["status"]), (&json!(0), &json!("ok")), "{done}");
    assert!(done["output"].as_str().expect("text").starts_with("out"), "{done}");
    assert_eq!(sandbox.read("made"), b"made\n");
    governed(&world, "ask = [\"write_file\"]");
    let path = sandbox.path("/files/a?wait_ms=0");
    let mut waiting = server.send("PUT", &path, &[0xff]).is(202);
    let exec = waiting["exec"].clone();
    until("it asks", || {
        waiting = server.get(&sandbox.exec_path(&exec, "?wait_ms=0")).is(202);
        waiting["status"] == "waiting"
    });
    approve(&waiting);
    assert_eq!(sandbox.result(&exec)["status"], "ok");
    assert_eq!(sandbox.read("a"), [0xff]);
}

#[test]
fn what_the_policy_does_not_let_go_on_is_said_and_undone_by_the_next() {
    let world = World::new();
    let server = Server::start(&world);
    // A shell cannot be bound by a rule that asks about each file.
    let sandbox =
        Kept::create(&server, &governed(&world, "allow = [\"shell\"]\nask = [\"write_file\"]"));
    let mut stream = sandbox.exec(&json!({ "command": "true" }));
    let exec = stream.started();
    let (_, _, end) = stream.rest();
    assert_eq!(end["error"]["code"], "BP-POLICY-008", "{end}");
    server.get(&sandbox.exec_path(&exec, "")).fails(503, "BP-POLICY-008");
    governed(&world, "allow = [\"shell\"]");
    let mut stream = sandbox.exec(&json!({ "command": "echo out" }));
    assert_eq!(stream.next().expect("an event").1["undone"], true);
    assert_eq!(stream.rest().1, b"out\n");
}

#[test]
fn what_runs_goes_on_when_its_reader_or_the_server_is_gone() {
    let world = World::new();
    let mut server = Some(Server::start(&world));
    let asked = json!({ "command": "echo begun; cat; echo over >> over", "stdin": true });
    let (id, exec) = {
        let server = server.as_ref().expect("there");
        let sandbox = Kept::create(server, &workspace(&world));
        let mut stream = sandbox.exec(&asked);
        let exec = stream.started();
        stream.until("begun\n");
        drop(stream);
        // Its input ends with its reader.
        let done = sandbox.result(&exec);
        assert_eq!(done["exit"], 0, "{done}");
        assert!(done["output"].as_str().expect("text").starts_with("begun"), "{done}");
        let mut stream = sandbox.exec(&asked);
        let exec = stream.started();
        stream.until("begun\n");
        (json!(sandbox.id), exec)
    };
    drop(server.take());
    let server = Server::start(&world);
    let sandbox = Kept::of(&server, &id);
    assert_eq!(sandbox.result(&exec)["exit"], 0);
    assert_eq!(sandbox.read("over"), b"over\nover\n");
}

#[test]
fn what_loses_its_owner_is_undone_by_the_next() {
    let world = World::new();
    let server = Server::start(&world);
    let sandbox = Kept::create(&server, &workspace(&world));
    sandbox.write("kept", b"x").is(200);
    let script = "echo half > half; echo begun; cat";
    let mut stream = sandbox.exec(&json!({ "command": script, "stdin": true }));
    let exec = stream.started();
    stream.until("begun\n");
    world.kill_owner();
    let (_, _, end) = stream.rest();
    assert_eq!(end["error"]["code"], "BP-OWNER-003", "{end}");
    let path = sandbox.exec_path(&exec, "?wait_ms=30000");
    server.get(&path).fails(409, "BP-SERVE-021");
    let mut stream = sandbox.exec(&json!({ "command": "ls" }));
    let (kind, started) = stream.next().expect("an event");
    assert_eq!((kind.as_str(), &started["undone"]), ("started", &json!(true)));
    assert_eq!(stream.rest().1, b"kept\nold.txt\n");
    server.get(&path).fails(404, "BP-SERVE-020");
    assert_eq!(sandbox.run("true").1["exit"], 0);
    world.run(&["verify", &sandbox.id]).exits(0);
}

/// Prints `ok` when each verb of the client did what it says.
const PROGRAM: &str = r#"
import sys
from bedplate import BedplateError, Client
client = Client()
box = client.create_sandbox(key="py/1", workspace=sys.argv[1])
assert client.create_sandbox(key="py/1", workspace=sys.argv[1]).id == box.id
data = bytes(range(256))
assert box.write("d/data.bin", data).ok
assert box.read("d/data.bin") == data and box.read("d/data.bin", 1, 2) == b"\1\2"
ran = box.run("cat d/data.bin; echo err >&2; exit 7")
assert (ran.exit, ran.stdout, ran.stderr, ran.whole) == (7, data, b"err\n", True), ran
assert box.run(["cat"], input=b"in").stdout == b"in"
with box.exec("echo first; read word; echo $word", stdin=True) as begun:
    seen = b""
    for piece in begun:
        seen += piece.data
        if seen == b"first\n":
            begun.write(b"second\n", end=True)
    assert seen == b"first\nsecond\n" and begun.wait().ok, seen
with box.exec("stty size; read word; stty size", terminal=(10, 20)) as begun:
    seen = b""
    for piece in begun:
        seen += piece.data
        if seen == b"10 20\r\n":
            begun.resize(30, 40)
            begun.write(b"\r")
    assert b"30 40" in seen, seen
left = box.exec("echo begun; cat; exit 5", stdin=True)
next(iter(left))
left.close()
assert left.wait().exit == 5
start = box.snapshot("start")
one, two = box.fork(2, at=start)
one.write("d/data.bin", b"text\n")
box.run("rm -r d")
box.rollback(start)
assert [entry.name for entry in box.files("d")] == ["data.bin"]
assert box.stat("d").kind == "directory"
changes = one.diff(since=start, text=True)
assert [(of.kind, of.path) for of in changes] == [("changed", "d/data.bin")], changes
assert [of.path for of in one.diff(to=two)] == ["d/data.bin"]
for wrong, code in (("../x", "BP-SERVE-017"), ("none", "BP-SERVE-018")):
    try:
        box.read(wrong)
        raise SystemExit("it was read")
    except BedplateError as error:
        assert error.code == code, error
assert len(client.sandboxes()) == 3
for each in (box, one, two):
    each.destroy()
assert client.sandboxes() == []
print("ok")
"#;

#[test]
fn the_python_client_has_every_verb() {
    let world = World::new();
    let _server = Server::start(&world);
    workspace(&world);
    let dir = world.project().join("w");
    let dir = dir.to_str().expect("UTF-8");
    let output = python(&world, &["-c", PROGRAM, dir]).wait_with_output().expect("ends");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "ok\n");
    let example = source("clients/python/examples/try_fixes.py");
    let example = example.to_str().expect("UTF-8");
    let output = python(&world, &[example, dir]).wait_with_output().expect("ends");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.starts_with("stdout: 45\nstderr: done\npasses: False\n"), "{said}");
    assert!(said.contains("one more: passes\nchanged sum.py\n@@"), "{said}");
    assert!(!said.contains("one less: passes"), "{said}");
    assert!(said.ends_with("passes: True\nback again: True\n"), "{said}");
}
