//! Configured names, found as whole words whatever their case and however accents are composed.
//!
//! Both sides are folded: compatibility-composed, upper case, lower case. In scripts written
//! without spaces a name is found inside a run of letters. Endings of inflected names are not
//! known: configure the forms that matter.

use crate::detect::Found;
use crate::email::{is_continuous, is_word};
use crate::error::PrivacyError;
use crate::kind::{Confidence, Kind};
use std::collections::BTreeMap;
use unicode_normalization::UnicodeNormalization as _;

/// Most words of one name.
const WORDS_MAX: usize = 8;
/// Most bytes between two words of one name.
const GAP_BYTES_MAX: usize = 8;
/// Longest word that is folded to be compared, in bytes; no name has a longer one.
const WORD_BYTES_MAX: usize = 512;
const FILTER_BITS: u32 = 14;

/// What a byte says about where words end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Word,
    Other,
    /// Part of a character that is not ASCII.
    Wide,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Wide; 256];
    let mut b = 0;
    while b < 128 {
        classes[b] = if (b as u8).is_ascii_alphanumeric() { Class::Word } else { Class::Other };
        b += 1;
    }
    classes
};

#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// By first word: the words behind it, longest name first.
    names: BTreeMap<String, Vec<Vec<String>>>,
    /// By first character: names of scripts without spaces, longest first.
    continuous: BTreeMap<char, Vec<String>>,
    filter: Vec<u64>,
}

impl Names {
    pub(crate) fn new(names: &[String]) -> Result<Self, PrivacyError> {
        let bad = |reason| PrivacyError::BadConfig { what: "a name", reason };
        let mut all = Self { filter: vec![0; 1 << (FILTER_BITS - 6)], ..Self::default() };
        for name in names {
            let mut parts = words(name).map(|(start, end)| folded(&name[start..end]));
            let Some(first) = parts.next() else { return Err(bad("it has no letter or digit")) };
            let rest: Vec<_> = parts.collect();
            if rest.len() >= WORDS_MAX {
                return Err(bad("it has more than 8 words"));
            }
            if rest.is_empty() && first.chars().count() < 2 {
                return Err(bad("it is a single character"));
            }
            match first.chars().next().filter(|c| is_continuous(*c)) {
                Some(c) => all.continuous.entry(c).or_default().push(first + &rest.concat()),
                None => {
                    let place = place(&first);
                    all.filter[place >> 6] |= 1 << (place & 63);
                    all.names.entry(first).or_default().push(rest);
                }
            }
        }
        all.names.values_mut().for_each(|v| v.sort_by_key(|rest| std::cmp::Reverse(rest.len())));
        all.continuous.values_mut().for_each(|v| v.sort_by_key(|n| std::cmp::Reverse(n.len())));
        Ok(all)
    }

    pub(crate) fn find(&self, text: &str, found: &mut Found) {
        if self.names.is_empty() && self.continuous.is_empty() {
            return;
        }
        let mut buffer = String::new();
        for (start, end) in words(text) {
            let word = &text[start..end];
            if word.len() > WORD_BYTES_MAX {
                continue;
            }
            // Folding an ASCII word changes neither its length nor, but for case, its letters: most
            // need not be folded to be passed over.
            let ascii = word.is_ascii();
            if ascii && !self.may_start(word) {
                continue;
            }
            if !self.continuous.is_empty() && !ascii {
                self.find_continuous(text, start, end, found);
            }
            fold_into(word, &mut buffer);
            if !self.may_start(&buffer) {
                continue;
            }
            let Some(names) = self.names.get(&buffer) else { continue };
            if let Some(end) = names.iter().find_map(|rest| follow(text, end, rest)) {
                found.add(start, end, Kind::Name, Confidence::Certain);
            }
        }
    }

    fn may_start(&self, word: &str) -> bool {
        let place = place(word);
        self.filter[place >> 6] >> (place & 63) & 1 == 1
    }

    fn find_continuous(&self, text: &str, start: usize, end: usize, found: &mut Found) {
        for (offset, c) in text[start..end].char_indices() {
            let Some(names) = self.continuous.get(&c) else { continue };
            let at = start + offset;
            let after = names.iter().find_map(|name| behind(&text[at..], name));
            if let Some(length) = after {
                found.add(at, at + length, Kind::Name, Confidence::Certain);
            }
        }
    }
}

/// How long the stretch is at the start of `text` that reads as the name, spaces left out.
fn behind(text: &str, name: &str) -> Option<usize> {
    let mut rest = name;
    for (at, c) in text.char_indices().take(name.len() + GAP_BYTES_MAX) {
        match rest.strip_prefix(c) {
            Some("") => return Some(at + c.len_utf8()),
            Some(shorter) => rest = shorter,
            None if matches!(c, ' ' | '\u{3000}' | '・' | '·') && rest.len() < name.len() => {}
            None => return None,
        }
    }
    None
}

/// Where the words end that must follow, if they do.
fn follow(text: &str, mut end: usize, rest: &[String]) -> Option<usize> {
    let from = end;
    let mut following = words(&text[from..]).map(move |(s, e)| (s + from, e + from));
    let mut buffer = String::new();
    for expected in rest {
        let (start, stop) = following.next()?;
        let gap = &text[end..start];
        let joined = gap.chars().all(|c| c.is_whitespace() || matches!(c, '-' | '\'' | '’' | '.'));
        if gap.len() > GAP_BYTES_MAX || !joined || stop - start > WORD_BYTES_MAX {
            return None;
        }
        fold_into(&text[start..stop], &mut buffer);
        if buffer != *expected {
            return None;
        }
        end = stop;
    }
    Some(end)
}

/// The words of a text: runs of letters, digits and their marks.
fn words(text: &str) -> impl Iterator<Item = (usize, usize)> + '_ {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        at = end_of(text, at, |word| !word);
        if at == bytes.len() {
            return None;
        }
        let start = at;
        at = end_of(text, at, |word| word);
        Some((start, at))
    })
}

/// The end of the run from `at` whose characters are (or are not) of a word.
fn end_of(text: &str, mut at: usize, wanted: impl Fn(bool) -> bool) -> usize {
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(at) {
        let class = CLASSES[usize::from(*byte)];
        if class != Class::Wide {
            if !wanted(class == Class::Word) {
                break;
            }
            at += 1;
        } else {
            let c = text[at..].chars().next().expect("there is a byte here");
            if !wanted(is_word(c)) {
                break;
            }
            at += c.len_utf8();
        }
    }
    at
}

fn folded(word: &str) -> String {
    let mut out = String::new();
    fold_into(word, &mut out);
    out
}

fn fold_into(word: &str, out: &mut String) {
    out.clear();
    if word.is_ascii() {
        out.push_str(word);
        out.make_ascii_lowercase();
    } else {
        // Upper case first makes one of ß and ss, of ς and σ.
        let upper = word.nfkc().flat_map(char::to_uppercase);
        out.extend(upper.flat_map(char::to_lowercase).nfc());
    }
}

/// The place of a word in the prefilter, whatever the case of its ASCII letters: from its first two
/// bytes, its last, and its length.
fn place(word: &str) -> usize {
    let bytes = word.as_bytes();
    let letter = |b: Option<&u8>| u32::from(b.copied().unwrap_or_default() | 0x20);
    let ends = letter(bytes.first()) | letter(bytes.get(1)) << 8 | letter(bytes.last()) << 16;
    let mixed = (ends ^ (bytes.len() as u32) << 24).wrapping_mul(0x9e37_79b1);
    (mixed >> (32 - FILTER_BITS)) as usize
}
