//! Records as they come, one line for people each, or none. Pure: from the state before a record
//! and the record to lines.

use crate::render;
use crate::summary::{resolution_word, who_resolved};
use crate::terminal::{Paint, safe, short};
use kernel::State;
use types::manifest::SCRIPT_PROVIDER;
use types::{
    ActionId, ApprovalVerdict, Body, Item, OutcomeStatus, PrivacyFound, Record, TimerPurpose,
    Treatment, Verdict, WaitReason,
};

/// Characters of the model's text on one line.
const TEXT_CHARS_MAX: usize = 160;
/// Lines of a failed check's output that are shown.
const CHECK_LINES_MAX: usize = 12;

/// A line: a coloured word, then the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) paint: Paint,
    pub(crate) word: String,
    pub(crate) rest: String,
}

impl Line {
    fn new(paint: Paint, word: &str, rest: impl Into<String>) -> Self {
        Self { paint, word: word.to_owned(), rest: rest.into() }
    }
}

/// The lines of a record. `before` is the state before it; `command` makes the text of one
/// of our commands as it must be typed here.
pub(crate) fn lines(
    before: &State,
    record: &Record,
    command: &dyn Fn(&str) -> String,
) -> Vec<Line> {
    match &record.body {
        Body::RunStarted { .. } => started(record),
        Body::ModelAnswered { items, error, .. } => match error {
            Some(fault) => {
                vec![Line::new(Paint::Yellow, "model", safe(&fault.failure.to_string()))]
            }
            None => said(items),
        },
        Body::PrivacyChecked { .. } | Body::ModelAsked { .. } => privacy_lines(record, command),
        Body::RouteChanged { from, to, failure, .. } => {
            let rest = format!("{} -> {}: {}", safe(from), safe(to), short(&failure.message, 100));
            vec![Line::new(Paint::Yellow, "fallback", rest)]
        }
        Body::TimerSet { due_ms, purpose } => timer(before, record, *due_ms, purpose),
        Body::Resumed { .. } => vec![Line::new(Paint::Dim, "resumed", "")],
        Body::Suspended { reason, failure } => vec![suspended(reason, failure.as_ref())],
        Body::RolledBack { at: Some(at), by, .. } => {
            let rest = format!("to record {at} by {}", safe(by));
            vec![Line::new(Paint::Yellow, "rolled back", rest)]
        }
        Body::RolledBack { reason, .. } => {
            vec![Line::new(Paint::Yellow, "rolled back:", safe(reason))]
        }
        Body::SignalReceived { name, by, .. } => {
            vec![Line::new(Paint::Dim, "signal", format!("{} from {}", safe(name), safe(by)))]
        }
        Body::CheckPassed { name, .. } => {
            vec![Line::new(Paint::Green, "ok", format!("check {}", safe(name)))]
        }
        Body::CheckFailed { name, exit, output } => check_failed(name, *exit, &output.text),
        Body::EgressDecided { .. } | Body::EgressAsked { .. } | Body::EgressEnded { .. } => {
            egress_lines(before, record, command)
        }
        Body::SecretUsed { secret, host, .. } => {
            vec![Line::new(Paint::Dim, "secret", format!("{} for {}", safe(secret), safe(host)))]
        }
        Body::GuestCalled { .. }
        | Body::GuestAnswered { .. }
        | Body::GuestServed { .. }
        | Body::GuestDiverged { .. }
        | Body::GuestRefused { .. } => guest_lines(&record.body),
        Body::PolicyChanged { allow, by, .. } => {
            let entries = safe(&allow.join(", "));
            vec![Line::new(Paint::Yellow, "policy", format!("changed by {}: {entries}", safe(by)))]
        }
        Body::MemoryMerged { version, changed, .. } => {
            let changed = render::count(*changed, "path");
            vec![Line::new(Paint::Green, "memory", format!("version {version}: {changed} changed"))]
        }
        Body::MemoryRefused { failure, .. } => {
            let next = command(&format!("memory merge {} --take run|memory", record.stamp.run));
            let rest = format!("not merged: {}: {next}", safe(&failure.message));
            vec![Line::new(Paint::Yellow, "memory", rest)]
        }
        Body::CancelRequested { by } => {
            vec![Line::new(Paint::Yellow, "cancelled", format!("by {}", safe(by)))]
        }
        Body::RunEnded { .. } => Vec::new(),
        _ => action_lines(before, record, command),
    }
}

/// Whether a line about a record is worth a place between what a guest itself prints.
pub(crate) const fn interrupts_guest(body: &Body) -> bool {
    matches!(
        body,
        Body::DecisionMade { verdict: Verdict::Deny, .. }
            | Body::ApprovalAsked { .. }
            | Body::EgressDecided { verdict: Verdict::Deny, .. }
            | Body::EgressAsked { .. }
            | Body::GuestDiverged { .. }
            | Body::GuestRefused { .. }
            | Body::CheckFailed { .. }
            | Body::ActionInDoubt { .. }
            | Body::Suspended { .. }
    )
}

/// A guest's call of a model: one line when it is over, refused, or not what it was.
fn guest_lines(body: &Body) -> Vec<Line> {
    match body {
        Body::GuestAnswered { error: Some(fault), .. } => {
            vec![Line::new(Paint::Yellow, "model", safe(&fault.failure.to_string()))]
        }
        Body::GuestAnswered { usage, cost, .. } => {
            let tokens = usage.input_tokens + usage.output_tokens;
            vec![Line::new(Paint::Dim, "model", format!("{tokens} tokens, {cost}"))]
        }
        Body::GuestServed { answer, .. } => {
            vec![Line::new(Paint::Dim, "served", format!("the answer of record {answer}, again"))]
        }
        Body::GuestDiverged { expected, served, .. } => {
            let text = format!(
                "after {served} answers of the log the guest asks something else than in record \
                 {expected}: it goes on with new answers"
            );
            vec![Line::new(Paint::Yellow, "diverged", text)]
        }
        Body::GuestRefused { failure, .. } => {
            vec![Line::new(Paint::Red, "refused", safe(&failure.to_string()))]
        }
        _ => Vec::new(),
    }
}

/// What the privacy router changed or stopped; what is sent as it is, `show` and `explain` say.
fn privacy_lines(record: &Record, command: &dyn Fn(&str) -> String) -> Vec<Line> {
    match &record.body {
        Body::PrivacyChecked { found, .. } => {
            let changed = found.iter().filter(|found| found.treatment != Treatment::AsIs);
            let changed: Vec<PrivacyFound> = changed.cloned().collect();
            if changed.is_empty() {
                return Vec::new();
            }
            vec![Line::new(Paint::Dim, "privacy", safe(&crate::summary::privacy(&changed)))]
        }
        Body::ModelAsked { provider, model, .. } => {
            let id = format!("{}-{}", record.stamp.run, record.stamp.seq);
            let what = safe(&format!("call_model {provider}/{model}"));
            let (show, approve) = (command("approvals"), command(&format!("approve {id}")));
            vec![Line::new(
                Paint::Yellow,
                "asks",
                format!("{what}: {show}; {approve}, or deny {id}"),
            )]
        }
        _ => Vec::new(),
    }
}

/// Whether the privacy router had the last word: no rule of policy opens that.
pub(crate) fn by_privacy(policies: &[String]) -> bool {
    policies.iter().any(|policy| policy == "privacy" || policy.starts_with("privacy."))
}

/// The command that opens what a run was denied, where one does.
fn hint(record: &Record, policies: &[String], command: &dyn Fn(&str) -> String) -> String {
    if by_privacy(policies) {
        return String::new();
    }
    format!(": {}", command(&format!("policy allow {}", record.stamp.run)))
}

/// A request of the sandbox: one line when it is denied or asked, one when it is over.
fn egress_lines(before: &State, record: &Record, command: &dyn Fn(&str) -> String) -> Vec<Line> {
    match &record.body {
        Body::EgressDecided { request, verdict: Verdict::Deny, failure: Some(why), .. } => {
            let (code, message, next) = (&why.code, safe(&why.message), safe(&why.next));
            let text = format!("{}: {code}: {message}: {next}", safe(&request.resource()));
            vec![Line::new(Paint::Red, "denied", text)]
        }
        Body::EgressDecided { request, verdict: Verdict::Deny, reason, policies, .. } => {
            let allow = hint(record, policies, command);
            let text = format!("{}: {}{allow}", safe(&request.resource()), safe(reason));
            vec![Line::new(Paint::Red, "denied", text)]
        }
        Body::EgressAsked { egress, .. } => {
            let what = before.egress.asked_for(*egress).map(types::ActionRequest::resource);
            let what = safe(&what.unwrap_or_default());
            let id = format!("{}-{}", record.stamp.run, record.stamp.seq);
            let approve = command(&format!("approve {id}"));
            vec![Line::new(Paint::Yellow, "asks", format!("{what}: {approve}, or deny {id}"))]
        }
        Body::EgressEnded { egress, status, failure, sent, .. } => {
            let what = before.egress.passed.get(egress).map(|passed| passed.what.clone());
            let what = safe(&what.unwrap_or_default());
            match failure {
                Some(why) => {
                    vec![Line::new(Paint::Red, "failed", format!("{what}: {}", safe(why)))]
                }
                None => {
                    let how = if *sent { "net" } else { "replay" };
                    vec![Line::new(Paint::Dim, how, format!("{what} {status}"))]
                }
            }
        }
        _ => Vec::new(),
    }
}

fn started(record: &Record) -> Vec<Line> {
    let Body::RunStarted { manifest, workspace, .. } = &record.body else {
        return Vec::new();
    };
    let route = &manifest.agent.model;
    let entries: Vec<String> = manifest
        .routes
        .get(route)
        .into_iter()
        .flatten()
        .map(|entry| format!("{}/{}", entry.provider, entry.model))
        .collect();
    let mut rest = format!("{}  agent {}", record.stamp.run, safe(&manifest.agent.name));
    if let Some(workspace) = workspace {
        rest.push_str(&format!("  workspace {} (as a layer)", safe(workspace)));
    }
    if let Some(digest) = manifest.sandbox.image_digest {
        let image = safe(&manifest.sandbox.image);
        rest.push_str(&format!("  image {image} (sha256:{})", digest.short()));
    }
    let scripted = entries.first().is_some_and(|e| e.starts_with(&format!("{SCRIPT_PROVIDER}/")));
    let model = if scripted {
        let script = entries[0].trim_start_matches("script/");
        format!("scripted: the answers come from {}, and no account is used", safe(script))
    } else {
        safe(&entries.join(", then "))
    };
    // What answers comes first: nobody shall take a scripted run for a model's.
    vec![Line::new(Paint::Bold, "model", model), Line::new(Paint::Bold, "run", rest)]
}

/// What the model says beside its calls. An answer without calls is its last word, which the
/// command prints in full at the end.
fn said(items: &[Item]) -> Vec<Line> {
    if !items.iter().any(|item| matches!(item, Item::ToolCall { .. })) {
        return Vec::new();
    }
    let texts = items.iter().filter_map(|item| match item {
        Item::AssistantMessage { text } if !text.trim().is_empty() => Some(text),
        _ => None,
    });
    texts.map(|text| Line::new(Paint::Dim, "says", short(text, TEXT_CHARS_MAX))).collect()
}

fn timer(before: &State, record: &Record, due_ms: u64, purpose: &TimerPurpose) -> Vec<Line> {
    let pause = render::took(due_ms.saturating_sub(record.stamp.time_ms));
    let again =
        |what: String| vec![Line::new(Paint::Yellow, "retry", format!("{what} in {pause}"))];
    match purpose {
        TimerPurpose::ModelRetry => again("model".to_owned()),
        TimerPurpose::ActionRetry(id) => again(call_of(before, *id)),
        TimerPurpose::Wait(id) if due_ms == u64::MAX => {
            vec![Line::new(Paint::Dim, "waits", call_of(before, *id))]
        }
        TimerPurpose::Wait(id) => {
            vec![Line::new(
                Paint::Dim,
                "waits",
                format!("{} at most {pause}", call_of(before, *id)),
            )]
        }
        TimerPurpose::ApprovalExpiry(_) => Vec::new(),
    }
}

fn suspended(reason: &WaitReason, failure: Option<&types::Failure>) -> Line {
    let why = match reason {
        WaitReason::Model => "no model of the route answers",
        WaitReason::Person => "by a person",
        WaitReason::Host => "this host lacks something",
    };
    let detail = failure.map(|f| format!(": {}", safe(&f.to_string()))).unwrap_or_default();
    Line::new(Paint::Yellow, "set aside", format!("{why}{detail}"))
}

fn check_failed(name: &str, exit: Option<i32>, output: &str) -> Vec<Line> {
    let exit = exit.map(|code| format!(" (exit {code})")).unwrap_or_default();
    let mut lines = vec![Line::new(Paint::Red, "failed", format!("check {}{exit}", safe(name)))];
    let all: Vec<&str> = output.lines().collect();
    let cut = all.len().saturating_sub(CHECK_LINES_MAX);
    if cut > 0 {
        lines.push(Line::new(Paint::Dim, "  |", format!("({cut} lines before)")));
    }
    let shown = all[cut..].iter().map(|line| Line::new(Paint::Dim, "  |", short(line, 200)));
    lines.extend(shown);
    lines
}

/// `shell wc -l *.csv`: an action by the call that asked for it.
pub(crate) fn call_of(state: &State, id: ActionId) -> String {
    let Some(action) = state.actions.get(&id) else {
        return format!("action {id}");
    };
    match state.arguments(&action.call_id) {
        Some((tool, arguments)) => render::call(tool, arguments),
        None => safe(&action.tool),
    }
}

/// What a denial was about: the denied requests, else the call.
fn denied(state: &State, id: Option<ActionId>) -> String {
    let Some(id) = id else {
        return "what comes next".to_owned();
    };
    let Some(action) = state.actions.get(&id) else {
        return format!("action {id}");
    };
    let requests: Vec<String> = action.requests.iter().map(render::request).collect();
    if requests.is_empty() { call_of(state, id) } else { requests.join(" and ") }
}

fn action_lines(before: &State, record: &Record, command: &dyn Fn(&str) -> String) -> Vec<Line> {
    match &record.body {
        Body::ItemAdded { item } => refused(before, item),
        Body::DecisionMade { action, verdict: Verdict::Deny, reason, policies, .. } => {
            let what = denied(before, *action);
            let allow = hint(record, policies, command);
            vec![Line::new(Paint::Red, "denied", format!("{what}: {}{allow}", safe(reason)))]
        }
        Body::ApprovalAsked { action, .. } => {
            vec![Line::new(Paint::Yellow, "asks", call_of(before, *action))]
        }
        Body::ApprovalGiven { asked, verdict, by, reason, opens, .. } => {
            let mut lines = vec![answered(before, *asked, *verdict, by, reason)];
            if !opens.is_empty() {
                let rest = format!("for the rest of the run: {}", safe(&opens.join(", ")));
                lines.push(Line::new(Paint::Yellow, "opened", rest));
            }
            lines
        }
        Body::ApprovalRevoked { asked, by } => {
            let entries = before.standing.get(asked).map(|entries| entries.join(", "));
            let entries = safe(&entries.unwrap_or_default());
            vec![Line::new(Paint::Yellow, "closed", format!("{entries} by {}", safe(by)))]
        }
        Body::ActionFinished { action, status, exit, took_ms, .. } => {
            let call = call_of(before, *action);
            vec![finished(&call, *status, *exit, *took_ms)]
        }
        Body::ActionInDoubt { action, reason, .. } => {
            let rest = format!("{}: {}", call_of(before, *action), safe(reason));
            vec![Line::new(Paint::Red, "in doubt", rest)]
        }
        Body::ActionResolved { action, resolution, by, .. } => {
            let (word, by) = (resolution_word(*resolution), safe(who_resolved(by)));
            let rest = format!("{}: {word}, says {by}", call_of(before, *action));
            vec![Line::new(Paint::Green, "resolved", rest)]
        }
        _ => Vec::new(),
    }
}

/// A call that could not even be planned.
fn refused(before: &State, item: &Item) -> Vec<Line> {
    let Item::ToolResult { call_id, output, is_error: true, .. } = item else {
        return Vec::new();
    };
    let call = before.arguments(call_id).map(|(tool, arguments)| render::call(tool, arguments));
    let rest = format!("{}: {}", call.unwrap_or_default(), short(output, TEXT_CHARS_MAX));
    vec![Line::new(Paint::Yellow, "refused", rest)]
}

fn answered(before: &State, asked: u64, verdict: ApprovalVerdict, by: &str, reason: &str) -> Line {
    let action = before.actions.values().find(
        |action| matches!(&action.phase, kernel::Phase::Asked(question) if question.seq == asked),
    );
    let request = || before.egress.grants.get(&asked).map(|grant| render::request(&grant.request));
    let of_model = before.model_question().filter(|question| question.seq == asked);
    let of_model = of_model.map(|question| format!("call_model {}", safe(&question.what)));
    let call = action.map(|action| call_of(before, action.id)).or_else(request).or(of_model);
    let call = call.unwrap_or_else(|| format!("record {asked}"));
    let reason = if reason.is_empty() { String::new() } else { format!(": {}", safe(reason)) };
    match verdict {
        ApprovalVerdict::Approved => {
            Line::new(Paint::Green, "approved", format!("{call} by {}", safe(by)))
        }
        ApprovalVerdict::Denied => {
            Line::new(Paint::Red, "denied", format!("{call} by {}{reason}", safe(by)))
        }
        ApprovalVerdict::Expired => {
            Line::new(Paint::Yellow, "expired", format!("{call}: nobody answered in time"))
        }
    }
}

fn finished(call: &str, status: OutcomeStatus, exit: Option<i32>, took_ms: u64) -> Line {
    let (paint, word) = match status {
        OutcomeStatus::Ok => (Paint::Green, "ok"),
        OutcomeStatus::Failed => (Paint::Red, "failed"),
        OutcomeStatus::TimedOut => (Paint::Red, "timed out"),
        OutcomeStatus::Killed => (Paint::Red, "killed"),
        OutcomeStatus::NotStarted => (Paint::Red, "not started"),
    };
    let exit = match exit {
        Some(code) if status == OutcomeStatus::Failed => format!(" (exit {code})"),
        _ => String::new(),
    };
    Line::new(paint, word, format!("{call}{exit} ... {}", render::took(took_ms)))
}
