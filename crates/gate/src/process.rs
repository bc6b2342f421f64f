//! The gate process: reads requests, works on many at once, answers each.
//!
//! One thread. What must be read from the host (certificates, resolver configuration) is read
//! first; then the process is confined; only then does it read the socket. It ends when the owner
//! closes it.

use crate::confine::confine;
use crate::error::GateError;
use crate::frame::{self, Attachment, Frame, Received};
use crate::guests::Relay;
use crate::hostile::{as_of_in, check_value, compile, parse_json, read_output};
use crate::limits::{IN_FLIGHT_MAX, KEPT_FRAMES_MAX, KEPT_MS_MAX, PREPARED_MAX, QUEUE_FRAMES_MAX};
use crate::message::{Event, ModelCall, PrivacyOrder, Request, ToGate, ToOwner};
use crate::nets::{HostNet, Nets, Said};
use crate::privacy::{Back, Outgoing, Refused, Router};
use crate::scripts::Scripts;
use bytes::Bytes;
use models::{Client, Endpoint, Estimate, ModelRequest, Piece, Secret};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use types::{Coded as _, Digest};
use zeroize::Zeroizing;

/// The whole life of a gate process: the socket to the owner is its standard input. Returns when
/// the owner closes it.
///
/// # Errors
/// [`GateError::CannotStart`] when standard input is no socket; [`GateError::NotConfined`], which
/// the owner is told first; [`GateError::Protocol`] when the owner sends what is no frame.
pub fn gate_main() -> Result<(), GateError> {
    let cannot = |why: String| GateError::CannotStart { why };
    let socket =
        std::io::stdin().as_fd().try_clone_to_owned().map_err(|error| cannot(error.to_string()))?;
    let socket = StdUnixStream::from(socket);
    socket.set_nonblocking(true).map_err(|error| cannot(error.to_string()))?;
    let descriptors = std::io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| cannot(error.to_string()))?;
    let authorities = models::host_authorities();
    let models = Client::trusting(authorities.iter().cloned());
    let host = HostNet::read(authorities);
    let confined = confine();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| cannot(error.to_string()))?;
    runtime.block_on(async {
        let socket = UnixStream::from_std(socket).map_err(|error| cannot(error.to_string()))?;
        let (read, mut write) = socket.into_split();
        let failure = confined.as_ref().err().map(GateError::failure);
        let ready = ToOwner { id: 0, event: Event::Ready { failure } };
        let said = Frame::new(&ready, Vec::new())?.write(&mut write).await;
        said.map_err(|_| GateError::Died)?;
        confined?;
        serve(read, write, models, (host, descriptors)).await
    })
}

/// What the requests share.
struct Shared {
    models: Client,
    nets: Nets,
    scripts: Scripts,
    router: Router,
    prepared: Mutex<PreparedCalls>,
    running: Mutex<HashMap<u64, AbortHandle>>,
    out: mpsc::Sender<Frame>,
}

/// Calls that are encoded and not sent, oldest first.
#[derive(Default)]
struct PreparedCalls {
    next: u64,
    calls: BTreeMap<u64, PreparedCall>,
}

struct PreparedCall {
    endpoint: Endpoint,
    model: String,
    bytes: Bytes,
    /// The guest that waits for the reply, if it is one's.
    guest: Option<Relay>,
    back: Back,
}

type Attachments = Vec<Zeroizing<Vec<u8>>>;

async fn serve(
    mut read: OwnedReadHalf,
    write: OwnedWriteHalf,
    models: Client,
    (host, descriptors): (HostNet, OwnedFd),
) -> Result<(), GateError> {
    let (out, frames) = mpsc::channel(QUEUE_FRAMES_MAX);
    let (asking, questions) = mpsc::unbounded_channel();
    tokio::spawn(frame::write_queue(write, frames));
    tokio::spawn(pass_on(questions, out.clone()));
    let shared = Arc::new(Shared {
        models,
        nets: Nets::new(host, descriptors, asking),
        scripts: Scripts::default(),
        router: Router::default(),
        prepared: Mutex::default(),
        running: Mutex::default(),
        out,
    });
    while let Some(received) = frame::read::<ToGate>(&mut read).await? {
        let Received { header: ToGate { id, request }, attachments } = received;
        match request {
            Request::Cancel { of } => {
                if let Some(task) = lock(&shared.running).remove(&of) {
                    task.abort();
                }
            }
            Request::Release { prepared } => {
                lock(&shared.prepared).calls.remove(&prepared);
            }
            Request::NetVerdict { ask, verdict } => {
                let secrets = attachments.into_iter().next().unwrap_or_default();
                shared.nets.verdict(ask, verdict, secrets);
            }
            Request::GuestNoted { ask, record } => shared.nets.guests.noted(ask, record),
            Request::GuestFinish { ask } => shared.nets.guests.finish(ask),
            Request::GuestRefuse { ask, status, failure, retry_after_ms } => {
                shared.nets.guests.refuse(ask, status, &failure, retry_after_ms);
            }
            Request::GuestServe { ask, native, answer } => {
                let raw = attachments.into_iter().next().map(|mut raw| std::mem::take(&mut *raw));
                shared.nets.guests.serve(ask, &answer, native, raw.unwrap_or_default());
            }
            Request::NetClose { net } => shared.nets.close(net),
            Request::NetRecheck { net } => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { shared.nets.recheck(net).await });
            }
            request => start(&shared, id, request, attachments).await,
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds a lock")
}

/// What networks say, in order, behind what waits already. What nobody waits for goes with the
/// next frame that somebody does, or soon: the owner need not wake up for it alone.
async fn pass_on(mut said: mpsc::UnboundedReceiver<Said>, out: mpsc::Sender<Frame>) {
    let mut kept = VecDeque::new();
    let mut due = None;
    loop {
        let heard = match due {
            Some(due) => tokio::time::timeout_at(due, said.recv()).await.ok(),
            None => Some(said.recv().await),
        };
        match heard {
            Some(Some(Said { frame, waits })) => {
                kept.push_back(frame);
                if waits && kept.len() < KEPT_FRAMES_MAX {
                    due.get_or_insert_with(|| Instant::now() + Duration::from_millis(KEPT_MS_MAX));
                    continue;
                }
            }
            Some(None) => return,
            None => {}
        }
        due = None;
        for frame in kept.drain(..) {
            if out.send(frame).await.is_err() {
                return;
            }
        }
    }
}

/// Works on a request in a task of its own.
async fn start(shared: &Arc<Shared>, id: u64, request: Request, attachments: Attachments) {
    if lock(&shared.running).len() >= IN_FLIGHT_MAX {
        let busy = GateError::Busy { limit: IN_FLIGHT_MAX };
        shared.say(id, failed(&busy), None).await;
        return;
    }
    let worker = shared.clone();
    // The lock is held until the task is known, so that it cannot end before it is there.
    let mut running = lock(&shared.running);
    let task = tokio::spawn(async move {
        let (event, attachment) = worker.perform(id, request, attachments).await;
        worker.say(id, event, attachment).await;
        lock(&worker.running).remove(&id);
    });
    running.insert(id, task.abort_handle());
}

fn failed(error: &GateError) -> Event {
    failed_with(error)
}

fn failed_with(error: &dyn types::Coded) -> Event {
    Event::Failed { failure: error.failure() }
}

fn withheld(refused: Refused) -> (Event, Option<Vec<u8>>) {
    (Event::Withheld { failure: refused.failure, findings: refused.findings }, None)
}

fn or_failed(result: Result<Event, GateError>) -> Event {
    result.unwrap_or_else(|error| failed(&error))
}

impl Shared {
    async fn say(&self, id: u64, event: Event, attachment: Option<Vec<u8>>) {
        let attached: Vec<Attachment> =
            attachment.into_iter().map(|bytes| Attachment::Plain(bytes.into())).collect();
        let frame = Frame::new(&ToOwner { id, event }, attached).or_else(|error| {
            let event = failed(&error);
            Frame::new(&ToOwner { id, event }, Vec::new())
        });
        if let Ok(frame) = frame {
            // When nobody reads, the owner is gone and so is this process soon.
            let _ = self.out.send(frame).await;
        }
    }

    async fn perform(
        &self,
        id: u64,
        request: Request,
        mut attachments: Attachments,
    ) -> (Event, Option<Vec<u8>>) {
        let first = attachments.first_mut().map(|bytes| std::mem::take(&mut **bytes));
        let event = match request {
            Request::Send { prepared } => {
                return self.send(id, prepared, first.map(Secret::new)).await;
            }
            Request::Prepare { call, privacy } => {
                let kept = Zeroizing::new(first.unwrap_or_default());
                return self.prepare(*call, &privacy, &kept);
            }
            Request::ScriptStart { name, instance } => {
                self.scripts.start(&name, &first.unwrap_or_default(), &instance).await
            }
            Request::ParseJson { schema, as_of } => {
                or_failed(parse_json(&first.unwrap_or_default(), schema.as_ref()).map(|value| {
                    Event::Json { as_of: as_of.map(|field| as_of_in(&value, &field)), value }
                }))
            }
            Request::CheckArguments { value, schema } => {
                or_failed(check_value(&value, &schema).map(|()| Event::Good))
            }
            Request::CompileSchema { schema } => or_failed(compile(&schema).map(|_| Event::Good)),
            Request::ReadOutput { cap_bytes } => {
                let cap = usize::try_from(cap_bytes).unwrap_or(usize::MAX);
                let read = read_output(&first.unwrap_or_default(), cap);
                or_failed(read.map(|read| Event::Text { read }))
            }
            Request::NetOpen { net, config } => {
                let authority = first.map(Zeroizing::new);
                return match self.nets.open(net, *config, authority) {
                    Ok((certificate, key)) => {
                        (Event::NetOpened { certificate }, Some(key.to_vec()))
                    }
                    Err(error) => (failed(&error), None),
                };
            }
            Request::GuestPrepare { ask, endpoint, model, privacy } => {
                let kept = Zeroizing::new(first.unwrap_or_default());
                return self.prepare_guest(ask, (*endpoint, model), &privacy, &kept);
            }
            Request::GuestNoted { .. }
            | Request::GuestFinish { .. }
            | Request::GuestRefuse { .. }
            | Request::GuestServe { .. }
            | Request::Release { .. }
            | Request::Cancel { .. }
            | Request::NetVerdict { .. }
            | Request::NetClose { .. }
            | Request::NetRecheck { .. } => Event::Good,
        };
        (event, None)
    }

    /// Encodes a call and passes it through the privacy router.
    fn prepare(
        &self,
        call: ModelCall,
        privacy: &PrivacyOrder,
        kept: &[u8],
    ) -> (Event, Option<Vec<u8>>) {
        let request = ModelRequest {
            provider: call.endpoint.provider.clone(),
            model: call.model,
            instructions: call.instructions,
            items: call.items,
            tools: call.tools,
            max_output_tokens: call.max_output_tokens,
        };
        let encoded = match models::encode(call.endpoint.dialect, &request) {
            Ok(encoded) => encoded,
            Err(error) => {
                let fault = error.fault(0, None);
                return (Event::Faulted { fault }, None);
            }
        };
        let outgoing = match self.router.outgoing(privacy, kept, encoded) {
            Ok(outgoing) => outgoing,
            Err(refused) => return withheld(refused),
        };
        let bytes = outgoing.bytes.len() as u64;
        let estimate = models::estimate(bytes, request.max_output_tokens);
        let (endpoint, model) = (call.endpoint, request.model);
        self.keep(endpoint, model, outgoing, estimate, None)
    }

    /// The same for a guest's own request.
    fn prepare_guest(
        &self,
        ask: u64,
        (endpoint, model): (Endpoint, String),
        privacy: &PrivacyOrder,
        kept: &[u8],
    ) -> (Event, Option<Vec<u8>>) {
        let encoded = match self.nets.guests.prepare(ask, &endpoint, &model) {
            Ok(encoded) => encoded,
            Err(fault) => return (Event::Faulted { fault }, None),
        };
        let outgoing = match self.router.outgoing(privacy, kept, encoded.bytes.to_vec()) {
            Ok(outgoing) => outgoing,
            Err(refused) => return withheld(refused),
        };
        let relay = encoded.relay.through(&outgoing.back);
        self.keep(endpoint, model, outgoing, encoded.estimate, Some(relay))
    }

    /// Keeps a call until it is sent; the oldest makes room.
    fn keep(
        &self,
        endpoint: Endpoint,
        model: String,
        outgoing: Outgoing,
        estimate: Estimate,
        guest: Option<Relay>,
    ) -> (Event, Option<Vec<u8>>) {
        let Outgoing { bytes, findings, unsaved, back } = outgoing;
        let mut prepared = lock(&self.prepared);
        prepared.next += 1;
        let number = prepared.next;
        let event = Event::Prepared {
            prepared: number,
            digest: Digest::of(&bytes),
            bytes: bytes.len() as u64,
            input_tokens: estimate.input_tokens,
            output_tokens: estimate.output_tokens,
            findings: Box::new(findings),
        };
        let call = PreparedCall { endpoint, model, bytes, guest, back };
        if prepared.calls.len() >= PREPARED_MAX {
            prepared.calls.pop_first();
        }
        prepared.calls.insert(number, call);
        (event, unsaved.map(|lines| lines.to_vec()))
    }

    /// The key is wiped when this returns.
    async fn send(&self, id: u64, prepared: u64, key: Option<Secret>) -> (Event, Option<Vec<u8>>) {
        let Some(call) = lock(&self.prepared).calls.remove(&prepared) else {
            return (failed(&GateError::NotPrepared), None);
        };
        let headers = call.guest.as_ref().map(Relay::headers).unwrap_or_default();
        let mut guest = call.guest;
        let say = |text: String| {
            if text.is_empty() {
                return;
            }
            let event = Event::Delta { text };
            // When the owner reads slowly, pieces are left out: the answer has all of them.
            if let Ok(frame) = Frame::new(&ToOwner { id, event }, Vec::new()) {
                let _ = self.out.try_send(frame);
            }
        };
        let mut stream = call.back.stream();
        let mut on_piece = |piece: Piece<'_>| match (&mut guest, piece) {
            (Some(guest), Piece::Text(text)) => guest.piece(Piece::Text(&stream.push(text))),
            (Some(guest), raw) => guest.piece(raw),
            (None, Piece::Text(text)) => say(stream.push(text)),
            (None, Piece::Raw(_)) => {}
        };
        let called = self
            .models
            .relay(&call.endpoint, &call.model, key.as_ref(), &headers, call.bytes, &mut on_piece)
            .await;
        let rest = stream.finish();
        match called {
            Ok(reply) => {
                let mut answer = Box::new(reply.answer);
                let restored = match call.back.answer(&mut answer) {
                    Ok(restored) => restored,
                    Err(error) => return (failed_with(&error), Some(reply.raw)),
                };
                match guest {
                    Some(mut guest) => {
                        guest.piece(Piece::Text(&rest));
                        guest.answered(&answer);
                    }
                    None => say(rest),
                }
                let http_status = reply.http_status;
                (Event::Answered { answer, http_status, restored }, Some(reply.raw))
            }
            Err(fault) => {
                if let Some(guest) = guest {
                    guest.failed(&fault.fault);
                }
                (Event::Faulted { fault: fault.fault }, Some(fault.raw))
            }
        }
    }
}
