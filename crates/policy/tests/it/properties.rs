//! Properties of every set: deny wins, more forbids never open, approval only opens, one answer.

use crate::support::{compile, fetch, package, push, request, sources, unread_push};
use policy::{Because, DecisionInput, PolicySet, Principal, Sources};
use proptest::prelude::*;
use serde_json::json;
use types::manifest::{Guard, Permissions, Preset};
use types::{ActionRequest, Carried, EffectClass, FsAccess, Labels, Verdict};

const ENTRIES: [&str; 22] = [
    "shell",
    "python",
    "open_ticket",
    "lookup",
    "read_file",
    "write_file",
    "wait",
    "a.test",
    "GET a.test/v1/*",
    "POST b.a.test/v1/x",
    "*.a.test",
    "CONNECT a.test:443",
    "secret:api@a.test",
    "DELETE a.test:8443/v1",
    "git fetch a.test/o/r",
    "git push *.a.test/o/* refs/heads/*",
    "git push a.test/o/r refs/heads/x",
    "git force-push a.test/* *",
    "install a.test",
    "publish b.a.test/pkg",
    "publish a.test/*",
    "POST a.test",
];
const SCOPES: [&str; 9] = [
    "action, resource",
    "action == Action::\"run_command\", resource == Tool::\"shell\"",
    "action == Action::\"call_tool\", resource",
    "action == Action::\"http_request\", resource in Domain::\"a.test\"",
    "action == Action::\"http_request\", resource == Host::\"a.test\"",
    "action in [Action::\"read_file\", Action::\"write_file\"], resource in Path::\"/workspace/a\"",
    "action == Action::\"connect\", resource",
    "action == Action::\"use_secret\", resource == Secret::\"api\"",
    "action == Action::\"call_model\", resource is Route",
];
const CONDITIONS: [&str; 7] = [
    "true",
    "context.labels.contains(\"untrusted\")",
    "context.oldest_input_age > 60",
    "context.oldest_input_age + 9223372036854775000 > 0",
    "context.on_behalf_of == \"ada\"",
    "principal in Team::\"support\"",
    "principal is User",
];

fn entries() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(proptest::sample::select(&ENTRIES[..]).prop_map(str::to_owned), 0..4)
}

fn preset() -> impl Strategy<Value = Option<Preset>> {
    proptest::sample::select(vec![
        None,
        Some(Preset::Observe),
        Some(Preset::Draft),
        Some(Preset::Act),
    ])
}

fn guard() -> impl Strategy<Value = Vec<Guard>> {
    proptest::sample::subsequence(vec![Guard::Trifecta, Guard::Stale { seconds: 900 }], 0..=2)
}

fn forbid() -> impl Strategy<Value = String> {
    (
        proptest::sample::select(&SCOPES[..]),
        proptest::sample::select(&CONDITIONS[..]),
        any::<bool>(),
    )
        .prop_map(|(scope, condition, approvable)| {
            let unless = if approvable { " unless { context.approved }" } else { "" };
            format!("forbid(principal, {scope}) when {{ {condition} }}{unless};\n")
        })
}

fn permit() -> impl Strategy<Value = String> {
    (
        proptest::sample::select(&SCOPES[..]),
        proptest::sample::select(&CONDITIONS[..]),
        any::<bool>(),
    )
        .prop_map(|(scope, condition, asked)| {
            let approved = if asked { " && context.approved" } else { "" };
            format!("permit(principal, {scope}) when {{ {condition}{approved} }};\n")
        })
}

prop_compose! {
    fn any_sources()(
        preset in preset(), allow in entries(), ask in entries(), deny in entries(), guard in guard(),
        permits in proptest::collection::vec(permit(), 0..4), forbids in proptest::collection::vec(forbid(), 0..3),
    ) -> Sources {
        let mut all = sources(Some(Permissions { preset, allow, ask, deny, guard, ..Permissions::default() }));
        all.cedar = Some(("policy.cedar".into(), permits.concat() + &forbids.concat()));
        all
    }
}

fn at(mut request: ActionRequest, to: String) -> ActionRequest {
    if let ActionRequest::HttpRequest { host, .. } = &mut request {
        *host = to;
    }
    request
}

/// Requests of git and to registries, told by the boundary or not.
fn http_with_facts() -> impl Strategy<Value = ActionRequest> {
    let change = proptest::sample::select(vec!["create", "update", "delete"]);
    let name = proptest::sample::select(vec!["refs/heads/x", "refs/heads/a/y", "refs/tags/v1"]);
    let changes = proptest::collection::vec((change, name), 0..3);
    let repository = || proptest::sample::select(vec!["/o/r", "/O/r", "/p/q"]);
    let bare = |text: &str, asked: &str| {
        let mut request = request(text);
        if let ActionRequest::HttpRequest { query, .. } = &mut request {
            asked.clone_into(query);
        }
        request
    };
    prop_oneof![
        (repository(), changes).prop_map(|(repository, changes)| push(repository, &changes)),
        repository().prop_map(unread_push),
        repository().prop_map(fetch),
        Just(bare("GET a.test/o/r/info/refs", "service=git-receive-pack")),
        Just(bare("GET a.test/o/r/info/refs", "service=git-upload-pack")),
        Just(bare("POST a.test/o/r/git-receive-pack", "")),
        Just(package("GET", "/pkg", "package install")),
        Just(package("POST", "/audit", "package install")),
        Just(package("PUT", "/pkg", "package publish")),
        Just(package("POST", "/legacy", "package publish")),
    ]
}

fn any_request() -> impl Strategy<Value = ActionRequest> {
    let host = || {
        proptest::sample::select(vec!["a.test", "b.a.test", "c.b.a.test", "x.test", "test"])
            .prop_map(str::to_owned)
    };
    let tool = || {
        proptest::sample::select(vec!["shell", "python", "open_ticket", "lookup", "wait"])
            .prop_map(str::to_owned)
    };
    prop_oneof![
        tool().prop_map(|tool| ActionRequest::RunCommand { tool, command: "ls".into() }),
        (
            tool(),
            proptest::sample::select(vec![
                EffectClass::Read,
                EffectClass::Idempotent,
                EffectClass::Irreversible
            ])
        )
            .prop_map(|(tool, effect)| ActionRequest::CallTool {
                tool,
                arguments: json!({}),
                effect
            }),
        (
            proptest::sample::select(vec![FsAccess::Read, FsAccess::Write, FsAccess::Mount]),
            proptest::sample::select(vec![
                "/workspace",
                "/workspace/a",
                "/workspace/a/b",
                "/etc/x"
            ])
        )
            .prop_map(|(access, path)| ActionRequest::Path { access, path: path.into() }),
        (
            host(),
            proptest::sample::select(vec!["GET", "POST", "DELETE"]),
            proptest::sample::select(vec!["/", "/v1", "/v1/x"]),
            proptest::sample::select(vec![443u16, 8443])
        )
            .prop_map(|(host, method, path, port)| ActionRequest::HttpRequest {
                host,
                method: method.into(),
                path: path.into(),
                port,
                scheme: "https".into(),
                query: String::new(),
                facts: None,
            }),
        (host(), http_with_facts()).prop_map(|(to, request)| at(request, to)),
        host().prop_map(|host| ActionRequest::Connect { host, port: 443 }),
        host().prop_map(|host| ActionRequest::UseSecret { secret: "api".into(), host }),
        proptest::sample::select(vec!["default", "other"]).prop_map(|route| {
            ActionRequest::CallModel {
                route: route.into(),
                provider: "p".into(),
                model: "m".into(),
                local: true,
                privacy: Default::default(),
            }
        }),
    ]
}

prop_compose! {
    fn any_input()(
        request in any_request(), labels in proptest::sample::subsequence(vec!["untrusted", "pii", "confidential:a"], 0..=3), age in proptest::sample::select(vec![0u64, 61, 1000]),
        ada in any::<bool>(), user in any::<bool>(), approved in any::<bool>(),
    ) -> DecisionInput {
        DecisionInput {
            principal: if user { Principal::user("ada") } else { Principal::agent("triage", "support") },
            request,
            carried: Carried {
                labels: labels.iter().fold(Labels::none(), |mut all, label| { all.join(&Labels::one(label)); all }),
                oldest_input_age: age,
            },
            on_behalf_of: if ada { "ada".into() } else { String::new() },
            approved,
        }
    }
}

fn decide_as(set: &PolicySet, input: &DecisionInput, approved: bool) -> policy::Decision {
    set.decide(&DecisionInput { approved, ..input.clone() })
}

/// What Cedar itself says of the whole set, without our slices; `None` for an evaluation error.
fn whole(set: &PolicySet, input: &DecisionInput) -> Option<bool> {
    use cedar_policy::{Authorizer, Context, Decision, Entities, PolicySet as Cedar, Request};
    let source: Cedar = set.cedar_source().parse().expect("its own source");
    let (kind, id, above) = match &input.request {
        ActionRequest::CallModel { route, .. } => ("Route", route, vec![]),
        ActionRequest::CallTool { tool, .. } | ActionRequest::RunCommand { tool, .. } => {
            ("Tool", tool, vec![])
        }
        ActionRequest::Path { path, .. } => {
            let parts: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
            let above = parts
                .iter()
                .map(|at| ("Path", if *at == 0 { "/".to_owned() } else { path[..*at].to_owned() }));
            ("Path", path, above.collect())
        }
        ActionRequest::HttpRequest { host, .. } | ActionRequest::Connect { host, .. } => {
            let labels: Vec<&str> = host.split('.').collect();
            let above = (0..labels.len()).map(|from| ("Domain", labels[from..].join(".")));
            ("Host", host, above.collect::<Vec<_>>())
        }
        ActionRequest::UseSecret { secret, .. } => ("Secret", secret, vec![]),
    };
    let uid = |kind: &str, id: &str| json!({"type": kind, "id": id});
    let principal = uid(
        if input.principal.kind == policy::PrincipalKind::User { "User" } else { "Agent" },
        &input.principal.name,
    );
    let teams: Vec<_> = input.principal.teams.iter().map(|team| uid("Team", team)).collect();
    let above: Vec<_> = above.iter().map(|(kind, id)| uid(kind, id)).collect();
    let entities = Entities::from_json_value(
        json!([
            {"uid": principal, "attrs": {}, "parents": teams},
            {"uid": uid(kind, id), "attrs": {}, "parents": above},
        ]),
        None,
    )
    .expect("entities");
    let mut context = serde_json::to_value(&input.request).expect("a request");
    let fields = context.as_object_mut().expect("an object");
    for gone in ["action", "route", "tool", "access", "secret", "facts"] {
        fields.remove(gone);
    }
    if let ActionRequest::HttpRequest { method, path, query, facts, .. } = &input.request {
        fields.extend(crate::facts::expected(method, path, query, facts.as_deref()));
    }
    fields.insert("approved".into(), json!(input.approved));
    let mut labels: Vec<&str> = input.carried.labels.iter().collect();
    labels.extend(labels.contains(&"confidential:a").then_some("confidential"));
    fields.insert("labels".into(), json!(labels));
    fields.insert("oldest_input_age".into(), json!(input.carried.oldest_input_age));
    fields.insert("on_behalf_of".into(), json!(input.on_behalf_of));
    let context = Context::from_json_value(context, None).expect("a context");
    let read = |value: &serde_json::Value| {
        cedar_policy::EntityUid::from_json(value.clone()).expect("a uid")
    };
    let request = Request::new(
        read(&principal),
        read(&uid("Action", input.request.name())),
        read(&uid(kind, id)),
        context,
        None,
    )
    .expect("a request");
    let response = Authorizer::new().is_authorized(&request, &source, &entities);
    let failed = response.diagnostics().errors().next().is_some();
    (!failed).then(|| response.decision() == Decision::Allow)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_answer_is_that_of_the_whole_set(sources in any_sources(), inputs in proptest::collection::vec(any_input(), 8)) {
        let set = compile(&sources);
        for mut input in inputs {
            input.approved = true;
            let expected = match whole(&set, &input) {
                Some(true) => Verdict::Permit,
                _ => Verdict::Deny,
            };
            prop_assert_eq!(set.decide(&input).verdict, expected, "{:?}\n{}", input, set.cedar_source());
        }
    }

    #[test]
    fn asked_is_denied_unapproved_and_permitted_approved(sources in any_sources(), inputs in proptest::collection::vec(any_input(), 8)) {
        let set = compile(&sources);
        for mut input in inputs {
            input.approved = false;
            let (without, with) = (set.decide(&input).verdict, decide_as(&set, &input, true).verdict);
            match without {
                Verdict::Permit | Verdict::Ask => prop_assert_eq!(with, Verdict::Permit),
                Verdict::Deny => prop_assert_eq!(with, Verdict::Deny),
            }
            prop_assert_eq!(whole(&set, &input) == Some(true), without == Verdict::Permit);
        }
    }

    #[test]
    fn a_forbid_more_never_opens(sources in any_sources(), more in forbid(), organisation in any::<bool>(), inputs in proptest::collection::vec(any_input(), 8)) {
        let before = compile(&sources);
        let mut narrowed = sources;
        if organisation {
            narrowed.organisation.push(("org.cedar".into(), more));
        } else if let Some((_, text)) = &mut narrowed.cedar {
            text.push_str(&more);
        }
        let after = compile(&narrowed);
        for input in inputs {
            prop_assert!(after.decide(&input).verdict >= before.decide(&input).verdict, "{:?}", input);
        }
    }

    #[test]
    fn what_deny_lists_is_denied(mut sources in any_sources(), entry in proptest::sample::select(&ENTRIES[..]), inputs in proptest::collection::vec(any_input(), 8)) {
        if let Some(permissions) = &mut sources.permissions {
            permissions.deny.push(entry.to_owned());
        }
        let mut open = crate::support::sources(None);
        open.extra_allow = vec![entry.to_owned()];
        let (set, open) = (compile(&sources), compile(&open));
        for input in inputs {
            // What every push asks first stays open while a branch is closed.
            let entry_permits = open.decide(&input).policies.iter()
                .any(|id| id.starts_with("run.allow") && !id.ends_with("(before a push)"));
            if entry_permits {
                let decision = set.decide(&input);
                prop_assert_eq!(decision.verdict, Verdict::Deny);
                prop_assert!(decision.because != Because::NoRule);
            }
        }
    }

    #[test]
    fn compiling_is_deterministic_and_the_source_is_the_set(sources in any_sources(), inputs in proptest::collection::vec(any_input(), 4)) {
        let (one, two) = (compile(&sources), compile(&sources));
        prop_assert_eq!(one.cedar_source(), two.cedar_source());
        prop_assert_eq!(one.digest(), two.digest());
        prop_assert_eq!(one.table(), two.table());
        let read = PolicySet::from_cedar_source(&one.cedar_source(), &sources.principal, &sources.tools).expect("its source");
        prop_assert_eq!(read.digest(), one.digest());
        for input in inputs {
            prop_assert_eq!(one.decide(&input), two.decide(&input));
            prop_assert_eq!(one.decide(&input), read.decide(&input));
        }
    }

    #[test]
    fn a_name_that_may_not_be_reached_is_never_permitted(sources in any_sources(), inputs in proptest::collection::vec(any_input(), 12)) {
        let set = compile(&sources);
        for mut input in inputs {
            input.principal = sources.principal.clone();
            let (ActionRequest::HttpRequest { host, .. } | ActionRequest::Connect { host, .. }) = &input.request else { continue };
            let verdict = set.decide_all(std::slice::from_ref(&input)).verdict;
            if verdict != Verdict::Deny {
                prop_assert!(set.may_permit_host(host), "{:?}\n{}", input, set.cedar_source());
            }
        }
    }

    #[test]
    fn file_rules_agree_with_decisions(sources in any_sources(), inputs in proptest::collection::vec(any_input(), 12)) {
        let set = compile(&sources);
        let Ok(rules) = set.fs_rules() else { return Ok(()) };
        for mut input in inputs {
            input.principal = sources.principal.clone();
            input.approved = false;
            let ActionRequest::Path { access, path } = &input.request else { continue };
            let (permitted, denied) = match access {
                FsAccess::Read => (&rules.read, &rules.deny_read),
                FsAccess::Write => (&rules.write, &rules.deny_write),
                FsAccess::Mount => continue,
            };
            let (Some(permitted), true) = (permitted, set.may_run_commands()) else { continue };
            let open = policy::FsRules::covers(permitted, path) && !policy::FsRules::covers(denied, path);
            let command = ActionRequest::RunCommand { tool: "shell".into(), command: String::new() };
            let shell = decide_as(&set, &DecisionInput { request: command, ..input.clone() }, true).verdict;
            let file = set.decide(&input).verdict;
            if open && shell == Verdict::Permit {
                prop_assert_eq!(file, Verdict::Permit, "{:?}\n{}", input, set.cedar_source());
            }
            if file == Verdict::Permit {
                prop_assert!(open, "{:?}\n{}", input, set.cedar_source());
            }
        }
    }
}
