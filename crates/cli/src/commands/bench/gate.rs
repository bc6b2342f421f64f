//! `bench gate`: what the network boundary costs.
//!
//! The same load takes three ways to the same upstream on loopback, in turns: directly; out of a
//! real sandbox, through the gate, with every request decided by the owner and recorded in a log on
//! this directory's device; and through mitmproxy, when it is installed, which writes its flows to
//! a file. Nothing of ours is made easier than in a run: it is a run.

use super::load::{Outcome, Plan, What};
use super::upstream::{self, Upstream};
use super::{Samples, fail, row};
use crate::error::Result;
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Requests a second of the line that has a bar.
const RATE: u32 = 1_000;
/// The rate to aim at.
const RATE_AIM: u32 = 3_000;
/// Requests a second of the classes that are synced, which share one device.
const RATE_SYNCED: u32 = 100;
/// Questions a second to a model.
const RATE_MODEL: u32 = 50;
/// Turns that each way has.
const ROUNDS: u32 = 2;
/// Of `count` requests, one in so many is on a connection of its own to a new host.
const FRESH_SHARE: u32 = 20;
/// New hosts in all, at most.
const FRESH_MAX: u32 = 200;
/// Bytes of one download.
const BULK_BYTES: u64 = 64 << 20;
/// Downloads of one turn.
const BULK_COUNT: u32 = 4;
/// How long the peer may take to listen.
const PEER_STARTS_MAX: Duration = Duration::from_secs(30);

const HOST: &str = "bench.test";
const OPAQUE_HOST: &str = "opaque.test";

/// A way to the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Direct,
    Gate,
    Opaque,
    Peer,
    /// Of networks alone: as a sandbox gets it.
    Whole,
    /// The kernel's part of that.
    Bare,
}

/// What is compared in one block.
struct Line {
    name: &'static str,
    what: fn(u32) -> What,
    ways: &'static [By],
}

const LINES: [Line; 6] = [
    Line {
        name: "GET, 1,000 a second, warm",
        what: |count| paced("GET", RATE, count),
        ways: &[By::Direct, By::Gate, By::Opaque, By::Peer],
    },
    Line {
        name: "GET, 3,000 a second, warm",
        what: |count| paced("GET", RATE_AIM, count),
        ways: &[By::Direct, By::Gate],
    },
    Line {
        name: "PUT (idempotent), 100 a second, warm",
        what: |count| paced("PUT", RATE_SYNCED, (count / 10).max(1)),
        ways: &[By::Direct, By::Gate, By::Peer],
    },
    Line {
        name: "POST (irreversible), 100 a second, warm",
        what: |count| paced("POST", RATE_SYNCED, (count / 10).max(1)),
        ways: &[By::Direct, By::Gate, By::Peer],
    },
    Line {
        name: "GET on a new connection to a new host",
        what: |count| What::Fresh { count: (count / FRESH_SHARE).clamp(1, FRESH_MAX / ROUNDS) },
        ways: &[By::Direct, By::Gate, By::Peer],
    },
    Line {
        name: "download of 64 MiB",
        what: |_| What::Bulk { bytes: BULK_BYTES, count: BULK_COUNT },
        ways: &[By::Direct, By::Gate, By::Opaque, By::Peer],
    },
];

fn paced(method: &str, rate: u32, count: u32) -> What {
    What::Paced { method: method.to_owned(), rate, count }
}

/// One block, measured.
pub(super) struct Measured {
    name: &'static str,
    ways: Vec<(By, Samples)>,
    why: Vec<String>,
}

/// Measures every line with `count` requests a turn at full rate.
pub(super) fn measure(count: u32) -> Result<Vec<Measured>> {
    let here = std::env::current_dir().map_err(|error| fail("the gate", error))?;
    let dir = tempfile::Builder::new().prefix(".bedplate-bench-").tempdir_in(here);
    let dir = dir.map_err(|error| fail("the gate", error))?;
    let world = World::new(dir.path())?;
    let lines = LINES.iter().map(|line| world.line(line, count));
    let mut all = lines.collect::<Result<Vec<Measured>>>()?;
    all.push(world.models((count / 10).max(1))?);
    all.push(networks(count)?);
    Ok(all)
}

/// Networks alone, in a process of their own.
fn networks(count: u32) -> Result<Measured> {
    let name = "a complete network namespace";
    let done = Command::new(crate::session::this_program())
        .arg("__networks")
        .arg(count.to_string())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| fail(name, error))?;
    if !done.status.success() {
        return Err(fail(name, String::from_utf8_lossy(&done.stderr)).into());
    }
    let (mut whole, mut bare) = (Samples::default(), Samples::default());
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        let mut numbers = line.split(' ').map(|text| text.parse().ok());
        whole.add(numbers.next().flatten());
        bare.add(numbers.next().flatten());
    }
    Ok(Measured { name, ways: vec![(By::Whole, whole), (By::Bare, bare)], why: Vec::new() })
}

/// All blocks as people read them.
pub(super) fn table(all: &[Measured]) -> Vec<String> {
    let mut lines = Vec::new();
    for measured in all {
        lines.push(measured.name.to_owned());
        for (by, samples) in &measured.ways {
            lines.push(row(&(format!("  {}", by.name()), samples.clone())));
        }
        lines.extend(measured.ways.iter().filter_map(|way| measured.beside(way)));
        lines.extend(measured.why.iter().map(|why| format!("  failed: {why}")));
    }
    lines
}

/// All blocks as one document.
pub(super) fn document(all: &[Measured]) -> Value {
    let line = |measured: &Measured| {
        let ways =
            measured.ways.iter().map(|(by, s)| super::side(&(by.name().to_owned(), s.clone())));
        json!({ "line": measured.name, "ways": ways.collect::<Vec<_>>(), "failures": measured.why })
    };
    json!({ "lines": all.iter().map(line).collect::<Vec<_>>() })
}

/// Every sample under its line and way.
pub(super) fn raw(all: &[Measured]) -> Vec<(String, Samples)> {
    let of = |measured: &Measured| {
        let name = measured.name;
        let named =
            |(by, samples): &(By, Samples)| (format!("{name}: {}", by.name()), samples.clone());
        measured.ways.iter().map(named).collect::<Vec<_>>()
    };
    all.iter().flat_map(of).collect()
}

impl By {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "no proxy",
            Self::Gate => "bedplate, inspected",
            Self::Opaque => "bedplate, opaque",
            Self::Peer => "mitmproxy",
            Self::Whole => "with redirection and listeners",
            Self::Bare => "unshare(CLONE_NEWNET) alone",
        }
    }
}

impl Measured {
    /// What a way adds to the direct one.
    #[expect(clippy::cast_precision_loss, reason = "display only")]
    fn beside(&self, (by, samples): &(By, Samples)) -> Option<String> {
        let direct = &self.ways.iter().find(|(by, _)| *by == By::Direct)?.1;
        if *by == By::Direct || samples.nanos.is_empty() {
            return None;
        }
        let of = |percent| {
            let (ours, theirs) = (samples.percentile(percent), direct.percentile(percent));
            (ours as f64 - theirs as f64) / 1e6
        };
        let ratio = samples.percentile(50) as f64 / direct.percentile(50).max(1) as f64;
        Some(format!(
            "  {} adds {:.3} ms p50, {:.3} ms p95, {:.3} ms p99; {ratio:.2} times the direct median",
            by.name(),
            of(50),
            of(95),
            of(99)
        ))
    }
}

/// An upstream, an agent that may reach it, and the peer.
struct World {
    dir: PathBuf,
    upstream: Upstream,
    peer: Option<Peer>,
}

impl World {
    fn new(dir: &Path) -> Result<Self> {
        let names = [HOST, OPAQUE_HOST, "*.bench.test", "*.opaque.test", "127.0.0.1"];
        let upstream = Upstream::start(&names).map_err(|error| fail("the upstream", error))?;
        let world = Self { dir: dir.to_owned(), upstream, peer: None };
        world.agent().map_err(|error| fail("the agent", error))?;
        let peer = Peer::start(dir, &world.authority(), world.upstream.address);
        Ok(Self { peer: peer.map_err(|error| fail("mitmproxy", error))?, ..world })
    }

    fn authority(&self) -> PathBuf {
        self.dir.join("agent/ca.pem")
    }

    fn workspace(&self) -> PathBuf {
        self.dir.join("agent/w")
    }

    /// The agent's files. Its script runs the load, which is this program.
    fn agent(&self) -> std::io::Result<()> {
        std::fs::create_dir_all(self.workspace())?;
        std::fs::copy(crate::session::this_program(), self.workspace().join("load"))?;
        std::fs::write(self.authority(), &self.upstream.authority)?;
        std::fs::write(self.workspace().join("ca.pem"), &self.upstream.authority)?;
        let address = self.upstream.address;
        let mut resolve = format!("\"{HOST}\" = \"{address}\", \"{OPAQUE_HOST}\" = \"{address}\"");
        for number in 0..FRESH_MAX {
            resolve.push_str(&format!(", \"h{number}.{HOST}\" = \"{address}\""));
        }
        let manifest = format!(
            "schema = 1\n[agent]\nname = \"bench\"\ninstructions = \"Measure.\"\nmodel = \"default\"\n\
             [routes]\ndefault = [\"script/turns.toml\"]\n\
             [permissions]\npreset = \"observe\"\nallow = [\"shell\", \"GET {HOST}/*\", \
             \"GET *.{HOST}/*\", \"PUT {HOST}/*\", \"POST {HOST}/*\", \"CONNECT {OPAQUE_HOST}:443\"]\n\
             [sandbox]\nworkspace = \"w\"\n[artifacts]\npaths = [\"samples.json\"]\n\
             [network]\ntrust = [\"ca.pem\"]\nresolve = {{ {resolve} }}\n"
        );
        let turns = "[[turn]]\ntext = \"I measure.\"\ntool = \"shell\"\n\
             arguments = { command = \"./load __load plan.json\" }\n\
             [[turn]]\ntext = \"Measured.\"\n";
        std::fs::write(self.dir.join("agent/bedplate.toml"), manifest)?;
        std::fs::write(self.dir.join("agent/turns.toml"), turns)
    }

    fn line(&self, line: &Line, count: u32) -> Result<Measured> {
        let ways = line.ways.iter().filter(|by| **by != By::Peer || self.peer.is_some());
        let mut ways: Vec<(By, Samples)> = ways.map(|by| (*by, Samples::default())).collect();
        let mut why = Vec::new();
        for round in 0..ROUNDS {
            for (by, samples) in &mut ways {
                let outcome = self.take(*by, (line.what)(count), round)?;
                outcome.nanos.into_iter().for_each(|nanos| samples.add(Some(nanos)));
                samples.failed += outcome.failed;
                why.extend(outcome.why.map(|why| format!("{}: {why}", by.name())));
            }
        }
        Ok(Measured { name: line.name, ways, why })
    }

    /// Questions of a guest to a model, and the same without anything between.
    fn models(&self, count: u32) -> Result<Measured> {
        let name = "question of a guest to a model, 50 a second";
        let address = upstream::model().map_err(|error| fail("the model", error))?.to_string();
        let dir = self.dir.join("guest");
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::copy(crate::session::this_program(), dir.join("load")))
            .map_err(|error| fail("the guest", error))?;
        let manifest = format!(
            "schema = 1\n[permissions]\npreset = \"observe\"\n[routes]\ndefault = [\"near/m\"]\n\
             [providers.near]\ndialect = \"chat\"\nbase_url = \"http://{address}/v1\"\n"
        );
        std::fs::write(dir.join("bedplate.toml"), manifest)
            .map_err(|error| fail("the guest", error))?;
        let mut ways = vec![(By::Direct, Samples::default()), (By::Gate, Samples::default())];
        let mut why = Vec::new();
        for round in 0..ROUNDS {
            for (by, samples) in &mut ways {
                let dial = (*by == By::Direct).then(|| address.clone());
                let what = What::Model { rate: RATE_MODEL, count };
                let plan =
                    Plan { what, host: address.clone(), dial, trust: None, round, out: None };
                let outcome = self.ask_models(&dir, *by, &plan)?;
                outcome.nanos.into_iter().for_each(|nanos| samples.add(Some(nanos)));
                samples.failed += outcome.failed;
                why.extend(outcome.why.map(|why| format!("{}: {why}", by.name())));
            }
        }
        Ok(Measured { name, ways, why })
    }

    fn ask_models(&self, dir: &Path, by: By, plan: &Plan) -> Result<Outcome> {
        let text = serde_json::to_vec(plan).map_err(|error| fail("the plan", error))?;
        std::fs::write(dir.join("plan.json"), text).map_err(|error| fail("the plan", error))?;
        let mut command = Command::new(crate::session::this_program());
        if by == By::Gate {
            command.arg("--home").arg(self.dir.join("home")).args(["wrap", "--", "./load"]);
        }
        let done = command
            .args(["__load", "plan.json"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| fail(by.name(), error))?;
        let told = || String::from_utf8_lossy(&done.stderr).into_owned();
        Ok(serde_json::from_slice(&done.stdout).map_err(|_| fail(by.name(), told()))?)
    }

    /// One turn of one way.
    fn take(&self, by: By, what: What, round: u32) -> Result<Outcome> {
        let host = if by == By::Opaque { OPAQUE_HOST } else { HOST }.to_owned();
        let (dial, trust) = match (by, &self.peer) {
            (By::Direct, _) => (Some(self.upstream.address.to_string()), Some(self.authority())),
            (By::Peer, Some(peer)) => {
                (Some(peer.address.to_string()), Some(peer.authority.clone()))
            }
            // What is carried unread has the upstream's own certificate.
            (By::Opaque, _) => (None, Some(PathBuf::from("ca.pem"))),
            _ => (None, None),
        };
        // Outside, the load is a process of its own as well.
        let inside = dial.is_none();
        let out =
            if inside { PathBuf::from("samples.json") } else { self.dir.join("samples.json") };
        let plan = Plan { what, host, dial, trust, round, out: Some(out.clone()) };
        let text = serde_json::to_vec(&plan).map_err(|error| fail("the plan", error))?;
        let file = self.workspace().join("plan.json");
        std::fs::write(&file, text).map_err(|error| fail("the plan", error))?;
        let samples = if inside {
            self.run()?
        } else {
            let done = Command::new(crate::session::this_program())
                .arg("__load")
                .arg(&file)
                .stdin(Stdio::null())
                .status();
            match done {
                Ok(status) if status.success() => out,
                Ok(status) => return Err(fail(by.name(), status).into()),
                Err(error) => return Err(fail(by.name(), error).into()),
            }
        };
        let text = std::fs::read(samples).map_err(|error| fail("the samples", error))?;
        Ok(serde_json::from_slice(&text).map_err(|error| fail("the samples", error))?)
    }

    /// Has the agent run; where its samples are.
    fn run(&self) -> Result<PathBuf> {
        let done = Command::new(crate::session::this_program())
            .arg("--home")
            .arg(self.dir.join("home"))
            .args(["run", "--json"])
            .arg(self.dir.join("agent"))
            .stdin(Stdio::null())
            .output()
            .map_err(|error| fail("the run", error))?;
        let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        let file = said["artifacts"][0]["file"].as_str().map(PathBuf::from);
        let told = || String::from_utf8_lossy(&done.stderr).into_owned();
        Ok(file.ok_or_else(|| fail("the run", told()))?)
    }
}

/// mitmproxy before the same upstream.
struct Peer {
    child: Child,
    address: SocketAddr,
    authority: PathBuf,
}

impl Peer {
    /// Starts it; none when it is not installed.
    fn start(dir: &Path, trust: &Path, upstream: SocketAddr) -> std::io::Result<Option<Self>> {
        let Some(packages) = installed() else { return Ok(None) };
        let home = dir.join("mitmproxy");
        std::fs::create_dir_all(&home)?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new("python3");
        command
            .args(["-c", "from mitmproxy.tools.main import mitmdump; mitmdump()"])
            .env("PYTHONPATH", packages)
            .args(["--listen-host", "127.0.0.1", "--listen-port"])
            .arg(address.port().to_string())
            .args(["--mode", &format!("reverse:https://{upstream}/")])
            .args(["--set", &format!("confdir={}", home.display())])
            .args(["--set", &format!("ssl_verify_upstream_trusted_ca={}", trust.display())])
            .args(["--set", "flow_detail=1"])
            .arg("-w")
            .arg(home.join("flows"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn()?;
        let out = child.stdout.take().expect("it is piped");
        // Its lines are read to the end, or it would stand still.
        std::thread::spawn(move || BufReader::new(out).lines().for_each(drop));
        let peer = Self { child, address, authority: home.join("mitmproxy-ca-cert.pem") };
        let until = Instant::now() + PEER_STARTS_MAX;
        while TcpStream::connect(address).is_err() || !peer.authority.exists() {
            if Instant::now() > until {
                return Err(std::io::ErrorKind::TimedOut.into());
            }
            let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
            let _ = rustix::event::poll(&mut [], Some(&pause));
        }
        Ok(Some(peer))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where its packages are: beside this program's target directory, as `cargo xtask peers gate` puts
/// them.
fn installed() -> Option<PathBuf> {
    let program = crate::session::this_program();
    let target = program.parent()?.parent()?;
    let folder = target.join("peers/mitmproxy/python");
    folder.join("mitmproxy").is_dir().then_some(folder)
}
