//! Other processes, privileges, namespaces, and what a program inherits.

use super::{Aim, Outcome, Probe, aim, both, checked, if_there, in_child, io, root};
use std::fs;

pub(super) const PROBES: &[Probe] = &[
    both("see-host-process", |a| {
        io(fs::read_to_string(format!("/proc/{}/comm", aim(a, "victim"))))
    }),
    both("see-many-processes", |_| {
        let list = io(fs::read_dir("/proc"))?.flatten();
        let numeric =
            |name: &std::ffi::OsStr| name.to_string_lossy().bytes().all(|b| b.is_ascii_digit());
        let count = list.filter(|entry| numeric(&entry.file_name())).count();
        if count > 8 { Ok(count.to_string()) } else { Err(format!("{count} processes")) }
    }),
    both("signal-host-process", |a| {
        // SAFETY: no memory is passed; signal 0 only asks.
        checked(unsafe { libc::kill(pid(a, "victim"), 0) }.into())
    }),
    both("open-host-process", |a| {
        // SAFETY: no memory is passed.
        checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid(a, "victim"), 0) })
    }),
    both("trace-host-process", |a| {
        let none = std::ptr::null_mut::<libc::c_void>();
        // SAFETY: no memory is passed; the victim is detached when we end.
        checked(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid(a, "victim"), none, none) })
    }),
    both("trace-child", |_| {
        in_child(|| {
            let none = std::ptr::null_mut::<libc::c_void>();
            // SAFETY: no memory is passed.
            checked(unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, none, none) })
        })
    }),
    both("read-process-memory", |_| {
        let (from, mut to) = ([7u8; 4], [0u8; 4]);
        let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: 4 };
        let remote = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: 4 };
        // SAFETY: both ranges are ours and four bytes long.
        let read = unsafe {
            libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
        };
        checked(read as libc::c_long)
    }),
    both("steal-descriptor", |_| {
        // SAFETY: no memory is passed.
        let own = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
        // SAFETY: no memory is passed.
        checked(unsafe { libc::syscall(libc::SYS_pidfd_getfd, own, 1, 0) })
    }),
    both("init-root", |a| io(fs::read_dir(init(a, "root/"))).map(|_| "listed".to_owned())),
    both("init-environment", |a| io(fs::read(init(a, "environ"))).map(|_| "read".to_owned())),
    both("init-memory", |a| super::files::opened(&init(a, "mem"))),
    both("init-program", |a| io(fs::read_link(init(a, "exe"))).map(|p| p.display().to_string())),
    both("init-descriptors", |a| io(fs::read_dir(init(a, "fd"))).map(|_| "listed".to_owned())),
    both("init-namespace", |a| super::files::opened(&init(a, "ns/mnt"))),
    root("enter-init-namespace", |a| {
        in_child(|| {
            let file = io(fs::File::open(init(a, "ns/uts")))?;
            // SAFETY: no memory is passed.
            checked(unsafe { libc::setns(std::os::fd::AsRawFd::as_raw_fd(&file), 0) }.into())
        })
    }),
    both("new-user-namespace", |_| {
        // SAFETY: no memory is passed.
        in_child(|| checked(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into()))
    }),
    both("new-user-namespace-by-clone", |_| {
        let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
        // SAFETY: without CLONE_VM this is a fork; the child ends at once.
        match unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) } {
            // SAFETY: ends the child.
            0 => unsafe { libc::_exit(0) },
            result => checked(result),
        }
    }),
    both("new-user-namespace-by-clone3", |_| {
        let args = [libc::CLONE_NEWUSER as u64, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
        // SAFETY: without CLONE_VM this is a fork; args has the first layout of clone_args.
        match unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) } {
            // SAFETY: ends the child.
            0 => unsafe { libc::_exit(0) },
            result => checked(result),
        }
    }),
    both("new-network-namespace", |_| {
        let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNET;
        // SAFETY: no memory is passed.
        in_child(move || checked(unsafe { libc::unshare(flags) }.into()))
    }),
    both("gain-by-set-uid-program", |a| {
        let mut command = std::process::Command::new("/usr/bin/passwd");
        let status = io(command.args(["-S", aim(a, "user")]).status())?;
        if status.success() {
            Ok("it read the shadow file".to_owned())
        } else {
            Err(status.to_string())
        }
    }),
    root("hold-a-capability", |_| status_field("CapEff:")),
    both("regain-capabilities", |_| status_field("CapBnd:")),
    root("change-user", |_| {
        // SAFETY: no memory is passed.
        in_child(|| checked(unsafe { libc::setresuid(1, 1, 1) }.into()))
    }),
    both("may-gain-privileges", |_| {
        // SAFETY: prctl with integers only.
        match unsafe { libc::prctl(libc::PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) } {
            0 => Ok("no_new_privs is off".to_owned()),
            _ => Err("no_new_privs".to_owned()),
        }
    }),
    root("real-time-priority", |_| {
        in_child(|| {
            let priority = libc::sched_param { sched_priority: 1 };
            // SAFETY: priority outlives the call.
            checked(
                unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) }
                    .into(),
            )
        })
    }),
    if_there("immune-to-memory-killer", |_| {
        in_child(|| io(fs::write("/proc/self/oom_score_adj", "-999")).map(|()| String::new()))
    }),
    both("dump-core", |_| {
        // SAFETY: limit outlives the call.
        let most = unsafe {
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(libc::RLIMIT_CORE, &raw mut limit);
            limit.rlim_max
        };
        if most > 0 { Ok(most.to_string()) } else { Err("core size 0".to_owned()) }
    }),
    both("inherited-descriptor", |_| {
        // SAFETY: F_GETFD only asks.
        let open = (3..1024).find(|fd| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0);
        open.map(|fd| format!("descriptor {fd}")).ok_or_else(|| "none above 2".to_owned())
    }),
    both("inherited-environment", |_| {
        let known = ["PATH", "HOME", "LANG", "USER", "PWD", "SHLVL", "_", "OLDPWD"];
        let other =
            std::env::vars().map(|(name, _)| name).find(|name| !known.contains(&name.as_str()));
        other.ok_or_else(|| "only what was given".to_owned())
    }),
    both("host-name", |a| {
        let name = io(fs::read_to_string("/proc/sys/kernel/hostname"))?;
        if name.trim() == aim(a, "hostname") { Ok(name) } else { Err("another name".to_owned()) }
    }),
    both("outlive-the-call", orphan),
    both("host-shared-memory-segment", |a| {
        // SAFETY: a null address lets the kernel choose; the segment is detached at exit.
        let at = unsafe { libc::shmat(pid(a, "shm"), std::ptr::null(), libc::SHM_RDONLY) };
        checked(at as libc::c_long)
    }),
    both("host-cgroup-name", |a| {
        let text = io(fs::read_to_string("/proc/self/cgroup"))?;
        if text == aim(a, "cgroup").replace('|', "\n") {
            Ok(text.replace('\n', " "))
        } else {
            Err("its own root".to_owned())
        }
    }),
];

/// A file of the process that must keep its secrets: pid 1 inside, an ordinary one in the control.
fn init(a: &Aim, file: &str) -> String {
    format!("/proc/{}/{file}", aim(a, "init"))
}

fn pid(a: &Aim, key: &str) -> i32 {
    aim(a, key).parse().unwrap_or(i32::MAX)
}

fn status_field(key: &str) -> Outcome {
    let text = io(fs::read_to_string("/proc/self/status"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("").trim();
    if u64::from_str_radix(value, 16).is_ok_and(|bits| bits == 0) {
        Err(value.to_owned())
    } else {
        Ok(value.to_owned())
    }
}

/// Leaves a grandchild in a session of its own, under a name the host looks for.
fn orphan(a: &Aim) -> Outcome {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new("/bin/sleep");
    command.arg0(aim(a, "orphan")).arg("30").process_group(0);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
    let child = io(command.stderr(std::process::Stdio::null()).spawn())?;
    // `spawn` returns when exec has begun; the name shows a little later.
    let line = format!("/proc/{}/cmdline", child.id());
    let begun = std::time::Instant::now();
    while fs::read(&line).is_ok_and(|name| name.is_empty()) && begun.elapsed() < NAME_SHOWS_IN {
        std::thread::yield_now();
    }
    Ok(format!("pid {}", child.id()))
}

/// How long a program's name may take to show.
const NAME_SHOWS_IN: std::time::Duration = std::time::Duration::from_secs(5);
