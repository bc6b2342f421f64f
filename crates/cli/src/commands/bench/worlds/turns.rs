//! Sealing at a turn's end: a command has written through its sandbox and ended, the sandbox stays,
//! and somebody else keeps the disk busy.
//!
//! Each turn stands on the layer of the one before, as in a run, so that the depth of its stack and
//! its flattening are in the figures: the first in the seal, the second in the next upper.

use super::super::{Samples, fail, nanos_since};
use super::layers::tree;
use super::{Found, Ground};
use crate::commands::files::part;
use crate::error::Result;
use crate::session::{block_on, this_program};
use sandbox::layers::{LayerStore, Sealed};
use sandbox::{CreateSpec, Ended, ExecSpec, Spawner, SpawnerConfig};
use serde_json::json;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use types::LayerId;

/// Files of the small tree.
const SMALL_FILES: u32 = 100;
/// Files that a turn changes, where it changes many.
const MANY_FILES: u32 = 200;
/// Bytes that the neighbour writes before it waits for the disk, and of its whole file.
const NEIGHBOUR_BYTES: usize = 256 << 10;
const NEIGHBOUR_FILE_BYTES: u64 = 16 << 20;

pub(super) fn measure(ground: &Ground, found: &mut Found) -> Result<()> {
    let small = tree(&ground.layers, &ground.dir.join("small"), SMALL_FILES)?;
    let large = ground.tree()?;
    let (files, many) = (ground.files, MANY_FILES.min(ground.files));
    let turns = [(SMALL_FILES, &small, 1), (files, &large, 1), (files, &large, many)];
    for (files, base, changed) in turns {
        let (seals, uppers) = beside_neighbour(&ground.dir, || {
            block_on(turns_of(&ground.layers, base, changed, ground.count))
        })?;
        let what = format!("{changed} of {files} files, the disk busy");
        found.add(format!("seal at a turn's end: {what}"), seals);
        found.add("  the next upper, deep stacks flattened", uppers);
    }
    let line = format!(
        "seal with live processes and {MANY_FILES} changed files: not offered, a command's processes \
         end before its changes are sealed"
    );
    found.say(line, "seal_with_live_processes", json!("not offered"));
    Ok(())
}

/// What each seal took, and each next upper.
async fn turns_of(
    layers: &LayerStore,
    base: &LayerId,
    changed: u32,
    count: u32,
) -> Result<(Samples, Samples)> {
    let (mut seals, mut uppers) = (Samples::default(), Samples::default());
    let spawner = Spawner::start(&this_program(), SpawnerConfig::default()).await;
    let spawner = spawner.map_err(|error| part(&error))?;
    let mut upper = layers.begin(base).map_err(|error| part(&error))?;
    let made = spawner.create(CreateSpec::new(upper.overlay())).await;
    let sandbox = made.map_err(|error| part(&error))?.id;
    for number in 0..count {
        // The files of the first directories, each with another content at each turn.
        let script = format!(
            "i=0; while [ $i -lt {changed} ]; do echo turn {number} > d$((i / 100))/f$i; i=$((i + 1)); done"
        );
        let trees = Some(upper.overlay().into());
        let program = ExecSpec { trees, ..ExecSpec::shell(&script) };
        let running = spawner.exec(&sandbox, program).await.map_err(|error| part(&error))?;
        let done = running.finish().await.map_err(|error| part(&error))?;
        let begun = Instant::now();
        let sealed = layers.seal(upper).map_err(|error| part(&error))?;
        let nanos = nanos_since(begun);
        let Sealed::Layer { layer, changed: sealed } = sealed else {
            return Err(fail("a turn", "what was written did not count").into());
        };
        let good = done.exit.ended == Ended::Code(0) && sealed == u64::from(changed);
        seals.add(good.then_some(nanos));
        let begun = Instant::now();
        upper = layers.begin(&layer).map_err(|error| part(&error))?;
        uppers.add(Some(nanos_since(begun)));
    }
    spawner.close().await;
    layers.discard(upper).map_err(|error| part(&error))?;
    Ok((seals, uppers))
}

/// Does the work while another thread writes to the same disk and waits for it, again and again.
fn beside_neighbour<T>(dir: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let file = File::create(dir.join("neighbour")).map_err(|error| fail("the neighbour", error))?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let neighbour = scope.spawn(|| write_until(file, &over));
        let done = work();
        over.store(true, Ordering::Relaxed);
        let wrote = neighbour.join().expect("the neighbour does not panic");
        wrote.map_err(|error| fail("the neighbour", error))?;
        done
    })
}

fn write_until(mut file: File, over: &AtomicBool) -> std::io::Result<()> {
    let bytes = vec![0x42; NEIGHBOUR_BYTES];
    while !over.load(Ordering::Relaxed) {
        if file.stream_position()? >= NEIGHBOUR_FILE_BYTES {
            file.seek(SeekFrom::Start(0))?;
        }
        file.write_all(&bytes)?;
        file.sync_data()?;
    }
    Ok(())
}
