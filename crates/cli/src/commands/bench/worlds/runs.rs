//! What a run's log takes: forking it, and going back in it, as a command asks an owner for it.

use super::super::{Samples, fail, nanos_since, record};
use super::layers::sealed;
use super::{Found, Ground};
use crate::error::Result;
use crate::session::{block_on, next_reply, this_program};
use runtime::Home;
use runtime::client::Client;
use runtime::protocol::{Reply, Request};
use runtime::rollback::Back;
use serde_json::json;
use std::path::Path;
use std::time::Instant;
use store::{Append, Durability, RunRow, SqliteStore, Store};
use types::{BRANCH_MAIN, Body, Item, RunId, manifest};

/// Records of one append.
const APPEND_RECORDS: usize = 100;
/// How often many forks are made.
const MANY: u32 = 5;
/// What the run's manifest says.
const MANIFEST: &str = "schema = 1\n[agent]\nname = \"bench\"\nmodel = \"default\"\n\
                        [routes]\ndefault = [\"script/none.toml\"]\n";

pub(super) fn fork(ground: &Ground, found: &mut Found) -> Result<()> {
    let run = RunId::from_random([7; 8]);
    let home = ground.dir.join("forked");
    let steps = ground.tenth();
    let at = log(&home, &run, steps)?;
    let mut bytes = 0;
    block_on(async {
        let mut owner = owner(&home).await?;
        let samples = forks(&mut owner, &run, &at, ground.count).await?;
        found.add(format!("fork at one of {steps} steps"), samples);
        for many in [100, 1_000] {
            let before = size(&home.join("log"));
            let mut samples = Samples::default();
            for _ in 0..MANY {
                samples.add(Some(self::forked(&mut owner, &run, None, many).await?));
            }
            let made = u64::from(MANY * many);
            bytes = size(&home.join("log")).saturating_sub(before) / made;
            found.add(format!("fork {many}"), samples);
        }
        Result::Ok(())
    })?;
    let line = format!("the log grows by {bytes} bytes a fork");
    found.say(line, "bytes_per_fork", json!(bytes));
    Ok(())
}

pub(super) fn back(ground: &Ground, found: &mut Found) -> Result<()> {
    let run = RunId::from_random([8; 8]);
    let home = ground.dir.join("taken-back");
    let steps = ground.tenth();
    let at = log(&home, &run, steps)?;
    let samples = block_on(async {
        let mut owner = owner(&home).await?;
        backs(&mut owner, &run, &at, ground.count).await
    })?;
    found.add(format!("rollback in a run of {steps} steps"), samples);
    Ok(())
}

async fn owner(home: &Path) -> Result<Client> {
    Ok(Client::connect_or_start(&Home::at(home), &this_program()).await?)
}

/// A run of many steps, each with a layer: the record of each.
fn log(home: &Path, run: &RunId, count: u32) -> Result<Vec<u64>> {
    let layers = &super::opened(home)?;
    let store = SqliteStore::open(home)?;
    let base = layers.empty().map_err(|error| crate::commands::files::part(&error))?;
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
        for step in 0..count {
            let (next, _) = sealed(layers, &layer, 1, &format!("step {step}\n"))?;
            let (parent, changed) = (std::mem::replace(&mut layer, next.clone()), 1);
            records.push(record(said("One more step of the run, as long as a short answer is.")));
            records.push(record(Body::LayerSealed { layer: next, parent, changed }));
            steps.push(next_seq + records.len() as u64 - 1);
            if records.len() >= APPEND_RECORDS || step + 1 == count {
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
async fn forked(owner: &mut Client, run: &RunId, at: Option<u64>, count: u32) -> Result<u64> {
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
        samples.add(Some(forked(owner, run, Some(at), 1).await?));
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
