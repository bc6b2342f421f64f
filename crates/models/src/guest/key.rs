//! Which answer of the log belongs to a request that comes again.

use super::GuestRequest;
use serde_json::{Value, json};
use std::collections::HashMap;
use types::{Digest, Item};

/// What begins a line that says when, or for which bill, and nothing else.
const VOLATILE_LINES: [&str; 3] =
    ["x-anthropic-billing-header:", "Today's date is ", "<current_date>"];

/// A digest that two requests share when the same model would have the same to answer: the
/// instructions, the conversation, the names of the tools, the dialect aside.
///
/// It ignores: the model that is wished for and every parameter beside the conversation (the
/// session, user and cache keys among them); ids of calls, of which only their order counts;
/// reasoning, which no client sends back as it was; descriptions and schemas of tools; and, in
/// instructions and in what the user says, lines that only say today's date or a bill's number.
/// Everything else counts to the letter: what may have changed is asked again rather than answered
/// wrongly.
#[must_use]
pub fn request_key(request: &GuestRequest) -> Digest {
    let mut calls: HashMap<&str, usize> = HashMap::new();
    let mut items = Vec::new();
    for item in &request.items {
        items.push(match item {
            Item::UserMessage { text } => json!(["user", steady(text)]),
            Item::AssistantMessage { text } => json!(["assistant", text]),
            Item::Reasoning { .. } => continue,
            Item::ToolCall { call_id, name, arguments } => {
                let next = calls.len();
                let at = *calls.entry(call_id).or_insert(next);
                json!(["call", at, name, sorted(arguments)])
            }
            Item::ToolResult { call_id, output, is_error, .. } => {
                json!(["result", calls.get(call_id.as_str()), output, is_error])
            }
        });
    }
    let mut tools: Vec<&str> = request.tools.iter().map(|tool| tool.name.as_str()).collect();
    tools.sort_unstable();
    Digest::of_parts(
        "bedplate guest request",
        &[
            steady(&request.instructions).as_bytes(),
            Value::Array(items).to_string().as_bytes(),
            tools.join("\n").as_bytes(),
        ],
    )
}

/// A text without its volatile lines.
fn steady(text: &str) -> String {
    let volatile = |line: &&str| {
        let line = line.trim_start();
        VOLATILE_LINES.iter().any(|begin| line.starts_with(begin))
    };
    text.lines().filter(|line| !volatile(line)).collect::<Vec<_>>().join("\n")
}

/// A value with its fields in order: clients write the same arguments in any.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            Value::Object(fields.into_iter().map(|(key, v)| (key.clone(), sorted(v))).collect())
        }
        Value::Array(values) => values.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
