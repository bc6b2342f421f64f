//! Round trips: what our encoders and renderers write, the readers read back as the same.

use super::super::*;
use super::DIALECTS;
use crate::decode::{Answer, Context, Finish, decode};
use crate::encode::{ModelRequest, encode};
use proptest::prelude::*;
use std::collections::BTreeMap;
use types::{Digest, Labels, Origin, Usage};

fn origin() -> Origin {
    Origin { provider: "acme".into(), model: "m-1".into() }
}

/// The same items with calls counted instead of named: ids change at every wire.
fn counted(items: &[Item]) -> Vec<Item> {
    let mut ids = BTreeMap::new();
    let mut items = items.to_vec();
    for item in &mut items {
        if let Item::ToolCall { call_id, .. } | Item::ToolResult { call_id, .. } = item {
            let next = ids.len();
            let at = *ids.entry(call_id.clone()).or_insert(next);
            *call_id = at.to_string();
        }
    }
    items
}

fn word() -> impl Strategy<Value = String> {
    "[a-z \"\\\\{}\n]{0,12}[a-zäß]"
}

fn arguments() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-z]{1,4}", word(), 0..3)
        .prop_map(|fields| fields.into_iter().collect())
}

/// What one answer says and calls, with what became of each call.
type Turn = (Option<String>, Vec<(String, Value, String, bool)>);

fn turn() -> impl Strategy<Value = Turn> {
    let call = ("[a-z_]{1,12}", arguments(), word(), any::<bool>());
    (proptest::option::of(word()), proptest::collection::vec(call, 0..3))
}

/// A conversation as a run holds it: the user begins and has the last word.
fn conversation(user: &str, turns: &[Turn], errors: bool) -> Vec<Item> {
    let user = Item::UserMessage { text: user.to_owned() };
    let mut items = vec![user.clone()];
    let mut calls = 0;
    for (said, called) in turns {
        items.extend(said.clone().map(|text| Item::AssistantMessage { text }));
        let mut results = Vec::new();
        for (name, arguments, output, is_error) in called {
            calls += 1;
            let call_id = format!("call_{calls}");
            let (name, arguments) = (name.clone(), arguments.clone());
            items.push(Item::ToolCall { call_id: call_id.clone(), name, arguments });
            let (output, is_error) = (output.clone(), errors && *is_error);
            results.push(Item::ToolResult { call_id, output, is_error, labels: Labels::none() });
        }
        items.extend(results);
        items.push(user.clone());
    }
    items
}

fn dialect() -> impl Strategy<Value = Dialect> {
    proptest::sample::select(&DIALECTS[..])
}

fn read_back(dialect: Dialect, bytes: &[u8]) -> Answer {
    let context = Context { origin: origin(), request: Digest::ZERO, request_bytes: 0 };
    decode(dialect, &context, bytes).expect("what we rendered can be read")
}

proptest! {
    #[test]
    fn a_request_in_any_dialect_is_read_as_what_it_was(
        dialect in dialect(),
        instructions in word(),
        user in word(),
        turns in proptest::collection::vec(turn(), 0..4),
    ) {
        // Only Messages can say that a result is a failure; elsewhere it is in the text.
        let items = conversation(&user, &turns, dialect == Dialect::Messages);
        let tools = vec![ToolSpec {
            name: "shell".into(),
            description: "Runs.".into(),
            input_schema: serde_json::json!({"type": "object", "properties": {}}),
        }];
        let request = ModelRequest {
            provider: "acme".into(),
            model: "m-1".into(),
            instructions: instructions.clone(),
            items: items.clone(),
            tools: tools.clone(),
            max_output_tokens: 77,
        };
        let bytes = encode(dialect, &request).expect("encodes");
        let read = decode_request(dialect, &bytes).expect("reads");
        prop_assert_eq!(counted(&read.items), counted(&items));
        prop_assert_eq!((read.instructions, read.tools), (instructions, tools));
        prop_assert_eq!((read.model.as_str(), read.max_output_tokens), ("m-1", Some(77)));
        prop_assert!(read.stream && read.dropped.is_empty() && read.guest_tools.is_empty());
    }

    #[test]
    fn the_key_is_the_same_in_every_dialect(
        user in word(),
        turns in proptest::collection::vec(turn(), 0..4),
    ) {
        let mut keys = std::collections::BTreeSet::new();
        for dialect in DIALECTS {
            let request = ModelRequest {
                provider: "acme".into(),
                model: format!("{dialect:?}"),
                instructions: "Be brief.".into(),
                items: conversation(&user, &turns, false),
                tools: vec![],
                max_output_tokens: 1,
            };
            let bytes = encode(dialect, &request).expect("encodes");
            keys.insert(request_key(&decode_request(dialect, &bytes).expect("reads")));
        }
        prop_assert_eq!(keys.len(), 1);
    }

    #[test]
    fn an_answer_in_any_dialect_is_read_as_what_it_was(
        dialect in dialect(),
        stream in any::<bool>(),
        thought in proptest::option::of(word()),
        (said, called) in turn(),
        cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..4),
        tokens in (0u64..1000, 0u64..1000, 1u64..1000),
    ) {
        let mut items = Vec::new();
        // Text that came before has its place first, so thought and pieces are tried apart.
        if cuts.is_empty() {
            items.extend(thought.map(|summary| Item::Reasoning { summary, opaque: None, origin: origin() }));
        }
        items.extend(said.clone().map(|text| Item::AssistantMessage { text }));
        for (at, (name, arguments, _, _)) in called.into_iter().enumerate() {
            items.push(Item::ToolCall { call_id: format!("call_{at}"), name, arguments });
        }
        let has_calls = items.iter().any(|item| matches!(item, Item::ToolCall { .. }));
        let answer = Answer {
            items,
            usage: Usage { input_tokens: tokens.0 + tokens.1, cached_tokens: tokens.1, output_tokens: tokens.2, ..Usage::default() },
            usage_estimated: false,
            finish: if has_calls { Finish::ToolCalls } else { Finish::Stop },
        };
        let mut renderer = Renderer::new(dialect, stream, "m", Digest::of(b"ids"));
        renderer.include_usage_in_stream();
        let mut bytes = renderer.begin();
        for piece in pieces(said.as_deref().unwrap_or_default(), &cuts) {
            bytes.extend(renderer.text(piece));
        }
        bytes.extend(renderer.answer(&answer));
        let read = read_back(dialect, &bytes);
        prop_assert_eq!(counted(&summaries(&read.items)), counted(&summaries(&answer.items)));
        prop_assert_eq!((read.usage, read.finish), (answer.usage, answer.finish));
        prop_assert!(!read.usage_estimated);
        prop_assert!(renderer.answer(&answer).is_empty(), "nothing comes after the end");
    }
}

/// Reasoning as all dialects can say it: what is readable.
fn summaries(items: &[Item]) -> Vec<Item> {
    let readable = |item: &Item| match item {
        Item::Reasoning { summary, .. } => {
            Item::Reasoning { summary: summary.clone(), opaque: None, origin: origin() }
        }
        other => other.clone(),
    };
    items.iter().map(readable).collect()
}

/// The beginning of a text in pieces: what comes before the last cut.
fn pieces<'a>(text: &'a str, cuts: &[proptest::sample::Index]) -> Vec<&'a str> {
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| places[cut.index(places.len())]).collect();
    cuts.push(0);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}
