//! Answers that are kept as a program got them, and given again without the world.
//!
//! ```text
//!  STATUS \n  (NAME: VALUE \n)* \n  (NAME: VALUE \n)* \n  BODY        headers, trailers, body
//! ```
//!
//! What is kept has its secrets masked already. What is given again is read like anything else that
//! comes from outside: it is an answer, or it is refused.

use crate::limits::{ANSWER_BYTES_MAX, HEADERS_MAX};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Why an answer is not kept.
pub(crate) const TOO_LONG: &str = "it is too long to be kept";
const NO_ROOM: &str = "too much was kept at once";
/// A protocol that goes both ways has no one answer.
pub(crate) const TWO_WAY: &str = "it goes both ways";

/// An answer as a program got it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The HTTP status.
    pub status: StatusCode,
    /// Without those that end at each hop.
    pub headers: HeaderMap,
    /// All of it, encoded as the headers say.
    pub body: Bytes,
    /// What came after it.
    pub trailers: HeaderMap,
}

impl KeptAnswer {
    /// The same as bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_slice(self.status.as_str().as_bytes());
        bytes.put_u8(b'\n');
        for headers in [&self.headers, &self.trailers] {
            for (name, value) in headers {
                bytes.put_slice(name.as_str().as_bytes());
                bytes.put_slice(b": ");
                bytes.put_slice(value.as_bytes());
                bytes.put_u8(b'\n');
            }
            bytes.put_u8(b'\n');
        }
        bytes.put_slice(&self.body);
        bytes.freeze()
    }

    /// What [`KeptAnswer::to_bytes`] made.
    ///
    /// # Errors
    /// What is wrong with it, in a few words.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let (status, mut rest) = line(bytes)?;
        let status = StatusCode::from_bytes(status).map_err(|_| "its status is none")?;
        if status.is_informational() {
            return Err("its status is not that of an answer");
        }
        let mut fields = || {
            let mut headers = HeaderMap::new();
            loop {
                let (text, after) = line(rest)?;
                rest = after;
                if text.is_empty() {
                    return Ok(headers);
                }
                if headers.len() >= HEADERS_MAX {
                    return Err("it has too many headers");
                }
                let at =
                    text.windows(2).position(|pair| pair == b": ").ok_or("a header is none")?;
                let name = HeaderName::from_bytes(&text[..at]).map_err(|_| "a name is none")?;
                let value = HeaderValue::from_bytes(&text[at + 2..]);
                headers.append(name, value.map_err(|_| "a value is none")?);
            }
        };
        let (headers, trailers) = (fields()?, fields()?);
        Ok(Self { status, headers, body: Bytes::copy_from_slice(rest), trailers })
    }
}

fn line(bytes: &[u8]) -> Result<(&[u8], &[u8]), &'static str> {
    let end = bytes.iter().position(|byte| *byte == b'\n').ok_or("it breaks off")?;
    Ok((&bytes[..end], &bytes[end + 1..]))
}

/// Keeps an answer while it passes.
#[derive(Debug)]
pub(crate) struct Keeper {
    answer: KeptAnswer,
    body: BytesMut,
    /// Room in KiB for what all answers of the sandbox keep at once.
    room: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
    /// Why it is not kept after all.
    given_up: Option<&'static str>,
}

impl Keeper {
    pub(crate) fn new(status: StatusCode, headers: HeaderMap, room: &Arc<Semaphore>) -> Self {
        let answer = KeptAnswer { status, headers, body: Bytes::new(), trailers: HeaderMap::new() };
        let room = Arc::clone(room);
        Self { answer, body: BytesMut::new(), room, taken: None, given_up: None }
    }

    pub(crate) fn feed(&mut self, data: &[u8]) {
        if self.given_up.is_some() {
            return;
        }
        let bytes = self.body.len() + data.len();
        if bytes > ANSWER_BYTES_MAX {
            return self.give_up(TOO_LONG);
        }
        let has = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(1024).saturating_sub(has);
        let more = u32::try_from(more).expect("at most the limit of an answer");
        match Arc::clone(&self.room).try_acquire_many_owned(more) {
            Ok(taken) => match &mut self.taken {
                Some(all) => all.merge(taken),
                none => *none = Some(taken),
            },
            Err(_) => return self.give_up(NO_ROOM),
        }
        self.body.extend_from_slice(data);
    }

    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        self.answer.trailers = trailers.clone();
    }

    fn give_up(&mut self, why: &'static str) {
        (self.given_up, self.taken) = (Some(why), None);
        self.body = BytesMut::new();
    }

    /// The whole answer, or why it is not kept.
    pub(crate) fn end(self) -> Result<Bytes, &'static str> {
        match self.given_up {
            Some(why) => Err(why),
            None => Ok(KeptAnswer { body: self.body.freeze(), ..self.answer }.to_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn room(kib: usize) -> Arc<Semaphore> {
        Arc::new(Semaphore::new(kib))
    }

    fn kept(chunks: &[usize], room: &Arc<Semaphore>) -> Result<usize, &'static str> {
        let mut keeper = Keeper::new(StatusCode::OK, HeaderMap::new(), room);
        chunks.iter().for_each(|bytes| keeper.feed(&vec![b'a'; *bytes]));
        keeper.end().map(|bytes| KeptAnswer::parse(&bytes).expect("an answer").body.len())
    }

    #[test]
    fn what_is_too_long_is_not_kept_and_gives_its_room_back() {
        let all = ANSWER_BYTES_MAX / 1024;
        let check = |chunks: &[usize], kib: usize, expected: Result<usize, &'static str>| {
            let room = room(kib);
            assert_eq!(kept(chunks, &room), expected, "{chunks:?}");
            assert_eq!(room.available_permits(), kib);
        };
        check(&[], 0, Ok(0));
        check(&[1, 1, 1], 1, Ok(3));
        check(&[1024, 1], 2, Ok(1025));
        check(&[1024, 1], 1, Err(NO_ROOM));
        check(&[ANSWER_BYTES_MAX], all, Ok(ANSWER_BYTES_MAX));
        check(&[ANSWER_BYTES_MAX, 1], all + 1, Err(TOO_LONG));
        check(&[1, ANSWER_BYTES_MAX, 1], all + 1, Err(TOO_LONG));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let check = |bytes: &[u8], why: &str| {
            assert_eq!(KeptAnswer::parse(bytes).expect_err("it is none"), why);
        };
        check(b"", "it breaks off");
        check(b"200\n\n", "it breaks off");
        check(b"2000\n\n\n", "its status is none");
        check(b"101\n\n\n", "its status is not that of an answer");
        check(b"200\na\n\n\n", "a header is none");
        check(b"200\na b: c\n\n\n", "a name is none");
        check(b"200\na: c\r\n\n\n", "a value is none");
        let many = [b"200\n".to_vec(), b"a: b\n".repeat(HEADERS_MAX + 1), b"\n\n".to_vec()];
        check(&many.concat(), "it has too many headers");
    }

    proptest! {
        #[test]
        fn an_answer_comes_back_as_it_was(
            status in 200u16..1000,
            names in prop::collection::vec("[a-z][a-z0-9-]{0,8}", 0..6),
            value in prop::collection::vec(0x20u8..0x7f, 0..12),
            body in prop::collection::vec(any::<u8>(), 0..64),
            split in 0usize..6,
        ) {
            let mut maps = [HeaderMap::new(), HeaderMap::new()];
            for (at, name) in names.iter().enumerate() {
                let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
                let value = HeaderValue::from_bytes(&value).expect("a value");
                maps[usize::from(at >= split)].append(name, value);
            }
            let [headers, trailers] = maps;
            let status = StatusCode::from_u16(status).expect("a status");
            let answer = KeptAnswer { status, headers, body: body.into(), trailers };
            prop_assert_eq!(KeptAnswer::parse(&answer.to_bytes()), Ok(answer));
        }
    }
}
