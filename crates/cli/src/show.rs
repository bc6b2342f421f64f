//! A run's records as a list, and its state at one of them. Pure.

use crate::render;
use crate::summary;
use crate::terminal::{Paint, Terminal, safe, short};
use kernel::{Action, ModelPhase, Phase, State};
use std::fmt::Write as _;
use types::{Cause, Link, Record, RunId};

/// Characters of an item of the conversation.
const ITEM_CHARS_MAX: usize = 120;

/// One record on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordLine {
    pub(crate) seq: u64,
    pub(crate) clock: String,
    pub(crate) kind: &'static str,
    pub(crate) summary: String,
    pub(crate) causes: String,
}

/// Every record on one line.
pub(crate) fn records(records: &[Record]) -> Vec<RecordLine> {
    let mut lines = Vec::with_capacity(records.len());
    kernel::each(records, |before, record| {
        lines.push(RecordLine {
            seq: record.stamp.seq,
            clock: render::clock(record.stamp.time_ms),
            kind: record.body.kind(),
            summary: summary::summary(before, record),
            causes: causes(&record.causes),
        });
    });
    lines
}

/// A line as it is printed.
pub(crate) fn painted(terminal: &Terminal, line: &RecordLine) -> String {
    let RecordLine { seq, clock, kind, summary, causes } = line;
    let head = terminal.paint(Paint::Dim, &format!("{seq:>4}  {clock}"));
    let kind = terminal.paint(Paint::Bold, &format!("{kind:<17}"));
    let causes = match causes.as_str() {
        "" => String::new(),
        causes => format!("  {}", terminal.paint(Paint::Dim, &format!("({causes})"))),
    };
    format!("{head}  {kind} {summary}{causes}").trim_end().to_owned()
}

/// `result of 7, decided by 5`.
pub(crate) fn causes(causes: &[Cause]) -> String {
    let all: Vec<String> =
        causes.iter().map(|cause| format!("{} {}", link(cause.link), cause.seq)).collect();
    all.join(", ")
}

pub(crate) const fn link(link: Link) -> &'static str {
    match link {
        Link::ResultOf => "result of",
        Link::DecidedBy => "decided by",
        Link::ApprovedBy => "approved by",
        Link::RetryOf => "retry of",
        Link::ResumedFrom => "resumed from",
        Link::ForkedFrom => "forked from",
        Link::Compensates => "compensates",
        Link::AskedIn => "asked in",
    }
}

/// The state that a run carried at the last of these records.
pub(crate) fn state(run: &RunId, records: &[Record], state: &State) -> String {
    let mut out = String::new();
    let Some(last) = records.last() else {
        return out;
    };
    let at = last.stamp.seq;
    let _ = writeln!(out, "run {run} at record {at}, {} UTC", render::moment(last.stamp.time_ms));
    let before = State::of(&records[..records.len() - 1]);
    let _ = writeln!(out, "{}: {}", last.body.kind(), summary::summary(&before, last));
    if !last.causes.is_empty() {
        let _ = writeln!(out, "because: {}", causes(&last.causes));
    }
    let _ = writeln!(out, "digest {}", last.digest);
    let status = crate::outcome::status_word(state.status(state.suspended.is_none()));
    let _ = writeln!(out, "\nstatus     {status}");
    let _ = writeln!(out, "epoch      {}", state.epoch);
    if let (Some(base), Some(layer)) = (&state.base, &state.layer) {
        let changed = if base == layer { "unchanged" } else { "changed" };
        let _ = writeln!(out, "workspace  layer {layer}, {changed} since the start ({base})");
    }
    let _ = writeln!(out, "labels     {}", summary::labels_of(&state.labels));
    spent(&mut out, state);
    let _ = writeln!(out, "model      {}", model(state));
    conversation(&mut out, state);
    actions(&mut out, state);
    timers(&mut out, state);
    out
}

fn spent(out: &mut String, state: &State) {
    let spent = &state.spent;
    let _ = writeln!(
        out,
        "spent      {}, {}, {}, {} live",
        spent.cost,
        render::count(spent.tokens, "token"),
        render::count(spent.actions, "tool call"),
        render::took(spent.wall_ms),
    );
    if spent.reserved_tokens > 0 {
        let tokens = render::count(spent.reserved_tokens, "token");
        let _ = writeln!(out, "reserved   {}, {tokens}", spent.reserved_cost);
    }
}

fn model(state: &State) -> String {
    let what = match &state.model {
        ModelPhase::Asked(question) => {
            let until = render::moment(question.expires_ms);
            format!("a person is asked in record {}, until {until}", question.seq)
        }
        ModelPhase::Approved(question) => format!("approved, as asked in record {}", question.seq),
        ModelPhase::Idle => "idle".to_owned(),
        ModelPhase::InFlight(call) => {
            format!("called in record {} with {}", call.seq, render::count(call.items, "item"))
        }
        ModelPhase::Failed(fault) => format!("failed: {}", safe(&fault.failure.to_string())),
        ModelPhase::Backoff { timer } => format!("waits for timer {timer}"),
    };
    format!("{what}, entry {} of its route", state.hop + 1)
}

fn conversation(out: &mut String, state: &State) {
    let _ = writeln!(out, "\nconversation ({})", render::count(state.items.len() as u64, "item"));
    for placed in &state.items {
        let _ = writeln!(out, "{:>4}  {}", placed.seq, render::item(&placed.item, ITEM_CHARS_MAX));
    }
}

fn actions(out: &mut String, state: &State) {
    let open: Vec<&Action> = state.actions.values().filter(|a| a.phase != Phase::Settled).collect();
    let _ = writeln!(out, "\nopen actions ({} of {})", open.len(), state.actions.len());
    for action in open {
        let call = crate::progress::call_of(state, action.id);
        let _ = writeln!(out, "{:>4}  {call}: {}", action.id, phase(&action.phase));
    }
}

fn phase(phase: &Phase) -> String {
    match phase {
        Phase::Proposed => "proposed".to_owned(),
        Phase::NeedsApproval => "needs approval".to_owned(),
        Phase::Asked(asked) => {
            format!("asked in record {}, until {}", asked.seq, render::moment(asked.expires_ms))
        }
        Phase::Approved { asked } => format!("approved, as asked in record {asked}"),
        Phase::Permitted => "permitted".to_owned(),
        Phase::Started => "in flight".to_owned(),
        Phase::Waiting { timer: Some(timer) } => format!("waits, at most until timer {timer}"),
        Phase::Waiting { timer: None } => "waits for a signal".to_owned(),
        Phase::Backoff { timer } => format!("to be tried again after timer {timer}"),
        Phase::RetryDue => "to be tried again".to_owned(),
        Phase::Interrupted => "interrupted".to_owned(),
        Phase::RolledBack => "interrupted, the workspace rolled back".to_owned(),
        Phase::Ambiguous(_) => "may have happened".to_owned(),
        Phase::InDoubt { seq } => format!("in doubt since record {seq}"),
        Phase::Settled => "settled".to_owned(),
    }
}

fn timers(out: &mut String, state: &State) {
    if state.timers.is_empty() && state.signals.is_empty() {
        return;
    }
    let _ = writeln!(out, "\ntimers and signals");
    for timer in state.timers.values() {
        let _ = writeln!(out, "{:>4}  {}", timer.seq, summary::timer(timer.due_ms, &timer.purpose));
    }
    for signal in &state.signals {
        let _ = writeln!(
            out,
            "{:>4}  signal {}: {}",
            signal.seq,
            safe(&signal.name),
            short(&signal.payload.to_string(), ITEM_CHARS_MAX)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{Log, Outcome, manifest, run_id};
    use serde_json::json;
    use types::{EndStatus, Verdict};

    const TOOLS: &str = "[[tool]]\nname = \"notify\"\ndescription = \"Tells the team.\"\n\
        command = [\"./notify\"]\neffect = \"irreversible\"\n";

    /// A run with something of everything.
    fn log() -> Log {
        let mut log = Log::start(manifest("Do it.", TOOLS), "Count the lines, then tell the team.");
        log.act("shell", json!({ "command": "wc -l *.csv" }), Outcome::ok("3 a.csv\n"));
        log.act(
            "write_file",
            json!({ "path": "n.txt", "content": "3" }),
            Outcome::wrote("written"),
        );
        let denied = log.call("notify", json!({ "text": "\u{1b}[31mthree" }));
        log.decide(Some(denied), Verdict::Deny, Vec::new(), "no rule permits it");
        log.act("shell", json!({ "command": "false" }), Outcome::failed(""));
        log.say("There are three lines; I could not tell the team.");
        log.check("counted", "grep -q 3 n.txt", true, "");
        log.end(EndStatus::Done, "There are three lines; I could not tell the team.", None);
        log
    }

    #[test]
    fn a_list_of_records_reads_well() {
        let plain = Terminal { colour: false, quiet: false, interactive: false };
        let lines = records(&log().records);
        let text: Vec<String> = lines.iter().map(|line| painted(&plain, line)).collect();
        insta::assert_snapshot!(text.join("\n"));
    }

    #[test]
    fn a_state_reads_well() {
        let log = log();
        let count = 20;
        let of = State::of(&log.records[..count]);
        insta::assert_snapshot!(state(&run_id(), &log.records[..count], &of));
    }

    #[test]
    fn progress_reads_well() {
        let mut state = State::new();
        let mut text = String::new();
        let command = |text: &str| format!("bedplate {text}");
        for record in &log().records {
            for line in crate::progress::lines(&state, record, &command) {
                text.push_str(format!("{} {}", line.word, line.rest).trim_end());
                text.push('\n');
            }
            state.fold(record);
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_record_of_every_kind_has_a_line_that_is_safe() {
        for line in records(&log().records) {
            assert!(!line.summary.contains(char::is_control), "{line:?}");
        }
    }
}
