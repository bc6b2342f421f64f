//! An append that the system cuts off in the middle of a write leaves nothing, and the next one works.
//!
//! The system is made to fail by a limit on the size of files, which a child process puts on itself:
//! writes beyond it fail in the middle of a commit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::process::Command;
use store::conformance::{noise, run_id, sample, wait};
use store::{Append, Durability, Read as _, RunRow, SqliteStore, Store as _};
use types::{BRANCH_MAIN, Coded as _};

const CHILD: &str = "BEDPLATE_TEST_LIMITED_CHILD";
/// Far below what the appends below write.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Without the environment variable there is no limit, and every append must succeed.
#[test]
fn the_appends_of_the_limited_child() {
    let limited = std::env::var_os(CHILD).is_some();
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path()).unwrap();
    let (run, started_ms) = (run_id(1), 1);
    wait(store.create_run(RunRow { run, started_ms }, vec![sample("first")])).unwrap();
    let append = |bytes| {
        let mut record = sample("more");
        record.attachments = vec![("noise".to_owned(), noise(bytes, 3))];
        wait(store.append(Append {
            run: run_id(1),
            branch: BRANCH_MAIN,
            next_seq: store.head(&run_id(1), BRANCH_MAIN).unwrap().next_seq,
            epoch: 1,
            records: vec![sample("before"), record],
            durability: Durability::Synced,
        }))
    };
    let before = getrlimit(Resource::Fsize);
    if limited {
        let current = Some(FILE_BYTES_MAX);
        setrlimit(Resource::Fsize, Rlimit { current, ..before }).unwrap();
    }
    for bytes in [100_000, 1_000_000, 100_000] {
        match append(bytes) {
            Ok(_) => assert!(!limited, "{bytes} bytes do not fit below the limit"),
            Err(error) => {
                assert!(limited, "{error}");
                // SQLite does not say of a write why it failed; a payload's file does.
                let code = if bytes == 1_000_000 { "BP-STORE-010" } else { "BP-STORE-011" };
                assert_eq!(error.code(), code, "{error}");
            }
        }
    }
    setrlimit(Resource::Fsize, before).unwrap();
    append(100_000).expect("there is room again");
    let expected = if limited { 3 } else { 9 };
    let report = store.verify(&run_id(1)).unwrap();
    assert_eq!((report.faults, report.records), (vec![], expected));
    drop(store);
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.verify(&run_id(1)).unwrap().records, expected);
}

#[test]
fn a_write_cut_off_by_the_system_leaves_nothing_behind() {
    let test = std::env::current_exe().unwrap();
    // A process that ignores the signal gets the error instead.
    let status = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact the_appends_of_the_limited_child"])
        .arg(test)
        .env(CHILD, "1")
        .status()
        .unwrap();
    assert!(status.success());
}
