//! What left the sandbox, or was stopped on its way, request by request: which rule and which
//! person let it through, which secret made the call, what was carried, which result led to it, and
//! what doing it again would mean. Everything here stands in the log; nothing is guessed.

use crate::render;
use crate::summary::{brought, labels_of, verdict_word};
use kernel::State;
use serde::Serialize;
use std::collections::BTreeMap;
use types::{
    ActionId, ActionRequest, ApprovalVerdict, AsOf, Body, Carried, EffectClass, Link, Record,
    Verdict,
};

/// One request of the sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Outgoing {
    /// The record that decided.
    pub(crate) seq: u64,
    /// `POST https://mail.example.test/v1/drafts`.
    pub(crate) what: String,
    /// Whether it only reads.
    pub(crate) reads: bool,
    /// Whether a byte may have left.
    pub(crate) sent: bool,
    /// `answered 201`, `not sent: ...`.
    pub(crate) outcome: String,
    /// The rules that decided, and why.
    pub(crate) rule: String,
    /// Who was asked and what they said.
    pub(crate) person: Option<String>,
    /// Names of the secrets that were put in.
    pub(crate) secrets: Vec<String>,
    /// Labels, and the age of the oldest input.
    pub(crate) carried: String,
    /// What its answer says about its age.
    pub(crate) as_of: Option<String>,
    /// The result that the model had just read when it chose the command that made it.
    pub(crate) led_to_by: Option<String>,
    /// What doing it again would mean.
    pub(crate) again: &'static str,
}

/// Every request, in order. One that was asked and then permitted is one request.
pub(super) fn requests(records: &[Record], state: &State) -> Vec<Outgoing> {
    let permitted: Vec<u64> = records
        .iter()
        .filter_map(|record| match &record.body {
            Body::EgressDecided { verdict: Verdict::Permit, approved, .. } => *approved,
            _ => None,
        })
        .collect();
    let log = Log { records, state, oldest: oldest_at(records) };
    records.iter().filter_map(|record| log.outgoing(record, &permitted)).collect()
}

/// The record with the oldest input, as it was when each request was decided.
fn oldest_at(records: &[Record]) -> BTreeMap<u64, u64> {
    let mut oldest = BTreeMap::new();
    kernel::each(records, |before, record| {
        if matches!(record.body, Body::EgressDecided { .. }) {
            oldest.extend(before.oldest_input.map(|of| (record.stamp.seq, of)));
        }
    });
    oldest
}

struct Log<'a> {
    records: &'a [Record],
    state: &'a State,
    oldest: BTreeMap<u64, u64>,
}

impl Log<'_> {
    fn outgoing(&self, record: &Record, permitted: &[u64]) -> Option<Outgoing> {
        let Body::EgressDecided {
            during,
            request,
            effect,
            verdict,
            approved,
            policies,
            reason,
            carried,
            ..
        } = &record.body
        else {
            return None;
        };
        let seq = record.stamp.seq;
        let asked = approved.or_else(|| self.question_of(seq));
        if *verdict == Verdict::Ask && asked.is_some_and(|asked| permitted.contains(&asked)) {
            return None;
        }
        let end = self.end_of(seq);
        let sent = end.as_ref().map_or(*verdict == Verdict::Permit, |end| end.sent);
        let by = if policies.is_empty() { reason.clone() } else { policies.join(", ") };
        let asked_by = approved.and_then(|asked| self.rules_that_asked(asked));
        let rule = match asked_by {
            Some(rules) => format!("asked by {rules}"),
            None => format!("{} by {by}", verdict_word(*verdict)),
        };
        Some(Outgoing {
            seq,
            what: match during {
                Some(_) => what(request),
                None => format!("{} (of a check)", what(request)),
            },
            reads: *effect == EffectClass::Read,
            sent,
            outcome: end.as_ref().map_or_else(|| not_sent(*verdict), |end| end.outcome.clone()),
            rule,
            person: asked.map(|asked| self.person(asked)),
            secrets: self.secrets_under(seq),
            carried: self.carried(carried, seq),
            as_of: end.and_then(|end| end.as_of),
            led_to_by: during.and_then(|id| self.led_to_by(id)),
            again: again(*effect, sent),
        })
    }

    /// The record that asked a person about this decision.
    fn question_of(&self, seq: u64) -> Option<u64> {
        let asks = |record: &&Record| matches!(&record.body, Body::EgressAsked { egress, .. } if *egress == seq);
        self.records.iter().find(asks).map(|record| record.stamp.seq)
    }

    /// The rules of the decision that led to a question.
    fn rules_that_asked(&self, asked: u64) -> Option<String> {
        let of = |seq: u64| self.records.iter().find(|record| record.stamp.seq == seq);
        let Body::EgressAsked { egress, .. } = &of(asked)?.body else { return None };
        let Body::EgressDecided { policies, .. } = &of(*egress)?.body else { return None };
        (!policies.is_empty()).then(|| policies.join(", "))
    }

    fn person(&self, asked: u64) -> String {
        let answers = self.records.iter().filter_map(|record| match &record.body {
            Body::ApprovalGiven { asked: of, verdict, by, reason, opens, through }
                if *of == asked =>
            {
                let (seq, by) = (record.stamp.seq, brought(by, through));
                Some(match verdict {
                    ApprovalVerdict::Approved if opens.is_empty() => {
                        format!("approved by {by} in record {seq}")
                    }
                    ApprovalVerdict::Approved => {
                        let opens = opens.join(", ");
                        format!("approved by {by} for the run in record {seq} ({opens})")
                    }
                    ApprovalVerdict::Denied => format!("denied by {by} in record {seq}: {reason}"),
                    ApprovalVerdict::Expired => "nobody answered in time".to_owned(),
                })
            }
            _ => None,
        });
        let said: Vec<String> = answers.collect();
        let said = if said.is_empty() { "nobody has answered".to_owned() } else { said.join(", ") };
        format!("asked in record {asked}, {said}")
    }

    fn secrets_under(&self, seq: u64) -> Vec<String> {
        let used = self.records.iter().filter_map(|record| match &record.body {
            Body::SecretUsed { secret, under, .. } if *under == seq => Some(secret.clone()),
            _ => None,
        });
        used.collect()
    }

    fn carried(&self, carried: &Carried, seq: u64) -> String {
        let labels = if carried.labels.is_empty() {
            "no label".to_owned()
        } else {
            labels_of(&carried.labels)
        };
        match self.oldest.get(&seq) {
            None => labels,
            Some(of) => {
                let age = render::age(carried.oldest_input_age);
                format!("{labels}; the oldest input is {age} (record {of})")
            }
        }
    }

    fn end_of(&self, seq: u64) -> Option<End> {
        self.records.iter().find_map(|record| match &record.body {
            Body::EgressEnded { egress, status, failure, sent, as_of, .. } if *egress == seq => {
                let outcome = match failure {
                    None if *sent => format!("answered {status}"),
                    None => format!("not sent: answered {status} as it was recorded"),
                    Some(why) if *sent => format!("sent, no whole answer: {why}"),
                    Some(why) => format!("not sent: {why}"),
                };
                let as_of = as_of.map(|as_of| match as_of {
                    AsOf::At(ms) => {
                        let age = record.stamp.time_ms.saturating_sub(ms) / 1_000;
                        format!("{} UTC by its own word, {}", render::moment(ms), render::age(age))
                    }
                    AsOf::Unreadable => "it does not say, so it counts as oldest".to_owned(),
                });
                Some(End { outcome, sent: *sent, as_of })
            }
            _ => None,
        })
    }

    /// The last result that the model had not read before the answer that asked for this command.
    fn led_to_by(&self, id: ActionId) -> Option<String> {
        let proposed = self.records.iter().find(|record| record.stamp.seq == id)?;
        let answer = proposed.causes.iter().find(|cause| cause.link == Link::AskedIn)?.seq;
        let before = self.records.iter().rev().skip_while(|record| record.stamp.seq >= answer);
        let read = before
            .take_while(|record| !matches!(record.body, Body::ModelAnswered { error: None, .. }));
        let result = read.into_iter().find_map(|record| {
            let seq = record.stamp.seq;
            match &record.body {
                Body::ActionFinished { action, .. } => {
                    let call = crate::progress::call_of(self.state, *action);
                    let heard = self.heard(*action);
                    Some(format!("record {seq}, the result of `{call}`{heard}"))
                }
                Body::DecisionMade { action: Some(action), verdict: Verdict::Deny, .. } => {
                    let call = crate::progress::call_of(self.state, *action);
                    Some(format!("record {seq}, the denial of `{call}`"))
                }
                Body::ItemAdded { item: types::Item::UserMessage { .. } } => {
                    Some(format!("record {seq}, what a person said"))
                }
                _ => None,
            }
        })?;
        Some(format!("{result}; the model had just read it when it answered (record {answer})"))
    }

    /// The hosts whose answers are in a command's result.
    fn heard(&self, action: ActionId) -> String {
        let mut hosts: Vec<&str> = Vec::new();
        for record in self.records {
            if let Body::EgressDecided { during, request, verdict: Verdict::Permit, .. } =
                &record.body
                && *during == Some(action)
                && let ActionRequest::HttpRequest { host, .. } | ActionRequest::Connect { host, .. } =
                    &**request
                && !hosts.contains(&host.as_str())
            {
                hosts.push(host);
            }
        }
        if hosts.is_empty() {
            return String::new();
        }
        format!(", which heard {}", hosts.join(", "))
    }
}

struct End {
    outcome: String,
    sent: bool,
    as_of: Option<String>,
}

fn not_sent(verdict: Verdict) -> String {
    match verdict {
        Verdict::Permit => "permitted, and its end is not recorded".to_owned(),
        Verdict::Ask => "not sent: a person was asked".to_owned(),
        Verdict::Deny => "not sent: denied".to_owned(),
    }
}

fn what(request: &ActionRequest) -> String {
    match request {
        ActionRequest::HttpRequest { scheme, host, port, method, path, .. } => {
            let usual = matches!((scheme.as_str(), *port), ("https", 443) | ("http", 80));
            let port = if usual { String::new() } else { format!(":{port}") };
            format!("{method} {scheme}://{host}{port}{path}")
        }
        ActionRequest::Connect { host, port } => format!("CONNECT {host}:{port}"),
        other => other.resource(),
    }
}

const fn again(effect: EffectClass, sent: bool) -> &'static str {
    match (sent, effect) {
        (false, _) => "nothing left, so nothing can happen twice",
        (true, EffectClass::Read) => "only reads: may be done again",
        (true, EffectClass::Idempotent | EffectClass::Workspace) => {
            "the same again comes to the same"
        }
        (true, EffectClass::Irreversible) => {
            "cannot be taken back: the same bytes are never sent again unasked"
        }
    }
}
