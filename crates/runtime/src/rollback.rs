//! Taking a run back to an earlier record: what that leaves undone is said first.
//!
//! Files and state go back by one more record; nothing is dropped from the log, and every layer
//! stays, so going back to the record before undoes it. What always holds: a run goes back over
//! something that cannot be taken back only when the person says that they know.

use crate::error::RuntimeError;
use crate::protocol::Keys;
use crate::registry::{Registry, Wanted};
use crate::run::Control;
use kernel::State;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Read;
use types::{BRANCH_MAIN, Body, EffectClass, OutcomeStatus, Record, Resolution, RunId, Verdict};

/// Where a run is to go back to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Back {
    /// To this record.
    To(u64),
    /// To where it stood before it last went back.
    Undo,
}

/// Takes a run back. Says to where, and what stays done.
pub(crate) async fn roll_back(
    registry: &Arc<Registry>,
    run: &RunId,
    back: Back,
    leave_effects: bool,
    by: String,
) -> Result<Vec<String>, RuntimeError> {
    let refuse = |reason: String| RuntimeError::RunState { run: run.to_string(), reason };
    let records = registry.parts.store.records(run, BRANCH_MAIN, 0);
    let records = records.map_err(|error| RuntimeError::part(&error))?;
    let at = match back {
        Back::To(at) => at,
        Back::Undo => undone(&records).ok_or_else(|| refuse("it never went back".to_owned()))?,
    };
    let last = records.last().map_or(0, |record| record.stamp.seq);
    if at >= last {
        return Err(refuse(format!("record {at} is not before its last one, {last}")));
    }
    let stays = stays_done(&records, at);
    if !leave_effects && !stays.is_empty() {
        return Err(RuntimeError::CannotTakeBack { run: run.to_string(), at, what: stays });
    }
    let count = usize::try_from(at).unwrap_or(usize::MAX).saturating_add(1);
    let to = State::of(records.iter().take(count)).layer;
    let to = to.ok_or_else(|| refuse("it has no layer there".to_owned()))?;
    let mut lines =
        vec![format!("{run} is as it was after record {at}, its files as in layer {to}")];
    lines.extend(stays.into_iter().map(|what| format!("not taken back: {what}")));
    let control = Control::RollBack { at, to, last, by };
    let wanted = Wanted { keys: Keys::default(), resume: false, control: Some(control) };
    registry.ask(run, wanted).await?;
    Ok(lines)
}

/// The record before the run last went back.
fn undone(records: &[Record]) -> Option<u64> {
    let back = records.iter().rev().find(|record| record.body.goes_back_to().is_some())?;
    back.stamp.seq.checked_sub(1)
}

/// What happened after a record and cannot be taken back, in order.
#[must_use]
pub fn stays_done(records: &[Record], at: u64) -> Vec<String> {
    let mut done = Done::default();
    for record in records {
        if let Body::ActionProposed { tool, effect: EffectClass::Irreversible, .. } = &record.body {
            done.proposed.insert(record.stamp.seq, tool);
        }
        if record.stamp.seq > at {
            done.note(record);
        }
    }
    let left = done.left.into_iter();
    left.map(|(seq, (_, what))| format!("record {seq}: {what}")).collect()
}

#[derive(Default)]
struct Done<'a> {
    /// Irreversible actions, and their tools.
    proposed: BTreeMap<u64, &'a str>,
    /// By record: the action, when it is one, and what was done.
    left: BTreeMap<u64, (Option<u64>, String)>,
}

impl Done<'_> {
    fn note(&mut self, record: &Record) {
        let seq = record.stamp.seq;
        match &record.body {
            Body::ActionStarted { action, .. } => {
                if let Some(tool) = self.proposed.get(action) {
                    self.left.insert(seq, (Some(*action), format!("{tool} was done")));
                }
            }
            Body::ActionResolved { action, resolution: Resolution::NotHappened, .. }
            | Body::ActionFinished { action, status: OutcomeStatus::NotStarted, .. } => {
                self.forget(*action);
            }
            Body::EgressDecided { request, verdict: Verdict::Permit, effect, .. }
                if *effect == EffectClass::Irreversible =>
            {
                self.left.insert(seq, (None, format!("{} was sent", request.resource())));
            }
            Body::EgressEnded { egress, sent: false, .. } => {
                self.left.remove(egress);
            }
            Body::ArtifactApplied { changes, by } => {
                let what = format!("{by} brought {} changes to the host", changes.len());
                self.left.insert(seq, (None, what));
            }
            _ => {}
        }
    }

    /// The last attempt at an action did nothing.
    fn forget(&mut self, action: u64) {
        let mut attempts = self.left.iter().rev();
        let last = attempts.find(|(_, (of, _))| *of == Some(action)).map(|(seq, _)| *seq);
        last.map(|seq| self.left.remove(&seq));
    }
}
