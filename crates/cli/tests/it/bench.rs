//! `bench worlds` and `bench soak` through the binary: each part prints its rows and leaves nothing.
//! No figure is looked at, but those that must be nothing.

use crate::support::World;
use serde_json::Value;

/// Measures one part of `bench worlds` as small as can be: what it printed as a document. The rows
/// have these names, no sample failed, and nothing of it is left.
fn part(name: &str, more: &[&str], rows: &[&str]) -> Value {
    let world = World::new();
    let arguments = ["bench", "worlds", "--json", "--count", "1", "--part", name];
    let said = world.run(&[&arguments[..], more].concat()).exits(0).json();
    let what = said["what"].as_array().expect("rows");
    for row in rows {
        let found = what.iter().find(|one| one["what"].as_str() == Some(row));
        let found = found.unwrap_or_else(|| panic!("no row '{row}': {said}"));
        assert!(found["count"].as_u64() > Some(0) && found["failed"] == 0, "{found}");
        assert!(found["p99_ns"].as_u64() >= found["p50_ns"].as_u64(), "{found}");
    }
    left_nothing(&world);
    said
}

/// No file, mount or process that has to do with this world.
fn left_nothing(world: &World) {
    let files: Vec<_> = std::fs::read_dir(world.project()).expect("there").flatten().collect();
    assert!(files.is_empty(), "{files:?}");
    assert!(!world.home().exists(), "a measurement has a home of its own");
    let here = world.path().to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("readable");
    assert!(!mounts.contains(&here), "{mounts}");
    for entry in std::fs::read_dir("/proc").expect("readable").flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        assert!(!line.contains(&here), "{line}");
    }
}

#[test]
fn a_first_output_is_measured_warm_cold_and_many_at_once_beside_peers() {
    let said = part(
        "first-output",
        &[],
        &[
            "bedplate: create to first output, warm",
            "bedplate: create to first output, cold",
            "bedplate: 1 at once, each to first output",
        ],
    );
    let absent = said["peers_absent"].as_array().expect("a list").len();
    let names = ["bwrap --unshare-all", "runc run", "runsc run", "sandlock"];
    let what = said["what"].as_array().expect("rows");
    let measured = names.iter().filter(|name| {
        what.iter().any(|row| row["what"].as_str().is_some_and(|what| what.starts_with(**name)))
    });
    assert_eq!(measured.count() + absent, names.len(), "{said}");
}

#[test]
fn seals_are_measured_with_the_disk_busy() {
    let said = part(
        "seal",
        &["--files", "200"],
        &[
            "seal: 1 file over 200",
            "seal at a turn's end: 1 of 100 files, the disk busy",
            "seal at a turn's end: 1 of 200 files, the disk busy",
            "seal at a turn's end: 200 of 200 files, the disk busy",
        ],
    );
    assert_eq!(said["seal_with_live_processes"], "not offered");
}

#[test]
fn layers_forks_and_going_back_are_measured() {
    let files = ["--files", "100"];
    part("upper", &files, &["another upper on an older layer of 100"]);
    part("diff", &files, &["diff: 10 changed files"]);
    let said = part("fork", &files, &["fork at one of 10 steps", "fork 100", "fork 1000"]);
    assert!(said["bytes_per_fork"].as_u64() > Some(0), "{said}");
    part("rollback", &files, &["rollback in a run of 10 steps"]);
}

#[test]
fn going_on_is_measured_with_the_owner_there_and_killed() {
    part(
        "resume",
        &[],
        &["resume to the next command's output", "  the same, its owner killed before"],
    );
}

#[test]
fn a_trajectory_is_measured_beside_its_commands() {
    let rows = ["50 actions, runtime overhead in all", "  the whole run"];
    let said = part("trajectory", &[], &rows);
    let p50 = |name: &str| {
        let rows = said["what"].as_array().expect("rows");
        let row = rows.iter().find(|row| row["what"] == name).expect("it is there");
        row["p50_ns"].as_u64().expect("a number")
    };
    let sum = p50(rows[0]) + p50("  the commands bare on the host");
    assert_eq!(sum, p50(rows[1]), "the overhead is what is over");
}

#[test]
fn idle_sandboxes_are_weighed_and_gone_afterwards() {
    let said =
        part("idle", &["--idle", "3"], &["idle: each made, one command in it", "  each ended"]);
    assert_eq!(said["idle"]["count"], 3);
    assert!(said["idle"]["pss_bytes"].as_u64() > said["idle"]["pss_bytes_before"].as_u64());
    for what in ["processes", "mounts", "cgroups", "namespaces"] {
        assert_eq!(said["idle_left"][what], 0, "{said}");
    }
}

#[test]
fn a_soak_kills_each_of_its_processes_and_nothing_is_left() {
    let world = World::new();
    let said = world.run(&["bench", "soak", "--count", "16", "--json"]).exits(0).json();
    assert_eq!(said["cycles"], 16);
    for victim in ["owner", "gate", "spawner", "all three"] {
        assert_eq!(said["kills"][victim], 1, "{said}");
    }
    for (what, count) in said["left"].as_object().expect("counts") {
        assert_eq!(*count, 0, "{what}: {said}");
    }
    assert_eq!(said["failing"], serde_json::json!([]));
    left_nothing(&world);
}

#[test]
fn only_worlds_has_parts() {
    let world = World::new();
    world.run(&["bench", "store", "--part", "seal"]).fails(2, "BP-CLI-001");
    world.run(&["bench", "worlds", "--part", "everything"]).fails(2, "BP-CLI-001");
    let raw = ["bench", "worlds", "--part", "upper", "--files", "10", "--count", "2", "--raw"];
    let said = world.run(&raw).exits(0);
    let samples: Vec<Value> =
        said.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(samples.len() == 2 && samples.iter().all(|one| one["ns"].as_u64() > Some(0)));
    left_nothing(&world);
}
