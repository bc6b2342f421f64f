//! The host's sockets, the way out, and socket families nobody in a sandbox needs.

use super::{Aim, Outcome, Probe, aim, both, checked, entered, if_there, io, root};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long to wait for an answer that may never come.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) const PROBES: &[Probe] = &[
    both("host-loopback-tcp", |a| tcp("127.0.0.1", a)),
    if_there("host-loopback-tcp6", |a| tcp("::1", a)),
    if_there("host-address-tcp", |a| tcp(aim(a, "address"), a)),
    both("host-loopback-udp", |a| udp("127.0.0.1", a)),
    if_there("host-address-udp", |a| udp(aim(a, "address"), a)),
    both("host-abstract-socket", |a| {
        let address = io(std::os::unix::net::SocketAddr::from_abstract_name(aim(a, "abstract")))?;
        io(UnixStream::connect_addr(&address)).map(|_| "connected".to_owned())
    }),
    both("host-path-socket", |a| {
        io(UnixStream::connect(aim(a, "socket"))).map(|_| "connected".to_owned())
    }),
    if_there("host-interface", |_| {
        let text = io(std::fs::read_to_string("/proc/net/dev"))?;
        let names = text.lines().skip(2).filter_map(|line| line.split(':').next());
        let mut names = names.map(str::trim).filter(|name| *name != "lo");
        names.next().map(str::to_owned).ok_or_else(|| "only lo".to_owned())
    }),
    if_there("host-route", |_| {
        let text = io(std::fs::read_to_string("/proc/net/route"))?;
        let route =
            text.lines().nth(1).map(|line| line.split('\t').next().unwrap_or("").to_owned());
        route.ok_or_else(|| "no route".to_owned())
    }),
    root("raw-socket", |_| socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP)),
    root("raw-socket6", |_| socket(libc::AF_INET6, libc::SOCK_RAW, 58)),
    if_there("ping-socket", |_| socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)),
    root("packet-socket", |_| socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
    if_there("vsock", |_| socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
    if_there("kernel-crypto-socket", |_| socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    if_there("netlink-netfilter", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 12)),
    both("netlink-device-events", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 15)),
    both("netlink-generic", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 16)),
    if_there("netlink-audit", |_| socket(libc::AF_NETLINK, libc::SOCK_RAW, 9)),
    root("change-routes", |_| change_routes()),
    root("bind-low-port", |_| io(UdpSocket::bind("127.0.0.1:1")).map(|_| "bound".to_owned())),
];

fn tcp(host: &str, a: &Aim) -> Outcome {
    let address: IpAddr = host.parse().map_err(|_| "no such address here".to_owned())?;
    let port = aim(a, "tcp").parse().unwrap_or(0);
    io(TcpStream::connect_timeout(&SocketAddr::new(address, port), PATIENCE))
        .map(|_| "connected".to_owned())
}

fn udp(host: &str, a: &Aim) -> Outcome {
    let address: IpAddr = host.parse().map_err(|_| "no such address here".to_owned())?;
    let port: u16 = aim(a, "udp").parse().unwrap_or(0);
    let socket = io(UdpSocket::bind(if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }))?;
    io(socket.set_read_timeout(Some(PATIENCE)))?;
    io(socket.send_to(b"ping", SocketAddr::new(address, port)))?;
    let mut answer = [0; 8];
    io(socket.recv(&mut answer)).map(|count| format!("{count} bytes"))
}

fn socket(family: i32, kind: i32, protocol: i32) -> Outcome {
    // SAFETY: no memory is passed.
    checked(unsafe { libc::socket(family, kind, protocol) }.into())
}

/// Asks to delete a route that does not exist: refused for lack of rights, or not found.
fn change_routes() -> Outcome {
    // nlmsghdr: length 28, RTM_DELROUTE, REQUEST|ACK; rtmsg: AF_INET, /24 in the main table.
    let mut message = [0u8; 36];
    message[0] = 36;
    message[4] = 25;
    message[6] = 5;
    message[16] = 2;
    message[17] = 24;
    message[20] = 254;
    // An attribute of 8 bytes: the destination 198.51.100.0.
    message[28] = 8;
    message[30] = 1;
    message[32..].copy_from_slice(&[198, 51, 100, 0]);
    let mut answer = [0u8; 256];
    // SAFETY: both buffers outlive the calls and their lengths are passed.
    unsafe {
        let fd = libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0);
        checked(fd.into())?;
        entered(libc::send(fd, message.as_ptr().cast(), message.len(), 0) as libc::c_long)?;
        checked(libc::recv(fd, answer.as_mut_ptr().cast(), answer.len(), 0) as libc::c_long)?;
    }
    let errno = i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]);
    if errno == -libc::EPERM {
        Err("not permitted".to_owned())
    } else {
        Ok(format!("reached: {errno}"))
    }
}
