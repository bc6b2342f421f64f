//! The ways in which a value is commonly written down again: what is looked for beside the value.
//!
//! Always: every way is one byte string that stands in a text wherever the value was encoded in
//! it, whatever stood before and behind. Base64 keeps bits of its neighbours in its first and last
//! character, so those are left off.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How a value was written when it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// As it is.
    Raw,
    /// Inside a JSON string.
    Json,
    /// Inside HTML or XML text.
    Html,
    /// Percent-encoded, as in a URL or a form.
    Percent,
    /// Hexadecimal.
    Hex,
    /// Base64, of either alphabet.
    Base64,
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Every way to write the value, each text once. The shortest base64 form is not looked for when
/// fewer than `min_bytes` characters of it are the value's own.
pub(crate) fn encodings(value: &[u8], min_bytes: usize) -> Vec<(Encoding, Vec<u8>)> {
    let mut all: BTreeMap<Vec<u8>, Encoding> = BTreeMap::new();
    let mut add = |encoding: Encoding, text: Vec<u8>| {
        if text.len() >= min_bytes {
            all.entry(text).or_insert(encoding);
        }
    };
    add(Encoding::Raw, value.to_vec());
    add(Encoding::Hex, hex(value, b"0123456789abcdef"));
    add(Encoding::Hex, hex(value, b"0123456789ABCDEF"));
    for alphabet in [STANDARD, URL_SAFE] {
        for shift in 0..3 {
            add(Encoding::Base64, base64_inside(value, alphabet, shift));
        }
    }
    for digits in [b"0123456789abcdef", b"0123456789ABCDEF"] {
        add(Encoding::Percent, percent(value, digits, b"-_.~", false));
        add(Encoding::Percent, percent(value, digits, b"-_.~", true));
        add(Encoding::Percent, percent(value, digits, b"-_.~!*'()", false));
        add(Encoding::Percent, percent(value, digits, b"-_.*", true));
        add(Encoding::Percent, percent(value, digits, b"-_.~!*'();:@&=+$,/?#", false));
    }
    if let Ok(text) = std::str::from_utf8(value) {
        for (slash, ascii) in [(false, false), (true, false), (false, true), (true, true)] {
            add(Encoding::Json, json(text, slash, ascii).into_bytes());
        }
        // Serialisers that are careful with HTML escape these three as well.
        let careful = json(text, false, false);
        let careful = careful.replace('<', "\\u003c").replace('>', "\\u003e");
        add(Encoding::Json, careful.replace('&', "\\u0026").into_bytes());
        add(Encoding::Html, html(text, "&quot;", "&#39;").into_bytes());
        add(Encoding::Html, html(text, "&#34;", "&#x27;").into_bytes());
        add(Encoding::Html, html(text, "\"", "'").into_bytes());
    }
    all.into_iter().map(|(text, encoding)| (encoding, text)).collect()
}

fn hex(value: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    value.iter().flat_map(|b| [digits[usize::from(b >> 4)], digits[usize::from(b & 15)]]).collect()
}

/// The base64 of the value with `shift` unknown bytes before it, without the characters in which
/// bits of a neighbour are.
fn base64_inside(value: &[u8], alphabet: &[u8; 64], shift: usize) -> Vec<u8> {
    let bit = |at: usize| {
        let (byte, offset) = ((at / 8).checked_sub(shift)?, 7 - at % 8);
        value.get(byte).map(|b| b >> offset & 1)
    };
    let character = |at: usize| {
        let bits = (at * 6..at * 6 + 6).map(bit);
        let index =
            bits.into_iter().try_fold(0_usize, |all, bit| Some(all << 1 | usize::from(bit?)));
        index.map(|index| alphabet[index])
    };
    (0..(value.len() + shift) * 8 / 6).filter_map(character).collect()
}

fn percent(value: &[u8], digits: &[u8; 16], kept: &[u8], form: bool) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for b in value {
        match b {
            b' ' if form => text.push(b'+'),
            b if b.is_ascii_alphanumeric() || kept.contains(b) => text.push(*b),
            b => text.extend([b'%', digits[usize::from(b >> 4)], digits[usize::from(b & 15)]]),
        }
    }
    text
}

/// The text as the inside of a JSON string; `slash` escapes `/`, `ascii` all that is not ASCII.
pub(crate) fn json(text: &str, slash: bool, ascii: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' => out += "\\\"",
            '\\' => out += "\\\\",
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            '\u{8}' => out += "\\b",
            '\u{c}' => out += "\\f",
            '/' if slash => out += "\\/",
            c if c < ' ' || (ascii && !c.is_ascii()) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out += &format!("\\u{unit:04x}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn html(text: &str, double: &str, single: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    escaped.replace('"', double).replace('\'', single)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, encoding: Encoding, expected: &[&str]) {
        let all = encodings(value.as_bytes(), 6);
        let texts = all.iter().filter(|(e, _)| *e == encoding);
        let mut found: Vec<_> = texts.map(|(_, t)| String::from_utf8_lossy(t)).collect();
        found.sort();
        assert_eq!(found, expected, "{value} as {encoding:?}");
    }

    #[test]
    fn values_are_written_in_every_common_way() {
        check("hunter2", Encoding::Raw, &["hunter2"]);
        check("hunter2", Encoding::Hex, &["68756E74657232", "68756e74657232"]);
        check("123456", Encoding::Hex, &["313233343536"]);
        // "hunter2" alone, behind one byte and behind two, without the mixed characters.
        check("hunter2", Encoding::Base64, &["aHVudGVyM", "h1bnRlcj", "odW50ZXIy"]);
        check("a b/c<d", Encoding::Json, &["a b/c\\u003cd", "a b\\/c<d"]);
        check(
            "a\"b\u{e9}/",
            Encoding::Json,
            &["a\\\"b\\u00e9/", "a\\\"b\\u00e9\\/", "a\\\"b\u{e9}/", "a\\\"b\u{e9}\\/"],
        );
        check("a&b<c>d", Encoding::Html, &["a&amp;b&lt;c&gt;d"]);
        check(
            "pass word/",
            Encoding::Percent,
            &["pass%20word%2F", "pass%20word%2f", "pass%20word/", "pass+word%2F", "pass+word%2f"],
        );
    }
}
