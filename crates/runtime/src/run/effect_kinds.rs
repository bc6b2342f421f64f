//! Performing a plan: in the sandbox, or as a command tool on the host.
//!
//! What comes back is bytes. They are carried to the gate to be made readable or parsed; here they
//! are only counted and kept.

use super::RunTask;
use super::guest;
use super::network::Net;
use super::world::Settled;
use crate::error::RuntimeError;
use kernel::Action;
use sandbox::{Ended, ExecExit, ExecSpec, FileOp, FileResult, Running, SandboxError};
use store::Read;
use tools::Plan;
use tools::host::{HostTool, HostToolError};
use types::manifest::CommandTool;
use types::{ActionId, AsOf, Attempt, BRANCH_MAIN, Digest, Labels, OutcomeStatus, Output};

/// Bytes of output that a model is shown; what is longer is kept whole and shown in part.
pub(super) const OUTPUT_SHOWN_BYTES_MAX: u64 = 16 << 10;
/// Bytes of output kept of one command; what is longer is cut, and the cut is said.
pub(super) const OUTPUT_KEPT_BYTES_MAX: u64 = 8 << 20;
/// Bytes of a command tool's result.
const RESULT_BYTES_MAX: u64 = 1 << 20;

/// How an effect went.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) status: OutcomeStatus,
    pub(super) exit: Option<i32>,
    pub(super) output: Output,
    /// All of the output, when `output` shows only a part.
    pub(super) kept: Option<Vec<u8>>,
    /// The layer it made.
    pub(super) sealed: Settled,
    pub(super) took_ms: u64,
    /// Where it came from, besides the sandbox.
    pub(super) labels: Labels,
    /// What it says about its age.
    pub(super) as_of: Option<AsOf>,
}

impl Outcome {
    pub(super) fn text(status: OutcomeStatus, text: String) -> Self {
        Self {
            status,
            exit: None,
            output: Output { bytes: text.len() as u64, text, artifact: None },
            kept: None,
            sealed: Settled::default(),
            took_ms: 0,
            labels: Labels::none(),
            as_of: None,
        }
    }
}

impl RunTask {
    /// Does what a plan says. `None`: stopped by a person in the middle.
    pub(super) async fn perform(
        &mut self,
        action: &Action,
        plan: &Plan,
        key: &str,
    ) -> Result<Option<Outcome>, RuntimeError> {
        match plan {
            Plan::Shell { command, timeout_ms } => {
                self.run_shell(action.id, command, *timeout_ms, true).await
            }
            Plan::Guest { command } => Box::pin(self.run_guest(action.id, command)).await,
            Plan::Check { index } => self.run_check(*index).await,
            Plan::Command { index, input } => {
                let tool = self.state.manifest().tools[*index].clone();
                self.run_command_tool(&tool, input.to_string(), key).await
            }
            Plan::ReadArtifact { action, offset, limit } => {
                self.read_artifact(*action, *offset, *limit).await.map(Some)
            }
            Plan::Read { path, offset, limit } => {
                let op = FileOp::Read {
                    path: path.clone(),
                    offset_line: *offset,
                    limit_lines: limit.unwrap_or(0),
                    max_bytes: OUTPUT_KEPT_BYTES_MAX,
                };
                self.run_file_op(action.id, op, false).await
            }
            Plan::Write { path, content } => {
                let op = FileOp::Write { path: path.clone(), bytes: content.clone() };
                self.run_file_op(action.id, op, true).await
            }
            Plan::Edit { path, old, new, count } => {
                let (old, new) = (old.clone(), new.clone());
                let op = FileOp::Edit { path: path.clone(), old, new, expected_count: *count };
                self.run_file_op(action.id, op, true).await
            }
            Plan::Wait { .. } => unreachable!("a wait is started with its timer"),
        }
    }

    /// A check, on a copy of the workspace that is dropped.
    pub(super) async fn run_check(
        &mut self,
        index: usize,
    ) -> Result<Option<Outcome>, RuntimeError> {
        let check = self.state.manifest().checks[index].clone();
        let number = self.state.next_seq;
        self.run_shell(number, &check.command, check.timeout_ms, false).await
    }

    /// A command line in the sandbox; its changes are sealed, or dropped.
    async fn run_shell(
        &mut self,
        id: ActionId,
        command: &str,
        timeout_ms: u64,
        keep_changes: bool,
    ) -> Result<Option<Outcome>, RuntimeError> {
        let grounds = self.grounds();
        let rules = self.path_rules()?;
        let manifest = self.state.manifest().clone();
        let parts = std::sync::Arc::clone(&self.parts);
        let prints = self.prints().map_err(RuntimeError::Part)?;
        let opened = self.world.open(&parts, &manifest, &grounds, rules, prints).await;
        let (sandbox, trees) = opened?;
        self.ensure_served().await?;
        let spec = ExecSpec {
            timeout_ms: Some(timeout_ms),
            output_bytes_max: OUTPUT_KEPT_BYTES_MAX,
            trees,
            env: self.network_environment(),
            trust: self.world.net.as_ref().map(Net::bundle),
            ..ExecSpec::shell(command)
        };
        // Who takes the run's steps may watch the command of one.
        let called = self.state.caller.is_some();
        let stage = called.then(|| parts.seats.stage(&self.run)).flatten();
        let spawner = parts.spawner.clone();
        let running = async {
            match stage {
                // Boxed: it is large, and rare.
                Some(stage) => Box::pin(guest::perform(spawner, sandbox, spec, stage)).await,
                None => collect(spawner.exec(&sandbox, spec).await?).await,
            }
        };
        let ran = self.unless_stopped(running).await;
        let labels = self.settle_network().await?;
        let Some(ran) = ran else {
            return Ok(None);
        };
        let ran = ran.map_err(|error| RuntimeError::part(&error))?;
        let sealed = self.world.settle(&parts, keep_changes).await?;
        let (status, note) = judge(&ran.exit, timeout_ms);
        let exit = match ran.exit.ended {
            Ended::Code(code) => Some(code),
            Ended::Signal(_) => called.then(|| ran.exit.ended.status()),
        };
        let total = ran.output.len() as u64 + ran.dropped_bytes;
        let mut outcome = self.readable(id, ran.output, total, &note).await?;
        outcome.status = status;
        outcome.exit = exit;
        outcome.sealed = sealed;
        outcome.labels = labels;
        outcome.took_ms = ran.exit.took_ms;
        Ok(Some(outcome))
    }

    /// Bytes of a sandbox or a tool, made readable by the gate. `note` is our own last line.
    pub(super) async fn readable(
        &self,
        id: ActionId,
        bytes: Vec<u8>,
        total: u64,
        note: &str,
    ) -> Result<Outcome, RuntimeError> {
        let kept_bytes = bytes.len() as u64;
        let read =
            self.parts.gate.read_output(bytes.clone().into(), OUTPUT_SHOWN_BYTES_MAX).await?;
        let mut text = read.text;
        let mut kept = None;
        let mut artifact = None;
        if read.truncated {
            artifact = Some(Digest::of(&bytes));
            kept = Some(bytes);
            push_line(
                &mut text,
                &format!(
                    "[shown in part: all {kept_bytes} bytes are kept; read_file with path \
                 \"artifact:{id}\", and offset and limit in bytes]"
                ),
            );
        }
        if total > kept_bytes {
            push_line(
                &mut text,
                &format!(
                    "[{total} bytes were printed; everything after the first {kept_bytes} was cut]"
                ),
            );
        }
        if !note.is_empty() {
            push_line(&mut text, note);
        }
        let mut outcome = Outcome::text(OutcomeStatus::Ok, text);
        outcome.output.bytes = total;
        outcome.output.artifact = artifact;
        outcome.kept = kept;
        Ok(outcome)
    }

    /// A file operation in the sandbox.
    async fn run_file_op(
        &mut self,
        id: ActionId,
        op: FileOp,
        keep_changes: bool,
    ) -> Result<Option<Outcome>, RuntimeError> {
        let grounds = self.grounds();
        let rules = self.path_rules()?;
        let manifest = self.state.manifest().clone();
        let parts = std::sync::Arc::clone(&self.parts);
        let prints = self.prints().map_err(RuntimeError::Part)?;
        let opened = self.world.open(&parts, &manifest, &grounds, rules, prints).await;
        let (sandbox, trees) = opened?;
        let done = parts.spawner.file_op(&sandbox, op, trees);
        let Some(done) = self.unless_stopped(done).await else {
            return Ok(None);
        };
        let sealed = self.world.settle(&parts, keep_changes).await?;
        let mut outcome = match done {
            Ok(FileResult::Read { bytes, first_line, lines, total_lines, truncated, .. }) => {
                let note = if truncated || lines < total_lines {
                    format!(
                        "[lines {first_line} to {} of {total_lines}]",
                        first_line + lines.max(1) - 1
                    )
                } else {
                    String::new()
                };
                let total = bytes.len() as u64;
                self.readable(id, bytes, total, &note).await?
            }
            Ok(FileResult::Written { size, created }) => {
                let how = if created { "created" } else { "replaced" };
                Outcome::text(OutcomeStatus::Ok, format!("{how}, {size} bytes"))
            }
            Ok(FileResult::Edited { count }) => {
                Outcome::text(OutcomeStatus::Ok, format!("edited in {count} place(s)"))
            }
            Ok(_) => Outcome::text(OutcomeStatus::Ok, "done".to_owned()),
            Err(error) if is_about_the_file(&error) => {
                Outcome::text(OutcomeStatus::Failed, error.to_string())
            }
            Err(error) => return Err(RuntimeError::part(&error)),
        };
        outcome.sealed = sealed;
        Ok(Some(outcome))
    }

    /// A range of an output that was kept whole.
    async fn read_artifact(
        &self,
        of: ActionId,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Outcome, RuntimeError> {
        let failed = |text: &str| Ok(Outcome::text(OutcomeStatus::Failed, text.to_owned()));
        let records = self.parts.store.records(&self.run, BRANCH_MAIN, of);
        let records = records.map_err(|error| RuntimeError::part(&error))?;
        let holder = records.iter().rev().find_map(|record| match &record.body {
            types::Body::ActionFinished { action, output, .. } if *action == of => {
                output.artifact.map(|_| record.stamp.seq)
            }
            _ => None,
        });
        let Some(seq) = holder else {
            return failed("no kept output has this number");
        };
        let bytes = self.parts.store.attachment(&self.run, BRANCH_MAIN, seq, "output");
        let bytes = bytes.map_err(|error| RuntimeError::part(&error))?;
        let Some(bytes) = bytes else {
            return failed("this output was erased");
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let wanted = limit.unwrap_or(OUTPUT_SHOWN_BYTES_MAX).min(OUTPUT_SHOWN_BYTES_MAX);
        let end = start.saturating_add(wanted as usize).min(bytes.len());
        let slice = bytes[start..end].to_vec();
        let read = self.parts.gate.read_output(slice.into(), 2 * OUTPUT_SHOWN_BYTES_MAX).await?;
        let mut text = read.text;
        push_line(&mut text, &format!("[bytes {start} to {end} of {}]", bytes.len()));
        Ok(Outcome::text(OutcomeStatus::Ok, text))
    }

    /// What a command tool and its probe find in their environment.
    pub(super) fn tool_environment(&self, key: &str) -> Vec<(String, String)> {
        let mut environment: Vec<(String, String)> = ["PATH", "HOME"]
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)))
            .collect();
        environment.push(("BEDPLATE_RUN".to_owned(), self.run.to_string()));
        environment.push(("BEDPLATE_IDEMPOTENCY_KEY".to_owned(), key.to_owned()));
        environment.extend(self.attempt_environment());
        environment
    }

    /// What programs of an attempt of a rollout may take their randomness from. Python hashes by it.
    pub(super) fn attempt_environment(&self) -> Vec<(String, String)> {
        let Some(Attempt { number, seed }) = self.state.attempt else { return Vec::new() };
        let hash = seed % (1 << 32);
        let pairs = [
            ("BEDPLATE_ATTEMPT", number.to_string()),
            ("BEDPLATE_SEED", seed.to_string()),
            ("PYTHONHASHSEED", hash.to_string()),
        ];
        pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    async fn run_command_tool(
        &mut self,
        tool: &CommandTool,
        input: String,
        key: &str,
    ) -> Result<Option<Outcome>, RuntimeError> {
        let spec = HostTool {
            argv: tool.command.clone(),
            cwd: self.world.tools_dir()?,
            env: self.tool_environment(key),
            stdin: input.into_bytes(),
            timeout_ms: tool.timeout_ms,
            stdout_bytes_max: RESULT_BYTES_MAX,
        };
        let exe = self.parts.exe.clone();
        let running = async move { tools::host::run(&exe, spec).await };
        let ran = self.unless_cancelled(running).await;
        let Some(ran) = ran else { return Ok(None) };
        let ran = match ran {
            Ok(ran) => ran,
            Err(error @ HostToolError::NotStarted { .. }) => {
                return Ok(Some(Outcome::text(OutcomeStatus::NotStarted, error.to_string())));
            }
            Err(error) => return Err(RuntimeError::part(&error)),
        };
        let took_ms = ran.took_ms;
        let exit = ran.exit;
        let mut outcome = self.judge_tool(tool, ran).await?;
        outcome.exit = exit;
        outcome.took_ms = took_ms;
        Ok(Some(outcome))
    }

    async fn judge_tool(
        &self,
        tool: &CommandTool,
        ran: tools::host::Ran,
    ) -> Result<Outcome, RuntimeError> {
        let said = |ran: &tools::host::Ran| ran.stderr.clone();
        if ran.timed_out {
            let text = format!(
                "'{}' passed its time limit of {} ms and was killed",
                tool.name, tool.timeout_ms
            );
            return Ok(Outcome::text(OutcomeStatus::TimedOut, text));
        }
        match ran.exit {
            Some(0) => {}
            Some(code) => {
                let stderr =
                    self.parts.gate.read_output(said(&ran).into(), OUTPUT_SHOWN_BYTES_MAX).await?;
                let text =
                    format!("'{}' failed with exit status {code}. {}", tool.name, stderr.text);
                return Ok(Outcome::text(OutcomeStatus::Failed, text.trim_end().to_owned()));
            }
            None => {
                let text = format!("'{}' was killed by a signal", tool.name);
                return Ok(Outcome::text(OutcomeStatus::Killed, text));
            }
        }
        if ran.stdout_bytes > RESULT_BYTES_MAX {
            let text = format!(
                "'{}' printed {} bytes, more than the {RESULT_BYTES_MAX} a result may have; it was quarantined",
                tool.name, ran.stdout_bytes
            );
            return Ok(self.unreadable(tool, text));
        }
        let (schema, as_of) = (tool.output_schema.clone(), tool.as_of.clone());
        match self.parts.gate.parse_dated(ran.stdout.into(), schema, as_of).await {
            Ok((value, as_of)) => {
                Ok(Outcome { as_of, ..Outcome::text(OutcomeStatus::Ok, value.to_string()) })
            }
            Err(why) => {
                let text =
                    format!("the result of '{}' was quarantined: {}", tool.name, why.message);
                Ok(self.unreadable(tool, text))
            }
        }
    }

    /// The tool succeeded, but what it printed cannot be passed on. It did happen: the model is
    /// told so, and nothing is tried again.
    fn unreadable(&self, _tool: &CommandTool, text: String) -> Outcome {
        Outcome::text(OutcomeStatus::Ok, format!("it was done (exit status 0), but {text}"))
    }
}

/// Whether the model named something it cannot have, which is an answer and no fault of ours.
fn is_about_the_file(error: &SandboxError) -> bool {
    matches!(
        error,
        SandboxError::NoSuchFile { .. }
            | SandboxError::WrongKind { .. }
            | SandboxError::PathDenied { .. }
            | SandboxError::EditMismatch { .. }
            | SandboxError::FileOp { .. }
            | SandboxError::TooMany { .. }
            | SandboxError::Invalid { .. }
    )
}

/// A command's output in the order it came, and how it ended.
pub(super) struct Ran {
    pub(super) output: Vec<u8>,
    pub(super) dropped_bytes: u64,
    pub(super) exit: ExecExit,
}

async fn collect(mut running: Running) -> Result<Ran, SandboxError> {
    let mut output = Vec::new();
    while let Some(chunk) = running.next().await {
        output.extend_from_slice(&chunk.bytes);
    }
    let exit = running.exit().await?;
    Ok(Ran { output, dropped_bytes: running.dropped_bytes(), exit })
}

fn push_line(text: &mut String, line: &str) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
}

/// The status of a command in the sandbox, and what the model is told beside its output.
pub(super) fn judge(exit: &ExecExit, timeout_ms: u64) -> (OutcomeStatus, String) {
    if exit.timed_out {
        let note = format!("[killed: it passed its time limit of {timeout_ms} ms]");
        return (OutcomeStatus::TimedOut, note);
    }
    if let Some(limit) = exit.limit {
        let what = format!("{limit:?}").to_lowercase();
        return (
            OutcomeStatus::Killed,
            format!("[killed: it passed the sandbox's limit of {what}]"),
        );
    }
    match exit.ended {
        Ended::Code(0) => (OutcomeStatus::Ok, String::new()),
        Ended::Code(code) => (OutcomeStatus::Failed, format!("[exit status {code}]")),
        Ended::Signal(signal) => (OutcomeStatus::Failed, format!("[killed by signal {signal}]")),
    }
}
