//! Images on the command line: brought, listed, run in, pinned by a run, kept as long as it needs
//! them.

use crate::support::World;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use types::Digest;

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Digest::of(bytes))
}

/// A layout of one image: busybox, and a file that says which version it is.
fn layout(world: &World, name: &str, version: &str) -> String {
    let tree = world.path().join(format!("tree-{version}"));
    std::fs::create_dir_all(tree.join("bin")).expect("made");
    std::fs::create_dir_all(tree.join("srv")).expect("made");
    std::fs::copy("/usr/bin/busybox", tree.join("bin/busybox")).expect("busybox-static is there");
    for program in ["sh", "cat", "echo", "pwd", "env"] {
        std::os::unix::fs::symlink("busybox", tree.join("bin").join(program)).expect("linked");
    }
    std::fs::write(tree.join("version"), format!("{version}\n")).expect("written");
    let tar = Command::new("tar").args(["-C"]).arg(&tree).args(["-cf", "-", "."]).output();
    let tar = tar.expect("tar runs").stdout;
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "os": "linux", "architecture": architecture,
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
        "config": {"Env": ["PATH=/bin", "FROM=image"], "Entrypoint": ["/bin/sh", "-c"],
                   "Cmd": ["pwd; cat /version"], "WorkingDir": "/srv", "User": "root"},
    })
    .to_string();
    let entry = |media: &str, bytes: &[u8]| json!({"mediaType": media, "digest": digest(bytes), "size": bytes.len()});
    let manifest = json!({
        "schemaVersion": 2,
        "config": entry("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [entry("application/vnd.oci.image.layer.v1.tar", &tar)],
    })
    .to_string();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [entry("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes())],
    });
    let dir = world.project().join(name);
    let blobs = dir.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).expect("made");
    for bytes in [tar.as_slice(), config.as_bytes(), manifest.as_bytes()] {
        std::fs::write(blobs.join(Digest::of(bytes).to_string()), bytes).expect("written");
    }
    std::fs::write(dir.join("index.json"), index.to_string()).expect("written");
    std::fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("written");
    digest(manifest.as_bytes())
}

fn layers(home: &Path) -> usize {
    std::fs::read_dir(home.join("images/layers")).map_or(0, Iterator::count)
}

#[test]
fn an_image_is_pulled_listed_shown_and_removed() {
    let world = World::new();
    let expected = layout(&world, "layout", "1");
    assert_eq!(world.run(&["image", "ls", "--json"]).exits(0).json(), json!({"images": []}));
    let pulled = world.run(&["image", "pull", "oci:layout"]).exits(0);
    assert_eq!(pulled.stdout.trim(), expected);
    let list = world.run(&["image", "ls", "--json"]).exits(0).json();
    assert_eq!(list["images"][0]["digest"], json!(expected));
    let shown = world.run(&["image", "show", "oci:layout", "--json"]).exits(0).json();
    assert_eq!(shown["entrypoint"], json!(["/bin/sh", "-c"]));
    assert_eq!(shown["user"], json!("root"));
    let said = world.run(&["image", "show", &expected]).exits(0).stdout;
    assert!(said.contains("workdir     /srv") && said.contains("env         FROM=image"), "{said}");
    world.run(&["image", "rm", "oci:layout"]).exits(0);
    assert_eq!(layers(&world.home()), 0);
    world.run(&["image", "show", &expected]).fails(2, "BP-IMAGE-002");
    world.run(&["image", "pull", "debian"]).fails(2, "BP-IMAGE-001");
    world.run(&["image", "pull", "oci:none"]).fails(2, "BP-IMAGE-003");
}

#[test]
fn a_command_runs_in_an_image() {
    let world = World::new();
    layout(&world, "layout", "1");
    world.write("w/a.txt", "mine\n");
    let script = "pwd; cat /version a.txt; echo $FROM $HOME; echo x > a.txt";
    let said = world
        .run(&[
            "sandbox",
            "run",
            "--image",
            "oci:layout",
            "--workspace",
            "w",
            "--",
            "sh",
            "-c",
            script,
        ])
        .exits(0);
    assert_eq!(said.stdout, "/workspace\n1\nmine\nimage /home/agent\n");
    assert_eq!(world.read("w/a.txt"), "mine\n");
    let own = world.run(&["sandbox", "run", "--image", "oci:layout"]).exits(0);
    assert_eq!(own.stdout, "/srv\n1\n", "its own command, where it wants it");
    let command = |command: &str| {
        world.run(&["sandbox", "run", "--image", "oci:layout", "--", "sh", "-c", command])
    };
    command("exit 7").exits(7);
    command("echo x > /version").exits(1);
    world
        .run(&["sandbox", "run", "--image", "oci:layout", "--", "python3"])
        .fails(127, "BP-SANDBOX-017");
    world.run(&["sandbox", "run"]).fails(2, "BP-CLI-001");
    world.run(&["sandbox", "run", "--image", "host"]).fails(2, "BP-CLI-001");
    let blobs = world.project().join("layout/blobs/sha256");
    for blob in std::fs::read_dir(blobs).expect("listed").flatten() {
        std::fs::write(blob.path(), "changed").expect("written");
    }
    world.run(&["sandbox", "run", "--image", "oci:layout", "--", "sh"]).fails(125, "BP-IMAGE-004");
    world.run(&["image", "pull", "oci:layout"]).fails(1, "BP-IMAGE-004");
}

/// What a run began with stays its image, whatever its name means later, and is kept for it.
#[test]
fn a_run_keeps_the_image_it_began_with() {
    let world = World::new();
    let first = layout(&world, "layout", "1");
    world.agent(
        "[permissions]\nallow = [\"shell\"]\n[sandbox]\nimage = \"oci:layout\"\n",
        "[[turn]]\ntool = \"shell\"\narguments = { command = \"cat /version; echo $FROM\" }\n\
         [[turn]]\ntext = \"one\"\n\
         [[turn]]\ntool = \"shell\"\narguments = { command = \"cat /version\" }\n\
         [[turn]]\ntext = \"two\"\n",
    );
    let run = world.run(&["run", "--json"]).exits(0).json();
    assert_eq!(run["status"], json!("done"));
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    let pinned = |shown: &Value| {
        let found = shown.to_string();
        found.contains(first.strip_prefix("sha256:").expect("a digest"))
    };
    assert!(pinned(&shown), "the digest is in the log");
    let said = world.run(&["show", "last"]).exits(0).stdout;
    assert!(said.contains("image oci:layout (sha256:"), "{said}");
    assert!(world.run(&["logs", "last"]).exits(0).stdout.contains("1\nimage\n"));
    // The layout becomes another image, and the first one loses its name.
    std::fs::remove_dir_all(world.project().join("layout")).expect("removed");
    let second = layout(&world, "layout", "2");
    assert_ne!(first, second);
    world.run(&["image", "rm", "oci:layout"]).exits(0);
    assert_eq!(layers(&world.home()), 1, "the run needs it");
    world.run(&["send", "last", "again"]).exits(0);
    let logs = world.run(&["logs", "last"]).exits(0).stdout;
    assert!(logs.matches("1\n").count() >= 2 && !logs.contains("2\n"), "{logs}");
    world.run(&["rm", "last"]).exits(0);
    assert_eq!(layers(&world.home()), 0, "nobody needs it");
}

/// A fork stands on what its origin stood on, and both keep it.
#[test]
fn a_fork_stands_on_its_origin_s_image() {
    let world = World::new();
    layout(&world, "layout", "1");
    world.agent(
        "[permissions]\nallow = [\"shell\"]\n[sandbox]\nimage = \"oci:layout\"\n",
        "[[turn]]\ntool = \"shell\"\narguments = { command = \"cat /version\" }\n\
         [[turn]]\ntext = \"done\"\n",
    );
    let run = world.run(&["run", "--json"]).exits(0).json();
    let origin = run["run"].as_str().expect("an id").to_owned();
    let opening = world.run(&["show", &origin, "--json"]).exits(0).json();
    let records = opening["records"].as_array().expect("records");
    let said = records.iter().position(|record| record["kind"] == "item_added").expect("said");
    let fork = world.run(&["fork", &format!("{origin}@{}", said + 1)]).exits(0).stdout;
    let fork = fork.trim();
    // The name means another image by now, and then none.
    std::fs::remove_dir_all(world.project().join("layout")).expect("removed");
    layout(&world, "layout", "2");
    world.run(&["image", "rm", "oci:layout"]).exits(0);
    world.run(&["gc"]).exits(0);
    assert_eq!(layers(&world.home()), 1, "both need it");
    world.run(&["resume", fork]).exits(0);
    let logs = world.run(&["logs", fork]).exits(0).stdout;
    assert!(logs.contains("1\n") && !logs.contains("2\n"), "{logs}");
    world.run(&["rm", fork]).exits(0);
    assert_eq!(layers(&world.home()), 1, "the origin needs it");
    world.run(&["rm", &origin]).exits(0);
    world.run(&["gc"]).exits(0);
    assert_eq!(layers(&world.home()), 0, "nobody needs it");
}

#[test]
fn a_run_whose_image_is_refused_does_not_begin() {
    let world = World::new();
    layout(&world, "layout", "1");
    std::fs::write(world.project().join("layout/index.json"), "{").expect("written");
    let more = "[permissions]\nallow = [\"shell\"]\n[sandbox]\nimage = \"oci:layout\"\n";
    world.agent(more, "[[turn]]\ntext = \"never\"\n");
    world.run(&["run"]).fails(1, "BP-IMAGE-006");
    assert_eq!(world.run(&["ps", "--json"]).exits(0).json(), json!({"runs": []}));
    world.agent("[sandbox]\nimage = \"debian:12\"\n", "[[turn]]\ntext = \"never\"\n");
    let said = world.run(&["run"]).exits(2);
    assert!(said.stderr.contains("docker.io/library/debian:12"), "{}", said.stderr);
}
