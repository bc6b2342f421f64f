//! `policy test`: cases in a file, each an action and what policy should say of it.
//!
//! ```toml
//! [[case]]
//! name = "the agent may list issues"
//! action = "http_request"
//! resource = "api.example.test"
//! method = "GET"
//! path = "/v1/issues"
//! labels = ["untrusted"]
//! expect = "permit"                       # permit | ask | deny
//! policy = "permissions.allow[0]: GET api.example.test/v1/*"   # optional: this policy decided
//! ```
//!
//! The context's attributes stand beside `action` or in a table `context`. Reading is strict: an
//! attribute the action does not have is an error. `facts` of an `http_request` is what the network
//! boundary read in it, as the log has it.

use crate::{Decision, DecisionInput, PolicyError, PolicySet, Principal};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use types::{ActionRequest, Carried, EffectClass, FsAccess, HttpFacts, Labels, Verdict};

/// Most cases in one file.
pub const CASES_MAX: usize = 10_000;

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// What should be said.
    pub expect: Verdict,
    /// A policy that should be among those that decided.
    pub policy: Option<String>,
    fields: Fields,
}

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    /// The case's name.
    pub name: String,
    /// Whether verdict and policy are as expected.
    pub passed: bool,
    /// The expected verdict.
    pub expected: Verdict,
    /// The verdict.
    pub got: Verdict,
    /// The policy that should have decided.
    pub expected_policy: Option<String>,
    /// Those that did.
    pub policies: Vec<String>,
    /// Why, for people.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default, rename = "case")]
    cases: Vec<toml::Table>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: String,
    action: String,
    resource: String,
    expect: Verdict,
    policy: Option<String>,
    user: Option<String>,
    teams: Option<Vec<String>>,
    approved: Option<bool>,
    labels: Option<Vec<String>>,
    oldest_input_age: Option<u64>,
    on_behalf_of: Option<String>,
    model: Option<String>,
    provider: Option<String>,
    local: Option<bool>,
    privacy: Option<Vec<String>>,
    arguments: Option<Value>,
    effect: Option<EffectClass>,
    command: Option<String>,
    method: Option<String>,
    path: Option<String>,
    port: Option<u16>,
    scheme: Option<String>,
    query: Option<String>,
    host: Option<String>,
    facts: Option<HttpFacts>,
}

/// Actions and the attributes each may carry, beside those all have.
const ATTRIBUTES: [(&str, &[&str]); 9] = [
    ("call_model", &["model", "provider", "local", "privacy"]),
    ("call_tool", &["arguments", "effect"]),
    ("run_command", &["command"]),
    ("read_file", &["path"]),
    ("write_file", &["path"]),
    ("mount", &["path"]),
    ("http_request", &["method", "path", "port", "scheme", "query", "facts"]),
    ("connect", &["port"]),
    ("use_secret", &["host"]),
];

/// Keys of `facts` and of the tables in it.
const FACTS: [(&str, &[&str]); 4] = [
    ("facts", &["operation", "headers", "body", "git", "secrets", "websocket", "digest"]),
    ("body", &["kind", "bytes", "json", "form", "rpc_methods", "understood"]),
    ("git", &["repository", "service", "updates", "complete"]),
    ("updates", &["name", "change"]),
];

/// Attributes of every case.
const SHARED: [&str; 11] = [
    "name",
    "action",
    "resource",
    "expect",
    "policy",
    "user",
    "teams",
    "approved",
    "labels",
    "oldest_input_age",
    "on_behalf_of",
];

/// Reads a file of cases.
///
/// # Errors
/// BP-POLICY-014, BP-POLICY-005: the file is no such file or too large.
pub fn parse_cases(file: &str, text: &str) -> Result<Vec<Case>, PolicyError> {
    let bad = |message: String| PolicyError::BadTest { file: file.to_owned(), message };
    let too_large = |unit: &str, actual, limit| PolicyError::TooLarge {
        what: format!("{file}, in {unit}"),
        actual,
        limit,
    };
    if text.len() > crate::POLICY_BYTES_MAX {
        return Err(too_large("bytes", text.len(), crate::POLICY_BYTES_MAX));
    }
    let read: File =
        toml::from_str(text).map_err(|error| bad(error.to_string().trim_end().to_owned()))?;
    if read.cases.len() > CASES_MAX {
        return Err(too_large("cases", read.cases.len(), CASES_MAX));
    }
    if read.cases.is_empty() {
        return Err(bad("it has no [[case]]".to_owned()));
    }
    let mut cases = Vec::with_capacity(read.cases.len());
    for (index, table) in read.cases.into_iter().enumerate() {
        let name =
            table.get("name").and_then(toml::Value::as_str).unwrap_or("without a name").to_owned();
        let case =
            read_case(table).map_err(|why| bad(format!("case {} ({name}): {why}", index + 1)))?;
        cases.push(case);
    }
    Ok(cases)
}

fn read_case(mut table: toml::Table) -> Result<Case, String> {
    if let Some(context) = table.remove("context") {
        let toml::Value::Table(context) = context else {
            return Err("`context` is a table".to_owned());
        };
        for (key, value) in context {
            if table.insert(key.clone(), value).is_some() {
                return Err(format!("`{key}` is there twice"));
            }
        }
    }
    let keys: Vec<String> = table.keys().cloned().collect();
    if let Some(facts) = table.get("facts") {
        check_facts("facts", facts)?;
    }
    let fields: Fields =
        table.try_into().map_err(|error| error.to_string().trim_end().to_owned())?;
    let own = ATTRIBUTES.iter().find(|(action, _)| *action == fields.action);
    let Some((_, own)) = own else {
        let known: Vec<&str> = ATTRIBUTES.iter().map(|(action, _)| *action).collect();
        return Err(format!("`{}` is no action: {}", fields.action, known.join(", ")));
    };
    let strange =
        keys.iter().find(|key| !SHARED.contains(&key.as_str()) && !own.contains(&key.as_str()));
    if let Some(key) = strange {
        return Err(format!("{} has no `{key}`", fields.action));
    }
    request(&fields, EffectClass::Read)?;
    Ok(Case {
        name: fields.name.clone(),
        expect: fields.expect,
        policy: fields.policy.clone(),
        fields,
    })
}

/// What was read in a request has many optional keys, in the log too: here a misspelt one is an
/// error.
fn check_facts(at: &str, value: &toml::Value) -> Result<(), String> {
    match value {
        toml::Value::Table(table) => table.iter().try_for_each(|(key, inside)| {
            let known =
                FACTS.iter().find(|(name, _)| *name == at).map_or(&[][..], |(_, keys)| keys);
            if !known.contains(&key.as_str()) {
                return Err(format!("`{at}` has no `{key}`: {}", known.join(", ")));
            }
            check_facts(key, inside)
        }),
        toml::Value::Array(list) => list.iter().try_for_each(|inside| check_facts(at, inside)),
        _ => Ok(()),
    }
}

fn needed(value: Option<&String>, name: &str) -> Result<String, String> {
    value.cloned().ok_or_else(|| format!("it needs `{name}`"))
}

fn request(fields: &Fields, effect: EffectClass) -> Result<ActionRequest, String> {
    let resource = || fields.resource.clone();
    let access = |access| {
        let path = fields.path.clone().unwrap_or_else(resource);
        if path == fields.resource {
            Ok(ActionRequest::Path { access, path })
        } else {
            Err("`path` and `resource` are the same thing here".to_owned())
        }
    };
    match fields.action.as_str() {
        "call_model" => Ok(ActionRequest::CallModel {
            route: resource(),
            provider: fields.provider.clone().unwrap_or_default(),
            model: fields.model.clone().unwrap_or_default(),
            local: fields.local.unwrap_or_default(),
            privacy: fields.privacy.clone().unwrap_or_default().into_iter().collect(),
        }),
        "call_tool" => Ok(ActionRequest::CallTool {
            tool: resource(),
            arguments: fields
                .arguments
                .clone()
                .unwrap_or_else(|| Value::Object(serde_json::Map::new())),
            effect: fields.effect.unwrap_or(effect),
        }),
        "run_command" => Ok(ActionRequest::RunCommand {
            tool: resource(),
            command: fields.command.clone().unwrap_or_default(),
        }),
        "read_file" => access(FsAccess::Read),
        "write_file" => access(FsAccess::Write),
        "mount" => access(FsAccess::Mount),
        "http_request" => Ok(ActionRequest::HttpRequest {
            host: resource(),
            method: needed(fields.method.as_ref(), "method")?,
            path: fields.path.clone().unwrap_or_else(|| "/".to_owned()),
            port: fields.port.unwrap_or(443),
            scheme: fields.scheme.clone().unwrap_or_else(|| "https".to_owned()),
            query: fields.query.clone().unwrap_or_default(),
            facts: fields.facts.clone().map(Box::new),
        }),
        "connect" => {
            Ok(ActionRequest::Connect { host: resource(), port: fields.port.unwrap_or(443) })
        }
        _ => Ok(ActionRequest::UseSecret {
            secret: resource(),
            host: needed(fields.host.as_ref(), "host")?,
        }),
    }
}

impl Case {
    /// The question of this case to a set.
    fn input(&self, set: &PolicySet) -> DecisionInput {
        let fields = &self.fields;
        let mut principal = match &fields.user {
            Some(login) => Principal::user(login),
            None => set.principal().clone(),
        };
        if let Some(teams) = &fields.teams {
            principal.teams.clone_from(teams);
        }
        let mut labels = Labels::none();
        for label in fields.labels.iter().flatten() {
            labels.join(&Labels::one(label));
        }
        let declared = set.effects.get(&fields.resource).copied();
        DecisionInput {
            principal,
            request: request(fields, declared.unwrap_or(EffectClass::Irreversible))
                .expect("the same fields gave a request when they were read"),
            carried: Carried {
                labels,
                oldest_input_age: fields.oldest_input_age.unwrap_or_default(),
            },
            on_behalf_of: fields.on_behalf_of.clone().unwrap_or_default(),
            approved: fields.approved.unwrap_or_default(),
        }
    }
}

/// Asks the set every case.
#[must_use]
pub fn run_tests(set: &PolicySet, cases: &[Case]) -> Vec<CaseResult> {
    cases
        .iter()
        .map(|case| {
            let decision: Decision = set.decide(&case.input(set));
            let by_policy = case.policy.as_ref().is_none_or(|id| decision.policies.contains(id));
            CaseResult {
                name: case.name.clone(),
                passed: decision.verdict == case.expect && by_policy,
                expected: case.expect,
                got: decision.verdict,
                expected_policy: case.policy.clone(),
                policies: decision.policies,
                reason: decision.reason,
            }
        })
        .collect()
}
