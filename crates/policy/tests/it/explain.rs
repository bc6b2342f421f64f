//! Denials explained, and the narrowest rules for them.

use crate::support::{cedar, cedar_sources, compile, list, request, sources};
use policy::{Because, DecisionInput, PolicySet, Principal, explain_denial, narrowest};
use types::manifest::Permissions;
use types::{ActionRequest, Verdict};

#[test]
fn the_narrowest_rules() {
    let https = |path: &str, port, query: &str| ActionRequest::HttpRequest {
        host: "a.test".into(),
        method: "GET".into(),
        path: path.into(),
        port,
        scheme: "https".into(),
        query: query.into(),
        facts: None,
    };
    let got: Vec<(Option<String>, String)> = narrowest(&[
        https("/v1/x", 443, "a=1"),
        https("/v1/x", 443, "a=2"),
        https("/v1/x", 8443, ""),
        https("/50%*", 443, ""),
        request("tool open_ticket"),
        request("run shell"),
        request("run shell"),
        request("read /workspace/a.md"),
        request("write /workspace/a.md"),
        request("read /etc/hosts"),
        request("mount /workspace"),
        request("connect a.test"),
        request("secret api@a.test"),
        request("model other"),
    ])
    .into_iter()
    .map(|s| (s.entry, s.opens))
    .collect();
    let entry = |entry: &str, opens: &str| (Some(entry.to_owned()), opens.to_owned());
    assert_eq!(
        got,
        [
            (None, "every model call on route other".to_owned()),
            (None, "GET a.test/50%* with any query and body".to_owned()),
            (None, "mounting /workspace and nothing else".to_owned()),
            (None, "reading /etc/hosts and nothing else".to_owned()),
            entry("CONNECT a.test:443", "any bytes to a.test:443, uninspected"),
            entry("GET a.test/v1/x", "GET a.test/v1/x with any query and body, any port"),
            entry("GET a.test:8443/v1/x", "GET a.test:8443/v1/x with any query and body"),
            entry("open_ticket", "every call of open_ticket, with whatever arguments"),
            entry("read_file", "reading everything in /workspace"),
            entry("secret:api@a.test", "sending secret api to a.test in any permitted request"),
            entry("shell", "every command with shell, with whatever arguments"),
            entry("write_file", "changing everything in /workspace"),
        ]
    );
}

#[test]
fn every_suggestion_permits_what_was_denied() {
    for text in [
        "GET a.test/v1/x",
        "POST a.test:8080/x",
        "connect a.test",
        "secret api@a.test",
        "run shell",
        "tool open_ticket",
        "tool wait",
        "read /workspace/a",
        "write /workspace",
        "read /etc/x \"y\"",
        "mount /m",
        "model other",
    ] {
        let denied = request(text);
        let input = DecisionInput::new(Principal::agent("triage", ""), denied.clone());
        let decision = compile(&sources(None)).decide(&input);
        assert_eq!(decision.because, Because::NoRule, "{text}");
        assert_eq!(decision.failure().expect("denied").code, "BP-POLICY-020");
        let suggestion = explain_denial(&decision, &denied).suggestion.expect("a rule");
        if let Some(entry) = &suggestion.entry {
            let mut with = sources(None);
            with.extra_allow = vec![entry.clone()];
            assert_eq!(compile(&with).decide(&input).verdict, Verdict::Permit, "{entry}");
        }
        let set = cedar(suggestion.cedar.as_deref().expect("always"));
        assert_eq!(set.decide(&input).verdict, Verdict::Permit, "{:?}", suggestion.cedar);
    }
}

#[test]
fn explanations_say_why_and_what_helps() {
    let mut of = cedar_sources(
        "@reason(\"contract 12\") @id(\"no-admin\") forbid(principal, action, resource == Host::\"admin.test\");",
    );
    of.permissions = Some(Permissions { deny: list(&["python"]), ..Permissions::default() });
    let set = PolicySet::compile(&of).expect("good");
    let explain = |text: &str| {
        let request = request(text);
        let input = DecisionInput::new(Principal::agent("triage", ""), request.clone());
        explain_denial(&set.decide(&input), &request)
    };
    let forbidden = explain("GET admin.test/");
    assert_eq!(
        forbidden.reason,
        "http_request GET admin.test/: forbidden by no-admin (contract 12); adding a permit cannot open it"
    );
    assert_eq!((forbidden.suggestion, forbidden.also_opens.as_str()), (None, ""));
    let open = explain("GET other.test/x");
    assert_eq!(open.reason, "http_request GET other.test/x: no rule permits it");
    assert_eq!(open.also_opens, "GET other.test/x with any query and body, any port");
    let failed = explain("GET Other.test/x");
    assert!(failed.reason.contains("refused, host \"Other.test\""), "{}", failed.reason);
    assert_eq!(failed.suggestion, None);
}
