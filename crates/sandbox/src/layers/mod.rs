//! Layers: immutable trees, one writable upper, and what they come to when they are stacked.
//!
//! ```text
//! import -> base <- begin - upper - seal -> layer <- begin - upper - discard
//! ```
//!
//! On disk, under the home: `layers/ID/{tree,meta.json}` are immutable once they have that name;
//! `uppers/ID/{lock,upper,work}` belong to whoever holds the lock. Sealing renames the upper, so
//! it costs what it takes to count what changed, and survives `kill -9`; [`LayerStore::flush`]
//! makes it survive a power cut, and a layer that was never flushed counts as absent after one.
//!
//! What always holds: a layer never changes; an upper is mounted once (the kernel would not mind
//! twice, so we lock it ourselves); a stack is never deeper than [`DEPTH_MAX`], because a deeper one
//! is flattened with hard links first; the host never follows a link of a layer.
//!
//! Deviations of an ordinary user's overlay, which cannot use `redirect_dir`: renaming a directory
//! that lies in a sealed layer fails with `EXDEV`, and programs that handle it (`mv`) copy.

mod disk;
mod import;
mod merged;

use crate::{Overlay, SandboxError};
use disk::Meta;
use merged::{Leaf, MergedDir, Node};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use types::LayerId;

pub use crate::spec::FileKind;

/// Deepest stack that is mounted; a deeper one is flattened first.
pub const DEPTH_MAX: usize = 32;

/// The layers of a home.
#[derive(Debug)]
pub struct LayerStore {
    home: PathBuf,
    boot: String,
}

/// A writable upper over a stack, locked. Dropped without being sealed or discarded, it is removed
/// by [`LayerStore::reap_uppers`].
#[derive(Debug)]
pub struct Upper {
    id: LayerId,
    parent: LayerId,
    dir: PathBuf,
    overlay: Overlay,
    _lock: File,
}

impl Upper {
    /// What to mount.
    #[must_use]
    pub fn overlay(&self) -> Overlay {
        self.overlay.clone()
    }
}

/// How a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its content or kind is another.
    Modified,
    /// It is gone.
    Deleted,
    /// Only its permissions are others.
    Mode,
}

/// One difference between two layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub kind: ChangeKind,
    /// Relative to the workspace.
    pub path: String,
    /// What it is now, or was when it is gone.
    pub file: FileKind,
}

/// What stands at a path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: FileKind,
    /// Bytes of a regular file.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Target of a symbolic link.
    pub link: Option<String>,
}

impl LayerStore {
    /// Opens the layers of a home, creating its directories.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn open(home: &Path) -> Result<Self, SandboxError> {
        for dir in ["layers", "uppers"] {
            let path = home.join(dir);
            std::fs::create_dir_all(&path).map_err(|error| disk::failed("create", &path, &error))?;
        }
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ok(Self { home: home.to_owned(), boot: boot.trim().to_owned() })
    }

    /// A layer that holds nothing.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn empty(&self) -> Result<LayerId, SandboxError> {
        let id = disk::new_id()?;
        let (staged, tree) = self.stage(&id)?;
        disk::give_to_sandbox(&tree)?;
        self.publish(&id, &staged, &self.meta(None, 0))?;
        Ok(id)
    }

    /// A copy of a host directory: reflinks where the file system can. Sockets, pipes, devices and
    /// what cannot be read are left out; a home inside the directory too.
    ///
    /// # Errors
    /// [`SandboxError::ImportTooLarge`], [`SandboxError::Store`]; nothing is left then.
    pub fn import(&self, dir: &Path, limit_bytes: u64) -> Result<LayerId, SandboxError> {
        let id = disk::new_id()?;
        let (staged, tree) = self.stage(&id)?;
        let mut copy = import::Copy::new(dir, &self.home, limit_bytes);
        if let Err(error) = copy.tree(dir, &tree) {
            disk::remove_tree(&staged);
            return Err(error);
        }
        self.publish(&id, &staged, &self.meta(None, 0))?;
        Ok(id)
    }

    /// A writable upper over a layer.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`], [`SandboxError::Store`].
    pub fn begin(&self, parent: &LayerId) -> Result<Upper, SandboxError> {
        let lowers = self.bounded_stack(parent)?;
        let grown_bytes = self.read_meta(parent)?.grown_bytes;
        let id = disk::new_id()?;
        let dir = self.home.join("uppers").join(id.as_str());
        let (upper, work) = (dir.join("upper"), dir.join("work"));
        std::fs::create_dir(&dir).map_err(|error| disk::failed("create", &dir, &error))?;
        let lock = disk::lock(&dir.join("lock"), id.as_str())?;
        for path in [&upper, &work] {
            std::fs::create_dir(path).map_err(|error| disk::failed("create", path, &error))?;
            disk::give_to_sandbox(path)?;
        }
        let overlay = Overlay { lowers, upper, work, grown_bytes };
        Ok(Upper { id, parent: parent.clone(), dir, overlay, _lock: lock })
    }

    /// Makes an upper a layer, and says how many files it holds; `None` when nothing was changed.
    /// No process may have it mounted any more.
    ///
    /// # Errors
    /// [`SandboxError::Store`].
    pub fn seal(&self, upper: Upper) -> Result<Option<(LayerId, u64)>, SandboxError> {
        let (entries, bytes) = disk::count(&upper.overlay.upper)?;
        if entries == 0 {
            self.discard(upper)?;
            return Ok(None);
        }
        let staged = self.staged(&upper.id);
        std::fs::create_dir(&staged).map_err(|error| disk::failed("create", &staged, &error))?;
        disk::rename(&upper.overlay.upper, &staged.join("tree"))?;
        let grown = upper.overlay.grown_bytes.saturating_add(bytes);
        self.publish(&upper.id, &staged, &self.meta(Some(upper.parent.clone()), grown))?;
        disk::remove_tree(&upper.dir);
        Ok(Some((upper.id, entries)))
    }

    /// Drops an upper and all that was written to it.
    ///
    /// # Errors
    /// [`SandboxError::Store`] when some of it could not be removed.
    pub fn discard(&self, upper: Upper) -> Result<(), SandboxError> {
        disk::remove_tree(&upper.dir);
        if upper.dir.exists() {
            let error = std::io::Error::other("it is not empty");
            return Err(disk::failed("remove", &upper.dir, &error));
        }
        Ok(())
    }

    /// Removes uppers that nobody holds: what a dead owner left.
    ///
    /// # Errors
    /// [`SandboxError::Store`] when the directory cannot be read.
    pub fn reap_uppers(&self) -> Result<u64, SandboxError> {
        let mut reaped = 0;
        for dir in disk::children(&self.home.join("uppers"))? {
            if disk::lock(&dir.join("lock"), "").is_ok() {
                disk::remove_tree(&dir);
                reaped += 1;
            }
        }
        for dir in disk::children(&self.home.join("layers"))? {
            if dir.extension().is_some_and(|extension| extension == disk::STAGED) {
                disk::remove_tree(&dir);
            }
        }
        Ok(reaped)
    }

    /// Makes a layer and all below it survive a power cut.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`], [`SandboxError::Store`].
    pub fn flush(&self, layer: &LayerId) -> Result<(), SandboxError> {
        let mut next = Some(layer.clone());
        while let Some(id) = next {
            let mut meta = self.read_meta(&id)?;
            if meta.flushed {
                return Ok(());
            }
            disk::sync_tree(&self.dir(&id).join("tree"))?;
            meta.flushed = true;
            disk::write_meta(&self.dir(&id), &meta, true)?;
            disk::sync_path(&self.home.join("layers"))?;
            next = meta.parent;
        }
        Ok(())
    }

    /// The trees of a layer, the newest first.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`].
    pub fn stack(&self, layer: &LayerId) -> Result<Vec<PathBuf>, SandboxError> {
        let mut trees = Vec::new();
        let mut next = Some(layer.clone());
        while let Some(id) = next {
            let meta = self.read_meta(&id)?;
            if let Some(flat) = &meta.flat {
                trees.push(self.dir(flat).join("tree"));
                return Ok(trees);
            }
            trees.push(self.dir(&id).join("tree"));
            next = meta.parent;
        }
        Ok(trees)
    }

    /// What this layer stands on.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`].
    pub fn parent(&self, layer: &LayerId) -> Result<Option<LayerId>, SandboxError> {
        Ok(self.read_meta(layer)?.parent)
    }

    /// What differs between two layers, sorted by path. Cost follows what differs.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`], [`SandboxError::Store`].
    pub fn changes(&self, from: &LayerId, to: &LayerId) -> Result<Vec<Change>, SandboxError> {
        let from = MergedDir::root(&self.stack(from)?);
        let to = MergedDir::root(&self.stack(to)?);
        let mut changes = Vec::new();
        merged::compare(&from, &to, "", &mut changes)?;
        changes.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    /// What stands at a path; `None` when nothing does.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`], [`SandboxError::Store`].
    pub fn entry(&self, layer: &LayerId, path: &str) -> Result<Option<Entry>, SandboxError> {
        self.node(layer, path)?.map(|node| node.entry()).transpose()
    }

    fn node(&self, layer: &LayerId, path: &str) -> Result<Option<Node>, SandboxError> {
        let mut node = Node::Dir(MergedDir::root(&self.stack(layer)?));
        for name in path.split('/').filter(|part| !part.is_empty()) {
            let Node::Dir(dir) = node else { return Ok(None) };
            match dir.child(name.as_ref())? {
                Some(child) => node = child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// Opens a regular file for reading. No link is followed, neither at the end nor above.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchFile`], [`SandboxError::WrongKind`], [`SandboxError::Store`].
    pub fn open_file(&self, layer: &LayerId, path: &str) -> Result<File, SandboxError> {
        let missing = || SandboxError::NoSuchFile { path: path.to_owned() };
        match self.node(layer, path)?.ok_or_else(missing)? {
            Node::Leaf(leaf) => leaf.open(path),
            Node::Dir(_) => {
                let found = "a directory".to_owned();
                Err(SandboxError::WrongKind { path: path.to_owned(), found })
            }
        }
    }

    /// Every regular file of a layer, sorted, relative to the workspace. Names that are no UTF-8
    /// are left out.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`], [`SandboxError::Store`].
    pub fn list_files(&self, layer: &LayerId) -> Result<Vec<String>, SandboxError> {
        let mut files = Vec::new();
        let root = MergedDir::root(&self.stack(layer)?);
        merged::walk(&root, "", &mut |path, leaf: &Leaf| {
            if leaf.kind()? == FileKind::File {
                files.push(path.to_owned());
            }
            Ok(())
        })?;
        files.sort();
        Ok(files)
    }

    /// Removes every layer that none of `keep` stands on, and says how many.
    ///
    /// # Errors
    /// [`SandboxError::Store`]; nothing is removed when a kept layer cannot be read.
    pub fn remove_unreferenced(&self, keep: &BTreeSet<LayerId>) -> Result<u64, SandboxError> {
        let mut needed = BTreeSet::new();
        for layer in keep {
            let mut next = Some(layer.clone());
            while let Some(id) = next {
                let Ok(meta) = self.read_meta(&id) else { break };
                needed.extend(meta.flat.clone());
                next = if needed.insert(id) { meta.parent } else { None };
            }
        }
        let mut removed = 0;
        for dir in disk::children(&self.home.join("layers"))? {
            let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if LayerId::parse(name).is_ok_and(|id| !needed.contains(&id)) {
                disk::remove_tree(&dir);
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The stack to mount: flattened when it is too deep.
    fn bounded_stack(&self, layer: &LayerId) -> Result<Vec<PathBuf>, SandboxError> {
        let stack = self.stack(layer)?;
        if stack.len() < DEPTH_MAX {
            return Ok(stack);
        }
        self.flatten(layer, &stack)?;
        self.stack(layer)
    }

    /// One tree with all that a stack comes to: files are hard links, which is safe because no
    /// layer is ever written to.
    fn flatten(&self, layer: &LayerId, stack: &[PathBuf]) -> Result<(), SandboxError> {
        let id = disk::new_id()?;
        let (staged, tree) = self.stage(&id)?;
        disk::give_to_sandbox(&tree)?;
        if let Err(error) = merged::link_all(&MergedDir::root(stack), &tree) {
            disk::remove_tree(&staged);
            return Err(error);
        }
        let mut meta = self.read_meta(layer)?;
        self.publish(&id, &staged, &self.meta(None, meta.grown_bytes))?;
        if meta.flushed {
            self.flush(&id)?;
        }
        meta.flat = Some(id);
        disk::write_meta(&self.dir(layer), &meta, meta.flushed)
    }

    fn dir(&self, layer: &LayerId) -> PathBuf {
        self.home.join("layers").join(layer.as_str())
    }

    fn staged(&self, layer: &LayerId) -> PathBuf {
        self.dir(layer).with_extension(disk::STAGED)
    }

    /// A directory for a layer to be, and its tree.
    fn stage(&self, id: &LayerId) -> Result<(PathBuf, PathBuf), SandboxError> {
        let staged = self.staged(id);
        let tree = staged.join("tree");
        std::fs::create_dir_all(&tree).map_err(|error| disk::failed("create", &tree, &error))?;
        Ok((staged, tree))
    }

    /// Gives a staged layer its name: from here on it exists.
    fn publish(&self, id: &LayerId, staged: &Path, meta: &Meta) -> Result<(), SandboxError> {
        disk::write_meta(staged, meta, false)?;
        disk::rename(staged, &self.dir(id))
    }

    fn meta(&self, parent: Option<LayerId>, grown_bytes: u64) -> Meta {
        Meta { parent, grown_bytes, boot: self.boot.clone(), flushed: false, flat: None }
    }

    fn read_meta(&self, layer: &LayerId) -> Result<Meta, SandboxError> {
        let meta = disk::read_meta(&self.dir(layer), layer)?;
        if !meta.flushed && meta.boot != self.boot {
            return Err(SandboxError::NoSuchLayer { layer: layer.to_string(), lost: true });
        }
        Ok(meta)
    }
}
