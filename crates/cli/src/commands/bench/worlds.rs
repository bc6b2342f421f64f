//! Worlds: making a sandbox, sealing, comparing, forking, going back, going on, and keeping many.
//!
//! Sandboxes and layers are measured where they are made, in this process, which holds a spawner, a
//! gate and layers of its own as an owner does. What a command asks for is measured as a command
//! meets it, through an owner of a home of its own, its socket and its log included. Everything lies
//! in one directory on this directory's device, which goes with the measurement.

mod first;
mod idle;
mod layers;
mod peers;
mod resume;
mod runs;
mod stage;
mod trajectory;
mod turns;

use super::{Samples, fail, head, processes, row, side};
use crate::arguments::{BenchArguments, BenchPart};
use crate::error::Result;
use ::sandbox::layers::LayerStore;
use clap::ValueEnum as _;
use serde_json::{Map, Value, json};
use std::cell::OnceCell;
use std::path::{Path, PathBuf};
use types::LayerId;

/// Of the large tree's files, one in so many is changed where many are.
const TENTH: u32 = 10;

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) sides: Vec<(String, Samples)>,
    /// What is said below the table.
    lines: Vec<String>,
    /// The same for programs.
    more: Map<String, Value>,
}

impl Found {
    fn add(&mut self, name: impl Into<String>, samples: Samples) {
        self.sides.push((name.into(), samples));
    }

    /// Says something that is no time, to people and to programs.
    fn say(&mut self, line: String, name: &str, value: Value) {
        self.lines.push(line);
        self.more.insert(name.to_owned(), value);
    }

    /// Says how our median stands to a peer's.
    #[expect(clippy::cast_precision_loss, reason = "display only")]
    fn ratio(&mut self, ours: u64, peer: &str, theirs: u64) {
        if ours == 0 || theirs == 0 {
            return;
        }
        let ratio = ours as f64 / theirs as f64;
        self.lines.push(format!("ratio of medians, bedplate over {peer}: {ratio:.2}"));
        let ratios = self.more.entry("ratios_p50").or_insert_with(|| json!({}));
        ratios[peer] = json!(ratio);
    }

    pub(super) fn table(&self) -> Vec<String> {
        let rows = self.sides.iter().map(row);
        std::iter::once(head()).chain(rows).chain(self.lines.iter().cloned()).collect()
    }

    pub(super) fn document(self) -> Value {
        let mut document = json!({ "what": self.sides.iter().map(side).collect::<Vec<_>>() });
        let members = document.as_object_mut().expect("it was made as one");
        members.extend(self.more);
        document
    }
}

/// Where a measurement takes place, and how much of it is wanted.
struct Ground {
    dir: PathBuf,
    count: u32,
    idle: u32,
    /// Files of the large tree.
    files: u32,
    layers: LayerStore,
    tree: OnceCell<LayerId>,
}

impl Ground {
    /// The large tree, made when the first part needs it.
    fn tree(&self) -> Result<LayerId> {
        if let Some(tree) = self.tree.get() {
            return Ok(tree.clone());
        }
        let tree = layers::tree(&self.layers, &self.dir.join("large"), self.files)?;
        Ok(self.tree.get_or_init(|| tree).clone())
    }

    /// Files that a comparison finds, and steps of a run that is forked and taken back.
    fn tenth(&self) -> u32 {
        (self.files / TENTH).max(1)
    }
}

/// A directory here for one measurement. No owner that was started for it outlives it.
pub(super) struct Workplace(tempfile::TempDir);

impl Workplace {
    pub(super) fn new(what: &str) -> Result<Self> {
        let here = std::env::current_dir().map_err(|error| fail(what, error))?;
        let dir = tempfile::Builder::new().prefix(".bedplate-bench-").tempdir_in(here);
        Ok(Self(dir.map_err(|error| fail(what, error))?))
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        processes::end_owners();
        // What commands wrote, and what overlays leave, may have odd modes.
        let _ = ::sandbox::remove_tree(self.path());
    }
}

/// One part, or all of them.
pub(super) fn measure(wanted: &BenchArguments) -> Result<Found> {
    let dir = Workplace::new("worlds")?;
    let ground = Ground {
        layers: opened(&dir.path().join("layers"))?,
        dir: dir.path().to_owned(),
        tree: OnceCell::new(),
        count: wanted.count,
        idle: wanted.idle,
        files: wanted.files,
    };
    let mut found = Found::default();
    let all = BenchPart::value_variants().iter().copied();
    for part in all.filter(|one| wanted.part.is_none_or(|wanted| wanted == *one)) {
        match part {
            BenchPart::FirstOutput => first::measure(&ground, &mut found),
            BenchPart::Seal => {
                layers::seal(&ground, &mut found).and_then(|()| turns::measure(&ground, &mut found))
            }
            BenchPart::Upper => layers::upper(&ground, &mut found),
            BenchPart::Diff => layers::diff(&ground, &mut found),
            BenchPart::Fork => runs::fork(&ground, &mut found),
            BenchPart::Rollback => runs::back(&ground, &mut found),
            BenchPart::Resume => resume::measure(&ground, &mut found),
            BenchPart::Trajectory => trajectory::measure(&ground, &mut found),
            BenchPart::Idle => idle::measure(&ground, &mut found),
        }?;
    }
    Ok(found)
}

fn opened(home: &Path) -> Result<LayerStore> {
    LayerStore::open(home).map_err(|error| crate::commands::files::part(&error))
}
