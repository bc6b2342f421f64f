//! What left the sandbox, folded: what is in flight, what was sent, what a person may still permit.
//!
//! ```text
//!   decided --permit--> Open --ended--> Sent | Unsent        crash while Open --> Doubtful
//!           --ask-----> (asked) --approved--> a grant --permit of the same digest--> spent
//! ```
//!
//! What always holds: a grant is spent once, by the digest it is bound to and before it expires. A
//! twin of what was sent irreversibly, or may have been, is never permitted unasked.

use crate::quorum::Quorum;
use crate::state::State;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use types::{ActionId, ActionRequest, ApprovalVerdict, Body, Digest, EffectClass, Kept, Verdict};

/// Where a permitted request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Passage {
    /// In flight.
    Open,
    /// It was sent.
    Sent,
    /// Nothing of it left.
    Unsent,
    /// Its owner died while it was in flight.
    Doubtful,
}

/// A request that was permitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Egress {
    /// The action that made it.
    pub during: Option<ActionId>,
    /// Digest of all that was sent.
    pub digest: Digest,
    /// What sending it twice would mean.
    pub effect: EffectClass,
    /// What it is, in a few words.
    pub what: String,
    /// Whether a person approved it.
    pub approved: bool,
    /// Where it stands.
    pub passage: Passage,
}

/// Where a question about a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantPhase {
    /// Nobody has answered.
    Asked,
    /// A person approved, and it was not spent.
    Approved,
    /// It is over: spent, denied or expired.
    Over,
}

/// A question about a request, and the approval that may come of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Grant {
    /// The decision that led to it.
    pub egress: u64,
    /// What was asked of policy.
    pub request: Box<ActionRequest>,
    /// What it is bound to.
    pub bound: Digest,
    /// Exactly what is shown.
    pub shown: String,
    /// When it expires, wall milliseconds.
    pub expires_ms: u64,
    /// Where it stands.
    pub phase: GrantPhase,
    /// Who has approved.
    pub quorum: Quorum,
}

/// Everything about requests of the sandbox.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Egresses {
    /// Permitted requests that are in flight, or whose repetition matters, by their record.
    pub passed: BTreeMap<u64, Egress>,
    /// Questions, by the record that asked.
    pub grants: BTreeMap<u64, Grant>,
    /// Decisions to ask whose question is not recorded yet.
    asked_for: BTreeMap<u64, Box<ActionRequest>>,
    /// Digests of what was sent irreversibly, or may have been.
    sent: BTreeSet<Digest>,
    /// Records of the run that is replayed whose answers were given.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    replayed: BTreeSet<u64>,
    /// Those of them that go to the command or check in flight: done again, it gets them again.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    replaying: BTreeSet<u64>,
    /// Bytes of answers that the log keeps.
    #[serde(skip_serializing_if = "is_zero")]
    pub kept_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(bytes: &u64) -> bool {
    *bytes == 0
}

impl Egresses {
    /// Folds a record about a request. Says whether it was a denial.
    pub(crate) fn fold(&mut self, seq: u64, body: &Body) -> bool {
        match body {
            Body::EgressDecided {
                during,
                request,
                bound,
                effect,
                verdict,
                approved,
                replays,
                ..
            } => {
                self.replaying.extend(replays.filter(|answer| self.replayed.insert(*answer)));
                if let Some(grant) = approved.and_then(|asked| self.grants.get_mut(&asked)) {
                    grant.phase = GrantPhase::Over;
                }
                match verdict {
                    Verdict::Permit => {
                        let (during, digest) = (*during, *bound);
                        let (effect, passage, what) = (*effect, Passage::Open, request.resource());
                        let approved = approved.is_some();
                        let egress = Egress { during, digest, effect, what, approved, passage };
                        self.passed.insert(seq, egress);
                    }
                    Verdict::Ask => {
                        self.asked_for.insert(seq, request.clone());
                    }
                    Verdict::Deny => return true,
                }
            }
            Body::EgressAsked { egress, shown, bound, expires_ms, needs } => {
                let request = self.asked_for.remove(egress);
                let request = request.expect("a question follows a decision to ask");
                let (egress, bound, shown) = (*egress, *bound, shown.clone());
                let (expires_ms, phase) = (*expires_ms, GrantPhase::Asked);
                let quorum = Quorum::new(*needs);
                let grant = Grant { egress, request, bound, shown, expires_ms, phase, quorum };
                self.grants.insert(seq, grant);
            }
            Body::EgressEnded { egress, sent, kept, .. } => {
                if let Some(Kept::Whole(bytes)) = kept {
                    self.kept_bytes = self.kept_bytes.saturating_add(*bytes);
                }
                let passage = if *sent { Passage::Sent } else { Passage::Unsent };
                self.settle(*egress, passage);
            }
            other => unreachable!("not a record of egress: {}", other.kind()),
        }
        false
    }

    /// What is over is forgotten but for what must not happen twice.
    fn settle(&mut self, egress: u64, passage: Passage) {
        let Some(found) = self.passed.get_mut(&egress) else { return };
        found.passage = passage;
        let matters = found.effect == EffectClass::Irreversible && passage != Passage::Unsent;
        if matters {
            self.sent.insert(found.digest);
        }
        if found.during.is_none() || !matters {
            self.passed.remove(&egress);
        }
    }

    /// A new owner: nobody knows what became of requests in flight.
    pub(crate) fn interrupt(&mut self) {
        let open: Vec<u64> = self.passed.keys().copied().collect();
        for egress in open {
            if self.passed[&egress].passage == Passage::Open {
                self.settle(egress, Passage::Doubtful);
            }
        }
        self.asked_for.clear();
        for answer in std::mem::take(&mut self.replaying) {
            self.replayed.remove(&answer);
        }
    }

    /// A command or a check has ended, with the answers it was given.
    pub(crate) fn command_ended(&mut self) {
        self.replaying.clear();
    }

    /// Whether the answer of this record, of the run that is replayed, was given.
    #[must_use]
    pub fn was_replayed(&self, answer: u64) -> bool {
        self.replayed.contains(&answer)
    }

    /// A run that begins or goes back here: what was in flight may have been sent, and no question
    /// or answer counts.
    pub(crate) fn set_apart(&mut self) {
        self.interrupt();
        self.grants.clear();
    }

    /// What the other knows to have been sent irreversibly, or to may have been, is known here too,
    /// and what its log keeps.
    pub(crate) fn learn(&mut self, other: &Self) {
        self.kept_bytes = other.kept_bytes;
        self.sent.extend(other.sent.iter().copied());
    }

    /// Takes an answer, when the record asked about a request. Says whether it did.
    pub(crate) fn answer(&mut self, asked: u64, verdict: ApprovalVerdict) -> bool {
        let Some(grant) = self.grants.get_mut(&asked) else { return false };
        grant.phase = match verdict {
            ApprovalVerdict::Approved => GrantPhase::Approved,
            ApprovalVerdict::Denied | ApprovalVerdict::Expired => GrantPhase::Over,
        };
        true
    }

    /// The highest class of what left, or may have left, during an action.
    #[must_use]
    pub fn highest(&self, during: ActionId) -> Option<EffectClass> {
        let mine = self.passed.values().filter(|egress| egress.during == Some(during));
        mine.map(|egress| egress.effect).max()
    }

    /// What a decision to ask was about, until its question is recorded.
    #[must_use]
    pub fn asked_for(&self, egress: u64) -> Option<&ActionRequest> {
        self.asked_for.get(&egress).map(|request| &**request)
    }

    /// Whether the same was sent irreversibly before, or may have been.
    #[must_use]
    pub fn has_twin(&self, digest: &Digest) -> bool {
        let in_flight = |egress: &Egress| {
            egress.effect == EffectClass::Irreversible && egress.passage == Passage::Open
        };
        self.sent.contains(digest)
            || self.passed.values().any(|egress| in_flight(egress) && egress.digest == *digest)
    }

    /// An approval of exactly this that is not spent.
    #[must_use]
    pub fn grant(&self, digest: &Digest, now_ms: u64) -> Option<u64> {
        self.find(digest, now_ms, GrantPhase::Approved)
    }

    /// A question about exactly this that nobody has answered.
    #[must_use]
    pub fn question(&self, digest: &Digest, now_ms: u64) -> Option<u64> {
        self.find(digest, now_ms, GrantPhase::Asked)
    }

    fn find(&self, digest: &Digest, now_ms: u64, phase: GrantPhase) -> Option<u64> {
        let mut grants = self.grants.iter();
        let found = grants.find(|(_, grant)| {
            grant.bound == *digest && grant.phase == phase && now_ms < grant.expires_ms
        });
        found.map(|(asked, _)| *asked)
    }
}

impl State {
    /// Questions about requests that a person may still answer, by the record that asked.
    pub fn open_egress(&self, now_ms: u64) -> impl Iterator<Item = (u64, &Grant)> {
        self.egress
            .grants
            .iter()
            .filter(move |(_, grant)| grant.phase == GrantPhase::Asked && now_ms < grant.expires_ms)
            .map(|(asked, grant)| (*asked, grant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Carried;

    fn decided(effect: EffectClass, verdict: Verdict, approved: Option<u64>, what: &str) -> Body {
        let request = ActionRequest::HttpRequest {
            host: "api.test".to_owned(),
            method: "POST".to_owned(),
            path: format!("/{what}"),
            port: 443,
            scheme: "https".to_owned(),
            query: String::new(),
            facts: None,
        };
        Body::EgressDecided {
            during: Some(7),
            request: Box::new(request),
            bound: Digest::of(what.as_bytes()),
            effect,
            verdict,
            approved,
            policies: Vec::new(),
            reason: String::new(),
            policy_set: Digest::of(b"set"),
            input: Digest::of(b"input"),
            carried: Carried::default(),
            failure: None,
            exchange: None,
            replays: None,
        }
    }

    fn ended(egress: u64, sent: bool) -> Body {
        let (status, bytes_up, bytes_down, failure) = (200, 0, 0, None);
        Body::EgressEnded {
            egress,
            status,
            bytes_up,
            bytes_down,
            failure,
            sent,
            as_of: None,
            kept: None,
        }
    }

    fn asked(egress: u64, what: &str) -> Body {
        let bound = Digest::of(what.as_bytes());
        Body::EgressAsked { egress, shown: what.to_owned(), bound, expires_ms: 100, needs: 1 }
    }

    const SENT: EffectClass = EffectClass::Irreversible;

    #[test]
    fn a_command_has_the_class_of_what_left_it() {
        let mut all = Egresses::default();
        assert_eq!(all.highest(7), None);
        assert!(!all.fold(1, &decided(EffectClass::Read, Verdict::Permit, None, "a")));
        assert_eq!(all.highest(7), Some(EffectClass::Read));
        all.fold(2, &decided(SENT, Verdict::Permit, None, "b"));
        all.fold(3, &ended(1, true));
        all.fold(4, &ended(2, true));
        assert_eq!((all.highest(7), all.highest(8)), (Some(SENT), None));
        assert!(all.fold(5, &decided(SENT, Verdict::Deny, None, "c")), "it is a denial");
        // What was permitted and never left counts for nothing.
        let mut none = Egresses::default();
        none.fold(1, &decided(SENT, Verdict::Permit, None, "a"));
        none.fold(2, &ended(1, false));
        assert_eq!(none.highest(7), None);
    }

    #[test]
    fn a_twin_is_known_while_in_flight_when_sent_and_when_in_doubt() {
        let digest = Digest::of(b"a");
        let check = |then: &dyn Fn(&mut Egresses), expected: bool| {
            let mut all = Egresses::default();
            assert!(!all.has_twin(&digest));
            all.fold(1, &decided(SENT, Verdict::Permit, None, "a"));
            then(&mut all);
            assert_eq!(all.has_twin(&digest), expected);
            assert!(!all.has_twin(&Digest::of(b"b")));
        };
        check(&|_| {}, true);
        check(&|all| assert!(!all.fold(2, &ended(1, true))), true);
        check(&|all| assert!(!all.fold(2, &ended(1, false))), false);
        check(&Egresses::interrupt, true);
        // Reading twice harms nobody.
        let mut read = Egresses::default();
        read.fold(1, &decided(EffectClass::Read, Verdict::Permit, None, "a"));
        read.fold(2, &ended(1, true));
        assert!(!read.has_twin(&digest));
    }

    #[test]
    fn a_grant_is_spent_once_by_its_own_digest_and_in_time() {
        let (digest, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let mut all = Egresses::default();
        all.fold(1, &decided(SENT, Verdict::Ask, None, "a"));
        assert!(all.asked_for(1).is_some());
        all.fold(2, &asked(1, "a"));
        assert_eq!((all.question(&digest, 99), all.question(&digest, 100)), (Some(2), None));
        assert_eq!(all.grant(&digest, 99), None, "nobody has approved");
        assert!(
            all.answer(2, ApprovalVerdict::Approved) && !all.answer(9, ApprovalVerdict::Approved)
        );
        assert_eq!((all.grant(&digest, 99), all.grant(&other, 99)), (Some(2), None));
        assert_eq!(all.grant(&digest, 100), None, "it has expired");
        all.fold(4, &decided(SENT, Verdict::Permit, Some(2), "a"));
        assert_eq!(all.grant(&digest, 99), None, "it is spent");
        for verdict in [ApprovalVerdict::Denied, ApprovalVerdict::Expired] {
            let mut all = Egresses::default();
            all.fold(1, &decided(SENT, Verdict::Ask, None, "a"));
            all.fold(2, &asked(1, "a"));
            all.answer(2, verdict);
            assert_eq!((all.grant(&digest, 99), all.question(&digest, 99)), (None, None));
        }
    }

    #[test]
    fn a_command_that_is_done_again_gets_the_same_answers_again() {
        let replay = |answer| {
            let mut body = decided(EffectClass::Read, Verdict::Permit, None, "a");
            if let Body::EgressDecided { replays, .. } = &mut body {
                *replays = Some(answer);
            }
            body
        };
        let mut all = Egresses::default();
        all.fold(1, &replay(40));
        all.fold(2, &ended(1, false));
        assert!(all.was_replayed(40) && !all.was_replayed(41));
        all.command_ended();
        all.fold(3, &replay(41));
        // The last answer once more: it was given before this command.
        all.fold(4, &replay(40));
        all.interrupt();
        assert!(all.was_replayed(40), "its command ended");
        assert!(!all.was_replayed(41), "its command is done again");
    }
}
