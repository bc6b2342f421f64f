//! Denials and how they are opened; showing, checking, testing and comparing policies.

use crate::support::{World, call, say};

fn denied_shell(permissions: &str) -> World {
    let world = World::new();
    let turns =
        format!("{}{}", call("I'll look.", "shell", "command = \"echo hello\""), say("Done."));
    world.agent(permissions, &turns);
    world
}

fn run_id(world: &World) -> String {
    world.run(&["ps", "--json"]).exits(0).json()["runs"][0]["run"]
        .as_str()
        .expect("an id")
        .to_owned()
}

#[test]
fn with_nothing_said_the_first_tool_call_is_denied_and_one_command_opens_it() {
    let world = denied_shell("");
    let said = world.run(&["run"]).exits(0);
    let run = run_id(&world);
    let denied = said.stderr.lines().find(|line| line.starts_with("denied ")).expect("a denial");
    assert!(denied.contains("shell"), "{denied}");
    assert!(denied.ends_with(&format!("bedplate policy allow {run}")), "{denied}");
    assert_eq!(world.run(&["resume", &run, "--json"]).exits(0).json()["denials"].as_i64(), Some(1));

    let before = world.read("bedplate.toml");
    world.run(&["policy", "allow", &run]).fails(2, "BP-CLI-006");
    assert_eq!(world.read("bedplate.toml"), before, "nothing without a yes");
    let said = world.run(&["policy", "allow", &run, "--yes"]).exits(0);
    assert!(said.stderr.contains("allow \"shell\""), "{}", said.stderr);
    assert!(said.stderr.contains("opens every command with"), "{}", said.stderr);
    assert!(said.stderr.contains(&format!("next: bedplate send {run}")), "{}", said.stderr);
    let after = world.read("bedplate.toml");
    assert!(
        after.starts_with(before.trim_end()) && after.contains("allow = [\"shell\"]"),
        "{after}"
    );

    let json = world.run(&["run", "--json"]).exits(0).json();
    assert_eq!((json["denials"].as_i64(), json["status"].as_str()), (Some(0), Some("done")));
    world.run(&["policy", "allow", &run, "--yes"]).fails(2, "BP-CLI-011");
}

#[test]
fn what_is_forbidden_cannot_be_opened_by_adding() {
    let world = denied_shell("[permissions]\nallow = [\"read_file\"]\ndeny = [\"shell\"]\n");
    let said = world.run(&["run"]).exits(0);
    assert!(said.stderr.contains("bedplate policy allow "), "{}", said.stderr);
    let before = world.read("bedplate.toml");
    let said = world.run(&["policy", "allow", "last", "--yes"]).fails(2, "BP-CLI-011");
    assert!(said.stderr.contains("cannot be allowed by adding:"), "{}", said.stderr);
    assert_eq!(world.read("bedplate.toml"), before);
}

#[test]
fn a_run_that_was_denied_nothing_has_nothing_to_open() {
    let world = World::new();
    world.agent("", &say("Done."));
    world.run(&["run"]).exits(0);
    let said = world.run(&["policy", "allow", "last", "--yes"]).fails(2, "BP-CLI-011");
    assert!(said.stderr.contains("was denied nothing"), "{}", said.stderr);
}

#[test]
fn a_denied_action_can_be_made_an_asked_one() {
    let world = denied_shell("");
    world.run(&["run"]).exits(0);
    world.run(&["policy", "ask", "last", "--yes"]).exits(0);
    assert!(world.read("bedplate.toml").contains("ask = [\"shell\"]"));
    let said = world.run(&["run"]).exits(4);
    assert!(said.stderr.contains("asks shell"), "{}", said.stderr);
}

#[test]
fn an_entry_can_be_denied_from_the_command_line() {
    let world = denied_shell("[permissions]\npreset = \"observe\"\n");
    world.run(&["policy", "deny", "no such thing", "--yes"]).exits(2);
    world.run(&["policy", "deny", "shell"]).fails(2, "BP-CLI-006");
    world.run(&["policy", "deny", "shell", "--yes"]).exits(0);
    assert!(world.read("bedplate.toml").contains("deny = [\"shell\"]"));
    assert_eq!(world.run(&["run", "--json"]).exits(0).json()["denials"].as_i64(), Some(1));
}

#[test]
fn a_policy_is_shown_as_a_table_and_as_cedar() {
    let world = denied_shell("[permissions]\nallow = [\"shell\"]\nask = [\"python\"]\n");
    let table = world.run(&["policy", "show"]).exits(0).stdout;
    assert!(
        table
            .lines()
            .any(|l| l.starts_with("permit") && l.contains("run_command") && l.contains("shell")),
        "{table}"
    );
    let cedar = world.run(&["policy", "show", "--cedar"]).exits(0).stdout;
    assert!(cedar.contains("Action::\"run_command\""), "{cedar}");
    let json = world.run(&["policy", "show", ".", "--json"]).exits(0).json();
    assert!(json["rows"].as_array().is_some_and(|rows| !rows.is_empty()), "{json}");
    world.run(&["run"]).exits(0);
    let of_run = world.run(&["policy", "show", "last", "--json"]).exits(0).json();
    assert_eq!(of_run["policy_set"], json["policy_set"]);
    world.run(&["policy", "check"]).exits(0);
}

#[test]
fn cases_hold_a_policy_to_what_is_expected() {
    let world = denied_shell("[permissions]\nallow = [\"shell\"]\n");
    let case = |name: &str, tool: &str, expect: &str| {
        format!(
            "[[case]]\nname = \"{name}\"\naction = \"run_command\"\nresource = \"{tool}\"\ncommand = \"ls\"\nexpect = \"{expect}\"\n"
        )
    };
    world.write(
        "good.toml",
        &format!("{}{}", case("may", "shell", "permit"), case("may not", "python", "deny")),
    );
    let said = world.run(&["policy", "test", "good.toml"]).exits(0);
    assert_eq!(said.stdout, "ok may\nok may not\n");
    world.write("bad.toml", &case("may not", "shell", "deny"));
    let said = world.run(&["policy", "test", "bad.toml"]).fails(1, "BP-CLI-016");
    assert!(said.stdout.contains("failed may not: expected deny, got permit"), "{}", said.stdout);
    world.write("broken.toml", "[[case]]\n");
    world.run(&["policy", "test", "broken.toml"]).fails(2, "BP-POLICY-014");
}

#[test]
fn two_policies_are_compared() {
    let world = denied_shell("[permissions]\nallow = [\"shell\"]\n");
    let other = world.path().join("other");
    std::fs::create_dir(&other).expect("made");
    std::fs::write(
        other.join("bedplate.toml"),
        world.read("bedplate.toml").replace("shell", "read_file"),
    )
    .expect("written");
    let other = other.to_str().expect("UTF-8");
    let said = world.run(&["policy", "diff", ".", other]).exits(0);
    assert!(said.stdout.contains("wider: now permits read_file"), "{}", said.stdout);
    assert!(
        said.stdout.contains("narrower: no longer permits run_command shell"),
        "{}",
        said.stdout
    );
    assert_eq!(world.run(&["policy", "diff", ".", "."]).exits(0).stdout, "");
}

#[test]
fn a_broken_policy_says_where() {
    let world = denied_shell("");
    world.write("policy.cedar", "permit(principal,\n");
    let said = world.run(&["policy", "check"]).fails(2, "BP-POLICY-001");
    assert!(said.stderr.contains("policy.cedar:"), "{}", said.stderr);
}

#[test]
fn a_model_that_would_have_to_be_asked_is_not_called() {
    let world = World::new();
    world.agent("", &say("Done."));
    let cedar = "forbid(principal, action == Action::\"call_model\", resource) unless { context.approved };\n";
    world.write("policy.cedar", cedar);
    let json = world.run(&["run", "--json"]).json();
    assert_eq!(json["error"]["code"], "BP-RUN-007", "{json}");
    assert_ne!(json["status"], "done", "{json}");
}
