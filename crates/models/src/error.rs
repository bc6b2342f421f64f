//! What can go wrong with a model: stable codes, and what a caller can do about each.

use types::{Coded, Failure, FaultClass, ModelFault};

/// Everything that can go wrong in this crate. No variant ever holds a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// 401 or 403.
    #[error("{provider} refused the key (HTTP {status}){}", said(detail))]
    AuthRefused {
        /// The provider's name.
        provider: String,
        /// HTTP status.
        status: u16,
        /// The provider's own words, cut and cleaned.
        detail: String,
    },
    /// The provider wants a key and there is none.
    #[error("{provider} needs a key and none is set in {variable}")]
    KeyMissing {
        /// The provider's name.
        provider: String,
        /// The environment variable that should hold it.
        variable: String,
    },
    /// 429.
    #[error("{provider} has had too many requests (HTTP {status}){}", said(detail))]
    RateLimited {
        /// The provider's name.
        provider: String,
        /// HTTP status.
        status: u16,
        /// The provider's own words, cut and cleaned.
        detail: String,
    },
    /// 5xx, or an error event within the stream.
    #[error("{provider} failed (HTTP {status}){}", said(detail))]
    ServerError {
        /// The provider's name.
        provider: String,
        /// HTTP status.
        status: u16,
        /// The provider's own words, cut and cleaned.
        detail: String,
    },
    /// The bytes are not what the dialect says.
    #[error("{provider} sent a reply that cannot be read: {why}")]
    Malformed {
        /// The provider's name.
        provider: String,
        /// What is wrong with it.
        why: String,
    },
    /// The stream ended before the answer did.
    #[error("the reply of {provider} was cut off after {bytes} bytes")]
    Cut {
        /// The provider's name.
        provider: String,
        /// Bytes that came.
        bytes: u64,
    },
    /// Nothing came for too long.
    #[error("{provider} sent nothing for {seconds} s ({phase})")]
    Stalled {
        /// The provider's name.
        provider: String,
        /// How long was waited.
        seconds: u64,
        /// What was waited for.
        phase: &'static str,
    },
    /// The reply passed a limit.
    #[error("the reply of {provider} passed a limit: more than {limit} {unit}")]
    TooLarge {
        /// The provider's name.
        provider: String,
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// No connection.
    #[error("{provider} cannot be reached at {address}: {why}")]
    Unreachable {
        /// The provider's name.
        provider: String,
        /// Host and port.
        address: String,
        /// Why.
        why: String,
    },
    /// 400, 413, 422 and other statuses that another attempt will not change.
    #[error("{provider} rejected the request (HTTP {status}){}", said(detail))]
    Rejected {
        /// The provider's name.
        provider: String,
        /// HTTP status.
        status: u16,
        /// The provider's own words, cut and cleaned.
        detail: String,
    },
    /// The model does not exist there, or no longer.
    #[error("{provider} has no such model or address (HTTP {status}){}", said(detail))]
    Gone {
        /// The provider's name.
        provider: String,
        /// HTTP status.
        status: u16,
        /// The provider's own words, cut and cleaned.
        detail: String,
    },
    /// A script has no next turn.
    #[error("the script has no next turn{}", said(detail))]
    ScriptExhausted {
        /// What the scripted server said.
        detail: String,
    },
    /// A script cannot be read.
    #[error("the script {name} cannot be used: {why}")]
    ScriptInvalid {
        /// The script's name.
        name: String,
        /// What is wrong, with its line.
        why: String,
    },
    /// A route names a provider nobody knows.
    #[error("no provider is called '{name}'{}", hint(.nearest))]
    UnknownProvider {
        /// The name as written.
        name: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// The provider's dialect is not part of this build.
    #[error("{provider} speaks the {dialect} dialect, which this build does not")]
    DialectMissing {
        /// The provider's name.
        provider: String,
        /// The dialect's name.
        dialect: &'static str,
    },
    /// An address or a certificate in the configuration cannot be used.
    #[error("the configuration of {provider} cannot be used: {why}")]
    BadEndpoint {
        /// The provider's name.
        provider: String,
        /// Why.
        why: String,
    },
    /// The price table cannot be read.
    #[error("the price table cannot be used: {why}")]
    PricesInvalid {
        /// Why.
        why: String,
    },
    /// The request is larger than a provider would take.
    #[error("the request has {bytes} bytes, more than {limit}")]
    RequestTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A guest's request cannot be read.
    #[error("the guest's request is none of the {dialect} dialect: {why}")]
    GuestRequest {
        /// The dialect's name.
        dialect: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A scripted server was asked to listen beyond this machine.
    #[error("a scripted model listens on loopback addresses only, not on {address}")]
    NotLoopback {
        /// The address.
        address: String,
    },
}

fn said(detail: &str) -> String {
    if detail.is_empty() { String::new() } else { format!(": {detail}") }
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean '{name}'?")).unwrap_or_default()
}

impl Coded for ModelError {
    fn code(&self) -> &'static str {
        match self {
            Self::AuthRefused { .. } => "BP-MODEL-001",
            Self::KeyMissing { .. } => "BP-MODEL-002",
            Self::RateLimited { .. } => "BP-MODEL-003",
            Self::ServerError { .. } => "BP-MODEL-004",
            Self::Malformed { .. } => "BP-MODEL-005",
            Self::Cut { .. } => "BP-MODEL-006",
            Self::Stalled { .. } => "BP-MODEL-007",
            Self::TooLarge { .. } => "BP-MODEL-008",
            Self::Unreachable { .. } => "BP-MODEL-009",
            Self::Rejected { .. } => "BP-MODEL-010",
            Self::Gone { .. } => "BP-MODEL-011",
            Self::ScriptExhausted { .. } => "BP-MODEL-012",
            Self::ScriptInvalid { .. } => "BP-MODEL-013",
            Self::UnknownProvider { .. } => "BP-MODEL-014",
            Self::DialectMissing { .. } => "BP-MODEL-015",
            Self::BadEndpoint { .. } => "BP-MODEL-016",
            Self::PricesInvalid { .. } => "BP-MODEL-017",
            Self::RequestTooLarge { .. } => "BP-MODEL-018",
            Self::NotLoopback { .. } => "BP-MODEL-019",
            Self::GuestRequest { .. } => "BP-MODEL-020",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::AuthRefused { .. } => {
                "Check that the key is valid, has credit and may use this model, then resume the run."
            }
            Self::KeyMissing { variable, .. } => {
                return format!("Set {variable} in the environment of the owner, then resume the run.");
            }
            Self::RateLimited { .. } => {
                "Wait and resume the run, or add another entry to the route."
            }
            Self::ServerError { .. } => {
                "Resume the run later, or add another entry to the route."
            }
            Self::Malformed { .. } => {
                "Check that base_url and dialect in [providers] fit the server. The bytes are in the run's record."
            }
            Self::Cut { .. } => {
                "Resume the run. If it happens again, look at the network and at the server's own log."
            }
            Self::Stalled { .. } => {
                "See whether the server is overloaded or still loading the model, then resume the run."
            }
            Self::TooLarge { .. } => {
                "The server does not end its answer; check it, or use another entry of the route."
            }
            Self::Unreachable { .. } => {
                "Check base_url in [providers], that the server runs, and the network, then resume the run."
            }
            Self::Rejected { .. } => {
                "Read what the provider says: the model may lack tools or the window may be too small."
            }
            Self::Gone { .. } => "Name a model the provider has in [routes], and see that base_url is complete (most end in /v1).",
            Self::ScriptExhausted { .. } => {
                "Add a [[turn]] to the script, or a last turn with text so that the run can end."
            }
            Self::ScriptInvalid { .. } => "Correct the script at the line named.",
            Self::UnknownProvider { .. } => {
                "Use a built-in provider or describe it under [providers.NAME]."
            }
            Self::DialectMissing { .. } => {
                "Use a server that speaks 'responses', 'chat' or 'messages', for example through a gateway, and describe it under [providers.NAME]."
            }
            Self::BadEndpoint { .. } => "Correct [providers] or [network] trust in the manifest.",
            Self::PricesInvalid { .. } => "Correct the price table; every price is a decimal number of USD per million tokens.",
            Self::RequestTooLarge { .. } => {
                "The conversation has grown too long for a request: start a new run with its results."
            }
            Self::NotLoopback { .. } => "Listen on 127.0.0.1 or ::1.",
            Self::GuestRequest { .. } => {
                "See that the harness speaks the dialect of the address it calls, and that its version is one that Bedplate knows."
            }
        }
        .to_owned()
    }
}

impl ModelError {
    /// What a caller can do about it.
    #[must_use]
    pub const fn class(&self) -> FaultClass {
        match self {
            Self::AuthRefused { .. } | Self::KeyMissing { .. } => FaultClass::Auth,
            Self::Gone { .. } => FaultClass::Gone,
            Self::RateLimited { .. }
            | Self::ServerError { .. }
            | Self::Malformed { .. }
            | Self::Cut { .. }
            | Self::Stalled { .. }
            | Self::TooLarge { .. }
            | Self::Unreachable { .. } => FaultClass::Transient,
            Self::Rejected { .. }
            | Self::ScriptExhausted { .. }
            | Self::ScriptInvalid { .. }
            | Self::UnknownProvider { .. }
            | Self::DialectMissing { .. }
            | Self::BadEndpoint { .. }
            | Self::PricesInvalid { .. }
            | Self::RequestTooLarge { .. }
            | Self::NotLoopback { .. }
            | Self::GuestRequest { .. } => FaultClass::Rejected,
        }
    }

    /// The same as the fault of a model call.
    #[must_use]
    pub fn fault(&self, http_status: u16, retry_after_ms: Option<u64>) -> ModelFault {
        ModelFault {
            class: self.class(),
            failure: Failure {
                code: self.code().to_owned(),
                message: self.to_string(),
                next: self.next(),
            },
            http_status,
            retry_after_ms,
        }
    }
}
