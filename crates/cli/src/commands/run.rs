//! `run`, `resume`, `watch`, `send`: commands that follow a run.

use super::follow::{self, Follower};
use super::typing;
use crate::arguments::{Follow, RunArguments, What};
use crate::error::{CliError, Failed, Result, exit};
use crate::guest_program;
use crate::model_choice;
use crate::session::{
    Session, block_on, existing_dir, keys_for, keys_of, login, next_reply, read_stdin,
};
use kernel::State;
use runtime::client::Client;
use runtime::config;
use runtime::protocol::{NewRun, Reply, Request};
use std::path::{Path, PathBuf};
use store::Read;
use types::manifest::{Manifest, Permissions, Preset};
use types::{BRANCH_MAIN, Record, RunId};

/// Largest input from standard input, in bytes: the owner's limit.
const INPUT_BYTES_MAX: u64 = 1 << 20;
/// What an agent made on the spot is told.
const TASK_INSTRUCTIONS: &str = "\
You do one task for a person, in the directory that is your workspace. Look before you change, make \
the smallest change that does it, check the result by running it, and leave nothing else behind. \
What you change here is a copy: the person decides later what of it to keep. When something is \
denied, say so instead of working around it. End with a few sentences: what you did, how you \
checked it, and what you could not do.";

/// What `run` was asked to run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Directory(PathBuf),
    Task(String),
}

/// A directory, or a task. A sentence is a task; a single word or something that looks like a path
/// and is no directory is a directory that is missing.
fn target(text: Option<&str>, here: &Path) -> Result<Target> {
    let Some(text) = text else {
        return Ok(Target::Directory(here.to_owned()));
    };
    let named = Some(text).filter(|text| !text.is_empty());
    if let Some(dir) = named.and_then(|text| existing_dir(&here.join(text))) {
        return Ok(Target::Directory(dir));
    }
    let sentence = text.split_whitespace().nth(1).is_some();
    let path = ["/", "./", "../"].iter().any(|begin| text.starts_with(begin));
    if sentence && !path {
        return Ok(Target::Task(text.to_owned()));
    }
    Err(CliError::NoDirectory { target: text.to_owned() }.into())
}

/// The run that this asks for, not yet begun.
pub(super) fn prepared(session: &Session, what: &What) -> Result<NewRun> {
    let here = std::env::current_dir().map_err(|error| CliError::Io {
        what: "cannot find the current directory".to_owned(),
        reason: error.to_string(),
    })?;
    let mut new = match target(what.target.as_deref(), &here)? {
        Target::Directory(dir) => of_directory(&dir, &here, what),
        Target::Task(task) => of_task(task, &here, what, session),
    }?;
    let network = &mut new.manifest.network;
    if let Some(recorded) = &what.replay_network {
        (network.record, network.replay) = (false, Some(session.reader()?.find(recorded)?));
    } else if what.record_network {
        (network.record, network.replay) = (true, None);
    }
    Ok(new)
}

/// `run`.
pub(crate) fn run(session: &Session, arguments: &RunArguments) -> Result<u8> {
    let new = prepared(session, &arguments.what)?;
    let (keys, guest) = (keys_for(&new.manifest), new.manifest.is_guest());
    let screen = if guest { typing::screen(session) } else { None };
    let detach = arguments.follow.detach;
    let request = Request::Start { new: Box::new(new), keys, detach, screen };
    block_on(start(session, &request, Vec::new(), (arguments.follow, guest)))
}

/// A run of a guest on this terminal, for `wrap`.
pub(super) fn start_guest(session: &Session, new: NewRun) -> Result<u8> {
    let keys = keys_for(&new.manifest);
    let screen = typing::screen(session);
    let request = Request::Start { new: Box::new(new), keys, detach: false, screen };
    block_on(async {
        let mut owner = session.owner().await?;
        owner.send(&request).await?;
        let run = accepted(&mut owner).await?;
        Follower::new(session, owner, run, Vec::new())?.with_typing().follow_guest().await
    })
}

fn input(arguments: &What) -> Result<String> {
    match arguments.input.as_deref() {
        Some("-") => read_stdin("the input", INPUT_BYTES_MAX),
        Some(text) => Ok(text.to_owned()),
        None => Ok(String::new()),
    }
}

pub(super) fn of_directory(dir: &Path, here: &Path, arguments: &What) -> Result<NewRun> {
    let project = config::load(dir, arguments.env.as_deref())?;
    let workspace = config::workspace(&project)?;
    let mut manifest = project.manifest;
    guest_program::place(&mut manifest, workspace.as_deref(), &project.dir);
    if let Some(typed) = &arguments.model {
        model_choice::override_route(&mut manifest, typed, here)?;
    }
    check(&manifest, &project.dir, project.cedar.as_deref())?;
    Ok(NewRun {
        manifest: Box::new(manifest),
        dir: Some(project.dir.to_string_lossy().into_owned()),
        workspace: workspace.map(|path| path.to_string_lossy().into_owned()),
        input: input(arguments)?,
        by: login(),
    })
}

/// What can be refused before a home is made or an owner started.
pub(super) fn check(manifest: &Manifest, dir: &Path, cedar: Option<&str>) -> Result<()> {
    // A guest may work without any model.
    if !manifest.is_guest() || !manifest.routes.is_empty() {
        model_choice::check_route(manifest)?;
    }
    model_choice::check_scripts(manifest, dir)?;
    runtime::policy_sources::compile(manifest, cedar, &[])?;
    Ok(())
}

pub(super) fn of_task(
    task: String,
    here: &Path,
    arguments: &What,
    session: &Session,
) -> Result<NewRun> {
    let mut manifest = task_manifest();
    let typed = arguments.model.as_deref();
    let models = model_choice::for_task(typed, here, session.home.path())?;
    models.into_manifest(&mut manifest);
    check(&manifest, here, None)?;
    let more = input(arguments)?;
    let input = if more.is_empty() { task } else { format!("{task}\n\n{more}") };
    Ok(NewRun {
        manifest: Box::new(manifest),
        dir: None,
        workspace: Some(here.to_string_lossy().into_owned()),
        input,
        by: login(),
    })
}

/// The agent made on the spot, without its models.
fn task_manifest() -> Manifest {
    let mut manifest = model_choice::empty_manifest();
    manifest.agent.instructions = TASK_INSTRUCTIONS.to_owned();
    manifest.permissions =
        Some(Permissions { preset: Some(Preset::Draft), ..Permissions::default() });
    manifest
}

/// Sends the request that starts or resumes, and follows what comes.
async fn start(
    session: &Session,
    request: &Request,
    records: Vec<Record>,
    (follow, guest): (Follow, bool),
) -> Result<u8> {
    let mut owner = session.owner().await?;
    owner.send(request).await?;
    let run = accepted(&mut owner).await?;
    if follow.detach {
        return Ok(follow::detached(session, &run));
    }
    let follower = Follower::new(session, owner, run, records)?;
    if guest { follower.with_typing().follow().await } else { follower.follow().await }
}

pub(super) async fn accepted(owner: &mut Client) -> Result<RunId> {
    match next_reply(owner).await? {
        Reply::Accepted { run: Some(run) } => Ok(run),
        other => Err(out_of_turn(&other)),
    }
}

/// A reply that is none to what was asked.
pub(super) fn out_of_turn(reply: &Reply) -> Failed {
    let reason = format!("it answered out of turn: {reply:?}");
    runtime::RuntimeError::Frame { reason }.into()
}

/// `resume`: goes on, or says how it ended.
pub(crate) fn resume(session: &Session, run: &str, follow: Follow) -> Result<u8> {
    let (run, records) = session.run(run)?;
    let state = State::of(&records);
    if state.ended.is_some() && !state.may_start_again() {
        return follow::report(session, &run, &records, &state);
    }
    let (keys, guest) = (keys_of(&records), state.is_guest());
    let screen = if guest { typing::screen(session) } else { None };
    let request = Request::Resume { run, keys, detach: follow.detach, screen };
    block_on(start(session, &request, records, (follow, guest)))
}

/// `watch`.
pub(crate) fn watch(session: &Session, run: &str) -> Result<u8> {
    let run = session.find(run)?;
    // In this order: a run that does not live now has all its records in the log.
    let live = session.live().contains(&run);
    let (run, records) = session.run(run.as_str())?;
    let state = State::of(&records);
    if !live {
        return follow::report(session, &run, &records, &state);
    }
    let request = Request::Watch { run, from: state.next_seq };
    // Who only watches types nothing.
    block_on(start(session, &request, records, (Follow { detach: false }, false)))
}

/// Makes a request of a run and waits until the run has come to rest.
pub(super) async fn come_to_rest(session: &Session, run: &RunId, request: &Request) -> Result<()> {
    let mut owner = session.owner().await?;
    owner.send(request).await?;
    accepted(&mut owner).await?;
    let from = session.reader()?.head(run, BRANCH_MAIN)?.next_seq;
    owner.send(&Request::Watch { run: run.clone(), from }).await?;
    while !matches!(next_reply(&mut owner).await?, Reply::AtRest) {}
    Ok(())
}

/// `suspend`, `cancel`: a request, then waiting until the run has come to rest.
pub(crate) fn until_rest(
    session: &Session,
    run: &RunId,
    request: Request,
    said: &str,
) -> Result<u8> {
    block_on(come_to_rest(session, run, &request))?;
    say_done(session, &format!("{said}: {run}"));
    Ok(exit::DONE)
}

fn say_done(session: &Session, said: &str) {
    if session.json {
        crate::terminal::Terminal::answer_json(&serde_json::json!({ "done": said }));
    } else {
        session.terminal.progress(said);
    }
}

/// `send`.
pub(crate) fn send(session: &Session, run: &str, text: &str, follow: Follow) -> Result<u8> {
    let (run, records) = session.run(run)?;
    let text = if text == "-" { read_stdin("the text", INPUT_BYTES_MAX)? } else { text.to_owned() };
    if text.trim().is_empty() {
        let message = "there is nothing to send: the text is empty".to_owned();
        return Err(CliError::Usage { message, help: "send".to_owned() }.into());
    }
    let keys = keys_of(&records);
    block_on(async {
        let mut owner = session.owner().await?;
        owner.send(&Request::Send { run: run.clone(), text, keys }).await?;
        accepted(&mut owner).await?;
        if follow.detach {
            return Ok(follow::detached(session, &run));
        }
        let from = State::of(&records).next_seq;
        owner.send(&Request::Watch { run: run.clone(), from }).await?;
        accepted(&mut owner).await?;
        Follower::new(session, owner, run, records)?.follow().await
    })
}

/// `signal`, `rm`, `approve` and the like: one request, one line.
pub(crate) fn simple(session: &Session, request: &Request, said: &str) -> Result<u8> {
    block_on(session.ask(request))?;
    say_done(session, said);
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_or_a_task() {
        let here = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(here.path().join("agent")).expect("made");
        std::fs::create_dir(here.path().join("my agent")).expect("made");
        let check = |text: Option<&str>, expected: std::result::Result<&str, &str>| {
            let got =
                target(text, here.path()).map_err(|failed| failed.failure.code).map(|t| match t {
                    Target::Directory(dir) => {
                        format!("dir:{}", dir.file_name().unwrap_or_default().to_string_lossy())
                    }
                    Target::Task(task) => format!("task:{task}"),
                });
            assert_eq!(got.as_deref().map_err(String::as_str), expected, "{text:?}");
        };
        let own = format!("dir:{}", here.path().file_name().expect("named").to_string_lossy());
        check(None, Ok(&own));
        check(Some("agent"), Ok("dir:agent"));
        check(Some("./agent"), Ok("dir:agent"));
        check(Some("my agent"), Ok("dir:my agent"));
        check(Some("count the lines"), Ok("task:count the lines"));
        check(Some("fix and/or rename it"), Ok("task:fix and/or rename it"));
        check(Some("missing"), Err("BP-CLI-002"));
        check(Some("./missing"), Err("BP-CLI-002"));
        check(Some("a/b"), Err("BP-CLI-002"));
        check(Some("/no such dir"), Err("BP-CLI-002"));
        check(Some(""), Err("BP-CLI-002"));
    }

    #[test]
    fn a_task_drafts_and_changes_nothing() {
        let manifest = task_manifest();
        assert_eq!(manifest.agent.name, "task");
        assert_eq!(manifest.permissions.expect("set").preset, Some(Preset::Draft));
    }
}
