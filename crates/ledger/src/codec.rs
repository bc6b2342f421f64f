//! Headers and their one encoding: fixed-width big-endian numbers, and texts and lists preceded by
//! their length. `docs/log-format.md` shows it byte by byte.

use crate::HeaderFault;
use types::{BranchId, Cause, Digest, Link, RunId, SCHEMA_VERSION};

/// Longest kind or commitment name, bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Most causes of one record.
pub const CAUSES_MAX: usize = 4096;
/// Most pieces of content of one record.
pub const COMMITMENTS_MAX: usize = 256;

/// Separates header digests from every other digest. The number is the format's version.
const DOMAIN: &str = "bedplate.header.1";
/// Bytes of a header with short names, two commitments and no causes, rounded up.
const TYPICAL_BYTES: usize = 256;

/// What a record says of one piece of its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    /// Which piece: `actor`, `body`, or an attachment's name.
    pub name: String,
    /// H(salt, bytes), made by [`commit`](crate::commit).
    pub digest: Digest,
}

/// A record without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Version of the format; [`SCHEMA_VERSION`].
    pub schema: u16,
    /// The run.
    pub run: RunId,
    /// The branch it was written on.
    pub branch: BranchId,
    /// Its number in the chain, from 0.
    pub seq: u64,
    /// Digest of the record before; [`Digest::ZERO`] for the first.
    pub prev: Digest,
    /// Wall time, milliseconds since 1970.
    pub time_ms: u64,
    /// Monotonic time, milliseconds since `boot`.
    pub mono_ms: u64,
    /// Which boot `mono_ms` belongs to.
    pub boot: u64,
    /// The record's kind: `run_started`.
    pub kind: String,
    /// What it follows from, in the writer's order.
    pub causes: Vec<Cause>,
    /// Its content, in ascending order of name.
    pub commitments: Vec<Commitment>,
}

/// Whether a header may be written.
///
/// # Errors
/// What is wrong with it. A header that passes is encoded and decoded without fault.
pub fn check(header: &Header) -> Result<(), HeaderFault> {
    if header.schema != SCHEMA_VERSION {
        return Err(HeaderFault::Schema(header.schema));
    }
    check_count("causes", header.causes.len(), CAUSES_MAX)?;
    check_count("commitments", header.commitments.len(), COMMITMENTS_MAX)?;
    if let Some(late) = header.causes.iter().find(|cause| cause.seq >= header.seq) {
        return Err(HeaderFault::Cause(late.seq));
    }
    let names = header.commitments.iter().map(|c| c.name.as_str());
    if !names.clone().chain([header.kind.as_str()]).all(is_name) {
        return Err(HeaderFault::Name);
    }
    if !names.is_sorted_by(|a, b| a < b) {
        return Err(HeaderFault::Order);
    }
    Ok(())
}

/// Whether a text can name a kind or a piece of content: 1 to 64 of `a-z`, `0-9`, `_`, `-`, `.`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.'))
}

fn check_count(what: &'static str, count: usize, max: usize) -> Result<(), HeaderFault> {
    if count <= max { Ok(()) } else { Err(HeaderFault::TooMany { what, count, max }) }
}

/// The record's digest: what the next record's `prev` must be.
#[must_use]
pub fn digest(header: &Header) -> Digest {
    digest_encoded(&encode(header))
}

/// The same from the header's encoding, which must be one.
#[must_use]
pub fn digest_encoded(bytes: &[u8]) -> Digest {
    Digest::of_parts(DOMAIN, &[bytes])
}

/// The header's encoding.
///
/// # Panics
/// When [`check`] refuses the header: callers check what comes from outside before they get here.
#[must_use]
pub fn encode(header: &Header) -> Vec<u8> {
    assert_eq!(check(header), Ok(()), "only a checked header is encoded");
    let mut out = Vec::with_capacity(TYPICAL_BYTES);
    out.extend(header.schema.to_be_bytes());
    put_text(&mut out, header.run.as_str());
    out.extend(header.branch.to_be_bytes());
    out.extend(header.seq.to_be_bytes());
    out.extend(header.prev.0);
    out.extend(header.time_ms.to_be_bytes());
    out.extend(header.mono_ms.to_be_bytes());
    out.extend(header.boot.to_be_bytes());
    put_text(&mut out, &header.kind);
    put_length(&mut out, header.causes.len());
    for cause in &header.causes {
        out.push(link_code(cause.link));
        out.extend(cause.seq.to_be_bytes());
    }
    put_length(&mut out, header.commitments.len());
    for commitment in &header.commitments {
        put_text(&mut out, &commitment.name);
        out.extend(commitment.digest.0);
    }
    out
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend(text.as_bytes());
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let length = u16::try_from(length).expect("checked: every length is far below 65,536");
    out.extend(length.to_be_bytes());
}

/// Reads a header from exactly these bytes.
///
/// # Errors
/// When they are not the one encoding of a header that may be written.
///
/// # Panics
/// Never: that the header encodes back to the same bytes is asserted, not assumed.
pub fn decode(bytes: &[u8]) -> Result<Header, HeaderFault> {
    let mut input = Input(bytes);
    let schema = input.u16()?;
    if schema != SCHEMA_VERSION {
        return Err(HeaderFault::Schema(schema));
    }
    let header = Header {
        schema,
        run: RunId::parse(&input.text()?).map_err(|_| HeaderFault::Run)?,
        branch: u32::from_be_bytes(input.array()?),
        seq: input.u64()?,
        prev: Digest(input.array()?),
        time_ms: input.u64()?,
        mono_ms: input.u64()?,
        boot: input.u64()?,
        kind: input.text()?,
        causes: input.list("causes", CAUSES_MAX, Input::cause)?,
        commitments: input.list("commitments", COMMITMENTS_MAX, Input::commitment)?,
    };
    if !input.0.is_empty() {
        return Err(HeaderFault::Trailing(input.0.len()));
    }
    check(&header)?;
    assert_eq!(encode(&header), bytes, "one header has one encoding");
    Ok(header)
}

/// The bytes not read yet.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], HeaderFault> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(HeaderFault::Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, HeaderFault> {
        self.array().map(u16::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, HeaderFault> {
        self.array().map(u64::from_be_bytes)
    }

    fn text(&mut self) -> Result<String, HeaderFault> {
        let length = usize::from(self.u16()?);
        let (taken, rest) = self.0.split_at_checked(length).ok_or(HeaderFault::Short)?;
        self.0 = rest;
        let text = std::str::from_utf8(taken).map_err(|_| HeaderFault::Name)?;
        Ok(text.to_owned())
    }

    fn list<T>(
        &mut self,
        what: &'static str,
        max: usize,
        entry: fn(&mut Self) -> Result<T, HeaderFault>,
    ) -> Result<Vec<T>, HeaderFault> {
        let count = usize::from(self.u16()?);
        check_count(what, count, max)?;
        (0..count).map(|_| entry(self)).collect()
    }

    fn cause(&mut self) -> Result<Cause, HeaderFault> {
        let [code] = self.array()?;
        let link = link_of(code).ok_or(HeaderFault::Link(code))?;
        let seq = self.u64()?;
        Ok(Cause { link, seq })
    }

    fn commitment(&mut self) -> Result<Commitment, HeaderFault> {
        let name = self.text()?;
        let digest = Digest(self.array()?);
        Ok(Commitment { name, digest })
    }
}

/// A link's number in the format. Numbers are added, never changed.
const fn link_code(link: Link) -> u8 {
    match link {
        Link::ResultOf => 1,
        Link::DecidedBy => 2,
        Link::ApprovedBy => 3,
        Link::RetryOf => 4,
        Link::ResumedFrom => 5,
        Link::ForkedFrom => 6,
        Link::Compensates => 7,
        Link::AskedIn => 8,
    }
}

const fn link_of(code: u8) -> Option<Link> {
    Some(match code {
        1 => Link::ResultOf,
        2 => Link::DecidedBy,
        3 => Link::ApprovedBy,
        4 => Link::RetryOf,
        5 => Link::ResumedFrom,
        6 => Link::ForkedFrom,
        7 => Link::Compensates,
        8 => Link::AskedIn,
        _ => return None,
    })
}
