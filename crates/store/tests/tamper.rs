//! Whoever changes the database behind the store's back is found out by `verify`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rusqlite::Connection;
use std::path::Path;
use store::conformance::{noise, run_id, sample, wait};
use store::{Append, Durability, Read as _, RunRow, SqliteStore, Store as _};
use types::{BRANCH_MAIN, Coded as _};

fn make(home: &Path) {
    let store = SqliteStore::open(home).unwrap();
    let (run, started_ms) = (run_id(1), 1);
    let first = ["a", "b"].map(sample).to_vec();
    wait(store.create_run(RunRow { run, started_ms }, first)).unwrap();
    let mut record = sample("c");
    record.attachments =
        vec![("file".to_owned(), noise(200_000, 1)), ("row".to_owned(), b"attached".to_vec())];
    let (run, branch) = (run_id(1), BRANCH_MAIN);
    wait(store.append(Append {
        run,
        branch,
        next_seq: 2,
        epoch: 1,
        records: vec![record, sample("d")],
        durability: Durability::Synced,
    }))
    .unwrap();
}

/// The codes that `verify` reports after `change`, with the first message.
fn found(change: impl FnOnce(&Connection, &Path)) -> (Vec<String>, String) {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let conn = Connection::open(dir.path().join("log/log.db")).unwrap();
    change(&conn, dir.path());
    conn.close().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let report = store.verify(&run_id(1)).unwrap();
    let failures = report.faults.into_iter().map(|fault| fault.failure);
    let (codes, messages): (Vec<_>, Vec<_>) = failures.map(|f| (f.code, f.message)).unzip();
    (codes, messages.into_iter().next().unwrap_or_default())
}

fn check(sql: &str, codes: &[&str], message: &str) {
    let (found, first) = found(|conn, _| conn.execute_batch(sql).unwrap());
    assert_eq!(found, codes, "{sql}: {first}");
    assert_eq!(first, message, "{sql}");
}

/// Keys of the first four records.
const K: &str = "(1 << 32)";

#[test]
fn an_untouched_log_is_well() {
    check("", &[], "");
}

#[test]
fn a_dropped_record_is_named() {
    check(
        &format!("DELETE FROM records WHERE key = {K} + 1"),
        &["BP-LEDGER-003"],
        "record 2 stands where record 1 belongs",
    );
    check(
        &format!("DELETE FROM records WHERE key = {K} + 3"),
        &["BP-LEDGER-005"],
        "the log ends after 3 records, and its head says 4",
    );
}

#[test]
fn an_altered_header_is_named() {
    let altered = |conn: &Connection, _: &Path| {
        let mut header: Vec<u8> = conn
            .query_row(&format!("SELECT header FROM records WHERE key = {K} + 1"), [], |row| {
                row.get(0)
            })
            .unwrap();
        let mut decoded = ledger::decode(&header).unwrap();
        decoded.time_ms += 1;
        header = ledger::encode(&decoded);
        conn.execute(&format!("UPDATE records SET header = ?1 WHERE key = {K} + 1"), [header])
            .unwrap();
    };
    let (codes, first) = found(altered);
    assert_eq!(codes, ["BP-LEDGER-004"]);
    assert!(first.starts_with("record 1 was altered"), "{first}");
}

#[test]
fn a_head_set_back_or_forth_is_named() {
    let digest = |conn: &Connection, seq: u64| {
        let sql = format!("SELECT header FROM records WHERE key = {K} + {seq}");
        let header: Vec<u8> = conn.query_row(&sql, [], |row| row.get(0)).unwrap();
        ledger::digest_encoded(&header).0
    };
    let (codes, first) = found(|conn, _| {
        let digest = digest(conn, 2);
        conn.execute("UPDATE branches SET next_seq = 3, digest = ?1", [digest]).unwrap();
    });
    assert_eq!(codes, ["BP-LEDGER-006"]);
    assert_eq!(first, "record 3 comes after the head, which counts 3 records");
    check(
        "UPDATE branches SET next_seq = 9",
        &["BP-LEDGER-005"],
        "the log ends after 4 records, and its head says 9",
    );
    check(
        "UPDATE branches SET digest = zeroblob(32)",
        &["BP-LEDGER-004"],
        "record 3 was altered: its digest is not the one that follows from the log",
    );
}

#[test]
fn altered_moved_lost_or_added_content_is_named() {
    let unreadable = "it was altered, moved, or sealed under another key";
    check(
        &format!(
            "UPDATE records SET body = (SELECT body FROM records WHERE key = {K}) WHERE key = {K} + 1"
        ),
        &["BP-STORE-017"],
        &format!("record 1 of run {} cannot be read: its body: {unreadable}", run_id(1)),
    );
    check(
        &format!("UPDATE records SET actor = x'07' WHERE key = {K}"),
        &["BP-STORE-017"],
        &format!("record 0 of run {} cannot be read: its actor: its row is damaged", run_id(1)),
    );
    check(
        "DELETE FROM attachments WHERE name = 'row'",
        &["BP-STORE-017"],
        &format!("record 2 of run {} cannot be read: its row is missing", run_id(1)),
    );
    check(
        "INSERT INTO attachments (record, name, cell)
         SELECT record + 1, 'planted', cell FROM attachments WHERE name = 'row'",
        &["BP-STORE-017"],
        &format!("record 3 of run {} cannot be read: its planted: {unreadable}", run_id(1)),
    );
}

#[test]
fn a_lost_or_altered_file_is_named() {
    let blob = |home: &Path| {
        let entries = std::fs::read_dir(home.join("log/blobs")).unwrap();
        entries.map(|entry| entry.unwrap().path()).next().unwrap()
    };
    let (codes, first) = found(|_, home| std::fs::remove_file(blob(home)).unwrap());
    assert_eq!(codes, ["BP-STORE-017"]);
    assert!(first.contains("its file: its file cannot be read"), "{first}");
    let (codes, _) = found(|_, home| {
        let mut bytes = std::fs::read(blob(home)).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(blob(home), bytes).unwrap();
    });
    assert_eq!(codes, ["BP-STORE-017"]);
}

#[test]
fn a_damaged_record_is_an_error_to_read_not_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let conn = Connection::open(dir.path().join("log/log.db")).unwrap();
    conn.execute_batch(&format!("DELETE FROM records WHERE key = {K} + 1")).unwrap();
    conn.close().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let error = store.records(&run_id(1), BRANCH_MAIN, 0).unwrap_err();
    assert_eq!(error.code(), "BP-STORE-017");
    assert_eq!(
        error.to_string(),
        format!("record 1 of run {} cannot be read: it is missing", run_id(1))
    );
}

#[test]
fn one_damaged_run_does_not_hide_the_others() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    for key in std::fs::read_dir(dir.path().join("log/keys")).unwrap() {
        std::fs::write(key.unwrap().path(), b"not a key").unwrap();
    }
    let store = SqliteStore::open(dir.path()).unwrap();
    let (run, started_ms) = (run_id(2), 2);
    wait(store.create_run(RunRow { run, started_ms }, vec![sample("well")])).unwrap();
    let runs = store.runs().unwrap();
    let readable: Vec<_> = runs.iter().map(|row| row.last.is_some()).collect();
    assert_eq!(readable, [true, false]);
    let error = store.records(&run_id(1), BRANCH_MAIN, 0).unwrap_err();
    assert_eq!(error.code(), "BP-STORE-017");
}

#[test]
fn branches_in_a_circle_are_an_error_not_a_loop() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let conn = Connection::open(dir.path().join("log/log.db")).unwrap();
    conn.execute_batch("UPDATE branches SET parent = 0, at = 1").unwrap();
    conn.close().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let error = store.records(&run_id(1), BRANCH_MAIN, 0).unwrap_err();
    assert_eq!(error.code(), "BP-STORE-014");
}
