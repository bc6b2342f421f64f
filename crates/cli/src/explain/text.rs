//! An explanation as people read it: the finding first, then what led there.

use super::{Explanation, Finding, Outgoing, Step};
use crate::render;
use crate::terminal::{safe, short};
use kernel::State;
use std::fmt::Write as _;
use types::{Record, RunId};

/// Characters of what people said and of the agent's last words.
const SAID_CHARS_MAX: usize = 200;
/// Workspace steps and carried lines that are shown; the rest is counted.
const LINES_MAX: usize = 40;

/// The whole text.
pub(crate) fn text(run: &RunId, records: &[Record], explanation: &Explanation) -> String {
    let mut out = String::new();
    let agent = records.first().map_or("", |record| record.actor.agent.as_str());
    let _ = writeln!(out, "run {run}, agent {}: {}", safe(agent), explanation.status);
    for said in &explanation.asked {
        let _ = writeln!(out, "asked in {}: {}", said.seq, short(&said.text, SAID_CHARS_MAX));
    }
    if !explanation.output.is_empty() {
        let _ = writeln!(out, "it said: {}", short(&explanation.output, SAID_CHARS_MAX));
    }
    if let Some(finding) = &explanation.finding {
        of_finding(&mut out, records, finding);
    }
    of_requests(&mut out, &explanation.requests);
    let (outward, inside): (Vec<&Step>, Vec<&Step>) =
        explanation.steps.iter().partition(|step| step.outward);
    section(&mut out, "beyond the sandbox", &outward);
    section(&mut out, "in the sandbox", &inside);
    let _ = writeln!(out, "\ncarried from step to step");
    for line in explanation.carried.iter().take(LINES_MAX) {
        let _ = writeln!(out, "  {}", safe(line));
    }
    more(&mut out, explanation.carried.len());
    let _ = writeln!(out, "\n{}", explanation.resume.replace("RUN", run.as_str()));
    let _ = writeln!(out, "replay: {}", explanation.replay.replace("RUN", run.as_str()));
    out
}

/// The requests of the sandbox. What only reads and was let through takes two lines.
fn of_requests(out: &mut String, requests: &[Outgoing]) {
    if requests.is_empty() {
        return;
    }
    let sent = requests.iter().filter(|one| one.sent && !one.reads).count();
    let read = requests.iter().filter(|one| one.sent && one.reads).count();
    let stopped = requests.len() - sent - read;
    let all = render::count(requests.len() as u64, "request");
    let _ = writeln!(out, "\nrequests: {all}: {sent} sent, {read} only read, {stopped} stopped");
    for one in requests.iter().take(LINES_MAX) {
        let _ = writeln!(out, "{:>4}  {}: {}", one.seq, safe(&one.what), safe(&one.outcome));
        let secrets = match one.secrets.as_slice() {
            [] => "none put in".to_owned(),
            names => names.join(", "),
        };
        let brief = one.reads && one.sent;
        let rows = [
            ("rule", Some(one.rule.as_str())),
            ("person", one.person.as_deref()),
            ("secret", Some(secrets.as_str())),
            ("as of", one.as_of.as_deref()),
            ("carried", Some(one.carried.as_str()).filter(|_| !brief)),
            ("led to by", one.led_to_by.as_deref().filter(|_| !brief)),
            ("again", Some(one.again).filter(|_| !brief)),
        ];
        for (name, text) in rows {
            if let Some(text) = text {
                let _ = writeln!(out, "        {name:<9}  {}", safe(text));
            }
        }
    }
    more(out, requests.len());
}

fn more(out: &mut String, count: usize) {
    if count > LINES_MAX {
        let _ = writeln!(
            out,
            "  ... and {} more: bedplate show RUN lists every record",
            count - LINES_MAX
        );
    }
}

fn of_finding(out: &mut String, records: &[Record], finding: &Finding) {
    let _ = writeln!(out, "\nrecord {}: {}", finding.of, safe(&finding.what));
    let _ =
        writeln!(out, "goes back to record {}: {}", finding.root, summary(records, finding.root));
    let _ = writeln!(out, "  because {}", safe(&finding.because));
    if !finding.chain.is_empty() {
        let _ = writeln!(out, "the way back from {}:", finding.of);
        for hop in &finding.chain {
            let _ = writeln!(out, "  {:>4}  {}", hop.seq, summary(records, hop.seq));
            let _ = writeln!(out, "        {}", safe(&hop.why));
        }
    }
    if !finding.context.is_empty() {
        let seqs: Vec<String> = finding.context.iter().map(ToString::to_string).collect();
        let _ = writeln!(out, "the model had these results before it then: {}", seqs.join(", "));
    }
    for other in &finding.others {
        let _ = writeln!(out, "less likely {}: {}", other.seq, summary(records, other.seq));
        let _ = writeln!(out, "  because {}", safe(&other.why));
    }
}

/// A record in a line.
fn summary(records: &[Record], seq: u64) -> String {
    let Some(record) = records.iter().find(|record| record.stamp.seq == seq) else {
        return String::new();
    };
    let count = usize::try_from(seq).unwrap_or(usize::MAX);
    let before = State::of(records.iter().take(count));
    format!("{} {}", record.body.kind(), crate::summary::summary(&before, record))
}

fn section(out: &mut String, title: &str, steps: &[&Step]) {
    let _ = writeln!(out, "\n{title}: {}", render::count(steps.len() as u64, "step"));
    let (calls, others): (Vec<&Step>, Vec<&Step>) =
        steps.iter().partition(|step| step.effect == "model" && step.because.len() == 1);
    for (what, calls) in alike(&calls) {
        let seqs: Vec<String> = calls.iter().map(|step| step.seq.to_string()).collect();
        let count = render::count(calls.len() as u64, "call");
        let rule = without_record(&calls[0].because[0]);
        let _ = writeln!(out, "      {}, {count}: {}", safe(what), safe(rule));
        let _ = writeln!(out, "        in records {}", seqs.join(", "));
    }
    for step in others.iter().take(LINES_MAX) {
        let (what, outcome) = (safe(&step.what), safe(&step.outcome));
        let _ = writeln!(out, "{:>4}  {what} [{}]: {outcome}", step.seq, step.effect);
        for line in &step.because {
            let _ = writeln!(out, "        {}", safe(line));
        }
    }
    more(out, others.len());
}

/// Model calls of the same model by the same rule, in the order of their first.
fn alike<'a>(calls: &[&'a Step]) -> Vec<(&'a str, Vec<&'a Step>)> {
    let mut groups: Vec<(&str, Vec<&Step>)> = Vec::new();
    for step in calls.iter().copied() {
        let rule = without_record(&step.because[0]);
        let same = groups.iter_mut().find(|(what, calls)| {
            *what == step.what && without_record(&calls[0].because[0]) == rule
        });
        match same {
            Some((_, calls)) => calls.push(step),
            None => groups.push((&step.what, vec![step])),
        }
    }
    groups
}

/// `record 2: permit by x` as `permit by x`.
fn without_record(line: &str) -> &str {
    line.split_once(": ").map_or(line, |(_, rest)| rest)
}
