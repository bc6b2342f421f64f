//! What a program may have written on a file beside its content: extended attributes and a date.

use super::view::Node;
use super::{at, tree};
use crate::SandboxError;
use crate::mode::Mode;
use rustix::fs::XattrFlags;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// The attributes a program can write. What begins as the overlay's marks do, is none of them.
const WRITTEN: &str = "user.";
/// Bytes of the names, and of one value, that Linux allows.
const BYTES_MAX: usize = 64 << 10;

/// The attributes of a file or directory that a program has written.
fn of(mode: Mode, path: &Path) -> Result<BTreeMap<String, Vec<u8>>, SandboxError> {
    let read = || -> io::Result<BTreeMap<String, Vec<u8>>> {
        let mut names = vec![0; BYTES_MAX];
        let count = match rustix::fs::llistxattr(path, &mut names[..]) {
            Err(rustix::io::Errno::NOTSUP) => 0,
            other => other?,
        };
        let mut found = BTreeMap::new();
        for name in names[..count].split(|byte| *byte == 0) {
            // Attributes of a program have names that are text, or none that we can carry.
            let Ok(name) = std::str::from_utf8(name) else { continue };
            if name.starts_with(WRITTEN) && !name.starts_with(mode.xattr_prefix()) {
                let mut value = vec![0; BYTES_MAX];
                let count = rustix::fs::lgetxattr(path, name, &mut value[..])?;
                value.truncate(count);
                found.insert(name.to_owned(), value);
            }
        }
        Ok(found)
    };
    at("read", path, tree::opened(path, read))
}

/// Makes a directory of ours look as one of a layer: owner, attributes, permissions and dates.
pub(super) fn dress(mode: Mode, from: &Node, to: &Path) -> Result<(), SandboxError> {
    tree::give_away(mode, to)?;
    for (name, value) in of(mode, from.real())? {
        let set = || Ok(rustix::fs::lsetxattr(to, &name, &value, XattrFlags::empty())?);
        at("write", to, tree::opened(to, set))?;
    }
    super::import::copy_attributes(to, from.meta())?;
    // A program's own set-gid bit is kept, where an import's is not.
    let bits = fs::Permissions::from_mode(from.meta().permissions().mode() & 0o7777);
    at("protect", to, fs::set_permissions(to, bits))
}

/// Whether two entries that hold the same differ in what stands beside. Dates of directories do
/// not count: whatever is made and removed in one dates it. Rather too often than never for a file
/// of several names, because which of them are one file is written nowhere.
pub(super) fn differ(mode: Mode, old: &Node, new: &Node) -> Result<bool, SandboxError> {
    let (before, after) = (old.meta(), new.meta());
    if (before.dev(), before.ino()) == (after.dev(), after.ino()) {
        return Ok(false);
    }
    if let (Node::Leaf(..), Node::Leaf(..)) = (old, new) {
        let date = |meta: &fs::Metadata| (meta.mtime(), meta.mtime_nsec());
        if date(before) != date(after) || before.nlink() > 1 || after.nlink() > 1 {
            return Ok(true);
        }
    }
    Ok(of(mode, old.real())? != of(mode, new.real())?)
}
