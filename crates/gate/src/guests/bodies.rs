//! What a body shares with one that was recorded before, so that a conversation that grows is kept
//! once and not again with every call.

use crate::limits::GUEST_BODIES_MAX;
use bytes::Bytes;
use std::collections::VecDeque;

/// The last bodies that were recorded.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    kept: VecDeque<(u64, Bytes)>,
}

/// What is new in a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Delta {
    /// The record of the body it is compared with.
    pub(super) base: Option<u64>,
    pub(super) head_bytes: u64,
    pub(super) tail_bytes: u64,
    pub(super) between: Bytes,
}

impl Bodies {
    /// Keeps the body of a record; the oldest makes room.
    pub(super) fn note(&mut self, record: u64, body: Bytes) {
        if self.kept.len() == GUEST_BODIES_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back((record, body));
    }

    /// A body against the one it shares most with.
    pub(super) fn delta(&self, body: &Bytes) -> Delta {
        let shared = self.kept.iter().map(|(record, old)| {
            let (head, tail) = shared(old, body);
            (head + tail, *record, head, tail)
        });
        let best = shared.max().filter(|(sum, ..)| *sum > 0);
        let (base, head, tail) =
            best.map_or((None, 0, 0), |(_, record, head, tail)| (Some(record), head, tail));
        let between = body.slice(head..body.len() - tail);
        Delta { base, head_bytes: head as u64, tail_bytes: tail as u64, between }
    }
}

/// Bytes at the beginning and at the end that both have, without counting one twice.
fn shared(old: &[u8], new: &[u8]) -> (usize, usize) {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let rest = old[head..].iter().rev().zip(new[head..].iter().rev());
    (head, rest.take_while(|(a, b)| a == b).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(delta: &Delta, old: &[u8]) -> Vec<u8> {
        let (head, tail) = (delta.head_bytes as usize, delta.tail_bytes as usize);
        let between: &[u8] = &delta.between;
        [&old[..head], between, &old[old.len() - tail..]].concat()
    }

    #[test]
    fn a_conversation_that_grows_is_kept_once() {
        let mut bodies = Bodies::default();
        let body = |turns: &str| Bytes::from(format!("{{\"messages\":[{turns}],\"tools\":[1,2]}}"));
        let first = body("\"one\"");
        let delta = bodies.delta(&first);
        assert_eq!((delta.base, delta.between), (None, first.clone()));
        bodies.note(7, first.clone());
        let delta = bodies.delta(&body("\"one\",\"two\""));
        assert_eq!((delta.base, &*delta.between), (Some(7), b",\"two\"".as_slice()));
        assert_eq!(bodies.delta(&first).between, Bytes::new(), "the same again");
    }

    #[test]
    fn as_many_are_kept_as_may_be() {
        let mut bodies = Bodies::default();
        for record in 0..=GUEST_BODIES_MAX as u64 {
            bodies.note(record, Bytes::from(vec![record as u8; 10]));
        }
        assert_eq!(bodies.delta(&Bytes::from(vec![0; 10])).base, None, "the oldest made room");
        assert_eq!(bodies.delta(&Bytes::from(vec![1; 10])).base, Some(1));
    }

    proptest! {
        #[test]
        fn a_body_is_made_whole_again(
            old in proptest::collection::vec(0u8..3, 0..40),
            new in proptest::collection::vec(0u8..3, 0..40),
        ) {
            let mut bodies = Bodies::default();
            bodies.note(1, old.clone().into());
            let delta = bodies.delta(&new.clone().into());
            prop_assert_eq!(whole(&delta, &old), new);
        }
    }
}
