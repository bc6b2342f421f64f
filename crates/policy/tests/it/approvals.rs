//! Approval only opens; people and who may do what to a run.

use crate::support::{cedar, cedar_sources, request, verdict, wrong};
use policy::{Because, DecisionInput, PersonAction, PersonInput, PolicySet, Principal};
use types::Verdict;

fn policy(effect: &str, clause: &str) -> String {
    format!("{effect}(principal, action == Action::\"run_command\", resource) {clause};")
}

#[test]
fn only_policies_that_open_with_approval_are_loaded() {
    for (effect, clause, loads) in [
        ("permit", "when { context.approved }", true),
        ("permit", "unless { !context.approved }", true),
        ("permit", "when { context.approved == true }", true),
        ("permit", "when { false != context.approved }", true),
        ("permit", "when { context.approved || context.command == \"ls\" }", true),
        ("permit", "when { if context.approved then true else context.command == \"ls\" }", true),
        ("permit", "when { if context.command == \"ls\" then true else context.approved }", true),
        ("permit", "when { context has approved }", true),
        ("permit", "unless { context.approved }", false),
        ("permit", "when { !context.approved }", false),
        ("permit", "when { context.approved == false }", false),
        ("permit", "when { context.approved != true }", false),
        ("permit", "when { if context.approved then false else true }", false),
        ("permit", "when { context.approved == (context.command == \"ls\") }", false),
        ("permit", "when { [false].contains(context.approved) }", false),
        ("permit", "when { {a: context.approved}.a }", false),
        ("permit", "when { context.approved || !context.approved }", false),
        ("forbid", "unless { context.approved }", true),
        ("forbid", "when { !context.approved }", true),
        ("forbid", "when { context.approved == false && context.command like \"rm *\" }", true),
        ("forbid", "when { context.approved }", false),
        ("forbid", "unless { context.approved == false }", false),
    ] {
        let text = policy(effect, clause);
        match PolicySet::compile(&cedar_sources(&text)) {
            Ok(_) => assert!(loads, "{text}"),
            Err(errors) => {
                assert!(!loads, "{text}: {errors:?}");
                assert!(
                    wrong(&cedar_sources(&text))[0].starts_with("BP-POLICY-007 policy.cedar:1:1")
                );
            }
        }
    }
}

#[test]
fn asked_actions_are_permitted_once_approved() {
    let set = cedar(&policy("permit", "when { context.approved }"));
    let mut input = DecisionInput::new(Principal::agent("triage", ""), request("run shell"));
    let asked = set.decide(&input);
    assert_eq!(
        (asked.verdict, asked.because, asked.failure()),
        (Verdict::Ask, Because::Asked, None)
    );
    input.approved = true;
    let permitted = set.decide(&input);
    assert_eq!(permitted.verdict, Verdict::Permit);
    assert_ne!(asked.input, permitted.input, "approval is part of the input");
}

#[test]
fn an_approval_is_judged_by_the_labels_of_then() {
    let set = cedar(
        "permit(principal, action == Action::\"run_command\", resource) when { context.approved };
         forbid(principal, action, resource) when { context.labels.contains(\"untrusted\") };",
    );
    let mut input = DecisionInput::new(Principal::agent("triage", ""), request("run shell"));
    assert_eq!(set.decide(&input).verdict, Verdict::Ask);
    input.approved = true;
    input.carried.labels = types::Labels::one("untrusted");
    let denied = set.decide(&input);
    assert_eq!((denied.verdict, denied.because), (Verdict::Deny, Because::Forbidden));
    assert_eq!(denied.failure().expect("denied").code, "BP-POLICY-021");
}

#[test]
fn the_strictest_of_several_decisions_counts() {
    let set = cedar(
        "@log(\"a\") permit(principal, action == Action::\"run_command\", resource == Tool::\"shell\");
         @log(\"b\") permit(principal, action == Action::\"run_command\", resource == Tool::\"python\") when { context.approved };",
    );
    let input = |text: &str| DecisionInput::new(Principal::agent("triage", ""), request(text));
    for (texts, expected, log) in [
        (vec!["run shell"], Verdict::Permit, Some("a")),
        (vec!["run shell", "run python"], Verdict::Ask, Some("a, b")),
        (vec!["run python", "mount /x", "run shell"], Verdict::Deny, Some("a, b")),
        (vec!["run check", "mount /x"], Verdict::Deny, None),
        (vec![], Verdict::Deny, None),
    ] {
        let inputs: Vec<DecisionInput> = texts.iter().map(|text| input(text)).collect();
        let decision = set.decide_all(&inputs);
        assert_eq!(decision.verdict, expected, "{texts:?}");
        assert_eq!(decision.obligations.get("log").map(String::as_str), log, "{texts:?}");
    }
    let one = input("run shell");
    assert_eq!(set.decide_all(std::slice::from_ref(&one)), set.decide(&one));
}

#[test]
fn a_user_is_another_principal() {
    let set = cedar("permit(principal is User, action == Action::\"run_command\", resource);");
    assert_eq!(verdict(&set, "run shell"), Verdict::Deny);
    let input = DecisionInput::new(Principal::user("ada"), request("run shell"));
    assert_eq!(set.decide(&input).verdict, Verdict::Permit);
}

#[test]
fn people_may_until_policy_speaks_of_it() {
    let ask = |set: &PolicySet, login: &str, team: &str, action| {
        let mut person = Principal::user(login);
        person.teams = vec![team.to_owned()];
        set.decide_person(&PersonInput {
            person,
            action,
            run: "0123456789ab".into(),
            agent: "triage".into(),
        })
    };
    let silent = cedar("");
    assert_eq!(ask(&silent, "ada", "", PersonAction::Approve).verdict, Verdict::Permit);
    let ops = cedar(
        "@approvers(\"2\") permit(principal in Team::\"ops\", action == Action::\"approve\", resource in Agent::\"triage\");
         forbid(principal == User::\"bob\", action == Action::\"cancel\", resource);",
    );
    for (login, team, action, expected) in [
        ("ada", "ops", PersonAction::Approve, Verdict::Permit),
        ("ada", "sales", PersonAction::Approve, Verdict::Deny),
        ("ada", "sales", PersonAction::View, Verdict::Permit),
        ("ada", "sales", PersonAction::Cancel, Verdict::Permit),
        ("bob", "ops", PersonAction::Cancel, Verdict::Deny),
        ("bob", "ops", PersonAction::Edit, Verdict::Permit),
    ] {
        assert_eq!(ask(&ops, login, team, action).verdict, expected, "{login} {action:?}");
    }
    let two = ask(&ops, "ada", "ops", PersonAction::Approve);
    assert_eq!(two.obligations.get("approvers").map(String::as_str), Some("2"));
    let mut program = PersonInput {
        person: Principal::agent("triage", "ops"),
        action: PersonAction::Approve,
        run: String::new(),
        agent: "triage".into(),
    };
    assert_eq!(silent.decide_person(&program).verdict, Verdict::Deny, "an agent approves nothing");
    program.person = Principal::user("ada");
    assert_eq!(silent.decide_person(&program).verdict, Verdict::Permit);
}
