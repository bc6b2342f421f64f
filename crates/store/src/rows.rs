//! Where records lie: a branch as a sequence of stretches, each on a row of `branches`.
//!
//! A branch owns only what was written on it. Reading one follows its parents down to the first
//! record of all, which may be another run's, then reads the stretches in order.

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
    /// The run and the branch it was written on.
    pub(crate) run: RunId,
    pub(crate) branch: BranchId,
    pub(crate) seq: u64,
    /// Its key in `records`.
    pub(crate) key: i64,
    pub(crate) header: Vec<u8>,
    pub(crate) actor: Vec<u8>,
    pub(crate) body: Vec<u8>,
}

/// A stretch of records that lie on one branch's own row.
#[derive(Debug)]
struct Stretch {
    run: RunId,
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
    let row = |run_id, run: &RunId, branch| {
        sql::branch_state(conn, run_id, branch)
            .map_err(read_failed)?
            .ok_or_else(|| no_such_branch(run, branch))
    };
    let mut found = Vec::new();
    let (mut run_id, mut run) = (state.id, run.clone());
    let mut branch = row(run_id, &run, branch)?;
    let mut to = u64::MAX;
    while let Some(left) = branch.forked {
        // Deeper ones are never made; a loop of parents is damage.
        prepare::limit("the depth of forks", found.len() + 1, FORK_DEPTH_MAX as u64)?;
        let from = left.at + 1;
        let above = match left.run {
            same if same == run_id => run.clone(),
            other => run_of(conn, other)?,
        };
        found.push(Stretch { run, branch, from, to });
        to = to.min(from);
        (run_id, run) = (left.run, above);
        branch = row(run_id, &run, left.branch)?;
    }
    let from = 0;
    found.push(Stretch { run, branch, from, to });
    found.reverse();
    Ok(found)
}

/// The run of a row. It is there as long as another shares its records.
pub(crate) fn run_of(conn: &Connection, run_id: i64) -> Result<RunId, StoreError> {
    let text: String = conn
        .prepare_cached("SELECT run FROM runs WHERE id = ?1")
        .and_then(|mut select| select.query_row([run_id], |row| row.get(0)))
        .map_err(read_failed)?;
    RunId::parse(&text).map_err(|error| StoreError::Io {
        doing: "read the run that another was forked from".to_owned(),
        why: error.to_string(),
    })
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
            read_stretch(conn, &stretch, from..to, left, &mut found).map_err(read_failed)?;
        }
    }
    Ok(found)
}

fn read_stretch(
    conn: &Connection,
    stretch: &Stretch,
    range: std::ops::Range<u64>,
    limit: usize,
    found: &mut Vec<Cells>,
) -> rusqlite::Result<()> {
    let branch = &stretch.branch;
    let first = sql::record_key(branch.id, range.start);
    let last = sql::record_key(branch.id, range.end - 1);
    let mut select = conn.prepare_cached(
        "SELECT key, header, actor, body FROM records
         WHERE key BETWEEN ?1 AND ?2 ORDER BY key LIMIT ?3",
    )?;
    let rows = select.query_map(params![first, last, sql::signed(limit as u64)], |row| {
        let key = row.get(0)?;
        Ok(Cells {
            run: stretch.run.clone(),
            branch: branch.branch,
            seq: sql::seq_of(key),
            key,
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
) -> Result<Option<Cells>, StoreError> {
    let mut stretches = stretches(conn, run, state, branch)?;
    stretches.retain(|stretch| (stretch.from..stretch.to).contains(&seq));
    let (Some(stretch), true) = (stretches.first(), seq <= SEQ_MAX) else {
        return Ok(None);
    };
    let mut found = Vec::new();
    read_stretch(conn, stretch, seq..seq + 1, 1, &mut found).map_err(read_failed)?;
    Ok(found.pop())
}

/// The record that a branch is to leave `parent` at.
pub(crate) fn fork_point(
    conn: &Connection,
    run: &RunId,
    state: &RunState,
    parent: BranchId,
    at_seq: u64,
) -> Result<Cells, StoreError> {
    let depth = stretches(conn, run, state, parent)?.len();
    prepare::limit("the depth of forks", depth, FORK_DEPTH_MAX as u64)?;
    let found = cells_at(conn, run, state, parent, at_seq)?;
    found.ok_or_else(|| StoreError::NoSuchPlace {
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
