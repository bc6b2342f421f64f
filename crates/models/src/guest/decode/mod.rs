//! A guest's request, in no dialect.

mod chat;
mod messages;
mod responses;

use super::seal::open;
use super::tools::{GuestTool, Offered, offered};
use super::{DROPPED_MAX, GUEST_ITEMS_MAX, GUEST_TOOLS_MAX, GuestRequest};
use crate::error::ModelError;
use crate::limits::REQUEST_BYTES_MAX;
use crate::provider::dialect_name;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::manifest::Dialect;
use types::{Item, Labels, Origin, ToolSpec};

/// Whose reasoning it is when a guest brings it from elsewhere.
const ELSEWHERE: &str = "guest";

/// Fields that are read, and fields that change nothing about the answer.
const KNOWN_FIELDS: [&str; 25] = [
    "model",
    "stream",
    "instructions",
    "input",
    "messages",
    "system",
    "tools",
    "max_output_tokens",
    "max_completion_tokens",
    "max_tokens",
    "n",
    "stream_options",
    "previous_response_id",
    "store",
    "include",
    "metadata",
    "client_metadata",
    "user",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "cache_control",
    "service_tier",
    "parallel_tool_calls",
    "truncation",
];

/// Reads a guest's request.
///
/// # Errors
/// [`ModelError::GuestRequest`] when it is no request of this dialect;
/// [`ModelError::RequestTooLarge`] above [`REQUEST_BYTES_MAX`]; [`ModelError::DialectMissing`] for
/// a dialect this build does not speak.
pub fn decode_request(dialect: Dialect, body: &[u8]) -> Result<GuestRequest, ModelError> {
    if body.len() > REQUEST_BYTES_MAX {
        return Err(ModelError::RequestTooLarge {
            bytes: body.len() as u64,
            limit: REQUEST_BYTES_MAX as u64,
        });
    }
    let bad = |why: String| ModelError::GuestRequest { dialect: dialect_name(dialect), why };
    let body: Value = serde_json::from_slice(body)
        .map_err(|error| bad(format!("the body is no JSON: {error}")))?;
    let Value::Object(body) = body else {
        return Err(bad("the body is no JSON object".into()));
    };
    let mut reading = Reading::default();
    let read = match dialect {
        Dialect::Responses => responses::read(&body, &mut reading),
        Dialect::Chat => chat::read(&body, &mut reading),
        Dialect::Messages => messages::read(&body, &mut reading),
        Dialect::Gemini => {
            return Err(ModelError::DialectMissing {
                provider: ELSEWHERE.to_owned(),
                dialect: dialect_name(dialect),
            });
        }
    };
    read.and_then(|()| reading.close(dialect, body)).map_err(|Unreadable(why)| bad(why))
}

/// Why a request cannot be read.
#[derive(Debug)]
struct Unreadable(String);

fn unreadable<T>(why: impl Into<String>) -> Result<T, Unreadable> {
    Err(Unreadable(why.into()))
}

/// A request as it is read.
#[derive(Default)]
struct Reading {
    instructions: Vec<String>,
    items: Vec<Item>,
    tools: Vec<ToolSpec>,
    guest_tools: BTreeMap<String, GuestTool>,
    max_output_tokens: Option<u64>,
    include_usage: bool,
    dropped: Vec<String>,
}

impl Reading {
    fn item(&mut self, item: Item) -> Result<(), Unreadable> {
        if self.items.len() == GUEST_ITEMS_MAX {
            return unreadable(format!("there are more than {GUEST_ITEMS_MAX} items"));
        }
        self.items.push(item);
        Ok(())
    }

    fn user(&mut self, text: &str) -> Result<(), Unreadable> {
        self.item(Item::UserMessage { text: text.to_owned() })
    }

    /// What a system message says: instructions as long as nobody has spoken; after that it keeps
    /// its place, so that what came before stays as it was.
    fn system(&mut self, text: &str) -> Result<(), Unreadable> {
        if self.items.is_empty() {
            if !text.is_empty() {
                self.instructions.push(text.to_owned());
            }
            return Ok(());
        }
        self.user(&format!("<system>\n{text}\n</system>"))
    }

    fn result(&mut self, call_id: &str, output: String, is_error: bool) -> Result<(), Unreadable> {
        let call_id = call_id.to_owned();
        self.item(Item::ToolResult { call_id, output, is_error, labels: Labels::none() })
    }

    /// Reasoning with the opaque text the guest kept; what is not ours stays readable only.
    fn reasoning(&mut self, summary: String, kept: Option<&str>) -> Result<(), Unreadable> {
        let (origin, opaque) = kept
            .and_then(open)
            .unwrap_or_else(|| (Origin { provider: ELSEWHERE.into(), model: String::new() }, None));
        self.item(Item::Reasoning { summary, opaque, origin })
    }

    fn drop_note(&mut self, what: String) {
        if self.dropped.len() < DROPPED_MAX && !self.dropped.contains(&what) {
            self.dropped.push(what);
        }
    }

    fn tool(&mut self, tool: &Value) -> Result<(), Unreadable> {
        for offer in offered(tool, None) {
            let (spec, known) = match offer {
                Offered::Tool(spec, known) => (spec, known),
                Offered::Dropped(what) => {
                    self.drop_note(what);
                    continue;
                }
            };
            if self.tools.len() == GUEST_TOOLS_MAX {
                return unreadable(format!("there are more than {GUEST_TOOLS_MAX} tools"));
            }
            if self.tools.iter().any(|tool| tool.name == spec.name) {
                self.drop_note(format!("a second tool '{}'", spec.name));
                continue;
            }
            if !known.is_plain(&spec.name) {
                self.guest_tools.insert(spec.name.clone(), known);
            }
            self.tools.push(spec);
        }
        Ok(())
    }

    /// Notes the parameters that another provider will not be given.
    fn parameters(&mut self, body: &Map<String, Value>) {
        let is_auto = |value: &Value| *value == "auto" || value["type"] == "auto";
        for (name, value) in body {
            let plain = value.is_null() || (name == "tool_choice" && is_auto(value));
            if !plain && !KNOWN_FIELDS.contains(&name.as_str()) {
                self.drop_note(format!("the parameter '{}'", super::tools::short(name)));
            }
        }
    }

    fn close(
        mut self,
        dialect: Dialect,
        body: Map<String, Value>,
    ) -> Result<GuestRequest, Unreadable> {
        self.parameters(&body);
        let model = body.get("model").and_then(Value::as_str).unwrap_or_default();
        if model.is_empty() {
            return unreadable("it names no model");
        }
        if self.items.is_empty() && self.instructions.is_empty() {
            return unreadable("nobody says anything in it");
        }
        Ok(GuestRequest {
            dialect,
            model: model.to_owned(),
            instructions: self.instructions.join("\n\n"),
            items: self.items,
            tools: self.tools,
            guest_tools: self.guest_tools,
            max_output_tokens: self.max_output_tokens,
            stream: body.get("stream").and_then(Value::as_bool).unwrap_or(false),
            include_usage: self.include_usage,
            dropped: self.dropped,
            body,
        })
    }
}

/// A list in the body; none when it is absent.
fn list<'a>(body: &'a Map<String, Value>, key: &str) -> Result<&'a [Value], Unreadable> {
    match body.get(key) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(_) => unreadable(format!("'{key}' is no list")),
    }
}

fn number(body: &Map<String, Value>, key: &str) -> Option<u64> {
    body.get(key).and_then(Value::as_u64)
}

/// The texts of a content: a text, or parts; of a part without text, a note stands in its place.
fn texts(content: &Value, reading: &mut Reading) -> Result<Vec<String>, Unreadable> {
    match content {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(parts) => Ok(parts.iter().map(|part| part_text(part, reading)).collect()),
        _ => unreadable("a content is neither text nor parts"),
    }
}

fn part_text(part: &Value, reading: &mut Reading) -> String {
    let text = ["text", "refusal"].into_iter().find_map(|field| part[field].as_str());
    if let Some(text) = text.or_else(|| part.as_str()) {
        return text.to_owned();
    }
    let kind = super::tools::short(part["type"].as_str().unwrap_or("part"));
    if kind == "tool_reference" {
        return format!("[tool {}]", part["tool_name"].as_str().unwrap_or_default());
    }
    reading.drop_note(format!("content of kind '{kind}'"));
    format!("[{kind} left out]")
}
