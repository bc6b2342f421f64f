//! The records of a run as texts that depend on each other: who said what first.

use super::tokens::{self, Token};
use kernel::State;
use std::collections::{BTreeMap, BTreeSet};
use types::{ActionId, Body, EffectClass, Item, OutcomeStatus, Record, Verdict};

/// What a text is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// Known before anything happened: instructions, what a person said, the checks.
    Given,
    /// What the model answered: words and calls.
    Answer,
    /// What an action gave, or that it was refused.
    Outcome {
        action: ActionId,
        tool: String,
        /// It came from outside the sandbox.
        outward: bool,
        /// It failed, or was denied.
        is_error: bool,
    },
    /// What a check printed.
    Check,
}

/// A record's text.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) seq: u64,
    pub(super) kind: Kind,
    pub(super) text: String,
    pub(super) tokens: BTreeSet<Token>,
}

impl Node {
    fn new(seq: u64, kind: Kind, text: String) -> Self {
        let tokens = tokens::tokens(&text);
        Self { seq, kind, text, tokens }
    }

    pub(super) const fn is_outcome(&self) -> bool {
        matches!(self.kind, Kind::Outcome { .. })
    }
}

/// All texts of a run, and where each token was first.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) nodes: Vec<Node>,
    /// Tokens that were known before anything happened.
    pub(super) given: BTreeSet<Token>,
    /// Texts in which each token stands.
    counts: BTreeMap<Token, usize>,
}

impl Evidence {
    pub(super) fn of(records: &[Record], state: &State) -> Self {
        let mut nodes = Vec::new();
        for record in records {
            nodes.extend(node_of(record, state));
        }
        let mut given = BTreeSet::new();
        let mut counts = BTreeMap::new();
        for node in &nodes {
            if node.kind == Kind::Given {
                given.extend(node.tokens.iter().cloned());
            }
            for token in &node.tokens {
                *counts.entry(token.clone()).or_default() += 1;
            }
        }
        Self { nodes, given, counts }
    }

    pub(super) fn node(&self, seq: u64) -> Option<&Node> {
        self.nodes.iter().find(|node| node.seq == seq)
    }

    /// The first text before `seq` in which a token stands.
    pub(super) fn first(&self, token: &Token, before: u64) -> Option<&Node> {
        self.nodes.iter().find(|node| node.seq < before && node.tokens.contains(token))
    }

    /// How much a token tells here: nothing when it was known before, less the more often it stands.
    pub(super) fn weight(&self, token: &Token) -> f64 {
        if self.given.contains(token) {
            return 0.0;
        }
        let texts = self.counts.get(token).copied().unwrap_or(1).max(1);
        #[expect(clippy::cast_precision_loss, reason = "a handful of texts")]
        let rarity = 1.0 + 1.0 / texts as f64;
        token.weight() * rarity
    }
}

/// The text of a record, when it has one.
fn node_of(record: &Record, state: &State) -> Option<Node> {
    let seq = record.stamp.seq;
    match &record.body {
        Body::RunStarted { manifest, .. } => {
            let mut text = manifest.agent.instructions.clone();
            for tool in &manifest.tools {
                text.push_str(&format!("\n{} {}", tool.name, tool.description));
            }
            for check in &manifest.checks {
                text.push_str(&format!("\n{} {}", check.name, check.command));
            }
            Some(Node::new(seq, Kind::Given, text))
        }
        Body::ItemAdded { item: Item::UserMessage { text } } => {
            Some(Node::new(seq, Kind::Given, text.clone()))
        }
        Body::ItemAdded { item: Item::ToolResult { call_id, output, is_error, .. } } => {
            let tool = state.arguments(call_id).map_or("", |(tool, _)| tool).to_owned();
            let kind = Kind::Outcome { action: seq, tool, outward: false, is_error: *is_error };
            Some(Node::new(seq, kind, output.clone()))
        }
        Body::ModelAnswered { items, error: None, .. } => {
            Some(Node::new(seq, Kind::Answer, answer_text(items)))
        }
        Body::ModelAnswered { error: Some(fault), .. } => {
            Some(Node::new(seq, Kind::Answer, fault.failure.to_string()))
        }
        Body::CheckPassed { output, .. } | Body::CheckFailed { output, .. } => {
            Some(Node::new(seq, Kind::Check, output.text.clone()))
        }
        body => outcome(seq, body, state),
    }
}

fn outcome(seq: u64, body: &Body, state: &State) -> Option<Node> {
    let (id, text, is_error) = match body {
        Body::ActionFinished { action, output, status, .. } => {
            (*action, output.text.clone(), *status != OutcomeStatus::Ok)
        }
        Body::DecisionMade { action: Some(id), verdict: Verdict::Deny, reason, .. } => {
            (*id, format!("denied by policy: {reason}"), true)
        }
        Body::ActionResolved { action, result, .. } => {
            let text = result.as_ref().map(ToString::to_string).unwrap_or_default();
            (*action, text, false)
        }
        _ => return None,
    };
    let action = state.actions.get(&id)?;
    let outward = matches!(action.effect, EffectClass::Idempotent | EffectClass::Irreversible)
        || state.manifest().tools.iter().any(|tool| tool.name == action.tool);
    let kind = Kind::Outcome { action: id, tool: action.tool.clone(), outward, is_error };
    Some(Node::new(seq, kind, text))
}

/// Everything a model's answer says: its words, and its calls with their arguments.
fn answer_text(items: &[Item]) -> String {
    let texts: Vec<String> = items
        .iter()
        .filter_map(|item| match item {
            Item::AssistantMessage { text } => Some(text.clone()),
            Item::ToolCall { arguments, .. } => Some(plain(arguments)),
            _ => None,
        })
        .collect();
    texts.join("\n")
}

/// The strings and numbers of a JSON value, a line each: escapes would hide words.
pub(super) fn plain(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(plain).collect::<Vec<_>>().join("\n"),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| format!("{key} {}", plain(value)))
            .collect::<Vec<_>>()
            .join("\n"),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
