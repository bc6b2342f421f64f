//! Whole bodies, in and out.

use super::*;
use crate::{DetectorConfig, FingerprintKey, Fingerprints};
use serde_json::json;
use types::Coded as _;

const VALUE: &str = "kT9#vLw2!pQz";
const CANARY: &str = "canary-7d1e0b5c9f";

fn detector() -> Detector {
    let prints = Fingerprints::of("api", VALUE.as_bytes(), &FingerprintKey::new([1; 32]));
    let config = DetectorConfig {
        names: vec!["Ada Lovelace".to_owned()],
        canaries: vec![CANARY.to_owned()],
        ..DetectorConfig::default()
    };
    Detector::new(&config, Some(prints.unwrap())).unwrap()
}

fn all(treatment: Treatment) -> Treatments {
    Kind::ALL.iter().map(|kind| (*kind, treatment)).collect()
}

/// The body as it would be sent, what was found, and the pseudonyms.
fn sent(mut body: Value, treatments: &Treatments) -> (Value, Guarded, Pseudonyms) {
    let mut pseudonyms = Pseudonyms::new([7; 32]);
    let guarded = guard(&mut body, &detector(), treatments, &mut pseudonyms, true).unwrap();
    (body, guarded, pseudonyms)
}

fn conversation() -> Value {
    json!({
        "model": "m",
        "instructions": "Write to ada@example.org about it.",
        "tools": [{"type": "function", "name": "mail", "description": "as ada@example.org does",
            "parameters": {"type": "object", "properties": {"to": {"enum": ["ada@example.org"]}}}}],
        "input": [
            {"role": "user", "content": "Ada Lovelace, +49 30 901820, 4111 1111 1111 1111"},
            {"type": "function_call", "call_id": "call_1", "name": "mail",
                "arguments": "{\"to\":\"ada@example.org\",\"card\":4111111111111111,\"ada@example.org\":1}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "sent\nada@example.org"},
            {"type": "reasoning", "summary": [], "encrypted_content": "ada@example.org"},
        ],
    })
}

#[test]
fn everything_is_replaced_in_every_place_and_restores_exactly() {
    let (body, guarded, pseudonyms) = sent(conversation(), &all(Treatment::Pseudonym));
    let text = body.to_string();
    // Only what its provider wrote for itself still has it.
    assert_eq!(text.matches("ada@example.org").count(), 1, "{text}");
    assert!(!text.contains("Lovelace") && !text.contains("901820") && !text.contains("4111"));
    assert_eq!(guarded.found[&Kind::Email].count, 6);
    assert_eq!(guarded.found[&Kind::Card].count, 2);
    assert!(guarded.changed);
    let mut back = body;
    let kinds = pseudonyms.restored_value(&mut back).unwrap();
    assert!(kinds.has(Kind::Email) && kinds.has(Kind::Name) && !kinds.has(Kind::Iban));
    let arguments = back["input"][1]["arguments"].as_str().unwrap();
    let mut arguments: Value = serde_json::from_str(arguments).unwrap();
    pseudonyms.restored_value(&mut arguments).unwrap();
    let expected = conversation()["input"][1]["arguments"].as_str().unwrap().to_owned();
    assert_eq!(arguments, serde_json::from_str::<Value>(&expected).unwrap());
    back["input"][1]["arguments"] = expected.into();
    assert_eq!(back, conversation());
}

#[test]
fn what_is_sent_as_it_is_is_counted_marked_and_not_changed() {
    let (body, guarded, pseudonyms) = sent(conversation(), &Treatments::default());
    assert_eq!(body, conversation());
    assert!(!guarded.changed && pseudonyms.is_empty());
    assert_eq!(guarded.found[&Kind::Email].count, 6);
    assert!(guarded.shown.contains("/instructions: Write to ⟦email: ada@example.org⟧ about"));
    assert!(guarded.shown.contains("⟦name: Ada Lovelace⟧"), "{}", guarded.shown);
}

#[test]
fn a_value_of_the_vault_is_masked_whatever_is_said() {
    for treatments in [Treatments::default(), all(Treatment::AsIs), all(Treatment::Pseudonym)] {
        let hex: String = VALUE.bytes().map(|b| format!("{b:02x}")).collect();
        let body = json!({"input": format!("a {VALUE} b"), "x": [hex]});
        let (body, guarded, pseudonyms) = sent(body, &treatments);
        assert_eq!(body, json!({"input": "a [masked:api] b", "x": ["[masked:api]"]}));
        assert_eq!(guarded.found[&Kind::Secret].count, 2);
        assert_eq!(guarded.found[&Kind::Secret].names, BTreeSet::from(["api".to_owned()]));
        assert!(pseudonyms.is_empty(), "nothing brings it back");
    }
}

#[test]
fn what_stays_is_seen_in_the_bytes_and_a_canary_is_told_apart() {
    let detector = detector();
    let (body, ..) = sent(json!({"id": VALUE, "input": CANARY}), &Treatments::default());
    let found = detector.exact(&serde_json::to_vec(&body).unwrap());
    assert!(found.contains(&(Kind::Secret, "api".to_owned())), "{found:?}");
    assert!(found.contains(&(Kind::Canary, String::new())), "{found:?}");
}

#[test]
fn a_mask_is_not_brought_back_and_a_look_alike_is() {
    let forged = "person-abcdefghijkl@pseudonym.invalid";
    let mut treatments = all(Treatment::Mask);
    treatments.0.insert(Kind::Phone, Treatment::Pseudonym);
    let body = json!({"input": format!("{forged} ada@example.org +49 30 901820")});
    let (body, _, pseudonyms) = sent(body, &treatments);
    let text = body["input"].as_str().unwrap();
    assert!(text.contains("[masked:email]") && !text.contains(forged), "{text}");
    let (back, kinds) = pseudonyms.restored_text(text);
    assert_eq!(back, format!("{forged} [masked:email] +49 30 901820"));
    assert_eq!(kinds, Kinds::NONE.with(Kind::Phone));
}

#[test]
fn an_image_is_left_as_it_is() {
    let data = "NDExMSAxMTExIDExMTEgMTExMQ==";
    let body = json!({"messages": [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        {"type": "input_image", "image_url": format!("data:image/png;base64,{data}")},
        {"type": "input_text", "text": data},
    ]});
    let (sent, guarded, _) = sent(body.clone(), &all(Treatment::Mask));
    assert_eq!(sent["messages"][0], body["messages"][0]);
    assert_eq!(sent["messages"][1], body["messages"][1]);
    // The padding of base64 is no part of what it holds.
    assert_eq!(sent["messages"][2]["text"], "[masked:card]==");
    assert_eq!(guarded.found[&Kind::Card].count, 1);
}

#[test]
fn nesting_has_a_limit_at_its_edge() {
    let deep = |levels: usize| (0..levels).fold(json!("x"), |inner, _| json!([inner]));
    let guard_of = |mut body: Value| {
        let mut pseudonyms = Pseudonyms::new([7; 32]);
        guard(&mut body, &detector(), &Treatments::default(), &mut pseudonyms, false)
    };
    assert!(guard_of(deep(BODY_DEPTH_MAX)).is_ok());
    assert_eq!(guard_of(deep(BODY_DEPTH_MAX + 1)).unwrap_err().code(), "BP-PRIVACY-002");
}

#[test]
fn what_is_shown_has_a_limit_and_says_what_is_left_out() {
    let one = format!("{}ada@example.org{}", "x ".repeat(100), " y".repeat(100));
    let body = json!({"input": vec![one; 1_000]});
    let (_, guarded, _) = sent(body, &Treatments::default());
    assert!(guarded.shown.len() <= SHOWN_BYTES_MAX + 64, "{}", guarded.shown.len());
    assert!(guarded.shown.ends_with(" more are not shown]\n"), "{}", guarded.shown);
    assert_eq!(guarded.found[&Kind::Email].count, 1_000);
}

#[test]
fn lines_that_were_written_down_give_the_same_pseudonyms_again() {
    let mut first = Pseudonyms::new([7; 32]);
    let (one, _) = first.replace("ada@example.org", &detector()).unwrap();
    let mut lines = first.take_unsaved().unwrap();
    assert!(first.take_unsaved().is_none());
    let (two, _) = first.replace("bob@example.org and ada@example.org", &detector()).unwrap();
    lines.extend(first.take_unsaved().unwrap());
    // The seed of the first line counts, not another one.
    let mut again = Pseudonyms::from_lines(&lines, [8; 32]).unwrap();
    assert_eq!(again.replace("ada@example.org", &detector()).unwrap().0, one);
    assert_eq!(again.restore(&two, Kinds::all()), "bob@example.org and ada@example.org");
    assert!(again.take_unsaved().is_none());
    assert!(Pseudonyms::from_lines(b"", [8; 32]).unwrap().is_empty());
    assert_eq!(Pseudonyms::from_lines(b"{}\n", [8; 32]).unwrap_err().code(), "BP-PRIVACY-005");
    let other = Pseudonyms::new([9; 32]).replace("x@y.example", &detector()).map(|_| ());
    assert!(other.is_ok());
    let mut other = Pseudonyms::new([9; 32]);
    other.replace("x@y.example", &detector()).unwrap();
    lines.extend(other.take_unsaved().unwrap());
    assert_eq!(Pseudonyms::from_lines(&lines, [8; 32]).unwrap_err().code(), "BP-PRIVACY-005");
}

#[test]
fn errors_that_stop_a_request_have_their_codes() {
    assert_eq!(PrivacyError::Canary.code(), "BP-PRIVACY-007");
    let stays = PrivacyError::SecretStays { name: "api".to_owned() };
    assert_eq!(stays.code(), "BP-PRIVACY-008");
    assert!(stays.to_string().contains("\"api\""));
}
