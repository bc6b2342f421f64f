//! The run's policy: compiled from what the operator's files say now, asked for every action.

use crate::config;
use crate::error::RuntimeError;
use crate::policy_sources;
use kernel::State;
use policy::{Decision, DecisionInput, PersonAction, PersonInput, PolicySet, Principal};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use types::manifest::{Manifest, Permissions, Privacy};
use types::{ActionRequest, Actor, Carried, Digest, RunId, Verdict};

/// People who must approve one thing, at most.
const APPROVERS_MAX: u32 = 16;

/// Asks policy on behalf of one run.
#[derive(Debug)]
pub(super) struct Gatekeeper {
    dir: Option<PathBuf>,
    /// The operator's files as they were read.
    files: Files,
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
        let files = Files::of(dir.as_deref());
        let (set, privacy) = compile(dir.as_deref(), state, &state.allowed)?;
        let principal = Principal::agent(&actor.agent, &actor.team);
        Ok(Self { dir, files, set, privacy, principal })
    }

    /// Reads the operator's files again if they are others than they were.
    pub(super) fn refresh(&mut self, state: &State, actor: &Actor) -> Result<(), RuntimeError> {
        if Files::of(self.dir.as_deref()) == self.files {
            return Ok(());
        }
        self.reload(state, actor)
    }

    /// Reads the operator's files again.
    pub(super) fn reload(&mut self, state: &State, _actor: &Actor) -> Result<(), RuntimeError> {
        // Looked at first: what is written while we read is read again.
        let files = Files::of(self.dir.as_deref());
        (self.set, self.privacy) = compile(self.dir.as_deref(), state, &state.allowed)?;
        self.files = files;
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

/// By what a file of the operator is known: device, file, size, time of its last change.
type Stamp = (u64, u64, u64, i64, i64);

/// The manifest and the policy beside it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Files([Option<Stamp>; 2]);

impl Files {
    fn of(dir: Option<&Path>) -> Self {
        let Some(dir) = dir else { return Self::default() };
        Self([config::MANIFEST_FILE, config::POLICY_FILE].map(|name| {
            let meta = std::fs::metadata(dir.join(name)).ok()?;
            Some((meta.dev(), meta.ino(), meta.size(), meta.ctime(), meta.ctime_nsec()))
        }))
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
