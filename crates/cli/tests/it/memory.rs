//! Memory through the binary: what outlives a run, who sees it, and what two runs do to it.

use crate::network::{self, Upstream};
use crate::support::{Said, World, call, say};
use serde_json::Value;
use std::io::Write as _;
use std::process::Stdio;

const WITH_MEMORY: &str = "[permissions]\npreset = \"observe\"\n[memory]\n";

fn shell(command: &str) -> String {
    call("Now.", "shell", &format!("command = '{command}'"))
}

/// An agent with memory that does this in one command.
fn agent(world: &World, more: &str, command: &str) {
    world.agent(&format!("{WITH_MEMORY}{more}"), &(shell(command) + &say("Done.")));
}

fn run_id(said: &Said) -> String {
    said.json()["run"].as_str().expect("an id").to_owned()
}

fn records(world: &World, run: &str, kind: &str) -> Vec<Value> {
    let shown = world.run(&["show", run, "--json"]).exits(0).json();
    let records = shown["records"].as_array().expect("records");
    records.iter().filter(|record| record["kind"] == kind).cloned().collect()
}

/// What the last command of a run printed.
fn printed(world: &World, run: &str) -> String {
    let finished = records(world, run, "action_finished");
    let text = &finished.last().expect("it ran")["output"]["text"];
    text.as_str().expect("text").trim().to_owned()
}

fn shown(world: &World, path: &str) -> String {
    world.run(&["memory", "show", "tester", path]).exits(0).stdout
}

fn newest(world: &World) -> u64 {
    let list = world.run(&["memory", "ls", "--json"]).exits(0).json();
    list["memories"][0]["version"].as_u64().unwrap_or(0)
}

fn put(world: &World, path: &str, bytes: &[u8]) -> Said {
    let mut command = world.command(&["memory", "put", "tester", path]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(bytes).expect("written");
    Said::of(child.wait_with_output().expect("it ends"))
}

#[test]
fn what_a_run_writes_down_is_there_for_the_next_and_for_nobody_else() {
    let world = World::new();
    let turns =
        shell("mkdir /memory/people && echo likes tea > /memory/people/ada && ls -A /memory")
            + &call("And.", "write_file", "path = '/memory/todo'\ncontent = 'water the plants'")
            + &say("Noted.");
    world.agent(WITH_MEMORY, &turns);
    let first = world.run(&["run", "--json"]).exits(0);
    let first = run_id(&first);
    let merged = records(&world, &first, "memory_merged");
    assert_eq!((merged.len(), &merged[0]["version"]), (1, &1.into()), "{merged:?}");
    assert_eq!(records(&world, &first, "memory_sealed").len(), 2);
    world.run(&["verify", &first]).exits(0);
    // Nothing of it is in the workspace, or goes to the host.
    assert_eq!(
        world.run(&["diff", &format!("{first}@0")]).exits(0).stdout,
        "A\t/memory/people\nA\t/memory/people/ada\nA\t/memory/todo\n"
    );
    assert_eq!(shown(&world, "people/ada"), "likes tea\n");
    let list = world.run(&["memory", "show", "tester"]).exits(0).stdout;
    assert!(list.contains("people/ada") && list.contains("todo"), "{list}");

    agent(&world, "", "cat /memory/people/ada /memory/todo");
    let second = run_id(&world.run(&["run", "--json"]).exits(0));
    assert_eq!(printed(&world, &second), "likes tea\nwater the plants");
    assert!(records(&world, &second, "memory_offered").is_empty(), "it changed nothing");
    assert_eq!(newest(&world), 1);

    // Another user's agent, and another agent, have another memory.
    let mut other = world.command(&["run", "--json"]);
    let said = Said::of(other.env("LOGNAME", "bob").env("USER", "bob").output().expect("it runs"));
    let theirs = run_id(&said);
    assert!(printed(&world, &theirs).contains("No such file"), "{}", printed(&world, &theirs));
    let manifest = world.read("bedplate.toml").replace("\"tester\"", "\"other\"");
    world.write("bedplate.toml", &manifest);
    let theirs = run_id(&world.run(&["run", "--json"]).exits(0));
    assert!(printed(&world, &theirs).contains("No such file"));
    // Without [memory] there is none.
    world.write("bedplate.toml", &manifest.replace("[memory]\n", ""));
    let none = run_id(&world.run(&["run", "--json"]).exits(0));
    assert!(printed(&world, &none).contains("No such file"));
    world.run(&["memory", "diff", &none]).fails(2, "BP-RUN-027");
    world.run(&["memory", "show", "nobody"]).fails(2, "BP-RUN-027");
}

/// Two runs that began with the same version, each told what to write.
fn two(world: &World) -> [String; 2] {
    let turn = |name: &str, command: &str| {
        let when = format!("when = {{ contains = \"as {name}\" }}\n");
        shell(command).replacen("[[turn]]\n", &format!("[[turn]]\n{when}"), 1)
    };
    let turns = say("Ready.")
        + &turn("one", "echo 1 > /memory/one; echo one > /memory/both; rm -f /memory/old")
        + &turn("two", "echo 2 > /memory/two; echo two > /memory/both")
        + &turn("three", "echo 3 > /memory/three")
        + &say("Done.");
    world.agent(WITH_MEMORY, &turns);
    put(world, "old", b"old\n").exits(0);
    world.run(&["run"]).exits(0);
    let forks = world.run(&["fork", "last", "--count", "2"]).exits(0).stdout;
    let mut forks = forks.lines().map(str::to_owned);
    [(); 2].map(|()| {
        let fork = forks.next().expect("a fork");
        world.run(&["resume", &fork]).exits(0);
        fork
    })
}

#[test]
fn two_runs_are_merged() {
    let world = World::new();
    let [one, two] = two(&world);
    world.run(&["send", &one, "as one"]).exits(0);
    world.run(&["send", &two, "as three"]).exits(0);
    assert_eq!(newest(&world), 3);
    let list = world.run(&["memory", "show", "tester"]).exits(0).stdout;
    let names: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().last()).collect();
    assert_eq!(names, ["both", "one", "three"], "what either did, the removal too");
    assert_eq!(shown(&world, "both"), "one\n");
    // The second goes on with what both know.
    let state = world.run(&["memory", "diff", &two]).exits(0);
    assert_eq!(state.stdout, "");
}

#[test]
fn what_was_forgotten_does_not_come_back_with_a_run_that_knew_it() {
    let world = World::new();
    let [_, two] = two(&world);
    world.run(&["memory", "forget", "tester", "--yes"]).exits(0);
    world.run(&["send", &two, "as three"]).exits(0);
    let list = world.run(&["memory", "show", "tester", "--json"]).exits(0).json();
    assert_eq!(list["files"], serde_json::json!([{ "path": "three", "bytes": 2 }]), "{list}");
}

#[test]
fn two_runs_that_change_the_same_are_refused_until_a_person_says_whose_counts() {
    let world = World::new();
    let [one, two] = two(&world);
    world.run(&["send", &one, "as one"]).exits(0);
    let said = world.run(&["send", &two, "as two"]).exits(0);
    let advice = format!("memory merge {two} --take run|memory");
    assert!(said.stderr.contains("not merged: "), "{}", said.stderr);
    assert!(said.stderr.contains(&advice), "{}", said.stderr);
    let refused = records(&world, &two, "memory_refused");
    assert_eq!(refused[0]["conflicts"], serde_json::json!(["both"]));
    assert_eq!((newest(&world), shown(&world, "both")), (2, "one\n".to_owned()));
    let diff = world.run(&["memory", "diff", &two]).exits(0).stdout;
    assert_eq!(diff, "A\tboth\nA\ttwo\n");
    world.run(&["memory", "merge", &two]).fails(1, "BP-RUN-028");
    assert_eq!(newest(&world), 2);
    world.run(&["memory", "merge", &two, "--take", "memory"]).exits(0);
    assert_eq!((newest(&world), shown(&world, "both")), (3, "one\n".to_owned()));
    assert_eq!(shown(&world, "two"), "2\n", "what nobody else changed comes along");
    world.run(&["memory", "merge", &two, "--take", "run"]).fails(2, "BP-RUN-011");
    world.run(&["verify", &two]).exits(0);
    // The other way round.
    world.run(&["memory", "revert", "tester", "2"]).exits(0);
    let fork = world.run(&["fork", &format!("{two}@{}", refused[0]["seq"])]).exits(0).stdout;
    world.run(&["memory", "merge", fork.trim(), "--take", "run"]).exits(0);
    assert_eq!(shown(&world, "both"), "two\n");
    assert_eq!(shown(&world, "one"), "1\n");
}

#[test]
fn a_run_that_failed_keeps_what_it_learned_to_itself() {
    let world = World::new();
    let check = "[[check]]\nname = \"never\"\ncommand = \"false\"\n";
    agent(&world, check, "echo wrong > /memory/fact");
    let said = world.run(&["run", "--json"]).exits(1);
    let run = run_id(&said);
    assert_eq!(newest(&world), 0);
    assert_eq!(world.run(&["memory", "diff", &run]).exits(0).stdout, "A\tfact\n");
    world.run(&["memory", "merge", &run]).exits(0);
    assert_eq!((newest(&world), shown(&world, "fact")), (1, "wrong\n".to_owned()));
    let offered = records(&world, &run, "memory_offered");
    assert_ne!(offered[0]["by"], "", "a person did it: {offered:?}");
}

#[test]
fn memory_goes_back_and_forks_with_its_run() {
    let world = World::new();
    let turns =
        shell("echo a > /memory/a") + &shell("echo b > /memory/b; rm /memory/a") + &say("Done.");
    world.agent(WITH_MEMORY, &turns);
    let run = run_id(&world.run(&["run", "--json"]).exits(0));
    let at = records(&world, &run, "action_finished")[0]["seq"].to_string();
    let compared = world.run(&["diff", &format!("{run}@{at}"), "--text"]).exits(0).stdout;
    assert!(compared.contains("/memory") && compared.contains("+b"), "{compared}");
    let compared = world.run(&["diff", &format!("{run}@{at}")]).exits(0).stdout;
    assert_eq!(compared, "D\t/memory/a\nA\t/memory/b\n");
    let fork = world.run(&["fork", &format!("{run}@{at}")]).exits(0).stdout;
    assert_eq!(world.run(&["memory", "diff", fork.trim()]).exits(0).stdout, "A\ta\n");
    world.run(&["rollback", &format!("{run}@{at}")]).exits(0);
    assert_eq!(world.run(&["memory", "diff", &run]).exits(0).stdout, "A\ta\n");
    assert_eq!(newest(&world), 1, "what others see has not gone back");
    world.run(&["resume", &run]).exits(0);
    assert_eq!((newest(&world), shown(&world, "b")), (1, "b\n".to_owned()), "the same again");
}

#[test]
fn what_may_only_be_read_or_not_at_all_binds_shell_and_tools_alike() {
    let world = World::new();
    let try_all =
        "cat /memory/a; echo x > /memory/new; echo x >> /memory/a; rm /memory/a; ls /memory";
    let turns = || {
        shell(try_all)
            + &call("And.", "write_file", "path = '/memory/tool'\ncontent = 'x'")
            + &say("Done.")
    };
    put(&world, "a", b"known\n").exits(0);
    put(&world, "secret/b", b"hidden\n").exits(0);
    world.agent(&format!("{WITH_MEMORY}access = \"read\"\n"), &turns());
    let run = run_id(&world.run(&["run", "--json"]).exits(0));
    let text = records(&world, &run, "action_finished")[0]["output"]["text"].to_string();
    assert!(text.contains("known") && text.contains("Read-only file system"), "{text}");
    assert!(text.contains("a\\nsecret"), "{text}");
    let denied = records(&world, &run, "decision_made");
    assert!(denied.iter().any(|record| record["verdict"] == "deny"), "the tool is denied");
    world.run(&["memory", "merge", &run]).fails(2, "BP-RUN-011");

    // Writing is denied by name: the shell may not either.
    let rules = "[permissions]\npreset = \"observe\"\ndeny = [\"write_file\"]\n[memory]\n";
    world.agent(rules, &turns());
    let run = run_id(&world.run(&["run", "--json"]).exits(0));
    let text = records(&world, &run, "action_finished")[0]["output"]["text"].to_string();
    assert!(text.contains("known") && text.ends_with("\\na\\nsecret\\n\""), "{text}");
    assert!(records(&world, &run, "memory_sealed").is_empty());

    // A part of it is hidden, from both.
    let turns = shell("ls /memory/secret; cat /memory/secret/b; echo c > /memory/c")
        + &call("And.", "read_file", "path = '/memory/secret/b'")
        + &say("Done.");
    world.agent(WITH_MEMORY, &turns);
    let forbid = "forbid(principal, action in [Action::\"read_file\", Action::\"write_file\"], \
                  resource in Path::\"/memory/secret\");\n";
    world.write("policy.cedar", forbid);
    let run = run_id(&world.run(&["run", "--json"]).exits(0));
    let all = world.run(&["show", &run, "--json"]).exits(0).stdout;
    assert!(!all.contains("hidden"), "{all}");
    assert_eq!(shown(&world, "c"), "c\n");
    assert_eq!(shown(&world, "secret/b"), "hidden\n", "what it could not see is still there");
}

#[test]
fn people_change_a_memory_and_take_changes_back() {
    let world = World::new();
    put(&world, "a/b", b"one\n\x00\xff").exits(0);
    put(&world, "a/b", b"two\n").exits(0);
    assert_eq!(shown(&world, "a/b"), "two\n");
    let old = world.command(&["memory", "show", "tester", "a/b", "--version", "1"]).output();
    assert_eq!(old.expect("it runs").stdout, b"one\n\x00\xff");
    world.program("editor", "#!/bin/sh\necho three >> \"$1\"\n");
    let editor = world.project().join("editor");
    let mut edit = world.command(&["memory", "edit", "tester", "a/b"]);
    let said = Said::of(edit.env("EDITOR", &editor).output().expect("it runs")).exits(0);
    assert!(said.stderr.contains("version 3"), "{}", said.stderr);
    assert_eq!(shown(&world, "a/b"), "two\nthree\n");
    world.run(&["memory", "revert", "tester", "2"]).exits(0);
    assert_eq!((newest(&world), shown(&world, "a/b")), (4, "two\n".to_owned()));
    let log = world.run(&["memory", "log", "tester", "--json"]).exits(0).json();
    let numbers: Vec<u64> = log["versions"]
        .as_array()
        .expect("versions")
        .iter()
        .filter_map(|version| version["version"].as_u64())
        .collect();
    assert_eq!(numbers, [4, 3, 2, 1]);
    world.run(&["memory", "rm", "tester", "a/c"]).fails(1, "BP-SANDBOX-019");
    world.run(&["memory", "rm", "tester", "a"]).exits(0);
    world.run(&["memory", "show", "tester", "a/b"]).exits(1);
    for path in ["../x", "/x", "a/../../x", ""] {
        put(&world, path, b"x").exits(1);
    }
    put(&world, "a", b"file").exits(0);
    put(&world, "a/b", b"below a file").exits(1);
    assert_eq!(newest(&world), 6);
    world.run(&["gc"]).exits(0);
    assert_eq!(shown(&world, "a"), "file", "what a version needs stays");
    world.run(&["memory", "forget", "tester"]).fails(2, "BP-CLI-006");
    world.run(&["memory", "forget", "tester", "--yes"]).exits(0);
    world.run(&["memory", "forget", "tester", "--yes"]).fails(2, "BP-RUN-027");
    world.run(&["memory", "revert", "tester", "1"]).fails(2, "BP-RUN-027");
}

#[test]
fn a_memory_has_its_size() {
    let world = World::new();
    let limit = "limit = \"10kB\"\n";
    agent(&world, limit, "head -c 10001 /dev/zero > /memory/a");
    let run = run_id(&world.run(&["run", "--json"]).exits(0));
    let refused = records(&world, &run, "memory_refused");
    assert_eq!(refused[0]["failure"]["code"], "BP-RUN-029", "{refused:?}");
    assert_eq!(newest(&world), 0);
    agent(&world, limit, "head -c 10000 /dev/zero > /memory/a");
    world.run(&["run"]).exits(0);
    assert_eq!(newest(&world), 1);
    world.run(&["memory", "merge", &run]).fails(1, "BP-RUN-028");
    world.run(&["memory", "merge", &run, "--take", "run"]).fails(1, "BP-RUN-029");
    assert_eq!(newest(&world), 1);
}

#[test]
fn an_agent_leads_nobody_out_of_its_memory() {
    let world = World::new();
    let command = "cd /memory; ln -s /etc/passwd link; ln -s / root; mkfifo pipe; mkdir d; \
                   echo x > \"$(printf \"a\\tb\")\"; ln d/../link d/hard";
    agent(&world, "", command);
    let run = run_id(&world.run(&["run", "--json"]).exits(0));
    assert_eq!(newest(&world), 1, "{:?}", records(&world, &run, "memory_refused"));
    world.run(&["memory", "show", "tester", "link"]).exits(1);
    world.run(&["memory", "show", "tester", "root/etc/passwd"]).exits(1);
    world.run(&["memory", "show", "tester", "pipe"]).exits(1);
    put(&world, "root/tmp/x", b"x").exits(1);
    let list = world.run(&["memory", "show", "tester"]).exits(0).stdout;
    assert!(!list.contains("a\tb"), "{list:?}");
    // A merge goes through the same.
    agent(&world, "", "rm /memory/link; echo mine > /memory/link; cat /memory/root/etc/hostname");
    put(&world, "other", b"x").exits(0);
    let run = run_id(&world.run(&["run", "--json"]).exits(0));
    assert_eq!(shown(&world, "link"), "mine\n", "{:?}", records(&world, &run, "memory_refused"));
}

#[test]
fn attempts_of_a_rollout_leave_memory_as_it_is() {
    let world = World::new();
    put(&world, "a", b"known\n").exits(0);
    agent(&world, "", "cat /memory/a; echo x > /memory/b; ls /memory");
    let said = world.run(&["rollout", "--count", "2"]).exits(0);
    for line in said.stdout.lines() {
        let result: Value = serde_json::from_str(line).expect("JSON");
        let run = result["run"].as_str().expect("an id");
        assert_eq!(printed(&world, run), "known\na\nb");
    }
    assert_eq!(newest(&world), 1);
}

#[test]
fn where_memory_came_from_is_known_to_who_reads_it() {
    let upstream = Upstream::start();
    let program = "go('GET', 'http://wiki.example.test/v1/a')\nopen('/memory/a', 'w').write('x')\n";
    let permits = "allow = [\"GET wiki.example.test/*\"]\n[memory]";
    let world = network::world(&upstream, permits, "", program);
    let manifest = world.read("bedplate.toml").replace("[secrets]\nTOKEN = \"api\"\n", "");
    world.write("bedplate.toml", &manifest);
    world.run(&["run"]).exits(0);
    let list = world.run(&["memory", "ls", "--json"]).exits(0).json();
    assert_eq!(list["memories"][0]["labels"], serde_json::json!(["untrusted"]), "{list}");
    let run = run_id(&world.run(&["run", "--json"]).exits(0));
    let decided = records(&world, &run, "decision_made");
    assert_eq!(decided[0]["carried"]["labels"], serde_json::json!(["untrusted"]), "{decided:?}");
}

#[test]
fn a_death_at_any_record_brings_what_was_learned_once() {
    for side in ["before", "after"] {
        for append in 1.. {
            let world = World::new();
            agent(&world, "", "echo x >> /memory/a");
            let crash = format!("{side}:{append}");
            let mut command = world.command(&["run", "--json"]);
            let died = Said::of(command.env("BEDPLATE_CRASH", &crash).output().expect("it runs"));
            if died.code == 0 {
                assert!(append > 8, "{crash}: the run has more records than that");
                break;
            }
            if world.run(&["ps", "--json"]).exits(0).json()["runs"] == serde_json::json!([]) {
                continue;
            }
            let run = run_id(&world.run(&["resume", "last", "--json"]).exits(0));
            let merged = records(&world, &run, "memory_merged").len();
            let there = (newest(&world), shown(&world, "a"), merged);
            assert_eq!(there, (1, "x\n".to_owned(), 1), "{crash}");
            world.run(&["verify", &run]).exits(0);
        }
    }
}
