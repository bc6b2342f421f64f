//! What can be found, how sure it is, and what may be done about it.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! kinds {
    ($($name:ident $text:literal $doc:literal,)*) => {
        /// What a finding is. The order is the order of precedence: where two findings overlap,
        /// the union of both is reported as the earlier kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = $doc] #[serde(rename = $text)] $name,)*
        }

        impl Kind {
            /// Every kind, in order of precedence.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kind as it is written in configurations, logs and pseudonyms.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

kinds! {
    Secret "secret" "An exact value of the vault, known by its fingerprint.",
    Canary "canary" "A configured value that must never travel.",
    PrivateKey "private-key" "A private key in PEM.",
    AwsKey "aws-key" "An access key id of AWS.",
    GithubToken "github-token" "A token of GitHub, its checksum right.",
    GitlabToken "gitlab-token" "A token of GitLab.",
    SlackToken "slack-token" "A token or a webhook of Slack.",
    StripeKey "stripe-key" "A secret or restricted key of Stripe.",
    AnthropicKey "anthropic-key" "A key of Anthropic.",
    OpenaiKey "openai-key" "A key of OpenAI, or of one that writes its keys alike.",
    GoogleKey "google-key" "An API key of Google.",
    NpmToken "npm-token" "A token of npm, its checksum right.",
    PypiToken "pypi-token" "A token of PyPI.",
    OtherToken "other-token" "A token of another provider with a shape of its own.",
    Jwt "jwt" "A JSON Web Token with a readable header.",
    Credential "credential" "A value with entropy after a word such as `password=`, or in a URL.",
    Iban "iban" "An IBAN, its length and check digits right.",
    Card "card" "A payment card number: prefix, length and Luhn right.",
    Email "email" "An e-mail address.",
    ItFiscalCode "it-fiscal-code" "Italy: codice fiscale.",
    CnResidentId "cn-resident-id" "China: resident identity number.",
    FrNir "fr-nir" "France: numéro de sécurité sociale.",
    FiHetu "fi-hetu" "Finland: henkilötunnus.",
    EsDni "es-dni" "Spain: DNI or NIE.",
    SePersonnummer "se-personnummer" "Sweden: personnummer.",
    BrCpf "br-cpf" "Brazil: CPF.",
    DeTaxId "de-tax-id" "Germany: steuerliche Identifikationsnummer.",
    PlPesel "pl-pesel" "Poland: PESEL.",
    InAadhaar "in-aadhaar" "India: Aadhaar.",
    UsSsn "us-ssn" "United States: social security number.",
    UkNhs "uk-nhs" "United Kingdom: NHS number.",
    NlBsn "nl-bsn" "Netherlands: burgerservicenummer.",
    Phone "phone" "A telephone number.",
    Mac "mac" "A hardware address.",
    Ipv6 "ipv6" "An IPv6 address that is not loopback or unspecified.",
    Ipv4 "ipv4" "An IPv4 address that is not loopback, unspecified or broadcast.",
    Name "name" "A configured name.",
    Pseudonym "pseudonym" "Text in the shape of a pseudonym that was there before.",
}

impl Kind {
    /// The kind that is written so.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == text)
    }

    /// Whether this is a secret rather than personal data.
    #[must_use]
    pub fn is_secret(self) -> bool {
        self <= Self::Credential
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Kind>", into = "Vec<Kind>")]
pub struct Kinds(u64);

impl Kinds {
    /// No kind.
    pub const NONE: Self = Self(0);

    /// Every kind.
    #[must_use]
    pub fn all() -> Self {
        Kind::ALL.iter().copied().collect()
    }

    /// Every kind of secret.
    #[must_use]
    pub fn secrets() -> Self {
        Kind::ALL.iter().copied().filter(|kind| kind.is_secret()).collect()
    }

    /// Whether the set has this kind.
    #[must_use]
    pub const fn has(self, kind: Kind) -> bool {
        self.0 & (1 << kind as u8) != 0
    }

    /// The set with one kind more.
    #[must_use]
    pub const fn with(self, kind: Kind) -> Self {
        Self(self.0 | 1 << kind as u8)
    }

    /// The set without one kind.
    #[must_use]
    pub const fn without(self, kind: Kind) -> Self {
        Self(self.0 & !(1 << kind as u8))
    }

    /// The kinds, in order of precedence.
    pub fn iter(self) -> impl Iterator<Item = Kind> {
        Kind::ALL.iter().copied().filter(move |kind| self.has(*kind))
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<T: IntoIterator<Item = Kind>>(kinds: T) -> Self {
        kinds.into_iter().fold(Self::NONE, Self::with)
    }
}

impl From<Vec<Kind>> for Kinds {
    fn from(kinds: Vec<Kind>) -> Self {
        kinds.into_iter().collect()
    }
}

impl From<Kinds> for Vec<Kind> {
    fn from(kinds: Kinds) -> Self {
        kinds.iter().collect()
    }
}

/// How sure a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Shape, context or entropy speak for it.
    Likely,
    /// An exact value, a checksum or a shape nothing else has.
    Certain,
}

/// A stretch of a text that is a secret or personal data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Offset of its first byte; always a character's first.
    pub start: usize,
    /// Offset behind its last byte; always behind a character's last.
    pub end: usize,
    /// What it is.
    pub kind: Kind,
    /// How sure that is.
    pub confidence: Confidence,
    /// The secret's name, when it is one of the vault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// Whether it was found inside base64, hexadecimal or percent-encoding, which is then the
    /// whole stretch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub encoded: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_what_was_put_in_and_survives_storing() {
        let set = Kinds::NONE.with(Kind::Email).with(Kind::Secret).without(Kind::Email);
        assert_eq!(set.iter().collect::<Vec<_>>(), [Kind::Secret]);
        let text = serde_json::to_string(&Kinds::all()).unwrap();
        assert_eq!(serde_json::from_str::<Kinds>(&text).unwrap(), Kinds::all());
        assert!(Kind::ALL.len() <= 64, "a set is one word");
    }

    #[test]
    fn secrets_come_before_personal_data() {
        assert!(Kind::Credential.is_secret() && Kind::Canary.is_secret());
        assert!(!Kind::Iban.is_secret() && !Kind::Name.is_secret());
        assert!(Kinds::secrets().has(Kind::Jwt) && !Kinds::secrets().has(Kind::Phone));
    }

    #[test]
    fn configurations_and_logs_know_every_kind() {
        let of = |secret: bool| {
            let own = [Kind::Secret, Kind::Canary, Kind::Pseudonym];
            let kinds = Kind::ALL.iter().filter(move |k| !own.contains(k));
            kinds.filter(move |k| k.is_secret() == secret).map(|k| k.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(of(true), types::TOKEN_KINDS);
        assert_eq!(of(false), types::PERSONAL_KINDS);
    }
}
