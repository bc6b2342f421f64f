//! The binary as people and programs use it: real processes, temporary homes, scripted models.
//!
//! `BEDPLATE_BIN` names another binary to drive, so that the same tests can run elsewhere.

mod answers;
mod apply;
mod approvals;
mod bench;
mod crash;
mod credentials;
mod egress_kills;
mod failures;
mod frozen;
mod homes;
mod image;
mod kept;
mod memory;
mod network;
mod policy;
mod privacy;
mod provider;
mod rollout;
mod runs;
mod sandbox;
mod sandbox_network;
mod sandboxes;
mod secrets;
mod serve;
mod steps;
mod support;
mod tasks;
mod terminal;
mod tools;
mod traces;
mod triage;
mod understand;
mod usage;
mod worlds;
