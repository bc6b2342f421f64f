//! Failures as a guest's client expects them.

use crate::error::ModelError;
use serde_json::{Value, json};
use types::manifest::Dialect;
use types::{Coded as _, FaultClass, ModelFault};

/// The status for "overloaded" that only the Messages dialect knows.
const OVERLOADED: u16 = 529;

/// Why a guest gets no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestFault {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// A stable code.
    pub code: String,
    /// What happened and what to do, for people: guests print it.
    pub message: String,
    /// How long to wait before another attempt, milliseconds.
    pub retry_after_ms: Option<u64>,
}

/// A reply to be sent as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpReply {
    /// HTTP status.
    pub status: u16,
    /// Headers, the content's type among them.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl GuestFault {
    /// A failure with this status: 403 for what a policy denies, 402 for a budget that is used up.
    #[must_use]
    pub fn new(status: u16, code: &str, message: &str) -> Self {
        debug_assert!((400..600).contains(&status), "a failure has the status of one");
        Self { status, code: code.to_owned(), message: message.to_owned(), retry_after_ms: None }
    }

    /// Whether another attempt may help.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self.status, 408 | 409 | 425 | 429 | 500..)
    }

    /// The error object of a dialect.
    pub(super) fn object(&self, dialect: Dialect) -> Value {
        let message = format!("{} ({})", self.message, self.code);
        match dialect {
            Dialect::Messages => json!({"type": self.kind(), "message": message}),
            _ => json!({
                "message": message,
                "type": self.kind(),
                "param": null,
                "code": self.code,
            }),
        }
    }

    fn kind(&self) -> &'static str {
        match self.status {
            401 => "authentication_error",
            402 => "billing_error",
            403 => "permission_error",
            404 | 410 => "not_found_error",
            413 => "request_too_large",
            429 => "rate_limit_error",
            503 | OVERLOADED => "overloaded_error",
            500.. => "api_error",
            _ => "invalid_request_error",
        }
    }
}

impl From<&ModelFault> for GuestFault {
    fn from(fault: &ModelFault) -> Self {
        let code = fault.failure.code.as_str();
        let status = match (fault.class, code) {
            (_, "BP-MODEL-018") => 413,
            (_, "BP-MODEL-003") => 429,
            (FaultClass::Auth, _) => 401,
            (FaultClass::Gone, _) => 404,
            (FaultClass::Rejected, _) => 400,
            (FaultClass::Transient | FaultClass::Interrupted, _) => 503,
        };
        let message = format!("{}. {}", fault.failure.message, fault.failure.next);
        let retry_after_ms = fault.retry_after_ms;
        Self { status, code: code.to_owned(), message, retry_after_ms }
    }
}

impl From<&ModelError> for GuestFault {
    fn from(error: &ModelError) -> Self {
        match error {
            ModelError::GuestRequest { .. } => {
                Self::new(400, error.code(), &format!("{error}. {}", error.next()))
            }
            other => Self::from(&other.fault(0, None)),
        }
    }
}

/// A failure as a whole reply, for a guest that has not been answered yet. One in the middle of a
/// stream is [`Renderer::error`](super::Renderer::error).
#[must_use]
pub fn render_error(dialect: Dialect, fault: &GuestFault) -> HttpReply {
    let body = match dialect {
        Dialect::Messages => json!({"type": "error", "error": fault.object(dialect)}),
        _ => json!({"error": fault.object(dialect)}),
    };
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        // The providers' own libraries heed this one before the status.
        ("x-should-retry", fault.is_transient().to_string()),
    ];
    if let Some(ms) = fault.retry_after_ms {
        headers.push(("retry-after-ms", ms.to_string()));
        headers.push(("retry-after", ms.div_ceil(1000).to_string()));
    }
    let status = match (dialect, fault.status) {
        (Dialect::Messages, 503) => OVERLOADED,
        (_, OVERLOADED) => 503,
        (_, status) => status,
    };
    HttpReply { status, headers, body: body.to_string().into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_status_and_shape_of_their_dialect() {
        let limited =
            ModelError::RateLimited { provider: "acme".into(), status: 429, detail: "slow".into() };
        let gone = ModelError::Gone { provider: "acme".into(), status: 404, detail: String::new() };
        let failed =
            ModelError::ServerError { provider: "acme".into(), status: 500, detail: String::new() };
        let large = ModelError::RequestTooLarge { bytes: 2, limit: 1 };
        let unreadable = ModelError::GuestRequest { dialect: "chat", why: "x".into() };
        let auth = ModelError::KeyMissing { provider: "acme".into(), variable: "K".into() };
        let check = |error: &ModelError, dialect, status: u16, kind: &str| {
            let reply = render_error(dialect, &GuestFault::from(error));
            let body: Value = serde_json::from_slice(&reply.body).expect("JSON");
            assert_eq!((reply.status, body["error"]["type"].as_str()), (status, Some(kind)));
            assert_eq!(body["type"] == "error", dialect == Dialect::Messages);
            let message = body["error"]["message"].as_str().expect("a message");
            assert!(message.ends_with(&format!("({})", error.code())), "{message}");
        };
        check(&limited, Dialect::Chat, 429, "rate_limit_error");
        check(&limited, Dialect::Messages, 429, "rate_limit_error");
        check(&gone, Dialect::Responses, 404, "not_found_error");
        check(&failed, Dialect::Responses, 503, "overloaded_error");
        check(&failed, Dialect::Messages, 529, "overloaded_error");
        check(&large, Dialect::Messages, 413, "request_too_large");
        check(&unreadable, Dialect::Chat, 400, "invalid_request_error");
        check(&auth, Dialect::Chat, 401, "authentication_error");
        assert_eq!(unreadable.code(), "BP-MODEL-020");
    }

    #[test]
    fn clients_are_told_whether_and_when_to_try_again() {
        let header = |reply: &HttpReply, name: &str| {
            let found = reply.headers.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.clone())
        };
        let denied = GuestFault::new(403, "BP-POLICY-001", "no rule permits it");
        let reply = render_error(Dialect::Messages, &denied);
        assert_eq!(header(&reply, "x-should-retry").as_deref(), Some("false"));
        assert_eq!(header(&reply, "retry-after"), None);
        let mut busy = GuestFault::new(429, "X", "busy");
        busy.retry_after_ms = Some(1_500);
        let reply = render_error(Dialect::Chat, &busy);
        assert_eq!(header(&reply, "x-should-retry").as_deref(), Some("true"));
        assert_eq!(header(&reply, "retry-after").as_deref(), Some("2"));
    }
}
