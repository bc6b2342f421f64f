//! What POSIX says of files, tried by one program inside a sandbox and in a plain directory: line by
//! line the same, but for the deviations listed here and in `docs/worlds.md`. And the same again with
//! a seal half way.

use super::holder::Holder;
use super::plain::Plain;
use super::{Folder, is_root};
use std::collections::BTreeMap;

const POSIX: &str = include_str!("posix.py");

/// Cases that answer otherwise inside. Each act must occur: a list that is too long fails too.
struct Deviation {
    acts: &'static [&'static str],
    /// What it is tried on; one of them is enough.
    kinds: &'static [&'static str],
    /// What is said inside has this in it.
    inside: &'static str,
    /// Also as root.
    root: bool,
    /// Also when no seal lies in between.
    unsealed: bool,
}

const DEVIATIONS: [Deviation; 5] = [
    // There is one user and one group inside.
    Deviation {
        acts: &["chown-other"],
        kinds: &["file", "empty", "full", "link", "fifo", "socket", "twin", "shut"],
        inside: "EINVAL | ",
        root: true,
        unsealed: true,
    },
    Deviation {
        acts: &["mkdevice", "mkwhite"],
        kinds: &["none"],
        inside: "EACCES | ",
        root: true,
        unsealed: true,
    },
    Deviation {
        acts: &["rename", "noreplace", "exchange", "longest", "to-other", "up"],
        kinds: &["empty", "full"],
        inside: "EXDEV | ",
        root: false,
        unsealed: false,
    },
    // The other name keeps what it was.
    Deviation {
        acts: &[
            "chmod",
            "chmod-none",
            "sticky",
            "open-trunc",
            "truncate",
            "extend",
            "stale",
            "through",
        ],
        kinds: &["twin"],
        inside: "a-other=100644/5",
        root: false,
        unsealed: false,
    },
    // They are no longer one file, so that the one takes the other's place.
    Deviation {
        acts: &["to-other"],
        kinds: &["twin"],
        inside: "None | a-other=100644/5",
        root: false,
        unsealed: false,
    },
];

impl Deviation {
    fn fits(&self, case: &str, said: &str) -> bool {
        let mut words = case.split(':');
        words.next().is_some_and(|act| self.acts.contains(&act))
            && words.any(|kind| self.kinds.contains(&kind))
            && said.contains(self.inside)
    }
}

/// Lines by case.
fn by_case(lines: &[String]) -> BTreeMap<String, String> {
    let split = |line: &String| match line.split_once(" -> ") {
        Some((case, said)) => (case.to_owned(), said.to_owned()),
        None => (line.clone(), String::new()),
    };
    lines.iter().map(split).collect()
}

fn judge(inside: &[String], outside: &[String], sealed: bool) {
    let (inside, outside) = (by_case(inside), by_case(outside));
    assert_eq!(inside.len(), outside.len());
    let known: Vec<&Deviation> = DEVIATIONS
        .iter()
        .filter(|known| (known.root || !is_root()) && (known.unsealed || sealed))
        .collect();
    let mut missing: Vec<&str> = known.iter().flat_map(|known| known.acts).copied().collect();
    let mut wrong = Vec::new();
    for (case, said) in &inside {
        let plain = outside.get(case);
        if plain == Some(said) {
            continue;
        }
        if known.iter().any(|known| known.fits(case, said)) {
            missing.retain(|act| !case.starts_with(&format!("{act}:")));
        } else {
            wrong.push(format!("{case}: {said}, but plain {plain:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} deviations:\n{}", wrong.len(), wrong.join("\n"));
    assert!(missing.is_empty(), "no longer deviations: {missing:?}");
}

/// The program in both places; with two `halves`, the first is sealed before the second.
fn check(halves: &[&str]) {
    let home = Folder::new();
    let plain = Plain::new();
    let dir = plain.empty();
    let mut holder = Holder::start(&home.0, POSIX);
    let mut layer = holder.ask("empty").unwrap();
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for half in halves {
        let file = plain.file(half);
        let upper = holder.ask(&format!("begin {layer}")).unwrap();
        let done = plain.start(&dir, &file, POSIX);
        inside.extend(holder.run(&upper, &file).unwrap());
        outside.extend(done.end());
        holder.ask(&format!("seal {upper}")).unwrap();
        layer = upper;
    }
    assert!(inside.len() > 2000, "{} lines", inside.len());
    assert!(outside.iter().all(|line| !line.contains("False False")), "the shadow is right");
    judge(&inside, &outside, halves.len() > 1);
}

#[test]
fn posix_calls_answer_as_in_a_plain_directory() {
    check(&["whole"]);
}

#[test]
fn posix_calls_answer_as_in_a_plain_directory_across_a_seal() {
    check(&["make", "act"]);
}
