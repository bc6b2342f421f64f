//! The upstream of `bench gate`: HTTPS on loopback, one thread a connection, answers of a known
//! size. It reads only what the load of this benchmark sends.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// Bytes of a small answer.
const SMALL_BYTES: u64 = 1 << 10;
/// Bytes of a request, head and body.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Bytes written at once.
const CHUNK_BYTES: usize = 128 << 10;

/// What the model says to every question.
const MODEL_SAYS: &str = r#"{"id":"c1","object":"chat.completion","created":0,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"An answer of one sentence."},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":6,"total_tokens":18}}"#;

/// Serves a model on loopback, without TLS; ends with this process.
pub(super) fn model() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    let text = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{MODEL_SAYS}",
        MODEL_SAYS.len()
    );
    while request(&mut stream, &mut buffer)?.is_some() {
        stream.write_all(text.as_bytes())?;
    }
    Ok(())
}

/// A server that ends with this process.
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    /// The authority of its certificate: PEM.
    pub(super) authority: String,
}

impl Upstream {
    /// Serves on loopback as these names.
    pub(super) fn start(names: &[&str]) -> io::Result<Self> {
        let (config, authority) = identity(names).map_err(io::Error::other)?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let config = Arc::clone(&config);
                // A connection that breaks is the client's to notice.
                std::thread::spawn(move || drop(serve(stream, config)));
            }
        });
        Ok(Self { address, authority })
    }
}

fn identity(
    names: &[&str],
) -> Result<(Arc<ServerConfig>, String), Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "bedplate bench authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names)?;
    // With the issuer's name it would pass for self-signed.
    params.distinguished_name.push(DnType::CommonName, "bedplate bench");
    let leaf = params.signed_by(&key, &authority)?;
    let chain = vec![CertificateDer::from(leaf.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok((Arc::new(config), authority.pem()))
}

fn serve(socket: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let session = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(session, socket);
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    let chunk = vec![b'x'; CHUNK_BYTES];
    while let Some(bytes) = request(&mut stream, &mut buffer)? {
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n\
             content-length: {bytes}\r\n\r\n"
        );
        let first = usize::try_from(bytes).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        stream.write_all(&[head.as_bytes(), &chunk[..first]].concat())?;
        let mut left = bytes - first as u64;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
            stream.write_all(&chunk[..now])?;
            left -= now as u64;
        }
        stream.flush()?;
    }
    Ok(())
}

/// Reads one request: how many bytes it wants; none when there are no more.
fn request(stream: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<Option<u64>> {
    let mut have = 0;
    loop {
        have += match stream.read(&mut buffer[have..])? {
            0 => return Ok(None),
            count => count,
        };
        let end = buffer[..have].windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if have < end + 4 + length {
            continue;
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let bulk = path.strip_prefix("/bulk/").and_then(|bytes| bytes.parse().ok());
        return Ok(Some(bulk.unwrap_or(SMALL_BYTES)));
    }
}
