//! Models: the dialects providers speak, a client for one call, the scripted model, and prices.
//!
//! All bytes of a provider are parsed here and nowhere else, and this crate runs inside the gate
//! process: what it returns to the owner is typed and bounded. Encoders and decoders are pure
//! functions of values; only `client` and `script::serve` open sockets. Nothing here retries, picks
//! another model or decides whether a call may happen: that is the kernel's business. No error and
//! no kept byte ever holds a provider's key.

mod client;
mod decode;
mod encode;
mod error;
mod fault;
pub mod guest;
mod price;
mod provider;
mod redact;
mod resolver;
pub mod script;
mod sse;
mod tls;
mod transcript;
mod wire;

pub use client::{CallFault, Client, Piece, Reply};
pub use decode::{Answer, Context, DECODER_VERSION, Decoder, Finish, decode};
pub use encode::{ENCODER_VERSION, ModelRequest, encode};
pub use error::ModelError;
pub use price::{Estimate, PRICES_DATE, Prices, estimate};
pub use provider::{Endpoint, Timeouts, builtin_names, resolve};
pub use redact::Secret;
pub use tls::host_authorities;

pub use types::manifest::Dialect;

/// Limits of one model call. Each has a test at its edge.
pub mod limits {
    /// Bytes of one encoded request.
    pub const REQUEST_BYTES_MAX: usize = 16 << 20;
    /// Bytes of one reply as it comes over the wire.
    pub const REPLY_BYTES_MAX: usize = 32 << 20;
    /// Bytes of one line of an event stream.
    pub const LINE_BYTES_MAX: usize = 8 << 20;
    /// Bytes of text, reasoning and arguments in one answer.
    pub const ANSWER_BYTES_MAX: usize = 4 << 20;
    /// Items in one answer.
    pub const ITEMS_MAX: usize = 512;
    /// Tool calls in one answer.
    pub const TOOL_CALLS_MAX: usize = 128;
    /// Bytes of the reply that are kept beside a fault.
    pub const FAULT_RAW_BYTES_MAX: usize = 1 << 20;
    /// Characters of a provider's own error text that are passed on.
    pub const PROVIDER_TEXT_CHARS_MAX: usize = 400;
    /// The longest wait a provider may ask for, milliseconds.
    pub const RETRY_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;
}
