//! Images of a home: their layers unpacked once and shared, their records, their names.
//!
//! ```text
//!   images/layers/DIFF_ID/{fs,meta.json}    a layer, by the digest of its unpacked tar
//!   images/records/DIGEST.json              an image: which layers, which settings
//!   images/names.json                       reference -> digest
//!   images/staging/RANDOM                   what is not there yet
//!   images/lock, images/pull.lock
//! ```
//!
//! What always holds: a layer and a record get their names by one rename, when they are whole, so a
//! killed process leaves neither half there. Nothing under `layers` changes afterwards. What is in
//! use has a shared lock on its record, by a kernel lock that ends with the process; whoever removes
//! holds `lock` alone and passes over what is in use.

use crate::ImageError;
use crate::metadata::Settings;
use crate::unpack::Unpacked;
use rustix::fs::{FlockOperation, Mode, OFlags, ResolveFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use types::Digest;

const IMAGES: &str = "images";
const LAYERS: &str = "layers";
const RECORDS: &str = "records";
const STAGING: &str = "staging";
const NAMES: &str = "names.json";
const LOCK: &str = "lock";
const PULL_LOCK: &str = "pull.lock";
const TREE: &str = "fs";
const META: &str = "meta.json";
/// Hexadecimal digits that may stand for an image, at least.
const PREFIX_MIN: usize = 6;

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Digest of its manifest; of its configuration, when it came without a manifest.
    pub digest: Digest,
    /// Digest of its configuration.
    pub config: Digest,
    /// The machine it is for.
    pub platform: String,
    /// Digests of its unpacked layers, the oldest first.
    pub layers: Vec<Digest>,
    /// What it says about the programs in it.
    pub settings: Settings,
}

/// An image in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The image.
    pub image: Image,
    /// The references that lead to it.
    pub names: Vec<String>,
    /// Bytes of its files, shared layers counted too.
    pub bytes: u64,
}

/// An image in use: as long as this lives, nothing of it is removed.
#[derive(Debug)]
pub struct Held {
    /// The image.
    pub image: Image,
    /// What a sandbox stands on.
    pub root: sandbox::Root,
    _lock: File,
}

/// What a clean-up removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// Images.
    pub images: usize,
    /// Layers.
    pub layers: usize,
}

/// The images of one home.
#[derive(Debug)]
pub struct Images {
    pub(crate) dir: PathBuf,
    pub(crate) exe: PathBuf,
}

fn at<T>(action: &str, path: &Path, result: io::Result<T>) -> Result<T, ImageError> {
    result.map_err(|error| ImageError::store(action, path, error))
}

/// A place for what is not there yet; it goes when dropped.
#[derive(Debug)]
pub(crate) struct Staged(pub(crate) PathBuf);

impl Drop for Staged {
    fn drop(&mut self) {
        if self.0.exists() {
            // What is left is removed by the next clean-up.
            let _ = sandbox::remove_tree(&self.0);
        }
    }
}

impl Images {
    /// The images below `home`; `exe` re-exec'd with [`crate::WORKER_ARG`] must call
    /// [`crate::worker_main`]. Makes nothing yet.
    #[must_use]
    pub fn new(home: &Path, exe: impl Into<PathBuf>) -> Self {
        let home = std::path::absolute(home).unwrap_or_else(|_| home.to_owned());
        Self { dir: home.join(IMAGES), exe: exe.into() }
    }

    pub(crate) fn prepare(&self) -> Result<(), ImageError> {
        for dir in [LAYERS, RECORDS, STAGING].map(|name| self.dir.join(name)) {
            at("create", &dir, fs::create_dir_all(&dir))?;
        }
        let private = fs::Permissions::from_mode(0o700);
        at("protect", &self.dir, fs::set_permissions(&self.dir, private))
    }

    fn locked(&self, name: &str, how: FlockOperation) -> Result<File, ImageError> {
        let path = self.dir.join(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = at("open", &path, file)?;
        at("lock", &path, rustix::fs::flock(&file, how).map_err(Into::into))?;
        Ok(file)
    }

    /// Held while something is removed; `None` while an image is being brought.
    fn alone(&self) -> Result<Option<File>, ImageError> {
        let path = self.dir.join(LOCK);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = at("open", &path, file)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(ImageError::store("lock", &path, error)),
        }
    }

    /// Held while images are brought: one after the other, and nothing is removed meanwhile.
    pub(crate) fn pulling(&self) -> Result<[File; 2], ImageError> {
        self.prepare()?;
        let alone = self.locked(PULL_LOCK, FlockOperation::LockExclusive)?;
        Ok([alone, self.locked(LOCK, FlockOperation::LockShared)?])
    }

    pub(crate) fn staged(&self, network: bool) -> Result<Staged, ImageError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random).map_err(|error| {
            ImageError::store("name", &self.dir.join(STAGING), error.to_string())
        })?;
        let name = format!("{:016x}", u64::from_ne_bytes(random));
        let path = self.dir.join(STAGING).join(name);
        at("create", &path, fs::create_dir(&path))?;
        let staged = Staged(path.clone());
        let out = path.join(TREE);
        at("create", &out, fs::create_dir(&out))?;
        if let Some(id) = sandbox::worker_owner(network) {
            at("give away", &out, std::os::unix::fs::chown(&out, Some(id), Some(id)))?;
        }
        Ok(staged)
    }

    fn layer_dir(&self, layer: Digest) -> PathBuf {
        self.dir.join(LAYERS).join(layer.to_string())
    }

    fn record(&self, digest: Digest) -> PathBuf {
        self.dir.join(RECORDS).join(format!("{digest}.json"))
    }

    pub(crate) fn has_layer(&self, layer: Digest) -> bool {
        self.layer_dir(layer).join(META).is_file()
    }

    /// The unpacked layers that are here.
    pub(crate) fn layers(&self) -> Result<Vec<Digest>, ImageError> {
        names_in(&self.dir.join(LAYERS))
            .map(|names| names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Gives an unpacked layer its name.
    pub(crate) fn publish(
        &self,
        staged: &Staged,
        layer: Digest,
        unpacked: &Unpacked,
    ) -> Result<(), ImageError> {
        let meta = staged.0.join(META);
        at("write", &meta, fs::write(&meta, serde_json::to_vec(unpacked).expect("plain data")))?;
        let dir = at("open", &staged.0, File::open(&staged.0))?;
        at("sync", &staged.0, rustix::fs::syncfs(&dir).map_err(Into::into))?;
        let target = self.layer_dir(layer);
        match fs::rename(&staged.0, &target) {
            Err(_) if self.has_layer(layer) => Ok(()),
            other => at("rename", &staged.0, other),
        }
    }

    pub(crate) fn unpacked(&self, layer: Digest) -> Result<Unpacked, ImageError> {
        let found: Option<Unpacked> = read_json(&self.layer_dir(layer).join(META))?;
        found.ok_or_else(|| ImageError::NotFound {
            name: layer.to_string(),
            why: ": a layer of an image is gone".to_owned(),
        })
    }

    /// Writes an image's record, and its name.
    pub(crate) fn remember(&self, image: &Image, name: Option<&str>) -> Result<(), ImageError> {
        let path = self.record(image.digest);
        if !path.exists() {
            self.write_json(&path, image)?;
        }
        if let Some(name) = name {
            let mut names = self.names()?;
            names.insert(name.to_owned(), image.digest);
            self.write_json(&self.dir.join(NAMES), &names)?;
        }
        Ok(())
    }

    fn write_json(&self, path: &Path, value: &impl Serialize) -> Result<(), ImageError> {
        let text = serde_json::to_vec(value).expect("plain data");
        let half = path.with_extension("new");
        let mut file = at("write", &half, File::create(&half))?;
        let written = file.write_all(&text).and_then(|()| file.sync_all());
        at("write", &half, written)?;
        at("rename", path, fs::rename(&half, path))
    }

    fn names(&self) -> Result<BTreeMap<String, Digest>, ImageError> {
        Ok(read_json(&self.dir.join(NAMES))?.unwrap_or_default())
    }

    /// The image a reference led to when it was pulled.
    pub(crate) fn named(&self, name: &str) -> Result<Option<Digest>, ImageError> {
        Ok(self.names()?.get(name).copied())
    }

    /// An image that is here, held for use.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Store`].
    pub fn hold(&self, digest: Digest) -> Result<Held, ImageError> {
        let path = self.record(digest);
        let gone = || ImageError::NotFound {
            name: format!("sha256:{digest}"),
            why: ": it was removed, or was never pulled to this home".to_owned(),
        };
        if !path.is_file() {
            return Err(gone());
        }
        let _nobody_removes = self.locked(LOCK, FlockOperation::LockShared)?;
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(gone()),
            other => at("open", &path, other)?,
        };
        at(
            "lock",
            &path,
            rustix::fs::flock(&lock, FlockOperation::LockShared).map_err(Into::into),
        )?;
        let image: Image = read_json(&path)?.ok_or_else(gone)?;
        let root = self.root(&image)?;
        Ok(Held { image, root, _lock: lock })
    }

    /// The stack of an image, checked to be whole: the newest first, cut where one hides the rest.
    fn root(&self, image: &Image) -> Result<sandbox::Root, ImageError> {
        let mut layers = Vec::new();
        for layer in image.layers.iter().rev() {
            let unpacked = self.unpacked(*layer)?;
            layers.push(self.layer_dir(*layer).join(TREE));
            if unpacked.opaque {
                break;
            }
        }
        Ok(sandbox::Root { layers, env: image.settings.env.clone() })
    }

    /// Refuses a stack in which a layer writes through a link of a layer below it: a directory that
    /// it has without saying so would take the link's place.
    pub(crate) fn check_links(&self, layers: &[Digest]) -> Result<(), ImageError> {
        let mut below: Vec<OwnedFd> = Vec::new();
        for layer in layers {
            let unpacked = self.unpacked(*layer)?;
            for path in &unpacked.implicit {
                check_implicit(path, &below)?;
            }
            if unpacked.opaque {
                below.clear();
            }
            let tree = self.layer_dir(*layer).join(TREE);
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&tree, flags, Mode::empty()).map_err(io::Error::from);
            below.push(at("open", &tree, fd)?);
        }
        Ok(())
    }

    /// Everything that is here, by name.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn list(&self) -> Result<Vec<Listed>, ImageError> {
        let names = self.names()?;
        let mut list = Vec::new();
        for file in names_in(&self.dir.join(RECORDS))? {
            let path = self.dir.join(RECORDS).join(&file);
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Some(image) = read_json::<Image>(&path)? else { continue };
            let known = names.iter().filter(|(_, digest)| **digest == image.digest);
            let known = known.map(|(name, _)| name.clone()).collect();
            let mut bytes = 0;
            for layer in image.layers.iter().collect::<BTreeSet<_>>() {
                bytes += self.unpacked(*layer).map_or(0, |unpacked| unpacked.bytes);
            }
            list.push(Listed { image, names: known, bytes });
        }
        list.sort_by(|a, b| (&a.names, a.image.digest).cmp(&(&b.names, b.image.digest)));
        Ok(list)
    }

    /// The image that a reference, a digest or the first digits of one mean.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Store`].
    pub fn find(&self, text: &str) -> Result<Listed, ImageError> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let prefix = digits.len() >= PREFIX_MIN && digits.bytes().all(|b| b.is_ascii_hexdigit());
        let means = |listed: &Listed| {
            listed.names.iter().any(|name| name == text)
                || (prefix && listed.image.digest.to_string().starts_with(digits))
        };
        let missing =
            |why: &str| ImageError::NotFound { name: text.to_owned(), why: why.to_owned() };
        let mut found = self.list()?.into_iter().filter(means);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(missing(": several begin so")),
            (None, _) => Err(missing(" here")),
        }
    }

    /// Takes an image's names away, and removes it unless it is in `keep` or in use; and with it
    /// what only it needed. A reference takes only itself away.
    ///
    /// # Errors
    /// [`ImageError::NotFound`], [`ImageError::Store`].
    pub fn remove(&self, text: &str, keep: &BTreeSet<Digest>) -> Result<Collected, ImageError> {
        let found = self.find(text)?;
        {
            let _locks = self.pulling()?;
            let mut names = self.names()?;
            if names.remove(text).is_none() {
                names.retain(|_, digest| *digest != found.image.digest);
            }
            self.write_json(&self.dir.join(NAMES), &names)?;
        }
        self.collect(keep)
    }

    /// Removes every image that has no name, is not in `keep` and is not in use, and every layer
    /// that no image is left for. While an image is being brought nothing is removed.
    ///
    /// # Errors
    /// [`ImageError::Store`].
    pub fn collect(&self, keep: &BTreeSet<Digest>) -> Result<Collected, ImageError> {
        let mut collected = Collected::default();
        if !self.dir.is_dir() {
            return Ok(collected);
        }
        self.prepare()?;
        let Some(_alone) = self.alone()? else { return Ok(collected) };
        let named: BTreeSet<Digest> = self.names()?.into_values().collect();
        let mut needed: BTreeSet<Digest> = BTreeSet::new();
        for listed in self.list()? {
            let digest = listed.image.digest;
            if named.contains(&digest) || keep.contains(&digest) || self.is_held(digest) {
                needed.extend(listed.image.layers);
                continue;
            }
            let path = self.record(digest);
            at("remove", &path, fs::remove_file(&path))?;
            collected.images += 1;
        }
        for layer in self.layers()?.into_iter().filter(|layer| !needed.contains(layer)) {
            self.discard(&self.layer_dir(layer))?;
            collected.layers += 1;
        }
        let staging = self.dir.join(STAGING);
        for name in names_in(&staging)? {
            let _ = sandbox::remove_tree(&staging.join(name));
        }
        Ok(collected)
    }

    /// Takes a layer out in one step, then removes it.
    fn discard(&self, layer: &Path) -> Result<(), ImageError> {
        let name = layer.file_name().unwrap_or_default();
        let aside = self.dir.join(STAGING).join(name);
        at("rename", layer, fs::rename(layer, &aside))?;
        sandbox::remove_tree(&aside).map_err(|error| ImageError::store("remove", &aside, error))
    }

    fn is_held(&self, digest: Digest) -> bool {
        File::open(self.record(digest)).is_ok_and(|file| {
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
        })
    }
}

/// Whether `path` is a link, or lies behind one, in what is seen of the layers below.
fn check_implicit(path: &str, below: &[OwnedFd]) -> Result<(), ImageError> {
    let refuse = |why: &str| ImageError::Link {
        path: crate::error::quoted(path.as_bytes()),
        why: why.to_owned(),
    };
    for layer in below.iter().rev() {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        match rustix::fs::openat2(layer, path, flags, Mode::empty(), resolve) {
            Ok(found) => {
                let kind = rustix::fs::fstat(&found)
                    .map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
                return match kind {
                    Ok(rustix::fs::FileType::Directory) => Ok(()),
                    Ok(rustix::fs::FileType::Symlink) => {
                        Err(refuse("it is a link in a layer below"))
                    }
                    _ => Err(refuse("it is no directory in a layer below")),
                };
            }
            Err(rustix::io::Errno::NOENT) => {}
            Err(rustix::io::Errno::LOOP) => {
                return Err(refuse("it lies behind a link in a layer below"));
            }
            Err(rustix::io::Errno::NOTDIR) => {
                return Err(refuse("a directory above it is none in a layer below"));
            }
            Err(error) => return Err(refuse(&error.to_string())),
        }
    }
    Ok(())
}

fn names_in(dir: &Path) -> Result<Vec<String>, ImageError> {
    match fs::read_dir(dir) {
        Ok(entries) => {
            let names = entries.flatten().map(|entry| entry.file_name());
            Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(ImageError::store("list", dir, error)),
    }
}

/// A file of ours; `None` when it is not there.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, ImageError> {
    match fs::read(path) {
        Ok(text) => {
            serde_json::from_slice(&text).map(Some).map_err(|e| ImageError::store("read", path, e))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(ImageError::store("read", path, error)),
    }
}
