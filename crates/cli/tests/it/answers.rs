//! What waits for a person: asked, answered once, refused, in doubt.

use crate::support::{World, call, say, until};

const TICKETS: &str = "
[permissions]
preset = \"observe\"
ask = [\"ticket\"]
[[tool]]
name = \"ticket\"
description = \"Opens a ticket.\"
command = [\"./ticket\"]
effect = \"irreversible\"
";

fn desk() -> World {
    let world = World::new();
    let turns =
        format!("{}{}", call("I'll open one.", "ticket", "title = \"broken\""), say("Opened."));
    world.agent(TICKETS, &turns);
    world.program(
        "ticket",
        "#!/bin/sh\ncat >> tickets.log\necho >> tickets.log\necho '{\"id\": 7}'\n",
    );
    world
}

fn tickets(world: &World) -> usize {
    std::fs::read_to_string(world.project().join("tickets.log"))
        .map_or(0, |text| text.lines().count())
}

fn asked(world: &World) -> String {
    let said = world.run(&["run"]).exits(4);
    assert!(said.stderr.contains("asks ticket"), "{}", said.stderr);
    assert!(said.stderr.contains("bedplate approve "), "{}", said.stderr);
    let list = world.run(&["approvals", "--json"]).exits(0).json();
    let open = list["approvals"].as_array().expect("a list").clone();
    assert_eq!(open.len(), 1, "{list}");
    let ask = &open[0];
    assert_eq!((ask["kind"].as_str(), ask["action"].as_str()), (Some("ask"), Some("call_tool")));
    assert_eq!(ask["resource"], "ticket");
    assert!(ask["shown"].as_str().is_some_and(|shown| shown.contains("\"broken\"")), "{ask}");
    assert!(ask["expires"].as_str().is_some_and(|time| time.ends_with('Z')), "{ask}");
    ask["id"].as_str().expect("an id").to_owned()
}

#[test]
fn an_approved_action_happens_once_and_the_run_goes_on() {
    let world = desk();
    let id = asked(&world);
    assert_eq!(tickets(&world), 0);
    let ps = world.run(&["ps", "--json"]).exits(0).json();
    assert_eq!(ps["runs"][0]["status"], "waiting");
    world.run(&["approve", &id]).exits(0);
    let json = world.run(&["watch", "last", "--json"]).exits(0).json();
    assert_eq!((json["status"].as_str(), json["approvals"].as_i64()), (Some("done"), Some(1)));
    assert_eq!(tickets(&world), 1);
    world.run(&["approve", &id]).fails(2, "BP-RUN-010");
    world.run(&["deny", &id, "--reason", "late"]).fails(2, "BP-RUN-010");
    assert_eq!(tickets(&world), 1);
    let list = world.run(&["approvals", "--json"]).exits(0).json();
    assert_eq!(list["approvals"].as_array().map(Vec::len), Some(0));
}

#[test]
fn an_approval_without_resume_waits_for_resume() {
    let world = desk();
    let id = asked(&world);
    world.run(&["approve", &id, "--no-resume"]).exits(0);
    assert_eq!(tickets(&world), 0);
    let json = world.run(&["resume", "last", "--json"]).exits(0).json();
    assert_eq!(json["status"], "done");
    assert_eq!(tickets(&world), 1);
}

#[test]
fn a_refused_action_does_not_happen_and_the_agent_is_told() {
    let world = desk();
    let id = asked(&world);
    world.run(&["deny", &id, "--reason", "not today"]).exits(0);
    let json = world.run(&["watch", "last", "--json"]).exits(0).json();
    assert_eq!((json["status"].as_str(), json["denials"].as_i64()), (Some("done"), Some(1)));
    assert_eq!(tickets(&world), 0);
    let shown = world.run(&["show", "last", "--json"]).exits(0).stdout;
    assert!(shown.contains("not today"), "{shown}");
    world.run(&["approve", &id]).fails(2, "BP-RUN-010");
}

#[test]
fn what_is_asked_can_be_changed_by_nobody_but_a_person() {
    let world = desk();
    let id = asked(&world);
    world.run(&["resolve", &id, "--abandon"]).fails(2, "BP-RUN-010");
    let run = id.split('-').next().expect("a run");
    world.run(&["approve", &format!("{run}-1")]).fails(2, "BP-RUN-010");
    world.run(&["approve", &format!("{run}-x")]).fails(2, "BP-RUN-010");
    assert_eq!(tickets(&world), 0);
}

/// A tool without a probe that is killed while it runs is in doubt.
#[test]
fn an_action_in_doubt_is_resolved_by_a_person() {
    let world = desk();
    world.program("ticket", "#!/bin/sh\ncat >> tickets.log\necho >> tickets.log\nexec sleep 60\n");
    let id = asked(&world);
    world.run(&["approve", &id]).exits(0);
    until("the tool runs", || tickets(&world) == 1);
    world.kill_owner();
    let said = world.run(&["resume", "last"]).exits(4);
    assert!(said.stderr.contains("nobody knows whether this happened: ticket"), "{}", said.stderr);
    let list = world.run(&["approvals", "--json"]).exits(0).json();
    let doubt = &list["approvals"][0];
    assert_eq!(
        (doubt["kind"].as_str(), doubt["expires"].is_null()),
        (Some("in_doubt"), true),
        "{doubt}"
    );
    let id = doubt["id"].as_str().expect("an id");
    world.run(&["approve", id]).fails(2, "BP-RUN-010");
    world.run(&["resolve", id, "--happened", "--result", "{\"id\": 7}"]).exits(0);
    let json = world.run(&["watch", "last", "--json"]).exits(0).json();
    assert_eq!(json["status"], "done", "{json}");
    assert_eq!(tickets(&world), 1, "it was not done again");
    world.run(&["verify", "last"]).exits(0);
}
