//! The network of a sandbox through the binary: requests are decided one by one, asked, recorded;
//! secrets are put in on the way out.

use crate::support::{Said, World, call, say, until};
use crate::traces;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub(crate) const SECRET: &str = "value-of-the-vault-4711";

/// One request as the server got it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) authorization: String,
    pub(crate) body: String,
}

/// A server on loopback that notes what it gets and says back what it was sent.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let notes = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let notes = Arc::clone(&notes);
                std::thread::spawn(move || while answer(&stream, &notes).is_some() {});
            }
        });
        Self { port, seen }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic holds it").clone()
    }
}

fn answer(mut stream: &TcpStream, notes: &Mutex<Vec<Seen>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => value.clone_into(&mut authorization),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).ok()?;
    let line = line.trim().to_owned();
    if line.contains("/long") {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nbegun ").ok()?;
        notes.lock().ok()?.push(Seen { line, authorization, body });
        // It goes on until the other side is cut off.
        return stream.read(&mut [0; 1]).ok().filter(|count| *count > 0).map(drop);
    }
    let said = if line.contains("/count") {
        format!("{} before", notes.lock().ok()?.len())
    } else {
        format!("you sent {line} with {authorization} and {body}")
    };
    notes.lock().ok()?.push(Seen { line, authorization, body });
    write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{said}", said.len()).ok()
}

/// A Python program for the sandbox: `go` does a request and prints what came of it.
pub(crate) const PRELUDE: &str = r#"
import os, urllib.request, urllib.error
def go(method, url, data=None):
    headers = {"authorization": "Bearer " + os.environ.get("TOKEN", "")}
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            print(answer.status, answer.read().decode())
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())
    except Exception as error:
        reason = getattr(error, "reason", None)
        print("nothing:", type(error).__name__, *([repr(reason)] if reason else []))
"#;

/// A world with an agent that runs one Python program in the sandbox.
pub(crate) fn world(upstream: &Upstream, permissions: &str, network: &str, program: &str) -> World {
    let world = World::new();
    let manifest = format!(
        "[permissions]\npreset = \"observe\"\n{permissions}\n[network]\n{network}\n\
         resolve = {{ \"api.example.test\" = \"127.0.0.1:{port}\", \
         \"wiki.example.test\" = \"127.0.0.1:{port}\" }}\n\
         [sandbox]\nworkspace = \"w\"\n[secrets]\nTOKEN = \"api\"\n",
        port = upstream.port
    );
    let turns = call("I try.", "shell", "command = \"python3 try.py\"") + &say("Tried.");
    world.agent(&manifest, &turns);
    world.write("w/try.py", &format!("{PRELUDE}{program}"));
    world
}

pub(crate) fn set_secret(world: &World) {
    let mut command = world.command(&["secret", "set", "api"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(SECRET.as_bytes()).expect("written");
    assert!(child.wait_with_output().expect("it ends").status.success());
}

/// What the program printed, line by line.
pub(crate) fn printed(world: &World) -> Vec<String> {
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    let records = shown["records"].as_array().expect("records");
    let finished = records.iter().find(|record| record["kind"] == "action_finished");
    let text = finished.expect("it ran")["output"]["text"].as_str().expect("text").to_owned();
    text.lines().map(str::to_owned).collect()
}

pub(crate) fn of_kind(world: &World, kind: &str) -> Vec<Value> {
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    let records = shown["records"].as_array().expect("records");
    records.iter().filter(|record| record["kind"] == kind).cloned().collect()
}

/// The id of the one question that waits.
fn question(world: &World) -> Option<(String, String)> {
    let said = world.run(&["approvals", "--json"]);
    let all = serde_json::from_str::<Value>(&said.stdout).ok()?;
    let first = all["approvals"].as_array()?.first()?.clone();
    Some((first["id"].as_str()?.to_owned(), first["shown"].as_str()?.to_owned()))
}

#[test]
fn requests_are_decided_one_by_one_and_a_secret_goes_to_its_host_only() {
    let upstream = Upstream::start();
    let program = format!(
        "go('GET', 'http://api.example.test/v1/a?x=1')\n\
         go('GET', 'http://api.example.test/v2/a')\n\
         go('POST', 'http://api.example.test/v1/a', b'x')\n\
         go('GET', 'http://other.example.test/v1/a')\n\
         go('GET', 'http://127.0.0.1:{}/v1/a')\n\
         go('GET', 'http://192.0.2.77/')\n\
         print(os.environ['TOKEN'].startswith('bpsecret-api-'))\n\
         go('GET', 'http://wiki.example.test/page')\n",
        upstream.port
    );
    let permits = "allow = [\"shell\", \"GET api.example.test/v1/*\", \
        \"GET wiki.example.test/*\", \"secret:api@api.example.test\"]";
    let world = world(&upstream, permits, "", &program);
    set_secret(&world);
    let done = world.run(&["run"]).exits(0);
    let lines = printed(&world);
    // The server saw the value; what it said back came without it.
    assert_eq!(
        lines[0], "200 you sent GET /v1/a?x=1 HTTP/1.1 with Bearer [masked:api] and ",
        "{lines:?}"
    );
    assert!(lines[1].starts_with("403 {\"error\""), "{lines:?}");
    assert!(lines[2].starts_with("403 {\"error\""), "{lines:?}");
    assert!(lines[3].starts_with("nothing: ") && lines[4].starts_with("nothing: "), "{lines:?}");
    assert!(lines[5].starts_with("403 {\"error\""), "{lines:?}");
    assert_eq!(lines[6], "True");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
    assert_eq!(seen[0].authorization, format!("Bearer {SECRET}"));
    // Another host, permitted too, gets what the program has.
    assert!(seen[1].authorization.starts_with("Bearer bpsecret-api-"), "{seen:?}");
    // What left, under which decision and with which secret, stands in the log.
    let decided = of_kind(&world, "egress_decided");
    let verdicts: Vec<&str> = decided.iter().filter_map(|r| r["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["permit", "deny", "deny", "deny", "deny", "permit"]);
    let used = of_kind(&world, "secret_used");
    assert_eq!(used.len(), 1);
    assert_eq!(used[0]["under"], decided[0]["seq"]);
    assert_eq!(of_kind(&world, "egress_ended")[0]["status"], 200);
    assert!(done.stderr.contains("denied"), "{}", done.stderr);
    assert!(!traces::said(&done, SECRET));
    let explained = world.run(&["explain", "last"]).exits(0);
    assert!(explained.stdout.contains("secret     api\n"), "{}", explained.stdout);
    // Not while a sandbox lives: parts of what it is made of are closed even to us then.
    until("the owner left", || world.owner().is_none());
    no_trace(&world);
}

/// Nothing of the secret lies in the home, in its layers, or in the project.
pub(crate) fn no_trace(world: &World) {
    for dir in [world.home(), world.project()] {
        let found = traces::files(&dir, SECRET);
        assert!(found.is_empty(), "the value stands in {found:?}");
    }
}

#[test]
fn no_process_of_a_sandbox_holds_a_secret_that_its_requests_use() {
    let upstream = Upstream::start();
    let program = "print('begun', flush=True)\n\
        go('GET', 'http://api.example.test/v1/a')\n\
        go('POST', 'http://api.example.test/v1/b', os.environ['TOKEN'].encode())\n\
        go('GET', 'http://wiki.example.test/long')\n";
    let permits = "allow = [\"shell\", \"GET api.example.test/v1/*\", \"GET wiki.example.test/*\", \
        \"POST api.example.test/v1/b\", \"secret:api@api.example.test\"]";
    let world = world(&upstream, permits, "", program);
    set_secret(&world);
    let running = world.start(&["run"]);
    until("the last answer has begun", || upstream.seen().len() == 3);
    assert!(upstream.seen()[1].body.contains(SECRET), "it was put in");
    let owner = world.owner().expect("it lives");
    let gate = gate_of(owner).expect("a gate");
    let gates: Vec<i32> = std::iter::once(gate).chain(traces::below(gate)).collect();
    let all = traces::below(owner);
    let mine: Vec<i32> = all.into_iter().filter(|pid| !gates.contains(pid)).collect();
    let found = traces::memory(&mine, SECRET);
    assert!(found.holding.is_empty(), "{found:?}");
    // The program itself was read, so the look was one.
    let program = mine.iter().copied().find(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.windows(6).any(|window| window == b"try.py")
    });
    let program = program.expect("it waits for its answer");
    assert!(found.processes.contains(&program) || !rustix::process::geteuid().is_root());
    // Not asserted: what libraries wrote into buffers and gave back is not wiped.
    let left = traces::memory(&gates, SECRET);
    println!("the gate after the requests were over: {left:?}");
    world.run(&["cancel", "last"]).exits(0);
    let ended = Said::of(running.wait_with_output().expect("it ends"));
    assert!(!traces::said(&ended, SECRET));
    for command in [&["show", "last", "--json"][..], &["explain", "last"], &["logs", "last"]] {
        assert!(!traces::said(&world.run(command), SECRET), "{command:?}");
    }
    until("the owner left", || world.owner().is_none());
    no_trace(&world);
}

#[test]
fn the_value_of_a_secret_that_a_program_knows_does_not_get_out() {
    let upstream = Upstream::start();
    let program = "import base64\n\
        value = '-'.join(['value', 'of', 'the', 'vault', '4711'])\n\
        raw = value.encode()\n\
        host = 'http://api.example.test'\n\
        go('GET', host + '/v1/a?x=' + value)\n\
        go('GET', host + '/v1/' + base64.b64encode(raw).decode().rstrip('='))\n\
        go('POST', host + '/v1/b', b'{\"k\":\"' + raw.hex().encode() + b'\"}')\n\
        go('POST', host + '/v1/b', ''.join('%%%02x' % b for b in raw).encode())\n\
        def parts(*values):\n\
        \x20   headers = {'x-%d' % at: value for at, value in enumerate(values)}\n\
        \x20   request = urllib.request.Request(host + '/v1/c', headers=headers)\n\
        \x20   try: print(urllib.request.urlopen(request, timeout=30).status)\n\
        \x20   except urllib.error.HTTPError as error: print(error.code, error.read().decode())\n\
        parts(base64.b64encode(b'user:' + raw).decode())\n\
        parts(value[:9], value[9:])\n\
        first, last = b'x' * (3 << 20) + raw[:5], raw[5:] + b'after'\n\
        def stream():\n\
        \x20   yield first\n\
        \x20   yield last\n\
        length = {'content-length': str(len(first) + len(last))}\n\
        long = urllib.request.Request(host + '/v1/b', data=stream(), headers=length, method='POST')\n\
        try: print(urllib.request.urlopen(long, timeout=30).status)\n\
        except Exception as error: print('nothing:', error)\n\
        go('GET', host + '/v1/a?x=' + value[:-1])\n";
    let permits = "allow = [\"shell\", \"GET api.example.test/v1/*\", \
        \"POST api.example.test/v1/b\"]";
    let world = world(&upstream, permits, "", program);
    set_secret(&world);
    let done = world.run(&["run"]).exits(0);
    let lines = printed(&world);
    for line in &lines[..6] {
        assert!(line.starts_with("403 ") && line.contains("BP-PRIVACY-013"), "{lines:?}");
    }
    // What is longer than is read ahead is cut off before the value is whole.
    assert!(!lines[6].starts_with("200"), "{lines:?}");
    assert!(lines[7].starts_with("200 "), "all but its last letter is another text: {lines:?}");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let cut = of_kind(&world, "egress_ended");
    assert!(cut[0]["failure"].is_string(), "{cut:?}");
    let denied = of_kind(&world, "egress_decided");
    let denied: Vec<&Value> = denied.iter().filter(|r| r["verdict"] == "deny").collect();
    assert!(denied[0]["reason"].as_str().is_some_and(|why| why.contains("secret api")));
    assert_eq!(denied[0]["policies"], serde_json::json!(["privacy.vault"]));
    assert!(!denied.iter().any(|record| record.to_string().contains(SECRET)), "{denied:?}");
    assert!(done.stderr.contains("BP-PRIVACY-013"), "{}", done.stderr);
}

#[test]
fn an_asked_request_waits_on_its_connection_and_its_twin_is_asked_again() {
    let upstream = Upstream::start();
    let post = "go('POST', 'http://api.example.test/v1/issues', b'{\"title\":\"x\"}')\n";
    let permits = "allow = [\"shell\"]\nask = [\"POST api.example.test/v1/issues\"]";
    let world = world(&upstream, permits, "", &format!("{post}{post}"));
    let running = world.start(&["run"]);
    until("the request is asked about", || question(&world).is_some());
    let (first, shown) = question(&world).expect("it waits");
    assert!(shown.starts_with("POST http://api.example.test/v1/issues\n"), "{shown}");
    assert!(shown.ends_with("\n\n{\"title\":\"x\"}"), "{shown}");
    assert!(upstream.seen().is_empty(), "nothing left before the answer");
    world.run(&["approve", &first]).exits(0);
    until("the twin is asked about", || question(&world).is_some_and(|(id, _)| id != first));
    let (second, _) = question(&world).expect("it waits");
    world.run(&["deny", &second, "--reason", "once is enough"]).exits(0);
    let ended = running.wait_with_output().expect("it ends");
    assert_eq!(ended.status.code(), Some(0));
    let lines = printed(&world);
    assert!(lines[0].starts_with("200 you sent POST /v1/issues"), "{lines:?}");
    assert!(lines[1].starts_with("403 ") && lines[1].contains("BP-RUN-017"), "{lines:?}");
    assert_eq!(upstream.seen().len(), 1);
    // What is settled cannot be approved again.
    world.run(&["approve", &first]).fails(2, "BP-RUN-010");
}

#[test]
fn what_policy_permits_is_asked_when_the_same_was_sent_before() {
    let upstream = Upstream::start();
    let program = "url = 'http://api.example.test/v1/issues'\n\
        go('POST', url, b'a')\n\
        go('POST', url, b'a')\n\
        go('POST', url, b'b')\n";
    let permits = "allow = [\"shell\", \"POST api.example.test/v1/issues\"]";
    let world = world(&upstream, permits, "ask_wait = \"1s\"", program);
    world.run(&["run"]).exits(0);
    let lines = printed(&world);
    assert!(lines[0].starts_with("200 ") && lines[2].starts_with("200 "), "{lines:?}");
    assert!(lines[1].contains("BP-RUN-016"), "{lines:?}");
    let bodies: Vec<String> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, ["a", "b"]);
}

#[test]
fn what_a_command_heard_counts_for_what_it_sends_next() {
    let upstream = Upstream::start();
    let program = "go('POST', 'http://wiki.example.test/a', b'before')\n\
        go('GET', 'http://api.example.test/v1/account')\n\
        go('POST', 'http://wiki.example.test/a', b'after')\n";
    let permits = "guard = [\"trifecta\"]\nallow = [\"shell\", \"GET api.example.test/*\", \
        \"POST wiki.example.test/*\"]";
    let network =
        "ask_wait = \"1s\"\nlabels = { \"api.example.test\" = [\"confidential:accounts\"] }";
    let world = world(&upstream, permits, network, program);
    world.run(&["run"]).exits(0);
    let lines = printed(&world);
    assert!(lines[0].starts_with("200 ") && lines[1].starts_with("200 "), "{lines:?}");
    assert!(lines[2].contains("BP-RUN-016"), "{lines:?}");
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn a_request_that_nobody_answers_in_time_is_told_where_it_waits_and_an_approval_is_kept() {
    let upstream = Upstream::start();
    let program = "import time\n\
        url = 'http://api.example.test/v1/issues'\n\
        go('POST', url, b'a')\n\
        open('told', 'w').close()\n\
        go('POST', url, b'b')\n\
        go('POST', url, b'a')\n";
    let permits = "allow = [\"shell\"]\nask = [\"POST api.example.test/v1/issues\"]";
    let world = world(&upstream, permits, "ask_wait = \"1s\"", program);
    let running = world.start(&["run"]);
    until("the request is asked about", || question(&world).is_some());
    let (first, _) = question(&world).expect("it waits");
    until("the second is asked about", || {
        let all = world.run(&["approvals", "--json"]).json();
        all["approvals"].as_array().is_some_and(|all| all.len() == 2)
    });
    // The first was told 403 by now. Its approval is kept for exactly the same request.
    world.run(&["approve", &first]).exits(0);
    assert_eq!(running.wait_with_output().expect("it ends").status.code(), Some(0));
    let lines = printed(&world);
    assert!(lines[0].contains("BP-RUN-016") && lines[0].contains(&first), "{lines:?}");
    assert!(lines[1].contains("BP-RUN-016"), "{lines:?}");
    assert!(lines[2].starts_with("200 "), "{lines:?}");
    let bodies: Vec<String> = upstream.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, ["a"]);
}

#[test]
fn a_network_that_cannot_be_served_sets_the_run_aside() {
    let world = World::new();
    let turns = call("I try.", "shell", "command = \"true\"") + &say("Tried.");
    let shell = "[permissions]\nallow = [\"shell\"]\n";
    world.agent(&format!("{shell}[network]\nresolve = {{ \"a.test\" = \"nowhere\" }}\n"), &turns);
    let refused = world.run(&["run"]).exits(2);
    assert!(refused.stderr.contains("network.resolve"), "{}", refused.stderr);
    // Certificates that are none.
    world.write("no.pem", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n");
    world.agent(&format!("{shell}[network]\ntrust = [\"no.pem\"]\n"), &turns);
    let aside = world.run(&["run"]).exits(4);
    assert!(aside.stderr.contains("BP-GATE-014"), "{}", aside.stderr);
    // Something stands where the certificates should.
    world.agent(shell, &turns);
    let _ = std::fs::remove_dir_all(world.home().join("trust"));
    std::fs::write(world.home().join("trust"), "in the way").expect("written");
    let aside = world.run(&["run"]).exits(4);
    assert!(aside.stderr.contains("BP-RUN-015"), "{}", aside.stderr);
    std::fs::remove_file(world.home().join("trust")).expect("removed");
    world.run(&["resume", "last"]).exits(0);
}

/// A run in the middle of an answer without end, which asks once more when that is cut off.
fn begun_answer() -> (Upstream, World, std::process::Child) {
    let upstream = Upstream::start();
    let program = "go('GET', 'http://api.example.test/v1/long')\n\
        go('GET', 'http://api.example.test/v1/a')\n";
    let permits = "allow = [\"shell\", \"GET api.example.test/v1/*\"]";
    let world = world(&upstream, permits, "", program);
    let running = world.start(&["run"]);
    until("the answer has begun", || !upstream.seen().is_empty());
    (upstream, world, running)
}

#[test]
fn an_approved_answer_goes_on_under_a_policy_that_still_asks() {
    let upstream = Upstream::start();
    let program = "go('GET', 'http://api.example.test/v1/long')\n";
    let permits = "allow = [\"shell\"]\nask = [\"GET api.example.test/v1/*\"]";
    let world = world(&upstream, permits, "", program);
    let running = world.start(&["run"]);
    until("the request is asked about", || question(&world).is_some());
    let (id, _) = question(&world).expect("it waits");
    world.run(&["approve", &id]).exits(0);
    until("the answer has begun", || !upstream.seen().is_empty());
    world.run(&["policy", "deny", "other.example.test", ".", "--yes"]).exits(0);
    let cut_off = || !of_kind(&world, "egress_ended").is_empty();
    assert!(!cut_off(), "it was approved");
    world.run(&["policy", "deny", "api.example.test", ".", "--yes"]).exits(0);
    assert_eq!(running.wait_with_output().expect("it ends").status.code(), Some(0));
    assert!(cut_off());
    assert_eq!(of_kind(&world, "policy_changed").len(), 2);
}

#[test]
fn a_change_of_policy_cuts_off_what_is_open() {
    let (upstream, world, running) = begun_answer();
    world.run(&["policy", "deny", "api.example.test", ".", "--yes"]).exits(0);
    assert_eq!(running.wait_with_output().expect("it ends").status.code(), Some(0));
    let lines = printed(&world);
    assert_eq!(lines[0], "nothing: IncompleteRead", "{lines:?}");
    assert!(!lines[1].starts_with("200"), "{lines:?}");
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(of_kind(&world, "policy_changed").len(), 1);
}

#[test]
fn a_denied_request_is_opened_by_one_command() {
    let upstream = Upstream::start();
    let program = "go('GET', 'http://api.example.test/v1/a')\n";
    let world = world(&upstream, "allow = [\"shell\", \"GET api.example.test/v2/*\"]", "", program);
    let done = world.run(&["run"]).exits(0);
    assert!(printed(&world)[0].starts_with("403 "));
    assert!(done.stderr.contains("policy allow"), "{}", done.stderr);
    world.run(&["policy", "allow", "last", "--yes"]).exits(0);
    world.run(&["run"]).exits(0);
    assert!(printed(&world)[0].starts_with("200 "), "{:?}", printed(&world));
}

#[test]
fn what_was_in_flight_when_the_owner_died_puts_its_command_in_doubt_and_is_not_sent_again() {
    let upstream = Upstream::start();
    let program = "go('POST', 'http://api.example.test/v1/long', b'once')\n";
    let permits = "allow = [\"shell\", \"POST api.example.test/v1/*\"]";
    let world = world(&upstream, permits, "", program);
    let running = world.start(&["run"]);
    until("it has begun", || !upstream.seen().is_empty());
    world.kill_owner();
    drop(running.wait_with_output());
    world.run(&["resume", "last"]).exits(4);
    let all = world.run(&["approvals", "--json"]).exits(0).json();
    assert_eq!(all["approvals"][0]["kind"], "in_doubt", "{all}");
    let id = all["approvals"][0]["id"].as_str().expect("an id").to_owned();
    world.run(&["resolve", &id, "--abandon"]).exits(0);
    world.run(&["resume", "last"]).exits(0);
    assert_eq!(upstream.seen().len(), 1, "it was sent once");
}

/// The gate that the owner started.
pub(crate) fn gate_of(owner: i32) -> Option<i32> {
    let children = std::fs::read_to_string(format!("/proc/{owner}/task/{owner}/children")).ok()?;
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|argument| argument == b"__gate")
    })
}

#[test]
fn when_the_gate_dies_nothing_leaves_until_the_next_one_serves() {
    let (_upstream, world, running) = begun_answer();
    let gate = gate_of(world.owner().expect("it lives")).expect("a gate");
    let gate = rustix::process::Pid::from_raw(gate).expect("a pid");
    rustix::process::kill_process(gate, rustix::process::Signal::KILL).expect("killed");
    assert_eq!(running.wait_with_output().expect("it ends").status.code(), Some(0));
    let lines = printed(&world);
    assert!(lines[0].starts_with("nothing: "), "{lines:?}");
    assert!(lines[1].starts_with("200 you sent GET /v1/a"), "{lines:?}");
    let ended = of_kind(&world, "egress_ended");
    assert_eq!((&ended[0]["failure"], &ended[0]["sent"]), (&"the gate died".into(), &true.into()));
    assert_eq!(ended[1]["status"], 200);
}

/// A server that speaks TLS with a certificate of its own authority.
pub(crate) struct Secure {
    child: std::process::Child,
    pub(crate) port: u16,
    pub(crate) authority: String,
}

const SECURE: &str = r#"
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = ("secure " + self.path).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

impl Secure {
    fn start(dir: &std::path::Path) -> Self {
        Self::serving(dir, SECURE, &["api.example.test"])
    }

    /// Starts a server in Python that gets the files of its certificate and prints its port.
    pub(crate) fn serving(dir: &std::path::Path, script: &str, names: &[&str]) -> Self {
        use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("a name");
        let leaf = params.signed_by(&key, &authority).expect("a leaf");
        let (cert, secret) = (dir.join("leaf.pem"), dir.join("leaf.key"));
        std::fs::write(&cert, leaf.pem()).expect("written");
        std::fs::write(&secret, key.serialize_pem()).expect("written");
        let mut child = std::process::Command::new("python3")
            .args(["-c", script])
            .args([&cert, &secret])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        Self { child, port: line.trim().parse().expect("a port"), authority: authority.pem() }
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn tls_is_opened_with_the_sandboxs_own_authority_and_upstreams_are_verified() {
    let keys = tempfile::tempdir().expect("a directory");
    let secure = Secure::start(keys.path());
    let upstream = Upstream { port: secure.port, seen: Arc::default() };
    let program = "import socket, ssl\n\
        go('GET', 'https://api.example.test/v1/a')\n\
        go('GET', 'https://api.example.test/v2/a')\n\
        plain = socket.create_connection(('api.example.test', 443))\n\
        shown = ssl.create_default_context().wrap_socket(plain, server_hostname='api.example.test')\n\
        print([part for part in shown.getpeercert()['issuer']])\n";
    let permits = "allow = [\"shell\", \"GET api.example.test/v1/*\"]";
    let world = world(&upstream, permits, "trust = [\"ca.pem\"]", program);
    world.write("ca.pem", &secure.authority);
    world.run(&["run"]).exits(0);
    let lines = printed(&world);
    assert_eq!(lines[0], "200 secure /v1/a", "{lines:?}");
    assert!(lines[1].starts_with("403 {\"error\""), "{lines:?}");
    assert!(lines[2].contains("Bedplate sandbox"), "{lines:?}");
    // An authority that the operator does not trust: nothing is sent.
    world.write("ca.pem", "");
    world.run(&["run"]).exits(0);
    let lines = printed(&world);
    assert!(!lines[0].starts_with("200"), "{lines:?}");
    let ended = of_kind(&world, "egress_ended");
    assert_eq!((&ended[0]["sent"], &ended[0]["status"]), (&Value::Bool(false), &Value::from(0)));
}

/// Keys of a vault, as text.
const KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
const OTHER_KEY: &str = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=";

#[test]
fn a_vault_keyed_by_the_environment_serves_and_without_its_key_nothing_is_sent() {
    let upstream = Upstream::start();
    let program = "go('GET', 'http://api.example.test/v1/a')\n";
    let permits =
        "allow = [\"shell\", \"GET api.example.test/v1/*\", \"secret:api@api.example.test\"]";
    let world = world(&upstream, permits, "", program);
    let keyed = |line: &[&str], name: &str, value: &str| {
        let mut command = world.command(line);
        let mut child = command.env(name, value).stdin(std::process::Stdio::piped());
        child = child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = child.spawn().expect("it runs");
        // Who reads no input leaves at once.
        let _ = child.stdin.take().expect("piped").write_all(SECRET.as_bytes());
        Said::of(child.wait_with_output().expect("it ends"))
    };
    keyed(&["secret", "set", "api"], "BEDPLATE_VAULT_KEY", KEY).exits(0);
    let sent = || upstream.seen().into_iter().map(|seen| seen.authorization).collect::<Vec<_>>();
    let one = format!("Bearer {SECRET}");
    keyed(&["run"], "BEDPLATE_VAULT_KEY", KEY).exits(0);
    assert_eq!(sent(), [one.as_str()], "{:?}", printed(&world));
    // The path is that of the command, not of the owner.
    world.write("key", KEY);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(world.project().join("key"), mode).expect("set");
    keyed(&["run"], "BEDPLATE_VAULT_KEY_FILE", "key").exits(0);
    assert_eq!(sent(), [one.as_str(), one.as_str()], "{:?}", printed(&world));
    let check = |said: Said, code: &str| {
        assert!(said.stderr.contains(code), "{}", said.stderr);
        assert!(!said.stderr.contains("policy allow"), "{}", said.stderr);
        assert!(printed(&world)[0].starts_with("403 "), "{:?}", printed(&world));
        assert!(printed(&world)[0].contains(code), "{:?}", printed(&world));
        let denied = of_kind(&world, "egress_decided");
        assert_eq!(
            (&denied[0]["verdict"], &denied[0]["failure"]["code"]),
            (&"deny".into(), &code.into())
        );
        assert_eq!(sent().len(), 2, "nothing was sent");
    };
    check(world.run(&["run"]).exits(0), "BP-VAULT-004");
    check(keyed(&["run"], "BEDPLATE_VAULT_KEY", OTHER_KEY).exits(0), "BP-VAULT-006");
    check(keyed(&["run"], "BEDPLATE_VAULT_KEY", "no key").exits(0), "BP-VAULT-004");
    world.run(&["secret", "rm", "api"]).exits(0);
    check(keyed(&["run"], "BEDPLATE_VAULT_KEY", KEY).exits(0), "BP-VAULT-002");
}
