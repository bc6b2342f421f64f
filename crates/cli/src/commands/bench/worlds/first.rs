//! A new sandbox with everything on, up to the first output of its command: warm, cold and many at
//! once, beside what others need for a sandbox of theirs.

use super::super::{AFTERMATH, Samples, nanos_since};
use super::peers::{self, Peer};
use super::stage::{Hands, Stage};
use super::{Found, Ground};
use crate::error::Result;
use crate::session::block_on;
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

/// Sandboxes that are asked for at once, unless fewer samples are wanted in all.
const BURST: u32 = 100;
/// How often that many are asked for.
const BURSTS: u32 = 3;
/// Of `count` samples, one in so many is of a spawner and a gate that have just started.
const COLD_SHARE: u32 = 5;

/// One side's samples, and why the first that failed did.
#[derive(Default)]
struct Tried {
    samples: Samples,
    why: Option<String>,
}

impl Tried {
    fn add(&mut self, sample: Result<u64>) {
        match sample {
            Ok(nanos) => self.samples.add(Some(nanos)),
            Err(failed) => {
                self.samples.add(None);
                self.why.get_or_insert(failed.failure.message);
            }
        }
    }

    fn into(self, found: &mut Found, name: String) {
        if let Some(why) = self.why {
            found.say(format!("{name} failed: {why}"), "failure", json!(why));
        }
        found.add(name, self.samples);
    }
}

pub(super) fn measure(ground: &Ground, found: &mut Found) -> Result<()> {
    let stage = Arc::new(Stage::new(&ground.dir.join("first"))?);
    let (peers, absent) = peers::all(&ground.dir)?;
    block_on(async {
        warm(&stage, &peers, ground.count, found).await?;
        cold(&stage, ground.count.div_ceil(COLD_SHARE), found).await?;
        burst(&stage, &peers, ground.count.min(BURST), found).await
    })?;
    absent.iter().for_each(|line| found.lines.push(line.clone()));
    found.more.insert("peers_absent".to_owned(), json!(absent));
    Ok(())
}

/// From the question to policy to the first output; the sandbox is ended afterwards.
async fn first_output(stage: &Stage, hands: &Hands, begun: Instant) -> Result<u64> {
    let live = stage.make(hands).await?;
    let mut nanos = 0;
    let ran = live.run(hands, || nanos = nanos_since(begun)).await;
    stage.end(hands, live).await?;
    ran.map(|()| nanos)
}

/// One after the other, each side in turns.
async fn warm(stage: &Stage, peers: &[Peer], count: u32, found: &mut Found) -> Result<()> {
    let hands = stage.hands().await?;
    // The first of a spawner and gate counts as cold.
    first_output(stage, &hands, Instant::now()).await?;
    let mut ours = Tried::default();
    let mut theirs = vec![Samples::default(); peers.len()];
    for number in 0..count {
        tokio::time::sleep(AFTERMATH).await;
        ours.add(first_output(stage, &hands, Instant::now()).await);
        for (peer, samples) in peers.iter().zip(&mut theirs) {
            tokio::time::sleep(AFTERMATH).await;
            samples.add(peer.first_output(number, Instant::now()));
        }
    }
    hands.spawner.close().await;
    let median = ours.samples.percentile(50);
    ours.into(found, "bedplate: create to first output, warm".to_owned());
    for (peer, samples) in peers.iter().zip(theirs) {
        found.ratio(median, &peer.name, samples.percentile(50));
        found.add(peer.name.clone(), samples);
    }
    Ok(())
}

/// The first sandbox of a spawner and a gate that have just started.
async fn cold(stage: &Stage, count: u32, found: &mut Found) -> Result<()> {
    let (mut first, mut start) = (Tried::default(), Samples::default());
    for _ in 0..count {
        tokio::time::sleep(AFTERMATH).await;
        let begun = Instant::now();
        let hands = stage.hands().await?;
        start.add(Some(nanos_since(begun)));
        first.add(first_output(stage, &hands, Instant::now()).await);
        hands.spawner.close().await;
    }
    first.into(found, "bedplate: create to first output, cold".to_owned());
    found.add("  start of spawner and gate before it", start);
    Ok(())
}

/// Many at once; each sample counts from the moment at which all of them were asked for.
async fn burst(stage: &Arc<Stage>, peers: &[Peer], many: u32, found: &mut Found) -> Result<()> {
    let hands = Arc::new(stage.hands().await?);
    first_output(stage, &hands, Instant::now()).await?;
    let (mut ours, mut whole) = (Tried::default(), Samples::default());
    let peers: Vec<&Peer> = peers.iter().filter(|peer| peer.many_at_once()).collect();
    let mut theirs = vec![Samples::default(); peers.len()];
    for _ in 0..BURSTS {
        let begun = Instant::now();
        let one = || {
            let (stage, hands) = (Arc::clone(stage), Arc::clone(&hands));
            tokio::spawn(async move { first_output(&stage, &hands, begun).await })
        };
        let tasks: Vec<_> = (0..many).map(|_| one()).collect();
        for task in tasks {
            ours.add(task.await.expect("a measurement does not panic"));
        }
        whole.add(Some(nanos_since(begun)));
        for (peer, samples) in peers.iter().zip(&mut theirs) {
            peers_at_once(peer, many).into_iter().for_each(|sample| samples.add(sample));
        }
    }
    Arc::into_inner(hands).expect("all tasks have ended").spawner.close().await;
    ours.into(found, format!("bedplate: {many} at once, each to first output"));
    found.add("  all of them, ended again", whole);
    for (peer, samples) in peers.iter().zip(theirs) {
        found.add(format!("{}, {many} at once", peer.name), samples);
    }
    Ok(())
}

fn peers_at_once(peer: &Peer, many: u32) -> Vec<Option<u64>> {
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let tasks: Vec<_> =
            (0..many).map(|number| scope.spawn(move || peer.first_output(number, begun))).collect();
        tasks.into_iter().map(|task| task.join().expect("a measurement does not panic")).collect()
    })
}
