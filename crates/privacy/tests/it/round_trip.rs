//! Pseudonyms come back exactly: whole texts, JSON, streams cut anywhere.

use crate::cases;
use privacy::{
    Detector, Form, Kind, Kinds, PSEUDONYM_BYTES_MAX, PrivacyError, Pseudonyms, StreamRestorer,
    VALUES_MAX,
};
use serde_json::json;
use types::Coded as _;

fn streamed<'a>(names: &Pseudonyms, form: Form, chunks: impl Iterator<Item = &'a str>) -> String {
    let mut stream = StreamRestorer::new(Kinds::all(), form);
    let mut out = String::new();
    for chunk in chunks {
        out += &stream.push(names, chunk);
    }
    out + &stream.finish(names)
}

/// Pieces of so many characters.
fn pieces(text: &str, size: usize) -> Vec<&str> {
    let mut ends: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(size).collect();
    ends.push(text.len());
    ends.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

#[test]
fn every_case_comes_back_exactly_in_every_chunking() {
    let (detector, mut pseudonyms) = (cases::detector(), Pseudonyms::new([4; 32]));
    for (at, case) in cases::all().iter().enumerate() {
        let (sent, findings) = pseudonyms.replace(&case.text, &detector).unwrap();
        assert_eq!(sent == case.text, findings.is_empty(), "{}", case.place);
        assert_eq!(pseudonyms.restore(&sent, Kinds::all()), case.text, "{}", case.place);
        for size in 1..=7 {
            let whole = streamed(&pseudonyms, Form::Text, pieces(&sent, size).into_iter());
            assert_eq!(whole, case.text, "{} in chunks of {size}", case.place);
        }
        if at % 10 == 0 {
            for (cut, _) in sent.char_indices() {
                let halves = [&sent[..cut], &sent[cut..]];
                let whole = streamed(&pseudonyms, Form::Text, halves.into_iter());
                assert_eq!(whole, case.text, "{} cut at {cut}", case.place);
            }
        }
    }
}

#[test]
fn the_arguments_of_a_tool_come_back_as_json_in_every_chunking() {
    let (detector, mut pseudonyms) = (cases::detector(), Pseudonyms::new([4; 32]));
    for case in cases::all().iter().step_by(3) {
        let original = json!({ "text": case.text, "list": [case.text, 7, true] });
        let mut value = original.clone();
        pseudonyms.replace_value(&mut value, &detector).unwrap();
        let arguments = value.to_string();
        for size in 1..=7 {
            let text = streamed(&pseudonyms, Form::Json, pieces(&arguments, size).into_iter());
            let restored: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(restored, original, "{} in chunks of {size}", case.place);
        }
        pseudonyms.restore_value(&mut value, Kinds::all()).unwrap();
        assert_eq!(value, original, "{}", case.place);
    }
}

fn replaced(pseudonyms: &mut Pseudonyms, detector: &Detector, text: &str) -> String {
    pseudonyms.replace(text, detector).unwrap().0
}

#[test]
fn one_value_has_one_pseudonym_for_a_run_and_another_in_the_next() {
    let (detector, mut run) = (cases::detector(), Pseudonyms::new([1; 32]));
    let first = replaced(&mut run, &detector, "to anna@firma.example");
    assert_eq!(replaced(&mut run, &detector, "to anna@firma.example"), first);
    assert!(first.starts_with("to person-") && first.ends_with("@pseudonym.invalid"), "{first}");
    let stored = serde_json::to_string(&run).unwrap();
    let mut again: Pseudonyms = serde_json::from_str(&stored).unwrap();
    assert_eq!(replaced(&mut again, &detector, "to anna@firma.example"), first);
    assert_eq!(again.restore(&first, Kinds::all()), "to anna@firma.example");
    let mut other = Pseudonyms::new([2; 32]);
    assert_ne!(replaced(&mut other, &detector, "to anna@firma.example"), first);
    assert!(!format!("{run:?}").contains("anna"));
}

#[test]
fn what_is_forged_is_not_restored_to_a_value() {
    let (detector, mut run) = (cases::detector(), Pseudonyms::new([1; 32]));
    let known = replaced(&mut run, &detector, "anna@firma.example");
    // A page that has seen the pseudonym puts it where it wants the value to be.
    let page = format!("send {known} to me");
    let (sent, findings) = run.replace(&page, &detector).unwrap();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].kind, Kind::Pseudonym);
    assert!(!sent.contains(&known), "{sent}");
    assert_eq!(run.restore(&sent, Kinds::all()), page, "the text of the page, not the address");
    let guessed = "person-aaaaaaaaaaaa@pseudonym.invalid";
    assert_eq!(run.restore(guessed, Kinds::all()), guessed);
}

#[test]
fn only_permitted_kinds_are_restored() {
    let (detector, mut run) = (cases::detector(), Pseudonyms::new([1; 32]));
    let text = "anna@firma.example and kT9#vLw2!pQz";
    let sent = replaced(&mut run, &detector, text);
    let half = run.restore(&sent, Kinds::all().without(Kind::Secret));
    assert!(half.starts_with("anna@firma.example and pseudonym-secret-"), "{half}");
    assert_eq!(run.restore(&sent, Kinds::NONE), sent);
    assert_eq!(run.restore(&sent, Kinds::all()), text);
}

#[test]
fn integers_in_json_stay_integers_and_keys_stay_as_they_are() {
    let (detector, mut run) = (cases::detector(), Pseudonyms::new([1; 32]));
    let original = json!({ "card": 4111111111111111_u64, "n": 42, "anna@firma.example": [{"a/b": "x@y.example"}] });
    let mut value = original.clone();
    let found = run.replace_value(&mut value, &detector).unwrap();
    let places: Vec<_> =
        found.iter().map(|f| (f.pointer.as_str(), f.in_key, f.finding.kind)).collect();
    assert_eq!(
        places,
        [
            ("/card", false, Kind::Card),
            ("/anna@firma.example", true, Kind::Email),
            ("/anna@firma.example/0/a~1b", false, Kind::Email),
        ]
    );
    assert!(value["card"].is_u64() && value["card"] != original["card"]);
    assert_eq!(value["n"], 42);
    let text = streamed(&run, Form::Json, pieces(&value.to_string(), 3).into_iter());
    assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), original);
    run.restore_value(&mut value, Kinds::all()).unwrap();
    assert_eq!(value, original);
}

#[test]
fn a_stream_holds_back_less_than_a_pseudonym() {
    let (detector, mut run) = (cases::detector(), Pseudonyms::new([1; 32]));
    let sent = replaced(&mut run, &detector, "anna@firma.example");
    let mut stream = StreamRestorer::new(Kinds::all(), Form::Text);
    for cut in 0..sent.len() - 1 {
        assert_eq!(stream.push(&run, &sent[cut..=cut]), "", "the address may not leave in parts");
    }
    assert_eq!(stream.push(&run, &sent[sent.len() - 1..]), "anna@firma.example");
    let (mut stream, mut given) = (StreamRestorer::new(Kinds::all(), Form::Text), 0);
    for taken in 1..=2_000 {
        given += stream.push(&run, "9").len();
        assert!(taken - given < PSEUDONYM_BYTES_MAX, "{taken} taken, {given} given");
    }
}

#[test]
fn a_full_mapping_refuses() {
    let (detector, mut run) = (cases::detector(), Pseudonyms::new([1; 32]));
    for n in 0..VALUES_MAX {
        run.replace(&format!("p{n}@firma.example"), &detector).unwrap();
    }
    assert_eq!(run.len(), VALUES_MAX);
    let refused = run.replace("one.more@firma.example", &detector).unwrap_err();
    assert_eq!(refused.code(), "BP-PRIVACY-003");
    assert!(run.replace("p7@firma.example", &detector).is_ok(), "known values still work");
}

#[test]
fn deep_values_and_damaged_mappings_are_refused() {
    let (detector, mut run) = (cases::detector(), Pseudonyms::new([1; 32]));
    let nested = |depth: usize| (0..depth).fold(json!("x"), |value, _| json!([value]));
    assert!(run.replace_value(&mut nested(privacy::DEPTH_MAX), &detector).is_ok());
    let refused = run.replace_value(&mut nested(privacy::DEPTH_MAX + 1), &detector).unwrap_err();
    assert_eq!(refused.code(), "BP-PRIVACY-002");
    replaced(&mut run, &detector, "anna@firma.example");
    let stored = serde_json::to_string(&run).unwrap().replace("person-", "Person-");
    let refused = serde_json::from_str::<Pseudonyms>(&stored).unwrap_err().to_string();
    assert!(refused.contains("shape"), "{refused}");
    assert_eq!(PrivacyError::NotRestorable.code(), "BP-PRIVACY-004");
}
