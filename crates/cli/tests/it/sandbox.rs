//! `sandbox run`: the command's own status, streams, workspace and rules.

use crate::support::{Said, World};
use std::io::Write;
use std::process::Stdio;

fn inside(world: &World, arguments: &[&str]) -> Said {
    world.run(&[&["sandbox", "run"], arguments].concat())
}

#[test]
fn the_command_s_status_is_passed_on() {
    let world = World::new();
    let check = |command: &str, expected: i32| {
        inside(&world, &["--", "sh", "-c", command]).exits(expected);
    };
    check("exit 0", 0);
    check("exit 7", 7);
    check("exit 125", 125);
    check("kill -9 $$", 137);
    check("kill -TERM $$", 143);
    inside(&world, &["--", "no-such-program"]).fails(127, "BP-SANDBOX-017");
    inside(&world, &["--", "/etc/passwd"]).fails(126, "BP-SANDBOX-018");
    assert!(!world.home().exists(), "nothing in the home");
}

#[test]
fn streams_are_passed_through() {
    let world = World::new();
    let mut command = world.command(&["sandbox", "run", "--", "sh", "-c", "cat; echo err >&2"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("a pipe").write_all(b"through\n").expect("written");
    let said = Said::of(child.wait_with_output().expect("ends")).exits(0);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("through\n", "err\n"));
}

#[test]
fn it_starts_in_the_workspace_with_nothing_of_the_host() {
    let world = World::new();
    world.write("w/a.txt", "one\n");
    let said = inside(
        &world,
        &["--workspace", "w", "--", "sh", "-c", "pwd; cat a.txt; echo two > a.txt; env"],
    )
    .exits(0);
    let lines: Vec<&str> = said.stdout.lines().collect();
    assert_eq!(&lines[..2], ["/workspace", "one"]);
    assert!(lines.contains(&"PATH=/usr/local/bin:/usr/bin:/bin"), "{lines:?}");
    assert!(
        !said.stdout.contains("BEDPLATE_HOME") && !said.stdout.contains("LOGNAME=ada"),
        "{lines:?}"
    );
    assert_eq!(world.read("w/a.txt"), "one\n", "changes are dropped");
    let said = inside(&world, &["--", "ls", "-A"]).exits(0);
    assert_eq!(said.stdout, "", "without --workspace it is empty");
}

#[test]
fn a_policy_binds_the_command() {
    let world = World::new();
    world.write("w/open.txt", "open\n");
    world.write("w/shut.txt", "shut\n");
    world.write("p.cedar", "forbid(principal, action == Action::\"read_file\", resource == Path::\"/workspace/shut.txt\");\n");
    let with = |command: &str| {
        inside(&world, &["--workspace", "w", "--policy", "p.cedar", "--", "sh", "-c", command])
    };
    assert_eq!(with("cat open.txt").exits(0).stdout, "open\n");
    let said = with("cat shut.txt");
    assert!(said.code != 0 && !said.stdout.contains("shut"), "{said:?}");
    world.write("p.cedar", "forbid(principal, action == Action::\"run_command\", resource);\n");
    with("true").fails(2, "BP-CLI-011");
    world.write("p.cedar", "permit(");
    with("true").fails(2, "BP-POLICY-001");
}

#[test]
fn nothing_is_left_behind() {
    let world = World::new();
    let temporary = world.path().join("tmp");
    std::fs::create_dir(&temporary).expect("made");
    let mut command = world.command(&[
        "sandbox",
        "run",
        "--",
        "sh",
        "-c",
        "mkdir -p a/b; chmod 0 a; sleep 100 & exit 3",
    ]);
    Said::of(command.env("TMPDIR", &temporary).output().expect("runs")).exits(3);
    let left: Vec<_> = std::fs::read_dir(&temporary).expect("a directory").flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!world.home().exists());
}

#[test]
fn doctor_says_that_runs_work_here() {
    let world = World::new();
    let json = world.run(&["doctor", "--json"]).exits(0).json();
    assert_eq!(json["ok"], true, "{json}");
    let names: Vec<&str> = json["checks"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    for name in ["kernel", "home", "user namespaces", "Landlock", "a whole sandbox", "model"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(!world.home().exists(), "looking makes no home");
    world.write("file", "");
    let said = world.run(&["doctor", "--home", "file"]).fails(1, "BP-CLI-013");
    assert!(said.stdout.contains("missing  home"), "{}", said.stdout);
}

#[test]
fn benches_print_samples_and_a_ratio() {
    let world = World::new();
    for (what, sides) in [("sandbox", 2), ("store", 1), ("start", 1)] {
        let said = world.run(&["bench", what, "--count", "3", "--raw"]).exits(0);
        let samples: Vec<serde_json::Value> =
            said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let ours = samples
            .iter()
            .filter(|s| s["what"].as_str().is_some_and(|w| w.starts_with("bedplate")))
            .count();
        assert_eq!(ours, 3 * sides, "{what}: {}", said.stdout);
        assert!(samples.iter().all(|sample| sample["ns"].as_u64().is_some()), "{what}");
    }
    let json = world.run(&["bench", "start", "--count", "2", "--json"]).exits(0).json();
    assert_eq!(
        (json["ours"]["count"].as_u64(), json["ours"]["failed"].as_u64()),
        (Some(2), Some(0))
    );
    assert!(json["ratio_p50"].as_f64().is_some_and(|ratio| ratio > 0.0), "{json}");
}
