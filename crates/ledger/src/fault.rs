//! What can be wrong with a chain, each with a stable code.

use types::{Coded, Digest, RunId};

/// Why bytes are not a header, or a header may not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderFault {
    /// Another version of the format.
    #[error("its format has version {0}, and this program reads version 1")]
    Schema(u16),
    /// A field reaches past the end.
    #[error("it ends in the middle of a field")]
    Short,
    /// Bytes after the last field.
    #[error("{0} bytes follow its last field")]
    Trailing(usize),
    /// The run is not an identifier.
    #[error("its run is not a run id")]
    Run,
    /// A kind or a commitment's name has characters or a length that names never have.
    #[error("a name in it is not 1 to 64 of a-z, 0-9, '_', '-', '.'")]
    Name,
    /// A link this version does not know.
    #[error("it has a cause of unknown type {0}")]
    Link(u8),
    /// A cause that does not come before it.
    #[error("it names record {0} as a cause, which does not come before it")]
    Cause(u64),
    /// More causes or commitments than a header may have.
    #[error("it has {count} {what}, and {max} is the limit")]
    TooMany {
        /// `causes` or `commitments`.
        what: &'static str,
        /// How many it has.
        count: usize,
        /// How many it may have.
        max: usize,
    },
    /// Commitments are not in ascending order of name, or one is there twice.
    #[error("its commitments are not in ascending order")]
    Order,
}

impl Coded for HeaderFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Schema(_) => "BP-LEDGER-001",
            _ => "BP-LEDGER-002",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Schema(_) => "Use the version of bedplate that wrote this log, or a later one.",
            _ => "Treat the record as damaged: compare it with a backup or an export.",
        }
        .to_owned()
    }
}

/// What is wrong with a chain, and at which record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// A record's header cannot be read.
    #[error("record {seq} is damaged: {why}")]
    Malformed {
        /// The place it stands in.
        seq: u64,
        /// Why.
        why: HeaderFault,
    },
    /// A record is missing, moved, or there twice.
    #[error("record {found} stands where record {expected} belongs")]
    OutOfPlace {
        /// The record that belongs there.
        expected: u64,
        /// The record that is there.
        found: u64,
    },
    /// A record is not what the records after it, or the head, say it is.
    #[error("record {seq} was altered: its digest is not the one that follows from the log")]
    Altered {
        /// The record.
        seq: u64,
    },
    /// The end of the chain is missing.
    #[error("the log ends after {found} records, and its head says {expected}")]
    Truncated {
        /// Records the head counts.
        expected: u64,
        /// Records there are.
        found: u64,
    },
    /// There are records after the head.
    #[error("record {seq} comes after the head, which counts {expected} records")]
    Surplus {
        /// The first one too many.
        seq: u64,
        /// Records the head counts.
        expected: u64,
    },
    /// A record of another run.
    #[error("record {seq} belongs to run {found}")]
    OtherRun {
        /// The record.
        seq: u64,
        /// The run it names.
        found: RunId,
    },
    /// A branch number that goes down: a branch begins after the one it leaves.
    #[error("record {seq} goes back to branch {found}")]
    Branch {
        /// The record.
        seq: u64,
        /// The branch it names.
        found: u32,
    },
    /// Content is not what the header commits to.
    #[error("the {name} of record {seq} was altered: it does not fit its commitment {commitment}")]
    Content {
        /// The record.
        seq: u64,
        /// Which content.
        name: String,
        /// What it should fit.
        commitment: Digest,
    },
    /// Content that the header does not commit to.
    #[error("record {seq} commits to no content named {name}")]
    Uncommitted {
        /// The record.
        seq: u64,
        /// Which content.
        name: String,
    },
}

impl Coded for ChainFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Malformed { why, .. } => why.code(),
            Self::OutOfPlace { .. } => "BP-LEDGER-003",
            Self::Altered { .. } => "BP-LEDGER-004",
            Self::Truncated { .. } => "BP-LEDGER-005",
            Self::Surplus { .. } => "BP-LEDGER-006",
            Self::OtherRun { .. } => "BP-LEDGER-007",
            Self::Branch { .. } => "BP-LEDGER-008",
            Self::Content { .. } => "BP-LEDGER-009",
            Self::Uncommitted { .. } => "BP-LEDGER-010",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Malformed { why, .. } => return why.next(),
            Self::Truncated { .. } => {
                "Look for the missing records in a backup or an export; do not rely on this run."
            }
            _ => "Compare with a backup or an export; do not rely on this run as evidence.",
        }
        .to_owned()
    }
}
