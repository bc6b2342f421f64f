//! The guard of heads: bytes of HTTP/1 that can be read in one way pass unchanged, others do not.
//!
//! It stands between a connection and the HTTP library, holds each head until all of it is there,
//! and follows bodies only so far that it knows where the next head begins. It decides nothing
//! else and changes nothing. Once something is ambiguous, nothing more passes.
//!
//! ```text
//! Head --> Body(n) ------------------> Head
//!      \-> Size --> Data(n) --> Size ..|
//!              \-> Trailer ----------> Head
//! ```

use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX, TRAILER_BYTES_MAX};

/// Where in the stream of bytes the guard is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// Bytes of body left.
    Body(u64),
    /// In the line that says how long the next chunk is.
    Size,
    /// Bytes left of a chunk, its two closing bytes included.
    Data(u64),
    Trailer,
}

/// Why bytes do not pass.
pub(crate) type Ambiguity = &'static str;

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(crate) struct Guard {
    state: State,
    /// The head or line of which the end is not there yet.
    held: Vec<u8>,
}

impl Guard {
    pub(crate) const fn new() -> Self {
        Self { state: State::Head, held: Vec::new() }
    }

    /// Whether a head has begun and not ended.
    pub(crate) const fn in_head(&self) -> bool {
        matches!(self.state, State::Head) && !self.held.is_empty()
    }

    /// What was held back, when the connection turns into something else than HTTP.
    pub(crate) fn take_held(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }

    /// Takes bytes, and puts those that may pass into `out`. On an ambiguity says whether it stood
    /// in a head, where it can be answered.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), (Ambiguity, bool)> {
        while !input.is_empty() {
            let in_head = self.state == State::Head;
            let taken = match self.state {
                State::Body(left) | State::Data(left) => Ok(self.pass(left, input, out)),
                State::Head | State::Size | State::Trailer => self.hold(input, out),
            };
            input = &input[taken.map_err(|why| (why, in_head))?..];
        }
        Ok(())
    }

    /// Passes up to `left` bytes of a body.
    fn pass(&mut self, left: u64, input: &[u8], out: &mut Vec<u8>) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        out.extend_from_slice(&input[..taken]);
        let left = left - taken as u64;
        self.state = match (self.state, left) {
            (State::Body(_), 0) => State::Head,
            (State::Body(_), left) => State::Body(left),
            (_, 0) => State::Size,
            (_, left) => State::Data(left),
        };
        taken
    }

    /// Takes one line, and passes what is held when it is whole.
    fn hold(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Ambiguity> {
        let end = input.iter().position(|b| *b == b'\n');
        let taken = end.map_or(input.len(), |at| at + 1);
        let (limit, why) = match self.state {
            State::Head => (HEAD_BYTES_MAX, "a head that is too long"),
            _ => (TRAILER_BYTES_MAX, "a trailer or chunk size that is too long"),
        };
        if self.held.len() + taken > limit {
            return Err(why);
        }
        check_line(self.held.last(), &input[..taken])?;
        self.held.extend_from_slice(&input[..taken]);
        if end.is_some() {
            self.line(out)?;
        }
        Ok(taken)
    }

    /// A line has ended.
    fn line(&mut self, out: &mut Vec<u8>) -> Result<(), Ambiguity> {
        let blank = self.held == b"\r\n" || self.held.ends_with(b"\r\n\r\n");
        let next = match self.state {
            State::Head if self.held == b"\r\n" => return Err("an empty line before a request"),
            State::Head if blank => check_head(&self.held)?,
            State::Size => match chunk_size(&self.held)? {
                0 => State::Trailer,
                size => State::Data(size + 2),
            },
            State::Trailer if blank => {
                check_trailer(&self.held)?;
                State::Head
            }
            _ => return Ok(()),
        };
        out.append(&mut self.held);
        self.state = next;
        Ok(())
    }
}

/// CR and LF only together, and no control characters.
fn check_line(before: Option<&u8>, bytes: &[u8]) -> Result<(), Ambiguity> {
    let mut last = before.copied().unwrap_or_default();
    for &byte in bytes {
        match byte {
            b'\n' if last != b'\r' => return Err("a line feed without a carriage return"),
            b'\n' => {}
            _ if last == b'\r' => return Err("a carriage return without a line feed"),
            0 => return Err("a NUL"),
            b'\r' | b'\t' | 0x20..=0x7e | 0x80.. => {}
            _ => return Err("a control character"),
        }
        last = byte;
    }
    Ok(())
}

fn chunk_size(line: &[u8]) -> Result<u64, Ambiguity> {
    let digits = line.strip_suffix(b"\r\n").unwrap_or(line);
    // 15 digits leave room for the closing bytes of the chunk.
    let plain = (1..=15).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = plain.then(|| std::str::from_utf8(digits).ok()).flatten();
    text.and_then(|text| u64::from_str_radix(text, 16).ok())
        .ok_or("a chunk size that is not a plain number")
}

/// What a head says of framing.
#[derive(Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
}

fn check_head(head: &[u8]) -> Result<State, Ambiguity> {
    let mut lines = head.split_inclusive(|b| *b == b'\n').map(|line| &line[..line.len() - 2]);
    let newer = check_request_line(lines.next().unwrap_or_default())?;
    let mut framing = Framing::default();
    let mut headers = 0;
    for line in lines.filter(|line| !line.is_empty()) {
        headers += 1;
        if headers > HEADERS_MAX {
            return Err("too many headers");
        }
        let (name, value) = header(line)?;
        read_framing(&mut framing, name, value)?;
    }
    match framing {
        Framing { hosts: 2.., .. } => Err("more than one host"),
        Framing { hosts: 0, .. } => Err("no host"),
        Framing { chunked: true, length: Some(_), .. } => Err("a length and a transfer encoding"),
        Framing { chunked: true, .. } if !newer => Err("a transfer encoding in HTTP/1.0"),
        Framing { chunked: true, .. } => Ok(State::Size),
        Framing { length: Some(length @ 1..), .. } => Ok(State::Body(length)),
        _ => Ok(State::Head),
    }
}

/// Whether it is HTTP/1.1 and not 1.0.
fn check_request_line(line: &[u8]) -> Result<bool, Ambiguity> {
    let mut parts = line.split(|b| *b == b' ');
    let (method, target, version) = (parts.next(), parts.next(), parts.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, parts.next())
    else {
        return Err("a request line that does not have three parts");
    };
    let plain = |b: &u8| b.is_ascii_uppercase() || matches!(b, b'-' | b'_');
    if method.is_empty() || method.len() > 32 || !method.iter().all(plain) {
        return Err("a method that is not a plain word in upper case");
    }
    if method == REFUSED.as_bytes() || method == b"CONNECT" || method == b"PRI" {
        return Err("a method that is not carried");
    }
    if target.len() > TARGET_BYTES_MAX {
        return Err("a target that is too long");
    }
    if target.is_empty() || !target.iter().all(|b| (0x21..=0x7e).contains(b) && *b != b'#') {
        return Err("a target that is not plain");
    }
    match version {
        b"HTTP/1.1" => Ok(true),
        b"HTTP/1.0" => Ok(false),
        _ => Err("an unknown version"),
    }
}

fn header(line: &[u8]) -> Result<(&[u8], &[u8]), Ambiguity> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err("a folded header");
    }
    let colon = line.iter().position(|b| *b == b':').ok_or("a header without a colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    if name.is_empty() || !name.iter().all(token) {
        return Err("a header name that is not a plain word");
    }
    Ok((name, value.trim_ascii()))
}

fn read_framing(framing: &mut Framing, name: &[u8], value: &[u8]) -> Result<(), Ambiguity> {
    if name.eq_ignore_ascii_case(b"host") {
        framing.hosts += 1;
    } else if name.eq_ignore_ascii_case(b"content-length") {
        let digits = (1..=18).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
        let text = digits.then(|| std::str::from_utf8(value).ok()).flatten();
        let length = text.and_then(|text| text.parse().ok());
        if framing.length.is_some() || length.is_none() {
            return Err("a length that is not one plain number");
        }
        framing.length = length;
    } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
        if framing.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err("a transfer encoding other than chunked, once");
        }
        framing.chunked = true;
    } else if looks_like_framing(name) {
        return Err("a header that some take for a length or transfer encoding");
    }
    Ok(())
}

/// Names that differ from those of framing only by what some readers overlook.
fn looks_like_framing(name: &[u8]) -> bool {
    let letters = name.iter().filter(|b| b.is_ascii_alphanumeric());
    let letters: Vec<u8> = letters.map(u8::to_ascii_lowercase).collect();
    letters == b"contentlength" || letters == b"transferencoding"
}

fn check_trailer(trailer: &[u8]) -> Result<(), Ambiguity> {
    let lines = trailer.split_inclusive(|b| *b == b'\n').map(|line| &line[..line.len() - 2]);
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, _) = header(line)?;
        let barred: [&[u8]; 6] =
            [b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"te"];
        if barred.iter().any(|other| name.eq_ignore_ascii_case(other)) || looks_like_framing(name) {
            return Err("a trailer that belongs into the head");
        }
    }
    Ok(())
}

/// The method of the request that stands for one that was refused. No program can send it.
pub(crate) const REFUSED: &str = "BEDPLATE-REFUSED";

/// The request that the HTTP library is given in place of one that was refused, so that the answer
/// comes in order.
pub(crate) fn stand_in() -> Vec<u8> {
    format!("{REFUSED} / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n").into_bytes()
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
