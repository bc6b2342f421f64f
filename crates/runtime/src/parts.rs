//! What every run of an owner shares: the log, the layers, the spawner, the gate, the clock.

use crate::clock::Clock;
use crate::error::RuntimeError;
use crate::failpoint::Failpoints;
use crate::home::Home;
use crate::memory::Memories;
use crate::seats::Seats;
use gate::Gate;
use image::Images;
use sandbox::layers::LayerStore;
use sandbox::{CreateSpec, Facts, Spawner, SpawnerConfig};
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
    /// What agents keep beyond their runs.
    pub memories: Memories,
    /// What sandboxes may stand on beside the host.
    pub images: Images,
    /// Builds sandboxes.
    pub spawner: Spawner,
    /// Reads hostile bytes and dials.
    pub gate: Gate,
    /// What contains a sandbox on this host, learned by making one.
    pub facts: Facts,
    /// Time.
    pub clock: Clock,
    pub(crate) failpoints: Failpoints,
    /// Where commands sit whose terminals are guests'.
    pub(crate) seats: Seats,
}

impl Parts {
    /// Opens the home and starts spawner and gate.
    ///
    /// # Errors
    /// When any of them cannot work here: nothing runs without all of them.
    pub async fn open(home: Home, exe: PathBuf) -> Result<Self, RuntimeError> {
        fn part<T, E: Coded>(result: Result<T, E>) -> Result<T, RuntimeError> {
            result.map_err(|error| RuntimeError::part(&error))
        }
        let store = Arc::new(part(SqliteStore::open(home.path()))?);
        let layers = Arc::new(part(LayerStore::open(home.path()))?);
        part(layers.reap_uppers())?;
        // Certificates of sandboxes that died with the owner before.
        let _ = std::fs::remove_dir_all(home.trust());
        let spawner = part(Spawner::start(&exe, SpawnerConfig::default()).await)?;
        let gate = part(Gate::start(&exe).await)?;
        let facts = trial(&layers, &spawner).await?;
        let images = Images::new(home.path(), &exe);
        Ok(Self {
            memories: Memories::new(home.path()),
            images,
            home,
            exe,
            store,
            layers,
            spawner,
            gate,
            facts,
            clock: Clock::new(),
            failpoints: Failpoints::default(),
            seats: Seats::default(),
        })
    }
}

/// Makes one sandbox and ends it: a host that cannot contain refuses here, before any run.
async fn trial(layers: &LayerStore, spawner: &Spawner) -> Result<Facts, RuntimeError> {
    let base = layers.empty().map_err(|error| RuntimeError::part(&error))?;
    let upper = layers.begin(&base).map_err(|error| RuntimeError::part(&error))?;
    let made = spawner.create(CreateSpec::new(upper.overlay())).await;
    let made = made.map_err(|error| RuntimeError::part(&error))?;
    spawner.destroy(&made.id).await.map_err(|error| RuntimeError::part(&error))?;
    layers.recycle(upper).map_err(|error| RuntimeError::part(&error))?;
    Ok(made.facts)
}
