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
//! no process between two commands for longer than a minute.

use super::super::files;
use super::super::run::{accepted, come_to_rest};
use super::super::{typing, worlds};
use super::{of_ours, workspace_dir};
use crate::arguments::SandboxCommand;
use crate::error::{CliError, Failed, Result, exit};
use crate::model_choice::empty_manifest;
use crate::outcome::status_word;
use crate::progress;
use crate::render;
use crate::session::{Session, block_on, keys_for, login, next_reply, quoted};
use crate::terminal::{Raw, Terminal, safe};
use kernel::{State, Status};
use runtime::client::Client;
use runtime::protocol::{NewRun, Reply, Request};
use runtime::rollback::Back;
use runtime::{RuntimeError, config};
use serde_json::json;
use std::path::{Path, PathBuf};
use store::Read as _;
use tools::SHELL_TIMEOUT_MS_MAX;
use types::manifest::{Manifest, Permissions};
use types::{BRANCH_MAIN, Body, Record, RunId, Step};

/// Whose runs these are, in their manifests.
const AGENT: &str = "sandbox";
/// What the keys of these runs begin with.
const KEY_PREFIX: &str = "sandbox/";
/// Where policies stand that are no part of a project, below the home.
const POLICIES: &str = "sandboxes";
/// What is permitted without a policy: everything inside, nothing outward.
const INSIDE: [&str; 4] = ["shell", "read_file", "write_file", "edit_file"];
/// The store keeps a run from which others were forked.
const HAS_FORKS: &str = "BP-STORE-019";

/// `sandbox`.
pub(crate) fn perform(session: &Session, command: SandboxCommand) -> Result<u8> {
    match command {
        SandboxCommand::Run { workspace, policy, image, command } => {
            let (workspace, policy) = (workspace.as_deref(), policy.as_deref());
            super::run(session, workspace, policy, image.as_deref(), command)
        }
        SandboxCommand::Create { workspace, policy, image } => {
            create(session, workspace.as_deref(), policy.as_deref(), image)
        }
        SandboxCommand::Exec { id, command } => exec(session, &id, &command).map_err(of_ours),
        SandboxCommand::Snapshot { id } => {
            let (run, ..) = found(session, &id)?;
            worlds::snapshot(session, run.as_str(), None)
        }
        SandboxCommand::Fork { from, count } => fork(session, &from, count),
        SandboxCommand::Rollback { id, to } => roll_back(session, &id, &to),
        SandboxCommand::Diff { from, to } => diff(session, &from, to.as_deref()),
        SandboxCommand::Ls => list(session),
        SandboxCommand::Rm { id } => remove(session, &id),
    }
}

/// A word that no other has.
fn word() -> Result<String> {
    let mut random = [0u8; 12];
    getrandom::fill(&mut random).map_err(|error| CliError::Io {
        what: "there is no randomness".to_owned(),
        reason: error.to_string(),
    })?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn create(
    session: &Session,
    workspace: Option<&Path>,
    policy: Option<&Path>,
    image: Option<String>,
) -> Result<u8> {
    let workspace = workspace.map(workspace_dir).transpose()?;
    let (name, opening) = (word()?, word()?);
    let (mut manifest, dir) = governed(session, policy, &name)?;
    AGENT.clone_into(&mut manifest.agent.name);
    manifest.sandbox.workspace = None;
    // What an agent may use up in one run is no measure for what people do in a sandbox.
    manifest.budget.actions = kernel::STEPS_MAX;
    if let Some(image) = image {
        manifest.sandbox.image = image;
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let new = NewRun {
        manifest: Box::new(manifest),
        dir: dir.as_deref().map(text),
        workspace: workspace.as_deref().map(text),
        input: String::new(),
        by: login(),
    };
    let key = format!("{KEY_PREFIX}{name}");
    let made = block_on(async {
        let mut owner = session.owner().await?;
        owner.send(&Request::Open { new: Box::new(new), key, opening }).await?;
        accepted(&mut owner).await
    });
    if made.is_err() {
        let _ = std::fs::remove_dir_all(policies(session).join(&name));
    }
    let run = made?;
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "sandbox": run }));
    } else {
        Terminal::answer(run.as_str());
    }
    Ok(exit::DONE)
}

fn policies(session: &Session) -> PathBuf {
    session.home.path().join(POLICIES)
}

/// What a sandbox may do, and the directory whose policy holds as it is at each moment. Cedar that
/// stands alone is kept in the home, so that it outlives its file.
fn governed(
    session: &Session,
    policy: Option<&Path>,
    name: &str,
) -> Result<(Manifest, Option<PathBuf>)> {
    let Some(file) = policy else {
        let allow = INSIDE.map(str::to_owned).to_vec();
        let permissions = Some(Permissions { allow, ..Permissions::default() });
        return Ok((Manifest { permissions, ..empty_manifest() }, None));
    };
    if file.file_name() == Some(config::MANIFEST_FILE.as_ref()) {
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty());
        let project = config::load(dir.unwrap_or(Path::new(".")), None)?;
        let manifest = project.manifest;
        runtime::policy_sources::compile(&manifest, project.cedar.as_deref(), &[])?;
        let kept = Manifest {
            permissions: manifest.permissions,
            network: manifest.network,
            secrets: manifest.secrets,
            sandbox: manifest.sandbox,
            ..empty_manifest()
        };
        return Ok((kept, Some(project.dir)));
    }
    let cedar = config::read_text(file)?;
    runtime::policy_sources::compile(&empty_manifest(), Some(&cedar), &[])?;
    session.home.prepare()?;
    let dir = policies(session).join(name);
    let write = || {
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(config::MANIFEST_FILE), "schema = 1\n")?;
        std::fs::write(dir.join(config::POLICY_FILE), &cedar)
    };
    write().map_err(|error| CliError::Io {
        what: format!("cannot keep the policy in {}", dir.display()),
        reason: error.to_string(),
    })?;
    Ok((empty_manifest(), Some(dir)))
}

/// The kept sandbox that `text` means, its records, and their state.
fn found(session: &Session, text: &str) -> Result<(RunId, Vec<Record>, State)> {
    let (run, records) = session.run(worlds::split(text).0)?;
    let state = State::of(&records);
    if state.caller.as_ref().is_some_and(|caller| caller.key.starts_with(KEY_PREFIX)) {
        return Ok((run, records, state));
    }
    let message = format!("run {run} is no sandbox: `bedplate sandbox ls` lists them");
    Err(CliError::Usage { message, help: "sandbox".to_owned() }.into())
}

/// The state of a kept sandbox that can take a command. What an owner that died left half done is
/// undone: whoever waited for it is gone.
fn tidied(session: &Session, run: &RunId, state: State) -> Result<State> {
    let Some(begun) = state.caller.as_ref().and_then(|caller| caller.open()).map(|(_, t)| t.seq)
    else {
        return Ok(state);
    };
    if session.live().contains(run) || state.status(false) == Status::Waiting {
        let reason = "its command before this one has not ended".to_owned();
        return Err(RuntimeError::RunState { run: run.to_string(), reason }.into());
    }
    let (back, leave_effects, by) = (Back::To(begun - 1), false, login());
    block_on(session.ask(&Request::RollBack { run: run.clone(), back, leave_effects, by }))?;
    session.terminal.progress("the command before this one did not end: it is undone");
    Ok(State::of(&session.reader()?.records(run, BRANCH_MAIN, 0)?))
}

fn exec(session: &Session, id: &str, command: &[String]) -> Result<u8> {
    let (run, _, state) = found(session, id)?;
    let state = tidied(session, &run, state)?;
    let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let step =
        Step::Exec { command: command.join(" "), timeout_s: Some(SHELL_TIMEOUT_MS_MAX / 1_000) };
    block_on(async {
        let mut owner = session.owner().await?;
        let keys = state.manifest.as_deref().map(keys_for).unwrap_or_default();
        if state.suspended.is_some() {
            let keys = keys.clone();
            let (run, detach, screen) = (run.clone(), true, None);
            owner.send(&Request::Resume { run, keys, detach, screen }).await?;
            accepted(&mut owner).await?;
        }
        let caller = state.caller.clone().expect("a kept sandbox has a caller");
        let at = caller.steps.len() as u64;
        let screen = typing::screen(session);
        let (opening, watched) = (caller.opening, true);
        let request = Request::Step { run: run.clone(), opening, at, step, keys, watched, screen };
        owner.send(&request).await?;
        accepted(&mut owner).await?;
        let watching = Watching { session, run, state, at, exit: None, raw: None, typed: false };
        watching.until_done(owner).await
    })
}

/// A command of a kept sandbox, before our eyes.
struct Watching<'a> {
    session: &'a Session,
    run: RunId,
    state: State,
    /// The step's number.
    at: u64,
    exit: Option<i32>,
    /// While the command has this terminal.
    raw: Option<Raw>,
    typed: bool,
}

impl Watching<'_> {
    async fn until_done(mut self, mut owner: Client) -> Result<u8> {
        while !self.is_done() {
            match next_reply(&mut owner).await? {
                Reply::Printed { error: true, bytes } => Terminal::error_bytes(&bytes.0),
                Reply::Printed { error: false, bytes } => Terminal::answer_bytes(&bytes.0),
                Reply::Record { record } => self.take(&record)?,
                Reply::AtRest => {
                    self.catch_up(u64::MAX)?;
                    break;
                }
                _ => {}
            }
        }
        self.raw = None;
        if !self.is_done() {
            let next = self.session.command("approvals");
            self.session.terminal.progress(&format!("waits for a person; next: {next}"));
            return Ok(exit::WAITING);
        }
        let status = self.exit.and_then(|exit| u8::try_from(exit & 0xff).ok());
        Ok(status.unwrap_or(exit::SANDBOX_OWN))
    }

    fn is_done(&self) -> bool {
        let at = usize::try_from(self.at).unwrap_or(usize::MAX);
        let caller = self.state.caller.as_ref();
        caller.and_then(|caller| caller.steps.get(at)).is_some_and(|step| step.done.is_some())
    }

    fn take(&mut self, record: &Record) -> Result<()> {
        if record.stamp.seq > self.state.next_seq {
            self.catch_up(record.stamp.seq)?;
        }
        if record.stamp.seq == self.state.next_seq {
            self.fold(record);
        }
        Ok(())
    }

    /// Reads what was recorded before our stream began.
    fn catch_up(&mut self, to_seq: u64) -> Result<()> {
        let reader = self.session.reader()?;
        let missing = reader.records(&self.run, BRANCH_MAIN, self.state.next_seq)?;
        missing.iter().take_while(|record| record.stamp.seq < to_seq).for_each(|r| self.fold(r));
        Ok(())
    }

    fn fold(&mut self, record: &Record) {
        let command = |text: &str| self.session.command(text);
        if progress::interrupts_guest(&record.body) {
            for line in progress::lines(&self.state, record, &command) {
                self.session.terminal.progress(&format!("{} {}", line.word, line.rest));
            }
        }
        match &record.body {
            Body::ActionStarted { .. } if !std::mem::replace(&mut self.typed, true) => {
                self.raw = typing::screen(self.session).map(|_| Raw::of_input());
                typing::pass_on(self.session, &self.run);
            }
            Body::ActionFinished { exit, .. } => {
                self.exit = *exit;
                self.raw = None;
            }
            _ => {}
        }
        self.state.fold(record);
    }
}

fn fork(session: &Session, from: &str, count: u32) -> Result<u8> {
    let (run, records, _) = found(session, from)?;
    let at = worlds::split(from).1;
    let at = at.map(|at| worlds::record_of(&run, &records, at)).transpose()?;
    let request = Request::Fork { run, at, count, seed: None, by: login() };
    let runs = match block_on(session.ask(&request))? {
        Reply::Made { runs } => runs,
        _ => Vec::new(),
    };
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "sandboxes": runs }));
    } else {
        runs.iter().for_each(|run| Terminal::answer(run.as_str()));
    }
    Ok(exit::DONE)
}

/// `to` is a snapshot, with or without the sandbox before its `@`.
fn roll_back(session: &Session, id: &str, to: &str) -> Result<u8> {
    let (run, records, _) = found(session, id)?;
    let at = match worlds::split(to) {
        (other, Some(at)) if session.find(other)? == run => at,
        (_, Some(_)) => {
            let message = format!("{to} is a moment of another sandbox than {run}");
            return Err(CliError::Usage { message, help: "sandbox".to_owned() }.into());
        }
        (at, None) => at,
    };
    let back = Back::To(worlds::record_of(&run, &records, at)?);
    set_aside(session, &run)?;
    let (leave_effects, by) = (false, login());
    let request = Request::RollBack { run: run.clone(), back, leave_effects, by };
    block_on(session.ask(&request))?;
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "sandbox": run }));
    }
    Ok(exit::DONE)
}

/// What waits for its next command stops waiting.
fn set_aside(session: &Session, run: &RunId) -> Result<()> {
    if !session.live().contains(run) {
        return Ok(());
    }
    block_on(come_to_rest(session, run, &Request::Suspend { run: run.clone() }))
}

fn diff(session: &Session, from: &str, to: Option<&str>) -> Result<u8> {
    let (run, ..) = found(session, from)?;
    to.map(|to| found(session, to)).transpose()?;
    match (worlds::split(from).1, to) {
        // From what it was made of to now.
        (None, None) => files::diff_moments(session, &format!("{run}@0"), None, false),
        _ => files::diff_moments(session, from, to, false),
    }
}

fn list(session: &Session) -> Result<u8> {
    let reader = session.reader()?;
    let live = session.live();
    let mut rows = Vec::new();
    for summary in reader.runs()? {
        let agent = summary.last.as_ref().map_or("", |record| record.actor.agent.as_str());
        if agent != AGENT {
            continue;
        }
        let records = reader.records(&summary.run, BRANCH_MAIN, 0)?;
        let state = State::of(&records);
        let kept = state.caller.as_ref().is_some_and(|caller| caller.key.starts_with(KEY_PREFIX));
        if !kept || state.ended.is_some() {
            continue;
        }
        let status = match state.caller.as_ref().and_then(|caller| caller.open()) {
            Some(_) => status_word(state.status(live.contains(&summary.run))),
            None => "idle",
        };
        rows.push((summary.run, summary.started_ms, status));
    }
    if session.json || session.jsonl {
        let rows = rows.iter().map(|(run, started, status)| {
            json!({ "sandbox": run, "status": status, "started": render::rfc3339(*started) })
        });
        Terminal::answer_json(&json!({ "sandboxes": rows.collect::<Vec<_>>() }));
        return Ok(exit::DONE);
    }
    for (run, started, status) in rows {
        Terminal::answer(&format!("{run}  {status:<9}  {}", safe(&render::moment(started))));
    }
    Ok(exit::DONE)
}

/// Ends it. It is gone at once, or with the last sandbox that was forked from it.
fn remove(session: &Session, id: &str) -> Result<u8> {
    let (run, records, state) = found(session, id)?;
    if state.ended.is_none() {
        let cancel = Request::Cancel { run: run.clone(), by: login() };
        block_on(come_to_rest(session, &run, &cancel))?;
    }
    let mut next = Some((run.clone(), records));
    while let Some((run, records)) = next.take() {
        match block_on(session.ask(&Request::Remove { run })) {
            Ok(_) => {}
            Err(failed) if failed.failure.code == HAS_FORKS => break,
            Err(failed) => return Err(failed),
        }
        drop_policy(session, &records)?;
        next = ended_origin(session, &records)?;
    }
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "sandbox": run }));
    }
    Ok(exit::DONE)
}

/// The sandbox that this one was forked from, when it has ended.
fn ended_origin(session: &Session, records: &[Record]) -> Result<Option<(RunId, Vec<Record>)>> {
    let origin = records.iter().rev().find_map(|record| match &record.body {
        Body::Forked { origin, .. } => Some(origin.clone()),
        _ => None,
    });
    let Some(origin) = origin else { return Ok(None) };
    let Ok(records) = session.reader()?.records(&origin, BRANCH_MAIN, 0) else { return Ok(None) };
    let ended = State::of(&records).status(false) == Status::Cancelled;
    Ok(ended.then_some((origin, records)))
}

/// A policy that only sandboxes use which are gone goes too.
fn drop_policy(session: &Session, records: &[Record]) -> Result<()> {
    let dir_of = |records: &[Record]| match records.first().map(|record| &record.body) {
        Some(Body::RunStarted { dir: Some(dir), .. }) => Some(PathBuf::from(dir)),
        _ => None,
    };
    let Some(dir) = dir_of(records).filter(|dir| dir.parent() == Some(&policies(session))) else {
        return Ok(());
    };
    let reader = session.reader()?;
    for summary in reader.runs()? {
        let first = reader.records_page(&summary.run, BRANCH_MAIN, 0, 1)?;
        if dir_of(&first).as_ref() == Some(&dir) {
            return Ok(());
        }
    }
    std::fs::remove_dir_all(&dir).map_err(|error| {
        Failed::from(RuntimeError::ConfigFile { path: dir, reason: error.to_string() })
    })
}
