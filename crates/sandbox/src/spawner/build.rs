//! Building sandboxes: from a request to an init that is ready.
//!
//! Most sandboxes differ only in what their programs see later, so one init is kept in store: it is
//! made when nobody waits for us, given to the next request, and used once.

use super::boxes::Sandboxed;
use super::{SANDBOXES_MAX, Source, Spawner};
use crate::SandboxError;
use crate::cgroup::Hits;
use crate::init::{self, InitPlan};
use crate::mode::Mode;
use crate::spec::{CreateSpec, Facts, HOST_ID_AS_ROOT, Overlay, Strength};
use crate::sys::{self, Forked};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::Pid;
use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};
use types::manifest::LimitsStrength;

/// How long after a request the next init is made, unless its sandbox is gone earlier: until then
/// its first program is still starting, and both would wait for the same locks.
const SPARE_AFTER: Duration = Duration::from_millis(5);

impl Spawner {
    pub(super) fn create(&mut self, seq: u64, spec: CreateSpec) -> Result<(), SandboxError> {
        spec.check()?;
        if self.boxes.len() >= SANDBOXES_MAX {
            return Err(SandboxError::TooMany {
                what: "the number of live sandboxes".to_owned(),
                max: SANDBOXES_MAX as u64,
            });
        }
        let strength = self.cgroups.strength();
        if strength == Strength::Watched && spec.limits_strength == LimitsStrength::Kernel {
            return Err(SandboxError::LimitsStrength { why: self.cgroups.why_not.clone() });
        }
        self.sweep();
        let id = match self.spare.filter(|_| is_plain(&spec)) {
            Some(id) => id,
            None => self.fork_init(spec.clone())?,
        };
        let found = self.boxes.get_mut(&id).expect("it is live");
        if let Some(cgroup) = &found.cgroup
            && let Err(error) = self.cgroups.limit(cgroup, &spec.limits)
        {
            found.kill();
            return Err(SandboxError::setup("a cgroup's limits", error));
        }
        found.spec = spec;
        found.building = Some(seq);
        let now = Instant::now();
        self.spare_at.get_or_insert(now + SPARE_AFTER);
        // Lives that follow each other at once would wait for each next init: it is made beside
        // the program then, which takes longer for it, and less than both in turn.
        self.spare_beside = self.buried.is_some_and(|at| now.duration_since(at) < SPARE_AFTER);
        if self.spare == Some(id) {
            self.spare = None;
            if self.boxes.get(&id).is_some_and(|found| !found.namespaces.is_empty()) {
                self.built(id);
            }
        }
        Ok(())
    }

    /// Makes the init that the next request will get, if there is none.
    pub(super) fn refill(&mut self) {
        self.spare_at = None;
        self.spare_beside = false;
        if self.spare.is_none() && self.boxes.len() < SANDBOXES_MAX {
            // Without one, the next request makes its own and says what is wrong.
            self.spare = self.fork_init(plain()).ok();
        }
    }

    /// Starts an init with a cgroup; it says when it is ready.
    fn fork_init(&mut self, spec: CreateSpec) -> Result<u64, SandboxError> {
        let id = self.next_id;
        self.next_id += 1;
        let cgroup = self.cgroups.make(id);
        let cgroup = cgroup.map_err(|error| SandboxError::setup("a cgroup", error))?;
        match self.fork_init_as(id, spec) {
            Ok(sandboxed) => {
                self.boxes.insert(id, Sandboxed { cgroup, ..sandboxed });
                Ok(id)
            }
            Err(error) => {
                self.lingering.extend(cgroup);
                Err(error)
            }
        }
    }

    fn fork_init_as(&self, id: u64, spec: CreateSpec) -> Result<Sandboxed, SandboxError> {
        let wrap = |error: rustix::io::Errno| SandboxError::setup("starting init", error);
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(wrap)?;
        let mut machine_id = [0; 16];
        getrandom::fill(&mut machine_id).map_err(|error| SandboxError::setup("random", error))?;
        let weakened = &self.hello.weakened;
        let plan = InitPlan { mode: self.mode, spec: &spec, machine_id, weakened };
        // It makes its other namespaces itself: we have one thread, for which everybody waits.
        let forked = sys::fork(libc::CLONE_NEWPID as u64, None)
            .map_err(|error| SandboxError::setup("new namespaces", error))?;
        let Forked::Parent { pid, pidfd } = forked else { init::run(&plan, theirs) };
        drop(theirs);
        self.watch(ours.as_fd(), Source::Control, id).map_err(wrap)?;
        self.watch(pidfd.as_fd(), Source::Init, id).map_err(wrap)?;
        Ok(Sandboxed {
            facts: self.facts(),
            spec,
            init_pid: Pid::from_raw(pid).expect("a child has a pid"),
            init: pidfd,
            control: ours,
            namespaces: Vec::new(),
            listeners: Vec::new(),
            cgroup: None,
            hits: Hits::default(),
            building: None,
            failed: None,
            job: None,
            killing: VecDeque::new(),
            destroying: Vec::new(),
            init_ended: false,
        })
    }

    fn facts(&self) -> Facts {
        Facts {
            driver: "process".to_owned(),
            limits: self.cgroups.strength(),
            landlock_abi: self.landlock_abi,
            host_uid: match self.mode {
                Mode::Root => HOST_ID_AS_ROOT,
                Mode::User => self.uid,
            },
            redirect_dir: self.mode == Mode::Root,
        }
    }
}

/// What the init in store is built for: everything init looks at is as by default.
fn plain() -> CreateSpec {
    CreateSpec::new(Overlay {
        lowers: Vec::new(),
        upper: "/".into(),
        work: "/".into(),
        grown_bytes: 0,
    })
}

/// Whether the init in store will do. Mounts inside the workspace are made later.
fn is_plain(spec: &CreateSpec) -> bool {
    let plain = plain();
    let mut mounts = spec.rules.mounts.iter();
    spec.name == plain.name
        && spec.scratch_bytes == plain.scratch_bytes
        && spec.root.is_none()
        && mounts.all(|mount| crate::enter::in_workspace(&mount.path))
}
