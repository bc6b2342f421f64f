//! Our side of a worker: started, told, waited for, killed when it takes too long.

use crate::ImageError;
use crate::limits::{REPLY_BYTES_MAX, WORK_MS_MAX};
use crate::order::{Answer, Document, DocumentKind, Order, Reply};
use crate::worker::WORKER_ARG;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Variables a worker may see: where the host keeps its certificates.
const VARIABLES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// A live worker, killed when dropped.
#[derive(Debug)]
pub(crate) struct Client {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// Starts a worker with its order.
    pub(crate) async fn start(exe: &Path, order: &Order) -> Result<Self, ImageError> {
        let fail = |error: std::io::Error| {
            ImageError::worker(format!("could not be started ({}): {error}", exe.display()))
        };
        let mut child = Command::new(exe)
            .arg(WORKER_ARG)
            .env_clear()
            .envs(VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)?;
        let input = child.stdin.take().expect("it was piped");
        let output = child.stdout.take().expect("it was piped");
        let mut client = Self { child, input, output: BufReader::new(output) };
        client.say(order, &[]).await?;
        Ok(client)
    }

    async fn say<T: serde::Serialize>(
        &mut self,
        value: &T,
        beside: &[u8],
    ) -> Result<(), ImageError> {
        let mut line = serde_json::to_vec(value).expect("plain data");
        line.push(b'\n');
        let gone = |error: std::io::Error| ImageError::worker(format!("is gone: {error}"));
        self.input.write_all(&line).await.map_err(gone)?;
        self.input.write_all(beside).await.map_err(gone)?;
        self.input.flush().await.map_err(gone)
    }

    /// The next answer.
    async fn hear(&mut self) -> Reply {
        let mut line = Vec::new();
        let mut limited = (&mut self.output).take(REPLY_BYTES_MAX);
        let reading = limited.read_until(b'\n', &mut line);
        let limit = Duration::from_millis(WORK_MS_MAX);
        match tokio::time::timeout(limit, reading).await {
            Err(_) => return Err(ImageError::worker(format!("took over {WORK_MS_MAX} ms"))),
            Ok(Err(error)) => return Err(ImageError::worker(format!("broke off: {error}"))),
            Ok(Ok(_)) => {}
        }
        if line.is_empty() {
            let ended = self.child.wait().await.map(|status| status.to_string());
            let ended = ended.unwrap_or_else(|error| error.to_string());
            return Err(ImageError::worker(format!("ended without an answer: {ended}")));
        }
        serde_json::from_slice(&line)
            .unwrap_or_else(|error| Err(ImageError::worker(format!("talks nonsense: {error}"))))
    }

    /// Has a document read.
    pub(crate) async fn read(&mut self, bytes: &[u8], kind: DocumentKind) -> Reply {
        self.say(&Document { bytes: bytes.len() as u64, kind }, bytes).await?;
        self.hear().await
    }

    /// Does one thing and ends.
    pub(crate) async fn once(exe: &Path, order: &Order) -> Result<Answer, ImageError> {
        Self::start(exe, order).await?.hear().await
    }
}

/// An answer to something else than was asked.
pub(crate) fn unexpected(answer: &Answer) -> ImageError {
    let text: String = format!("{answer:?}").chars().take(80).collect();
    ImageError::worker(format!("answers what nobody asked: {text}"))
}
