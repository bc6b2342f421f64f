//! Sandboxes with everything on, made in this process as an owner makes them.
//!
//! Policy decides the command and rules a path, the kernel's limits are set, system calls are
//! filtered, the gate serves a network of the sandbox's own, and the sandbox tries its containment.
//! Nothing of it is left out: it is the way of `sandbox run --policy`, with spawner and gate there.

use super::super::fail;
use super::opened;
use crate::commands::files::part;
use crate::error::Result;
use crate::session::this_program;
use gate::Gate;
use policy::{DecisionInput, PolicySet, Principal, Sources};
use runtime::{Home, Outside, Terms};
use sandbox::layers::{LayerStore, Upper};
use sandbox::{CreateSpec, Ended, ExecSpec, FsRules, SandboxId, Spawner, SpawnerConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use types::{ActionRequest, LayerId, Verdict, manifest};
use vault::{Held, KeySource};

/// What is run: its output is one short line.
pub(super) const COMMAND: [&str; 2] = ["/bin/echo", "first"];
/// What is permitted.
const MANIFEST: &str = "schema = 1\n[permissions]\nallow = [\"shell\", \"GET bench.test/*\"]\n";
/// What is not.
const CEDAR: &str = "forbid(principal, action == Action::\"read_file\", \
                     resource == Path::\"/workspace/key\");";

/// Where sandboxes are made.
pub(super) struct Stage {
    dir: PathBuf,
    home: Home,
    layers: LayerStore,
    base: LayerId,
    terms: Terms,
    made: AtomicU64,
}

/// The processes that make and serve them.
pub(super) struct Hands {
    pub(super) spawner: Spawner,
    pub(super) gate: Gate,
}

/// A sandbox.
pub(super) struct Live {
    id: SandboxId,
    upper: Upper,
    outside: Outside,
    bundle: PathBuf,
}

impl Stage {
    pub(super) fn new(dir: &Path) -> Result<Self> {
        let (home, work) = (Home::at(&dir.join("home")), dir.join("work"));
        std::fs::create_dir_all(&work).map_err(|error| fail("the workspace", error))?;
        std::fs::write(work.join("key"), "closed\n").map_err(|e| fail("the workspace", e))?;
        home.prepare()?;
        let layers = opened(home.path())?;
        let base = layers.import(&work, 1 << 20).map_err(|error| part(&error))?.layer;
        let (terms, made) = (terms()?, AtomicU64::new(0));
        Ok(Self { dir: dir.to_owned(), home, layers, base, terms, made })
    }

    pub(super) async fn hands(&self) -> Result<Hands> {
        let exe = this_program();
        let spawner = Spawner::start(&exe, SpawnerConfig::default()).await;
        let spawner = spawner.map_err(|error| part(&error))?;
        let gate = Gate::start(&exe).await.map_err(|error| part(&error))?;
        Ok(Hands { spawner, gate })
    }

    /// Decides the command and makes a sandbox for it, with its network served.
    pub(super) async fn make(&self, hands: &Hands) -> Result<Live> {
        let (tool, command) = ("shell".to_owned(), COMMAND.join(" "));
        let wanted = ActionRequest::RunCommand { tool, command };
        let set = &self.terms.set;
        let decision = set.decide(&DecisionInput::new(self.terms.principal.clone(), wanted));
        if decision.verdict != Verdict::Permit {
            return Err(fail("the policy", decision.reason).into());
        }
        let rules = set.fs_rules().map_err(|error| part(&error))?;
        let rules = FsRules {
            read: rules.read,
            write: rules.write,
            deny_read: rules.deny_read,
            deny_write: rules.deny_write,
            mounts: Vec::new(),
        };
        let upper = self.layers.begin(&self.base).map_err(|error| part(&error))?;
        let spec = CreateSpec { rules, ..CreateSpec::new(upper.overlay()) };
        let made = hands.spawner.create_with_network(spec).await;
        let (sandbox, listeners) = made.map_err(|error| part(&error))?;
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let bundle = self.dir.join(format!("certificates-{number}.pem"));
        let held = Held::new(self.home.path(), KeySource::named(self.home.path(), |_| None));
        let (gate, terms) = (hands.gate.clone(), self.terms.clone());
        let outside = Outside::open(gate, &self.home, listeners, terms, held, &bundle).await?;
        Ok(Live { id: sandbox.id, upper, outside, bundle })
    }

    /// Ends it; nothing is left of it then.
    pub(super) async fn end(&self, hands: &Hands, live: Live) -> Result<()> {
        hands.spawner.destroy(&live.id).await.map_err(|error| part(&error))?;
        live.outside.close().await;
        self.layers.recycle(live.upper).map_err(|error| part(&error))?;
        Ok(std::fs::remove_file(&live.bundle).map_err(|error| fail("the certificates", error))?)
    }
}

impl Live {
    /// Runs the command; `first` is called at its first output. It must end well.
    pub(super) async fn run(&self, hands: &Hands, first: impl FnOnce()) -> Result<()> {
        let (env, trust) = (self.outside.environment(), Some(self.bundle.clone()));
        let program = ExecSpec { env, trust, ..ExecSpec::new(COMMAND) };
        let running = hands.spawner.exec(&self.id, program).await;
        let mut running = running.map_err(|error| part(&error))?;
        let chunk = running.next().await;
        first();
        let done = running.finish().await.map_err(|error| part(&error))?;
        match (chunk, done.exit.ended) {
            (Some(_), Ended::Code(0)) => Ok(()),
            (_, ended) => Err(fail("the command", format!("it ended as {ended:?}")).into()),
        }
    }
}

fn terms() -> Result<Terms> {
    let principal = Principal::user("bench");
    let read = manifest::parse(MANIFEST).map_err(|error| fail("the policy", error))?;
    let sources = Sources {
        permissions: read.permissions,
        cedar: Some(("policy.cedar".to_owned(), CEDAR.to_owned())),
        ..Sources::new(principal.clone())
    };
    let set = PolicySet::compile(&sources)
        .map_err(|errors| part(errors.first().expect("a refused policy has an error")))?;
    let (network, secrets) = (read.network, BTreeMap::new());
    Ok(Terms { set, principal, network, trust: Vec::new(), secrets })
}
