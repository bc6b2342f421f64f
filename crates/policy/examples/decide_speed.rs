//! How long one decision takes: `cargo run --release -p bedplate-policy --example decide_speed`.
//!
//! Prints p50, p95 and p99 of single decisions, in microseconds, for sets of growing size, then for
//! a set that looks at everything the boundary read, with and without facts.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use policy::{DecisionInput, PolicySet, Principal, Sources};
use std::hint::black_box;
use std::time::Instant;
use types::manifest::{Guard, Permissions, Preset};
use types::{ActionRequest, GitFacts, HttpFacts, RefChange, RefUpdate};

const ROUNDS: usize = 20_000;

fn http(host: &str, method: &str) -> ActionRequest {
    ActionRequest::HttpRequest {
        host: host.to_owned(),
        method: method.to_owned(),
        path: "/v1/items/7".to_owned(),
        port: 443,
        scheme: "https".to_owned(),
        query: "page=2".to_owned(),
        facts: None,
    }
}

fn measure(name: &str, set: &PolicySet, request: &ActionRequest) {
    let input = DecisionInput::new(Principal::agent("triage", "support"), request.clone());
    let verdict = format!("{:?}", set.decide(&input).verdict);
    time(name, &verdict, || {
        black_box(set.decide(black_box(&input)));
    });
}

fn time(name: &str, verdict: &str, work: impl Fn()) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((ROUNDS - 1) as f64 * share) as usize];
    println!(
        "{name:<34} {verdict:<7} p50 {:6.2} us  p95 {:6.2} us  p99 {:6.2} us",
        at(0.5),
        at(0.95),
        at(0.99)
    );
}

fn main() {
    for hosts in [1, 10, 100, 1000] {
        let allow: Vec<String> =
            (0..hosts).map(|n| format!("GET api{n}.example.test/v1/*")).collect();
        let mut sources = Sources::new(Principal::agent("triage", "support"));
        sources.routes = vec!["default".to_owned()];
        sources.permissions =
            Some(Permissions { preset: Some(Preset::Observe), allow, ..Permissions::default() });
        let start = Instant::now();
        let set = PolicySet::compile(&sources).expect("generated permissions compile");
        let compiled = start.elapsed().as_secs_f64() * 1e3;
        println!("{hosts} host rules, compiled in {compiled:.1} ms");
        measure("  http_request, permitted", &set, &http("api0.example.test", "GET"));
        measure("  http_request, other method", &set, &http("api0.example.test", "PUT"));
        measure("  http_request, unknown host", &set, &http("evil.test", "GET"));
        let command =
            ActionRequest::RunCommand { tool: "shell".to_owned(), command: "ls -l".to_owned() };
        measure("  run_command, permitted", &set, &command);
        for host in ["api0.example.test", "evil.test"] {
            let may = set.may_permit_host(host).to_string();
            time("  may any rule permit this name", &may, || {
                black_box(set.may_permit_host(black_box(host)));
            });
        }
    }
    facts();
}

/// Every attribute that comes from facts, so that none is left out of the question.
const LOOKS_AT_ALL: &str = r#"forbid(principal, action == Action::"http_request", resource) when {
  context.websocket && context.body_bytes > 0 && context.body_understood && context.refs_known &&
  context.may_force && context.deletes && context.headers.isEmpty() && context.secrets.isEmpty() &&
  context.fields.isEmpty() && context.rpc_methods.isEmpty() && context.refs.isEmpty() &&
  context.ref_changes.isEmpty() && context.refs_within.isEmpty() &&
  context.refs_touched.isEmpty() && context.body_kind == context.package &&
  context.repository == context.repository_folded && context.operation == ""
};"#;

fn facts() {
    let allow = ["GET api0.example.test/v1/*", "git push git.example.test/o/r refs/heads/agent/*"];
    let mut sources = Sources::new(Principal::agent("triage", "support"));
    sources.permissions = Some(Permissions {
        allow: allow.map(str::to_owned).to_vec(),
        guard: vec![Guard::Trifecta, Guard::Stale { seconds: 900 }],
        ..Permissions::default()
    });
    sources.cedar = Some(("policy.cedar".to_owned(), LOOKS_AT_ALL.to_owned()));
    let set = PolicySet::compile(&sources).expect("generated permissions compile");
    println!("guards and a policy that looks at all facts");
    measure("  http_request, no facts", &set, &http("api0.example.test", "GET"));
    let mut push = http("git.example.test", "POST");
    if let ActionRequest::HttpRequest { path, facts, .. } = &mut push {
        "/o/r.git/git-receive-pack".clone_into(path);
        *facts = Some(Box::new(pushed()));
    }
    measure("  git push, permitted", &set, &push);
}

fn pushed() -> HttpFacts {
    let name = "refs/heads/agent/x".to_owned();
    HttpFacts {
        operation: "git push".to_owned(),
        headers: vec!["accept=*/*".to_owned(), "content-type=application/x-git".to_owned()],
        git: Some(GitFacts {
            repository: "o/r".to_owned(),
            service: "git-receive-pack".to_owned(),
            updates: vec![RefUpdate { name, change: RefChange::Create }],
            complete: true,
        }),
        ..HttpFacts::default()
    }
}
