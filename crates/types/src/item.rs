//! Items: what a conversation is made of, in no provider's dialect.

use crate::Labels;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which provider and model an opaque part belongs to. It is sent only there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// The provider's name, as in a route.
    pub provider: String,
    /// The model's name at that provider.
    pub model: String,
}

/// One item of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Item {
    /// What a person (or the program on their behalf) said.
    UserMessage {
        /// The text.
        text: String,
    },
    /// What the model said.
    AssistantMessage {
        /// The text.
        text: String,
    },
    /// Reasoning that the provider gave: a readable summary, and an opaque part that only its
    /// origin can read.
    Reasoning {
        /// Readable, may be empty.
        summary: String,
        /// The provider's own item, sent back only to `origin`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        opaque: Option<Value>,
        /// Where it came from.
        origin: Origin,
    },
    /// The model asks for a tool.
    ToolCall {
        /// Unique within the run; providers' ids are mapped at the wire.
        call_id: String,
        /// The tool's name.
        name: String,
        /// One JSON object. A string when the model sent something that is no JSON object: the
        /// text as it came.
        arguments: Value,
    },
    /// What the tool gave back.
    ToolResult {
        /// The call it answers.
        call_id: String,
        /// Text for the model.
        output: String,
        /// Whether the tool failed or was denied.
        is_error: bool,
        /// Where the text came from.
        #[serde(default, skip_serializing_if = "Labels::is_empty")]
        labels: Labels,
    },
}

/// A tool as a model sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolSpec {
    /// `[a-zA-Z0-9_-]{1,64}`.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema of the arguments, an object schema.
    pub input_schema: Value,
}

/// Tokens as the provider counted them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Of these, read from the provider's cache.
    #[serde(default)]
    pub cached_tokens: u64,
    /// Of the tokens read, written to the provider's cache for later calls: some charge more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
    /// Of these, kept in the cache for an hour: dearer still.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_hour_tokens: u64,
    /// Tokens written, reasoning included.
    pub output_tokens: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u64) -> bool {
    *count == 0
}
