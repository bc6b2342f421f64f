//! What people say to what is asked: who may, how many must, and what stays open afterwards.
//!
//! ```text
//! asked --yes, enough people--> approved: once, or by its entries for the rest of the run
//!       --yes, more are needed--> asked        --no--> denied        --too late--> expired
//! approved for the rest of the run --no--> revoked
//! ```
//!
//! An approval is bound to the digest of what was shown. Nothing here acts: what is approved is
//! decided again, by the policy of then, when it is done.

use super::control::Answer;
use super::{Draft, RunTask};
use crate::error::RuntimeError;
use kernel::{GrantPhase, Phase, Quorum};
use store::Durability;
use types::{ActionRequest, ApprovalVerdict, Body, Link};

/// A backward jump of the wall clock beyond this expires every open approval.
const CLOCK_BACKWARD_MS_MAX: u128 = 60_000;
/// Bytes of an approver's name.
const PERSON_BYTES_MAX: usize = 64;

/// A question that is open.
struct Question {
    expires_ms: u64,
    requests: Vec<ActionRequest>,
    quorum: Quorum,
}

impl RunTask {
    fn open_question(&self, asked: u64) -> Option<Question> {
        let of_action = self.state.actions.values().find_map(|action| match &action.phase {
            Phase::Asked(question) if question.seq == asked => Some(Question {
                expires_ms: question.expires_ms,
                requests: action.requests.clone(),
                quorum: question.quorum.clone(),
            }),
            _ => None,
        });
        let grant = self.state.egress.grants.get(&asked);
        let of_request = || {
            grant.filter(|grant| grant.phase == GrantPhase::Asked).map(|grant| Question {
                expires_ms: grant.expires_ms,
                requests: vec![(*grant.request).clone()],
                quorum: grant.quorum.clone(),
            })
        };
        let model = self.state.model_question().filter(|question| question.seq == asked);
        // What is sent to a model is asked about call by call: no entry opens it.
        let of_model = || {
            model.map(|question| Question {
                expires_ms: question.expires_ms,
                requests: Vec::new(),
                quorum: Quorum::new(1),
            })
        };
        of_action.or_else(of_request).or_else(of_model)
    }

    pub(super) async fn answer(&mut self, answer: Answer) -> Result<(), RuntimeError> {
        let asked = answer.asked;
        self.may_answer(&answer)?;
        if !answer.approve && self.state.standing.contains_key(&asked) {
            return self.revoke(asked, answer.by).await;
        }
        let Some(question) = self.open_question(asked) else {
            let in_doubt =
                self.state.actions.values().any(|a| a.phase == Phase::InDoubt { seq: asked });
            let why = if in_doubt {
                "it is in doubt, not asked: use bedplate resolve"
            } else {
                "it is settled already, or no approval"
            };
            return Err(self.refuse(asked, why));
        };
        if self.parts.clock.now_ms() >= question.expires_ms || self.clock_went_back(asked)? {
            self.expire(asked).await?;
            return Err(self.refuse(asked, "it has expired; nothing was done"));
        }
        if answer.approve && question.quorum.has(&answer.by) {
            let why = format!("{} has approved it already; somebody else must", answer.by);
            return Err(self.refuse(asked, &why));
        }
        let opens = if answer.for_run { self.entries_for(asked, &question)? } else { Vec::new() };
        let verdict =
            if answer.approve { ApprovalVerdict::Approved } else { ApprovalVerdict::Denied };
        let Answer { by, reason, through, .. } = answer;
        let body = Body::ApprovalGiven { asked, verdict, by, reason, through, opens };
        let draft = Draft::new(body).because(Link::ResultOf, Some(asked));
        self.record(Durability::Synced, draft).await?;
        if self.open_question(asked).is_some() {
            // More people must say yes.
            return Ok(());
        }
        self.release_held(asked, verdict).await
    }

    /// A name that can be written down, of somebody whom policy lets answer.
    fn may_answer(&self, answer: &Answer) -> Result<(), RuntimeError> {
        let (id, person) = (format!("{}-{}", self.run, answer.asked), answer.by.clone());
        let good = |c: char| c.is_ascii_alphanumeric() || "._@-".contains(c);
        let named = (1..=PERSON_BYTES_MAX).contains(&person.len()) && person.chars().all(good);
        let reason = if named {
            self.gatekeeper.lets_answer(&person, &self.run).err()
        } else {
            Some("a name has 1 to 64 letters, digits, '.', '_', '@' or '-'".to_owned())
        };
        match reason {
            None => Ok(()),
            Some(reason) => {
                let person = if named { person } else { "this person".to_owned() };
                Err(RuntimeError::Approver { id, person, reason })
            }
        }
    }

    /// The narrowest entries under which what is asked falls.
    fn entries_for(&self, asked: u64, question: &Question) -> Result<Vec<String>, RuntimeError> {
        let narrowest = policy::narrowest(&question.requests).into_iter();
        let entries: Option<Vec<String>> = narrowest.map(|suggestion| suggestion.entry).collect();
        let why = "no entry says it narrowly enough to stay open: approve it once";
        entries.filter(|entries| !entries.is_empty()).ok_or_else(|| self.refuse(asked, why))
    }

    /// Closes what an approval left open. What was begun under it goes on.
    async fn revoke(&mut self, asked: u64, by: String) -> Result<(), RuntimeError> {
        let body = Body::ApprovalRevoked { asked, by };
        let draft = Draft::new(body).because(Link::ResultOf, Some(asked));
        self.record(Durability::Synced, draft).await.map(|_| ())
    }

    fn clock_went_back(&self, seq: u64) -> Result<bool, RuntimeError> {
        use store::Read;
        let records = self.parts.store.records_page(&self.run, types::BRANCH_MAIN, seq, 1);
        let records = records.map_err(|error| RuntimeError::part(&error))?;
        let jump = records.first().and_then(|record| self.parts.clock.backward_jump(record));
        Ok(jump.is_some_and(|jump| jump.as_millis() > CLOCK_BACKWARD_MS_MAX))
    }

    /// Nobody answered in time.
    pub(super) async fn expire(&mut self, asked: u64) -> Result<(), RuntimeError> {
        let body = Body::ApprovalGiven {
            asked,
            verdict: ApprovalVerdict::Expired,
            by: String::new(),
            reason: String::new(),
            through: String::new(),
            opens: Vec::new(),
        };
        let draft = Draft::new(body).because(Link::ResultOf, Some(asked));
        self.record(Durability::Synced, draft).await.map(|_| ())
    }
}
