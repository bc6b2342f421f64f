//! Parts of the kernel that have hurt sandboxes: calls, files of /proc and /sys, other ABIs.

use super::{Outcome, Probe, both, checked, entered, if_there, in_child, io, root};
use std::fs;

pub(super) const PROBES: &[Probe] = &[
    both("io-uring", |_| {
        let mut params = [0u8; 120];
        // SAFETY: params has the size of io_uring_params and outlives the call.
        checked(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) })
    }),
    root("bpf", |_| {
        // A map of one array element: type 2, key 4, value 4, one entry.
        let attributes: [u32; 32] = {
            let mut a = [0; 32];
            a[..4].copy_from_slice(&[2, 4, 4, 1]);
            a
        };
        // SAFETY: the attributes are 128 bytes and outlive the call.
        checked(unsafe { libc::syscall(libc::SYS_bpf, 0, attributes.as_ptr(), 128) })
    }),
    // Flag 1: faults of user mode only, which ordinary users may ask for.
    // SAFETY: no memory is passed.
    both("userfaultfd", |_| checked(unsafe { libc::syscall(libc::SYS_userfaultfd, 1) })),
    // SAFETY: no memory is passed. Operation 0 asks for a keyring's id.
    both("keyring", |_| checked(unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 1) })),
    both("add-key", |_| {
        let (kind, name) = (c"user".as_ptr(), c"bedplate-probe".as_ptr());
        // SAFETY: C strings, and one byte of payload.
        checked(unsafe { libc::syscall(libc::SYS_add_key, kind, name, name, 1, -2) })
    }),
    if_there("perf-events", |_| {
        // A software clock of this process, user mode only.
        let mut attributes = [0u64; 16];
        attributes[0] = 1 | 128 << 32;
        attributes[5] = 1 << 5 | 1 << 6;
        // SAFETY: the attributes say their size and outlive the call.
        checked(unsafe {
            libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0)
        })
    }),
    both("file-handle", |_| {
        let mut handle = [0u32; 40];
        handle[0] = 128;
        let mut mount = 0i32;
        let (here, handle) = (c".".as_ptr(), handle.as_mut_ptr());
        let call = libc::SYS_name_to_handle_at;
        // SAFETY: the handle has room for the 128 bytes it announces.
        entered(unsafe { libc::syscall(call, libc::AT_FDCWD, here, handle, &raw mut mount, 0) })
    }),
    root("open-by-handle", |_| {
        let handle = [8u32, 1, 0, 0];
        // SAFETY: the handle has the eight bytes it announces.
        entered(unsafe { libc::syscall(libc::SYS_open_by_handle_at, -100, handle.as_ptr(), 0) })
    }),
    // SAFETY: nothing is loaded: no segment.
    if_there("kexec", |_| entered(unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0) })),
    if_there("load-module", |_| {
        // SAFETY: an empty module is refused after the permission was checked.
        entered(unsafe { libc::syscall(libc::SYS_init_module, 0, 0, c"".as_ptr()) })
    }),
    // SAFETY: the path does not exist.
    root("swap-on", |_| entered(unsafe { libc::swapon(c"/nowhere".as_ptr(), 0) }.into())),
    // SAFETY: wrong magic numbers: refused after the permission was checked.
    root("reboot", |_| entered(unsafe { libc::syscall(libc::SYS_reboot, 0, 0, 0, 0) })),
    root("set-clock", |_| {
        // SAFETY: with two null pointers only the permission is checked.
        entered(unsafe { libc::syscall(libc::SYS_settimeofday, 0, 0) })
    }),
    // SAFETY: the name keeps its length of zero bytes.
    root("set-host-name", |_| {
        in_child(|| {
            let name = io(fs::read_to_string("/proc/sys/kernel/hostname"))?;
            let name = name.trim();
            // SAFETY: pointer and length are of one string; the name stays what it is.
            checked(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }.into())
        })
    }),
    // SAFETY: operation 10 asks for the buffer's size.
    if_there("kernel-log", |_| checked(unsafe { libc::syscall(libc::SYS_syslog, 10, 0, 0) })),
    // SAFETY: no memory is passed. 0x40000 switches address randomisation off.
    both("personality", |_| in_child(|| checked(unsafe { libc::personality(0x0004_0000) }.into()))),
    if_there("x32-abi", |_| {
        // SAFETY: getpid by its x32 number.
        checked(unsafe { libc::syscall(0x4000_0000 + libc::SYS_getpid) })
    }),
    if_there("i386-abi", |_| i386()),
    root("push-terminal-input", |_| terminal(0x5412)),
    if_there("terminal-line-discipline", |_| terminal(0x5423)),
    if_there("iopl", |_| io_ports()),
    if_there("modify-ldt", |_| {
        let mut buffer = [0u8; 16];
        // SAFETY: reads at most 16 bytes into the buffer.
        ldt(&mut buffer)
    }),
    if_there("move-pages", |_| {
        // SAFETY: an empty list of pages of no other process.
        checked(unsafe { libc::syscall(libc::SYS_move_pages, 0, 0, 0, 0, 0, 0) })
    }),
    // SAFETY: no memory is passed.
    root("fanotify", |_| checked(unsafe { libc::syscall(libc::SYS_fanotify_init, 0, 0) })),
    // SAFETY: no memory is passed.
    root("hang-up-terminal", |_| in_child(|| entered(unsafe { libc::vhangup() }.into()))),
    both("compare-kernel-pointers", |_| {
        // SAFETY: no memory is passed.
        entered(unsafe {
            let p = libc::getpid();
            libc::syscall(libc::SYS_kcmp, p, p, 0, 0, 1)
        })
    }),
    root("core-pattern", |_| writable("/proc/sys/kernel/core_pattern")),
    if_there("sysrq", |_| writable("/proc/sysrq-trigger")),
    root("kernel-parameter", |_| writable("/proc/sys/vm/overcommit_memory")),
    if_there("kernel-memory-image", |_| super::files::opened("/proc/kcore")),
    if_there("kernel-addresses", |_| {
        let text = io(fs::read_to_string("/proc/kallsyms"))?;
        let known = text.lines().any(|line| !line.starts_with("0000000000000000"));
        if known { Ok("addresses".to_owned()) } else { Err("zeroes".to_owned()) }
    }),
    if_there("boot-command-line", |_| {
        let text = io(fs::read_to_string("/proc/cmdline"))?;
        if text.is_empty() { Err("empty".to_owned()) } else { Ok("read".to_owned()) }
    }),
    both("list-sys", |_| io(fs::read_dir("/sys/class")).map(|_| "listed".to_owned())),
    if_there("write-sys", |_| writable("/sys/kernel/mm/transparent_hugepage/enabled")),
    root("make-cgroup", |_| {
        for dir in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"] {
            let path = format!("{dir}/bedplate-probe");
            if fs::create_dir(&path).is_ok() {
                let _ = fs::remove_dir(&path);
                return Ok(path);
            }
        }
        Err("nowhere".to_owned())
    }),
    if_there("cgroup-release-agent", |_| writable("/sys/fs/cgroup/memory/release_agent")),
];

fn writable(path: &str) -> Outcome {
    io(fs::OpenOptions::new().write(true).open(path)).map(|_| path.to_owned())
}

#[cfg(target_arch = "x86_64")]
fn i386() -> Outcome {
    let mut result: i64 = 20;
    // SAFETY: call 20 of the i386 ABI is getpid: it takes nothing and only returns a number.
    unsafe {
        std::arch::asm!("int 0x80", inout("rax") result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    let number = result as i32;
    if number > 0 { Ok(format!("pid {number}")) } else { Err(format!("errno {}", -number)) }
}

#[cfg(not(target_arch = "x86_64"))]
fn i386() -> Outcome {
    Err("another architecture".to_owned())
}

#[cfg(target_arch = "x86_64")]
fn io_ports() -> Outcome {
    // SAFETY: level 3 for this process, which uses no port.
    in_child(|| checked(unsafe { libc::iopl(3) }.into()))
}

#[cfg(not(target_arch = "x86_64"))]
fn io_ports() -> Outcome {
    Err("another architecture".to_owned())
}

#[cfg(target_arch = "x86_64")]
fn ldt(buffer: &mut [u8; 16]) -> Outcome {
    // SAFETY: operation 0 reads into the buffer, no more than its length.
    checked(unsafe { libc::syscall(libc::SYS_modify_ldt, 0, buffer.as_mut_ptr(), buffer.len()) })
}

#[cfg(not(target_arch = "x86_64"))]
fn ldt(_: &mut [u8; 16]) -> Outcome {
    Err("another architecture".to_owned())
}

/// Tries a request on a terminal of our own that controls our session.
fn terminal(request: u64) -> Outcome {
    in_child(move || {
        // SAFETY: openpty fills two integers; the requests take one integer or byte each.
        unsafe {
            let (mut ours, mut theirs) = (0, 0);
            let none = std::ptr::null_mut();
            let made =
                libc::openpty(&raw mut ours, &raw mut theirs, none, none.cast(), none.cast());
            checked(made.into())?;
            libc::setsid();
            libc::ioctl(theirs, libc::TIOCSCTTY, 0);
            let value = 0i32;
            checked(libc::ioctl(theirs, request, &raw const value).into())
        }
    })
}
