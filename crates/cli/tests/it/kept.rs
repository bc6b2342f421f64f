//! Kept sandboxes through the binary: made once, used command after command, forked, taken back.

use crate::support::{Said, World, say, until};
use std::io::Write as _;
use std::process::Stdio;

/// A sandbox over a directory with one file.
fn made(world: &World) -> String {
    world.write("w/old.txt", "as it was\n");
    one_line(&world.run(&["sandbox", "create", "--workspace", "w"]).exits(0))
}

/// What was printed, which is one line and nothing else.
fn one_line(said: &Said) -> String {
    let line = said.stdout.strip_suffix('\n').expect("a line").to_owned();
    assert!(!line.is_empty() && !line.contains('\n'), "{said:?}");
    line
}

fn sh(world: &World, id: &str, script: &str) -> Said {
    world.run(&["sandbox", "exec", id, "--", "sh", "-c", script])
}

fn ids(said: &Said) -> Vec<String> {
    said.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn what_one_command_does_the_next_one_finds() {
    let world = World::new();
    let id = made(&world);
    let said = sh(&world, &id, "echo new > new.txt; rm old.txt; echo out; echo err >&2; exit 3");
    let said = said.exits(3);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
    assert_eq!(sh(&world, &id, "ls").exits(0).stdout, "new.txt\n");
    let diff = world.run(&["sandbox", "diff", &id]).exits(0).stdout;
    assert_eq!(diff, "A\tnew.txt\nD\told.txt\n");
    let host = std::fs::read_to_string(world.project().join("w/old.txt")).expect("it is there");
    assert_eq!(host, "as it was\n");
    let listed = world.run(&["sandbox", "ls"]).exits(0).stdout;
    assert!(listed.starts_with(&id) && listed.contains("idle"), "{listed}");
    // It is a run like any other: recorded, and its log verifies.
    world.run(&["verify", &id]).exits(0);
    world.run(&["sandbox", "rm", &id]).exits(0);
    assert_eq!(world.run(&["sandbox", "ls"]).exits(0).stdout, "");
    sh(&world, &id, "true").fails(2, "BP-STORE-007");
    assert_eq!(world.run(&["ps", "--json"]).json()["runs"].as_array().map(Vec::len), Some(0));
}

#[test]
fn it_goes_back_to_a_snapshot_and_forks_at_one() {
    let world = World::new();
    let id = made(&world);
    let snapshot = one_line(&world.run(&["sandbox", "snapshot", &id]).exits(0));
    sh(&world, &id, "echo changed > old.txt").exits(0);
    let diff = world.run(&["sandbox", "diff", &snapshot]).exits(0).stdout;
    assert_eq!(diff, "M\told.txt\n");
    let forks = ids(&world.run(&["sandbox", "fork", &snapshot, "--count", "2"]).exits(0));
    assert_eq!(forks.len(), 2);
    for (number, fork) in forks.iter().enumerate() {
        assert_eq!(sh(&world, fork, "cat old.txt").exits(0).stdout, "as it was\n");
        sh(&world, fork, &format!("echo {number} > mine.txt")).exits(0);
    }
    let diff = world.run(&["sandbox", "diff", &forks[0], &forks[1]]).exits(0).stdout;
    assert_eq!(diff, "M\tmine.txt\n");
    world.run(&["sandbox", "rollback", &id, "--to", &snapshot]).exits(0);
    assert_eq!(sh(&world, &id, "cat old.txt; ls").exits(0).stdout, "as it was\nold.txt\n");
    let nowhere = ["sandbox", "rollback", &id, "--to", "nowhere"];
    world.run(&nowhere).fails(2, "BP-CLI-018");
    world.run(&["sandbox", "rollback", &forks[0], "--to", &snapshot]).exits(2);
    // What others were forked from goes with the last of them.
    world.run(&["sandbox", "rm", &id]).exits(0);
    assert_eq!(ids(&world.run(&["sandbox", "ls"]).exits(0)).len(), 2);
    for fork in &forks {
        assert!(sh(&world, fork, "cat mine.txt").exits(0).stdout.len() == 2);
        world.run(&["sandbox", "rm", fork]).exits(0);
    }
    assert_eq!(world.run(&["ps", "--json"]).json()["runs"].as_array().map(Vec::len), Some(0));
    until("the owner left", || world.owner().is_none());
}

#[test]
fn the_command_s_exit_status_is_passed_on_and_its_input_read() {
    let world = World::new();
    let id = made(&world);
    let exec = |command: &[&str]| world.run(&[&["sandbox", "exec", &id, "--"], command].concat());
    exec(&["missing-program"]).exits(127);
    exec(&["./old.txt"]).exits(126);
    exec(&["sh", "-c", "kill -9 $$"]).exits(137);
    assert_eq!(
        exec(&["printf", "%s|", "a b", "it's", "$HOME", "*"]).exits(0).stdout,
        "a b|it's|$HOME|*|"
    );
    let mut command = world.command(&["sandbox", "exec", &id, "--", "cat"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let bytes = vec![b'x'; 300_000];
    child.stdin.take().expect("piped").write_all(&bytes).expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stdout == bytes, "{} bytes", output.stdout.len());
}

#[test]
fn it_outlives_its_owner() {
    let world = World::new();
    let id = made(&world);
    sh(&world, &id, "echo kept > kept.txt").exits(0);
    world.kill_owner();
    assert_eq!(sh(&world, &id, "cat kept.txt").exits(0).stdout, "kept\n");
    let exec =
        world.start(&["sandbox", "exec", &id, "--", "sh", "-c", "echo half > half; sleep 600"]);
    until("the command runs", || world.run(&["sandbox", "ls"]).stdout.contains("running"));
    let second = sh(&world, &id, "true").fails(2, "BP-RUN-011");
    assert!(second.stderr.contains("has not ended"), "{second:?}");
    world.kill_owner();
    assert!(!exec.wait_with_output().expect("it ends").status.success());
    // What was half done is undone, and said.
    let said = sh(&world, &id, "ls").exits(0);
    assert_eq!(said.stdout, "kept.txt\nold.txt\n");
    assert!(said.stderr.contains("did not end: it is undone"), "{said:?}");
    assert_eq!(sh(&world, &id, "ls").exits(0).stderr, "");
}

#[test]
fn a_policy_governs_each_command_and_is_kept() {
    let world = World::new();
    world.write("w/a", "");
    world.write(
        "inside.cedar",
        "permit (principal, action == Action::\"run_command\", resource);\n",
    );
    let create = ["sandbox", "create", "--workspace", "w", "--policy", "inside.cedar"];
    let id = one_line(&world.run(&create).exits(0));
    std::fs::remove_file(world.project().join("inside.cedar")).expect("removed");
    sh(&world, &id, "true").exits(0);
    world.write("p/bedplate.toml", "schema = 1\n[permissions]\ndeny = [\"shell\"]\n");
    let create = ["sandbox", "create", "--policy", "p/bedplate.toml"];
    let shut = one_line(&world.run(&create).exits(0));
    let said = sh(&world, &shut, "echo out").exits(125);
    assert!(said.stdout.is_empty() && said.stderr.contains("denied"), "{said:?}");
    // The policy is the operator's, and holds as it is now.
    world.write("p/bedplate.toml", "schema = 1\n[permissions]\nallow = [\"shell\"]\n");
    assert_eq!(sh(&world, &shut, "echo out").exits(0).stdout, "out\n");
    let budget =
        format!("{}[budget]\nactions = 1\n", "schema = 1\n[permissions]\nallow = [\"shell\"]\n");
    world.write("b/bedplate.toml", &budget);
    let create = ["sandbox", "create", "--policy", "b/bedplate.toml"];
    let busy = one_line(&world.run(&create).exits(0));
    (0..3).for_each(|_| drop(sh(&world, &busy, "true").exits(0)));
    let shown = world.run(&["show", &busy, "--json"]).exits(0).json();
    let actions = &shown["records"][0]["manifest"]["budget"]["actions"];
    assert_eq!(actions, 100_000, "as many as a run has steps");
    world.write("p/bedplate.toml", "schema = 1\n[permissions]\nask = [\"shell\"]\n");
    let said = sh(&world, &shut, "echo asked").exits(4);
    assert!(
        said.stderr.contains("next: bedplate") && said.stderr.contains("approvals"),
        "{said:?}"
    );
    for bad in ["permit (principal", "permit (principal, action == Action::\"no\", resource);"] {
        world.write("bad.cedar", bad);
        let kept = world.home().join("sandboxes");
        let before = std::fs::read_dir(&kept).map_or(0, Iterator::count);
        let said = world.run(&["sandbox", "create", "--policy", "bad.cedar"]).exits(2);
        assert!(said.stderr.contains("BP-POLICY-"), "{said:?}");
        assert_eq!(std::fs::read_dir(&kept).map_or(0, Iterator::count), before);
    }
    for id in [id, shut, busy] {
        world.run(&["sandbox", "rm", &id]).exits(0);
    }
    assert_eq!(std::fs::read_dir(world.home().join("sandboxes")).map_or(0, Iterator::count), 0);
}

#[test]
fn a_run_of_an_agent_is_no_sandbox() {
    let world = World::new();
    world.agent("[permissions]\npreset = \"observe\"\n", &say("Done."));
    world.run(&["run"]).exits(0);
    for command in ["exec", "snapshot", "fork", "diff", "rm"] {
        let tail: &[&str] = if command == "exec" { &["--", "true"] } else { &[] };
        let said = world.run(&[&["sandbox", command, "last"], tail].concat());
        said.fails(2, "BP-CLI-017");
    }
    world.run(&["sandbox", "create", "--workspace", "missing"]).exits(2);
    world.run(&["sandbox", "exec", "last"]).exits(2);
}
