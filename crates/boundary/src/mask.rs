//! Secrets that come back: each value a request was given is masked in what answers it.
//!
//! A value is known as it is, as base64 at each of its three alignments, and escaped for URLs and
//! JSON. Bytes that may be the beginning of one are held until it is known, across chunks; nothing
//! else is delayed.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Characters of a base64 form below which it would hit by chance.
const BASE64_CHARS_MIN: usize = 6;

/// A form of a value, and the mask it gets.
struct Pattern {
    bytes: Zeroizing<Vec<u8>>,
    mask: Arc<str>,
}

/// All forms of all values of one request.
pub(crate) struct Masks {
    /// The longest first.
    patterns: Vec<Pattern>,
    /// Whether some pattern begins with this byte.
    first: [bool; 256],
}

impl fmt::Debug for Masks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masks").finish_non_exhaustive()
    }
}

impl Masks {
    /// Masks for values and their names; none when there is nothing to mask.
    pub(crate) fn new<'a>(values: impl Iterator<Item = (&'a str, &'a str)>) -> Option<Arc<Self>> {
        let mut patterns = Vec::new();
        for (name, value) in values.filter(|(_, value)| !value.is_empty()) {
            let mask: Arc<str> = format!("[masked:{name}]").into();
            let of = |bytes| Pattern { bytes, mask: Arc::clone(&mask) };
            patterns.extend(forms(value).into_iter().map(of));
        }
        patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.bytes.len()));
        let mut first = [false; 256];
        patterns.iter().for_each(|pattern| first[usize::from(pattern.bytes[0])] = true);
        (!patterns.is_empty()).then(|| Arc::new(Self { patterns, first }))
    }

    /// The longest form that stands at the beginning.
    fn at(&self, bytes: &[u8]) -> Option<&Pattern> {
        if !self.first[usize::from(*bytes.first()?)] {
            return None;
        }
        self.patterns.iter().find(|pattern| bytes.starts_with(&pattern.bytes))
    }

    /// Whether these bytes may go on to become a form.
    fn begins(&self, bytes: &[u8]) -> bool {
        let longer = |pattern: &&Pattern| pattern.bytes.len() > bytes.len();
        self.patterns.iter().take_while(longer).any(|pattern| pattern.bytes.starts_with(bytes))
    }
}

/// The forms in which a value may come back.
fn forms(value: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let bytes = value.as_bytes();
    let mut forms = vec![Zeroizing::new(bytes.to_vec())];
    for escaped in [percent(bytes, true), percent(bytes, false), json_escaped(value)] {
        forms.push(Zeroizing::new(escaped.as_bytes().to_vec()));
    }
    for alignment in 0..3 {
        let mut shifted = Zeroizing::new(vec![0u8; alignment]);
        shifted.extend_from_slice(bytes);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let encoded = Zeroizing::new(engine.encode(&*shifted));
            // The characters at the edges depend on what stands beside the value.
            let from = [0, 2, 3][alignment];
            let to = encoded.len() - usize::from(shifted.len() % 3 != 0);
            if to >= from + BASE64_CHARS_MIN {
                forms.push(Zeroizing::new(encoded.as_bytes()[from..to].to_vec()));
            }
        }
    }
    forms.sort_by(|one, other| one.as_slice().cmp(other));
    forms.dedup_by(|one, other| one.as_slice() == other.as_slice());
    forms
}

/// Escaped for a URL: all but unreserved characters.
pub(crate) fn percent(bytes: &[u8], upper: bool) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(bytes.len() * 3));
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else if upper {
            text.push_str(&format!("%{byte:02X}"));
        } else {
            text.push_str(&format!("%{byte:02x}"));
        }
    }
    text
}

/// As it stands inside a JSON string.
pub(crate) fn json_escaped(value: &str) -> Zeroizing<String> {
    let quoted = Zeroizing::new(serde_json::Value::from(value).to_string());
    Zeroizing::new(quoted[1..quoted.len() - 1].to_owned())
}

/// Masks one stream of bytes.
#[derive(Debug)]
pub(crate) struct Masker {
    masks: Arc<Masks>,
    held: Zeroizing<Vec<u8>>,
    hits: usize,
}

impl Masker {
    pub(crate) fn new(masks: Arc<Masks>) -> Self {
        Self { masks, held: Zeroizing::default(), hits: 0 }
    }

    /// What may go on of these bytes and those held before.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Bytes {
        self.held.extend_from_slice(bytes);
        self.run(false)
    }

    /// What is left at the end.
    pub(crate) fn end(&mut self) -> Bytes {
        self.run(true)
    }

    /// Whether bytes are held back.
    pub(crate) fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// How often a form was found.
    pub(crate) const fn hits(&self) -> usize {
        self.hits
    }

    fn run(&mut self, end: bool) -> Bytes {
        let mut out = Vec::with_capacity(self.held.len());
        let mut at = 0;
        while at < self.held.len() {
            let left = &self.held[at..];
            if !self.masks.first[usize::from(left[0])] {
                out.push(left[0]);
                at += 1;
            } else if !end && self.masks.begins(left) {
                break;
            } else if let Some(pattern) = self.masks.at(left) {
                out.extend_from_slice(pattern.mask.as_bytes());
                at += pattern.bytes.len();
                self.hits += 1;
            } else {
                out.push(left[0]);
                at += 1;
            }
        }
        self.held.drain(..at);
        out.into()
    }

    /// The same for the values of headers.
    pub(crate) fn headers(&self, mut headers: HeaderMap) -> HeaderMap {
        for value in headers.values_mut() {
            let mut masker = Self::new(Arc::clone(&self.masks));
            let mut text = masker.feed(value.as_bytes()).to_vec();
            text.extend(masker.end());
            if masker.hits > 0 {
                *value = HeaderValue::from_bytes(&text)
                    .unwrap_or_else(|_| HeaderValue::from_static("[masked]"));
            }
        }
        headers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALUE: &str = "s3cr3t/v+lue\"!";

    fn masked(text: &[u8], step: usize) -> String {
        let masks = Masks::new([("api", VALUE)].into_iter()).unwrap();
        let mut masker = Masker::new(masks);
        let mut out = Vec::new();
        for piece in text.chunks(step.max(1)) {
            out.extend(masker.feed(piece));
        }
        out.extend(masker.end());
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn every_form_is_masked_across_chunks() {
        let basic = STANDARD_NO_PAD.encode(format!("user:{VALUE}"));
        let url = URL_SAFE_NO_PAD.encode(format!("u:{VALUE} and more"));
        for text in [
            VALUE.to_owned(),
            basic,
            url,
            percent(VALUE.as_bytes(), true).to_string(),
            percent(VALUE.as_bytes(), false).to_string(),
            json_escaped(VALUE).to_string(),
        ] {
            for step in [1, 2, 3, 7, 1000] {
                let got = masked(format!("a{text}s3cr{text}z").as_bytes(), step);
                assert_eq!(got.matches("[masked:api]").count(), 2, "{text} at {step}: {got}");
                assert!(
                    got.starts_with('a') && got.ends_with('z') && got.contains("s3cr"),
                    "{got}"
                );
            }
        }
    }

    #[test]
    fn nothing_else_is_delayed() {
        let masks = Masks::new([("api", VALUE)].into_iter()).unwrap();
        let mut masker = Masker::new(masks);
        assert_eq!(masker.feed(b"data: hello\n\n"), "data: hello\n\n");
        assert_eq!(masker.feed(b"data: s3cr"), "data: ");
        assert!(masker.holds());
        assert_eq!(masker.feed(b"ets\n"), "s3crets\n");
        assert!(Masks::new([("api", "")].into_iter()).is_none());
    }

    proptest! {
        #[test]
        fn cutting_changes_nothing(before in "[s3cr]{0,12}", after in "[a-z/+]{0,12}", step in 1usize..9) {
            let text = format!("{before}{VALUE}{after}");
            prop_assert_eq!(masked(text.as_bytes(), step), masked(text.as_bytes(), 1000));
            prop_assert!(!masked(text.as_bytes(), step).contains(VALUE));
        }
    }
}
