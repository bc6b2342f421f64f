//! The log as the API reads it: records by page, runs folded as far as they go, and the moment when
//! there is more.
//!
//! Everything is read from the store; what is kept here is what was read, and can be thrown away.

use crate::Refusal;
use crate::limits::{FOLDED_RUNS_MAX, LOOK_MAX, LOOK_MIN, PAGE_RECORDS_MAX};
use kernel::State;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Changes, Read as _, Reader, StoreError};
use tokio::sync::{Notify, watch};
use types::{BRANCH_MAIN, Digest, Record, RunId};

/// A run, folded.
#[derive(Debug)]
struct Folded {
    state: State,
    /// Digest of the last record that was folded.
    last: Digest,
}

/// The log of a home, to read.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    reader: Arc<Reader>,
    folded: Arc<Mutex<BTreeMap<RunId, Arc<Mutex<Folded>>>>>,
    grown: watch::Sender<()>,
    /// Somebody waits for growth.
    wanted: Arc<Notify>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Log {
    /// Reads the log of this home, and looks from now on whether it grows.
    pub(crate) fn open(home: &Path) -> Result<Self, StoreError> {
        let reader = Arc::new(Reader::open(home)?);
        let (grown, wanted) = (watch::Sender::new(()), Arc::new(Notify::new()));
        tokio::spawn(look(Changes::of(home), grown.clone(), Arc::clone(&wanted)));
        Ok(Self { reader, folded: Arc::default(), grown, wanted })
    }

    /// Told of each growth after this call.
    pub(crate) fn growth(&self) -> watch::Receiver<()> {
        let growth = self.grown.subscribe();
        self.wanted.notify_one();
        growth
    }

    /// Reads, where blocking disturbs nobody.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let reader = Arc::clone(&self.reader);
        let read = tokio::task::spawn_blocking(move || look(&reader)).await;
        Ok(read.expect("reading the log does not panic")?)
    }

    /// The run that `text` means.
    pub(crate) async fn find(&self, text: String) -> Result<RunId, Refusal> {
        self.read(move |reader| reader.find(&text)).await
    }

    /// Up to a page of records from this number on.
    pub(crate) async fn page(
        &self,
        run: &RunId,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Record>, Refusal> {
        let run = run.clone();
        let limit = limit.min(PAGE_RECORDS_MAX);
        self.read(move |reader| reader.records_page(&run, BRANCH_MAIN, from, limit)).await
    }

    /// Looks at a run as it stands now.
    pub(crate) async fn state<T: Send + 'static>(
        &self,
        run: &RunId,
        look: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (run, entry) = (run.clone(), self.entry(run));
        self.read(move |reader| {
            let mut folded = lock(&entry);
            folded.catch_up(reader, &run)?;
            Ok(look(&folded.state))
        })
        .await
    }

    fn entry(&self, run: &RunId) -> Arc<Mutex<Folded>> {
        let mut all = lock(&self.folded);
        if !all.contains_key(run) && all.len() >= FOLDED_RUNS_MAX {
            // Whichever nobody looks at now; it is read again when it is wanted.
            let idle = all.iter().find(|(_, entry)| Arc::strong_count(entry) == 1);
            if let Some(idle) = idle.map(|(run, _)| run.clone()) {
                all.remove(&idle);
            }
        }
        Arc::clone(all.entry(run.clone()).or_default())
    }
}

impl Default for Folded {
    fn default() -> Self {
        Self { state: State::new(), last: Digest::ZERO }
    }
}

impl Folded {
    /// Folds what came since. A run that was removed and made again is begun anew.
    fn catch_up(&mut self, reader: &Reader, run: &RunId) -> Result<(), StoreError> {
        loop {
            let from = self.state.next_seq.saturating_sub(1);
            let page = reader.records_page(run, BRANCH_MAIN, from, PAGE_RECORDS_MAX)?;
            let known = self.state.next_seq > 0;
            if known && page.first().is_none_or(|record| record.digest != self.last) {
                *self = Self::default();
                continue;
            }
            let whole = page.len() == PAGE_RECORDS_MAX;
            for record in page.iter().skip(usize::from(known)) {
                if record.body.goes_back_to().is_some() {
                    return self.fold_anew(reader, run);
                }
                self.state.fold(record);
                self.last = record.digest;
            }
            if !whole {
                return Ok(());
            }
        }
    }
}

impl Folded {
    /// Folds the whole log: a run that went back is as it was before.
    fn fold_anew(&mut self, reader: &Reader, run: &RunId) -> Result<(), StoreError> {
        let records = reader.records(run, BRANCH_MAIN, 0)?;
        self.state = State::of(&records);
        self.last = records.last().map_or(Digest::ZERO, |record| record.digest);
        Ok(())
    }
}

/// Looks whether the log has grown, while somebody waits for it: often at first, then less.
async fn look(mut changes: Changes, grown: watch::Sender<()>, wanted: Arc<Notify>) {
    let mut pause = LOOK_MIN;
    loop {
        // Nobody to tell is nothing to look for; who comes reads first, and waits then.
        while grown.receiver_count() == 0 {
            wanted.notified().await;
        }
        tokio::time::sleep(pause).await;
        // A look is a few microseconds in shared memory. What cannot be looked at may have grown.
        if changes.came().unwrap_or(true) {
            pause = LOOK_MIN;
            grown.send_replace(());
        } else {
            pause = (pause * 2).min(LOOK_MAX);
        }
    }
}
