//! Makes histories: what is done to layers, in which order. Knows nothing of what should come of it.

use std::fmt;

/// Operations of one branch at most.
const BRANCH_MAX: u64 = 120;
/// What a history has been done to may be looked back at this far.
pub(crate) const KEPT: usize = 6;

/// Reproducible chance.
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    /// Any seed will do.
    pub(crate) const fn new(seed: u64) -> Self {
        // Nearby seeds shall have nothing in common, and zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len() as u64) as usize]
    }
}

/// One operation on files; `perform.py` does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    verb: &'static str,
    path: Vec<u8>,
    other: Vec<u8>,
    number: u64,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, path, other, number } = self;
        write!(f, "{verb} {} {} {number}", path.escape_ascii(), other.escape_ascii())
    }
}

/// The operations as the program reads them; before the one numbered `stop` it stops.
pub(crate) fn script(operations: &[Operation], stop: Option<usize>) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let line = |operation: &Operation| {
        let Operation { verb, path, other, number } = operation;
        format!("{verb} {} {} {number}\n", hex(path), hex(other))
    };
    let mut lines: Vec<String> = operations.iter().map(line).collect();
    if let Some(stop) = stop {
        lines.insert(stop.min(lines.len()), "stop 2e 2e 0\n".to_owned());
    }
    lines.concat()
}

/// How a step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Its uppers become layers.
    Seal,
    /// They are thrown away.
    Drop,
    /// Their holder is killed before this operation of the last branch.
    KillBefore(usize),
    /// Their holder is killed while the last branch is at work.
    KillAtWork,
    /// Their holder is killed while it seals the last branch.
    KillSealing,
}

/// What is done to the store after a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Then {
    Nothing,
    /// Its holder is killed at rest.
    Kill,
    /// All layers but the latest points are forgotten.
    Forget,
    /// The latest point is written through to the disk.
    Flush,
}

/// One or more uppers on one point, worked on, and ended together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// How many points it goes back, as far as they are kept.
    pub(crate) back: usize,
    pub(crate) branches: Vec<Vec<Operation>>,
    pub(crate) end: End,
    pub(crate) then: Then,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "- back {}, {:?}, then {:?}", self.back, self.end, self.then)?;
        for (number, operations) in self.branches.iter().enumerate() {
            for operation in operations {
                writeln!(f, "    {number}: {operation}")?;
            }
        }
        Ok(())
    }
}

const VERBS: [&str; 35] = [
    "create",
    "create",
    "create",
    "create",
    "write",
    "write",
    "append",
    "truncate",
    "sparse",
    "again",
    "unlink",
    "unlink",
    "mkdir",
    "mkdir",
    "mkdir",
    "mkdir",
    "mkdir",
    "rmdir",
    "remove_all",
    "rename",
    "rename",
    "rename",
    "rename",
    "rename",
    "link",
    "link",
    "symlink",
    "chmod",
    "chmod",
    "date",
    "date",
    "setxattr",
    "removexattr",
    "fifo",
    "socket",
];

/// Few names, so that they meet, and some that are hard to carry.
const NAMES: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
const ODD: [&[u8]; 8] =
    [b"e f", b"-x", "\u{fc}".as_bytes(), b".wh.a", b"g\nh", b"\xff\xfe", &[b'l'; 200], b"\\*'\"|"];

fn path(chance: &mut Chance) -> Vec<u8> {
    if chance.below(60) == 0 {
        return b".".to_vec();
    }
    let mut name = || match chance.below(12) {
        0 => chance.of(&ODD).to_vec(),
        _ => chance.of(&NAMES).to_vec(),
    };
    let first = name();
    let mut parts = vec![first, name(), name()];
    parts.truncate(1 + chance.below(3) as usize);
    parts.join(&b'/')
}

pub(crate) fn operations(chance: &mut Chance, max: u64) -> Vec<Operation> {
    let one = |chance: &mut Chance| Operation {
        verb: VERBS[chance.below(VERBS.len() as u64) as usize],
        path: path(chance),
        other: path(chance),
        number: chance.below(100_000),
    };
    (0..1 + chance.below(max)).map(|_| one(chance)).collect()
}

fn step(chance: &mut Chance) -> Step {
    let branches = if chance.below(10) == 0 { 2 } else { 1 };
    // Short ones as often as long ones.
    let branches: Vec<_> = (0..branches)
        .map(|_| {
            let max = 1 + chance.below(BRANCH_MAX);
            operations(chance, max)
        })
        .collect();
    let last = branches.last().map_or(0, Vec::len);
    let end = match chance.below(40) {
        0 => End::Drop,
        1 | 2 => End::KillBefore(chance.below(last as u64 + 1) as usize),
        3 => End::KillAtWork,
        4 => End::KillSealing,
        _ => End::Seal,
    };
    let then = match chance.below(30) {
        0 => Then::Kill,
        1 => Then::Forget,
        2 => Then::Flush,
        _ => Then::Nothing,
    };
    let back = if chance.below(14) == 0 { chance.below(KEPT as u64) as usize } else { 0 };
    Step { back, branches, end, then }
}

pub(crate) fn count(history: &[Step]) -> usize {
    history.iter().flat_map(|step| &step.branches).map(Vec::len).sum()
}

/// A history of at least this many operations.
pub(crate) fn make(seed: u64, wanted: usize) -> Vec<Step> {
    let mut chance = Chance::new(seed);
    let (mut history, mut operations) = (Vec::new(), 0);
    while operations < wanted {
        let step = step(&mut chance);
        operations += count(std::slice::from_ref(&step));
        history.push(step);
    }
    history
}

/// What is left of a failing history when everything is cut that it fails without. Tries at most
/// `tries` times.
pub(crate) fn shrink(
    history: Vec<Step>,
    tries: usize,
    fails: &mut dyn FnMut(&[Step]) -> bool,
) -> Vec<Step> {
    let mut left = tries;
    let mut history = cut(history, &mut left, fails);
    for at in 0..history.len() {
        for branch in 0..history[at].branches.len() {
            let with = |operations: &[Operation]| {
                let mut changed = history.clone();
                changed[at].branches[branch] = operations.to_vec();
                changed
            };
            let operations = history[at].branches[branch].clone();
            let shorter = cut(operations, &mut left, &mut |operations| fails(&with(operations)));
            history = with(&shorter);
        }
    }
    history
}

/// Cuts halves, quarters and so on, until each single one is needed.
fn cut<T: Clone>(
    mut list: Vec<T>,
    left: &mut usize,
    fails: &mut dyn FnMut(&[T]) -> bool,
) -> Vec<T> {
    let mut piece = list.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < list.len() && *left > 0 {
            let mut shorter = list.clone();
            shorter.drain(at..list.len().min(at + piece));
            *left -= 1;
            if fails(&shorter) {
                list = shorter;
            } else {
                at += piece;
            }
        }
        piece = if piece == 1 { 0 } else { piece.div_ceil(2) };
    }
    list
}

#[test]
fn a_failing_history_is_cut_to_what_it_needs() {
    let history = make(7, 2000);
    let fifo =
        |step: &Step| step.branches.iter().flatten().any(|operation| operation.verb == "fifo");
    let kills = |step: &Step| step.end == End::KillAtWork;
    let mut fails = |history: &[Step]| history.iter().any(fifo) && history.iter().any(kills);
    assert!(fails(&history));
    let left = shrink(history.clone(), 10_000, &mut fails);
    assert!(fails(&left) && left.len() <= 2, "{left:?}");
    assert_eq!(count(&left), 1, "{left:?}");
    // With no try left it stays as it is.
    assert_eq!(shrink(history.clone(), 0, &mut fails), history);
}

#[test]
fn a_seed_makes_one_history_and_another_seed_another() {
    assert_eq!(make(3, 500), make(3, 500));
    assert_ne!(make(3, 500), make(4, 500));
    assert!(count(&make(3, 500)) >= 500);
}
