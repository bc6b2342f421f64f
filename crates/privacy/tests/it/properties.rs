//! Properties over arbitrary text with values put in.

use crate::{cases, maker};
use privacy::{Form, Kinds, Pseudonyms, StreamRestorer};
use proptest::prelude::*;

fn piece() -> impl Strategy<Value = String> {
    let values = [
        "anna@firma.example",
        "+49 30 901820",
        "4111 1111 1111 1111",
        "DE89370400440532013000",
        "203.0.113.9",
        "529.982.247-25",
        "Jürgen Großmann",
        "山田太郎",
        "person-abcdefghijkl@pseudonym.invalid",
        "+999123456789012",
        "9999",
        "pseudonym-name-",
        "100::",
        "f2:00:00:00:00:00",
        "%40",
        "-----BEGIN PRIVATE KEY-----",
        "password=",
        "dGVzdEBmaXJtYS5leGFtcGxl",
        "https://u:",
        "@",
        "::",
        "ä",
        "\u{301}",
    ];
    let known: Vec<String> = values
        .iter()
        .chain(&maker::VAULT)
        .chain(&maker::CANARIES)
        .map(|v| (*v).to_owned())
        .collect();
    prop_oneof![
        3 => any::<String>(),
        4 => proptest::sample::select(known),
        1 => "[0-9 .:/@+-]{0,40}",
        1 => "[A-Za-z0-9+/=_-]{0,60}",
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(piece(), 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn findings_are_sorted_apart_and_cut_no_character(text in text()) {
        let found = cases::detector().find(&text);
        let mut end = 0;
        for finding in &found {
            prop_assert!(finding.start >= end && finding.end > finding.start, "{:?}", found);
            prop_assert!(text.get(finding.start..finding.end).is_some());
            end = finding.end;
        }
    }

    #[test]
    fn replace_then_restore_is_the_same_text_whole_and_in_any_chunks(
        texts in prop::collection::vec(text(), 1..4),
        cuts in prop::collection::vec(1_usize..50, 1..40),
    ) {
        let (detector, mut run) = (cases::detector(), Pseudonyms::new([6; 32]));
        for text in texts {
            // To refuse is permitted, to be wrong is not; nothing random is ever refused.
            let (sent, _) = run.replace(&text, &detector).unwrap();
            prop_assert_eq!(&run.restore(&sent, Kinds::all()), &text);
            let (mut stream, mut out) = (StreamRestorer::new(Kinds::all(), Form::Text), String::new());
            let (mut rest, mut sizes) = (sent.as_str(), cuts.iter().cycle());
            while !rest.is_empty() {
                let size = *sizes.next().unwrap();
                let at = rest.char_indices().nth(size).map_or(rest.len(), |(at, _)| at);
                out += &stream.push(&run, &rest[..at]);
                rest = &rest[at..];
            }
            out += &stream.finish(&run);
            prop_assert_eq!(&out, &text);
        }
    }

    #[test]
    fn values_of_the_vault_never_leave(before in text(), after in text(), at in 0..maker::VAULT.len()) {
        let (detector, mut run) = (cases::detector(), Pseudonyms::new([6; 32]));
        let text = format!("{before}{}{after}", maker::VAULT[at]);
        let (sent, _) = run.replace(&text, &detector).unwrap();
        prop_assert!(!sent.contains(maker::VAULT[at]), "{}", sent);
    }
}
