//! What owner and gate say to each other: the headers of frames.

use models::{Answer, Endpoint};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use types::{Digest, Failure, Item, ModelFault, ToolSpec};

/// A model call as the owner asks for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelCall {
    /// Where to.
    pub endpoint: Endpoint,
    /// The model's name at the provider.
    pub model: String,
    /// The system instructions.
    pub instructions: String,
    /// The conversation.
    pub items: Vec<Item>,
    /// The tools it may call.
    pub tools: Vec<ToolSpec>,
    /// The most tokens it may write.
    pub max_output_tokens: u64,
}

/// Output as a model may read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadText {
    /// The text: all of it, or its head and tail with a line that says what is left out.
    pub text: String,
    /// Whether something is left out.
    pub truncated: bool,
}

/// Header of a frame from the owner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToGate {
    pub(crate) id: u64,
    pub(crate) request: Request,
}

/// What the owner asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Request {
    /// Encode a model call and keep it.
    Prepare { call: Box<ModelCall> },
    /// Forget a prepared call.
    Release { prepared: u64 },
    /// Send a prepared call. Attachment: the key, if any.
    Send { prepared: u64 },
    /// Give up a request.
    Cancel { of: u64 },
    /// Serve a script. Attachment: its text.
    ScriptStart { name: String, instance: String },
    /// Parse JSON and check it. Attachment: the bytes.
    ParseJson { schema: Option<Value> },
    /// Check a value.
    CheckArguments { value: Value, schema: Value },
    /// Make output readable. Attachment: the bytes.
    ReadOutput { cap_bytes: u64 },
    /// See whether a schema can be used.
    CompileSchema { schema: Value },
}

/// Header of a frame from the gate.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ToOwner {
    /// The request it belongs to; 0 for [`Event::Ready`].
    pub(crate) id: u64,
    pub(crate) event: Event,
}

/// What the gate answers. Every request but `Release` and `Cancel` gets exactly one last event;
/// `Delta` comes before it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// The process is confined and reads; or says why it is not and ends.
    Ready { failure: Option<Failure> },
    /// A call is encoded.
    Prepared { prepared: u64, digest: Digest, bytes: u64, input_tokens: u64, output_tokens: u64 },
    /// A piece of text of the answer.
    Delta { text: String },
    /// The call is over. Attachment: the reply's bytes.
    Answered { answer: Box<Answer>, http_status: u16 },
    /// The call gave no answer. Attachment: the bytes that came.
    Faulted { fault: ModelFault },
    /// A scripted model listens.
    ScriptStarted { base_url: String },
    /// JSON, parsed.
    Json { value: Value },
    /// Output, readable.
    Text { read: ReadText },
    /// It is as it should be.
    Good,
    /// It is not.
    Failed { failure: Failure },
}
