//! What goes into a store and what comes out of it, as values.

use ledger::Salt;
use types::{Actor, Body, BranchId, Cause, Failure, Record, RunId};

/// How much an append must survive before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// The death of this process. Any later [`Durability::Synced`] acknowledgement covers it.
    Written,
    /// A power cut.
    Synced,
}

/// A record to append. The store adds its place, its digest and the digest of the one before.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRecord {
    /// Wall time, milliseconds since 1970.
    pub time_ms: u64,
    /// Monotonic time, milliseconds since `boot`.
    pub mono_ms: u64,
    /// Which boot `mono_ms` belongs to.
    pub boot: u64,
    /// What it follows from: records with lower numbers.
    pub causes: Vec<Cause>,
    /// Who acts.
    pub actor: Actor,
    /// What is recorded.
    pub body: Body,
    /// Bytes kept with it, by name: 1 to 64 of `a-z0-9_.-`, each once, not `actor` or `body`.
    pub attachments: Vec<(String, Vec<u8>)>,
}

/// Records that are appended together or not at all.
#[derive(Debug, Clone)]
pub struct Append {
    /// The run.
    pub run: RunId,
    /// The branch.
    pub branch: BranchId,
    /// The number the first record must get: what the writer believes the head to be.
    pub next_seq: u64,
    /// The writer's epoch, from [`Store::claim`](crate::Store::claim).
    pub epoch: u64,
    /// May be empty: then only epoch and number are checked and, if synced, all that was written
    /// before is.
    pub records: Vec<NewRecord>,
    /// When to acknowledge.
    pub durability: Durability,
}

/// A run to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// Its id, which no run of the store has.
    pub run: RunId,
    /// When it started, milliseconds since 1970.
    pub started_ms: u64,
}

/// A created run.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The creator's epoch: it owns the run until someone claims it.
    pub epoch: u64,
    /// Its first records as they stand in the log.
    pub records: Vec<Record>,
}

/// One line of a list of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSummary {
    /// The run.
    pub run: RunId,
    /// When it started, milliseconds since 1970.
    pub started_ms: u64,
    /// Its epoch: how often it was claimed, plus one.
    pub epoch: u64,
    /// Number of the main branch's last record; `None` when it has none.
    pub head_seq: Option<u64>,
    /// Kind of that record, empty when there is none.
    pub head_kind: String,
    /// That record; `None` when the run was erased, or it cannot be read.
    pub last: Option<Record>,
    /// Whether its content was erased.
    pub erased: bool,
}

/// A record that another branch, or another run, begins after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkPoint {
    /// The run it is a record of.
    pub run: RunId,
    /// The branch it is read on.
    pub branch: BranchId,
    /// Its number: the last record that both have.
    pub at_seq: u64,
}

/// One branch of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// Its number.
    pub branch: BranchId,
    /// Where it left another; `None` for the first branch of a run that was not forked.
    pub forked: Option<ForkPoint>,
    /// Number of records a reader of this branch sees: the next one's number.
    pub next_seq: u64,
}

/// A record as evidence: what [`ledger`] needs to check it without this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The encoded header.
    pub header: Vec<u8>,
    /// Its content, by name: `actor`, `body`, and the attachments in ascending order.
    pub contents: Vec<(String, Content)>,
}

/// A piece of content as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// It can be read.
    Present(Salt, Vec<u8>),
    /// The run's key was destroyed.
    Erased,
    /// It should be there and cannot be read: why.
    Damaged(String),
}

/// What was found when a run was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// The run.
    pub run: RunId,
    /// Branches checked, each from its first record to its head.
    pub branches: u64,
    /// Records checked, each once.
    pub records: u64,
    /// Pieces of content checked against their commitments.
    pub contents: u64,
    /// Whether content was erased. The chain is checked all the same.
    pub erased: bool,
    /// What is wrong, at most [`FAULTS_MAX`](crate::FAULTS_MAX) entries; empty when all is well.
    pub faults: Vec<Fault>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.faults.is_empty()
    }
}

/// Something wrong with a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The branch.
    pub branch: BranchId,
    /// What, with its code.
    pub failure: Failure,
}

/// What a collection of garbage removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blob files that no record names.
    pub blobs: u64,
    /// Their size in bytes.
    pub bytes: u64,
}
