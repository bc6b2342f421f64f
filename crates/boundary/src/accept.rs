//! Connections as they arrive: whose they are, whether they may be, and what they speak.
//!
//! The judge is asked before the first byte is read. What is not HTTP, in the clear or within TLS,
//! is carried only where the judge said so beforehand; all else is reset.

use crate::boundary::Inner;
use crate::exchange;
use crate::host::Host;
use crate::judge::{ConnectAsk, ConnectVerdict, Denial, Standing};
use crate::limits::{
    DENIED_MS_MAX, FIRST_BYTES_MS_MAX, HANDSHAKE_MS_MAX, HEAD_BYTES_MAX, HEADERS_MAX, IDLE_MS_MAX,
    STREAMS_MAX,
};
use crate::pool::Pool;
use crate::request::Origin;
use crate::standing::Stands;
use crate::stream::{Guarded, Prefixed, Shared};
use crate::{endpoint, error::BoundaryError, opaque};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;

/// How long to wait when the process has no descriptors left, milliseconds.
const ACCEPT_PAUSE_MS: u64 = 20;
/// Bytes within which it is clear what a connection speaks.
const FIRST_BYTES_MAX: usize = 34;

/// One connection of a sandbox whose requests are judged.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) inner: Arc<Inner>,
    pub(crate) origin: Origin,
    /// Whether the program speaks HTTP/2.
    pub(crate) http2: bool,
    pub(crate) shared: Arc<Shared>,
    pub(crate) pool: Pool,
    /// The connection's place among those of the sandbox.
    _place: Arc<OwnedSemaphorePermit>,
}

impl Link {
    /// A connection of our own beside this one, to ask for what its request needs.
    pub(crate) fn beside(&self, origin: Origin) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            origin,
            http2: false,
            shared: Arc::default(),
            pool: Pool::default(),
            _place: Arc::clone(&self._place),
        }
    }
}

/// Accepts until the task is dropped.
pub(crate) async fn serve(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&inner.connections).try_acquire_owned() else {
            reset(&stream);
            continue;
        };
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            let closed = inner.closing.closed();
            tokio::select! {
                () = closed => {}
                () = connection(&inner, stream, Arc::new(place)) => {}
            }
        });
    }
}

/// Ends a connection at once, so that the program sees it.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Where a connection goes; none when that is nowhere.
fn target(inner: &Inner, stream: &TcpStream) -> Option<(Host, u16)> {
    let address = (inner.original)(stream).ok()?;
    let ip = address.ip().to_canonical();
    // Loopback is the sandbox's own and never comes here but by dialling our sockets.
    if address.port() == 0 || ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() {
        return None;
    }
    let synthetic = inner.synthetic.lock().expect("nothing panics while it is held");
    match synthetic.name(ip) {
        Some(name) => Some((Host::Name(name), address.port())),
        None if synthetic.is_synthetic(ip)
            && !inner.config.resolve.contains_key(&ip.to_string()) =>
        {
            None
        }
        None => Some((Host::Ip(ip), address.port())),
    }
}

async fn connection(inner: &Arc<Inner>, stream: TcpStream, place: Arc<OwnedSemaphorePermit>) {
    let _ = stream.set_nodelay(true);
    let Some((host, port)) = target(inner, &stream) else { return reset(&stream) };
    if let Some(models) = inner.endpoint(&host, port) {
        return endpoint::serve(models, stream).await;
    }
    let ask = ConnectAsk { host: host.to_string(), port };
    let epoch = inner.standings.epoch();
    let verdict = inner.judge.connect(&ask).await;
    let standing = match verdict {
        ConnectVerdict::Deny(denial) => return deny(stream, denial).await,
        ConnectVerdict::Opaque { id } => Standing::Opaque { id, ask },
        ConnectVerdict::Inspect => Standing::Inspected(ask),
    };
    let opaque = matches!(standing, Standing::Opaque { .. });
    let Some(stands) = Stands::enter(inner, standing.clone(), epoch).await else {
        return reset(&stream);
    };
    let closed = stands.switch.closed();
    if let (true, Standing::Opaque { id, .. }) = (opaque, &standing) {
        return opaque::carry(inner, stream, &host, port, *id, closed).await;
    }
    let origin = Origin { host, port, scheme: "http" };
    tokio::select! {
        () = closed => {}
        () = inspect(inner, stream, origin, place) => {}
    }
}

/// Tells a program why, where it speaks in the clear; resets it otherwise.
async fn deny(mut stream: TcpStream, denial: Denial) {
    let wait = Duration::from_millis(DENIED_MS_MAX);
    let (speech, _) = first_bytes(&mut stream, wait).await;
    if speech == Speech::Http {
        let body = BoundaryError::Denied(denial).body();
        let head = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close";
        let text = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(text.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut rest = vec![0u8; HEAD_BYTES_MAX];
        // Read what is under way, or closing would take the answer back.
        let _ = timeout(wait, stream.read(&mut rest)).await;
    } else {
        reset(&stream);
    }
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    Tls,
    Http,
    Other,
}

/// What the first bytes speak; none while more are needed.
pub(crate) fn speech(bytes: &[u8]) -> Option<Speech> {
    match bytes {
        [] | [0x16] => None,
        [0x16, 0x03, ..] => Some(Speech::Tls),
        [first, ..] if !first.is_ascii_uppercase() => Some(Speech::Other),
        _ => match bytes.iter().position(|b| !(b.is_ascii_uppercase() || b"-_".contains(b))) {
            Some(at) if bytes[at] == b' ' && !bytes.starts_with(b"PRI ") => Some(Speech::Http),
            None if bytes.len() < FIRST_BYTES_MAX => None,
            _ => Some(Speech::Other),
        },
    }
}

/// Reads until it is clear what a connection speaks, in bounded time.
async fn first_bytes(stream: &mut TcpStream, wait: Duration) -> (Speech, Vec<u8>) {
    let mut bytes = Vec::with_capacity(1024);
    let read = async {
        loop {
            if let Some(speech) = speech(&bytes) {
                return speech;
            }
            match stream.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return Speech::Other,
                Ok(_) => {}
            }
        }
    };
    let speech = timeout(wait, read).await;
    (speech.unwrap_or(Speech::Other), bytes)
}

async fn inspect(
    inner: &Arc<Inner>,
    mut stream: TcpStream,
    mut origin: Origin,
    place: Arc<OwnedSemaphorePermit>,
) {
    let wait = Duration::from_millis(FIRST_BYTES_MS_MAX);
    let (speech, bytes) = first_bytes(&mut stream, wait).await;
    let link = |origin, http2| Link {
        inner: Arc::clone(inner),
        origin,
        http2,
        shared: Arc::default(),
        pool: Pool::default(),
        _place: place,
    };
    match speech {
        Speech::Other => reset(&stream),
        Speech::Http => {
            serve_http1(Arc::new(link(origin, false)), Prefixed::new(bytes, stream)).await;
        }
        Speech::Tls => {
            origin.scheme = "https";
            let wait = Duration::from_millis(HANDSHAKE_MS_MAX);
            let stream = Prefixed::new(bytes, stream);
            let Ok(Some(stream)) = timeout(wait, terminate(inner, &origin, stream)).await else {
                return;
            };
            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let link = Arc::new(link(origin, http2));
            if http2 { serve_http2(link, stream).await } else { serve_http1(link, stream).await }
        }
    }
}

/// Ends TLS as the host that the connection goes to; none when it asks for another.
async fn terminate(
    inner: &Inner,
    origin: &Origin,
    stream: Prefixed<TcpStream>,
) -> Option<tokio_rustls::server::TlsStream<Prefixed<TcpStream>>> {
    let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
    let hello = acceptor.await.ok()?;
    let asked = hello.client_hello().server_name().map(Host::parse);
    if asked.is_some_and(|asked| asked.as_ref() != Some(&origin.host)) {
        return None;
    }
    let config = inner.authority.server(&origin.host).ok()?;
    hello.into_stream(config).await.ok()
}

async fn serve_http1<S>(link: Arc<Link>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let guarded = Guarded::new(stream, Arc::clone(&link.shared));
    let service = service_fn(move |request| {
        let link = Arc::clone(&link);
        async move { Ok::<_, Infallible>(exchange::answer(link, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(IDLE_MS_MAX))
        .max_headers(HEADERS_MAX)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(guarded), service)
        .with_upgrades();
    let _ = served.await;
}

async fn serve_http2<S>(link: Arc<Link>, stream: S)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let link = Arc::clone(&link);
        async move { Ok::<_, Infallible>(exchange::answer(link, request).await) }
    });
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(IDLE_MS_MAX))
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let _ = served.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speech_is_known_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b""[..], None),
            (b"\x16", None),
            (b"\x16\x03", Some(Speech::Tls)),
            (b"\x16\x02", Some(Speech::Other)),
            (b"GE", None),
            (b"GET ", Some(Speech::Http)),
            (b"M-SEARCH *", Some(Speech::Http)),
            (b"get ", Some(Speech::Other)),
            (b"GET\t", Some(Speech::Other)),
            (b"PRI * HTTP/2.0", Some(Speech::Other)),
            (b"SSH-2.0-x", Some(Speech::Other)),
            (b"\0", Some(Speech::Other)),
        ] {
            assert_eq!(speech(bytes), expected, "{bytes:?}");
        }
        assert_eq!(speech(&[b'A'; FIRST_BYTES_MAX - 1]), None);
        assert_eq!(speech(&[b'A'; FIRST_BYTES_MAX]), Some(Speech::Other));
    }
}
