//! What the boundary read in a request, as policy sees it.

use crate::support::{cedar, compile, push, request, sources, with_facts};
use policy::{DecisionInput, FACT_BYTES_MAX, FACTS_MAX, PolicySet, Principal};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use types::{
    ActionRequest, BodyFacts, BodyKind, GitFacts, HttpFacts, RefChange, RefUpdate, Verdict,
};

/// The attributes as their documentation says them, worked out apart from the crate.
pub(crate) fn expected(
    method: &str,
    path: &str,
    query: &str,
    facts: Option<&HttpFacts>,
) -> Map<String, Value> {
    let discovery = path.ends_with("/info/refs");
    let asks = |service: &str| {
        path.ends_with(&format!("/{service}")) || discovery && query == format!("service={service}")
    };
    let operation = match facts.map_or("", |facts| &facts.operation) {
        "" | "git fetch" if asks("git-receive-pack") => "git push",
        "" if asks("git-upload-pack") => "git fetch",
        told => told,
    };
    let known = facts.cloned().unwrap_or_default();
    let body = if known.body.understood { known.body.clone() } else { BodyFacts::default() };
    let git = known.git.unwrap_or_else(|| GitFacts {
        repository: match operation.starts_with("git") {
            true => path[1..]
                .rsplit_once(if discovery { "/info" } else { "/" })
                .expect("a repository")
                .0
                .into(),
            false => String::new(),
        },
        service: String::new(),
        updates: Vec::new(),
        complete: method == "GET" && discovery,
    });
    let push = operation == "git push";
    let (complete, updates) = (push && git.complete, git.updates);
    let moved = |change| push && (!complete || updates.iter().any(|u| u.change == change));
    let of = |u: &RefUpdate| -> BTreeSet<String> {
        let parts: Vec<&str> = u.name.split('/').collect();
        let above = (1..parts.len()).map(|n| format!("{}/*", parts[..n].join("/")));
        above.chain([u.name.clone(), "*".to_owned()]).collect()
    };
    let touched: BTreeSet<String> = updates.iter().flat_map(of).collect();
    let within: BTreeSet<&String> =
        touched.iter().filter(|p| complete && updates.iter().all(|u| of(u).contains(*p))).collect();
    let change =
        |u: &RefUpdate| format!("{} {}", json!(u.change).as_str().expect("a word"), u.name);
    let npm = operation == "package publish" && method == "PUT";
    let kind = facts.map_or(json!(""), |facts| json!(facts.body.kind));
    let headers: Vec<String> = known.headers.iter().map(|h| h.replacen('=', ": ", 1)).collect();
    let Value::Object(map) = json!({
        "headers": headers, "secrets": known.secrets, "websocket": known.websocket,
        "body_kind": kind, "body_bytes": known.body.bytes, "body_understood": known.body.understood,
        "fields": body.json.iter().chain(&body.form).collect::<Vec<_>>(),
        "rpc_methods": body.rpc_methods, "operation": operation,
        "package": if npm { &path[1..] } else { "" },
        "repository": git.repository, "repository_folded": git.repository.to_lowercase(),
        "refs": updates.iter().map(|u| &u.name).collect::<Vec<_>>(),
        "ref_changes": updates.iter().map(change).collect::<Vec<_>>(),
        "refs_within": within, "refs_touched": touched, "refs_known": complete,
        "may_force": moved(RefChange::Update), "deletes": moved(RefChange::Delete),
    }) else {
        unreachable!("an object")
    };
    map
}

fn decide(set: &PolicySet, request: ActionRequest) -> policy::Decision {
    set.decide(&DecisionInput::new(Principal::agent("triage", ""), request))
}

fn when(condition: &str) -> PolicySet {
    cedar(&format!(
        "permit(principal, action == Action::\"http_request\", resource) when {{ {condition} }};"
    ))
}

fn body(kind: BodyKind, understood: bool, json: &[&str]) -> HttpFacts {
    let json = json.iter().map(|fact| (*fact).to_owned()).collect();
    let rpc_methods = vec!["tools/call".to_owned()];
    let body = BodyFacts { kind, bytes: 7, json, rpc_methods, understood, ..BodyFacts::default() };
    HttpFacts { body, ..HttpFacts::default() }
}

#[test]
fn every_attribute_can_be_asked_for() {
    let told = HttpFacts {
        headers: vec!["accept=a=b".to_owned()],
        secrets: vec!["api".to_owned()],
        websocket: true,
        ..body(BodyKind::Buffered, true, &["/to=ada"])
    };
    let http = with_facts("POST a.test/x", told);
    let pushed = push("/O/r", &[("create", "refs/heads/a/x"), ("update", "refs/heads/a/y")]);
    let check = |condition: &str, request: &ActionRequest| {
        let got = decide(&when(condition), request.clone());
        assert_eq!(got.verdict, Verdict::Permit, "{condition}: {got:?}");
        let nothing = decide(&when(condition), self::request("POST a.test/x"));
        assert_eq!(nothing.verdict, Verdict::Deny, "{condition}: without facts");
    };
    for condition in [
        "context.headers.contains(\"accept: a=b\")",
        "context.secrets == [\"api\"]",
        "context.websocket",
        "context.body_kind == \"buffered\"",
        "context.body_bytes == 7",
        "context.body_understood",
        "context.fields == [\"/to=ada\"]",
        "context.rpc_methods.contains(\"tools/call\")",
    ] {
        check(condition, &http);
    }
    for condition in [
        "context.operation == \"git push\"",
        "context.repository == \"O/r\"",
        "context.repository_folded == \"o/r\"",
        "context.refs == [\"refs/heads/a/x\", \"refs/heads/a/y\"]",
        "context.ref_changes.contains(\"update refs/heads/a/y\")",
        "context.refs_within == [\"*\", \"refs/*\", \"refs/heads/*\", \"refs/heads/a/*\"]",
        "context.refs_touched.contains(\"refs/heads/a/x\")",
        "context.refs_known && context.may_force && !context.deletes",
    ] {
        check(condition, &pushed);
    }
}

#[test]
fn a_body_that_was_not_understood_opens_nothing_and_the_idiom_closes_it() {
    let permit = when("context.fields.contains(\"/to=ada\")");
    let idiom = cedar(
        "permit(principal, action == Action::\"http_request\", resource); forbid(principal, action == Action::\"http_request\", resource) unless { context.body_understood && !context.fields.contains(\"/to=eve\") };",
    );
    for (facts, opened, closed) in [
        (body(BodyKind::Buffered, true, &["/to=ada"]), Verdict::Permit, Verdict::Permit),
        (body(BodyKind::Buffered, true, &["/to=ada", "/to=eve"]), Verdict::Permit, Verdict::Deny),
        (body(BodyKind::Streamed, false, &["/to=ada"]), Verdict::Deny, Verdict::Deny),
        (body(BodyKind::Buffered, false, &["/to=ada"]), Verdict::Deny, Verdict::Deny),
        (body(BodyKind::None, true, &[]), Verdict::Deny, Verdict::Permit),
    ] {
        let request = with_facts("POST a.test/x", facts.clone());
        assert_eq!(decide(&permit, request.clone()).verdict, opened, "{facts:?}");
        assert_eq!(decide(&idiom, request).verdict, closed, "{facts:?}");
    }
    let none = request("POST a.test/x");
    assert_eq!(decide(&idiom, none).verdict, Verdict::Deny, "nothing looked");
}

#[test]
fn facts_are_part_of_what_was_decided() {
    let set = compile(&sources(None));
    let plain = request("POST a.test/x");
    let told = with_facts("POST a.test/x", body(BodyKind::Buffered, true, &["/a=1"]));
    let other = with_facts("POST a.test/x", body(BodyKind::Buffered, true, &["/a=2"]));
    let digests = [plain.clone(), told, other].map(|request| decide(&set, request).input);
    assert_eq!(BTreeSet::from(digests.map(|digest| digest.to_string())).len(), 3);
    let input = DecisionInput::new(Principal::agent("triage", ""), plain);
    let bytes = String::from_utf8(input.canonical_bytes()).unwrap();
    assert!(!bytes.contains("facts"), "{bytes}");
}

#[test]
fn facts_have_limits() {
    let set = when("true");
    let many = |n: usize| HttpFacts {
        headers: (0..n).map(|i| format!("accept={i}")).collect(),
        ..HttpFacts::default()
    };
    let long = |n: usize| HttpFacts { headers: vec!["x".repeat(n)], ..HttpFacts::default() };
    for (facts, fine) in [
        (many(FACTS_MAX), true),
        (many(FACTS_MAX + 1), false),
        (long(FACT_BYTES_MAX), true),
        (long(FACT_BYTES_MAX + 1), false),
        (HttpFacts { operation: "git steal".to_owned(), ..HttpFacts::default() }, false),
    ] {
        let decision = decide(&set, with_facts("GET a.test/x", facts));
        assert_eq!(decision.verdict == Verdict::Permit, fine, "{}", decision.reason);
        assert_eq!(
            decision.errors.first().map(|e| e.code.as_str()),
            (!fine).then_some("BP-POLICY-012")
        );
    }
    let refs = |n: usize| {
        let updates: Vec<String> = (0..n).map(|i| format!("refs/heads/{i}")).collect();
        push("/o/r", &updates.iter().map(|name| ("create", name.as_str())).collect::<Vec<_>>())
    };
    assert_eq!(decide(&set, refs(FACTS_MAX)).verdict, Verdict::Permit);
    assert_eq!(decide(&set, refs(FACTS_MAX + 1)).errors[0].code, "BP-POLICY-012");
}

#[test]
fn names_that_a_rule_could_misread_are_refused_even_by_an_open_policy() {
    let set = when("true");
    let deep = format!("refs/{}", "a/".repeat(40));
    for name in [
        "refs/heads/*",
        "refs/heads/../main",
        "refs/heads/a b",
        "refs/heads/a\nb",
        "main",
        "",
        "refs/heads/\"x\"",
        "refs//heads",
        "refs/heads/",
        "refs/heads/a..b",
        "refs/heads/\u{202e}x",
        &deep,
        &format!("refs/{}", "x".repeat(1024)),
    ] {
        let decision = decide(&set, push("/o/r", &[("create", name)]));
        assert_eq!(decision.verdict, Verdict::Deny, "{name:?}");
        assert_eq!(decision.errors[0].code, "BP-POLICY-012", "{name:?}");
    }
    for repository in ["/o/../r", "/o/*", "/o/\"r", "/o/r\n", "/o//r"] {
        let decision = decide(&set, push(repository, &[]));
        assert_eq!(decision.verdict, Verdict::Deny, "{repository:?}");
        assert_eq!(decision.errors[0].code, "BP-POLICY-012", "{repository:?}");
    }
}

#[test]
fn sources_of_older_schemas_keep_their_digest() {
    let set = when("context.method == \"GET\"");
    let old = set.cedar_source().replace("schema 3.", "schema 1.");
    let read = |source: &str| {
        PolicySet::from_cedar_source(source, set.principal(), &crate::support::tools()).unwrap()
    };
    assert_eq!(read(&set.cedar_source()).digest(), set.digest());
    assert_eq!(read(&old).cedar_source(), old);
    assert_eq!(read(&old).digest().to_string(), OLD_DIGEST);
    let second = set.cedar_source().replace("schema 3.", "schema 2.");
    assert_eq!(read(&second).cedar_source(), second);
    assert_eq!(read(&second).digest().to_string(), SECOND_DIGEST);
    let labelled = when("context.labels.contains(\"confidential\")").cedar_source();
    let mut input = DecisionInput::new(Principal::agent("triage", ""), request("GET a.test/"));
    input.carried.labels.join(&types::Labels::one("confidential:payroll"));
    let now = read(&labelled).decide(&input).verdict;
    let then = read(&labelled.replace("schema 3.", "schema 1.")).decide(&input).verdict;
    assert_eq!((now, then), (Verdict::Permit, Verdict::Deny));
}

/// Of the set above as schema 2 had it.
const SECOND_DIGEST: &str = "80e29a52c71e0d30f87ce24a5f8eb83cb84b0571a2286bee2d263b43e310a9ce";
/// Of the set above as schema 1 had it.
const OLD_DIGEST: &str = "baa88e055592892f7861cfdd212839d143e75bb2a248ad97fbcc3ffbdb79990e";
