//! A caller's side of a run whose loop lives in the caller's own process: the steps it took.
//!
//! ```text
//!   opened --step n asked--> n is the next:   recorded, open --its outcome is recorded--> done
//!                            n is recorded:   the same: its outcome, when it has one
//!                                             another:  refused, and both are named
//!                            n is beyond:     refused
//!   opened again: the steps are asked for again from 0, and answered from the log
//! ```
//!
//! A step is carried out as the built-in loop's own doing: a tool call joins the conversation and is
//! proposed, decided, started and settled like a model's; a model call is `next`'s. Only who chooses
//! differs. What always holds: one step is open at a time; a step that has an outcome is never
//! carried out again; only who opened the run last may take a step.

use crate::next::{Command, finish};
use crate::state::{ModelPhase, Placed, State};
use serde::Serialize;
use types::{Coded, EndAs, EndStatus, Failure, Item, Labels, Step};

/// Steps of one run.
pub const STEPS_MAX: u64 = 100_000;
/// What a caller ended as failed.
const GAVE_UP: &str = "BP-SERVE-013";

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Taken {
    /// The record that asked for it.
    pub seq: u64,
    /// What it is.
    pub step: Step,
    /// The record that holds its outcome.
    pub done: Option<u64>,
}

/// What the log says of a run's caller.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Caller {
    /// What it names the run by.
    pub key: String,
    /// Who opened the run last, in the opener's word.
    pub opening: String,
    /// Its steps, in order.
    pub steps: Vec<Taken>,
}

/// Where a step that is asked for stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It is the next one.
    New,
    /// It is recorded; the record of its outcome, when it has one.
    Known(Option<u64>),
}

/// Why a step cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepFault {
    /// Another step stands at this place of the log.
    #[error("step {at} of this run was {recorded}, and is now {asked}")]
    Diverged {
        /// Its place.
        at: u64,
        /// What the log has, in short.
        recorded: String,
        /// What is asked for, in short.
        asked: String,
    },
    /// Not the next step, or the one before is not done.
    #[error("step {at} is out of turn: {why}")]
    OutOfTurn {
        /// Its place.
        at: u64,
        /// Why.
        why: String,
    },
    /// Another program has opened the run since.
    #[error("this run was opened again since: another program is its caller now")]
    Superseded,
    /// The run has no caller: its loop is not outside.
    #[error("this run takes no steps: its agent has a loop of its own")]
    NotSteps,
    /// A call of the model that is not there, or is done.
    #[error("step {at} carries out the call '{call_id}', {why}")]
    NoCall {
        /// The step's place.
        at: u64,
        /// The call.
        call_id: String,
        /// Why.
        why: String,
    },
}

impl Coded for StepFault {
    fn code(&self) -> &'static str {
        match self {
            Self::Diverged { .. } => "BP-SERVE-009",
            Self::OutOfTurn { .. } => "BP-SERVE-010",
            Self::Superseded => "BP-SERVE-011",
            Self::NotSteps => "BP-SERVE-012",
            Self::NoCall { .. } => "BP-SERVE-014",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Diverged { .. } => {
                "Make the program take the same steps for the same outcomes, or use another key for \
                 what is another piece of work."
            }
            Self::OutOfTurn { .. } => "Take steps one after the other, from 0, each once it is answered.",
            Self::Superseded => "End this program, or open the run again to take it over.",
            Self::NotSteps => "Open a run of your own with POST /v1/steps/runs.",
            Self::NoCall { .. } => "Carry out calls of the model's last answer, each once.",
        }
        .to_owned()
    }
}

impl Caller {
    /// Where step number `at` stands.
    ///
    /// # Errors
    /// When the log has another one there, or it is out of turn.
    pub fn place(&self, opening: &str, at: u64, step: &Step) -> Result<Asked, StepFault> {
        if opening != self.opening {
            return Err(StepFault::Superseded);
        }
        let taken = usize::try_from(at).ok().and_then(|index| self.steps.get(index));
        if let Some(taken) = taken {
            return if taken.step == *step {
                Ok(Asked::Known(taken.done))
            } else {
                let (recorded, asked) = (taken.step.short(), step.short());
                Err(StepFault::Diverged { at, recorded, asked })
            };
        }
        let out_of_turn = |why: String| Err(StepFault::OutOfTurn { at, why });
        let next = self.steps.len() as u64;
        if at >= STEPS_MAX {
            return out_of_turn(format!("a run has at most {STEPS_MAX} steps"));
        }
        if at != next {
            return out_of_turn(format!("step {next} is the next one"));
        }
        if self.open().is_some() {
            return out_of_turn(format!("step {} has no outcome yet", next - 1));
        }
        Ok(Asked::New)
    }

    /// The step that has no outcome yet, and its number.
    #[must_use]
    pub fn open(&self) -> Option<(u64, &Taken)> {
        let at = (self.steps.len() as u64).checked_sub(1)?;
        self.steps.last().filter(|taken| taken.done.is_none()).map(|taken| (at, taken))
    }

    /// What the caller ended the run with.
    pub(crate) fn last_words(&self) -> Option<&str> {
        match &self.steps.last()?.step {
            Step::End { output, .. } if !output.is_empty() => Some(output),
            _ => None,
        }
    }

    /// The open step has its outcome in this record.
    fn close(&mut self, seq: u64) {
        if let Some(taken) = self.steps.last_mut().filter(|taken| taken.done.is_none()) {
            taken.done = Some(seq);
        }
    }
}

impl State {
    /// Where a step of the run's caller stands.
    ///
    /// # Errors
    /// When the run has no caller, the log another step there, or it is out of turn.
    pub fn place_step(&self, opening: &str, at: u64, step: &Step) -> Result<Asked, StepFault> {
        let caller = self.caller.as_ref().ok_or(StepFault::NotSteps)?;
        // Of a run that has ended whoever asks may read: nothing is taken any more.
        let opening = if self.ended.is_some() { &caller.opening } else { opening };
        let asked = caller.place(opening, at, step)?;
        if let (Asked::New, Step::Tool { call_id: Some(id), name, arguments }) = (asked, step) {
            self.must_be_open(at, id, name, arguments)?;
        }
        Ok(asked)
    }

    /// A call of the model that nobody carried out, carried out as it was asked for.
    fn must_be_open(
        &self,
        at: u64,
        id: &str,
        name: &str,
        arguments: &serde_json::Value,
    ) -> Result<(), StepFault> {
        let fault =
            |why: &str| Err(StepFault::NoCall { at, call_id: id.to_owned(), why: why.to_owned() });
        match self.arguments(id) {
            None => fault("which no answer of the model has"),
            Some(_) if !self.unanswered_calls().any(|open| open == id) => fault("which is done"),
            Some((tool, asked)) if tool != name || asked != arguments => {
                fault("whose tool or arguments are others")
            }
            Some(_) => Ok(()),
        }
    }

    /// Calls of the conversation that have no result.
    fn unanswered_calls(&self) -> impl Iterator<Item = &str> {
        let results: std::collections::BTreeSet<&str> = self
            .items
            .iter()
            .filter_map(|placed| match &placed.item {
                Item::ToolResult { call_id, .. } => Some(call_id.as_str()),
                _ => None,
            })
            .collect();
        self.items.iter().filter_map(move |placed| match &placed.item {
            Item::ToolCall { call_id, .. } if !results.contains(call_id.as_str()) => {
                Some(call_id.as_str())
            }
            _ => None,
        })
    }

    /// The record that asked for what is going on: a caller's step, else the model's answer.
    #[must_use]
    pub fn asked_in(&self) -> Option<u64> {
        let open = self.caller.as_ref().and_then(Caller::open).map(|(_, taken)| taken.seq);
        open.or(self.answered)
    }

    /// A program opened the run.
    pub(crate) fn fold_opening(&mut self, key: &str, opening: &str) {
        let caller = self.caller.get_or_insert_with(Caller::default);
        caller.key = key.to_owned();
        caller.opening = opening.to_owned();
    }

    /// A step was asked for: what it is joins the conversation.
    pub(crate) fn fold_step(&mut self, seq: u64, at: u64, step: &Step) {
        let caller = self.caller.as_mut().expect("a step comes after its run was opened");
        assert!(caller.open().is_none(), "one step is open at a time");
        assert_eq!(at, caller.steps.len() as u64, "steps are taken in order");
        caller.steps.push(Taken { seq, step: step.clone(), done: None });
        match step {
            Step::Model { input } => {
                self.leave_calls(seq);
                if let Some(text) = input.clone() {
                    self.fold_item(seq, &Item::UserMessage { text });
                }
            }
            Step::Tool { call_id: Some(id), .. } => self.unproposed.push(id.clone()),
            Step::Tool { .. } | Step::Exec { .. } | Step::Check { .. } => {
                let call_id = step.call_id(at).expect("it is a call");
                let (name, arguments) = step.call().expect("it is a call");
                let name = name.to_owned();
                self.fold_item(seq, &Item::ToolCall { call_id, name, arguments });
            }
            Step::End { output, .. } => {
                self.leave_calls(seq);
                if !output.is_empty() {
                    let text = output.clone();
                    self.fold_item(seq, &Item::AssistantMessage { text });
                }
            }
        }
    }

    /// Calls that the caller did not carry out: a model must have a result for each.
    fn leave_calls(&mut self, seq: u64) {
        let open: Vec<String> = self.unanswered_calls().map(str::to_owned).collect();
        for call_id in open {
            let output = "the caller did not carry this out".to_owned();
            let labels = Labels::none();
            let item = Item::ToolResult { call_id, output, is_error: true, labels };
            self.items.push(Placed { seq, item });
        }
    }

    /// The open step has its outcome in this record.
    pub(crate) fn close_step(&mut self, seq: u64) {
        if let Some(caller) = &mut self.caller {
            caller.close(seq);
        }
    }
}

impl State {
    /// The run has ended: so has the step that ended it.
    pub(crate) fn close_end(&mut self, seq: u64) {
        let open = self.caller.as_ref().and_then(Caller::open);
        if matches!(open, Some((_, Taken { step: Step::End { .. }, .. }))) {
            self.close_step(seq);
        }
    }
}

/// What a caller's run does next; `None` while its model call is going on.
pub(crate) fn next(state: &State) -> Option<Command> {
    let caller = state.caller.as_ref()?;
    if !matches!(state.model, ModelPhase::Idle) {
        return None;
    }
    let command = match caller.open().map(|(_, taken)| &taken.step) {
        Some(Step::Model { .. }) => {
            Command::CallModel { hop: state.hop, attempt: state.attempts + 1 }
        }
        Some(Step::End { status: EndAs::Done, .. }) => finish(state),
        Some(Step::End { status: EndAs::Failed, output }) => {
            let error = Failure {
                code: GAVE_UP.to_owned(),
                message: format!("its caller gave up: {output}"),
                next: "Look at the program that took the steps.".to_owned(),
            };
            Command::End { status: EndStatus::Failed, error: Some(error) }
        }
        // A call's outcome closed its step; nothing is open but what was closed with the run.
        Some(_) | None => Command::AwaitCaller,
    };
    Some(command)
}
