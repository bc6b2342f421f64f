//! Sandboxes that are kept: made once, used command after command, forked, taken back, removed.
//!
//! ```text
//!  create --> at rest --exec--> a command runs --> its changes are sealed --> at rest
//!                 |--snapshot, fork, rollback, diff: moments of its log
//!                 `--rm--> ended, and gone once no sandbox forked from it is left
//! ```
//!
//! A kept sandbox is a run without a model, whose steps this command takes: each command is decided,
//! recorded and done as an agent's would be, and what it sends goes through the same gate. It holds
//! no process between two commands for longer than a minute. What is done is in [`super::verbs`];
//! here it is told.

use super::super::files;
use super::super::{typing, worlds};
use super::of_ours;
use super::verbs::{self, Found, Wanted};
use crate::arguments::SandboxCommand;
use crate::error::{Result, exit};
use crate::progress;
use crate::render;
use crate::session::{Session, block_on, keys_for, next_reply, quoted};
use crate::terminal::{Raw, Terminal, safe};
use kernel::State;
use runtime::Watched;
use runtime::client::Client;
use runtime::protocol::Reply;
use serde_json::json;
use tools::SHELL_TIMEOUT_MS_MAX;
use types::{Body, Record, RunId, Step};

/// `sandbox`.
pub(crate) fn perform(session: &Session, command: SandboxCommand) -> Result<u8> {
    match command {
        SandboxCommand::Run { workspace, policy, image, command } => {
            let (workspace, policy) = (workspace.as_deref(), policy.as_deref());
            super::run(session, workspace, policy, image.as_deref(), command)
        }
        SandboxCommand::Create { workspace, policy, image } => {
            let (workspace, policy) = (workspace.as_deref(), policy.as_deref());
            let wanted = Wanted { workspace, policy, image: image.as_deref(), key: None };
            let (run, _) = verbs::create(session, wanted)?;
            Ok(told(session, &run, true))
        }
        SandboxCommand::Exec { id, command } => exec(session, &id, &command).map_err(of_ours),
        SandboxCommand::Snapshot { id } => {
            let run = verbs::found(session, &id)?.run;
            worlds::snapshot(session, run.as_str(), None)
        }
        SandboxCommand::Fork { from, count } => fork(session, &from, count),
        SandboxCommand::Rollback { id, to } => {
            let run = verbs::roll_back(session, &id, &to)?;
            Ok(told(session, &run, false))
        }
        SandboxCommand::Diff { from, to } => {
            let (from, to) = verbs::compared(session, &from, to.as_deref())?;
            files::diff_moments(session, &from, to.as_deref(), false)
        }
        SandboxCommand::Ls => list(session),
        SandboxCommand::Rm { id } => {
            let run = verbs::remove(session, &id)?;
            Ok(told(session, &run, false))
        }
    }
}

/// Says which sandbox it is about, to programs; to people, when they do not know.
fn told(session: &Session, run: &RunId, new: bool) -> u8 {
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "sandbox": run }));
    } else if new {
        Terminal::answer(run.as_str());
    }
    exit::DONE
}

fn exec(session: &Session, id: &str, command: &[String]) -> Result<u8> {
    let (Found { run, state, .. }, undone) = verbs::ready(session, id)?;
    if undone {
        session.terminal.progress("the command before this one did not end: it is undone");
    }
    let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let step =
        Step::Exec { command: command.join(" "), timeout_s: Some(SHELL_TIMEOUT_MS_MAX / 1_000) };
    block_on(async {
        let mut owner = session.owner().await?;
        let keys = state.manifest.as_deref().map(keys_for).unwrap_or_default();
        let screen = typing::screen(session);
        let watched = Watched::begin(&mut owner, (run, state), step, keys, screen).await?;
        let shown = Shown { session, exit: None, raw: None, typed: false };
        shown.until_done(owner, watched).await
    })
}

/// A command of a kept sandbox, before our eyes.
struct Shown<'a> {
    session: &'a Session,
    exit: Option<i32>,
    /// While the command has this terminal.
    raw: Option<Raw>,
    typed: bool,
}

impl Shown<'_> {
    async fn until_done(mut self, mut owner: Client, mut watched: Watched) -> Result<u8> {
        let run = watched.run().clone();
        while watched.done().is_none() {
            let reply = next_reply(&mut owner).await?;
            match &reply {
                Reply::Printed { error: true, bytes } => Terminal::error_bytes(&bytes.0),
                Reply::Printed { error: false, bytes } => Terminal::answer_bytes(&bytes.0),
                _ => {}
            }
            let reader = self.session.reader()?;
            watched.hear(&reader, &reply, |state, record| self.show(&run, state, record))?;
            if matches!(reply, Reply::AtRest) {
                break;
            }
        }
        self.raw = None;
        if watched.done().is_none() {
            let next = self.session.command("approvals");
            self.session.terminal.progress(&format!("waits for a person; next: {next}"));
            return Ok(exit::WAITING);
        }
        let status = self.exit.and_then(|exit| u8::try_from(exit & 0xff).ok());
        Ok(status.unwrap_or(exit::SANDBOX_OWN))
    }

    fn show(&mut self, run: &RunId, state: &State, record: &Record) {
        let command = |text: &str| self.session.command(text);
        if progress::interrupts_guest(&record.body) {
            for line in progress::lines(state, record, &command) {
                self.session.terminal.progress(&format!("{} {}", line.word, line.rest));
            }
        }
        match &record.body {
            Body::ActionStarted { .. } if !std::mem::replace(&mut self.typed, true) => {
                self.raw = typing::screen(self.session).map(|_| Raw::of_input());
                typing::pass_on(self.session, run);
            }
            Body::ActionFinished { exit, .. } => {
                self.exit = *exit;
                self.raw = None;
            }
            _ => {}
        }
    }
}

fn fork(session: &Session, from: &str, count: u32) -> Result<u8> {
    let runs = verbs::fork(session, from, count)?;
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "sandboxes": runs }));
    } else {
        runs.iter().for_each(|run| Terminal::answer(run.as_str()));
    }
    Ok(exit::DONE)
}

fn list(session: &Session) -> Result<u8> {
    let rows = verbs::list(session)?;
    if session.json || session.jsonl {
        let rows: Vec<_> = rows.iter().map(verbs::Row::json).collect();
        Terminal::answer_json(&json!({ "sandboxes": rows }));
        return Ok(exit::DONE);
    }
    for row in rows {
        let started = render::moment(row.started_ms);
        Terminal::answer(&format!("{}  {:<9}  {}", row.run, row.status, safe(&started)));
    }
    Ok(exit::DONE)
}
