//! After an erasure neither key nor content is anywhere in the home.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use store::conformance::{noise, run_id, sample, wait};
use store::{Append, Durability, Read as _, RunRow, SqliteStore, Store as _};
use types::BRANCH_MAIN;

/// Files below `dir` that contain `bytes`.
fn containing(dir: &Path, bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(containing(&path, bytes));
        } else if std::fs::read(&path).unwrap().windows(bytes.len()).any(|part| part == bytes) {
            found.push(path.display().to_string());
        }
    }
    found
}

fn files(dir: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

const PLAIN: &str = "the quick brown fox, 4711";

fn store_with_run(home: &Path) -> SqliteStore {
    let store = SqliteStore::open(home).unwrap();
    let (run, started_ms) = (run_id(1), 1);
    wait(store.create_run(RunRow { run, started_ms }, vec![sample(PLAIN)])).unwrap();
    let mut record = sample(PLAIN);
    record.actor.on_behalf_of = "mallory@example.test".to_owned();
    record.attachments = vec![
        ("small".to_owned(), PLAIN.as_bytes().to_vec()),
        ("large".to_owned(), PLAIN.repeat(8).into_bytes()),
        ("noise".to_owned(), noise(400_000, 1)),
    ];
    wait(store.append(Append {
        run: run_id(1),
        branch: BRANCH_MAIN,
        next_seq: 1,
        epoch: 1,
        records: vec![record],
        durability: Durability::Synced,
    }))
    .unwrap();
    store
}

#[test]
fn content_is_never_in_the_clear_and_the_key_only_in_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let _store = store_with_run(dir.path());
    for plain in [PLAIN, "mallory@example.test", "\"agent\""] {
        assert_eq!(containing(dir.path(), plain.as_bytes()), [""; 0]);
    }
    let keys = files(&dir.path().join("log/keys"));
    let [key] = keys.as_slice() else {
        panic!("one run has one key");
    };
    assert_eq!(key.len(), 32);
    assert_eq!(containing(dir.path(), key).len(), 1);
    assert_eq!(files(&dir.path().join("log/blobs")).len(), 1, "the noise does not shrink");
}

#[test]
fn an_erased_key_is_nowhere_and_the_chain_still_verifies() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_with_run(dir.path());
    let key = files(&dir.path().join("log/keys")).pop().unwrap();
    wait(store.erase(&run_id(1))).unwrap();
    let check = |when: &str| {
        assert_eq!(containing(dir.path(), &key), [""; 0], "{when}");
        assert_eq!(containing(dir.path(), &key[..16]), [""; 0], "{when}");
        assert!(files(&dir.path().join("log/keys")).is_empty(), "{when}");
        assert!(files(&dir.path().join("log/blobs")).is_empty(), "{when}");
    };
    check("while open");
    let report = store.verify(&run_id(1)).unwrap();
    assert!(report.is_ok() && report.erased && report.records == 2);
    drop(store);
    check("closed");
    let store = SqliteStore::open(dir.path()).unwrap();
    assert!(store.verify(&run_id(1)).unwrap().is_ok());
    check("opened again");
}

#[test]
fn an_erasure_that_a_crash_cut_off_is_finished_on_opening() {
    let dir = tempfile::tempdir().unwrap();
    drop(store_with_run(dir.path()));
    let keys = dir.path().join("log/keys");
    let file = std::fs::read_dir(&keys).unwrap().next().unwrap().unwrap().path();
    let key = std::fs::read(&file).unwrap();
    // What the erasing commit leaves, before the key's file is destroyed.
    let conn = rusqlite::Connection::open(dir.path().join("log/log.db")).unwrap();
    conn.execute_batch(
        "INSERT INTO doomed_keys (file) SELECT key FROM runs; UPDATE runs SET key = NULL;",
    )
    .unwrap();
    conn.close().unwrap();
    assert_eq!(containing(dir.path(), &key).len(), 1, "the crash left the key");
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(containing(dir.path(), &key), [""; 0]);
    assert!(store.verify(&run_id(1)).unwrap().erased);
}

#[test]
fn a_removed_run_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_with_run(dir.path());
    wait(store.remove(&run_id(1))).unwrap();
    assert!(files(&dir.path().join("log/keys")).is_empty());
    assert!(files(&dir.path().join("log/blobs")).is_empty());
    drop(store);
    let conn = rusqlite::Connection::open(dir.path().join("log/log.db")).unwrap();
    for table in
        ["runs", "branches", "records", "attachments", "blobs", "doomed_keys", "doomed_runs"]
    {
        let count: i64 =
            conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(count, 0, "{table}");
    }
}

#[test]
fn garbage_is_collected_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = store_with_run(dir.path());
    for (place, name) in [
        ("blobs", "00112233445566778899aabbccddeeff"),
        ("blobs", "00112233445566778899aabbccddeefe.tmp"),
        ("keys", "00112233445566778899aabbccddeefd"),
    ] {
        std::fs::write(dir.path().join("log").join(place).join(name), b"12345").unwrap();
    }
    let report = wait(store.gc()).unwrap();
    assert_eq!((report.blobs, report.bytes), (2, 10));
    assert_eq!(files(&dir.path().join("log/blobs")).len(), 1);
    assert_eq!(files(&dir.path().join("log/keys")).len(), 1);
    assert!(store.verify(&run_id(1)).unwrap().is_ok());
}

#[test]
fn collecting_beside_appends_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let (run, started_ms) = (run_id(1), 1);
    wait(store.create_run(RunRow { run, started_ms }, vec![])).unwrap();
    let finished = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(std::sync::atomic::Ordering::Relaxed) {
                wait(store.gc()).unwrap();
            }
        });
        for next_seq in 0..40u64 {
            let mut record = sample("large");
            record.attachments = vec![("noise".to_owned(), noise(200_000, next_seq))];
            wait(store.append(Append {
                run: run_id(1),
                branch: BRANCH_MAIN,
                next_seq,
                epoch: 1,
                records: vec![record],
                durability: Durability::Written,
            }))
            .unwrap();
        }
        finished.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let report = store.verify(&run_id(1)).unwrap();
    assert_eq!((report.faults, report.records, report.contents), (vec![], 40, 120));
    assert_eq!(files(&dir.path().join("log/blobs")).len(), 40);
}
