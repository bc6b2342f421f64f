//! The vectors of `docs/log-format.md`, which were computed by another program.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use ledger::{Commitment, Header, Salt};
use types::{BRANCH_MAIN, Cause, Digest, Link, RunId};

const PAGE: &str = include_str!("../../../docs/log-format.md");
const ACTOR: &[u8] = br#"{"agent":"triage"}"#;
const BODY: &[u8] = br#"{"kind":"cancel_requested","by":"ada"}"#;

fn vectors() -> Vec<(&'static str, &'static str)> {
    let (_, rest) = PAGE.split_once("```vectors\n").unwrap();
    let (block, _) = rest.split_once("```").unwrap();
    let line = |line: &'static str| line.split_once(char::is_whitespace).unwrap();
    block.lines().map(line).map(|(what, value)| (what, value.trim())).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn header(seq: u64, prev: Digest, commitments: Vec<Commitment>) -> Header {
    let cause = |link| Cause { link, seq: 0 };
    Header {
        schema: 1,
        run: RunId::parse("k3f9x2m8q1zt").unwrap(),
        branch: if seq == 0 { BRANCH_MAIN } else { 1 },
        seq,
        prev,
        time_ms: 1_700_000_000_000 + seq,
        mono_ms: 12 + seq,
        boot: 0x0102_0304_0506_0708,
        kind: "cancel_requested".to_owned(),
        causes: match seq {
            0 => vec![],
            _ => vec![cause(Link::ForkedFrom), cause(Link::ResultOf)],
        },
        commitments,
    }
}

#[test]
fn the_page_and_the_code_agree() {
    let mut salt = Salt::default();
    let mut commitments = Vec::new();
    let (mut prev, mut seq) = (Digest::ZERO, 0);
    let mut encoded = Vec::new();
    let mut headers = Vec::new();
    for (what, value) in vectors() {
        match what {
            "salt" => salt = bytes(value).try_into().unwrap(),
            "commit" => {
                let (name, expected) = value.split_once(' ').unwrap();
                let content = match name {
                    "actor" => ACTOR,
                    "body" => BODY,
                    _ => b"",
                };
                let digest = ledger::commit(&salt, name, content);
                assert_eq!(digest.to_string(), expected, "{name}");
                let name = name.to_owned();
                commitments.push(Commitment { name, digest });
            }
            "header" => {
                let header = header(seq, prev, std::mem::take(&mut commitments));
                encoded = ledger::encode(&header);
                assert_eq!(encoded, bytes(value), "header {seq}");
                assert_eq!(ledger::decode(&encoded), Ok(header));
            }
            "digest" => {
                prev = ledger::digest_encoded(&encoded);
                assert_eq!(prev.to_string(), value, "digest {seq}");
                headers.push(encoded.clone());
                seq += 1;
            }
            other => panic!("unknown vector {other}"),
        }
    }
    assert_eq!(headers.len(), 2, "the page has two records");
    let head = ledger::Head { next_seq: 2, digest: prev };
    assert_eq!(ledger::verify_chain(&headers, head), Ok(head));
}
