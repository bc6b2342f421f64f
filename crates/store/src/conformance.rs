//! The conformance kit: what every store must do, as cases that any implementation can be run
//! through. A case that does not hold panics with what was expected.
//!
//! ```no_run
//! store::conformance::run(|| Box::new(store::MemoryStore::new()));
//! ```
//!
//! The kit judges by what a store answers, never by how it is made. Durability is not its business:
//! that needs processes to kill.

use crate::{
    Append, Content, Created, Durability, ForkPoint, NewRecord, Reply, RunRow, Store, StoreError,
    prepare::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX, FORK_DEPTH_MAX},
};
use ledger::Head;
use std::sync::Arc;
use types::{Actor, BRANCH_MAIN, Body, BranchId, Cause, Coded, Digest, Link, Record, RunId};

/// One case: a name, and what must hold on an empty store.
pub type Case = (&'static str, fn(&dyn Store));

/// Every case.
pub const CASES: &[Case] = &[
    ("an empty store is empty", empty),
    ("what is written is read back, linked", read_back),
    ("a run is created once", created_once),
    ("a stale epoch or a wrong number is refused", fenced),
    ("of many writers of one number one wins", one_wins),
    ("an append is whole or absent", atomic),
    ("attachments of every size come back", attachments),
    ("a fork shares, and diverges", forks),
    ("a fork of nothing is refused", bad_forks),
    ("forks of forks have a limit", deep_forks),
    ("a forked run shares, and goes on alone", forked_runs),
    ("what a forked run shares stays, and is erased with it", forked_runs_end),
    ("erased content is gone and the chain holds", erased),
    ("a removed run is gone and others stay", removed),
    ("a run is found by prefix and by last", found),
    ("runs are listed newest first", listed),
    ("pages join to the whole", paged),
    ("settings keep their last value", settings),
    ("limits are limits", limits),
    ("collecting garbage leaves what is named", collected),
    ("evidence verifies without the store", evident),
];

/// Runs every case, each on a new empty store.
///
/// # Panics
/// When a case does not hold.
pub fn run(make: impl Fn() -> Box<dyn Store>) {
    for (name, case) in CASES {
        let store = make();
        let held = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| case(&*store)));
        assert!(held.is_ok(), "a store must do this: {name}");
    }
}

/// Waits for an answer, on this thread.
///
/// # Panics
/// When the system has no room for an event loop.
pub fn wait<T>(reply: Reply<T>) -> Result<T, StoreError> {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("an event loop can be made")
        .block_on(reply)
}

/// A record for tests: its content is `text`.
#[must_use]
pub fn sample(text: &str) -> NewRecord {
    NewRecord {
        time_ms: 1_700_000_000_000,
        mono_ms: 5,
        boot: 9,
        causes: Vec::new(),
        actor: Actor {
            agent: "triage".to_owned(),
            on_behalf_of: "ada".to_owned(),
            team: String::new(),
        },
        body: Body::SignalReceived {
            name: "note".to_owned(),
            payload: text.into(),
            by: "ada".to_owned(),
        },
        attachments: Vec::new(),
    }
}

/// A run id for tests.
#[must_use]
pub fn run_id(number: u8) -> RunId {
    RunId::from_random([0, 0, 0, 0, 0, 0, 0, number])
}

/// Bytes for tests that no compression shortens, the same for the same seed.
#[must_use]
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) + 1;
    let byte = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(byte).collect()
}

fn create(store: &dyn Store, number: u8, texts: &[&str]) -> Created {
    let row = RunRow { run: run_id(number), started_ms: 1000 + u64::from(number) };
    let first = texts.iter().map(|text| sample(text)).collect();
    wait(store.create_run(row, first)).expect("a new run is created")
}

/// Appends one record per text at the head of a branch.
fn add(store: &dyn Store, number: u8, branch: BranchId, texts: &[&str]) -> Vec<Record> {
    let records = texts.iter().map(|text| sample(text)).collect();
    wait(store.append(at_head(store, number, branch, records))).expect("an append at the head")
}

/// An append that the first owner may make.
fn at_head(store: &dyn Store, number: u8, branch: BranchId, records: Vec<NewRecord>) -> Append {
    let run = run_id(number);
    let head = store.head(&run, branch).expect("the branch is there");
    Append {
        run,
        branch,
        next_seq: head.next_seq,
        epoch: 1,
        records,
        durability: Durability::Written,
    }
}

fn texts(records: &[Record]) -> Vec<String> {
    let text = |record: &Record| match &record.body {
        Body::SignalReceived { payload, .. } => payload.as_str().unwrap_or("?").to_owned(),
        other => other.kind().to_owned(),
    };
    records.iter().map(text).collect()
}

fn seen(store: &dyn Store, number: u8, branch: BranchId) -> Vec<String> {
    let records = store.records(&run_id(number), branch, 0);
    texts(&records.expect("the branch can be read"))
}

fn assert_verifies(store: &dyn Store, number: u8) {
    let report = store.verify(&run_id(number)).expect("the run can be read");
    assert_eq!(report.faults, [], "an honest log verifies");
}

fn code<T: std::fmt::Debug>(result: Result<T, StoreError>) -> &'static str {
    result.expect_err("this is refused").code()
}

fn empty(store: &dyn Store) {
    let run = run_id(1);
    assert_eq!(store.runs(), Ok(Vec::new()));
    assert_eq!(store.setting("anything"), Ok(None));
    for refused in [
        store.find("last").map(|_| ()),
        store.find(run.as_str()).map(|_| ()),
        store.head(&run, BRANCH_MAIN).map(|_| ()),
        store.records(&run, BRANCH_MAIN, 0).map(|_| ()),
        store.headers_page(&run, BRANCH_MAIN, 0, 1).map(|_| ()),
        store.evidence_page(&run, BRANCH_MAIN, 0, 1).map(|_| ()),
        store.attachment(&run, BRANCH_MAIN, 0, "raw").map(|_| ()),
        store.branches(&run).map(|_| ()),
        store.verify(&run).map(|_| ()),
        wait(store.claim(&run)).map(|_| ()),
        wait(store.erase(&run)),
        wait(store.remove(&run)),
        wait(store.fork_branch(&run, BRANCH_MAIN, 0)).map(|_| ()),
    ] {
        assert_eq!(code(refused), "BP-STORE-007");
    }
    assert_eq!(wait(store.gc()), Ok(crate::GcReport::default()));
}

fn read_back(store: &dyn Store) {
    let created = create(store, 1, &["a", "b"]);
    assert_eq!(created.epoch, 1);
    let mut third = sample("c");
    third.causes = vec![Cause { link: Link::ResultOf, seq: 1 }];
    let appended = wait(store.append(at_head(store, 1, BRANCH_MAIN, vec![third, sample("d")])));
    let written = [created.records, appended.expect("an append at the head")].concat();
    let read = store.records(&run_id(1), BRANCH_MAIN, 0).expect("read");
    assert_eq!(read, written, "what was answered is what is there");
    assert_eq!(texts(&read), ["a", "b", "c", "d"]);
    assert_eq!(read[2].causes.len(), 1);
    let mut prev = Digest::ZERO;
    for (seq, record) in (0..).zip(&read) {
        assert_eq!((record.stamp.seq, record.prev), (seq, prev));
        prev = record.digest;
    }
    let head = store.head(&run_id(1), BRANCH_MAIN);
    let (next_seq, digest) = (4, prev);
    assert_eq!(head, Ok(Head { next_seq, digest }));
    assert_eq!(store.records(&run_id(1), BRANCH_MAIN, 4), Ok(Vec::new()));
    assert_verifies(store, 1);
}

fn created_once(store: &dyn Store) {
    create(store, 1, &["a"]);
    let row = RunRow { run: run_id(1), started_ms: 1 };
    assert_eq!(code(wait(store.create_run(row, vec![sample("z")]))), "BP-STORE-015");
    assert_eq!(seen(store, 1, BRANCH_MAIN), ["a"]);
    create(store, 2, &[]);
    assert_eq!(store.head(&run_id(2), BRANCH_MAIN), Ok(Head::EMPTY));
}

fn fenced(store: &dyn Store) {
    create(store, 1, &["a"]);
    let attempt = |next_seq, epoch| {
        let mut append = at_head(store, 1, BRANCH_MAIN, vec![sample("x")]);
        append.next_seq = next_seq;
        append.epoch = epoch;
        wait(store.append(append))
    };
    for (next_seq, epoch) in [(0, 1), (2, 1), (1, 0), (1, 2), (u64::from(u32::MAX) - 9, 1)] {
        assert_eq!(code(attempt(next_seq, epoch)), "BP-STORE-009");
    }
    assert_eq!(wait(store.claim(&run_id(1))), Ok(2));
    let refused = attempt(1, 1).expect_err("the old owner is fenced");
    assert!(matches!(refused, StoreError::Fenced { given_epoch: 1, epoch: 2, next_seq: 1, .. }));
    assert!(attempt(1, 2).is_ok(), "the new owner is not");
    assert_eq!(seen(store, 1, BRANCH_MAIN), ["a", "x"]);
    let mut elsewhere = at_head(store, 1, BRANCH_MAIN, Vec::new());
    elsewhere.branch = 7;
    assert_eq!(code(wait(store.append(elsewhere))), "BP-STORE-016");
    assert_verifies(store, 1);
}

fn one_wins(store: &dyn Store) {
    create(store, 1, &["a"]);
    let rivals = (0..20).map(|n| {
        let text = format!("rival {n}");
        store.append(at_head(store, 1, BRANCH_MAIN, vec![sample(&text)]))
    });
    let outcomes = wait_all(rivals.collect());
    let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert_eq!(won, 1, "one of the rivals wins");
    for lost in outcomes.into_iter().filter(Result::is_err) {
        assert_eq!(code(lost), "BP-STORE-009");
    }
    assert_eq!(seen(store, 1, BRANCH_MAIN).len(), 2);
    let runs = (10..30).map(|number| {
        let (run, started_ms) = (run_id(number), 1);
        store.create_run(RunRow { run, started_ms }, vec![sample("first")])
    });
    assert!(wait_all(runs.collect()).iter().all(Result::is_ok));
    assert_eq!(store.runs().map(|runs| runs.len()), Ok(21));
}

/// Waits for all answers, asked for at once.
fn wait_all<T: Send + 'static>(replies: Vec<Reply<T>>) -> Vec<Result<T, StoreError>> {
    wait(Box::pin(async move {
        let tasks: Vec<_> = replies.into_iter().map(tokio::spawn).collect();
        let mut outcomes = Vec::new();
        for task in tasks {
            outcomes.push(task.await.expect("a store does not panic"));
        }
        Ok(outcomes)
    }))
    .expect("the outcomes are inside")
}

fn atomic(store: &dyn Store) {
    create(store, 1, &["a"]);
    let mut clashing = sample("c");
    clashing.attachments = vec![("body".to_owned(), b"x".to_vec())];
    let mut misnamed = sample("c");
    misnamed.attachments = vec![("Not/A Name".to_owned(), b"x".to_vec())];
    let mut doubled = sample("c");
    doubled.attachments = vec![("raw".to_owned(), vec![]), ("raw".to_owned(), vec![])];
    let mut early = sample("c");
    early.causes = vec![Cause { link: Link::ResultOf, seq: 2 }];
    for bad in [clashing, misnamed, doubled, early] {
        let batch = vec![sample("b"), bad, sample("d")];
        let refused = wait(store.append(at_head(store, 1, BRANCH_MAIN, batch)));
        assert_eq!(code(refused), "BP-STORE-018");
    }
    assert_eq!(seen(store, 1, BRANCH_MAIN), ["a"]);
    assert_verifies(store, 1);
}

fn attachments(store: &dyn Store) {
    create(store, 1, &["a"]);
    let sizes = [0, 1, 127, 131_071, 131_072, 131_073, 1_500_000];
    let mut record = sample("with attachments");
    record.attachments = sizes
        .iter()
        .map(|size| (format!("size-{size}"), noise(*size, 1)))
        .chain([("zeros".to_owned(), vec![0; 1_000_000])])
        .collect();
    let given = record.attachments.clone();
    wait(store.append(at_head(store, 1, BRANCH_MAIN, vec![record]))).expect("an append");
    let get = |seq, name: &str| store.attachment(&run_id(1), BRANCH_MAIN, seq, name);
    for (name, bytes) in given {
        assert!(get(1, &name) == Ok(Some(bytes)), "{name} comes back");
        assert_eq!(get(0, &name), Ok(None));
    }
    for absent in ["body", "actor", "other", ""] {
        assert_eq!(get(1, absent), Ok(None));
    }
    assert_eq!(get(99, "zeros"), Ok(None));
    assert_verifies(store, 1);
}

fn forks(store: &dyn Store) {
    create(store, 1, &["a", "b", "c"]);
    let run = run_id(1);
    let fork = |parent, at| wait(store.fork_branch(&run, parent, at)).expect("a fork");
    let (early, late) = (fork(BRANCH_MAIN, 0), fork(BRANCH_MAIN, 2));
    assert_eq!((early, late), (1, 2), "branches are numbered in order");
    add(store, 1, BRANCH_MAIN, &["d"]);
    add(store, 1, early, &["B", "C"]);
    let inner = fork(early, 1);
    let deep = fork(inner, 0);
    add(store, 1, inner, &["x"]);
    assert_eq!(seen(store, 1, BRANCH_MAIN), ["a", "b", "c", "d"]);
    assert_eq!(seen(store, 1, early), ["a", "B", "C"]);
    assert_eq!(seen(store, 1, late), ["a", "b", "c"]);
    assert_eq!(seen(store, 1, inner), ["a", "B", "x"]);
    assert_eq!(seen(store, 1, deep), ["a"]);
    let records = store.records(&run, inner, 0).expect("read");
    let branches: Vec<_> = records.iter().map(|record| record.stamp.branch).collect();
    assert_eq!(branches, [BRANCH_MAIN, early, inner]);
    let branches = store.branches(&run).expect("read");
    let forked: Vec<_> = branches.iter().map(|branch| branch.forked.clone()).collect();
    let left = |branch, at_seq| Some(ForkPoint { run: run.clone(), branch, at_seq });
    assert_eq!(forked, [None, left(0, 0), left(0, 2), left(early, 1), left(inner, 0)]);
    let report = store.verify(&run).expect("read");
    assert_eq!((report.branches, report.records), (5, 7));
    assert_verifies(store, 1);
}

fn bad_forks(store: &dyn Store) {
    create(store, 1, &["a"]);
    for (parent, at) in [(0, 1), (0, u64::MAX), (1, 0)] {
        let refused = wait(store.fork_branch(&run_id(1), parent, at));
        assert_eq!(code(refused), "BP-STORE-016");
    }
    assert_eq!(store.branches(&run_id(1)).map(|all| all.len()), Ok(1));
}

fn deep_forks(store: &dyn Store) {
    create(store, 1, &["a"]);
    let mut parent = BRANCH_MAIN;
    for _ in 0..FORK_DEPTH_MAX {
        parent = wait(store.fork_branch(&run_id(1), parent, 0)).expect("a fork");
    }
    let refused = wait(store.fork_branch(&run_id(1), parent, 0));
    assert_eq!(code(refused), "BP-STORE-014");
    add(store, 1, parent, &["b"]);
    assert_eq!(seen(store, 1, parent), ["a", "b"]);
    assert!(wait(store.fork_branch(&run_id(1), BRANCH_MAIN, 0)).is_ok());
}

/// A run of this number that goes on from a record of another's branch.
fn fork_run(
    store: &dyn Store,
    number: u8,
    (of, branch, at_seq): (u8, BranchId, u64),
) -> Result<Created, StoreError> {
    let row = RunRow { run: run_id(number), started_ms: 2000 + u64::from(number) };
    let from = ForkPoint { run: run_id(of), branch, at_seq };
    wait(store.fork_run(row, from, vec![forked(of, at_seq)]))
}

/// The first record that a forked run has of its own.
///
/// # Panics
/// Never: a number is an id.
#[must_use]
pub fn forked(of: u8, at: u64) -> NewRecord {
    let body = Body::Forked { origin: run_id(of), at, by: "ada".to_owned(), attempt: None };
    NewRecord { body, ..sample("") }
}

fn forked_runs(store: &dyn Store) {
    create(store, 1, &["a", "b", "c"]);
    let created = fork_run(store, 2, (1, BRANCH_MAIN, 1)).expect("a fork");
    assert_eq!((created.epoch, created.records[0].stamp.seq), (1, 2));
    assert_eq!(created.records[0].stamp.run, run_id(2));
    add(store, 1, BRANCH_MAIN, &["d"]);
    add(store, 2, BRANCH_MAIN, &["B"]);
    // What it shares is not its own to leave from.
    assert_eq!(code(wait(store.fork_branch(&run_id(2), BRANCH_MAIN, 1))), "BP-STORE-016");
    let branch = wait(store.fork_branch(&run_id(2), BRANCH_MAIN, 2)).expect("a branch");
    add(store, 2, branch, &["x"]);
    fork_run(store, 3, (2, branch, 3)).expect("a fork of a fork");
    let runs = |number: u8| -> Vec<u8> {
        let records = store.records(&run_id(number), BRANCH_MAIN, 0).expect("read");
        let of = |record: &Record| (1..4).find(|n| run_id(*n) == record.stamp.run);
        records.iter().map(|record| of(record).expect("one of three")).collect()
    };
    let third = vec![1, 1, 2, 2, 3];
    assert_eq!((runs(1), runs(2), runs(3)), (vec![1; 4], vec![1, 1, 2, 2], third));
    assert_eq!(seen(store, 1, BRANCH_MAIN), ["a", "b", "c", "d"]);
    let left = |run: u8| store.branches(&run_id(run)).expect("read")[0].forked.clone();
    let from = |run: u8, branch, at_seq| Some(ForkPoint { run: run_id(run), branch, at_seq });
    assert_eq!((left(1), left(2), left(3)), (None, from(1, 0, 1), from(2, branch, 3)));
    for number in 1..4 {
        assert_verifies(store, number);
    }
    // Each run is its owner's alone.
    assert_eq!(wait(store.claim(&run_id(2))), Ok(2));
    let mut stale = at_head(store, 2, BRANCH_MAIN, vec![sample("y")]);
    stale.epoch = 1;
    assert_eq!(code(wait(store.append(stale))), "BP-STORE-009");
    add(store, 1, BRANCH_MAIN, &["e"]);
    assert_eq!(code(fork_run(store, 2, (1, 0, 0))), "BP-STORE-015");
    assert_eq!(code(fork_run(store, 4, (1, 0, 9))), "BP-STORE-016");
    assert_eq!(code(fork_run(store, 4, (1, 7, 0))), "BP-STORE-016");
    assert_eq!(code(fork_run(store, 4, (5, 0, 0))), "BP-STORE-007");
    assert_eq!(store.find("last"), Ok(run_id(3)), "what was refused left nothing");
}

fn forked_runs_end(store: &dyn Store) {
    create(store, 1, &["a"]);
    let mut record = sample("secret");
    record.attachments = vec![("large".to_owned(), vec![7; 300_000])];
    wait(store.append(at_head(store, 1, BRANCH_MAIN, vec![record]))).expect("an append");
    for number in 2..5 {
        fork_run(store, number, (number - 1, BRANCH_MAIN, 1)).expect("a fork");
    }
    let shared = store.attachment(&run_id(4), BRANCH_MAIN, 1, "large");
    assert_eq!(shared.map(|bytes| bytes.map(|bytes| bytes.len())), Ok(Some(300_000)));
    assert_eq!(code(wait(store.remove(&run_id(1)))), "BP-STORE-019");
    assert_eq!(wait(store.remove(&run_id(4))), Ok(()));
    assert_eq!(wait(store.gc()).map(|report| report.blobs), Ok(0));
    assert_eq!(seen(store, 1, BRANCH_MAIN), ["a", "secret"]);
    fork_run(store, 4, (3, BRANCH_MAIN, 1)).expect("its number is free");
    assert_eq!(wait(store.erase(&run_id(3))), Ok(()));
    for number in 1..5 {
        assert_eq!(code(store.records(&run_id(number), BRANCH_MAIN, 0)), "BP-STORE-013");
        assert_eq!(store.attachment(&run_id(number), BRANCH_MAIN, 1, "large"), Ok(None));
        let report = store.verify(&run_id(number)).expect("read");
        assert!(report.is_ok() && report.erased);
    }
    assert_eq!(code(fork_run(store, 5, (1, BRANCH_MAIN, 0))), "BP-STORE-013");
    for number in [4, 3, 2, 1] {
        assert_eq!(wait(store.remove(&run_id(number))), Ok(()));
    }
}

fn erased(store: &dyn Store) {
    let mut record = sample("secret");
    record.attachments =
        vec![("small".to_owned(), vec![1]), ("large".to_owned(), vec![7; 300_000])];
    create(store, 1, &["a"]);
    wait(store.append(at_head(store, 1, BRANCH_MAIN, vec![record]))).expect("an append");
    let fork = wait(store.fork_branch(&run_id(1), BRANCH_MAIN, 0)).expect("a fork");
    create(store, 2, &["other"]);
    let before = store.headers_page(&run_id(1), BRANCH_MAIN, 0, 9);
    for _ in 0..2 {
        assert_eq!(wait(store.erase(&run_id(1))), Ok(()));
    }
    for branch in [BRANCH_MAIN, fork] {
        assert_eq!(code(store.records(&run_id(1), branch, 0)), "BP-STORE-013");
    }
    for name in ["small", "large"] {
        assert_eq!(store.attachment(&run_id(1), BRANCH_MAIN, 1, name), Ok(None));
    }
    let append = at_head(store, 1, BRANCH_MAIN, vec![sample("more")]);
    assert_eq!(code(wait(store.append(append))), "BP-STORE-013");
    assert_eq!(store.headers_page(&run_id(1), BRANCH_MAIN, 0, 9), before);
    let report = store.verify(&run_id(1)).expect("read");
    assert!(report.is_ok() && report.erased && report.records == 2);
    let runs = store.runs().expect("read");
    assert!(runs[1].erased && runs[1].last.is_none());
    assert_eq!(runs[1].head_kind, "signal_received");
    assert_eq!(seen(store, 2, BRANCH_MAIN), ["other"]);
}

fn removed(store: &dyn Store) {
    let many: Vec<String> = (0..450).map(|n| format!("record {n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    create(store, 1, &many);
    create(store, 2, &["other"]);
    wait(store.fork_branch(&run_id(1), BRANCH_MAIN, 3)).expect("a fork");
    assert_eq!(wait(store.remove(&run_id(1))), Ok(()));
    assert_eq!(code(store.records(&run_id(1), BRANCH_MAIN, 0)), "BP-STORE-007");
    assert_eq!(code(wait(store.remove(&run_id(1)))), "BP-STORE-007");
    assert_eq!(store.find("last"), Ok(run_id(2)));
    assert_eq!(seen(store, 2, BRANCH_MAIN), ["other"]);
    create(store, 1, &["anew"]);
    assert_eq!(seen(store, 1, BRANCH_MAIN), ["anew"]);
    assert_verifies(store, 1);
    assert_verifies(store, 2);
}

fn found(store: &dyn Store) {
    let ids = ["aaaaaaaaaaaa", "aaaaaaaaaaab", "abaaaaaaaaaa", "ccccccccccc0"];
    for (started_ms, id) in (0..).zip(ids) {
        let run = RunId::parse(id).expect("an id");
        wait(store.create_run(RunRow { run, started_ms }, Vec::new())).expect("a new run");
    }
    let find = |text: &str| store.find(text).map(|run| run.to_string());
    for (text, expected) in
        [("c", ids[3]), ("ab", ids[2]), ("aaaaaaaaaaab", ids[1]), ("last", ids[3])]
    {
        assert_eq!(find(text).as_deref(), Ok(expected));
    }
    for none in ["", "d", "aaaaaaaaaaaaa", "%", "_", "AB", "a b", "las"] {
        assert_eq!(code(find(none)), "BP-STORE-007");
    }
    let ambiguous = find("aa").expect_err("two fit");
    assert_eq!(ambiguous.code(), "BP-STORE-008");
    assert_eq!(ambiguous.to_string(), "'aa' fits several runs: aaaaaaaaaaaa, aaaaaaaaaaab");
    for id in ["adaaaaaaaaaa", "aeaaaaaaaaaa", "afaaaaaaaaaa"] {
        let (run, started_ms) = (RunId::parse(id).expect("an id"), 9);
        wait(store.create_run(RunRow { run, started_ms }, Vec::new())).expect("a new run");
    }
    let crowded = find("a").expect_err("six fit").to_string();
    assert!(crowded.ends_with(" and more"), "{crowded}");
}

fn listed(store: &dyn Store) {
    for (number, started_ms) in [(1, 50), (2, 70), (3, 60), (4, 60)] {
        let run = run_id(number);
        wait(store.create_run(RunRow { run, started_ms }, Vec::new())).expect("a new run");
    }
    add(store, 3, BRANCH_MAIN, &["a", "b"]);
    wait(store.claim(&run_id(3))).expect("a claim");
    let runs = store.runs().expect("read");
    let order: Vec<_> = runs.iter().map(|row| row.run.clone()).collect();
    assert_eq!(order, [2, 4, 3, 1].map(run_id), "newest first, then latest created");
    assert_eq!((runs[0].head_seq, runs[0].epoch, &runs[0].last), (None, 1, &None));
    let busy = &runs[2];
    assert_eq!((busy.head_seq, busy.epoch, busy.started_ms), (Some(1), 2, 60));
    assert_eq!(busy.head_kind, "signal_received");
    let last = busy.last.clone().expect("a last record");
    assert_eq!(texts(&[last]), ["b"]);
}

fn paged(store: &dyn Store) {
    let many: Vec<String> = (0..BATCH_RECORDS_MAX).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    create(store, 1, &many);
    let fork = wait(store.fork_branch(&run_id(1), BRANCH_MAIN, 700)).expect("a fork");
    add(store, 1, fork, &["x", "y"]);
    assert_eq!(seen(store, 1, BRANCH_MAIN), many);
    let expected = [&many[..=700], &["x", "y"]].concat();
    assert_eq!(seen(store, 1, fork), expected);
    for (from, limit, count) in [(0, 0, 0), (699, 3, 3), (700, 9, 3), (702, 9, 1), (703, 9, 0)] {
        let page = store.records_page(&run_id(1), fork, from, limit).expect("read");
        let start = usize::try_from(from).expect("small");
        assert_eq!(texts(&page), expected[start..start + count]);
        let headers = store.headers_page(&run_id(1), fork, from, limit).expect("read");
        assert_eq!(headers.len(), count);
    }
    assert_eq!(store.records_page(&run_id(1), fork, u64::MAX, 9), Ok(Vec::new()));
    assert_verifies(store, 1);
}

fn settings(store: &dyn Store) {
    for (name, value) in [("a", &b"1"[..]), ("b", b""), ("a", b"2"), ("naïve key", &[0, 255])] {
        assert_eq!(wait(store.set_setting(name, value)), Ok(()));
    }
    for (name, value) in [("a", &b"2"[..]), ("b", b""), ("naïve key", &[0, 255])] {
        assert_eq!(store.setting(name), Ok(Some(value.to_vec())));
    }
    assert_eq!(store.setting("c"), Ok(None));
}

fn limits(store: &dyn Store) {
    create(store, 1, &["a"]);
    let refused = |records| {
        let outcome = wait(store.append(at_head(store, 1, BRANCH_MAIN, records)));
        assert_eq!(code(outcome), "BP-STORE-014");
    };
    refused(vec![sample("x"); BATCH_RECORDS_MAX + 1]);
    let mut large = sample("x");
    let size = usize::try_from(BATCH_BYTES_MAX).expect("fits");
    large.attachments = vec![("raw".to_owned(), vec![0; size])];
    refused(vec![large]);
    let mut late = at_head(store, 1, BRANCH_MAIN, vec![sample("x")]);
    late.next_seq = u64::MAX;
    assert_eq!(code(wait(store.append(late))), "BP-STORE-014");
    let full = vec![sample("x"); BATCH_RECORDS_MAX];
    let written = wait(store.append(at_head(store, 1, BRANCH_MAIN, full)));
    assert_eq!(written.map(|records| records.len()), Ok(BATCH_RECORDS_MAX));
    let none = wait(store.append(at_head(store, 1, BRANCH_MAIN, Vec::new())));
    assert_eq!(none, Ok(Vec::new()));
}

fn collected(store: &dyn Store) {
    create(store, 1, &["a"]);
    let mut record = sample("b");
    record.attachments = vec![("large".to_owned(), vec![7; 400_000])];
    wait(store.append(at_head(store, 1, BRANCH_MAIN, vec![record]))).expect("an append");
    wait(store.gc()).expect("a collection");
    let kept = store.attachment(&run_id(1), BRANCH_MAIN, 1, "large");
    assert!(kept == Ok(Some(vec![7; 400_000])), "it is still there");
    assert_verifies(store, 1);
}

fn evident(store: &dyn Store) {
    let mut record = sample("b");
    record.attachments = vec![("raw".to_owned(), b"bytes".to_vec())];
    create(store, 1, &["a"]);
    wait(store.append(at_head(store, 1, BRANCH_MAIN, vec![record]))).expect("an append");
    let evidence = store.evidence_page(&run_id(1), BRANCH_MAIN, 0, 9).expect("read");
    let head = store.head(&run_id(1), BRANCH_MAIN).expect("read");
    let headers: Arc<[_]> = evidence.iter().map(|one| one.header.clone()).collect();
    assert_eq!(ledger::verify_chain(headers.iter(), head), Ok(head));
    for one in &evidence {
        let header = ledger::decode(&one.header).expect("a header");
        assert_eq!(header.commitments.len(), one.contents.len());
        for (name, content) in &one.contents {
            let Content::Present(salt, bytes) = content else {
                panic!("{name} is there");
            };
            let standing = ledger::verify_content(&header, name, Some((salt, bytes)));
            assert_eq!(standing, Ok(ledger::Standing::Intact));
        }
    }
    assert_eq!(evidence[1].contents[2].0, "raw");
}
