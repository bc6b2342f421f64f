//! What a record says, in one line that is safe to print. Pure.

use crate::progress::call_of;
use crate::render;
use crate::terminal::short;
use kernel::State;
use types::{
    ApprovalVerdict, Body, Kept, Labels, OutcomeStatus, PrivacyFound, Record, Resolution,
    ResolvedBy, TimerPurpose, Verdict,
};

/// Characters of a summary.
const SUMMARY_CHARS_MAX: usize = 100;
/// Characters of each item of a model's answer.
const ANSWER_CHARS_MAX: usize = 60;

/// What a record says. `before` is the state before it.
pub(crate) fn summary(before: &State, record: &Record) -> String {
    let body = &record.body;
    // Items are cut one by one, so that none hides the next.
    if let Some(line) = items(body) {
        return line;
    }
    let text = run(body)
        .or_else(|| model(body))
        .or_else(|| guest(body))
        .or_else(|| workspace(body))
        .or_else(|| time(body))
        .or_else(|| check(body))
        .or_else(|| budget_and_policy(body))
        .or_else(|| decision(before, body))
        .or_else(|| action(before, body))
        .unwrap_or_default();
    short(&text, SUMMARY_CHARS_MAX)
}

fn items(body: &Body) -> Option<String> {
    match body {
        Body::ItemAdded { item } => Some(render::item(item, SUMMARY_CHARS_MAX)),
        Body::ModelAnswered { items, error: None, usage, cost, .. } => {
            let items: Vec<String> =
                items.iter().map(|item| render::item(item, ANSWER_CHARS_MAX)).collect();
            let tokens = usage.input_tokens + usage.output_tokens;
            Some(format!("{} ({tokens} tokens, {cost})", items.join("; ")))
        }
        _ => None,
    }
}

fn run(body: &Body) -> Option<String> {
    Some(match body {
        Body::RunStarted { manifest, started_by, base, .. } => {
            let image = manifest.sandbox.image_digest.map(|digest| {
                format!(", image {} (sha256:{})", manifest.sandbox.image, digest.short())
            });
            let image = image.unwrap_or_default();
            format!("agent {} for {started_by}, base layer {base}{image}", manifest.agent.name)
        }
        Body::Forked { origin, at, by, attempt } => {
            let attempt = attempt.map(|a| format!(", attempt {} with seed {}", a.number, a.seed));
            format!("from record {at} of {origin} by {by}{}", attempt.unwrap_or_default())
        }
        Body::Suspended { failure, reason } => {
            let detail = failure.as_ref().map(|f| format!(": {f}")).unwrap_or_default();
            format!("{}{detail}", format!("{reason:?}").to_lowercase())
        }
        Body::Resumed { epoch } => format!("epoch {epoch}"),
        Body::CancelRequested { by } => format!("by {by}"),
        Body::CallerOpened { key, by, .. } => format!("{key}, by {by}"),
        Body::StepTaken { at, step } => format!("{at}: {}", step.short()),
        Body::RunEnded { status, output, error } => {
            let said = error.as_ref().map_or_else(|| output.clone(), ToString::to_string);
            format!("{}: {said}", format!("{status:?}").to_lowercase())
        }
        _ => return None,
    })
}

fn model(body: &Body) -> Option<String> {
    Some(match body {
        Body::ModelCalled { provider, model, attempt, items, request_bytes, .. } => {
            let again = if *attempt > 1 { format!(", attempt {attempt}") } else { String::new() };
            let size = render::bytes(*request_bytes);
            format!("{provider}/{model}{again}, {}, {size}", render::count(*items, "item"))
        }
        Body::ModelAnswered { error: Some(fault), .. } => format!("no answer: {}", fault.failure),
        Body::PrivacyChecked { found, .. } => privacy(found),
        Body::ModelAsked { provider, model, expires_ms, .. } => {
            format!("{provider}/{model}, until {}", render::moment(*expires_ms))
        }
        Body::RouteChanged { from, to, failure, .. } => format!("{from} -> {to}: {failure}"),
        Body::Delivered { actions } => {
            let ids: Vec<String> = actions.iter().map(ToString::to_string).collect();
            format!("actions {}", ids.join(", "))
        }
        _ => return None,
    })
}

fn guest(body: &Body) -> Option<String> {
    Some(match body {
        Body::GuestCalled { provider, model, hop, asked_bytes, key, .. } => {
            let again = if *hop > 0 { format!(", entry {hop}") } else { String::new() };
            let size = render::bytes(*asked_bytes);
            format!("{provider}/{model}{again}, {size}, key {}", key.short())
        }
        Body::GuestAnswered { call, error: Some(fault), .. } => {
            format!("{call}: no answer: {}", fault.failure)
        }
        Body::GuestAnswered { call, items, usage, cost, .. } => {
            let items: Vec<String> =
                items.iter().map(|item| render::item(item, ANSWER_CHARS_MAX)).collect();
            let tokens = usage.input_tokens + usage.output_tokens;
            format!("{call}: {} ({tokens} tokens, {cost})", items.join("; "))
        }
        Body::GuestServed { answer, .. } => format!("the answer of record {answer}, again"),
        Body::GuestDiverged { expected, served, key } => {
            let key = key.short();
            format!("key {key} is not what record {expected} asked; {served} answers served before")
        }
        Body::GuestRefused { status, failure, .. } => format!("{status}: {failure}"),
        _ => return None,
    })
}

/// What the privacy router found and did: `2 x email pseudonym, 1 x secret (api) mask`.
pub(crate) fn privacy(found: &[PrivacyFound]) -> String {
    let words = found.iter().map(|found| {
        let names = if found.names.is_empty() {
            String::new()
        } else {
            format!(" ({})", found.names.join(", "))
        };
        format!("{} x {}{names} {}", found.count, found.kind, found.treatment.as_str())
    });
    words.collect::<Vec<_>>().join(", ")
}

fn workspace(body: &Body) -> Option<String> {
    Some(match body {
        Body::LayerSealed { layer, parent, changed } => {
            format!("{layer} over {parent}, {} changed", render::count(*changed, "file"))
        }
        Body::RolledBack { to, reason, at: Some(at), by } => {
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("to record {at}, layer {to}, by {by}{why}")
        }
        Body::RolledBack { to, reason, .. } => format!("to {to}: {reason}"),
        Body::SnapshotTaken { name, layer, by } => format!("{name} by {by}, layer {layer}"),
        Body::ArtifactRecorded { path, sha256, bytes } => {
            format!("{path}, {}, sha256 {}", render::bytes(*bytes), sha256.short())
        }
        Body::ArtifactApplied { changes, by } => {
            let count = render::count(changes.len() as u64, "change");
            format!("{count} by {by}: {}", changes.join(", ").replace('\t', " "))
        }
        Body::LabelAdded { labels } => labels_of(labels),
        Body::MemorySealed { .. }
        | Body::MemoryOffered { .. }
        | Body::MemoryMerged { .. }
        | Body::MemoryRefused { .. } => memory(body)?,
        _ => return None,
    })
}

fn memory(body: &Body) -> Option<String> {
    Some(match body {
        Body::MemorySealed { layer, parent, changed } => {
            format!("{layer} over {parent}, {} changed", render::count(*changed, "file"))
        }
        Body::MemoryOffered { layer, by } if by.is_empty() => layer.to_string(),
        Body::MemoryOffered { layer, by } => format!("{layer} by {by}"),
        Body::MemoryMerged { version, layer, changed } => {
            let changed = render::count(*changed, "path");
            format!("version {version}, layer {layer}, {changed} changed")
        }
        Body::MemoryRefused { failure, conflicts } if conflicts.is_empty() => failure.to_string(),
        Body::MemoryRefused { failure, conflicts } => {
            format!("{failure}: {}", conflicts.join(", "))
        }
        _ => return None,
    })
}

fn time(body: &Body) -> Option<String> {
    Some(match body {
        Body::TimerSet { due_ms, purpose } => timer(*due_ms, purpose),
        Body::TimerFired { timer } => format!("timer {timer}"),
        Body::SignalReceived { name, payload, by } => format!("{name} from {by}: {payload}"),
        _ => return None,
    })
}

fn check(body: &Body) -> Option<String> {
    Some(match body {
        Body::CheckStarted { name, command } => format!("{name}: {command}"),
        Body::CheckPassed { name, .. } => name.clone(),
        Body::CheckFailed { name, exit, output } => {
            let exit = exit.map(|code| format!(" (exit {code})")).unwrap_or_default();
            format!("{name}{exit}: {}", output.text)
        }
        _ => return None,
    })
}

fn budget_and_policy(body: &Body) -> Option<String> {
    Some(match body {
        Body::BudgetReserved { cost, tokens } | Body::BudgetSpent { cost, tokens } => {
            format!("{cost}, {}", render::count(*tokens, "token"))
        }
        Body::EgressDecided { request, verdict, reason, .. } => {
            format!("{verdict:?} {}: {reason}", request.resource()).to_lowercase()
        }
        Body::EgressAsked { egress, shown, .. } => format!("{egress}: {shown}"),
        Body::EgressEnded { egress, status, bytes_up, bytes_down, failure, kept, .. } => {
            let failure = failure.as_ref().map(|why| format!(", {why}")).unwrap_or_default();
            let kept = match kept {
                None => String::new(),
                Some(Kept::Whole(_)) => ", kept".to_owned(),
                Some(Kept::Nothing(why)) => format!(", not kept: {why}"),
            };
            format!("{egress}: {status}, {bytes_up} bytes up, {bytes_down} down{failure}{kept}")
        }
        Body::SecretUsed { secret, host, under } => format!("{secret} for {host} under {under}"),
        Body::PolicyChanged { policy_set, allow, by } => {
            format!("set {} by {by}, allow {}", policy_set.short(), allow.join(", "))
        }
        _ => return None,
    })
}

fn decision(before: &State, body: &Body) -> Option<String> {
    Some(match body {
        Body::ActionProposed { call_id, tool, effect, .. } => {
            let call = before.arguments(call_id).map(|(tool, a)| render::call(tool, a));
            format!("{} [{effect}]", call.unwrap_or_else(|| tool.clone()))
        }
        Body::DecisionMade { action, verdict, policies, reason, .. } => {
            let of = action.map(|id| format!(" action {id}")).unwrap_or_default();
            let by = if policies.is_empty() { reason.clone() } else { policies.join(", ") };
            format!("{}{of}: {by}", verdict_word(*verdict))
        }
        Body::ApprovalAsked { action, expires_ms, .. } => {
            format!("{}, until {}", call_of(before, *action), render::moment(*expires_ms))
        }
        Body::ApprovalGiven { asked, verdict: ApprovalVerdict::Expired, .. } => {
            format!("expired: asked in {asked}")
        }
        Body::ApprovalRevoked { asked, by } => {
            format!("what was approved in answer to {asked} is taken back by {by}")
        }
        Body::ApprovalGiven { verdict, by, reason, through, .. } => {
            let by = brought(by, through);
            let approved = *verdict == ApprovalVerdict::Approved;
            let word = if approved { "approved" } else { "denied" };
            let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("{word} by {by}{why}")
        }
        _ => return None,
    })
}

fn action(before: &State, body: &Body) -> Option<String> {
    let call = |id: &u64| call_of(before, *id);
    Some(match body {
        Body::ActionStarted { action, attempt, key, .. } => {
            format!("{}, attempt {attempt}, key {key:.8}", call(action))
        }
        Body::ActionFinished { action, status, exit, output, took_ms, .. } => {
            let exit = exit.map(|code| format!(" exit {code}")).unwrap_or_default();
            let status = outcome_word(*status);
            format!("{} {status}{exit}, {}: {}", call(action), render::took(*took_ms), output.text)
        }
        Body::ActionInDoubt { action, reason, .. } => format!("{}: {reason}", call(action)),
        Body::ActionResolved { action, resolution, by, .. } => {
            let word = resolution_word(*resolution);
            format!("{} {word}, says {}", call(action), who_resolved(by))
        }
        _ => return None,
    })
}

pub(crate) const fn resolution_word(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Happened => "happened",
        Resolution::NotHappened => "did not happen",
        Resolution::Abandoned => "abandoned",
    }
}

/// Who answered, and through whom.
pub(crate) fn brought(by: &str, through: &str) -> String {
    if through.is_empty() { by.to_owned() } else { format!("{by} (brought by {through})") }
}

/// Who resolved it.
pub(crate) fn who_resolved(by: &ResolvedBy) -> &str {
    match by {
        ResolvedBy::Probe => "its probe",
        ResolvedBy::Person(name) => name,
    }
}

pub(crate) const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Permit => "permit",
        Verdict::Ask => "ask",
        Verdict::Deny => "deny",
    }
}

pub(crate) const fn outcome_word(status: OutcomeStatus) -> &'static str {
    match status {
        OutcomeStatus::Ok => "ok",
        OutcomeStatus::Failed => "failed",
        OutcomeStatus::TimedOut => "timed out",
        OutcomeStatus::Killed => "killed",
        OutcomeStatus::NotStarted => "not started",
    }
}

/// What a timer is for, and when it fires.
pub(crate) fn timer(due_ms: u64, purpose: &TimerPurpose) -> String {
    let what = match purpose {
        TimerPurpose::ModelRetry => "call the model again".to_owned(),
        TimerPurpose::ActionRetry(id) => format!("try action {id} again"),
        TimerPurpose::Wait(id) => format!("action {id} waits"),
        TimerPurpose::ApprovalExpiry(id) => format!("{id} expires"),
    };
    match due_ms {
        u64::MAX => format!("{what}, without end"),
        due_ms => format!("{what}, at {}", render::moment(due_ms)),
    }
}

/// Labels as words.
pub(crate) fn labels_of(labels: &Labels) -> String {
    let all: Vec<&str> = labels.iter().collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
