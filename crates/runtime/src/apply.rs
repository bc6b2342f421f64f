//! Bringing a run's changes to the host's copy of the workspace: all or nothing is refused or
//! done, and nothing that changed on the host since the run began is overwritten.
//!
//! Three-way: each path is compared with what the run began with and with what it has now. The host
//! must have the one or the other; where it has what the run has, there is nothing to do.

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

/// Permission bits that are brought to the host.
const MODE_APPLIED: u32 = 0o777;

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
            pending.changes.retain(|change| is_chosen(change, &paths));
        }
        leave_done(&parts.layers, &mut pending)?;
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

/// Whether a change is at one of these paths, or below.
#[must_use]
pub fn is_chosen(change: &Change, paths: &[String]) -> bool {
    let below = |path: &String| {
        let path = path.trim_end_matches('/');
        let rest = change.path.strip_prefix(path);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    paths.iter().any(below)
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

/// Takes out what the host has already.
fn leave_done(layers: &LayerStore, pending: &mut Pending) -> Result<(), RuntimeError> {
    let (top, target) = (&pending.top, &pending.target);
    let mut left = Vec::new();
    for change in std::mem::take(&mut pending.changes) {
        let done = |path: &str| -> Result<bool, RuntimeError> {
            let host = host_path(target, path)?;
            Ok(same_as(layers, top, path, &host)? && same_mode(layers, top, path, &host)?)
        };
        let from_done = match &change.kind {
            ChangeKind::Renamed { from } => done(from)?,
            _ => true,
        };
        if !(from_done && done(&change.path)?) {
            left.push(change);
        }
    }
    pending.changes = left;
    Ok(())
}

/// A path may be written only while the host has what the run began with, or what it has now.
fn conflicts(layers: &LayerStore, pending: &Pending) -> Result<(), RuntimeError> {
    let mut changed = Vec::new();
    let may_write = |path: &str| -> Result<bool, RuntimeError> {
        let host = host_path(&pending.target, path)?;
        Ok(same_as(layers, &pending.base, path, &host)?
            || same_as(layers, &pending.top, path, &host)?)
    };
    for change in &pending.changes {
        let mut paths = vec![change.path.as_str()];
        if let ChangeKind::Renamed { from } = &change.kind {
            paths.push(from);
        }
        for path in paths {
            if !may_write(path)? {
                changed.push(path.to_owned());
            }
        }
    }
    changed.extend(left_behind(layers, pending)?);
    changed.sort();
    changed.dedup();
    if changed.is_empty() { Ok(()) } else { Err(RuntimeError::Conflict { paths: changed }) }
}

/// What the host has in directories that are to go, and that would not go with them.
fn left_behind(layers: &LayerStore, pending: &Pending) -> Result<Vec<String>, RuntimeError> {
    let going = |path: &str| {
        pending.changes.iter().any(|change| match &change.kind {
            ChangeKind::Deleted => change.path == path,
            ChangeKind::Renamed { from } => from == path,
            _ => false,
        })
    };
    let mut left = Vec::new();
    for change in &pending.changes {
        let now = layers.entry(&pending.top, &change.path);
        let now = now.map_err(|error| RuntimeError::part(&error))?;
        let host = host_path(&pending.target, &change.path)?;
        let stays = now.is_some_and(|(stat, _)| stat.kind == FileKind::Dir);
        let is_dir = host.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        if stays || !is_dir {
            continue;
        }
        let names = std::fs::read_dir(&host).map_err(|error| RuntimeError::Apply {
            path: host.clone(),
            reason: error.to_string(),
        })?;
        let below = names
            .flatten()
            .map(|entry| format!("{}/{}", change.path, entry.file_name().to_string_lossy()));
        left.extend(below.filter(|path| !going(path)));
    }
    Ok(left)
}

/// Whether the permissions on the host are those of a layer; what is on neither side has the same.
fn same_mode(
    layers: &LayerStore,
    layer: &LayerId,
    path: &str,
    host: &Path,
) -> Result<bool, RuntimeError> {
    let there = layers.entry(layer, path).map_err(|error| RuntimeError::part(&error))?;
    let there = there.filter(|(stat, _)| stat.kind != FileKind::Symlink);
    let mode = there.map(|(stat, _)| stat.mode & MODE_APPLIED);
    let now = host.symlink_metadata().ok().map(|meta| meta.mode() & MODE_APPLIED);
    Ok(mode.is_none_or(|mode| now == Some(mode)))
}

/// Whether the host has at a path what a layer has there.
fn same_as(
    layers: &LayerStore,
    layer: &LayerId,
    path: &str,
    host: &Path,
) -> Result<bool, RuntimeError> {
    let before = layers.entry(layer, path).map_err(|error| RuntimeError::part(&error))?;
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
            let old = layers.open_file(layer, path).map_err(|error| RuntimeError::part(&error))?;
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
    let mode = std::fs::Permissions::from_mode(entry.mode & MODE_APPLIED);
    // Another kind of entry makes room; a directory is empty by now.
    match host.symlink_metadata() {
        Ok(meta) if meta.is_dir() && entry.kind != FileKind::Dir => {
            std::fs::remove_dir(&host).map_err(fail)?;
        }
        Ok(meta) if !meta.is_dir() && entry.kind == FileKind::Dir => {
            std::fs::remove_file(&host).map_err(fail)?;
        }
        _ => {}
    }
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
            // A name that nobody chose, and that must be new: a link there is not written through.
            let mut random = [0; 8];
            getrandom::fill(&mut random).map_err(|error| fail(std::io::Error::other(error)))?;
            let name = format!(".bedplate-{}", u64::from_be_bytes(random));
            let temporary = host.with_file_name(name);
            let mut file = std::fs::File::create_new(&temporary).map_err(fail)?;
            std::io::copy(&mut source, &mut file).map_err(fail)?;
            file.set_permissions(mode).map_err(fail)?;
            file.sync_all().map_err(fail)?;
            std::fs::rename(&temporary, &host).map_err(fail)
        }
        FileKind::Other => Ok(()),
    }
}
