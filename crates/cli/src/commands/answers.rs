//! `approvals`, `approve`, `deny`, `resolve`: what waits for a person, and what they say.

use super::follow::gutter;
use super::{json_value, run};
use crate::arguments::{ApproveArguments, ResolveArguments};
use crate::asked::{Context, context, rows};
use crate::error::{Result, exit};
use crate::progress::call_of;
use crate::render;
use crate::session::{Session, keys_of, login};
use crate::terminal::{Paint, Terminal, safe};
use kernel::{Action, Grant, ModelQuestion, Phase, State};
use runtime::protocol::Request;
use serde_json::{Value, json};
use store::{Read, RunSummary};
use types::{ApprovalId, BRANCH_MAIN, Body, EndStatus, Record, Resolution, RunId};

/// Something that waits for a person.
#[derive(Debug, Clone, PartialEq)]
struct Open {
    id: ApprovalId,
    kind: &'static str,
    action: String,
    resource: String,
    shown: String,
    expires_ms: Option<u64>,
    call: String,
    context: Option<Context>,
}

impl Open {
    fn json(&self) -> Value {
        let own = json!({
            "id": self.id,
            "run": self.id.run,
            "kind": self.kind,
            "action": self.action,
            "resource": self.resource,
            "shown": self.shown,
            "expires": self.expires_ms.map(render::rfc3339),
        });
        let mut all = serde_json::Map::new();
        for part in [serde_json::to_value(&self.context).unwrap_or_default(), own] {
            if let Value::Object(fields) = part {
                all.extend(fields);
            }
        }
        Value::Object(all)
    }
}

/// What waits in a run.
fn open(run: &RunId, state: &State, records: &[Record]) -> Vec<Open> {
    let actions = state.open_questions().filter_map(|action| open_of(run, state, records, action));
    let requests =
        state.open_egress(now_ms()).map(|found| open_request(run, state, records, found));
    let call = state.model_question().map(|question| open_call(run, question));
    actions.chain(requests).chain(call).collect()
}

/// What waits in a run, as `approvals --json` lists it.
pub(crate) fn open_json(run: &RunId, state: &State, records: &[Record]) -> Vec<Value> {
    open(run, state, records).iter().map(Open::json).collect()
}

#[allow(clippy::disallowed_methods, reason = "what has expired is not listed")]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A request of a sandbox that waits for an answer.
fn open_request(
    run: &RunId,
    state: &State,
    records: &[Record],
    (seq, grant): (u64, &Grant),
) -> Open {
    Open {
        id: ApprovalId { run: run.clone(), seq },
        kind: "ask",
        action: grant.request.name().to_owned(),
        resource: grant.request.resource(),
        shown: grant.shown.clone(),
        expires_ms: Some(grant.expires_ms),
        call: render::request(&grant.request),
        context: context(records, state, seq),
    }
}

/// A model call that waits for an answer.
fn open_call(run: &RunId, question: &ModelQuestion) -> Open {
    Open {
        id: ApprovalId { run: run.clone(), seq: question.seq },
        kind: "ask",
        action: "call_model".to_owned(),
        resource: question.what.clone(),
        shown: question.shown.clone(),
        expires_ms: Some(question.expires_ms),
        call: format!("call_model {}", safe(&question.what)),
        context: None,
    }
}

fn open_of(run: &RunId, state: &State, records: &[Record], action: &Action) -> Option<Open> {
    let names: Vec<&str> = action.requests.iter().map(types::ActionRequest::name).collect();
    let resources: Vec<String> =
        action.requests.iter().map(types::ActionRequest::resource).collect();
    let (kind, seq, shown, expires_ms) = match &action.phase {
        Phase::Asked(asked) => ("ask", asked.seq, asked.shown.clone(), Some(asked.expires_ms)),
        Phase::InDoubt { seq } => {
            ("in_doubt", *seq, in_doubt_shown(state, records, action, *seq), None)
        }
        _ => return None,
    };
    Some(Open {
        id: ApprovalId { run: run.clone(), seq },
        kind,
        action: names.join(" and "),
        resource: resources.join(" and "),
        shown,
        expires_ms,
        call: call_of(state, action.id),
        context: context(records, state, seq),
    })
}

/// The call in full, and why nobody knows.
fn in_doubt_shown(state: &State, records: &[Record], action: &Action, seq: u64) -> String {
    let call = state.arguments(&action.call_id).map_or_else(
        || action.tool.clone(),
        |(tool, arguments)| {
            format!("{tool} {}", serde_json::to_string_pretty(arguments).unwrap_or_default())
        },
    );
    let why = records.iter().find(|r| r.stamp.seq == seq).and_then(|r| match &r.body {
        Body::ActionInDoubt { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    format!("{call}\n{}", why.unwrap_or_default())
}

/// Whether a run can have open questions: one that ended well has none, and what was erased has no
/// words for them.
fn may_wait(summary: &RunSummary) -> bool {
    let last = summary.last.as_ref().map(|record| &record.body);
    let done = matches!(last, Some(Body::RunEnded { status: EndStatus::Done, .. }));
    !summary.erased && !done
}

/// `approvals`.
pub(crate) fn approvals(session: &Session) -> Result<u8> {
    let reader = session.reader()?;
    let mut all = Vec::new();
    for summary in reader.runs()?.iter().filter(|summary| may_wait(summary)) {
        let records = reader.records(&summary.run, BRANCH_MAIN, 0)?;
        all.extend(open(&summary.run, &State::of(&records), &records));
    }
    if session.json || session.jsonl {
        let approvals: Vec<Value> = all.iter().map(Open::json).collect();
        Terminal::answer_json(&json!({ "approvals": approvals }));
        return Ok(exit::DONE);
    }
    if all.is_empty() {
        session.terminal.progress("nothing waits for you");
    }
    for question in &all {
        tell(session, question);
    }
    Ok(exit::DONE)
}

fn tell(session: &Session, open: &Open) {
    let word = if open.kind == "ask" { "asks" } else { "in doubt" };
    let word = session.terminal.paint(Paint::Yellow, word);
    Terminal::answer(&format!("{}  {word} {}", open.id, open.call));
    for line in gutter(&open.shown).lines() {
        Terminal::answer(&format!("    {line}"));
    }
    let until = open.expires_ms.map(|ms| format!("{} UTC", render::moment(ms)));
    for (name, text) in open.context.iter().flat_map(|context| rows(context, until.as_deref())) {
        let name = session.terminal.paint(Paint::Bold, &format!("{name:<9}"));
        Terminal::answer(&format!("    {name}  {}", safe(&text)));
    }
    let steps = if open.kind == "ask" {
        let id = &open.id;
        vec![format!("approve {id} [--for-run | --rule]"), format!("deny {id} --reason \"...\"")]
    } else {
        vec![format!("resolve {} --happened | --not-happened | --abandon", open.id)]
    };
    for step in steps {
        session.terminal.progress(&format!("    {}", session.command(&step)));
    }
}

/// An approval's id, its run named in full, by a prefix, or as `last`.
fn approval_id(session: &Session, text: &str) -> Result<(ApprovalId, Vec<Record>)> {
    let refuse = || runtime::RuntimeError::Approval {
        id: text.chars().take(80).collect(),
        reason: "it is no approval: an id is RUN-NUMBER".to_owned(),
    };
    let (run, number) = text.rsplit_once('-').ok_or_else(refuse)?;
    let seq: u64 = number.parse().map_err(|_| refuse())?;
    let (run, records) = session.run(run)?;
    Ok((ApprovalId { run, seq }, records))
}

/// `approve`.
pub(crate) fn approve(session: &Session, arguments: ApproveArguments) -> Result<u8> {
    let ApproveArguments { id, for_run, rule, yes, speaks_for, no_resume } = arguments;
    let (id, records) = approval_id(session, &id)?;
    if rule {
        let state = State::of(&records);
        let found = context(&records, &state, id.seq);
        let found = found.ok_or_else(|| refused(&id, "it is settled already, or no approval"))?;
        if !super::policy::approve_by_rule(session, &records, &found, yes, &id.to_string())? {
            return Ok(exit::FAILED);
        }
    }
    let said = if for_run { "approved for this run" } else { "approved" };
    let answer = Said { approve: true, for_run, reason: String::new(), speaks_for };
    answer_with(session, id, &records, said, answer, !no_resume)
}

/// `deny`.
pub(crate) fn deny(
    session: &Session,
    id: &str,
    reason: String,
    speaks_for: Option<String>,
    resume: bool,
) -> Result<u8> {
    let (id, records) = approval_id(session, id)?;
    let stood = State::of(&records).standing.contains_key(&id.seq);
    let said = if stood { "taken back for this run" } else { "denied" };
    let answer = Said { approve: false, for_run: false, reason, speaks_for };
    answer_with(session, id, &records, said, answer, resume)
}

fn refused(id: &ApprovalId, reason: &str) -> runtime::RuntimeError {
    runtime::RuntimeError::Approval { id: id.to_string(), reason: reason.to_owned() }
}

struct Said {
    approve: bool,
    for_run: bool,
    reason: String,
    speaks_for: Option<String>,
}

fn answer_with(
    session: &Session,
    id: ApprovalId,
    records: &[Record],
    word: &str,
    answer: Said,
    resume: bool,
) -> Result<u8> {
    let state = State::of(records);
    let asked = state
        .open_questions()
        .find(|action| matches!(&action.phase, Phase::Asked(question) if question.seq == id.seq));
    let request = state.egress.grants.get(&id.seq).map(|grant| render::request(&grant.request));
    let question = state.model_question().filter(|question| question.seq == id.seq);
    let model = question.map(|question| format!("call_model {}", safe(&question.what)));
    let call = asked.map(|action| call_of(&state, action.id)).or(request).or(model);
    let call = call.unwrap_or_default();
    let context = context(records, &state, id.seq);
    let missing = context.map_or(0, |c| {
        c.needs.saturating_sub(1 + u32::try_from(c.given.len()).unwrap_or(u32::MAX - 1))
    });
    let more = match missing {
        n if n > 0 && answer.approve => {
            format!("; {} must approve too", render::count(u64::from(n), "other person"))
        }
        _ => String::new(),
    };
    let said = format!("{word}: {call} ({id}){more}");
    let keys = keys_of(records);
    let Said { approve, for_run, reason, speaks_for } = answer;
    let request = Request::Answer { id, approve, for_run, reason, speaks_for, resume, keys };
    run::simple(session, &request, &said)
}

/// `resolve`.
pub(crate) fn resolve(session: &Session, arguments: &ResolveArguments) -> Result<u8> {
    let result =
        arguments.result.as_deref().map(|text| json_value("--result", text)).transpose()?;
    let (id, records) = approval_id(session, &arguments.id)?;
    let (resolution, word) = match (arguments.happened, arguments.not_happened) {
        (true, _) => (Resolution::Happened, "it happened"),
        (_, true) => (Resolution::NotHappened, "it did not happen"),
        _ => (Resolution::Abandoned, "abandoned"),
    };
    let said = format!("resolved: {id}: {word}");
    let request = Request::Resolve {
        id,
        resolution,
        result,
        by: login(),
        resume: !arguments.no_resume,
        keys: keys_of(&records),
    };
    run::simple(session, &request, &said)
}
