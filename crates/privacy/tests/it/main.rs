//! The golden corpus, the round trip over it, and properties over arbitrary text.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

mod cases;
mod golden;
mod maker;
mod properties;
mod round_trip;
