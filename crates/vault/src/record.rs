//! A sealed record.
//!
//! ```text
//! "bedplate vault 1\n" ‖ length (4) ‖ header (JSON) ‖ nonce (24)
//!     ‖ XChaCha20-Poly1305(length (4) ‖ value ‖ zeros)
//! ```
//!
//! Everything before the cipher's bytes is its additional data, so no part of one record fits
//! another, or another name. Zeros fill the value up to whole blocks: a file's size tells little
//! of a value's. The number in the first line is the format's; a header may gain fields, and a
//! kind of secret that this build does not know is refused, not guessed.
//!
//! What it cannot tell: an older record of the same secret put back in its place.

use crate::key::Key;
use crate::kind::Kind;
use crate::{Result, VaultError, files};
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead as _, Payload};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

const FAMILY: &[u8] = b"bedplate vault ";
const MAGIC: &[u8] = b"bedplate vault 1\n";
const LENGTH_BYTES: usize = 4;
const NONCE_BYTES: usize = 24;
/// A header is short; what says otherwise is none.
const HEADER_BYTES_MAX: usize = 4 << 10;
/// Sealed values come in multiples of this.
const BLOCK_BYTES: usize = 512;

/// What may be known of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: Kind,
    /// How often it was set.
    pub version: u64,
    /// When it was first set, wall milliseconds.
    pub created_ms: u64,
    /// When it was last set, wall milliseconds.
    pub updated_ms: u64,
}

/// The readable part of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Header {
    name: String,
    kind: String,
    version: u64,
    created_ms: u64,
    updated_ms: u64,
    /// Which key sealed it.
    key: String,
}

impl Header {
    /// The header of a secret set now, in place of this one.
    pub(crate) fn next(
        name: &str,
        kind: Kind,
        before: Option<&Self>,
        key: &Key,
        now_ms: u64,
    ) -> Self {
        Self {
            name: name.to_owned(),
            kind: kind.name().to_owned(),
            version: before.map_or(1, |before| before.version + 1),
            created_ms: before.map_or(now_ms, |before| before.created_ms),
            updated_ms: before.map_or(now_ms, |before| now_ms.max(before.updated_ms)),
            key: key.mark(),
        }
    }

    /// Of a record that was opened: then its kind is known.
    pub(crate) fn kind(&self) -> Kind {
        Kind::named(&self.kind).expect("opening refuses other kinds")
    }

    pub(crate) fn entry(&self) -> Entry {
        Entry {
            name: self.name.clone(),
            kind: self.kind(),
            version: self.version,
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
        }
    }
}

/// Seals a value under its header.
pub(crate) fn seal(key: &Key, header: &Header, value: &[u8]) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(header).expect("a header is plain data");
    assert!(json.len() <= HEADER_BYTES_MAX, "a header is short");
    let mut sealed = MAGIC.to_vec();
    sealed.extend(length_of(json.len()));
    sealed.extend(&json);
    let mut nonce = [0; NONCE_BYTES];
    files::random(&mut nonce)?;
    sealed.extend(nonce);
    let padded = (LENGTH_BYTES + value.len()).next_multiple_of(BLOCK_BYTES);
    let mut plain = Zeroizing::new(Vec::with_capacity(padded));
    plain.extend(length_of(value.len()));
    plain.extend_from_slice(value);
    plain.resize(padded, 0);
    let message = Payload { msg: &plain, aad: &sealed };
    let cipher = key.cipher().encrypt(&XNonce::from(nonce), message);
    let cipher = cipher.map_err(|_| VaultError::Io {
        doing: "encrypt a secret".to_owned(),
        why: "the cipher refused it".to_owned(),
    })?;
    sealed.extend(cipher);
    Ok(sealed)
}

fn length_of(bytes: usize) -> [u8; LENGTH_BYTES] {
    u32::try_from(bytes).expect("values and headers are limited").to_be_bytes()
}

/// Opens a record as the one of this name.
pub(crate) fn open(key: &Key, name: &str, bytes: &[u8]) -> Result<(Header, Zeroizing<String>)> {
    let damaged = |why: &str| VaultError::Damaged { name: name.to_owned(), why: why.to_owned() };
    let parts = Parts::of(name, bytes)?;
    if parts.header.name != name {
        return Err(damaged(&format!("it is the one of '{}'", shown(&parts.header.name))));
    }
    if Kind::named(&parts.header.kind).is_none() {
        let what = format!("its kind is '{}'", shown(&parts.header.kind));
        return Err(VaultError::Newer { name: name.to_owned(), what });
    }
    if parts.header.key != key.mark() {
        return Err(VaultError::WrongKey { name: name.to_owned() });
    }
    let message = Payload { msg: parts.cipher, aad: parts.before };
    let plain = key.cipher().decrypt(&XNonce::from(parts.nonce), message);
    let plain = Zeroizing::new(plain.map_err(|_| damaged("it was altered"))?);
    let (length, rest) = take_length(&plain).ok_or_else(|| damaged("it has no length"))?;
    let value = rest.get(..length).ok_or_else(|| damaged("its length does not fit"))?;
    let value = std::str::from_utf8(value).map_err(|_| damaged("its value is no text"))?;
    Ok((parts.header, Zeroizing::new(value.to_owned())))
}

/// The mark of the key that a record names; `None` when it cannot be read.
pub(crate) fn mark_of(bytes: &[u8]) -> Option<String> {
    Parts::of("", bytes).ok().map(|parts| parts.header.key)
}

/// A name or kind from a record that nobody vouches for yet.
fn shown(text: &str) -> String {
    const SHOWN_CHARS_MAX: usize = 64;
    text.chars().filter(|c| c.is_ascii_graphic()).take(SHOWN_CHARS_MAX).collect()
}

/// A record's bytes, taken apart.
struct Parts<'a> {
    header: Header,
    nonce: [u8; NONCE_BYTES],
    cipher: &'a [u8],
    /// Everything before the cipher's bytes.
    before: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(name: &str, bytes: &'a [u8]) -> Result<Self> {
        let damaged =
            |why: &str| VaultError::Damaged { name: name.to_owned(), why: why.to_owned() };
        let cut = || damaged("it is cut");
        let Some(rest) = bytes.strip_prefix(MAGIC) else {
            if bytes.starts_with(FAMILY) && bytes.len() >= MAGIC.len() {
                let what = "its format".to_owned();
                return Err(VaultError::Newer { name: name.to_owned(), what });
            }
            return Err(damaged("it does not begin as a record does"));
        };
        let (length, rest) = take_length(rest).ok_or_else(cut)?;
        if length > HEADER_BYTES_MAX {
            return Err(damaged("its header is too long"));
        }
        let (json, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        let (nonce, cipher) = rest.split_first_chunk().ok_or_else(cut)?;
        let header =
            serde_json::from_slice(json).map_err(|_| damaged("its header is no header"))?;
        let before = &bytes[..bytes.len() - cipher.len()];
        Ok(Self { header, nonce: *nonce, cipher, before })
    }
}

fn take_length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    Some((usize::try_from(u32::from_be_bytes(*length)).ok()?, rest))
}
