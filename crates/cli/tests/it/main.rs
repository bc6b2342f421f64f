//! The binary as people and programs use it: real processes, temporary homes, scripted models.
//!
//! `BEDPLATE_BIN` names another binary to drive, so that the same tests can run elsewhere.

mod answers;
mod apply;
mod crash;
mod policy;
mod runs;
mod sandbox;
mod support;
mod tasks;
mod terminal;
mod understand;
mod usage;
