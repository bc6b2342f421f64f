//! The Responses dialect: numbered events around items, and the whole response at the end.

use super::super::ToolKind;
use super::super::seal::seal;
use super::super::tools::INPUT;
use super::{Renderer, arguments_text, call_id, named_event, only_text};
use crate::decode::Finish;
use serde_json::{Value, json};
use types::{Item, Origin, Usage};

impl Renderer {
    fn response(&self, status: &str, usage: &Value) -> Value {
        let output: &[Value] = if status == "in_progress" { &[] } else { &self.output };
        json!({
            "id": self.id("resp", 0),
            "object": "response",
            "created_at": 0,
            "status": status,
            "error": null,
            "incomplete_details": null,
            "instructions": null,
            "max_output_tokens": null,
            "metadata": {},
            "model": self.model,
            "output": output,
            "parallel_tool_calls": true,
            "previous_response_id": null,
            "reasoning": {"effort": null, "summary": null},
            "store": false,
            "temperature": null,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_p": null,
            "truncation": "disabled",
            "usage": usage,
        })
    }

    fn numbered(&mut self, mut event: Value) -> Vec<u8> {
        if !self.stream {
            return Vec::new();
        }
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        named_event(&event)
    }

    pub(super) fn responses_begin(&mut self) -> Vec<u8> {
        let response = self.response("in_progress", &Value::Null);
        let mut bytes = self.numbered(json!({"type": "response.created", "response": response}));
        bytes.extend(self.numbered(json!({"type": "response.in_progress", "response": response})));
        bytes
    }

    /// An item that begins; it is the one after those that are finished.
    fn added(&mut self, item: &Value) -> Vec<u8> {
        let at = self.output.len();
        self.numbered(
            json!({"type": "response.output_item.added", "output_index": at, "item": item}),
        )
    }

    fn item_done(&mut self, item: Value) -> Vec<u8> {
        let at = self.output.len();
        let event = json!({"type": "response.output_item.done", "output_index": at, "item": item});
        self.output.push(item);
        self.numbered(event)
    }

    /// An event within the item that is open.
    fn inner(&mut self, kind: &str, id: &str, fields: Value) -> Vec<u8> {
        let mut event = json!({"type": kind, "item_id": id, "output_index": self.output.len()});
        for (key, value) in fields.as_object().into_iter().flatten() {
            event[key] = value.clone();
        }
        self.numbered(event)
    }

    fn message_id(&self) -> String {
        self.id("msg", self.output.len())
    }

    fn message_item(&self, status: &str, content: Value) -> Value {
        json!({
            "id": self.message_id(),
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": content,
        })
    }

    pub(super) fn responses_open_text(&mut self) -> Vec<u8> {
        let id = self.message_id();
        let mut bytes = self.added(&self.message_item("in_progress", json!([])));
        let part = text_part("");
        bytes.extend(self.inner(
            "response.content_part.added",
            &id,
            json!({"content_index": 0, "part": part}),
        ));
        bytes
    }

    pub(super) fn responses_text(&mut self, piece: &str) -> Vec<u8> {
        let id = self.message_id();
        let fields = json!({"content_index": 0, "delta": piece, "logprobs": []});
        self.inner("response.output_text.delta", &id, fields)
    }

    pub(super) fn responses_close_text(&mut self, text: &str) -> Vec<u8> {
        let id = self.message_id();
        let fields = json!({"content_index": 0, "text": text, "logprobs": []});
        let mut bytes = self.inner("response.output_text.done", &id, fields);
        let fields = json!({"content_index": 0, "part": text_part(text)});
        bytes.extend(self.inner("response.content_part.done", &id, fields));
        let item = self.message_item("completed", json!([text_part(text)]));
        bytes.extend(self.item_done(item));
        bytes
    }

    pub(super) fn responses_item(&mut self, item: &Item) -> Vec<u8> {
        match item {
            Item::Reasoning { summary, opaque, origin } => {
                self.reasoning(summary, opaque.as_ref(), origin)
            }
            Item::ToolCall { call_id, name, arguments } => self.call(call_id, name, arguments),
            _ => Vec::new(),
        }
    }

    fn reasoning(&mut self, summary: &str, opaque: Option<&Value>, origin: &Origin) -> Vec<u8> {
        let id = self.id("rs", self.output.len());
        let mut item = json!({"id": id, "type": "reasoning", "summary": []});
        let mut bytes = self.added(&item);
        if !summary.is_empty() {
            let empty = json!({"type": "summary_text", "text": ""});
            let part = json!({"type": "summary_text", "text": summary});
            let events = [
                ("response.reasoning_summary_part.added", "part", empty),
                ("response.reasoning_summary_text.delta", "delta", summary.into()),
                ("response.reasoning_summary_text.done", "text", summary.into()),
                ("response.reasoning_summary_part.done", "part", part.clone()),
            ];
            for (kind, key, value) in events {
                bytes.extend(self.inner(kind, &id, json!({"summary_index": 0, key: value})));
            }
            item["summary"] = json!([part]);
        }
        item["encrypted_content"] = seal(origin, opaque).into();
        bytes.extend(self.item_done(item));
        bytes
    }

    fn call(&mut self, id: &str, name: &str, arguments: &Value) -> Vec<u8> {
        let call_id = call_id(id);
        let at = self.output.len();
        let (name, namespace, kind) = self.known(name);
        let (item_kind, prefix, field, value) = match kind {
            ToolKind::Function => ("function_call", "fc", "arguments", arguments_text(arguments)),
            ToolKind::Custom => ("custom_tool_call", "ctc", "input", only_text(arguments, INPUT)),
            ToolKind::LocalShell => return self.local_shell(&call_id, arguments),
        };
        let id = self.id(prefix, at);
        let mut item = json!({
            "id": id,
            "type": item_kind,
            "status": "in_progress",
            "call_id": call_id,
            "name": name,
            field: "",
        });
        if let Some(namespace) = namespace {
            item["namespace"] = namespace.into();
        }
        let mut bytes = self.added(&item);
        let event = format!("response.{item_kind}_{field}");
        bytes.extend(self.inner(&format!("{event}.delta"), &id, json!({"delta": value})));
        bytes.extend(self.inner(&format!("{event}.done"), &id, json!({field: value})));
        item["status"] = "completed".into();
        item[field] = value.into();
        bytes.extend(self.item_done(item));
        bytes
    }

    fn local_shell(&mut self, call_id: &str, arguments: &Value) -> Vec<u8> {
        let line = only_text(arguments, "command");
        let mut item = json!({
            "id": self.id("lsh", self.output.len()),
            "type": "local_shell_call",
            "status": "in_progress",
            "call_id": call_id,
            "action": {"type": "exec", "command": ["bash", "-lc", line], "env": {}},
        });
        let mut bytes = self.added(&item);
        item["status"] = "completed".into();
        bytes.extend(self.item_done(item));
        bytes
    }

    fn last(&self, usage: &Usage, finish: Finish) -> Value {
        let reason = match finish {
            Finish::Stop | Finish::ToolCalls => None,
            Finish::Length => Some("max_output_tokens"),
            Finish::Filtered => Some("content_filter"),
        };
        let status = if reason.is_some() { "incomplete" } else { "completed" };
        let mut response = self.response(status, &responses_usage(usage));
        if let Some(reason) = reason {
            response["incomplete_details"] = json!({"reason": reason});
        }
        response
    }

    pub(super) fn responses_end(&mut self, usage: &Usage, finish: Finish) -> Vec<u8> {
        let response = self.last(usage, finish);
        let status = response["status"].as_str().unwrap_or("completed");
        let kind = format!("response.{status}");
        self.numbered(json!({"type": kind, "response": response}))
    }

    pub(super) fn responses_whole(&mut self, usage: &Usage, finish: Finish) -> Vec<u8> {
        self.last(usage, finish).to_string().into_bytes()
    }

    pub(super) fn responses_failed(&mut self, error: &Value) -> Vec<u8> {
        let mut response = self.response("failed", &Value::Null);
        response["error"] = json!({"code": error["code"], "message": error["message"]});
        self.numbered(json!({"type": "response.failed", "response": response}))
    }
}

fn text_part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn responses_usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens.saturating_add(usage.output_tokens),
    })
}
