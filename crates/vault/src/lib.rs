//! The secrets of a home, encrypted at rest.
//!
//! ```text
//! HOME/vault.key          the key, made on first use; or the key is named from outside
//! HOME/vault/NAME.secret  one sealed record per secret
//! HOME/vault/lock         held (flock) while one is written or removed
//! ```
//!
//! What always holds: a value lies on the device only encrypted, padded, and bound to its name, kind
//! and version; a record appears whole or not at all; a value in memory is wiped when it is let go,
//! and has no `Debug`. What others may read or write is refused, never repaired.
//!
//! What it never does: print, read the environment, or decide who may use a secret.

mod error;
mod files;
mod held;
mod key;
mod kind;
mod record;

pub use error::VaultError;
pub use held::{HELD_MAX, Held};
pub use key::{KEY_FILE_VARIABLE, KEY_VARIABLE, KeySource};
pub use kind::{AwsKey, ClientAuth, Credential, Kind, OauthClient};
pub use record::Entry;

use files::Dir;
use key::Key;
use record::Header;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Largest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 64 << 10;
/// Longest name, in characters.
pub const NAME_CHARS_MAX: usize = 64;

/// What the functions of this crate give.
pub type Result<T> = std::result::Result<T, VaultError>;

/// A secret's value: wiped when dropped, and shown by nothing but [`SecretText::expose`].
#[derive(PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The value for whoever wipes it himself.
    #[must_use]
    pub fn into_inner(self) -> Zeroizing<String> {
        self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(..)")
    }
}

/// The secrets of one home.
#[derive(Debug)]
pub struct Vault {
    dir: Dir,
    source: KeySource,
}

impl Vault {
    /// The vault of a home, whose key is in the home's key file. Changes nothing: a vault that is
    /// not there reads as empty.
    ///
    /// # Errors
    /// [`VaultError::Exposed`] when others may read or write it.
    pub fn open(home: &Path) -> Result<Self> {
        Self::open_with(home, KeySource::of_home(home))
    }

    /// The same with a key from elsewhere.
    ///
    /// # Errors
    /// As [`Vault::open`].
    pub fn open_with(home: &Path, source: KeySource) -> Result<Self> {
        let dir = Dir::at(home.join("vault"));
        dir.check()?;
        Ok(Self { dir, source })
    }

    /// A secret's value.
    ///
    /// # Errors
    /// [`VaultError::NoSuchSecret`], [`VaultError::WrongKey`], [`VaultError::Damaged`] and whatever
    /// makes the key unusable.
    pub fn get(&self, name: &str) -> Result<SecretText> {
        let (_, value) = self.open_record(name)?;
        Ok(SecretText(value))
    }

    /// A secret's value by its kind.
    ///
    /// # Errors
    /// As [`Vault::get`].
    pub fn credential(&self, name: &str) -> Result<Credential> {
        let (header, value) = self.open_record(name)?;
        kind::credential(header.kind(), &value).map_err(|_| VaultError::Damaged {
            name: name.to_owned(),
            why: "its value is none of its kind".to_owned(),
        })
    }

    /// The names of all secrets, sorted.
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub fn names(&self) -> Result<Vec<String>> {
        self.dir.names()
    }

    /// What is known of all secrets beside their values, sorted by name. Every record is opened:
    /// one that was tampered with is not listed as if it were good.
    ///
    /// # Errors
    /// As [`Vault::get`], for the first that cannot be opened.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let names = self.dir.names()?;
        let entry = |name: &String| Ok(self.open_record(name)?.0.entry());
        names.iter().map(entry).collect()
    }

    /// Sets a secret, new or again, at this wall time in milliseconds. The key file is made when
    /// there is neither key nor secret. What the secret was before is overwritten.
    ///
    /// # Errors
    /// When name or value cannot be used, or as [`Vault::get`]. Then the secret is as it was.
    pub fn set(&self, name: &str, kind: Kind, value: &str, now_ms: u64) -> Result<Entry> {
        check_name(name)?;
        check_value(value)?;
        let value = kind::admit(kind, value)?;
        check_value(&value)?;
        self.dir.prepare()?;
        let _lock = self.dir.lock()?;
        self.dir.sweep()?;
        let before = match self.dir.read(name)? {
            Some(bytes) => Some(record::open(&self.key()?, name, &bytes)?.0),
            None => None,
        };
        let key = match self.source.load()? {
            Some(key) => key,
            None if self.dir.names()?.is_empty() => self.source.make()?,
            None => return Err(self.source.missing()),
        };
        self.check_others(name, &key)?;
        let header = Header::next(name, kind, before.as_ref(), &key, now_ms);
        let sealed = record::seal(&key, &header, value.as_bytes())?;
        self.dir.replace(name, &sealed)?;
        Ok(header.entry())
    }

    /// Overwrites and removes a secret. The key is not needed.
    ///
    /// # Errors
    /// [`VaultError::NoSuchSecret`], [`VaultError::Io`].
    pub fn remove(&self, name: &str) -> Result<()> {
        check_name(name)?;
        if !self.dir.has(name) {
            return Err(self.no_such(name));
        }
        let _lock = self.dir.lock()?;
        if self.dir.destroy(name)? { Ok(()) } else { Err(self.no_such(name)) }
    }

    /// One vault has one key: a second one, named by mistake, would split it.
    fn check_others(&self, name: &str, key: &Key) -> Result<()> {
        for other in self.dir.names()?.into_iter().filter(|other| other != name) {
            // One that cannot be read says so when it is asked for.
            let Ok(Some(bytes)) = self.dir.read(&other) else { continue };
            if record::mark_of(&bytes).is_some_and(|mark| mark != key.mark()) {
                return Err(VaultError::WrongKey { name: other });
            }
        }
        Ok(())
    }

    fn key(&self) -> Result<Key> {
        self.source.load()?.ok_or_else(|| self.source.missing())
    }

    fn open_record(&self, name: &str) -> Result<(Header, Zeroizing<String>)> {
        check_name(name)?;
        let key = self.key_for(name)?;
        let read = || {
            let bytes = self.dir.read(name)?.ok_or_else(|| self.no_such(name))?;
            record::open(&key, name, &bytes)
        };
        match read() {
            // It may have been replaced, and what was there before overwritten, while it was read.
            Err(damaged @ VaultError::Damaged { .. }) => {
                let Ok(_lock) = self.dir.lock() else { return Err(damaged) };
                read()
            }
            opened => opened,
        }
    }

    /// The key, once it is known that there is something to open with it.
    fn key_for(&self, name: &str) -> Result<Key> {
        if self.dir.read(name)?.is_none() {
            return Err(self.no_such(name));
        }
        self.key()
    }

    pub(crate) fn stamp(&self, name: &str) -> Option<files::Stamp> {
        self.dir.stamp(name)
    }

    pub(crate) fn no_such(&self, name: &str) -> VaultError {
        let names = self.dir.names().unwrap_or_default();
        let nearest = types::manifest::nearest(name, names.iter().map(String::as_str));
        VaultError::NoSuchSecret { name: name.to_owned(), nearest: nearest.map(str::to_owned) }
    }

    /// Where the secrets lie.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}

/// Whether a secret can have this name: `[a-z0-9][a-z0-9_-]{0,63}`, which is also a file's name
/// everywhere.
///
/// # Errors
/// [`VaultError::Name`].
pub fn check_name(name: &str) -> Result<()> {
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if begins && name.len() <= NAME_CHARS_MAX && name.chars().all(known) {
        return Ok(());
    }
    Err(VaultError::Name { name: name.chars().take(2 * NAME_CHARS_MAX).collect() })
}

fn check_value(value: &str) -> Result<()> {
    if value.is_empty() {
        return Err(VaultError::Value { why: "it is empty".to_owned() });
    }
    if value.len() > VALUE_BYTES_MAX {
        let why = format!("it has more than {VALUE_BYTES_MAX} bytes");
        return Err(VaultError::Value { why });
    }
    Ok(())
}
