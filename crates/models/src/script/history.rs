//! What a request asks: its conversation as the script sees it, checked as strictly as the real
//! servers check it.

mod messages;

use super::pick::Step;
use serde_json::Value;
use std::collections::HashSet;
use types::manifest::Dialect;

/// Longest id of a call in Chat, as `OpenAI` takes it.
const CHAT_ID_BYTES_MAX: usize = 40;
/// Longest id of a call in Responses, as `OpenAI` takes it.
const RESPONSES_ID_BYTES_MAX: usize = 64;
/// Begins every opaque part this server gives out.
pub(super) const OPAQUE_PREFIX: &str = "bedplate-script:";

/// A request that can be answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) model: String,
    pub(super) stream: bool,
    pub(super) steps: Vec<Step>,
}

/// Why a request is refused: the message a client sees.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) String);

fn refuse<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(why.into()))
}

/// Reads a request body.
pub(super) fn read(dialect: Dialect, body: &[u8]) -> Result<Asked, Refusal> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return refuse("the body is no JSON");
    };
    let Some(model) = body["model"].as_str().filter(|model| !model.is_empty()) else {
        return refuse("missing required parameter: 'model'");
    };
    let steps = match dialect {
        Dialect::Messages => messages::read(&body)?,
        Dialect::Chat => {
            check_tools(dialect, &body["tools"])?;
            chat(&body["messages"])?
        }
        _ => {
            check_tools(dialect, &body["tools"])?;
            responses(&body["input"])?
        }
    };
    Ok(Asked { model: model.to_owned(), stream: body["stream"].as_bool().unwrap_or(false), steps })
}

fn check_tools(dialect: Dialect, tools: &Value) -> Result<(), Refusal> {
    let Some(tools) = tools.as_array() else {
        return if tools.is_null() { Ok(()) } else { refuse("'tools' is a list") };
    };
    for tool in tools {
        if tool["type"] != "function" {
            return refuse("a tool's type is 'function'");
        }
        let function = if dialect == Dialect::Chat { &tool["function"] } else { tool };
        let name = tool_name(function)?;
        if !function["parameters"].is_object() {
            return refuse(format!("tool '{name}' has no parameters"));
        }
    }
    Ok(())
}

fn tool_name(tool: &Value) -> Result<&str, Refusal> {
    let name = tool["name"].as_str().unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return refuse("a tool's name does not match '^[a-zA-Z0-9_-]{1,64}$'");
    }
    Ok(name)
}

/// The text of a content: a text, or parts with texts.
fn content(value: &Value) -> Result<String, Refusal> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let mut text = String::new();
            for part in parts {
                match part["text"].as_str().or_else(|| part["refusal"].as_str()) {
                    Some(more) => text.push_str(more),
                    None => return refuse("a content part has no text"),
                }
            }
            Ok(text)
        }
        _ => refuse("invalid content: expected a text or a list of parts"),
    }
}

fn call_id(value: &Value, bytes_max: usize) -> Result<String, Refusal> {
    match value.as_str() {
        Some(id) if !id.is_empty() && id.len() <= bytes_max => Ok(id.to_owned()),
        Some(id) => {
            refuse(format!("invalid call id of length {}: expected 1 to {bytes_max}", id.len()))
        }
        None => refuse("missing call id"),
    }
}

fn check_arguments(arguments: &Value) -> Result<(), Refusal> {
    let text = arguments.as_str().unwrap_or_default();
    match serde_json::from_str(text) {
        Ok(Value::Object(_)) => Ok(()),
        _ => refuse("the arguments of a call are no JSON object"),
    }
}

fn chat(messages: &Value) -> Result<Vec<Step>, Refusal> {
    let Some(messages) = messages.as_array().filter(|messages| !messages.is_empty()) else {
        return refuse("'messages' is a list with at least one message");
    };
    let mut steps = Vec::new();
    let mut open: Vec<String> = Vec::new();
    for message in messages {
        let role = message["role"].as_str().unwrap_or_default();
        if role != "tool" && !open.is_empty() {
            return refuse(format!(
                "an assistant message with 'tool_calls' must be followed by tool messages responding \
                 to each 'tool_call_id'; missing: {}",
                open.join(", ")
            ));
        }
        match role {
            "system" | "developer" => {
                content(&message["content"])?;
            }
            "user" => steps.push(Step::Said(content(&message["content"])?)),
            "assistant" => {
                open = chat_answer(message)?;
                steps.push(Step::Answered);
            }
            "tool" => {
                let id = call_id(&message["tool_call_id"], CHAT_ID_BYTES_MAX)?;
                let Some(at) = open.iter().position(|open| *open == id) else {
                    return refuse(
                        "a message with role 'tool' must respond to a preceding 'tool_calls'",
                    );
                };
                open.remove(at);
                steps.push(Step::Said(content(&message["content"])?));
            }
            role => return refuse(format!("unknown role '{role}'")),
        }
    }
    if open.is_empty() {
        Ok(steps)
    } else {
        refuse(format!("no tool message answers: {}", open.join(", ")))
    }
}

/// The ids of the calls of an assistant message.
fn chat_answer(message: &Value) -> Result<Vec<String>, Refusal> {
    let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
    if calls.is_empty() || !message["content"].is_null() {
        content(&message["content"])?;
    }
    let mut ids = Vec::new();
    for call in calls {
        let id = call_id(&call["id"], CHAT_ID_BYTES_MAX)?;
        if call["type"] != "function" || call["function"]["name"].as_str().is_none_or(str::is_empty)
        {
            return refuse("a tool call has type 'function' and a name");
        }
        check_arguments(&call["function"]["arguments"])?;
        if ids.contains(&id) {
            return refuse(format!("two tool calls have the id '{id}'"));
        }
        ids.push(id);
    }
    Ok(ids)
}

fn responses(input: &Value) -> Result<Vec<Step>, Refusal> {
    if let Some(text) = input.as_str() {
        return Ok(vec![Step::Said(text.to_owned())]);
    }
    let Some(items) = input.as_array().filter(|items| !items.is_empty()) else {
        return refuse("'input' is a text or a list with at least one item");
    };
    let mut reader = Items::default();
    for item in items {
        reader.item(item)?;
    }
    reader.end()
}

/// Reads the items of a Responses request.
#[derive(Default)]
struct Items {
    steps: Vec<Step>,
    called: HashSet<String>,
    open: Vec<String>,
    /// Within an answer: items of the model one after another are one answer.
    answering: bool,
    /// Reasoning that nothing has followed yet.
    reasoning: bool,
}

impl Items {
    fn item(&mut self, item: &Value) -> Result<(), Refusal> {
        let kind = item["type"].as_str().unwrap_or("message");
        match (kind, item["role"].as_str()) {
            ("message", Some("assistant")) => {
                content(&item["content"])?;
                self.answers();
            }
            ("message", Some("user")) => {
                let text = content(&item["content"])?;
                self.said(text)?;
            }
            ("message", Some("system" | "developer")) => {
                content(&item["content"])?;
            }
            ("function_call", _) => {
                let id = call_id(&item["call_id"], RESPONSES_ID_BYTES_MAX)?;
                check_arguments(&item["arguments"])?;
                if item["name"].as_str().is_none_or(str::is_empty)
                    || !self.called.insert(id.clone())
                {
                    return refuse(format!("function call '{id}' has no name, or came before"));
                }
                self.open.push(id);
                self.answers();
            }
            ("function_call_output", _) => {
                let id = call_id(&item["call_id"], RESPONSES_ID_BYTES_MAX)?;
                let Some(at) = self.open.iter().position(|open| *open == id) else {
                    return refuse(format!(
                        "no tool call found for function call output with call_id {id}"
                    ));
                };
                self.open.remove(at);
                let output = content(&item["output"])?;
                self.said(output)?;
            }
            ("reasoning", _) => {
                let opaque = item["encrypted_content"].as_str().unwrap_or_default();
                if !opaque.starts_with(OPAQUE_PREFIX) {
                    return refuse("the encrypted content could not be verified");
                }
                self.answers();
                self.reasoning = true;
            }
            (kind, role) => {
                return refuse(format!(
                    "unknown item '{kind}' with role '{}'",
                    role.unwrap_or_default()
                ));
            }
        }
        Ok(())
    }

    fn answers(&mut self) {
        if !self.answering {
            self.answering = true;
            self.steps.push(Step::Answered);
        }
        self.reasoning = false;
    }

    fn said(&mut self, text: String) -> Result<(), Refusal> {
        if self.reasoning {
            return refuse(
                "an item of type 'reasoning' was provided without its required following item",
            );
        }
        self.answering = false;
        self.steps.push(Step::Said(text));
        Ok(())
    }

    fn end(self) -> Result<Vec<Step>, Refusal> {
        if let Some(id) = self.open.first() {
            return refuse(format!("no tool output found for function call {id}"));
        }
        if self.reasoning {
            return refuse(
                "an item of type 'reasoning' was provided without its required following item",
            );
        }
        Ok(self.steps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn steps(dialect: Dialect, list: Value) -> Result<usize, String> {
        let key = if dialect == Dialect::Chat { "messages" } else { "input" };
        let body = json!({"model": "m", key: list}).to_string();
        read(dialect, body.as_bytes()).map(|asked| asked.steps.len()).map_err(|refusal| refusal.0)
    }

    fn refused(dialect: Dialect, list: Value, expected: &str) {
        let why = steps(dialect, list).expect_err(expected);
        assert!(why.contains(expected), "{why}");
    }

    #[test]
    fn chat_is_as_strict_as_the_servers() {
        let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "a", "arguments": "{}"}});
        let asks = |ids: &[&str]| json!({"role": "assistant", "content": null, "tool_calls": ids.iter().map(|id| call(id)).collect::<Vec<_>>()});
        let tool = |id: &str| json!({"role": "tool", "tool_call_id": id, "content": "r"});
        let user = json!({"role": "user", "content": "u"});
        assert_eq!(
            steps(Dialect::Chat, json!([user, asks(&["1", "2"]), tool("2"), tool("1")])),
            Ok(4)
        );
        refused(Dialect::Chat, json!([]), "at least one");
        refused(Dialect::Chat, json!([user, tool("1")]), "must respond to a preceding");
        refused(Dialect::Chat, json!([asks(&["1"]), user]), "must be followed by tool messages");
        refused(Dialect::Chat, json!([asks(&["1", "2"]), tool("1")]), "no tool message answers: 2");
        refused(Dialect::Chat, json!([asks(&["1", "1"])]), "two tool calls");
        refused(Dialect::Chat, json!([asks(&[&"x".repeat(41)])]), "invalid call id");
        refused(Dialect::Chat, json!([{"role": "assistant", "content": null}]), "invalid content");
        refused(Dialect::Chat, json!([{"role": "robot"}]), "unknown role");
        let broken =
            json!({"id": "1", "type": "function", "function": {"name": "a", "arguments": "{"}});
        refused(
            Dialect::Chat,
            json!([{"role": "assistant", "content": "", "tool_calls": [broken]}]),
            "no JSON object",
        );
    }

    #[test]
    fn responses_is_as_strict_as_the_servers() {
        let call = |id: &str| json!({"type": "function_call", "call_id": id, "name": "a", "arguments": "{}"});
        let output =
            |id: &str| json!({"type": "function_call_output", "call_id": id, "output": "r"});
        let user = json!({"role": "user", "content": "u"});
        let reasoning = |content: &str| json!({"type": "reasoning", "summary": [], "encrypted_content": content});
        assert_eq!(steps(Dialect::Responses, json!("hello")), Ok(1));
        let good = json!([
            user,
            reasoning("bedplate-script:x"),
            call("1"),
            call("2"),
            output("1"),
            output("2")
        ]);
        assert_eq!(steps(Dialect::Responses, good), Ok(4));
        refused(Dialect::Responses, json!([]), "at least one");
        refused(Dialect::Responses, json!([user, output("1")]), "no tool call found");
        refused(Dialect::Responses, json!([user, call("1")]), "no tool output found");
        refused(Dialect::Responses, json!([call("1"), call("1")]), "came before");
        refused(
            Dialect::Responses,
            json!([reasoning("other"), call("1")]),
            "could not be verified",
        );
        refused(
            Dialect::Responses,
            json!([reasoning("bedplate-script:x"), user]),
            "required following item",
        );
        refused(
            Dialect::Responses,
            json!([reasoning("bedplate-script:x")]),
            "required following item",
        );
        refused(Dialect::Responses, json!([{"type": "thing"}]), "unknown item");
    }

    #[test]
    fn bodies_and_tools_are_checked() {
        let check = |body: &str, expected: &str| {
            let refusal = read(Dialect::Chat, body.as_bytes()).expect_err(expected);
            assert!(refusal.0.contains(expected), "{refusal:?}");
        };
        check("{", "no JSON");
        check("{}", "'model'");
        check(r#"{"model":"m","tools":[{"type":"x"}]}"#, "type is 'function'");
        check(
            r#"{"model":"m","tools":[{"type":"function","function":{"name":"a b"}}]}"#,
            "name does not match",
        );
        check(
            r#"{"model":"m","tools":[{"type":"function","function":{"name":"a"}}]}"#,
            "no parameters",
        );
    }
}
