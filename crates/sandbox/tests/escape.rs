//! The escape corpus: every probe raw on the host, then in a sandbox.
//!
//! A probe counts only with its control: raw, as the same user, it must get what it is after.
//! With `--features weakened`, each part of the containment is left out in turn, and the corpus
//! must notice. `cargo test -p bedplate-sandbox --test escape -- --nocapture` prints the matrix.
#![allow(clippy::unwrap_used, reason = "a test may fail")]
#![allow(clippy::print_stdout, reason = "the matrix is for people")]

use sandbox::layers::LayerStore;
use sandbox::*;
use std::collections::BTreeMap;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use types::manifest::Limits;

const HARNESS: &str = env!("CARGO_BIN_EXE_sandbox-harness");
const PROBE: &str = env!("CARGO_BIN_EXE_sandbox-probe");

const WITNESS: &str = "witness of the host";
const MEMORY_BYTES: u64 = 64 << 20;
const DISK_BYTES: u64 = 16 << 20;
const SCRATCH_BYTES: u64 = 16 << 20;
const PROCESSES: u32 = 64;
/// Milliseconds one probe may take.
const PROBE_MS_MAX: u64 = 60_000;
/// Exit status of a probe that was held.
const HELD: i32 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Reached(String),
    Held(String),
    Broken(String),
}

impl Verdict {
    fn of(status: Ended, output: &str) -> Self {
        let line = output.lines().last().unwrap_or_default().to_owned();
        match status {
            Ended::Code(0) => Self::Reached(line),
            Ended::Code(HELD) => Self::Held(line),
            Ended::Signal(signal) => Self::Held(format!("killed by signal {signal}")),
            Ended::Code(code) => Self::Broken(format!("status {code}: {output}")),
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Reached(_) => "REACHED",
            Self::Held(_) => "held",
            Self::Broken(_) => "BROKEN",
        }
    }
}

/// What the probes aim at: things that are on the host, reachable for the one who runs the tests.
struct Host {
    dir: tempfile::TempDir,
    home: tempfile::TempDir,
    victim: Child,
    shm: String,
    shm_file: PathBuf,
    aim: BTreeMap<&'static str, String>,
    _sockets: (UnixListener, UnixListener),
}

fn open_to_all(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Answers every connection and every datagram; ends with the test process.
fn listen() -> (u16, u16) {
    let tcp = TcpListener::bind("[::]:0").or_else(|_| TcpListener::bind("0.0.0.0:0")).unwrap();
    let udp = UdpSocket::bind("[::]:0").or_else(|_| UdpSocket::bind("0.0.0.0:0")).unwrap();
    let ports = (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port());
    std::thread::spawn(move || tcp.incoming().for_each(drop));
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((count, from)) = udp.recv_from(&mut buffer) {
            let _ = udp.send_to(&buffer[..count], from);
        }
    });
    ports
}

/// Our own address on a network, found without sending anything.
fn own_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    match socket.connect("198.51.100.1:9").and_then(|()| socket.local_addr()) {
        Ok(address) if !address.ip().is_loopback() => address.ip().to_string(),
        _ => "none".to_owned(),
    }
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("corpus-").tempdir_in("/tmp").unwrap();
        let home = tempfile::tempdir_in("/tmp").unwrap();
        let path = dir.path();
        open_to_all(path, 0o755);
        std::fs::write(path.join("secret"), WITNESS).unwrap();
        for name in ["outside", "scratch"] {
            std::fs::create_dir(path.join(name)).unwrap();
            open_to_all(&path.join(name), 0o777);
        }
        workspace(&path.join("raw"));
        let unique = path.file_name().unwrap().to_str().unwrap().to_owned();
        let name = std::os::unix::net::SocketAddr::from_abstract_name(&unique).unwrap();
        let sockets = (
            UnixListener::bind_addr(&name).unwrap(),
            UnixListener::bind(path.join("sock")).unwrap(),
        );
        open_to_all(&path.join("sock"), 0o777);
        let shm_file = Path::new("/dev/shm").join(&unique);
        std::fs::write(&shm_file, WITNESS).unwrap();
        open_to_all(&shm_file, 0o644);
        let shm = said("ipcmk", &["-M", "4096", "-p", "0666"]);
        let shm = shm.rsplit(' ').next().unwrap().to_owned();
        let victim = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let (tcp, udp) = listen();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let aim = BTreeMap::from([
            ("secret", text(path.join("secret"))),
            ("witness", WITNESS.to_owned()),
            ("outside", text(path.join("outside"))),
            ("home", text(home.path().to_owned())),
            ("marker", unique.clone()),
            ("shm_file", text(shm_file.clone())),
            ("victim", victim.id().to_string()),
            ("tcp", tcp.to_string()),
            ("udp", udp.to_string()),
            ("address", own_address()),
            ("abstract", unique),
            ("socket", text(path.join("sock"))),
            ("shm", shm.clone()),
            ("hostname", hostname.trim().to_owned()),
            ("cgroup", cgroup.replace('\n', "|")),
            ("user", said("id", &["-un"])),
            ("orphan", orphan()),
            ("memory", MEMORY_BYTES.to_string()),
            ("disk", DISK_BYTES.to_string()),
            ("scratch", SCRATCH_BYTES.to_string()),
            ("processes", PROCESSES.to_string()),
        ]);
        Self { dir, home, victim, shm, shm_file, aim, _sockets: sockets }
    }

    fn arguments(&self, probe: &str, scratch: &str, init: u32) -> Vec<String> {
        let pairs = self.aim.iter().map(|(key, value)| format!("{key}={value}"));
        let mut list =
            vec![probe.to_owned(), format!("scratch_dir={scratch}"), format!("init={init}")];
        list.extend(pairs);
        list
    }

    /// Runs a probe without any sandbox.
    fn raw(&self, probe: &str) -> Verdict {
        let scratch = self.dir.path().join("scratch");
        // A shell leaves one descriptor open, as a careless parent would.
        let output = Command::new("/bin/sh")
            .args(["-c", "exec 9</dev/null; exec \"$0\" \"$@\"", PROBE])
            .args(self.arguments(probe, scratch.to_str().unwrap(), self.victim.id()))
            .current_dir(self.dir.path().join("raw/open"))
            .env("CORPUS", "host")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        let status = output.status.code().map_or(Ended::Signal(0), Ended::Code);
        judge(probe, Verdict::of(status, &text))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.victim.kill();
        let _ = self.victim.wait();
        let _ = Command::new("ipcrm").args(["-m", &self.shm]).status();
        let _ = std::fs::remove_file(&self.shm_file);
    }
}

/// The directories the path rules speak about.
fn workspace(dir: &Path) {
    for sub in ["open", "masked", "locked", "closed", "deep/inner"] {
        std::fs::create_dir_all(dir.join(sub)).unwrap();
    }
    for file in ["masked/file", "locked/file", "closed/file", "deep/inner/file"] {
        std::fs::write(dir.join(file), "content").unwrap();
    }
}

fn rules() -> FsRules {
    let list = |paths: &[&str]| paths.iter().map(|path| format!("/workspace/{path}")).collect();
    FsRules {
        read: None,
        write: Some(list(&["open", "locked", "masked", "deep"])),
        deny_read: list(&["masked", "deep/inner/file"]),
        deny_write: list(&["locked"]),
        mounts: Vec::new(),
    }
}

/// What the orphan of this very test process calls itself.
fn orphan() -> String {
    format!("orphan-of-the-corpus-{}-", std::process::id())
}

/// Some probes only prepare; whether they got through shows on the host.
fn judge(probe: &str, verdict: Verdict) -> Verdict {
    if probe != "outlive-the-call" || !matches!(verdict, Verdict::Reached(_)) {
        return verdict;
    }
    let found = std::fs::read_dir("/proc").unwrap().flatten().find(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.starts_with(orphan().as_bytes())
    });
    match found {
        Some(entry) => {
            let pid = entry.file_name().to_str().and_then(|pid| pid.parse().ok());
            let pid = rustix::process::Pid::from_raw(pid.unwrap()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            Verdict::Reached("it lives on".to_owned())
        }
        None => Verdict::Held("gone with the call".to_owned()),
    }
}

/// The corpus inside one kind of sandbox.
struct Inside {
    store: LayerStore,
    spawner: Spawner,
    layer: types::LayerId,
}

impl Inside {
    async fn new(host: &Host, config: SpawnerConfig) -> Self {
        let store = LayerStore::open(host.home.path()).unwrap();
        let source = tempfile::tempdir().unwrap();
        workspace(source.path());
        std::fs::copy(PROBE, source.path().join("probe")).unwrap();
        symlink(&host.aim["secret"], source.path().join("leak")).unwrap();
        let layer = store.import(source.path(), 1 << 30).unwrap().layer;
        let spawner = Spawner::start(Path::new(HARNESS), config).await.unwrap();
        Self { store, spawner, layer }
    }

    /// Runs a probe in a fresh sandbox.
    async fn run(&self, host: &Host, probe: &str) -> Verdict {
        let upper = self.store.begin(&self.layer).unwrap();
        let limits = Limits {
            memory_bytes: MEMORY_BYTES,
            processes: PROCESSES,
            disk_bytes: DISK_BYTES,
            ..Limits::default()
        };
        let spec = CreateSpec {
            limits,
            scratch_bytes: SCRATCH_BYTES,
            rules: rules(),
            ..CreateSpec::new(upper.overlay())
        };
        let id = self.spawner.create(spec).await.unwrap().id;
        let mut argv = vec!["/workspace/probe".to_owned()];
        argv.extend(host.arguments(probe, "/tmp", 1));
        let spec = ExecSpec {
            cwd: Some("/workspace/open".to_owned()),
            timeout_ms: Some(PROBE_MS_MAX),
            ..ExecSpec::new(argv)
        };
        let done = self.spawner.exec(&id, spec).await.unwrap().finish().await.unwrap();
        let text = String::from_utf8_lossy(&done.stdout) + String::from_utf8_lossy(&done.stderr);
        let verdict = match (done.exit.timed_out, done.exit.limit) {
            (true, _) => Verdict::Broken("it hung".to_owned()),
            (false, Some(limit)) if matches!(done.exit.ended, Ended::Signal(_)) => {
                Verdict::Held(format!("ended: {limit:?}"))
            }
            _ => Verdict::of(done.exit.ended, &text),
        };
        let verdict = judge(probe, verdict);
        self.spawner.destroy(&id).await.unwrap();
        self.store.discard(upper).unwrap();
        verdict
    }

    /// What the owner is asked to read for the model, aimed at the host.
    async fn owner_side(&self, host: &Host) -> Vec<(&'static str, Verdict, Verdict)> {
        let upper = self.store.begin(&self.layer).unwrap();
        let id = self.spawner.create(CreateSpec::new(upper.overlay())).await.unwrap().id;
        let secret = &host.aim["secret"];
        let dots = format!("{}{secret}", "../".repeat(30));
        let control = |path: &str| match std::fs::read_to_string(path) {
            Ok(text) if text == WITNESS => Verdict::Reached("read".to_owned()),
            _ => Verdict::Held("not read".to_owned()),
        };
        let tree = self.store.stack(&self.layer).unwrap().remove(0);
        let mut rows = Vec::new();
        for (name, path) in [
            ("file-operation-by-symlink", "leak"),
            ("file-operation-by-dots", dots.as_str()),
            ("file-operation-absolute", secret.as_str()),
        ] {
            let op = FileOp::Read {
                path: path.to_owned(),
                offset_line: 0,
                limit_lines: 0,
                max_bytes: 1000,
            };
            let verdict = match self.spawner.file_op(&id, op, None).await {
                Ok(FileResult::Read { bytes, .. }) if bytes == WITNESS.as_bytes() => {
                    Verdict::Reached("read".to_owned())
                }
                other => Verdict::Held(format!("{:?}", other.map_err(|error| error.to_string()))),
            };
            rows.push((name, control(tree.join(path).to_str().unwrap()), verdict));
        }
        for (name, path) in [("artifact-by-symlink", "leak"), ("artifact-by-dots", dots.as_str())] {
            let verdict = match self.store.open_file(&self.layer, path) {
                Ok(_) => Verdict::Reached("opened".to_owned()),
                Err(error) => Verdict::Held(error.to_string()),
            };
            rows.push((name, control(tree.join(path).to_str().unwrap()), verdict));
        }
        self.spawner.destroy(&id).await.unwrap();
        self.store.discard(upper).unwrap();
        rows
    }
}

/// The corpus: name, and when its control must succeed.
fn corpus() -> Vec<(String, String)> {
    let list = said(PROBE, &["--list"]);
    let split = |line: &str| {
        let (name, control) = line.split_once(' ').unwrap();
        (name.to_owned(), control.to_owned())
    };
    list.lines().map(split).collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn show(name: &str, raw: &Verdict, inside: &Verdict) {
    let detail = match inside {
        Verdict::Reached(text) | Verdict::Held(text) | Verdict::Broken(text) => {
            text.lines().next().unwrap_or("")
        }
    };
    println!("{name:32} raw {:8} inside {:8} {detail:.60}", raw.word(), inside.word());
}

#[tokio::test]
async fn no_probe_gets_out() {
    let host = Host::new();
    let inside = Inside::new(&host, SpawnerConfig::default()).await;
    let (mut controlled, mut uncontrolled, mut wrong) = (0, Vec::new(), Vec::new());
    let mut rows = Vec::new();
    for (name, control) in corpus() {
        let raw = host.raw(&name);
        let must = control == "Both" || (control == "Root" && is_root());
        if must && !matches!(raw, Verdict::Reached(_)) {
            wrong.push(format!("{name}: its control did not succeed: {raw:?}"));
        }
        let verdict = inside.run(&host, &name).await;
        rows.push((name, raw, verdict));
    }
    for (name, raw, verdict) in inside.owner_side(&host).await {
        rows.push((name.to_owned(), raw, verdict));
    }
    for (name, raw, verdict) in &rows {
        show(name, raw, verdict);
        match raw {
            Verdict::Reached(_) => controlled += 1,
            _ => uncontrolled.push(name.as_str()),
        }
        if !matches!(verdict, Verdict::Held(_)) {
            wrong.push(format!("{name}: {verdict:?}"));
        }
    }
    println!("{} probes, {controlled} with a control that succeeds here as this user", rows.len());
    println!("without one: {}", uncontrolled.join(" "));
    inside.spawner.close().await;
    assert_eq!(wrong, Vec::<String>::new());
    assert!(controlled >= 40, "{controlled}");
}

/// Leaves each part of the containment out in turn: the corpus must turn red.
#[cfg(feature = "weakened")]
#[tokio::test]
async fn every_weakening_is_noticed() {
    let host = Host::new();
    let mut unnoticed = Vec::new();
    for part in Weaken::ALL {
        // With its self-probe such a sandbox would not start: see tests/self_probe.rs.
        let weaken = vec![part, Weaken::SelfProbe];
        let inside = Inside::new(&host, SpawnerConfig { weaken }).await;
        let mut noticed = None;
        for (name, _) in corpus() {
            // The bombs take their time, and only limits hold them.
            if name.ends_with("bomb") && part != Weaken::Limits {
                continue;
            }
            // One that gets through turns the corpus red.
            if let Verdict::Reached(_) = inside.run(&host, &name).await {
                noticed = Some(name);
                break;
            }
        }
        inside.spawner.close().await;
        println!("without {part:?}, this gets through: {noticed:?}");
        if noticed.is_none() {
            unnoticed.push(part);
        }
    }
    assert_eq!(unnoticed, Vec::<Weaken>::new());
}
