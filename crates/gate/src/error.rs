//! What can go wrong between owner and gate, and with hostile bytes.

use types::{Coded, FaultClass, ModelFault};

/// Everything that can go wrong in this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// The process ended while something was in flight.
    #[error("the gate process ended while it worked on this")]
    Died,
    /// The process cannot be started.
    #[error("the gate process cannot be started: {why}")]
    CannotStart {
        /// Why.
        why: String,
    },
    /// The other side sent what is no frame.
    #[error("the gate's socket carried what is no frame: {why}")]
    Protocol {
        /// What is wrong with it.
        why: String,
    },
    /// A frame would pass the limit.
    #[error("this needs {bytes} bytes, and a frame has at most {limit}")]
    FrameTooLarge {
        /// What it needs.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Too much is in flight.
    #[error("the gate already works on {limit} requests")]
    Busy {
        /// The limit.
        limit: usize,
    },
    /// A prepared request is no longer there.
    #[error("the prepared request is no longer in the gate")]
    NotPrepared,
    /// Bytes that should be JSON are not.
    #[error("this is no usable JSON: {why}")]
    JsonInvalid {
        /// Why.
        why: String,
    },
    /// A value does not fit its schema.
    #[error("the value does not fit its schema: {why}")]
    SchemaMismatch {
        /// Where and why, for the first few places.
        why: String,
    },
    /// A schema cannot be used.
    #[error("the schema cannot be used: {why}")]
    SchemaInvalid {
        /// Why.
        why: String,
    },
    /// The scripted model cannot listen.
    #[error("the scripted model cannot be served: {why}")]
    ScriptNotServed {
        /// Why.
        why: String,
    },
    /// The process cannot be confined, so it does not run.
    #[error("the gate process cannot be confined: {why}")]
    NotConfined {
        /// Why.
        why: String,
    },
    /// The process dies again and again.
    #[error("the gate process was started {starts} times within {seconds} s and died each time")]
    KeepsDying {
        /// How often.
        starts: usize,
        /// Within how long.
        seconds: u64,
    },
    /// A sandbox's network cannot be served, or the owner does not answer it.
    #[error("the network of a sandbox cannot be served: {why}")]
    Network {
        /// Why.
        why: String,
    },
    /// A guest shows another key than its run's.
    #[error("this is not the key of this run")]
    GuestKey,
    /// A guest calls an address that the model endpoint has not.
    #[error("the model endpoint has no {method} {path}")]
    GuestAddress {
        /// The method.
        method: String,
        /// The path, cut.
        path: String,
    },
    /// A guest's request did not come whole.
    #[error("the request did not come whole: {why}")]
    GuestBody {
        /// Why.
        why: String,
    },
    /// Nobody waits for this answer any more.
    #[error("the guest has its answer already, or is gone")]
    GuestGone,
    /// Output or JSON passes a limit.
    #[error("there are {bytes} bytes, and at most {limit} are read")]
    InputTooLarge {
        /// How many.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

impl Coded for GateError {
    fn code(&self) -> &'static str {
        match self {
            Self::Died => "BP-GATE-001",
            Self::CannotStart { .. } => "BP-GATE-002",
            Self::Protocol { .. } => "BP-GATE-003",
            Self::FrameTooLarge { .. } => "BP-GATE-004",
            Self::Busy { .. } => "BP-GATE-005",
            Self::NotPrepared => "BP-GATE-006",
            Self::JsonInvalid { .. } => "BP-GATE-007",
            Self::SchemaMismatch { .. } => "BP-GATE-008",
            Self::SchemaInvalid { .. } => "BP-GATE-009",
            Self::ScriptNotServed { .. } => "BP-GATE-010",
            Self::NotConfined { .. } => "BP-GATE-011",
            Self::KeepsDying { .. } => "BP-GATE-012",
            Self::InputTooLarge { .. } => "BP-GATE-013",
            Self::Network { .. } => "BP-GATE-014",
            Self::GuestKey => "BP-GATE-015",
            Self::GuestAddress { .. } => "BP-GATE-016",
            Self::GuestBody { .. } => "BP-GATE-017",
            Self::GuestGone => "BP-GATE-018",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Died | Self::NotPrepared => {
                "It is started again by itself; if this repeats, run bedplate doctor."
            }
            Self::CannotStart { .. } | Self::NotConfined { .. } | Self::KeepsDying { .. } => {
                "Run bedplate doctor: it says what this host lacks."
            }
            Self::Protocol { .. } => {
                "The process was ended and is started again; please report this, it is a defect."
            }
            Self::FrameTooLarge { .. } | Self::InputTooLarge { .. } => {
                "Write large data to a file in the workspace and work on parts of it."
            }
            Self::Network { .. } => {
                "Look at `[network]` in the manifest; if it is right, run bedplate doctor."
            }
            Self::GuestKey => "Use the key that stands in the guest's environment.",
            Self::GuestAddress { .. } => {
                "Use Responses, Chat Completions or Messages below /v1 of the endpoint."
            }
            Self::GuestBody { .. } => "Send it again.",
            Self::GuestGone => "Nothing is to be done: the call is over.",
            Self::Busy { .. } => "Wait until some of the runs have moved on.",
            Self::JsonInvalid { .. } => {
                "The tool must print one JSON value and nothing else on standard output."
            }
            Self::SchemaMismatch { .. } => {
                "Correct the value, or the schema if it asks for too much."
            }
            Self::SchemaInvalid { .. } => {
                "Correct the schema: JSON Schema 2020-12 or older, without references to other documents."
            }
            Self::ScriptNotServed { .. } => {
                "See whether this host lets processes listen on 127.0.0.1."
            }
        }
        .to_owned()
    }
}

impl GateError {
    /// The same as the fault of a model call: worth another attempt, unless it is too large.
    #[must_use]
    pub fn fault(&self) -> ModelFault {
        let class = match self {
            Self::FrameTooLarge { .. } => FaultClass::Rejected,
            Self::GuestGone => FaultClass::Interrupted,
            _ => FaultClass::Transient,
        };
        ModelFault { class, failure: self.failure(), http_status: 0, retry_after_ms: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_whether_another_attempt_helps() {
        let check = |error: GateError, code: &str, class: FaultClass| {
            let fault = error.fault();
            assert_eq!((fault.failure.code.as_str(), fault.class), (code, class));
            assert!(!fault.failure.next.is_empty());
        };
        let why = String::new;
        check(GateError::ScriptNotServed { why: why() }, "BP-GATE-010", FaultClass::Transient);
        check(GateError::GuestKey, "BP-GATE-015", FaultClass::Transient);
        let address = GateError::GuestAddress { method: why(), path: why() };
        check(address, "BP-GATE-016", FaultClass::Transient);
        check(GateError::GuestBody { why: why() }, "BP-GATE-017", FaultClass::Transient);
        check(GateError::GuestGone, "BP-GATE-018", FaultClass::Interrupted);
        check(GateError::Died, "BP-GATE-001", FaultClass::Transient);
        let too_large = GateError::FrameTooLarge { bytes: 2, limit: 1 };
        check(too_large, "BP-GATE-004", FaultClass::Rejected);
    }
}
