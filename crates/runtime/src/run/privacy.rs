//! The owner's half of the privacy router: what the gate is to look for, what its findings mean by
//! the operator's rules, and the run's pseudonyms.
//!
//! Always: the owner sees kinds, counts and names, and carries pseudonyms as bytes it does not
//! read. Never: a request's text; a value of the vault in what the gate is told, only its
//! fingerprints.

use super::{Draft, RunTask};
use crate::error::RuntimeError;
use crate::parts::Parts;
use gate::{PrivacyFindings, PrivacyOrder};
use privacy::{FingerprintKey, Fingerprints, Kind, SECRET_BYTES_MAX, SECRET_BYTES_MIN};
use std::collections::BTreeSet;
use store::Read;
use types::manifest::{LocalPrivacy, Privacy};
use types::{
    BRANCH_MAIN, Body, Coded as _, Digest, Failure, Labels, Link, PrivacyFound, Record, RunId,
    Treatment,
};
use vault::KEY_FILE_VARIABLE;
use zeroize::Zeroizing;

/// The attachment that holds new pseudonyms.
const PSEUDONYMS: &str = "pseudonyms";
/// What a context is labelled with that holds personal data which is not sent as it is.
const PII: &str = "pii";
/// The same for secrets.
const SECRET: &str = "secret";

/// What a run keeps for the router while it lives.
pub(super) struct Pseudonymity {
    /// The run's pseudonyms, as the gate wrote them.
    kept: Zeroizing<Vec<u8>>,
    /// For the first pseudonym.
    seed: [u8; 32],
    /// Of this life of the run alone: fingerprints are never stored.
    key: FingerprintKey,
    /// Makes the digest below useless for guessing.
    salt: [u8; 32],
    /// The last fingerprints, under a digest of what they were made from.
    prints: Option<(Digest, Option<Fingerprints>)>,
}

/// What is known of the vault's values now.
struct Known {
    /// Changes when they do.
    digest: Digest,
    prints: Option<Fingerprints>,
    /// Why not all of them could be opened.
    unreadable: Option<Failure>,
}

impl Pseudonymity {
    /// Reads what the run's log keeps.
    pub(super) fn load(
        parts: &Parts,
        run: &RunId,
        records: &[Record],
    ) -> Result<Self, RuntimeError> {
        let mut kept = Zeroizing::new(Vec::new());
        for record in records.iter().filter(|r| matches!(r.body, Body::PrivacyChecked { .. })) {
            let lines = parts.store.attachment(run, BRANCH_MAIN, record.stamp.seq, PSEUDONYMS);
            let lines = lines.map_err(|error| RuntimeError::part(&error))?;
            kept.extend(lines.map(Zeroizing::new).iter().flat_map(|lines| lines.iter()));
        }
        let (seed, key, salt) = (random()?, FingerprintKey::new(random()?), random()?);
        Ok(Self { kept, seed, key, salt, prints: None })
    }
}

fn random() -> Result<[u8; 32], RuntimeError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| RuntimeError::Network {
        reason: format!("there is no randomness: {error}"),
    })?;
    Ok(bytes)
}

/// What the router says of one request to one provider.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    pub(super) found: Vec<PrivacyFound>,
    /// Kinds that would be sent as they are, for policy.
    pub(super) bare: BTreeSet<String>,
    /// What the context is labelled with.
    pub(super) labels: Labels,
}

impl Report {
    /// Whether something is treated so.
    pub(super) fn has(&self, treatment: Treatment) -> bool {
        self.found.iter().any(|found| found.treatment == treatment)
    }

    /// The rules that say so.
    pub(super) fn rules(&self, treatment: Treatment) -> Vec<String> {
        let found = self.found.iter().filter(|found| found.treatment == treatment);
        let rules: BTreeSet<String> = found.map(|found| found.rule.clone()).collect();
        rules.into_iter().collect()
    }

    /// What was found of it, for people: `2 x email`.
    pub(super) fn what(&self, treatment: Treatment) -> String {
        let found = self.found.iter().filter(|found| found.treatment == treatment);
        let words = found.map(|found| match found.kind.as_str() {
            "label" => format!("label {}", found.names.join(", ")),
            kind => format!("{} x {kind}", found.count),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// The record of it.
    pub(super) fn draft(
        self,
        target: &super::model::Target,
        request: Option<Digest>,
        unsaved: &[u8],
        input: Option<u64>,
    ) -> Draft {
        let strictest = self.found.iter().map(|found| found.treatment).max();
        let body = Body::PrivacyChecked {
            route: target.route.clone(),
            provider: target.entry.provider.clone(),
            model: target.entry.model.clone(),
            local: target.local,
            request,
            found: self.found,
            treatment: strictest.unwrap_or(Treatment::AsIs),
            labels: self.labels,
        };
        let draft = Draft::new(body).because(Link::ResultOf, input);
        if unsaved.is_empty() { draft } else { draft.with(PSEUDONYMS, unsaved.to_vec()) }
    }
}

impl RunTask {
    /// What the gate is to look for in a request to a provider.
    ///
    /// # Errors
    /// BP-PRIVACY-012 when a secret cannot be opened and the provider is not on this machine.
    pub(super) fn privacy_order(&mut self, local: bool) -> Result<PrivacyOrder, Failure> {
        let all = Kind::ALL.iter().copied();
        let Known { digest, prints, unreadable } = self.known_prints()?;
        if let Some(failure) = unreadable.filter(|_| !local) {
            return Err(Failure {
                code: "BP-PRIVACY-012".to_owned(),
                message: format!("nothing can be held against the vault: {}", failure.message),
                next: failure.next,
            });
        }
        let privacy = self.gatekeeper.privacy();
        let lists = serde_json::to_vec(&(&privacy.names, &privacy.canaries));
        let lists = lists.expect("lists of texts are plain data");
        let known = digest.to_string();
        let known = Digest::of_parts("bedplate detector 1", &[known.as_bytes(), &lists]);
        Ok(PrivacyOrder {
            known,
            treatments: all.map(|kind| (kind, rule(privacy, kind, local).0)).collect(),
            names: privacy.names.clone(),
            canaries: privacy.canaries.clone(),
            prints,
            show: !local || privacy.local == LocalPrivacy::Same,
            seed: self.pseudonymity.seed,
            kept: self.pseudonymity.kept.clone(),
        })
    }

    /// Fingerprints of every value of the vault that can be opened, and of every provider's key. A
    /// value that is too short to be told from other text is left out; of a very long one its
    /// beginning counts.
    pub(super) fn prints(&mut self) -> Result<Option<Fingerprints>, Failure> {
        self.known_prints().map(|known| known.prints)
    }

    /// The same, with what could not be opened and a digest that changes when they do.
    fn known_prints(&mut self) -> Result<Known, Failure> {
        let (secrets, unreadable) = self.opened();
        let keys = self.keys.0.iter().filter(|(name, _)| name.as_str() != KEY_FILE_VARIABLE);
        let keys = keys.map(|(name, key)| (name.as_str(), key.as_bytes()));
        let values = secrets.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let values: Vec<(&str, &[u8])> = values.chain(keys).filter_map(recognisable).collect();
        let mut parts: Vec<&[u8]> = vec![&self.pseudonymity.salt];
        parts.extend(values.iter().flat_map(|(name, value)| [name.as_bytes(), value]));
        let digest = Digest::of_parts("bedplate fingerprints 1", &parts);
        if let Some((_, prints)) = self.pseudonymity.prints.as_ref().filter(|(d, _)| *d == digest) {
            return Ok(Known { digest, prints: prints.clone(), unreadable });
        }
        let key = &self.pseudonymity.key;
        let made = values.into_iter().map(|(name, value)| Fingerprints::of(name, value, key));
        let made: Vec<Fingerprints> = made.collect::<Result<_, _>>().map_err(coded)?;
        let prints = (!made.is_empty()).then(|| Fingerprints::all(made)).transpose();
        let prints = prints.map_err(coded)?;
        self.pseudonymity.prints = Some((digest, prints.clone()));
        Ok(Known { digest, prints, unreadable })
    }

    /// Every secret of the vault that can be opened, and why another cannot.
    fn opened(&mut self) -> (Vec<(String, Zeroizing<String>)>, Option<Failure>) {
        let home = self.parts.home.path();
        let vault = vault::Vault::open_with(home, super::secrets::source(home, &self.keys));
        let names = match vault.and_then(|vault| vault.names()) {
            Ok(names) => names,
            Err(error) => return (Vec::new(), Some(error.failure())),
        };
        let (mut opened, mut unreadable) = (Vec::new(), None);
        for name in names {
            match self.held.get(&name) {
                Ok(credential) => opened.extend(
                    credential
                        .secrets()
                        .into_iter()
                        .map(|value| (name.clone(), Zeroizing::new(value.to_owned()))),
                ),
                Err(error) => unreadable = Some(error.failure()),
            }
        }
        (opened, unreadable)
    }

    /// What the findings mean under the operator's rules.
    pub(super) fn report(&self, findings: &PrivacyFindings, local: bool) -> Report {
        let privacy = self.gatekeeper.privacy();
        let mut report = Report::default();
        for (kind, count) in &findings.found {
            let (treatment, rule) = rule(privacy, *kind, local);
            let of_vault = *kind == Kind::Secret;
            let names = findings.secrets.iter().filter(|_| of_vault).cloned().collect();
            if matches!(treatment, Treatment::AsIs | Treatment::Local | Treatment::Ask) {
                report.bare.insert(kind.as_str().to_owned());
                report.bare.insert(group(*kind).to_owned());
            }
            if rule_away(privacy, *kind) != Treatment::AsIs {
                report.labels.join(&Labels::one(group(*kind)));
            }
            let (kind, count) = (kind.as_str().to_owned(), *count);
            report.found.push(PrivacyFound { kind, count, treatment, rule, names });
        }
        report.found.extend(labelled(privacy, &self.state.labels, local));
        report
    }

    /// Whether nothing was replaced in this run yet.
    pub(super) fn has_no_pseudonyms(&self) -> bool {
        self.pseudonymity.kept.is_empty()
    }

    /// Keeps new pseudonyms for the requests to come; their record is written.
    pub(super) fn keep_pseudonyms(&mut self, unsaved: &[u8]) {
        self.pseudonymity.kept.extend_from_slice(unsaved);
        if !unsaved.is_empty() && !unsaved.ends_with(b"\n") {
            self.pseudonymity.kept.push(b'\n');
        }
    }
}

fn recognisable<'a>((name, value): (&'a str, &'a [u8])) -> Option<(&'a str, &'a [u8])> {
    let value = value.trim_ascii();
    let known = &value[..value.len().min(SECRET_BYTES_MAX)];
    (known.trim_ascii().len() >= SECRET_BYTES_MIN).then_some((name, known))
}

fn coded(error: privacy::PrivacyError) -> Failure {
    error.failure()
}

/// What labels of the context say about where the request may go.
fn labelled(privacy: &Privacy, labels: &Labels, local: bool) -> Vec<PrivacyFound> {
    let spared = local && privacy.local == LocalPrivacy::AsIs;
    let of = |label: &str| {
        let kind = label.split_once(':').map_or(label, |(kind, _)| kind);
        let named = privacy.labels.get_key_value(label).or(privacy.labels.get_key_value(kind))?;
        let (said, treatment) = (named.0.clone(), if spared { Treatment::AsIs } else { *named.1 });
        let (kind, rule) = ("label".to_owned(), format!("privacy.labels.{said}"));
        let names = vec![label.to_owned()];
        Some(PrivacyFound { kind, count: 1, treatment, rule, names })
    };
    labels.iter().filter_map(of).collect()
}

fn group(kind: Kind) -> &'static str {
    if kind.is_secret() { SECRET } else { PII }
}

/// What is done with a kind, and which rule says so.
fn rule(privacy: &Privacy, kind: Kind, local: bool) -> (Treatment, String) {
    let fixed = match kind {
        Kind::Secret => Some((Treatment::Mask, "privacy.vault")),
        Kind::Canary => Some((Treatment::Refuse, "privacy.canaries")),
        _ if local && privacy.local == LocalPrivacy::AsIs => {
            Some((Treatment::AsIs, "privacy.local"))
        }
        _ => None,
    };
    if let Some((treatment, rule)) = fixed {
        return (treatment, rule.to_owned());
    }
    match privacy.types.get(kind.as_str()) {
        Some(treatment) => (*treatment, format!("privacy.{kind}")),
        None if kind.is_secret() => (privacy.secrets, "privacy.secrets".to_owned()),
        None => (privacy.default, "privacy.default".to_owned()),
    }
}

/// What is done with a kind where the request leaves this machine.
fn rule_away(privacy: &Privacy, kind: Kind) -> Treatment {
    rule(privacy, kind, false).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn table(privacy: &Privacy, local: bool) -> BTreeMap<Kind, Treatment> {
        Kind::ALL.iter().map(|kind| (*kind, rule(privacy, *kind, local).0)).collect()
    }

    #[test]
    fn the_vault_and_canaries_never_leave_whatever_is_said() {
        let open = Privacy { secrets: Treatment::AsIs, ..Privacy::default() };
        for local in [false, true] {
            let table = table(&open, local);
            assert_eq!(table[&Kind::Secret], Treatment::Mask);
            assert_eq!(table[&Kind::Canary], Treatment::Refuse);
            assert_eq!(table[&Kind::Jwt], Treatment::AsIs);
        }
    }

    #[test]
    fn a_type_goes_before_its_group_and_this_machine_is_spared() {
        let mut privacy = Privacy { default: Treatment::Mask, ..Privacy::default() };
        privacy.types.insert("email".to_owned(), Treatment::Ask);
        let of = |privacy: &Privacy, kind, local| rule(privacy, kind, local);
        assert_eq!(of(&privacy, Kind::Email, false), (Treatment::Ask, "privacy.email".into()));
        assert_eq!(of(&privacy, Kind::Phone, false), (Treatment::Mask, "privacy.default".into()));
        assert_eq!(
            of(&privacy, Kind::Jwt, false),
            (Treatment::Pseudonym, "privacy.secrets".into())
        );
        assert_eq!(of(&privacy, Kind::Email, true), (Treatment::AsIs, "privacy.local".into()));
        privacy.local = LocalPrivacy::Same;
        assert_eq!(of(&privacy, Kind::Email, true).0, Treatment::Ask);
    }

    #[test]
    fn a_label_with_a_name_is_of_its_kind() {
        let mut privacy = Privacy::default();
        privacy.labels.insert("confidential".to_owned(), Treatment::Local);
        let labels = Labels::one("confidential:payroll");
        let found = labelled(&privacy, &labels, false);
        assert_eq!(found[0].treatment, Treatment::Local);
        assert_eq!(found[0].rule, "privacy.labels.confidential");
        assert_eq!(found[0].names, ["confidential:payroll"]);
        assert_eq!(labelled(&privacy, &labels, true)[0].treatment, Treatment::AsIs);
        assert!(labelled(&privacy, &Labels::one("untrusted"), false).is_empty());
    }
}
