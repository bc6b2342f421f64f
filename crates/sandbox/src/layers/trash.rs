//! Removing trees without making anybody wait for it.
//!
//! A tree is renamed into `trash/`, which is one step, and removed by a thread of its own. What a
//! killed process leaves there is removed by [`super::LayerStore::reap_uppers`].

use super::{at, tree};
use crate::SandboxError;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use types::LayerId;

/// Trees waiting to be removed; then the caller removes its own.
const WAITING_MAX: usize = 1024;

/// The trash of one home.
#[derive(Debug)]
pub(super) struct Trash {
    dir: PathBuf,
    remover: Mutex<Option<Remover>>,
}

#[derive(Debug)]
struct Remover {
    trees: SyncSender<PathBuf>,
    thread: JoinHandle<()>,
}

impl Trash {
    /// The trash in `dir`, which is there.
    pub(super) const fn new(dir: PathBuf) -> Self {
        Self { dir, remover: Mutex::new(None) }
    }

    /// Makes a tree disappear from where it is, and removes it soon.
    pub(super) fn take(&self, tree: &Path) -> Result<(), SandboxError> {
        let name = super::LayerStore::new_id()?;
        let target = self.dir.join(LayerId::as_str(&name));
        at("rename", tree, fs::rename(tree, &target))?;
        let mut remover = self.remover.lock().expect("nothing panics while it holds this lock");
        let remover = remover.get_or_insert_with(|| {
            let (trees, todo) = sync_channel::<PathBuf>(WAITING_MAX);
            let thread = std::thread::spawn(move || {
                for tree in todo {
                    // What cannot be removed now is tried again by the next owner.
                    let _ = tree::remove(&tree);
                }
            });
            Remover { trees, thread }
        });
        match remover.trees.try_send(target.clone()) {
            Ok(()) => Ok(()),
            Err(_) => tree::remove(&target),
        }
    }

    /// Removes what an earlier process left. Says how much it was.
    pub(super) fn empty(&self) -> Result<u64, SandboxError> {
        let mut removed = 0;
        for entry in at("list", &self.dir, fs::read_dir(&self.dir))?.flatten() {
            tree::remove(&entry.path())?;
            removed += 1;
        }
        Ok(removed)
    }
}

impl Drop for Trash {
    fn drop(&mut self) {
        let remover = self.remover.get_mut().map(Option::take);
        if let Ok(Some(Remover { trees, thread })) = remover {
            drop(trees);
            let _ = thread.join();
        }
    }
}
