//! A sandbox that is not contained does not start; a contained one does, as root and otherwise.
//!
//! With `--features weakened`, each part of the containment is left out in turn, and the probe that
//! looks at it must say so before a program runs.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use sandbox::layers::LayerStore;
use sandbox::*;
use std::path::Path;

const HARNESS: &str = env!("CARGO_BIN_EXE_sandbox-harness");

/// Makes a sandbox with a denied path and runs a program that leaves a trace if it starts.
async fn start(config: SpawnerConfig) -> Result<Vec<u8>, SandboxError> {
    let (home, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(source.path().join("denied"), "content").unwrap();
    let store = LayerStore::open(home.path()).unwrap();
    let layer = store.import(source.path(), 1 << 20).unwrap().layer;
    let spawner = Spawner::start(Path::new(HARNESS), config).await?;
    let upper = store.begin(&layer).unwrap();
    let rules = FsRules { deny_read: vec!["/workspace/denied".to_owned()], ..FsRules::default() };
    let spec = CreateSpec { rules, ..CreateSpec::new(upper.overlay()) };
    let ended = async {
        let id = spawner.create(spec).await?.id;
        let running = spawner.exec(&id, ExecSpec::new(["/bin/sh", "-c", "echo started"])).await?;
        running.finish().await
    };
    let ended = ended.await.map(|done| done.stdout);
    spawner.close().await;
    ended
}

#[tokio::test]
async fn a_contained_sandbox_starts() {
    assert_eq!(start(SpawnerConfig::default()).await.unwrap(), b"started\n");
}

/// Leaves each part out in turn.
#[cfg(feature = "weakened")]
#[tokio::test]
async fn each_weakening_refuses_the_start() {
    use types::Coded;
    let expected = |part: Weaken| match part {
        Weaken::Seccomp | Weaken::Privileges => "rights",
        Weaken::Landlock => "Landlock",
        Weaken::Network => "a connection outward",
        Weaken::Processes | Weaken::Ipc => "namespaces",
        Weaken::Masks => "denied paths",
        Weaken::ReadOnly | Weaken::Root => "system files",
        Weaken::Descriptors => "open descriptors",
        Weaken::Limits => "limits",
        Weaken::SelfProbe => unreachable!("it holds nothing"),
    };
    for part in Weaken::ALL {
        let refused = start(SpawnerConfig { weaken: vec![part] }).await;
        match refused.unwrap_err() {
            SandboxError::NotContained { probe, why } => {
                assert_eq!(probe, expected(part), "without {part:?}: {why}");
            }
            other => panic!("without {part:?}: {} {other}", other.code()),
        }
        // It is the probe that noticed: without it too, the program runs.
        let weaken = vec![part, Weaken::SelfProbe];
        assert_eq!(start(SpawnerConfig { weaken }).await.unwrap(), b"started\n", "{part:?}");
    }
}
