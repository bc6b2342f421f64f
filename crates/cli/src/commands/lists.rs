//! `ps`, `df`: what is there.

use crate::error::{Result, exit};
use crate::outcome::status_word;
use crate::render;
use crate::session::Session;
use crate::terminal::{Paint, Terminal, safe};
use kernel::{State, Status};
use runtime::Home;
use serde_json::json;
use std::path::Path;
use store::{Read, RunSummary, StoreError};
use types::{BRANCH_MAIN, Body, EndStatus};

/// `ps`.
pub(crate) fn ps(session: &Session) -> Result<u8> {
    let reader = session.reader()?;
    let runs = reader.runs()?;
    let live = if runs.is_empty() { Default::default() } else { session.live() };
    let mut rows = Vec::new();
    for summary in &runs {
        let status = status(&reader, summary, live.contains(&summary.run))?;
        let agent = summary.last.as_ref().map_or("", |record| record.actor.agent.as_str());
        rows.push((summary, agent, status));
    }
    if session.json || session.jsonl {
        let runs: Vec<_> =
            rows.iter().map(|(summary, agent, status)| row(summary, agent, *status)).collect();
        Terminal::answer_json(&json!({ "runs": runs }));
        return Ok(exit::DONE);
    }
    if rows.is_empty() {
        session.terminal.progress("no runs yet: bedplate run \"TASK\"");
    }
    for (summary, agent, status) in rows {
        let word = format!("{:<9}", status_word(status));
        let started = render::moment(summary.started_ms);
        Terminal::answer(&format!("{}  {word}  {started}  {}", summary.run, safe(agent)));
    }
    Ok(exit::DONE)
}

/// A run as `ps --json` lists it.
pub(crate) fn row(summary: &RunSummary, agent: &str, status: Status) -> serde_json::Value {
    json!({
        "run": summary.run,
        "agent": agent,
        "status": status_word(status),
        "started": render::rfc3339(summary.started_ms),
    })
}

/// A run's status. The last record tells for most; the others are folded.
pub(crate) fn status(
    reader: &store::Reader,
    summary: &RunSummary,
    live: bool,
) -> std::result::Result<Status, StoreError> {
    match summary.last.as_ref().map(|record| &record.body) {
        Some(Body::RunEnded { status: EndStatus::Done, .. }) => Ok(Status::Done),
        Some(Body::RunEnded { status: EndStatus::Failed, .. }) => Ok(Status::Failed),
        Some(Body::RunEnded { status: EndStatus::Cancelled, .. }) => Ok(Status::Cancelled),
        Some(_) => {
            let records = reader.records(&summary.run, BRANCH_MAIN, 0)?;
            Ok(State::of(&records).status(live))
        }
        // Its content was erased: nothing can go on from it.
        None => Ok(Status::Cancelled),
    }
}

/// `df`: bytes on the device under each part of the home.
pub(crate) fn df(session: &Session) -> Result<u8> {
    let parts = parts(&session.home);
    let total: u64 = parts.iter().map(|(_, bytes)| bytes).sum();
    if session.json {
        let parts: serde_json::Map<_, _> =
            parts.iter().map(|(name, bytes)| (name.clone(), json!(bytes))).collect();
        let home = session.home.path().to_string_lossy();
        Terminal::answer_json(&json!({ "home": home, "bytes": total, "parts": parts }));
        return Ok(exit::DONE);
    }
    for (name, bytes) in &parts {
        Terminal::answer(&format!("{:>10}  {}", render::bytes(*bytes), safe(name)));
    }
    let all = session.terminal.paint(Paint::Bold, &session.home.path().to_string_lossy());
    Terminal::answer(&format!("{:>10}  {all}", render::bytes(total)));
    Ok(exit::DONE)
}

fn parts(home: &Home) -> Vec<(String, u64)> {
    let Ok(entries) = std::fs::read_dir(home.path()) else {
        return Vec::new();
    };
    let mut parts: Vec<(String, u64)> = entries
        .flatten()
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), allocated(&entry.path())))
        .collect();
    parts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    parts
}

/// Bytes on the device under a path, links not followed.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    const BLOCK_BYTES: u64 = 512;
    let mut waiting = vec![path.to_owned()];
    let mut bytes = 0;
    while let Some(path) = waiting.pop() {
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        bytes += meta.blocks() * BLOCK_BYTES;
        if meta.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(entries.map(|entry| entry.path()));
        }
    }
    bytes
}
