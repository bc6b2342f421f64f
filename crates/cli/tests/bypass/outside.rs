//! Starts the world outside, hands it the cases, and reads what came of them.

use crate::hex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, Issuer, KeyPair, date_time_ymd,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use tempfile::TempDir;

/// Stands in whatever must not arrive.
pub(crate) const MARK: &str = "SMUGGLED";
/// What the vault holds.
pub(crate) const SECRET: &str = "value-of-the-vault-4711";
/// The descriptors of a careless parent: a connection, and the root directory.
const DESCRIPTOR: i32 = 77;
const DIRECTORY: i32 = 100;
/// The user inside, where root is only played.
const ORDINARY: u32 = 1000;

/// A policy that permits one domain, one address, and no path below /denied.
const POLICY: &str =
    "permit(principal, action == Action::\"http_request\", resource in Domain::\"ok.test\")
  unless { context.path like \"/denied*\" };
permit(principal, action == Action::\"http_request\", resource == Host::\"93.184.216.34\")
  unless { context.path like \"/denied*\" };
permit(principal, action == Action::\"use_secret\", resource) when { context.host == \"ok.test\" };
permit(principal, action == Action::\"run_command\", resource);
";

/// Under what the sandbox runs.
pub(crate) struct Opened<'a> {
    pub(crate) policy: &'a str,
    /// Parts of the containment to leave out, where the build can.
    pub(crate) weaken: Option<&'a str>,
    pub(crate) sandbox: Sandbox,
}

/// What contains the program.
#[derive(Debug, Clone)]
pub(crate) enum Sandbox {
    Bedplate,
    /// bubblewrap with the host's network and a proxy variable.
    Bwrap,
    /// Anthropic's sandbox runtime: its `cli.js`.
    Srt(PathBuf),
}

impl Default for Opened<'_> {
    fn default() -> Self {
        Self { policy: POLICY, weaken: None, sandbox: Sandbox::Bedplate }
    }
}

/// What was seen outside until a moment.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Seen {
    /// Requests that servers got.
    pub(crate) requests: u64,
    /// Connections that began.
    pub(crate) syn: Vec<String>,
    /// Packets of other kinds, and connections to Unix sockets.
    pub(crate) other: Vec<String>,
    /// Names that the name server was asked for.
    pub(crate) names: Vec<String>,
}

impl Seen {
    /// What came since, for people.
    pub(crate) fn until(&self, later: &Self) -> String {
        let new = |list: &[String], from: usize| list.get(from..).unwrap_or_default().join(", ");
        format!(
            "{} requests, connections to [{}], packets to [{}], names [{}]",
            later.requests - self.requests,
            new(&later.syn, self.syn.len()),
            new(&later.other, self.other.len()),
            new(&later.names, self.names.len())
        )
    }
}

/// One case's record.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) attack: Value,
    pub(crate) control: Value,
    pub(crate) before: Seen,
    pub(crate) between: Seen,
    pub(crate) after: Seen,
    /// Both acts, for people.
    pub(crate) took_ms: u64,
}

/// All that arrived.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) names: Vec<String>,
    /// While something was tried that must not get through.
    attack: Vec<u8>,
    control: Vec<u8>,
}

impl Last {
    /// Whether a mark arrived that may not.
    pub(crate) fn arrived(&self, mark: &str) -> bool {
        self.attack.windows(mark.len()).any(|window| window == mark.as_bytes())
    }

    /// Whether the secret reached its host, and whether it reached another.
    pub(crate) fn secrets(&self) -> (bool, bool) {
        let text = [self.attack.as_slice(), &self.control].concat();
        let text = String::from_utf8_lossy(&text).to_lowercase();
        let heads = text.split("\r\n\r\n").filter(|head| head.contains(SECRET));
        let (mut home, mut abroad) = (false, false);
        for head in heads {
            let at_home = head.lines().any(|line| line == "host: ok.test");
            home |= at_home;
            abroad |= !at_home;
        }
        (home, abroad)
    }
}

fn unhex(text: &Value) -> Vec<u8> {
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).expect("hexadecimal");
        u8::from_str_radix(text, 16).expect("hexadecimal")
    };
    let bytes: Vec<u8> = text.as_str().unwrap_or_default().as_bytes().chunks(2).map(byte).collect();
    assert_eq!(Some(hex(&bytes).as_str()), text.as_str());
    bytes
}

/// The running world.
pub(crate) struct World {
    dir: TempDir,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Iterator for World {
    type Item = Found;

    /// The next case's record; none when the world has ended.
    fn next(&mut self) -> Option<Found> {
        let line = self.lines.next()?.ok()?;
        Some(serde_json::from_str(&line).expect("the world speaks JSON"))
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn bedplate() -> PathBuf {
    let here = || PathBuf::from(env!("CARGO_BIN_EXE_bedplate"));
    std::env::var_os("BEDPLATE_BIN").map_or_else(here, PathBuf::from)
}

/// A servers' certificate and its key.
fn certificate(
    dir: &Path,
    name: &str,
    names: &[&str],
    issuer: &Issuer<'_, KeyPair>,
    expired: bool,
) {
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names");
    if expired {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
    }
    let leaf = params.signed_by(&key, issuer).expect("a leaf");
    std::fs::write(dir.join(format!("{name}.pem")), leaf.pem()).expect("written");
    std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    CertifiedIssuer::self_signed(params, key).expect("an authority")
}

/// A project with the policy, the program and the certificates.
fn project(dir: &Path, opened: &Opened<'_>) {
    let (trusted, foreign) = (authority(), authority());
    let good = ["tls.ok.test", "other.ok.test", "api.tls.ok.test", "ok.test", "secret.ok.test"];
    certificate(dir, "good", &good, &trusted, false);
    certificate(dir, "expired", &["expired.ok.test"], &trusted, true);
    certificate(dir, "foreign", &["foreign.ok.test"], &foreign, false);
    let project = dir.join("p");
    std::fs::create_dir_all(project.join("w")).expect("made");
    let write = |name: &str, text: &str| std::fs::write(project.join(name), text).expect("written");
    write("ca.pem", &trusted.pem());
    write("policy.cedar", opened.policy);
    write("w/inside.py", include_str!("inside.py"));
    write(
        "bedplate.toml",
        "schema = 1\n[agent]\nname = \"corpus\"\ninstructions = \"none\"\nmodel = \"default\"\n\
         [routes]\ndefault = [\"script/turns.toml\"]\n[network]\ntrust = [\"ca.pem\"]\n\
         [secrets]\nTOKEN = \"api\"\n",
    );
    write("turns.toml", "");
    let mut set = Command::new(bedplate());
    set.args(["secret", "set", "api"]).env("BEDPLATE_HOME", dir.join("h"));
    let mut set = set.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
    set.stdin.take().expect("piped").write_all(SECRET.as_bytes()).expect("written");
    assert!(set.wait().expect("it ends").success());
}

/// What runs the driver inside, and what it has in its environment besides.
fn inside(sandbox: &Sandbox, dir: &Path) -> (Vec<String>, Value) {
    let own = bedplate().to_string_lossy().into_owned();
    let (project, settings) = (dir.join("p"), dir.join("srt.json").to_string_lossy().into_owned());
    let folder = project.join("w").to_string_lossy().into_owned();
    let id = ORDINARY.to_string();
    let mut words: Vec<&str> = match is_root() {
        true => Vec::new(),
        false => vec!["unshare", "--user", "--map-user", &id, "--map-group", &id],
    };
    let cli;
    let mut env = json!({});
    match sandbox {
        Sandbox::Bedplate => {
            words.extend([&*own, "sandbox", "run", "--workspace", "w", "--policy"]);
            words.extend(["bedplate.toml", "--", "/usr/bin/python3", "inside.py"]);
        }
        Sandbox::Bwrap => {
            words.extend(["bwrap", "--unshare-all", "--share-net", "--die-with-parent"]);
            words.extend(["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]);
            words.extend(["--tmpfs", "/tmp", "--bind", &folder, "/mnt", "--chdir", "/mnt"]);
            words.extend(["/usr/bin/python3", "inside.py"]);
            let proxy = "http://127.0.0.1:3129";
            env = json!({ "http_proxy": proxy, "https_proxy": proxy, "all_proxy": proxy });
        }
        Sandbox::Srt(path) => {
            cli = path.to_string_lossy().into_owned();
            let allowed = ["ok.test", "*.ok.test", "93.184.216.34"];
            let text = json!({
                "network": { "allowedDomains": allowed, "deniedDomains": [] },
                "filesystem": { "denyRead": [], "allowWrite": ["."], "denyWrite": [] },
            });
            std::fs::write(&settings, text.to_string()).expect("written");
            words.extend(["node", &cli, "--settings", &settings, "--"]);
            words.extend(["/usr/bin/python3", "w/inside.py"]);
        }
    }
    (words.into_iter().map(str::to_owned).collect(), env)
}

impl World {
    pub(crate) fn start(opened: &Opened<'_>, cases: &[Value]) -> Self {
        let dir = tempfile::Builder::new().prefix("bpt").tempdir().expect("a directory");
        let path = dir.path();
        project(path, opened);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let unique = text(path.file_name().expect("a name").into());
        let socket = text(path.join("host.sock"));
        let mut env = json!({
            "PATH": std::env::var("PATH").unwrap_or_default(), "HOME": path, "LOGNAME": "ada",
            "BEDPLATE_HOME": path.join("h"), "SSH_AUTH_SOCK": socket,
        });
        if let Some(weaken) = opened.weaken {
            env["BEDPLATE_WEAKEN"] = weaken.into();
        }
        let known = [("{socket}", socket.as_str()), ("{abstract}", unique.as_str())];
        let cases = known
            .iter()
            .fold(json!(cases).to_string(), |all, (mark, value)| all.replace(mark, value));
        let (argv, inside_env) = inside(&opened.sandbox, path);
        let plan = json!({
            "dir": path, "project": path.join("p"), "root": is_root(), "env": env,
            "sockets": [socket, format!("@{unique}")], "descriptor": DESCRIPTOR, "directory": DIRECTORY,
            "inside": argv, "inside_env": inside_env,
            "proxy": matches!(opened.sandbox, Sandbox::Bwrap),
            "beside": ["/usr/bin/python3", "w/inside.py"],
            "cases": serde_json::from_str::<Value>(&cases).expect("still JSON"),
        });
        std::fs::write(path.join("plan.json"), plan.to_string()).expect("written");
        std::fs::write(path.join("outside.py"), include_str!("outside.py")).expect("written");
        let own: &[&str] = if is_root() { &[] } else { &["--user", "--map-root-user"] };
        let mut child = Command::new("unshare")
            .args(own)
            .args(["--net", "--mount", "--ipc", "--", "/usr/bin/python3"])
            .args([path.join("outside.py"), path.join("plan.json")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare and python3 are installed");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { dir, child, lines }
    }

    /// The end of a world: all that arrived in it.
    pub(crate) fn end(mut self) -> Last {
        let line = self.lines.next().and_then(Result::ok).unwrap_or_else(|| self.trouble());
        let last: Value = serde_json::from_str(&line).expect("the world speaks JSON");
        let names = last["names"].as_array().into_iter().flatten();
        assert!(self.child.wait().expect("it ends").success(), "{}", self.trouble());
        let names = names.filter_map(|name| name.as_str().map(str::to_owned)).collect();
        Last { names, attack: unhex(&last["attack"]), control: unhex(&last["control"]) }
    }

    /// What the sandbox said when the world ended early.
    pub(crate) fn trouble(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("inside.err")).unwrap_or_default()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
