//! Providers as data, and where a route's entry leads.

use crate::error::ModelError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::manifest::{Dialect, Provider, SCRIPT_PROVIDER};

/// A server that speaks a dialect, and how long to wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The provider's name, as in a route.
    pub provider: String,
    /// How it speaks.
    pub dialect: Dialect,
    /// Base address without a final slash: `https://api.openai.com/v1`.
    pub base_url: String,
    /// Environment variable that holds the key; `None` when it wants none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_env: Option<String>,
    /// Whether it is on this machine: a loopback address.
    pub local: bool,
    /// Certificates trusted besides the system's, PEM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trust: Vec<String>,
    /// How long to wait.
    pub timeouts: Timeouts,
}

/// How long one call may take, phase by phase, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// Until there is a connection, TLS included.
    pub connect_ms: u64,
    /// From there until the reply's header.
    pub header_ms: u64,
    /// Between two pieces of the reply.
    pub idle_ms: u64,
    /// All of it.
    pub total_ms: u64,
}

impl Timeouts {
    /// For providers over the network and servers that load models: reasoning may be silent long.
    pub const PATIENT: Self =
        Self { connect_ms: 10_000, header_ms: 300_000, idle_ms: 120_000, total_ms: 1_800_000 };
    /// For a scripted model: it answers at once or never.
    pub const SCRIPT: Self =
        Self { connect_ms: 2_000, header_ms: 5_000, idle_ms: 5_000, total_ms: 30_000 };
}

impl Endpoint {
    /// The endpoint of a scripted server at this base address.
    #[must_use]
    pub fn script(base_url: &str, dialect: Dialect) -> Self {
        Self {
            provider: SCRIPT_PROVIDER.to_owned(),
            dialect,
            base_url: trimmed(base_url),
            key_env: None,
            local: true,
            trust: Vec::new(),
            timeouts: Timeouts::SCRIPT,
        }
    }
}

/// A provider known by name.
struct Builtin {
    name: &'static str,
    dialect: Dialect,
    base_url: &'static str,
    key_env: Option<&'static str>,
}

const fn builtin(
    name: &'static str,
    dialect: Dialect,
    base_url: &'static str,
    key_env: Option<&'static str>,
) -> Builtin {
    Builtin { name, dialect, base_url, key_env }
}

/// Addresses and variables as the providers document them.
const BUILTINS: [Builtin; 9] = [
    builtin("openai", Dialect::Responses, "https://api.openai.com/v1", Some("OPENAI_API_KEY")),
    builtin(
        "anthropic",
        Dialect::Messages,
        "https://api.anthropic.com/v1",
        Some("ANTHROPIC_API_KEY"),
    ),
    builtin(
        "google",
        Dialect::Gemini,
        "https://generativelanguage.googleapis.com/v1beta",
        Some("GEMINI_API_KEY"),
    ),
    builtin(
        "openrouter",
        Dialect::Chat,
        "https://openrouter.ai/api/v1",
        Some("OPENROUTER_API_KEY"),
    ),
    builtin("mistral", Dialect::Chat, "https://api.mistral.ai/v1", Some("MISTRAL_API_KEY")),
    builtin("deepseek", Dialect::Chat, "https://api.deepseek.com/v1", Some("DEEPSEEK_API_KEY")),
    builtin("groq", Dialect::Chat, "https://api.groq.com/openai/v1", Some("GROQ_API_KEY")),
    builtin("ollama", Dialect::Chat, "http://127.0.0.1:11434/v1", None),
    builtin("vllm", Dialect::Chat, "http://127.0.0.1:8000/v1", None),
];

/// The names of the built-in providers.
pub fn builtin_names() -> impl Iterator<Item = &'static str> {
    BUILTINS.iter().map(|builtin| builtin.name)
}

/// Finds a provider: the manifest's first, then the built-in ones.
///
/// # Errors
/// [`ModelError::UnknownProvider`] with the nearest name; [`ModelError::DialectMissing`] when this
/// build cannot speak to it; [`ModelError::BadEndpoint`] when its address is no plain HTTP address,
/// or when a script is asked for (scripts are started, not resolved).
pub fn resolve(name: &str, manifest: &BTreeMap<String, Provider>) -> Result<Endpoint, ModelError> {
    if name == SCRIPT_PROVIDER {
        return Err(bad(name, "a script has no address until its server is started"));
    }
    let (dialect, base_url, key_env) = if let Some(own) = manifest.get(name) {
        (own.dialect, own.base_url.as_str(), own.key_env.clone())
    } else if let Some(known) = BUILTINS.iter().find(|builtin| builtin.name == name) {
        (known.dialect, known.base_url, known.key_env.map(str::to_owned))
    } else {
        return Err(ModelError::UnknownProvider {
            name: name.chars().take(80).collect(),
            nearest: nearest(name, manifest),
        });
    };
    if dialect == Dialect::Gemini {
        return Err(ModelError::DialectMissing {
            provider: name.to_owned(),
            dialect: dialect_name(dialect),
        });
    }
    let local = is_local(name, base_url)?;
    Ok(Endpoint {
        provider: name.to_owned(),
        dialect,
        base_url: trimmed(base_url),
        key_env,
        local,
        trust: Vec::new(),
        timeouts: timeouts(manifest.get(name).and_then(|own| own.timeout_ms)),
    })
}

/// An operator's timeout is how long the provider may be silent; all of a call may take ten of it.
fn timeouts(silent_ms: Option<u64>) -> Timeouts {
    const CALL_IN_SILENCES: u64 = 10;
    silent_ms.map_or(Timeouts::PATIENT, |silent_ms| Timeouts {
        connect_ms: silent_ms.min(Timeouts::PATIENT.connect_ms),
        header_ms: silent_ms,
        idle_ms: silent_ms,
        total_ms: silent_ms.saturating_mul(CALL_IN_SILENCES),
    })
}

fn trimmed(base_url: &str) -> String {
    base_url.trim_end_matches('/').to_owned()
}

fn bad(provider: &str, why: &str) -> ModelError {
    ModelError::BadEndpoint { provider: provider.to_owned(), why: why.to_owned() }
}

/// Checks the address and says whether it is on this machine.
fn is_local(name: &str, base_url: &str) -> Result<bool, ModelError> {
    let uri: http::Uri = base_url
        .parse()
        .map_err(|_| bad(name, "base_url is no address: write https://HOST[:PORT]/PATH"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(bad(name, "base_url must begin with http:// or https://"));
    }
    let authority = uri.authority().ok_or_else(|| bad(name, "base_url has no host"))?;
    if authority.as_str().contains('@') {
        return Err(bad(name, "base_url holds a user name or password; use key_env"));
    }
    if uri.query().is_some() {
        return Err(bad(name, "base_url may not have a query"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    Ok(loopback || host.eq_ignore_ascii_case("localhost"))
}

fn nearest(name: &str, manifest: &BTreeMap<String, Provider>) -> Option<String> {
    let mut known: Vec<&str> = builtin_names().collect();
    known.push(SCRIPT_PROVIDER);
    known.extend(manifest.keys().map(String::as_str));
    types::manifest::nearest(name, known.into_iter()).map(str::to_owned)
}

/// A dialect's name as the manifest writes it.
pub(crate) const fn dialect_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Responses => "responses",
        Dialect::Chat => "chat",
        Dialect::Messages => "messages",
        Dialect::Gemini => "gemini",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded as _;

    fn own(base_url: &str) -> BTreeMap<String, Provider> {
        let provider = Provider {
            dialect: Dialect::Chat,
            base_url: base_url.to_owned(),
            key_env: None,
            timeout_ms: None,
        };
        BTreeMap::from([("local".to_owned(), provider)])
    }

    #[test]
    fn builtins_resolve_and_the_manifest_wins() {
        let openai = resolve("openai", &BTreeMap::new()).expect("built in");
        assert_eq!(openai.base_url, "https://api.openai.com/v1");
        assert_eq!(openai.key_env.as_deref(), Some("OPENAI_API_KEY"));
        assert!(!openai.local);
        let ollama = resolve("ollama", &BTreeMap::new()).expect("built in");
        assert_eq!((ollama.dialect, ollama.local, ollama.key_env), (Dialect::Chat, true, None));
        let anthropic = resolve("anthropic", &BTreeMap::new()).expect("built in");
        assert_eq!(anthropic.dialect, Dialect::Messages);
        assert_eq!(anthropic.key_env.as_deref(), Some("ANTHROPIC_API_KEY"));
        let mut manifest = own("http://10.0.0.1/v1/");
        manifest.insert("openai".to_owned(), manifest["local"].clone());
        let openai = resolve("openai", &manifest).expect("given");
        assert_eq!(openai.base_url, "http://10.0.0.1/v1");
        assert_eq!(openai.dialect, Dialect::Chat);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_code() {
        let check = |name: &str, base_url: &str, code: &str| {
            let error = resolve(name, &own(base_url)).expect_err("refused");
            assert_eq!(error.code(), code, "{error}");
        };
        let good = "http://127.0.0.1:1/v1";
        check("opnai", good, "BP-MODEL-014");
        check("google", good, "BP-MODEL-015");
        check("script", good, "BP-MODEL-016");
        check("local", "ftp://127.0.0.1/", "BP-MODEL-016");
        check("local", "127.0.0.1:11434/v1", "BP-MODEL-016");
        check("local", "http://user:word@127.0.0.1/v1", "BP-MODEL-016");
        check("local", "http://127.0.0.1/v1?key=1", "BP-MODEL-016");
        let error = resolve("opnai", &own(good)).expect_err("refused");
        assert!(error.to_string().contains("did you mean 'openai'"), "{error}");
    }

    #[test]
    fn local_means_loopback() {
        let check = |base_url: &str, local: bool| {
            let endpoint = resolve("local", &own(base_url)).expect("usable");
            assert_eq!(endpoint.local, local, "{base_url}");
        };
        check("http://127.0.0.1:11434/v1", true);
        check("http://[::1]:8000/v1", true);
        check("http://localhost/v1", true);
        check("http://localhost.example.org/v1", false);
        check("http://10.0.0.7:8000/v1", false);
    }

    #[test]
    fn an_operator_says_how_long_a_provider_may_be_silent() {
        let mut providers = own("http://127.0.0.1:1/v1");
        let patient = resolve("local", &providers).expect("resolves").timeouts;
        assert_eq!(patient, Timeouts::PATIENT);
        providers.get_mut("local").expect("there").timeout_ms = Some(2_000);
        let hurried = resolve("local", &providers).expect("resolves").timeouts;
        assert_eq!((hurried.connect_ms, hurried.header_ms, hurried.idle_ms), (2_000, 2_000, 2_000));
        assert_eq!(hurried.total_ms, 20_000);
    }
}
