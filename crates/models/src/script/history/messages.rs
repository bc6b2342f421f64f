//! A request of the Messages dialect, checked as strictly as the real servers check it.

use super::super::pick::Step;
use super::{OPAQUE_PREFIX, Refusal, refuse, tool_name};
use serde_json::Value;
use std::collections::HashSet;

/// The conversation of a request.
pub(super) fn read(body: &Value) -> Result<Vec<Step>, Refusal> {
    if body["max_tokens"].as_u64().is_none_or(|tokens| tokens == 0) {
        return refuse("max_tokens: a whole number of at least 1 is required");
    }
    check_system(&body["system"])?;
    check_tools(&body["tools"])?;
    let Some(messages) = body["messages"].as_array().filter(|messages| !messages.is_empty()) else {
        return refuse("messages: at least one message is required");
    };
    let mut reader = Reader::default();
    for (at, message) in messages.iter().enumerate() {
        match message["role"].as_str() {
            Some("user") => reader.user(&message["content"])?,
            Some("assistant") if at > 0 => reader.assistant(&message["content"])?,
            Some("assistant") => return refuse("messages: the first message must be the user's"),
            role => {
                return refuse(format!("messages: unknown role '{}'", role.unwrap_or_default()));
            }
        }
    }
    if let Some(id) = reader.open.first() {
        return refuse(format!("tool_use ids were found without tool_result blocks: {id}"));
    }
    if messages.last().is_some_and(|message| message["role"] == "assistant") {
        return refuse("the conversation must end with a user message");
    }
    Ok(reader.steps)
}

fn check_system(system: &Value) -> Result<(), Refusal> {
    match system {
        Value::Null => Ok(()),
        Value::String(_) => Ok(()),
        Value::Array(blocks) => blocks.iter().try_for_each(|block| text(block).map(drop)),
        _ => refuse("system: expected a text or a list of blocks"),
    }
}

fn check_tools(tools: &Value) -> Result<(), Refusal> {
    let Some(tools) = tools.as_array() else {
        return if tools.is_null() { Ok(()) } else { refuse("tools: expected a list") };
    };
    for tool in tools {
        if !matches!(tool["type"].as_str(), None | Some("custom")) {
            return refuse("tools: this server has no tools of its own");
        }
        let name = tool_name(tool)?;
        if tool["input_schema"]["type"] != "object" {
            return refuse(format!("tools: '{name}' has no input_schema of type object"));
        }
    }
    Ok(())
}

/// The text of a text block.
fn text(block: &Value) -> Result<&str, Refusal> {
    match (block["type"].as_str(), block["text"].as_str()) {
        (Some("text"), Some(text)) if text.trim().is_empty() => {
            refuse("text content blocks must contain non-whitespace text")
        }
        (Some("text"), Some(text)) => Ok(text),
        (kind, _) => refuse(format!("unexpected content block '{}'", kind.unwrap_or_default())),
    }
}

/// A text as one block.
fn blocks(content: &Value) -> Result<Vec<Value>, Refusal> {
    match content {
        Value::String(text) => Ok(vec![serde_json::json!({"type": "text", "text": text})]),
        Value::Array(blocks) if !blocks.is_empty() => Ok(blocks.clone()),
        _ => refuse("all messages must have non-empty content"),
    }
}

/// Reads the messages one after another.
#[derive(Default)]
struct Reader {
    steps: Vec<Step>,
    called: HashSet<String>,
    open: Vec<String>,
}

impl Reader {
    fn user(&mut self, content: &Value) -> Result<(), Refusal> {
        let mut said = false;
        for block in blocks(content)? {
            if block["type"] == "tool_result" {
                if said {
                    return refuse("tool_result blocks come first in the content");
                }
                self.result(&block)?;
            } else {
                said = true;
                self.steps.push(Step::Said(text(&block)?.to_owned()));
            }
        }
        match self.open.first() {
            None => Ok(()),
            Some(id) => refuse(format!(
                "tool_use ids were found without tool_result blocks immediately after: {id}"
            )),
        }
    }

    fn result(&mut self, block: &Value) -> Result<(), Refusal> {
        let id = block["tool_use_id"].as_str().unwrap_or_default();
        let Some(at) = self.open.iter().position(|open| open == id) else {
            return refuse(format!("unexpected tool_use_id found in tool_result blocks: {id}"));
        };
        self.open.remove(at);
        let output = match &block["content"] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(parts) => parts.iter().map(text).collect::<Result<Vec<_>, _>>()?.concat(),
            _ => return refuse("tool_result.content: expected a text or a list of blocks"),
        };
        self.steps.push(Step::Said(output));
        Ok(())
    }

    fn assistant(&mut self, content: &Value) -> Result<(), Refusal> {
        if let Some(id) = self.open.first() {
            return refuse(format!(
                "tool_use ids were found without tool_result blocks immediately after: {id}"
            ));
        }
        let blocks = blocks(content)?;
        for block in &blocks {
            match block["type"].as_str() {
                Some("tool_use") => self.call(block)?,
                Some("thinking") => check_signature(&block["signature"])?,
                Some("redacted_thinking") => check_signature(&block["data"])?,
                _ => drop(text(block)?),
            }
        }
        if blocks.last().is_some_and(|block| block["type"] == "thinking") {
            return refuse("the final block in an assistant message cannot be thinking");
        }
        self.steps.push(Step::Answered);
        Ok(())
    }

    fn call(&mut self, block: &Value) -> Result<(), Refusal> {
        let id = block["id"].as_str().unwrap_or_default();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if id.is_empty() || !id.bytes().all(plain) {
            return refuse("tool_use.id does not match '^[a-zA-Z0-9_-]+$'");
        }
        tool_name(block)?;
        if !block["input"].is_object() {
            return refuse("tool_use.input: expected an object");
        }
        if !self.called.insert(id.to_owned()) {
            return refuse("tool_use ids must be unique");
        }
        self.open.push(id.to_owned());
        Ok(())
    }
}

fn check_signature(signature: &Value) -> Result<(), Refusal> {
    match signature.as_str() {
        Some(text) if text.starts_with(OPAQUE_PREFIX) => Ok(()),
        _ => refuse("invalid signature in thinking block"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn steps(messages: Value) -> Result<usize, String> {
        let body = json!({"model": "m", "max_tokens": 9, "messages": messages});
        read(&body).map(|steps| steps.len()).map_err(|refusal| refusal.0)
    }

    #[test]
    fn conversations_are_checked_as_the_servers_check_them() {
        let refused = |messages: Value, expected: &str| {
            let why = steps(messages).expect_err(expected);
            assert!(why.contains(expected), "{why}");
        };
        let user = json!({"role": "user", "content": "u"});
        let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "a", "input": {}});
        let asks = |ids: &[&str]| json!({"role": "assistant", "content": ids.iter().map(|id| call(id)).collect::<Vec<_>>()});
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "r"});
        let gives = |ids: &[&str]| json!({"role": "user", "content": ids.iter().map(|id| result(id)).collect::<Vec<_>>()});
        let text = json!({"type": "text", "text": "t"});
        assert_eq!(steps(json!([user, asks(&["1", "2"]), gives(&["2", "1"])])), Ok(4));
        let mixed = json!({"role": "user", "content": [result("1"), text]});
        assert_eq!(steps(json!([user, asks(&["1"]), mixed])), Ok(4));
        refused(json!([]), "at least one message");
        refused(json!([asks(&["1"]), gives(&["1"])]), "first message must be the user's");
        refused(json!([user, asks(&["1"]), user]), "without tool_result blocks immediately after");
        refused(json!([user, asks(&["1"])]), "without tool_result blocks: 1");
        refused(json!([user, gives(&["1"])]), "unexpected tool_use_id");
        refused(json!([user, asks(&["1", "1"])]), "unique");
        refused(json!([user, asks(&["a b"])]), "does not match");
        refused(json!([user, {"role": "assistant", "content": "x"}]), "must end with a user");
        refused(json!([user, {"role": "assistant", "content": []}]), "non-empty content");
        refused(json!([{"role": "user", "content": " "}]), "non-whitespace");
        refused(json!([{"role": "system", "content": "x"}]), "unknown role 'system'");
        let late = json!({"role": "user", "content": [text, result("1")]});
        refused(json!([user, asks(&["1"]), late]), "come first");
        let foreign =
            json!([{"type": "thinking", "thinking": "t", "signature": "other"}, call("1")]);
        refused(json!([user, {"role": "assistant", "content": foreign}]), "invalid signature");
        let last = json!([text, {"type": "thinking", "signature": "bedplate-script:x"}]);
        refused(json!([user, {"role": "assistant", "content": last}]), "cannot be thinking");
    }

    #[test]
    fn what_surrounds_the_conversation_is_checked() {
        let refused = |body: Value, expected: &str| {
            let why = read(&body).expect_err(expected).0;
            assert!(why.contains(expected), "{why}");
        };
        let messages = json!([{"role": "user", "content": "u"}]);
        let with = |key: &str, value: Value| {
            let mut body = json!({"model": "m", "max_tokens": 9, "messages": messages});
            body[key] = value;
            body
        };
        assert!(read(&with("system", json!([{"type": "text", "text": "s"}]))).is_ok());
        refused(with("max_tokens", Value::Null), "max_tokens");
        refused(with("system", json!(3)), "system");
        refused(with("tools", json!([{"name": "a"}])), "no input_schema");
        refused(with("tools", json!([{"name": "a b"}])), "name does not match");
        refused(with("tools", json!([{"type": "web_search_1", "name": "a"}])), "of its own");
    }
}
