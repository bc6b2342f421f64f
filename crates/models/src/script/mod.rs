//! The scripted model: a file of turns, served over real HTTP in each dialect.
//!
//! It is stateless: which turn comes next follows from the conversation in the request, so a run
//! that is resumed, forked or replayed goes on where it was. Only faults that fire a number of
//! times are counted, in memory. It is strict: what a real server refuses, it refuses.

mod history;
mod parse;
mod pick;
mod render;
mod serve;

pub use parse::parse;
pub use serve::serve;

use serde_json::{Map, Value};

/// Bytes of a script.
pub const SCRIPT_BYTES_MAX: usize = 1 << 20;
/// Turns of a script.
pub const TURNS_MAX: usize = 4096;
/// Calls of one turn.
pub const CALLS_MAX: usize = 64;

/// A script that can be served.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// Its name, for messages: usually the file's.
    pub name: String,
    /// Its turns, at least one.
    pub turns: Vec<Turn>,
}

/// One answer of the model.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Turn {
    /// What it says; empty when it only calls tools.
    pub text: String,
    /// Reasoning before it; empty for none.
    pub reasoning: String,
    /// The tools it calls, in order.
    pub calls: Vec<Call>,
    /// When it is picked: this text occurs in what came last. `None`: in turn.
    pub contains: Option<String>,
    /// What goes wrong instead.
    pub fault: Option<Fault>,
}

/// One tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The tool's name.
    pub tool: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// Something that goes wrong on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// How often; `None` is always.
    pub times: Option<u32>,
}

/// What goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FaultKind {
    /// The server answers with this HTTP status.
    Status {
        /// 400 to 599.
        status: u16,
        /// `Retry-After`, seconds.
        retry_after: Option<u64>,
    },
    /// The reply begins and then nothing comes.
    Stall,
    /// The connection breaks after so many bytes of the body.
    CutAt(u64),
    /// The body is not what the dialect says.
    Garbage,
    /// The answer never ends.
    Endless,
}
