//! What a command works with: the home, the log to read, the owner to ask.

use crate::arguments::Global;
use crate::error::{CliError, Failed, Result};
use crate::terminal::Terminal;
use kernel::State;
use runtime::Home;
use runtime::client::Client;
use runtime::protocol::{Keys, Reply, Request};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::{Read, Reader};
use types::manifest::{Manifest, SCRIPT_PROVIDER};
use types::{BRANCH_MAIN, Record, RunId};
use vault::{KEY_FILE_VARIABLE, KEY_VARIABLE};

/// How long a command that only reads waits for the owner to say what lives, milliseconds.
const LIVE_MS_MAX: u64 = 2_000;

/// A command's surroundings.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) home: Home,
    /// The home as it was typed, so that next steps name it too.
    home_flag: Option<PathBuf>,
    pub(crate) json: bool,
    pub(crate) jsonl: bool,
    pub(crate) terminal: Terminal,
}

impl Session {
    /// From the global flags and the environment.
    pub(crate) fn new(global: &Global) -> Result<Self> {
        let path = match &global.home {
            Some(path) if path.as_os_str().is_empty() => return Err(CliError::NoHome.into()),
            Some(path) => path.clone(),
            None => default_home().ok_or(CliError::NoHome)?,
        };
        let absolute = std::path::absolute(&path).map_err(|error| CliError::Io {
            what: format!("cannot use {} as home", path.display()),
            reason: error.to_string(),
        })?;
        let from_environment = std::env::var_os("BEDPLATE_HOME").map(PathBuf::from);
        let home_flag = global.home.clone().filter(|path| from_environment.as_ref() != Some(path));
        Ok(Self {
            home: Home::at(&absolute),
            home_flag,
            json: global.json,
            jsonl: global.jsonl,
            terminal: Terminal::new(global.quiet),
        })
    }

    /// The log, to read.
    pub(crate) fn reader(&self) -> Result<Reader> {
        Ok(Reader::open(self.home.path())?)
    }

    /// The run that `text` means, and all its records.
    pub(crate) fn run(&self, text: &str) -> Result<(RunId, Vec<Record>)> {
        let reader = self.reader()?;
        let run = reader.find(text)?;
        let records = reader.records(&run, BRANCH_MAIN, 0)?;
        Ok((run, records))
    }

    /// The run that `text` means.
    pub(crate) fn find(&self, text: &str) -> Result<RunId> {
        Ok(self.reader()?.find(text)?)
    }

    /// A command line as people type it here: with `--home` when it was given.
    pub(crate) fn command(&self, rest: &str) -> String {
        match &self.home_flag {
            Some(home) => format!("bedplate {rest} --home {}", quoted(&home.to_string_lossy())),
            None => format!("bedplate {rest}"),
        }
    }

    /// The owner, started when there is none.
    pub(crate) async fn owner(&self) -> Result<Client> {
        Ok(Client::connect_or_start(&self.home, &this_program()).await?)
    }

    /// Asks the owner for one thing and returns its last word.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply> {
        let mut owner = self.owner().await?;
        owner.send(request).await?;
        next_reply(&mut owner).await
    }

    /// The runs that live now. No owner is started for it.
    pub(crate) fn live(&self) -> BTreeSet<RunId> {
        let asked = async {
            let mut owner = Client::connect(&self.home).await.ok()??;
            owner.send(&Request::Live).await.ok()?;
            match owner.next().await.ok()?? {
                Reply::Live { runs } => Some(runs),
                _ => None,
            }
        };
        let bounded = async {
            tokio::time::timeout(Duration::from_millis(LIVE_MS_MAX), asked).await.ok().flatten()
        };
        block_on(bounded).into_iter().flatten().collect()
    }
}

/// This program, to be started again in another role: by its path, or, once another file lies
/// there, by what the kernel still has of it.
pub(crate) fn this_program() -> PathBuf {
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    path.unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// The owner's next reply; its failures and its absence are errors.
pub(crate) async fn next_reply(owner: &mut Client) -> Result<Reply> {
    match owner.next().await? {
        Some(Reply::Failed { failure, usage }) => {
            let failed = Failed::of(failure);
            Err(if usage { failed.with_exit(crate::error::exit::USAGE) } else { failed })
        }
        Some(reply) => Ok(reply),
        None => {
            let reason = "it ended in the middle of a request".to_owned();
            Err(runtime::RuntimeError::OwnerGone { reason }.into())
        }
    }
}

/// Runs a future on this thread.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a current-thread runtime needs only file descriptors").block_on(future)
}

/// `XDG_DATA_HOME/bedplate`, else `~/.local/share/bedplate`.
fn default_home() -> Option<PathBuf> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let data = named("XDG_DATA_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let data = data.or_else(|| Some(PathBuf::from(named("HOME")?).join(".local/share")));
    data.map(|data| data.join("bedplate"))
}

/// Who is typing: the login, else the user id. Who approves is not taken from here: the owner asks
/// the kernel who is at the other end.
pub(crate) fn login() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let uid = || format!("uid{}", rustix::process::getuid().as_raw());
    named("LOGNAME").or_else(|| named("USER")).unwrap_or_else(uid)
}

/// The keys that the providers of the agent's route want, from the environment.
pub(crate) fn keys_for(manifest: &Manifest) -> Keys {
    let route = manifest.routes.get(&manifest.agent.model);
    let names = route.into_iter().flatten().filter_map(|entry| {
        if entry.provider == SCRIPT_PROVIDER {
            return None;
        }
        let own = manifest.providers.get(&entry.provider);
        match own {
            Some(provider) => provider.key_env.clone(),
            None => models::resolve(&entry.provider, &manifest.providers).ok()?.key_env,
        }
    });
    let held = names.filter_map(|name| std::env::var(&name).ok().map(|value| (name, value)));
    Keys(held.chain(vault_key()).collect())
}

/// What the environment says of the vault's key: what a model is sent is held against the vault,
/// whether or not the agent has secrets. The owner has none of it from its own environment, and
/// another working directory.
fn vault_key() -> Vec<(String, String)> {
    let named = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let text = named(KEY_VARIABLE).map(|key| (KEY_VARIABLE, key));
    let file = named(KEY_FILE_VARIABLE).map(|path| {
        let absolute = std::path::absolute(&path).map(PathBuf::into_os_string);
        (KEY_FILE_VARIABLE, absolute.unwrap_or(path))
    });
    let both = text.into_iter().chain(file);
    both.map(|(name, value)| (name.to_owned(), value.to_string_lossy().into_owned())).collect()
}

/// The keys for a run that exists: its own manifest names them.
pub(crate) fn keys_of(records: &[Record]) -> Keys {
    let state = State::of(records.first());
    state.manifest.as_deref().map(keys_for).unwrap_or_default()
}

/// A word for a POSIX shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Reads at most `bytes_max` bytes of standard input as text.
pub(crate) fn read_stdin(what: &str, bytes_max: u64) -> Result<String> {
    let fail = |reason: String| CliError::Io { what: format!("cannot read {what}"), reason };
    let mut text = String::new();
    let mut input = std::io::Read::take(std::io::stdin().lock(), bytes_max + 1);
    std::io::Read::read_to_string(&mut input, &mut text).map_err(|e| fail(e.to_string()))?;
    if text.len() as u64 > bytes_max {
        return Err(runtime::RuntimeError::TooLarge {
            what: what.to_owned(),
            bytes: text.len() as u64,
            limit: bytes_max,
        }
        .into());
    }
    Ok(text)
}

/// An absolute form of a path that exists.
pub(crate) fn existing_dir(path: &Path) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok().filter(|path| path.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        let check = |word: &str, expected: &str| assert_eq!(quoted(word), expected);
        check("/tmp/home", "/tmp/home");
        check("", "''");
        check("my home", "'my home'");
        check("it's", r"'it'\''s'");
        check("$(x)", "'$(x)'");
    }
}
