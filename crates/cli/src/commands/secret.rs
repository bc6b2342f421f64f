//! `secret`: what the vault of this home holds.
//!
//! A value comes on standard input and goes nowhere but into the vault: not into an argument, the
//! environment, a message or the log. In memory it is wiped.

use crate::arguments::SecretCommand;
use crate::error::{CliError, Result, exit};
use crate::render;
use crate::session::Session;
use crate::terminal::{Silence, Terminal};
use serde_json::json;
use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use vault::{Entry, KeySource, Kind, VALUE_BYTES_MAX, Vault, VaultError};
use zeroize::Zeroizing;

/// `secret`.
pub(crate) fn perform(session: &Session, command: &SecretCommand) -> Result<u8> {
    match command {
        SecretCommand::Set { name, kind } => set(session, name, kind),
        SecretCommand::Ls => list(session),
        SecretCommand::Rm { name } => remove(session, name),
    }
}

fn open(session: &Session) -> Result<Vault> {
    let home = session.home.path();
    let source = KeySource::named(home, |name| std::env::var_os(name));
    Ok(Vault::open_with(home, source)?)
}

fn set(session: &Session, name: &str, kind: &str) -> Result<u8> {
    let kind = Kind::named(kind).expect("the command line knows the kinds");
    vault::check_name(name)?;
    let value = read_value(name)?;
    session.home.prepare()?;
    let now_ms = runtime::Clock::new().now_ms();
    let entry = open(session)?.set(name, kind, &value, now_ms)?;
    if session.json {
        Terminal::answer_json(&document(&entry));
    } else {
        session.terminal.progress(&format!("set: {name}, version {}", entry.version));
    }
    Ok(exit::DONE)
}

fn list(session: &Session) -> Result<u8> {
    let entries = open(session)?.entries()?;
    if session.json || session.jsonl {
        let secrets: Vec<_> = entries.iter().map(document).collect();
        Terminal::answer_json(&json!({ "secrets": secrets }));
        return Ok(exit::DONE);
    }
    if entries.is_empty() {
        session.terminal.progress("no secrets yet: bedplate secret set NAME < FILE");
    }
    for entry in &entries {
        let (created, updated) =
            (render::moment(entry.created_ms), render::moment(entry.updated_ms));
        let (name, version) = (&entry.name, entry.version);
        let kind = match entry.kind {
            Kind::Plain => String::new(),
            kind => format!("  {}", kind.name()),
        };
        Terminal::answer(&format!(
            "{name}{kind}  version {version}  created {created}  set {updated}"
        ));
    }
    Ok(exit::DONE)
}

fn remove(session: &Session, name: &str) -> Result<u8> {
    open(session)?.remove(name)?;
    if session.json {
        Terminal::answer_json(&json!({ "removed": name }));
    } else {
        session.terminal.progress(&format!("removed: {name}"));
    }
    Ok(exit::DONE)
}

fn document(entry: &Entry) -> serde_json::Value {
    json!({
        "name": entry.name,
        "kind": entry.kind,
        "version": entry.version,
        "created": render::rfc3339(entry.created_ms),
        "updated": render::rfc3339(entry.updated_ms),
    })
}

/// Standard input to its end, without one line end.
fn read_value(name: &str) -> Result<Zeroizing<String>> {
    let _silence = Silence::of_input();
    if std::io::stdin().is_terminal() {
        Terminal::say(&format!(
            "the value of {name}, not shown; end with Enter and Ctrl-D on a line of its own"
        ));
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let most = VALUE_BYTES_MAX + 2;
    let mut bytes = Zeroizing::new(Vec::with_capacity(most));
    // The shared handle would keep a copy in its own buffer.
    let input = std::io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let read = input.and_then(|input| input.take(most as u64).read_to_end(&mut bytes));
    read.map_err(|error| CliError::Io {
        what: "cannot read the secret from standard input".to_owned(),
        reason: error.to_string(),
    })?;
    if bytes.ends_with(b"\n") {
        bytes.pop();
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(VaultError::Value { why: "it is no text".to_owned() }.into()),
    }
}
