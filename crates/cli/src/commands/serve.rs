//! `serve`: the API, and what it takes from the commands, so that both tell the same.

mod sandboxes;

use super::{answers, lists, run};
use crate::arguments::What;
use crate::error::{CliError, Failed, Result, exit};
use crate::outcome;
use crate::session::{Session, keys_for, login, this_program};
use crate::terminal::Terminal;
use kernel::State;
use runtime::protocol::{Keys, NewRun};
use serde_json::{Value, json};
use server::{Desk, Listening, Places, Refusal, Sandboxes, ServeError, StartRun};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use store::{Reader, RunSummary, StoreError};
use types::manifest::Manifest;
use types::{Record, RunId};

/// `serve`.
pub(crate) fn serve(
    session: &Session,
    socket: Option<PathBuf>,
    listen: Option<SocketAddr>,
) -> Result<u8> {
    let socket = socket.map(|path| std::path::absolute(&path)).transpose();
    let socket = socket.map_err(|error| CliError::Io {
        what: "cannot use this socket".to_owned(),
        reason: error.to_string(),
    })?;
    let places = Places { socket, listen };
    let desk = Counter { session: session.clone() };
    let told = |listening: &Listening| tell(session, listening);
    let served = server::serve(&session.home, this_program(), &places, desk, told);
    served.map_err(|refusal| Failed::of(refusal.into_failure()))?;
    Ok(exit::DONE)
}

fn tell(session: &Session, listening: &Listening) {
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({
            "socket": listening.socket,
            "url": listening.address.map(|address| format!("http://{address}")),
            "token_file": listening.token_file,
        }));
        return;
    }
    session.terminal.progress(&format!("serves {}", listening.socket.display()));
    if let (Some(address), Some(file)) = (listening.address, &listening.token_file) {
        session.terminal.progress(&format!("serves http://{address}, token in {}", file.display()));
    }
}

/// The commands' side of the API.
struct Counter {
    session: Session,
}

fn refused(failed: Failed) -> Refusal {
    let usage = failed.exit == exit::USAGE;
    Refusal::of(failed.failure, usage)
}

fn bad(reason: &str) -> Refusal {
    ServeError::BadRequest { reason: reason.to_owned() }.into()
}

impl Desk for Counter {
    fn sandboxes(&self) -> &dyn Sandboxes {
        self
    }

    fn new_run(&self, asked: &StartRun) -> std::result::Result<NewRun, Refusal> {
        let arguments = What {
            target: None,
            input: None,
            model: asked.model.clone(),
            env: asked.env.clone(),
            record_network: false,
            replay_network: None,
        };
        let absolute = |path: &Path| path.is_absolute() && path.is_dir();
        match (&asked.agent, &asked.task) {
            (Some(dir), None) if asked.workspace.is_none() => {
                if !absolute(dir) {
                    return Err(bad("agent is not the absolute path of a directory"));
                }
                let new = run::of_directory(dir, dir, &arguments).map_err(refused)?;
                Ok(NewRun { input: asked.input.clone(), ..new })
            }
            (None, Some(task)) => {
                let Some(workspace) = asked.workspace.as_deref().filter(|path| absolute(path))
                else {
                    return Err(bad("a task has a workspace: the absolute path of a directory"));
                };
                if task.trim().is_empty() || asked.env.is_some() {
                    return Err(bad("a task is some words, and has no env"));
                }
                let more = Some(asked.input.as_str()).filter(|input| !input.is_empty());
                let said = more.map_or(task.clone(), |more| format!("{task}\n\n{more}"));
                run::of_task(said, workspace, &arguments, &self.session).map_err(refused)
            }
            _ => Err(bad("give agent, or task and workspace")),
        }
    }

    fn keys(&self, manifest: &Manifest) -> Keys {
        keys_for(manifest)
    }

    fn login(&self) -> String {
        login()
    }

    fn document(&self, run: &RunId, state: &State, records: &[Record], live: bool) -> Value {
        outcome::document(run, state, records, live, &self.session.home.artifacts(run))
    }

    fn row(
        &self,
        reader: &Reader,
        summary: &RunSummary,
        live: bool,
    ) -> std::result::Result<Value, StoreError> {
        let status = lists::status(reader, summary, live)?;
        let agent = summary.last.as_ref().map_or("", |record| record.actor.agent.as_str());
        Ok(lists::row(summary, agent, status))
    }

    fn approvals(&self, run: &RunId, state: &State, records: &[Record]) -> Vec<Value> {
        answers::open_json(run, state, records)
    }
}
