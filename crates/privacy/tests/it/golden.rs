//! What is found in the corpus, and what is not: recall and precision of every kind.

use crate::{cases, maker};
use privacy::{Kind, Pseudonyms};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

const CASES_MIN: usize = 2_000;

/// What is reached on this corpus, in percent, rounded down: recall and precision. A kind that is
/// not named must reach 100 and 100.
const FLOORS: &[(Kind, u32, u32)] =
    &[(Kind::Card, 100, 97), (Kind::NlBsn, 100, 96), (Kind::Phone, 100, 98)];

#[derive(Default)]
struct Score {
    expected: usize,
    found: usize,
    exact: usize,
    reported: usize,
    right: usize,
}

fn percent(part: usize, whole: usize) -> f64 {
    if whole == 0 { 100.0 } else { part as f64 * 100.0 / whole as f64 }
}

#[test]
fn the_generated_corpus_is_what_its_generator_makes() {
    let stored = fs::read_to_string(cases::folder().join("generated.txt")).unwrap();
    let body: String =
        stored.lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
    assert!(body == maker::cases(), "run `cargo run -p bedplate-privacy --example corpus`");
}

#[test]
fn the_corpus_is_large_and_mixed() {
    let all = cases::all();
    let negatives = all.iter().filter(|c| c.expected.is_empty()).count();
    let languages: BTreeSet<_> = all.iter().map(|c| &c.language).collect();
    let formats: BTreeSet<_> = all.iter().map(|c| &c.format).collect();
    assert!(all.len() >= CASES_MIN, "{} cases", all.len());
    assert!(negatives * 3 >= all.len(), "{negatives} hard negatives of {}", all.len());
    assert!(languages.len() >= 15 && formats.len() >= 8, "{languages:?} {formats:?}");
}

#[test]
fn recall_and_precision_of_every_kind_reach_their_floors() {
    let detector = cases::detector();
    let mut scores: BTreeMap<Kind, Score> = BTreeMap::new();
    let mut wrong = Vec::new();
    for case in cases::all() {
        let found = detector.find(&case.text);
        for (kind, start, end) in &case.expected {
            let score = scores.entry(*kind).or_default();
            score.expected += 1;
            let covering =
                found.iter().find(|f| f.kind == *kind && f.start <= *start && f.end >= *end);
            match covering {
                Some(f) => {
                    score.found += 1;
                    score.exact += usize::from(f.start == *start && f.end == *end);
                }
                None => wrong.push(format!(
                    "missed {kind} {:?} at {}",
                    &case.text[*start..*end],
                    case.place
                )),
            }
        }
        for finding in found {
            let score = scores.entry(finding.kind).or_default();
            score.reported += 1;
            let meant = |(kind, start, end): &(Kind, usize, usize)| {
                *kind == finding.kind && *start < finding.end && *end > finding.start
            };
            if case.expected.iter().any(meant) {
                score.right += 1;
            } else {
                let text = &case.text[finding.start..finding.end];
                wrong.push(format!("false {} {text:?} at {}", finding.kind, case.place));
            }
        }
    }
    for line in &wrong {
        println!("{line}");
    }
    let mut low = Vec::new();
    for (kind, s) in &scores {
        let (recall, precision) = (percent(s.found, s.expected), percent(s.right, s.reported));
        println!(
            "{kind:<16} recall {recall:>6.2} %  precision {precision:>6.2} %  exact bounds {:>6.2} %  of {}",
            percent(s.exact, s.expected),
            s.expected
        );
        let floor = FLOORS.iter().find(|(k, ..)| k == kind);
        let (recall_min, precision_min) = floor.map_or((100, 100), |(_, r, p)| (*r, *p));
        if recall < f64::from(recall_min) || precision < f64::from(precision_min) {
            low.push(format!("{kind}: recall {recall:.2}, precision {precision:.2}"));
        }
    }
    assert!(low.is_empty(), "under the floor: {low:#?}");
}

#[test]
fn no_value_of_the_vault_and_no_canary_goes_upstream() {
    let (detector, mut pseudonyms) = (cases::detector(), Pseudonyms::new([3; 32]));
    let mut guarded = 0;
    for case in cases::all() {
        let (sent, _) = pseudonyms.replace(&case.text, &detector).unwrap();
        for value in maker::VAULT.iter().chain(&maker::CANARIES) {
            assert!(!sent.contains(value), "{}: {sent}", case.place);
        }
        for (kind, start, end) in &case.expected {
            if matches!(kind, Kind::Secret | Kind::Canary) {
                guarded += 1;
                assert!(!sent.contains(&case.text[*start..*end]), "{}: {sent}", case.place);
            }
        }
    }
    assert!(guarded >= 150, "only {guarded} values of the vault and canaries are in the corpus");
}
