//! Layers: the file system of a workspace as a stack of immutable trees and one writable upper.
//!
//! ```text
//!   import/empty --> layer <-- begin -- upper --(seal)--> layer
//!                                         \--(discard)--> nothing
//! ```
//!
//! What always holds: a layer never changes once its directory is in `layers/`; it gets there by
//! one rename, so a killed process leaves a layer or none. An upper has one holder, by a kernel
//! lock that ends with the process. After a power cut a layer that was never flushed counts as
//! absent, whatever the disk kept of it.
//!
//! On disk, below the home: `layers/ID/{fs,meta.json[,flushed][,flat]}` and
//! `uppers/ID/{fs,work,lock}`, `trash/`. `flat` is the whole merged tree in one directory, made
//! when the stack gets deep; its files are hard links to the layers'.
//!
//! How overlays deviate from a plain directory:
//!
//! | | root | ordinary user |
//! |---|---|---|
//! | marks | `trusted.overlay.*` | `user.overlay.*` (`userxattr`) |
//! | renaming a directory of a lower layer | works (`redirect_dir=on`) | `EXDEV`; `mv` copies instead |
//! | hard links of a lower layer | kept on write (`index=on`), and when sealed | broken on the first write |
//! | `chown` to another user | refused | refused |
//! | special files | fifos and sockets only | fifos and sockets only |
//!
//! Everything here blocks; call it where blocking is allowed.

mod attributes;
mod diff;
mod import;
mod links;
mod merge;
mod pool;
mod trash;
mod tree;
mod view;

pub use diff::{Change, ChangeKind};
pub use import::Imported;
pub use merge::{Merged, Revision, Side};

use crate::SandboxError;
use crate::mode::Mode;
use crate::spec::{FileStat, Overlay, STACK_MAX};
use pool::{Pool, Spare};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use trash::Trash;
pub use tree::remove as remove_tree;
use types::LayerId;
use view::View;

/// A stack this deep is flattened before an upper is put on it. Below [`STACK_MAX`].
pub const SQUASH_DEPTH: usize = 40;
/// Layers one lineage may have.
const LINEAGE_MAX: usize = 100_000;
/// Entries [`LayerStore::list_files`] returns at most.
pub const LIST_MAX: usize = 1_000_000;

const LAYERS: &str = "layers";
const UPPERS: &str = "uppers";
const TRASH: &str = "trash";
const TREE: &str = "fs";
const WORK: &str = "work";
const META: &str = "meta.json";
const FLUSHED: &str = "flushed";
const FLAT: &str = "flat";
const LOCK: &str = "lock";

/// What is known of a layer beside its tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    /// What it stands on.
    parent: Option<LayerId>,
    /// The boot it was sealed in.
    boot: String,
    /// Bytes its lineage has added since the import.
    grown_bytes: u64,
    /// Entries changed in it.
    changed: u64,
}

/// All layers below one home.
#[derive(Debug)]
pub struct LayerStore {
    home: PathBuf,
    mode: Mode,
    boot: String,
    trash: Trash,
    pool: Pool,
}

/// A writable upper, held by this process until it is sealed, discarded or dropped. Dropped, it
/// stays on disk until [`LayerStore::reap_uppers`].
#[derive(Debug)]
pub struct Upper {
    id: LayerId,
    parent: LayerId,
    overlay: Overlay,
    dir: PathBuf,
    lock: File,
}

impl Upper {
    /// Its id; a layer sealed from it has the same.
    #[must_use]
    pub const fn id(&self) -> &LayerId {
        &self.id
    }

    /// The layer it stands on.
    #[must_use]
    pub const fn parent(&self) -> &LayerId {
        &self.parent
    }

    /// What a sandbox mounts.
    #[must_use]
    pub fn overlay(&self) -> Overlay {
        self.overlay.clone()
    }
}

/// What became of an upper.
#[derive(Debug)]
pub enum Sealed {
    /// Nothing had changed: the upper goes on.
    Unchanged(Upper),
    /// It is a layer now.
    Layer {
        /// The layer.
        layer: LayerId,
        /// Entries that differ from the layer below.
        changed: u64,
    },
}

/// An error of the store.
pub(crate) fn fail(action: &str, path: &Path, why: impl ToString) -> SandboxError {
    SandboxError::Store { action: action.to_owned(), path: path.to_owned(), why: why.to_string() }
}

fn at<T>(action: &str, path: &Path, result: io::Result<T>) -> Result<T, SandboxError> {
    result.map_err(|error| fail(action, path, error))
}

impl LayerStore {
    /// Opens the store below `home`, making it if it is not there. Only we may look inside.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn open(home: &Path) -> Result<Self, SandboxError> {
        let home = at("resolve", home, std::path::absolute(home))?;
        for dir in [LAYERS, UPPERS, TRASH].map(|dir| home.join(dir)) {
            at("create", &dir, fs::create_dir_all(&dir))?;
            let private = fs::Permissions::from_mode(0o700);
            at("protect", &dir, fs::set_permissions(&dir, private))?;
        }
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = at("read", boot, fs::read_to_string(boot))?.trim().to_owned();
        let trash = Trash::new(home.join(TRASH));
        Ok(Self { trash, pool: Pool::default(), home, mode: Mode::here(), boot })
    }

    fn layer_dir(&self, layer: &LayerId) -> PathBuf {
        self.home.join(LAYERS).join(layer.as_str())
    }

    fn tree(&self, layer: &LayerId) -> PathBuf {
        self.layer_dir(layer).join(TREE)
    }

    fn new_id() -> Result<LayerId, SandboxError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| SandboxError::setup("random", error))?;
        Ok(LayerId::from_random(random))
    }

    fn meta(&self, layer: &LayerId) -> Result<Meta, SandboxError> {
        let dir = self.layer_dir(layer);
        let absent = |lost| SandboxError::NoSuchLayer { layer: layer.to_string(), lost };
        let text = fs::read(dir.join(META)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => absent(false),
            _ => fail("read", &dir.join(META), error),
        })?;
        let meta: Meta =
            serde_json::from_slice(&text).map_err(|error| fail("read", &dir.join(META), error))?;
        if meta.boot != self.boot && !dir.join(FLUSHED).exists() {
            return Err(absent(true));
        }
        Ok(meta)
    }

    /// Makes a directory a layer by giving it its name in one step.
    fn publish(&self, staged: &Path, layer: &LayerId, meta: &Meta) -> Result<(), SandboxError> {
        let text = serde_json::to_vec(meta).expect("plain data");
        at("write", &staged.join(META), fs::write(staged.join(META), text))?;
        let target = self.layer_dir(layer);
        assert!(!target.exists(), "layer ids are not used twice");
        at("rename", staged, fs::rename(staged, &target))
    }

    /// A layer with nothing in it.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn empty(&self) -> Result<LayerId, SandboxError> {
        let id = Self::new_id()?;
        let staged = self.home.join(UPPERS).join(format!("new-{id}"));
        let tree = staged.join(TREE);
        at("create", &tree, fs::create_dir_all(&tree))?;
        tree::give_away(self.mode, &tree)?;
        self.publish(&staged, &id, &self.first_meta())?;
        Ok(id)
    }

    fn first_meta(&self) -> Meta {
        Meta { parent: None, boot: self.boot.clone(), grown_bytes: 0, changed: 0 }
    }

    /// Copies a host directory into a new layer. Modes, links and times are kept; hard links
    /// become copies; sockets, fifos and devices are left out and named in the answer.
    ///
    /// # Errors
    /// [`SandboxError::ImportTooLarge`] past `bytes_max`; [`SandboxError::Store`] when something
    /// cannot be read. Nothing is left of it then.
    pub fn import(&self, host: &Path, bytes_max: u64) -> Result<Imported, SandboxError> {
        let id = Self::new_id()?;
        let staged = self.home.join(UPPERS).join(format!("new-{id}"));
        at("create", &staged, fs::create_dir_all(&staged))?;
        let done = import::copy(host, &staged.join(TREE), &self.home, self.mode, bytes_max)
            .and_then(|report| {
                self.publish(&staged, &id, &self.first_meta())?;
                Ok(report)
            });
        match done {
            Ok(report) => Ok(Imported { layer: id, ..report }),
            Err(error) => {
                let _ = tree::remove(&staged);
                Err(error)
            }
        }
    }

    /// A new writable upper on a layer. Several may stand on the same one.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`], [`SandboxError::Store`].
    pub fn begin(&self, parent: &LayerId) -> Result<Upper, SandboxError> {
        let meta = self.meta(parent)?;
        if self.stack(parent)?.len() >= SQUASH_DEPTH {
            self.squash(parent)?;
        }
        let lowers = self.stack(parent)?;
        assert!(lowers.len() <= STACK_MAX, "deep stacks were just flattened");
        let id = Self::new_id()?;
        let dir = self.home.join(UPPERS).join(id.as_str());
        let lock = match self.pool.take() {
            Some(spare) => Self::reuse(spare, &dir)?,
            None => self.make_upper(&dir)?,
        };
        // The lock names the layer, so that a clean-up knows what is in use.
        at("write", &dir, pool::name_in_lock(&lock, parent.as_str()))?;
        let upper = dir.join(TREE);
        let below = at("read", &lowers[0], fs::metadata(&lowers[0]))?;
        let mode = fs::Permissions::from_mode(below.mode() & 0o1777);
        at("protect", &upper, fs::set_permissions(&upper, mode))?;
        Ok(Upper {
            overlay: Overlay { lowers, upper, work: dir.join(WORK), grown_bytes: meta.grown_bytes },
            id,
            parent: parent.clone(),
            dir,
            lock,
        })
    }

    /// Gives an upper that nobody uses a new name.
    fn reuse(spare: Spare, dir: &Path) -> Result<File, SandboxError> {
        at("rename", &spare.dir, fs::rename(&spare.dir, dir))?;
        Ok(spare.lock)
    }

    fn make_upper(&self, dir: &Path) -> Result<File, SandboxError> {
        for part in [TREE, WORK] {
            let part = dir.join(part);
            at("create", &part, fs::create_dir_all(&part))?;
        }
        tree::give_away(self.mode, &dir.join(TREE))?;
        let path = dir.join(LOCK);
        let lock = at("write", &path, File::create_new(&path))?;
        let locked = rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive);
        at("lock", dir, locked.map_err(Into::into))?;
        Ok(lock)
    }

    /// Makes an upper a layer. No sandbox may be using it. What costs time is finding out what
    /// really changed, which follows the number of changes. An upper whose only traces are dates
    /// and attributes of files is a layer too, with no change.
    ///
    /// # Errors
    /// [`SandboxError::Store`]; the upper is then left for [`LayerStore::reap_uppers`].
    pub fn seal(&self, upper: Upper) -> Result<Sealed, SandboxError> {
        let below = self.view(&upper.parent)?;
        let above = view::View::new(self.mode, self.stack_on(&upper.dir, &upper.parent)?);
        links::complete(self.mode, &upper.dir, &upper.overlay.upper, &above)?;
        let touched = diff::touched(self.mode, &upper.overlay.upper)?;
        let changed = diff::compare(&below, &above, touched.clone())?.len() as u64;
        if changed == 0 && !diff::beside(self.mode, &below, &above, &touched)? {
            return Ok(Sealed::Unchanged(upper));
        }
        let meta = Meta {
            parent: Some(upper.parent.clone()),
            boot: self.boot.clone(),
            grown_bytes: upper.overlay.grown_bytes + tree::bytes(&upper.overlay.upper)?,
            changed,
        };
        self.trash.take(&upper.overlay.work)?;
        self.publish(&upper.dir, &upper.id, &meta)?;
        let lock = self.layer_dir(&upper.id).join(LOCK);
        at("remove", &lock, fs::remove_file(&lock))?;
        Ok(Sealed::Layer { layer: upper.id, changed })
    }

    /// Throws an upper away, whoever may still be writing to it.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn discard(&self, upper: Upper) -> Result<(), SandboxError> {
        self.trash.take(&upper.dir)
    }

    /// Throws an upper away that no sandbox is using any more, as for [`LayerStore::seal`]. When
    /// it is as empty as it was made, the next [`LayerStore::begin`] may get it.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn recycle(&self, upper: Upper) -> Result<(), SandboxError> {
        self.pool.put(upper).or_else(|upper| self.discard(*upper))
    }

    fn stack_on(&self, dir: &Path, parent: &LayerId) -> Result<Vec<PathBuf>, SandboxError> {
        let mut stack = vec![dir.join(TREE)];
        stack.extend(self.stack(parent)?);
        Ok(stack)
    }

    /// The directories that make up a layer, the newest first.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`] for it or anything it stands on.
    pub fn stack(&self, layer: &LayerId) -> Result<Vec<PathBuf>, SandboxError> {
        let mut stack = Vec::new();
        let mut next = Some(layer.clone());
        while let Some(layer) = next {
            let meta = self.meta(&layer)?;
            let flat = self.layer_dir(&layer).join(FLAT);
            if flat.is_dir() {
                stack.push(flat);
                break;
            }
            stack.push(self.tree(&layer));
            next = meta.parent;
        }
        Ok(stack)
    }

    /// What a layer stands on.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`].
    pub fn parent(&self, layer: &LayerId) -> Result<Option<LayerId>, SandboxError> {
        Ok(self.meta(layer)?.parent)
    }

    /// Bytes a layer's lineage has added since the import.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`].
    pub fn grown_bytes(&self, layer: &LayerId) -> Result<u64, SandboxError> {
        Ok(self.meta(layer)?.grown_bytes)
    }

    /// A layer and all it stands on, the newest first.
    fn lineage(&self, layer: &LayerId) -> Result<Vec<LayerId>, SandboxError> {
        let mut list = vec![layer.clone()];
        while let Some(parent) = self.meta(&list[list.len() - 1])?.parent {
            if list.len() >= LINEAGE_MAX {
                return Err(SandboxError::TooMany {
                    what: "the number of layers of a lineage".to_owned(),
                    max: LINEAGE_MAX as u64,
                });
            }
            list.push(parent);
        }
        Ok(list)
    }

    fn view(&self, layer: &LayerId) -> Result<View, SandboxError> {
        Ok(View::new(self.mode, self.stack(layer)?))
    }

    /// What differs between two layers, sorted by path. A file that was only copied up, or
    /// written with the same content, has not changed.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`], [`SandboxError::Store`].
    pub fn changes(&self, from: &LayerId, to: &LayerId) -> Result<Vec<Change>, SandboxError> {
        let (old, new) = (self.lineage(from)?, self.lineage(to)?);
        let shared: BTreeSet<&LayerId> = old.iter().filter(|id| new.contains(id)).collect();
        let mut touched = diff::Touched::default();
        if shared.is_empty() {
            touched.everything();
        }
        for layer in old.iter().chain(&new).filter(|id| !shared.contains(id)) {
            touched.extend(diff::touched(self.mode, &self.tree(layer))?);
        }
        diff::compare(&self.view(from)?, &self.view(to)?, touched)
    }

    /// What an upper holds that differs from its layer; nothing may be running on it.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn pending(&self, upper: &Upper) -> Result<Vec<Change>, SandboxError> {
        let above = View::new(self.mode, self.stack_on(&upper.dir, &upper.parent)?);
        links::complete(self.mode, &upper.dir, &upper.overlay.upper, &above)?;
        let touched = diff::touched(self.mode, &upper.overlay.upper)?;
        diff::compare(&self.view(&upper.parent)?, &above, touched)
    }

    /// What stands at a path, and the target when it is a symbolic link; `None` when nothing does.
    ///
    /// # Errors
    /// When there is no such layer, or it cannot be read.
    pub fn entry(
        &self,
        layer: &LayerId,
        path: &str,
    ) -> Result<Option<(FileStat, Option<PathBuf>)>, SandboxError> {
        Ok(self.view(layer)?.find(Path::new(path))?.map(|node| {
            let meta = node.meta();
            let stat = FileStat {
                path: path.to_owned(),
                kind: node.kind(),
                size: meta.len(),
                mode: meta.permissions().mode() & 0o7777,
                mtime: meta.mtime(),
            };
            let link = match &node {
                view::Node::Leaf(real, _) => fs::read_link(real).ok(),
                view::Node::Dir(..) => None,
            };
            (stat, link)
        }))
    }

    /// Opens a regular file of a layer for reading. No symbolic link is followed anywhere.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchFile`], [`SandboxError::WrongKind`].
    pub fn open_file(&self, layer: &LayerId, path: &str) -> Result<File, SandboxError> {
        self.view(layer)?.open(path)
    }

    /// Every entry of a layer's merged tree, sorted by path.
    ///
    /// # Errors
    /// [`SandboxError::TooMany`] past [`LIST_MAX`].
    pub fn list_files(&self, layer: &LayerId) -> Result<Vec<FileStat>, SandboxError> {
        self.view(layer)?.list(LIST_MAX)
    }

    /// Writes a layer, and what it stands on, through to the disk: only the files of these layers,
    /// never the whole file system.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn flush(&self, layer: &LayerId) -> Result<(), SandboxError> {
        for layer in self.lineage(layer)?.into_iter().rev() {
            let dir = self.layer_dir(&layer);
            let marker = dir.join(FLUSHED);
            if marker.exists() {
                continue;
            }
            tree::sync(&dir)?;
            let layers = self.home.join(LAYERS);
            at("sync", &layers, File::open(&layers).and_then(|dir| dir.sync_all()))?;
            let file = at("write", &marker, File::create(&marker))?;
            at("sync", &marker, file.sync_all())?;
            at("sync", &dir, File::open(&dir).and_then(|dir| dir.sync_all()))?;
        }
        Ok(())
    }

    /// Whether a layer survives a power cut.
    #[must_use]
    pub fn is_flushed(&self, layer: &LayerId) -> bool {
        self.layer_dir(layer).join(FLUSHED).exists()
    }

    /// Makes the whole merged tree of a layer one directory, so that stacks on it are short.
    fn squash(&self, layer: &LayerId) -> Result<(), SandboxError> {
        let dir = self.layer_dir(layer);
        let staged = dir.join("flat.new");
        if staged.exists() {
            tree::remove(&staged)?;
        }
        self.view(layer)?.flatten(&staged)?;
        match fs::rename(&staged, dir.join(FLAT)) {
            // Somebody else was faster; theirs is the same.
            Err(_) if dir.join(FLAT).is_dir() => tree::remove(&staged),
            other => at("rename", &staged, other),
        }
    }

    /// Removes every layer that neither is in `keep` nor carries one that is, nor carries a live
    /// upper. Says how many.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn remove_unreferenced(&self, keep: &BTreeSet<LayerId>) -> Result<usize, SandboxError> {
        let mut kept: BTreeSet<String> = BTreeSet::new();
        for layer in keep {
            // What is lost or unknown keeps nothing.
            for layer in self.lineage(layer).unwrap_or_default() {
                kept.insert(layer.to_string());
            }
        }
        for upper in self.uppers()? {
            let parent = fs::read_to_string(upper.join(LOCK)).unwrap_or_default();
            if let (true, Ok(parent)) = (is_held(&upper), LayerId::parse(&parent)) {
                let lineage = self.lineage(&parent)?;
                kept.extend(lineage.into_iter().map(String::from));
            }
        }
        let layers = self.home.join(LAYERS);
        let mut removed = 0;
        for entry in at("list", &layers, fs::read_dir(&layers))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !kept.contains(&name) {
                self.trash.take(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Removes uppers that nobody holds, their process having died, and half-removed trees. Says
    /// how many uppers.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn reap_uppers(&self) -> Result<usize, SandboxError> {
        self.trash.empty()?;
        let mut removed = 0;
        for upper in self.uppers()? {
            if !is_held(&upper) {
                tree::remove(&upper)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn uppers(&self) -> Result<Vec<PathBuf>, SandboxError> {
        let uppers = self.home.join(UPPERS);
        let list = at("list", &uppers, fs::read_dir(&uppers))?;
        Ok(list.flatten().map(|entry| entry.path()).collect())
    }
}

/// Whether a live process holds an upper.
fn is_held(upper: &Path) -> bool {
    File::open(upper.join(LOCK)).is_ok_and(|lock| {
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err()
    })
}

/// The host uid that owns files of the workspace.
pub(crate) fn owner(mode: Mode) -> Option<u32> {
    match mode {
        Mode::Root => Some(mode.agent_id()),
        Mode::User => None,
    }
}
