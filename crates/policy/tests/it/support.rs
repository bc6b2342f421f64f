//! Sets, requests and verdicts in few words.

use policy::{DecisionInput, PolicyError, PolicySet, Principal, Sources, ToolDecl, ToolKind};
use serde_json::json;
use types::manifest::Permissions;
use types::{
    ActionRequest, BodyFacts, BodyKind, Coded, EffectClass, FsAccess, GitFacts, HttpFacts,
    RefChange, RefUpdate, Verdict,
};

pub(crate) fn tools() -> Vec<ToolDecl> {
    let mut tools = ToolDecl::builtins();
    tools.push(ToolDecl::new("lookup", ToolKind::Command, EffectClass::Read));
    tools.push(ToolDecl::new("put_page", ToolKind::Command, EffectClass::Idempotent));
    tools.push(ToolDecl::new("open_ticket", ToolKind::Command, EffectClass::Irreversible));
    tools
}

pub(crate) fn sources(permissions: Option<Permissions>) -> Sources {
    Sources {
        permissions,
        tools: tools(),
        routes: vec!["default".to_owned()],
        ..Sources::new(Principal::agent("triage", "support"))
    }
}

pub(crate) fn compile(sources: &Sources) -> PolicySet {
    PolicySet::compile(sources).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

pub(crate) fn list(entries: &[&str]) -> Vec<String> {
    entries.iter().map(|entry| (*entry).to_owned()).collect()
}

pub(crate) fn request(text: &str) -> ActionRequest {
    let (action, what) = text.split_once(' ').expect("ACTION WHAT");
    let what_owned = what.to_owned();
    match action {
        "model" => ActionRequest::CallModel {
            route: what_owned,
            provider: "openai".into(),
            model: "m".into(),
            local: false,
            privacy: Default::default(),
        },
        "tool" => ActionRequest::CallTool {
            effect: tools()
                .iter()
                .find(|t| t.name == what)
                .map_or(EffectClass::Irreversible, |t| t.effect),
            tool: what_owned,
            arguments: json!({}),
        },
        "run" => ActionRequest::RunCommand { tool: what_owned, command: "ls".into() },
        "read" => ActionRequest::Path { access: FsAccess::Read, path: what_owned },
        "write" => ActionRequest::Path { access: FsAccess::Write, path: what_owned },
        "mount" => ActionRequest::Path { access: FsAccess::Mount, path: what_owned },
        "connect" => ActionRequest::Connect { host: what_owned, port: 443 },
        "secret" => {
            let (secret, host) = what.split_once('@').expect("NAME@host");
            ActionRequest::UseSecret { secret: secret.into(), host: host.into() }
        }
        method => {
            let (host, path) = what.split_once('/').expect("host/path");
            let (host, port) = host.split_once(':').unwrap_or((host, "443"));
            ActionRequest::HttpRequest {
                host: host.into(),
                method: method.into(),
                path: format!("/{path}"),
                port: port.parse().expect("a port"),
                scheme: "https".into(),
                query: String::new(),
                facts: None,
            }
        }
    }
}

/// An HTTP request in which the boundary read something.
pub(crate) fn with_facts(text: &str, told: HttpFacts) -> ActionRequest {
    let mut request = request(text);
    let ActionRequest::HttpRequest { facts, .. } = &mut request else { panic!("{text}: no HTTP") };
    *facts = Some(Box::new(told));
    request
}

fn git(path: &str, service: &str, updates: Vec<RefUpdate>, complete: bool) -> ActionRequest {
    let operation = if service == "git-receive-pack" { "git push" } else { "git fetch" };
    let repository = path[1..].to_owned();
    let kind = BodyKind::Buffered;
    let told = HttpFacts {
        operation: operation.to_owned(),
        body: BodyFacts { kind, bytes: 99, ..BodyFacts::default() },
        git: Some(GitFacts { repository, service: service.to_owned(), updates, complete }),
        ..HttpFacts::default()
    };
    let mut of = with_facts("POST git.test/x", told);
    let ActionRequest::HttpRequest { path: place, .. } = &mut of else { unreachable!() };
    *place = format!("/o/r.git/{service}");
    of
}

/// A push to git.test that makes these changes: `create`, `update` or `delete`, and the reference.
pub(crate) fn push(repository: &str, changes: &[(&str, &str)]) -> ActionRequest {
    let update = |(change, name): &(&str, &str)| RefUpdate {
        name: (*name).to_owned(),
        change: match *change {
            "create" => RefChange::Create,
            "update" => RefChange::Update,
            _ => RefChange::Delete,
        },
    };
    git(repository, "git-receive-pack", changes.iter().map(update).collect(), true)
}

/// A push to git.test whose commands could not be read.
pub(crate) fn unread_push(repository: &str) -> ActionRequest {
    git(repository, "git-receive-pack", Vec::new(), false)
}

/// A fetch from git.test.
pub(crate) fn fetch(repository: &str) -> ActionRequest {
    git(repository, "git-upload-pack", Vec::new(), true)
}

/// A request to git.test as to a package registry.
pub(crate) fn package(method: &str, path: &str, operation: &str) -> ActionRequest {
    let told = HttpFacts { operation: operation.to_owned(), ..HttpFacts::default() };
    with_facts(&format!("{method} git.test{path}"), told)
}

pub(crate) fn verdict(set: &PolicySet, text: &str) -> Verdict {
    let input = DecisionInput::new(Principal::agent("triage", "support"), request(text));
    let decision = set.decide(&input);
    assert_eq!(decision.errors, [], "{text}");
    decision.verdict
}

/// A set of `policy.cedar` alone.
pub(crate) fn cedar(text: &str) -> PolicySet {
    compile(&cedar_sources(text))
}

pub(crate) fn cedar_sources(text: &str) -> Sources {
    Sources { cedar: Some(("policy.cedar".to_owned(), text.to_owned())), ..sources(None) }
}

/// What is wrong with it, as `CODE text`.
pub(crate) fn wrong(sources: &Sources) -> Vec<String> {
    let errors = PolicySet::compile(sources).expect_err("it should be refused");
    errors.iter().map(described).collect()
}

pub(crate) fn described(error: &PolicyError) -> String {
    assert!(!error.next().is_empty());
    format!("{} {error}", error.code())
}
