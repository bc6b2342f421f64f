//! Where records lie: a branch as a sequence of stretches, each on a row of `branches`.
//!
//! A branch owns only what was written on it. Reading one follows its parents down to the run's
//! first record, then reads the stretches in order.

use crate::StoreError;
use crate::prepare::{self, FORK_DEPTH_MAX, SEQ_MAX};
use crate::sql::{self, BranchState, RunState, no_such_branch};
use rusqlite::{Connection, params};
use types::{BranchId, RunId};

pub(crate) fn read_failed(error: rusqlite::Error) -> StoreError {
    sql::failed("read the log", &error)
}

/// A row of `records`, and where it stands.
#[derive(Debug)]
pub(crate) struct Cells {
    /// The branch it was written on.
    pub(crate) branch: BranchId,
    pub(crate) seq: u64,
    pub(crate) header: Vec<u8>,
    pub(crate) actor: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// A stretch of records that lie on one branch's own row.
#[derive(Debug)]
struct Stretch {
    branch: BranchState,
    from: u64,
    /// Not included.
    to: u64,
}

/// Where a branch's records lie, in ascending order of number.
fn stretches(
    conn: &Connection,
    run: &RunId,
    state: &RunState,
    branch: BranchId,
) -> Result<Vec<Stretch>, StoreError> {
    let row = |branch| {
        sql::branch_state(conn, state.id, branch)
            .map_err(read_failed)?
            .ok_or_else(|| no_such_branch(run, branch))
    };
    let mut found = Vec::new();
    let mut branch = row(branch)?;
    let mut to = u64::MAX;
    while let Some((parent, at)) = branch.forked {
        // Deeper ones are never made; a loop of parents is damage.
        prepare::limit("the depth of forks", found.len() + 1, FORK_DEPTH_MAX as u64)?;
        let from = at + 1;
        found.push(Stretch { branch, from, to });
        to = to.min(from);
        branch = row(parent)?;
    }
    let from = 0;
    found.push(Stretch { branch, from, to });
    found.reverse();
    Ok(found)
}

/// Up to `limit` records of a branch from number `from_seq` on, as they lie there.
pub(crate) fn cells(
    conn: &Connection,
    run: &RunId,
    state: &RunState,
    branch: BranchId,
    from_seq: u64,
    limit: usize,
) -> Result<Vec<Cells>, StoreError> {
    let mut found = Vec::new();
    for stretch in stretches(conn, run, state, branch)? {
        let from = stretch.from.max(from_seq);
        let to = stretch.to.min(SEQ_MAX + 1);
        if from < to && found.len() < limit {
            let left = limit - found.len();
            read_stretch(conn, &stretch.branch, from..to, left, &mut found).map_err(read_failed)?;
        }
    }
    Ok(found)
}

fn read_stretch(
    conn: &Connection,
    branch: &BranchState,
    range: std::ops::Range<u64>,
    limit: usize,
    found: &mut Vec<Cells>,
) -> rusqlite::Result<()> {
    let first = sql::record_key(branch.id, range.start);
    let last = sql::record_key(branch.id, range.end - 1);
    let mut select = conn.prepare_cached(
        "SELECT key, header, actor, body FROM records
         WHERE key BETWEEN ?1 AND ?2 ORDER BY key LIMIT ?3",
    )?;
    let rows = select.query_map(params![first, last, sql::signed(limit as u64)], |row| {
        Ok(Cells {
            branch: branch.branch,
            seq: sql::seq_of(row.get(0)?),
            header: row.get(1)?,
            actor: row.get(2)?,
            body: row.get(3)?,
        })
    })?;
    for row in rows {
        found.push(row?);
    }
    Ok(())
}

/// One record of a branch, if there is one of that number.
pub(crate) fn cells_at(
    conn: &Connection,
    run: &RunId,
    state: &RunState,
    branch: BranchId,
    seq: u64,
) -> Result<Option<(i64, Cells)>, StoreError> {
    let mut stretches = stretches(conn, run, state, branch)?;
    stretches.retain(|stretch| (stretch.from..stretch.to).contains(&seq));
    let (Some(stretch), true) = (stretches.first(), seq <= SEQ_MAX) else {
        return Ok(None);
    };
    let mut found = Vec::new();
    read_stretch(conn, &stretch.branch, seq..seq + 1, 1, &mut found).map_err(read_failed)?;
    Ok(found.pop().map(|cells| (stretch.branch.id, cells)))
}

/// The encoded header of the record that a branch is to leave `parent` at.
pub(crate) fn fork_point(
    conn: &Connection,
    run: &RunId,
    state: &RunState,
    parent: BranchId,
    at_seq: u64,
) -> Result<Vec<u8>, StoreError> {
    let depth = stretches(conn, run, state, parent)?.len();
    prepare::limit("the depth of forks", depth, FORK_DEPTH_MAX as u64)?;
    let found = cells_at(conn, run, state, parent, at_seq)?;
    found.map(|(_, cells)| cells.header).ok_or_else(|| StoreError::NoSuchPlace {
        run: run.clone(),
        what: format!("record {at_seq} on branch {parent}"),
    })
}

pub(crate) fn attachments_of(
    conn: &Connection,
    record: i64,
) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    conn.prepare_cached("SELECT name, cell FROM attachments WHERE record = ?1 ORDER BY name")?
        .query_map([record], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}
