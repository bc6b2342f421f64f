//! The owner: the one process of a home that decides and writes.
//!
//! ```text
//! locked -> listening -> (requests, live runs) -> idle for a while -> gone
//! ```
//!
//! It starts with the first command that needs it and leaves when nothing is live. Every change to
//! a run goes through that run's one task; a request for a run that has none starts it.
//! It never parses bytes of a sandbox, an upstream, a model or a tool.

use crate::apply;
use crate::error::RuntimeError;
use crate::fork;
use crate::home::Home;
use crate::memory;
use crate::parts::Parts;
use crate::protocol::{self, Keys, Reply, Request, Screen, Take, VERSION};
use crate::registry::{Registry, Wanted};
use crate::rollback;
use crate::run::{self, Answer, Control};
use crate::seats::{Printed, Seat};
use crate::snapshot;
use rustix::event::Timespec;
use rustix::fs::FlockOperation;
use rustix::net::RecvFlags;
use sandbox::layers::Side;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use store::Read;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use types::{Record, RunId};

/// How long an owner with nothing to do stays, for the next command.
const LINGER: Duration = Duration::from_millis(300);
/// How often a new owner looks whether the one before has closed the log: for ten seconds.
const LEAVE_LOOKS_MAX: u32 = 1_000;
/// Between two looks.
const LEAVE_LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// How often at most the records of a run are read for who watches it.
const STREAM_GATHER: Duration = Duration::from_millis(20);
/// Connections served at once; more wait in the socket's backlog.
const CONNECTIONS_MAX: usize = 256;

/// Entry of `bedplate __owner HOME`. Prints `ready` on standard output once it listens, or a
/// failure as JSON.
#[must_use]
pub fn owner_main(home: &Path, exe: PathBuf) -> i32 {
    let home = Home::at(home);
    let lock = match claim(&home) {
        Ok(Some(lock)) => lock,
        Ok(None) => {
            announce("ready");
            return 0;
        }
        Err(error) => return refuse(error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("the owner's threads can be started");
    let (status, log) = runtime.block_on(serve(&home, exe));
    // The socket and the pid go first: whoever comes now starts the next owner, which waits for
    // the lock.
    let _ = std::fs::remove_file(home.socket());
    let _ = std::fs::remove_file(home.pid());
    runtime.shutdown_timeout(LINGER);
    // Tasks may hold the log until here. Closed now, by this thread, it is whole in its one file:
    // a process that ended while another thread closes it would leave a write-ahead log.
    drop(log);
    drop(lock);
    status
}

fn refuse(error: RuntimeError) -> i32 {
    announce(&serde_json::to_string(&error.into_failure()).unwrap_or_default());
    2
}

/// Takes the home; `None`: another owner has it.
#[expect(clippy::disallowed_methods, reason = "no other thread of this process runs yet")]
fn claim(home: &Home) -> Result<Option<std::fs::File>, RuntimeError> {
    home.prepare()?;
    let fail = |reason: String| RuntimeError::OwnerStart { home: home.path().to_owned(), reason };
    // A session of its own: closing the terminal does not end a run.
    let _ = rustix::process::setsid();
    std::env::set_current_dir(home.path()).map_err(|error| fail(error.to_string()))?;
    let lock = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(home.lock())
        .map_err(|error| fail(error.to_string()))?;
    for _ in 0..LEAVE_LOOKS_MAX {
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            return Ok(Some(lock));
        }
        // The working directory is the home. Whoever has the lock and does not listen is leaving,
        // or has just come.
        if std::os::unix::net::UnixStream::connect("owner.sock").is_ok() {
            return Ok(None);
        }
        let _ = rustix::event::poll(&mut [], Some(&LEAVE_LOOK));
    }
    Err(fail("the owner before has not left".to_owned()))
}

/// Opens everything, then listens. Says `ready` in between. Gives the log, to be closed last.
async fn serve(home: &Home, exe: PathBuf) -> (i32, Option<Arc<store::SqliteStore>>) {
    let opened = async {
        let parts = Arc::new(Parts::open(home.clone(), exe).await?);
        let listener = listen(home)?;
        Ok::<_, RuntimeError>((parts, listener))
    };
    match opened.await {
        Ok((parts, listener)) => {
            announce("ready");
            let log = Arc::clone(&parts.store);
            let registry = Arc::new(Registry::new(parts));
            accept(&registry, listener).await;
            registry.close().await;
            (0, Some(log))
        }
        Err(error) => (refuse(error), None),
    }
}

/// The working directory is the home, so that the socket's name is short however deep it lies.
fn listen(home: &Home) -> Result<UnixListener, RuntimeError> {
    let fail = |reason: String| RuntimeError::OwnerStart { home: home.path().to_owned(), reason };
    let _ = std::fs::remove_file("owner.sock");
    let listener = UnixListener::bind("owner.sock").map_err(|error| fail(error.to_string()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions("owner.sock", mode).map_err(|error| fail(error.to_string()))?;
    std::fs::write(home.pid(), format!("{}\n", std::process::id()))
        .map_err(|error| fail(error.to_string()))?;
    Ok(listener)
}

/// One line for whoever started us; nobody reading it is no error.
fn announce(line: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null");
    if let Ok(null) = null {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Accepts until nothing is live.
async fn accept(registry: &Arc<Registry>, listener: UnixListener) {
    let slots = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let idle = registry.idle(LINGER);
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else { continue };
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
                let guest = registry.enter();
                let registry = Arc::clone(registry);
                tokio::spawn(async move {
                    let _ = converse(&registry, stream).await;
                    drop((guest, slot));
                });
            }
            () = idle => return,
        }
    }
}

/// One connection: one request, then its replies.
async fn converse(registry: &Arc<Registry>, mut stream: UnixStream) -> Result<(), RuntimeError> {
    protocol::send(&mut stream, &Reply::Hello { version: VERSION.to_owned() }).await?;
    while let Some(request) = protocol::receive::<Request>(&mut stream).await? {
        if let Err(error) = answer(registry, &mut stream, request).await {
            let usage = error.is_usage();
            let failure = error.into_failure();
            protocol::send(&mut stream, &Reply::Failed { failure, usage }).await?;
        }
    }
    Ok(())
}

async fn answer(
    registry: &Arc<Registry>,
    stream: &mut UnixStream,
    request: Request,
) -> Result<(), RuntimeError> {
    match request {
        Request::Start { new, keys, detach, screen } => {
            let run = run::create(&registry.parts, *new, None).await?;
            take_up(registry, stream, run, (keys, None), (!detach).then_some((0, screen))).await
        }
        Request::Create { new } => {
            accepted(stream, &run::create(&registry.parts, *new, None).await?).await
        }
        Request::Open { new, key, opening } => {
            let run = run::open(registry, *new, key, opening).await?;
            accepted(stream, &run).await
        }
        Request::Resize { run, screen } => {
            registry.parts.seats.resize(&run, screen);
            accepted(stream, &run).await
        }
        Request::Input { run, bytes } => {
            type_to_guest(registry, &run, bytes.0).await;
            accepted(stream, &run).await
        }
        Request::Resume { run, keys, detach, screen } => {
            let from = next_record(registry, &run)?;
            take_up(registry, stream, run, (keys, None), (!detach).then_some((from, screen))).await
        }
        Request::Watch { run, from } => {
            accepted(stream, &run).await?;
            stream_run(registry, stream, &run, from, None).await
        }
        Request::Live => {
            let runs = registry.live();
            protocol::send(stream, &Reply::Live { runs }).await
        }
        Request::Fork { run, at, count, seed, by } => {
            let wanted = fork::Wanted { run, at, count, seed, by };
            let runs = fork::fork(&registry.parts, wanted).await?;
            protocol::send(stream, &Reply::Made { runs }).await
        }
        Request::Remove { run } => {
            registry.remove(&run).await?;
            accepted(stream, &run).await
        }
        Request::BenchSandbox { count } => {
            let nanos = crate::bench::sandbox_lives(&registry.parts, count).await?;
            protocol::send(stream, &Reply::Samples { nanos }).await
        }
        Request::Apply { .. }
        | Request::RollBack { .. }
        | Request::Snapshot { .. }
        | Request::ChangeMemory { .. }
        | Request::Collect => {
            let lines = told(registry, request).await?;
            protocol::send(stream, &Reply::Lines { lines }).await
        }
        other => change(registry, stream, other).await,
    }
}

/// Requests that are answered by lines for people.
async fn told(registry: &Arc<Registry>, request: Request) -> Result<Vec<String>, RuntimeError> {
    match request {
        Request::Apply { run, paths, by } => apply::apply(registry, &run, paths, by).await,
        Request::RollBack { run, back, leave_effects, by } => {
            rollback::roll_back(registry, &run, back, leave_effects, by).await
        }
        Request::Snapshot { run, name, by } => {
            snapshot::take(registry, &run, name, by).await.map(|name| vec![name])
        }
        Request::ChangeMemory { of, change, by } => memory::changed(registry, of, change, by).await,
        Request::Collect => registry.collect().await,
        _ => Err(RuntimeError::Frame { reason: "not a request for lines".to_owned() }),
    }
}

fn next_record(registry: &Registry, run: &RunId) -> Result<u64, RuntimeError> {
    let head = registry.parts.store.head(run, 0);
    head.map(|head| head.next_seq).map_err(|error| RuntimeError::part(&error))
}

/// Hands a guest what somebody typed; nothing is the end of it.
async fn type_to_guest(registry: &Registry, run: &RunId, bytes: Vec<u8>) {
    let seats = &registry.parts.seats;
    match seats.input(run) {
        _ if bytes.is_empty() => seats.end_input(run),
        // A guest that has ended reads no more.
        Some(input) => drop(input.send(bytes).await),
        None => {}
    }
}

/// Requests that change a run: its task records them.
async fn change(
    registry: &Arc<Registry>,
    stream: &mut UnixStream,
    request: Request,
) -> Result<(), RuntimeError> {
    let (run, keys, resume, control) = match request {
        Request::Step { run, opening, at, step, keys, watched: true, screen } => {
            let control = Some(Control::Step { opening, at, step });
            let from = next_record(registry, &run)?;
            return take_up(registry, stream, run, (keys, control), Some((from, screen))).await;
        }
        Request::Send { run, text, keys } => (run, keys, true, Control::Send { text }),
        Request::Step { run, opening, at, step, keys, .. } => {
            (run, keys, true, Control::Step { opening, at, step })
        }
        Request::Signal { run, name, payload, by, keys } => {
            (run, keys, true, Control::Signal { name, payload, by })
        }
        Request::Answer { id, approve, for_run, reason, speaks_for, resume, keys } => {
            // Who brings it is what the kernel says of the socket's other end, not what it says.
            let login = crate::login::of_peer(stream)?;
            let (by, through) = match speaks_for {
                Some(person) if person != login => (person, login),
                _ => (login, String::new()),
            };
            let answer = Answer { asked: id.seq, approve, for_run, reason, by, through };
            (id.run, keys, resume, Control::Answer(answer))
        }
        Request::Resolve { id, resolution, result, by, resume, keys } => {
            let control = Control::Resolve { seq: id.seq, resolution, result, by };
            (id.run, keys, resume, control)
        }
        Request::Cancel { run, by } => (run, Keys::default(), true, Control::Cancel { by }),
        Request::Suspend { run } => (run, Keys::default(), false, Control::Suspend),
        Request::MergeMemory { run, take, by } => {
            let prefer = take.map(|take| match take {
                Take::Run => Side::Ours,
                Take::Memory => Side::Theirs,
            });
            (run, Keys::default(), false, Control::MergeMemory { prefer, by })
        }
        Request::Allow { run, entries, by } => {
            (run, Keys::default(), false, Control::Allow { entries, by })
        }
        _ => {
            return Err(RuntimeError::Frame { reason: "not a change".to_owned() });
        }
    };
    registry.ask(&run, Wanted { keys, resume, control: Some(control) }).await?;
    accepted(stream, &run).await
}

async fn accepted(stream: &mut UnixStream, run: &RunId) -> Result<(), RuntimeError> {
    protocol::send(stream, &Reply::Accepted { run: Some(run.clone()) }).await
}

/// Has a run go on, with a change if there is one, and streams it from this record when somebody
/// wants to see it.
async fn take_up(
    registry: &Arc<Registry>,
    stream: &mut UnixStream,
    run: RunId,
    (keys, control): (Keys, Option<Control>),
    watched: Option<(u64, Option<Screen>)>,
) -> Result<(), RuntimeError> {
    let resume = true;
    // Who watches sits there before a guest begins, so that none of its output is missed.
    let watched = watched.map(|(from, screen)| (from, registry.parts.seats.take(&run, screen)));
    registry.ask(&run, Wanted { keys, resume, control }).await?;
    accepted(stream, &run).await?;
    match watched {
        Some((from, seat)) => stream_run(registry, stream, &run, from, Some(seat)).await,
        None => Ok(()),
    }
}

/// Streams records from `from`, and what a guest prints to this seat, until the run is at rest.
async fn stream_run(
    registry: &Arc<Registry>,
    stream: &mut UnixStream,
    run: &RunId,
    mut from: u64,
    mut seat: Option<Seat<'_>>,
) -> Result<(), RuntimeError> {
    let mut live = registry.watch(run);
    let mut told = None;
    loop {
        // Records that come fast are read and sent many at a time.
        if let Some(told) = told {
            tokio::time::sleep_until(told + STREAM_GATHER).await;
        }
        told = Some(tokio::time::Instant::now());
        let alive = live.as_ref().is_some_and(|(head, _)| head.has_changed().is_ok());
        let records = match live.as_ref().and_then(|(_, recent)| recent.since(from)) {
            Some(records) => records,
            None => read_records(registry, run, from)?,
        };
        // What was printed before these were recorded is here by now, and goes first.
        while let Some(printed) = seat.as_mut().and_then(Seat::ready) {
            send_printed(stream, printed).await?;
        }
        from = records.last().map_or(from, |record| record.stamp.seq + 1);
        protocol::send_records(stream, &records).await?;
        let Some((head, _)) = live.as_mut().filter(|_| alive) else {
            return protocol::send(stream, &Reply::AtRest).await;
        };
        tokio::select! {
            printed = printed(&mut seat) => send_printed(stream, printed).await?,
            () = gone(stream) => return Ok(()),
            // An error means that the task has left: read once more, then rest.
            () = async { drop(head.wait_for(|next| *next > from).await) } => {}
        }
    }
}

fn read_records(
    registry: &Registry,
    run: &RunId,
    from: u64,
) -> Result<Vec<Arc<Record>>, RuntimeError> {
    let records = registry.parts.store.records(run, 0, from);
    let records = records.map_err(|error| RuntimeError::part(&error))?;
    Ok(records.into_iter().map(Arc::new).collect())
}

/// Until the other side has closed the connection. It is known before there is something to write:
/// a guest whose input is there for nobody to end would read for ever.
async fn gone(stream: &UnixStream) {
    let look = || {
        let looked = rustix::net::recv(stream, &mut [0_u8; 1][..], RecvFlags::PEEK);
        Ok(looked.map(|(bytes, _)| bytes)?)
    };
    loop {
        if stream.readable().await.is_err() {
            return;
        }
        match stream.try_io(Interest::READABLE, look) {
            Ok(0) => return,
            // Another request, which is read when this one is answered.
            Ok(_) => return std::future::pending().await,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// What a guest prints; never, when nobody sits here.
async fn printed(seat: &mut Option<Seat<'_>>) -> Printed {
    let next = match seat {
        Some(seat) => seat.next().await,
        None => None,
    };
    match next {
        Some(printed) => printed,
        None => {
            *seat = None;
            std::future::pending().await
        }
    }
}

async fn send_printed(stream: &mut UnixStream, printed: Printed) -> Result<(), RuntimeError> {
    let bytes = protocol::Bytes64(printed.bytes);
    protocol::send(stream, &Reply::Printed { error: printed.error, bytes }).await
}
