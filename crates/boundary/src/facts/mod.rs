//! What can be told of a request: its body, git's words, package registries.
//!
//! What can be read in two ways is refused; what cannot be read is said not to be understood.
//! Nothing here is decided.

mod form;
mod git;
mod json;
mod package;

use crate::body::Collected;
use crate::error::BoundaryError;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use types::{BodyFacts, BodyKind, Digest, HttpFacts};

pub(crate) use form::decode as decode_form;

/// Headers that are told, beside those that carry a credential.
const TOLD: [&str; 20] = [
    "accept",
    "content-encoding",
    "content-type",
    "content-range",
    "git-protocol",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "origin",
    "prefer",
    "range",
    "sec-websocket-protocol",
    "soapaction",
    "user-agent",
    "x-amz-target",
    "x-github-api-version",
];

/// Headers whose value is told as a digest only.
pub(crate) const CREDENTIALS: [&str; 9] = [
    "api-key",
    "authorization",
    "cookie",
    "private-token",
    "x-amz-security-token",
    "x-api-key",
    "x-auth-token",
    "x-goog-api-key",
    "x-vault-token",
];

/// What a request is about, before its body.
pub(crate) struct Outline<'a> {
    pub(crate) host: &'a str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
}

/// Reads what can be told. `salt` keeps digests of credentials from being guessed.
pub(crate) fn read(
    outline: &Outline<'_>,
    body: &Collected,
    salt: &[u8; 32],
) -> Result<HttpFacts, BoundaryError> {
    let git = git::read(outline, body);
    let operation = match &git {
        Some(git) if git.service == "git-receive-pack" => "git push",
        Some(_) => "git fetch",
        None => package::operation(outline, body),
    };
    let body = read_body(outline.headers, body)?;
    check_mcp(outline.headers, &body)?;
    Ok(HttpFacts {
        operation: operation.to_owned(),
        headers: told(outline.headers, salt),
        body,
        git,
        ..HttpFacts::default()
    })
}

fn told(headers: &HeaderMap, salt: &[u8; 32]) -> Vec<String> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let mut told = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        if CREDENTIALS.contains(&name) {
            let digest = Digest::of_parts("bedplate credential", &[salt, value.as_bytes()]);
            told.push(format!("{name}=sha256:{digest}"));
        } else if TOLD.contains(&name) {
            told.push(format!("{name}={}", text(value)));
        }
    }
    told.sort_unstable();
    told
}

fn read_body(headers: &HeaderMap, body: &Collected) -> Result<BodyFacts, BoundaryError> {
    let mut facts =
        BodyFacts { kind: body.kind(), bytes: body.data.len() as u64, ..BodyFacts::default() };
    if facts.kind == BodyKind::None {
        facts.understood = true;
        return Ok(facts);
    }
    if headers.get_all(CONTENT_TYPE).iter().count() > 1 {
        return Err(BoundaryError::Body("it has two types"));
    }
    if facts.kind == BodyKind::Streamed || headers.contains_key(CONTENT_ENCODING) {
        return Ok(facts);
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
        if let Some(pairs) = form::read(&body.data) {
            (facts.form, facts.understood) = (pairs, true);
        }
    } else if matches!(body.data.trim_ascii_start().first(), Some(b'{' | b'[')) {
        // Whatever the type says: servers are known not to look.
        if let Some(json) = json::read(&body.data)? {
            (facts.json, facts.rpc_methods) = (json.scalars, json.rpc_methods);
            facts.understood = true;
        }
    }
    Ok(facts)
}

/// A header that says what a body does must say what the body says.
fn check_mcp(headers: &HeaderMap, body: &BodyFacts) -> Result<(), BoundaryError> {
    let Some(said) = headers.get("mcp-method") else { return Ok(()) };
    let agrees = body.rpc_methods.iter().all(|method| said.as_bytes() == method.as_bytes());
    if !agrees || headers.get_all("mcp-method").iter().count() > 1 {
        return Err(BoundaryError::Body("its method is not the one that a header says"));
    }
    let Some(name) = headers.get("mcp-name") else { return Ok(()) };
    let mut names = body.json.iter().filter_map(|fact| {
        fact.strip_prefix("/params/name=").or_else(|| fact.strip_prefix("/params/uri="))
    });
    if names.any(|inside| inside.as_bytes() != name.as_bytes()) {
        return Err(BoundaryError::Body("its name is not the one that a header says"));
    }
    Ok(())
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
