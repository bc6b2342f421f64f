//! What a stack of layers comes to, read from the host as overlayfs would show it.
//!
//! A merged directory is the list of directories, one a layer at most, that overlayfs would merge.
//! Whiteouts (character device 0/0, or an empty file marked so), opaque directories and redirects
//! are understood in both spellings, `trusted.` (root) and `user.` (an ordinary user). Layers do
//! not change, so what was checked a moment ago still holds.

use super::{Change, ChangeKind, Entry, FileKind};
use crate::SandboxError;
use crate::layers::disk::failed;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest redirect, in bytes.
const REDIRECT_BYTES_MAX: usize = 4096;
/// Deepest path that is walked.
const DEPTH_MAX: usize = 512;

/// A directory of one layer: the layer's tree, and the path in it.
type Part = (PathBuf, PathBuf);

/// A merged directory: its parts, the newest first; the first gives its permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MergedDir {
    parts: Vec<Part>,
}

/// What stands at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Dir(MergedDir),
    Leaf(Leaf),
}

/// Something that is no directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaf {
    tree: PathBuf,
    path: PathBuf,
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    ["trusted.overlay.", "user.overlay."].iter().find_map(|prefix| {
        let mut value = [0u8; REDIRECT_BYTES_MAX];
        let length = rustix::fs::lgetxattr(path, format!("{prefix}{name}"), &mut value).ok()?;
        Some(value[..length].to_vec())
    })
}

fn is_whiteout(path: &Path, meta: &Metadata) -> bool {
    let device = meta.file_type().is_char_device() && meta.rdev() == 0;
    device || (meta.is_file() && meta.len() == 0 && xattr(path, "whiteout").is_some())
}

impl MergedDir {
    pub(super) fn root(trees: &[PathBuf]) -> Self {
        Self { parts: trees.iter().map(|tree| (tree.clone(), PathBuf::new())).collect() }
    }

    fn first(&self) -> PathBuf {
        let (tree, path) = &self.parts[0];
        tree.join(path)
    }

    /// Names in it, hidden ones included: [`MergedDir::child`] says what each comes to.
    fn names(&self) -> Result<BTreeSet<OsString>, SandboxError> {
        let mut names = BTreeSet::new();
        for (tree, path) in &self.parts {
            let dir = tree.join(path);
            let entries = match std::fs::read_dir(&dir) {
                Ok(entries) => entries,
                Err(error) => return Err(failed("read", &dir, &error)),
            };
            names.extend(entries.flatten().map(|entry| entry.file_name()));
        }
        Ok(names)
    }

    /// What stands at a name; `None` when nothing does.
    pub(super) fn child(&self, name: &OsStr) -> Result<Option<Node>, SandboxError> {
        let is_plain = !matches!(name.as_bytes(), b"" | b"." | b"..") && !name.as_bytes().contains(&b'/');
        if !is_plain {
            return Ok(None);
        }
        let mut found: Vec<Part> = Vec::new();
        // Where to look in the layers further below: a redirect changes it.
        let mut relative: OsString = name.to_owned();
        let mut absolute: Option<PathBuf> = None;
        for (tree, dir) in &self.parts {
            let path = absolute.clone().unwrap_or_else(|| dir.join(&relative));
            let whole = tree.join(&path);
            let Ok(meta) = whole.symlink_metadata() else { continue };
            if is_whiteout(&whole, &meta) {
                break;
            }
            if !meta.is_dir() {
                if found.is_empty() {
                    return Ok(Some(Node::Leaf(Leaf { tree: tree.clone(), path })));
                }
                break;
            }
            let opaque = xattr(&whole, "opaque").is_some_and(|value| value == b"y");
            if let Some(redirect) = xattr(&whole, "redirect") {
                let redirect = OsStr::from_bytes(&redirect);
                match Path::new(redirect).strip_prefix("/") {
                    Ok(rest) => absolute = Some(rest.to_owned()),
                    Err(_) => relative = redirect.to_owned(),
                }
            }
            found.push((tree.clone(), path));
            if opaque {
                break;
            }
        }
        Ok((!found.is_empty()).then_some(Node::Dir(Self { parts: found })))
    }

    /// Whether both are made of the same directories: then nothing in them differs.
    fn same_parts(&self, other: &Self) -> bool {
        self.parts == other.parts
    }

    fn meta(&self) -> Result<Metadata, SandboxError> {
        let path = self.first();
        path.symlink_metadata().map_err(|error| failed("read", &path, &error))
    }
}

impl Leaf {
    fn whole(&self) -> PathBuf {
        self.tree.join(&self.path)
    }

    fn meta(&self) -> Result<Metadata, SandboxError> {
        let path = self.whole();
        path.symlink_metadata().map_err(|error| failed("read", &path, &error))
    }

    pub(super) fn kind(&self) -> Result<FileKind, SandboxError> {
        let meta = self.meta()?;
        Ok(match meta {
            meta if meta.is_file() => FileKind::File,
            meta if meta.is_symlink() => FileKind::Symlink,
            _ => FileKind::Other,
        })
    }

    /// Opens a regular file beneath its tree, following no link.
    pub(super) fn open(&self, shown: &str) -> Result<File, SandboxError> {
        let fail = |error: std::io::Error| failed("open", &self.whole(), &error);
        let tree = File::open(&self.tree).map_err(fail)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let wrong = |found: &str| SandboxError::WrongKind {
            path: shown.to_owned(),
            found: found.to_owned(),
        };
        let opened = rustix::fs::openat2(&tree, &self.path, flags, Mode::empty(), resolve);
        let file = match opened {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::LOOP) => return Err(wrong("a symbolic link")),
            Err(error) => return Err(fail(error.into())),
        };
        if file.metadata().map_err(fail)?.is_file() { Ok(file) } else { Err(wrong("not a regular file")) }
    }
}

impl Node {
    pub(super) fn entry(&self) -> Result<Entry, SandboxError> {
        let (meta, link) = match self {
            Self::Dir(dir) => (dir.meta()?, None),
            Self::Leaf(leaf) => {
                let link = std::fs::read_link(leaf.whole()).ok();
                (leaf.meta()?, link.and_then(|link| link.to_str().map(str::to_owned)))
            }
        };
        let kind = match self {
            Self::Dir(_) => FileKind::Dir,
            Self::Leaf(leaf) => leaf.kind()?,
        };
        let size = if meta.is_file() { meta.len() } else { 0 };
        Ok(Entry { kind, size, mode: meta.permissions().mode() & 0o7777, link })
    }
}

/// Calls `visit` with the path of everything below that is no directory.
pub(super) fn walk(
    dir: &MergedDir,
    prefix: &str,
    visit: &mut dyn FnMut(&str, &Leaf) -> Result<(), SandboxError>,
) -> Result<(), SandboxError> {
    bounded(prefix)?;
    for (name, node) in children(dir)? {
        let path = joined(prefix, &name);
        match node {
            Node::Dir(inner) => walk(&inner, &path, visit)?,
            Node::Leaf(leaf) => visit(&path, &leaf)?,
        }
    }
    Ok(())
}

fn bounded(path: &str) -> Result<(), SandboxError> {
    if path.matches('/').count() < DEPTH_MAX {
        return Ok(());
    }
    let what = "the depth of a workspace's directories".to_owned();
    Err(SandboxError::TooMany { what, max: DEPTH_MAX as u64 })
}

/// Children whose names are UTF-8.
fn children(dir: &MergedDir) -> Result<BTreeMap<String, Node>, SandboxError> {
    let mut children = BTreeMap::new();
    for name in dir.names()? {
        let Some(text) = name.to_str() else { continue };
        if let Some(node) = dir.child(&name)? {
            children.insert(text.to_owned(), node);
        }
    }
    Ok(children)
}

fn joined(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") }
}

/// Adds what differs between two merged directories.
pub(super) fn compare(
    from: &MergedDir,
    to: &MergedDir,
    prefix: &str,
    changes: &mut Vec<Change>,
) -> Result<(), SandboxError> {
    bounded(prefix)?;
    if from.same_parts(to) {
        return Ok(());
    }
    let (old, new) = (children(from)?, children(to)?);
    for (name, node) in &old {
        let path = joined(prefix, name);
        match (node, new.get(name)) {
            (_, None) => all_below(node, &path, ChangeKind::Deleted, changes)?,
            (Node::Dir(a), Some(Node::Dir(b))) => {
                if a.meta()?.permissions() != b.meta()?.permissions() {
                    changes.push(Change { kind: ChangeKind::Mode, path: path.clone(), file: FileKind::Dir });
                }
                compare(a, b, &path, changes)?;
            }
            (Node::Leaf(a), Some(Node::Leaf(b))) => compare_leaves(a, b, path, changes)?,
            (_, Some(other)) => {
                all_below(node, &path, ChangeKind::Deleted, changes)?;
                all_below(other, &path, ChangeKind::Added, changes)?;
            }
        }
    }
    for (name, node) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
        all_below(node, &joined(prefix, name), ChangeKind::Added, changes)?;
    }
    Ok(())
}

/// A node and everything in it, as added or deleted.
fn all_below(
    node: &Node,
    path: &str,
    kind: ChangeKind,
    changes: &mut Vec<Change>,
) -> Result<(), SandboxError> {
    bounded(path)?;
    changes.push(Change { kind, path: path.to_owned(), file: node.entry()?.kind });
    if let Node::Dir(dir) = node {
        for (name, child) in children(dir)? {
            all_below(&child, &joined(path, &name), kind, changes)?;
        }
    }
    Ok(())
}

fn compare_leaves(a: &Leaf, b: &Leaf, path: String, changes: &mut Vec<Change>) -> Result<(), SandboxError> {
    if a == b {
        return Ok(());
    }
    let (old, new) = (a.meta()?, b.meta()?);
    if (old.dev(), old.ino()) == (new.dev(), new.ino()) {
        return Ok(());
    }
    let file = b.kind()?;
    let same = a.kind()? == file
        && match file {
            FileKind::File => old.len() == new.len() && same_bytes(a.open(&path)?, b.open(&path)?),
            FileKind::Symlink => std::fs::read_link(a.whole()).ok() == std::fs::read_link(b.whole()).ok(),
            FileKind::Dir | FileKind::Other => true,
        };
    if !same {
        changes.push(Change { kind: ChangeKind::Modified, path, file });
    } else if file == FileKind::File && old.permissions() != new.permissions() {
        changes.push(Change { kind: ChangeKind::Mode, path, file });
    }
    Ok(())
}

fn same_bytes(mut a: File, mut b: File) -> bool {
    const CHUNK_BYTES: usize = 64 << 10;
    let (mut x, mut y) = (vec![0u8; CHUNK_BYTES], vec![0u8; CHUNK_BYTES]);
    loop {
        let Ok(count) = a.read(&mut x) else { return false };
        if count == 0 {
            return matches!(b.read(&mut y), Ok(0));
        }
        if b.read_exact(&mut y[..count]).is_err() || x[..count] != y[..count] {
            return false;
        }
    }
}

/// Builds one plain tree with all that a stack comes to; regular files are hard links.
pub(super) fn link_all(dir: &MergedDir, to: &Path) -> Result<(), SandboxError> {
    for name in dir.names()? {
        let target = to.join(&name);
        match dir.child(&name)? {
            None => {}
            Some(Node::Dir(inner)) => {
                std::fs::create_dir(&target).map_err(|error| failed("create", &target, &error))?;
                link_all(&inner, &target)?;
                super::disk::give_to_sandbox(&target)?;
                let mode = inner.meta()?.permissions();
                std::fs::set_permissions(&target, mode)
                    .map_err(|error| failed("create", &target, &error))?;
            }
            Some(Node::Leaf(leaf)) => {
                std::fs::hard_link(leaf.whole(), &target)
                    .map_err(|error| failed("link", &target, &error))?;
            }
        }
    }
    Ok(())
}
