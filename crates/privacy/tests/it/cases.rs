//! Reads the corpus: `tests/corpus/*.txt`, a case a line, in the form that `maker` describes.

use crate::maker;
use privacy::{Detector, DetectorConfig, FingerprintKey, Fingerprints, Kind};
use std::fs;
use std::path::PathBuf;

pub(crate) struct Case {
    /// File and line.
    pub(crate) place: String,
    pub(crate) language: String,
    pub(crate) format: String,
    pub(crate) text: String,
    /// What must be found, by kind and place.
    pub(crate) expected: Vec<(Kind, usize, usize)>,
}

pub(crate) fn folder() -> PathBuf {
    // Also read by tests of other crates, which stand beside this one.
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../privacy/tests/corpus")
}

pub(crate) fn all() -> Vec<Case> {
    ["generated.txt", "hand.txt"].iter().flat_map(|file| read(file)).collect()
}

fn read(file: &str) -> Vec<Case> {
    let text = fs::read_to_string(folder().join(file)).unwrap();
    let lines = text.lines().enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
    lines.map(|(at, line)| parse(&format!("{file}:{}", at + 1), line)).collect()
}

fn parse(place: &str, line: &str) -> Case {
    let mut fields = line.splitn(3, '\t');
    let mut field = || fields.next().unwrap_or_else(|| panic!("{place}: three fields")).to_owned();
    let (language, format, marked) = (field(), field(), field());
    let (mut text, mut expected, mut open) = (String::new(), Vec::new(), None);
    let mut chars = marked.chars();
    while let Some(c) = chars.next() {
        match c {
            '¦' => {}
            '⟦' => {
                let kind: String = chars.by_ref().take_while(|c| *c != ':').collect();
                open = Some((kind, text.len()));
            }
            '⟧' => {
                let (kind, start) = open.take().unwrap_or_else(|| panic!("{place}: ⟧ without ⟦"));
                let known = Kind::ALL.iter().find(|known| known.as_str() == kind);
                let kind = known.unwrap_or_else(|| panic!("{place}: no kind {kind}"));
                expected.push((*kind, start, text.len()));
            }
            '\\' => text.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('\\') => '\\',
                other => panic!("{place}: escape {other:?}"),
            }),
            c => text.push(c),
        }
    }
    assert!(open.is_none(), "{place}: ⟦ without ⟧");
    Case { place: place.to_owned(), language, format, text, expected }
}

pub(crate) fn prints() -> Fingerprints {
    let key = FingerprintKey::new([9; 32]);
    let vault = maker::VAULT.iter().enumerate();
    let prints = vault.map(|(n, v)| Fingerprints::of(&format!("vault-{n}"), v.as_bytes(), &key));
    Fingerprints::all(prints.map(Result::unwrap)).unwrap()
}

pub(crate) fn detector() -> Detector {
    let config = DetectorConfig {
        names: maker::NAMES.map(str::to_owned).to_vec(),
        canaries: maker::CANARIES.map(str::to_owned).to_vec(),
        ..DetectorConfig::default()
    };
    Detector::new(&config, Some(prints())).unwrap()
}
