//! What the dialects share: arguments, usage, estimates.

use super::{Answer, Bad, Context, Finish, Meter};
use serde_json::Value;
use types::{Item, Usage};

/// Bytes of ordinary text per token, for estimates.
const BYTES_PER_TOKEN: u64 = 4;

/// Levels of nesting of a value that is kept. What is wrapped in a few more levels on its way to
/// the log must still be readable JSON there.
pub(super) const DEPTH_MAX: usize = 64;

/// Whether a value has more than so many levels.
pub(super) fn deeper_than(value: &Value, levels: usize) -> bool {
    if levels == 0 {
        return true;
    }
    match value {
        Value::Array(values) => values.iter().any(|value| deeper_than(value, levels - 1)),
        Value::Object(fields) => fields.values().any(|value| deeper_than(value, levels - 1)),
        _ => false,
    }
}

/// Arguments as a value: one JSON object, else the text as it came, also when it is nested too
/// deeply. No text at all is an empty object, as servers write a call without arguments.
pub(crate) fn arguments(text: &str) -> Value {
    if text.trim().is_empty() {
        return Value::Object(serde_json::Map::new());
    }
    match serde_json::from_str(text) {
        Ok(object @ Value::Object(_)) if !deeper_than(&object, DEPTH_MAX) => object,
        _ => Value::String(text.to_owned()),
    }
}

/// A count, 0 when it is absent or no number.
pub(super) fn count(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

/// A text, empty when it is absent or no text.
pub(super) fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// An error object within a reply: `{code, message, type}`, or only a text.
pub(super) fn reported(error: &Value) -> Bad {
    let code = match &error["code"] {
        Value::String(code) if !code.is_empty() => code.clone(),
        Value::Number(code) => code.to_string(),
        _ => text(error, "/type").to_owned(),
    };
    let message = error.as_str().unwrap_or_else(|| text(error, "/message"));
    Bad::Reported { code, message: message.to_owned() }
}

/// Puts an answer together; usage that was not reported is estimated from bytes, so that a budget
/// never takes silence for zero.
pub(super) fn answer(
    items: Vec<Item>,
    usage: Option<Usage>,
    finish: Finish,
    meter: &Meter,
    context: &Context,
) -> Answer {
    Answer {
        items,
        usage: usage.unwrap_or_else(|| Usage {
            input_tokens: context.request_bytes.div_ceil(BYTES_PER_TOKEN),
            output_tokens: (meter.0 as u64).div_ceil(BYTES_PER_TOKEN),
            ..Usage::default()
        }),
        usage_estimated: usage.is_none(),
        finish,
    }
}
