//! What differs between two merged trees, looked for only where a layer between them was written.

use super::attributes;
use super::tree::{self, Entry};
use super::view::{self, Finder, Node, View};
use crate::SandboxError;
use crate::mode::Mode;
use crate::spec::FileKind;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Changes one comparison reports at most.
const CHANGES_MAX: usize = 1_000_000;
/// Pairs of a deleted and an added file whose bytes are compared to find renames.
const RENAME_PAIRS_MAX: usize = 10_000;

/// How an entry differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// Its content, link target or kind is another.
    Modified,
    /// It is gone.
    Deleted,
    /// The same bytes were elsewhere before.
    Renamed {
        /// Where.
        from: String,
    },
    /// Only its permission bits are others.
    Mode,
}

impl ChangeKind {
    /// The letter `bedplate sandbox diff` prints.
    #[must_use]
    pub const fn letter(&self) -> char {
        match self {
            Self::Added => 'A',
            Self::Modified => 'M',
            Self::Deleted => 'D',
            Self::Renamed { .. } => 'R',
            Self::Mode => 'P',
        }
    }
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// How it differs.
    pub kind: ChangeKind,
    /// Relative to the workspace.
    pub path: String,
    /// What it is now; what it was, if it is gone.
    pub file: FileKind,
    /// Its size now; what it was, if it is gone.
    pub size: u64,
}

/// Paths that were written somewhere between two trees.
#[derive(Debug, Clone, Default)]
pub(super) struct Touched {
    /// With `true`, everything below it too.
    paths: BTreeMap<PathBuf, bool>,
}

impl Touched {
    /// Nothing is known: look everywhere.
    pub(super) fn everything(&mut self) {
        self.paths.insert(PathBuf::new(), true);
    }

    pub(super) fn extend(&mut self, other: Self) {
        for (path, deep) in other.paths {
            *self.paths.entry(path).or_default() |= deep;
        }
    }
}

/// What one layer's directory says was written.
pub(super) fn touched(mode: Mode, dir: &Path) -> Result<Touched, SandboxError> {
    let mut paths = BTreeMap::new();
    paths.insert(PathBuf::new(), false);
    let mut note = |entry: &Entry| {
        let path = entry.path.strip_prefix(dir).expect("it was found below").to_owned();
        // A plain directory stands for itself; everything else may hide a whole tree.
        let plain = entry.meta.is_dir()
            && !view::is_opaque(mode, &entry.path)
            && view::attribute(mode, &entry.path, "redirect").is_none();
        paths.insert(path, !plain);
        Ok(())
    };
    tree::walk(dir, &mut note, &mut |_| Ok(()))?;
    Ok(Touched { paths })
}

/// Whether dates or attributes differ at a touched path that is in both trees. Those of the top are
/// its upper's own, and never kept.
pub(super) fn beside(
    mode: Mode,
    from: &View,
    to: &View,
    touched: &Touched,
) -> Result<bool, SandboxError> {
    let (mut olds, mut news) = (Finder::new(from), Finder::new(to));
    for path in touched.paths.keys().filter(|path| !path.as_os_str().is_empty()) {
        if let (Some(old), Some(new)) = (olds.find(path)?, news.find(path)?)
            && attributes::differ(mode, &old, &new)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Compares two trees at the touched paths.
pub(super) fn compare(
    from: &View,
    to: &View,
    touched: Touched,
) -> Result<Vec<Change>, SandboxError> {
    let mut comparison = Comparison { from, to, seen: BTreeSet::new(), changes: Vec::new() };
    let (mut olds, mut news) = (Finder::new(from), Finder::new(to));
    for (path, deep) in touched.paths {
        let (old, new) = (olds.find(&path)?, news.find(&path)?);
        comparison.at(path, old, new, deep)?;
    }
    let changes = renames(from, to, comparison.changes)?;
    let mut changes: Vec<Change> = changes.into_iter().map(|(_, change)| change).collect();
    changes.sort_by(|a, b| a.path.cmp(&b.path).then_with(|| a.kind.cmp(&b.kind)));
    Ok(changes)
}

struct Comparison<'a> {
    from: &'a View,
    to: &'a View,
    /// Paths compared, with whether everything below was.
    seen: BTreeSet<(PathBuf, bool)>,
    changes: Vec<(PathBuf, Change)>,
}

impl Comparison<'_> {
    fn push(&mut self, kind: ChangeKind, path: &Path, node: &Node) -> Result<(), SandboxError> {
        if self.changes.len() >= CHANGES_MAX {
            return Err(SandboxError::TooMany {
                what: "the number of changes".to_owned(),
                max: CHANGES_MAX as u64,
            });
        }
        let file = node.kind();
        let change = Change {
            kind,
            path: view::text(path),
            file,
            size: if file == FileKind::File { node.meta().len() } else { 0 },
        };
        self.changes.push((path.to_owned(), change));
        Ok(())
    }

    fn at(
        &mut self,
        path: PathBuf,
        old: Option<Node>,
        new: Option<Node>,
        deep: bool,
    ) -> Result<(), SandboxError> {
        let mut todo = vec![(path, old, new, deep)];
        while let Some((path, old, new, deep)) = todo.pop() {
            let known = self.seen.contains(&(path.clone(), true));
            if known || !self.seen.insert((path.clone(), deep)) {
                continue;
            }
            let shallow = deep && self.seen.contains(&(path.clone(), false));
            if !shallow {
                self.one(&path, old.as_ref(), new.as_ref())?;
            }
            let is_dir = |node: &Option<Node>| matches!(node, Some(Node::Dir(..)));
            // A directory on one side only is new or gone with all that is in it.
            if deep || is_dir(&old) != is_dir(&new) {
                let list = |view: &View, node: &Option<Node>| match node {
                    Some(node) => view.children(node),
                    None => Ok(BTreeMap::new()),
                };
                let mut news = list(self.to, &new)?;
                for (name, old) in list(self.from, &old)? {
                    let new = news.remove(&name);
                    todo.push((path.join(name), Some(old), new, true));
                }
                for (name, new) in news {
                    todo.push((path.join(name), None, Some(new), true));
                }
            }
        }
        Ok(())
    }

    fn one(
        &mut self,
        path: &Path,
        old: Option<&Node>,
        new: Option<&Node>,
    ) -> Result<(), SandboxError> {
        match (old, new) {
            (None, None) => Ok(()),
            (None, Some(new)) => self.push(ChangeKind::Added, path, new),
            (Some(old), None) => self.push(ChangeKind::Deleted, path, old),
            (Some(old), Some(new)) if old.kind() != new.kind() => {
                self.push(ChangeKind::Modified, path, new)
            }
            (Some(old), Some(new)) => {
                let mode = |node: &Node| node.meta().permissions().mode() & 0o7777;
                if !same_content(old, new)? {
                    self.push(ChangeKind::Modified, path, new)
                } else if mode(old) != mode(new) {
                    self.push(ChangeKind::Mode, path, new)
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Whether two entries are the same: kind, content and permission bits.
pub(super) fn same(a: &Node, b: &Node) -> Result<bool, SandboxError> {
    let mode = |node: &Node| node.meta().permissions().mode() & 0o7777;
    Ok(a.kind() == b.kind() && mode(a) == mode(b) && same_content(a, b)?)
}

/// Whether two entries of the same kind hold the same.
fn same_content(old: &Node, new: &Node) -> Result<bool, SandboxError> {
    let (Node::Leaf(a, old_meta), Node::Leaf(b, new_meta)) = (old, new) else {
        return Ok(true);
    };
    if (old_meta.dev(), old_meta.ino()) == (new_meta.dev(), new_meta.ino()) {
        return Ok(true);
    }
    match new.kind() {
        FileKind::File if old_meta.len() == new_meta.len() => tree::same_bytes(a, b),
        FileKind::File => Ok(false),
        FileKind::Symlink => Ok(fs::read_link(a).ok() == fs::read_link(b).ok()),
        FileKind::Other => Ok(old_meta.file_type() == new_meta.file_type()),
        FileKind::Dir => Ok(true),
    }
}

/// Finds files that only moved: deleted here and added there with the same bytes.
fn renames(
    from: &View,
    to: &View,
    changes: Vec<(PathBuf, Change)>,
) -> Result<Vec<(PathBuf, Change)>, SandboxError> {
    let moved = |change: &Change| change.file == FileKind::File && change.size > 0;
    let mut gone: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for (index, (_, change)) in changes.iter().enumerate() {
        if change.kind == ChangeKind::Deleted && moved(change) {
            gone.entry(change.size).or_default().push(index);
        }
    }
    let mut pairs = 0;
    let mut sources: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, (path, change)) in changes.iter().enumerate() {
        if change.kind != ChangeKind::Added || !moved(change) {
            continue;
        }
        let Some(candidates) = gone.get_mut(&change.size) else {
            continue;
        };
        let Some(Node::Leaf(new, _)) = to.find(path)? else {
            continue;
        };
        for (position, candidate) in candidates.iter().enumerate() {
            pairs += 1;
            if pairs > RENAME_PAIRS_MAX {
                break;
            }
            if let Some(Node::Leaf(old, _)) = from.find(&changes[*candidate].0)?
                && tree::same_bytes(&old, &new)?
            {
                sources.insert(index, candidates.remove(position));
                break;
            }
        }
    }
    let used: BTreeSet<usize> = sources.values().copied().collect();
    let names: Vec<String> = changes.iter().map(|(_, change)| change.path.clone()).collect();
    let mut result = Vec::with_capacity(changes.len());
    for (index, (path, mut change)) in changes.into_iter().enumerate() {
        if used.contains(&index) {
            continue;
        }
        if let Some(source) = sources.get(&index) {
            change.kind = ChangeKind::Renamed { from: names[*source].clone() };
        }
        result.push((path, change));
    }
    Ok(result)
}
