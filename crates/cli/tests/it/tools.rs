//! Tools that misbehave, on the host and in the sandbox: limits hold, and the run goes on.

use crate::support::{Said, World, call, say, until};
use serde_json::Value;

/// A project with the command tool `odd` (a shell script), called once.
fn project(effect: &str, more: &str, script: &str) -> World {
    let world = World::new();
    let tool = format!(
        "[permissions]\npreset = \"observe\"\nallow = [\"odd\"]\n\
         [[tool]]\nname = \"odd\"\ndescription = \"x\"\ncommand = [\"./odd\"]\neffect = \"{effect}\"\n{more}\n"
    );
    world.agent(&tool, &format!("{}{}", call("Now.", "odd", ""), say("Went on.")));
    world.program("odd", &format!("#!/bin/sh\n{script}\n"));
    world
}

/// A project whose agent gives `shell` this command, once.
fn shell(command: &str, more: &str) -> World {
    let world = World::new();
    let arguments = format!("command = {}\n{more}", Value::from(command));
    let turns = format!("{}{}", call("Now.", "shell", &arguments), say("Went on."));
    world.agent("[permissions]\npreset = \"observe\"\n", &turns);
    world
}

/// The run ends done; gives the outcomes of its actions.
fn outcomes(world: &World) -> Vec<Value> {
    let said = world.run(&["run", "--json"]).exits(0);
    let document = said.json();
    assert_eq!(document["output"], "Went on.", "{document}");
    finished(world)
}

fn finished(world: &World) -> Vec<Value> {
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    world.run(&["verify", "last"]).exits(0);
    let records = shown["records"].as_array().expect("records").clone();
    records.into_iter().filter(|record| record["kind"] == "action_finished").collect()
}

/// Whether this outcome has this status, and tells the model this.
fn tells(outcome: &Value, status: &str, text: &str) {
    assert_eq!(outcome["status"], status, "{outcome}");
    let told = outcome["output"]["text"].as_str().expect("text");
    assert!(told.contains(text), "{told:.2000}");
}

/// Whether a process has this word among its arguments.
fn alive(mark: &str) -> bool {
    std::fs::read_dir("/proc").expect("proc").flatten().any(|process| {
        let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
    })
}

#[test]
fn a_tool_that_hangs_is_ended_with_all_it_started() {
    let world = project("read", "timeout = \"300ms\"", "setsid sleep 611.1 & sleep 611.1");
    let outcomes = outcomes(&world);
    assert_eq!(outcomes.len(), 1);
    tells(&outcomes[0], "timed_out", "'odd' passed its time limit of 300 ms and was killed");
    assert!(!alive("611.1"));
}

#[test]
fn a_command_that_hangs_is_ended_with_all_it_started() {
    let world = shell("setsid sleep 612.1 & sleep 612.1", "timeout_s = 1");
    tells(&outcomes(&world)[0], "timed_out", "[killed: it passed its time limit of 1000 ms]");
    assert!(!alive("612.1"));
}

#[test]
fn a_tool_that_hangs_is_tried_as_often_as_its_retries_say() {
    let more = "timeout = \"200ms\"\nretries = { attempts = 3, backoff = \"10ms\" }";
    let world = project("read", more, "echo >> tries; sleep 613.1");
    let outcomes = outcomes(&world);
    assert_eq!(outcomes.len(), 3);
    outcomes.iter().for_each(|outcome| tells(outcome, "timed_out", "time limit"));
    assert_eq!(world.read("tries").lines().count(), 3);
}

/// Nobody knows what an irreversible tool did before its time was up: a person says.
#[test]
fn an_irreversible_tool_that_hangs_is_in_doubt_and_not_done_again() {
    let world = project("irreversible", "timeout = \"300ms\"", "echo >> tries; sleep 614.1");
    let document = world.run(&["run", "--json"]).exits(4).json();
    assert_eq!(document["status"], "waiting", "{document}");
    let list = world.run(&["approvals", "--json"]).exits(0).json();
    assert_eq!(list["approvals"][0]["kind"], "in_doubt", "{list}");
    let id = list["approvals"][0]["id"].as_str().expect("an id").to_owned();
    world.run(&["resume", "last"]).exits(4);
    assert_eq!(world.read("tries").lines().count(), 1, "it was not done again");
    world.run(&["resolve", &id, "--abandon"]).exits(0);
    let document = world.run(&["watch", "last", "--json"]).exits(0).json();
    assert_eq!(document["output"], "Went on.");
    assert_eq!(world.read("tries").lines().count(), 1, "it was not done again");
}

/// Prints the largest size the owner ever had: the tool's parent is its supervisor, whose parent it
/// is.
const OWNER_PEAK: &str = "owner=$(awk '/^PPid/ {print $2}' /proc/$PPID/status)\n\
     awk '/^VmHWM/ {print $2}' /proc/$owner/status";

#[test]
fn a_gigabyte_of_output_is_counted_and_dropped() {
    let world = project(
        "read",
        "[[tool]]\nname = \"peak\"\ndescription = \"x\"\ncommand = [\"./peak\"]\neffect = \"read\"",
        "head -c 1073741824 /dev/zero",
    );
    let allowed = world.read("bedplate.toml").replace("[\"odd\"]", "[\"odd\", \"peak\"]");
    world.write("bedplate.toml", &allowed);
    world.program("peak", &format!("#!/bin/sh\n{OWNER_PEAK}\n"));
    let flood = "command = \"head -c 1073741824 /dev/zero | tr '\\\\\\\\000' x\"";
    let turns = [
        call("On the host.", "odd", ""),
        call("In the sandbox.", "shell", flood),
        call("How large were you?", "peak", ""),
        say("Went on."),
    ];
    world.write("turns.toml", &turns.concat());
    let outcomes = outcomes(&world);
    tells(&outcomes[0], "ok", "'odd' printed 1073741824 bytes, more than the 1048576 a result may");
    tells(
        &outcomes[1],
        "ok",
        "[1073741824 bytes were printed; everything after the first 8388608 was cut]",
    );
    assert_eq!(outcomes[1]["output"]["bytes"], 1_073_741_824);
    tells(&outcomes[2], "ok", "");
    let peak_kib: u64 = outcomes[2]["output"]["text"]
        .as_str()
        .and_then(|text| text.trim().parse().ok())
        .expect("a number of KiB");
    assert!(peak_kib < 256 << 10, "the owner had {peak_kib} KiB");
}

const GARBAGE: &str = "printf '\\377\\376\\000\\033[31m\\007\\302\\233\\342\\200\\256ok\\n'";

/// What no terminal and no model should be sent.
fn is_clean(text: &str) -> bool {
    !text.contains(['\u{0}', '\u{7}', '\u{1b}', '\u{9b}', '\u{202e}'])
}

#[test]
fn bytes_that_are_no_text_are_made_readable_before_anyone_sees_them() {
    let world = shell(GARBAGE, "");
    let outcome = &outcomes(&world)[0];
    tells(outcome, "ok", "ok");
    assert!(is_clean(outcome["output"]["text"].as_str().expect("text")), "{outcome}");
    for line in [&["logs", "last"][..], &["show", "last"], &["explain", "last"]] {
        let Said { stdout, .. } = world.run(line).exits(0);
        assert!(is_clean(&stdout), "{line:?}: {stdout:?}");
    }
}

#[test]
fn a_tool_whose_result_is_no_json_was_done_and_is_quarantined() {
    let world = project("idempotent", "", &format!("echo >> tries; {GARBAGE}"));
    let outcome = &outcomes(&world)[0];
    tells(outcome, "ok", "it was done (exit status 0), but the result of 'odd' was quarantined");
    assert!(is_clean(outcome["output"]["text"].as_str().expect("text")), "{outcome}");
    assert_eq!(world.read("tries").lines().count(), 1, "it is not tried again");
}

#[test]
fn a_tool_that_fails_says_with_what() {
    let world = project("read", "", &format!("{GARBAGE} >&2; exit 7"));
    let outcome = &outcomes(&world)[0];
    tells(outcome, "failed", "'odd' failed with exit status 7. ");
    assert_eq!(outcome["exit"], 7);
    assert!(is_clean(outcome["output"]["text"].as_str().expect("text")), "{outcome}");
    let world = shell("echo half; exit 7", "");
    let outcome = &outcomes(&world)[0];
    tells(outcome, "failed", "half\n[exit status 7]");
    assert_eq!(outcome["exit"], 7);
}

#[test]
fn a_tool_that_dies_by_a_signal_says_so() {
    let world = project("read", "", "kill -9 $$");
    tells(&outcomes(&world)[0], "killed", "'odd' was killed by a signal");
    let world = shell("echo half; kill -11 $$", "");
    tells(&outcomes(&world)[0], "failed", "half\n[killed by signal 11]");
}

#[test]
fn a_tool_that_is_not_there_says_so() {
    let world = project("read", "", "");
    std::fs::remove_file(world.project().join("odd")).expect("removed");
    tells(&outcomes(&world)[0], "not_started", "'./odd' could not be started: ");
}

#[test]
fn what_a_tool_leaves_in_the_background_ends_with_its_call() {
    let world = project("read", "", "setsid sh -c 'sleep 615.1 & sleep 615.1' & echo 1");
    tells(&outcomes(&world)[0], "ok", "1");
    assert!(!alive("615.1"));
    let world = shell("(setsid sleep 616.1 >/dev/null 2>&1 &); echo left", "");
    tells(&outcomes(&world)[0], "ok", "left");
    assert!(!alive("616.1"));
}

/// The control of the tests above: their look at `/proc` finds what is there.
#[test]
fn a_process_that_lives_is_seen() {
    let mut child = std::process::Command::new("sleep").arg("617.1").spawn().expect("starts");
    until("it is there", || alive("617.1"));
    child.kill().expect("killed");
    child.wait().expect("reaped");
    assert!(!alive("617.1"));
}

#[test]
fn what_a_tool_says_of_its_age_decides_what_may_follow() {
    let check = |result: &str, status: i32| {
        let world = World::new();
        let manifest = "[permissions]\npreset = \"observe\"\nallow = [\"quote\", \"buy\"]\n\
            guard = [\"stale:3600\"]\n\
            [[tool]]\nname = \"quote\"\ndescription = \"x\"\ncommand = [\"./quote\"]\n\
            effect = \"read\"\nas_of = \"/at\"\n\
            [[tool]]\nname = \"buy\"\ndescription = \"x\"\ncommand = [\"./buy\"]\n";
        let turns = call("Look.", "quote", "") + &call("Act.", "buy", "") + &say("Went on.");
        world.agent(manifest, &turns);
        world.program("quote", &format!("#!/bin/sh\necho '{result}'\n"));
        world.program("buy", "#!/bin/sh\necho '{}'\n");
        world.run(&["run"]).exits(status);
        let all = world.run(&["approvals", "--json"]).exits(0).json();
        all["approvals"][0]["reason"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(check("{\"at\": \"2999-01-01T00:00:00Z\"}", 0), "");
    assert!(check("{\"at\": \"2020-01-01T00:00:00Z\"}", 4).contains("guard.stale.tools"));
    // What should say it and does not is older than everything.
    assert!(check("{}", 4).contains("guard.stale.tools"));
}
