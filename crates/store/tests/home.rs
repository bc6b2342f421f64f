//! Which homes are used, which are refused, and that a refused one is left as it was.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use store::conformance::{run_id, sample, wait};
use store::{Read as _, Reader, RunRow, SqliteStore, Store as _};
use types::{BRANCH_MAIN, Coded as _};

/// Every path below `dir` with its mode and content.
fn picture(dir: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_dir() {
            let entries = std::fs::read_dir(&path).unwrap();
            left.extend(entries.map(|entry| entry.unwrap().path()));
            Vec::new()
        } else {
            std::fs::read(&path).unwrap()
        };
        found.insert(path, (meta.permissions().mode(), content));
    }
    found
}

/// Opening `home` for writing is refused with `code`, and changes nothing below `around`.
fn refused(home: &Path, around: &Path, code: &str) {
    let before = picture(around);
    let error = SqliteStore::open(home).expect_err("this home is refused");
    assert_eq!(error.code(), code, "{error}");
    assert!(!error.next().is_empty());
    assert_eq!(picture(around), before, "a refused home is left as it was");
}

fn made_home(dir: &Path) -> PathBuf {
    let home = dir.join("home");
    let store = SqliteStore::open(&home).unwrap();
    let (run, started_ms) = (run_id(1), 1);
    wait(store.create_run(RunRow { run, started_ms }, vec![sample("kept")])).unwrap();
    home
}

#[test]
fn a_new_home_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("deep/home");
    let _store = SqliteStore::open(&home).unwrap();
    for (path, (mode, _)) in picture(&home) {
        assert_eq!(mode & 0o077, 0, "{} is ours alone", path.display());
    }
}

#[test]
fn a_file_is_no_home() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    refused(&file, dir.path(), "BP-STORE-001");
    refused(&file.join("below"), dir.path(), "BP-STORE-001");
    assert_eq!(Reader::open(&file).unwrap_err().code(), "BP-STORE-001");
    let home = dir.path().join("home");
    std::fs::create_dir(&home).unwrap();
    std::fs::write(home.join("log"), "a file where the log's directory goes").unwrap();
    refused(&home, dir.path(), "BP-STORE-001");
}

#[test]
fn a_place_that_cannot_be_written_is_refused() {
    // Nobody, root included, makes directories there.
    let error = SqliteStore::open(Path::new("/sys/bedplate-home")).unwrap_err();
    assert_eq!(error.code(), "BP-STORE-002", "{error}");
}

#[test]
fn the_home_of_another_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    if rustix::process::geteuid().is_root() {
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let other = Some(rustix::fs::Uid::from_raw(4242));
        rustix::fs::chown(&home, other, None).unwrap();
        refused(&home, dir.path(), "BP-STORE-003");
    } else {
        refused(Path::new("/"), dir.path(), "BP-STORE-003");
    }
}

#[test]
fn files_of_other_programs_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    std::fs::create_dir(&log).unwrap();
    let foreign = dir.path().join("foreign.db");
    let conn = rusqlite::Connection::open(&foreign).unwrap();
    conn.execute_batch("CREATE TABLE recipes (name)").unwrap();
    conn.close().unwrap();
    for content in [Vec::new(), b"text".to_vec(), vec![7; 5000], std::fs::read(&foreign).unwrap()] {
        std::fs::write(log.join("log.db"), content).unwrap();
        refused(dir.path(), dir.path(), "BP-STORE-004");
        assert_eq!(Reader::open(dir.path()).unwrap_err().code(), "BP-STORE-004");
    }
}

#[test]
fn another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let home = made_home(dir.path());
    let db = home.join("log/log.db");
    let mut bytes = std::fs::read(&db).unwrap();
    bytes[60..64].copy_from_slice(&77u32.to_be_bytes());
    std::fs::write(&db, bytes).unwrap();
    refused(&home, dir.path(), "BP-STORE-005");
    let error = Reader::open(&home).unwrap_err();
    assert_eq!(error.code(), "BP-STORE-005");
    assert!(error.to_string().contains("has log version 77"), "{error}");
}

#[test]
fn one_process_writes_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let first = SqliteStore::open(&home).unwrap();
    assert_eq!(SqliteStore::open(&home).unwrap_err().code(), "BP-STORE-006");
    drop(first);
    SqliteStore::open(&home).unwrap();
}

#[test]
fn a_half_made_log_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    std::fs::create_dir(&log).unwrap();
    for left in ["log.db.new", "log.db.new-journal", "log.db.new-wal"] {
        std::fs::write(log.join(left), "cut off by a crash").unwrap();
    }
    let store = SqliteStore::open(dir.path()).unwrap();
    assert_eq!(store.runs(), Ok(Vec::new()));
    assert!(!log.join("log.db.new").exists());
}

#[test]
fn what_was_written_is_there_when_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let home = made_home(dir.path());
    for _ in 0..2 {
        let store = SqliteStore::open(&home).unwrap();
        assert_eq!(store.records(&run_id(1), BRANCH_MAIN, 0).unwrap().len(), 1);
        assert!(store.verify(&run_id(1)).unwrap().is_ok());
    }
    assert!(!home.join("log/log.db-wal").exists(), "closed cleanly");
}

#[test]
fn a_reader_needs_no_owner_and_no_home() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    let reader = Reader::open(&missing).unwrap();
    assert_eq!(reader.runs(), Ok(Vec::new()));
    assert_eq!(reader.setting("x"), Ok(None));
    assert_eq!(reader.find("last").unwrap_err().code(), "BP-STORE-007");
    assert!(!missing.exists(), "reading makes nothing");
    let home = made_home(dir.path());
    let reader = Reader::open(&home).unwrap();
    assert_eq!(reader.records(&run_id(1), BRANCH_MAIN, 0).unwrap().len(), 1);
    let store = SqliteStore::open(&home).unwrap();
    let (run, started_ms) = (run_id(2), 2);
    wait(store.create_run(RunRow { run, started_ms }, vec![sample("new")])).unwrap();
    assert_eq!(reader.runs().unwrap().len(), 2, "a reader sees what the owner writes");
    drop(store);
    assert_eq!(reader.records(&run_id(2), BRANCH_MAIN, 0).unwrap().len(), 1);
}

#[test]
fn a_reader_finds_a_home_that_is_made_later() {
    let dir = tempfile::tempdir().unwrap();
    let reader = Reader::open(&dir.path().join("home")).unwrap();
    assert_eq!(reader.runs(), Ok(Vec::new()));
    made_home(dir.path());
    assert_eq!(reader.runs().unwrap().len(), 1);
}

/// Root may write what its mode forbids: there the test of the whole program mounts it read-only.
#[test]
fn a_log_that_nobody_may_write_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("100% odd? #1 é");
    std::fs::create_dir(&odd).unwrap();
    let home = made_home(&odd);
    let mode = |mode| {
        for dir in [home.clone(), home.join("log")] {
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    mode(0o500);
    let before = picture(&home);
    let reader = Reader::open(&home).unwrap();
    let read = reader.records(&run_id(1), BRANCH_MAIN, 0);
    if !rustix::process::geteuid().is_root() {
        assert_eq!(picture(&home), before);
    }
    drop(reader);
    mode(0o700);
    assert_eq!(read.unwrap().len(), 1);
}

/// A reader that stays keeps the write-ahead log's file from being removed.
#[test]
fn a_closed_log_is_whole_in_its_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let store = SqliteStore::open(&home).unwrap();
    let (run, started_ms) = (run_id(1), 1);
    wait(store.create_run(RunRow { run, started_ms }, vec![sample("kept")])).unwrap();
    let reader = Reader::open(&home).unwrap();
    assert_eq!(reader.records(&run_id(1), BRANCH_MAIN, 0).unwrap().len(), 1);
    drop(store);
    let wal = std::fs::metadata(home.join("log/log.db-wal")).map_or(0, |meta| meta.len());
    assert_eq!(wal, 0, "bytes left in the write-ahead log");
    drop(reader);
    let copy = dir.path().join("copy/log");
    std::fs::create_dir_all(copy.join("keys")).unwrap();
    std::fs::copy(home.join("log/log.db"), copy.join("log.db")).unwrap();
    for key in std::fs::read_dir(home.join("log/keys")).unwrap().flatten() {
        std::fs::copy(key.path(), copy.join("keys").join(key.file_name())).unwrap();
    }
    let copy = Reader::open(&dir.path().join("copy")).unwrap();
    assert_eq!(copy.records(&run_id(1), BRANCH_MAIN, 0).unwrap().len(), 1);
}
