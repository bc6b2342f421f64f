//! One sandbox's boundary: its sockets, its judge, and what they share.

use crate::authority::Authority;
use crate::dns::{self, Rate};
use crate::endpoint::Endpoint;
use crate::error::BoundaryError;
use crate::judge::Judge;
use crate::limits::{
    ANSWERS_BYTES_MAX, ASKS_MAX, BODIES_BYTES_MAX, BODY_BYTES_MAX, CONNECTIONS_MAX,
};
use crate::standing::{Rechecked, Standings, Switch, recheck};
use crate::synthetic::Synthetic;
use crate::upstream::Upstream;
use crate::{accept, host};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use types::AsOfField;
use zeroize::Zeroizing;

/// Tells where a connection was going before it was redirected.
pub type OriginalDestination = Arc<dyn Fn(&TcpStream) -> io::Result<SocketAddr> + Send + Sync>;

/// Seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How a boundary reaches the world.
#[derive(Clone)]
pub struct Config {
    /// Names, or addresses in canonical text, that are dialled at this address and no other.
    pub resolve: BTreeMap<String, SocketAddr>,
    /// Who is asked for the addresses of other names.
    pub nameservers: Vec<SocketAddr>,
    /// Whose certificates upstreams may show.
    pub roots: Vec<CertificateDer<'static>>,
    /// Decides the synthetic addresses; keep it for as long as the sandbox lives.
    pub seed: [u8; 32],
    /// The key of the interception authority, of one that was started before: what the sandbox
    /// trusts already goes on to be trusted. A new one is made when there is none.
    pub authority: Option<Zeroizing<Vec<u8>>>,
    /// The wall clock, for certificates and signatures.
    pub clock: Clock,
    /// Bytes of a body that are read before the judge is asked; at most
    /// [`BODY_BYTES_MAX`](crate::limits::BODY_BYTES_MAX).
    pub body_bytes: usize,
    /// Where the answers to GETs say how old they are, by `HOST` or `HOST/PATH*`.
    pub as_of: BTreeMap<String, AsOfField>,
    /// Whether the judge is given each answer that a program got.
    pub keep: bool,
    /// Who answers calls of models from inside; none when nobody does.
    pub models: Option<Arc<dyn Endpoint>>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("resolve", &self.resolve).finish_non_exhaustive()
    }
}

/// The sockets of one sandbox, opened inside its network namespace.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Where redirected connections arrive; IPv4, IPv6 or both.
    pub tcp: Vec<TcpListener>,
    /// Where redirected questions arrive.
    pub dns_udp: Vec<UdpSocket>,
    /// The same over TCP.
    pub dns_tcp: Vec<TcpListener>,
}

/// What all tasks of one sandbox share.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) judge: Arc<dyn Judge>,
    pub(crate) original: OriginalDestination,
    pub(crate) synthetic: Mutex<Synthetic>,
    pub(crate) dns_rate: Rate,
    pub(crate) authority: Authority,
    pub(crate) upstream: Upstream,
    pub(crate) standings: Standings,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) asks: Arc<Semaphore>,
    /// KiB of bodies that may be read ahead.
    pub(crate) bodies: Arc<Semaphore>,
    /// KiB of answers that may be in keeping.
    pub(crate) answers: Arc<Semaphore>,
    pub(crate) closing: Switch,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner").finish_non_exhaustive()
    }
}

/// The network boundary of one sandbox. Dropping it closes everything.
#[derive(Debug)]
pub struct Boundary {
    inner: Arc<Inner>,
    tasks: Vec<JoinHandle<()>>,
}

impl Boundary {
    /// Starts to serve on the sockets of a sandbox. Needs a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the authority cannot be made, or the configuration cannot be used.
    pub fn start(
        config: Config,
        judge: Arc<dyn Judge>,
        original: OriginalDestination,
        listeners: Listeners,
    ) -> Result<Self, BoundaryError> {
        let inner = Arc::new(Inner::new(config, judge, original)?);
        let mut tasks = Vec::new();
        for listener in listeners.tcp {
            tasks.push(tokio::spawn(accept::serve(Arc::clone(&inner), listener)));
        }
        for socket in listeners.dns_udp {
            tasks.push(tokio::spawn(dns::serve_udp(Arc::clone(&inner), socket)));
        }
        for listener in listeners.dns_tcp {
            tasks.push(tokio::spawn(dns::serve_tcp(Arc::clone(&inner), listener)));
        }
        Ok(Self { inner, tasks })
    }

    /// The certificate that programs in this sandbox must trust, and nobody else: PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        self.inner.authority.pem()
    }

    /// The key of this sandbox's authority, for [`Config::authority`] of the next one on the same
    /// sockets. It must never come where the sandbox, or another one, can read it.
    #[must_use]
    pub fn authority_key(&self) -> Zeroizing<Vec<u8>> {
        self.inner.authority.key()
    }

    /// Policy has changed: asks about everything that is open, and closes what may not go on or
    /// gets no answer in time. Call it after the judge answers by the new policy.
    pub async fn recheck(&self) -> Rechecked {
        recheck(&self.inner).await
    }
}

impl Drop for Boundary {
    fn drop(&mut self) {
        self.inner.closing.close();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Inner {
    fn new(
        config: Config,
        judge: Arc<dyn Judge>,
        original: OriginalDestination,
    ) -> Result<Self, BoundaryError> {
        if config.body_bytes > BODY_BYTES_MAX {
            return Err(BoundaryError::Config("too many bytes of a body".to_owned()));
        }
        for name in config.resolve.keys() {
            let parsed = host::Host::parse(name).map(|host| host.to_string());
            if parsed.as_deref() != Some(name) {
                return Err(BoundaryError::Config(format!("`resolve` of {name:?}")));
            }
        }
        Ok(Self {
            authority: Authority::new(&config)?,
            upstream: Upstream::new(&config)?,
            synthetic: Mutex::new(Synthetic::new(config.seed)),
            dns_rate: Rate::new(),
            standings: Standings::new(),
            connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            asks: Arc::new(Semaphore::new(ASKS_MAX)),
            bodies: Arc::new(Semaphore::new(BODIES_BYTES_MAX >> 10)),
            answers: Arc::new(Semaphore::new(ANSWERS_BYTES_MAX >> 10)),
            closing: Switch::new(),
            config,
            judge,
            original,
        })
    }
}
