//! Trees that are merged, and changed from outside, against a plain map of paths.

use sandbox::layers::{LayerStore, Merged, Revision, Side};
use sandbox::{FileKind, SandboxError};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use types::{Coded, LayerId};

/// A tree: a directory is `None`.
type Tree = BTreeMap<String, Option<Vec<u8>>>;

fn store() -> (tempfile::TempDir, LayerStore) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = LayerStore::open(dir.path()).expect("opened");
    (dir, store)
}

fn write(path: &str, text: &str) -> Revision {
    Revision::Write { path: path.to_owned(), bytes: text.as_bytes().to_vec() }
}

fn remove(path: &str) -> Revision {
    Revision::Remove { path: path.to_owned() }
}

fn read(store: &LayerStore, layer: &LayerId) -> Tree {
    let files = store.list_files(layer).expect("listed");
    let entry = |path: String, kind| {
        let bytes = (kind == FileKind::File).then(|| {
            let mut bytes = Vec::new();
            let mut file = store.open_file(layer, &path).expect("opened");
            file.read_to_end(&mut bytes).expect("read");
            bytes
        });
        (path, bytes)
    };
    files.into_iter().map(|file| entry(file.path, file.kind)).collect()
}

fn above(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// Numbers that look like chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Changes that a tree allows, and the tree after them.
fn changes(chance: &mut Chance, tree: &Tree) -> (Vec<Revision>, Tree) {
    const NAMES: [&str; 7] = ["a", "b", "a/b", "a/c", "b/a", "a/b/c", "c/a"];
    let (mut list, mut tree) = (Vec::new(), tree.clone());
    for _ in 0..1 + chance.below(4) {
        let path = NAMES[chance.below(NAMES.len() as u64) as usize];
        if chance.below(3) == 0 && tree.contains_key(path) {
            tree.retain(|other, _| other != path && !is_below(other, path));
            list.push(remove(path));
            continue;
        }
        let shut = above(path).any(|dir| tree.get(dir).is_some_and(Option::is_some));
        if shut || tree.get(path).is_some_and(Option::is_none) {
            continue;
        }
        let text = format!("{}", chance.below(3));
        above(path).for_each(|dir| drop(tree.insert(dir.to_owned(), None)));
        tree.insert(path.to_owned(), Some(text.clone().into_bytes()));
        list.push(write(path, &text));
    }
    (list, tree)
}

fn changed(from: &Tree, to: &Tree) -> BTreeSet<String> {
    let paths: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    paths.into_iter().filter(|path| from.get(*path) != to.get(*path)).cloned().collect()
}

/// Paths of ours that cannot be brought to theirs.
fn expected_conflicts(base: &Tree, ours: &Tree, theirs: &Tree) -> BTreeSet<String> {
    let (mine, others) = (changed(base, ours), changed(base, theirs));
    let is_dir = |tree: &Tree, path: &str| tree.get(path).is_some_and(Option::is_none);
    let collides = |path: &&String| {
        let path = path.as_str();
        let same = others.contains(path) && ours.get(path) != theirs.get(path);
        let shut = ours.contains_key(path)
            && above(path).any(|dir| others.contains(dir) && !is_dir(theirs, dir));
        let held = !is_dir(ours, path)
            && others.iter().any(|other| is_below(other, path) && theirs.contains_key(other));
        same || shut || held
    };
    mine.iter().filter(collides).cloned().collect()
}

#[test]
fn a_merge_has_what_either_side_changed_or_names_the_conflict() {
    let (_dir, store) = store();
    let (mut merges, mut refusals) = (0, 0);
    for seed in 1..=200 {
        let mut chance = Chance(u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15));
        let empty = store.empty().expect("made");
        let (list, base) = changes(&mut chance, &Tree::new());
        let base_layer = store.revise(&empty, &list).expect("revised");
        assert_eq!(read(&store, &base_layer), base, "seed {seed}");
        let sides = [(); 2].map(|()| {
            let (list, tree) = changes(&mut chance, &base);
            (store.revise(&base_layer, &list).expect("revised"), tree)
        });
        let [(our_layer, ours), (their_layer, theirs)] = &sides;
        let merge = |prefer| store.merge(&base_layer, our_layer, their_layer, prefer);
        let conflicts = expected_conflicts(&base, ours, theirs);
        let (mine, others) = (changed(&base, ours), changed(&base, theirs));
        let layer = match merge(None).expect("merged") {
            Merged::Conflicts(named) => {
                assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), conflicts, "seed {seed}");
                refusals += 1;
                None
            }
            Merged::Layer { layer, changed } => {
                assert_eq!(conflicts, BTreeSet::new(), "seed {seed}");
                let brought = mine.difference(&others).count();
                assert_eq!(changed, brought as u64, "seed {seed}");
                merges += 1;
                Some(layer)
            }
        };
        let has = |layer: &LayerId, paths: &BTreeSet<String>, tree: &Tree| {
            let merged = read(&store, layer);
            for path in paths {
                assert_eq!(merged.get(path), tree.get(path), "seed {seed}: {path}");
            }
            for path in merged.keys() {
                assert!(above(path).all(|dir| merged.get(dir) == Some(&None)), "seed {seed}");
            }
        };
        if let Some(layer) = layer {
            has(&layer, &mine, ours);
            has(&layer, &others, theirs);
            let untouched = base.keys().filter(|p| !mine.contains(*p) && !others.contains(*p));
            has(&layer, &untouched.cloned().collect(), &base);
        }
        for (side, paths, tree) in [(Side::Ours, &mine, ours), (Side::Theirs, &others, theirs)] {
            let Merged::Layer { layer, .. } = merge(Some(side)).expect("merged") else {
                panic!("seed {seed}: somebody decided");
            };
            has(&layer, paths, tree);
        }
        assert_eq!(read(&store, our_layer), *ours, "seed {seed}: a layer never changes");
        assert_eq!(read(&store, their_layer), *theirs, "seed {seed}: a layer never changes");
    }
    assert!(merges > 25 && refusals > 25, "{merges} merges, {refusals} refusals");
}

#[test]
fn a_change_from_outside_stays_in_its_tree() {
    let (dir, store) = store();
    let empty = store.empty().expect("made");
    let layer = store.revise(&empty, &[write("a/b", "x"), write("c", "y")]).expect("revised");
    let refused = |revision: Revision, code: &str| {
        let error: SandboxError = store.revise(&layer, &[revision]).expect_err("refused");
        assert_eq!(error.code(), code, "{error}");
    };
    let outside = ["../x", "/x", "a/../../x", "", ".", "a/.."];
    for path in outside {
        refused(write(path, "x"), "BP-SANDBOX-024");
        refused(remove(path), "BP-SANDBOX-024");
    }
    refused(write("a", "x"), "BP-SANDBOX-020");
    refused(write("c/d", "x"), "BP-SANDBOX-020");
    refused(remove("d"), "BP-SANDBOX-019");
    let left: Vec<_> = std::fs::read_dir(dir.path().join("uppers")).expect("listed").collect();
    assert!(left.is_empty(), "what was refused left {left:?}");
    let again = store.revise(&layer, &[write("a/b", "z"), remove("c")]).expect("revised");
    let tree = read(&store, &again);
    assert_eq!(tree["a/b"].as_deref(), Some(&b"z"[..]));
    assert_eq!(tree.len(), 2);
    assert_eq!(
        read(&store, &layer)["a/b"].as_deref(),
        Some(&b"x"[..]),
        "the one before is as it was"
    );
}
