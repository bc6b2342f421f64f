//! The bypass corpus: what a program may try at the boundary, as data.
//!
//! Each case has a name that begins with its row, what is tried, how it must end, and a control: the
//! permitted twin that must work. Whoever drives the table watches from outside that nothing of a
//! denied case arrived anywhere. Names under `ok.test` are permitted, and paths under `/denied` are
//! not.

pub(crate) mod framing;
pub(crate) mod names;
pub(crate) mod paths;
pub(crate) mod requests;

/// Something a program does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Resolves a name, connects to port 80, sends bytes, reads one answer.
    Http { host: &'static str, bytes: Vec<u8> },
    /// The same to an address and a port.
    HttpAt { ip: &'static str, port: u16, bytes: Vec<u8> },
    /// The same within TLS that asks for `sni`.
    Https { host: &'static str, sni: &'static str, bytes: Vec<u8> },
    /// One request over HTTP/2 within TLS.
    Http2 { host: &'static str, uri: &'static str, method: &'static str, headers: Vec<Header> },
    /// Asks for the addresses of a name whose labels may be any bytes.
    Dns { labels: Vec<Vec<u8>>, kind: u16 },
}

pub(crate) type Header = (&'static str, &'static str);

/// How it must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// An HTTP status.
    Status(u16),
    /// Refused because of where its name leads, before anything is dialled.
    Unreachable,
    /// The connection ends without an answer.
    Closed,
    /// DNS says REFUSED, or the message is not taken.
    Refused,
    /// An empty answer without an error.
    Empty,
}

/// One row of the corpus.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) attack: Act,
    pub(crate) end: End,
    pub(crate) control: Act,
}

/// A case over plain HTTP.
pub(crate) fn http(name: &str, bytes: impl AsRef<[u8]>, end: End, control: &[u8]) -> Case {
    Case {
        name: name.to_owned(),
        attack: Act::Http { host: "ok.test", bytes: bytes.as_ref().to_vec() },
        end,
        control: Act::Http { host: "ok.test", bytes: control.to_vec() },
    }
}

/// All of it.
pub(crate) fn all() -> Vec<Case> {
    let parts = [framing::cases(), names::cases(), paths::cases(), requests::cases()];
    parts.into_iter().flatten().collect()
}
