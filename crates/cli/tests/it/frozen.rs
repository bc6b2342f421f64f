//! A frozen network through the binary: what hosts answered one run is what others hear, and
//! nothing else leaves.

use crate::network::{SECRET, Upstream, no_trace, of_kind, printed, set_secret, world};
use crate::support::World;
use serde_json::Value;

const PERMITS: &str = "allow = [\"shell\", \"api.example.test\", \"POST api.example.test/*\", \
                       \"DELETE wiki.example.test/*\", \"secret:api@api.example.test\"]";
/// Reads twice what counts, pays once; the answer to that holds a secret until it is masked.
const PROGRAM: &str = "go('GET', 'http://api.example.test/count')\n\
                       go('GET', 'http://api.example.test/count')\n\
                       go('POST', 'http://api.example.test/pay?by=' + os.environ['TOKEN'], b'7')\n";

/// A world in which one run was recorded, with what its program printed and its id.
fn recorded(upstream: &Upstream) -> (World, Vec<String>, String) {
    let world = world(upstream, PERMITS, "", PROGRAM);
    set_secret(&world);
    world.run(&["run", "--record-network"]).exits(0);
    let run = of_kind(&world, "run_started")[0]["run"].as_str().expect("an id").to_owned();
    let first = printed(&world);
    (world, first, run)
}

/// What stands in the log about requests that were turned down.
fn refusals(world: &World) -> Vec<String> {
    let decided = of_kind(world, "egress_decided");
    let refused = decided.iter().filter(|record| record["verdict"] == "deny");
    refused.map(|record| record["failure"]["message"].as_str().expect("why").to_owned()).collect()
}

#[test]
fn a_replay_hears_what_was_recorded_and_sends_nothing() {
    let upstream = Upstream::start();
    let (world, first, run) = recorded(&upstream);
    let seen = upstream.seen();
    assert_eq!((seen.len(), &first[0][..], &first[1][..]), (3, "200 0 before", "200 1 before"));
    assert!(first[2].contains("Bearer [") && !first[2].contains(SECRET), "{first:?}");
    for record in of_kind(&world, "egress_ended") {
        assert!(record["kept"]["whole"].as_u64().is_some_and(|bytes| bytes > 0), "{record}");
    }
    let said = world.run(&["run", "--replay-network", &run]).exits(0);
    assert!(said.stderr.contains("replay"), "{}", said.stderr);
    assert_eq!(printed(&world), first);
    assert_eq!(upstream.seen(), seen, "the network was not asked");
    let decided = of_kind(&world, "egress_decided");
    assert_eq!(decided.len(), 3);
    for record in decided {
        assert!(record["replays"].as_u64().is_some(), "{record}");
        assert_eq!(record["effect"], "read", "it leaves nothing behind");
    }
    for record in of_kind(&world, "egress_ended") {
        assert_eq!((&record["sent"], &record["status"]), (&false.into(), &200.into()));
        assert_eq!(record["kept"], Value::Null);
    }
    assert!(of_kind(&world, "secret_used").is_empty(), "no secret is opened for it");
    world.run(&["verify", "last"]).exits(0);
    let explained = world.run(&["explain", "last"]).exits(0).stdout;
    assert!(explained.contains("answered 200 as it was recorded"), "{explained}");
    no_trace(&world);
}

#[test]
fn what_was_not_recorded_is_an_error_that_says_what_differs() {
    let upstream = Upstream::start();
    let (world, _, run) = recorded(&upstream);
    let count = upstream.seen().len();
    let more = "go('GET', 'http://api.example.test/count')\n\
                go('GET', 'http://api.example.test/other')\n\
                go('GET', 'http://api.example.test/count?page=2')\n\
                go('POST', 'http://api.example.test/pay?by=' + os.environ['TOKEN'], b'7')\n\
                go('POST', 'http://api.example.test/pay?by=' + os.environ['TOKEN'], b'8')\n\
                go('DELETE', 'http://wiki.example.test/')\n";
    let program = format!("{}{PROGRAM}{more}", crate::network::PRELUDE);
    world.write("w/try.py", &program);
    world.run(&["run", "--replay-network", &run]).exits(0);
    let lines = printed(&world);
    assert_eq!(lines[3], "200 1 before", "what only reads gets its last answer again");
    for line in &lines[4..] {
        assert!(line.starts_with("403 ") && line.contains("BP-RUN-025"), "{line}");
    }
    let expected = [
        format!("run {run} did not ask this; nearest"),
        "query differ".to_owned(),
        format!("run {run} has no more answers to this: 1 was given"),
        "port, scheme or body differ".to_owned(),
    ];
    let refused = refusals(&world);
    for part in &expected {
        assert!(refused.iter().any(|why| why.contains(part)), "{part}: {refused:?}");
    }
    assert_eq!(upstream.seen().len(), count);
}

#[test]
fn policy_decides_in_a_frozen_world_too() {
    let upstream = Upstream::start();
    let (world, _, run) = recorded(&upstream);
    let manifest =
        std::fs::read_to_string(world.project().join("bedplate.toml")).expect("it is there");
    let manifest = manifest.replace("\"POST api.example.test/*\", ", "");
    world.write("bedplate.toml", &manifest);
    world.run(&["run", "--replay-network", &run]).exits(0);
    let lines = printed(&world);
    assert_eq!(&lines[..2], ["200 0 before", "200 1 before"]);
    assert!(lines[2].starts_with("403 ") && lines[2].contains("BP-POLICY-"), "{lines:?}");
}

#[test]
fn only_what_was_recorded_can_be_replayed() {
    let upstream = Upstream::start();
    let world = world(&upstream, PERMITS, "", PROGRAM);
    set_secret(&world);
    world.run(&["run"]).exits(0);
    world.run(&["run", "--replay-network", "last"]).fails(2, "BP-RUN-024");
    world.run(&["run", "--replay-network", "zzzz"]).fails(2, "BP-STORE-007");
    world.run(&["run", "--record-network", "--replay-network", "last"]).exits(2);
    let runs = world.run(&["ps", "--json"]).json()["runs"].clone();
    assert_eq!(runs.as_array().map(Vec::len), Some(1), "nothing was begun");
}

#[test]
fn attempts_of_a_rollout_share_a_frozen_world() {
    let upstream = Upstream::start();
    let (world, first, run) = recorded(&upstream);
    let count = upstream.seen().len();
    let rollout = ["rollout", "--count", "3", "--replay-network", &run];
    let said = world.run(&rollout).exits(0);
    for line in said.stdout.lines() {
        let result: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(result["status"], "done", "{result}");
        let shown = world.run(&["show", result["run"].as_str().expect("an id"), "--json"]).json();
        let records = shown["records"].as_array().expect("records").clone();
        let finished = records.iter().find(|record| record["kind"] == "action_finished");
        let text = finished.expect("it ran")["output"]["text"].as_str().expect("text");
        assert_eq!(text.lines().collect::<Vec<_>>(), first, "{text}");
    }
    assert_eq!(upstream.seen().len(), count);
}
