//! What `/proc` and the cgroup tree show of the processes below this one: who lives, what they hold,
//! and what they left.

use crate::error::Result;
use crate::roles::OWNER;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where cgroup file systems are, and how deep our directories can be in them.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";
const CGROUP_DEPTH_MAX: usize = 8;
/// What each of our directories there begins with; the spawner's pid follows.
const CGROUP_PREFIX: &str = "bedplate-";
/// How long something may take to be gone or to come to rest.
const SETTLE_MAX: Duration = Duration::from_secs(20);
/// Between two looks at it.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    ended: bool,
}

impl Process {
    /// From `/proc/PID/stat`: `PID (NAME) STATE PARENT ...`, where the name may hold anything.
    fn read(stat: &str) -> Option<Self> {
        let (pid, rest) = stat.split_once(' ')?;
        let mut words = rest.rsplit_once(')')?.1.split_whitespace();
        let ended = matches!(words.next()?, "Z" | "X");
        Some(Self { pid: pid.parse().ok()?, parent: words.next()?.parse().ok()?, ended })
    }
}

fn all() -> Vec<Process> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter(|entry| {
        entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit)
    });
    pids.filter_map(|entry| Process::read(&fs::read_to_string(entry.path().join("stat")).ok()?))
        .collect()
}

fn ours() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// The processes below this one that live.
pub(super) fn below() -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in all() {
        children.entry(process.parent).or_default().push(process);
    }
    let (mut found, mut todo) = (Vec::new(), vec![ours()]);
    while let Some(parent) = todo.pop() {
        for child in children.get(&parent).into_iter().flatten() {
            todo.push(child.pid);
            found.extend((!child.ended).then_some(child.pid));
        }
    }
    found
}

/// Has whatever loses its parent below us become ours, so that nothing can hide.
pub(super) fn adopt() {
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}

/// Takes leave of children that have ended.
pub(super) fn reap() {
    for process in all().into_iter().filter(|one| one.parent == ours() && one.ended) {
        let _ = rustix::process::waitpid(Pid::from_raw(process.pid), WaitOptions::NOHANG);
    }
}

/// The children of a process that play this role.
pub(super) fn in_role(parent: i32, role: &str) -> Vec<i32> {
    let children = all().into_iter().filter(|one| one.parent == parent && !one.ended);
    let plays = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(1) == Some(role.as_bytes())
    };
    children.map(|one| one.pid).filter(plays).collect()
}

/// Ends the owners that were started from here, and waits until nothing of them is left.
pub(super) fn end_owners() {
    kill(&in_role(ours(), OWNER));
    settled(|| below().is_empty());
}

/// Kills processes as nothing can catch, and waits until each has ended.
pub(super) fn kill(pids: &[i32]) {
    let pids = pids.iter().filter_map(|pid| Pid::from_raw(*pid));
    let open = |pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok();
    let handles: Vec<_> = pids.filter_map(open).collect();
    for handle in &handles {
        let _ = rustix::process::pidfd_send_signal(handle, Signal::KILL);
    }
    let limit = Timespec { tv_sec: SETTLE_MAX.as_secs().cast_signed(), tv_nsec: 0 };
    for handle in &handles {
        let _ = rustix::event::poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&limit));
    }
}

/// Looks until it is so, at most [`SETTLE_MAX`]. Whether it came to be.
pub(super) fn settled(mut so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + SETTLE_MAX;
    while !so() {
        if Instant::now() > until {
            return false;
        }
        let _ = rustix::event::poll(&mut [], Some(&LOOK));
        reap();
    }
    true
}

/// Bytes of memory of these processes, shared pages counted by their share; and how many of them
/// the kernel does not let us look into.
pub(super) fn pss_bytes(pids: &[i32]) -> (u64, usize) {
    let of = |pid: &i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        kibibytes(&text, "Pss:")
    };
    let known: Vec<u64> = pids.iter().filter_map(of).collect();
    (known.iter().sum(), pids.len() - known.len())
}

/// Bytes of memory that the host has for whoever wants some.
pub(super) fn available_bytes() -> Option<u64> {
    kibibytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

fn kibibytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Open descriptors of these processes, as far as we may look.
pub(super) fn descriptors(pids: &[i32]) -> u64 {
    let of = |pid: &i32| fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    pids.iter().map(of).sum::<usize>() as u64
}

/// Namespaces that these processes are in or hold, and that are not ours.
pub(super) fn namespaces(pids: &[i32]) -> BTreeSet<PathBuf> {
    let links = |dir: PathBuf| {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| fs::read_link(entry.path()).ok()).collect::<BTreeSet<_>>()
    };
    let of = |pid: &i32| {
        let held =
            links(format!("/proc/{pid}/fd").into()).into_iter().filter(|to| is_namespace(to));
        links(format!("/proc/{pid}/ns").into()).into_iter().chain(held)
    };
    let own = links("/proc/self/ns".into());
    pids.iter().flat_map(of).filter(|namespace| !own.contains(namespace)).collect()
}

/// A link as `net:[4026531840]`.
fn is_namespace(link: &Path) -> bool {
    let text = link.to_string_lossy();
    ["mnt", "net", "pid", "user", "uts", "ipc", "cgroup", "time"]
        .iter()
        .any(|kind| text.strip_prefix(kind).is_some_and(|rest| rest.starts_with(":[")))
}

/// Mounts that are seen here.
pub(super) fn mounts() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The cgroups of these spawners, and all below them.
pub(super) fn cgroups(spawners: &BTreeSet<i32>) -> Vec<PathBuf> {
    let ours = |path: &Path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let pid = name.strip_prefix(CGROUP_PREFIX).and_then(|rest| rest.split('-').next());
        pid.and_then(|pid| pid.parse().ok()).is_some_and(|pid| spawners.contains(&pid))
    };
    directories(Path::new(CGROUP_ROOT), CGROUP_DEPTH_MAX)
        .into_iter()
        .filter(|path| path.ancestors().any(ours))
        .collect()
}

fn directories(dir: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if depth == 0 {
        return found;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(directories(&entry.path(), depth - 1));
            found.push(entry.path());
        }
    }
    found
}

/// Bytes of the files below a directory.
pub(super) fn file_bytes(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        sum += if meta.is_dir() { file_bytes(&entry.path()) } else { meta.len() };
    }
    sum
}

/// What is there before, to be compared with what is there after.
#[derive(Debug)]
pub(super) struct Before {
    mounts: BTreeSet<String>,
    processes: BTreeSet<i32>,
}

/// What should be gone and is not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) processes: usize,
    pub(super) mounts: usize,
    pub(super) cgroups: usize,
    pub(super) namespaces: usize,
}

impl Before {
    pub(super) fn now() -> Self {
        Self { mounts: mounts(), processes: below().into_iter().collect() }
    }

    /// What has come since and is still there, once all had time to go.
    pub(super) fn left(&self, spawners: &BTreeSet<i32>) -> Left {
        let mut left = Left::default();
        settled(|| {
            left = self.there(spawners);
            left == Left::default()
        });
        left
    }

    fn there(&self, spawners: &BTreeSet<i32>) -> Left {
        let processes: Vec<i32> =
            below().into_iter().filter(|pid| !self.processes.contains(pid)).collect();
        Left {
            processes: processes.len(),
            mounts: mounts().difference(&self.mounts).count(),
            cgroups: cgroups(spawners).len(),
            namespaces: namespaces(&processes).len(),
        }
    }
}

/// The process that a home's owner is.
pub(super) fn owner_of(home: &runtime::Home) -> Result<i32> {
    let text = fs::read_to_string(home.pid()).map_err(|error| super::fail("the owner", error))?;
    let pid = text.trim().parse();
    Ok(pid.map_err(|_| super::fail("the owner", "its pid file names no process"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_is_read_whatever_its_name() {
        let check = |stat: &str, expected: Option<(i32, i32, bool)>| {
            let got = Process::read(stat).map(|one| (one.pid, one.parent, one.ended));
            assert_eq!(got, expected, "{stat}");
        };
        check("7 (sh) S 3 7 7 0", Some((7, 3, false)));
        check("8 (a) Z 1 (b) R 4 8", Some((8, 4, false)));
        check("9 (gone) Z 5 9", Some((9, 5, true)));
        check("9 (cut", None);
    }

    #[test]
    fn what_lives_on_is_counted_until_it_is_gone() {
        let before = Before::now();
        let child = Command::new("/bin/cat").stdin(Stdio::piped()).spawn();
        let mut child = child.expect("it starts");
        let there = before.there(&BTreeSet::new());
        assert!(there.processes >= 1, "{there:?}");
        let pid = i32::try_from(child.id()).expect("a pid");
        assert!(below().contains(&pid) && descriptors(&[pid]) >= 3);
        assert!(pss_bytes(&[pid]).0 > 0);
        kill(&[pid]);
        assert!(!below().contains(&pid), "it has ended, though nobody took leave of it");
        assert!(child.wait().is_ok());
    }

    #[test]
    fn namespaces_are_told_from_other_links() {
        let check = |link: &str, expected| assert_eq!(is_namespace(Path::new(link)), expected);
        check("net:[4026531840]", true);
        check("mnt:[1]", true);
        check("socket:[1]", false);
        check("/net", false);
        assert!(namespaces(&[ours()]).is_empty(), "our own are not counted");
    }

    #[test]
    fn files_are_counted_all_the_way_down() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("a/b")).expect("made");
        fs::write(dir.path().join("a/one"), "12345").expect("written");
        fs::write(dir.path().join("a/b/two"), "123").expect("written");
        assert_eq!(file_bytes(dir.path()), 8);
        assert_eq!(kibibytes("Rss: 1 kB\nPss:    3 kB\n", "Pss:"), Some(3 << 10));
    }
}
