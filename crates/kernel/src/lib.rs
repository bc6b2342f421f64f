//! The run's state machine.
//!
//! ```text
//!            +-----------------------------------------------------------+
//!            v                                                           |
//!  started -> thinking (model) -> acting (decide, ask, start, finish) ---+
//!                 |                    |
//!                 |                    +--> waiting (a person, a signal, a timer) --> acting
//!                 +--> checking -> keeping artifacts -> ended --(send)--> thinking
//! ```
//!
//! [`State::fold`] turns records into state; [`next`] says, from the state and the time alone, what
//! to do next. Crash recovery, replay and forks are the same fold: a new owner appends `resumed`,
//! and what was in flight before it is *interrupted*, which [`next`] treats by effect class.
//!
//! What always holds: no command to start an action comes before a permitting decision; the same
//! records give the same state; an irreversible action that was interrupted is probed, never
//! started. What is never here: time, randomness, files, sockets, policy, provider dialects.

mod budget;
mod caller;
mod egress;
mod fold;
mod fork;
mod guest;
mod memory;
mod next;
mod quorum;
mod state;

pub use budget::{Spent, over_budget};
pub use caller::{Asked as AskedStep, Caller, STEPS_MAX, StepFault, Taken};
pub use egress::{Egress, Egresses, Grant, GrantPhase, Passage};
pub use fork::each;
pub use guest::{GUEST_TOOL, Guest};
pub use memory::Memory;
pub use next::{
    BACKOFF_FIRST_MS, BACKOFF_MS_MAX, Command, MODEL_ATTEMPTS_MAX, RETRY_AFTER_MS_MAX, next,
};
pub use quorum::Quorum;
pub use state::{
    Action, Ambiguity, Asked, CheckState, Ended, ModelCall, ModelPhase, ModelQuestion, Phase,
    Placed, Signal, State, Status, Timer,
};

#[cfg(test)]
mod tests;
