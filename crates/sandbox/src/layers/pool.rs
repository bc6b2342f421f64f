//! Empty uppers, kept for the next who needs one.
//!
//! A file system that has just removed many entries is slow to make new ones, and most uppers of a
//! run that only looks are thrown away as empty as they were made. What holds: an upper in the
//! pool has no entry, no overlay attribute and no name a layer ever had; its lock is still ours
//! and names no layer. Never more than [`POOL_MAX`] of them; what does not qualify is removed.
//! Looking and cleaning is done by a thread of its own, for which nobody waits.

use super::{LOCK, TREE, Upper, WORK};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// Uppers kept, those that are looked at included.
pub(super) const POOL_MAX: usize = 32;
/// Prefixes of the attributes that overlayfs leaves, as root and as anybody else.
const ATTRIBUTES: [&str; 2] = ["trusted.overlay.", "user.overlay."];
/// Bytes of names of attributes on one directory.
const NAMES_BYTES_MAX: usize = 4096;

/// An upper nobody uses.
#[derive(Debug)]
pub(super) struct Spare {
    pub(super) dir: PathBuf,
    pub(super) lock: File,
}

/// The pool of one store.
#[derive(Debug, Default)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    cleaner: Mutex<Option<Cleaner>>,
}

/// What pool and cleaner share.
#[derive(Debug, Default)]
struct Shared {
    list: Mutex<List>,
    cleaned: Condvar,
}

#[derive(Debug, Default)]
struct List {
    ready: Vec<Spare>,
    /// How many the cleaner has still to look at.
    cleaning: usize,
}

#[derive(Debug)]
struct Cleaner {
    uppers: SyncSender<Spare>,
    thread: JoinHandle<()>,
}

impl Shared {
    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().expect("nothing panics while it holds this lock")
    }

    /// Keeps an upper that is as new, and removes any other.
    fn clean(&self, spare: Spare) {
        let kept = as_new(&spare.dir).unwrap_or(false);
        if !kept {
            // What cannot be removed now is reaped when its lock is gone.
            let _ = super::tree::remove(&spare.dir);
        }
        let mut list = self.list();
        list.cleaning -= 1;
        list.ready.extend(kept.then_some(spare));
        self.cleaned.notify_all();
    }
}

impl Pool {
    /// One of them, if there is any.
    pub(super) fn take(&self) -> Option<Spare> {
        self.shared.list().ready.pop()
    }

    /// Keeps an upper if it is as new; gives it back when there are enough.
    pub(super) fn put(&self, upper: Upper) -> Result<(), Box<Upper>> {
        let mut list = self.shared.list();
        let full = list.ready.len() + list.cleaning >= POOL_MAX;
        if full || name_in_lock(&upper.lock, "").is_err() {
            return Err(Box::new(upper));
        }
        list.cleaning += 1;
        drop(list);
        let spare = Spare { dir: upper.dir, lock: upper.lock };
        let mut cleaner = self.cleaner.lock().expect("nothing panics while it holds this lock");
        let cleaner = cleaner.get_or_insert_with(|| self.start());
        let sent = cleaner.uppers.send(spare);
        sent.expect("the cleaner lives as long as its channel");
        Ok(())
    }

    fn start(&self) -> Cleaner {
        let (uppers, todo) = sync_channel::<Spare>(POOL_MAX);
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::spawn(move || todo.into_iter().for_each(|s| shared.clean(s)));
        Cleaner { uppers, thread }
    }

    /// Waits until all that was put is in the pool or gone.
    #[cfg(test)]
    fn settle(&self) {
        let list = self.shared.list();
        let busy = |list: &mut List| list.cleaning > 0;
        drop(self.shared.cleaned.wait_while(list, busy).expect("nothing panics with this lock"));
    }
}

impl Drop for Pool {
    /// Nothing of it outlives the store. What a killed process leaves is reaped as any upper is.
    fn drop(&mut self) {
        if let Ok(Some(Cleaner { uppers, thread })) = self.cleaner.get_mut().map(Option::take) {
            drop(uppers);
            let _ = thread.join();
        }
        for spare in std::mem::take(&mut self.shared.list().ready) {
            let _ = super::tree::remove(&spare.dir);
        }
    }
}

/// Writes which layer an upper stands on into its lock.
pub(super) fn name_in_lock(lock: &File, layer: &str) -> io::Result<()> {
    lock.set_len(0)?;
    lock.write_all_at(layer.as_bytes(), 0)
}

/// Whether nothing is left in an upper of who had it. Takes overlayfs's attributes away, and what
/// its next mount would have to.
fn as_new(dir: &Path) -> io::Result<bool> {
    let tree = dir.join(TREE);
    if fs::read_dir(&tree)?.next().is_some() {
        return Ok(false);
    }
    for entry in fs::read_dir(dir.join(WORK))? {
        let entry = entry?;
        // The one is made anew at each mount, so it may as well go now; the other must hold no
        // reference to a file.
        let clean = match entry.file_name().to_str() {
            Some("work") => {
                crate::enter::clear_work(&entry.path());
                true
            }
            Some("index") => fs::read_dir(entry.path())?.next().is_none(),
            _ => false,
        };
        if !clean {
            return Ok(false);
        }
    }
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        if ![TREE, WORK, LOCK].iter().any(|known| name == *known) {
            return Ok(false);
        }
    }
    let mut names = vec![0; NAMES_BYTES_MAX];
    let count = rustix::fs::listxattr(&tree, &mut names[..])?;
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(false) };
        if !ATTRIBUTES.iter().any(|prefix| name.starts_with(prefix)) {
            return Ok(false);
        }
        rustix::fs::removexattr(&tree, name)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::LayerStore;

    fn store() -> (tempfile::TempDir, LayerStore) {
        let home = tempfile::tempdir().unwrap();
        let store = LayerStore::open(home.path()).unwrap();
        (home, store)
    }

    /// What a test does to an upper before it is given back.
    type Act = fn(&Path);

    #[test]
    fn only_an_upper_as_new_is_used_again() {
        let spoil: [(Act, bool); 5] = [
            (|_| {}, true),
            (|dir| fs::write(dir.join("fs/a"), "").unwrap(), false),
            (|dir| fs::create_dir(dir.join("work/old-1")).unwrap(), false),
            (|dir| fs::create_dir_all(dir.join("work/index/x")).unwrap(), false),
            (|dir| fs::write(dir.join("else"), "").unwrap(), false),
        ];
        for (index, (act, again)) in spoil.into_iter().enumerate() {
            let (_home, store) = store();
            let base = store.empty().unwrap();
            let upper = store.begin(&base).unwrap();
            let (dir, old) = (upper.dir.clone(), upper.id.clone());
            act(&upper.dir);
            store.recycle(upper).unwrap();
            store.pool.settle();
            assert_eq!(store.pool.shared.list().ready.len() == 1, again, "{index}");
            assert_eq!(dir.exists(), again, "{index}");
            let next = store.begin(&base).unwrap();
            assert!(!dir.exists(), "one that is used again has a new name");
            assert_ne!(next.id, old, "an id is not used twice");
            assert!(fs::read_dir(next.dir.join(TREE)).unwrap().next().is_none());
        }
    }

    #[test]
    fn the_pool_is_bounded_and_keeps_no_layer() {
        let (home, store) = store();
        let base = store.empty().unwrap();
        let uppers: Vec<_> = (0..POOL_MAX + 3).map(|_| store.begin(&base).unwrap()).collect();
        for upper in uppers {
            store.recycle(upper).unwrap();
        }
        store.pool.settle();
        assert_eq!(fs::read_dir(home.path().join("uppers")).unwrap().count(), POOL_MAX);
        assert_eq!(store.remove_unreferenced(&std::collections::BTreeSet::new()).unwrap(), 1);
        // They are ours: nobody reaps them while we live, and they go when we do.
        assert_eq!(store.reap_uppers().unwrap(), 0);
        drop(store);
        assert_eq!(fs::read_dir(home.path().join("uppers")).unwrap().count(), 0);
    }

    #[test]
    fn overlay_attributes_do_not_come_along() {
        let (_home, store) = store();
        let base = store.empty().unwrap();
        let upper = store.begin(&base).unwrap();
        let set = |name: &str| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(upper.dir.join(TREE), name, b"y", flags)
        };
        set("user.overlay.origin").unwrap();
        store.recycle(upper).unwrap();
        store.pool.settle();
        let upper = store.begin(&base).unwrap();
        let mut names = [0; 256];
        let count = rustix::fs::listxattr(upper.dir.join(TREE), &mut names[..]).unwrap();
        assert_eq!(count, 0);
        // One that is not overlayfs's is somebody's: the upper is not used again.
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(upper.dir.join(TREE), "user.mine", b"y", flags).unwrap();
        let dir = upper.dir.clone();
        store.recycle(upper).unwrap();
        store.pool.settle();
        assert!(!dir.exists());
    }
}
