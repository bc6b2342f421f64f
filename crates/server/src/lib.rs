//! The HTTP API of a home, for programs: runs, their records as streams, approvals, sandboxes.
//!
//! ```text
//! connection -> admitted (who, which host) -> route -> body read -> asked of the owner, or read
//!                   `-------------`-------------`---------`------> refused, as JSON
//! ```
//!
//! It is one more command: it holds no state but what it has read, asks the owner for every change,
//! and reads the log for everything else, so that it can die and come back at any moment.
//!
//! What always holds: on TCP nothing but the API's own description is answered without the token
//! that lies in the home, and nothing to a page of the web; every buffer, connection and wait has a
//! limit of [`limits`]; an error is JSON with a code, what happened and the next step. What is never
//! here: decisions, records, and what the command line knows of agents, which it brings as a
//! [`Desk`].

mod admit;
mod answer;
mod body;
mod desk;
mod error;
mod events;
mod exec;
mod files;
mod handlers;
pub mod limits;
mod listen;
mod log;
mod owner;
mod routes;
mod sandboxes;
mod service;
mod steps;

pub use desk::{Desk, NewSandbox, Ready, Sandboxes, StartRun};
pub use error::{Refusal, ServeError};
pub use listen::{Listening, Places};
pub use service::serve;

/// The API's description, OpenAPI 3.1, as it is served and as it stands in docs/.
pub const OPENAPI: &str = include_str!("../../../docs/openapi.json");
