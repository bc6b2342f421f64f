//! Which answer of the log belongs to a request that comes again.

use super::GuestRequest;
use serde_json::{Value, json};
use std::collections::HashMap;
use types::{Digest, Item};

/// Lines that say when, or for which bill, and nothing else: how they begin and end around a date
/// (0 is any digit), or how they begin.
const DATE_LINES: [(&str, &str); 2] =
    [("Today's date is ", "."), ("<current_date>", "</current_date>")];
const DATE: &str = "0000-00-00";
const BILL_LINE: &str = "x-anthropic-billing-header:";

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
    text.lines().filter(|line| !is_volatile(line.trim())).collect::<Vec<_>>().join("\n")
}

fn is_volatile(line: &str) -> bool {
    let date = |text: &str| {
        let fits = |(byte, form): (u8, u8)| {
            if form == b'0' { byte.is_ascii_digit() } else { byte == form }
        };
        text.len() == DATE.len() && text.bytes().zip(DATE.bytes()).all(fits)
    };
    let says_date = |(begin, end): &(&str, &str)| {
        line.strip_prefix(begin).and_then(|rest| rest.strip_suffix(end)).is_some_and(date)
    };
    line.starts_with(BILL_LINE) || DATE_LINES.iter().any(says_date)
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
