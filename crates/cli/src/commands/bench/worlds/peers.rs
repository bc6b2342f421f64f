//! Others who make sandboxes, as far as they are installed: a command each, up to its first output.
//!
//! runc and runsc get the least that shows the host's `/usr`; each container is new. sandlock is a
//! library, so it works in a Python that has it loaded. Whoever is not installed, or does not work
//! here, is said to be so, which is no error.

use super::super::{fail, in_path, nanos_since};
use crate::error::Result;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

/// What is run in each.
const COMMAND: [&str; 2] = ["/bin/echo", "first"];
/// Where a host's `/usr` is meant by a name at the top.
const TOP_LINKS: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// Where Python finds sandlock when it is not installed for everybody, beside our own program.
const SANDLOCK_PYTHON: &str = "peers/sandlock/bin/python3";
/// Answers each line with the nanoseconds of one sandbox up to its first output.
const SANDLOCK_PROGRAM: &str = r#"
import sandlock, sys, time
seen = ["/usr", "/bin", "/lib", "/lib64", "/etc/ld.so.cache"]
for line in sys.stdin:
    begun = time.perf_counter_ns()
    box = sandlock.Sandbox(fs_readable=seen, max_memory="2G", max_processes=64)
    mode = sandlock.StdioMode
    process = box.popen(["/bin/echo", "first"], stdin=mode.NULL, stdout=mode.PIPED, stderr=mode.NULL)
    byte = process.stdout.read(1)
    took = time.perf_counter_ns() - begun
    good = process.wait().success and len(byte) == 1
    print(took if good else "failed", flush=True)
"#;

/// Somebody who works here.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: String,
    how: How,
}

#[derive(Debug)]
enum How {
    /// A program with these arguments; a container's program gets a new name after them.
    Program { path: PathBuf, arguments: Vec<String>, named: bool },
    /// A Python that makes one for each line.
    Python(Mutex<Python>),
}

#[derive(Debug)]
struct Python {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Those that work here, and what is to be said of the others.
pub(super) fn all(dir: &Path) -> Result<(Vec<Peer>, Vec<String>)> {
    let bundle = dir.join("bundle");
    make_bundle(&bundle).map_err(|error| fail("the peers' bundle", error))?;
    let (bundle, root) = (text(&bundle), |name: &str| text(&dir.join(name)));
    let (runc_root, runsc_root) = (root("runc"), root("runsc"));
    let bwrap = [&["--unshare-all", "--ro-bind", "/", "/"][..], &COMMAND].concat();
    let runc = ["--root", &runc_root, "run", "--bundle", &bundle];
    let runsc = ["--root", &runsc_root, "--network=none", "run", "--bundle", &bundle];
    let rootless =
        ["--root", &runsc_root, "--network=none", "--rootless", "run", "--bundle", &bundle];
    let runsc = if is_root() { &runsc[..] } else { &rootless[..] };
    let candidates = [
        ("bwrap --unshare-all", program("bwrap", &bwrap, false)),
        ("runc run", program("runc", &runc, true)),
        ("runsc run", program("runsc", runsc, true)),
        ("sandlock, in a Python that has it loaded", sandlock()),
    ];
    let (mut peers, mut absent) = (Vec::new(), Vec::new());
    for (name, how) in candidates {
        let Some(how) = how else {
            absent.push(format!("{name}: not installed, so there is nothing to compare with"));
            continue;
        };
        let peer = Peer { name: name.to_owned(), how };
        match peer.first_output(u32::MAX, Instant::now()) {
            Some(_) => peers.push(peer),
            None => absent.push(format!("{name}: installed, but does not work here")),
        }
    }
    Ok((peers, absent))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn program(name: &str, arguments: &[&str], named: bool) -> Option<How> {
    let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Some(How::Program { path: in_path(name)?, arguments, named })
}

/// A Python that can load it: the first of the path, or the one that stands with the peers.
fn sandlock() -> Option<How> {
    let target = crate::session::this_program();
    let beside = target.parent().and_then(Path::parent).map(|dir| dir.join(SANDLOCK_PYTHON));
    let mut pythons = in_path("python3").into_iter().chain(beside.filter(|path| path.is_file()));
    let python = pythons
        .find(|python| super::super::program(python, &["-c", "import sandlock"]).is_some())?;
    let mut child = Command::new(python)
        .args(["-c", SANDLOCK_PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let ask = child.stdin.take().expect("it is piped");
    let answers = BufReader::new(child.stdout.take().expect("it is piped"));
    Some(How::Python(Mutex::new(Python { child, ask, answers })))
}

impl Peer {
    /// Whether many of it can be asked for at once from here.
    pub(super) fn many_at_once(&self) -> bool {
        matches!(self.how, How::Program { .. })
    }

    /// Nanoseconds from `begun` to the first byte of output, when it ends well.
    pub(super) fn first_output(&self, number: u32, begun: Instant) -> Option<u64> {
        match &self.how {
            How::Program { path, arguments, named } => {
                let mut command = Command::new(path);
                command.args(arguments);
                if *named {
                    command.arg(format!("bedplate-bench-{}-{number}", std::process::id()));
                }
                first_byte(command, begun)
            }
            How::Python(python) => {
                let mut python = python.lock().expect("nothing panics while it holds this lock");
                python.ask.write_all(b"\n").ok()?;
                let mut line = String::new();
                python.answers.read_line(&mut line).ok()?;
                line.trim().parse().ok()
            }
        }
    }
}

fn first_byte(mut command: Command, begun: Instant) -> Option<u64> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().ok()?;
    let mut out = child.stdout.take().expect("it is piped");
    let read = out.read_exact(&mut [0]);
    let nanos = nanos_since(begun);
    let _ = std::io::copy(&mut out, &mut std::io::sink());
    let good = child.wait().is_ok_and(|status| status.success());
    (read.is_ok() && good).then_some(nanos)
}

/// The least of a container: the host's `/usr`, and nothing else of it.
fn make_bundle(bundle: &Path) -> std::io::Result<()> {
    let root = bundle.join("rootfs");
    for dir in ["usr", "proc", "dev", "tmp"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    for link in TOP_LINKS {
        std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link))?;
    }
    std::fs::write(bundle.join("config.json"), specification().to_string())
}

fn specification() -> Value {
    let mut namespaces = vec!["pid", "network", "ipc", "uts", "mount"];
    let mut linux = json!({});
    if !is_root() {
        namespaces.push("user");
        let user = rustix::process::geteuid().as_raw();
        let group = rustix::process::getegid().as_raw();
        linux["uidMappings"] = json!([{ "containerID": 0, "hostID": user, "size": 1 }]);
        linux["gidMappings"] = json!([{ "containerID": 0, "hostID": group, "size": 1 }]);
    }
    linux["namespaces"] = namespaces.iter().map(|name| json!({ "type": name })).collect();
    let mount = |at: &str, kind: &str, source: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": source, "options": options });
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "bench",
        "process": {
            "terminal": false,
            "user": { "uid": 0, "gid": 0 },
            "args": COMMAND,
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": true,
            "capabilities": { "bounding": [], "effective": [], "permitted": [] },
        },
        "mounts": [
            mount("/usr", "bind", "/usr", &["rbind", "ro"]),
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "mode=755"]),
        ],
        "linux": linux,
    })
}
