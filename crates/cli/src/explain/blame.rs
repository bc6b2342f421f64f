//! Where a failure goes back to.
//!
//! ```text
//! the failing text --informative tokens--> the record they were first in
//!     an outcome of the world     -> found
//!     an outcome of the sandbox   -> the file of the agent's that its command used, if any
//!     an answer of the model      -> the outcome it converted, or the failure it passed over,
//!                                    else the model said it first: found
//! no informative token: the file the check reads, the answer that wrote it, and what that holds
//! ```
//!
//! The best suspect is followed back; the next best are named.

use super::evidence::{Evidence, Kind, Node, plain};
use super::suspects::{self, Question, SCORE_MIN, Suspect};
use super::tokens::{self, Token};
use kernel::State;
use serde::Serialize;
use std::collections::BTreeSet;
use types::{Body, EndStatus, Item, Link, Record};

/// Longest way back, in steps.
const HOPS_MAX: usize = 8;
/// Other suspects that are named.
const OTHERS_MAX: usize = 2;
/// What a value of a written file counts at most: all of them were taken from somewhere.
const TAKEN_OVER_MAX: f64 = 1.0;
/// A failure that the agent passed over before it wrote something new.
const PASSED_OVER_SCORE: f64 = 2.0;

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
    /// Tool results the model had before it when it first built on the root.
    pub(crate) context: Vec<u64>,
    /// The next best suspects.
    pub(crate) others: Vec<Hop>,
}

/// A step of the way back.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Hop {
    pub(crate) seq: u64,
    pub(crate) why: String,
}

/// Explains `at`, or else why the run failed; `None` when nothing did.
pub(super) fn find(records: &[Record], state: &State, at: Option<u64>) -> Option<Finding> {
    let target = match at {
        Some(seq) => records.iter().find(|record| record.stamp.seq == seq)?,
        None => failure(records)?,
    };
    let evidence = Evidence::of(records, state);
    let asked = BTreeSet::new();
    let mut search = Search { records, state, evidence: &evidence, asked, chain: Vec::new() };
    Some(search.explain(target))
}

/// The record that says why the run failed, if it did.
fn failure(records: &[Record]) -> Option<&Record> {
    let ended = records.iter().rev().find_map(|record| match &record.body {
        Body::RunEnded { status, .. } => Some((record, *status)),
        _ => None,
    });
    if let Some((record, status)) = ended {
        let after_answer = records
            .iter()
            .rev()
            .skip_while(|r| r.stamp.seq >= record.stamp.seq)
            .take_while(|r| !matches!(r.body, Body::ModelAnswered { error: None, .. }));
        let failed = after_answer.filter(|r| {
            matches!(&r.body, Body::CheckFailed { .. } | Body::ModelAnswered { error: Some(_), .. })
        });
        return (status == EndStatus::Failed).then(|| failed.last().unwrap_or(record));
    }
    records.iter().rev().find(|record| match &record.body {
        Body::Suspended { failure, .. } => failure.is_some(),
        Body::ActionInDoubt { .. } => true,
        _ => false,
    })
}

struct Search<'a> {
    records: &'a [Record],
    state: &'a State,
    evidence: &'a Evidence,
    /// Tokens of what is explained.
    asked: BTreeSet<Token>,
    chain: Vec<Hop>,
}

impl Search<'_> {
    fn explain(&mut self, target: &Record) -> Finding {
        let of = target.stamp.seq;
        let what = self.describe(target);
        let question = self.question(target);
        self.asked = question.tokens.clone();
        let ranked = self.ranked(target, &question);
        let root = match ranked.first().cloned() {
            Some(best) => self.follow(best),
            None => self.by_causes(target),
        };
        self.carried_on(&root, of);
        let mut chain = std::mem::take(&mut self.chain);
        chain.retain(|hop| hop.seq != of && hop.seq != root.seq);
        chain.sort_by_key(|hop| std::cmp::Reverse(hop.seq));
        let known = |seq: u64| seq == root.seq || chain.iter().any(|hop| hop.seq == seq);
        let others = ranked.iter().filter(|suspect| !known(suspect.seq)).take(OTHERS_MAX);
        let others = others.map(|s| Hop { seq: s.seq, why: s.why() }).collect();
        let context = self.context(root.seq, of);
        Finding { of, what, root: root.seq, because: root.why(), chain, context, others }
    }

    /// The answers that took over what the root brought.
    fn carried_on(&mut self, root: &Suspect, of: u64) {
        let answers = self
            .evidence
            .nodes
            .iter()
            .filter(|node| node.kind == Kind::Answer && node.seq > root.seq && node.seq < of);
        let hops: Vec<Hop> = answers
            .filter_map(|node| {
                let taken = node.tokens.intersection(&root.brought);
                let taken: Vec<&str> =
                    taken.filter(|t| t.weight() >= 1.0).map(Token::text).collect();
                let why = format!("it took over {}", taken.join(", "));
                (!taken.is_empty()).then_some(Hop { seq: node.seq, why })
            })
            .take(HOPS_MAX)
            .collect();
        hops.into_iter().for_each(|hop| self.hop(hop.seq, hop.why));
    }

    /// All suspects, best first: who brought what the text says; and who brought what the file says
    /// that it looks at, all of them when the text says nothing, else those that stand out.
    fn ranked(&mut self, target: &Record, question: &Question) -> Vec<Suspect> {
        let mut ranked = self.suspects(question);
        let silent = ranked.is_empty();
        let chain = self.chain.len();
        let mut by_files = self.by_files(target, &question.topic);
        if !silent {
            self.chain.truncate(chain);
            by_files.retain(|suspect| suspect.reasons.len() > 1);
        }
        for suspect in by_files {
            match ranked.iter_mut().find(|known| known.seq == suspect.seq) {
                Some(known) => known.score = known.score.max(suspect.score),
                None => ranked.push(suspect),
            }
        }
        let is_check = matches!(target.body, Body::CheckFailed { .. });
        if ranked.is_empty() && is_check {
            ranked.extend(self.last_failure(target.stamp.seq));
        }
        suspects::sort(&mut ranked);
        ranked
    }

    /// The last refusal or failure before a moment.
    fn last_failure(&self, before: u64) -> Option<Suspect> {
        let failed = self.evidence.nodes.iter().rev().find(|node| {
            node.seq < before && matches!(node.kind, Kind::Outcome { is_error: true, .. })
        })?;
        let reason = "this failed, and nothing after it made up for it";
        Some(Suspect::new(failed.seq, PASSED_OVER_SCORE, reason))
    }

    fn describe(&self, record: &Record) -> String {
        let count = usize::try_from(record.stamp.seq).unwrap_or(usize::MAX);
        let before = State::of(self.records.iter().take(count));
        format!("{}: {}", record.body.kind(), crate::summary::summary(&before, record))
    }

    fn question(&self, target: &Record) -> Question {
        let before = target.stamp.seq;
        let text = self.evidence.node(before).map(|node| node.text.clone());
        let text = text.unwrap_or_else(|| match &target.body {
            Body::RunEnded { output, error, .. } => {
                let error = error.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("{output}\n{error}")
            }
            Body::ActionProposed { call_id, .. } => {
                self.state.arguments(call_id).map(|(_, a)| plain(a)).unwrap_or_default()
            }
            _ => String::new(),
        });
        let topic = self.check_of(target).map(|(name, command)| format!("{name} {command}"));
        let topic = tokens::tokens(&topic.unwrap_or_default());
        Question { tokens: tokens::tokens(&text), before, topic }
    }

    /// The check's name and command, when the target is a check's result.
    fn check_of(&self, target: &Record) -> Option<(String, String)> {
        let (Body::CheckFailed { name, .. } | Body::CheckPassed { name, .. }) = &target.body else {
            return None;
        };
        let check = self.state.manifest().checks.iter().find(|check| check.name == *name)?;
        Some((name.clone(), check.command.clone()))
    }

    /// Records that brought the tokens of the question, weighed, best first.
    fn suspects(&self, question: &Question) -> Vec<Suspect> {
        let found = suspects::by_tokens(self.evidence, question);
        let weighed = found.into_iter().map(|s| suspects::weigh(self.evidence, s, &question.topic));
        let mut weighed: Vec<Suspect> = weighed.collect();
        suspects::sort(&mut weighed);
        weighed
    }

    /// Nothing telling in the text itself: what the check reads, the last who wrote that, and
    /// where the values in it came from.
    fn by_files(&mut self, target: &Record, topic: &BTreeSet<Token>) -> Vec<Suspect> {
        let before = target.stamp.seq;
        let command = self.check_of(target).map(|(_, command)| command).unwrap_or_default();
        let mut files = tokens::files(&command);
        files.extend(tokens::files(self.evidence.node(before).map_or("", |n| n.text.as_str())));
        let Some(writer) = self.writer_of(&files, before) else {
            return Vec::new();
        };
        let what: Vec<&str> = files.iter().map(String::as_str).collect();
        let what = if what.is_empty() { "the workspace".to_owned() } else { what.join(", ") };
        self.hop(writer, format!("this call last wrote what it looks at ({what})"));
        let mut ranked = self.behind_file(writer, topic);
        if ranked.is_empty() {
            ranked.push(Suspect::new(writer, SCORE_MIN, "the agent wrote it on its own"));
        }
        ranked
    }

    /// Where the values in a call's arguments came from. Each was taken from somewhere, so only
    /// what speaks against its source tells them apart.
    fn behind_file(&self, writer: u64, topic: &BTreeSet<Token>) -> Vec<Suspect> {
        let tokens = self.evidence.node(writer).map(|n| n.tokens.clone()).unwrap_or_default();
        let question = Question { tokens, before: writer, topic: topic.clone() };
        let mut found: Vec<Suspect> = suspects::by_tokens(self.evidence, &question)
            .into_iter()
            .map(|suspect| suspect.at_most(TAKEN_OVER_MAX))
            .collect();
        let new = self.new_numbers(&question.tokens, writer);
        found.extend(suspects::converted(self.evidence, &new, writer));
        let mut ranked: Vec<Suspect> =
            found.into_iter().map(|s| suspects::weigh(self.evidence, s, topic)).collect();
        if !new.is_empty() {
            ranked.extend(self.passed_over(writer));
        }
        suspects::sort(&mut ranked);
        ranked
    }

    /// Telling numbers that were nowhere before.
    fn new_numbers(&self, tokens: &BTreeSet<Token>, before: u64) -> Vec<f64> {
        let new = tokens.iter().filter(|token| {
            token.weight() >= 1.0
                && self.evidence.weight(token) > 0.0
                && self.evidence.first(token, before).is_none()
        });
        new.filter_map(Token::value).collect()
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
        let actions = self.state.actions.values();
        let wrote = actions.filter(|action| {
            action.id < before && action.started.is_some_and(|seq| sealed.contains(&seq))
        });
        let writers: Vec<(u64, String)> = wrote
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
        let record = self.records.iter().find(|record| record.stamp.seq == action)?;
        let cause = record.causes.iter().find(|cause| cause.link == Link::AskedIn)?;
        Some(cause.seq)
    }

    /// From the best suspect on back, as long as there is something behind it.
    fn follow(&mut self, from: Suspect) -> Suspect {
        let mut current = from;
        for _ in 0..HOPS_MAX {
            let Some(node) = self.evidence.node(current.seq) else {
                break;
            };
            let next = match &node.kind {
                Kind::Outcome { outward: true, .. } | Kind::Given => None,
                Kind::Outcome { action, .. } => self.behind_outcome(*action, current.seq),
                Kind::Answer | Kind::Check => self.behind_answer(&current),
            };
            let Some(next) = next.filter(|next| next.seq < current.seq) else {
                break;
            };
            self.hop(current.seq, current.why());
            current = next;
        }
        current
    }

    /// Behind what a program in the sandbox printed: the file of the agent's that it used.
    fn behind_outcome(&self, action: u64, seq: u64) -> Option<Suspect> {
        let call = &self.state.actions.get(&action)?.call_id;
        let (_, arguments) = self.state.arguments(call)?;
        let files = tokens::files(&plain(arguments));
        if files.is_empty() {
            return None;
        }
        let writer = self.writer_of(&files, action).filter(|writer| *writer < seq)?;
        let node = self.evidence.node(writer)?;
        let named = files.iter().find(|file| node.text.contains(file.as_str()))?;
        Some(Suspect::new(writer, SCORE_MIN, format!("this call wrote {named}, which was used")))
    }

    /// Behind what the model said: an outcome it converted, or a failure it passed over; for what
    /// it wrote into a program, where its values came from.
    fn behind_answer(&self, current: &Suspect) -> Option<Suspect> {
        let answer = current.seq;
        if current.brought.is_empty() {
            let topic = BTreeSet::new();
            let behind = self.behind_file(answer, &topic).into_iter().next()?;
            return self.evidence.node(behind.seq).is_some_and(Node::is_outcome).then_some(behind);
        }
        let numbers: Vec<f64> = current.brought.iter().filter_map(Token::value).collect();
        let converted = suspects::converted(self.evidence, &numbers, answer);
        let weighed = converted.into_iter().map(|s| suspects::weigh(self.evidence, s, &self.asked));
        let mut ranked: Vec<Suspect> = weighed.collect();
        suspects::sort(&mut ranked);
        ranked.into_iter().next().or_else(|| self.passed_over(answer))
    }

    /// A refusal or failure before an answer: the one that has most to do with what is explained,
    /// else one that the model read for the first time in this answer.
    fn passed_over(&self, answer: u64) -> Option<Suspect> {
        let answers = self.records.iter().filter_map(|record| match &record.body {
            Body::ModelAnswered { error: None, .. } => Some(record.stamp.seq),
            _ => None,
        });
        let previous = answers.take_while(|seq| *seq < answer).last().unwrap_or(0);
        let failed = self.evidence.nodes.iter().filter(|node| {
            node.seq < answer && matches!(node.kind, Kind::Outcome { is_error: true, .. })
        });
        let related = failed.map(|node| (self.relatedness(node), node.seq > previous, node.seq));
        let (_, _, seq) = related.filter(|(shared, fresh, _)| *shared > 0 || *fresh).max()?;
        let reason = "this failed, and the agent went on with something of its own";
        Some(Suspect::new(seq, PASSED_OVER_SCORE, reason))
    }

    /// Tokens that a failed call, its arguments included, shares with what is explained.
    fn relatedness(&self, node: &Node) -> usize {
        let Kind::Outcome { action, .. } = &node.kind else {
            return 0;
        };
        let call = self.state.actions.get(action).map(|action| action.call_id.as_str());
        let arguments = call.and_then(|call| self.state.arguments(call));
        let text = arguments.map(|(_, arguments)| plain(arguments)).unwrap_or_default();
        tokens::tokens(&text).intersection(&self.asked).count()
    }

    /// No data to follow: the causes that the log names, to the answer they began in.
    fn by_causes(&mut self, target: &Record) -> Suspect {
        let mut current = target;
        let mut why = "nothing before it has anything to do with it".to_owned();
        for _ in 0..HOPS_MAX {
            let next = current.causes.first().and_then(|cause| {
                let record = self.records.iter().find(|r| r.stamp.seq == cause.seq)?;
                Some((cause.link, record))
            });
            let Some((link, record)) = next else { break };
            why = format!("record {} is {} it", current.stamp.seq, crate::show::link(link));
            self.hop(record.stamp.seq, why.clone());
            current = record;
            if matches!(record.body, Body::ModelAnswered { .. }) {
                break;
            }
        }
        Suspect::new(current.stamp.seq, 0.0, why)
    }

    fn hop(&mut self, seq: u64, why: String) {
        if !self.chain.iter().any(|hop| hop.seq == seq) {
            self.chain.push(Hop { seq, why });
        }
    }

    /// The tool results that the model had before it when it was first called after the root.
    fn context(&self, root: u64, of: u64) -> Vec<u64> {
        let items = self.records.iter().find_map(|record| match &record.body {
            Body::ModelCalled { items, .. } if (root..of).contains(&record.stamp.seq) => {
                Some(*items)
            }
            _ => None,
        });
        let count = items.and_then(|items| usize::try_from(items).ok()).unwrap_or(0);
        let sent = self.state.items.iter().take(count);
        sent.filter(|placed| matches!(placed.item, Item::ToolResult { .. }))
            .map(|placed| placed.seq)
            .collect()
    }
}
