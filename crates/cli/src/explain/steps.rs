//! What a run did, action by action: what let each happen, and what went on from it.

use crate::summary::{labels_of, outcome_word, resolution_word, verdict_word, who_resolved};
use kernel::State;
use serde::Serialize;
use types::{ApprovalVerdict, Body, Labels, LayerId, Link, Record, Verdict};

/// One action, or one model call.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Step {
    /// The record that proposed it, or that called the model.
    pub(crate) seq: u64,
    /// `open_ticket {...}`, `model openai/gpt-5.4`.
    pub(crate) what: String,
    /// Its effect class; `model` for a model call.
    pub(crate) effect: String,
    /// Whether it reaches beyond the sandbox.
    pub(crate) outward: bool,
    /// How it came out, and in which record.
    pub(crate) outcome: String,
    /// What let it through or stopped it.
    pub(crate) because: Vec<String>,
}

impl Step {
    fn new(seq: u64, what: String, effect: String, outward: bool) -> Self {
        Self { seq, what, effect, outward, outcome: "no outcome".to_owned(), because: Vec::new() }
    }
}

/// Everything with an effect or a disclosure, in order.
pub(super) fn steps(records: &[Record]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    kernel::each(records, |before, record| match begun(record, before) {
        Some(step) => steps.push(step),
        None => goes_on(&mut steps, record, records),
    });
    decisions_of_models(&mut steps, records);
    privacy_of_models(&mut steps, records);
    steps
}

fn begun(record: &Record, before: &State) -> Option<Step> {
    let seq = record.stamp.seq;
    match &record.body {
        Body::ModelCalled { provider, model, attempt, .. } => {
            let again = if *attempt > 1 { format!(" (attempt {attempt})") } else { String::new() };
            let what = format!("model {provider}/{model}{again}");
            Some(Step::new(seq, what, "model".to_owned(), true))
        }
        Body::GuestCalled { provider, model, hop, .. } => {
            let again = if *hop > 0 { format!(" (entry {hop})") } else { String::new() };
            let what = format!("model {provider}/{model}{again} for the guest");
            Some(Step::new(seq, what, "model".to_owned(), true))
        }
        Body::GuestServed { answer, .. } => {
            let what = format!("the answer of record {answer} for the guest");
            let mut step = Step::new(seq, what, "log".to_owned(), false);
            step.outcome = "served from the log, nothing was paid".to_owned();
            Some(step)
        }
        Body::GuestDiverged { expected, served, .. } => {
            let what = format!("the guest diverged from record {expected}");
            let mut step = Step::new(seq, what, "log".to_owned(), false);
            step.outcome = format!("{served} answers were served before; new ones from here on");
            Some(step)
        }
        Body::GuestRefused { status, failure, .. } => {
            let what = "a model for the guest".to_owned();
            let mut step = Step::new(seq, what, "model".to_owned(), false);
            step.outcome = format!("refused with {status}: {failure}");
            Some(step)
        }
        Body::StepTaken { at, step: taken } if taken.call().is_none() => {
            let what = format!("its caller's step {at}: {}", taken.short());
            let mut step = Step::new(seq, what, "log".to_owned(), false);
            step.outcome = "recorded".to_owned();
            Some(step)
        }
        Body::ActionProposed { effect, tool, call_id, .. } => {
            let outward = before.manifest().tools.iter().any(|command| command.name == *tool);
            let call =
                before.arguments(call_id).map(|(tool, args)| crate::render::call(tool, args));
            let call = call.unwrap_or_else(|| crate::terminal::safe(tool));
            Some(Step::new(seq, call, effect.to_string(), outward))
        }
        Body::CheckStarted { name, .. } => {
            Some(Step::new(seq, format!("check {name}"), "check".to_owned(), false))
        }
        _ => None,
    }
}

fn goes_on(steps: &mut [Step], record: &Record, records: &[Record]) {
    if let Body::EgressDecided { during: Some(id), verdict: Verdict::Permit, .. } = &record.body
        && let Some(step) = steps.iter_mut().rev().find(|step| step.seq == *id)
    {
        step.outward = true;
    }
    let last = steps.last().map(|step| step.seq);
    let seq = record.stamp.seq;
    let mut with = |id: u64, change: &dyn Fn(&mut Step)| {
        steps.iter_mut().filter(|step| step.seq == id).for_each(change);
    };
    if let Some((id, why)) = because(record, records, last) {
        with(id, &|step| {
            step.because.push(format!("record {seq}: {why}"));
        });
    }
    if let Some((id, how)) = outcome(record) {
        with(id, &|step| step.outcome = format!("{how} (record {seq})"));
    }
}

/// Of which step a record says what let it happen or stopped it, and what it says.
fn because(record: &Record, records: &[Record], last: Option<u64>) -> Option<(u64, String)> {
    match &record.body {
        Body::DecisionMade { action: Some(id), .. } => Some((*id, decided(&record.body)?)),
        Body::ApprovalGiven { asked, verdict, by, reason, .. } => {
            let word = match verdict {
                ApprovalVerdict::Approved => format!("approved by {by}"),
                ApprovalVerdict::Denied => format!("denied by {by}: {reason}"),
                ApprovalVerdict::Expired => "nobody answered in time".to_owned(),
            };
            Some((action_of(records, *asked)?, format!("{word}, as asked in record {asked}")))
        }
        Body::ActionStarted { action, attempt, .. } if *attempt > 1 => {
            Some((*action, format!("attempt {attempt}")))
        }
        Body::ActionInDoubt { action, reason, .. } => {
            Some((*action, format!("in doubt, {reason}")))
        }
        Body::RolledBack { reason, at: None, .. } => {
            Some((last?, format!("rolled back, {reason}")))
        }
        _ => None,
    }
}

/// A decision in words: `permit by permissions.allow[0], carrying untrusted`.
fn decided(body: &Body) -> Option<String> {
    let Body::DecisionMade { verdict, policies, reason, carried, .. } = body else {
        return None;
    };
    let by = if policies.is_empty() { reason.clone() } else { policies.join(", ") };
    Some(format!("{} by {by}{}", verdict_word(*verdict), carrying(&carried.labels)))
}

/// Of which step a record is the outcome, and how it came out.
fn outcome(record: &Record) -> Option<(u64, String)> {
    let first_cause = record.causes.first().map(|cause| cause.seq);
    match &record.body {
        Body::DecisionMade { action: Some(id), verdict: Verdict::Deny, .. } => {
            Some((*id, "denied".to_owned()))
        }
        Body::ActionFinished { action, status, exit, took_ms, .. } => {
            let exit = exit.filter(|code| *code != 0).map(|code| format!(" (exit {code})"));
            let (exit, took) = (exit.unwrap_or_default(), crate::render::took(*took_ms));
            Some((*action, format!("{}{exit} in {took}", outcome_word(*status))))
        }
        Body::ActionResolved { action, resolution, by, .. } => {
            let word = resolution_word(*resolution);
            Some((*action, format!("{word}, says {}", who_resolved(by))))
        }
        Body::ModelAnswered { error: Some(fault), .. } => {
            Some((first_cause?, format!("no answer: {}", fault.failure)))
        }
        Body::ModelAnswered { error: None, usage, cost, .. } => {
            let tokens = usage.input_tokens + usage.output_tokens;
            Some((first_cause?, format!("answered, {tokens} tokens, {cost}")))
        }
        Body::GuestAnswered { call, error: Some(fault), .. } => {
            Some((*call, format!("no answer: {}", fault.failure)))
        }
        Body::GuestAnswered { call, usage, cost, .. } => {
            let tokens = usage.input_tokens + usage.output_tokens;
            Some((*call, format!("answered, {tokens} tokens, {cost}")))
        }
        Body::CheckPassed { .. } => Some((first_cause?, "passed".to_owned())),
        Body::CheckFailed { .. } => Some((first_cause?, "did not pass".to_owned())),
        _ => None,
    }
}

/// The action that a question or an intent is about.
fn action_of(records: &[Record], seq: u64) -> Option<u64> {
    let record = records.iter().find(|record| record.stamp.seq == seq)?;
    match &record.body {
        Body::ApprovalAsked { action, .. } | Body::ActionStarted { action, .. } => Some(*action),
        _ => None,
    }
}

/// Decisions without an action belong to the model call or check that names them.
fn decisions_of_models(steps: &mut [Step], records: &[Record]) {
    let find = |seq: u64| records.iter().find(|record| record.stamp.seq == seq);
    for step in steps.iter_mut() {
        let causes = find(step.seq).map(|record| record.causes.as_slice()).unwrap_or_default();
        for cause in causes.iter().filter(|cause| cause.link == Link::DecidedBy) {
            let decision = find(cause.seq).map(|record| &record.body);
            if let Some(said) = decision.and_then(decided) {
                step.because.insert(0, format!("record {}: {said}", cause.seq));
            }
        }
    }
}

/// What the privacy router did for a model call stands before its decision; where values were put
/// back, in its answer.
fn privacy_of_models(steps: &mut [Step], records: &[Record]) {
    for step in steps.iter_mut().filter(|step| step.effect == "model") {
        let before = records.iter().rev().skip_while(|record| record.stamp.seq >= step.seq);
        let mine = before.take_while(|record| {
            let body = &record.body;
            matches!(
                body,
                Body::PrivacyChecked { .. }
                    | Body::DecisionMade { action: None, .. }
                    | Body::BudgetReserved { .. }
            )
        });
        let mut said: Vec<String> = Vec::new();
        for record in mine {
            if let Body::PrivacyChecked { found, .. } = &record.body {
                let rules: std::collections::BTreeSet<&str> =
                    found.iter().map(|found| found.rule.as_str()).collect();
                let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
                let (seq, what) = (record.stamp.seq, crate::summary::privacy(found));
                said.push(format!("record {seq}: privacy: {what}, by {rules}"));
            }
        }
        let answer = records.iter().find(|record| {
            record.causes.iter().any(|cause| cause.link == Link::ResultOf && cause.seq == step.seq)
                && matches!(record.body, Body::ModelAnswered { .. })
        });
        if let Some(Body::ModelAnswered { restored, .. }) = answer.map(|record| &record.body) {
            said.extend(restored.iter().map(|restored| {
                let place = match &restored.call_id {
                    Some(call) => format!("the arguments of call {call}"),
                    None => "what it said".to_owned(),
                };
                format!("values put back in {place}: {}", restored.kinds.join(", "))
            }));
        }
        step.because.extend(said);
    }
}

fn carrying(labels: &Labels) -> String {
    if labels.is_empty() {
        return String::new();
    }
    format!(", carrying {}", labels_of(labels))
}

/// What went from step to step: layers, labels, items.
pub(super) fn carried(records: &[Record]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut layer: Option<LayerId> = None;
    let mut labels = Labels::none();
    for record in records {
        let seq = record.stamp.seq;
        match &record.body {
            Body::RunStarted { base, .. } => {
                layer = Some(base.clone());
                lines.push(format!("record {seq}: the workspace begins as layer {base}"));
            }
            Body::Forked { origin, at, .. } => {
                lines.push(format!("record {seq}: forked from record {at} of run {origin}"));
            }
            Body::LayerSealed { layer: new, changed, .. } => {
                let from = layer.as_ref().map(ToString::to_string).unwrap_or_default();
                let files = crate::render::count(*changed, "file");
                lines.push(format!("record {seq}: layer {from} -> {new}, {files} changed"));
                layer = Some(new.clone());
            }
            Body::RolledBack { to, at, .. } => {
                let at = at.map(|at| format!("record {at} and ")).unwrap_or_default();
                lines.push(format!("record {seq}: back to {at}layer {to}"));
                layer = Some(to.clone());
            }
            Body::ActionFinished { labels: new, .. }
            | Body::LabelAdded { labels: new }
            | Body::PrivacyChecked { labels: new, .. } => {
                let before = labels.clone();
                labels.join(new);
                if labels != before {
                    let all: Vec<&str> = labels.iter().collect();
                    lines.push(format!("record {seq}: labels {}", all.join(", ")));
                }
            }
            _ => {}
        }
    }
    lines
}
