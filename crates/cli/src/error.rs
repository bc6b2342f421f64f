//! What can go wrong in a command, and the exit status that goes with it.

use std::path::PathBuf;
use types::{Coded, Failure};

/// Exit statuses of the command line.
pub(crate) mod exit {
    /// Done.
    pub(crate) const DONE: u8 = 0;
    /// The run failed, a check did not pass, or the command could not do its work.
    pub(crate) const FAILED: u8 = 1;
    /// Usage or configuration.
    pub(crate) const USAGE: u8 = 2;
    /// Evidence does not verify.
    pub(crate) const EVIDENCE: u8 = 3;
    /// A person must do something first.
    pub(crate) const WAITING: u8 = 4;
    /// `sandbox run`: Bedplate itself failed.
    pub(crate) const SANDBOX_OWN: u8 = 125;
}

/// An error of a command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    #[error("{message}")]
    Usage { message: String, help: String },
    #[error("there is no directory '{target}'")]
    NoDirectory { target: String },
    #[error("no model is configured: no [routes] in a bedplate.toml here or in {}, no known key in the environment, and no Ollama on 127.0.0.1:11434", home.display())]
    NoModel { home: PathBuf },
    #[error("there is no home: neither --home, BEDPLATE_HOME, XDG_DATA_HOME nor HOME is set")]
    NoHome,
    #[error("{what}: {reason}")]
    Io { what: String, reason: String },
    #[error("this changes something, and there is no terminal to ask on")]
    NeedsYes { command: String },
    #[error("{} exists already, and init never overwrites", path.display())]
    Exists { path: PathBuf },
    #[error("{what} is not JSON: {reason}")]
    NotJson { what: String, reason: String },
    #[error("the evidence of run {run} does not verify: {fault}")]
    Evidence { run: String, fault: String },
    #[error("run {run} has no record {seq}; its last one is {last}")]
    NoRecord { run: String, seq: u64, last: u64 },
    #[error("{reason}")]
    CannotAllow { reason: String, next: String },
    #[error("there is no help for '{topic}'{hint}")]
    NoHelp { topic: String, hint: String },
    #[error("this host cannot run agents yet: {}", missing.join(", "))]
    Host { missing: Vec<String> },
    #[error("the model script {} cannot be used: {reason}", path.display())]
    Script { path: PathBuf, reason: String },
    #[error("{what} cannot be measured: {reason}")]
    Bench { what: String, reason: String },
    #[error("{failed} of {total} policy cases failed")]
    PolicyCases { failed: usize, total: usize },
    #[error("run {run} is no sandbox: `bedplate sandbox ls` lists them")]
    NoSandbox { run: String },
    #[error("run {run} has no snapshot '{name}'")]
    NoSnapshot { run: String, name: String },
}

impl Coded for CliError {
    fn code(&self) -> &'static str {
        match self {
            Self::Usage { .. } => "BP-CLI-001",
            Self::NoDirectory { .. } => "BP-CLI-002",
            Self::NoModel { .. } => "BP-CLI-003",
            Self::NoHome => "BP-CLI-004",
            Self::Io { .. } => "BP-CLI-005",
            Self::NeedsYes { .. } => "BP-CLI-006",
            Self::Exists { .. } => "BP-CLI-007",
            Self::NotJson { .. } => "BP-CLI-008",
            Self::Evidence { .. } => "BP-CLI-009",
            Self::NoRecord { .. } => "BP-CLI-010",
            Self::CannotAllow { .. } => "BP-CLI-011",
            Self::NoHelp { .. } => "BP-CLI-012",
            Self::Host { .. } => "BP-CLI-013",
            Self::Script { .. } => "BP-CLI-014",
            Self::Bench { .. } => "BP-CLI-015",
            Self::PolicyCases { .. } => "BP-CLI-016",
            Self::NoSandbox { .. } => "BP-CLI-017",
            Self::NoSnapshot { .. } => "BP-CLI-018",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Usage { help, .. } => format!("bedplate help {help}").trim_end().to_owned(),
            Self::NoDirectory { .. } => {
                "Name a directory with a bedplate.toml, or give a task as a sentence in quotes: \
                 bedplate run \"what to do\""
                    .to_owned()
            }
            Self::NoModel { .. } => {
                "Set OPENAI_API_KEY or ANTHROPIC_API_KEY, start Ollama, name one with --model PROVIDER/MODEL, or write \
                 [routes] into a bedplate.toml (bedplate init)."
                    .to_owned()
            }
            Self::NoHome => "Name a directory with --home DIR.".to_owned(),
            Self::Io { .. } => "Correct it, then run the command again.".to_owned(),
            Self::NeedsYes { command } => format!("Look at it above, then: {command} --yes"),
            Self::Exists { .. } => "Edit it, or run init in an empty directory.".to_owned(),
            Self::NotJson { .. } => {
                "Give one JSON value in quotes, such as '{\"ok\": true}'.".to_owned()
            }
            Self::Evidence { run, .. } => {
                format!(
                    "Trust nothing this log says beyond the record named. bedplate verify {run} names every fault."
                )
            }
            Self::NoRecord { run, .. } => format!("bedplate show {run}"),
            Self::CannotAllow { next, .. } => next.clone(),
            Self::NoHelp { .. } => "bedplate help lists the commands.".to_owned(),
            Self::Host { .. } => "Follow the recipes above, then: bedplate doctor".to_owned(),
            Self::Script { .. } => {
                "Correct the path in [routes] or --model; it is relative to the manifest, or to \
                 this directory with --model."
                    .to_owned()
            }
            Self::Bench { .. } => "bedplate doctor says what this host can do.".to_owned(),
            Self::PolicyCases { .. } => "Correct the policy or the cases.".to_owned(),
            Self::NoSandbox { .. } => "bedplate sandbox ls".to_owned(),
            Self::NoSnapshot { run, .. } => format!("bedplate show {run} lists its snapshots."),
        }
    }
}

/// A failed command: what is printed, and its exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) failure: Failure,
    pub(crate) exit: u8,
    /// The JSON document on standard output has it already.
    pub(crate) told: bool,
}

/// What a command gives: its exit status, or why it failed.
pub(crate) type Result<T> = std::result::Result<T, Failed>;

impl Failed {
    /// The failure, with the exit status that its code stands for.
    pub(crate) fn of(failure: Failure) -> Self {
        let exit = exit_of(&failure.code);
        Self { failure, exit, told: false }
    }

    /// The same with another exit status.
    pub(crate) fn with_exit(self, exit: u8) -> Self {
        Self { exit, ..self }
    }

    /// The same, when its JSON is out already: standard output gets one document.
    pub(crate) fn told(self, told: bool) -> Self {
        Self { told, ..self }
    }
}

impl From<CliError> for Failed {
    fn from(error: CliError) -> Self {
        let exit = match &error {
            CliError::Evidence { .. } => exit::EVIDENCE,
            CliError::Host { .. } | CliError::Bench { .. } | CliError::PolicyCases { .. } => {
                exit::FAILED
            }
            _ => exit::USAGE,
        };
        Self { failure: error.failure(), exit, told: false }
    }
}

impl From<runtime::RuntimeError> for Failed {
    fn from(error: runtime::RuntimeError) -> Self {
        let usage = error.is_usage();
        let failed = Self::of(error.into_failure());
        if usage { failed.with_exit(exit::USAGE) } else { failed }
    }
}

impl From<vault::VaultError> for Failed {
    fn from(error: vault::VaultError) -> Self {
        Self::of(error.failure())
    }
}

impl From<store::StoreError> for Failed {
    fn from(error: store::StoreError) -> Self {
        Self::of(error.failure())
    }
}

/// Codes that mean a mistake of usage or configuration; every other one is a failure.
const USAGE_CODES: [&str; 24] = [
    "BP-STORE-001",
    "BP-STORE-002",
    "BP-STORE-003",
    "BP-STORE-004",
    "BP-STORE-005",
    "BP-STORE-007",
    "BP-STORE-008",
    "BP-RUN-010",
    "BP-RUN-011",
    "BP-RUN-014",
    "BP-SERVE-001",
    "BP-MODEL-014",
    "BP-MODEL-015",
    "BP-MODEL-016",
    "BP-IMAGE-001",
    "BP-IMAGE-002",
    "BP-IMAGE-003",
    "BP-VAULT-001",
    "BP-VAULT-002",
    "BP-VAULT-003",
    "BP-VAULT-004",
    "BP-VAULT-005",
    "BP-VAULT-006",
    "BP-VAULT-008",
];
/// Areas all of whose codes do.
const USAGE_AREAS: [&str; 2] = ["BP-CONFIG-", "BP-POLICY-"];

fn exit_of(code: &str) -> u8 {
    let usage =
        USAGE_CODES.contains(&code) || USAGE_AREAS.iter().any(|area| code.starts_with(area));
    if usage { exit::USAGE } else { exit::FAILED }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_decide_the_exit_status() {
        let check = |code: &str, expected: u8| assert_eq!(exit_of(code), expected, "{code}");
        check("BP-STORE-007", 2);
        check("BP-STORE-010", 1);
        check("BP-CONFIG-001", 2);
        check("BP-POLICY-005", 2);
        check("BP-RUN-006", 1);
        check("BP-RUN-010", 2);
        check("BP-RUN-000", 1);
        check("BP-OWNER-003", 1);
        check("BP-VAULT-002", 2);
        check("BP-VAULT-007", 1);
        check("BP-IMAGE-002", 2);
        check("BP-IMAGE-004", 1);
        check("", 1);
    }

    #[test]
    fn errors_of_ours_have_their_status() {
        let check = |error: CliError, code: &str, expected: u8| {
            let failed = Failed::from(error);
            assert_eq!((failed.failure.code.as_str(), failed.exit), (code, expected));
            assert!(!failed.failure.message.is_empty() && !failed.failure.next.is_empty());
        };
        check(CliError::NoHome, "BP-CLI-004", 2);
        let evidence = CliError::Evidence { run: "r".into(), fault: "f".into() };
        check(evidence, "BP-CLI-009", 3);
        check(CliError::Host { missing: vec!["x".into()] }, "BP-CLI-013", 1);
        check(CliError::PolicyCases { failed: 1, total: 2 }, "BP-CLI-016", 1);
        let bench = CliError::Bench { what: "x".into(), reason: "y".into() };
        check(bench, "BP-CLI-015", 1);
    }
}
