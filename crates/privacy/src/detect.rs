//! Finds secrets and personal data in a text: the passes, and what becomes of their findings.
//!
//! One pass marks where keywords and token prefixes stand, one walks digits, `@` and `:`, one the
//! words for configured names, one the encoded blobs, whose plain text goes through all but the
//! last again. Each looks exactly at what its prefilter marked.
//!
//! Always: findings are sorted, never overlap, and never cut a character; the work is linear in
//! the text. Never: a value kept.

use crate::address;
use crate::decode;
use crate::email;
use crate::error::PrivacyError;
use crate::fingerprint::{FingerprintKey, Fingerprints, SECRET_BYTES_MIN, limit};
use crate::kind::{Confidence, Finding, Kind, Kinds};
use crate::marks::{Context, Marks};
use crate::names::Names;
use crate::numbers;
use crate::tokens;
use serde::{Deserialize, Serialize};

/// Most configured names.
pub const NAMES_MAX: usize = 20_000;
/// Longest configured name, in bytes.
pub const NAME_BYTES_MAX: usize = 256;
/// Most canaries.
pub const CANARIES_MAX: usize = 1_024;
/// Shortest canary, in bytes.
pub const CANARY_BYTES_MIN: usize = SECRET_BYTES_MIN;
/// Longest canary, in bytes.
pub const CANARY_BYTES_MAX: usize = 1 << 10;

/// The name of all canaries among the fingerprints. A secret called so is reported as a canary.
const CANARY: &str = "\0canary";

/// What a detector looks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DetectorConfig {
    /// The kinds that are reported. Secrets of the vault and canaries always are.
    pub kinds: Kinds,
    /// Names of people, products or customers. They match whole words in any case, with accents
    /// composed or not, over any white space.
    #[serde(default)]
    pub names: Vec<String>,
    /// Values that must never travel, found as they are and in every common encoding.
    #[serde(default)]
    pub canaries: Vec<String>,
}

impl Default for DetectorConfig {
    /// Every kind, no names, no canaries.
    fn default() -> Self {
        Self { kinds: Kinds::all(), names: Vec::new(), canaries: Vec::new() }
    }
}

/// Finds what it was configured for.
#[derive(Debug, Clone)]
pub struct Detector {
    kinds: Kinds,
    marks: Marks,
    names: Names,
    /// Of the vault's secrets and of the canaries.
    prints: Option<Fingerprints>,
}

impl Detector {
    /// A detector for a configuration and the secrets of the vault.
    ///
    /// # Errors
    /// BP-PRIVACY-002 when a list or an entry is over its limit, BP-PRIVACY-006 for an entry that
    /// could not be recognised.
    pub fn new(
        config: &DetectorConfig,
        prints: Option<Fingerprints>,
    ) -> Result<Self, PrivacyError> {
        Ok(Self {
            kinds: config.kinds.with(Kind::Secret).with(Kind::Canary).with(Kind::Pseudonym),
            marks: Marks::new(),
            names: names(&config.names)?,
            prints: with_canaries(&config.canaries, prints)?,
        })
    }

    /// Every finding, in order; none overlap.
    #[must_use]
    pub fn find(&self, text: &str) -> Vec<Finding> {
        let mut found = self.find_plain(text);
        decode::find(text, |plain| self.find_plain(plain), &mut found);
        united(found)
    }

    /// The values of the vault and the canaries that stand in some bytes, however they are cut into
    /// fields: whether each is a canary, and its name.
    #[must_use]
    pub fn exact(&self, bytes: &[u8]) -> Vec<(Kind, String)> {
        let hits = self.prints.iter().flat_map(|prints| prints.find(bytes));
        let named = hits.map(|hit| match hit.secret.as_str() {
            CANARY => (Kind::Canary, String::new()),
            _ => (Kind::Secret, hit.secret),
        });
        named.collect()
    }

    /// What is there without decoding anything.
    fn find_plain(&self, text: &str) -> Vec<Finding> {
        let mut found = Found::new(self.kinds);
        self.find_exact(text, &mut found);
        let marked = self.marks.read(text.as_bytes());
        tokens::find(text, &marked, &mut found);
        let mut context = marked.context();
        context.not_email = tokens::url_at_signs(text, &marked);
        walk(text, &context, &mut found);
        if self.kinds.has(Kind::Name) {
            self.names.find(text, &mut found);
        }
        found.all
    }

    fn find_exact(&self, text: &str, found: &mut Found) {
        let place = |offset: u64| usize::try_from(offset).expect("it is inside a text");
        let hits = self.prints.iter().flat_map(|prints| prints.find(text.as_bytes()));
        for hit in hits {
            let (start, end) = widened(text, place(hit.start), place(hit.end));
            let canary = hit.secret == CANARY;
            let kind = if canary { Kind::Canary } else { Kind::Secret };
            let secret = (!canary).then_some(hit.secret);
            let confidence = Confidence::Certain;
            found.all.push(Finding { start, end, kind, confidence, secret, encoded: false });
        }
    }
}

/// What the passes of one text have found.
pub(crate) struct Found {
    kinds: Kinds,
    pub(crate) all: Vec<Finding>,
}

impl Found {
    pub(crate) const fn new(kinds: Kinds) -> Self {
        Self { kinds, all: Vec::new() }
    }

    /// Adds a finding, if its kind is looked for.
    pub(crate) fn add(&mut self, start: usize, end: usize, kind: Kind, confidence: Confidence) {
        if self.kinds.has(kind) {
            self.all.push(Finding { start, end, kind, confidence, secret: None, encoded: false });
        }
    }
}

/// Digits, `@` and `:`, each handed to those who know them.
fn walk(text: &str, context: &Context, found: &mut Found) {
    let bytes = text.as_bytes();
    let mut numbers = numbers::Walk::new(text, context);
    let (mut at, mut colons_end) = (0, 0);
    while at < bytes.len() {
        at = match bytes[at] {
            b'0'..=b'9' => numbers.word(at, found),
            b'@' => {
                email::find(text, at, context, found);
                at + 1
            }
            b':' if at >= colons_end => {
                colons_end = address::colons(text, at, found);
                at + 1
            }
            _ => at + 1,
        };
    }
}

/// The findings sorted, overlapping ones united under the kind that takes precedence.
pub(crate) fn united(mut all: Vec<Finding>) -> Vec<Finding> {
    all.sort_by_key(|f| (f.start, std::cmp::Reverse(f.end), f.kind));
    let mut united: Vec<Finding> = Vec::with_capacity(all.len());
    for finding in all {
        match united.last_mut() {
            Some(last) if finding.start < last.end => {
                let end = last.end.max(finding.end);
                let (start, encoded) = (last.start, last.encoded | finding.encoded);
                if finding.kind < last.kind {
                    *last = finding;
                } else if finding.kind == last.kind {
                    last.confidence = last.confidence.max(finding.confidence);
                }
                (last.start, last.end, last.encoded) = (start, end, encoded);
            }
            _ => united.push(finding),
        }
    }
    united
}

/// The stretch without a character cut at its ends.
fn widened(text: &str, mut start: usize, mut end: usize) -> (usize, usize) {
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    (start, end)
}

fn names(names: &[String]) -> Result<Names, PrivacyError> {
    limit("the number of names", names.len(), NAMES_MAX)?;
    for name in names {
        limit("a name, in bytes", name.len(), NAME_BYTES_MAX)?;
    }
    Names::new(names)
}

/// The fingerprints with those of the canaries, which are no secrets: without a vault, neither is
/// their key.
fn with_canaries(
    canaries: &[String],
    prints: Option<Fingerprints>,
) -> Result<Option<Fingerprints>, PrivacyError> {
    limit("the number of canaries", canaries.len(), CANARIES_MAX)?;
    let prints = prints.unwrap_or_else(|| Fingerprints::none(&FingerprintKey::new([0; 32])));
    let key = prints.key().clone();
    let mut all = vec![prints];
    for canary in canaries {
        limit("a canary, in bytes", canary.len(), CANARY_BYTES_MAX)?;
        let print = Fingerprints::of(CANARY, canary.as_bytes(), &key);
        let (what, reason) = ("a canary", "it is shorter than 6 bytes");
        all.push(print.map_err(|_| PrivacyError::BadConfig { what, reason })?);
    }
    Fingerprints::all(all).map(|prints| Some(prints).filter(|prints| !prints.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded as _;

    fn code(names: Vec<String>, canaries: Vec<String>) -> &'static str {
        let config = DetectorConfig { names, canaries, ..DetectorConfig::default() };
        Detector::new(&config, None).map_or_else(|error| error.code(), |_| "none")
    }

    #[test]
    fn lists_and_entries_have_limits() {
        let many = |n: usize, length: usize| vec!["x".repeat(length); n];
        assert_eq!(code(many(NAMES_MAX, 3), Vec::new()), "none");
        assert_eq!(code(many(NAMES_MAX + 1, 3), Vec::new()), "BP-PRIVACY-002");
        assert_eq!(code(many(1, NAME_BYTES_MAX), Vec::new()), "none");
        assert_eq!(code(many(1, NAME_BYTES_MAX + 1), Vec::new()), "BP-PRIVACY-002");
        assert_eq!(code(Vec::new(), many(CANARIES_MAX + 1, 8)), "BP-PRIVACY-002");
        assert_eq!(code(Vec::new(), many(1, CANARY_BYTES_MAX)), "none");
        assert_eq!(code(Vec::new(), many(1, CANARY_BYTES_MAX + 1)), "BP-PRIVACY-002");
        assert_eq!(code(Vec::new(), many(1, CANARY_BYTES_MIN - 1)), "BP-PRIVACY-006");
        for name in ["", "...", "x", "a b c d e f g h i"] {
            assert_eq!(code(vec![name.to_owned()], Vec::new()), "BP-PRIVACY-006", "{name}");
        }
    }

    #[test]
    fn only_kinds_that_are_configured_are_reported() {
        let config =
            DetectorConfig { kinds: Kinds::NONE.with(Kind::Email), ..DetectorConfig::default() };
        let found = Detector::new(&config, None).unwrap().find("a@b.example +4915112345678");
        assert_eq!(found.iter().map(|f| f.kind).collect::<Vec<_>>(), [Kind::Email]);
    }

    #[test]
    fn overlapping_findings_are_one_of_the_first_kind() {
        let of = |start, end, kind| {
            let confidence = Confidence::Certain;
            Finding { start, end, kind, confidence, secret: None, encoded: false }
        };
        let all = vec![
            of(8, 12, Kind::Secret),
            of(0, 4, Kind::Name),
            of(3, 9, Kind::Email),
            of(12, 13, Kind::Name),
        ];
        assert_eq!(united(all), [of(0, 12, Kind::Secret), of(12, 13, Kind::Name)]);
    }
}
