//! `kill -9` of the owner, and Ctrl-C.

use crate::support::{Said, World, call, say, until};

fn slow() -> World {
    let world = World::new();
    world.write("data/a.txt", "one\n");
    let command = "command = \"echo begun >> log.txt; test -e done || { touch done; sleep 60; }\"";
    let turns = format!("{}{}", call("This takes a while.", "shell", command), say("Finished."));
    world.agent("[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n", &turns);
    world
}

fn started(world: &World) -> bool {
    let shown = world.run(&["show", "last", "--json"]);
    shown.code == 0 && shown.stdout.contains("\"action_started\"")
}

#[test]
fn a_killed_owner_loses_nothing_and_the_workspace_is_rolled_back() {
    let world = slow();
    let command = "command = \"echo begun >> log.txt; cat log.txt; sleep 1\"";
    world.write(
        "turns.toml",
        &format!("{}{}", call("This takes a while.", "shell", command), say("Finished.")),
    );
    let child = world.start(&["run", "--json"]);
    until("the command runs", || started(&world));
    world.kill_owner();
    let said = Said::of(child.wait_with_output().expect("ends")).fails(1, "BP-OWNER-003");
    assert_eq!(said.json()["error"]["code"], "BP-OWNER-003");
    let ps = world.run(&["ps", "--json"]).exits(0).json();
    assert_eq!(ps["runs"][0]["status"], "suspended");
    world.run(&["verify", "last"]).exits(0);
    let json = world.run(&["resume", "last", "--json"]).exits(0).json();
    assert_eq!(
        (json["status"].as_str(), json["output"].as_str()),
        (Some("done"), Some("Finished."))
    );
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    let kinds: Vec<&str> = shown["records"]
        .as_array()
        .expect("records")
        .iter()
        .filter_map(|record| record["kind"].as_str())
        .collect();
    assert!(kinds.contains(&"resumed") && kinds.contains(&"rolled_back"), "{kinds:?}");
    let finished = shown["records"]
        .as_array()
        .expect("records")
        .iter()
        .rev()
        .find(|r| r["kind"] == "action_finished");
    assert_eq!(
        finished.expect("an outcome")["output"]["text"].as_str().map(str::trim),
        Some("begun")
    );
    world.run(&["verify", "last"]).exits(0);
}

#[test]
fn ctrl_c_sets_the_run_aside_and_resume_goes_on() {
    let world = slow();
    let child = world.start(&["run"]);
    until("the command runs", || started(&world));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it lives");
    let said = Said::of(child.wait_with_output().expect("ends")).exits(4);
    assert!(said.stderr.contains("setting the run aside"), "{}", said.stderr);
    assert!(said.stderr.contains("next: bedplate resume "), "{}", said.stderr);
    let ps = world.run(&["ps", "--json"]).exits(0).json();
    assert_eq!(ps["runs"][0]["status"], "suspended");
    world.write(
        "turns.toml",
        &format!("{}{}", call("Again.", "shell", "command = \"true\""), say("Finished.")),
    );
}

#[test]
fn suspend_from_elsewhere_ends_the_command_that_follows() {
    let world = slow();
    let child = world.start(&["run", "--json"]);
    until("the command runs", || started(&world));
    world.run(&["suspend", "last"]).exits(0);
    let said = Said::of(child.wait_with_output().expect("ends")).exits(4);
    assert_eq!(said.json()["status"], "suspended");
    world.run(&["cancel", "last"]).exits(0);
    let json = world.run(&["resume", "last", "--json"]).exits(1).json();
    assert_eq!(json["status"], "cancelled");
}

#[test]
fn ps_says_running_only_of_what_a_live_owner_moves() {
    let world = slow();
    let child = world.start(&["run", "--json"]);
    until("the command runs", || started(&world));
    let ps = world.run(&["ps", "--json"]).exits(0).json();
    assert_eq!(ps["runs"][0]["status"], "running");
    let show = world.run(&["show", "last", "--json"]).exits(0).json();
    assert_eq!(show["status"], "running");
    world.run(&["cancel", "last"]).exits(0);
    let said = Said::of(child.wait_with_output().expect("ends")).exits(1);
    assert_eq!(said.json()["status"], "cancelled");
}

#[test]
fn an_owner_leaves_when_nothing_is_live() {
    let world = World::new();
    world.agent("", &say("Done."));
    world.run(&["run"]).exits(0);
    until("the owner left", || world.owner().is_none());
    assert!(!world.home().join("owner.sock").exists());
}
