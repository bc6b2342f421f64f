//! The SQLite store does what the memory store does, whatever is asked of it in whatever order.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use store::conformance::{forked, run_id, sample, wait};
use store::{Append, Durability, ForkPoint, MemoryStore, RunRow, SqliteStore, Store, StoreError};
use types::Body;

#[derive(Debug, Clone)]
enum Step {
    Create(u8, usize),
    Append(u8, u32, i8, i8, usize),
    Claim(u8),
    Fork(u8, u32, u64),
    ForkRun(u8, u8, u32, u64),
    Erase(u8),
    Remove(u8),
    Collect,
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let run = || 0..4u8;
    prop_oneof![
        3 => (run(), 0..3usize).prop_map(|(run, count)| Step::Create(run, count)),
        // Mostly right about number and epoch, sometimes one off.
        12 => (run(), 0..3u32, prop_oneof![5 => Just(0i8), 1 => -1..=1i8],
               prop_oneof![5 => Just(0i8), 1 => -1..=1i8], 0..4usize)
            .prop_map(|(run, branch, seq, epoch, count)| Step::Append(run, branch, seq, epoch, count)),
        2 => run().prop_map(Step::Claim),
        3 => (run(), 0..3u32, 0..8u64).prop_map(|(run, parent, at)| Step::Fork(run, parent, at)),
        3 => (run(), run(), 0..3u32, 0..8u64)
            .prop_map(|(run, of, branch, at)| Step::ForkRun(run, of, branch, at)),
        1 => run().prop_map(Step::Erase),
        1 => run().prop_map(Step::Remove),
        1 => Just(Step::Collect),
        1 => Just(Step::Reopen),
    ]
}

/// What a step answers, without what is random (salts make digests differ).
fn perform(store: &dyn Store, index: usize, step: &Step) -> String {
    let code = |error: StoreError| error.to_string();
    match step {
        Step::Create(run, count) => {
            let row = RunRow { run: run_id(*run), started_ms: index as u64 / 3 };
            let created = wait(store.create_run(row, records(index, *count)));
            format!("{:?}", created.map(|created| created.records.len()).map_err(code))
        }
        Step::Append(run, branch, seq_off, epoch_off, count) => {
            let next_seq = store.head(&run_id(*run), *branch).map_or(0, |head| head.next_seq);
            let runs = store.runs().unwrap();
            let epoch = runs.iter().find(|row| row.run == run_id(*run)).map_or(1, |row| row.epoch);
            let appended = wait(store.append(Append {
                run: run_id(*run),
                branch: *branch,
                next_seq: next_seq.saturating_add_signed((*seq_off).into()),
                epoch: epoch.saturating_add_signed((*epoch_off).into()),
                records: records(index, *count),
                durability: [Durability::Written, Durability::Synced][index % 2],
            }));
            format!("{:?}", appended.map(|records| records.len()).map_err(code))
        }
        Step::Claim(run) => format!("{:?}", wait(store.claim(&run_id(*run))).map_err(code)),
        Step::Fork(run, parent, at) => {
            let forked = wait(store.fork_branch(&run_id(*run), *parent, *at));
            format!("{:?}", forked.map_err(code))
        }
        Step::ForkRun(run, of, branch, at_seq) => {
            let row = RunRow { run: run_id(*run), started_ms: index as u64 / 3 };
            let from = ForkPoint { run: run_id(*of), branch: *branch, at_seq: *at_seq };
            let forked = wait(store.fork_run(row, from, vec![forked(*of, *at_seq)]));
            format!("{:?}", forked.map(|created| created.records.len()).map_err(code))
        }
        Step::Erase(run) => format!("{:?}", wait(store.erase(&run_id(*run))).map_err(code)),
        Step::Remove(run) => format!("{:?}", wait(store.remove(&run_id(*run))).map_err(code)),
        Step::Collect => format!("{:?}", wait(store.gc()).is_ok()),
        Step::Reopen => String::new(),
    }
}

fn records(index: usize, count: usize) -> Vec<store::NewRecord> {
    let record = |n| {
        let mut record = sample(&format!("step {index}, record {n}"));
        if n == 1 {
            record.attachments = vec![("raw".to_owned(), vec![7; index * 40_000])];
        }
        record
    };
    (0..count).map(record).collect()
}

/// All that can be seen of a store, without what is random.
fn seen(store: &dyn Store) -> String {
    let mut seen = String::new();
    for row in store.runs().unwrap() {
        let report = store.verify(&row.run).unwrap();
        assert_eq!(report.faults, [], "the log verifies");
        seen += &format!(
            "{} {} {:?} {} {} {:?}\n",
            row.run,
            row.epoch,
            row.head_seq,
            row.head_kind,
            row.erased,
            (report.branches, report.records, report.contents),
        );
        for branch in store.branches(&row.run).unwrap() {
            seen += &format!(" {branch:?}\n");
            match store.records(&row.run, branch.branch, 0) {
                Err(error) => seen += &format!("  {error}\n"),
                Ok(records) => {
                    for record in records {
                        let payload = match &record.body {
                            Body::SignalReceived { payload, .. } => payload.to_string(),
                            Body::Forked { origin, at, .. } => format!("{origin} {at}"),
                            other => panic!("nobody wrote a {}", other.kind()),
                        };
                        let stamp = &record.stamp;
                        let raw = store.attachment(&row.run, branch.branch, stamp.seq, "raw");
                        let raw = raw.unwrap().map(|bytes| bytes.len());
                        seen += &format!(
                            "  {} {} {} {payload} {raw:?}\n",
                            stamp.run, stamp.branch, stamp.seq
                        );
                    }
                }
            }
        }
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]
    #[test]
    fn the_stores_agree(steps in prop::collection::vec(step(), 1..30)) {
        let dir = tempfile::tempdir().unwrap();
        let memory = MemoryStore::new();
        let mut sqlite = SqliteStore::open(dir.path()).unwrap();
        for (index, step) in steps.iter().enumerate() {
            if matches!(step, Step::Reopen) {
                drop(sqlite);
                sqlite = SqliteStore::open(dir.path()).unwrap();
            }
            let expected = perform(&memory, index, step);
            prop_assert_eq!(perform(&sqlite, index, step), expected, "step {}", index);
        }
        prop_assert_eq!(seen(&sqlite), seen(&memory));
    }
}
