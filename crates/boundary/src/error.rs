//! What goes wrong at the boundary, and what a program in the sandbox is told of it.

use crate::judge::Denial;
use http::StatusCode;
use types::Coded;

/// Why a boundary cannot be made, or why a request was not carried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BoundaryError {
    /// Key or certificate of the interception authority.
    #[error("the sandbox's certificate authority could not be made: {0}")]
    Authority(String),
    /// A value of the configuration.
    #[error("the boundary's configuration cannot be used: {0}")]
    Config(String),
    /// The bytes of a request can be read in more than one way.
    #[error("the request's framing is ambiguous: {0}")]
    Framing(&'static str),
    /// Host, authority, server name and address do not name the same host.
    #[error("the request names another host than its connection")]
    Misdirected,
    /// The path can be read in more than one way.
    #[error("the request's path is ambiguous: {0}")]
    Path(&'static str),
    /// A method or header that the boundary does not carry.
    #[error("the request is of a kind that is not carried: {0}")]
    Kind(&'static str),
    /// The body can be read in more than one way.
    #[error("the request's body is ambiguous: {0}")]
    Body(&'static str),
    /// The name does not resolve, or to where nobody may go.
    #[error("the host cannot be reached: {0}")]
    Unreachable(&'static str),
    /// The upstream does not answer as it should.
    #[error("the host did not answer: {0}")]
    Upstream(String),
    /// A limit of the sandbox.
    #[error("a limit of the sandbox is reached: {0}")]
    Limit(&'static str),
    /// A secret cannot be put in, or its echo cannot be seen.
    #[error("a secret of the request cannot be kept: {0}")]
    Secret(&'static str),
    /// Policy changed while it was under way.
    #[error("it was permitted, and may not go on by the policy of now")]
    Revoked,
    /// The judge said no.
    #[error("{}", .0.message)]
    Denied(Denial),
}

impl Coded for BoundaryError {
    fn code(&self) -> &'static str {
        match self {
            Self::Authority(_) => "BP-BOUNDARY-001",
            Self::Config(_) => "BP-BOUNDARY-002",
            Self::Framing(_) => "BP-BOUNDARY-003",
            Self::Misdirected => "BP-BOUNDARY-004",
            Self::Path(_) => "BP-BOUNDARY-005",
            Self::Kind(_) => "BP-BOUNDARY-006",
            Self::Body(_) => "BP-BOUNDARY-007",
            Self::Unreachable(_) => "BP-BOUNDARY-008",
            Self::Upstream(_) => "BP-BOUNDARY-009",
            Self::Limit(_) => "BP-BOUNDARY-010",
            Self::Secret(_) => "BP-BOUNDARY-011",
            Self::Denied(_) => "BP-BOUNDARY-012",
            Self::Revoked => "BP-BOUNDARY-013",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Authority(_) => "try again; if it persists, report it",
            Self::Config(_) => "correct the named value in `[network]`",
            Self::Framing(_) | Self::Path(_) | Self::Body(_) => {
                "send the request in its plain, unambiguous form"
            }
            Self::Misdirected => "send the request on a connection to the host that it names",
            Self::Kind(_) => "leave out the named method or header",
            Self::Unreachable(_) => {
                "name the host's address under `[network] resolve` if you trust it"
            }
            Self::Upstream(_) => "try again later; `bedplate logs` has what was seen",
            Self::Limit(_) => "send less at once",
            Self::Secret(_) => "send the secret in a header, the query or a short body",
            Self::Denied(_) | Self::Revoked => "ask the operator for a rule that permits it",
        }
        .to_owned()
    }
}

impl BoundaryError {
    /// The status with which a program is answered.
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::Framing(_) | Self::Path(_) | Self::Kind(_) | Self::Body(_) => {
                StatusCode::BAD_REQUEST
            }
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Limit(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Denied(_) | Self::Revoked => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// What a program is told: `{"error": {"code", "message", "approval"}}`.
    pub(crate) fn body(&self) -> String {
        let (code, message, approval) = match self {
            Self::Denied(denial) => {
                (denial.code.as_str(), denial.message.clone(), denial.approval.as_deref())
            }
            other => (other.code(), other.to_string(), None),
        };
        let error = serde_json::json!({"code": code, "message": message, "approval": approval});
        serde_json::json!({ "error": error }).to_string()
    }
}
