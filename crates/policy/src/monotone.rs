//! Approval may only open: whatever is permitted unapproved stays permitted once approved.
//!
//! For each policy we ask how its condition moves when `context.approved` turns from false to true.
//! A `permit` may only rise (or not care), a `forbid` may only fall. Then the whole set only opens.
//! The analysis is sound, not complete: a condition it cannot follow (`approved` inside a set, a
//! record, an arithmetic term; `context` taken as a value) is refused, although it may be harmless.
//! One thing lies outside: an evaluation error (integer overflow, in a validated policy) denies, and
//! could happen only once approved; that fails closed.

use crate::PolicyError;
use crate::cedar::Statement;
use cedar_policy::pst::{BinaryOp, Clause, Expr, Literal, Template, UnaryOp, Var};

/// How a condition moves when approval comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Motion {
    Still,
    Rises,
    Falls,
    Unknown,
}

impl Motion {
    const fn flipped(self) -> Self {
        match self {
            Self::Rises => Self::Falls,
            Self::Falls => Self::Rises,
            same => same,
        }
    }

    /// Of two conditions joined by `&&` or `||`.
    fn with(self, other: Self) -> Self {
        match (self, other) {
            (Self::Still, motion) | (motion, Self::Still) => motion,
            (a, b) if a == b => a,
            _ => Self::Unknown,
        }
    }
}

/// Policies that could permit what is not approved and deny it once it is.
pub(crate) fn check(statements: &[Statement]) -> Vec<PolicyError> {
    statements
        .iter()
        .filter(|statement| {
            let wanted = if statement.forbids() { Motion::Falls } else { Motion::Rises };
            let motion = of_policy(&statement.tree);
            motion != Motion::Still && motion != wanted
        })
        .map(|statement| PolicyError::ApprovalNarrows {
            at: Box::new(statement.at.clone()),
            policy: statement.id().to_owned(),
        })
        .collect()
}

/// Whether a policy's condition depends on approval.
pub(crate) fn needs_approval(tree: &Template) -> bool {
    of_policy(tree) != Motion::Still
}

fn of_policy(tree: &Template) -> Motion {
    tree.clauses()
        .iter()
        .map(|clause| match clause {
            Clause::When(condition) => of(condition),
            Clause::Unless(condition) => of(condition).flipped(),
        })
        .fold(Motion::Still, Motion::with)
}

fn of(expr: &Expr) -> Motion {
    match expr {
        Expr::Literal(_) | Expr::Slot(_) | Expr::HasAttr { .. } => still_unless_bare(expr),
        Expr::Var(Var::Context) => Motion::Unknown,
        Expr::Var(_) => Motion::Still,
        Expr::GetAttr { expr, attr } => match (expr.as_ref(), attr.as_str()) {
            (Expr::Var(Var::Context), "approved") => Motion::Rises,
            (Expr::Var(Var::Context), _) => Motion::Still,
            (inner, _) => still(of(inner)),
        },
        Expr::UnaryOp { op, expr } => match op {
            UnaryOp::Not => of(expr).flipped(),
            _ => still(of(expr)),
        },
        Expr::BinaryOp { op, left, right } => of_binary(*op, left, right),
        Expr::IfThenElse { cond, then_expr, else_expr } => of_choice(cond, then_expr, else_expr),
        Expr::Like { expr, .. } => still(of(expr)),
        Expr::Is { expr, in_expr, .. } => {
            let inner = in_expr.as_ref().map_or(Motion::Still, |e| of(e));
            still(of(expr).with(inner))
        }
        Expr::Set(elements) => still(all(elements.iter().map(|e| of(e)))),
        Expr::Record(fields) => still(all(fields.values().map(|e| of(e)))),
        _ => Motion::Unknown,
    }
}

/// `has` asks only whether an attribute is there, and `approved` always is; a literal never moves.
fn still_unless_bare(expr: &Expr) -> Motion {
    match expr {
        Expr::HasAttr { expr, .. } if !matches!(**expr, Expr::Var(Var::Context)) => still(of(expr)),
        _ => Motion::Still,
    }
}

/// An operation that is not monotone in its operands: it may only have operands that stay.
const fn still(motion: Motion) -> Motion {
    match motion {
        Motion::Still => Motion::Still,
        _ => Motion::Unknown,
    }
}

fn all(motions: impl Iterator<Item = Motion>) -> Motion {
    motions.fold(Motion::Still, Motion::with)
}

fn of_binary(op: BinaryOp, left: &Expr, right: &Expr) -> Motion {
    let equality = |flip: bool| {
        let (literal, other) = match (literal(left), literal(right)) {
            (Some(literal), _) => (literal, right),
            (_, Some(literal)) => (literal, left),
            _ => return still(of(left).with(of(right))),
        };
        if literal == flip { of(other).flipped() } else { of(other) }
    };
    match op {
        BinaryOp::And | BinaryOp::Or => of(left).with(of(right)),
        BinaryOp::Eq => equality(false),
        BinaryOp::NotEq => equality(true),
        _ => still(of(left).with(of(right))),
    }
}

fn literal(expr: &Expr) -> Option<bool> {
    match expr {
        Expr::Literal(Literal::Bool(value)) => Some(*value),
        _ => None,
    }
}

/// `if c then a else b`. If `c` moves, one arm must be a constant, so that it is `&&` or `||`.
fn of_choice(cond: &Expr, then_expr: &Expr, else_expr: &Expr) -> Motion {
    let cond = of(cond);
    if cond == Motion::Still {
        return of(then_expr).with(of(else_expr));
    }
    match (literal(then_expr), literal(else_expr)) {
        (Some(true), _) => cond.with(of(else_expr)),
        (Some(false), _) => cond.flipped().with(of(else_expr)),
        (_, Some(true)) => cond.flipped().with(of(then_expr)),
        (_, Some(false)) => cond.with(of(then_expr)),
        _ => Motion::Unknown,
    }
}

/// Whether a policy's conditions depend on this attribute of the context. `context` as a whole
/// depends on all.
pub(crate) fn looks_at(tree: &Template, name: &str) -> bool {
    let of_context = |expr: &Expr| matches!(expr, Expr::Var(Var::Context));
    tree.clauses().iter().any(|clause| match clause {
        Clause::When(condition) | Clause::Unless(condition) => condition.reduce(
            &|expr| match expr {
                Expr::GetAttr { expr, attr } if of_context(expr) => Some(attr == name),
                Expr::HasAttr { expr, attrs } if of_context(expr) => Some(attrs.first() == name),
                Expr::Var(Var::Context) => Some(true),
                _ => None,
            },
            &|a, b| a || b,
            false,
        ),
    })
}

/// Whether any condition of a policy names this attribute, of whatever.
pub(crate) fn reads(tree: &Template, name: &str) -> bool {
    tree.clauses().iter().any(|clause| match clause {
        Clause::When(condition) | Clause::Unless(condition) => condition.reduce(
            &|expr| match expr {
                Expr::GetAttr { attr, .. } if attr == name => Some(true),
                Expr::HasAttr { attrs, .. } if attrs.iter().any(|attr| attr == name) => Some(true),
                // `context` used as a whole shows every attribute.
                Expr::Var(Var::Context) => Some(false),
                _ => None,
            },
            &|a, b| a || b,
            false,
        ),
    })
}
