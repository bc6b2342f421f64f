//! Hostile images through real workers: each is refused by its code, and nothing of it stays.

use crate::making::{Made, Packed, Thing, image, layer};
use crate::support::{HARNESS, World};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use types::{Coded, Digest};

fn plain() -> Made {
    image(&[(layer(&[Thing::File("a", b"1", 0o644)]), Packed::Plain)], json!({}))
}

async fn refused(code: &str, change: impl FnOnce(&std::path::Path, &Made)) {
    refused_as("oci:layout", code, &plain(), change).await;
}

async fn refused_as(
    source: &str,
    code: &str,
    made: &Made,
    change: impl FnOnce(&std::path::Path, &Made),
) {
    let world = World::new();
    let dir = made.layout(&world.path().join("layout"));
    change(&dir, made);
    let error = world.pull(source).await.unwrap_err();
    assert_eq!(error.code(), code, "{error}");
    assert_eq!(world.kept()[1..], [0, 0], "no image, nothing half");
}

fn blob(dir: &std::path::Path, bytes: &[u8]) -> std::path::PathBuf {
    dir.join("blobs/sha256").join(Digest::of(bytes).to_string())
}

#[tokio::test]
async fn changed_bytes_are_refused_wherever_they_are() {
    for part in 0..3 {
        // The configuration, the layer, the manifest: changed in place, at the same size.
        refused("BP-IMAGE-004", |dir, made| {
            let mut bytes = made.blobs[part].clone();
            bytes[2] ^= 1;
            std::fs::write(blob(dir, &made.blobs[part]), bytes).unwrap();
        })
        .await;
        refused("BP-IMAGE-004", |dir, made| {
            let mut bytes = made.blobs[part].clone();
            bytes.push(b'\n');
            std::fs::write(blob(dir, &made.blobs[part]), bytes).unwrap();
        })
        .await;
        refused("BP-IMAGE-003", |dir, made| {
            std::fs::remove_file(blob(dir, &made.blobs[part])).unwrap();
        })
        .await;
        refused("BP-IMAGE-003", |dir, made| {
            let path = blob(dir, &made.blobs[part]);
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", path).unwrap();
        })
        .await;
    }
}

#[tokio::test]
async fn layers_that_lead_out_are_refused() {
    let check = async |code: &str, layers: &[&[Thing<'_>]]| {
        let layers: Vec<_> = layers.iter().map(|things| (layer(things), Packed::Gzip)).collect();
        refused_as("oci:layout", code, &image(&layers, json!({})), |_, _| ()).await;
    };
    let file = |name| Thing::File(name, b"x", 0o644);
    check("BP-IMAGE-008", &[&[file("/etc/x")]]).await;
    check("BP-IMAGE-008", &[&[file("a/../../x")]]).await;
    check("BP-IMAGE-009", &[&[Thing::Symlink("out", "/"), file("out/x")]]).await;
    check("BP-IMAGE-010", &[&[Thing::Device("dev/sda")]]).await;
    // Through a link of the layer below, whole paths down.
    check("BP-IMAGE-009", &[&[Thing::Symlink("lib", "/usr/lib")], &[file("lib/x")]]).await;
    check("BP-IMAGE-009", &[&[Thing::Symlink("lib", "usr")], &[file("lib/a/b/x")]]).await;
    check("BP-IMAGE-009", &[&[file("lib")], &[file("lib/x")]]).await;
}

#[tokio::test]
async fn a_directory_that_replaces_a_link_below_is_no_link() {
    let below = layer(&[Thing::Symlink("lib", "/usr/lib")]);
    let file = || Thing::File("lib/x", b"x", 0o644);
    let said = layer(&[Thing::Dir("lib"), file()]);
    let hidden = [
        layer(&[Thing::File(".wh.lib", b"", 0o644)]),
        layer(&[Thing::Dir("lib"), Thing::File("lib/y", b"", 0o644)]),
        layer(&[file()]),
    ];
    for above in [vec![said], hidden.to_vec()] {
        let world = World::new();
        let layers = std::iter::once(below.clone()).chain(above);
        let layers: Vec<_> = layers.map(|tar| (tar, Packed::Plain)).collect();
        image(&layers, json!({})).layout(&world.path().join("layout"));
        world.pull("oci:layout").await.unwrap();
    }
}

#[tokio::test]
async fn documents_that_lie_are_refused() {
    let index = |text: String| {
        move |dir: &std::path::Path, _: &Made| {
            std::fs::write(dir.join("index.json"), text).unwrap();
        }
    };
    refused("BP-IMAGE-006", index("{".to_owned())).await;
    refused("BP-IMAGE-006", index("[".repeat(50_000))).await;
    let long = " ".repeat(image::limits::DOCUMENT_BYTES_MAX as usize + 1);
    refused("BP-IMAGE-011", index(long)).await;
    let manifest = plain().manifest;
    let unknown = json!({"schemaVersion": 2, "mediaType": "a/b", "manifests": [manifest]});
    refused("BP-IMAGE-005", index(unknown.to_string())).await;
    let mut twin = manifest.clone();
    twin["digest"] = json!(format!("sha256:{}", "0".repeat(64)));
    let two = json!({"schemaVersion": 2, "manifests": [manifest, twin]});
    refused("BP-IMAGE-006", index(two.to_string())).await;
    let mut other = manifest.clone();
    other["platform"] = json!({"os": "plan9", "architecture": "mips"});
    let foreign = json!({"schemaVersion": 2, "manifests": [other]});
    refused("BP-IMAGE-007", index(foreign.to_string())).await;
    refused("BP-IMAGE-005", |dir, _| {
        std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap();
    })
    .await;
    refused("BP-IMAGE-003", |dir, _| {
        std::fs::remove_file(dir.join("index.json")).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_layer_that_is_cut_off_is_damaged() {
    let mut tar = layer(&[Thing::File("a", &[7; 4096], 0o644)]);
    tar.truncate(2000);
    let made = image(&[(tar, Packed::Gzip)], json!({}));
    refused_as("oci:layout", "BP-IMAGE-012", &made, |_, _| ()).await;
}

#[tokio::test]
async fn archives_that_are_none_are_refused() {
    let world = World::new();
    let file = world.path().join("x.tar");
    std::fs::write(&file, vec![b'x'; 4096]).unwrap();
    assert_eq!(world.pull("archive:x.tar").await.unwrap_err().code(), "BP-IMAGE-006");
    std::fs::write(&file, layer(&[Thing::File("a", b"", 0o644)])).unwrap();
    assert_eq!(world.pull("archive:x.tar").await.unwrap_err().code(), "BP-IMAGE-003");
    std::fs::write(&file, layer(&[Thing::File("/manifest.json", b"[]", 0o644)])).unwrap();
    assert_eq!(world.pull("archive:x.tar").await.unwrap_err().code(), "BP-IMAGE-008");
    assert_eq!(world.pull("archive:none.tar").await.unwrap_err().code(), "BP-IMAGE-003");
    let same = || Thing::File("manifest.json", b"[]", 0o644);
    std::fs::write(&file, layer(&[same(), same()])).unwrap();
    assert_eq!(world.pull("archive:x.tar").await.unwrap_err().code(), "BP-IMAGE-006");
    assert_eq!(world.pull("host").await.unwrap_err().code(), "BP-IMAGE-001");
}

#[tokio::test]
async fn a_store_or_a_worker_that_does_not_work_says_so() {
    let world = World::new();
    plain().layout(&world.path().join("layout"));
    let source: types::ImageSource = "oci:layout".parse().unwrap();
    let images = image::Images::new(&world.home(), "/bin/false");
    let error = images.pull(&source, world.path()).await.unwrap_err();
    assert_eq!(error.code(), "BP-IMAGE-013", "{error}");
    let images = image::Images::new(std::path::Path::new("/proc/none"), HARNESS);
    let error = images.pull(&source, world.path()).await.unwrap_err();
    assert_eq!(error.code(), "BP-IMAGE-014", "{error}");
}

/// A worker that waits for documents, looked at from outside.
#[test]
fn a_worker_is_confined_before_it_reads() {
    let mut worker = Command::new(HARNESS)
        .arg(image::WORKER_ARG)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = worker.stdin.take().unwrap();
    let document = br#"{"imageLayoutVersion":"1.0.0"}"#;
    writeln!(input, "\"Read\"").unwrap();
    writeln!(input, r#"{{"bytes":{},"kind":"Layout"}}"#, document.len()).unwrap();
    input.write_all(document).unwrap();
    let mut answer = String::new();
    BufReader::new(worker.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
    assert_eq!(answer, "{\"Ok\":\"Layout\"}\n");
    let pid = worker.id();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let child = children.trim();
    let status = std::fs::read_to_string(format!("/proc/{child}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap();
        line.split_once(':').unwrap().1.trim().to_owned()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".into(), "2".into()));
    // As root we may look where others may not.
    if rustix::process::geteuid().is_root() {
        assert!(!field("Uid").split_whitespace().any(|id| id == "0"), "{}", field("Uid"));
        for kind in ["mnt", "pid", "ipc", "uts", "net"] {
            let own = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_ne!(own(child), own("self"), "{kind}");
        }
        let root = std::fs::read_dir(format!("/proc/{child}/root")).unwrap();
        let names: Vec<_> = root.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["etc"], "an empty root");
    }
    drop(input);
    assert!(worker.wait().unwrap().success());
}
