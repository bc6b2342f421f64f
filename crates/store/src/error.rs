//! What can go wrong in a store, each with a stable code.

use ledger::HeaderFault;
use types::{BranchId, Coded, RunId};

/// Candidates named when a prefix fits several runs.
pub(crate) const CANDIDATES_MAX: usize = 5;

/// Why a store refused or failed. After an error nothing of the request is in the log, but for
/// [`StoreError::Stopped`], after which only reopening the store tells.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The home cannot be a directory of ours.
    #[error("cannot use {path} as home: {why}")]
    HomeUnusable {
        /// The path.
        path: String,
        /// Why.
        why: String,
    },
    /// The home cannot be written.
    #[error("cannot write in {path}: {why}")]
    HomeReadOnly {
        /// The path.
        path: String,
        /// Why.
        why: String,
    },
    /// The home belongs to someone else.
    #[error("{path} belongs to user {owner}, and this is user {user}")]
    HomeNotOurs {
        /// The path.
        path: String,
        /// Numeric id of its owner.
        owner: u32,
        /// Numeric id of this process's user.
        user: u32,
    },
    /// A file where the log should be is not a log.
    #[error("{path} is not a Bedplate log: {why}")]
    NotALog {
        /// The path.
        path: String,
        /// Why.
        why: String,
    },
    /// The log has another version.
    #[error("{path} has log version {found}, and this program reads version {supported}")]
    WrongVersion {
        /// The path.
        path: String,
        /// The file's version.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// Another process writes this log.
    #[error("another process has {path} open for writing")]
    Busy {
        /// The path.
        path: String,
    },
    /// No run fits.
    #[error("there is no run '{text}'")]
    NoSuchRun {
        /// What was asked for.
        text: String,
    },
    /// Several runs fit.
    #[error("'{text}' fits several runs: {}{}", candidates.join(", "), if *more { " and more" } else { "" })]
    AmbiguousRun {
        /// What was asked for.
        text: String,
        /// Some of them.
        candidates: Vec<String>,
        /// Whether there are others.
        more: bool,
    },
    /// The writer is not, or no longer, the one who may write this.
    #[error(
        "refused to append record {given_seq} to run {run} with epoch {given_epoch}: \
         the log stands at record {next_seq}, epoch {epoch}"
    )]
    Fenced {
        /// The run.
        run: RunId,
        /// The branch.
        branch: BranchId,
        /// The number the writer believed to be next.
        given_seq: u64,
        /// The number that is next.
        next_seq: u64,
        /// The writer's epoch.
        given_epoch: u64,
        /// The run's epoch.
        epoch: u64,
    },
    /// The device, a quota or the log's size limit is full.
    #[error("the log cannot grow: {why}")]
    Full {
        /// What the system said.
        why: String,
    },
    /// The system reported an error.
    #[error("cannot {doing}: {why}")]
    Io {
        /// What was tried.
        doing: String,
        /// What the system said.
        why: String,
    },
    /// The writer stopped: what is durable is no longer known.
    #[error("the log's writer stopped: {why}")]
    Stopped {
        /// Why.
        why: String,
    },
    /// The run's content was erased, so it is closed.
    #[error("the content of run {run} was erased")]
    Erased {
        /// The run.
        run: RunId,
    },
    /// A limit of the store.
    #[error("{what} is {given}, and {max} is the limit")]
    TooLarge {
        /// What.
        what: &'static str,
        /// How much was given.
        given: u64,
        /// How much may be.
        max: u64,
    },
    /// A run of this id exists.
    #[error("there is a run {run} already")]
    RunExists {
        /// The run.
        run: RunId,
    },
    /// No such branch, or no such record on it.
    #[error("run {run} has no {what}")]
    NoSuchPlace {
        /// The run.
        run: RunId,
        /// `branch 3`, `record 17 on branch 0`.
        what: String,
    },
    /// Other runs share its records.
    #[error("runs share records of {run}: {}{}", forks.join(", "), if *more { " and more" } else { "" })]
    HasForks {
        /// The run.
        run: RunId,
        /// Some of those forked from it.
        forks: Vec<String>,
        /// Whether there are others.
        more: bool,
    },
    /// What was written cannot be read.
    #[error("record {seq} of run {run} cannot be read: {why}")]
    Damaged {
        /// The run.
        run: RunId,
        /// The record.
        seq: u64,
        /// Why.
        why: String,
    },
    /// A record that no log may have.
    #[error("record {seq} of run {run} may not be written: {why}")]
    BadRecord {
        /// The run.
        run: RunId,
        /// The number it would have had.
        seq: u64,
        /// Why.
        why: HeaderFault,
    },
}

impl Coded for StoreError {
    fn code(&self) -> &'static str {
        match self {
            Self::HomeUnusable { .. } => "BP-STORE-001",
            Self::HomeReadOnly { .. } => "BP-STORE-002",
            Self::HomeNotOurs { .. } => "BP-STORE-003",
            Self::NotALog { .. } => "BP-STORE-004",
            Self::WrongVersion { .. } => "BP-STORE-005",
            Self::Busy { .. } => "BP-STORE-006",
            Self::NoSuchRun { .. } => "BP-STORE-007",
            Self::AmbiguousRun { .. } => "BP-STORE-008",
            Self::Fenced { .. } => "BP-STORE-009",
            Self::Full { .. } => "BP-STORE-010",
            Self::Io { .. } => "BP-STORE-011",
            Self::Stopped { .. } => "BP-STORE-012",
            Self::Erased { .. } => "BP-STORE-013",
            Self::TooLarge { .. } => "BP-STORE-014",
            Self::RunExists { .. } => "BP-STORE-015",
            Self::NoSuchPlace { .. } => "BP-STORE-016",
            Self::Damaged { .. } => "BP-STORE-017",
            Self::BadRecord { .. } => "BP-STORE-018",
            Self::HasForks { .. } => "BP-STORE-019",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::HomeUnusable { .. } => "Name a directory with --home DIR or BEDPLATE_HOME.",
            Self::HomeReadOnly { .. } => {
                "Make it writable, or name another directory with --home DIR."
            }
            Self::HomeNotOurs { .. } => {
                "Run as that user, or name a directory of your own with --home DIR."
            }
            Self::NotALog { .. } => "Move the file away, or name another directory with --home DIR.",
            Self::WrongVersion { .. } => {
                "Use the version of bedplate that wrote it, or name another directory with --home DIR."
            }
            Self::Busy { .. } => "Let the other process end, or name another directory with --home DIR.",
            Self::NoSuchRun { .. } => "List the runs with: bedplate ps",
            Self::AmbiguousRun { .. } => "Type more of its characters.",
            Self::Fenced { .. } => {
                "Another owner took the run over. Read the log again before writing to it."
            }
            Self::Full { .. } => "Make room on the device (bedplate gc, bedplate df), then resume.",
            Self::Io { .. } => "Check the device and its permissions, then resume.",
            Self::Stopped { .. } => {
                "Check the device, then start again: the log is read as it is on the device."
            }
            Self::Erased { .. } => "Its chain can still be verified; start a new run for new work.",
            Self::TooLarge { .. } => "Split it.",
            Self::RunExists { .. } => "Choose another id.",
            Self::NoSuchPlace { .. } => "See what it has with: bedplate show RUN",
            Self::Damaged { .. } => "See what else is damaged with: bedplate verify RUN",
            Self::HasForks { .. } => "Remove those runs first, with: bedplate rm RUN",
            Self::BadRecord { .. } => "This is a defect of the program that wrote it: report it.",
        }
        .to_owned()
    }
}
