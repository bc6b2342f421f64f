//! Budgets: reserved before each call, settled after it, and fail closed.

use serde::Serialize;
use types::manifest::Budget;
use types::{Failure, Usage, Usd};

/// What a run has spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Spent {
    /// Money settled.
    pub cost: Usd,
    /// Tokens settled.
    pub tokens: u64,
    /// Money reserved by the call in flight.
    pub reserved_cost: Usd,
    /// Tokens reserved by the call in flight.
    pub reserved_tokens: u64,
    /// Tool calls made.
    pub actions: u64,
    /// Milliseconds an owner was moving the run.
    pub wall_ms: u64,
    /// When the present owner took it up, or the last record was written.
    pub live_since_ms: u64,
}

impl Spent {
    /// Settles one of several reservations.
    pub(crate) fn settle(&mut self, cost: Usd, tokens: u64, used: Usd, usage: &Usage) {
        self.reserved_cost = self.reserved_cost.minus(cost);
        self.reserved_tokens = self.reserved_tokens.saturating_sub(tokens);
        self.cost = self.cost.plus(used);
        let used_tokens = usage.input_tokens.saturating_add(usage.output_tokens);
        self.tokens = self.tokens.saturating_add(used_tokens);
    }

    /// Another run's reservations are that run's to settle.
    pub(crate) const fn drop_reservations(&mut self) {
        self.reserved_cost = Usd::ZERO;
        self.reserved_tokens = 0;
    }

    /// Settles a reservation that nobody will settle any more: it counts as spent, because the
    /// provider may have counted it.
    pub(crate) fn forfeit(&mut self) {
        self.cost = self.cost.plus(self.reserved_cost);
        self.tokens = self.tokens.saturating_add(self.reserved_tokens);
        self.reserved_cost = Usd::ZERO;
        self.reserved_tokens = 0;
    }
}

/// Why the next step would pass the budget, if it would. `cost` and `tokens` are what the step
/// would reserve; `None` for a cost is a model without a known price.
#[must_use]
pub fn over_budget(
    budget: &Budget,
    spent: &Spent,
    now_ms: u64,
    cost: Option<Usd>,
    tokens: u64,
) -> Option<Failure> {
    let fail = |code: &str, message: String| {
        let next = "Raise the limit in [budget] and send the run on with `bedplate send`.";
        Some(Failure { code: code.to_owned(), message, next: next.to_owned() })
    };
    if let Some(limit) = budget.usd {
        let Some(cost) = cost else {
            return fail(
                "BP-RUN-005",
                "the budget is in dollars and this model has no known price".to_owned(),
            );
        };
        let would = spent.cost.plus(spent.reserved_cost).plus(cost);
        if would > limit {
            return fail(
                "BP-RUN-001",
                format!(
                    "the next call could bring the cost to {would}, over the budget of {limit}"
                ),
            );
        }
    }
    if let Some(limit) = budget.tokens {
        let would = spent.tokens.saturating_add(spent.reserved_tokens).saturating_add(tokens);
        if would > limit {
            return fail(
                "BP-RUN-002",
                format!(
                    "the next call could bring the tokens to {would}, over the budget of {limit}"
                ),
            );
        }
    }
    if let Some(limit) = budget.wall_ms {
        let used = spent.wall_ms + now_ms.saturating_sub(spent.live_since_ms);
        if used >= limit {
            return fail(
                "BP-RUN-003",
                format!("the run has lived {used} ms, and its budget is {limit} ms"),
            );
        }
    }
    if spent.actions >= budget.actions {
        return fail(
            "BP-RUN-004",
            format!("the run has made {} tool calls, its whole budget", spent.actions),
        );
    }
    None
}
