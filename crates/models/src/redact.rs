//! Keys, and keeping them out of everything that is kept or shown.

use crate::limits::PROVIDER_TEXT_CHARS_MAX;
use std::borrow::Cow;
use std::fmt;
use zeroize::Zeroizing;

/// What stands where a key was.
const PLACE: &str = "[key]";
/// Shorter keys are not looked for: they would match ordinary text.
const KEY_BYTES_MIN: usize = 6;

/// A provider's key. Its bytes are wiped when it is dropped; `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes, without the line end that files and variables often carry.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        let mut bytes = Zeroizing::new(bytes);
        while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            bytes.pop();
        }
        Self(bytes)
    }

    /// The bytes, for the one place that sends them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Replaces every occurrence of the key; `None` when there is none.
pub(crate) fn scrub_bytes(bytes: &[u8], key: &[u8]) -> Option<Vec<u8>> {
    if key.len() < KEY_BYTES_MIN {
        return None;
    }
    let mut clean: Option<Vec<u8>> = None;
    let mut from = 0;
    while let Some(at) = find(&bytes[from..], key) {
        let kept = clean.get_or_insert_with(Vec::new);
        kept.extend_from_slice(&bytes[from..from + at]);
        kept.extend_from_slice(PLACE.as_bytes());
        from += at + key.len();
    }
    clean.map(|mut kept| {
        kept.extend_from_slice(&bytes[from..]);
        kept
    })
}

/// Replaces a key in bytes that come in pieces. What could be the beginning of the key is held
/// back until more is known.
pub(crate) struct Scrub<'a> {
    key: &'a [u8],
    held: Vec<u8>,
}

impl<'a> Scrub<'a> {
    pub(crate) fn new(key: Option<&'a Secret>) -> Self {
        let key = key.map(Secret::expose).filter(|key| key.len() >= KEY_BYTES_MIN);
        Self { key: key.unwrap_or_default(), held: Vec::new() }
    }

    /// Takes bytes; gives what is safe to pass on, often all of them, sometimes none.
    pub(crate) fn feed<'b>(&mut self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        if self.key.is_empty() {
            return Cow::Borrowed(bytes);
        }
        self.held.extend_from_slice(bytes);
        if let Some(clean) = scrub_bytes(&self.held, self.key) {
            self.held = clean;
        }
        let most = self.held.len().min(self.key.len() - 1);
        let kept = (0..=most).rev().find(|kept| self.held.ends_with(&self.key[..*kept]));
        let rest = self.held.split_off(self.held.len() - kept.unwrap_or(0));
        Cow::Owned(std::mem::replace(&mut self.held, rest))
    }

    /// No more bytes come: what is held is no key.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.held
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(at) = haystack[from..].iter().position(|b| *b == first) {
        if haystack[from + at..].starts_with(needle) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

/// A provider's own words as we pass them on: no key, one line, control characters visible, cut.
pub(crate) fn provider_text(text: &str, key: Option<&Secret>) -> String {
    let key = key.map(Secret::expose).unwrap_or_default();
    let text = scrub_bytes(text.as_bytes(), key)
        .map_or_else(|| text.to_owned(), |clean| String::from_utf8_lossy(&clean).into_owned());
    let mut shown = String::new();
    let mut chars = text.trim().chars();
    for c in chars.by_ref().take(PROVIDER_TEXT_CHARS_MAX) {
        match c {
            '\n' | '\t' | '\r' => shown.push(' '),
            c if c.is_control() || is_invisible(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    if chars.next().is_some() {
        shown.push_str(" ...");
    }
    shown
}

/// Characters that change how other text is shown, or are not shown at all.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PROVIDER_TEXT_CHARS_MAX;

    #[test]
    fn keys_are_replaced_everywhere() {
        let check = |text: &str, expected: &str| {
            let key = Secret::new(b"sk-abcdef\n".to_vec());
            assert_eq!(provider_text(text, Some(&key)), expected);
        };
        check("bad key sk-abcdef.", "bad key [key].");
        check("sk-abcdefsk-abcdef", "[key][key]");
        check("sk-abcde", "sk-abcde");
        check("two\nlines \u{1b}[31m", "two lines \\u{1b}[31m");
        check("a\u{202e}b", "a\\u{202e}b");
        assert_eq!(scrub_bytes(b"nothing here", b"sk-abcdef"), None);
        assert_eq!(scrub_bytes(b"anything", b""), None);
        assert_eq!(format!("{:?}", Secret::new(b"sk-abcdef".to_vec())), "Secret(..)");
    }

    #[test]
    fn a_key_in_pieces_is_replaced_wherever_it_is_cut() {
        let key = Secret::new(b"aab-aac".to_vec());
        let text = b"x aab-aaab-aacy aab-aac aab-aa";
        for cut in 0..=text.len() {
            for again in cut..=text.len() {
                let mut clean = Vec::new();
                let mut scrub = Scrub::new(Some(&key));
                for piece in [&text[..cut], &text[cut..again], &text[again..]] {
                    clean.extend_from_slice(&scrub.feed(piece));
                }
                clean.extend(scrub.finish());
                assert_eq!(clean, b"x aab-a[key]y [key] aab-aa", "{cut} {again}");
            }
        }
        assert_eq!(Scrub::new(None).feed(b"aab"), &b"aab"[..], "without a key nothing is held");
    }

    #[test]
    fn provider_text_is_cut_at_its_limit() {
        let exact = "x".repeat(PROVIDER_TEXT_CHARS_MAX);
        assert_eq!(provider_text(&exact, None), exact);
        assert_eq!(provider_text(&format!("{exact}y"), None), format!("{exact} ..."));
    }
}
