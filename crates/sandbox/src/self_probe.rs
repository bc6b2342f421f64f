//! A sandbox's look at its own containment, before anything of the agent's runs in it.
//!
//! Two looks. [`of_network`] is init's, once a sandbox, behind the sandbox's own system call
//! filter: what is sent outward must arrive at our listeners with its destination, and what is
//! neither TCP nor DNS must be refused. [`of_program`] is every program's, in the very process that
//! becomes it, when all its rights are gone: what it still can do is what the agent could.
//!
//! What always holds: the first probe that gets through refuses the start; none is skipped because
//! a kernel lacks it. It never repairs anything and tells the sandbox nothing.

use crate::SandboxError;
use crate::confine;
use crate::spec::{AGENT_ID, FsRules, HOME_INSIDE};
use crate::sys;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatVfsMountFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::Resource;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use types::manifest::Limits;

/// The namespaces of a sandbox that no other process may share.
const NAMESPACES_APART: [&str; 6] = ["pid", "user", "mnt", "ipc", "uts", "net"];
/// An address of each family that leads nowhere on the Internet: from the ranges for documentation.
const OUTWARD: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1)),
];
/// Where HTTPS goes by TCP, and QUIC by UDP.
const PORT: u16 = 443;
/// How long a redirected connection may take; it never leaves the kernel.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// Directories that nothing in a sandbox may write to.
const READ_ONLY_DIRS: [&str; 5] = ["/", "/usr", "/etc", "/sys", "/proc"];
/// A file that cannot be made in any of them.
const UNWRITABLE: &str = "/usr/.bedplate-probe";
/// Parts of the one scratch space; seen as another device, something else stands there.
const SCRATCH_DIRS: [&str; 3] = ["/tmp", "/dev/shm", HOME_INSIDE];
/// Bytes of one file of /proc that a probe reads.
const PROC_BYTES_MAX: usize = 8 << 10;
/// The Landlock ABI from which signals to processes outside the fence are refused.
const LANDLOCK_ABI_SIGNALS: u32 = 6;
/// What the kernel calls a filter in /proc/PID/status.
const SECCOMP_FILTER: &str = "2";

type Probe = Result<(), String>;

fn fail(probe: &'static str) -> impl Fn(String) -> SandboxError {
    move |why| SandboxError::NotContained { probe: probe.to_owned(), why }
}

/// Which namespaces a process is in: the spawner's own, for comparison.
pub(crate) fn own_namespaces() -> Result<Vec<String>, SandboxError> {
    let read = |name: &&str| {
        let path = format!("/proc/self/ns/{name}");
        let link = std::fs::read_link(&path);
        link.map(|link| link.to_string_lossy().into_owned())
            .map_err(|error| SandboxError::setup("reading our own namespaces", error))
    };
    NAMESPACES_APART.iter().map(read).collect()
}

/// What init tries, from inside, with the listeners still at hand.
pub(crate) fn of_network(listeners: &[OwnedFd]) -> Result<(), SandboxError> {
    for (index, address) in OUTWARD.into_iter().enumerate() {
        let to = SocketAddr::new(address, PORT);
        redirected(listeners.get(index), to).map_err(fail("a connection outward"))?;
        datagram(to).map_err(fail("a datagram outward"))?;
    }
    Ok(())
}

/// A connection outward must arrive at our listener, and know where it was going.
fn redirected(listener: Option<&OwnedFd>, to: SocketAddr) -> Probe {
    let listener = listener.ok_or("nothing takes what goes outward")?;
    let text = |error: Errno| format!("{to}: {error}");
    let socket = socket_to(to, SocketType::STREAM).map_err(text)?;
    let send = sockopt::Timeout::Send;
    sockopt::set_socket_timeout(&socket, send, Some(CONNECT_WAIT)).map_err(text)?;
    // So that both ends are gone at once when they are closed.
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).map_err(text)?;
    rustix::net::connect(&socket, &to).map_err(text)?;
    let mut ready = [rustix::event::PollFd::new(listener, rustix::event::PollFlags::IN)];
    let wait = rustix::event::Timespec { tv_sec: CONNECT_WAIT.as_secs() as i64, tv_nsec: 0 };
    rustix::event::poll(&mut ready, Some(&wait)).map_err(text)?;
    let elsewhere = |_| format!("{to} was reached, and not by way of the boundary");
    let taken = rustix::net::accept(listener).map_err(elsewhere)?;
    match sys::original_destination(taken.as_fd()) {
        Ok(found) if found == to => Ok(()),
        Ok(found) => Err(format!("it was going to {to} and arrived as one to {found}")),
        Err(error) => Err(format!("where it was going is lost: {error}")),
    }
}

/// What is neither TCP nor DNS must not be taken.
fn datagram(to: SocketAddr) -> Probe {
    let socket = socket_to(to, SocketType::DGRAM).map_err(|error| error.to_string())?;
    match rustix::net::sendto(&socket, b"probe", rustix::net::SendFlags::empty(), &to) {
        Err(_) => Ok(()),
        Ok(_) => Err(format!("the kernel took one to {to}")),
    }
}

fn socket_to(to: SocketAddr, kind: SocketType) -> Result<OwnedFd, Errno> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)
}

/// What a program's process knows of how it was to be contained.
pub(crate) struct Contained<'a> {
    /// The spawner's namespaces, as [`own_namespaces`] names them.
    pub(crate) outside: &'a [String],
    pub(crate) rules: &'a FsRules,
    pub(crate) limits: &'a Limits,
    pub(crate) landlock_abi: u32,
    /// The only descriptor above 2.
    pub(crate) report: BorrowedFd<'a>,
}

/// What every program's process tries when it has given up its rights, right before it becomes
/// the program.
pub(crate) fn of_program(contained: &Contained<'_>) -> Result<(), SandboxError> {
    rights().map_err(fail("rights"))?;
    apart(contained.outside).map_err(fail("namespaces"))?;
    alone().map_err(fail("other processes"))?;
    sockets().map_err(fail("sockets"))?;
    interfaces().map_err(fail("network interfaces"))?;
    system(contained.rules).map_err(fail("system files"))?;
    masks(contained.rules).map_err(fail("denied paths"))?;
    fenced(contained.landlock_abi).map_err(fail("Landlock"))?;
    limited(contained.limits).map_err(fail("limits"))?;
    descriptors(contained.report).map_err(fail("open descriptors"))
}

/// The start of a file; those of /proc come whole.
fn read(path: &str) -> Result<String, String> {
    let text = |error: Errno| format!("{path}: {error}");
    let file =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(text)?;
    let mut buffer = vec![0; PROC_BYTES_MAX];
    let count = rustix::io::read(&file, &mut buffer).map_err(text)?;
    buffer.truncate(count);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

/// No capability in any set, no new privileges, a filter, one identity.
fn rights() -> Probe {
    let status = read("/proc/self/status")?;
    let field = |name: &str| {
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(str::trim).ok_or_else(|| format!("the kernel does not say {name}"))
    };
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let set = field(name)?;
        if set.bytes().any(|digit| digit != b'0') {
            return Err(format!("{name} is {set}"));
        }
    }
    for (name, expected) in [("NoNewPrivs", "1"), ("Seccomp", SECCOMP_FILTER)] {
        let found = field(name)?;
        if found != expected {
            return Err(format!("{name} is {found}, not {expected}"));
        }
    }
    let agent = AGENT_ID.to_string();
    for name in ["Uid", "Gid"] {
        let ids = field(name)?;
        if ids.split_whitespace().any(|id| id != agent) {
            return Err(format!("{name} is {ids}, not {agent}"));
        }
    }
    Ok(())
}

/// None of the spawner's namespaces.
fn apart(outside: &[String]) -> Probe {
    let mut path = String::new();
    for (name, outside) in NAMESPACES_APART.iter().zip(outside) {
        path.clear();
        path.push_str("/proc/self/ns/");
        path.push_str(name);
        let link = std::fs::read_link(&path).map_err(|error| format!("{path}: {error}"))?;
        if link.as_os_str() == outside.as_str() {
            return Err(format!("the {name} namespace is the spawner's own"));
        }
    }
    Ok(())
}

/// No process outside can be seen, and init tells nothing.
fn alone() -> Probe {
    if let Some(parent) = rustix::process::getppid() {
        return Err(format!("the spawner is seen as {}", parent.as_raw_nonzero()));
    }
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    let shown = std::fs::read_link("/proc/self").map_err(|error| format!("/proc: {error}"))?;
    if shown.as_os_str() != own.as_str() {
        return Err(format!("/proc is another namespace's: it calls us {}", shown.display()));
    }
    refused_to_open("/proc/1/environ", OFlags::RDONLY)
}

fn refused_to_open(path: &str, flags: OFlags) -> Probe {
    match rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600)) {
        Err(_) => Ok(()),
        Ok(_) => Err(format!("{path} could be opened")),
    }
}

/// Sockets below or beside TCP and UDP.
fn sockets() -> Probe {
    let netfilter = rustix::net::Protocol::from_raw(12.try_into().expect("it is not zero"));
    let kinds = [
        ("packet", AddressFamily::PACKET, SocketType::RAW, None),
        ("raw IP", AddressFamily::INET, SocketType::RAW, Some(rustix::net::ipproto::ICMP)),
        ("raw IPv6", AddressFamily::INET6, SocketType::RAW, Some(rustix::net::ipproto::ICMPV6)),
        ("host", AddressFamily::from_raw(libc::AF_VSOCK as u16), SocketType::STREAM, None),
        ("netfilter", AddressFamily::NETLINK, SocketType::RAW, Some(netfilter)),
    ];
    for (name, family, kind, protocol) in kinds {
        if rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, protocol).is_ok() {
            return Err(format!("a {name} socket could be opened"));
        }
    }
    Ok(())
}

/// Loopback and nothing else.
fn interfaces() -> Probe {
    let table = read("/proc/self/net/dev")?;
    let names = table.lines().filter_map(|line| line.split_once(':')).map(|(name, _)| name.trim());
    match names.clone().find(|name| *name != "lo") {
        Some(other) => Err(format!("there is {other} beside the loopback interface")),
        None if names.count() == 1 => Ok(()),
        None => Err("there is no loopback interface".to_owned()),
    }
}

/// Nothing of the system can be written, and the scratch space is the sandbox's own.
fn system(rules: &FsRules) -> Probe {
    for dir in READ_ONLY_DIRS {
        let found = rustix::fs::statvfs(dir).map_err(|error| format!("{dir}: {error}"))?;
        if !found.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(format!("{dir} is mounted writable"));
        }
    }
    refused_to_open(UNWRITABLE, OFlags::WRONLY | OFlags::CREATE)?;
    let mut device = None;
    for dir in SCRATCH_DIRS {
        // What the operator mounts over a part of it is the operator's.
        if rules.mounts.iter().any(|mount| mount.path == dir) {
            continue;
        }
        let found = rustix::fs::stat(dir).map_err(|error| format!("{dir}: {error}"))?.st_dev;
        if *device.get_or_insert(found) != found {
            return Err(format!("{dir} is not the sandbox's own scratch space"));
        }
    }
    Ok(())
}

/// Each denied path is a mount of ours, or not there.
fn masks(rules: &FsRules) -> Probe {
    for path in rules.deny_read.iter().chain(&rules.deny_write) {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let Ok(found) = rustix::fs::statx(CWD, path, flags, StatxFlags::TYPE) else { continue };
        if !found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(format!("nothing lies over {path}"));
        }
    }
    Ok(())
}

/// Landlock holds what nothing else would: a signal to init, which has our own user id.
fn fenced(abi: u32) -> Probe {
    debug_assert!(abi >= confine::LANDLOCK_ABI_MIN, "older ones are refused before");
    if abi < LANDLOCK_ABI_SIGNALS {
        return Ok(());
    }
    match rustix::process::test_kill_process(rustix::process::Pid::INIT) {
        Err(Errno::PERM) => Ok(()),
        other => Err(format!("a signal to init was not refused: {other:?}")),
    }
}

fn limited(limits: &Limits) -> Probe {
    for (resource, max) in [(Resource::Core, 0), (Resource::Nproc, u64::from(limits.processes))] {
        let found = rustix::process::getrlimit(resource).maximum;
        if found.is_none_or(|found| found > max) {
            return Err(format!("{resource:?} is {found:?}, not {max}"));
        }
    }
    Ok(())
}

/// Standard streams, where failures are reported, and nothing else.
fn descriptors(report: BorrowedFd<'_>) -> Probe {
    let text = |error: Errno| format!("/proc/self/fd: {error}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open("/proc/self/fd", flags, Mode::empty()).map_err(text)?;
    let known = [0, 1, 2, report.as_raw_fd(), dir.as_raw_fd()];
    let mut buffer = Vec::with_capacity(PROC_BYTES_MAX);
    let mut entries = rustix::fs::RawDir::new(&dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(text)?;
        let name = entry.file_name().to_string_lossy();
        let number = name.parse::<i32>();
        if number.is_ok_and(|number| !known.contains(&number)) {
            return Err(format!("descriptor {name} is open"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded;

    /// A test process is as little contained as can be: each probe that needs no network of its
    /// own must say so. (`tests/self_probe.rs` leaves parts of a real sandbox out.)
    #[test]
    fn a_process_that_is_not_contained_is_noticed() {
        let outside = own_namespaces().unwrap();
        let file = std::fs::File::open("/dev/null").unwrap();
        let contained = Contained {
            outside: &outside,
            rules: &FsRules::default(),
            limits: &Limits::default(),
            landlock_abi: LANDLOCK_ABI_SIGNALS,
            report: file.as_fd(),
        };
        let error = of_program(&contained).unwrap_err();
        assert_eq!(error.code(), "BP-SANDBOX-028");
        assert!(apart(&outside).is_err() && alone().is_err() && rights().is_err());
        assert!(limited(&Limits { processes: 0, ..Limits::default() }).is_err());
        let _second = std::fs::File::open("/dev/null").unwrap();
        assert!(descriptors(file.as_fd()).is_err());
    }

    #[test]
    fn without_a_listener_there_is_no_network_to_trust() {
        let error = of_network(&[]).unwrap_err();
        assert!(error.to_string().contains("a connection outward"), "{error}");
    }

    #[test]
    fn a_path_without_a_mount_over_it_is_not_denied() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let rules = |path: &str| FsRules { deny_read: vec![path.to_owned()], ..FsRules::default() };
        assert!(masks(&rules(&path)).is_err());
        assert!(masks(&rules(&format!("{path}/none"))).is_ok(), "what is not there needs no mask");
        assert!(masks(&rules("/proc")).is_ok(), "a mount lies there");
    }
}
