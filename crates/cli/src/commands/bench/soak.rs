//! Sandboxes made and ended, runs set aside and taken up, over and over, while processes are killed:
//! what is left afterwards, and what has grown.
//!
//! ```text
//!  cycle:  a new run, a command, ended and removed   or   the standing run set aside, taken up, a command
//!  every 4th cycle of every other stretch: a process is killed (owner, gate, spawner, all three),
//!  by turns while a command runs and while its sandbox is made; then the standing run goes on
//! ```
//!
//! Whatever loses its parent becomes ours, so no process can hide. What always holds: with its owner
//! dead nothing of a home runs, and once all runs are removed and the last owner has left, nothing is
//! there but the log. A count that says otherwise makes the exit status 1.

use super::processes::{
    Before, Left, adopt, below, descriptors, file_bytes, in_role, kill, owner_of, pss_bytes,
    settled,
};
use super::stepped::Stepped;
use super::worlds::Workplace;
use super::{Samples, head, nanos_since, row, side};
use crate::error::{Failed, Result};
use crate::session::block_on;
use gate::GATE_ARGUMENT;
use runtime::Home;
use sandbox::SPAWNER_ARG;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Instant;

/// One cycle in so many has a process killed.
const KILL_EVERY: u32 = 4;
/// Cycles with kills, then as many without, so that a process lives long enough to show growth.
const STRETCH_MIN: u32 = 16;
const STRETCH_MAX: u32 = 500;
/// Stretches of one measurement, unless they would be too short or long.
const STRETCHES: u32 = 20;
/// Steps of the standing run; then another takes its place, since a run reads its whole log.
const STANDING_STEPS_MAX: u32 = 100;
/// Cycles of an owner's life before what it holds counts as its beginning.
const SETTLING_CYCLES: u32 = 4;
/// Open descriptors that owner, gate and spawner may have more at the end of a life: what is kept for
/// the next sandbox, not one for each.
const DESCRIPTORS_GROWN_MAX: u64 = 32;
/// Memory that they may have more.
const MEMORY_GROWN_BYTES_MAX: u64 = 32 << 20;
/// What the home may have more than its log.
const DISK_GROWN_BYTES_MAX: u64 = 64 << 10;
/// A command that writes, and one that changes nothing.
const WRITES: &str = "echo kept | tee kept.txt";
const SAYS: &str = "echo here";
/// A command that waits for the end of its input.
const WAITS: &str = "echo begun; cat";

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Owner,
    Gate,
    Spawner,
    All,
}

const VICTIMS: [Victim; 4] = [Victim::Owner, Victim::Gate, Victim::Spawner, Victim::All];

impl Victim {
    const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Gate => "gate",
            Self::Spawner => "spawner",
            Self::All => "all three",
        }
    }
}

/// What a cycle does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cycle {
    CreateDestroy,
    SuspendResume,
    Kill(Victim, When),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    /// A command has printed something and waits.
    Running,
    /// A command was asked for, and its sandbox is being made.
    Starting,
}

/// What the cycle of this number is, of `count` in all.
fn cycle(number: u32, count: u32) -> Cycle {
    let stretch = (count / STRETCHES).clamp(STRETCH_MIN, STRETCH_MAX);
    let kills_before = |number: u32| {
        let (whole, rest) = (number / (2 * stretch), number % (2 * stretch));
        whole * (stretch / KILL_EVERY) + rest.min(stretch) / KILL_EVERY
    };
    let kills = kills_before(number);
    if kills_before(number + 1) > kills {
        let victims = u32::try_from(VICTIMS.len()).unwrap_or(1);
        let when = if (kills / victims).is_multiple_of(2) { When::Running } else { When::Starting };
        return Cycle::Kill(VICTIMS[(kills % victims) as usize], when);
    }
    if number.is_multiple_of(2) { Cycle::CreateDestroy } else { Cycle::SuspendResume }
}

/// What owner, gate and spawner hold together.
#[derive(Debug, Clone, Copy, Default)]
struct Held {
    descriptors: u64,
    memory_bytes: u64,
}

/// The life of one owner with one gate and one spawner.
#[derive(Debug)]
struct Life {
    pids: Vec<i32>,
    cycles: u32,
    begin: Option<Held>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Soaked {
    cycles: u32,
    kills: Vec<(Victim, u32)>,
    cycle: [Samples; 2],
    after_kill: [Samples; 4],
    /// Runs that a kill set aside, for somebody to take up.
    set_aside: u32,
    /// Processes that outlived their owner.
    orphans: usize,
    left: Left,
    /// Entries of the home that only a live run or owner needs.
    files: usize,
    grown: Held,
    disk_grown_bytes: u64,
    log_grown_bytes: u64,
}

impl Soaked {
    /// What should be nothing, or little, and is not.
    pub(super) fn failing(&self) -> Vec<&'static str> {
        let counts = [
            ("orphaned processes", self.orphans > 0),
            ("processes", self.left.processes > 0),
            ("mounts", self.left.mounts > 0),
            ("cgroups", self.left.cgroups > 0),
            ("namespaces", self.left.namespaces > 0),
            ("temporary files", self.files > 0),
            ("descriptors", self.grown.descriptors > DESCRIPTORS_GROWN_MAX),
            ("memory", self.grown.memory_bytes > MEMORY_GROWN_BYTES_MAX),
            ("disk beyond the log", self.disk_grown_bytes > DISK_GROWN_BYTES_MAX),
        ];
        counts.into_iter().filter(|(_, failing)| *failing).map(|(name, _)| name).collect()
    }

    pub(super) fn sides(&self) -> Vec<(String, Samples)> {
        let [made, resumed] = self.cycle.clone();
        let mut sides = vec![
            ("create, a command, end, remove".to_owned(), made),
            ("suspend, resume, a command".to_owned(), resumed),
        ];
        let after = VICTIMS.iter().zip(self.after_kill.clone());
        sides.extend(after.filter(|(_, samples)| !samples.nanos.is_empty()).map(
            |(who, samples)| (format!("kill -9: {}, to the next output", who.name()), samples),
        ));
        sides
    }

    pub(super) fn table(&self) -> Vec<String> {
        let mut lines = vec![head()];
        lines.extend(self.sides().iter().map(row));
        let kills = self.kills.iter().map(|(who, times)| format!("{} {times}", who.name()));
        let kills = kills.collect::<Vec<_>>().join(", ");
        let (left, grown) = (&self.left, self.grown);
        lines.push(format!(
            "{} cycles; killed: {kills}; runs set aside by it: {}",
            self.cycles, self.set_aside
        ));
        lines.push(format!("processes that outlived their owner: {}", self.orphans));
        lines.push(format!(
            "left at the end: {} processes, {} mounts, {} cgroups, {} namespaces, {} temporary files",
            left.processes, left.mounts, left.cgroups, left.namespaces, self.files
        ));
        lines.push(format!(
            "grown within one owner's life at most: {} descriptors, {} KiB of memory",
            grown.descriptors,
            grown.memory_bytes >> 10
        ));
        lines.push(format!(
            "the home grew by {} bytes beyond its log, the log by {} bytes",
            self.disk_grown_bytes, self.log_grown_bytes
        ));
        let failing = self.failing();
        if !failing.is_empty() {
            lines.push(format!("failed: {}", failing.join(", ")));
        }
        lines
    }

    pub(super) fn document(&self) -> Value {
        let kills = self.kills.iter().map(|(who, times)| (who.name().to_owned(), json!(times)));
        json!({
            "what": self.sides().iter().map(side).collect::<Vec<_>>(),
            "cycles": self.cycles,
            "kills": kills.collect::<serde_json::Map<_, _>>(),
            "set_aside": self.set_aside,
            "left": {
                "orphans": self.orphans, "processes": self.left.processes,
                "mounts": self.left.mounts, "cgroups": self.left.cgroups,
                "namespaces": self.left.namespaces, "files": self.files,
            },
            "grown": {
                "descriptors": self.grown.descriptors, "memory_bytes": self.grown.memory_bytes,
                "disk_bytes": self.disk_grown_bytes, "log_bytes": self.log_grown_bytes,
            },
            "failing": self.failing(),
        })
    }
}

/// So many cycles in a home of their own.
pub(super) fn measure(count: u32) -> Result<Soaked> {
    adopt();
    let dir = Workplace::new("the soak")?;
    let home = Home::at(&dir.path().join("home"));
    let before = Before::now();
    let mut soak = Soak::new(home);
    block_on(async {
        // What the first of each brings along is there before anything is counted.
        soak.perform(Cycle::CreateDestroy).await?;
        soak.perform(Cycle::SuspendResume).await?;
        soak.rest().await?;
        let (disk, log) = soak.bytes();
        soak.found = Soaked::default();
        for number in 0..count {
            let cycle = cycle(number, count);
            let done = soak.perform(cycle).await;
            done.map_err(|failed| at_cycle(number, cycle, failed))?;
            soak.found.cycles += 1;
        }
        soak.rest().await?;
        let (disk_after, log_after) = soak.bytes();
        soak.found.disk_grown_bytes = disk_after.saturating_sub(disk);
        soak.found.log_grown_bytes = log_after.saturating_sub(log);
        Result::Ok(())
    })?;
    soak.found.files = soak.temporary_files();
    soak.found.left = before.left(&soak.spawners);
    Ok(soak.found)
}

/// A failure that says where the soak was.
fn at_cycle(number: u32, cycle: Cycle, mut failed: Failed) -> Failed {
    failed.failure.message = format!("cycle {number}, {cycle:?}: {}", failed.failure.message);
    failed
}

/// A home under strain.
struct Soak {
    home: Home,
    /// A run that is set aside and taken up, and its steps so far.
    standing: Option<(Stepped, u32)>,
    /// Keys of runs so far.
    keys: u32,
    life: Option<Life>,
    /// Every spawner there was.
    spawners: BTreeSet<i32>,
    found: Soaked,
}

impl Soak {
    fn new(home: Home) -> Self {
        let (spawners, found) = (BTreeSet::new(), Soaked::default());
        Self { home, standing: None, keys: 0, life: None, spawners, found }
    }

    async fn open(&mut self) -> Result<Stepped> {
        self.keys += 1;
        Stepped::open(&self.home, &format!("soak-{}", self.keys)).await
    }

    /// The standing run; made anew when there is none, or it has taken many steps.
    async fn standing(&mut self) -> Result<&mut Stepped> {
        if self.standing.as_ref().is_some_and(|(_, steps)| *steps >= STANDING_STEPS_MAX) {
            self.drop_standing().await?;
        }
        if self.standing.is_none() {
            let mut run = self.open().await?;
            run.step(SAYS).await?;
            self.standing = Some((run, 0));
        }
        let (run, steps) = self.standing.as_mut().expect("it was just made");
        *steps += 1;
        Ok(run)
    }

    async fn drop_standing(&mut self) -> Result<()> {
        match self.standing.take() {
            Some((run, _)) => run.remove().await,
            None => Ok(()),
        }
    }

    async fn perform(&mut self, cycle: Cycle) -> Result<()> {
        match cycle {
            Cycle::CreateDestroy => {
                let begun = Instant::now();
                let mut run = self.open().await?;
                run.step(WRITES).await?;
                run.remove().await?;
                self.found.cycle[0].add(Some(nanos_since(begun)));
            }
            Cycle::SuspendResume => {
                let run = self.standing().await?;
                let begun = Instant::now();
                run.set_aside().await?;
                run.take_up().await?;
                run.step(SAYS).await?;
                self.found.cycle[1].add(Some(nanos_since(begun)));
                self.look()?;
            }
            Cycle::Kill(victim, when) => self.kill(victim, when).await?,
        }
        super::processes::reap();
        Ok(())
    }

    /// The owner, its gate and its spawner.
    fn trio(&mut self) -> Result<[i32; 3]> {
        let owner = owner_of(&self.home)?;
        let one = |role| {
            let found = in_role(owner, role).first().copied();
            found.ok_or_else(|| super::fail("the soak", format!("the owner has no {role}")))
        };
        let (gate, spawner) = (one(GATE_ARGUMENT)?, one(SPAWNER_ARG)?);
        self.spawners.insert(spawner);
        Ok([owner, gate, spawner])
    }

    /// Counts what the three hold, against what they held early in their life.
    fn look(&mut self) -> Result<()> {
        let pids = self.trio()?.to_vec();
        let now = Held { descriptors: descriptors(&pids), memory_bytes: pss_bytes(&pids).0 };
        let life = match self.life.take().filter(|life| life.pids == pids) {
            Some(life) => Life { cycles: life.cycles + 1, ..life },
            None => Life { pids, cycles: 1, begin: None },
        };
        let begin = life.begin.or_else(|| (life.cycles >= SETTLING_CYCLES).then_some(now));
        if let Some(begin) = begin {
            let grown = &mut self.found.grown;
            let more = now.descriptors.saturating_sub(begin.descriptors);
            grown.descriptors = grown.descriptors.max(more);
            let more = now.memory_bytes.saturating_sub(begin.memory_bytes);
            grown.memory_bytes = grown.memory_bytes.max(more);
        }
        self.life = Some(Life { begin, ..life });
        Ok(())
    }

    async fn kill(&mut self, victim: Victim, when: When) -> Result<()> {
        self.standing().await?;
        let mut run = self.open().await?;
        let going = match when {
            When::Running => run.begin(WAITS).await?,
            When::Starting => run.ask(WAITS).await?,
        };
        let [owner, gate, spawner] = self.trio()?;
        let begun = Instant::now();
        match victim {
            Victim::Owner => kill(&[owner]),
            Victim::Gate => kill(&[gate]),
            Victim::Spawner => kill(&[spawner]),
            Victim::All => kill(&[owner, gate, spawner]),
        }
        if matches!(victim, Victim::Owner | Victim::All) {
            self.bury();
        } else if victim == Victim::Gate && when == When::Running {
            going.end_input().await?;
            // Its output is read by a gate: by the next one, or its run is set aside.
            self.found.set_aside += u32::from(going.finish().await.is_err());
        } else {
            // An owner stays as long as somebody listens.
            drop(going);
        }
        run.remove().await?;
        if victim == Victim::Spawner {
            // An owner whose spawner is gone has to leave.
            self.leave().await?;
        }
        self.go_on().await?;
        let at = VICTIMS.iter().position(|one| *one == victim).expect("they are all there");
        self.found.after_kill[at].add(Some(nanos_since(begun)));
        match self.found.kills.iter_mut().find(|(one, _)| *one == victim) {
            Some((_, times)) => *times += 1,
            None => self.found.kills.push((victim, 1)),
        }
        Ok(())
    }

    /// Has the standing run take a step. One that a kill has set aside makes room for another.
    async fn go_on(&mut self) -> Result<()> {
        if self.standing().await?.step(SAYS).await.is_err() {
            self.found.set_aside += 1;
            self.drop_standing().await?;
            self.standing().await?;
        }
        Ok(())
    }

    /// Waits until nothing lives that the owner had; counts, and ends, what lives on.
    fn bury(&mut self) {
        if !settled(|| below().is_empty()) {
            let orphans = below();
            self.found.orphans += orphans.len();
            kill(&orphans);
        }
    }

    /// Sets the standing run aside and waits until the owner has left.
    async fn leave(&mut self) -> Result<()> {
        if let Some((run, _)) = &self.standing {
            run.set_aside().await?;
        }
        self.bury();
        if let Some((run, _)) = &self.standing {
            run.take_up().await?;
        }
        Ok(())
    }

    /// Removes all runs and waits until the owner has left.
    async fn rest(&mut self) -> Result<()> {
        self.drop_standing().await?;
        self.life = None;
        self.bury();
        Ok(())
    }

    /// Bytes of the home beside its log, and of the log.
    fn bytes(&self) -> (u64, u64) {
        let log = file_bytes(&self.home.path().join("log"));
        (file_bytes(self.home.path()).saturating_sub(log), log)
    }

    /// Entries of the home that nobody needs once all runs are removed and the owner has left.
    fn temporary_files(&self) -> usize {
        let entries =
            |name: &str| std::fs::read_dir(self.home.path().join(name)).map_or(0, Iterator::count);
        ["uppers", "trash", "trust", "layers", "artifacts"].map(entries).iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_victim_has_its_turn_and_long_lives_are_among_them() {
        let check = |count: u32, kills: u32, longest: u32| {
            let all: Vec<Cycle> = (0..count).map(|number| cycle(number, count)).collect();
            let killed = all.iter().filter(|one| matches!(one, Cycle::Kill(..))).count();
            assert_eq!(killed, kills as usize, "{count}");
            let lives = all.split(|one| matches!(one, Cycle::Kill(..))).map(<[_]>::len);
            assert_eq!(lives.max(), Some(longest as usize), "{count}");
        };
        check(3, 0, 3);
        check(16, 4, 3);
        check(32, 4, 16);
        check(10_000, 1_250, 503);
        let victims: Vec<Cycle> = (0..64).map(|number| cycle(number, 64)).collect();
        for victim in VICTIMS {
            for when in [When::Running, When::Starting] {
                assert!(victims.contains(&Cycle::Kill(victim, when)), "{victim:?} {when:?}");
            }
        }
    }

    #[test]
    fn each_count_fails_beyond_its_limit() {
        let check = |soaked: Soaked, expected: &[&str]| assert_eq!(soaked.failing(), expected);
        check(Soaked::default(), &[]);
        check(Soaked { orphans: 1, ..Soaked::default() }, &["orphaned processes"]);
        let left = |processes, mounts, cgroups, namespaces| Soaked {
            left: Left { processes, mounts, cgroups, namespaces },
            ..Soaked::default()
        };
        check(left(1, 0, 0, 0), &["processes"]);
        check(left(0, 1, 0, 0), &["mounts"]);
        check(left(0, 0, 1, 0), &["cgroups"]);
        check(left(0, 0, 0, 1), &["namespaces"]);
        check(Soaked { files: 1, ..Soaked::default() }, &["temporary files"]);
        let grown = |descriptors, memory_bytes| Soaked {
            grown: Held { descriptors, memory_bytes },
            ..Soaked::default()
        };
        check(grown(DESCRIPTORS_GROWN_MAX, MEMORY_GROWN_BYTES_MAX), &[]);
        check(grown(DESCRIPTORS_GROWN_MAX + 1, 0), &["descriptors"]);
        check(grown(0, MEMORY_GROWN_BYTES_MAX + 1), &["memory"]);
        let disk = |disk_grown_bytes| Soaked { disk_grown_bytes, ..Soaked::default() };
        check(disk(DISK_GROWN_BYTES_MAX), &[]);
        check(disk(DISK_GROWN_BYTES_MAX + 1), &["disk beyond the log"]);
    }
}
