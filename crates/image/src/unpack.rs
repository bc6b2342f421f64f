//! One layer unpacked below a directory, which is empty at first.
//!
//! Runs in a confined process whose root holds nothing else. Even so nothing here relies on that:
//! every path is taken apart and checked, and opened beneath the directory without following any
//! link. What a layer hides of those below it becomes an overlay's marks at the end: a character
//! device 0:0 for one name, an attribute for a whole directory.
//!
//! What always holds: what a layer may not hold refuses the layer; nothing is left out silently but
//! attributes that are not `user.*` and bits that make programs privileged.

use crate::ImageError;
use crate::error::quoted;
use crate::limits::LayerLimits;
use crate::packed::{self, carried};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use tar::EntryType;

/// Permission bits that are kept: nothing set-uid or set-gid.
const MODE_KEPT: u32 = 0o1777;
/// Of a directory that a layer does not describe.
const MODE_IMPLICIT: u32 = 0o755;
/// While a layer is unpacked.
const MODE_OPEN: Mode = Mode::RWXU;
/// What marks a name that the layer hides.
const HIDES: &[u8] = b".wh.";
/// What marks a directory whose content below is hidden.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Notes of an old storage driver, which mean nothing to others.
const NOTES: [&[u8]; 3] = [b".wh..wh.aufs", b".wh..wh.orph", b".wh..wh.plnk"];
/// An overlay's own attributes, which no layer may bring.
const OVERLAY_ATTRIBUTES: &str = "user.overlay.";
const OPAQUE_ATTRIBUTE: &str = "user.overlay.opaque";
const XATTR_PREFIX: &str = "SCHILY.xattr.";
/// Bytes of one name and of one attribute's value, as the kernel has them.
const NAME_BYTES_MAX: usize = 255;
const XATTR_BYTES_MAX: usize = 64 << 10;
/// Zeros of at least this many bytes, so aligned, become a hole.
const HOLE_BYTES: usize = 4096;
const CHUNK_BYTES: usize = 64 << 10;
/// The last second a time may be of: far beyond any file's.
const SECONDS_MAX: u64 = 1 << 40;

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unpacked {
    /// Bytes of its files.
    pub bytes: u64,
    /// Entries.
    pub entries: u64,
    /// Whether it hides everything below it.
    pub opaque: bool,
    /// Directories that it writes into without having one of its own there, relative.
    pub implicit: Vec<String>,
}

struct DirFacts {
    mode: u32,
    mtime: u64,
    implicit: bool,
}

/// What an entry says beside its content.
struct Facts {
    path: Vec<u8>,
    parts: Vec<Vec<u8>>,
    link: Vec<u8>,
    mode: u32,
    mtime: u64,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// A layer on its way into a directory.
pub(crate) struct Tree<'a> {
    root: &'a OwnedFd,
    limits: &'a LayerLimits,
    done: Unpacked,
    paths_bytes: u64,
    /// Directories made, by their path; the root is the empty one.
    dirs: BTreeMap<Vec<u8>, DirFacts>,
    /// Names that are hidden, and directories whose content below is.
    hidden: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    /// The directory that was written to last.
    last: Option<(Vec<u8>, OwnedFd)>,
}

/// Unpacks a tar below `root`.
pub(crate) fn unpack(
    tar: impl Read,
    root: &OwnedFd,
    limits: &LayerLimits,
) -> Result<Unpacked, ImageError> {
    let mut tree = Tree {
        root,
        limits,
        done: Unpacked::default(),
        paths_bytes: 0,
        dirs: BTreeMap::new(),
        hidden: BTreeSet::new(),
        opaque: BTreeSet::new(),
        last: None,
    };
    let mut archive = tar::Archive::new(tar);
    let damaged = |error: &std::io::Error| {
        carried(error, |why| ImageError::Damaged { what: "a layer".to_owned(), why })
    };
    for entry in archive.entries().map_err(|error| damaged(&error))? {
        tree.take(&mut entry.map_err(|error| damaged(&error))?)?;
    }
    tree.settle()
}

/// A failure of the directory we write to, which is no fault of the layer.
fn disk(path: &[u8], error: Errno) -> ImageError {
    ImageError::Store {
        action: "unpack".to_owned(),
        path: std::path::PathBuf::from(quoted(path)),
        why: error.to_string(),
    }
}

fn hostile_path(path: &[u8], why: &str) -> ImageError {
    ImageError::Path { path: quoted(path), why: why.to_owned() }
}

fn hostile_link(path: &[u8], why: impl ToString) -> ImageError {
    ImageError::Link { path: quoted(path), why: why.to_string() }
}

/// The parts of a path, checked. The root has none.
fn parts(path: &[u8], limits: &LayerLimits) -> Result<Vec<Vec<u8>>, ImageError> {
    if path.len() as u64 > limits.path_bytes {
        return Err(ImageError::limit("bytes in a path", limits.path_bytes));
    }
    if path.starts_with(b"/") {
        return Err(hostile_path(path, "is absolute"));
    }
    if path.contains(&0) {
        return Err(hostile_path(path, "holds a NUL"));
    }
    let parts = path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    if parts.iter().any(|part| part == b"..") {
        return Err(hostile_path(path, "leads upward"));
    }
    if parts.iter().any(|part| part.len() > NAME_BYTES_MAX) {
        return Err(ImageError::limit("bytes in a name", NAME_BYTES_MAX as u64));
    }
    if parts.len() as u64 > limits.depth {
        return Err(ImageError::limit("directories in a path", limits.depth));
    }
    Ok(parts)
}

impl Facts {
    fn of(entry: &mut tar::Entry<'_, impl Read>, limits: &LayerLimits) -> Result<Self, ImageError> {
        let damaged = |error: std::io::Error| {
            carried(&error, |why| ImageError::Damaged { what: "a layer".to_owned(), why })
        };
        let path = entry.path_bytes().into_owned();
        let link = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
        let mut xattrs = Vec::new();
        if let Some(list) = entry.pax_extensions().map_err(damaged)? {
            for extension in list {
                let extension = extension.map_err(damaged)?;
                let name = extension.key().ok().and_then(|key| key.strip_prefix(XATTR_PREFIX));
                let Some(name) = name.filter(|name| {
                    name.starts_with("user.") && !name.starts_with(OVERLAY_ATTRIBUTES)
                }) else {
                    continue;
                };
                if extension.value_bytes().len() > XATTR_BYTES_MAX {
                    return Err(ImageError::limit("bytes in an attribute", XATTR_BYTES_MAX as u64));
                }
                xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
        if xattrs.len() as u64 > limits.xattrs {
            return Err(ImageError::limit("attributes of an entry", limits.xattrs));
        }
        let parts = parts(&path, limits)?;
        let mode = entry.header().mode().map_err(damaged)? & MODE_KEPT;
        let mtime = entry.header().mtime().map_err(damaged)?.min(SECONDS_MAX);
        Ok(Self { path, parts, link, mode, mtime, xattrs })
    }

    fn name(&self) -> &[u8] {
        self.parts.last().map_or(b"", Vec::as_slice)
    }
}

fn times(mtime: u64) -> Timestamps {
    let time = Timespec { tv_sec: mtime.cast_signed(), tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

impl Tree<'_> {
    fn take(&mut self, entry: &mut tar::Entry<'_, impl Read>) -> Result<(), ImageError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        self.done.entries += 1;
        if self.done.entries > self.limits.entries {
            return Err(ImageError::limit("entries in a layer", self.limits.entries));
        }
        let facts = Facts::of(entry, self.limits)?;
        self.paths_bytes += (facts.path.len() + facts.link.len()) as u64;
        if self.paths_bytes > self.limits.paths_bytes {
            return Err(ImageError::limit("bytes in all its paths", self.limits.paths_bytes));
        }
        if facts.name().starts_with(HIDES) {
            return self.mark(&facts, kind);
        }
        match kind {
            EntryType::Directory => self.directory(&facts),
            _ if facts.parts.is_empty() => Err(hostile_path(&facts.path, "names no file")),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&facts, entry)
            }
            EntryType::Symlink => self.symlink(&facts),
            EntryType::Link => self.hard_link(&facts),
            EntryType::Fifo => self.fifo(&facts),
            other => Err(ImageError::Kind { path: quoted(&facts.path), kind: kind_name(other) }),
        }
    }

    /// The directory of these parts, made where it is not there.
    fn dir(&mut self, parts: &[Vec<u8>]) -> Result<OwnedFd, ImageError> {
        let path = parts.join(&b'/');
        if let Some((last, fd)) = &self.last
            && *last == path
        {
            return rustix::io::dup(fd).map_err(|error| disk(&path, error));
        }
        let fd = match open_dir(self.root, &path) {
            Err(Errno::NOENT) => self.make_dirs(parts)?,
            other => other.map_err(|error| not_a_directory(&path, error))?,
        };
        let copy = rustix::io::dup(&fd).map_err(|error| disk(&path, error))?;
        self.last = Some((path, copy));
        Ok(fd)
    }

    fn make_dirs(&mut self, parts: &[Vec<u8>]) -> Result<OwnedFd, ImageError> {
        let mut at = rustix::io::dup(self.root).map_err(|error| disk(b"", error))?;
        for end in 1..=parts.len() {
            let path = parts[..end].join(&b'/');
            let name = parts[end - 1].as_slice();
            match rustix::fs::mkdirat(&at, name, MODE_OPEN) {
                Ok(()) => {
                    let facts = DirFacts { mode: MODE_IMPLICIT, mtime: 0, implicit: true };
                    self.dirs.insert(path.clone(), facts);
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(disk(&path, error)),
            }
            at = open_dir(&at, name).map_err(|error| not_a_directory(&path, error))?;
        }
        Ok(at)
    }

    /// The directory an entry goes to, with nothing of its name in it.
    fn place(&mut self, facts: &Facts) -> Result<OwnedFd, ImageError> {
        let above = &facts.parts[..facts.parts.len() - 1];
        let dir = self.dir(above)?;
        self.clear(&dir, facts)?;
        Ok(dir)
    }

    /// Removes what an earlier entry of this name left; a directory only when it is empty.
    fn clear(&mut self, dir: &OwnedFd, facts: &Facts) -> Result<(), ImageError> {
        let name = facts.name();
        let removed = match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                self.last = None;
                self.dirs.remove(&facts.parts.join(&b'/'));
                rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
            }
            other => other,
        };
        match removed {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                Err(hostile_path(&facts.path, "would replace a directory that is not empty"))
            }
            Err(error) => Err(disk(&facts.path, error)),
        }
    }

    fn directory(&mut self, facts: &Facts) -> Result<(), ImageError> {
        let path = facts.parts.join(&b'/');
        if let Some((name, above)) = facts.parts.split_last() {
            let dir = self.dir(above)?;
            match rustix::fs::mkdirat(&dir, name.as_slice(), MODE_OPEN) {
                Err(Errno::EXIST) if open_dir(&dir, name).is_ok() => {}
                Err(Errno::EXIST) => {
                    // A link or file of this name was there before.
                    self.clear(&dir, facts)?;
                    rustix::fs::mkdirat(&dir, name.as_slice(), MODE_OPEN)
                        .map_err(|error| disk(&path, error))?;
                }
                other => other.map_err(|error| disk(&path, error))?,
            }
        }
        let fd = open_dir(self.root, &path).map_err(|error| not_a_directory(&path, error))?;
        set_xattrs(&fd, facts)?;
        let kept = DirFacts { mode: facts.mode, mtime: facts.mtime, implicit: false };
        self.dirs.insert(path, kept);
        Ok(())
    }

    fn file(&mut self, facts: &Facts, content: &mut impl Read) -> Result<(), ImageError> {
        let dir = self.place(facts)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&dir, facts.name(), flags | OFlags::NOFOLLOW, Mode::RUSR)
            .map_err(|error| disk(&facts.path, error))?;
        let mut file = std::fs::File::from(fd);
        self.write(&mut file, facts, content)?;
        set_xattrs(&file, facts)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(facts.mode))
            .and_then(|()| rustix::fs::futimens(&file, &times(facts.mtime)))
            .map_err(|error| disk(&facts.path, error))
    }

    /// Writes content and leaves holes where it is zero.
    fn write(
        &mut self,
        file: &mut std::fs::File,
        facts: &Facts,
        content: &mut impl Read,
    ) -> Result<(), ImageError> {
        let failed = |error: &std::io::Error| {
            ImageError::store("unpack", std::path::Path::new(&quoted(&facts.path)), error)
        };
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut size = 0u64;
        loop {
            let count = fill(content, &mut buffer).map_err(|error| {
                carried(&error, |why| ImageError::Damaged { what: "a layer".to_owned(), why })
            })?;
            if count == 0 {
                break;
            }
            size += count as u64;
            self.done.bytes += count as u64;
            if self.done.bytes > self.limits.bytes {
                return Err(ImageError::limit("bytes in a layer", self.limits.bytes));
            }
            for block in buffer[..count].chunks(HOLE_BYTES) {
                let zeros = block.len() == HOLE_BYTES && block.iter().all(|byte| *byte == 0);
                let done = match zeros {
                    true => file.seek(SeekFrom::Current(HOLE_BYTES as i64)).map(drop),
                    false => file.write_all(block),
                };
                done.map_err(|error| failed(&error))?;
            }
        }
        file.set_len(size).map_err(|error| failed(&error))
    }

    fn symlink(&mut self, facts: &Facts) -> Result<(), ImageError> {
        if facts.link.is_empty() || facts.link.contains(&0) {
            return Err(hostile_link(&facts.path, "the link leads to no path"));
        }
        if facts.link.len() as u64 > self.limits.path_bytes {
            return Err(ImageError::limit("bytes in a path", self.limits.path_bytes));
        }
        let dir = self.place(facts)?;
        rustix::fs::symlinkat(facts.link.as_slice(), &dir, facts.name())
            .and_then(|()| {
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::utimensat(&dir, facts.name(), &times(facts.mtime), flags)
            })
            .map_err(|error| disk(&facts.path, error))
    }

    /// A second name for what this layer has already; it is found without following a link.
    fn hard_link(&mut self, facts: &Facts) -> Result<(), ImageError> {
        let target = parts(&facts.link, self.limits).map_err(|error| match error {
            ImageError::Path { why, .. } => hostile_link(&facts.path, format!("its target {why}")),
            other => other,
        })?;
        let Some((name, above)) = target.split_last() else {
            return Err(hostile_link(&facts.path, "its target is the root"));
        };
        if target == facts.parts {
            return Err(hostile_link(&facts.path, "it leads to itself"));
        }
        let missing = |error: Errno| match error {
            Errno::NOENT => hostile_link(&facts.path, "its target is not in this layer"),
            Errno::LOOP | Errno::NOTDIR => {
                hostile_link(&facts.path, "its target lies behind a link or a file")
            }
            other => hostile_link(&facts.path, other),
        };
        let from = open_dir(self.root, &above.join(&b'/')).map_err(missing)?;
        let dir = self.place(facts)?;
        rustix::fs::linkat(&from, name.as_slice(), &dir, facts.name(), AtFlags::empty())
            .map_err(missing)
    }

    fn fifo(&mut self, facts: &Facts) -> Result<(), ImageError> {
        let dir = self.place(facts)?;
        let mode = Mode::from_raw_mode(facts.mode);
        rustix::fs::mknodat(&dir, facts.name(), FileType::Fifo, mode, 0)
            .map_err(|error| disk(&facts.path, error))
    }

    /// Notes what a layer hides of those below it.
    fn mark(&mut self, facts: &Facts, kind: EntryType) -> Result<(), ImageError> {
        if !matches!(kind, EntryType::Regular | EntryType::Continuous | EntryType::Link) {
            let kind = format!("{} with the name of a mark", kind_name(kind));
            return Err(ImageError::Kind { path: quoted(&facts.path), kind });
        }
        let (name, above) = facts.parts.split_last().expect("a name was found");
        let dir = above.join(&b'/');
        if name == OPAQUE {
            self.opaque.insert(dir);
            return Ok(());
        }
        if NOTES.contains(&name.as_slice()) {
            return Ok(());
        }
        let hidden = &name[HIDES.len()..];
        if matches!(hidden, b"" | b"." | b"..") || hidden.starts_with(HIDES) {
            return Err(hostile_path(&facts.path, "is a mark that hides nothing"));
        }
        let mut path = above.to_vec();
        path.push(hidden.to_vec());
        self.hidden.insert(path.join(&b'/'));
        Ok(())
    }

    /// Makes the marks, gives directories their attributes, and says what was done.
    fn settle(mut self) -> Result<Unpacked, ImageError> {
        for path in std::mem::take(&mut self.hidden) {
            self.hide(&path)?;
        }
        for path in std::mem::take(&mut self.opaque) {
            if path.is_empty() {
                self.done.opaque = true;
                continue;
            }
            let split: Vec<Vec<u8>> = path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
            let dir = self.dir(&split)?;
            make_opaque(&dir, &path)?;
        }
        for (path, facts) in self.dirs.iter().rev() {
            let dir = open_dir(self.root, path).map_err(|error| not_a_directory(path, error))?;
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(facts.mode))
                .and_then(|()| rustix::fs::futimens(&dir, &times(facts.mtime)))
                .map_err(|error| disk(path, error))?;
        }
        for (path, _) in self.dirs.iter().filter(|(_, facts)| facts.implicit) {
            let text = String::from_utf8(path.clone());
            let text = text.map_err(|_| hostile_path(path, "is not described, and no UTF-8"))?;
            self.done.implicit.push(text);
        }
        Ok(self.done)
    }

    /// Hides a name. What the layer itself has there stays: hidden is what lies below.
    fn hide(&mut self, path: &[u8]) -> Result<(), ImageError> {
        let split: Vec<Vec<u8>> = path.split(|b| *b == b'/').map(<[u8]>::to_vec).collect();
        let (name, above) = split.split_last().expect("a path has a part");
        let dir = self.dir(above)?;
        match rustix::fs::statat(&dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                let own = open_dir(&dir, name).map_err(|error| not_a_directory(path, error))?;
                make_opaque(&own, path)
            }
            Ok(_) => Ok(()),
            Err(Errno::NOENT) => {
                let kind = FileType::CharacterDevice;
                rustix::fs::mknodat(&dir, name.as_slice(), kind, Mode::empty(), 0)
                    .map_err(|error| disk(path, error))
            }
            Err(error) => Err(disk(path, error)),
        }
    }
}

fn make_opaque(dir: &OwnedFd, path: &[u8]) -> Result<(), ImageError> {
    rustix::fs::fsetxattr(dir, OPAQUE_ATTRIBUTE, b"y", XattrFlags::empty())
        .map_err(|error| disk(path, error))
}

fn set_xattrs(file: impl AsFd, facts: &Facts) -> Result<(), ImageError> {
    for (name, value) in &facts.xattrs {
        rustix::fs::fsetxattr(file.as_fd(), name.as_str(), value, XattrFlags::empty())
            .map_err(|error| disk(&facts.path, error))?;
    }
    Ok(())
}

/// Opens a directory without following a link; an empty path is `root` itself.
fn open_dir(root: &OwnedFd, path: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(
        root,
        if path.is_empty() { b".".as_slice() } else { path },
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
}

fn not_a_directory(path: &[u8], error: Errno) -> ImageError {
    match error {
        Errno::LOOP => hostile_link(path, "a directory above it is a link"),
        Errno::NOTDIR => hostile_link(path, "a directory above it is a link or a file"),
        other => disk(path, other),
    }
}

/// Reads until the buffer is full or the content ends.
fn fill(content: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match content.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn kind_name(kind: EntryType) -> String {
    match kind {
        EntryType::Char => "a character device".to_owned(),
        EntryType::Block => "a block device".to_owned(),
        EntryType::Directory => "a directory".to_owned(),
        EntryType::Symlink => "a symbolic link".to_owned(),
        EntryType::Fifo => "a FIFO".to_owned(),
        other => format!("of the unknown kind {:#x}", other.as_byte()),
    }
}

/// Everything about unpacking one packed layer: its bytes, both digests, its size.
pub(crate) fn layer(
    file: impl Read,
    order: &crate::order::Unpack,
    root: &OwnedFd,
) -> Result<Unpacked, ImageError> {
    let mut packed = packed::Hashing::new(file, order.bytes);
    let inside = {
        let mut plain =
            packed::Hashing::new(packed::plain(&mut packed, order.packing), order.limits.bytes);
        let unpacked = unpack(&mut plain, root, &order.limits);
        unpacked.and_then(|unpacked| {
            let damaged = |why| ImageError::Damaged { what: "a layer".to_owned(), why };
            let (digest, _) = plain.finish().map_err(|error| carried(&error, damaged))?;
            Ok((unpacked, digest))
        })
    };
    // What is not even the promised bytes is told as that, whatever else is wrong with it.
    let (digest, _) = packed.finish().map_err(|error| {
        carried(&error, |why| ImageError::Damaged { what: "a layer".to_owned(), why })
    })?;
    if let Some(expected) = order.digest.filter(|expected| *expected != digest) {
        return Err(mismatch("a packed layer", expected, digest));
    }
    let (unpacked, plain) = inside?;
    match plain == order.diff_id {
        true => Ok(unpacked),
        false => Err(mismatch("an unpacked layer", order.diff_id, plain)),
    }
}

fn mismatch(what: &str, expected: types::Digest, found: types::Digest) -> ImageError {
    ImageError::Mismatch {
        what: what.to_owned(),
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
