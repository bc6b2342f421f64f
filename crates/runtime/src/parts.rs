//! What every run of an owner shares: the log, the layers, the spawner, the gate, the clock.

use crate::clock::Clock;
use crate::error::RuntimeError;
use crate::failpoint::Failpoints;
use crate::home::Home;
use gate::Gate;
use sandbox::Spawner;
use sandbox::layers::LayerStore;
use std::path::PathBuf;
use std::sync::Arc;
use store::SqliteStore;
use types::Coded;

/// Shared by all runs of an owner.
#[derive(Debug)]
pub struct Parts {
    /// Where all state is.
    pub home: Home,
    /// This binary, for roles that are started by re-exec.
    pub exe: PathBuf,
    /// The log.
    pub store: Arc<SqliteStore>,
    /// Workspaces.
    pub layers: Arc<LayerStore>,
    /// Builds sandboxes.
    pub spawner: Spawner,
    /// Reads hostile bytes and dials.
    pub gate: Gate,
    /// Time.
    pub clock: Clock,
    pub(crate) failpoints: Failpoints,
}

impl Parts {
    /// Opens the home and starts spawner and gate.
    ///
    /// # Errors
    /// When any of them cannot work here: nothing runs without all of them.
    pub fn open(home: Home, exe: PathBuf) -> Result<Self, RuntimeError> {
        fn part<T, E: Coded>(result: Result<T, E>) -> Result<T, RuntimeError> {
            result.map_err(|error| RuntimeError::part(&error))
        }
        // The spawner first: it is started before any thread or connection exists.
        let spawner = part(Spawner::start(&exe))?;
        let gate = part(Gate::start(&exe))?;
        let store = Arc::new(part(SqliteStore::open(home.path()))?);
        let layers = Arc::new(part(LayerStore::open(home.path()))?);
        part(layers.reap_uppers())?;
        let clock = Clock::new();
        Ok(Self { home, exe, store, layers, spawner, gate, clock, failpoints: Failpoints::default() })
    }
}
