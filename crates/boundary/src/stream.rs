//! Streams around a connection: one that gives back what was read ahead, one with the guard.

use crate::head::{Guard, stand_in};
use crate::limits::HEAD_MS_MAX;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Bytes read from a connection at once.
const READ_BYTES: usize = 16 << 10;

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub(crate) struct Prefixed<S> {
    prefix: Vec<u8>,
    at: usize,
    stream: S,
}

impl<S> Prefixed<S> {
    pub(crate) const fn new(prefix: Vec<u8>, stream: S) -> Self {
        Self { prefix, at: 0, stream }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.at < this.prefix.len() {
            let taken = buf.remaining().min(this.prefix.len() - this.at);
            buf.put_slice(&this.prefix[this.at..this.at + taken]);
            this.at += taken;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

/// Writing goes straight to the inner stream.
macro_rules! write_through {
    ($name:ident, $field:ident) => {
        impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for $name<S> {
            fn poll_write(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().$field).poll_write(cx, bytes)
            }

            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().$field).poll_flush(cx)
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.get_mut().$field).poll_shutdown(cx)
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                parts: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.get_mut().$field).poll_write_vectored(cx, parts)
            }

            fn is_write_vectored(&self) -> bool {
                self.$field.is_write_vectored()
            }
        }
    };
}

write_through!(Prefixed, stream);
write_through!(Guarded, stream);

/// What the guard and the service of one connection tell each other.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The connection is no HTTP any more: everything passes.
    pub(crate) tunnel: AtomicBool,
    /// Why the stand-in that the service sees was put there.
    pub(crate) refused: Mutex<Option<&'static str>>,
}

/// A stream of which only unambiguous heads can be read.
#[derive(Debug)]
pub(crate) struct Guarded<S> {
    stream: S,
    guard: Guard,
    shared: Arc<Shared>,
    ready: Vec<u8>,
    at: usize,
    /// Nothing more passes.
    over: bool,
    /// Runs while a head has begun.
    head_timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Guarded<S> {
    pub(crate) fn new(stream: S, shared: Arc<Shared>) -> Self {
        let (ready, guard) = (Vec::new(), Guard::new());
        Self { stream, guard, shared, ready, at: 0, over: false, head_timer: None }
    }

    /// Takes what was read; an error ends the connection without an answer.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.shared.tunnel.load(Ordering::SeqCst) {
            self.ready = self.guard.take_held();
            self.ready.extend_from_slice(bytes);
            return Ok(());
        }
        if let Err((why, in_head)) = self.guard.feed(bytes, &mut self.ready) {
            self.over = true;
            if !in_head {
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
            *self.shared.refused.lock().expect("nothing panics while it is held") = Some(why);
            self.ready.extend(stand_in());
        }
        Ok(())
    }

    fn poll_head_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.guard.in_head() {
            self.head_timer = None;
            return Poll::Pending;
        }
        let wait = Duration::from_millis(HEAD_MS_MAX);
        self.head_timer.get_or_insert_with(|| Box::pin(sleep(wait))).as_mut().poll(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.at < this.ready.len() {
                let taken = buf.remaining().min(this.ready.len() - this.at);
                buf.put_slice(&this.ready[this.at..this.at + taken]);
                this.at += taken;
                return Poll::Ready(Ok(()));
            }
            (this.at, this.ready) = (0, Vec::new());
            if this.over {
                // The answer to the stand-in closes the connection.
                return Poll::Pending;
            }
            let mut bytes = [0u8; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            if Pin::new(&mut this.stream).poll_read(cx, &mut read)?.is_pending() {
                ready!(this.poll_head_timer(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let filled = read.filled().to_vec();
            this.take(&filled)?;
        }
    }
}
