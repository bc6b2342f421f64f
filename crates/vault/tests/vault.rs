//! Secrets on a real file system: what is kept, what is refused, what is left behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use base64::Engine as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use types::Coded as _;
use vault::{
    Credential, HELD_MAX, Held, KeySource, Kind, NAME_CHARS_MAX, VALUE_BYTES_MAX, Vault, VaultError,
};
use zeroize::Zeroizing;

const VALUE: &str = "correct-horse-battery-staple";

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn vault(&self) -> Vault {
        Vault::open(self.path()).unwrap()
    }

    fn with(name: &str) -> Self {
        let home = Self::new();
        home.vault().set(name, Kind::Plain, VALUE, 1).unwrap();
        home
    }

    fn record(&self, name: &str) -> PathBuf {
        self.path().join(format!("vault/{name}.secret"))
    }

    fn mode(&self, path: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path().join(path), mode).unwrap();
    }

    /// Every byte of every file below.
    fn bytes(&self) -> Vec<u8> {
        let mut found = Vec::new();
        let mut waiting = vec![self.path().to_owned()];
        while let Some(dir) = waiting.pop() {
            for entry in std::fs::read_dir(dir).unwrap().flatten() {
                found.extend(entry.file_name().as_encoded_bytes());
                match entry.path().is_dir() {
                    true => waiting.push(entry.path()),
                    false => found.extend(std::fs::read(entry.path()).unwrap()),
                }
            }
        }
        found
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[track_caller]
fn refused<T>(result: vault::Result<T>, code: &str) -> VaultError {
    let error = result.err().expect("refused");
    assert_eq!(error.code(), code, "{error}");
    assert!(!error.next().is_empty());
    let shown = format!("{error} {error:?} {}", error.next());
    assert!(!shown.contains(VALUE), "{shown}");
    error
}

#[test]
fn what_was_set_can_be_read_again_and_lies_nowhere_in_the_clear() {
    let home = Home::with("api");
    assert_eq!(home.vault().get("api").unwrap().expose(), VALUE);
    assert_eq!(home.vault().names().unwrap(), ["api"]);
    let bytes = home.bytes();
    assert!(!holds(&bytes, VALUE.as_bytes()));
    assert!(!holds(&bytes, &VALUE.as_bytes()[..8]));
    let encoded = base64::engine::general_purpose::STANDARD.encode(VALUE);
    assert!(!holds(&bytes, &encoded.as_bytes()[..12]));
    assert!(holds(&bytes, b"\"name\":\"api\""), "the control: what is readable is found");
    let shown = format!("{:?} {:?}", home.vault(), home.vault().get("api"));
    assert!(!shown.contains(VALUE) && shown.contains("SecretText(..)"), "{shown}");
}

#[test]
fn opening_and_reading_make_nothing() {
    let home = Home::new();
    let vault = home.vault();
    assert_eq!(vault.names().unwrap(), Vec::<String>::new());
    assert!(vault.entries().unwrap().is_empty());
    refused(vault.get("api"), "BP-VAULT-002");
    refused(vault.remove("api"), "BP-VAULT-002");
    assert!(home.bytes().is_empty());
}

#[test]
fn everything_is_ours_alone() {
    let home = Home::with("api");
    let mode = |path: &str| {
        std::fs::metadata(home.path().join(path)).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("vault.key"), 0o600);
    assert_eq!(mode("vault"), 0o700);
    assert_eq!(mode("vault/api.secret"), 0o600);
    assert_eq!(mode("vault/lock"), 0o600);
}

#[test]
fn setting_again_counts_and_keeps_when_it_was_made() {
    let home = Home::new();
    let vault = home.vault();
    let first = vault.set("api", Kind::Plain, "one", 1_000).unwrap();
    assert_eq!((first.version, first.created_ms, first.updated_ms), (1, 1_000, 1_000));
    let second = vault.set("api", Kind::Plain, "two", 2_000).unwrap();
    assert_eq!((second.version, second.created_ms, second.updated_ms), (2, 1_000, 2_000));
    let back = vault.set("api", Kind::Plain, "three", 500).unwrap();
    assert_eq!((back.version, back.updated_ms), (3, 2_000), "time never goes back");
    assert_eq!(vault.get("api").unwrap().expose(), "three");
    vault.set("aaa", Kind::Plain, "x", 1).unwrap();
    let entries = vault.entries().unwrap();
    assert_eq!(entries.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["aaa", "api"]);
    assert_eq!(entries[1], back);
    let json = format!("{entries:?}");
    assert!(!json.contains("three"), "{json}");
}

#[test]
fn a_value_s_size_shows_in_steps_only() {
    let size = |bytes: usize| {
        let home = Home::new();
        home.vault().set("api", Kind::Plain, &"x".repeat(bytes), 1).unwrap();
        std::fs::metadata(home.record("api")).unwrap().len()
    };
    assert_eq!(size(1), size(508));
    assert_eq!(size(509) - size(508), 512);
}

#[test]
fn names_are_checked() {
    let home = Home::new();
    let vault = home.vault();
    let good = |name: &str| drop(vault.set(name, Kind::Plain, VALUE, 1).unwrap());
    let bad = |name: &str| {
        refused(vault.set(name, Kind::Plain, VALUE, 1), "BP-VAULT-001");
        refused(vault.get(name), "BP-VAULT-001");
        refused(vault.remove(name), "BP-VAULT-001");
    };
    good("a");
    good("0-_z");
    good(&"n".repeat(NAME_CHARS_MAX));
    bad(&"n".repeat(NAME_CHARS_MAX + 1));
    for name in ["", "-a", "_a", "A", "a.b", "../a", "a/b", "a b", "ä", "a\0"] {
        bad(name);
    }
}

#[test]
fn values_have_a_limit_and_are_never_empty() {
    let home = Home::new();
    let vault = home.vault();
    let most = "x".repeat(VALUE_BYTES_MAX);
    vault.set("api", Kind::Plain, &most, 1).unwrap();
    assert_eq!(vault.get("api").unwrap().expose(), most);
    refused(vault.set("api", Kind::Plain, &format!("{most}x"), 2), "BP-VAULT-003");
    refused(vault.set("api", Kind::Plain, "", 2), "BP-VAULT-003");
    assert_eq!(vault.get("api").unwrap().expose(), most, "it is as it was");
}

#[test]
fn a_removed_secret_is_overwritten_and_gone() {
    let home = Home::with("api");
    let held = std::fs::File::open(home.record("api")).unwrap();
    home.vault().remove("api").unwrap();
    refused(home.vault().get("api"), "BP-VAULT-002");
    refused(home.vault().remove("api"), "BP-VAULT-002");
    let mut left = Vec::new();
    std::io::Read::read_to_end(&mut &held, &mut left).unwrap();
    assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0), "overwritten");
    home.vault().set("api", Kind::Plain, "again", 2).unwrap();
    let hint = refused(home.vault().get("apo"), "BP-VAULT-002");
    assert!(hint.to_string().contains("did you mean 'api'"), "{hint}");
}

#[test]
fn what_a_secret_was_before_is_overwritten() {
    let home = Home::with("api");
    let held = std::fs::File::open(home.record("api")).unwrap();
    home.vault().set("api", Kind::Plain, "new", 2).unwrap();
    let mut left = Vec::new();
    std::io::Read::read_to_end(&mut &held, &mut left).unwrap();
    assert!(!left.is_empty() && left.iter().all(|byte| *byte == 0));
}

#[test]
fn every_changed_byte_and_every_cut_is_noticed() {
    let home = Home::with("api");
    let whole = std::fs::read(home.record("api")).unwrap();
    let noticed = |bytes: &[u8]| {
        std::fs::write(home.record("api"), bytes).unwrap();
        let error = home.vault().get("api").expect_err("noticed");
        let code = error.code();
        assert!(["BP-VAULT-006", "BP-VAULT-007", "BP-VAULT-008"].contains(&code), "{error}");
        refused(home.vault().entries(), code);
    };
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        noticed(&flipped);
    }
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        noticed(&whole[..length]);
    }
    noticed(&[whole.as_slice(), b"x"].concat());
    noticed(&vec![b'x'; 80 << 10]);
    std::fs::write(home.record("api"), &whole).unwrap();
    assert_eq!(home.vault().get("api").unwrap().expose(), VALUE);
    std::fs::write(home.record("api"), vec![b'x'; 80 << 10]).unwrap();
    home.vault().remove("api").unwrap();
    assert!(home.vault().names().unwrap().is_empty(), "whatever it was, it can be removed");
}

#[test]
fn a_record_under_another_name_does_not_open() {
    let home = Home::with("api");
    home.vault().set("other", Kind::Plain, "other value", 1).unwrap();
    std::fs::copy(home.record("other"), home.record("api")).unwrap();
    let error = refused(home.vault().get("api"), "BP-VAULT-007");
    assert!(error.to_string().contains("'other'"), "{error}");
    let bytes = std::fs::read(home.record("other")).unwrap();
    let text = bytes.iter().map(|b| char::from(*b)).collect::<String>();
    let renamed = text.replace("\"name\":\"other\"", "\"name\":\"api\"");
    let difference = "other".len() - "api".len();
    let mut renamed: Vec<u8> = renamed.chars().map(|c| c as u8).collect();
    renamed[20] -= u8::try_from(difference).unwrap();
    std::fs::write(home.record("api"), renamed).unwrap();
    let error = refused(home.vault().get("api"), "BP-VAULT-007");
    assert!(error.to_string().contains("altered"), "{error}");
    home.vault().remove("api").unwrap();
    assert_eq!(home.vault().get("other").unwrap().expose(), "other value");
}

#[test]
fn a_newer_format_and_a_newer_kind_are_said() {
    let home = Home::with("api");
    let bytes = std::fs::read(home.record("api")).unwrap();
    let changed = |from: &str, to: &str| {
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(home.record("api"), changed).unwrap();
        refused(home.vault().get("api"), "BP-VAULT-008");
        refused(home.vault().set("api", Kind::Plain, "x", 2), "BP-VAULT-008");
    };
    changed("bedplate vault 1", "bedplate vault 2");
    changed("plain", "sigv4");
}

#[test]
fn another_key_is_said_and_no_key_makes_no_new_one() {
    let home = Home::with("api");
    let other = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    let other = || KeySource::text(Zeroizing::new(other.clone()));
    let vault = Vault::open_with(home.path(), other()).unwrap();
    refused(vault.get("api"), "BP-VAULT-006");
    refused(vault.set("api", Kind::Plain, "x", 2), "BP-VAULT-006");
    refused(vault.set("new", Kind::Plain, "x", 2), "BP-VAULT-006");
    assert_eq!(home.vault().names().unwrap(), ["api"], "one vault has one key");
    std::fs::rename(home.path().join("vault.key"), home.path().join("kept")).unwrap();
    refused(home.vault().get("api"), "BP-VAULT-004");
    refused(home.vault().set("new", Kind::Plain, "x", 2), "BP-VAULT-004");
    assert!(!home.path().join("vault.key").exists());
    std::fs::rename(home.path().join("kept"), home.path().join("vault.key")).unwrap();
    assert_eq!(home.vault().get("api").unwrap().expose(), VALUE);
}

#[test]
fn a_key_from_elsewhere_makes_no_key_file() {
    let home = Home::new();
    let text = base64::engine::general_purpose::STANDARD.encode([9; 32]);
    let source = || KeySource::text(Zeroizing::new(text.clone()));
    let vault = Vault::open_with(home.path(), source()).unwrap();
    vault.set("api", Kind::Plain, VALUE, 1).unwrap();
    assert!(!home.path().join("vault.key").exists());
    let file = home.path().join("elsewhere");
    std::fs::write(&file, format!("{text}\n")).unwrap();
    home.mode("elsewhere", 0o600);
    let vault = Vault::open_with(home.path(), KeySource::file(file.clone())).unwrap();
    assert_eq!(vault.get("api").unwrap().expose(), VALUE);
    std::fs::remove_file(file).unwrap();
    refused(vault.get("api"), "BP-VAULT-004");
    let missing = KeySource::file(home.path().join("none"));
    let other = Home::new();
    let vault = Vault::open_with(other.path(), missing).unwrap();
    refused(vault.set("api", Kind::Plain, VALUE, 1), "BP-VAULT-004");
    assert_eq!(vault.names().unwrap(), Vec::<String>::new());
}

#[test]
fn what_others_may_touch_is_refused_and_not_repaired() {
    let check = |path: &str, mode: u32, good: u32| {
        let home = Home::with("api");
        home.mode(path, mode);
        let vault = Vault::open(home.path()).and_then(|vault| vault.get("api"));
        let error = refused(vault, "BP-VAULT-005");
        assert!(error.to_string().contains(&format!("{mode:03o}")), "{error}");
        let set = Vault::open(home.path()).and_then(|v| v.set("api", Kind::Plain, "x", 2));
        refused(set, "BP-VAULT-005");
        home.mode(path, good);
        assert_eq!(home.vault().get("api").unwrap().expose(), VALUE);
    };
    check("vault.key", 0o640, 0o600);
    check("vault.key", 0o604, 0o600);
    check("vault.key", 0o620, 0o600);
    check("vault", 0o750, 0o700);
    check("vault", 0o701, 0o700);
    check("vault/api.secret", 0o644, 0o600);
    let home = Home::with("api");
    let key = home.path().join("vault.key");
    std::fs::rename(&key, home.path().join("real")).unwrap();
    std::os::unix::fs::symlink(home.path().join("real"), &key).unwrap();
    refused(home.vault().get("api"), "BP-VAULT-005");
}

/// As root alone can a file be given away.
#[test]
fn what_belongs_to_another_user_is_refused() {
    let home = Home::with("api");
    let given = std::os::unix::fs::chown(home.path().join("vault.key"), Some(12_345), None);
    assert_eq!(given.is_ok(), rustix::process::geteuid().is_root());
    if given.is_ok() {
        let error = refused(home.vault().get("api"), "BP-VAULT-005");
        assert!(error.to_string().contains("12345"), "{error}");
    }
}

#[test]
fn what_a_crash_left_unfinished_is_cleared() {
    let home = Home::with("api");
    let left = home.path().join("vault/api.secret.new");
    std::fs::write(&left, "half").unwrap();
    assert_eq!(home.vault().names().unwrap(), ["api"]);
    home.vault().set("other", Kind::Plain, "x", 1).unwrap();
    assert!(!left.exists());
    assert_eq!(home.vault().get("api").unwrap().expose(), VALUE);
}

#[test]
fn two_at_once_leave_one_of_them_whole() {
    const TIMES: usize = 20;
    let home = Home::new();
    let values = ["a".repeat(3_000), "b".repeat(60_000)];
    std::thread::scope(|scope| {
        for value in &values {
            scope.spawn(|| {
                for _ in 0..TIMES {
                    home.vault().set("api", Kind::Plain, value, 1).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..10 * TIMES {
                match home.vault().get("api") {
                    Ok(seen) => assert!(values.iter().any(|v| v == seen.expose())),
                    Err(error) => assert_eq!(error.code(), "BP-VAULT-002", "{error}"),
                }
            }
        });
    });
    assert!(values.iter().any(|value| value == home.vault().get("api").unwrap().expose()));
    assert_eq!(home.vault().entries().unwrap()[0].version, 2 * TIMES as u64);
}

#[test]
fn a_vault_that_cannot_be_written_or_is_locked_says_so() {
    let home = Home::new();
    std::fs::write(home.path().join("vault"), "").unwrap();
    refused(Vault::open(home.path()), "BP-VAULT-005");
    let nowhere = Vault::open(&home.path().join("none")).unwrap();
    refused(nowhere.set("api", Kind::Plain, VALUE, 1), "BP-VAULT-009");
    let home = Home::with("api");
    let lock = std::fs::File::open(home.path().join("vault/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    refused(home.vault().set("api", Kind::Plain, "x", 2), "BP-VAULT-010");
    assert_eq!(home.vault().get("api").unwrap().expose(), VALUE, "reading waits for nobody");
}

/// What a reader meets when the record it has open is replaced and overwritten: zeros. It reads
/// again once the writer is done.
#[test]
fn a_record_that_is_being_replaced_is_read_again() {
    const LOOK: std::time::Duration = std::time::Duration::from_millis(200);
    let home = Home::with("api");
    let whole = std::fs::read(home.record("api")).unwrap();
    let lock = std::fs::File::open(home.path().join("vault/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    std::fs::write(home.record("api"), vec![0; whole.len()]).unwrap();
    let (said, heard) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| said.send(home.vault().get("api")).unwrap());
        assert!(heard.recv_timeout(LOOK).is_err(), "it waits for the writer");
        std::fs::write(home.record("api"), &whole).unwrap();
        drop(lock);
        assert_eq!(heard.recv().unwrap().unwrap().expose(), VALUE);
    });
}

fn plain(held: &mut Held) -> &str {
    match held.get("api").unwrap() {
        Credential::Plain(text) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_held_secret_is_opened_once_per_change() {
    let home = Home::with("api");
    let mut held = Held::new(home.path(), KeySource::of_home(home.path()));
    for _ in 0..3 {
        assert_eq!(plain(&mut held), VALUE);
    }
    assert_eq!(held.opened(), 1);
    home.vault().set("api", Kind::Plain, "another", 2).unwrap();
    assert_eq!(plain(&mut held), "another");
    assert_eq!(held.opened(), 2);
    home.vault().remove("api").unwrap();
    refused(held.get("api").map(|_| ()), "BP-VAULT-002");
    home.vault().set("api", Kind::Plain, VALUE, 3).unwrap();
    assert_eq!(plain(&mut held), VALUE);
}

#[test]
fn a_held_secret_is_given_only_while_it_could_be_opened() {
    let home = Home::with("api");
    let mut held = Held::new(home.path(), KeySource::of_home(home.path()));
    let key = home.path().join("vault.key");
    held.get("api").unwrap();
    let check = |held: &mut Held, code: &str| {
        refused(held.get("api").map(|_| ()), code);
        // It is not held from before either.
        refused(held.get("api").map(|_| ()), code);
    };
    home.mode("vault.key", 0o644);
    check(&mut held, "BP-VAULT-005");
    home.mode("vault.key", 0o600);
    held.get("api").unwrap();
    home.mode("vault/api.secret", 0o644);
    check(&mut held, "BP-VAULT-005");
    home.mode("vault/api.secret", 0o600);
    home.mode("vault", 0o755);
    check(&mut held, "BP-VAULT-005");
    home.mode("vault", 0o700);
    held.get("api").unwrap();
    let text = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    check(&mut held, "BP-VAULT-004");
    std::fs::write(&key, base64::engine::general_purpose::STANDARD.encode([9; 32])).unwrap();
    home.mode("vault.key", 0o600);
    check(&mut held, "BP-VAULT-006");
    std::fs::write(&key, text).unwrap();
    assert_eq!(plain(&mut held), VALUE);
    assert!(!format!("{held:?}").contains(VALUE));
}

#[test]
fn values_held_have_a_limit_at_its_edge() {
    let home = Home::new();
    let vault = home.vault();
    let name = |number: usize| format!("s{number}");
    for number in 0..=HELD_MAX {
        vault.set(&name(number), Kind::Plain, VALUE, 1).unwrap();
    }
    let mut held = Held::new(home.path(), KeySource::of_home(home.path()));
    let most = HELD_MAX as u64;
    for number in 0..HELD_MAX {
        held.get(&name(number)).unwrap();
    }
    held.get(&name(0)).unwrap();
    assert_eq!(held.opened(), most);
    held.get(&name(HELD_MAX)).unwrap();
    held.get(&name(0)).unwrap();
    assert_eq!(held.opened(), most + 2);
}

#[test]
fn a_secret_with_parts_keeps_its_kind_and_is_checked() {
    let home = Home::new();
    let vault = home.vault();
    let key =
        r#"{"access_key_id": "AKIA1", "secret_access_key": "k", "region": "r", "service": "s3"}"#;
    let entry = vault.set("aws", Kind::AwsSigv4, key, 1).unwrap();
    assert_eq!(entry.kind, Kind::AwsSigv4);
    assert_eq!(vault.entries().unwrap()[0].kind, Kind::AwsSigv4);
    let Credential::AwsSigv4(key) = vault.credential("aws").unwrap() else { panic!("its kind") };
    assert_eq!((key.region.as_str(), key.secret_access_key.as_str()), ("r", "k"));
    refused(vault.set("aws", Kind::OauthClient, VALUE, 2), "BP-VAULT-003");
    assert_eq!(vault.entries().unwrap()[0].version, 1, "nothing was changed");
    vault.set("aws", Kind::Plain, VALUE, 3).unwrap();
    assert!(matches!(vault.credential("aws").unwrap(), Credential::Plain(_)));
}
