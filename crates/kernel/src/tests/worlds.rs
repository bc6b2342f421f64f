//! Forks and going back: what a run takes with it, and what it leaves.

use super::*;
use crate::Ambiguity;

/// Another run that goes on after record `at` of this one, in a world of its own.
fn fork(of: &Run, at: u64) -> Run {
    fork_as(of, at, None)
}

fn fork_as(of: &Run, at: u64, attempt: Option<Attempt>) -> Run {
    let mut run = Run {
        records: of.records[..=at as usize].to_vec(),
        state: State::of(&of.records[..=at as usize]),
        world: World { now_ms: of.world.now_ms, ..World::default() },
        epoch: 1,
        script: of.script.clone(),
    };
    let origin = RunId::parse("000000000000").expect("valid");
    run.append(Body::Forked { origin, at, by: "ada".to_owned(), attempt });
    run
}

fn back(run: &mut Run, at: u64) -> u64 {
    let to = State::of(&run.records[..=at as usize]).layer.expect("a layer");
    let (reason, by) = (String::new(), "ada".to_owned());
    run.append(Body::RolledBack { to, reason, at: Some(at), by })
}

fn mixed() -> Run {
    Run::new(vec![MIXED.to_vec(), vec![("mail", EffectClass::Irreversible)]])
}

/// Keys of irreversible actions that were intended before a record.
fn intended(run: &Run, upto: u64) -> Vec<u64> {
    let irreversible = |id: &u64| run.state.actions[id].effect == EffectClass::Irreversible;
    let started = run.records[..=upto as usize].iter().filter_map(|record| match &record.body {
        Body::ActionStarted { action, .. } => Some(*action),
        _ => None,
    });
    started.filter(|id| run.state.actions.contains_key(id) && irreversible(id)).collect()
}

#[test]
fn an_attempt_stays_the_same_attempt_wherever_it_goes_back_to() {
    let mut run = mixed();
    to_the_end(&mut run);
    let attempt = Some(Attempt { number: 3, seed: 43 });
    let mut other = fork_as(&run, 5, attempt);
    assert_eq!(other.state.attempt, attempt);
    back(&mut other, 3);
    assert_eq!(other.state.attempt, attempt);
}

#[test]
fn a_fork_at_any_record_ends_and_repeats_nothing_irreversible() {
    let mut run = mixed();
    to_the_end(&mut run);
    for at in 1..run.records.len() as u64 {
        let mut other = fork(&run, at);
        assert_eq!(other.state.epoch, 0, "its owners count from the beginning");
        assert!(!other.step(false), "it is set aside until somebody takes it up: {at}");
        let ended = other.state.ended.is_some();
        assert_eq!(other.state.status(false) == Status::Suspended, !ended, "{at}");
        if ended {
            continue;
        }
        other.resume();
        to_the_end(&mut other);
        assert_eq!(other.state.status(false), Status::Done, "forked at {at}");
        for id in intended(&run, at) {
            assert!(!other.world.effects.contains_key(&format!("k{id}")), "{id} again at {at}");
        }
        assert_eq!(conversation(&other).len(), conversation(&run).len(), "forked at {at}");
        assert_eq!(State::of(&other.records), other.state);
    }
}

#[test]
fn going_back_to_any_record_ends_and_repeats_nothing_that_was_in_flight_there() {
    let mut calm = mixed();
    to_the_end(&mut calm);
    for at in 1..calm.records.len() as u64 - 1 {
        let mut run = mixed();
        to_the_end(&mut run);
        let before = intended(&run, at);
        run.world.effects.clear();
        back(&mut run, at);
        assert_eq!(run.state.status(false), Status::Suspended, "{at}");
        assert_eq!(run.state.epoch, 0);
        run.resume();
        to_the_end(&mut run);
        assert_eq!(run.state.status(false), Status::Done, "back to {at}");
        for id in before {
            assert!(!run.world.effects.contains_key(&format!("k{id}")), "{id} again at {at}");
        }
        assert_eq!(State::of(&run.records), run.state);
    }
}

/// Runs until an action of this tool has come to a phase.
fn until(phase: impl Fn(&Phase) -> bool, tool: &'static str, effect: EffectClass) -> (Run, u64) {
    let mut run = Run::new(vec![vec![(tool, effect)]]);
    for _ in 0..100 {
        if let Some(action) = run.state.current_action().filter(|action| phase(&action.phase)) {
            let id = action.id;
            return (run, id);
        }
        run.step(true);
    }
    panic!("it never comes to this");
}

#[test]
fn what_a_person_or_a_policy_said_at_the_fork_does_not_count() {
    let approve = |run: &mut Run, id: u64| {
        run.append(Body::ApprovalAsked {
            action: id,
            shown: "mail".to_owned(),
            bound: Digest::ZERO,
            expires_ms: u64::MAX,
            needs: 1,
        })
    };
    let (mut run, id) = until(|p| *p == Phase::NeedsApproval, "mail", EffectClass::Irreversible);
    let mut moments = vec![run.state.next_seq - 1];
    let asked = approve(&mut run, id);
    moments.push(asked);
    run.answer(asked, ApprovalVerdict::Approved);
    moments.push(run.state.next_seq - 1);
    run.append(decision(id, Verdict::Permit, true));
    moments.push(run.state.next_seq - 1);
    for at in moments {
        let other = fork(&run, at);
        let action = &other.state.actions[&id];
        assert_eq!((&action.phase, action.approved), (&Phase::Proposed, None), "{at}");
        let mut same = Run { records: run.records.clone(), ..mixed() };
        same.state = run.state.clone();
        back(&mut same, at);
        assert_eq!(same.state.actions[&id].phase, Phase::Proposed, "{at}");
    }
}

#[test]
fn what_was_given_to_one_run_alone_stays_with_it() {
    let mut run = mixed();
    let allow = vec!["GET api.test/*".to_owned()];
    let by = "ada".to_owned();
    run.append(Body::PolicyChanged { policy_set: Digest::ZERO, allow: allow.clone(), by });
    run.append(Body::BudgetReserved { cost: Usd { micros: 7 }, tokens: 9 });
    let at = run.state.next_seq - 1;
    let other = fork(&run, at);
    assert_eq!(other.state.allowed, Vec::<String>::new());
    assert_eq!((other.state.spent.reserved_tokens, other.state.spent.tokens), (0, 0));
    // The same run keeps what the operator gave it; nobody knows whether the provider counted.
    back(&mut run, 1);
    assert_eq!(run.state.allowed, allow);
    assert_eq!((run.state.spent.reserved_tokens, run.state.spent.tokens), (0, 9));
}

#[test]
fn what_was_in_flight_is_done_again_only_when_it_can_be() {
    let check = |tool, effect, expected: Phase| {
        let (run, id) = until(|p| *p == Phase::Started, tool, effect);
        let at = run.state.next_seq - 1;
        let other = fork(&run, at);
        assert_eq!(other.state.actions[&id].phase, expected, "{tool}");
    };
    check("look", EffectClass::Read, Phase::Interrupted);
    check("shell", EffectClass::Workspace, Phase::Interrupted);
    check("put", EffectClass::Idempotent, Phase::Interrupted);
    check("blind", EffectClass::Irreversible, Phase::Settled);
    // In doubt there, left alone here.
    let (mut run, id) = until(|p| *p == Phase::Started, "blind", EffectClass::Irreversible);
    run.resume();
    assert_eq!(run.state.actions[&id].phase, Phase::Ambiguous(Ambiguity::Crash));
    run.append(Body::ActionInDoubt { action: id, attempt: 1, reason: String::new() });
    let at = run.state.next_seq - 1;
    for at in [at - 1, at] {
        let other = fork(&run, at);
        assert_eq!(other.state.actions[&id].phase, Phase::Settled);
        assert!(other.state.open_questions().next().is_none());
    }
}

/// A POST that was permitted, and its end if it has one.
fn posted(run: &mut Run, during: u64, ended: bool) -> Digest {
    let digest = Digest::of(&run.state.next_seq.to_be_bytes());
    let request = ActionRequest::Connect { host: "api.test".to_owned(), port: 443 };
    let egress = run.append(Body::EgressDecided {
        during: Some(during),
        request: Box::new(request),
        bound: digest,
        effect: EffectClass::Irreversible,
        verdict: Verdict::Permit,
        approved: None,
        policies: Vec::new(),
        reason: String::new(),
        policy_set: Digest::ZERO,
        input: Digest::ZERO,
        carried: Carried::default(),
        failure: None,
        exchange: None,
        replays: None,
    });
    if ended {
        let (status, bytes_up, bytes_down, failure) = (200, 0, 0, None);
        let (sent, as_of) = (true, None);
        run.append(Body::EgressEnded {
            egress,
            status,
            bytes_up,
            bytes_down,
            failure,
            sent,
            as_of,
            kept: None,
        });
    }
    digest
}

#[test]
fn twins_of_what_was_sent_stay_known() {
    let (mut run, id) = until(|p| *p == Phase::Started, "shell", EffectClass::Workspace);
    let before = run.state.next_seq - 1;
    let sent = posted(&mut run, id, true);
    let open = posted(&mut run, id, false);
    let at = run.state.next_seq - 1;
    let other = fork(&run, at);
    assert!(other.state.egress.has_twin(&sent) && other.state.egress.has_twin(&open));
    assert_eq!(other.state.actions[&id].phase, Phase::Settled, "the command sent something");
    let early = fork(&run, before);
    assert!(!early.state.egress.has_twin(&sent), "it shares nothing with what came later");
    // The same run sent it, however far it goes back.
    back(&mut run, before);
    assert!(run.state.egress.has_twin(&sent) && run.state.egress.has_twin(&open));
    assert_eq!(run.state.actions[&id].phase, Phase::Interrupted);
}

#[test]
fn going_back_is_undone_by_going_back_to_the_record_before() {
    let mut run = mixed();
    to_the_end(&mut run);
    let (ended, items) = (run.state.ended.clone(), run.state.items.clone());
    for round in 0..20 {
        let head = run.state.next_seq - 1;
        back(&mut run, 5);
        assert_ne!(run.state.items, items);
        assert_eq!(run.state.ended, None);
        back(&mut run, head);
        assert_eq!((&run.state.items, &run.state.ended), (&items, &ended), "round {round}");
    }
    assert_eq!(State::of(&run.records), run.state);
}
