//! What a run did, action by action: what let each happen, and what went on from it.

use crate::progress::call_of;
use crate::show::{outcome_word, verdict_word};
use kernel::State;
use serde::Serialize;
use types::{ApprovalVerdict, Body, Labels, LayerId, Record, Resolution, ResolvedBy};

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
        Self {
            seq,
            what,
            effect,
            outward,
            outcome: "no outcome".to_owned(),
            because: Vec::new(),
        }
    }
}

/// Everything with an effect or a disclosure, in order.
pub(super) fn steps(records: &[Record], state: &State) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for record in records {
        match begun(record, state) {
            Some(step) => steps.push(step),
            None => goes_on(&mut steps, record, records),
        }
    }
    decisions_of_models(&mut steps, records);
    steps
}

fn begun(record: &Record, state: &State) -> Option<Step> {
    let seq = record.stamp.seq;
    match &record.body {
        Body::ModelCalled {
            provider,
            model,
            attempt,
            ..
        } => {
            let again = if *attempt > 1 {
                format!(" (attempt {attempt})")
            } else {
                String::new()
            };
            let what = format!("model {provider}/{model}{again}");
            Some(Step::new(seq, what, "model".to_owned(), true))
        }
        Body::ActionProposed { effect, tool, .. } => {
            let outward = state
                .manifest()
                .tools
                .iter()
                .any(|command| command.name == *tool);
            Some(Step::new(
                seq,
                call_of(state, seq),
                effect.to_string(),
                outward,
            ))
        }
        Body::CheckStarted { name, .. } => Some(Step::new(
            seq,
            format!("check {name}"),
            "check".to_owned(),
            false,
        )),
        _ => None,
    }
}

fn goes_on(steps: &mut [Step], record: &Record, records: &[Record]) {
    let seq = record.stamp.seq;
    let mut of = |id: u64, line: String| {
        if let Some(step) = steps.iter_mut().find(|step| step.seq == id) {
            step.because.push(line);
        }
    };
    match &record.body {
        Body::DecisionMade {
            action: Some(id),
            verdict,
            policies,
            reason,
            carried,
            ..
        } => {
            let by = if policies.is_empty() {
                reason.clone()
            } else {
                policies.join(", ")
            };
            let labels = labels_of(&carried.labels);
            of(
                *id,
                format!("record {seq}: {} by {by}{labels}", verdict_word(*verdict)),
            );
        }
        Body::ApprovalGiven {
            asked,
            verdict,
            by,
            reason,
        } => {
            if let Some(id) = action_asked_in(records, *asked) {
                let word = match verdict {
                    ApprovalVerdict::Approved => format!("approved by {by}"),
                    ApprovalVerdict::Denied => format!("denied by {by}: {reason}"),
                    ApprovalVerdict::Expired => "nobody answered in time".to_owned(),
                };
                of(
                    id,
                    format!("record {seq}: {word}, as asked in record {asked}"),
                );
            }
        }
        Body::ActionStarted {
            action, attempt, ..
        } if *attempt > 1 => {
            of(*action, format!("record {seq}: attempt {attempt}"));
        }
        Body::SecretUsed {
            secret,
            host,
            under,
        } => {
            of(
                *under,
                format!("record {seq}: secret {secret} sent to {host}"),
            );
        }
        Body::ActionInDoubt { action, reason, .. } => {
            of(*action, format!("record {seq}: in doubt, {reason}"));
        }
        Body::RolledBack { reason, .. } => {
            let last = steps.last().map(|step| step.seq).unwrap_or_default();
            if let Some(step) = steps.iter_mut().find(|step| step.seq == last) {
                step.because
                    .push(format!("record {seq}: rolled back, {reason}"));
            }
        }
        _ => outcome(steps, record),
    }
}

fn outcome(steps: &mut [Step], record: &Record) {
    let seq = record.stamp.seq;
    let (id, text) = match &record.body {
        Body::ActionFinished {
            action,
            status,
            exit,
            took_ms,
            ..
        } => {
            let exit = exit
                .filter(|code| *code != 0)
                .map(|code| format!(" (exit {code})"));
            let took = crate::render::took(*took_ms);
            (
                *action,
                format!(
                    "{}{} in {took}",
                    outcome_word(*status),
                    exit.unwrap_or_default()
                ),
            )
        }
        Body::ActionResolved {
            action,
            resolution,
            by,
            ..
        } => {
            let by = match by {
                ResolvedBy::Probe => "its probe",
                ResolvedBy::Person(name) => name,
            };
            let word = match resolution {
                Resolution::Happened => "happened",
                Resolution::NotHappened => "did not happen",
                Resolution::Abandoned => "abandoned",
            };
            (*action, format!("{word}, says {by}"))
        }
        Body::ModelAnswered {
            error, usage, cost, ..
        } => {
            let Some(call) = record.causes.first().map(|cause| cause.seq) else {
                return;
            };
            let text = match error {
                Some(fault) => format!("no answer: {}", fault.failure),
                None => format!(
                    "answered, {} tokens, {cost}",
                    usage.input_tokens + usage.output_tokens
                ),
            };
            (call, text)
        }
        Body::CheckPassed { .. } | Body::CheckFailed { .. } => {
            let Some(check) = record.causes.first().map(|cause| cause.seq) else {
                return;
            };
            let passed = matches!(record.body, Body::CheckPassed { .. });
            (
                check,
                if passed { "passed" } else { "did not pass" }.to_owned(),
            )
        }
        _ => return,
    };
    if let Some(step) = steps.iter_mut().find(|step| step.seq == id) {
        step.outcome = format!("{text} (record {seq})");
    }
}

fn action_asked_in(records: &[Record], asked: u64) -> Option<u64> {
    records
        .iter()
        .find(|record| record.stamp.seq == asked)
        .and_then(|record| match &record.body {
            Body::ApprovalAsked { action, .. } => Some(*action),
            _ => None,
        })
}

/// Decisions without an action belong to the model call or check that names them.
fn decisions_of_models(steps: &mut [Step], records: &[Record]) {
    for step in steps.iter_mut() {
        let Some(record) = records.iter().find(|record| record.stamp.seq == step.seq) else {
            continue;
        };
        let decided = record
            .causes
            .iter()
            .filter(|cause| cause.link == types::Link::DecidedBy);
        for cause in decided {
            let decision = records.iter().find(|record| record.stamp.seq == cause.seq);
            if let Some(Body::DecisionMade {
                action: None,
                verdict,
                policies,
                reason,
                carried,
                ..
            }) = decision.map(|record| &record.body)
            {
                let by = if policies.is_empty() {
                    reason.clone()
                } else {
                    policies.join(", ")
                };
                let labels = labels_of(&carried.labels);
                let line = format!(
                    "record {}: {} by {by}{labels}",
                    cause.seq,
                    verdict_word(*verdict)
                );
                step.because.insert(0, line);
            }
        }
    }
}

fn labels_of(labels: &Labels) -> String {
    let all: Vec<&str> = labels.iter().collect();
    if all.is_empty() {
        String::new()
    } else {
        format!(", carrying {}", all.join(", "))
    }
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
                lines.push(format!(
                    "record {seq}: the workspace begins as layer {base}"
                ));
            }
            Body::LayerSealed {
                layer: new,
                changed,
                ..
            } => {
                let from = layer.as_ref().map(ToString::to_string).unwrap_or_default();
                let files = crate::render::count(*changed, "file");
                lines.push(format!(
                    "record {seq}: layer {from} -> {new}, {files} changed"
                ));
                layer = Some(new.clone());
            }
            Body::RolledBack { to, .. } => {
                lines.push(format!("record {seq}: back to layer {to}"));
                layer = Some(to.clone());
            }
            Body::ActionFinished { labels: new, .. } | Body::LabelAdded { labels: new } => {
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
