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
timeout = "30s"
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
    assert_eq!(manifest.providers["local"].base_url, "http://127.0.0.1:11434/v1");
    assert_eq!(manifest.providers["local"].timeout_ms, Some(30_000));
    assert_eq!((manifest.tools[0].attempts, manifest.tools[0].timeout_ms), (3, 30_000));
    assert_eq!(manifest.checks[0].timeout_ms, TOOL_TIMEOUT_MS_DEFAULT);
}

#[test]
fn a_guest_and_its_mounts_read_strictly() {
    let read = |text: &str| parse(&format!("schema = 1\n{text}"));
    let manifest = read(
        "[agent]\ncommand = [\"codex\", \"exec\"]\n[sandbox]\nmounts = { \"/mnt/a/b\" = \"../x\" }",
    );
    let manifest = manifest.expect("valid");
    assert!(manifest.is_guest());
    assert_eq!(manifest.sandbox.mounts["/mnt/a/b"], "../x");
    assert!(!read("").expect("valid").is_guest());
    let check = |text: &str, key: &str| {
        let error = read(text).expect_err(text);
        assert_eq!(error.code(), "BP-CONFIG-002", "{text}");
        assert!(error.to_string().starts_with(key), "{error}");
    };
    check("[agent]\ncommand = []", "agent.command");
    check("[agent]\ncommand = [\"\"]", "agent.command");
    check("[agent]\ncommand = [\"a\", \"b\\u0000\"]", "agent.command");
    for inside in ["/etc/x", "/mnt", "/mnt/", "/mnt//a", "/mnt/../etc", "/mnt/a/", "mnt/a"] {
        check(&format!("[sandbox]\nmounts = {{ \"{inside}\" = \"/x\" }}"), "sandbox.mounts");
    }
    check("[sandbox]\nmounts = { \"/mnt/a\" = \"\" }", "sandbox.mounts");
    let many = |count: usize| {
        let list: Vec<String> = (0..count).map(|n| format!("\"/mnt/{n}\" = \"/x\"")).collect();
        format!("[sandbox]\nmounts = {{ {} }}", list.join(", "))
    };
    assert!(read(&many(MOUNTS_MAX)).is_ok());
    check(&many(MOUNTS_MAX + 1), "sandbox.mounts");
}

#[test]
fn manifest_survives_json() {
    let manifest = parse(WHOLE).expect("valid");
    let json = serde_json::to_string(&manifest).expect("serialises");
    assert_eq!(serde_json::from_str::<Manifest>(&json).expect("reads back"), manifest);
}

#[test]
fn where_inputs_say_how_old_they_are_is_read_and_survives_json() {
    let text = "schema = 1\n[network.as_of]\n\"a.test/v1/*\" = \"/updated_at\"\n\
        \"b.test\" = \"header:Last-Modified\"\n\
        [[tool]]\nname = \"t\"\ncommand = [\"x\"]\nas_of = \"/at\"\n";
    let manifest = parse(text).expect("valid");
    assert_eq!(manifest.network.as_of["a.test/v1/*"], AsOfField::Json("/updated_at".to_owned()));
    let header = AsOfField::Header("last-modified".to_owned());
    assert_eq!(manifest.network.as_of["b.test"], header);
    assert_eq!(manifest.tools[0].as_of, Some(AsOfField::Json("/at".to_owned())));
    let json = serde_json::to_string(&manifest).expect("serialises");
    assert_eq!(serde_json::from_str::<Manifest>(&json).expect("reads back"), manifest);
}

#[test]
fn guards_are_read_and_survive_json() {
    let text = "schema = 1\n[permissions]\nguard = [\"trifecta\", \"stale:900\"]\n";
    let manifest = parse(text).expect("valid");
    let guard = manifest.permissions.as_ref().map(|permissions| permissions.guard.clone());
    assert_eq!(guard, Some(vec![Guard::Trifecta, Guard::Stale { seconds: 900 }]));
    let json = serde_json::to_string(&manifest).expect("serialises");
    assert_eq!(serde_json::from_str::<Manifest>(&json).expect("reads back"), manifest);
    let plain = parse(WHOLE).expect("valid");
    assert!(!serde_json::to_string(&plain).expect("serialises").contains("guard"));
}

fn refused(text: &str, code: &str, part: &str) {
    let error = parse(text).expect_err(text);
    assert_eq!(error.code(), code, "{text}: {error}");
    assert!(error.to_string().contains(part), "{text}: {error}");
}

#[test]
fn a_manifest_that_is_no_toml_or_has_unknown_keys_says_where() {
    for (body, part) in [
        ("[agent\n", "line 2"),
        ("[permisions]\n", "did you mean 'permissions'?"),
        ("[agent]\nnmae = \"x\"\n", "did you mean 'name'?"),
        ("[permissions]\npreset = \"obsreve\"\n", "'observe'"),
    ] {
        refused(&format!("schema = 1\n{body}"), "BP-CONFIG-001", part);
    }
}

#[test]
fn values_that_cannot_be_used_name_their_key() {
    for (body, part) in [
        ("[budget]\nusd = -1.0\n", "budget.usd"),
        ("[budget]\nactions = -1\n", "budget.actions"),
        ("[budget]\nwall = \"soon\"\n", "'soon' is no duration"),
        ("[sandbox]\ndriver = \"vm\"\n", "not built yet"),
        ("[routes]\ndefault = [\"gpt\"]\n", "PROVIDER/MODEL"),
        ("[permissions]\nguard = [\"trifcta\"]\n", "did you mean 'trifecta'?"),
        ("[permissions]\nguard = [\"zzz\"]\n", "known: trifecta, stale:SECONDS"),
        ("[permissions]\nguard = [\"trifecta:1\"]\n", "'trifecta' alone"),
        ("[permissions]\nguard = [\"stale\"]\n", "'stale:900'"),
        ("[permissions]\nguard = [\"stale:0\"]\n", "'stale:900'"),
        ("[permissions]\nguard = [\"stale:+9\"]\n", "'stale:900'"),
        ("[permissions]\nguard = [\"stale:4294967296\"]\n", "from 1 to 4294967295"),
        ("[permissions]\nguard = [\"stale:1\", \"stale:2\"]\n", "'stale' is there twice"),
        ("[network.as_of]\n\"a.test\" = \"updated_at\"\n", "\"/updated_at\""),
        ("[network.as_of]\n\"A.test\" = \"/t\"\n", "HOST/PATH*"),
        ("[network.as_of]\n\"*.test\" = \"/t\"\n", "HOST/PATH*"),
        ("[network.as_of]\n\"a.test/*/x\" = \"/t\"\n", "HOST/PATH*"),
        ("[[tool]]\nname = \"t\"\ncommand = [\"x\"]\nas_of = \"header:Date\"\n", "no headers"),
        ("[routes]\nfast = [\"a/b\"]\n", "no route 'default'"),
        ("[[tool]]\nname = \"shell\"\ncommand = [\"x\"]\n", "built-in"),
        ("[[tool]]\nname = \"t\"\ncommand = []\n", "empty"),
        (
            "[[check]]\nname = \"a\"\ncommand = \"x\"\n[[check]]\nname = \"a\"\ncommand = \"y\"\n",
            "twice",
        ),
        (
            "[[tool]]\nname = \"t\"\ncommand = [\"x\"]\nretries = { attempts = 2 }\n",
            "never tried again blindly",
        ),
    ] {
        refused(&format!("schema = 1\n{body}"), "BP-CONFIG-002", part);
    }
    refused("[agent]\nname = \"x\"\n", "BP-CONFIG-002", "schema");
    refused("schema = 2\n", "BP-CONFIG-003", "schema = 2");
}

#[test]
fn a_manifest_has_a_limit_at_its_edge() {
    let of_bytes = |bytes: usize| {
        let head = "schema = 1\n#";
        format!("{head}{}", "x".repeat(bytes - head.len()))
    };
    assert!(parse(&of_bytes(MANIFEST_BYTES_MAX)).is_ok());
    refused(&of_bytes(MANIFEST_BYTES_MAX + 1), "BP-CONFIG-004", "limit");
}

#[test]
fn an_overlay_changes_only_what_it_names() {
    let over = "[agent]\nmodel = \"live\"\n[routes]\nlive = [\"openai/gpt-5.4\"]\n";
    let manifest = parse_with_overlay(WHOLE, Some(over)).expect("valid");
    assert_eq!(manifest.agent.model, "live");
    assert_eq!(manifest.agent.name, "triage");
    assert!(parse_with_overlay(WHOLE, Some("[agnet]\n")).is_err());
}
