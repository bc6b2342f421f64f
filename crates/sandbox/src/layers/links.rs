//! Hard links of a lower layer, when one of them was written.
//!
//! Overlayfs keeps them one file (`index=on`): it copies the file up at the written name, and finds
//! it for the other names by an index beside the upper. A layer has no index, so before an upper
//! becomes one, the other names are linked in it. An ordinary user's overlay has no index, and
//! breaks such links as it writes.

use super::view::{Node, View};
use super::{WORK, at, attributes, tree};
use crate::SandboxError;
use crate::mode::Mode;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where overlayfs keeps its index.
const INDEX: &str = "index";

/// Links every name of a file that was copied up. `dir` holds the upper and its work directory, and
/// nothing is mounted on it; `upper` is the upper and `above` the merged view of it.
pub(super) fn complete(
    mode: Mode,
    dir: &Path,
    upper: &Path,
    above: &View,
) -> Result<(), SandboxError> {
    let copied = match mode {
        Mode::Root => copied(&dir.join(WORK).join(INDEX))?,
        Mode::User => Vec::new(),
    };
    if copied.is_empty() {
        return Ok(());
    }
    let mut missing: Vec<(PathBuf, PathBuf)> = Vec::new();
    above.visit(&mut |path, node| {
        if let Node::Leaf(real, meta) = node
            && meta.is_file()
            && meta.nlink() > 1
            && !real.starts_with(upper)
            && let Some(handle) = crate::sys::file_handle(real)
            && let Some(entry) = copied.iter().find(|entry| entry.is_of(&handle))
        {
            missing.push((path.to_owned(), entry.path.clone()));
        }
        Ok(())
    })?;
    let mut filled = BTreeMap::new();
    for (path, entry) in missing {
        parents(&path, upper, above, &mut filled)?;
        let name = upper.join(&path);
        at("link", &name, fs::hard_link(&entry, &name))?;
    }
    // Last and deepest first, because filling a directory dates it.
    filled.iter().rev().try_for_each(|(dir, node)| attributes::dress(mode, node, dir))
}

/// A file of the index: its name ends with the handle of the lower file, in hexadecimal.
struct Copied {
    name: Vec<u8>,
    path: PathBuf,
}

impl Copied {
    fn is_of(&self, handle: &[u8]) -> bool {
        let hex: String = handle.iter().map(|byte| format!("{byte:02x}")).collect();
        !hex.is_empty() && self.name.ends_with(hex.as_bytes())
    }
}

/// Files that were copied up under several names; none, when there never was an index.
fn copied(index: &Path) -> Result<Vec<Copied>, SandboxError> {
    if !index.is_dir() {
        return Ok(Vec::new());
    }
    let files = tree::entries(index)?.into_iter().filter(|entry| entry.meta.is_file());
    let copied = |entry: tree::Entry| {
        let name = entry.name.as_bytes().to_vec();
        Copied { name, path: entry.path }
    };
    Ok(files.map(copied).collect())
}

/// Makes the directories above a path in the upper, as merged ones, and notes what they were.
fn parents(
    path: &Path,
    upper: &Path,
    above: &View,
    filled: &mut BTreeMap<PathBuf, Node>,
) -> Result<(), SandboxError> {
    let mut dirs: Vec<&Path> = path.ancestors().skip(1).collect();
    dirs.reverse();
    for dir in dirs {
        let real = upper.join(dir);
        if filled.contains_key(&real) {
            continue;
        }
        let Some(node @ Node::Dir(..)) = above.find(dir)? else {
            unreachable!("what is above a file of a view is a directory of it");
        };
        if real.symlink_metadata().is_err() {
            at("create", &real, fs::create_dir(&real))?;
        }
        filled.insert(real, node);
    }
    Ok(())
}
