//! `cargo xtask`: the house's own tools. `tidy` checks the rules no compiler knows, `test` brings
//! what the tests need and runs everything, `deny` asks cargo-deny about the dependencies.
//!
//! Always: the exit status says whether all is well, and the last line of `test` is
//! `N passed, N failed`. Never: anything a user of Bedplate needs at run time.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A tool for people on a terminal.

mod source;
mod tidy;
mod tokens;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask tidy [--fix]            check the rules of the house; --fix rewrites the crate graph
cargo xtask test [-p PACKAGE]...    bring what the tests need, then tidy, fmt, clippy, all tests
cargo xtask deny                    licences, advisories and sources of the dependencies";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["tidy"] => run_tidy(false),
        ["tidy", "--fix"] => run_tidy(true),
        _ => Err(format!("usage:\n{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root: this crate lies directly in it.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("xtask lies in the repository")
        .to_owned()
}

fn run_tidy(fix: bool) -> Result<(), String> {
    let found = tidy::run(&root(), fix).map_err(|e| format!("tidy cannot read the tree: {e}"))?;
    for finding in &found {
        println!("{finding}");
    }
    match found.len() {
        0 => Ok(()),
        count => Err(format!("tidy: {count} findings")),
    }
}
