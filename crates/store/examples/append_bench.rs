//! How long an append takes until it survives a power cut, beside what the device needs for that.
//!
//! ```text
//! append_bench DIR [--samples N] [--writers N] [--raw] [--acks]
//! ```
//!
//! Blocks of appends (one record of 256 bytes, synced) and of the bare minimum (256 bytes written
//! to a preallocated file, fdatasync) take turns, in the same directory. Then `--writers` runs
//! append at once. `--raw` prints every sample; `--acks` prints `ack` after each append instead of
//! measuring, for counting system calls from outside.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for people at a terminal, not a library"
)]

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::conformance::{run_id, sample};
use store::{Append, Durability, NewRecord, RunRow, SqliteStore, Store};
use types::BRANCH_MAIN;

const RECORD_BYTES: usize = 256;
const BLOCK: usize = 100;
const PREALLOCATED_BYTES: usize = 4 << 20;

struct Options {
    dir: PathBuf,
    samples: usize,
    writers: u8,
    raw: bool,
    acks: bool,
}

fn options() -> Options {
    let mut options =
        Options { dir: PathBuf::new(), samples: 2000, writers: 64, raw: false, acks: false };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().unwrap().parse::<usize>().unwrap();
        match argument.as_str() {
            "--samples" => options.samples = number(),
            "--writers" => options.writers = u8::try_from(number()).unwrap(),
            "--raw" => options.raw = true,
            "--acks" => options.acks = true,
            dir => options.dir = dir.into(),
        }
    }
    assert!(options.dir.is_dir(), "name an existing directory");
    options
}

/// A record whose body is 256 bytes of JSON.
fn record() -> NewRecord {
    let empty = serde_json::to_vec(&sample("").body).unwrap().len();
    let record = sample(&"x".repeat(RECORD_BYTES - empty));
    assert_eq!(serde_json::to_vec(&record.body).unwrap().len(), RECORD_BYTES);
    record
}

async fn create(store: &dyn Store, number: u8) {
    let row = RunRow { run: run_id(number), started_ms: 1 };
    store.create_run(row, vec![]).await.unwrap();
}

async fn append(store: &dyn Store, number: u8, next_seq: u64, durability: Durability) {
    let append = Append {
        run: run_id(number),
        branch: BRANCH_MAIN,
        next_seq,
        epoch: 1,
        records: vec![record()],
        durability,
    };
    store.append(append).await.unwrap();
}

fn preallocated(dir: &Path) -> File {
    let mut file = File::create(dir.join("bare")).unwrap();
    file.write_all(&vec![0; PREALLOCATED_BYTES]).unwrap();
    file.sync_all().unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    file
}

fn bare(file: &mut File) -> Duration {
    if file.stream_position().unwrap() + RECORD_BYTES as u64 > PREALLOCATED_BYTES as u64 {
        file.seek(SeekFrom::Start(0)).unwrap();
    }
    let start = Instant::now();
    file.write_all(&[7; RECORD_BYTES]).unwrap();
    file.sync_data().unwrap();
    start.elapsed()
}

fn report(what: &str, mut samples: Vec<Duration>, raw: bool) -> Duration {
    if raw {
        for sample in &samples {
            println!("raw {what} {} us", sample.as_micros());
        }
    }
    samples.sort();
    let at = |percent: usize| samples[(samples.len() - 1) * percent / 100];
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    println!(
        "{what}: {} samples, all succeeded, p50 {:.3} ms, p95 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
        samples.len(),
        ms(at(50)),
        ms(at(95)),
        ms(at(99)),
        ms(at(100)),
    );
    at(50)
}

async fn one_writer(options: &Options, store: &dyn Store) {
    create(store, 1).await;
    let mut file = preallocated(&options.dir);
    let (mut appends, mut bares, mut writes) = (vec![], vec![], vec![]);
    let mut next_seq = 0;
    while appends.len() < options.samples {
        bares.extend((0..BLOCK).map(|_| bare(&mut file)));
        for durability in [Durability::Synced, Durability::Written] {
            for _ in 0..BLOCK {
                let start = Instant::now();
                append(store, 1, next_seq, durability).await;
                next_seq += 1;
                match durability {
                    Durability::Synced => appends.push(start.elapsed()),
                    Durability::Written => writes.push(start.elapsed()),
                }
            }
        }
    }
    let bare = report("bare write and fdatasync, 256 B", bares, options.raw);
    let synced = report("append synced, 256 B, 1 writer", appends, options.raw);
    report("append written, 256 B, 1 writer", writes, options.raw);
    println!("ratio of medians, synced to bare: {:.2}", synced.as_secs_f64() / bare.as_secs_f64());
}

async fn many_writers(options: &Options, store: std::sync::Arc<SqliteStore>) {
    let per_writer = (options.samples / usize::from(options.writers)).max(20) as u64;
    let numbers = 10..10 + options.writers;
    for number in numbers.clone() {
        create(&*store, number).await;
    }
    let start = Instant::now();
    let tasks: Vec<_> = numbers
        .map(|number| {
            let store = std::sync::Arc::clone(&store);
            tokio::spawn(async move {
                let mut samples = Vec::new();
                for next_seq in 0..per_writer {
                    let start = Instant::now();
                    append(&*store, number, next_seq, Durability::Synced).await;
                    samples.push(start.elapsed());
                }
                samples
            })
        })
        .collect();
    let mut samples = Vec::new();
    for task in tasks {
        samples.extend(task.await.unwrap());
    }
    let rate = samples.len() as f64 / start.elapsed().as_secs_f64();
    let what = format!("append synced, 256 B, {} writers", options.writers);
    report(&what, samples, options.raw);
    println!("{what}: {rate:.0} appends/s");
}

/// Prints `ack synced` or `ack written` after each append, one write call each.
async fn acks(options: &Options, store: &dyn Store) {
    create(store, 1).await;
    for next_seq in 0..options.samples as u64 {
        let (durability, line) = if next_seq % 2 == 0 {
            (Durability::Written, "ack written\n")
        } else {
            (Durability::Synced, "ack synced\n")
        };
        append(store, 1, next_seq, durability).await;
        std::io::stdout().write_all(line.as_bytes()).unwrap();
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = options();
    let store = std::sync::Arc::new(SqliteStore::open(&options.dir.join("home")).unwrap());
    if options.acks {
        acks(&options, &*store).await;
        return;
    }
    one_writer(&options, &*store).await;
    many_writers(&options, store).await;
}
