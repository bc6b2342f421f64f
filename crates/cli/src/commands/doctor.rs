//! `doctor`: what this host can do, found by doing it, with a recipe for what is missing.

use crate::error::{CliError, Failed, Result, exit};
use crate::model_choice;
use crate::session::{Session, block_on};
use crate::terminal::{Paint, Terminal, safe, safe_block};
use sandbox::Probe;
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
    if findings.iter().all(|finding| finding.ok) {
        findings.extend(containment(session));
    }
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
        let all = findings.iter().flat_map(|finding| lines(&session.terminal, finding));
        all.for_each(|line| Terminal::answer(&line));
    }
    match missing.is_empty() {
        true => Ok(exit::DONE),
        false => Err(Failed::from(CliError::Host { missing }).told(session.json)),
    }
}

/// A finding as it is printed: one line, then its recipe.
fn lines(terminal: &Terminal, finding: &Finding) -> Vec<String> {
    let (paint, word) = match (finding.ok, finding.needed) {
        (true, _) => (Paint::Green, "ok"),
        (false, true) => (Paint::Red, "missing"),
        (false, false) => (Paint::Yellow, "without"),
    };
    let word = terminal.paint(paint, &format!("{word:<7}"));
    let mut lines = vec![format!("{word}  {:<20} {}", finding.name, safe(&finding.what))];
    let recipe = safe_block(&finding.recipe);
    lines.extend(recipe.lines().map(|line| format!("           {line}")));
    lines
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

/// What the sandbox crate finds by trying each part of the containment.
fn containment(session: &Session) -> Vec<Finding> {
    let exe = crate::session::this_program();
    let probes = block_on(sandbox::probe(&exe, session.home.path()));
    probes
        .into_iter()
        .map(|Probe { name, ok, required, detail, recipe }| Finding {
            name,
            needed: required,
            ok,
            what: detail,
            recipe,
        })
        .collect()
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
    fn recipes_are_indented_line_by_line() {
        let finding = Finding {
            name: "thing",
            needed: true,
            ok: false,
            what: "not there".to_owned(),
            recipe: "do this:\n  and that".to_owned(),
        };
        let plain = Terminal { colour: false, quiet: false, interactive: false };
        let expected = [
            "missing  thing                not there",
            "           do this:",
            "             and that",
        ];
        assert_eq!(lines(&plain, &finding), expected);
    }
}
