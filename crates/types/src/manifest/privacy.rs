//! Strict reading of `[privacy]`.

use super::parse::{ManifestError, bad, nearest};
use super::{LocalPrivacy, Manifest, Privacy};
use crate::{PERSONAL_KINDS, TOKEN_KINDS, Treatment};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Most names, canaries or labels that `[privacy]` lists, each. The names of the privacy crate are
/// fewer; it says so when they are too many for it.
const LIST_MAX: usize = 20_000;
/// Words that are no type of their own.
const RESERVED: [&str; 3] = ["secret", "canary", "vault"];
/// Keys beside the types.
const KEYS: [&str; 7] =
    ["default", "secrets", "names", "canaries", "labels", "local_route", "local"];

/// `[privacy]` as written: the other keys are types.
#[derive(Default, Deserialize)]
pub(super) struct RawPrivacy {
    default: Option<String>,
    secrets: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    canaries: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    local_route: Option<String>,
    local: Option<String>,
    #[serde(flatten)]
    types: BTreeMap<String, toml::Value>,
}

impl RawPrivacy {
    pub(super) fn check(self) -> Result<Privacy, ManifestError> {
        let usual = Privacy::default();
        let of = |key: &str, word: Option<String>, usual| {
            word.map_or(Ok(usual), |word| treatment(key, &word))
        };
        for (key, entries) in [("names", &self.names), ("canaries", &self.canaries)] {
            if entries.len() > LIST_MAX {
                let message = format!("{} entries, the limit is {LIST_MAX}", entries.len());
                return Err(bad(format!("privacy.{key}"), message));
            }
        }
        let types = self.types.into_iter().map(of_type).collect::<Result<_, _>>()?;
        let labels = self.labels.into_iter().map(of_label).collect::<Result<_, _>>()?;
        let local = match self.local.as_deref() {
            None | Some("as_is") => LocalPrivacy::AsIs,
            Some("same") => LocalPrivacy::Same,
            Some(other) => {
                let message = format!("'{other}' is neither as_is nor same");
                return Err(bad("privacy.local", message));
            }
        };
        Ok(Privacy {
            default: of("default", self.default, usual.default)?,
            secrets: of("secrets", self.secrets, usual.secrets)?,
            types,
            names: self.names,
            canaries: self.canaries,
            labels,
            local_route: self.local_route,
            local,
        })
    }
}

fn treatment(key: &str, word: &str) -> Result<Treatment, ManifestError> {
    const ALL: [Treatment; 6] = [
        Treatment::AsIs,
        Treatment::Pseudonym,
        Treatment::Mask,
        Treatment::Local,
        Treatment::Ask,
        Treatment::Refuse,
    ];
    let known = ALL.into_iter().find(|treatment| treatment.as_str() == word);
    known.ok_or_else(|| {
        let words = ALL.map(Treatment::as_str).join(", ");
        bad(format!("privacy.{key}"), format!("'{word}' is none of {words}"))
    })
}

fn of_type((key, value): (String, toml::Value)) -> Result<(String, Treatment), ManifestError> {
    let place = format!("privacy.{key}");
    if RESERVED.contains(&key.as_str()) {
        let message = "is not configured: values of the vault are masked, canaries refused";
        return Err(bad(place, message));
    }
    let types = || PERSONAL_KINDS.iter().chain(&TOKEN_KINDS).copied();
    if !types().any(|known| known == key) {
        let message = match nearest(&key, types().chain(KEYS)) {
            Some(best) => format!("is no type that is found: did you mean '{best}'?"),
            None => "is no type that is found".to_owned(),
        };
        return Err(bad(place, message));
    }
    let word = value.as_str().ok_or_else(|| bad(place, "must be a word, as \"pseudonym\""))?;
    Ok((key.clone(), treatment(&key, word)?))
}

/// A label speaks of the whole request, so nothing can be taken out of it.
fn of_label((label, word): (String, String)) -> Result<(String, Treatment), ManifestError> {
    let key = format!("labels.{label}");
    match treatment(&key, &word)? {
        Treatment::Pseudonym | Treatment::Mask => {
            let message = format!("'{word}' does not fit a label: write as_is, local, ask, refuse");
            Err(bad(format!("privacy.{key}"), message))
        }
        fits => Ok((label, fits)),
    }
}

/// What is sent to this machine only must have somewhere to go.
pub(super) fn check_route(manifest: &Manifest) -> Result<(), ManifestError> {
    let Some(route) = &manifest.privacy.local_route else { return Ok(()) };
    if manifest.routes.contains_key(route) {
        return Ok(());
    }
    Err(bad("privacy.local_route", format!("there is no route '{route}' in [routes]")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::parse;

    fn read(privacy: &str) -> Result<Privacy, ManifestError> {
        let text = format!(
            "schema = 1\n[agent]\nname = \"a\"\ninstructions = \"x\"\nmodel = \"default\"\n\
             [routes]\ndefault = [\"script/t.toml\"]\n[privacy]\n{privacy}\n"
        );
        parse(&text).map(|manifest| manifest.privacy)
    }

    #[test]
    fn a_section_is_read_and_an_empty_one_is_the_usual() {
        assert_eq!(read("").expect("good"), Privacy::default());
        let all = read(
            "default = \"mask\"\nsecrets = \"refuse\"\nemail = \"pseudonym\"\njwt = \"ask\"\n\
             names = [\"Ada\"]\ncanaries = [\"c-123456\"]\nlabels = { confidential = \"local\" }\n\
             local_route = \"default\"\nlocal = \"same\"",
        );
        let all = all.expect("good");
        assert_eq!((all.default, all.secrets), (Treatment::Mask, Treatment::Refuse));
        assert_eq!(all.types["email"], Treatment::Pseudonym);
        assert_eq!(all.types["jwt"], Treatment::Ask);
        assert_eq!(all.labels["confidential"], Treatment::Local);
        assert_eq!(all.local, LocalPrivacy::Same);
    }

    #[test]
    fn what_is_not_known_is_refused_with_a_suggestion() {
        let refused = |privacy: &str, part: &str| {
            let error = read(privacy).expect_err(privacy).to_string();
            assert!(error.contains(part), "{error}");
        };
        refused("emial = \"mask\"", "did you mean 'email'?");
        refused("email = \"hide\"", "'hide' is none of as_is, pseudonym");
        refused("email = 3", "must be a word");
        refused("canary = \"as_is\"", "canaries refused");
        refused("secret = \"as_is\"", "vault are masked");
        refused("labels = { pii = \"mask\" }", "does not fit a label");
        refused("local = \"never\"", "neither as_is nor same");
        refused("local_route = \"none\"", "no route 'none'");
        let many = format!("names = [{}]", "\"a b\",".repeat(LIST_MAX + 1));
        refused(&many, "the limit is 20000");
        assert!(read(&format!("names = [{}]", "\"a b\",".repeat(LIST_MAX))).is_ok());
    }
}
