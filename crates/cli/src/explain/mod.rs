//! `explain`: what was asked, what happened, what let it happen, and where a failure goes back to.
//! Pure: from records to values, and from values to text.
//!
//! A failure is walked back over two kinds of links. *Causes* are in the log: the result of, decided
//! by, asked in. *Data* is found: which earlier record the failing text's numbers and words come
//! from. The first is certain; the second is said to be what it is, with its reasons and the next
//! best candidates.

mod blame;
mod evidence;
mod requests;
mod steps;
mod suspects;
mod text;
mod tokens;

#[cfg(test)]
mod tests;

use kernel::{State, Status};
use serde::Serialize;
use types::{Body, Item, Record};

pub(crate) use blame::Finding;
pub(crate) use requests::Outgoing;
pub(crate) use steps::Step;
pub(crate) use text::text;

/// What happened in a run, and why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Explanation {
    /// What people said, first to last.
    pub(crate) asked: Vec<Said>,
    /// `done`, `failed` ...
    pub(crate) status: &'static str,
    /// The agent's last words.
    pub(crate) output: String,
    /// Everything with an effect or a disclosure, in order.
    pub(crate) steps: Vec<Step>,
    /// What left the sandbox, or was stopped on its way.
    pub(crate) requests: Vec<Outgoing>,
    /// What went from step to step.
    pub(crate) carried: Vec<String>,
    /// Where a failure, or the record asked for, goes back to.
    pub(crate) finding: Option<Finding>,
    /// Whether and how the run can go on.
    pub(crate) resume: String,
    /// Whether it can be replayed.
    pub(crate) replay: String,
}

/// Something a person said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Said {
    pub(crate) seq: u64,
    pub(crate) text: String,
}

/// Explains a run, or one record of it.
pub(crate) fn explain(records: &[Record], at: Option<u64>) -> Explanation {
    let state = State::of(records);
    Explanation {
        asked: asked(&state),
        status: crate::outcome::status_word(state.status(false)),
        output: crate::outcome::output_of(&state),
        steps: steps::steps(records),
        requests: requests::requests(records, &state),
        carried: steps::carried(records),
        finding: blame::find(records, &state, at),
        resume: resume(&state, records),
        replay: replay(records),
    }
}

/// Whether the run can be replayed, and what that leaves alone.
fn replay(records: &[Record]) -> String {
    let answers = records.iter().filter(|r| matches!(r.body, Body::ModelAnswered { .. })).count();
    let last = records.last().map_or(0, |record| record.stamp.seq);
    format!(
        "{answers} answers of the model and every decision, result and approval stand in the log: \
         folding it gives the same state at any record up to {last} (bedplate show RUN@SEQ), \
         and does nothing outside again"
    )
}

fn asked(state: &State) -> Vec<Said> {
    let said = state.items.iter().filter_map(|placed| match &placed.item {
        Item::UserMessage { text } => Some(Said { seq: placed.seq, text: text.clone() }),
        _ => None,
    });
    said.collect()
}

/// Whether and from where the run can go on; `RUN` stands for its id.
fn resume(state: &State, records: &[Record]) -> String {
    let last = records.last().map_or(0, |record| record.stamp.seq);
    match state.status(false) {
        Status::Done | Status::Failed | Status::Cancelled => format!(
            "ended at record {last}; new instructions take it up from there: bedplate send RUN TEXT"
        ),
        Status::Waiting
            if state.open_questions().next().is_some() || state.model_question().is_some() =>
        {
            "waits for a person: bedplate approvals".to_owned()
        }
        Status::Waiting | Status::Suspended | Status::Running => {
            format!("can go on from record {last}: bedplate resume RUN")
        }
    }
}
