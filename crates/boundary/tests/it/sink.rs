//! Upstreams for tests: they record what they got, and answer as their path says.

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::channel::Channel;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    pub(crate) method: String,
    pub(crate) uri: String,
    pub(crate) version: http::Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An upstream, or several that record into one.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    pub(crate) got: Mutex<Vec<Got>>,
    /// Connections that were accepted.
    pub(crate) connections: AtomicUsize,
    /// Bytes that came on raw connections.
    pub(crate) raw: Mutex<Vec<u8>>,
    /// Told when they grow.
    moved: tokio::sync::Notify,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).boxed_unsync()
}

impl Sink {
    pub(crate) fn requests(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    pub(crate) fn last(&self) -> Got {
        self.got.lock().unwrap().last().cloned().expect("a request arrived")
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Serves HTTP/1 in the clear.
    pub(crate) async fn http(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sink) = (listener.local_addr().unwrap(), Arc::clone(self));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                sink.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(Arc::clone(&sink).serve(stream, false));
            }
        });
        address
    }

    /// Serves HTTP/1 and HTTP/2 within TLS.
    pub(crate) async fn https(self: &Arc<Self>, config: rustls::ServerConfig) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sink) = (listener.local_addr().unwrap(), Arc::clone(self));
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                sink.connections.fetch_add(1, Ordering::SeqCst);
                let (sink, acceptor) = (Arc::clone(&sink), acceptor.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    sink.serve(stream, http2).await;
                });
            }
        });
        address
    }

    /// Speaks first, as SSH does, and echoes.
    pub(crate) async fn raw(self: &Arc<Self>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, sink) = (listener.local_addr().unwrap(), Arc::clone(self));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                sink.connections.fetch_add(1, Ordering::SeqCst);
                let sink = Arc::clone(&sink);
                tokio::spawn(async move {
                    let _ = stream.write_all(b"SSH-2.0-sink\r\n").await;
                    let mut buffer = vec![0u8; 4096];
                    while let Ok(bytes @ 1..) = stream.read(&mut buffer).await {
                        sink.raw.lock().unwrap().extend_from_slice(&buffer[..bytes]);
                        let _ = stream.write_all(&buffer[..bytes]).await;
                    }
                });
            }
        });
        address
    }

    async fn serve<S>(self: Arc<Self>, stream: S, http2: bool)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| {
            let sink = Arc::clone(&self);
            async move { Ok::<_, Infallible>(sink.answer(request).await) }
        });
        let io = TokioIo::new(stream);
        if http2 {
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await;
        } else {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(io, service)
                .with_upgrades()
                .await;
        }
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == "/ws" {
            return self.websocket(&mut request);
        }
        let (parts, body) = request.into_parts();
        if parts.uri.path() == "/never" {
            std::future::pending::<()>().await;
        }
        if parts.uri.path() == "/early" {
            tokio::spawn(async move { self.watch(body).await });
            return Response::new(full("early"));
        }
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => Bytes::from_static(b"(broken off)"),
        };
        let got = Got {
            method: parts.method.to_string(),
            uri: parts.uri.to_string(),
            version: parts.version,
            headers: parts.headers,
            body,
        };
        self.got.lock().unwrap().push(got.clone());
        by_path(parts.uri.path(), &got)
    }

    /// Records a body as it comes, and how it ends.
    async fn watch(&self, mut body: Incoming) {
        let end = loop {
            match body.frame().await {
                Some(Ok(frame)) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    self.raw.lock().unwrap().extend_from_slice(&bytes);
                }
                Some(Err(_)) => break "(broken off)",
                None => break "(whole)",
            }
            self.moved.notify_one();
        };
        self.raw.lock().unwrap().extend_from_slice(end.as_bytes());
        self.moved.notify_one();
    }

    /// Waits until the raw bytes end with these.
    pub(crate) async fn ends_with(&self, end: &str) {
        let waiting = async {
            while !self.raw.lock().unwrap().ends_with(end.as_bytes()) {
                self.moved.notified().await;
            }
        };
        tokio::time::timeout(crate::net::WAIT, waiting).await.expect("the bytes come");
    }

    fn websocket(self: Arc<Self>, request: &mut Request<Incoming>) -> Response<Body> {
        let headers = request.headers().clone();
        let (method, uri, version) =
            (request.method().to_string(), request.uri().to_string(), request.version());
        self.got.lock().unwrap().push(Got { method, uri, version, headers, body: Bytes::new() });
        let upgrade = hyper::upgrade::on(request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut buffer = vec![0u8; 4096];
            while let Ok(bytes @ 1..) = io.read(&mut buffer).await {
                self.raw.lock().unwrap().extend_from_slice(&buffer[..bytes]);
                if io.write_all(&buffer[..bytes]).await.is_err() {
                    break;
                }
            }
        });
        Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-accept", "x")
            .body(full(""))
            .unwrap()
    }
}

fn set(response: &mut Response<Body>, name: &'static str, value: &[u8]) {
    response.headers_mut().insert(name, http::HeaderValue::from_bytes(value).unwrap());
}

/// An answer that says how old it is, in its body and in a header.
fn be_dated(path: &str, response: &mut Response<Body>) {
    let text = r#"{"at":"2024-12-31T23:59:59Z"}"#;
    let padded = |bytes: usize| format!("{text}{}", " ".repeat(bytes - text.len()));
    let limit = boundary::limits::DATED_BYTES_MAX;
    set(response, "last-modified", b"Tue, 31 Dec 2024 23:59:59 GMT");
    *response.body_mut() = match path {
        "/dated/silent" => full("{}"),
        "/dated/most" => full(padded(limit)),
        "/dated/more" => full(padded(limit + 1)),
        _ => full(text),
    };
    match path {
        "/dated/encoded" => set(response, "content-encoding", b"gzip"),
        "/dated/gone" => *response.status_mut() = StatusCode::NOT_FOUND,
        _ => {}
    }
}

/// The answer that a path asks for.
fn by_path(path: &str, got: &Got) -> Response<Body> {
    let mut response = Response::new(full("fine"));
    match path {
        "/echo" => {
            let authorization = got.headers.get("authorization").map(|value| value.as_bytes());
            set(&mut response, "x-echo", authorization.unwrap_or_default());
            let mut text = got.uri.clone().into_bytes();
            text.push(b' ');
            text.extend_from_slice(authorization.unwrap_or_default());
            text.push(b' ');
            text.extend_from_slice(&got.body);
            *response.body_mut() = full(text);
        }
        "/dripping" => {
            // Each byte of the credential in a frame of its own.
            let text = got.headers.get("authorization").unwrap().as_bytes().to_vec();
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
            tokio::spawn(async move {
                for byte in text {
                    let _ = sender.send(Frame::data(Bytes::copy_from_slice(&[byte]))).await;
                }
            });
            *response.body_mut() = body.boxed_unsync();
        }
        "/events" => {
            set(&mut response, "content-type", b"text/event-stream");
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(1);
            tokio::spawn(async move {
                let _ = sender.send(Frame::data(Bytes::from_static(b"data: 1\n\n"))).await;
                // It never ends by itself.
                std::future::pending::<()>().await;
            });
            *response.body_mut() = body.boxed_unsync();
        }
        "/trailers" => {
            let (mut sender, body) = Channel::<Bytes, Infallible>::new(2);
            let frame = Frame::data(got.body.clone());
            tokio::spawn(async move {
                let _ = sender.send(frame).await;
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", "0".parse().unwrap());
                let _ = sender.send(Frame::trailers(trailers)).await;
            });
            *response.body_mut() = body.boxed_unsync();
        }
        "/encoded" => set(&mut response, "content-encoding", b"gzip"),
        "/alternative" => {
            set(&mut response, "alt-svc", b"h3=\":443\"");
            set(&mut response, "keep-alive", b"timeout=5");
        }
        "/redirect" => {
            *response.status_mut() = StatusCode::FOUND;
            set(&mut response, "location", b"http://elsewhere.test/");
        }
        "/switch" => {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            set(&mut response, "connection", b"upgrade");
            set(&mut response, "upgrade", b"websocket");
        }
        dated if dated.starts_with("/dated/") => be_dated(dated, &mut response),
        "/large" => *response.body_mut() = full(vec![b'x'; 3 << 20]),
        _ => {}
    }
    response
}

/// An authority for upstreams.
pub(crate) struct Upstreams {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Upstreams {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer }
    }

    pub(crate) fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// A server for these names.
    pub(crate) fn server(
        &self,
        names: &[&str],
        expired: bool,
        alpn: &[&[u8]],
    ) -> rustls::ServerConfig {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if expired {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config
    }
}
