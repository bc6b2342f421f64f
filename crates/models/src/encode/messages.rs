//! The Messages dialect: `POST {base}/messages`.
//!
//! User and assistant take turns, so what one side says in a row is one message of several blocks.
//! Results of tools are blocks of the user's message, before its text. A block without text is
//! refused by the servers, so none is sent.

use super::{ModelRequest, arguments_object, map, object};
use crate::transcript::{Entry, entries};
use crate::wire::WireIds;
use serde_json::{Map, Value, json};
use types::{Item, ToolSpec};

/// The key of an opaque part of this dialect: a content block as it came.
pub(crate) const OPAQUE_BLOCK: &str = "messages_block";
/// What stands for the user where the servers want one and the conversation has none.
const GO_ON: &str = "Continue.";

/// The body. What never changes in a run comes first, the conversation last.
pub(super) fn body(request: &ModelRequest) -> Map<String, Value> {
    let mut body = map([
        ("model", Value::from(request.model.as_str())),
        ("stream", Value::from(true)),
        ("max_tokens", request.max_output_tokens.into()),
    ]);
    // Elsewhere the provider itself finds what it has seen before; this one wants to be asked, and
    // servers that only speak its dialect may refuse the field.
    if request.provider == "anthropic" {
        body.insert("cache_control".into(), json!({"type": "ephemeral"}));
    }
    if !request.tools.is_empty() {
        body.insert("tools".into(), request.tools.iter().map(tool).collect());
    }
    if !is_blank(&request.instructions) {
        body.insert("system".into(), request.instructions.as_str().into());
    }
    body.insert("messages".into(), Value::Array(messages(request)));
    body
}

fn tool(spec: &ToolSpec) -> Value {
    object([
        ("name", spec.name.as_str().into()),
        ("description", spec.description.as_str().into()),
        ("input_schema", spec.input_schema.clone()),
    ])
}

/// Messages as they are put together.
#[derive(Default)]
struct Turns {
    turns: Vec<(&'static str, Vec<Value>)>,
}

impl Turns {
    fn push(&mut self, role: &'static str, blocks: impl IntoIterator<Item = Value>) {
        for block in blocks {
            match self.turns.last_mut() {
                Some((last, blocks)) if *last == role => blocks.push(block),
                _ => self.turns.push((role, vec![block])),
            }
        }
    }

    /// The user begins and has the last word: servers refuse, or complete, anything else.
    fn finish(mut self) -> Vec<Value> {
        if self.turns.first().is_none_or(|(role, _)| *role != "user") {
            self.turns.insert(0, ("user", vec![text(GO_ON)]));
        }
        if self.turns.last().is_some_and(|(role, _)| *role != "user") {
            self.push("user", [text(GO_ON)]);
        }
        let message = |(role, blocks): (&str, Vec<Value>)| {
            object([("role", role.into()), ("content", Value::Array(blocks))])
        };
        self.turns.into_iter().map(message).collect()
    }
}

fn messages(request: &ModelRequest) -> Vec<Value> {
    let mut ids = WireIds::default();
    let mut turns = Turns::default();
    for entry in entries(&request.items) {
        match entry {
            Entry::User(said) => turns.push("user", (!is_blank(said)).then(|| text(said))),
            Entry::Answer(items) => turns.push("assistant", answer(request, &items, &mut ids)),
            Entry::Result { call_id, output, is_error } => {
                let mut block = object([
                    ("type", "tool_result".into()),
                    ("tool_use_id", ids.of(call_id).into()),
                    ("content", output.into()),
                ]);
                if is_error {
                    block["is_error"] = true.into();
                }
                turns.push("user", [block]);
            }
        }
    }
    turns.finish()
}

/// The blocks of one answer. Calls come last: the servers want their results right after them.
fn answer(request: &ModelRequest, items: &[&Item], ids: &mut WireIds) -> Vec<Value> {
    let mut blocks = Vec::new();
    let mut calls = Vec::new();
    for item in items {
        match item {
            Item::AssistantMessage { text: said } if !is_blank(said) => blocks.push(text(said)),
            Item::ToolCall { call_id, name, arguments } => calls.push(object([
                ("type", "tool_use".into()),
                ("id", ids.of(call_id).into()),
                ("name", name.as_str().into()),
                ("input", arguments_object(arguments)),
            ])),
            Item::Reasoning { opaque: Some(part), origin, .. } if request.owns(origin) => {
                let block = part.get(OPAQUE_BLOCK).filter(|block| block.is_object());
                blocks.extend(block.cloned());
            }
            _ => {}
        }
    }
    blocks.extend(calls);
    // Reasoning alone is no answer.
    let says = |block: &Value| matches!(block["type"].as_str(), Some("text" | "tool_use"));
    if blocks.iter().any(says) { blocks } else { Vec::new() }
}

fn text(text: &str) -> Value {
    object([("type", "text".into()), ("text", text.into())])
}

fn is_blank(text: &str) -> bool {
    text.trim().is_empty()
}
