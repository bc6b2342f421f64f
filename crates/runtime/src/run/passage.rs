//! What becomes of what was permitted: its end, its age, its answer, recorded.
//!
//! ```text
//!   permitted -> Sent -> Dated -> Kept -> Answered | Failed      ends of readers: recorded together
//! ```
//!
//! What always holds: each permit ends once in the log, at the latest with its command; what nobody
//! saw the end of counts as sent.

use super::exchanges::ANSWER;
use super::network::Net;
use super::{Draft, RunTask};
use crate::error::RuntimeError;
use gate::NetPassage;
use std::time::Duration;
use store::Durability;
use tokio::time::Instant;
use types::{Body, EffectClass, Kept, Labels, Link};

/// How long what is still open is waited for when its command has ended, milliseconds.
pub(super) const TAIL_MS_MAX: u64 = 2_000;
/// How long the end of a reading request waits to be recorded together with others, milliseconds.
/// Until then a crash makes it one of which nobody knows how it ended, and it is done again.
const ENDS_MS_MAX: u64 = 5;
/// Ends that wait at once.
const ENDS_MAX: usize = 32;
/// Bytes of answers that one run keeps.
const KEPT_BYTES_MAX: u64 = 1 << 30;
/// The status by which a server refuses a credential.
const UNAUTHORIZED: u16 = 401;
/// Whether the newest of so many ends waits for company.
const fn waits(read: bool, ends: usize) -> bool {
    read && ends < ENDS_MAX
}

/// What the log keeps of an answer, when it keeps so many bytes already.
fn kept_of(
    answer: Option<Result<Vec<u8>, String>>,
    so_far: u64,
) -> (Option<Kept>, Option<Vec<u8>>) {
    match answer {
        None => (None, None),
        Some(Err(why)) => (Some(Kept::Nothing(why)), None),
        Some(Ok(bytes)) if so_far.saturating_add(bytes.len() as u64) > KEPT_BYTES_MAX => {
            (Some(Kept::Nothing("this run has kept too much".to_owned())), None)
        }
        Some(Ok(bytes)) => (Some(Kept::Whole(bytes.len() as u64)), Some(bytes)),
    }
}

impl RunTask {
    pub(super) async fn on_passage(
        &mut self,
        permit: u64,
        passage: NetPassage,
        told: Option<bool>,
    ) -> Result<(), RuntimeError> {
        let Some(net) = &mut self.world.net else { return Ok(()) };
        let Some(sent) = net.open.get_mut(&permit) else { return Ok(()) };
        match passage {
            NetPassage::Sent => {
                *sent = true;
                Ok(())
            }
            NetPassage::Dated { as_of } => {
                net.dated.insert(permit, as_of);
                Ok(())
            }
            NetPassage::Answered { status, bytes_up, bytes_down } => {
                net.open.remove(&permit);
                self.tokens.ended(permit, status == UNAUTHORIZED);
                let sent = told.unwrap_or(true);
                self.record_end(permit, (status, bytes_up, bytes_down), None, sent).await
            }
            NetPassage::Failed { why } => {
                let counted = net.open.remove(&permit).unwrap_or(true);
                self.tokens.ended(permit, false);
                self.record_end(permit, (0, 0, 0), Some(why), told.unwrap_or(counted)).await
            }
        }
    }

    pub(super) async fn record_end(
        &mut self,
        egress: u64,
        (status, bytes_up, bytes_down): (u16, u64, u64),
        failure: Option<String>,
        sent: bool,
    ) -> Result<(), RuntimeError> {
        let passed = self.state.egress.passed.get(&egress);
        let read = passed.is_some_and(|passed| passed.effect == EffectClass::Read);
        let as_of = self.world.net.as_ref().and_then(|net| net.dated.get(&egress).copied());
        let Some(net) = &mut self.world.net else { return Ok(()) };
        let answer = net.kept.remove(&egress).filter(|_| failure.is_none());
        let (kept, answer) = kept_of(answer, self.state.egress.kept_bytes);
        let read = read && answer.is_none();
        let body =
            Body::EgressEnded { egress, status, bytes_up, bytes_down, failure, sent, as_of, kept };
        let mut draft = Draft::new(body).because(Link::ResultOf, Some(egress));
        if let Some(bytes) = answer {
            draft = draft.with(ANSWER, bytes);
        }
        net.ended.push(draft);
        net.ends_due.get_or_insert_with(|| Instant::now() + Duration::from_millis(ENDS_MS_MAX));
        if waits(read, net.ended.len()) { Ok(()) } else { self.record_ends().await }
    }

    /// Records the ends that waited for company.
    pub(super) async fn record_ends(&mut self) -> Result<(), RuntimeError> {
        let drafts = self.take_ends();
        if drafts.is_empty() {
            return Ok(());
        }
        self.append(Durability::Written, drafts).await.map(|_| ())
    }

    pub(super) fn take_ends(&mut self) -> Vec<Draft> {
        let Some(net) = &mut self.world.net else { return Vec::new() };
        net.ends_due = None;
        // From here on their age is in the state; that of what is still open is not.
        let Net { dated, open, .. } = net;
        dated.retain(|permit, _| open.contains_key(permit));
        std::mem::take(&mut net.ended)
    }

    /// When a command has ended: what of its requests is still open ends too, and is recorded.
    /// Answers the labels of what was heard during it.
    pub(super) async fn settle_network(&mut self) -> Result<Labels, RuntimeError> {
        let until = Instant::now() + Duration::from_millis(TAIL_MS_MAX);
        loop {
            let Some(net) = &mut self.world.net else { return Ok(Labels::none()) };
            if net.open.is_empty() {
                break;
            }
            match tokio::time::timeout_at(until, net.next()).await {
                Ok(next) => self.on_network(next).await?,
                Err(_) => break,
            }
        }
        let Some(net) = &mut self.world.net else { return Ok(Labels::none()) };
        net.denied.clear();
        // Nobody waits for an answer any more: an approval that comes is kept for the next request.
        net.held.clear();
        let heard = std::mem::take(&mut net.heard);
        let open = std::mem::take(&mut net.open);
        for (egress, sent) in open {
            let why = "it was cut off with its command".to_owned();
            self.record_end(egress, (0, 0, 0), Some(why), sent).await?;
        }
        self.record_ends().await?;
        let mut labels = Labels::none();
        for host in heard {
            labels.join(&self.labels_of(&host));
        }
        Ok(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_wait_up_to_a_limit_and_only_those_of_reading() {
        assert!(waits(true, 1) && waits(true, ENDS_MAX - 1));
        assert!(!waits(true, ENDS_MAX));
        assert!(!waits(false, 1));
    }

    #[test]
    fn a_run_keeps_answers_up_to_a_limit() {
        let kept = |so_far| kept_of(Some(Ok(vec![0; 4])), so_far);
        assert_eq!(kept(KEPT_BYTES_MAX - 4), (Some(Kept::Whole(4)), Some(vec![0; 4])));
        for so_far in [KEPT_BYTES_MAX - 3, KEPT_BYTES_MAX, u64::MAX] {
            assert!(matches!(kept(so_far), (Some(Kept::Nothing(_)), None)), "{so_far}");
        }
        let nothing = kept_of(Some(Err("why".to_owned())), 0);
        assert_eq!(nothing, (Some(Kept::Nothing("why".to_owned())), None));
        assert_eq!(kept_of(None, 0), (None, None));
    }
}
