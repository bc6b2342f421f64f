//! Every address of the API, once. The description in docs/openapi.json lists the same (tested).

use crate::ServeError;

/// What an address is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Openapi,
    ListRuns,
    StartRun,
    GetRun,
    ListRecords,
    StreamEvents,
    Send,
    Signal,
    Cancel,
    Suspend,
    Resume,
    ListArtifacts,
    GetArtifact,
    ListApprovals,
    Approve,
    Deny,
    Resolve,
    OpenSteps,
    TakeStep,
    ListSandboxes,
    CreateSandbox,
    GetSandbox,
    DestroySandbox,
    Exec,
    GetExec,
    SendInput,
    ResizeTerminal,
    ListFiles,
    ReadFile,
    WriteFile,
    StatFile,
    Snapshot,
    Fork,
    Rollback,
    Diff,
}

/// One address.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// `{name}` stands for one segment.
    pub(crate) path: &'static str,
    pub(crate) op: Op,
    /// Its name in the description.
    #[cfg_attr(not(test), expect(dead_code, reason = "the description is held against it"))]
    pub(crate) name: &'static str,
}

const fn route(method: &'static str, path: &'static str, op: Op, name: &'static str) -> Route {
    Route { method, path, op, name }
}

/// The addresses.
pub(crate) const ROUTES: [Route; 35] = [
    route("GET", "/openapi.json", Op::Openapi, "openapi"),
    route("GET", "/v1/runs", Op::ListRuns, "listRuns"),
    route("POST", "/v1/runs", Op::StartRun, "startRun"),
    route("GET", "/v1/runs/{run}", Op::GetRun, "getRun"),
    route("GET", "/v1/runs/{run}/records", Op::ListRecords, "listRecords"),
    route("GET", "/v1/runs/{run}/events", Op::StreamEvents, "streamEvents"),
    route("POST", "/v1/runs/{run}/send", Op::Send, "send"),
    route("POST", "/v1/runs/{run}/signal", Op::Signal, "signal"),
    route("POST", "/v1/runs/{run}/cancel", Op::Cancel, "cancel"),
    route("POST", "/v1/runs/{run}/suspend", Op::Suspend, "suspend"),
    route("POST", "/v1/runs/{run}/resume", Op::Resume, "resume"),
    route("GET", "/v1/runs/{run}/artifacts", Op::ListArtifacts, "listArtifacts"),
    route("GET", "/v1/runs/{run}/artifacts/{path}", Op::GetArtifact, "getArtifact"),
    route("GET", "/v1/approvals", Op::ListApprovals, "listApprovals"),
    route("POST", "/v1/approvals/{id}/approve", Op::Approve, "approve"),
    route("POST", "/v1/approvals/{id}/deny", Op::Deny, "deny"),
    route("POST", "/v1/approvals/{id}/resolve", Op::Resolve, "resolve"),
    route("POST", "/v1/steps/runs", Op::OpenSteps, "openSteps"),
    route("POST", "/v1/steps/runs/{run}/steps", Op::TakeStep, "takeStep"),
    route("GET", "/v1/sandboxes", Op::ListSandboxes, "listSandboxes"),
    route("POST", "/v1/sandboxes", Op::CreateSandbox, "createSandbox"),
    route("GET", "/v1/sandboxes/{sandbox}", Op::GetSandbox, "getSandbox"),
    route("DELETE", "/v1/sandboxes/{sandbox}", Op::DestroySandbox, "destroySandbox"),
    route("POST", "/v1/sandboxes/{sandbox}/exec", Op::Exec, "exec"),
    route("GET", "/v1/sandboxes/{sandbox}/execs/{exec}", Op::GetExec, "getExec"),
    route("POST", "/v1/sandboxes/{sandbox}/execs/{exec}/input", Op::SendInput, "sendInput"),
    route("POST", "/v1/sandboxes/{sandbox}/execs/{exec}/resize", Op::ResizeTerminal, "resize"),
    route("GET", "/v1/sandboxes/{sandbox}/files", Op::ListFiles, "listFiles"),
    route("GET", "/v1/sandboxes/{sandbox}/files/{path}", Op::ReadFile, "readFile"),
    route("PUT", "/v1/sandboxes/{sandbox}/files/{path}", Op::WriteFile, "writeFile"),
    route("GET", "/v1/sandboxes/{sandbox}/stat/{path}", Op::StatFile, "statFile"),
    route("POST", "/v1/sandboxes/{sandbox}/snapshot", Op::Snapshot, "snapshot"),
    route("POST", "/v1/sandboxes/{sandbox}/fork", Op::Fork, "fork"),
    route("POST", "/v1/sandboxes/{sandbox}/rollback", Op::Rollback, "rollback"),
    route("GET", "/v1/sandboxes/{sandbox}/diff", Op::Diff, "diff"),
];

/// The address that is meant, and what stands for its names, decoded.
pub(crate) fn find(method: &str, path: &str) -> Result<(Op, Vec<String>), ServeError> {
    let segments: Vec<&str> = path.split('/').collect();
    let found = ROUTES.iter().filter(|route| route.method == method).find_map(|route| {
        let pattern: Vec<&str> = route.path.split('/').collect();
        let fits = pattern.len() == segments.len();
        fits.then(|| values(&pattern, &segments)).flatten().map(|values| (route.op, values))
    });
    let short = |text: &str| text.chars().take(200).collect();
    found.ok_or_else(|| ServeError::NoRoute { method: short(method), path: short(path) })
}

fn values(pattern: &[&str], segments: &[&str]) -> Option<Vec<String>> {
    let mut values = Vec::new();
    for (expected, segment) in pattern.iter().zip(segments) {
        if expected.starts_with('{') {
            values.push(decoded(segment).filter(|value| !value.is_empty())?);
        } else if expected != segment {
            return None;
        }
    }
    Some(values)
}

/// A segment or a value of the query, decoded once; `None` when it is no UTF-8.
pub(crate) fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;
    use types::Coded;

    #[test]
    fn addresses_are_found_and_others_are_not() {
        let check = |method: &str, path: &str, expected: Option<(Op, &[&str])>| {
            let got = find(method, path);
            let Some((op, values)) = expected else {
                return assert_eq!(got.map_err(|e| e.code()), Err("BP-SERVE-004"), "{path}");
            };
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            assert_eq!(got, Ok((op, values)), "{method} {path}");
        };
        check("GET", "/v1/runs", Some((Op::ListRuns, &[])));
        check("POST", "/v1/runs", Some((Op::StartRun, &[])));
        check("GET", "/v1/runs/abc", Some((Op::GetRun, &["abc"])));
        check("GET", "/v1/runs/a/artifacts/b%2Fc%20d", Some((Op::GetArtifact, &["a", "b/c d"])));
        check("DELETE", "/v1/runs", None);
        check("GET", "/v1/runs/", None);
        check("GET", "/v1/runs/%zz", None);
        check("GET", "/v1/runs/%ff", None);
        check("GET", "//v1/runs", None);
        check("GET", "/", None);
    }

    #[test]
    fn the_description_and_the_addresses_agree() {
        let document: Value = serde_json::from_str(crate::OPENAPI).expect("it is JSON");
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let mut described = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let name = operation["operationId"].as_str().expect("a name").to_owned();
                described.insert((method.to_uppercase(), path.clone(), name));
                check_operation(&document, path, operation);
            }
        }
        let served: BTreeSet<_> = ROUTES
            .iter()
            .map(|r| (r.method.to_owned(), r.path.to_owned(), r.name.to_owned()))
            .collect();
        assert_eq!(described, served);
    }

    /// Each name in the path is a parameter, each reference leads somewhere, errors are described.
    fn check_operation(document: &Value, path: &str, operation: &Value) {
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let named: BTreeSet<&str> = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        let expected: BTreeSet<&str> =
            path.split('/').filter_map(|s| s.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(named, expected, "{path}");
        assert!(operation["responses"]["default"].is_object(), "{path} describes no error");
        let text = operation.to_string();
        for (at, _) in text.match_indices("\"#/") {
            let pointer = text[at + 2..].split('"').next().expect("a string ends");
            assert!(document.pointer(pointer).is_some(), "{path}: {pointer} leads nowhere");
        }
    }
}
