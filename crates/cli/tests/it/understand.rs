//! The log as people read it, and a log that was tampered with.

use crate::support::{World, call, say, until};

const STATIONS: &str = "
[permissions]
preset = \"observe\"
allow = [\"station\"]
[[tool]]
name = \"station\"
description = \"The elevation of a station, in feet.\"
command = [\"./station\"]
effect = \"read\"
[[check]]
name = \"elevations are plausible\"
command = \"python3 -c 'import sys, re; bad = [x for x in re.findall(r\\\"[0-9.]+\\\", open(\\\"report.md\\\").read()) if float(x) < 1500]; print(\\\"out of range:\\\", bad); sys.exit(bool(bad))'\"
";

/// One of three stations answers in metres; the report says feet.
fn survey() -> World {
    let world = World::new();
    let mut turns = String::new();
    for name in ["north", "east", "south"] {
        turns.push_str(&call("I'll ask.", "station", &format!("name = \"{name}\"")));
    }
    let content = "path = \"report.md\"\ncontent = \"north 4183 ft, east 767.2 ft, south 3390 ft\"";
    turns.push_str(&call("I'll write it down.", "write_file", content));
    turns.push_str(&say("The report is written."));
    world.agent(STATIONS, &turns);
    world.program(
        "station",
        "#!/bin/sh\ncase $(cat) in\n*north*) echo '{\"elevation\": 4183, \"unit\": \"ft\"}';;\n\
         *east*) echo '{\"elevation\": 767.2, \"unit\": \"m\"}';;\n\
         *) echo '{\"elevation\": 3390, \"unit\": \"ft\"}';;\nesac\n",
    );
    world
}

#[test]
fn explain_names_the_record_in_which_the_fault_came_in() {
    let world = survey();
    world.run(&["run"]).exits(1);
    let shown = world.run(&["show", "last", "--json"]).exits(1 - 1).json();
    let fault = shown["records"]
        .as_array()
        .expect("records")
        .iter()
        .find(|r| {
            r["kind"] == "action_finished"
                && r["output"]["text"]
                    .as_str()
                    .is_some_and(|t| t.contains("767.2"))
        })
        .and_then(|record| record["seq"].as_u64())
        .expect("the outcome");
    let json = world.run(&["explain", "last", "--json"]).exits(0).json();
    assert_eq!(json["finding"]["root"].as_u64(), Some(fault), "{json}");
    let text = world.run(&["explain", "last"]).exits(0).stdout;
    assert!(
        text.contains(&format!("goes back to record {fault}: ")),
        "{text}"
    );
    assert!(text.contains("beyond the sandbox"), "{text}");
}

#[test]
fn a_record_can_be_looked_at_with_the_state_it_carried() {
    let world = survey();
    world.run(&["run"]).exits(1);
    let text = world.run(&["show", "last@4"]).exits(0).stdout;
    for part in [
        "at record 4",
        "workspace  layer ",
        "spent ",
        "conversation (",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = world.run(&["show", "last@4", "--json"]).exits(0).json();
    assert_eq!(json["record"]["seq"].as_u64(), Some(4));
    assert_eq!(json["state"]["next_seq"].as_u64(), Some(5));
    world.run(&["show", "last@9999"]).fails(2, "BP-CLI-010");
    world.run(&["explain", "last@4"]).exits(0);
    let list = world.run(&["show", "last"]).exits(0).stdout;
    assert!(
        list.contains("decision_made") && list.contains("(result of "),
        "{list}"
    );
}

/// Any byte of the log's database that belongs to the run's content or chain, changed, is found.
#[test]
fn a_changed_log_does_not_verify() {
    let world = survey();
    world.run(&["run"]).exits(1);
    let said = world.run(&["verify", "last"]).exits(0);
    assert!(said.stdout.contains(" verified"), "{}", said.stdout);
    until("the owner left", || world.owner().is_none());
    let database = world.home().join("log/log.db");
    let marker = b"action_finished";
    let mut found = false;
    for file in [database, world.home().join("log/log.db-wal")] {
        let Ok(mut bytes) = std::fs::read(&file) else {
            continue;
        };
        let mut at = 0;
        while let Some(next) = bytes[at..].windows(marker.len()).position(|w| w == marker) {
            bytes[at + next] ^= 1;
            at += next + 1;
            found = true;
        }
        std::fs::write(&file, &bytes).expect("written");
    }
    if !found {
        return;
    }
    let said = world.run(&["verify", "last", "--json"]);
    assert_ne!(said.code, 0, "{}", said.stdout);
}
