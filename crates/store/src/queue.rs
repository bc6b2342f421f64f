//! The queue before the writer: bounded by what waits in it, and open to any thread.
//!
//! What always holds: a request waits for room before it is queued, and keeps that room until it is
//! answered; after [`Queue::close`] every request is answered, if only that the store is closed.

use crate::StoreError;
use crate::model::Durability;
use crate::writer::{Desk, Job};
use rusqlite::Connection;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Content that may wait: 64 MiB, counted in KiB.
const ROOM_KIB_MAX: u32 = 64 << 10;
/// What a request counts at least, so that no more than 4096 wait.
const REQUEST_KIB_MIN: u32 = 16;

/// What takes long and is not the writer's: sealing large content, files.
pub(crate) type Task = Box<dyn FnOnce() + Send>;

pub(crate) struct Queue {
    room: Arc<Semaphore>,
    /// `None` once closed.
    senders: Mutex<Option<Senders>>,
}

#[derive(Clone)]
struct Senders {
    writer: Sender<Box<dyn Job>>,
    hand: Sender<Task>,
    desk: Desk,
}

/// Makes the writer look at its write-ahead log.
struct Nudge;

impl Job for Nudge {
    fn durability(&self) -> Durability {
        Durability::Written
    }

    fn apply(&mut self, _conn: &Connection) -> Result<(), StoreError> {
        Ok(())
    }

    fn finish(self: Box<Self>, _result: Result<(), StoreError>) {}
}

/// A request and where its answer goes.
struct Request<T, F> {
    durability: Durability,
    act: F,
    value: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl<T, F> Job for Request<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, StoreError> + Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn apply(&mut self, conn: &Connection) -> Result<(), StoreError> {
        self.value = Some((self.act)(conn)?);
        Ok(())
    }

    fn finish(self: Box<Self>, result: Result<(), StoreError>) {
        let value = self.value;
        let answer = result.map(|()| value.expect("a request that succeeded has its value"));
        // Nobody may be waiting any more.
        let _ = self.reply.send(answer);
    }
}

fn closed() -> StoreError {
    StoreError::Stopped { why: "the store was closed".to_owned() }
}

impl Queue {
    /// A queue, and the ends that the writer and the hand serve.
    pub(crate) fn open(desk: Desk) -> (Self, Receiver<Box<dyn Job>>, Receiver<Task>) {
        let (writer, jobs) = mpsc::channel();
        let (hand, tasks) = mpsc::channel();
        let queue = Self {
            room: Arc::new(Semaphore::new(ROOM_KIB_MAX as usize)),
            senders: Mutex::new(Some(Senders { writer, hand, desk })),
        };
        (queue, jobs, tasks)
    }

    /// Takes no more requests. Those in the queue are served, then its ends are done.
    pub(crate) fn close(&self) {
        self.room.close();
        drop(self.lock().take());
    }

    fn lock(&self) -> MutexGuard<'_, Option<Senders>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn senders(&self) -> Result<Senders, StoreError> {
        self.lock().clone().ok_or_else(closed)
    }

    /// Waits until there is room for a request with this much content.
    pub(crate) async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit, StoreError> {
        let kib = u32::try_from(bytes >> 10).unwrap_or(ROOM_KIB_MAX);
        let kib = kib.clamp(REQUEST_KIB_MIN, ROOM_KIB_MAX);
        let room = Arc::clone(&self.room);
        room.acquire_many_owned(kib).await.map_err(|_| closed())
    }

    /// Does `act` here when it need only be written and nobody writes, else hands it to the writer.
    /// It may run again after a transaction was rolled back.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        room: OwnedSemaphorePermit,
        durability: Durability,
        mut act: impl FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let senders = self.senders()?;
        if durability == Durability::Written
            && let Some(done) = senders.desk.here(&mut act)
        {
            if senders.desk.is_long() {
                // A writer that is gone has made its last checkpoint.
                let _ = senders.writer.send(Box::new(Nudge));
            }
            return done;
        }
        let (reply, answer) = oneshot::channel();
        let request = Request { durability, act, value: None, reply, _room: room };
        let sent = senders.writer.send(Box::new(request));
        drop(senders);
        sent.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }

    /// Runs `task` on the hand's thread.
    pub(crate) async fn by_hand<T: Send + 'static>(
        &self,
        task: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let task = Box::new(move || {
            // Nobody may be waiting any more.
            let _ = reply.send(task());
        });
        let sent = self.senders()?.hand.send(task);
        sent.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}
