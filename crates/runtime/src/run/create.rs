//! A new run: its base layer, its key, its first records.

use super::Control;
use super::exchanges::Exchanges;
use crate::error::RuntimeError;
use crate::parts::Parts;
use crate::policy_sources;
use crate::protocol::{Keys, NewRun};
use crate::registry::{Registry, Wanted};
use image::{Held, ImageError};
use sandbox::{SandboxError, Strength};
use std::path::PathBuf;
use std::sync::Arc;
use store::{NewRecord, Read as _, RunRow, Store};
use types::manifest::{LimitsStrength, Manifest, SCRIPT_PROVIDER};
use types::{Actor, BRANCH_MAIN, Body, ImageSource, Item, LayerId, RunId};

/// The store has a run of this id.
const RUN_EXISTS: &str = "BP-STORE-015";
/// Longest first message, in bytes.
const INPUT_BYTES_MAX: u64 = 1 << 20;
/// What is said first when nobody says anything.
const DEFAULT_INPUT: &str = "Begin.";

/// A program outside that takes a new run's steps.
#[derive(Debug)]
pub(crate) struct CallerOf {
    key: String,
    opening: String,
}

/// Opens the run of a caller's key, which is made when it is not there.
pub(crate) async fn open(
    registry: &Arc<Registry>,
    new: NewRun,
    key: String,
    opening: String,
) -> Result<RunId, RuntimeError> {
    let good = |text: &str| types::is_caller_key(text);
    if !good(&key) || !good(&opening) || new.manifest.is_guest() {
        return Err(RuntimeError::CallerKey { key: key.chars().take(80).collect() });
    }
    let (run, by) = (RunId::of_key(&key), new.by.clone());
    if registry.parts.store.head(&run, BRANCH_MAIN).is_err() {
        let caller = CallerOf { key: key.clone(), opening: opening.clone() };
        match create(&registry.parts, new, Some(caller)).await {
            // Another program came first.
            Err(error) if error.failed_with(RUN_EXISTS) => {}
            made => return made,
        }
    }
    let control = Some(Control::Open { key, opening, by });
    registry.ask(&run, Wanted { keys: Keys::default(), resume: false, control }).await?;
    Ok(run)
}

/// Creates a run. Nothing of it is there if this fails.
pub(crate) async fn create(
    parts: &Arc<Parts>,
    mut new: NewRun,
    caller: Option<CallerOf>,
) -> Result<RunId, RuntimeError> {
    let bytes = new.input.len() as u64;
    if bytes > INPUT_BYTES_MAX {
        let what = "the input".to_owned();
        return Err(RuntimeError::TooLarge { what, bytes, limit: INPUT_BYTES_MAX });
    }
    check(&new, caller.is_some()).map_err(RuntimeError::as_refusal)?;
    check_strength(parts, &new.manifest)?;
    check_replay(parts, &new.manifest)?;
    // Held until the log names it: what a record needs is not removed either.
    let image = pinned_image(parts, &mut new).await?;
    let base = base_layer(parts, &new).await?;
    let memory = super::memory::begin(parts, &new).await?;
    let run = match &caller {
        Some(caller) => RunId::of_key(&caller.key),
        None => random_id()?,
    };
    let moment = parts.clock.moment(0);
    let actor = Actor {
        agent: new.manifest.agent.name.clone(),
        on_behalf_of: new.by.clone(),
        team: new.manifest.agent.team.clone(),
    };
    let record = |body: Body| NewRecord {
        time_ms: moment.time_ms,
        mono_ms: moment.mono_ms,
        boot: moment.boot,
        causes: Vec::new(),
        actor: actor.clone(),
        body,
        attachments: Vec::new(),
    };
    let by = new.by.clone();
    let text = match &caller {
        Some(_) => Some(new.input).filter(|input| !input.trim().is_empty()),
        None => Some(first_words(&new.manifest, new.input)),
    };
    let guest = new.manifest.is_guest().then(|| new.manifest.agent.command.clone());
    let mut first = vec![record(Body::RunStarted {
        manifest: new.manifest,
        dir: new.dir,
        workspace: new.workspace,
        base,
        started_by: new.by,
        host: serde_json::to_value(&parts.facts).expect("facts are plain data"),
        memory,
    })];
    first.extend(text.map(|text| record(Body::ItemAdded { item: Item::UserMessage { text } })));
    if let Some(CallerOf { key, opening }) = caller {
        first.push(record(Body::CallerOpened { key, opening, by }));
    }
    if let Some(command) = guest {
        let item = Item::ToolCall {
            call_id: kernel::GUEST_TOOL.to_owned(),
            name: kernel::GUEST_TOOL.to_owned(),
            arguments: serde_json::json!({ "command": command }),
        };
        first.push(record(Body::ItemAdded { item }));
    }
    let row = RunRow { run: run.clone(), started_ms: moment.time_ms };
    parts.failpoints.before_append();
    parts.store.create_run(row, first).await.map_err(|error| RuntimeError::part(&error))?;
    parts.failpoints.after_append();
    drop(image);
    Ok(run)
}

/// An id that no other run has.
pub(crate) fn random_id() -> Result<RunId, RuntimeError> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random)
        .map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?;
    Ok(RunId::from_random(random))
}

/// The image that the manifest names, brought here unless it is; its digest is in the manifest then.
async fn pinned_image(parts: &Parts, new: &mut NewRun) -> Result<Option<Held>, RuntimeError> {
    let source = new.manifest.sandbox.image.parse::<ImageSource>();
    let source = source.map_err(|error| RuntimeError::part(&ImageError::from(error)))?;
    new.manifest.sandbox.image_digest = None;
    if source == ImageSource::Host {
        return Ok(None);
    }
    let beside = PathBuf::from(new.dir.as_deref().unwrap_or("/"));
    let held = parts.images.ensure(&source, &beside).await;
    let held = held.map_err(|error| RuntimeError::part(&error))?;
    new.manifest.sandbox.image_digest = Some(held.image.digest);
    Ok(Some(held))
}

/// What the person said, or what they typed to start a guest.
fn first_words(manifest: &Manifest, input: String) -> String {
    if !input.trim().is_empty() {
        return input;
    }
    if manifest.is_guest() {
        return tools::command_line(&manifest.agent.command);
    }
    DEFAULT_INPUT.to_owned()
}

/// What can be refused before anything is made.
fn check(new: &NewRun, called: bool) -> Result<(), RuntimeError> {
    let manifest: &Manifest = &new.manifest;
    let route = &manifest.agent.model;
    // A guest, and a program with a loop of its own, may work without any model.
    let none = (manifest.is_guest() || called) && manifest.routes.is_empty();
    if !none && !manifest.routes.contains_key(route) {
        let known: Vec<&str> = manifest.routes.keys().map(String::as_str).collect();
        let hint = match known.as_slice() {
            [] => ": the manifest has no [routes]".to_owned(),
            known => format!("; known: {}", known.join(", ")),
        };
        return Err(RuntimeError::NoRoute { route: route.clone(), hint });
    }
    let project = new.dir.as_ref().map(|dir| crate::config::load(&PathBuf::from(dir), None));
    let cedar = project.transpose()?.and_then(|project| project.cedar);
    policy_sources::compile(manifest, cedar.as_deref(), &[])?;
    check_scripts(new)
}

/// Scripts of the route are read as the gate will read them.
fn check_scripts(new: &NewRun) -> Result<(), RuntimeError> {
    let manifest = &new.manifest;
    let route = manifest.routes.get(&manifest.agent.model).into_iter().flatten();
    for entry in route.filter(|entry| entry.provider == SCRIPT_PROVIDER) {
        let beside = new.dir.as_deref().map(PathBuf::from).unwrap_or_default();
        let path = beside.join(&entry.model);
        let text = crate::config::read_text(&path)?;
        models::script::parse(&text, &path.display().to_string())
            .map_err(|error| RuntimeError::part(&error))?;
    }
    Ok(())
}

/// A manifest that wants the kernel to enforce limits is not run with less.
fn check_strength(parts: &Parts, manifest: &Manifest) -> Result<(), RuntimeError> {
    let watched = parts.facts.limits == Strength::Watched;
    if watched && manifest.sandbox.limits_strength == LimitsStrength::Kernel {
        let why = "this host gives no cgroup to its owner".to_owned();
        return Err(RuntimeError::part(&SandboxError::LimitsStrength { why }));
    }
    Ok(())
}

/// A run cannot get answers that nobody kept.
fn check_replay(parts: &Parts, manifest: &Manifest) -> Result<(), RuntimeError> {
    let replayed = manifest.network.replay.as_ref();
    replayed.map_or(Ok(()), |run| Exchanges::read(&parts.store, run).map(drop))
}

async fn base_layer(parts: &Arc<Parts>, new: &NewRun) -> Result<LayerId, RuntimeError> {
    let layers = Arc::clone(&parts.layers);
    let workspace = new.workspace.clone().map(PathBuf::from);
    let disk_limit = new.manifest.sandbox.limits.disk_bytes;
    let imported = tokio::task::spawn_blocking(move || match workspace {
        Some(dir) => layers.import(&dir, disk_limit).map(|imported| imported.layer),
        None => layers.empty(),
    });
    imported
        .await
        .map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?
        .map_err(|error| RuntimeError::part(&error))
}
