//! May any rule permit this name? Asked before a name is resolved, when method and path are not yet
//! known.
//!
//! Sound, not complete: `false` is final; `true` may be more than what some request gets. A rule's
//! condition counts where it speaks of nothing but the host.

use crate::cedar::{Statement, with_stack};
use crate::question::{Kind, host_keys};
use crate::{PolicySet, Principal, host, paths, slice};
use cedar_policy::pst::{BinaryOp, Clause, EntityUID, Expr, Literal, UnaryOp, Var};
use std::collections::HashMap;

/// Actions that reach a host.
const ACTIONS: [&str; 2] = ["http_request", "connect"];

/// For each action that reaches a host, the rules that can matter to a name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reach([Places; ACTIONS.len()]);

/// Places in `PolicySet::statements`.
#[derive(Debug, Clone, Default)]
struct Places {
    general: Vec<usize>,
    filed: HashMap<(String, String), Vec<usize>>,
}

impl Reach {
    pub(crate) fn of(statements: &[Statement], principal: &Principal) -> Self {
        Self(ACTIONS.map(|action| {
            let mut places = Places::default();
            let applies = |tree| {
                slice::has_action(tree, action)
                    && paths::principal_matches(&tree.principal, principal)
            };
            for (at, statement) in statements.iter().enumerate() {
                if applies(&statement.tree) {
                    match slice::filed_under(&statement.tree) {
                        Some(key) => places.filed.entry(key).or_default().push(at),
                        None => places.general.push(at),
                    }
                }
            }
            places
        }))
    }
}

impl PolicySet {
    /// Whether some HTTP request or connection of this set's principal to this host could be
    /// permitted, at once or once approved. `false` is final: none can be. A name not in canonical
    /// form is `false`. As cheap as a few look-ups.
    #[must_use]
    pub fn may_permit_host(&self, host: &str) -> bool {
        if host::check(host).is_err() {
            return false;
        }
        let keys = host_keys(host);
        with_stack(|| self.reach.0.iter().any(|places| self.may_permit(places, host, &keys)))
    }

    fn may_permit(&self, places: &Places, host: &str, keys: &[(Kind, &str)]) -> bool {
        let filed = keys
            .iter()
            .filter_map(|(kind, id)| places.filed.get(&(kind.name().to_owned(), (*id).to_owned())))
            .flatten();
        let mut permitted = false;
        for at in places.general.iter().chain(filed) {
            let statement = &self.statements[*at];
            let holds = holds(statement, host, keys);
            if statement.forbids() && holds == Some(true) {
                return false;
            }
            permitted |= !statement.forbids() && holds != Some(false);
        }
        permitted
    }
}

/// Whether a policy's scope and conditions hold for every request to the host, or for none.
fn holds(statement: &Statement, host: &str, keys: &[(Kind, &str)]) -> Option<bool> {
    statement.tree.clauses().iter().fold(in_scope(statement), |so_far, clause| {
        let this = match clause {
            Clause::When(condition) => decided(condition, host, keys),
            Clause::Unless(condition) => decided(condition, host, keys).map(|holds| !holds),
        };
        and(so_far, this)
    })
}

/// A scope names a type that a host is not, or the resource was already found to fit.
fn in_scope(statement: &Statement) -> Option<bool> {
    use cedar_policy::pst::ResourceConstraint as R;
    match &statement.tree.resource {
        R::Is(kind) | R::IsIn(kind, _) => Some(kind.0.id.as_str() == "Host"),
        _ => Some(true),
    }
}

const fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// The value of a condition when only the host is known.
fn decided(expr: &Expr, host: &str, keys: &[(Kind, &str)]) -> Option<bool> {
    let not = |value: Option<bool>| value.map(|value| !value);
    match expr {
        Expr::Literal(Literal::Bool(value)) => Some(*value),
        Expr::UnaryOp { op: UnaryOp::Not, expr } => not(decided(expr, host, keys)),
        Expr::BinaryOp { op, left, right } => match op {
            BinaryOp::And => and(decided(left, host, keys), decided(right, host, keys)),
            BinaryOp::Or => {
                not(and(not(decided(left, host, keys)), not(decided(right, host, keys))))
            }
            BinaryOp::Eq => same(left, right, host),
            BinaryOp::NotEq => not(same(left, right, host)),
            BinaryOp::In => match (left.as_ref(), right.as_ref()) {
                (Expr::Var(Var::Resource), Expr::Literal(Literal::EntityUID(uid))) => {
                    Some(keys.iter().any(|(kind, id)| is(uid, kind.name(), id)))
                }
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn same(left: &Expr, right: &Expr, host: &str) -> Option<bool> {
    match (left, right) {
        (Expr::Var(Var::Resource), Expr::Literal(Literal::EntityUID(uid)))
        | (Expr::Literal(Literal::EntityUID(uid)), Expr::Var(Var::Resource)) => {
            Some(is(uid, "Host", host))
        }
        _ => None,
    }
}

fn is(uid: &EntityUID, kind: &str, id: &str) -> bool {
    uid.ty.0.id.as_str() == kind && uid.eid == id
}
