//! What a person should know before they answer: which rule asks, what is carried, what is new about
//! it in this run, and what approving would open. Pure: from the log to values.

use crate::render;
use crate::summary::labels_of;
use kernel::{Phase, Quorum, State};
use policy::{Suggestion, narrowest};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use types::{ActionRequest, Body, Carried, Record, Verdict};

/// Things that are new, of one kind, that are named; the rest is counted.
const NEW_MAX: usize = 8;

/// Everything about a question but its bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Context {
    /// The policies that ask.
    pub(crate) rules: Vec<String>,
    /// Why, as policy says it.
    pub(crate) reason: String,
    /// Labels, and the age of the oldest input.
    pub(crate) carries: String,
    /// Secrets whose placeholders are in it.
    pub(crate) secrets: Vec<String>,
    /// What was not sent or called like this before in the run.
    pub(crate) new: Vec<String>,
    /// The narrowest rules under which it falls, and what each opens.
    pub(crate) opens: Vec<Suggestion>,
    /// How many people must approve.
    pub(crate) needs: u32,
    /// Who has.
    pub(crate) given: Vec<String>,
    /// What policy was asked.
    #[serde(skip)]
    pub(crate) requests: Vec<ActionRequest>,
    /// As it was carried.
    #[serde(skip)]
    pub(crate) carried: Carried,
}

/// What a question's record leads to; `None` when it asked nothing that is open.
pub(crate) fn context(records: &[Record], state: &State, asked: u64) -> Option<Context> {
    let of = |seq: u64| records.iter().find(|record| record.stamp.seq == seq).map(|r| &r.body);
    let (requests, decision, quorum) = match of(asked)? {
        Body::EgressAsked { egress, .. } => {
            let grant = state.egress.grants.get(&asked)?;
            (vec![(*grant.request).clone()], of(*egress)?, grant.quorum.clone())
        }
        Body::ApprovalAsked { action, .. } => {
            let found = state.actions.get(action)?;
            let decision = found.decided.and_then(of)?;
            (found.requests.clone(), decision, quorum_of(&found.phase)?)
        }
        _ => return None,
    };
    let (rules, reason, carried) = match decision {
        Body::EgressDecided { policies, reason, carried, .. }
        | Body::DecisionMade { policies, reason, carried, .. } => (policies, reason, carried),
        _ => return None,
    };
    let earlier = &records[..usize::try_from(asked).unwrap_or(usize::MAX).min(records.len())];
    let secrets = requests.iter().flat_map(secrets_of).cloned().collect();
    Some(Context {
        rules: rules.clone(),
        reason: reason.clone(),
        carries: carries(carried),
        secrets,
        new: requests.iter().flat_map(|request| news(request, carried, earlier)).collect(),
        opens: narrowest(&requests),
        needs: quorum.needs,
        given: quorum.approvers().map(str::to_owned).collect(),
        requests,
        carried: carried.clone(),
    })
}

fn quorum_of(phase: &Phase) -> Option<Quorum> {
    match phase {
        Phase::Asked(asked) => Some(asked.quorum.clone()),
        _ => None,
    }
}

fn carries(carried: &Carried) -> String {
    let labels =
        if carried.labels.is_empty() { "no label".to_owned() } else { labels_of(&carried.labels) };
    format!("{labels}; the oldest input is {}", render::age(carried.oldest_input_age))
}

fn secrets_of(request: &ActionRequest) -> &[String] {
    match request {
        ActionRequest::HttpRequest { facts: Some(facts), .. } => &facts.secrets,
        _ => &[],
    }
}

/// What is new about a request, against what the run was let do before.
fn news(request: &ActionRequest, carried: &Carried, earlier: &[Record]) -> Vec<String> {
    let done: Vec<Done<'_>> = earlier.iter().flat_map(|record| done(record, earlier)).collect();
    let mut new = match request {
        ActionRequest::HttpRequest { .. } => of_http(request, &done),
        ActionRequest::CallTool { tool, arguments, .. } => of_tool(tool, arguments, &done),
        other => {
            let known = done.iter().any(|one| one.request == other);
            let first = format!("{} was not done before in this run", other.resource());
            if known { Vec::new() } else { vec![first] }
        }
    };
    let carried_before = |label: &str| {
        done.iter().any(|one| one.outward && one.carried.labels.iter().any(|l| l == label))
    };
    let labels: Vec<&str> = carried.labels.iter().filter(|label| !carried_before(label)).collect();
    if !labels.is_empty() {
        new.push(format!("first to carry {} outward", labels.join(", ")));
    }
    if new.is_empty() {
        new.push("nothing: the like of it was done before in this run".to_owned());
    }
    new
}

/// Something the run was let do.
struct Done<'a> {
    request: &'a ActionRequest,
    carried: &'a Carried,
    /// It may have changed something outside.
    outward: bool,
}

fn done<'a>(record: &'a Record, earlier: &'a [Record]) -> Vec<Done<'a>> {
    match &record.body {
        Body::EgressDecided { request, carried, effect, verdict: Verdict::Permit, .. } => {
            let outward = *effect != types::EffectClass::Read;
            vec![Done { request, carried, outward }]
        }
        Body::DecisionMade { action: Some(id), carried, verdict: Verdict::Permit, .. } => {
            let proposed = earlier.iter().find_map(|record| match &record.body {
                Body::ActionProposed { requests, .. } if record.stamp.seq == *id => Some(requests),
                _ => None,
            });
            let all = proposed.into_iter().flatten();
            let outward =
                |request: &ActionRequest| matches!(request, ActionRequest::CallTool { .. });
            all.map(|request| Done { request, carried, outward: outward(request) }).collect()
        }
        _ => Vec::new(),
    }
}

fn of_http(request: &ActionRequest, done: &[Done<'_>]) -> Vec<String> {
    let ActionRequest::HttpRequest { host, method, path, facts, .. } = request else {
        return Vec::new();
    };
    let mut to_host = 0;
    let mut changed_there = 0;
    let mut last = None;
    for one in done {
        if let ActionRequest::HttpRequest { host: h, method: m, path: p, facts, .. } = one.request
            && h == host
        {
            to_host += 1;
            changed_there += usize::from(one.outward);
            if m == method && p == path {
                last = Some(facts);
            }
        }
    }
    if to_host == 0 {
        return vec![format!("host {host}: nothing was sent there before in this run")];
    }
    if changed_there == 0 && last.is_none() {
        return vec![format!("host {host} was only read from before in this run")];
    }
    let Some(last) = last else {
        return vec![format!("path: first {method} {path} there in this run")];
    };
    let fields = |facts: Option<&types::HttpFacts>| -> BTreeMap<String, String> {
        let body = facts.map(|facts| facts.body.json.iter().chain(&facts.body.form));
        body.into_iter().flatten().filter_map(|fact| fact.split_once('=')).map(owned).collect()
    };
    differences(&fields(last.as_deref()), &fields(facts.as_deref()))
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn of_tool(tool: &str, arguments: &Value, done: &[Done<'_>]) -> Vec<String> {
    let mut calls = done.iter().rev().filter_map(|one| match one.request {
        ActionRequest::CallTool { tool: of, arguments, .. } if of == tool => Some(arguments),
        _ => None,
    });
    match calls.next() {
        None => vec![format!("{tool} was not called before in this run")],
        Some(last) => differences(&flat(last), &flat(arguments)),
    }
}

/// What stands in `now` and did not, or not so, in `before`.
fn differences(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let differ = now.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let mut new: Vec<String> = differ
        .map(|(key, value)| match before.get(key) {
            None => format!("field {key} was not there before"),
            Some(old) => format!("field {key} is {value:?}, was {old:?}"),
        })
        .collect();
    if new.len() > NEW_MAX {
        let more = new.len() - NEW_MAX;
        new.truncate(NEW_MAX);
        new.push(format!("and {}", render::count(more as u64, "more field")));
    }
    new
}

/// A JSON value as its scalars by pointer.
fn flat(value: &Value) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![(String::new(), value)];
    while let Some((at, value)) = waiting.pop() {
        match value {
            Value::Object(map) => {
                waiting.extend(map.iter().map(|(key, value)| (format!("{at}/{key}"), value)));
            }
            Value::Array(list) => {
                waiting
                    .extend(list.iter().enumerate().map(|(n, value)| (format!("{at}/{n}"), value)));
            }
            Value::String(text) => {
                all.insert(at, text.clone());
            }
            other => {
                all.insert(at, other.to_string());
            }
        }
    }
    all
}

/// What a person should know beside the bytes, a row each.
pub(crate) fn rows(context: &Context, until: Option<&str>) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    rows.extend(context.new.iter().map(|new| ("new", new.clone())));
    rows.push(("asked by", context.reason.clone()));
    rows.push(("carries", context.carries.clone()));
    rows.extend(context.secrets.iter().map(|name| ("secret", format!("{name}, put in outside"))));
    let until = until.map(|until| format!(", until {until}")).unwrap_or_default();
    rows.push(("approve", format!("once: exactly this and nothing else{until}")));
    for suggestion in &context.opens {
        let Some(entry) = &suggestion.entry else { continue };
        rows.push(("--for-run", format!("{entry}: {}", suggestion.opens)));
    }
    if context.needs > 1 {
        let given = if context.given.is_empty() {
            "nobody so far".to_owned()
        } else {
            context.given.join(", ")
        };
        rows.push(("people", format!("{} must approve; {given}", context.needs)));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn post(host: &str, path: &str, fields: &[&str]) -> ActionRequest {
        let mut facts = types::HttpFacts::default();
        facts.body.json = fields.iter().map(|field| (*field).to_owned()).collect();
        ActionRequest::HttpRequest {
            host: host.to_owned(),
            method: "POST".to_owned(),
            path: path.to_owned(),
            port: 443,
            scheme: "https".to_owned(),
            query: String::new(),
            facts: Some(Box::new(facts)),
        }
    }

    #[test]
    fn what_is_new_is_told_against_what_was_done_before() {
        let carried = Carried::default();
        let before = post("mail.test", "/drafts", &["/to=dana", "/text=hi"]);
        let check = |outward: bool, now: &ActionRequest, expected: &[&str]| {
            let done = [Done { request: &before, carried: &carried, outward }];
            assert_eq!(of_http(now, &done), expected);
        };
        let same = before.clone();
        check(true, &same, &[]);
        let host = post("other.test", "/drafts", &[]);
        check(true, &host, &["host other.test: nothing was sent there before in this run"]);
        let path = post("mail.test", "/send", &[]);
        check(true, &path, &["path: first POST /send there in this run"]);
        check(false, &path, &["host mail.test was only read from before in this run"]);
        let fields = post("mail.test", "/drafts", &["/to=mallory", "/text=hi", "/bcc=x"]);
        let expected =
            ["field /bcc was not there before", "field /to is \"mallory\", was \"dana\""];
        check(true, &fields, &expected);
    }

    #[test]
    fn arguments_of_a_tool_are_compared_by_pointer() {
        let carried = Carried::default();
        let call = |arguments: Value| ActionRequest::CallTool {
            tool: "mail".to_owned(),
            arguments,
            effect: types::EffectClass::Irreversible,
        };
        let before = call(json!({ "to": ["a"], "n": 1 }));
        let done = [Done { request: &before, carried: &carried, outward: true }];
        let new = of_tool("mail", &json!({ "to": ["a", "b"], "n": 1 }), &done);
        assert_eq!(new, ["field /to/1 was not there before"]);
        assert_eq!(of_tool("post", &json!({}), &done), ["post was not called before in this run"]);
        let many: BTreeMap<String, String> =
            (0..=NEW_MAX).map(|n| (format!("/{n}"), String::new())).collect();
        let named = differences(&BTreeMap::new(), &many);
        assert_eq!(named.len(), NEW_MAX + 1);
        assert_eq!(named.last().map(String::as_str), Some("and 1 more field"));
    }
}
