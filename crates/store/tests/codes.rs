//! Every error has its code, a page for it, and a next step.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use store::StoreError;
use store::conformance::run_id;
use types::Coded as _;

fn check(error: &StoreError, code: &str, message: &str) {
    assert_eq!(error.code(), code);
    assert_eq!(error.to_string(), message);
    assert!(error.next().ends_with(|end: char| !end.is_whitespace()), "{code} has a next step");
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
    let page = std::fs::read_to_string(pages.join(format!("{code}.md"))).unwrap();
    assert!(page.starts_with(&format!("# {code}: ")), "{code} has a page");
    for part in ["\n## Meaning\n", "\n## Cause\n", "\n## What to do\n"] {
        assert!(page.contains(part), "{code}: {part}");
    }
}

#[test]
fn errors_of_a_home_say_what_is_wrong_with_it() {
    let (path, why) = ("/h".to_owned(), "because".to_owned());
    let home = |make: fn(String, String) -> StoreError| make(path.clone(), why.clone());
    check(
        &home(|path, why| StoreError::HomeUnusable { path, why }),
        "BP-STORE-001",
        "cannot use /h as home: because",
    );
    check(
        &home(|path, why| StoreError::HomeReadOnly { path, why }),
        "BP-STORE-002",
        "cannot write in /h: because",
    );
    check(
        &home(|path, _| StoreError::HomeNotOurs { path, owner: 0, user: 7 }),
        "BP-STORE-003",
        "/h belongs to user 0, and this is user 7",
    );
    check(
        &home(|path, why| StoreError::NotALog { path, why }),
        "BP-STORE-004",
        "/h is not a Bedplate log: because",
    );
    check(
        &home(|path, _| StoreError::WrongVersion { path, found: 9, supported: 1 }),
        "BP-STORE-005",
        "/h has log version 9, and this program reads version 1",
    );
    check(
        &home(|path, _| StoreError::Busy { path }),
        "BP-STORE-006",
        "another process has /h open for writing",
    );
}

#[test]
fn errors_of_a_run_name_it() {
    let (run, text) = (run_id(7), "7".to_owned());
    check(&StoreError::NoSuchRun { text: text.clone() }, "BP-STORE-007", "there is no run '7'");
    let candidates = vec!["71".to_owned(), "72".to_owned()];
    check(
        &StoreError::AmbiguousRun { text, candidates, more: true },
        "BP-STORE-008",
        "'7' fits several runs: 71, 72 and more",
    );
    check(
        &StoreError::Fenced {
            run: run.clone(),
            branch: 0,
            given_seq: 4,
            next_seq: 5,
            given_epoch: 1,
            epoch: 2,
        },
        "BP-STORE-009",
        "refused to append record 4 to run 700000000000 with epoch 1: the log stands at record 5, epoch 2",
    );
    check(
        &StoreError::Erased { run: run.clone() },
        "BP-STORE-013",
        "the content of run 700000000000 was erased",
    );
    check(
        &StoreError::RunExists { run: run.clone() },
        "BP-STORE-015",
        "there is a run 700000000000 already",
    );
    check(
        &StoreError::NoSuchPlace { run: run.clone(), what: "branch 3".to_owned() },
        "BP-STORE-016",
        "run 700000000000 has no branch 3",
    );
    let why = "its body: it is cut short".to_owned();
    check(
        &StoreError::Damaged { run: run.clone(), seq: 2, why },
        "BP-STORE-017",
        "record 2 of run 700000000000 cannot be read: its body: it is cut short",
    );
    check(
        &StoreError::HasForks { run: run.clone(), forks: vec!["71".to_owned()], more: true },
        "BP-STORE-019",
        "runs share records of 700000000000: 71 and more",
    );
    check(
        &StoreError::BadRecord { run, seq: 2, why: ledger::HeaderFault::Cause(9) },
        "BP-STORE-018",
        "record 2 of run 700000000000 may not be written: it names record 9 as a cause, which does not come before it",
    );
}

#[test]
fn errors_of_the_device_and_of_limits_say_why() {
    let why = "no space".to_owned();
    check(&StoreError::Full { why: why.clone() }, "BP-STORE-010", "the log cannot grow: no space");
    check(
        &StoreError::Io { doing: "write to the log".to_owned(), why: why.clone() },
        "BP-STORE-011",
        "cannot write to the log: no space",
    );
    check(&StoreError::Stopped { why }, "BP-STORE-012", "the log's writer stopped: no space");
    check(
        &StoreError::TooLarge { what: "the depth of forks", given: 257, max: 256 },
        "BP-STORE-014",
        "the depth of forks is 257, and 256 is the limit",
    );
}
