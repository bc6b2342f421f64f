//! The store: the log and its payloads, durable and erasable.
//!
//! A run's records are appended in order, by its one owner, and read back by anyone. The owner is
//! fenced: every append names the run's epoch and the number it expects to write, and a claim by
//! someone else makes the old epoch worthless.
//!
//! What always holds:
//! - An append is there whole or not at all, and once acknowledged it stays (see [`Durability`]).
//! - The chain of headers is the `ledger`'s: this crate adds no meaning to it.
//! - Content is encrypted under the run's own key. [`Store::erase`] destroys the key; the chain
//!   goes on verifying.
//! - A fork copies nothing: a branch is a pointer to where it left another, and so is a run that was
//!   forked from one.
//!
//! What it never does: read a clock, choose an id, interpret a body, print.
//!
//! [`SqliteStore`] keeps a home directory on one machine, [`Reader`] reads it from other processes,
//! [`MemoryStore`] keeps everything in memory for tests. [`conformance`] tests any implementation;
//! none needs more than compare-and-swap on rows, so a PostgreSQL one can pass it.

mod cell;
mod changes;
pub mod conformance;
mod error;
mod files;
mod home;
mod memory;
mod model;
mod prepare;
mod queue;
mod read;
mod rows;
mod seal;
mod sql;
mod sqlite;
mod verify;
mod writer;

use ledger::Head;
use std::future::Future;
use std::pin::Pin;
use types::{BranchId, Record, RunId};

pub use changes::Changes;
pub use error::StoreError;
pub use memory::MemoryStore;
pub use model::{
    Append, Branch, Content, Created, Durability, Evidence, Fault, ForkPoint, GcReport, NewRecord,
    RunRow, RunSummary, VerifyReport,
};
pub use prepare::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, FORK_DEPTH_MAX, SEQ_MAX};
pub use read::Reader;
pub use sqlite::{Limits, SqliteStore};
pub use verify::FAULTS_MAX;

/// An answer that comes once the store is done. Nothing happens until it is polled; dropped after
/// that, the request may or may not have happened.
pub type Reply<T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>;

/// Records read at once by the methods that read all of a branch.
const PAGE_RECORDS: usize = 512;

/// Reading. Every method blocks its thread for the length of a read; an unknown run is
/// [`StoreError::NoSuchRun`].
pub trait Read: Send + Sync {
    /// All runs, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn runs(&self) -> Result<Vec<RunSummary>, StoreError>;

    /// The run meant by `text`: a unique prefix of its id, or `last`.
    ///
    /// # Errors
    /// [`StoreError::NoSuchRun`], [`StoreError::AmbiguousRun`].
    fn find(&self, text: &str) -> Result<RunId, StoreError>;

    /// The run's branches, in ascending order.
    ///
    /// # Errors
    /// When there is no such run.
    fn branches(&self, run: &RunId) -> Result<Vec<Branch>, StoreError>;

    /// Where a branch stands.
    ///
    /// # Errors
    /// When there is no such run or branch.
    fn head(&self, run: &RunId, branch: BranchId) -> Result<Head, StoreError>;

    /// Up to `limit` records of a branch, those it shares with its parents included, from number
    /// `from_seq` on. Empty at the end.
    ///
    /// # Errors
    /// [`StoreError::Erased`] when the content is gone.
    fn records_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError>;

    /// Up to `limit` encoded headers of a branch from number `from_seq` on. Works on erased runs.
    ///
    /// # Errors
    /// When there is no such run or branch.
    fn headers_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError>;

    /// Up to `limit` records of a branch as evidence, from number `from_seq` on.
    ///
    /// # Errors
    /// When there is no such run or branch.
    fn evidence_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Evidence>, StoreError>;

    /// An attachment's bytes; `None` when it was erased or never was.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when it should be there and cannot be read.
    fn attachment(
        &self,
        run: &RunId,
        branch: BranchId,
        seq: u64,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// A setting's value.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// All records of a branch from number `from_seq` on.
    ///
    /// # Errors
    /// As [`Read::records_page`].
    fn records(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
    ) -> Result<Vec<Record>, StoreError> {
        let mut all = Vec::new();
        loop {
            let from = from_seq.saturating_add(all.len() as u64);
            let page = self.records_page(run, branch, from, PAGE_RECORDS)?;
            let last = page.len() < PAGE_RECORDS;
            all.extend(page);
            if last {
                return Ok(all);
            }
        }
    }

    /// Checks a run: every branch's chain against its head, every content against its header.
    /// What is wrong is in the report.
    ///
    /// # Errors
    /// When the run cannot be read at all.
    fn verify(&self, run: &RunId) -> Result<VerifyReport, StoreError> {
        verify::verify(self, run)
    }
}

/// Writing.
pub trait Store: Read {
    /// Creates a run with a new key and its first records, synced.
    fn create_run(&self, row: RunRow, first: Vec<NewRecord>) -> Reply<Created>;

    /// Appends records, all or none, if epoch and number are still right; else
    /// [`StoreError::Fenced`]. Answers with the records as they stand in the log.
    fn append(&self, append: Append) -> Reply<Vec<Record>>;

    /// Takes a run over: the new epoch, one above the last. Every earlier epoch is fenced.
    fn claim(&self, run: &RunId) -> Reply<u64>;

    /// A new branch that shares everything up to and including record `at_seq` of `parent`, which
    /// is a record of this run itself.
    fn fork_branch(&self, run: &RunId, parent: BranchId, at_seq: u64) -> Reply<BranchId>;

    /// Creates a run that shares everything up to and including a record of another, and goes on
    /// with records of its own, synced. The first of them is of kind `forked`. It has the other's
    /// key and an epoch of its own.
    fn fork_run(&self, row: RunRow, from: ForkPoint, first: Vec<NewRecord>) -> Reply<Created>;

    /// Destroys the run's key, which is that of all runs it was forked from or that were forked
    /// from it: their content is gone, their chains still verify. Does it again when asked again.
    fn erase(&self, run: &RunId) -> Reply<()>;

    /// Removes a run and everything of it. [`StoreError::HasForks`] while runs share its records.
    fn remove(&self, run: &RunId) -> Reply<()>;

    /// Removes payloads that no record names.
    fn gc(&self) -> Reply<GcReport>;

    /// Sets a setting, synced.
    fn set_setting(&self, name: &str, value: &[u8]) -> Reply<()>;
}
