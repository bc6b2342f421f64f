//! The process driver end to end: build, run, bound, kill, leave nothing.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use sandbox::layers::{LayerStore, Upper};
use sandbox::*;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use types::Coded;
use types::manifest::{Limits, LimitsStrength};

const HARNESS: &str = env!("CARGO_BIN_EXE_sandbox-harness");

struct World {
    home: tempfile::TempDir,
    store: LayerStore,
    spawner: Spawner,
    upper: Upper,
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = LayerStore::open(home.path()).unwrap();
        let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default()).await.unwrap();
        let upper = store.begin(&store.empty().unwrap()).unwrap();
        Self { home, store, spawner, upper }
    }

    fn spec(&self) -> CreateSpec {
        CreateSpec::new(self.upper.overlay())
    }

    async fn make(&self) -> SandboxId {
        self.spawner.create(self.spec()).await.unwrap().id
    }

    async fn run(&self, id: &SandboxId, spec: ExecSpec) -> Result<Finished, SandboxError> {
        self.spawner.exec(id, spec).await?.finish().await
    }

    async fn shell(&self, id: &SandboxId, command: &str) -> String {
        let done = self.run(id, ExecSpec::shell(command)).await.unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    }
}

fn limited(memory_mib: u64, processes: u32, disk_mib: u64) -> Limits {
    Limits {
        memory_bytes: memory_mib << 20,
        processes,
        disk_bytes: disk_mib << 20,
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_program_sees_a_machine_of_its_own() {
    let world = World::new().await;
    let made = world.spawner.create(world.spec()).await.unwrap();
    assert!(made.facts.landlock_abi >= 2 && made.facts.host_uid != 0);
    let id = made.id;
    assert_eq!(
        world.shell(&id, "id -u; id -g; id -un; pwd; hostname; cat /etc/hostname").await,
        "1000\n1000\nagent\n/workspace\nbedplate\nbedplate\n"
    );
    assert_eq!(
        world.shell(&id, "env | sort").await,
        "HOME=/home/agent\nLANG=C.UTF-8\nPATH=/usr/local/bin:/usr/bin:/bin\nPWD=/workspace\nUSER=agent\n"
    );
    assert_eq!(
        world
            .shell(&id, "grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status | cut -f2 | sort -u")
            .await,
        "0000000000000000\n1\n2\n"
    );
    assert_eq!(
        world.shell(&id, "set -- /proc/[0-9]*; echo $#; ls -A /sys").await,
        "2\n.denied\n.denied-file\n"
    );
    assert_eq!(
        world.shell(&id, "echo a > f; echo b >> f; cat f; echo ok > /tmp/t; echo ok > ~/h").await,
        "a\nb\n"
    );
    // Scratch lives as long as the sandbox, beside the workspace.
    assert_eq!(
        world.shell(&id, "cat /tmp/t ~/h; wc -c /etc/machine-id | cut -d' ' -f1").await,
        "ok\nok\n33\n"
    );
    assert_eq!(world.shell(&id, "python3 -c 'import socket; print(socket.gethostbyname(\"localhost\"), [i[1] for i in socket.if_nameindex()])'").await,
        "127.0.0.1 ['lo']\n");
    let code = "import os, pty; a, b = pty.openpty(); print(os.ttyname(b))";
    assert_eq!(world.shell(&id, &format!("python3 -c '{code}'")).await, "/dev/pts/0\n");
    world.spawner.close().await;
}

#[tokio::test]
async fn ends_are_told_apart() {
    let world = World::new().await;
    let id = world.make().await;
    let ended =
        async |command: &str| world.run(&id, ExecSpec::shell(command)).await.unwrap().exit.ended;
    assert_eq!(ended("exit 3").await, Ended::Code(3));
    assert_eq!(ended("kill -9 $$").await, Ended::Signal(9));
    assert_eq!(Ended::Signal(9).status(), 137);
    let missing = world.run(&id, ExecSpec::new(["no-such-program"])).await.unwrap_err();
    assert_eq!(missing.code(), "BP-SANDBOX-017");
    let data = world.run(&id, ExecSpec::new(["/etc/passwd"])).await.unwrap_err();
    assert_eq!(data.code(), "BP-SANDBOX-018");
    let nowhere = ExecSpec { cwd: Some("/nowhere".to_owned()), ..ExecSpec::shell("true") };
    assert_eq!(world.run(&id, nowhere).await.unwrap_err().code(), "BP-SANDBOX-023");
    assert_eq!(world.run(&id, ExecSpec::default()).await.unwrap_err().code(), "BP-SANDBOX-024");
    let nul = ExecSpec::new(["echo", "a\0b"]);
    assert_eq!(world.run(&id, nul).await.unwrap_err().code(), "BP-SANDBOX-024");
    let long = ExecSpec::new(["echo".to_owned(), "x".repeat(200 << 10)]);
    assert_eq!(world.run(&id, long).await.unwrap_err().code(), "BP-SANDBOX-003");
    // After all that it still works.
    assert_eq!(world.shell(&id, "echo fine").await, "fine\n");
    world.spawner.close().await;
}

#[tokio::test]
async fn streams_are_tagged_bounded_and_fed() {
    let world = World::new().await;
    let id = world.make().await;
    let spec =
        ExecSpec { stdin: Stdin::Bytes(b"hello".to_vec()), ..ExecSpec::shell("cat; echo err >&2") };
    let done = world.run(&id, spec).await.unwrap();
    assert_eq!((done.stdout.as_slice(), done.stderr.as_slice()), (&b"hello"[..], &b"err\n"[..]));
    // A program that does not read its input is no error.
    let spec = ExecSpec { stdin: Stdin::Bytes(vec![0; 1 << 20]), ..ExecSpec::shell("exit 5") };
    assert_eq!(world.run(&id, spec).await.unwrap().exit.ended, Ended::Code(5));
    let spec = ExecSpec {
        output_bytes_max: 1000,
        ..ExecSpec::shell("head -c 5000 /dev/zero; head -c 700 /dev/zero >&2")
    };
    let done = world.run(&id, spec).await.unwrap();
    assert_eq!(done.stdout.len() + done.stderr.len(), 1000);
    assert_eq!(done.dropped_bytes, 4700);
    // A pipe of the caller's, and output as it comes.
    let spec = ExecSpec { stdin: Stdin::Pipe, ..ExecSpec::new(["cat"]) };
    let mut running = world.spawner.exec(&id, spec).await.unwrap();
    let mut stdin = running.take_stdin().unwrap();
    for word in ["one", "two"] {
        tokio::io::AsyncWriteExt::write_all(&mut stdin, word.as_bytes()).await.unwrap();
        let chunk = running.next().await.unwrap();
        assert_eq!((chunk.stream, chunk.bytes.as_slice()), (Stream::Stdout, word.as_bytes()));
    }
    drop(stdin);
    assert!(running.next().await.is_none());
    assert_eq!(running.exit().await.unwrap().ended, Ended::Code(0));
    world.spawner.close().await;
}

#[tokio::test]
async fn a_callers_own_streams_are_used_directly() {
    let world = World::new().await;
    let id = world.make().await;
    let out = tempfile::tempfile().unwrap();
    let input = std::fs::File::open("/dev/null").unwrap();
    let fds = [
        std::os::fd::AsFd::as_fd(&input),
        std::os::fd::AsFd::as_fd(&out),
        std::os::fd::AsFd::as_fd(&out),
    ];
    let mut running = world
        .spawner
        .exec_with(&id, ExecSpec::shell("echo direct; ls -l /proc/self/fd | wc -l"), fds)
        .await
        .unwrap();
    assert_eq!(running.exit().await.unwrap().ended, Ended::Code(0));
    let text = std::io::read_to_string({
        let mut f = out;
        std::io::Seek::rewind(&mut f).unwrap();
        f
    })
    .unwrap();
    // Three streams, the directory itself, and the line `total`.
    assert_eq!(text, "direct\n5\n");
    world.spawner.close().await;
}

#[tokio::test]
async fn time_limits_and_the_end_take_everything_along() {
    let world = World::new().await;
    let id = world.make().await;
    let background = "(trap '' TERM; setsid sleep 60 >/dev/null 2>&1 &) ; ";
    let spec =
        ExecSpec { timeout_ms: Some(100), ..ExecSpec::shell(&format!("{background} sleep 60")) };
    let done = world.run(&id, spec).await.unwrap();
    assert_eq!((done.exit.ended, done.exit.timed_out), (Ended::Signal(9), true));
    assert!(done.exit.took_ms >= 100);
    // Init and the shell.
    let alone = "set -- /proc/[0-9]*; echo $#";
    assert_eq!(world.shell(&id, alone).await, "2\n");
    assert_eq!(world.shell(&id, &format!("{background} true")).await, "");
    assert_eq!(world.shell(&id, alone).await, "2\n");
    // kill_all, and a dropped handle.
    let mut running = world.spawner.exec(&id, ExecSpec::new(["sleep", "60"])).await.unwrap();
    world.spawner.kill_all(&id).await.unwrap();
    assert_eq!(running.exit().await.unwrap().ended, Ended::Signal(9));
    drop(world.spawner.exec(&id, ExecSpec::new(["sleep", "60"])).await.unwrap());
    assert_eq!(world.shell(&id, alone).await, "2\n");
    world.spawner.close().await;
}

#[tokio::test]
async fn limits_are_enforced_and_named() {
    let world = World::new().await;
    let spec = CreateSpec { limits: limited(64, 20, 16), scratch_bytes: 8 << 20, ..world.spec() };
    let made = world.spawner.create(spec).await.unwrap();
    let id = made.id;
    let hog = "python3 -c 'x = bytearray(200 << 20); print(len(x))'";
    let done = world.run(&id, ExecSpec::shell(hog)).await.unwrap();
    assert_ne!(done.exit.ended, Ended::Code(0), "{done:?}");
    if made.facts.limits != Strength::Watched {
        assert_eq!(done.exit.limit, Some(LimitHit::Memory), "{done:?}");
    }
    // Many small ones together.
    let many = "for i in 1 2 3 4 5 6 7 8; do python3 -c 'import time; x = bytearray(20 << 20); time.sleep(60)' & done; wait";
    let spec = ExecSpec { timeout_ms: Some(60_000), ..ExecSpec::shell(many) };
    let done = world.run(&id, spec).await.unwrap();
    assert_eq!((done.exit.limit, done.exit.timed_out), (Some(LimitHit::Memory), false), "{done:?}");
    let forks = "for i in $(seq 40); do sleep 60 & done; set -- /proc/[0-9]*; echo $#";
    let done = world.run(&id, ExecSpec::shell(forks)).await.unwrap();
    let count: u32 = String::from_utf8_lossy(&done.stdout).trim().parse().unwrap_or(0);
    assert!(count <= 21, "{done:?}");
    let fill = "i=0; while :; do head -c 4M /dev/zero > f$i; i=$((i+1)); done";
    let spec = ExecSpec { timeout_ms: Some(60_000), ..ExecSpec::shell(fill) };
    let done = world.run(&id, spec).await.unwrap();
    assert_eq!((done.exit.limit, done.exit.timed_out), (Some(LimitHit::Disk), false));
    let one =
        world.run(&id, ExecSpec::shell("rm -f f*; head -c 17M /dev/zero > big")).await.unwrap();
    assert_ne!(one.exit.ended, Ended::Code(0));
    let said = world.shell(&id, "rm -f *; head -c 9M /dev/zero > /tmp/x").await;
    assert!(said.contains("No space left"), "{said}");
    world.spawner.close().await;
}

#[tokio::test]
async fn watched_limits_are_refused_when_the_kernel_is_demanded() {
    let world = World::new().await;
    let spec = CreateSpec { limits_strength: LimitsStrength::Kernel, ..world.spec() };
    let strength = world.spawner.create(world.spec()).await.unwrap().facts.limits;
    match world.spawner.create(spec).await {
        Ok(made) => assert_ne!(made.facts.limits, Strength::Watched),
        Err(error) => {
            assert_eq!(error.code(), "BP-SANDBOX-008");
            assert_eq!(strength, Strength::Watched);
        }
    }
    world.spawner.close().await;
}

#[tokio::test]
async fn bad_requests_are_refused_before_anything_is_built() {
    let world = World::new().await;
    let good = world.spec();
    let many = Overlay {
        lowers: vec![PathBuf::from("/x"); STACK_MAX + 1],
        ..good.trees.workspace.clone()
    };
    let gone = Overlay { lowers: vec![PathBuf::from("/nowhere")], ..good.trees.workspace.clone() };
    let on_proc =
        Overlay { upper: "/proc".into(), work: "/proc".into(), ..good.trees.workspace.clone() };
    let rules = |path: &str| FsRules { deny_read: vec![path.to_owned()], ..FsRules::default() };
    let cases = [
        (CreateSpec { name: "Bad Name".to_owned(), ..good.clone() }, "BP-SANDBOX-024"),
        (CreateSpec { limits: limited(1, 1, 1), ..good.clone() }, "BP-SANDBOX-024"),
        (CreateSpec::new(many), "BP-SANDBOX-010"),
        (CreateSpec { rules: rules("/etc/passwd"), ..good.clone() }, "BP-SANDBOX-012"),
        (CreateSpec { rules: rules("/workspace/../etc"), ..good.clone() }, "BP-SANDBOX-012"),
        (CreateSpec { rules: rules("/workspace"), ..good.clone() }, "BP-SANDBOX-012"),
    ];
    for (spec, code) in cases {
        let error = world.spawner.create(spec).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(!error.next().is_empty());
    }
    let id = world.make().await;
    for overlay in [gone, on_proc] {
        let spec = ExecSpec { trees: Some(overlay.into()), ..ExecSpec::shell("true") };
        assert_eq!(world.run(&id, spec).await.unwrap_err().code(), "BP-SANDBOX-005");
    }
    let unknown = SandboxId(999);
    assert_eq!(
        world.run(&unknown, ExecSpec::shell("true")).await.unwrap_err().code(),
        "BP-SANDBOX-009"
    );
    assert_eq!(world.spawner.kill_all(&unknown).await.unwrap_err().code(), "BP-SANDBOX-009");
    // Destroying what is not there is no error: destroy works from every state.
    world.spawner.destroy(&unknown).await.unwrap();
    world.spawner.destroy(&id).await.unwrap();
    assert_eq!(world.run(&id, ExecSpec::shell("true")).await.unwrap_err().code(), "BP-SANDBOX-009");
    world.spawner.close().await;
}

#[tokio::test]
async fn a_spawner_that_cannot_start_says_so() {
    for exe in ["/nowhere/bedplate", "/bin/true"] {
        let error = Spawner::start(Path::new(exe), SpawnerConfig::default()).await.unwrap_err();
        assert_eq!(error.code(), "BP-SANDBOX-001", "{error}");
    }
}

#[tokio::test]
async fn many_sandboxes_at_once() {
    let world = World::new().await;
    let base = world.store.empty().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..150 {
        let upper = world.store.begin(&base).unwrap();
        let spawner = world.spawner.clone();
        tasks.spawn(async move {
            let made = spawner.create(CreateSpec::new(upper.overlay())).await.unwrap();
            let spec = ExecSpec::shell(&format!("echo {number} > n; cat n"));
            let done = spawner.exec(&made.id, spec).await.unwrap().finish().await.unwrap();
            assert_eq!(done.stdout, format!("{number}\n").into_bytes());
            (made.id, upper)
        });
    }
    let live = tasks.join_all().await;
    let mut machines = std::collections::BTreeSet::new();
    for (id, _) in &live {
        machines.insert(world.shell(id, "cat /etc/machine-id").await);
    }
    assert_eq!(machines.len(), live.len(), "each is a machine of its own");
    for (id, upper) in live {
        world.spawner.destroy(&id).await.unwrap();
        world.store.discard(upper).unwrap();
    }
    world.spawner.close().await;
}

/// What of a spawner is still there: cgroups and mounts.
fn left_behind(spawner: u32) -> Vec<String> {
    let mut left = Vec::new();
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (names, path) = (parts.next().unwrap(), parts.next().unwrap());
        for dir in [format!("/sys/fs/cgroup/{names}{path}"), format!("/sys/fs/cgroup{path}")] {
            let mine = format!("bedplate-{spawner}-");
            let entries = std::fs::read_dir(&dir).into_iter().flatten().flatten();
            let named = entries.filter(|e| e.file_name().to_string_lossy().starts_with(&mine));
            left.extend(named.map(|entry| entry.path().display().to_string()));
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    left.extend(mounts.lines().filter(|line| line.contains(" overlay ")).map(str::to_owned));
    left
}

/// Waits until a process is gone, zombies included.
fn wait_gone(pid: i32) {
    let Some(pid) = rustix::process::Pid::from_raw(pid) else {
        return;
    };
    if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::time::Timespec { tv_sec: 20, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&limit)), Ok(1), "{pid:?} lives on");
    }
}

#[tokio::test]
async fn a_killed_spawner_fails_every_call_and_leaves_nothing() {
    let world = World::new().await;
    let made = world.spawner.create(world.spec()).await.unwrap();
    let id = made.id;
    let mut running = world.spawner.exec(&id, ExecSpec::new(["sleep", "60"])).await.unwrap();
    let (spawner, program) = (world.spawner.pid(), running.pid());
    assert!(program > 0 && Path::new(&format!("/proc/{program}")).exists());
    let (waiting, other) = (world.spawner.clone(), id);
    let waiter =
        tokio::spawn(async move { waiting.exec(&other, ExecSpec::shell("true")).await.map(drop) });
    tokio::task::yield_now().await;
    if made.facts.limits != Strength::Watched {
        assert_ne!(left_behind(spawner), Vec::<String>::new(), "what is looked for is there now");
    }
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(spawner as i32).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    let limit = Duration::from_secs(20);
    let gone = tokio::time::timeout(limit, running.exit()).await.unwrap().unwrap_err();
    assert_eq!(gone.code(), "BP-SANDBOX-002");
    let code = tokio::time::timeout(limit, waiter).await.unwrap().unwrap().unwrap_err().code();
    assert!(["BP-SANDBOX-002", "BP-SANDBOX-009"].contains(&code), "{code}");
    assert_eq!(world.spawner.create(world.spec()).await.unwrap_err().code(), "BP-SANDBOX-002");
    world.spawner.close().await;
    wait_gone(program);
    assert_eq!(left_behind(spawner), Vec::<String>::new());
    // And the upper can be used again.
    let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default()).await.unwrap();
    let made = spawner.create(CreateSpec::new(world.upper.overlay())).await.unwrap();
    let done =
        spawner.exec(&made.id, ExecSpec::shell("echo back")).await.unwrap().finish().await.unwrap();
    assert_eq!(done.stdout, b"back\n");
    spawner.close().await;
}

#[tokio::test]
async fn a_killed_owner_takes_its_sandboxes_along() {
    let home = tempfile::tempdir().unwrap();
    let mut owner = Command::new(HARNESS)
        .args(["owner", home.path().to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let pids: Vec<i32> = line.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
    owner.kill().unwrap();
    owner.wait().unwrap();
    for pid in &pids {
        wait_gone(*pid);
    }
    let store = LayerStore::open(home.path()).unwrap();
    assert_eq!(store.reap_uppers().unwrap(), 1);
    // The spawner cleans up before it ends; what a spawner killed together with its owner left is
    // removed by the next one.
    let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default()).await.unwrap();
    spawner.close().await;
    assert_eq!(left_behind(pids[0] as u32), Vec::<String>::new());
}

#[tokio::test]
async fn closing_leaves_no_process_cgroup_or_mount() {
    let world = World::new().await;
    let (a, b) = (world.make().await, world.make().await);
    let mut running = world.spawner.exec(&a, ExecSpec::new(["sleep", "60"])).await.unwrap();
    let program = running.pid();
    world.spawner.destroy(&b).await.unwrap();
    let spawner = world.spawner.pid();
    world.spawner.clone().close().await;
    assert_eq!(running.exit().await.unwrap_err().code(), "BP-SANDBOX-002");
    for pid in [program, spawner as i32] {
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
    assert_eq!(left_behind(spawner), Vec::<String>::new());
    assert!(world.home.path().exists());
}

#[test]
fn the_gate_can_reach_the_network_and_nothing_else() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let said = Command::new(HARNESS).args(["gate", &port]).output().unwrap();
    let text = String::from_utf8(said.stdout).unwrap();
    let expected = "confined yes\nconnect yes\nresolve yes\nthread yes\nread-passwd no\nlist-root no\nproc no\n\
                    write no\nexec no\nunix-socket no\nsignal-owner no\nroot no\ncapable no\n";
    assert_eq!(text, expected);
    assert!(said.status.success());
}

#[tokio::test]
async fn the_doctors_probes_agree_with_what_works_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("new-home");
    let probes = probe(Path::new(HARNESS), &home).await;
    for probe in &probes {
        assert_eq!(probe.ok, probe.recipe.is_empty(), "{probe:?}");
        assert!(probe.ok || !probe.required, "{probe:?}");
        assert!(!probe.detail.is_empty());
    }
    assert!(!home.exists());
    // What is broken is named with its recipe.
    let broken = probe(Path::new("/bin/true"), &home).await;
    let whole = broken.iter().find(|probe| probe.name == "a whole sandbox").unwrap();
    assert!(!whole.ok && whole.detail.starts_with("BP-SANDBOX-001") && !whole.recipe.is_empty());
}
