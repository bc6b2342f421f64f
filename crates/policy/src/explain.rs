//! A denial explained: why, the narrowest rule that would permit it, and what that rule also opens.

use crate::cedar::quote;
use crate::decide::{Because, Decision};
use crate::entry::{self, List};
use crate::facts::{FETCH, INSTALL, PUBLISH, PUSH, Seen};
use crate::{MEMORY, ToolDecl, ToolKind, WORKSPACE};
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
        ActionRequest::HttpRequest { host, method, path, port, scheme, query, facts } => {
            let seen = Seen::new(method, path, query, facts.as_deref());
            let target = Target { host, method, path, port: *port, scheme };
            match seen.operation() {
                FETCH => of_fetch(&target, &seen),
                PUSH => of_push(&target, &seen),
                INSTALL => of_install(&target),
                PUBLISH if !seen.package().is_empty() => of_publish(&target, seen.package()),
                _ => of_http(&target),
            }
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
    let tree = [WORKSPACE, MEMORY].into_iter().find(|tree| {
        path.strip_prefix(tree).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let entry = entry.filter(|_| tree.is_some()).map(str::to_owned);
    let opens = if let (Some(tree), Some(_)) = (tree, &entry) {
        format!("{verb} everything in {tree}")
    } else {
        format!("{verb} {} and nothing else", shown(path))
    };
    let scope = format!("resource == Path::{}", quote(path));
    Suggestion { entry, cedar: Some(permit(action, &scope, &[])), opens }
}

/// Where an HTTP request goes.
struct Target<'a> {
    host: &'a str,
    method: &'a str,
    path: &'a str,
    port: u16,
    scheme: &'a str,
}

impl Target<'_> {
    /// Whether the port is the scheme's own.
    fn usual(&self) -> bool {
        self.port == if self.scheme == "http" { 80 } else { 443 }
    }

    /// The host, with a port that is not the scheme's own.
    fn authority(&self) -> String {
        match self.usual() {
            true => self.host.to_owned(),
            false => format!("{}:{}", self.host, self.port),
        }
    }

    fn permit(&self, mut when: Vec<String>) -> Option<String> {
        when.push(format!("context.port == {}", self.port));
        let scope = format!("resource == Host::{}", quote(self.host));
        Some(permit("http_request", &scope, &when))
    }

    /// What an entry without a port opens besides.
    fn ports(&self, entry: &Option<String>) -> &'static str {
        if self.usual() && entry.is_some() { ", any port" } else { "" }
    }
}

fn of_http(target: &Target<'_>) -> Suggestion {
    let (method, path, authority) = (target.method, target.path, target.authority());
    let entry =
        Some(format!("{method} {authority}{path}")).filter(|_| !path.contains('*')).and_then(valid);
    let cedar = target.permit(vec![
        format!("context.method == {}", quote(method)),
        format!("context.path == {}", quote(path)),
    ]);
    let opens = format!(
        "{} {}{} with any query and body{}",
        shown(method),
        shown(&authority),
        shown(path),
        target.ports(&entry)
    );
    Suggestion { entry, cedar, opens }
}

/// Conditions of one operation on one repository, and `host/owner/repo`.
fn of_repository(target: &Target<'_>, seen: &Seen<'_>) -> (Vec<String>, String) {
    let repository = seen.repository();
    let when = vec![
        format!("context.operation == {}", quote(seen.operation())),
        format!("context.repository == {}", quote(&repository)),
    ];
    (when, format!("{}/{repository}", target.authority()))
}

fn of_fetch(target: &Target<'_>, seen: &Seen<'_>) -> Suggestion {
    let (when, repository) = of_repository(target, seen);
    let entry = valid(format!("git fetch {repository}"));
    let opens =
        format!("cloning and fetching all of {}{}", shown(&repository), target.ports(&entry));
    Suggestion { entry, cedar: target.permit(when), opens }
}

fn of_push(target: &Target<'_>, seen: &Seen<'_>) -> Suggestion {
    let (mut when, repository) = of_repository(target, seen);
    let refs = seen.refs();
    let to = shown(&repository);
    if !seen.refs_known() {
        when.push(format!("context.path == {}", quote(target.path)));
        when.push("!context.refs_known".to_owned());
        let opens = format!("any change of any reference of {to}: what is pushed cannot be read");
        return Suggestion { entry: None, cedar: target.permit(when), opens };
    }
    when.push("context.refs_known".to_owned());
    let force = seen.may_force() || seen.deletes();
    let verb = if force { "git force-push" } else { "git push" };
    if refs.is_empty() {
        when.push("context.refs.isEmpty()".to_owned());
        let opens = format!(
            "asking which references {to} has, as every push does first, and changing nothing; `git push {to} refs/heads/NAME` also opens creating that branch"
        );
        return Suggestion { entry: None, cedar: target.permit(when), opens };
    }
    let quoted: Vec<String> = refs.iter().map(|name| quote(name)).collect();
    when.push(format!("[{}].containsAll(context.refs)", quoted.join(", ")));
    if !force {
        when.push("!context.may_force && !context.deletes".to_owned());
    }
    let entry = match refs.as_slice() {
        [one] => valid(format!("{verb} {repository} {one}")),
        _ => None,
    };
    let verbs = if force { "creating, moving (also by force) and deleting" } else { "creating" };
    let ports = target.ports(&entry);
    let besides = if entry.is_some() { ", and asking which references there are" } else { "" };
    let opens = format!("{verbs} {} in {to}{besides}{ports}", shown(&refs.join(", ")));
    Suggestion { entry, cedar: target.permit(when), opens }
}

fn of_install(target: &Target<'_>) -> Suggestion {
    let authority = target.authority();
    let entry = valid(format!("install {authority}"));
    let cedar = target.permit(vec![
        format!("context.operation == {}", quote(INSTALL)),
        format!("context.method == {}", quote(target.method)),
    ]);
    let opens = format!(
        "reading everything at {}, and what installers ask of it; nothing is published{}",
        shown(&authority),
        target.ports(&entry)
    );
    Suggestion { entry, cedar, opens }
}

fn of_publish(target: &Target<'_>, package: &str) -> Suggestion {
    let entry = valid(format!("publish {}/{package}", target.authority()));
    let cedar = target.permit(vec![
        format!("context.operation == {}", quote(PUBLISH)),
        format!("context.package == {}", quote(package)),
        format!("context.method == {}", quote(target.method)),
    ]);
    let opens = format!(
        "publishing any version of {} at {}{}",
        shown(package),
        shown(target.host),
        target.ports(&entry)
    );
    Suggestion { entry, cedar, opens }
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
