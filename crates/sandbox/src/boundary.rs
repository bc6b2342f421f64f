//! The network of a sandbox: loopback, and listeners to whom everything outward is handed.
//!
//! There is no route out. Every address is local to the namespace, so a connection to anywhere ends
//! on its loopback device, where it is redirected to a listener that was opened inside and is
//! served from outside: whatever a program thinks of proxy variables. Names are asked there too.
//! What is neither TCP nor DNS is refused.
//!
//! ```text
//!   program -- connect 93.184.216.34:443 --> lo --(redirect)--> 127.0.0.1:TCP_PORT   gate, outside
//!           -- query to any port 53 -------> lo --(redirect)--> 127.0.0.1:DNS_PORT   gate, outside
//!           -- 127.0.0.1, ::1 -------------> lo                                      its own
//!           -- anything else --------------> refused
//! ```
//!
//! The namespace belongs to the spawner's user namespace: nothing inside can change it. It is
//! used for one sandbox and never again. The rules are one constant message.

use crate::SandboxError;
use crate::mode::Mode;
use crate::netlink::{APPEND, Attributes, Batch, CREATE, Family};
use crate::sys;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

/// Where outward TCP connections arrive inside.
pub const TCP_PORT: u16 = 15_001;
/// Where questions for names arrive inside, by UDP and TCP.
pub const DNS_PORT: u16 = 15_053;
/// Connections that wait to be taken.
const BACKLOG: i32 = 128;
/// Addresses that lo carries so that programs believe there is a network at all: from the ranges
/// for documentation.
const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// The listeners of one sandbox, opened inside and served outside. Dropped, every connection
/// outward is refused.
#[derive(Debug)]
pub struct Listeners {
    /// Outward connections, over IPv4 and IPv6.
    pub tcp: [TcpListener; 2],
    /// Questions for names by UDP.
    pub dns_udp: [UdpSocket; 2],
    /// Questions for names by TCP.
    pub dns_tcp: [TcpListener; 2],
}

/// Descriptors of [`Listeners`].
pub(crate) const LISTENERS: usize = 6;

impl Listeners {
    /// From descriptors in the order that [`Listeners::into_fds`] gives; `None` when they are not
    /// as many.
    #[must_use]
    pub fn from_fds(fds: Vec<OwnedFd>) -> Option<Self> {
        let [tcp4, tcp6, udp4, udp6, dns4, dns6]: [OwnedFd; LISTENERS] = fds.try_into().ok()?;
        Some(Self {
            tcp: [tcp4.into(), tcp6.into()],
            dns_udp: [udp4.into(), udp6.into()],
            dns_tcp: [dns4.into(), dns6.into()],
        })
    }

    /// The descriptors: outward connections, questions by UDP, by TCP; IPv4 before IPv6.
    #[must_use]
    pub fn into_fds(self) -> Vec<OwnedFd> {
        let tcp = self.tcp.map(OwnedFd::from);
        let udp = self.dns_udp.map(OwnedFd::from);
        let dns = self.dns_tcp.map(OwnedFd::from);
        tcp.into_iter().chain(udp).chain(dns).collect()
    }
}

/// Where a redirected connection was going.
///
/// # Errors
/// When it was not redirected: then it was made to the listener itself, and is to be refused.
pub fn original_destination(connection: impl std::os::fd::AsFd) -> io::Result<SocketAddr> {
    sys::original_destination(connection.as_fd())
}

/// Sets up the network namespace this process is in, which must be new, and opens the listeners.
pub(crate) fn open() -> Result<Vec<OwnedFd>, SandboxError> {
    let wrap = |what: &'static str| move |error: io::Error| SandboxError::network(what, &error);
    sys::loopback_up().map_err(wrap("bringing the loopback interface up"))?;
    addresses().send(Family::Route).map_err(wrap("giving the loopback interface its addresses"))?;
    rules().send(Family::Netfilter).map_err(wrap("setting the redirection up"))?;
    listeners().map_err(wrap("opening the listeners"))
}

/// What one network namespace took, nanoseconds: all of it, and its bare making alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkTime {
    /// Made, set up, redirected, with its listeners: as a sandbox gets it.
    pub whole: u64,
    /// Made by the kernel, and nothing else.
    pub bare: u64,
}

/// Makes so many networks as sandboxes get them, one after the other, and measures each. The
/// calling process must have one thread, and is in none of its namespaces afterwards: it should end.
///
/// # Errors
/// What keeps a sandbox from having a network.
pub fn measure_networks(count: u32) -> Result<Vec<NetworkTime>, SandboxError> {
    if Mode::here() == Mode::User {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        sys::unshare(libc::CLONE_NEWUSER)
            .map_err(|error| SandboxError::UserNamespaces { why: error.to_string() })?;
        crate::confine::map_ids(&crate::confine::open_proc()?, 0, uid.as_raw(), gid.as_raw())?;
    }
    let make = || {
        sys::unshare(libc::CLONE_NEWNET)
            .map_err(|error| SandboxError::network("making a namespace", &error))
    };
    let mut times = Vec::new();
    for _ in 0..count {
        let begun = std::time::Instant::now();
        make()?;
        let listeners = open()?;
        let whole = begun.elapsed();
        drop(listeners);
        let begun = std::time::Instant::now();
        make()?;
        let bare = begun.elapsed();
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        times.push(NetworkTime { whole: nanos(whole), bare: nanos(bare) });
    }
    Ok(times)
}

fn listeners() -> io::Result<Vec<OwnedFd>> {
    let hosts: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let sockets = [
        (SocketType::STREAM, TCP_PORT),
        (SocketType::DGRAM, DNS_PORT),
        (SocketType::STREAM, DNS_PORT),
    ];
    let mut list = Vec::with_capacity(LISTENERS);
    for (kind, port) in sockets {
        for host in hosts {
            list.push(socket(kind, SocketAddr::new(host, port))?);
        }
    }
    Ok(list)
}

/// A socket bound to one loopback address: bound to all, a reply to a question would come from an
/// address that was not asked.
fn socket(kind: SocketType, address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    Ok(socket)
}

const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;
/// The loopback interface is the first of every namespace.
const LOOPBACK: u32 = 1;

/// Addresses of lo, and "every address is here".
fn addresses() -> Batch {
    let mut batch = Batch::default();
    let own: [(u8, u8, Vec<u8>); 2] =
        [(AF_INET, 32, OWN_V4.octets().to_vec()), (AF_INET6, 128, OWN_V6.octets().to_vec())];
    for (family, bits, address) in own {
        /// Usable at once, without looking for another that has it.
        const NO_DETECTION: u8 = 2;
        let mut fixed = vec![family, bits, NO_DETECTION, 0];
        fixed.extend(LOOPBACK.to_ne_bytes());
        let attributes = Attributes::default().bytes(2, &address).bytes(1, &address);
        batch.add(NEW_ADDRESS, CREATE, &fixed, &attributes);
        /// Table of local addresses, set at boot, on this host, of type local.
        const EVERYTHING_IS_LOCAL: [u8; 4] = [255, 3, 254, 2];
        let mut fixed = vec![family, 0, 0, 0];
        fixed.extend(EVERYTHING_IS_LOCAL);
        fixed.extend([0; 4]);
        let attributes = Attributes::default().bytes(4, &LOOPBACK.to_ne_bytes());
        batch.add(NEW_ROUTE, CREATE, &fixed, &attributes);
    }
    batch
}

const TABLE: &str = "bedplate";
const NAT: &str = "out";
const FILTER: &str = "rest";
/// Messages of nftables carry this in the high byte.
const NFTABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = NFTABLES;
const NEW_CHAIN: u16 = NFTABLES | 3;
const NEW_RULE: u16 = NFTABLES | 6;
const BEGIN: u16 = 0x10;
const END: u16 = 0x11;
/// Both IPv4 and IPv6.
const INET: u8 = 1;
/// The hook for what programs of this namespace send.
const LOCAL_OUT: u32 = 3;
const NAT_PRIORITY: i32 = -100;

/// The whole redirection as one transaction.
fn rules() -> Batch {
    let mut batch = Batch::default();
    batch.bracket(BEGIN, &[0, 0, 0, 10]);
    let fixed = [INET, 0, 0, 0];
    batch.add(NEW_TABLE, CREATE, &fixed, &Attributes::default().text(1, TABLE));
    for (name, kind, priority) in [(NAT, "nat", NAT_PRIORITY), (FILTER, "filter", 0)] {
        let hook = Attributes::default().be32(1, LOCAL_OUT).be32(2, priority.cast_unsigned());
        let chain = Attributes::default().text(1, TABLE).text(3, name).nested(4, &hook);
        batch.add(NEW_CHAIN, CREATE, &fixed, &chain.text(7, kind));
    }
    let mut rule = |chain: &str, expressions: &Attributes| {
        let rule = Attributes::default().text(1, TABLE).text(2, chain).nested(4, expressions);
        batch.add(NEW_RULE, CREATE | APPEND, &fixed, &rule);
    };
    for protocol in [libc::IPPROTO_UDP, libc::IPPROTO_TCP] {
        let dns = equal(protocol_of(), &[protocol as u8]);
        let dns = equal(payload(dns, TRANSPORT, 2, 2), &53u16.to_be_bytes());
        rule(NAT, &redirect(dns, DNS_PORT));
    }
    for chain in [NAT, FILTER] {
        if chain == FILTER {
            rule(FILTER, &accept(known_connection()));
        }
        rule(chain, &accept(to_loopback_v4()));
        rule(chain, &accept(to_loopback_v6()));
    }
    rule(NAT, &redirect(equal(protocol_of(), &[libc::IPPROTO_TCP as u8]), TCP_PORT));
    rule(FILTER, &reject());
    batch.bracket(END, &[0, 0, 0, 10]);
    batch
}

/// The register everything is compared in.
const REGISTER: u32 = 1;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;

fn expression(list: Attributes, name: &str, data: &Attributes) -> Attributes {
    list.nested(1, &Attributes::default().text(1, name).nested(2, data))
}

fn meta(key: u32) -> Attributes {
    let data = Attributes::default().be32(1, REGISTER).be32(2, key);
    expression(Attributes::default(), "meta", &data)
}

fn protocol_of() -> Attributes {
    meta(META_PROTOCOL)
}

fn compare(list: Attributes, operation: u32, value: &[u8]) -> Attributes {
    let value = Attributes::default().bytes(1, value);
    let data = Attributes::default().be32(1, REGISTER).be32(2, operation).nested(3, &value);
    expression(list, "cmp", &data)
}

fn equal(list: Attributes, value: &[u8]) -> Attributes {
    compare(list, 0, value)
}

fn payload(list: Attributes, base: u32, offset: u32, len: u32) -> Attributes {
    let data = Attributes::default().be32(1, REGISTER).be32(2, base).be32(3, offset).be32(4, len);
    expression(list, "payload", &data)
}

/// Keeps the bits of `mask`.
fn masked(list: Attributes, mask: &[u8; 4]) -> Attributes {
    let data = Attributes::default()
        .be32(1, REGISTER)
        .be32(2, REGISTER)
        .be32(3, 4)
        .nested(4, &Attributes::default().bytes(1, mask))
        .nested(5, &Attributes::default().bytes(1, &[0; 4]));
    expression(list, "bitwise", &data)
}

fn to_loopback_v4() -> Attributes {
    let v4 = equal(meta(META_FAMILY), &[libc::NFPROTO_IPV4 as u8]);
    equal(masked(payload(v4, NETWORK, 16, 4), &[255, 0, 0, 0]), &[127, 0, 0, 0])
}

fn to_loopback_v6() -> Attributes {
    let v6 = equal(meta(META_FAMILY), &[libc::NFPROTO_IPV6 as u8]);
    equal(payload(v6, NETWORK, 24, 16), &Ipv6Addr::LOCALHOST.octets())
}

/// Replies, and errors about them. Nothing becomes known that was not let through first.
fn known_connection() -> Attributes {
    const STATE: u32 = 0;
    const NOT_EQUAL: u32 = 1;
    /// Established or related.
    const KNOWN: u32 = 2 | 4;
    let data = Attributes::default().be32(1, REGISTER).be32(2, STATE);
    let list = expression(Attributes::default(), "ct", &data);
    compare(masked(list, &KNOWN.to_ne_bytes()), NOT_EQUAL, &[0; 4])
}

fn accept(list: Attributes) -> Attributes {
    const ACCEPT: u32 = 1;
    let verdict = Attributes::default().nested(2, &Attributes::default().be32(1, ACCEPT));
    expression(list, "immediate", &Attributes::default().be32(1, 0).nested(2, &verdict))
}

fn redirect(list: Attributes, port: u16) -> Attributes {
    let value = Attributes::default().bytes(1, &port.to_be_bytes());
    let data = Attributes::default().be32(1, REGISTER).nested(2, &value);
    let list = expression(list, "immediate", &data);
    expression(list, "redir", &Attributes::default().be32(1, REGISTER))
}

/// "Administratively prohibited", at once: a program is told, and does not wait.
fn reject() -> Attributes {
    const EITHER_FAMILY: u32 = 2;
    const PROHIBITED: u8 = 3;
    let data = Attributes::default().be32(1, EITHER_FAMILY).bytes(2, &[PROHIBITED]);
    expression(Attributes::default(), "reject", &data)
}
