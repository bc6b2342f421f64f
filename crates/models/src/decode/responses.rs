//! The Responses dialect: typed events around items, or the whole response.

use super::parts::{DEPTH_MAX, arguments, count, deeper_than, reported, text};
use super::{Answer, Bad, Context, Finish, Meter, parse_event};
use crate::limits::ITEMS_MAX;
use crate::wire::conversation_id;
use serde_json::Value;
use std::collections::BTreeMap;
use types::{Item, Usage};

/// Collects one response.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Items that are finished, by their place in the output.
    done_items: BTreeMap<u64, Value>,
    /// The final response object.
    last: Option<Value>,
    /// Counts text as it streams, so that an endless stream ends.
    meter: Meter,
}

impl Reader {
    /// The final response was seen.
    pub(super) const fn is_complete(&self) -> bool {
        self.last.is_some()
    }

    pub(super) fn event(&mut self, data: &[u8], on_text: &mut dyn FnMut(&str)) -> Result<(), Bad> {
        if self.is_complete() || data.is_empty() || data.trim_ascii() == b"[DONE]" {
            return Ok(());
        }
        let mut event = parse_event(data)?;
        if !event.is_object() {
            return Err(Bad::Malformed("an event is no JSON object".into()));
        }
        match text(&event, "/type") {
            "response.output_text.delta" | "response.refusal.delta" => {
                let delta = text(&event, "/delta");
                self.meter.add(delta.len())?;
                if !delta.is_empty() {
                    on_text(delta);
                }
            }
            "response.output_item.done" => {
                let place = event["output_index"].as_u64();
                let place = place.unwrap_or(self.done_items.len() as u64);
                if self.done_items.len() == ITEMS_MAX {
                    return Err(Bad::Limit(ITEMS_MAX as u64, "items"));
                }
                self.done_items.insert(place, event["item"].take());
            }
            "response.completed" | "response.incomplete" | "response.done" => {
                let last = event["response"].take();
                if !last.is_object() {
                    return Err(Bad::Malformed("the final response is no JSON object".into()));
                }
                self.last = Some(last);
            }
            "response.failed" => return Err(reported(&event["response"]["error"])),
            "error" => {
                let inner = &event["error"];
                return Err(reported(if inner.is_object() { inner } else { &event }));
            }
            name if name.ends_with(".delta") => {
                let delta = event["delta"].as_str().map_or(0, str::len);
                self.meter.add(delta)?;
            }
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
        if !reply["output"].is_array() {
            return Err(Bad::Malformed("it has no output".into()));
        }
        match text(reply, "/status") {
            "" | "completed" | "incomplete" => {
                self.last = Some(reply.clone());
                Ok(())
            }
            status => Err(Bad::Malformed(format!("its status is '{status}'"))),
        }
    }

    /// The answer; `None` when the end was not seen.
    pub(super) fn answer(&mut self, context: &Context) -> Result<Option<Answer>, Bad> {
        let Some(mut last) = self.last.take() else {
            return Ok(None);
        };
        let output = match last["output"].take() {
            Value::Array(output) if !output.is_empty() => output,
            _ => std::mem::take(&mut self.done_items).into_values().collect(),
        };
        let mut meter = Meter::default();
        let mut items = Vec::new();
        for (position, item) in output.into_iter().enumerate() {
            items.extend(read_item(item, position, context, &mut meter)?);
        }
        let has_calls = items.iter().any(|item| matches!(item, Item::ToolCall { .. }));
        let finish = match text(&last, "/incomplete_details/reason") {
            "content_filter" => Finish::Filtered,
            "" if text(&last, "/status") != "incomplete" => {
                if has_calls {
                    Finish::ToolCalls
                } else {
                    Finish::Stop
                }
            }
            _ => Finish::Length,
        };
        let usage = last["usage"].is_object().then(|| usage(&last["usage"]));
        Ok(Some(super::parts::answer(items, usage, finish, &meter, context)))
    }
}

fn read_item(
    item: Value,
    position: usize,
    context: &Context,
    meter: &mut Meter,
) -> Result<Option<Item>, Bad> {
    if !item.is_object() {
        return Err(Bad::Malformed("an item is no JSON object".into()));
    }
    let item = match text(&item, "/type") {
        "" => return Err(Bad::Malformed("an item has no type".into())),
        "message" => {
            let text = joined(&item["content"], &["text", "refusal"], "");
            meter.add(text.len())?;
            return Ok((!text.is_empty()).then_some(Item::AssistantMessage { text }));
        }
        "function_call" => {
            let name = text(&item, "/name");
            if name.is_empty() {
                return Err(Bad::Malformed("a tool call has no name".into()));
            }
            let arguments_value = match &item["arguments"] {
                Value::String(text) => arguments(text),
                object @ Value::Object(_) => arguments(&object.to_string()),
                _ => arguments(""),
            };
            meter.add(name.len() + arguments_value.to_string().len())?;
            Item::ToolCall {
                call_id: conversation_id(&context.request, position, text(&item, "/call_id")),
                name: name.to_owned(),
                arguments: arguments_value,
            }
        }
        // Reasoning, and items of kinds we do not know: they go back to their origin as they came.
        kind => {
            let mut summary = joined(&item["summary"], &["text"], "\n\n");
            if summary.is_empty() && kind == "reasoning" {
                summary = joined(&item["content"], &["text"], "\n\n");
            }
            meter.add(item.to_string().len())?;
            if deeper_than(&item, DEPTH_MAX) {
                return Err(Bad::Malformed("an item is nested too deeply".into()));
            }
            let opaque = returnable(kind, &item).then_some(item);
            Item::Reasoning { summary, opaque, origin: context.origin.clone() }
        }
    };
    Ok(Some(item))
}

/// Reasoning without content of its own is a name in a store we do not use: servers refuse it.
fn returnable(kind: &str, item: &Value) -> bool {
    kind != "reasoning"
        || item["encrypted_content"].as_str().is_some_and(|text| !text.is_empty())
        || item["content"].as_array().is_some_and(|parts| !parts.is_empty())
}

/// The texts of parts, joined; a text instead of parts counts as one.
fn joined(parts: &Value, fields: &[&str], between: &str) -> String {
    if let Some(text) = parts.as_str() {
        return text.to_owned();
    }
    let texts: Vec<&str> = parts
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|part| fields.iter().find_map(|field| part[*field].as_str()))
        .collect();
    texts.join(between)
}

fn usage(usage: &Value) -> Usage {
    Usage {
        input_tokens: count(usage, "/input_tokens"),
        cached_tokens: count(usage, "/input_tokens_details/cached_tokens"),
        output_tokens: count(usage, "/output_tokens"),
        ..Usage::default()
    }
}
