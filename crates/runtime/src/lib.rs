//! Performs the kernel's commands: owner, lifecycle, timers, approvals, recovery.
//!
//! The way of a call is one way: a command's request comes in at the owner's socket, goes to the
//! run's task, the kernel says what comes next, the task performs it through sandbox, gate and
//! store. Nothing calls back up.
//!
//! What always holds: one owner a home, one task a run, one writer of a run's log; nothing is
//! performed before its record is durable. What is never here: bytes of a sandbox, an upstream, a
//! model or a tool are carried, not parsed; nothing is printed.

pub mod apply;
mod artifacts;
mod bench;
pub mod client;
mod clock;
pub mod config;
mod error;
mod failpoint;
mod fork;
mod home;
pub mod login;
pub mod memory;
mod outside;
mod owner;
mod parts;
pub mod policy_sources;
pub mod protocol;
mod recent;
mod registry;
pub mod rollback;
mod run;
mod seats;
pub mod snapshot;
mod watched;

pub use artifacts::{ARTIFACT_BYTES_MAX, ARTIFACT_FILES_MAX};
pub use clock::{Clock, Moment};
pub use error::RuntimeError;
pub use fork::FORKS_MAX;
pub use home::Home;
pub use outside::{Outside, Refused, Terms};
pub use owner::owner_main;
pub use parts::Parts;
pub use watched::Watched;
