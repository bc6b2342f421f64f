//! The kernel against a small world that performs its commands and may die anywhere.

use crate::{Command, Phase, State, Status, next};
use proptest::prelude::*;
use serde_json::json;
use std::collections::BTreeMap;
use types::manifest::{self, Manifest};
use types::{
    ActionRequest, Actor, ApprovalVerdict, AsOf, Attempt, Body, Carried, Cause, Digest,
    EffectClass, EndStatus, Failure, FaultClass, Item, Labels, LayerId, Link, ModelFault,
    OutcomeStatus, Output, Record, Resolution, ResolvedBy, RunId, Stamp, TimerPurpose, Usage, Usd,
    Verdict,
};

mod caller;
mod memory;
mod worlds;

const TEXT: &str = r#"
schema = 1
[routes]
default = ["script/a", "script/b"]
[[tool]]
name = "look"
command = ["x"]
effect = "read"
retries = { attempts = 3, backoff = "1s" }
[[tool]]
name = "put"
command = ["x"]
effect = "idempotent"
[[tool]]
name = "mail"
command = ["x"]
probe = ["y"]
[[tool]]
name = "blind"
command = ["x"]
[[check]]
name = "fine"
command = "true"
"#;

fn manifest() -> Manifest {
    manifest::parse(TEXT).expect("valid")
}

/// The world beside the log: what tools did, and a clock.
#[derive(Default)]
struct World {
    effects: BTreeMap<String, u32>,
    now_ms: u64,
    /// Whether the effect of an interrupted irreversible action had happened.
    happened: bool,
}

impl World {
    fn perform(&mut self, key: String, effect: EffectClass) {
        match effect {
            EffectClass::Workspace => {}
            EffectClass::Idempotent => {
                self.effects.insert(key, 1);
            }
            EffectClass::Read | EffectClass::Irreversible => {
                *self.effects.entry(key).or_default() += 1;
            }
        }
    }
}

/// A log, its fold, and a performer of commands.
struct Run {
    records: Vec<Record>,
    state: State,
    world: World,
    epoch: u64,
    script: Vec<Vec<(&'static str, EffectClass)>>,
}

impl Run {
    fn new(script: Vec<Vec<(&'static str, EffectClass)>>) -> Self {
        let mut run = Self {
            records: Vec::new(),
            state: State::new(),
            world: World::default(),
            epoch: 1,
            script,
        };
        run.append(Body::RunStarted {
            manifest: Box::new(manifest()),
            dir: None,
            workspace: None,
            base: layer(0),
            started_by: "t".to_owned(),
            host: json!({}),
            memory: None,
        });
        run.append(Body::ItemAdded { item: Item::UserMessage { text: "go".to_owned() } });
        run
    }

    fn append(&mut self, body: Body) -> u64 {
        self.append_because(body, Vec::new())
    }

    fn append_because(&mut self, body: Body, causes: Vec<Cause>) -> u64 {
        let seq = self.records.len() as u64;
        let run = RunId::parse("000000000000").expect("valid");
        let stamp = Stamp { run, branch: 0, seq, time_ms: self.world.now_ms, mono_ms: 0, boot: 0 };
        let digest = Digest::ZERO;
        let record = Record { stamp, prev: digest, digest, causes, actor: Actor::default(), body };
        self.records.push(record);
        match self.records[seq as usize].body.goes_back_to() {
            Some(_) => self.state = State::of(&self.records),
            None => self.state.fold(&self.records[seq as usize]),
        }
        seq
    }

    fn resume(&mut self) {
        self.epoch += 1;
        self.append(Body::Resumed { epoch: self.epoch });
    }

    /// Performs one command. `false` when the run is at rest.
    fn step(&mut self, die_after_intent: bool) -> bool {
        match next(&self.state, self.world.now_ms) {
            Command::CallModel { hop, attempt } => self.call_model(hop, attempt),
            Command::Propose { call_id } => self.propose(&call_id),
            Command::Decide { action, approved } => self.decide(action, approved.is_some()),
            Command::Ask { action } => {
                let expires_ms = self.world.now_ms + 1_000;
                let (shown, bound) = ("mail".to_owned(), Digest::ZERO);
                let asked =
                    self.append(Body::ApprovalAsked { action, shown, bound, expires_ms, needs: 1 });
                self.answer(asked, ApprovalVerdict::Approved);
            }
            Command::Start { action, attempt } => {
                self.start(action, attempt, die_after_intent);
                return !die_after_intent;
            }
            Command::RollBack { .. } => {
                let to = self.state.layer.clone().expect("has a layer");
                let (reason, by) = (String::new(), String::new());
                self.append(Body::RolledBack { to, reason, at: None, by });
            }
            Command::Probe { action } => self.probe(action),
            Command::Check { .. } => {
                self.append(Body::CheckPassed {
                    name: "fine".to_owned(),
                    output: Output::default(),
                });
            }
            Command::KeepArtifacts => {
                let output = self.state.last_words();
                self.append(Body::RunEnded { status: EndStatus::Done, output, error: None });
            }
            Command::End { status, error } => {
                self.append(Body::RunEnded { status, output: String::new(), error });
            }
            Command::Ended | Command::AwaitPerson | Command::AwaitCaller => return false,
            other => panic!("not expected here: {other:?}"),
        }
        true
    }

    fn answer(&mut self, asked: u64, verdict: ApprovalVerdict) {
        let (by, reason) = ("p".to_owned(), String::new());
        self.append(Body::ApprovalGiven {
            asked,
            verdict,
            by,
            reason,
            through: String::new(),
            opens: Vec::new(),
        });
    }

    fn call_model(&mut self, hop: u32, attempt: u32) {
        let turn = self.records.iter().filter(|r| is_answer(r)).count();
        self.append(called(hop, attempt, self.state.items.len() as u64));
        let items = match self.script.get(turn) {
            Some(calls) => calls
                .iter()
                .enumerate()
                .map(|(index, (name, _))| Item::ToolCall {
                    call_id: format!("{turn}.{index}"),
                    name: (*name).to_owned(),
                    arguments: json!({}),
                })
                .collect(),
            None => vec![Item::AssistantMessage { text: "done".to_owned() }],
        };
        self.append(answered(items, None));
        let actions: Vec<u64> = self.state.undelivered.iter().copied().collect();
        self.append(Body::Delivered { actions });
    }

    fn propose(&mut self, call_id: &str) {
        let (tool, _) = self.state.arguments(call_id).expect("a call");
        let tool = tool.to_owned();
        let all = self.script.iter().flatten();
        let effect = all.clone().find(|(name, _)| *name == tool).map(|(_, effect)| *effect);
        let request = ActionRequest::RunCommand { tool: tool.clone(), command: String::new() };
        self.append(Body::ActionProposed {
            call_id: call_id.to_owned(),
            tool,
            effect: effect.expect("scripted"),
            requests: vec![request],
        });
    }

    fn decide(&mut self, action: u64, approved: bool) {
        let tool = &self.state.actions[&action].tool;
        let verdict = match tool.as_str() {
            "forbidden" => Verdict::Deny,
            "mail" if !approved => Verdict::Ask,
            _ => Verdict::Permit,
        };
        self.append(decision(action, verdict, approved));
    }

    fn start(&mut self, action: u64, attempt: u32, die: bool) {
        let decided = self.state.actions[&action].decided;
        let decided = decided.expect("no intent without a decision");
        let permitted = matches!(
            &self.records[decided as usize].body,
            Body::DecisionMade { verdict: Verdict::Permit, .. }
        );
        assert!(permitted, "an action starts only after a permit");
        let key = format!("k{action}");
        let layer_now = self.state.layer.clone().expect("has a layer");
        self.append(Body::ActionStarted {
            action,
            attempt,
            key: key.clone(),
            epoch: self.epoch,
            layer: layer_now.clone(),
        });
        if !die || self.world.happened {
            self.world.perform(key, self.state.actions[&action].effect);
        }
        if die {
            return;
        }
        self.append(finished(action, attempt, OutcomeStatus::Ok, Some(0), layer_now));
    }

    fn probe(&mut self, action: u64) {
        let tool = self.state.actions[&action].tool.clone();
        let happened = self.world.effects.contains_key(&format!("k{action}"));
        let (by, result) = (ResolvedBy::Probe, None);
        if tool == "blind" {
            let doubt = Body::ActionInDoubt { action, attempt: 1, reason: String::new() };
            self.append(doubt);
            let resolution = if happened { Resolution::Happened } else { Resolution::NotHappened };
            let by = ResolvedBy::Person("p".to_owned());
            self.append(Body::ActionResolved { action, resolution, by, result });
            return;
        }
        let resolution = if happened { Resolution::Happened } else { Resolution::NotHappened };
        self.append(Body::ActionResolved { action, resolution, by, result });
    }
}

fn layer(number: u8) -> LayerId {
    LayerId::from_random([number; 8])
}

fn is_answer(record: &Record) -> bool {
    matches!(&record.body, Body::ModelAnswered { error: None, .. })
}

fn called(hop: u32, attempt: u32, items: u64) -> Body {
    Body::ModelCalled {
        hop,
        attempt,
        route: "default".to_owned(),
        provider: "script".to_owned(),
        model: "a".to_owned(),
        purpose: "act".to_owned(),
        items,
        prefix: Digest::ZERO,
        encoder: 1,
        request: Digest::ZERO,
        request_bytes: 1,
        approved: None,
    }
}

fn answered(items: Vec<Item>, error: Option<ModelFault>) -> Body {
    let (usage, cost, restored) = (Usage::default(), Usd::ZERO, Vec::new());
    Body::ModelAnswered { items, usage, cost, decoder: 1, error, restored }
}

fn decision(action: u64, verdict: Verdict, approved: bool) -> Body {
    Body::DecisionMade {
        action: Some(action),
        verdict,
        approved,
        policies: Vec::new(),
        reason: "r".to_owned(),
        policy_set: Digest::ZERO,
        input: Digest::ZERO,
        carried: Carried::default(),
    }
}

fn finished(
    action: u64,
    attempt: u32,
    status: OutcomeStatus,
    exit: Option<i32>,
    layer: LayerId,
) -> Body {
    Body::ActionFinished {
        action,
        attempt,
        status,
        exit,
        output: Output { text: "out".to_owned(), bytes: 3, artifact: None },
        layer,
        took_ms: 1,
        labels: Labels::none(),
        as_of: None,
    }
}

fn fault(class: FaultClass) -> ModelFault {
    let failure = Failure { code: "BP-MODEL-004".into(), message: "m".into(), next: "n".into() };
    ModelFault { class, failure, http_status: 500, retry_after_ms: None }
}

fn to_the_end(run: &mut Run) {
    for _ in 0..1_000 {
        if !run.step(false) {
            return;
        }
    }
    panic!("the run does not come to rest");
}

const MIXED: [(&str, EffectClass); 6] = [
    ("look", EffectClass::Read),
    ("shell", EffectClass::Workspace),
    ("put", EffectClass::Idempotent),
    ("mail", EffectClass::Irreversible),
    ("blind", EffectClass::Irreversible),
    ("forbidden", EffectClass::Irreversible),
];

fn conversation(run: &Run) -> Vec<(String, bool)> {
    let results = run.state.items.iter().filter_map(|placed| match &placed.item {
        Item::ToolResult { call_id, is_error, .. } => Some((call_id.clone(), *is_error)),
        _ => None,
    });
    results.collect()
}

#[test]
fn a_mixed_run_ends_done_and_does_each_effect_once() {
    let mut run = Run::new(vec![MIXED.to_vec()]);
    to_the_end(&mut run);
    assert_eq!(run.state.status(false), Status::Done);
    assert!(run.world.effects.values().all(|count| *count == 1), "{:?}", run.world.effects);
    assert_eq!(run.state.denials, 1);
    assert_eq!(run.state.approvals, 1);
}

/// Kills after every single record, with the interrupted effect done and not done, and resumes:
/// the same outcome, and no irreversible effect twice or lost.
#[test]
fn death_after_any_record_changes_nothing_but_the_log() {
    let mut calm = Run::new(vec![MIXED.to_vec(), vec![("mail", EffectClass::Irreversible)]]);
    to_the_end(&mut calm);
    let length = calm.records.len();
    for stop in 2..=length {
        for happened in [false, true] {
            let mut run = Run::new(vec![MIXED.to_vec(), vec![("mail", EffectClass::Irreversible)]]);
            run.world.happened = happened;
            while run.records.len() < stop {
                let dying = run.records.len() + 1 >= stop;
                if !run.step(dying) {
                    break;
                }
            }
            run.resume();
            to_the_end(&mut run);
            assert_eq!(run.state.status(false), Status::Done, "stopped at {stop}");
            assert_eq!(conversation(&run), conversation(&calm), "stopped at {stop}");
            let (ours, theirs) = (run.world.effects.len(), calm.world.effects.len());
            assert_eq!(ours, theirs, "an effect was lost or doubled at {stop}");
            for (key, count) in &run.world.effects {
                let action: u64 = key[1..].parse().expect("a key");
                let class = run.state.actions[&action].effect;
                assert!(class == EffectClass::Read || *count == 1, "{key} {count} times at {stop}");
            }
        }
    }
}

#[test]
fn folding_the_same_records_gives_the_same_state() {
    let mut run = Run::new(vec![MIXED.to_vec()]);
    to_the_end(&mut run);
    let again = State::of(&run.records);
    let bytes = |state: &State| serde_json::to_vec(state).expect("serialises");
    assert_eq!(bytes(&again), bytes(&run.state));
}

/// What a model's failure leads to: class, attempts made, and the command.
#[test]
fn a_failed_model_is_tried_again_then_replaced_then_waited_for() {
    let check = |class, attempts: u32, hop: u32, expected: &str| {
        let mut run = Run::new(Vec::new());
        for attempt in 1..=attempts {
            run.append(called(hop, attempt, 1));
        }
        run.state.hop = hop;
        run.append(answered(Vec::new(), Some(fault(class))));
        let command = format!("{:?}", next(&run.state, 0));
        assert!(command.starts_with(expected), "{class:?} after {attempts} at {hop}: {command}");
    };
    check(FaultClass::Transient, 1, 0, "Backoff { action: None, pause_ms: 500 }");
    check(FaultClass::Transient, 3, 0, "Backoff { action: None, pause_ms: 2000 }");
    check(FaultClass::Transient, 4, 0, "ChangeRoute { hop: 1");
    check(FaultClass::Transient, 4, 1, "Suspend { reason: Model");
    check(FaultClass::Auth, 1, 0, "ChangeRoute { hop: 1");
    check(FaultClass::Auth, 1, 1, "Suspend { reason: Model");
    check(FaultClass::Gone, 1, 1, "Suspend { reason: Model");
    check(FaultClass::Rejected, 1, 0, "ChangeRoute { hop: 1");
    check(FaultClass::Rejected, 1, 1, "End { status: Failed");
}

#[test]
fn a_long_retry_after_means_the_next_entry() {
    let at = |retry_after_ms: u64| {
        let mut run = Run::new(Vec::new());
        run.append(called(0, 1, 1));
        let fault =
            ModelFault { retry_after_ms: Some(retry_after_ms), ..fault(FaultClass::Transient) };
        run.append(answered(Vec::new(), Some(fault)));
        next(&run.state, 0)
    };
    assert_eq!(at(crate::RETRY_AFTER_MS_MAX), Command::Backoff { action: None, pause_ms: 60_000 });
    assert!(matches!(at(crate::RETRY_AFTER_MS_MAX + 1), Command::ChangeRoute { .. }));
}

#[test]
fn an_approval_expires_at_its_time_and_not_before() {
    let mut run = Run::new(vec![vec![("mail", EffectClass::Irreversible)]]);
    while !matches!(next(&run.state, 0), Command::Ask { .. }) {
        assert!(run.step(false));
    }
    let action = *run.state.actions.keys().next().expect("one action");
    let asked = run.append(Body::ApprovalAsked {
        action,
        shown: String::new(),
        bound: Digest::ZERO,
        expires_ms: 1_000,
        needs: 1,
    });
    assert_eq!(next(&run.state, 999), Command::AwaitPerson);
    assert!(run.state.needs_person());
    assert_eq!(next(&run.state, 1_000), Command::Expire { asked });
    run.answer(asked, ApprovalVerdict::Expired);
    to_the_end(&mut run);
    assert!(run.world.effects.is_empty(), "an expired approval does nothing");
}

#[test]
fn a_tool_that_ends_unclearly_is_probed_and_not_repeated() {
    let mut run = Run::new(vec![vec![("mail", EffectClass::Irreversible)]]);
    while !matches!(next(&run.state, 0), Command::Start { .. }) {
        assert!(run.step(false));
    }
    let action = *run.state.actions.keys().next().expect("one action");
    let layer = run.state.layer.clone().expect("has a layer");
    let (key, epoch) = (String::new(), 1);
    run.append(Body::ActionStarted { action, attempt: 1, key, epoch, layer: layer.clone() });
    run.append(finished(action, 1, OutcomeStatus::TimedOut, None, layer));
    assert_eq!(next(&run.state, 0), Command::Probe { action });
    let by = ResolvedBy::Probe;
    let resolution = Resolution::NotHappened;
    run.append(Body::ActionResolved { action, resolution, by, result: None });
    assert_eq!(run.state.actions[&action].phase, Phase::Settled);
    to_the_end(&mut run);
    assert!(run.world.effects.is_empty());
}

#[test]
fn a_read_tool_is_tried_as_often_as_its_manifest_says() {
    let mut run = Run::new(vec![vec![("look", EffectClass::Read)]]);
    let mut pauses = Vec::new();
    for attempt in 1..=3 {
        while !matches!(next(&run.state, run.world.now_ms), Command::Start { .. }) {
            assert!(run.step(false));
        }
        let action = *run.state.actions.keys().next().expect("one action");
        let layer = run.state.layer.clone().expect("has a layer");
        let (key, epoch) = (String::new(), 1);
        run.append(Body::ActionStarted { action, attempt, key, epoch, layer: layer.clone() });
        run.append(finished(action, attempt, OutcomeStatus::Failed, Some(1), layer));
        if let Command::Backoff { action: Some(id), pause_ms } = next(&run.state, 0) {
            pauses.push(pause_ms);
            let purpose = TimerPurpose::ActionRetry(id);
            let timer = run.append(Body::TimerSet { due_ms: 5, purpose });
            assert!(matches!(next(&run.state, 0), Command::SleepUntil { due_ms: 5, .. }));
            run.append(Body::TimerFired { timer });
        }
    }
    assert_eq!(pauses, [1_000, 2_000]);
    to_the_end(&mut run);
    assert_eq!(conversation(&run), [("0.0".to_owned(), true)]);
}

#[test]
fn a_wait_ends_with_its_signal_or_its_time_and_survives_a_crash() {
    for with_signal in [true, false] {
        let mut run = Run::new(vec![vec![("wait", EffectClass::Read)]]);
        while !matches!(next(&run.state, 0), Command::Start { .. }) {
            assert!(run.step(false));
        }
        let action = *run.state.actions.keys().next().expect("one action");
        let layer = run.state.layer.clone().expect("has a layer");
        let (key, epoch) = (String::new(), 1);
        run.append(Body::ActionStarted { action, attempt: 1, key, epoch, layer: layer.clone() });
        run.append(Body::TimerSet { due_ms: 50, purpose: TimerPurpose::Wait(action) });
        run.resume();
        assert_eq!(next(&run.state, 49), Command::SleepUntil { due_ms: 50, timer: None });
        if !with_signal {
            assert_eq!(next(&run.state, 50), Command::FinishWait { action, signal: None });
            continue;
        }
        // The call has no arguments in this world, so no signal is the one it waits for.
        let (name, by) = ("go".to_owned(), "p".to_owned());
        run.append(Body::SignalReceived { name, payload: json!(1), by });
        assert_eq!(next(&run.state, 49), Command::SleepUntil { due_ms: 50, timer: None });
        let causes = vec![Cause { link: Link::ResultOf, seq: run.state.next_seq - 1 }];
        run.append_because(finished(action, 1, OutcomeStatus::Ok, None, layer), causes);
        assert!(run.state.signals.is_empty(), "a signal is consumed once");
    }
}

#[test]
fn an_ended_run_goes_on_with_new_instructions() {
    let mut run = Run::new(vec![vec![("shell", EffectClass::Workspace)]]);
    to_the_end(&mut run);
    assert_eq!(next(&run.state, 0), Command::Ended);
    run.append(Body::ItemAdded { item: Item::UserMessage { text: "more".to_owned() } });
    assert!(matches!(next(&run.state, 0), Command::CallModel { .. }));
    to_the_end(&mut run);
    assert_eq!(run.state.status(false), Status::Done);
}

#[test]
fn cancelling_answers_every_open_call_and_doubts_what_is_unclear() {
    let mut run =
        Run::new(vec![vec![("blind", EffectClass::Irreversible), ("look", EffectClass::Read)]]);
    while !matches!(next(&run.state, 0), Command::Start { .. }) {
        assert!(run.step(false));
    }
    run.step(true);
    run.append(Body::CancelRequested { by: "p".to_owned() });
    let action = *run.state.actions.keys().next().expect("one action");
    assert_eq!(next(&run.state, 0), Command::Probe { action });
    run.append(Body::ActionInDoubt { action, attempt: 1, reason: String::new() });
    let ended = next(&run.state, 0);
    assert_eq!(ended, Command::End { status: EndStatus::Cancelled, error: None });
    let (status, output) = (EndStatus::Cancelled, String::new());
    run.append(Body::RunEnded { status, output, error: None });
    assert_eq!(conversation(&run), [("0.1".to_owned(), true)]);
    assert_eq!(run.state.open_questions().count(), 1);
}

#[test]
fn budgets_fail_closed_at_their_edge() {
    let mut manifest = manifest();
    manifest.budget.usd = Usd::from_dollars(1.0);
    manifest.budget.tokens = Some(100);
    manifest.budget.wall_ms = Some(1_000);
    manifest.budget.actions = 2;
    let check = |cost: Option<u64>, tokens: u64, now: u64, actions: u64, code: Option<&str>| {
        let spent = crate::Spent { actions, ..crate::Spent::default() };
        let cost = cost.map(|micros| Usd { micros });
        let failure = crate::over_budget(&manifest.budget, &spent, now, cost, tokens);
        assert_eq!(failure.map(|f| f.code).as_deref(), code);
    };
    check(Some(1_000_000), 100, 999, 1, None);
    check(Some(1_000_001), 100, 999, 1, Some("BP-RUN-001"));
    check(Some(0), 101, 999, 1, Some("BP-RUN-002"));
    check(Some(0), 100, 1_000, 1, Some("BP-RUN-003"));
    check(Some(0), 100, 999, 2, Some("BP-RUN-004"));
    check(None, 100, 999, 1, Some("BP-RUN-005"));
}

proptest! {
    /// Any sequence of effects, with deaths anywhere, never performs an irreversible effect twice.
    #[test]
    fn deaths_never_double_an_effect(
        turns in prop::collection::vec(prop::collection::vec(0usize..MIXED.len(), 1..4), 1..4),
        deaths in prop::collection::vec((1usize..40, any::<bool>()), 0..5),
    ) {
        let script = turns.iter().map(|turn| turn.iter().map(|i| MIXED[*i]).collect()).collect();
        let mut run = Run::new(script);
        for (steps, happened) in deaths {
            run.world.happened = happened;
            for step in 0..steps {
                if !run.step(step + 1 == steps) {
                    break;
                }
            }
            if run.state.ended.is_none() {
                run.resume();
            }
        }
        to_the_end(&mut run);
        prop_assert_eq!(run.state.status(false), Status::Done);
        for (key, count) in &run.world.effects {
            let action: u64 = key[1..].parse().expect("a key");
            let irreversible = run.state.actions[&action].effect == EffectClass::Irreversible;
            prop_assert!(!irreversible || *count == 1, "{} happened {} times", key, count);
        }
        prop_assert_eq!(State::of(&run.records), run.state);
    }
}

/// A GET that was answered, with what the answer says about its age.
fn heard(run: &mut Run, during: Option<u64>, as_of: Option<AsOf>) -> u64 {
    let request = ActionRequest::HttpRequest {
        host: "api.test".to_owned(),
        method: "GET".to_owned(),
        path: "/".to_owned(),
        port: 443,
        scheme: "https".to_owned(),
        query: String::new(),
        facts: None,
    };
    let egress = run.append(Body::EgressDecided {
        during,
        request: Box::new(request),
        bound: Digest::ZERO,
        effect: EffectClass::Read,
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
    let (status, bytes_up, bytes_down, failure, sent) = (200, 0, 0, None, true);
    run.append(Body::EgressEnded {
        egress,
        status,
        bytes_up,
        bytes_down,
        failure,
        sent,
        as_of,
        kept: None,
    })
}

#[test]
fn the_oldest_input_counts_from_its_own_word_else_from_its_receipt() {
    let mut run = Run::new(vec![vec![("mail", EffectClass::Irreversible)]]);
    while !matches!(next(&run.state, 0), Command::Start { .. }) {
        assert!(run.step(false));
    }
    let action = *run.state.actions.keys().next().expect("one action");
    let layer = run.state.layer.clone().expect("has a layer");
    let (key, epoch) = (String::new(), 1);
    run.append(Body::ActionStarted { action, attempt: 1, key, epoch, layer: layer.clone() });
    run.world.now_ms = 10_000;
    let oldest = |run: &Run| (run.state.oldest_input_ms, run.state.oldest_input);
    assert_eq!(oldest(&run), (None, None));
    heard(&mut run, Some(action), None);
    assert_eq!(oldest(&run), (None, None), "its receipt counts with the command's outcome");
    let future = heard(&mut run, Some(action), Some(AsOf::At(99_000)));
    assert_eq!(oldest(&run), (Some(10_000), Some(future)), "nothing is younger than its receipt");
    let old = heard(&mut run, Some(action), Some(AsOf::At(3_000)));
    assert_eq!(oldest(&run), (Some(3_000), Some(old)));
    heard(&mut run, None, Some(AsOf::Unreadable));
    assert_eq!(oldest(&run), (Some(3_000), Some(old)), "a check's answer reaches nobody");
    let silent = heard(&mut run, Some(action), Some(AsOf::Unreadable));
    assert_eq!(oldest(&run), (Some(0), Some(silent)));
    run.append(finished(action, 1, OutcomeStatus::Ok, Some(0), layer));
    assert_eq!(oldest(&run), (Some(0), Some(silent)));
}

/// A run in which a person is asked about a model call until time 100.
fn asked_about_a_call() -> (Run, u64) {
    let mut run = Run::new(Vec::new());
    let labels = Labels::one("pii");
    run.append(Body::PrivacyChecked {
        route: "default".to_owned(),
        provider: "script".to_owned(),
        model: "a".to_owned(),
        local: true,
        request: Some(Digest::ZERO),
        found: Vec::new(),
        treatment: types::Treatment::Ask,
        labels,
    });
    let asked = run.append(Body::ModelAsked {
        provider: "script".to_owned(),
        model: "a".to_owned(),
        shown: "s".to_owned(),
        bound: Digest::ZERO,
        expires_ms: 100,
    });
    (run, asked)
}

fn answer_call(run: &mut Run, asked: u64, verdict: ApprovalVerdict) {
    let (by, reason) = ("p".to_owned(), "no".to_owned());
    run.append(Body::ApprovalGiven {
        asked,
        verdict,
        by,
        reason,
        through: String::new(),
        opens: Vec::new(),
    });
}

#[test]
fn a_model_call_that_is_asked_about_waits_and_is_sent_once_when_approved() {
    let (mut run, asked) = asked_about_a_call();
    assert_eq!(run.state.labels, Labels::one("pii"), "what was found labels the context");
    assert_eq!(next(&run.state, 99), Command::AwaitPerson);
    assert_eq!(next(&run.state, 100), Command::Expire { asked });
    assert_eq!(run.state.status(true), Status::Waiting);
    run.resume();
    assert_eq!(next(&run.state, 99), Command::AwaitPerson, "another owner waits as well");
    answer_call(&mut run, asked, ApprovalVerdict::Approved);
    assert_eq!(run.state.approvals, 1);
    run.resume();
    assert_eq!(next(&run.state, 0), Command::CallModel { hop: 0, attempt: 1 });
    assert!(matches!(&run.state.model, crate::ModelPhase::Approved(q) if q.seq == asked));
    // The call spends the approval: after a crash in the middle of it, a person is asked again.
    run.append(called(0, 1, 1));
    run.resume();
    assert_eq!(run.state.model, crate::ModelPhase::Idle);
}

#[test]
fn a_model_call_that_nobody_lets_through_is_a_fault_of_that_entry() {
    for verdict in [ApprovalVerdict::Denied, ApprovalVerdict::Expired] {
        let (mut run, asked) = asked_about_a_call();
        answer_call(&mut run, asked, verdict);
        run.resume();
        let Command::ChangeRoute { hop: 1, failure } = next(&run.state, 0) else {
            panic!("{:?}", next(&run.state, 0));
        };
        assert_eq!(failure.code, "BP-PRIVACY-009");
        let denied = verdict == ApprovalVerdict::Denied;
        assert_eq!(run.state.denials, u64::from(denied));
        assert_eq!(failure.message.contains("p did not let script/a have this: no"), denied);
    }
    // A person who ends the run is heard while it waits.
    let (mut run, _) = asked_about_a_call();
    run.append(Body::CancelRequested { by: "p".to_owned() });
    assert!(matches!(next(&run.state, 0), Command::End { status: EndStatus::Cancelled, .. }));
}
