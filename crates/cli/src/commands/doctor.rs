//! `doctor`: what this host can do, found by doing it, with a recipe for what is missing.

use super::files::part;
use crate::error::{CliError, Failed, Result, exit};
use crate::model_choice;
use crate::session::{Session, block_on};
use crate::terminal::{Paint, Terminal, safe};
use sandbox::layers::LayerStore;
use sandbox::{CreateSpec, ExecSpec, Facts, Spawner, SpawnerConfig, Strength};
use serde_json::{Value, json};
use types::Failure;

/// What was found about one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    name: &'static str,
    /// Runs cannot work without it.
    needed: bool,
    ok: bool,
    what: String,
    recipe: String,
}

impl Finding {
    fn good(name: &'static str, what: impl Into<String>) -> Self {
        Self { name, needed: true, ok: true, what: what.into(), recipe: String::new() }
    }

    fn missing(name: &'static str, failure: &Failure) -> Self {
        let what = format!("{}: {}", failure.code, failure.message);
        Self { name, needed: true, ok: false, what, recipe: failure.next.clone() }
    }

    const fn beside(mut self) -> Self {
        self.needed = false;
        self
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "ok": self.ok,
            "needed": self.needed,
            "what": self.what,
            "recipe": self.recipe,
        })
    }
}

/// `doctor`.
pub(crate) fn doctor(session: &Session) -> Result<u8> {
    let mut findings = vec![kernel(), home(session)];
    findings.extend(sandboxes());
    findings.push(model());
    findings.extend(peers());
    let missing: Vec<String> = findings
        .iter()
        .filter(|finding| finding.needed && !finding.ok)
        .map(|finding| finding.name.to_owned())
        .collect();
    if session.json {
        let checks: Vec<Value> = findings.iter().map(Finding::json).collect();
        Terminal::answer_json(&json!({ "ok": missing.is_empty(), "checks": checks }));
    } else {
        findings.iter().for_each(|finding| tell(session, finding));
    }
    match missing.is_empty() {
        true => Ok(exit::DONE),
        false => Err(Failed::from(CliError::Host { missing }).told(session.json)),
    }
}

fn tell(session: &Session, finding: &Finding) {
    let (paint, word) = match (finding.ok, finding.needed) {
        (true, _) => (Paint::Green, "ok"),
        (false, true) => (Paint::Red, "missing"),
        (false, false) => (Paint::Yellow, "without"),
    };
    let word = session.terminal.paint(paint, &format!("{word:<7}"));
    Terminal::answer(&format!("{word}  {:<10} {}", finding.name, safe(&finding.what)));
    if !finding.recipe.is_empty() {
        Terminal::answer(&format!("         {:<10} {}", "", safe(&finding.recipe)));
    }
}

fn kernel() -> Finding {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    Finding::good("kernel", format!("Linux {release} on {}", name.machine().to_string_lossy()))
}

fn home(session: &Session) -> Finding {
    let path = session.home.path();
    let existed = path.exists();
    let prepared = session.home.prepare().map_err(Failed::from).and_then(|()| session.reader());
    if !existed {
        // Looking may not leave a new home behind; one that holds anything is not removed.
        let _ = std::fs::remove_dir(path);
    }
    match prepared {
        Ok(_) => Finding::good("home", path.display().to_string()),
        Err(failed) => Finding::missing("home", &failed.failure),
    }
}

/// Builds a sandbox, runs a program in it, and takes it down.
fn sandboxes() -> Vec<Finding> {
    match block_on(try_sandbox()) {
        Ok(facts) => facts_of(&facts),
        Err(failed) => vec![Finding::missing("sandbox", &failed.failure)],
    }
}

async fn try_sandbox() -> Result<Facts> {
    let own = |error: std::io::Error| {
        Failed::from(CliError::Io {
            what: "cannot try a sandbox".to_owned(),
            reason: error.to_string(),
        })
    };
    let temporary = tempfile::Builder::new().prefix("bedplate-").tempdir().map_err(own)?;
    let layers = LayerStore::open(temporary.path()).map_err(|error| part(&error))?;
    let base = layers.empty().map_err(|error| part(&error))?;
    let exe = crate::session::this_program();
    let spawner = Spawner::start(&exe, SpawnerConfig::default()).await.map_err(|e| part(&e))?;
    let upper = layers.begin(&base).map_err(|error| part(&error))?;
    let tried = async {
        let made = spawner.create(CreateSpec::new(upper.overlay())).await?;
        let running = spawner.exec(&made.id, ExecSpec::new(["/bin/true"])).await?;
        let finished = running.finish().await?;
        Ok((made.facts, finished.exit.ended))
    };
    let tried: std::result::Result<_, sandbox::SandboxError> = tried.await;
    spawner.close().await;
    let _ = layers.discard(upper);
    let _ = layers.remove_unreferenced(&std::collections::BTreeSet::new());
    let (facts, ended) = tried.map_err(|error| part(&error))?;
    if ended.status() == 0 {
        return Ok(facts);
    }
    let reason = format!("/bin/true ended with {}", ended.status());
    Err(CliError::Io { what: "a sandbox does not work".to_owned(), reason }.into())
}

fn facts_of(facts: &Facts) -> Vec<Finding> {
    let as_whom = if rustix::process::geteuid().is_root() { "root" } else { "an ordinary user" };
    let made = format!(
        "made, used and removed one as {as_whom}; inside it is host uid {}",
        facts.host_uid
    );
    let limits = match facts.limits {
        Strength::KernelV2 => Finding::good("limits", "enforced by the kernel (cgroup v2)"),
        Strength::KernelV1 => Finding::good("limits", "enforced by the kernel (cgroup v1)"),
        Strength::Watched => Finding {
            name: "limits",
            needed: false,
            ok: false,
            what: "watched, not enforced by the kernel; CPU is not limited".to_owned(),
            recipe: "Run in a delegated cgroup: systemd-run --user --scope -p Delegate=yes bedplate ..., \
                     or as root"
                .to_owned(),
        },
    };
    vec![
        Finding::good("sandbox", made),
        Finding::good("landlock", format!("ABI {}", facts.landlock_abi)),
        limits,
    ]
}

fn model() -> Finding {
    match model_choice::found() {
        Some(models) => {
            let entry = String::from(models.routes[&models.route][0].clone());
            Finding::good("model", format!("{entry} for tasks without a manifest"))
        }
        None => Finding {
            name: "model",
            needed: false,
            ok: false,
            what: "no known key in the environment, no Ollama on 127.0.0.1:11434".to_owned(),
            recipe: "Set OPENAI_API_KEY, start Ollama, or name a model in [routes]; scripts work \
                     without any."
                .to_owned(),
        },
    }
}

/// Programs that only `bench` uses.
fn peers() -> Vec<Finding> {
    let there = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join("bwrap").is_file()));
    if there {
        return vec![Finding::good("bwrap", "there, for `bedplate bench sandbox`").beside()];
    }
    vec![Finding {
        name: "bwrap",
        needed: false,
        ok: false,
        what: "not there; only `bedplate bench sandbox` compares with it".to_owned(),
        recipe: "apt install bubblewrap".to_owned(),
    }]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watched_limits_are_said_and_do_not_stop_anything() {
        let facts = Facts {
            driver: "process".to_owned(),
            limits: Strength::Watched,
            landlock_abi: 6,
            host_uid: 1000,
            redirect_dir: false,
        };
        let findings = facts_of(&facts);
        let limits = findings.iter().find(|finding| finding.name == "limits").expect("there");
        assert!(!limits.ok && !limits.needed && limits.recipe.contains("Delegate=yes"));
    }
}
