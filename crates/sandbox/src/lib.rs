//! The sandbox contract, the process driver, layers, spawner and init: the only crate with unsafe.
//!
//! What always holds:
//!
//! - A sandbox has namespaces, capabilities, seccomp and Landlock, or it is not built. There is no
//!   best effort: a missing feature is a coded error.
//! - A sandbox that is gone leaves nothing: no process, mount, cgroup, namespace, file.
//! - Nothing a sandbox writes is parsed here but bytes in a length-limited frame.
//!
//! What it never does: decide policy, keep a log, or `exec` on behalf of the owner without a
//! request. One program runs in a sandbox at a time, and what it leaves in the background is
//! killed when it ends: nothing outlives a tool call in this version.
//!
//! The processes: the owner holds a [`Spawner`]; the spawner ([`spawner_main`]) is a re-exec of the
//! same binary; each sandbox has an init, a fork of the spawner; each program is a fork of the
//! spawner born in init's pid namespace.

mod base;
mod boundary;
mod cgroup;
mod client;
mod confine;
mod enter;
mod error;
mod fileops;
mod gate;
mod init;
pub mod layers;
mod mode;
mod mounts;
mod netlink;
mod probe;
mod root;
mod running;
mod seccomp;
mod self_probe;
mod spawner;
mod spec;
mod sys;
mod terminal;
mod weaken;
mod wire;

pub use boundary::{
    DNS_PORT, Listeners, NetworkTime, TCP_PORT, measure_networks, original_destination,
};
pub use client::{SPAWNER_ARG, Spawner, SpawnerConfig};
pub use error::SandboxError;
pub use fileops::{EDIT_BYTES_MAX, ENTRIES_MAX, READ_BYTES_MAX, WRITE_BYTES_MAX};
pub use gate::{GATE_ID_AS_ROOT, OUT_INSIDE, Worker, confine_gate, confine_worker, worker_owner};
pub use layers::remove_tree;
pub use probe::{Probe, probe};
pub use running::{Chunk, Finished, Running, Stream};
pub use spawner::{SANDBOXES_MAX, spawner_main};
pub use spec::*;
pub use terminal::{Terminal, resize};
pub use weaken::Weaken;
pub use wire::{receive_descriptors, send_descriptors};
