//! The Responses dialect: `POST {base}/responses`, stateless (`store` is false).

use super::{ModelRequest, arguments_text, map, object, reasons};
use crate::transcript::{Entry, entries, marked};
use crate::wire::WireIds;
use serde_json::{Map, Value, json};
use types::{Item, ToolSpec};

/// The body. What never changes in a run comes first, the conversation last.
pub(super) fn body(request: &ModelRequest) -> Map<String, Value> {
    let mut body = map([
        ("model", Value::from(request.model.as_str())),
        ("stream", Value::from(true)),
        ("store", Value::from(false)),
    ]);
    if reasons(&request.model) {
        body.insert("include".into(), json!(["reasoning.encrypted_content"]));
    }
    body.insert("max_output_tokens".into(), request.max_output_tokens.into());
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(tool).collect());
    }
    if !request.instructions.is_empty() {
        body.insert("instructions".into(), request.instructions.as_str().into());
    }
    body.insert("input".into(), Value::Array(input(request)));
    body
}

fn tool(spec: &ToolSpec) -> Value {
    object([
        ("type", "function".into()),
        ("name", spec.name.as_str().into()),
        ("description", spec.description.as_str().into()),
        ("parameters", spec.input_schema.clone()),
        ("strict", false.into()),
    ])
}

fn input(request: &ModelRequest) -> Vec<Value> {
    let mut ids = WireIds::default();
    let mut input = Vec::new();
    for entry in entries(&request.items) {
        match entry {
            Entry::User(text) => input.push(message("user", "input_text", text)),
            Entry::Answer(items) => answer(request, &items, &mut ids, &mut input),
            Entry::Result { call_id, output, is_error } => input.push(object([
                ("type", "function_call_output".into()),
                ("call_id", ids.of(call_id).into()),
                ("output", marked(output, is_error).into()),
            ])),
        }
    }
    input
}

fn answer(request: &ModelRequest, items: &[&Item], ids: &mut WireIds, input: &mut Vec<Value>) {
    for (at, item) in items.iter().enumerate() {
        match item {
            Item::AssistantMessage { text } => {
                input.push(message("assistant", "output_text", text));
            }
            Item::ToolCall { call_id, name, arguments } => input.push(object([
                ("type", "function_call".into()),
                ("call_id", ids.of(call_id).into()),
                ("name", name.as_str().into()),
                ("arguments", arguments_text(arguments).into()),
            ])),
            Item::Reasoning { opaque: Some(part), origin, .. } if request.owns(origin) => {
                if sendable(part) && leads_to_something(&items[at + 1..]) {
                    input.push(part.clone());
                }
            }
            Item::Reasoning { .. } | Item::UserMessage { .. } | Item::ToolResult { .. } => {}
        }
    }
}

/// An opaque part of this dialect is an item: an object with a type. Those of Chat are not.
fn sendable(part: &Value) -> bool {
    part.get("type").is_some_and(Value::is_string)
}

/// Reasoning that nothing follows is refused by the provider.
fn leads_to_something(rest: &[&Item]) -> bool {
    rest.iter().any(|item| !matches!(item, Item::Reasoning { .. }))
}

fn message(role: &str, part: &str, text: &str) -> Value {
    object([
        ("type", "message".into()),
        ("role", role.into()),
        ("content", Value::Array(vec![object([("type", part.into()), ("text", text.into())])])),
    ])
}
