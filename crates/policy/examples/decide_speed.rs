//! How long one decision takes: `cargo run --release -p bedplate-policy --example decide_speed`.
//!
//! Prints p50, p95 and p99 of single decisions, in microseconds, for sets of growing size.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use policy::{DecisionInput, PolicySet, Principal, Sources};
use std::hint::black_box;
use std::time::Instant;
use types::ActionRequest;
use types::manifest::{Permissions, Preset};

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
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            black_box(set.decide(black_box(&input)));
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((ROUNDS - 1) as f64 * share) as usize];
    let verdict = set.decide(&input).verdict;
    println!(
        "{name:<34} {verdict:<7?} p50 {:6.2} us  p95 {:6.2} us  p99 {:6.2} us",
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
    }
}
