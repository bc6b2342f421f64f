//! What a run changed, shown and brought to the host.

use crate::support::{World, call, say};

fn editor() -> World {
    let world = World::new();
    world.write("data/a.txt", "one\ntwo\nthree\n");
    world.write("data/old.txt", "gone\n");
    let command = "command = \"sed -i s/two/TWO/ a.txt; rm old.txt; mkdir new; printf 'hi\\\\n' > new/b.txt\"";
    let turns = format!("{}{}", call("I'll edit.", "shell", command), say("Edited."));
    world.agent("[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n", &turns);
    world
}

#[test]
fn changes_are_shown_and_applied_only_with_a_yes() {
    let world = editor();
    let said = world.run(&["run"]).exits(0);
    assert!(said.stderr.contains("next: bedplate apply "), "{}", said.stderr);
    let diff = world.run(&["diff", "last"]).exits(0).stdout;
    for part in ["M a.txt", "-two", "+TWO", "D old.txt", "-gone", "A new/b.txt", "+hi"] {
        assert!(diff.contains(part), "{part}: {diff}");
    }
    let said = world.run(&["apply", "last"]).fails(2, "BP-CLI-006");
    assert!(said.stderr.contains("+TWO"), "the diff comes first: {}", said.stderr);
    assert_eq!(world.read("data/a.txt"), "one\ntwo\nthree\n");

    let json = world.run(&["apply", "last", "--yes", "--json"]).exits(0).json();
    let applied = json["applied"].as_array().expect("a list");
    assert!(applied.iter().any(|line| line == "M\ta.txt"), "{json}");
    assert_eq!(world.read("data/a.txt"), "one\nTWO\nthree\n");
    assert_eq!(world.read("data/new/b.txt"), "hi\n");
    assert!(!world.project().join("data/old.txt").exists());
    world.run(&["verify", "last"]).exits(0);
}

#[test]
fn some_paths_can_be_applied_alone() {
    let world = editor();
    world.run(&["run"]).exits(0);
    world.run(&["apply", "last", "--yes", "none.txt"]).fails(2, "BP-CLI-001");
    world.run(&["apply", "last", "--yes", "a.txt"]).exits(0);
    assert_eq!(world.read("data/a.txt"), "one\nTWO\nthree\n");
    assert_eq!(world.read("data/old.txt"), "gone\n");
}

#[test]
fn what_changed_on_the_host_is_never_overwritten() {
    let world = editor();
    world.run(&["run"]).exits(0);
    world.write("data/a.txt", "mine\n");
    let said = world.run(&["apply", "last", "--yes"]).fails(1, "BP-RUN-012");
    assert!(said.stderr.contains("a.txt"), "{}", said.stderr);
    assert_eq!(world.read("data/a.txt"), "mine\n");
    assert_eq!(world.read("data/old.txt"), "gone\n", "all or nothing");
}

#[test]
fn a_run_without_a_workspace_has_nowhere_to_apply_to() {
    let world = World::new();
    world.agent("", &say("Done."));
    world.run(&["run"]).exits(0);
    world.run(&["apply", "last", "--yes"]).fails(2, "BP-RUN-011");
}

#[test]
fn nothing_is_written_through_a_link_on_the_host() {
    let world = World::new();
    world.write("data/d/a.txt", "one\n");
    let turns = format!(
        "{}{}",
        call("I'll add.", "shell", "command = \"echo two > d/b.txt\""),
        say("Added.")
    );
    world.agent("[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n", &turns);
    world.run(&["run"]).exits(0);
    let elsewhere = world.path().join("elsewhere");
    std::fs::rename(world.project().join("data/d"), &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, world.project().join("data/d")).expect("linked");
    world.run(&["apply", "last", "--yes"]).fails(1, "BP-RUN-013");
    assert!(!elsewhere.join("b.txt").exists());
}

#[test]
fn applying_again_does_what_is_left_and_nothing_twice() {
    let world = editor();
    world.run(&["run"]).exits(0);
    world.run(&["apply", "last", "--yes", "new"]).exits(0);
    assert_eq!(world.read("data/new/b.txt"), "hi\n", "a directory stands for all below it");
    assert_eq!(world.read("data/old.txt"), "gone\n");
    let json = world.run(&["apply", "last", "--yes", "--json"]).exits(0).json();
    let applied = json["applied"].as_array().expect("a list");
    assert_eq!(applied.len(), 2, "{json}");
    let json = world.run(&["apply", "last", "--yes", "--json"]).exits(0).json();
    assert_eq!(json["applied"].as_array().map(Vec::len), Some(0), "{json}");
}

#[test]
fn a_directory_that_goes_takes_nothing_of_yours_along() {
    let world = World::new();
    world.write("data/d/a.txt", "one\n");
    world.write("data/e/a.txt", "one\n");
    let command = "command = \"rm -r d e; echo file > e\"";
    world.agent(
        "[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n",
        &(call("I'll remove.", "shell", command) + &say("Removed.")),
    );
    world.run(&["run"]).exits(0);
    world.write("data/d/mine.txt", "mine\n");
    world.write("data/e/mine.txt", "mine\n");
    let said = world.run(&["apply", "last", "--yes"]).fails(1, "BP-RUN-012");
    assert!(said.stderr.contains("d/mine.txt, e/mine.txt"), "{}", said.stderr);
    assert_eq!(world.read("data/d/a.txt"), "one\n", "all or nothing");
    for dir in ["d", "e"] {
        std::fs::remove_file(world.project().join("data").join(dir).join("mine.txt"))
            .expect("gone");
    }
    world.run(&["apply", "last", "--yes"]).exits(0);
    assert!(!world.project().join("data/d").exists());
    assert_eq!(world.read("data/e"), "file\n", "a file where a directory was");
}

#[test]
fn no_link_of_the_agent_is_written_through() {
    let world = World::new();
    world.write("data/b.txt", "one\n");
    world.write("precious", "mine\n");
    let at = world.project().join("precious");
    let command = format!(
        "command = \"ln -s {0} b.bedplate-partial; ln -s {0} .bedplate-partial; echo two > b.txt\"",
        at.display()
    );
    world.agent(
        "[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n",
        &(call("I'll link.", "shell", &command) + &say("Linked.")),
    );
    world.run(&["run"]).exits(0);
    world.run(&["apply", "last", "--yes"]).exits(0);
    assert_eq!(world.read("precious"), "mine\n");
    assert_eq!(world.read("data/b.txt"), "two\n");
}
