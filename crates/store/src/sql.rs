//! The database: its schema, and every statement that changes it.
//!
//! Each function here runs inside a transaction that its caller commits or rolls back; none assumes
//! more than that a row can be compared and changed in one step.
//!
//! A record's key is `branch row << 32 | seq`: records of a branch lie next to each other, reading
//! them is one range scan, and a second record of the same number cannot exist.

use crate::error::CANDIDATES_MAX;
use crate::files::{FileId, Staged};
use crate::prepare::{self, SEQ_MAX};
use crate::{Append, ForkPoint, RunRow, StoreError};
use ledger::{Head, Header};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use std::path::Path;
use types::{BRANCH_MAIN, BranchId, Digest, RunId};

/// `BPLG`, in the file's header.
pub(crate) const APPLICATION_ID: u32 = 0x4250_4c47;
/// Version of the schema, in the file's header.
pub(crate) const VERSION: u32 = 2;

const SEQ_BITS: u32 = 32;
const _: () = assert!(SEQ_MAX < 1 << SEQ_BITS);

const SCHEMA: &str = "
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL UNIQUE,
    started_ms INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    -- The key's file; NULL once erased.
    key BLOB
) STRICT;
CREATE TABLE branches (
    id INTEGER PRIMARY KEY,
    run INTEGER NOT NULL,
    branch INTEGER NOT NULL,
    -- The branch it left and the last record they share; NULL for the first. The run that branch
    -- is of, when it is another.
    parent_run INTEGER,
    parent INTEGER,
    at INTEGER,
    -- The head.
    next_seq INTEGER NOT NULL,
    digest BLOB NOT NULL,
    UNIQUE (run, branch)
) STRICT;
CREATE INDEX branches_by_parent_run ON branches (parent_run) WHERE parent_run IS NOT NULL;
CREATE TABLE records (
    key INTEGER PRIMARY KEY,
    header BLOB NOT NULL,
    -- Cells: 0, sealed bytes; or 1, file id.
    actor BLOB NOT NULL,
    body BLOB NOT NULL
) STRICT;
CREATE TABLE attachments (
    id INTEGER PRIMARY KEY,
    record INTEGER NOT NULL,
    name TEXT NOT NULL,
    cell BLOB NOT NULL,
    UNIQUE (record, name)
) STRICT;
CREATE TABLE blobs (id INTEGER PRIMARY KEY, run INTEGER NOT NULL, file BLOB NOT NULL) STRICT;
CREATE INDEX blobs_by_run ON blobs (run);
-- Keys whose files are being destroyed, and runs whose rows are being removed.
CREATE TABLE doomed_keys (file BLOB PRIMARY KEY) STRICT;
CREATE TABLE doomed_runs (run INTEGER PRIMARY KEY) STRICT;
CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
";

/// Makes a new database in an empty file.
pub(crate) fn create(path: &Path) -> Result<(), StoreError> {
    let make = || {
        let conn = Connection::open(path)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "application_id", APPLICATION_ID)?;
        conn.pragma_update(None, "user_version", VERSION)?;
        conn.execute_batch(SCHEMA)?;
        conn.close().map_err(|(_, error)| error)
    };
    make().map_err(|error| failed("create the log", &error))
}

/// A database error as ours: a full device or a size limit is told apart.
pub(crate) fn failed(doing: &str, error: &rusqlite::Error) -> StoreError {
    let why = error.to_string();
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full { why },
        _ => StoreError::Io { doing: doing.to_owned(), why },
    }
}

fn write_failed(error: rusqlite::Error) -> StoreError {
    failed("write to the log", &error)
}

pub(crate) fn record_key(branch_row: i64, seq: u64) -> i64 {
    let seq = i64::try_from(seq).expect("numbers are at most SEQ_MAX");
    assert!(branch_row < 1 << (63 - SEQ_BITS), "fewer than 2^31 branches");
    branch_row << SEQ_BITS | seq
}

pub(crate) fn seq_of(key: i64) -> u64 {
    u64::try_from(key & ((1 << SEQ_BITS) - 1)).expect("masked to 32 bits")
}

/// SQLite's integers are signed; ours above its range do not occur (times and epochs far below).
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

pub(crate) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A record with its content sealed.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) header: Header,
    pub(crate) actor: Vec<u8>,
    pub(crate) body: Vec<u8>,
    pub(crate) attachments: Vec<(String, Vec<u8>)>,
    pub(crate) blobs: Vec<Staged>,
}

/// Digests of a record and of the one before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Linked {
    pub(crate) prev: Digest,
    pub(crate) digest: Digest,
}

/// What an append claims to know.
#[derive(Debug)]
pub(crate) struct Expect {
    pub(crate) run: RunId,
    pub(crate) branch: BranchId,
    pub(crate) next_seq: u64,
    pub(crate) epoch: u64,
}

impl From<&Append> for Expect {
    fn from(append: &Append) -> Self {
        Self {
            run: append.run.clone(),
            branch: append.branch,
            next_seq: append.next_seq,
            epoch: append.epoch,
        }
    }
}

pub(crate) fn no_such_run(run: &RunId) -> StoreError {
    StoreError::NoSuchRun { text: run.to_string() }
}

pub(crate) fn no_such_branch(run: &RunId, branch: BranchId) -> StoreError {
    StoreError::NoSuchPlace { run: run.clone(), what: format!("branch {branch}") }
}

/// A run's row.
#[derive(Debug, Clone)]
pub(crate) struct RunState {
    pub(crate) id: i64,
    pub(crate) epoch: u64,
    /// `None` once erased.
    pub(crate) key: Option<FileId>,
}

pub(crate) fn run_state(conn: &Connection, run: &RunId) -> rusqlite::Result<Option<RunState>> {
    conn.prepare_cached("SELECT id, epoch, key FROM runs WHERE run = ?1")?
        .query_row([run.as_str()], |row| {
            Ok(RunState { id: row.get(0)?, epoch: unsigned(row.get(1)?), key: row.get(2)? })
        })
        .optional()
}

/// A branch's row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BranchState {
    pub(crate) id: i64,
    pub(crate) branch: BranchId,
    pub(crate) forked: Option<Left>,
    pub(crate) head: Head,
}

/// Where a branch left another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Left {
    /// The row of the other's run.
    pub(crate) run: i64,
    pub(crate) branch: BranchId,
    pub(crate) at: u64,
}

pub(crate) const BRANCH_COLUMNS: &str = "id, branch, parent, at, next_seq, digest, parent_run, run";

pub(crate) fn branch_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<BranchState> {
    let parent: Option<BranchId> = row.get(2)?;
    let at: Option<i64> = row.get(3)?;
    let run = row.get::<_, Option<i64>>(6)?.map_or_else(|| row.get(7), Ok)?;
    Ok(BranchState {
        id: row.get(0)?,
        branch: row.get(1)?,
        forked: parent.zip(at).map(|(branch, at)| Left { run, branch, at: unsigned(at) }),
        head: Head { next_seq: unsigned(row.get(4)?), digest: Digest(row.get(5)?) },
    })
}

pub(crate) fn branch_state(
    conn: &Connection,
    run_id: i64,
    branch: BranchId,
) -> rusqlite::Result<Option<BranchState>> {
    let sql = format!("SELECT {BRANCH_COLUMNS} FROM branches WHERE run = ?1 AND branch = ?2");
    conn.prepare_cached(&sql)?.query_row((run_id, branch), branch_of).optional()
}

/// Inserts a run with its first branch and records; its epoch is 1.
pub(crate) fn create_run(
    conn: &Connection,
    row: &RunRow,
    key: &FileId,
    rows: &mut [Row],
) -> Result<Vec<Linked>, StoreError> {
    if run_state(conn, &row.run).map_err(write_failed)?.is_some() {
        let run = row.run.clone();
        return Err(StoreError::RunExists { run });
    }
    insert_run(conn, row, key, None, Head::EMPTY).map_err(write_failed)?;
    let expect = Expect { run: row.run.clone(), branch: BRANCH_MAIN, next_seq: 0, epoch: 1 };
    append(conn, &expect, rows)
}

fn insert_run(
    conn: &Connection,
    row: &RunRow,
    key: &FileId,
    forked: Option<Left>,
    head: Head,
) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO runs (run, started_ms, epoch, key) VALUES (?1, ?2, 1, ?3)")
        .and_then(|mut insert| {
            insert.insert(params![row.run.as_str(), signed(row.started_ms), key])
        })
        .and_then(|run_id| insert_branch(conn, run_id, BRANCH_MAIN, forked, head))
}

/// Inserts a run that shares another's records up to a point, and its own first ones.
pub(crate) fn fork_run(
    conn: &Connection,
    row: &RunRow,
    from: &ForkPoint,
    rows: &mut [Row],
) -> Result<Vec<Linked>, StoreError> {
    if run_state(conn, &row.run).map_err(write_failed)?.is_some() {
        let run = row.run.clone();
        return Err(StoreError::RunExists { run });
    }
    let other = run_state(conn, &from.run).map_err(write_failed)?;
    let other = other.ok_or_else(|| no_such_run(&from.run))?;
    let key = other.key.ok_or_else(|| StoreError::Erased { run: from.run.clone() })?;
    let last = crate::rows::fork_point(conn, &from.run, &other, from.branch, from.at_seq)?;
    let next_seq = from.at_seq + 1;
    let head = Head { next_seq, digest: ledger::digest_encoded(&last.header) };
    let left = Left { run: other.id, branch: from.branch, at: from.at_seq };
    insert_run(conn, row, &key, Some(left), head).map_err(write_failed)?;
    let expect = Expect { run: row.run.clone(), branch: BRANCH_MAIN, next_seq, epoch: 1 };
    append(conn, &expect, rows)
}

fn insert_branch(
    conn: &Connection,
    run_id: i64,
    branch: BranchId,
    forked: Option<Left>,
    head: Head,
) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO branches (run, branch, parent_run, parent, at, next_seq, digest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        run_id,
        branch,
        forked.map(|left| left.run).filter(|run| *run != run_id),
        forked.map(|left| left.branch),
        forked.map(|left| signed(left.at)),
        signed(head.next_seq),
        head.digest.0
    ])?;
    Ok(())
}

/// Appends rows if the log stands where the writer believes, linking each to the one before.
pub(crate) fn append(
    conn: &Connection,
    expect: &Expect,
    rows: &mut [Row],
) -> Result<Vec<Linked>, StoreError> {
    let run = run_state(conn, &expect.run)
        .map_err(write_failed)?
        .ok_or_else(|| no_such_run(&expect.run))?;
    let branch = branch_state(conn, run.id, expect.branch)
        .map_err(write_failed)?
        .ok_or_else(|| no_such_branch(&expect.run, expect.branch))?;
    check_fence(expect, &run, &branch)?;
    let mut head = branch.head;
    let mut linked = Vec::with_capacity(rows.len());
    for row in rows {
        let key = record_key(branch.id, row.header.seq);
        let encoded = prepare::link(&mut row.header, &mut head);
        insert_record(conn, run.id, key, &encoded, row).map_err(write_failed)?;
        linked.push(Linked { prev: row.header.prev, digest: head.digest });
    }
    move_head(conn, &branch, head).map_err(write_failed)?;
    Ok(linked)
}

fn check_fence(expect: &Expect, run: &RunState, branch: &BranchState) -> Result<(), StoreError> {
    if run.key.is_none() {
        let run = expect.run.clone();
        return Err(StoreError::Erased { run });
    }
    let stands = (run.epoch, branch.head.next_seq);
    if stands == (expect.epoch, expect.next_seq) {
        return Ok(());
    }
    Err(StoreError::Fenced {
        run: expect.run.clone(),
        branch: expect.branch,
        given_seq: expect.next_seq,
        next_seq: branch.head.next_seq,
        given_epoch: expect.epoch,
        epoch: run.epoch,
    })
}

fn insert_record(
    conn: &Connection,
    run_id: i64,
    key: i64,
    header: &[u8],
    row: &Row,
) -> rusqlite::Result<()> {
    conn.prepare_cached("INSERT INTO records (key, header, actor, body) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![key, header, row.actor, row.body])?;
    for (name, cell) in &row.attachments {
        conn.prepare_cached("INSERT INTO attachments (record, name, cell) VALUES (?1, ?2, ?3)")?
            .execute(params![key, name, cell])?;
    }
    for blob in &row.blobs {
        conn.prepare_cached("INSERT INTO blobs (run, file) VALUES (?1, ?2)")?
            .execute(params![run_id, blob.id])?;
    }
    Ok(())
}

fn move_head(conn: &Connection, branch: &BranchState, head: Head) -> rusqlite::Result<()> {
    let changed = conn
        .prepare_cached(
            "UPDATE branches SET next_seq = ?1, digest = ?2 WHERE id = ?3 AND next_seq = ?4",
        )?
        .execute(params![
            signed(head.next_seq),
            head.digest.0,
            branch.id,
            signed(branch.head.next_seq)
        ])?;
    assert_eq!(changed, 1, "the head was read in this transaction");
    Ok(())
}

/// Raises a run's epoch and returns it.
pub(crate) fn claim(conn: &Connection, run: &RunId) -> Result<u64, StoreError> {
    conn.prepare_cached("UPDATE runs SET epoch = epoch + 1 WHERE run = ?1 RETURNING epoch")
        .and_then(|mut update| {
            update.query_row([run.as_str()], |row| row.get(0).map(unsigned)).optional()
        })
        .map_err(write_failed)?
        .ok_or_else(|| no_such_run(run))
}

/// Adds a branch that points at a record; returns its number.
pub(crate) fn fork(
    conn: &Connection,
    run: &RunId,
    parent: BranchId,
    at_seq: u64,
) -> Result<BranchId, StoreError> {
    let state = run_state(conn, run).map_err(write_failed)?.ok_or_else(|| no_such_run(run))?;
    let last = crate::rows::fork_point(conn, run, &state, parent, at_seq)?;
    if last.run != *run {
        let what = format!("record {at_seq} of its own on branch {parent}");
        return Err(StoreError::NoSuchPlace { run: run.clone(), what });
    }
    let head = Head { next_seq: at_seq + 1, digest: ledger::digest_encoded(&last.header) };
    let insert = || {
        let branch = conn
            .prepare_cached("SELECT max(branch) + 1 FROM branches WHERE run = ?1")?
            .query_row([state.id], |row| row.get(0))?;
        let left = Left { run: state.id, branch: parent, at: at_seq };
        insert_branch(conn, state.id, branch, Some(left), head)?;
        Ok(branch)
    };
    insert().map_err(write_failed)
}

/// Files that a run leaves behind.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    pub(crate) key: Option<FileId>,
    pub(crate) blobs: Vec<FileId>,
}

/// Takes the key and large payloads from a run, and from all that have the same key. The key's
/// file is doomed until it is destroyed.
pub(crate) fn erase(conn: &Connection, run: &RunId) -> Result<Leftovers, StoreError> {
    let state = run_state(conn, run).map_err(write_failed)?.ok_or_else(|| no_such_run(run))?;
    let disown_all = || {
        let Some(key) = &state.key else {
            return disown(conn, state.id, None);
        };
        let mut all = Leftovers { key: None, blobs: Vec::new() };
        for run in with_key(conn, key)? {
            let one = disown(conn, run, Some(key))?;
            all.blobs.extend(one.blobs);
            all.key = all.key.or(one.key);
        }
        Ok(all)
    };
    disown_all().map_err(write_failed)
}

/// The rows of the runs that have a key.
fn with_key(conn: &Connection, key: &FileId) -> rusqlite::Result<Vec<i64>> {
    conn.prepare_cached("SELECT id FROM runs WHERE key = ?1")?
        .query_map([key], |row| row.get(0))?
        .collect()
}

/// Takes the key and large payloads from one run; the key is doomed with the last that has it.
fn disown(conn: &Connection, run_id: i64, key: Option<&FileId>) -> rusqlite::Result<Leftovers> {
    let mut doomed = None;
    if let Some(key) = key {
        conn.execute("UPDATE runs SET key = NULL WHERE id = ?1", [run_id])?;
        if with_key(conn, key)?.is_empty() {
            conn.execute("INSERT INTO doomed_keys (file) VALUES (?1)", [key])?;
            doomed = Some(*key);
        }
    }
    let blobs = conn
        .prepare_cached("DELETE FROM blobs WHERE run = ?1 RETURNING file")?
        .query_map([run_id], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(Leftovers { key: doomed, blobs })
}

/// Refuses when other runs share a run's records.
fn check_unshared(conn: &Connection, run: &RunId, run_id: i64) -> Result<(), StoreError> {
    let read = || {
        conn.prepare_cached(
            "SELECT r.run FROM branches b JOIN runs r ON r.id = b.run
             WHERE b.parent_run = ?1 ORDER BY r.run LIMIT ?2",
        )?
        .query_map(params![run_id, signed(CANDIDATES_MAX as u64 + 1)], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()
    };
    let mut forks = read().map_err(write_failed)?;
    if forks.is_empty() {
        return Ok(());
    }
    let more = forks.len() > CANDIDATES_MAX;
    forks.truncate(CANDIDATES_MAX);
    Err(StoreError::HasForks { run: run.clone(), forks, more })
}

/// Makes a run unknown; its rows are purged afterwards. Returns its row's id.
pub(crate) fn remove(conn: &Connection, run: &RunId) -> Result<(i64, Leftovers), StoreError> {
    let state = run_state(conn, run).map_err(write_failed)?.ok_or_else(|| no_such_run(run))?;
    check_unshared(conn, run, state.id)?;
    let disown = || {
        let leftovers = disown(conn, state.id, state.key.as_ref())?;
        conn.execute("INSERT INTO doomed_runs (run) VALUES (?1)", [state.id])?;
        conn.execute("DELETE FROM runs WHERE id = ?1", [state.id])?;
        Ok((state.id, leftovers))
    };
    disown().map_err(write_failed)
}

/// Removes up to `limit` records of a removed run. `false` once nothing is left of it.
pub(crate) fn purge(conn: &Connection, run_id: i64, limit: usize) -> Result<bool, StoreError> {
    purge_rows(conn, run_id, limit).map_err(write_failed)
}

fn purge_rows(conn: &Connection, run_id: i64, limit: usize) -> rusqlite::Result<bool> {
    let branch: Option<i64> = conn
        .prepare_cached("SELECT min(id) FROM branches WHERE run = ?1")?
        .query_row([run_id], |row| row.get(0))?;
    let Some(branch) = branch else {
        conn.execute("DELETE FROM doomed_runs WHERE run = ?1", [run_id])?;
        return Ok(false);
    };
    let (first, last) = (record_key(branch, 0), record_key(branch, SEQ_MAX));
    let keys: Vec<i64> = conn
        .prepare_cached("SELECT key FROM records WHERE key BETWEEN ?1 AND ?2 LIMIT ?3")?
        .query_map(params![first, last, signed(limit as u64)], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for key in &keys {
        conn.prepare_cached("DELETE FROM attachments WHERE record = ?1")?.execute([key])?;
        conn.prepare_cached("DELETE FROM records WHERE key = ?1")?.execute([key])?;
    }
    if keys.len() < limit {
        conn.execute("DELETE FROM branches WHERE id = ?1", [branch])?;
    }
    Ok(true)
}

/// A doomed key's file is gone.
pub(crate) fn key_destroyed(conn: &Connection, key: &FileId) -> Result<(), StoreError> {
    conn.execute("DELETE FROM doomed_keys WHERE file = ?1", [key]).map(|_| ()).map_err(write_failed)
}

pub(crate) fn set_setting(conn: &Connection, name: &str, value: &[u8]) -> Result<(), StoreError> {
    conn.execute(
        "INSERT INTO settings (name, value) VALUES (?1, ?2)
         ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        params![name, value],
    )
    .map(|_| ())
    .map_err(write_failed)
}
