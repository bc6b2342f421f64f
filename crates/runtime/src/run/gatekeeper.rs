//! The run's policy: compiled from what the operator's files say now, asked for every action.

use crate::config;
use crate::error::RuntimeError;
use crate::policy_sources;
use kernel::State;
use policy::{Decision, DecisionInput, PersonAction, PersonInput, PolicySet, Principal};
use std::path::{Path, PathBuf};
use types::manifest::{Manifest, Permissions, Privacy};
use types::{ActionRequest, Actor, Carried, Digest, RunId, Verdict};

/// People who must approve one thing, at most.
const APPROVERS_MAX: u32 = 16;

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

impl Gatekeeper {
    /// The approval for the rest of the run under whose entries all of these fall.
    pub(super) fn stands_approved(&self, state: &State, requests: &[ActionRequest]) -> Option<u64> {
        let covers = |entries: &Vec<String>| {
            let allow = entries.clone();
            let permissions = Some(Permissions { allow, ..Permissions::default() });
            let manifest = Manifest { permissions, ..state.manifest().clone() };
            let set = policy_sources::compile(&manifest, None, &[]).ok();
            set.is_some_and(|set| {
                let input = |request: &ActionRequest| {
                    DecisionInput::new(self.principal.clone(), request.clone())
                };
                let inputs: Vec<DecisionInput> = requests.iter().map(input).collect();
                set.decide_all(&inputs).verdict == Verdict::Permit
            })
        };
        let mut standing = state.standing.iter();
        standing.find(|(_, entries)| covers(entries)).map(|(asked, _)| *asked)
    }

    /// Whether policy lets a person answer for this run; else why not.
    pub(super) fn lets_answer(&self, person: &str, run: &RunId) -> Result<(), String> {
        let decision = self.set.decide_person(&PersonInput {
            person: Principal::user(person),
            action: PersonAction::Approve,
            run: run.to_string(),
            agent: self.principal.name.clone(),
        });
        if decision.verdict == Verdict::Permit { Ok(()) } else { Err(decision.reason) }
    }
}

/// How many people must approve: the largest `@approvers` of the policies that decided. What is no
/// number from 1 to [`APPROVERS_MAX`] counts as that.
pub(super) fn approvers_of(decision: &Decision) -> u32 {
    let values = decision.obligations.get("approvers");
    let numbers = values.iter().flat_map(|text| text.split(", ")).map(|text| {
        let number = text.parse().ok();
        number.filter(|number| (1..=APPROVERS_MAX).contains(number)).unwrap_or(APPROVERS_MAX)
    });
    numbers.max().unwrap_or(1)
}

/// Permissions, policy and `[privacy]` are the operator's, and hold as they are now; all else of the
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
