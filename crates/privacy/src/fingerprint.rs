//! Recognises exact secret values without holding them.
//!
//! Where the vault is, [`Fingerprints::of`] turns a value into prints: for each way to write it
//! (see [`Encoding`]) its length, a keyed digest, and two short keyed hashes of a part of it. The
//! prints travel to where texts are scanned. A scan moves one window over the text, hashes it as a
//! prefilter, and compares what passes by SHA-256 over the key and the whole stretch.
//!
//! Always: an occurrence of any print is found, wherever a stream was cut. A short hash covers 12
//! bytes or a whole value that is shorter, so that it is no help in guessing a value piece by
//! piece. Never: a value, or a hash of it that is not keyed.

use crate::encode::{Encoding, encodings};
use crate::error::PrivacyError;
use crate::work;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;

/// Shortest value of a secret, in bytes: a shorter one would be found everywhere.
pub const SECRET_BYTES_MIN: usize = 6;
/// Longest value of a secret, in bytes.
pub const SECRET_BYTES_MAX: usize = 16 << 10;
/// Most secrets in one set.
pub const SECRETS_MAX: usize = 4_096;
/// Most hits that one scan reports; a text with more of them is wholly suspicious, and the last
/// hit then reaches to its end.
pub const HITS_MAX: usize = 4_096;
/// Width of the window, in bytes; values that are shorter have a window of their own length.
const WINDOW_BYTES_MAX: usize = 12;
/// Bits of a hash that choose a place in the prefilter.
const FILTER_BITS: u32 = 16;

/// The key of the keyed hashes. One a home or a run; whoever has it can test guesses of values.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintKey([u8; 32]);

impl FingerprintKey {
    /// A key of 32 unpredictable bytes.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FingerprintKey(..)")
    }
}

impl Drop for FingerprintKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}

/// One way to write one secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Print {
    /// Place in the list of names.
    secret: u16,
    encoding: Encoding,
    /// In bytes.
    length: u32,
    /// Keyed hash of the last window.
    tail: u32,
    /// Keyed hash of the window in the middle.
    middle: u32,
    digest: [u8; 16],
}

/// An occurrence of a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Offset of its first byte, from the start of the text or the stream.
    pub start: u64,
    /// Offset behind its last byte.
    pub end: u64,
    /// The secret's name.
    pub secret: String,
    /// How it was written.
    pub encoding: Encoding,
}

/// The fingerprints of a set of secrets, to be sent to where texts are scanned.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Fingerprints {
    stored: Stored,
    mixer: Mixer,
    keyed: Sha256,
    windows: Vec<Window>,
    longest: usize,
}

/// What travels; the rest of [`Fingerprints`] is derived from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    key: FingerprintKey,
    names: Vec<String>,
    prints: Vec<Print>,
}

impl Fingerprints {
    /// A set without secrets.
    #[must_use]
    pub fn none(key: &FingerprintKey) -> Self {
        Self::derive(Stored { key: key.clone(), names: Vec::new(), prints: Vec::new() })
    }

    /// The fingerprints of one value. White space at its ends is not part of it.
    ///
    /// # Errors
    /// BP-PRIVACY-001 for a value under [`SECRET_BYTES_MIN`], BP-PRIVACY-002 for one over
    /// [`SECRET_BYTES_MAX`].
    pub fn of(name: &str, value: &[u8], key: &FingerprintKey) -> Result<Self, PrivacyError> {
        let value = value.trim_ascii();
        if value.len() < SECRET_BYTES_MIN {
            let (name, bytes) = (name.to_owned(), value.len());
            return Err(PrivacyError::SecretTooShort { name, bytes, min: SECRET_BYTES_MIN });
        }
        limit("the value of a secret, in bytes", value.len(), SECRET_BYTES_MAX)?;
        let (mixer, keyed) = (Mixer::new(key), keyed(key));
        let written = encodings(value, SECRET_BYTES_MIN).into_iter();
        let prints = written.map(|(encoding, text)| Print {
            secret: 0,
            encoding,
            length: u32::try_from(text.len()).expect("an encoding is at most 6 times 16 KiB"),
            tail: mixer.hash(tail(&text)),
            middle: mixer.hash(middle(&text)),
            digest: digest(&keyed, &text),
        });
        let prints = prints.collect();
        Ok(Self::derive(Stored { key: key.clone(), names: vec![name.into()], prints }))
    }

    /// Both sets as one.
    ///
    /// # Errors
    /// BP-PRIVACY-005 when their keys differ, BP-PRIVACY-002 over [`SECRETS_MAX`].
    pub fn merged(self, other: Self) -> Result<Self, PrivacyError> {
        Self::all([self, other])
    }

    /// All sets as one; none is an error of its own, for a set needs a key.
    ///
    /// # Errors
    /// As [`Fingerprints::merged`].
    pub fn all(sets: impl IntoIterator<Item = Self>) -> Result<Self, PrivacyError> {
        let bad = |reason| PrivacyError::BadStored { what: "fingerprints", reason };
        let mut sets = sets.into_iter().map(|set| set.stored);
        let mut all = sets.next().ok_or_else(|| bad("there are none"))?;
        for set in sets {
            if set.key != all.key {
                return Err(bad("they were made with different keys"));
            }
            limit("the number of secrets", all.names.len() + set.names.len(), SECRETS_MAX)?;
            let before = u16::try_from(all.names.len()).expect("limited just above");
            all.names.extend(set.names);
            let moved = set.prints.into_iter();
            all.prints.extend(moved.map(|print| Print { secret: print.secret + before, ..print }));
        }
        Ok(Self::derive(all))
    }

    /// The names of the secrets.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stored.names.iter().map(String::as_str)
    }

    pub(crate) const fn key(&self) -> &FingerprintKey {
        &self.stored.key
    }

    /// Every occurrence in a text, by its end; they may overlap.
    #[must_use]
    pub fn find(&self, text: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        self.scan(text, 0, 0, &mut hits);
        hits
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    fn derive(stored: Stored) -> Self {
        let mut set = Self {
            mixer: Mixer::new(&stored.key),
            keyed: keyed(&stored.key),
            windows: Vec::new(),
            longest: stored.prints.iter().map(|p| p.length as usize).max().unwrap_or(0),
            stored,
        };
        for (at, print) in set.stored.prints.iter().enumerate() {
            let width = WINDOW_BYTES_MAX.min(print.length as usize);
            let window = match set.windows.iter().position(|w| w.width == width) {
                Some(known) => &mut set.windows[known],
                None => {
                    set.windows.push(Window::new(width));
                    set.windows.last_mut().expect("pushed just above")
                }
            };
            window.add(print.tail, at);
        }
        set.windows.iter_mut().for_each(|w| w.tags.sort_unstable());
        set
    }

    /// Adds the prints that end in `text[from..]`; `offset` is that of the text in its stream.
    fn scan(&self, text: &[u8], from: usize, offset: u64, hits: &mut Vec<Hit>) {
        for window in &self.windows {
            match window.width {
                6 => self.slide::<6>(window, text, from, offset, hits),
                7 => self.slide::<7>(window, text, from, offset, hits),
                8 => self.slide::<8>(window, text, from, offset, hits),
                9 => self.slide::<9>(window, text, from, offset, hits),
                10 => self.slide::<10>(window, text, from, offset, hits),
                11 => self.slide::<11>(window, text, from, offset, hits),
                width => {
                    assert_eq!(width, WINDOW_BYTES_MAX, "no print has another window");
                    self.slide::<WINDOW_BYTES_MAX>(window, text, from, offset, hits);
                }
            }
        }
    }

    /// Moves one window to every place that ends in `text[from..]`.
    fn slide<const WIDTH: usize>(
        &self,
        window: &Window,
        text: &[u8],
        from: usize,
        offset: u64,
        hits: &mut Vec<Hit>,
    ) {
        let first = (from + 1).saturating_sub(WIDTH);
        let Some(places) = text.get(first..) else { return };
        for (step, place) in places.array_windows::<WIDTH>().enumerate() {
            let hash = self.mixer.hash(place);
            if window.may_have(hash) {
                self.compare(window, hash, &text[..first + step + WIDTH], offset, hits);
            }
        }
    }

    /// Compares the end of `text` with the prints of this window and hash.
    fn compare(&self, window: &Window, hash: u32, text: &[u8], offset: u64, hits: &mut Vec<Hit>) {
        let first = window.tags.partition_point(|(tag, _)| *tag < hash);
        let same = window.tags[first..].iter().take_while(|(tag, _)| *tag == hash);
        for (_, at) in same {
            let print = &self.stored.prints[*at];
            let Some(start) = text.len().checked_sub(print.length as usize) else { continue };
            let stretch = &text[start..];
            work::add(1);
            if self.mixer.hash(middle(stretch)) != print.middle
                || digest(&self.keyed, stretch) != print.digest
            {
                continue;
            }
            work::add(stretch.len());
            let (start, end) = (offset + start as u64, offset + text.len() as u64);
            let secret = self.stored.names[usize::from(print.secret)].clone();
            if hits.len() < HITS_MAX {
                hits.push(Hit { start, end, secret, encoding: print.encoding });
            } else {
                let last = &mut hits[HITS_MAX - 1];
                (last.start, last.end) = (last.start.min(start), last.end.max(end));
            }
        }
    }
}

impl fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fingerprints").field("names", &self.stored.names).finish_non_exhaustive()
    }
}

impl From<Fingerprints> for Stored {
    fn from(set: Fingerprints) -> Self {
        set.stored
    }
}

impl TryFrom<Stored> for Fingerprints {
    type Error = PrivacyError;

    fn try_from(stored: Stored) -> Result<Self, PrivacyError> {
        limit("the number of secrets", stored.names.len(), SECRETS_MAX)?;
        let fits = |p: &Print| {
            (SECRET_BYTES_MIN..=SECRET_BYTES_MAX * 6).contains(&(p.length as usize))
                && usize::from(p.secret) < stored.names.len()
        };
        if !stored.prints.iter().all(fits) {
            let reason = "a print has an impossible length or secret";
            return Err(PrivacyError::BadStored { what: "fingerprints", reason });
        }
        Ok(Self::derive(stored))
    }
}

/// Finds secrets in a stream, wherever it is cut. Holds as many bytes as the longest print.
#[derive(Debug, Clone)]
pub struct Scanner {
    prints: Arc<Fingerprints>,
    /// The last bytes seen.
    kept: Vec<u8>,
    /// Where `kept` starts in the stream.
    offset: u64,
}

impl Scanner {
    /// A scanner at the start of a stream.
    #[must_use]
    pub fn new(prints: Arc<Fingerprints>) -> Self {
        Self { prints, kept: Vec::new(), offset: 0 }
    }

    /// The next bytes of the stream: every occurrence that ends in them, at its offsets in the
    /// whole stream.
    pub fn push(&mut self, chunk: &[u8]) -> Vec<Hit> {
        let mut hits = Vec::new();
        let from = self.kept.len();
        self.kept.extend_from_slice(chunk);
        self.prints.scan(&self.kept, from, self.offset, &mut hits);
        let surplus = self.kept.len().saturating_sub(self.prints.longest);
        // Dropping only when as much again has gathered makes each byte move once.
        if surplus > self.prints.longest {
            zeroize::Zeroize::zeroize(&mut self.kept[..surplus]);
            self.kept.drain(..surplus);
            self.offset += surplus as u64;
        }
        hits
    }
}

/// A keyed hash of 6 to 12 bytes.
#[derive(Clone)]
struct Mixer {
    first: u64,
    last: u64,
    end: u64,
}

impl Mixer {
    fn new(key: &FingerprintKey) -> Self {
        let seed = Sha256::new_with_prefix(b"bedplate privacy mix").chain_update(key.0).finalize();
        let word = |at: usize| seed[at..at + 8].iter().fold(0, |w, b| w << 8 | u64::from(*b)) | 1;
        Self { first: word(0), last: word(8), end: word(16) }
    }

    #[inline(always)]
    fn hash(&self, bytes: &[u8]) -> u32 {
        let (first, last) = match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(first), Some(last)) => (u64::from_le_bytes(*first), u64::from_le_bytes(*last)),
            _ => {
                let half = |chunk: Option<&[u8; 4]>| {
                    u64::from(u32::from_le_bytes(*chunk.expect("a window has 6 bytes or more")))
                };
                (half(bytes.first_chunk()), half(bytes.last_chunk()))
            }
        };
        let sum = first.wrapping_mul(self.first).rotate_left(29) ^ last.wrapping_mul(self.last);
        ((sum ^ sum >> 32).wrapping_mul(self.end) >> 32) as u32
    }
}

/// All prints whose window is equally wide.
#[derive(Clone)]
struct Window {
    width: usize,
    filter: Box<[u64; 1 << (FILTER_BITS - 6)]>,
    /// Hash and place of the print, sorted.
    tags: Vec<(u32, usize)>,
}

impl Window {
    fn new(width: usize) -> Self {
        Self { width, filter: Box::new([0; 1 << (FILTER_BITS - 6)]), tags: Vec::new() }
    }

    fn add(&mut self, tag: u32, print: usize) {
        let place = tag >> (32 - FILTER_BITS);
        self.filter[(place >> 6) as usize] |= 1 << (place & 63);
        self.tags.push((tag, print));
    }

    fn may_have(&self, hash: u32) -> bool {
        let place = hash >> (32 - FILTER_BITS);
        self.filter[(place >> 6) as usize] >> (place & 63) & 1 == 1
    }
}

fn tail(text: &[u8]) -> &[u8] {
    &text[text.len().saturating_sub(WINDOW_BYTES_MAX)..]
}

fn middle(text: &[u8]) -> &[u8] {
    let start = text.len().saturating_sub(WINDOW_BYTES_MAX) / 2;
    &text[start..text.len().min(start + WINDOW_BYTES_MAX)]
}

fn keyed(key: &FingerprintKey) -> Sha256 {
    // One whole block of input first, so that every comparison starts behind it.
    Sha256::new_with_prefix([0; 32]).chain_update(key.0)
}

/// Half of the digest behind a secret prefix: what is left off makes it impossible to extend.
fn digest(keyed: &Sha256, text: &[u8]) -> [u8; 16] {
    let whole: [u8; 32] = keyed.clone().chain_update(text).finalize().into();
    *whole.first_chunk().expect("32 bytes have 16 first ones")
}

pub(crate) fn limit(what: &'static str, actual: usize, limit: usize) -> Result<(), PrivacyError> {
    if actual > limit { Err(PrivacyError::TooLarge { what, actual, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded as _;

    const KEY: FingerprintKey = FingerprintKey::new([7; 32]);
    const VALUE: &str = "correct-horse/battery+staple \"9\"";

    fn prints() -> Fingerprints {
        let short = Fingerprints::of("short", b"s3cr3t", &KEY).unwrap();
        short.merged(Fingerprints::of("long", VALUE.as_bytes(), &KEY).unwrap()).unwrap()
    }

    fn check(text: &str, expected: &[(&str, Encoding, &str)]) {
        let hits = prints().find(text.as_bytes());
        let found: Vec<_> = hits
            .iter()
            .map(|h| (&*h.secret, h.encoding, &text[h.start as usize..h.end as usize]))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn values_are_found_in_every_encoding_and_only_there() {
        check("nothing s3cr3 t here", &[]);
        check("xs3cr3tx", &[("short", Encoding::Raw, "s3cr3t")]);
        check(VALUE, &[("long", Encoding::Raw, VALUE)]);
        check("hex 733363723374!", &[("short", Encoding::Hex, "733363723374")]);
        // base64 of "user:s3cr3t" and of "xuser:s3cr3t!".
        check("Basic dXNlcjpzM2NyM3Q=", &[("short", Encoding::Base64, "zM2NyM3")]);
        check("eHVzZXI6czNjcjN0IQ", &[("short", Encoding::Base64, "czNjcjN0")]);
        let escaped = r#"correct-horse/battery+staple \"9\""#;
        check(escaped, &[("long", Encoding::Json, escaped)]);
        let percent = "correct-horse%2Fbattery%2Bstaple%20%229%22";
        check(&format!("q={percent}&r"), &[("long", Encoding::Percent, percent)]);
    }

    #[test]
    fn a_stream_gives_what_the_whole_gives_wherever_it_is_cut() {
        let text = format!("a s3cr3t {VALUE} zM2NyM3 s3cr3ts3cr3t {}", "x".repeat(5000) + VALUE);
        let (whole, prints) = (prints().find(text.as_bytes()), Arc::new(prints()));
        assert_eq!(whole.len(), 6);
        for size in (1..=40).chain([2047, 2048, 2049, 4096]) {
            let mut scanner = Scanner::new(prints.clone());
            let chunks = text.as_bytes().chunks(size);
            let mut hits: Vec<_> = chunks.flat_map(|chunk| scanner.push(chunk)).collect();
            hits.sort_by_key(|h| (h.end, h.start));
            let mut whole = whole.clone();
            whole.sort_by_key(|h| (h.end, h.start));
            assert_eq!(hits, whole, "chunks of {size}");
        }
    }

    #[test]
    fn a_scanner_keeps_no_more_than_twice_the_longest_print_and_a_chunk() {
        let prints = Arc::new(prints());
        let (longest, mut scanner) = (prints.longest, Scanner::new(prints));
        for _ in 0..10_000 {
            scanner.push(b"0123456789");
            assert!(scanner.kept.len() <= 2 * longest + 10);
        }
        assert_eq!(scanner.offset + scanner.kept.len() as u64, 100_000);
    }

    #[test]
    fn values_of_impossible_length_are_refused() {
        let of = |bytes: usize| Fingerprints::of("n", &vec![b'a'; bytes], &KEY);
        assert_eq!(of(SECRET_BYTES_MIN - 1).unwrap_err().code(), "BP-PRIVACY-001");
        assert_eq!(of(SECRET_BYTES_MAX + 1).unwrap_err().code(), "BP-PRIVACY-002");
        assert!(of(SECRET_BYTES_MIN).is_ok() && of(SECRET_BYTES_MAX).is_ok());
        let spaced = Fingerprints::of("n", b"  ab \n", &KEY).unwrap_err();
        assert!(matches!(spaced, PrivacyError::SecretTooShort { bytes: 2, .. }));
    }

    #[test]
    fn sets_travel_and_hold_no_value() {
        let stored = serde_json::to_string(&prints()).unwrap();
        assert!(!stored.contains("s3cr3t") && !stored.contains("horse"));
        let back: Fingerprints = serde_json::from_str(&stored).unwrap();
        assert_eq!(back.find(b"s3cr3t").len(), 1);
        assert_eq!(back.names().collect::<Vec<_>>(), ["short", "long"]);
        let other = Fingerprints::none(&FingerprintKey::new([8; 32]));
        assert_eq!(back.merged(other).unwrap_err().code(), "BP-PRIVACY-005");
        let bad = stored.replacen("\"length\":6", "\"length\":5", 1);
        assert!(serde_json::from_str::<Fingerprints>(&bad).is_err());
    }

    #[test]
    fn too_many_hits_are_one_hit_to_the_end() {
        let text = "s3cr3t".repeat(HITS_MAX + 10);
        let hits = prints().find(text.as_bytes());
        assert_eq!(hits.len(), HITS_MAX);
        assert!(hits.iter().any(|h| h.end == text.len() as u64));
    }

    #[test]
    fn too_many_secrets_are_refused() {
        let mut stored = prints().stored;
        stored.names = vec!["n".into(); SECRETS_MAX];
        let full = Fingerprints::try_from(stored).unwrap();
        assert_eq!(full.merged(prints()).unwrap_err().code(), "BP-PRIVACY-002");
    }
}
