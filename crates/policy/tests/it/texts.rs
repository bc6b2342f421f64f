//! Policy texts that cannot be used, with their places; organisation policies; ids; limits.

use crate::support::{cedar, cedar_sources, compile, list, request, sources, verdict, wrong};
use policy::{
    DecisionInput, ENTRIES_MAX, NESTING_MAX, OPERATORS_MAX, ORGANISATION_FILES_MAX,
    POLICY_BYTES_MAX, PolicySet, Principal, TOOLS_MAX, ToolDecl, ToolKind,
};
use types::manifest::Permissions;
use types::{EffectClass, Verdict};

/// What `policy.cedar` with this text is refused for.
fn refused(text: &str) -> Vec<String> {
    wrong(&cedar_sources(text))
}

#[test]
fn syntax_errors_have_places() {
    let errors = refused(
        "permit(principal, action, resource);\npermit(principal, action, resource) wen { true };\n",
    );
    assert_eq!(
        errors,
        [
            "BP-POLICY-001 policy.cedar:2:37: invalid policy condition: wen\n   2 | permit(principal, action, resource) wen { true };\n     |                                     ^"
        ]
    );
}

#[test]
fn every_kind_of_bad_text_is_coded_and_placed() {
    for (text, starts, says) in [
        ("permit(principal, action, resource)", "BP-POLICY-001 policy.cedar:1:36", "end of input"),
        (
            "permit(principal, action == Action::\"fly\", resource);",
            "BP-POLICY-002 policy.cedar:1:",
            "fly",
        ),
        (
            "permit(principal, action == Action::\"http_request\", resource)\n  when { context.methd == \"GET\" };",
            "BP-POLICY-002 policy.cedar:2:10",
            "methd",
        ),
        (
            "permit(principal, action == Action::\"http_request\", resource)\n  when { context.port == \"443\" };",
            "BP-POLICY-002 policy.cedar:2:",
            "Long",
        ),
        (
            "permit(principal == Agnt::\"x\", action, resource);",
            "BP-POLICY-002 policy.cedar:1:",
            "Agnt",
        ),
        (
            "permit(principal, action == Action::\"connect\", resource == Host::\"a\") when { resource.name like \"x\" };",
            "BP-POLICY-002 policy.cedar:1:",
            "name",
        ),
        (
            "permit(principal == ?principal, action, resource);",
            "BP-POLICY-010 policy.cedar",
            "templates",
        ),
        (
            "@id(\"permissions.allow[0]\")\npermit(principal, action, resource);",
            "BP-POLICY-009 policy.cedar:1:1",
            "reserved",
        ),
        (
            "@id(\"a\") forbid(principal, action, resource);\n@id(\"a\") permit(principal, action, resource);",
            "BP-POLICY-009 policy.cedar:2:1",
            "used twice",
        ),
        (
            "@id(\"\") forbid(principal, action, resource);",
            "BP-POLICY-009 policy.cedar:1:1",
            "empty",
        ),
    ] {
        let errors = refused(text);
        assert!(errors[0].starts_with(starts) && errors[0].contains(says), "{text}\n{errors:?}");
    }
}

#[test]
fn ids_are_annotations_or_places_in_the_file() {
    let set = cedar(
        "// first\nforbid(principal, action == Action::\"mount\", resource);\n\n@id(\"no connect\")\nforbid(principal, action == Action::\"connect\", resource);",
    );
    let rows: Vec<(String, String)> =
        set.table().into_iter().map(|row| (row.policy, row.source)).collect();
    assert_eq!(rows[1], ("policy.cedar[0]".into(), "policy.cedar:2".into()));
    assert_eq!(rows[2], ("no connect".into(), "policy.cedar:4".into()));
}

#[test]
fn equal_policies_have_their_own_lines() {
    let line = "forbid(principal, action == Action::\"mount\", resource);\n";
    let set = cedar(&line.repeat(12));
    let sources: Vec<String> = set.table()[1..13].iter().map(|row| row.source.clone()).collect();
    let expected: Vec<String> = (1..=12).map(|n| format!("policy.cedar:{n}")).collect();
    assert_eq!(sources, expected);
}

#[test]
fn organisation_policies_only_forbid() {
    let organisation = |text: &str| policy::Sources {
        organisation: vec![("org.cedar".into(), text.into())],
        ..sources(Some(Permissions { allow: list(&["shell", "python"]), ..Permissions::default() }))
    };
    let errors = wrong(&organisation("\n@id(\"x\")\npermit(principal, action, resource);"));
    assert!(
        errors[0].starts_with("BP-POLICY-006 org.cedar:2:1: organisation policies may only forbid"),
        "{errors:?}"
    );
    let set = compile(&organisation("forbid(principal, action, resource == Tool::\"python\");"));
    assert_eq!(verdict(&set, "run shell"), Verdict::Permit);
    assert_eq!(verdict(&set, "run python"), Verdict::Deny);
}

#[test]
fn unknown_tools_are_named_with_the_nearest() {
    let of = |allow: &[&str]| {
        sources(Some(Permissions { allow: list(allow), ..Permissions::default() }))
    };
    assert_eq!(
        wrong(&of(&["shell", "open_tickt"])),
        [
            "BP-POLICY-003 permissions.allow[1]: \"open_tickt\" names no tool of this agent; did you mean \"open_ticket\"?"
        ]
    );
    assert_eq!(
        wrong(&of(&["get a.test"])),
        [
            "BP-POLICY-004 permissions.allow[0]: \"get a.test\" is no permissions entry: a method is upper case, as in `GET a.test`"
        ]
    );
    let mut added = of(&[]);
    added.extra_allow = list(&["nothing_like_it"]);
    assert_eq!(
        wrong(&added),
        ["BP-POLICY-003 run.allow[0]: \"nothing_like_it\" names no tool of this agent"]
    );
}

#[test]
fn entries_added_for_one_run_permit() {
    let mut of = sources(None);
    of.extra_allow = list(&["open_ticket"]);
    let set = compile(&of);
    assert_eq!(verdict(&set, "tool open_ticket"), Verdict::Permit);
    assert_eq!(set.table()[1].policy, "run.allow[0]: open_ticket");
}

#[test]
fn a_text_at_its_limit_is_read_and_over_it_refused() {
    let policy = "forbid(principal, action, resource);\n";
    let fill = |bytes: usize| format!("{policy}//{}", "x".repeat(bytes - policy.len() - 2));
    assert!(PolicySet::compile(&cedar_sources(&fill(POLICY_BYTES_MAX))).is_ok());
    assert_eq!(
        refused(&fill(POLICY_BYTES_MAX + 1)),
        ["BP-POLICY-005 policy.cedar, in bytes is 1048577, the limit is 1048576"]
    );
}

#[test]
fn deep_policies_are_refused_and_the_deepest_allowed_is_evaluated() {
    let nested = |depth: usize| {
        let (open, close) = ("(".repeat(depth - 1), ")".repeat(depth - 1));
        format!(
            "permit(principal, action == Action::\"run_command\", resource) when {{ {open}true{close} }};"
        )
    };
    let set = cedar(&nested(NESTING_MAX));
    assert_eq!(verdict(&set, "run shell"), Verdict::Permit);
    assert!(refused(&nested(NESTING_MAX + 1))[0].starts_with("BP-POLICY-005"));
    for hostile in [
        nested(100_000),
        format!("permit(principal, action, resource) when {{ {}true }};", "!".repeat(100_000)),
        format!(
            "permit(principal, action, resource) when {{ true{} }};",
            " && true".repeat(100_000)
        ),
        format!(
            "permit(principal, action, resource) when {{ {} true {} }};",
            "if true then".repeat(50_000),
            "else true".repeat(50_000)
        ),
        format!("permit(principal, action, resource) {};", "when { true }".repeat(60_000)),
    ] {
        assert!(refused(&hostile)[0].starts_with("BP-POLICY-005"), "{}", &hostile[..80]);
    }
}

#[test]
fn the_longest_chain_allowed_is_evaluated() {
    let chain = |links: usize| {
        format!(
            "permit(principal, action == Action::\"run_command\", resource) when {{ true{} }};",
            " && true".repeat(links)
        )
    };
    let longest = OPERATORS_MAX / 2 - 1;
    let set = cedar(&chain(longest));
    assert_eq!(verdict(&set, "run shell"), Verdict::Permit);
    assert!(refused(&chain(longest + 1))[0].starts_with("BP-POLICY-005"));
}

#[test]
fn lists_have_limits() {
    let mut of = sources(None);
    of.organisation = vec![("o".into(), String::new()); ORGANISATION_FILES_MAX + 1];
    let tool = |n: usize| ToolDecl::new(&format!("t{n}"), ToolKind::Command, EffectClass::Read);
    of.tools = (0..=TOOLS_MAX).map(tool).collect();
    let errors = wrong(&of);
    assert_eq!(errors.len(), 2);
    assert!(errors.iter().all(|error| error.starts_with("BP-POLICY-005")), "{errors:?}");
    let allow = vec!["shell".to_owned(); ENTRIES_MAX + 1];
    let errors = wrong(&sources(Some(Permissions { allow, ..Permissions::default() })));
    assert_eq!(errors, ["BP-POLICY-005 permissions.allow, in entries is 1001, the limit is 1000"]);
}

#[test]
fn obligations_are_the_annotations_of_what_decided() {
    let set = cedar(
        "@id(\"a\") @redact(\"pii\") @reason(\"ticket 7\")
         permit(principal, action == Action::\"run_command\", resource == Tool::\"shell\");
         @id(\"b\") @redact(\"secret\") @rate(\"1/s\")
         permit(principal, action == Action::\"run_command\", resource);
         @id(\"c\") @redact(\"never\")
         permit(principal, action == Action::\"run_command\", resource == Tool::\"python\");",
    );
    let input = DecisionInput::new(Principal::agent("triage", ""), request("run shell"));
    let decision = set.decide(&input);
    assert_eq!(decision.policies, ["a", "b"]);
    let got: Vec<(&str, &str)> =
        decision.obligations.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(got, [("rate", "1/s"), ("redact", "pii, secret")]);
    assert_eq!(decision.reason, "permitted by a, b (ticket 7)");
}

#[test]
fn an_evaluation_error_denies_and_is_coded() {
    let set = cedar(
        "permit(principal, action == Action::\"run_command\", resource);
         @id(\"overflows\")
         forbid(principal, action == Action::\"run_command\", resource)
           when { context.oldest_input_age + 9223372036854775807 < 0 };",
    );
    let mut input = DecisionInput::new(Principal::agent("triage", ""), request("run shell"));
    assert_eq!(set.decide(&input).verdict, Verdict::Permit);
    input.carried.oldest_input_age = 1;
    let decision = set.decide(&input);
    assert_eq!(
        (decision.verdict, decision.policies.as_slice()),
        (Verdict::Deny, ["overflows".to_owned()].as_slice())
    );
    assert_eq!(decision.errors[0].code, "BP-POLICY-011");
    assert_eq!(decision.failure().map(|f| f.code), Some("BP-POLICY-011".to_owned()));
}

#[test]
fn a_source_read_again_gives_the_same_set() {
    let mut of = cedar_sources(
        "@id(\"mine\")\nforbid(principal, action, resource == Host::\"x\");\npermit(principal, action == Action::\"mount\", resource); // note\n",
    );
    of.permissions = Some(Permissions {
        preset: Some(types::manifest::Preset::Act),
        allow: list(&["GET a.test/x*"]),
        ..Permissions::default()
    });
    let set = compile(&of);
    let again = PolicySet::from_cedar_source(&set.cedar_source(), &of.principal, &of.tools)
        .expect("its own source");
    assert_eq!(again.digest(), set.digest());
    assert_eq!(again.cedar_source(), set.cedar_source());
    for text in
        ["GET a.test/xy", "GET x/", "mount /a", "run shell", "tool open_ticket", "tool put_page"]
    {
        let input = DecisionInput::new(of.principal.clone(), request(text));
        let bytes = input.canonical_bytes();
        let read: DecisionInput =
            serde_json::from_slice(&bytes).expect("canonical bytes read back");
        assert_eq!(again.decide(&read), set.decide(&input), "{text}");
    }
}

#[test]
fn two_tools_of_one_name_are_refused() {
    let mut of = sources(None);
    of.tools.push(ToolDecl::new("shell", ToolKind::Command, EffectClass::Read));
    assert_eq!(
        wrong(&of),
        [
            "BP-POLICY-015 the agent has two tools named \"shell\", so a rule for one would be a rule for both"
        ]
    );
}

#[test]
fn every_code_has_a_page() {
    let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
    for number in (1..=15).chain([20, 21]) {
        let code = format!("BP-POLICY-{number:03}");
        let page = std::fs::read_to_string(format!("{pages}/{code}.md")).expect(&code);
        assert!(page.starts_with(&format!("# {code}: ")), "{code}");
        for part in ["## Meaning", "## Cause", "## What to do"] {
            assert!(page.contains(part), "{code} {part}");
        }
    }
}
