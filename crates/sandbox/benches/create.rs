//! Create, run `/bin/true`, destroy: ours beside `bwrap --unshare-all`, in the same minutes.
//!
//! `cargo bench -p bedplate-sandbox --bench create`. Prints minimum, p50, p95 and p99 in
//! milliseconds and the share that succeeded. Rounds alternate, so that both meet the same noise.
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use sandbox::layers::LayerStore;
use sandbox::{CreateSpec, Ended, ExecSpec, SandboxError, Spawner, SpawnerConfig};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

const ROUNDS: usize = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(measure()).expect("sandboxes work here");
}

async fn measure() -> Result<(), SandboxError> {
    // `-- ours` leaves the peer out, to count processor time with `time`; `-- pause=20` waits so
    // many milliseconds before each sample, so that neither side's aftermath is in the other's.
    let only_ours = std::env::args().any(|arg| arg == "ours");
    let pause = std::env::args().find_map(|arg| arg.strip_prefix("pause=")?.parse().ok());
    let pause = std::time::Duration::from_millis(pause.unwrap_or(0));
    let home = tempfile::tempdir().expect("a temporary directory");
    let store = LayerStore::open(home.path())?;
    let exe = Path::new(env!("CARGO_BIN_EXE_sandbox-harness"));
    let spawner = Spawner::start(exe, SpawnerConfig::default()).await?;
    let base = store.empty()?;
    let (mut whole, mut create, mut exec, mut again, mut destroy) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut bwrap, mut bare) = (Vec::new(), Vec::new());
    let unprobed = unprobed(exe).await?;
    for _ in 0..ROUNDS {
        aftermath(pause).await;
        let start = Instant::now();
        let upper = store.begin(&base)?;
        let made = spawner.create(CreateSpec::new(upper.overlay())).await?;
        let created = start.elapsed();
        let done = spawner.exec(&made.id, ExecSpec::new(["/bin/true"])).await?.finish().await?;
        assert_eq!(done.exit.ended, Ended::Code(0));
        let ran = start.elapsed();
        spawner.destroy(&made.id).await?;
        store.recycle(upper)?;
        let all = start.elapsed();
        whole.push(all);
        create.push(created);
        exec.push(ran - created);
        destroy.push(all - ran);
        if let Some(spawner) = &unprobed {
            aftermath(pause).await;
            bare.push(life(spawner, &store, &base).await?);
        }
        if !only_ours {
            aftermath(pause).await;
            bwrap.extend(peer());
        }
    }
    let upper = store.begin(&base)?;
    let made = spawner.create(CreateSpec::new(upper.overlay())).await?;
    store.discard(upper)?;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let upper = store.begin(&base)?;
        let trees = Some(upper.overlay().into());
        let spec = ExecSpec { trees, ..ExecSpec::new(["/bin/true"]) };
        let done = spawner.exec(&made.id, spec).await?.finish().await?;
        assert_eq!(done.exit.ended, Ended::Code(0));
        store.recycle(upper)?;
        again.push(start.elapsed());
    }
    println!("limits: {:?}", made.facts.limits);
    spawner.close().await;
    for (name, list) in [
        ("create + true + destroy", whole),
        ("  create", create),
        ("  exec /bin/true", exec),
        ("  destroy", destroy),
        ("exec in a live sandbox", again),
        ("without the self-probe", bare),
        ("bwrap --unshare-all true", bwrap),
    ] {
        print(name, list);
    }
    Ok(())
}

/// A spawner whose sandboxes do not try themselves, where the build can leave that out
/// (`--features weakened`): what the self-probe costs.
async fn unprobed(exe: &Path) -> Result<Option<Spawner>, SandboxError> {
    #[cfg(feature = "weakened")]
    {
        let config = SpawnerConfig { weaken: vec![sandbox::Weaken::SelfProbe] };
        Spawner::start(exe, config).await.map(Some)
    }
    #[cfg(not(feature = "weakened"))]
    {
        let _ = exe;
        Ok(None)
    }
}

/// The whole life of one sandbox.
async fn life(
    spawner: &Spawner,
    store: &LayerStore,
    base: &types::LayerId,
) -> Result<std::time::Duration, SandboxError> {
    let start = Instant::now();
    let upper = store.begin(base)?;
    let made = spawner.create(CreateSpec::new(upper.overlay())).await?;
    let done = spawner.exec(&made.id, ExecSpec::new(["/bin/true"])).await?.finish().await?;
    assert_eq!(done.exit.ended, Ended::Code(0));
    spawner.destroy(&made.id).await?;
    store.recycle(upper)?;
    Ok(start.elapsed())
}

/// Lets what the last sample set off come to its end: nothing tells when the kernel is done.
async fn aftermath(pause: std::time::Duration) {
    let _ = tokio::time::timeout(pause, std::future::pending::<()>()).await;
}

fn print(name: &str, mut list: Vec<std::time::Duration>) {
    list.sort();
    let at = |percent: usize| match list.len() {
        0 => f64::NAN,
        count => list[(count * percent / 100).min(count - 1)].as_secs_f64() * 1000.0,
    };
    println!(
        "{name:26} n={:3} min {:6.2} p50 {:6.2} p95 {:6.2} p99 {:6.2} ms",
        list.len(),
        at(0),
        at(50),
        at(95),
        at(99)
    );
}

/// One run of bubblewrap, if it is installed and works.
fn peer() -> Option<std::time::Duration> {
    let start = Instant::now();
    let status = Command::new("bwrap")
        .args(["--unshare-all", "--ro-bind", "/", "/", "/bin/true"])
        .stdin(Stdio::null())
        .status();
    status.ok().filter(|status| status.success()).map(|_| start.elapsed())
}
