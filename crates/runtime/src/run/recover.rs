//! After a crash: what was in flight is rolled back, probed, or put in doubt.

use super::{Draft, RunTask};
use crate::error::RuntimeError;
use kernel::{Action, Ambiguity, Phase};
use store::Durability;
use tools::Plan;
use tools::host::HostTool;
use types::{ActionId, Body, Coded, EffectClass, Link, Resolution, ResolvedBy};

/// Time limit of a probe, milliseconds.
const PROBE_TIMEOUT_MS: u64 = 30_000;
/// Largest answer of a probe, in bytes.
const PROBE_OUTPUT_BYTES_MAX: u64 = 1 << 20;
/// A probe's exit status for "it happened".
const PROBE_HAPPENED: i32 = 0;
/// A probe's exit status for "it did not happen".
const PROBE_NOT_HAPPENED: i32 = 1;

impl RunTask {
    /// Ends every process of earlier attempts of this run's command tools, and proves that none
    /// is left, before anything is tried again.
    pub(super) async fn prove_nothing_alive(&self) -> Result<(), RuntimeError> {
        let mark = format!("BEDPLATE_RUN={}", self.run);
        let swept =
            tokio::task::spawn_blocking(move || tools::host::kill_processes_with_env(&mark));
        swept
            .await
            .map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?
            .map_err(|error| RuntimeError::part(&error))
    }

    /// The workspace goes back to where it was before the interrupted attempt. No layer was
    /// sealed since, so this drops what the attempt left half done.
    pub(super) async fn roll_back(&mut self, id: ActionId) -> Result<(), RuntimeError> {
        let started = self.action(id).started;
        self.world.close(&self.parts).await;
        // A guest begins where the run began, whatever it left when it failed.
        let (to, reason) = match &self.state.base {
            Some(base) if self.state.is_guest() => {
                (base.clone(), "the guest is started again from the beginning")
            }
            _ => (self.layer(), "the action was interrupted; nothing left the sandbox during it"),
        };
        let (reason, by) = (reason.to_owned(), String::new());
        let body = Body::RolledBack { to, reason, at: None, by };
        let draft = Draft::new(body).because(Link::Compensates, started);
        self.record(Durability::Written, draft).await.map(|_| ())
    }

    /// The effect was dropped because a person wants the run ended or set aside.
    pub(super) async fn stopped(&mut self, action: &Action) -> Result<(), RuntimeError> {
        self.world.close(&self.parts).await;
        if action.effect == EffectClass::Irreversible {
            self.prove_nothing_alive().await?;
        }
        Ok(())
    }

    /// Asks the tool's probe whether the action happened; without an answer it is in doubt.
    pub(super) async fn probe(&mut self, id: ActionId) -> Result<(), RuntimeError> {
        self.prove_nothing_alive().await?;
        let action = self.action(id).clone();
        let answer = self.ask_probe(&action).await?;
        let started = action.started;
        let body = match answer {
            Ok((resolution, result)) => {
                Body::ActionResolved { action: id, resolution, by: ResolvedBy::Probe, result }
            }
            Err(reason) => Body::ActionInDoubt { action: id, attempt: action.attempts, reason },
        };
        let draft = Draft::new(body).because(Link::ResultOf, started);
        self.record(Durability::Synced, draft).await.map(|_| ())
    }

    /// `Ok`: the probe knows. `Err`: why nobody knows.
    async fn ask_probe(
        &mut self,
        action: &Action,
    ) -> Result<Result<(Resolution, Option<serde_json::Value>), String>, RuntimeError> {
        let why = match action.phase {
            Phase::Ambiguous(Ambiguity::Unclear) => "the tool did not end as it should",
            Phase::Ambiguous(Ambiguity::Crash) => "the owner died while the tool ran",
            _ => "it was cancelled while the tool ran",
        };
        let (name, arguments) =
            self.state.arguments(&action.call_id).expect("proposed from a call");
        let Ok(Plan::Command { index, input }) =
            tools::plan(self.state.manifest(), name, arguments)
        else {
            return Ok(Err(format!("{why}, and it has no probe")));
        };
        let Some(probe) = self.state.manifest().tools[index].probe.clone() else {
            return Ok(Err(format!("{why}, and it has no probe")));
        };
        let spec = HostTool {
            argv: probe,
            cwd: self.world.tools_dir()?,
            env: self.tool_environment(&self.key_of(action.id)),
            stdin: input.to_string().into_bytes(),
            timeout_ms: PROBE_TIMEOUT_MS,
            stdout_bytes_max: PROBE_OUTPUT_BYTES_MAX,
        };
        let ran = match tools::host::run(&self.parts.exe, spec).await {
            Ok(ran) => ran,
            Err(error) => {
                return Ok(Err(format!("{why}, and its probe failed: {}", error.failure())));
            }
        };
        match ran.exit {
            Some(PROBE_HAPPENED) => {
                let result = self.parts.gate.parse_json(ran.stdout.into(), None).await.ok();
                Ok(Ok((Resolution::Happened, result)))
            }
            Some(PROBE_NOT_HAPPENED) => Ok(Ok((Resolution::NotHappened, None))),
            _ => Ok(Err(format!("{why}, and its probe gave no answer"))),
        }
    }
}
