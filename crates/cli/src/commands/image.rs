//! `image`: what sandboxes of this home may stand on beside the host.
//!
//! A command brings and removes images itself, under the store's locks; what it brings is parsed by
//! confined processes. An image that a run needs is kept whatever is removed.

use super::files::part;
use crate::arguments::ImageCommand;
use crate::error::{CliError, Result, exit};
use crate::render;
use crate::session::{Session, block_on, this_program};
use crate::terminal::{Terminal, safe};
use ::image::{Held, ImageError, Images, Listed};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use store::Read as _;
use types::{BRANCH_MAIN, Body, Digest, ImageSource, ImageSourceError};

/// `image`.
pub(crate) fn perform(session: &Session, command: &ImageCommand) -> Result<u8> {
    match command {
        ImageCommand::Pull { image } => pull(session, image),
        ImageCommand::Ls => list(session),
        ImageCommand::Show { image } => show(session, image),
        ImageCommand::Rm { image } => remove(session, image),
    }
}

fn images(session: &Session) -> Images {
    Images::new(session.home.path(), this_program())
}

fn source(text: &str) -> Result<ImageSource> {
    text.parse().map_err(|error: ImageSourceError| part(&ImageError::from(error)))
}

fn here() -> Result<PathBuf> {
    std::env::current_dir().map_err(|error| {
        let what = "cannot find this directory".to_owned();
        CliError::Io { what, reason: error.to_string() }.into()
    })
}

/// An image for `sandbox run`, brought unless it is here; `None` for the host.
pub(super) fn ensured(session: &Session, text: &str) -> Result<Option<Held>> {
    let source = source(text)?;
    if source == ImageSource::Host {
        return Ok(None);
    }
    session.home.prepare()?;
    let held = block_on(images(session).ensure(&source, &here()?));
    held.map(Some).map_err(|error| part(&error))
}

fn pull(session: &Session, text: &str) -> Result<u8> {
    let source = source(text)?;
    session.home.prepare()?;
    let images = images(session);
    let held = block_on(images.pull(&source, &here()?)).map_err(|error| part(&error))?;
    let digest = held.image.digest;
    let listed = images.find(&digest.to_string()).map_err(|error| part(&error))?;
    if session.json {
        Terminal::answer_json(&document(&listed));
        return Ok(exit::DONE);
    }
    let layers = render::count(listed.image.layers.len() as u64, "layer");
    let bytes = render::bytes(listed.bytes);
    session.terminal.progress(&format!("here: {} ({layers}, {bytes})", safe(text)));
    Terminal::answer(&format!("sha256:{digest}"));
    Ok(exit::DONE)
}

fn list(session: &Session) -> Result<u8> {
    let list = images(session).list().map_err(|error| part(&error))?;
    if session.json || session.jsonl {
        let images: Vec<Value> = list.iter().map(document).collect();
        Terminal::answer_json(&json!({ "images": images }));
        return Ok(exit::DONE);
    }
    if list.is_empty() {
        session.terminal.progress("no images yet: bedplate image pull IMAGE");
    }
    for listed in &list {
        let names = match listed.names.as_slice() {
            [] => "(kept for a run)".to_owned(),
            names => safe(&names.join(" ")),
        };
        let digest = listed.image.digest.short();
        Terminal::answer(&format!("{digest}  {:>10}  {names}", render::bytes(listed.bytes)));
    }
    Ok(exit::DONE)
}

fn show(session: &Session, text: &str) -> Result<u8> {
    let listed = images(session).find(&known(text)?).map_err(|error| part(&error))?;
    if session.json {
        Terminal::answer_json(&document(&listed));
        return Ok(exit::DONE);
    }
    let image = &listed.image;
    let settings = &image.settings;
    let env: Vec<String> =
        settings.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let line = |name: &str, value: String| {
        if !value.is_empty() {
            Terminal::answer(&format!("{name:<11} {}", safe(&value)));
        }
    };
    line("digest", format!("sha256:{}", image.digest));
    line("config", format!("sha256:{}", image.config));
    listed.names.iter().for_each(|name| line("name", name.clone()));
    line("platform", image.platform.clone());
    line("bytes", render::bytes(listed.bytes));
    image.layers.iter().for_each(|layer| line("layer", format!("sha256:{layer}")));
    env.into_iter().for_each(|variable| line("env", variable));
    line("entrypoint", settings.entrypoint.join(" "));
    line("command", settings.command.join(" "));
    line("workdir", settings.workdir.clone());
    if !settings.user.is_empty() {
        line("user", format!("{} (programs run as the agent)", settings.user));
    }
    Ok(exit::DONE)
}

fn remove(session: &Session, text: &str) -> Result<u8> {
    let keep = in_use(session)?;
    let done = images(session).remove(&known(text)?, &keep).map_err(|error| part(&error))?;
    if session.json {
        let (images, layers) = (done.images, done.layers);
        Terminal::answer_json(&json!({ "removed": text, "images": images, "layers": layers }));
    } else {
        let kept = if done.images == 0 { "; a run or another name keeps its layers" } else { "" };
        session.terminal.progress(&format!("removed: {}{kept}", safe(text)));
    }
    Ok(exit::DONE)
}

/// A name as the store has it: paths of layouts and archives are kept absolute there.
fn known(text: &str) -> Result<String> {
    let beside = here()?;
    let absolute = |path: &str| beside.join(path).to_string_lossy().into_owned();
    Ok(match text.parse::<ImageSource>() {
        Ok(ImageSource::Layout { dir, tag }) => {
            ImageSource::Layout { dir: absolute(&dir), tag }.to_string()
        }
        Ok(ImageSource::Archive { file }) => {
            ImageSource::Archive { file: absolute(&file) }.to_string()
        }
        Ok(source) => source.to_string(),
        Err(_) => text.to_owned(),
    })
}

/// The images that runs of this home need.
fn in_use(session: &Session) -> Result<BTreeSet<Digest>> {
    let reader = session.reader()?;
    let mut keep = BTreeSet::new();
    for summary in reader.runs()?.iter().filter(|summary| !summary.erased) {
        let first = reader.records_page(&summary.run, BRANCH_MAIN, 0, 1)?;
        if let Some(Body::RunStarted { manifest, .. }) = first.first().map(|record| &record.body) {
            keep.extend(manifest.sandbox.image_digest);
        }
    }
    Ok(keep)
}

fn document(listed: &Listed) -> Value {
    let image = &listed.image;
    let digest = |digest: &Digest| format!("sha256:{digest}");
    json!({
        "digest": digest(&image.digest),
        "config": digest(&image.config),
        "names": listed.names,
        "platform": image.platform,
        "bytes": listed.bytes,
        "layers": image.layers.iter().map(digest).collect::<Vec<_>>(),
        "env": image.settings.env.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>(),
        "entrypoint": image.settings.entrypoint,
        "command": image.settings.command,
        "workdir": image.settings.workdir,
        "user": image.settings.user,
    })
}
