//! Kinds of secrets: what is sent as it is, and what a request's credential is made of outside the
//! sandbox.
//!
//! A secret that has parts is given as a small document, JSON or TOML, checked when it is set and
//! kept as JSON. What a document must not say is refused then, by name and never by value.

use crate::{Result, VaultError};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

/// Characters of a part that is no secret.
const PART_CHARS_MAX: usize = 512;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// Text that is sent as it is.
    Plain,
    /// A client of an OAuth 2 authorization server: short-lived tokens are sent.
    OauthClient,
    /// An access key of AWS: requests are signed with it.
    AwsSigv4,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Plain, Self::OauthClient, Self::AwsSigv4];

    /// As it stands in a record and on a command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::OauthClient => "oauth-client",
            Self::AwsSigv4 => "aws-sigv4",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// How a client says who it is to the authorization server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    /// In the header, as RFC 6749 prefers.
    #[default]
    Basic,
    /// In the body.
    Body,
}

/// A client that gets tokens for itself (RFC 6749, section 4.4).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OauthClient {
    /// Where tokens come from: `https`, a name, a path.
    pub token_url: String,
    /// Its name.
    pub client_id: String,
    /// Its secret.
    pub client_secret: String,
    /// What the tokens are asked to be good for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Whom they are for, where a server wants to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    /// How it says who it is.
    #[serde(default)]
    pub auth: ClientAuth,
}

/// An access key and what it signs for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsKey {
    /// The key's name.
    pub access_key_id: String,
    /// The key.
    pub secret_access_key: String,
    /// Of temporary credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
    /// As in `eu-central-1`.
    pub region: String,
    /// As in `s3`.
    pub service: String,
}

/// A secret's value by its kind. Wiped when dropped.
pub enum Credential {
    /// Sent as it is.
    Plain(Zeroizing<String>),
    /// Makes tokens.
    OauthClient(Box<OauthClient>),
    /// Signs.
    AwsSigv4(Box<AwsKey>),
}

impl Credential {
    /// The texts in it that must stay secret.
    #[must_use]
    pub fn secrets(&self) -> Vec<&str> {
        match self {
            Self::Plain(value) => vec![value.as_str()],
            Self::OauthClient(client) => vec![client.client_secret.as_str()],
            Self::AwsSigv4(key) => {
                let session = key.session_token.as_deref();
                std::iter::once(key.secret_access_key.as_str()).chain(session).collect()
            }
        }
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(..)")
    }
}

impl Drop for OauthClient {
    fn drop(&mut self) {
        self.client_secret.zeroize();
    }
}

impl Drop for AwsKey {
    fn drop(&mut self) {
        self.secret_access_key.zeroize();
        self.session_token.zeroize();
    }
}

impl std::fmt::Debug for OauthClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OauthClient").field("token_url", &self.token_url).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AwsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AwsKey").field("region", &self.region).finish_non_exhaustive()
    }
}

impl OauthClient {
    /// Host, port and path of where tokens come from; none when it is no such address.
    #[must_use]
    pub fn endpoint(&self) -> Option<(&str, u16, &str)> {
        let rest = self.token_url.strip_prefix("https://")?;
        let (authority, path) = rest.split_at(rest.find('/')?);
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse().ok().filter(|port| *port != 0)?),
            None => (authority, 443),
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        let path_fits = path.chars().all(|c| c.is_ascii_graphic() && !"?#%\\\"".contains(c));
        let whole =
            !path.split('/').any(|part| part == "." || part == "..") && !path.contains("//");
        (!host.is_empty() && host.chars().all(plain) && path_fits && whole)
            .then_some((host, port, path))
    }

    fn check(&self) -> std::result::Result<(), &'static str> {
        if self.endpoint().is_none() {
            return Err("`token_url` is not https://host/path, the host in lower case, no query");
        }
        // RFC 6749, appendix A: what may stand in a request unescaped is escaped all the same.
        part(&self.client_id, "`client_id` is empty, too long or no printable ASCII")?;
        secret(&self.client_secret, "`client_secret` is empty or no printable ASCII")?;
        for text in [&self.scope, &self.audience].into_iter().flatten() {
            part(text, "`scope` or `audience` is empty, too long or no printable ASCII")?;
        }
        Ok(())
    }
}

impl AwsKey {
    fn check(&self) -> std::result::Result<(), &'static str> {
        let word = |text: &str, more: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            !text.is_empty() && text.len() <= PART_CHARS_MAX && text.chars().all(fits)
        };
        if !word(&self.access_key_id, "_") {
            return Err("`access_key_id` is not letters and digits");
        }
        if !word(&self.region, "-") || !word(&self.service, "-") {
            return Err("`region` or `service` is not letters, digits and '-'");
        }
        secret(&self.secret_access_key, "`secret_access_key` is empty or no printable ASCII")?;
        self.session_token
            .iter()
            .try_for_each(|token| secret(token, "`session_token` is empty or no printable ASCII"))
    }
}

fn part(text: &str, why: &'static str) -> std::result::Result<(), &'static str> {
    let fits = |c: char| c == ' ' || c.is_ascii_graphic();
    let good = !text.is_empty() && text.len() <= PART_CHARS_MAX && text.chars().all(fits);
    if good { Ok(()) } else { Err(why) }
}

fn secret(text: &str, why: &'static str) -> std::result::Result<(), &'static str> {
    let good = !text.is_empty() && text.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    if good { Ok(()) } else { Err(why) }
}

fn refused(why: impl Into<String>) -> VaultError {
    VaultError::Value { why: why.into() }
}

/// Reads a document as it is given: JSON when it begins with a brace, else TOML. An error names
/// nothing of it but keys: parsers quote what they do not like.
fn read<T: serde::de::DeserializeOwned>(text: &str, keys: &str) -> Result<T> {
    let wrong = || refused(format!("it is no JSON or TOML document with {keys}, and nothing else"));
    if text.trim_start().starts_with('{') {
        return serde_json::from_str(text).map_err(|_| wrong());
    }
    toml::from_str(text).map_err(|_| wrong())
}

fn kept<T: Serialize>(value: &T) -> Zeroizing<String> {
    Zeroizing::new(serde_json::to_string(value).expect("parts are plain data"))
}

const OAUTH_KEYS: &str = "token_url, client_id, client_secret, and perhaps scope, audience and auth \
                          (\"basic\" or \"body\")";
const AWS_KEYS: &str =
    "access_key_id, secret_access_key, region, service, and perhaps session_token";

/// What is kept of a value that somebody gives.
///
/// # Errors
/// [`VaultError::Value`] when it is no value of this kind.
pub(crate) fn admit(kind: Kind, text: &str) -> Result<Zeroizing<String>> {
    match credential(kind, text)? {
        Credential::Plain(text) => Ok(text),
        Credential::OauthClient(client) => Ok(kept(&*client)),
        Credential::AwsSigv4(key) => Ok(kept(&*key)),
    }
}

/// A value by its kind.
///
/// # Errors
/// As [`admit`].
pub(crate) fn credential(kind: Kind, text: &str) -> Result<Credential> {
    match kind {
        Kind::Plain => Ok(Credential::Plain(Zeroizing::new(text.to_owned()))),
        Kind::OauthClient => {
            let client: OauthClient = read(text, OAUTH_KEYS)?;
            client.check().map_err(refused)?;
            Ok(Credential::OauthClient(Box::new(client)))
        }
        Kind::AwsSigv4 => {
            let key: AwsKey = read(text, AWS_KEYS)?;
            key.check().map_err(refused)?;
            Ok(Credential::AwsSigv4(Box::new(key)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded as _;

    const OAUTH: &str = "token_url = \"https://id.test/token\"\nclient_id = \"a\"\n\
                         client_secret = \"hidden\"\n";
    const AWS: &str = r#"{"access_key_id": "AKIA1", "secret_access_key": "hidden/+=",
                         "region": "eu-central-1", "service": "s3"}"#;

    #[test]
    fn documents_are_json_or_toml_and_kept_as_json() {
        let kept = admit(Kind::OauthClient, OAUTH).unwrap();
        let again = credential(Kind::OauthClient, &kept).unwrap();
        let Credential::OauthClient(client) = again else { panic!("another kind") };
        assert_eq!(client.endpoint(), Some(("id.test", 443, "/token")));
        assert_eq!((client.client_secret.as_str(), client.auth), ("hidden", ClientAuth::Basic));
        let kept = admit(Kind::AwsSigv4, AWS).unwrap();
        assert_eq!(admit(Kind::AwsSigv4, &kept).unwrap(), kept);
        assert!(!format!("{client:?}").contains("hidden"));
    }

    #[test]
    fn what_does_not_fit_is_refused_without_its_value() {
        let check = |kind: Kind, text: &str| {
            let error = admit(kind, text).expect_err("refused");
            assert_eq!(error.code(), "BP-VAULT-003", "{text}");
            assert!(!error.to_string().contains("hidden"), "{error}");
        };
        for (from, to) in [
            ("https://id.test/token", "http://id.test/token"),
            ("https://id.test/token", "https://id.test"),
            ("https://id.test/token", "https://u@id.test/token"),
            ("https://id.test/token", "https://ID.test/token"),
            ("https://id.test/token", "https://id.test/a/../token"),
            ("https://id.test/token", "https://id.test/token?x=hidden"),
            ("https://id.test/token", "https://id.test:0/token"),
            ("client_id = \"a\"", "client_id = \"\""),
            ("client_id = \"a\"", "client_id = \"a\"\nmore = \"hidden\""),
            ("\"hidden\"", "hidden"),
            ("\"hidden\"", "\"hidden\\nx\""),
            ("client_secret", "secret"),
        ] {
            check(Kind::OauthClient, &OAUTH.replacen(from, to, 1));
        }
        check(Kind::AwsSigv4, &AWS.replace("eu-central-1", "eu/central"));
        check(Kind::AwsSigv4, &AWS.replace("AKIA1", ""));
        check(Kind::AwsSigv4, "hidden");
        check(Kind::AwsSigv4, OAUTH);
    }

    #[test]
    fn kinds_have_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::named(kind.name()), Some(kind));
        }
        assert_eq!(Kind::named("other"), None);
    }
}
