//! In the gate process: guests' calls of models, from the endpoint of their sandbox to an answer.
//!
//! ```text
//!  guest --HTTP--> Door --Model--> owner --GuestPrepare, Send--> relayed as it comes, but its end
//!                                        --GuestFinish---------> the end      (it is recorded)
//!                                        --GuestServe----------> an answer of the log
//!                                        --GuestRefuse---------> an error in the guest's dialect
//! ```
//!
//! What always holds: nothing of a request leaves before the owner sends it; a guest has the end of
//! an answer only when the owner has recorded it, so that what it does about it comes after. What is
//! never here: a policy, a budget, the choice of a model, a provider's key beyond one request.

mod bodies;
mod door;
mod relay;

pub(crate) use door::Door;
pub(crate) use relay::Relay;

use crate::error::GateError;
use bodies::Bodies;
use bytes::Bytes;
use models::guest::{self, GuestFault, GuestRequest, HttpReply, Renderer};
use models::{Answer, Endpoint, Estimate};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use types::{Coded as _, Digest, Failure, ModelFault};

/// What a guest's connection is told.
#[derive(Debug)]
enum Said {
    /// The answer begins, with content of this type.
    Begin(&'static str),
    /// Some of it.
    Part(Bytes),
    /// All there is to say.
    Whole(HttpReply),
}

/// A guest's call that has no answer yet.
#[derive(Debug)]
pub(crate) struct Call {
    request: GuestRequest,
    /// Those that a provider of the guest's own dialect needs.
    headers: Vec<(String, String)>,
    body: Bytes,
    digest: Digest,
    bodies: Arc<Mutex<Bodies>>,
    /// Bounded by what one reply of a provider may have.
    said: mpsc::UnboundedSender<Said>,
    /// What is kept back until the answer is recorded.
    rest: Mutex<Vec<Said>>,
}

impl Call {
    fn say(&self, said: Said) {
        // A guest that has gone is told nothing; its answer is recorded all the same.
        let _ = self.said.send(said);
    }

    fn renderer(&self) -> Renderer {
        Renderer::of(&self.request, self.digest)
    }
}

/// All calls of this process that wait, by the number of their question.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    waiting: Mutex<HashMap<u64, Arc<Call>>>,
}

/// A guest's request, encoded for an endpoint.
pub(crate) struct Encoded {
    pub(crate) bytes: Bytes,
    pub(crate) estimate: Estimate,
    pub(crate) relay: Relay,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds a lock")
}

impl Calls {
    /// Keeps a call until it is answered, or its guest has gone.
    pub(crate) fn enter(&self, ask: u64, call: Arc<Call>) {
        let mut waiting = lock(&self.waiting);
        waiting.retain(|_, call| !call.said.is_closed());
        waiting.insert(ask, call);
    }

    fn take(&self, ask: u64) -> Option<Arc<Call>> {
        lock(&self.waiting).remove(&ask)
    }

    fn find(&self, ask: u64) -> Option<Arc<Call>> {
        lock(&self.waiting).get(&ask).cloned()
    }

    /// Encodes the request for an endpoint.
    pub(crate) fn prepare(
        self: &Arc<Self>,
        ask: u64,
        endpoint: &Endpoint,
        model: &str,
    ) -> Result<Encoded, ModelFault> {
        let call = self.find(ask).ok_or_else(|| GateError::GuestGone.fault())?;
        let provider = endpoint.provider.as_str();
        let bytes = call.request.encode_for(endpoint.dialect, provider, model);
        let bytes: Bytes = bytes.map_err(|error| error.fault(0, None))?.into();
        let native = guest::is_native(&call.request, endpoint.dialect, provider);
        let wanted = call.request.model_request(provider, model).max_output_tokens;
        let wanted = if native { call.request.max_output_tokens.unwrap_or(wanted) } else { wanted };
        let estimate = models::estimate(bytes.len() as u64, wanted);
        Ok(Encoded { bytes, estimate, relay: Relay::new(Arc::clone(self), ask, call, native) })
    }

    /// The record that announced a call.
    pub(crate) fn noted(&self, ask: u64, record: u64) {
        if let Some(call) = self.find(ask) {
            lock(&call.bodies).note(record, call.body.clone());
        }
    }

    /// The answer is recorded.
    pub(crate) fn finish(&self, ask: u64) {
        if let Some(call) = self.take(ask) {
            let rest = std::mem::take(&mut *lock(&call.rest));
            rest.into_iter().for_each(|said| call.say(said));
        }
    }

    /// There is no answer.
    pub(crate) fn refuse(&self, ask: u64, status: u16, failure: &Failure, after_ms: Option<u64>) {
        if let Some(call) = self.take(ask) {
            let status = status.clamp(400, 599);
            let message = format!("{}. {}", failure.message.trim_end_matches('.'), failure.next);
            let mut fault = GuestFault::new(status, &failure.code, &message);
            fault.retry_after_ms = after_ms;
            call.say(Said::Whole(guest::render_error(call.request.dialect, &fault)));
        }
    }

    /// An answer of the log.
    pub(crate) fn serve(&self, ask: u64, answer: &Answer, native: bool, raw: Vec<u8>) {
        let Some(call) = self.take(ask) else { return };
        let mut renderer = call.renderer();
        call.say(Said::Begin(renderer.content_type()));
        // The same conversation may come once as a stream and once whole.
        let is_whole = raw.trim_ascii_start().first() == Some(&b'{');
        let body =
            if native && is_whole != call.request.stream { raw } else { renderer.answer(answer) };
        call.say(Said::Part(body.into()));
    }
}

/// What a guest is told that is refused here.
fn refused(error: &GateError, status: u16, dialect: models::Dialect) -> HttpReply {
    let message = format!("{error}. {}", error.next());
    guest::render_error(dialect, &GuestFault::new(status, error.code(), &message))
}

#[cfg(test)]
mod tests;
