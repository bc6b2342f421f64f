//! What the boundary asks before anything leaves, and what it is told.
//!
//! The judge stands outside: it owns policy, secrets and the record. A permit is given only after
//! the intent is recorded. Whatever is not an explicit permit is a denial.

use crate::kept::KeptAnswer;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use types::{ActionRequest, AsOf, Digest, HttpFacts};
use zeroize::Zeroizing;

/// A judge's answer on its way. To drop it takes the question back.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Who decides what may leave one sandbox.
pub trait Judge: Send + Sync + 'static {
    /// Whether any rule may permit this lower-case name at all. Asked before a name has an address.
    fn name<'a>(&'a self, host: &'a str) -> Answer<'a, bool>;

    /// What becomes of a connection. Asked before its first byte is read.
    fn connect<'a>(&'a self, ask: &'a ConnectAsk) -> Answer<'a, ConnectVerdict>;

    /// Whether this request may be sent. May take as long as a person takes.
    fn request<'a>(&'a self, ask: &'a RequestAsk) -> Answer<'a, RequestVerdict>;

    /// Whether what was permitted may go on, now that policy is another. No person is asked.
    fn still<'a>(&'a self, standing: &'a Standing) -> Answer<'a, bool>;

    /// A token was made for the client behind this placeholder; it is good for so many seconds, if
    /// that was said. Must not block.
    fn minted(&self, _placeholder: &str, _token: &Zeroizing<String>, _expires_s: Option<u64>) {}

    /// The names of secrets whose values, not their placeholders, stand in these parts of a
    /// request, in any encoding that is known. Asked before [`Judge::request`].
    fn leaked(&self, _parts: &[&[u8]]) -> Vec<String> {
        Vec::new()
    }

    /// An answer as the program got it, or why it is not kept; told before the permit's end, when
    /// answers are kept. Must not block.
    fn kept(&self, _permit: u64, _answer: Result<Bytes, &'static str>) {}

    /// Looks for the same in what goes on of a body after the question; none when nothing is
    /// looked for.
    fn scan(&self) -> Option<Box<dyn Scan>> {
        None
    }

    /// What became of a permit, for the record. Called in order for each permit; must not block.
    fn event(&self, permit: u64, event: Event);
}

/// Looks for values of secrets in bytes as they pass.
pub trait Scan: Send + Sync {
    /// Whether one ends in these bytes.
    fn holds(&mut self, bytes: &[u8]) -> bool;
}

/// A connection, before anything is read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectAsk {
    /// Lower-case name without a port, or an address in its canonical text.
    pub host: String,
    /// The port the program dialled.
    pub port: u16,
}

/// What becomes of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectVerdict {
    /// It speaks HTTP or it is reset; each of its requests is judged.
    Inspect,
    /// Its bytes are carried unread, under this permit.
    Opaque {
        /// Names the permit in events.
        id: u64,
    },
    /// It is reset.
    Deny(Denial),
}

/// Where in a request a placeholder stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the value of a header, perhaps inside `Basic`.
    Header,
    /// In the query.
    Query,
    /// In a body that was read whole.
    Body,
}

/// A stand-in for a secret, found in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placeholder {
    /// The whole text, `bpsecret-NAME-` and 32 hexadecimal digits.
    pub text: String,
    /// The secret's name, as the text has it; the judge knows whether it is that of a secret.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// One HTTP request, as it will be sent but for its secrets.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestAsk {
    /// Lower-case name without a port, or an address in its canonical text.
    pub host: String,
    /// The port the program dialled.
    pub port: u16,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Upper case.
    pub method: String,
    /// Decoded once, dots resolved, no query.
    pub path: String,
    /// The path as it is sent.
    pub raw_path: String,
    /// The query without `?`, as it is sent.
    pub query: String,
    /// Headers, body, git, operation. `facts.body.kind` says how much of the body was read.
    pub facts: HttpFacts,
    /// What was read of its body: all of it, unless `facts.body.kind` says that it is streamed.
    pub body: Bytes,
    /// The placeholders in it, each place once.
    pub placeholders: Vec<Placeholder>,
    /// The names of secrets whose values stand in it.
    pub leaked: Vec<String>,
    /// As `digest`, the name of a secret in the place of each placeholder: the same in every
    /// sandbox.
    pub exchange: Digest,
    /// Over method, authority, path, query, body and its type. Of a streamed body it covers what
    /// was read, and says so: no digest of a streamed body equals one of a body read whole.
    pub digest: Digest,
}

impl RequestAsk {
    /// The same as an action for policy.
    #[must_use]
    pub fn action(&self) -> ActionRequest {
        ActionRequest::HttpRequest {
            host: self.host.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            port: self.port,
            scheme: self.scheme.to_owned(),
            query: self.query.clone(),
            facts: Some(Box::new(self.facts.clone())),
        }
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub enum RequestVerdict {
    /// It is sent. Its intent is recorded already.
    Permit {
        /// Names the permit in events.
        id: u64,
        /// What is put in place of placeholders, for this request alone.
        secrets: Vec<SecretUse>,
    },
    /// It is not sent: this is its answer.
    Answered {
        /// Names the permit in events.
        id: u64,
        /// The answer.
        answer: Box<KeptAnswer>,
    },
    /// It is answered with 403.
    Deny(Denial),
}

/// A secret for one request.
pub struct SecretUse {
    /// The placeholder's whole text. For what signs or mints, the one that stands for it.
    pub placeholder: String,
    /// The value.
    pub value: Zeroizing<String>,
    /// How it is used.
    pub how: How,
}

impl fmt::Debug for SecretUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretUse").field("placeholder", &self.placeholder).finish_non_exhaustive()
    }
}

/// How a secret's value is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It takes the placeholder's place.
    Replace,
    /// It is an AWS secret access key: the request is signed with it (SigV4), and whatever
    /// signature the program made is dropped. Only for bodies read whole.
    AwsSigV4 {
        /// The access key id.
        access_key: String,
        /// As in `eu-central-1`.
        region: String,
        /// As in `s3`.
        service: String,
        /// For temporary credentials.
        session_token: Option<String>,
    },
    /// It is a client's: a token that is made for it now takes the placeholder's place. The value
    /// is empty; the client's secret comes with the permit of the token's own request.
    Token(Box<Client>),
}

/// A client of an OAuth 2 authorization server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Where tokens come from: lower-case name.
    pub host: String,
    /// Port, path: always over TLS.
    pub port: u16,
    /// As it is sent.
    pub path: String,
    /// The client's name.
    pub id: String,
    /// Whether it says who it is in a header; else in the body.
    pub basic: bool,
    /// What the token is to be good for.
    pub scope: Option<String>,
    /// Whom it is for.
    pub audience: Option<String>,
}

/// A denial, in the words that a program in the sandbox may read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// `BP-AREA-NNN`.
    pub code: String,
    /// Why, without what the sandbox must not learn.
    pub message: String,
    /// The approval that would permit it, when a person is or was asked.
    pub approval: Option<String>,
}

/// Something that was permitted and goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// A connection whose requests are judged one by one.
    Inspected(ConnectAsk),
    /// A connection whose bytes are carried unread.
    Opaque {
        /// Its permit.
        id: u64,
        /// As it was asked.
        ask: ConnectAsk,
    },
    /// A request whose answer has not ended.
    Request {
        /// Its permit.
        id: u64,
        /// As it was asked.
        ask: Box<RequestAsk>,
    },
}

/// What became of a permit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The first byte may have left.
    Sent,
    /// The answer says how old it is. Told before the program has all of it.
    Dated {
        /// What it says.
        as_of: AsOf,
    },
    /// It ended as it should.
    Answered {
        /// The HTTP status; 0 for an opaque connection.
        status: u16,
        /// Bytes of bodies that went up.
        bytes_up: u64,
        /// Bytes of bodies that came down.
        bytes_down: u64,
    },
    /// It did not.
    Failed {
        /// In a few words, without the world's bytes.
        why: String,
    },
}
