//! What the tests re-exec: the entries the `bedplate` binary has, an owner that can be killed, a
//! holder of layers that can be killed, and a gate that tries what it may no longer do.
#![allow(clippy::print_stdout, reason = "the tests read what it prints")]

use sandbox::layers::{LayerStore, Sealed, Upper};
use sandbox::{
    CreateSpec, ExecSpec, SandboxError, SandboxId, Spawner, SpawnerConfig, Stdin, Stream,
};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;
use types::LayerId;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, sandbox::SPAWNER_ARG, fd] => match fd.parse() {
            Ok(fd) => sandbox::spawner_main(fd),
            Err(_) => ExitCode::from(2),
        },
        [_, "owner", home] => owner(Path::new(home)),
        [_, "holder", home, program] => holder(Path::new(home), program),
        [_, "gate", port] => gate(port),
        _ => ExitCode::from(2),
    }
}

/// An owner with one sandbox and one long program: prints the spawner's and the program's pid,
/// then waits to be killed.
fn owner(home: &Path) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let live = async {
        let store = LayerStore::open(home)?;
        let exe = std::env::current_exe().expect("a running program has a path");
        let spawner = Spawner::start(&exe, SpawnerConfig::default()).await?;
        let upper = store.begin(&store.empty()?)?;
        let made = spawner.create(CreateSpec::new(upper.overlay())).await?;
        let spec = ExecSpec::shell("trap '' TERM INT HUP; setsid sleep 60 & exec sleep 60");
        let mut running = spawner.exec(&made.id, spec).await?;
        println!("{} {}", spawner.pid(), running.pid());
        let _ = std::io::stdout().flush();
        running.exit().await.map(drop)
    };
    match runtime.map(|runtime| runtime.block_on(live)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Bytes of output of one program of the holder's.
const OUTPUT_BYTES_MAX: u64 = 64 << 20;

/// Holds layers, uppers and a sandbox until it is killed. Each line of standard input is a wish:
/// `empty`, `begin LAYER`, `exec UPPER FILE` (runs the program in the sandbox, on what the file
/// says), `pending UPPER`, `seal UPPER`, `discard UPPER`, `flush LAYER`, `keep LAYERS`, `reap`.
/// Each gets one line as an answer, after what a program has printed.
fn holder(home: &Path, program: &str) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let live = async {
        let mut holder = Holder::new(home, program).await?;
        for line in std::io::stdin().lock().lines() {
            let line = line.expect("a test writes text");
            match holder.act(&line.split(' ').collect::<Vec<_>>()).await {
                Ok(answer) => println!("answer {answer}"),
                Err(error) => println!("answer failed {}", error.to_string().replace('\n', " ")),
            }
            let _ = std::io::stdout().flush();
        }
        holder.spawner.close().await;
        Ok::<(), SandboxError>(())
    };
    match runtime.map(|runtime| runtime.block_on(live)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

struct Holder {
    store: LayerStore,
    spawner: Spawner,
    program: String,
    sandbox: Option<SandboxId>,
    uppers: BTreeMap<String, Upper>,
}

impl Holder {
    async fn new(home: &Path, program: &str) -> Result<Self, SandboxError> {
        let exe = std::env::current_exe().expect("a running program has a path");
        Ok(Self {
            store: LayerStore::open(home)?,
            spawner: Spawner::start(&exe, SpawnerConfig::default()).await?,
            program: program.to_owned(),
            sandbox: None,
            uppers: BTreeMap::new(),
        })
    }

    fn take(&mut self, upper: &str) -> Upper {
        self.uppers.remove(upper).expect("a test names what it began")
    }

    async fn act(&mut self, words: &[&str]) -> Result<String, SandboxError> {
        let layer = |text: &str| LayerId::parse(text).expect("a test names what it was told");
        Ok(match *words {
            ["empty"] => self.store.empty()?.to_string(),
            ["begin", parent] => {
                let upper = self.store.begin(&layer(parent))?;
                let id = upper.id().to_string();
                self.uppers.insert(id.clone(), upper);
                id
            }
            ["exec", upper, file] => self.exec(upper, Path::new(file)).await?,
            ["pending", upper] => self.store.pending(&self.uppers[upper])?.len().to_string(),
            ["seal", upper] => {
                let upper = self.take(upper);
                match self.store.seal(upper)? {
                    Sealed::Layer { changed, .. } => format!("changed {changed}"),
                    Sealed::Unchanged(upper) => {
                        self.store.recycle(upper)?;
                        "unchanged".to_owned()
                    }
                }
            }
            ["discard", upper] => {
                let upper = self.take(upper);
                self.store.discard(upper)?;
                "discarded".to_owned()
            }
            ["flush", parent] => {
                self.store.flush(&layer(parent))?;
                "flushed".to_owned()
            }
            ["keep", ref layers @ ..] => {
                let keep: BTreeSet<LayerId> = layers.iter().map(|text| layer(text)).collect();
                self.store.remove_unreferenced(&keep)?.to_string()
            }
            ["reap"] => self.store.reap_uppers()?.to_string(),
            _ => "not understood".to_owned(),
        })
    }

    /// Runs the program on an upper, and passes on what it prints as it comes.
    async fn exec(&mut self, upper: &str, file: &Path) -> Result<String, SandboxError> {
        let overlay = self.uppers[upper].overlay();
        let sandbox = match self.sandbox {
            Some(sandbox) => sandbox,
            None => self.spawner.create(CreateSpec::new(overlay.clone())).await?.id,
        };
        self.sandbox = Some(sandbox);
        let input = std::fs::read(file).expect("a test writes it before");
        let spec = ExecSpec {
            stdin: Stdin::Bytes(input),
            trees: Some(overlay.into()),
            output_bytes_max: OUTPUT_BYTES_MAX,
            ..ExecSpec::new(["python3", "-c", &self.program])
        };
        let mut running = self.spawner.exec(&sandbox, spec).await?;
        while let Some(chunk) = running.next().await {
            let written = match chunk.stream {
                Stream::Stdout => std::io::stdout().write_all(&chunk.bytes),
                Stream::Stderr => std::io::stderr().write_all(&chunk.bytes),
            };
            let _ = written.and_then(|()| std::io::stdout().flush());
        }
        Ok(format!("ended {}", running.exit().await?.ended.status()))
    }
}

/// Confines itself as the gate does, then prints one line for each thing it tries.
fn gate(port: &str) -> ExitCode {
    use std::net::{TcpStream, ToSocketAddrs};
    let owner = std::os::unix::process::parent_id();
    if let Err(error) = sandbox::confine_gate() {
        println!("confined {error}");
        return ExitCode::FAILURE;
    }
    let say = |what: &str, done: bool| println!("{what} {}", if done { "yes" } else { "no" });
    say("confined", true);
    say("connect", TcpStream::connect(("127.0.0.1", port.parse().unwrap_or(0))).is_ok());
    say("resolve", ("localhost", 1u16).to_socket_addrs().is_ok());
    say("thread", std::thread::spawn(|| 7).join().is_ok_and(|seven| seven == 7));
    say("read-passwd", std::fs::read("/etc/passwd").is_ok());
    say("list-root", std::fs::read_dir("/usr").is_ok());
    say("proc", std::fs::read_dir("/proc").is_ok());
    say("write", std::fs::write("/etc/x", "").is_ok() || std::fs::write("/x", "").is_ok());
    say("exec", std::process::Command::new("/bin/true").status().is_ok());
    say("unix-socket", std::os::unix::net::UnixDatagram::unbound().is_ok());
    let pid = rustix::process::Pid::from_raw(owner as i32);
    say("signal-owner", pid.is_some_and(|pid| rustix::process::test_kill_process(pid).is_ok()));
    let root = rustix::process::geteuid().is_root() || rustix::process::getuid().is_root();
    say("root", root);
    let mine = rustix::thread::capabilities(None);
    say("capable", mine.map_or(true, |sets| !sets.effective.is_empty()));
    ExitCode::SUCCESS
}
