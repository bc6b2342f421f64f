//! Upstream connections of one connection of the sandbox.

use crate::accept::Link;
use crate::body::{Permit, Upload};
use crate::error::BoundaryError;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, IDLE_UPSTREAM_MAX};
use http::header::HOST;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::fmt;
use std::sync::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};

/// Connections that can take a request.
#[derive(Default)]
struct Idle {
    http2: Option<http2::SendRequest<Upload>>,
    http1: Vec<http1::SendRequest<Upload>>,
}

/// Upstream connections of one link.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<Idle>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").finish_non_exhaustive()
    }
}

enum Sender {
    Http1(http1::SendRequest<Upload>),
    Http2(http2::SendRequest<Upload>),
}

fn upstream(error: &hyper::Error) -> BoundaryError {
    let why = if error.is_parse() {
        "its answer is no HTTP"
    } else if error.is_incomplete_message() || error.is_closed() {
        "it closed the connection"
    } else {
        "the connection failed"
    };
    BoundaryError::Upstream(why.to_owned())
}

impl Pool {
    /// Sends on a connection that is there, or on a new one. A request that an old connection did
    /// not take is sent once more on a new one: it has not left.
    pub(crate) async fn send(
        &self,
        link: &Link,
        permit: &mut Permit,
        request: Request<Upload>,
    ) -> Result<Response<Incoming>, BoundaryError> {
        let request = match self.take() {
            None => request,
            Some(sender) => {
                permit.sent();
                match self.send_on(sender, request).await? {
                    Ok(response) => return Ok(response),
                    Err(unsent) => *unsent,
                }
            }
        };
        let sender = connect(link).await?;
        permit.sent();
        let closed = || BoundaryError::Upstream("it closed the connection".to_owned());
        self.send_on(sender, request).await?.map_err(|_| closed())
    }

    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().expect("nothing panics while it is held");
        if let Some(http2) = idle.http2.as_ref().filter(|sender| !sender.is_closed()) {
            return Some(Sender::Http2(http2.clone()));
        }
        idle.http2 = None;
        idle.http1.retain(|sender| !sender.is_closed());
        let at = idle.http1.iter().position(http1::SendRequest::is_ready)?;
        Some(Sender::Http1(idle.http1.swap_remove(at)))
    }

    fn put(&self, sender: Sender) {
        let mut idle = self.idle.lock().expect("nothing panics while it is held");
        match sender {
            Sender::Http2(sender) => idle.http2 = Some(sender),
            Sender::Http1(sender) if idle.http1.len() < IDLE_UPSTREAM_MAX => {
                idle.http1.push(sender);
            }
            Sender::Http1(_) => {}
        }
    }

    /// The answer, or the request back when none of it was sent.
    async fn send_on(
        &self,
        sender: Sender,
        mut request: Request<Upload>,
    ) -> Result<Result<Response<Incoming>, Box<Request<Upload>>>, BoundaryError> {
        let (sent, sender) = match sender {
            Sender::Http1(mut sender) => {
                let uri = request.uri().clone();
                let target = uri.path_and_query().map_or("/", |target| target.as_str());
                let origin_form =
                    target.parse().map_err(|_| BoundaryError::Path("it is not a URI"));
                *request.uri_mut() = origin_form?;
                *request.version_mut() = http::Version::HTTP_11;
                let sent = sender.try_send_request(request).await;
                let sent = sent.map_err(|mut error| {
                    let back = error.take_message().map(|request| with_uri(request, uri));
                    (back, upstream(error.error()))
                });
                (sent, Sender::Http1(sender))
            }
            Sender::Http2(mut sender) => {
                let host = request.headers_mut().remove(HOST);
                *request.version_mut() = http::Version::HTTP_2;
                let sent = sender.try_send_request(request).await;
                let sent = sent.map_err(|mut error| {
                    let back = error.take_message().map(|mut request| {
                        if let Some(host) = host {
                            request.headers_mut().insert(HOST, host);
                        }
                        request
                    });
                    (back, upstream(error.error()))
                });
                (sent, Sender::Http2(sender))
            }
        };
        match sent {
            Ok(response) => {
                self.put(sender);
                Ok(Ok(response))
            }
            Err((Some(unsent), _)) => Ok(Err(Box::new(unsent))),
            Err((None, error)) => Err(error),
        }
    }
}

fn with_uri(mut request: Request<Upload>, uri: Uri) -> Request<Upload> {
    *request.uri_mut() = uri;
    request
}

async fn connect(link: &Link) -> Result<Sender, BoundaryError> {
    let (upstream, origin) = (&link.inner.upstream, &link.origin);
    let stream = upstream.dial(&origin.host, origin.port).await?;
    if origin.scheme == "http" {
        return http1(stream).await;
    }
    let stream = upstream.secure(stream, &origin.host, link.http2).await?;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        http2(stream).await
    } else {
        http1(stream).await
    }
}

async fn http1<S>(stream: S) -> Result<Sender, BoundaryError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http1::Builder::new()
        .max_headers(HEADERS_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = made.map_err(|error| upstream(&error))?;
    // It ends with its sender, which its link owns.
    tokio::spawn(connection.with_upgrades());
    Ok(Sender::Http1(sender))
}

async fn http2<S>(stream: S) -> Result<Sender, BoundaryError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let made = http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .handshake(TokioIo::new(stream))
        .await;
    let (sender, connection) = made.map_err(|error| upstream(&error))?;
    tokio::spawn(connection);
    Ok(Sender::Http2(sender))
}
