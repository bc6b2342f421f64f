//! In the gate process: the networks of sandboxes, whose judge is the owner.
//!
//! Each question becomes a frame to the owner and waits for its verdict; nothing leaves without
//! one, so when the owner is slow everything waits, and when it is gone this process ends.

use crate::error::GateError;
use crate::frame::{Attachment, Frame};
use crate::guests::{Calls, Door};
use crate::message::{
    Event, GuestAsk, GuestModels, NetConfig, NetQuestion, NetRequest, NetVerdict, SecretGiven,
    ToOwner,
};
use boundary::{
    Answer, Boundary, Config, ConnectAsk, ConnectVerdict, Denial, Endpoint, How, Judge, KeptAnswer,
    Listeners, RequestAsk, RequestVerdict, Scan, SecretUse, Standing,
};
use bytes::Bytes;
use privacy::{Fingerprints, Scanner};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use types::{ActionRequest, Coded as _};
use zeroize::Zeroizing;

/// Descriptors that came and whose network was not opened yet.
const UNCLAIMED_MAX: usize = 64;

/// Bytes of a body that a person is shown.
const SHOWN_BODY_BYTES_MAX: usize = 16 << 10;

/// What a network needs of the host, read before the process was confined.
pub(crate) struct HostNet {
    nameservers: Vec<SocketAddr>,
    roots: Vec<CertificateDer<'static>>,
}

impl HostNet {
    /// `roots` are the host's authorities. Also chooses the library of ciphers for this process.
    /// Without a resolver's configuration nothing is resolved.
    pub(crate) fn read(roots: Vec<CertificateDer<'static>>) -> Self {
        // An error says that it was chosen already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let resolver = hickory_resolver::system_conf::read_system_conf();
        let servers = resolver.map(|(config, _)| config.name_servers().to_vec());
        let nameservers: Vec<SocketAddr> =
            servers.unwrap_or_default().iter().map(|server| (server.ip, DNS_PORT).into()).collect();
        Self { nameservers, roots }
    }
}

/// Where name servers listen.
const DNS_PORT: u16 = 53;

/// What a network says to the owner.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) frame: Frame,
    /// Whether nobody waits for the owner to hear it.
    pub(crate) waits: bool,
}

type Verdict = (NetVerdict, Zeroizing<Vec<u8>>);

/// What the judges of all networks share.
#[derive(Debug)]
struct Asking {
    /// Not bounded itself: the boundary bounds its questions, and each permit has two notes.
    out: mpsc::UnboundedSender<Said>,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Verdict>>>,
    next: AtomicU64,
}

/// All networks of this process.
pub(crate) struct Nets {
    host: HostNet,
    descriptors: OwnedFd,
    unclaimed: Mutex<HashMap<u64, Vec<OwnedFd>>>,
    open: Mutex<HashMap<u64, Arc<Boundary>>>,
    asking: Arc<Asking>,
    /// Guests' calls of all networks.
    pub(crate) guests: Arc<Calls>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nothing panics while it holds a lock")
}

impl Nets {
    /// `descriptors` is the socket by which listeners come.
    pub(crate) fn new(
        host: HostNet,
        descriptors: OwnedFd,
        out: mpsc::UnboundedSender<Said>,
    ) -> Self {
        let asking = Asking { out, waiting: Mutex::default(), next: AtomicU64::new(1) };
        Self {
            host,
            descriptors,
            unclaimed: Mutex::default(),
            open: Mutex::default(),
            asking: Arc::new(asking),
            guests: Arc::default(),
        }
    }

    /// The model endpoint of a network.
    fn door(&self, net: u64, models: GuestModels) -> Arc<dyn Endpoint> {
        let (asking, calls) = (Arc::clone(&self.asking), Arc::clone(&self.guests));
        let ask = move |ask: GuestAsk, call| {
            let number = asking.next.fetch_add(1, Ordering::Relaxed);
            calls.enter(number, call);
            let body = vec![Attachment::Plain(ask.body.clone())];
            let question = NetQuestion::Model { ask: Box::new(ask) };
            let event = Event::NetAsked { net, ask: number, question };
            match Frame::new(&ToOwner { id: 0, event }, body) {
                Ok(frame) => drop(asking.out.send(Said { frame, waits: false })),
                Err(error) => calls.refuse(number, 413, &error.failure(), None),
            }
        };
        Arc::new(Door::new(models, Arc::new(ask)))
    }

    /// Serves a network. Answers its certificate and the authority's key.
    pub(crate) fn open(
        &self,
        net: u64,
        config: NetConfig,
        authority: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<(String, Zeroizing<Vec<u8>>), GateError> {
        let fds = self.claim(net)?;
        let cannot = |why: String| GateError::Network { why };
        let listeners = listeners(fds).map_err(|error| cannot(error.to_string()))?;
        let mut roots = self.host.roots.clone();
        for pem in &config.trust {
            for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                let bad = |_| cannot("a `[network] trust` file is no certificate".to_owned());
                roots.push(certificate.map_err(bad)?);
            }
        }
        let prints = config.prints.map(Arc::new);
        let config = Config {
            resolve: config.resolve,
            nameservers: self.host.nameservers.clone(),
            roots,
            seed: config.seed,
            authority,
            clock: Arc::new(now_s),
            body_bytes: boundary::limits::BODY_BYTES_MAX,
            as_of: config.as_of,
            keep: config.keep,
            models: config.models.map(|models| self.door(net, models)),
        };
        let asking = Arc::clone(&self.asking);
        let judge = Arc::new(OwnerJudge { net, asking, quiet: Mutex::default(), prints });
        let original =
            Arc::new(|stream: &tokio::net::TcpStream| sandbox::original_destination(stream));
        let made = Boundary::start(config, judge, original, listeners);
        let made = made.map_err(|error| cannot(error.to_string()))?;
        let opened = (made.certificate_pem().to_owned(), made.authority_key());
        lock(&self.open).insert(net, Arc::new(made));
        Ok(opened)
    }

    /// The listeners that were sent for this network before it was asked for.
    fn claim(&self, net: u64) -> Result<Vec<OwnedFd>, GateError> {
        let mut unclaimed = lock(&self.unclaimed);
        loop {
            if let Some(fds) = unclaimed.remove(&net) {
                return Ok(fds);
            }
            match sandbox::receive_descriptors(&self.descriptors) {
                Ok(Some((number, fds))) if unclaimed.len() < UNCLAIMED_MAX => {
                    unclaimed.insert(number, fds);
                }
                Ok(Some(_)) => unclaimed.clear(),
                Ok(None) => {
                    let why = "its listeners did not come".to_owned();
                    return Err(GateError::Network { why });
                }
                Err(error) => return Err(GateError::Network { why: error.to_string() }),
            }
        }
    }

    pub(crate) fn close(&self, net: u64) {
        lock(&self.open).remove(&net);
    }

    pub(crate) async fn recheck(&self, net: u64) {
        let found = lock(&self.open).get(&net).cloned();
        if let Some(found) = found {
            found.recheck().await;
        }
    }

    /// Gives a verdict to who waits for it.
    pub(crate) fn verdict(&self, ask: u64, verdict: NetVerdict, secrets: Zeroizing<Vec<u8>>) {
        if let Some(waiter) = lock(&self.asking.waiting).remove(&ask) {
            let _ = waiter.send((verdict, secrets));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "certificates are good by the world's clock")]
fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn listeners(fds: Vec<OwnedFd>) -> std::io::Result<Listeners> {
    let wrong = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let listeners = sandbox::Listeners::from_fds(fds).ok_or_else(wrong)?;
    let tcp = |list: [std::net::TcpListener; 2]| -> std::io::Result<Vec<TcpListener>> {
        list.into_iter().map(TcpListener::from_std).collect()
    };
    let dns_udp = listeners.dns_udp.into_iter().map(UdpSocket::from_std);
    Ok(Listeners {
        tcp: tcp(listeners.tcp)?,
        dns_udp: dns_udp.collect::<std::io::Result<_>>()?,
        dns_tcp: tcp(listeners.dns_tcp)?,
    })
}

/// Asks the owner on behalf of one sandbox.
#[derive(Debug)]
struct OwnerJudge {
    net: u64,
    asking: Arc<Asking>,
    /// Quiet permits that have not ended, and whether they were sent. The boundary bounds them.
    quiet: Mutex<HashMap<u64, bool>>,
    prints: Option<Arc<Fingerprints>>,
}

/// Looks for values of the vault in a body that goes on.
struct Leaks(Scanner);

impl Scan for Leaks {
    fn holds(&mut self, bytes: &[u8]) -> bool {
        !self.0.push(bytes).is_empty()
    }
}

/// A question on its way; dropped, the owner is told that nobody waits.
struct Waiting<'a> {
    judge: &'a OwnerJudge,
    ask: u64,
    over: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.judge.asking.waiting).remove(&self.ask);
        if !self.over {
            self.judge.say(Event::NetWithdrawn { net: self.judge.net, ask: self.ask });
        }
    }
}

impl OwnerJudge {
    fn say(&self, event: Event) {
        self.say_with(event, Vec::new(), false);
    }

    fn say_with(&self, event: Event, attached: Vec<Attachment>, waits: bool) {
        if let Ok(frame) = Frame::new(&ToOwner { id: 0, event }, attached) {
            let _ = self.asking.out.send(Said { frame, waits });
        }
    }

    async fn ask(&self, question: NetQuestion) -> Verdict {
        let ask = self.asking.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        lock(&self.asking.waiting).insert(ask, sender);
        let mut waiting = Waiting { judge: self, ask, over: false };
        self.say(Event::NetAsked { net: self.net, ask, question });
        let verdict = receiver.await;
        waiting.over = true;
        verdict.unwrap_or_else(|_| (NetVerdict::Deny(refused()), Zeroizing::default()))
    }
}

/// Bytes with every `%41` as the byte it stands for.
fn unescaped(bytes: &[u8]) -> Vec<u8> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escape = match bytes.get(at..at + 3) {
            Some([b'%', high, low]) => digit(*high).zip(digit(*low)),
            _ => None,
        };
        out.push(escape.map_or(bytes[at], |(high, low)| high << 4 | low));
        at += if escape.is_some() { 3 } else { 1 };
    }
    out
}

/// What is said when the owner says nothing that can be used.
fn refused() -> Denial {
    Denial {
        code: "BP-GATE-014".to_owned(),
        message: "the runtime cannot decide now".to_owned(),
        approval: None,
    }
}

fn denial(verdict: NetVerdict) -> Denial {
    match verdict {
        NetVerdict::Deny(denial) => denial,
        NetVerdict::Permit { .. } | NetVerdict::Answered { .. } | NetVerdict::Inspect => refused(),
    }
}

impl Judge for OwnerJudge {
    fn name<'a>(&'a self, host: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let asked = self.ask(NetQuestion::Name { host: host.to_owned() }).await;
            matches!(asked.0, NetVerdict::Permit { .. })
        })
    }

    fn connect<'a>(&'a self, ask: &'a ConnectAsk) -> Answer<'a, ConnectVerdict> {
        Box::pin(async move {
            let question = NetQuestion::Connect { host: ask.host.clone(), port: ask.port };
            match self.ask(question).await.0 {
                NetVerdict::Inspect => ConnectVerdict::Inspect,
                NetVerdict::Permit { permit, .. } => ConnectVerdict::Opaque { id: permit },
                other => ConnectVerdict::Deny(denial(other)),
            }
        })
    }

    fn request<'a>(&'a self, ask: &'a RequestAsk) -> Answer<'a, RequestVerdict> {
        Box::pin(async move {
            let placeholders = ask.placeholders.iter();
            let shown = &ask.body[..ask.body.len().min(SHOWN_BODY_BYTES_MAX)];
            let request = NetRequest {
                action: ask.action(),
                raw_path: ask.raw_path.clone(),
                body: String::from_utf8_lossy(shown).into_owned(),
                body_bytes: ask.body.len() as u64,
                leaked: ask.leaked.clone(),
                placeholders: placeholders.map(|p| (p.name.clone(), p.text.clone())).collect(),
                digest: ask.digest,
                exchange: ask.exchange,
            };
            let question = NetQuestion::Request { request: Box::new(request) };
            match self.ask(question).await {
                (NetVerdict::Permit { permit, secrets, quiet }, values) => {
                    let Some(secrets) = uses(secrets, &values) else {
                        return RequestVerdict::Deny(refused());
                    };
                    if quiet {
                        lock(&self.quiet).insert(permit, false);
                    }
                    RequestVerdict::Permit { id: permit, secrets }
                }
                (NetVerdict::Answered { permit }, answer) => {
                    // It was never sent, and its end says so.
                    lock(&self.quiet).insert(permit, false);
                    match KeptAnswer::parse(&answer) {
                        Ok(answer) => {
                            RequestVerdict::Answered { id: permit, answer: Box::new(answer) }
                        }
                        Err(why) => {
                            let why = format!("what was kept is no answer: {why}");
                            self.event(permit, boundary::Event::Failed { why });
                            RequestVerdict::Deny(refused())
                        }
                    }
                }
                (other, _) => RequestVerdict::Deny(denial(other)),
            }
        })
    }

    fn still<'a>(&'a self, standing: &'a Standing) -> Answer<'a, bool> {
        let connect =
            |ask: &ConnectAsk| ActionRequest::Connect { host: ask.host.clone(), port: ask.port };
        let (action, permit) = match standing {
            Standing::Inspected(ask) => (connect(ask), None),
            Standing::Opaque { id, ask } => (connect(ask), Some(*id)),
            Standing::Request { id, ask } => (ask.action(), Some(*id)),
        };
        Box::pin(async move {
            let asked = self.ask(NetQuestion::Still { action: Box::new(action), permit }).await;
            matches!(asked.0, NetVerdict::Permit { .. } | NetVerdict::Inspect)
        })
    }

    fn minted(&self, placeholder: &str, token: &Zeroizing<String>, expires_s: Option<u64>) {
        let placeholder = placeholder.to_owned();
        let event = Event::NetMinted { net: self.net, placeholder, expires_s };
        let token = Attachment::Secret(models::Secret::new(token.as_bytes().to_vec()));
        self.say_with(event, vec![token], false);
    }

    fn kept(&self, permit: u64, answer: Result<Bytes, &'static str>) {
        let (bytes, nothing) = match answer {
            Ok(bytes) => (Some(Attachment::Plain(bytes)), None),
            Err(why) => (None, Some(why.to_owned())),
        };
        let event = Event::NetKept { net: self.net, permit, nothing };
        self.say_with(event, bytes.into_iter().collect(), false);
    }

    fn leaked(&self, parts: &[&[u8]]) -> Vec<String> {
        let Some(prints) = &self.prints else { return Vec::new() };
        let found = parts.iter().flat_map(|part| {
            let plain = part.contains(&b'%').then(|| unescaped(part));
            let inside = plain.into_iter().flat_map(|plain| prints.find(&plain));
            prints.find(part).into_iter().chain(inside)
        });
        found.map(|hit| hit.secret).collect()
    }

    fn scan(&self) -> Option<Box<dyn Scan>> {
        let prints = self.prints.as_ref()?;
        Some(Box::new(Leaks(Scanner::new(Arc::clone(prints)))))
    }

    fn event(&self, permit: u64, passage: boundary::Event) {
        let sent = match passage {
            boundary::Event::Sent => {
                if let Some(sent) = lock(&self.quiet).get_mut(&permit) {
                    *sent = true;
                    return;
                }
                None
            }
            boundary::Event::Dated { .. } => None,
            boundary::Event::Answered { .. } | boundary::Event::Failed { .. } => {
                lock(&self.quiet).remove(&permit)
            }
        };
        let event = Event::NetPassed { net: self.net, permit, passage, sent };
        self.say_with(event, Vec::new(), sent.is_some());
    }
}

/// Placeholders with what is given for them: a list in JSON, in the same order.
fn uses(placeholders: Vec<String>, given: &[u8]) -> Option<Vec<SecretUse>> {
    if placeholders.is_empty() {
        return Some(Vec::new());
    }
    let given: Vec<SecretGiven> = serde_json::from_slice(given).ok()?;
    if given.len() != placeholders.len() {
        return None;
    }
    Some(
        placeholders
            .into_iter()
            .zip(given)
            .map(|(placeholder, one)| used(placeholder, one))
            .collect(),
    )
}

fn used(placeholder: String, mut given: SecretGiven) -> SecretUse {
    let (value, how) = match &mut given {
        SecretGiven::Value { value } => (std::mem::take(value), How::Replace),
        SecretGiven::AwsSigv4 { access_key, secret, session_token, region, service } => {
            let how = How::AwsSigV4 {
                access_key: std::mem::take(access_key),
                region: std::mem::take(region),
                service: std::mem::take(service),
                session_token: session_token.take(),
            };
            (std::mem::take(secret), how)
        }
        SecretGiven::Token { client } => (String::new(), How::Token(Box::new(client.clone()))),
    };
    SecretUse { placeholder, value: Zeroizing::new(value), how }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_the_bytes_they_stand_for_and_nothing_else_is_touched() {
        let check = |text: &str, expected: &str| {
            assert_eq!(unescaped(text.as_bytes()), expected.as_bytes(), "{text}");
        };
        check("", "");
        check("%61%62c%2D%2d", "abc--");
        check("100%", "100%");
        check("%4", "%4");
        check("%zz%41", "%zzA");
        check("%25%34%31", "%41");
    }
}
