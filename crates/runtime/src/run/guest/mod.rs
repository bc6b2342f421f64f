//! A guest: a program of others that is the agent. Here it is started, watched and ended; its calls
//! of models are in [`calls`].
//!
//! It is one action of the run. It sees the workspace, its own home with what its recipe writes
//! there, the environment of any command, and the name of the model endpoint. It never sees a key
//! of a provider. What it prints goes to whoever watches, and is kept like any command's output.

mod calls;
mod terminal;

pub(super) use calls::Calls;

use super::RunTask;
use super::effect_kinds::{OUTPUT_KEPT_BYTES_MAX, Outcome, Ran, judge};
use super::network::Net;
use crate::error::RuntimeError;
use crate::seats::{Printed, Screen, Stage};
use gate::{GuestModels, MODELS_HOST};
use models::guest::recipes::{self, Applied, Setting};
use sandbox::{
    ExecExit, ExecSpec, FileOp, HOME_INSIDE, Running, SandboxError, SandboxId, Spawner, Stdin,
    Stream, Terminal, WORKSPACE,
};
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use types::manifest::{Manifest, SCRIPT_PROVIDER};
use types::{ActionId, Digest, OutcomeStatus, RunId};

/// Where a guest finds its programs. The first directory is where `wrap` shows some of the host.
pub(super) const GUEST_PATH: &str = "/mnt/guest/bin:/usr/local/bin:/usr/bin:/bin";
/// Exit status of a program that was found and could not be executed.
const NOT_EXECUTABLE: i32 = 126;
/// Exit status of a program that was not found.
const NOT_FOUND: i32 = 127;
/// Bytes of the name of a kind of terminal.
const TERM_BYTES_MAX: usize = 64;
/// Hexadecimal digits of a run's key for the endpoint.
const TOKEN_DIGITS: usize = 32;
/// Longest life of a guest whose budget does not say, milliseconds: a day.
const GUEST_MS_MAX: u64 = 86_400_000;

/// What the endpoint of a run's sandboxes knows; nothing, when the agent is no guest.
pub(super) fn models_of(run: &RunId, manifest: &Manifest) -> Option<GuestModels> {
    if !manifest.is_guest() {
        return None;
    }
    let mut names = vec![model_name(manifest)];
    names.extend(manifest.routes.keys().cloned());
    names.dedup();
    Some(GuestModels { token: token(run), names })
}

/// What a guest shows as its key: it opens nothing but the endpoint of its own sandbox.
fn token(run: &RunId) -> String {
    let digest = Digest::of_parts("bedplate guest key 1", &[run.as_str().as_bytes()]);
    format!("bprun-{}", &digest.to_string()[..TOKEN_DIGITS])
}

/// The model that the route names first: harnesses choose their tools by it.
fn model_name(manifest: &Manifest) -> String {
    let route = manifest.routes.get(&manifest.agent.model);
    let Some(entry) = route.and_then(|route| route.first()) else {
        return manifest.agent.model.clone();
    };
    let script = entry.provider == SCRIPT_PROVIDER;
    let name = if script { entry.model.rsplit('/').next() } else { None };
    name.unwrap_or(&entry.model).to_owned()
}

impl RunTask {
    /// Runs the guest from its start to its end. `None`: stopped by a person in the middle.
    pub(super) async fn run_guest(
        &mut self,
        id: ActionId,
        command: &[String],
    ) -> Result<Option<Outcome>, RuntimeError> {
        let grounds = self.grounds();
        let rules = self.path_rules()?;
        let manifest = self.state.manifest().clone();
        let parts = Arc::clone(&self.parts);
        let prints = self.prints().map_err(RuntimeError::Part)?;
        let opened = self.world.open(&parts, &manifest, &grounds, rules, prints).await;
        let (sandbox, trees) = opened?;
        self.ensure_served().await?;
        let applied = self.recipe(command, &manifest);
        self.furnish(&sandbox, &applied).await?;
        let timeout_ms = self.time_left();
        let stage = parts.seats.stage(&self.run);
        let mut env = self.network_environment();
        env.push(("PATH".to_owned(), GUEST_PATH.to_owned()));
        env.extend(applied.env);
        if let Some(screen) = stage.as_ref().and_then(|stage| stage.screen.as_ref()) {
            env.push(("TERM".to_owned(), kind_of(&screen.borrow())));
        }
        let spec = ExecSpec {
            argv: applied.command,
            env,
            timeout_ms: Some(timeout_ms),
            stdin: if stage.is_some() { Stdin::Pipe } else { Stdin::Null },
            // It is cut where it is kept; who watches sees all of it.
            output_bytes_max: u64::MAX,
            trees,
            trust: self.world.net.as_ref().map(Net::bundle),
            ..ExecSpec::default()
        };
        let ran = self.unless_stopped(follow(parts.spawner.clone(), sandbox, spec, stage)).await;
        self.settle_calls(ran.is_some()).await?;
        let labels = self.settle_network().await?;
        let Some(ran) = ran else {
            return Ok(None);
        };
        let mut outcome = match ran {
            Ok(ran) => self.ended(id, ran, timeout_ms).await?,
            Err(error) => not_started(&error)?,
        };
        outcome.labels = labels;
        Ok(Some(outcome))
    }

    fn recipe(&self, command: &[String], manifest: &Manifest) -> Applied {
        let (base_url, token) = (format!("http://{MODELS_HOST}"), token(&self.run));
        let model = model_name(manifest);
        let setting =
            Setting { base_url: &base_url, token: &token, model: &model, workspace: WORKSPACE };
        recipes::apply(command, &setting)
    }

    /// Writes the recipe's files into the guest's home, which is new.
    async fn furnish(&self, sandbox: &SandboxId, applied: &Applied) -> Result<(), RuntimeError> {
        for (path, contents) in &applied.files {
            let path = format!("{HOME_INSIDE}/{path}");
            let op = FileOp::Write { path, bytes: contents.clone().into_bytes() };
            let written = self.parts.spawner.file_op(sandbox, op, None).await;
            written.map_err(|error| RuntimeError::part(&error))?;
        }
        Ok(())
    }

    /// How long the guest may live.
    fn time_left(&self) -> u64 {
        let budget = self.state.manifest().budget.wall_ms;
        let spent = self.state.spent.wall_ms;
        budget.map_or(GUEST_MS_MAX, |wall| wall.saturating_sub(spent)).max(1)
    }

    /// The outcome of a guest that has ended: what it changed is kept, however it ended, so that a
    /// person can look at it.
    async fn ended(
        &mut self,
        id: ActionId,
        ran: Ran,
        timeout_ms: u64,
    ) -> Result<Outcome, RuntimeError> {
        let parts = Arc::clone(&self.parts);
        let sealed = self.world.settle(&parts, true).await?;
        let (status, note) = judge(&ran.exit, timeout_ms);
        let total = ran.output.len() as u64 + ran.dropped_bytes;
        let mut outcome = self.readable(id, ran.output, total, &note).await?;
        outcome.status = status;
        outcome.exit = Some(ran.exit.ended.status());
        outcome.sealed = sealed;
        outcome.took_ms = ran.exit.took_ms;
        Ok(outcome)
    }
}

/// What the terminal is, when that is a plain word.
fn kind_of(screen: &Screen) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+');
    let kind = screen.kind.as_str();
    let good = !kind.is_empty() && kind.len() <= TERM_BYTES_MAX && kind.bytes().all(plain);
    if good { kind.to_owned() } else { "dumb".to_owned() }
}

/// Starts a guest and follows it to its end: on a terminal where it is to have one.
async fn follow(
    spawner: Spawner,
    sandbox: SandboxId,
    spec: ExecSpec,
    mut stage: Option<Stage>,
) -> Result<Ran, SandboxError> {
    let screen = stage.as_mut().and_then(|stage| stage.screen.take());
    let (Some(stage), Some(screen)) = (stage.take_if(|_| screen.is_some()), screen) else {
        return watch(spawner.exec(&sandbox, spec).await?, stage).await;
    };
    let (rows, columns) = (screen.borrow().rows, screen.borrow().columns);
    let terminal = Terminal::open(rows, columns)?;
    let running = spawner.exec_with(&sandbox, spec, [terminal.program(); 3]).await?;
    terminal::watch(running, terminal, stage, screen).await
}

/// The command of a step, before the eyes of who took it.
pub(super) async fn perform(
    spawner: Spawner,
    sandbox: SandboxId,
    mut spec: ExecSpec,
    stage: Stage,
) -> Result<Ran, SandboxError> {
    if let Some(screen) = &stage.screen {
        spec.env.push(("TERM".to_owned(), kind_of(&screen.borrow())));
    }
    spec.stdin = Stdin::Pipe;
    // It is cut where it is kept; who watches sees all of it.
    spec.output_bytes_max = u64::MAX;
    follow(spawner, sandbox, spec, Some(stage)).await
}

/// A program that is not there, or is none, is an answer and no fault of ours.
fn not_started(error: &SandboxError) -> Result<Outcome, RuntimeError> {
    let exit = match error {
        SandboxError::ProgramNotFound { .. } => NOT_FOUND,
        SandboxError::ProgramNotExecutable { .. } => NOT_EXECUTABLE,
        _ => return Err(RuntimeError::part(error)),
    };
    let mut outcome = Outcome::text(OutcomeStatus::NotStarted, error.to_string());
    outcome.exit = Some(exit);
    Ok(outcome)
}

/// What a guest printed: shown to whoever watches, and kept up to a limit.
struct Kept {
    output: Vec<u8>,
    dropped_bytes: u64,
    seen: Option<mpsc::Sender<Printed>>,
}

impl Kept {
    const fn new(seen: Option<mpsc::Sender<Printed>>) -> Self {
        Self { output: Vec::new(), dropped_bytes: 0, seen }
    }

    async fn take(&mut self, error: bool, bytes: Vec<u8>) {
        let room = (OUTPUT_KEPT_BYTES_MAX as usize).saturating_sub(self.output.len());
        let kept = room.min(bytes.len());
        self.output.extend_from_slice(&bytes[..kept]);
        self.dropped_bytes += (bytes.len() - kept) as u64;
        if let Some(seen) = &self.seen
            && seen.send(Printed { error, bytes }).await.is_err()
        {
            self.seen = None;
        }
    }

    fn ran(self, exit: ExecExit) -> Ran {
        Ran { output: self.output, dropped_bytes: self.dropped_bytes, exit }
    }
}

/// Follows a guest with plain streams to its end.
async fn watch(mut running: Running, stage: Option<Stage>) -> Result<Ran, SandboxError> {
    let seen = stage.map(|stage| {
        type_into(&mut running, stage.input);
        stage.output
    });
    let mut kept = Kept::new(seen);
    while let Some(chunk) = running.next().await {
        kept.take(chunk.stream == Stream::Stderr, chunk.bytes).await;
    }
    Ok(kept.ran(running.exit().await?))
}

/// Passes on what is typed, until it ends or the guest reads no more.
fn type_into(running: &mut Running, mut input: mpsc::Receiver<Vec<u8>>) {
    let Some(mut stdin) = running.take_stdin() else { return };
    tokio::spawn(async move {
        while let Some(bytes) = input.recv().await {
            if stdin.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_is_told_the_route_s_first_model() {
        let check = |routes: &str, expected: &str| {
            let text = format!("schema = 1\n[agent]\ncommand = [\"x\"]\n{routes}");
            let manifest = types::manifest::parse(&text).expect("valid");
            assert_eq!(model_name(&manifest), expected, "{routes}");
        };
        check("", "default");
        check("[routes]\ndefault = [\"openai/gpt-5.4\", \"script/x\"]", "gpt-5.4");
        check("[routes]\ndefault = [\"openrouter/openai/gpt-5.4\"]", "openai/gpt-5.4");
        check("[routes]\ndefault = [\"script/a/turns.toml\"]", "turns.toml");
    }

    #[test]
    fn a_kind_of_terminal_is_a_plain_word() {
        let check = |kind: &str, expected: &str| {
            let screen = Screen { kind: kind.to_owned(), ..Screen::default() };
            assert_eq!(kind_of(&screen), expected, "{kind}");
        };
        check("xterm-256color", "xterm-256color");
        check("", "dumb");
        check("a b", "dumb");
        check("../x", "dumb");
        check(&"x".repeat(TERM_BYTES_MAX), &"x".repeat(TERM_BYTES_MAX));
        check(&"x".repeat(TERM_BYTES_MAX + 1), "dumb");
    }

    #[test]
    fn a_run_s_key_is_its_own() {
        let (one, other) = (RunId::from_random([1; 8]), RunId::from_random([2; 8]));
        assert_ne!(token(&one), token(&other));
        assert_eq!(token(&one), token(&one));
    }
}
