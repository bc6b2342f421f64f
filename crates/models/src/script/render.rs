//! A turn as the bytes of a reply, in any of the dialects, streamed or whole.

mod messages;

use super::history::OPAQUE_PREFIX;
use super::{Call, Turn};
use serde_json::{Value, json};
use types::Digest;
use types::manifest::Dialect;

/// Bytes per token: the usage of a scripted model is a simple stated estimate.
const BYTES_PER_TOKEN: u64 = 4;
/// Characters of one piece of streamed text.
const PIECE_CHARS: usize = 24;
/// The time that replies bear, so that the same request always gives the same bytes.
const CREATED: u64 = 1_700_000_000;

/// One reply.
#[derive(Debug)]
pub(super) struct Reply<'a> {
    pub(super) dialect: Dialect,
    pub(super) turn: &'a Turn,
    pub(super) model: &'a str,
    /// Digest of the request: makes ids that no other request has.
    pub(super) request: Digest,
    /// Bytes of the request.
    pub(super) request_bytes: u64,
}

impl Reply<'_> {
    /// The whole reply as one JSON value.
    pub(super) fn whole(&self) -> Value {
        match self.dialect {
            Dialect::Chat => self.chat_whole(),
            Dialect::Messages => self.messages_whole(),
            _ => self.response("completed", self.items()),
        }
    }

    /// The reply as an event stream.
    pub(super) fn stream(&self) -> Vec<u8> {
        match self.dialect {
            Dialect::Chat => self.chat_stream(),
            Dialect::Messages => self.messages_stream(),
            _ => self.responses_stream(),
        }
    }

    /// How a stream of this dialect begins, and one piece of text that may follow any number of
    /// times.
    pub(super) fn endless(&self) -> (Vec<u8>, Vec<u8>) {
        let text = "and so on ".repeat(100);
        match self.dialect {
            Dialect::Chat => {
                let first = json!({"role": "assistant", "content": ""});
                let piece = json!({"content": text});
                (self.chunk(&first, None), self.chunk(&piece, None))
            }
            Dialect::Messages => self.messages_endless(&text),
            _ => (
                event(
                    &json!({"type": "response.created", "sequence_number": 0, "response": self.response("in_progress", vec![])}),
                ),
                event(
                    &json!({"type": "response.output_text.delta", "sequence_number": 1, "item_id": "msg_0", "output_index": 0, "content_index": 0, "delta": text}),
                ),
            ),
        }
    }

    fn id(&self, kind: &str, at: usize) -> String {
        let digest = Digest::of_parts(kind, &[&self.request.0, &(at as u64).to_be_bytes()]);
        format!("{kind}_{}", &digest.to_string()[..24])
    }

    fn output_bytes(&self) -> u64 {
        let calls = self.turn.calls.iter();
        let calls: usize = calls.map(|call| call.tool.len() + arguments(call).len()).sum();
        (self.turn.text.len() + self.turn.reasoning.len() + calls) as u64
    }

    fn tokens(&self) -> (u64, u64) {
        (
            self.request_bytes.div_ceil(BYTES_PER_TOKEN),
            self.output_bytes().div_ceil(BYTES_PER_TOKEN),
        )
    }

    // Chat

    fn chat_usage(&self) -> Value {
        let (input, output) = self.tokens();
        json!({
            "prompt_tokens": input,
            "completion_tokens": output,
            "total_tokens": input + output,
            "prompt_tokens_details": {"cached_tokens": 0},
        })
    }

    fn chat_finish(&self) -> &'static str {
        if self.turn.calls.is_empty() { "stop" } else { "tool_calls" }
    }

    fn chat_call(&self, at: usize, call: &Call) -> Value {
        json!({
            "id": self.id("call", at),
            "type": "function",
            "function": {"name": call.tool, "arguments": arguments(call)},
        })
    }

    fn chat_whole(&self) -> Value {
        let calls = self.turn.calls.iter().enumerate();
        let calls: Vec<Value> = calls.map(|(at, call)| self.chat_call(at, call)).collect();
        let content = match self.turn.text.as_str() {
            "" => Value::Null,
            text => text.into(),
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !self.turn.reasoning.is_empty() {
            message["reasoning_content"] = self.turn.reasoning.as_str().into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        json!({
            "id": self.id("chatcmpl", 0),
            "object": "chat.completion",
            "created": CREATED,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": self.chat_finish()}],
            "usage": self.chat_usage(),
        })
    }

    fn chunk(&self, delta: &Value, finish: Option<&str>) -> Vec<u8> {
        event(&json!({
            "id": self.id("chatcmpl", 0),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.model,
            "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}],
        }))
    }

    fn chat_stream(&self) -> Vec<u8> {
        let mut bytes = self.chunk(&json!({"role": "assistant", "content": ""}), None);
        for piece in pieces(&self.turn.reasoning) {
            bytes.extend(self.chunk(&json!({"reasoning_content": piece}), None));
        }
        for piece in pieces(&self.turn.text) {
            bytes.extend(self.chunk(&json!({"content": piece}), None));
        }
        for (at, call) in self.turn.calls.iter().enumerate() {
            let mut first = self.chat_call(at, call);
            first["index"] = at.into();
            first["function"]["arguments"] = "".into();
            bytes.extend(self.chunk(&json!({"tool_calls": [first]}), None));
            for piece in pieces(&arguments(call)) {
                let more = json!({"index": at, "function": {"arguments": piece}});
                bytes.extend(self.chunk(&json!({"tool_calls": [more]}), None));
            }
        }
        bytes.extend(self.chunk(&json!({}), Some(self.chat_finish())));
        bytes.extend(event(&json!({
            "id": self.id("chatcmpl", 0),
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": self.model,
            "choices": [],
            "usage": self.chat_usage(),
        })));
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        bytes
    }

    // Responses

    fn items(&self) -> Vec<Value> {
        let mut items = Vec::new();
        if !self.turn.reasoning.is_empty() {
            items.push(json!({
                "id": self.id("rs", 0),
                "type": "reasoning",
                "summary": [{"type": "summary_text", "text": self.turn.reasoning}],
                "encrypted_content": format!("{OPAQUE_PREFIX}{}", Digest::of(self.turn.reasoning.as_bytes())),
            }));
        }
        if !self.turn.text.is_empty() {
            items.push(json!({
                "id": self.id("msg", 0),
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "output_text", "text": self.turn.text, "annotations": [], "logprobs": []}],
            }));
        }
        for (at, call) in self.turn.calls.iter().enumerate() {
            items.push(json!({
                "id": self.id("fc", at),
                "type": "function_call",
                "status": "completed",
                "call_id": self.id("call", at),
                "name": call.tool,
                "arguments": arguments(call),
            }));
        }
        items
    }

    fn response(&self, status: &str, output: Vec<Value>) -> Value {
        let (input, written) = self.tokens();
        let usage = match status {
            "completed" => json!({
                "input_tokens": input,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": written,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": input + written,
            }),
            _ => Value::Null,
        };
        json!({
            "id": self.id("resp", 0),
            "object": "response",
            "created_at": CREATED,
            "completed_at": if status == "completed" { Value::from(CREATED) } else { Value::Null },
            "status": status,
            "error": null,
            "incomplete_details": null,
            "instructions": null,
            "max_output_tokens": null,
            "max_tool_calls": null,
            "metadata": {},
            "model": self.model,
            "output": output,
            "parallel_tool_calls": true,
            "presence_penalty": 0,
            "frequency_penalty": 0,
            "previous_response_id": null,
            "prompt_cache_key": null,
            "background": false,
            "reasoning": {"effort": null, "summary": null},
            "safety_identifier": null,
            "service_tier": "default",
            "store": false,
            "temperature": 1,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "top_p": 1,
            "truncation": "disabled",
            "usage": usage,
        })
    }

    fn responses_stream(&self) -> Vec<u8> {
        let mut events = vec![
            json!({"type": "response.created", "response": self.response("in_progress", vec![])}),
            json!({"type": "response.in_progress", "response": self.response("in_progress", vec![])}),
        ];
        let items = self.items();
        for (index, item) in items.iter().enumerate() {
            let mut begun = item.clone();
            if begun["status"].is_string() {
                begun["status"] = "in_progress".into();
            }
            match item["type"].as_str() {
                Some("message") => begun["content"] = json!([]),
                Some("function_call") => begun["arguments"] = "".into(),
                _ => {}
            }
            events.push(
                json!({"type": "response.output_item.added", "output_index": index, "item": begun}),
            );
            events.extend(inner_events(index, item));
            events.push(
                json!({"type": "response.output_item.done", "output_index": index, "item": item}),
            );
        }
        events.push(
            json!({"type": "response.completed", "response": self.response("completed", items)}),
        );
        let mut bytes = Vec::new();
        for (number, mut value) in events.into_iter().enumerate() {
            value["sequence_number"] = number.into();
            bytes.extend(event(&value));
        }
        bytes
    }
}

/// What is streamed between an item's beginning and its end.
fn inner_events(index: usize, item: &Value) -> Vec<Value> {
    let mut events = Vec::new();
    let id = &item["id"];
    match item["type"].as_str() {
        Some("message") => {
            let part = &item["content"][0];
            let text = part["text"].as_str().unwrap_or_default();
            let place = |kind: &str| json!({"type": kind, "item_id": id, "output_index": index, "content_index": 0});
            let with = |kind: &str, key: &str, value: Value| {
                let mut event = place(kind);
                event[key] = value;
                event
            };
            let empty =
                json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
            events.push(with("response.content_part.added", "part", empty));
            for piece in pieces(text) {
                let mut delta = with("response.output_text.delta", "delta", piece.into());
                delta["logprobs"] = json!([]);
                events.push(delta);
            }
            let mut done = with("response.output_text.done", "text", text.into());
            done["logprobs"] = json!([]);
            events.push(done);
            events.push(with("response.content_part.done", "part", part.clone()));
        }
        Some("function_call") => {
            let arguments = item["arguments"].as_str().unwrap_or_default();
            for piece in pieces(arguments) {
                events.push(json!({"type": "response.function_call_arguments.delta", "item_id": id, "output_index": index, "delta": piece}));
            }
            events.push(json!({"type": "response.function_call_arguments.done", "item_id": id, "output_index": index, "name": item["name"], "arguments": arguments}));
        }
        _ => {}
    }
    events
}

/// Tokens of a request, as the usage of its answer will say.
pub(super) const fn input_tokens(body: &[u8]) -> u64 {
    (body.len() as u64).div_ceil(BYTES_PER_TOKEN)
}

fn arguments(call: &Call) -> String {
    Value::Object(call.arguments.clone()).to_string()
}

/// Text in pieces, as models stream it.
fn pieces(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    chars.chunks(PIECE_CHARS).map(|piece| piece.iter().collect()).collect()
}

/// One event. Those of Responses carry their name beside the data, as the dialect says.
fn event(value: &Value) -> Vec<u8> {
    match value["type"].as_str() {
        Some(name) => format!("event: {name}\ndata: {value}\n\n"),
        None => format!("data: {value}\n\n"),
    }
    .into_bytes()
}
