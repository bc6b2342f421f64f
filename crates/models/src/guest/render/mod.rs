//! An answer in a guest's dialect: events in the order its client insists on, or one JSON body.
//!
//! ```text
//!  new --begin--> begun --text*, item*--> ... --finish--> ended
//!                   `---------------error---------------> ended
//! ```
//!
//! Everything happens in one order: text as it comes, items as they are complete, the end. Text
//! that came piece by piece and comes again as an item is not said twice. When no stream is wanted
//! nothing is given before the end, which gives the whole body. After the end nothing is given.

mod chat;
mod messages;
mod responses;

use super::error::GuestFault;
use super::tools::GuestTool;
use super::{GuestRequest, ToolKind};
use crate::decode::{Answer, Finish};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use types::manifest::Dialect;
use types::{Digest, Item, Usage};

/// The longest id of a call that every client and server takes.
const CALL_ID_BYTES_MAX: usize = 40;

/// Renders one answer.
#[derive(Debug, Clone)]
pub struct Renderer {
    dialect: Dialect,
    stream: bool,
    include_usage: bool,
    model: String,
    seed: Digest,
    tools: BTreeMap<String, GuestTool>,
    began: bool,
    ended: bool,
    /// The text of the message that is open, as far as it was said.
    open: Option<String>,
    /// Text that was said and has not come again as an item.
    unmatched: String,
    /// What is finished, in the shape of the dialect.
    output: Vec<Value>,
    /// Events so far.
    sequence: u64,
}

impl Renderer {
    /// A renderer. `ids` makes the ids of the answer: the same bytes, the same ids, so that an
    /// answer served again from the log is the same.
    #[must_use]
    pub fn new(dialect: Dialect, stream: bool, model: &str, ids: Digest) -> Self {
        Self {
            dialect,
            stream,
            include_usage: false,
            model: model.to_owned(),
            seed: ids,
            tools: BTreeMap::new(),
            began: false,
            ended: false,
            open: None,
            unmatched: String::new(),
            output: Vec::new(),
            sequence: 0,
        }
    }

    /// A renderer of the answer to this request, which says what the guest wants and how it knows
    /// its tools.
    #[must_use]
    pub fn of(request: &GuestRequest, ids: Digest) -> Self {
        let mut renderer = Self::new(request.dialect, request.stream, &request.model, ids);
        renderer.include_usage = request.include_usage;
        renderer.tools.clone_from(&request.guest_tools);
        renderer
    }

    /// Wants usage in a stream of Chat, which gives it only when asked.
    pub const fn include_usage_in_stream(&mut self) {
        self.include_usage = true;
    }

    /// The reply's own bytes are given to the guest instead: only a failure is rendered, after what
    /// came of them.
    pub const fn relayed(&mut self) {
        self.began = true;
    }

    /// The type of the reply's content.
    #[must_use]
    pub const fn content_type(&self) -> &'static str {
        if self.stream { "text/event-stream" } else { "application/json" }
    }

    /// Whether anything was given: then an error belongs into the stream.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.began && self.stream
    }

    /// What an answer begins with. Worth sending at once: clients wait for it.
    pub fn begin(&mut self) -> Vec<u8> {
        if self.began || self.ended {
            return Vec::new();
        }
        self.began = true;
        if !self.stream {
            return Vec::new();
        }
        match self.dialect {
            Dialect::Chat => self.chat_begin(),
            Dialect::Messages => self.messages_begin(),
            _ => self.responses_begin(),
        }
    }

    /// What keeps a client waiting while nothing comes; nothing when no stream is wanted.
    #[must_use]
    pub fn keep_alive(&self) -> Vec<u8> {
        match (self.has_begun() && !self.ended, self.dialect) {
            (false, _) => Vec::new(),
            (true, Dialect::Messages) => named_event(&json!({"type": "ping"})),
            (true, _) => b": waiting\n\n".to_vec(),
        }
    }

    /// A piece of text as it comes.
    pub fn text(&mut self, piece: &str) -> Vec<u8> {
        if piece.is_empty() || self.ended || !self.stream {
            return Vec::new();
        }
        self.unmatched.push_str(piece);
        self.say(piece)
    }

    /// An item that is complete. What no model says gives nothing.
    pub fn item(&mut self, item: &Item) -> Vec<u8> {
        if self.ended {
            return Vec::new();
        }
        let mut bytes = self.begin();
        match item {
            Item::AssistantMessage { text } => {
                let said = self.said_before(text);
                bytes.extend(self.say(&text[said..]));
                if self.unmatched.is_empty() {
                    bytes.extend(self.close_text());
                }
            }
            Item::Reasoning { .. } | Item::ToolCall { .. } => {
                bytes.extend(self.close_text());
                bytes.extend(match self.dialect {
                    Dialect::Chat => self.chat_item(item),
                    Dialect::Messages => self.messages_item(item),
                    _ => self.responses_item(item),
                });
            }
            Item::UserMessage { .. } | Item::ToolResult { .. } => {}
        }
        bytes
    }

    /// The end.
    pub fn finish(&mut self, usage: &Usage, finish: Finish) -> Vec<u8> {
        if self.ended {
            return Vec::new();
        }
        let mut bytes = self.begin();
        bytes.extend(self.close_text());
        self.ended = true;
        bytes.extend(match (self.dialect, self.stream) {
            (Dialect::Chat, true) => self.chat_end(usage, finish),
            (Dialect::Chat, false) => self.chat_whole(usage, finish),
            (Dialect::Messages, true) => self.messages_end(usage, finish),
            (Dialect::Messages, false) => self.messages_whole(usage, finish),
            (_, true) => self.responses_end(usage, finish),
            (_, false) => self.responses_whole(usage, finish),
        });
        bytes
    }

    /// All that is left of an answer, after any of its text came already.
    pub fn answer(&mut self, answer: &Answer) -> Vec<u8> {
        let mut bytes = self.begin();
        for item in &answer.items {
            bytes.extend(self.item(item));
        }
        bytes.extend(self.finish(&answer.usage, answer.finish));
        bytes
    }

    /// A failure after the answer began. Before that, or when no stream is wanted, it is
    /// [`render_error`](super::render_error).
    pub fn error(&mut self, fault: &GuestFault) -> Vec<u8> {
        if self.ended || !self.has_begun() {
            return Vec::new();
        }
        self.ended = true;
        let error = fault.object(self.dialect);
        match self.dialect {
            Dialect::Chat => plain_event(&json!({"error": error})),
            Dialect::Messages => named_event(&json!({"type": "error", "error": error})),
            _ => self.responses_failed(&error),
        }
    }

    /// How much of a message's text was said already.
    fn said_before(&mut self, text: &str) -> usize {
        if text.starts_with(&self.unmatched) {
            return std::mem::take(&mut self.unmatched).len();
        }
        if self.unmatched.starts_with(text) {
            self.unmatched.drain(..text.len());
            return text.len();
        }
        self.unmatched.clear();
        0
    }

    fn say(&mut self, piece: &str) -> Vec<u8> {
        let mut bytes = self.begin();
        if piece.is_empty() {
            return bytes;
        }
        if self.open.is_none() {
            self.open = Some(String::new());
            bytes.extend(match self.dialect {
                Dialect::Chat => Vec::new(),
                Dialect::Messages => self.messages_open_text(),
                _ => self.responses_open_text(),
            });
        }
        if let Some(open) = &mut self.open {
            open.push_str(piece);
        }
        bytes.extend(match self.dialect {
            Dialect::Chat => self.chat_delta(&json!({"content": piece})),
            Dialect::Messages => self.messages_text(piece),
            _ => self.responses_text(piece),
        });
        bytes
    }

    fn close_text(&mut self) -> Vec<u8> {
        let Some(text) = self.open.take() else {
            return Vec::new();
        };
        match self.dialect {
            Dialect::Chat => {
                self.output.push(json!({"content": text}));
                Vec::new()
            }
            Dialect::Messages => self.messages_close_text(&text),
            _ => self.responses_close_text(&text),
        }
    }

    /// An id of this answer.
    fn id(&self, kind: &str, at: usize) -> String {
        let place = (at as u64).to_be_bytes();
        let digest =
            Digest::of_parts("bedplate guest id", &[&self.seed.0, kind.as_bytes(), &place]);
        format!("{kind}_{}", &digest.to_string()[..24])
    }

    /// How the guest knows a tool: its name, the name space, the kind.
    fn known<'a>(&'a self, name: &'a str) -> (&'a str, Option<&'a str>, ToolKind) {
        match self.tools.get(name) {
            Some(tool) => (&tool.name, tool.namespace.as_deref(), tool.kind),
            None => (name, None, ToolKind::Function),
        }
    }
}

/// The id of a call as a guest may keep it: ours, when every client takes it.
fn call_id(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if !id.is_empty() && id.len() <= CALL_ID_BYTES_MAX && id.bytes().all(plain) {
        return id.to_owned();
    }
    let digest = Digest::of_parts("bedplate guest call", &[id.as_bytes()]);
    format!("call_{}", &digest.to_string()[..24])
}

/// Arguments as text; what was no JSON object stays as it came.
fn arguments_text(arguments: &Value) -> String {
    match arguments {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The only argument of a tool with free text; what the model wrote instead, if it has none.
fn only_text(arguments: &Value, name: &str) -> String {
    match arguments[name].as_str() {
        Some(text) => text.to_owned(),
        None => arguments_text(arguments),
    }
}

/// An event whose name stands beside its data.
fn named_event(value: &Value) -> Vec<u8> {
    let name = value["type"].as_str().unwrap_or("error");
    format!("event: {name}\ndata: {value}\n\n").into_bytes()
}

fn plain_event(value: &Value) -> Vec<u8> {
    format!("data: {value}\n\n").into_bytes()
}
