//! Programs in the sandbox, for tests: they send bytes and read what comes.

use crate::world::World;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a test waits for what must come.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

#[allow(clippy::disallowed_methods, reason = "certificates are checked against the real clock")]
pub(crate) fn now_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// An answer over HTTP/1.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// One question over UDP.
pub(crate) async fn ask(world: &World, name: &str, kind: RecordType) -> Message {
    let name = Name::from_ascii(name).unwrap();
    let mut query = Message::new(7, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name, kind));
    let reply = exchange_udp(world, &query.to_vec().unwrap()).await.expect("an answer");
    Message::from_vec(&reply).unwrap()
}

/// Sends a datagram to the DNS socket, and reads one.
pub(crate) async fn exchange_udp(world: &World, bytes: &[u8]) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(world.dns_udp).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut buffer = vec![0u8; 1500];
    let bytes = timeout(WAIT, socket.recv(&mut buffer)).await.ok()?.unwrap();
    buffer.truncate(bytes);
    Some(buffer)
}

/// The address that a name has inside.
pub(crate) async fn resolve(world: &World, name: &str) -> Option<IpAddr> {
    let reply = ask(world, name, RecordType::A).await;
    assert!(reply.answers.is_empty() || reply.metadata.response_code == ResponseCode::NoError);
    reply.answers.iter().find_map(|record| match &record.data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        _ => None,
    })
}

/// Connects as a redirected program does.
pub(crate) async fn connect_to(world: &World, destination: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mine = socket.local_addr().unwrap();
    world.destinations.lock().unwrap().insert(mine, destination);
    socket.connect(world.tcp).await.unwrap()
}

/// Resolves inside where it is a name, and connects.
pub(crate) async fn connect(world: &World, host: &str, port: u16) -> TcpStream {
    let ip = match host.parse() {
        Ok(ip) => ip,
        Err(_) => resolve(world, host).await.expect("the name has an address"),
    };
    connect_to(world, SocketAddr::new(ip, port)).await
}

/// TLS that trusts the sandbox's authority.
pub(crate) async fn secure(
    world: &World,
    stream: TcpStream,
    name: &str,
    alpn: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    let pem = world.boundary.certificate_pem().as_bytes();
    roots.add(CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
    let mut config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    timeout(WAIT, connecting).await.expect("the handshake ends")
}

/// Reads one answer; none when the connection ends without one.
pub(crate) async fn read_reply<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Reply> {
    timeout(WAIT, read_reply_now(stream)).await.expect("an answer or an end")
}

async fn read_reply_now<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Reply> {
    let mut bytes = Vec::new();
    let (status, head) = loop {
        while !bytes.windows(4).any(|w| w == b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                return None;
            }
        }
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
        let rest = bytes.split_off(end);
        let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        bytes = rest;
        let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
        if status != 100 {
            break (status, head);
        }
    };
    let body = read_body(stream, &head, bytes).await;
    Some(Reply { status, head, body })
}

async fn read_body<S: AsyncRead + Unpin>(stream: &mut S, head: &str, mut body: Vec<u8>) -> Vec<u8> {
    if head.contains("transfer-encoding: chunked") {
        while !body.ends_with(b"0\r\n\r\n") {
            if !matches!(stream.read_buf(&mut body).await, Ok(1..)) {
                return body;
            }
        }
        return unchunk(&body);
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.map_or(0, |length| length.parse().unwrap());
    while body.len() < length {
        if !matches!(stream.read_buf(&mut body).await, Ok(1..)) {
            break;
        }
    }
    body
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&bytes[end + 2..end + 2 + size]);
        bytes = &bytes[end + 4 + size..];
    }
    body
}

/// Sends bytes and reads one answer.
pub(crate) async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    bytes: &[u8],
) -> Option<Reply> {
    // Whoever refuses early closes early: that is no failure of the test.
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
    read_reply(stream).await
}

/// One request in the clear on a new connection.
pub(crate) async fn http(world: &World, host: &str, bytes: &[u8]) -> Option<Reply> {
    talk(&mut connect(world, host, 80).await, bytes).await
}

/// One request within TLS on a new connection.
pub(crate) async fn https(world: &World, host: &str, bytes: &[u8]) -> Option<Reply> {
    let stream = connect(world, host, 443).await;
    let mut stream = secure(world, stream, host, &[b"http/1.1"]).await.ok()?;
    talk(&mut stream, bytes).await
}

/// A plain request.
pub(crate) fn get(host: &str, target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// A request with a body.
pub(crate) fn post(host: &str, target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}
