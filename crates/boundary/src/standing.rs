//! What is open and was permitted: asked about again when policy changes, and closed when it must.

use crate::boundary::Inner;
use crate::judge::Standing;
use crate::limits::RECHECK_MS_MAX;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Goes off once and stays off.
#[derive(Debug, Clone)]
pub(crate) struct Switch(watch::Sender<bool>);

impl Switch {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn close(&self) {
        self.0.send_replace(true);
    }

    /// Returns when it is off.
    pub(crate) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut receiver = self.0.subscribe();
        // The sender may be gone before the waiter: then nobody can close it any more.
        let keep = self.0.clone();
        async move {
            let _keep = keep;
            let _ = receiver.wait_for(|off| *off).await;
        }
    }
}

/// A switch as a future that can be polled beside something else.
pub(crate) struct Closed(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Closed {
    pub(crate) fn of(switch: &Switch) -> Self {
        Self(Box::pin(switch.closed()))
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll(cx)
    }
}

/// What became of everything that stood when policy changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rechecked {
    /// What may go on.
    pub kept: usize,
    /// What was closed.
    pub closed: usize,
}

/// All that stands in one sandbox.
#[derive(Debug)]
pub(crate) struct Standings {
    entries: Mutex<HashMap<u64, (Standing, Switch)>>,
    next: AtomicU64,
    /// Grows with each change of policy.
    epoch: AtomicU64,
}

impl Standings {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::default(), next: AtomicU64::new(0), epoch: AtomicU64::new(0) }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<u64, (Standing, Switch)>> {
        self.entries.lock().expect("nothing panics while it is held")
    }

    /// The policy change that a question is asked after.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
}

/// One entry; it stands until this is dropped.
#[derive(Debug)]
pub(crate) struct Stands {
    inner: Arc<Inner>,
    key: u64,
    pub(crate) switch: Switch,
}

impl Drop for Stands {
    fn drop(&mut self) {
        self.inner.standings.entries().remove(&self.key);
    }
}

impl Stands {
    /// Enters what was permitted. `epoch` is from before the question: when policy has changed
    /// since, it is asked about again, so that no permit slips past a change.
    pub(crate) async fn enter(inner: &Arc<Inner>, standing: Standing, epoch: u64) -> Option<Self> {
        let key = inner.standings.next.fetch_add(1, Ordering::Relaxed);
        let switch = Switch::new();
        inner.standings.entries().insert(key, (standing.clone(), switch.clone()));
        let stands = Self { inner: Arc::clone(inner), key, switch };
        if inner.standings.epoch() != epoch && !still(inner, &standing).await {
            return None;
        }
        Some(stands)
    }
}

async fn still(inner: &Inner, standing: &Standing) -> bool {
    let wait = Duration::from_millis(RECHECK_MS_MAX);
    tokio::time::timeout(wait, inner.judge.still(standing)).await.unwrap_or(false)
}

/// Asks about everything that stands, all at once, and closes what may not go on.
pub(crate) async fn recheck(inner: &Arc<Inner>) -> Rechecked {
    inner.standings.epoch.fetch_add(1, Ordering::SeqCst);
    let entries: Vec<_> = inner.standings.entries().values().cloned().collect();
    let mut asks = JoinSet::new();
    for (standing, switch) in entries {
        let inner = Arc::clone(inner);
        asks.spawn(async move {
            let keep = still(&inner, &standing).await;
            if !keep {
                switch.close();
            }
            keep
        });
    }
    let mut result = Rechecked { kept: 0, closed: 0 };
    while let Some(answer) = asks.join_next().await {
        match answer {
            Ok(true) => result.kept += 1,
            _ => result.closed += 1,
        }
    }
    result
}
