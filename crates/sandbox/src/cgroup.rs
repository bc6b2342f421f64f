//! Limits by the kernel: cgroup v2 where a subtree is ours, cgroup v1 controllers as root.
//!
//! Everything goes through directory descriptors opened before the spawner covers sysfs. One
//! directory per spawner, one below it per sandbox. Nothing is moved but our own processes.

use crate::mode::Mode;
use crate::spec::{LimitHit, Strength};
use rustix::fs::{AtFlags, FlockOperation, Mode as Bits, OFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use types::manifest::Limits;

/// Where cgroup file systems are.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
/// Prefix of our directories; the spawner's pid and chance follow.
const DIR_PREFIX: &str = "bedplate-";
/// Period of CPU limits, microseconds.
const CPU_PERIOD_US: u64 = 100_000;
/// Bytes read of one control file.
const CONTROL_BYTES_MAX: usize = 4096;

/// One hierarchy in use.
#[derive(Debug)]
struct Hierarchy {
    controller: &'static str,
    /// The spawner's directory.
    dir: OwnedFd,
    path: PathBuf,
}

/// The cgroups of this spawner, if there are any.
#[derive(Debug)]
pub(crate) struct Cgroups {
    version: u8,
    list: Vec<Hierarchy>,
    /// Why there are none.
    pub(crate) why_not: String,
}

/// One sandbox's cgroup.
#[derive(Debug)]
pub(crate) struct Cgroup {
    name: String,
    dirs: Vec<OwnedFd>,
    version: u8,
    /// cgroup v1 `tasks` files, for a process to put itself in.
    pub(crate) tasks: Vec<OwnedFd>,
}

impl Cgroups {
    /// Finds what may be used and makes the spawner's directories.
    pub(crate) fn open(mode: Mode) -> Self {
        Self::open_at(mode, Path::new(CGROUP_ROOT), std::process::id())
    }

    /// The same under another root, for tests.
    fn open_at(mode: Mode, root: &Path, pid: u32) -> Self {
        let none = |why: String| Self { version: 0, list: Vec::new(), why_not: why };
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let v2 = match open_v2(mode, root, &own, pid) {
            Ok(hierarchy) => {
                return Self { version: 2, list: vec![hierarchy], why_not: String::new() };
            }
            Err(why) => why,
        };
        if mode != Mode::Root {
            return none(v2);
        }
        let list = ["memory", "cpu", "pids"].map(|name| open_v1(root, &own, name, pid));
        match list.into_iter().collect::<Result<Vec<_>, _>>() {
            Ok(list) => Self { version: 1, list, why_not: String::new() },
            Err(v1) => none(format!("{v2}; {v1}")),
        }
    }

    /// How strong limits are.
    pub(crate) const fn strength(&self) -> Strength {
        match self.version {
            2 => Strength::KernelV2,
            1 => Strength::KernelV1,
            _ => Strength::Watched,
        }
    }

    /// The spawner's directories, to be removed by the owner if the spawner cannot.
    pub(crate) fn paths(&self) -> Vec<String> {
        let text = |h: &Hierarchy| h.path.to_string_lossy().into_owned();
        self.list.iter().map(text).collect()
    }

    /// Makes a sandbox's cgroup, with no limits yet. `None` when limits are only watched.
    pub(crate) fn make(&self, id: u64) -> io::Result<Option<Cgroup>> {
        if self.version == 0 {
            return Ok(None);
        }
        let mut cgroup = Cgroup {
            name: format!("s{id}"),
            dirs: Vec::new(),
            version: self.version,
            tasks: Vec::new(),
        };
        match self.fill(&mut cgroup) {
            Ok(()) => Ok(Some(cgroup)),
            Err(error) => {
                self.remove(&cgroup);
                Err(error)
            }
        }
    }

    fn fill(&self, cgroup: &mut Cgroup) -> io::Result<()> {
        for hierarchy in &self.list {
            let name = cgroup.name.as_str();
            rustix::fs::mkdirat(&hierarchy.dir, name, Bits::from_raw_mode(0o755))?;
            let dir = open_dir(hierarchy.dir.as_fd(), name)?;
            if self.version == 1 {
                cgroup.tasks.push(open_write(dir.as_fd(), "tasks")?);
            }
            cgroup.dirs.push(dir);
        }
        Ok(())
    }

    /// Sets the limits of a cgroup, before anything runs in it.
    pub(crate) fn limit(&self, cgroup: &Cgroup, limits: &Limits) -> io::Result<()> {
        self.list.iter().zip(&cgroup.dirs).try_for_each(|(hierarchy, dir)| match self.version {
            2 => limit_v2(dir.as_fd(), limits),
            _ => limit_v1(dir.as_fd(), hierarchy.controller, limits),
        })
    }

    /// Removes a sandbox's cgroup, whose processes are gone. False when the kernel has not let go
    /// of the last of them yet: try again later.
    pub(crate) fn remove(&self, cgroup: &Cgroup) -> bool {
        let gone = |hierarchy: &Hierarchy| remove_dir(hierarchy.dir.as_fd(), &cgroup.name);
        self.list.iter().filter(|hierarchy| !gone(hierarchy)).count() == 0
    }

    /// Removes the spawner's own directories.
    pub(crate) fn close(self) {
        for path in self.paths() {
            remove_tree(Path::new(&path), Some(&self.list));
        }
    }
}

fn remove_dir(parent: BorrowedFd<'_>, name: &str) -> bool {
    let removed = rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR);
    !matches!(removed, Err(rustix::io::Errno::BUSY))
}

/// Removes a spawner's directory and the sandboxes' below it, by path or, where sysfs is covered,
/// through the descriptors of `list`.
fn remove_tree(path: &Path, list: Option<&[Hierarchy]>) {
    let open = list.and_then(|list| list.iter().find(|h| h.path == path));
    if let Some(hierarchy) = open {
        // The parent is reached from inside; ".." of a cgroup directory is its parent.
        if let Ok(parent) = open_dir(hierarchy.dir.as_fd(), "..")
            && let Some(name) = path.file_name().and_then(|name| name.to_str())
        {
            let _ = remove_dir(parent.as_fd(), name);
        }
        return;
    }
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = std::fs::remove_dir(entry.path());
        }
    }
    let _ = std::fs::remove_dir(path);
}

/// For the owner: removes the directories a dead spawner left. Its sandboxes die with it, but not
/// at the same instant, so this tries for a while.
pub(crate) fn remove_left(paths: &[String]) -> bool {
    for path in paths {
        remove_tree(Path::new(path), None);
    }
    !paths.iter().any(|path| Path::new(path).exists())
}

impl Cgroup {
    /// The v2 directory to start processes in.
    pub(crate) fn start_in(&self) -> Option<BorrowedFd<'_>> {
        (self.version == 2).then(|| self.dirs[0].as_fd())
    }

    /// How often a limit was hit so far: memory, processes.
    pub(crate) fn hits(&self) -> Hits {
        let (memory, pids) = match self.version {
            2 => ((0, "memory.events", "oom_kill"), (0, "pids.events", "max")),
            _ => ((0, "memory.oom_control", "oom_kill"), (2, "pids.events", "max")),
        };
        let count = |(dir, file, key): (usize, &str, &str)| {
            let text = read_control(self.dirs[dir].as_fd(), file).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        Hits { memory: count(memory), processes: count(pids) }
    }
}

/// Counters of limits that were hit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Hits {
    memory: u64,
    processes: u64,
}

impl Hits {
    /// What was hit since `before`.
    pub(crate) const fn since(self, before: Self) -> Option<LimitHit> {
        if self.memory > before.memory {
            Some(LimitHit::Memory)
        } else if self.processes > before.processes {
            Some(LimitHit::Processes)
        } else {
            None
        }
    }
}

fn open_dir(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Bits::empty())?)
}

fn open_write(dir: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Bits::empty())?)
}

fn write_control(dir: BorrowedFd<'_>, name: &str, value: &str) -> io::Result<()> {
    rustix::io::write(open_write(dir, name)?, value.as_bytes())?;
    Ok(())
}

fn read_control(dir: BorrowedFd<'_>, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Bits::empty())?;
    let mut buffer = vec![0; CONTROL_BYTES_MAX];
    let count = rustix::io::read(file, &mut buffer)?;
    buffer.truncate(count);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

fn limit_v2(dir: BorrowedFd<'_>, limits: &Limits) -> io::Result<()> {
    let quota = u64::from(limits.cpu_centis) * CPU_PERIOD_US / 100;
    write_control(dir, "memory.max", &limits.memory_bytes.to_string())?;
    optional(write_control(dir, "memory.swap.max", "0"))?;
    write_control(dir, "memory.oom.group", "1")?;
    write_control(dir, "pids.max", &limits.processes.to_string())?;
    write_control(dir, "cpu.max", &format!("{quota} {CPU_PERIOD_US}"))
}

fn limit_v1(dir: BorrowedFd<'_>, controller: &str, limits: &Limits) -> io::Result<()> {
    match controller {
        "memory" => {
            let bytes = limits.memory_bytes.to_string();
            write_control(dir, "memory.limit_in_bytes", &bytes)?;
            optional(write_control(dir, "memory.memsw.limit_in_bytes", &bytes))
        }
        "cpu" => {
            let quota = u64::from(limits.cpu_centis) * CPU_PERIOD_US / 100;
            write_control(dir, "cpu.cfs_period_us", &CPU_PERIOD_US.to_string())?;
            write_control(dir, "cpu.cfs_quota_us", &quota.to_string())
        }
        _ => write_control(dir, "pids.max", &limits.processes.to_string()),
    }
}

/// A control file that kernels without swap accounting do not have.
fn optional(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Tries to make a directory that a clean-up of somebody else does not take away at once.
const MAKE_TRIES: u32 = 16;

/// Makes the spawner's directory and locks it: the lock says that its spawner lives. Pids cannot,
/// because spawners of several pid namespaces may share the tree.
fn make(parent: &Path, controller: &'static str, pid: u32) -> Result<Hierarchy, String> {
    sweep(parent);
    for _ in 0..MAKE_TRIES {
        let mut random = [0; 4];
        getrandom::fill(&mut random).map_err(|error| error.to_string())?;
        let random = u32::from_ne_bytes(random);
        let path = parent.join(format!("{DIR_PREFIX}{pid}-{random:08x}"));
        let fail = |error: io::Error| format!("{}: {error}", path.display());
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other.map_err(fail)?,
        }
        if let Some(dir) = lock(&path)
            && path.exists()
        {
            return Ok(Hierarchy { controller, dir, path });
        }
    }
    Err(format!("{} cannot be used: a directory made there does not stay", parent.display()))
}

/// Opens and locks a spawner's directory; `None` when it is gone or its spawner lives.
fn lock(path: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = rustix::fs::open(path, flags, Bits::empty()).ok()?;
    rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).ok().map(|()| dir)
}

/// Removes what spawners left that died together with their owner.
fn sweep(parent: &Path) {
    for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(DIR_PREFIX));
        // Held until it is removed, so that nobody takes it for one that lives.
        if ours && let Some(_lock) = lock(&entry.path()) {
            remove_tree(&entry.path(), None);
        }
    }
}

/// Our directory in a v1 hierarchy: below where we already are.
fn open_v1(
    root: &Path,
    own: &str,
    controller: &'static str,
    pid: u32,
) -> Result<Hierarchy, String> {
    let line = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let names = parts.next()?;
        names.split(',').any(|name| name == controller).then(|| (names, parts.next()))
    });
    let Some((names, Some(path))) = line else {
        return Err(format!("there is no cgroup v1 controller '{controller}'"));
    };
    let mount = [names, controller].map(|name| root.join(name));
    let Some(mount) = mount.iter().find(|path| path.is_dir()) else {
        return Err(format!("the cgroup v1 controller '{controller}' is not mounted"));
    };
    // In a container the path may be one of the host's that is not visible here.
    let below = mount.join(path.trim_start_matches('/'));
    make(if below.is_dir() { &below } else { mount }, controller, pid)
}

/// Our directory in the v2 hierarchy: as root below its root, else below where we are, if that
/// is delegated to us and holds only our own processes.
fn open_v2(mode: Mode, root: &Path, own: &str, pid: u32) -> Result<Hierarchy, String> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::"));
    let Some(path) = path.filter(|_| root.join("cgroup.controllers").exists()) else {
        return Err("cgroup v2 with controllers is not mounted".to_owned());
    };
    let parent = match mode {
        Mode::Root => root.to_path_buf(),
        Mode::User => root.join(path.trim_start_matches('/')),
    };
    let read = |name: &str| std::fs::read_to_string(parent.join(name)).unwrap_or_default();
    let needed = ["memory", "pids", "cpu"];
    let has = |text: &str, name: &str| text.split_whitespace().any(|word| word == name);
    let available = read("cgroup.controllers");
    if let Some(missing) = needed.iter().find(|name| !has(&available, name)) {
        return Err(format!("the controller '{missing}' is not available in {}", parent.display()));
    }
    let enabled = read("cgroup.subtree_control");
    if !needed.iter().all(|name| has(&enabled, name)) {
        if mode == Mode::User {
            step_aside(&parent, &read("cgroup.procs"), pid)?;
        }
        std::fs::write(parent.join("cgroup.subtree_control"), "+memory +pids +cpu")
            .map_err(|error| format!("{} is not delegated to us: {error}", parent.display()))?;
    }
    let hierarchy = make(&parent, "", pid)?;
    std::fs::write(hierarchy.path.join("cgroup.subtree_control"), "+memory +pids +cpu")
        .map_err(|error| format!("{}: {error}", hierarchy.path.display()))?;
    Ok(hierarchy)
}

/// Moves our own processes into a leaf, because a cgroup with children may hold none itself.
fn step_aside(parent: &Path, procs: &str, pid: u32) -> Result<(), String> {
    let program = |pid: &str| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let ours = program("self");
    let pids: Vec<&str> = procs.split_whitespace().collect();
    if let Some(foreign) = pids.iter().find(|pid| program(pid) != ours) {
        return Err(format!("{} is not ours alone (process {foreign} is in it)", parent.display()));
    }
    let leaf = parent.join(format!("owner-{pid}"));
    let fail = |error: io::Error| format!("{}: {error}", leaf.display());
    std::fs::create_dir_all(&leaf).map_err(fail)?;
    for pid in pids {
        std::fs::write(leaf.join("cgroup.procs"), pid).map_err(fail)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A directory that looks like a cgroup v2 tree. New directories get no control files here, so
    /// what can be tried is everything up to the first limit.
    fn fake(controllers: &str, enabled: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cgroup.controllers", controllers),
            ("cgroup.subtree_control", enabled),
            ("cgroup.procs", ""),
        ] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    const ALL: &str = "cpuset cpu io memory pids\n";

    #[test]
    fn v2_is_used_when_its_controllers_are_there() {
        let dir = fake(ALL, "cpu memory pids");
        let found = open_v2(Mode::Root, dir.path(), "0::/somewhere\n", 7).unwrap();
        let name = found.path.file_name().unwrap().to_str().unwrap();
        assert!(found.path.parent() == Some(dir.path()) && name.starts_with("bedplate-7-"));
        let enabled = fs::read_to_string(found.path.join("cgroup.subtree_control")).unwrap();
        assert_eq!(enabled, "+memory +pids +cpu");
    }

    #[test]
    fn v2_controllers_are_enabled_where_we_may() {
        let dir = fake(ALL, "");
        open_v2(Mode::Root, dir.path(), "0::/\n", 7).unwrap();
        let enabled = fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap();
        assert_eq!(enabled, "+memory +pids +cpu");
    }

    #[test]
    fn what_is_missing_is_said() {
        let cases = [
            (fake("hugetlb\n", ""), "0::/\n", "controller 'memory' is not available"),
            (fake("cpu memory\n", ""), "0::/\n", "controller 'pids' is not available"),
            (fake(ALL, ALL), "9:memory:/\n", "not mounted"),
        ];
        for (dir, own, expected) in cases {
            let why = open_v2(Mode::Root, dir.path(), own, 7).unwrap_err();
            assert!(why.contains(expected), "{why}");
        }
        let why = open_v1(Path::new("/nowhere"), "3:cpu,cpuacct:/\n", "memory", 7).unwrap_err();
        assert!(why.contains("no cgroup v1 controller 'memory'"), "{why}");
    }

    #[test]
    fn an_ordinary_user_takes_only_a_group_of_its_own() {
        let dir = fake(ALL, "");
        // Pid 1 is another program.
        fs::write(dir.path().join("cgroup.procs"), "1\n").unwrap();
        let why = open_v2(Mode::User, dir.path(), "0::/\n", 7).unwrap_err();
        assert!(why.contains("not ours alone (process 1"), "{why}");
        fs::write(dir.path().join("cgroup.procs"), format!("{}\n", std::process::id())).unwrap();
        open_v2(Mode::User, dir.path(), "0::/\n", 7).unwrap();
        let moved = fs::read_to_string(dir.path().join("owner-7/cgroup.procs")).unwrap();
        assert_eq!(moved, std::process::id().to_string());
    }

    #[test]
    fn v2_limits_are_written_as_the_kernel_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let names = ["memory.max", "memory.swap.max", "memory.oom.group", "pids.max", "cpu.max"];
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let open = fs::File::open(dir.path()).unwrap();
        let limits = Limits { memory_bytes: 1 << 20, cpu_centis: 150, processes: 9, disk_bytes: 0 };
        limit_v2(open.as_fd(), &limits).unwrap();
        let read = |name| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(names.map(read), ["1048576", "0", "1", "9", "150000 100000"]);
        // Kernels without swap accounting have no such file; without a memory limit nothing works.
        fs::remove_file(dir.path().join("memory.swap.max")).unwrap();
        limit_v2(open.as_fd(), &limits).unwrap();
        fs::remove_file(dir.path().join("memory.max")).unwrap();
        assert!(limit_v2(open.as_fd(), &limits).is_err());
    }

    #[test]
    fn hits_are_counted_from_a_start() {
        let now = Hits { memory: 2, processes: 5 };
        let before = |memory, processes| Hits { memory, processes };
        assert_eq!(now.since(before(2, 5)), None);
        assert_eq!(now.since(before(2, 4)), Some(LimitHit::Processes));
        assert_eq!(now.since(before(1, 4)), Some(LimitHit::Memory));
    }

    #[test]
    fn what_dead_spawners_left_is_swept() {
        let dir = fake(ALL, ALL);
        fs::create_dir_all(dir.path().join("bedplate-7-00000000/s1")).unwrap();
        let alive = make(dir.path(), "", 7).unwrap();
        assert!(!dir.path().join("bedplate-7-00000000").exists());
        fs::create_dir_all(dir.path().join("bedplate-8-00000000/s1")).unwrap();
        fs::create_dir(dir.path().join("other-1")).unwrap();
        sweep(dir.path());
        assert!(!dir.path().join("bedplate-8-00000000").exists());
        assert!(alive.path.exists() && dir.path().join("other-1").exists());
        let path = alive.path.clone();
        drop(alive);
        sweep(dir.path());
        assert!(!path.exists(), "its spawner is gone");
    }
}
