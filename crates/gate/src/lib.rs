//! The gate process and its client: what reads hostile bytes has no privilege.
//!
//! Replies of models, output of tools and schemas of strangers are parsed in a process of their
//! own, which is confined before it reads the first byte, holds no log, no policy and no vault,
//! and keeps a key no longer than one request. The owner speaks to it over one inherited socket in
//! typed, length-limited frames ([`Gate`]); when it dies, what was in flight fails at once with a
//! code, and the next use starts another. Nothing here decides whether something may happen.

mod client;
mod confine;
mod error;
mod frame;
mod guests;
mod hostile;
mod link;
mod message;
mod nets;
mod network;
mod privacy;
mod process;
mod scripts;

pub use boundary::{
    Client as TokenClient, Denial, Event as NetPassage, MODELS_HOST, TOKEN_OPERATION, by_name,
};
pub use client::{Answered, Gate, NotPrepared, Prepared};
pub use error::GateError;
pub use message::{
    GuestAsk, GuestModels, ModelCall, NetConfig, NetQuestion, NetRequest, NetVerdict,
    PrivacyFindings, PrivacyOrder, ReadText, SecretGiven,
};
pub use models::{Answer, Finish, Secret};
pub use network::{GuestLink, NetMessage, Network, Token};
pub use privacy::PrivacyTier;
pub use process::gate_main;

/// The argument with which the owner re-executes itself as the gate.
pub const GATE_ARGUMENT: &str = "__gate";

/// Limits of the gate. Each has a test at its edge.
pub mod limits {
    /// Bytes of one frame between owner and gate.
    pub const FRAME_BYTES_MAX: usize = 48 << 20;
    /// Attachments of one frame.
    pub const ATTACHMENTS_MAX: usize = 4;
    /// Frames waiting to be written, on either side.
    pub const QUEUE_FRAMES_MAX: usize = 64;
    /// How long what nobody waits for (the end of a reading request) is kept for company,
    /// milliseconds.
    pub const KEPT_MS_MAX: u64 = 2;
    /// Frames that are kept at once.
    pub const KEPT_FRAMES_MAX: usize = 32;
    /// Pieces of text waiting for one reader; what does not fit is left out, as the answer has it.
    pub const DELTAS_MAX: usize = 256;
    /// Requests the gate works on at once.
    pub const IN_FLIGHT_MAX: usize = 256;
    /// Requests prepared and not sent; the oldest makes room.
    pub const PREPARED_MAX: usize = 64;
    /// Scripted models that run at once; the one not used for longest makes room.
    pub const SCRIPTS_MAX: usize = 64;
    /// Bytes of JSON taken from a tool.
    pub const JSON_BYTES_MAX: usize = 4 << 20;
    /// Levels of nesting of JSON taken from a tool.
    pub const JSON_DEPTH_MAX: usize = 64;
    /// Bytes of a schema.
    pub const SCHEMA_BYTES_MAX: usize = 256 << 10;
    /// Bytes of output taken for reading.
    pub const OUTPUT_BYTES_MAX: usize = 16 << 20;
    /// Calls of models that the guests of one sandbox have going at once; more wait.
    pub const GUEST_CALLS_MAX: usize = 8;
    /// How long the body of a guest's request may take to come, milliseconds.
    pub const GUEST_BODY_MS_MAX: u64 = 60_000;
    /// Bodies of one sandbox's guests that are kept, so that the next is recorded as what is new.
    pub const GUEST_BODIES_MAX: usize = 4;
    /// How long the gate may take to start, milliseconds.
    pub const START_MS_MAX: u64 = 10_000;
    /// Starts within [`RESTART_WINDOW_MS`] before we give up.
    pub const STARTS_MAX: usize = 5;
    /// See [`STARTS_MAX`].
    pub const RESTART_WINDOW_MS: u64 = 60_000;
}
