//! A sandbox's surroundings on loopback: the boundary, its judge, upstreams, a name server.

use crate::judge::Fake;
use crate::net;
use crate::sink::{Sink, Upstreams};
use boundary::{Boundary, Config, Endpoint, Listeners};
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use types::AsOfField;

/// Where each connection of a test was going, by its own address.
pub(crate) type Destinations = Arc<Mutex<HashMap<SocketAddr, SocketAddr>>>;

/// Everything around one sandbox.
pub(crate) struct World {
    pub(crate) judge: Arc<Fake>,
    pub(crate) boundary: Boundary,
    pub(crate) sink: Arc<Sink>,
    /// The names that were looked up outside.
    pub(crate) lookups: Arc<Mutex<Vec<String>>>,
    pub(crate) destinations: Destinations,
    pub(crate) tcp: SocketAddr,
    pub(crate) dns_udp: SocketAddr,
    pub(crate) dns_tcp: SocketAddr,
}

/// Which answers say how old they are, and where.
fn dated() -> BTreeMap<String, AsOfField> {
    let rules = [("ok.test/dated/*", "/at"), ("plain.ok.test/dated/*", "header:Last-Modified")];
    let field = |text: &str| AsOfField::try_from(text.to_owned()).unwrap();
    rules.map(|(key, text)| (key.to_owned(), field(text))).into()
}

/// What the name server outside says.
const OUTSIDE: [(&str, &[&str]); 6] = [
    ("private.ok.test", &["10.0.0.1"]),
    ("loopback.ok.test", &["127.0.0.1"]),
    ("metadata.ok.test", &["169.254.169.254"]),
    ("mixed.ok.test", &["93.184.216.34", "192.168.0.1"]),
    ("mapped.ok.test", &["::ffff:127.0.0.1"]),
    ("nat64.ok.test", &["64:ff9b::a00:1"]),
];

async fn name_server(lookups: Arc<Mutex<Vec<String>>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0u8; 1500];
        while let Ok((bytes, peer)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..bytes]).unwrap();
            let reply = outside(&query, &lookups);
            socket.send_to(&reply.to_vec().unwrap(), peer).await.unwrap();
        }
    });
    address
}

fn outside(query: &Message, lookups: &Mutex<Vec<String>>) -> Message {
    let question = query.queries[0].clone();
    let name = question.name.to_ascii().to_ascii_lowercase();
    let name = name.trim_end_matches('.').to_owned();
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.add_query(question.clone());
    match OUTSIDE.iter().find(|(known, _)| *known == name) {
        None => reply.metadata.response_code = ResponseCode::NXDomain,
        Some((_, addresses)) => {
            for address in *addresses {
                let data = match address.parse().unwrap() {
                    IpAddr::V4(v4) => RData::A(A(v4)),
                    IpAddr::V6(v6) => RData::AAAA(AAAA(v6)),
                };
                let fits = matches!(
                    (&data, question.query_type),
                    (RData::A(_), RecordType::A) | (RData::AAAA(_), RecordType::AAAA)
                );
                if fits {
                    reply.add_answer(Record::from_rdata(question.name.clone(), 0, data));
                }
            }
        }
    }
    lookups.lock().unwrap().push(name);
    reply
}

impl World {
    pub(crate) async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (sink, upstreams) = (Arc::new(Sink::default()), Upstreams::new());
        let http = sink.http().await;
        let names = ["tls.ok.test", "other.ok.test", "api.tls.ok.test"];
        let both: [&[u8]; 2] = [b"h2", b"http/1.1"];
        let tls = sink.https(upstreams.server(&names, false, &both)).await;
        let one = sink.https(upstreams.server(&["h1.ok.test"], false, &both[1..])).await;
        let expired = sink.https(upstreams.server(&["expired.ok.test"], true, &both)).await;
        let foreign = Upstreams::new().server(&["foreign.ok.test"], false, &both);
        let foreign = sink.https(foreign).await;
        let raw = sink.raw().await;
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let resolve = [
            ("ok.test", http),
            ("plain.ok.test", http),
            ("93.184.216.34", http),
            ("tls.ok.test", tls),
            ("other.ok.test", tls),
            ("wrong.ok.test", tls),
            ("h1.ok.test", one),
            ("expired.ok.test", expired),
            ("foreign.ok.test", foreign),
            ("raw.ok.test", raw),
            ("rawtls.ok.test", raw),
            ("dead.ok.test", dead),
        ];
        let resolve = resolve.into_iter().map(|(name, address)| (name.to_owned(), address));
        Self::with(sink, resolve.collect(), upstreams.root(), None).await
    }

    /// A sandbox with a model endpoint, and nothing else outside.
    pub(crate) async fn with_models(models: Arc<dyn Endpoint>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (sink, root) = (Arc::new(Sink::default()), Upstreams::new().root());
        Self::with(sink, BTreeMap::new(), root, Some(models)).await
    }

    async fn with(
        sink: Arc<Sink>,
        resolve: BTreeMap<String, SocketAddr>,
        root: rustls::pki_types::CertificateDer<'static>,
        models: Option<Arc<dyn Endpoint>>,
    ) -> Self {
        let (judge, lookups) = (Arc::new(Fake::default()), Arc::default());
        let config = Config {
            resolve,
            nameservers: vec![name_server(Arc::clone(&lookups)).await],
            roots: vec![root],
            seed: [42; 32],
            clock: Arc::new(net::now_s),
            authority: None,
            body_bytes: boundary::limits::BODY_BYTES_MAX,
            as_of: dated(),
            keep: false,
            models,
        };
        let listeners = Listeners {
            tcp: vec![TcpListener::bind("127.0.0.1:0").await.unwrap()],
            dns_udp: vec![UdpSocket::bind("127.0.0.1:0").await.unwrap()],
            dns_tcp: vec![TcpListener::bind("127.0.0.1:0").await.unwrap()],
        };
        let tcp = listeners.tcp[0].local_addr().unwrap();
        let dns_udp = listeners.dns_udp[0].local_addr().unwrap();
        let dns_tcp = listeners.dns_tcp[0].local_addr().unwrap();
        let destinations: Destinations = Arc::default();
        let known = Arc::clone(&destinations);
        let original = move |stream: &TcpStream| {
            let peer = stream.peer_addr()?;
            known.lock().unwrap().get(&peer).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
        };
        let asked: Arc<dyn boundary::Judge> = judge.clone();
        let boundary = Boundary::start(config, asked, Arc::new(original), listeners).unwrap();
        Self { judge, boundary, sink, lookups, destinations, tcp, dns_udp, dns_tcp }
    }

    /// How many requests and raw connections got out, and how many lookups.
    pub(crate) fn witness(&self) -> (usize, usize, usize) {
        let lookups = self.lookups.lock().unwrap().len();
        (self.sink.requests(), self.sink.connections(), lookups)
    }

    /// How many requests the judge was asked about.
    pub(crate) fn asked(&self) -> usize {
        self.judge.seen.lock().unwrap().requests.len()
    }
}
