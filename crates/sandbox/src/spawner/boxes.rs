//! What the spawner knows of each sandbox, and all transitions of its state.

use super::sample::{self, Sampler};
use super::{Source, Spawner};
use crate::SandboxError;
use crate::cgroup::{Cgroup, Hits};
use crate::enter::{Entry, Job};
use crate::init;
use crate::spec::{CreateSpec, Ended, ExecExit, Facts, LimitHit, Sandbox, SandboxId, Trees};
use crate::sys::{self, Forked};
use crate::weaken::Weaken;
use crate::wire::{Answer, Ask};
use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A file operation that takes longer than this is ended, milliseconds.
const FILE_OP_MS_MAX: u64 = 60_000;
/// The longest time limit of a program, milliseconds: a week.
const TIMEOUT_MS_MAX: u64 = 7 * 24 * 3600 * 1000;
/// How long after a program's end: its sandbox may be about to be destroyed.
const SPARE_SOON: Duration = Duration::from_millis(2);
/// Bytes read of a report or of init at once.
const REPORT_BYTES_MAX: usize = 4096;

/// Why init was told to kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Killing {
    /// The running job's main process has ended.
    AfterJob,
    /// The owner asked, with this number.
    Asked(u64),
}

/// What a job is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A program or a file operation of the owner.
    Asked,
    /// Proving the path rules; the sandbox is not announced before.
    Proof,
}

/// What runs in a sandbox.
#[derive(Debug)]
pub(super) struct Running {
    seq: u64,
    purpose: Purpose,
    pid: Pid,
    pidfd: OwnedFd,
    report: OwnedFd,
    pub(super) started: Instant,
    deadline: Option<Instant>,
    ended: Option<Ended>,
    timed_out: bool,
    pub(super) limit: Option<LimitHit>,
    /// When to look at memory and disk next.
    pub(super) sample_at: Instant,
    pub(super) sampler: Option<Sampler>,
    /// Who asked for its end and waits for it.
    killers: Vec<u64>,
}

/// One sandbox.
#[derive(Debug)]
pub(super) struct Sandboxed {
    pub(super) spec: CreateSpec,
    pub(super) facts: Facts,
    pub(super) init_pid: Pid,
    pub(super) init: OwnedFd,
    pub(super) control: OwnedFd,
    /// As [`init::NAMESPACES`] orders them; empty until init is ready.
    pub(super) namespaces: Vec<OwnedFd>,
    /// Its network's listeners, until they are handed over.
    pub(super) listeners: Vec<OwnedFd>,
    pub(super) cgroup: Option<Cgroup>,
    /// Limits that were hit until the last program ended. Nothing runs between two.
    pub(super) hits: Hits,
    /// The create that is not answered yet.
    pub(super) building: Option<u64>,
    pub(super) failed: Option<SandboxError>,
    pub(super) job: Option<Running>,
    pub(super) killing: VecDeque<Killing>,
    pub(super) destroying: Vec<u64>,
    pub(super) init_ended: bool,
}

impl Sandboxed {
    /// Its mount namespace.
    pub(super) fn mounts(&self) -> std::os::fd::BorrowedFd<'_> {
        self.namespaces[init::MOUNT_NAMESPACE].as_fd()
    }

    /// Kills init, and with it everything inside.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.init, Signal::KILL);
    }
}

impl Running {
    /// Kills the main process; the rest follows when it is seen to have ended.
    pub(super) fn kill(&self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
    }
}

/// A process's pid as the host counts: the spawner lives in a pid namespace, its /proc does not.
fn host_pid(pidfd: &OwnedFd) -> i32 {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    line.and_then(|pid| pid.trim().parse().ok()).unwrap_or(0)
}

fn ended(pid: Pid) -> Option<Ended> {
    let (_, status) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG).ok()??;
    status.exit_status().map(Ended::Code).or_else(|| status.terminating_signal().map(Ended::Signal))
}

impl Spawner {
    pub(super) fn on_ask(
        &mut self,
        seq: u64,
        ask: Ask,
        fds: Vec<OwnedFd>,
    ) -> Result<(), SandboxError> {
        match ask {
            Ask::Create(spec) => self.create(seq, *spec),
            Ask::Exec { sandbox, argv, env, cwd, timeout_ms, trees, trust } => {
                let stdio: [OwnedFd; 3] = fds
                    .try_into()
                    .map_err(|_| SandboxError::invalid("a program needs three streams"))?;
                self.switch(sandbox, trees)?;
                let job = Job::Exec { argv, env, cwd, trust };
                self.start_job(seq, sandbox.0, job, &stdio, timeout_ms, Purpose::Asked)
            }
            Ask::File { sandbox, op, trees } => {
                let [input, output]: [OwnedFd; 2] = fds
                    .try_into()
                    .map_err(|_| SandboxError::invalid("a file operation needs two pipes"))?;
                self.switch(sandbox, trees)?;
                let errors = rustix::io::dup(&output)
                    .map_err(|error| SandboxError::setup("streams", error))?;
                let stdio = [input, output, errors];
                let limit = Some(FILE_OP_MS_MAX);
                self.start_job(seq, sandbox.0, Job::File(op), &stdio, limit, Purpose::Asked)
            }
            Ask::KillAll { sandbox } => self.kill_all(seq, sandbox.0),
            Ask::Destroy { sandbox } => {
                let found = self.find(sandbox.0)?;
                found.destroying.push(seq);
                found.kill();
                Ok(())
            }
        }
    }

    fn find(&mut self, id: u64) -> Result<&mut Sandboxed, SandboxError> {
        match self.boxes.get_mut(&id) {
            Some(found) if found.destroying.is_empty() && self.spare != Some(id) => Ok(found),
            _ => Err(SandboxError::NoSuchSandbox { id }),
        }
    }

    fn switch(&mut self, id: SandboxId, trees: Option<Trees>) -> Result<(), SandboxError> {
        let found = self.find(id.0)?;
        if found.job.is_some() {
            return Err(SandboxError::TooMany {
                what: "what runs in one sandbox at a time".to_owned(),
                max: 1,
            });
        }
        if let Some(trees) = trees {
            trees.check()?;
            found.spec.trees = trees;
        }
        Ok(())
    }

    fn start_job(
        &mut self,
        seq: u64,
        id: u64,
        job: Job,
        stdio: &[OwnedFd; 3],
        timeout_ms: Option<u64>,
        purpose: Purpose,
    ) -> Result<(), SandboxError> {
        let found = self.boxes.get(&id).ok_or(SandboxError::NoSuchSandbox { id })?;
        self.is_upper_free(id, found)?;
        let (report, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| SandboxError::setup("a pipe", error))?;
        let (pid, pidfd) = self.fork_into(found, job, stdio, &theirs)?;
        self.watch(pidfd.as_fd(), Source::Job, id)
            .map_err(|error| SandboxError::setup("watching a program", error))?;
        let host = host_pid(&pidfd);
        let started = Instant::now();
        let limit = timeout_ms.map(|ms| Duration::from_millis(ms.min(TIMEOUT_MS_MAX)));
        let running = Running {
            seq,
            purpose,
            pid,
            pidfd,
            report,
            started,
            deadline: limit.map(|limit| started + limit),
            ended: None,
            timed_out: false,
            limit: None,
            sample_at: started + sample::EVERY,
            sampler: None,
            killers: Vec::new(),
        };
        let found = self.boxes.get_mut(&id).expect("it was found above");
        found.job = Some(running);
        if purpose == Purpose::Asked {
            self.answer(seq, Ok(Answer::Started { pid: host }));
            self.spare_at = if self.spare_beside { Some(started) } else { self.spare_at };
        }
        Ok(())
    }

    /// The kernel would mount one upper twice, and then nobody knows what is in it.
    fn is_upper_free(&self, id: u64, found: &Sandboxed) -> Result<(), SandboxError> {
        let others =
            self.boxes.iter().filter(|(other, found)| **other != id && found.job.is_some());
        let mut used = others.flat_map(|(_, other)| other.spec.trees.uppers());
        match used.find(|used| found.spec.trees.uppers().any(|upper| upper == *used)) {
            Some(upper) => Err(SandboxError::UpperInUse { upper: upper.display().to_string() }),
            None => Ok(()),
        }
    }

    /// Forks a child that is born in the sandbox's pid namespace.
    fn fork_into(
        &self,
        found: &Sandboxed,
        job: Job,
        stdio: &[OwnedFd; 3],
        report: &OwnedFd,
    ) -> Result<(Pid, OwnedFd), SandboxError> {
        let wrap = |error| SandboxError::setup("starting a program", error);
        let entry = Entry {
            mode: self.mode,
            namespaces: &found.namespaces,
            trees: &found.spec.trees,
            root: found.spec.root.as_ref(),
            rules: &found.spec.rules,
            limits: &found.spec.limits,
            strength: found.facts.limits,
            landlock_abi: self.landlock_abi,
            tasks: found.cgroup.as_ref().map_or(&[], |cgroup| &cgroup.tasks),
            stdio: [stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd()],
            report: report.as_fd(),
            outside: &self.outside,
            weakened: &self.hello.weakened,
        };
        self.children_in(found.namespaces[init::PID_NAMESPACE].as_fd()).map_err(wrap)?;
        let forked = sys::fork(0, found.cgroup.as_ref().and_then(Cgroup::start_in));
        if let Ok(Forked::Child) = forked {
            entry.run(job)
        }
        self.children_in(self.own.as_fd()).map_err(wrap)?;
        match forked.map_err(wrap)? {
            Forked::Parent { pid, pidfd } => {
                Ok((Pid::from_raw(pid).expect("a child has a pid"), pidfd))
            }
            Forked::Child => unreachable!("the child never comes here"),
        }
    }

    /// Sets the pid namespace our next children are born in.
    fn children_in(&self, namespace: std::os::fd::BorrowedFd<'_>) -> std::io::Result<()> {
        if self.hello.weakened.lacks(Weaken::Processes) {
            return Ok(());
        }
        sys::setns(namespace, libc::CLONE_NEWPID)
    }

    fn kill_all(&mut self, seq: u64, id: u64) -> Result<(), SandboxError> {
        let found = self.find(id)?;
        // A program that is still on its way in may not be init's to kill yet; it is ours.
        if let Some(job) = found.job.as_mut() {
            job.kill();
            job.killers.push(seq);
            return Ok(());
        }
        found.killing.push_back(Killing::Asked(seq));
        rustix::io::write(&found.control, &[init::KILL])
            .map(drop)
            .map_err(|error| SandboxError::setup("telling init", error))
    }

    /// Init says something: that it is ready, that it has killed, or why it could not be built.
    pub(super) fn on_control(&mut self, id: u64) {
        let Some(found) = self.boxes.get_mut(&id) else {
            return;
        };
        let mut buffer = [0; REPORT_BYTES_MAX];
        let packet = match crate::wire::receive(&found.control, &mut buffer) {
            Ok(Some(packet)) => packet,
            Err(rustix::io::Errno::AGAIN) => return,
            // The end itself is seen by init's descriptor.
            _ => {
                let _ = rustix::event::epoll::delete(&self.epoll, &found.control);
                return;
            }
        };
        if packet.fds.len() >= init::NAMESPACES.len() {
            found.namespaces = packet.fds;
            found.listeners = found.namespaces.split_off(init::NAMESPACES.len());
        }
        let first = packet.bytes[0];
        if found.namespaces.is_empty() && first != init::READY && first != init::KILLED {
            let error = crate::wire::decode(&packet.bytes);
            found.failed = Some(error.unwrap_or_else(|error| error));
            return;
        }
        for byte in packet.bytes {
            match byte {
                init::READY => self.built(id),
                init::KILLED => self.killed(id),
                _ => {}
            }
        }
    }

    pub(super) fn built(&mut self, id: u64) {
        let Some(found) = self.boxes.get_mut(&id) else {
            return;
        };
        let Some(seq) = found.building else { return };
        if found.spec.rules.is_trivial() {
            self.announce(id);
            return;
        }
        let proof = std::fs::File::open("/dev/null").and_then(|null| {
            let null = OwnedFd::from(null);
            Ok([null.try_clone()?, null.try_clone()?, null])
        });
        let started =
            proof.map_err(|error| SandboxError::setup("streams", error)).and_then(|null| {
                let limit = Some(FILE_OP_MS_MAX);
                self.start_job(seq, id, Job::Check, &null, limit, Purpose::Proof)
            });
        if let Err(error) = started
            && let Some(found) = self.boxes.get_mut(&id)
        {
            found.failed = Some(error);
            found.kill();
        }
    }

    fn announce(&mut self, id: u64) {
        let found = self.boxes.get_mut(&id).expect("callers have found it");
        let seq = found.building.take().expect("announced once");
        let sandbox = Sandbox { id: SandboxId(id), facts: found.facts.clone() };
        let listeners = std::mem::take(&mut found.listeners);
        self.answer_with(seq, Ok(Answer::Created(sandbox)), listeners);
    }

    fn killed(&mut self, id: u64) {
        let Some(found) = self.boxes.get_mut(&id) else {
            return;
        };
        match found.killing.pop_front() {
            Some(Killing::Asked(seq)) => self.answer(seq, Ok(Answer::Done)),
            Some(Killing::AfterJob) => self.finish_job(id),
            None => {}
        }
    }

    /// The main process of a job has ended: everything else in the sandbox follows.
    pub(super) fn on_job_end(&mut self, id: u64) {
        let Some(found) = self.boxes.get_mut(&id) else {
            return;
        };
        let Some(job) = found.job.as_mut().filter(|job| job.ended.is_none()) else {
            return;
        };
        let Some(status) = ended(job.pid) else { return };
        job.ended = Some(status);
        let _ = rustix::event::epoll::delete(&self.epoll, &job.pidfd);
        if found.init_ended {
            self.bury(id);
            return;
        }
        found.killing.push_back(Killing::AfterJob);
        // If init is gone this fails, and its end is about to be seen.
        let _ = rustix::io::write(&found.control, &[init::KILL]);
    }

    /// Reports a job once nothing of it is left.
    fn finish_job(&mut self, id: u64) {
        let found = self.boxes.get_mut(&id).expect("callers have found it");
        let Some(mut job) = found.job.take() else {
            return;
        };
        let soon = Instant::now() + SPARE_SOON;
        self.spare_at = self.spare_at.map(|at| at.min(soon));
        if let Some(sampler) = job.sampler.take() {
            sampler.end();
        }
        let mut buffer = [0; REPORT_BYTES_MAX];
        let count = rustix::io::read(&job.report, &mut buffer).unwrap_or(0);
        let before = found.hits;
        found.hits = found.cgroup.as_ref().map(Cgroup::hits).unwrap_or_default();
        let hits = found.hits;
        let result = if count > 0 {
            Err(crate::wire::decode(&buffer[..count]).unwrap_or_else(|error| error))
        } else {
            Ok(ExecExit {
                ended: job.ended.expect("a finished job has ended"),
                timed_out: job.timed_out,
                limit: job.limit.or(hits.since(before)),
                took_ms: job.started.elapsed().as_millis() as u64,
            })
        };
        for seq in std::mem::take(&mut job.killers) {
            self.answer(seq, Ok(Answer::Done));
        }
        match (job.purpose, result) {
            (Purpose::Asked, result) => self.answer(job.seq, result.map(Answer::Exited)),
            (Purpose::Proof, Ok(exit)) if exit.ended == Ended::Code(0) => self.announce(id),
            (Purpose::Proof, result) => {
                let ended = result.err();
                let found = self.boxes.get_mut(&id).expect("callers have found it");
                found.failed = Some(ended.unwrap_or_else(|| {
                    SandboxError::setup("proving the path rules", "the proof did not finish")
                }));
                found.kill();
            }
        }
    }

    /// Init has ended, and the kernel has killed everything else inside.
    pub(super) fn on_init_end(&mut self, id: u64) {
        let Some(found) = self.boxes.get_mut(&id) else {
            return;
        };
        if ended(found.init_pid).is_none() {
            return;
        }
        found.init_ended = true;
        let _ = rustix::event::epoll::delete(&self.epoll, &found.init);
        if found.job.as_ref().is_none_or(|job| job.ended.is_some()) {
            self.bury(id);
        }
    }

    /// Init and job are reaped: answers whoever waits, and forgets the sandbox.
    fn bury(&mut self, id: u64) {
        self.finish_job(id);
        let mut gone = self.boxes.remove(&id).expect("callers have found it");
        if self.spare == Some(id) {
            self.spare = None;
        }
        self.lingering.extend(gone.cgroup.take());
        self.sweep();
        // With the last descriptors go the namespaces, and with them the mounts.
        gone.namespaces.clear();
        let now = Instant::now();
        self.buried = Some(now);
        self.spare_at = self.spare_at.map(|_| now);
        if let Some(seq) = gone.building {
            let unknown = || SandboxError::setup("starting init", "it ended early");
            self.answer(seq, Err(gone.failed.take().unwrap_or_else(unknown)));
        }
        for killing in gone.killing {
            if let Killing::Asked(seq) = killing {
                self.answer(seq, Ok(Answer::Done));
            }
        }
        for seq in gone.destroying {
            self.answer(seq, Ok(Answer::Done));
        }
    }

    /// The next time at which something is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let jobs = self.boxes.values().filter_map(|found| found.job.as_ref());
        jobs.filter(|job| job.ended.is_none())
            .flat_map(|job| {
                let sample = job.sampler.is_none().then_some(job.sample_at);
                [job.deadline.filter(|_| !job.timed_out), sample]
            })
            .flatten()
            .chain(self.spare_at)
            .min()
    }

    /// Ends what is out of time and looks at what is due to be looked at.
    pub(super) fn on_time(&mut self) {
        let now = Instant::now();
        let mut samples = Vec::new();
        for (id, found) in &mut self.boxes {
            let Some(job) = found.job.as_mut().filter(|job| job.ended.is_none()) else {
                continue;
            };
            if job.deadline.is_some_and(|at| at <= now) && !job.timed_out {
                job.timed_out = true;
                job.kill();
            }
            if job.sampler.is_none() && job.sample_at <= now {
                samples.push(*id);
            }
        }
        for id in samples {
            self.start_sample(id);
        }
    }
}
