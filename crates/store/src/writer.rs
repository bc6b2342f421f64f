//! The writer: one thread, one connection, many requests to a commit.
//!
//! ```text
//! requests ──► [ queue ] ──► transaction of all that wait ──► commit (write) ──► answer Written
//!                                                                  │
//!                                                              fdatasync ──► answer Synced
//! ```
//!
//! A request that need only be written, and finds the connection free, is committed on its own
//! thread: two changes of threads take longer than the commit.
//!
//! What always holds:
//! - A request is applied whole or not at all, alone if its neighbours' transaction fails.
//! - `Written` is answered after the commit's bytes are with the kernel; `Synced` after an
//!   `fdatasync` of the write-ahead log that began after them. One covers all that wait, and all
//!   that were written before.
//! - After a failed `fdatasync` nothing is acknowledged any more: what the device holds is unknown.
//!
//! SQLite runs with `synchronous = NORMAL`: it syncs around checkpoints, and leaves syncing at
//! commit to us, so that `Written` answers need not wait.

use crate::StoreError;
use crate::home::OwnerLock;
use crate::model::Durability;
use crate::sql;
use rusqlite::Connection;
use rusqlite::hooks::Wal;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Most requests in one commit.
const GROUP_MAX: usize = 256;
/// Frames (4 KiB pages) in the write-ahead log at which a checkpoint is asked for: 4 MiB.
const CHECKPOINT_FRAMES: u32 = 1024;
/// Frames at which the writer finishes a checkpoint itself, or the log would grow for as long as
/// it is busy: 6 MiB.
const CATCH_UP_FRAMES: u32 = 1536;
/// Bytes of the write-ahead log that are there before they are needed, more than it usually takes:
/// a file that grows has more to sync than its content.
const PREALLOCATED_BYTES: u64 = 8 << 20;
/// Bytes of zeros written at once.
const ZEROS_BYTES: usize = 256 << 10;
/// The writer's niceness where real-time priority is not allowed.
const NICENESS: i32 = -20;

/// A request on its way through the writer.
pub(crate) trait Job: Send {
    fn durability(&self) -> Durability;
    /// Does it inside a transaction. May be called again after that was rolled back.
    fn apply(&mut self, conn: &Connection) -> Result<(), StoreError>;
    /// Answers.
    fn finish(self: Box<Self>, result: Result<(), StoreError>);
}

/// Makes what was written to the write-ahead log durable.
pub(crate) trait Sync: Send {
    fn sync(&mut self) -> io::Result<()>;
    /// Makes room before it is needed. To be called while nobody appends to the file.
    fn preallocate(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `fdatasync` on a handle of our own.
#[derive(Debug)]
pub(crate) struct WalFile(pub(crate) File);

impl Sync for WalFile {
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_data()
    }

    /// Zeros after the last frame read as the log's end: no frame has a checksum of zeros.
    fn preallocate(&mut self) -> io::Result<()> {
        let mut end = self.0.seek(SeekFrom::End(0))?;
        let zeros = vec![0; ZEROS_BYTES];
        while end < PREALLOCATED_BYTES {
            self.0.write_all(&zeros)?;
            end += zeros.len() as u64;
        }
        self.0.sync_all()
    }
}

/// The connection that writes, used by one thread at a time. Fields are dropped in this order.
pub(crate) struct Pen {
    conn: Connection,
    /// Why nothing is acknowledged any more.
    stopped: Option<StoreError>,
    /// Dropped last: then another process may write.
    #[expect(dead_code, reason = "held, not read")]
    lock: OwnerLock,
}

/// The pen, and how much it has written since the last checkpoint.
#[derive(Clone)]
pub(crate) struct Desk {
    pen: Arc<Mutex<Pen>>,
    /// Frames in the write-ahead log after the last commit.
    frames: Arc<AtomicU32>,
}

/// Fields are dropped in this order, after the checkpoints have ended: the last connection to close
/// tidies up, and needs to be alone.
pub(crate) struct Writer {
    checkpointer: Checkpointer,
    desk: Desk,
    wal: Box<dyn Sync>,
    /// Frames at which the writer next finishes a checkpoint itself.
    catch_up_at: u32,
}

type Jobs = Vec<Box<dyn Job>>;
type Results = Vec<Result<(), StoreError>>;

impl Pen {
    fn commit_alone<T>(
        &self,
        apply: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.execute("BEGIN IMMEDIATE")?;
        let done = apply(&self.conn).and_then(|value| {
            self.execute("COMMIT")?;
            Ok(value)
        });
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    /// Commits all requests in one transaction or, if that fails, each in its own.
    fn commit(&self, jobs: &mut Jobs) -> Results {
        if let [_, _, ..] = jobs.as_slice()
            && let Ok(results) = self.commit_alone(|_| self.apply_all(jobs))
        {
            return results;
        }
        jobs.iter_mut().map(|job| self.commit_alone(|conn| job.apply(conn))).collect()
    }

    /// The error is the transaction's: nothing of it remains.
    fn apply_all(&self, jobs: &mut Jobs) -> Result<Results, StoreError> {
        let mut results = Results::with_capacity(jobs.len());
        for job in jobs {
            self.execute("SAVEPOINT request")?;
            let result = job.apply(&self.conn);
            if result.is_err() {
                // A full device may have ended the whole transaction; then this fails too.
                self.execute("ROLLBACK TO request")?;
            }
            self.execute("RELEASE request")?;
            results.push(result);
        }
        Ok(results)
    }

    fn roll_back(&self) {
        // Some errors have rolled back already.
        if !self.conn.is_autocommit() {
            let _ = self.execute("ROLLBACK");
        }
    }

    fn execute(&self, statement: &str) -> Result<(), StoreError> {
        self.conn
            .prepare_cached(statement)
            .and_then(|mut prepared| prepared.execute([]))
            .map(|_| ())
            .map_err(|error| sql::failed("write to the log", &error))
    }
}

impl Desk {
    fn new(mut conn: Connection, lock: OwnerLock) -> rusqlite::Result<Self> {
        let frames = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&frames);
        conn.wal_hook(Some(move |_: &mut Wal, pages| {
            counter.store(u32::try_from(pages).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let pen = Pen { conn, stopped: None, lock };
        Ok(Self { pen: Arc::new(Mutex::new(pen)), frames })
    }

    fn pen(&self) -> MutexGuard<'_, Pen> {
        // SQLite rolls back what a panic left open.
        self.pen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does it on this thread and answers what is then written, if the pen is free.
    pub(crate) fn here<T>(
        &self,
        act: &mut impl FnMut(&Connection) -> Result<T, StoreError>,
    ) -> Option<Result<T, StoreError>> {
        let pen = match self.pen.try_lock() {
            Ok(pen) => pen,
            Err(TryLockError::WouldBlock | TryLockError::Poisoned(_)) => return None,
        };
        Some(match &pen.stopped {
            Some(stopped) => Err(stopped.clone()),
            None => pen.commit_alone(act),
        })
    }

    /// Whether the writer should see to a checkpoint.
    pub(crate) fn is_long(&self) -> bool {
        self.frames.load(Ordering::Relaxed) >= CHECKPOINT_FRAMES
    }
}

impl Writer {
    pub(crate) fn new(
        conn: Connection,
        wal: Box<dyn Sync>,
        checkpointer: Checkpointer,
        lock: OwnerLock,
    ) -> rusqlite::Result<Self> {
        let desk = Desk::new(conn, lock)?;
        Ok(Self { checkpointer, desk, wal, catch_up_at: CATCH_UP_FRAMES })
    }

    /// Where others may write too.
    pub(crate) fn desk(&self) -> Desk {
        self.desk.clone()
    }

    /// Serves the queue until every sender is gone and it is empty.
    pub(crate) fn run(mut self, queue: &Receiver<Box<dyn Job>>) {
        raise_priority();
        {
            let _alone = self.desk.pen();
            // A device too full for this is soon met by an append, which says so.
            let _ = self.wal.preallocate();
        }
        while let Ok(first) = queue.recv() {
            let mut jobs = vec![first];
            jobs.extend(queue.try_iter().take(GROUP_MAX - 1));
            self.serve(jobs);
            self.keep_wal_short();
        }
    }

    fn serve(&mut self, mut jobs: Jobs) {
        let pen = self.desk.pen();
        if let Some(stopped) = &pen.stopped {
            for job in jobs {
                job.finish(Err(stopped.clone()));
            }
            return;
        }
        let results = pen.commit(&mut jobs);
        drop(pen);
        assert_eq!(jobs.len(), results.len(), "every request has a result");
        let mut waiting = Jobs::new();
        for (job, result) in jobs.into_iter().zip(results) {
            if result.is_ok() && job.durability() == Durability::Synced {
                waiting.push(job);
            } else {
                job.finish(result);
            }
        }
        if !waiting.is_empty() {
            let synced = self.sync();
            for job in waiting {
                job.finish(synced.clone());
            }
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.wal.sync().map_err(|error| {
            let why = format!("the device did not confirm what was written: {error}");
            let stopped = StoreError::Stopped { why };
            self.desk.pen().stopped = Some(stopped.clone());
            stopped
        })
    }

    /// Asks for a checkpoint in the background. One that never catches up with a busy writer is
    /// finished here: what is left to copy is what was written since.
    fn keep_wal_short(&mut self) {
        if !self.desk.is_long() {
            self.catch_up_at = CATCH_UP_FRAMES;
            return;
        }
        self.checkpointer.ask();
        let frames = self.desk.frames.load(Ordering::Relaxed);
        if frames >= self.catch_up_at {
            checkpoint(&self.desk.pen().conn);
            self.catch_up_at = frames + CHECKPOINT_FRAMES;
        }
    }
}

impl Drop for Writer {
    /// Whoever reads at this moment keeps the write-ahead log's file from being removed. Nothing
    /// may be left in it: what is only there is lost with it.
    fn drop(&mut self) {
        self.checkpointer = Checkpointer { asked: None, thread: None };
        // When it cannot be done, the next opening does it.
        let truncate = "PRAGMA wal_checkpoint(TRUNCATE)";
        let _ = self.desk.pen().conn.query_row(truncate, [], |_| Ok(()));
    }
}

/// The writer must not wait behind the workload for a core: after each sync it would wait for the
/// end of another's time slice, which takes longer than the sync. Denied to ordinary users on most
/// systems; the log is correct without it.
fn raise_priority() {
    let realtime = set_thread_priority_and_policy(
        thread_native_id(),
        ThreadPriority::Min,
        ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::Fifo),
    );
    if realtime.is_err() {
        let _ = rustix::process::setpriority_process(None, NICENESS);
    }
}

/// A thread that makes checkpoints when asked; joined when dropped.
pub(crate) struct Checkpointer {
    asked: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub(crate) fn start(conn: Connection) -> io::Result<Self> {
        let (asked, queue) = mpsc::sync_channel(1);
        let thread =
            std::thread::Builder::new().name("store-checkpoint".to_owned()).spawn(move || {
                while queue.recv().is_ok() {
                    checkpoint(&conn);
                }
            })?;
        Ok(Self { asked: Some(asked), thread: Some(thread) })
    }

    fn ask(&self) {
        if let Some(asked) = &self.asked {
            // Full means that one is waiting already.
            let _ = asked.try_send(());
        }
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        drop(self.asked.take());
        if let Some(thread) = self.thread.take() {
            // One that panicked has made no checkpoint; the next opening will.
            let _ = thread.join();
        }
    }
}

/// Copies what no reader needs any more from the write-ahead log to the database, after syncing the
/// one and before the other is reused. Never waits for readers or the writer.
fn checkpoint(conn: &Connection) {
    // Busy: another checkpoint is at it. Any other error will meet the next append as well.
    let _ = conn.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::Home;

    /// Writes 100 KB of a byte: pages that do not change are not written.
    struct Large(u8);

    impl Job for Large {
        fn durability(&self) -> Durability {
            Durability::Written
        }

        fn apply(&mut self, conn: &Connection) -> Result<(), StoreError> {
            sql::set_setting(conn, "large", &[self.0; 100_000])
        }

        fn finish(self: Box<Self>, result: Result<(), StoreError>) {
            assert_eq!(result, Ok(()));
        }
    }

    #[test]
    fn a_writer_whose_checkpoints_lag_finishes_them_itself() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        let lock = home.own().unwrap();
        let conn = Connection::open(home.db()).unwrap();
        conn.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
        conn.pragma_update(None, "synchronous", "NORMAL").unwrap();
        conn.query_row("SELECT count(*) FROM runs", [], |_| Ok(())).unwrap();
        let wal = Box::new(WalFile(File::open(home.wal()).unwrap()));
        let nobody = Checkpointer { asked: None, thread: None };
        let mut writer = Writer::new(conn, wal, nobody, lock).unwrap();
        let mut most = 0;
        for byte in (0..=255).chain(0..=143) {
            writer.serve(vec![Box::new(Large(byte))]);
            writer.keep_wal_short();
            most = most.max(writer.desk.frames.load(Ordering::Relaxed));
        }
        let bound = CATCH_UP_FRAMES..CATCH_UP_FRAMES + 100;
        assert!(bound.contains(&most), "{most} frames, of ten thousand written");
    }
}
