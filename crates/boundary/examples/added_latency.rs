//! What the boundary adds to a request: keep-alive connections at a fixed rate, once straight to an
//! upstream on loopback and once through the boundary, in the clear and within TLS.
//!
//! Each request has its time. "due" counts from then, so a stall shows in all that it delays, and
//! has the timer's millisecond in it; "sent" counts from when it was sent. The judge permits at once: this measures the boundary alone. Prints raw percentiles in microseconds.
//!
//! `cargo run --release -p bedplate-boundary --example added_latency`

#![allow(clippy::print_stdout, reason = "an example's output is its purpose")]
#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

use boundary::{
    Answer, Boundary, Config, ConnectAsk, ConnectVerdict, Event, Judge, Listeners, RequestAsk,
    RequestVerdict, Standing,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const CONNECTIONS: u32 = 16;
const PER_SECOND: u32 = 1_000;
const SECONDS: u32 = 10;
/// The destination, as the programs know it; the upstream stands in for it.
const ADDRESS: &str = "93.184.216.34";

#[derive(Default)]
struct Permits(AtomicU64);

impl Judge for Permits {
    fn name<'a>(&'a self, _: &'a str) -> Answer<'a, bool> {
        Box::pin(async { true })
    }

    fn connect<'a>(&'a self, _: &'a ConnectAsk) -> Answer<'a, ConnectVerdict> {
        Box::pin(async { ConnectVerdict::Inspect })
    }

    fn request<'a>(&'a self, _: &'a RequestAsk) -> Answer<'a, RequestVerdict> {
        let id = self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move { RequestVerdict::Permit { id, secrets: Vec::new() } })
    }

    fn still<'a>(&'a self, _: &'a Standing) -> Answer<'a, bool> {
        Box::pin(async { true })
    }

    fn event(&self, _: u64, _: Event) {}
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) {
    let service = service_fn(|_| async {
        Ok::<_, Infallible>(http::Response::new(Full::new(Bytes::from_static(&[b'x'; 1024]))))
    });
    let served =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let _ = served.await;
}

async fn upstream(tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            let tls = tls.clone();
            tokio::spawn(async move {
                match tls {
                    Some(tls) => serve(tls.accept(stream).await.unwrap()).await,
                    None => serve(stream).await,
                }
            });
        }
    });
    address
}

async fn open(address: SocketAddr, tls: Option<&TlsConnector>) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    match tls {
        Some(tls) => {
            let name = ServerName::try_from(ADDRESS).unwrap();
            handshake(tls.connect(name, stream).await.unwrap()).await
        }
        None => handshake(stream).await,
    }
}

async fn handshake<S>(stream: S) -> SendRequest<Empty<Bytes>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn request(sender: &mut SendRequest<Empty<Bytes>>) -> bool {
    sender.ready().await.unwrap();
    let request = http::Request::get("/v1/items?page=2").header("host", ADDRESS);
    let response = sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap();
    let fine = response.status() == 200;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    fine && body.len() == 1024
}

/// What was measured, in microseconds.
#[derive(Default)]
struct Measured {
    due: Vec<u128>,
    sent: Vec<u128>,
    fine: usize,
}

async fn measure(address: SocketAddr, tls: Option<&TlsConnector>) -> Measured {
    let gap = Duration::from_secs(1) * CONNECTIONS / PER_SECOND;
    let mut tasks = Vec::new();
    let start = Instant::now() + Duration::from_millis(500);
    for at in 0..CONNECTIONS {
        let mut sender = open(address, tls).await;
        assert!(request(&mut sender).await, "the first request makes the upstream connection");
        let first = start + gap * at / CONNECTIONS;
        tasks.push(tokio::spawn(async move {
            let mut mine = Measured::default();
            for turn in 0..PER_SECOND * SECONDS / CONNECTIONS {
                let due = first + gap * turn;
                sleep_until(due).await;
                let sent = Instant::now();
                mine.fine += usize::from(request(&mut sender).await);
                mine.due.push(due.elapsed().as_micros());
                mine.sent.push(sent.elapsed().as_micros());
            }
            mine
        }));
    }
    let mut all = Measured::default();
    for task in tasks {
        let mine = task.await.unwrap();
        all.due.extend(mine.due);
        all.sent.extend(mine.sent);
        all.fine += mine.fine;
    }
    all.due.sort_unstable();
    all.sent.sort_unstable();
    all
}

fn print(name: &str, measured: &Measured) {
    println!("{name:<16} n={} ok={}", measured.due.len(), measured.fine);
    for (from, latencies) in [("due", &measured.due), ("sent", &measured.sent)] {
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        let (p50, p95, p99, max) = (at(0.5), at(0.95), at(0.99), at(1.0));
        println!("  from {from:<5} us: p50={p50} p95={p95} p99={p99} max={max}");
    }
}

fn client(root: CertificateDer<'static>) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// An authority and a server that shows one of its certificates.
fn certificate() -> (CertificateDer<'static>, TlsAcceptor) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let params = CertificateParams::new(vec![ADDRESS.to_owned()]).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (issuer.der().clone(), TlsAcceptor::from(Arc::new(config)))
}

#[allow(clippy::disallowed_methods, reason = "certificates are made for the real clock")]
fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// A boundary before an upstream: its socket, and the boundary to keep.
async fn before(
    upstream: SocketAddr,
    root: &CertificateDer<'static>,
    port: u16,
) -> (SocketAddr, Boundary) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Config {
        resolve: [(ADDRESS.to_owned(), upstream)].into(),
        nameservers: Vec::new(),
        roots: vec![root.clone()],
        seed: [0; 32],
        clock: Arc::new(now_s),
        authority: None,
        body_bytes: boundary::limits::BODY_BYTES_MAX,
        as_of: std::collections::BTreeMap::new(),
        keep: false,
        models: None,
    };
    let listeners = Listeners { tcp: vec![listener], ..Listeners::default() };
    let original =
        Arc::new(move |_: &TcpStream| Ok(SocketAddr::new(ADDRESS.parse().unwrap(), port)));
    let boundary = Boundary::start(config, Arc::new(Permits::default()), original, listeners);
    (address, boundary.unwrap())
}

#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let (root, acceptor) = certificate();
    println!(
        "{CONNECTIONS} keep-alive connections, {PER_SECOND} requests/s, {SECONDS} s, 1 KiB answers"
    );
    let tls = upstream(Some(acceptor)).await;
    let (through, boundary) = before(tls, &root, 443).await;
    let sandbox = CertificateDer::from_pem_slice(boundary.certificate_pem().as_bytes()).unwrap();
    print("https direct", &measure(tls, Some(&client(root.clone()))).await);
    print("https inspected", &measure(through, Some(&client(sandbox))).await);
    let plain = upstream(None).await;
    let (through, _boundary) = before(plain, &root, 80).await;
    print("http direct", &measure(plain, None).await);
    print("http inspected", &measure(through, None).await);
}
