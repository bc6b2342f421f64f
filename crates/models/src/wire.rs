//! Tool-call ids at the wire.
//!
//! Providers disagree about ids: length 9 exactly, at most 40 or 64 characters, with or without
//! punctuation. So the wire carries ids of our own that every server takes: nine letters and
//! digits, derived from the conversation's id by hash, the same in every request of a run. What a
//! provider called the call is not needed again: its reply's bytes are kept.

use std::collections::{HashMap, HashSet};
use types::Digest;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const WIRE_ID_CHARS: usize = 9;

/// The ids of one request. Two different calls never share one: the later of two that collide is
/// hashed again, so an id never changes when the conversation grows.
#[derive(Debug, Default)]
pub(crate) struct WireIds {
    by_call: HashMap<String, String>,
    taken: HashSet<String>,
}

impl WireIds {
    /// The wire's id of a call.
    pub(crate) fn of(&mut self, call_id: &str) -> String {
        if let Some(id) = self.by_call.get(call_id) {
            return id.clone();
        }
        let mut round = 0u64;
        let id = loop {
            let id = hashed(call_id, round);
            if self.taken.insert(id.clone()) {
                break id;
            }
            round += 1;
        };
        self.by_call.insert(call_id.to_owned(), id.clone());
        id
    }
}

fn hashed(call_id: &str, round: u64) -> String {
    let digest =
        Digest::of_parts("bedplate wire call id", &[call_id.as_bytes(), &round.to_be_bytes()]);
    digest.0[..WIRE_ID_CHARS]
        .iter()
        .map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]))
        .collect()
}

/// The conversation's id of a call in an answer: unique within the run, because `salt` is the
/// digest of the request, whatever the provider calls it.
pub(crate) fn conversation_id(salt: &Digest, index: usize, provider_id: &str) -> String {
    let digest = Digest::of_parts(
        "bedplate call id",
        &[&salt.0, &(index as u64).to_be_bytes(), provider_id.as_bytes()],
    );
    format!("call_{}", &digest.to_string()[..24])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_short_plain_stable_and_distinct() {
        let mut ids = WireIds::default();
        let odd = ["", "call_1", "functions.shell:0", "fc_1|x", &"a".repeat(500), "ü"];
        let first: Vec<String> = odd.iter().map(|id| ids.of(id)).collect();
        let again: Vec<String> = odd.iter().map(|id| ids.of(id)).collect();
        assert_eq!(first, again);
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), odd.len());
        for id in &first {
            assert_eq!(id.len(), WIRE_ID_CHARS);
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric()));
        }
    }

    #[test]
    fn a_collision_moves_the_later_call_only() {
        let mut ids = WireIds::default();
        ids.taken.insert(hashed("b", 0));
        assert_eq!(ids.of("a"), hashed("a", 0));
        assert_eq!(ids.of("b"), hashed("b", 1));
    }

    #[test]
    fn conversation_ids_differ_by_request_index_and_provider_id() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let all = [
            conversation_id(&one, 0, "x"),
            conversation_id(&two, 0, "x"),
            conversation_id(&one, 1, "x"),
            conversation_id(&one, 0, "y"),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }
}
