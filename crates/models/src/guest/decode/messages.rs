//! A request of the Messages dialect.

use super::super::tools::{plain_name, short};
use super::{Reading, Unreadable, list, number, part_text, texts, unreadable};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use types::Item;

pub(super) fn read(body: &Map<String, Value>, reading: &mut Reading) -> Result<(), Unreadable> {
    let system = texts(body.get("system").unwrap_or(&Value::Null), reading)?;
    system.iter().try_for_each(|text| reading.system(text))?;
    let messages = list(body, "messages")?;
    let loaded = loaded_tools(messages);
    for tool in list(body, "tools")? {
        let name = tool["name"].as_str().unwrap_or_default();
        // A deferred tool is one that the provider shows only after it was searched for.
        if tool["defer_loading"] == true && !loaded.contains(name) {
            reading.drop_note("tools that are loaded on demand".to_owned());
        } else {
            reading.tool(tool)?;
        }
    }
    reading.max_output_tokens = number(body, "max_tokens");
    for message in messages {
        let content = &message["content"];
        match message["role"].as_str() {
            Some("user") => user(content, reading)?,
            Some("assistant") => answer(content, reading)?,
            Some("system") => {
                let said = texts(content, reading)?;
                reading.system(&said.join("\n\n"))?;
            }
            role => {
                return unreadable(format!("unknown role '{}'", short(role.unwrap_or_default())));
            }
        }
    }
    Ok(())
}

/// Names of tools that results refer to.
fn loaded_tools(messages: &[Value]) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for message in messages {
        for block in message["content"].as_array().into_iter().flatten() {
            for part in block["content"].as_array().into_iter().flatten() {
                if part["type"] == "tool_reference" {
                    names.extend(part["tool_name"].as_str());
                }
            }
        }
    }
    names
}

fn user(content: &Value, reading: &mut Reading) -> Result<(), Unreadable> {
    let Some(blocks) = content.as_array() else {
        let said = texts(content, reading)?;
        return said.iter().try_for_each(|text| reading.user(text));
    };
    for block in blocks {
        if block["type"] == "tool_result" {
            let id = block["tool_use_id"].as_str().unwrap_or_default();
            let output = texts(&block["content"], reading)?.join("\n");
            reading.result(id, output, block["is_error"] == true)?;
        } else {
            let text = part_text(block, reading);
            reading.user(&text)?;
        }
    }
    Ok(())
}

fn answer(content: &Value, reading: &mut Reading) -> Result<(), Unreadable> {
    let Some(blocks) = content.as_array() else {
        let text = texts(content, reading)?.concat();
        if text.is_empty() {
            return Ok(());
        }
        return reading.item(Item::AssistantMessage { text });
    };
    for block in blocks {
        let text = |key: &str| block[key].as_str().unwrap_or_default();
        match text("type") {
            "text" if text("text").is_empty() => {}
            "text" => reading.item(Item::AssistantMessage { text: text("text").to_owned() })?,
            "thinking" => {
                reading.reasoning(text("thinking").to_owned(), block["signature"].as_str())?;
            }
            "redacted_thinking" => reading.reasoning(String::new(), block["data"].as_str())?,
            "tool_use" if text("id").is_empty() => return unreadable("a tool call has no id"),
            "tool_use" => reading.item(Item::ToolCall {
                call_id: text("id").to_owned(),
                name: plain_name(None, text("name")),
                arguments: block["input"].clone(),
            })?,
            kind => reading.drop_note(format!("a block of kind '{}'", short(kind))),
        }
    }
    Ok(())
}
