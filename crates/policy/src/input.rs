//! What a decision is made from, its checks and its canonical bytes.

use crate::{canonical, facts, host};
use serde::{Deserialize, Serialize};
use types::{ActionRequest, Carried, Digest};

/// Longest text of a request that policy looks at (a command, a query), in bytes.
pub const TEXT_BYTES_MAX: usize = 4 << 20;

/// Whether a principal is a program or a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrincipalKind {
    /// `Agent::"name"`.
    Agent,
    /// `User::"login"`.
    User,
}

/// Who acts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Principal {
    /// Program or person.
    pub kind: PrincipalKind,
    /// The agent's name or the login.
    pub name: String,
    /// The teams it belongs to: `Team::"name"`.
    #[serde(default)]
    pub teams: Vec<String>,
}

impl Principal {
    /// An agent; an empty team is none.
    #[must_use]
    pub fn agent(name: &str, team: &str) -> Self {
        let team = Some(team.to_owned()).filter(|team| !team.is_empty());
        Self {
            kind: PrincipalKind::Agent,
            name: name.to_owned(),
            teams: team.into_iter().collect(),
        }
    }

    /// A person.
    #[must_use]
    pub fn user(login: &str) -> Self {
        Self { kind: PrincipalKind::User, name: login.to_owned(), teams: Vec::new() }
    }

    pub(crate) const fn type_name(&self) -> &'static str {
        match self.kind {
            PrincipalKind::Agent => "Agent",
            PrincipalKind::User => "User",
        }
    }
}

/// One question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionInput {
    /// Who acts.
    pub principal: Principal,
    /// What.
    pub request: ActionRequest,
    /// Labels and freshness of what it carries.
    pub carried: Carried,
    /// The person it acts for, empty when none.
    pub on_behalf_of: String,
    /// Whether a person approved exactly this.
    pub approved: bool,
}

impl DecisionInput {
    /// A question about an agent's unapproved action that carries nothing.
    #[must_use]
    pub fn new(principal: Principal, request: ActionRequest) -> Self {
        Self {
            principal,
            request,
            carried: Carried::default(),
            on_behalf_of: String::new(),
            approved: false,
        }
    }

    /// The bytes the input digest is of: canonical JSON, read back by `serde_json`.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("an input has string keys only");
        canonical::text(&value).into_bytes()
    }

    /// Digest of [`canonical_bytes`](Self::canonical_bytes) under its own domain.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_parts("bedplate policy input 1", &[&self.canonical_bytes()])
    }

    /// Whether the request is in the form that policy is written for.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.principal.name.is_empty() {
            return Err("the principal has no name".to_owned());
        }
        if i64::try_from(self.carried.oldest_input_age).is_err() {
            return Err("the oldest input's age is beyond 63 bits".to_owned());
        }
        let bad_host =
            |name: &str| host::check(name).map_err(|why| format!("host {name:?}: {why}"));
        match &self.request {
            ActionRequest::Path { path, .. } => {
                host::check_file_path(path).map_err(|why| format!("path {path:?}: {why}"))
            }
            ActionRequest::HttpRequest { host, method, path, scheme, query, port, facts } => {
                bad_host(host)?;
                check_port(*port)?;
                check_http(method, path, scheme)?;
                check_text("the query", query)?;
                facts.as_deref().map_or(Ok(()), facts::check)
            }
            ActionRequest::Connect { host, port } => bad_host(host).and(check_port(*port)),
            ActionRequest::UseSecret { host, .. } => bad_host(host),
            ActionRequest::RunCommand { command, .. } => check_text("the command", command),
            ActionRequest::CallTool { .. } | ActionRequest::CallModel { .. } => Ok(()),
        }
    }
}

/// What a person does to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonAction {
    /// Read its log.
    View,
    /// Approve, deny or resolve an action.
    Approve,
    /// End it.
    Cancel,
    /// Send to it, edit an asked action, fork or roll back.
    Edit,
}

impl PersonAction {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Approve => "approve",
            Self::Cancel => "cancel",
            Self::Edit => "edit",
        }
    }
}

/// One question about a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonInput {
    /// Who.
    pub person: Principal,
    /// Does what.
    pub action: PersonAction,
    /// To which run; empty: to the agent itself.
    pub run: String,
    /// The run's agent.
    pub agent: String,
}

impl PersonInput {
    /// Digest of the canonical JSON under its own domain.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let value = serde_json::to_value(self).expect("an input has string keys only");
        let bytes = canonical::text(&value).into_bytes();
        Digest::of_parts("bedplate person input 1", &[&bytes])
    }
}

fn check_port(port: u16) -> Result<(), String> {
    match port {
        0 => Err("port 0 is no destination".to_owned()),
        _ => Ok(()),
    }
}

fn check_text(what: &str, text: &str) -> Result<(), String> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("{what} has {} bytes, the limit is {TEXT_BYTES_MAX}", text.len()));
    }
    Ok(())
}

fn check_http(method: &str, path: &str, scheme: &str) -> Result<(), String> {
    let token =
        |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&b);
    if method.is_empty() || !method.bytes().all(token) {
        return Err(format!("method {method:?} is not an upper-case token"));
    }
    if !matches!(scheme, "http" | "https") {
        return Err(format!("scheme {scheme:?} is neither http nor https"));
    }
    host::check_http_path(path).map_err(|why| format!("path {path:?}: {why}"))
}
