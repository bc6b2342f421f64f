//! A writer killed at any moment loses nothing that it acknowledged and leaves nothing half done.
//!
//! The test runs itself as a child process that appends and prints each acknowledgement; the parent
//! kills it after the Nth, and looks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use store::conformance::{noise, run_id, sample, wait};
use store::{Append, Durability, Read, Reader, RunRow, SqliteStore, Store as _};
use types::{BRANCH_MAIN, Body, RunId};

const HOME: &str = "BEDPLATE_TEST_CRASH_HOME";
const WRITERS: u8 = 3;
/// Acknowledgements after which the child is killed.
const KILL_AFTER: [usize; 12] = [1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233];

/// Appends batches of 1 to 4 records to its run and prints `ack RUN NEXT_SEQ` after each.
fn write_batches(store: &SqliteStore, number: u8, batches: u64) {
    let (run, started_ms) = (run_id(number), 1);
    let found = store.head(&run, BRANCH_MAIN).map(|head| head.next_seq);
    let mut next_seq = found.unwrap_or_else(|_| {
        let row = RunRow { run: run.clone(), started_ms };
        wait(store.create_run(row, vec![sample("batch 0 1/1")])).unwrap();
        1
    });
    let epoch = wait(store.claim(&run)).unwrap();
    for batch in 0..batches {
        let count = 1 + batch % 4;
        let record = |n| {
            let mut record = sample(&format!("batch {batch} {n}/{count}"));
            if batch % 5 == 0 {
                let noise = noise(150_000, batch);
                record.attachments = vec![("noise".to_owned(), noise)];
            }
            record
        };
        let durability = [Durability::Written, Durability::Synced][(batch % 2) as usize];
        let records = wait(store.append(Append {
            run: run.clone(),
            branch: BRANCH_MAIN,
            next_seq,
            epoch,
            records: (1..=count).map(record).collect(),
            durability,
        }))
        .unwrap();
        next_seq += count;
        assert_eq!(records.len() as u64, count);
        let mut out = std::io::stdout().lock();
        writeln!(out, "ack {run} {next_seq}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn the_writer_of_the_crash_test() {
    let temporary = tempfile::tempdir().unwrap();
    let asked = std::env::var_os(HOME);
    let home = asked.as_ref().map_or(temporary.path(), Path::new);
    let batches = if asked.is_some() { u64::MAX } else { 7 };
    let store = SqliteStore::open(home).unwrap();
    std::thread::scope(|scope| {
        for number in 0..WRITERS {
            let store = &store;
            scope.spawn(move || write_batches(store, number, batches));
        }
    });
    check_whole(&store, &HashMap::new());
    assert_eq!(store.runs().unwrap().len(), usize::from(WRITERS));
}

/// Runs the writer on `home` and kills it after `acks` acknowledgements. Returns the last number
/// acknowledged for each run, counting those that it printed before it died.
fn killed_after(home: &Path, acks: usize) -> HashMap<RunId, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_writer_of_the_crash_test", "--nocapture"])
        .env(HOME, home)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = HashMap::new();
    let mut count = 0;
    for line in lines {
        let line = line.unwrap();
        // The harness prints the test's name without a newline before the first.
        let Some((_, ack)) = line.split_once("ack ") else {
            continue;
        };
        let Some((run, next_seq)) = ack.split_once(' ') else {
            continue;
        };
        acknowledged.insert(RunId::parse(run).unwrap(), next_seq.parse().unwrap());
        count += 1;
        if count == acks {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(!status.success() && count >= acks, "it was killed, not finished");
    acknowledged
}

/// Every acknowledged record is there, every batch is whole, every chain verifies.
fn check_whole(store: &dyn Read, acknowledged: &HashMap<RunId, u64>) {
    for (run, next_seq) in acknowledged {
        let head = store.head(run, BRANCH_MAIN).unwrap();
        assert!(head.next_seq >= *next_seq, "{run}: {} of {next_seq}", head.next_seq);
    }
    for row in store.runs().unwrap() {
        let report = store.verify(&row.run).unwrap();
        assert_eq!(report.faults, [], "{}", row.run);
        let mut expected = 1;
        for record in store.records(&row.run, BRANCH_MAIN, 0).unwrap() {
            let Body::SignalReceived { payload, .. } = &record.body else {
                panic!("only signals were written");
            };
            let place = payload.as_str().unwrap().rsplit(' ').next().unwrap();
            let (n, count) = place.split_once('/').unwrap();
            assert_eq!(n, expected.to_string(), "{} {}", row.run, record.stamp.seq);
            expected = if n == count { 1 } else { expected + 1 };
        }
        assert_eq!(expected, 1, "{}: the last batch is whole", row.run);
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    let dir = tempfile::tempdir().unwrap();
    for acks in KILL_AFTER {
        let acknowledged = killed_after(dir.path(), acks);
        check_whole(&Reader::open(dir.path()).unwrap(), &acknowledged);
        let store = SqliteStore::open(dir.path()).unwrap();
        check_whole(&store, &acknowledged);
        wait(store.gc()).unwrap();
        check_whole(&store, &acknowledged);
        let blobs = std::fs::read_dir(dir.path().join("log/blobs")).unwrap().count();
        let named: usize = store.runs().unwrap().iter().map(|row| files_of(&store, &row.run)).sum();
        assert_eq!(blobs, named, "garbage of the crash is collected");
    }
}

fn files_of(store: &dyn Read, run: &RunId) -> usize {
    let records = store.evidence_page(run, BRANCH_MAIN, 0, usize::MAX >> 1).unwrap();
    records.iter().filter(|record| record.contents.len() > 2).count()
}
