//! A running program as the owner sees it: its output, bounded; its input; its end.

use crate::SandboxError;
use crate::client::Spawner;
use crate::mode::Mode;
use crate::spec::{ExecExit, ExecSpec, OUTPUT_BYTES_DEFAULT, SandboxId, Stdin};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

/// Chunks of output waiting for a slow reader; then the program has to wait.
const CHUNKS_MAX: usize = 16;
/// Bytes of one chunk.
const CHUNK_BYTES_MAX: usize = 32 << 10;

/// Which stream a chunk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Where it was written.
    pub stream: Stream,
    /// What was written, not empty.
    pub bytes: Vec<u8>,
}

/// All a program wrote, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub exit: ExecExit,
    /// Standard output, as far as it was kept.
    pub stdout: Vec<u8>,
    /// Standard error, as far as it was kept.
    pub stderr: Vec<u8>,
    /// Bytes past the cap, counted and dropped.
    pub dropped_bytes: u64,
}

/// Counts output against its cap.
#[derive(Debug)]
pub(crate) struct Meter {
    left: AtomicU64,
    dropped: AtomicU64,
}

impl Meter {
    /// How many of `count` bytes may be kept; the rest is counted as dropped.
    fn take(&self, count: u64) -> u64 {
        let take = |left: u64| Some(left - left.min(count));
        let left = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .expect("the closure never refuses");
        let kept = left.min(count);
        self.dropped.fetch_add(count - kept, Ordering::Relaxed);
        kept
    }
}

/// The owner's ends of a program's streams.
#[derive(Debug)]
pub(crate) struct Streams {
    stdin: Option<pipe::Sender>,
    chunks: mpsc::Receiver<Chunk>,
    meter: Arc<Meter>,
}

/// Gives a pipe to the agent, as root: a program may open its own streams again by name
/// (`/dev/stderr`), and then it is the pipe's owner that counts.
fn hand_over(pipe: &OwnedFd) -> io::Result<()> {
    match Mode::here() {
        Mode::Root => {
            let id = Mode::Root.agent_id();
            let (uid, gid) = (rustix::fs::Uid::from_raw(id), rustix::fs::Gid::from_raw(id));
            Ok(rustix::fs::fchown(pipe, Some(uid), Some(gid))?)
        }
        Mode::User => Ok(()),
    }
}

/// A pipe whose reading end goes to the sandbox.
pub(crate) fn inward_pipe() -> io::Result<(OwnedFd, pipe::Sender)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    hand_over(&read)?;
    rustix::io::ioctl_fionbio(&write, true)?;
    Ok((read, pipe::Sender::from_owned_fd(write)?))
}

/// A pipe whose writing end goes to the sandbox.
pub(crate) fn outward_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    hand_over(&write)?;
    rustix::io::ioctl_fionbio(&read, true)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

/// Our ends of three streams and the program's ends, with tasks that move the bytes.
pub(crate) fn open_streams(
    stdin: Stdin,
    output_bytes_max: u64,
) -> io::Result<(Streams, [OwnedFd; 3])> {
    let (input, sender) = match stdin {
        Stdin::Null => (std::fs::File::open("/dev/null")?.into(), None),
        Stdin::Pipe => {
            let (read, write) = inward_pipe()?;
            (read, Some(write))
        }
        Stdin::Bytes(bytes) => {
            let (read, mut write) = inward_pipe()?;
            tokio::spawn(async move {
                // A program that does not read its input is no error.
                let _ = write.write_all(&bytes).await;
            });
            (read, None)
        }
    };
    let cap = match output_bytes_max {
        0 => OUTPUT_BYTES_DEFAULT,
        bytes => bytes,
    };
    let meter = Arc::new(Meter { left: AtomicU64::new(cap), dropped: AtomicU64::new(0) });
    let (sink, chunks) = mpsc::channel(CHUNKS_MAX);
    let (stdout, output) = outward_pipe()?;
    let (stderr, errors) = outward_pipe()?;
    tokio::spawn(pump(stdout, Stream::Stdout, sink.clone(), Arc::clone(&meter)));
    tokio::spawn(pump(stderr, Stream::Stderr, sink, Arc::clone(&meter)));
    let streams = Streams { stdin: sender, chunks, meter };
    Ok((streams, [input, output, errors]))
}

impl Streams {
    pub(crate) fn make(spec: &ExecSpec) -> Result<(Self, [OwnedFd; 3]), SandboxError> {
        open_streams(spec.stdin.clone(), spec.output_bytes_max)
            .map_err(|error| SandboxError::setup("streams", error))
    }

    /// The next chunk, `None` when both streams have ended.
    pub(crate) async fn next(&mut self) -> Option<Chunk> {
        self.chunks.recv().await
    }

    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.meter.dropped.load(Ordering::Relaxed)
    }

    /// Everything that is kept of both streams, until they end.
    pub(crate) async fn collect(&mut self) -> (Vec<u8>, Vec<u8>) {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = self.next().await {
            match chunk.stream {
                Stream::Stdout => stdout.extend(chunk.bytes),
                Stream::Stderr => stderr.extend(chunk.bytes),
            }
        }
        (stdout, stderr)
    }
}

/// Moves one stream into the channel. When nobody listens any more it still drains the pipe, so
/// that the program is not held up.
async fn pump(
    mut pipe: pipe::Receiver,
    stream: Stream,
    sink: mpsc::Sender<Chunk>,
    meter: Arc<Meter>,
) {
    let mut buffer = vec![0; CHUNK_BYTES_MAX];
    while let Ok(count) = pipe.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        let kept = meter.take(count as u64) as usize;
        if kept > 0 {
            let bytes = buffer[..kept].to_vec();
            let _ = sink.send(Chunk { stream, bytes }).await;
        }
    }
}

/// A program that was started. Dropping it kills everything in its sandbox.
#[derive(Debug)]
pub struct Running {
    spawner: Spawner,
    sandbox: SandboxId,
    pid: i32,
    exited: Option<oneshot::Receiver<Result<ExecExit, SandboxError>>>,
    result: Option<Result<ExecExit, SandboxError>>,
    pub(crate) stdin: Option<pipe::Sender>,
    streams: Option<Streams>,
}

impl Running {
    pub(crate) fn new(
        spawner: Spawner,
        sandbox: SandboxId,
        pid: i32,
        exited: oneshot::Receiver<Result<ExecExit, SandboxError>>,
        mut streams: Option<Streams>,
    ) -> Self {
        Self {
            spawner,
            sandbox,
            pid,
            exited: Some(exited),
            result: None,
            stdin: streams.as_mut().and_then(|streams| streams.stdin.take()),
            streams,
        }
    }

    /// Its pid on the host.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// The next piece of output; `None` when there will be no more.
    pub async fn next(&mut self) -> Option<Chunk> {
        self.streams.as_mut()?.next().await
    }

    /// Bytes past the output cap so far.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.streams.as_ref().map_or(0, Streams::dropped_bytes)
    }

    /// How it ended. When this returns, everything it started is gone. Output that nobody takes
    /// with [`Running::next`] can hold the program up; [`Running::finish`] takes it all.
    ///
    /// # Errors
    /// When the program could not be executed, or the spawner died.
    pub async fn exit(&mut self) -> Result<ExecExit, SandboxError> {
        if let Some(exited) = self.exited.as_mut() {
            let result = exited.await.unwrap_or(Err(SandboxError::SpawnerGone));
            self.exited = None;
            self.result = Some(result);
        }
        self.result.clone().expect("set when the end was seen")
    }

    /// Collects all output and the end.
    ///
    /// # Errors
    /// As [`Running::exit`].
    pub async fn finish(mut self) -> Result<Finished, SandboxError> {
        let (stdout, stderr) = match self.streams.as_mut() {
            Some(streams) => streams.collect().await,
            None => Default::default(),
        };
        let exit = self.exit().await?;
        Ok(Finished { exit, stdout, stderr, dropped_bytes: self.dropped_bytes() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.exited.as_mut().is_some_and(|exited| exited.try_recv().is_err()) {
            self.spawner.kill_soon(self.sandbox);
        }
    }
}
