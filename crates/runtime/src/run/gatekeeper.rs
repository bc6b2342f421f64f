//! The run's policy: compiled from what the operator's files say now, asked for every action.

use crate::config;
use crate::error::RuntimeError;
use crate::policy_sources;
use kernel::State;
use policy::{Decision, DecisionInput, PolicySet, Principal};
use std::path::{Path, PathBuf};
use types::manifest::{Manifest, Privacy};
use types::{ActionRequest, Actor, Carried, Digest};

/// Asks policy on behalf of one run.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    dir: Option<PathBuf>,
    set: PolicySet,
    privacy: Privacy,
    principal: Principal,
}

impl Gatekeeper {
    pub(super) fn new(
        dir: Option<&str>,
        state: &State,
        actor: &Actor,
    ) -> Result<Self, RuntimeError> {
        let dir = dir.map(PathBuf::from);
        let (set, privacy) = compile(dir.as_deref(), state, &state.allowed)?;
        let principal = Principal::agent(&actor.agent, &actor.team);
        Ok(Self { dir, set, privacy, principal })
    }

    /// Reads the operator's files again.
    pub(super) fn reload(&mut self, state: &State, _actor: &Actor) -> Result<(), RuntimeError> {
        (self.set, self.privacy) = compile(self.dir.as_deref(), state, &state.allowed)?;
        Ok(())
    }

    /// The digest that the set would have with these entries.
    pub(super) fn check(
        &self,
        state: &State,
        _actor: &Actor,
        allowed: &[String],
    ) -> Result<Digest, RuntimeError> {
        compile(self.dir.as_deref(), state, allowed).map(|(set, _)| set.digest())
    }

    /// What models may be sent.
    pub(super) const fn privacy(&self) -> &Privacy {
        &self.privacy
    }

    pub(super) fn set(&self) -> &PolicySet {
        &self.set
    }

    pub(super) fn decide(
        &self,
        requests: &[ActionRequest],
        carried: &Carried,
        on_behalf_of: &str,
        approved: bool,
    ) -> Decision {
        let inputs: Vec<DecisionInput> = requests
            .iter()
            .map(|request| DecisionInput {
                principal: self.principal.clone(),
                request: request.clone(),
                carried: carried.clone(),
                on_behalf_of: on_behalf_of.to_owned(),
                approved,
            })
            .collect();
        self.set.decide_all(&inputs)
    }
}

/// Permissions, policy and `[privacy]` are the operator's, and hold as they are now; everything else about the
/// agent is as it was when the run began. A directory that is gone leaves what the log remembers.
fn compile(
    dir: Option<&Path>,
    state: &State,
    allowed: &[String],
) -> Result<(PolicySet, Privacy), RuntimeError> {
    let mut manifest: Manifest = state.manifest().clone();
    let mut cedar = None;
    if let Some(dir) = dir.filter(|dir| dir.join(config::MANIFEST_FILE).exists()) {
        let project = config::load(dir, None)?;
        manifest.permissions = project.manifest.permissions;
        manifest.privacy = project.manifest.privacy;
        cedar = project.cedar;
    }
    let set = policy_sources::compile(&manifest, cedar.as_deref(), allowed)?;
    Ok((set, manifest.privacy))
}
