//! `sandbox run`: one command in a new sandbox, which is dropped afterwards.
//!
//! No owner and no run: the layers lie in a temporary directory that goes with the command, and this
//! process holds its own spawner, and with `--policy` its own gate, whose decisions it leaves in the
//! home. With `--image` the image is kept in the home. Without either nothing is in the home; without
//! `--policy` nothing reaches outward. What always holds:
//! the command's own exit status is passed on; ours are 2 (a mistake on the command line or in the
//! policy) and 125.

pub(super) mod contents;
pub(super) mod kept;
mod network;
pub(super) mod verbs;

use super::files::part;
use crate::error::{CliError, Failed, Result, exit};
use crate::session::{Session, block_on, existing_dir};
use ::image::Held;
use ::sandbox::layers::LayerStore;
use ::sandbox::{
    CreateSpec, Ended, ExecSpec, Overlay, SandboxError, SandboxId, Spawner, SpawnerConfig,
};
use network::{Governed, governed};
use policy::{DecisionInput, PolicySet, Principal};
use runtime::Outside;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};
use types::manifest::Limits;
use types::{ActionRequest, LayerId, Verdict};

/// Exit status of a command that was found and could not be executed.
const NOT_EXECUTABLE: u8 = 126;
/// Exit status of a command that was not found.
const NOT_FOUND: u8 = 127;
/// Added to a signal's number.
const BY_SIGNAL: i32 = 128;

/// `sandbox run`.
fn run(
    session: &Session,
    workspace: Option<&Path>,
    policy: Option<&Path>,
    image: Option<&str>,
    command: Vec<String>,
) -> Result<u8> {
    let workspace = workspace.map(workspace_dir).transpose()?;
    let image = image.map(|text| super::image::ensured(session, text)).transpose();
    let image = image.map_err(of_ours)?.flatten();
    let (command, cwd) = program(command, image.as_ref())?;
    let governed = policy.map(|file| governed(file, &command)).transpose()?;
    let begun = Begun { session, workspace, governed, image, command, cwd };
    // An overlay cannot be the upper of another: in many containers only the home's device serves.
    let places = [std::env::temp_dir(), session.home.path().to_owned()];
    let mut done = begun.in_place(&places[0]);
    if done.as_ref().is_err_and(|failed| failed.failure.code == CANNOT_OVERLAY) {
        done = in_home(session, |home| begun.in_place(home));
    }
    done.map_err(of_ours)
}

fn of_ours(failed: Failed) -> Failed {
    if failed.exit == exit::FAILED { failed.with_exit(exit::SANDBOX_OWN) } else { failed }
}

/// What to run and where: the command that was typed, in the workspace; or the image's own, where
/// the image wants it.
fn program(command: Vec<String>, image: Option<&Held>) -> Result<(Vec<String>, Option<String>)> {
    let settings = image.map(|held| &held.image.settings).filter(|_| command.is_empty());
    let Some(settings) = settings else {
        if command.is_empty() {
            let message = "there is no command, and the host has none of its own".to_owned();
            return Err(CliError::Usage { message, help: "sandbox".to_owned() }.into());
        }
        return Ok((command, None));
    };
    let own: Vec<String> = settings.entrypoint.iter().chain(&settings.command).cloned().collect();
    if own.is_empty() {
        let message = "the image has no command of its own: name one after --".to_owned();
        return Err(CliError::Usage { message, help: "sandbox".to_owned() }.into());
    }
    let workdir = Some(settings.workdir.clone()).filter(|dir| !dir.is_empty());
    Ok((own, workdir))
}

/// The workspace cannot be mounted where it is.
const CANNOT_OVERLAY: &str = "BP-SANDBOX-005";

/// Works in the home, which is left as it was: not there, when it was not there.
fn in_home<T>(session: &Session, work: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let home = session.home.path();
    let existed = home.exists();
    session.home.prepare()?;
    let done = work(home);
    if !existed {
        let _ = std::fs::remove_dir(home);
    }
    done
}

fn workspace_dir(path: &Path) -> Result<PathBuf> {
    existing_dir(path).ok_or_else(|| {
        let reason = match path.metadata() {
            Ok(_) => "it is not a directory".to_owned(),
            Err(error) => error.to_string(),
        };
        runtime::RuntimeError::Workspace { path: path.to_owned(), reason }.into()
    })
}

/// Asks `run_command`, where the policy speaks of it at all.
fn permit(set: &PolicySet, principal: Principal, command: &[String]) -> Result<()> {
    let speaks = set.table().iter().any(|row| matches!(row.action.as_str(), "run_command" | "any"));
    if !speaks {
        return Ok(());
    }
    let line: Vec<String> = command.iter().map(|word| crate::session::quoted(word)).collect();
    let request = ActionRequest::RunCommand { tool: "shell".to_owned(), command: line.join(" ") };
    let decision = set.decide(&DecisionInput::new(principal, request));
    if decision.verdict == Verdict::Permit {
        return Ok(());
    }
    let reason = match decision.verdict {
        Verdict::Ask => {
            "the policy wants a person's approval, which `sandbox run` cannot ask".to_owned()
        }
        _ => decision.reason,
    };
    let next = "Permit run_command in the policy, or leave --policy out.".to_owned();
    Err(CliError::CannotAllow { reason: format!("the command is denied: {reason}"), next }.into())
}

/// How a sandbox is contained: wholly.
#[cfg(not(feature = "weakened"))]
fn containment() -> SpawnerConfig {
    SpawnerConfig::default()
}

/// Without the parts that `BEDPLATE_WEAKEN` names: for tests, in a build of theirs.
#[cfg(feature = "weakened")]
fn containment() -> SpawnerConfig {
    let named = std::env::var("BEDPLATE_WEAKEN").unwrap_or_default();
    let parts = named.split(',').filter(|name| !name.is_empty());
    let part = |name: &str| {
        let all = ::sandbox::Weaken::ALL.into_iter().chain([::sandbox::Weaken::SelfProbe]);
        all.into_iter().find(|part| format!("{part:?}") == name).expect("a part of the containment")
    };
    SpawnerConfig { weaken: parts.map(part).collect() }
}

/// What is to be run.
struct Begun<'a> {
    session: &'a Session,
    workspace: Option<PathBuf>,
    governed: Option<Governed>,
    image: Option<Held>,
    command: Vec<String>,
    cwd: Option<String>,
}

impl Begun<'_> {
    /// Runs it with its layers in a temporary directory below `place`.
    fn in_place(&self, place: &Path) -> Result<u8> {
        let temporary = tempfile::Builder::new().prefix("bedplate-").tempdir_in(place);
        let temporary = temporary.map_err(|e| own(format!("a temporary directory: {e}")))?;
        let layers = LayerStore::open(temporary.path()).map_err(|error| part(&error))?;
        let base = base(&layers, self.workspace.as_deref())?;
        let bundle = temporary.path().join("certificates.pem");
        let done = block_on(self.live(&layers, &base, &bundle));
        // What the command wrote may have odd modes; the layer store knows how to remove it.
        let _ = layers.remove_unreferenced(&std::collections::BTreeSet::new());
        done
    }
}

fn base(layers: &LayerStore, workspace: Option<&Path>) -> Result<LayerId> {
    let made = match workspace {
        Some(dir) => layers.import(dir, Limits::default().disk_bytes).map(|import| import.layer),
        None => layers.empty(),
    };
    made.map_err(|error| part(&error))
}

fn own(what: String) -> Failed {
    let what_failed = "the sandbox could not be prepared".to_owned();
    let failed = Failed::from(CliError::Io { what: what_failed, reason: what });
    failed.with_exit(exit::SANDBOX_OWN)
}

impl Begun<'_> {
    /// The sandbox's whole life.
    async fn live(&self, layers: &LayerStore, base: &LayerId, bundle: &Path) -> Result<u8> {
        let exe = crate::session::this_program();
        let spawner = Spawner::start(&exe, containment()).await.map_err(|e| part(&e))?;
        let upper = layers.begin(base).map_err(|error| part(&error))?;
        let status = self.inside(&spawner, upper.overlay(), bundle).await;
        spawner.close().await;
        let _ = layers.discard(upper);
        status
    }

    async fn inside(&self, spawner: &Spawner, overlay: Overlay, bundle: &Path) -> Result<u8> {
        let rules = self.governed.as_ref().map(|governed| governed.rules.clone());
        let rules = rules.unwrap_or_default();
        let root = self.image.as_ref().map(|held| held.root.clone());
        let spec = CreateSpec { rules, root, ..CreateSpec::new(overlay) };
        let mut program = ExecSpec { cwd: self.cwd.clone(), ..ExecSpec::new(self.command.clone()) };
        let Some(governed) = &self.governed else {
            let sandbox = spawner.create(spec).await.map_err(|error| part(&error))?;
            return self.exec(spawner, &sandbox.id, program, None).await;
        };
        let made = spawner.create_with_network(spec).await;
        let (sandbox, listeners) = made.map_err(|error| part(&error))?;
        let mut outside = governed.open(self.session, listeners, bundle).await?;
        program.env = outside.environment();
        program.trust = Some(bundle.to_owned());
        let status = self.exec(spawner, &sandbox.id, program, Some(&mut outside)).await;
        outside.close().await;
        status
    }

    /// Runs the command on our own streams and waits for it, serving its network meanwhile.
    async fn exec(
        &self,
        spawner: &Spawner,
        sandbox: &SandboxId,
        program: ExecSpec,
        outside: Option<&mut Outside>,
    ) -> Result<u8> {
        let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
        let streams = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
        let started = spawner.exec_with(sandbox, program, streams).await;
        let mut running = match started {
            Ok(running) => running,
            Err(error) => return not_started(&error),
        };
        let mut ends = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(|kind| (kind.as_raw_value(), signal(kind)));
        let [(int, interrupt), (term, terminate), (hup, hangup)] = &mut ends;
        let exited = tokio::select! {
            exited = running.exit() => exited,
            never = network::serve(self.session, outside) => match never {},
            () = came(interrupt) => return ended_by(spawner, sandbox, *int).await,
            () = came(terminate) => return ended_by(spawner, sandbox, *term).await,
            () = came(hangup) => return ended_by(spawner, sandbox, *hup).await,
        };
        match exited {
            Ok(exit) => Ok(status_of(exit.ended)),
            Err(error) => not_started(&error),
        }
    }
}

async fn came(signal: &mut std::io::Result<tokio::signal::unix::Signal>) {
    match signal {
        Ok(signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

async fn ended_by(spawner: &Spawner, sandbox: &SandboxId, signal: i32) -> Result<u8> {
    let _ = spawner.kill_all(sandbox).await;
    Ok(status_of(Ended::Signal(signal)))
}

/// As a shell counts.
fn status_of(ended: Ended) -> u8 {
    let status = match ended {
        Ended::Code(code) => code,
        Ended::Signal(number) => BY_SIGNAL + number,
    };
    u8::try_from(status & 0xff).unwrap_or(exit::SANDBOX_OWN)
}

fn not_started(error: &SandboxError) -> Result<u8> {
    let status = match error {
        SandboxError::ProgramNotFound { .. } => NOT_FOUND,
        SandboxError::ProgramNotExecutable { .. } => NOT_EXECUTABLE,
        _ => exit::SANDBOX_OWN,
    };
    Err(part(error).with_exit(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::sandbox::FsRules;

    #[test]
    fn a_command_s_end_is_a_shell_s_status() {
        let check = |ended: Ended, expected: u8| assert_eq!(status_of(ended), expected);
        check(Ended::Code(0), 0);
        check(Ended::Code(125), 125);
        check(Ended::Signal(9), 137);
        check(Ended::Signal(64), 192);
    }

    fn policy(text: &str, command: &[&str]) -> std::result::Result<FsRules, (String, u8)> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("p.cedar");
        std::fs::write(&file, text).expect("written");
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let governed = governed(&file, &command);
        governed.map(|found| found.rules).map_err(|failed| (failed.failure.code, failed.exit))
    }

    #[test]
    fn a_policy_that_speaks_of_commands_decides_them() {
        let check = |text: &str, expected: std::result::Result<(), (&str, u8)>| {
            let got = policy(text, &["ls", "-l"]);
            let got = got.as_ref().map(drop).map_err(|(code, exit)| (code.as_str(), *exit));
            assert_eq!(got, expected, "{text}");
        };
        let denied = Err(("BP-CLI-011", 2));
        check("", Ok(()));
        check(
            "forbid(principal, action == Action::\"read_file\", resource == Path::\"/workspace/key\");",
            Ok(()),
        );
        check("permit(principal, action == Action::\"run_command\", resource);", Ok(()));
        check(
            "permit(principal, action == Action::\"run_command\", resource) when { context.command == \"ls -l\" };",
            Ok(()),
        );
        check(
            "permit(principal, action == Action::\"run_command\", resource) when { context.command == \"ls\" };",
            denied,
        );
        check(
            "permit(principal, action == Action::\"run_command\", resource) when { context.approved };",
            denied,
        );
        check("forbid(principal, action == Action::\"run_command\", resource);", denied);
        check("permit(", Err(("BP-POLICY-001", 2)));
    }

    #[test]
    fn path_rules_reach_the_sandbox() {
        let text = "permit(principal, action == Action::\"read_file\", resource in Path::\"/workspace/data\");
            forbid(principal, action == Action::\"write_file\", resource == Path::\"/workspace/data/x\");";
        let rules = policy(text, &["true"]).expect("compiles");
        assert_eq!(rules.read, Some(vec!["/workspace/data/".to_owned()]));
        assert_eq!(rules.deny_write, vec!["/workspace/data/x".to_owned()]);
    }
}
