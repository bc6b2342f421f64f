//! Bringing a run's changes to the host's copy of the workspace: all or nothing is refused or
//! done, and nothing that changed on the host since the run began is overwritten.

use crate::error::RuntimeError;
use crate::protocol::Keys;
use crate::registry::{Registry, Wanted};
use crate::run::Control;
use kernel::State;
use sandbox::FileKind;
use sandbox::layers::{Change, ChangeKind, LayerStore};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use store::Read;
use types::{BRANCH_MAIN, Body, LayerId, RunId};

/// What a run changed, and where it belongs.
#[derive(Debug)]
pub struct Pending {
    /// The host directory.
    pub target: PathBuf,
    /// The layer the run began with.
    pub base: LayerId,
    /// The layer it has now.
    pub top: LayerId,
    /// What differs.
    pub changes: Vec<Change>,
}

/// What applying this run would change.
///
/// # Errors
/// When there is no such run, or it had no workspace on the host.
pub fn pending(
    store: &dyn Read,
    layers: &LayerStore,
    run: &RunId,
) -> Result<Pending, RuntimeError> {
    let records = store.records(run, BRANCH_MAIN, 0).map_err(|error| RuntimeError::part(&error))?;
    let workspace = records.first().and_then(|record| match &record.body {
        Body::RunStarted { workspace, .. } => workspace.clone(),
        _ => None,
    });
    let Some(workspace) = workspace else {
        let reason = "it had no workspace on the host, so there is nowhere to apply to".to_owned();
        return Err(RuntimeError::RunState { run: run.to_string(), reason });
    };
    let state = State::of(&records);
    let base = state.base.clone().expect("a run has a base layer");
    let top = state.layer.expect("a run has a layer");
    let changes = layers.changes(&base, &top).map_err(|error| RuntimeError::part(&error))?;
    Ok(Pending { target: workspace.into(), base, top, changes })
}

/// Applies: records first, then writes.
pub(crate) async fn apply(
    registry: &Arc<Registry>,
    run: &RunId,
    paths: Vec<String>,
    by: String,
) -> Result<Vec<String>, RuntimeError> {
    let parts = Arc::clone(&registry.parts);
    let id = run.clone();
    let found = tokio::task::spawn_blocking(move || -> Result<Pending, RuntimeError> {
        let mut pending = pending(parts.store.as_ref(), &parts.layers, &id)?;
        if !paths.is_empty() {
            pending.changes.retain(|change| paths.contains(&change.path));
        }
        conflicts(&parts.layers, &pending)?;
        Ok(pending)
    });
    let gone =
        |error: tokio::task::JoinError| RuntimeError::OwnerGone { reason: error.to_string() };
    let pending = found.await.map_err(gone)??;
    let lines: Vec<String> = pending.changes.iter().map(line).collect();
    if lines.is_empty() {
        return Ok(lines);
    }
    let control = Control::Applied { changes: lines.clone(), by };
    let wanted = Wanted { keys: Keys::default(), resume: false, control: Some(control) };
    registry.ask(run, wanted).await?;
    let layers = Arc::clone(&registry.parts.layers);
    let written = tokio::task::spawn_blocking(move || write_all(&layers, &pending));
    written.await.map_err(gone)??;
    Ok(lines)
}

/// One change as people read it: a letter, a tab, the path.
#[must_use]
pub fn line(change: &Change) -> String {
    match &change.kind {
        ChangeKind::Renamed { from } => format!("R\t{from} -> {}", change.path),
        kind => format!("{}\t{}", kind.letter(), change.path),
    }
}

/// A path of a change on the host: never outside the target, whatever a layer says.
fn host_path(target: &Path, path: &str) -> Result<PathBuf, RuntimeError> {
    let relative = Path::new(path);
    let plain = relative.components().all(|part| matches!(part, Component::Normal(_)));
    let fail = |reason: &str| RuntimeError::Apply { path: path.into(), reason: reason.to_owned() };
    if !plain {
        return Err(fail("it is not a plain relative path"));
    }
    // No parent may be a link: writing through one would leave the workspace.
    let mut walked = target.to_owned();
    for part in relative.parent().into_iter().flat_map(Path::components) {
        walked.push(part);
        if walked.symlink_metadata().is_ok_and(|meta| meta.is_symlink()) {
            return Err(fail("a directory above it is a symbolic link on the host"));
        }
    }
    Ok(target.join(relative))
}

/// Three-way: a path may be written only while the host still has what the run began with.
fn conflicts(layers: &LayerStore, pending: &Pending) -> Result<(), RuntimeError> {
    let mut changed = Vec::new();
    for change in &pending.changes {
        let host = host_path(&pending.target, &change.path)?;
        if !same_as_base(layers, &pending.base, &change.path, &host)? {
            changed.push(change.path.clone());
        }
        if let ChangeKind::Renamed { from } = &change.kind {
            let host = host_path(&pending.target, from)?;
            if !same_as_base(layers, &pending.base, from, &host)? {
                changed.push(from.clone());
            }
        }
    }
    if changed.is_empty() { Ok(()) } else { Err(RuntimeError::Conflict { paths: changed }) }
}

fn same_as_base(
    layers: &LayerStore,
    base: &LayerId,
    path: &str,
    host: &Path,
) -> Result<bool, RuntimeError> {
    let before = layers.entry(base, path).map_err(|error| RuntimeError::part(&error))?;
    let Ok(now) = host.symlink_metadata() else {
        return Ok(before.is_none());
    };
    let Some((before, link)) = before else {
        return Ok(false);
    };
    let kind = match before.kind {
        FileKind::File => now.is_file(),
        FileKind::Dir => now.is_dir(),
        FileKind::Symlink => now.is_symlink(),
        FileKind::Other => false,
    };
    if !kind {
        return Ok(false);
    }
    match before.kind {
        FileKind::File => {
            if now.size() != before.size {
                return Ok(false);
            }
            let old = layers.open_file(base, path).map_err(|error| RuntimeError::part(&error))?;
            let fail = |error: std::io::Error| RuntimeError::Apply {
                path: host.to_owned(),
                reason: error.to_string(),
            };
            same_bytes(old, std::fs::File::open(host).map_err(fail)?).map_err(fail)
        }
        FileKind::Symlink => Ok(std::fs::read_link(host).ok() == link),
        _ => Ok(true),
    }
}

fn same_bytes(a: std::fs::File, b: std::fs::File) -> std::io::Result<bool> {
    let mut a = std::io::BufReader::new(a).bytes();
    let mut b = std::io::BufReader::new(b).bytes();
    loop {
        match (a.next().transpose()?, b.next().transpose()?) {
            (None, None) => return Ok(true),
            (x, y) if x == y => {}
            _ => return Ok(false),
        }
    }
}

/// Removals first and deepest first, then everything else, parents first.
fn write_all(layers: &LayerStore, pending: &Pending) -> Result<(), RuntimeError> {
    let mut removed: Vec<&str> = pending
        .changes
        .iter()
        .filter_map(|change| match &change.kind {
            ChangeKind::Deleted => Some(change.path.as_str()),
            ChangeKind::Renamed { from } => Some(from.as_str()),
            _ => None,
        })
        .collect();
    removed.sort_unstable_by(|a, b| b.cmp(a));
    for path in removed {
        let host = host_path(&pending.target, path)?;
        let fail = |error: std::io::Error| RuntimeError::Apply {
            path: host.clone(),
            reason: error.to_string(),
        };
        match host.symlink_metadata() {
            Ok(meta) if meta.is_dir() => std::fs::remove_dir(&host).map_err(fail)?,
            Ok(_) => std::fs::remove_file(&host).map_err(fail)?,
            Err(_) => {}
        }
    }
    let is_there = |change: &&Change| change.kind != ChangeKind::Deleted;
    let mut written: Vec<&Change> = pending.changes.iter().filter(is_there).collect();
    written.sort_by(|a, b| a.path.cmp(&b.path));
    written.into_iter().try_for_each(|change| write_one(layers, pending, change))
}

fn write_one(layers: &LayerStore, pending: &Pending, change: &Change) -> Result<(), RuntimeError> {
    let host = host_path(&pending.target, &change.path)?;
    let fail = |error: std::io::Error| RuntimeError::Apply {
        path: host.clone(),
        reason: error.to_string(),
    };
    let entry =
        layers.entry(&pending.top, &change.path).map_err(|error| RuntimeError::part(&error))?;
    let Some((entry, link)) = entry else {
        return Ok(());
    };
    let mode = std::fs::Permissions::from_mode(entry.mode & 0o777);
    match entry.kind {
        FileKind::Dir => {
            if !host.is_dir() {
                std::fs::create_dir_all(&host).map_err(fail)?;
            }
            std::fs::set_permissions(&host, mode).map_err(fail)
        }
        FileKind::Symlink => {
            let _ = std::fs::remove_file(&host);
            symlink(link.unwrap_or_default(), &host).map_err(fail)
        }
        FileKind::File => {
            let source = layers.open_file(&pending.top, &change.path);
            let mut source = source.map_err(|error| RuntimeError::part(&error))?;
            if let Some(parent) = host.parent() {
                std::fs::create_dir_all(parent).map_err(fail)?;
            }
            let temporary = host.with_extension("bedplate-partial");
            let mut file = std::fs::File::create(&temporary).map_err(fail)?;
            std::io::copy(&mut source, &mut file).map_err(fail)?;
            file.set_permissions(mode).map_err(fail)?;
            file.sync_all().map_err(fail)?;
            std::fs::rename(&temporary, &host).map_err(fail)
        }
        FileKind::Other => Ok(()),
    }
}
