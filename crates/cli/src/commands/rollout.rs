//! `rollout`: many attempts at one task from one world, some at a time.
//!
//! One run is made and never begun: it is the world. Each attempt is forked from it, so that the
//! workspace is read once, and has an id, a seed, a sandbox and a log of its own. What always holds:
//! results come in the order of the attempts' numbers, and what a rollout began has ended when it ends,
//! unless no owner can be reached. Never: a person is asked.

use super::run::{accepted, come_to_rest, out_of_turn, prepared};
use crate::arguments::RolloutArguments;
use crate::error::{Failed, Result, exit};
use crate::outcome::{error_of, output_of, status_word};
use crate::session::{Session, block_on, keys_for, login, next_reply};
use crate::terminal::Terminal;
use kernel::{State, Status};
use runtime::client::Client;
use runtime::protocol::{Keys, Reply, Request};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use store::Read as _;
use tokio::task::JoinSet;
use types::{BRANCH_MAIN, RunId};

const MS_PER_S: u64 = 1_000;

/// What all attempts have in common.
#[derive(Debug, Clone)]
struct Common {
    session: Session,
    keys: Keys,
    limit: Duration,
    seed: u64,
}

/// Rewards so far.
#[derive(Debug, Default)]
struct Tally {
    attempts: usize,
    /// Those that came to an end of their own.
    ended: usize,
    rewards: f64,
}

impl Tally {
    fn note(&mut self, result: &Value) {
        self.attempts += 1;
        self.ended += usize::from(matches!(result["status"].as_str(), Some("done" | "failed")));
        self.rewards += result["reward"].as_f64().unwrap_or(0.0);
    }

    fn mean(&self) -> f64 {
        if self.attempts == 0 { 0.0 } else { self.rewards / self.attempts as f64 }
    }
}

/// `rollout`.
pub(crate) fn rollout(session: &Session, arguments: &RolloutArguments) -> Result<u8> {
    let mut new = prepared(session, &arguments.what)?;
    let limit_ms = arguments.seconds * MS_PER_S;
    let wall_ms = &mut new.manifest.budget.wall_ms;
    *wall_ms = Some(wall_ms.map_or(limit_ms, |own| own.min(limit_ms)));
    let keys = keys_for(&new.manifest);
    let limit = Duration::from_millis(limit_ms);
    let common = Common { session: session.clone(), keys, limit, seed: arguments.seed };
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let parallel = arguments.parallel.map_or_else(processors, |count| count as usize);
    block_on(async {
        let mut owner = session.owner().await?;
        owner.send(&Request::Create { new: Box::new(new) }).await?;
        let world = accepted(&mut owner).await?;
        let made = attempts(&mut owner, &world, arguments).await;
        let done = match made {
            Ok(runs) => all(&common, runs, parallel).await,
            Err(failed) => Err(failed),
        };
        let ended = end(session, &world).await;
        let (tally, results) = done?;
        ended?;
        say(session, &world, &tally, results);
        Ok(if tally.ended == tally.attempts { exit::DONE } else { exit::FAILED })
    })
}

/// Forks the world.
async fn attempts(
    owner: &mut Client,
    world: &RunId,
    arguments: &RolloutArguments,
) -> Result<Vec<RunId>> {
    let (count, seed) = (arguments.count, Some(arguments.seed));
    let fork = Request::Fork { run: world.clone(), at: None, count, seed, by: login() };
    owner.send(&fork).await?;
    match next_reply(owner).await? {
        Reply::Made { runs } => Ok(runs),
        other => Err(out_of_turn(&other)),
    }
}

/// Has them run, so many at a time, and tells each result when all before it are told.
async fn all(common: &Common, runs: Vec<RunId>, parallel: usize) -> Result<(Tally, Vec<Value>)> {
    let count = runs.len();
    let (mut tally, mut results) = (Tally::default(), Vec::with_capacity(count));
    let (mut going, mut waiting) = (JoinSet::new(), runs.into_iter().enumerate());
    let mut early: BTreeMap<usize, Value> = BTreeMap::new();
    loop {
        for (number, run) in waiting.by_ref().take(parallel - going.len()) {
            let common = common.clone();
            going.spawn(async move { (number, attempt(&common, number, run).await) });
        }
        let Some(done) = going.join_next().await else { break };
        let (number, result) = done.expect("an attempt does not panic");
        tally.note(&result);
        let (done, mean) = (tally.attempts, tally.mean());
        common.session.terminal.bar(done, count, &format!("mean reward {mean:.3}"));
        early.insert(number, result);
        while let Some(next) = early.remove(&results.len()) {
            if !common.session.json {
                Terminal::answer(&next.to_string());
            }
            results.push(next);
        }
    }
    Ok((tally, results))
}

/// One attempt, from taking it up to its result. What goes wrong is a result too.
async fn attempt(common: &Common, number: usize, run: RunId) -> Value {
    let begun = Instant::now();
    let late = match tokio::time::timeout(common.limit, until_rest(common, &run)).await {
        Ok(Err(failed)) => {
            // Nobody takes it up again; that it cannot be ended either is told by the first failure.
            let _ = end(&common.session, &run).await;
            return lost(common, number, &run, &failed);
        }
        Ok(Ok(())) => false,
        Err(_) => true,
    };
    let took = begun.elapsed();
    match ended(common, &run).await {
        Ok((state, records)) => result(common, number, &run, (&state, records), (late, took)),
        Err(failed) => lost(common, number, &run, &failed),
    }
}

async fn until_rest(common: &Common, run: &RunId) -> Result<()> {
    let mut owner = common.session.owner().await?;
    let (run, keys) = (run.clone(), common.keys.clone());
    owner.send(&Request::Resume { run, keys, detach: false, screen: None }).await?;
    accepted(&mut owner).await?;
    while !matches!(next_reply(&mut owner).await?, Reply::AtRest) {}
    Ok(())
}

/// The state that a run ended in, and how many records it has; it is ended if it only waits.
async fn ended(common: &Common, run: &RunId) -> Result<(State, usize)> {
    let read = || -> Result<(State, usize)> {
        let records = common.session.reader()?.records(run, BRANCH_MAIN, 0)?;
        Ok((State::of(&records), records.len()))
    };
    let (state, count) = read()?;
    if state.ended.is_some() {
        return Ok((state, count));
    }
    end(&common.session, run).await?;
    read()
}

/// Ends a run and waits until it has.
async fn end(session: &Session, run: &RunId) -> Result<()> {
    come_to_rest(session, run, &Request::Cancel { run: run.clone(), by: login() }).await
}

fn result(
    common: &Common,
    number: usize,
    run: &RunId,
    (state, records): (&State, usize),
    (late, took): (bool, Duration),
) -> Value {
    let status = state.status(false);
    let checks = state.checks.iter().map(|check| (check.name.clone(), json!(check.passed)));
    let mut result = json!({
        "attempt": number,
        "seed": common.seed.wrapping_add(number as u64),
        "run": run,
        "status": status_word(status),
        "reward": reward(state),
        "checks": checks.collect::<serde_json::Map<_, _>>(),
        "output": output_of(state),
        "actions": state.actions.len(),
        "denials": state.denials,
        "tokens": state.spent.tokens,
        "cost_usd": state.spent.cost.dollars(),
        "records": records,
        "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    });
    if late {
        result["timed_out"] = json!(true);
    }
    if let Some(failure) = error_of(state) {
        result["error"] = json!(failure);
    }
    result
}

/// The part of the manifest's checks that passed, of an attempt that came to them; without any, 1
/// when it is done.
fn reward(state: &State) -> f64 {
    if state.ended.is_none() || state.cancel {
        return 0.0;
    }
    let all = state.manifest.as_ref().map_or(0, |manifest| manifest.checks.len());
    if all == 0 {
        return f64::from(u8::from(state.status(false) == Status::Done));
    }
    state.checks.iter().filter(|check| check.passed).count() as f64 / all as f64
}

/// The result of an attempt that we lost.
fn lost(common: &Common, number: usize, run: &RunId, failed: &Failed) -> Value {
    json!({
        "attempt": number,
        "seed": common.seed.wrapping_add(number as u64),
        "run": run,
        "status": "lost",
        "reward": 0.0,
        "error": failed.failure,
    })
}

fn say(session: &Session, world: &RunId, tally: &Tally, results: Vec<Value>) {
    let mean = tally.mean();
    if session.json {
        let count = tally.attempts;
        Terminal::answer_json(&json!({
            "world": world, "attempts": count, "mean_reward": mean, "results": results,
        }));
    }
    let (ended, all) = (tally.ended, tally.attempts);
    session.terminal.progress(&format!("{ended} of {all} came to an end, mean reward {mean:.3}"));
}
