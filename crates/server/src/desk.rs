//! What the command line knows and the API needs: how an agent becomes a run, which keys it wants,
//! and how a run is told. The API tells the same as the commands do, word for word.

use crate::Refusal;
use kernel::State;
use runtime::protocol::{Keys, NewRun};
use serde::Deserialize;
use serde_json::Value;
use std::fs::File;
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

/// A request for a sandbox that is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewSandbox {
    /// What its maker names it by: the same key is the same sandbox.
    #[serde(default)]
    pub key: Option<String>,
    /// Directory whose files it begins with, absolute.
    #[serde(default)]
    pub workspace: Option<PathBuf>,
    /// Cedar or a manifest, absolute.
    #[serde(default)]
    pub policy: Option<PathBuf>,
    /// An image, as `bedplate sandbox create --image` takes it.
    #[serde(default)]
    pub image: Option<String>,
}

/// A kept sandbox that can take a command.
#[derive(Debug)]
pub struct Ready {
    /// The run that it is.
    pub run: RunId,
    /// As far as its log goes.
    pub state: State,
    /// Whether the command before was undone for it, having lost its owner.
    pub undone: bool,
}

/// What the command line does to kept sandboxes. It blocks. `id` is a sandbox's id, a unique prefix
/// of it, or `last`. Each fails as its command does.
pub trait Sandboxes: Send + Sync + 'static {
    /// Makes one, or gives the one of this key; whether it is new.
    fn create(&self, asked: &NewSandbox) -> Result<(RunId, bool), Refusal>;

    /// All that are kept, as `bedplate sandbox ls --json` lists them.
    fn list(&self) -> Result<Vec<Value>, Refusal>;

    /// One of them, in full.
    fn get(&self, id: &str) -> Result<Value, Refusal>;

    /// The run that is meant.
    fn find(&self, id: &str) -> Result<RunId, Refusal>;

    /// Has it ready for its next command.
    fn ready(&self, id: &str) -> Result<Ready, Refusal>;

    /// Words as a shell reads them again.
    fn line(&self, words: &[String]) -> String;

    /// Ends it, and removes what only it needs.
    fn remove(&self, id: &str) -> Result<RunId, Refusal>;

    /// Names the moment it is at.
    fn snapshot(&self, id: &str, name: Option<String>) -> Result<(RunId, String), Refusal>;

    /// Makes others that go on from it, or from a moment of it.
    fn fork(&self, id: &str, at: Option<&str>, count: u32) -> Result<Vec<RunId>, Refusal>;

    /// Takes it back to a snapshot.
    fn roll_back(&self, id: &str, to: &str) -> Result<RunId, Refusal>;

    /// What differs between two moments, with the text on demand.
    fn diff(
        &self,
        id: &str,
        from: Option<&str>,
        to: Option<&str>,
        text: bool,
    ) -> Result<Value, Refusal>;

    /// What lies in a directory of its workspace, sorted by name; from this entry on, so many.
    fn entries(&self, id: &str, dir: &str, from: usize, limit: usize) -> Result<Value, Refusal>;

    /// What stands at a path. A link is told, and not followed.
    fn stat(&self, id: &str, path: &str) -> Result<Value, Refusal>;

    /// A file, and its size in bytes. Links within the workspace are followed.
    fn open(&self, id: &str, path: &str) -> Result<(File, u64), Refusal>;

    /// Where a file that is to be written really is: a path without links.
    fn place(&self, id: &str, path: &str) -> Result<String, Refusal>;
}

/// What the command line brings. Each document is the command's own.
pub trait Desk: Send + Sync + 'static {
    /// Kept sandboxes.
    fn sandboxes(&self) -> &dyn Sandboxes;

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
