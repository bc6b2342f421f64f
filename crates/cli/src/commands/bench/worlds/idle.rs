//! Many sandboxes that live and do nothing: what they need of memory, and what is left of them.
//!
//! Each has everything on, its network served by the gate, and has run one command. Memory is said
//! twice: of all processes (spawner, gate, each init, this one), shared pages by their share; and
//! what the host has less for others, the kernel's own part included and whatever else went on.

use super::super::processes::{Before, available_bytes, below, pss_bytes};
use super::super::{Samples, nanos_since};
use super::stage::{Hands, Live, Stage};
use super::{Found, Ground};
use crate::error::Result;
use crate::session::block_on;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Instant;

/// Memory at one moment, bytes.
struct Memory {
    /// Of all our processes.
    pss: u64,
    /// Processes we may not look into.
    closed: usize,
    /// What the host has for others.
    available: Option<u64>,
}

impl Memory {
    fn now() -> Self {
        let mut pids = below();
        pids.push(rustix::process::getpid().as_raw_nonzero().get());
        let (pss, closed) = pss_bytes(&pids);
        Self { pss, closed, available: available_bytes() }
    }
}

pub(super) fn measure(ground: &Ground, found: &mut Found) -> Result<()> {
    let stage = Stage::new(&ground.dir.join("idle"))?;
    let before = Before::now();
    let spawner = block_on(async {
        let hands = stage.hands().await?;
        let spawner = i32::try_from(hands.spawner.pid()).unwrap_or(i32::MAX);
        many(&stage, &hands, ground.idle, found).await?;
        hands.spawner.close().await;
        Result::Ok(spawner)
    })?;
    let left = before.left(&BTreeSet::from([spawner]));
    let line = format!(
        "left of them: {} processes, {} mounts, {} cgroups, {} namespaces",
        left.processes, left.mounts, left.cgroups, left.namespaces
    );
    let value = json!({
        "processes": left.processes, "mounts": left.mounts,
        "cgroups": left.cgroups, "namespaces": left.namespaces,
    });
    found.say(line, "idle_left", value);
    Ok(())
}

async fn many(stage: &Stage, hands: &Hands, count: u32, found: &mut Found) -> Result<()> {
    let (mut made, mut ended) = (Samples::default(), Samples::default());
    // What the first of them brings along for all is no part of the rest, but of the sum.
    let before = Memory::now();
    let mut all: Vec<Live> = Vec::new();
    for _ in 0..count {
        let begun = Instant::now();
        let live = stage.make(hands).await?;
        live.run(hands, || ()).await?;
        made.add(Some(nanos_since(begun)));
        all.push(live);
    }
    let with = Memory::now();
    say(found, count, &before, &with);
    for live in all {
        let begun = Instant::now();
        stage.end(hands, live).await?;
        ended.add(Some(nanos_since(begun)));
    }
    found.add("idle: each made, one command in it", made);
    found.add("  each ended", ended);
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "display only")]
fn say(found: &mut Found, count: u32, before: &Memory, with: &Memory) {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let host = before.available.zip(with.available).map(|(was, is)| was.saturating_sub(is));
    let line = format!(
        "{count} idle sandboxes: PSS of all processes {:.1} MiB ({:.1} MiB before them)",
        mib(with.pss),
        mib(before.pss)
    );
    let value = json!({
        "count": count, "pss_bytes": with.pss, "pss_bytes_before": before.pss,
        "processes_not_seen": with.closed, "available_bytes_less": host,
    });
    found.say(line, "idle", value);
    if let Some(host) = host {
        let line = format!("  the host's MemAvailable is {:.1} MiB less with them", mib(host));
        found.lines.push(line);
    }
    if with.closed > 0 {
        let line = format!("  the PSS of {} processes is closed to this user", with.closed);
        found.lines.push(line);
    }
}
