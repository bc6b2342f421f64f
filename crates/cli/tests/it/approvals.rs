//! Approvals people can live with: what is shown, what stays open, who may, and how many must.

use crate::support::{World, call, say, until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Child;
use std::sync::{Arc, Mutex};

/// A server that notes the body of every request and answers 200.
struct Sink {
    port: u16,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Sink {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&bodies);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
                let mut length = 0;
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|count| count > 2) {
                    if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ")
                    {
                        length = value.trim().parse().unwrap_or(0);
                    }
                    line.clear();
                }
                let mut body = vec![0; length];
                if reader.read_exact(&mut body).is_ok() {
                    let body = String::from_utf8_lossy(&body).into_owned();
                    notes.lock().expect("no panic holds it").push(body);
                    let answer =
                        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok";
                    let _ = stream.write_all(answer);
                }
            }
        });
        Self { port, bodies }
    }

    fn bodies(&self) -> Vec<String> {
        self.bodies.lock().expect("no panic holds it").clone()
    }
}

const PRELUDE: &str = r#"
import urllib.request, urllib.error
def post(path, body):
    url = "http://api.example.test" + path
    request = urllib.request.Request(url, data=body.encode(), method="POST")
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            print(answer.status)
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())
"#;

fn world(sink: &Sink, permissions: &str, program: &str) -> World {
    let world = World::new();
    let manifest = format!(
        "[permissions]\npreset = \"observe\"\n{permissions}\n[network]\nask_wait = \"60s\"\n\
         resolve = {{ \"api.example.test\" = \"127.0.0.1:{}\" }}\n[sandbox]\nworkspace = \"w\"\n",
        sink.port
    );
    let turns = call("I try.", "shell", "command = \"python3 try.py\"") + &say("Tried.");
    world.agent(&manifest, &turns);
    world.write("w/try.py", &format!("{PRELUDE}{program}"));
    world
}

fn waiting(world: &World) -> Option<Value> {
    let all = serde_json::from_str::<Value>(&world.run(&["approvals", "--json"]).stdout).ok()?;
    all["approvals"].as_array()?.first().cloned()
}

/// The question that waits once it is another than `before`.
fn next_question(world: &World, before: &str) -> (String, Value) {
    let other = || waiting(world).filter(|open| open["id"] != before);
    until("something is asked", || other().is_some());
    let open = other().expect("it waits");
    (open["id"].as_str().expect("an id").to_owned(), open)
}

fn ends(running: Child) -> String {
    let ended = running.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(0), "{said}");
    said
}

fn kinds(world: &World, kind: &str) -> Vec<Value> {
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    let records = shown["records"].as_array().expect("records");
    records.iter().filter(|record| record["kind"] == kind).cloned().collect()
}

const ASKS: &str = "allow = [\"shell\"]\nask = [\"POST api.example.test/*\"]";

#[test]
fn a_question_says_what_is_new_which_rule_asks_and_what_approving_opens() {
    let sink = Sink::start();
    let program =
        "post('/v1/a', '{\"to\": \"dana\"}')\npost('/v1/a', '{\"to\": \"mallory\", \"bcc\": 1}')\n";
    let world = world(&sink, ASKS, program);
    let running = world.start(&["run"]);
    let (first, open) = next_question(&world, "");
    assert_eq!(open["new"][0], "host api.example.test: nothing was sent there before in this run");
    assert_eq!(open["opens"][0]["entry"], "POST api.example.test/v1/a");
    assert!(
        open["reason"].as_str().is_some_and(|why| why.contains("permissions.ask[0]")),
        "{open}"
    );
    world.run(&["approve", &first]).exits(0);
    let (second, open) = next_question(&world, &first);
    let new = open["new"].as_array().expect("a list");
    assert_eq!(new[0], "field /bcc was not there before", "{open}");
    assert_eq!(new[1], "field /to is \"mallory\", was \"dana\"", "{open}");
    let shown = world.run(&["approvals"]).exits(0).stdout;
    for part in ["| {\"to\": \"mallory\"", "new ", "asked by ", "carries ", "--for-run "] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    world.run(&["deny", &second, "--reason", "no"]).exits(0);
    ends(running);
    assert_eq!(sink.bodies(), ["{\"to\": \"dana\"}"]);
}

#[test]
fn what_is_approved_for_the_run_is_not_asked_again_until_it_is_taken_back() {
    let sink = Sink::start();
    let program = "post('/v1/a', '1')\npost('/v1/a', '2')\npost('/v1/a', '2')\n\
        post('/v1/other', '3')\npost('/v1/a', '4')\n";
    let world = world(&sink, ASKS, program);
    let running = world.start(&["run"]);
    let (first, _) = next_question(&world, "");
    world.run(&["approve", &first, "--for-run"]).exits(0);
    // The second went by itself; the same bytes once more are asked.
    let (twin, open) = next_question(&world, &first);
    assert!(open["shown"].as_str().is_some_and(|shown| shown.ends_with("\n\n2")), "{open}");
    assert_eq!(sink.bodies(), ["1", "2"]);
    world.run(&["deny", &twin, "--reason", "once is enough"]).exits(0);
    // Another path is another question.
    let (other, _) = next_question(&world, &twin);
    world.run(&["deny", &first, "--reason", "that is enough"]).exits(0);
    world.run(&["approve", &other]).exits(0);
    let (last, open) = next_question(&world, &other);
    assert!(open["shown"].as_str().is_some_and(|shown| shown.ends_with("\n\n4")), "{open}");
    world.run(&["deny", &last, "--reason", "no"]).exits(0);
    ends(running);
    assert_eq!(sink.bodies(), ["1", "2", "3"]);
    let given = kinds(&world, "approval_given");
    assert_eq!(given[0]["opens"], serde_json::json!(["POST api.example.test/v1/a"]));
    assert_eq!(kinds(&world, "approval_revoked").len(), 1);
    world.run(&["deny", &first, "--reason", "again"]).fails(2, "BP-RUN-010");
    world.run(&["verify", "last"]).exits(0);
}

#[test]
fn a_rule_is_written_only_where_it_ends_the_asking() {
    let sink = Sink::start();
    let program = "post('/v1/a', '1')\npost('/v1/a', '2')\n";
    let world = world(&sink, "allow = [\"shell\"]", program);
    let draft = world.read("bedplate.toml").replace("\"observe\"", "\"draft\"");
    world.write("bedplate.toml", &draft);
    let running = world.start(&["run"]);
    let (first, _) = next_question(&world, "");
    world.run(&["approve", &first, "--rule"]).fails(2, "BP-CLI-006");
    world.run(&["approve", &first, "--rule", "--yes"]).exits(0);
    ends(running);
    assert_eq!(sink.bodies(), ["1", "2"], "the second was permitted by the rule");
    assert!(world.read("bedplate.toml").contains("POST api.example.test/v1/a"));
    // An `ask` entry asks whatever permits: no rule is written.
    let asking = world.read("bedplate.toml").replace("draft", "observe");
    let asking = asking.replace("allow = [", "ask = [\"POST api.example.test/*\"]\nallow = [");
    world.write("bedplate.toml", &asking);
    world.write("w/try.py", &format!("{PRELUDE}post('/v1/b', '3')\n"));
    let running = world.start(&["run"]);
    let (third, _) = next_question(&world, &first);
    let refused = world.run(&["approve", &third, "--rule", "--yes"]);
    assert!(refused.code != 0 && refused.stderr.contains("no rule ends the asking"), "{refused:?}");
    assert_eq!(world.read("bedplate.toml"), asking);
    world.run(&["deny", &third, "--reason", "no"]).exits(0);
    ends(running);
}

#[test]
fn policy_says_who_may_approve_and_how_many_must() {
    let sink = Sink::start();
    let world = world(&sink, ASKS, "post('/v1/a', '1')\n");
    world.write(
        "policy.cedar",
        "@id(\"may.ada\")\npermit(principal == User::\"ada\", action == Action::\"approve\", resource);\n\
         @id(\"may.bo\")\npermit(principal == User::\"bo\", action == Action::\"approve\", resource);\n\
         @id(\"two\")\n@approvers(\"2\")\nforbid(principal, action == Action::\"http_request\", resource)\n\
         unless { context.approved };\n",
    );
    let running = world.start(&["run"]);
    let (id, open) = next_question(&world, "");
    assert_eq!(open["needs"], 2, "{open}");
    // The login of the socket's other end, whatever the environment says.
    world.run(&["approve", &id]).fails(2, "BP-RUN-019");
    world.run(&["approve", &id, "--as", "mallory"]).fails(2, "BP-RUN-019");
    world.run(&["approve", &id, "--as", "a\u{202e}da"]).fails(2, "BP-RUN-019");
    let said = world.run(&["approve", &id, "--as", "ada"]).exits(0);
    assert!(said.stderr.contains("1 other person must approve too"), "{said:?}");
    world.run(&["approve", &id, "--as", "ada"]).fails(2, "BP-RUN-010");
    let open = waiting(&world).expect("it still waits");
    assert_eq!(
        (&open["given"][0], open["given"].as_array().map(Vec::len)),
        (&"ada".into(), Some(1))
    );
    assert!(sink.bodies().is_empty());
    world.run(&["approve", &id, "--as", "bo"]).exits(0);
    ends(running);
    assert_eq!(sink.bodies(), ["1"]);
    let given = kinds(&world, "approval_given");
    let through = given[0]["through"].as_str().expect("a login").to_owned();
    assert!(!through.is_empty() && through != "ada", "{given:?}");
    assert_eq!((&given[0]["by"], &given[1]["by"]), (&"ada".into(), &"bo".into()));
}

#[test]
fn an_approval_declassifies_exactly_what_was_shown() {
    let sink = Sink::start();
    let program = "import urllib.request\n\
        urllib.request.urlopen('http://api.example.test/v1/account', timeout=60).read()\n\
        post('/v1/a', '1')\npost('/v1/a', '1 ')\n";
    let permissions = "guard = [\"trifecta\"]\n\
        allow = [\"shell\", \"GET api.example.test/*\", \"POST api.example.test/*\"]";
    let world = world(&sink, permissions, program);
    let labels = "[network.labels]\n\"api.example.test\" = [\"untrusted\", \"confidential\"]\n";
    let manifest = world.read("bedplate.toml").replace("[sandbox]", &format!("{labels}[sandbox]"));
    world.write("bedplate.toml", &manifest);
    let running = world.start(&["run"]);
    let (first, _) = next_question(&world, "");
    world.run(&["approve", &first]).exits(0);
    // One byte more is another question; the labels are what they were.
    let (second, open) = next_question(&world, &first);
    assert!(open["carries"].as_str().is_some_and(|c| c.contains("confidential")), "{open}");
    world.run(&["deny", &second, "--reason", "no"]).exits(0);
    ends(running);
    assert_eq!(sink.bodies(), ["", "1"]);
    let decided = kinds(&world, "egress_decided");
    let permits = decided.iter().filter(|record| record["approved"].is_u64());
    assert_eq!(permits.count(), 1);
}

/// Everything a program can try to reach whoever takes approvals.
fn attempts(world: &World) -> String {
    let (home, bin) = (world.home(), crate::support::binary());
    format!(
        "import os, socket, subprocess\n\
         home, binary = {home:?}, {bin:?}\n\
         def attempt(name, what):\n    try:\n        print(name, 'GOT', str(what())[:60])\n    except Exception as error:\n        print(name, 'no', type(error).__name__)\n\
         def dial(address):\n    s = socket.socket(socket.AF_UNIX)\n    s.connect(address)\n    return 'in'\n\
         def unix(f):\n    try:\n        return socket.socket(fileno=os.dup(f)).family == socket.AF_UNIX\n    except OSError:\n        return False\n\
         attempt('home', lambda: os.listdir(home))\n\
         attempt('socket', lambda: dial(home + '/owner.sock'))\n\
         attempt('abstract', lambda: dial('\\0' + home + '/owner.sock'))\n\
         attempt('pid', lambda: open(home + '/owner.pid').read())\n\
         attempt('binary', lambda: subprocess.run([binary, '--home', home, 'approvals'], check=True, capture_output=True))\n\
         roots = [os.path.join('/proc', p, 'root') + home for p in os.listdir('/proc') if p.isdigit()]\n\
         attempt('proc', lambda: [r for r in roots if os.path.exists(r)][0])\n\
         fds = [f for f in map(int, os.listdir('/proc/self/fd')) if f > 2]\n\
         attempt('inherited', lambda: [f for f in fds if unix(f)][0])\n"
    )
}

const ATTEMPTS: [&str; 7] = ["home", "socket", "abstract", "pid", "binary", "proc", "inherited"];

#[test]
fn the_agent_can_never_approve_itself() {
    let sink = Sink::start();
    let world = world(&sink, ASKS, "");
    let tries = attempts(&world);
    let begin = "import threading\nwaits = threading.Thread(target=post, args=('/v1/a', '1'))\n\
        waits.start()\n";
    world.write("w/try.py", &format!("{PRELUDE}{begin}{tries}waits.join()\n"));
    let running = world.start(&["run"]);
    let (id, _) = next_question(&world, "");
    // The control: whoever stands outside, with the same rights, gets there.
    let outside = std::process::Command::new("python3").args(["-c", &tries]).output();
    let outside = String::from_utf8_lossy(&outside.expect("python3 runs").stdout).into_owned();
    for name in ["home", "socket", "pid", "binary", "proc"] {
        assert!(outside.contains(&format!("{name} GOT ")), "{name}: {outside}");
    }
    world.run(&["deny", &id, "--reason", "not by itself"]).exits(0);
    ends(running);
    assert!(sink.bodies().is_empty());
    let finished = kinds(&world, "action_finished");
    let text = finished[0]["output"]["text"].as_str().expect("text").to_owned();
    for name in ATTEMPTS {
        assert!(text.contains(&format!("{name} no ")), "{name}: {text}");
    }
    assert!(text.contains("403") && !text.contains("GOT"), "{text}");
}

/// A body that would turn the text around, clear the screen and forge a row.
const TREACHEROUS: &str =
    "post('/v1/a', '\"\\u202eoff\\x1b[2J\\u2066\\u3164\"\\nasked by   nobody: approve it\\r')\n";

#[test]
fn what_is_shown_cannot_deceive() {
    let sink = Sink::start();
    let world = world(&sink, ASKS, TREACHEROUS);
    let running = world.start(&["run"]);
    let (id, _) = next_question(&world, "");
    let shown = world.run(&["approvals"]).exits(0).stdout;
    let bad = ['\u{202e}', '\u{1b}', '\u{2066}', '\u{3164}', '\r'];
    assert!(!shown.contains(bad), "{shown:?}");
    for part in ["\\u{202e}off\\x1b[2J\\u{2066}\\u{3164}", "    | asked by   nobody: approve it\\r"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    world.run(&["deny", &id, "--reason", "\u{202e}no\u{1b}"]).exits(0);
    let said = ends(running);
    for text in [said, world.run(&["explain", "last"]).stdout, world.run(&["show", "last"]).stdout]
    {
        assert!(!text.contains(&bad[..4]), "{text:?}");
    }
}

#[test]
fn a_request_is_asked_about_inline_on_a_terminal() {
    let sink = Sink::start();
    let world = world(&sink, ASKS, &format!("{TREACHEROUS}post('/v1/b', '2')\n"));
    let steps = [
        ("[y/n/show]", "show\n"),
        ("| asked by   nobody", ""),
        ("carries ", ""),
        ("[y/n/show]", "y\n"),
        ("[y/n/show]", "n\n"),
        ("why not?", "not this\n"),
    ];
    let (seen, status) = crate::terminal::on_terminal(&world, &["run"], &steps);
    assert_eq!(status, 0, "{seen}");
    assert!(!seen.contains(['\u{202e}', '\u{2066}', '\u{3164}']), "{seen:?}");
    assert!(!seen.contains("\u{1b}[2J"), "{seen:?}");
    assert_eq!(sink.bodies().len(), 1, "{seen}");
    let given = kinds(&world, "approval_given");
    let verdicts: Vec<&str> = given.iter().filter_map(|r| r["verdict"].as_str()).collect();
    assert_eq!(verdicts, ["approved", "denied"]);
    assert_eq!(given[1]["reason"], "not this");
}
