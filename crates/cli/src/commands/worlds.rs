//! `fork`, `rollback`, `snapshot`: moments of a run, and what begins there.

use crate::error::{CliError, Result, exit};
use crate::session::{Session, block_on, login};
use crate::terminal::{Terminal, safe};
use runtime::protocol::{Reply, Request};
use runtime::rollback::Back;
use runtime::snapshot;
use serde_json::json;
use store::Read as _;
use types::{BRANCH_MAIN, Record, RunId};

/// A run, and what stands behind its `@`.
pub(crate) fn split(text: &str) -> (&str, Option<&str>) {
    text.split_once('@').map_or((text, None), |(run, at)| (run, Some(at)))
}

/// The record that a number or the name of a snapshot means, of a run with these records.
pub(crate) fn record_of(run: &RunId, records: &[Record], text: &str) -> Result<u64> {
    let last = records.last().map_or(0, |record| record.stamp.seq);
    if snapshot::is_name(text) {
        let none = || CliError::NoSnapshot { run: run.to_string(), name: text.to_owned() };
        return Ok(snapshot::find(records, text).ok_or_else(none)?);
    }
    let seq: u64 = text.parse().map_err(|_| CliError::Usage {
        message: format!("'{text}' is no number of a record"),
        help: "show".to_owned(),
    })?;
    if seq > last {
        return Err(CliError::NoRecord { run: run.to_string(), seq, last }.into());
    }
    Ok(seq)
}

/// The run and the moment of it that `text` and a flag name between them.
fn moment(session: &Session, text: &str, flag: Option<&str>) -> Result<(RunId, Option<u64>)> {
    let (run, behind) = split(text);
    let run = session.find(run)?;
    let at = match (behind, flag) {
        (Some(a), Some(b)) if a != b => {
            let message = "two different moments are named".to_owned();
            return Err(CliError::Usage { message, help: String::new() }.into());
        }
        (behind, flag) => behind.or(flag),
    };
    let Some(at) = at else {
        return Ok((run, None));
    };
    let records = session.reader()?.records(&run, BRANCH_MAIN, 0)?;
    let seq = record_of(&run, &records, at)?;
    Ok((run, Some(seq)))
}

/// Runs that go on from this record of another, or from its last.
pub(crate) fn forks(
    session: &Session,
    run: RunId,
    at: Option<u64>,
    count: u32,
) -> Result<Vec<RunId>> {
    let request = Request::Fork { run, at, count, seed: None, by: login() };
    Ok(match block_on(session.ask(&request))? {
        Reply::Made { runs } => runs,
        _ => Vec::new(),
    })
}

/// `fork`.
pub(crate) fn fork(session: &Session, text: &str, at: Option<&str>, count: u32) -> Result<u8> {
    let (run, at) = moment(session, text, at)?;
    let runs = forks(session, run, at, count)?;
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "runs": runs }));
        return Ok(exit::DONE);
    }
    runs.iter().for_each(|run| Terminal::answer(run.as_str()));
    if let [run] = runs.as_slice() {
        let next = session.command(&format!("resume {run}"));
        session.terminal.progress(&format!("next: {next}"));
    }
    Ok(exit::DONE)
}

/// `rollback`.
pub(crate) fn roll_back(
    session: &Session,
    text: &str,
    to: Option<&str>,
    undo: bool,
    leave_effects: bool,
) -> Result<u8> {
    let (run, at) = moment(session, text, to)?;
    let back = match at {
        Some(_) if undo => {
            let message = "--undo goes back to no named moment".to_owned();
            return Err(CliError::Usage { message, help: "rollback".to_owned() }.into());
        }
        Some(at) => Back::To(at),
        None if undo => Back::Undo,
        None => {
            let message = "to where is not said: RUN@SEQ, --to SEQ, or --undo".to_owned();
            return Err(CliError::Usage { message, help: "rollback".to_owned() }.into());
        }
    };
    let request = Request::RollBack { run: run.clone(), back, leave_effects, by: login() };
    let lines = match block_on(session.ask(&request))? {
        Reply::Lines { lines } => lines,
        _ => Vec::new(),
    };
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "run": run, "lines": lines }));
        return Ok(exit::DONE);
    }
    lines.iter().for_each(|line| session.terminal.progress(&safe(line)));
    for (word, rest) in
        [("next", format!("resume {run}")), ("undo", format!("rollback {run} --undo"))]
    {
        session.terminal.progress(&format!("{word}: {}", session.command(&rest)));
    }
    Ok(exit::DONE)
}

/// Gives the moment a run is at a name, and says which.
pub(crate) fn named(session: &Session, run: &RunId, name: Option<String>) -> Result<String> {
    let request = Request::Snapshot { run: run.clone(), name, by: login() };
    let lines = match block_on(session.ask(&request))? {
        Reply::Lines { lines } => lines,
        _ => Vec::new(),
    };
    Ok(lines.first().cloned().unwrap_or_default())
}

/// `snapshot`.
pub(crate) fn snapshot(session: &Session, run: &str, name: Option<String>) -> Result<u8> {
    let run = session.find(run)?;
    let name = named(session, &run, name)?;
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "run": run, "snapshot": name }));
    } else {
        Terminal::answer(&format!("{run}@{name}"));
    }
    Ok(exit::DONE)
}
