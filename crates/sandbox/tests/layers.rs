//! Layers, written through real sandboxes: sealing, comparing, rolling back, crashing.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use sandbox::layers::{Change, ChangeKind, LayerStore, SQUASH_DEPTH, Sealed};
use sandbox::*;
use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use types::{Coded, LayerId};

const HARNESS: &str = env!("CARGO_BIN_EXE_sandbox-harness");
const IMPORT_BYTES_MAX: u64 = 1 << 20;

struct World {
    _home: tempfile::TempDir,
    store: LayerStore,
    spawner: Spawner,
    sandbox: SandboxId,
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = LayerStore::open(home.path()).unwrap();
        let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default()).await.unwrap();
        let upper = store.begin(&store.empty().unwrap()).unwrap();
        let sandbox = spawner.create(CreateSpec::new(upper.overlay())).await.unwrap().id;
        store.discard(upper).unwrap();
        Self { _home: home, store, spawner, sandbox }
    }

    /// Runs a shell command on a new upper over `layer`; the layer it becomes.
    async fn step(&self, layer: &LayerId, command: &str) -> Option<LayerId> {
        let upper = self.store.begin(layer).unwrap();
        let spec = ExecSpec { trees: Some(upper.overlay().into()), ..ExecSpec::shell(command) };
        let done = self.spawner.exec(&self.sandbox, spec).await.unwrap().finish().await.unwrap();
        let errors = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.exit.ended, Ended::Code(0), "{command}: {errors}");
        match self.store.seal(upper).unwrap() {
            Sealed::Layer { layer, .. } => Some(layer),
            Sealed::Unchanged(upper) => {
                self.store.discard(upper).unwrap();
                None
            }
        }
    }

    async fn output(&self, layer: &LayerId, command: &str) -> String {
        let upper = self.store.begin(layer).unwrap();
        let spec = ExecSpec { trees: Some(upper.overlay().into()), ..ExecSpec::shell(command) };
        let done = self.spawner.exec(&self.sandbox, spec).await.unwrap().finish().await.unwrap();
        self.store.discard(upper).unwrap();
        String::from_utf8(done.stdout).unwrap()
    }

    fn diff(&self, from: &LayerId, to: &LayerId) -> Vec<String> {
        lines(&self.store.changes(from, to).unwrap())
    }
}

fn lines(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match &change.kind {
            ChangeKind::Renamed { from } => format!("R {from} {}", change.path),
            kind => format!("{} {}", kind.letter(), change.path),
        })
        .collect()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

const START: &str = "mkdir -p a/b; echo one > a/one; echo two > a/b/two; echo x > x; ln -s a/one l; \
                     printf '#!/bin/sh\\n' > run; echo keep > keep; mkdir e";

#[tokio::test]
async fn changes_are_told_apart() {
    let world = World::new().await;
    let base = world.step(&world.store.empty().unwrap(), START).await.unwrap();
    let check = async |command: &str, expected: &[&str]| {
        let found = match world.step(&base, command).await {
            Some(layer) => {
                let back: Vec<String> = world.diff(&layer, &base);
                assert_eq!(back.len(), expected.len(), "and back: {back:?}");
                world.diff(&base, &layer)
            }
            None => Vec::new(),
        };
        assert_eq!(found, expected, "{command}");
    };
    check("true", &[]).await;
    check("cat a/one l", &[]).await;
    check("touch a/one", &[]).await;
    check("cp x y; cat y > x; rm y", &[]).await;
    check("echo one > a/one", &[]).await;
    check("echo uno > a/one", &["M a/one"]).await;
    check("echo new > a/b/new", &["A a/b/new"]).await;
    check("rm x", &["D x"]).await;
    check("rm -r a", &["D a", "D a/b", "D a/b/two", "D a/one"]).await;
    check("rm -r a; mkdir a", &["D a/b", "D a/b/two", "D a/one"]).await;
    check("rm -r a; echo f > a", &["M a", "D a/b", "D a/b/two", "D a/one"]).await;
    check("rm x; mkdir x; echo in > x/in", &["M x", "A x/in"]).await;
    check("chmod +x run", &["P run"]).await;
    check("chmod 700 a/b", &["P a/b"]).await;
    check("ln -sf keep l", &["M l"]).await;
    check("rm l; ln -s a/one l", &[]).await;
    check("rmdir e; mkdir e", &[]).await;
    check("mkdir n; mkfifo n/p", &["A n", "A n/p"]).await;
    check("mv x z", &["R x z"]).await;
    check("chmod 711 .", &["P "]).await;
    world.spawner.close().await;
}

#[tokio::test]
async fn renaming_a_lower_directory_works_as_root_and_copies_as_user() {
    let world = World::new().await;
    let base = world.step(&world.store.empty().unwrap(), START).await.unwrap();
    // rename(2) itself, without mv's way out.
    let rename = "python3 -c 'import os; os.rename(\"a\", \"moved\")' 2>&1 | tail -1";
    let upper = world.store.begin(&base).unwrap();
    let spec = ExecSpec { trees: Some(upper.overlay().into()), ..ExecSpec::shell(rename) };
    let done = world.spawner.exec(&world.sandbox, spec).await.unwrap().finish().await.unwrap();
    world.store.discard(upper).unwrap();
    let said = String::from_utf8(done.stdout).unwrap();
    assert_eq!(said.contains("Invalid cross-device link"), !is_root(), "{said}");
    let moved = world.step(&base, "mv a moved; echo more > moved/more").await.unwrap();
    let again =
        world.step(&moved, "mkdir deep; mv moved deep/er; echo 2 > deep/er/one").await.unwrap();
    assert_eq!(
        world.output(&again, "cat deep/er/one deep/er/b/two deep/er/more").await,
        "2\ntwo\nmore\n"
    );
    assert_eq!(
        world.diff(&base, &moved),
        [
            "D a",
            "D a/b",
            "A moved",
            "A moved/b",
            "R a/b/two moved/b/two",
            "A moved/more",
            "R a/one moved/one"
        ]
    );
    let files: Vec<String> =
        world.store.list_files(&again).unwrap().into_iter().map(|f| f.path).collect();
    assert_eq!(
        files,
        [
            "deep",
            "deep/er",
            "deep/er/b",
            "deep/er/b/two",
            "deep/er/more",
            "deep/er/one",
            "e",
            "keep",
            "l",
            "run",
            "x"
        ]
    );
    let mut text = String::new();
    world.store.open_file(&again, "deep/er/b/two").unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "two\n");
    world.spawner.close().await;
}

#[tokio::test]
async fn hard_links_of_a_lower_layer_stay_one_file_as_root_only() {
    let world = World::new().await;
    let base = world.step(&world.store.empty().unwrap(), "echo 1 > a; ln a b").await.unwrap();
    let said = world.output(&base, "echo 2 > a; cat b").await;
    assert_eq!(said, if is_root() { "2\n" } else { "1\n" });
    // A layer says what the program saw, and a name in a directory of its own too.
    let base = world.step(&base, "mkdir -p d/e; ln a d/e/c; chmod 711 d/e").await.unwrap();
    let next = world.step(&base, "echo 3 > a; cat b d/e/c >&2").await.unwrap();
    let expected = if is_root() { "3\n3\n711\n" } else { "1\n1\n711\n" };
    assert_eq!(world.output(&next, "cat b d/e/c; stat -c %a d/e").await, expected);
    let all: &[&str] = if is_root() { &["M a", "M b", "M d/e/c"] } else { &["M a"] };
    assert_eq!(world.diff(&base, &next), all);
    world.spawner.close().await;
}

#[tokio::test]
async fn rollback_is_a_new_upper_on_an_older_layer() {
    let world = World::new().await;
    let one = world.step(&world.store.empty().unwrap(), "echo 1 > f").await.unwrap();
    let two = world.step(&one, "echo 2 > f").await.unwrap();
    let other = world.step(&one, "echo 3 > f; rm -f g").await.unwrap();
    assert_eq!(world.output(&two, "cat f").await, "2\n");
    assert_eq!(world.output(&one, "cat f").await, "1\n");
    assert_eq!(world.diff(&two, &other), ["M f"]);
    assert_eq!(world.store.parent(&two).unwrap(), Some(one));
    world.spawner.close().await;
}

#[tokio::test]
async fn deep_stacks_are_flattened_and_read_the_same() {
    let world = World::new().await;
    let mut layer = world.step(&world.store.empty().unwrap(), START).await.unwrap();
    let first = layer.clone();
    for number in 0..SQUASH_DEPTH + 3 {
        let command = format!(
            "echo {number} > n{number}; rm -f n{}; echo {number} > last",
            number.wrapping_sub(2)
        );
        layer = world.step(&layer, &command).await.unwrap();
    }
    let depth = world.store.stack(&layer).unwrap().len();
    assert!(depth < SQUASH_DEPTH, "{depth}");
    let last = SQUASH_DEPTH + 2;
    let expected = format!("a e keep l last n{} n{last} run x\n{last}\none\n", last - 1);
    assert_eq!(world.output(&layer, "echo *; cat last; cat l").await, expected);
    assert_eq!(
        world.diff(&first, &layer),
        ["A last".to_owned(), format!("A n{}", last - 1), format!("A n{last}")]
    );
    world.spawner.close().await;
}

#[tokio::test]
async fn an_import_keeps_what_can_be_kept() {
    let world = World::new().await;
    let host = tempfile::tempdir().unwrap();
    let dir = host.path();
    std::fs::create_dir(dir.join("sub")).unwrap();
    std::fs::write(dir.join("sub/run"), "#!/bin/sh\necho ran\n").unwrap();
    std::fs::set_permissions(dir.join("sub/run"), std::fs::Permissions::from_mode(0o4755)).unwrap();
    std::fs::write(dir.join("plain"), "text").unwrap();
    std::fs::hard_link(dir.join("plain"), dir.join("twin")).unwrap();
    symlink("/etc/shadow", dir.join("out")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.join("sock")).unwrap();
    let imported = world.store.import(dir, IMPORT_BYTES_MAX).unwrap();
    assert_eq!((imported.entries, imported.skipped), (5, vec!["sock".to_owned()]));
    let tree = world.store.stack(&imported.layer).unwrap().remove(0);
    let (old, new) =
        (dir.join("plain").metadata().unwrap(), tree.join("plain").metadata().unwrap());
    assert_eq!((old.mtime(), old.mtime_nsec()), (new.mtime(), new.mtime_nsec()));
    assert_eq!(new.nlink(), 1);
    assert_eq!(tree.join("sub/run").metadata().unwrap().mode() & 0o7777, 0o755);
    assert_eq!(new.uid(), if is_root() { HOST_ID_AS_ROOT } else { old.uid() });
    let said = world
        .output(&imported.layer, "sub/run; cat plain; echo >> twin && echo wrote; cat out 2>&1")
        .await;
    assert!(said.starts_with("ran\ntextwrote\n"), "{said}");
    assert!(!said.contains("root:"), "{said}");
    // The link leads nowhere for us either.
    let error = world.store.open_file(&imported.layer, "out").unwrap_err();
    assert_eq!(error.code(), "BP-SANDBOX-020");
    for bad in ["../plain", "/etc/passwd", "sub/../plain", "nothing", "out/x"] {
        let error = world.store.open_file(&imported.layer, bad).unwrap_err();
        assert_eq!(error.code(), "BP-SANDBOX-019", "{bad}");
    }
    // The host's copy did not change.
    assert_eq!(std::fs::read(dir.join("twin")).unwrap(), b"text");
    world.spawner.close().await;
}

#[test]
fn a_link_above_a_file_is_never_followed_by_the_host() {
    let home = tempfile::tempdir().unwrap();
    let store = LayerStore::open(&home.path().join("home")).unwrap();
    let host = tempfile::tempdir().unwrap();
    symlink("/etc", host.path().join("etc")).unwrap();
    let layer = store.import(host.path(), IMPORT_BYTES_MAX).unwrap().layer;
    assert_eq!(store.open_file(&layer, "etc/passwd").unwrap_err().code(), "BP-SANDBOX-019");
}

#[test]
fn an_import_has_a_limit_at_its_edge_and_leaves_nothing_past_it() {
    let home = tempfile::tempdir().unwrap();
    let store = LayerStore::open(home.path()).unwrap();
    let host = tempfile::tempdir().unwrap();
    std::fs::write(host.path().join("f"), [0; 1000]).unwrap();
    assert!(store.import(host.path(), 1000).is_ok());
    assert_eq!(store.import(host.path(), 999).unwrap_err().code(), "BP-SANDBOX-013");
    assert_eq!(std::fs::read_dir(home.path().join("uppers")).unwrap().count(), 0);
    let missing = store.import(&host.path().join("no"), 1000).unwrap_err();
    assert_eq!(missing.code(), "BP-SANDBOX-016");
}

#[test]
fn layers_and_uppers_are_kept_while_needed() {
    let home = tempfile::tempdir().unwrap();
    let store = LayerStore::open(home.path()).unwrap();
    let base = store.empty().unwrap();
    let seal = |parent: &LayerId, name: &str| {
        let upper = store.begin(parent).unwrap();
        std::fs::write(upper.overlay().upper.join(name), name).unwrap();
        match store.seal(upper).unwrap() {
            Sealed::Layer { layer, changed } => {
                assert_eq!(changed, 1);
                layer
            }
            Sealed::Unchanged(_) => panic!("it changed"),
        }
    };
    let one = seal(&base, "1");
    let two = seal(&one, "2");
    let dropped = seal(&one, "3");
    let busy = seal(&base, "4");
    let held = store.begin(&busy).unwrap();
    assert_eq!(store.remove_unreferenced(&BTreeSet::from([two.clone()])).unwrap(), 1);
    assert_eq!(store.stack(&two).unwrap().len(), 3);
    assert!(store.stack(&busy).is_ok());
    assert_eq!(store.stack(&dropped).unwrap_err().code(), "BP-SANDBOX-014");
    // A held upper is not reaped, one whose holder is gone is; a half-made one too.
    let gone = store.begin(&two).unwrap();
    drop(gone);
    std::fs::create_dir(home.path().join("uppers/new-half")).unwrap();
    assert_eq!(store.reap_uppers().unwrap(), 2);
    assert!(held.overlay().upper.is_dir());
    store.discard(held).unwrap();
    assert_eq!(store.reap_uppers().unwrap(), 0);
}

#[test]
fn an_unflushed_layer_does_not_survive_a_restart_of_the_machine() {
    let home = tempfile::tempdir().unwrap();
    let store = LayerStore::open(home.path()).unwrap();
    let (kept, lost) = (store.empty().unwrap(), store.empty().unwrap());
    store.flush(&kept).unwrap();
    assert!(store.is_flushed(&kept) && !store.is_flushed(&lost));
    for layer in [&kept, &lost] {
        // As if both had been sealed in an earlier boot.
        let meta = home.path().join("layers").join(layer.as_str()).join("meta.json");
        let text = std::fs::read_to_string(&meta).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        std::fs::write(&meta, text.replace(boot.trim(), "another")).unwrap();
    }
    assert!(store.stack(&kept).is_ok());
    let error = store.stack(&lost).unwrap_err();
    assert_eq!(error.code(), "BP-SANDBOX-014");
    assert!(error.to_string().contains("never flushed"), "{error}");
}

#[tokio::test]
async fn shut_directories_are_sealed_compared_and_removed() {
    let world = World::new().await;
    let base = world.store.empty().unwrap();
    let shut =
        world.step(&base, "mkdir -p s/t; echo 1 > s/t/f; chmod 0 s/t/f s/t s").await.unwrap();
    assert_eq!(world.diff(&base, &shut), ["A s", "A s/t", "A s/t/f"]);
    world.store.flush(&shut).unwrap();
    let opened =
        world.step(&shut, "chmod 755 s s/t; chmod 644 s/t/f; echo 22 > s/t/f").await.unwrap();
    assert_eq!(world.diff(&shut, &opened), ["P s", "P s/t", "M s/t/f"]);
    assert_eq!(world.store.remove_unreferenced(&BTreeSet::new()).unwrap(), 4);
    world.spawner.close().await;
}

#[tokio::test]
async fn a_step_that_only_dates_or_marks_a_file_is_kept() {
    let world = World::new().await;
    let base = world.step(&world.store.empty().unwrap(), START).await.unwrap();
    let check = async |command: &str, look: &str, expected: &str| {
        let layer = world.step(&base, command).await.expect("it left a trace");
        assert_eq!(world.output(&layer, look).await, expected, "{command}");
        assert!(world.diff(&base, &layer).is_empty(), "nothing else changed");
    };
    check("touch -d @7 a/one", "stat -c %Y a/one", "7\n").await;
    check("touch -h -d @7 l", "stat -c %Y l", "7\n").await;
    let set = "python3 -c 'import os; os.setxattr(\"e\", \"user.a\", b\"1\")'";
    check(set, "python3 -c 'import os; print(os.getxattr(\"e\", \"user.a\"))'", "b'1'\n").await;
    // What is made and removed again leaves none.
    assert_eq!(world.step(&base, "touch a/b/n; rm a/b/n; touch e").await, None);
    world.spawner.close().await;
}

#[tokio::test]
async fn another_special_file_is_a_change() {
    let world = World::new().await;
    let base = world.step(&world.store.empty().unwrap(), "mkfifo p").await.unwrap();
    let socket = "rm p; python3 -c 'import os; os.mknod(\"p\", 0o140644)'";
    let next = world.step(&base, socket).await.unwrap();
    assert_eq!(world.diff(&base, &next), ["M p"]);
    world.spawner.close().await;
}

#[tokio::test]
async fn flattening_keeps_what_directories_carry_and_enters_those_that_are_shut() {
    let world = World::new().await;
    let made = "mkdir d s; echo 1 > s/f; chmod 2755 d; chmod 0 s; touch -d @7 d
                python3 -c 'import os; os.setxattr(\"d\", \"user.a\", b\"1\")'; touch -d @7 d";
    let mut layer = world.step(&world.store.empty().unwrap(), made).await.unwrap();
    for number in 0..SQUASH_DEPTH {
        layer = world.step(&layer, &format!("echo {number} > last")).await.unwrap();
    }
    assert!(world.store.stack(&layer).unwrap().len() < SQUASH_DEPTH);
    let look = "stat -c '%a %Y' d; python3 -c 'import os; print(os.getxattr(\"d\", \"user.a\"))'
                stat -c %a s; chmod 700 s; cat s/f";
    assert_eq!(world.output(&layer, look).await, "2755 7\nb'1'\n0\n1\n");
    assert_eq!(world.store.remove_unreferenced(&BTreeSet::new()).unwrap(), SQUASH_DEPTH + 3);
    world.spawner.close().await;
}

#[tokio::test]
async fn directories_with_names_of_a_written_file_keep_their_dates() {
    let world = World::new().await;
    let made = "mkdir -p d/e; echo 1 > a; ln a d/e/b; ln a d/c; touch -d @7 d/e; touch -d @8 d";
    let base = world.step(&world.store.empty().unwrap(), made).await.unwrap();
    // One of them is in the upper already, and still keeps its date.
    let next = world.step(&base, "chmod 711 d; echo 2 > a").await.unwrap();
    assert_eq!(world.output(&next, "stat -c %Y d/e d").await, "7\n8\n");
    world.spawner.close().await;
}
