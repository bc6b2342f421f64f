//! `bench`: this host's figures, each beside a peer measured in the same minute.
//!
//! Samples of us and of the peer are taken in turns, so that what disturbs one disturbs the other.
//! Nothing is asserted.

mod gate;
mod load;
mod privacy;
mod processes;
mod soak;
mod stepped;
mod upstream;
mod worlds;

pub(crate) use load::perform as perform_load;

use crate::arguments::{BenchArguments, BenchWhat};
use crate::error::{CliError, Result, exit};
use crate::session::{Session, block_on};
use crate::terminal::Terminal;
use runtime::protocol::{Reply, Request};
use serde_json::json;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use store::{Append, Durability, NewRecord, RunRow, SqliteStore, Store};
use types::{Actor, BRANCH_MAIN, Body, RunId};

/// Samples of ours before the peer has its turn, back to back.
const ROUND: u32 = 10;
/// Between two lives that are measured one by one: what the last one left to the kernel, and what
/// is made ready for the next, is in neither's figure.
const AFTERMATH: Duration = Duration::from_millis(20);
/// Characters of a row's name.
const NAME_WIDTH: usize = 56;
/// Bytes that the bare fdatasync writes: about what one small record takes.
const SYNC_BYTES: usize = 512;

/// What was measured of one side.
#[derive(Debug, Clone, Default)]
struct Samples {
    nanos: Vec<u64>,
    failed: u64,
}

impl Samples {
    fn add(&mut self, sample: Option<u64>) {
        match sample {
            Some(nanos) => self.nanos.push(nanos),
            None => self.failed += 1,
        }
    }

    /// The sample that `percent` of all are at most; 0 when there are none.
    fn percentile(&self, percent: usize) -> u64 {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1) - 1;
        sorted.get(rank).copied().unwrap_or(0)
    }
}

/// Both sides under their names.
struct Comparison {
    ours: (String, Samples),
    peer: Option<(String, Samples)>,
}

/// `bench`.
pub(crate) fn bench(session: &Session, arguments: &BenchArguments) -> Result<u8> {
    let BenchArguments { what, count, raw, .. } = *arguments;
    if arguments.part.is_some() && what != BenchWhat::Worlds {
        let message = "--part chooses a part of `bench worlds`".to_owned();
        return Err(CliError::Usage { message, help: "bench".to_owned() }.into());
    }
    let comparison = match what {
        BenchWhat::Sandbox => return lives(session, count, raw),
        BenchWhat::Store => steps(count)?,
        BenchWhat::Start => starts(count)?,
        BenchWhat::Gate => {
            let all = gate::measure(count)?;
            return Ok(say(
                session,
                raw,
                &gate::raw(&all),
                gate::document(&all),
                &gate::table(&all),
            ));
        }
        BenchWhat::Privacy => privacy::requests(count)?,
        BenchWhat::Worlds => return worlds(session, arguments),
        BenchWhat::Soak => return soak(session, count, raw),
    };
    let sides = [Some(&comparison.ours), comparison.peer.as_ref()];
    let sides: Vec<_> = sides.into_iter().flatten().cloned().collect();
    Ok(say(session, raw, &sides, document(&comparison), &table(&comparison)))
}

/// Making sandboxes and keeping them, sealing, comparing, forking, going back and on.
fn worlds(session: &Session, arguments: &BenchArguments) -> Result<u8> {
    let found = worlds::measure(arguments)?;
    let (sides, table) = (found.sides.clone(), found.table());
    Ok(say(session, arguments.raw, &sides, found.document(), &table))
}

/// Many cycles with kills: what is left of them counts.
fn soak(session: &Session, count: u32, raw: bool) -> Result<u8> {
    let found = soak::measure(count)?;
    let said = say(session, raw, &found.sides(), found.document(), &found.table());
    Ok(if found.failing().is_empty() { said } else { exit::FAILED })
}

/// Says what was measured as it was asked for.
fn say(
    session: &Session,
    raw: bool,
    sides: &[(String, Samples)],
    document: serde_json::Value,
    table: &[String],
) -> u8 {
    if raw {
        sides.iter().for_each(print_raw);
    }
    if session.json {
        Terminal::answer_json(&document);
    } else if !raw {
        table.iter().for_each(|line| Terminal::answer(line));
    } else {
        table.iter().for_each(|line| session.terminal.progress(line));
    }
    exit::DONE
}

fn print_raw((name, samples): &(String, Samples)) {
    for nanos in &samples.nanos {
        Terminal::answer_json(&json!({ "what": name, "ns": nanos }));
    }
}

fn side((name, samples): &(String, Samples)) -> serde_json::Value {
    json!({
        "what": name,
        "count": samples.nanos.len() as u64 + samples.failed,
        "failed": samples.failed,
        "min_ns": samples.percentile(0),
        "p50_ns": samples.percentile(50),
        "p95_ns": samples.percentile(95),
        "p99_ns": samples.percentile(99),
    })
}

fn document(comparison: &Comparison) -> serde_json::Value {
    let peer = comparison.peer.as_ref().map(side);
    json!({ "ours": side(&comparison.ours), "peer": peer, "ratio_p50": ratio(comparison) })
}

/// Our median over the peer's.
#[expect(clippy::cast_precision_loss, reason = "display only")]
fn ratio(comparison: &Comparison) -> Option<f64> {
    let peer = comparison.peer.as_ref()?.1.percentile(50);
    (peer > 0).then(|| comparison.ours.1.percentile(50) as f64 / peer as f64)
}

fn table(comparison: &Comparison) -> Vec<String> {
    let mut lines = vec![head(), row(&comparison.ours)];
    match &comparison.peer {
        Some(peer) => lines.push(row(peer)),
        None => {
            lines.push("the peer is not installed, so there is nothing to compare with".to_owned());
        }
    }
    lines.extend(ratio(comparison).map(|ratio| format!("ratio of medians: {ratio:.2}")));
    lines
}

fn head() -> String {
    format!(
        "{:<NAME_WIDTH$} {:>7} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "", "count", "success", "min", "p50", "p95", "p99"
    )
}

#[expect(clippy::cast_precision_loss, reason = "display only")]
fn row((name, samples): &(String, Samples)) -> String {
    let count = samples.nanos.len() as u64 + samples.failed;
    let success = 100.0 * samples.nanos.len() as f64 / (count.max(1)) as f64;
    let of = |percent| format!("{:.3}ms", samples.percentile(percent) as f64 / 1e6);
    format!(
        "{name:<NAME_WIDTH$} {count:>7} {success:>7.1}% {:>9} {:>9} {:>9} {:>9}",
        of(0),
        of(50),
        of(95),
        of(99)
    )
}

fn timed(act: impl FnOnce() -> bool) -> Option<u64> {
    let begun = Instant::now();
    let good = act();
    let nanos = nanos_since(begun);
    good.then_some(nanos)
}

fn nanos_since(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn program(path: &Path, arguments: &[&str]) -> Option<u64> {
    timed(|| {
        let mut command = Command::new(path);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    })
}

fn fail(what: &str, reason: impl ToString) -> CliError {
    CliError::Bench { what: what.to_owned(), reason: reason.to_string() }
}

fn in_path(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// How closely lives follow each other.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// One of ours, one of the peer's, each when the last is over and done with.
    OneByOne,
    /// As fast as they go, [`ROUND`] of each side in turns.
    BackToBack,
}

/// A sandbox's whole life inside the owner, and bubblewrap's.
fn lives(session: &Session, count: u32, raw: bool) -> Result<u8> {
    let apart = sandboxes(session, count, Pace::OneByOne)?;
    let close = sandboxes(session, count, Pace::BackToBack)?;
    let mut document = document(&apart);
    document["back_to_back"] = self::document(&close);
    let mut lines = table(&apart);
    lines.extend(table(&close));
    let sides = [Some(apart.ours), apart.peer, Some(close.ours), close.peer];
    let sides: Vec<_> = sides.into_iter().flatten().collect();
    Ok(say(session, raw, &sides, document, &lines))
}

fn sandboxes(session: &Session, count: u32, pace: Pace) -> Result<Comparison> {
    let bwrap = in_path("bwrap");
    let arguments = ["--unshare-all", "--ro-bind", "/", "/", "/bin/true"];
    let (mut ours, mut peer) = (Samples::default(), Samples::default());
    let (round, pause, how) = match pace {
        Pace::OneByOne => (1, AFTERMATH, "one by one"),
        Pace::BackToBack => (ROUND, Duration::ZERO, "back to back"),
    };
    block_on(async {
        let mut owner = session.owner().await?;
        let mut left = count;
        while left > 0 {
            let now = left.min(round);
            left -= now;
            tokio::time::sleep(pause).await;
            owner.send(&Request::BenchSandbox { count: now }).await?;
            if let Reply::Samples { nanos } = crate::session::next_reply(&mut owner).await? {
                nanos.into_iter().for_each(|nanos| ours.add(Some(nanos)));
            }
            tokio::time::sleep(pause).await;
            for _ in 0..now {
                if let Some(bwrap) = &bwrap {
                    peer.add(program(bwrap, &arguments));
                }
            }
        }
        Result::Ok(())
    })?;
    Ok(Comparison {
        ours: (format!("bedplate: create, true, destroy {how}"), ours),
        peer: bwrap.map(|_| (format!("bwrap --unshare-all true {how}"), peer)),
    })
}

/// A synced append through the store, and a bare fdatasync on the same device.
fn steps(count: u32) -> Result<Comparison> {
    let here = std::env::current_dir().map_err(|error| fail("the store", error))?;
    let dir = tempfile::Builder::new().prefix(".bedplate-bench-").tempdir_in(here);
    let dir = dir.map_err(|error| fail("the store", error))?;
    let (mut ours, mut peer) = (Samples::default(), Samples::default());
    let mut bare = File::create(dir.path().join("bare")).map_err(|e| fail("fdatasync", e))?;
    let store = SqliteStore::open(dir.path())?;
    block_on(async {
        let mut appender = Appender::new(&store).await?;
        for _ in 0..count {
            ours.add(appender.step().await);
            peer.add(timed(|| synced(&mut bare)));
        }
        Result::Ok(())
    })?;
    Ok(Comparison {
        ours: ("bedplate: one synced record".to_owned(), ours),
        peer: Some((format!("write of {SYNC_BYTES} bytes and fdatasync"), peer)),
    })
}

fn synced(file: &mut File) -> bool {
    let bytes = [0x42; SYNC_BYTES];
    file.seek(SeekFrom::End(0)).is_ok()
        && file.write_all(&bytes).is_ok()
        && file.sync_data().is_ok()
}

/// Appends to one run.
struct Appender<'a> {
    store: &'a SqliteStore,
    run: RunId,
    epoch: u64,
    next_seq: u64,
}

impl<'a> Appender<'a> {
    async fn new(store: &'a SqliteStore) -> Result<Self> {
        let run = RunId::from_random([7; 8]);
        let row = RunRow { run: run.clone(), started_ms: 0 };
        let created = store.create_run(row, vec![record(note())]).await?;
        Ok(Self { store, run, epoch: created.epoch, next_seq: created.records.len() as u64 })
    }

    async fn step(&mut self) -> Option<u64> {
        let append = Append {
            run: self.run.clone(),
            branch: BRANCH_MAIN,
            next_seq: self.next_seq,
            epoch: self.epoch,
            records: vec![record(note())],
            durability: Durability::Synced,
        };
        let begun = Instant::now();
        self.store.append(append).await.ok()?;
        self.next_seq += 1;
        Some(nanos_since(begun))
    }
}

/// A short body.
fn note() -> Body {
    Body::CancelRequested { by: "bench".to_owned() }
}

/// A record of nobody, at no time.
fn record(body: Body) -> NewRecord {
    NewRecord {
        time_ms: 0,
        mono_ms: 0,
        boot: 0,
        causes: Vec::new(),
        actor: Actor::default(),
        body,
        attachments: Vec::new(),
    }
}

/// Start to help, and the least a program can do.
fn starts(count: u32) -> Result<Comparison> {
    let exe = crate::session::this_program();
    let (mut ours, mut peer) = (Samples::default(), Samples::default());
    for _ in 0..count {
        ours.add(program(&exe, &["--help"]));
        peer.add(program(Path::new("/bin/true"), &[]));
    }
    Ok(Comparison {
        ours: ("bedplate --help".to_owned(), ours),
        peer: Some(("/bin/true".to_owned(), peer)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let samples = Samples { nanos: (1..=100).rev().collect(), failed: 0 };
        let check = |percent, expected| assert_eq!(samples.percentile(percent), expected);
        check(0, 1);
        check(50, 50);
        check(95, 95);
        check(99, 99);
        check(100, 100);
        assert_eq!(Samples::default().percentile(50), 0);
        assert_eq!(Samples { nanos: vec![7], failed: 0 }.percentile(99), 7);
    }

    #[test]
    fn a_failed_sample_counts_and_has_no_time() {
        let mut samples = Samples::default();
        samples.add(program(Path::new("/bin/false"), &[]));
        samples.add(program(Path::new("/bin/true"), &[]));
        assert_eq!((samples.nanos.len(), samples.failed), (1, 1));
        let error = fail("x", "y");
        assert_eq!(types::Coded::code(&error), "BP-CLI-015");
    }
}
