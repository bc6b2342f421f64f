//! A guest's side of a run: its model calls in flight, the answers it can be served again, its end.
//!
//! ```text
//!   called --answered--> an answer, given --(the guest is started again)--> an answer, to be served
//!          --failed----> nothing to serve                                     --served--> given
//!          --crash-----> lost: asked, and nobody knows the answer
//! ```
//!
//! What always holds: an answer is served at most once each time the guest is started, in the order
//! of the log, and only to a request of its own key. A reservation that nobody settles is forfeit.

use crate::budget::Spent;
use crate::next::{Command, finish};
use crate::state::State;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use types::{Body, Digest, EndStatus, Failure, Item, OutcomeStatus, Usd};

/// The tool that a guest's own run stands for in the log.
pub const GUEST_TOOL: &str = "guest";
/// The guest ended with a failure.
const GUEST_FAILED: &str = "BP-RUN-020";
/// The guest was not run.
const GUEST_NOT_RUN: &str = "BP-RUN-021";

/// A call in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Open {
    key: Digest,
    cost: Usd,
    tokens: u64,
}

/// An answer of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Kept {
    key: Digest,
    call: u64,
    /// Whether the guest that runs now has it.
    given: bool,
}

/// What the log says of a run's guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Guest {
    /// How its program ended, when it did.
    pub ended: Option<(OutcomeStatus, Option<i32>)>,
    open: BTreeMap<u64, Open>,
    answers: BTreeMap<u64, Kept>,
    /// What was asked before and has no answer.
    lost: BTreeSet<Digest>,
    /// Answers served since it was started.
    served: u64,
    /// Whether its divergence since it was started is in the log.
    diverged: bool,
}

impl Guest {
    /// Folds a record about a guest's model call.
    pub(crate) fn fold(&mut self, seq: u64, body: &Body, spent: &mut Spent) {
        match body {
            Body::GuestCalled { key, cost, tokens, .. } => {
                spent.reserved_cost = spent.reserved_cost.plus(*cost);
                spent.reserved_tokens = spent.reserved_tokens.saturating_add(*tokens);
                let open = Open { key: *key, cost: *cost, tokens: *tokens };
                self.open.insert(seq, open);
            }
            Body::GuestAnswered { call, cost, usage, error, .. } => {
                let open = self.open.remove(call);
                let Some(open) = open else { return };
                spent.settle(open.cost, open.tokens, *cost, usage);
                if error.is_none() {
                    let kept = Kept { key: open.key, call: *call, given: true };
                    self.answers.insert(seq, kept);
                } else {
                    self.lost.insert(open.key);
                }
            }
            Body::GuestServed { answer, .. } => {
                self.served += 1;
                if let Some(kept) = self.answers.get_mut(answer) {
                    kept.given = true;
                }
            }
            Body::GuestDiverged { .. } => self.diverged = true,
            Body::GuestRefused { key, .. } => {
                self.lost.insert(*key);
            }
            other => unreachable!("not a record of a guest: {}", other.kind()),
        }
    }

    /// The guest is started again, unless it did its work: it knows nothing of what it was told.
    pub(crate) fn interrupt(&mut self) {
        if self.succeeded() {
            return;
        }
        self.ended = None;
        self.lost.extend(std::mem::take(&mut self.open).into_values().map(|open| open.key));
        self.answers.values_mut().for_each(|kept| kept.given = false);
        self.served = 0;
        self.diverged = false;
    }

    /// The record of the answer to serve to a request of this key.
    #[must_use]
    pub fn answer_to(&self, key: &Digest) -> Option<u64> {
        let mut left = self.answers.iter().filter(|(_, kept)| !kept.given);
        left.find(|(_, kept)| kept.key == *key).map(|(seq, _)| *seq)
    }

    /// The call of the log that was to come next, when a request of this key is not one of those
    /// that were asked before. Says so once.
    #[must_use]
    pub fn diverges(&self, key: &Digest) -> Option<u64> {
        let known = self.lost.contains(key) || self.answer_to(key).is_some();
        let next = self.answers.values().find(|kept| !kept.given)?;
        (!known && !self.diverged).then_some(next.call)
    }

    /// Answers served since the guest was started.
    #[must_use]
    pub const fn served(&self) -> u64 {
        self.served
    }

    /// Calls in flight, by the record that announced them, and the money each set aside.
    pub fn in_flight(&self) -> impl Iterator<Item = (u64, Usd)> {
        self.open.iter().map(|(call, open)| (*call, open.cost))
    }

    fn succeeded(&self) -> bool {
        matches!(self.ended, Some((OutcomeStatus::Ok, _)))
    }
}

impl State {
    /// Whether a program of others is the agent.
    #[must_use]
    pub fn is_guest(&self) -> bool {
        self.manifest().is_guest()
    }

    /// Whether the run has ended because its guest did not do its work: it can be started again.
    #[must_use]
    pub fn may_start_again(&self) -> bool {
        let failed = self.ended.as_ref().is_some_and(|end| end.status == EndStatus::Failed);
        failed && self.is_guest() && !self.guest.succeeded()
    }
}

/// What comes when the guest's program is over.
pub(crate) fn next(state: &State) -> Command {
    if state.guest.succeeded() {
        return finish(state);
    }
    let said = state.items.iter().rev().find_map(|placed| match &placed.item {
        Item::ToolResult { output, .. } => Some(output.lines().next_back().unwrap_or_default()),
        _ => None,
    });
    let said = said.unwrap_or_default().to_owned();
    let error = match state.guest.ended {
        Some((status, exit)) if status != OutcomeStatus::NotStarted => Failure {
            code: GUEST_FAILED.to_owned(),
            message: match exit {
                Some(exit) => format!("the guest ended with exit status {exit}"),
                None => format!("the guest was ended: {said}"),
            },
            next: "Start it again with `bedplate resume RUN`: what it asked a model before is \
                   answered from the log."
                .to_owned(),
        },
        _ => Failure {
            code: GUEST_NOT_RUN.to_owned(),
            message: format!("the guest was not run: {said}"),
            next: "Correct that, then `bedplate resume RUN`.".to_owned(),
        },
    };
    Command::End { status: EndStatus::Failed, error: Some(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Usage;
    use types::manifest::Dialect;

    fn called(key: &str, cost: u64) -> Body {
        let digest = Digest::of(key.as_bytes());
        Body::GuestCalled {
            dialect: Dialect::Chat,
            key: digest,
            asked: digest,
            asked_bytes: 1,
            base: None,
            head_bytes: 0,
            tail_bytes: 0,
            dropped: Vec::new(),
            hop: 0,
            route: "default".to_owned(),
            provider: "p".to_owned(),
            model: "m".to_owned(),
            credential: None,
            encoder: 1,
            request: digest,
            request_bytes: 1,
            cost: Usd::from_dollars(cost as f64).expect("an amount"),
            tokens: cost,
        }
    }

    fn answered(call: u64) -> Body {
        let usage = Usage { input_tokens: 1, output_tokens: 1, ..Usage::default() };
        Body::GuestAnswered {
            call,
            items: Vec::new(),
            native: false,
            finish: "stop".to_owned(),
            usage,
            cost: Usd::from_dollars(1.0).expect("an amount"),
            decoder: 1,
            error: None,
            restored: Vec::new(),
        }
    }

    fn key(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    /// Folds these records from number 10 on.
    fn fold(bodies: &[Body]) -> (Guest, Spent) {
        let (mut guest, mut spent) = (Guest::default(), Spent::default());
        for (at, body) in bodies.iter().enumerate() {
            guest.fold(10 + at as u64, body, &mut spent);
        }
        (guest, spent)
    }

    #[test]
    fn calls_in_flight_at_once_are_reserved_and_settled_one_by_one() {
        let (_, spent) = fold(&[called("a", 5), called("b", 7), answered(10)]);
        assert_eq!((spent.reserved_tokens, spent.tokens), (7, 2));
        assert_eq!(spent.reserved_cost, Usd::from_dollars(7.0).expect("an amount"));
        assert_eq!(spent.cost, Usd::from_dollars(1.0).expect("an amount"));
    }

    #[test]
    fn an_answer_is_served_once_to_each_start_and_to_its_own_key() {
        let (mut guest, mut spent) = fold(&[called("a", 1), answered(10), called("b", 1)]);
        assert_eq!(guest.answer_to(&key("a")), None, "the guest that runs has it");
        guest.interrupt();
        assert_eq!(guest.answer_to(&key("b")), None, "nobody knows the answer");
        assert_eq!(guest.answer_to(&key("a")), Some(11));
        guest.fold(20, &Body::GuestServed { key: key("a"), answer: 11 }, &mut spent);
        assert_eq!((guest.answer_to(&key("a")), guest.served()), (None, 1));
        guest.interrupt();
        assert_eq!(guest.answer_to(&key("a")), Some(11), "another start");
    }

    #[test]
    fn a_request_that_was_never_asked_diverges_while_answers_are_left() {
        let (mut guest, mut spent) = fold(&[called("a", 1), answered(10), called("b", 1)]);
        assert_eq!(guest.diverges(&key("c")), None, "it was never started again");
        guest.interrupt();
        assert_eq!(guest.diverges(&key("a")), None, "it is served");
        assert_eq!(guest.diverges(&key("b")), None, "it was asked, its answer is lost");
        assert_eq!(guest.diverges(&key("c")), Some(10));
        let diverged = Body::GuestDiverged { key: key("c"), expected: 10, served: 0 };
        guest.fold(20, &diverged, &mut spent);
        assert_eq!(guest.diverges(&key("d")), None, "it is said once");
        guest.interrupt();
        guest.fold(21, &Body::GuestServed { key: key("a"), answer: 11 }, &mut spent);
        assert_eq!(guest.diverges(&key("c")), None, "nothing is left to be served");
    }
}
