//! A process that reads an image's bytes: confined before it reads the first.
//!
//! It opens the one file or network it was told of, then gives up everything else, works, and
//! writes its answer. Whatever it is made to do by what it reads, it can answer wrongly, or fill the
//! one directory it was given, within its limits; both are noticed by digests and counts.

use crate::ImageError;
use crate::limits::{DOCUMENT_BYTES_MAX, WORKER_MEMORY_BYTES};
use crate::metadata::{self, Platform};
use crate::order::{Answer, Document, DocumentKind, Fetch, Order, Reply, Unpack};
use crate::{fetch, survey, unpack};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use sandbox::{OUT_INSIDE, Worker};
use std::fs::File;
use std::io::{BufRead, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The argument that makes a program a worker; nothing follows.
pub const WORKER_ARG: &str = "__image";
/// Bytes of one line.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// The whole life of a worker: orders on standard input, answers on standard output. The calling
/// process must have one thread.
///
/// # Errors
/// When it cannot be told what to do, or cannot say what became of it.
pub fn worker_main() -> std::io::Result<()> {
    let mut input = std::io::stdin().lock();
    let order: Order = line(&mut input)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
    match order {
        Order::Read => read(&mut input),
        Order::Survey { file } => answer(&survey_file(&file)),
        Order::Unpack(order) => answer(&unpack_file(&order)),
        Order::Fetch(order) => answer(&fetch_image(&order)),
    }
}

fn line<T: serde::de::DeserializeOwned>(input: &mut impl BufRead) -> std::io::Result<Option<T>> {
    let mut text = Vec::new();
    input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
    match text.is_empty() {
        true => Ok(None),
        false => serde_json::from_slice(&text).map(Some).map_err(std::io::Error::other),
    }
}

fn answer(reply: &Reply) -> std::io::Result<()> {
    let mut output = std::io::stdout().lock();
    serde_json::to_writer(&mut output, reply)?;
    output.write_all(b"\n")?;
    output.flush()
}

fn confine(worker: &Worker<'_>) -> Result<(), ImageError> {
    let limit = Rlimit { current: Some(WORKER_MEMORY_BYTES), maximum: Some(WORKER_MEMORY_BYTES) };
    rustix::process::setrlimit(Resource::Data, limit)
        .map_err(|error| ImageError::worker(format!("has no limit of memory: {error}")))?;
    sandbox::confine_worker(worker)
        .map_err(|error| ImageError::worker(format!("could not be confined: {error}")))
}

/// Reads documents until there are no more.
fn read(input: &mut impl BufRead) -> std::io::Result<()> {
    let confined = confine(&Worker::default());
    let here = Platform::here();
    while let Some(document) = line::<Document>(input)? {
        if document.bytes > DOCUMENT_BYTES_MAX {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; document.bytes as usize];
        input.read_exact(&mut bytes)?;
        answer(&match &confined {
            Err(error) => Err(error.clone()),
            Ok(()) => of_document(&bytes, &document.kind, &here),
        })?;
    }
    Ok(())
}

fn of_document(bytes: &[u8], kind: &DocumentKind, here: &Platform) -> Reply {
    match kind {
        DocumentKind::Layout => metadata::layout(bytes).map(|()| Answer::Layout),
        DocumentKind::Image { media, tag } => {
            metadata::document(bytes, media, tag.as_deref(), here).map(Answer::Next)
        }
        DocumentKind::Config => metadata::config(bytes, here).map(Answer::Config),
        DocumentKind::Legacy => metadata::legacy(bytes).map(Answer::Legacy),
    }
}

/// Opens a regular file; a link or anything else of this name is none.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64), ImageError> {
    let fail = |why: String| ImageError::Source { path: path.to_owned(), why };
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = file.map_err(|error| fail(error.to_string()))?;
    let meta = file.metadata().map_err(|error| fail(error.to_string()))?;
    match meta.is_file() {
        true => Ok((file, meta.len())),
        false => Err(fail("it is no regular file".to_owned())),
    }
}

fn survey_file(path: &Path) -> Reply {
    let (file, _) = open_regular(path)?;
    confine(&Worker::default())?;
    survey::survey(file).map(Answer::Members)
}

fn unpack_file(order: &Unpack) -> Reply {
    let (mut file, _) = open_regular(&order.file)?;
    let fail = |why: String| ImageError::Source { path: order.file.clone(), why };
    file.seek(SeekFrom::Start(order.offset)).map_err(|error| fail(error.to_string()))?;
    confine(&Worker { network: false, out: Some(&order.out) })?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let out = rustix::fs::open(OUT_INSIDE, flags, Mode::empty())
        .map_err(|error| ImageError::worker(format!("has nowhere to write to: {error}")))?;
    unpack::layer(file.take(order.bytes), order, &out).map(Answer::Unpacked)
}

fn fetch_image(order: &Fetch) -> Reply {
    let fetcher = fetch::Fetcher::prepare()?;
    confine(&Worker { network: true, out: Some(&order.out) })?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ImageError::worker(format!("has no clock: {error}")))?;
    runtime.block_on(fetcher.fetch(order)).map(|()| Answer::Fetched)
}
