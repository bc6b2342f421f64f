//! The owner's side of one gate process: its socket, and who waits for what.
//!
//! ```text
//!  Starting --Ready--> Live --end of file, bad frame--> Dead   (every waiter is told at once)
//! ```

use crate::GATE_ARGUMENT;
use crate::error::GateError;
use crate::frame::{self, Attachment, Frame, Received};
use crate::limits::{DELTAS_MAX, QUEUE_FRAMES_MAX, START_MS_MAX};
use crate::message::{Event, NetQuestion, Request, ToGate, ToOwner};
use crate::network::{NetMessage, Token};
use bytes::Bytes;
use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};

/// Bytes of frames that are read at once.
const READ_BYTES: usize = 64 << 10;

/// Variables the gate may see: where the host keeps its certificates.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// One gate process.
#[derive(Debug)]
pub(crate) struct Link {
    queue: mpsc::Sender<Frame>,
    waiting: Arc<Waiting>,
    next_id: AtomicU64,
    /// By which descriptors go.
    descriptors: OwnedFd,
    /// Killed when the link is dropped.
    child: Child,
}

/// The last event of a request, and its attachment.
pub(crate) type Last = (Event, Bytes);

#[derive(Debug, Default)]
struct Waiting {
    /// `None` once the process is gone.
    by_id: Mutex<Option<HashMap<u64, Waiter>>>,
    /// Who hears what networks ask. Empty once the process is gone.
    nets: Mutex<HashMap<u64, mpsc::UnboundedSender<NetMessage>>>,
}

#[derive(Debug)]
struct Waiter {
    last: oneshot::Sender<Last>,
    deltas: Option<mpsc::Sender<String>>,
}

/// A request on its way. Dropping it gives the request up.
#[derive(Debug)]
pub(crate) struct Pending {
    id: u64,
    link: Arc<Link>,
    last: oneshot::Receiver<Last>,
    /// Text as it comes.
    pub(crate) deltas: mpsc::Receiver<String>,
    over: bool,
}

impl Link {
    /// Starts a gate process and waits until it is confined and reads.
    ///
    /// # Errors
    /// [`GateError::CannotStart`]; what the process itself says when it is not confined.
    pub(crate) async fn start(exe: &Path) -> Result<Arc<Self>, GateError> {
        let cannot = |why: String| GateError::CannotStart { why };
        let (ours, theirs) = StdUnixStream::pair().map_err(|error| cannot(error.to_string()))?;
        ours.set_nonblocking(true).map_err(|error| cannot(error.to_string()))?;
        let ours = UnixStream::from_std(ours).map_err(|error| cannot(error.to_string()))?;
        let flags = rustix::net::SocketFlags::CLOEXEC;
        let (descriptors, inherited) = rustix::net::socketpair(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::SEQPACKET,
            flags,
            None,
        )
        .map_err(|error| cannot(error.to_string()))?;
        let child = Command::new(exe)
            .arg(GATE_ARGUMENT)
            .env_clear()
            .envs(VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(inherited))
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| cannot(error.to_string()))?;
        let (mut read, write) = ours.into_split();
        let start = Duration::from_millis(START_MS_MAX);
        match tokio::time::timeout(start, ready(&mut read)).await {
            Ok(said) => said?,
            Err(_) => return Err(cannot(format!("it was not ready within {START_MS_MAX} ms"))),
        }
        let by_id = Mutex::new(Some(HashMap::new()));
        let waiting = Arc::new(Waiting { by_id, nets: Mutex::default() });
        let (queue, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
        tokio::spawn(frame::write_queue(write, frames));
        tokio::spawn(read_frames(read, waiting.clone()));
        Ok(Arc::new(Self { queue, waiting, next_id: AtomicU64::new(1), descriptors, child }))
    }

    /// Whether the process still answers.
    pub(crate) fn is_live(&self) -> bool {
        self.waiting.by_id.lock().is_ok_and(|waiting| waiting.is_some()) && !self.queue.is_closed()
    }

    /// The process's id, for those who watch it.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`GateError::Died`], [`GateError::FrameTooLarge`].
    pub(crate) async fn ask(
        self: &Arc<Self>,
        request: Request,
        attachments: Vec<Attachment>,
    ) -> Result<Pending, GateError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (last, last_receiver) = oneshot::channel();
        let (deltas, deltas_receiver) = mpsc::channel(DELTAS_MAX);
        let frame = Frame::new(&ToGate { id, request }, attachments)?;
        self.waiting.add(id, Waiter { last, deltas: Some(deltas) })?;
        let pending = Pending {
            id,
            link: self.clone(),
            last: last_receiver,
            deltas: deltas_receiver,
            over: false,
        };
        self.queue.send(frame).await.map_err(|_| GateError::Died)?;
        Ok(pending)
    }

    /// Sends what gets no answer, and waits for room; lost when the process is gone.
    pub(crate) async fn send(&self, request: Request, attachments: Vec<Attachment>) {
        if let Ok(frame) = Frame::new(&ToGate { id: 0, request }, attachments) {
            let _ = self.queue.send(frame).await;
        }
    }

    /// A number for a network, and what it will say.
    pub(crate) fn new_net(&self) -> (u64, mpsc::UnboundedReceiver<NetMessage>) {
        let net = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut nets = self.waiting.nets.lock().expect("nothing panics while it holds the map");
        // When the process is gone already the receiver ends at once.
        if self.waiting.by_id.lock().is_ok_and(|by_id| by_id.is_some()) {
            nets.insert(net, sender);
        }
        (net, receiver)
    }

    /// Nobody listens to this network any more.
    pub(crate) fn end_net(&self, net: u64) {
        self.waiting.nets.lock().expect("nothing panics while it holds the map").remove(&net);
    }

    /// Sends descriptors, under a number that a request then names.
    pub(crate) fn send_descriptors(
        &self,
        number: u64,
        fds: &[BorrowedFd<'_>],
    ) -> std::io::Result<()> {
        sandbox::send_descriptors(&self.descriptors, number, fds)
    }

    /// Sends what gets no answer; lost when the process is gone or the queue is full, which both
    /// are harmless: the gate forgets by itself.
    pub(crate) fn tell(&self, request: Request) {
        if let Ok(frame) = Frame::new(&ToGate { id: 0, request }, Vec::new()) {
            let _ = self.queue.try_send(frame);
        }
    }
}

impl Pending {
    /// The next piece of text; `None` when there will be none.
    pub(crate) async fn delta(&mut self) -> Option<String> {
        self.deltas.recv().await
    }

    /// Waits for the end of the request.
    ///
    /// # Errors
    /// [`GateError::Died`].
    pub(crate) async fn last(mut self) -> Result<Last, GateError> {
        let last = (&mut self.last).await;
        self.over = true;
        last.map_err(|_| GateError::Died)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.over {
            self.link.waiting.take(self.id);
            self.link.tell(Request::Cancel { of: self.id });
        }
    }
}

impl Waiting {
    fn add(&self, id: u64, waiter: Waiter) -> Result<(), GateError> {
        let mut waiting = self.by_id.lock().expect("nothing panics while it holds the map");
        waiting.as_mut().ok_or(GateError::Died)?.insert(id, waiter);
        Ok(())
    }

    fn take(&self, id: u64) -> Option<Waiter> {
        let mut waiting = self.by_id.lock().expect("nothing panics while it holds the map");
        waiting.as_mut()?.remove(&id)
    }

    fn delta(&self, id: u64, text: String) {
        let waiting = self.by_id.lock().expect("nothing panics while it holds the map");
        let waiter = waiting.as_ref().and_then(|waiting| waiting.get(&id));
        if let Some(deltas) = waiter.and_then(|waiter| waiter.deltas.as_ref()) {
            // A slow reader misses pieces; the answer has all of them.
            let _ = deltas.try_send(text);
        }
    }

    /// What a network says, to who listens.
    fn say(&self, net: u64, message: NetMessage) {
        let nets = self.nets.lock().expect("nothing panics while it holds the map");
        if let Some(sender) = nets.get(&net) {
            let _ = sender.send(message);
        }
    }

    /// Tells every waiter that the process is gone.
    fn end(&self) {
        let waiters = self.by_id.lock().expect("nothing panics while it holds the map").take();
        drop(waiters);
        self.nets.lock().expect("nothing panics while it holds the map").clear();
    }
}

async fn ready(read: &mut OwnedReadHalf) -> Result<(), GateError> {
    let why = match frame::read::<ToOwner>(read).await {
        Ok(Some(Received { header: ToOwner { event: Event::Ready { failure }, .. }, .. })) => {
            match failure {
                None => return Ok(()),
                Some(failure) => {
                    return Err(GateError::NotConfined { why: failure.message });
                }
            }
        }
        Ok(Some(_)) => "its first word was not that it is ready".to_owned(),
        Ok(None) => "it ended at once".to_owned(),
        Err(error) => error.to_string(),
    };
    Err(GateError::CannotStart { why })
}

async fn read_frames(read: OwnedReadHalf, waiting: Arc<Waiting>) {
    // A frame has several parts: one call to the system takes in many.
    let mut read = BufReader::with_capacity(READ_BYTES, read);
    while let Ok(Some(mut received)) = frame::read::<ToOwner>(&mut read).await {
        let ToOwner { id, event } = received.header;
        let event = match event {
            Event::Delta { text } => {
                waiting.delta(id, text);
                continue;
            }
            Event::NetAsked { net, ask, mut question } => {
                if let NetQuestion::Model { ask } = &mut question {
                    let body = received.attachments.first_mut();
                    ask.body = body.map(|b| std::mem::take(&mut **b)).unwrap_or_default().into();
                }
                waiting.say(net, NetMessage::Asked { ask, question });
                continue;
            }
            Event::NetWithdrawn { net, ask } => {
                waiting.say(net, NetMessage::Withdrawn { ask });
                continue;
            }
            Event::NetPassed { net, permit, passage, sent } => {
                waiting.say(net, NetMessage::Passed { permit, passage, sent });
                continue;
            }
            Event::NetKept { net, permit, nothing } => {
                let bytes = received.attachments.pop();
                let bytes = bytes.map(|mut bytes| std::mem::take(&mut *bytes));
                let answer = nothing.map_or_else(|| Ok(bytes.unwrap_or_default()), Err);
                waiting.say(net, NetMessage::Kept { permit, answer });
                continue;
            }
            Event::NetMinted { net, placeholder, expires_s } => {
                // A token is text; what is none is not kept.
                let token = received.attachments.pop().and_then(|bytes| {
                    std::str::from_utf8(&bytes).ok().map(|text| Token::new(text.to_owned()))
                });
                if let Some(token) = token {
                    waiting.say(net, NetMessage::Minted { placeholder, token, expires_s });
                }
                continue;
            }
            other => other,
        };
        let attachment = received.attachments.first_mut().map(|bytes| std::mem::take(&mut **bytes));
        if let Some(waiter) = waiting.take(id) {
            let _ = waiter.last.send((event, attachment.unwrap_or_default().into()));
        }
    }
    waiting.end();
}
