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
                && r["output"]["text"].as_str().is_some_and(|t| t.contains("767.2"))
        })
        .and_then(|record| record["seq"].as_u64())
        .expect("the outcome");
    let json = world.run(&["explain", "last", "--json"]).exits(0).json();
    assert_eq!(json["finding"]["root"].as_u64(), Some(fault), "{json}");
    let text = world.run(&["explain", "last"]).exits(0).stdout;
    assert!(text.contains(&format!("goes back to record {fault}: ")), "{text}");
    assert!(text.contains("beyond the sandbox"), "{text}");
}

#[test]
fn a_record_can_be_looked_at_with_the_state_it_carried() {
    let world = survey();
    world.run(&["run"]).exits(1);
    let text = world.run(&["show", "last@4"]).exits(0).stdout;
    for part in ["at record 4", "workspace  layer ", "spent ", "conversation ("] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = world.run(&["show", "last@4", "--json"]).exits(0).json();
    assert_eq!(json["record"]["seq"].as_u64(), Some(4));
    assert_eq!(json["state"]["next_seq"].as_u64(), Some(5));
    world.run(&["show", "last@9999"]).fails(2, "BP-CLI-010");
    world.run(&["explain", "last@4"]).exits(0);
    let list = world.run(&["show", "last"]).exits(0).stdout;
    assert!(list.contains("decision_made") && list.contains("(result of "), "{list}");
}

/// Changes the log behind its owner's back: SQL on the database, and what `verify` must say.
const TAMPERING: [(&str, &str); 6] = [
    (
        "flip a header",
        "UPDATE records SET header = CAST(x'ff' || substr(header, 2) AS BLOB) WHERE key = (SELECT key FROM records ORDER BY key LIMIT 1 OFFSET 5)",
    ),
    (
        "flip a content",
        "UPDATE records SET body = CAST(substr(body, 1, length(body) - 1) || x'00' AS BLOB) WHERE key = (SELECT key FROM records ORDER BY key LIMIT 1 OFFSET 5)",
    ),
    (
        "drop a record",
        "DELETE FROM records WHERE key = (SELECT key FROM records ORDER BY key LIMIT 1 OFFSET 5)",
    ),
    ("cut the end", "DELETE FROM records WHERE key = (SELECT max(key) FROM records)"),
    (
        "swap two",
        "UPDATE records SET header = (SELECT r.header FROM records r WHERE r.key = records.key + 1) WHERE key = (SELECT key FROM records ORDER BY key LIMIT 1 OFFSET 5)",
    ),
    ("move the head", "UPDATE branches SET next_seq = next_seq - 1"),
];

#[test]
fn a_log_that_was_tampered_with_does_not_verify() {
    let world = survey();
    world.run(&["run"]).exits(1);
    until("the owner left", || world.owner().is_none());
    let said = world.run(&["verify", "last"]).exits(0);
    assert!(said.stdout.contains(" verified"), "{}", said.stdout);
    let log = world.home().join("log");
    let kept = world.path().join("kept");
    // The owner has let go of its home; closing the log still removes files of it.
    until("the log could be copied whole", || {
        let _ = std::fs::remove_dir_all(&kept);
        copied(&log, &kept)
    });
    for (what, statement) in TAMPERING {
        let script = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); n = c.execute(sys.argv[2]).rowcount; c.commit(); sys.exit(n < 1)";
        let database = log.join("log.db");
        let changed = std::process::Command::new("python3")
            .args(["-c", script])
            .arg(&database)
            .arg(statement)
            .status();
        assert!(changed.expect("python3 runs").success(), "{what}");
        let said = world.run(&["verify", "last", "--json"]).fails(3, "BP-CLI-009");
        let json = said.json();
        assert_eq!(json["ok"], false, "{what}: {json}");
        assert!(
            json["faults"].as_array().is_some_and(|faults| !faults.is_empty()),
            "{what}: {json}"
        );
        world.run(&["verify", "last"]).fails(3, "BP-CLI-009");
        let json = world.run(&["resume", "last", "--json"]);
        assert_ne!(json.code, 0, "{what}: {}", json.stdout);
        std::fs::remove_dir_all(&log).expect("removed");
        assert!(copied(&kept, &log));
    }
    world.run(&["verify", "last"]).exits(0);
}

fn copied(from: &std::path::Path, to: &std::path::Path) -> bool {
    let copied = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    copied.expect("cp runs").success()
}
