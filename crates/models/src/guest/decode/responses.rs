//! A request of the Responses dialect.

use super::super::tools::{INPUT, LOCAL_SHELL, plain_name, short};
use super::{Reading, Unreadable, list, number, texts, unreadable};
use crate::decode::arguments;
use serde_json::{Map, Value, json};
use types::Item;

pub(super) fn read(body: &Map<String, Value>, reading: &mut Reading) -> Result<(), Unreadable> {
    if body.get("previous_response_id").is_some_and(|id| !id.is_null()) {
        return unreadable(
            "'previous_response_id' names a stored response, and none is stored here",
        );
    }
    if let Some(text) = body.get("instructions").and_then(Value::as_str) {
        reading.system(text)?;
    }
    for tool in list(body, "tools")? {
        reading.tool(tool)?;
    }
    reading.max_output_tokens = number(body, "max_output_tokens");
    match body.get("input") {
        Some(Value::String(text)) => reading.user(text),
        _ => list(body, "input")?.iter().try_for_each(|item| read_item(item, reading)),
    }
}

fn read_item(item: &Value, reading: &mut Reading) -> Result<(), Unreadable> {
    let text = |key: &str| item[key].as_str().unwrap_or_default();
    let kind = match text("type") {
        "" if item["role"].is_string() => "message",
        kind => kind,
    };
    match kind {
        "message" => message(item, reading),
        // Tools may also come in the conversation, so that a cached prefix stays as it was.
        "additional_tools" => {
            item["tools"].as_array().into_iter().flatten().try_for_each(|tool| reading.tool(tool))
        }
        "function_call" => {
            let name = plain_name(item["namespace"].as_str(), text("name"));
            call(reading, text("call_id"), name, arguments(text("arguments")))
        }
        "custom_tool_call" => {
            let name = plain_name(item["namespace"].as_str(), text("name"));
            call(reading, text("call_id"), name, json!({INPUT: text("input")}))
        }
        "local_shell_call" => {
            let id = if text("call_id").is_empty() { text("id") } else { text("call_id") };
            let command = command_line(&item["action"]["command"]);
            call(reading, id, LOCAL_SHELL.to_owned(), json!({"command": command}))
        }
        "function_call_output" | "custom_tool_call_output" | "local_shell_call_output" => {
            let id = if text("call_id").is_empty() { text("id") } else { text("call_id") };
            let output = texts(&item["output"], reading)?.join("\n");
            reading.result(id, output, false)
        }
        "reasoning" => {
            let parts = item["summary"].as_array().into_iter().flatten();
            let summary: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
            reading.reasoning(summary.join("\n\n"), item["encrypted_content"].as_str())
        }
        kind => {
            reading.drop_note(format!("an item of kind '{}'", short(kind)));
            Ok(())
        }
    }
}

fn message(item: &Value, reading: &mut Reading) -> Result<(), Unreadable> {
    let said = texts(&item["content"], reading)?;
    match item["role"].as_str() {
        Some("assistant") => {
            let text = said.concat();
            if text.is_empty() {
                return Ok(());
            }
            reading.item(Item::AssistantMessage { text })
        }
        Some("system" | "developer") => reading.system(&said.join("\n\n")),
        Some("user") => said.iter().try_for_each(|text| reading.user(text)),
        role => unreadable(format!("unknown role '{}'", short(role.unwrap_or_default()))),
    }
}

fn call(reading: &mut Reading, id: &str, name: String, arguments: Value) -> Result<(), Unreadable> {
    if id.is_empty() {
        return unreadable("a tool call has no id");
    }
    reading.item(Item::ToolCall { call_id: id.to_owned(), name, arguments })
}

/// The command line of an argument list: what a shell was given, else the arguments, quoted.
fn command_line(command: &Value) -> String {
    let words: Vec<&str> =
        command.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    match words.as_slice() {
        ["bash" | "sh" | "/bin/bash" | "/bin/sh", "-c" | "-lc", line] => (*line).to_owned(),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}
