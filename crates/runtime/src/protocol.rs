//! Frames between commands and the owner: a length (u32, big endian) and one JSON document.

use crate::error::RuntimeError;
use crate::memory::MemoryChange;
use crate::rollback::Back;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use types::manifest::Manifest;
use types::{ApprovalId, Failure, MemoryOf, Record, Resolution, RunId, Step};
use zeroize::{Zeroize, Zeroizing};

/// Largest frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 32 << 20;
/// A frame's length.
const LENGTH_BYTES: usize = 4;
/// Records are written together up to so many bytes.
const TOGETHER_BYTES_MAX: usize = 256 << 10;
/// What both sides must be.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Keys of providers, and what names the vault's, by environment variable. Never printed; wiped
/// when they are let go.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Keys(pub BTreeMap<String, String>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Keys {
    /// Adds these; one that was there already is wiped.
    pub(crate) fn join(&mut self, mut other: Self) {
        for (name, value) in std::mem::take(&mut other.0) {
            if let Some(mut before) = self.0.insert(name, value) {
                before.zeroize();
            }
        }
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.0.values_mut().for_each(Zeroize::zeroize);
    }
}

/// Bytes within a JSON document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes64(pub Vec<u8>);

impl Serialize for Bytes64 {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE64.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes64 {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        BASE64.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// A person's terminal, for a guest that is to have one like it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Screen {
    /// Characters from top to bottom.
    pub rows: u16,
    /// Characters from left to right.
    pub columns: u16,
    /// What it is, as `TERM` has it.
    pub kind: String,
}

/// What a new run is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewRun {
    /// The manifest with its files read in.
    pub manifest: Box<Manifest>,
    /// Directory of the manifest; `None` for a run made on the spot.
    pub dir: Option<String>,
    /// Host directory to see as the first layer.
    pub workspace: Option<String>,
    /// What the person says first.
    pub input: String,
    /// Who.
    pub by: String,
}

/// Whose change of a memory counts where both changed the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Take {
    /// The run's.
    Run,
    /// That of whoever came first.
    Memory,
}

/// A request to the owner.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Start a run, then stream it.
    Start {
        /// What it is made of.
        new: Box<NewRun>,
        /// Providers' keys.
        keys: Keys,
        /// Do not stream.
        detach: bool,
        /// The terminal it is started on; none for plain streams.
        #[serde(default)]
        screen: Option<Screen>,
    },
    /// Make a run that does nothing until it is taken up.
    Create {
        /// What it is made of.
        new: Box<NewRun>,
    },
    /// Take a run up, then stream it.
    Resume {
        /// The run.
        run: RunId,
        /// Providers' keys.
        keys: Keys,
        /// Do not stream.
        detach: bool,
        /// The terminal it is taken up on; none for plain streams.
        #[serde(default)]
        screen: Option<Screen>,
    },
    /// Open the run that a caller names by this key, or make it. It takes the caller's steps.
    Open {
        /// What it is made of, when it is not there.
        new: Box<NewRun>,
        /// The caller's key.
        key: String,
        /// Which opening this is: a word that no other has.
        opening: String,
    },
    /// A step of the run's caller. Accepted when it is recorded, and the run goes on with it.
    Step {
        /// The run.
        run: RunId,
        /// By which opening.
        opening: String,
        /// Its number, from 0.
        at: u64,
        /// What it is.
        step: Step,
        /// Providers' keys.
        keys: Keys,
        /// Stream the run, and what the step's command prints; what is typed goes to it.
        #[serde(default)]
        watched: bool,
        /// The terminal it is watched on; none for plain streams.
        #[serde(default)]
        screen: Option<Screen>,
    },
    /// New instructions.
    Send {
        /// The run.
        run: RunId,
        /// The text.
        text: String,
        /// Providers' keys.
        keys: Keys,
    },
    /// A named signal.
    Signal {
        /// The run.
        run: RunId,
        /// Its name.
        name: String,
        /// What it carries.
        payload: Value,
        /// Who.
        by: String,
        /// Providers' keys.
        keys: Keys,
    },
    /// An answer to an approval.
    Answer {
        /// The approval.
        id: ApprovalId,
        /// Whether it is approved.
        approve: bool,
        /// Whether the narrow rule stays approved for the rest of the run.
        for_run: bool,
        /// Why not.
        reason: String,
        /// Who says it, when that is another than the login that brings it.
        speaks_for: Option<String>,
        /// Go on afterwards.
        resume: bool,
        /// Providers' keys.
        keys: Keys,
    },
    /// What became of an action in doubt.
    Resolve {
        /// Run and record.
        id: ApprovalId,
        /// What became of it.
        resolution: Resolution,
        /// Its result.
        result: Option<Value>,
        /// Who.
        by: String,
        /// Go on afterwards.
        resume: bool,
        /// Providers' keys.
        keys: Keys,
    },
    /// End a run.
    Cancel {
        /// The run.
        run: RunId,
        /// Who.
        by: String,
    },
    /// Set a run aside.
    Suspend {
        /// The run.
        run: RunId,
    },
    /// Add permission entries to one run.
    Allow {
        /// The run.
        run: RunId,
        /// Entries.
        entries: Vec<String>,
        /// Who.
        by: String,
    },
    /// Bring a run's changes to the host.
    Apply {
        /// The run.
        run: RunId,
        /// Which paths, relative to the workspace; all that changed when empty.
        paths: Vec<String>,
        /// Who.
        by: String,
    },
    /// Make runs that go on from a record of another.
    Fork {
        /// The run.
        run: RunId,
        /// The last record that both have; the newest when absent.
        at: Option<u64>,
        /// How many.
        count: u32,
        /// The seed of the first, when they are attempts of a rollout; the next has the next.
        #[serde(default)]
        seed: Option<u64>,
        /// Who.
        by: String,
    },
    /// Take a run back to an earlier record.
    RollBack {
        /// The run.
        run: RunId,
        /// To where.
        back: Back,
        /// Go back although something stays done.
        leave_effects: bool,
        /// Who.
        by: String,
    },
    /// Give the moment a run is at a name.
    Snapshot {
        /// The run.
        run: RunId,
        /// The name; one is made when it is absent.
        name: Option<String>,
        /// Who.
        by: String,
    },
    /// Change a memory.
    ChangeMemory {
        /// Whose.
        of: MemoryOf,
        /// How.
        change: MemoryChange,
        /// Who.
        by: String,
    },
    /// Bring what a run changed in its memory to the runs to come.
    MergeMemory {
        /// The run.
        run: RunId,
        /// Whose change counts where both changed the same.
        take: Option<Take>,
        /// Who.
        by: String,
    },
    /// Remove a run and what only it needs.
    Remove {
        /// The run.
        run: RunId,
    },
    /// Remove what nothing needs.
    Collect,
    /// Stream a run that lives.
    Watch {
        /// The run.
        run: RunId,
        /// From this record.
        from: u64,
    },
    /// Bytes for the standard input of a run's guest; none are its end.
    Input {
        /// The run.
        run: RunId,
        /// The bytes, as base64.
        bytes: Bytes64,
    },
    /// The terminal of a run's guest has another size.
    Resize {
        /// The run.
        run: RunId,
        /// The terminal now.
        screen: Screen,
    },
    /// Which runs live.
    Live,
    /// Measure a sandbox's whole life inside the owner.
    BenchSandbox {
        /// How often.
        count: u32,
    },
}

/// What the owner says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// First: who it is.
    Hello {
        /// Its version.
        version: String,
    },
    /// The request was taken.
    Accepted {
        /// The run it is about.
        run: Option<RunId>,
    },
    /// A record of the streamed run.
    Record {
        /// The record.
        record: Box<Record>,
    },
    /// A piece of what the run's guest printed.
    Printed {
        /// Whether on standard error.
        error: bool,
        /// The bytes, as base64.
        bytes: Bytes64,
    },
    /// The run is at rest: ended, waiting or set aside.
    AtRest,
    /// Lines for people: what was applied, removed.
    Lines {
        /// The lines.
        lines: Vec<String>,
    },
    /// Runs that were made.
    Made {
        /// Which.
        runs: Vec<RunId>,
    },
    /// Live runs.
    Live {
        /// Which.
        runs: Vec<RunId>,
    },
    /// Nanoseconds per sample.
    Samples {
        /// The samples.
        nanos: Vec<u64>,
    },
    /// It failed.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether it is a mistake of usage (exit status 2).
        usage: bool,
    },
}

/// Writes one frame.
///
/// # Errors
/// When the other side is gone or the frame is too large.
pub async fn send<T: Serialize>(
    stream: &mut (impl AsyncWrite + Unpin),
    message: &T,
) -> Result<(), RuntimeError> {
    let mut frame = Zeroizing::new(Vec::new());
    append_frame(&mut frame, message)?;
    write(stream, &frame).await
}

/// A [`Reply::Record`] whose record belongs to somebody else.
#[derive(Serialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
enum Shown<'a> {
    Record { record: &'a Record },
}

/// Writes a [`Reply::Record`] for each, with few calls to the system.
///
/// # Errors
/// When the other side is gone or a frame is too large.
pub(crate) async fn send_records(
    stream: &mut (impl AsyncWrite + Unpin),
    records: &[Arc<Record>],
) -> Result<(), RuntimeError> {
    let mut frames = Zeroizing::new(Vec::new());
    for record in records {
        append_frame(&mut frames, &Shown::Record { record })?;
        if frames.len() > TOGETHER_BYTES_MAX {
            write(stream, &frames).await?;
            frames.clear();
        }
    }
    write(stream, &frames).await
}

fn append_frame(frames: &mut Vec<u8>, message: &impl Serialize) -> Result<(), RuntimeError> {
    let begin = frames.len();
    frames.extend_from_slice(&[0; LENGTH_BYTES]);
    serde_json::to_writer(&mut *frames, message)
        .map_err(|error| RuntimeError::Frame { reason: error.to_string() })?;
    let bytes = frames.len() - begin - LENGTH_BYTES;
    let length = u32::try_from(bytes).ok().filter(|n| *n as usize <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| RuntimeError::Frame { reason: "too large".to_owned() })?;
    frames[begin..begin + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), RuntimeError> {
    let written = stream.write_all(bytes).await;
    written.map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })
}

/// Reads one frame; `None` at the end.
///
/// # Errors
/// When it is malformed or too large.
pub async fn receive<T: DeserializeOwned>(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<Option<T>, RuntimeError> {
    let mut length = [0u8; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(None),
        Err(error) => {
            return Err(RuntimeError::OwnerGone { reason: error.to_string() });
        }
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(RuntimeError::Frame { reason: format!("{length} bytes announced") });
    }
    let mut bytes = Zeroizing::new(vec![0u8; length]);
    stream
        .read_exact(&mut bytes)
        .await
        .map_err(|error| RuntimeError::OwnerGone { reason: error.to_string() })?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| RuntimeError::Frame { reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::Coded;

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("builds").block_on(future)
    }

    #[test]
    fn a_frame_round_trips_and_a_large_one_is_refused() {
        block(async {
            let mut wire = Vec::new();
            send(&mut wire, &Reply::AtRest).await.expect("fits");
            let read: Option<Reply> = receive(&mut wire.as_slice()).await.expect("reads");
            assert!(matches!(read, Some(Reply::AtRest)));
            let mut huge = (FRAME_BYTES_MAX as u32 + 1).to_be_bytes().to_vec();
            huge.extend_from_slice(b"x");
            let error = receive::<Reply>(&mut huge.as_slice()).await.expect_err("too large");
            assert_eq!(error.code(), "BP-OWNER-005");
        });
    }

    #[test]
    fn records_written_together_are_replies_like_any() {
        let record = |seq| {
            let run = RunId::from_random([1; 8]);
            let stamp = types::Stamp { run, branch: 0, seq, time_ms: 1, mono_ms: 2, boot: 3 };
            let by = "x".repeat(TOGETHER_BYTES_MAX / 2);
            let body = types::Body::CancelRequested { by };
            let (prev, digest) = (types::Digest::ZERO, types::Digest::ZERO);
            let (causes, actor) = (Vec::new(), types::Actor::default());
            Arc::new(Record { stamp, prev, digest, causes, actor, body })
        };
        let records: Vec<_> = (0..5).map(record).collect();
        block(async {
            let (mut together, mut apart) = (Vec::new(), Vec::new());
            send_records(&mut together, &records).await.expect("fits");
            for record in &records {
                let record = Box::new((**record).clone());
                send(&mut apart, &Reply::Record { record }).await.expect("fits");
            }
            assert!(together == apart);
        });
    }

    #[test]
    fn keys_are_never_printed() {
        let keys = Keys(BTreeMap::from([("OPENAI_API_KEY".to_owned(), "sk-secret".to_owned())]));
        assert!(!format!("{keys:?}").contains("sk-secret"));
    }
}
