use super::*;

const WHOLE: &str = r#"
schema = 1
[agent]
name = "triage"
instructions = "Be careful."
[routes]
default = ["openai/gpt-5.4", "script/turns.toml"]
[providers.local]
dialect = "chat"
base_url = "http://127.0.0.1:11434/v1/"
key_env = "LOCAL_KEY"
[permissions]
preset = "observe"
allow = ["shell"]
[budget]
usd = 2.0
tokens = 500_000
wall = "30m"
actions = 20
[sandbox]
workspace = "data"
limits = { memory = "1GiB", cpus = 1.5, processes = 64, disk = "512MiB" }
[network]
resolve = { "api.example.test" = "127.0.0.1:8443" }
[secrets]
API_TOKEN = "api"
[[tool]]
name = "open_ticket"
description = "Opens a ticket."
command = ["./tools/open_ticket"]
effect = "idempotent"
timeout = "30s"
retries = { attempts = 3, backoff = "1s" }
[[check]]
name = "tests pass"
command = "true"
[artifacts]
paths = ["report.md"]
"#;

#[test]
fn a_whole_manifest_reads() {
    let manifest = parse(WHOLE).expect("valid");
    assert_eq!(manifest.budget.usd.map(|u| u.micros), Some(2_000_000));
    assert_eq!(manifest.budget.wall_ms, Some(1_800_000));
    assert_eq!(manifest.sandbox.limits.memory_bytes, 1 << 30);
    assert_eq!(manifest.sandbox.limits.cpu_centis, 150);
    assert_eq!(manifest.routes["default"][1].provider, "script");
    assert_eq!(manifest.routes["default"][1].model, "turns.toml");
    assert_eq!(
        manifest.providers["local"].base_url,
        "http://127.0.0.1:11434/v1"
    );
    assert_eq!(
        (manifest.tools[0].attempts, manifest.tools[0].timeout_ms),
        (3, 30_000)
    );
    assert_eq!(manifest.checks[0].timeout_ms, TOOL_TIMEOUT_MS_DEFAULT);
}

#[test]
fn manifest_survives_json() {
    let manifest = parse(WHOLE).expect("valid");
    let json = serde_json::to_string(&manifest).expect("serialises");
    assert_eq!(
        serde_json::from_str::<Manifest>(&json).expect("reads back"),
        manifest
    );
}

/// Broken manifests: the code and a part of the message.
#[test]
fn bad_manifests_are_named() {
    let check = |text: &str, code: &str, part: &str| {
        let error = parse(text).expect_err(text);
        assert_eq!(error.code(), code, "{text}: {error}");
        assert!(error.to_string().contains(part), "{text}: {error}");
    };
    check("schema = 1\n[agent\n", "BP-CONFIG-001", "line 2");
    check(
        "schema = 1\n[permisions]\n",
        "BP-CONFIG-001",
        "did you mean 'permissions'?",
    );
    check(
        "schema = 1\n[agent]\nnmae = \"x\"\n",
        "BP-CONFIG-001",
        "did you mean 'name'?",
    );
    check(
        "schema = 1\n[permissions]\npreset = \"obsreve\"\n",
        "BP-CONFIG-001",
        "'observe'",
    );
    check("[agent]\nname = \"x\"\n", "BP-CONFIG-002", "schema");
    check("schema = 2\n", "BP-CONFIG-003", "schema = 2");
    check(
        "schema = 1\n[budget]\nusd = -1.0\n",
        "BP-CONFIG-002",
        "budget.usd",
    );
    check(
        "schema = 1\n[budget]\nactions = -1\n",
        "BP-CONFIG-002",
        "budget.actions",
    );
    check(
        "schema = 1\n[budget]\nwall = \"soon\"\n",
        "BP-CONFIG-002",
        "'soon' is no duration",
    );
    check(
        "schema = 1\n[sandbox]\ndriver = \"vm\"\n",
        "BP-CONFIG-002",
        "not built yet",
    );
    check(
        "schema = 1\n[routes]\ndefault = [\"gpt\"]\n",
        "BP-CONFIG-002",
        "PROVIDER/MODEL",
    );
    check(
        "schema = 1\n[routes]\nfast = [\"a/b\"]\n",
        "BP-CONFIG-002",
        "no route 'default'",
    );
    check(
        "schema = 1\n[[tool]]\nname = \"shell\"\ncommand = [\"x\"]\n",
        "BP-CONFIG-002",
        "built-in",
    );
    check(
        "schema = 1\n[[tool]]\nname = \"t\"\ncommand = []\n",
        "BP-CONFIG-002",
        "empty",
    );
    let twice = "schema = 1\n[[check]]\nname = \"a\"\ncommand = \"x\"\n".to_owned()
        + "[[check]]\nname = \"a\"\ncommand = \"y\"\n";
    check(&twice, "BP-CONFIG-002", "twice");
    let blind =
        "schema = 1\n[[tool]]\nname = \"t\"\ncommand = [\"x\"]\nretries = { attempts = 2 }\n";
    check(blind, "BP-CONFIG-002", "never tried again blindly");
    check(
        &format!("schema = 1\n#{}", "x".repeat(MANIFEST_BYTES_MAX)),
        "BP-CONFIG-004",
        "limit",
    );
}

#[test]
fn an_overlay_changes_only_what_it_names() {
    let over = "[agent]\nmodel = \"live\"\n[routes]\nlive = [\"openai/gpt-5.4\"]\n";
    let manifest = parse_with_overlay(WHOLE, Some(over)).expect("valid");
    assert_eq!(manifest.agent.model, "live");
    assert_eq!(manifest.agent.name, "triage");
    assert!(parse_with_overlay(WHOLE, Some("[agnet]\n")).is_err());
}
