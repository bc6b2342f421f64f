//! What is kept, once, and for as long as anything needs it.

use crate::making::{Packed, Thing, busybox, image, layer};
use crate::support::{HARNESS, World};
use serde_json::json;
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};
use types::Coded;

fn two_layers() -> Vec<(Vec<u8>, Packed)> {
    vec![
        (layer(&[Thing::Dir("a"), Thing::File("a/one", b"1", 0o644)]), Packed::Gzip),
        (layer(&[Thing::Dir("a"), Thing::File("a/two", b"2", 0o644)]), Packed::Zstd),
    ]
}

#[tokio::test]
async fn every_form_gives_the_same_layers_once() {
    let world = World::new();
    let made = image(&two_layers(), json!({}));
    made.layout(&world.path().join("layout"));
    made.archive(&world.path().join("new.tar"));
    made.older_archive(&world.path().join("old.tar"));
    let first = world.pull("oci:layout").await.unwrap();
    assert_eq!(first.image.digest, made.digest());
    assert_eq!(world.kept(), [2, 1, 0]);
    let inode = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
    let before: Vec<u64> = first.root.layers.iter().map(|path| inode(path)).collect();
    let second = world.pull("archive:new.tar").await.unwrap();
    assert_eq!(second.image, first.image);
    let third = world.pull("archive:old.tar").await.unwrap();
    assert_eq!(third.image.layers, first.image.layers);
    assert_ne!(third.image.digest, first.image.digest, "it has no manifest");
    assert_eq!(third.image.digest, third.image.config);
    assert_eq!(world.kept(), [2, 2, 0]);
    let after: Vec<u64> = third.root.layers.iter().map(|path| inode(path)).collect();
    assert_eq!(before, after, "unpacked once");
    let newest = &first.root.layers[0];
    assert_eq!(std::fs::read_to_string(newest.join("a/two")).unwrap(), "2");
}

#[tokio::test]
async fn a_tag_names_one_of_several() {
    let world = World::new();
    let made = image(&two_layers(), json!({}));
    let dir = made.layout(&world.path().join("layout"));
    let mut tagged = made.manifest.clone();
    tagged["annotations"] = json!({"org.opencontainers.image.ref.name": "one"});
    let index = json!({"schemaVersion": 2, "manifests": [tagged]});
    std::fs::write(dir.join("index.json"), index.to_string()).unwrap();
    assert_eq!(world.pull("oci:layout:one").await.unwrap().image.digest, made.digest());
    assert_eq!(world.pull("oci:layout:two").await.unwrap_err().code(), "BP-IMAGE-002");
}

#[tokio::test]
async fn what_nothing_needs_goes_and_what_is_used_stays() {
    let world = World::new();
    let shared = two_layers();
    let other = vec![
        (shared[0].0.clone(), Packed::Plain),
        (layer(&[Thing::File("three", b"3", 0o644)]), Packed::Plain),
    ];
    image(&shared, json!({})).layout(&world.path().join("one"));
    image(&other, json!({})).layout(&world.path().join("two"));
    let one = world.pull("oci:one").await.unwrap();
    let two = world.pull("oci:two").await.unwrap();
    assert_eq!(world.kept(), [3, 2, 0]);
    let nothing = BTreeSet::new();
    let digest = one.image.digest;
    let prefix = digest.to_string()[..12].to_owned();
    let count = |done: image::Collected| (done.images, done.layers);
    // In use: its name goes, the image stays.
    let name = format!("oci:{}", world.path().join("one").display());
    assert_eq!(world.images.remove(&name, &nothing).map(count), Ok((0, 0)));
    assert_eq!(world.images.hold(digest).unwrap().image.digest, digest);
    drop(one);
    // Needed by a run, as whoever collects says.
    let kept = BTreeSet::from([digest]);
    assert_eq!(world.images.collect(&kept).map(count), Ok((0, 0)));
    assert_eq!(world.kept(), [3, 2, 0]);
    assert_eq!(world.images.remove(&prefix, &nothing).map(count), Ok((1, 1)));
    assert_eq!(world.kept(), [2, 1, 0], "what the other needs is there");
    assert!(two.root.layers.iter().all(|layer| layer.is_dir()));
}

#[tokio::test]
async fn a_removed_image_takes_only_its_own_layers_along() {
    let world = World::new();
    let shared = two_layers();
    let other = vec![(shared[0].0.clone(), Packed::Plain)];
    image(&shared, json!({})).layout(&world.path().join("one"));
    image(&other, json!({})).layout(&world.path().join("two"));
    let digest = world.pull("oci:one").await.unwrap().image.digest;
    world.pull("oci:two").await.unwrap();
    assert_eq!(world.images.list().unwrap().len(), 2);
    let done = world.images.remove(&digest.to_string()[..12], &BTreeSet::new()).unwrap();
    assert_eq!((done.images, done.layers), (1, 1));
    assert_eq!(world.kept(), [1, 1, 0]);
    assert_eq!(world.images.hold(digest).unwrap_err().code(), "BP-IMAGE-002");
    assert_eq!(world.images.find("nothing").unwrap_err().code(), "BP-IMAGE-002");
}

/// Kills a pull at many moments: what has a name is whole, and the next pull succeeds.
#[tokio::test]
async fn a_killed_pull_leaves_nothing_half() {
    const KILLS: u64 = 12;
    let world = World::new();
    let made = image(&[(busybox(), Packed::Gzip), two_layers().remove(0)], json!({}));
    let dir = made.layout(&world.path().join("layout"));
    let source = format!("oci:{}", dir.display());
    let mut cut = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(HARNESS)
            .args(["pull", world.home().to_str().unwrap(), &source])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let handle = rustix::process::pidfd_open(
            rustix::process::Pid::from_child(&child),
            rustix::process::PidfdFlags::empty(),
        )
        .unwrap();
        let mut wait = [rustix::event::PollFd::new(&handle, rustix::event::PollFlags::IN)];
        let span = rustix::event::Timespec { tv_sec: 0, tv_nsec: (kill * 9_000_000) as i64 };
        rustix::event::poll(&mut wait, Some(&span)).unwrap();
        child.kill().unwrap();
        cut += usize::from(!child.wait().unwrap().success());
        for name in std::fs::read_dir(world.home().join("images/layers")).into_iter().flatten() {
            let layer = name.unwrap().path();
            assert!(layer.join("meta.json").is_file(), "{}", layer.display());
        }
    }
    assert!(cut > 0, "some were killed before they were done");
    let held = world.pull("oci:layout").await.unwrap();
    let program = held.root.layers[1].join("bin/busybox");
    assert_eq!(std::fs::read(program).unwrap(), std::fs::read("/usr/bin/busybox").unwrap());
    world.images.collect(&BTreeSet::new()).unwrap();
    assert_eq!(world.kept(), [2, 1, 0], "what was half there is gone");
}
