//! What the API refuses, and how an error of another part looks as an answer.

use hyper::StatusCode;
use std::path::PathBuf;
use types::{Coded, Failure};

/// An error of the API's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServeError {
    /// It cannot listen.
    #[error("cannot listen on {place}: {reason}")]
    Listen {
        /// Where.
        place: String,
        /// Why.
        reason: String,
    },
    /// A request on TCP without the token.
    #[error("the request does not carry the token of this server")]
    Unauthorised {
        /// Where the token lies.
        file: PathBuf,
    },
    /// A page of the web, or a name that is not this machine's.
    #[error("the request is meant for {header}, which this server is not")]
    ForeignHost {
        /// The header, and what it says.
        header: String,
    },
    /// There is no such address.
    #[error("there is no {method} {path}")]
    NoRoute {
        /// As it was asked.
        method: String,
        /// As it was asked.
        path: String,
    },
    /// The request cannot be read.
    #[error("the request cannot be used: {reason}")]
    BadRequest {
        /// Why.
        reason: String,
    },
    /// The body is too large.
    #[error("the body has more than {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The body did not come in time.
    #[error("the body did not come within {seconds} s")]
    BodyTooSlow {
        /// The limit.
        seconds: u64,
    },
    /// The run has ended, and this step is not in its log.
    #[error("run {run} has ended before step {at} had an outcome: {why}")]
    Ended {
        /// The run.
        run: String,
        /// The step.
        at: u64,
        /// How.
        why: String,
    },
    /// A path that is none of the workspace.
    #[error("'{path}' cannot be used: {reason}")]
    Path {
        /// As it was asked.
        path: String,
        /// Why.
        reason: String,
    },
    /// Nothing stands there.
    #[error("there is no '{path}'")]
    NoFile {
        /// As it was asked.
        path: String,
    },
    /// A command takes no input now.
    #[error("exec {exec} of sandbox {sandbox} reads nothing from here: {why}")]
    NotRead {
        /// The sandbox.
        sandbox: String,
        /// The record that began the command.
        exec: u64,
        /// Why.
        why: String,
    },
    /// The sandbox has no such command.
    #[error("sandbox {sandbox} has no exec {exec}: it never began, or was undone")]
    NoExec {
        /// The sandbox.
        sandbox: String,
        /// The record.
        exec: u64,
    },
    /// The command lost its owner.
    #[error("exec {exec} of sandbox {sandbox} lost the process it ran under")]
    Lost {
        /// The sandbox.
        sandbox: String,
        /// The record that began the command.
        exec: u64,
    },
    /// Policy, or a person, did not let it be written.
    #[error("'{path}' was not written: {why}")]
    Denied {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// It could not be written.
    #[error("'{path}' was not written: {why}")]
    NotWritten {
        /// The file.
        path: String,
        /// Why.
        why: String,
    },
    /// A range that the file does not have.
    #[error("the file has {bytes} bytes, and no range '{range}'")]
    Range {
        /// As it was asked.
        range: String,
        /// How many it has.
        bytes: u64,
    },
    /// Too many connections.
    #[error("{limit} connections are open, which is all this server serves at once")]
    TooManyConnections {
        /// The limit.
        limit: usize,
    },
}

impl Coded for ServeError {
    fn code(&self) -> &'static str {
        match self {
            Self::Listen { .. } => "BP-SERVE-001",
            Self::Unauthorised { .. } => "BP-SERVE-002",
            Self::ForeignHost { .. } => "BP-SERVE-003",
            Self::NoRoute { .. } => "BP-SERVE-004",
            Self::BadRequest { .. } => "BP-SERVE-005",
            Self::BodyTooLarge { .. } => "BP-SERVE-006",
            Self::BodyTooSlow { .. } => "BP-SERVE-007",
            Self::TooManyConnections { .. } => "BP-SERVE-008",
            Self::Ended { .. } => "BP-SERVE-016",
            Self::Path { .. } => "BP-SERVE-017",
            Self::NoFile { .. } => "BP-SERVE-018",
            Self::NotRead { .. } => "BP-SERVE-019",
            Self::NoExec { .. } => "BP-SERVE-020",
            Self::Lost { .. } => "BP-SERVE-021",
            Self::Denied { .. } => "BP-SERVE-022",
            Self::NotWritten { .. } => "BP-SERVE-023",
            Self::Range { .. } => "BP-SERVE-024",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Listen { .. } => {
                "End the server that is there, or name another place with --socket or --listen."
                    .to_owned()
            }
            Self::Unauthorised { file } => format!(
                "Send `Authorization: Bearer TOKEN` with what {} holds; it is new with each start.",
                file.display()
            ),
            Self::ForeignHost { .. } => {
                "Use the address the server printed, from a program and not from a page of the web."
                    .to_owned()
            }
            Self::NoRoute { .. } => "/openapi.json lists every address.".to_owned(),
            Self::BadRequest { .. } => {
                "Correct it; /openapi.json says what each request takes.".to_owned()
            }
            Self::BodyTooLarge { .. } => "Put large input into a file of the workspace.".to_owned(),
            Self::BodyTooSlow { .. } => "Send the whole body at once.".to_owned(),
            Self::Ended { run, .. } => format!("bedplate explain {run}"),
            Self::Path { .. } => "Name a file by its path below the workspace.".to_owned(),
            Self::NoFile { .. } => "List the directory to see what is there.".to_owned(),
            Self::NotRead { .. } => {
                "Begin it with \"stdin\": true, and send while its stream is read.".to_owned()
            }
            Self::NoExec { sandbox, .. } => format!("bedplate show {sandbox}"),
            Self::Lost { .. } => {
                "Begin it again: what it left half done is undone first.".to_owned()
            }
            Self::Denied { .. } => "Permit write_file in the sandbox's policy.".to_owned(),
            Self::NotWritten { .. } => "Correct what it says, then write again.".to_owned(),
            Self::Range { .. } => {
                "Ask for bytes=FIRST-LAST, bytes=FIRST- or bytes=-COUNT.".to_owned()
            }
            Self::TooManyConnections { .. } => {
                "Close what you do not read, then try again.".to_owned()
            }
        }
    }
}

/// An answer that is an error: HTTP status and what is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) failure: Failure,
}

impl Refusal {
    /// A failure of another part. `usage`: it is the asker's mistake.
    #[must_use]
    pub fn of(failure: Failure, usage: bool) -> Self {
        Self { status: status_of(&failure.code, usage), failure }
    }

    /// What is told.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        self.failure
    }
}

impl From<ServeError> for Refusal {
    fn from(error: ServeError) -> Self {
        Self::of(error.failure(), true)
    }
}

impl From<runtime::RuntimeError> for Refusal {
    fn from(error: runtime::RuntimeError) -> Self {
        let usage = error.is_usage();
        Self::of(error.into_failure(), usage)
    }
}

impl From<store::StoreError> for Refusal {
    fn from(error: store::StoreError) -> Self {
        Self::of(error.failure(), false)
    }
}

/// Codes whose answer has a status of its own.
const STATUSES: [(&str, StatusCode); 32] = [
    ("BP-CLI-010", StatusCode::NOT_FOUND),
    ("BP-CLI-017", StatusCode::NOT_FOUND),
    ("BP-CLI-018", StatusCode::NOT_FOUND),
    ("BP-SERVE-002", StatusCode::UNAUTHORIZED),
    ("BP-SERVE-003", StatusCode::FORBIDDEN),
    ("BP-SERVE-004", StatusCode::NOT_FOUND),
    ("BP-SERVE-005", StatusCode::BAD_REQUEST),
    ("BP-SERVE-006", StatusCode::PAYLOAD_TOO_LARGE),
    ("BP-SERVE-007", StatusCode::REQUEST_TIMEOUT),
    ("BP-SERVE-008", StatusCode::SERVICE_UNAVAILABLE),
    ("BP-SERVE-009", StatusCode::CONFLICT),
    ("BP-SERVE-010", StatusCode::CONFLICT),
    ("BP-SERVE-011", StatusCode::CONFLICT),
    ("BP-SERVE-012", StatusCode::CONFLICT),
    ("BP-SERVE-014", StatusCode::CONFLICT),
    ("BP-SERVE-016", StatusCode::CONFLICT),
    ("BP-SERVE-017", StatusCode::BAD_REQUEST),
    ("BP-SERVE-018", StatusCode::NOT_FOUND),
    ("BP-SERVE-019", StatusCode::CONFLICT),
    ("BP-SERVE-020", StatusCode::NOT_FOUND),
    ("BP-SERVE-021", StatusCode::CONFLICT),
    ("BP-SERVE-022", StatusCode::FORBIDDEN),
    ("BP-SERVE-023", StatusCode::CONFLICT),
    ("BP-SERVE-024", StatusCode::RANGE_NOT_SATISFIABLE),
    ("BP-STORE-007", StatusCode::NOT_FOUND),
    ("BP-STORE-008", StatusCode::NOT_FOUND),
    ("BP-STORE-013", StatusCode::GONE),
    ("BP-RUN-010", StatusCode::CONFLICT),
    ("BP-RUN-011", StatusCode::CONFLICT),
    ("BP-RUN-014", StatusCode::PAYLOAD_TOO_LARGE),
    ("BP-RUN-019", StatusCode::FORBIDDEN),
    ("BP-RUN-023", StatusCode::CONFLICT),
];

fn status_of(code: &str, usage: bool) -> StatusCode {
    let own = STATUSES.iter().find(|(known, _)| *known == code);
    match own {
        Some((_, status)) => *status,
        None if code.starts_with("BP-OWNER-") => StatusCode::SERVICE_UNAVAILABLE,
        None if usage => StatusCode::UNPROCESSABLE_ENTITY,
        None => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_the_status() {
        let check = |code: &str, usage: bool, expected: u16| {
            assert_eq!(status_of(code, usage).as_u16(), expected, "{code}");
        };
        check("BP-SERVE-002", true, 401);
        check("BP-SERVE-004", true, 404);
        check("BP-SERVE-007", true, 408);
        check("BP-STORE-007", false, 404);
        check("BP-RUN-010", true, 409);
        check("BP-OWNER-002", false, 503);
        check("BP-CONFIG-006", true, 422);
        check("BP-SANDBOX-001", false, 500);
    }

    #[test]
    fn every_error_says_what_to_do() {
        let all = [
            ServeError::Listen { place: "x".into(), reason: "y".into() },
            ServeError::Unauthorised { file: "/h/serve.token".into() },
            ServeError::ForeignHost { header: "host evil".into() },
            ServeError::NoRoute { method: "GET".into(), path: "/".into() },
            ServeError::BadRequest { reason: "x".into() },
            ServeError::BodyTooLarge { limit: 1 },
            ServeError::BodyTooSlow { seconds: 1 },
            ServeError::TooManyConnections { limit: 1 },
            ServeError::Path { path: "..".into(), reason: "x".into() },
            ServeError::NoFile { path: "a".into() },
            ServeError::NotRead { sandbox: "s".into(), exec: 1, why: "x".into() },
            ServeError::NoExec { sandbox: "s".into(), exec: 1 },
            ServeError::Lost { sandbox: "s".into(), exec: 1 },
            ServeError::Denied { path: "a".into(), why: "x".into() },
            ServeError::NotWritten { path: "a".into(), why: "x".into() },
            ServeError::Range { range: "x".into(), bytes: 1 },
        ];
        let codes: Vec<&str> = all.iter().map(Coded::code).collect();
        let expected: Vec<String> =
            (1..=8).chain(17..=24).map(|n| format!("BP-SERVE-{n:03}")).collect();
        assert_eq!(codes, expected);
        assert!(all.iter().all(|error| error.next().len() > 10));
        assert!(all[1].next().contains("/h/serve.token"));
    }
}
