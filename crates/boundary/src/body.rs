//! Bodies: read ahead before the question, sent on, counted, masked, and cut off when they must be.

use crate::age::Ahead;
use crate::error::BoundaryError;
use crate::judge::{Event, Judge, Scan};
use crate::kept::{self, Keeper};
use crate::limits::{BODY_MS_MAX, BODY_STILL_MS_MAX};
use crate::mask::Masker;
use crate::standing::{Closed, Stands};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use types::{AsOf, BodyKind};

/// Why a body is cut off in which the value of a secret stands.
pub(crate) const LEAKED: &str = "the value of a secret stands in its body";

/// What was read of a request's body before the question.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) data: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    /// What goes on after the question.
    pub(crate) rest: Option<Incoming>,
    /// Bytes of all of it, where that was said.
    pub(crate) length: Option<u64>,
    /// Its part of what the sandbox may have read ahead.
    room: Option<OwnedSemaphorePermit>,
    /// Looks into what goes on; it has seen what was read.
    scan: Option<Box<dyn Scan>>,
}

const fn kib(bytes: u64) -> u32 {
    // At most the limit of a body, far below what 32 bits hold.
    bytes.div_ceil(1024) as u32
}

impl Collected {
    /// A body that is all there.
    pub(crate) fn whole(data: Bytes) -> Self {
        Self { data, ..Self::default() }
    }

    /// Reads until the end, `limit` bytes, its time is over, or nothing comes for a while. Bytes
    /// that are held count among those of all bodies of the sandbox, `room` in KiB.
    pub(crate) async fn read(
        mut body: Incoming,
        limit: usize,
        room: &Arc<Semaphore>,
    ) -> Result<Self, BoundaryError> {
        if body.is_end_stream() {
            return Ok(Self::default());
        }
        let length = body.size_hint().exact();
        let most = length.unwrap_or(u64::MAX).min(limit as u64);
        let taken = Arc::clone(room).try_acquire_many_owned(kib(most));
        let taken =
            taken.map_err(|_| BoundaryError::Limit("bodies that are read ahead at once"))?;
        let mut read = Self { length, room: Some(taken), ..Self::default() };
        let mut data = BytesMut::new();
        let end = Instant::now() + Duration::from_millis(BODY_MS_MAX);
        let still = Duration::from_millis(BODY_STILL_MS_MAX);
        let mut whole = false;
        while data.len() <= limit {
            match timeout_at(end.min(Instant::now() + still), body.frame()).await {
                Err(_) => break,
                Ok(None) => {
                    whole = true;
                    break;
                }
                Ok(Some(Err(_))) => return Err(BoundaryError::Body("it broke off")),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) => data.extend_from_slice(&bytes),
                    Err(other) => read.trailers = other.into_trailers().ok(),
                },
            }
        }
        read.give_back(kib(most).saturating_sub(kib(data.len() as u64)));
        read.data = data.freeze();
        read.rest = (!whole).then_some(body);
        Ok(read)
    }

    /// A body that nobody waits for: a call that goes both ways at once.
    pub(crate) fn streamed(body: Incoming) -> Self {
        if body.is_end_stream() {
            return Self::default();
        }
        Self { length: body.size_hint().exact(), rest: Some(body), ..Self::default() }
    }

    /// The same, its rest looked into as it passes.
    pub(crate) fn scanned(mut self, mut scan: Option<Box<dyn Scan>>) -> Self {
        if let Some(scan) = &mut scan {
            // What was read was looked into already: here only what may go on is remembered.
            let _ = scan.holds(&self.data);
        }
        self.scan = scan;
        self
    }

    /// Room in KiB that turned out not to be needed.
    fn give_back(&mut self, surplus: u32) {
        let surplus = usize::try_from(surplus).unwrap_or_default();
        drop(self.room.as_mut().and_then(|room| room.split(surplus)));
    }

    pub(crate) fn kind(&self) -> BodyKind {
        match (&self.rest, self.data.is_empty() && self.trailers.is_none()) {
            (Some(_), _) => BodyKind::Streamed,
            (None, true) => BodyKind::None,
            (None, false) => BodyKind::Buffered,
        }
    }
}

/// A request's body on its way up.
pub(crate) struct Upload {
    first: Option<Bytes>,
    rest: Option<Incoming>,
    trailers: Option<HeaderMap>,
    length: Option<u64>,
    sent: Arc<AtomicU64>,
    scan: Option<Box<dyn Scan>>,
    closed: Closed,
    /// Keeps the request among what can be closed, also when its answer has ended.
    _stands: Arc<Stands>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Upload {
    pub(crate) fn new(body: Collected, sent: Arc<AtomicU64>, stands: Arc<Stands>) -> Self {
        let closed = Closed::of(&stands.switch);
        let Collected { data, trailers, rest, length, room, scan } = body;
        let length = if rest.is_some() { length } else { Some(data.len() as u64) };
        let first = (!data.is_empty()).then_some(data);
        Self { first, rest, trailers, length, sent, scan, closed, _stands: stands, _room: room }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if this.closed.poll(cx).is_ready() {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        let frame = if let Some(first) = this.first.take() {
            Some(Ok(Frame::data(first)))
        } else if let Some(rest) = &mut this.rest {
            let frame = ready!(Pin::new(rest).poll_frame(cx));
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            if let (Some(scan), Some(data)) = (&mut this.scan, data)
                && scan.holds(data)
            {
                return Poll::Ready(Some(Err(io::Error::other(LEAKED))));
            }
            frame.map(|frame| frame.map_err(io::Error::other))
        } else {
            this.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))
        };
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
            this.sent.fetch_add(bytes, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let rest = self.rest.as_ref().is_none_or(Body::is_end_stream);
        self.first.is_none() && self.trailers.is_none() && rest
    }

    fn size_hint(&self) -> SizeHint {
        match (self.length, &self.trailers) {
            (Some(length), None) => SizeHint::with_exact(length),
            _ => SizeHint::default(),
        }
    }
}

/// A permit in use: however it ends, its end is told once.
pub(crate) struct Permit {
    pub(crate) id: u64,
    judge: Arc<dyn Judge>,
    pub(crate) status: u16,
    pub(crate) up: Arc<AtomicU64>,
    pub(crate) down: u64,
    sent: bool,
    told: bool,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Permit {
    pub(crate) fn new(id: u64, judge: Arc<dyn Judge>) -> Self {
        Self { id, judge, status: 0, up: Arc::default(), down: 0, sent: false, told: false }
    }

    /// A byte may have left. Told once, however often it is tried.
    pub(crate) fn sent(&mut self) {
        if !std::mem::replace(&mut self.sent, true) {
            self.judge.event(self.id, Event::Sent);
        }
    }

    /// The answer says how old it is.
    pub(crate) fn dated(&self, as_of: AsOf) {
        self.judge.event(self.id, Event::Dated { as_of });
    }

    pub(crate) fn answered(&mut self) {
        let bytes_up = self.up.load(Ordering::Relaxed);
        self.tell(Event::Answered { status: self.status, bytes_up, bytes_down: self.down });
    }

    pub(crate) fn failed(&mut self, why: &str) {
        self.tell(Event::Failed { why: why.to_owned() });
    }

    /// The answer as the program got it, or why it is not kept. Told before the end.
    fn kept(&self, answer: Result<Bytes, &'static str>) {
        self.judge.kept(self.id, answer);
    }

    /// It goes both ways, and nothing of it is kept.
    pub(crate) fn keeps_nothing(&self) {
        self.kept(Err(kept::TWO_WAY));
    }

    fn tell(&mut self, event: Event) {
        if !std::mem::replace(&mut self.told, true) {
            self.judge.event(self.id, event);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.failed("it was given up before it ended");
    }
}

/// An answer's body on its way down, or one that we have.
pub(crate) enum Download {
    Own(Option<Bytes>, Option<HeaderMap>),
    Theirs(Box<Theirs>),
}

/// A body that an upstream sends.
pub(crate) struct Theirs {
    ahead: Ahead,
    source: Incoming,
    masker: Option<Masker>,
    trailers: Option<HeaderMap>,
    keeper: Option<Keeper>,
    /// Its last frame is given out.
    ended: bool,
    permit: Permit,
    closed: Closed,
    /// Keeps the request among what can be closed.
    _stands: Arc<Stands>,
}

impl Download {
    pub(crate) fn own(text: String) -> Self {
        Self::Own((!text.is_empty()).then(|| text.into()), None)
    }

    /// An answer that was kept.
    pub(crate) fn kept(body: Bytes, trailers: HeaderMap) -> Self {
        let some = |map: HeaderMap| (!map.is_empty()).then_some(map);
        Self::Own((!body.is_empty()).then_some(body), some(trailers))
    }

    pub(crate) fn theirs(
        source: Incoming,
        ahead: Ahead,
        (masker, keeper): (Option<Masker>, Option<Keeper>),
        permit: Permit,
        stands: Arc<Stands>,
    ) -> Self {
        let closed = Closed::of(&stands.switch);
        let (trailers, ended, _stands) = (None, false, stands);
        let theirs =
            Theirs { ahead, source, masker, trailers, keeper, ended, permit, closed, _stands };
        Self::Theirs(Box::new(theirs))
    }
}

impl Theirs {
    /// The next frame as the program gets it, which is how it is kept.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(self.poll_masked(cx));
        if let (Some(keeper), Some(Ok(frame))) = (&mut self.keeper, &frame) {
            match (frame.data_ref(), frame.trailers_ref()) {
                (Some(data), _) => keeper.feed(data),
                (None, Some(trailers)) => keeper.trailers(trailers),
                (None, None) => {}
            }
        }
        if self.ended {
            self.end();
        }
        Poll::Ready(frame)
    }

    /// The program has all of it.
    fn end(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            self.permit.kept(keeper.end());
        }
        self.permit.answered();
    }

    fn poll_masked(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.closed.poll(cx).is_ready() {
            self.permit.failed(&BoundaryError::Revoked.to_string());
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        loop {
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
            }
            let ahead = self.ahead.frames.pop_front().map(|frame| Some(Ok(frame)));
            let next = match ahead {
                Some(frame) => frame,
                None => ready!(Pin::new(&mut self.source).poll_frame(cx)),
            };
            let frame = match next {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => {
                    self.permit.failed("the answer broke off");
                    return Poll::Ready(Some(Err(io::Error::other(error))));
                }
                None => {
                    let last = self.masker.as_mut().map(Masker::end).unwrap_or_default();
                    self.ended = true;
                    return Poll::Ready((!last.is_empty()).then(|| Ok(Frame::data(last))));
                }
            };
            match (frame.into_data(), &mut self.masker) {
                (Ok(data), masker) => {
                    self.permit.down += data.len() as u64;
                    let data = masker.as_mut().map_or(data.clone(), |masker| masker.feed(&data));
                    if !data.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                (Err(other), None) => return Poll::Ready(Some(Ok(other))),
                (Err(other), Some(masker)) => {
                    self.trailers = other.into_trailers().ok().map(|map| masker.headers(map));
                    let last = masker.end();
                    if !last.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(last))));
                    }
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        let held = self.masker.as_ref().is_some_and(Masker::holds);
        let read = self.ahead.frames.is_empty();
        read && self.source.is_end_stream() && self.trailers.is_none() && !held
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // A library that knows the length does not ask for the end.
        if self.is_over() {
            self.end();
        }
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Own(bytes, trailers) => {
                let data = bytes.take().map(Frame::data);
                Poll::Ready(data.or_else(|| trailers.take().map(Frame::trailers)).map(Ok))
            }
            Self::Theirs(theirs) => theirs.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Self::Theirs(theirs) => theirs.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(bytes, None) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64)
            }
            Self::Own(_, Some(_)) => SizeHint::default(),
            Self::Theirs(theirs) if theirs.masker.is_none() && theirs.ahead.frames.is_empty() => {
                theirs.source.size_hint()
            }
            Self::Theirs(_) => SizeHint::default(),
        }
    }
}
