//! `show`, `explain`, `verify`: what the log says.

use super::worlds::{record_of, split};
use crate::error::{CliError, Failed, Result, exit};
use crate::explain;
use crate::outcome;
use crate::render;
use crate::session::Session;
use crate::show;
use crate::terminal::{Paint, Terminal, safe};
use kernel::State;
use serde_json::json;
use store::Read;
use types::{Record, RunId};

/// A run, and a record of it: `RUN`, `RUN@SEQ` or `RUN@SNAPSHOT`.
fn at(session: &Session, text: &str) -> Result<(RunId, Vec<Record>, Option<u64>)> {
    let (run, at) = split(text);
    let (run, records) = session.run(run)?;
    let seq = at.map(|at| record_of(&run, &records, at)).transpose()?;
    Ok((run, records, seq))
}

/// `show`.
pub(crate) fn show(session: &Session, text: &str) -> Result<u8> {
    let (run, records, seq) = at(session, text)?;
    if session.jsonl {
        for record in &records {
            Terminal::answer_json(&json!(record));
        }
        return Ok(exit::DONE);
    }
    let live = session.live().contains(&run);
    match seq {
        None if session.json => {
            let state = State::of(&records);
            let kept = session.home.artifacts(&run);
            let mut document = outcome::document(&run, &state, &records, live, &kept);
            document["records"] = json!(records);
            Terminal::answer_json(&document);
        }
        None => show::records(&records).iter().for_each(|line| {
            Terminal::answer(&show::painted(&session.terminal, line));
        }),
        Some(seq) => {
            let count = usize::try_from(seq).unwrap_or(usize::MAX).saturating_add(1);
            let state = State::of(records.iter().take(count));
            if session.json {
                let record = &records[count - 1];
                Terminal::answer_json(&json!({ "run": run, "record": record, "state": state }));
            } else {
                let text = show::state(&run, &records[..count], &state);
                Terminal::answer(text.trim_end());
            }
        }
    }
    Ok(exit::DONE)
}

/// `explain`.
pub(crate) fn explain(session: &Session, text: &str) -> Result<u8> {
    let (run, records, seq) = at(session, text)?;
    let explanation = explain::explain(&records, seq);
    if session.json || session.jsonl {
        let mut document = json!(explanation);
        document["run"] = json!(run);
        Terminal::answer_json(&document);
        return Ok(exit::DONE);
    }
    let text = explain::text(&run, &records, &explanation);
    Terminal::answer(text.trim_end());
    Ok(exit::DONE)
}

/// `verify`.
pub(crate) fn verify(session: &Session, run: &str) -> Result<u8> {
    let reader = session.reader()?;
    let run = reader.find(run)?;
    let report = reader.verify(&run)?;
    let faults: Vec<_> = report.faults.iter().map(|fault| &fault.failure).collect();
    if session.json {
        Terminal::answer_json(&json!({
            "run": run,
            "ok": report.is_ok(),
            "records": report.records,
            "contents": report.contents,
            "branches": report.branches,
            "erased": report.erased,
            "faults": faults,
        }));
    } else {
        for fault in &faults {
            let code = session.terminal.paint(Paint::Red, &fault.code);
            Terminal::answer(&format!("{code}: {}", safe(&fault.message)));
        }
    }
    let Some(fault) = faults.first() else {
        let erased = if report.erased { ", content erased" } else { "" };
        if !session.json {
            Terminal::answer(&format!(
                "{}: {} and {} verified{erased}",
                run,
                render::count(report.records, "record"),
                render::count(report.contents, "content"),
            ));
        }
        return Ok(exit::DONE);
    };
    let fault = fault.to_string();
    let evidence = CliError::Evidence { run: run.to_string(), fault };
    Err(Failed::from(evidence).told(session.json))
}
