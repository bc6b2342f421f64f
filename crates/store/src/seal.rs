//! Sealing: content encrypted and bound to its place, with its salt inside.
//!
//! A sealed piece is `nonce (24) ‖ XChaCha20-Poly1305(flag (1) ‖ salt (16) ‖ content)`, where flag 1
//! says that the content is deflated. The additional data names run, branch, number and name, so a
//! piece moved elsewhere does not open. The salt is inside because whoever keeps it could confirm a
//! guess after the key is gone.

use crate::StoreError;
use crate::prepare::{BATCH_BYTES_MAX, random};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use ledger::{SALT_BYTES, Salt};
use std::io::{Read as _, Write as _};
use types::{BranchId, RunId};
use zeroize::Zeroizing;

pub(crate) const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Shorter content is not worth compressing: a request that leaves a sandbox waits for this.
const COMPRESS_BYTES_MIN: usize = 2048;
const PLAIN: u8 = 0;
const DEFLATED: u8 = 1;
/// Separates this use of the cipher from every other. The number is the format's version.
const DOMAIN: &[u8] = b"bedplate.seal.1";

/// A run's key; wiped from memory when dropped.
pub(crate) struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

impl Key {
    pub(crate) fn generate() -> Result<Self, StoreError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        random(&mut *bytes)?;
        Ok(Self(bytes))
    }

    /// `None` when the length is wrong.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &*self.0
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }
}

/// Where a piece of content belongs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) run: &'a RunId,
    pub(crate) branch: BranchId,
    pub(crate) seq: u64,
    pub(crate) name: &'a str,
}

impl Place<'_> {
    /// Run ids have one length and the name is last, so no two places give the same bytes.
    fn additional_data(&self) -> Vec<u8> {
        let mut data = DOMAIN.to_vec();
        data.extend(self.run.as_str().as_bytes());
        data.extend(self.branch.to_be_bytes());
        data.extend(self.seq.to_be_bytes());
        data.extend(self.name.as_bytes());
        data
    }
}

pub(crate) fn seal(
    key: &Key,
    place: Place<'_>,
    salt: &Salt,
    content: &[u8],
) -> Result<Vec<u8>, StoreError> {
    let deflated = deflate(content)?;
    let (flag, bytes) = match &deflated {
        Some(deflated) => (DEFLATED, deflated.as_slice()),
        None => (PLAIN, content),
    };
    let mut plain = Zeroizing::new(Vec::with_capacity(1 + SALT_BYTES + bytes.len()));
    plain.push(flag);
    plain.extend_from_slice(salt);
    plain.extend_from_slice(bytes);
    let mut nonce = [0; NONCE_BYTES];
    random(&mut nonce)?;
    let aad = place.additional_data();
    let message = Payload { msg: &plain, aad: &aad };
    let encrypted =
        key.cipher().encrypt(&XNonce::from(nonce), message).map_err(|_| StoreError::Io {
            doing: "encrypt content".to_owned(),
            why: "the cipher refused it".to_owned(),
        })?;
    let mut sealed = Vec::with_capacity(NONCE_BYTES + encrypted.len());
    sealed.extend(nonce);
    sealed.extend(encrypted);
    Ok(sealed)
}

/// Opens a sealed piece; the error says why it cannot be.
pub(crate) fn open(key: &Key, place: Place<'_>, sealed: &[u8]) -> Result<(Salt, Vec<u8>), String> {
    let (nonce, encrypted) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or("it is cut short")?;
    let aad = place.additional_data();
    let message = Payload { msg: encrypted, aad: &aad };
    let plain = key
        .cipher()
        .decrypt(&XNonce::from(*nonce), message)
        .map_err(|_| "it was altered, moved, or sealed under another key")?;
    let (flag, rest) = plain.split_first().ok_or("it is empty")?;
    let (salt, bytes) = rest.split_first_chunk::<SALT_BYTES>().ok_or("it has no salt")?;
    match *flag {
        PLAIN => Ok((*salt, bytes.to_vec())),
        DEFLATED => Ok((*salt, inflate(bytes)?)),
        other => Err(format!("it is packed in unknown way {other}")),
    }
}

/// The deflated content, if that is shorter.
fn deflate(content: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    if content.len() < COMPRESS_BYTES_MIN {
        return Ok(None);
    }
    let failed = |error: std::io::Error| StoreError::Io {
        doing: "compress content".to_owned(),
        why: error.to_string(),
    };
    let out = Vec::with_capacity(content.len() / 2);
    let mut encoder = DeflateEncoder::new(out, Compression::fast());
    encoder.write_all(content).map_err(failed)?;
    let deflated = encoder.finish().map_err(failed)?;
    Ok(Some(deflated).filter(|deflated| deflated.len() < content.len()))
}

fn inflate(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    DeflateDecoder::new(bytes)
        .take(BATCH_BYTES_MAX + 1)
        .read_to_end(&mut content)
        .map_err(|error| format!("it cannot be unpacked: {error}"))?;
    if content.len() as u64 > BATCH_BYTES_MAX {
        return Err("it unpacks to more than an append may have".to_owned());
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::BRANCH_MAIN;

    fn sealed_at(content: &[u8]) -> (Key, RunId, Vec<u8>) {
        let key = Key::generate().unwrap();
        let run = RunId::from_random([1; 8]);
        let sealed = seal(&key, place(&run, 3, "body"), &[9; 16], content).unwrap();
        (key, run, sealed)
    }

    fn place<'a>(run: &'a RunId, seq: u64, name: &'a str) -> Place<'a> {
        let branch = BRANCH_MAIN;
        Place { run, branch, seq, name }
    }

    #[test]
    fn content_comes_back_with_its_salt_and_shorter_when_that_helps() {
        for (length, shrinks) in [(0, false), (2047, false), (2048, true), (100_000, true)] {
            let content = vec![b'a'; length];
            let (key, run, sealed) = sealed_at(&content);
            assert_eq!(sealed.len() < length, shrinks, "{length}");
            let opened = open(&key, place(&run, 3, "body"), &sealed);
            assert_eq!(opened, Ok(([9; 16], content)));
        }
    }

    #[test]
    fn moved_altered_cut_or_foreign_pieces_do_not_open() {
        let (key, run, sealed) = sealed_at(b"content");
        for wrong in [place(&run, 4, "body"), place(&run, 3, "actor")] {
            assert!(open(&key, wrong, &sealed).is_err());
        }
        for index in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[index] ^= 1;
            assert!(open(&key, place(&run, 3, "body"), &altered).is_err());
            assert!(open(&key, place(&run, 3, "body"), &sealed[..index]).is_err());
        }
        let other = Key::generate().unwrap();
        assert!(open(&other, place(&run, 3, "body"), &sealed).is_err());
    }
}
