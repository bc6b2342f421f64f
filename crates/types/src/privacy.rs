//! The words of the privacy router: what may be found in a request to a model, and what is done.
//!
//! Configuration and log are written in these words; the `privacy` crate finds things.

use serde::{Deserialize, Serialize};

/// Kinds of secrets that are known by their shape, as in `[privacy]` and in the log.
pub const TOKEN_KINDS: [&str; 14] = [
    "private-key",
    "aws-key",
    "github-token",
    "gitlab-token",
    "slack-token",
    "stripe-key",
    "anthropic-key",
    "openai-key",
    "google-key",
    "npm-token",
    "pypi-token",
    "other-token",
    "jwt",
    "credential",
];

/// Kinds of personal data, as in `[privacy]` and in the log.
pub const PERSONAL_KINDS: [&str; 21] = [
    "iban",
    "card",
    "email",
    "it-fiscal-code",
    "cn-resident-id",
    "fr-nir",
    "fi-hetu",
    "es-dni",
    "se-personnummer",
    "br-cpf",
    "de-tax-id",
    "pl-pesel",
    "in-aadhaar",
    "us-ssn",
    "uk-nhs",
    "nl-bsn",
    "phone",
    "mac",
    "ipv6",
    "ipv4",
    "name",
];

/// What is done with something that was found, or with the whole request. From the most open to
/// the most closed, so the strictest of several is their maximum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Treatment {
    /// It is sent as it is.
    AsIs,
    /// A pseudonym is sent, and taken back in the answer.
    Pseudonym,
    /// A mask is sent, which nothing takes back.
    Mask,
    /// The request goes to a provider on this machine, or nowhere.
    Local,
    /// A person is asked.
    Ask,
    /// The request is not sent.
    Refuse,
}

impl Treatment {
    /// The word for it in configuration and log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AsIs => "as_is",
            Self::Pseudonym => "pseudonym",
            Self::Mask => "mask",
            Self::Local => "local",
            Self::Ask => "ask",
            Self::Refuse => "refuse",
        }
    }
}

/// Things of one kind that were found in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivacyFound {
    /// Their kind: `email`; `label` for a label that the request carries.
    pub kind: String,
    /// How many places.
    pub count: u64,
    /// What was done.
    pub treatment: Treatment,
    /// Which rule said so: `privacy.email`.
    pub rule: String,
    /// Names of the vault's secrets, or the label. Never a value.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// Values that stand in an answer where the provider wrote pseudonyms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// The tool call in whose arguments they stand; none for what the model said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// Their kinds.
    pub kinds: Vec<String>,
}
