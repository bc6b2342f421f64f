//! Layers against plain directories. The same random operations go through a real sandbox and on a
//! directory of the host, and both must be equal: what the program is told, what it sees, what the
//! store reads, and what it says has changed between any two points. Who holds the layers is
//! killed in between, again and again.
//!
//! `BEDPLATE_LAYER_OPERATIONS` says how many operations, `BEDPLATE_LAYER_SEED` which. How overlays
//! deviate from a plain directory stands in `docs/worlds.md`, and is shown by `deviations.rs`.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "a failing history is for people")]

mod deviations;
mod forks;
mod history;
mod holder;
mod judge;
mod plain;
mod posix;

use history::{End, KEPT, Operation, Step, Then};
use holder::Holder;
use judge::Tree;
use plain::{PERFORM, Plain};
use sandbox::layers::{LayerStore, SQUASH_DEPTH, remove_tree};
use std::path::PathBuf;
use types::LayerId;

/// Operations of one run of the test, unless somebody asks for more.
const OPERATIONS: u64 = 2_500;
/// Operations of one history: each begins with nothing.
const HISTORY: usize = 2_500;
const SEED: u64 = 1;
/// Runs of a failing history to make it short.
const SHRINK_TRIES: usize = 60;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A directory of its own, removed even if it holds directories that are shut.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap().keep();
        // The ordinary user that root plays passes through it.
        std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .unwrap();
        Self(dir)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Where a test fails something may still be at work in it.
        if let Err(error) = remove_tree(&self.0) {
            println!("{error}");
        }
    }
}

/// A layer, and the directory that it must be equal to.
#[derive(Clone)]
struct Point {
    layer: LayerId,
    dir: PathBuf,
    tree: Tree,
}

/// How often what happened.
#[derive(Debug, Default, Clone, Copy)]
struct Counts {
    sealed: usize,
    unchanged: usize,
    killed: usize,
    dropped: usize,
    back: usize,
    forked: usize,
    flattened: usize,
}

impl Counts {
    const fn add(&mut self, other: Self) {
        self.sealed += other.sealed;
        self.unchanged += other.unchanged;
        self.killed += other.killed;
        self.dropped += other.dropped;
        self.back += other.back;
        self.forked += other.forked;
        self.flattened += other.flattened;
    }

    /// Whether everything happened at least once.
    fn is_whole(&self) -> bool {
        let Self { sealed, unchanged, killed, dropped, back, forked, flattened } = *self;
        [sealed, unchanged, killed, dropped, back, forked, flattened].iter().all(|n| *n > 0)
    }
}

struct Model {
    // Dropped first: it works in the others.
    holder: Holder,
    home: Folder,
    plain: Plain,
    points: Vec<Point>,
    counts: Counts,
}

impl Model {
    fn new() -> Result<Self, String> {
        let (home, plain) = (Folder::new(), Plain::new());
        let mut holder = Holder::start(&home.0, PERFORM);
        let layer = LayerId::parse(&holder.ask("empty")?).unwrap();
        let dir = plain.empty();
        let tree = judge::plain(&dir);
        let points = vec![Point { layer, dir, tree }];
        Ok(Self { home, plain, holder, points, counts: Counts::default() })
    }

    /// Reads what is on the disk, beside the holder.
    fn store(&self) -> LayerStore {
        LayerStore::open(&self.home.0).unwrap()
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        let from =
            self.points[self.points.len() - 1 - step.back.min(self.points.len() - 1)].clone();
        self.counts.back += usize::from(step.back > 0);
        self.counts.forked += step.branches.len() - 1;
        let mut uppers = Vec::new();
        for _ in &step.branches {
            uppers.push(self.holder.ask(&format!("begin {}", from.layer))?);
        }
        let (last, before) = step.branches.split_last().expect("a step has a branch");
        let (upper, earlier) = uppers.split_last().expect("and an upper");
        let mut ended = Vec::new();
        for (upper, operations) in earlier.iter().zip(before) {
            ended.push((upper.clone(), self.work(&from, upper, operations)?));
        }
        match step.end {
            End::KillBefore(stop) => {
                let file = self.plain.file(&history::script(last, Some(stop)));
                self.holder.send(&format!("exec {upper} {}", file.display()));
                self.holder.wait_for("stopped")?;
                self.kill()
            }
            End::KillAtWork => {
                let file = self.plain.file(&history::script(last, None));
                self.holder.send(&format!("exec {upper} {}", file.display()));
                self.kill()
            }
            End::Drop => {
                self.work(&from, upper, last)?;
                for upper in &uppers {
                    self.holder.ask(&format!("discard {upper}"))?;
                }
                self.counts.dropped += 1;
                self.intact()
            }
            End::Seal => {
                ended.push((upper.clone(), self.work(&from, upper, last)?));
                // The later one first.
                ended.into_iter().rev().try_for_each(|(upper, done)| self.seal(&from, &upper, done))
            }
            End::KillSealing => {
                let done = self.work(&from, upper, last)?;
                self.holder.send(&format!("seal {upper}"));
                self.kill()?;
                let layer = LayerId::parse(upper).unwrap();
                match self.store().stack(&layer) {
                    Ok(_) => self.sealed(&from, layer, done),
                    Err(_) => Ok(()),
                }
            }
        }
    }

    /// Operations on an upper and on a copy of the plain directory: both must say the same.
    fn work(
        &mut self,
        from: &Point,
        upper: &str,
        operations: &[Operation],
    ) -> Result<Done, String> {
        let file = self.plain.file(&history::script(operations, None));
        let dir = self.plain.copy(&from.dir);
        let outside = self.plain.start(&dir, &file, PERFORM);
        let inside = self.holder.run(upper, &file)?;
        judge::said(&inside, &outside.end())?;
        let unaltered = judge::unaltered(&inside);
        Ok(Done { dir, unaltered })
    }

    fn seal(&mut self, from: &Point, upper: &str, done: Done) -> Result<(), String> {
        let pending = self.holder.ask(&format!("pending {upper}"))?;
        let answer = self.holder.ask(&format!("seal {upper}"))?;
        if answer == "unchanged" {
            self.counts.unchanged += 1;
            return if done.unaltered { Ok(()) } else { Err("a step was lost".to_owned()) };
        }
        if answer != format!("changed {pending}") {
            return Err(format!("{pending} changes were pending, and then: {answer}"));
        }
        self.sealed(from, LayerId::parse(upper).unwrap(), done)?;
        let new = self.points.last().expect("it was just made");
        let count = judge::differences(&from.tree, &new.tree).len();
        // A rename is one change, and two differences.
        let told: usize = pending.parse().unwrap();
        if told > count || told * 2 < count { Err(format!("{told} of {count}")) } else { Ok(()) }
    }

    /// An upper has become a layer: a point more.
    fn sealed(&mut self, from: &Point, layer: LayerId, done: Done) -> Result<(), String> {
        self.counts.sealed += 1;
        let tree = judge::plain(&done.dir);
        let store = self.store();
        let depth = store.stack(&layer).map_err(|error| error.to_string())?.len();
        if depth > SQUASH_DEPTH {
            return Err(format!("{depth} layers"));
        }
        self.counts.flattened += usize::from(depth == 2 && self.counts.sealed > SQUASH_DEPTH);
        judge::compare(&tree, &judge::stored(&store, &layer, &tree)?)?;
        let new = Point { layer, dir: done.dir, tree };
        for old in [from, &self.points[0], &self.points[self.points.len() - 1]] {
            for (old, new) in [(old, &new), (&new, old)] {
                let told = store.changes(&old.layer, &new.layer).map_err(|e| e.to_string())?;
                judge::changes(&old.tree, &new.tree, &told)?;
            }
        }
        self.points.push(new);
        if self.points.len() > KEPT {
            let old = self.points.remove(0);
            remove_tree(&old.dir).unwrap();
        }
        Ok(())
    }

    /// The holder dies, and another takes over: every layer is as it was, no upper is left.
    fn kill(&mut self) -> Result<(), String> {
        self.counts.killed += 1;
        self.holder = self.holder.replace(&self.home.0, PERFORM);
        self.holder.ask("reap")?;
        let left = std::fs::read_dir(self.home.0.join("uppers")).unwrap().count();
        if left > 0 {
            return Err(format!("{left} uppers are left"));
        }
        self.intact()
    }

    /// Whether every point still is what it was sealed as.
    fn intact(&self) -> Result<(), String> {
        let store = self.store();
        self.points.iter().try_for_each(|point| {
            judge::compare(&point.tree, &judge::stored(&store, &point.layer, &point.tree)?)
        })
    }

    fn then(&mut self, then: Then) -> Result<(), String> {
        match then {
            Then::Nothing => Ok(()),
            Then::Kill => self.kill(),
            Then::Flush => {
                let newest = self.points.last().expect("the first is there").layer.clone();
                self.holder.ask(&format!("flush {newest}")).map(drop)
            }
            Then::Forget => {
                let layers: Vec<&str> = self.points.iter().map(|p| p.layer.as_str()).collect();
                self.holder.ask(&format!("keep {}", layers.join(" ")))?;
                self.intact()
            }
        }
    }
}

/// What a branch has come to on the host.
struct Done {
    dir: PathBuf,
    unaltered: bool,
}

/// A whole history from nothing.
fn run(history: &[Step]) -> Result<Counts, String> {
    let mut model = Model::new()?;
    for (number, step) in history.iter().enumerate() {
        let done = model.step(step).and_then(|()| model.then(step.then));
        done.map_err(|why| format!("step {number}: {why}\n{step}"))?;
    }
    model.intact()?;
    Ok(model.counts)
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().unwrap())
}

/// A failing history, made short.
fn explain(seed: u64, history: Vec<Step>, why: &str) -> String {
    println!("seed {seed}, {why}\n\nThe history is being cut to what it needs.");
    let failed = why.strip_prefix("step ").and_then(|rest| rest.split(':').next()?.parse().ok());
    let mut history = history;
    history.truncate(failed.map_or(history.len(), |step: usize| step + 1));
    let mut last = why.to_owned();
    let short = history::shrink(history, SHRINK_TRIES, &mut |shorter| match run(shorter) {
        Ok(_) => false,
        Err(why) => {
            last = why;
            true
        }
    });
    let steps: String = short.iter().map(ToString::to_string).collect();
    format!(
        "{why}\n\nwhat is left of it:\n{steps}\nfails with: {last}\n\n\
         again: BEDPLATE_LAYER_SEED={seed} BEDPLATE_LAYER_OPERATIONS={HISTORY}"
    )
}

#[test]
fn layers_are_equal_to_plain_directories() {
    let wanted = number("BEDPLATE_LAYER_OPERATIONS", OPERATIONS);
    let (mut seed, mut done) = (number("BEDPLATE_LAYER_SEED", SEED), 0);
    let mut all = Counts::default();
    while done < wanted {
        let history = history::make(seed, HISTORY.min((wanted - done) as usize));
        done += history::count(&history) as u64;
        match run(&history) {
            Ok(counts) => {
                println!("seed {seed}: {counts:?}");
                all.add(counts);
            }
            Err(why) => panic!("{}", explain(seed, history, &why)),
        }
        seed += 1;
    }
    assert!(wanted < OPERATIONS || all.is_whole(), "something never happened: {all:?}");
}
