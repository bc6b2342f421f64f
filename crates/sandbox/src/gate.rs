//! How the gate process gives up everything but the network, and what reads images all but a
//! directory to write to.
//!
//! They read the most hostile bytes of all, and as an ordinary user they share a uid with the owner.
//! So each goes on as pid 1 of its own pid namespace, in an empty root, without capabilities,
//! programs, Unix sockets or a way to open files of the host. The gate shares the network with the
//! host and sees the files a resolver needs; a [`Worker`] says what it needs of this.

use crate::SandboxError;
use crate::confine::{self, Fence, Grant};
use crate::mode::Mode;
use crate::mounts::{self, PLAIN, READ_ONLY};
use crate::seccomp::{self, Profile};
use crate::spec::HOST_ID_AS_ROOT;
use crate::sys::{self, Forked};
use rustix::fs::{CWD, OFlags};
use rustix::mount::{MountAttrFlags, MountPropagationFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;

/// As root, the gate's host uid and gid: next to the agent's, and no account's either.
pub const GATE_ID_AS_ROOT: u32 = HOST_ID_AS_ROOT + 1;
/// Where a worker finds the directory it may write to.
pub const OUT_INSIDE: &str = "/out";
/// Where the new root is put together: a place nothing is needed from any more.
const ROOT_AT: &str = "/sys";
/// What resolving a name and checking a certificate read, as far as the host has it.
const SHOWN: [&str; 9] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/ca-certificates/extracted",
];

/// What a confined process keeps, beside the descriptors it has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Worker<'a> {
    /// The host's network, with what a resolver needs. Without it there is no network at all.
    pub network: bool,
    /// A directory that is seen as [`OUT_INSIDE`], in which everything may be made but devices.
    /// It must belong to [`worker_owner`].
    pub out: Option<&'a Path>,
}

impl Worker<'_> {
    /// As root, the host uid and gid it takes on: next to the network nobody's, else the agent's,
    /// to whom what it unpacks will belong.
    const fn id(self) -> u32 {
        if self.network { GATE_ID_AS_ROOT } else { HOST_ID_AS_ROOT }
    }
}

/// Whom a worker's directory must be given to: nobody else, for an ordinary user.
#[must_use]
pub fn worker_owner(network: bool) -> Option<u32> {
    match Mode::here() {
        Mode::Root => Some(Worker { network, out: None }.id()),
        Mode::User => None,
    }
}

/// Confines the calling process for good. It must have one thread; it may start more afterwards.
///
/// Returns in a child of the process that called: the parent waits for it, exits as it does, and
/// takes it along when it dies. Open descriptors stay as they are; what must be read from the
/// host beside resolver files is read before.
///
/// # Errors
/// [`SandboxError::Confine`] names the step; the process must then end without serving anybody.
pub fn confine_gate() -> Result<(), SandboxError> {
    confine_worker(&Worker { network: true, out: None })
}

/// The same for a process that needs other things than the gate.
///
/// # Errors
/// As [`confine_gate`].
pub fn confine_worker(worker: &Worker<'_>) -> Result<(), SandboxError> {
    let mode = Mode::here();
    steps(mode, worker).map_err(|error| match error {
        SandboxError::Setup { step, why } => SandboxError::Confine { step, why },
        other => SandboxError::Confine { step: "confinement".to_owned(), why: other.to_string() },
    })
}

fn steps(mode: Mode, worker: &Worker<'_>) -> Result<(), SandboxError> {
    let abi =
        sys::landlock_abi().map_err(|error| SandboxError::Landlock { why: error.to_string() })?;
    let apart = if worker.network { 0 } else { libc::CLONE_NEWNET };
    let own =
        libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWPID | apart;
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    match mode {
        Mode::Root => {
            rustix::thread::set_thread_groups(&[])
                .map_err(|error| SandboxError::setup("dropping groups", error))?;
            sys::unshare(own)
                .map_err(|error| SandboxError::setup("namespaces of its own", error))?;
        }
        Mode::User => {
            sys::unshare(own | libc::CLONE_NEWUSER)
                .map_err(|error| SandboxError::UserNamespaces { why: error.to_string() })?;
            confine::map_ids(&confine::open_proc()?, uid.as_raw(), uid.as_raw(), gid.as_raw())?;
        }
    }
    undumpable()?;
    become_first()?;
    empty_root(worker)?;
    let capabilities = |error| SandboxError::setup("capabilities", error);
    // Changing identity takes away what dropping the bounding set needs.
    sys::drop_bounding_set().map_err(capabilities)?;
    if mode == Mode::Root {
        confine::become_id(worker.id())?;
        undumpable()?;
    }
    tie_to_parent()?;
    sys::drop_held_capabilities().map_err(capabilities)?;
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, none)
        .map_err(|error| SandboxError::setup("resource limits", error))?;
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| SandboxError::setup("no new privileges", error))?;
    Fence::new(abi)?
        .allow(Path::new("/etc"), Grant::Read)?
        .allow(Path::new(OUT_INSIDE), Grant::Unpack)?
        .close()?;
    sys::install_filter(&seccomp::filter(Profile::Gate))
        .map_err(|error| SandboxError::Seccomp { why: error.to_string() })
}

fn undumpable() -> Result<(), SandboxError> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| SandboxError::setup("dumpability", error))
}

fn tie_to_parent() -> Result<(), SandboxError> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| SandboxError::setup("tying it to its parent", error))
}

/// Goes on in a child that is pid 1 of the new pid namespace. The parent keeps no descriptor, so
/// that the owner sees the child's end as its own.
fn become_first() -> Result<(), SandboxError> {
    let forked =
        sys::fork(0, None).map_err(|error| SandboxError::setup("a pid namespace", error))?;
    match forked {
        Forked::Child => tie_to_parent(),
        Forked::Parent { pid, .. } => sys::stand_in_for(pid),
    }
}

/// An empty root but for the resolver's files, read-only, and the directory to write to.
fn empty_root(worker: &Worker<'_>) -> Result<(), SandboxError> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|error| SandboxError::setup("making mounts private", error))?;
    let tmpfs = mounts::new_fs("tmpfs", &["size=1m", "mode=755"], MountAttrFlags::empty())?;
    mounts::attach(&tmpfs, CWD, ROOT_AT)?;
    let wrap = |error: std::io::Error| SandboxError::setup("filling the root", error);
    std::fs::create_dir(format!("{ROOT_AT}/etc")).map_err(wrap)?;
    if let Some(out) = worker.out {
        let from = out.to_str().ok_or_else(|| SandboxError::invalid("its path is no UTF-8"))?;
        let there = format!("{ROOT_AT}{OUT_INSIDE}");
        std::fs::create_dir(&there).map_err(wrap)?;
        let tree = mounts::clone_tree(CWD, from, PLAIN, false)?;
        mounts::attach(&tree, CWD, &there)?;
    }
    for path in SHOWN.into_iter().filter(|_| worker.network) {
        let Ok(meta) = std::fs::metadata(path) else {
            continue;
        };
        let target = format!("{ROOT_AT}{path}");
        let target = Path::new(&target);
        std::fs::create_dir_all(target.parent().unwrap_or(target)).map_err(wrap)?;
        // A resolver's file is replaced when the network changes: show its directory then.
        if let Some(dir) = linked_dir(path) {
            let there = format!("{ROOT_AT}{dir}");
            std::fs::create_dir_all(&there).map_err(wrap)?;
            bind(&dir, &there)?;
            let link = std::fs::read_link(path).map_err(wrap)?;
            symlink(link, target).map_err(wrap)?;
        } else if meta.is_dir() {
            std::fs::create_dir(target).map_err(wrap)?;
            bind(path, &format!("{ROOT_AT}{path}"))?;
        } else {
            std::fs::write(target, "").map_err(wrap)?;
            bind(path, &format!("{ROOT_AT}{path}"))?;
        }
    }
    sys::mount_setattr(tmpfs.as_fd(), READ_ONLY, false)
        .map_err(|error| SandboxError::setup("closing the root", error))?;
    let root = rustix::fs::open(ROOT_AT, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .map_err(|error| SandboxError::setup("opening the root", error))?;
    mounts::pivot_to(&root)
}

fn bind(from: &str, to: &str) -> Result<(), SandboxError> {
    let tree = mounts::clone_tree(CWD, from, READ_ONLY, false)?;
    mounts::attach(&tree, CWD, to)
}

/// The directory of what a link leads to, when that is a run-time directory.
fn linked_dir(path: &str) -> Option<String> {
    std::fs::read_link(path).ok()?;
    let real = std::fs::canonicalize(path).ok()?;
    let dir = real.parent()?.to_str()?.to_owned();
    dir.starts_with("/run/").then_some(dir)
}
