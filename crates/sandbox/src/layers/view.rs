//! The merged tree of a stack, worked out from the layers as the kernel does: whiteouts, opaque
//! directories and redirects, in the `trusted.` and the `user.` spelling.
//!
//! Names are looked up one at a time from directories already known to be directories, so no
//! symbolic link can lead anywhere.

use super::{at, attributes, fail, tree};
use crate::SandboxError;
use crate::mode::Mode;
use crate::spec::{FileKind, FileStat};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

/// Bytes of an overlay attribute at most: a path.
const XATTR_BYTES_MAX: usize = 4096;
/// Redirects followed in one lookup.
const REDIRECTS_MAX: usize = 64;

/// A stack of layers, the newest first.
#[derive(Debug, Clone)]
pub(super) struct View {
    mode: Mode,
    stack: Vec<PathBuf>,
}

/// A directory in one layer.
#[derive(Debug, Clone)]
pub(super) struct Part {
    layer: usize,
    path: PathBuf,
}

/// What a name is in the merged tree.
#[derive(Debug, Clone)]
pub(super) enum Node {
    /// A directory: what each layer contributes, the newest first, never empty.
    Dir(Vec<Part>, Metadata),
    /// Anything else: where it really is.
    Leaf(PathBuf, Metadata),
}

impl Node {
    pub(super) const fn meta(&self) -> &Metadata {
        match self {
            Self::Dir(_, meta) | Self::Leaf(_, meta) => meta,
        }
    }

    /// Where it is; of a directory, what counts of it as such.
    pub(super) fn real(&self) -> &Path {
        match self {
            Self::Dir(parts, _) => &parts[0].path,
            Self::Leaf(path, _) => path,
        }
    }

    pub(super) fn kind(&self) -> FileKind {
        let kind = self.meta().file_type();
        match self {
            Self::Dir(..) => FileKind::Dir,
            Self::Leaf(..) if kind.is_file() => FileKind::File,
            Self::Leaf(..) if kind.is_symlink() => FileKind::Symlink,
            Self::Leaf(..) => FileKind::Other,
        }
    }
}

/// Looks up one path after another, and looks up no directory again that the next shares with the
/// last.
#[derive(Debug)]
pub(super) struct Finder<'a> {
    view: &'a View,
    /// The directories on the way to the last path, the root first.
    way: Vec<(PathBuf, Node)>,
}

impl<'a> Finder<'a> {
    pub(super) const fn new(view: &'a View) -> Self {
        Self { view, way: Vec::new() }
    }

    /// As [`View::find`].
    pub(super) fn find(&mut self, path: &Path) -> Result<Option<Node>, SandboxError> {
        while self.way.last().is_some_and(|(shared, _)| !path.starts_with(shared)) {
            self.way.pop();
        }
        if self.way.is_empty() {
            self.way.push((PathBuf::new(), self.view.root()?));
        }
        let (shared, mut node) = self.way.last().cloned().expect("the root is there");
        let mut reached = shared.clone();
        for component in path.strip_prefix(&shared).expect("it begins so").components() {
            let (Component::Normal(name), Node::Dir(parts, _)) = (component, &node) else {
                return Ok(None);
            };
            let Some(child) = self.view.child(parts, name, 0)? else { return Ok(None) };
            node = child;
            reached.push(name);
            if matches!(node, Node::Dir(..)) {
                self.way.push((reached.clone(), node.clone()));
            }
        }
        Ok(Some(node))
    }
}

/// An overlay attribute of a file.
pub(super) fn attribute(mode: Mode, path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; XATTR_BYTES_MAX];
    let name = format!("{}{name}", mode.xattr_prefix());
    let count = rustix::fs::lgetxattr(path, name, &mut buffer[..]).ok()?;
    buffer.truncate(count);
    Some(buffer)
}

/// Whether an entry of a layer stands for "deleted".
pub(super) fn is_whiteout(mode: Mode, path: &Path, meta: &Metadata) -> bool {
    let device = meta.file_type().is_char_device() && meta.rdev() == 0;
    device || (meta.is_file() && meta.len() == 0 && attribute(mode, path, "whiteout").is_some())
}

/// Whether a directory of a layer hides those below it.
pub(super) fn is_opaque(mode: Mode, path: &Path) -> bool {
    attribute(mode, path, "opaque").is_some_and(|value| value == b"y")
}

impl View {
    pub(super) const fn new(mode: Mode, stack: Vec<PathBuf>) -> Self {
        Self { mode, stack }
    }

    pub(super) fn root(&self) -> Result<Node, SandboxError> {
        let part = |(layer, path): (usize, &PathBuf)| Part { layer, path: path.clone() };
        let parts: Vec<Part> = self.stack.iter().enumerate().map(part).collect();
        let meta = at("read", &parts[0].path, fs::symlink_metadata(&parts[0].path))?;
        Ok(Node::Dir(parts, meta))
    }

    /// What is at a path relative to the root; only directories are passed through.
    pub(super) fn find(&self, path: &Path) -> Result<Option<Node>, SandboxError> {
        Finder::new(self).find(path)
    }

    /// What a name is in a merged directory.
    fn child(
        &self,
        parts: &[Part],
        name: &OsStr,
        redirects: usize,
    ) -> Result<Option<Node>, SandboxError> {
        let mut found: Vec<Part> = Vec::new();
        let mut top = None;
        for (index, part) in parts.iter().enumerate() {
            let path = part.path.join(name);
            let meta = match tree::opened(&part.path, || fs::symlink_metadata(&path)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => at("read", &path, other)?,
            };
            if is_whiteout(self.mode, &path, &meta) {
                break;
            }
            if !meta.is_dir() {
                if found.is_empty() {
                    return Ok(Some(Node::Leaf(path, meta)));
                }
                break;
            }
            let below = if is_opaque(self.mode, &path) {
                Some(Vec::new())
            } else {
                self.redirected(&path, part.layer, &parts[index + 1..], redirects)?
            };
            top.get_or_insert(meta);
            found.push(Part { layer: part.layer, path });
            if let Some(below) = below {
                found.extend(below);
                break;
            }
        }
        Ok(top.map(|meta| Node::Dir(found, meta)))
    }

    /// Where a renamed directory's lower parts are; `None` when it was not renamed.
    fn redirected(
        &self,
        path: &Path,
        layer: usize,
        siblings: &[Part],
        redirects: usize,
    ) -> Result<Option<Vec<Part>>, SandboxError> {
        let Some(target) = attribute(self.mode, path, "redirect") else {
            return Ok(None);
        };
        if redirects >= REDIRECTS_MAX {
            return Err(fail("follow", path, "too many redirects"));
        }
        let target = PathBuf::from(OsString::from_vec(target));
        let node = match target.strip_prefix("/") {
            Err(_) => self.child(siblings, target.as_os_str(), redirects + 1)?,
            Ok(_) if layer + 1 >= self.stack.len() => None,
            Ok(below) => {
                let lower = Self::new(self.mode, self.stack[layer + 1..].to_vec());
                lower.find(below)?.map(|node| shifted(node, layer + 1))
            }
        };
        Ok(Some(match node {
            Some(Node::Dir(parts, _)) => parts,
            _ => Vec::new(),
        }))
    }

    /// The names in a merged directory, with what they are.
    pub(super) fn children(&self, node: &Node) -> Result<BTreeMap<OsString, Node>, SandboxError> {
        let mut list = BTreeMap::new();
        let Node::Dir(parts, _) = node else {
            return Ok(list);
        };
        for part in parts {
            for entry in tree::entries(&part.path)? {
                if !list.contains_key(&entry.name)
                    && let Some(child) = self.child(parts, &entry.name, 0)?
                {
                    list.insert(entry.name, child);
                }
            }
        }
        Ok(list)
    }

    /// Opens a regular file for reading.
    pub(super) fn open(&self, path: &str) -> Result<File, SandboxError> {
        let absent = || SandboxError::NoSuchFile { path: path.to_owned() };
        let node = self.find(Path::new(path))?.ok_or_else(absent)?;
        let wrong = |found: &str| SandboxError::WrongKind {
            path: path.to_owned(),
            found: found.to_owned(),
        };
        let real = match (&node, node.kind()) {
            (Node::Leaf(real, _), FileKind::File) => real,
            (_, FileKind::Dir) => return Err(wrong("a directory")),
            _ => return Err(wrong("not a regular file")),
        };
        let layer = self.stack.iter().find(|layer| real.starts_with(layer)).ok_or_else(absent)?;
        let below = real.strip_prefix(layer).map_err(|_| absent())?;
        let root = at("open", layer, File::open(layer))?;
        let below = below.to_str().ok_or_else(absent)?;
        let act = || {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            Ok(crate::mounts::open_beneath(root.as_fd(), below, flags)?)
        };
        Ok(File::from(at("open", real, tree::opened(real, act))?))
    }

    /// Every entry, sorted by path.
    pub(super) fn list(&self, max: usize) -> Result<Vec<FileStat>, SandboxError> {
        let mut list = Vec::new();
        self.visit(&mut |path, node| {
            if list.len() >= max {
                return Err(SandboxError::TooMany {
                    what: "the number of files of a workspace".to_owned(),
                    max: max as u64,
                });
            }
            let meta = node.meta();
            list.push(FileStat {
                path: path.to_string_lossy().into_owned(),
                kind: node.kind(),
                size: meta.len(),
                mode: meta.permissions().mode() & 0o7777,
                mtime: meta.mtime(),
            });
            Ok(())
        })?;
        list.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(list)
    }

    /// Calls `act` with every entry, parents first.
    pub(super) fn visit(
        &self,
        act: &mut dyn FnMut(&Path, &Node) -> Result<(), SandboxError>,
    ) -> Result<(), SandboxError> {
        let mut todo = vec![(PathBuf::new(), self.root()?)];
        while let Some((path, node)) = todo.pop() {
            for (name, child) in self.children(&node)? {
                let path = path.join(name);
                act(&path, &child)?;
                if matches!(child, Node::Dir(..)) {
                    if path.components().count() > tree::DEPTH_MAX {
                        return Err(fail("walk", &path, "it is too deep"));
                    }
                    todo.push((path, child));
                }
            }
        }
        Ok(())
    }

    /// Makes the merged tree one directory. Files are hard links: layers never change.
    pub(super) fn flatten(&self, target: &Path) -> Result<(), SandboxError> {
        let mut plain = Plain::begin(self.mode, target, self.root()?)?;
        self.visit(&mut |path, node| plain.put(path, node))?;
        plain.finish()
    }
}

/// A plain directory that is put together from nodes, parents first.
pub(super) struct Plain<'a> {
    mode: Mode,
    target: &'a Path,
    dirs: Vec<(PathBuf, Node)>,
}

impl<'a> Plain<'a> {
    /// Makes the directory, which must not exist, in the likeness of this one.
    pub(super) fn begin(mode: Mode, target: &'a Path, root: Node) -> Result<Self, SandboxError> {
        at("create", target, fs::create_dir(target))?;
        Ok(Self { mode, target, dirs: vec![(target.to_owned(), root)] })
    }

    /// Puts one entry in its place.
    pub(super) fn put(&mut self, path: &Path, node: &Node) -> Result<(), SandboxError> {
        let to = self.target.join(path);
        match node {
            Node::Dir(..) => {
                at("create", &to, fs::create_dir(&to))?;
                self.dirs.push((to, node.clone()));
            }
            Node::Leaf(real, _) => {
                // Too many links to one file, or a kind that cannot be linked.
                if tree::opened(real, || fs::hard_link(real, &to)).is_err() {
                    super::import::copy_leaf(real, &to, self.mode)?;
                }
            }
        }
        Ok(())
    }

    /// Gives the directories their owner, attributes, mode and dates: last, so that one that may
    /// not be written could be filled before.
    pub(super) fn finish(self) -> Result<(), SandboxError> {
        let mut deepest_first = self.dirs.iter().rev();
        deepest_first.try_for_each(|(dir, node)| attributes::dress(self.mode, node, dir))
    }
}

/// The same node, its layers counted from a longer stack.
fn shifted(node: Node, by: usize) -> Node {
    match node {
        Node::Dir(parts, meta) => {
            let shift = |part: Part| Part { layer: part.layer + by, ..part };
            Node::Dir(parts.into_iter().map(shift).collect(), meta)
        }
        leaf => leaf,
    }
}

/// Whether a path fits into a report: it is text.
pub(super) fn text(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_before_does_not_change_what_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let layers = ["top", "base"].map(|layer| dir.path().join(layer));
        let write = |layer: usize, path: &str| {
            let path = layers[layer].join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, "x").expect("written");
        };
        let (top, base) = (["a/b/x", "a/c", "d"], ["a/b/y", "a/e/z", "d/f", "ab/x"]);
        top.iter().for_each(|path| write(0, path));
        base.iter().for_each(|path| write(1, path));
        let view = View::new(Mode::Root, layers.to_vec());
        let real = |node: Option<Node>| match node {
            Some(Node::Leaf(path, _)) => vec![path],
            Some(Node::Dir(parts, _)) => parts.into_iter().map(|part| part.path).collect(),
            None => Vec::new(),
        };
        let paths = [
            "",
            "a",
            "a/b",
            "a/b/x",
            "a/b/y",
            "a/c",
            "a/c/below",
            "a/e/z",
            "ab",
            "ab/x",
            "d",
            "d/f",
            "none",
            "a/none/x",
            "../a",
        ];
        for before in paths {
            for path in paths {
                let mut finder = Finder::new(&view);
                finder.find(Path::new(before)).expect("read");
                let found = real(finder.find(Path::new(path)).expect("read"));
                assert_eq!(found, real(view.find(Path::new(path)).expect("read")), "{path}");
            }
        }
        assert_eq!(real(view.find(Path::new("a/b/y")).expect("read")), [layers[1].join("a/b/y")]);
        assert!(view.find(Path::new("d/f")).expect("read").is_none(), "a file hides it");
        assert!(view.find(Path::new("../top/d")).expect("read").is_none());
    }
}
