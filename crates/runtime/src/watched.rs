//! A step of a run's caller, taken before the eyes of whoever asked for it.
//!
//! ```text
//! begin --Resume, when the run was set aside--> Step --> replies --> hear --> ... --> done, or at rest
//! ```
//!
//! What always holds: records are heard in their order, each once and none left out, whether they
//! came on the connection or had been written before it. What is never here: what is shown of them.

use crate::client::Client;
use crate::error::RuntimeError;
use crate::protocol::{Keys, Reply, Request, Screen};
use kernel::State;
use store::{Read, Reader, StoreError};
use types::{BRANCH_MAIN, Record, RunId, Step};

/// One step, and the run as far as it was heard of.
#[derive(Debug)]
pub struct Watched {
    run: RunId,
    state: State,
    at: u64,
}

impl Watched {
    /// Has the owner take a step of this run, whose state is this. The run goes on first, when it
    /// was set aside.
    ///
    /// # Errors
    /// When the run takes no steps, the step is out of turn, or the owner is gone.
    pub async fn begin(
        owner: &mut Client,
        (run, state): (RunId, State),
        step: Step,
        keys: Keys,
        screen: Option<Screen>,
    ) -> Result<Self, RuntimeError> {
        let caller = state.caller.as_ref();
        let caller = caller.ok_or_else(|| RuntimeError::part(&kernel::StepFault::NotSteps))?;
        let (opening, at) = (caller.opening.clone(), caller.steps.len() as u64);
        if state.suspended.is_some() {
            let (run, keys) = (run.clone(), keys.clone());
            let resume = Request::Resume { run, keys, detach: true, screen: None };
            accepted(owner, &resume).await?;
        }
        let of = run.clone();
        let request = Request::Step { run: of, opening, at, step, keys, watched: true, screen };
        accepted(owner, &request).await?;
        Ok(Self { run, state, at })
    }

    /// The run.
    #[must_use]
    pub const fn run(&self) -> &RunId {
        &self.run
    }

    /// The step's number among the caller's.
    #[must_use]
    pub const fn at(&self) -> u64 {
        self.at
    }

    /// The record that holds the step's outcome, once it was heard of.
    #[must_use]
    pub fn done(&self) -> Option<u64> {
        let at = usize::try_from(self.at).ok()?;
        self.state.caller.as_ref()?.steps.get(at)?.done
    }

    /// Takes a reply of the owner: `each` is told every record that is new by it, with the state
    /// before it.
    ///
    /// # Errors
    /// When what was written before the connection cannot be read.
    pub fn hear(
        &mut self,
        reader: &Reader,
        reply: &Reply,
        mut each: impl FnMut(&State, &Record),
    ) -> Result<(), StoreError> {
        let record = match reply {
            Reply::Record { record } => Some(record.as_ref()),
            Reply::AtRest => None,
            _ => return Ok(()),
        };
        let to_seq = record.map_or(u64::MAX, |record| record.stamp.seq);
        if self.state.next_seq < to_seq {
            let missing = reader.records(&self.run, BRANCH_MAIN, self.state.next_seq)?;
            // A run that goes back has dropped the step: what comes then is no longer of it.
            let ours = |record: &&Record| {
                record.stamp.seq < to_seq && record.body.goes_back_to().is_none()
            };
            missing.iter().take_while(ours).for_each(|record| self.fold(record, &mut each));
        }
        let next = |record: &&Record| {
            record.stamp.seq == self.state.next_seq && record.body.goes_back_to().is_none()
        };
        if let Some(record) = record.filter(next) {
            self.fold(record, &mut each);
        }
        Ok(())
    }

    fn fold(&mut self, record: &Record, each: &mut impl FnMut(&State, &Record)) {
        each(&self.state, record);
        self.state.fold(record);
    }
}

/// Asks for something that the owner only accepts.
async fn accepted(owner: &mut Client, request: &Request) -> Result<(), RuntimeError> {
    owner.send(request).await?;
    match owner.next().await? {
        Some(Reply::Accepted { .. }) => Ok(()),
        Some(Reply::Failed { failure, usage: true }) => Err(RuntimeError::Refused(failure)),
        Some(Reply::Failed { failure, usage: false }) => Err(RuntimeError::Part(failure)),
        Some(other) => {
            let reason = format!("it answered out of turn: {other:?}");
            Err(RuntimeError::Frame { reason })
        }
        None => {
            let reason = "it ended in the middle of a request".to_owned();
            Err(RuntimeError::OwnerGone { reason })
        }
    }
}
