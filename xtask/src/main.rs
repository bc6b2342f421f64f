//! `cargo xtask`: the house's own tools. `tidy` checks the rules no compiler knows, `test` brings
//! what the tests need and runs everything, `deny` asks cargo-deny about the dependencies.
//!
//! Always: the exit status says whether all is well, and the last line of `test` is
//! `N passed, N failed`. Never: anything a user of Bedplate needs at run time.

#![allow(clippy::print_stdout, clippy::print_stderr)] // A tool for people on a terminal.

mod source;
mod test;
mod tidy;
mod tokens;
mod tree;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "\
cargo xtask tidy [--fix]            check the rules of the house; --fix rewrites the crate graph
cargo xtask check                   tidy, fmt and clippy: what every commit must pass
cargo xtask test [-p PACKAGE]...    bring what the tests need, then tidy, fmt, clippy, all tests
cargo xtask peers bypass            the bypass corpus beside bwrap and srt, as a table
cargo xtask peers gate              bring mitmproxy, which `bedplate bench gate` measures beside us
cargo xtask deny                    licences, advisories and sources of the dependencies";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments.as_slice() {
        ["tidy"] => run_tidy(false),
        ["tidy", "--fix"] => run_tidy(true),
        ["check"] => run_check(),
        ["test", rest @ ..] => packages(rest).map(|packages| test::run(&root(), &packages)),
        ["peers", "bypass"] => test::bypass(&root()),
        ["peers", "gate"] => test::gate(&root()),
        ["deny"] => run_deny(),
        _ => Err(format!("usage:\n{USAGE}")),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root: this crate lies directly in it.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the repository").to_owned()
}

fn run_tidy(fix: bool) -> Result<bool, String> {
    let found = tidy::run(&root(), fix).map_err(|e| format!("tidy cannot read the tree: {e}"))?;
    for finding in &found {
        println!("{finding}");
    }
    match found.len() {
        0 => Ok(true),
        count => Err(format!("tidy: {count} findings")),
    }
}

/// What `.githooks/pre-commit` asks before each commit. Stops at the first that fails.
fn run_check() -> Result<bool, String> {
    run_tidy(false)?;
    for arguments in [test::FMT, test::CLIPPY] {
        let status = cargo(&root()).args(arguments).status();
        if !status.map_err(|e| format!("cannot start cargo: {e}"))?.success() {
            return Err(format!("cargo {} found something", arguments[0]));
        }
    }
    Ok(true)
}

/// `-p NAME -p NAME ...`.
fn packages<'a>(arguments: &[&'a str]) -> Result<Vec<&'a str>, String> {
    let pairs = arguments.chunks(2).map(|pair| match pair {
        ["-p", name] => Ok(*name),
        _ => Err(format!("usage:\n{USAGE}")),
    });
    pairs.collect()
}

fn run_deny() -> Result<bool, String> {
    let listed = cargo(&root()).args(["deny", "--version"]).output();
    if !listed.is_ok_and(|out| out.status.success()) {
        return Err("cargo-deny is not installed: `cargo install --locked cargo-deny`".to_owned());
    }
    let status = cargo(&root()).args(["deny", "check"]).status();
    status.map(|s| s.success()).map_err(|e| format!("cannot start cargo: {e}"))
}

/// Cargo, as it started us.
fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    // Where everything is built once and thrown away, what helps to build it again only costs.
    if std::env::var_os("CI").is_some() {
        command.env("CARGO_INCREMENTAL", "0").env("CARGO_PROFILE_DEV_DEBUG", "none");
    }
    command
}
