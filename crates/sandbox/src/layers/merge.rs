//! Bringing together two trees that began as the same one, and changing a tree without a sandbox.
//!
//! ```text
//!            base
//!     ours  /    \  theirs
//!          o      t        merged = t, with what ours changed
//! ```
//!
//! What always holds: what either side changed is in the result, or the paths where that cannot be
//! are named and nothing is made. Only directories, regular files and symbolic links are kept; the
//! result is a layer of its own that stands on nothing, its files shared with the layers before.

use super::view::{Node, Plain, View};
use super::{ChangeKind, LayerStore, TREE, UPPERS, at, diff, tree};
use crate::SandboxError;
use crate::spec::FileKind;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use types::LayerId;

/// Conflicting paths that are named at most.
const CONFLICTS_MAX: usize = 100;
/// Mode of a file that a person wrote.
const MODE_WRITTEN: u32 = 0o644;

/// Whose change counts where both sides changed the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// That of the tree that is brought.
    Ours,
    /// That of the tree it is brought to.
    Theirs,
}

/// What became of a merge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// One tree.
    Layer {
        /// Its layer.
        layer: LayerId,
        /// How many paths of theirs it changed.
        changed: u64,
    },
    /// Both sides changed these, differently: the first hundred, sorted.
    Conflicts(Vec<String>),
}

/// One change that is made from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revision {
    /// Create or replace a regular file, with the directories above it.
    Write {
        /// Relative to the tree's root.
        path: String,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// Remove a file, or a directory with all that is in it.
    Remove {
        /// Relative to the tree's root.
        path: String,
    },
}

/// What a side made of each path it changed; `None`: it is gone.
type Outcomes = BTreeMap<PathBuf, Option<Node>>;

impl LayerStore {
    /// Brings what changed from `base` to `ours` into `theirs`. Where both changed the same path
    /// differently, or one removed what the other changed in, `prefer` decides; without it nothing
    /// is made. What has not changed on one side costs no new layer.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchLayer`], [`SandboxError::Store`].
    pub fn merge(
        &self,
        base: &LayerId,
        ours: &LayerId,
        theirs: &LayerId,
        prefer: Option<Side>,
    ) -> Result<Merged, SandboxError> {
        let mut brought = self.outcomes(base, ours)?;
        let there = self.outcomes(base, theirs)?;
        let conflicts = conflicts(&brought, &there)?;
        if !conflicts.is_empty() && prefer.is_none() {
            let named = conflicts.iter().take(CONFLICTS_MAX);
            return Ok(Merged::Conflicts(named.map(|path| super::view::text(path)).collect()));
        }
        if prefer == Some(Side::Theirs) {
            brought.retain(|path, _| !conflicts.contains(path));
        }
        // What both did is there already.
        brought.retain(|path, _| conflicts.contains(path) || !there.contains_key(path));
        let changed = brought.len() as u64;
        if brought.is_empty() {
            return Ok(Merged::Layer { layer: theirs.clone(), changed });
        }
        if there.is_empty() {
            return Ok(Merged::Layer { layer: ours.clone(), changed });
        }
        let above = self.view(ours)?;
        let mut wanted = entries(&self.view(theirs)?)?;
        for (path, outcome) in &brought {
            match outcome {
                Some(node) => place(&mut wanted, &above, path, node)?,
                None => {
                    wanted.remove(path);
                }
            }
        }
        // What lay in a directory that is gone, and was not named by itself.
        let dirs: BTreeSet<PathBuf> =
            wanted.iter().filter(|(_, node)| is_dir(node)).map(|(path, _)| path.clone()).collect();
        wanted.retain(|path, _| has_parents(&dirs, path));
        let root = self.view(theirs)?.root()?;
        let layer = self.assembled(|staged| self.put_together(staged, &root, &wanted))?;
        Ok(Merged::Layer { layer, changed })
    }

    /// A layer like `layer`, but for these changes.
    ///
    /// # Errors
    /// [`SandboxError::NoSuchFile`] when nothing is where something is to be removed,
    /// [`SandboxError::WrongKind`] when a file is to replace a directory or lie below a file,
    /// [`SandboxError::Invalid`] for a path that leaves the tree; nothing is made then.
    pub fn revise(&self, layer: &LayerId, revisions: &[Revision]) -> Result<LayerId, SandboxError> {
        let view = self.view(layer)?;
        let root = view.root()?;
        self.assembled(|staged| {
            let mut wanted = entries(&view)?;
            for (index, revision) in revisions.iter().enumerate() {
                match revision {
                    Revision::Write { path, bytes } => {
                        let node = self.written(&staged.join(format!("new-{index}")), bytes)?;
                        write(&mut wanted, &root, path, node)?;
                    }
                    Revision::Remove { path } => remove(&mut wanted, path)?,
                }
            }
            self.put_together(staged, &root, &wanted)?;
            for index in 0..revisions.len() {
                let file = staged.join(format!("new-{index}"));
                if file.exists() {
                    at("remove", &file, fs::remove_file(&file))?;
                }
            }
            Ok(())
        })
    }

    /// A person's file, on its way into a tree.
    fn written(&self, file: &Path, bytes: &[u8]) -> Result<Node, SandboxError> {
        at("write", file, fs::write(file, bytes))?;
        at("protect", file, fs::set_permissions(file, fs::Permissions::from_mode(MODE_WRITTEN)))?;
        tree::give_away(self.mode, file)?;
        let meta = at("read", file, fs::symlink_metadata(file))?;
        Ok(Node::Leaf(file.to_owned(), meta))
    }

    /// What changed between two trees, each path by itself.
    fn outcomes(&self, from: &LayerId, to: &LayerId) -> Result<Outcomes, SandboxError> {
        let view = self.view(to)?;
        let mut outcomes = Outcomes::new();
        for change in self.changes(from, to)? {
            if let ChangeKind::Renamed { from } = &change.kind {
                outcomes.insert(PathBuf::from(from), None);
            }
            let path = PathBuf::from(&change.path);
            let node = view.find(&path)?.filter(is_kept);
            outcomes.insert(path, node);
        }
        Ok(outcomes)
    }

    /// A layer that stands on nothing, of what `fill` makes in its directory.
    fn assembled(
        &self,
        fill: impl FnOnce(&Path) -> Result<(), SandboxError>,
    ) -> Result<LayerId, SandboxError> {
        let id = Self::new_id()?;
        let staged = self.home.join(UPPERS).join(format!("new-{id}"));
        at("create", &staged, fs::create_dir_all(&staged))?;
        match fill(&staged).and_then(|()| self.publish(&staged, &id, &self.first_meta())) {
            Ok(()) => Ok(id),
            Err(error) => {
                let _ = tree::remove(&staged);
                Err(error)
            }
        }
    }

    /// Makes a tree of these entries.
    fn put_together(
        &self,
        staged: &Path,
        root: &Node,
        wanted: &BTreeMap<PathBuf, Node>,
    ) -> Result<(), SandboxError> {
        let tree = staged.join(TREE);
        let mut plain = Plain::begin(self.mode, &tree, root.clone())?;
        wanted.iter().try_for_each(|(path, node)| plain.put(path, node))?;
        plain.finish()
    }
}

/// Every entry of a tree that a merged one may have.
fn entries(view: &View) -> Result<BTreeMap<PathBuf, Node>, SandboxError> {
    let mut entries = BTreeMap::new();
    view.visit(&mut |path, node| {
        if is_kept(node) {
            entries.insert(path.to_owned(), node.clone());
        }
        Ok(())
    })?;
    Ok(entries)
}

fn is_kept(node: &Node) -> bool {
    node.kind() != FileKind::Other
}

const fn is_dir(node: &Node) -> bool {
    matches!(node, Node::Dir(..))
}

/// Paths of ours that cannot be brought to theirs as they are.
fn conflicts(ours: &Outcomes, theirs: &Outcomes) -> Result<BTreeSet<PathBuf>, SandboxError> {
    let mut found = BTreeSet::new();
    for (path, outcome) in ours {
        let same = match (outcome, theirs.get(path)) {
            (_, None) | (None, Some(None)) => true,
            (Some(a), Some(Some(b))) => diff::same(a, b)?,
            _ => false,
        };
        if !same || (outcome.is_some() && is_shut(theirs, path)) {
            found.insert(path.clone());
        }
    }
    for (path, _) in theirs.iter().filter(|(_, outcome)| outcome.is_some()) {
        // What ours removed, or made a file, while theirs put something into it.
        let shut = path.ancestors().skip(1).filter(|above| is_no_dir(ours.get(*above)));
        found.extend(shut.map(Path::to_owned));
    }
    Ok(found)
}

/// Whether one of the directories above a path is none on that side.
fn is_shut(side: &Outcomes, path: &Path) -> bool {
    path.ancestors().skip(1).any(|above| is_no_dir(side.get(above)))
}

fn is_no_dir(outcome: Option<&Option<Node>>) -> bool {
    outcome.is_some_and(|outcome| !outcome.as_ref().is_some_and(is_dir))
}

/// Puts an entry of ours in, with the directories above it where theirs has none.
fn place(
    wanted: &mut BTreeMap<PathBuf, Node>,
    ours: &View,
    path: &Path,
    node: &Node,
) -> Result<(), SandboxError> {
    for above in path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        if !wanted.get(above).is_some_and(is_dir) {
            let dir = ours.find(above)?.expect("what is in a tree has its directories there");
            wanted.insert(above.to_owned(), dir);
        }
    }
    wanted.insert(path.to_owned(), node.clone());
    Ok(())
}

fn has_parents(dirs: &BTreeSet<PathBuf>, path: &Path) -> bool {
    let mut above = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    above.all(|above| dirs.contains(above))
}

/// Puts a person's file in, with the directories above it.
fn write(
    wanted: &mut BTreeMap<PathBuf, Node>,
    root: &Node,
    path: &str,
    node: Node,
) -> Result<(), SandboxError> {
    let wrong = |path: &Path, found: &str| SandboxError::WrongKind {
        path: super::view::text(path),
        found: found.to_owned(),
    };
    let target = relative(path)?;
    if wanted.get(&target).is_some_and(is_dir) {
        return Err(wrong(&target, "a directory"));
    }
    for above in target.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()) {
        match wanted.get(above) {
            Some(found) if !is_dir(found) => return Err(wrong(above, "not a directory")),
            Some(_) => {}
            None => {
                wanted.insert(above.to_owned(), root.clone());
            }
        }
    }
    wanted.insert(target, node);
    Ok(())
}

/// Takes an entry out, with all that is in it.
fn remove(wanted: &mut BTreeMap<PathBuf, Node>, path: &str) -> Result<(), SandboxError> {
    let gone = relative(path)?;
    if wanted.remove(&gone).is_none() {
        return Err(SandboxError::NoSuchFile { path: path.to_owned() });
    }
    wanted.retain(|path, _| !path.starts_with(&gone));
    Ok(())
}

/// A path below the root of a tree.
fn relative(path: &str) -> Result<PathBuf, SandboxError> {
    let plain = Path::new(path);
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
    if path.is_empty() || path.contains('\0') || !plain.components().all(is_name) {
        return Err(SandboxError::invalid(format!("'{path}' is no path below a tree's root")));
    }
    Ok(plain.components().collect())
}
