//! `policy test` files, the table and the difference between two sets.

use crate::support::{compile, described, list, sources};
use policy::{Sources, diff, parse_cases, run_tests};
use types::Verdict;
use types::manifest::{Permissions, Preset};

fn example() -> Sources {
    sources(Some(Permissions {
        preset: Some(Preset::Act),
        allow: list(&["GET api.example.test/v1/*"]),
        deny: list(&["api.example.test/v1/admin/*"]),
        ..Permissions::default()
    }))
}

#[test]
fn cases_are_run_and_say_what_decided() {
    let text = r#"
        [[case]]
        name = "lists issues"
        action = "http_request"
        resource = "api.example.test"
        context = { method = "GET", path = "/v1/issues" }
        expect = "permit"
        policy = "permissions.allow[0]: GET api.example.test/v1/*"

        [[case]]
        name = "no admin, even approved"
        action = "http_request"
        resource = "api.example.test"
        method = "GET"
        path = "/v1/admin/users"
        approved = true
        expect = "deny"

        [[case]]
        name = "reads are bounded"
        action = "call_tool"
        resource = "lookup"
        labels = ["untrusted"]
        expect = "permit"

        [[case]]
        name = "a wrong verdict"
        action = "call_tool"
        resource = "open_ticket"
        expect = "permit"

        [[case]]
        name = "a wrong policy"
        action = "run_command"
        resource = "shell"
        command = "ls"
        expect = "permit"
        policy = "preset.draft.tools"

        [[case]]
        name = "a user"
        action = "read_file"
        resource = "/workspace/a"
        user = "ada"
        expect = "permit"
    "#;
    let cases = parse_cases("policy.test.toml", text).expect("good cases");
    let results = run_tests(&compile(&example()), &cases);
    let passed: Vec<(&str, bool, Verdict)> =
        results.iter().map(|r| (r.name.as_str(), r.passed, r.got)).collect();
    assert_eq!(
        passed,
        [
            ("lists issues", true, Verdict::Permit),
            ("no admin, even approved", true, Verdict::Deny),
            ("reads are bounded", true, Verdict::Permit),
            ("a wrong verdict", false, Verdict::Ask),
            ("a wrong policy", false, Verdict::Permit),
            ("a user", true, Verdict::Permit),
        ]
    );
    assert_eq!(results[1].policies, ["permissions.deny[0]: api.example.test/v1/admin/*"]);
    assert_eq!(results[4].policies, ["preset.observe.workspace: shell"]);
}

#[test]
fn cases_are_read_strictly() {
    let case =
        |more: &str| format!("[[case]]\nname = \"n\"\nresource = \"x\"\nexpect = \"deny\"\n{more}");
    for (text, says) in [
        (String::new(), "it has no [[case]]"),
        ("[[cases]]\n".to_owned(), "unknown field `cases`"),
        (case(""), "case 1 (n): missing field `action`"),
        (case("action = \"fly\""), "case 1 (n): `fly` is no action: call_model, call_tool"),
        (case("action = \"run_command\"\nmethod = \"GET\""), "run_command has no `method`"),
        (case("action = \"run_command\"\ncommnd = \"GET\""), "unknown field `commnd`"),
        (case("action = \"http_request\""), "it needs `method`"),
        (case("action = \"use_secret\""), "it needs `host`"),
        (case("action = \"mount\"\npath = \"/y\""), "the same thing"),
        (case("action = \"connect\"\nport = 70000"), "case 1 (n): "),
        (case("action = \"connect\"\nport = 1\ncontext = { port = 2 }"), "`port` is there twice"),
        (case("action = \"connect\"\ncontext = 1"), "`context` is a table"),
        ("[[case]\n".to_owned(), "line 1"),
    ] {
        let error = described(&parse_cases("t.toml", &text).expect_err(&text));
        assert!(
            error.starts_with("BP-POLICY-014 t.toml: ") && error.contains(says),
            "{text}\n{error}"
        );
    }
    let many = case("action = \"connect\"\n").repeat(policy::CASES_MAX + 1);
    assert!(
        described(&parse_cases("t.toml", &many).expect_err("too many"))
            .starts_with("BP-POLICY-005")
    );
}

#[test]
fn differences_are_wider_or_narrower() {
    let of = |preset, allow: &[&str], ask: &[&str], deny: &[&str]| {
        compile(&sources(Some(Permissions {
            preset,
            allow: list(allow),
            ask: list(ask),
            deny: list(deny),
            ..Permissions::default()
        })))
    };
    let base = of(None, &["shell"], &[], &[]);
    assert_eq!(diff(&base, &base), Vec::<String>::new());
    for (new, expected) in [
        (of(None, &["shell", "python"], &[], &[]), vec!["wider: now permits run_command python"]),
        (of(None, &[], &[], &[]), vec!["narrower: no longer permits run_command shell"]),
        (of(None, &["shell"], &[], &["python"]), vec!["narrower: now forbids run_command python"]),
        (
            of(None, &[], &["shell"], &[]),
            vec![
                "narrower: now forbids unless approved run_command shell",
                "narrower: permits once approved run_command shell (was permitted)",
            ],
        ),
        (
            of(None, &["shell", "POST a.test/x"], &[], &[]),
            vec![
                "wider: now permits http_request a.test when context.method == \"POST\" && context.path == \"/x\"",
            ],
        ),
    ] {
        assert_eq!(diff(&base, &new), expected);
        let back = diff(&new, &base);
        assert_eq!(back.len(), expected.len());
        for (there, back) in expected.iter().zip(&back) {
            assert_eq!(
                there.starts_with("wider"),
                back.starts_with("narrower"),
                "{there} / {back}"
            );
        }
    }
}

#[test]
fn a_case_may_say_what_the_boundary_read() {
    let of = sources(Some(Permissions {
        allow: list(&["git push git.test/o/r refs/heads/agent/*"]),
        ..Permissions::default()
    }));
    let case = |facts: &str, expect: &str| {
        format!(
            "[[case]]\nname = \"a push\"\naction = \"http_request\"\nresource = \"git.test\"\nmethod = \"POST\"\npath = \"/o/r/git-receive-pack\"\nexpect = \"{expect}\"\n{facts}\n"
        )
    };
    let git = |name: &str| {
        format!(
            "facts = {{ operation = \"git push\", git = {{ repository = \"o/r\", service = \"git-receive-pack\", complete = true, updates = [{{ name = \"{name}\", change = \"create\" }}] }} }}"
        )
    };
    let text = case(&git("refs/heads/agent/x"), "permit")
        + &case(&git("refs/heads/main"), "deny")
        + &case("", "deny");
    let cases = parse_cases("policy_test.toml", &text).expect("good cases");
    for result in run_tests(&compile(&of), &cases) {
        assert!(result.passed, "{result:?}");
    }
    let wrong = case("facts = { operatoin = 1 }", "deny");
    let error = parse_cases("policy_test.toml", &wrong).expect_err("an unknown fact");
    assert!(described(&error).starts_with("BP-POLICY-014"), "{error}");
}
