//! Bad input: the exit status, the code, and that nothing changed.

use crate::support::{Said, World, call, say};

/// A line that must be refused with this status and code, in a project with this manifest, and
/// leave neither a home nor anything else behind.
fn refused(more: &str, line: &[&str], code: &str) {
    let world = World::new();
    world.agent(more, &say("Done."));
    let before = tree(&world);
    let said = world.run(line).fails(2, code);
    assert!(said.stderr.contains("  next: "), "{line:?}: {}", said.stderr);
    assert!(said.stdout.is_empty(), "{line:?}: {}", said.stdout);
    assert_eq!(tree(&world), before, "{line:?} changed something");
}

fn tree(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![world.path().to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in std::fs::read_dir(dir).expect("a directory").flatten() {
            found.push(entry.path().display().to_string());
            if entry.path().is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_cannot_be_done_is_refused_and_changes_nothing() {
    let check = |line: &[&str], code: &str| refused("", line, code);
    check(&["rnu"], "BP-CLI-001");
    check(&["run", "--no-such-flag"], "BP-CLI-001");
    check(&["run", "missing"], "BP-CLI-002");
    check(&["run", "./missing"], "BP-CLI-002");
    check(&["run", "/no/such/dir"], "BP-CLI-002");
    check(&["run", "/usr"], "BP-CONFIG-006");
    check(&["run", "--model", "nope"], "BP-CONFIG-008");
    check(&["run", "--model", "opnai/x"], "BP-MODEL-014");
    check(&["run", "--model", "script/none.toml"], "BP-CLI-014");
    check(&["run", "--env", "prod"], "BP-CONFIG-005");
    check(&["show", "nope"], "BP-STORE-007");
    check(&["show", "last"], "BP-STORE-007");
    check(&["show", "last@x"], "BP-STORE-007");
    check(&["resume", "last"], "BP-STORE-007");
    check(&["send", "last", "x"], "BP-STORE-007");
    check(&["cancel", "nope"], "BP-STORE-007");
    check(&["rm", "nope"], "BP-STORE-007");
    check(&["verify", "nope"], "BP-STORE-007");
    check(&["explain", "nope"], "BP-STORE-007");
    check(&["artifacts", "nope"], "BP-STORE-007");
    check(&["apply", "nope", "--yes"], "BP-STORE-007");
    check(&["approve", "nope"], "BP-RUN-010");
    check(&["approve", "0123456789ab-1"], "BP-STORE-007");
    check(&["deny", "x"], "BP-CLI-001");
    check(&["resolve", "0123456789ab-1", "--abandon"], "BP-STORE-007");
    check(&["resolve", "0123456789ab-1", "--happened", "--result", "{"], "BP-CLI-008");
    check(&["policy", "allow", "last"], "BP-STORE-007");
    check(&["policy", "show", "./missing"], "BP-CLI-002");
    check(&["policy", "check", "/usr"], "BP-CONFIG-006");
    check(&["help", "BP-NO-999"], "BP-CLI-012");
    check(&["help", "nope"], "BP-CLI-012");
    check(&["init"], "BP-CLI-007");
    check(&["sandbox", "run", "--workspace", "/no/such/dir", "--", "true"], "BP-CONFIG-007");
    check(&["sandbox", "run"], "BP-CLI-001");
    check(&["--home", "", "ps"], "BP-CLI-001");
}

#[test]
fn a_manifest_that_cannot_be_used_is_refused_before_anything_starts() {
    let check = |more: &str, code: &str| refused(more, &["run"], code);
    check("[budget]\nusd = -1.0\n", "BP-CONFIG-002");
    check("[budgets]\nusd = 1.0\n", "BP-CONFIG-001");
    check("[sandbox]\nworkspace = \"missing\"\n", "BP-CONFIG-007");
    check("[sandbox]\nworkspace = \"turns.toml\"\n", "BP-CONFIG-007");
    check(
        "[[tool]]\nname = \"x\"\ndescription = \"x\"\ncommand = [\"./x\"]\ninput_schema = \"none.json\"\neffect = \"read\"\n",
        "BP-CONFIG-005",
    );
}

#[test]
fn without_any_home_there_is_nothing_to_work_with() {
    let world = World::new();
    let mut command = world.command(&["ps"]);
    let said = Said::of(command.env_clear().output().expect("runs"));
    said.fails(2, "BP-CLI-004");
}

#[test]
fn a_home_that_is_a_file_is_refused() {
    let world = World::new();
    world.agent("", &say("Done."));
    world.write("file", "");
    let home = world.project().join("file");
    let home = home.to_str().expect("UTF-8");
    let check = |line: &[&str], code: &str| {
        world.run(line).fails(2, code);
        assert_eq!(world.read("file"), "", "{line:?}");
    };
    check(&["--home", home, "ps"], "BP-STORE-001");
    check(&["--home", home, "show", "last"], "BP-STORE-001");
    check(&["run", "--home", home], "BP-OWNER-001");
}

#[test]
fn too_long_an_input_is_refused() {
    use std::io::Write;
    let world = World::new();
    world.agent("", &say("Done."));
    let feed = |bytes: usize| {
        let mut command = world.command(&["run", "--input", "-", "--json"]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().expect("runs");
        let mut input = child.stdin.take().expect("a pipe");
        // A command that refuses does not read on.
        let _ = input.write_all(&vec![b'x'; bytes]);
        drop(input);
        Said::of(child.wait_with_output().expect("ends"))
    };
    feed((1 << 20) + 1).fails(2, "BP-RUN-014");
    assert!(!world.home().exists());
    feed(1 << 20).exits(0);
}

/// A home whose owner says this first.
fn with_owner(hello: &'static [u8]) -> (World, std::thread::JoinHandle<()>) {
    use std::io::Write;
    let world = World::new();
    std::fs::create_dir(world.home()).expect("made");
    let listener =
        std::os::unix::net::UnixListener::bind(world.home().join("owner.sock")).expect("bound");
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a command");
        let length = u32::try_from(hello.len()).expect("short").to_be_bytes();
        let _ = stream.write_all(&[&length, hello].concat());
    });
    (world, thread)
}

#[test]
fn an_owner_that_is_another_build_or_none_is_not_spoken_to() {
    let check = |hello: &'static [u8], code: &str| {
        let (world, thread) = with_owner(hello);
        world.run(&["gc"]).fails(1, code);
        thread.join().expect("it spoke");
    };
    check(br#"{"reply":"hello","version":"0.0.0-other"}"#, "BP-OWNER-004");
    check(b"not a frame", "BP-OWNER-005");
    check(br#"{"reply":"at_rest"}"#, "BP-OWNER-005");
}

#[test]
fn a_policy_over_its_limit_is_refused() {
    let world = World::new();
    world.agent("", &say("Done."));
    world.write("policy.cedar", &format!("//{}\n", "x".repeat(1 << 20)));
    for line in [&["run"][..], &["policy", "check"], &["policy", "show"]] {
        let said = world.run(line).exits(2);
        assert!(said.stderr.contains("error BP-POLICY-005: "), "{line:?}: {}", said.stderr);
    }
    let ps = world.run(&["ps", "--json"]).exits(0);
    assert_eq!(ps.json()["runs"].as_array().map(Vec::len), Some(0));
}

#[test]
fn errors_are_json_where_json_was_asked_for() {
    let world = World::new();
    let check = |line: &[&str], code: &str| {
        let said: Said = world.run(line).fails(2, code);
        let error = said.json()["error"].clone();
        assert_eq!(error["code"], code, "{line:?}");
        assert!(error["message"].is_string() && error["next"].is_string(), "{line:?}");
    };
    check(&["show", "last", "--json"], "BP-STORE-007");
    check(&["--json", "run", "missing"], "BP-CLI-002");
    check(&["rnu", "--json"], "BP-CLI-001");
}

#[test]
fn a_new_home_is_empty_and_reading_does_not_make_it() {
    let world = World::new();
    let list = |line: &[&str], key: &str| {
        let json = world.run(line).exits(0).json();
        assert_eq!(json[key].as_array().map(Vec::len), Some(0), "{line:?}: {json}");
    };
    list(&["ps", "--json"], "runs");
    list(&["approvals", "--json"], "approvals");
    world.run(&["df"]).exits(0);
    assert!(!world.home().exists());
}

#[test]
fn help_is_grouped_and_codes_have_pages() {
    let world = World::new();
    let overview = world.run(&["--help"]).exits(0).stdout;
    for group in ["work", "decide", "understand", "worlds", "admin"] {
        assert!(overview.contains(&format!("\n{group}\n")), "{group}");
    }
    assert_eq!(world.run(&["help"]).exits(0).stdout, overview);
    assert_eq!(world.run(&[]).exits(0).stdout, overview);
    let page = world.run(&["help", "bp-run-006"]).exits(0).stdout;
    assert!(page.starts_with("# BP-RUN-006: "), "{page}");
    let run = world.run(&["help", "run"]).exits(0).stdout;
    assert!(run.contains("--detach") && run.contains("4 waits for a person"), "{run}");
    assert!(world.run(&["run", "--help"]).exits(0).stdout.contains("--detach"));
    assert!(world.run(&["--version"]).exits(0).stdout.starts_with("bedplate "));
    let script = world.run(&["completion", "bash"]).exits(0).stdout;
    assert!(script.contains("approvals"), "{script}");
    assert!(!world.home().exists());
}

#[test]
fn init_writes_a_project_that_runs() {
    let world = World::new();
    let said = world.run(&["init"]).exits(0);
    assert!(said.stderr.contains("what the agent may do:"), "{}", said.stderr);
    assert!(said.stderr.trim_end().ends_with("next: bedplate run"), "{}", said.stderr);
    assert!(world.read("bedplate.toml").contains("script/turns.toml"));
    world.run(&["policy", "check"]).exits(0);
    let run = world.run(&["run", "--json"]).exits(0).json();
    assert_eq!(run["status"], "done", "{run}");
    let before = world.read("bedplate.toml");
    world.run(&["init"]).fails(2, "BP-CLI-007");
    assert_eq!(world.read("bedplate.toml"), before);
}

#[test]
fn init_takes_a_known_key() {
    for (key, model) in
        [("OPENAI_API_KEY", "openai/gpt-5.4"), ("ANTHROPIC_API_KEY", "anthropic/claude-sonnet-5-5")]
    {
        let world = World::new();
        let mut command = world.command(&["init", "--json"]);
        let said = Said::of(command.env(key, "sk-none").output().expect("runs")).exits(0);
        assert_eq!(said.json()["model"], model);
        assert!(!world.read("bedplate.toml").contains("sk-none"));
        assert!(!world.project().join("turns.toml").exists());
    }
}

#[test]
fn a_task_without_any_model_says_how_to_get_one() {
    let world = World::new();
    let said = world.run(&["run", "count the lines"]);
    // A machine with Ollama has a model: then there is nothing to refuse.
    if said.code == 2 {
        assert!(said.stderr.contains("error BP-CLI-003: "), "{}", said.stderr);
        assert!(said.stderr.contains("OPENAI_API_KEY"), "{}", said.stderr);
        assert!(!world.home().exists());
    }
}

#[test]
fn a_script_with_no_next_turn_fails_the_run() {
    let world = World::new();
    world.agent(
        "[permissions]\npreset = \"observe\"\n",
        &call("Look.", "shell", "command = \"true\""),
    );
    let run = world.run(&["run", "--json"]).exits(1).json();
    assert_eq!(run["status"], "failed", "{run}");
    assert!(run["error"]["code"].as_str().is_some_and(|code| code.starts_with("BP-")), "{run}");
}
