//! The privacy router through the binary: what a provider really got, what came back, what a
//! person was asked, and what the log says of it.

use crate::provider::{Echo, calls_shell, says, stream};
use crate::support::{Said, World, until};
use serde_json::{Value, json};
use std::io::Write;
use std::process::Stdio;

const EMAIL: &str = "ada.lovelace@example.org";
const PHONE: &str = "+49 30 901820";
const SECRET: &str = "value-of-the-vault-4711";
const CANARY: &str = "canary-7d1e0b5c9f";

/// An agent with this provider under the name `local`, and what stands in `[privacy]`.
fn agent(world: &World, echo: &Echo, privacy: &str, more: &str) {
    let manifest = format!(
        "schema = 1\n[agent]\nname = \"tester\"\ninstructions = \"Do it.\"\nmodel = \"default\"\n\
         [routes]\ndefault = [\"local/m\"]\n{}[permissions]\nallow = [\"shell\"]\n\
         [privacy]\n{privacy}\n{more}",
        echo.provider("local")
    );
    world.write("bedplate.toml", &manifest);
}

/// The pseudonym of an e-mail address in a request.
fn pseudonym(body: &str) -> String {
    const END: &str = "@pseudonym.invalid";
    let end = body.find(END).expect("a pseudonym") + END.len();
    let start = body[..end].rfind("person-").expect("it begins");
    body[start..end].to_owned()
}

fn records(world: &World, kind: &str) -> Vec<Value> {
    let shown = world.run(&["show", "last", "--json"]).json();
    let records = shown["records"].as_array().expect("records");
    records.iter().filter(|record| record["kind"] == kind).cloned().collect()
}

fn upstream_never_saw(echo: &Echo, value: &str) {
    for request in echo.seen() {
        assert!(!request.contains(value), "{value} went up: {request}");
    }
}

/// An answer whose text comes in pieces of one byte.
fn says_bytewise(text: &str) -> Vec<u8> {
    let piece = |c: char| json!({"choices": [{"index": 0, "delta": {"content": c.to_string()}}]});
    let mut events: Vec<Value> = text.chars().map(piece).collect();
    events.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    stream(&events)
}

#[test]
fn pseudonyms_go_up_values_come_back_and_a_later_owner_knows_them() {
    let world = World::new();
    let echo = Echo::start(|number, body| match number {
        0 => calls_shell(&format!("echo {} > mail.txt; cat mail.txt", pseudonym(body))),
        _ => says_bytewise(&format!("I wrote to {}.", pseudonym(body))),
    });
    let privacy = "default = \"pseudonym\"\nlocal = \"same\"";
    agent(&world, &echo, privacy, "[artifacts]\npaths = [\"mail.txt\"]\n");
    let task = format!("Write to {EMAIL}, not to {PHONE}.");
    let done = world.run(&["run", "--input", &task, "--json"]).exits(0).json();
    assert_eq!(done["output"], format!("I wrote to {EMAIL}."));
    let kept = done["artifacts"][0]["file"].as_str().expect("it was kept");
    assert_eq!(std::fs::read_to_string(kept).expect("a file"), format!("{EMAIL}\n"));
    for value in [EMAIL, PHONE, "901820"] {
        upstream_never_saw(&echo, value);
    }
    // The log says what was found and done, and never the value.
    let checked = records(&world, "privacy_checked");
    assert_eq!(checked.len(), 2);
    let found = &checked[0]["found"];
    assert_eq!(found[0]["kind"], "email");
    assert_eq!(found[0]["treatment"], "pseudonym");
    assert_eq!(found[0]["rule"], "privacy.default");
    assert_eq!(found[1]["kind"], "phone");
    let said = checked[0].to_string();
    assert!(!said.contains("lovelace") && !said.contains("901820"), "{said}");
    // The command was written by a model that was told a pseudonym: what it does carries `pii`.
    let decided = records(&world, "decision_made");
    let of_action = decided.iter().find(|record| record["action"].is_u64()).expect("decided");
    assert_eq!(of_action["carried"]["labels"], json!(["pii"]));
    let answered = records(&world, "model_answered");
    assert_eq!(answered[0]["restored"][0]["kinds"], json!(["email"]));
    assert!(answered[0]["restored"][0]["call_id"].is_string());
    let explained = world.run(&["explain", "last"]).exits(0).stdout;
    assert!(explained.contains("email pseudonym"), "{explained}");
    assert!(explained.contains("values put back in what it said: email"), "{explained}");
    // Another owner: the same value has the same pseudonym.
    let first = pseudonym(&echo.seen()[0]);
    world.kill_owner();
    world.run(&["send", "last", &format!("Once more to {EMAIL}.")]);
    until("it answers again", || echo.seen().len() == 3);
    let requests = echo.seen();
    assert!(requests.iter().all(|request| pseudonym(request) == first));
    until("the owner left", || world.owner().is_none());
    world.run(&["verify", "last"]).exits(0);
}

#[test]
fn a_value_of_the_vault_that_a_tool_prints_is_masked_in_every_encoding() {
    let world = World::new();
    let echo = Echo::start(|number, _| match number {
        0 => calls_shell(
            "v=value-of-the; v=$v-vault-4711; echo $v; printf %s $v | base64; \
             printf %s $v | od -An -tx1 | tr -d ' \\n'",
        ),
        _ => says("Done."),
    });
    agent(&world, &echo, "secrets = \"as_is\"", "");
    set_secret(&world);
    world.run(&["run"]).exits(0);
    let requests = echo.seen();
    assert_eq!(requests.len(), 2);
    upstream_never_saw(&echo, SECRET);
    upstream_never_saw(&echo, "dmFsdWUtb2YtdGhlLXZhdWx0LTQ3MT");
    upstream_never_saw(&echo, "76616c75652d6f662d7468652d7661756c74");
    assert_eq!(requests[1].matches("[masked:api]").count(), 3, "{}", requests[1]);
    let checked = records(&world, "privacy_checked");
    assert_eq!(checked[0]["found"][0]["kind"], "secret");
    assert_eq!(checked[0]["found"][0]["names"], json!(["api"]));
    assert_eq!(checked[0]["found"][0]["rule"], "privacy.vault");
}

#[test]
fn a_canary_stops_the_call_and_so_does_what_is_refused() {
    let world = World::new();
    let echo = Echo::start(|_, _| says("I should never have been asked."));
    agent(&world, &echo, &format!("canaries = [\"{CANARY}\"]"), "");
    let failed = world.run(&["run", "--input", &format!("see {CANARY}"), "--json"]).exits(1).json();
    assert_eq!(failed["error"]["code"], "BP-PRIVACY-007");
    assert_eq!(records(&world, "privacy_checked")[0]["found"][0]["treatment"], "refuse");
    agent(&world, &echo, "email = \"refuse\"\nlocal = \"same\"", "");
    let failed = world.run(&["run", "--input", &format!("to {EMAIL}"), "--json"]).exits(1).json();
    assert_eq!(failed["error"]["code"], "BP-PRIVACY-010");
    assert_eq!(failed["denials"], 1);
    let denied = records(&world, "decision_made");
    assert_eq!(denied[0]["policies"], json!(["privacy.email"]));
    assert!(echo.seen().is_empty());
}

#[test]
fn a_call_is_asked_about_shown_with_marks_and_sent_once() {
    let world = World::new();
    let echo = Echo::start(|_, _| says("Written."));
    agent(&world, &echo, "email = \"ask\"\nlocal = \"same\"", "");
    let task = format!("Write to {EMAIL} today.");
    let waits = world.run(&["run", "--input", &task]).exits(4);
    assert!(waits.stderr.contains("call_model local/m"), "{}", waits.stderr);
    assert!(echo.seen().is_empty(), "nothing left before the answer");
    let open = world.run(&["approvals", "--json"]).exits(0).json()["approvals"][0].clone();
    assert_eq!(open["action"], "call_model");
    let shown = open["shown"].as_str().expect("text");
    assert!(shown.contains(&format!("Write to ⟦email: {EMAIL}⟧ today.")), "{shown}");
    let bound = records(&world, "model_asked")[0]["bound"].clone();
    assert!(shown.contains(bound.as_str().expect("a digest")), "{shown}");
    // It survives the owner.
    world.kill_owner();
    let id = open["id"].as_str().expect("an id").to_owned();
    world.run(&["approve", &id]).exits(0);
    until("it is sent", || echo.seen().len() == 1);
    until("the run is over", || !records(&world, "run_ended").is_empty());
    assert!(echo.seen()[0].contains(EMAIL));
    let called = records(&world, "model_called");
    assert_eq!(called[0]["request"], bound);
    assert!(called[0]["approved"].is_u64());
    world.run(&["approve", &id]).fails(2, "BP-RUN-010");
    // The next request is another, and is asked about again. A denial ends the run.
    world.run(&["run", "--input", &task]).exits(4);
    let open = world.run(&["approvals", "--json"]).json()["approvals"][0].clone();
    let id = open["id"].as_str().expect("an id").to_owned();
    world.run(&["deny", &id, "--reason", "not this one"]).exits(0);
    until("the run is over", || !records(&world, "run_ended").is_empty());
    let ended = records(&world, "run_ended");
    assert_eq!(ended[0]["error"]["code"], "BP-PRIVACY-009");
    assert!(ended[0]["error"]["message"].as_str().is_some_and(|m| m.contains("not this one")));
    assert_eq!(echo.seen().len(), 1);
}

/// The same agent whose own route is far away, where nobody answers, and a local one.
fn far(world: &World, echo: &Echo, privacy: &str, policy: Option<&str>) {
    agent(world, echo, privacy, "");
    let manifest = world
        .read("bedplate.toml")
        .replace("default = [\"local/m\"]\n", "default = [\"far/m\"]\nnear = [\"local/m\"]\n")
        + "[providers.far]\ndialect = \"chat\"\nbase_url = \"http://192.0.2.1:9/v1\"\n";
    world.write("bedplate.toml", &manifest);
    if let Some(policy) = policy {
        world.write("policy.cedar", policy);
    }
}

#[test]
fn what_may_not_go_far_goes_to_the_local_route() {
    let check = |privacy: &str, policy: Option<&str>| {
        let world = World::new();
        let echo = Echo::start(|_, _| says("Here I am."));
        far(&world, &echo, privacy, policy);
        let task = format!("Write to {EMAIL}.");
        let done = world.run(&["run", "--input", &task, "--json"]).exits(0).json();
        assert_eq!(done["output"], "Here I am.");
        assert!(echo.seen()[0].contains(EMAIL), "it may have it");
        let called = records(&world, "model_called");
        assert_eq!(
            (&called[0]["route"], &called[0]["provider"]),
            (&json!("near"), &json!("local"))
        );
        let checked = records(&world, "privacy_checked");
        assert_eq!(checked[0]["provider"], "far", "it says why");
        assert_eq!(checked[1]["provider"], "local");
    };
    check("email = \"local\"\nlocal_route = \"near\"", None);
    // The word of an organisation: no personal data to anyone who is not on this machine.
    let forbid = "forbid(principal, action == Action::\"call_model\", resource)\n\
        when { context.privacy.contains(\"pii\") && !context.local };\n";
    check("local_route = \"near\"", Some(forbid));
    // Without a local route there is nowhere to go.
    let world = World::new();
    let echo = Echo::start(|_, _| says("Never."));
    far(&world, &echo, "email = \"local\"", None);
    let failed = world.run(&["run", "--input", EMAIL, "--json"]).exits(1).json();
    assert_eq!(failed["error"]["code"], "BP-PRIVACY-011");
    far(&world, &echo, "", Some(forbid));
    let failed = world.run(&["run", "--input", EMAIL, "--json"]).exits(1).json();
    assert_eq!(failed["error"]["code"], "BP-POLICY-021");
    // With a pseudonym nothing of it is sent, so nobody forbids it; nobody answers there either.
    far(&world, &echo, "email = \"pseudonym\"", Some(forbid));
    let started = world.start(&["run", "--input", EMAIL]);
    until("it is called", || !records(&world, "model_called").is_empty());
    drop(started);
    assert!(echo.seen().is_empty());
}

#[test]
fn a_vault_that_cannot_be_read_stops_the_call() {
    let world = World::new();
    let echo = Echo::start(|_, _| says("Never."));
    far(&world, &echo, "", None);
    set_secret(&world);
    std::fs::remove_file(world.home().join("vault.key")).expect("removed");
    let failed = world.run(&["run", "--json"]).exits(1).json();
    assert_eq!(failed["error"]["code"], "BP-PRIVACY-012");
    assert!(echo.seen().is_empty());
}

/// A program of somebody else: one question in a piece, the same as a stream, and what it heard.
const GUEST: &str = r#"
import json, os, sys, urllib.request
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
headers = {"content-type": "application/json",
           "authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
def ask(number, stream):
    messages = [{"role": "user", "content": "%d: write to %s, not to %s" % (number, *sys.argv[1:3])}]
    body = {"model": "default", "messages": messages, "stream": stream}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    return urllib.request.urlopen(request)
said = json.load(ask(1, False))["choices"][0]["message"]
print(said["content"])
text, arguments = "", ""
for line in ask(2, True):
    line = line.decode().strip()
    if not line.startswith("data: {"):
        continue
    for choice in json.loads(line[6:])["choices"]:
        delta = choice["delta"]
        text += delta.get("content") or ""
        for call in delta.get("tool_calls") or []:
            arguments += call["function"].get("arguments") or ""
print(text)
print(json.loads(arguments)["command"])
sys.exit(0 if sys.stdin.readline() == "go\n" else 9)
"#;

/// An answer whose text and whose call's arguments come in pieces of one byte.
fn says_and_calls_bytewise(text: &str, command: &str) -> Vec<u8> {
    let delta = |delta: Value| json!({"choices": [{"index": 0, "delta": delta}]});
    let mut events: Vec<Value> =
        text.chars().map(|c| delta(json!({"content": c.to_string()}))).collect();
    let call = json!({"index": 0, "id": "call_1", "type": "function",
        "function": {"name": "shell", "arguments": ""}});
    events.push(delta(json!({"tool_calls": [call]})));
    for c in json!({ "command": command }).to_string().chars() {
        let call = json!({"index": 0, "function": {"arguments": c.to_string()}});
        events.push(delta(json!({"tool_calls": [call]})));
    }
    events.push(json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}));
    stream(&events)
}

#[test]
fn a_guest_is_given_values_and_its_provider_pseudonyms() {
    let world = World::new();
    let echo = Echo::start(|number, body| match number {
        0 => says(&format!("I wrote to {}.", pseudonym(body))),
        _ => says_and_calls_bytewise(
            &format!("Once more to {}!", pseudonym(body)),
            &format!("mail {}", pseudonym(body)),
        ),
    });
    let manifest = format!(
        "schema = 1\n[permissions]\npreset = \"observe\"\n[routes]\ndefault = [\"local/m\"]\n{}\
         [privacy]\ndefault = \"pseudonym\"\nlocal = \"same\"\n",
        echo.provider("local")
    );
    world.write("bedplate.toml", &manifest);
    world.write("guest.py", GUEST);
    let heard = format!("I wrote to {EMAIL}.\nOnce more to {EMAIL}!\nmail {EMAIL}\n");
    let first = world.run(&["wrap", "--", "python3", "guest.py", EMAIL, PHONE]).exits(9);
    assert_eq!(first.stdout, heard, "{}", first.stderr);
    for value in [EMAIL, "lovelace", PHONE, "901820"] {
        upstream_never_saw(&echo, value);
    }
    assert_eq!(pseudonym(&echo.seen()[0]), pseudonym(&echo.seen()[1]));
    let checked = records(&world, "privacy_checked");
    assert_eq!(checked.len(), 2);
    assert_eq!(checked[0]["found"][0]["treatment"], "pseudonym");
    assert!(!Value::from(checked).to_string().contains("lovelace"));
    // Started again it is answered from the log, with the values, and nobody is asked.
    let mut again = world.command(&["resume", "last"]).stdin(Stdio::piped()).spawn().expect("runs");
    again.stdin.take().expect("piped").write_all(b"go\n").expect("read");
    let again = Said::of(again.wait_with_output().expect("it ends")).exits(0);
    assert!(again.stdout.contains(&heard), "{}{}", again.stdout, again.stderr);
    assert_eq!(echo.seen().len(), 2);
    world.run(&["verify", "last"]).exits(0);
}

fn set_secret(world: &World) {
    let mut command = world.command(&["secret", "set", "api"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("piped").write_all(SECRET.as_bytes()).expect("written");
    assert!(child.wait_with_output().expect("it ends").status.success());
}
