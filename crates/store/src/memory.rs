//! A store in memory: the model that other stores are compared with, and a stand-in for tests.
//!
//! It keeps every promise of the traits but durability. Nothing is encrypted: erasing drops the
//! bytes.

use crate::error::CANDIDATES_MAX;
use crate::prepare::{self, ACTOR, BODY, Draft, FORK_DEPTH_MAX, Piece};
use crate::{
    Append, Branch, Content, Created, Evidence, ForkPoint, GcReport, NewRecord, Read, Reply,
    RunRow, RunSummary, Store, StoreError,
};
use ledger::Head;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::{BRANCH_MAIN, BranchId, Record, RunId};

/// A store that lives as long as its last clone.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// In order of creation.
    runs: Vec<Run>,
    settings: BTreeMap<String, Vec<u8>>,
}

#[derive(Debug)]
struct Run {
    row: RunRow,
    epoch: u64,
    erased: bool,
    branches: Vec<Line>,
    /// Where it was forked from another run.
    origin: Option<ForkPoint>,
    /// The first run of those that were forked from one another: they are erased together.
    family: RunId,
    /// What it shares with its origin. A copy here, where nothing counts but what is answered.
    inherited: Vec<Entry>,
    /// How many stretches its first branch has.
    depth: usize,
}

/// What a branch has of its own.
#[derive(Debug)]
struct Line {
    forked: Option<(BranchId, u64)>,
    head: Head,
    own: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    header: Vec<u8>,
    pieces: Vec<Piece>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete before anything in it can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut State) -> Result<T, StoreError> + Send + 'static,
    ) -> Reply<T> {
        let store = self.clone();
        Box::pin(async move { act(&mut store.state()) })
    }
}

impl State {
    fn run(&self, run: &RunId) -> Result<&Run, StoreError> {
        let found = self.runs.iter().find(|have| have.row.run == *run);
        found.ok_or_else(|| no_such_run(run))
    }

    fn run_mut(&mut self, run: &RunId) -> Result<&mut Run, StoreError> {
        let found = self.runs.iter_mut().find(|have| have.row.run == *run);
        found.ok_or_else(|| no_such_run(run))
    }

    fn newest_first(&self) -> Vec<&Run> {
        let mut runs: Vec<_> = self.runs.iter().rev().collect();
        runs.sort_by_key(|run| std::cmp::Reverse(run.row.started_ms));
        runs
    }

    fn create(&mut self, row: RunRow, first: Vec<NewRecord>) -> Result<Created, StoreError> {
        if self.run(&row.run).is_ok() {
            return Err(StoreError::RunExists { run: row.run });
        }
        let drafts = prepare::drafts(&row.run, BRANCH_MAIN, 0, first)?;
        let mut line = Line { forked: None, head: Head::EMPTY, own: Vec::new() };
        let records = line.extend(drafts);
        let (family, inherited) = (row.run.clone(), Vec::new());
        let (epoch, erased, branches, origin, depth) = (1, false, vec![line], None, 1);
        self.runs.push(Run { row, epoch, erased, branches, origin, family, inherited, depth });
        Ok(Created { epoch: 1, records })
    }

    fn fork_run(
        &mut self,
        row: RunRow,
        from: ForkPoint,
        first: Vec<NewRecord>,
    ) -> Result<Created, StoreError> {
        let next_seq = from.at_seq.saturating_add(1);
        let drafts = prepare::drafts(&row.run, BRANCH_MAIN, next_seq, first)?;
        let other = self.run(&from.run)?;
        if other.erased {
            return Err(StoreError::Erased { run: from.run });
        }
        if self.run(&row.run).is_ok() {
            return Err(StoreError::RunExists { run: row.run });
        }
        let depth = other.depth_of(from.branch)?;
        prepare::limit("the depth of forks", depth, FORK_DEPTH_MAX as u64)?;
        if other.entry(from.branch, from.at_seq)?.is_none() {
            let what = format!("record {} on branch {}", from.at_seq, from.branch);
            return Err(other.no_such(what));
        }
        let count = usize::try_from(next_seq).expect("an index in memory");
        let shared = other.entries(from.branch, 0, count)?;
        let inherited: Vec<Entry> = shared.into_iter().map(|(_, entry)| entry.clone()).collect();
        let digest = ledger::digest_encoded(&inherited[count - 1].header);
        let mut line = Line { forked: None, head: Head { next_seq, digest }, own: Vec::new() };
        let records = line.extend(drafts);
        let (family, depth) = (other.family.clone(), depth + 1);
        let (epoch, erased, branches, origin) = (1, false, vec![line], Some(from));
        self.runs.push(Run { row, epoch, erased, branches, origin, family, inherited, depth });
        Ok(Created { epoch: 1, records })
    }

    /// Refuses when other runs share a run's records.
    fn check_unshared(&self, run: &RunId) -> Result<(), StoreError> {
        let from_it = |have: &&Run| have.origin.as_ref().is_some_and(|point| point.run == *run);
        let mut forks: Vec<String> =
            self.runs.iter().filter(from_it).map(|have| have.row.run.to_string()).collect();
        if forks.is_empty() {
            return Ok(());
        }
        forks.sort();
        let more = forks.len() > CANDIDATES_MAX;
        forks.truncate(CANDIDATES_MAX);
        Err(StoreError::HasForks { run: run.clone(), forks, more })
    }

    fn erase(&mut self, run: &RunId) -> Result<(), StoreError> {
        let family = self.run(run)?.family.clone();
        self.runs.iter_mut().filter(|have| have.family == family).for_each(Run::erase);
        Ok(())
    }
}

fn no_such_run(run: &RunId) -> StoreError {
    StoreError::NoSuchRun { text: run.to_string() }
}

impl Line {
    fn extend(&mut self, drafts: Vec<Draft>) -> Vec<Record> {
        let mut records = Vec::with_capacity(drafts.len());
        for mut draft in drafts {
            let header = prepare::link(&mut draft.header, &mut self.head);
            draft.record.prev = draft.header.prev;
            draft.record.digest = self.head.digest;
            records.push(draft.record);
            let pieces = draft.pieces;
            self.own.push(Entry { header, pieces });
        }
        records
    }
}

impl Run {
    fn line(&self, branch: BranchId) -> Result<&Line, StoreError> {
        let found = usize::try_from(branch).ok();
        found
            .and_then(|index| self.branches.get(index))
            .ok_or_else(|| self.no_such(format!("branch {branch}")))
    }

    fn no_such(&self, what: String) -> StoreError {
        let run = self.row.run.clone();
        StoreError::NoSuchPlace { run, what }
    }

    /// The entry a reader of `branch` sees at `seq`, if there is one.
    fn entry(&self, branch: BranchId, seq: u64) -> Result<Option<&Entry>, StoreError> {
        let mut line = self.line(branch)?;
        if seq >= line.head.next_seq {
            return Ok(None);
        }
        while let Some((parent, at)) = line.forked {
            if seq > at {
                let index = usize::try_from(seq - at - 1).expect("an index in memory");
                return Ok(line.own.get(index));
            }
            line = self.line(parent)?;
        }
        let index = usize::try_from(seq).expect("an index in memory");
        let own = index.checked_sub(self.inherited.len());
        Ok(own.map_or_else(|| self.inherited.get(index), |index| line.own.get(index)))
    }

    /// How many stretches a branch is made of.
    fn depth_of(&self, branch: BranchId) -> Result<usize, StoreError> {
        let mut depth = self.depth;
        let mut line = self.line(branch)?;
        while let Some((above, _)) = line.forked {
            depth += 1;
            line = self.line(above)?;
        }
        Ok(depth)
    }

    fn entries(
        &self,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, &Entry)>, StoreError> {
        self.line(branch)?;
        let mut entries = Vec::new();
        for seq in (from_seq..=u64::MAX).take(limit) {
            match self.entry(branch, seq)? {
                Some(entry) => entries.push((seq, entry)),
                None => break,
            }
        }
        Ok(entries)
    }

    fn record(&self, seq: u64, entry: &Entry) -> Result<Record, StoreError> {
        let run = ledger::decode(&entry.header).expect("it was encoded here").run;
        let bytes = |name| {
            let piece = entry.pieces.iter().find(|piece| piece.name == name);
            piece.map_or(&[][..], |piece| &piece.bytes)
        };
        prepare::assemble(&run, seq, &entry.header, bytes(ACTOR), bytes(BODY))
    }

    fn append(&mut self, append: Append) -> Result<Vec<Record>, StoreError> {
        let run = append.run;
        let drafts = prepare::drafts(&run, append.branch, append.next_seq, append.records)?;
        if self.erased {
            return Err(StoreError::Erased { run });
        }
        let next_seq = self.line(append.branch)?.head.next_seq;
        if (append.epoch, append.next_seq) != (self.epoch, next_seq) {
            return Err(StoreError::Fenced {
                run,
                branch: append.branch,
                given_seq: append.next_seq,
                next_seq,
                given_epoch: append.epoch,
                epoch: self.epoch,
            });
        }
        let index = usize::try_from(append.branch).expect("checked: the branch is there");
        Ok(self.branches[index].extend(drafts))
    }

    fn fork(&mut self, parent: BranchId, at_seq: u64) -> Result<BranchId, StoreError> {
        prepare::limit("the depth of forks", self.depth_of(parent)?, FORK_DEPTH_MAX as u64)?;
        let Some(entry) = self.entry(parent, at_seq)? else {
            return Err(self.no_such(format!("record {at_seq} on branch {parent}")));
        };
        if at_seq < self.inherited.len() as u64 {
            return Err(self.no_such(format!("record {at_seq} of its own on branch {parent}")));
        }
        let head = Head { next_seq: at_seq + 1, digest: ledger::digest_encoded(&entry.header) };
        let branch = BranchId::try_from(self.branches.len()).expect("branches fit in memory");
        self.branches.push(Line { forked: Some((parent, at_seq)), head, own: Vec::new() });
        Ok(branch)
    }

    fn erase(&mut self) {
        self.erased = true;
        let entries = self.branches.iter_mut().flat_map(|line| &mut line.own);
        for piece in entries.chain(&mut self.inherited).flat_map(|entry| &mut entry.pieces) {
            piece.bytes = Vec::new();
            piece.salt = Default::default();
        }
    }

    fn summary(&self) -> Result<RunSummary, StoreError> {
        let head_seq = self.line(BRANCH_MAIN)?.head.next_seq.checked_sub(1);
        let mut summary = RunSummary {
            run: self.row.run.clone(),
            started_ms: self.row.started_ms,
            epoch: self.epoch,
            head_seq,
            head_kind: String::new(),
            last: None,
            erased: self.erased,
        };
        let Some(seq) = head_seq else {
            return Ok(summary);
        };
        if let Some(entry) = self.entry(BRANCH_MAIN, seq)? {
            let header = ledger::decode(&entry.header).expect("it was encoded here");
            summary.head_kind = header.kind;
            if !self.erased {
                summary.last = Some(self.record(seq, entry)?);
            }
        }
        Ok(summary)
    }
}

impl Read for MemoryStore {
    fn runs(&self) -> Result<Vec<RunSummary>, StoreError> {
        let state = self.state();
        state.newest_first().into_iter().map(Run::summary).collect()
    }

    fn find(&self, text: &str) -> Result<RunId, StoreError> {
        let state = self.state();
        let none = || StoreError::NoSuchRun { text: text.chars().take(80).collect() };
        if text == "last" {
            let newest = state.newest_first().first().map(|run| run.row.run.clone());
            return newest.ok_or_else(none);
        }
        let fits = |run: &&RunId| !text.is_empty() && run.as_str().starts_with(text);
        let mut found: Vec<_> = state.runs.iter().map(|run| &run.row.run).collect();
        found.retain(|run| fits(run));
        found.sort();
        match found.as_slice() {
            [] => Err(none()),
            [one] => Ok((*one).clone()),
            many => Err(StoreError::AmbiguousRun {
                text: text.to_owned(),
                candidates: many.iter().take(CANDIDATES_MAX).map(ToString::to_string).collect(),
                more: many.len() > CANDIDATES_MAX,
            }),
        }
    }

    fn branches(&self, run: &RunId) -> Result<Vec<Branch>, StoreError> {
        let state = self.state();
        let run = state.run(run)?;
        let lines = (BRANCH_MAIN..).zip(&run.branches);
        let here = |(branch, at_seq)| ForkPoint { run: run.row.run.clone(), branch, at_seq };
        let branch = |(branch, line): (BranchId, &Line)| Branch {
            branch,
            forked: match branch {
                BRANCH_MAIN => run.origin.clone(),
                _ => line.forked.map(here),
            },
            next_seq: line.head.next_seq,
        };
        Ok(lines.map(branch).collect())
    }

    fn head(&self, run: &RunId, branch: BranchId) -> Result<Head, StoreError> {
        Ok(self.state().run(run)?.line(branch)?.head)
    }

    fn records_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Record>, StoreError> {
        let state = self.state();
        let run = state.run(run)?;
        if run.erased {
            let run = run.row.run.clone();
            return Err(StoreError::Erased { run });
        }
        let entries = run.entries(branch, from_seq, limit)?.into_iter();
        entries.map(|(seq, entry)| run.record(seq, entry)).collect()
    }

    fn headers_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Vec<u8>>, StoreError> {
        let state = self.state();
        let entries = state.run(run)?.entries(branch, from_seq, limit)?.into_iter();
        Ok(entries.map(|(_, entry)| entry.header.clone()).collect())
    }

    fn evidence_page(
        &self,
        run: &RunId,
        branch: BranchId,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Evidence>, StoreError> {
        let state = self.state();
        let run = state.run(run)?;
        let content = |piece: &Piece| {
            let content = if run.erased {
                Content::Erased
            } else {
                Content::Present(piece.salt, piece.bytes.clone())
            };
            (piece.name.clone(), content)
        };
        let evidence = |(_, entry): (u64, &Entry)| Evidence {
            header: entry.header.clone(),
            contents: entry.pieces.iter().map(content).collect(),
        };
        let entries = run.entries(branch, from_seq, limit)?;
        Ok(entries.into_iter().map(evidence).collect())
    }

    fn attachment(
        &self,
        run: &RunId,
        branch: BranchId,
        seq: u64,
        name: &str,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let state = self.state();
        let run = state.run(run)?;
        let entry = run.entry(branch, seq)?.filter(|_| !run.erased);
        let mut attachments = entry.iter().flat_map(|entry| entry.pieces.iter().skip(2));
        let found = attachments.find(|piece| piece.name == name);
        Ok(found.map(|piece| piece.bytes.clone()))
    }

    fn setting(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.state().settings.get(name).cloned())
    }
}

impl Store for MemoryStore {
    fn create_run(&self, row: RunRow, first: Vec<NewRecord>) -> Reply<Created> {
        self.reply(|state| state.create(row, first))
    }

    fn append(&self, append: Append) -> Reply<Vec<Record>> {
        self.reply(|state| state.run_mut(&append.run)?.append(append))
    }

    fn claim(&self, run: &RunId) -> Reply<u64> {
        let run = run.clone();
        self.reply(move |state| {
            let run = state.run_mut(&run)?;
            run.epoch += 1;
            Ok(run.epoch)
        })
    }

    fn fork_branch(&self, run: &RunId, parent: BranchId, at_seq: u64) -> Reply<BranchId> {
        let run = run.clone();
        self.reply(move |state| state.run_mut(&run)?.fork(parent, at_seq))
    }

    fn fork_run(&self, row: RunRow, from: ForkPoint, first: Vec<NewRecord>) -> Reply<Created> {
        self.reply(move |state| state.fork_run(row, from, first))
    }

    fn erase(&self, run: &RunId) -> Reply<()> {
        let run = run.clone();
        self.reply(move |state| state.erase(&run))
    }

    fn remove(&self, run: &RunId) -> Reply<()> {
        let run = run.clone();
        self.reply(move |state| {
            state.run(&run)?;
            state.check_unshared(&run)?;
            state.runs.retain(|have| have.row.run != run);
            Ok(())
        })
    }

    fn gc(&self) -> Reply<GcReport> {
        self.reply(|_| Ok(GcReport::default()))
    }

    fn set_setting(&self, name: &str, value: &[u8]) -> Reply<()> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.reply(move |state| {
            state.settings.insert(name, value);
            Ok(())
        })
    }
}
