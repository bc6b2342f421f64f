//! A policy set for people: one row for each policy and action, and what differs between two sets.

use crate::cedar::{Statement, with_stack};
use crate::{PolicySet, monotone, slice};
use cedar_policy::pst::{BinaryOp, Clause, Expr, ResourceConstraint, Var};
use serde::Serialize;
use std::collections::BTreeMap;
use types::Verdict;

/// What one policy says of one action.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Row {
    /// The action, `any` for all.
    pub action: String,
    /// What is acted on: a name, `*.domain`, a path (with everything below if it ends in `/`),
    /// `any`.
    pub resource: String,
    /// What it says.
    pub verdict: Verdict,
    /// On which condition, as Cedar without `context.approved`; may be empty.
    pub when: String,
    /// The policy's id.
    pub policy: String,
    /// Where it came from: `permissions.allow[0]`, `policy.cedar:12`, `default`.
    pub source: String,
}

impl PolicySet {
    /// The set as a table, in the order of its policies.
    #[must_use]
    pub fn table(&self) -> Vec<Row> {
        with_stack(|| self.statements.iter().flat_map(rows).collect())
    }
}

fn rows(statement: &Statement) -> Vec<Row> {
    let tree = &statement.tree;
    let named: Vec<&str> =
        slice::ACTIONS.into_iter().filter(|action| slice::names_action(tree, action)).collect();
    let actions = if named.is_empty() { vec!["any"] } else { named };
    let verdict = match (monotone::needs_approval(tree), statement.forbids()) {
        (true, _) => Verdict::Ask,
        (false, true) => Verdict::Deny,
        (false, false) => Verdict::Permit,
    };
    actions
        .into_iter()
        .map(|action| Row {
            action: action.to_owned(),
            resource: resource(statement),
            verdict,
            when: when(statement),
            policy: statement.id().to_owned(),
            source: statement.source.clone(),
        })
        .collect()
}

fn resource(statement: &Statement) -> String {
    let below =
        matches!(statement.tree.resource, ResourceConstraint::In(_) | ResourceConstraint::IsIn(..));
    match slice::filed_under(&statement.tree) {
        None => "any".to_owned(),
        Some((kind, id)) if below && kind == "Domain" => format!("*.{id}"),
        Some((kind, id)) if below && kind == "Path" => format!("{}/", id.trim_end_matches('/')),
        Some((_, id)) => id,
    }
}

/// The principal's scope and the conditions, without approval.
fn when(statement: &Statement) -> String {
    let mut parts = Vec::new();
    let scope = statement.tree.principal.to_string();
    if !scope.is_empty() {
        parts.push(format!("principal {scope}"));
    }
    for clause in statement.tree.clauses() {
        match clause {
            Clause::When(condition) => {
                parts.extend(
                    conjuncts(condition).into_iter().filter(|e| !is_approved(e)).map(factor),
                );
            }
            Clause::Unless(condition) if is_approved(condition) => {}
            Clause::Unless(condition) => parts.push(format!("!({condition})")),
        }
    }
    parts.join(" && ")
}

/// As it is written beside `&&`.
fn factor(expr: &Expr) -> String {
    match expr {
        Expr::BinaryOp { op: BinaryOp::Or, .. } | Expr::IfThenElse { .. } => format!("({expr})"),
        _ => expr.to_string(),
    }
}

fn conjuncts(expr: &Expr) -> Vec<&Expr> {
    match expr {
        Expr::BinaryOp { op: BinaryOp::And, left, right } => {
            let mut all = conjuncts(left);
            all.extend(conjuncts(right));
            all
        }
        other => vec![other],
    }
}

fn is_approved(expr: &Expr) -> bool {
    matches!(expr, Expr::GetAttr { expr, attr } if attr == "approved" && matches!(**expr, Expr::Var(Var::Context)))
}

/// What differs between two sets, row by row: `wider: ...` opens, `narrower: ...` closes. Policies
/// are compared by what they say, not by id; conditions as text, so a condition written in another
/// way shows as one line of each kind.
#[must_use]
pub fn diff(old: &PolicySet, new: &PolicySet) -> Vec<String> {
    let (old, new) = with_stack(|| (rules(old), rules(new)));
    let mut lines = Vec::new();
    for (key, after) in &new {
        match old.get(key) {
            None => lines.push(line(!key.3, "now", key, *after)),
            Some(before) if before != after => {
                let word = if after < before { "wider" } else { "narrower" };
                lines.push(format!(
                    "{word}: {} (was {})",
                    described(key, *after),
                    word_of(*before)
                ));
            }
            Some(_) => {}
        }
    }
    for (key, before) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
        lines.push(line(key.3, "no longer", key, *before));
    }
    lines.sort();
    lines
}

/// Action, resource, condition, and whether it is a `forbid`; an asked `forbid` closes.
type Key = (String, String, String, bool);

fn rules(set: &PolicySet) -> BTreeMap<Key, Verdict> {
    let mut rules: BTreeMap<Key, Verdict> = BTreeMap::new();
    for statement in &set.statements {
        for row in rows(statement) {
            let key = (row.action, row.resource, row.when, statement.forbids());
            let verdict = rules.entry(key).or_insert(row.verdict);
            *verdict = if statement.forbids() {
                row.verdict.max(*verdict)
            } else {
                row.verdict.min(*verdict)
            };
        }
    }
    rules
}

fn line(wider: bool, word: &str, key: &Key, verdict: Verdict) -> String {
    let direction = if wider { "wider" } else { "narrower" };
    format!("{direction}: {word} {}", described(key, verdict))
}

fn described((action, resource, when, forbids): &Key, verdict: Verdict) -> String {
    let verb = match (verdict, forbids) {
        (Verdict::Permit, _) => "permits",
        (Verdict::Ask, false) => "permits once approved",
        (Verdict::Ask, true) => "forbids unless approved",
        (Verdict::Deny, _) => "forbids",
    };
    let when = if when.is_empty() { String::new() } else { format!(" when {when}") };
    format!("{verb} {action} {resource}{when}")
}

const fn word_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Permit => "permitted",
        Verdict::Ask => "asked",
        Verdict::Deny => "forbidden",
    }
}
