//! Steps: a loop of others' with the gate and the log. First over HTTP, then as a program of the
//! Python client that is killed at many moments, with its owner and its server.

use crate::serve::Server;
use crate::support::{World, call, say, until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// Moments of the quick suite; `BEDPLATE_KILLS` names another number.
const KILLS: u64 = 20;
/// Where the moments come from; `BEDPLATE_SEED` names another.
const SEED: u64 = 0x5eed;
/// Longest pause between a record and the kill that it sets off, in microseconds.
const JITTER_US_MAX: u64 = 30_000;

/// An agent with two tools: one is asked about, one is charged for at once.
fn world() -> World {
    let world = World::new();
    let more = "[permissions]\npreset = \"observe\"\nallow = [\"pay\"]\nask = [\"ticket\"]\n\
        [[tool]]\nname = \"ticket\"\ndescription = \"x\"\ncommand = [\"./ticket\"]\neffect = \"irreversible\"\n\
        [[tool]]\nname = \"pay\"\ndescription = \"x\"\ncommand = [\"./pay\"]\neffect = \"irreversible\"\n\
        [[tool]]\nname = \"other\"\ndescription = \"x\"\ncommand = [\"./pay\"]\neffect = \"irreversible\"\n\
        [[check]]\nname = \"fine\"\ncommand = \"test -f made\"\n";
    // The caller's own calls count as turns, so these are picked by what came last.
    let when = |text: &str, turn: String| {
        turn.replace("[[turn]]", &format!("[[turn]]\nwhen = {{ contains = \"{text}\" }}"))
    };
    let turns = [when("Go.", call("I pay.", "pay", "sum = 3")), when("no tool", say("Paid."))];
    world.agent(more, &turns.concat());
    world.program("ticket", "#!/bin/sh\necho one >> tickets\necho '{}'\n");
    world.program("pay", "#!/bin/sh\ncat >> paid\necho >> paid\necho '{\"paid\": true}'\n");
    world
}

/// A caller over HTTP.
struct Caller<'a> {
    server: &'a Server<'a>,
    run: String,
    opening: String,
}

impl<'a> Caller<'a> {
    fn open(server: &'a Server<'a>, world: &World, key: &str) -> Self {
        let body = json!({ "key": key, "agent": world.project() });
        let opened = server.post("/v1/steps/runs", &body).is(200);
        let word = |name: &str| opened[name].as_str().expect("a word").to_owned();
        Self { server, run: word("run"), opening: word("opening") }
    }

    fn ask(&self, at: u64, step: &Value) -> crate::serve::Answer {
        let body = json!({ "opening": self.opening, "at": at, "step": step, "wait_ms": 30_000 });
        self.server.post(&format!("/v1/steps/runs/{}/steps", self.run), &body)
    }

    fn take(&self, at: u64, step: &Value) -> Value {
        let told = self.ask(at, step).is(200);
        assert_eq!((&told["done"], &told["at"]), (&json!(true), &json!(at)), "{told}");
        told
    }
}

fn exec(command: &str) -> Value {
    json!({ "type": "exec", "command": command })
}

fn tool(name: &str) -> Value {
    json!({ "type": "tool", "name": name, "arguments": {} })
}

#[test]
fn steps_pass_the_gate_are_recorded_and_are_answered_again_from_the_log() {
    let world = world();
    let server = Server::start(&world);
    let caller = Caller::open(&server, &world, "job/1");
    let model = caller.take(0, &json!({ "type": "model", "input": "Go." }));
    let called = model["outcome"]["calls"][0].clone();
    assert_eq!((&called["name"], &called["arguments"]), (&json!("pay"), &json!({ "sum": 3 })));
    let carried = json!({
        "type": "tool", "name": "pay", "arguments": { "sum": 3 }, "call_id": called["call_id"],
    });
    let paid = caller.take(1, &carried);
    assert_eq!(paid["outcome"]["output"], r#"{"paid":true}"#, "{paid}");
    let made = caller.take(2, &exec("echo hello > made; cat made; exit 3"));
    let outcome = &made["outcome"];
    assert_eq!((&outcome["status"], &outcome["exit"]), (&json!("failed"), &json!(3)), "{made}");
    assert!(outcome["output"].as_str().expect("text").starts_with("hello\n"), "{made}");
    let checked = caller.take(3, &json!({ "type": "check", "name": "fine" }));
    assert_eq!(checked["outcome"]["status"], "ok", "{checked}");
    let denied = caller.take(4, &tool("other"));
    assert_eq!(denied["outcome"]["status"], "denied", "{denied}");
    let refused = caller.take(5, &tool("shall"));
    assert_eq!(refused["outcome"]["status"], "refused", "{refused}");
    let said = caller.take(6, &json!({ "type": "model" }));
    assert_eq!(said["outcome"]["text"], "Paid.");
    let end = json!({ "type": "end", "status": "done", "output": "All paid." });
    let ended = caller.take(7, &end);
    let result = &ended["outcome"]["result"];
    assert_eq!((&result["status"], &result["output"]), (&json!("done"), &json!("All paid.")));
    // Another program, another owner: the same answers, and nothing is done again.
    world.kill_owner();
    let again = Caller::open(&server, &world, "job/1");
    assert_eq!(again.run, caller.run);
    let steps = [(0, &model), (2, &made), (4, &denied), (7, &ended)];
    let asked = [
        json!({ "type": "model", "input": "Go." }),
        exec("echo hello > made; cat made; exit 3"),
        tool("other"),
        end,
    ];
    for ((at, before), step) in steps.into_iter().zip(&asked) {
        let now = again.take(at, step);
        assert_eq!((&now["outcome"], &now["replayed"]), (&before["outcome"], &json!(true)));
    }
    again.ask(8, &exec("true")).fails(409, "BP-SERVE-016");
    let shown = world.run(&["show", &caller.run, "--json"]).exits(0).json();
    let last = shown["records"].as_array().and_then(|all| all.last()).expect("a record");
    assert_eq!(last["kind"], "run_ended", "reading adds nothing to a log that has ended");
    assert_eq!(world.read("paid").lines().count(), 1);
    world.run(&["verify", &caller.run]).exits(0);
    let shown = world.run(&["show", &caller.run]).exits(0);
    assert!(shown.stdout.contains("step_taken"), "{}", shown.stdout);
}

#[test]
fn a_step_that_differs_or_is_out_of_turn_is_refused_and_named() {
    let world = world();
    let server = Server::start(&world);
    let caller = Caller::open(&server, &world, "job/2");
    caller.take(0, &exec("echo one"));
    let told = caller.ask(0, &exec("echo two")).fails(409, "BP-SERVE-009");
    let message = told["error"]["message"].as_str().expect("text");
    assert!(
        message.contains("exec \"echo one\"") && message.contains("exec \"echo two\""),
        "{told}"
    );
    caller.ask(2, &exec("true")).fails(409, "BP-SERVE-010");
    let none = json!({ "type": "tool", "name": "pay", "arguments": {}, "call_id": "c" });
    caller.ask(1, &none).fails(409, "BP-SERVE-014");
    caller.ask(1, &json!({ "type": "exec" })).fails(400, "BP-SERVE-005");
    let newer = Caller::open(&server, &world, "job/2");
    caller.ask(1, &exec("true")).fails(409, "BP-SERVE-011");
    newer.take(1, &exec("true"));
    let other = json!({ "opening": "x", "at": 0, "step": exec("true") });
    let run = server.run();
    server.post(&format!("/v1/steps/runs/{run}/steps"), &other).fails(409, "BP-SERVE-012");
    let bad = json!({ "key": "a b", "agent": world.project() });
    server.post("/v1/steps/runs", &bad).fails(422, "BP-SERVE-015");
}

#[test]
fn a_step_waits_for_its_person_and_a_cancelled_run_says_so() {
    let world = world();
    let server = Server::start(&world);
    let caller = Caller::open(&server, &world, "job/3");
    let path = format!("/v1/steps/runs/{}/steps", caller.run);
    let body = json!({ "opening": caller.opening, "at": 0, "step": tool("ticket"), "wait_ms": 0 });
    let mut waiting = Value::Null;
    until("it waits", || {
        waiting = server.post(&path, &body).is(202);
        waiting["status"] == "waiting"
    });
    let id = waiting["approvals"][0]["id"].as_str().expect("an id");
    assert!(!world.project().join("tickets").exists());
    // The answer comes while the step is waited for, and under another owner.
    world.kill_owner();
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| caller.take(0, &tool("ticket")));
        server.post(&format!("/v1/approvals/{id}/approve"), &json!({})).is(202);
        let opened = asked.join().expect("answered");
        assert_eq!(opened["outcome"]["status"], "ok", "{opened}");
    });
    assert_eq!(world.read("tickets").lines().count(), 1);
    let body = json!({ "opening": caller.opening, "at": 1, "step": tool("ticket"), "wait_ms": 0 });
    until("it waits again", || server.post(&path, &body).is(202)["status"] == "waiting");
    server.post(&format!("/v1/runs/{}/cancel", caller.run), &json!({})).is(202);
    server.until(&caller.run, "cancelled");
    caller.ask(1, &tool("ticket")).fails(409, "BP-SERVE-016");
    caller.take(0, &tool("ticket"));
    let gave_up = Caller::open(&server, &world, "job/4");
    let end = json!({ "type": "end", "status": "failed", "output": "no way" });
    let ended = gave_up.take(0, &end);
    let error = &ended["outcome"]["result"]["error"];
    assert_eq!(error["code"], "BP-SERVE-013", "{ended}");
}

pub(crate) fn source(path: &str) -> PathBuf {
    let root = std::env::var_os("BEDPLATE_SOURCE").map(PathBuf::from);
    root.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")).join(path)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// A Python program of the client, in this world.
pub(crate) fn python(world: &World, arguments: &[&str]) -> Child {
    Command::new("python3")
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("PYTHONPATH", source("clients/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("BEDPLATE_HOME", world.home())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("python3 is among what the tests bring")
}

/// Which process dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Program,
    Owner,
    Server,
}

/// What a life of the example comes to, seen from outside.
#[derive(Debug, PartialEq)]
struct Outcome {
    output: String,
    /// Lines of the register of each order.
    charges: BTreeMap<String, usize>,
    note: String,
}

/// Prints the number of each record as the client's iterator gives it.
const FOLLOW: &str = "
import sys
from bedplate import Client
for record in Client().run(sys.argv[1]).events():
    print(record['seq'], flush=True)
";

/// The numbers that the client's iterator has given so far.
struct Followed {
    child: Child,
    seen: Arc<Mutex<Vec<u64>>>,
    reader: std::thread::JoinHandle<()>,
}

impl Followed {
    fn start(world: &World, run: &str) -> Self {
        let mut child = python(world, &["-c", FOLLOW, run]);
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                told.lock().expect("whole").push(line.parse().expect("a number"));
            }
        });
        Self { child, seen, reader }
    }

    fn count(&self) -> usize {
        self.seen.lock().expect("whole").len()
    }

    /// Every number, once the run has ended.
    fn finish(mut self) -> Vec<u64> {
        assert!(self.child.wait().expect("ends").success());
        self.reader.join().expect("read");
        self.seen.lock().expect("whole").clone()
    }
}

/// The example program, begun.
struct Program {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    run: String,
}

impl Program {
    fn start(world: &World) -> Self {
        let program = source("clients/python/examples/orders.py");
        let project = world.project();
        let arguments = [&program, &project].map(|path| path.to_str().expect("UTF-8").to_owned());
        let mut child = python(world, &[&arguments[0], &arguments[1], "orders-1"]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut first = String::new();
        lines.read_line(&mut first).expect("its first line");
        let run = first.split([' ', ',']).nth(1).unwrap_or_default().to_owned();
        Self { child, lines, run }
    }

    /// What it says after its first line, and that it did its work.
    fn finish(mut self) -> String {
        let mut said = String::new();
        self.lines.read_to_string(&mut said).expect("text");
        assert!(self.child.wait().expect("ends").success(), "{said}");
        said
    }

    fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One life of the example: killed once its stream has this many records and a moment has passed.
fn life(kill: Option<(Victim, usize, u64)>) -> (Outcome, usize) {
    let world = World::new();
    copy(&source("clients/python/examples/orders"), &world.project());
    let mut server = Some(Server::start(&world));
    let mut program = Program::start(&world);
    let run = program.run.clone();
    let followed = Followed::start(&world, &run);
    if let Some((victim, records, jitter_us)) = kill {
        until("the moment", || followed.count() >= records);
        pause(jitter_us);
        match victim {
            Victim::Program => {
                program.kill();
                program = Program::start(&world);
            }
            Victim::Owner => world.kill_owner(),
            Victim::Server => {
                drop(server.take());
                server = Some(Server::start(&world));
            }
        }
    }
    let output = program.finish();
    let seen = followed.finish();
    let shown = world.run(&["show", &run, "--json"]).exits(0).json();
    let records = shown["records"].as_array().expect("records").len();
    let all: Vec<u64> = (0..records as u64).collect();
    assert_eq!(seen, all, "{kill:?}: a gap or a duplicate");
    world.run(&["verify", &run]).exits(0);
    let mut charges: BTreeMap<String, usize> = BTreeMap::new();
    for line in world.read("charges.log").lines() {
        let (_, order) = line.split_once(' ').expect("a key and an order");
        *charges.entry(order.to_owned()).or_default() += 1;
    }
    let note = world.home().join("artifacts").join(&run).join("note.md");
    let note = std::fs::read_to_string(note).expect("a note");
    drop(server);
    (Outcome { output, charges, note }, records)
}

fn pause(jitter_us: u64) {
    let nanos = i64::try_from(jitter_us * 1_000).expect("short");
    let nobody = rustix::event::Timespec { tv_sec: 0, tv_nsec: nanos };
    let _ = rustix::event::poll(&mut [], Some(&nobody));
}

fn named(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
}

/// Numbers from a seed: splitmix64.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

#[test]
fn a_program_of_steps_killed_anywhere_does_each_effect_once() {
    let (calm, records) = life(None);
    assert_eq!(calm.charges.len(), 3, "{calm:?}");
    assert!(calm.charges.values().all(|count| *count == 1), "{calm:?}");
    let mut chance = Chance(named("BEDPLATE_SEED", SEED));
    for number in 0..named("BEDPLATE_KILLS", KILLS) {
        let victim = [Victim::Program, Victim::Owner, Victim::Server][(number % 3) as usize];
        // Short of the end, so that there is somebody to kill.
        let at = usize::try_from(chance.below(records as u64 - 2)).expect("small");
        let kill = (victim, at, chance.below(JITTER_US_MAX));
        let (outcome, _) = life(Some(kill));
        assert_eq!(outcome, calm, "moment {number}: {kill:?}");
    }
}
