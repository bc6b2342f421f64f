//! Images made for the tests: layers of a few files, a layout or an archive around them.

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use types::Digest;

/// What a layer holds.
pub(crate) enum Thing<'a> {
    Dir(&'a str),
    File(&'a str, &'a [u8], u32),
    Symlink(&'a str, &'a str),
    Device(&'a str),
}

/// A bare tar.
pub(crate) fn layer(things: &[Thing<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for thing in things {
        let (name, kind, link, content, mode) = match thing {
            Thing::Dir(name) => (name, tar::EntryType::Directory, "", &[][..], 0o755),
            Thing::File(name, content, mode) => {
                (name, tar::EntryType::Regular, "", *content, *mode)
            }
            Thing::Symlink(name, to) => (name, tar::EntryType::Symlink, *to, &[][..], 0o777),
            Thing::Device(name) => (name, tar::EntryType::Char, "", &[][..], 0o666),
        };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..name.len()].copy_from_slice(name.as_bytes());
        raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// How a layer is packed.
#[derive(Clone, Copy)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

impl Packed {
    fn pack(self, tar: &[u8]) -> (Vec<u8>, &'static str) {
        match self {
            Self::Plain => (tar.to_vec(), "application/vnd.oci.image.layer.v1.tar"),
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(tar).unwrap();
                let bytes = encoder.finish().unwrap();
                (bytes, "application/vnd.oci.image.layer.v1.tar+gzip")
            }
            Self::Zstd => {
                let level = ruzstd::encoding::CompressionLevel::Fastest;
                let bytes = ruzstd::encoding::compress_to_vec(tar, level);
                (bytes, "application/vnd.oci.image.layer.v1.tar+zstd")
            }
        }
    }
}

/// Blobs, and the descriptor of the manifest.
pub(crate) struct Made {
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) manifest: Value,
    pub(crate) config: Vec<u8>,
    pub(crate) tars: Vec<Vec<u8>>,
}

pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

fn descriptor(media: &str, bytes: &[u8]) -> Value {
    let digest = format!("sha256:{}", Digest::of(bytes));
    json!({"mediaType": media, "digest": digest, "size": bytes.len()})
}

/// An image of these layers, the oldest first.
pub(crate) fn image(layers: &[(Vec<u8>, Packed)], settings: Value) -> Made {
    let ids: Vec<String> =
        layers.iter().map(|(tar, _)| format!("sha256:{}", Digest::of(tar))).collect();
    let config = json!({
        "os": "linux", "architecture": architecture(), "config": settings,
        "rootfs": {"type": "layers", "diff_ids": ids},
    });
    let config = config.to_string().into_bytes();
    let mut blobs = vec![config.clone()];
    let mut listed = Vec::new();
    for (tar, packed) in layers {
        let (bytes, media) = packed.pack(tar);
        listed.push(descriptor(media, &bytes));
        blobs.push(bytes);
    }
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": listed,
    });
    let manifest = manifest.to_string().into_bytes();
    let manifest_entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    blobs.push(manifest);
    let tars = layers.iter().map(|(tar, _)| tar.clone()).collect();
    Made { blobs, manifest: manifest_entry, config, tars }
}

impl Made {
    pub(crate) fn digest(&self) -> Digest {
        let text = self.manifest["digest"].as_str().unwrap();
        text.strip_prefix("sha256:").unwrap().parse().unwrap()
    }

    fn index(&self) -> String {
        json!({"schemaVersion": 2, "manifests": [self.manifest]}).to_string()
    }

    /// A layout directory.
    pub(crate) fn layout(&self, dir: &Path) -> PathBuf {
        let blobs = dir.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for blob in &self.blobs {
            std::fs::write(blobs.join(Digest::of(blob).to_string()), blob).unwrap();
        }
        std::fs::write(dir.join("index.json"), self.index()).unwrap();
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        dir.to_owned()
    }

    /// What an older `docker save` writes.
    pub(crate) fn older_archive(&self, file: &Path) {
        let mut builder = tar::Builder::new(std::fs::File::create(file).unwrap());
        let mut add = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append_data(&mut header, name, bytes).unwrap();
        };
        let config = format!("{}.json", Digest::of(&self.config));
        let names: Vec<String> =
            self.tars.iter().map(|tar| format!("{}/layer.tar", Digest::of(tar))).collect();
        add(&config, &self.config);
        names.iter().zip(&self.tars).for_each(|(name, tar)| add(name, tar));
        let list = json!([{"Config": config, "RepoTags": ["a:1"], "Layers": names}]);
        add("manifest.json", list.to_string().as_bytes());
        builder.finish().unwrap();
    }

    /// What a newer one writes: a layout in an archive.
    pub(crate) fn archive(&self, file: &Path) {
        let dir = tempfile::tempdir().unwrap();
        self.layout(dir.path());
        let mut builder = tar::Builder::new(std::fs::File::create(file).unwrap());
        builder.append_dir_all(".", dir.path()).unwrap();
        builder.finish().unwrap();
    }
}

/// A system of one program: busybox under the names that tests use.
pub(crate) fn busybox() -> Vec<u8> {
    let program = std::fs::read("/usr/bin/busybox").or_else(|_| std::fs::read("/bin/busybox"));
    let program = program.expect("busybox-static is installed");
    let mut things = vec![
        Thing::Dir("bin"),
        Thing::Dir("etc"),
        Thing::File("bin/busybox", &program, 0o755),
        Thing::File("etc/os-release", b"ID=test\n", 0o644),
        Thing::File("etc/passwd", b"evil:x:0:0::/:/bin/sh\n", 0o644),
        Thing::File("secret-of-root", b"read\n", 0o600),
    ];
    for name in ["sh", "ls", "cat", "id", "touch", "env", "pwd", "echo", "mkdir", "ln", "rm"] {
        things.push(Thing::Symlink(Box::leak(format!("bin/{name}").into_boxed_str()), "busybox"));
    }
    layer(&things)
}
