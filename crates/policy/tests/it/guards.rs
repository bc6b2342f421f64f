//! Guards: what they ask, what they leave alone, and what they say.

use crate::support::{compile, list, request, sources, with_facts};
use policy::{Decision, DecisionInput, Principal, Sources};
use proptest::prelude::*;
use types::manifest::{Guard, Permissions};
use types::{BodyFacts, BodyKind, Carried, HttpFacts, Labels, Verdict};

fn guarded(guard: Vec<Guard>) -> Sources {
    let allow = [
        "open_ticket",
        "put_page",
        "lookup",
        "shell",
        "GET a.test",
        "POST a.test",
        "OPTIONS a.test",
        "CONNECT a.test:443",
    ];
    sources(Some(Permissions { allow: list(&allow), guard, ..Permissions::default() }))
}

fn decide(sources: &Sources, text: &str, labels: &[&str], age: u64, approved: bool) -> Decision {
    let mut carried = Carried { labels: Labels::none(), oldest_input_age: age };
    labels.iter().for_each(|label| carried.labels.join(&Labels::one(label)));
    let kind = match text.strip_suffix(" +body") {
        Some(_) => BodyKind::Buffered,
        None => BodyKind::None,
    };
    let plain = text.trim_end_matches(" +body");
    let request = match plain.contains('/') {
        true => {
            let body = BodyFacts { kind, ..BodyFacts::default() };
            with_facts(plain, HttpFacts { body, ..HttpFacts::default() })
        }
        false => request(plain),
    };
    let mut input = DecisionInput::new(Principal::agent("triage", "support"), request);
    (input.carried, input.approved) = (carried, approved);
    compile(sources).decide(&input)
}

const OUTWARD: [&str; 5] =
    ["POST a.test/x", "GET a.test/x +body", "connect a.test", "tool open_ticket", "tool put_page"];
const INWARD: [&str; 5] =
    ["GET a.test/x", "OPTIONS a.test/x", "tool lookup", "run shell", "model default"];

#[test]
fn trifecta_asks_what_goes_out_once_private_and_untrusted_meet() {
    let set = guarded(vec![Guard::Trifecta]);
    let both = ["untrusted", "confidential:payroll"];
    for (labels, verdict) in [
        (&[][..], Verdict::Permit),
        (&["untrusted"], Verdict::Permit),
        (&["confidential", "pii", "secret"], Verdict::Permit),
        (&both, Verdict::Ask),
        (&["untrusted", "pii"], Verdict::Ask),
        (&["untrusted", "secret"], Verdict::Ask),
        (&["untrusted", "confidentially"], Verdict::Permit),
    ] {
        for action in OUTWARD {
            assert_eq!(
                decide(&set, action, labels, 0, false).verdict,
                verdict,
                "{action} {labels:?}"
            );
            let approved = decide(&set, action, labels, 0, true).verdict;
            assert_eq!(approved, Verdict::Permit, "{action} {labels:?}");
        }
        for action in INWARD {
            let got = decide(&set, action, labels, 0, false).verdict;
            assert_eq!(got, Verdict::Permit, "{action} {labels:?}");
        }
    }
    let unguarded = guarded(Vec::new());
    assert_eq!(decide(&unguarded, OUTWARD[0], &both, 0, false).verdict, Verdict::Permit);
}

#[test]
fn a_request_into_which_nothing_looked_counts_as_one_with_a_body() {
    let mut input =
        DecisionInput::new(Principal::agent("triage", "support"), request("GET a.test/x"));
    for label in ["untrusted", "pii"] {
        input.carried.labels.join(&Labels::one(label));
    }
    let set = compile(&guarded(vec![Guard::Trifecta]));
    assert_eq!(set.decide(&input).verdict, Verdict::Ask);
}

#[test]
fn stale_asks_what_acts_on_an_old_input() {
    let set = guarded(vec![Guard::Stale { seconds: 900 }]);
    for (age, verdict) in [(900, Verdict::Permit), (901, Verdict::Ask)] {
        for action in OUTWARD {
            assert_eq!(decide(&set, action, &[], age, false).verdict, verdict, "{action} {age}");
        }
        for action in INWARD {
            assert_eq!(decide(&set, action, &[], age, false).verdict, Verdict::Permit, "{action}");
        }
    }
}

#[test]
fn a_guard_names_and_explains_itself() {
    let set = guarded(vec![Guard::Trifecta, Guard::Stale { seconds: 60 }]);
    let asked = decide(&set, "POST a.test/x", &["untrusted", "pii"], 61, false);
    let named = |id: &str| asked.policies.iter().any(|policy| policy == id);
    assert!(named("guard.trifecta.http") && named("guard.stale.http"), "{:?}", asked.policies);
    assert!(asked.reason.contains("private data and untrusted input"), "{}", asked.reason);
    assert!(asked.reason.contains("older than 60 s"), "{}", asked.reason);
    let rows = compile(&set).table();
    let row = rows.iter().find(|row| row.policy == "guard.trifecta.tools").expect("a row");
    assert_eq!((row.verdict, row.source.as_str()), (Verdict::Ask, "guard.trifecta.tools"));
    assert_eq!(rows.iter().filter(|row| row.policy.starts_with("guard.")).count(), 6);
}

#[test]
fn nobody_else_may_take_a_guards_name() {
    let mut of = guarded(vec![Guard::Trifecta]);
    let text = "@id(\"guard.mine\") forbid(principal, action, resource);";
    of.cedar = Some(("policy.cedar".into(), text.into()));
    let errors = crate::support::wrong(&of);
    assert!(errors[0].starts_with("BP-POLICY-009"), "{errors:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// A guard turns permits into asks and nothing else.
    #[test]
    fn a_guard_only_turns_permits_into_asks(
        action in proptest::sample::select([OUTWARD, INWARD].concat()),
        labels in proptest::sample::subsequence(vec!["untrusted", "pii", "secret", "confidential:x", "other"], 0..5),
        age in 0u64..2000, seconds in 1u32..2000, approved in any::<bool>(),
    ) {
        let with = decide(&guarded(vec![Guard::Trifecta, Guard::Stale { seconds }]), action, &labels, age, approved);
        let without = decide(&guarded(Vec::new()), action, &labels, age, approved);
        let private = labels.iter().any(|label| ["pii", "secret", "confidential:x"].contains(label));
        let caught = OUTWARD.contains(&action) && (age > u64::from(seconds) || private && labels.contains(&"untrusted"));
        prop_assert_eq!(without.verdict, Verdict::Permit);
        prop_assert_eq!(with.verdict, if caught && !approved { Verdict::Ask } else { Verdict::Permit });
    }
}
