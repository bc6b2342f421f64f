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
use sandbox::layers::{self, Upper};
use sandbox::{CreateSpec, FsRules, Mount, Overlay, Root, SandboxError, SandboxId};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use types::manifest::Manifest;
use types::{ActionRequest, FsAccess, LayerId};

use super::RunTask;
use super::exchanges::Exchanges;

/// A layer an action made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) layer: LayerId,
    pub(super) changed: u64,
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
    flushed: Option<LayerId>,
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

    /// A sandbox over `layer` with a new upper; the overlay when the sandbox must be told of it.
    /// By `prints` the values of the vault are known at its network.
    pub(super) async fn open(
        &mut self,
        parts: &Parts,
        manifest: &Manifest,
        layer: &LayerId,
        rules: FsRules,
        prints: Option<Fingerprints>,
    ) -> Result<(SandboxId, Option<Overlay>), RuntimeError> {
        self.discard(parts);
        let upper = parts.layers.begin(layer).map_err(|error| RuntimeError::part(&error))?;
        let overlay = upper.overlay();
        self.upper = Some(upper);
        match &self.sandbox {
            Some((id, with)) if *with == rules => Ok((*id, Some(overlay))),
            _ => {
                self.destroy(parts).await;
                let root = self.root(parts, manifest)?;
                let spec = CreateSpec {
                    root,
                    limits: manifest.sandbox.limits,
                    limits_strength: manifest.sandbox.limits_strength,
                    rules: rules.clone(),
                    ..CreateSpec::new(overlay)
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

    /// The image that was pinned when the run was made, by its digest: whatever its name means now.
    fn root(&mut self, parts: &Parts, manifest: &Manifest) -> Result<Option<Root>, RuntimeError> {
        let Some(digest) = manifest.sandbox.image_digest else { return Ok(None) };
        if self.image.is_none() {
            let held = parts.images.hold(digest).map_err(|error| RuntimeError::part(&error))?;
            self.image = Some(held);
        }
        Ok(self.image.as_ref().map(|held| held.root.clone()))
    }

    /// Ends the action's upper: sealed when its changes count and there are any.
    pub(super) async fn settle(
        &mut self,
        parts: &Parts,
        keep_changes: bool,
    ) -> Result<Option<Sealed>, RuntimeError> {
        let Some(upper) = self.upper.take() else {
            return Ok(None);
        };
        if !keep_changes {
            parts.layers.discard(upper).map_err(|error| RuntimeError::part(&error))?;
            return Ok(None);
        }
        match parts.layers.seal(upper).map_err(|error| RuntimeError::part(&error))? {
            layers::Sealed::Layer { layer, changed } => Ok(Some(Sealed { layer, changed })),
            layers::Sealed::Unchanged(upper) => {
                parts.layers.recycle(upper).map_err(|error| RuntimeError::part(&error))?;
                Ok(None)
            }
        }
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
        if let Some(upper) = self.upper.take() {
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
        Ok(FsRules {
            read: prefixes(rules.read),
            write: prefixes(rules.write),
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

    /// Makes the workspace survive a power cut, before anything outside can depend on it.
    pub(super) async fn flush(&mut self) -> Result<(), RuntimeError> {
        let layer = self.layer();
        if self.world.flushed.as_ref() == Some(&layer) {
            return Ok(());
        }
        let layers = std::sync::Arc::clone(&self.parts.layers);
        let wanted = layer.clone();
        let flushed = tokio::task::spawn_blocking(move || layers.flush(&wanted));
        flushed
            .await
            .map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?
            .map_err(|error| RuntimeError::part(&error))?;
        self.world.flushed = Some(layer);
        Ok(())
    }
}

/// Policy marks a whole directory with a slash at the end; the sandbox looks what it is.
fn plain(path: &str) -> String {
    let plain = path.trim_end_matches('/');
    if plain.is_empty() { "/".to_owned() } else { plain.to_owned() }
}

/// A prefix that is the whole workspace is no restriction.
fn prefixes(rules: Option<Vec<String>>) -> Option<Vec<String>> {
    let plain: Vec<String> = rules?.iter().map(|path| plain(path)).collect();
    let whole = plain.iter().any(|path| path == sandbox::WORKSPACE || path == "/");
    (!whole).then_some(plain)
}
