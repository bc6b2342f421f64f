//! Homes that cannot be used: refused with a code, and left as they were.

use crate::support::{Said, World, binary, call, say, until};
use std::collections::BTreeMap;
use std::path::Path;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Every file below, with the digest of its bytes.
fn content(dir: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            if entry.path().is_dir() {
                waiting.push(entry.path());
            } else {
                let bytes = std::fs::read(entry.path()).unwrap_or_default();
                let digest = types::Digest::of(&bytes).to_string();
                found.insert(entry.path().display().to_string(), digest);
            }
        }
    }
    found
}

/// Bytes of the log that are not in its one file yet.
fn waiting_bytes(world: &World) -> u64 {
    std::fs::metadata(world.home().join("log/log.db-wal")).map_or(0, |meta| meta.len())
}

/// The owner gives up its lock last.
fn until_owner_gone(world: &World) {
    let lock = std::fs::File::open(world.home().join("owner.lock")).expect("there");
    let free = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    until("the owner is gone", || rustix::fs::flock(&lock, free).is_ok());
}

/// A home with one run that is done, and no owner.
fn used() -> World {
    let world = World::new();
    world.agent("", &say("Done."));
    world.run(&["run"]).exits(0);
    until_owner_gone(&world);
    world
}

/// Runs shell lines as root in a mount space of their own. `$B` is the binary.
fn in_own_mounts(world: &World, lines: &str) -> Said {
    let mut command = world.command(&[]);
    let mut space = std::process::Command::new("unshare");
    space.args(["--mount", "--propagation", "private", "sh", "-c", lines]);
    space.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    space.env("B", binary()).env("H", world.home()).current_dir(world.project());
    command.stdin(std::process::Stdio::null());
    Said::of(space.stdin(std::process::Stdio::null()).output().expect("unshare runs"))
}

/// Runs a command over the home as it is when nobody may write there.
fn read_only(world: &World, line: &str) -> Said {
    if is_root() {
        let mount = "mount --bind $H $H && mount -o remount,bind,ro $H && exec $B";
        return in_own_mounts(world, &format!("{mount} {line}"));
    }
    let mode = |mode| {
        use std::os::unix::fs::PermissionsExt;
        for dir in [world.home(), world.home().join("log")] {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).expect("set");
        }
    };
    mode(0o500);
    let said = world.run(&line.split(' ').collect::<Vec<_>>());
    mode(0o700);
    said
}

/// The owner removes its pid and socket, closes the log, and gives up its lock last.
#[test]
fn an_owner_that_left_has_closed_its_log() {
    let world = World::new();
    world.agent("", &say("Done."));
    for _ in 0..5 {
        world.run(&["run"]).exits(0);
        until_owner_gone(&world);
        assert_eq!(waiting_bytes(&world), 0);
        assert!(world.owner().is_none());
    }
}

/// The lock of an owner that listens no more.
fn leaving_owner(world: &World) -> std::fs::File {
    std::fs::create_dir(world.home()).expect("made");
    let lock = std::fs::File::create(world.home().join("owner.lock")).expect("made");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    lock
}

/// Whether a new owner of this home waits to begin.
fn owner_waits(world: &World) -> bool {
    let home = world.home();
    let home = home.to_str().expect("UTF-8").as_bytes();
    std::fs::read_dir("/proc").expect("proc").flatten().any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&b"__owner".as_slice()) && words.contains(&home)
    })
}

#[test]
fn an_owner_that_is_leaving_is_waited_for() {
    let world = World::new();
    let lock = leaving_owner(&world);
    let child = world.start(&["gc"]);
    until("the next owner waits", || owner_waits(&world));
    drop(lock);
    Said::of(child.wait_with_output().expect("ends")).exits(0);
}

#[test]
fn an_owner_that_never_leaves_is_said_after_ten_seconds() {
    let world = World::new();
    let _lock = leaving_owner(&world);
    let said = world.run(&["gc"]).fails(1, "BP-OWNER-002");
    assert!(said.stderr.contains("the owner before has not left"), "{}", said.stderr);
    assert!(!world.home().join("log").exists());
}

#[test]
fn a_home_that_nobody_may_write_is_refused_and_left_alone() {
    let world = used();
    let before = content(&world.home());
    let said = read_only(&world, "run --json").fails(2, "BP-OWNER-001");
    assert_eq!(said.json()["error"]["code"], "BP-OWNER-001");
    assert!(said.stderr.contains("cannot be written"), "{}", said.stderr);
    read_only(&world, "gc").fails(2, "BP-OWNER-001");
    assert_eq!(content(&world.home()), before);
    // The control: the same home, once it may be written.
    world.run(&["run"]).exits(0);
}

#[test]
fn what_is_in_a_home_that_nobody_may_write_can_be_read() {
    let world = used();
    let before = content(&world.home());
    let ps = read_only(&world, "ps --json").exits(0).json();
    assert_eq!(ps["runs"][0]["status"], "done");
    read_only(&world, "show last").exits(0);
    read_only(&world, "verify last").exits(0);
    assert_eq!(content(&world.home()), before);
}

/// Where SQLite keeps the number of the format.
const USER_VERSION_AT: usize = 60;

#[test]
fn a_home_of_a_newer_version_is_refused_and_left_alone() {
    let world = used();
    let log = world.home().join("log/log.db");
    let mut bytes = std::fs::read(&log).expect("a log");
    let version = &mut bytes[USER_VERSION_AT..USER_VERSION_AT + 4];
    let now = u32::from_be_bytes(version.try_into().expect("four bytes"));
    version.copy_from_slice(&(now + 1).to_be_bytes());
    std::fs::write(&log, &bytes).expect("written");
    let before = content(&world.home().join("log"));
    let check = |line: &[&str]| {
        let said = world.run(line).fails(2, "BP-STORE-005");
        assert!(said.stderr.contains(&format!(" {}", now + 1)), "{}", said.stderr);
    };
    check(&["run"]);
    check(&["ps"]);
    check(&["show", "last"]);
    check(&["verify", "last"]);
    check(&["resume", "last"]);
    check(&["gc"]);
    assert_eq!(content(&world.home().join("log")), before);
    bytes[USER_VERSION_AT..USER_VERSION_AT + 4].copy_from_slice(&now.to_be_bytes());
    std::fs::write(&log, &bytes).expect("written");
    world.run(&["verify", "last"]).exits(0);
}

/// What an ordinary user cannot mount, root tests: the suite runs as both.
fn cannot_mount(world: &World) -> bool {
    let refused = in_own_mounts(world, "exit 0").code != 0;
    assert!(!(refused && is_root()), "root can mount");
    refused
}

#[test]
fn a_device_without_room_is_said_and_nothing_begins() {
    let world = World::new();
    world.agent("", &say("Done."));
    std::fs::create_dir(world.home()).expect("made");
    if cannot_mount(&world) {
        return;
    }
    let lines = "mount -t tmpfs -o size=24m none $H; cat /dev/zero > $H/full 2>/dev/null; \
                 $B run --json; echo $? > status; rm $H/full; $B ps --json > ps; \
                 $B run > again; echo $? >> status";
    let said = in_own_mounts(&world, lines);
    assert_eq!(world.read("status"), "1\n0\n", "{}", said.stderr);
    assert_eq!(said.json()["error"]["code"], "BP-STORE-010", "{}", said.stdout);
    assert!(said.stderr.contains("error BP-STORE-010: the log cannot grow"), "{}", said.stderr);
    assert_eq!(world.read("ps").trim(), "{\"runs\":[]}");
    assert_eq!(world.read("again"), "Done.\n");
}

/// The tool fills the device that the home is on. What it did is recorded; the run waits for room
/// and then goes on.
#[test]
fn a_device_that_runs_full_in_the_middle_loses_nothing() {
    let world = World::new();
    let tool = "[permissions]\npreset = \"observe\"\nallow = [\"fill\"]\n[[tool]]\nname = \"fill\"\n\
                description = \"x\"\ncommand = [\"./fill\"]\neffect = \"irreversible\"\n";
    let turns = [
        call("Fill it.", "fill", ""),
        call("Now work.", "shell", "command = \"echo made > made\""),
        say("Went on."),
    ];
    world.agent(tool, &turns.concat());
    std::fs::create_dir(world.home()).expect("made");
    if cannot_mount(&world) {
        return;
    }
    let full = world.home().join("full");
    world.program(
        "fill",
        &format!(
            "#!/bin/sh\necho >> tries\ncat /dev/zero > {} 2>/dev/null\necho 1\n",
            full.display()
        ),
    );
    let lines = "mount -t tmpfs -o size=24m none $H; $B run --json > first; echo $? > status; \
                 $B verify last; echo $? >> status; rm $H/full; \
                 $B resume last --json > then; echo $? >> status; $B verify last; echo $? >> status";
    let said = in_own_mounts(&world, lines);
    assert_eq!(world.read("status"), "4\n0\n0\n0\n", "{}", said.stderr);
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_str(&world.read(name)).expect("JSON")
    };
    let first = json("first");
    assert_eq!(first["status"], "waiting", "{first}");
    assert_eq!(first["error"]["code"], "BP-SANDBOX-016", "{first}");
    assert!(first["error"]["message"].as_str().is_some_and(|m| m.contains("No space left")));
    assert_eq!(json("then")["output"], "Went on.");
    assert_eq!(world.read("tries"), "\n", "it was done once");
}

/// More output than the device has room for: it cannot be recorded, so the run stops there.
#[test]
fn an_outcome_that_cannot_be_recorded_stops_the_run() {
    let world = World::new();
    let flood = "command = \"head -c 6000000 /dev/urandom | od -An -v -tx1 | tr -d ' '\"";
    let turns = [call("A lot.", "shell", flood), say("Went on.")];
    world.agent("[permissions]\npreset = \"observe\"\n", &turns.concat());
    std::fs::create_dir(world.home()).expect("made");
    if cannot_mount(&world) {
        return;
    }
    let lines = "mount -t tmpfs -o size=11m none $H; $B run --json > first; echo $? > status; \
                 $B verify last; echo $? >> status; mount -o remount,size=64m $H; \
                 $B resume last --json > then; echo $? >> status; $B verify last; echo $? >> status";
    let said = in_own_mounts(&world, lines);
    assert_eq!(world.read("status"), "4\n0\n0\n0\n", "{}{}", said.stderr, world.read("first"));
    let json = |name: &str| -> serde_json::Value {
        serde_json::from_str(&world.read(name)).expect("JSON")
    };
    assert_eq!(json("first")["status"], "waiting");
    assert_eq!(json("first")["error"]["code"], "BP-STORE-010", "{}", json("first"));
    assert_eq!(json("then")["output"], "Went on.");
}

#[test]
fn what_is_wrong_in_a_manifest_is_said_with_its_place() {
    let check = |manifest: &str, code: &str, parts: &[&str]| {
        let world = World::new();
        world.write("bedplate.toml", manifest);
        let said = world.run(&["run", "--json"]).fails(2, code);
        let message = said.json()["error"]["message"].as_str().expect("text").to_owned();
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
        assert!(!world.home().exists(), "{manifest}");
    };
    let agent = "schema = 1\n[agent]\nname = \"x\"\ninstructions = \"y\"\nmodel = \"default\"\n";
    check("schema = 1\n[agent\n", "BP-CONFIG-001", &["bedplate.toml", "line 2"]);
    check("schema = 1\n[agent]\nname = \"x\n", "BP-CONFIG-001", &["bedplate.toml", "line 3"]);
    check(&format!("{agent}mdoel = \"x\"\n"), "BP-CONFIG-001", &["mdoel", "line 6", "model"]);
    check(&format!("{agent}[permisions]\n"), "BP-CONFIG-001", &["permisions", "permissions"]);
    check("schema = 2\n[agent]\n", "BP-CONFIG-003", &["2"]);
}

#[test]
fn what_is_wrong_in_a_policy_is_said_with_its_place() {
    let check = |cedar: &str, parts: &[&str]| {
        let world = World::new();
        world.agent("", &say("Done."));
        world.write("policy.cedar", cedar);
        for line in [&["run", "--json"][..], &["policy", "check", "--json"]] {
            let said = world.run(line).exits(2);
            let error = said.json()["error"].clone();
            let code = error["code"].as_str().expect("a code");
            assert!(code.starts_with("BP-POLICY-00"), "{error}");
            for part in parts {
                let message = error["message"].as_str().expect("text");
                assert!(message.contains(part), "{part}: {message}");
            }
        }
        assert_eq!(world.run(&["ps", "--json"]).exits(0).json()["runs"], serde_json::json!([]));
    };
    let good = "permit(principal, action == Action::\"run_command\", resource);\n";
    check(&format!("{good}permit(principal,\n"), &["policy.cedar:2:18"]);
    check(
        &format!("{good}permit(principal, action, resource) wen {{ true }};\n"),
        &["policy.cedar:2:"],
    );
    check(
        &format!("{good}permit(principal, action == Action::\"run_comand\", resource);\n"),
        &["policy.cedar:2:", "run_comand"],
    );
    check(
        &format!(
            "{good}permit(principal, action == Action::\"run_command\", resource)\n  when {{ context.comand == \"ls\" }};\n"
        ),
        &["policy.cedar:3:", "comand"],
    );
}
