//! Staying with a run: its records as lines, its questions as prompts, its end as a summary.
//!
//! ```text
//! streaming --at rest--> asked, and a person is here --answered--> streaming
//!     |                  asked, and nobody is here  --> exit 4
//!     |                  ended, set aside           --> summary
//!     +--Ctrl-C--> suspending --Ctrl-C--> cancelling
//! ```

use super::typing;
use crate::error::{CliError, Failed, Result, exit};
use crate::outcome;
use crate::progress;
use crate::render;
use crate::session::{Session, keys_of, login, next_reply};
use crate::terminal::{Paint, Raw, Terminal, safe, safe_block};
use kernel::{Action, Phase, State, Status};
use runtime::client::Client;
use runtime::protocol::{Reply, Request};
use std::collections::BTreeSet;
use std::pin::pin;
use store::Read;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use types::{ApprovalId, BRANCH_MAIN, Body, Record, RunId};

/// A run that is followed.
pub(crate) struct Follower<'a> {
    session: &'a Session,
    owner: Client,
    run: RunId,
    records: Vec<Record>,
    state: State,
    interrupts: Signal,
    interrupted: u32,
    /// The question about a request that the person is looking at.
    prompt: Option<Prompt>,
    /// Questions about requests that were put to the person.
    put: BTreeSet<u64>,
    /// Whether what is typed goes to a guest once it runs.
    types: bool,
    /// While a guest has this terminal.
    raw: Option<Raw>,
}

/// A question on the terminal, in a thread of its own: the line may never come.
struct Prompt {
    asked: u64,
    answer: oneshot::Receiver<Option<(bool, String)>>,
}

impl Prompt {
    fn put(terminal: Terminal, asked: u64, call: String, shown: String) -> Self {
        let (sender, answer) = oneshot::channel();
        std::thread::spawn(move || sender.send(prompt(&terminal, &call, &shown)));
        Self { asked, answer }
    }
}

/// What the person said to the open prompt, with the record that asked; never, when there is none.
async fn said(prompt: &mut Option<Prompt>) -> (u64, Option<(bool, String)>) {
    match prompt {
        Some(Prompt { asked, answer }) => (*asked, answer.await.ok().flatten()),
        None => std::future::pending().await,
    }
}

impl<'a> Follower<'a> {
    /// Follows a run from the records that are there already.
    pub(crate) fn new(
        session: &'a Session,
        owner: Client,
        run: RunId,
        records: Vec<Record>,
    ) -> Result<Self> {
        let state = State::of(&records);
        let interrupts = signal(SignalKind::interrupt()).map_err(|error| CliError::Io {
            what: "cannot listen for Ctrl-C".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self {
            session,
            owner,
            run,
            records,
            state,
            interrupts,
            interrupted: 0,
            prompt: None,
            put: BTreeSet::new(),
            types: false,
            raw: None,
        })
    }

    /// The same, with what is typed here going to the guest while it runs.
    pub(crate) fn with_typing(mut self) -> Self {
        self.types = true;
        self
    }

    /// A guest that begins has this terminal until it ends.
    fn hand_over(&mut self, body: &Body) {
        match body {
            Body::ActionStarted { .. } if std::mem::take(&mut self.types) => {
                self.raw = typing::screen(self.session).map(|_| Raw::of_input());
                typing::pass_on(self.session, &self.run);
            }
            Body::ActionFinished { .. } | Body::Suspended { .. } | Body::RunEnded { .. } => {
                self.raw = None;
            }
            _ => {}
        }
    }

    /// Streams until the run rests, answers questions, reports. Gives the exit status.
    pub(crate) async fn follow(mut self) -> Result<u8> {
        self.rest().await?;
        self.report()
    }

    /// The same with the exit status of the guest's program.
    pub(crate) async fn follow_guest(mut self) -> Result<u8> {
        self.rest().await?;
        self.report()?;
        Ok(outcome::exit_of_guest(&self.state, &self.records))
    }

    async fn rest(&mut self) -> Result<()> {
        loop {
            let rested = self.until_rest().await;
            self.raw = None;
            rested?;
            if !self.ask_person().await? {
                return Ok(());
            }
        }
    }

    async fn until_rest(&mut self) -> Result<()> {
        loop {
            match self.next().await? {
                Reply::Record { record } => self.take(*record)?,
                Reply::Printed { error, bytes } => self.print(error, &bytes.0),
                // What came before our stream began may not have been in it.
                Reply::AtRest => return self.catch_up(u64::MAX),
                _ => {}
            }
        }
    }

    /// The owner's next reply; Ctrl-C meanwhile is passed on. A reply that has begun to come is
    /// never given up.
    async fn next(&mut self) -> Result<Reply> {
        let mut reply = pin!(next_reply(&mut self.owner));
        loop {
            tokio::select! {
                reply = &mut reply => return reply,
                (asked, said) = said(&mut self.prompt) => {
                    self.prompt = None;
                    let id = ApprovalId { run: self.run.clone(), seq: asked };
                    answer(self.session, id, &self.records, said).await;
                    self.prompt = put_next(self.session, &self.records, &self.state, &mut self.put);
                }
                _ = self.interrupts.recv() => {
                    self.interrupted += 1;
                    interrupt(self.session, &self.run, self.interrupted).await?;
                }
            }
        }
    }

    /// What a guest printed, on the same stream; with JSON on standard output, beside it.
    fn print(&self, error: bool, bytes: &[u8]) {
        if error || self.session.json || self.session.jsonl {
            Terminal::error_bytes(bytes);
        } else {
            Terminal::answer_bytes(bytes);
        }
    }

    fn is_quiet_about(&self, record: &Record) -> bool {
        // A terminal in other hands is not written on.
        if self.raw.is_some() {
            return true;
        }
        self.state.next_seq > 0
            && self.state.is_guest()
            && !progress::interrupts_guest(&record.body)
    }

    fn take(&mut self, record: Record) -> Result<()> {
        if record.stamp.seq < self.state.next_seq {
            return Ok(());
        }
        if record.stamp.seq > self.state.next_seq {
            self.catch_up(record.stamp.seq)?;
        }
        self.show(record);
        Ok(())
    }

    /// Reads what was recorded between our reading the log and the stream's begin.
    fn catch_up(&mut self, to_seq: u64) -> Result<()> {
        let missing =
            self.session.reader()?.records(&self.run, BRANCH_MAIN, self.state.next_seq)?;
        missing.into_iter().take_while(|r| r.stamp.seq < to_seq).for_each(|r| self.show(r));
        Ok(())
    }

    fn show(&mut self, record: Record) {
        if self.session.jsonl {
            Terminal::answer_json(&serde_json::to_value(&record).unwrap_or_default());
        }
        let command = |text: &str| self.session.command(text);
        let lines = progress::lines(&self.state, &record, &command);
        let quiet = self.is_quiet_about(&record);
        for line in lines.into_iter().filter(|_| !quiet) {
            let terminal = &self.session.terminal;
            let text = format!("{} {}", terminal.paint(line.paint, &line.word), line.rest);
            terminal.progress(text.trim_end());
        }
        self.hand_over(&record.body);
        let back = record.body.goes_back_to().is_some();
        if !back {
            self.state.fold(&record);
        }
        self.records.push(record);
        if back {
            self.state = State::of(&self.records);
        }
        if self.prompt.is_none() {
            self.prompt = put_next(self.session, &self.records, &self.state, &mut self.put);
        }
    }

    /// Whether a person answered and the run goes on.
    async fn ask_person(&mut self) -> Result<bool> {
        if self.state.ended.is_some() || self.state.suspended.is_some() {
            return Ok(false);
        }
        // One question at a time: what a request waits for comes first.
        if self.prompt.is_some() {
            let (asked, said) = tokio::select! {
                said = said(&mut self.prompt) => said,
                _ = self.interrupts.recv() => return Ok(false),
            };
            self.prompt = None;
            let id = ApprovalId { run: self.run.clone(), seq: asked };
            answer(self.session, id, &self.records, said).await;
        }
        let Some((seq, call, shown)) = question_of(&self.state) else {
            return Ok(false);
        };
        let rests = self.state.ended.is_some() || self.state.suspended.is_some();
        if rests || !self.session.terminal.interactive {
            return Ok(false);
        }
        let shown = whole(&self.records, &self.state, seq, &shown);
        let put = Prompt::put(self.session.terminal, seq, call, shown);
        let answer = tokio::select! {
            answer = put.answer => answer.ok().flatten(),
            _ = self.interrupts.recv() => None,
        };
        let Some((approve, reason)) = answer else {
            return Ok(false);
        };
        let request = Request::Answer {
            id: ApprovalId { run: self.run.clone(), seq },
            approve,
            reason,
            for_run: false,
            speaks_for: None,
            resume: true,
            keys: keys_of(&self.records),
        };
        self.owner.send(&request).await?;
        next_reply(&mut self.owner).await?;
        let watch = Request::Watch { run: self.run.clone(), from: self.state.next_seq };
        self.owner.send(&watch).await?;
        Ok(true)
    }

    fn report(&self) -> Result<u8> {
        report(self.session, &self.run, &self.records, &self.state)
    }
}

/// The next question about a request that a person has not seen here.
fn put_next(
    session: &Session,
    records: &[Record],
    state: &State,
    put: &mut BTreeSet<u64>,
) -> Option<Prompt> {
    // What is typed while a guest runs is the guest's.
    if !session.terminal.interactive || state.is_guest() {
        return None;
    }
    let (asked, grant) = state.open_egress(0).find(|(asked, _)| !put.contains(asked))?;
    put.insert(asked);
    let call = render::request(&grant.request);
    let shown = whole(records, state, asked, &grant.shown);
    Some(Prompt::put(session.terminal, asked, call, shown))
}

/// Passes an answer on. That it comes too late is no reason to stop watching.
async fn answer(
    session: &Session,
    id: ApprovalId,
    records: &[Record],
    said: Option<(bool, String)>,
) {
    let Some((approve, reason)) = said else { return };
    let (for_run, speaks_for, resume) = (false, None, true);
    let keys = keys_of(records);
    let request = Request::Answer { id, approve, for_run, reason, speaks_for, resume, keys };
    if let Err(failed) = session.ask(&request).await {
        Terminal::say(&safe(&failed.failure.to_string()));
    }
}

/// Everything a person is shown: the bytes behind a bar, then what is to be known about them.
fn whole(records: &[Record], state: &State, asked: u64, shown: &str) -> String {
    let rows = crate::asked::context(records, state, asked);
    let rows = rows.iter().flat_map(|context| crate::asked::rows(context, None));
    let rows = rows.map(|(name, text)| format!("{name:<9}  {}\n", safe(&text)));
    format!("{}{}", gutter(shown), rows.collect::<String>())
}

/// Each line behind a bar, so that no line of it can pass for one of ours.
pub(crate) fn gutter(shown: &str) -> String {
    shown.lines().map(|line| format!("| {}\n", safe(line))).collect()
}

/// The first Ctrl-C sets the run aside, the second ends it.
async fn interrupt(session: &Session, run: &RunId, count: u32) -> Result<()> {
    let run = run.clone();
    let request = if count == 1 {
        Terminal::say("\nsetting the run aside; Ctrl-C again cancels it");
        Request::Suspend { run }
    } else {
        Terminal::say("\ncancelling the run");
        Request::Cancel { run, by: login() }
    };
    session.ask(&request).await.map(|_| ())
}

/// The question that holds the run up: its record, what it is about, and what is shown.
fn question_of(state: &State) -> Option<(u64, String, String)> {
    if let Some(question) = state.model_question() {
        let call = format!("call_model {}", safe(&question.what));
        return Some((question.seq, call, question.shown.clone()));
    }
    let action = state.current_action()?;
    let Phase::Asked(question) = &action.phase else {
        return None;
    };
    Some((question.seq, progress::call_of(state, action.id), question.shown.clone()))
}

/// y, n or show; `None` at the end of input.
fn prompt(terminal: &Terminal, call: &str, shown: &str) -> Option<(bool, String)> {
    loop {
        let question = format!("{} {call} [y/n/show]", terminal.paint(Paint::Yellow, "asks"));
        match Terminal::ask(&question)?.as_str() {
            "y" | "yes" => return Some((true, String::new())),
            "n" | "no" => {
                let reason = Terminal::ask("why not? (the agent is told)").unwrap_or_default();
                return Some((false, reason));
            }
            // It is safe already, line by line.
            "s" | "show" => Terminal::say(shown.trim_end()),
            _ => Terminal::say("y does it, n refuses it, show prints it in full"),
        }
    }
}

/// What a run came to: JSON, or words and three next commands. Gives the exit status.
pub(crate) fn report(
    session: &Session,
    run: &RunId,
    records: &[Record],
    state: &State,
) -> Result<u8> {
    let kept = session.home.artifacts(run);
    let status = state.status(false);
    let verified = session.reader()?.verify(run)?;
    let broken = verified.faults.first().map(|fault| {
        let fault = fault.failure.to_string();
        let evidence = CliError::Evidence { run: run.to_string(), fault };
        Failed::from(evidence).told(session.json)
    });
    if session.json {
        let mut document = outcome::document(run, state, records, false, &kept);
        if let Some(failed) = &broken {
            document["error"] = serde_json::json!(failed.failure);
        }
        Terminal::answer_json(&document);
    } else {
        tell(session, run, records, state, broken.is_none());
    }
    broken.map_or(Ok(outcome::exit_of(status)), Err)
}

fn tell(session: &Session, run: &RunId, records: &[Record], state: &State, chain_ok: bool) {
    let terminal = &session.terminal;
    let output = outcome::output_of(state);
    if state.ended.is_some() && !output.is_empty() && !session.jsonl {
        Terminal::answer(&safe_block(&output));
    }
    if state.status(false) == Status::Done && output.is_empty() && !state.is_guest() {
        terminal.progress("the model said nothing when it ended");
    }
    let kept = session.home.artifacts(run);
    for artifact in outcome::artifacts(state, records, &kept) {
        let file = artifact["file"].as_str().unwrap_or_default();
        let size = render::bytes(artifact["bytes"].as_u64().unwrap_or(0));
        terminal.progress(&format!("result {} ({size})", safe(file)));
    }
    if let Some(failure) = outcome::error_of(state) {
        let code = terminal.paint(Paint::Red, &failure.code);
        Terminal::say(&format!("{code}: {}", safe(&failure.message)));
        if !failure.next.is_empty() {
            Terminal::say(&format!("  {}", safe(&failure.next)));
        }
    }
    questions(session, run, state);
    terminal.progress(&summary(terminal, records, state, chain_ok));
    let next = next_steps(state, records);
    for step in next {
        terminal
            .progress(&format!("next: {}", session.command(&step.replace("RUN", run.as_str()))));
    }
}

/// `done: 31 records, chain ok, 1 denied, 1 approved, $0.00, 3.1s`.
fn summary(terminal: &Terminal, records: &[Record], state: &State, chain_ok: bool) -> String {
    let status = state.status(false);
    let paint = match status {
        Status::Done => Paint::Green,
        Status::Failed | Status::Cancelled => Paint::Red,
        _ => Paint::Yellow,
    };
    let chain = if chain_ok { "chain ok" } else { "chain BROKEN" };
    format!(
        "{}: {}, {chain}, {} denied, {} approved, {}, {}",
        terminal.paint(paint, outcome::status_word(status)),
        render::count(records.len() as u64, "record"),
        state.denials,
        state.approvals,
        state.spent.cost,
        render::took(state.spent.wall_ms),
    )
}

/// What waits for a person, and how to answer.
fn questions(session: &Session, run: &RunId, state: &State) {
    for action in state.open_questions() {
        let call = progress::call_of(state, action.id);
        match &action.phase {
            Phase::Asked(question) => {
                let id = ApprovalId { run: run.clone(), seq: question.seq };
                Terminal::say(&format!("waits for your answer to: {call}"));
                Terminal::say(&format!("  {}", session.command(&format!("approve {id}"))));
                let deny = session.command(&format!("deny {id} --reason \"...\""));
                Terminal::say(&format!("  {deny}"));
            }
            Phase::InDoubt { seq } => {
                let id = ApprovalId { run: run.clone(), seq: *seq };
                Terminal::say(&format!("nobody knows whether this happened: {call}"));
                let resolve = format!("resolve {id} --happened | --not-happened | --abandon");
                Terminal::say(&format!("  {}", session.command(&resolve)));
            }
            _ => {}
        }
    }
    if let Some(question) = state.model_question() {
        let id = ApprovalId { run: run.clone(), seq: question.seq };
        let what = safe(&question.what);
        Terminal::say(&format!("waits for your answer to: call_model {what}"));
        Terminal::say(&format!("  {}", session.command("approvals")));
        Terminal::say(&format!("  {}", session.command(&format!("approve {id}"))));
        let deny = session.command(&format!("deny {id} --reason \"...\""));
        Terminal::say(&format!("  {deny}"));
    }
    if let Some(name) = state.current_action().and_then(|action| waited_signal(state, action)) {
        let name = crate::session::quoted(&safe(name));
        Terminal::say(&format!("waits for the signal {name}"));
        Terminal::say(&format!("  {}", session.command(&format!("signal {run} {name}"))));
    }
}

fn waited_signal<'a>(state: &'a State, action: &Action) -> Option<&'a str> {
    if !matches!(action.phase, Phase::Waiting { timer: None }) {
        return None;
    }
    state.arguments(&action.call_id)?.1.get("signal")?.as_str()
}

/// Three commands that make sense now; `RUN` stands for the run.
fn next_steps(state: &State, records: &[Record]) -> [&'static str; 3] {
    let changed = state.base != state.layer;
    let workspace = records.first().is_some_and(|record| {
        matches!(&record.body, types::Body::RunStarted { workspace: Some(_), .. })
    });
    match state.status(false) {
        Status::Done if changed && workspace => ["diff RUN", "apply RUN", "explain RUN"],
        Status::Done if state.is_guest() => ["explain RUN", "show RUN", "logs RUN"],
        Status::Done => ["explain RUN", "show RUN", "send RUN \"...\""],
        Status::Failed if state.may_start_again() => ["resume RUN", "explain RUN", "diff RUN"],
        Status::Failed => ["explain RUN", "show RUN", "send RUN \"...\""],
        Status::Cancelled => ["show RUN", "explain RUN", "send RUN \"...\""],
        Status::Waiting
            if state.open_questions().next().is_some() || state.model_question().is_some() =>
        {
            ["approvals", "show RUN", "cancel RUN"]
        }
        Status::Waiting | Status::Suspended | Status::Running => {
            ["resume RUN", "show RUN", "cancel RUN"]
        }
    }
}

/// A run that goes on without us.
pub(crate) fn detached(session: &Session, run: &RunId) -> u8 {
    if session.json {
        Terminal::answer_json(&serde_json::json!({ "run": run, "status": "running" }));
    } else {
        Terminal::answer(run.as_str());
        session.terminal.progress(&format!("next: {}", session.command(&format!("watch {run}"))));
    }
    exit::DONE
}
