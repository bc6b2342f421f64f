//! Forks, going back, snapshots and comparisons through the binary.

use crate::support::{Said, World, call, say};
use serde_json::Value;

/// An agent that writes a file, then another, then is done.
fn writer(more: &str) -> World {
    let world = World::new();
    world.write("data/a.txt", "zero\n");
    let turns = call("First.", "shell", "command = \"echo one > a.txt\"")
        + &call("Second.", "shell", "command = \"echo two > b.txt; chmod 640 b.txt\"")
        + &say("Written.");
    let manifest = format!(
        "[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n\
         [artifacts]\npaths = [\"*.txt\"]\n{more}"
    );
    world.agent(&manifest, &turns);
    world
}

fn records(world: &World, run: &str) -> Vec<Value> {
    let shown = world.run(&["show", run, "--json"]);
    shown.json()["records"].as_array().expect("records").clone()
}

/// Numbers of the records of a kind.
fn of_kind(records: &[Value], kind: &str) -> Vec<u64> {
    let of_kind = records.iter().filter(|record| record["kind"] == kind);
    of_kind.map(|record| record["seq"].as_u64().expect("a number")).collect()
}

fn ids(said: &Said) -> Vec<String> {
    said.stdout.lines().map(str::to_owned).collect()
}

/// What differs from the host's copy, as lines.
fn changed(world: &World, run: &str) -> Vec<String> {
    let json = world.run(&["diff", run, "--json"]).exits(0).json();
    let lines = json["changes"].as_array().expect("changes");
    lines.iter().map(|line| line.as_str().expect("a line").to_owned()).collect()
}

#[test]
fn a_fork_shares_the_past_and_goes_its_own_way() {
    let world = writer("");
    world.run(&["run"]).exits(0);
    let parent = world.run(&["ps", "--json"]).json()["runs"][0]["run"].clone();
    let parent = parent.as_str().expect("an id");
    let whole = records(&world, parent);
    let at = of_kind(&whole, "action_finished")[0];
    let said = world.run(&["fork", &format!("{parent}@{at}"), "--count", "3"]).exits(0);
    let forks = ids(&said);
    assert_eq!(forks.len(), 3);
    let listed = world.run(&["ps", "--json"]).json();
    assert_eq!(listed["runs"].as_array().expect("runs").len(), 4);
    assert_eq!(listed["runs"][0]["status"], "suspended");
    for (index, fork) in forks.iter().enumerate() {
        assert_eq!(changed(&world, fork), ["M\ta.txt"], "as it was at the fork");
        if index > 0 {
            world.run(&["resume", fork]).exits(0);
            assert_eq!(changed(&world, fork), ["M\ta.txt", "A\tb.txt"]);
        }
        let said = world.run(&["verify", fork]).exits(0);
        assert!(said.stdout.contains("verified"), "{}", said.stdout);
    }
    let ours = records(&world, &forks[1]);
    let shared = at as usize + 1;
    assert_eq!(ours[..shared], whole[..shared], "the past is the same records");
    assert_eq!(ours[shared]["kind"], "forked");
    assert_eq!(ours[shared]["origin"], parent);
    // Another key for the same action, in each run.
    let key = |run: &str| {
        let records = records(&world, run);
        let started = of_kind(&records, "action_started");
        records[started[1] as usize]["key"].as_str().expect("a key").to_owned()
    };
    let keys = [key(parent), key(&forks[1]), key(&forks[2])];
    assert!(keys[0] != keys[1] && keys[1] != keys[2] && keys[0] != keys[2], "{keys:?}");
    let explained = world.run(&["explain", &forks[1]]).exits(0).stdout;
    assert!(explained.contains(&format!("forked from record {at} of run {parent}")), "{explained}");
    let shown = world.run(&["show", &format!("{}@{at}", forks[1])]).exits(0).stdout;
    assert!(shown.contains("action_finished"), "{shown}");
}

#[test]
fn a_fork_of_an_ended_run_takes_new_instructions_and_no_other_sees_them() {
    let world = World::new();
    world.write("data/a.txt", "zero\n");
    let turns = say("Ready.")
        + &call("Now.", "shell", "command = \"cat /proc/sys/kernel/random/uuid > mine.txt\"")
        + &say("Done.");
    let manifest = "[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n\
                    [artifacts]\npaths = [\"mine.txt\"]\n";
    world.agent(manifest, &turns);
    world.run(&["run"]).exits(0);
    let forks = ids(&world.run(&["fork", "last", "--count", "2"]).exits(0));
    let mut mine = Vec::new();
    for fork in &forks {
        let document = world.run(&["resume", fork, "--json"]).exits(0).json();
        assert_eq!((&document["status"], &document["output"]), (&"done".into(), &"Ready.".into()));
        let document = world.run(&["send", fork, "Write.", "--json"]).exits(0).json();
        let file = document["artifacts"][0]["file"].as_str().expect("a file").to_owned();
        assert!(file.contains(fork.as_str()), "{file}");
        mine.push(std::fs::read_to_string(file).expect("a result"));
    }
    assert_ne!(mine[0], mine[1]);
    let parent = world.run(&["ps", "--json"]).json()["runs"][2]["run"].clone();
    assert_eq!(changed(&world, parent.as_str().expect("an id")), Vec::<String>::new());
    let between = world.run(&["diff", &forks[0], &forks[1]]).exits(0).stdout;
    assert_eq!(between, "M\tmine.txt\n");
}

#[test]
fn what_a_person_approves_for_one_run_counts_for_no_fork_of_it() {
    let world = World::new();
    let tool = "[permissions]\npreset = \"observe\"\nask = [\"odd\"]\n[[tool]]\nname = \"odd\"\n\
                description = \"x\"\ncommand = [\"./odd\"]\neffect = \"irreversible\"\n";
    world.agent(tool, &(call("Now.", "odd", "") + &say("Went on.")));
    world.program("odd", "#!/bin/sh\necho $BEDPLATE_RUN $BEDPLATE_IDEMPOTENCY_KEY >> did\n");
    let parent = world.run(&["run", "--json"]).exits(4).json()["run"].clone();
    let parent = parent.as_str().expect("an id").to_owned();
    let asked = ids(&world.run(&["fork", &parent]).exits(0)).remove(0);
    let id = |run: &str| {
        let all = world.run(&["approvals", "--json"]).exits(0).json();
        let all = all["approvals"].as_array().expect("a list").clone();
        let mine = all.into_iter().find(|one| one["run"] == run);
        mine.map(|one| one["id"].as_str().expect("an id").to_owned())
    };
    assert_eq!(id(&asked), None, "the question is the other run's");
    world.run(&["approve", &id(&parent).expect("it asks"), "--no-resume"]).exits(0);
    let approved = ids(&world.run(&["fork", &parent]).exits(0)).remove(0);
    for fork in [&asked, &approved] {
        world.run(&["resume", fork]).exits(4);
        assert!(id(fork).is_some(), "it asks for itself");
    }
    assert!(!world.project().join("did").exists());
    world.run(&["resume", &parent]).exits(0);
    let done = ids(&world.run(&["fork", &parent]).exits(0)).remove(0);
    world.run(&["resume", &done]).exits(0);
    assert_eq!(world.read("did").lines().count(), 1, "what the past did is not done again");
    world.run(&["approve", &id(&asked).expect("it asks")]).exits(0);
    world.run(&["watch", &asked]).exits(0);
    let did = world.read("did");
    let lines: Vec<(&str, &str)> = did.lines().filter_map(|line| line.split_once(' ')).collect();
    assert_eq!((lines[0].0, lines[1].0), (parent.as_str(), asked.as_str()));
    assert_ne!(lines[0].1, lines[1].1, "each has a key of its own");
}

#[test]
fn a_run_stays_as_long_as_one_forked_from_it_does() {
    let world = writer("");
    world.run(&["run"]).exits(0);
    let parent = world.run(&["ps", "--json"]).json()["runs"][0]["run"].clone();
    let parent = parent.as_str().expect("an id").to_owned();
    let fork = ids(&world.run(&["fork", &parent]).exits(0)).remove(0);
    let said = world.run(&["rm", &parent]).fails(1, "BP-STORE-019");
    assert!(said.stderr.contains(&fork), "{}", said.stderr);
    world.kill_owner();
    world.run(&["gc"]).exits(0);
    assert_eq!(changed(&world, &fork), ["M\ta.txt", "A\tb.txt"], "its layers are there");
    world.run(&["rm", &fork]).exits(0);
    assert_eq!(changed(&world, &parent), ["M\ta.txt", "A\tb.txt"]);
    world.run(&["verify", &parent]).exits(0);
    world.run(&["rm", &parent]).exits(0);
    let layers = std::fs::read_dir(world.home().join("layers")).expect("a directory");
    assert_eq!(layers.count(), 0);
}

#[test]
fn what_cannot_be_forked_is_refused_and_makes_nothing() {
    let world = writer("");
    world.run(&["run"]).exits(0);
    world.run(&["fork", "last@0"]).fails(2, "BP-RUN-011");
    world.run(&["fork", "last@999"]).fails(2, "BP-CLI-010");
    world.run(&["fork", "last@nowhere"]).fails(2, "BP-CLI-018");
    world.run(&["fork", "last@3", "--at", "4"]).fails(2, "BP-CLI-001");
    world.run(&["fork", "last", "--count", "0"]).fails(2, "BP-CLI-001");
    world.run(&["fork", "last", "--count", "1001"]).fails(2, "BP-CLI-001");
    world.run(&["fork", "none"]).fails(2, "BP-STORE-007");
    assert_eq!(world.run(&["ps", "--json"]).json()["runs"].as_array().expect("runs").len(), 1);
    let made = ids(&world.run(&["fork", "last", "--count", "1000"]).exits(0));
    assert_eq!(made.iter().collect::<std::collections::BTreeSet<_>>().len(), 1_000);
    world.run(&["verify", &made[999]]).exits(0);
}

#[test]
fn a_run_goes_back_files_and_all_and_forward_again() {
    let world = writer("");
    world.run(&["run"]).exits(0);
    let whole = records(&world, "last");
    let at = of_kind(&whole, "action_finished")[0];
    let end = whole.len() as u64 - 1;
    let said = world.run(&["rollback", &format!("last@{at}")]).exits(0);
    assert!(said.stderr.contains(&format!("as it was after record {at}")), "{}", said.stderr);
    assert_eq!(changed(&world, "last"), ["M\ta.txt"]);
    assert_eq!(world.run(&["ps", "--json"]).json()["runs"][0]["status"], "suspended");
    let shown = world.run(&["show", &format!("last@{}", end + 1)]).exits(0).stdout;
    assert!(shown.contains("rolled_back"), "{shown}");
    // Forward, and back once more.
    world.run(&["rollback", "last", "--undo"]).exits(0);
    assert_eq!(changed(&world, "last"), ["M\ta.txt", "A\tb.txt"]);
    let document = world.run(&["resume", "last", "--json"]).exits(0).json();
    assert_eq!(document["output"], "Written.");
    let file = document["artifacts"][1]["file"].as_str().expect("a file").to_owned();
    assert_eq!(std::fs::read_to_string(file).expect("a result"), "two\n");
    world.run(&["rollback", "last", "--undo"]).exits(0);
    world.kill_owner();
    assert_eq!(changed(&world, "last"), ["M\ta.txt"]);
    // It goes on from there, and does the second part again.
    world.run(&["resume", "last"]).exits(0);
    assert_eq!(changed(&world, "last"), ["M\ta.txt", "A\tb.txt"]);
    world.run(&["verify", "last"]).exits(0);
    let text = world.run(&["explain", "last"]).exits(0).stdout;
    assert!(text.contains(&format!("back to record {at}")), "{text}");
    assert_eq!(records(&world, "last")[..=end as usize], whole[..], "nothing of the log is lost");
}

#[test]
fn going_back_over_what_cannot_be_taken_back_wants_a_word() {
    let world = World::new();
    world.write("data/a.txt", "zero\n");
    let tool = "[permissions]\npreset = \"observe\"\nallow = [\"odd\"]\n[sandbox]\n\
                workspace = \"data\"\n[[tool]]\nname = \"odd\"\n\
                description = \"x\"\ncommand = [\"./odd\"]\neffect = \"irreversible\"\n";
    let turns = call("First.", "shell", "command = \"echo one > a.txt\"")
        + &call("Now.", "odd", "")
        + &say("Done.");
    world.agent(tool, &turns);
    world.program("odd", "#!/bin/sh\necho did >> did\n");
    world.run(&["run"]).exits(0);
    let whole = records(&world, "last");
    let (first, second) = {
        let finished = of_kind(&whole, "action_finished");
        (finished[0], finished[1])
    };
    // After it, nothing is in the way.
    world.run(&["rollback", "last", "--to", &second.to_string()]).exits(0);
    world.run(&["rollback", "last", "--undo"]).exits(0);
    let back = ["rollback", "last", "--to", &first.to_string()];
    let said = world.run(&back).fails(1, "BP-RUN-023");
    assert!(said.stderr.contains("odd was done"), "{}", said.stderr);
    assert_eq!(records(&world, "last").len(), whole.len() + 2, "nothing was recorded");
    let said = world.run(&[&back[..], &["--leave-effects"]].concat()).exits(0);
    assert!(said.stderr.contains("not taken back: record"), "{}", said.stderr);
    assert_eq!(world.read("did"), "did\n");
    // What was brought to the host stays there too.
    let world = writer("");
    world.run(&["run"]).exits(0);
    let last = records(&world, "last").len() - 1;
    world.run(&["apply", "last", "--yes"]).exits(0);
    let said = world.run(&["rollback", &format!("last@{last}")]).fails(1, "BP-RUN-023");
    assert!(said.stderr.contains("2 changes to the host"), "{}", said.stderr);
}

#[test]
fn where_a_run_cannot_go_back_to_is_refused() {
    let world = writer("");
    world.run(&["run"]).exits(0);
    let last = records(&world, "last").len() - 1;
    world.run(&["rollback", "last"]).fails(2, "BP-CLI-001");
    world.run(&["rollback", "last", "--undo"]).fails(2, "BP-RUN-011");
    world.run(&["rollback", "last@3", "--undo"]).fails(2, "BP-CLI-001");
    world.run(&["rollback", "last", "--to", "3", "--undo"]).fails(2, "BP-CLI-001");
    world.run(&["rollback", &format!("last@{last}")]).fails(2, "BP-RUN-011");
    world.run(&["rollback", &format!("last@{}", last + 1)]).fails(2, "BP-CLI-010");
    assert_eq!(records(&world, "last").len(), last + 1);
}

#[test]
fn moments_have_names_and_are_compared() {
    let world = writer("");
    world.run(&["run"]).exits(0);
    let whole = records(&world, "last");
    let at = of_kind(&whole, "action_finished")[0];
    let named = world.run(&["snapshot", "last", "--name", "written"]).exits(0).stdout;
    let run = named.trim().strip_suffix("@written").expect("run and name").to_owned();
    world.run(&["snapshot", &run, "--name", "written"]).fails(2, "BP-RUN-011");
    world.run(&["snapshot", &run, "--name", "12"]).fails(2, "BP-RUN-011");
    let made = world.run(&["snapshot", &run, "--json"]).exits(0).json();
    assert!(made["snapshot"].as_str().is_some_and(|name| name.starts_with('s')), "{made}");
    let begin = format!("{run}@1");
    let diff = |from: &str, to: &str| world.run(&["diff", from, to]).exits(0).stdout;
    assert_eq!(diff(&begin, "@written"), "M\ta.txt\nA\tb.txt\n");
    assert_eq!(diff(&format!("{run}@written"), "@1"), "M\ta.txt\nD\tb.txt\n");
    assert_eq!(diff(&begin, &format!("@{at}")), "M\ta.txt\n");
    assert_eq!(diff(&format!("{run}@written"), &run), "");
    let text = world.run(&["diff", &begin, "--text"]).exits(0).stdout;
    assert!(text.contains("-zero\n+one\n"), "{text}");
    let json = world.run(&["diff", &begin, "@written", "--json"]).exits(0).json();
    assert_eq!(json["changes"][1]["kind"], "added", "{json}");
    assert_eq!(json["changes"][1]["path"], "b.txt");
    // A fork at a name, and back to it.
    let fork = ids(&world.run(&["fork", &format!("{run}@written")]).exits(0)).remove(0);
    assert_eq!(diff(&format!("{fork}@written"), &run), "");
    world.run(&["rollback", &fork, "--to", &at.to_string()]).exits(0);
    assert_eq!(diff(&fork, &run), "A\tb.txt\n");
    world.run(&["rollback", &fork, "--to", "written"]).exits(0);
    assert_eq!(diff(&fork, &run), "");
    world.run(&["diff", &begin, "@nowhere"]).fails(2, "BP-CLI-018");
    world.run(&["verify", &fork]).exits(0);
}
