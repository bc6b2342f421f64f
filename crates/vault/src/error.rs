//! What can go wrong with secrets. No message ever holds a value or a key.

use std::path::PathBuf;
use types::Coded;

/// An error of the vault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// A name that no secret can have.
    #[error("no secret can be called '{name}'")]
    Name {
        /// The name, cut.
        name: String,
    },
    /// There is no such secret.
    #[error("there is no secret '{name}'{}", hint(.nearest))]
    NoSuchSecret {
        /// The name.
        name: String,
        /// The nearest that there is.
        nearest: Option<String>,
    },
    /// A value that cannot be kept.
    #[error("this value cannot be kept: {why}")]
    Value {
        /// Why, without the value.
        why: String,
    },
    /// There is no key, or what is there is none.
    #[error("the vault's key cannot be used: {why}")]
    Key {
        /// Why.
        why: String,
    },
    /// Others may read or write what only we should.
    #[error("{} is not ours alone: {why}", path.display())]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The secret was sealed with another key.
    #[error("the secret '{name}' was sealed with another key than this one")]
    WrongKey {
        /// The secret.
        name: String,
    },
    /// The record is not what was written for this secret.
    #[error("the record of the secret '{name}' is damaged: {why}")]
    Damaged {
        /// The secret.
        name: String,
        /// What does not fit.
        why: String,
    },
    /// The record is of a version or kind this build does not know.
    #[error("the record of the secret '{name}' is of a newer version: {what}")]
    Newer {
        /// The secret.
        name: String,
        /// What is not known.
        what: String,
    },
    /// The system refused something.
    #[error("cannot {doing}: {why}")]
    Io {
        /// What was attempted.
        doing: String,
        /// The system's answer.
        why: String,
    },
    /// Another command writes the vault, and does not end.
    #[error("another command has been writing the vault for {seconds} s")]
    Busy {
        /// How long was waited.
        seconds: u64,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean '{name}'?")).unwrap_or_default()
}

impl Coded for VaultError {
    fn code(&self) -> &'static str {
        match self {
            Self::Name { .. } => "BP-VAULT-001",
            Self::NoSuchSecret { .. } => "BP-VAULT-002",
            Self::Value { .. } => "BP-VAULT-003",
            Self::Key { .. } => "BP-VAULT-004",
            Self::Exposed { .. } => "BP-VAULT-005",
            Self::WrongKey { .. } => "BP-VAULT-006",
            Self::Damaged { .. } => "BP-VAULT-007",
            Self::Newer { .. } => "BP-VAULT-008",
            Self::Io { .. } => "BP-VAULT-009",
            Self::Busy { .. } => "BP-VAULT-010",
        }
    }

    fn next(&self) -> String {
        match self {
            Self::Name { .. } => {
                "Use up to 64 small letters, digits, '_' and '-', beginning with a letter or digit."
                    .to_owned()
            }
            Self::NoSuchSecret { .. } => "bedplate secret ls".to_owned(),
            Self::Value { .. } => {
                "Give the value on standard input, as text: bedplate secret set NAME < FILE"
                    .to_owned()
            }
            Self::Key { .. } => {
                "Bring back HOME/vault.key, or set BEDPLATE_VAULT_KEY (32 bytes as base64) or \
                 BEDPLATE_VAULT_KEY_FILE. Without the key no secret can be read again: remove them \
                 with bedplate secret rm, then set them anew."
                    .to_owned()
            }
            Self::Exposed { path, .. } => format!(
                "If nobody else has read it, make it yours alone: chmod go= {}. If somebody may \
                 have, replace the secrets where they were issued.",
                path.display()
            ),
            Self::WrongKey { .. } => {
                "Use the key it was sealed with, or set the secret anew after bedplate secret rm."
                    .to_owned()
            }
            Self::Damaged { name, .. } => format!(
                "Find out who changed HOME/vault, then: bedplate secret rm {name}, and set it anew."
            ),
            Self::Newer { .. } => "Use the version of bedplate that wrote it.".to_owned(),
            Self::Io { .. } => "Check the device and the permissions of the home.".to_owned(),
            Self::Busy { .. } => "End the other command, then run this one again.".to_owned(),
        }
    }
}
