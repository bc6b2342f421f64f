//! Looks once inside base64, hexadecimal and percent-encoding.
//!
//! A blob is decoded only if its beginning reads as text, so that pictures and digests cost
//! nothing. What is found in base64 or hexadecimal makes the whole blob a finding; in
//! percent-encoding the encoded stretch alone. One level deep: a blob in a blob is not opened.

use crate::kind::Finding;
use crate::work;

/// Shortest blob worth opening, in bytes: it holds the shortest address or number.
const BLOB_BYTES_MIN: usize = 16;
/// Bytes at the beginning of a blob that must read as text.
const PROBE_BYTES: usize = 12;
/// Longest stretch of percent-encoded text that is opened at a time, in bytes.
const PERCENT_BYTES_MAX: usize = 16 << 10;

const BLOB: u8 = 1;
const PERCENT: u8 = 2;
const CLASSES: [u8; 256] = {
    let mut classes = [0; 256];
    let mut b = 0;
    while b < 256 {
        let byte = b as u8;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=') {
            classes[b] = BLOB;
        }
        b += 1;
    }
    classes[b'%' as usize] = PERCENT;
    classes
};

/// Adds what `look` finds inside the blobs of the text.
pub(crate) fn find(text: &str, look: impl Fn(&str) -> Vec<Finding>, found: &mut Vec<Finding>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let class = CLASSES[usize::from(bytes[at])];
        if class == PERCENT && escape(&bytes[at..]).is_some() {
            at = percent(text, at, &look, found);
        } else if class == BLOB {
            let length =
                bytes[at..].iter().take_while(|b| CLASSES[usize::from(**b)] == BLOB).count();
            let end = at + length;
            if length >= BLOB_BYTES_MIN {
                blob(&bytes[at..end], at, &look, found);
            }
            at = end;
        } else {
            at += 1;
        }
    }
}

/// Looks inside one run of characters of base64. What stands before a `=` may be a key.
fn blob(run: &[u8], start: usize, look: &impl Fn(&str) -> Vec<Finding>, found: &mut Vec<Finding>) {
    let mut part = start;
    work::add(run.len());
    for piece in run.split(|b| *b == b'=') {
        let (at, end) = (part, part + piece.len());
        part = end + 1;
        if piece.len() < BLOB_BYTES_MIN {
            continue;
        }
        let Some(plain) = hexadecimal(piece).or_else(|| base64(piece)) else { continue };
        if let Some(first) = look(&plain).into_iter().min_by_key(|f| f.kind) {
            found.push(Finding { start: at, end, encoded: true, ..first });
        }
    }
}

fn hexadecimal(piece: &[u8]) -> Option<String> {
    let digit = |b: u8| char::from(b).to_digit(16).map(|d| d as u8);
    let bytes = |piece: &[u8]| -> Option<Vec<u8>> {
        let pairs = piece.chunks(2);
        pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
    };
    let probe = bytes(&piece[..piece.len().min(PROBE_BYTES * 2) & !1])?;
    if !reads_as_text(&probe) {
        return None;
    }
    String::from_utf8(bytes(piece)?).ok()
}

pub(crate) fn base64(piece: &[u8]) -> Option<String> {
    let mut plain = Vec::with_capacity(piece.len() * 3 / 4);
    for (at, group) in piece.chunks(4).enumerate() {
        let mut bits = 0_u32;
        for b in group {
            bits = bits << 6 | u32::from(sextet(*b)?);
        }
        match group.len() {
            4 => plain.extend_from_slice(&bits.to_be_bytes()[1..]),
            3 => plain.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
            2 => plain.push((bits >> 4) as u8),
            _ => return None,
        }
        if at == PROBE_BYTES / 3 && !reads_as_text(&plain[..PROBE_BYTES]) {
            return None;
        }
    }
    if !reads_as_text(&plain[..plain.len().min(PROBE_BYTES)]) {
        return None;
    }
    String::from_utf8(plain).ok()
}

fn sextet(b: u8) -> Option<u8> {
    Some(match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    })
}

/// Whether bytes look like the beginning of a text; the last character may be cut.
fn reads_as_text(bytes: &[u8]) -> bool {
    let control = |b: &u8| (*b < b' ' && !matches!(b, b'\n' | b'\r' | b'\t')) || *b == 0x7f;
    let valid = match std::str::from_utf8(bytes) {
        Ok(_) => true,
        Err(error) => error.error_len().is_none(),
    };
    valid && !bytes.iter().any(control)
}

fn escape(bytes: &[u8]) -> Option<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
    (bytes.first() == Some(&b'%')).then_some(())?;
    Some((digit(1)? << 4 | digit(2)?) as u8)
}

/// Looks inside the word around the escape at `at`; returns where to go on.
fn percent(
    text: &str,
    at: usize,
    look: &impl Fn(&str) -> Vec<Finding>,
    found: &mut Vec<Finding>,
) -> usize {
    let bytes = text.as_bytes();
    let outside = |b: &u8| b.is_ascii_whitespace() || matches!(b, b'"' | b'<' | b'>' | b'`' | b'&');
    let before = bytes[..at].iter().rev().take(PERCENT_BYTES_MAX / 16);
    let mut start = at - before.take_while(|b| !outside(b)).count();
    let after = bytes[at..].iter().take(PERCENT_BYTES_MAX);
    let mut end = at + after.take_while(|b| !outside(b)).count();
    while !text.is_char_boundary(start) {
        start += 1;
    }
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    work::add(end - start);
    // `places[i]` is where the decoded byte `i` was.
    let (mut plain, mut places, mut read) = (Vec::new(), Vec::new(), start);
    while read < end {
        places.push(read);
        let escaped = escape(&bytes[read..end]);
        plain.push(escaped.unwrap_or(bytes[read]));
        read += if escaped.is_some() { 3 } else { 1 };
    }
    places.push(end);
    let Ok(plain) = String::from_utf8(plain) else { return end };
    for finding in look(&plain) {
        let (start, end) = (places[finding.start], places[finding.end]);
        let encoded = bytes[start..end].contains(&b'%');
        if encoded {
            found.push(Finding { start, end, encoded, ..finding });
        }
    }
    end.max(at + 1)
}
