//! A provider's reply on its way to a guest, piece by piece, its end kept back.
//!
//! ```text
//!  waiting --first piece--> begun --answer--> the end is kept back until it is recorded
//!     |                       `-----fault---> told in the stream, over
//!     `--fault--> nothing was said: another model may be asked
//! ```

use super::{Call, Calls, Said, lock};
use crate::privacy::Back;
use bytes::Bytes;
use models::guest::{GuestFault, Renderer};
use models::{Answer, Piece};
use std::sync::Arc;
use types::ModelFault;

/// One call's reply.
pub(crate) struct Relay {
    calls: Arc<Calls>,
    ask: u64,
    call: Arc<Call>,
    /// Whether the provider's own bytes are passed on.
    native: bool,
    /// Those of the guest that the provider needs.
    headers: Vec<(String, String)>,
    renderer: Renderer,
    begun: bool,
    /// The last bytes that came: what completes an answer waits until it is recorded.
    held: Bytes,
}

impl Relay {
    pub(super) fn new(calls: Arc<Calls>, ask: u64, call: Arc<Call>, native: bool) -> Self {
        let mut renderer = call.renderer();
        if native {
            renderer.relayed();
        }
        let headers = if native { call.headers.clone() } else { Vec::new() };
        Self { calls, ask, call, native, headers, renderer, begun: false, held: Bytes::new() }
    }

    /// The same, with what comes back taken through the privacy router: where pseudonyms may stand
    /// in it, the provider's own bytes are not passed on.
    pub(crate) fn through(mut self, back: &Back) -> Self {
        if self.native && !back.is_plain() {
            self.native = false;
            self.renderer = self.call.renderer();
        }
        self
    }

    /// Headers of the guest that the provider needs.
    pub(crate) fn headers(&self) -> Vec<(String, String)> {
        self.headers.clone()
    }

    /// What came.
    pub(crate) fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Raw(raw) if self.native && !raw.is_empty() => {
                let ready = std::mem::replace(&mut self.held, Bytes::copy_from_slice(raw));
                self.give(ready);
            }
            Piece::Text(text) if !self.native && !text.is_empty() => {
                let bytes = self.renderer.text(text);
                self.give(bytes.into());
            }
            _ => {}
        }
    }

    fn give(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.begin();
        self.call.say(Said::Part(bytes));
    }

    fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.call.say(Said::Begin(self.renderer.content_type()));
        }
    }

    /// It is complete: the rest is kept back.
    pub(crate) fn answered(mut self, answer: &Answer) {
        let last = match self.native {
            true => std::mem::take(&mut self.held),
            false => self.renderer.answer(answer).into(),
        };
        let mut rest = lock(&self.call.rest);
        if !self.begun {
            rest.push(Said::Begin(self.renderer.content_type()));
        }
        rest.push(Said::Part(last));
    }

    /// There is no answer. A guest that was told nothing waits for another.
    pub(crate) fn failed(mut self, fault: &ModelFault) {
        if !self.begun {
            return;
        }
        let bytes = self.renderer.error(&GuestFault::from(fault));
        self.call.say(Said::Part(bytes.into()));
        drop(self.calls.take(self.ask));
    }
}
