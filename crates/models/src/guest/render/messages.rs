//! The Messages dialect: a message begins, its blocks begin, are filled and end, the message ends.

use super::super::seal::seal;
use super::{Renderer, call_id, named_event};
use crate::decode::Finish;
use serde_json::{Value, json};
use types::{Item, Usage};

impl Renderer {
    fn message(&self, content: &[Value], stop: Option<&str>, usage: &Usage) -> Value {
        json!({
            "id": self.id("msg", 0),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop,
            "stop_sequence": null,
            "usage": messages_usage(usage),
        })
    }

    pub(super) fn messages_begin(&self) -> Vec<u8> {
        let message = self.message(&[], None, &Usage::default());
        named_event(&json!({"type": "message_start", "message": message}))
    }

    fn block_start(&self, block: &Value) -> Vec<u8> {
        self.block_event("content_block_start", "content_block", block)
    }

    fn block_delta(&self, delta: &Value) -> Vec<u8> {
        self.block_event("content_block_delta", "delta", delta)
    }

    /// An event of the block that is open: the one after those that are finished.
    fn block_event(&self, kind: &str, key: &str, value: &Value) -> Vec<u8> {
        if !self.stream {
            return Vec::new();
        }
        named_event(&json!({"type": kind, "index": self.output.len(), key: value}))
    }

    fn block_stop(&mut self, block: Value) -> Vec<u8> {
        let index = self.output.len();
        self.output.push(block);
        if !self.stream {
            return Vec::new();
        }
        named_event(&json!({"type": "content_block_stop", "index": index}))
    }

    pub(super) fn messages_open_text(&self) -> Vec<u8> {
        self.block_start(&json!({"type": "text", "text": ""}))
    }

    pub(super) fn messages_text(&self, piece: &str) -> Vec<u8> {
        self.block_delta(&json!({"type": "text_delta", "text": piece}))
    }

    pub(super) fn messages_close_text(&mut self, text: &str) -> Vec<u8> {
        self.block_stop(json!({"type": "text", "text": text}))
    }

    pub(super) fn messages_item(&mut self, item: &Item) -> Vec<u8> {
        match item {
            Item::Reasoning { summary, opaque, origin } => {
                let kept = seal(origin, opaque.as_ref());
                self.thinking(summary, &kept)
            }
            Item::ToolCall { call_id: id, name, arguments } => {
                let (name, _, _) = self.known(name);
                // A client takes an object only: what the model broke is shown to it as that.
                let input = match arguments {
                    Value::Object(_) => arguments.clone(),
                    other => json!({"invalid_arguments": other}),
                };
                let mut block =
                    json!({"type": "tool_use", "id": call_id(id), "name": name, "input": {}});
                let mut bytes = self.block_start(&block);
                let partial = input.to_string();
                bytes.extend(
                    self.block_delta(&json!({"type": "input_json_delta", "partial_json": partial})),
                );
                block["input"] = input;
                bytes.extend(self.block_stop(block));
                bytes
            }
            _ => Vec::new(),
        }
    }

    fn thinking(&mut self, summary: &str, kept: &str) -> Vec<u8> {
        if summary.is_empty() {
            let block = json!({"type": "redacted_thinking", "data": kept});
            let mut bytes = self.block_start(&block);
            bytes.extend(self.block_stop(block));
            return bytes;
        }
        let empty = json!({"type": "thinking", "thinking": "", "signature": ""});
        let mut bytes = self.block_start(&empty);
        bytes.extend(self.block_delta(&json!({"type": "thinking_delta", "thinking": summary})));
        bytes.extend(self.block_delta(&json!({"type": "signature_delta", "signature": kept})));
        let block = json!({"type": "thinking", "thinking": summary, "signature": kept});
        bytes.extend(self.block_stop(block));
        bytes
    }

    fn stop_reason(finish: Finish) -> &'static str {
        match finish {
            Finish::Stop => "end_turn",
            Finish::ToolCalls => "tool_use",
            Finish::Length => "max_tokens",
            Finish::Filtered => "refusal",
        }
    }

    pub(super) fn messages_end(&mut self, usage: &Usage, finish: Finish) -> Vec<u8> {
        let mut bytes = named_event(&json!({
            "type": "message_delta",
            "delta": {"stop_reason": Self::stop_reason(finish), "stop_sequence": null},
            "usage": messages_usage(usage),
        }));
        bytes.extend(named_event(&json!({"type": "message_stop"})));
        bytes
    }

    pub(super) fn messages_whole(&mut self, usage: &Usage, finish: Finish) -> Vec<u8> {
        let stop = Some(Self::stop_reason(finish));
        self.message(&self.output, stop, usage).to_string().into_bytes()
    }
}

/// This dialect counts cached input apart.
fn messages_usage(usage: &Usage) -> Value {
    let apart = usage.cached_tokens.saturating_add(usage.cache_write_tokens);
    json!({
        "input_tokens": usage.input_tokens.saturating_sub(apart),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
    })
}
