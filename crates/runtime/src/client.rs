//! The commands' side of the owner's socket: connect, or start an owner first.

use crate::error::RuntimeError;
use crate::home::Home;
use crate::protocol::{self, Reply, Request, VERSION};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tokio::net::UnixStream;

/// How often connecting is tried: an owner that is just leaving refuses, and a new one is started.
const CONNECT_ATTEMPTS_MAX: u32 = 5;
/// Longest message of an owner that could not start, in bytes.
const START_MESSAGE_BYTES_MAX: u64 = 64 << 10;

/// A connection to the owner.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
}

impl Client {
    /// Connects to the home's owner, starting one when there is none.
    ///
    /// # Errors
    /// When the home cannot be used, or no owner can be started or reached.
    pub async fn connect_or_start(home: &Home, exe: &Path) -> Result<Self, RuntimeError> {
        home.prepare()?;
        let mut last = String::new();
        for _ in 0..CONNECT_ATTEMPTS_MAX {
            match Self::connect(home).await {
                Ok(Some(client)) => return Ok(client),
                Ok(None) => start_owner(home, exe)?,
                Err(RuntimeError::OwnerGone { reason }) => last = reason,
                Err(error) => return Err(error),
            }
        }
        Err(RuntimeError::OwnerStart { home: home.path().to_owned(), reason: last })
    }

    /// Connects to a live owner; `None` when there is none.
    ///
    /// # Errors
    /// When an owner is there but is another build, or leaves while it is greeted.
    pub async fn connect(home: &Home) -> Result<Option<Self>, RuntimeError> {
        let Some(path) = short_socket_path(home)? else {
            return Ok(None);
        };
        let Ok(stream) = UnixStream::connect(&path.1).await else {
            return Ok(None);
        };
        let mut client = Self { stream };
        match client.next().await? {
            Some(Reply::Hello { version }) if version == VERSION => Ok(Some(client)),
            Some(Reply::Hello { version }) => {
                Err(RuntimeError::OwnerVersion { owner: version, ours: VERSION.to_owned() })
            }
            Some(_) => Err(RuntimeError::Frame { reason: "the owner did not greet".to_owned() }),
            None => Err(RuntimeError::OwnerGone { reason: "it was leaving".to_owned() }),
        }
    }

    /// Sends a request.
    ///
    /// # Errors
    /// When the owner is gone.
    pub async fn send(&mut self, request: &Request) -> Result<(), RuntimeError> {
        protocol::send(&mut self.stream, request).await
    }

    /// The next reply; `None` when the owner has nothing more to say.
    ///
    /// # Errors
    /// When the owner is gone in the middle of a frame.
    pub async fn next(&mut self) -> Result<Option<Reply>, RuntimeError> {
        protocol::receive(&mut self.stream).await
    }
}

/// A path of the socket that fits `sun_path` however deep the home is: through an open directory.
/// The directory must stay open while the path is used.
fn short_socket_path(home: &Home) -> Result<Option<(std::fs::File, PathBuf)>, RuntimeError> {
    match std::fs::File::open(home.path()) {
        Ok(dir) => {
            let path = PathBuf::from(format!("/proc/self/fd/{}/owner.sock", dir.as_raw_fd()));
            Ok(Some((dir, path)))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(RuntimeError::Home { path: home.path().to_owned(), reason: error.to_string() })
        }
    }
}

/// Starts an owner and waits until it listens. An owner that finds another one there leaves
/// quietly, which is success too.
fn start_owner(home: &Home, exe: &Path) -> Result<(), RuntimeError> {
    let fail = |reason: String| RuntimeError::OwnerStart { home: home.path().to_owned(), reason };
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(home.owner_log()).map_err(
            |error| RuntimeError::Home { path: home.path().to_owned(), reason: error.to_string() },
        )?;
    let mut child = Command::new(exe)
        .arg("__owner")
        .arg(home.path())
        .env_clear()
        .envs(owner_environment())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .map_err(|error| fail(error.to_string()))?;
    let stdout = child.stdout.take().expect("standard output is piped");
    let mut said = String::new();
    stdout
        .take(START_MESSAGE_BYTES_MAX)
        .read_to_string(&mut said)
        .map_err(|error| fail(error.to_string()))?;
    if said.trim() == "ready" {
        return Ok(());
    }
    match serde_json::from_str::<types::Failure>(&said) {
        Ok(failure) => Err(RuntimeError::Part(failure)),
        Err(_) => Err(fail(format!("it said '{}'", said.trim()))),
    }
}

/// What an owner inherits: no keys, only what finds programs and speaks the language. Command
/// tools run under it as the operator.
fn owner_environment() -> Vec<(String, String)> {
    const KEPT: [&str; 7] =
        ["PATH", "HOME", "LANG", "TMPDIR", "BEDPLATE_CRASH", "SSL_CERT_FILE", "SSL_CERT_DIR"];
    KEPT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}
