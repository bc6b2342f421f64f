//! Decisions: one question to the policy set, one answer that can be derived again.
//!
//! Deny by default; a `forbid` wins; an evaluation error denies. A second evaluation, as if
//! approved, happens only after a denial, and turns it into an ask.

use crate::PolicySet;
use crate::cedar::with_stack;
use crate::input::{DecisionInput, PersonInput};
use crate::question::Question;
use crate::slice::Answer;
use cedar_policy::{Entities, RestrictedExpression};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use types::{ActionRequest, Digest, Failure, Verdict};

/// Why a verdict is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Because {
    /// A rule permits it.
    Permitted,
    /// Rules permit it once a person approves.
    Asked,
    /// No rule permits it.
    NoRule,
    /// A rule forbids it; no further permit can open it.
    Forbidden,
    /// Evaluation failed, or the request is not in canonical form.
    Failed,
}

/// What policy says of one action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The verdict.
    pub verdict: Verdict,
    /// Why.
    pub because: Because,
    /// Ids of the policies that decided, sorted.
    pub policies: Vec<String>,
    /// For people, one sentence.
    pub reason: String,
    /// Annotations of the policies that decided, united; several values are joined by `, `.
    pub obligations: BTreeMap<String, String>,
    /// Digest of the policy set.
    pub policy_set: Digest,
    /// Digest of the input.
    pub input: Digest,
    /// What failed, each coded.
    pub errors: Vec<Failure>,
}

impl Decision {
    /// The denial as a failure with its code; `None` unless denied.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        let code = match self.because {
            Because::Permitted | Because::Asked => return None,
            Because::Failed => return self.errors.first().cloned(),
            Because::NoRule => "BP-POLICY-020",
            Because::Forbidden => "BP-POLICY-021",
        };
        let next = match self.because {
            Because::NoRule => {
                "Run `bedplate policy allow RUN` to see and write the narrowest rule."
            }
            _ => "Change or remove the policy that forbids it; no permit can open it.",
        };
        Some(Failure { code: code.to_owned(), message: self.reason.clone(), next: next.to_owned() })
    }
}

/// Between several values of one obligation.
const VALUES_JOINED_BY: &str = ", ";

impl PolicySet {
    /// Decides one action.
    #[must_use]
    pub fn decide(&self, input: &DecisionInput) -> Decision {
        let checked = input
            .check()
            .map_err(|message| failed("BP-POLICY-012", message, NEXT_CANONICAL))
            .and_then(|()| self.question(input));
        match checked {
            Ok(question) => with_stack(|| self.verdict(&question, input.approved, input.digest())),
            Err(failure) => self.failed(failure, input.digest()),
        }
    }

    /// Decides what a person may do to a run.
    #[must_use]
    pub fn decide_person(&self, input: &PersonInput) -> Decision {
        with_stack(|| self.verdict(&Question::of_person(input), true, input.digest()))
    }

    /// Decides an action that needs several decisions: the strictest counts, obligations of all
    /// are united. Without any input it is a denial.
    #[must_use]
    pub fn decide_all(&self, inputs: &[DecisionInput]) -> Decision {
        let decisions: Vec<Decision> = inputs.iter().map(|input| self.decide(input)).collect();
        let Some(strictest) = decisions.iter().rev().max_by_key(|d| d.verdict) else {
            let failure = failed("BP-POLICY-012", "nothing was asked".to_owned(), NEXT_CANONICAL);
            return self.failed(failure, Digest::of_parts("bedplate policy inputs 1", &[]));
        };
        let mut joined = strictest.clone();
        let digests: Vec<&[u8]> = decisions.iter().map(|d| d.input.0.as_slice()).collect();
        joined.input = match decisions.as_slice() {
            [one] => one.input,
            _ => Digest::of_parts("bedplate policy inputs 1", &digests),
        };
        joined.errors = decisions.iter().flat_map(|d| d.errors.clone()).collect();
        let alike = |d: &&Decision| d.verdict == joined.verdict;
        let policies: BTreeSet<String> =
            decisions.iter().filter(alike).flat_map(|d| d.policies.clone()).collect();
        joined.policies = policies.into_iter().collect();
        let mut obligations = BTreeMap::new();
        for decision in &decisions {
            for (key, values) in &decision.obligations {
                values
                    .split(VALUES_JOINED_BY)
                    .for_each(|value| unite(&mut obligations, key, value));
            }
        }
        joined.obligations = join_values(obligations);
        joined
    }

    fn question<'a>(&self, input: &'a DecisionInput) -> Result<Question<'a>, Failure> {
        let arguments = match &input.request {
            ActionRequest::CallTool { tool, arguments, .. } => {
                Some(self.arguments(tool, arguments)?)
            }
            _ => None,
        };
        Ok(Question::of(input, arguments, &self.looks_at, self.label_kinds))
    }

    fn arguments(
        &self,
        tool: &str,
        arguments: &serde_json::Value,
    ) -> Result<RestrictedExpression, Failure> {
        let Some(types) = &self.arguments else {
            return Ok(RestrictedExpression::new_record([]).expect("no key, no duplicate"));
        };
        let refuse = |message| failed("BP-POLICY-013", message, NEXT_ARGUMENTS);
        let of = types.get(tool).ok_or_else(|| {
            refuse(format!("tool {tool} is not declared, and policy looks at arguments"))
        })?;
        of.value(arguments, "").map_err(refuse)
    }

    fn verdict(&self, question: &Question<'_>, approved: bool, input: Digest) -> Decision {
        let entities = question.entities();
        let first = self.ask(question, approved, &entities);
        if first.allowed() {
            return self.decision(Because::Permitted, &[&first], input);
        }
        if approved {
            return self.denial(&first, input);
        }
        let second = self.ask(question, true, &entities);
        if second.allowed() && first.errors.is_empty() {
            return self.decision(Because::Asked, &[&first, &second], input);
        }
        let last =
            if second.errors.is_empty() && !first.errors.is_empty() { first } else { second };
        self.denial(&last, input)
    }

    fn ask(&self, question: &Question<'_>, approved: bool, entities: &Entities) -> Answer {
        match question.request(approved) {
            Ok(request) => self.slices.ask(question.action, &question.keys, &request, entities),
            Err(error) => Answer {
                errors: BTreeMap::from([("request".to_owned(), error)]),
                ..Answer::default()
            },
        }
    }

    fn denial(&self, answer: &Answer, input: Digest) -> Decision {
        let because = if !answer.errors.is_empty() {
            Because::Failed
        } else if answer.forbids.is_empty() {
            Because::NoRule
        } else {
            Because::Forbidden
        };
        self.decision(because, &[answer], input)
    }

    fn decision(&self, because: Because, answers: &[&Answer], input: Digest) -> Decision {
        let mut ids: BTreeSet<&String> = BTreeSet::new();
        let mut errors = Vec::new();
        for answer in answers {
            match because {
                Because::Permitted => ids.extend(&answer.permits),
                Because::Asked => ids.extend(answer.permits.iter().chain(&answer.forbids)),
                Because::Forbidden => ids.extend(&answer.forbids),
                Because::NoRule => {}
                Because::Failed => ids.extend(answer.errors.keys()),
            }
            errors.extend(answer.errors.iter().map(|(id, error)| {
                let message = format!("policy {id} failed: {error}");
                failed("BP-POLICY-011", message, NEXT_EVALUATION)
            }));
        }
        let mut obligations = BTreeMap::new();
        let mut said = Vec::new();
        let mut places: Vec<usize> =
            ids.iter().filter_map(|id| self.by_id.get(*id).copied()).collect();
        places.sort_unstable();
        for statement in places.into_iter().map(|place| &self.statements[place]) {
            for (key, value) in &statement.tree.annotations {
                match key.as_str() {
                    "id" => {}
                    "reason" => said.push(value.to_string()),
                    _ => unite(&mut obligations, key, value),
                }
            }
        }
        let policies: Vec<String> = ids.into_iter().cloned().collect();
        Decision {
            verdict: verdict_of(because),
            because,
            reason: reason(because, &policies, &said, &errors),
            policies,
            obligations: join_values(obligations),
            policy_set: self.digest(),
            input,
            errors,
        }
    }

    fn failed(&self, failure: Failure, input: Digest) -> Decision {
        Decision {
            verdict: Verdict::Deny,
            because: Because::Failed,
            policies: Vec::new(),
            reason: failure.message.clone(),
            obligations: BTreeMap::new(),
            policy_set: self.digest(),
            input,
            errors: vec![failure],
        }
    }
}

const NEXT_CANONICAL: &str = "This is refused whatever the policy says; the caller must send names and paths in canonical form.";
const NEXT_ARGUMENTS: &str =
    "Correct the call or the tool's input schema, so that the arguments have the declared types.";
const NEXT_EVALUATION: &str = "Correct the policy; until then what it applies to is denied.";

fn failed(code: &str, message: String, next: &str) -> Failure {
    Failure { code: code.to_owned(), message, next: next.to_owned() }
}

const fn verdict_of(because: Because) -> Verdict {
    match because {
        Because::Permitted => Verdict::Permit,
        Because::Asked => Verdict::Ask,
        Because::NoRule | Because::Forbidden | Because::Failed => Verdict::Deny,
    }
}

fn reason(because: Because, policies: &[String], said: &[String], errors: &[Failure]) -> String {
    let by = policies.join(", ");
    let sentence = match because {
        Because::Permitted => format!("permitted by {by}"),
        Because::Asked => format!("permitted once a person approves: {by}"),
        Because::NoRule => "no rule permits it".to_owned(),
        Because::Forbidden => format!("forbidden by {by}"),
        Because::Failed => errors.first().map(|e| e.message.clone()).unwrap_or_default(),
    };
    if said.is_empty() { sentence } else { format!("{sentence} ({})", said.join("; ")) }
}

fn unite<'a>(obligations: &mut BTreeMap<String, BTreeSet<&'a str>>, key: &str, value: &'a str) {
    obligations.entry(key.to_owned()).or_default().insert(value);
}

fn join_values(obligations: BTreeMap<String, BTreeSet<&str>>) -> BTreeMap<String, String> {
    obligations
        .into_iter()
        .map(|(key, values)| (key, values.into_iter().collect::<Vec<_>>().join(VALUES_JOINED_BY)))
        .collect()
}
