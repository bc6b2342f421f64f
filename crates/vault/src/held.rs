//! Secrets held in memory by whoever uses them often: each is opened once, and again when its
//! record or the key's file is another.
//!
//! What always holds: a value is given only while the record it was read from lies in its place
//! and the key's file is the one that opened it. Whatever cannot be opened now is an error now,
//! and the value held before is wiped. No error is held: the next use tries again.

use crate::files::Stamp;
use crate::{Credential, KeySource, Result, Vault};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Values held at once; when there are more, all are wiped and read again as they are used.
pub const HELD_MAX: usize = 256;

/// The secrets of one home, as one user of them has opened them.
#[derive(Debug)]
pub struct Held {
    home: PathBuf,
    source: KeySource,
    values: BTreeMap<String, Opened>,
    /// How often a record was opened.
    opened: u64,
}

#[derive(Debug)]
struct Opened {
    record: Stamp,
    key: Option<Stamp>,
    value: Credential,
}

impl Held {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(home: &Path, source: KeySource) -> Self {
        Self { home: home.to_owned(), source, values: BTreeMap::new(), opened: 0 }
    }

    /// A secret's value as it is now.
    ///
    /// # Errors
    /// As [`Vault::open`] and [`Vault::credential`].
    pub fn get(&mut self, name: &str) -> Result<&Credential> {
        crate::check_name(name)?;
        let vault = Vault::open_with(&self.home, self.source.clone())?;
        // The stamps come first: a record that is replaced while it is read is read again.
        let (record, key) = (vault.stamp(name), self.source.stamp());
        let fresh = self.values.get(name).is_some_and(|held| {
            Some(held.record) == record && held.key == key && self.source.is_file() == key.is_some()
        });
        if !fresh {
            self.values.remove(name);
            let value = vault.credential(name)?;
            self.opened += 1;
            if self.values.len() >= HELD_MAX {
                self.values.clear();
            }
            let record = record.ok_or_else(|| vault.no_such(name))?;
            self.values.insert(name.to_owned(), Opened { record, key, value });
        }
        Ok(&self.values.get(name).expect("it was held, or is now").value)
    }

    /// How often a record was opened since [`Held::new`].
    #[must_use]
    pub const fn opened(&self) -> u64 {
        self.opened
    }
}
