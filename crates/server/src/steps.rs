//! The step API: a run whose loop lives in the caller's own process.
//!
//! ```text
//! step n asked --done in the log------------------------------> its outcome, again
//!              --not there, or going on--> the owner takes it --> waited for --> its outcome
//!                                              ^   the owner died  |         --> not yet: ask again
//!                                              `-------------------'
//! ```
//!
//! A step is named by its place, so asking again is always safe: what is done is read from the log,
//! what is going on is waited for, and another step at the same place is refused. The kernel says
//! which of these it is, here for reading and in the owner for writing, by the same function.

use crate::answer::{Answer, document};
use crate::body::{self, bad};
use crate::desk::StartRun;
use crate::limits::{OWNERS_MAX, STEP_WAIT, STEP_WAIT_MAX};
use crate::owner::{OWNER_GONE, reply};
use crate::service::Service;
use crate::{Refusal, ServeError};
use hyper::StatusCode;
use kernel::{AskedStep, Phase, State, StepFault};
use runtime::client::Client;
use runtime::protocol::{Reply, Request};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use types::{
    ApprovalVerdict, BRANCH_MAIN, Body, Coded as _, Failure, Item, Record, RunId, Step, Verdict,
    WaitReason,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OpenBody {
    key: String,
    agent: PathBuf,
    #[serde(default)]
    input: String,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    env: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepBody {
    opening: String,
    at: u64,
    step: Step,
    #[serde(default)]
    wait_ms: Option<u64>,
}

/// A step as it was asked for.
#[derive(Debug, Clone)]
struct Asked {
    run: RunId,
    opening: String,
    at: u64,
    step: Step,
}

/// Where it stands.
#[derive(Debug)]
enum Stand {
    /// Its outcome is in this record.
    Done(u64),
    /// It never will have one.
    Ended(Failure),
    /// A person put the run aside.
    SetAside,
    /// The run cannot go on by itself; asking again tries again.
    Stuck(Failure),
    /// A person, or a signal, must come first; until this time, if it has an end.
    Waits(Option<u64>),
    /// The owner is to take it, or has.
    Due,
}

impl Service {
    /// Opens the run of a caller's key.
    pub(crate) async fn open_steps(&self, body: &[u8]) -> Result<Answer, Refusal> {
        let OpenBody { key, agent, input, model, env } = body::parsed(body)?;
        let asked = StartRun { agent: Some(agent), input, model, env, ..StartRun::default() };
        let new = Box::new(self.new_run(asked).await?);
        let mut random = [0u8; 16];
        getrandom::fill(&mut random).map_err(|error| bad(error.to_string()))?;
        let opening: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let open = Request::Open { new, key, opening: opening.clone() };
        // Opened twice by one request is opened once: the word is the same.
        let Reply::Accepted { run: Some(run) } = self.owner.ask(&open, true).await? else {
            return Err(bad("the owner answered out of turn").into());
        };
        let steps = |state: &State| state.caller.as_ref().map_or(0, |caller| caller.steps.len());
        let steps = self.log.state(&run, steps).await?;
        let opened = json!({ "run": run, "opening": opening, "steps": steps });
        Ok(document(StatusCode::OK, &opened))
    }

    /// Takes a step, or answers it from the log.
    pub(crate) async fn take_step(&self, run: String, body: &[u8]) -> Result<Answer, Refusal> {
        let StepBody { opening, at, step, wait_ms } = body::parsed(body)?;
        let wait = wait_ms.map_or(STEP_WAIT, Duration::from_millis);
        if wait > STEP_WAIT_MAX {
            let most = STEP_WAIT_MAX.as_millis();
            return Err(bad(format!("wait_ms is at most {most}")).into());
        }
        let run = self.log.find(run).await?;
        let asked = Asked { run, opening, at, step };
        Waiting::new(self, asked, Instant::now() + wait).answer().await
    }

    async fn stand(&self, asked: &Asked, now_ms: u64) -> Result<Stand, Refusal> {
        let (run, asked) = (asked.run.clone(), asked.clone());
        let stand = self.log.state(&run, move |state| stand(state, &asked, now_ms)).await?;
        stand.map_err(|fault| Refusal::of(fault.failure(), true))
    }

    /// The outcome that a record holds.
    async fn outcome(&self, asked: &Asked, seq: u64, replayed: bool) -> Result<Answer, Refusal> {
        let (run, at) = (&asked.run, asked.at);
        let outcome = match asked.step {
            Step::End { .. } => self.outcome_of_end(run).await?,
            _ => {
                let call_id = asked.step.call_id(at);
                let text = move |state: &State| call_id.and_then(|id| result_of(state, &id));
                let said = self.log.state(run, text).await?;
                let record = self.log.page(run, seq, 1).await?.pop();
                outcome_of(record.as_ref(), said)
            }
        };
        let told = json!({
            "run": run, "at": at, "done": true, "replayed": replayed, "seq": seq,
            "outcome": outcome,
        });
        Ok(document(StatusCode::OK, &told))
    }

    async fn outcome_of_end(&self, run: &RunId) -> Result<Value, Refusal> {
        let desk = std::sync::Arc::clone(&self.desk);
        let of = run.clone();
        self.log
            .read(move |reader| {
                let records = store::Read::records(reader, &of, BRANCH_MAIN, 0)?;
                let document = desk.document(&of, &State::of(&records), &records, false);
                Ok(json!({ "type": "end", "result": document }))
            })
            .await
    }

    /// Not yet: what it waits for.
    async fn not_yet(&self, asked: &Asked, stand: &Stand) -> Result<Answer, Refusal> {
        let status = match stand {
            Stand::SetAside => "suspended",
            Stand::Waits(_) => "waiting",
            _ => "running",
        };
        let approvals = match stand {
            Stand::Waits(_) => self.approvals_of(&asked.run).await?,
            _ => Vec::new(),
        };
        let told = json!({
            "run": asked.run, "at": asked.at, "done": false, "status": status,
            "approvals": approvals,
        });
        Ok(document(StatusCode::ACCEPTED, &told))
    }
}

/// One request, waiting for its step.
struct Waiting<'a> {
    service: &'a Service,
    asked: Asked,
    until: Instant,
    grown: watch::Receiver<()>,
    /// The connection on which the owner took the step: its end is the owner's.
    owner: Option<Client>,
    owners: u32,
    clock: runtime::Clock,
}

impl<'a> Waiting<'a> {
    fn new(service: &'a Service, asked: Asked, until: Instant) -> Self {
        let (grown, clock) = (service.log.growth(), runtime::Clock::new());
        Self { service, asked, until, grown, owner: None, owners: 0, clock }
    }

    async fn answer(mut self) -> Result<Answer, Refusal> {
        let mut looks = 0_u64;
        loop {
            self.grown.borrow_and_update();
            let stand = self.service.stand(&self.asked, self.clock.now_ms()).await?;
            looks += 1;
            match &stand {
                Stand::Done(seq) => {
                    return self.service.outcome(&self.asked, *seq, looks == 1).await;
                }
                Stand::Ended(failure) => return Err(ended(&self.asked, failure).into()),
                Stand::Stuck(failure) if self.owners > 0 => {
                    let status = StatusCode::SERVICE_UNAVAILABLE;
                    return Err(Refusal { status, failure: failure.clone() });
                }
                Stand::Due | Stand::Stuck(_) if self.owner.is_none() => {
                    self.hand_over().await?;
                    continue;
                }
                _ => {}
            }
            if Instant::now() >= self.until {
                return self.service.not_yet(&self.asked, &stand).await;
            }
            self.wait(&stand).await;
        }
    }

    /// Has the owner take the step. One that dies over it is followed by another.
    async fn hand_over(&mut self) -> Result<(), Refusal> {
        self.owners += 1;
        let taken = self.try_hand_over().await;
        match taken {
            Ok(owner) => self.owner = Some(owner),
            Err(refusal) if refusal.failure.code == OWNER_GONE && self.owners < OWNERS_MAX => {}
            Err(refusal) => return Err(refusal),
        }
        Ok(())
    }

    async fn try_hand_over(&self) -> Result<Client, Refusal> {
        let Asked { run, opening, at, step } = self.asked.clone();
        let keys = self.service.keys_of(&run).await?;
        let mut owner = self.service.owner.connect().await?;
        owner
            .send(&Request::Step { run, opening, at, step, keys, watched: false, screen: None })
            .await?;
        reply(&mut owner).await?;
        Ok(owner)
    }

    /// Until the log grows, the owner dies, a question expires, or the time is over.
    async fn wait(&mut self, stand: &Stand) {
        let now_ms = self.clock.now_ms();
        let until = match stand {
            Stand::Waits(Some(expires_ms)) => {
                let left = Duration::from_millis(expires_ms.saturating_sub(now_ms));
                self.until.min(Instant::now() + left)
            }
            _ => self.until,
        };
        let gone = async {
            match &mut self.owner {
                // It says nothing more: whatever comes is its end.
                Some(owner) => drop(owner.next().await),
                None => std::future::pending().await,
            }
        };
        let gone = tokio::select! {
            () = gone => true,
            _ = self.grown.changed() => false,
            () = tokio::time::sleep_until(until) => false,
        };
        if gone {
            self.owner = None;
        }
    }
}

fn stand(state: &State, asked: &Asked, now_ms: u64) -> Result<Stand, StepFault> {
    let placed = state.place_step(&asked.opening, asked.at, &asked.step)?;
    if let AskedStep::Known(Some(seq)) = placed {
        let over = state.ended.as_ref().filter(|ended| ended.seq == seq);
        return Ok(match (over, &asked.step) {
            (Some(ended), step) if !matches!(step, Step::End { .. }) => Stand::Ended(why(ended)),
            _ => Stand::Done(seq),
        });
    }
    if let Some(ended) = &state.ended {
        return Ok(Stand::Ended(why(ended)));
    }
    Ok(match &state.suspended {
        Some((WaitReason::Person, _)) => Stand::SetAside,
        Some((_, failure)) => Stand::Stuck(failure.clone().unwrap_or_else(no_reason)),
        None if state.needs_person() => match expires(state) {
            Some(expires_ms) if expires_ms <= now_ms => Stand::Due,
            expires_ms => Stand::Waits(expires_ms),
        },
        None => Stand::Due,
    })
}

/// When the open question expires.
fn expires(state: &State) -> Option<u64> {
    let of_model = state.model_question().map(|question| question.expires_ms);
    of_model.or_else(|| match &state.current_action()?.phase {
        Phase::Asked(question) => Some(question.expires_ms),
        _ => None,
    })
}

fn why(ended: &kernel::Ended) -> Failure {
    let status = format!("{:?}", ended.status).to_lowercase();
    ended.error.clone().unwrap_or(Failure {
        code: String::new(),
        message: status,
        next: String::new(),
    })
}

fn no_reason() -> Failure {
    ServeError::BadRequest { reason: "the run was set aside".to_owned() }.failure()
}

fn ended(asked: &Asked, why: &Failure) -> ServeError {
    let why = if why.code.is_empty() { why.message.clone() } else { why.to_string() };
    ServeError::Ended { run: asked.run.to_string(), at: asked.at, why }
}

/// What a call gave, as the conversation has it: the text, and whether it is an error.
pub(crate) fn result_of(state: &State, id: &str) -> Option<(String, bool)> {
    state.items.iter().rev().find_map(|placed| match &placed.item {
        Item::ToolResult { call_id, output, is_error, .. } if call_id == id => {
            Some((output.clone(), *is_error))
        }
        _ => None,
    })
}

/// The outcome of a step, from the record that closed it and what the conversation has.
pub(crate) fn outcome_of(record: Option<&Record>, said: Option<(String, bool)>) -> Value {
    let Some(record) = record else {
        return Value::Null;
    };
    if let Body::ModelAnswered { items, usage, cost, .. } = &record.body {
        return json!({
            "type": "model",
            "text": text_of(items),
            "calls": calls_of(items),
            "usage": usage,
            "cost_usd": cost.dollars(),
        });
    }
    let (output, is_error) = said.unwrap_or_default();
    let mut outcome = json!({
        "type": "tool",
        "status": status_of(&record.body),
        "output": output,
        "is_error": is_error,
    });
    if let Body::ActionFinished { exit, took_ms, .. } = &record.body {
        outcome["exit"] = json!(exit);
        outcome["took_ms"] = json!(took_ms);
    }
    outcome
}

fn status_of(body: &Body) -> Value {
    match body {
        Body::ActionFinished { status, .. } => json!(status),
        Body::DecisionMade { verdict: Verdict::Deny, .. } => json!("denied"),
        Body::ApprovalGiven { verdict: ApprovalVerdict::Expired, .. } => json!("expired"),
        Body::ApprovalGiven { .. } => json!("denied"),
        Body::ActionResolved { resolution, .. } => json!(resolution),
        // It was no call that can be made.
        _ => json!("refused"),
    }
}

fn text_of(items: &[Item]) -> String {
    let texts: Vec<&str> = items
        .iter()
        .filter_map(|item| match item {
            Item::AssistantMessage { text } => Some(text.as_str()),
            _ => None,
        })
        .collect();
    texts.join("\n")
}

fn calls_of(items: &[Item]) -> Vec<Value> {
    let call = |item: &Item| match item {
        Item::ToolCall { call_id, name, arguments } => {
            Some(json!({ "call_id": call_id, "name": name, "arguments": arguments }))
        }
        _ => None,
    };
    items.iter().filter_map(call).collect()
}
