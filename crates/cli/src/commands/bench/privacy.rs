//! `bench privacy`: what the privacy router takes for a request of 64 KiB, as the gate passes it:
//! its JSON read, every text looked into with 50 secrets, 100 names and 10 canaries known, what is
//! found replaced by pseudonyms, its JSON written, and the bytes held against the secrets again.

use super::{Comparison, ROUND, Samples, fail, timed};
use crate::error::Result;
use gate::{PrivacyOrder, PrivacyTier};
use privacy::{FingerprintKey, Fingerprints, Kind};
use serde_json::{Value, json};
use types::{Digest, Treatment};

/// Bytes of the request's texts.
const BYTES: usize = 64 << 10;
/// Messages of the request.
const MESSAGES: usize = 16;
const SECRETS: usize = 50;
const NAMES: usize = 100;
const CANARIES: usize = 10;

/// Prose, code, a log and a table, with an address or a number now and then.
const MIXED: &str = "Hello, my order 100-4431 did not arrive; the page \
(https://shop.example.com/t?id=88213&v=2) shows version 3.14.159 of nothing.\n\
Call me at +49 30 901820 or write to anna.berg@example.org.\n\
fn main() { let home = std::env::var(\"HOME\").unwrap_or_default(); println!(\"{home:?}\"); }\n\
2024-03-17T10:42:07.123Z INFO gate: 203.0.113.9 - \"GET /v1/items/7?page=2 HTTP/1.1\" 200 5123\n\
Die Lieferung verz\u{f6}gert sich um drei Tage. Le colis est en route vers le client.\n\
id,name,amount,currency\n1,Widget,19.99,EUR\n2,Gadget,149.00,EUR\n3,Thing,7.50,USD\n";

/// A request as a conversation of tool results has it.
fn body() -> Vec<u8> {
    let text: String = MIXED.chars().cycle().take(BYTES / MESSAGES).collect();
    let messages: Vec<Value> =
        (0..MESSAGES).map(|_| json!({"role": "user", "content": text})).collect();
    json!({"model": "m", "messages": messages}).to_string().into_bytes()
}

/// Letters that nothing in the text repeats.
fn noise(at: usize, length: usize) -> String {
    let digest = Digest::of(&at.to_be_bytes()).to_string() + &Digest::of(&[7]).to_string();
    digest.chars().take(length).collect()
}

fn order() -> Result<PrivacyOrder> {
    let key = FingerprintKey::new([5; 32]);
    let bad = |error: privacy::PrivacyError| fail("the privacy router", error);
    let prints = (0..SECRETS).map(|at| {
        // Lengths as secrets have them, from short passwords to long tokens.
        Fingerprints::of(&format!("secret-{at}"), noise(at, 12 + at * 7 % 80).as_bytes(), &key)
    });
    let prints = prints.collect::<std::result::Result<Vec<_>, _>>().map_err(bad)?;
    Ok(PrivacyOrder {
        treatments: Kind::ALL.iter().map(|kind| (*kind, Treatment::Pseudonym)).collect(),
        names: (0..NAMES).map(|at| format!("Name{at} Surname{at}")).collect(),
        canaries: (0..CANARIES).map(|at| format!("canary-{}", noise(at + SECRETS, 16))).collect(),
        prints: Some(Fingerprints::all(prints).map_err(bad)?),
        ..PrivacyOrder::default()
    })
}

/// Requests through the router, and the same JSON read and written with nothing looked for.
pub(super) fn requests(count: u32) -> Result<Comparison> {
    let (tier, order, body) = (PrivacyTier::default(), order()?, body());
    // The first builds the tables that the gate keeps.
    let found = tier.pass(&order, body.clone());
    let found = found.map_err(|failure| fail("the privacy router", failure))?;
    let (mut ours, mut peer) = (Samples::default(), Samples::default());
    let mut left = count;
    while left > 0 {
        let now = left.min(ROUND);
        left -= now;
        for _ in 0..now {
            let body = body.clone();
            ours.add(timed(|| tier.pass(&order, body).is_ok()));
        }
        for _ in 0..now {
            peer.add(timed(|| {
                let value = serde_json::from_slice::<Value>(&body);
                value.is_ok_and(|value| serde_json::to_vec(&value).is_ok())
            }));
        }
    }
    let ours = (format!("privacy router, 64 KiB, {found} places found"), ours);
    Ok(Comparison { ours, peer: Some(("the same JSON read and written".to_owned(), peer)) })
}
