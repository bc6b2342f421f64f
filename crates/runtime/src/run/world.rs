//! The run's world: the layer under its workspace, the writable upper over it, and the sandbox.
//!
//! The sandbox is made when the first action needs it, and again after it was closed. An upper
//! lives for one action: sealed when the action's changes count, discarded when not.

use super::network::{self, Net};
use crate::config;
use crate::error::RuntimeError;
use crate::parts::Parts;
use gate::GuestModels;
use image::Held;
use policy::Because;
use privacy::Fingerprints;
use sandbox::layers::{self, LayerStore, Upper};
use sandbox::{CreateSpec, FsRules, MemoryTree, Mount, Root, SandboxError, SandboxId, Trees};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::manifest::{Manifest, MemoryAccess};
use types::{ActionRequest, FsAccess, LayerId};

use super::RunTask;
use super::exchanges::Exchanges;

/// A layer an action made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) layer: LayerId,
    pub(super) changed: u64,
}

/// What became of an action's changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) workspace: Option<Sealed>,
    pub(super) memory: Option<Sealed>,
}

/// The trees an action works on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grounds {
    /// The workspace.
    pub(super) layer: LayerId,
    /// The agent's memory, and what programs may do with it.
    pub(super) memory: Option<(LayerId, MemoryAccess)>,
}

/// What a run holds outside its log while it lives.
#[derive(Debug)]
pub(super) struct World {
    dir: Option<PathBuf>,
    sandbox: Option<(SandboxId, FsRules)>,
    pub(super) net: Option<Net>,
    /// What the model endpoint of the run's sandboxes knows, when the agent is a guest.
    pub(super) models: Option<GuestModels>,
    upper: Option<Upper>,
    memory: Option<Upper>,
    flushed: Option<Grounds>,
    /// Another run's answers, which this one gets instead of the world's.
    pub(super) exchanges: Option<Arc<Exchanges>>,
    /// What the run's sandboxes stand on, when it is not the host: kept from removal by this.
    image: Option<Held>,
}

impl World {
    pub(super) fn new(dir: Option<&str>) -> Self {
        Self {
            dir: dir.map(PathBuf::from),
            sandbox: None,
            net: None,
            models: None,
            upper: None,
            memory: None,
            flushed: None,
            exchanges: None,
            image: None,
        }
    }

    /// A path of the manifest: relative ones stand beside it.
    pub(super) fn beside_manifest(&self, path: &Path) -> PathBuf {
        self.dir.as_deref().map_or_else(|| path.to_owned(), |dir| dir.join(path))
    }

    /// Where command tools run.
    pub(super) fn tools_dir(&self) -> Result<PathBuf, RuntimeError> {
        let dir = self.dir.clone().ok_or_else(|| RuntimeError::NoManifest { dir: "/".into() })?;
        if dir.is_dir() {
            return Ok(dir);
        }
        let reason = "the manifest's directory is gone".to_owned();
        Err(RuntimeError::ConfigFile { path: dir, reason })
    }

    /// A sandbox over `grounds` with new uppers; the trees when the sandbox must be told of them.
    /// By `prints` the values of the vault are known at its network.
    pub(super) async fn open(
        &mut self,
        parts: &Parts,
        manifest: &Manifest,
        grounds: &Grounds,
        rules: FsRules,
        prints: Option<Fingerprints>,
    ) -> Result<(SandboxId, Option<Trees>), RuntimeError> {
        self.discard(parts);
        let trees = self.begin(parts, grounds)?;
        match &self.sandbox {
            Some((id, with)) if *with == rules => Ok((*id, Some(trees))),
            _ => {
                self.destroy(parts).await;
                let root = self.root(parts, manifest)?;
                let spec = CreateSpec {
                    root,
                    limits: manifest.sandbox.limits,
                    limits_strength: manifest.sandbox.limits_strength,
                    rules: rules.clone(),
                    ..CreateSpec::new(trees)
                };
                let trust = self.trust(manifest)?;
                self.read_exchanges(parts, manifest)?;
                let mut config = network::config_of(&manifest.network, trust, prints)?;
                config.models.clone_from(&self.models);
                let made = parts.spawner.create_with_network(spec).await;
                let (made, listeners) = made.map_err(|error| RuntimeError::part(&error))?;
                self.sandbox = Some((made.id, rules));
                self.net = Some(Net::open(parts, listeners, config).await?);
                Ok((made.id, None))
            }
        }
    }

    /// New uppers over these trees.
    fn begin(&mut self, parts: &Parts, grounds: &Grounds) -> Result<Trees, RuntimeError> {
        let begin = |layer| parts.layers.begin(layer).map_err(|error| RuntimeError::part(&error));
        let upper = begin(&grounds.layer)?;
        let mut trees = Trees::from(upper.overlay());
        self.upper = Some(upper);
        if let Some((layer, access)) = &grounds.memory {
            let upper = begin(layer)?;
            let writable = *access == MemoryAccess::Write;
            trees.memory = Some(MemoryTree { overlay: upper.overlay(), writable });
            self.memory = Some(upper);
        }
        Ok(trees)
    }

    /// The image that was pinned when the run was made, by its digest: whatever its name means now.
    fn root(&mut self, parts: &Parts, manifest: &Manifest) -> Result<Option<Root>, RuntimeError> {
        let Some(digest) = manifest.sandbox.image_digest else { return Ok(None) };
        if self.image.is_none() {
            let held = parts.images.hold(digest).map_err(|error| RuntimeError::part(&error))?;
            self.image = Some(held);
        }
        Ok(self.image.as_ref().map(|held| held.root.clone()))
    }

    /// Ends the action's uppers: sealed when its changes count and there are any.
    pub(super) async fn settle(
        &mut self,
        parts: &Parts,
        keep_changes: bool,
    ) -> Result<Settled, RuntimeError> {
        let settle = |upper: Option<Upper>| {
            upper.map_or(Ok(None), |upper| settle(&parts.layers, upper, keep_changes))
        };
        let settled =
            Settled { workspace: settle(self.upper.take())?, memory: settle(self.memory.take())? };
        Ok(settled)
    }

    /// Reads what is replayed, once.
    fn read_exchanges(&mut self, parts: &Parts, manifest: &Manifest) -> Result<(), RuntimeError> {
        let (Some(run), None) = (&manifest.network.replay, &self.exchanges) else { return Ok(()) };
        self.exchanges = Some(Arc::new(Exchanges::read(&parts.store, run)?));
        Ok(())
    }

    /// The authorities that the manifest names, read.
    fn trust(&self, manifest: &Manifest) -> Result<Vec<String>, RuntimeError> {
        let files = manifest.network.trust.iter();
        files.map(|file| config::read_text(&self.beside_manifest(Path::new(file)))).collect()
    }

    fn discard(&mut self, parts: &Parts) {
        for upper in [self.upper.take(), self.memory.take()].into_iter().flatten() {
            // What cannot be removed now is reaped when the next owner starts.
            let _ = parts.layers.discard(upper);
        }
    }

    async fn destroy(&mut self, parts: &Parts) {
        self.net = None;
        if let Some((id, _)) = self.sandbox.take() {
            let _ = parts.spawner.destroy(&id).await;
        }
    }

    /// Ends the sandbox and everything in it, and drops what was not sealed.
    pub(super) async fn close(&mut self, parts: &Parts) {
        self.destroy(parts).await;
        self.discard(parts);
    }
}

impl RunTask {
    /// The path rules of policy, as the sandbox enforces them.
    pub(super) fn path_rules(&self) -> Result<FsRules, RuntimeError> {
        let rules = self.gatekeeper.set().fs_rules().map_err(|error| RuntimeError::part(&error))?;
        if let Some(path) = rules.mounts.first() {
            let why = "mounting host paths is not built yet".to_owned();
            return Err(RuntimeError::part(&SandboxError::Rule { path: path.clone(), why }));
        }
        // What may only be read needs no rule to say so: it is mounted so.
        let both: &[&str] = &[sandbox::WORKSPACE, sandbox::MEMORY];
        let (readable, writable) = match self.memory_access() {
            Some(MemoryAccess::Write) => (both, both),
            Some(MemoryAccess::Read) => (both, &both[..1]),
            None => (&both[..1], &both[..1]),
        };
        Ok(FsRules {
            read: prefixes(rules.read, readable),
            write: prefixes(rules.write, writable),
            deny_read: rules.deny_read.iter().map(|path| plain(path)).collect(),
            deny_write: rules.deny_write.iter().map(|path| plain(path)).collect(),
            mounts: self.mounts()?,
        })
    }

    /// What the operator's manifest shows of the host, read-only. Naming it there permits it; a
    /// policy that forbids a mount, or wants a person for it, refuses it.
    fn mounts(&self) -> Result<Vec<Mount>, RuntimeError> {
        let mounts = self.state.manifest().sandbox.mounts.iter();
        mounts
            .map(|(inside, host)| {
                let host = self.world.beside_manifest(Path::new(host));
                let path = host.to_string_lossy().into_owned();
                let asked = ActionRequest::Path { access: FsAccess::Mount, path };
                let decision = self.gatekeeper.decide(
                    &[asked],
                    &self.carried(),
                    &self.actor.on_behalf_of,
                    false,
                );
                if matches!(decision.because, Because::Permitted | Because::NoRule) {
                    return Ok(Mount { host, path: inside.clone(), writable: false });
                }
                let why = format!("a policy does not let it be shown: {}", decision.reason);
                Err(RuntimeError::part(&SandboxError::Rule { path: inside.clone(), why }))
            })
            .collect()
    }

    /// What an action works on now.
    pub(super) fn grounds(&self) -> Grounds {
        let memory = self.state.memory.as_ref().map(|memory| memory.layer.clone());
        Grounds { layer: self.layer(), memory: memory.zip(self.memory_access()) }
    }

    /// Makes workspace and memory survive a power cut, before anything outside can depend on them.
    pub(super) async fn flush(&mut self) -> Result<(), RuntimeError> {
        let grounds = self.grounds();
        if self.world.flushed.as_ref() == Some(&grounds) {
            return Ok(());
        }
        let layers = std::sync::Arc::clone(&self.parts.layers);
        let wanted = grounds.clone();
        let flushed = tokio::task::spawn_blocking(move || {
            layers.flush(&wanted.layer)?;
            wanted.memory.map_or(Ok(()), |(layer, _)| layers.flush(&layer))
        });
        flushed
            .await
            .map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?
            .map_err(|error| RuntimeError::part(&error))?;
        self.world.flushed = Some(grounds);
        Ok(())
    }
}

/// Policy marks a whole directory with a slash at the end; the sandbox looks what it is.
fn plain(path: &str) -> String {
    let plain = path.trim_end_matches('/');
    if plain.is_empty() { "/".to_owned() } else { plain.to_owned() }
}

/// Prefixes that are all there is are no restriction.
fn prefixes(rules: Option<Vec<String>>, trees: &[&str]) -> Option<Vec<String>> {
    let plain: Vec<String> = rules?.iter().map(|path| plain(path)).collect();
    let has = |wanted: &str| plain.iter().any(|path| path == wanted || path == "/");
    (!trees.iter().all(|tree| has(tree))).then_some(plain)
}

/// Ends one upper.
fn settle(
    layers: &LayerStore,
    upper: Upper,
    keep_changes: bool,
) -> Result<Option<Sealed>, RuntimeError> {
    let part = |error| RuntimeError::part(&error);
    if !keep_changes {
        return layers.discard(upper).map(|()| None).map_err(part);
    }
    match layers.seal(upper).map_err(part)? {
        layers::Sealed::Layer { layer, changed } => Ok(Some(Sealed { layer, changed })),
        layers::Sealed::Unchanged(upper) => layers.recycle(upper).map(|()| None).map_err(part),
    }
}
