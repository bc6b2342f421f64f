//! Restores pseudonyms in a stream of text, wherever it is cut.
//!
//! Always: what all pushes and the finish return together is what restoring the whole text would
//! have returned. At most [`PSEUDONYM_BYTES_MAX`] - 1 bytes are held back.

use crate::kind::Kinds;
use crate::pseudonym::{Form, Pseudonyms};
use crate::shape::PSEUDONYM_BYTES_MAX;

/// One stream: the text of an answer, or the arguments of one tool call as JSON.
#[derive(Debug, Clone)]
pub struct StreamRestorer {
    permitted: Kinds,
    form: Form,
    /// What may be the beginning of a pseudonym.
    held: String,
    /// Kinds that were put back.
    seen: Kinds,
}

impl StreamRestorer {
    /// A stream whose sink may see the permitted kinds. With [`Form::Json`] a restored value is
    /// escaped as the inside of a JSON string.
    #[must_use]
    pub const fn new(permitted: Kinds, form: Form) -> Self {
        Self { permitted, form, held: String::new(), seen: Kinds::NONE }
    }

    /// The next piece of the stream: the text that may be released now.
    pub fn push(&mut self, pseudonyms: &Pseudonyms, chunk: &str) -> String {
        self.held += chunk;
        self.release(pseudonyms, false)
    }

    /// The end of the stream: the rest of the text.
    #[must_use]
    pub fn finish(mut self, pseudonyms: &Pseudonyms) -> String {
        self.release(pseudonyms, true)
    }

    fn release(&mut self, pseudonyms: &Pseudonyms, last: bool) -> String {
        let mut out = String::with_capacity(self.held.len());
        let into = (&mut out, &mut self.seen);
        let taken = pseudonyms.restore_into(&self.held, self.permitted, self.form, last, into);
        self.held.drain(..taken);
        assert!(self.held.len() < PSEUDONYM_BYTES_MAX, "less than a pseudonym is held back");
        out
    }
}
