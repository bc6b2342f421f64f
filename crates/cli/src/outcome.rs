//! What a run came to, as the one JSON document of `run` and `resume`, and as an exit status.

use crate::error::exit;
use kernel::{State, Status};
use serde_json::{Value, json};
use std::path::Path;
use types::{Body, EndStatus, Failure, Record, RunId};

/// The status as people and programs read it.
pub(crate) const fn status_word(status: Status) -> &'static str {
    match status {
        Status::Done => "done",
        Status::Failed => "failed",
        Status::Waiting => "waiting",
        Status::Suspended => "suspended",
        Status::Cancelled => "cancelled",
        Status::Running => "running",
    }
}

/// The exit status of a command that followed a run to this status.
pub(crate) const fn exit_of(status: Status) -> u8 {
    match status {
        Status::Done | Status::Running => exit::DONE,
        Status::Failed | Status::Cancelled => exit::FAILED,
        Status::Waiting | Status::Suspended => exit::WAITING,
    }
}

/// The exit status of `wrap`: that of the guest's program; ours when it has none, or when it did
/// its work and the run did not.
pub(crate) fn exit_of_guest(state: &State, records: &[Record]) -> u8 {
    let status = state.status(false);
    let ran = records.iter().rev().find_map(|record| match &record.body {
        Body::ActionFinished { exit, .. } => *exit,
        _ => None,
    });
    match (status, ran) {
        (Status::Done | Status::Failed, Some(exit)) if exit != 0 => {
            u8::try_from(exit & 0xff).unwrap_or(exit::SANDBOX_OWN)
        }
        (Status::Failed, None) => exit::SANDBOX_OWN,
        _ => exit_of(status),
    }
}

/// Why the run is where it is, when that is a failure.
pub(crate) fn error_of(state: &State) -> Option<&Failure> {
    match (&state.ended, &state.suspended) {
        (Some(ended), _) if ended.status == EndStatus::Failed => ended.error.as_ref(),
        (Some(_), _) => None,
        (None, Some((_, failure))) => failure.as_ref(),
        (None, None) => None,
    }
}

/// The agent's last words: those it ended with, else the latest.
pub(crate) fn output_of(state: &State) -> String {
    state.ended.as_ref().map_or_else(|| state.last_words(), |ended| ended.output.clone())
}

/// The results recorded since the run last began to work.
pub(crate) fn artifacts(state: &State, records: &[Record], kept: &Path) -> Vec<Value> {
    let of = |seq: &u64| records.iter().find(|record| record.stamp.seq == *seq);
    state
        .artifacts
        .values()
        .filter_map(of)
        .filter_map(|record| match &record.body {
            Body::ArtifactRecorded { path, sha256, bytes } => Some(json!({
                "path": path,
                "file": kept.join(path).to_string_lossy(),
                "sha256": sha256,
                "bytes": bytes,
            })),
            _ => None,
        })
        .collect()
}

/// The document. `kept` is where the run's results lie on the host.
pub(crate) fn document(
    run: &RunId,
    state: &State,
    records: &[Record],
    live: bool,
    kept: &Path,
) -> Value {
    let mut document = json!({
        "run": run,
        "status": status_word(state.status(live)),
        "output": output_of(state),
        "artifacts": artifacts(state, records, kept),
        "actions": state.actions.len(),
        "denials": state.denials,
        "approvals": state.approvals,
        "cost_usd": state.spent.cost.dollars(),
    });
    if let Some(failure) = error_of(state) {
        document["error"] = json!(failure);
    }
    document
}
