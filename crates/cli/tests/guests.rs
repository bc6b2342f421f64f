//! Guests: programs of others as the agent, in the sandbox, with only the gate reachable.
//!
//! The first tests drive a small program of our own; the last ones the real harnesses, unmodified:
//! `cargo xtask test` installs them and names their folder in `BEDPLATE_GUESTS_DIR`. When that is
//! set, a missing one is a failure. Who counts the calls is a witness outside: a proxy in front of
//! the scripted model.

mod common;

use common::{Home, Said, binary, json, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};

/// The provider's key: nothing of a sandbox may ever hold it.
const KEY: &str = "sk-canary-8841-of-the-provider";
/// A small agent: it asks a model, runs what it is told, and asks again.
const AGENT: &str = r#"
import json, os, subprocess, sys, urllib.request, urllib.error
url = os.environ["OPENAI_BASE_URL"] + "/chat/completions"
tool = {"type": "function", "function": {"name": "shell", "description": "Runs a command line.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}}}
messages = [{"role": "user", "content": sys.argv[1]}]
while True:
    body = {"model": "default", "messages": messages, "tools": [tool]}
    headers = {"content-type": "application/json",
               "authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    try:
        with urllib.request.urlopen(request) as reply:
            said = json.load(reply)["choices"][0]["message"]
    except urllib.error.HTTPError as error:
        print(error.code, error.read().decode())
        sys.exit(3)
    messages.append(said)
    calls = said.get("tool_calls") or []
    if not calls:
        print(said["content"])
        break
    for call in calls:
        command = json.loads(call["function"]["arguments"])["command"]
        done = subprocess.run(command, shell=True, capture_output=True, text=True)
        text = done.stdout + done.stderr
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
"#;

/// A scripted model, and the proxy before it that counts calls and can hold one back.
struct Provider {
    address: SocketAddr,
    gate: Arc<(Mutex<Gate>, Condvar)>,
    server: Child,
}

#[derive(Default)]
struct Gate {
    /// Calls that came.
    seen: usize,
    /// Whether each showed the provider's key.
    keys: Vec<bool>,
    /// Calls above this number wait.
    let_through: Option<usize>,
}

impl Provider {
    fn start(scratch: &Path, turns: &str) -> Self {
        let file = scratch.join("turns.toml");
        std::fs::write(&file, turns).expect("written");
        let mut server = Command::new(binary())
            .arg("script-server")
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let said = server.stdout.take().expect("piped");
        BufReader::new(said).read_line(&mut line).expect("its address");
        let behind = line.trim().trim_start_matches("http://").trim_end_matches("/v1");
        let behind: SocketAddr = behind.parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let gate: Arc<(Mutex<Gate>, Condvar)> = Arc::default();
        let shared = Arc::clone(&gate);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let gate = Arc::clone(&shared);
                std::thread::spawn(move || carry(stream, behind, &gate));
            }
        });
        Self { address, gate, server }
    }

    fn seen(&self) -> usize {
        self.gate.0.lock().expect("whole").seen
    }

    fn let_through(&self, calls: Option<usize>) {
        self.gate.0.lock().expect("whole").let_through = calls;
        self.gate.1.notify_all();
    }

    /// The tables of a manifest that lead here.
    fn manifest(&self, dialect: &str, model: &str) -> String {
        format!(
            "[routes]\ndefault = [\"local/{model}\"]\n[providers.local]\ndialect = \"{dialect}\"\n\
             base_url = \"http://{}/v1\"\nkey_env = \"LOCAL_KEY\"\ntimeout = \"60s\"\n",
            self.address
        )
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Carries one request, and its reply.
fn carry(mut client: TcpStream, behind: SocketAddr, gate: &(Mutex<Gate>, Condvar)) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|count| *count > 0)?;
        if line == "\r\n" {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.trim().parse().ok()?;
        }
        // One reply a connection, so that its end is seen.
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    wait_in_line(&head, gate)?;
    let mut server = TcpStream::connect(behind).ok()?;
    server.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).ok()?;
    server.write_all(&body).ok()?;
    std::io::copy(&mut server, &mut client).ok()?;
    client.shutdown(std::net::Shutdown::Both).ok()
}

/// Counts a call, and holds it back while it is not let through.
fn wait_in_line(head: &str, gate: &(Mutex<Gate>, Condvar)) -> Option<()> {
    let mut state = gate.0.lock().ok()?;
    state.seen += 1;
    state.keys.push(head.contains(KEY));
    let mine = state.seen;
    while state.let_through.is_some_and(|up_to| mine > up_to) {
        state = gate.1.wait(state).ok()?;
    }
    Some(())
}

/// A project with a manifest, and a home.
struct Place {
    home: Home,
    dir: PathBuf,
}

impl Place {
    fn new(manifest: &str) -> Self {
        let home = Home::new();
        let dir = home.scratch().join("project");
        std::fs::create_dir(&dir).expect("made");
        std::fs::write(dir.join("agent.py"), AGENT).expect("written");
        let place = Self { home, dir };
        place.manifest(manifest);
        place
    }

    fn manifest(&self, text: &str) {
        let permissions = "schema = 1\n[permissions]\npreset = \"observe\"\n";
        std::fs::write(self.dir.join("bedplate.toml"), format!("{permissions}{text}")).expect("ok");
    }

    fn call(&self, arguments: &[&str]) -> Said {
        self.home.bedplate(arguments).env("LOCAL_KEY", KEY).cwd(&self.dir).run()
    }

    fn wrap(&self, command: &[&str]) -> Said {
        self.call(&[&["wrap", "--"], command].concat())
    }

    /// Begins to wrap, and does not wait.
    fn start(&self, command: &[&str], input: Stdio) -> Child {
        Command::new(binary())
            .args(["--home", self.home.path().to_str().expect("UTF-8"), "wrap", "--"])
            .args(command)
            .env("LOCAL_KEY", KEY)
            .current_dir(&self.dir)
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts")
    }

    fn records(&self) -> Vec<Value> {
        let shown = json(&self.call(&["show", "last", "--json"]).stdout);
        shown["records"].as_array().expect("records").clone()
    }

    fn of_kind(&self, kind: &str) -> Vec<Value> {
        self.records().into_iter().filter(|record| record["kind"] == kind).collect()
    }

    fn status(&self) -> String {
        self.home.runs()[0]["status"].as_str().expect("a status").to_owned()
    }

    fn kill_owner(&self) {
        let pid = self.home.owner_pid().expect("an owner").to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill").success());
    }

    /// Brings the guest's changes here, and reads one.
    fn applied(&self, file: &str) -> String {
        let said = self.call(&["apply", "last", "--yes"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        std::fs::read_to_string(self.dir.join(file)).unwrap_or_default()
    }

    /// Files of the home that hold the provider's key.
    fn leaks(&self) -> Vec<PathBuf> {
        let mut left = vec![self.home.path()];
        let mut found = Vec::new();
        while let Some(dir) = left.pop() {
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() && !path.is_symlink() {
                    left.push(path);
                } else if std::fs::read(&path).is_ok_and(|bytes| holds(&bytes, KEY)) {
                    found.push(path);
                }
            }
        }
        found
    }
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

fn turn(text: &str, tool: &str, arguments: &str) -> String {
    format!("[[turn]]\ntext = \"{text}\"\ntool = \"{tool}\"\narguments = {arguments}\n")
}

/// Two commands, then the last word.
fn two_steps() -> String {
    turn("One.", "shell", "{ command = \"echo hello > greeting.txt\" }")
        + &turn("Two.", "shell", "{ command = \"echo again >> greeting.txt\" }")
        + "[[turn]]\ntext = \"The greeting is written.\"\n"
}

#[test]
fn a_guest_works_with_models_it_has_no_key_for() {
    let home = tempfile::tempdir().expect("a directory");
    for dialect in ["chat", "messages", "responses"] {
        let provider = Provider::start(home.path(), &two_steps());
        let place = Place::new(&provider.manifest(dialect, "turns.toml"));
        let said = place.wrap(&["python3", "agent.py", "Write a greeting."]);
        assert_eq!(said.code, 0, "{dialect}: {}{}", said.stdout, said.stderr);
        assert_eq!(said.stdout, "The greeting is written.\n", "{dialect}");
        assert!(said.stderr.contains("chain ok"), "{}", said.stderr);
        assert!(!place.dir.join("greeting.txt").exists(), "nothing changes before `apply`");
        assert_eq!(place.applied("greeting.txt"), "hello\nagain\n", "{dialect}");
        assert_eq!((place.status().as_str(), provider.seen()), ("done", 3));
        assert!(provider.gate.0.lock().expect("whole").keys.iter().all(|shown| *shown));
        let calls = place.of_kind("guest_called");
        assert_eq!((calls.len(), place.of_kind("guest_answered").len()), (3, 3));
        assert_eq!(calls[0]["credential"], "LOCAL_KEY");
        // What grows is kept once: later calls name an earlier one and hold the rest.
        assert_eq!(calls[1]["base"], calls[0]["seq"]);
        assert!(calls[1]["head_bytes"].as_u64() > Some(50), "{}", calls[1]);
        assert_eq!(place.leaks(), Vec::<PathBuf>::new());
        assert_eq!(place.call(&["verify", "last"]).code, 0);
    }
}

#[test]
fn a_guest_sees_no_key_and_no_other_address() {
    let home = tempfile::tempdir().expect("a directory");
    let provider = Provider::start(home.path(), &two_steps());
    let place = Place::new(&provider.manifest("chat", "turns.toml"));
    let probe = format!(
        "env; cat /proc/*/environ | tr '\\0' '\\n'; cat ~/.* 2>/dev/null; \
         python3 -c 'import urllib.request as u; u.urlopen(\"http://{}/v1\", timeout=5)' 2>&1; \
         python3 -c 'import urllib.request as u; u.urlopen(\"http://models.bedplate.internal/v1/models\")' 2>&1",
        provider.address
    );
    let said = place.wrap(&["sh", "-c", &probe]);
    let all = format!("{}{}", said.stdout, said.stderr);
    assert!(all.contains("OPENAI_BASE_URL=http://models.bedplate.internal/v1"), "{all}");
    assert!(!all.contains(KEY), "{all}");
    assert!(all.contains("HTTP Error 401"), "the endpoint wants the run's own key: {all}");
    assert_eq!(provider.seen(), 0, "nothing got past the gate");
    assert!(place.leaks().is_empty());
}

#[test]
fn the_program_s_streams_and_status_are_passed_through() {
    let place = Place::new("");
    let check = |command: &[&str], code: i32| {
        let said = place.wrap(command);
        assert_eq!(said.code, code, "{command:?}: {}{}", said.stdout, said.stderr);
        said
    };
    let said = check(&["sh", "-c", "echo out; echo err >&2; exit 7"], 7);
    assert_eq!(said.stdout, "out\n");
    assert!(said.stderr.contains("err\n") && said.stderr.contains("BP-RUN-020"), "{}", said.stderr);
    check(&["sh", "-c", "kill -TERM $$"], 143);
    let said = check(&["no-such-program"], 127);
    assert!(said.stderr.contains("BP-RUN-021"), "{}", said.stderr);
    check(&["/workspace/agent.py"], 126);
    check(&["true"], 0);
    let mut child = place.start(&["sh", "-c", "cat; echo end"], Stdio::piped());
    let text = "line\n".repeat(50_000);
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("read");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stdout == format!("{text}end\n").as_bytes(), "{}", output.stdout.len());
}

#[test]
fn what_policy_or_budget_does_not_have_is_refused_in_the_guest_s_dialect() {
    let home = tempfile::tempdir().expect("a directory");
    let provider = Provider::start(home.path(), &two_steps());
    let place = Place::new(&provider.manifest("chat", "turns.toml"));
    let check = |status: u64, code: &str| {
        let said = place.wrap(&["python3", "agent.py", "Write a greeting."]);
        assert_eq!(said.code, 3, "{}{}", said.stdout, said.stderr);
        let (shown, body) = said.stdout.split_once(' ').expect("a status and a body");
        assert_eq!(shown, status.to_string());
        assert_eq!(json(body)["error"]["code"], code, "{body}");
        let refused = place.of_kind("guest_refused");
        assert_eq!((refused.len(), &refused[0]["status"]), (1, &Value::from(status)));
        assert_eq!(refused[0]["failure"]["code"], code);
        let explained = place.call(&["explain", "last"]).stdout;
        assert!(explained.contains(code), "{explained}");
    };
    let models = provider.manifest("chat", "turns.toml");
    place.manifest(&format!("{models}[budget]\ntokens = 100\n"));
    check(402, "BP-RUN-002");
    place.manifest(&models);
    let forbid = "forbid(principal, action == Action::\"call_model\", resource);\n\
                  permit(principal, action == Action::\"run_command\", resource);\n";
    std::fs::write(place.dir.join("policy.cedar"), forbid).expect("written");
    check(403, "BP-POLICY-021");
    std::fs::remove_file(place.dir.join("policy.cedar")).expect("removed");
    assert_eq!(provider.seen(), 0, "nothing was sent");
    // Without any model.
    place.manifest("");
    let said = place.wrap(&["python3", "agent.py", "Write a greeting."]);
    assert!(said.stdout.contains("404") || said.stderr.contains("KeyError"), "{}", said.stdout);
}

#[test]
fn the_next_entry_of_the_route_answers_when_one_fails() {
    let home = tempfile::tempdir().expect("a directory");
    let provider = Provider::start(home.path(), &two_steps());
    let models = provider.manifest("chat", "turns.toml");
    let models = models.replace("[\"local/", "[\"dead/x\", \"local/");
    let dead = "[providers.dead]\ndialect = \"chat\"\nbase_url = \"http://127.0.0.1:9/v1\"\n";
    let place = Place::new(&format!("{models}{dead}"));
    let said = place.wrap(&["python3", "agent.py", "Write a greeting."]);
    assert_eq!(said.code, 0, "{}{}", said.stdout, said.stderr);
    let calls = place.of_kind("guest_called");
    let hops: Vec<u64> = calls.iter().filter_map(|call| call["hop"].as_u64()).collect();
    assert_eq!(hops, [0, 1, 0, 1, 0, 1]);
    // The second entry is asked with the body that the first one's record holds.
    assert_eq!(calls[1]["base"], calls[0]["seq"]);
    assert_eq!(calls[1]["head_bytes"], calls[1]["asked_bytes"]);
}

#[test]
fn a_killed_owner_costs_no_answer_that_was_recorded() {
    let home = tempfile::tempdir().expect("a directory");
    let provider = Provider::start(home.path(), &two_steps());
    let place = Place::new(&provider.manifest("chat", "turns.toml"));
    let resumed = killed_and_resumed(&place, &provider, &["python3", "agent.py", "Write."]);
    assert!(resumed.stdout.contains("The greeting is written."), "{}", resumed.stdout);
    // The first answer came from the log; the call that was lost, and the last one, were made.
    assert_eq!(provider.seen(), 4);
    assert_eq!(place.applied("greeting.txt"), "hello\nagain\n", "nothing was done twice");
    assert_eq!(place.of_kind("guest_served").len(), 1);
    assert!(place.of_kind("guest_diverged").is_empty());
    let explained = place.call(&["explain", "last"]).stdout;
    assert!(explained.contains("served from the log"), "{explained}");
    assert!(place.leaks().is_empty());
}

/// Kills the owner when the second call is with the provider, and resumes.
fn killed_and_resumed(place: &Place, provider: &Provider, command: &[&str]) -> Said {
    provider.let_through(Some(1));
    let child = place.start(command, Stdio::null());
    wait_until("the second call", || provider.seen() == 2);
    place.kill_owner();
    let died = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&died.stderr).into_owned();
    assert_eq!(died.status.code(), Some(125), "{said}");
    wait_until("nothing to run on", || place.status() == "suspended");
    provider.let_through(None);
    let resumed = place.call(&["resume", "last"]);
    assert_eq!(resumed.code, 0, "{}{}", resumed.stdout, resumed.stderr);
    assert_eq!(place.status(), "done");
    resumed
}

#[test]
fn a_guest_that_fails_is_started_again_from_the_log() {
    let home = tempfile::tempdir().expect("a directory");
    let provider = Provider::start(home.path(), &two_steps());
    let place = Place::new(&provider.manifest("chat", "turns.toml"));
    // It fails after its work, as long as nobody says otherwise: by what it is told to type.
    let script = "python3 agent.py Write. && cat greeting.txt && read go && test \"$go\" = go";
    let mut child = place.start(&["sh", "-c", script], Stdio::piped());
    child.stdin.take().expect("piped").write_all(b"stop\n").expect("read");
    let failed = child.wait_with_output().expect("it ends");
    assert_eq!((failed.status.code(), place.status().as_str()), (Some(1), "failed"));
    assert_eq!(provider.seen(), 3);
    let mut again = Command::new(binary())
        .args(["--home", place.home.path().to_str().expect("UTF-8"), "resume", "last"])
        .env("LOCAL_KEY", KEY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    again.stdin.take().expect("piped").write_all(b"go\n").expect("read");
    let done = again.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0), "{said}");
    assert!(said.contains("hello\nagain\n") && !said.contains("again\nhello"), "{said}");
    assert_eq!((provider.seen(), place.of_kind("guest_served").len()), (3, 3), "all from the log");
    assert_eq!(place.status(), "done");
    // What is done is not done again.
    assert_eq!(place.call(&["resume", "last"]).code, 0);
    assert_eq!(place.of_kind("guest_served").len(), 3);
}

#[test]
fn where_a_guest_diverges_is_said_once() {
    let home = tempfile::tempdir().expect("a directory");
    let provider = Provider::start(home.path(), &two_steps());
    let place = Place::new(&provider.manifest("chat", "turns.toml"));
    let script = "python3 agent.py \"Write $(date +%N).\"; exit 1";
    assert_eq!(place.wrap(&["sh", "-c", script]).code, 1);
    assert_eq!(provider.seen(), 3);
    let said = place.call(&["resume", "last"]);
    assert_eq!(said.code, 1, "{}", said.stderr);
    assert_eq!(provider.seen(), 6, "another question has another answer");
    let (calls, diverged) = (place.of_kind("guest_called"), place.of_kind("guest_diverged"));
    assert_eq!((diverged.len(), &diverged[0]["expected"]), (1, &calls[0]["seq"]));
    let seq = calls[0]["seq"].as_u64().expect("a number");
    let explained = place.call(&["explain", "last"]).stdout;
    assert!(explained.contains(&format!("the guest diverged from record {seq}")), "{explained}");
    assert!(said.stderr.contains("diverged"), "{}", said.stderr);
}

#[test]
fn what_the_manifest_shows_of_the_host_is_read_only_and_policy_may_forbid_it() {
    let shown = tempfile::tempdir().expect("a directory");
    std::fs::write(shown.path().join("data.txt"), "of the host").expect("written");
    let mounts =
        format!("[sandbox]\nmounts = {{ \"/mnt/data\" = \"{}\" }}\n", shown.path().display());
    let place = Place::new(&mounts);
    let script = "cat /mnt/data/data.txt; echo x > /mnt/data/new || echo refused";
    let said = place.wrap(&["sh", "-c", script]);
    assert_eq!((said.code, said.stdout.as_str()), (0, "of the hostrefused\n"), "{}", said.stderr);
    assert!(!shown.path().join("new").exists());
    let forbid = "permit(principal, action == Action::\"run_command\", resource);\n\
                  forbid(principal, action == Action::\"mount\", resource);\n";
    std::fs::write(place.dir.join("policy.cedar"), forbid).expect("written");
    let said = place.wrap(&["cat", "/mnt/data/data.txt"]);
    assert!(said.code != 0 && !said.stdout.contains("of the host"), "{}", said.stdout);
    assert!(said.stderr.contains("BP-SANDBOX-"), "{}", said.stderr);
}

// The real harnesses.

/// The folder with the harnesses; `None` when nobody asked for them.
fn harnesses() -> Option<PathBuf> {
    std::env::var_os("BEDPLATE_GUESTS_DIR").map(PathBuf::from)
}

fn platform() -> (&'static str, &'static str) {
    if cfg!(target_arch = "aarch64") {
        ("linux-arm64", "aarch64-unknown-linux-musl")
    } else {
        ("linux-x64", "x86_64-unknown-linux-musl")
    }
}

fn program(folder: &Path, path: &str) -> String {
    let program = folder.join(path);
    assert!(program.is_file(), "there is no {}", program.display());
    program.to_str().expect("a plain path").to_owned()
}

/// A harness does its task with models of these dialects, which are not its own: the scripted model
/// does not know what harnesses add to theirs. Then again with its owner killed in the middle.
fn harness_works(dialects: &[&str], turns: &str, mounts: &str, command: &[&str]) {
    let home = tempfile::tempdir().expect("a directory");
    let big = "[sandbox.limits]\nmemory = \"4GiB\"\n";
    for dialect in dialects {
        let provider = Provider::start(home.path(), turns);
        let place =
            Place::new(&format!("{}{mounts}{big}", provider.manifest(dialect, "turns.toml")));
        let said = place.wrap(command);
        assert_eq!(said.code, 0, "{dialect}: {}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains("The greeting is written."), "{}", said.stdout);
        assert_eq!((place.status().as_str(), provider.seen()), ("done", 2), "{dialect}");
        assert_eq!(place.applied("greeting.txt"), "hello\n", "{dialect}");
        assert!(place.leaks().is_empty());
    }
    let provider = Provider::start(home.path(), turns);
    let place =
        Place::new(&format!("{}{mounts}{big}", provider.manifest(dialects[0], "turns.toml")));
    let resumed = killed_and_resumed(&place, &provider, command);
    assert!(resumed.stdout.contains("The greeting is written."), "{}", resumed.stdout);
    assert_eq!(place.of_kind("guest_diverged"), Vec::<Value>::new());
    assert_eq!((place.of_kind("guest_served").len(), provider.seen()), (1, 3));
    assert_eq!(place.applied("greeting.txt"), "hello\n");
}

fn one_step(tool: &str, arguments: &str) -> String {
    turn("I write it.", tool, arguments) + "[[turn]]\ntext = \"The greeting is written.\"\n"
}

#[test]
fn codex_does_its_task_in_the_sandbox_and_catches_up_after_a_crash() {
    let Some(folder) = harnesses() else { return };
    let (system, triple) = platform();
    let path = format!("node_modules/@openai/codex-{system}/vendor/{triple}/bin/codex");
    let codex = program(&folder, &path);
    let turns = one_step("exec_command", "{ cmd = \"echo hello > greeting.txt\" }");
    let command = [&codex, "exec", "--skip-git-repo-check", "Write a greeting."];
    harness_works(&["chat", "messages"], &turns, "", &command);
    // As npm installs it: a program of Node that looks for its own packages.
    let launcher = program(&folder, "node_modules/@openai/codex/bin/codex.js");
    let command = [&launcher, "exec", "--skip-git-repo-check", "Write a greeting."];
    harness_works(&["messages"], &turns, "", &command);
}

#[test]
fn claude_code_does_its_task_in_the_sandbox_and_catches_up_after_a_crash() {
    let Some(folder) = harnesses() else { return };
    let path = format!("node_modules/@anthropic-ai/claude-code-{}/claude", platform().0);
    let claude = program(&folder, &path);
    let arguments =
        "{ command = \"echo hello > greeting.txt\", description = \"Write the greeting\" }";
    let turns = one_step("Bash", arguments);
    harness_works(&["responses", "chat"], &turns, "", &[&claude, "-p", "Write a greeting."]);
}

#[test]
fn a_langgraph_program_does_its_task_in_the_sandbox_and_catches_up_after_a_crash() {
    let Some(folder) = harnesses() else { return };
    let packages = folder.join("python");
    let agent = include_str!("../../models/tests/support/langgraph_agent.py");
    // The packages are those of the Python that installed them, which may not be the system's.
    let prefix =
        Command::new("python3").args(["-c", "import sys; print(sys.base_prefix)"]).output();
    let prefix = String::from_utf8(prefix.expect("python3").stdout).expect("a path");
    let (prefix, packages) = (prefix.trim(), packages.display());
    let mounts = format!(
        "[sandbox]\nmounts = {{ \"/mnt/python\" = \"{prefix}\", \"/mnt/packages\" = \"{packages}\" }}\n"
    );
    let python = if prefix == "/usr" { "/usr/bin/python3" } else { "/mnt/python/bin/python3" };
    let variables = ["PYTHONPATH=/mnt/packages", "LD_LIBRARY_PATH=/mnt/python/lib"];
    let turns = one_step("shell", "{ command = \"echo hello > greeting.txt\" }");
    let command = ["env", variables[0], variables[1], python, "-c", agent, "stream"];
    harness_works(&["messages", "responses"], &turns, &mounts, &command);
}
