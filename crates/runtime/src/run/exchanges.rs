//! Another run's exchanges, whose answers a run gets instead of the world's.
//!
//! What always holds: a request gets the answer of the same request (method, authority, path,
//! query, body and its type; of a secret its name), the first that was not given yet. When all were
//! given, one that only reads gets the last again. Never: one that was not recorded is sent.

use super::RunTask;
use super::network::{Terms, effect_of};
use crate::error::RuntimeError;
use gate::{Denial, NetRequest, NetVerdict};
use policy::Decision;
use std::borrow::Cow;
use std::collections::BTreeMap;
use store::{Read as _, SqliteStore};
use types::{
    ActionId, ActionRequest, AsOf, BRANCH_MAIN, Body, Digest, EffectClass, Failure, Kept, RunId,
    Verdict,
};

/// What a program is told whose request was not recorded: `BP-RUN-025`.
const NOT_RECORDED: &str = "BP-RUN-025";

/// The attachment that holds an answer.
pub(super) const ANSWER: &str = "answer";

/// One answer.
#[derive(Debug)]
pub(super) struct Answer {
    /// The record that has it.
    pub(super) seq: u64,
    /// What it says about its age.
    pub(super) as_of: Option<AsOf>,
    /// Why it is not there.
    nothing: Option<String>,
}

/// All exchanges of a run.
#[derive(Debug)]
pub(super) struct Exchanges {
    run: RunId,
    /// By what they answer, in the order they were asked.
    answers: BTreeMap<Digest, Vec<Answer>>,
    /// What was asked, in order.
    asked: Vec<ActionRequest>,
}

impl Exchanges {
    /// Reads those of a run.
    ///
    /// # Errors
    /// [`RuntimeError::NothingToReplay`]; when there is no such run or it is erased.
    pub(super) fn read(store: &SqliteStore, run: &RunId) -> Result<Self, RuntimeError> {
        let records = store.records(run, BRANCH_MAIN, 0);
        let records = records.map_err(|error| RuntimeError::part(&error))?;
        let (mut decided, mut ended) = (Vec::new(), BTreeMap::new());
        let mut recorded = false;
        for record in records {
            let seq = record.stamp.seq;
            match record.body {
                Body::RunStarted { manifest, .. } => recorded = manifest.network.record,
                Body::EgressDecided {
                    request, bound, exchange, verdict: Verdict::Permit, ..
                } => {
                    decided.push((seq, exchange.unwrap_or(bound), *request));
                }
                Body::EgressEnded { egress, as_of, kept, failure, .. } => {
                    let nothing = match (kept, failure) {
                        (_, Some(why)) | (Some(Kept::Nothing(why)), None) => Some(why),
                        (Some(Kept::Whole(_)), None) => None,
                        (None, None) => Some("answers were not recorded".to_owned()),
                    };
                    ended.insert(egress, Answer { seq, as_of, nothing });
                }
                _ => {}
            }
        }
        if !recorded {
            return Err(RuntimeError::NothingToReplay { run: run.to_string() });
        }
        let (mut answers, mut asked) = (BTreeMap::<Digest, Vec<Answer>>::new(), Vec::new());
        for (seq, key, request) in decided {
            answers.entry(key).or_default().extend(ended.remove(&seq));
            asked.push(request);
        }
        Ok(Self { run: run.clone(), answers, asked })
    }

    /// The bytes of an answer.
    ///
    /// # Errors
    /// When they cannot be read, or were erased.
    pub(super) fn bytes(&self, store: &SqliteStore, answer: u64) -> Result<Vec<u8>, RuntimeError> {
        let bytes = store.attachment(&self.run, BRANCH_MAIN, answer, ANSWER);
        let bytes = bytes.map_err(|error| RuntimeError::part(&error))?;
        bytes.ok_or_else(|| RuntimeError::NothingToReplay { run: self.run.to_string() })
    }

    /// The answer to a request, or why there is none.
    pub(super) fn find(
        &self,
        request: &NetRequest,
        reads: bool,
        given: impl Fn(u64) -> bool,
    ) -> Result<&Answer, String> {
        let Some(answers) = self.answers.get(&request.exchange) else {
            return Err(self.why_unknown(&request.action));
        };
        let next = answers.iter().find(|answer| !given(answer.seq));
        let again = || answers.last().filter(|_| reads);
        let Some(answer) = next.or_else(again) else {
            return Err(match answers.len() {
                0 => format!("run {} asked this and has no end of it", self.run),
                1 => format!("run {} has no more answers to this: 1 was given", self.run),
                all => format!("run {} has no more answers to this: {all} were given", self.run),
            });
        };
        match &answer.nothing {
            Some(why) => Err(format!("run {}@{} has no whole answer: {why}", self.run, answer.seq)),
            None => Ok(answer),
        }
    }

    /// What differs from the nearest request that was recorded.
    fn why_unknown(&self, action: &ActionRequest) -> String {
        let differing = |other: &ActionRequest| Parts::of(action).differ(&Parts::of(other));
        let nearest = self.asked.iter().map(|other| (differing(other), other));
        match nearest.min_by_key(|(differing, _)| differing.len()) {
            Some((differing, other)) if !differing.contains(&"host") => {
                let (differing, other) = (differing.join(", "), other.resource());
                format!("run {} did not ask this; nearest {other}: {differing} differ", self.run)
            }
            _ => format!("run {} asked nothing of this host", self.run),
        }
    }
}

impl RunTask {
    /// Gives a request that policy permits the answer that was recorded.
    pub(super) async fn replay(
        &mut self,
        exchanges: &Exchanges,
        during: Option<ActionId>,
        ask: u64,
        request: &NetRequest,
        decision: Decision,
        approved: Option<u64>,
    ) -> Result<(), RuntimeError> {
        let (action, digest) = (&request.action, request.digest);
        let reads = effect_of(action) == EffectClass::Read;
        let given = |answer| self.state.egress.was_replayed(answer);
        let (answer, as_of) = match exchanges.find(request, reads, given) {
            Ok(answer) => (answer.seq, answer.as_of),
            Err(why) => {
                return self.not_recorded(during, ask, (action, digest), decision, why).await;
            }
        };
        let bytes = exchanges.bytes(&self.parts.store, answer)?;
        let exchange = Some(request.exchange).filter(|exchange| *exchange != digest);
        let terms = Terms { approved, exchange, replays: Some(answer), secrets: &[] };
        let permit = self.permit(during, action, digest, &decision, terms).await?;
        if let Some(net) = &mut self.world.net {
            net.answer_kept(ask, permit, (bytes, as_of)).await;
        }
        Ok(())
    }

    /// Turns down what policy permits, because the world is frozen and did not hear of it.
    pub(super) async fn not_recorded(
        &mut self,
        during: Option<ActionId>,
        ask: u64,
        (action, digest): (&ActionRequest, Digest),
        decision: Decision,
        why: String,
    ) -> Result<(), RuntimeError> {
        let failure = Failure {
            code: NOT_RECORDED.to_owned(),
            message: why,
            next: "Record a run that asks this too: bedplate run --record-network.".to_owned(),
        };
        self.record_refusal(during, action, digest, &decision, Some(failure)).await?;
        let denial = Denial {
            code: NOT_RECORDED.to_owned(),
            message: "the network is frozen, and this was not recorded; the operator sees why"
                .to_owned(),
            approval: None,
        };
        self.tell_gate(ask, NetVerdict::Deny(denial)).await;
        Ok(())
    }
}

/// What a request is told apart by; of secrets their names.
#[derive(Debug, Default)]
struct Parts<'a>([(&'static str, Cow<'a, [u8]>); 4]);

impl<'a> Parts<'a> {
    fn of(action: &'a ActionRequest) -> Self {
        let plain = |text: &'a str| Cow::Borrowed(text.as_bytes());
        match action {
            ActionRequest::HttpRequest { host, method, path, query, .. } => Self([
                ("host", plain(host)),
                ("method", plain(method)),
                ("path", plain(path)),
                ("query", gate::by_name(query.as_bytes())),
            ]),
            ActionRequest::Connect { host, .. } => Self([
                ("host", plain(host)),
                ("method", plain("CONNECT")),
                ("path", plain("")),
                ("query", plain("")),
            ]),
            _ => Self::default(),
        }
    }

    /// The names of what differs. Where nothing of these does, it is the body.
    fn differ(&self, other: &Self) -> Vec<&'static str> {
        let both = self.0.iter().zip(&other.0);
        let differing = both.filter(|(mine, its)| mine.1 != its.1).map(|(mine, _)| mine.0);
        let differing: Vec<_> = differing.collect();
        if differing.is_empty() { vec!["port, scheme or body"] } else { differing }
    }
}
