//! Worlds: sealing, comparing, forking and going back, on a tree and a run of some size.
//!
//! Layers are measured where they are made, in this process; forks and going back are measured as a
//! command meets them, through an owner of a home of their own, its socket and its log included.

use super::{Samples, fail, nanos_since, record};
use crate::error::Result;
use crate::session::{block_on, next_reply, this_program};
use runtime::Home;
use runtime::client::Client;
use runtime::protocol::{Reply, Request};
use runtime::rollback::Back;
use sandbox::layers::{LayerStore, Sealed};
use std::path::Path;
use std::time::Instant;
use store::{Append, Durability, RunRow, SqliteStore, Store};
use types::{BRANCH_MAIN, Body, Item, LayerId, RunId, manifest};

/// Files of the tree below.
const TREE_FILES: usize = 10_000;
/// Files of one directory of it.
const DIRECTORY_FILES: usize = 100;
/// Files that differ in the comparison.
const CHANGED_FILES: usize = 1_000;
/// Steps of the run that is forked.
const STEPS: u64 = 1_000;
/// Records of one append.
const APPEND_RECORDS: usize = 100;
/// How often many forks are made.
const MANY: u32 = 5;
/// Most bytes of the imported tree.
const TREE_BYTES_MAX: u64 = 1 << 30;
/// What the run's manifest says.
const MANIFEST: &str = "schema = 1\n[agent]\nname = \"bench\"\nmodel = \"default\"\n\
                        [routes]\ndefault = [\"script/none.toml\"]\n";

/// All of it.
pub(super) fn measure(count: u32) -> Result<(Vec<(String, Samples)>, serde_json::Value)> {
    let here = std::env::current_dir().map_err(|error| fail("worlds", error))?;
    let dir = tempfile::Builder::new().prefix(".bedplate-bench-").tempdir_in(here);
    let dir = dir.map_err(|error| fail("worlds", error))?;
    let home = dir.path().join("home");
    let layers =
        LayerStore::open(&home).map_err(|error| fail("layers", types::Coded::failure(&error)))?;
    let base = tree(&layers, dir.path())?;
    let mut sides = vec![
        (format!("seal: 1 file over {TREE_FILES}"), seals(&layers, &base, count)?),
        (
            format!("another upper on an older layer of {TREE_FILES}"),
            uppers(&layers, &base, count)?,
        ),
        (format!("diff: {CHANGED_FILES} changed files"), diffs(&layers, &base, count)?),
    ];
    let run = RunId::from_random([7; 8]);
    let sealed = log(&home, &layers, &run)?;
    let owned = Home::at(&home);
    let mut bytes = serde_json::Value::Null;
    block_on(async {
        let mut owner = Client::connect_or_start(&owned, &this_program()).await?;
        let at: Vec<u64> = sealed.iter().map(|(seq, _)| *seq).collect();
        sides.push((
            format!("fork at one of {STEPS} steps"),
            forks(&mut owner, &run, &at, count).await?,
        ));
        for many in [100, 1_000] {
            let before = size(&home.join("log"));
            let mut samples = Samples::default();
            for _ in 0..MANY {
                samples.add(Some(fork(&mut owner, &run, None, many).await?));
            }
            let grown = size(&home.join("log")).saturating_sub(before);
            bytes = serde_json::json!(grown / u64::from(MANY * many));
            sides.push((format!("fork {many}"), samples));
        }
        let back = format!("rollback in a run of {STEPS} steps");
        sides.push((back, backs(&mut owner, &run, &at, count).await?));
        Result::Ok(())
    })?;
    Ok((sides, bytes))
}

/// A layer of many small files.
fn tree(layers: &LayerStore, dir: &Path) -> Result<LayerId> {
    let host = dir.join("tree");
    for number in 0..TREE_FILES {
        let parent = host.join(format!("d{}", number / DIRECTORY_FILES));
        if number % DIRECTORY_FILES == 0 {
            std::fs::create_dir_all(&parent).map_err(|error| fail("layers", error))?;
        }
        let file = parent.join(format!("f{number}"));
        std::fs::write(file, format!("{number}\n")).map_err(|error| fail("layers", error))?;
    }
    let imported = layers.import(&host, TREE_BYTES_MAX);
    Ok(imported.map_err(|error| crate::commands::files::part(&error))?.layer)
}

/// A layer over `base` in which these files have another content, and how long sealing took.
fn sealed(layers: &LayerStore, base: &LayerId, files: usize, text: &str) -> Result<(LayerId, u64)> {
    let part = |error| crate::commands::files::part(&error);
    let upper = layers.begin(base).map_err(part)?;
    let top = upper.overlay().upper;
    for number in 0..files {
        let parent = top.join(format!("d{}", number / DIRECTORY_FILES));
        std::fs::create_dir_all(&parent).map_err(|error| fail("layers", error))?;
        let file = parent.join(format!("f{number}"));
        std::fs::write(file, text).map_err(|error| fail("layers", error))?;
    }
    let begun = Instant::now();
    let sealed = layers.seal(upper).map_err(part)?;
    let nanos = nanos_since(begun);
    match sealed {
        Sealed::Layer { layer, .. } => Ok((layer, nanos)),
        Sealed::Unchanged(_) => Err(fail("layers", "what was written did not count").into()),
    }
}

fn seals(layers: &LayerStore, base: &LayerId, count: u32) -> Result<Samples> {
    let mut samples = Samples::default();
    for number in 0..count {
        samples.add(Some(sealed(layers, base, 1, &format!("sample {number}\n"))?.1));
    }
    Ok(samples)
}

fn uppers(layers: &LayerStore, base: &LayerId, count: u32) -> Result<Samples> {
    let part = |error| crate::commands::files::part(&error);
    let mut samples = Samples::default();
    for _ in 0..count {
        let begun = Instant::now();
        let upper = layers.begin(base).map_err(part)?;
        samples.add(Some(nanos_since(begun)));
        layers.discard(upper).map_err(part)?;
    }
    Ok(samples)
}

fn diffs(layers: &LayerStore, base: &LayerId, count: u32) -> Result<Samples> {
    let (top, _) = sealed(layers, base, CHANGED_FILES, "other\n")?;
    let mut samples = Samples::default();
    for _ in 0..count {
        let begun = Instant::now();
        let changes =
            layers.changes(base, &top).map_err(|error| crate::commands::files::part(&error))?;
        let nanos = nanos_since(begun);
        samples.add((changes.len() == CHANGED_FILES).then_some(nanos));
    }
    Ok(samples)
}

/// A run of many steps, each with a layer: the record of each, and its layer.
fn log(home: &Path, layers: &LayerStore, run: &RunId) -> Result<Vec<(u64, LayerId)>> {
    let part = |error| crate::commands::files::part(&error);
    let store = SqliteStore::open(home)?;
    let base = layers.empty().map_err(part)?;
    let manifest = manifest::parse(MANIFEST).map_err(|error| fail("the run", error))?;
    let begin = Body::RunStarted {
        manifest: Box::new(manifest),
        dir: None,
        workspace: None,
        base: base.clone(),
        started_by: "bench".to_owned(),
        host: serde_json::Value::Null,
        memory: None,
    };
    let first = vec![record(begin), record(said("Begin."))];
    let row = RunRow { run: run.clone(), started_ms: 0 };
    let mut next_seq = 2;
    let (mut layer, mut steps, mut records) = (base, Vec::new(), Vec::new());
    block_on(async {
        store.create_run(row, first).await?;
        for step in 0..STEPS {
            let (next, _) = sealed(layers, &layer, 1, &format!("step {step}\n"))?;
            let (parent, changed) = (std::mem::replace(&mut layer, next.clone()), 1);
            records.push(record(said("One more step of the run, as long as a short answer is.")));
            records.push(record(Body::LayerSealed { layer: next.clone(), parent, changed }));
            steps.push((next_seq + records.len() as u64 - 1, next));
            if records.len() >= APPEND_RECORDS || step + 1 == STEPS {
                let (records, durability) = (std::mem::take(&mut records), Durability::Written);
                let (run, branch, epoch) = (run.clone(), BRANCH_MAIN, 1);
                let append = Append { run, branch, next_seq, epoch, records, durability };
                next_seq += store.append(append).await?.len() as u64;
            }
        }
        Result::Ok(())
    })?;
    Ok(steps)
}

fn said(text: &str) -> Body {
    Body::ItemAdded { item: Item::UserMessage { text: text.to_owned() } }
}

/// Nanoseconds of one request for forks.
async fn fork(owner: &mut Client, run: &RunId, at: Option<u64>, count: u32) -> Result<u64> {
    let by = "bench".to_owned();
    let begun = Instant::now();
    owner.send(&Request::Fork { run: run.clone(), at, count, seed: None, by }).await?;
    match next_reply(owner).await? {
        Reply::Made { runs } if runs.len() == count as usize => Ok(nanos_since(begun)),
        _ => Err(fail("forks", "not all were made").into()),
    }
}

async fn forks(owner: &mut Client, run: &RunId, at: &[u64], count: u32) -> Result<Samples> {
    let mut samples = Samples::default();
    for number in 0..count as usize {
        // Steps that are far from each other.
        let at = at[number * 617 % at.len()];
        samples.add(Some(fork(owner, run, Some(at), 1).await?));
    }
    Ok(samples)
}

async fn backs(owner: &mut Client, run: &RunId, at: &[u64], count: u32) -> Result<Samples> {
    let mut samples = Samples::default();
    for number in 0..count as usize {
        let back = Back::To(at[number * 617 % at.len()]);
        let (run, by, leave_effects) = (run.clone(), "bench".to_owned(), false);
        let begun = Instant::now();
        owner.send(&Request::RollBack { run, back, leave_effects, by }).await?;
        let done = matches!(next_reply(owner).await?, Reply::Lines { .. });
        samples.add(done.then(|| nanos_since(begun)));
    }
    Ok(samples)
}

/// Bytes of the files in a directory.
fn size(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.metadata().ok()).filter(|meta| meta.is_file());
    files.map(|meta| meta.len()).sum()
}
