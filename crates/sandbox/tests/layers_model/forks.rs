//! Sandboxes forked from one point and at work at the same time: none sees another's change, and
//! what they were forked from stays as it is, to the last byte on the disk.

use super::history::{Chance, operations, script};
use super::holder::Holder;
use super::plain::{PERFORM, Plain};
use super::{Folder, judge};
use sandbox::layers::LayerStore;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use types::LayerId;

const FORKS: u64 = 8;
/// Operations, at most, that make the parent, and that each fork does in each round.
const OPERATIONS_MAX: u64 = 200;
const ROUNDS: u64 = 3;

/// All that is on the disk of a layer: names, inodes, dates of change.
fn on_disk(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata().unwrap();
        let changed = (meta.mtime(), meta.mtime_nsec(), meta.size(), meta.mode());
        found.push(format!("{} {} {changed:?}", path.display(), meta.ino()));
        if meta.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

/// One fork: its holder, the layer it has come to, and the directory it must be equal to.
struct Fork {
    holder: Holder,
    plain: Plain,
    layer: String,
    dir: std::path::PathBuf,
}

/// A file of its own, and the same path written differently by each, beside what chance does.
fn input(chance: &mut Chance, number: u64) -> String {
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let own = format!("create {} 2e {number}\n", hex(&format!("only-{number}")));
    let shared = format!("create {} 2e {}\n", hex("shared"), 1000 + number);
    // Directories stay open, so that all of the disk can be read.
    let random = script(&operations(chance, OPERATIONS_MAX), None);
    let open = random.lines().filter(|line| !line.starts_with("chmod"));
    own + &shared + &open.map(|line| format!("{line}\n")).collect::<String>()
}

impl Fork {
    fn new(home: &Path) -> Self {
        let plain = Plain::new();
        Self {
            holder: Holder::start(home, PERFORM),
            dir: plain.empty(),
            plain,
            layer: String::new(),
        }
    }
}

#[test]
fn forks_at_work_at_once_do_not_see_each_other() {
    let home = Folder::new();
    let mut chance = Chance::new(8);
    let mut first = Fork::new(&home.0);
    let empty = first.holder.ask("empty").unwrap();
    let upper = first.holder.ask(&format!("begin {empty}")).unwrap();
    let file = first.plain.file(&input(&mut chance, 100));
    let outside = first.plain.start(&first.dir, &file, PERFORM);
    judge::said(&first.holder.run(&upper, &file).unwrap(), &outside.end()).unwrap();
    first.holder.ask(&format!("seal {upper}")).unwrap();
    let parent = LayerId::parse(&upper).unwrap();
    let tree = judge::plain(&first.dir);
    let before = on_disk(&home.0.join("layers").join(&upper));
    let mut forks: Vec<Fork> = (0..FORKS)
        .map(|_| {
            let fork = Fork::new(&home.0);
            Fork { dir: fork.plain.copy(&first.dir), layer: upper.clone(), ..fork }
        })
        .collect();
    for _ in 0..ROUNDS {
        round(&mut forks, &mut chance);
    }
    let store = LayerStore::open(&home.0).unwrap();
    judge::compare(&tree, &judge::stored(&store, &parent, &tree).unwrap()).unwrap();
    assert_eq!(on_disk(&home.0.join("layers").join(&upper)), before, "the parent is as it was");
    let trees: Vec<_> = forks.iter().map(|fork| judge::plain(&fork.dir)).collect();
    for (number, (fork, tree)) in forks.iter().zip(&trees).enumerate() {
        let layer = LayerId::parse(&fork.layer).unwrap();
        judge::compare(tree, &judge::stored(&store, &layer, tree).unwrap()).unwrap();
        let others = (0..FORKS as usize).filter(|other| *other != number);
        for other in others {
            assert!(!tree.contains_key(&format!("only-{other}")), "{number} has what {other} made");
            let theirs = LayerId::parse(&forks[other].layer).unwrap();
            let told = store.changes(&layer, &theirs).unwrap();
            judge::changes(tree, &trees[other], &told).unwrap();
        }
    }
}

/// All at work at once, each in a sandbox of its own, held by a process of its own.
fn round(forks: &mut [Fork], chance: &mut Chance) {
    let mut started = Vec::new();
    for (number, fork) in forks.iter_mut().enumerate() {
        let upper = fork.holder.ask(&format!("begin {}", fork.layer)).unwrap();
        let file = fork.plain.file(&input(chance, number as u64));
        fork.dir = fork.plain.copy(&fork.dir);
        fork.holder.send(&format!("exec {upper} {}", file.display()));
        started.push((fork.plain.start(&fork.dir, &file, PERFORM), upper));
    }
    for (fork, (outside, upper)) in forks.iter_mut().zip(started) {
        judge::said(&fork.holder.output().unwrap(), &outside.end()).unwrap();
        fork.holder.ask(&format!("seal {upper}")).unwrap();
        fork.layer = upper;
    }
}
