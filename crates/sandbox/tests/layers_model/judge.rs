//! Judges layers by plain directories: reads both, and says what differs. Knows nothing of what was
//! done to them.

use sandbox::FileKind;
use sandbox::layers::{Change, ChangeKind, LayerStore};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use types::LayerId;

/// What an operation dates is older than this, seconds; all else is "now".
const NOW: i64 = 1_500_000_000;

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    /// Seconds, if it was given a date.
    pub(crate) date: Option<i64>,
    pub(crate) size: u64,
    /// Stands for its bytes, its target, or what special file it is.
    pub(crate) held: u64,
}

/// By path, as a report writes it. The top is "".
pub(crate) type Tree = BTreeMap<String, Entry>;

fn digest(held: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    held.hash(&mut hasher);
    hasher.finish()
}

fn date(path: &str, seconds: i64) -> Option<i64> {
    (seconds < NOW && !path.is_empty()).then_some(seconds)
}

/// Reads a file or directory of ours even if its mode shuts us out: it is opened for the moment.
fn opened<T>(path: &Path, meta: &Metadata, mut read: impl FnMut() -> io::Result<T>) -> T {
    let mode = meta.permissions().mode() & 0o7777;
    let shut = mode & 0o500 != 0o500;
    if shut {
        fs::set_permissions(path, Permissions::from_mode(mode | 0o700)).unwrap();
    }
    let result = read().unwrap();
    if shut {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    result
}

/// Reads a directory of the host.
pub(crate) fn plain(root: &Path) -> Tree {
    let mut tree = Tree::new();
    read_plain(root, root, &mut tree);
    tree
}

fn read_plain(root: &Path, path: &Path, tree: &mut Tree) {
    let meta = path.symlink_metadata().unwrap();
    let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
    let file_type = meta.file_type();
    let (kind, size, held) = if meta.is_dir() {
        (FileKind::Dir, 0, 0)
    } else if meta.is_symlink() {
        let target = fs::read_link(path).unwrap();
        (FileKind::Symlink, meta.len(), digest(&target.as_os_str().as_bytes()))
    } else if meta.is_file() {
        let bytes = opened(path, &meta, || fs::read(path));
        (FileKind::File, meta.len(), digest(&bytes))
    } else {
        assert!(file_type.is_fifo() || file_type.is_socket(), "{}", path.display());
        (FileKind::Other, 0, digest(&file_type.is_fifo()))
    };
    let mode = meta.permissions().mode() & 0o7777;
    tree.insert(name.clone(), Entry { kind, mode, date: date(&name, meta.mtime()), size, held });
    if meta.is_dir() {
        opened(path, &meta, || {
            for entry in fs::read_dir(path)? {
                read_plain(root, &entry?.path(), tree);
            }
            Ok(())
        });
    }
}

/// Reads a layer as the store does. What the store cannot say is taken from `plain`: which special
/// file it is, and what a file holds whose name is no text.
pub(crate) fn stored(store: &LayerStore, layer: &LayerId, plain: &Tree) -> Result<Tree, String> {
    let mut tree = Tree::new();
    let list = store.list_files(layer).map_err(|error| error.to_string())?;
    for path in list.iter().map(|stat| stat.path.as_str()).chain([""]) {
        let expected = plain.get(path).map_or(0, |entry| entry.held);
        let read = if path.contains('\u{fffd}') {
            let stat = list.iter().find(|stat| stat.path == path).ok_or("not listed")?;
            Entry {
                kind: stat.kind,
                mode: stat.mode,
                date: date(path, stat.mtime),
                size: if stat.kind == FileKind::Dir { 0 } else { stat.size },
                held: expected,
            }
        } else {
            read_stored(store, layer, path, expected)?
        };
        if tree.insert(path.to_owned(), read).is_some() {
            return Err(format!("{path:?} is listed twice"));
        }
    }
    Ok(tree)
}

fn read_stored(
    store: &LayerStore,
    layer: &LayerId,
    path: &str,
    expected: u64,
) -> Result<Entry, String> {
    let fail = |error: &dyn ToString| format!("{path:?}: {}", error.to_string());
    let found = store.entry(layer, path).map_err(|error| fail(&error))?;
    let (stat, target) = found.ok_or_else(|| fail(&"listed, and not there"))?;
    let held = match stat.kind {
        FileKind::File => {
            let mut bytes = Vec::new();
            let mut file = store.open_file(layer, path).map_err(|error| fail(&error))?;
            file.read_to_end(&mut bytes).map_err(|error| fail(&error))?;
            digest(&bytes)
        }
        FileKind::Symlink => {
            let target = target.ok_or_else(|| fail(&"a link without a target"))?;
            digest(&target.as_os_str().as_bytes())
        }
        FileKind::Dir => 0,
        FileKind::Other => expected,
    };
    let sized = matches!(stat.kind, FileKind::File | FileKind::Symlink);
    let size = if sized { stat.size } else { 0 };
    Ok(Entry { kind: stat.kind, mode: stat.mode, date: date(path, stat.mtime), size, held })
}

/// Where two trees differ, for a reader.
pub(crate) fn compare(expected: &Tree, found: &Tree) -> Result<(), String> {
    let paths: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differ = |path: &&&String| expected.get(**path) != found.get(**path);
    let lines: Vec<String> = paths
        .iter()
        .filter(differ)
        .map(|path| {
            format!("{path:?}: {:?}, but plain {:?}", found.get(*path), expected.get(*path))
        })
        .collect();
    if lines.is_empty() { Ok(()) } else { Err(lines.join("\n")) }
}

/// Paths with a letter each, from the plain trees alone. A rename is a removal and an addition.
pub(crate) fn differences(old: &Tree, new: &Tree) -> BTreeSet<(char, String)> {
    let mut found = BTreeSet::new();
    for (path, was) in old {
        let letter = match new.get(path) {
            None => 'D',
            Some(is) if (is.kind, is.size, is.held) != (was.kind, was.size, was.held) => 'M',
            Some(is) if is.mode != was.mode => 'P',
            Some(_) => continue,
        };
        found.insert((letter, path.clone()));
    }
    let added = new.keys().filter(|path| !old.contains_key(*path));
    found.extend(added.map(|path| ('A', path.clone())));
    found
}

/// Whether the changes that the store tells between two layers are those between the plain trees.
pub(crate) fn changes(old: &Tree, new: &Tree, told: &[Change]) -> Result<(), String> {
    let mut found = BTreeSet::new();
    let mut add = |letter: char, path: &String| match found.insert((letter, path.clone())) {
        true => Ok(()),
        false => Err(format!("{letter} {path:?} is told twice")),
    };
    for change in told {
        let ChangeKind::Renamed { from } = &change.kind else {
            add(change.kind.letter(), &change.path)?;
            continue;
        };
        let (was, is) = (old.get(from), new.get(&change.path));
        let same = was.zip(is).is_some_and(|(was, is)| (was.size, was.held) == (is.size, is.held));
        if !same {
            return Err(format!("{from:?} was not renamed to {:?}", change.path));
        }
        add('D', from)?;
        add('A', &change.path)?;
    }
    let expected = differences(old, new);
    if found == expected {
        return Ok(());
    }
    let (missing, wrong): (Vec<_>, Vec<_>) =
        (expected.difference(&found).collect(), found.difference(&expected).collect());
    Err(format!("the diff lacks {missing:?} and wrongly has {wrong:?}"))
}

/// A line without which names are one file: to an ordinary user's overlay that lasts for a step, and
/// the plain directory has broken them at its beginning.
fn comparable(line: &str) -> String {
    let mut words: Vec<&str> = line.split(' ').collect();
    if words.len() > 4 && !super::is_root() {
        words[4] = "-";
    }
    words.join(" ")
}

/// Lines that two programs said, one inside and one on the host.
pub(crate) fn said(inside: &[String], outside: &[String]) -> Result<(), String> {
    let [inside, outside] = [inside, outside]
        .map(|lines| lines.iter().map(|line| comparable(line)).collect::<Vec<_>>());
    if inside == outside {
        return Ok(());
    }
    let lines = inside.iter().map(|line| ('+', line)).filter(|(_, line)| !outside.contains(line));
    let more = outside.iter().map(|line| ('-', line)).filter(|(_, line)| !inside.contains(line));
    let text: Vec<String> =
        lines.chain(more).take(60).map(|(sign, line)| format!("{sign} {line}")).collect();
    Err(format!("inside (+) and plain (-):\n{}", text.join("\n")))
}

/// Whether a step left all as it was, but for dates of directories: what need not become a layer.
pub(crate) fn unaltered(said: &[String]) -> bool {
    let look = |when: &str| -> Vec<String> {
        let lines = said.iter().filter_map(|line| line.strip_prefix(when));
        let undated = |line: &str| {
            let mut words: Vec<&str> = line.split(' ').collect();
            if words.get(2).is_some_and(|mode| mode.starts_with("4")) {
                words[3] = "-";
            }
            words.join(" ")
        };
        lines.map(undated).collect()
    };
    look("before") == look("after")
}
