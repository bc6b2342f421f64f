//! A run that begins in the middle of another, or goes back to where it was: what it takes with it.
//!
//! ```text
//!   in flight, could not be taken back -> Settled: it is not done here
//!   in flight, anything else           -> Interrupted: done again
//!   asked, approved, permitted         -> Proposed: decided again
//!   waiting, settled                   -> as it was
//! ```
//!
//! What always holds: nothing that a person said or a policy permitted at that moment counts from
//! here on, and what was sent irreversibly, or may have been, stays known.

use crate::state::{ModelPhase, Phase, State};
use std::collections::{BTreeMap, BTreeSet};
use types::{ActionId, EffectClass, Labels, Record, RunId, WaitReason};

/// Folds records, the first of a run first, and shows each with the state before it. Gives the
/// state after the last.
pub fn each<'a>(
    records: impl IntoIterator<Item = &'a Record>,
    mut see: impl FnMut(&State, &'a Record),
) -> State {
    let records: Vec<&Record> = records.into_iter().collect();
    let wanted: BTreeSet<u64> = records.iter().filter_map(|r| r.body.goes_back_to()).collect();
    let mut kept: BTreeMap<u64, State> = BTreeMap::new();
    let mut state = State::new();
    for record in records {
        see(&state, record);
        match record.body.goes_back_to() {
            Some(at) => {
                let past = kept.get(&at).expect("a run goes back to a record before").clone();
                state.go_back(past, record);
            }
            None => state.fold(record),
        }
        if wanted.contains(&record.stamp.seq) {
            kept.insert(record.stamp.seq, state.clone());
        }
    }
    state
}

impl State {
    /// The run is as it was, but for what cannot be undone: what it spent, was permitted for
    /// itself, and sent.
    fn go_back(&mut self, mut past: Self, record: &Record) {
        let seq = record.stamp.seq;
        assert_eq!(seq, self.next_seq, "records are folded in order, without gaps");
        self.fold_time(record);
        self.spent.forfeit();
        self.egress.set_apart();
        past.set_apart(seq, "this run was doing it at the moment it went back to");
        past.egress.learn(&self.egress);
        past.next_seq = seq + 1;
        past.epoch = self.epoch;
        past.attempt = self.attempt;
        past.last_ms = self.last_ms;
        past.spent = self.spent;
        past.denials = self.denials;
        past.approvals = self.approvals;
        past.allowed = std::mem::take(&mut self.allowed);
        *self = past;
    }

    /// The run goes on from here under an id of its own.
    pub(crate) fn fold_fork(&mut self, seq: u64, origin: &RunId) {
        self.set_apart(seq, &format!("run {origin}, which this run was forked from, was doing it"));
        self.epoch = 0;
        self.spent.drop_reservations();
        // Given to that run alone, and kept on the host for it.
        self.allowed.clear();
        self.artifacts.clear();
    }

    /// Takes out of the state what belongs to the moment it was in.
    pub(crate) fn set_apart(&mut self, seq: u64, whose: &str) {
        self.settle_irreversible(seq, whose);
        for action in self.actions.values_mut() {
            action.phase = match std::mem::replace(&mut action.phase, Phase::Settled) {
                Phase::Permitted
                | Phase::NeedsApproval
                | Phase::Asked(_)
                | Phase::Approved { .. } => Phase::Proposed,
                Phase::Started => Phase::Interrupted,
                other => other,
            };
            action.approved = None;
        }
        self.standing.clear();
        self.egress.set_apart();
        self.guest.interrupt();
        self.model = ModelPhase::Idle;
        self.attempts = 0;
        self.checking = None;
        self.cancel = false;
        self.suspended = Some((WaitReason::Person, None));
    }

    /// An irreversible action in flight is somebody else's: it is never done again here.
    fn settle_irreversible(&mut self, seq: u64, whose: &str) {
        let open = |phase: &Phase| {
            matches!(phase, Phase::Started | Phase::Ambiguous(_) | Phase::InDoubt { .. })
        };
        let class = |id: ActionId, effect: EffectClass| {
            self.egress.highest(id).map_or(effect, |highest| effect.max(highest))
        };
        let found: Vec<ActionId> = self
            .actions
            .values()
            .filter(|a| open(&a.phase) && class(a.id, a.effect) == EffectClass::Irreversible)
            .map(|action| action.id)
            .collect();
        for id in found {
            let text = format!("it was not done here, and may have happened: {whose}");
            self.settle(seq, id, text, true, &Labels::none());
        }
    }
}
