//! The way of one program, or one file operation, into its sandbox.
//!
//! Runs in a fork of the spawner that is already in the sandbox's pid namespace. In order: join
//! the cgroup, make the overlay while the layers are still visible, enter init's namespaces, take
//! a private copy of its mounts, put the workspace in, mask what is denied, enter the user
//! namespace, give up rights one after the other, and exec. What fails is reported through a pipe
//! that exec closes, and nothing is run.

use crate::SandboxError;
use crate::confine::{self, Fence, Grant};
use crate::fileops;
use crate::init::{MOUNT_NAMESPACE, NAMESPACES, USER_NAMESPACE};
use crate::mode::Mode;
use crate::mounts::{self, READ_ONLY};
use crate::self_probe::{self, Contained};
use crate::spec::{
    AGENT_ID, FileOp, FsRules, HOME_INSIDE, MEMORY, Overlay, PATH_INSIDE, Root, Strength,
    TRUST_INSIDE, Trees, WORKSPACE, tree_of,
};
use crate::sys;
use crate::weaken::{Weaken, Weakened};
use rustix::fs::{CWD, OFlags};
use rustix::mount::MountAttrFlags;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use types::manifest::Limits;

/// Variables every program gets unless the caller says otherwise.
const ENV_DEFAULT: [(&str, &str); 4] =
    [("PATH", PATH_INSIDE), ("HOME", HOME_INSIDE), ("LANG", "C.UTF-8"), ("USER", "agent")];

/// What to do once inside.
#[derive(Debug)]
pub(crate) enum Job {
    /// Run a program.
    Exec {
        argv: Vec<String>,
        env: Vec<(String, String)>,
        cwd: Option<String>,
        /// Certificates to show in place of the system's.
        trust: Option<PathBuf>,
    },
    /// Do a file operation and write the answer to standard output.
    File(FileOp),
    /// Only see whether everything can be set up: path rules are proven at creation.
    Check,
}

/// All that is needed to enter a sandbox.
pub(crate) struct Entry<'a> {
    pub(crate) mode: Mode,
    /// Init's namespaces, as [`NAMESPACES`] orders them.
    pub(crate) namespaces: &'a [OwnedFd],
    pub(crate) trees: &'a Trees,
    /// The image that init's root stands on, if it is one.
    pub(crate) root: Option<&'a Root>,
    pub(crate) rules: &'a FsRules,
    pub(crate) limits: &'a Limits,
    pub(crate) strength: Strength,
    pub(crate) landlock_abi: u32,
    pub(crate) tasks: &'a [OwnedFd],
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Where a failure is reported; close-on-exec.
    pub(crate) report: BorrowedFd<'a>,
    /// The namespaces of the spawner, none of which may be the program's.
    pub(crate) outside: &'a [String],
    pub(crate) weakened: &'a Weakened,
}

/// What may be read when workspace and memory as a whole may not.
const SHOWN_BESIDE: [&str; 13] = [
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/proc", "/sys",
    "/run", "/var", "/mnt",
];

/// Exit status of a child that could not do its job; the reason is in the report.
const FAILED: i32 = 125;

/// Whether a path inside is the workspace or below it.
pub(crate) fn in_workspace(path: &str) -> bool {
    path == WORKSPACE || path.starts_with("/workspace/")
}

impl Entry<'_> {
    /// Does the job and never returns.
    pub(crate) fn run(&self, job: Job) -> ! {
        let code = match self.enter(job) {
            Ok(()) => 0,
            Err(error) => {
                let text = serde_json::to_vec(&error).unwrap_or_default();
                let _ = rustix::io::write(self.report, &text);
                FAILED
            }
        };
        sys::exit_now(code)
    }

    fn enter(&self, job: Job) -> Result<(), SandboxError> {
        sys::reset_signals();
        for tasks in self.tasks.iter().filter(|_| !self.weakened.lacks(Weaken::Limits)) {
            rustix::io::write(tasks, b"0")
                .map_err(|error| SandboxError::setup("joining the cgroup", error))?;
        }
        sys::unshare(libc::CLONE_NEWCGROUP)
            .map_err(|error| SandboxError::setup("a cgroup namespace", error))?;
        let overlays = self.mount_trees()?;
        let binds = self.workspace_binds()?;
        let trust = trust(&job)?;
        self.leak()?;
        self.join(overlays)?;
        if let Some(trust) = trust {
            self.show_trust(&trust)?;
        }
        for (path, tree) in binds {
            self.place(path, &tree)?;
        }
        self.mask()?;
        self.seclude(&job)?;
        match job {
            Job::Exec { argv, env, cwd, .. } => {
                let image = self.root.map_or(&[][..], |root| root.env.as_slice());
                let env = image.iter().cloned().chain(env).collect();
                Err(exec(&argv, env, cwd.as_deref()))
            }
            Job::File(op) => fileops::perform(&op),
            Job::Check => Ok(()),
        }
    }

    /// The trees as detached mounts, each with its place.
    fn mount_trees(&self) -> Result<Vec<(&'static str, OwnedFd)>, SandboxError> {
        let mut mounted = vec![(WORKSPACE, self.mount_overlay(&self.trees.workspace, true)?)];
        if let Some(memory) = &self.trees.memory {
            mounted.push((MEMORY, self.mount_overlay(&memory.overlay, memory.writable)?));
        }
        Ok(mounted)
    }

    /// An overlay as a detached mount. Layers are named by descriptor numbers relative to
    /// /proc/self/fd, because the kernel takes no more than 256 bytes.
    fn mount_overlay(&self, overlay: &Overlay, writable: bool) -> Result<OwnedFd, SandboxError> {
        let wrap = |what: &str, error: &dyn ToString| SandboxError::Overlay {
            why: format!("{what}: {}", error.to_string()),
        };
        let open = |path: &Path| {
            std::fs::File::options()
                .read(true)
                .custom_flags(libc::O_DIRECTORY | libc::O_PATH | libc::O_NOFOLLOW)
                .open(path)
                .map_err(|error| wrap(&path.display().to_string(), &error))
        };
        let fds = overlay.lowers.iter().map(|path| open(path));
        let lowers = fds.collect::<Result<Vec<_>, _>>()?;
        let upper = open(&overlay.upper)?;
        let work = open(&overlay.work)?;
        set_old_work_aside(&overlay.work);
        let number = |file: &std::fs::File| std::os::fd::AsRawFd::as_raw_fd(file).to_string();
        let names: Vec<String> = lowers.iter().map(number).collect();
        rustix::process::chdir("/proc/self/fd").map_err(|error| wrap("/proc", &error))?;
        let lower = format!("lowerdir={}", names.join(":"));
        let upper = format!("upperdir={}", number(&upper));
        let work = format!("workdir={}", number(&work));
        let mut options = vec![lower.as_str(), &upper, &work, "volatile"];
        match self.mode {
            Mode::Root => options.extend(["redirect_dir=on", "index=on", "metacopy=off"]),
            Mode::User => options.push("userxattr"),
        }
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        if !writable {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        mounts::new_fs("overlay", &options, attributes).map_err(|error| match error {
            SandboxError::Setup { step, why } => wrap(&step, &why),
            other => other,
        })
    }

    /// Host paths that appear inside the workspace.
    fn workspace_binds(&self) -> Result<Vec<(&str, OwnedFd)>, SandboxError> {
        let inside = self.rules.mounts.iter().filter(|m| in_workspace(&m.path));
        inside.map(|mount| Ok((mount.path.as_str(), crate::init::host_bind(mount)?))).collect()
    }

    fn join(&self, overlays: Vec<(&str, OwnedFd)>) -> Result<(), SandboxError> {
        for (fd, (name, flag)) in self.namespaces.iter().zip(NAMESPACES).skip(MOUNT_NAMESPACE) {
            let shared = (name == "net" && self.weakened.lacks(Weaken::Network))
                || (name == "ipc" && self.weakened.lacks(Weaken::Ipc));
            if shared {
                continue;
            }
            sys::setns(fd.as_fd(), flag).map_err(|error| {
                SandboxError::setup(&format!("entering the {name} namespace"), error)
            })?;
        }
        sys::unshare(libc::CLONE_NEWNS)
            .map_err(|error| SandboxError::setup("a private view of the mounts", error))?;
        overlays.into_iter().try_for_each(|(path, overlay)| mounts::attach(&overlay, CWD, path))
    }

    /// Opens an existing path of the workspace; no component may be a symbolic link.
    fn existing(&self, path: &str) -> Result<OwnedFd, SandboxError> {
        let root = rustix::fs::open("/", OFlags::PATH, rustix::fs::Mode::empty())
            .map_err(|error| SandboxError::setup("opening the root", error))?;
        mounts::open_beneath(root.as_fd(), path, OFlags::PATH).map_err(|error| SandboxError::Rule {
            path: path.to_owned(),
            why: match error {
                rustix::io::Errno::LOOP => "a part of it is a symbolic link".to_owned(),
                error => error.to_string(),
            },
        })
    }

    /// Puts the certificates wherever the system has its own, through no symbolic link.
    fn show_trust(&self, trust: &OwnedFd) -> Result<(), SandboxError> {
        let (first, others) = TRUST_INSIDE.split_first().expect("the list is not empty");
        let target = self.existing(first)?;
        mounts::attach(trust, target.as_fd(), "")?;
        // Only now: the kernel copies no detached mount that another namespace made.
        for path in others.iter().filter(|path| is_file(path)) {
            let copy = mounts::clone_tree(trust.as_fd(), "", READ_ONLY, false)?;
            let target = self.existing(path)?;
            mounts::attach(&copy, target.as_fd(), "")?;
        }
        Ok(())
    }

    fn place(&self, path: &str, tree: &OwnedFd) -> Result<(), SandboxError> {
        self.pin_parents(path)?;
        let target = self.existing(path)?;
        mounts::attach(tree, target.as_fd(), "")
    }

    /// Binds every directory between its tree's root and `path` onto itself: a mount point cannot
    /// be renamed, so nobody can move a ruled path out from under its rule.
    fn pin_parents(&self, path: &str) -> Result<(), SandboxError> {
        let Some(tree) = tree_of(path) else { return Ok(()) };
        let rest = path[tree.len()..].trim_start_matches('/');
        let mut at = tree.to_owned();
        let parts: Vec<&str> = rest.split('/').collect();
        for part in &parts[..parts.len() - 1] {
            at = format!("{at}/{part}");
            let dir = self.existing(&at)?;
            let tree = mounts::clone_tree(dir.as_fd(), "", 0, true)?;
            mounts::attach(&tree, dir.as_fd(), "")?;
        }
        Ok(())
    }

    /// Hides what may not be read and locks what may not be written. A denied path that does not
    /// exist needs no mask: whatever appears there later is the agent's own.
    fn mask(&self) -> Result<(), SandboxError> {
        if self.weakened.lacks(Weaken::Masks) {
            return Ok(());
        }
        let denied = self.rules.deny_read.iter().map(|path| (path, true));
        let locked = self.rules.deny_write.iter().map(|path| (path, false));
        let mut all: Vec<(&String, bool)> = denied.chain(locked).collect();
        // Outer paths first, so that an inner bind lies on top of an outer one.
        all.sort_by_key(|(path, hide)| (path.matches('/').count(), !*hide));
        for (path, hide) in all {
            if std::fs::symlink_metadata(path).is_err() {
                continue;
            }
            self.pin_parents(path)?;
            let target = self.existing(path)?;
            let is_dir = std::fs::metadata(path).is_ok_and(|meta| meta.is_dir());
            let tree = match (hide, is_dir) {
                (true, true) => mounts::clone_tree(CWD, "/sys/.denied", READ_ONLY, false)?,
                (true, false) => mounts::clone_tree(CWD, "/sys/.denied-file", READ_ONLY, false)?,
                (false, _) => mounts::clone_tree(target.as_fd(), "", READ_ONLY, true)?,
            };
            mounts::attach(&tree, target.as_fd(), "")?;
        }
        Ok(())
    }

    fn seclude(&self, job: &Job) -> Result<(), SandboxError> {
        if matches!(job, Job::Check) {
            self.rules_hold()?;
        }
        sys::setns(self.namespaces[USER_NAMESPACE].as_fd(), libc::CLONE_NEWUSER)
            .map_err(|error| SandboxError::setup("entering the user namespace", error))?;
        rustix::process::setsid().map_err(|error| SandboxError::setup("a session", error))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        if !self.weakened.lacks(Weaken::Limits) {
            confine::set_rlimits(self.limits, self.strength == Strength::Watched)?;
        }
        if !self.weakened.lacks(Weaken::Privileges) {
            confine::become_id(AGENT_ID)?;
            sys::drop_capabilities().map_err(|error| SandboxError::setup("capabilities", error))?;
        }
        rustix::thread::set_no_new_privs(true)
            .map_err(|error| SandboxError::setup("no new privileges", error))?;
        if !self.weakened.lacks(Weaken::Landlock) {
            self.fence()?;
        }
        self.descriptors()?;
        // A terminal that was made for this program becomes its session's; the person's own has a
        // session already, and stays there.
        let _ = rustix::process::ioctl_tiocsctty(rustix::stdio::stdin());
        if !self.weakened.lacks(Weaken::Seccomp) {
            confine::install_filter()?;
        }
        if self.weakened.lacks(Weaken::SelfProbe) {
            return Ok(());
        }
        self_probe::of_program(&Contained {
            outside: self.outside,
            rules: self.rules,
            limits: self.limits,
            landlock_abi: self.landlock_abi,
            report: self.report,
        })
    }

    /// With descriptors left open on purpose: the host's root directory, across exec.
    fn leak(&self) -> Result<(), SandboxError> {
        if self.weakened.lacks(Weaken::Descriptors) {
            let root = rustix::fs::open("/", OFlags::RDONLY, rustix::fs::Mode::empty());
            let leaked = root.and_then(|root| rustix::io::fcntl_dupfd_cloexec(&root, 100));
            let leaked = leaked.map_err(|error| SandboxError::setup("leaking", error))?;
            rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty())
                .map_err(|error| SandboxError::setup("leaking", error))?;
            std::mem::forget(leaked);
        }
        Ok(())
    }

    /// At creation, an allowed prefix must exist: nothing can be granted on what is not there.
    fn rules_hold(&self) -> Result<(), SandboxError> {
        let lists = [self.rules.read.as_deref(), self.rules.write.as_deref()];
        for path in lists.into_iter().flatten().flatten() {
            self.existing(path)?;
        }
        let ruled = self.rules.write.is_some();
        if ruled && self.landlock_abi < confine::LANDLOCK_ABI_TRUNCATE {
            return Err(SandboxError::Landlock {
                why: format!(
                    "ABI {} does not see truncation, so `write` rules cannot be enforced",
                    self.landlock_abi
                ),
            });
        }
        Ok(())
    }

    fn fence(&self) -> Result<(), SandboxError> {
        let mut fence = Fence::new(self.landlock_abi)?;
        for path in self.shown()? {
            fence = fence.allow(&path, Grant::Read)?;
        }
        fence = fence.allow(Path::new("/dev"), Grant::Use)?;
        for path in ["/tmp", "/dev/shm", HOME_INSIDE] {
            fence = fence.allow(Path::new(path), Grant::Write)?;
        }
        for mount in self.rules.mounts.iter().filter(|mount| mount.writable) {
            fence = fence.allow(Path::new(&mount.path), Grant::Write)?;
        }
        let whole = [WORKSPACE, MEMORY].map(str::to_owned);
        for path in self.rules.read.as_deref().unwrap_or(&whole) {
            fence = fence.allow(Path::new(path), Grant::Read)?;
        }
        for path in self.rules.write.as_deref().unwrap_or(&whole) {
            fence = fence.allow(Path::new(path), Grant::WriteOnly)?;
        }
        fence.close()
    }

    /// What may be read beside workspace and memory: everything, unless rules say what of these
    /// may be. Of an image then every directory at its root, but no link, which could lead into
    /// one of them.
    fn shown(&self) -> Result<Vec<PathBuf>, SandboxError> {
        if self.rules.read.is_none() {
            return Ok(vec![PathBuf::from("/")]);
        }
        let mut shown: Vec<PathBuf> = SHOWN_BESIDE.iter().map(PathBuf::from).collect();
        if self.root.is_none() {
            return Ok(shown);
        }
        let wrap = |error| SandboxError::setup("looking at the image's root", error);
        shown.clear();
        for entry in std::fs::read_dir("/").map_err(wrap)? {
            let entry = entry.map_err(wrap)?;
            let is_dir = entry.file_type().map_err(wrap)?.is_dir();
            if is_dir && tree_of(&entry.path().to_string_lossy()).is_none() {
                shown.push(entry.path());
            }
        }
        Ok(shown)
    }

    fn descriptors(&self) -> Result<(), SandboxError> {
        let wrap = |error| SandboxError::setup("standard streams", error);
        // The spawner keeps all its own descriptors above 2, so none of these is overwritten
        // before it is copied.
        for (number, fd) in self.stdio.iter().enumerate() {
            sys::dup_onto(*fd, number as i32).map_err(wrap)?;
        }
        if self.weakened.lacks(Weaken::Descriptors) {
            return Ok(());
        }
        sys::close_all_but(self.report).map_err(wrap)
    }
}

/// A detached copy of the certificates to show, taken while the host is still visible.
fn trust(job: &Job) -> Result<Option<OwnedFd>, SandboxError> {
    let Job::Exec { trust: Some(path), .. } = job else { return Ok(None) };
    let refuse = || SandboxError::invalid("the file of certificates is no file");
    let text = path.to_str().filter(|text| is_file(text)).ok_or_else(refuse)?;
    mounts::clone_tree(CWD, text, READ_ONLY, false).map(Some)
}

fn is_file(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

/// Old work directories kept beside a live one.
const OLD_WORK_MAX: u64 = 512;

/// Clears overlayfs's own directory of the last mount away, so that it makes a new one. The kernel
/// refuses to mount an upper again after a volatile mount, because after a power cut what it holds
/// may be incomplete; we never trust an upper across a restart of the machine. Usually there is
/// nothing but the mark of that in it, and it is removed. Else it is moved aside: that is one
/// step, where removing directories can be slow. What is left goes with the upper.
fn set_old_work_aside(work: &Path) {
    let last = work.join("work");
    if clear_work(&last) {
        return;
    }
    let slot = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_nsec as u64;
    let old = work.join(format!("old-{}", slot / 1000 % OLD_WORK_MAX));
    if std::fs::rename(&last, &old)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::DirectoryNotEmpty)
    {
        let _ = std::fs::remove_dir_all(&old);
        let _ = std::fs::rename(&last, &old);
    }
}

/// Removes overlayfs's own directory when it holds nothing but the mark of a volatile mount. Says
/// whether it is gone.
pub(crate) fn clear_work(last: &Path) -> bool {
    let gone = |done: std::io::Result<()>| match done {
        Ok(()) => true,
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if gone(std::fs::remove_dir(last)) {
        return true;
    }
    let mark = last.join("incompat/volatile");
    let dirs = [mark.as_path(), &last.join("incompat"), last];
    gone(std::fs::remove_file(mark.join("dirty")))
        && dirs.iter().all(|dir| gone(std::fs::remove_dir(dir)))
}

/// Replaces this process by the program; returns why not.
fn exec(argv: &[String], env: Vec<(String, String)>, cwd: Option<&str>) -> SandboxError {
    let cwd = cwd.unwrap_or(WORKSPACE);
    if let Err(error) = rustix::process::chdir(cwd) {
        return SandboxError::FileOp {
            path: cwd.to_owned(),
            why: format!("it cannot be the working directory: {error}"),
        };
    }
    let mut variables: BTreeMap<String, String> =
        ENV_DEFAULT.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    variables.extend(env);
    let path = variables.get("PATH").cloned().unwrap_or_default();
    let lines = variables.iter().map(|(name, value)| format!("{name}={value}"));
    let (Ok(env), Ok(args)) = (strings(lines), strings(argv.iter().cloned())) else {
        return SandboxError::invalid("a program's arguments hold a NUL");
    };
    let program = argv.first().map_or("", String::as_str);
    let candidates: Vec<String> = if program.contains('/') {
        vec![program.to_owned()]
    } else {
        path.split(':').map(|dir| format!("{dir}/{program}")).collect()
    };
    let mut last = std::io::Error::from_raw_os_error(libc::ENOENT);
    for candidate in candidates {
        let Ok(file) = CString::new(candidate) else {
            break;
        };
        let error = sys::exec(&file, &args, &env);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            _ => last = error,
        }
    }
    match last.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => {
            SandboxError::ProgramNotFound { program: program.to_owned() }
        }
        _ => SandboxError::ProgramNotExecutable {
            program: program.to_owned(),
            why: last.to_string(),
        },
    }
}

fn strings(list: impl Iterator<Item = String>) -> Result<Vec<CString>, std::ffi::NulError> {
    list.map(CString::new).collect()
}
