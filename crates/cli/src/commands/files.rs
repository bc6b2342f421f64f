//! `artifacts`, `diff`, `apply`, `logs`, `gc`: what a run leaves, and how it comes to you.

use super::worlds::{record_of, split};
use crate::error::{CliError, Failed, Result, exit};
use crate::outcome;
use crate::progress::call_of;
use crate::render;
use crate::session::{Session, block_on, login, quoted};
use crate::terminal::{Paint, Terminal, safe, safe_block};
use kernel::State;
use runtime::apply::{Pending, is_chosen, line, pending};
use runtime::protocol::{Reply, Request};
use sandbox::FileKind;
use sandbox::layers::{Change, ChangeKind, LayerStore};
use serde_json::json;
use similar::TextDiff;
use std::io::Read as _;
use std::path::Path;
use store::Read as _;
use types::{BRANCH_MAIN, Body, Coded, LayerId, Record, RunId};

/// Largest file whose text is compared, in bytes.
const DIFF_BYTES_MAX: u64 = 1 << 20;
/// Lines around a change.
const CONTEXT_LINES: usize = 3;

/// `artifacts`.
pub(crate) fn artifacts(session: &Session, run: &str, out: Option<&Path>) -> Result<u8> {
    let (run, records) = session.run(run)?;
    let state = State::of(&records);
    let kept = session.home.artifacts(&run);
    let mut list = outcome::artifacts(&state, &records, &kept);
    if let Some(out) = out {
        for artifact in &mut list {
            let path = artifact["path"].as_str().unwrap_or_default().to_owned();
            let to = out.join(&path);
            copy(&kept.join(&path), &to)?;
            artifact["file"] = json!(absolute(&to));
        }
    }
    if session.json || session.jsonl {
        Terminal::answer_json(&json!({ "run": run, "artifacts": list }));
        return Ok(exit::DONE);
    }
    if list.is_empty() {
        session.terminal.progress("this run has no results ([artifacts] paths names them)");
    }
    for artifact in &list {
        let bytes = render::bytes(artifact["bytes"].as_u64().unwrap_or(0));
        let sha256 = artifact["sha256"].as_str().unwrap_or_default();
        let file = safe(artifact["file"].as_str().unwrap_or_default());
        Terminal::answer(&format!("{:>10}  {:.12}  {file}", bytes, sha256));
    }
    Ok(exit::DONE)
}

fn absolute(path: &Path) -> String {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).to_string_lossy().into_owned()
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let fail = |error: std::io::Error| CliError::Io {
        what: format!("cannot copy {} to {}", from.display(), to.display()),
        reason: error.to_string(),
    };
    if let Some(parent) = to.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    std::fs::copy(from, to).map_err(fail)?;
    Ok(())
}

/// What a run changed, with the layers to read it from.
fn changes(session: &Session, run: &RunId) -> Result<(Pending, LayerStore)> {
    let layers = LayerStore::open(session.home.path())
        .map_err(|error| runtime::RuntimeError::part(&error))?;
    let pending = pending(&session.reader()?, &layers, run)?;
    Ok((pending, layers))
}

/// `diff`.
pub(crate) fn diff(session: &Session, run: &str) -> Result<u8> {
    let run = session.find(run)?;
    let (pending, layers) = changes(session, &run)?;
    if session.json || session.jsonl {
        let lines: Vec<String> = pending.changes.iter().map(line).collect();
        Terminal::answer_json(&json!({
            "run": run,
            "target": pending.target.to_string_lossy(),
            "changes": lines,
        }));
        return Ok(exit::DONE);
    }
    if pending.changes.is_empty() {
        session.terminal.progress("nothing changed");
    }
    for text in texts(session, &pending, &layers)? {
        Terminal::answer(text.trim_end_matches('\n'));
    }
    if !pending.changes.is_empty() {
        let apply = session.command(&format!("apply {run}"));
        session.terminal.progress(&format!("next: {apply}"));
    }
    Ok(exit::DONE)
}

/// Two moments, what differs between them, and the layers to read it from.
pub(crate) struct Compared {
    from: Moment,
    to: Moment,
    workspace: Pending,
    /// Of the agents' memories, when both have one.
    memory: Option<Pending>,
    layers: LayerStore,
}

/// Compares two moments; the second is the first one's run now, when it is not named.
pub(crate) fn compared(session: &Session, from: &str, to: Option<&str>) -> Result<Compared> {
    let (run, at) = split(from);
    let (run, records) = session.run(run)?;
    let from = moment(&run, &records, at)?;
    let to = match to.map(split) {
        None => moment(&run, &records, None)?,
        Some(("", at)) => moment(&run, &records, at)?,
        Some((other, at)) => {
            let (other, records) = session.run(other)?;
            moment(&other, &records, at)?
        }
    };
    let part = |error: sandbox::SandboxError| runtime::RuntimeError::part(&error);
    let layers = LayerStore::open(session.home.path()).map_err(part)?;
    let pending = |base: &LayerId, top: &LayerId| {
        let changes = layers.changes(base, top).map_err(part)?;
        let (base, top) = (base.clone(), top.clone());
        Ok::<_, Failed>(Pending { target: Default::default(), base, top, changes })
    };
    let workspace = pending(&from.layer, &to.layer)?;
    let memory = match (&from.memory, &to.memory) {
        (Some(from), Some(to)) => Some(pending(from, to)?),
        _ => None,
    };
    Ok(Compared { from, to, workspace, memory, layers })
}

impl Compared {
    /// Every change, told by its path which tree it is of, and where its text is.
    fn changes(&self) -> impl Iterator<Item = (Change, &Pending, &Change)> {
        let of_workspace = self.workspace.changes.iter();
        let of_workspace = of_workspace.map(|change| (change.clone(), &self.workspace, change));
        let of_memory = self.memory.iter().flat_map(|memory| {
            memory.changes.iter().map(move |change| (in_memory(change.clone()), memory, change))
        });
        of_workspace.chain(of_memory)
    }

    /// As programs read it; with the text that differs, if that is wanted.
    pub(crate) fn json(&self, text: bool) -> Result<serde_json::Value> {
        let moment = |of: &Moment| json!({ "run": of.run, "record": of.seq, "layer": of.layer });
        let mut changes = Vec::new();
        for (change, pending, within) in self.changes() {
            let mut told = typed(&change);
            if text {
                told["text"] = json!(text_of(&self.layers, pending, within)?);
            }
            changes.push(told);
        }
        Ok(json!({ "from": moment(&self.from), "to": moment(&self.to), "changes": changes }))
    }
}

/// `diff` of two moments.
pub(crate) fn diff_moments(
    session: &Session,
    from: &str,
    to: Option<&str>,
    text: bool,
) -> Result<u8> {
    let compared = compared(session, from, to)?;
    if session.json || session.jsonl {
        Terminal::answer_json(&compared.json(false)?);
        return Ok(exit::DONE);
    }
    if compared.changes().next().is_none() {
        session.terminal.progress("nothing differs");
    }
    if !text {
        compared.changes().for_each(|(change, ..)| Terminal::answer(&plain(&change)));
        return Ok(exit::DONE);
    }
    let Compared { workspace, memory, layers, .. } = compared;
    print_texts(session, &layers, &workspace)?;
    if let Some(memory) = memory.filter(|memory| !memory.changes.is_empty()) {
        Terminal::answer(&session.terminal.paint(Paint::Bold, sandbox::MEMORY));
        print_texts(session, &layers, &memory)?;
    }
    Ok(exit::DONE)
}

/// Prints changes between two trees, with the text that differs.
pub(crate) fn print_texts(session: &Session, layers: &LayerStore, pending: &Pending) -> Result<()> {
    for text in texts(session, pending, layers)? {
        Terminal::answer(text.trim_end_matches('\n'));
    }
    Ok(())
}

/// A moment of a run, and its files.
struct Moment {
    run: RunId,
    seq: u64,
    layer: LayerId,
    memory: Option<LayerId>,
}

/// A change of a memory, told from one of the workspace by its path.
fn in_memory(change: Change) -> Change {
    let within = |path: String| format!("{}/{path}", sandbox::MEMORY);
    let kind = match change.kind {
        ChangeKind::Renamed { from } => ChangeKind::Renamed { from: within(from) },
        kind => kind,
    };
    Change { kind, path: within(change.path), ..change }
}

fn moment(run: &RunId, records: &[Record], at: Option<&str>) -> Result<Moment> {
    let last = records.last().map_or(0, |record| record.stamp.seq);
    let seq = at.map_or(Ok(last), |at| record_of(run, records, at))?;
    let count = usize::try_from(seq).unwrap_or(usize::MAX).saturating_add(1);
    let state = State::of(records.iter().take(count));
    let layer = state.layer.expect("a run has a base layer");
    let memory = state.memory.map(|memory| memory.layer);
    Ok(Moment { run: run.clone(), seq, layer, memory })
}

/// A letter, a tab, the path; nothing of a path can break the line.
pub(crate) fn plain(change: &Change) -> String {
    match &change.kind {
        ChangeKind::Renamed { from } => {
            format!("R\t{} -> {}", safe(from), safe(&change.path))
        }
        kind => format!("{}\t{}", kind.letter(), safe(&change.path)),
    }
}

pub(crate) fn typed(change: &Change) -> serde_json::Value {
    let kind = match &change.kind {
        ChangeKind::Added => "added",
        ChangeKind::Modified => "changed",
        ChangeKind::Deleted => "removed",
        ChangeKind::Renamed { .. } => "renamed",
        ChangeKind::Mode => "mode",
    };
    let mut typed = json!({ "kind": kind, "path": change.path, "bytes": change.size });
    if let ChangeKind::Renamed { from } = &change.kind {
        typed["from"] = json!(from);
    }
    typed
}

/// Each change as people read it: its line, then the text that differs.
fn texts(session: &Session, pending: &Pending, layers: &LayerStore) -> Result<Vec<String>> {
    pending
        .changes
        .iter()
        .map(|change| {
            let head =
                session.terminal.paint(Paint::Bold, &safe(&line(change)).replace("\\t", " "));
            let body = text_of(layers, pending, change)?;
            Ok(format!("{head}\n{}", coloured(session, &body)))
        })
        .collect()
}

fn coloured(session: &Session, body: &str) -> String {
    let paint = |line: &str| match line.as_bytes().first() {
        Some(b'+') => session.terminal.paint(Paint::Green, line),
        Some(b'-') => session.terminal.paint(Paint::Red, line),
        Some(b'@') => session.terminal.paint(Paint::Dim, line),
        _ => line.to_owned(),
    };
    body.lines().map(paint).collect::<Vec<_>>().join("\n")
}

/// One side of a change, for comparison.
enum Side {
    Absent,
    Text(String),
    Other(String),
}

fn text_of(layers: &LayerStore, pending: &Pending, change: &Change) -> Result<String> {
    let before = match change.kind {
        ChangeKind::Added => Side::Absent,
        _ => side(layers, &pending.base, &change.path)?,
    };
    let after = match change.kind {
        ChangeKind::Deleted => Side::Absent,
        _ => side(layers, &pending.top, &change.path)?,
    };
    Ok(compare(before, after))
}

fn compare(before: Side, after: Side) -> String {
    match (before, after) {
        (Side::Other(what), Side::Absent) | (Side::Absent, Side::Other(what)) => {
            format!("({what})")
        }
        (Side::Other(a), Side::Other(b)) if a == b => format!("({a})"),
        (Side::Other(a), Side::Other(b)) => format!("({a} -> {b})"),
        (Side::Other(what), Side::Text(_)) | (Side::Text(_), Side::Other(what)) => {
            format!("(text and {what})")
        }
        (before, after) => {
            let text = |side| match side {
                Side::Text(text) => text,
                Side::Absent | Side::Other(_) => String::new(),
            };
            unified(&text(before), &text(after))
        }
    }
}

fn unified(before: &str, after: &str) -> String {
    let diff = TextDiff::from_lines(before, after);
    safe_block(&diff.unified_diff().context_radius(CONTEXT_LINES).to_string())
}

fn side(layers: &LayerStore, layer: &LayerId, path: &str) -> Result<Side> {
    let part = |error: sandbox::SandboxError| runtime::RuntimeError::part(&error);
    let Some((entry, link)) = layers.entry(layer, path).map_err(part)? else {
        return Ok(Side::Absent);
    };
    match entry.kind {
        FileKind::Dir => return Ok(Side::Other("directory".to_owned())),
        FileKind::Symlink => {
            let target = link.unwrap_or_default();
            return Ok(Side::Other(format!("link to {}", safe(&target.to_string_lossy()))));
        }
        FileKind::Other => return Ok(Side::Other("special file".to_owned())),
        FileKind::File => {}
    }
    if entry.size > DIFF_BYTES_MAX {
        return Ok(Side::Other(format!("file of {}", render::bytes(entry.size))));
    }
    let file = layers.open_file(layer, path).map_err(part)?;
    let mut bytes = Vec::new();
    file.take(DIFF_BYTES_MAX).read_to_end(&mut bytes).map_err(|error| CliError::Io {
        what: format!("cannot read {path}"),
        reason: error.to_string(),
    })?;
    let size = bytes.len() as u64;
    Ok(match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => Side::Text(text),
        _ => Side::Other(format!("binary, {}", render::bytes(size))),
    })
}

/// `apply`.
pub(crate) fn apply(session: &Session, run: &str, paths: Vec<String>, yes: bool) -> Result<u8> {
    let run = session.find(run)?;
    let (mut pending, layers) = changes(session, &run)?;
    let wanted: Vec<String> =
        paths.iter().map(|path| path.trim_start_matches("./").to_owned()).collect();
    let one = |path: &String, change: &Change| is_chosen(change, std::slice::from_ref(path));
    let unknown = wanted.iter().find(|path| !pending.changes.iter().any(|c| one(path, c)));
    if let Some(path) = unknown {
        let message = format!("the run changed no '{path}'");
        return Err(CliError::Usage { message, help: "apply".to_owned() }.into());
    }
    if !wanted.is_empty() {
        pending.changes.retain(|change| is_chosen(change, &wanted));
    }
    if pending.changes.is_empty() {
        return applied(session, &run, &pending, &[]);
    }
    for text in texts(session, &pending, &layers)? {
        Terminal::say(text.trim_end_matches('\n'));
    }
    let question = format!(
        "bring {} to {}? [y/n]",
        render::count(pending.changes.len() as u64, "change"),
        pending.target.display()
    );
    let paths: String = wanted.iter().map(|path| format!(" {}", quoted(path))).collect();
    let again = session.command(&format!("apply {run}{paths}"));
    if !agreed(session, yes, &question, again)? {
        Terminal::say("nothing was changed");
        return Ok(exit::FAILED);
    }
    let request = Request::Apply { run: run.clone(), paths: wanted, by: login() };
    match block_on(session.ask(&request))? {
        Reply::Lines { lines } => applied(session, &run, &pending, &lines),
        _ => applied(session, &run, &pending, &[]),
    }
}

fn applied(session: &Session, run: &RunId, pending: &Pending, lines: &[String]) -> Result<u8> {
    let target = pending.target.to_string_lossy();
    if session.json {
        Terminal::answer_json(&json!({ "run": run, "target": target, "applied": lines }));
    } else if lines.is_empty() {
        session.terminal.progress("nothing to apply");
    } else {
        let count = render::count(lines.len() as u64, "change");
        session.terminal.progress(&format!("applied {count} to {}", safe(&target)));
    }
    Ok(exit::DONE)
}

/// Whether a person agrees. Without a terminal, `--yes` must have been typed.
pub(crate) fn agreed(
    session: &Session,
    yes: bool,
    question: &str,
    command: String,
) -> Result<bool> {
    if yes {
        return Ok(true);
    }
    if !session.terminal.interactive {
        return Err(CliError::NeedsYes { command }.into());
    }
    let said = Terminal::ask(question).unwrap_or_default();
    Ok(matches!(said.as_str(), "y" | "yes"))
}

/// `logs`: the outputs of a run's actions and checks, whole.
pub(crate) fn logs(session: &Session, run: &str) -> Result<u8> {
    let (run, records) = session.run(run)?;
    let state = State::of(&records);
    let reader = session.reader()?;
    for record in &records {
        let (head, output) = match &record.body {
            Body::ActionFinished { action, output, .. } => (call_of(&state, *action), output),
            Body::CheckPassed { name, output } | Body::CheckFailed { name, output, .. } => {
                (format!("check {}", safe(name)), output)
            }
            _ => continue,
        };
        let seq = record.stamp.seq;
        let whole = match output.artifact {
            Some(_) => reader.attachment(&run, BRANCH_MAIN, seq, "output")?,
            None => None,
        };
        let text = whole.map_or_else(
            || output.text.clone(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        );
        if session.json || session.jsonl {
            Terminal::answer_json(&json!({ "seq": seq, "call": head, "output": text }));
            continue;
        }
        Terminal::answer(&session.terminal.paint(Paint::Bold, &format!("[{seq}] {head}")));
        Terminal::answer(safe_block(&text).trim_end_matches('\n'));
    }
    Ok(exit::DONE)
}

/// `gc`.
pub(crate) fn collect(session: &Session) -> Result<u8> {
    let lines = match block_on(session.ask(&Request::Collect))? {
        Reply::Lines { lines } => lines,
        _ => Vec::new(),
    };
    if session.json {
        Terminal::answer_json(&json!({ "collected": lines }));
    } else {
        lines.iter().for_each(|line| session.terminal.progress(&safe(line)));
    }
    Ok(exit::DONE)
}

/// A failure of a part as this command's.
pub(crate) fn part(error: &impl Coded) -> crate::error::Failed {
    crate::error::Failed::of(error.failure())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_as_text_or_in_a_word() {
        let text = |text: &str| Side::Text(text.to_owned());
        let other = |what: &str| Side::Other(what.to_owned());
        let check = |before, after, expected: &str| assert_eq!(compare(before, after), expected);
        check(text("a\nb\n"), text("a\nc\n"), "@@ -1,2 +1,2 @@\n a\n-b\n+c\n");
        check(Side::Absent, text("new\n"), "@@ -0,0 +1 @@\n+new\n");
        check(text("\x1b[2J\n"), Side::Absent, "@@ -1 +0,0 @@\n-\\x1b[2J\n");
        check(other("binary, 3 B"), other("binary, 4 B"), "(binary, 3 B -> binary, 4 B)");
        check(Side::Absent, other("directory"), "(directory)");
        check(other("link to x"), text("a"), "(text and link to x)");
    }
}
