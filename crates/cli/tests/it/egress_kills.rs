//! `kill -9` of the gate, of the owner and of both, under load from inside a sandbox: what left was
//! recorded before, nothing irreversible left twice, and the next request works.
//!
//! Where the blow falls is drawn from a seed, by how many requests the server outside has had. The
//! judge looks only at what is outside: the server's own count, and the log as `show` gives it.
//! `BEDPLATE_KILLS` asks for more blows than the usual, `BEDPLATE_SEED` for others.

use crate::network::{Upstream, gate_of};
use crate::support::{World, call, say, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Child;

/// Blows that a test deals when nothing else is asked for.
const KILLS: u32 = 30;
const SEED: u64 = 20_261_121;
/// Requests of one program: a read and a write by turns.
const REQUESTS: u32 = 48;
/// Gates of one owner that are killed: a gate that keeps dying is given up.
const GATES_KILLED_MAX: u32 = 3;
/// Times a run is taken up again before it counts as stuck.
const RESUMES_MAX: u32 = 12;
/// Runs for which no blow fell in time, before the test is taken to be broken.
const MISSES_MAX: u32 = 20;

/// Reads are tried until they work, writes twice: the second is the same to the letter.
const LOAD: &str = r#"
import http.client, threading
pause = threading.Event()
def once(method, path):
    try:
        link = http.client.HTTPConnection("api.example.test", timeout=20)
        link.request(method, path, body=b"x" if method == "POST" else None)
        answer = link.getresponse()
        answer.read()
        return answer.status
    except OSError:
        return 0
    except http.client.HTTPException:
        return 0
def until_read(path):
    for _ in range(200):
        if once("GET", path) == 200:
            return "read"
        pause.wait(0.02)
    return "never read"
def work(first):
    for number in range(first, REQUESTS, 4):
        if number % 2:
            until_read("/v1/r%d" % number)
        elif once("POST", "/v1/w%d" % number) != 200:
            once("POST", "/v1/w%d" % number)
threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("last:", until_read("/v1/last"))
"#;

/// A small generator: the same seed, the same blows.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u32) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from((self.0 >> 33) % u64::from(count)).expect("below a u32")
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Gate,
    Owner,
    Both,
}

fn asked(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

fn loaded_world(upstream: &Upstream) -> World {
    let world = World::new();
    let permits =
        "allow = [\"shell\", \"GET api.example.test/v1/*\", \"POST api.example.test/v1/*\"]";
    let manifest = format!(
        "[permissions]\n{permits}\n[network]\nask_wait = \"50ms\"\n\
         resolve = {{ \"api.example.test\" = \"127.0.0.1:{}\" }}\n[sandbox]\nworkspace = \"w\"\n",
        upstream.port
    );
    let turns = call("I try.", "shell", "command = \"python3 load.py\"") + &say("Tried.");
    world.agent(&manifest, &turns);
    world.write("w/load.py", &format!("REQUESTS = {REQUESTS}\n{LOAD}"));
    world
}

fn kill(pid: i32) -> bool {
    let pid = Pid::from_raw(pid).expect("a pid");
    kill_process(pid, Signal::KILL).is_ok()
}

/// Deals one blow once the server has had `after` requests; how many processes died of it.
fn strike(
    world: &World,
    running: &mut Child,
    upstream: &Upstream,
    after: usize,
    victim: Victim,
) -> u32 {
    let mut over = false;
    until("the load is there", || {
        over = running.try_wait().expect("a child").is_some();
        over || upstream.seen().len() >= after
    });
    let Some(owner) = world.owner().filter(|_| !over) else { return 0 };
    let gate = gate_of(owner).filter(|_| victim != Victim::Owner);
    let mut died = u32::from(gate.is_some_and(kill));
    if victim != Victim::Gate {
        died += u32::from(kill(owner));
        world.kill_owner();
    }
    died
}

/// Takes the run up until it is at rest; what is in doubt is said not to have happened, so that
/// the command is done again and tries to send everything again.
fn finish(world: &World) {
    for _ in 0..RESUMES_MAX {
        let said = world.run(&["resume", "last", "--json"]);
        if said.code == 0 {
            return;
        }
        let open = world.run(&["approvals", "--json"]).exits(0).json();
        for one in open["approvals"].as_array().into_iter().flatten() {
            if one["kind"] == "in_doubt" {
                let id = one["id"].as_str().expect("an id");
                world.run(&["resolve", id, "--not-happened"]).exits(0);
            }
        }
    }
    panic!("the run does not end: {:?}", world.run(&["show", "last"]));
}

fn records(world: &World) -> Vec<Value> {
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    shown["records"].as_array().expect("records").clone()
}

fn judge(world: &World, upstream: &Upstream, what: &str) {
    let records = records(world);
    let mut permitted: BTreeMap<String, u32> = BTreeMap::new();
    for record in records.iter().filter(|record| record["kind"] == "egress_decided") {
        if record["verdict"] == "permit" {
            let request = &record["request"];
            let line = format!("{} {}", request["method"], request["path"]).replace('"', "");
            *permitted.entry(line).or_default() += 1;
        }
    }
    let mut arrived: BTreeMap<String, u32> = BTreeMap::new();
    for seen in upstream.seen() {
        let line = seen.line.trim_end_matches(" HTTP/1.1").to_owned();
        *arrived.entry(line).or_default() += 1;
    }
    for (line, count) in &arrived {
        let recorded = permitted.get(line).copied().unwrap_or(0);
        assert!(*count <= recorded, "{what}: {line} came {count} times, {recorded} are recorded");
        let once = !line.starts_with("POST") || *count == 1;
        assert!(once, "{what}: {line} came {count} times");
    }
    let outputs = records.iter().filter(|record| record["kind"] == "action_finished");
    let last = outputs.filter_map(|record| record["output"]["text"].as_str()).next_back();
    assert!(last.is_some_and(|text| text.contains("last: read")), "{what}: {last:?}");
    world.run(&["verify", "last"]).exits(0);
    until("nothing is left", || world.owner().is_none());
}

/// One run with its blows; how many processes died of them.
fn round(dice: &mut Dice, left: u32) -> u32 {
    let upstream = Upstream::start();
    let world = loaded_world(&upstream);
    let mut running = world.start(&["run"]);
    let (mut died, mut after) = (0, 0);
    let mut struck = Vec::new();
    while died < left.min(GATES_KILLED_MAX) {
        after += 1 + dice.below(REQUESTS / 3) as usize;
        let victim = [Victim::Gate, Victim::Owner, Victim::Both][dice.below(3) as usize];
        let now = strike(&world, &mut running, &upstream, after, victim);
        died += now;
        struck.push((victim, after));
        if now == 0 || victim != Victim::Gate {
            break;
        }
    }
    drop(running.wait_with_output());
    finish(&world);
    judge(&world, &upstream, &format!("{struck:?}"));
    died
}

#[test]
fn whoever_is_killed_under_load_nothing_leaves_unrecorded_or_twice() {
    let kills = asked("BEDPLATE_KILLS").and_then(|n| u32::try_from(n).ok()).unwrap_or(KILLS);
    let mut dice = Dice(asked("BEDPLATE_SEED").unwrap_or(SEED));
    let (mut died, mut misses) = (0, 0);
    while died < kills {
        let now = round(&mut dice, kills - died);
        misses += u32::from(now == 0);
        assert!(misses <= MISSES_MAX, "the blows miss");
        died += now;
    }
}
