//! The Messages dialect.

use super::super::history::OPAQUE_PREFIX;
use super::{Reply, event, pieces};
use serde_json::{Value, json};
use types::Digest;

impl Reply<'_> {
    fn message(&self, content: Vec<Value>, stop: Option<&str>, output: u64) -> Value {
        json!({
            "id": self.id("msg", 0),
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": stop,
            "stop_sequence": null,
            "usage": {
                "input_tokens": self.tokens().0,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": output,
            },
        })
    }

    fn blocks(&self) -> Vec<Value> {
        let mut blocks = Vec::new();
        if !self.turn.reasoning.is_empty() {
            let digest = Digest::of(self.turn.reasoning.as_bytes());
            blocks.push(json!({
                "type": "thinking",
                "thinking": self.turn.reasoning,
                "signature": format!("{OPAQUE_PREFIX}{digest}"),
            }));
        }
        if !self.turn.text.is_empty() {
            blocks.push(json!({"type": "text", "text": self.turn.text}));
        }
        for (at, call) in self.turn.calls.iter().enumerate() {
            blocks.push(json!({
                "type": "tool_use",
                "id": self.id("toolu", at),
                "name": call.tool,
                "input": call.arguments,
            }));
        }
        blocks
    }

    fn stop_reason(&self) -> &'static str {
        if self.turn.calls.is_empty() { "end_turn" } else { "tool_use" }
    }

    pub(super) fn messages_whole(&self) -> Value {
        self.message(self.blocks(), Some(self.stop_reason()), self.tokens().1)
    }

    pub(super) fn messages_stream(&self) -> Vec<u8> {
        let mut events = vec![
            json!({"type": "message_start", "message": self.message(vec![], None, 1)}),
            json!({"type": "ping"}),
        ];
        for (index, block) in self.blocks().iter().enumerate() {
            block_events(&mut events, index, block);
        }
        events.push(json!({
            "type": "message_delta",
            "delta": {"stop_reason": self.stop_reason(), "stop_sequence": null},
            "usage": {"output_tokens": self.tokens().1},
        }));
        events.push(json!({"type": "message_stop"}));
        events.iter().flat_map(event).collect()
    }

    pub(super) fn messages_endless(&self, text: &str) -> (Vec<u8>, Vec<u8>) {
        let empty = json!({"type": "text", "text": ""});
        let first = [
            json!({"type": "message_start", "message": self.message(vec![], None, 1)}),
            json!({"type": "content_block_start", "index": 0, "content_block": empty}),
        ];
        let delta = json!({"type": "text_delta", "text": text});
        let piece = json!({"type": "content_block_delta", "index": 0, "delta": delta});
        (first.iter().flat_map(event).collect(), event(&piece))
    }
}

/// How a block begins, is filled and ends.
fn block_events(events: &mut Vec<Value>, index: usize, block: &Value) {
    let text = |key: &str| block[key].as_str().unwrap_or_default();
    let mut begun = block.clone();
    let mut deltas = Vec::new();
    match text("type") {
        "text" => {
            begun["text"] = "".into();
            let delta = |piece: String| json!({"type": "text_delta", "text": piece});
            deltas.extend(pieces(text("text")).into_iter().map(delta));
        }
        "thinking" => {
            begun["thinking"] = "".into();
            begun["signature"] = "".into();
            let delta = |piece: String| json!({"type": "thinking_delta", "thinking": piece});
            deltas.extend(pieces(text("thinking")).into_iter().map(delta));
            deltas.push(json!({"type": "signature_delta", "signature": block["signature"]}));
        }
        _ => {
            begun["input"] = json!({});
            deltas.push(json!({"type": "input_json_delta", "partial_json": ""}));
            let delta = |piece: String| json!({"type": "input_json_delta", "partial_json": piece});
            deltas.extend(pieces(&block["input"].to_string()).into_iter().map(delta));
        }
    }
    events.push(json!({"type": "content_block_start", "index": index, "content_block": begun}));
    events.extend(
        deltas
            .into_iter()
            .map(|delta| json!({"type": "content_block_delta", "index": index, "delta": delta})),
    );
    events.push(json!({"type": "content_block_stop", "index": index}));
}
