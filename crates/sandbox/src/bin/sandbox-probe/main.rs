//! The escape corpus: each probe attempts one thing a sandbox must not allow.
//!
//! `sandbox-probe NAME KEY=VALUE...` ends with status 0 when it got what it was after, 10 when it
//! was held, and says in one line how. Run raw on the host it must succeed (the control), or the
//! probe proves nothing; run in a sandbox it must not. `sandbox-probe --list` prints the corpus.
//!
//! A program of its own, because it has to run where it is not wanted: it needs nothing but libc.
#![allow(unsafe_code, reason = "escapes are tried with raw system calls")]
#![allow(clippy::print_stdout, reason = "the corpus reads what it prints")]

mod bombs;
mod files;
mod kernel;
mod network;
mod processes;

use std::collections::BTreeMap;
use std::process::ExitCode;

/// What a probe found: how it got through, or what held it.
type Outcome = Result<String, String>;
/// What the host tells a probe to aim at.
type Aim = BTreeMap<String, String>;

/// When the control must succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    /// For everybody.
    Both,
    /// For root; an ordinary user is held by the host itself.
    Root,
    /// Where the kernel or host has the thing at all.
    IfThere,
}

struct Probe {
    name: &'static str,
    control: Control,
    run: fn(&Aim) -> Outcome,
}

const fn both(name: &'static str, run: fn(&Aim) -> Outcome) -> Probe {
    let control = Control::Both;
    Probe { name, control, run }
}

const fn root(name: &'static str, run: fn(&Aim) -> Outcome) -> Probe {
    let control = Control::Root;
    Probe { name, control, run }
}

const fn if_there(name: &'static str, run: fn(&Aim) -> Outcome) -> Probe {
    let control = Control::IfThere;
    Probe { name, control, run }
}

const HELD: u8 = 10;
const BROKEN: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else {
        return ExitCode::from(BROKEN);
    };
    let corpora =
        [files::PROBES, processes::PROBES, kernel::PROBES, network::PROBES, bombs::PROBES];
    let mut all = corpora.into_iter().flatten();
    if name == "--list" {
        for probe in all {
            println!("{} {:?}", probe.name, probe.control);
        }
        return ExitCode::SUCCESS;
    }
    let aim: Aim = rest
        .iter()
        .filter_map(|pair| pair.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    let Some(probe) = all.find(|probe| probe.name == name) else {
        return ExitCode::from(BROKEN);
    };
    match (probe.run)(&aim) {
        Ok(how) => {
            println!("REACHED {how}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("HELD {why}");
            ExitCode::from(HELD)
        }
    }
}

/// One value of the aim.
fn aim<'a>(aim: &'a Aim, key: &str) -> &'a str {
    aim.get(key).map_or("", String::as_str)
}

/// A system call's result: what it returned, or its errno as text.
fn checked(result: libc::c_long) -> Outcome {
    if result < 0 {
        Err(std::io::Error::last_os_error().to_string())
    } else {
        Ok(result.to_string())
    }
}

/// A system call that is refused by permission or absence, or else has been reached, whatever it
/// then says of its nonsensical arguments.
fn entered(result: libc::c_long) -> Outcome {
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        _ if result >= 0 => Ok(result.to_string()),
        Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => Err(error.to_string()),
        _ => Ok(format!("reached: {error}")),
    }
}

fn io<T>(result: std::io::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

/// Runs something in a forked child and takes over its outcome, so that it can change its own
/// namespaces or die.
fn in_child(act: impl FnOnce() -> Outcome) -> Outcome {
    // SAFETY: this program has one thread.
    match unsafe { libc::fork() } {
        0 => {
            let code = i32::from(act().is_err());
            // SAFETY: ends the child without returning into the parent's code.
            unsafe { libc::_exit(code) }
        }
        pid if pid > 0 => {
            let mut status = 0;
            // SAFETY: status outlives the call.
            unsafe { libc::waitpid(pid, &raw mut status, 0) };
            match status {
                0 => Ok("in a child".to_owned()),
                other => Err(format!("child status {other:#x}")),
            }
        }
        _ => Err("fork".to_owned()),
    }
}

/// Becomes root of an own user namespace if it is not root already.
fn with_own_root() -> Outcome {
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } == 0 {
        return Ok(String::new());
    }
    // SAFETY: no memory is passed.
    checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())
}
