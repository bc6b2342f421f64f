//! A run whose steps are taken from here, through its home's owner: a sandbox with policy, gate and
//! log, used command after command.

use super::fail;
use crate::error::Result;
use crate::model_choice::empty_manifest;
use crate::session::{next_reply, this_program};
use runtime::Home;
use runtime::client::Client;
use runtime::protocol::{Bytes64, Keys, NewRun, Reply, Request};
use std::time::Duration;
use types::manifest::{Manifest, Permissions};
use types::{Body, OutcomeStatus, RunId, Step};

/// The word of the one opening of each of these runs.
const OPENING: &str = "bench";
/// How long one command may take, and whatever an owner is asked.
const STEP_S_MAX: u64 = 600;

/// A run and its next step.
#[derive(Debug)]
pub(super) struct Stepped {
    home: Home,
    pub(super) run: RunId,
    at: u64,
}

/// A command that has printed something and may still run.
pub(super) struct Going {
    home: Home,
    owner: Client,
    run: RunId,
}

async fn connect(home: &Home) -> Result<Client> {
    Ok(Client::connect_or_start(home, &this_program()).await?)
}

/// One request and its one reply.
pub(super) async fn ask(home: &Home, request: &Request) -> Result<Reply> {
    let mut owner = connect(home).await?;
    owner.send(request).await?;
    heard(&mut owner).await
}

/// The owner's next word; one that says nothing for ever has failed.
async fn heard(owner: &mut Client) -> Result<Reply> {
    let limit = Duration::from_secs(STEP_S_MAX);
    match tokio::time::timeout(limit, next_reply(owner)).await {
        Ok(reply) => reply,
        Err(_) => Err(fail("the owner", format!("it said nothing for {STEP_S_MAX} s")).into()),
    }
}

fn manifest() -> Manifest {
    let permissions = Permissions { allow: vec!["shell".to_owned()], ..Permissions::default() };
    let mut manifest = Manifest { permissions: Some(permissions), ..empty_manifest() };
    manifest.budget.actions = kernel::STEPS_MAX;
    manifest
}

impl Stepped {
    /// A new run, which a caller names by this key.
    pub(super) async fn open(home: &Home, key: &str) -> Result<Self> {
        let new = NewRun {
            manifest: Box::new(manifest()),
            dir: None,
            workspace: None,
            input: String::new(),
            by: OPENING.to_owned(),
        };
        let (key, opening) = (key.to_owned(), OPENING.to_owned());
        match ask(home, &Request::Open { new: Box::new(new), key, opening }).await? {
            Reply::Accepted { run: Some(run) } => Ok(Self { home: home.clone(), run, at: 0 }),
            other => Err(fail("a run", format!("it was answered {other:?}")).into()),
        }
    }

    /// Asks for a command, and waits for nothing of it.
    pub(super) async fn ask(&mut self, command: &str) -> Result<Going> {
        let step = Step::Exec { command: command.to_owned(), timeout_s: Some(STEP_S_MAX) };
        let mut owner = connect(&self.home).await?;
        let (run, opening, at) = (self.run.clone(), OPENING.to_owned(), self.at);
        let (keys, watched, screen) = (Keys::default(), true, None);
        owner.send(&Request::Step { run, opening, at, step, keys, watched, screen }).await?;
        self.at += 1;
        Ok(Going { home: self.home.clone(), owner, run: self.run.clone() })
    }

    /// Has a command begin. Returns when its first output is here.
    pub(super) async fn begin(&mut self, command: &str) -> Result<Going> {
        let mut going = self.ask(command).await?;
        loop {
            match heard(&mut going.owner).await? {
                Reply::Printed { .. } => break,
                Reply::Record { record } if matches!(record.body, Body::ActionFinished { .. }) => {
                    return Err(fail("a command", "it ended and printed nothing").into());
                }
                Reply::AtRest => {
                    return Err(fail("a command", "the run did not go on with it").into());
                }
                _ => {}
            }
        }
        Ok(going)
    }

    /// A whole command.
    pub(super) async fn step(&mut self, command: &str) -> Result<()> {
        self.begin(command).await?.finish().await
    }

    /// Sets the run aside, and waits until nothing of its sandbox is left.
    pub(super) async fn set_aside(&self) -> Result<()> {
        self.to_rest(&Request::Suspend { run: self.run.clone() }).await
    }

    /// Takes it up again; it goes on with its next step.
    pub(super) async fn take_up(&self) -> Result<()> {
        let (run, keys, detach, screen) = (self.run.clone(), Keys::default(), true, None);
        ask(&self.home, &Request::Resume { run, keys, detach, screen }).await.map(drop)
    }

    /// Ends the run, whatever it does, and removes it.
    pub(super) async fn remove(self) -> Result<()> {
        let by = OPENING.to_owned();
        self.to_rest(&Request::Cancel { run: self.run.clone(), by }).await?;
        ask(&self.home, &Request::Remove { run: self.run }).await.map(drop)
    }

    async fn to_rest(&self, request: &Request) -> Result<()> {
        let mut owner = connect(&self.home).await?;
        owner.send(request).await?;
        heard(&mut owner).await?;
        owner.send(&Request::Watch { run: self.run.clone(), from: 0 }).await?;
        while !matches!(heard(&mut owner).await?, Reply::AtRest) {}
        Ok(())
    }
}

impl Going {
    /// Ends its standard input.
    pub(super) async fn end_input(&self) -> Result<()> {
        let (run, bytes) = (self.run.clone(), Bytes64::default());
        ask(&self.home, &Request::Input { run, bytes }).await.map(drop)
    }

    /// Waits until it has ended well; the next step may come then.
    pub(super) async fn finish(mut self) -> Result<()> {
        loop {
            match heard(&mut self.owner).await? {
                Reply::Record { record } => match record.body {
                    Body::ActionFinished { status: OutcomeStatus::Ok, .. } => return Ok(()),
                    Body::ActionFinished { status, .. } => {
                        return Err(fail("a command", format!("it ended as {status:?}")).into());
                    }
                    _ => {}
                },
                Reply::AtRest => return Err(fail("a command", "the run came to rest").into()),
                _ => {}
            }
        }
    }
}
