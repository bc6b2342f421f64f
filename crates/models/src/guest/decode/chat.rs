//! A request of the Chat Completions dialect.

use super::super::tools::{INPUT, plain_name, short};
use super::{Reading, Unreadable, list, number, texts, unreadable};
use crate::decode::arguments;
use serde_json::{Map, Value, json};
use types::Item;

pub(super) fn read(body: &Map<String, Value>, reading: &mut Reading) -> Result<(), Unreadable> {
    for tool in list(body, "tools")? {
        reading.tool(tool)?;
    }
    reading.max_output_tokens =
        number(body, "max_completion_tokens").or_else(|| number(body, "max_tokens"));
    reading.include_usage =
        body.get("stream_options").is_some_and(|options| options["include_usage"] == true);
    if body.get("n").and_then(Value::as_u64).is_some_and(|answers| answers > 1) {
        return unreadable("'n' asks for more than one answer");
    }
    for message in list(body, "messages")? {
        read_message(message, reading)?;
    }
    Ok(())
}

fn read_message(message: &Value, reading: &mut Reading) -> Result<(), Unreadable> {
    match message["role"].as_str() {
        Some("system" | "developer") => {
            let said = texts(&message["content"], reading)?;
            reading.system(&said.join("\n\n"))
        }
        Some("user") => {
            let said = texts(&message["content"], reading)?;
            said.iter().try_for_each(|text| reading.user(text))
        }
        Some("assistant") => answer(message, reading),
        Some("tool") => {
            let id = message["tool_call_id"].as_str().unwrap_or_default();
            let output = texts(&message["content"], reading)?.join("\n");
            reading.result(id, output, false)
        }
        role => unreadable(format!("unknown role '{}'", short(role.unwrap_or_default()))),
    }
}

fn answer(message: &Value, reading: &mut Reading) -> Result<(), Unreadable> {
    if let Some(summary) = message["reasoning_content"].as_str().filter(|text| !text.is_empty()) {
        reading.reasoning(summary.to_owned(), None)?;
    }
    let text = texts(&message["content"], reading)?.concat();
    if !text.is_empty() {
        reading.item(Item::AssistantMessage { text })?;
    }
    for call in message["tool_calls"].as_array().into_iter().flatten() {
        let (name, arguments) = match call["type"].as_str() {
            Some("custom") => {
                let custom = &call["custom"];
                let input = custom["input"].as_str().unwrap_or_default();
                (&custom["name"], json!({INPUT: input}))
            }
            _ => {
                let function = &call["function"];
                (&function["name"], arguments(function["arguments"].as_str().unwrap_or_default()))
            }
        };
        let Some(id) = call["id"].as_str().filter(|id| !id.is_empty()) else {
            return unreadable("a tool call has no id");
        };
        let name = plain_name(None, name.as_str().unwrap_or_default());
        reading.item(Item::ToolCall { call_id: id.to_owned(), name, arguments })?;
    }
    Ok(())
}
