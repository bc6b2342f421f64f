//! A run whose steps a caller takes, against a caller that dies anywhere and begins again.

use super::*;
use crate::{AskedStep, StepFault};
use types::{Coded, EndAs, Step};

fn tool(name: &str) -> Step {
    Step::Tool { call_id: None, name: name.to_owned(), arguments: json!({}) }
}

fn model(input: &str) -> Step {
    Step::Model { input: Some(input.to_owned()) }
}

fn end(status: EndAs) -> Step {
    Step::End { status, output: "that was it".to_owned() }
}

/// A run that was opened, whose model first asks for `mail` and then says that it is done.
fn opened() -> Run {
    let mut run = Run::new(vec![vec![("mail", EffectClass::Irreversible)]]);
    run.script.extend(MIXED.iter().map(|one| vec![*one]));
    open(&mut run, "a");
    run
}

fn open(run: &mut Run, opening: &str) {
    let (key, by) = ("order-1".to_owned(), "p".to_owned());
    run.append(Body::CallerOpened { key, opening: opening.to_owned(), by });
}

fn place(run: &Run, at: u64, step: &Step) -> Result<AskedStep, &'static str> {
    let opening = run.state.caller.as_ref().map_or_else(String::new, |c| c.opening.clone());
    run.state.place_step(&opening, at, step).map_err(|fault| fault.code())
}

/// Takes a step as the runtime does: recorded when it is new, then carried out. Gives the record of
/// its outcome, none when the owner died over it.
fn take(run: &mut Run, at: u64, step: &Step, die: bool) -> Option<u64> {
    if place(run, at, step) == Ok(AskedStep::New) {
        run.append(Body::StepTaken { at, step: step.clone() });
    }
    for _ in 0..100 {
        match place(run, at, step).expect("it was recorded") {
            AskedStep::Known(Some(seq)) => return Some(seq),
            _ if !run.step(die) => return None,
            _ => {}
        }
    }
    panic!("the step does not end");
}

#[test]
fn a_step_is_carried_out_like_the_loop_s_own_and_answered_again_from_the_log() {
    let mut run = opened();
    let steps = [model("go"), tool("look"), tool("mail"), tool("forbidden"), end(EndAs::Done)];
    let done: Vec<Option<u64>> =
        (0..).zip(&steps).map(|(at, step)| take(&mut run, at, step, false)).collect();
    assert!(done.iter().all(Option::is_some), "{done:?}");
    assert_eq!(run.state.status(false), Status::Done);
    assert_eq!(run.state.ended.as_ref().expect("ended").output, "that was it");
    let (records, effects) = (run.records.len(), run.world.effects.clone());
    open(&mut run, "b");
    for ((at, step), seq) in (0..).zip(&steps).zip(done) {
        assert_eq!(place(&run, at, step), Ok(AskedStep::Known(seq)));
    }
    assert_eq!((run.records.len(), &run.world.effects), (records + 1, &effects));
}

#[test]
fn the_caller_chooses_which_of_the_model_s_calls_is_carried_out() {
    let mut run = opened();
    take(&mut run, 0, &model("go"), false);
    assert!(!run.step(false), "nothing is done unasked");
    let call = |id: &str, name: &str| Step::Tool {
        call_id: Some(id.to_owned()),
        name: name.to_owned(),
        arguments: json!({}),
    };
    assert_eq!(place(&run, 1, &call("nope", "mail")), Err("BP-SERVE-014"));
    assert_eq!(place(&run, 1, &call("0.0", "look")), Err("BP-SERVE-014"));
    assert!(take(&mut run, 1, &call("0.0", "mail"), false).is_some());
    assert_eq!(run.world.effects.len(), 1);
    assert_eq!(place(&run, 2, &call("0.0", "mail")), Err("BP-SERVE-014"), "it is done");
    // A call that is left is answered before the model is asked again.
    take(&mut run, 2, &model("more"), false);
    take(&mut run, 3, &model("and more"), false);
    let results = conversation(&run);
    assert_eq!(results, [("0.0".to_owned(), false), ("1.0".to_owned(), true)]);
}

#[test]
fn another_step_at_the_same_place_is_refused_and_both_are_named() {
    let mut run = opened();
    take(&mut run, 0, &tool("look"), false);
    let fault = run.state.place_step("a", 0, &tool("put")).expect_err("another");
    assert_eq!(fault.code(), "BP-SERVE-009");
    let said = fault.to_string();
    assert!(said.contains("tool look {}") && said.contains("tool put {}"), "{said}");
    assert_eq!(place(&run, 2, &tool("put")), Err("BP-SERVE-010"));
    run.append(Body::StepTaken { at: 1, step: tool("put") });
    assert_eq!(place(&run, 2, &tool("put")), Err("BP-SERVE-010"), "the one before is not done");
    open(&mut run, "b");
    let old = run.state.place_step("a", 1, &tool("put"));
    assert_eq!(old, Err(StepFault::Superseded));
    assert_eq!(StepFault::Superseded.code(), "BP-SERVE-011");
    let own = Run::new(Vec::new());
    assert_eq!(place(&own, 0, &tool("look")), Err("BP-SERVE-012"));
}

#[test]
fn a_run_has_so_many_steps_and_not_one_more() {
    let taken = |at| crate::Taken { seq: at, step: tool("look"), done: Some(at) };
    let caller = |count| crate::Caller {
        steps: (0..count).map(taken).collect(),
        ..crate::Caller::default()
    };
    let last = crate::STEPS_MAX - 1;
    assert_eq!(caller(last).place("", last, &tool("put")), Ok(AskedStep::New));
    let beyond = caller(last + 1).place("", last + 1, &tool("put"));
    assert_eq!(beyond.map_err(|fault| fault.code()), Err("BP-SERVE-010"));
}

#[test]
fn a_caller_that_gives_up_has_a_failed_run() {
    let mut run = opened();
    assert!(take(&mut run, 0, &end(EndAs::Failed), false).is_some());
    let ended = run.state.ended.as_ref().expect("ended");
    let error = ended.error.as_ref().expect("a reason");
    assert_eq!((ended.status, error.code.as_str()), (EndStatus::Failed, "BP-SERVE-013"));
    assert_eq!(place(&run, 1, &tool("look")), Ok(AskedStep::New), "the runtime refuses it");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Owner and caller die anywhere; the caller begins again from its first step each time.
    #[test]
    fn deaths_of_both_never_double_an_effect(
        picks in prop::collection::vec(0..MIXED.len() + 1, 1..8),
        deaths in prop::collection::vec((any::<bool>(), any::<bool>()), 0..12),
        happened in any::<bool>(),
    ) {
        let step = |pick: &usize| MIXED.get(*pick).map_or_else(|| model("go"), |one| tool(one.0));
        let mut steps: Vec<Step> = picks.iter().map(step).collect();
        steps.push(end(EndAs::Done));
        let mut run = opened();
        run.world.happened = happened;
        let mut deaths = deaths.into_iter();
        let mut outcomes: BTreeMap<u64, u64> = BTreeMap::new();
        'life: loop {
            for (at, step) in (0..).zip(&steps) {
                let (owner, caller) = match outcomes.contains_key(&at) {
                    true => (false, false),
                    false => deaths.next().unwrap_or((false, false)),
                };
                let Some(seq) = take(&mut run, at, step, owner) else {
                    run.resume();
                    open(&mut run, "again");
                    continue 'life;
                };
                prop_assert_eq!(*outcomes.entry(at).or_insert(seq), seq, "one outcome a step");
                if caller {
                    open(&mut run, "again");
                    continue 'life;
                }
            }
            break;
        }
        prop_assert_eq!(run.state.status(false), Status::Done);
        let tools = steps.iter().filter(|step| matches!(step, Step::Tool { .. })).count();
        prop_assert!(run.world.effects.len() <= tools);
        for action in run.state.actions.values() {
            let count = run.world.effects.get(&format!("k{}", action.id)).copied().unwrap_or(0);
            let once = action.effect == EffectClass::Read || count <= 1;
            prop_assert!(once, "{} happened {count} times", action.tool);
        }
    }
}
