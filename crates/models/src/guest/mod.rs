//! The endpoint for guests: harnesses that others wrote, in a sandbox, calling models through us.
//!
//! ```text
//!  guest --its dialect--> decode_request --> GuestRequest --encode_for--> any provider
//!  guest <--its dialect-- Renderer <-- text, items, usage <--Decoder----- its reply
//! ```
//!
//! All of it is functions of values: no socket, no clock, no chance. A guest's bytes are hostile:
//! they give a request or a coded error, never a panic. What a guest's dialect can say and the
//! canonical items cannot is named in [`GuestRequest::dropped`]; nothing is lost silently. When the
//! provider speaks the guest's own dialect the body is sent on nearly as it came.

mod decode;
mod error;
mod forward;
mod key;
mod paths;
pub mod recipes;
mod render;
mod seal;
mod tools;

pub use decode::decode_request;
pub use error::{GuestFault, HttpReply, render_error};
pub use forward::{forward_headers, is_native};
pub use key::request_key;
pub use paths::{GuestCall, count_tokens, models, paths};
pub use render::Renderer;
pub use tools::{GuestTool, ToolKind};

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::manifest::Dialect;
use types::{Item, ToolSpec};

/// Items of one request.
pub const GUEST_ITEMS_MAX: usize = 20_000;
/// Tools of one request.
pub const GUEST_TOOLS_MAX: usize = 1_000;
/// Notes about what was left out of one request.
pub const DROPPED_MAX: usize = 32;
/// Tokens an answer may have when it does not come from the guest's own kind of provider: guests
/// name the limit of the models that they know, which others refuse.
pub const OUTPUT_TOKENS_MAX: u64 = 32_000;

/// What a guest asks of a model, in no dialect.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestRequest {
    /// How the guest speaks, and wants its answer.
    pub dialect: Dialect,
    /// The model it names: a wish, since the route decides.
    pub model: String,
    /// Its system instructions, those of its first messages included.
    pub instructions: String,
    /// The conversation.
    pub items: Vec<Item>,
    /// The tools it offers, all as functions.
    pub tools: Vec<ToolSpec>,
    /// What the guest knows differently of some of these tools, by their name in `tools`.
    pub guest_tools: BTreeMap<String, GuestTool>,
    /// The most tokens it wants, if it says so.
    pub max_output_tokens: Option<u64>,
    /// Whether it wants a stream of events.
    pub stream: bool,
    /// Chat: whether it wants usage in its stream.
    pub include_usage: bool,
    /// What the canonical items cannot hold and another provider will not see: one note a kind.
    pub dropped: Vec<String>,
    /// The body as it came.
    pub body: Map<String, Value>,
}

#[cfg(test)]
mod tests;
