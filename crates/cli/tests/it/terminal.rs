//! With a terminal: questions inline, Ctrl-C, colours. The terminal is a pseudo-terminal that a
//! few lines of Python hold.

use crate::support::{World, binary, call, say};
use serde_json::{Value, json};

/// Runs a command on a new terminal; for each `[wanted, typed]` waits until `wanted` was printed,
/// then types `typed`. Prints what was seen and the exit status as JSON.
const DRIVER: &str = r#"
import json, os, pty, select, sys, time
steps, argv = json.loads(sys.argv[1]), sys.argv[2:]
pid, fd = pty.fork()
if pid == 0:
    os.execv(argv[0], argv)
seen, limit = b"", time.monotonic() + 60
def more():
    global seen
    if time.monotonic() > limit:
        sys.exit("waited too long; seen: %r" % seen)
    if not select.select([fd], [], [], 1)[0]:
        return True
    try:
        data = os.read(fd, 65536)
    except OSError:
        return False
    seen += data
    return bool(data)
at = 0
for wanted, typed in steps:
    while seen.find(wanted.encode(), at) < 0:
        if not more():
            sys.exit("never seen %r in %r" % (wanted, seen))
    at = seen.find(wanted.encode(), at) + len(wanted)
    os.write(fd, typed.encode())
while more():
    pass
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(json.dumps({"seen": seen.decode("utf-8", "replace"), "status": status}))
"#;

/// What was seen, and the exit status.
pub(crate) fn on_terminal(
    world: &World,
    arguments: &[&str],
    steps: &[(&str, &str)],
) -> (String, i64) {
    on_terminal_by(world, &[], arguments, steps)
}

/// The same with the binary started by another program.
fn on_terminal_by(
    world: &World,
    by: &[&str],
    arguments: &[&str],
    steps: &[(&str, &str)],
) -> (String, i64) {
    let mut command = world.command(&[]);
    let environment: Vec<_> =
        command.get_envs().map(|(k, v)| (k.to_owned(), v.map(ToOwned::to_owned))).collect();
    command = std::process::Command::new("python3");
    command.env_clear().current_dir(world.project()).stdin(std::process::Stdio::null());
    for (name, value) in environment {
        command.env(name, value.unwrap_or_default());
    }
    let steps = json!(steps).to_string();
    command.args(["-c", DRIVER, &steps]).args(by).arg(binary()).args(arguments);
    let output = command.output().expect("python3 runs");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Value = serde_json::from_str(&stdout)
        .unwrap_or_else(|_| panic!("{stdout}{}", String::from_utf8_lossy(&output.stderr)));
    (said["seen"].as_str().expect("text").to_owned(), said["status"].as_i64().expect("a status"))
}

const TICKETS: &str = "
[permissions]
preset = \"observe\"
ask = [\"ticket\"]
[[tool]]
name = \"ticket\"
description = \"Opens a ticket.\"
command = [\"./ticket\"]
effect = \"irreversible\"
";

fn desk() -> World {
    let world = World::new();
    let turns = format!(
        "{}{}",
        call("I'll open one.", "ticket", "title = \"bro\\u001bken\""),
        say("That is all.")
    );
    world.agent(TICKETS, &turns);
    world.program("ticket", "#!/bin/sh\ncat >> tickets.log\necho '{\"id\": 7}'\n");
    world
}

fn opened(world: &World) -> bool {
    world.project().join("tickets.log").exists()
}

#[test]
fn a_question_is_asked_inline_shown_in_full_and_answered() {
    let world = desk();
    let steps = [
        ("[y/n/show]", "show\n"),
        ("\"title\"", ""),
        ("[y/n/show]", "what\n"),
        ("[y/n/show]", "y\n"),
    ];
    let (seen, status) = on_terminal(&world, &["run"], &steps);
    assert_eq!(status, 0, "{seen}");
    assert!(seen.contains("\u{1b}[32mapproved\u{1b}[0m ticket"), "{seen}");
    assert!(seen.contains("bro\\\\u001bken") || seen.contains("bro\\u001bken"), "{seen}");
    assert!(!seen.contains("bro\u{1b}ken"), "{seen:?}");
    assert!(seen.contains("That is all."), "{seen}");
    assert!(opened(&world));
    let json = world.run(&["resume", "last", "--json"]).exits(0).json();
    assert_eq!(json["approvals"].as_i64(), Some(1));
}

#[test]
fn a_refusal_is_given_a_reason() {
    let world = desk();
    let steps = [("[y/n/show]", "n\n"), ("why not?", "not today\n")];
    let (seen, status) = on_terminal(&world, &["run"], &steps);
    assert_eq!(status, 0, "{seen}");
    assert!(!opened(&world));
    assert!(world.run(&["show", "last", "--json"]).exits(0).stdout.contains("not today"));
}

#[test]
fn ctrl_c_at_a_question_leaves_it_open() {
    let world = desk();
    let (seen, status) = on_terminal(&world, &["run"], &[("[y/n/show]", "\u{3}")]);
    assert_eq!(status, 4, "{seen}");
    assert!(seen.contains("bedplate approve "), "{seen}");
    let (seen, status) = on_terminal(&world, &["resume", "last"], &[("[y/n/show]", "y\n")]);
    assert_eq!(status, 0, "{seen}");
    assert!(opened(&world));
}

#[test]
fn a_second_ctrl_c_cancels() {
    let world = World::new();
    let turns = call("This takes a while.", "shell", "command = \"trap '' INT; sleep 60\"");
    world.agent("[permissions]\npreset = \"observe\"\n", &turns);
    let (seen, status) =
        on_terminal(&world, &["run"], &[("says", "\u{3}"), ("setting the run aside", "\u{3}")]);
    // The second may come when the run is at rest already: then there is nothing left to cancel.
    let json = world.run(&["show", "last", "--json"]).exits(0).json();
    match json["status"].as_str() {
        Some("cancelled") => assert_eq!(status, 1, "{seen}"),
        Some("suspended") => assert!(seen.contains("setting the run aside"), "{seen}"),
        other => panic!("{other:?}: {seen}"),
    }
}

#[test]
fn changes_are_applied_after_a_yes() {
    let world = World::new();
    world.write("data/a.txt", "one\n");
    let turns = format!(
        "{}{}",
        call("I'll edit.", "shell", "command = \"echo two > a.txt\""),
        say("Edited.")
    );
    world.agent("[permissions]\npreset = \"observe\"\n[sandbox]\nworkspace = \"data\"\n", &turns);
    world.run(&["run"]).exits(0);
    let (seen, status) = on_terminal(&world, &["apply", "last"], &[("[y/n]", "n\n")]);
    assert!(status == 1 && seen.contains("nothing was changed"), "{seen}");
    assert_eq!(world.read("data/a.txt"), "one\n");
    let (seen, status) = on_terminal(&world, &["apply", "last"], &[("[y/n]", "y\n")]);
    assert_eq!(status, 0, "{seen}");
    assert_eq!(world.read("data/a.txt"), "two\n");
}

#[test]
fn a_sandbox_has_the_terminal() {
    let world = World::new();
    let shell = "test -t 0 && read -r word && echo \"<$word>\"";
    let (seen, status) = on_terminal(
        &world,
        &["sandbox", "run", "--", "sh", "-c", &format!("echo ready; {shell}")],
        &[("ready", "typed\n")],
    );
    assert_eq!(status, 0, "{seen}");
    assert!(seen.contains("<typed>"), "{seen}");
}

#[test]
fn a_guest_has_a_terminal_of_its_own_like_this_one() {
    let world = World::new();
    world.write("bedplate.toml", "schema = 1\n[permissions]\npreset = \"observe\"\n");
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size && read line && echo got-$line; \
                  trap 'echo by-signal; exit 5' INT; echo ready; while :; do read x; done";
    // The third is Ctrl-C, which is a key like any other on this side.
    let steps = [("24 80", "hello\n"), ("got-hello", ""), ("ready", "\u{3}")];
    let resized = "stty rows 24 cols 80; exec \"$@\"";
    let (seen, status) = on_terminal_by(
        &world,
        &["/bin/sh", "-c", resized, "sh"],
        &["wrap", "--", "sh", "-c", script],
        &steps,
    );
    assert!(seen.contains("by-signal"), "{seen}");
    assert_eq!(status, 5, "{seen}");
    assert!(seen.contains("BP-RUN-020"), "the summary comes when the terminal is ours again");
}
