//! An agent made on the spot.

use crate::support::{World, call, say};

fn workshop() -> World {
    let world = World::new();
    world.write("a.txt", "one\n");
    let turns = format!(
        "{}{}",
        call("I'll write.", "shell", "command = \"cp a.txt b.txt; ls\""),
        say("Copied.")
    );
    world.write("turns.toml", &turns);
    world
}

#[test]
fn a_task_works_on_a_copy_of_this_directory() {
    let world = workshop();
    let json = world
        .run(&["run", "copy the file", "--model", "script/turns.toml", "--json"])
        .exits(0)
        .json();
    assert_eq!(
        (json["status"].as_str(), json["output"].as_str()),
        (Some("done"), Some("Copied.")),
        "{json}"
    );
    assert_eq!(json["denials"].as_i64(), Some(0), "draft lets commands run: {json}");
    assert!(!world.project().join("b.txt").exists());
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    assert_eq!(shown["records"][1]["item"]["text"], "copy the file");
    world.run(&["apply", "last", "--yes"]).exits(0);
    assert_eq!(world.read("b.txt"), "one\n");
}

#[test]
fn a_task_uses_the_routes_of_the_home() {
    let world = workshop();
    std::fs::create_dir(world.home()).expect("made");
    let script = world.project().join("turns.toml");
    let routes = format!("[routes]\ndefault = [\"script/{}\"]\n", script.display());
    std::fs::write(world.home().join("bedplate.toml"), routes).expect("written");
    let json = world.run(&["run", "copy the file", "--json"]).exits(0).json();
    assert_eq!(json["output"], "Copied.");
    std::fs::write(world.home().join("bedplate.toml"), "[agent]\nnom = \"x\"\n").expect("written");
    world.run(&["run", "copy the file"]).fails(2, "BP-CONFIG-001");
}

#[test]
fn a_task_cannot_be_given_what_only_a_policy_file_can_say() {
    let world = workshop();
    let turns = format!(
        "{}{}",
        call("I'll look.", "read_file", "path = \"/etc/hostname\""),
        say("Denied.")
    );
    world.write("turns.toml", &turns);
    world.run(&["run", "read the name", "--model", "script/turns.toml"]).exits(0);
    let said = world.run(&["policy", "allow", "last", "--yes"]).fails(2, "BP-CLI-011");
    assert!(said.stderr.contains("opens reading /etc/hostname"), "{}", said.stderr);
    assert!(!world.project().join("policy.cedar").exists());
}

#[test]
fn what_a_run_without_a_manifest_was_denied_is_added_to_it_alone() {
    let world = World::new();
    let turns = format!(
        "{}{}[[turn]]\nwhen = {{ contains = \"again\" }}\ntext = \"Once more.\"\ntool = \"shell\"\n[turn.arguments]\ncommand = \"echo hello\"\n",
        call("I'll look.", "shell", "command = \"echo hello\""),
        say("Denied."),
    );
    world.agent("", &turns);
    world.run(&["run"]).exits(0);
    let manifest = world.project().join("bedplate.toml");
    std::fs::rename(&manifest, world.path().join("moved.toml")).expect("moved");
    world.run(&["policy", "ask", "last", "--yes"]).fails(2, "BP-CLI-011");
    world.run(&["policy", "allow", "last", "--yes"]).exits(0);
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    let last = shown["records"].as_array().expect("records").last().expect("some").clone();
    assert_eq!(
        (last["kind"].as_str(), last["allow"][0].as_str()),
        (Some("policy_changed"), Some("shell"))
    );
    assert!(!manifest.exists());
    let said = world.run(&["send", "last", "try again"]);
    assert!(said.stderr.contains("ok shell echo hello"), "{}", said.stderr);
}
