//! Names, paths, hosts and arguments chosen by an attacker are data, never policy.

use crate::support::{compile, sources, with_facts};
use policy::{DecisionInput, PolicySet, Principal, Sources, ToolDecl, ToolKind, narrowest};
use proptest::prelude::*;
use serde_json::json;
use types::manifest::{Permissions, Preset};
use types::{
    ActionRequest, EffectClass, FsAccess, GitFacts, HttpFacts, RefChange, RefUpdate, Verdict,
};

const HOSTILE: [&str; 14] = [
    "x\");permit(principal,action,resource);//",
    "x\\\");permit(principal,action,resource);//",
    "\\",
    "\\\\\"",
    "\n\r\t\0",
    "*/ permit(principal,action,resource); /*",
    "// \u{2028}permit(principal, action, resource);",
    "\u{202e}drowssap\u{2066}",
    "${context.approved}",
    "\\u{22}) when { true } unless { false };",
    "'\u{fffd}\u{10ffff}",
    "é",
    "*",
    "a\" || true || \"",
];

fn statements(set: &PolicySet) -> usize {
    set.table().len()
}

fn with_tool(name: &str) -> Sources {
    let mut sources = sources(Some(Permissions {
        preset: Some(Preset::Act),
        allow: vec![name.to_owned()],
        ask: vec![name.to_owned()],
        deny: vec![name.to_owned()],
        ..Permissions::default()
    }));
    sources.tools = vec![
        ToolDecl::new(name, ToolKind::Command, EffectClass::Read),
        ToolDecl::new("shell", ToolKind::Shell, EffectClass::Workspace),
    ];
    sources.routes = vec![name.to_owned()];
    sources
}

/// The same set for a tame name and for this one: same number of policies, and the tool is denied.
fn check_tool_name(name: &str) {
    let tame = compile(&with_tool("tame"));
    let set = compile(&with_tool(name));
    assert_eq!(statements(&set), statements(&tame), "{name:?}");
    let decide = |request: ActionRequest| {
        set.decide(&DecisionInput::new(Principal::agent("triage", ""), request)).verdict
    };
    let call = |tool: &str| ActionRequest::CallTool {
        tool: tool.into(),
        arguments: json!({}),
        effect: EffectClass::Read,
    };
    assert_eq!(decide(call(name)), Verdict::Deny, "{name:?}");
    assert_eq!(decide(call("another")), Verdict::Permit, "{name:?}");
    let route = |route: &str| ActionRequest::CallModel {
        route: route.into(),
        provider: String::new(),
        model: String::new(),
        local: false,
        privacy: Default::default(),
    };
    assert_eq!(decide(route(name)), Verdict::Permit, "{name:?}");
    let mount = ActionRequest::Path { access: FsAccess::Mount, path: "/x".into() };
    assert_eq!(decide(mount), Verdict::Deny, "{name:?}");
}

#[test]
fn hostile_tool_and_route_names() {
    HOSTILE.into_iter().for_each(check_tool_name);
}

#[test]
fn hostile_entries_are_refused_or_harmless() {
    let base = statements(&compile(&sources(None)));
    for hostile in HOSTILE {
        for (entry, rules) in [
            (hostile.to_owned(), 1),
            (format!("GET a.test/{hostile}"), 1),
            (format!("GET {hostile}.test/x"), 1),
            (format!("secret:{hostile}@a.test"), 1),
            (format!("secret:a@{hostile}"), 1),
            (format!("git fetch a.test/{hostile}"), 1),
            (format!("git fetch {hostile}/o/r"), 1),
            (format!("git push a.test/o/{hostile} refs/heads/x"), 2),
            (format!("git force-push a.test/o/r refs/heads/{hostile}"), 2),
            (format!("install {hostile}"), 1),
            (format!("publish a.test/{hostile}"), 1),
        ] {
            let mut with = sources(None);
            with.extra_allow = vec![entry.clone()];
            if let Ok(set) = PolicySet::compile(&with) {
                assert_eq!(statements(&set), base + rules, "{entry:?}");
                let other = ActionRequest::Connect { host: "evil.test".into(), port: 443 };
                let decision =
                    set.decide(&DecisionInput::new(Principal::agent("triage", ""), other));
                assert_eq!(decision.verdict, Verdict::Deny, "{entry:?}");
            }
        }
    }
}

fn suggestions_are_one_policy(request: &ActionRequest) {
    for suggestion in narrowest(std::slice::from_ref(request)) {
        let text = suggestion.cedar.expect("always");
        let mut with = sources(None);
        with.cedar = Some(("policy.cedar".into(), text.clone()));
        let set = PolicySet::compile(&with).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
        assert_eq!(statements(&set), statements(&compile(&sources(None))) + 1, "{text}");
        assert!(
            !suggestion.opens.chars().any(|c| c.is_control() || c == '\u{202e}'),
            "{:?}",
            suggestion.opens
        );
    }
}

/// A request whose every name is this text.
fn told(text: &str, operation: &str, service: &str) -> ActionRequest {
    let name = text.to_owned();
    let change = if text.len().is_multiple_of(2) { RefChange::Create } else { RefChange::Delete };
    let git = GitFacts {
        repository: name.clone(),
        service: service.to_owned(),
        updates: vec![RefUpdate { name, change }],
        complete: true,
    };
    let told = HttpFacts {
        operation: operation.to_owned(),
        git: (!service.is_empty()).then_some(git),
        ..HttpFacts::default()
    };
    let mut request = with_facts("PUT a.test/x", told);
    if let ActionRequest::HttpRequest { path, .. } = &mut request {
        *path = format!("/{text}");
    }
    request
}

fn requests(text: &str) -> Vec<ActionRequest> {
    let text = text.to_owned();
    vec![
        ActionRequest::CallTool {
            tool: text.clone(),
            arguments: json!({ text.as_str(): text }),
            effect: EffectClass::Read,
        },
        ActionRequest::RunCommand { tool: text.clone(), command: text.clone() },
        ActionRequest::Path { access: FsAccess::Read, path: format!("/workspace/{text}") },
        ActionRequest::Path { access: FsAccess::Mount, path: text.clone() },
        ActionRequest::HttpRequest {
            host: text.clone(),
            method: text.clone(),
            path: format!("/{text}"),
            port: 443,
            scheme: text.clone(),
            query: text.clone(),
            facts: None,
        },
        told(&text, "git fetch", "git-upload-pack"),
        told(&text, "git push", "git-receive-pack"),
        told(&text, "package install", ""),
        told(&text, "package publish", ""),
        ActionRequest::Connect { host: text.clone(), port: 0 },
        ActionRequest::UseSecret { secret: text.clone(), host: text.clone() },
        ActionRequest::CallModel {
            route: text.clone(),
            provider: text.clone(),
            model: text,
            local: false,
            privacy: Default::default(),
        },
    ]
}

#[test]
fn hostile_requests_are_suggested_as_one_policy_each() {
    for hostile in HOSTILE {
        requests(hostile).iter().for_each(suggestions_are_one_policy);
    }
}

#[test]
fn requests_not_in_canonical_form_are_denied_even_by_an_open_policy() {
    let mut open = sources(None);
    open.cedar = Some(("policy.cedar".into(), "permit(principal, action, resource);".into()));
    let set = compile(&open);
    let http = |host: &str, method: &str, path: &str| ActionRequest::HttpRequest {
        host: host.into(),
        method: method.into(),
        path: path.into(),
        port: 443,
        scheme: "https".into(),
        query: String::new(),
        facts: None,
    };
    let path = |path: &str| ActionRequest::Path { access: FsAccess::Read, path: path.into() };
    let permitted =
        set.decide(&DecisionInput::new(Principal::agent("triage", ""), http("a.test", "GET", "/")));
    assert_eq!(permitted.verdict, Verdict::Permit);
    for request in [
        http("A.test", "GET", "/"),
        http("a.test.", "GET", "/"),
        http("a.test:443", "GET", "/"),
        http("a.test\0.evil.test", "GET", "/"),
        http("ok.test@evil.test", "GET", "/"),
        http("0x7f.1", "GET", "/"),
        http("a.test", "get", "/"),
        http("a.test", "GET POST", "/"),
        http("a.test", "", "/"),
        http("a.test", "GET", "x"),
        http("a.test", "GET", "/a/../b"),
        path("relative"),
        path("/a/../b"),
        path("/a/"),
        path("/a\0b"),
        ActionRequest::Connect { host: "a.test".into(), port: 0 },
        ActionRequest::UseSecret { secret: "s".into(), host: "A.test".into() },
    ] {
        let decision =
            set.decide(&DecisionInput::new(Principal::agent("triage", ""), request.clone()));
        assert_eq!(decision.verdict, Verdict::Deny, "{request:?}");
        assert_eq!(decision.errors[0].code, "BP-POLICY-012", "{request:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_tool_name_is_data(name in "[\\PC\"\\\\\\n*/;(){}]{1,40}") {
        prop_assume!(!["shell", "another", "tame"].contains(&name.as_str()));
        check_tool_name(&name);
    }

    #[test]
    fn any_request_is_suggested_as_one_policy(text in any::<String>()) {
        requests(&text).iter().for_each(suggestions_are_one_policy);
    }
}
