//! A denial explained: why, the narrowest rule that would permit it, and what that rule also opens.

use crate::cedar::quote;
use crate::decide::{Because, Decision};
use crate::entry::{self, List};
use crate::{ToolDecl, ToolKind, WORKSPACE};
use serde::Serialize;
use std::collections::BTreeSet;
use types::{ActionRequest, FsAccess};

/// A rule that would permit something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Suggestion {
    /// An entry for `allow` in `[permissions]`, when one says it.
    pub entry: Option<String>,
    /// The same in Cedar, never wider than the entry.
    pub cedar: Option<String>,
    /// What the entry (without one, the Cedar policy) opens, for people.
    pub opens: String,
}

/// Why something was denied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// One or two sentences.
    pub reason: String,
    /// What the narrowest rule also opens; empty when no rule can permit it.
    pub also_opens: String,
    /// That rule; `None` when a `forbid` or a failure denies, which no permit can open.
    pub suggestion: Option<Suggestion>,
}

/// Explains a denial.
#[must_use]
pub fn explain_denial(decision: &Decision, request: &ActionRequest) -> Explanation {
    let what = format!("{} {}", request.name(), request.resource());
    match decision.because {
        Because::NoRule => {
            let suggestion = suggestion(request);
            Explanation {
                reason: format!("{what}: {}", decision.reason),
                also_opens: suggestion.opens.clone(),
                suggestion: Some(suggestion),
            }
        }
        Because::Forbidden => Explanation {
            reason: format!("{what}: {}; adding a permit cannot open it", decision.reason),
            also_opens: String::new(),
            suggestion: None,
        },
        Because::Failed => Explanation {
            reason: format!("{what}: refused, {}", decision.reason),
            also_opens: String::new(),
            suggestion: None,
        },
        Because::Permitted | Because::Asked => Explanation {
            reason: format!("{what}: not denied, {}", decision.reason),
            also_opens: String::new(),
            suggestion: None,
        },
    }
}

/// The narrowest rules for a list of denied requests, without repetition, sorted.
#[must_use]
pub fn narrowest(requests: &[ActionRequest]) -> Vec<Suggestion> {
    let suggestions: BTreeSet<Suggestion> = requests.iter().map(suggestion).collect();
    suggestions.into_iter().collect()
}

fn suggestion(request: &ActionRequest) -> Suggestion {
    match request {
        ActionRequest::CallModel { route, .. } => Suggestion {
            entry: None,
            cedar: Some(permit("call_model", &format!("resource == Route::{}", quote(route)), &[])),
            opens: format!("every model call on route {}", shown(route)),
        },
        ActionRequest::CallTool { tool, .. } => of_tool("call_tool", tool, "every call of"),
        ActionRequest::RunCommand { tool, .. } => {
            of_tool("run_command", tool, "every command with")
        }
        ActionRequest::Path { access, path } => of_path(*access, path),
        ActionRequest::HttpRequest { host, method, path, port, scheme, query: _, facts: _ } => {
            of_http(host, method, path, *port, scheme)
        }
        ActionRequest::Connect { host, port } => Suggestion {
            entry: valid(format!("CONNECT {host}:{port}")),
            cedar: Some(permit(
                "connect",
                &format!("resource == Host::{}", quote(host)),
                &[format!("context.port == {port}")],
            )),
            opens: format!("any bytes to {}:{port}, uninspected", shown(host)),
        },
        ActionRequest::UseSecret { secret, host } => Suggestion {
            entry: valid(format!("secret:{secret}@{host}")),
            cedar: Some(permit(
                "use_secret",
                &format!("resource == Secret::{}", quote(secret)),
                &[format!("context.host == {}", quote(host))],
            )),
            opens: format!(
                "sending secret {} to {} in any permitted request",
                shown(secret),
                shown(host)
            ),
        },
    }
}

fn permit(action: &str, resource: &str, when: &[String]) -> String {
    let when =
        if when.is_empty() { String::new() } else { format!(" when {{ {} }}", when.join(" && ")) };
    format!("permit(principal, action == Action::\"{action}\", {resource}){when};")
}

fn of_tool(action: &str, tool: &str, what: &str) -> Suggestion {
    Suggestion {
        entry: Some(tool.to_owned()),
        cedar: Some(permit(action, &format!("resource == Tool::{}", quote(tool)), &[])),
        opens: format!("{what} {}, with whatever arguments", shown(tool)),
    }
}

fn of_path(access: FsAccess, path: &str) -> Suggestion {
    let (action, verb, entry) = match access {
        FsAccess::Read => ("read_file", "reading", Some("read_file")),
        FsAccess::Write => ("write_file", "changing", Some("write_file")),
        FsAccess::Mount => ("mount", "mounting", None),
    };
    let in_workspace =
        path.strip_prefix(WORKSPACE).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let entry = entry.filter(|_| in_workspace).map(str::to_owned);
    let opens = if entry.is_some() {
        format!("{verb} everything in {WORKSPACE}")
    } else {
        format!("{verb} {} and nothing else", shown(path))
    };
    let scope = format!("resource == Path::{}", quote(path));
    Suggestion { entry, cedar: Some(permit(action, &scope, &[])), opens }
}

fn of_http(host: &str, method: &str, path: &str, port: u16, scheme: &str) -> Suggestion {
    let usual = port == if scheme == "http" { 80 } else { 443 };
    let authority = if usual { host.to_owned() } else { format!("{host}:{port}") };
    let entry =
        Some(format!("{method} {authority}{path}")).filter(|_| !path.contains('*')).and_then(valid);
    let cedar = permit(
        "http_request",
        &format!("resource == Host::{}", quote(host)),
        &[
            format!("context.method == {}", quote(method)),
            format!("context.path == {}", quote(path)),
            format!("context.port == {port}"),
        ],
    );
    let any_port = if usual && entry.is_some() { ", any port" } else { "" };
    Suggestion {
        entry,
        cedar: Some(cedar),
        opens: format!(
            "{} {}{} with any query and body{any_port}",
            shown(method),
            shown(&authority),
            shown(path)
        ),
    }
}

/// The entry, if it reads back as one.
fn valid(entry: String) -> Option<String> {
    let none: [ToolDecl; 0] = [];
    entry::read(&entry, List::Allow, "", &none).ok().map(|_| entry)
}

/// Text of the sandbox for a person's terminal: control characters escaped.
fn shown(text: &str) -> String {
    crate::cedar::printable(text)
}

impl ToolKind {
    /// The action its calls are decided as: `run_command`, `call_tool`; files by class.
    #[must_use]
    pub const fn action(self) -> Option<&'static str> {
        match self {
            Self::Shell | Self::Check => Some("run_command"),
            Self::Command | Self::Wait => Some("call_tool"),
            Self::Files => None,
        }
    }
}
