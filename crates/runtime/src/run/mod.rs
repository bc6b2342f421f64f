//! One run's task: the only writer of its log.
//!
//! ```text
//! loaded -> (posts) -> active --next(state)--> perform, append, fold --> ... --> at rest -> gone
//! ```
//!
//! The kernel says what comes next; this task does it. What always holds: nothing is performed
//! before the record that announces it is durable, and nothing is told before it is recorded. A
//! post (a command's request) is answered once what it changed is recorded.

mod act;
mod approve;
mod caller;
mod control;
mod create;
mod effect;
mod effect_kinds;
mod exchanges;
mod finish;
mod gatekeeper;
mod guest;
mod memory;
mod model;
pub(crate) mod network;
mod passage;
mod privacy;
mod recover;
mod rollback;
pub(crate) mod secrets;
mod unserved;
mod world;

pub(crate) use control::{Answer, Control, Post};
pub(crate) use create::{create, open, random_id};

use self::privacy::Pseudonymity;
use crate::error::RuntimeError;
use crate::parts::Parts;
use crate::protocol::Keys;
use crate::recent::Recent;
use gatekeeper::Gatekeeper;
use kernel::{Command, State};
use std::sync::Arc;
use store::{Append, Durability, NewRecord, Read, Store};
use tokio::sync::{mpsc, watch};
use types::{Actor, BRANCH_MAIN, Body, Cause, EndStatus, Failure, Link, Record, RunId, WaitReason};
use vault::Held;
use world::World;

/// A record to be, with what only the task knows.
#[derive(Debug)]
pub(crate) struct Draft {
    body: Body,
    causes: Vec<Cause>,
    attachments: Vec<(String, Vec<u8>)>,
}

impl Draft {
    fn new(body: Body) -> Self {
        Self { body, causes: Vec::new(), attachments: Vec::new() }
    }

    fn because(mut self, link: Link, seq: Option<u64>) -> Self {
        self.causes.extend(seq.map(|seq| Cause { link, seq }));
        self
    }

    fn with(mut self, name: &str, bytes: Vec<u8>) -> Self {
        self.attachments.push((name.to_owned(), bytes));
        self
    }
}

/// A run's task.
pub(crate) struct RunTask {
    parts: Arc<Parts>,
    run: RunId,
    epoch: u64,
    state: State,
    actor: Actor,
    keys: Keys,
    /// Secrets of the vault that were used, opened.
    held: Held,
    tokens: secrets::Tokens,
    gatekeeper: Gatekeeper,
    pseudonymity: Pseudonymity,
    world: World,
    inbox: mpsc::Receiver<Post>,
    head: watch::Sender<u64>,
    /// For who watches.
    recent: Arc<Recent>,
    /// Whether the run shall go on.
    active: bool,
    /// A person asked to set it aside.
    suspend: bool,
    /// The action whose effect is awaited.
    acting: Option<types::ActionId>,
    /// Calls of the guest that are going.
    calls: guest::Calls,
}

/// Attends to a run until nothing is left to do for it. `leave` takes the run off the list, unless
/// a post came in the meantime.
pub(crate) async fn attend(
    parts: Arc<Parts>,
    run: RunId,
    mut inbox: mpsc::Receiver<Post>,
    (head, recent): (watch::Sender<u64>, Arc<Recent>),
    leave: impl Fn(&mut mpsc::Receiver<Post>) -> bool,
) {
    let loaded = RunTask::load(parts, run).await;
    let Loaded { state, epoch, parts, run, actor, gatekeeper, pseudonymity, world } = match loaded {
        Ok(loaded) => loaded,
        Err(error) => return refuse_all(&mut inbox, error.into_failure(), leave),
    };
    let held = secrets::held(parts.home.path(), &Keys::default());
    let mut task = RunTask {
        parts,
        run,
        epoch,
        state,
        actor,
        keys: Keys::default(),
        held,
        tokens: secrets::Tokens::default(),
        gatekeeper,
        pseudonymity,
        world,
        inbox,
        head,
        recent,
        active: false,
        suspend: false,
        acting: None,
        calls: guest::Calls::default(),
    };
    loop {
        while let Ok(post) = task.inbox.try_recv() {
            task.take(post).await;
        }
        if task.active {
            task.step_or_set_aside().await;
            continue;
        }
        // The sandbox goes before the run leaves the list, so that at rest means nothing is left.
        task.world.close(&task.parts).await;
        if leave(&mut task.inbox) {
            return;
        }
    }
}

fn refuse_all(
    inbox: &mut mpsc::Receiver<Post>,
    failure: Failure,
    leave: impl Fn(&mut mpsc::Receiver<Post>) -> bool,
) {
    loop {
        while let Ok(post) = inbox.try_recv() {
            let _ = post.done.send(Err(RuntimeError::Part(failure.clone())));
        }
        if leave(inbox) {
            return;
        }
    }
}

/// A run that was taken over.
struct Loaded {
    state: State,
    epoch: u64,
    parts: Arc<Parts>,
    run: RunId,
    actor: Actor,
    gatekeeper: Gatekeeper,
    pseudonymity: Pseudonymity,
    world: World,
}

impl RunTask {
    /// Takes the run over: earlier owners are fenced from here on.
    async fn load(parts: Arc<Parts>, run: RunId) -> Result<Loaded, RuntimeError> {
        let epoch = parts.store.claim(&run).await.map_err(|error| RuntimeError::part(&error))?;
        let records = parts.store.records(&run, BRANCH_MAIN, 0);
        let records = records.map_err(|error| RuntimeError::part(&error))?;
        let first = records.first().ok_or_else(|| RuntimeError::RunState {
            run: run.to_string(),
            reason: "its log is empty".to_owned(),
        })?;
        // A fork acts for whoever forked it.
        let forked = records.iter().rev().find(|r| matches!(r.body, Body::Forked { .. }));
        let actor = forked.unwrap_or(first).actor.clone();
        let Body::RunStarted { dir, .. } = &first.body else {
            let reason = "its log does not begin with its start".to_owned();
            return Err(RuntimeError::RunState { run: run.to_string(), reason });
        };
        let state = State::of(&records);
        let gatekeeper = Gatekeeper::new(dir.as_deref(), &state, &actor)?;
        let mut world = World::new(dir.as_deref());
        world.models = guest::models_of(&run, state.manifest());
        let pseudonymity = Pseudonymity::load(&parts, &run, &records)?;
        Ok(Loaded { state, epoch, parts, run, actor, gatekeeper, pseudonymity, world })
    }

    /// One step; what cannot be done here and now sets the run aside, with the reason.
    async fn step_or_set_aside(&mut self) {
        let Err(error) = self.step().await else {
            return;
        };
        let failure = error.into_failure();
        let body = Body::Suspended { reason: WaitReason::Host, failure: Some(failure) };
        // When the log itself fails, effects stop: there is nothing else to do.
        let _ = self.record(Durability::Synced, Draft::new(body)).await;
        self.active = false;
    }

    async fn step(&mut self) -> Result<(), RuntimeError> {
        if self.suspend {
            return self.set_aside(WaitReason::Person, None).await;
        }
        let now = self.parts.clock.now_ms().max(self.state.last_ms);
        match kernel::next(&self.state, now) {
            Command::Propose { call_id } => self.propose(&call_id).await,
            Command::Decide { action, approved } => self.decide(action, approved).await,
            Command::Ask { action } => self.ask(action).await,
            Command::Expire { asked } => self.expire(asked).await,
            Command::Start { action, attempt } => self.start(action, attempt).await,
            Command::RollBack { action } => self.roll_back(action).await,
            Command::Probe { action } => self.probe(action).await,
            Command::FinishWait { action, signal } => self.finish_wait(action, signal).await,
            Command::Backoff { action, pause_ms } => self.back_off(action, pause_ms).await,
            Command::SleepUntil { due_ms, timer } => self.sleep_until(due_ms, timer).await,
            // Boxed: it is the largest of the futures, and is awaited least often.
            Command::CallModel { hop, attempt } => Box::pin(self.call_model(hop, attempt)).await,
            Command::ChangeRoute { hop, failure } => self.change_route(hop, failure).await,
            Command::Check { index } => self.final_check(index).await,
            Command::MergeMemory => self.merge_memory(None, String::new()).await.map(drop),
            Command::KeepArtifacts => self.keep_artifacts().await,
            Command::End { status, error } => self.end(status, error).await,
            Command::Suspend { reason, failure } => self.set_aside(reason, failure).await,
            Command::AwaitCaller => self.await_caller().await,
            Command::AwaitPerson | Command::Ended => {
                self.active = false;
                Ok(())
            }
            // Effects are awaited where they are started; finding one in flight here means that
            // it was abandoned, which only a new epoch can sort out.
            Command::AwaitEffect => self.take_up().await,
        }
    }

    /// Appends records and folds them.
    async fn append(
        &mut self,
        durability: Durability,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Arc<Record>>, RuntimeError> {
        let moment = self.parts.clock.moment(self.state.last_ms);
        let stamp = |draft: Draft| NewRecord {
            time_ms: moment.time_ms,
            mono_ms: moment.mono_ms,
            boot: moment.boot,
            causes: draft.causes,
            actor: self.actor.clone(),
            body: draft.body,
            attachments: draft.attachments,
        };
        let append = Append {
            run: self.run.clone(),
            branch: BRANCH_MAIN,
            next_seq: self.state.next_seq,
            epoch: self.epoch,
            records: drafts.into_iter().map(stamp).collect(),
            durability,
        };
        self.parts.failpoints.before_append();
        let written = self.parts.store.append(append).await;
        let written = written.map_err(|error| RuntimeError::part(&error))?;
        let written: Vec<Arc<Record>> = written.into_iter().map(Arc::new).collect();
        if written.iter().any(|record| record.body.goes_back_to().is_some()) {
            let all = self.parts.store.records(&self.run, BRANCH_MAIN, 0);
            self.state = State::of(&all.map_err(|error| RuntimeError::part(&error))?);
        } else {
            written.iter().for_each(|record| self.state.fold(record));
        }
        self.recent.push(&written);
        self.parts.failpoints.after_append();
        self.head.send_replace(self.state.next_seq);
        Ok(written)
    }

    async fn record(&mut self, durability: Durability, draft: Draft) -> Result<u64, RuntimeError> {
        let written = self.append(durability, vec![draft]).await?;
        Ok(written[0].stamp.seq)
    }

    async fn set_aside(
        &mut self,
        reason: WaitReason,
        failure: Option<Failure>,
    ) -> Result<(), RuntimeError> {
        self.active = false;
        self.suspend = false;
        let body = Body::Suspended { reason, failure };
        self.record(Durability::Synced, Draft::new(body)).await.map(|_| ())
    }

    /// Goes on, or begins: what was in flight under an earlier owner is interrupted from here on.
    async fn take_up(&mut self) -> Result<(), RuntimeError> {
        const RECORDS_AT_CREATION_MAX: u64 = 3;
        if self.state.ended.is_some() && !self.state.may_start_again() {
            self.active = false;
            return Ok(());
        }
        self.gatekeeper.reload(&self.state, &self.actor)?;
        self.active = true;
        let set_aside = self.state.suspended.is_some();
        let fresh = self.state.next_seq <= RECORDS_AT_CREATION_MAX && !set_aside;
        if fresh {
            return Ok(());
        }
        if self.epoch <= self.state.epoch {
            let claimed = self.parts.store.claim(&self.run).await;
            self.epoch = claimed.map_err(|error| RuntimeError::part(&error))?;
        }
        self.prove_nothing_alive().await?;
        let last = self.state.next_seq.checked_sub(1);
        let body = Body::Resumed { epoch: self.epoch };
        let draft = Draft::new(body).because(Link::ResumedFrom, last);
        self.record(Durability::Written, draft).await.map(|_| ())
    }

    async fn end(&mut self, status: EndStatus, error: Option<Failure>) -> Result<(), RuntimeError> {
        self.flush().await?;
        let failed_check = self.state.checks.iter().find(|check| !check.passed).map(|c| c.seq);
        let output = self.state.last_words();
        let answered = self.state.answered;
        let draft = Draft::new(Body::RunEnded { status, output, error })
            .because(Link::ResultOf, failed_check.or(answered));
        self.active = false;
        self.record(Durability::Synced, draft).await.map(|_| ())
    }
}
