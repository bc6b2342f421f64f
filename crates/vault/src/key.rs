//! The vault's key, and where it comes from: the home's own file, a file that is named, or the text
//! itself.
//!
//! A key is 32 bytes, written as base64. What is read from a file must be a regular file of ours
//! that nobody else may touch.

use crate::files::{self, Found, Stamp};
use crate::{Result, VaultError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::XChaCha20Poly1305;
use chacha20poly1305::aead::KeyInit as _;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use types::Digest;
use zeroize::Zeroizing;

/// The variable that may hold the key itself.
pub const KEY_VARIABLE: &str = "BEDPLATE_VAULT_KEY";
/// The variable that may name a file with the key.
pub const KEY_FILE_VARIABLE: &str = "BEDPLATE_VAULT_KEY_FILE";
/// Bytes of a key.
pub(crate) const KEY_BYTES: usize = 32;
/// Bytes of a key's text, line end included; what is longer is no key.
const TEXT_BYTES_MAX: usize = 64;
/// Bytes of a key's mark: enough to tell keys apart by accident, nothing to guess by.
const MARK_BYTES: usize = 8;

/// Where the key comes from.
#[derive(Clone)]
pub struct KeySource(Source);

#[derive(Clone)]
enum Source {
    /// The home's key file; made when the first secret is set.
    Home(PathBuf),
    /// A file an operator keeps.
    File(PathBuf),
    /// The text itself.
    Text(Zeroizing<String>),
    /// A variable that is set and cannot be used.
    Bad(String),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Source::Home(path) | Source::File(path) => write!(f, "KeySource({})", path.display()),
            Source::Text(_) | Source::Bad(_) => f.write_str("KeySource(..)"),
        }
    }
}

impl KeySource {
    /// The home's own key file.
    #[must_use]
    pub fn of_home(home: &Path) -> Self {
        Self(Source::Home(home.join("vault.key")))
    }

    /// A key file elsewhere.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self(Source::File(path))
    }

    /// The key as base64.
    #[must_use]
    pub fn text(text: Zeroizing<String>) -> Self {
        Self(Source::Text(text))
    }

    /// What [`KEY_VARIABLE`] and [`KEY_FILE_VARIABLE`] say, else the home's own file. Both at once
    /// are refused when the key is needed: one of them is a mistake.
    #[must_use]
    pub fn named(home: &Path, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        match (set(KEY_VARIABLE), set(KEY_FILE_VARIABLE)) {
            (None, None) => Self::of_home(home),
            (None, Some(path)) => Self::file(path.into()),
            (Some(text), None) => match text.into_string() {
                Ok(text) => Self::text(Zeroizing::new(text)),
                Err(_) => Self(Source::Bad(format!("{KEY_VARIABLE} is no text"))),
            },
            (Some(_), Some(_)) => {
                Self(Source::Bad(format!("{KEY_VARIABLE} and {KEY_FILE_VARIABLE} are both set")))
            }
        }
    }

    /// Whether the key lies in a file.
    pub(crate) fn is_file(&self) -> bool {
        matches!(self.0, Source::Home(_) | Source::File(_))
    }

    /// The state of the key's file; `None` when it comes from none, or it is not there.
    pub(crate) fn stamp(&self) -> Option<Stamp> {
        match &self.0 {
            Source::Home(path) | Source::File(path) => Stamp::of(path),
            Source::Text(_) | Source::Bad(_) => None,
        }
    }

    /// The key; `None` when its file is not there.
    pub(crate) fn load(&self) -> Result<Option<Key>> {
        let (path, shown) = match &self.0 {
            Source::Bad(why) => return Err(VaultError::Key { why: why.clone() }),
            Source::Text(text) => return Key::read(text.as_bytes(), KEY_VARIABLE).map(Some),
            Source::Home(path) | Source::File(path) => (path, path.display().to_string()),
        };
        match files::read_ours(path, TEXT_BYTES_MAX)? {
            Found::Nothing => Ok(None),
            Found::TooLong => Err(no_key(&shown)),
            Found::Bytes(text) => Key::read(&text, &shown).map(Some),
        }
    }

    /// Makes the home's key file. Whoever calls holds the vault's lock and has looked: there is
    /// none.
    pub(crate) fn make(&self) -> Result<Key> {
        let Source::Home(path) = &self.0 else {
            return Err(self.missing());
        };
        let key = Key::generate()?;
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
        STANDARD.encode_string(key.0.as_slice(), &mut text);
        text.push('\n');
        files::write_whole(path, text.as_bytes())?;
        Ok(key)
    }

    pub(crate) fn missing(&self) -> VaultError {
        let why = match &self.0 {
            Source::Home(path) | Source::File(path) => format!("there is no {}", path.display()),
            Source::Text(_) => format!("{KEY_VARIABLE} is empty"),
            Source::Bad(why) => why.clone(),
        };
        VaultError::Key { why }
    }
}

fn no_key(shown: &str) -> VaultError {
    VaultError::Key { why: format!("{shown} does not hold {KEY_BYTES} bytes as base64") }
}

/// Wiped from memory when dropped.
pub(crate) struct Key(Zeroizing<[u8; KEY_BYTES]>);

impl Key {
    fn generate() -> Result<Self> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        files::random(&mut *bytes)?;
        Ok(Self(bytes))
    }

    fn read(text: &[u8], shown: &str) -> Result<Self> {
        let text = text.trim_ascii();
        let mut bytes = Zeroizing::new([0; TEXT_BYTES_MAX]);
        let length = match STANDARD.decode_slice(text, &mut *bytes) {
            Ok(length) if text.len() <= TEXT_BYTES_MAX => length,
            _ => return Err(no_key(shown)),
        };
        let key: [u8; KEY_BYTES] = bytes[..length].try_into().map_err(|_| no_key(shown))?;
        Ok(Self(Zeroizing::new(key)))
    }

    pub(crate) fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.0).into())
    }

    /// Tells keys apart without telling anything about them: they are random.
    pub(crate) fn mark(&self) -> String {
        let digest = Digest::of_parts("bedplate vault key 1", &[&*self.0]);
        digest.to_string().chars().take(2 * MARK_BYTES).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded as _;

    fn code(text: &str) -> &'static str {
        let source = KeySource::text(Zeroizing::new(text.to_owned()));
        source.load().err().map_or("fine", |error| error.code())
    }

    #[test]
    fn a_key_is_thirty_two_bytes_as_base64() {
        let check = |bytes: usize, expected: &str| {
            assert_eq!(code(&STANDARD.encode(vec![7; bytes])), expected, "{bytes}");
        };
        check(32, "fine");
        check(31, "BP-VAULT-004");
        check(33, "BP-VAULT-004");
        check(0, "BP-VAULT-004");
        check(4_000, "BP-VAULT-004");
        assert_eq!(code("not base64"), "BP-VAULT-004");
        assert_eq!(code(&format!("  {}\n", STANDARD.encode([7; 32]))), "fine");
    }

    #[test]
    fn the_environment_names_at_most_one_key() {
        let text = STANDARD.encode([7; 32]);
        let from = |key: Option<&str>, file: Option<&str>| {
            KeySource::named(Path::new("/h"), |name| match name {
                KEY_VARIABLE => key.map(OsString::from),
                KEY_FILE_VARIABLE => file.map(OsString::from),
                _ => None,
            })
        };
        assert!(
            matches!(from(None, None).0, Source::Home(path) if path == Path::new("/h/vault.key"))
        );
        assert!(matches!(from(Some(""), None).0, Source::Home(_)));
        assert!(matches!(from(None, Some("/k")).0, Source::File(path) if path == Path::new("/k")));
        assert!(from(Some(&text), None).load().is_ok());
        let both = from(Some(&text), Some("/k")).load().err().expect("refused");
        assert_eq!(both.code(), "BP-VAULT-004");
    }

    #[test]
    fn a_source_shows_no_key() {
        let text = STANDARD.encode([7; 32]);
        let source = KeySource::text(Zeroizing::new(text.clone()));
        assert!(!format!("{source:?}").contains(&text));
    }

    #[test]
    fn keys_have_marks_of_their_own() {
        let mark = |byte: u8| Key(Zeroizing::new([byte; KEY_BYTES])).mark();
        assert_eq!((mark(1).len(), mark(1)), (16, mark(1)));
        assert_ne!(mark(1), mark(2));
    }
}
