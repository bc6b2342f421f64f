//! What the command line knows and the API needs: how an agent becomes a run, which keys it wants,
//! and how a run is told. The API tells the same as the commands do, word for word.

use crate::Refusal;
use kernel::State;
use runtime::protocol::{Keys, NewRun};
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use types::manifest::Manifest;
use types::{Record, RunId};

/// A request for a new run: of an agent, or for a task.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRun {
    /// Directory of a manifest, absolute.
    #[serde(default)]
    pub agent: Option<PathBuf>,
    /// What to do, for an agent made on the spot.
    #[serde(default)]
    pub task: Option<String>,
    /// The task's workspace, absolute.
    #[serde(default)]
    pub workspace: Option<PathBuf>,
    /// What is said first.
    #[serde(default)]
    pub input: String,
    /// A route, as `bedplate run --model` takes it.
    #[serde(default)]
    pub model: Option<String>,
    /// An overlay, as `bedplate run --env` takes it.
    #[serde(default)]
    pub env: Option<String>,
}

/// What the command line brings. Each document is the command's own.
pub trait Desk: Send + Sync + 'static {
    /// What a new run is made of.
    ///
    /// # Errors
    /// When it cannot be: nothing was made.
    fn new_run(&self, asked: &StartRun) -> Result<NewRun, Refusal>;

    /// Providers' keys for this agent.
    fn keys(&self, manifest: &Manifest) -> Keys;

    /// Who asks, for the log.
    fn login(&self) -> String;

    /// A run as `bedplate run --json` tells it.
    fn document(&self, run: &RunId, state: &State, records: &[Record], live: bool) -> Value;

    /// A run as `bedplate ps --json` lists it.
    ///
    /// # Errors
    /// When its log cannot be read.
    fn row(
        &self,
        reader: &store::Reader,
        summary: &store::RunSummary,
        live: bool,
    ) -> Result<Value, store::StoreError>;

    /// What waits for a person in a run, as `bedplate approvals --json` lists it.
    fn approvals(&self, run: &RunId, state: &State, records: &[Record]) -> Vec<Value>;
}
