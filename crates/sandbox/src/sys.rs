//! The system calls that the safe libraries do not cover, each wrapped once.
//!
//! Every `unsafe` block of the crate is here. Nothing here decides anything: a function does one
//! call and reports its errno.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Start the child in a cgroup v2 directory. (libc's constant is too narrow for its value.)
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// What [`fork`] returns.
#[derive(Debug)]
pub(crate) enum Forked {
    /// In the child.
    Child,
    /// In the parent.
    Parent {
        /// The child's pid here.
        pid: i32,
        /// A descriptor of it.
        pidfd: OwnedFd,
    },
}

/// Forks the calling process, which must have one thread, with `clone3`.
///
/// `flags` are `CLONE_NEW*` flags; `cgroup` is a cgroup v2 directory to start in.
pub(crate) fn fork(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is plain integers; all zero is a valid value of it.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(dir) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = dir.as_raw_fd() as u64;
    }
    // SAFETY: without CLONE_VM the child has its own copy of everything, and the caller has one
    // thread, so no lock is held by a thread that does not exist in the child.
    let pid = check(unsafe {
        libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>())
    })?;
    if pid == 0 {
        return Ok(Forked::Child);
    }
    Ok(Forked::Parent {
        pid: pid as i32,
        // SAFETY: the kernel has just put a new descriptor there, which nobody else owns.
        pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
    })
}

/// Takes an inherited descriptor by its number.
///
/// # Errors
/// When no such descriptor is open.
pub(crate) fn take_fd(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks.
    check(unsafe { libc::fcntl(number, libc::F_GETFD) }.into())?;
    // SAFETY: it is open, and the re-exec'd process owns what it was started with.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Enters the namespace behind `fd`, which must be of the kind `flag`.
pub(crate) fn setns(fd: BorrowedFd<'_>, flag: i32) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::setns(fd.as_raw_fd(), flag) }.into()).map(drop)
}

/// Leaves the namespaces `flags` for new ones.
pub(crate) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: no memory is passed; CLONE_FILES and CLONE_VM are never among the flags.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Sets attributes of a mount, and of all below it when `recursive`.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string, attr lives across the call and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Closes every descriptor above 2 but `keep`.
pub(crate) fn close_all_but(keep: BorrowedFd<'_>) -> io::Result<()> {
    let keep = keep.as_raw_fd() as u32;
    assert!(keep > 2, "0, 1 and 2 stay open anyway");
    for (first, last) in [(3, keep - 1), (keep + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: callers own nothing in the range that is used or dropped afterwards.
            check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0u32) })?;
        }
    }
    Ok(())
}

/// Closes every descriptor above 2, in a process that will only wait and `_exit`.
pub(crate) fn close_all_above_2() -> io::Result<()> {
    // SAFETY: the caller uses no descriptor any more and never runs a destructor.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) }).map(drop)
}

/// Makes `target` a copy of `source` that survives exec.
pub(crate) fn dup_onto(source: BorrowedFd<'_>, target: RawFd) -> io::Result<()> {
    if source.as_raw_fd() == target {
        // SAFETY: clears close-on-exec, passes no memory.
        return check(unsafe { libc::fcntl(target, libc::F_SETFD, 0) }.into()).map(drop);
    }
    // SAFETY: targets are 0, 1 and 2, which no OwnedFd of ours holds.
    check(unsafe { libc::dup2(source.as_raw_fd(), target) }.into()).map(drop)
}

/// The highest capability number tried; the kernel says where the list really ends.
const CAPABILITIES_MAX: libc::c_ulong = 63;

/// Empties the bounding set, so that no program can bring a capability back.
pub(crate) fn drop_bounding_set() -> io::Result<()> {
    for capability in 0..=CAPABILITIES_MAX {
        // SAFETY: prctl with integers only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINVAL) => break,
                _ => return Err(error),
            }
        }
    }
    Ok(())
}

/// Empties the ambient, inheritable, permitted and effective capability sets.
pub(crate) fn drop_held_capabilities() -> io::Result<()> {
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL;
    // SAFETY: prctl with integers only.
    let cleared = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear, 0, 0, 0) };
    check(cleared.into())?;
    let header: [u32; 2] = [0x2008_0522, 0];
    let empty = [0u32; 6];
    // SAFETY: both arrays have the layout of version 3 of capset and live across the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), empty.as_ptr()) }).map(drop)
}

/// Empties every capability set.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    drop_bounding_set()?;
    drop_held_capabilities()
}

/// The effective capabilities of this process as bits.
pub(crate) fn effective_capabilities() -> io::Result<u64> {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut data = [0u32; 6];
    // SAFETY: both arrays have the layout of version 3 of capget and live across the call.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), data.as_mut_ptr()) })?;
    Ok(u64::from(data[0]) | u64::from(data[3]) << 32)
}

/// Installs a seccomp filter on this (only) thread and all it will start.
pub(crate) fn install_filter(filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?,
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies the program, which lives across the call and is only read.
    check(unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_TSYNC,
            &raw const program,
        )
    })
    .and_then(|tid| match tid {
        0 => Ok(()),
        _ => Err(io::Error::other("another thread refused the filter")),
    })
}

/// Landlock's ABI, or the errno of a kernel without it.
pub(crate) fn landlock_abi() -> io::Result<u32> {
    // SAFETY: with flag 1 the kernel only reports a number and reads nothing.
    check(unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            1u32,
        )
    })
    .map(|abi| abi as u32)
}

/// Replaces this process by a program. Returns only when that failed.
pub(crate) fn exec(program: &CStr, argv: &[CString], env: &[CString]) -> io::Error {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        let ends = [std::ptr::null()];
        list.iter().map(|text| text.as_ptr()).chain(ends).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both lists end with a null pointer and point to strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

/// Ends this process without running destructors or exit handlers: right for a forked child.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: _exit never returns.
    unsafe { libc::_exit(code) }
}

/// As pid 1: kills every other process of the namespace.
pub(crate) fn kill_everything_else() {
    // SAFETY: passes no memory. Only called by the init of a pid namespace.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Sets the disposition of a signal to default or ignored.
fn disposition(signal: i32, handler: libc::sighandler_t) {
    // SAFETY: only SIG_DFL and SIG_IGN are passed, so no handler ever runs.
    unsafe { libc::signal(signal, handler) };
}

/// The signals the spawner ignores: those a terminal sends, and a pipe nobody reads.
const IGNORED: [i32; 4] = [libc::SIGINT, libc::SIGQUIT, libc::SIGHUP, libc::SIGPIPE];

/// Gives a program the signal state it expects: nothing blocked, nothing ignored.
pub(crate) fn reset_signals() {
    // Handlers are reset by exec; only what is ignored would stay so.
    for signal in IGNORED.into_iter().chain([libc::SIGCHLD]) {
        disposition(signal, libc::SIG_DFL);
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Waits until this process has no child any more.
pub(crate) fn wait_for_all() {
    while !matches!(
        rustix::process::wait(rustix::process::WaitOptions::empty()),
        Err(rustix::io::Errno::CHILD)
    ) {}
}

/// Lets the kernel reap our children.
pub(crate) fn ignore_children() {
    disposition(libc::SIGCHLD, libc::SIG_IGN);
}

/// Ignores the signals a terminal sends, and writes to a pipe nobody reads.
pub(crate) fn ignore_terminal_signals() {
    for signal in IGNORED {
        disposition(signal, libc::SIG_IGN);
    }
}

/// The kernel's `struct ifreq`, as far as flags go.
#[repr(C)]
struct InterfaceFlags {
    name: [u8; libc::IFNAMSIZ],
    flags: libc::c_short,
    rest: [u8; 22],
}

/// Brings the loopback interface of this network namespace up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let mut request = InterfaceFlags {
        name: [0; libc::IFNAMSIZ],
        flags: (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short,
        rest: [0; 22],
    };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: passes no memory.
    let socket = check(
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) }.into(),
    )?;
    // SAFETY: the descriptor is new and ours.
    let socket = unsafe { OwnedFd::from_raw_fd(socket as RawFd) };
    // SAFETY: request has the size and layout of struct ifreq and lives across the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) }.into())
        .map(drop)
}

/// The program's end of the terminal whose other end this is.
pub(crate) fn terminal_peer(ours: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlocked: libc::c_int = 0;
    // SAFETY: reads one integer, which lives across the call.
    check(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) }.into())?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: passes no memory.
    let peer = check(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    // SAFETY: the descriptor is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(peer as RawFd) })
}

/// Where a connection was going before nftables redirected it.
pub(crate) fn original_destination(socket: BorrowedFd<'_>) -> io::Result<std::net::SocketAddr> {
    /// `SO_ORIGINAL_DST` of both families.
    const ORIGINAL_DESTINATION: libc::c_int = 80;
    let level = match rustix::net::getsockname(socket)?.address_family() {
        rustix::net::AddressFamily::INET6 => libc::SOL_IPV6,
        _ => libc::SOL_IP,
    };
    // SAFETY: sockaddr_storage is plain bytes; all zero is a valid value of it.
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let (fd, at) = (socket.as_raw_fd(), (&raw mut address).cast::<libc::c_void>());
    // SAFETY: the kernel writes at most `len` bytes to `address`, which has that many.
    let got = unsafe { libc::getsockopt(fd, level, ORIGINAL_DESTINATION, at, &raw mut len) };
    check(got.into())?;
    let family = libc::c_int::from(address.ss_family);
    if family == libc::AF_INET {
        // SAFETY: the family says which of the two it is, and storage is large enough for both.
        let v4 = unsafe { *(&raw const address).cast::<libc::sockaddr_in>() };
        let ip = std::net::Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
        return Ok((ip, u16::from_be(v4.sin_port)).into());
    }
    // SAFETY: as above.
    let v6 = unsafe { *(&raw const address).cast::<libc::sockaddr_in6>() };
    let ip = std::net::Ipv6Addr::from(v6.sin6_addr.s6_addr);
    Ok((ip, u16::from_be(v6.sin6_port)).into())
}

/// Sets the host name of this UTS namespace.
pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: pointer and length are of one string that outlives the call.
    check(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// A socket for the current tokio runtime to watch.
pub(crate) fn watch_async(socket: OwnedFd) -> io::Result<tokio::io::unix::AsyncFd<OwnedFd>> {
    // SAFETY: the value is owned and always gives the same descriptor until it is dropped.
    let watched = unsafe { tokio::io::unix::AsyncFd::register(socket) };
    watched.map_err(Into::into)
}

/// Waits for a child and exits as it did; holds no descriptor meanwhile.
pub(crate) fn stand_in_for(child: i32) -> ! {
    ignore_terminal_signals();
    if let Ok(null) = std::fs::File::open("/dev/null") {
        for number in 0..3 {
            let _ = dup_onto(std::os::fd::AsFd::as_fd(&null), number);
        }
        std::mem::forget(null);
    }
    let _ = close_all_above_2();
    let child = rustix::process::Pid::from_raw(child);
    loop {
        match rustix::process::waitpid(child, rustix::process::WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                let killed = status.terminating_signal().map(|signal| 128 + signal);
                exit_now(status.exit_status().or(killed).unwrap_or(1))
            }
            Err(rustix::io::Errno::INTR) | Ok(None) => {}
            Err(_) => exit_now(1),
        }
    }
}

/// The version of the interface behind `/dev/kvm`.
pub(crate) fn kvm_version(kvm: BorrowedFd<'_>) -> io::Result<i32> {
    /// `KVM_GET_API_VERSION`.
    const GET_API_VERSION: libc::c_ulong = 0xae00;
    // SAFETY: the request takes no argument and only returns a number.
    check(unsafe { libc::ioctl(kvm.as_raw_fd(), GET_API_VERSION as _, 0) }.into())
        .map(|version| version as i32)
}

/// What identifies a file within its file system, whatever its names are; `None` where the file
/// system has no such thing. A symbolic link is not followed.
pub(crate) fn file_handle(path: &std::path::Path) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    /// As the kernel has it: the room after the head, and its use.
    #[repr(C)]
    struct Handle {
        bytes: libc::c_uint,
        kind: libc::c_int,
        handle: [u8; libc::MAX_HANDLE_SZ as usize],
    }
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let room = libc::MAX_HANDLE_SZ as usize;
    let mut found =
        Handle { bytes: room as libc::c_uint, kind: 0, handle: [0; libc::MAX_HANDLE_SZ as usize] };
    let mut mount: libc::c_int = 0;
    // SAFETY: the path ends with a zero byte; `found` is a `struct file_handle` with the room that
    // its first field says; both places live through the call, which writes nothing else.
    let done = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            libc::AT_FDCWD,
            path.as_ptr(),
            std::ptr::from_mut(&mut found),
            std::ptr::from_mut(&mut mount),
            0,
        )
    };
    let length = found.bytes as usize;
    (done == 0 && length <= room).then(|| found.handle[..length].to_vec())
}
