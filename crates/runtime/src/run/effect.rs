//! Waiting for an effect while commands come in, and for time to pass.

use super::{Draft, RunTask, network};
use crate::error::RuntimeError;
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use store::Durability;
use types::{ActionId, Body, Link, TimerPurpose};

/// Longest single sleep; a longer wait is slept in pieces, so that a wall clock that is set
/// forward is noticed.
const SLEEP_MS_MAX: u64 = 10_000;

impl RunTask {
    /// Waits for an effect and takes posts meanwhile. `None`: a person wants the run ended or set
    /// aside, and the effect was dropped.
    pub(super) async fn unless_stopped<T>(&mut self, effect: impl Future<Output = T>) -> Option<T> {
        self.wait_for(effect, true).await
    }

    /// The same for an effect outside: setting the run aside waits for its end, because dropping it
    /// would leave it in doubt. Only ending the run drops it.
    pub(super) async fn unless_cancelled<T>(
        &mut self,
        effect: impl Future<Output = T>,
    ) -> Option<T> {
        self.wait_for(effect, false).await
    }

    async fn wait_for<T>(
        &mut self,
        effect: impl Future<Output = T>,
        stops_when_set_aside: bool,
    ) -> Option<T> {
        let mut effect = pin!(effect);
        loop {
            tokio::select! {
                done = &mut effect => return Some(done),
                next = network::next(&mut self.world.net) => {
                    // What cannot be recorded is not answered, and so does not leave.
                    let _ = self.on_network(next).await;
                }
                step = self.calls.next() => {
                    // A guest whose call cannot be recorded waits, and ends with its sandbox.
                    let _ = self.on_guest_step(step).await;
                }
                post = self.inbox.recv() => {
                    if let Some(post) = post {
                        Box::pin(self.take(post)).await;
                    }
                    if self.state.cancel || (self.suspend && stops_when_set_aside) {
                        return None;
                    }
                }
            }
        }
    }

    /// Waits until `due_ms` or until a post comes; then the timer fires, if there is one and it is
    /// time.
    pub(super) async fn sleep_until(
        &mut self,
        due_ms: u64,
        timer: Option<u64>,
    ) -> Result<(), RuntimeError> {
        let now = self.parts.clock.now_ms();
        if now >= due_ms {
            let Some(timer) = timer else { return Ok(()) };
            let draft = Draft::new(Body::TimerFired { timer }).because(Link::ResultOf, Some(timer));
            return self.record(Durability::Written, draft).await.map(|_| ());
        }
        let pause = Duration::from_millis((due_ms - now).min(SLEEP_MS_MAX));
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            post = self.inbox.recv() => {
                if let Some(post) = post {
                    Box::pin(self.take(post)).await;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn back_off(
        &mut self,
        action: Option<ActionId>,
        pause_ms: u64,
    ) -> Result<(), RuntimeError> {
        let purpose = action.map_or(TimerPurpose::ModelRetry, TimerPurpose::ActionRetry);
        let due_ms = self.parts.clock.now_ms().saturating_add(pause_ms);
        let draft = Draft::new(Body::TimerSet { due_ms, purpose }).because(Link::RetryOf, action);
        self.record(Durability::Written, draft).await.map(|_| ())
    }
}
