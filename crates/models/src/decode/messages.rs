//! The Messages dialect: content blocks, each begun, filled and closed, or the whole message.

use super::parts::{DEPTH_MAX, arguments, deeper_than, reported, text};
use super::{Answer, Bad, Context, Finish, Meter, parse_event};
use crate::encode::messages::OPAQUE_BLOCK;
use crate::limits::ITEMS_MAX;
use crate::wire::conversation_id;
use serde_json::{Map, Value};
use types::{Item, Usage};

/// Collects one message.
#[derive(Debug, Default)]
pub(super) struct Reader {
    blocks: Vec<Block>,
    usage: Counted,
    finish: Option<Finish>,
    began: bool,
    done: bool,
    meter: Meter,
}

/// One content block.
#[derive(Debug)]
struct Block {
    index: u64,
    /// As it began, with what was added to its own fields.
    fields: Value,
    /// The text of a call's arguments, as far as it came in pieces.
    input: String,
}

/// Counts that the server gave; later ones replace earlier ones.
#[derive(Debug, Default)]
struct Counted {
    input: Option<u64>,
    read: u64,
    written: u64,
    written_hour: u64,
    output: Option<u64>,
}

impl Reader {
    /// `message_stop` was seen.
    pub(super) const fn is_complete(&self) -> bool {
        self.done
    }

    pub(super) fn event(&mut self, data: &[u8], on_text: &mut dyn FnMut(&str)) -> Result<(), Bad> {
        if self.done || data.is_empty() || data.trim_ascii() == b"[DONE]" {
            return Ok(());
        }
        let mut event = parse_event(data)?;
        if !event.is_object() {
            return Err(Bad::Malformed("an event is no JSON object".into()));
        }
        match text(&event, "/type") {
            "message_start" => {
                self.began = true;
                self.usage.take(&event["message"]["usage"]);
            }
            "content_block_start" => {
                let index = event["index"].as_u64();
                let index = index.unwrap_or(self.blocks.len() as u64);
                self.begin(index, event["content_block"].take(), on_text)?;
            }
            "content_block_delta" => self.delta(&event, on_text)?,
            "message_delta" => {
                self.stop(&event["delta"]["stop_reason"]);
                self.usage.take(&event["usage"]);
            }
            "message_stop" => self.done = true,
            "error" => return Err(reported(&event["error"])),
            "" if !event["error"].is_null() => return Err(reported(&event["error"])),
            _ => {}
        }
        Ok(())
    }

    /// A reply that was not streamed.
    pub(super) fn whole(&mut self, reply: &Value) -> Result<(), Bad> {
        if !reply["error"].is_null() {
            return Err(reported(&reply["error"]));
        }
        let Some(content) = reply["content"].as_array() else {
            return Err(Bad::Malformed("it has no content".into()));
        };
        for (index, block) in content.iter().enumerate() {
            self.begin(index as u64, block.clone(), &mut |_| {})?;
        }
        self.stop(&reply["stop_reason"]);
        self.usage.take(&reply["usage"]);
        self.began = true;
        self.done = true;
        Ok(())
    }

    fn begin(
        &mut self,
        index: u64,
        fields: Value,
        on_text: &mut dyn FnMut(&str),
    ) -> Result<(), Bad> {
        if text(&fields, "/type").is_empty() {
            return Err(Bad::Malformed("a content block has no type".into()));
        }
        if self.blocks.len() == ITEMS_MAX {
            return Err(Bad::Limit(ITEMS_MAX as u64, "items"));
        }
        self.meter.add(fields.to_string().len())?;
        if text(&fields, "/type") == "text" && !text(&fields, "/text").is_empty() {
            on_text(text(&fields, "/text"));
        }
        self.blocks.push(Block { index, fields, input: String::new() });
        Ok(())
    }

    fn delta(&mut self, event: &Value, on_text: &mut dyn FnMut(&str)) -> Result<(), Bad> {
        let index = event["index"].as_u64();
        let at = match index {
            Some(index) => self.blocks.iter().rposition(|block| block.index == index),
            None => self.blocks.len().checked_sub(1),
        };
        let Some(at) = at else {
            return Err(Bad::Malformed("a piece belongs to no content block".into()));
        };
        let block = &mut self.blocks[at];
        let delta = &event["delta"];
        self.meter.add(delta.to_string().len())?;
        match text(delta, "/type") {
            "text_delta" => {
                let piece = text(delta, "/text");
                append(&mut block.fields, "text", piece);
                if !piece.is_empty() && text(&block.fields, "/type") == "text" {
                    on_text(piece);
                }
            }
            "input_json_delta" => block.input.push_str(text(delta, "/partial_json")),
            "thinking_delta" => append(&mut block.fields, "thinking", text(delta, "/thinking")),
            "signature_delta" => append(&mut block.fields, "signature", text(delta, "/signature")),
            _ => {}
        }
        Ok(())
    }

    fn stop(&mut self, reason: &Value) {
        let Some(reason) = reason.as_str() else { return };
        self.finish = Some(match reason {
            "tool_use" => Finish::ToolCalls,
            "max_tokens" | "model_context_window_exceeded" => Finish::Length,
            "refusal" => Finish::Filtered,
            _ => Finish::Stop,
        });
    }

    /// The answer; `None` when the end was not seen.
    pub(super) fn answer(&mut self, context: &Context) -> Result<Option<Answer>, Bad> {
        // Some servers that speak this dialect leave out the last event.
        if !self.done && self.finish.is_none() {
            return Ok(None);
        }
        if !self.began {
            return Err(Bad::Malformed("it does not begin with message_start".into()));
        }
        let mut items: Vec<Item> = Vec::new();
        for (position, block) in std::mem::take(&mut self.blocks).into_iter().enumerate() {
            let item = block.item(position, context)?;
            // A text that is cut into blocks, as for citations, is one text.
            match (items.last_mut(), item) {
                (
                    Some(Item::AssistantMessage { text }),
                    Some(Item::AssistantMessage { text: more }),
                ) => text.push_str(&more),
                (_, item) => items.extend(item),
            }
        }
        let has_calls = items.iter().any(|item| matches!(item, Item::ToolCall { .. }));
        let finish = match self.finish {
            Some(Finish::Stop | Finish::ToolCalls) | None if has_calls => Finish::ToolCalls,
            Some(Finish::ToolCalls) | None => Finish::Stop,
            Some(finish) => finish,
        };
        let usage = self.usage.usage();
        Ok(Some(super::parts::answer(items, usage, finish, &self.meter, context)))
    }
}

impl Block {
    fn item(mut self, position: usize, context: &Context) -> Result<Option<Item>, Bad> {
        match text(&self.fields, "/type") {
            "text" => {
                let text = text(&self.fields, "/text").to_owned();
                Ok((!text.is_empty()).then_some(Item::AssistantMessage { text }))
            }
            "tool_use" => {
                let name = text(&self.fields, "/name");
                if name.is_empty() {
                    return Err(Bad::Malformed("a tool call has no name".into()));
                }
                let whole = match &self.fields["input"] {
                    Value::Object(input) if self.input.is_empty() => {
                        Value::Object(input.clone()).to_string()
                    }
                    _ => std::mem::take(&mut self.input),
                };
                Ok(Some(Item::ToolCall {
                    call_id: conversation_id(&context.request, position, text(&self.fields, "/id")),
                    name: name.to_owned(),
                    arguments: arguments(&whole),
                }))
            }
            // Reasoning, and blocks of kinds we do not know: they go back to their origin as they
            // came.
            _ => self.opaque(context).map(Some),
        }
    }

    fn opaque(mut self, context: &Context) -> Result<Item, Bad> {
        let summary = text(&self.fields, "/thinking").to_owned();
        if !self.input.is_empty() {
            self.fields["input"] = arguments(&self.input);
        }
        if deeper_than(&self.fields, DEPTH_MAX) {
            return Err(Bad::Malformed("a content block is nested too deeply".into()));
        }
        // Thinking without its signature is refused when it comes back.
        let unsigned = text(&self.fields, "/type") == "thinking"
            && text(&self.fields, "/signature").is_empty();
        let opaque = (!unsigned)
            .then(|| Value::Object(Map::from_iter([(OPAQUE_BLOCK.to_owned(), self.fields)])));
        Ok(Item::Reasoning { summary, opaque, origin: context.origin.clone() })
    }
}

impl Counted {
    fn take(&mut self, usage: &Value) {
        let count = |path: &str| usage.pointer(path).and_then(Value::as_u64);
        self.input = count("/input_tokens").or(self.input);
        self.read = count("/cache_read_input_tokens").unwrap_or(self.read);
        self.written = count("/cache_creation_input_tokens").unwrap_or(self.written);
        let hour = count("/cache_creation/ephemeral_1h_input_tokens");
        self.written_hour = hour.unwrap_or(self.written_hour);
        self.output = count("/output_tokens").or(self.output);
    }

    /// This dialect counts what it read from the cache, and wrote to it, apart; we count it all
    /// as input. `None` when the server counted nothing.
    fn usage(&self) -> Option<Usage> {
        let input = self.input?;
        Some(Usage {
            input_tokens: input.saturating_add(self.read).saturating_add(self.written),
            cached_tokens: self.read,
            cache_write_tokens: self.written,
            cache_write_hour_tokens: self.written_hour,
            output_tokens: self.output?,
        })
    }
}

fn append(fields: &mut Value, key: &str, more: &str) {
    let Value::Object(fields) = fields else { return };
    match fields.get_mut(key) {
        Some(Value::String(text)) => text.push_str(more),
        _ => {
            fields.insert(key.to_owned(), more.into());
        }
    }
}
