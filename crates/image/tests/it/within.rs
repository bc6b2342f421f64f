//! An image as a sandbox's root: what is there, what may be done, what must not.

use crate::making::{Packed, Thing, busybox, image, layer};
use crate::support::{HARNESS, World};
use image::Held;
use sandbox::layers::{LayerStore, Upper};
use sandbox::*;
use serde_json::json;
use std::path::Path;
use types::Coded;

struct Inside {
    spawner: Spawner,
    id: SandboxId,
    _store: LayerStore,
    _upper: Upper,
    _held: Held,
}

impl Inside {
    async fn new(world: &World, held: Held, rules: FsRules) -> Result<Self, SandboxError> {
        let store = LayerStore::open(&world.home()).unwrap();
        let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default()).await.unwrap();
        let workspace = world.path().join("w");
        std::fs::create_dir_all(workspace.join("open")).unwrap();
        std::fs::write(workspace.join("secret"), "of the workspace").unwrap();
        let base = store.import(&workspace, 1 << 20).unwrap().layer;
        let upper = store.begin(&base).unwrap();
        let root = Some(held.root.clone());
        let spec = CreateSpec { root, rules, ..CreateSpec::new(upper.overlay()) };
        let id = spawner.create(spec).await?.id;
        Ok(Self { spawner, id, _store: store, _upper: upper, _held: held })
    }

    async fn shell(&self, command: &str) -> String {
        let running = self.spawner.exec(&self.id, ExecSpec::shell(command)).await.unwrap();
        let done = running.finish().await.unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    }
}

fn settings() -> serde_json::Value {
    json!({"Env": ["PATH=/bin:/opt/bin", "GREETING=hello", "HOME=/root", "LANG=xx"]})
}

#[tokio::test]
async fn a_program_sees_the_image_and_its_workspace() {
    let world = World::new();
    let upper = layer(&[
        Thing::File(".wh.gone", b"", 0o644),
        Thing::File("dir/.wh..wh..opq", b"", 0o644),
        Thing::File("dir/new", b"new\n", 0o644),
        Thing::Dir("merged"),
        Thing::File("merged/b", b"b\n", 0o644),
    ]);
    let middle = layer(&[
        Thing::File("gone", b"hidden\n", 0o644),
        Thing::Dir("dir"),
        Thing::File("dir/old", b"hidden\n", 0o644),
        Thing::Dir("merged"),
        Thing::File("merged/a", b"a\n", 0o644),
    ]);
    let layers = [(busybox(), Packed::Gzip), (middle, Packed::Plain), (upper, Packed::Zstd)];
    image(&layers, settings()).layout(&world.path().join("layout"));
    let held = world.pull("oci:layout").await.unwrap();
    let inside = Inside::new(&world, held, FsRules::default()).await.unwrap();
    let same = async |command: &str, expected: &str| {
        assert_eq!(inside.shell(command).await, expected, "{command}");
    };
    same("cat /etc/os-release", "ID=test\n").await;
    same("cat /secret-of-root", "read\n").await;
    same("id -u; id -un; pwd", "1000\nagent\n/workspace\n").await;
    same("echo $PATH $GREETING $HOME $LANG", "/bin:/opt/bin hello /home/agent xx\n").await;
    same(
        "ls /dir /merged; ls /gone 2>/dev/null || echo none",
        "/dir:\nnew\n\n/merged:\na\nb\nnone\n",
    )
    .await;
    same("cat secret; echo x > f; cat f", "of the workspacex\n").await;
    same("echo ok > /tmp/t; cat /tmp/t; echo ok > ~/h; cat ~/h; cat /dev/null", "ok\nok\n").await;
    // Nothing of the host, nothing to write to.
    same("ls /usr", "").await;
    for path in ["/x", "/etc/x", "/bin/busybox", "/usr/x", "/dev/x", "/sys/x"] {
        let said = inside.shell(&format!("touch {path} && echo WRITTEN")).await;
        assert!(said.contains("touch: ") && !said.contains("WRITTEN"), "{path}: {said}");
    }
    inside.spawner.close().await;
}

/// Links in the places where mounts go, and files where directories must be.
#[tokio::test]
async fn an_image_cannot_lead_a_mount_astray() {
    let world = World::new();
    let places = ["dev", "proc", "sys", "tmp", "run", "home", "mnt", "workspace", "memory", "usr"];
    let mut things: Vec<Thing<'_>> =
        places.iter().map(|place| Thing::Symlink(place, "/bin")).collect();
    things.push(Thing::File("var", b"", 0o644));
    let links = layer(&things);
    let etc = layer(&[Thing::Symlink("etc", "../../../../etc")]);
    let layers = [(busybox(), Packed::Gzip), (links, Packed::Plain), (etc, Packed::Plain)];
    image(&layers, settings()).layout(&world.path().join("layout"));
    let held = world.pull("oci:layout").await.unwrap();
    let inside = Inside::new(&world, held, FsRules::default()).await.unwrap();
    let said = inside.shell("for d in /dev /proc /sys /tmp /run /home /mnt /etc; do [ -d $d -a ! -h $d ] && echo $d; done").await;
    assert_eq!(said, "/dev\n/proc\n/sys\n/tmp\n/run\n/home\n/mnt\n/etc\n");
    assert_eq!(
        inside.shell("cat /etc/passwd | busybox head -n 2 | busybox tail -n 1").await,
        "agent:x:1000:1000:agent:/home/agent:/bin/sh\n"
    );
    assert_eq!(
        inside.shell("ls /bin | busybox grep -c x; ls -A /sys").await,
        "1\n.denied\n.denied-file\n"
    );
    inside.spawner.close().await;
}

#[tokio::test]
async fn path_rules_hold_over_an_image() {
    let world = World::new();
    let tricks = layer(&[Thing::Symlink("way", "/workspace"), Thing::File("opt/x", b"x\n", 0o644)]);
    let layers = [(busybox(), Packed::Gzip), (tricks, Packed::Plain)];
    image(&layers, settings()).layout(&world.path().join("layout"));
    let held = world.pull("oci:layout").await.unwrap();
    let rules = FsRules {
        read: Some(vec!["/workspace/open".into()]),
        write: Some(vec!["/workspace/open".into()]),
        ..FsRules::default()
    };
    let inside = Inside::new(&world, held, rules).await.unwrap();
    assert_eq!(inside.shell("cat /opt/x; echo y > open/y; cat open/y").await, "x\ny\n");
    for path in ["secret", "/workspace/secret", "/way/secret"] {
        let said = inside.shell(&format!("cat {path}")).await;
        assert!(said.contains("Permission denied"), "{path}: {said}");
    }
    inside.spawner.close().await;
}

#[tokio::test]
async fn a_root_has_limits_at_their_edge() {
    let world = World::new();
    image(&[(busybox(), Packed::Gzip)], settings()).layout(&world.path().join("layout"));
    let one = world.pull("oci:layout").await.unwrap();
    let layer = one.root.layers[0].clone();
    let store = LayerStore::open(&world.home()).unwrap();
    let upper = store.begin(&store.empty().unwrap()).unwrap();
    let spec = |root: Root| CreateSpec { root: Some(root), ..CreateSpec::new(upper.overlay()) };
    let check = |root: Root| spec(root).check().map_err(|error| error.code());
    let layers = |count| Root { layers: vec![layer.clone(); count], env: Vec::new() };
    assert_eq!(check(layers(IMAGE_LAYERS_MAX)), Ok(()));
    assert_eq!(check(layers(IMAGE_LAYERS_MAX + 1)), Err("BP-SANDBOX-010"));
    assert_eq!(check(layers(0)), Err("BP-SANDBOX-024"));
    let variables = |count: usize, bytes: usize| Root {
        env: vec![("A".into(), "x".repeat(bytes - 1)); count],
        ..layers(1)
    };
    assert_eq!(check(variables(IMAGE_VARIABLES_MAX, 8)), Ok(()));
    assert_eq!(check(variables(IMAGE_VARIABLES_MAX + 1, 8)), Err("BP-SANDBOX-010"));
    assert_eq!(check(variables(1, IMAGE_VARIABLES_BYTES_MAX)), Ok(()));
    assert_eq!(check(variables(1, IMAGE_VARIABLES_BYTES_MAX + 1)), Err("BP-SANDBOX-010"));
    assert_eq!(check(Root { layers: vec!["relative".into()], env: vec![] }), Err("BP-SANDBOX-024"));
}

/// As many layers as there may be, in one mount.
#[tokio::test]
async fn the_deepest_image_can_be_mounted() {
    let world = World::new();
    let mut layers = vec![(busybox(), Packed::Gzip)];
    for number in 1..IMAGE_LAYERS_MAX {
        let name: &str = Box::leak(format!("n{number}").into_boxed_str());
        layers.push((layer(&[Thing::File(name, b"", 0o644)]), Packed::Plain));
    }
    image(&layers, settings()).layout(&world.path().join("layout"));
    let held = world.pull("oci:layout").await.unwrap();
    let inside = Inside::new(&world, held, FsRules::default()).await.unwrap();
    assert_eq!(inside.shell("ls -d /n* | busybox wc -l").await, format!("{}\n", layers.len() - 1));
    inside.spawner.close().await;
}
