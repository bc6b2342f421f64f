//! What is done to kept sandboxes, for the command line and the API alike. Nothing is printed here.
//!
//! What always holds: a sandbox is found by being a run whose caller's key begins as ours do; what it
//! may do is its policy's directory, which goes with the last sandbox that uses it.

use super::super::run::{accepted, come_to_rest};
use super::super::worlds;
use super::workspace_dir;
use crate::error::{CliError, Failed, Result};
use crate::model_choice::empty_manifest;
use crate::outcome::status_word;
use crate::render;
use crate::session::{Session, block_on, login};
use kernel::{State, Status};
use runtime::protocol::{NewRun, Request};
use runtime::rollback::Back;
use runtime::{RuntimeError, config};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use store::Read as _;
use types::manifest::{Manifest, Permissions};
use types::{BRANCH_MAIN, Body, Record, RunId};

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

/// A sandbox that is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted<'a> {
    pub(crate) workspace: Option<&'a Path>,
    pub(crate) policy: Option<&'a Path>,
    pub(crate) image: Option<&'a str>,
    /// What its maker names it by: the same key is the same sandbox.
    pub(crate) key: Option<&'a str>,
}

/// A kept sandbox, its records, and their state.
pub(crate) struct Found {
    pub(crate) run: RunId,
    pub(crate) records: Vec<Record>,
    pub(crate) state: State,
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

/// Makes one, or gives the one of this key. Says whether it is new.
pub(crate) fn create(session: &Session, wanted: Wanted<'_>) -> Result<(RunId, bool)> {
    let workspace = wanted.workspace.map(workspace_dir).transpose()?;
    let (name, opening) = (word()?, word()?);
    let key = format!("{KEY_PREFIX}{}", wanted.key.unwrap_or(&name));
    if let Some(run) = wanted.key.map(|_| of_key(session, &key)).transpose()?.flatten() {
        return Ok((run, false));
    }
    let (mut manifest, dir) = governed(session, wanted.policy, &name)?;
    AGENT.clone_into(&mut manifest.agent.name);
    manifest.sandbox.workspace = None;
    // What an agent may use up in one run is no measure for what people do in a sandbox.
    manifest.budget.actions = kernel::STEPS_MAX;
    if let Some(image) = wanted.image {
        image.clone_into(&mut manifest.sandbox.image);
    }
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let new = NewRun {
        manifest: Box::new(manifest),
        dir: dir.as_deref().map(text),
        workspace: workspace.as_deref().map(text),
        input: String::new(),
        by: login(),
    };
    let made = block_on(async {
        let mut owner = session.owner().await?;
        owner.send(&Request::Open { new: Box::new(new), key, opening }).await?;
        accepted(&mut owner).await
    });
    // It failed, or another program made the sandbox of this key meanwhile.
    if !made.as_ref().is_ok_and(|run| governs(session, run, dir.as_deref()).unwrap_or(true)) {
        let _ = std::fs::remove_dir_all(policies(session).join(&name));
    }
    made.map(|run| (run, true))
}

/// Whether this directory's policy is the run's.
fn governs(session: &Session, run: &RunId, dir: Option<&Path>) -> Result<bool> {
    let first = session.reader()?.records_page(run, BRANCH_MAIN, 0, 1)?;
    Ok(dir_of(&first).as_deref() == dir)
}

/// The sandbox of a key, when there is one.
fn of_key(session: &Session, key: &str) -> Result<Option<RunId>> {
    let run = RunId::of_key(key);
    let reader = session.reader()?;
    if reader.head(&run, BRANCH_MAIN).is_err() {
        return Ok(None);
    }
    if State::of(&reader.records(&run, BRANCH_MAIN, 0)?).ended.is_none() {
        return Ok(Some(run));
    }
    let reason = "it was removed, and is still what others were forked from: take another key";
    Err(RuntimeError::RunState { run: run.to_string(), reason: reason.to_owned() }.into())
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

/// Whether this is the state of a kept sandbox.
fn is_kept(state: &State) -> bool {
    state.caller.as_ref().is_some_and(|caller| caller.key.starts_with(KEY_PREFIX))
}

/// The kept sandbox that `text` means: ID, or ID@MOMENT.
pub(crate) fn found(session: &Session, text: &str) -> Result<Found> {
    let (run, records) = session.run(worlds::split(text).0)?;
    let state = State::of(&records);
    if is_kept(&state) {
        return Ok(Found { run, records, state });
    }
    Err(CliError::NoSandbox { run: run.to_string() }.into())
}

/// The kept sandbox, ready for its next command; whether the one before was undone for it. What an
/// owner that died left half done is undone, and what the host or the policy did not let go on:
/// whoever waited for it is gone, or was told.
pub(crate) fn ready(session: &Session, text: &str) -> Result<(Found, bool)> {
    let sandbox = found(session, text)?;
    let open = sandbox.state.caller.as_ref().and_then(|caller| caller.open());
    let Some(begun) = open.map(|(_, taken)| taken.seq) else {
        return Ok((sandbox, false));
    };
    let run = sandbox.run;
    let asked = sandbox.state.suspended.is_none() && sandbox.state.status(false) == Status::Waiting;
    if session.live().contains(&run) || asked {
        let reason = "its command before this one has not ended".to_owned();
        return Err(RuntimeError::RunState { run: run.to_string(), reason }.into());
    }
    let (back, leave_effects, by) = (Back::To(begun - 1), false, login());
    block_on(session.ask(&Request::RollBack { run: run.clone(), back, leave_effects, by }))?;
    Ok((found(session, run.as_str())?, true))
}

/// Makes sandboxes that go on from this one, or from a moment of it.
pub(crate) fn fork(session: &Session, from: &str, count: u32) -> Result<Vec<RunId>> {
    let Found { run, records, .. } = found(session, from)?;
    let at = worlds::split(from).1;
    let at = at.map(|at| worlds::record_of(&run, &records, at)).transpose()?;
    worlds::forks(session, run, at, count)
}

/// `to` is a snapshot, with or without the sandbox before its `@`.
pub(crate) fn roll_back(session: &Session, id: &str, to: &str) -> Result<RunId> {
    let Found { run, records, .. } = found(session, id)?;
    let at = match worlds::split(to) {
        (other, Some(at)) if session.find(other)? == run => at,
        (_, Some(_)) => {
            let message = format!("{to} is a moment of another sandbox than {run}");
            return Err(CliError::Usage { message, help: "sandbox".to_owned() }.into());
        }
        (at, None) => at,
    };
    let back = Back::To(worlds::record_of(&run, &records, at)?);
    // What waits for its next command stops waiting.
    if session.live().contains(&run) {
        block_on(come_to_rest(session, &run, &Request::Suspend { run: run.clone() }))?;
    }
    let (leave_effects, by) = (false, login());
    let request = Request::RollBack { run: run.clone(), back, leave_effects, by };
    block_on(session.ask(&request))?;
    Ok(run)
}

/// The moments that a comparison of these names; from what it was made of to now, when neither does.
pub(crate) fn compared(
    session: &Session,
    from: &str,
    to: Option<&str>,
) -> Result<(String, Option<String>)> {
    let Found { run, .. } = found(session, from)?;
    // `@MOMENT` alone is of the same sandbox.
    if let Some(other) = to.filter(|to| !worlds::split(to).0.is_empty()) {
        found(session, other)?;
    }
    Ok(match (worlds::split(from).1, to) {
        (None, None) => (format!("{run}@0"), None),
        _ => (from.to_owned(), to.map(str::to_owned)),
    })
}

/// One that is listed.
pub(crate) struct Row {
    pub(crate) run: RunId,
    pub(crate) status: &'static str,
    pub(crate) started_ms: u64,
}

impl Row {
    pub(crate) fn json(&self) -> Value {
        json!({
            "sandbox": self.run,
            "status": self.status,
            "started": render::rfc3339(self.started_ms),
        })
    }
}

/// What it does: `idle`, or the status of its command.
fn status_of(state: &State, live: bool) -> &'static str {
    match state.caller.as_ref().and_then(|caller| caller.open()) {
        _ if state.ended.is_some() => "removed",
        Some(_) => status_word(state.status(live)),
        None => "idle",
    }
}

/// All that are kept, newest first.
pub(crate) fn list(session: &Session) -> Result<Vec<Row>> {
    let reader = session.reader()?;
    let live = session.live();
    let mut rows = Vec::new();
    for summary in reader.runs()? {
        let agent = summary.last.as_ref().map_or("", |record| record.actor.agent.as_str());
        if agent != AGENT {
            continue;
        }
        let state = State::of(&reader.records(&summary.run, BRANCH_MAIN, 0)?);
        if is_kept(&state) && state.ended.is_none() {
            let status = status_of(&state, live.contains(&summary.run));
            rows.push(Row { run: summary.run, status, started_ms: summary.started_ms });
        }
    }
    Ok(rows)
}

/// One of them, in full.
pub(crate) fn document(session: &Session, id: &str) -> Result<Value> {
    let Found { run, records, state } = found(session, id)?;
    let status = status_of(&state, session.live().contains(&run));
    let started_ms = records.first().map_or(0, |record| record.stamp.time_ms);
    let (workspace, dir) = match records.first().map(|record| &record.body) {
        Some(Body::RunStarted { workspace, dir, .. }) => (workspace.clone(), dir.clone()),
        _ => (None, None),
    };
    let open = state.caller.as_ref().and_then(|caller| caller.open());
    let mut told = Row { run, status, started_ms }.json();
    told["workspace"] = json!(workspace);
    told["policy"] = json!(dir);
    told["image"] = json!(state.manifest().sandbox.image);
    told["record"] = json!(records.last().map(|record| record.stamp.seq));
    told["layer"] = json!(state.layer);
    told["exec"] = json!(open.map(|(_, taken)| taken.seq));
    Ok(told)
}

/// Ends it. It is gone at once, or with the last sandbox that was forked from it.
pub(crate) fn remove(session: &Session, id: &str) -> Result<RunId> {
    let Found { run, records, state } = found(session, id)?;
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
    Ok(run)
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

/// The directory of the policy of a run with these records.
fn dir_of(records: &[Record]) -> Option<PathBuf> {
    match records.first().map(|record| &record.body) {
        Some(Body::RunStarted { dir: Some(dir), .. }) => Some(PathBuf::from(dir)),
        _ => None,
    }
}

/// A policy that only sandboxes use which are gone goes too.
fn drop_policy(session: &Session, records: &[Record]) -> Result<()> {
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
