//! A full log refuses with a code, is whole, and takes appends again once there is room.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use store::conformance::{noise, run_id, sample, wait};
use store::{
    Append, Durability, Limits, NewRecord, Read as _, Reply, RunRow, SqliteStore, Store as _,
};
use types::{BRANCH_MAIN, Coded as _, Record};

fn append(store: &SqliteStore, number: u8, records: Vec<NewRecord>) -> Reply<Vec<Record>> {
    let run = run_id(number);
    let next_seq = store.head(&run, BRANCH_MAIN).unwrap().next_seq;
    store.append(Append {
        run,
        branch: BRANCH_MAIN,
        next_seq,
        epoch: 1,
        records,
        durability: Durability::Synced,
    })
}

fn large() -> NewRecord {
    let mut record = sample("large");
    record.attachments = vec![("noise".to_owned(), noise(100_000, 1))];
    record
}

/// A store of 800 KiB with three runs.
fn small_store(dir: &std::path::Path) -> SqliteStore {
    let limits = Limits { database_pages_max: Some(200) };
    let store = SqliteStore::open_with(dir, limits).unwrap();
    for number in 1..=3 {
        let (run, started_ms) = (run_id(number), 1);
        wait(store.create_run(RunRow { run, started_ms }, vec![sample("first")])).unwrap();
    }
    store
}

#[test]
fn a_full_log_refuses_stays_whole_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let store = small_store(dir.path());
    let mut written = 1;
    let error = loop {
        match wait(append(&store, 1, vec![sample("before"), large()])) {
            Ok(records) => written += records.len(),
            Err(error) => break error,
        }
        assert!(written < 100, "the limit is reached");
    };
    assert_eq!(error.code(), "BP-STORE-010", "{error}");
    assert!(written > 4, "there was room for some");
    let read = store.records(&run_id(1), BRANCH_MAIN, 0).unwrap();
    assert_eq!(read.len(), written, "nothing of the refused append is there");
    assert!(store.verify(&run_id(1)).unwrap().is_ok());
    let again = wait(append(&store, 1, vec![large()])).unwrap_err();
    assert_eq!(again.code(), "BP-STORE-010");
    wait(append(&store, 2, vec![sample("small")])).expect("a small one still fits");
    wait(store.remove(&run_id(1))).expect("removing needs no room");
    wait(append(&store, 2, vec![large()])).expect("there is room again");
    assert!(store.verify(&run_id(2)).unwrap().is_ok());
}

#[test]
fn one_that_does_not_fit_does_not_fail_its_neighbours() {
    let dir = tempfile::tempdir().unwrap();
    let store = small_store(dir.path());
    while wait(append(&store, 1, vec![large()])).is_ok() {}
    // Asked for at once, so that they meet in one commit.
    for _ in 0..10 {
        let replies = [
            append(&store, 2, vec![sample("small")]),
            append(&store, 1, vec![large()]),
            append(&store, 3, vec![sample("small")]),
        ];
        let outcomes = wait(Box::pin(async move {
            let tasks = replies.map(tokio::spawn);
            let mut codes = Vec::new();
            for task in tasks {
                codes.push(task.await.unwrap().map_err(|error| error.code()).err());
            }
            Ok(codes)
        }));
        assert_eq!(outcomes, Ok(vec![None, Some("BP-STORE-010"), None]));
    }
    for number in 1..=3 {
        assert!(store.verify(&run_id(number)).unwrap().is_ok());
    }
    assert_eq!(store.head(&run_id(3), BRANCH_MAIN).unwrap().next_seq, 11);
}

#[test]
fn the_write_ahead_log_stays_short_under_load() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let (run, started_ms) = (run_id(1), 1);
    wait(store.create_run(RunRow { run, started_ms }, vec![])).unwrap();
    for _ in 0..150 {
        wait(append(&store, 1, vec![large(); 8])).unwrap();
    }
    let wal = std::fs::metadata(dir.path().join("log/log.db-wal")).unwrap().len();
    assert!(wal < 64 << 20, "{wal} bytes, after 120 MB went through");
    assert!(store.verify(&run_id(1)).unwrap().is_ok());
}
