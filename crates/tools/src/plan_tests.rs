use super::*;
use serde_json::json;

fn manifest() -> Manifest {
    let text = "schema = 1\n[[tool]]\nname = \"open_ticket\"\ncommand = [\"./x\"]\n\
                [[tool]]\nname = \"look_up\"\ncommand = [\"./y\"]\neffect = \"read\"\n\
                [[check]]\nname = \"tests pass\"\ncommand = \"true\"\n";
    types::manifest::parse(text).expect("valid")
}

#[test]
fn every_call_says_what_it_does_and_asks() {
    let check = |name: &str, arguments: Value, effect: EffectClass, asks: &[&str]| {
        let manifest = manifest();
        let plan = plan(&manifest, name, &arguments).expect(name);
        assert_eq!(plan.effect(&manifest), effect, "{name}");
        let requests = plan.requests(&manifest);
        let said: Vec<String> =
            requests.iter().map(|r| format!("{} {}", r.name(), r.resource())).collect();
        assert_eq!(said, asks, "{name}");
    };
    use EffectClass::{Irreversible, Read, Workspace};
    check("shell", json!({"command": "ls"}), Workspace, &["run_command shell"]);
    check("read_file", json!({"path": "../etc/passwd"}), Read, &["read_file /etc/passwd"]);
    check(
        "write_file",
        json!({"path": "a", "content": ""}),
        Workspace,
        &["write_file /workspace/a"],
    );
    let edit = json!({"path": "a", "old": "x", "new": "y"});
    check("edit_file", edit, Workspace, &["read_file /workspace/a", "write_file /workspace/a"]);
    check("check", json!({"name": "tests pass"}), Read, &["run_command check"]);
    check("open_ticket", json!({"any": 1}), Irreversible, &["call_tool open_ticket"]);
    check("look_up", json!({}), Read, &["call_tool look_up"]);
}

#[test]
fn a_guest_is_a_command_of_its_manifest_and_no_tool_of_a_model() {
    let text = "schema = 1\n[agent]\ncommand = [\"codex\", \"exec\", \"it's here\"]\n";
    let manifest = types::manifest::parse(text).expect("valid");
    let planned = plan(&manifest, "guest", &json!({})).expect("a guest");
    assert_eq!(planned.effect(&manifest), EffectClass::Workspace);
    let asked = ActionRequest::RunCommand {
        tool: "shell".to_owned(),
        command: r"codex exec 'it'\''s here'".to_owned(),
    };
    assert_eq!(planned.requests(&manifest), [asked]);
    let other = types::manifest::parse("schema = 1\n").expect("valid");
    assert_eq!(plan(&other, "guest", &json!({})).expect_err("no guest").code(), "BP-TOOL-001");
}

#[test]
fn bad_calls_are_refused_with_a_code() {
    let check = |name: &str, arguments: Value, code: &str, part: &str| {
        let refusal = plan(&manifest(), name, &arguments).expect_err(name);
        assert_eq!(refusal.code(), code);
        assert!(refusal.to_string().contains(part), "{refusal}");
    };
    check("shel", json!({}), "BP-TOOL-001", "did you mean 'shell'?");
    check("shell", json!("ls"), "BP-TOOL-002", "not a JSON object");
    check("shell", json!({"cmd": "ls"}), "BP-TOOL-002", "cmd");
    check("shell", json!({"command": "ls", "timeout_s": 0}), "BP-TOOL-002", "timeout_s");
    check("shell", json!({"command": "a\u{0}b"}), "BP-TOOL-002", "NUL");
    check("edit_file", json!({"path": "a", "old": "", "new": "y"}), "BP-TOOL-002", "empty");
    check("wait", json!({}), "BP-TOOL-002", "seconds");
    check("check", json!({"name": "nope"}), "BP-TOOL-002", "no check");
    check("read_file", json!({"path": "artifact:x"}), "BP-TOOL-002", "number");
    check("read_file", json!({"path": "../../.."}), "BP-TOOL-002", "leaves the root");
}

#[test]
fn a_shell_command_may_ask_for_an_hour_and_no_more() {
    let at =
        |seconds: u64| plan(&manifest(), "shell", &json!({"command": "x", "timeout_s": seconds}));
    assert!(at(SHELL_TIMEOUT_MS_MAX / 1_000).is_ok());
    assert!(at(SHELL_TIMEOUT_MS_MAX / 1_000 + 1).is_err());
}

#[test]
fn a_program_writes_bytes_that_are_no_text() {
    let manifest = types::manifest::parse("schema = 1\n[agent]\nname = \"a\"\n").expect("valid");
    let check = |arguments: Value, expected: Option<&[u8]>| {
        let planned = plan(&manifest, "write_file", &arguments).ok();
        let written = planned.map(|plan| match plan {
            Plan::Write { content, .. } => content,
            other => panic!("{other:?}"),
        });
        assert_eq!(written.as_deref(), expected, "{arguments}");
    };
    check(json!({"path": "a", "content": "/wA="}), Some(b"/wA="));
    check(json!({"path": "a", "content": "/wA=", "encoding": "text"}), Some(b"/wA="));
    check(json!({"path": "a", "content": "/wA=", "encoding": "base64"}), Some(&[0xff, 0]));
    check(json!({"path": "a", "content": "/wA", "encoding": "base64"}), None);
    check(json!({"path": "a", "content": "", "encoding": "hex"}), None);
}
