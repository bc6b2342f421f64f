//! `memory`: what agents keep beyond their runs, as people see and change it.
//!
//! Reading goes to the versions and layers themselves; a change is the owner's, who is the one writer
//! of a home. Every change is a version: `revert` takes back any of them.

use super::files::{part, plain, print_texts, typed};
use crate::arguments::{MemoryCommand, Whose};
use crate::error::{CliError, Result, exit};
use crate::render;
use crate::session::{Session, block_on, login};
use crate::terminal::{Terminal, safe};
use runtime::apply::Pending;
use runtime::memory::{FILE_BYTES_MAX, Memories, MemoryChange, Origin, Version};
use runtime::protocol::{Bytes64, Reply, Request};
use sandbox::layers::LayerStore;
use sandbox::{FileKind, FileStat};
use serde_json::json;
use std::io::Read as _;
use std::process::Command as Process;
use types::manifest::Serves;
use types::{LayerId, MemoryOf};

/// `memory`.
pub(crate) fn perform(session: &Session, command: MemoryCommand) -> Result<u8> {
    match command {
        MemoryCommand::Ls => list(session),
        MemoryCommand::Show { whose, path, version } => {
            show(session, &of(whose), path.as_deref(), version)
        }
        MemoryCommand::Log { whose } => log(session, &of(whose)),
        MemoryCommand::Diff { run, text } => diff(session, &run, text),
        MemoryCommand::Put { whose, path } => {
            let bytes = read_bytes(&path, std::io::stdin())?;
            change(session, of(whose), MemoryChange::Write { path, bytes: Bytes64(bytes) })
        }
        MemoryCommand::Edit { whose, path } => edit(session, of(whose), path),
        MemoryCommand::Rm { whose, path } => {
            change(session, of(whose), MemoryChange::Remove { path })
        }
        MemoryCommand::Revert { whose, version } => {
            change(session, of(whose), MemoryChange::Revert { version })
        }
        MemoryCommand::Forget { whose, yes } => forget(session, of(whose), yes),
        MemoryCommand::Merge { run, take } => {
            let (run, _) = session.run(&run)?;
            let said = format!("merged: the memory of {run}");
            let request = Request::MergeMemory { run, take: take.map(Into::into), by: login() };
            super::run::simple(session, &request, &said)
        }
    }
}

/// The memory that an agent's name and the options mean.
fn of(whose: Whose) -> MemoryOf {
    let (serves, name) = match whose.team {
        Some(team) => (Serves::Team, team),
        None => (Serves::User, whose.user.unwrap_or_else(login)),
    };
    MemoryOf { agent: whose.agent, serves, name }
}

fn memories(session: &Session) -> Memories {
    Memories::new(session.home.path())
}

fn layers(session: &Session) -> Result<LayerStore> {
    LayerStore::open(session.home.path()).map_err(|error| part(&error))
}

/// The version that is meant: the newest, unless one is named.
fn version_of(session: &Session, of: &MemoryOf, number: Option<u64>) -> Result<Version> {
    let memories = memories(session);
    if let Some(number) = number {
        return Ok(memories.version(of, number)?);
    }
    let newest = memories.newest(of)?;
    Ok(newest.ok_or_else(|| runtime::RuntimeError::NoMemory { what: of.to_string() })?)
}

fn document(of: &MemoryOf, version: &Version) -> serde_json::Value {
    json!({
        "agent": of.agent,
        "serves": of.serves,
        "name": of.name,
        "version": version.number,
        "entries": version.entries,
        "bytes": version.bytes,
        "changed": version.changed,
        "labels": version.labels,
        "time": render::rfc3339(version.time_ms),
        "origin": version.origin,
    })
}

fn list(session: &Session) -> Result<u8> {
    let list = memories(session).list()?;
    if session.json || session.jsonl {
        let all: Vec<_> = list.iter().map(|(of, version)| document(of, version)).collect();
        Terminal::answer_json(&json!({ "memories": all }));
        return Ok(exit::DONE);
    }
    if list.is_empty() {
        session.terminal.progress("no memories yet: [memory] in a manifest gives its agent one");
    }
    for (of, version) in &list {
        Terminal::answer(&line(&safe(&of.to_string()), version));
    }
    Ok(exit::DONE)
}

fn line(whose: &str, version: &Version) -> String {
    let by = match &version.origin {
        Origin::Run { run, .. } => format!("run {run}"),
        Origin::Person { name } => safe(name),
    };
    let labels: Vec<String> = version.labels.iter().map(safe).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("  {}", labels.join(", ")) };
    let (number, time) = (version.number, render::moment(version.time_ms));
    let (entries, bytes) = (version.entries, render::bytes(version.bytes));
    format!("{whose}  version {number}  {entries} entries  {bytes}  {time} by {by}{labels}")
}

fn log(session: &Session, of: &MemoryOf) -> Result<u8> {
    let versions = memories(session).versions(of)?;
    if versions.is_empty() {
        version_of(session, of, None)?;
    }
    if session.json || session.jsonl {
        let all: Vec<_> = versions.iter().map(|version| document(of, version)).collect();
        Terminal::answer_json(&json!({ "versions": all }));
        return Ok(exit::DONE);
    }
    versions.iter().for_each(|version| Terminal::answer(&line(&safe(&of.to_string()), version)));
    Ok(exit::DONE)
}

/// The files of a memory, or one of them as it is.
fn show(session: &Session, of: &MemoryOf, path: Option<&str>, version: Option<u64>) -> Result<u8> {
    let version = version_of(session, of, version)?;
    let layers = layers(session)?;
    if let Some(path) = path {
        Terminal::answer_bytes(&content(&layers, &version.layer, path)?);
        return Ok(exit::DONE);
    }
    let files = layers.list_files(&version.layer).map_err(|error| part(&error))?;
    let files: Vec<&FileStat> = files.iter().filter(|file| file.kind != FileKind::Dir).collect();
    if session.json || session.jsonl {
        let list: Vec<_> =
            files.iter().map(|file| json!({ "path": file.path, "bytes": file.size })).collect();
        let mut answer = document(of, &version);
        answer["files"] = json!(list);
        Terminal::answer_json(&answer);
        return Ok(exit::DONE);
    }
    for file in files {
        Terminal::answer(&format!("{:>10}  {}", render::bytes(file.size), safe(&file.path)));
    }
    Ok(exit::DONE)
}

fn content(layers: &LayerStore, layer: &LayerId, path: &str) -> Result<Vec<u8>> {
    let file = layers.open_file(layer, path).map_err(|error| part(&error))?;
    read_bytes(path, file)
}

fn read_bytes(path: &str, from: impl std::io::Read) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| CliError::Io {
        what: format!("cannot read what is to be {path}"),
        reason: error.to_string(),
    })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let what = format!("a file of over {FILE_BYTES_MAX} bytes");
        return Err(runtime::RuntimeError::MemoryTooLarge { what }.into());
    }
    Ok(bytes)
}

fn change(session: &Session, of: MemoryOf, change: MemoryChange) -> Result<u8> {
    let request = Request::ChangeMemory { of, change, by: login() };
    let lines = match block_on(session.ask(&request))? {
        Reply::Lines { lines } => lines,
        _ => Vec::new(),
    };
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "memory": lines }));
    } else {
        lines.iter().for_each(|line| session.terminal.progress(&safe(line)));
    }
    Ok(exit::DONE)
}

/// Opens a file of a memory in the person's editor, and keeps what they made of it.
fn edit(session: &Session, of: MemoryOf, path: String) -> Result<u8> {
    let fail = |error: std::io::Error| CliError::Io {
        what: "cannot edit".to_owned(),
        reason: error.to_string(),
    };
    let newest = memories(session).newest(&of)?;
    let layers = layers(session)?;
    let there = newest.as_ref().map(|version| layers.entry(&version.layer, &path)).transpose();
    let before = match there.map_err(|error| part(&error))?.flatten() {
        Some(_) => content(&layers, &newest.expect("it has an entry").layer, &path)?,
        None => Vec::new(),
    };
    let dir = tempfile::tempdir().map_err(fail)?;
    // Its ending tells the editor what it is.
    let name = std::path::Path::new(&path).file_name().unwrap_or_default();
    let file = dir.path().join(name);
    std::fs::write(&file, &before).map_err(fail)?;
    let editor = ["VISUAL", "EDITOR"].iter().find_map(|name| std::env::var(name).ok());
    let editor = editor.unwrap_or_else(|| "vi".to_owned());
    let script = format!("{editor} \"$1\"");
    let edited = Process::new("/bin/sh").args(["-c", &script, "sh"]).arg(&file).status();
    if !edited.map_err(fail)?.success() {
        let reason = format!("{editor} ended with a failure: nothing was changed");
        return Err(CliError::Io { what: "cannot edit".to_owned(), reason }.into());
    }
    let after = read_bytes(&path, std::fs::File::open(&file).map_err(fail)?)?;
    if after == before {
        session.terminal.progress("nothing changed");
        return Ok(exit::DONE);
    }
    change(session, of, MemoryChange::Write { path, bytes: Bytes64(after) })
}

fn forget(session: &Session, of: MemoryOf, yes: bool) -> Result<u8> {
    version_of(session, &of, None)?;
    let question = format!("forget the memory of {of}, with all its versions? [y/n]");
    let again = session.command(&format!("memory forget {}", of.agent));
    if !super::files::agreed(session, yes, &question, again)? {
        Terminal::say("nothing was changed");
        return Ok(exit::FAILED);
    }
    change(session, of, MemoryChange::Forget)
}

/// What a run changed in its memory that others do not see.
fn diff(session: &Session, run: &str, text: bool) -> Result<u8> {
    let (run, records) = session.run(run)?;
    let state = kernel::State::of(&records);
    let memory = state
        .memory
        .ok_or_else(|| runtime::RuntimeError::NoMemory { what: format!("run {run} has none") })?;
    let layers = layers(session)?;
    let changes = layers.changes(&memory.base, &memory.layer).map_err(|error| part(&error))?;
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({
            "run": run,
            "version": memory.version,
            "changes": changes.iter().map(typed).collect::<Vec<_>>(),
        }));
        return Ok(exit::DONE);
    }
    if changes.is_empty() {
        session.terminal.progress("nothing that others do not see");
    }
    if text {
        let (base, top) = (memory.base, memory.layer);
        let pending = Pending { target: Default::default(), base, top, changes };
        print_texts(session, &layers, &pending)?;
    } else {
        changes.iter().for_each(|change| Terminal::answer(&plain(change)));
    }
    Ok(exit::DONE)
}
