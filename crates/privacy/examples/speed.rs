//! How long the whole tier takes for 64 KiB:
//! `cargo run --release -p bedplate-privacy --example speed`.
//!
//! Prints the least, p50, p95 and p99 in milliseconds of finding everything with the fingerprints of 50
//! secrets, 100 names and 10 canaries loaded, for mixed text and for texts that are as bad as can
//! be for one pass (or for the one that is named on the command line); then of replacing and restoring the mixed text.

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use privacy::{
    Detector, DetectorConfig, FingerprintKey, Fingerprints, Form, Kinds, Pseudonyms, StreamRestorer,
};
use std::hint::black_box;
use std::time::Instant;

const BYTES: usize = 64 << 10;
const ROUNDS: usize = 400;

const MIXED: &str = r#"{"role":"user","content":"Please look at ticket 48213 from 2024-03-17 10:42:07."}
Hello, my order 100-4431 did not arrive; the tracking page (https://shop.example.com/t?id=88213&v=2)
shows version 3.14.159 of nothing. Call me at +49 30 901820 or write to anna.berg@example.org.
fn main() { let token = std::env::var("TOKEN").unwrap_or_default(); println!("{:?}", token); }
2024-03-17T10:42:07.123Z INFO gate: 203.0.113.9 - "GET /v1/items/7?page=2 HTTP/1.1" 200 5123 0.004
Die Lieferung verz\u{f6}gert sich um drei Tage; wir bitten um Entschuldigung. Le colis est en route.
id,name,amount,currency\n1,Widget,19.99,EUR\n2,Gadget,149.00,EUR\n3,Thing,7.50,USD\n
"#;

fn filled(pattern: &str) -> String {
    let mut text = pattern.repeat(BYTES / pattern.len() + 1);
    let mut end = BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// Letters, digits and the like from a small generator, so that nothing repeats.
fn noise(alphabet: &[u8]) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(alphabet[(state >> 33) as usize % alphabet.len()])
    };
    (0..BYTES).map(|_| next()).collect()
}

fn detector() -> Detector {
    let key = FingerprintKey::new([5; 32]);
    let letters = noise(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789");
    // Lengths as keys have them: from short passwords to long tokens.
    let secrets = (0..50).map(|n| {
        let value = &letters[n * 100..n * 100 + 12 + n * 7 % 80];
        Fingerprints::of(&format!("secret-{n}"), value.as_bytes(), &key)
    });
    let secrets: Vec<_> = secrets.collect::<Result<_, _>>().expect("they are long enough");
    let config = DetectorConfig {
        names: (0..100).map(|n| format!("Name{n} Surname{n}")).collect(),
        canaries: (0..10)
            .map(|n| format!("canary-{n}-{}", &letters[n * 50..n * 50 + 12]))
            .collect(),
        ..DetectorConfig::default()
    };
    let prints = Fingerprints::all(secrets).expect("they share a key");
    Detector::new(&config, Some(prints)).expect("the configuration is small")
}

fn measure(name: &str, mut work: impl FnMut()) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[(times.len() as f64 * share) as usize];
    let (least, p50, p95, p99) = (times[0], at(0.5), at(0.95), at(0.99));
    println!("{name:<26} min {least:.3}  p50 {p50:.3}  p95 {p95:.3}  p99 {p99:.3} ms");
}

fn main() {
    let detector = detector();
    let only = std::env::args().nth(1);
    let base64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let texts = [
        ("mixed", filled(MIXED)),
        ("prose", filled("The quick brown fox jumps over the lazy dog, and so on. ")),
        ("digits only", noise(b"0123456789")),
        ("digit groups", noise(b"0123456789 -.")),
        ("groups of four", filled("4111 1111 1111 1112 ")),
        ("base64 only", noise(base64)),
        ("base64 of text", filled("aGVsbG8gd29ybGQsIGhlbGxv")),
        ("@ only", filled("@")),
        ("a@ only", filled("a@a.")),
        (": only", filled(":")),
        ("hex and colons", noise(b"0123456789abcdef:")),
        ("percent only", filled("%41%42%20")),
        ("keywords only", filled("password=token:secret ")),
        ("token prefixes", filled("sk-ghp_AKIAeyJ")),
        ("pem heads", filled("-----BEGIN PRIVATE KEY-----")),
        ("urls", filled("https://a:b ")),
        ("pseudonym heads", filled("pseudonym-name-")),
        ("cjk", filled("山田太郎さんの電話番号は")),
    ];
    let wanted = |name: &str| only.as_deref().is_none_or(|only| only == name);
    for (name, text) in texts.iter().filter(|(name, _)| wanted(name)) {
        measure(name, || {
            black_box(detector.find(black_box(text)));
        });
    }
    let mixed = &texts[0].1;
    let mut pseudonyms = Pseudonyms::new([1; 32]);
    let (replaced, _) = pseudonyms.replace(mixed, &detector).expect("it can be replaced");
    measure("replace, mixed", || {
        black_box(pseudonyms.replace(mixed, &detector)).expect("it can be replaced");
    });
    measure("restore, mixed", || {
        black_box(pseudonyms.restore(&replaced, Kinds::all()));
    });
    measure("stream of 16 bytes, mixed", || {
        let mut stream = StreamRestorer::new(Kinds::all(), Form::Text);
        let mut at = 0;
        while at < replaced.len() {
            let mut end = replaced.len().min(at + 16);
            while !replaced.is_char_boundary(end) {
                end += 1;
            }
            black_box(stream.push(&pseudonyms, &replaced[at..end]));
            at = end;
        }
        black_box(stream.finish(&pseudonyms));
    });
}
