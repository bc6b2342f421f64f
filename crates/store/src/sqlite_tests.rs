//! What the store answers when, seen from beside its `fdatasync`.

use super::*;
use crate::conformance::{run_id, sample, wait};
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use types::Coded as _;

/// Stands in for `fdatasync`: notes what was committed when it began, or fails.
struct Probe {
    reader: Reader,
    /// For each sync, the records that were in the log when it began.
    begun: Arc<Mutex<Vec<u64>>>,
    broken: Arc<AtomicBool>,
}

impl Sync for Probe {
    fn sync(&mut self) -> std::io::Result<()> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(std::io::Error::other("the device is gone"));
        }
        let runs = self.reader.runs().unwrap();
        let records = runs.iter().filter_map(|run| run.head_seq).map(|seq| seq + 1);
        self.begun.lock().unwrap().push(records.sum());
        Ok(())
    }
}

struct Probed {
    store: SqliteStore,
    begun: Arc<Mutex<Vec<u64>>>,
    broken: Arc<AtomicBool>,
    dir: tempfile::TempDir,
}

impl Probed {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (begun, broken) = (Arc::default(), Arc::default());
        let probe = Probe {
            reader: Reader::of(Home::at(dir.path())),
            begun: Arc::clone(&begun),
            broken: Arc::clone(&broken),
        };
        let sync = |_| Box::new(probe) as Box<dyn Sync>;
        let store = SqliteStore::start(dir.path(), Limits::default(), sync).unwrap();
        Self { store, begun, broken, dir }
    }

    fn create(&self, number: u8) {
        let (run, started_ms) = (run_id(number), 1);
        wait(self.store.create_run(RunRow { run, started_ms }, vec![])).unwrap();
    }

    fn append(&self, number: u8, durability: Durability) -> Reply<Vec<Record>> {
        let next_seq = self.store.head(&run_id(number), BRANCH_MAIN).unwrap().next_seq;
        self.store.append(Append {
            run: run_id(number),
            branch: BRANCH_MAIN,
            next_seq,
            epoch: 1,
            records: vec![sample("x")],
            durability,
        })
    }

    /// Syncs so far, and how many records the last one covered.
    fn syncs(&self) -> (usize, u64) {
        let begun = self.begun.lock().unwrap();
        (begun.len(), begun.last().copied().unwrap_or(0))
    }
}

#[test]
fn every_synced_answer_follows_a_sync_that_began_after_its_commit() {
    let probed = Probed::new();
    probed.create(1);
    let (before, _) = probed.syncs();
    for written in 1..=20 {
        wait(probed.append(1, Durability::Synced)).unwrap();
        assert_eq!(probed.syncs(), (before + written, written as u64));
    }
    for _ in 0..20 {
        wait(probed.append(1, Durability::Written)).unwrap();
    }
    assert_eq!(probed.syncs(), (before + 20, 20), "written ones wait for no sync");
    wait(probed.append(1, Durability::Synced)).unwrap();
    assert_eq!(probed.syncs(), (before + 21, 41), "one sync covers all before it");
}

#[test]
fn one_sync_serves_all_that_wait() {
    let probed = Probed::new();
    let (before, _) = probed.syncs();
    let outcomes = together(&probed.store, (0..100).map(|_| set("a", false)).collect());
    assert_eq!(outcomes, vec![Ok(()); 100]);
    assert_eq!(probed.syncs().0, before + 2, "one for who held the writer, one for all of them");
}

/// Stands in for an `fdatasync` that takes as long as a test wants.
struct Slow {
    begun: std::sync::mpsc::Sender<()>,
    end: std::sync::mpsc::Receiver<()>,
}

impl Sync for Slow {
    fn sync(&mut self) -> std::io::Result<()> {
        let _ = self.begun.send(());
        let _ = self.end.recv();
        Ok(())
    }
}

#[test]
fn what_need_only_be_written_does_not_wait_for_a_sync_that_is_going() {
    let dir = tempfile::tempdir().unwrap();
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (let_end, end) = std::sync::mpsc::channel();
    let slow = |_| Box::new(Slow { begun, end }) as Box<dyn Sync>;
    let store = Arc::new(SqliteStore::start(dir.path(), Limits::default(), slow).unwrap());
    let act = |durability| {
        let inner = Arc::clone(&store.inner);
        wait(Box::pin(inner.act(durability, |conn| sql::set_setting(conn, "a", b"set"))))
    };
    std::thread::scope(|scope| {
        let synced = scope.spawn(|| act(Durability::Synced));
        has_begun.recv().unwrap();
        act(Durability::Written).unwrap();
        assert!(!synced.is_finished(), "nothing is synced yet");
        let_end.send(()).unwrap();
        synced.join().unwrap().unwrap();
    });
    // With the pen in another hand it waits for its turn, and is written all the same.
    let outcomes = together_as(&store, Durability::Written, vec![set("b", false)], let_end);
    assert_eq!(outcomes, [Ok(())]);
    assert_eq!(store.setting("b").unwrap(), Some(b"set".to_vec()));
}

#[test]
fn a_refused_request_needs_no_sync() {
    let probed = Probed::new();
    probed.create(1);
    let before = probed.syncs();
    let stale = probed.append(1, Durability::Synced);
    wait(probed.store.claim(&run_id(1))).unwrap();
    assert_eq!(wait(stale).unwrap_err().code(), "BP-STORE-009");
    assert_eq!(probed.syncs(), before);
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged() {
    let probed = Probed::new();
    probed.create(1);
    wait(probed.append(1, Durability::Synced)).unwrap();
    probed.broken.store(true, Ordering::Relaxed);
    for durability in [Durability::Synced, Durability::Synced, Durability::Written] {
        let error = wait(probed.append(1, durability)).unwrap_err();
        assert_eq!(error.code(), "BP-STORE-012", "{error}");
    }
    probed.broken.store(false, Ordering::Relaxed);
    let error = wait(probed.append(1, Durability::Synced)).unwrap_err();
    assert_eq!(error.code(), "BP-STORE-012", "it does not heal by itself");
    let Probed { store, dir, .. } = probed;
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert!(store.verify(&run_id(1)).unwrap().is_ok());
    assert!(store.head(&run_id(1), BRANCH_MAIN).unwrap().next_seq >= 1);
}

#[test]
fn a_closed_store_answers_that_it_is_closed() {
    let probed = Probed::new();
    probed.create(1);
    let reply = probed.append(1, Durability::Synced);
    let Probed { store, .. } = probed;
    drop(store);
    assert_eq!(wait(reply).unwrap_err().code(), "BP-STORE-012");
}

type Act = Box<dyn FnMut(&Connection) -> Result<(), StoreError> + Send>;

/// Sets a setting, then fails if asked to.
fn set(name: &'static str, fails: bool) -> Act {
    Box::new(move |conn| {
        sql::set_setting(conn, name, b"set")?;
        if fails { Err(full()) } else { Ok(()) }
    })
}

/// Holds the writer until every request is queued, so that they meet in one commit.
fn together(store: &SqliteStore, acts: Vec<Act>) -> Vec<Result<(), StoreError>> {
    together_as(store, Durability::Synced, acts, std::sync::mpsc::channel().0)
}

/// The same; `synced` is told when the writer may end its sync.
fn together_as(
    store: &SqliteStore,
    durability: Durability,
    acts: Vec<Act>,
    synced: std::sync::mpsc::Sender<()>,
) -> Vec<Result<(), StoreError>> {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (entered, writer_is_held) = tokio::sync::oneshot::channel();
    let mut gate = Some((held, entered));
    let hold = Arc::clone(&store.inner).act(Durability::Synced, move |_| {
        if let Some((held, entered)) = gate.take() {
            let _ = entered.send(());
            let _ = held.recv();
        }
        Ok(())
    });
    let begin = |act| Box::pin(Arc::clone(&store.inner).act(durability, act));
    let mut requests: Vec<_> = acts.into_iter().map(begin).collect();
    wait(Box::pin(async move {
        let hold = tokio::spawn(hold);
        writer_is_held.await.unwrap();
        for request in &mut requests {
            // The first poll queues it.
            let mut context = Context::from_waker(Waker::noop());
            assert!(request.as_mut().poll(&mut context).is_pending());
        }
        drop(release);
        let _ = synced.send(());
        hold.await.unwrap()?;
        let mut outcomes = Vec::new();
        for request in requests {
            outcomes.push(request.await);
        }
        Ok(outcomes)
    }))
    .unwrap()
}

#[test]
fn what_a_failed_request_changed_is_undone_among_its_neighbours() {
    let probed = Probed::new();
    let before = probed.syncs().0;
    let outcomes = together(&probed.store, vec![set("a", false), set("b", true), set("c", false)]);
    assert_eq!(outcomes, [Ok(()), Err(full()), Ok(())]);
    assert_eq!(probed.syncs().0, before + 2, "they were one commit, beside the one before");
    let value = |name| probed.store.setting(name).unwrap();
    assert_eq!(value("a"), Some(b"set".to_vec()));
    assert_eq!(value("b"), None, "nothing of the failed one is there");
    assert_eq!(value("c"), Some(b"set".to_vec()));
}

fn full() -> StoreError {
    StoreError::Full { why: "for the test".to_owned() }
}
