//! The owner's handle on its spawner.
//!
//! Usable from many tasks at once. One reader task takes every answer; when the spawner's end of
//! the socket closes, every call that waits fails with `BP-SANDBOX-002` at once. What a caller
//! abandons (a dropped future, a dropped [`Running`]) is killed.

use crate::boundary::Listeners;
use crate::fileops;
use crate::running::{Running, Streams};
use crate::spec::{CreateSpec, ExecExit, ExecSpec, FileOp, FileResult, Sandbox, SandboxId, Trees};
use crate::wire::{self, Answer, AnswerFrame, Ask, AskFrame, FRAME_BYTES_MAX, Hello};
use crate::{SandboxError, cgroup, sys};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::unix::pipe;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// The argument that makes the `bedplate` binary a spawner; the socket's number follows.
pub const SPAWNER_ARG: &str = "__spawner";
/// Milliseconds a spawner may take to come up.
const START_MS_MAX: u64 = 20_000;
/// Milliseconds any other call may take, beside programs.
const CALL_MS_MAX: u64 = 120_000;
/// How often, and how long, to try to remove a dead spawner's cgroups.
const SWEEP_TRIES: u32 = 200;
const SWEEP_EVERY: Duration = Duration::from_millis(10);
/// Bytes of the answer to a file operation: content and header.
const FILE_ANSWER_BYTES_MAX: u64 = fileops::READ_BYTES_MAX + (16 << 20);

/// How to start a spawner.
#[derive(Debug, Clone, Default)]
pub struct SpawnerConfig {
    /// Containment to leave out, to see whether the escape corpus notices.
    #[cfg(feature = "weakened")]
    pub weaken: Vec<crate::Weaken>,
}

/// A live spawner. Clones share it; it ends when the last is dropped.
#[derive(Debug, Clone)]
pub struct Spawner(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    link: Arc<Link>,
    gone: watch::Receiver<bool>,
    pid: u32,
}

/// What the handle and the reader task share.
#[derive(Debug)]
pub(crate) struct Link {
    socket: AsyncFd<OwnedFd>,
    seq: AtomicU64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    gone: bool,
    waiting: HashMap<u64, Waiting>,
    turns: HashMap<SandboxId, Arc<Semaphore>>,
}

type Reply = oneshot::Sender<Result<(Answer, Vec<OwnedFd>), SandboxError>>;

/// Who waits for an answer.
#[derive(Debug)]
enum Waiting {
    /// One answer is expected.
    Once(Reply),
    /// A program: started, then exited. The permit is the sandbox's turn.
    Program {
        sandbox: SandboxId,
        started: Option<Reply>,
        exited: oneshot::Sender<Result<ExecExit, SandboxError>>,
        turn: OwnedSemaphorePermit,
    },
    /// Nobody.
    Nobody,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(self.link.socket.get_ref(), rustix::net::Shutdown::Both);
    }
}

impl Spawner {
    /// Starts a spawner: `exe` re-exec'd as `EXE __spawner 0`, the socket as its standard input.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`SandboxError::SpawnerStart`], or what the spawner found missing on this host.
    pub async fn start(exe: &Path, config: SpawnerConfig) -> Result<Self, SandboxError> {
        let fail = |why: String| SandboxError::SpawnerStart { why };
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|error| fail(error.to_string()))?;
        for side in [&ours, &theirs] {
            let bytes = 2 * FRAME_BYTES_MAX;
            let _ = rustix::net::sockopt::set_socket_send_buffer_size(side, bytes);
        }
        rustix::io::ioctl_fionbio(&ours, true).map_err(|error| fail(error.to_string()))?;
        let child = Command::new(exe)
            .args([SPAWNER_ARG, "0"])
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| fail(format!("{}: {error}", exe.display())))?;
        let pid = child.id();
        let socket = sys::watch_async(ours).map_err(|error| fail(error.to_string()))?;
        let link = Arc::new(Link { socket, seq: AtomicU64::new(1), state: Mutex::default() });
        let (told, gone) = watch::channel(false);
        let (ready, readied) = oneshot::channel();
        link.state().waiting.insert(0, Waiting::Once(ready));
        tokio::spawn(read_answers(Arc::clone(&link), child, told));
        let spawner = Self(Arc::new(Handle { link, gone, pid }));
        let hello = wire::encode(&hello(config))?;
        // One that ended already is seen below.
        match spawner.0.link.send(&hello, &[]).await {
            Ok(()) | Err(SandboxError::SpawnerGone) => {}
            Err(error) => return Err(error),
        }
        let limit = Duration::from_millis(START_MS_MAX);
        match tokio::time::timeout(limit, readied).await {
            Ok(Ok(Ok((Answer::Ready { .. }, _)))) => Ok(spawner),
            Ok(Ok(Err(SandboxError::SpawnerGone)) | Err(_)) => {
                Err(fail(format!("{} ended at once", exe.display())))
            }
            Ok(Ok(Err(error))) => Err(error),
            Ok(Ok(Ok(_))) => Err(fail("it answered out of turn".to_owned())),
            Err(_) => Err(fail(format!("no answer within {START_MS_MAX} ms"))),
        }
    }

    /// The spawner's pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Ends the spawner and all its sandboxes, and waits until nothing is left of them.
    pub async fn close(self) {
        let mut gone = self.0.gone.clone();
        let socket = self.0.link.socket.get_ref();
        let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        let _ = gone.wait_for(|gone| *gone).await;
    }

    /// Builds a sandbox.
    ///
    /// # Errors
    /// When the request is not valid, a rule cannot be enforced, or any part of the containment
    /// is missing; then nothing is left of it.
    pub async fn create(&self, spec: CreateSpec) -> Result<Sandbox, SandboxError> {
        self.make(spec).await.map(|(sandbox, _)| sandbox)
    }

    /// Builds a sandbox and hands over the listeners at which its connections outward arrive.
    ///
    /// # Errors
    /// As [`Spawner::create`].
    pub async fn create_with_network(
        &self,
        spec: CreateSpec,
    ) -> Result<(Sandbox, Listeners), SandboxError> {
        let (sandbox, fds) = self.make(spec).await?;
        match Listeners::from_fds(fds) {
            Some(listeners) => Ok((sandbox, listeners)),
            None => Err(SandboxError::Frame { why: "a sandbox without its network".to_owned() }),
        }
    }

    async fn make(&self, spec: CreateSpec) -> Result<(Sandbox, Vec<OwnedFd>), SandboxError> {
        spec.check()?;
        match self.call(Ask::Create(Box::new(spec))).await? {
            (Answer::Created(sandbox), fds) => Ok((sandbox, fds)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Runs a program; waits its turn, as one thing at a time runs in a sandbox. The program's
    /// output comes through the [`Running`].
    ///
    /// # Errors
    /// When there is no such sandbox or the program could not be started at all. That a program
    /// is not found is reported by [`Running::exit`].
    pub async fn exec(&self, id: &SandboxId, spec: ExecSpec) -> Result<Running, SandboxError> {
        let (streams, theirs) = Streams::make(&spec)?;
        let fds = theirs.each_ref().map(AsFd::as_fd);
        self.exec_on(id, spec, &fds, Some(streams)).await
    }

    /// Runs a program on streams of the caller's, such as a terminal's.
    ///
    /// # Errors
    /// As [`Spawner::exec`].
    pub async fn exec_with(
        &self,
        id: &SandboxId,
        spec: ExecSpec,
        stdio: [BorrowedFd<'_>; 3],
    ) -> Result<Running, SandboxError> {
        self.exec_on(id, spec, &stdio, None).await
    }

    async fn exec_on(
        &self,
        id: &SandboxId,
        spec: ExecSpec,
        stdio: &[BorrowedFd<'_>; 3],
        streams: Option<Streams>,
    ) -> Result<Running, SandboxError> {
        if spec.argv.is_empty() {
            return Err(SandboxError::invalid("a program needs a name"));
        }
        if let Some(trees) = &spec.trees {
            trees.check()?;
        }
        let ask = Ask::Exec {
            sandbox: *id,
            argv: spec.argv,
            env: spec.env,
            cwd: spec.cwd,
            timeout_ms: spec.timeout_ms,
            trees: spec.trees,
            trust: spec.trust,
        };
        let (pid, exited) = self.launch(id, ask, stdio).await?;
        Ok(Running::new(self.clone(), *id, pid, exited, streams))
    }

    /// Starts a program or a file operation when its turn has come.
    async fn launch(
        &self,
        id: &SandboxId,
        ask: Ask,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(i32, oneshot::Receiver<Result<ExecExit, SandboxError>>), SandboxError> {
        let turns = self.0.link.turns(id)?;
        let turn =
            turns.acquire_owned().await.map_err(|_| SandboxError::NoSuchSandbox { id: id.0 })?;
        let (started, start) = oneshot::channel();
        let (exited, exit) = oneshot::channel();
        let waiting = Waiting::Program { sandbox: *id, started: Some(started), exited, turn };
        self.0.link.ask(ask, fds, waiting).await?;
        match start.await.unwrap_or(Err(SandboxError::SpawnerGone))? {
            (Answer::Started { pid }, _) => Ok((pid, exit)),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Does a file operation, under the sandbox's own confinement.
    ///
    /// # Errors
    /// What is wrong with the path, or the sandbox.
    pub async fn file_op(
        &self,
        id: &SandboxId,
        mut op: FileOp,
        trees: Option<Trees>,
    ) -> Result<FileResult, SandboxError> {
        let streams = |error: std::io::Error| SandboxError::setup("streams", error);
        let bytes = match &mut op {
            FileOp::Write { bytes, .. } => std::mem::take(bytes),
            _ => Vec::new(),
        };
        if bytes.len() as u64 > fileops::WRITE_BYTES_MAX {
            return Err(SandboxError::TooMany {
                what: "the size in bytes of a file to write".to_owned(),
                max: fileops::WRITE_BYTES_MAX,
            });
        }
        if op.path().is_empty() || op.path().contains('\0') {
            return Err(SandboxError::invalid("a path is empty or holds a NUL"));
        }
        let (input, mut feed) = crate::running::inward_pipe().map_err(streams)?;
        let (mut answer, output) = crate::running::outward_pipe().map_err(streams)?;
        let ask = Ask::File { sandbox: *id, op, trees };
        let (_, exited) = self.launch(id, ask, &[input.as_fd(), output.as_fd()]).await?;
        drop((input, output));
        let feeding = async move {
            // A reader that ended early says why in its own answer.
            let _ = feed.write_all(&bytes).await;
        };
        let mut got = Vec::new();
        let mut limited = (&mut answer).take(FILE_ANSWER_BYTES_MAX);
        let reading = limited.read_to_end(&mut got);
        let ((), read) = tokio::join!(feeding, reading);
        let exit = exited.await.unwrap_or(Err(SandboxError::SpawnerGone))?;
        read.map_err(streams)?;
        if exit.timed_out || exit.limit.is_some() {
            return Err(SandboxError::setup("a file operation", "it hit a limit and was ended"));
        }
        fileops::parse_answer(&got)
    }

    /// Kills everything in a sandbox but its init.
    ///
    /// # Errors
    /// When there is no such sandbox.
    pub async fn kill_all(&self, id: &SandboxId) -> Result<(), SandboxError> {
        self.call(Ask::KillAll { sandbox: *id }).await.map(drop)
    }

    /// Kills everything in a sandbox without waiting for it.
    pub(crate) fn kill_soon(&self, id: SandboxId) {
        self.0.link.tell(Ask::KillAll { sandbox: id });
    }

    /// Ends a sandbox; when this returns nothing of it is left but its layers. Ending one that is
    /// already gone is no error.
    ///
    /// # Errors
    /// When the spawner is gone.
    pub async fn destroy(&self, id: &SandboxId) -> Result<(), SandboxError> {
        let known = self.0.link.state().turns.remove(id);
        if let Some(turns) = known {
            turns.close();
        }
        match self.call(Ask::Destroy { sandbox: *id }).await {
            Ok(_) | Err(SandboxError::NoSuchSandbox { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn call(&self, ask: Ask) -> Result<(Answer, Vec<OwnedFd>), SandboxError> {
        let (reply, answer) = oneshot::channel();
        self.0.link.ask(ask, &[], Waiting::Once(reply)).await?;
        let limit = Duration::from_millis(CALL_MS_MAX);
        match tokio::time::timeout(limit, answer).await {
            Ok(answer) => answer.unwrap_or(Err(SandboxError::SpawnerGone)),
            Err(_) => Err(SandboxError::TooMany {
                what: "the time in milliseconds a call may take".to_owned(),
                max: CALL_MS_MAX,
            }),
        }
    }
}

#[cfg(not(feature = "weakened"))]
fn hello(_: SpawnerConfig) -> Hello {
    Hello::default()
}

#[cfg(feature = "weakened")]
fn hello(config: SpawnerConfig) -> Hello {
    Hello { weakened: crate::weaken::Weakened::new(config.weaken) }
}

fn unexpected(answer: &Answer) -> SandboxError {
    SandboxError::Frame { why: format!("an answer out of turn: {answer:?}") }
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it holds this lock")
    }

    fn turns(&self, id: &SandboxId) -> Result<Arc<Semaphore>, SandboxError> {
        let state = self.state();
        if state.gone {
            return Err(SandboxError::SpawnerGone);
        }
        let turns = state.turns.get(id).cloned();
        turns.ok_or(SandboxError::NoSuchSandbox { id: id.0 })
    }

    fn register(&self, waiting: Waiting) -> Result<u64, SandboxError> {
        let seq = self.seq.fetch_add(1, Ordering::Relaxed);
        let mut state = self.state();
        if state.gone {
            return Err(SandboxError::SpawnerGone);
        }
        state.waiting.insert(seq, waiting);
        Ok(seq)
    }

    async fn ask(
        &self,
        ask: Ask,
        fds: &[BorrowedFd<'_>],
        waiting: Waiting,
    ) -> Result<(), SandboxError> {
        let seq = self.register(waiting)?;
        let sent = match wire::encode(&AskFrame { seq, ask }) {
            Ok(bytes) => self.send(&bytes, fds).await,
            Err(error) => Err(error),
        };
        if sent.is_err() {
            self.state().waiting.remove(&seq);
        }
        sent
    }

    /// Asks something whose answer nobody waits for. Cannot wait, so it may be lost when the
    /// socket is full; what it asks for then happens at the latest when the spawner ends.
    fn tell(&self, ask: Ask) {
        if let Ok(seq) = self.register(Waiting::Nobody)
            && let Ok(bytes) = wire::encode(&AskFrame { seq, ask })
        {
            let _ = wire::send(self.socket.get_ref(), &bytes, &[]);
        }
    }

    async fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), SandboxError> {
        let write = |socket: &OwnedFd| Ok(wire::send(socket, bytes, fds)?);
        let sent = self.socket.async_io(Interest::WRITABLE, write).await;
        sent.map_err(|error: std::io::Error| match error.kind() {
            std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset => {
                SandboxError::SpawnerGone
            }
            _ => SandboxError::Frame { why: error.to_string() },
        })
    }

    fn deliver(&self, frame: AnswerFrame, fds: Vec<OwnedFd>) {
        let mut state = self.state();
        let Some(waiting) = state.waiting.remove(&frame.seq) else {
            return;
        };
        match waiting {
            Waiting::Nobody => {}
            Waiting::Once(reply) => {
                if let Ok(Answer::Created(sandbox)) = &frame.answer {
                    state.turns.insert(sandbox.id, Arc::new(Semaphore::new(1)));
                }
                drop(state);
                let answer = frame.answer.map(|answer| (answer, fds));
                if let Err(Ok((Answer::Created(sandbox), _))) = reply.send(answer) {
                    self.tell(Ask::Destroy { sandbox: sandbox.id });
                }
            }
            Waiting::Program { sandbox, started: Some(reply), exited, turn } => {
                let running = frame.answer.is_ok();
                if running {
                    let started = None;
                    let waiting = Waiting::Program { sandbox, started, exited, turn };
                    state.waiting.insert(frame.seq, waiting);
                }
                drop(state);
                if reply.send(frame.answer.map(|answer| (answer, fds))).is_err() && running {
                    self.tell(Ask::KillAll { sandbox });
                }
            }
            Waiting::Program { exited, turn, .. } => {
                drop(state);
                drop(turn);
                let result = frame.answer.and_then(|answer| match answer {
                    Answer::Exited(exit) => Ok(exit),
                    other => Err(unexpected(&other)),
                });
                let _ = exited.send(result);
            }
        }
    }

    /// The spawner is gone: so is every sandbox, and every call fails.
    fn fail_all(&self) {
        let waiting = {
            let mut state = self.state();
            state.gone = true;
            for turns in std::mem::take(&mut state.turns).into_values() {
                turns.close();
            }
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting.into_values() {
            match waiting {
                Waiting::Once(reply) => drop(reply.send(Err(SandboxError::SpawnerGone))),
                Waiting::Program { started, exited, .. } => {
                    if let Some(reply) = started {
                        let _ = reply.send(Err(SandboxError::SpawnerGone));
                    }
                    let _ = exited.send(Err(SandboxError::SpawnerGone));
                }
                Waiting::Nobody => {}
            }
        }
    }
}

/// Takes answers until the spawner is gone, then cleans up after it.
async fn read_answers(link: Arc<Link>, mut child: Child, gone: watch::Sender<bool>) {
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    let mut cgroups = Vec::new();
    loop {
        let read = |socket: &OwnedFd| Ok(wire::receive(socket, &mut buffer)?);
        let packet = link.socket.async_io(Interest::READABLE, read).await;
        let Ok(Some(packet)) = packet else { break };
        let Ok(frame) = wire::decode::<AnswerFrame>(&packet.bytes) else {
            break;
        };
        if let Ok(Answer::Ready { cgroups: paths }) = &frame.answer {
            cgroups.clone_from(paths);
        }
        link.deliver(frame, packet.fds);
    }
    link.fail_all();
    // A spawner that talks nonsense must not live on.
    let _ = rustix::net::shutdown(link.socket.get_ref(), rustix::net::Shutdown::Both);
    let waited = tokio::task::spawn_blocking(move || child.wait()).await;
    drop(waited);
    for _ in 0..SWEEP_TRIES {
        if cgroup::remove_left(&cgroups) {
            break;
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
    let _ = gone.send(true);
}

impl Running {
    /// A pipe to a program's standard input, when it was asked for.
    pub fn take_stdin(&mut self) -> Option<pipe::Sender> {
        self.stdin.take()
    }
}
