//! Layers alone: sealing, going to another upper, comparing.

use super::super::{Samples, fail, nanos_since};
use super::{Found, Ground};
use crate::commands::files::part;
use crate::error::Result;
use sandbox::layers::{LayerStore, Sealed};
use std::path::Path;
use std::time::Instant;
use types::LayerId;

/// Files of one directory of a tree.
const DIRECTORY_FILES: u32 = 100;
/// Most bytes of an imported tree.
const TREE_BYTES_MAX: u64 = 1 << 30;

pub(super) fn seal(ground: &Ground, found: &mut Found) -> Result<()> {
    let samples = seals(&ground.layers, &ground.tree()?, ground.count)?;
    found.add(format!("seal: 1 file over {}", ground.files), samples);
    Ok(())
}

pub(super) fn upper(ground: &Ground, found: &mut Found) -> Result<()> {
    let samples = uppers(&ground.layers, &ground.tree()?, ground.count)?;
    found.add(format!("another upper on an older layer of {}", ground.files), samples);
    Ok(())
}

pub(super) fn diff(ground: &Ground, found: &mut Found) -> Result<()> {
    let changed = ground.tenth();
    let samples = diffs(&ground.layers, &ground.tree()?, changed, ground.count)?;
    found.add(format!("diff: {changed} changed files"), samples);
    Ok(())
}

/// A layer of many small files.
pub(super) fn tree(layers: &LayerStore, host: &Path, files: u32) -> Result<LayerId> {
    for number in 0..files {
        let parent = host.join(format!("d{}", number / DIRECTORY_FILES));
        if number % DIRECTORY_FILES == 0 {
            std::fs::create_dir_all(&parent).map_err(|error| fail("layers", error))?;
        }
        let file = parent.join(format!("f{number}"));
        std::fs::write(file, format!("{number}\n")).map_err(|error| fail("layers", error))?;
    }
    let imported = layers.import(host, TREE_BYTES_MAX);
    Ok(imported.map_err(|error| part(&error))?.layer)
}

/// A layer over `base` in which these files have another content, and how long sealing took.
pub(super) fn sealed(
    layers: &LayerStore,
    base: &LayerId,
    files: u32,
    text: &str,
) -> Result<(LayerId, u64)> {
    let upper = layers.begin(base).map_err(|error| part(&error))?;
    let top = upper.overlay().upper;
    for number in 0..files {
        let parent = top.join(format!("d{}", number / DIRECTORY_FILES));
        std::fs::create_dir_all(&parent).map_err(|error| fail("layers", error))?;
        let file = parent.join(format!("f{number}"));
        std::fs::write(file, text).map_err(|error| fail("layers", error))?;
    }
    let begun = Instant::now();
    let sealed = layers.seal(upper).map_err(|error| part(&error))?;
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
    let mut samples = Samples::default();
    for _ in 0..count {
        let begun = Instant::now();
        let upper = layers.begin(base).map_err(|error| part(&error))?;
        samples.add(Some(nanos_since(begun)));
        layers.discard(upper).map_err(|error| part(&error))?;
    }
    Ok(samples)
}

fn diffs(layers: &LayerStore, base: &LayerId, changed: u32, count: u32) -> Result<Samples> {
    let (top, _) = sealed(layers, base, changed, "other\n")?;
    let mut samples = Samples::default();
    for _ in 0..count {
        let begun = Instant::now();
        let changes = layers.changes(base, &top).map_err(|error| part(&error))?;
        let nanos = nanos_since(begun);
        samples.add((changes.len() == changed as usize).then_some(nanos));
    }
    Ok(samples)
}
