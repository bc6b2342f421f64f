//! The Chat Completions dialect: `POST {base}/chat/completions`.
//!
//! One answer is one assistant message with all its calls, followed at once by one tool message
//! for each.

use super::{ModelRequest, arguments_text, map, object, reasons};
use crate::transcript::{Entry, entries, marked};
use crate::wire::WireIds;
use serde_json::{Map, Value};
use types::{Item, ToolSpec};

/// The key of an opaque part of this dialect: fields of the assistant message.
pub(crate) const OPAQUE_MESSAGE: &str = "chat_message";
/// The key of an opaque part of this dialect: fields of the tool calls, by position.
pub(crate) const OPAQUE_CALLS: &str = "chat_tool_calls";

/// The body. What never changes in a run comes first, the conversation last.
pub(super) fn body(request: &ModelRequest) -> Map<String, Value> {
    let mut body = map([
        ("model", Value::from(request.model.as_str())),
        ("stream", Value::from(true)),
        ("stream_options", object([("include_usage", true.into())])),
    ]);
    // OpenAI's reasoning models refuse the older name; most other servers know only that one.
    let limit = if request.provider == "openai" && reasons(&request.model) {
        "max_completion_tokens"
    } else {
        "max_tokens"
    };
    body.insert(limit.into(), request.max_output_tokens.into());
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(tool).collect());
    }
    body.insert("messages".into(), Value::Array(messages(request)));
    body
}

fn tool(spec: &ToolSpec) -> Value {
    let function = object([
        ("name", spec.name.as_str().into()),
        ("description", spec.description.as_str().into()),
        ("parameters", spec.input_schema.clone()),
    ]);
    object([("type", "function".into()), ("function", function)])
}

fn messages(request: &ModelRequest) -> Vec<Value> {
    let mut ids = WireIds::default();
    let mut messages = Vec::new();
    if !request.instructions.is_empty() {
        messages.push(message("system", request.instructions.as_str().into()));
    }
    for entry in entries(&request.items) {
        match entry {
            Entry::User(text) => messages.push(message("user", text.into())),
            Entry::Answer(items) => messages.extend(answer(request, &items, &mut ids)),
            Entry::Result { call_id, output, is_error } => messages.push(object([
                ("role", "tool".into()),
                ("tool_call_id", ids.of(call_id).into()),
                ("content", marked(output, is_error).into()),
            ])),
        }
    }
    messages
}

fn message(role: &str, content: Value) -> Value {
    object([("role", role.into()), ("content", content)])
}

/// One assistant message; none when the answer held nothing this provider may see.
fn answer(request: &ModelRequest, items: &[&Item], ids: &mut WireIds) -> Option<Value> {
    let mut text: Vec<&str> = Vec::new();
    let mut calls = Vec::new();
    let mut opaque = Vec::new();
    for item in items {
        match item {
            Item::AssistantMessage { text: part } => text.push(part),
            Item::ToolCall { call_id, name, arguments } => {
                calls.push(tool_call(&ids.of(call_id), name, arguments));
            }
            Item::Reasoning { opaque: Some(part), origin, .. } if request.owns(origin) => {
                opaque.push(part);
            }
            Item::Reasoning { .. } | Item::UserMessage { .. } | Item::ToolResult { .. } => {}
        }
    }
    if text.is_empty() && calls.is_empty() {
        return None;
    }
    let content = if text.is_empty() { Value::Null } else { text.join("\n\n").into() };
    let mut message = map([("role", "assistant".into()), ("content", content)]);
    for part in opaque {
        merge_opaque(part, &mut message, &mut calls);
    }
    if !calls.is_empty() {
        message.insert("tool_calls".into(), Value::Array(calls));
    }
    Some(Value::Object(message))
}

fn tool_call(id: &str, name: &str, arguments: &Value) -> Value {
    object([
        ("id", id.into()),
        ("type", "function".into()),
        (
            "function",
            object([("name", name.into()), ("arguments", arguments_text(arguments).into())]),
        ),
    ])
}

/// Gives the provider back its own fields; none of them may replace one of ours.
fn merge_opaque(part: &Value, message: &mut Map<String, Value>, calls: &mut [Value]) {
    let has_calls = !calls.is_empty();
    if let Some(fields) = part.get(OPAQUE_MESSAGE).and_then(Value::as_object) {
        for (key, value) in fields {
            // Plain reasoning is wanted back only beside calls; elsewhere some servers refuse it.
            let plain = matches!(key.as_str(), "reasoning_content" | "reasoning");
            if (has_calls || !plain) && !message.contains_key(key) && key != "tool_calls" {
                message.insert(key.clone(), value.clone());
            }
        }
    }
    if let Some(fields) = part.get(OPAQUE_CALLS).and_then(Value::as_object) {
        for (position, extra) in fields {
            let call = position.parse().ok().and_then(|at: usize| calls.get_mut(at));
            let (Some(Value::Object(call)), Some(extra)) = (call, extra.as_object()) else {
                continue;
            };
            for (key, value) in extra {
                if !call.contains_key(key) {
                    call.insert(key.clone(), value.clone());
                }
            }
        }
    }
}
