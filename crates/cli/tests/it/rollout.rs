//! Rollouts through the binary: many attempts from one world, each with its own seed and reward.

use crate::support::{Said, World, call, say, until};
use serde_json::Value;
use std::collections::BTreeSet;

/// An agent that keeps its number and its seed, and passes both checks when its number is even.
fn chooser() -> World {
    let world = World::new();
    world.write("data/a.txt", "zero\n");
    let command = "command = \"echo $BEDPLATE_ATTEMPT $BEDPLATE_SEED $PYTHONHASHSEED > a.txt\"";
    let turns = call("First.", "shell", command) + &say("Written.");
    let manifest = "[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n\
         [[check]]\nname = \"written\"\ncommand = \"grep -q '^[0-9]* [0-9]* [0-9]*$' a.txt\"\n\
         [[check]]\nname = \"even\"\ncommand = \"test $((BEDPLATE_ATTEMPT % 2)) = 0\"\n";
    world.agent(manifest, &turns);
    world
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn status(world: &World, run: &Value) -> Value {
    let shown = world.run(&["show", run.as_str().expect("an id"), "--json"]);
    shown.json()["status"].clone()
}

#[test]
fn each_attempt_has_a_seed_a_log_and_a_reward_of_its_own() {
    let world = chooser();
    let said = world.run(&["rollout", "--count", "5", "--parallel", "3", "--seed", "40"]).exits(0);
    let results = lines(&said.stdout);
    assert_eq!(results.len(), 5);
    for (number, result) in results.iter().enumerate() {
        let even = number % 2 == 0;
        assert_eq!(result["attempt"], number, "in order");
        assert_eq!(result["seed"], 40 + number);
        assert_eq!(result["reward"], if even { 1.0 } else { 0.5 }, "{result}");
        assert_eq!(result["status"], if even { "done" } else { "failed" });
        assert_eq!(result["checks"], serde_json::json!({ "even": even, "written": true }));
        let run = result["run"].as_str().expect("an id");
        world.run(&["verify", run]).exits(0);
        let file = world.run(&["diff", run, "--text"]).exits(0).stdout;
        let seed = 40 + number;
        assert!(file.contains(&format!("+{number} {seed} {seed}")), "{file}");
    }
    let ids: BTreeSet<_> = results.iter().map(|result| result["run"].to_string()).collect();
    assert_eq!(ids.len(), 5);
    assert!(said.stderr.contains("5 of 5 came to an end, mean reward 0.800"), "{}", said.stderr);
    // The world itself never began.
    let listed = world.run(&["ps", "--json"]).json();
    let runs = listed["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 6);
    let idle = runs.iter().find(|run| !ids.contains(&run["run"].to_string())).expect("the world");
    assert_eq!(idle["status"], "cancelled");
    until("the owner left", || world.owner().is_none());
}

#[test]
fn two_rollouts_with_one_seed_come_to_the_same() {
    let world = chooser();
    let bare = || {
        let said = world.run(&["rollout", "--count", "3", "--seed", "7", "--json"]).exits(0).json();
        let mut results = said["results"].as_array().expect("results").clone();
        for result in &mut results {
            let result = result.as_object_mut().expect("an object");
            result.remove("run");
            result.remove("ms");
        }
        (said["mean_reward"].clone(), results)
    };
    assert_eq!(bare(), bare());
}

/// What differs between two rollouts of one world with one seed: what names a run or a layer, the
/// chain, times, and digests (our ids of calls among them) of texts in which one of these stands.
const OWN: &[&str] = &[
    "at_ms",
    "base",
    "boot",
    "call_id",
    "digest",
    "expires_ms",
    "host",
    "input",
    "key",
    "layer",
    "mono_ms",
    "ms",
    "oldest_input_age",
    "origin",
    "parent",
    "prefix",
    "prev",
    "request",
    "run",
    "time_ms",
    "took_ms",
    "workspace",
    "dir",
    "pid",
];

/// A record or result without these, and without the time that a test runner says it took.
fn bare(mut value: Value) -> Value {
    match &mut value {
        Value::Object(fields) => {
            fields.retain(|name, _| !OWN.contains(&name.as_str()));
            fields.values_mut().for_each(|field| *field = bare(field.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = bare(item.take())),
        Value::String(text) => *text = without_seconds(text),
        _ => {}
    }
    value
}

/// `Ran 83 tests in 0.012s` as `Ran 83 tests in s`.
fn without_seconds(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in lines.iter_mut().filter(|line| line.starts_with("Ran ") && line.ends_with('s')) {
        let kept = line.trim_end_matches(|c: char| c == 's' || c == '.' || c.is_ascii_digit());
        *line = format!("{kept}s");
    }
    lines.join("\n")
}

/// One rollout of the engineer in a home of its own: its results, and each attempt's log and files.
fn engineered(count: u32) -> Vec<(Value, Vec<Value>)> {
    let world = World::new();
    let agent = format!("{}/../../examples/engineer", env!("CARGO_MANIFEST_DIR"));
    let count = count.to_string();
    let rollout = ["rollout", &agent, "--count", &count, "--seed", "7", "--seconds", "600"];
    let results = lines(&world.run(&rollout).exits(0).stdout);
    let with_log = results.into_iter().map(|result| {
        let run = result["run"].as_str().expect("an id");
        let log = world.run(&["show", run, "--jsonl"]).exits(0).stdout;
        let mut log: Vec<Value> = lines(&log).into_iter().map(bare).collect();
        log.push(world.run(&["diff", run, "--text"]).exits(0).stdout.into());
        (bare(result), log)
    });
    with_log.collect()
}

/// `BEDPLATE_ROLLOUT=200` makes it as long as one wants.
#[test]
fn two_rollouts_of_one_world_with_one_seed_have_the_same_logs() {
    let count = std::env::var("BEDPLATE_ROLLOUT").map_or(3, |text| text.parse().expect("a count"));
    let (one, other) = (engineered(count), engineered(count));
    assert_eq!(one.len(), other.len());
    for (number, (one, other)) in one.into_iter().zip(other).enumerate() {
        assert_eq!(one.0, other.0, "attempt {number}");
        assert_eq!(one.1.len(), other.1.len(), "attempt {number}");
        for (one, other) in one.1.into_iter().zip(other.1) {
            assert_eq!(one, other, "attempt {number}");
        }
    }
}

#[test]
fn what_takes_too_long_or_asks_is_ended_and_counts_nothing() {
    let world = World::new();
    let turns = call("First.", "shell", "command = \"sleep 600\"") + &say("Slept.");
    world.agent("[permissions]\nallow = [\"shell\"]\n", &turns);
    let said = world.run(&["rollout", "--count", "2", "--seconds", "1"]).exits(1);
    for result in lines(&said.stdout) {
        assert_eq!((&result["status"], &result["reward"]), (&"cancelled".into(), &0.0.into()));
        assert_eq!(result["timed_out"], true, "{result}");
        assert_eq!(status(&world, &result["run"]), "cancelled");
    }
    world.agent("[permissions]\nask = [\"shell\"]\n", &turns);
    let said = world.run(&["rollout", "--count", "1"]).exits(1);
    let result = &lines(&said.stdout)[0];
    assert_eq!((&result["status"], &result["reward"]), (&"cancelled".into(), &0.0.into()));
    assert_eq!(result["timed_out"], Value::Null);
    assert!(
        world.run(&["approvals", "--json"]).json()["approvals"]
            .as_array()
            .is_some_and(Vec::is_empty)
    );
}

#[test]
fn an_attempt_whose_owner_is_killed_is_lost_and_ended() {
    let world = World::new();
    let turns = call("First.", "shell", "command = \"sleep 600\"") + &say("Slept.");
    world.agent("[permissions]\nallow = [\"shell\"]\n", &turns);
    let rollout = world.start(&["rollout", "--count", "1"]);
    let listed = || world.run(&["ps", "--json"]).json()["runs"].as_array().cloned();
    until("the attempt runs", || {
        listed().is_some_and(|runs| runs.iter().any(|run| run["status"] == "running"))
    });
    world.kill_owner();
    let said = Said::of(rollout.wait_with_output().expect("it ends")).exits(1);
    let result = &lines(&said.stdout)[0];
    assert_eq!((&result["status"], &result["reward"]), (&"lost".into(), &0.0.into()));
    assert_eq!(result["error"]["code"], "BP-OWNER-003");
    for run in listed().expect("runs") {
        assert_eq!(run["status"], "cancelled", "{run}");
    }
}

#[test]
fn bad_numbers_are_refused_before_anything_is_made() {
    let world = chooser();
    for bad in [["--count", "0"], ["--count", "1001"], ["--parallel", "0"], ["--seconds", "0"]] {
        world.run(&["rollout", bad[0], bad[1]]).exits(2);
    }
    world.run(&["rollout", "missing"]).fails(2, "BP-CLI-002");
    assert!(!world.home().exists());
}
