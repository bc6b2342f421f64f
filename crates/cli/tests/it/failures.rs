//! Models that vanish or answer badly: never a silent stop, and nothing lost.

use crate::provider::{Port, Reply, Server, calls_shell, reply, says, stream};
use crate::support::{Said, World, say};
use serde_json::{Value, json};

/// A project whose route begins at this port; `more` are its other entries.
fn project(port: &Port, more: &str) -> World {
    let world = World::new();
    world.write("data/a.txt", "one\n");
    let manifest = format!(
        "schema = 1\n[agent]\nname = \"tester\"\ninstructions = \"Do it.\"\nmodel = \"default\"\n\
         [routes]\ndefault = [\"local/m\"{more}]\n{}\
         [permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n\
         [artifacts]\npaths = [\"*.txt\"]\n",
        port.provider()
    );
    world.write("bedplate.toml", &manifest);
    world.write("turns.toml", &say("The script finished it."));
    world
}

const FALLBACK: &str = ", \"script/turns.toml\"";

fn records(world: &World) -> Vec<Value> {
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    shown["records"].as_array().expect("records").clone()
}

fn of_kind(world: &World, kind: &str) -> Vec<Value> {
    records(world).into_iter().filter(|record| record["kind"] == kind).collect()
}

/// The run waits for its model: it says why, with this code, and how to go on.
fn waits(world: &World, said: Said, code: &str) -> Value {
    let document = said.exits(4).json();
    assert_eq!(document["status"], "waiting", "{document}");
    let error = &document["error"];
    assert_eq!(error["code"], code, "{document}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("local")), "{error}");
    assert!(error["next"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    let suspended = of_kind(world, "suspended");
    assert_eq!(suspended.last().expect("recorded")["failure"]["code"], code);
    let ps = world.run(&["ps", "--json"]).exits(0).json();
    assert_eq!(ps["runs"][0]["status"], "waiting");
    world.run(&["verify", "last"]).exits(0);
    document
}

/// The next entry took over: a record says so, and why.
fn fell_back(world: &World, said: Said, code: &str) {
    let document = said.exits(0).json();
    assert_eq!(document["status"], "done", "{document}");
    assert_eq!(document["output"], "The script finished it.");
    assert!(document.get("error").is_none(), "{document}");
    let changed = of_kind(world, "route_changed");
    assert_eq!(changed.len(), 1, "{changed:?}");
    assert_eq!(changed[0]["from"], "local/m");
    assert_eq!(changed[0]["to"], "script/turns.toml");
    assert_eq!(changed[0]["failure"]["code"], code);
    world.run(&["verify", "last"]).exits(0);
}

fn resumes(world: &World, output: &str) -> Value {
    let document = world.run(&["resume", "last", "--json"]).exits(0).json();
    assert_eq!(document["status"], "done", "{document}");
    assert_eq!(document["output"], output);
    assert!(document.get("error").is_none(), "{document}");
    world.run(&["verify", "last"]).exits(0);
    document
}

#[test]
fn a_model_that_is_not_there_is_waited_for_and_said() {
    let port = Port::reserve();
    let world = project(&port, "");
    let said = world.run(&["run"]).exits(4);
    assert!(said.stderr.contains("BP-MODEL-009: local cannot be reached at "), "{}", said.stderr);
    assert!(said.stderr.contains(&port.address()), "{}", said.stderr);
    assert!(said.stderr.contains("next: bedplate resume "), "{}", said.stderr);
    assert_eq!(of_kind(&world, "model_called").len(), 4, "named: MODEL_ATTEMPTS_MAX");
    waits(&world, world.run(&["resume", "last", "--json"]), "BP-MODEL-009");
    let _server = port.serve(vec![Reply::Always(says("Here again."))]);
    resumes(&world, "Here again.");
}

#[test]
fn a_model_that_is_not_there_is_replaced_by_the_next_of_the_route() {
    let port = Port::reserve();
    let world = project(&port, FALLBACK);
    fell_back(&world, world.run(&["run", "--json"]), "BP-MODEL-009");
    let said = world.run(&["explain", "last"]).exits(0);
    assert!(said.stdout.contains("script/turns.toml"), "{}", said.stdout);
}

const WORK: &str = "echo begun >> log.txt; cat log.txt";

fn worked_once(document: &Value) {
    let artifacts = document["artifacts"].as_array().expect("a list");
    let log = artifacts.iter().find(|artifact| artifact["path"] == "log.txt").expect("kept");
    let file = log["file"].as_str().expect("a path");
    assert_eq!(std::fs::read_to_string(file).expect("on the host"), "begun\n");
    assert_eq!(document["actions"], 1);
}

#[test]
fn a_model_that_vanishes_between_two_turns_loses_nothing() {
    let port = Port::reserve();
    let world = project(&port, "");
    let server = port.serve(vec![Reply::Last(calls_shell(WORK))]);
    waits(&world, world.run(&["run", "--json"]), "BP-MODEL-009");
    assert_eq!(server.requests(), 1);
    let _again = port.serve(vec![Reply::Always(says("Finished."))]);
    worked_once(&resumes(&world, "Finished."));
}

#[test]
fn a_model_that_vanishes_between_two_turns_is_replaced() {
    let port = Port::reserve();
    let world = project(&port, FALLBACK);
    world.write("turns.toml", &format!("{}{}", say("Unused."), say("The script finished it.")));
    let _server = port.serve(vec![Reply::Last(calls_shell(WORK))]);
    let said = world.run(&["run", "--json"]);
    worked_once(&said.json());
    fell_back(&world, said, "BP-MODEL-009");
}

/// A reply that breaks off in the middle of an event.
fn half() -> Vec<u8> {
    let mut whole = says("These words are never complete.");
    let at = whole.windows(8).position(|w| w == b"complete").expect("there");
    whole.truncate(at);
    whole
}

#[test]
fn a_model_that_vanishes_in_the_middle_of_an_event_has_said_nothing() {
    let port = Port::reserve();
    let world = project(&port, "");
    let server = port.serve(vec![Reply::Last(half())]);
    let document = waits(&world, world.run(&["run", "--json"]), "BP-MODEL-009");
    assert_eq!(server.requests(), 1);
    assert_eq!(document["output"], "", "half an answer is none");
    let first = &of_kind(&world, "model_answered")[0];
    assert_eq!(first["error"]["failure"]["code"], "BP-MODEL-006", "{first}");
    assert_eq!(first["items"], json!([]));
    let _again = port.serve(vec![Reply::Always(says("Whole."))]);
    resumes(&world, "Whole.");
}

#[test]
fn a_model_that_vanishes_in_the_middle_of_an_event_is_replaced() {
    let port = Port::reserve();
    let world = project(&port, FALLBACK);
    let _server = port.serve(vec![Reply::Last(half())]);
    fell_back(&world, world.run(&["run", "--json"]), "BP-MODEL-009");
}

/// Every request gets this reply: how often it was asked, and the document.
fn always(bytes: Vec<u8>, code: &str) -> (World, Server, Value) {
    let port = Port::reserve();
    let world = project(&port, "");
    let server = port.serve(vec![Reply::Always(bytes)]);
    let document = waits(&world, world.run(&["run", "--json"]), code);
    drop(server);
    let again = port.serve(vec![Reply::Always(says("Better now."))]);
    resumes(&world, "Better now.");
    (world, again, document)
}

fn attempts(bytes: Vec<u8>, code: &str) -> usize {
    let (world, _, _) = always(bytes, code);
    let failed = of_kind(&world, "model_answered");
    failed.iter().filter(|record| record["error"]["failure"]["code"] == code).count()
}

#[test]
fn a_server_that_fails_is_asked_four_times_and_then_waited_for() {
    assert_eq!(attempts(reply("500 Internal Server Error", "", "oops"), "BP-MODEL-004"), 4);
}

#[test]
fn a_reply_that_is_no_json_is_named_and_kept() {
    let (world, _, _) = always(reply("200 OK", "", "{\"choices\": nonsense}"), "BP-MODEL-005");
    let failed = of_kind(&world, "model_answered");
    let named = failed.iter().filter(|r| r["error"]["failure"]["code"] == "BP-MODEL-005").count();
    assert_eq!(named, 4);
}

#[test]
fn a_stream_that_is_cut_each_time_is_named() {
    assert_eq!(attempts(half(), "BP-MODEL-006"), 4);
}

#[test]
fn a_refused_key_is_not_tried_again_and_shown_nowhere() {
    const KEY: &str = "sk-word-of-the-operator";
    let port = Port::reserve();
    let world = project(&port, "");
    let keyed = port.provider() + "key_env = \"LOCAL_KEY\"\n";
    let manifest = world.read("bedplate.toml").replace(&port.provider(), &keyed);
    world.write("bedplate.toml", &manifest);
    let without = world.run(&["run", "--json"]);
    waits(&world, without, "BP-MODEL-002");
    let body = json!({"error": {"message": format!("no such key: {KEY}")}}).to_string();
    let server = port.serve(vec![Reply::Always(reply("401 Unauthorized", "", &body))]);
    let mut command = world.command(&["run", "--json"]);
    let said = Said::of(command.env("LOCAL_KEY", KEY).output().expect("runs"));
    assert!(!format!("{}{}", said.stdout, said.stderr).contains(KEY));
    waits(&world, said, "BP-MODEL-001");
    assert_eq!(server.requests(), 1);
    let shown = world.run(&["show", "last", "--json"]).exits(0);
    assert!(!shown.stdout.contains(KEY), "{}", shown.stdout);
}

#[test]
fn too_many_requests_are_waited_out_as_long_as_the_provider_says() {
    let port = Port::reserve();
    let world = project(&port, "");
    let slow_down = reply("429 Too Many Requests", "retry-after: 1\r\n", "{}");
    let server = port.serve(vec![Reply::Once(slow_down), Reply::Always(says("Thanks."))]);
    let document = world.run(&["run", "--json"]).exits(0).json();
    assert_eq!(document["output"], "Thanks.");
    assert_eq!(server.requests(), 2);
    let refused = &of_kind(&world, "model_answered")[0];
    assert_eq!(refused["error"]["failure"]["code"], "BP-MODEL-003");
    let timer = &of_kind(&world, "timer_set")[0];
    let pause_ms = timer["due_ms"].as_u64().expect("ms") - refused["time_ms"].as_u64().expect("ms");
    assert!(pause_ms >= 1_000, "{pause_ms} ms");
    let asked = of_kind(&world, "model_called");
    assert!(asked[1]["time_ms"].as_u64() >= timer["due_ms"].as_u64());
}

#[test]
fn a_provider_that_wants_an_hour_is_not_waited_for() {
    let port = Port::reserve();
    let world = project(&port, FALLBACK);
    let an_hour = reply("429 Too Many Requests", "retry-after: 3600\r\n", "{}");
    let server = port.serve(vec![Reply::Always(an_hour)]);
    fell_back(&world, world.run(&["run", "--json"]), "BP-MODEL-003");
    assert_eq!(server.requests(), 1);
    let alone = project(&port, "");
    waits(&alone, alone.run(&["run", "--json"]), "BP-MODEL-003");
    assert_eq!(server.requests(), 2);
}

/// The scripted server's: it never ends, and hits the limit of an answer.
#[test]
fn a_reply_without_end_meets_its_limit() {
    let world = World::new();
    world.agent("", "[[turn]]\ntext = \"words \"\nfault = { endless = true }\n");
    let document = world.run(&["run", "--json"]).exits(4).json();
    assert_eq!(document["status"], "waiting");
    assert_eq!(document["error"]["code"], "BP-MODEL-008", "{document}");
    let message = document["error"]["message"].as_str().expect("text");
    assert!(message.contains("passed a limit: more than "), "{message}");
    world.write("turns.toml", &say("An end."));
    resumes(&world, "An end.");
    let bytes = dir_bytes(&world.home());
    assert!(bytes < 64 << 20, "four endless replies left {bytes} bytes");
}

fn dir_bytes(dir: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(dir).expect("a directory").flatten();
    let size = |path: std::path::PathBuf| match std::fs::symlink_metadata(&path) {
        Ok(meta) if meta.is_dir() => dir_bytes(&path),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    };
    entries.map(|entry| size(entry.path())).sum()
}

#[test]
fn an_answer_without_words_or_calls_ends_the_run_and_says_so() {
    let port = Port::reserve();
    let world = project(&port, "");
    let nothing =
        stream(&[json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})]);
    let _server = port.serve(vec![Reply::Always(nothing)]);
    let said = world.run(&["run"]).exits(0);
    assert!(said.stderr.contains("the model said nothing"), "{}", said.stderr);
    let document = world.run(&["resume", "last", "--json"]).exits(0).json();
    assert_eq!(
        (document["status"].as_str(), document["output"].as_str()),
        (Some("done"), Some(""))
    );
}
