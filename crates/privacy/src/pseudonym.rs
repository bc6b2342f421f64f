//! The pseudonyms of one run: what stands for what.
//!
//! Always: one value has one pseudonym for the whole run; `restore` of what `replace` returned is
//! the text that was given, byte for byte, or `replace` refuses. Text in the shape of a pseudonym
//! that was there before is a finding itself and gets a pseudonym of its own, so nothing a page or
//! a model forges is restored to a value. Never: a value in `Debug`; a key of an object changed.
//!
//! Keep *restored* texts in the history of a conversation: the next request replaces them by the
//! same pseudonyms again.

use crate::detect::Detector;
use crate::encode;
use crate::error::PrivacyError;
use crate::kind::{Confidence, Finding, Kind, Kinds};
use crate::shape::{self, Match};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Most values that one run can have pseudonyms for.
pub const VALUES_MAX: usize = 16_384;
/// Most bytes of all values of a run together.
pub const VALUES_BYTES_MAX: usize = 8 << 20;
/// Deepest nesting of a JSON value that is walked.
pub const DEPTH_MAX: usize = 128;
/// Attempts to find a tail that is free; even the second is never needed in practice.
const TAILS_MAX: u8 = 16;

/// A value that has a pseudonym.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) value: String,
    /// Whether the value was an integer in JSON.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    integer: bool,
    pseudonym: String,
}

/// The mapping of one run. It serialises with all values in it: the caller encrypts it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Pseudonyms {
    seed: [u8; 32],
    entries: Vec<Entry>,
    by_value: BTreeMap<(bool, String), usize>,
    by_pseudonym: BTreeMap<String, usize>,
    bytes: usize,
    /// Entries that were added or changed since they were last written down.
    unsaved: BTreeSet<usize>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    seed: [u8; 32],
    entries: Vec<Entry>,
}

/// What [`Pseudonyms::replace_value`] found in one string or number of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundIn {
    /// JSON pointer to the string or number; for a key, to what it stands before.
    pub pointer: String,
    /// Whether it is in the key, which is left as it was. The caller decides what that means.
    pub in_key: bool,
    /// Offsets count in the original string, or in the decimal digits of the number.
    pub finding: Finding,
}

impl Pseudonyms {
    /// No pseudonym yet. The seed is 32 unpredictable bytes, another for every run.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Self {
        let (entries, by_value, by_pseudonym) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        Self { seed, entries, by_value, by_pseudonym, bytes: 0, unsaved: BTreeSet::new() }
    }

    /// What was added or changed since the last call, as one line to be kept beside the ones before
    /// it; none when nothing was. It holds values: the caller encrypts it.
    pub fn take_unsaved(&mut self) -> Option<Vec<u8>> {
        let unsaved = std::mem::take(&mut self.unsaved);
        if unsaved.is_empty() {
            return None;
        }
        let entries = unsaved.into_iter().map(|at| self.entries[at].clone()).collect();
        let stored = Stored { seed: self.seed, entries };
        let mut line = serde_json::to_vec(&stored).expect("a mapping is plain data");
        line.push(b'\n');
        Some(line)
    }

    /// The mapping that was written down in these lines, in their order; a new one with this seed
    /// when there are none.
    ///
    /// # Errors
    /// BP-PRIVACY-005 when the lines are not of one mapping.
    pub fn from_lines(lines: &[u8], seed: [u8; 32]) -> Result<Self, PrivacyError> {
        let bad = |reason| PrivacyError::BadStored { what: "mapping", reason };
        let mut lines = lines.split(|b| *b == b'\n').filter(|line| !line.is_empty()).map(|line| {
            serde_json::from_slice::<Stored>(line).map_err(|_| bad("a line is not readable"))
        });
        let mut all = match lines.next() {
            Some(first) => first?,
            None => return Ok(Self::new(seed)),
        };
        let mut at: BTreeMap<String, usize> = BTreeMap::new();
        at.extend(all.entries.iter().enumerate().map(|(at, e)| (e.pseudonym.clone(), at)));
        for line in lines {
            let line = line?;
            if line.seed != all.seed {
                return Err(bad("its lines are of different runs"));
            }
            for entry in line.entries {
                match at.get(&entry.pseudonym) {
                    Some(known) => all.entries[*known].kind = entry.kind,
                    None => {
                        at.insert(entry.pseudonym.clone(), all.entries.len());
                        all.entries.push(entry);
                    }
                }
            }
        }
        Self::try_from(all)
    }

    /// How many values have a pseudonym.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no value has a pseudonym.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The text with a pseudonym for each finding, and the findings with their places in the
    /// original.
    ///
    /// # Errors
    /// BP-PRIVACY-003 when the mapping is full, BP-PRIVACY-004 when the result would not restore
    /// exactly. Nothing may be sent then.
    pub fn replace(
        &mut self,
        text: &str,
        detector: &Detector,
    ) -> Result<(String, Vec<Finding>), PrivacyError> {
        let findings = with_look_alikes(text, detector.find(text));
        if findings.is_empty() {
            return Ok((text.to_owned(), findings));
        }
        let (mut out, mut at) = (String::with_capacity(text.len() + 64), 0);
        for finding in &findings {
            out += &text[at..finding.start];
            out += self.of(finding.kind, &text[finding.start..finding.end], false)?;
            at = finding.end;
        }
        out += &text[at..];
        if self.restore(&out, Kinds::all()) != text {
            return Err(PrivacyError::NotRestorable);
        }
        Ok((out, findings))
    }

    /// The text with the values of permitted kinds back in their places. Others stay pseudonyms.
    #[must_use]
    pub fn restore(&self, text: &str, permitted: Kinds) -> String {
        let mut out = String::with_capacity(text.len());
        let into = (&mut out, &mut Kinds::NONE.clone());
        let taken = self.restore_into(text, permitted, Form::Text, true, into);
        assert_eq!(taken, text.len(), "the last part of a text is never held back");
        out
    }

    /// Replaces in every string and integer of a JSON value; keys stay as they are, and what was
    /// found in them is marked `in_key`.
    ///
    /// # Errors
    /// As [`Pseudonyms::replace`], and BP-PRIVACY-002 beyond [`DEPTH_MAX`]. The value is then
    /// partly replaced and may not be sent.
    pub fn replace_value(
        &mut self,
        value: &mut Value,
        detector: &Detector,
    ) -> Result<Vec<FoundIn>, PrivacyError> {
        let mut walk = Walk { detector, pointer: String::new(), found: Vec::new() };
        walk.replace(self, value, 0)?;
        Ok(walk.found)
    }

    /// Restores in every string and integer of a JSON value.
    ///
    /// # Errors
    /// BP-PRIVACY-002 beyond [`DEPTH_MAX`].
    pub fn restore_value(&self, value: &mut Value, permitted: Kinds) -> Result<(), PrivacyError> {
        self.restore_deep(value, permitted, 0)
    }

    fn restore_deep(
        &self,
        value: &mut Value,
        permitted: Kinds,
        depth: usize,
    ) -> Result<(), PrivacyError> {
        within_depth(depth)?;
        match value {
            Value::String(text) => *text = self.restore(text, permitted),
            Value::Number(number) => {
                let known = number.as_u64().and_then(|n| self.permitted(&n.to_string(), permitted));
                if let Some(integer) = known.and_then(|e| e.value.parse::<u64>().ok()) {
                    *number = integer.into();
                }
            }
            Value::Array(items) => {
                for item in items {
                    self.restore_deep(item, permitted, depth + 1)?;
                }
            }
            Value::Object(fields) => {
                for (_, field) in fields.iter_mut() {
                    self.restore_deep(field, permitted, depth + 1)?;
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        Ok(())
    }

    /// Restores what it can tell for sure, and returns how many bytes of `text` that took. When
    /// `last`, that is all of them.
    pub(crate) fn restore_into(
        &self,
        text: &str,
        permitted: Kinds,
        form: Form,
        last: bool,
        (out, seen): (&mut String, &mut Kinds),
    ) -> usize {
        let bytes = text.as_bytes();
        let (mut copied, mut at) = (0, shape::next_start(bytes, 0));
        while at < bytes.len() {
            match shape::match_at(&bytes[at..]) {
                Match::Partial if !last => break,
                Match::Whole(length) => {
                    if let Some(entry) = self.permitted(&text[at..at + length], permitted) {
                        *out += &text[copied..at];
                        form.push(&entry.value, out);
                        *seen = seen.with(entry.kind);
                        copied = at + length;
                        at = shape::next_start(bytes, copied);
                        continue;
                    }
                }
                Match::Partial | Match::No => {}
            }
            at = shape::next_start(bytes, at + 1);
        }
        // A pseudonym starts with ASCII, so `at` is never inside a character here.
        *out += &text[copied..at];
        at
    }

    /// What a pseudonym stands for, if that may be restored. One that stands for a look-alike
    /// always may.
    pub(crate) fn permitted(&self, pseudonym: &str, permitted: Kinds) -> Option<&Entry> {
        let entry = &self.entries[*self.by_pseudonym.get(pseudonym)?];
        (entry.kind == Kind::Pseudonym || permitted.has(entry.kind)).then_some(entry)
    }

    /// The pseudonym of a value, a new one if need be.
    pub(crate) fn of(
        &mut self,
        kind: Kind,
        value: &str,
        integer: bool,
    ) -> Result<&str, PrivacyError> {
        let known = self.by_value.get(&(integer, value.to_owned())).copied();
        let at = match known {
            Some(at) => at,
            None => self.add(kind, value, integer)?,
        };
        // Found as two kinds, a value is guarded as the one that takes precedence.
        let entry = &mut self.entries[at];
        if kind < entry.kind {
            entry.kind = kind;
            self.unsaved.insert(at);
        }
        Ok(&self.entries[at].pseudonym)
    }

    fn add(&mut self, kind: Kind, value: &str, integer: bool) -> Result<usize, PrivacyError> {
        let full = |what, limit| Err(PrivacyError::MappingFull { what, limit });
        if self.entries.len() >= VALUES_MAX {
            return full("the number of values", VALUES_MAX);
        }
        if self.bytes + value.len() > VALUES_BYTES_MAX {
            return full("the bytes of all values", VALUES_BYTES_MAX);
        }
        let tails = (0..TAILS_MAX).map(|attempt| self.candidate(kind, value, integer, attempt));
        let free = tails.into_iter().find(|text| !self.by_pseudonym.contains_key(text));
        let pseudonym = free.ok_or(PrivacyError::NotRestorable)?;
        let value = value.to_owned();
        self.insert(Entry { kind, value, integer, pseudonym });
        let at = self.entries.len() - 1;
        self.unsaved.insert(at);
        Ok(at)
    }

    fn candidate(&self, kind: Kind, value: &str, integer: bool, attempt: u8) -> String {
        let keyed = Sha256::new_with_prefix(b"bedplate pseudonym").chain_update(self.seed);
        let inner = keyed.clone().chain_update([attempt, u8::from(integer)]).chain_update(value);
        let outer = keyed.chain_update(inner.finalize());
        shape::write(kind, integer, &outer.finalize().into())
    }

    fn insert(&mut self, entry: Entry) {
        let at = self.entries.len();
        self.bytes += entry.value.len();
        self.by_value.insert((entry.integer, entry.value.clone()), at);
        self.by_pseudonym.insert(entry.pseudonym.clone(), at);
        self.entries.push(entry);
        assert_eq!(self.entries.len(), self.by_pseudonym.len(), "pseudonyms differ");
    }
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pseudonyms").field("values", &self.len()).finish_non_exhaustive()
    }
}

impl From<Pseudonyms> for Stored {
    fn from(pseudonyms: Pseudonyms) -> Self {
        Self { seed: pseudonyms.seed, entries: pseudonyms.entries }
    }
}

impl TryFrom<Stored> for Pseudonyms {
    type Error = PrivacyError;

    fn try_from(stored: Stored) -> Result<Self, PrivacyError> {
        let bad = |reason| PrivacyError::BadStored { what: "mapping", reason };
        let mut pseudonyms = Self::new(stored.seed);
        for entry in stored.entries {
            let text = entry.pseudonym.as_bytes();
            if shape::match_at(text) != Match::Whole(text.len()) {
                return Err(bad("a pseudonym has not the shape of one"));
            }
            let key = (entry.integer, entry.value.clone());
            let twice = pseudonyms.by_pseudonym.contains_key(&entry.pseudonym)
                || pseudonyms.by_value.contains_key(&key);
            if twice {
                return Err(bad("a value or a pseudonym is there twice"));
            }
            let bytes = pseudonyms.bytes + entry.value.len();
            if pseudonyms.len() >= VALUES_MAX || bytes > VALUES_BYTES_MAX {
                return Err(bad("it is over its limits"));
            }
            pseudonyms.insert(entry);
        }
        Ok(pseudonyms)
    }
}

/// Where a restored value is put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Plain text: the value as it is.
    Text,
    /// The text of a JSON document: the value escaped as the inside of a string.
    Json,
}

impl Form {
    fn push(self, value: &str, out: &mut String) {
        match self {
            Self::Text => *out += value,
            Self::Json => *out += &encode::json(value, false, false),
        }
    }
}

/// A walk through a JSON value.
struct Walk<'a> {
    detector: &'a Detector,
    pointer: String,
    found: Vec<FoundIn>,
}

impl Walk<'_> {
    fn replace(
        &mut self,
        pseudonyms: &mut Pseudonyms,
        value: &mut Value,
        depth: usize,
    ) -> Result<(), PrivacyError> {
        within_depth(depth)?;
        match value {
            Value::String(text) => {
                let (replaced, findings) = pseudonyms.replace(text, self.detector)?;
                *text = replaced;
                self.add(findings, false);
            }
            Value::Number(number) => {
                let Some(digits) = number.as_u64().map(|n| n.to_string()) else { return Ok(()) };
                let whole = |f: &&Finding| f.start == 0 && f.end == digits.len();
                let findings = with_look_alikes(&digits, self.detector.find(&digits));
                if let Some(finding) = findings.iter().find(whole) {
                    let integer = pseudonyms.of(finding.kind, &digits, true)?;
                    let integer = integer.parse::<u64>().expect("its shape is 16 digits");
                    *number = integer.into();
                    self.add(vec![finding.clone()], false);
                }
            }
            Value::Array(items) => {
                for (at, item) in items.iter_mut().enumerate() {
                    self.below(&at.to_string(), |walk| walk.replace(pseudonyms, item, depth + 1))?;
                }
            }
            Value::Object(fields) => {
                for (key, field) in fields.iter_mut() {
                    let step = key.replace('~', "~0").replace('/', "~1");
                    self.below(&step, |walk| {
                        walk.add(walk.detector.find(key), true);
                        walk.replace(pseudonyms, field, depth + 1)
                    })?;
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
        Ok(())
    }

    fn below<T>(&mut self, step: &str, walk: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer += step;
        let result = walk(self);
        self.pointer.truncate(length);
        result
    }

    fn add(&mut self, findings: Vec<Finding>, in_key: bool) {
        let pointer = &self.pointer;
        let found = findings.into_iter();
        self.found.extend(found.map(|finding| FoundIn {
            pointer: pointer.clone(),
            in_key,
            finding,
        }));
    }
}

pub(crate) fn within_depth(depth: usize) -> Result<(), PrivacyError> {
    crate::fingerprint::limit("the nesting of a JSON value", depth, DEPTH_MAX)
}

/// The findings, and every stretch in the shape of a pseudonym. What was found wholly inside one is
/// that shape and nothing else, unless it is a secret; where both overlap otherwise, the union is
/// one finding of the other kind.
pub(crate) fn with_look_alikes(text: &str, findings: Vec<Finding>) -> Vec<Finding> {
    let (bytes, mut alike, mut at) = (text.as_bytes(), Vec::new(), 0);
    loop {
        at = shape::next_start(bytes, at);
        if at == bytes.len() {
            break;
        }
        match shape::match_at(&bytes[at..]) {
            Match::Whole(length) => {
                let (start, end, kind) = (at, at + length, Kind::Pseudonym);
                let confidence = Confidence::Certain;
                alike.push(Finding { start, end, kind, confidence, secret: None, encoded: false });
                at = end;
            }
            Match::No | Match::Partial => at += 1,
        }
    }
    if alike.is_empty() {
        return findings;
    }
    let inside = |f: &Finding| {
        let before = alike.partition_point(|a: &Finding| a.start <= f.start);
        before > 0 && alike[before - 1].end >= f.end
    };
    let mut all: Vec<_> =
        findings.into_iter().filter(|f| f.kind.is_secret() || !inside(f)).collect();
    all.extend(alike);
    crate::detect::united(all)
}
