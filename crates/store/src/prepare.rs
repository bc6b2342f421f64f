//! Between records as the runtime speaks of them and what is stored: a header, and pieces of
//! content that it commits to. The only place where content becomes bytes and bytes become content.

use crate::{NewRecord, StoreError};
use ledger::{Commitment, Head, Header, SALT_BYTES, Salt};
use types::{BranchId, Digest, Record, RunId, SCHEMA_VERSION, Stamp};

/// Most records of one append.
pub const BATCH_RECORDS_MAX: usize = 1024;
/// Most content bytes of one append: 64 MiB.
pub const BATCH_BYTES_MAX: u64 = 64 << 20;
/// Highest number of a record.
pub const SEQ_MAX: u64 = u32::MAX as u64;

/// Most branches between a branch and the run's first.
pub const FORK_DEPTH_MAX: usize = 256;

/// Name of the actor's JSON among a record's contents.
pub(crate) const ACTOR: &str = "actor";
/// Name of the body's JSON among a record's contents.
pub(crate) const BODY: &str = "body";

/// One piece of content with its salt.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) name: String,
    pub(crate) salt: Salt,
    pub(crate) bytes: Vec<u8>,
}

/// A record ready to be linked to the one before it.
#[derive(Debug)]
pub(crate) struct Draft {
    /// All but `prev`.
    pub(crate) header: Header,
    /// Actor, body, then attachments in ascending order of name.
    pub(crate) pieces: Vec<Piece>,
    /// All but `prev` and `digest`.
    pub(crate) record: Record,
}

/// Prepares records that will stand on `branch` from number `next_seq` on.
pub(crate) fn drafts(
    run: &RunId,
    branch: BranchId,
    next_seq: u64,
    records: Vec<NewRecord>,
) -> Result<Vec<Draft>, StoreError> {
    limit("the number of records in one append", records.len(), BATCH_RECORDS_MAX as u64)?;
    let last = next_seq.saturating_add(records.len() as u64);
    limit("a record's number", last, SEQ_MAX)?;
    let mut drafts = Vec::with_capacity(records.len());
    for (seq, record) in (next_seq..=SEQ_MAX).zip(records) {
        drafts.push(draft(run, branch, seq, record)?);
    }
    let pieces = drafts.iter().flat_map(|draft| &draft.pieces);
    let bytes: u64 = pieces.map(|piece| piece.bytes.len() as u64).sum();
    limit("the content of one append in bytes", bytes, BATCH_BYTES_MAX)?;
    Ok(drafts)
}

pub(crate) fn limit(
    what: &'static str,
    given: impl TryInto<u64>,
    max: u64,
) -> Result<(), StoreError> {
    let given = given.try_into().unwrap_or(u64::MAX);
    if given <= max { Ok(()) } else { Err(StoreError::TooLarge { what, given, max }) }
}

fn draft(run: &RunId, branch: BranchId, seq: u64, record: NewRecord) -> Result<Draft, StoreError> {
    let mut pieces = vec![
        piece(ACTOR.to_owned(), json(&record.actor)?)?,
        piece(BODY.to_owned(), json(&record.body)?)?,
    ];
    let mut attachments = record.attachments;
    attachments.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, bytes) in attachments {
        pieces.push(piece(name, bytes)?);
    }
    let header = Header {
        schema: SCHEMA_VERSION,
        run: run.clone(),
        branch,
        seq,
        prev: Digest::ZERO,
        time_ms: record.time_ms,
        mono_ms: record.mono_ms,
        boot: record.boot,
        kind: record.body.kind().to_owned(),
        causes: record.causes.clone(),
        commitments: commitments(&pieces),
    };
    ledger::check(&header).map_err(|why| StoreError::BadRecord { run: run.clone(), seq, why })?;
    let record = Record {
        stamp: stamp(&header),
        prev: Digest::ZERO,
        digest: Digest::ZERO,
        causes: record.causes,
        actor: record.actor,
        body: record.body,
    };
    Ok(Draft { header, pieces, record })
}

fn piece(name: String, bytes: Vec<u8>) -> Result<Piece, StoreError> {
    let mut salt = [0; SALT_BYTES];
    random(&mut salt)?;
    Ok(Piece { name, salt, bytes })
}

/// Fills with the system's random bytes.
pub(crate) fn random(bytes: &mut [u8]) -> Result<(), StoreError> {
    getrandom::fill(bytes).map_err(|error| StoreError::Io {
        doing: "get random bytes from the system".to_owned(),
        why: error.to_string(),
    })
}

fn json(value: &impl serde::Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Io {
        doing: "write a record as JSON".to_owned(),
        why: error.to_string(),
    })
}

/// In ascending order of name, whatever the order of the pieces.
fn commitments(pieces: &[Piece]) -> Vec<Commitment> {
    let mut all: Vec<_> = pieces
        .iter()
        .map(|piece| Commitment {
            name: piece.name.clone(),
            digest: ledger::commit(&piece.salt, &piece.name, &piece.bytes),
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

fn stamp(header: &Header) -> Stamp {
    Stamp {
        run: header.run.clone(),
        branch: header.branch,
        seq: header.seq,
        time_ms: header.time_ms,
        mono_ms: header.mono_ms,
        boot: header.boot,
    }
}

/// Puts a header behind `head`, moves `head` to it, and gives its encoding.
pub(crate) fn link(header: &mut Header, head: &mut Head) -> Vec<u8> {
    assert_eq!(header.seq, head.next_seq, "a record follows the head");
    header.prev = head.digest;
    let encoded = ledger::encode(header);
    *head = Head { next_seq: header.seq + 1, digest: ledger::digest_encoded(&encoded) };
    encoded
}

/// A record from its encoded header and the content of its actor and body.
pub(crate) fn assemble(
    run: &RunId,
    seq: u64,
    header: &[u8],
    actor: &[u8],
    body: &[u8],
) -> Result<Record, StoreError> {
    let damaged = |why: String| StoreError::Damaged { run: run.clone(), seq, why };
    let digest = ledger::digest_encoded(header);
    let header = ledger::decode(header).map_err(|why| damaged(why.to_string()))?;
    let record = Record {
        stamp: stamp(&header),
        prev: header.prev,
        digest,
        causes: header.causes,
        actor: serde_json::from_slice(actor).map_err(|e| damaged(format!("its actor: {e}")))?,
        body: serde_json::from_slice(body).map_err(|e| damaged(format!("its body: {e}")))?,
    };
    if record.stamp.run != *run || record.stamp.seq != seq {
        return Err(damaged("another record stands in its place".to_owned()));
    }
    if record.body.kind() != header.kind {
        return Err(damaged(format!("its header says {}", header.kind)));
    }
    Ok(record)
}
