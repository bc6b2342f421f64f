//! Records that may be where a failure began, scored by what ties them to it.

use super::evidence::{Evidence, Kind, Node};
use super::tokens::{self, Token};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Least score that makes a suspect.
pub(super) const SCORE_MIN: f64 = 0.5;
/// What each kind of evidence adds to a suspect that shares a token at all.
const UNIT_BONUS: f64 = 4.0;
const ODD_BONUS: f64 = 3.0;
const ERROR_BONUS: f64 = 1.0;
const TOPIC_BONUS: f64 = 0.8;
/// A number of ours that is another unit's value of one of theirs.
const CONVERTED_SCORE: f64 = 1.5;
/// A token that was elsewhere before still tells a little.
const REPEATED_SHARE: f64 = 0.3;
/// Tokens that are named as the reason.
const NAMED_MAX: usize = 3;

/// A record that may be where it began.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Suspect {
    pub(super) seq: u64,
    pub(super) score: f64,
    pub(super) reasons: Vec<String>,
    /// What was there first; empty when it was found in another way.
    pub(super) brought: BTreeSet<Token>,
}

impl Suspect {
    pub(super) fn new(seq: u64, score: f64, reason: impl Into<String>) -> Self {
        Self { seq, score, reasons: vec![reason.into()], brought: BTreeSet::new() }
    }

    pub(super) fn why(&self) -> String {
        self.reasons.join("; ")
    }

    /// The same, its score no more than this: for texts in which every value is as likely.
    pub(super) fn at_most(self, score: f64) -> Self {
        Self { score: self.score.min(score), ..self }
    }
}

/// What is looked into: some tokens, from a moment on, and what it is about.
pub(super) struct Question {
    pub(super) tokens: BTreeSet<Token>,
    pub(super) before: u64,
    pub(super) topic: BTreeSet<Token>,
}

/// Best first; of equals, the earliest.
pub(super) fn sort(suspects: &mut [Suspect]) {
    suspects.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.seq.cmp(&b.seq)));
}

/// Records in which informative tokens of the question stood first, best first.
pub(super) fn by_tokens(evidence: &Evidence, question: &Question) -> Vec<Suspect> {
    let mut found: BTreeMap<u64, (f64, BTreeSet<Token>)> = BTreeMap::new();
    for token in &question.tokens {
        let weight = evidence.weight(token);
        if weight <= 0.0 {
            continue;
        }
        let holds = |node: &&Node| {
            node.seq < question.before && node.kind != Kind::Given && node.tokens.contains(token)
        };
        for (index, node) in evidence.nodes.iter().filter(holds).enumerate() {
            let entry = found.entry(node.seq).or_default();
            if index == 0 {
                entry.0 += weight;
                entry.1.insert(token.clone());
            } else {
                entry.0 += weight * REPEATED_SHARE;
            }
        }
    }
    let mut suspects: Vec<Suspect> = found
        .into_iter()
        .filter(|(_, (score, brought))| *score >= SCORE_MIN && !brought.is_empty())
        .map(|(seq, (score, brought))| of_tokens(evidence, seq, score, brought))
        .collect();
    sort(&mut suspects);
    suspects
}

fn of_tokens(evidence: &Evidence, seq: u64, score: f64, brought: BTreeSet<Token>) -> Suspect {
    let mut telling: Vec<&Token> = brought.iter().collect();
    telling.sort_by(|a, b| evidence.weight(b).total_cmp(&evidence.weight(a)));
    let named: Vec<&str> = telling.iter().take(NAMED_MAX).map(|token| token.text()).collect();
    let reason = format!("{} was there first", named.join(", "));
    Suspect { brought, ..Suspect::new(seq, score, reason) }
}

/// Adds what speaks against an outcome beside the values it brought.
pub(super) fn weigh(evidence: &Evidence, suspect: Suspect, topic: &BTreeSet<Token>) -> Suspect {
    let mut suspect = suspect;
    let Some(node) = evidence.node(suspect.seq) else {
        return suspect;
    };
    let Kind::Outcome { tool, is_error, .. } = &node.kind else {
        return suspect;
    };
    #[expect(clippy::cast_precision_loss, reason = "a handful of words")]
    let topical = node.tokens.intersection(topic).count() as f64;
    suspect.score += TOPIC_BONUS * topical;
    if *is_error {
        suspect.score += ERROR_BONUS;
        suspect.reasons.push("it had failed".to_owned());
    }
    if let Some(reason) = unit_mismatch(evidence, node) {
        suspect.score += UNIT_BONUS;
        suspect.reasons.push(reason);
    }
    if let Some(reason) = odd_one_out(evidence, node, tool) {
        suspect.score += ODD_BONUS;
        suspect.reasons.push(reason);
    }
    suspect
}

/// Outcomes of which one of these numbers is another unit's value.
pub(super) fn converted(evidence: &Evidence, numbers: &[f64], before: u64) -> Vec<Suspect> {
    let outcomes = evidence.nodes.iter().filter(|node| node.seq < before && node.is_outcome());
    outcomes
        .filter_map(|node| {
            let telling = node.tokens.iter().filter(|token| token.weight() >= 1.0);
            let mut pairs = telling.filter_map(Token::value).flat_map(|theirs| {
                numbers
                    .iter()
                    .filter_map(move |mine| Some((*mine, theirs, tokens::relation(*mine, theirs)?)))
            });
            let (mine, theirs, name) = pairs.next()?;
            let reason = format!("{mine} is {theirs} converted ({name})");
            Some(Suspect::new(node.seq, CONVERTED_SCORE, reason))
        })
        .collect()
}

/// A result in another unit than what was asked for.
fn unit_mismatch(evidence: &Evidence, node: &Node) -> Option<String> {
    let given = evidence.nodes.iter().filter(|given| given.kind == Kind::Given);
    let asked: BTreeSet<tokens::Unit> =
        given.flat_map(|given| tokens::units(&given.text)).collect();
    let came = tokens::units(&node.text);
    came.iter().filter(|unit| !asked.contains(unit)).find_map(|unit| {
        let other = asked.iter().find(|asked| asked.0 == unit.0)?;
        let (came, asked) = (tokens::unit_name(*unit), tokens::unit_name(*other));
        Some(format!("it is in {came}, where {asked} were asked for"))
    })
}

/// A result unlike the other results of the same tool.
fn odd_one_out(evidence: &Evidence, node: &Node, tool: &str) -> Option<String> {
    let parsed = |node: &Node| serde_json::from_str::<Value>(&node.text).ok();
    let own = parsed(node)?;
    let is_sibling = |other: &&Node| {
        let good =
            matches!(&other.kind, Kind::Outcome { tool: t, is_error: false, .. } if t == tool);
        good && other.seq != node.seq
    };
    let siblings: Vec<Value> =
        evidence.nodes.iter().filter(is_sibling).filter_map(parsed).collect();
    own.as_object()?.iter().find_map(|(key, value)| odd_field(key, value, &siblings))
}

/// Why a field stands out from the same field of its siblings; `None` when it does not, or when
/// there are too few to say.
fn odd_field(key: &str, value: &Value, siblings: &[Value]) -> Option<String> {
    const SIBLINGS_MIN: usize = 2;
    const FAR: f64 = 2.5;
    let others: Vec<&Value> = siblings.iter().filter_map(|sibling| sibling.get(key)).collect();
    if others.len() < SIBLINGS_MIN {
        return None;
    }
    if let Some(text) = value.as_str() {
        let common = others[0].as_str()?;
        let all_same = others.iter().all(|other| other.as_str() == Some(common));
        return (all_same && text != common).then(|| {
            format!("its {key} is \"{text}\", and \"{common}\" in every other result of the tool")
        });
    }
    let number = value.as_f64()?;
    let mut numbers: Vec<f64> = others.iter().filter_map(|other| other.as_f64()).collect();
    numbers.sort_by(f64::total_cmp);
    let (first, last) = (*numbers.first()?, *numbers.last()?);
    let alike = numbers.len() == others.len() && first > 0.0 && last / first < FAR;
    let far = number > last * FAR || number * FAR < first;
    (alike && far).then(|| {
        format!("its {key} is {number}, and {first} to {last} in the other results of the tool")
    })
}
