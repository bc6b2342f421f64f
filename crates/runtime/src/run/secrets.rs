//! The run's secrets: what stands for them in its sandboxes, and their values for one request.
//!
//! What always holds: a value is given for a request only when the manifest names the secret, the
//! placeholder is the run's own and policy permits `use_secret` at the request's host. A secret
//! that may be used and cannot be opened denies the request: its placeholder is not sent instead.

use super::RunTask;
use crate::protocol::Keys;
use gate::NetRequest;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use types::{ActionRequest, Coded as _, Digest, Failure, Verdict};
use vault::{Held, KEY_FILE_VARIABLE, KEY_VARIABLE, KeySource};
use zeroize::Zeroizing;

/// Hexadecimal digits of a placeholder.
const PLACEHOLDER_DIGITS: usize = 32;

/// The secrets of one request.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// Their names and placeholders.
    pub(super) names: Vec<(String, String)>,
    /// Their values, in the same order.
    pub(super) values: Vec<Zeroizing<String>>,
}

/// The home's secrets, opened with the key that the commands of this run named.
pub(super) fn held(home: &Path, keys: &Keys) -> Held {
    Held::new(home, source(home, keys))
}

/// Where the key of the home's vault comes from.
pub(super) fn source(home: &Path, keys: &Keys) -> KeySource {
    KeySource::named(home, |name| keys.0.get(name).map(OsString::from))
}

/// Whether these say where the vault's key is.
pub(super) fn name_a_key(keys: &Keys) -> bool {
    [KEY_VARIABLE, KEY_FILE_VARIABLE].iter().any(|name| keys.0.contains_key(*name))
}

impl RunTask {
    /// What stands for a secret in this run's sandboxes. It is worth nothing anywhere else.
    pub(super) fn placeholder(&self, secret: &str) -> String {
        let branch = types::BRANCH_MAIN.to_be_bytes();
        let parts: [&[u8]; 3] = [self.run.as_str().as_bytes(), &branch, secret.as_bytes()];
        let digest = Digest::of_parts("bedplate placeholder 1", &parts).to_string();
        format!("bpsecret-{secret}-{}", &digest[..PLACEHOLDER_DIGITS])
    }

    /// The secrets that a request uses and policy permits at its host. A placeholder of anything
    /// else is sent as it is.
    ///
    /// # Errors
    /// Why a secret that may be used cannot be opened.
    pub(super) fn secrets_for(&mut self, request: &NetRequest) -> Result<Used, Failure> {
        let mut used = Used::default();
        let ActionRequest::HttpRequest { host, .. } = &request.action else {
            return Ok(used);
        };
        if request.placeholders.is_empty() {
            return Ok(used);
        }
        let known: BTreeSet<String> = self.state.manifest().secrets.values().cloned().collect();
        for (name, placeholder) in &request.placeholders {
            if !known.contains(name) || self.placeholder(name) != *placeholder {
                continue;
            }
            let action = ActionRequest::UseSecret { secret: name.clone(), host: host.clone() };
            if self.judge(&action, false).verdict != Verdict::Permit {
                continue;
            }
            let value = self.held.get(name).map_err(|error| error.failure())?;
            used.names.push((name.clone(), placeholder.clone()));
            used.values.push(Zeroizing::new(value.expose().to_owned()));
        }
        Ok(used)
    }
}
