//! What a policy file says of a sandbox's command, and the network it opens.
//!
//! The file is Cedar, or a `bedplate.toml`, whose `[permissions]`, `[network]` and `[secrets]` count
//! together with the `policy.cedar` beside it. Whatever it is, the one who types is its principal.

use super::permit;
use crate::commands::files::part;
use crate::error::Result;
use crate::session::{Session, login};
use ::sandbox::{FsRules, Listeners};
use gate::Gate;
use policy::{PolicySet, Principal, Sources, explain_denial};
use runtime::{Outside, Refused, Terms, config};
use std::convert::Infallible;
use std::path::Path;
use types::Verdict;
use vault::{Held, KeySource};

/// A policy as a sandbox keeps it.
pub(super) struct Governed {
    pub(super) rules: FsRules,
    terms: Terms,
}

/// Reads a policy file, once it permits the command.
pub(super) fn governed(file: &Path, command: &[String]) -> Result<Governed> {
    let terms = terms_of(file)?;
    permit(&terms.set, terms.principal.clone(), command)?;
    let rules = terms.set.fs_rules().map_err(|error| part(&error))?;
    let rules = FsRules {
        read: rules.read,
        write: rules.write,
        deny_read: rules.deny_read,
        deny_write: rules.deny_write,
        mounts: Vec::new(),
    };
    Ok(Governed { rules, terms })
}

fn terms_of(file: &Path) -> Result<Terms> {
    let principal = Principal::user(&login());
    let mut sources = Sources::new(principal.clone());
    if file.file_name() != Some(config::MANIFEST_FILE.as_ref()) {
        let name = file.to_string_lossy().into_owned();
        sources.cedar = Some((name, config::read_text(file)?));
        let (network, trust) = (types::manifest::Network::default(), Vec::new());
        let secrets = std::collections::BTreeMap::new();
        return Ok(Terms { set: compiled(&sources)?, principal, network, trust, secrets });
    }
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let project = config::load(dir, None)?;
    sources.permissions = project.manifest.permissions;
    sources.cedar = project.cedar.map(|text| (config::POLICY_FILE.to_owned(), text));
    let network = project.manifest.network;
    let files = network.trust.iter();
    let trust = files.map(|file| config::read_text(&project.dir.join(file)));
    let trust = trust.collect::<std::result::Result<Vec<_>, _>>()?;
    let secrets = project.manifest.secrets;
    Ok(Terms { set: compiled(&sources)?, principal, network, trust, secrets })
}

fn compiled(sources: &Sources) -> Result<PolicySet> {
    PolicySet::compile(sources)
        .map_err(|errors| part(errors.first().expect("a refused policy has an error")))
}

impl Governed {
    /// Has a gate of our own serve the network.
    pub(super) async fn open(
        &self,
        session: &Session,
        listeners: Listeners,
        bundle: &Path,
    ) -> Result<Outside> {
        let exe = crate::session::this_program();
        let gate = Gate::start(&exe).await.map_err(|error| part(&error))?;
        let home = &session.home;
        let source = KeySource::named(home.path(), |name| std::env::var_os(name));
        let held = Held::new(home.path(), source);
        let terms = self.terms.clone();
        Ok(Outside::open(gate, home, listeners, terms, held, bundle).await?)
    }
}

/// Serves a sandbox's network, if it has one, and tells what is denied.
pub(super) async fn serve(session: &Session, outside: Option<&mut Outside>) -> Infallible {
    let Some(outside) = outside else { return std::future::pending().await };
    loop {
        let refused = outside.serve().await;
        told(&refused).iter().for_each(|line| session.terminal.progress(line));
    }
}

/// What was denied, why, and what would permit it.
fn told(refused: &Refused) -> Vec<String> {
    let Refused { action, decision } = refused;
    if decision.verdict == Verdict::Ask {
        let what = format!("denied {} {}", action.name(), action.resource());
        let next =
            "  next: an agent's run can be asked about it; a permit in the policy needs none";
        return vec![format!("{what}: it wants a person: {}", decision.reason), next.to_owned()];
    }
    let explanation = explain_denial(decision, action);
    let mut lines = vec![format!("denied {}", explanation.reason)];
    if let Some(suggestion) = explanation.suggestion {
        let entry = suggestion.entry.map(|entry| format!("{entry:?} in allow"));
        let rule = suggestion.cedar.or(entry).unwrap_or_default();
        lines.push(format!("  next: put into the policy: {rule}"));
        lines.push(format!("  it opens {}", explanation.also_opens));
    }
    lines
}
