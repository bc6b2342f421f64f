//! Reading the log from an SQLite file, in this process or in another one than the writer's.
//!
//! Every method is one read transaction on a connection that cannot write: it sees a moment of the
//! log, whole appends only, and never waits for the writer.

use crate::error::CANDIDATES_MAX;
use crate::home::{Home, StillLock};
use crate::prepare::{self, ACTOR, BODY};
use crate::rows::{Cells, attachments_of, cells, cells_at, read_failed, run_of};
use crate::seal::{self, Key, Place};
use crate::sql::{self, BranchState, RunState, no_such_branch, no_such_run, unsigned};
use crate::{Branch, Content, Evidence, ForkPoint, Read, RunSummary, StoreError};
use ledger::{Head, Salt};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};
use types::{BRANCH_MAIN, BranchId, Record, RunId};

/// Idle connections kept for the next reads.
const IDLE_CONNECTIONS_MAX: usize = 4;
/// Reads a home, whether or not a process writes it, and whether or not there is anything in it.
#[derive(Debug)]
pub struct Reader {
    pub(crate) home: Home,
    idle: Mutex<Vec<Connection>>,
    /// Keeps a log that is read as unchanging from being written meanwhile.
    still: OnceLock<StillLock>,
}

/// The file's address for an engine that need not look for changes.
fn unchanging(db: &Path) -> String {
    let path = db.as_os_str().as_bytes().iter().fold(String::new(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() || b"/-_.".contains(byte) {
            path.push(char::from(*byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
        path
    });
    format!("file:{path}?immutable=1")
}

impl Reader {
    /// A reader of the log in a home directory. A home that does not exist reads as empty.
    ///
    /// # Errors
    /// When what is there is not a log this program reads. Changes nothing.
    pub fn open(home: &Path) -> Result<Self, StoreError> {
        let home = Home::at(home);
        home.check_readable()?;
        Ok(Self::of(home))
    }

    pub(crate) fn of(home: Home) -> Self {
        Self { home, idle: Mutex::default(), still: OnceLock::new() }
    }

    /// Runs `act` in a read transaction; `None` when there is no log.
    pub(crate) fn read<T>(
        &self,
        act: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let Some(conn) = self.connection()? else {
            return Ok(None);
        };
        let result = {
            let transaction = conn.unchecked_transaction().map_err(read_failed)?;
            act(&transaction)
        };
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(conn);
        }
        result.map(Some)
    }

    fn connection(&self) -> Result<Option<Connection>, StoreError> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if idle.is_some() {
            return Ok(idle);
        }
        if !self.home.check_readable()? {
            return Ok(None);
        }
        if self.still.get().is_none()
            && let Some(lock) = self.home.still()
        {
            // Another thread may have come first; one lock is enough.
            let _ = self.still.set(lock);
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = if self.still.get().is_some() {
            let flags = flags | OpenFlags::SQLITE_OPEN_URI;
            Connection::open_with_flags(unchanging(&self.home.db()), flags)
        } else {
            Connection::open_with_flags(self.home.db(), flags)
        };
        opened.map(Some).map_err(read_failed)
    }

    /// Closes connections that no read uses.
    pub(crate) fn close_idle(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Runs `act` with the run's row.
    fn with_run<T>(
        &self,
        run: &RunId,
        act: impl FnOnce(&Connection, &RunState) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let found = self.read(|conn| {
            let state = sql::run_state(conn, run).map_err(read_failed)?;
            state.map(|state| act(conn, &state)).transpose()
        })?;
        found.flatten().ok_or_else(|| no_such_run(run))
    }

    /// The run's key; `None` once erased.
    pub(crate) fn key(&self, run: &RunId) -> Result<Option<Key>, StoreError> {
        self.with_run(run, |_, state| self.key_of(run, state))
    }

    fn key_of(&self, run: &RunId, state: &RunState) -> Result<Option<Key>, StoreError> {
        let Some(id) = &state.key else {
            return Ok(None);
        };
        let lost = |why: String| StoreError::Damaged {
            run: run.clone(),
            seq: 0,
            why: format!("the run's key cannot be read: {why}"),
        };
        let bytes = self.home.keys.read(id).map_err(|error| lost(error.to_string()))?;
        let bytes = zeroize::Zeroizing::new(bytes);
        let key = Key::from_bytes(&bytes).ok_or_else(|| lost("wrong length".to_owned()))?;
        Ok(Some(key))
    }

    const fn opener<'a>(&'a self, key: &'a Key) -> Opener<'a> {
        Opener { home: &self.home, key }
    }

    fn summary(&self, row: &rusqlite::Row<'_>) -> rusqlite::Result<SummaryRow> {
        Ok(SummaryRow {
            run: row.get(0)?,
            started_ms: unsigned(row.get(1)?),
            state: RunState { id: row.get(2)?, epoch: unsigned(row.get(3)?), key: row.get(4)? },
            next_seq: unsigned(row.get(5)?),
            cells: row
                .get::<_, Option<Vec<u8>>>(6)?
                .map(|header| {
                    let cell = |index| row.get::<_, Vec<u8>>(index);
                    Ok::<_, rusqlite::Error>((header, cell(7)?, cell(8)?))
                })
                .transpose()?,
        })
    }

    fn summarize(&self, row: SummaryRow) -> Result<RunSummary, StoreError> {
        let run = RunId::parse(&row.run).map_err(|error| StoreError::Io {
            doing: "read the list of runs".to_owned(),
            why: error.to_string(),
        })?;
        let mut summary = RunSummary {
            started_ms: row.started_ms,
            epoch: row.state.epoch,
            head_seq: row.next_seq.checked_sub(1),
            head_kind: String::new(),
            last: None,
            erased: row.state.key.is_none(),
            run,
        };
        let (Some((header, actor, body)), Some(seq)) = (row.cells, summary.head_seq) else {
            return Ok(summary);
        };
        if let Ok(header) = ledger::decode(&header) {
            summary.head_kind = header.kind;
        }
        // One damaged run does not hide the others; `verify` says what is wrong with it.
        if let Ok(Some(key)) = self.key_of(&summary.run, &row.state) {
            // A run that was forked has a record of its own from its first moment.
            let run = summary.run.clone();
            let cells = Cells { run, branch: BRANCH_MAIN, seq, key: 0, header, actor, body };
            summary.last = self.opener(&key).record(&cells).ok();
        }
        Ok(summary)
    }
}

struct SummaryRow {
    run: String,
    started_ms: u64,
    state: RunState,
    next_seq: u64,
    cells: Option<(Vec<u8>, Vec<u8>, Vec<u8>)>,
}

/// Opens cells with a run's key.
struct Opener<'a> {
    home: &'a Home,
    key: &'a Key,
}

impl Opener<'_> {
    fn open(&self, of: &Cells, name: &str, cell: &[u8]) -> Result<(Salt, Vec<u8>), String> {
        let place = Place { run: &of.run, branch: of.branch, seq: of.seq, name };
        match crate::cell::Cell::parse(cell).ok_or("its row is damaged")? {
            crate::cell::Cell::Inline(sealed) => seal::open(self.key, place, sealed),
            crate::cell::Cell::File(id) => {
                let sealed = self.home.blobs.read(&id);
                let sealed = sealed.map_err(|error| format!("its file cannot be read: {error}"))?;
                seal::open(self.key, place, &sealed)
            }
        }
    }

    fn record(&self, cells: &Cells) -> Result<Record, StoreError> {
        let content = |name, cell| {
            self.open(cells, name, cell).map(|(_, bytes)| bytes).map_err(|why| {
                StoreError::Damaged {
                    run: cells.run.clone(),
                    seq: cells.seq,
                    why: format!("its {name}: {why}"),
                }
            })
        };
        let actor = content(ACTOR, &cells.actor)?;
        let body = content(BODY, &cells.body)?;
        prepare::assemble(&cells.run, cells.seq, &cells.header, &actor, &body)
    }
}

impl Read for Reader {
    fn runs(&self) -> Result<Vec<RunSummary>, StoreError> {
        let rows = self.read(|conn| {
            let read = || {
                conn.prepare_cached(
                    "SELECT r.run, r.started_ms, r.id, r.epoch, r.key, b.next_seq,
                            h.header, h.actor, h.body
                     FROM runs r
                     JOIN branches b ON b.run = r.id AND b.branch = 0
                     LEFT JOIN records h ON h.key = (b.id << 32) + b.next_seq - 1
                                        AND b.next_seq > 0
                     ORDER BY r.started_ms DESC, r.id DESC",
                )?
                .query_map([], |row| self.summary(row))?
                .collect::<rusqlite::Result<Vec<_>>>()
            };
            read().map_err(read_failed)
        })?;
        let rows = rows.unwrap_or_default().into_iter();
        rows.map(|row| self.summarize(row)).collect()
    }

    fn find(&self, text: &str) -> Result<RunId, StoreError> {
        let none = || StoreError::NoSuchRun { text: text.chars().take(80).collect() };
        let newest = "SELECT run FROM runs WHERE ?1 = ?1 AND ?2 = ?2
                      ORDER BY started_ms DESC, id DESC LIMIT 1";
        let fitting = "SELECT run FROM runs WHERE run >= ?1 AND substr(run, 1, length(?1)) = ?1
                       ORDER BY run LIMIT ?2";
        let query = if text == "last" { newest } else { fitting };
        if !ledger::is_name(text) {
            return Err(none());
        }
        let found = self.read(|conn| {
            let read = || {
                conn.prepare_cached(query)?
                    .query_map(params![text, sql::signed(CANDIDATES_MAX as u64 + 1)], |row| {
                        row.get(0)
                    })?
                    .collect::<rusqlite::Result<Vec<String>>>()
            };
            read().map_err(read_failed)
        })?;
        let mut found = found.unwrap_or_default();
        let more = found.len() > CANDIDATES_MAX;
        found.truncate(CANDIDATES_MAX);
        match found.as_slice() {
            [] => Err(none()),
            [one] => RunId::parse(one).map_err(|_| none()),
            _ => Err(StoreError::AmbiguousRun { text: text.to_owned(), candidates: found, more }),
        }
    }

    fn branches(&self, run: &RunId) -> Result<Vec<Branch>, StoreError> {
        self.with_run(run, |conn, state| {
            let sql = format!(
                "SELECT {} FROM branches WHERE run = ?1 ORDER BY branch",
                sql::BRANCH_COLUMNS
            );
            let read = || {
                conn.prepare_cached(&sql)?
                    .query_map([state.id], sql::branch_of)?
                    .collect::<rusqlite::Result<Vec<_>>>()
            };
            let rows = read().map_err(read_failed)?.into_iter();
            let branch = |row: BranchState| {
                let point = |left: sql::Left| {
                    let (branch, at_seq) = (left.branch, left.at);
                    Ok(ForkPoint { run: run_of(conn, left.run)?, branch, at_seq })
                };
                let forked = row.forked.map(point).transpose()?;
                Ok(Branch { branch: row.branch, forked, next_seq: row.head.next_seq })
            };
            rows.map(branch).collect()
        })
    }

    fn head(&self, run: &RunId, branch: BranchId) -> Result<Head, StoreError> {
        self.with_run(run, |conn, state| {
            let row = sql::branch_state(conn, state.id, branch).map_err(read_failed)?;
            row.map(|row| row.head).ok_or_else(|| no_such_branch(run, branch))
        })
    }

    fn records_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.with_run(run, |conn, state| {
            let Some(key) = self.key_of(run, state)? else {
                return Err(StoreError::Erased { run: run.clone() });
            };
            let opener = self.opener(&key);
            let mut records = Vec::new();
            let found = cells(conn, run, state, branch, from_seq, limit)?;
            for (seq, cells) in (from_seq..=u64::MAX).zip(&found) {
                if cells.seq != seq {
                    return Err(StoreError::Damaged {
                        run: run.clone(),
                        seq,
                        why: "it is missing".to_owned(),
                    });
                }
                records.push(opener.record(cells)?);
            }
            Ok(records)
        })
    }

    fn headers_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        self.with_run(run, |conn, state| {
            let found = cells(conn, run, state, branch, from_seq, limit)?;
            Ok(found.into_iter().map(|cells| cells.header).collect())
        })
    }

    fn evidence_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Evidence>, StoreError> {
        self.with_run(run, |conn, state| {
            let key = self.key_of(run, state)?;
            let opener = key.as_ref().map(|key| self.opener(key));
            let mut all = Vec::new();
            for cells in cells(conn, run, state, branch, from_seq, limit)? {
                let attachments = attachments_of(conn, cells.key).map_err(read_failed)?;
                all.push(evidence(opener.as_ref(), cells, attachments));
            }
            Ok(all)
        })
    }

    fn attachment(
        &self,
        run: &RunId,
        branch: BranchId,
        seq: u64,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.with_run(run, |conn, state| {
            let found = cells_at(conn, run, state, branch, seq)?;
            let key = self.key_of(run, state)?;
            let (Some(cells), Some(key)) = (found, key) else {
                return Ok(None);
            };
            let cell: Option<Vec<u8>> = conn
                .prepare_cached("SELECT cell FROM attachments WHERE record = ?1 AND name = ?2")
                .and_then(|mut select| {
                    select.query_row(params![cells.key, name], |row| row.get(0)).optional()
                })
                .map_err(read_failed)?;
            let open = |cell: Vec<u8>| {
                self.opener(&key).open(&cells, name, &cell).map(|(_, bytes)| bytes).map_err(|why| {
                    StoreError::Damaged { run: run.clone(), seq, why: format!("its {name}: {why}") }
                })
            };
            cell.map(open).transpose()
        })
    }

    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let found = self.read(|conn| {
            conn.query_row("SELECT value FROM settings WHERE name = ?1", [name], |row| row.get(0))
                .optional()
                .map_err(read_failed)
        })?;
        Ok(found.flatten())
    }
}

fn evidence(
    opener: Option<&Opener<'_>>,
    cells: Cells,
    attachments: Vec<(String, Vec<u8>)>,
) -> Evidence {
    let fixed = [(ACTOR.to_owned(), cells.actor.clone()), (BODY.to_owned(), cells.body.clone())];
    let content = |(name, cell): (String, Vec<u8>)| {
        let content = match opener {
            None => Content::Erased,
            Some(opener) => match opener.open(&cells, &name, &cell) {
                Ok((salt, bytes)) => Content::Present(salt, bytes),
                Err(why) => Content::Damaged(why),
            },
        };
        (name, content)
    };
    let contents = fixed.into_iter().chain(attachments).map(content).collect();
    Evidence { header: cells.header, contents }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_an_address() {
        let check = |path: &str, expected: &str| assert_eq!(unchanging(Path::new(path)), expected);
        check("/h/log/log.db", "file:/h/log/log.db?immutable=1");
        check("/a b?#%", "file:/a%20b%3F%23%25?immutable=1");
        check("/\u{e9}", "file:/%C3%A9?immutable=1");
    }
}
