//! What an HTTP request is about, as policy sees it: the boundary's facts in Cedar's terms.
//!
//! What was not read opens nothing: fields of a body that was not understood are absent, and the
//! references of a push whose commands were not read are not known. Where nothing looked into the
//! request, git is told from method, path and query alone, widely: what might be a push counts as
//! one.

use cedar_policy::RestrictedExpression;
use std::borrow::Cow;
use std::collections::BTreeSet;
use types::{BodyKind, HttpFacts, RefChange};

/// Most facts of one kind (headers, fields, references) of one request.
pub const FACTS_MAX: usize = 4096;
/// Longest text of one fact, in bytes.
pub const FACT_BYTES_MAX: usize = 2 << 20;
/// Longest name of a repository, a reference or a package, in bytes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Most parts between slashes of a repository's or a reference's name.
pub const NAME_PARTS_MAX: usize = 32;

/// `context.operation` of a fetch.
pub(crate) const FETCH: &str = "git fetch";
/// `context.operation` of a push, its first question included.
pub(crate) const PUSH: &str = "git push";
/// `context.operation` of an installation.
pub(crate) const INSTALL: &str = "package install";
/// `context.operation` of a publication.
pub(crate) const PUBLISH: &str = "package publish";
/// `context.operation` of our own request for a token, in the place of a client's secret.
const TOKEN: &str = "oauth token";

/// Attributes of `http_request` that come from what the boundary read.
pub(crate) const ATTRIBUTES: [&str; 19] = [
    "headers",
    "secrets",
    "websocket",
    "body_kind",
    "body_bytes",
    "body_understood",
    "fields",
    "rpc_methods",
    "operation",
    "package",
    "repository",
    "repository_folded",
    "refs",
    "ref_changes",
    "refs_within",
    "refs_touched",
    "refs_known",
    "may_force",
    "deletes",
];

/// An HTTP request as policy reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    method: &'a str,
    path: &'a str,
    query: &'a str,
    facts: Option<&'a HttpFacts>,
}

impl<'a> Seen<'a> {
    pub(crate) const fn new(
        method: &'a str,
        path: &'a str,
        query: &'a str,
        facts: Option<&'a HttpFacts>,
    ) -> Self {
        Self { method, path, query, facts }
    }

    /// One attribute of the context.
    pub(crate) fn attribute(&self, name: &str) -> RestrictedExpression {
        let body = self.facts.map(|facts| &facts.body);
        let none: &[String] = &[];
        match name {
            "headers" => set(self.facts.map_or(none, |f| &f.headers).iter().map(|h| header(h))),
            "secrets" => set(self.facts.map_or(none, |f| &f.secrets).iter().cloned()),
            "websocket" => truth(self.facts.is_some_and(|facts| facts.websocket)),
            "body_kind" => text(body.map_or("", |body| kind_name(body.kind))),
            "body_bytes" => {
                let bytes = body.map_or(0, |body| i64::try_from(body.bytes).unwrap_or(i64::MAX));
                RestrictedExpression::new_long(bytes)
            }
            "body_understood" => truth(body.is_some_and(|body| body.understood)),
            "fields" => set(self.fields()),
            "rpc_methods" => set(self.rpc_methods()),
            "operation" => text(self.operation()),
            "package" => text(self.package()),
            "repository" => text(&self.repository()),
            "repository_folded" => text(&folded(&self.repository())),
            "refs" => set(self.refs().into_iter().map(str::to_owned)),
            "ref_changes" => set(self.ref_changes()),
            "refs_within" => set(self.refs_within()),
            "refs_touched" => set(self.refs_touched()),
            "refs_known" => truth(self.refs_known()),
            "may_force" => truth(self.may_force()),
            _ => truth(self.deletes()),
        }
    }

    fn understood(&self) -> Option<&'a HttpFacts> {
        self.facts.filter(|facts| facts.body.understood)
    }

    fn fields(&self) -> impl Iterator<Item = String> {
        let body = self.understood().map(|facts| &facts.body);
        body.into_iter().flat_map(|body| body.json.iter().chain(&body.form).cloned())
    }

    fn rpc_methods(&self) -> impl Iterator<Item = String> {
        self.understood().into_iter().flat_map(|facts| facts.body.rpc_methods.iter().cloned())
    }

    /// `git fetch`, `git push`, `package install`, `package publish`, `oauth token` or nothing.
    pub(crate) fn operation(&self) -> &'a str {
        let told = self.facts.map_or("", |facts| facts.operation.as_str());
        match told {
            "" | FETCH if self.asks("git-receive-pack") => PUSH,
            "" if self.asks("git-upload-pack") => FETCH,
            told => told,
        }
    }

    /// Whether path or query name a service of git.
    fn asks(&self, service: &str) -> bool {
        let parts = || self.path.split('/').filter(|part| !part.is_empty());
        let discovers = !self.query.is_empty()
            && parts().zip(parts().skip(1)).any(|pair| pair == ("info", "refs"));
        parts().any(|part| part.eq_ignore_ascii_case(service))
            || discovers && decoded(self.query).to_ascii_lowercase().contains(service)
    }

    /// The repository's path without a leading slash or `.git`, empty when there is none.
    pub(crate) fn repository(&self) -> Cow<'a, str> {
        if let Some(git) = self.facts.and_then(|facts| facts.git.as_ref()) {
            return Cow::Borrowed(&git.repository);
        }
        if !matches!(self.operation(), FETCH | PUSH) {
            return Cow::Borrowed("");
        }
        let ends = ["/info/refs", "/git-upload-pack", "/git-receive-pack"];
        let found = ends.iter().find_map(|end| self.path.strip_suffix(end)).unwrap_or_default();
        let name = found.trim_matches('/').trim_end_matches(".git");
        Cow::Borrowed(if check_repository(name).is_ok() { name } else { "" })
    }

    /// The package that is published, where the path says it (npm); else empty.
    pub(crate) fn package(&self) -> &'a str {
        if self.operation() != PUBLISH || self.method != "PUT" {
            return "";
        }
        let name = self.path.trim_start_matches('/');
        let plain = match name.split_once('/') {
            None => !name.starts_with(['-', '@']),
            Some((scope, rest)) => scope.starts_with('@') && !rest.contains('/'),
        };
        if plain && check_package(name).is_ok() { name } else { "" }
    }

    fn updates(&self) -> &'a [types::RefUpdate] {
        let git = self.facts.and_then(|facts| facts.git.as_ref());
        git.filter(|_| self.operation() == PUSH).map_or(&[], |git| &git.updates)
    }

    /// The references that a push changes.
    pub(crate) fn refs(&self) -> Vec<&'a str> {
        self.updates().iter().map(|update| update.name.as_str()).collect()
    }

    fn ref_changes(&self) -> impl Iterator<Item = String> {
        self.updates().iter().map(|update| {
            let change = match update.change {
                RefChange::Create => "create",
                RefChange::Update => "update",
                RefChange::Delete => "delete",
            };
            format!("{change} {}", update.name)
        })
    }

    /// Whether `refs` is all that a push changes. The first question of a push changes nothing.
    pub(crate) fn refs_known(&self) -> bool {
        if self.operation() != PUSH {
            return false;
        }
        match self.facts.and_then(|facts| facts.git.as_ref()) {
            Some(git) => git.complete && git.service == "git-receive-pack",
            None => self.method == "GET" && self.path.ends_with("/info/refs"),
        }
    }

    /// Whether a reference may be moved by force: of one that moves only the server can tell.
    pub(crate) fn may_force(&self) -> bool {
        let moves = self.updates().iter().any(|update| update.change == RefChange::Update);
        self.operation() == PUSH && (moves || !self.refs_known())
    }

    pub(crate) fn deletes(&self) -> bool {
        let deletes = self.updates().iter().any(|update| update.change == RefChange::Delete);
        self.operation() == PUSH && (deletes || !self.refs_known())
    }

    /// Patterns (`refs/heads/x`, `refs/heads/*`, `*`) that every changed reference fits; none
    /// where the references are not known or nothing is changed.
    fn refs_within(&self) -> BTreeSet<String> {
        if !self.refs_known() {
            return BTreeSet::new();
        }
        let fits = self.refs().into_iter().map(patterns);
        fits.reduce(|all, of| all.intersection(&of).cloned().collect()).unwrap_or_default()
    }

    /// Patterns that some changed reference fits.
    fn refs_touched(&self) -> BTreeSet<String> {
        self.refs().into_iter().flat_map(patterns).collect()
    }
}

/// A reference's own name and the directories it lies in, as patterns.
fn patterns(name: &str) -> BTreeSet<String> {
    let above = name.match_indices('/').map(|(at, _)| format!("{}/*", &name[..at]));
    above.chain([name.to_owned(), "*".to_owned()]).collect()
}

/// A repository's name as denials compare it: servers may not mind case, a second slash or `.git`.
pub(crate) fn folded(repository: &str) -> String {
    let parts: Vec<&str> = repository.split('/').filter(|part| !part.is_empty()).collect();
    parts.join("/").to_lowercase().trim_end_matches(".git").to_owned()
}

/// Percent-decoded, what is not well-formed left as it is.
fn decoded(query: &str) -> String {
    let bytes = query.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let hex = bytes.get(at + 1..at + 3).filter(|_| *byte == b'%');
        let value = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(value.unwrap_or(*byte));
        at += if value.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `name=value` as people write it.
fn header(told: &str) -> String {
    told.split_once('=').map_or_else(|| told.to_owned(), |(name, value)| format!("{name}: {value}"))
}

const fn kind_name(kind: BodyKind) -> &'static str {
    match kind {
        BodyKind::None => "none",
        BodyKind::Buffered => "buffered",
        BodyKind::Streamed => "streamed",
    }
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn truth(value: bool) -> RestrictedExpression {
    RestrictedExpression::new_bool(value)
}

fn set(values: impl IntoIterator<Item = String>) -> RestrictedExpression {
    RestrictedExpression::new_set(values.into_iter().map(RestrictedExpression::new_string))
}

/// Whether facts are within bounds and name things in a form that no rule can misread.
pub(crate) fn check(facts: &HttpFacts) -> Result<(), String> {
    let body = &facts.body;
    for (what, list) in [
        ("headers", &facts.headers),
        ("secrets", &facts.secrets),
        ("JSON fields", &body.json),
        ("form fields", &body.form),
        ("RPC methods", &body.rpc_methods),
    ] {
        if list.len() > FACTS_MAX {
            return Err(format!("{what}: {} of them, the limit is {FACTS_MAX}", list.len()));
        }
        if let Some(long) = list.iter().find(|fact| fact.len() > FACT_BYTES_MAX) {
            return Err(format!("{what}: {} bytes, the limit is {FACT_BYTES_MAX}", long.len()));
        }
    }
    if !matches!(facts.operation.as_str(), "" | FETCH | PUSH | INSTALL | PUBLISH | TOKEN) {
        return Err(format!("operation {:?} is not known", facts.operation));
    }
    let Some(git) = &facts.git else { return Ok(()) };
    if !git.repository.is_empty() {
        check_name(&git.repository, "\"*\\")
            .map_err(|why| format!("repository {:?}: {why}", git.repository))?;
    }
    if git.updates.len() > FACTS_MAX {
        return Err(format!("{} references, the limit is {FACTS_MAX}", git.updates.len()));
    }
    git.updates.iter().try_for_each(|update| {
        check_ref(&update.name).map_err(|why| format!("reference {:?}: {why}", update.name))
    })
}

fn check_name(name: &str, forbidden: &str) -> Result<(), &'static str> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return Err("it must have 1 to 1024 bytes");
    }
    if name.chars().any(|c| crate::cedar::is_hidden(c) || forbidden.contains(c)) {
        return Err("it has a quote, a wildcard, white space or another character no name has");
    }
    if name.split('/').count() > NAME_PARTS_MAX {
        return Err("it has more than 32 parts");
    }
    if name.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err("it has an empty part, `.` or `..`");
    }
    Ok(())
}

/// `owner/name`, or any other path.
pub(crate) fn check_repository(name: &str) -> Result<(), &'static str> {
    check_name(name, " \"'`*?[]\\%#<>|^:")
}

/// A whole name, as git itself allows: `refs/heads/main`.
pub(crate) fn check_ref(name: &str) -> Result<(), &'static str> {
    check_name(name, " \"*?[\\~^:")?;
    if !name.starts_with("refs/") {
        return Err("a reference is written whole, as in `refs/heads/main`");
    }
    if name.contains("..") || name.contains("@{") || name.ends_with('.') {
        return Err("git allows no such name");
    }
    Ok(())
}

/// `name` or `@scope/name`.
pub(crate) fn check_package(name: &str) -> Result<(), &'static str> {
    let good = |c: char| c.is_ascii_alphanumeric() || "@/._-~+".contains(c);
    if !name.chars().all(good) {
        return Err("a package is named by letters, digits, `.`, `_`, `-`, `@` and `/`");
    }
    check_name(name, "")
}
