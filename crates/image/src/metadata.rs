//! What describes an image, read: indexes, manifests, configurations. Functions of bytes.
//!
//! The bytes are hostile, so this runs in a confined process. What always holds: a document that
//! says two things at once is refused (two images under one name or for one machine, fields twice,
//! a manifest that is an index too), and so is a media type that nothing here reads. Unknown fields
//! are passed over.

use crate::ImageError;
use crate::error::quoted;
use crate::limits::INDEX_ENTRIES_MAX;
use sandbox::{IMAGE_LAYERS_MAX, IMAGE_VARIABLES_BYTES_MAX, IMAGE_VARIABLES_MAX};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use types::Digest;

const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
const CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
const LAYERS: [(&str, Packing); 5] = [
    ("application/vnd.oci.image.layer.v1.tar", Packing::Plain),
    ("application/vnd.oci.image.layer.v1.tar+gzip", Packing::Gzip),
    ("application/vnd.oci.image.layer.v1.tar+zstd", Packing::Zstd),
    ("application/vnd.docker.image.rootfs.diff.tar", Packing::Plain),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", Packing::Gzip),
];
/// Where an index of a layout keeps a tag.
const TAG_ANNOTATION: &str = "org.opencontainers.image.ref.name";
/// What a registry is asked for.
pub(crate) const ACCEPTED: [&str; 4] = [INDEXES[0], INDEXES[1], MANIFESTS[0], MANIFESTS[1]];
/// Words of an entry point or command, and bytes of one setting.
const WORDS_MAX: usize = 256;
const SETTING_BYTES_MAX: usize = 4096;

/// How a layer is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Packing {
    /// A bare tar.
    Plain,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A reference to bytes by their digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) media: String,
}

/// What a document that is an index or a manifest leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Next {
    /// Another index or a manifest.
    Down(Blob),
    /// The image itself.
    Image { config: Blob, layers: Vec<Blob> },
}

/// A machine as images name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Platform {
    pub(crate) os: String,
    pub(crate) architecture: String,
    /// Variants that run here, the best first.
    pub(crate) variants: Vec<String>,
}

impl Platform {
    /// The machine this program was built for.
    pub(crate) fn here() -> Self {
        let (architecture, variants): (_, &[&str]) = match std::env::consts::ARCH {
            "aarch64" => ("arm64", &["v8", ""]),
            "x86_64" => ("amd64", &["", "v1"]),
            other => (other, &[""]),
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variants: variants.iter().map(|variant| (*variant).to_owned()).collect(),
        }
    }

    fn name(&self) -> String {
        format!("{}/{}", self.os, self.architecture)
    }
}

/// What an image says about the programs in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `USER`. Shown, not followed: programs run as the agent.
    pub user: String,
    /// `ENV`, in order, without `HOME` and `USER`, which are the sandbox's.
    pub env: Vec<(String, String)>,
    /// `WORKDIR`; empty when there is none.
    pub workdir: String,
    /// `ENTRYPOINT`.
    pub entrypoint: Vec<String>,
    /// `CMD`.
    pub command: Vec<String>,
}

/// A configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    pub(crate) platform: String,
    /// Digests of the unpacked layers, the oldest first.
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) settings: Settings,
}

/// What the `manifest.json` of an older `docker save` names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Legacy {
    pub(crate) config: String,
    pub(crate) layers: Vec<String>,
    pub(crate) tags: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor {
    media_type: Option<String>,
    digest: String,
    size: u64,
    platform: Option<RawPlatform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct RawPlatform {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDocument {
    schema_version: Option<u64>,
    media_type: Option<String>,
    manifests: Option<Vec<RawDescriptor>>,
    config: Option<RawDescriptor>,
    layers: Option<Vec<RawDescriptor>>,
}

#[derive(Deserialize)]
struct RawConfig {
    os: Option<String>,
    architecture: Option<String>,
    rootfs: Option<RawRootfs>,
    config: Option<RawSettings>,
}

#[derive(Deserialize)]
struct RawRootfs {
    #[serde(rename = "type")]
    kind: Option<String>,
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct RawSettings {
    user: Option<String>,
    env: Option<Vec<String>>,
    working_dir: Option<String>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawLegacy {
    config: String,
    layers: Vec<String>,
    repo_tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawLayout {
    image_layout_version: String,
}

fn json<'a, T: Deserialize<'a>>(what: &str, bytes: &'a [u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::metadata(what, error))
}

/// A digest as documents write it; of the algorithms only sha256 is read.
pub(crate) fn digest(what: &str, text: &str) -> Result<Digest, ImageError> {
    let hex = text.strip_prefix("sha256:");
    hex.and_then(|hex| hex.parse().ok()).ok_or_else(|| {
        let text = quoted(text.as_bytes());
        ImageError::metadata(what, format!("{text} is no sha256 digest"))
    })
}

impl RawDescriptor {
    fn blob(self, what: &str) -> Result<Blob, ImageError> {
        let media = self.media_type.unwrap_or_default();
        Ok(Blob { digest: digest(what, &self.digest)?, size: self.size, media })
    }
}

fn unread(what: &str, media: &str) -> ImageError {
    ImageError::MediaType { what: what.to_owned(), media: quoted(media.as_bytes()) }
}

/// Checks `oci-layout`.
pub(crate) fn layout(bytes: &[u8]) -> Result<(), ImageError> {
    let version = json::<RawLayout>("the file oci-layout", bytes)?.image_layout_version;
    match version.as_str() {
        "1.0.0" => Ok(()),
        _ => Err(unread("the layout", &version)),
    }
}

/// Reads an index or a manifest; `media` is what it was promised to be, empty when nobody said.
/// In an index, `tag` picks by name, and then the platform decides.
pub(crate) fn document(
    bytes: &[u8],
    media: &str,
    tag: Option<&str>,
    platform: &Platform,
) -> Result<Next, ImageError> {
    let what = "what describes the image";
    let raw: RawDocument = json(what, bytes)?;
    if raw.schema_version != Some(2) {
        return Err(unread(what, &format!("schema version {:?}", raw.schema_version)));
    }
    let own = raw.media_type.as_deref().unwrap_or(media);
    if !media.is_empty() && own != media {
        let why = format!("it says it is {}, and was promised as another", quoted(own.as_bytes()));
        return Err(ImageError::metadata(what, why));
    }
    match (raw.manifests, raw.config, raw.layers) {
        (Some(list), None, None) if own.is_empty() || INDEXES.contains(&own) => {
            choose(list, tag, platform).map(Next::Down)
        }
        (None, Some(config), Some(layers)) if own.is_empty() || MANIFESTS.contains(&own) => {
            manifest(config, layers)
        }
        (Some(_), None, None) | (None, Some(_), Some(_)) => Err(unread(what, own)),
        _ => Err(ImageError::metadata(what, "it is neither an index nor a manifest, or both")),
    }
}

fn manifest(config: RawDescriptor, layers: Vec<RawDescriptor>) -> Result<Next, ImageError> {
    let config = config.blob("the configuration's entry")?;
    if !CONFIGS.contains(&config.media.as_str()) {
        return Err(unread("the configuration", &config.media));
    }
    if layers.len() > IMAGE_LAYERS_MAX {
        return Err(ImageError::limit("layers", IMAGE_LAYERS_MAX as u64));
    }
    if layers.is_empty() {
        return Err(ImageError::metadata("the manifest", "it has no layer"));
    }
    let layers: Vec<Blob> =
        layers.into_iter().map(|layer| layer.blob("a layer's entry")).collect::<Result<_, _>>()?;
    layers.iter().try_for_each(|layer| packing(&layer.media).map(drop))?;
    Ok(Next::Image { config, layers })
}

/// How a layer of this media type is packed.
pub(crate) fn packing(media: &str) -> Result<Packing, ImageError> {
    let known = LAYERS.iter().find(|(name, _)| *name == media);
    known.map(|(_, packing)| *packing).ok_or_else(|| unread("a layer", media))
}

fn choose(
    list: Vec<RawDescriptor>,
    tag: Option<&str>,
    platform: &Platform,
) -> Result<Blob, ImageError> {
    if list.len() > INDEX_ENTRIES_MAX {
        return Err(ImageError::limit("entries in its index", INDEX_ENTRIES_MAX as u64));
    }
    let named = |entry: &RawDescriptor| {
        entry.annotations.as_ref().and_then(|all| all.get(TAG_ANNOTATION)).cloned()
    };
    let list: Vec<RawDescriptor> = match tag {
        None => list,
        Some(tag) => {
            let names: Vec<String> = list.iter().filter_map(named).take(8).collect();
            let found: Vec<RawDescriptor> =
                list.into_iter().filter(|entry| named(entry).as_deref() == Some(tag)).collect();
            if found.is_empty() {
                let there = quoted(names.join(", ").as_bytes());
                let why = format!("; the index has {there}");
                return Err(ImageError::NotFound { name: tag.to_owned(), why });
            }
            found
        }
    };
    let mut fits = Vec::new();
    let mut offered = Vec::new();
    for entry in list {
        let media = entry.media_type.as_deref().unwrap_or_default();
        if !INDEXES.contains(&media) && !MANIFESTS.contains(&media) {
            // Indexes may also list signatures and the like.
            continue;
        }
        match rank(entry.platform.as_ref(), platform) {
            Ok(rank) => fits.push((rank, entry.blob("an entry of the index")?)),
            Err(other) => offered.push(other),
        }
    }
    let Some(best) = fits.iter().map(|(rank, _)| *rank).min() else {
        offered.sort();
        offered.dedup();
        offered.truncate(8);
        let offered = match offered.as_slice() {
            [] => "no machine at all".to_owned(),
            some => some.join(", "),
        };
        return Err(ImageError::Platform { wanted: platform.name(), offered });
    };
    let mut best = fits.into_iter().filter(|(rank, _)| *rank == best).map(|(_, blob)| blob);
    let first = best.next().expect("one has the best rank");
    if best.any(|other| other.digest != first.digest) {
        let why = match tag {
            None => "it holds several images: name one by its tag",
            Some(_) => "it holds two different images under this name for one machine",
        };
        return Err(ImageError::metadata("the index", why));
    }
    Ok(first)
}

/// How well an entry fits, 0 being best; or what it is for instead.
fn rank(entry: Option<&RawPlatform>, here: &Platform) -> Result<usize, String> {
    let Some(entry) = entry else { return Ok(0) };
    let word = |text: &Option<String>| text.clone().unwrap_or_default();
    let variant = word(&entry.variant);
    let name = format!("{}/{}", word(&entry.os), word(&entry.architecture));
    let rank = here.variants.iter().position(|known| *known == variant);
    match rank {
        Some(rank) if name == here.name() => Ok(rank),
        _ if variant.is_empty() => Err(quoted(name.as_bytes())),
        _ => Err(quoted(format!("{name}/{variant}").as_bytes())),
    }
}

/// Reads a configuration.
pub(crate) fn config(bytes: &[u8], here: &Platform) -> Result<Config, ImageError> {
    let what = "the configuration";
    let raw: RawConfig = json(what, bytes)?;
    let platform =
        format!("{}/{}", raw.os.unwrap_or_default(), raw.architecture.unwrap_or_default());
    if platform != here.name() {
        let offered = quoted(platform.as_bytes());
        return Err(ImageError::Platform { wanted: here.name(), offered });
    }
    let rootfs = raw.rootfs.ok_or_else(|| ImageError::metadata(what, "it names no layers"))?;
    if rootfs.kind.as_deref() != Some("layers") {
        return Err(unread("the root file system", &rootfs.kind.unwrap_or_default()));
    }
    let ids = rootfs.diff_ids.unwrap_or_default();
    if ids.len() > IMAGE_LAYERS_MAX {
        return Err(ImageError::limit("layers", IMAGE_LAYERS_MAX as u64));
    }
    let diff_ids: Vec<Digest> =
        ids.iter().map(|id| digest("a layer's digest", id)).collect::<Result<_, _>>()?;
    Ok(Config { platform, diff_ids, settings: settings(raw.config.unwrap_or_default())? })
}

fn settings(raw: RawSettings) -> Result<Settings, ImageError> {
    let what = "the configuration";
    let plain = |text: String| match text.len() > SETTING_BYTES_MAX || text.contains('\0') {
        true => Err(ImageError::metadata(what, "a setting is too long or holds a NUL")),
        false => Ok(text),
    };
    let words = |list: Option<Vec<String>>| {
        let list = list.unwrap_or_default();
        match list.len() > WORDS_MAX {
            true => Err(ImageError::limit("words in a command", WORDS_MAX as u64)),
            false => list.into_iter().map(plain).collect::<Result<Vec<_>, _>>(),
        }
    };
    let mut env: Vec<(String, String)> = Vec::new();
    for line in raw.env.unwrap_or_default() {
        let Some((name, value)) = line.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            let why = format!("{} is no variable", quoted(line.as_bytes()));
            return Err(ImageError::metadata(what, why));
        };
        if line.contains('\0') {
            return Err(ImageError::metadata(what, "a variable holds a NUL"));
        }
        if !matches!(name, "HOME" | "USER") {
            env.push((name.to_owned(), value.to_owned()));
        }
    }
    if env.len() > IMAGE_VARIABLES_MAX {
        return Err(ImageError::limit("variables", IMAGE_VARIABLES_MAX as u64));
    }
    if env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
        > IMAGE_VARIABLES_BYTES_MAX
    {
        return Err(ImageError::limit("bytes of variables", IMAGE_VARIABLES_BYTES_MAX as u64));
    }
    Ok(Settings {
        user: plain(raw.user.unwrap_or_default())?,
        env,
        workdir: plain(raw.working_dir.unwrap_or_default())?,
        entrypoint: words(raw.entrypoint)?,
        command: words(raw.cmd)?,
    })
}

/// Reads the `manifest.json` of an older `docker save`; it may hold one image.
pub(crate) fn legacy(bytes: &[u8]) -> Result<Legacy, ImageError> {
    let what = "manifest.json";
    let mut list: Vec<RawLegacy> = json(what, bytes)?;
    let (Some(raw), true) = (list.pop(), list.is_empty()) else {
        let why = "it holds no image, or several: save one image to an archive";
        return Err(ImageError::metadata(what, why));
    };
    if raw.layers.len() > IMAGE_LAYERS_MAX {
        return Err(ImageError::limit("layers", IMAGE_LAYERS_MAX as u64));
    }
    if raw.layers.is_empty() {
        return Err(ImageError::metadata(what, "it names no layer"));
    }
    let tags = raw.repo_tags.unwrap_or_default();
    Ok(Legacy { config: raw.config, layers: raw.layers, tags })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use types::Coded;

    fn amd() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into(), variants: vec!["".into()] }
    }

    fn hex(digit: &str) -> String {
        format!("sha256:{}", digit.repeat(64))
    }

    fn entry(digit: &str, platform: Value) -> Value {
        json!({"mediaType": MANIFESTS[0], "digest": hex(digit), "size": 7, "platform": platform})
    }

    fn index(entries: Value) -> Vec<u8> {
        serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": entries})).unwrap()
    }

    fn read(value: &Value) -> Result<Next, ImageError> {
        document(&serde_json::to_vec(value).unwrap(), "", None, &amd())
    }

    #[test]
    fn the_machine_s_manifest_is_chosen() {
        let linux = |arch: &str| json!({"os": "linux", "architecture": arch});
        let attestation = json!({"os": "unknown", "architecture": "unknown"});
        let list = json!([
            entry("a", linux("arm64")),
            entry("b", linux("amd64")),
            entry("c", attestation),
            {"mediaType": "application/x-signature", "digest": "none", "size": 1},
        ]);
        let Ok(Next::Down(blob)) = document(&index(list), INDEXES[0], None, &amd()) else {
            panic!("nothing chosen");
        };
        assert_eq!((blob.digest.to_string(), blob.size), ("b".repeat(64), 7));
        let arm = Platform {
            architecture: "arm64".into(),
            variants: vec!["v8".into(), "".into()],
            ..amd()
        };
        let v8 = json!({"os": "linux", "architecture": "arm64", "variant": "v8"});
        let list = json!([entry("a", linux("arm64")), entry("d", v8)]);
        let Ok(Next::Down(blob)) = document(&index(list), "", None, &arm) else { panic!() };
        assert_eq!(blob.digest.to_string(), "d".repeat(64), "the better variant");
    }

    #[test]
    fn tags_pick_among_images() {
        let tagged = |digit: &str, tag: &str| {
            json!({"mediaType": MANIFESTS[0], "digest": hex(digit), "size": 7,
                   "annotations": {TAG_ANNOTATION: tag}})
        };
        let list = json!([tagged("a", "one"), tagged("b", "two"), tagged("c", "two")]);
        let chosen = |tag: Option<&str>| document(&index(list.clone()), "", tag, &amd());
        assert!(matches!(chosen(Some("one")), Ok(Next::Down(blob))
            if blob.digest.to_string() == "a".repeat(64)));
        assert_eq!(chosen(Some("two")).unwrap_err().code(), "BP-IMAGE-006", "duplicates");
        assert_eq!(chosen(None).unwrap_err().code(), "BP-IMAGE-006", "ambiguous");
        assert_eq!(chosen(Some("six")).unwrap_err().code(), "BP-IMAGE-002");
    }

    #[test]
    fn what_says_two_things_or_nothing_is_refused() {
        let config = json!({"mediaType": CONFIGS[0], "digest": hex("a"), "size": 1});
        let layer = json!({"mediaType": LAYERS[0].0, "digest": hex("b"), "size": 1});
        let good = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        assert!(matches!(read(&good), Ok(Next::Image { .. })));
        let with = |key: &str, value: Value| {
            let mut changed = good.clone();
            changed[key] = value;
            read(&changed).map(drop).map_err(|error| error.code())
        };
        assert_eq!(with("manifests", json!([])), Err("BP-IMAGE-006"), "both");
        assert_eq!(with("schemaVersion", json!(1)), Err("BP-IMAGE-005"));
        assert_eq!(with("mediaType", json!("text/x")), Err("BP-IMAGE-005"));
        assert_eq!(with("mediaType", json!(INDEXES[0])), Err("BP-IMAGE-005"));
        assert_eq!(with("layers", json!([])), Err("BP-IMAGE-006"));
        let foreign = json!({"mediaType": "application/x-foreign", "digest": hex("b"), "size": 1});
        assert_eq!(with("layers", json!([foreign])), Err("BP-IMAGE-005"));
        let short = json!({"mediaType": LAYERS[0].0, "digest": "sha256:12", "size": 1});
        assert_eq!(with("layers", json!([short])), Err("BP-IMAGE-006"));
        let sha512 = json!({"mediaType": LAYERS[0].0, "digest": "sha512:12", "size": 1});
        assert_eq!(with("layers", json!([sha512])), Err("BP-IMAGE-006"));
        let negative = json!({"mediaType": LAYERS[0].0, "digest": hex("b"), "size": -1});
        assert_eq!(with("layers", json!([negative])), Err("BP-IMAGE-006"));
        let chart = json!({"mediaType": "application/x-chart", "digest": hex("a"), "size": 1});
        assert_eq!(with("config", chart), Err("BP-IMAGE-005"));
        let promised = document(&serde_json::to_vec(&good).unwrap(), MANIFESTS[1], None, &amd());
        assert!(promised.is_ok(), "it does not say itself what it is");
        let mut own = good.clone();
        own["mediaType"] = json!(MANIFESTS[0]);
        let other = document(&serde_json::to_vec(&own).unwrap(), MANIFESTS[1], None, &amd());
        assert_eq!(other.unwrap_err().code(), "BP-IMAGE-006");
        let twice = br#"{"schemaVersion":2,"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(document(twice, "", None, &amd()).unwrap_err().code(), "BP-IMAGE-006");
        let deep = "[".repeat(100_000);
        assert_eq!(document(deep.as_bytes(), "", None, &amd()).unwrap_err().code(), "BP-IMAGE-006");
    }

    #[test]
    fn an_image_for_others_is_refused() {
        let entries = json!([entry("a", json!({"os": "windows", "architecture": "amd64"}))]);
        let error = document(&index(entries), "", None, &amd()).unwrap_err();
        assert_eq!(error.code(), "BP-IMAGE-007");
        assert!(error.to_string().contains("windows/amd64"), "{error}");
        let config = config(br#"{"os":"linux","architecture":"s390x"}"#, &amd());
        assert_eq!(config.unwrap_err().code(), "BP-IMAGE-007");
    }

    #[test]
    fn lists_have_limits_at_their_edge() {
        let any = json!({"os": "linux", "architecture": "amd64"});
        let many = |count: usize| {
            document(&index(json!(vec![entry("a", any.clone()); count])), "", None, &amd())
        };
        assert!(many(INDEX_ENTRIES_MAX).is_ok(), "the same one many times is one");
        assert_eq!(many(INDEX_ENTRIES_MAX + 1).unwrap_err().code(), "BP-IMAGE-011");
        let config = json!({"mediaType": CONFIGS[0], "digest": hex("a"), "size": 1});
        let layer = json!({"mediaType": LAYERS[0].0, "digest": hex("b"), "size": 1});
        let layers = |count: usize| {
            let layers = vec![layer.clone(); count];
            read(&json!({"schemaVersion": 2, "config": config, "layers": layers}))
        };
        assert!(layers(IMAGE_LAYERS_MAX).is_ok());
        assert_eq!(layers(IMAGE_LAYERS_MAX + 1).unwrap_err().code(), "BP-IMAGE-011");
    }

    #[test]
    fn settings_are_read_with_care() {
        let base = json!({"os": "linux", "architecture": "amd64",
            "rootfs": {"type": "layers", "diff_ids": [hex("a")]},
            "config": {"User": "app", "Env": ["PATH=/x", "A=b=c", "HOME=/root"],
                       "WorkingDir": "/srv", "Entrypoint": ["/e"], "Cmd": null}});
        let read = |value: &Value| config(&serde_json::to_vec(value).unwrap(), &amd());
        let found = read(&base).unwrap();
        assert_eq!(found.diff_ids.len(), 1);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found.settings.env, [pair("PATH", "/x"), pair("A", "b=c")]);
        assert_eq!(found.settings.workdir, "/srv");
        assert!(found.settings.command.is_empty());
        let with = |env: Value| {
            let mut changed = base.clone();
            changed["config"]["Env"] = env;
            read(&changed).map(drop).map_err(|error| error.code())
        };
        assert_eq!(with(json!(["=x"])), Err("BP-IMAGE-006"));
        assert_eq!(with(json!(["A"])), Err("BP-IMAGE-006"));
        assert_eq!(with(json!(["A=\0"])), Err("BP-IMAGE-006"));
        assert_eq!(with(json!(vec!["A=b"; IMAGE_VARIABLES_MAX])), Ok(()));
        assert_eq!(with(json!(vec!["A=b"; IMAGE_VARIABLES_MAX + 1])), Err("BP-IMAGE-011"));
        let fat = |bytes: usize| with(json!([format!("A={}", "x".repeat(bytes - 1))]));
        assert_eq!(fat(IMAGE_VARIABLES_BYTES_MAX), Ok(()));
        assert_eq!(fat(IMAGE_VARIABLES_BYTES_MAX + 1), Err("BP-IMAGE-011"));
    }

    #[test]
    fn an_older_archive_names_one_image() {
        let one = r#"{"Config":"c.json","Layers":["l/layer.tar"],"RepoTags":["a:1"]}"#;
        assert_eq!(legacy(format!("[{one}]").as_bytes()).unwrap().config, "c.json");
        for bad in ["[]".to_owned(), format!("[{one},{one}]"), "{}".to_owned()] {
            assert_eq!(legacy(bad.as_bytes()).unwrap_err().code(), "BP-IMAGE-006", "{bad}");
        }
        assert!(layout(br#"{"imageLayoutVersion":"1.0.0"}"#).is_ok());
        let other = layout(br#"{"imageLayoutVersion":"2.0.0"}"#);
        assert_eq!(other.unwrap_err().code(), "BP-IMAGE-005");
    }
}
