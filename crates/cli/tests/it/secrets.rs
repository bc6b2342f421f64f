//! `secret`: what is set is kept for agents, and shown to nobody.

use crate::support::{Said, World};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;

const VALUE: &str = "correct-horse-battery-staple";

fn set(world: &World, line: &[&str], input: &[u8]) -> Said {
    let mut child = world.command(line).stdin(Stdio::piped()).spawn().expect("runs");
    // A command that refuses does not read on.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    Said::of(child.wait_with_output().expect("ends"))
}

/// What the vault holds; the command line never says.
fn value(world: &World, name: &str) -> String {
    let vault = vault::Vault::open(&world.home()).expect("opens");
    vault.get(name).expect("there").expose().to_owned()
}

/// Whether any file below the world's directory has these bytes, in its name or inside.
fn anywhere(world: &World, bytes: &[u8]) -> Vec<String> {
    let holds = |hay: &[u8]| hay.windows(bytes.len()).any(|window| window == bytes);
    let mut found = Vec::new();
    let mut waiting = vec![world.path().to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            let path = entry.path();
            if path.is_dir() {
                waiting.push(path);
            } else if holds(&std::fs::read(&path).unwrap_or_default()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

fn secrets(world: &World) -> Vec<Value> {
    let listed = world.run(&["secret", "ls", "--json"]).exits(0).json();
    listed["secrets"].as_array().expect("a list").clone()
}

#[test]
fn a_secret_is_set_listed_and_removed_and_shown_nowhere() {
    let world = World::new();
    assert!(secrets(&world).is_empty());
    assert!(!world.home().exists(), "listing makes nothing");
    let said = [
        set(&world, &["secret", "set", "api"], format!("{VALUE}\n").as_bytes()).exits(0),
        set(&world, &["secret", "set", "api", "--json"], VALUE.as_bytes()).exits(0),
        world.run(&["secret", "ls"]).exits(0),
        world.run(&["secret", "ls", "--json"]).exits(0),
        world.run(&["df"]).exits(0),
    ];
    assert_eq!(value(&world, "api"), VALUE);
    for said in &said {
        assert!(!format!("{}{}", said.stdout, said.stderr).contains(&VALUE[..8]), "{said:?}");
    }
    let listed = secrets(&world);
    let keys: Vec<&String> = listed[0].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["name", "kind", "version", "created", "updated"]);
    assert_eq!((listed[0]["name"].as_str(), listed[0]["version"].as_u64()), (Some("api"), Some(2)));
    assert_eq!(anywhere(&world, &VALUE.as_bytes()[..8]), Vec::<String>::new());
    assert!(!anywhere(&world, b"bedplate vault 1").is_empty(), "the control: files are read");
    world.run(&["secret", "rm", "api"]).exits(0);
    assert!(secrets(&world).is_empty());
    assert_eq!(anywhere(&world, &VALUE.as_bytes()[..8]), Vec::<String>::new());
    assert_eq!(anywhere(&world, b"bedplate vault 1"), Vec::<String>::new());
    world.run(&["secret", "rm", "api"]).fails(2, "BP-VAULT-002");
}

#[test]
fn the_key_file_is_ours_alone() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    set(&world, &["secret", "set", "api"], b"x").exits(0);
    let mode = |path: &str| {
        let meta = std::fs::metadata(world.home().join(path)).expect("there");
        meta.permissions().mode() & 0o777
    };
    assert_eq!((mode("vault.key"), mode("vault"), mode("")), (0o600, 0o700, 0o700));
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.home().join("vault.key"), open).expect("set");
    let said = world.run(&["secret", "ls", "--json"]).fails(2, "BP-VAULT-005");
    assert_eq!(said.json()["error"]["code"], "BP-VAULT-005");
}

#[test]
fn one_newline_is_stripped_and_nothing_else() {
    let world = World::new();
    let check = |input: &str, expected: &str| {
        set(&world, &["secret", "set", "api"], input.as_bytes()).exits(0);
        assert_eq!(value(&world, "api"), expected, "{input:?}");
    };
    check("x\n", "x");
    check("x\n\n", "x\n");
    check(" x\r\n", " x\r");
    check("a\nb", "a\nb");
    let most = "x".repeat(vault::VALUE_BYTES_MAX);
    check(&format!("{most}\n"), &most);
}

#[test]
fn what_cannot_be_kept_is_refused_and_changes_nothing() {
    let world = World::new();
    let check = |line: &[&str], input: &[u8], code: &str| {
        let said = set(&world, line, input).fails(2, code);
        assert!(said.stderr.contains("  next: "), "{}", said.stderr);
    };
    check(&["secret", "set", "API"], b"x", "BP-VAULT-001");
    check(&["secret", "set", "../api"], b"x", "BP-VAULT-001");
    check(&["secret", "set", "api", "value"], b"x", "BP-CLI-001");
    check(&["secret", "set"], b"x", "BP-CLI-001");
    check(&["secret", "rm", "api"], b"", "BP-VAULT-002");
    assert!(!world.home().exists());
    check(&["secret", "set", "api"], b"", "BP-VAULT-003");
    check(&["secret", "set", "api"], b"\n", "BP-VAULT-003");
    check(&["secret", "set", "api"], b"\xff\xfe", "BP-VAULT-003");
    check(&["secret", "set", "api"], &vec![b'x'; vault::VALUE_BYTES_MAX + 1], "BP-VAULT-003");
    check(&["secret", "set", "api"], &vec![b'x'; 1 << 20], "BP-VAULT-003");
    assert!(secrets(&world).is_empty());
    assert!(!world.home().join("vault.key").exists());
}

#[test]
fn the_key_may_come_from_the_environment_or_another_file() {
    let key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
    let world = World::new();
    let keyed = |name: &str, value: &str, line: &[&str]| {
        let mut command = world.command(line);
        let mut child = command.env(name, value).stdin(Stdio::piped()).spawn().expect("runs");
        // Listing reads no input.
        let _ = child.stdin.take().expect("a pipe").write_all(VALUE.as_bytes());
        Said::of(child.wait_with_output().expect("ends"))
    };
    keyed("BEDPLATE_VAULT_KEY", key, &["secret", "set", "api"]).exits(0);
    assert!(!world.home().join("vault.key").exists());
    world.run(&["secret", "ls"]).fails(2, "BP-VAULT-004");
    world.write("key", key);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(world.project().join("key"), mode).expect("set");
    let path = world.project().join("key");
    let path = path.to_str().expect("UTF-8");
    keyed("BEDPLATE_VAULT_KEY_FILE", path, &["secret", "ls"]).exits(0);
    keyed("BEDPLATE_VAULT_KEY", &key[4..], &["secret", "ls"]).fails(2, "BP-VAULT-004");
    let other = key.replacen("Bwc", "Cwc", 1);
    keyed("BEDPLATE_VAULT_KEY", &other, &["secret", "ls"]).fails(2, "BP-VAULT-006");
}

/// While the command waits for its input, and after: the value is in no process's arguments or
/// environment.
#[test]
fn the_value_is_in_no_argument_and_no_environment() {
    let world = World::new();
    let mut child =
        world.command(&["secret", "set", "api"]).stdin(Stdio::piped()).spawn().expect("runs");
    let mut input = child.stdin.take().expect("a pipe");
    input.write_all(VALUE.as_bytes()).expect("written");
    let read = |what: &str| std::fs::read(format!("/proc/{}/{what}", child.id())).expect("lives");
    let seen = [read("cmdline"), read("environ")].concat();
    assert!(!seen.windows(8).any(|window| window == &VALUE.as_bytes()[..8]));
    drop(input);
    Said::of(child.wait_with_output().expect("ends")).exits(0);
    assert_eq!(value(&world, "api"), VALUE);
}

#[test]
fn two_at_once_leave_one_of_them_whole() {
    let world = World::new();
    let values = ["a".repeat(50_000), "b".repeat(9_000)];
    let children: Vec<_> = values
        .iter()
        .map(|value| {
            let mut command = world.command(&["secret", "set", "api"]);
            let mut child = command.stdin(Stdio::piped()).spawn().expect("runs");
            child.stdin.take().expect("a pipe").write_all(value.as_bytes()).expect("written");
            child
        })
        .collect();
    for child in children {
        Said::of(child.wait_with_output().expect("ends")).exits(0);
    }
    assert!(values.contains(&value(&world, "api")));
    assert_eq!(secrets(&world)[0]["version"], 2);
}

#[test]
fn a_swapped_or_cut_record_is_named() {
    let world = World::new();
    set(&world, &["secret", "set", "one"], b"first").exits(0);
    set(&world, &["secret", "set", "two"], b"second").exits(0);
    let path = |name: &str| world.home().join(format!("vault/{name}.secret"));
    let whole = std::fs::read(path("one")).expect("there");
    std::fs::copy(path("two"), path("one")).expect("copied");
    world.run(&["secret", "ls"]).fails(1, "BP-VAULT-007");
    std::fs::write(path("one"), &whole[..whole.len() - 1]).expect("written");
    world.run(&["secret", "ls"]).fails(1, "BP-VAULT-007");
    set(&world, &["secret", "set", "one"], b"new").fails(1, "BP-VAULT-007");
    world.run(&["secret", "rm", "one"]).exits(0);
    set(&world, &["secret", "set", "one"], b"new").exits(0);
    assert_eq!((value(&world, "one"), value(&world, "two")), ("new".into(), "second".into()));
}
