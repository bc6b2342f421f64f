//! Forms: `application/x-www-form-urlencoded`.

use crate::limits::FACTS_MAX;
use crate::path::hex_pair;

/// Each field as `key=value`, decoded; none when it is not one form or has too many fields.
pub(super) fn read(body: &[u8]) -> Option<Vec<String>> {
    let text = std::str::from_utf8(body).ok()?;
    let fields = text.split('&').filter(|field| !field.is_empty());
    let pair = |field: &str| {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        let key = decode(key)?;
        // A fact is `key=value`: a key with `=` could be read in two ways.
        (!key.contains('=')).then_some(())?;
        Some(format!("{key}={}", decode(value)?))
    };
    let pairs: Vec<String> = fields.map(pair).collect::<Option<_>>()?;
    (pairs.len() <= FACTS_MAX).then_some(pairs)
}

/// Plus and escapes decoded once; none when an escape is broken or the text is not UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'%' => {
                decoded.push(hex_pair(bytes.get(at + 1..at + 3))?);
                3
            }
            b'+' => {
                decoded.push(b' ');
                1
            }
            byte => {
                decoded.push(byte);
                1
            }
        };
    }
    String::from_utf8(decoded).ok()
}
