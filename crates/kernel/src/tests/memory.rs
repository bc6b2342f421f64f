//! Memory: what a run begins with, seals, and owes the runs to come.

use super::*;
use types::manifest::{Memory as Settings, MemoryAccess, Serves};
use types::{Labels, MemoryOf, MemoryStart};

fn remembering(access: MemoryAccess) -> Run {
    let mut run = Run::new(Vec::new());
    let Body::RunStarted { manifest, memory, .. } = &mut run.records[0].body else {
        panic!("a run begins so");
    };
    manifest.checks.clear();
    manifest.memory = Some(Settings { access, serves: Serves::User, bytes_max: 1 });
    let of = MemoryOf { agent: "a".to_owned(), serves: Serves::User, name: "ada".to_owned() };
    let labels = Labels::one("untrusted");
    *memory = Some(Box::new(MemoryStart { of, version: 3, layer: layer(50), labels }));
    run.state = State::of(&run.records);
    run
}

fn sealed(run: &mut Run, number: u8) {
    let parent = run.state.memory.as_ref().expect("it has one").layer.clone();
    run.append(Body::MemorySealed { layer: layer(number), parent, changed: 1 });
}

fn failure() -> Failure {
    Failure { code: "X".to_owned(), message: String::new(), next: String::new() }
}

#[test]
fn a_run_works_with_the_labels_of_what_it_remembers() {
    let run = remembering(MemoryAccess::Write);
    assert!(run.state.labels.iter().any(|label| label == "untrusted"));
}

#[test]
fn the_end_brings_what_changed_once_and_what_was_refused_only_when_it_changed_again() {
    let mut run = remembering(MemoryAccess::Write);
    let owes = |run: &Run| crate::next::finish(&run.state) == Command::MergeMemory;
    assert!(!owes(&run), "nothing changed");
    sealed(&mut run, 51);
    assert!(owes(&run));
    run.append(Body::MemoryOffered { layer: layer(51), by: String::new() });
    assert!(owes(&run), "a death here loses nothing");
    run.append(Body::MemoryRefused { failure: failure(), conflicts: Vec::new() });
    assert!(!owes(&run));
    sealed(&mut run, 52);
    assert!(owes(&run));
    run.append(Body::MemoryMerged { version: 5, layer: layer(60), changed: 1 });
    assert!(!owes(&run));
    let memory = run.state.memory.clone().expect("it has one");
    assert_eq!((memory.version, memory.base, memory.layer), (5, layer(60), layer(60)));
}

#[test]
fn who_may_only_read_and_an_attempt_owe_nothing() {
    let mut reader = remembering(MemoryAccess::Read);
    sealed(&mut reader, 51);
    assert_eq!(crate::next::finish(&reader.state), Command::KeepArtifacts);
    let mut run = remembering(MemoryAccess::Write);
    sealed(&mut run, 51);
    let origin = RunId::parse("000000000000").expect("valid");
    let at = run.state.next_seq - 1;
    let attempt = Some(Attempt { number: 0, seed: 1 });
    run.append(Body::Forked { origin, at, by: "ada".to_owned(), attempt });
    assert_eq!(crate::next::finish(&run.state), Command::KeepArtifacts);
}

#[test]
fn memory_goes_back_with_the_run() {
    let mut run = remembering(MemoryAccess::Write);
    sealed(&mut run, 51);
    let at = run.state.next_seq - 1;
    sealed(&mut run, 52);
    let to = run.state.layer.clone().expect("a layer");
    let (reason, by) = (String::new(), "ada".to_owned());
    run.append(Body::RolledBack { to, reason, at: Some(at), by });
    assert_eq!(run.state.memory.expect("it has one").layer, layer(51));
}
