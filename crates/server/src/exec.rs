//! Commands of a kept sandbox: begun, their output streamed, what is typed handed on, their results
//! read.
//!
//! ```text
//!  exec --ready, Step--> the owner runs it --> started, stdout, stderr, ... --> exit
//!   |                        |                                            `--> waiting: a person first
//!   |                        `-- whoever reads leaves: its input ends, it goes on and is recorded
//!   `-- its record's number names it: getExec reads its result, whoever died
//! ```
//!
//! What always holds: output that was printed before the command's end is told before it; a result
//! comes from the log; bytes are typed to the command that was named, or to none.

use crate::answer::{self, Answer, document, event, pieces};
use crate::body::{self, bad};
use crate::desk::Ready;
use crate::events::{ALIVE, KIND};
use crate::handlers::ok;
use crate::limits::{
    EXEC_TIMEOUT_S_MAX, HEARTBEAT, INPUT_PIECE_BYTES, LIVE_LOOK, PIECES_MAX, STEP_WAIT,
    STEP_WAIT_MAX,
};
use crate::owner::reply;
use crate::routes::Op;
use crate::sandboxes::{OfSandbox, flag, of_exec};
use crate::service::Service;
use crate::steps::{outcome_of, result_of};
use crate::{Refusal, ServeError};
use bytes::Bytes;
use hyper::StatusCode;
use kernel::{State, Status};
use runtime::Watched;
use runtime::client::Client;
use runtime::protocol::{Bytes64, Reply, Request, Screen};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use types::{Body, Failure, RunId, Step};

/// What a terminal is, when nobody says.
const TERMINAL: &str = "xterm-256color";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExecBody {
    command: CommandLine,
    #[serde(default)]
    timeout_s: Option<u64>,
    #[serde(default)]
    input: Option<Bytes64>,
    /// More is typed later.
    #[serde(default)]
    stdin: bool,
    #[serde(default)]
    terminal: Option<Terminal>,
}

/// For a shell, or words that it is to leave alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum CommandLine {
    Line(String),
    Words(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Terminal {
    rows: u16,
    columns: u16,
    #[serde(default)]
    kind: Option<String>,
}

impl From<Terminal> for Screen {
    fn from(Terminal { rows, columns, kind }: Terminal) -> Self {
        Self { rows, columns, kind: kind.unwrap_or_else(|| TERMINAL.to_owned()) }
    }
}

/// The commands whose streams go through this server.
#[derive(Debug, Default)]
pub(crate) struct Execs {
    /// By sandbox: the record that began the command.
    streamed: Mutex<BTreeMap<RunId, u64>>,
    /// One begins at a time: who comes too late must not take the seat of who was first.
    begins: tokio::sync::Mutex<()>,
}

/// A command whose output somebody reads here.
struct Seat {
    service: Arc<Service>,
    run: RunId,
    exec: u64,
}

impl Execs {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<RunId, u64>> {
        self.streamed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    fn take(service: &Arc<Service>, run: &RunId, exec: u64) -> Self {
        service.execs.lock().insert(run.clone(), exec);
        Self { service: Arc::clone(service), run: run.clone(), exec }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut streamed = self.service.execs.lock();
        if streamed.get(&self.run) == Some(&self.exec) {
            streamed.remove(&self.run);
        }
    }
}

/// A step that the owner has taken.
pub(crate) struct Begun {
    owner: Client,
    watched: Watched,
    /// The record that began it.
    pub(crate) exec: u64,
    undone: bool,
}

impl Begun {
    pub(crate) const fn run(&self) -> &RunId {
        self.watched.run()
    }
}

/// Where a command stands.
enum Stand {
    /// Done, in this record; with what the conversation has of it.
    Done(u64, Option<(String, bool)>),
    /// Not done; as when nobody runs it.
    Open(Status),
    /// It cannot go on by itself.
    Stuck(Failure),
    /// There is none of this number.
    None,
}

impl Service {
    /// Begins a command and streams it.
    pub(crate) async fn exec(self: &Arc<Self>, id: String, body: &[u8]) -> Result<Answer, Refusal> {
        let ExecBody { command, timeout_s, input, stdin, terminal } = body::parsed(body)?;
        let timeout_s = timeout_s.unwrap_or(EXEC_TIMEOUT_S_MAX);
        if !(1..=EXEC_TIMEOUT_S_MAX).contains(&timeout_s) {
            return Err(bad(format!("timeout_s is from 1 to {EXEC_TIMEOUT_S_MAX}")).into());
        }
        let command = match command {
            CommandLine::Line(line) => line,
            CommandLine::Words(words) => self.sandboxes(move |desk| Ok(desk.line(&words))).await?,
        };
        if command.trim().is_empty() || command.contains('\0') {
            return Err(bad("the command is empty, or has a NUL character").into());
        }
        let step = Step::Exec { command, timeout_s: Some(timeout_s) };
        let open = stdin || terminal.is_some();
        let begun = self.begin(id, step, terminal.map(Screen::from)).await?;
        let seat = Seat::take(self, begun.run(), begun.exec);
        let (service, run) = (Arc::clone(self), begun.run().clone());
        let typed = input.unwrap_or_default().0;
        // Beside the stream: a command may print before it reads.
        tokio::spawn(async move { drop(service.type_in(&run, &typed, !open).await) });
        let (to, from_us) = mpsc::channel(PIECES_MAX);
        tokio::spawn(Streamed { seat, to }.run(begun));
        Ok(pieces(KIND, from_us))
    }

    /// Has the owner take the next step of a sandbox.
    pub(crate) async fn begin(
        &self,
        id: String,
        step: Step,
        screen: Option<Screen>,
    ) -> Result<Begun, Refusal> {
        let _one = self.execs.begins.lock().await;
        let Ready { run, state, undone } = self.sandboxes(move |desk| desk.ready(&id)).await?;
        let keys = self.keys_of(&run).await?;
        let mut owner = self.owner.connect().await?;
        let watched = Watched::begin(&mut owner, (run, state), step, keys, screen).await?;
        let at = usize::try_from(watched.at()).unwrap_or(usize::MAX);
        let taken = move |state: &State| Some(state.caller.as_ref()?.steps.get(at)?.seq);
        let exec = self.log.state(watched.run(), taken).await?;
        let exec = exec.ok_or_else(|| bad("the sandbox was changed meanwhile"))?;
        Ok(Begun { owner, watched, exec, undone })
    }

    /// Hands these bytes to the command that runs, as fast as it reads; then the end, if it is.
    async fn type_in(&self, run: &RunId, bytes: &[u8], end: bool) -> Result<(), Refusal> {
        if bytes.is_empty() && !end {
            return Ok(());
        }
        let mut owner = self.owner.connect().await?;
        let end: &[&[u8]] = if end { &[&[]] } else { &[] };
        for piece in bytes.chunks(INPUT_PIECE_BYTES).chain(end.iter().copied()) {
            let request = Request::Input { run: run.clone(), bytes: Bytes64(piece.to_vec()) };
            owner.send(&request).await?;
            reply(&mut owner).await?;
        }
        Ok(())
    }

    /// A command that there is: its result, what it reads, its terminal.
    pub(crate) async fn of_exec(&self, op: Op, asked: OfSandbox) -> Result<Answer, Refusal> {
        let OfSandbox { id, second, query, body, .. } = asked;
        let number = Some(&second).filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
        let exec = number.and_then(|text| text.parse::<u64>().ok());
        let exec = exec.ok_or_else(|| bad("an exec is named by a number"))?;
        let run = self.sandboxes(move |desk| desk.find(&id)).await?;
        match op {
            Op::GetExec => {
                let (status, told) = self.exec_told(&run, exec, wait_of(&query)?).await?;
                Ok(document(status, &told))
            }
            Op::SendInput => {
                let end = flag(&query, "end")?;
                self.must_read(&run, exec).await?;
                self.type_in(&run, &body, end).await?;
                Ok(ok(&of_exec(&run, exec, json!({ "taken": body.len() }))))
            }
            _ => {
                let screen = Screen::from(body::parsed::<Terminal>(&body)?);
                self.must_read(&run, exec).await?;
                self.owner.ask(&Request::Resize { run: run.clone(), screen }, true).await?;
                Ok(ok(&of_exec(&run, exec, json!({}))))
            }
        }
    }

    /// Whether the command of this number is the one that is streamed here now.
    async fn must_read(&self, run: &RunId, exec: u64) -> Result<(), Refusal> {
        let why = match self.exec_stand(run, exec).await? {
            Stand::None => return Err(none(run, exec)),
            Stand::Done(..) => "it has ended",
            Stand::Stuck(_) => "it was set aside",
            Stand::Open(_) if self.execs.lock().get(run) == Some(&exec) => return Ok(()),
            Stand::Open(_) => "nobody reads its stream",
        };
        let (sandbox, why) = (run.to_string(), why.to_owned());
        Err(ServeError::NotRead { sandbox, exec, why }.into())
    }

    async fn exec_stand(&self, run: &RunId, exec: u64) -> Result<Stand, Refusal> {
        let stand = move |state: &State| {
            let steps = state.caller.as_ref().map_or(&[][..], |caller| &caller.steps);
            let found = steps.iter().enumerate().find(|(_, taken)| taken.seq == exec);
            let Some((at, taken)) = found else { return Stand::None };
            match taken.done {
                Some(seq) => {
                    let call_id = taken.step.call_id(at as u64);
                    Stand::Done(seq, call_id.and_then(|id| result_of(state, &id)))
                }
                None if state.ended.is_some() => Stand::None,
                None => match &state.suspended {
                    Some((_, Some(failure))) => Stand::Stuck(failure.clone()),
                    _ => Stand::Open(state.status(false)),
                },
            }
        };
        self.log.state(run, stand).await
    }

    /// The result of a command, waited for; or that there is none yet.
    pub(crate) async fn exec_told(
        &self,
        run: &RunId,
        exec: u64,
        wait: Duration,
    ) -> Result<(StatusCode, Value), Refusal> {
        let until = Instant::now() + wait;
        let mut grown = self.log.growth();
        let mut looked: Option<Instant> = None;
        loop {
            grown.borrow_and_update();
            match self.exec_stand(run, exec).await? {
                Stand::Done(seq, said) => {
                    return Ok((StatusCode::OK, self.done(run, exec, seq, said).await?));
                }
                Stand::None => return Err(none(run, exec)),
                Stand::Stuck(failure) => return Err(stuck(failure)),
                Stand::Open(status) => {
                    let over = Instant::now() >= until;
                    if over || looked.is_none_or(|at| at.elapsed() >= LIVE_LOOK) {
                        let told = self.not_yet_done(run, exec, status).await?;
                        looked = Some(Instant::now());
                        if told["done"] == true {
                            return Ok((StatusCode::OK, told));
                        }
                        if over {
                            return Ok((StatusCode::ACCEPTED, told));
                        }
                    }
                }
            }
            tokio::select! {
                _ = grown.changed() => {}
                () = tokio::time::sleep_until(until.min(Instant::now() + LIVE_LOOK)) => {}
            }
        }
    }

    /// A command's result, as its last event and [`Op::GetExec`] tell it.
    async fn done(
        &self,
        run: &RunId,
        exec: u64,
        seq: u64,
        said: Option<(String, bool)>,
    ) -> Result<Value, Refusal> {
        let record = self.log.page(run, seq, 1).await?.pop();
        let mut told = outcome_of(record.as_ref(), said);
        if let Some(told) = told.as_object_mut() {
            told.retain(|name, _| name != "type" && name != "is_error");
            told.entry("exit").or_insert(Value::Null);
            let layer = record.as_ref().and_then(|record| match &record.body {
                Body::ActionFinished { layer, .. } => Some(layer),
                _ => None,
            });
            told.insert("layer".to_owned(), json!(layer));
            told.insert("record".to_owned(), json!(seq));
            told.insert("done".to_owned(), json!(true));
        }
        Ok(of_exec(run, exec, told))
    }

    /// That a command is not done: it runs, or a person must come first. One that lost its owner
    /// will not be: the next one undoes it.
    async fn not_yet_done(&self, run: &RunId, exec: u64, status: Status) -> Result<Value, Refusal> {
        let waits = status == Status::Waiting;
        if !waits && !self.owner.live().await.contains(run) {
            return match self.exec_stand(run, exec).await? {
                Stand::Done(seq, said) => self.done(run, exec, seq, said).await,
                Stand::Stuck(failure) => Err(stuck(failure)),
                _ => Err(ServeError::Lost { sandbox: run.to_string(), exec }.into()),
            };
        }
        let approvals = if waits { self.approvals_of(run).await? } else { Vec::new() };
        let status = if waits { "waiting" } else { "running" };
        let more = json!({ "done": false, "status": status, "approvals": approvals });
        Ok(of_exec(run, exec, more))
    }
}

/// How long somebody wants to wait.
pub(crate) fn wait_of(query: &BTreeMap<String, String>) -> Result<Duration, Refusal> {
    let wait = body::number(query, "wait_ms")?.map_or(STEP_WAIT, Duration::from_millis);
    if wait > STEP_WAIT_MAX {
        return Err(bad(format!("wait_ms is at most {}", STEP_WAIT_MAX.as_millis())).into());
    }
    Ok(wait)
}

fn none(run: &RunId, exec: u64) -> Refusal {
    ServeError::NoExec { sandbox: run.to_string(), exec }.into()
}

/// The host, or the policy, does not let a command go on; the next one undoes it.
const fn stuck(failure: Failure) -> Refusal {
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, failure }
}

/// A command on its way to whoever reads it.
struct Streamed {
    seat: Seat,
    to: mpsc::Sender<Bytes>,
}

/// The owner's next reply, and the owner.
async fn next_of(mut owner: Client) -> (Client, Result<Reply, Refusal>) {
    let next = reply(&mut owner).await;
    (owner, next)
}

impl Streamed {
    /// Until the command is done, or nobody reads. The connection to the owner goes with it.
    async fn run(self, begun: Begun) {
        let Begun { owner, mut watched, exec, undone } = begun;
        let started = of_exec(&self.seat.run, exec, json!({ "undone": undone }));
        if !self.tell("started", &started).await {
            return;
        }
        let mut next = Box::pin(next_of(owner));
        while watched.done().is_none() {
            let reply = tokio::select! {
                (owner, reply) = &mut next => {
                    next = Box::pin(next_of(owner));
                    reply
                }
                () = tokio::time::sleep(HEARTBEAT) => {
                    if !answer::tell(&self.to, Bytes::from_static(ALIVE)).await {
                        return;
                    }
                    continue;
                }
                () = self.to.closed() => return,
            };
            let heard = match reply {
                Ok(reply) => self.hear(watched, reply).await,
                Err(refusal) => Err(refusal),
            };
            watched = match heard {
                Ok((watched, true)) => watched,
                Ok((_, false)) => return,
                Err(refusal) => return self.fail(refusal).await,
            };
        }
        self.end(exec).await;
    }

    /// Takes a reply; whether there is more to come and somebody reads.
    async fn hear(&self, mut watched: Watched, reply: Reply) -> Result<(Watched, bool), Refusal> {
        if let Reply::Printed { error, bytes } = &reply {
            let kind = if *error { "stderr" } else { "stdout" };
            let read = self.tell(kind, &json!({ "bytes": bytes })).await;
            return Ok((watched, read));
        }
        let rests = matches!(reply, Reply::AtRest);
        let log = &self.seat.service.log;
        let watched = log
            .read(move |reader| watched.hear(reader, &reply, |_, _| {}).map(|()| watched))
            .await?;
        if rests && watched.done().is_none() {
            self.waits().await?;
            return Ok((watched, false));
        }
        Ok((watched, true))
    }

    /// The run rests with the command open: a person must come first.
    async fn waits(&self) -> Result<(), Refusal> {
        let Seat { service, run, exec } = &self.seat;
        let status = match service.exec_stand(run, *exec).await? {
            Stand::Open(status) => status,
            Stand::Done(..) => {
                self.end(*exec).await;
                return Ok(());
            }
            Stand::Stuck(failure) => return Err(stuck(failure)),
            Stand::None => return Err(none(run, *exec)),
        };
        let told = service.not_yet_done(run, *exec, status).await?;
        self.tell("waiting", &told).await;
        Ok(())
    }

    async fn end(&self, exec: u64) {
        let Seat { service, run, .. } = &self.seat;
        match service.exec_stand(run, exec).await {
            Ok(Stand::Done(seq, said)) => match service.done(run, exec, seq, said).await {
                Ok(told) => drop(self.tell("exit", &told).await),
                Err(refusal) => self.fail(refusal).await,
            },
            Ok(_) => self.fail(none(run, exec)).await,
            Err(refusal) => self.fail(refusal).await,
        }
    }

    async fn fail(&self, refusal: Refusal) {
        self.tell("error", &json!({ "error": refusal.into_failure() })).await;
    }

    async fn tell(&self, kind: &str, data: &Value) -> bool {
        answer::tell(&self.to, event(kind, data)).await
    }
}
