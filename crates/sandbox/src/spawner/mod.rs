//! The spawner process: small, single-threaded, started by re-exec, ends with its owner.
//!
//! ```text
//!   Building --ready--> Idle --exec--> Busy --main ended--> Clearing --init says done--> Idle
//!      |                  |              |                     |
//!      +------ failed ----+----- destroy, or init died --------+--> Dying --all reaped--> gone
//! ```
//!
//! It never waits for a single thing: one epoll loop, deadlines included. It reads frames of the
//! owner and single bytes of its inits, nothing else. End of file on the owner's socket ends it
//! and everything it started.

mod boxes;
mod build;
mod sample;

use crate::SandboxError;
use crate::base;
use crate::cgroup::{Cgroup, Cgroups};
use crate::confine;
use crate::mode::Mode;
use crate::self_probe;
use crate::sys::{self, Forked};
use crate::wire::{self, Answer, AnswerFrame, AskFrame, FRAME_BYTES_MAX, Hello};
use boxes::Sandboxed;
use rustix::event::epoll;
use rustix::process::{DumpableBehavior, PidfdFlags, Resource, Rlimit, Signal};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Live sandboxes of one spawner.
pub const SANDBOXES_MAX: usize = 4096;
/// Answers waiting for a slow owner.
const ANSWERS_MAX: usize = 65_536;
/// How often, and with what pause, to try to remove what is still busy at the end.
const SWEEP_TRIES: u32 = 1000;
const SWEEP_EVERY: rustix::time::Timespec =
    rustix::time::Timespec { tv_sec: 0, tv_nsec: 1_000_000 };
/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 64;
/// The lowest number of the spawner's own descriptors: 0, 1 and 2 lead to /dev/null.
const FD_FIRST: RawFd = 3;

/// What an event is about; the sandbox's number is beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Source {
    Owner = 0,
    Control = 1,
    Init = 2,
    Job = 3,
    Sampler = 4,
}

const SOURCE_SHIFT: u32 = 56;

impl Source {
    const fn token(self, id: u64) -> u64 {
        (self as u64) << SOURCE_SHIFT | id
    }

    const fn of(token: u64) -> Self {
        match token >> SOURCE_SHIFT {
            0 => Self::Owner,
            1 => Self::Control,
            2 => Self::Init,
            3 => Self::Job,
            _ => Self::Sampler,
        }
    }
}

/// The spawner's state.
#[derive(Debug)]
struct Spawner {
    mode: Mode,
    /// Our uid outside any namespace of ours.
    uid: u32,
    landlock_abi: u32,
    /// Our own namespaces, none of which a sandbox may share.
    outside: Vec<String>,
    hello: Hello,
    cgroups: Cgroups,
    socket: OwnedFd,
    epoll: OwnedFd,
    /// Ourselves, to come back to our own pid namespace after each fork into another.
    own: OwnedFd,
    boxes: BTreeMap<u64, Sandboxed>,
    next_id: u64,
    /// An init in store, which no request has got yet.
    spare: Option<u64>,
    /// When to make one.
    spare_at: Option<Instant>,
    /// When a sandbox was last gone.
    buried: Option<Instant>,
    /// Whether to make one as soon as the next program runs.
    spare_beside: bool,
    answers: VecDeque<(Vec<u8>, Vec<OwnedFd>)>,
    /// Cgroups of sandboxes that are gone, still busy when they were to be removed.
    lingering: Vec<Cgroup>,
    /// Whether epoll tells us when the socket takes more.
    waiting: bool,
}

/// The spawner's whole life; called when the program is re-exec'd for it.
///
/// `fd` is the number of an inherited packet socket whose other end the owner holds. The calling
/// process must have one thread.
pub fn spawner_main(fd: RawFd) -> ! {
    let code = match start(fd) {
        Ok(mut spawner) => {
            spawner.serve();
            spawner.end();
            0
        }
        Err(_) => 1,
    };
    sys::exit_now(code)
}

/// Sets the process up and says hello, or says why not.
fn start(fd: RawFd) -> Result<Spawner, SandboxError> {
    let wrap = |error: std::io::Error| SandboxError::setup("starting the spawner", error);
    let socket = adopt(fd).map_err(wrap)?;
    let hello: Hello = greet(&socket)?;
    let made = prepare(hello);
    let answer = |answer| {
        let frame = wire::encode(&AnswerFrame { seq: 0, answer })?;
        wire::send(&socket, &frame, &[]).map_err(|error| wrap(error.into()))
    };
    match made {
        Ok(prepared) => {
            answer(Ok(Answer::Ready { cgroups: prepared.cgroups.paths() }))?;
            prepared.into_spawner(socket)
        }
        Err(error) => {
            answer(Err(error.clone()))?;
            Err(error)
        }
    }
}

/// Takes the inherited socket out of the way of 0, 1 and 2 and closes everything else.
fn adopt(fd: RawFd) -> std::io::Result<OwnedFd> {
    let inherited = sys::take_fd(fd)?;
    let socket = rustix::io::fcntl_dupfd_cloexec(&inherited, FD_FIRST)?;
    std::mem::forget(inherited);
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty())?;
    for number in 0..3 {
        sys::dup_onto(null.as_fd(), number)?;
    }
    drop(null);
    sys::close_all_but(socket.as_fd())?;
    Ok(socket)
}

fn greet(socket: &OwnedFd) -> Result<Hello, SandboxError> {
    let mut wanted = [rustix::event::PollFd::new(socket, rustix::event::PollFlags::IN)];
    let _ = rustix::event::poll(&mut wanted, None);
    let mut buffer = vec![0; FRAME_BYTES_MAX];
    match wire::receive(socket, &mut buffer) {
        Ok(Some(packet)) => wire::decode(&packet.bytes),
        _ => Err(SandboxError::SpawnerGone),
    }
}

/// What is set up before the first answer.
struct Prepared {
    mode: Mode,
    uid: u32,
    landlock_abi: u32,
    hello: Hello,
    cgroups: Cgroups,
}

fn prepare(hello: Hello) -> Result<Prepared, SandboxError> {
    let mode = Mode::here();
    let uid = rustix::process::geteuid().as_raw();
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"bedplate-spawn");
    sys::ignore_terminal_signals();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Each sandbox costs us some descriptors; a soft limit of 1024 would be soon reached.
    let files = rustix::process::getrlimit(Resource::Nofile).maximum;
    let files = Rlimit { current: files, maximum: files };
    let _ = rustix::process::setrlimit(Resource::Nofile, files);
    let landlock_abi =
        sys::landlock_abi().map_err(|error| SandboxError::Landlock { why: error.to_string() })?;
    confine::Fence::new(landlock_abi)?;
    let cgroups = Cgroups::open(mode);
    own_namespaces(mode)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| SandboxError::setup("dumpability", error))?;
    become_first()?;
    base::build(&hello.weakened)?;
    Ok(Prepared { mode, uid, landlock_abi, hello, cgroups })
}

/// Root takes a mount namespace of its own; anybody else first a user namespace, in which it is
/// root over what it makes there.
fn own_namespaces(mode: Mode) -> Result<(), SandboxError> {
    match mode {
        Mode::Root => {
            rustix::thread::set_thread_groups(&[])
                .map_err(|error| SandboxError::setup("dropping groups", error))?;
            sys::unshare(libc::CLONE_NEWNS | libc::CLONE_NEWPID)
                .map_err(|error| SandboxError::setup("namespaces of its own", error))
        }
        Mode::User => {
            let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
            sys::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::CLONE_NEWPID).map_err(
                |error| SandboxError::UserNamespaces { why: format!("the spawner's own: {error}") },
            )?;
            confine::map_ids(&confine::open_proc()?, 0, uid.as_raw(), gid.as_raw())
        }
    }
}

/// Goes on as pid 1 of the pid namespace just made, in a child. However the spawner dies, the
/// kernel then kills every sandbox with it. The parent only waits, and takes the child with it.
fn become_first() -> Result<(), SandboxError> {
    let forked =
        sys::fork(0, None).map_err(|error| SandboxError::setup("a pid namespace", error))?;
    match forked {
        Forked::Child => rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| SandboxError::setup("tying the spawner to its parent", error)),
        Forked::Parent { .. } => {
            // Nothing is closed twice: this process never returns.
            let _ = sys::close_all_above_2();
            sys::wait_for_all();
            sys::exit_now(0)
        }
    }
}

impl Prepared {
    fn into_spawner(self, socket: OwnedFd) -> Result<Spawner, SandboxError> {
        let wrap = |error: rustix::io::Errno| SandboxError::setup("starting the spawner", error);
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(wrap)?;
        let own = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
            .map_err(wrap)?;
        let spawner = Spawner {
            mode: self.mode,
            uid: self.uid,
            landlock_abi: self.landlock_abi,
            outside: self_probe::own_namespaces()?,
            hello: self.hello,
            cgroups: self.cgroups,
            socket,
            epoll,
            own,
            boxes: BTreeMap::new(),
            next_id: 1,
            spare: None,
            spare_at: None,
            buried: None,
            spare_beside: false,
            answers: VecDeque::new(),
            lingering: Vec::new(),
            waiting: false,
        };
        spawner.watch(spawner.socket.as_fd(), Source::Owner, 0).map_err(wrap)?;
        Ok(spawner)
    }
}

impl Spawner {
    fn watch(&self, fd: BorrowedFd<'_>, source: Source, id: u64) -> rustix::io::Result<()> {
        let data = epoll::EventData::new_u64(source.token(id));
        epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)
    }

    /// Until the owner is gone.
    fn serve(&mut self) {
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        self.refill();
        loop {
            let wait = self.next_deadline().map(|at| {
                let left = at.saturating_duration_since(Instant::now());
                rustix::time::Timespec::try_from(left + Duration::from_micros(500))
                    .expect("deadlines are days away at most")
            });
            let mut events = Vec::with_capacity(EVENTS_MAX);
            let spare = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, spare, wait.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            for event in &events {
                let token = event.data.u64();
                let id = token & ((1 << SOURCE_SHIFT) - 1);
                match Source::of(token) {
                    Source::Owner => {
                        if !self.flush() || !self.hear(&mut buffer) {
                            return;
                        }
                    }
                    Source::Control => self.on_control(id),
                    Source::Init => self.on_init_end(id),
                    Source::Job => self.on_job_end(id),
                    Source::Sampler => self.on_sample(id),
                }
            }
            self.on_time();
            if !self.flush() {
                return;
            }
            if self.spare_at.is_some_and(|at| at <= Instant::now()) {
                self.refill();
            }
        }
    }

    /// Takes every waiting frame. False when the owner is gone or talks nonsense.
    fn hear(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            let packet = match wire::receive(&self.socket, buffer) {
                Ok(Some(packet)) => packet,
                Ok(None) => return false,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
                Err(_) => return false,
            };
            let Ok(frame) = wire::decode::<AskFrame>(&packet.bytes) else {
                return false;
            };
            if let Err(error) = self.on_ask(frame.seq, frame.ask, packet.fds) {
                self.answer(frame.seq, Err(error));
            }
        }
    }

    fn answer(&mut self, seq: u64, answer: Result<Answer, SandboxError>) {
        self.answer_with(seq, answer, Vec::new());
    }

    fn answer_with(&mut self, seq: u64, answer: Result<Answer, SandboxError>, fds: Vec<OwnedFd>) {
        let frame = AnswerFrame { seq, answer };
        let bytes = wire::encode(&frame).expect("answers are short");
        self.answers.push_back((bytes, fds));
    }

    /// Sends what waits. False when the owner is gone, or so slow that it may as well be.
    fn flush(&mut self) -> bool {
        while let Some((bytes, fds)) = self.answers.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match wire::send(&self.socket, bytes, &fds) {
                Ok(()) => drop(self.answers.pop_front()),
                Err(rustix::io::Errno::AGAIN) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        let waiting = !self.answers.is_empty();
        if waiting != self.waiting {
            self.waiting = waiting;
            let out = if waiting { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(Source::Owner.token(0));
            let flags = epoll::EventFlags::IN | out;
            if epoll::modify(&self.epoll, &self.socket, data, flags).is_err() {
                return false;
            }
        }
        self.answers.len() < ANSWERS_MAX
    }

    /// Removes the cgroups of sandboxes that are gone. The kernel may need a moment to let go of
    /// the last process; what is still busy is tried again.
    fn sweep(&mut self) {
        let cgroups = &self.cgroups;
        self.lingering.retain(|cgroup| !cgroups.remove(cgroup));
    }

    /// Ends every sandbox, waits for it, and removes what is left outside.
    fn end(mut self) {
        for sandboxed in self.boxes.values() {
            sandboxed.kill();
        }
        sys::wait_for_all();
        let boxes = std::mem::take(&mut self.boxes).into_values();
        self.lingering.extend(boxes.filter_map(|sandboxed| sandboxed.cgroup));
        for _ in 0..SWEEP_TRIES {
            self.sweep();
            if self.lingering.is_empty() {
                break;
            }
            let _ = rustix::event::poll(&mut [], Some(&SWEEP_EVERY));
        }
        self.cgroups.close();
    }
}
