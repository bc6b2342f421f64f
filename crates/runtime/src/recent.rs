//! A live run's newest records, for who watches it: from memory while they are there, else from the
//! log.
//!
//! What always holds: a record is here only when the log has it; nothing is kept while nobody
//! watches, and never more than [`KEPT_MAX`] records.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use types::Record;

/// Records kept for who watches. Who is further behind reads the log.
const KEPT_MAX: usize = 512;

#[derive(Debug, Default)]
struct Kept {
    records: VecDeque<Arc<Record>>,
    watchers: usize,
}

/// The newest records of one run.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    kept: Mutex<Kept>,
}

impl Recent {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that stand in the log now, in order, right after those before.
    pub(crate) fn push(&self, records: &[Arc<Record>]) {
        let mut kept = self.kept();
        if kept.watchers > 0 {
            kept.records.extend(records.iter().cloned());
            let over = kept.records.len().saturating_sub(KEPT_MAX);
            kept.records.drain(..over);
        }
    }

    /// Keeps records for as long as the watcher is there.
    pub(crate) fn watch(self: &Arc<Self>) -> Watcher {
        self.kept().watchers += 1;
        Watcher(Arc::clone(self))
    }
}

/// Somebody who watches.
#[derive(Debug)]
pub(crate) struct Watcher(Arc<Recent>);

impl Watcher {
    /// The records from this number on; `None` when the log must be read.
    pub(crate) fn since(&self, from: u64) -> Option<Vec<Arc<Record>>> {
        let kept = self.0.kept();
        let first = kept.records.front()?.stamp.seq;
        let skip = usize::try_from(from.checked_sub(first)?).ok()?;
        Some(kept.records.iter().skip(skip).cloned().collect())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut kept = self.0.kept();
        kept.watchers -= 1;
        if kept.watchers == 0 {
            kept.records = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::{Actor, Body, Digest, RunId, Stamp};

    fn record(seq: u64) -> Arc<Record> {
        let run = RunId::from_random([1; 8]);
        let stamp = Stamp { run, branch: 0, seq, time_ms: 0, mono_ms: 0, boot: 0 };
        let body = Body::CancelRequested { by: "somebody".to_owned() };
        let (causes, actor) = (Vec::new(), Actor::default());
        let (prev, digest) = (Digest::ZERO, Digest::ZERO);
        Arc::new(Record { stamp, prev, digest, causes, actor, body })
    }

    fn seqs(watcher: &Watcher, from: u64) -> Option<Vec<u64>> {
        let records = watcher.since(from)?;
        Some(records.iter().map(|record| record.stamp.seq).collect())
    }

    #[test]
    fn who_watches_has_what_came_since_and_reads_the_log_for_what_came_before() {
        let recent = Arc::new(Recent::default());
        recent.push(&[record(0), record(1)]);
        let watcher = recent.watch();
        assert_eq!(seqs(&watcher, 0), None, "nobody watched then");
        recent.push(&[record(2), record(3)]);
        recent.push(&[record(4)]);
        assert_eq!(seqs(&watcher, 1), None);
        assert_eq!(seqs(&watcher, 2), Some(vec![2, 3, 4]));
        assert_eq!(seqs(&watcher, 4), Some(vec![4]));
        assert_eq!(seqs(&watcher, 5), Some(vec![]));
        let second = recent.watch();
        drop(watcher);
        assert_eq!(seqs(&second, 3), Some(vec![3, 4]), "somebody still watches");
        drop(second);
        assert_eq!(seqs(&recent.watch(), 3), None, "nothing is kept for nobody");
    }

    #[test]
    fn only_so_many_are_kept() {
        let recent = Arc::new(Recent::default());
        let watcher = recent.watch();
        let last = KEPT_MAX as u64;
        (0..=last).for_each(|seq| recent.push(&[record(seq)]));
        assert_eq!(seqs(&watcher, 0), None);
        assert_eq!(seqs(&watcher, 1).map(|seqs| seqs.len()), Some(KEPT_MAX));
    }
}
