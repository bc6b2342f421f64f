//! Which model a run uses: what was typed, else what is configured, else what is there.
//!
//! In this order: `--model`, the manifest here, HOME/bedplate.toml (its routes and providers), a
//! known key in the environment, Ollama on this machine.

use crate::error::{CliError, Result};
use runtime::RuntimeError;
use runtime::config;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;
use types::manifest::{self, Manifest, Provider, RouteEntry, SCRIPT_PROVIDER};

/// The route's name for what was typed with `--model PROVIDER/MODEL`.
pub(crate) const ROUTE_TYPED: &str = "command-line";
/// The route's name for what was found.
const ROUTE_FOUND: &str = "default";
/// Known keys and the model each leads to, in order of preference.
pub(crate) const KEYS: [(&str, &str); 5] = [
    ("OPENAI_API_KEY", "openai/gpt-5.4"),
    ("ANTHROPIC_API_KEY", "anthropic/claude-sonnet-5-5"),
    ("MISTRAL_API_KEY", "mistral/mistral-large-latest"),
    ("DEEPSEEK_API_KEY", "deepseek/deepseek-chat"),
    ("OPENROUTER_API_KEY", "openrouter/openai/gpt-5.4"),
];
/// Where Ollama listens.
const OLLAMA: ([u8; 4], u16) = ([127, 0, 0, 1], 11434);
/// How long Ollama may take to connect and to list its models, milliseconds each.
const OLLAMA_MS_MAX: u64 = 500;
/// Largest list of models, in bytes.
const OLLAMA_BYTES_MAX: u64 = 1 << 20;

/// Routes and providers from somewhere.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Models {
    pub(crate) route: String,
    pub(crate) routes: BTreeMap<String, Vec<RouteEntry>>,
    pub(crate) providers: BTreeMap<String, Provider>,
}

impl Models {
    fn one(route: &str, entry: RouteEntry) -> Self {
        let routes = BTreeMap::from([(route.to_owned(), vec![entry])]);
        Self { route: route.to_owned(), routes, providers: BTreeMap::new() }
    }

    /// Puts these models into a manifest.
    pub(crate) fn into_manifest(self, manifest: &mut Manifest) {
        manifest.agent.model = self.route;
        manifest.routes = self.routes;
        manifest.providers = self.providers;
    }
}

/// Overrides the agent's route with what was typed. `here` is what a script's path is relative to.
///
/// # Errors
/// When it is neither a route of the manifest nor PROVIDER/MODEL of a provider there is.
pub(crate) fn override_route(manifest: &mut Manifest, typed: &str, here: &Path) -> Result<()> {
    if manifest.routes.contains_key(typed) {
        manifest.agent.model = typed.to_owned();
        return Ok(());
    }
    let no_route = || {
        let hint = format!(", and it is not PROVIDER/MODEL{}", known_routes(manifest));
        RuntimeError::NoRoute { route: typed.to_owned(), hint }
    };
    let mut entry = RouteEntry::try_from(typed.to_owned()).map_err(|_| no_route())?;
    if entry.provider == SCRIPT_PROVIDER {
        entry.model = here.join(&entry.model).to_string_lossy().into_owned();
    } else {
        models::resolve(&entry.provider, &manifest.providers)
            .map_err(|error| RuntimeError::part(&error))?;
    }
    manifest.routes.insert(ROUTE_TYPED.to_owned(), vec![entry]);
    manifest.agent.model = ROUTE_TYPED.to_owned();
    Ok(())
}

/// `; known routes: a, b`.
fn known_routes(manifest: &Manifest) -> String {
    let known: Vec<&str> = manifest.routes.keys().map(String::as_str).collect();
    match known.as_slice() {
        [] => "; the manifest has no [routes]".to_owned(),
        known => format!("; known routes: {}", known.join(", ")),
    }
}

/// Refuses an agent whose route is not there, or leads to a provider that is not.
///
/// # Errors
/// When the agent's route is not in the manifest, or names an unknown provider.
pub(crate) fn check_route(manifest: &Manifest) -> Result<()> {
    let name = &manifest.agent.model;
    let Some(route) = manifest.routes.get(name) else {
        let hint = known_routes(manifest);
        return Err(RuntimeError::NoRoute { route: name.clone(), hint }.into());
    };
    for entry in route.iter().filter(|entry| entry.provider != SCRIPT_PROVIDER) {
        models::resolve(&entry.provider, &manifest.providers)
            .map_err(|error| RuntimeError::part(&error))?;
    }
    Ok(())
}

/// Refuses a route with a script that is not there: a configuration error, found before anything
/// is started. `dir` is what a manifest's scripts are relative to.
///
/// # Errors
/// When a script of the agent's route cannot be read.
pub(crate) fn check_scripts(manifest: &Manifest, dir: &Path) -> Result<()> {
    let route = manifest.routes.get(&manifest.agent.model);
    for entry in route.into_iter().flatten().filter(|e| e.provider == SCRIPT_PROVIDER) {
        let path = dir.join(&entry.model);
        let reason = match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() => continue,
            Ok(_) => "it is not a file".to_owned(),
            Err(error) => error.to_string(),
        };
        return Err(CliError::Script { path, reason }.into());
    }
    Ok(())
}

/// The models of a run made on the spot.
///
/// # Errors
/// When what is configured cannot be read, or there is none.
pub(crate) fn for_task(typed: Option<&str>, here: &Path, home: &Path) -> Result<Models> {
    let configured = configured(here, home)?;
    let Some(typed) = typed else {
        return configured
            .or_else(found)
            .ok_or_else(|| CliError::NoModel { home: home.to_owned() }.into());
    };
    let mut manifest = empty_manifest();
    configured.unwrap_or_default().into_manifest(&mut manifest);
    override_route(&mut manifest, typed, here)?;
    Ok(Models {
        route: manifest.agent.model,
        routes: manifest.routes,
        providers: manifest.providers,
    })
}

/// From the manifest here, else from the home's.
fn configured(here: &Path, home: &Path) -> Result<Option<Models>> {
    if here.join(config::MANIFEST_FILE).exists() {
        let manifest = config::load(here, None)?.manifest;
        if manifest.routes.contains_key(&manifest.agent.model) {
            return Ok(Some(of_manifest(manifest, here)));
        }
    }
    let path = home.join(config::MANIFEST_FILE);
    if !path.exists() {
        return Ok(None);
    }
    let text = config::read_text(&path)?;
    let manifest = manifest::parse_with_overlay(EMPTY, Some(&text))
        .map_err(|error| RuntimeError::part(&error))?;
    let first = manifest.routes.keys().next().cloned();
    let route = if manifest.routes.contains_key(ROUTE_FOUND) {
        Some(ROUTE_FOUND.to_owned())
    } else {
        first
    };
    Ok(route.map(|route| {
        let mut models = of_manifest(manifest, home);
        models.route = route;
        models
    }))
}

/// A manifest's models, its scripts' paths made absolute.
fn of_manifest(manifest: Manifest, dir: &Path) -> Models {
    let mut routes = manifest.routes;
    for entry in routes.values_mut().flatten().filter(|e| e.provider == SCRIPT_PROVIDER) {
        entry.model = dir.join(&entry.model).to_string_lossy().into_owned();
    }
    Models { route: manifest.agent.model, routes, providers: manifest.providers }
}

/// The least a manifest needs; an overlay of routes and providers goes over it.
const EMPTY: &str =
    "schema = 1\n[agent]\nname = \"task\"\ninstructions = \"x\"\nmodel = \"default\"\n";

/// A manifest with nothing in it but an agent called `task`.
pub(crate) fn empty_manifest() -> Manifest {
    manifest::parse(EMPTY).expect("this constant text is a manifest")
}

/// A known key, else Ollama.
pub(crate) fn found() -> Option<Models> {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let by_key = KEYS.iter().find(|(key, _)| set(key)).map(|(_, model)| (*model).to_owned());
    let entry = by_key.or_else(|| Some(format!("ollama/{}", ollama_model()?)))?;
    let entry = RouteEntry::try_from(entry).ok()?;
    Some(Models::one(ROUTE_FOUND, entry))
}

/// The first model that a local Ollama has.
fn ollama_model() -> Option<String> {
    let limit = Duration::from_millis(OLLAMA_MS_MAX);
    let mut stream = TcpStream::connect_timeout(&SocketAddr::from(OLLAMA), limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    stream.set_write_timeout(Some(limit)).ok()?;
    let request = "GET /api/tags HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n";
    stream.write_all(request.as_bytes()).ok()?;
    let mut reply = Vec::new();
    stream.take(OLLAMA_BYTES_MAX).read_to_end(&mut reply).ok()?;
    first_model(&reply)
}

/// The first model's name in an HTTP reply of `/api/tags`.
fn first_model(reply: &[u8]) -> Option<String> {
    let begin = reply.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let list: serde_json::Value = serde_json::from_slice(&reply[begin..]).ok()?;
    let name = list.get("models")?.get(0)?.get("name")?.as_str()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
    let good = !name.is_empty() && name.chars().all(plain);
    good.then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_routes() -> Manifest {
        let text = format!("{EMPTY}[routes]\ndefault = [\"openai/a\"]\nlive = [\"ollama/b\"]\n");
        manifest::parse(&text).expect("a manifest")
    }

    #[test]
    fn typed_models_are_routes_or_providers() {
        let check = |typed: &str, expected: std::result::Result<&str, &str>| {
            let mut manifest = with_routes();
            let done = override_route(&mut manifest, typed, Path::new("/here"));
            let got = done.map_err(|failed| failed.failure.code).map(|()| {
                let entry = &manifest.routes[&manifest.agent.model][0];
                String::from(entry.clone())
            });
            assert_eq!(got.as_deref().map_err(String::as_str), expected, "{typed}");
        };
        check("live", Ok("ollama/b"));
        check("openai/gpt-5", Ok("openai/gpt-5"));
        check("script/turns.toml", Ok("script//here/turns.toml"));
        check("script//abs/turns.toml", Ok("script//abs/turns.toml"));
        check("lve", Err("BP-CONFIG-008"));
        check("opnai/gpt-5", Err("BP-MODEL-014"));
        check("openai/", Err("BP-CONFIG-008"));
    }

    #[test]
    fn an_unknown_route_names_the_known_ones() {
        let failed = override_route(&mut with_routes(), "x", Path::new("/")).expect_err("unknown");
        assert!(failed.failure.message.contains("default, live"), "{}", failed.failure.message);
        assert_eq!(failed.exit, 2);
    }

    #[test]
    fn a_missing_script_is_a_configuration_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut manifest = with_routes();
        override_route(&mut manifest, "script/turns.toml", dir.path()).expect("a script");
        let failed = check_scripts(&manifest, dir.path()).expect_err("not there");
        assert_eq!((failed.failure.code.as_str(), failed.exit), ("BP-CLI-014", 2));
        std::fs::write(dir.path().join("turns.toml"), "").expect("written");
        check_scripts(&manifest, dir.path()).expect("there now");
    }

    #[test]
    fn a_task_uses_what_is_configured_here_then_at_home() {
        let here = tempfile::tempdir().expect("a directory");
        let home = tempfile::tempdir().expect("a directory");
        let route = |typed: Option<&str>| {
            for_task(typed, here.path(), home.path())
                .map(|models| String::from(models.routes[&models.route][0].clone()))
        };
        let text = "[routes]\ndefault = [\"script/t.toml\"]\n";
        std::fs::write(home.path().join("bedplate.toml"), text).expect("written");
        let at_home = format!("script/{}", home.path().join("t.toml").display());
        assert_eq!(route(None), Ok(at_home.clone()));
        assert_eq!(route(Some("default")), Ok(at_home));
        let text = format!("{EMPTY}[routes]\ndefault = [\"openai/here\"]\n");
        std::fs::write(here.path().join("bedplate.toml"), text).expect("written");
        assert_eq!(route(None), Ok("openai/here".to_owned()));
    }

    #[test]
    fn ollama_names_its_first_model() {
        let check = |body: &str, expected: Option<&str>| {
            let reply = format!("HTTP/1.0 200 OK\r\nContent-Type: x\r\n\r\n{body}");
            assert_eq!(first_model(reply.as_bytes()).as_deref(), expected, "{body}");
        };
        check(r#"{"models":[{"name":"qwen3:14b"},{"name":"x"}]}"#, Some("qwen3:14b"));
        check(r#"{"models":[]}"#, None);
        check(r#"{"models":[{"name":"a b"}]}"#, None);
        check("not JSON", None);
        assert_eq!(first_model(b"no header"), None);
    }
}
