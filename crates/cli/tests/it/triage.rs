//! `examples/triage`: the same agent and script against services that are right, stale, and hostile.
//! The demo judges by the services' own state; `unguarded` is its positive control.

use crate::support::binary;
use std::path::Path;
use std::process::Command;

fn demo(variant: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/triage/demo.sh");
    let output = Command::new("sh")
        .arg(script)
        .arg(variant)
        .env("BEDPLATE", binary())
        .env("VERBOSE", "1")
        .output()
        .expect("sh runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    said
}

fn contains_all(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
}

/// How often the demo's person said yes.
fn approvals(said: &str) -> usize {
    said.lines().filter(|line| line.starts_with("    approve ")).count()
}

const RIGHT: &str = "priority normal, entitlement standard, not escalated: right";

#[test]
fn a_ticket_is_triaged_and_two_things_are_approved() {
    let said = demo("normal");
    contains_all(&said, &[RIGHT, "secret     mail", "secret     accounts", "replay: "]);
    assert_eq!(approvals(&said), 2, "{said}");
}

#[test]
fn a_stale_account_record_is_stopped_by_freshness() {
    let said = demo("stale");
    let age = "the oldest input is 93 days old";
    contains_all(&said, &[RIGHT, "triage.stale", age, "by its own word, 93 days old"]);
    assert_eq!(approvals(&said), 0, "{said}");
}

#[test]
fn an_injected_instruction_is_stopped_by_labels() {
    let said = demo("injected");
    contains_all(
        &said,
        &[
            RIGHT,
            "deny by triage.hands-off",
            "guard.trifecta.http",
            "confidential:accounts, untrusted",
            "which heard tracker.example.test",
        ],
    );
}

#[test]
fn without_guard_and_policy_the_same_script_does_the_harm() {
    contains_all(&demo("unguarded"), &["does all three, and the check fails"]);
}
