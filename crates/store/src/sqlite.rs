//! The store on one machine: an SQLite file and two directories of files, in a home directory.

use crate::files::{FileId, Staged};
use crate::home::Home;
use crate::model::Durability;
use crate::prepare::{self, ACTOR, BODY, Draft};
use crate::queue::Queue;
use crate::read::Reader;
use crate::seal::{self, Key, Place};
use crate::sql::{self, Expect, Leftovers, Linked, Row};
use crate::writer::{Checkpointer, Sync, WalFile, Writer};
use crate::{
    Append, Branch, Created, Evidence, ForkPoint, GcReport, NewRecord, Read, Reply, RunRow,
    RunSummary, Store, StoreError, cell,
};
use ledger::Head;
use rusqlite::{Connection, OpenFlags};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use types::{BRANCH_MAIN, BranchId, Record, RunId};

/// Content sealed on the caller's thread; more of it goes to a thread of ours.
const SEAL_HERE_BYTES_MAX: usize = 64 << 10;
/// Keys kept in memory. Beyond that they are read again.
const KEYS_CACHED_MAX: usize = 4096;
/// Records of a removed run deleted in one commit.
const PURGE_RECORDS: usize = 200;
/// The writer's page cache, KiB.
const CACHE_KIB: i32 = 16 << 10;

/// The store on one machine. Dropping it ends its threads and lets another process write.
pub struct SqliteStore {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

/// Limits that an operator may set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Most pages (of 4 KiB) the database may have; `None` for the engine's own limit.
    pub database_pages_max: Option<u32>,
}

struct Inner {
    reader: Reader,
    keys: Mutex<HashMap<RunId, Arc<Key>>>,
    queue: Queue,
}

impl SqliteStore {
    /// Opens the log in a home directory, making both if they are missing.
    ///
    /// # Errors
    /// When the home cannot be used, is not ours, holds another version, or another process writes
    /// it. Then nothing was changed.
    pub fn open(home: &Path) -> Result<Self, StoreError> {
        Self::open_with(home, Limits::default())
    }

    /// The same with limits.
    ///
    /// # Errors
    /// As [`SqliteStore::open`].
    pub fn open_with(home: &Path, limits: Limits) -> Result<Self, StoreError> {
        Self::start(home, limits, |wal| Box::new(WalFile(wal)))
    }

    /// `sync` makes the thing that syncs from the write-ahead log's file.
    fn start(
        home: &Path,
        limits: Limits,
        sync: impl FnOnce(File) -> Box<dyn Sync>,
    ) -> Result<Self, StoreError> {
        let home = Home::at(home);
        let lock = home.own()?;
        let failed = |error: rusqlite::Error| sql::failed("open the log", &error);
        let conn = connect(&home, limits).map_err(failed)?;
        finish_erasures(&home, &conn)?;
        let checkpointer = connect(&home, limits).map_err(failed)?;
        let wal = File::options()
            .write(true)
            .open(home.wal())
            .map_err(|error| crate::files::io_error("open the write-ahead log", &error))?;
        let checkpointer = Checkpointer::start(checkpointer)
            .map_err(|error| crate::files::io_error("start a thread", &error))?;
        let writer = Writer::new(conn, sync(wal), checkpointer, lock).map_err(failed)?;
        let (queue, jobs, tasks) = Queue::open(writer.desk());
        let threads = vec![
            spawn("store-hand", move || tasks.iter().for_each(|task| task()))?,
            spawn("store-writer", move || writer.run(&jobs))?,
        ];
        let inner = Inner { reader: Reader::of(home), keys: Mutex::default(), queue };
        let inner = Arc::new(inner);
        Ok(Self { inner, threads })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.inner.queue.close();
        // The writer's connection is the last to close, so that it leaves no write-ahead log.
        self.inner.reader.close_idle();
        for thread in self.threads.drain(..) {
            // A thread that panicked has answered nobody; its callers know.
            let _ = thread.join();
        }
    }
}

fn connect(home: &Home, limits: Limits) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(home.db(), flags)?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
    // Erasing destroys a key in its file; what stays in the database cannot be read without.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    if let Some(pages) = limits.database_pages_max {
        conn.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
    }
    // The first read makes the write-ahead log's file.
    conn.query_row("SELECT count(*) FROM doomed_keys", [], |_| Ok(()))?;
    Ok(conn)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| crate::files::io_error("start a thread", &error))
}

/// An erasure that a crash cut off after its commit is finished before anything else.
fn finish_erasures(home: &Home, conn: &Connection) -> Result<(), StoreError> {
    let keys = || {
        conn.prepare("SELECT file FROM doomed_keys")?
            .query_map([], |row| row.get(0))?
            .collect::<rusqlite::Result<Vec<FileId>>>()
    };
    for key in keys().map_err(|error| sql::failed("read the log", &error))? {
        home.keys.destroy(&key)?;
        sql::key_destroyed(conn, &key)?;
    }
    Ok(())
}

impl Inner {
    fn lock_keys(&self) -> std::sync::MutexGuard<'_, HashMap<RunId, Arc<Key>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The run's key, from memory or its file.
    fn key(&self, run: &RunId) -> Result<Arc<Key>, StoreError> {
        if let Some(key) = self.lock_keys().get(run) {
            return Ok(Arc::clone(key));
        }
        let key = self.reader.key(run)?;
        let key = Arc::new(key.ok_or_else(|| StoreError::Erased { run: run.clone() })?);
        self.remember(run, &key);
        Ok(key)
    }

    fn remember(&self, run: &RunId, key: &Arc<Key>) {
        let mut keys = self.lock_keys();
        if keys.len() >= KEYS_CACHED_MAX {
            keys.clear();
        }
        keys.insert(run.clone(), Arc::clone(key));
    }

    /// Seals drafts, here or by hand when that would hold up the caller's thread.
    async fn seal(
        self: &Arc<Self>,
        key: Arc<Key>,
        drafts: Vec<Draft>,
    ) -> Result<(Vec<Row>, Vec<Record>), StoreError> {
        let blobs = self.reader.home.blobs.clone();
        if content_bytes(&drafts) <= SEAL_HERE_BYTES_MAX {
            seal_all(&blobs, &key, drafts)
        } else {
            self.queue.by_hand(move || seal_all(&blobs, &key, drafts)).await
        }
    }

    async fn create(
        self: Arc<Self>,
        row: RunRow,
        first: Vec<NewRecord>,
    ) -> Result<Created, StoreError> {
        let drafts = prepare::drafts(&row.run, BRANCH_MAIN, 0, first)?;
        let room = self.queue.room(content_bytes(&drafts)).await?;
        let key = Arc::new(Key::generate()?);
        let keys = self.reader.home.keys.clone();
        let file = {
            let key = Arc::clone(&key);
            self.queue.by_hand(move || keys.write(key.bytes())).await?
        };
        let (mut rows, records) = self.seal(Arc::clone(&key), drafts).await?;
        let run = row.run.clone();
        let create = move |conn: &Connection| sql::create_run(conn, &row, &file.id, &mut rows);
        let linked = self.queue.write(room, Durability::Synced, create).await?;
        self.remember(&run, &key);
        Ok(Created { epoch: 1, records: link_records(records, &linked) })
    }

    async fn fork_run(
        self: Arc<Self>,
        row: RunRow,
        from: ForkPoint,
        first: Vec<NewRecord>,
    ) -> Result<Created, StoreError> {
        let next_seq = from.at_seq.saturating_add(1);
        let drafts = prepare::drafts(&row.run, BRANCH_MAIN, next_seq, first)?;
        let room = self.queue.room(content_bytes(&drafts)).await?;
        let key = self.key(&from.run)?;
        let (mut rows, records) = self.seal(Arc::clone(&key), drafts).await?;
        let run = row.run.clone();
        let fork = move |conn: &Connection| sql::fork_run(conn, &row, &from, &mut rows);
        let linked = self.queue.write(room, Durability::Synced, fork).await?;
        self.remember(&run, &key);
        Ok(Created { epoch: 1, records: link_records(records, &linked) })
    }

    async fn append(self: Arc<Self>, append: Append) -> Result<Vec<Record>, StoreError> {
        let (expect, durability) = (Expect::from(&append), append.durability);
        let drafts = prepare::drafts(&append.run, append.branch, append.next_seq, append.records)?;
        let room = self.queue.room(content_bytes(&drafts)).await?;
        let key = self.key(&expect.run)?;
        let (mut rows, records) = self.seal(key, drafts).await?;
        let append = move |conn: &Connection| sql::append(conn, &expect, &mut rows);
        let linked = self.queue.write(room, durability, append).await?;
        Ok(link_records(records, &linked))
    }

    /// A request without content.
    async fn act<T: Send + 'static>(
        self: Arc<Self>,
        durability: Durability,
        act: impl FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let room = self.queue.room(0).await?;
        self.queue.write(room, durability, act).await
    }

    async fn erase(self: Arc<Self>, run: RunId) -> Result<(), StoreError> {
        let erase = move |conn: &Connection| sql::erase(conn, &run);
        let leftovers = Arc::clone(&self).act(Durability::Synced, erase).await?;
        // Runs forked from one another have one key.
        self.lock_keys().clear();
        self.destroy(leftovers).await
    }

    /// Destroys what a run leaves behind, then forgets that it is to be destroyed.
    async fn destroy(self: Arc<Self>, leftovers: Leftovers) -> Result<(), StoreError> {
        let home = self.reader.home.clone();
        let key = leftovers.key;
        let destroy = move || {
            if let Some(key) = &leftovers.key {
                home.keys.destroy(key)?;
            }
            leftovers.blobs.iter().try_for_each(|blob| home.blobs.remove(blob))
        };
        self.queue.by_hand(destroy).await?;
        match key {
            None => Ok(()),
            Some(key) => {
                let done = move |conn: &Connection| sql::key_destroyed(conn, &key);
                self.act(Durability::Written, done).await
            }
        }
    }

    async fn remove(self: Arc<Self>, run: RunId) -> Result<(), StoreError> {
        let removed = run.clone();
        let remove = move |conn: &Connection| sql::remove(conn, &removed);
        let (run_row, leftovers) = Arc::clone(&self).act(Durability::Synced, remove).await?;
        self.lock_keys().remove(&run);
        Arc::clone(&self).destroy(leftovers).await?;
        self.purge(run_row).await
    }

    /// Deletes a removed run's rows a few at a time, so that appends are not held up.
    async fn purge(self: Arc<Self>, run_row: i64) -> Result<(), StoreError> {
        let purge = move |conn: &Connection| sql::purge(conn, run_row, PURGE_RECORDS);
        while Arc::clone(&self).act(Durability::Written, purge).await? {}
        Ok(())
    }

    async fn gc(self: Arc<Self>) -> Result<GcReport, StoreError> {
        let doomed =
            self.reader.read(|conn| column::<i64, Vec<_>>(conn, "SELECT run FROM doomed_runs"))?;
        for run_row in doomed.unwrap_or_default() {
            Arc::clone(&self).purge(run_row).await?;
        }
        let inner = Arc::clone(&self);
        self.queue.by_hand(move || inner.sweep()).await
    }

    /// Lists files first and reads which are named after: see [`crate::files`].
    fn sweep(&self) -> Result<GcReport, StoreError> {
        let home = &self.reader.home;
        let (keys, blobs) = (home.keys.candidates()?, home.blobs.candidates()?);
        let named = self.reader.read(|conn| {
            let keys = "SELECT key FROM runs WHERE key IS NOT NULL";
            let blobs = "SELECT file FROM blobs";
            Ok((column::<FileId, _>(conn, keys)?, column::<FileId, _>(conn, blobs)?))
        })?;
        let (named_keys, named_blobs): (HashSet<_>, HashSet<_>) = named.unwrap_or_default();
        home.keys.sweep(keys, &named_keys)?;
        let (blobs, bytes) = home.blobs.sweep(blobs, &named_blobs)?;
        Ok(GcReport { blobs, bytes })
    }
}

/// One column of all rows.
fn column<T: rusqlite::types::FromSql, C: FromIterator<T>>(
    conn: &Connection,
    sql: &str,
) -> Result<C, StoreError> {
    let read = || {
        conn.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<C>>()
    };
    read().map_err(crate::rows::read_failed)
}

fn content_bytes(drafts: &[Draft]) -> usize {
    let pieces = drafts.iter().flat_map(|draft| &draft.pieces);
    pieces.map(|piece| piece.bytes.len()).sum()
}

fn seal_all(
    blobs: &crate::files::Files,
    key: &Key,
    drafts: Vec<Draft>,
) -> Result<(Vec<Row>, Vec<Record>), StoreError> {
    let mut rows = Vec::with_capacity(drafts.len());
    let mut records = Vec::with_capacity(drafts.len());
    for draft in drafts {
        let mut staged: Vec<Staged> = Vec::new();
        let mut cells = Vec::with_capacity(draft.pieces.len());
        for piece in draft.pieces {
            let place = Place {
                run: &draft.header.run,
                branch: draft.header.branch,
                seq: draft.header.seq,
                name: &piece.name,
            };
            let sealed = seal::seal(key, place, &piece.salt, &piece.bytes)?;
            cells.push((piece.name, cell::store(blobs, &sealed, &mut staged)?));
        }
        let attachments = cells.split_off(2);
        let mut fixed = cells.into_iter();
        let mut next = |expected: &str| {
            let (name, cell) = fixed.next().expect("a draft has an actor and a body");
            assert_eq!(name, expected, "a draft's pieces are in order");
            cell
        };
        rows.push(Row {
            actor: next(ACTOR),
            body: next(BODY),
            header: draft.header,
            attachments,
            blobs: staged,
        });
        records.push(draft.record);
    }
    Ok((rows, records))
}

fn link_records(mut records: Vec<Record>, linked: &[Linked]) -> Vec<Record> {
    assert_eq!(records.len(), linked.len(), "every record was linked");
    for (record, linked) in records.iter_mut().zip(linked) {
        record.prev = linked.prev;
        record.digest = linked.digest;
    }
    records
}

impl SqliteStore {
    fn reply<T, R>(&self, make: impl FnOnce(Arc<Inner>) -> R) -> Reply<T>
    where
        R: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        Box::pin(make(Arc::clone(&self.inner)))
    }
}

impl Store for SqliteStore {
    fn create_run(&self, row: RunRow, first: Vec<NewRecord>) -> Reply<Created> {
        self.reply(|inner| inner.create(row, first))
    }

    fn append(&self, append: Append) -> Reply<Vec<Record>> {
        self.reply(|inner| inner.append(append))
    }

    fn claim(&self, run: &RunId) -> Reply<u64> {
        let run = run.clone();
        self.reply(|inner| inner.act(Durability::Written, move |conn| sql::claim(conn, &run)))
    }

    fn fork_branch(&self, run: &RunId, parent: BranchId, at_seq: u64) -> Reply<BranchId> {
        let run = run.clone();
        self.reply(|inner| {
            inner.act(Durability::Synced, move |conn| sql::fork(conn, &run, parent, at_seq))
        })
    }

    fn fork_run(&self, row: RunRow, from: ForkPoint, first: Vec<NewRecord>) -> Reply<Created> {
        self.reply(|inner| inner.fork_run(row, from, first))
    }

    fn erase(&self, run: &RunId) -> Reply<()> {
        let run = run.clone();
        self.reply(|inner| inner.erase(run))
    }

    fn remove(&self, run: &RunId) -> Reply<()> {
        let run = run.clone();
        self.reply(|inner| inner.remove(run))
    }

    fn gc(&self) -> Reply<GcReport> {
        self.reply(Inner::gc)
    }

    fn set_setting(&self, name: &str, value: &[u8]) -> Reply<()> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.reply(|inner| {
            inner.act(Durability::Synced, move |conn| sql::set_setting(conn, &name, &value))
        })
    }
}

impl Read for SqliteStore {
    fn runs(&self) -> Result<Vec<RunSummary>, StoreError> {
        self.inner.reader.runs()
    }

    fn find(&self, text: &str) -> Result<RunId, StoreError> {
        self.inner.reader.find(text)
    }

    fn branches(&self, run: &RunId) -> Result<Vec<Branch>, StoreError> {
        self.inner.reader.branches(run)
    }

    fn head(&self, run: &RunId, branch: BranchId) -> Result<Head, StoreError> {
        self.inner.reader.head(run, branch)
    }

    fn records_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        self.inner.reader.records_page(run, branch, from_seq, limit)
    }

    fn headers_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        self.inner.reader.headers_page(run, branch, from_seq, limit)
    }

    fn evidence_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Evidence>, StoreError> {
        self.inner.reader.evidence_page(run, branch, from_seq, limit)
    }

    fn attachment(
        &self,
        run: &RunId,
        branch: BranchId,
        seq: u64,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.reader.attachment(run, branch, seq, name)
    }

    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.reader.setting(name)
    }
}

#[cfg(test)]
#[path = "sqlite_tests.rs"]
mod tests;
