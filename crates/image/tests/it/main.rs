//! Images from end to end: brought through real workers, and seen from inside a sandbox.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod hostile;
mod making;
mod registry;
mod store;
mod support;
mod within;
