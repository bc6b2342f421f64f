//! Runs that begin in the middle of another.
//!
//! A fork is a run with an id of its own, so that it has its own owner task, epoch, idempotency
//! keys, placeholders of secrets and results; its records up to the fork, and the layers they name,
//! are the other's. Nothing is copied. What always holds: a request that is refused or fails leaves no
//! fork; an owner that is killed may leave some of many, each of them whole.

use crate::error::RuntimeError;
use crate::parts::Parts;
use crate::run::random_id;
use std::sync::Arc;
use store::{ForkPoint, NewRecord, Read, RunRow, Store};
use tokio::task::JoinSet;
use types::{Actor, Attempt, BRANCH_MAIN, Body, Cause, Item, Link, Record, RunId};

/// Runs that one request makes at most.
pub const FORKS_MAX: u32 = 1_000;
/// Records that a run has from the moment it is created, at most.
const FIRST_RECORDS_MAX: usize = 3;

/// What is to be forked.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) run: RunId,
    /// The last record that both have; the newest when none is named.
    pub(crate) at: Option<u64>,
    pub(crate) count: u32,
    /// The seed of the first, when they are attempts of a rollout; the next has the next.
    pub(crate) seed: Option<u64>,
    pub(crate) by: String,
}

/// Makes the forks, in the order of their ids' making.
pub(crate) async fn fork(parts: &Arc<Parts>, wanted: Wanted) -> Result<Vec<RunId>, RuntimeError> {
    let refuse = |reason: String| RuntimeError::RunState { run: wanted.run.to_string(), reason };
    if !(1..=FORKS_MAX).contains(&wanted.count) {
        return Err(refuse(format!("it can be forked 1 to {FORKS_MAX} times at once")));
    }
    let (first, last) = ends(parts, &wanted)?;
    let at_seq = last.stamp.seq;
    let created = first.iter().take_while(|record| is_creation(&record.body)).count() as u64;
    if at_seq + 1 < created {
        return Err(refuse(format!(
            "its first records belong together: fork it at {} or later",
            created - 1
        )));
    }
    let moment = parts.clock.moment(last.stamp.time_ms);
    let actor = Actor { on_behalf_of: wanted.by.clone(), ..first[0].actor.clone() };
    let record = |number: u32| NewRecord {
        time_ms: moment.time_ms,
        mono_ms: moment.mono_ms,
        boot: moment.boot,
        causes: vec![Cause { link: Link::ForkedFrom, seq: at_seq }],
        actor: actor.clone(),
        body: Body::Forked {
            origin: wanted.run.clone(),
            at: at_seq,
            by: wanted.by.clone(),
            attempt: wanted
                .seed
                .map(|seed| Attempt { number, seed: seed.wrapping_add(number.into()) }),
        },
        attachments: Vec::new(),
    };
    let from = ForkPoint { run: wanted.run.clone(), branch: BRANCH_MAIN, at_seq };
    let ids = (0..wanted.count).map(|_| random_id()).collect::<Result<Vec<_>, _>>()?;
    parts.failpoints.before_append();
    make_all(parts, &ids, &from, record).await?;
    parts.failpoints.after_append();
    Ok(ids)
}

/// The run's first records, and the one it is forked at.
fn ends(parts: &Parts, wanted: &Wanted) -> Result<(Vec<Record>, Record), RuntimeError> {
    let part = |error: store::StoreError| RuntimeError::part(&error);
    let head = parts.store.head(&wanted.run, BRANCH_MAIN).map_err(part)?;
    let at = wanted.at.unwrap_or_else(|| head.next_seq.saturating_sub(1));
    let page = |from, limit| parts.store.records_page(&wanted.run, BRANCH_MAIN, from, limit);
    let first = page(0, FIRST_RECORDS_MAX).map_err(part)?;
    let last = page(at, 1).map_err(part)?.pop().ok_or_else(|| RuntimeError::RunState {
        run: wanted.run.to_string(),
        reason: format!("it has no record {at}"),
    })?;
    Ok((first, last))
}

/// Whether a record is written when a run is created, before anything happens.
const fn is_creation(body: &Body) -> bool {
    matches!(
        body,
        Body::RunStarted { .. }
            | Body::ItemAdded { item: Item::UserMessage { .. } | Item::ToolCall { .. } }
    )
}

/// All at once, so that one write to the disk does for many.
async fn make_all(
    parts: &Arc<Parts>,
    ids: &[RunId],
    from: &ForkPoint,
    record: impl Fn(u32) -> NewRecord,
) -> Result<(), RuntimeError> {
    let mut making = JoinSet::new();
    for (number, run) in (0..).zip(ids) {
        let record = record(number);
        let row = RunRow { run: run.clone(), started_ms: record.time_ms };
        making.spawn(parts.store.fork_run(row, from.clone(), vec![record]));
    }
    let mut failed = None;
    while let Some(made) = making.join_next().await {
        let made = made.map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() });
        let made = made.and_then(|made| made.map_err(|error| RuntimeError::part(&error)));
        failed = failed.or(made.err());
    }
    let Some(error) = failed else { return Ok(()) };
    for run in ids {
        // Those that were not made are not there to be removed.
        let _ = parts.store.remove(run).await;
    }
    Err(error)
}
