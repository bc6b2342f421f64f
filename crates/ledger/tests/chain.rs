//! Whatever is done to a log, verification finds it and names it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ledger::{
    CAUSES_MAX, COMMITMENTS_MAX, ChainFault, Commitment, FORKED, Head, Header, HeaderFault,
    NAME_BYTES_MAX, Salt, Standing, verify_chain, verify_content,
};
use proptest::prelude::*;
use types::{Cause, Coded, Digest, Link, RunId};

fn run() -> RunId {
    RunId::parse("k3f9x2m8q1zt").unwrap()
}

fn header(seq: u64, prev: Digest) -> Header {
    let commitment = |name: &str| Commitment {
        name: name.to_owned(),
        digest: ledger::commit(&[7; 16], name, b"content"),
    };
    Header {
        schema: 1,
        run: run(),
        branch: 0,
        seq,
        prev,
        time_ms: 1000 + seq,
        mono_ms: seq,
        boot: 3,
        kind: "item_added".to_owned(),
        causes: (0..seq.min(2)).map(|seq| Cause { link: Link::ResultOf, seq }).collect(),
        commitments: vec![commitment("actor"), commitment("body")],
    }
}

/// A chain of `count` records and its head; `change` may alter each header before it is linked.
fn chain_with(count: u64, change: impl Fn(&mut Header)) -> (Vec<Vec<u8>>, Head) {
    let mut headers = Vec::new();
    let mut head = Head::EMPTY;
    for seq in 0..count {
        let mut next = header(seq, head.digest);
        change(&mut next);
        headers.push(ledger::encode(&next));
        head = Head { next_seq: seq + 1, digest: ledger::digest(&next) };
    }
    (headers, head)
}

fn chain(count: u64) -> (Vec<Vec<u8>>, Head) {
    chain_with(count, |_| ())
}

/// Code and record of the fault in a chain.
fn fault(headers: &[Vec<u8>], head: Head) -> (&'static str, u64) {
    let fault = verify_chain(headers, head).expect_err("there is a fault");
    let seq = match &fault {
        ChainFault::Malformed { seq, .. }
        | ChainFault::Altered { seq }
        | ChainFault::Surplus { seq, .. }
        | ChainFault::OtherRun { seq, .. }
        | ChainFault::Branch { seq, .. }
        | ChainFault::Content { seq, .. }
        | ChainFault::Uncommitted { seq, .. } => *seq,
        ChainFault::OutOfPlace { expected, .. } => *expected,
        ChainFault::Truncated { found, .. } => *found,
    };
    assert!(!fault.next().is_empty());
    (fault.code(), seq)
}

#[test]
fn an_honest_chain_verifies_at_every_length() {
    for count in 0..20 {
        let (headers, head) = chain(count);
        assert_eq!(verify_chain(&headers, head), Ok(head));
    }
}

#[test]
fn every_flipped_bit_is_found_in_the_record_that_has_it() {
    let (headers, head) = chain(4);
    for (index, honest) in headers.iter().enumerate() {
        for bit in 0..honest.len() * 8 {
            let mut altered = headers.clone();
            altered[index][bit / 8] ^= 1 << (bit % 8);
            let (code, seq) = fault(&altered, head);
            assert_eq!(seq, index as u64, "bit {bit}, found as {code}");
        }
    }
}

#[test]
fn every_cut_record_is_found() {
    let (headers, head) = chain(3);
    for (index, honest) in headers.iter().enumerate() {
        for length in 0..honest.len() {
            let mut cut = headers.clone();
            cut[index].truncate(length);
            assert_eq!(fault(&cut, head), ("BP-LEDGER-002", index as u64));
        }
        let mut longer = headers.clone();
        longer[index].push(0);
        assert_eq!(fault(&longer, head), ("BP-LEDGER-002", index as u64));
    }
}

#[test]
fn dropping_swapping_repeating_cutting_and_adding_are_named() {
    let (headers, head) = chain(5);
    for index in 0..5 {
        let mut dropped = headers.clone();
        dropped.remove(index);
        let expected = if index == 4 { "BP-LEDGER-005" } else { "BP-LEDGER-003" };
        assert_eq!(fault(&dropped, head), (expected, index as u64));
        let mut repeated = headers.clone();
        repeated.insert(index, headers[index].clone());
        let expected = if index == 4 { "BP-LEDGER-006" } else { "BP-LEDGER-003" };
        assert_eq!(fault(&repeated, head), (expected, index as u64 + 1));
        assert_eq!(fault(&headers[..index], head), ("BP-LEDGER-005", index as u64));
        for other in 0..index {
            let mut swapped = headers.clone();
            swapped.swap(index, other);
            assert_eq!(fault(&swapped, head), ("BP-LEDGER-003", other as u64));
        }
    }
}

#[test]
fn a_rewritten_history_does_not_lead_to_the_head() {
    let (_, head) = chain(5);
    for changed in 0..5 {
        let (forged, _) = chain_with(5, |header| {
            if header.seq == changed {
                header.time_ms += 1;
            }
        });
        assert_eq!(fault(&forged, head), ("BP-LEDGER-004", 4));
    }
}

#[test]
fn a_chain_goes_on_in_another_run_only_where_one_was_forked() {
    let other = || RunId::parse("000000000000").unwrap();
    let check = |kind: &'static str, branch: u32, at: u64, expected: Option<(&str, u64)>| {
        let (headers, head) = chain_with(6, |header| {
            if header.seq >= 3 {
                header.run = other();
            }
            header.branch = if header.seq >= 3 { branch } else { 1 };
            if header.seq == at {
                header.kind = kind.to_owned();
            }
        });
        match expected {
            None => assert_eq!(verify_chain(&headers, head), Ok(head)),
            Some(expected) => assert_eq!(fault(&headers, head), expected),
        }
    };
    check(FORKED, 0, 3, None);
    check(FORKED, 0, 4, Some(("BP-LEDGER-007", 3)));
    check(FORKED, 0, 2, Some(("BP-LEDGER-007", 3)));
    check(FORKED, 1, 3, Some(("BP-LEDGER-007", 3)));
    check("item_added", 0, 3, Some(("BP-LEDGER-007", 3)));
}

#[test]
fn another_schema_run_or_branch_is_named() {
    let (mut headers, head) = chain(3);
    headers[1][1] = 9;
    assert_eq!(fault(&headers, head), ("BP-LEDGER-001", 1));
    let (headers, head) = chain_with(3, |header| {
        if header.seq == 2 {
            header.run = RunId::parse("000000000000").unwrap();
        }
    });
    assert_eq!(fault(&headers, head), ("BP-LEDGER-007", 2));
    let (headers, head) = chain_with(4, |header| {
        header.branch = [0, 2, 2, 5][header.seq as usize];
    });
    assert_eq!(verify_chain(&headers, head), Ok(head));
    let (headers, head) = chain_with(4, |header| {
        header.branch = [0, 2, 1, 5][header.seq as usize];
    });
    assert_eq!(fault(&headers, head), ("BP-LEDGER-008", 2));
}

#[test]
fn a_refused_record_leaves_the_chain_as_it_was() {
    let (headers, head) = chain(2);
    let mut chain = ledger::Chain::default();
    assert!(chain.push(&headers[1]).is_err());
    assert_eq!(chain.head(), Head::EMPTY);
    for header in &headers {
        chain.push(header).unwrap();
    }
    assert_eq!(chain.head(), head);
}

#[test]
fn headers_that_may_not_be_written_are_refused() {
    let names = |count: usize| {
        let name = |n| Commitment { name: format!("{n:04}"), digest: Digest::ZERO };
        (0..count).map(name).collect::<Vec<_>>()
    };
    let cause = |seq| Cause { link: Link::AskedIn, seq };
    let check = |change: &dyn Fn(&mut Header)| {
        let mut changed = header(9, Digest::ZERO);
        change(&mut changed);
        ledger::check(&changed)
    };
    assert_eq!(check(&|h| h.kind = "k".repeat(NAME_BYTES_MAX)), Ok(()));
    assert_eq!(check(&|h| h.commitments = names(COMMITMENTS_MAX)), Ok(()));
    assert_eq!(check(&|h| h.causes = vec![cause(8); CAUSES_MAX]), Ok(()));
    assert_eq!(check(&|h| h.schema = 2), Err(HeaderFault::Schema(2)));
    for kind in ["", "Upper", "sp ace", "ünïcode", &"k".repeat(NAME_BYTES_MAX + 1)] {
        assert_eq!(check(&|h| h.kind = kind.to_owned()), Err(HeaderFault::Name));
    }
    assert_eq!(check(&|h| h.commitments.reverse()), Err(HeaderFault::Order));
    assert_eq!(check(&|h| h.commitments[1].name = "actor".into()), Err(HeaderFault::Order));
    assert_eq!(check(&|h| h.causes = vec![cause(9)]), Err(HeaderFault::Cause(9)));
    let too_many = [
        check(&|h| h.commitments = names(COMMITMENTS_MAX + 1)),
        check(&|h| h.causes = vec![cause(8); CAUSES_MAX + 1]),
    ];
    for refused in too_many {
        assert_eq!(refused.unwrap_err().code(), "BP-LEDGER-002");
    }
}

#[test]
fn unknown_links_are_refused() {
    let bytes = ledger::encode(&header(1, Digest::ZERO));
    // The first cause's link follows the kind and the number of causes.
    let at = bytes.windows(10).position(|w| w == b"item_added").unwrap() + 12;
    for (code, known) in [(0, false), (1, true), (8, true), (9, false)] {
        let mut changed = bytes.clone();
        changed[at] = code;
        assert_eq!(ledger::decode(&changed).is_ok(), known, "link {code}");
    }
}

#[test]
fn content_is_intact_erased_altered_or_foreign() {
    let (salt, header): (Salt, _) = ([7; 16], header(3, Digest::ZERO));
    let check = |name, content| verify_content(&header, name, content);
    assert_eq!(check("body", Some((&salt, b"content"))), Ok(Standing::Intact));
    assert_eq!(check("body", None), Ok(Standing::Erased));
    let altered = [(&salt, &b"Content"[..]), (&[8; 16], b"content"), (&salt, b"")];
    for content in altered {
        let fault = check("body", Some(content)).unwrap_err();
        assert_eq!(fault.code(), "BP-LEDGER-009");
        assert!(fault.to_string().starts_with("the body of record 3 was altered"));
    }
    for content in [None, Some((&salt, &b"content"[..]))] {
        assert_eq!(check("raw", content).unwrap_err().code(), "BP-LEDGER-010");
    }
    let exchanged = check("actor", Some((&salt, b"content")));
    assert_eq!(exchanged, Ok(Standing::Intact));
    let moved = ledger::commit(&salt, "actor", b"content");
    assert_ne!(moved, header.commitments[1].digest, "a name is part of a commitment");
}

prop_compose! {
    fn any_header()(
        branch: u32, seq in 1..u64::MAX, prev: [u8; 32], time_ms: u64, mono_ms: u64, boot: u64,
        random: [u8; 8], kind in "[a-z0-9_.-]{1,64}",
        causes in prop::collection::vec((0..8usize, any::<prop::sample::Index>()), 0..9),
        names in prop::collection::btree_map("[a-z0-9_.-]{1,64}", any::<[u8; 32]>(), 0..6),
    ) -> Header {
        let links = [
            Link::ResultOf, Link::DecidedBy, Link::ApprovedBy, Link::RetryOf, Link::ResumedFrom,
            Link::ForkedFrom, Link::Compensates, Link::AskedIn,
        ];
        let cause = |(link, earlier): (usize, prop::sample::Index)| Cause {
            link: links[link],
            seq: earlier.index(usize::try_from(seq.min(1 << 40)).unwrap()) as u64,
        };
        let commitment = |(name, digest)| Commitment { name, digest: Digest(digest) };
        Header {
            schema: 1,
            run: RunId::from_random(random),
            branch, seq, prev: Digest(prev), time_ms, mono_ms, boot, kind,
            causes: causes.into_iter().map(cause).collect(),
            commitments: names.into_iter().map(commitment).collect(),
        }
    }
}

/// One way to tamper with a chain.
#[derive(Debug, Clone)]
enum Tampering {
    Flip(prop::sample::Index, prop::sample::Index, u8),
    Drop(prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
    Repeat(prop::sample::Index, prop::sample::Index),
    Truncate(prop::sample::Index),
    Cut(prop::sample::Index, prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn tampering() -> impl Strategy<Value = Tampering> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), at(), 0..8u8).prop_map(|(record, byte, bit)| Tampering::Flip(record, byte, bit)),
        at().prop_map(Tampering::Drop),
        (at(), at()).prop_map(|(a, b)| Tampering::Swap(a, b)),
        (at(), at()).prop_map(|(from, to)| Tampering::Repeat(from, to)),
        at().prop_map(Tampering::Truncate),
        (at(), at()).prop_map(|(record, byte)| Tampering::Cut(record, byte)),
        (at(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(at, bytes)| Tampering::Insert(at, bytes)),
    ]
}

fn tamper(headers: &mut Vec<Vec<u8>>, tampering: Tampering) {
    let count = headers.len();
    match tampering {
        Tampering::Flip(record, byte, bit) => {
            let record = &mut headers[record.index(count)];
            let length = record.len();
            record[byte.index(length)] ^= 1 << bit;
        }
        Tampering::Drop(record) => drop(headers.remove(record.index(count))),
        Tampering::Swap(a, b) => headers.swap(a.index(count), b.index(count)),
        Tampering::Repeat(from, to) => {
            let copy = headers[from.index(count)].clone();
            headers.insert(to.index(count + 1), copy);
        }
        Tampering::Truncate(length) => headers.truncate(length.index(count)),
        Tampering::Cut(record, byte) => {
            let record = &mut headers[record.index(count)];
            record.truncate(byte.index(record.len()));
        }
        Tampering::Insert(at, bytes) => headers.insert(at.index(count + 1), bytes),
    }
}

proptest! {
    #[test]
    fn a_header_reads_back_and_nothing_near_it_does(
        header in any_header(), at: prop::sample::Index, bit in 0..8u8,
    ) {
        let bytes = ledger::encode(&header);
        prop_assert_eq!(ledger::decode(&bytes), Ok(header.clone()));
        let mut near = bytes.clone();
        near[at.index(bytes.len())] ^= 1 << bit;
        prop_assert_ne!(ledger::decode(&near), Ok(header.clone()));
        prop_assert_ne!(ledger::digest_encoded(&near), ledger::digest(&header));
        prop_assert!(ledger::decode(&bytes[..at.index(bytes.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_refused_or_are_the_one_encoding(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok(header) = ledger::decode(&bytes) {
            prop_assert_eq!(ledger::encode(&header), bytes);
        }
    }

    #[test]
    fn any_tampering_is_found(count in 1..12u64, tampering in tampering()) {
        let (honest, head) = chain(count);
        let mut tampered = honest.clone();
        tamper(&mut tampered, tampering);
        prop_assert_eq!(verify_chain(&tampered, head).is_ok(), tampered == honest);
    }
}
