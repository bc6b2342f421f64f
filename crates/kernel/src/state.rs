//! The state of a run: its log, folded.

use crate::budget::Spent;
use crate::caller::Caller;
use crate::egress::Egresses;
use crate::guest::Guest;
use crate::memory::Memory;
use crate::quorum::Quorum;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use types::manifest::Manifest;
use types::{
    ActionId, ActionRequest, Attempt, Digest, EffectClass, EndStatus, Failure, Item, Labels,
    LayerId, ModelFault, Output, TimerPurpose, WaitReason,
};

/// An item and the record it came with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Placed {
    /// The record.
    pub seq: u64,
    /// The item.
    pub item: Item,
}

/// Why nobody knows whether an attempt took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ambiguity {
    /// The owner died between intent and outcome.
    Crash,
    /// The tool passed its time limit, died by a signal or reported failure after it began.
    Unclear,
}

/// An approval that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// The record that asked.
    pub seq: u64,
    /// When it expires, wall milliseconds.
    pub expires_ms: u64,
    /// What is shown.
    pub shown: String,
    /// Who has approved.
    pub quorum: Quorum,
}

/// Where an action stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Not decided, or to be decided again.
    Proposed,
    /// Policy wants a person.
    NeedsApproval,
    /// A person was asked.
    Asked(Asked),
    /// A person approved; to be decided once more.
    Approved {
        /// The record that asked.
        asked: u64,
    },
    /// It may start.
    Permitted,
    /// In flight under this epoch.
    Started,
    /// It waits for a signal or a timer.
    Waiting {
        /// The timer, if there is one.
        timer: Option<u64>,
    },
    /// A retry was timed.
    Backoff {
        /// The timer.
        timer: u64,
    },
    /// A retry is due but not timed yet.
    RetryDue,
    /// It was in flight when its owner died, and may be done again.
    Interrupted,
    /// As before, and the workspace is back where it was.
    RolledBack,
    /// It may have happened: the probe is to be asked.
    Ambiguous(Ambiguity),
    /// Only a person can say whether it happened.
    InDoubt {
        /// The record that said so.
        seq: u64,
    },
    /// Its outcome is in the conversation.
    Settled,
}

/// One action.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Action {
    /// The record that proposed it.
    pub id: ActionId,
    /// The call in the conversation.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// Its effect class.
    pub effect: EffectClass,
    /// What policy is asked.
    pub requests: Vec<ActionRequest>,
    /// Where it stands.
    pub phase: Phase,
    /// Attempts started.
    pub attempts: u32,
    /// The record of the last decision.
    pub decided: Option<u64>,
    /// The record of the last intent.
    pub started: Option<u64>,
    /// Whether a person approved it.
    pub approved: Option<u64>,
    /// What it gave, once settled or while it is unclear.
    pub output: Option<Output>,
}

/// Where the model call stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ModelPhase {
    /// None in flight.
    Idle,
    /// In flight under this epoch.
    InFlight(ModelCall),
    /// It failed; nothing was decided yet.
    Failed(ModelFault),
    /// Another attempt is timed.
    Backoff {
        /// The timer.
        timer: u64,
    },
    /// A person was asked about exactly these bytes.
    Asked(ModelQuestion),
    /// A person approved them; to be decided once more, and sent once.
    Approved(ModelQuestion),
}

/// A question about a model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelQuestion {
    /// The record that asked.
    pub seq: u64,
    /// Provider and model, as a route names them.
    pub what: String,
    /// Exactly what is shown.
    pub shown: String,
    /// Digest of the bytes that would be sent.
    pub bound: Digest,
    /// When it expires, wall milliseconds.
    pub expires_ms: u64,
}

/// A model call in flight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ModelCall {
    /// Its record.
    pub seq: u64,
    /// Number of items it carries.
    pub items: u64,
}

/// A timer that has not fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timer {
    /// The record that set it.
    pub seq: u64,
    /// When, wall milliseconds.
    pub due_ms: u64,
    /// What for.
    pub purpose: TimerPurpose,
}

/// A signal nobody waited for yet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Signal {
    /// Its record.
    pub seq: u64,
    /// Its name.
    pub name: String,
    /// What it carries.
    pub payload: Value,
}

/// A check in this round of checking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckState {
    /// Its name.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// Its record.
    pub seq: u64,
}

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Ended {
    /// How.
    pub status: EndStatus,
    /// The agent's last words.
    pub output: String,
    /// Why it failed.
    pub error: Option<Failure>,
    /// The record.
    pub seq: u64,
}

/// What people are told about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The agent finished and every check passed.
    Done,
    /// It failed.
    Failed,
    /// Only a person, or what a person must bring, can move it.
    Waiting,
    /// Set aside.
    Suspended,
    /// Ended by a person.
    Cancelled,
    /// It can go on by itself.
    Running,
}

/// A run's log, folded.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct State {
    /// Number of the next record.
    pub next_seq: u64,
    /// The manifest; `None` only before the first record.
    #[serde(skip)]
    pub manifest: Option<Box<Manifest>>,
    /// The owner's epoch.
    pub epoch: u64,
    /// The conversation.
    pub items: Vec<Placed>,
    /// The layer the run began with.
    pub base: Option<LayerId>,
    /// The workspace now.
    pub layer: Option<LayerId>,
    /// What outlives the run, when the agent has such memory.
    pub memory: Option<Memory>,
    /// Whether the workspace differs from what the last flush covered.
    pub actions: BTreeMap<ActionId, Action>,
    /// Calls of the last answer that have no action and no result yet.
    pub unproposed: Vec<String>,
    /// The model call.
    pub model: ModelPhase,
    /// Which entry of the route is in use.
    pub hop: u32,
    /// Attempts at this hop since the last answer.
    pub attempts: u32,
    /// Record of the last model answer.
    pub answered: Option<u64>,
    /// Items the last call carried.
    pub items_sent: u64,
    /// Settled actions the model has not read yet.
    pub undelivered: BTreeSet<ActionId>,
    /// What was spent.
    pub spent: Spent,
    /// Checks of this round.
    pub checks: Vec<CheckState>,
    /// A check in flight.
    pub checking: Option<String>,
    /// Artifacts of this round: path to record.
    pub artifacts: BTreeMap<String, u64>,
    /// Timers not fired.
    pub timers: BTreeMap<u64, Timer>,
    /// Signals nobody waited for.
    pub signals: Vec<Signal>,
    /// A person asked to end it.
    pub cancel: bool,
    /// Why it is set aside.
    pub suspended: Option<(WaitReason, Option<Failure>)>,
    /// How it ended.
    pub ended: Option<Ended>,
    /// Labels of everything in the context.
    pub labels: Labels,
    /// Wall time of the oldest fetched input: its own word, else its receipt.
    pub oldest_input_ms: Option<u64>,
    /// The record that brought it.
    pub oldest_input: Option<u64>,
    /// Permission entries added to this run alone.
    pub allowed: Vec<String>,
    /// Actions denied.
    pub denials: u64,
    /// Approvals given.
    pub approvals: u64,
    /// Entries that a person approved for the rest of the run, by the record that asked.
    pub standing: BTreeMap<u64, Vec<String>>,
    /// Requests of the sandbox.
    pub egress: Egresses,
    /// The guest, when a program of others is the agent.
    pub guest: Guest,
    /// The caller, when the loop is a program's outside.
    pub caller: Option<Caller>,
    /// Which attempt of a rollout it is.
    pub attempt: Option<Attempt>,
    /// Wall time of the last record.
    pub last_ms: u64,
}

impl State {
    /// Before the first record.
    #[must_use]
    pub fn new() -> Self {
        Self {
            next_seq: 0,
            manifest: None,
            epoch: 0,
            items: Vec::new(),
            base: None,
            layer: None,
            memory: None,
            actions: BTreeMap::new(),
            unproposed: Vec::new(),
            model: ModelPhase::Idle,
            hop: 0,
            attempts: 0,
            answered: None,
            items_sent: 0,
            undelivered: BTreeSet::new(),
            spent: Spent::default(),
            checks: Vec::new(),
            checking: None,
            artifacts: BTreeMap::new(),
            timers: BTreeMap::new(),
            signals: Vec::new(),
            cancel: false,
            suspended: None,
            ended: None,
            labels: Labels::none(),
            oldest_input_ms: None,
            oldest_input: None,
            allowed: Vec::new(),
            denials: 0,
            approvals: 0,
            standing: BTreeMap::new(),
            egress: Egresses::default(),
            guest: Guest::default(),
            caller: None,
            attempt: None,
            last_ms: 0,
        }
    }

    /// The manifest.
    ///
    /// # Panics
    /// Before the first record was folded: the runtime never asks then.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.manifest.as_deref().expect("the first record of a run carries its manifest")
    }

    /// The tool call of an action, as the model made it.
    #[must_use]
    pub fn arguments(&self, call_id: &str) -> Option<(&str, &Value)> {
        self.items.iter().rev().find_map(|placed| match &placed.item {
            Item::ToolCall { call_id: id, name, arguments } if id == call_id => {
                Some((name.as_str(), arguments))
            }
            _ => None,
        })
    }

    /// The first action that is not settled, in the order it was asked for.
    #[must_use]
    pub fn current_action(&self) -> Option<&Action> {
        self.actions.values().find(|action| action.phase != Phase::Settled)
    }

    /// The agent's last words.
    #[must_use]
    pub fn last_words(&self) -> String {
        if let Some(words) = self.caller.as_ref().and_then(Caller::last_words) {
            return words.to_owned();
        }
        let texts = self.items.iter().rev().take_while(|placed| {
            !matches!(placed.item, Item::UserMessage { .. } | Item::ToolResult { .. })
        });
        let mut words: Vec<&str> = texts
            .filter_map(|placed| match &placed.item {
                Item::AssistantMessage { text } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        words.reverse();
        words.join("\n")
    }

    /// What people are told. `live` is whether an owner is moving the run now.
    #[must_use]
    pub fn status(&self, live: bool) -> Status {
        if let Some(ended) = &self.ended {
            return match ended.status {
                EndStatus::Done => Status::Done,
                EndStatus::Failed => Status::Failed,
                EndStatus::Cancelled => Status::Cancelled,
            };
        }
        if self.needs_person() {
            return Status::Waiting;
        }
        if live {
            return Status::Running;
        }
        Status::Suspended
    }

    /// Whether only a person, or what a person must bring, can move the run.
    #[must_use]
    pub fn needs_person(&self) -> bool {
        let set_aside = matches!(self.suspended, Some((WaitReason::Model | WaitReason::Host, _)));
        set_aside
            || self.model_question().is_some()
            || self.current_action().is_some_and(|action| self.action_needs_person(action))
    }

    /// The question about a model call that waits for a person.
    #[must_use]
    pub fn model_question(&self) -> Option<&ModelQuestion> {
        match &self.model {
            ModelPhase::Asked(question) if self.ended.is_none() => Some(question),
            _ => None,
        }
    }

    fn action_needs_person(&self, action: &Action) -> bool {
        match &action.phase {
            Phase::Asked(_) | Phase::InDoubt { .. } => true,
            Phase::Waiting { timer: None } => self.signal_for(action).is_none(),
            _ => false,
        }
    }

    /// The signal that ends this waiting action, if it has come.
    #[must_use]
    pub fn signal_for(&self, action: &Action) -> Option<&Signal> {
        let (_, arguments) = self.arguments(&action.call_id)?;
        let name = arguments.get("signal")?.as_str()?;
        self.signals.iter().find(|signal| signal.name == name)
    }

    /// Actions that a person must answer for: asked, and in doubt.
    pub fn open_questions(&self) -> impl Iterator<Item = &Action> {
        self.actions
            .values()
            .filter(|action| matches!(action.phase, Phase::Asked(_) | Phase::InDoubt { .. }))
    }
}

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}
