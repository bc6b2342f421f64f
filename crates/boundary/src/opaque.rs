//! Connections whose bytes are carried unread, because the judge said so.
//!
//! One thing is looked at: where a program greets in TLS, it must greet the host that was
//! permitted.

use crate::accept::{Speech, speech};
use crate::body::Permit;
use crate::boundary::Inner;
use crate::error::BoundaryError;
use crate::host::Host;
use crate::limits::HELLO_BYTES_MAX;
use rustls::server::Acceptor;
use std::future::Future;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Bytes copied at once.
const COPY_BYTES: usize = 16 << 10;

/// Carries until either side ends or `closed` says so.
pub(crate) async fn carry(
    inner: &Arc<Inner>,
    stream: TcpStream,
    host: &Host,
    port: u16,
    id: u64,
    closed: impl Future<Output = ()>,
) {
    let mut permit = Permit::new(id, Arc::clone(&inner.judge));
    let upstream = match inner.upstream.dial(host, port).await {
        Ok(upstream) => upstream,
        Err(error) => {
            permit.failed(&error.to_string());
            let _ = stream.set_zero_linger();
            return;
        }
    };
    permit.sent();
    let (up, down) = (Arc::clone(&permit.up), AtomicU64::new(0));
    let (mut from, mut to) = (stream.into_split(), upstream.into_split());
    let both = async {
        let upward = copy_up(&mut from.0, &mut to.1, host, &up);
        let downward = copy(&mut to.0, &mut from.1, &down);
        tokio::try_join!(upward, downward)
    };
    let result = tokio::select! {
        result = both => result.map_err(|error| error.to_string()),
        () = closed => Err(BoundaryError::Revoked.to_string()),
    };
    permit.down = down.load(Ordering::Relaxed);
    match result {
        Ok(_) => permit.answered(),
        Err(why) => permit.failed(&why),
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    count: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0u8; COPY_BYTES];
    loop {
        let bytes = from.read(&mut buffer).await?;
        if bytes == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..bytes]).await?;
        count.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

async fn copy_up(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    host: &Host,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut greeting = Greeting { host, acceptor: Acceptor::default(), fed: 0 };
    let mut first = Vec::new();
    let mut clear = false;
    while !clear {
        if first.len() > HELLO_BYTES_MAX {
            return Err(io::Error::other("its greeting is too long"));
        }
        if from.read_buf(&mut first).await? == 0 {
            break;
        }
        clear = greeting.is_clear(&first)?;
    }
    if !clear && !first.is_empty() {
        return Err(io::Error::other("it began a greeting and did not end it"));
    }
    to.write_all(&first).await?;
    count.fetch_add(first.len() as u64, Ordering::Relaxed);
    copy(from, to, count).await
}

/// Follows the first bytes of a program, each once.
struct Greeting<'a> {
    host: &'a Host,
    acceptor: Acceptor,
    /// Bytes that the acceptor has.
    fed: usize,
}

impl Greeting<'_> {
    /// Whether the first bytes may go; an error when they greet another host.
    fn is_clear(&mut self, first: &[u8]) -> io::Result<bool> {
        if first.is_empty() || first == [0x16] {
            return Ok(false);
        }
        if speech(first) != Some(Speech::Tls) {
            return Ok(true);
        }
        let mut left = &first[self.fed..];
        self.fed = first.len();
        while !left.is_empty() {
            self.acceptor.read_tls(&mut left as &mut dyn Read)?;
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    let asked = accepted.client_hello().server_name().map(Host::parse);
                    return match asked {
                        Some(asked) if asked.as_ref() != Some(self.host) => {
                            Err(io::Error::other("it greets another host"))
                        }
                        _ => Ok(true),
                    };
                }
                Err(_) => return Err(io::Error::other("its greeting cannot be read")),
            }
        }
        Ok(false)
    }
}
