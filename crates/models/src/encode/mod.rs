//! Encoders: a request in a provider's dialect, as the exact bytes that are sent.
//!
//! Pure. The same request always gives the same bytes, and the bytes of a longer conversation
//! begin with those of the shorter one (but for its closing brackets), so that providers' caches
//! hit. An opaque part is sent only to the provider and model it came from.

pub(crate) mod chat;
pub(crate) mod messages;
mod responses;

use crate::error::ModelError;
use crate::limits::REQUEST_BYTES_MAX;
use serde_json::{Map, Value};
use types::manifest::Dialect;
use types::{Item, Origin, ToolSpec};

/// Version of the encoders: raised whenever the same request gives other bytes.
pub const ENCODER_VERSION: u16 = 1;

/// One request to a model, in no dialect.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest {
    /// The provider's name, as in a route.
    pub provider: String,
    /// The model's name at the provider.
    pub model: String,
    /// The system instructions.
    pub instructions: String,
    /// The conversation.
    pub items: Vec<Item>,
    /// The tools it may call.
    pub tools: Vec<ToolSpec>,
    /// The most tokens it may write, reasoning included.
    pub max_output_tokens: u64,
}

/// Encodes a request.
///
/// # Errors
/// [`ModelError::DialectMissing`] for a dialect this build does not speak;
/// [`ModelError::RequestTooLarge`] above [`REQUEST_BYTES_MAX`].
pub fn encode(dialect: Dialect, request: &ModelRequest) -> Result<Vec<u8>, ModelError> {
    let body = match dialect {
        Dialect::Responses => responses::body(request),
        Dialect::Chat => chat::body(request),
        Dialect::Messages => messages::body(request),
        Dialect::Gemini => {
            return Err(ModelError::DialectMissing {
                provider: request.provider.clone(),
                dialect: crate::provider::dialect_name(dialect),
            });
        }
    };
    let bytes = Value::Object(body).to_string().into_bytes();
    if bytes.len() > REQUEST_BYTES_MAX {
        return Err(ModelError::RequestTooLarge {
            bytes: bytes.len() as u64,
            limit: REQUEST_BYTES_MAX as u64,
        });
    }
    Ok(bytes)
}

impl ModelRequest {
    /// Whether an opaque part of this origin may be sent.
    fn owns(&self, origin: &Origin) -> bool {
        origin.provider == self.provider && origin.model == self.model
    }
}

/// Whether the model is one of `OpenAI`'s that reason: they take other parameters.
fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    !["gpt-3", "gpt-4", "chatgpt-"].iter().any(|old| name.starts_with(old))
}

/// Arguments as the text every server can parse.
fn arguments_text(arguments: &Value) -> String {
    arguments_object(arguments).to_string()
}

/// Arguments as an object: text that is none is wrapped in one.
fn arguments_object(arguments: &Value) -> Value {
    match arguments {
        Value::Object(_) => arguments.clone(),
        Value::String(text) => object([("invalid_arguments", Value::from(text.as_str()))]),
        other => object([("invalid_arguments", Value::from(other.to_string()))]),
    }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Object(map(fields))
}

fn map<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests;
