//! The process driver end to end: build, run, bound, kill, leave nothing.

use sandbox::*;
use std::path::{Path, PathBuf};

const HARNESS: &str = env!("CARGO_BIN_EXE_sandbox-harness");

fn overlay(home: &Path) -> Overlay {
    for dir in ["base", "upper", "work"] {
        std::fs::create_dir_all(home.join(dir)).unwrap();
    }
    if rustix::process::geteuid().is_root() {
        let id = Some(HOST_ID_AS_ROOT);
        std::os::unix::fs::chown(home.join("upper"), id, id).unwrap();
    }
    Overlay {
        lowers: vec![home.join("base")],
        upper: home.join("upper"),
        work: home.join("work"),
        grown_bytes: 0,
    }
}

#[tokio::test]
async fn runs_a_program() {
    let home = tempfile::tempdir().unwrap();
    let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default())
        .await
        .unwrap();
    let sandbox = spawner
        .create(CreateSpec::new(overlay(home.path())))
        .await
        .unwrap();

    let spec = ExecSpec::shell(
        "id; hostname; ls -la / /workspace /etc /dev; cat /proc/self/status | grep -E 'Cap|Secc|NoNew'; cat /proc/mounts; ls /proc; env; echo hi > /workspace/x; touch /usr/x; mount; ip a; cat /proc/self/cgroup; ls -la /proc/self/fd",
    );
    let done = spawner
        .exec(&sandbox.id, spec)
        .await
        .unwrap()
        .finish()
        .await
        .unwrap();

    assert_eq!(done.exit.ended, Ended::Code(0));
    let done = spawner
        .exec(&sandbox.id, ExecSpec::shell("cat x; exit 3"))
        .await
        .unwrap()
        .finish()
        .await
        .unwrap();
    assert_eq!(
        (done.exit.ended, done.stdout),
        (Ended::Code(3), b"hi\n".to_vec())
    );
    let result = spawner
        .file_op(
            &sandbox.id,
            FileOp::Read {
                path: "x".into(),
                offset_line: 0,
                limit_lines: 0,
                max_bytes: 100,
            },
            None,
        )
        .await;
    println!("{result:?}");
    spawner.destroy(&sandbox.id).await.unwrap();
    spawner.close().await;
    let _ = PathBuf::new();
}
