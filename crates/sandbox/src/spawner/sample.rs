//! Watching what the kernel does not limit for us: the workspace's growth, and without cgroups
//! the memory of all processes together.
//!
//! A walk can take long, so a fork of the spawner does it and answers with its exit status. The
//! next look waits ten times as long as the last one took. Between two looks a limit can be
//! overrun; that is what `watched` means.

use super::{Source, Spawner};
use crate::cgroup::Cgroup;
use crate::spec::{LimitHit, Strength};
use crate::sys::{self, Forked};
use rustix::process::{Pid, Signal, WaitOptions};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often to look, at most.
pub(super) const EVERY: Duration = Duration::from_millis(200);
/// A look may use this part of the time: one in ten.
const SHARE: u32 = 10;
/// Exit status of a look that found a limit overrun.
const FOUND_DISK: i32 = 1;
const FOUND_MEMORY: i32 = 2;
/// Bytes of a block as `stat` counts them.
const BLOCK_BYTES: u64 = 512;
const KIB: u64 = 1024;

/// A look under way.
#[derive(Debug)]
pub(super) struct Sampler {
    pid: Pid,
    pidfd: OwnedFd,
    started: Instant,
}

impl Sampler {
    /// Ends a look whose answer nobody waits for.
    pub(super) fn end(self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = rustix::process::waitpid(Some(self.pid), WaitOptions::empty());
    }
}

impl Spawner {
    pub(super) fn start_sample(&mut self, id: u64) {
        let Some(found) = self.boxes.get(&id) else {
            return;
        };
        // The kernel ends one process that wants too much; we end them all, as elsewhere.
        let before = found.hits;
        let hits = found.cgroup.as_ref().map(Cgroup::hits);
        if let Some(job) = self.boxes.get_mut(&id).and_then(|found| found.job.as_mut())
            && hits.is_some_and(|hits| hits.since(before) == Some(LimitHit::Memory))
        {
            job.limit = Some(LimitHit::Memory);
            job.sample_at = Instant::now() + EVERY;
            job.kill();
            return;
        }
        let Some(found) = self.boxes.get(&id) else {
            return;
        };
        let watched = self.cgroups.strength() == Strength::Watched;
        let trees = &found.spec.trees;
        let left = found.spec.limits.disk_bytes.saturating_sub(trees.grown_bytes());
        let memory = watched.then_some(found.spec.limits.memory_bytes);
        let forked = sys::fork(0, None);
        if let Ok(Forked::Child) = forked {
            let code = if disk_bytes(trees.uppers(), left) > left {
                FOUND_DISK
            } else if memory.is_some_and(|max| memory_bytes(found.mounts()) > max) {
                FOUND_MEMORY
            } else {
                0
            };
            sys::exit_now(code);
        }
        let started = Instant::now();
        let sampler = match forked {
            Ok(Forked::Parent { pid, pidfd }) => {
                let watching = self.watch(pidfd.as_fd(), Source::Sampler, id);
                watching.ok().map(|()| Sampler {
                    pid: Pid::from_raw(pid).expect("a child has a pid"),
                    pidfd,
                    started,
                })
            }
            _ => None,
        };
        if let Some(job) = self.boxes.get_mut(&id).and_then(|found| found.job.as_mut()) {
            job.sample_at = started + EVERY;
            job.sampler = sampler;
        }
    }

    pub(super) fn on_sample(&mut self, id: u64) {
        let Some(job) = self.boxes.get_mut(&id).and_then(|found| found.job.as_mut()) else {
            return;
        };
        let Some(sampler) = job.sampler.take() else {
            return;
        };
        let _ = rustix::event::epoll::delete(&self.epoll, &sampler.pidfd);
        let status = rustix::process::waitpid(Some(sampler.pid), WaitOptions::empty());
        let code = status.ok().flatten().and_then(|(_, status)| status.exit_status());
        job.sample_at = Instant::now() + EVERY.max(sampler.started.elapsed() * SHARE);
        let limit = match code {
            Some(FOUND_DISK) => LimitHit::Disk,
            Some(FOUND_MEMORY) => LimitHit::Memory,
            _ => return,
        };
        job.limit = job.limit.or(Some(limit));
        job.kill();
    }
}

/// Bytes allocated below `dir`; stops counting once it is more than `enough`.
fn disk_bytes<'a>(dirs: impl Iterator<Item = &'a PathBuf>, enough: u64) -> u64 {
    let mut sum = 0;
    let mut todo: Vec<PathBuf> = dirs.cloned().collect();
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            sum += meta.blocks() * BLOCK_BYTES;
            if meta.is_dir() {
                todo.push(entry.path());
            }
        }
        if sum > enough {
            break;
        }
    }
    sum
}

/// Bytes of memory used inside: anonymous and shared pages of every process, and the scratch.
/// Enters the sandbox's mount namespace, whose /proc shows its processes and no others.
fn memory_bytes(mounts: BorrowedFd<'_>) -> u64 {
    if sys::setns(mounts, libc::CLONE_NEWNS).is_err() {
        return 0;
    }
    let mut sum = 0;
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        let is_pid = name.to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()));
        if !is_pid {
            continue;
        }
        let text = fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let field = |key: &str| -> u64 {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            let number = line.and_then(|line| line.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        sum += (field("RssAnon:") + field("RssShmem:")) * KIB;
    }
    let scratch = rustix::fs::statvfs("/tmp");
    sum + scratch.map_or(0, |fs| (fs.f_blocks - fs.f_bfree) * fs.f_frsize)
}
