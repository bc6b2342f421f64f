//! Both implementations through the one kit.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use store::{MemoryStore, SqliteStore, Store, conformance};

#[test]
fn the_memory_store_conforms() {
    conformance::run(|| Box::new(MemoryStore::new()));
}

#[test]
fn the_sqlite_store_conforms() {
    let homes = tempfile::tempdir().unwrap();
    let count = std::cell::Cell::new(0);
    conformance::run(|| {
        count.set(count.get() + 1);
        let home = homes.path().join(count.get().to_string());
        Box::new(SqliteStore::open(&home).unwrap()) as Box<dyn Store>
    });
}
