//! Permissions entries: tool names, `METHOD host[:port][/path*]`, `host`, `secret:NAME@host`, and
//! those of `operation.rs`: `git push host/owner/repo refs/heads/x`.
//!
//! Reading is strict. An entry opens narrowly and closes widely: `host` permits GET and HEAD, but
//! denies everything; `DELETE host/x/*` permits only below `/x/`, but also denies `/x` itself.

use crate::facts::{PUSH, Seen};
use crate::operation::{self, Operation};
use crate::{PolicyError, host};

/// Longest entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 2048;
/// Characters of an entry quoted in an error.
const QUOTED_CHARS_MAX: usize = 200;

/// What a tool of the agent is, as permissions see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolKind {
    /// Runs commands in the sandbox: `shell`, `python`. Decided as `run_command`.
    Shell,
    /// Reads or writes workspace files. Decided as `read_file` (class `read`) or `write_file`.
    Files,
    /// A command tool or an MCP tool. Decided as `call_tool`.
    Command,
    /// Waits for a time or a signal. Decided as `call_tool`.
    Wait,
    /// Runs the manifest's checks. Decided as `run_command`.
    Check,
}

/// An entry as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    Tool(String, ToolKind, types::EffectClass),
    Http {
        /// `None`: none was written.
        method: Option<String>,
        hosts: Hosts,
        port: Option<u16>,
        path: PathRule,
    },
    Connect {
        hosts: Hosts,
        port: Option<u16>,
    },
    Secret {
        name: String,
        host: Option<String>,
    },
    /// More than one request: git, package registries.
    Operation(Operation),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hosts {
    Any,
    One(String),
    /// Everything below the domain, not the domain's own name.
    Below(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathRule {
    Any,
    Exactly(String),
    /// With at least one `*`.
    Pattern(String),
}

/// Whether an entry opens (allow) or closes (deny), or both (ask).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum List {
    Allow,
    Ask,
    Deny,
}

/// Reads one entry. `source_name` is its list and place, for errors.
pub(crate) fn read(
    text: &str,
    list: List,
    source_name: &str,
    tools: &[crate::ToolDecl],
) -> Result<Entry, PolicyError> {
    let bad = |reason: String| PolicyError::BadEntry {
        source_name: source_name.to_owned(),
        entry: quoted(text),
        reason,
    };
    if let Some(tool) = tools.iter().find(|tool| tool.name == text) {
        return Ok(Entry::Tool(tool.name.clone(), tool.kind, tool.effect));
    }
    if text.is_empty() || text.len() > ENTRY_BYTES_MAX {
        return Err(bad(format!("it must have 1 to {ENTRY_BYTES_MAX} bytes")));
    }
    if text.chars().any(|c| c.is_control()) {
        return Err(bad("it has a control character".to_owned()));
    }
    if let Some(secret) = text.strip_prefix("secret:") {
        return read_secret(secret, list).map_err(bad);
    }
    match text.split_once(' ') {
        Some((word, _)) if operation::WORDS.contains(&word) => {
            operation::read(text, list).map(Entry::Operation).map_err(bad)
        }
        Some((method, rest)) => read_method(method, rest, list).map_err(bad),
        None if looks_like_host(text) => read_target(text, list)
            .map(|(hosts, port, path)| Entry::Http { method: None, hosts, port, path })
            .map_err(bad),
        None => Err(PolicyError::UnknownTool {
            source_name: source_name.to_owned(),
            entry: quoted(text),
            nearest: nearest(text, tools),
        }),
    }
}

fn quoted(text: &str) -> String {
    let cut: String = text.chars().take(QUOTED_CHARS_MAX).collect();
    crate::cedar::printable(&cut)
}

fn looks_like_host(text: &str) -> bool {
    text == "localhost" || text.contains(['.', '/', ':', '*', '['])
}

/// The most similar tool name, if one is similar.
pub(crate) fn nearest(text: &str, tools: &[crate::ToolDecl]) -> Option<String> {
    tools
        .iter()
        .map(|tool| (strsim::jaro_winkler(text, &tool.name), &tool.name))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.clone())
}

fn read_secret(text: &str, list: List) -> Result<Entry, String> {
    let (name, host) = match text.split_once('@') {
        Some((name, host)) => (name, Some(host)),
        None => (text, None),
    };
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || !name.chars().all(good) {
        return Err("a secret is named by letters, digits, `_`, `-` and `.`".to_owned());
    }
    let host = match host {
        Some(host) => Some(read_name(host)?),
        None if list == List::Deny => None,
        None => return Err("say where it may go: `secret:NAME@host`".to_owned()),
    };
    Ok(Entry::Secret { name: name.to_owned(), host })
}

fn read_method(method: &str, rest: &str, list: List) -> Result<Entry, String> {
    let good = (1..=20).contains(&method.len()) && method.bytes().all(|b| b.is_ascii_uppercase());
    if !good {
        return Err(format!(
            "a method is upper case, as in `{} {}`",
            method.to_ascii_uppercase(),
            rest.trim()
        ));
    }
    if rest.contains(char::is_whitespace) {
        return Err("one space stands between method and host, none elsewhere".to_owned());
    }
    let (hosts, port, path) = read_target(rest, list)?;
    if list != List::Deny && method == "POST" && only_pushes(&path) {
        return Err("pushes are opened by `git push host/owner/repo refs/heads/x`".to_owned());
    }
    match method {
        "CONNECT" if path == PathRule::Any => Ok(Entry::Connect { hosts, port }),
        "CONNECT" => Err("an opaque connection has no path".to_owned()),
        _ => Ok(Entry::Http { method: Some(method.to_owned()), hosts, port, path }),
    }
}

/// `host[:port][/path*]`.
fn read_target(text: &str, list: List) -> Result<(Hosts, Option<u16>, PathRule), String> {
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!("write it without `{scheme}://`, as in `{}`", rest.trim()));
    }
    let (authority, path) = match text.find('/') {
        Some(slash) => (&text[..slash], Some(&text[slash..])),
        None => (text, None),
    };
    let (hosts, port) = read_authority(authority, list)?;
    Ok((hosts, port, read_path(path)?))
}

/// `host[:port]`.
pub(crate) fn read_authority(text: &str, list: List) -> Result<(Hosts, Option<u16>), String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) => (name, Some(read_port(port)?)),
        None => (text, None),
    };
    Ok((read_hosts(name, list)?, port))
}

/// Whether every request to this path is a push of git.
fn only_pushes(path: &PathRule) -> bool {
    matches!(path, PathRule::Exactly(path) if Seen::new("POST", path, "", None).operation() == PUSH)
}

impl PathRule {
    /// Whether some request to a path that fits may be a push of git, its first question included.
    pub(crate) fn may_be_push(&self) -> bool {
        match self {
            Self::Any | Self::Pattern(_) => true,
            Self::Exactly(path) => {
                Seen::new("GET", path, "service=git-receive-pack", None).operation() == PUSH
            }
        }
    }
}

fn read_port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    text.parse()
        .ok()
        .filter(|port| digits && *port > 0)
        .ok_or_else(|| format!("`{text}` is no port from 1 to 65535"))
}

fn read_hosts(text: &str, list: List) -> Result<Hosts, String> {
    if text == "*" {
        return match list {
            List::Allow => Err("`*` would allow every host; name them, or use policy.cedar".into()),
            _ => Ok(Hosts::Any),
        };
    }
    let Some(domain) = text.strip_prefix("*.") else {
        return Ok(Hosts::One(read_name(text)?));
    };
    let domain = read_name(domain)?;
    if list == List::Allow && !domain.contains('.') {
        return Err(format!("`*.{domain}` would allow a whole top-level domain; use policy.cedar"));
    }
    Ok(Hosts::Below(domain))
}

fn read_name(text: &str) -> Result<String, String> {
    let name = text.to_ascii_lowercase();
    if name.contains('*') {
        return Err("a wildcard stands only for whole first labels, as in `*.example.com`".into());
    }
    host::check(&name).map_err(|reason| format!("`{text}` is no host name: {reason}"))?;
    Ok(name)
}

fn read_path(path: Option<&str>) -> Result<PathRule, String> {
    let Some(path) = path else {
        return Ok(PathRule::Any);
    };
    if let Some(bad) = path.chars().find(|c| "?#%\\".contains(*c) || c.is_whitespace()) {
        return Err(format!(
            "a path is written decoded and without a query; `{bad}` does not belong"
        ));
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("a path has no `.` or `..`".to_owned());
    }
    Ok(match path {
        "/*" => PathRule::Any,
        _ if path.contains('*') => PathRule::Pattern(path.to_owned()),
        _ => PathRule::Exactly(path.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToolDecl;

    fn entry(text: &str) -> Result<Entry, String> {
        read(text, List::Allow, "permissions.allow[0]", &ToolDecl::builtins())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn entries_are_read() {
        let http = |method: Option<&str>, hosts: Hosts, port, path| {
            Ok(Entry::Http { method: method.map(str::to_owned), hosts, port, path })
        };
        let one = |name: &str| Hosts::One(name.to_owned());
        for (text, expected) in [
            ("api.example.test", http(None, one("api.example.test"), None, PathRule::Any)),
            ("API.Example.Test", http(None, one("api.example.test"), None, PathRule::Any)),
            ("localhost", http(None, one("localhost"), None, PathRule::Any)),
            ("build/*", http(None, one("build"), None, PathRule::Any)),
            (
                "GET a.test/v1/*",
                http(Some("GET"), one("a.test"), None, PathRule::Pattern("/v1/*".into())),
            ),
            (
                "POST a.test:8443/v1",
                http(Some("POST"), one("a.test"), Some(8443), PathRule::Exactly("/v1".into())),
            ),
            ("GET *.a.test", http(Some("GET"), Hosts::Below("a.test".into()), None, PathRule::Any)),
        ] {
            assert_eq!(entry(text), expected, "{text}");
        }
    }

    #[test]
    fn tools_connections_and_secrets_are_read() {
        let connect = Entry::Connect { hosts: Hosts::One("a.test".into()), port: Some(22) };
        let secret = Entry::Secret { name: "api".into(), host: Some("a.test".into()) };
        let shell = Entry::Tool("shell".into(), ToolKind::Shell, types::EffectClass::Workspace);
        assert_eq!(entry("CONNECT a.test:22"), Ok(connect));
        assert_eq!(entry("secret:api@a.test"), Ok(secret));
        assert_eq!(entry("shell"), Ok(shell));
    }

    #[test]
    fn bad_entries_say_why() {
        for (text, says) in [
            ("", "1 to 2048 bytes"),
            ("get a.test/x", "as in `GET a.test/x`"),
            ("GET  a.test", "one space"),
            ("GET https://a.test/x", "without `https://`"),
            ("https://a.test/x", "as in `a.test/x`"),
            ("*", "every host"),
            ("*.com", "top-level domain"),
            ("api.*.com", "whole first labels"),
            ("a.test:0/x", "no port"),
            ("a.test:99999", "no port"),
            ("a.test/x?y=1", "without a query"),
            ("a.test/a/../b", "no `.` or `..`"),
            ("a..test", "no host name"),
            ("GET a.test\n", "control character"),
            ("secret:api", "secret:NAME@host"),
            ("secret:a b@a.test", "letters"),
            ("secret:api@*.a.test", "whole first labels"),
            ("CONNECT a.test/x", "no path"),
            ("shel", "did you mean \"shell\""),
            ("send_mail", "names no tool"),
        ] {
            let error = entry(text).expect_err(text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
