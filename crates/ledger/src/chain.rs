//! Verification: does this sequence of headers lead to that head?

use crate::codec::digest_encoded;
use crate::{ChainFault, Header, decode};
use types::{BRANCH_MAIN, BranchId, Digest, RunId};

/// The end of a chain: whoever trusts it can check everything before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Number of records, which is the number the next one gets.
    pub next_seq: u64,
    /// Digest of the last record; [`Digest::ZERO`] when there is none.
    pub digest: Digest,
}

impl Head {
    /// The head of a chain without records.
    pub const EMPTY: Self = Self { next_seq: 0, digest: Digest::ZERO };
}

/// Kind of the first record that a run has of its own, when it was forked from another.
pub const FORKED: &str = "forked";

/// A chain being read from its first record on.
#[derive(Debug, Clone)]
pub struct Chain {
    head: Head,
    run: Option<RunId>,
    branch: BranchId,
}

impl Default for Chain {
    fn default() -> Self {
        Self { head: Head::EMPTY, run: None, branch: BRANCH_MAIN }
    }
}

impl Chain {
    /// The head so far.
    #[must_use]
    pub const fn head(&self) -> Head {
        self.head
    }

    /// Takes the next record's header. A fault leaves the chain as it was.
    ///
    /// # Errors
    /// [`ChainFault::Altered`] here names this record; only what follows can tell whether it or the
    /// one before was altered, which is what [`verify_chain`] does.
    ///
    /// # Panics
    /// Never: the assertion states what the checks before it ensure.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Header, ChainFault> {
        let seq = self.head.next_seq;
        let header = decode(bytes).map_err(|why| ChainFault::Malformed { seq, why })?;
        if header.seq != seq {
            return Err(ChainFault::OutOfPlace { expected: seq, found: header.seq });
        }
        if header.prev != self.head.digest {
            return Err(ChainFault::Altered { seq });
        }
        self.check_place(&header)?;
        self.head = Head {
            next_seq: seq.checked_add(1).expect("no log has 2^64 records"),
            digest: digest_encoded(bytes),
        };
        self.run = Some(header.run.clone());
        self.branch = header.branch;
        assert_ne!(self.head.digest, header.prev, "no record is its own past");
        Ok(header)
    }

    /// One run, until a record says that another begins there; branches only ever leave for later
    /// ones.
    fn check_place(&self, header: &Header) -> Result<(), ChainFault> {
        let seq = header.seq;
        if self.run.as_ref().is_some_and(|run| *run != header.run) {
            if header.kind == FORKED && header.branch == BRANCH_MAIN {
                return Ok(());
            }
            let found = header.run.clone();
            return Err(ChainFault::OtherRun { seq, found });
        }
        if header.branch < self.branch {
            let found = header.branch;
            return Err(ChainFault::Branch { seq, found });
        }
        Ok(())
    }

    /// Whether the chain ends where `expected` says.
    fn end(self, expected: Head) -> Result<Head, ChainFault> {
        let found = self.head.next_seq;
        if found < expected.next_seq {
            return Err(ChainFault::Truncated { expected: expected.next_seq, found });
        }
        if self.head == expected {
            Ok(expected)
        } else {
            let seq = found.saturating_sub(1);
            Err(ChainFault::Altered { seq })
        }
    }
}

/// Verifies the headers of one branch, from the first record of the run to `expected`.
///
/// # Errors
/// The first fault found, naming the record. When a link does not hold, either of two records may
/// be the altered one: it is the earlier if the later is confirmed by its own successor or by the
/// head, else the later.
pub fn verify_chain<H: AsRef<[u8]>>(
    headers: impl IntoIterator<Item = H>,
    expected: Head,
) -> Result<Head, ChainFault> {
    let mut chain = Chain::default();
    let mut headers = headers.into_iter();
    while let Some(bytes) = headers.next() {
        let seq = chain.head().next_seq;
        if seq >= expected.next_seq {
            return Err(ChainFault::Surplus { seq, expected: expected.next_seq });
        }
        match chain.push(bytes.as_ref()) {
            Err(ChainFault::Altered { seq }) => {
                let confirmed = confirmed(seq, bytes.as_ref(), headers.next(), expected);
                let seq = seq.saturating_sub(u64::from(confirmed));
                return Err(ChainFault::Altered { seq });
            }
            pushed => pushed?,
        };
    }
    chain.end(expected)
}

/// Whether the successor of record `seq`, or the head if it is the last, names it as it is.
fn confirmed<H: AsRef<[u8]>>(seq: u64, bytes: &[u8], next: Option<H>, expected: Head) -> bool {
    let digest = digest_encoded(bytes);
    match next {
        Some(next) => decode(next.as_ref()).is_ok_and(|next| next.prev == digest),
        None => seq + 1 == expected.next_seq && digest == expected.digest,
    }
}
