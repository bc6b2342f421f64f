//! Pid 1 of a sandbox: a fork of the spawner that owns the namespaces and does nothing else.
//!
//! It builds the sandbox's own network and mounts (scratch, /proc, /dev/pts, binds), moves to that root,
//! enters a user namespace of its own and gives up every right. Then it waits for one of two
//! bytes. It lives outside the workspace's overlay, so that the workspace can change under it, and
//! it dies with the spawner: by end of file, and by the parent-death signal (the spawner has one
//! thread, so that signal means what it says).

use crate::SandboxError;
use crate::boundary;
use crate::confine;
use crate::mode::Mode;
use crate::mounts::{self, PLAIN, READ_ONLY};
use crate::root;
use crate::self_probe;
use crate::spec::{AGENT_ID, CreateSpec, Mount};
use crate::sys;
use crate::weaken::{Weaken, Weakened};
use rustix::fs::{CWD, OFlags};
use rustix::mount::MountAttrFlags;
use rustix::process::{DumpableBehavior, Signal};
use std::os::fd::{AsFd, OwnedFd};

/// From the spawner: kill all but yourself, and say when it is done.
pub(crate) const KILL: u8 = b'K';
/// To the spawner: built; or killed.
pub(crate) const READY: u8 = b'R';
/// To the spawner: killed and reaped.
pub(crate) const KILLED: u8 = b'D';
/// Files on a sandbox's scratch.
const SCRATCH_INODES: &str = "nr_inodes=256k";
/// Parts of /proc that tell about the host and are of no use inside.
const PROC_MASKED: [&str; 5] = ["kcore", "keys", "timer_list", "interrupts", "cmdline"];

/// The namespaces init hands over, with their flags. The pid namespace is for the spawner, the
/// user namespace is entered last.
pub(crate) const NAMESPACES: [(&str, i32); 6] = [
    ("pid", libc::CLONE_NEWPID),
    ("user", libc::CLONE_NEWUSER),
    ("mnt", libc::CLONE_NEWNS),
    ("ipc", libc::CLONE_NEWIPC),
    ("uts", libc::CLONE_NEWUTS),
    ("net", libc::CLONE_NEWNET),
];
/// Where the pid, user and mount namespace are among them.
pub(crate) const PID_NAMESPACE: usize = 0;
pub(crate) const USER_NAMESPACE: usize = 1;
pub(crate) const MOUNT_NAMESPACE: usize = 2;

/// What init needs.
pub(crate) struct InitPlan<'a> {
    pub(crate) mode: Mode,
    pub(crate) spec: &'a CreateSpec,
    /// Random bytes for the machine id.
    pub(crate) machine_id: [u8; 16],
    pub(crate) weakened: &'a Weakened,
}

/// Runs as pid 1 and never returns.
pub(crate) fn run(plan: &InitPlan<'_>, control: OwnedFd) -> ! {
    let built = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| SandboxError::setup("tying init to the spawner", error))
        .and_then(|()| confine::open_proc())
        .and_then(|proc| build(plan).map(|listeners| (proc, listeners)));
    if let Err(error) = built.and_then(|(proc, listeners)| seclude(plan, &control, proc, listeners))
    {
        let text = serde_json::to_vec(&error).unwrap_or_default();
        let _ = rustix::io::write(&control, &text);
        sys::exit_now(1);
    }
    serve(&control)
}

/// The whole life of init.
fn serve(control: &OwnedFd) -> ! {
    loop {
        let mut byte = [0u8];
        match rustix::io::read(control, &mut byte) {
            Ok(1) if byte[0] == KILL => {
                sys::kill_everything_else();
                // Children are reaped by the kernel (SIGCHLD is ignored); this waits for the last.
                sys::wait_for_all();
                if rustix::io::write(control, &[KILLED]).is_err() {
                    sys::exit_now(0);
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            _ => sys::exit_now(0),
        }
    }
}

/// Leaves the spawner's namespaces. The pid namespace is new already.
fn leave(weakened: &Weakened) -> Result<(), SandboxError> {
    let without = |part, flag| if weakened.lacks(part) { 0 } else { flag };
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | without(Weaken::Ipc, libc::CLONE_NEWIPC)
        | without(Weaken::Network, libc::CLONE_NEWNET);
    sys::unshare(flags).map_err(|error| SandboxError::setup("new namespaces", error))
}

/// Builds everything; the descriptors are the network's listeners.
fn build(plan: &InitPlan<'_>) -> Result<Vec<OwnedFd>, SandboxError> {
    leave(plan.weakened)?;
    let listeners = match plan.weakened.lacks(Weaken::Network) {
        false => boundary::open()?,
        true => Vec::new(),
    };
    sys::set_hostname(&plan.spec.name)
        .map_err(|error| SandboxError::setup("the host name", error))?;
    // By path: a descriptor would lead to the spawner's mounts instead of our copy of them.
    rustix::process::chdir(crate::base::BASE_AT)
        .map_err(|error| SandboxError::setup("entering the root", error))?;
    let binds = host_binds(&plan.spec.rules.mounts)?;
    if let Some(image) = &plan.spec.root {
        root::enter(image)?;
    }
    scratch(plan)?;
    proc_and_pts(plan.weakened)?;
    for (mount, tree) in binds {
        place_bind(mount, &tree)?;
    }
    let root = rustix::fs::open(".", OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .map_err(|error| SandboxError::setup("opening the root", error))?;
    mounts::pivot_to(&root)?;
    Ok(listeners)
}

/// Detached copies of the host paths to show, taken while the host is still visible.
fn host_binds(list: &[Mount]) -> Result<Vec<(&Mount, OwnedFd)>, SandboxError> {
    list.iter()
        .filter(|mount| !crate::enter::in_workspace(&mount.path))
        .map(|mount| Ok((mount, host_bind(mount)?)))
        .collect()
}

/// A detached copy of one host path. Only directories and regular files are shown.
pub(crate) fn host_bind(mount: &Mount) -> Result<OwnedFd, SandboxError> {
    let refuse = |why: String| SandboxError::Rule { path: mount.path.clone(), why };
    let meta = std::fs::metadata(&mount.host)
        .map_err(|error| refuse(format!("{}: {error}", mount.host.display())))?;
    if !meta.is_dir() && !meta.is_file() {
        return Err(refuse(format!(
            "{} is neither a directory nor a regular file",
            mount.host.display()
        )));
    }
    let host = mount.host.to_str().unwrap_or_default();
    let attributes = if mount.writable { PLAIN } else { READ_ONLY };
    mounts::clone_tree(CWD, host, attributes, true).map_err(|error| refuse(error.to_string()))
}

/// Puts a host bind in place, relative to the new root, which is the current directory.
fn place_bind(mount: &Mount, tree: &OwnedFd) -> Result<(), SandboxError> {
    let refuse = |why: String| SandboxError::Rule { path: mount.path.clone(), why };
    let meta = std::fs::metadata(&mount.host).map_err(|error| refuse(error.to_string()))?;
    if let Some(rest) = mount.path.strip_prefix("/mnt/") {
        let target = std::path::Path::new("mnt").join(rest);
        let made = if meta.is_dir() {
            std::fs::create_dir_all(&target)
        } else {
            let parent = target.parent().map_or(Ok(()), std::fs::create_dir_all);
            parent.and_then(|()| std::fs::write(&target, ""))
        };
        made.map_err(|error| refuse(error.to_string()))?;
    }
    let target = mounts::open_beneath(CWD, &mount.path, OFlags::PATH).map_err(|error| {
        refuse(format!("a mount goes under /mnt or over an existing path: {error}"))
    })?;
    mounts::attach(tree, target.as_fd(), "").map_err(|error| refuse(error.to_string()))
}

/// One sized tmpfs for everything that may be written outside the workspace.
fn scratch(plan: &InitPlan<'_>) -> Result<(), SandboxError> {
    let size = format!("size={}", plan.spec.scratch_bytes);
    let tmpfs = mounts::new_fs(
        "tmpfs",
        &[&size, SCRATCH_INODES, "mode=755"],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
    )?;
    mounts::attach(&tmpfs, CWD, "run")?;
    let wrap = |error: std::io::Error| SandboxError::setup("filling the scratch space", error);
    let id = plan.mode.agent_id();
    for (dir, owned) in [("tmp", true), ("shm", true), ("home", true), ("mnt", false)] {
        let path = format!("run/{dir}");
        std::fs::create_dir(&path).map_err(wrap)?;
        if owned {
            std::os::unix::fs::chown(&path, Some(id), Some(id)).map_err(wrap)?;
        }
    }
    std::fs::create_dir_all("run/run/bedplate").map_err(wrap)?;
    let name = &plan.spec.name;
    let machine: String = plan.machine_id.iter().map(|b| format!("{b:02x}")).collect();
    for (file, text) in [
        ("hostname", format!("{name}\n")),
        ("hosts", format!("127.0.0.1 localhost {name}\n::1 localhost ip6-localhost {name}\n")),
        ("machine-id", format!("{machine}\n")),
    ] {
        std::fs::write(format!("run/run/bedplate/{file}"), text).map_err(wrap)?;
    }
    for (from, to) in [("tmp", "tmp"), ("shm", "dev/shm"), ("home", "home/agent"), ("mnt", "mnt")] {
        let tree = mounts::clone_tree(CWD, &format!("run/{from}"), 0, false)?;
        mounts::attach(&tree, CWD, to)?;
    }
    if plan.weakened.lacks(Weaken::Root) {
        mounts::attach(&mounts::clone_tree(CWD, "/tmp", 0, true)?, CWD, "tmp")?;
    }
    let run = mounts::clone_tree(CWD, "run/run", READ_ONLY, false)?;
    rustix::mount::unmount("run", rustix::mount::UnmountFlags::DETACH)
        .map_err(|error| SandboxError::setup("hiding the scratch space's root", error))?;
    mounts::attach(&run, CWD, "run")
}

/// This pid namespace's own /proc, read-only, and a private set of terminals.
fn proc_and_pts(weakened: &Weakened) -> Result<(), SandboxError> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_RDONLY;
    let proc = if weakened.lacks(Weaken::Processes) {
        mounts::clone_tree(CWD, "/proc", 0, true)?
    } else {
        mounts::new_fs("proc", &[], attributes)?
    };
    mounts::attach(&proc, CWD, "proc")?;
    for name in PROC_MASKED {
        let path = format!("proc/{name}");
        if std::fs::symlink_metadata(&path).is_ok() {
            let mask = mounts::clone_tree(CWD, "sys/.denied-file", READ_ONLY, false)?;
            mounts::attach(&mask, CWD, &path)?;
        }
    }
    let pts = mounts::new_fs(
        "devpts",
        &["newinstance", "ptmxmode=0666", "mode=0620"],
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    )?;
    mounts::attach(&pts, CWD, "dev/pts")
}

/// Descriptors of our namespaces, in the order of [`NAMESPACES`]. The spawner enters through
/// these: we are not dumpable, so nobody can come by way of our /proc entry.
fn own_namespaces(proc: &OwnedFd) -> Result<Vec<OwnedFd>, SandboxError> {
    let open = |(name, _): &(&str, i32)| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(proc, format!("self/ns/{name}"), flags, rustix::fs::Mode::empty())
            .map_err(|error| SandboxError::setup("opening a namespace", error))
    };
    NAMESPACES.iter().map(open).collect()
}

/// Gives up everything: rights, descriptors, and the identity of the spawner.
fn seclude(
    plan: &InitPlan<'_>,
    control: &OwnedFd,
    proc: OwnedFd,
    listeners: Vec<OwnedFd>,
) -> Result<(), SandboxError> {
    confine::become_id(plan.mode.agent_id())?;
    sys::unshare(libc::CLONE_NEWUSER).map_err(|error| SandboxError::UserNamespaces {
        why: format!("a sandbox's own: {error}"),
    })?;
    // Our entries in /proc belong to us only while we are dumpable. Nobody else is in this pid
    // namespace yet, and we stop being so before anybody is.
    let dumpable = |behavior| {
        rustix::process::set_dumpable_behavior(behavior)
            .map_err(|error| SandboxError::setup("dumpability", error))
    };
    dumpable(DumpableBehavior::Dumpable)?;
    let outside = plan.mode.agent_id();
    confine::map_ids(&proc, AGENT_ID, outside, outside)?;
    let namespaces = own_namespaces(&proc)?;
    drop(proc);
    dumpable(DumpableBehavior::NotDumpable)?;
    sys::ignore_children();
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| SandboxError::setup("no new privileges", error))?;
    sys::drop_capabilities().map_err(|error| SandboxError::setup("capabilities", error))?;
    // The change of identity has cleared it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| SandboxError::setup("tying init to the spawner", error))?;
    confine::install_filter()?;
    if !plan.weakened.lacks(Weaken::SelfProbe) {
        self_probe::of_network(&listeners)?;
    }
    let fds: Vec<_> = namespaces.iter().chain(&listeners).map(AsFd::as_fd).collect();
    crate::wire::send(control, &[READY], &fds)
        .map_err(|error| SandboxError::setup("handing over the namespaces", error))?;
    drop((namespaces, listeners));
    // The spawner sees a failure of this as our end.
    sys::close_all_but(control.as_fd())
        .map_err(|error| SandboxError::setup("closing descriptors", error))
}
