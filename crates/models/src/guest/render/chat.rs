//! The Chat Completions dialect: the role first, then what is said, then calls by their index.

use super::super::ToolKind;
use super::super::tools::INPUT;
use super::{Renderer, arguments_text, call_id, only_text, plain_event};
use crate::decode::Finish;
use serde_json::{Map, Value, json};
use types::{Item, Usage};

impl Renderer {
    fn chunk(&self, choices: &Value) -> Value {
        json!({
            "id": self.id("chatcmpl", 0),
            "object": "chat.completion.chunk",
            "created": 0,
            "model": self.model,
            "choices": choices,
        })
    }

    fn chat_choice(&self, delta: &Value, finish: Option<&str>) -> Vec<u8> {
        let choice =
            json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]);
        plain_event(&self.chunk(&choice))
    }

    pub(super) fn chat_begin(&self) -> Vec<u8> {
        self.chat_choice(&json!({"role": "assistant", "content": ""}), None)
    }

    pub(super) fn chat_delta(&self, delta: &Value) -> Vec<u8> {
        if self.stream { self.chat_choice(delta, None) } else { Vec::new() }
    }

    pub(super) fn chat_item(&mut self, item: &Item) -> Vec<u8> {
        match item {
            Item::Reasoning { summary, .. } if !summary.is_empty() => {
                let part = json!({"reasoning_content": summary});
                let bytes = self.chat_delta(&part);
                self.output.push(part);
                bytes
            }
            Item::ToolCall { call_id: id, name, arguments } => {
                let index = self.calls().count();
                let call = self.chat_call(id, name, arguments);
                let mut delta = call.clone();
                delta["index"] = index.into();
                self.output.push(json!({"call": call}));
                self.chat_delta(&json!({"tool_calls": [delta]}))
            }
            _ => Vec::new(),
        }
    }

    fn chat_call(&self, id: &str, name: &str, arguments: &Value) -> Value {
        let (name, _, kind) = self.known(name);
        let id = call_id(id);
        if kind == ToolKind::Custom {
            let input = only_text(arguments, INPUT);
            return json!({"id": id, "type": "custom", "custom": {"name": name, "input": input}});
        }
        let arguments = arguments_text(arguments);
        json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
    }

    fn calls(&self) -> impl Iterator<Item = &Value> {
        self.output.iter().filter_map(|part| part.get("call"))
    }

    fn chat_finish(finish: Finish) -> &'static str {
        match finish {
            Finish::Stop => "stop",
            Finish::ToolCalls => "tool_calls",
            Finish::Length => "length",
            Finish::Filtered => "content_filter",
        }
    }

    pub(super) fn chat_end(&mut self, usage: &Usage, finish: Finish) -> Vec<u8> {
        let mut bytes = self.chat_choice(&json!({}), Some(Self::chat_finish(finish)));
        if self.include_usage {
            let mut last = self.chunk(&json!([]));
            last["usage"] = chat_usage(usage);
            bytes.extend(plain_event(&last));
        }
        bytes.extend_from_slice(b"data: [DONE]\n\n");
        bytes
    }

    pub(super) fn chat_whole(&mut self, usage: &Usage, finish: Finish) -> Vec<u8> {
        let joined = |field: &str| {
            let parts: Vec<&str> =
                self.output.iter().filter_map(|part| part[field].as_str()).collect();
            (!parts.is_empty()).then(|| parts.join("\n\n"))
        };
        let mut message = Map::new();
        message.insert("role".into(), "assistant".into());
        message.insert("content".into(), joined("content").into());
        message.insert("refusal".into(), Value::Null);
        if let Some(reasoning) = joined("reasoning_content") {
            message.insert("reasoning_content".into(), reasoning.into());
        }
        let calls: Vec<Value> = self.calls().cloned().collect();
        if !calls.is_empty() {
            message.insert("tool_calls".into(), calls.into());
        }
        let mut whole = self.chunk(&json!([{
            "index": 0,
            "message": message,
            "logprobs": null,
            "finish_reason": Self::chat_finish(finish),
        }]));
        whole["object"] = "chat.completion".into();
        whole["usage"] = chat_usage(usage);
        whole.to_string().into_bytes()
    }
}

fn chat_usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens.saturating_add(usage.output_tokens),
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    })
}
