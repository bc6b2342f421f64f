//! What the tests re-exec: the entries the `bedplate` binary has, an owner that can be killed, and
//! a gate that tries what it may no longer do.
#![allow(clippy::print_stdout, reason = "the tests read what it prints")]

use sandbox::layers::LayerStore;
use sandbox::{CreateSpec, ExecSpec, Spawner, SpawnerConfig};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, sandbox::SPAWNER_ARG, fd] => match fd.parse() {
            Ok(fd) => sandbox::spawner_main(fd),
            Err(_) => ExitCode::from(2),
        },
        [_, "owner", home] => owner(Path::new(home)),
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
