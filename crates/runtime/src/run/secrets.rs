//! The run's secrets: what stands for them in its sandboxes, and what is given for one request.
//!
//! ```text
//!   plain      its value
//!   aws-sigv4  the key, to sign the request with
//!   oauth      a token of this run, while it is good; else the gate makes one: the request for it
//!              is asked about like any other, and only its permit has the client's secret
//! ```
//!
//! What always holds: something is given for a request only when the manifest names the secret, the
//! placeholder is the run's own and policy permits `use_secret` at the request's host. A secret
//! that may be used and cannot be opened denies the request: its placeholder is not sent instead.

use super::RunTask;
use crate::protocol::Keys;
use gate::{NetRequest, SecretGiven, TOKEN_OPERATION, Token, TokenClient};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use types::{ActionRequest, Coded as _, Digest, Failure, Verdict};
use vault::{
    ClientAuth, Credential, Held, KEY_FILE_VARIABLE, KEY_VARIABLE, KeySource, OauthClient,
};

/// Hexadecimal digits of a placeholder.
const PLACEHOLDER_DIGITS: usize = 32;
/// A token is not used in its last seconds: it has a way to go.
const TOKEN_MARGIN_S: u64 = 30;
/// Longest use of a token, whatever its server says, seconds.
const TOKEN_USE_S_MAX: u64 = 3_600;

/// The secrets of one request.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// Their names and placeholders.
    pub(super) names: Vec<(String, String)>,
    /// What is given for them, in the same order.
    pub(super) given: Vec<SecretGiven>,
    /// Those of them that are clients with a token of this run.
    pub(super) by_token: Vec<String>,
}

/// Tokens of one run, in memory only.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    by_secret: BTreeMap<String, Good>,
    /// Permits in flight and the secrets whose tokens they carry.
    carried: BTreeMap<u64, Vec<String>>,
}

/// A token and how long it is used.
#[derive(Debug)]
struct Good {
    token: Token,
    until: Instant,
    /// The client it was made for: a secret that is set anew makes its own.
    client: Digest,
}

impl Tokens {
    fn good(&mut self, secret: &str, client: Digest) -> Option<&Token> {
        let good = self.by_secret.get(secret)?;
        if good.client != client || Instant::now() >= good.until {
            self.by_secret.remove(secret);
        }
        self.by_secret.get(secret).map(|good| &good.token)
    }

    /// Remembers which tokens a permit carries.
    pub(super) fn carry(&mut self, permit: u64, secrets: Vec<String>) {
        if !secrets.is_empty() {
            self.carried.insert(permit, secrets);
        }
    }

    /// A permit has ended: a token that was refused is not used again.
    pub(super) fn ended(&mut self, permit: u64, refused: bool) {
        for secret in self.carried.remove(&permit).unwrap_or_default() {
            if refused {
                self.by_secret.remove(&secret);
            }
        }
    }
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

/// Which client, as it is set now, a token belongs to. In memory only.
fn identity(client: &OauthClient) -> Digest {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_default();
    let (scope, audience) = (or_none(&client.scope), or_none(&client.audience));
    let parts = [&client.token_url, &client.client_id, &client.client_secret, &scope, &audience];
    Digest::of_parts("bedplate oauth client 1", &parts.map(|part| part.as_bytes()))
}

/// For how many seconds a token is used.
fn use_s(expires_s: Option<u64>) -> u64 {
    expires_s.unwrap_or(0).saturating_sub(TOKEN_MARGIN_S).min(TOKEN_USE_S_MAX)
}

/// Whether this is the gate's own request for a token. A program never hears its answer.
pub(super) fn is_for_token(action: &ActionRequest) -> bool {
    matches!(action, ActionRequest::HttpRequest { facts: Some(facts), .. }
        if facts.operation == TOKEN_OPERATION)
}

/// Whether this is the request for a token of this client.
fn asks_for_token(client: &OauthClient, action: &ActionRequest) -> bool {
    let ActionRequest::HttpRequest { host, method, path, port, scheme, query, .. } = action else {
        return false;
    };
    let (host, path) = (host.as_str(), path.as_str());
    let here = client.endpoint() == Some((host, *port, path));
    here && method == "POST" && scheme == "https" && query.is_empty()
}

/// As RFC 6749 wants a client's secret in its header.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// What stands for a secret, by a digest that is its owner's own.
pub(crate) fn placeholder_of(secret: &str, own: Digest) -> String {
    format!("bpsecret-{secret}-{}", &own.to_string()[..PLACEHOLDER_DIGITS])
}

/// What is given of a credential that needs nothing made first.
pub(crate) fn as_it_is(credential: &Credential) -> Option<SecretGiven> {
    match credential {
        Credential::Plain(value) => Some(SecretGiven::Value { value: value.as_str().to_owned() }),
        Credential::AwsSigv4(key) => Some(SecretGiven::AwsSigv4 {
            access_key: key.access_key_id.clone(),
            secret: key.secret_access_key.clone(),
            session_token: key.session_token.clone(),
            region: key.region.clone(),
            service: key.service.clone(),
        }),
        Credential::OauthClient(_) => None,
    }
}

/// What is given for a client: its secret for the request for a token, else a token.
fn of_client(
    client: &OauthClient,
    action: &ActionRequest,
    good: Option<&Token>,
) -> Option<SecretGiven> {
    if is_for_token(action) {
        let value = match client.auth {
            ClientAuth::Basic => escaped(&client.client_secret),
            ClientAuth::Body => client.client_secret.clone(),
        };
        return asks_for_token(client, action).then_some(SecretGiven::Value { value });
    }
    if let Some(token) = good {
        return Some(SecretGiven::Value { value: token.expose().to_owned() });
    }
    let (host, port, path) = client.endpoint()?;
    let client = TokenClient {
        host: host.to_owned(),
        port,
        path: path.to_owned(),
        id: client.client_id.clone(),
        basic: client.auth == ClientAuth::Basic,
        scope: client.scope.clone(),
        audience: client.audience.clone(),
    };
    Some(SecretGiven::Token { client })
}

impl RunTask {
    /// What stands for a secret in this run's sandboxes. It is worth nothing anywhere else.
    pub(super) fn placeholder(&self, secret: &str) -> String {
        let branch = types::BRANCH_MAIN.to_be_bytes();
        let parts: [&[u8]; 3] = [self.run.as_str().as_bytes(), &branch, secret.as_bytes()];
        placeholder_of(secret, Digest::of_parts("bedplate placeholder 1", &parts))
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
            let twice = used.names.iter().any(|(_, known)| known == placeholder);
            if twice || !known.contains(name) || self.placeholder(name) != *placeholder {
                continue;
            }
            let action = ActionRequest::UseSecret { secret: name.clone(), host: host.clone() };
            if self.judge(&action, false).verdict != Verdict::Permit {
                continue;
            }
            let given = match self.held.get(name).map_err(|error| error.failure())? {
                Credential::OauthClient(client) => {
                    let good = self.tokens.good(name, identity(client));
                    used.by_token.push(name.clone());
                    of_client(client, &request.action, good)
                }
                itself => as_it_is(itself),
            };
            if let Some(given) = given {
                used.names.push((name.clone(), placeholder.clone()));
                used.given.push(given);
            }
        }
        Ok(used)
    }

    /// Keeps a token that the gate made, for as long as it is good. One whose time nobody said is
    /// used once.
    pub(super) fn on_minted(&mut self, placeholder: &str, token: Token, expires_s: Option<u64>) {
        let secrets: Vec<String> = self.state.manifest().secrets.values().cloned().collect();
        let Some(secret) = secrets.into_iter().find(|name| self.placeholder(name) == *placeholder)
        else {
            return;
        };
        let use_s = use_s(expires_s);
        if let Ok(Credential::OauthClient(client)) = self.held.get(&secret)
            && use_s > 0
        {
            let until = Instant::now() + Duration::from_secs(use_s);
            let client = identity(client);
            self.tokens.by_secret.insert(secret, Good { token, until, client });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_used_until_shortly_before_its_end() {
        let check = |expires: Option<u64>, expected: u64| assert_eq!(use_s(expires), expected);
        check(None, 0);
        check(Some(TOKEN_MARGIN_S), 0);
        check(Some(TOKEN_MARGIN_S + 1), 1);
        check(Some(TOKEN_USE_S_MAX + TOKEN_MARGIN_S), TOKEN_USE_S_MAX);
        check(Some(TOKEN_USE_S_MAX + TOKEN_MARGIN_S + 1), TOKEN_USE_S_MAX);
        check(Some(u64::MAX), TOKEN_USE_S_MAX);
    }

    #[test]
    fn a_client_s_secret_is_for_its_token_address_alone() {
        let client = OauthClient {
            token_url: "https://id.test/token".to_owned(),
            client_id: "a".to_owned(),
            client_secret: "s/1".to_owned(),
            scope: None,
            audience: None,
            auth: ClientAuth::Basic,
        };
        let action = |host: &str, method: &str, path: &str, operation: &str| {
            let facts = types::HttpFacts { operation: operation.to_owned(), ..Default::default() };
            ActionRequest::HttpRequest {
                host: host.to_owned(),
                method: method.to_owned(),
                path: path.to_owned(),
                port: 443,
                scheme: "https".to_owned(),
                query: String::new(),
                facts: Some(Box::new(facts)),
            }
        };
        let given = |action: &ActionRequest| match of_client(&client, action, None) {
            Some(SecretGiven::Value { .. }) => "secret",
            Some(SecretGiven::Token { .. }) => "token",
            _ => "nothing",
        };
        let check = |action: ActionRequest, expected: &str| assert_eq!(given(&action), expected);
        check(action("id.test", "POST", "/token", TOKEN_OPERATION), "secret");
        check(action("id.test", "POST", "/token", ""), "token");
        check(action("api.test", "POST", "/token", TOKEN_OPERATION), "nothing");
        check(action("id.test", "GET", "/token", TOKEN_OPERATION), "nothing");
        check(action("id.test", "POST", "/other", TOKEN_OPERATION), "nothing");
        check(action("api.test", "GET", "/v1", ""), "token");
        assert_eq!(escaped("s/1"), "s%2F1");
    }
}
