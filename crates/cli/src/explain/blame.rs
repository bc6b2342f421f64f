//! Where a failure goes back to.
//!
//! ```text
//! the failing text --informative tokens--> the text they were first in
//!     an outcome of the world        -> found
//!     an outcome of the sandbox      -> the files its command used -> who wrote them
//!     an answer of the model         -> the outcome it converted, or the failure before it,
//!                                       else the model said it first
//! no informative token: the files the check reads, and the answer that wrote them
//! ```
//!
//! Candidates are scored by what they share with the failing text; units that do not fit what was
//! asked, and a result unlike its siblings, count too. The best is the root, the next are named.

use super::evidence::{Evidence, Kind, Node, plain};
use super::tokens::{self, Token};
use kernel::State;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use types::{Body, EndStatus, Item, Link, Record};

/// Longest way back, in steps.
const HOPS_MAX: usize = 8;
/// Other candidates that are named.
const OTHERS_MAX: usize = 2;
/// Least score that makes a candidate.
const SCORE_MIN: f64 = 0.5;
/// What each kind of evidence adds to a candidate that shares a token at all.
const UNIT_BONUS: f64 = 4.0;
const ODD_BONUS: f64 = 3.0;
const ERROR_BONUS: f64 = 1.0;
const TOPIC_BONUS: f64 = 0.8;
const CONVERTED_SCORE: f64 = 1.5;
/// A token that was elsewhere before still tells a little.
const REPEATED_SHARE: f64 = 0.3;

/// Where something goes back to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// The record that is explained.
    pub(crate) of: u64,
    /// What it is.
    pub(crate) what: String,
    /// The record it goes back to.
    pub(crate) root: u64,
    /// Why that one.
    pub(crate) because: String,
    /// The way from `of` back to `root`.
    pub(crate) chain: Vec<Hop>,
    /// Tool results the model had before it when it took the turn that failed.
    pub(crate) context: Vec<u64>,
    /// The next best candidates.
    pub(crate) others: Vec<Hop>,
}

/// A step of the way back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Hop {
    pub(crate) seq: u64,
    pub(crate) why: String,
}

/// A record that may be where it began.
#[derive(Debug, Clone, PartialEq)]
struct Candidate {
    seq: u64,
    score: f64,
    reasons: Vec<String>,
}

/// What is looked into: a text, from a moment on, and what it is about.
struct Question {
    tokens: BTreeSet<Token>,
    before: u64,
    topic: BTreeSet<Token>,
}

/// Explains `at`, or else why the run failed; `None` when nothing did.
pub(super) fn find(records: &[Record], state: &State, at: Option<u64>) -> Option<Finding> {
    let target = match at {
        Some(seq) => records.iter().find(|record| record.stamp.seq == seq)?,
        None => failure(records)?,
    };
    let evidence = Evidence::of(records, state);
    let mut search = Search {
        records,
        state,
        evidence: &evidence,
        chain: Vec::new(),
    };
    Some(search.explain(target))
}

/// The record that says why the run failed, if it did.
fn failure(records: &[Record]) -> Option<&Record> {
    let ended = records
        .iter()
        .rev()
        .find(|r| matches!(r.body, Body::RunEnded { .. }));
    if let Some(record) = ended
        && let Body::RunEnded { status, .. } = &record.body
    {
        if *status != EndStatus::Failed {
            return None;
        }
        let before = records
            .iter()
            .rev()
            .skip_while(|r| r.stamp.seq >= record.stamp.seq);
        let since_answer =
            before.take_while(|r| !matches!(r.body, Body::ModelAnswered { error: None, .. }));
        let failed = since_answer.filter(|r| {
            matches!(
                &r.body,
                Body::CheckFailed { .. } | Body::ModelAnswered { error: Some(_), .. }
            )
        });
        return Some(failed.last().unwrap_or(record));
    }
    records.iter().rev().find(|r| match &r.body {
        Body::Suspended { failure, .. } => failure.is_some(),
        Body::ActionInDoubt { .. } => true,
        _ => false,
    })
}

struct Search<'a> {
    records: &'a [Record],
    state: &'a State,
    evidence: &'a Evidence,
    chain: Vec<Hop>,
}

impl Search<'_> {
    fn explain(&mut self, target: &Record) -> Finding {
        let of = target.stamp.seq;
        let what = self.describe(of);
        let question = self.question(target);
        let mut ranked = self.candidates(&question);
        if ranked.is_empty() {
            ranked = self.by_files(target, &question);
        }
        let root = match ranked.first().cloned() {
            Some(best) => self.follow(best),
            None => self.by_causes(target),
        };
        let others = ranked
            .iter()
            .filter(|c| c.seq != root.seq && !self.chain.iter().any(|hop| hop.seq == c.seq))
            .take(OTHERS_MAX)
            .map(|c| Hop {
                seq: c.seq,
                why: c.reasons.join("; "),
            })
            .collect();
        let context = self.context(&root, of);
        let mut chain = std::mem::take(&mut self.chain);
        chain.retain(|hop| hop.seq != of);
        Finding {
            of,
            what,
            root: root.seq,
            because: root.why,
            chain,
            context,
            others,
        }
    }

    fn describe(&self, seq: u64) -> String {
        let Some(record) = self.records.iter().find(|record| record.stamp.seq == seq) else {
            return String::new();
        };
        let count = usize::try_from(seq).unwrap_or(usize::MAX);
        let before = State::of(self.records.iter().take(count));
        format!(
            "{}: {}",
            record.body.kind(),
            crate::show::summary(&before, record)
        )
    }

    fn question(&self, target: &Record) -> Question {
        let before = target.stamp.seq;
        let text = self.evidence.node(before).map(|node| node.text.clone());
        let text = text.unwrap_or_else(|| match &target.body {
            Body::RunEnded { output, error, .. } => {
                let error = error.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("{output}\n{error}")
            }
            Body::ActionProposed { call_id, .. } => self
                .state
                .arguments(call_id)
                .map(|(_, a)| plain(a))
                .unwrap_or_default(),
            _ => String::new(),
        });
        let topic = self
            .check_of(target)
            .map(|(name, command)| format!("{name} {command}"));
        Question {
            tokens: tokens::tokens(&text),
            before,
            topic: tokens::tokens(&topic.unwrap_or_default()),
        }
    }

    /// The check's name and command, when the target is a check's result.
    fn check_of(&self, target: &Record) -> Option<(String, String)> {
        let (Body::CheckFailed { name, .. } | Body::CheckPassed { name, .. }) = &target.body else {
            return None;
        };
        let check = self
            .state
            .manifest()
            .checks
            .iter()
            .find(|check| check.name == *name)?;
        Some((name.clone(), check.command.clone()))
    }

    /// Records in which informative tokens of the question stood, best first.
    fn candidates(&self, question: &Question) -> Vec<Candidate> {
        let mut scores: BTreeMap<u64, (f64, Vec<&Token>)> = BTreeMap::new();
        for token in &question.tokens {
            let weight = self.evidence.weight(token);
            if weight <= 0.0 {
                continue;
            }
            let first = self
                .evidence
                .first(token, question.before)
                .map(|node| node.seq);
            let nodes = self.evidence.nodes.iter().filter(|node| {
                node.seq < question.before
                    && node.kind != Kind::Given
                    && node.tokens.contains(token)
            });
            for node in nodes {
                let share = if first == Some(node.seq) {
                    1.0
                } else {
                    REPEATED_SHARE
                };
                let entry = scores.entry(node.seq).or_default();
                entry.0 += weight * share;
                if share >= 1.0 {
                    entry.1.push(token);
                }
            }
        }
        self.rank(scores, question)
    }

    fn rank(
        &self,
        scores: BTreeMap<u64, (f64, Vec<&Token>)>,
        question: &Question,
    ) -> Vec<Candidate> {
        let mut ranked: Vec<Candidate> = scores
            .into_iter()
            .filter(|(_, (score, firsts))| *score >= SCORE_MIN && !firsts.is_empty())
            .filter_map(|(seq, (score, firsts))| {
                let node = self.evidence.node(seq)?;
                Some(self.candidate(node, score, &firsts, &question.topic))
            })
            .collect();
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.seq.cmp(&b.seq)));
        ranked
    }

    fn candidate(
        &self,
        node: &Node,
        score: f64,
        firsts: &[&Token],
        topic: &BTreeSet<Token>,
    ) -> Candidate {
        let mut firsts = firsts.to_vec();
        firsts.sort_by(|a, b| self.evidence.weight(b).total_cmp(&self.evidence.weight(a)));
        let shown: Vec<&str> = firsts.iter().take(3).map(|token| token.text()).collect();
        let mut candidate = Candidate {
            seq: node.seq,
            score,
            reasons: vec![format!("{} was there first", shown.join(", "))],
        };
        if let Kind::Outcome { tool, is_error, .. } = &node.kind {
            #[expect(clippy::cast_precision_loss, reason = "a handful of words")]
            let topical = node.tokens.intersection(topic).count() as f64;
            candidate.score += TOPIC_BONUS * topical;
            candidate.score += if *is_error { ERROR_BONUS } else { 0.0 };
            if let Some(reason) = self.unit_mismatch(node) {
                candidate.score += UNIT_BONUS;
                candidate.reasons.push(reason);
            }
            if let Some(reason) = self.odd_one_out(node, tool) {
                candidate.score += ODD_BONUS;
                candidate.reasons.push(reason);
            }
        }
        candidate
    }

    /// A result in another unit than what was asked for.
    fn unit_mismatch(&self, node: &Node) -> Option<String> {
        let given = self
            .evidence
            .nodes
            .iter()
            .filter(|given| given.kind == Kind::Given);
        let asked: BTreeSet<tokens::Unit> =
            given.flat_map(|given| tokens::units(&given.text)).collect();
        let came = tokens::units(&node.text);
        came.iter().find_map(|unit| {
            let other = asked.iter().find(|asked| asked.0 == unit.0)?;
            let fits = asked.contains(unit);
            (!fits).then(|| {
                let (came, asked) = (tokens::unit_name(*unit), tokens::unit_name(*other));
                format!("it is in {came}, where {asked} were asked for")
            })
        })
    }

    /// A result unlike the other results of the same tool.
    fn odd_one_out(&self, node: &Node, tool: &str) -> Option<String> {
        let parsed = |node: &Node| serde_json::from_str::<Value>(&node.text).ok();
        let own = parsed(node)?;
        let siblings: Vec<Value> = self
            .evidence
            .nodes
            .iter()
            .filter(|other| other.seq != node.seq)
            .filter(|other| matches!(&other.kind, Kind::Outcome { tool: t, is_error: false, .. } if t == tool))
            .filter_map(parsed)
            .collect();
        own.as_object()?
            .iter()
            .find_map(|(key, value)| odd_field(key, value, &siblings))
    }

    /// Nothing telling in the text itself: what the check reads, and the last who wrote that.
    fn by_files(&mut self, target: &Record, question: &Question) -> Vec<Candidate> {
        let before = target.stamp.seq;
        let command = self
            .check_of(target)
            .map(|(_, command)| command)
            .unwrap_or_default();
        let text = self
            .evidence
            .node(before)
            .map_or("", |node| node.text.as_str());
        let mut files = tokens::files(&command);
        files.extend(tokens::files(text));
        let Some(answer) = self.writer_of(&files, before) else {
            return Vec::new();
        };
        let named: Vec<&str> = files.iter().map(String::as_str).collect();
        let what = if named.is_empty() {
            "the workspace".to_owned()
        } else {
            named.join(", ")
        };
        self.hop(
            answer,
            format!("what it looks at ({what}) was written by this call"),
        );
        let question = Question {
            tokens: self
                .evidence
                .node(answer)
                .map(|node| node.tokens.clone())
                .unwrap_or_default(),
            before: answer,
            topic: question.topic.clone(),
        };
        let mut ranked = self.candidates(&question);
        ranked.extend(self.converted(answer, &question));
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.seq.cmp(&b.seq)));
        if ranked.is_empty() {
            let reasons = vec!["the agent wrote it on its own".to_owned()];
            ranked.push(Candidate {
                seq: answer,
                score: SCORE_MIN,
                reasons,
            });
        }
        ranked
    }

    /// The answer whose call last wrote one of the files, else last changed the workspace.
    fn writer_of(&self, files: &BTreeSet<String>, before: u64) -> Option<u64> {
        let sealed: BTreeSet<u64> = self
            .records
            .iter()
            .filter(|record| matches!(record.body, Body::LayerSealed { .. }))
            .flat_map(|record| record.causes.iter())
            .filter(|cause| cause.link == Link::ResultOf)
            .map(|cause| cause.seq)
            .collect();
        let wrote = |started: &Option<u64>| started.is_some_and(|seq| sealed.contains(&seq));
        let writers: Vec<(u64, String)> = self
            .state
            .actions
            .values()
            .filter(|action| action.id < before && wrote(&action.started))
            .filter_map(|action| {
                let (_, arguments) = self.state.arguments(&action.call_id)?;
                Some((self.answer_of(action.id)?, plain(arguments)))
            })
            .collect();
        let mentions = |text: &String| files.iter().any(|file| text.contains(file.as_str()));
        let of_file = writers.iter().rev().find(|(_, text)| mentions(text));
        of_file.or(writers.last()).map(|(seq, _)| *seq)
    }

    /// The model's answer that asked for an action.
    fn answer_of(&self, action: u64) -> Option<u64> {
        let record = self
            .records
            .iter()
            .find(|record| record.stamp.seq == action)?;
        let cause = record
            .causes
            .iter()
            .find(|cause| cause.link == Link::AskedIn)?;
        Some(cause.seq)
    }

    /// Outcomes of which a number of the answer is another unit's value.
    fn converted(&self, answer: u64, question: &Question) -> Vec<Candidate> {
        let new = question.tokens.iter().filter(|token| {
            self.evidence.weight(token) > 0.0 && self.evidence.first(token, answer).is_none()
        });
        let numbers: Vec<f64> = new.filter_map(Token::value).collect();
        let outcomes = self
            .evidence
            .nodes
            .iter()
            .filter(|n| n.seq < answer && n.is_outcome());
        outcomes
            .filter_map(|node| {
                let (mine, theirs, name) = node.tokens.iter().find_map(|token| {
                    let theirs = token.value()?;
                    let telling = token.weight() >= 1.0;
                    let found = numbers
                        .iter()
                        .find_map(|mine| Some((*mine, theirs, tokens::relation(*mine, theirs)?)));
                    found.filter(|_| telling)
                })?;
                let reason = format!("{mine} is {theirs} converted ({name})");
                let mut candidate = self.candidate(node, CONVERTED_SCORE, &[], &question.topic);
                candidate.reasons[0] = reason;
                Some(candidate)
            })
            .collect()
    }

    /// From the best candidate on back, as long as it has a better one behind it.
    fn follow(&mut self, from: Candidate) -> Hop {
        let mut current = from;
        for _ in 0..HOPS_MAX {
            let why = current.reasons.join("; ");
            let Some(node) = self.evidence.node(current.seq) else {
                break;
            };
            let next = match &node.kind {
                Kind::Outcome { outward: true, .. } | Kind::Given => None,
                Kind::Outcome { action, .. } => self.behind_outcome(*action, current.seq),
                Kind::Answer | Kind::Check => self.behind_answer(current.seq),
            };
            match next {
                Some(next) if next.seq < current.seq => {
                    self.hop(current.seq, why);
                    current = next;
                }
                _ => break,
            }
        }
        Hop {
            seq: current.seq,
            why: current.reasons.join("; "),
        }
    }

    /// Behind what a program in the sandbox printed: the file of the agent's that it ran or read.
    fn behind_outcome(&self, action: u64, seq: u64) -> Option<Candidate> {
        let call = &self.state.actions.get(&action)?.call_id;
        let (_, arguments) = self.state.arguments(call)?;
        let files = tokens::files(&plain(arguments));
        if files.is_empty() {
            return None;
        }
        let answer = self
            .writer_of(&files, action)
            .filter(|answer| *answer < seq)?;
        let text = self.evidence.node(answer)?;
        let named = files
            .iter()
            .find(|file| text.text.contains(file.as_str()))?;
        let reasons = vec![format!("this call wrote {named}, which was used there")];
        Some(Candidate {
            seq: answer,
            score: SCORE_MIN,
            reasons,
        })
    }

    /// Behind what the model said: an outcome it took over or converted, or a failure it met.
    fn behind_answer(&self, answer: u64) -> Option<Candidate> {
        let node = self.evidence.node(answer)?;
        let question = Question {
            tokens: node.tokens.clone(),
            before: answer,
            topic: BTreeSet::new(),
        };
        let mut ranked = self.candidates(&question);
        ranked.retain(|c| self.evidence.node(c.seq).is_some_and(Node::is_outcome));
        ranked.extend(self.converted(answer, &question));
        ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.seq.cmp(&b.seq)));
        ranked
            .into_iter()
            .next()
            .or_else(|| self.failed_before(answer))
    }

    /// A refusal or failure among what the model read for the first time in this answer.
    fn failed_before(&self, answer: u64) -> Option<Candidate> {
        let previous = self
            .records
            .iter()
            .filter(|r| matches!(r.body, Body::ModelAnswered { error: None, .. }))
            .map(|r| r.stamp.seq)
            .take_while(|seq| *seq < answer)
            .last()?;
        let failed = self.evidence.nodes.iter().find(|node| {
            let fresh = node.seq > previous && node.seq < answer;
            fresh && matches!(node.kind, Kind::Outcome { is_error: true, .. })
        })?;
        let reasons =
            vec!["this failed, and the agent went on with something of its own".to_owned()];
        Some(Candidate {
            seq: failed.seq,
            score: SCORE_MIN,
            reasons,
        })
    }

    /// No data to follow: the causes that the log names, to their first.
    fn by_causes(&mut self, target: &Record) -> Hop {
        let mut current = target;
        let mut why = "nothing before it has anything to do with it".to_owned();
        for _ in 0..HOPS_MAX {
            let next = current.causes.first().and_then(|cause| {
                let record = self.records.iter().find(|r| r.stamp.seq == cause.seq)?;
                Some((cause.link, record))
            });
            let Some((link, record)) = next else { break };
            why = format!("{} is {} it", current.stamp.seq, crate::show::link(link));
            self.hop(record.stamp.seq, why.clone());
            let is_answer = matches!(record.body, Body::ModelAnswered { .. });
            current = record;
            if is_answer {
                break;
            }
        }
        Hop {
            seq: current.stamp.seq,
            why,
        }
    }

    fn hop(&mut self, seq: u64, why: String) {
        if !self.chain.iter().any(|hop| hop.seq == seq) {
            self.chain.push(Hop { seq, why });
        }
    }

    /// The tool results that the model had before it when it first built on the root.
    fn context(&self, root: &Hop, of: u64) -> Vec<u64> {
        let turn = self.records.iter().find(|record| {
            let after = record.stamp.seq > root.seq && record.stamp.seq <= of;
            after && matches!(record.body, Body::ModelCalled { .. })
        });
        let Some(Body::ModelCalled { items, .. }) = turn.map(|record| &record.body) else {
            return Vec::new();
        };
        let count = usize::try_from(*items).unwrap_or(usize::MAX);
        let sent = self.state.items.iter().take(count);
        sent.filter(|placed| matches!(placed.item, Item::ToolResult { .. }))
            .map(|placed| placed.seq)
            .collect()
    }
}

/// Siblings from which a field stands out; `None` when it does not, or there are too few to say.
fn odd_field(key: &str, value: &Value, siblings: &[Value]) -> Option<String> {
    const SIBLINGS_MIN: usize = 2;
    const FAR: f64 = 2.5;
    let others: Vec<&Value> = siblings
        .iter()
        .filter_map(|sibling| sibling.get(key))
        .collect();
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
    let (first, last) = (numbers.first()?, numbers.last()?);
    let alike = numbers.len() == others.len() && *first > 0.0 && last / first < FAR;
    let far = number > last * FAR || number * FAR < *first;
    (alike && far).then(|| {
        format!("its {key} is {number}, and {first} to {last} in the other results of the tool")
    })
}
