//! Decoders: a reply's bytes, cut anywhere, into an answer.
//!
//! Pure: fed bytes, they give text as it comes and one answer or one coded fault at the end. A
//! reply is complete only when the dialect's own end was seen; what ends before is a cut stream,
//! never a short answer. Arbitrary bytes give a fault, never a panic; every size is limited.
//!
//! ```text
//!  Unknown --first byte '{'--> Json   (a server that does not stream)
//!     |
//!     +----any other byte----> Stream --end seen--> complete
//! ```

mod chat;
mod messages;
mod parts;
mod responses;

pub(crate) use parts::arguments;

use crate::error::ModelError;
use crate::limits::{ANSWER_BYTES_MAX, ITEMS_MAX, LINE_BYTES_MAX, REPLY_BYTES_MAX, TOOL_CALLS_MAX};
use crate::sse::{Events, LineTooLong};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use types::manifest::Dialect;
use types::{Digest, Item, Origin, Usage};

/// Version of the decoders: raised whenever the same reply gives other items.
pub const DECODER_VERSION: u16 = 1;

/// What a decoder must know of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Who was asked: the origin of opaque parts.
    pub origin: Origin,
    /// Digest of the request's bytes: makes tool-call ids unique within the run.
    pub request: Digest,
    /// Bytes of the request: the base of an estimate when the server reports no usage.
    pub request_bytes: u64,
}

/// One complete answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Its items; empty when the model said nothing.
    pub items: Vec<Item>,
    /// Tokens used.
    pub usage: Usage,
    /// Whether `usage` is our estimate, because the server reported none.
    #[serde(default)]
    pub usage_estimated: bool,
    /// Why the model stopped.
    pub finish: Finish,
}

/// Why the model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// It said all it wanted.
    Stop,
    /// It waits for tools.
    ToolCalls,
    /// It reached the output limit: the last item may be cut.
    Length,
    /// The provider's filter stopped it.
    Filtered,
}

/// Decodes a whole reply.
///
/// # Errors
/// As [`Decoder::finish`].
pub fn decode(dialect: Dialect, context: &Context, reply: &[u8]) -> Result<Answer, ModelError> {
    let mut decoder = Decoder::new(dialect, context.clone())?;
    decoder.feed(reply, &mut |_| {})?;
    decoder.finish()
}

/// An incremental decoder. After an error it stays in error.
#[derive(Debug)]
pub struct Decoder {
    context: Context,
    shape: Shape,
    reader: Reader,
    bytes: u64,
    fault: Option<ModelError>,
}

/// How the bytes arrive.
#[derive(Debug)]
enum Shape {
    Unknown,
    Json(Vec<u8>),
    Stream(Events),
}

/// What the events mean.
#[derive(Debug)]
enum Reader {
    Chat(chat::Reader),
    Messages(messages::Reader),
    Responses(responses::Reader),
}

/// Why one event could not be taken.
#[derive(Debug)]
enum Bad {
    /// It does not fit the dialect.
    Malformed(String),
    /// A limit was passed.
    Limit(u64, &'static str),
    /// The provider reported an error within a reply that began well.
    Reported { code: String, message: String },
}

impl From<LineTooLong> for Bad {
    fn from(_: LineTooLong) -> Self {
        Self::Limit(LINE_BYTES_MAX as u64, "bytes in one line")
    }
}

impl Decoder {
    /// A decoder for one reply.
    ///
    /// # Errors
    /// [`ModelError::DialectMissing`] for a dialect this build does not speak.
    pub fn new(dialect: Dialect, context: Context) -> Result<Self, ModelError> {
        let reader = match dialect {
            Dialect::Chat => Reader::Chat(chat::Reader::default()),
            Dialect::Responses => Reader::Responses(responses::Reader::default()),
            Dialect::Messages => Reader::Messages(messages::Reader::default()),
            Dialect::Gemini => {
                return Err(ModelError::DialectMissing {
                    provider: context.origin.provider,
                    dialect: crate::provider::dialect_name(dialect),
                });
            }
        };
        Ok(Self { context, shape: Shape::Unknown, reader, bytes: 0, fault: None })
    }

    /// Takes the next bytes; text that they add to the answer goes to `on_text`.
    ///
    /// # Errors
    /// [`ModelError::Malformed`], [`ModelError::TooLarge`], or what the provider reported.
    pub fn feed(&mut self, bytes: &[u8], on_text: &mut dyn FnMut(&str)) -> Result<(), ModelError> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        self.bytes += bytes.len() as u64;
        let taken = if self.bytes > REPLY_BYTES_MAX as u64 {
            Err(Bad::Limit(REPLY_BYTES_MAX as u64, "bytes"))
        } else {
            self.take(bytes, on_text)
        };
        taken.map_err(|bad| self.fail(bad))
    }

    /// Whether the dialect's own end was seen: what follows does not matter.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.fault.is_none()
            && match &self.reader {
                Reader::Chat(reader) => reader.is_complete(),
                Reader::Messages(reader) => reader.is_complete(),
                Reader::Responses(reader) => reader.is_complete(),
            }
    }

    /// The reply is over.
    ///
    /// # Errors
    /// [`ModelError::Cut`] when it ended before the answer did; else as [`Decoder::feed`].
    pub fn finish(mut self) -> Result<Answer, ModelError> {
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let ended = self.end();
        match ended {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => {
                Err(ModelError::Cut { provider: self.context.origin.provider, bytes: self.bytes })
            }
            Err(bad) => Err(self.fail(bad)),
        }
    }

    fn take(&mut self, bytes: &[u8], on_text: &mut dyn FnMut(&str)) -> Result<(), Bad> {
        let mut bytes = bytes;
        if matches!(self.shape, Shape::Unknown) {
            let start = bytes.iter().position(|b| !b.is_ascii_whitespace());
            let Some(start) = start else { return Ok(()) };
            bytes = &bytes[start..];
            self.shape = if bytes[0] == b'{' {
                Shape::Json(Vec::new())
            } else {
                Shape::Stream(Events::default())
            };
        }
        match &mut self.shape {
            Shape::Unknown => Ok(()),
            Shape::Json(kept) => {
                kept.extend_from_slice(bytes);
                Ok(())
            }
            Shape::Stream(events) => {
                let reader = &mut self.reader;
                events.feed(bytes, &mut |data| reader.event(data, on_text))
            }
        }
    }

    fn end(&mut self) -> Result<Option<Answer>, Bad> {
        match &mut self.shape {
            Shape::Unknown => return Ok(None),
            Shape::Json(kept) => {
                let value: Value = match serde_json::from_slice(kept) {
                    Ok(value) => value,
                    Err(error) if error.is_eof() => return Ok(None),
                    Err(error) => return Err(Bad::Malformed(format!("it is no JSON: {error}"))),
                };
                match &mut self.reader {
                    Reader::Chat(reader) => reader.whole(&value)?,
                    Reader::Messages(reader) => reader.whole(&value)?,
                    Reader::Responses(reader) => reader.whole(&value)?,
                }
            }
            Shape::Stream(events) => {
                let reader = &mut self.reader;
                match events.finish(&mut |data| reader.event(data, &mut |_| {})) {
                    // The last event was not closed and cannot be read: it was cut.
                    Err(Bad::Malformed(_)) => return Ok(None),
                    other => other?,
                }
            }
        }
        let answer = match &mut self.reader {
            Reader::Chat(reader) => reader.answer(&self.context)?,
            Reader::Messages(reader) => reader.answer(&self.context)?,
            Reader::Responses(reader) => reader.answer(&self.context)?,
        };
        if let Some(answer) = &answer {
            check_limits(&answer.items)?;
        }
        Ok(answer)
    }

    fn fail(&mut self, bad: Bad) -> ModelError {
        let provider = self.context.origin.provider.clone();
        let fault = match bad {
            Bad::Malformed(why) => ModelError::Malformed { provider, why },
            Bad::Limit(limit, unit) => ModelError::TooLarge { provider, limit, unit },
            Bad::Reported { code, message } => crate::fault::reported(&provider, &code, &message),
        };
        self.fault = Some(fault.clone());
        fault
    }
}

impl Reader {
    fn event(&mut self, data: &[u8], on_text: &mut dyn FnMut(&str)) -> Result<(), Bad> {
        match self {
            Self::Chat(reader) => reader.event(data, on_text),
            Self::Messages(reader) => reader.event(data, on_text),
            Self::Responses(reader) => reader.event(data, on_text),
        }
    }
}

fn check_limits(items: &[Item]) -> Result<(), Bad> {
    let calls = items.iter().filter(|item| matches!(item, Item::ToolCall { .. })).count();
    if calls > TOOL_CALLS_MAX {
        return Err(Bad::Limit(TOOL_CALLS_MAX as u64, "tool calls"));
    }
    if items.len() > ITEMS_MAX {
        return Err(Bad::Limit(ITEMS_MAX as u64, "items"));
    }
    Ok(())
}

/// Counts the bytes of an answer as it grows.
#[derive(Debug, Default)]
struct Meter(usize);

impl Meter {
    fn add(&mut self, bytes: usize) -> Result<(), Bad> {
        self.0 = self.0.saturating_add(bytes);
        if self.0 > ANSWER_BYTES_MAX {
            Err(Bad::Limit(ANSWER_BYTES_MAX as u64, "bytes of answer"))
        } else {
            Ok(())
        }
    }
}

/// The JSON of one event.
fn parse_event(data: &[u8]) -> Result<Value, Bad> {
    serde_json::from_slice(data)
        .map_err(|error| Bad::Malformed(format!("an event is no JSON ({error})")))
}

#[cfg(test)]
mod tests;
