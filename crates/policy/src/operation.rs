//! Entries for what is more than one request: `git fetch`, `git push`, `git force-push`,
//! `install`, `publish`.
//!
//! | entry | opens | closes |
//! |---|---|---|
//! | `git fetch host/owner/repo` | its clone, fetch and pull | the same |
//! | `git push host/owner/repo REFS` | creating references that fit | every push that touches one |
//! | `git force-push host/owner/repo REFS` | creating, moving, deleting them | moving, deleting them |
//! | `install host` | reading the host; what installers ask by POST | package downloads |
//! | `publish host/package` | publishing that package | the same, and what might be it |
//!
//! Who may push may also ask what references there are, also where the push itself is asked. What
//! the boundary could not read opens nothing here and closes everything.

use crate::cedar::{pattern, quote};
use crate::entry::{Hosts, List, read_authority};
use crate::facts::{self, FETCH, INSTALL, PUBLISH, PUSH};

/// An entry of this kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) hosts: Hosts,
    pub(crate) port: Option<u16>,
    pub(crate) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    Fetch {
        repository: String,
    },
    Push {
        repository: String,
        /// A whole name, `refs/heads/*`, or `*`.
        refs: String,
        /// Whether references may be moved and deleted.
        force: bool,
    },
    Install,
    Publish {
        /// `*` for any.
        package: String,
    },
}

/// First words of these entries.
pub(crate) const WORDS: [&str; 3] = ["git", "install", "publish"];

const FORMS: &str = "write `git fetch host/owner/repo`, `git push host/owner/repo refs/heads/x` or `git force-push host/owner/repo refs/heads/x`";

/// Reads an entry that begins with one of [`WORDS`].
pub(crate) fn read(text: &str, list: List) -> Result<Operation, String> {
    let words: Vec<&str> = text.split(' ').collect();
    match words.as_slice() {
        ["git", "fetch", target] => of_git(target, list, |repository| What::Fetch { repository }),
        ["git", verb @ ("push" | "force-push"), target, refs] => {
            let (refs, force) = (read_refs(refs)?, *verb == "force-push");
            of_git(target, list, |repository| What::Push { repository, refs, force })
        }
        ["git", "push" | "force-push", _] => {
            Err("say which references, as in `refs/heads/main` or `refs/heads/agent/*`".to_owned())
        }
        ["git", ..] => Err(FORMS.to_owned()),
        ["install", host] if host.contains('/') => {
            Err("what is installed has no path: write `install host`".to_owned())
        }
        ["install", host] => {
            let (hosts, port) = read_authority(host, list)?;
            Ok(Operation { hosts, port, what: What::Install })
        }
        ["publish", target] => {
            let (host, package) = target.split_once('/').ok_or(
                "say what is published: `publish host/package`, or `publish host/*` for anything",
            )?;
            if package != "*" {
                facts::check_package(package)
                    .map_err(|why| format!("`{package}` is no package: {why}"))?;
            }
            let (hosts, port) = read_authority(host, list)?;
            Ok(Operation { hosts, port, what: What::Publish { package: package.to_owned() } })
        }
        _ => Err(format!("write `{} host`, with one space", words[0])),
    }
}

fn of_git(
    target: &str,
    list: List,
    what: impl FnOnce(String) -> What,
) -> Result<Operation, String> {
    if let Some((scheme, rest)) = target.split_once("://") {
        return Err(format!("write it without `{scheme}://`, as in `{rest}`"));
    }
    let (host, repository) =
        target.split_once('/').ok_or("say which repository: `host/owner/repo`")?;
    let repository = repository.strip_suffix(".git").unwrap_or(repository);
    let checked = repository.strip_suffix("/*").unwrap_or(repository);
    if checked != "*" {
        facts::check_repository(checked)
            .map_err(|why| format!("`{repository}` is no repository: {why}"))?;
    }
    let (hosts, port) = read_authority(host, list)?;
    Ok(Operation { hosts, port, what: what(repository.to_owned()) })
}

fn read_refs(refs: &str) -> Result<String, String> {
    let name = refs.strip_suffix("/*").unwrap_or(refs);
    if refs != "*" && name != "refs" {
        facts::check_ref(name).map_err(|why| format!("`{refs}` is no reference: {why}"))?;
    }
    Ok(refs.to_owned())
}

/// One rule of what is opened: whether it stays unasked, and its conditions.
pub(crate) struct Opened {
    pub(crate) suffix: &'static str,
    pub(crate) free: bool,
    pub(crate) when: Vec<String>,
}

impl What {
    /// What it permits.
    pub(crate) fn opened(&self) -> Vec<Opened> {
        let rule = |when| Opened { suffix: "", free: false, when };
        match self {
            Self::Fetch { repository } => {
                vec![rule(git(FETCH, exactly(repository)))]
            }
            Self::Push { repository, refs, force } => {
                let mut asks = git(PUSH, exactly(repository));
                let mut pushes = asks.clone();
                asks.extend(["context.refs_known".to_owned(), "context.refs.isEmpty()".to_owned()]);
                pushes.push(format!("context.refs_within.contains({})", quote(refs)));
                if !force {
                    pushes.extend(["!context.may_force".to_owned(), "!context.deletes".to_owned()]);
                }
                vec![Opened { suffix: " (before a push)", free: true, when: asks }, rule(pushes)]
            }
            Self::Install => vec![rule(vec![format!(
                "(context.operation == {} || [\"GET\", \"HEAD\"].contains(context.method) && context.operation != {})",
                quote(INSTALL),
                quote(PUSH)
            )])],
            Self::Publish { package } => {
                let mut when = vec![
                    operation(PUBLISH),
                    "[\"PUT\", \"POST\"].contains(context.method)".to_owned(),
                ];
                if package != "*" {
                    when.push(format!("context.package == {}", quote(package)));
                }
                vec![rule(when)]
            }
        }
    }

    /// What it forbids: what it names, and what cannot be told from it.
    pub(crate) fn closed(&self) -> Vec<String> {
        match self {
            Self::Fetch { repository } => git(FETCH, widely(repository)),
            Self::Push { repository, refs, force } => {
                let touched = format!("context.refs_touched.contains({})", quote(refs));
                let touched = if *force {
                    format!("(context.may_force || context.deletes) && {touched}")
                } else {
                    touched
                };
                let mut when = git(PUSH, widely(repository));
                when.push(format!("(!context.refs_known || {touched})"));
                when
            }
            Self::Install => vec![unless_known_otherwise(INSTALL)],
            Self::Publish { package } => {
                let mut when = vec![
                    "!([\"GET\", \"HEAD\"].contains(context.method))".to_owned(),
                    unless_known_otherwise(PUBLISH),
                ];
                if package != "*" {
                    when.push(format!("[{}, \"\"].contains(context.package)", quote(package)));
                }
                when
            }
        }
    }
}

fn operation(name: &str) -> String {
    format!("context.operation == {}", quote(name))
}

/// The operation, or a request into which nothing looked.
fn unless_known_otherwise(name: &str) -> String {
    format!("({} || context.body_kind == \"\")", operation(name))
}

fn git(name: &str, repository: Option<String>) -> Vec<String> {
    std::iter::once(operation(name)).chain(repository).collect()
}

fn exactly(repository: &str) -> Option<String> {
    match repository {
        "*" => None,
        _ if repository.ends_with("/*") => {
            Some(format!("context.repository like {}", pattern(repository)))
        }
        _ => Some(format!("context.repository == {}", quote(repository))),
    }
}

/// However it is spelled, and where its name could not be read.
fn widely(repository: &str) -> Option<String> {
    match repository.strip_suffix("/*") {
        _ if repository == "*" => None,
        Some(above) => Some(format!(
            "(context.repository_folded like {} || context.repository_folded == \"\")",
            pattern(&format!("{}/*", facts::folded(above)))
        )),
        None => Some(format!(
            "[{}, \"\"].contains(context.repository_folded)",
            quote(&facts::folded(repository))
        )),
    }
}
