//! A run's records as server-sent events.
//!
//! The number of an event is the number of its record, so whoever read N goes on with N + 1: no gap,
//! no record twice, from any number, whatever died in between. The stream follows the run until it
//! has ended, and says so.

use crate::Refusal;
use crate::answer::{self, Answer, pieces};
use crate::body::bad;
use crate::limits::{HEARTBEAT, PAGE_RECORDS_MAX, PIECES_MAX};
use crate::log::Log;
use bytes::Bytes;
use serde_json::json;
use store::Read as _;
use tokio::sync::mpsc;
use types::{BRANCH_MAIN, Record, RunId};

pub(crate) const KIND: &str = "text/event-stream";
/// Said when there is nothing else to say.
pub(crate) const ALIVE: &[u8] = b": alive\n\n";

/// Streams a run's records from this number on; to the log's end only, unless it is to be followed.
pub(crate) async fn stream(
    log: &Log,
    run: RunId,
    from: u64,
    follow: bool,
) -> Result<Answer, Refusal> {
    let asked = run.clone();
    let head = log.read(move |reader| reader.head(&asked, BRANCH_MAIN)).await?;
    if from > head.next_seq {
        let last = head.next_seq.saturating_sub(1);
        return Err(bad(format!("there is no record {from} yet; the last one is {last}")).into());
    }
    let (to, from_us) = mpsc::channel(PIECES_MAX);
    let reading = Reading { log: log.clone(), run, from, follow, to };
    // An error in the middle ends the stream; whoever reads it asks again and is told why.
    tokio::spawn(async move { drop(reading.run().await) });
    Ok(pieces(KIND, from_us))
}

/// One reader of a run.
struct Reading {
    log: Log,
    run: RunId,
    from: u64,
    follow: bool,
    to: mpsc::Sender<Bytes>,
}

impl Reading {
    async fn run(mut self) -> Result<(), Refusal> {
        let mut grown = self.log.growth();
        loop {
            grown.borrow_and_update();
            let page = self.log.page(&self.run, self.from, PAGE_RECORDS_MAX).await?;
            for record in &page {
                self.from = record.stamp.seq + 1;
                if !self.tell(event(record)).await {
                    return Ok(());
                }
            }
            if !page.is_empty() {
                continue;
            }
            let (next_seq, ended) =
                self.log.state(&self.run, |state| (state.next_seq, state.ended.is_some())).await?;
            if next_seq > self.from {
                continue;
            }
            if ended || !self.follow {
                self.tell(end(self.from, ended)).await;
                return Ok(());
            }
            tokio::select! {
                _ = grown.changed() => {}
                () = tokio::time::sleep(HEARTBEAT) => {
                    if !self.tell(Bytes::from_static(ALIVE)).await {
                        return Ok(());
                    }
                }
                () = self.to.closed() => return Ok(()),
            }
        }
    }

    /// Whether somebody still reads.
    async fn tell(&self, piece: Bytes) -> bool {
        answer::tell(&self.to, piece).await
    }
}

fn event(record: &Record) -> Bytes {
    let data = serde_json::to_string(record).expect("a record is plain data");
    format!("id: {}\ndata: {data}\n\n", record.stamp.seq).into()
}

/// The last event of a stream: nothing is left to be told.
fn end(next: u64, ended: bool) -> Bytes {
    answer::event("end", &json!({ "next": next, "ended": ended }))
}
