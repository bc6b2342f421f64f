//! Whole runs: what is printed, what the JSON says, what the exit status is.

use crate::support::{Said, World, call, say};
use serde_json::Value;

const OBSERVE: &str = "[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n";

fn counting(more: &str) -> World {
    let world = World::new();
    world.write("data/a.txt", "one\ntwo\n");
    let mut turns =
        call("I'll count.", "shell", "command = \"wc -l < a.txt > count.txt; cat count.txt\"");
    turns.push_str(&say("There are two lines."));
    world.agent(&format!("{OBSERVE}{more}"), &turns);
    world
}

#[test]
fn a_run_prints_a_line_for_each_action_and_ends_with_a_summary() {
    let world = counting(
        "[artifacts]\npaths = [\"*.txt\"]\n[[check]]\nname = \"counted\"\ncommand = \"grep -q 2 count.txt\"\n",
    );
    let said = world.run(&["run"]).exits(0);
    let lines: Vec<&str> = said.stderr.lines().collect();
    let has = |begin: &str| {
        assert!(lines.iter().any(|l| l.starts_with(begin)), "{begin}: {}", said.stderr);
    };
    assert!(
        lines[0].starts_with("model scripted: ") && lines[0].contains("no account is used"),
        "{}",
        lines[0]
    );
    assert!(lines[1].starts_with("run "), "{}", said.stderr);
    has("ok shell wc -l < a.txt > count.txt; cat count.txt ... ");
    has("ok check counted");
    has(&format!("result {}", world.home().join("artifacts").display()));
    let summary = lines.iter().find(|line| line.starts_with("done: ")).expect("a summary");
    assert!(summary.contains(" records, chain ok, 0 denied, 0 approved, $0.00, "), "{summary}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("next: bedplate ")).count(), 3);
    assert_eq!(said.stdout, "There are two lines.\n");
    assert!(!world.project().join("data/count.txt").exists(), "yours changes only by apply");
}

#[test]
fn the_document_has_what_was_promised() {
    let world = counting("[artifacts]\npaths = [\"count.txt\"]\n");
    let json = world.run(&["run", "--json"]).exits(0).json();
    assert_eq!(json["status"], "done");
    assert_eq!(json["output"], "There are two lines.");
    for (key, expected) in [("actions", 1), ("denials", 0), ("approvals", 0)] {
        assert_eq!(json[key].as_i64(), Some(expected), "{key}");
    }
    assert_eq!(json["cost_usd"].as_f64(), Some(0.0));
    assert!(json.get("error").is_none());
    let artifact = &json["artifacts"][0];
    assert_eq!(artifact["path"], "count.txt");
    assert_eq!(artifact["bytes"].as_i64(), Some(2));
    let file = artifact["file"].as_str().expect("a path");
    assert!(file.starts_with('/'));
    assert_eq!(std::fs::read_to_string(file).expect("on the host"), "2\n");
    assert_eq!(artifact["sha256"].as_str().map(str::len), Some(64));

    let run = json["run"].as_str().expect("an id");
    let again = world.run(&["resume", run, "--json"]).exits(0).json();
    assert_eq!(again, json, "resume of an ended run says the same");
    let copied = world.run(&["artifacts", "last", "--out", "out", "--json"]).exits(0).json();
    assert_eq!(copied["artifacts"][0]["sha256"], artifact["sha256"]);
    assert_eq!(world.read("out/count.txt"), "2\n");
}

#[test]
fn records_come_as_lines() {
    let world = counting("");
    let said = world.run(&["run", "--jsonl"]).exits(0);
    let records: Vec<Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(records[0]["kind"], "run_started");
    assert_eq!(records.last().expect("some")["kind"], "run_ended");
    let seqs: Vec<u64> = records.iter().filter_map(|record| record["seq"].as_u64()).collect();
    assert_eq!(seqs, (0..records.len() as u64).collect::<Vec<_>>());
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    assert_eq!(shown["records"].as_array().map(Vec::len), Some(records.len()));
    assert_eq!(shown["status"], "done");
}

#[test]
fn ps_lists_newest_first_and_prefixes_name_runs() {
    let world = counting("");
    let ids: Vec<String> = (0..3)
        .map(|_| {
            world.run(&["run", "--json", "--quiet"]).exits(0).json()["run"]
                .as_str()
                .expect("id")
                .to_owned()
        })
        .collect();
    let ps = world.run(&["ps", "--json"]).exits(0).json();
    let listed: Vec<&str> = ps["runs"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|run| run["run"].as_str())
        .collect();
    let newest: Vec<&str> = ids.iter().rev().map(String::as_str).collect();
    assert_eq!(listed, newest);
    for run in ps["runs"].as_array().expect("a list") {
        assert_eq!((run["agent"].as_str(), run["status"].as_str()), (Some("tester"), Some("done")));
        assert!(
            run["started"].as_str().is_some_and(|t| t.ends_with('Z') && t.contains('T')),
            "{run}"
        );
    }
    world.run(&["verify", &ids[0][..11]]).exits(0);
    world.run(&["rm", &ids[0]]).exits(0);
    world.run(&["show", &ids[0]]).fails(2, "BP-STORE-007");
    assert_eq!(world.run(&["ps", "--json"]).json()["runs"].as_array().map(Vec::len), Some(2));
    world.run(&["gc"]).exits(0);
}

#[test]
fn a_check_that_does_not_pass_fails_the_run() {
    let world = counting(
        "[[check]]\nname = \"three lines\"\ncommand = \"echo found $(cat count.txt); grep -q 3 count.txt\"\n",
    );
    let said = world.run(&["run"]).exits(1);
    assert!(said.stderr.contains("failed check three lines (exit 1)"), "{}", said.stderr);
    assert!(said.stderr.contains("found 2"), "{}", said.stderr);
    assert!(said.stderr.contains("BP-RUN-006"), "{}", said.stderr);
    let json = world.run(&["resume", "last", "--json"]).exits(1).json();
    assert_eq!(
        (json["status"].as_str(), json["error"]["code"].as_str()),
        (Some("failed"), Some("BP-RUN-006"))
    );
}

#[test]
fn an_ended_run_takes_new_instructions() {
    let world = counting("");
    let turns = format!(
        "[[turn]]\nwhen = {{ contains = \"again\" }}\ntext = \"Twice now.\"\n{}",
        world.read("turns.toml")
    );
    world.write("turns.toml", &turns);
    world.run(&["run"]).exits(0);
    let said = world.run(&["send", "last", "count again", "--json"]).exits(0).json();
    assert_eq!(
        (said["status"].as_str(), said["output"].as_str()),
        (Some("done"), Some("Twice now."))
    );
    world.run(&["send", "last", "  "]).fails(2, "BP-CLI-001");
}

#[test]
fn input_can_come_from_standard_input() {
    use std::io::Write;
    let world = World::new();
    world.agent("", "[[turn]]\nwhen = { contains = \"from a pipe\" }\ntext = \"heard\"\n");
    let mut command = world.command(&["run", "--input", "-", "--json"]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("a pipe").write_all(b"words from a pipe").expect("written");
    let said = Said::of(child.wait_with_output().expect("ends")).exits(0);
    assert_eq!(said.json()["output"], "heard");
}

#[test]
fn the_terminal_is_safe_from_what_models_and_tools_say() {
    let world = World::new();
    let mut turns = call("\\u001b[31mred\\u202e", "shell", "command = \"printf '\\\\033[2J'\"");
    turns.push_str(&say("end\\u001b]0;title\\u0007\\u202e"));
    world.agent("[permissions]\npreset = \"observe\"\n", &turns);
    let said = world.run(&["run"]).exits(0);
    for line in [&["logs", "last"][..], &["show", "last"], &["explain", "last"], &["ps"]] {
        let said = world.run(line).exits(0);
        assert!(
            !said.stdout.contains(['\u{1b}', '\u{202e}', '\u{7}']),
            "{line:?}: {:?}",
            said.stdout
        );
    }
    for text in [&said.stdout, &said.stderr] {
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{7}']), "{text:?}");
    }
}

#[test]
fn a_detached_run_can_be_watched() {
    let world = counting("");
    let said = world.run(&["run", "--detach", "--json"]).exits(0).json();
    assert_eq!(said["status"], "running");
    let run = said["run"].as_str().expect("an id");
    let watched = world.run(&["watch", run, "--json"]).exits(0).json();
    assert_eq!((watched["run"].as_str(), watched["status"].as_str()), (Some(run), Some("done")));
}

#[test]
fn the_model_can_be_chosen_on_the_command_line() {
    let world = counting("");
    world.write("other.toml", &say("Another script."));
    let json = world.run(&["run", "--model", "script/other.toml", "--json"]).exits(0).json();
    assert_eq!(json["output"], "Another script.");
    let manifest = world
        .read("bedplate.toml")
        .replace("[routes]\n", "[routes]\nother = [\"script/other.toml\"]\n");
    world.write("bedplate.toml", &manifest);
    let json = world.run(&["run", "--model", "other", "--json"]).exits(0).json();
    assert_eq!(json["output"], "Another script.");
}

#[test]
fn an_overlay_changes_what_it_names() {
    let world = counting("");
    world.write("other.toml", &say("From the overlay."));
    world.write("bedplate.prod.toml", "[routes]\ndefault = [\"script/other.toml\"]\n");
    let json = world.run(&["run", "--env", "prod", "--json"]).exits(0).json();
    assert_eq!(json["output"], "From the overlay.");
}

#[test]
fn a_run_that_was_cancelled_says_so() {
    let world = World::new();
    let turns = call("I'll wait.", "wait", "signal = \"go\"");
    world.agent("[permissions]\nallow = [\"wait\"]\n", &turns);
    let said = world.run(&["run"]).exits(4);
    assert!(said.stderr.contains("waits for the signal go"), "{}", said.stderr);
    let json = world.run(&["resume", "last", "--json"]).exits(4).json();
    assert_eq!(json["status"], "waiting");
    world.run(&["cancel", "last"]).exits(0);
    let json = world.run(&["resume", "last", "--json"]).exits(1).json();
    assert_eq!(json["status"], "cancelled");
    world.run(&["cancel", "last"]).fails(2, "BP-RUN-011");
}

#[test]
fn a_signal_moves_a_run_that_waits() {
    let world = World::new();
    let turns = format!("{}{}", call("I'll wait.", "wait", "signal = \"go\""), say("Went on."));
    world.agent("[permissions]\nallow = [\"wait\"]\n", &turns);
    world.run(&["run"]).exits(4);
    world.run(&["signal", "last", "go", "{"]).fails(2, "BP-CLI-008");
    world.run(&["signal", "last", "go", "{\"n\": 1}"]).exits(0);
    let json = world.run(&["watch", "last", "--json"]).exits(0).json();
    assert_eq!(
        (json["status"].as_str(), json["output"].as_str()),
        (Some("done"), Some("Went on."))
    );
}
