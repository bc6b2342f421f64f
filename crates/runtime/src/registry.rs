//! Which runs live in this owner, and the way to each one's task.

use crate::error::RuntimeError;
use crate::parts::Parts;
use crate::protocol::Keys;
use crate::recent::{Recent, Watcher};
use crate::run::{self, Control, Post};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use store::{Read, Store};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use types::{Body, Digest, LayerId, RunId};

/// Control messages a run's task has not read yet.
const CONTROL_QUEUE_MAX: usize = 64;

/// What a request wants of a run.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Providers' keys the command brought.
    pub(crate) keys: Keys,
    /// Whether the run shall go on.
    pub(crate) resume: bool,
    /// What to record first.
    pub(crate) control: Option<Control>,
}

struct Live {
    post: mpsc::Sender<Post>,
    head: watch::Receiver<u64>,
    recent: Arc<Recent>,
}

/// The runs of an owner.
pub(crate) struct Registry {
    pub(crate) parts: Arc<Parts>,
    live: Mutex<BTreeMap<RunId, Live>>,
    guests: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

/// Somebody is connected.
pub(crate) struct Guest {
    guests: Arc<AtomicUsize>,
    changed: Arc<Notify>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.fetch_sub(1, Ordering::SeqCst);
        self.changed.notify_one();
    }
}

impl Registry {
    pub(crate) fn new(parts: Arc<Parts>) -> Self {
        Self {
            parts,
            live: Mutex::new(BTreeMap::new()),
            guests: Arc::new(AtomicUsize::new(0)),
            changed: Arc::new(Notify::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<RunId, Live>> {
        self.live.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn enter(&self) -> Guest {
        self.guests.fetch_add(1, Ordering::SeqCst);
        Guest { guests: Arc::clone(&self.guests), changed: Arc::clone(&self.changed) }
    }

    pub(crate) fn live(&self) -> Vec<RunId> {
        self.lock().keys().cloned().collect()
    }

    /// How far a live run's log goes, and its records as they come.
    pub(crate) fn watch(&self, run: &RunId) -> Option<(watch::Receiver<u64>, Watcher)> {
        self.lock().get(run).map(|live| (live.head.clone(), live.recent.watch()))
    }

    /// Returns once nothing was live and nobody connected for `linger`.
    pub(crate) async fn idle(&self, linger: Duration) {
        loop {
            let busy = self.guests.load(Ordering::SeqCst) > 0 || !self.lock().is_empty();
            if busy {
                self.changed.notified().await;
            } else if tokio::time::timeout(linger, self.changed.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Ends the spawner, and with it whatever a sandbox left.
    pub(crate) async fn close(&self) {
        self.parts.spawner.clone().close().await;
    }

    /// Hands a request to the run's task, starting the task when there is none, and waits until it
    /// is recorded.
    ///
    /// # Errors
    /// When there is no such run, or the run refuses.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        run: &RunId,
        wanted: Wanted,
    ) -> Result<(), RuntimeError> {
        let head = self.parts.store.head(run, 0).map_err(|error| RuntimeError::part(&error))?;
        let mut wanted = wanted;
        loop {
            let post = self.post_of(run, head.next_seq);
            let (done, recorded) = oneshot::channel();
            match post.send(Post { wanted, done }).await {
                Ok(()) => {
                    return recorded.await.unwrap_or_else(|_| {
                        Err(RuntimeError::OwnerGone { reason: "the run's task ended".to_owned() })
                    });
                }
                // It was leaving: start another.
                Err(mpsc::error::SendError(post)) => {
                    self.forget(run);
                    wanted = post.wanted;
                }
            }
        }
    }

    fn post_of(self: &Arc<Self>, run: &RunId, next_seq: u64) -> mpsc::Sender<Post> {
        let mut live = self.lock();
        if let Some(found) = live.get(run) {
            return found.post.clone();
        }
        let (post, inbox) = mpsc::channel(CONTROL_QUEUE_MAX);
        let (head_sender, head) = watch::channel(next_seq);
        let recent = Arc::new(Recent::default());
        let told = (head_sender, Arc::clone(&recent));
        live.insert(run.clone(), Live { post: post.clone(), head, recent });
        let registry = Arc::clone(self);
        let run = run.clone();
        tokio::spawn(async move {
            let parts = Arc::clone(&registry.parts);
            Box::pin(run::attend(parts, run.clone(), inbox, told, |inbox| {
                registry.leave_if_empty(&run, inbox)
            }))
            .await;
            registry.forget(&run);
            registry.changed.notify_one();
        });
        post
    }

    /// Takes the run off the list unless something waits for it.
    fn leave_if_empty(&self, run: &RunId, inbox: &mut mpsc::Receiver<Post>) -> bool {
        let mut live = self.lock();
        if !inbox.is_empty() {
            return false;
        }
        inbox.close();
        live.remove(run);
        true
    }

    fn forget(&self, run: &RunId) {
        let mut live = self.lock();
        if live.get(run).is_some_and(|found| found.post.is_closed()) {
            live.remove(run);
        }
    }

    /// Removes a run that does not live, and its results.
    pub(crate) async fn remove(&self, run: &RunId) -> Result<(), RuntimeError> {
        if self.lock().contains_key(run) {
            let reason = "it lives; cancel it first".to_owned();
            return Err(RuntimeError::RunState { run: run.to_string(), reason });
        }
        self.parts.store.remove(run).await.map_err(|error| RuntimeError::part(&error))?;
        let _ = std::fs::remove_dir_all(self.parts.home.artifacts(run));
        self.collect().await.map(|_| ())
    }

    /// Removes payloads and layers that no run needs. Refused while a run lives, because a layer
    /// may be made that no record names yet.
    pub(crate) async fn collect(&self) -> Result<Vec<String>, RuntimeError> {
        if !self.lock().is_empty() {
            return Ok(vec!["nothing collected: runs are live".to_owned()]);
        }
        let report = self.parts.store.gc().await.map_err(|error| RuntimeError::part(&error))?;
        let (keep, images) = self.in_use()?;
        let layers = Arc::clone(&self.parts.layers);
        let removed = tokio::task::spawn_blocking(move || layers.remove_unreferenced(&keep))
            .await
            .map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?
            .map_err(|error| RuntimeError::part(&error))?;
        let parts = Arc::clone(&self.parts);
        let gone = tokio::task::spawn_blocking(move || parts.images.collect(&images))
            .await
            .map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?
            .map_err(|error| RuntimeError::part(&error))?;
        let mut lines = vec![format!(
            "removed {} payload files ({} bytes) and {removed} layers",
            report.blobs, report.bytes
        )];
        if gone != image::Collected::default() {
            let (images, layers) = (gone.images, gone.layers);
            lines.push(format!("removed {images} images and {layers} layers of images"));
        }
        Ok(lines)
    }

    /// The layers and images that some run or memory needs.
    fn in_use(&self) -> Result<(BTreeSet<LayerId>, BTreeSet<Digest>), RuntimeError> {
        let mut keep: BTreeSet<LayerId> = self.parts.memories.in_use()?.into_iter().collect();
        let mut images = BTreeSet::new();
        for summary in self.parts.store.runs().map_err(|error| RuntimeError::part(&error))? {
            if summary.erased {
                continue;
            }
            let records = self.parts.store.records(&summary.run, 0, 0);
            for record in records.map_err(|error| RuntimeError::part(&error))? {
                match record.body {
                    Body::RunStarted { base, manifest, memory, .. } => {
                        images.extend(manifest.sandbox.image_digest);
                        keep.extend(memory.map(|memory| memory.layer));
                        keep.insert(base)
                    }
                    Body::LayerSealed { layer, .. }
                    | Body::MemorySealed { layer, .. }
                    | Body::MemoryMerged { layer, .. } => keep.insert(layer),
                    _ => false,
                };
            }
        }
        Ok((keep, images))
    }
}
