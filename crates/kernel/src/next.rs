//! `next`: from state and time to what is to be done.

use crate::state::{Action, Ambiguity, ModelPhase, Phase, State};
use types::{ActionId, EffectClass, EndStatus, Failure, FaultClass, Item, ModelFault, WaitReason};

/// Attempts at one entry of a route before the next is tried.
pub const MODEL_ATTEMPTS_MAX: u32 = 4;
/// Pause before the second attempt; doubled each time.
pub const BACKOFF_FIRST_MS: u64 = 500;
/// Longest pause of our own choosing.
pub const BACKOFF_MS_MAX: u64 = 30_000;
/// Longest `Retry-After` that is waited for; a longer one means the next entry of the route.
pub const RETRY_AFTER_MS_MAX: u64 = 60_000;

/// What the runtime is to do next. One at a time: an action's order is the model's.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Plan this tool call: propose an action, or refuse it.
    Propose {
        /// The call.
        call_id: String,
    },
    /// Ask policy.
    Decide {
        /// The action.
        action: ActionId,
        /// The approval to take into account.
        approved: Option<u64>,
    },
    /// Ask a person.
    Ask {
        /// The action.
        action: ActionId,
    },
    /// The question's time is over.
    Expire {
        /// The record that asked.
        asked: u64,
    },
    /// Record the intent, then act.
    Start {
        /// The action.
        action: ActionId,
        /// Which attempt.
        attempt: u32,
    },
    /// Put the workspace back to where it was before the interrupted attempt.
    RollBack {
        /// The action that was interrupted.
        action: ActionId,
    },
    /// Ask the tool's probe whether it happened; without one, put it in doubt.
    Probe {
        /// The action.
        action: ActionId,
    },
    /// The signal came, or the timer fired: the waiting action ends.
    FinishWait {
        /// The action.
        action: ActionId,
        /// The signal, if one came.
        signal: Option<u64>,
    },
    /// Set a timer for another attempt.
    Backoff {
        /// For this action, or for the model.
        action: Option<ActionId>,
        /// How long from now.
        pause_ms: u64,
    },
    /// Nothing until this time, or until something comes from outside.
    SleepUntil {
        /// Wall milliseconds.
        due_ms: u64,
        /// The timer that fires then, if one does.
        timer: Option<u64>,
    },
    /// Call the model.
    CallModel {
        /// Which entry of the route.
        hop: u32,
        /// Which attempt at it, from 1.
        attempt: u32,
    },
    /// Go on with the next entry of the route.
    ChangeRoute {
        /// Its index.
        hop: u32,
        /// Why.
        failure: Failure,
    },
    /// An effect is in flight: wait for it.
    AwaitEffect,
    /// Run a check.
    Check {
        /// Its index in the manifest.
        index: usize,
    },
    /// Bring what the run changed in its memory to the runs to come.
    MergeMemory,
    /// Keep what the manifest names as results, then end.
    KeepArtifacts,
    /// End the run.
    End {
        /// How.
        status: EndStatus,
        /// Why.
        error: Option<Failure>,
    },
    /// Set the run aside: it cannot go on alone.
    Suspend {
        /// Why.
        reason: WaitReason,
        /// Details.
        failure: Option<Failure>,
    },
    /// A person, or a signal, must come first.
    AwaitPerson,
    /// The caller's next step must come first.
    AwaitCaller,
    /// It has ended.
    Ended,
}

/// What to do next at `now_ms` (wall milliseconds).
#[must_use]
pub fn next(state: &State, now_ms: u64) -> Command {
    if state.ended.is_some() {
        return Command::Ended;
    }
    if state.cancel {
        return cancelled(state);
    }
    if state.suspended.is_some() {
        return Command::AwaitPerson;
    }
    if let Some(action) = state.current_action() {
        return next_for_action(state, action, now_ms);
    }
    if let Some(call_id) = state.unproposed.first() {
        return Command::Propose { call_id: call_id.clone() };
    }
    if state.is_guest() {
        return crate::guest::next(state);
    }
    if let Some(command) = crate::caller::next(state) {
        return command;
    }
    match &state.model {
        ModelPhase::InFlight(_) => return Command::AwaitEffect,
        ModelPhase::Failed(fault) => return after_fault(state, fault),
        ModelPhase::Backoff { timer } => return sleep_on(state, *timer),
        ModelPhase::Asked(question) if now_ms >= question.expires_ms => {
            return Command::Expire { asked: question.seq };
        }
        ModelPhase::Asked(_) => return Command::AwaitPerson,
        ModelPhase::Approved(_) => {
            return Command::CallModel { hop: state.hop, attempt: state.attempts + 1 };
        }
        ModelPhase::Idle => {}
    }
    let agent_finished = state.items.last().is_some_and(|placed| {
        matches!(placed.item, Item::AssistantMessage { .. } | Item::Reasoning { .. })
    });
    let answered_nothing = state.answered.is_some_and(|seq| {
        state.items.last().is_some_and(|placed| placed.seq < seq)
            && state.items_sent as usize == state.items.len()
    });
    if agent_finished || answered_nothing {
        return finish(state);
    }
    Command::CallModel { hop: state.hop, attempt: state.attempts + 1 }
}

/// A person ended it: an irreversible action in flight is first put in doubt, never forgotten.
fn cancelled(state: &State) -> Command {
    let unclear = state.actions.values().find(|action| {
        let began = matches!(action.phase, Phase::Started | Phase::Ambiguous(_));
        began && action.effect == EffectClass::Irreversible
    });
    match unclear {
        Some(action) => Command::Probe { action: action.id },
        None => Command::End { status: EndStatus::Cancelled, error: None },
    }
}

fn next_for_action(state: &State, action: &Action, now_ms: u64) -> Command {
    let id = action.id;
    match &action.phase {
        Phase::Proposed => Command::Decide { action: id, approved: None },
        Phase::NeedsApproval => Command::Ask { action: id },
        Phase::Asked(asked) if now_ms >= asked.expires_ms => Command::Expire { asked: asked.seq },
        Phase::Asked(_) | Phase::InDoubt { .. } => Command::AwaitPerson,
        Phase::Approved { asked } => Command::Decide { action: id, approved: Some(*asked) },
        Phase::Permitted => Command::Start { action: id, attempt: action.attempts + 1 },
        Phase::Started => Command::AwaitEffect,
        Phase::Waiting { timer } => next_for_waiting(state, action, *timer, now_ms),
        Phase::Backoff { timer } => sleep_on(state, *timer),
        Phase::RetryDue => Command::Backoff {
            action: Some(id),
            pause_ms: backoff_ms(tool_backoff_ms(state, action), action.attempts),
        },
        Phase::Interrupted if action.effect == EffectClass::Workspace => {
            Command::RollBack { action: id }
        }
        Phase::Interrupted | Phase::RolledBack => {
            Command::Decide { action: id, approved: action.approved }
        }
        Phase::Ambiguous(Ambiguity::Crash | Ambiguity::Unclear) => Command::Probe { action: id },
        Phase::Settled => unreachable!("a settled action is never the current one"),
    }
}

fn next_for_waiting(state: &State, action: &Action, timer: Option<u64>, now_ms: u64) -> Command {
    if let Some(signal) = state.signal_for(action) {
        return Command::FinishWait { action: action.id, signal: Some(signal.seq) };
    }
    let Some(seq) = timer else {
        return Command::AwaitPerson;
    };
    match state.timers.get(&seq) {
        Some(timer) if now_ms < timer.due_ms => {
            Command::SleepUntil { due_ms: timer.due_ms, timer: None }
        }
        _ => Command::FinishWait { action: action.id, signal: None },
    }
}

fn sleep_on(state: &State, timer: u64) -> Command {
    let due_ms = state.timers.get(&timer).map_or(0, |timer| timer.due_ms);
    Command::SleepUntil { due_ms, timer: Some(timer) }
}

fn tool_backoff_ms(state: &State, action: &Action) -> u64 {
    let tool = state.manifest().tools.iter().find(|tool| tool.name == action.tool);
    tool.map_or(BACKOFF_FIRST_MS, |tool| tool.backoff_ms)
}

/// `first`, doubled with each attempt, up to the cap.
fn backoff_ms(first: u64, attempts: u32) -> u64 {
    let doublings = attempts.saturating_sub(1).min(16);
    first.saturating_mul(1 << doublings).min(BACKOFF_MS_MAX)
}

/// Another attempt, another entry, or nobody left to ask.
fn after_fault(state: &State, fault: &ModelFault) -> Command {
    let retry_after_ms = fault.retry_after_ms.unwrap_or(0);
    let again = fault.class == FaultClass::Transient
        && state.attempts < MODEL_ATTEMPTS_MAX
        && retry_after_ms <= RETRY_AFTER_MS_MAX;
    if again {
        let pause_ms = backoff_ms(BACKOFF_FIRST_MS, state.attempts).max(retry_after_ms);
        return Command::Backoff { action: None, pause_ms };
    }
    if fault.class == FaultClass::Interrupted {
        return Command::CallModel { hop: state.hop, attempt: state.attempts + 1 };
    }
    let route = &state.manifest().routes[&state.manifest().agent.model];
    let hop = state.hop + 1;
    let failure = fault.failure.clone();
    if (hop as usize) < route.len() {
        return Command::ChangeRoute { hop, failure };
    }
    if fault.class == FaultClass::Rejected {
        return Command::End { status: EndStatus::Failed, error: Some(failure) };
    }
    Command::Suspend { reason: WaitReason::Model, failure: Some(failure) }
}

/// The agent says it is done: checks, then memory, then artifacts, then the end.
pub(crate) fn finish(state: &State) -> Command {
    if state.checking.is_some() {
        return Command::AwaitEffect;
    }
    if let Some(failed) = state.checks.iter().find(|check| !check.passed) {
        let error = Failure {
            code: "BP-RUN-006".to_owned(),
            message: format!("the check '{}' did not pass", failed.name),
            next: "Read what it printed with `bedplate explain RUN`; give new instructions with `bedplate send RUN TEXT`.".to_owned(),
        };
        return Command::End { status: EndStatus::Failed, error: Some(error) };
    }
    let due = |name: &str| !state.checks.iter().any(|check| check.name == name);
    match state.manifest().checks.iter().position(|check| due(&check.name)) {
        Some(index) => Command::Check { index },
        None if state.owes_memory() => Command::MergeMemory,
        None => Command::KeepArtifacts,
    }
}
