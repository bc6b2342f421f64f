//! The Chat Completions dialect: chunks of one message, or the whole message.

use super::parts::{DEPTH_MAX, arguments, count, deeper_than, reported, text};
use super::{Answer, Bad, Context, Finish, Meter, parse_event};
use crate::encode::chat::{OPAQUE_CALLS, OPAQUE_MESSAGE};
use crate::limits::TOOL_CALLS_MAX;
use crate::wire::conversation_id;
use serde_json::{Map, Value};
use types::{Item, Usage};

/// The data of the last event.
const DONE: &[u8] = b"[DONE]";
/// Fields of a call that we read; others go back to their origin as they came.
const CALL_FIELDS: [&str; 4] = ["index", "id", "type", "function"];

/// Collects one message.
#[derive(Debug, Default)]
pub(super) struct Reader {
    content: String,
    reasoning: String,
    /// Which field the reasoning came in, to send it back in the same.
    reasoning_field: &'static str,
    details: Vec<Value>,
    calls: Vec<Call>,
    finish: Option<Finish>,
    usage: Option<Usage>,
    done: bool,
    saw_choice: bool,
    meter: Meter,
}

#[derive(Debug, Default)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    arguments: String,
    extra: Map<String, Value>,
}

impl Reader {
    /// `[DONE]` was seen.
    pub(super) const fn is_complete(&self) -> bool {
        self.done
    }

    pub(super) fn event(&mut self, data: &[u8], on_text: &mut dyn FnMut(&str)) -> Result<(), Bad> {
        if self.done || data.is_empty() {
            return Ok(());
        }
        if data.trim_ascii() == DONE {
            self.done = true;
            return Ok(());
        }
        let chunk = parse_event(data)?;
        self.chunk(&chunk, "delta", on_text)
    }

    /// A reply that was not streamed.
    pub(super) fn whole(&mut self, reply: &Value) -> Result<(), Bad> {
        self.chunk(reply, "message", &mut |_| {})?;
        if !self.saw_choice {
            return Err(Bad::Malformed("it has no choices".into()));
        }
        self.done = true;
        Ok(())
    }

    fn chunk(
        &mut self,
        chunk: &Value,
        part: &str,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<(), Bad> {
        if !chunk.is_object() {
            return Err(Bad::Malformed("an event is no JSON object".into()));
        }
        if let Some(error) = chunk.get("error").filter(|error| !error.is_null()) {
            return Err(reported(error));
        }
        if chunk["object"] == "error" {
            return Err(reported(chunk));
        }
        if chunk["usage"].is_object() {
            self.usage = Some(usage(&chunk["usage"]));
        }
        let first = chunk["choices"]
            .as_array()
            .and_then(|choices| choices.iter().find(|choice| count(choice, "/index") == 0));
        let Some(choice) = first else { return Ok(()) };
        self.saw_choice = true;
        self.message(&choice[part], on_text)?;
        if let Some(reason) = choice["finish_reason"].as_str().filter(|reason| !reason.is_empty()) {
            self.finish = Some(finish(reason));
        }
        Ok(())
    }

    fn message(&mut self, message: &Value, on_text: &mut dyn FnMut(&str)) -> Result<(), Bad> {
        self.content(&message["content"], on_text)?;
        if let Some(refusal) = message["refusal"].as_str() {
            self.say(refusal, on_text)?;
        }
        for field in ["reasoning_content", "reasoning"] {
            let Some(text) = message[field].as_str().filter(|text| !text.is_empty()) else {
                continue;
            };
            // Some servers send the same text in both fields.
            if self.reasoning_field.is_empty() || self.reasoning_field == field {
                self.reasoning_field = field;
                self.meter.add(text.len())?;
                self.reasoning.push_str(text);
            }
        }
        for detail in message["reasoning_details"].as_array().into_iter().flatten() {
            self.detail(detail)?;
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            self.call(call)?;
        }
        Ok(())
    }

    fn say(&mut self, text: &str, on_text: &mut dyn FnMut(&str)) -> Result<(), Bad> {
        if text.is_empty() {
            return Ok(());
        }
        self.meter.add(text.len())?;
        self.content.push_str(text);
        on_text(text);
        Ok(())
    }

    /// Content is a text, or parts of which some are reasoning.
    fn content(&mut self, content: &Value, on_text: &mut dyn FnMut(&str)) -> Result<(), Bad> {
        if let Some(text) = content.as_str() {
            return self.say(text, on_text);
        }
        for part in content.as_array().into_iter().flatten() {
            self.say(text(part, "/text"), on_text)?;
            for thought in part["thinking"].as_array().into_iter().flatten() {
                let text = text(thought, "/text");
                self.meter.add(text.len())?;
                self.reasoning.push_str(text);
            }
        }
        Ok(())
    }

    /// One piece of structured reasoning; pieces of the same block are joined.
    fn detail(&mut self, detail: &Value) -> Result<(), Bad> {
        self.meter.add(detail.to_string().len())?;
        let same_block = |last: &&mut Value| {
            last["type"] == detail["type"]
                && last["index"] == detail["index"]
                && !detail["index"].is_null()
        };
        let (Some(Value::Object(last)), Some(fields)) =
            (self.details.last_mut().filter(same_block), detail.as_object())
        else {
            self.details.push(detail.clone());
            return Ok(());
        };
        for (key, value) in fields {
            match (last.get_mut(key), value) {
                (Some(Value::String(kept)), Value::String(more))
                    if matches!(key.as_str(), "text" | "summary" | "data") =>
                {
                    kept.push_str(more);
                }
                (_, Value::Null) => {}
                _ => {
                    last.insert(key.clone(), value.clone());
                }
            }
        }
        Ok(())
    }

    fn call(&mut self, delta: &Value) -> Result<(), Bad> {
        let index = delta["index"].as_u64();
        let id = text(delta, "/id");
        let position = self.position(index, id);
        if position == self.calls.len() {
            if self.calls.len() == TOOL_CALLS_MAX {
                return Err(Bad::Limit(TOOL_CALLS_MAX as u64, "tool calls"));
            }
            self.calls.push(Call { index, id: id.to_owned(), ..Call::default() });
        }
        let name = text(delta, "/function/name");
        let arguments = match &delta["function"]["arguments"] {
            Value::String(text) => text.clone(),
            object @ Value::Object(_) => object.to_string(),
            _ => String::new(),
        };
        self.meter.add(name.len() + arguments.len() + id.len())?;
        let call = &mut self.calls[position];
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        // A few servers repeat the whole name in every piece.
        if call.name != name {
            call.name.push_str(name);
        }
        call.arguments.push_str(&arguments);
        let fields = delta.as_object().into_iter().flatten();
        for (key, value) in fields.filter(|(key, _)| !CALL_FIELDS.contains(&key.as_str())) {
            self.meter.add(key.len() + value.to_string().len())?;
            call.extra.insert(key.clone(), value.clone());
        }
        Ok(())
    }

    /// Which call a piece belongs to; the number of calls when it begins a new one. A new id at a
    /// known index is a new call: some servers give every call index 0.
    fn position(&self, index: Option<u64>, id: &str) -> usize {
        let new = self.calls.len();
        let known = match index {
            Some(index) => self.calls.iter().rposition(|call| call.index == Some(index)),
            None if id.is_empty() => return new.saturating_sub(1),
            None => {
                return self.calls.iter().position(|call| call.id == id).unwrap_or(new);
            }
        };
        match known {
            Some(at)
                if id.is_empty() || self.calls[at].id.is_empty() || self.calls[at].id == id =>
            {
                at
            }
            _ => new,
        }
    }

    /// The answer; `None` when the end was not seen.
    pub(super) fn answer(&mut self, context: &Context) -> Result<Option<Answer>, Bad> {
        if !self.done && self.finish.is_none() {
            return Ok(None);
        }
        if !self.saw_choice {
            return Err(Bad::Malformed("it has no choices".into()));
        }
        let mut items = Vec::new();
        let opaque = self.opaque();
        if opaque.as_ref().is_some_and(|opaque| deeper_than(opaque, DEPTH_MAX)) {
            return Err(Bad::Malformed("a field is nested too deeply".into()));
        }
        if !self.reasoning.is_empty() || opaque.is_some() {
            items.push(Item::Reasoning {
                summary: std::mem::take(&mut self.reasoning),
                opaque,
                origin: context.origin.clone(),
            });
        }
        if !self.content.is_empty() {
            let text = std::mem::take(&mut self.content);
            items.push(Item::AssistantMessage { text });
        }
        let calls = std::mem::take(&mut self.calls);
        let has_calls = !calls.is_empty();
        for (position, call) in calls.into_iter().enumerate() {
            if call.name.is_empty() {
                return Err(Bad::Malformed("a tool call has no name".into()));
            }
            items.push(Item::ToolCall {
                call_id: conversation_id(&context.request, position, &call.id),
                name: call.name,
                arguments: arguments(&call.arguments),
            });
        }
        let finish = match self.finish {
            Some(Finish::Stop | Finish::ToolCalls) | None if has_calls => Finish::ToolCalls,
            Some(finish) => finish,
            None => Finish::Stop,
        };
        Ok(Some(super::parts::answer(items, self.usage, finish, &self.meter, context)))
    }

    /// What only the origin can read, in the shape the encoder gives back.
    fn opaque(&mut self) -> Option<Value> {
        let mut message = Map::new();
        if !self.reasoning.is_empty() && !self.reasoning_field.is_empty() {
            message.insert(self.reasoning_field.into(), self.reasoning.as_str().into());
        }
        if !self.details.is_empty() {
            let details = std::mem::take(&mut self.details);
            message.insert("reasoning_details".into(), Value::Array(details));
        }
        let calls: Map<String, Value> = self
            .calls
            .iter()
            .enumerate()
            .filter(|(_, call)| !call.extra.is_empty())
            .map(|(at, call)| (at.to_string(), Value::Object(call.extra.clone())))
            .collect();
        let mut opaque = Map::new();
        if !message.is_empty() {
            opaque.insert(OPAQUE_MESSAGE.into(), Value::Object(message));
        }
        if !calls.is_empty() {
            opaque.insert(OPAQUE_CALLS.into(), Value::Object(calls));
        }
        (!opaque.is_empty()).then_some(Value::Object(opaque))
    }
}

fn usage(usage: &Value) -> Usage {
    Usage {
        input_tokens: count(usage, "/prompt_tokens"),
        cached_tokens: count(usage, "/prompt_tokens_details/cached_tokens"),
        output_tokens: count(usage, "/completion_tokens"),
        ..Usage::default()
    }
}

fn finish(reason: &str) -> Finish {
    match reason {
        "length" | "max_tokens" => Finish::Length,
        "content_filter" => Finish::Filtered,
        "tool_calls" | "function_call" => Finish::ToolCalls,
        _ => Finish::Stop,
    }
}
