//! The load that `bench gate` puts on a way to its upstream: the same program for every way, also
//! inside a sandbox.
//!
//! Requests are due at fixed moments, whatever became of those before, and a sample counts from the
//! moment its request was due: a way that stalls is charged for everything that waits meanwhile.
//! Blocking sockets, few threads: the load itself takes little of the two cores it shares.

use super::nanos_since;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Connections of a paced load.
const CONNECTIONS: u32 = 8;
/// Requests on each connection before the first that counts.
const WARM: u32 = 4;
/// How long a socket may stand still, seconds.
const STILL_S_MAX: u64 = 20;
/// Bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Bytes read at once.
const CHUNK_BYTES: usize = 128 << 10;

/// What is measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// Requests at a rate, on connections that are there.
    Paced { method: String, rate: u32, count: u32 },
    /// One request on a new connection each, every time to a host that was not seen before.
    Fresh { count: u32 },
    /// Downloads of this many bytes, one after the other.
    Bulk { bytes: u64, count: u32 },
    /// Questions to a model at a rate, on one connection, as guests ask them: without TLS, of the
    /// address and with the key that the environment names, if it names one.
    Model { rate: u32, count: u32 },
}

/// One load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) what: What,
    /// The host that is asked for; of fresh hosts what follows `hNUMBER.`.
    pub(super) host: String,
    /// Where to connect; the host's own address when nothing is said.
    pub(super) dial: Option<String>,
    /// Whom to trust; the file that `SSL_CERT_FILE` names when nothing is said.
    pub(super) trust: Option<PathBuf>,
    /// Tells the bodies of one load from those of another.
    pub(super) round: u32,
    /// Where the samples go; standard output when nothing is said.
    pub(super) out: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    pub(super) nanos: Vec<u64>,
    pub(super) failed: u64,
    /// Why the first of them failed.
    pub(super) why: Option<String>,
}

impl Outcome {
    fn add(&mut self, sample: io::Result<u64>) {
        match sample {
            Ok(nanos) => self.nanos.push(nanos),
            Err(error) => {
                self.failed += 1;
                self.why.get_or_insert_with(|| error.to_string());
            }
        }
    }

    fn join(&mut self, other: Self) {
        self.nanos.extend(other.nanos);
        self.failed += other.failed;
        self.why = self.why.take().or(other.why);
    }
}

/// Performs a plan that lies in a file. The role behind `__load`.
pub(crate) fn perform(plan: &Path) -> io::Result<()> {
    let plan: Plan = serde_json::from_slice(&std::fs::read(plan)?)?;
    let outcome = load(&plan)?;
    let text = serde_json::to_vec(&outcome)?;
    match &plan.out {
        Some(out) => std::fs::write(out, text),
        None => io::stdout().write_all(&text),
    }
}

/// Performs a plan.
pub(super) fn load(plan: &Plan) -> io::Result<Outcome> {
    if let What::Model { rate, count } = plan.what {
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        return models(plan, rate, count);
    }
    let from_environment = || std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let trust = plan.trust.clone().or_else(from_environment);
    let tls = config(&trust.ok_or_else(|| io::Error::other("nobody is trusted"))?)?;
    // What is late because a timer was coarse is no sample of anything.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    match &plan.what {
        What::Paced { method, rate, count } => paced(plan, &tls, method, *rate, *count),
        What::Fresh { count } => Ok(fresh(plan, &tls, *count)),
        What::Bulk { bytes, count } => bulk(plan, &tls, *bytes, *count),
        What::Model { .. } => unreachable!("it was measured above, without TLS"),
    }
}

fn config(trust: &Path) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for found in CertificateDer::pem_file_iter(trust).map_err(io::Error::other)? {
        // The host's own bundle may hold what is no authority for this.
        let _ = roots.add(found.map_err(io::Error::other)?);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn paced(
    plan: &Plan,
    tls: &Arc<ClientConfig>,
    method: &str,
    rate: u32,
    count: u32,
) -> io::Result<Outcome> {
    let mut ways = Vec::new();
    for number in 0..CONNECTIONS {
        let mut way = Way::open(plan, &plan.host, tls)?;
        for warm in 0..WARM {
            way.exchange("GET", "/small", &format!("warm {number} {warm}"))?;
        }
        ways.push(way);
    }
    let next = AtomicU32::new(0);
    let step = Duration::from_secs(1) / rate.max(1);
    let begin = Instant::now() + step;
    let worker = |mut way: Way| {
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let mut outcome = Outcome::default();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return outcome;
            }
            let due = begin + step * number;
            wait_until(due);
            let body = format!("{} {number}", plan.round);
            let exchanged = way.exchange(method, "/small", &body);
            outcome.add(exchanged.map(|_| nanos_since(due)));
            if outcome.failed > 0 {
                // A connection that failed is not one to measure on; whoever is left goes on.
                return outcome;
            }
        }
    };
    let mut all = Outcome::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = ways.into_iter().map(|way| scope.spawn(|| worker(way))).collect();
        for worker in workers {
            all.join(worker.join().expect("a worker does not panic"));
        }
    });
    Ok(all)
}

fn connect(dial: &str) -> io::Result<TcpStream> {
    let address = dial.to_socket_addrs()?.next();
    let socket = TcpStream::connect(address.ok_or(io::ErrorKind::AddrNotAvailable)?)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(Duration::from_secs(STILL_S_MAX)))?;
    Ok(socket)
}

fn wait_until(due: Instant) {
    let Some(left) = due.checked_duration_since(Instant::now()) else { return };
    let left = rustix::event::Timespec {
        tv_sec: left.as_secs().cast_signed(),
        tv_nsec: i64::from(left.subsec_nanos()),
    };
    let _ = rustix::event::poll(&mut [], Some(&left));
}

fn fresh(plan: &Plan, tls: &Arc<ClientConfig>, count: u32) -> Outcome {
    let mut outcome = Outcome::default();
    for number in 0..count {
        let host = format!("h{}.{}", plan.round * count + number, plan.host);
        let begun = Instant::now();
        let exchanged = Way::open(plan, &host, tls).and_then(|mut way| {
            way.exchange("GET", "/small", "")?;
            Ok(nanos_since(begun))
        });
        outcome.add(exchanged);
    }
    outcome
}

fn bulk(plan: &Plan, tls: &Arc<ClientConfig>, bytes: u64, count: u32) -> io::Result<Outcome> {
    let mut way = Way::open(plan, &plan.host, tls)?;
    way.exchange("GET", "/small", "")?;
    let mut outcome = Outcome::default();
    for _ in 0..count {
        let begun = Instant::now();
        let got = way.exchange("GET", &format!("/bulk/{bytes}"), "");
        outcome.add(got.and_then(|got| match got == bytes {
            true => Ok(nanos_since(begun)),
            false => Err(io::Error::other(format!("{got} bytes came"))),
        }));
    }
    Ok(outcome)
}

/// Where a guest's questions go, from `OPENAI_BASE_URL`, and its key.
fn model_place(plan: &Plan) -> (String, String) {
    let url = std::env::var("OPENAI_BASE_URL").ok().filter(|_| plan.dial.is_none());
    let host = url.as_deref().and_then(|url| url.strip_prefix("http://")?.strip_suffix("/v1"));
    let host = host.unwrap_or(&plan.host).to_owned();
    (host, std::env::var("OPENAI_API_KEY").unwrap_or_default())
}

fn models(plan: &Plan, rate: u32, count: u32) -> io::Result<Outcome> {
    let (host, key) = model_place(plan);
    let dial = plan.dial.clone().unwrap_or_else(|| format!("{host}:80"));
    let mut way = Way::plain(&dial, host)?;
    let mut ask = |number: u32| {
        let body = format!(
            "{{\"model\":\"default\",\"messages\":[{{\"role\":\"user\",\"content\":\
             \"question {number} of round {}\"}}]}}",
            plan.round
        );
        let text = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            way.host,
            body.len()
        );
        way.ask(&text)
    };
    for warm in 0..WARM {
        ask(count + warm)?;
    }
    let step = Duration::from_secs(1) / rate.max(1);
    let begin = Instant::now() + step;
    let mut outcome = Outcome::default();
    for number in 0..count {
        let due = begin + step * number;
        wait_until(due);
        outcome.add(ask(number).map(|_| nanos_since(due)));
        if outcome.failed > 0 {
            break;
        }
    }
    Ok(outcome)
}

/// What a connection carries: TLS, or nothing.
trait Carries: Read + Write + Send {}
impl<T: Read + Write + Send> Carries for T {}

/// One connection.
struct Way {
    stream: Box<dyn Carries>,
    host: String,
    buffer: Vec<u8>,
}

impl Way {
    fn open(plan: &Plan, host: &str, tls: &Arc<ClientConfig>) -> io::Result<Self> {
        let own = || format!("{host}:443");
        let socket = connect(&plan.dial.clone().unwrap_or_else(own))?;
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(tls), name).map_err(io::Error::other)?;
        let stream = Box::new(StreamOwned::new(session, socket));
        Ok(Self { stream, host: host.to_owned(), buffer: vec![0; CHUNK_BYTES] })
    }

    fn plain(dial: &str, host: String) -> io::Result<Self> {
        Ok(Self { stream: Box::new(connect(dial)?), host, buffer: vec![0; CHUNK_BYTES] })
    }

    /// Sends a request and reads its answer; how many bytes its body has.
    fn exchange(&mut self, method: &str, path: &str, body: &str) -> io::Result<u64> {
        let body = if method == "GET" { "" } else { body };
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: bedplate-bench\r\naccept: */*\r\n\
             content-type: text/plain\r\ncontent-length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        );
        self.ask(&text)
    }

    /// Sends a whole request and reads its answer; how many bytes its body has.
    fn ask(&mut self, text: &str) -> io::Result<u64> {
        self.stream.write_all(text.as_bytes())?;
        self.stream.flush()?;
        let (length, mut had) = self.head()?;
        let Some(length) = length else { return self.chunks(had) };
        while had < length {
            let most = usize::try_from(length - had).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            match self.stream.read(&mut self.buffer[..most])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => had += count as u64,
            }
        }
        Ok(length)
    }

    /// Reads the rest of a body in chunks, of which so many bytes lie at the buffer's beginning.
    /// Only bodies that hold no end of their own.
    fn chunks(&mut self, had: u64) -> io::Result<u64> {
        const END: &[u8] = b"\r\n0\r\n\r\n";
        let mut have = usize::try_from(had).map_err(io::Error::other)?;
        while !self.buffer[..have].ends_with(END) {
            have += match self.stream.read(&mut self.buffer[have..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => count,
            };
        }
        Ok(have as u64)
    }

    /// Reads a head of 200: its length, if it says one, and how much of the body came with it,
    /// which then lies at the buffer's beginning.
    fn head(&mut self) -> io::Result<(Option<u64>, u64)> {
        let mut have = 0;
        loop {
            have += match self.stream.read(&mut self.buffer[have..HEAD_BYTES_MAX])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => count,
            };
            let end = self.buffer[..have].windows(4).position(|four| four == b"\r\n\r\n");
            let Some(end) = end else { continue };
            let head = String::from_utf8_lossy(&self.buffer[..end]).to_ascii_lowercase();
            if !head.starts_with("http/1.1 200") {
                let line = head.lines().next().unwrap_or_default();
                let body = String::from_utf8_lossy(&self.buffer[end + 4..have]);
                return Err(io::Error::other(format!("it said {line}: {body}")));
            }
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
            let length = length.and_then(|text| text.trim().parse().ok());
            if length.is_none() && !head.contains("transfer-encoding: chunked") {
                return Err(io::Error::other("an answer without a length"));
            }
            self.buffer.copy_within(end + 4..have, 0);
            return Ok((length, (have - end - 4) as u64));
        }
    }
}
