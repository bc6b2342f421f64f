//! Every preset against every action, and what entries add to it.

use crate::support::{compile, list, request, sources, verdict};
use policy::{Because, DecisionInput, Principal};
use types::manifest::{Permissions, Preset};
use types::{ActionRequest, Verdict};

#[test]
fn every_preset_and_action() {
    let preset = |preset| Some(Permissions { preset, ..Permissions::default() });
    let sets = [
        compile(&sources(None)),
        compile(&sources(preset(None))),
        compile(&sources(preset(Some(Preset::Observe)))),
        compile(&sources(preset(Some(Preset::Draft)))),
        compile(&sources(preset(Some(Preset::Act)))),
    ];
    // Columns: nothing said, empty permissions, observe, draft, act. `+` permit, `?` ask, `-` deny.
    for (text, expected) in [
        ("model default", "+++++"),
        ("model other", "---??"),
        ("run shell", "--+++"),
        ("run python", "--+++"),
        ("run check", "--+++"),
        ("run lookup", "-----"),
        ("tool wait", "--+++"),
        ("tool lookup", "---?+"),
        ("tool put_page", "---?+"),
        ("tool open_ticket", "---??"),
        ("tool shell", "---??"),
        ("read /workspace", "--+++"),
        ("read /workspace/a/b.md", "--+++"),
        ("write /workspace/a/b.md", "--+++"),
        ("read /workspace2/a", "-----"),
        ("read /etc/passwd", "-----"),
        ("write /", "-----"),
        ("mount /workspace", "-----"),
        ("GET api.example.test/v1/x", "---??"),
        ("POST api.example.test/v1/x", "---??"),
        ("connect api.example.test", "---??"),
        ("secret api@api.example.test", "---??"),
    ] {
        let got: String = sets
            .iter()
            .map(|set| match verdict(set, text) {
                Verdict::Permit => '+',
                Verdict::Ask => '?',
                Verdict::Deny => '-',
            })
            .collect();
        assert_eq!(got, expected, "{text}");
    }
}

#[test]
fn entries_open_ask_and_close() {
    use Verdict::{Ask, Deny, Permit};
    let set = compile(&sources(Some(Permissions {
        preset: Some(Preset::Observe),
        allow: list(&[
            "GET api.example.test/v1/*",
            "docs.example.test",
            "*.cdn.example.test",
            "POST build:8080/jobs",
            "open_ticket",
            "CONNECT git.example.test:22",
            "CONNECT api.example.test:443",
            "put_page",
            "secret:api@api.example.test",
        ]),
        ask: list(&["POST api.example.test/v1/issues", "put_page", "docs.example.test/private/*"]),
        deny: list(&["api.example.test/v1/admin/*", "secret:root", "lookup"]),
        ..Permissions::default()
    })));
    for (text, expected) in [
        ("GET api.example.test/v1/items", Permit),
        ("HEAD api.example.test/v1/items", Deny),
        ("GET api.example.test/v2/items", Deny),
        ("POST api.example.test/v1/issues", Ask),
        ("POST api.example.test/v1/issues/7", Deny),
        ("GET api.example.test/v1/admin/users", Deny),
        ("GET api.example.test/v1/admin", Deny),
        ("connect api.example.test", Deny),
        ("GET docs.example.test/", Permit),
        ("HEAD docs.example.test/x/y", Permit),
        ("POST docs.example.test/x", Deny),
        ("GET docs.example.test/private/a", Ask),
        ("GET docs.example.test/private", Ask),
        ("GET a.cdn.example.test/x", Permit),
        ("GET a.b.cdn.example.test/x", Permit),
        ("GET cdn.example.test/x", Deny),
        ("GET evilcdn.example.test/x", Deny),
        ("POST build:8080/jobs", Permit),
        ("POST build:8081/jobs", Deny),
        ("tool open_ticket", Permit),
        ("tool put_page", Ask),
        ("tool lookup", Deny),
        ("secret api@api.example.test", Permit),
        ("secret api@evil.test", Deny),
        ("secret root@api.example.test", Deny),
    ] {
        assert_eq!(verdict(&set, text), expected, "{text}");
    }
    let connect = ActionRequest::Connect { host: "git.example.test".into(), port: 22 };
    let input = DecisionInput::new(Principal::agent("triage", ""), connect);
    assert_eq!(set.decide(&input).verdict, Permit);
}

#[test]
fn decisions_name_their_policies() {
    let set = compile(&sources(Some(Permissions {
        allow: list(&["shell"]),
        ask: list(&["open_ticket"]),
        deny: list(&["python"]),
        ..Permissions::default()
    })));
    for (text, because, policies) in [
        ("run shell", Because::Permitted, vec!["permissions.allow[0]: shell"]),
        (
            "tool open_ticket",
            Because::Asked,
            vec!["permissions.ask[0]: open_ticket", "permissions.ask[0]: open_ticket (unapproved)"],
        ),
        ("run python", Because::Forbidden, vec!["permissions.deny[0]: python"]),
        ("tool lookup", Because::NoRule, vec![]),
    ] {
        let input = DecisionInput::new(Principal::agent("triage", ""), request(text));
        let decision = set.decide(&input);
        assert_eq!((decision.because, &decision.policies), (because, &list(&policies)), "{text}");
    }
}
