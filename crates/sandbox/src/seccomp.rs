//! The system call filter of everything that runs in a sandbox, and of the gate.
//!
//! It answers with an errno, never kills, so that programs can take another way. What it refuses:
//! new namespaces, mounts, tracing, and the parts of the kernel that have hurt sandboxes most.
//! Calls newer than this list are refused too, until somebody has looked at them.

use libc::{c_long, sock_filter};

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the system call filter is written for x86_64 and aarch64");

/// The last system call number that was looked at: `removexattrat`.
const LAST_KNOWN: u32 = 466;
/// Numbers from here on are the x32 ABI.
#[cfg(all(test, target_arch = "x86_64"))]
const X32_FIRST: u32 = 0x4000_0000;

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP_EQ: u16 = 0x15;
const JUMP_GE: u16 = 0x35;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

/// Namespace flags that `clone` knows.
const NEW_CLONE: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;
/// And the one that only `unshare` knows: time.
const NEW_UNSHARE: u32 = NEW_CLONE | 0x80;

/// Terminal requests that push input, change the line discipline or steal the console.
const TERMINAL_REQUESTS: [u32; 4] = [0x5412, 0x541c, 0x5423, 0x541d];
/// Execution domains that stay: the default, 32-bit `uname`, and the query.
const PERSONALITIES: [u32; 3] = [0, 8, 0xffff_ffff];

/// Calls refused with `EPERM` whatever their arguments.
const REFUSED: &[c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_perf_event_open,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_fanotify_init,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ustat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_sysfs,
    #[cfg(target_arch = "x86_64")]
    libc::SYS__sysctl,
];

/// Calls whose arguments decide.
const BY_ARGUMENTS: [c_long; 5] =
    [libc::SYS_clone, libc::SYS_unshare, libc::SYS_ioctl, libc::SYS_personality, libc::SYS_socket];

/// What else the gate gives up once it is up.
const REFUSED_TO_GATE: &[c_long] = &[libc::SYS_execve, libc::SYS_execveat];

const fn refuse(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno as u32
}

const fn argument(index: u32) -> u32 {
    16 + 8 * index
}

/// A filter under construction.
struct Program(Vec<sock_filter>);

impl Program {
    fn push(&mut self, code: u16, k: u32, jt: u8, jf: u8) {
        self.0.push(sock_filter { code, jt, jf, k });
    }

    /// Returns `verdict` when the loaded word equals `value`, else goes on.
    fn when_equal(&mut self, value: u32, verdict: u32) {
        self.push(JUMP_EQ, value, 0, 1);
        self.push(RETURN, verdict, 0, 0);
    }

    /// For the call `nr`: runs `block`, which must end in a return. Else goes on.
    fn on_call(&mut self, nr: c_long, block: impl FnOnce(&mut Self)) {
        let mut inner = Self(Vec::new());
        block(&mut inner);
        let skip = u8::try_from(inner.0.len()).expect("a block is shorter than 256");
        self.push(JUMP_EQ, nr as u32, 0, skip);
        self.0.append(&mut inner.0);
    }
}

/// Which filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What runs in a sandbox.
    Sandbox,
    /// The gate.
    Gate,
}

/// The filter as the kernel takes it.
///
/// The kernel runs a new filter once for every call number there is, to remember which are always
/// allowed. A list would make that the dearest step of starting a program, so it is a tree.
pub(crate) fn filter(profile: Profile) -> Vec<sock_filter> {
    let mut p = Program(Vec::new());
    p.push(LOAD, OFFSET_ARCH, 0, 0);
    p.push(JUMP_EQ, ARCH, 1, 0);
    p.push(RETURN, refuse(libc::ENOSYS), 0, 0);
    p.push(LOAD, OFFSET_NR, 0, 0);
    p.0.append(&mut tree(&stretches(profile), profile));
    p.0
}

/// What is done with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Always this.
    Verdict(u32),
    /// It depends on the arguments.
    Arguments(c_long),
}

/// Calls with one answer, by the first number; each goes to the next one's.
fn stretches(profile: Profile) -> Vec<(u32, Answer)> {
    let gate: &[c_long] = if profile == Profile::Gate { REFUSED_TO_GATE } else { &[] };
    let of = |nr: c_long| match nr {
        // clone3 passes its flags in memory, which a filter cannot read; libraries fall back to
        // clone. A process in the gate's role starts threads, for which the same holds.
        libc::SYS_clone3 => Answer::Verdict(refuse(libc::ENOSYS)),
        nr if REFUSED.contains(&nr) || gate.contains(&nr) => Answer::Verdict(refuse(libc::EPERM)),
        nr if BY_ARGUMENTS.contains(&nr) => Answer::Arguments(nr),
        _ => Answer::Verdict(ALLOW),
    };
    let known = (0..=LAST_KNOWN).map(|nr| (nr, of(c_long::from(nr))));
    // Newer calls, and those of the x32 ABI, whose numbers are higher still.
    let mut list: Vec<_> =
        known.chain([(LAST_KNOWN + 1, Answer::Verdict(refuse(libc::ENOSYS)))]).collect();
    list.dedup_by_key(|(_, answer)| *answer);
    list
}

/// Looks a number up by halves.
fn tree(list: &[(u32, Answer)], profile: Profile) -> Vec<sock_filter> {
    let mut p = Program(Vec::new());
    if let [(_, answer)] = list {
        p.answer(*answer, profile);
        return p.0;
    }
    let (low, high) = list.split_at(list.len() / 2);
    let mut below = tree(low, profile);
    match u8::try_from(below.len()) {
        Ok(skip) => p.push(JUMP_GE, high[0].0, skip, 0),
        Err(_) => {
            p.push(JUMP_GE, high[0].0, 0, 1);
            p.push(JUMP, u32::try_from(below.len()).expect("filters are short"), 0, 0);
        }
    }
    p.0.append(&mut below);
    p.0.append(&mut tree(high, profile));
    p.0
}

impl Program {
    fn answer(&mut self, answer: Answer, profile: Profile) {
        match answer {
            Answer::Verdict(verdict) => self.push(RETURN, verdict, 0, 0),
            Answer::Arguments(libc::SYS_socket) => sockets(self, profile),
            Answer::Arguments(libc::SYS_ioctl) => terminals(self),
            Answer::Arguments(libc::SYS_personality) => personalities(self),
            Answer::Arguments(libc::SYS_clone) => namespaces(self, NEW_CLONE),
            Answer::Arguments(libc::SYS_unshare) => namespaces(self, NEW_UNSHARE),
            Answer::Arguments(_) => self.push(RETURN, refuse(libc::EPERM), 0, 0),
        }
    }
}

/// `clone` and `unshare` without new namespaces.
fn namespaces(p: &mut Program, flags: u32) {
    p.push(LOAD, argument(0), 0, 0);
    p.push(AND, flags, 0, 0);
    p.when_equal(0, ALLOW);
    p.push(RETURN, refuse(libc::EPERM), 0, 0);
}

fn terminals(p: &mut Program) {
    p.push(LOAD, argument(1), 0, 0);
    for request in TERMINAL_REQUESTS {
        p.when_equal(request, refuse(libc::EPERM));
    }
    p.push(RETURN, ALLOW, 0, 0);
}

fn personalities(p: &mut Program) {
    p.push(LOAD, argument(0), 0, 0);
    for domain in PERSONALITIES {
        p.when_equal(domain, ALLOW);
    }
    p.push(RETURN, refuse(libc::EPERM), 0, 0);
}

/// Unix sockets (not for the gate, which has the ones it needs); TCP and UDP; of netlink only the
/// route family, which `getifaddrs` needs and in which nothing can be changed without a capability.
fn sockets(p: &mut Program, profile: Profile) {
    p.push(LOAD, argument(0), 0, 0);
    if profile == Profile::Sandbox {
        p.when_equal(libc::AF_UNIX as u32, ALLOW);
    }
    p.on_call(libc::AF_NETLINK.into(), |p| {
        p.push(LOAD, argument(2), 0, 0);
        p.when_equal(libc::NETLINK_ROUTE as u32, ALLOW);
        p.push(RETURN, refuse(libc::EAFNOSUPPORT), 0, 0);
    });
    for family in [libc::AF_INET, libc::AF_INET6] {
        p.on_call(family.into(), |p| {
            p.push(LOAD, argument(1), 0, 0);
            p.push(AND, 0xf, 0, 0);
            for (kind, protocol) in
                [(libc::SOCK_STREAM, libc::IPPROTO_TCP), (libc::SOCK_DGRAM, libc::IPPROTO_UDP)]
            {
                p.on_call(kind.into(), |p| {
                    p.push(LOAD, argument(2), 0, 0);
                    p.when_equal(0, ALLOW);
                    p.when_equal(protocol as u32, ALLOW);
                    p.push(RETURN, refuse(libc::EPROTONOSUPPORT), 0, 0);
                });
            }
            p.push(RETURN, refuse(libc::EPERM), 0, 0);
        });
    }
    p.push(RETURN, refuse(libc::EAFNOSUPPORT), 0, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel does.
    fn verdict(profile: Profile, arch: u32, nr: u32, args: [u64; 6]) -> u32 {
        let mut data = vec![nr, arch, 0, 0];
        for arg in args {
            data.extend([arg as u32, (arg >> 32) as u32]);
        }
        let program = filter(profile);
        assert!(program.len() < 4096, "the kernel takes no more");
        let (mut at, mut word) = (0, 0);
        loop {
            let step = program[at];
            let jump = |taken: bool| 1 + usize::from(if taken { step.jt } else { step.jf });
            at += match step.code {
                LOAD => {
                    word = data[step.k as usize / 4];
                    1
                }
                AND => {
                    word &= step.k;
                    1
                }
                JUMP_EQ => jump(word == step.k),
                JUMP_GE => jump(word >= step.k),
                JUMP => 1 + step.k as usize,
                RETURN => return step.k,
                other => panic!("{other:#x}"),
            };
        }
    }

    fn check(nr: c_long, args: &[u64], expected: Result<(), i32>) {
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        let expected = expected.map_or_else(refuse, |()| ALLOW);
        assert_eq!(verdict(Profile::Sandbox, ARCH, nr as u32, all), expected, "{nr} {args:?}");
    }

    #[test]
    fn what_programs_need_is_allowed() {
        for nr in [
            libc::SYS_read,
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_futex,
            libc::SYS_mmap,
            libc::SYS_clone,
            libc::SYS_kill,
            libc::SYS_memfd_create,
            libc::SYS_statx,
            libc::SYS_landlock_restrict_self,
            libc::SYS_seccomp,
            libc::SYS_prctl,
        ] {
            check(nr, &[], Ok(()));
        }
        check(libc::SYS_clone, &[libc::CLONE_VM as u64 | libc::CLONE_THREAD as u64], Ok(()));
        check(libc::SYS_unshare, &[libc::CLONE_FS as u64], Ok(()));
        check(libc::SYS_ioctl, &[0, 0x5401], Ok(()));
        check(libc::SYS_personality, &[0xffff_ffff], Ok(()));
        check(i64::from(LAST_KNOWN) as c_long, &[], Ok(()));
    }

    #[test]
    fn what_leads_out_is_refused_with_an_errno() {
        for nr in REFUSED {
            check(*nr, &[], Err(libc::EPERM));
        }
        check(libc::SYS_clone3, &[], Err(libc::ENOSYS));
        check(i64::from(LAST_KNOWN + 1) as c_long, &[], Err(libc::ENOSYS));
        for flag in [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
        ] {
            for nr in [libc::SYS_clone, libc::SYS_unshare] {
                check(nr, &[flag as u64 | libc::SIGCHLD as u64], Err(libc::EPERM));
            }
        }
        check(libc::SYS_unshare, &[0x80], Err(libc::EPERM));
        for request in TERMINAL_REQUESTS {
            // The kernel looks at the lower half only.
            check(libc::SYS_ioctl, &[0, u64::from(request) | 1 << 32], Err(libc::EPERM));
        }
        check(libc::SYS_personality, &[0x0040_0000], Err(libc::EPERM));
    }

    #[test]
    fn every_number_has_the_answer_of_its_list() {
        for nr in 0..=LAST_KNOWN + 600 {
            let call = c_long::from(nr);
            let expected = if nr > LAST_KNOWN || call == libc::SYS_clone3 {
                refuse(libc::ENOSYS)
            } else if REFUSED.contains(&call) {
                refuse(libc::EPERM)
            } else if call == libc::SYS_socket {
                refuse(libc::EAFNOSUPPORT)
            } else {
                ALLOW
            };
            assert_eq!(verdict(Profile::Sandbox, ARCH, nr, [0; 6]), expected, "{nr}");
        }
    }

    #[test]
    fn sockets_are_told_apart() {
        let check = |family: i32, kind: i32, protocol: i32, expected| {
            check(libc::SYS_socket, &[family as u64, kind as u64, protocol as u64], expected);
        };
        let flags = libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        check(libc::AF_UNIX, libc::SOCK_STREAM, 0, Ok(()));
        check(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE, Ok(()));
        check(libc::AF_NETLINK, libc::SOCK_RAW, 12, Err(libc::EAFNOSUPPORT));
        for family in [libc::AF_INET, libc::AF_INET6] {
            check(family, libc::SOCK_STREAM | flags, 0, Ok(()));
            check(family, libc::SOCK_STREAM, libc::IPPROTO_TCP, Ok(()));
            check(family, libc::SOCK_DGRAM | flags, libc::IPPROTO_UDP, Ok(()));
            check(family, libc::SOCK_DGRAM, libc::IPPROTO_ICMP, Err(libc::EPROTONOSUPPORT));
            check(family, libc::SOCK_STREAM, 262, Err(libc::EPROTONOSUPPORT));
            check(family, libc::SOCK_RAW | flags, libc::IPPROTO_ICMP, Err(libc::EPERM));
            check(family, libc::SOCK_SEQPACKET, 132, Err(libc::EPERM));
        }
        for family in [libc::AF_PACKET, libc::AF_VSOCK, libc::AF_ALG, libc::AF_BLUETOOTH, 44] {
            check(family, libc::SOCK_RAW, 0, Err(libc::EAFNOSUPPORT));
        }
    }

    #[test]
    fn other_abis_are_refused() {
        let other = verdict(Profile::Sandbox, 0x4000_0003, libc::SYS_getpid as u32, [0; 6]);
        assert_eq!(other, refuse(libc::ENOSYS));
        #[cfg(target_arch = "x86_64")]
        {
            let x32 = verdict(Profile::Sandbox, ARCH, X32_FIRST | 39, [0; 6]);
            assert_eq!(x32, refuse(libc::ENOSYS));
        }
    }

    #[test]
    fn the_gate_runs_nothing_and_opens_no_unix_socket() {
        let gate = |nr: c_long, first: u64| {
            verdict(Profile::Gate, ARCH, nr as u32, [first, 1, 0, 0, 0, 0])
        };
        assert_eq!(gate(libc::SYS_execve, 0), refuse(libc::EPERM));
        assert_eq!(gate(libc::SYS_socket, libc::AF_UNIX as u64), refuse(libc::EAFNOSUPPORT));
        assert_eq!(gate(libc::SYS_socket, libc::AF_INET as u64), ALLOW);
    }
}
