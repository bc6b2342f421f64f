//! Bringing an image: from where it lies, through workers, into the store.
//!
//! ```text
//!   registry --fetch--> layout --.
//!   layout ----------------------+--> documents read --> layers unpacked --> record, name
//!   archive --survey--> members -'       (digests checked at each step)
//! ```
//!
//! What always holds: this process hashes bytes and copies digests; it parses none of them. Nothing
//! has a name before all of it is there and checked.

use crate::ImageError;
use crate::client::{Client, unexpected};
use crate::limits::{
    BLOB_BYTES_MAX, DOCUMENT_BYTES_MAX, INDEX_DEPTH_MAX, LayerLimits, PARALLEL_MAX,
};
use crate::metadata::{self, Blob, Config, Next, Packing};
use crate::order::{Answer, DocumentKind, Extent, Fetch, Order, Unpack};
use crate::store::{Held, Image, Images, Staged};
use crate::worker::open_regular;
use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use types::{Digest, ImageSource};

/// Where the parts of an image lie.
#[derive(Debug)]
enum Place {
    Layout(PathBuf),
    Archive { file: PathBuf, members: BTreeMap<String, Extent> },
}

/// Bytes in a file.
#[derive(Debug, Clone)]
struct Part {
    file: PathBuf,
    extent: Extent,
}

/// A layer that is to be there.
#[derive(Debug, Clone)]
struct Wanted {
    part: Part,
    packing: Packing,
    digest: Option<Digest>,
    diff_id: Digest,
}

/// What an image consists of, read and checked but for its layers.
struct Found {
    digest: Digest,
    config_digest: Digest,
    config: Config,
    layers: Vec<(Option<Blob>, String)>,
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{digest}")
}

impl Place {
    fn part(&self, name: &str) -> Result<Option<Part>, ImageError> {
        match self {
            Self::Layout(dir) => {
                let file = dir.join(name);
                if std::fs::symlink_metadata(&file).is_err() {
                    return Ok(None);
                }
                let (_, bytes) = open_regular(&file)?;
                Ok(Some(Part { file, extent: Extent { offset: 0, bytes } }))
            }
            Self::Archive { file, members } => {
                Ok(members.get(name).map(|extent| Part { file: file.clone(), extent: *extent }))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Layout(path) | Self::Archive { file: path, .. } => path,
        }
    }

    fn missing(&self, name: &str) -> ImageError {
        let why = format!("it has no {name}");
        ImageError::Source { path: self.path().to_owned(), why }
    }

    /// A document by its name, whole.
    fn document(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Some(part) = self.part(name)? else { return Ok(None) };
        if part.extent.bytes > DOCUMENT_BYTES_MAX {
            return Err(ImageError::limit("bytes in a document", DOCUMENT_BYTES_MAX));
        }
        let fail = |error: std::io::Error| ImageError::Source {
            path: part.file.clone(),
            why: error.to_string(),
        };
        let (mut file, _) = open_regular(&part.file)?;
        file.seek(SeekFrom::Start(part.extent.offset)).map_err(fail)?;
        let mut bytes = Vec::new();
        file.take(part.extent.bytes).read_to_end(&mut bytes).map_err(fail)?;
        Ok(Some(bytes))
    }

    /// A document by its digest, checked.
    fn blob(&self, blob: &Blob, what: &str) -> Result<Vec<u8>, ImageError> {
        if blob.size > DOCUMENT_BYTES_MAX {
            return Err(ImageError::limit("bytes in a document", DOCUMENT_BYTES_MAX));
        }
        let name = blob_name(blob.digest);
        let bytes = self.document(&name)?.ok_or_else(|| self.missing(&name))?;
        promised(what, blob.size, bytes.len() as u64)?;
        match Digest::of(&bytes) {
            found if found == blob.digest => Ok(bytes),
            found => Err(ImageError::Mismatch {
                what: what.to_owned(),
                expected: blob.digest.to_string(),
                found: found.to_string(),
            }),
        }
    }
}

fn promised(what: &str, expected: u64, found: u64) -> Result<(), ImageError> {
    match expected == found {
        true => Ok(()),
        false => Err(ImageError::Mismatch {
            what: format!("the size of {what}"),
            expected: expected.to_string(),
            found: found.to_string(),
        }),
    }
}

impl Images {
    /// Brings an image, unpacks what is not here yet, and remembers it under its reference.
    /// Relative paths start at `beside`.
    ///
    /// # Errors
    /// Everything of [`ImageError`]; then nothing new has a name.
    pub async fn pull(&self, source: &ImageSource, beside: &Path) -> Result<Held, ImageError> {
        let locks = {
            let this = Self { dir: self.dir.clone(), exe: self.exe.clone() };
            tokio::task::spawn_blocking(move || this.pulling())
        };
        let _locks = locks.await.map_err(ImageError::worker)??;
        let mut fetched: Option<Staged> = None;
        let (place, name, tag) = match source {
            ImageSource::Host => {
                let why = "the host's own file system is no image to pull".to_owned();
                return Err(ImageError::Reference { why });
            }
            ImageSource::Layout { dir, tag } => {
                let dir = beside.join(dir);
                let source = ImageSource::Layout { dir: text(&dir)?, tag: tag.clone() };
                (Place::Layout(dir), source.to_string(), tag.clone())
            }
            ImageSource::Archive { file } => {
                let file = beside.join(file);
                let name = ImageSource::Archive { file: text(&file)? }.to_string();
                (self.survey(file).await?, name, None)
            }
            ImageSource::Registry { host, name, version } => {
                let staged = fetched.insert(self.fetch(host, name, version).await?);
                (Place::Layout(staged.0.join("fs")), source.to_string(), None)
            }
        };
        let found = self.read(&place, tag.as_deref()).await?;
        if let ImageSource::Registry { version, .. } = source {
            self.is_promised(version, &place, &found)?;
        }
        self.unpack(&place, &found).await?;
        self.check_links(&found.config.diff_ids)?;
        let image = Image {
            digest: found.digest,
            config: found.config_digest,
            platform: found.config.platform,
            layers: found.config.diff_ids,
            settings: found.config.settings,
        };
        self.remember(&image, Some(&name))?;
        drop(fetched);
        self.hold(image.digest)
    }

    /// An image as a run wants it: what was pulled under a registry's reference before stays what it
    /// is; layouts and archives are looked at again.
    ///
    /// # Errors
    /// As [`Images::pull`].
    pub async fn ensure(&self, source: &ImageSource, beside: &Path) -> Result<Held, ImageError> {
        if matches!(source, ImageSource::Registry { .. })
            && let Some(digest) = self.named(&source.to_string())?
        {
            return self.hold(digest);
        }
        self.pull(source, beside).await
    }

    async fn survey(&self, file: PathBuf) -> Result<Place, ImageError> {
        match Client::once(&self.exe, &Order::Survey { file: file.clone() }).await? {
            Answer::Members(members) => Ok(Place::Archive { file, members }),
            other => Err(unexpected(&other)),
        }
    }

    async fn fetch(&self, host: &str, name: &str, version: &str) -> Result<Staged, ImageError> {
        let staged = self.staged(true)?;
        let order = Order::Fetch(Box::new(Fetch {
            host: host.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            have: self.layers()?,
            out: staged.0.join("fs"),
        }));
        match Client::once(&self.exe, &order).await? {
            Answer::Fetched => Ok(staged),
            other => Err(unexpected(&other)),
        }
    }

    /// A digest in a reference is what must have come, whether an index or a manifest.
    fn is_promised(&self, version: &str, place: &Place, found: &Found) -> Result<(), ImageError> {
        let Some(expected) = version.strip_prefix("sha256:") else { return Ok(()) };
        let expected: Digest = expected.parse().map_err(|_| ImageError::Reference {
            why: "a reference without a digest that says it has one".to_owned(),
        })?;
        if expected == found.digest {
            return Ok(());
        }
        // The reference named an index, which the fetcher left beside what it led to.
        let bytes = place.document(&blob_name(expected))?.unwrap_or_default();
        match Digest::of(&bytes) == expected {
            true => Ok(()),
            false => Err(ImageError::Mismatch {
                what: "the manifest".to_owned(),
                expected: expected.to_string(),
                found: found.digest.to_string(),
            }),
        }
    }

    /// Reads what describes the image.
    async fn read(&self, place: &Place, tag: Option<&str>) -> Result<Found, ImageError> {
        let mut reader = Client::start(&self.exe, &Order::Read).await?;
        let Some(index) = place.document("index.json")? else {
            return older(place, &mut reader).await;
        };
        let layout = place.document("oci-layout")?.ok_or_else(|| place.missing("oci-layout"))?;
        reader.read(&layout, DocumentKind::Layout).await?;
        let kind = |media: &str, tag: Option<&str>| DocumentKind::Image {
            media: media.to_owned(),
            tag: tag.map(str::to_owned),
        };
        let mut bytes = index;
        let (mut media, mut tag) = (String::new(), tag);
        let mut digest = None;
        for _ in 0..=INDEX_DEPTH_MAX {
            match reader.read(&bytes, kind(&media, tag.take())).await? {
                Answer::Next(Next::Down(blob)) => {
                    bytes = place.blob(&blob, "a manifest")?;
                    media.clone_from(&blob.media);
                    digest = Some(blob.digest);
                }
                Answer::Next(Next::Image { config, layers }) => {
                    let digest = digest.ok_or_else(|| {
                        ImageError::metadata("index.json", "it is a manifest, and no index")
                    })?;
                    let bytes = place.blob(&config, "the configuration")?;
                    let config_digest = config.digest;
                    let config = read_config(&mut reader, &bytes).await?;
                    let names = layers.into_iter().map(|blob| {
                        let name = blob_name(blob.digest);
                        (Some(blob), name)
                    });
                    let layers = names.collect();
                    return Found { digest, config_digest, config, layers }.checked();
                }
                other => return Err(unexpected(&other)),
            }
        }
        Err(ImageError::limit("indexes one behind the other", INDEX_DEPTH_MAX as u64))
    }

    /// Unpacks the layers that are not here, several at once.
    async fn unpack(&self, place: &Place, found: &Found) -> Result<(), ImageError> {
        let turns = Arc::new(Semaphore::new(parallel()));
        let mut tasks = JoinSet::new();
        let mut begun = std::collections::BTreeSet::new();
        for ((blob, name), diff_id) in found.layers.iter().zip(&found.config.diff_ids) {
            if self.has_layer(*diff_id) || !begun.insert(*diff_id) {
                continue;
            }
            let part = place.part(name)?.ok_or_else(|| place.missing(name))?;
            if part.extent.bytes > BLOB_BYTES_MAX {
                return Err(ImageError::limit("bytes in a packed layer", BLOB_BYTES_MAX));
            }
            let (packing, digest) = match blob {
                None => (Packing::Plain, None),
                Some(blob) => {
                    promised("a layer", blob.size, part.extent.bytes)?;
                    (metadata::packing(&blob.media)?, Some(blob.digest))
                }
            };
            let wanted = Wanted { part, packing, digest, diff_id: *diff_id };
            let this = Self { dir: self.dir.clone(), exe: self.exe.clone() };
            let turns = Arc::clone(&turns);
            tasks.spawn(async move {
                let _turn = turns.acquire().await.map_err(ImageError::worker)?;
                this.unpack_one(wanted).await
            });
        }
        // The first failure ends the others, whose processes are killed with their tasks.
        while let Some(done) = tasks.join_next().await {
            done.map_err(ImageError::worker)??;
        }
        Ok(())
    }

    async fn unpack_one(&self, wanted: Wanted) -> Result<(), ImageError> {
        let staged = self.staged(false)?;
        let order = Order::Unpack(Box::new(Unpack {
            file: wanted.part.file,
            offset: wanted.part.extent.offset,
            bytes: wanted.part.extent.bytes,
            packing: wanted.packing,
            digest: wanted.digest,
            diff_id: wanted.diff_id,
            out: staged.0.join("fs"),
            limits: LayerLimits::default(),
        }));
        match Client::once(&self.exe, &order).await? {
            Answer::Unpacked(unpacked) => {
                let this = Self { dir: self.dir.clone(), exe: self.exe.clone() };
                let publish = move || this.publish(&staged, wanted.diff_id, &unpacked);
                tokio::task::spawn_blocking(publish).await.map_err(ImageError::worker)?
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn parallel() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(PARALLEL_MAX))
}

fn text(path: &Path) -> Result<String, ImageError> {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let text = absolute.to_str().map(str::to_owned);
    text.ok_or_else(|| ImageError::Source { path: absolute, why: "it is no UTF-8".to_owned() })
}

async fn read_config(reader: &mut Client, bytes: &[u8]) -> Result<Config, ImageError> {
    match reader.read(bytes, DocumentKind::Config).await? {
        Answer::Config(config) => Ok(config),
        other => Err(unexpected(&other)),
    }
}

/// Reads an archive of an older `docker save`, which has no manifest with digests: its layers are
/// known by the configuration, and that by its name.
async fn older(place: &Place, reader: &mut Client) -> Result<Found, ImageError> {
    let none = || ImageError::Source {
        path: place.path().to_owned(),
        why: "it has neither index.json nor manifest.json".to_owned(),
    };
    let bytes = place.document("manifest.json")?.ok_or_else(none)?;
    let legacy = match reader.read(&bytes, DocumentKind::Legacy).await? {
        Answer::Legacy(legacy) => legacy,
        other => return Err(unexpected(&other)),
    };
    let bytes =
        place.document(&legacy.config)?.ok_or_else(|| place.missing("the configuration"))?;
    let digest = Digest::of(&bytes);
    let last = legacy.config.rsplit('/').next().unwrap_or_default();
    let named = last.strip_suffix(".json").unwrap_or(last).parse::<Digest>();
    match named {
        Ok(expected) if expected == digest => {}
        Ok(expected) => {
            return Err(ImageError::Mismatch {
                what: "the configuration".to_owned(),
                expected: expected.to_string(),
                found: digest.to_string(),
            });
        }
        Err(_) => {
            let why = "the configuration is not named by its digest";
            return Err(ImageError::metadata("manifest.json", why));
        }
    }
    let config = read_config(reader, &bytes).await?;
    let layers = legacy.layers.into_iter().map(|name| (None, name)).collect();
    Found { digest, config_digest: digest, config, layers }.checked()
}

impl Found {
    fn checked(self) -> Result<Self, ImageError> {
        match self.layers.len() == self.config.diff_ids.len() {
            true => Ok(self),
            false => Err(ImageError::metadata(
                "the image",
                format!(
                    "its manifest has {} layers, its configuration {}",
                    self.layers.len(),
                    self.config.diff_ids.len()
                ),
            )),
        }
    }
}
