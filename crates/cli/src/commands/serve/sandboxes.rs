//! Kept sandboxes for the API: what the commands do, with what a program says.

use super::{Counter, bad, refused};
use crate::commands::files;
use crate::commands::sandbox::contents;
use crate::commands::sandbox::verbs::{self, Found, Wanted};
use crate::commands::worlds;
use crate::session::quoted;
use serde_json::Value;
use server::{NewSandbox, Ready, Refusal, Sandboxes};
use std::fs::File;
use std::path::PathBuf;
use types::RunId;

type Told<T> = std::result::Result<T, Refusal>;

impl Sandboxes for Counter {
    fn create(&self, asked: &NewSandbox) -> Told<(RunId, bool)> {
        let relative = |path: &Option<PathBuf>| path.as_deref().is_some_and(|p| !p.is_absolute());
        if relative(&asked.workspace) || relative(&asked.policy) {
            return Err(bad("workspace and policy are absolute paths"));
        }
        let wanted = Wanted {
            workspace: asked.workspace.as_deref(),
            policy: asked.policy.as_deref(),
            image: asked.image.as_deref(),
            key: asked.key.as_deref(),
        };
        verbs::create(&self.session, wanted).map_err(refused)
    }

    fn list(&self) -> Told<Vec<Value>> {
        let rows = verbs::list(&self.session).map_err(refused)?;
        Ok(rows.iter().map(verbs::Row::json).collect())
    }

    fn get(&self, id: &str) -> Told<Value> {
        verbs::document(&self.session, id).map_err(refused)
    }

    fn find(&self, id: &str) -> Told<RunId> {
        Ok(verbs::found(&self.session, id).map_err(refused)?.run)
    }

    fn ready(&self, id: &str) -> Told<Ready> {
        let (Found { run, state, .. }, undone) =
            verbs::ready(&self.session, id).map_err(refused)?;
        Ok(Ready { run, state, undone })
    }

    fn line(&self, words: &[String]) -> String {
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }

    fn remove(&self, id: &str) -> Told<RunId> {
        verbs::remove(&self.session, id).map_err(refused)
    }

    fn snapshot(&self, id: &str, name: Option<String>) -> Told<(RunId, String)> {
        let run = self.find(id)?;
        let name = worlds::named(&self.session, &run, name).map_err(refused)?;
        Ok((run, name))
    }

    fn fork(&self, id: &str, at: Option<&str>, count: u32) -> Told<Vec<RunId>> {
        verbs::fork(&self.session, &at_moment(id, at), count).map_err(refused)
    }

    fn roll_back(&self, id: &str, to: &str) -> Told<RunId> {
        verbs::roll_back(&self.session, id, to).map_err(refused)
    }

    fn diff(&self, id: &str, from: Option<&str>, to: Option<&str>, text: bool) -> Told<Value> {
        let compared = || {
            let (from, to) = verbs::compared(&self.session, &at_moment(id, from), to)?;
            files::compared(&self.session, &from, to.as_deref())?.json(text)
        };
        compared().map_err(refused)
    }

    fn entries(&self, id: &str, dir: &str, from: usize, limit: usize) -> Told<Value> {
        contents::entries(&self.session, id, dir, (from, limit)).map_err(refused)
    }

    fn stat(&self, id: &str, path: &str) -> Told<Value> {
        contents::stat(&self.session, id, path).map_err(refused)
    }

    fn open(&self, id: &str, path: &str) -> Told<(File, u64)> {
        contents::open(&self.session, id, path).map_err(refused)
    }

    fn place(&self, id: &str, path: &str) -> Told<String> {
        contents::place(&self.session, id, path).map_err(refused)
    }
}

/// ID, or ID@MOMENT.
fn at_moment(id: &str, at: Option<&str>) -> String {
    at.map_or_else(|| id.to_owned(), |at| format!("{id}@{at}"))
}
