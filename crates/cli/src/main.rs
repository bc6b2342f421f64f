//! The `bedplate` binary: commands on a terminal, and the roles that are started by re-exec.
//!
//! A command holds no state: it reads the log, or asks the owner. What always holds: progress and
//! people's words go to standard error, answers to standard output; every failure has a code, and
//! nothing that came from a model, a tool or a file reaches the terminal with its control
//! characters, but what a wrapped program prints on it. What is never here: decisions, records, enforcement.

mod arguments;
mod asked;
mod commands;
mod error;
mod explain;
#[cfg(test)]
mod fixture;
mod guest_program;
mod model_choice;
mod outcome;
mod pages;
mod progress;
mod render;
mod roles;
mod session;
mod show;
mod summary;
mod terminal;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    match roles::play(&arguments) {
        Some(status) => ExitCode::from(status),
        None => ExitCode::from(commands::dispatch(&arguments)),
    }
}
