//! Path rules and file operations: one confinement for programs and for our own code.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

use sandbox::layers::{LayerStore, Upper};
use sandbox::*;
use std::path::Path;
use types::Coded;

const HARNESS: &str = env!("CARGO_BIN_EXE_sandbox-harness");

struct World {
    _home: tempfile::TempDir,
    host: tempfile::TempDir,
    spawner: Spawner,
    upper: Upper,
}

impl World {
    /// A workspace with `dir/{a,b}`, `dir/sub/secret`, `top`, `link -> dir`, `out -> /etc/passwd`.
    async fn new() -> Self {
        let (home, host) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = host.path();
        std::fs::create_dir_all(dir.join("dir/sub")).unwrap();
        for file in ["dir/a", "dir/b", "dir/sub/secret", "top"] {
            std::fs::write(dir.join(file), format!("in {file}\n")).unwrap();
        }
        std::os::unix::fs::symlink("dir", dir.join("link")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.join("out")).unwrap();
        let store = LayerStore::open(home.path()).unwrap();
        let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default()).await.unwrap();
        let upper = store.begin(&store.import(dir, 1 << 20).unwrap().layer).unwrap();
        Self { _home: home, host, spawner, upper }
    }

    async fn make(&self, rules: FsRules) -> Result<SandboxId, SandboxError> {
        let spec = CreateSpec { rules, ..CreateSpec::new(self.upper.overlay()) };
        self.spawner.create(spec).await.map(|made| made.id)
    }

    async fn shell(&self, id: &SandboxId, command: &str) -> String {
        let done =
            self.spawner.exec(id, ExecSpec::shell(command)).await.unwrap().finish().await.unwrap();
        String::from_utf8_lossy(&done.stdout).into_owned() + &String::from_utf8_lossy(&done.stderr)
    }

    async fn op(&self, id: &SandboxId, op: FileOp) -> Result<FileResult, SandboxError> {
        self.spawner.file_op(id, op, None).await
    }

    async fn read(&self, id: &SandboxId, path: &str) -> Result<String, &'static str> {
        let op = FileOp::Read {
            path: path.to_owned(),
            offset_line: 0,
            limit_lines: 0,
            max_bytes: 1 << 20,
        };
        match self.op(id, op).await {
            Ok(FileResult::Read { bytes, .. }) => Ok(String::from_utf8(bytes).unwrap()),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.code()),
        }
    }

    async fn write(&self, id: &SandboxId, path: &str, text: &str) -> Result<bool, &'static str> {
        let op = FileOp::Write { path: path.to_owned(), bytes: text.into() };
        match self.op(id, op).await {
            Ok(FileResult::Written { created, .. }) => Ok(created),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.code()),
        }
    }
}

fn list(paths: &[&str]) -> Vec<String> {
    paths.iter().map(|path| (*path).to_owned()).collect()
}

#[tokio::test]
async fn reading_counts_lines_and_keeps_to_its_bounds() {
    let world = World::new().await;
    let id = world.make(FsRules::default()).await.unwrap();
    world.write(&id, "five", "1\n2\n3\n4\n5").await.unwrap();
    let check = async |offset_line, limit_lines, max_bytes, text: &str, lines, truncated| {
        let op = FileOp::Read { path: "five".to_owned(), offset_line, limit_lines, max_bytes };
        let expected = FileResult::Read {
            bytes: text.into(),
            first_line: offset_line.max(1),
            lines,
            total_lines: 5,
            size: 9,
            truncated,
        };
        assert_eq!(world.op(&id, op).await.unwrap(), expected);
    };
    check(0, 0, 100, "1\n2\n3\n4\n5", 5, false).await;
    check(2, 2, 100, "2\n3\n", 2, true).await;
    check(5, 9, 100, "5", 1, false).await;
    check(6, 1, 100, "", 0, false).await;
    check(1, 0, 3, "1\n2", 2, true).await;
    check(1, 0, 9, "1\n2\n3\n4\n5", 5, false).await;
    check(4, 0, 0, "", 0, true).await;
    world.spawner.close().await;
}

#[tokio::test]
async fn operations_do_what_programs_do() {
    let world = World::new().await;
    let id = world.make(FsRules::default()).await.unwrap();
    assert_eq!(world.read(&id, "link/a").await.as_deref(), Ok("in dir/a\n"));
    assert_eq!(world.read(&id, "/workspace/dir/../top").await.as_deref(), Ok("in top\n"));
    assert_eq!(world.write(&id, "new/deep/file", "text").await, Ok(true));
    assert_eq!(world.write(&id, "top", "").await, Ok(false));
    assert_eq!(
        world.shell(&id, "cat new/deep/file; wc -c < top; stat -c %U new").await,
        "text0\nagent\n"
    );
    let big = "x".repeat(3 << 20);
    assert_eq!(world.write(&id, "big", &big).await, Ok(true));
    assert_eq!(world.read(&id, "big").await.map(|text| text.len()), Ok(1 << 20));
    let edit = async |old: &str, new: &str, expected_count| {
        let op = FileOp::Edit {
            path: "dir/a".to_owned(),
            old: old.to_owned(),
            new: new.to_owned(),
            expected_count,
        };
        world.op(&id, op).await.map_err(|error| error.code())
    };
    assert_eq!(edit("dir", "DIR", 1).await, Ok(FileResult::Edited { count: 1 }));
    assert_eq!(world.read(&id, "dir/a").await.as_deref(), Ok("in DIR/a\n"));
    for (old, count) in [("nothing", 1), ("i", 2), ("n", 0)] {
        assert_eq!(edit(old, "x", count).await, Err("BP-SANDBOX-022"), "{old}");
    }
    assert_eq!(edit("", "x", 1).await, Err("BP-SANDBOX-024"));
    let names = async |op| match world.op(&id, op).await.unwrap() {
        FileResult::List { entries, truncated } => {
            (entries.into_iter().map(|e| e.path).collect::<Vec<_>>(), truncated)
        }
        other => panic!("{other:?}"),
    };
    let op = |path: &str, max_entries| FileOp::List { path: path.to_owned(), max_entries };
    assert_eq!(names(op("dir", 10)).await, (list(&["a", "b", "sub"]), false));
    assert_eq!(names(op("dir", 2)).await, (list(&["a", "b"]), true));
    let op = |pattern: &str| FileOp::Glob { pattern: pattern.to_owned(), max_entries: 10 };
    assert_eq!(names(op("**/[ab]")).await, (list(&["dir/a", "dir/b"]), false));
    assert_eq!(names(op("*")).await, (list(&["big", "link", "out", "top"]), false));
    match world.op(&id, FileOp::Stat { path: "link".to_owned() }).await.unwrap() {
        FileResult::Stat(stat) => {
            assert_eq!((stat.kind, stat.path.as_str()), (FileKind::Symlink, "link"));
        }
        other => panic!("{other:?}"),
    }
    world.spawner.close().await;
}

#[tokio::test]
async fn bad_paths_are_told_apart_and_nothing_hangs() {
    let world = World::new().await;
    let id = world.make(FsRules::default()).await.unwrap();
    world.shell(&id, "mkfifo pipe; echo s > shut; chmod 0 shut; printf '\\377' > bytes").await;
    for (path, code) in [
        ("nothing", "BP-SANDBOX-019"),
        ("dir", "BP-SANDBOX-020"),
        ("pipe", "BP-SANDBOX-020"),
        ("/dev/zero", "BP-SANDBOX-020"),
        ("shut", "BP-SANDBOX-021"),
        ("top/x", "BP-SANDBOX-023"),
        ("", "BP-SANDBOX-024"),
        ("a\0b", "BP-SANDBOX-024"),
        ("/etc/shadow", "BP-SANDBOX-019"),
        ("/proc/1/environ", "BP-SANDBOX-021"),
        ("../../../../home/x", "BP-SANDBOX-019"),
    ] {
        assert_eq!(world.read(&id, path).await, Err(code), "{path}");
    }
    for (path, code) in [
        ("dir", "BP-SANDBOX-020"),
        ("pipe", "BP-SANDBOX-020"),
        ("/etc/passwd", "BP-SANDBOX-021"),
        ("/usr/x", "BP-SANDBOX-021"),
        ("/proc/self/comm", "BP-SANDBOX-021"),
        ("top/x", "BP-SANDBOX-023"),
    ] {
        assert_eq!(world.write(&id, path, "x").await, Err(code), "{path}");
    }
    let op = FileOp::Edit {
        path: "bytes".to_owned(),
        old: "a".to_owned(),
        new: String::new(),
        expected_count: 1,
    };
    assert_eq!(world.op(&id, op).await.unwrap_err().code(), "BP-SANDBOX-020");
    // A link out of the workspace leads to the sandbox's own file, never to the host's.
    assert_eq!(world.read(&id, "out").await.unwrap().lines().count(), 3);
    let op = FileOp::Write { path: "x".to_owned(), bytes: vec![0; WRITE_BYTES_MAX as usize + 1] };
    assert_eq!(world.op(&id, op).await.unwrap_err().code(), "BP-SANDBOX-010");
    world.spawner.close().await;
}

#[tokio::test]
async fn only_allowed_prefixes_can_be_read_or_written() {
    let world = World::new().await;
    let rules = FsRules {
        read: Some(list(&["/workspace/dir/a", "/workspace/dir/sub"])),
        write: Some(list(&["/workspace/dir/sub"])),
        ..FsRules::default()
    };
    let id = world.make(rules).await.unwrap();
    let said = world
        .shell(&id, "cat dir/a dir/b top dir/sub/secret 2>/dev/null; ls . dir 2>/dev/null")
        .await;
    assert_eq!(said, "in dir/a\nin dir/sub/secret\n");
    assert_eq!(
        world
            .shell(&id, "(echo x > dir/a) 2>/dev/null; echo x > dir/sub/new; cat dir/a dir/sub/new")
            .await,
        "in dir/a\nx\n"
    );
    assert_eq!(
        world
            .shell(
                &id,
                "python3 -c 'import os; os.truncate(\"dir/a\", 0)' 2>&1 | grep -c Permission"
            )
            .await,
        "1\n"
    );
    assert_eq!(world.read(&id, "dir/b").await, Err("BP-SANDBOX-021"));
    assert_eq!(world.write(&id, "dir/a", "x").await, Err("BP-SANDBOX-021"));
    assert_eq!(world.write(&id, "dir/sub/y", "x").await, Ok(true));
    assert_eq!(world.shell(&id, "mv dir/sub/y y 2>&1 | grep -cE 'denied|cross'").await, "1\n");
    world.spawner.close().await;
}

#[tokio::test]
async fn denied_paths_stay_denied_whatever_is_moved() {
    let world = World::new().await;
    let rules = FsRules {
        deny_read: list(&["/workspace/dir/sub/secret", "/workspace/absent"]),
        deny_write: list(&["/workspace/dir/a"]),
        ..FsRules::default()
    };
    let id = world.make(rules).await.unwrap();
    assert_eq!(world.read(&id, "dir/sub/secret").await, Err("BP-SANDBOX-021"));
    assert_eq!(world.write(&id, "dir/sub/secret", "x").await, Err("BP-SANDBOX-021"));
    assert_eq!(world.read(&id, "dir/a").await.as_deref(), Ok("in dir/a\n"));
    assert_eq!(world.write(&id, "dir/a", "x").await, Err("BP-SANDBOX-021"));
    let attempts = "mv dir moved; mv dir/sub moved; mv dir/sub/secret moved; ln dir/sub/secret moved; \
                    cp dir/sub/secret moved; rm -rf dir; rm -f dir/a; chmod 777 dir/sub/secret";
    world.shell(&id, attempts).await;
    let said = world.shell(&id, "cat moved moved/* moved/sub/* 2>/dev/null; find . -name 'moved*' -type f | xargs -r cat").await;
    assert!(!said.contains("secret"), "{said}");
    assert_eq!(world.read(&id, "dir/a").await.as_deref(), Ok("in dir/a\n"));
    assert_eq!(world.read(&id, "dir/sub/secret").await, Err("BP-SANDBOX-021"));
    // A whole directory, and a program that tries.
    let other = world
        .make(FsRules { deny_read: list(&["/workspace/dir/sub"]), ..FsRules::default() })
        .await
        .unwrap();
    assert_eq!(
        world
            .shell(&other, "ls dir/sub 2>/dev/null; cat dir/sub/secret 2>/dev/null; echo end")
            .await,
        "end\n"
    );
    world.spawner.close().await;
}

#[tokio::test]
async fn rules_that_cannot_be_enforced_fail_the_creation() {
    let world = World::new().await;
    let code = async |rules| world.make(rules).await.unwrap_err().code();
    let deny = |path: &str| FsRules { deny_read: list(&[path]), ..FsRules::default() };
    assert_eq!(code(deny("/workspace/link/a")).await, "BP-SANDBOX-012");
    assert_eq!(code(deny("/workspace/link")).await, "BP-SANDBOX-012");
    let read = FsRules { read: Some(list(&["/workspace/nothing"])), ..FsRules::default() };
    assert_eq!(code(read).await, "BP-SANDBOX-012");
    let write = FsRules { write: Some(list(&["/workspace/link"])), ..FsRules::default() };
    assert_eq!(code(write).await, "BP-SANDBOX-012");
    let many =
        FsRules { deny_read: vec!["/workspace/x".to_owned(); RULES_MAX + 1], ..FsRules::default() };
    assert_eq!(code(many).await, "BP-SANDBOX-010");
    let mount = |host: &Path, path: &str| FsRules {
        mounts: vec![Mount { host: host.to_owned(), path: path.to_owned(), writable: false }],
        ..FsRules::default()
    };
    for (host, path) in [
        ("/nowhere", "/mnt/x"),
        ("/dev/null", "/mnt/x"),
        ("/usr", "/new"),
        ("/usr", "/mnt/../x"),
        ("relative", "/mnt/x"),
    ] {
        assert_eq!(code(mount(Path::new(host), path)).await, "BP-SANDBOX-012", "{host} {path}");
    }
    let socket = world.host.path().join("sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    assert_eq!(code(mount(&socket, "/mnt/sock")).await, "BP-SANDBOX-012");
    world.spawner.close().await;
}

#[tokio::test]
async fn mounts_show_host_paths_read_only_unless_said_otherwise() {
    let world = World::new().await;
    let host = world.host.path().join("dir");
    std::fs::set_permissions(
        world.host.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    std::fs::set_permissions(host.join("a"), std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .unwrap();
    let mount = |path: &str, host: &Path, writable| Mount {
        host: host.to_owned(),
        path: path.to_owned(),
        writable,
    };
    let rules = FsRules {
        mounts: vec![
            mount("/mnt/data", &host, false),
            mount("/mnt/deep/file", &host.join("a"), true),
            mount("/memory", &host, false),
            mount("/workspace/dir/sub", &host, false),
        ],
        ..FsRules::default()
    };
    let id = world.make(rules).await.unwrap();
    assert_eq!(
        world.shell(&id, "cat /mnt/data/a /memory/b dir/sub/b").await,
        "in dir/a\nin dir/b\nin dir/b\n"
    );
    assert_eq!(world.shell(&id, "(echo x > /mnt/data/a) 2>/dev/null || (echo x > dir/sub/a) 2>/dev/null || echo kept").await, "kept\n");
    assert_eq!(
        world
            .shell(&id, "echo written > /mnt/deep/file; touch /mnt/other 2>/dev/null || echo no")
            .await,
        "no\n"
    );
    assert_eq!(std::fs::read_to_string(host.join("a")).unwrap(), "written\n");
    world.spawner.close().await;
}

#[tokio::test]
async fn one_upper_is_used_by_one_sandbox_at_a_time() {
    let world = World::new().await;
    let (a, b) = (
        world.make(FsRules::default()).await.unwrap(),
        world.make(FsRules::default()).await.unwrap(),
    );
    let running = world.spawner.exec(&a, ExecSpec::new(["sleep", "60"])).await.unwrap();
    let error = world.spawner.exec(&b, ExecSpec::shell("true")).await.unwrap_err();
    assert_eq!(error.code(), "BP-SANDBOX-015");
    drop(running);
    world.spawner.kill_all(&a).await.unwrap();
    assert_eq!(world.shell(&a, "echo free").await, "free\n");
    assert_eq!(world.shell(&b, "echo free").await, "free\n");
    world.spawner.close().await;
}
