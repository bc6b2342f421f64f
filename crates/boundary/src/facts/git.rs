//! Git over HTTP: which repository, fetch or push, and what a push changes.

use super::Outline;
use crate::body::Collected;
use crate::limits::FACTS_MAX;
use types::{BodyKind, GitFacts, RefChange, RefUpdate};

const UPLOAD: &str = "git-upload-pack";
const RECEIVE: &str = "git-receive-pack";

/// What git says in a request, if it is one of git's.
pub(super) fn read(outline: &Outline<'_>, body: &Collected) -> Option<GitFacts> {
    let (repository, service) = shape(outline)?;
    let mut facts = GitFacts {
        repository: repository.trim_matches('/').trim_end_matches(".git").to_owned(),
        service: service.to_owned(),
        updates: Vec::new(),
        complete: true,
    };
    let pushes = service == RECEIVE && outline.method != "GET";
    if pushes {
        let encoded = outline.headers.contains_key(http::header::CONTENT_ENCODING);
        let updates = if encoded { None } else { updates(&body.data) };
        facts.complete = updates.is_some() && body.kind() != BodyKind::None;
        facts.updates = updates.unwrap_or_default();
    }
    Some(facts)
}

/// The repository's path and the service.
fn shape<'a>(outline: &Outline<'a>) -> Option<(&'a str, &'static str)> {
    let service = |name: &str| [UPLOAD, RECEIVE].into_iter().find(|known| *known == name);
    if let Some(repository) = outline.path.strip_suffix("/info/refs") {
        let mut asked = outline.query.split('&').filter_map(|pair| pair.strip_prefix("service="));
        return match (asked.next(), asked.next()) {
            (Some(name), None) => Some((repository, service(name)?)),
            _ => None,
        };
    }
    let (repository, name) = outline.path.rsplit_once('/')?;
    Some((repository, service(name)?))
}

/// The commands before the pack; none when they are not all there or not plain.
fn updates(mut body: &[u8]) -> Option<Vec<RefUpdate>> {
    let mut updates = Vec::new();
    loop {
        let length = std::str::from_utf8(body.get(..4)?).ok()?;
        let plain = length.bytes().all(|b| b.is_ascii_hexdigit());
        match usize::from_str_radix(length, 16).ok().filter(|_| plain)? {
            0 => return Some(updates),
            length @ 5.. => {
                let line = body.get(4..length)?;
                body = &body[length..];
                if !line.starts_with(b"shallow ") {
                    updates.push(update(line)?);
                }
            }
            _ => return None,
        }
        if updates.len() > FACTS_MAX {
            return None;
        }
    }
}

/// `OLD NEW REF`, perhaps with capabilities after a NUL.
fn update(line: &[u8]) -> Option<RefUpdate> {
    let command = line.split(|b| *b == 0).next()?;
    let command = std::str::from_utf8(command).ok()?.trim_end_matches('\n');
    let mut parts = command.splitn(3, ' ');
    let (old, new, name) = (parts.next()?, parts.next()?, parts.next()?);
    let is_id = |id: &str| matches!(id.len(), 40 | 64) && id.bytes().all(|b| b.is_ascii_hexdigit());
    let none = |id: &str| id.bytes().all(|b| b == b'0');
    if !is_id(old) || !is_id(new) || name.is_empty() || name.contains(char::is_control) {
        return None;
    }
    let change = match (none(old), none(new)) {
        (_, true) => RefChange::Delete,
        (true, false) => RefChange::Create,
        (false, false) => RefChange::Update,
    };
    Some(RefUpdate { name: name.to_owned(), change })
}
