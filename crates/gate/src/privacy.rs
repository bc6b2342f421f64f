//! The privacy router in front of every model call: the one way by which a request gets out and
//! an answer comes in.
//!
//! ```text
//!  encoded request --outgoing--> what is sent, what was found | refused, with what was found
//!  answer, its stream <--Back--- what came
//! ```
//!
//! Always: nothing of a request leaves that did not pass [`Router::outgoing`]; the bytes it gives
//! hold no value of the vault and no canary, in any encoding the fingerprints know, wherever in
//! the body. Never: a decision about who may be sent what (the owner's), a value in a failure.

use crate::error::GateError;
use crate::message::{PrivacyFindings, PrivacyOrder};
use bytes::Bytes;
use models::Answer;
use privacy::{
    Detector, DetectorConfig, Form, Kind, Kinds, PrivacyError, Pseudonyms, StreamRestorer,
    Treatments, guard,
};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use types::{Coded as _, Digest, Failure, Item, Restored};
use zeroize::Zeroizing;

/// Detectors that are kept: building one costs more than a small scan.
const DETECTORS_MAX: usize = 8;

/// Keeps detectors from one request to the next.
#[derive(Default)]
pub(crate) struct Router {
    detectors: Mutex<VecDeque<(Digest, Arc<Detector>)>>,
}

/// A request that may be sent, once the owner says so.
pub(crate) struct Outgoing {
    /// Its bytes.
    pub(crate) bytes: Bytes,
    /// What was found.
    pub(crate) findings: PrivacyFindings,
    /// New pseudonyms, to be kept under the run's key.
    pub(crate) unsaved: Option<Zeroizing<Vec<u8>>>,
    /// For what comes back.
    pub(crate) back: Back,
}

/// Why a request cannot be sent, and what was found in it all the same.
pub(crate) struct Refused {
    pub(crate) failure: Failure,
    pub(crate) findings: Box<PrivacyFindings>,
}

impl From<PrivacyError> for Refused {
    fn from(error: PrivacyError) -> Self {
        Self { failure: error.failure(), findings: Box::default() }
    }
}

impl Router {
    /// Passes a request's encoded body, in any dialect. `kept` are the run's pseudonyms so far.
    pub(crate) fn outgoing(
        &self,
        order: &PrivacyOrder,
        kept: &[u8],
        body: Vec<u8>,
    ) -> Result<Outgoing, Refused> {
        let detector = self.detector(order)?;
        let mut pseudonyms = Pseudonyms::from_lines(kept, order.seed)?;
        let mut value: Value = serde_json::from_slice(&body).map_err(|_| {
            let why = "the encoded request is no JSON".to_owned();
            let failure = GateError::Protocol { why }.failure();
            Refused { failure, findings: Box::default() }
        })?;
        let treatments: Treatments = order.treatments.iter().map(|(k, t)| (*k, *t)).collect();
        let guarded = guard(&mut value, &detector, &treatments, &mut pseudonyms, order.show)?;
        let bytes = if guarded.changed {
            serde_json::to_vec(&value).expect("a JSON value has an encoding")
        } else {
            body
        };
        let mut findings = PrivacyFindings { shown: guarded.shown, ..PrivacyFindings::default() };
        for (kind, seen) in guarded.found {
            findings.found.insert(kind, seen.count);
            findings.secrets.extend(seen.names);
        }
        let left = detector.exact(&bytes);
        if let Some(error) = error_of(&left) {
            for (kind, name) in left {
                findings.found.entry(kind).or_insert(1);
                findings.secrets.extend(Some(name).filter(|name| !name.is_empty()));
            }
            let findings = Box::new(findings);
            return Err(Refused { failure: error.failure(), findings });
        }
        let unsaved = pseudonyms.take_unsaved().map(Zeroizing::new);
        let back = Back { pseudonyms: Arc::new(pseudonyms) };
        Ok(Outgoing { bytes: bytes.into(), findings, unsaved, back })
    }

    fn detector(&self, order: &PrivacyOrder) -> Result<Arc<Detector>, PrivacyError> {
        let mut detectors = self.detectors.lock().expect("nothing panics while it is held");
        if let Some((_, known)) = detectors.iter().find(|(digest, _)| *digest == order.known) {
            return Ok(Arc::clone(known));
        }
        let config = DetectorConfig {
            kinds: Kinds::all(),
            names: order.names.clone(),
            canaries: order.canaries.clone(),
        };
        let made = Arc::new(Detector::new(&config, order.prints.clone())?);
        if detectors.len() >= DETECTORS_MAX {
            detectors.pop_front();
        }
        detectors.push_back((order.known, Arc::clone(&made)));
        Ok(made)
    }
}

/// The router alone, without a process around it: for measuring it.
#[derive(Default)]
pub struct PrivacyTier(Router);

impl std::fmt::Debug for PrivacyTier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PrivacyTier").finish_non_exhaustive()
    }
}

impl PrivacyTier {
    /// Passes a request's body as the gate does before a call, and says in how many places
    /// something was found.
    ///
    /// # Errors
    /// Why it would be withheld.
    pub fn pass(&self, order: &PrivacyOrder, body: Vec<u8>) -> Result<u64, Failure> {
        let passed = self.0.outgoing(order, &order.kept, body);
        passed.map(|out| out.findings.found.values().sum()).map_err(|refused| refused.failure)
    }
}

/// What still stands in a body that was treated: a canary, or a secret where no mask can be.
fn error_of(left: &[(Kind, String)]) -> Option<PrivacyError> {
    if left.iter().any(|(kind, _)| *kind == Kind::Canary) {
        return Some(PrivacyError::Canary);
    }
    let (_, name) = left.first()?;
    Some(PrivacyError::SecretStays { name: name.clone() })
}

/// What comes back from a request: pseudonyms are taken back in it.
#[derive(Debug, Clone)]
pub(crate) struct Back {
    pseudonyms: Arc<Pseudonyms>,
}

impl Back {
    /// Whether nothing was replaced in this run, so that everything comes back as it is.
    pub(crate) fn is_plain(&self) -> bool {
        self.pseudonyms.is_empty()
    }

    /// For the text of an answer, piece by piece, wherever it is cut.
    pub(crate) fn stream(&self) -> BackStream {
        let restorer = StreamRestorer::new(Kinds::all(), Form::Text);
        BackStream { pseudonyms: Arc::clone(&self.pseudonyms), restorer }
    }

    /// Takes pseudonyms back in an answer: in what was said, in summaries and in arguments. Parts
    /// that only the provider can read stay as they came, since they go back to it.
    pub(crate) fn answer(&self, answer: &mut Answer) -> Result<Vec<Restored>, PrivacyError> {
        let (mut said, mut restored) = (Kinds::NONE, Vec::new());
        if self.is_plain() {
            return Ok(restored);
        }
        let named = |kinds: Kinds| kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
        for item in &mut answer.items {
            match item {
                Item::AssistantMessage { text } | Item::Reasoning { summary: text, .. } => {
                    let (back, kinds) = self.pseudonyms.restored_text(text);
                    *text = back;
                    said = kinds.iter().fold(said, Kinds::with);
                }
                Item::ToolCall { call_id, arguments, .. } => {
                    let kinds = self.pseudonyms.restored_value(arguments)?;
                    if kinds != Kinds::NONE {
                        let call_id = Some(call_id.clone());
                        restored.push(Restored { call_id, kinds: named(kinds) });
                    }
                }
                Item::UserMessage { .. } | Item::ToolResult { .. } => {}
            }
        }
        if said != Kinds::NONE {
            restored.insert(0, Restored { call_id: None, kinds: named(said) });
        }
        Ok(restored)
    }
}

/// The text of one answer as it comes.
pub(crate) struct BackStream {
    pseudonyms: Arc<Pseudonyms>,
    restorer: StreamRestorer,
}

impl BackStream {
    /// What may be shown now; what may be the beginning of a pseudonym is held back.
    pub(crate) fn push(&mut self, text: &str) -> String {
        self.restorer.push(&self.pseudonyms, text)
    }

    /// The rest.
    pub(crate) fn finish(self) -> String {
        self.restorer.finish(&self.pseudonyms)
    }
}
