//! What each address does: read the log, or ask the owner for one change.

use crate::answer::{Answer, document, pieces, text};
use crate::body::{self, bad};
use crate::desk::StartRun;
use crate::limits::{ARTIFACT_BYTES_MAX, ARTIFACT_PIECE_BYTES, PAGE_RECORDS_MAX, PIECES_MAX};
use crate::routes::Op;
use crate::sandboxes::OfSandbox;
use crate::service::Service;
use crate::{OPENAPI, Refusal, events};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, RANGE};
use hyper::{Request, StatusCode};
use kernel::State;
use runtime::protocol::{Keys, NewRun, Reply, Request as Asked};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Read as _;
use tokio::sync::mpsc;
use types::{ApprovalId, BRANCH_MAIN, Body, EndStatus, Record, Resolution, RunId};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SendBody {
    text: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalBody {
    name: String,
    #[serde(default)]
    payload: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproveBody {
    #[serde(default)]
    for_run: bool,
    #[serde(default, rename = "as")]
    speaks_for: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DenyBody {
    reason: String,
    #[serde(default, rename = "as")]
    speaks_for: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResolveBody {
    resolution: Resolution,
    #[serde(default)]
    result: Option<Value>,
}

pub(crate) fn ok(value: &Value) -> Answer {
    document(StatusCode::OK, value)
}

/// A change was recorded; the run goes on by itself.
fn taken(run: &RunId) -> Answer {
    document(StatusCode::ACCEPTED, &json!({ "run": run }))
}

impl Service {
    /// Does what an address is for.
    pub(crate) async fn perform(
        self: &Arc<Self>,
        op: Op,
        values: Vec<String>,
        request: Request<Incoming>,
    ) -> Result<Answer, Refusal> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let last_read = last_event(&request)?;
        let known: &[&str] = match op {
            Op::ListRecords => &["from", "limit"],
            Op::StreamEvents => &["from", "follow"],
            Op::ListApprovals => &["run"],
            Op::GetExec | Op::WriteFile => &["wait_ms"],
            Op::SendInput => &["end"],
            Op::ListFiles => &["path", "from", "limit"],
            Op::Diff => &["from", "to", "text"],
            _ => &[],
        };
        let query = body::query(&query, known)?;
        let range = range_of(&request)?;
        let body = body::read(request.into_body()).await?;
        let mut values = values.into_iter();
        let first = values.next().unwrap_or_default();
        match op {
            Op::Openapi => Ok(text(StatusCode::OK, "application/json", OPENAPI)),
            Op::ListRuns => self.list_runs().await,
            Op::StartRun => self.start_run(&body).await,
            Op::GetRun => self.get_run(first).await,
            Op::ListRecords => self.list_records(first, &query).await,
            Op::StreamEvents => self.stream(first, &query, last_read).await,
            Op::ListArtifacts => self.list_artifacts(first).await,
            Op::GetArtifact => self.get_artifact(first, values.next().unwrap_or_default()).await,
            Op::ListApprovals => self.list_approvals(query.get("run").cloned()).await,
            Op::Approve | Op::Deny | Op::Resolve => self.answer_question(op, &first, &body).await,
            Op::OpenSteps => self.open_steps(&body).await,
            Op::TakeStep => Box::pin(self.take_step(first, &body)).await,
            Op::Send | Op::Signal | Op::Cancel | Op::Suspend | Op::Resume => {
                self.change(op, first, &body).await
            }
            _ => {
                let second = values.next().unwrap_or_default();
                let asked = OfSandbox { id: first, second, query, range, body };
                Box::pin(self.of_sandbox(op, asked)).await
            }
        }
    }

    async fn list_runs(&self) -> Result<Answer, Refusal> {
        let live = self.owner.live().await;
        let desk = Arc::clone(&self.desk);
        let runs = self.log.read(move |reader| {
            let runs = reader.runs()?;
            let rows = runs.iter().map(|run| desk.row(reader, run, live.contains(&run.run)));
            rows.collect::<Result<Vec<Value>, _>>()
        });
        Ok(ok(&json!({ "runs": runs.await? })))
    }

    pub(crate) async fn new_run(&self, asked: StartRun) -> Result<NewRun, Refusal> {
        let desk = Arc::clone(&self.desk);
        let new = tokio::task::spawn_blocking(move || desk.new_run(&asked)).await;
        new.expect("reading an agent does not panic")
    }

    async fn start_run(&self, body: &[u8]) -> Result<Answer, Refusal> {
        let asked: StartRun = body::parsed(body)?;
        let new = Box::new(self.new_run(asked).await?);
        let keys = self.desk.keys(&new.manifest);
        let start = Asked::Start { new, keys, detach: true, screen: None };
        match self.owner.ask(&start, false).await? {
            Reply::Accepted { run: Some(run) } => {
                Ok(document(StatusCode::CREATED, &json!({ "run": run })))
            }
            other => Err(out_of_turn(&other)),
        }
    }

    /// The run that is meant, and all its records.
    async fn whole(&self, text: String) -> Result<(RunId, Vec<Record>), Refusal> {
        self.log
            .read(move |reader| {
                let run = reader.find(&text)?;
                let records = reader.records(&run, BRANCH_MAIN, 0)?;
                Ok((run, records))
            })
            .await
    }

    async fn get_run(&self, run: String) -> Result<Answer, Refusal> {
        let (run, records) = self.whole(run).await?;
        let live = self.owner.live().await.contains(&run);
        Ok(ok(&self.desk.document(&run, &State::of(&records), &records, live)))
    }

    async fn list_records(
        &self,
        run: String,
        query: &BTreeMap<String, String>,
    ) -> Result<Answer, Refusal> {
        let from = body::number(query, "from")?.unwrap_or(0);
        let limit = body::number(query, "limit")?.unwrap_or(PAGE_RECORDS_MAX as u64);
        if !(1..=PAGE_RECORDS_MAX as u64).contains(&limit) {
            return Err(bad(format!("limit is from 1 to {PAGE_RECORDS_MAX}")).into());
        }
        let run = self.log.find(run).await?;
        let limit = usize::try_from(limit).expect("checked above");
        let records = self.log.page(&run, from, limit).await?;
        let next = records.last().map_or(from, |record| record.stamp.seq + 1);
        Ok(ok(&json!({ "run": run, "records": records, "next": next })))
    }

    async fn stream(
        &self,
        run: String,
        query: &BTreeMap<String, String>,
        last_read: Option<u64>,
    ) -> Result<Answer, Refusal> {
        let asked = body::number(query, "from")?;
        // A browser or a client that was cut off asks again with both: what it has read counts.
        let from = last_read.map(|seq| seq.saturating_add(1)).or(asked).unwrap_or(0);
        let follow = match query.get("follow").map(String::as_str) {
            None | Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(bad("follow is true or false").into()),
        };
        let run = self.log.find(run).await?;
        events::stream(&self.log, run, from, follow).await
    }

    /// The keys that a run's own manifest names.
    pub(crate) async fn keys_of(&self, run: &RunId) -> Result<Keys, Refusal> {
        let desk = Arc::clone(&self.desk);
        let keys = move |state: &State| state.manifest.as_deref().map(|m| desk.keys(m));
        Ok(self.log.state(run, keys).await?.unwrap_or_default())
    }

    async fn change(&self, op: Op, run: String, body: &[u8]) -> Result<Answer, Refusal> {
        let run = self.log.find(run).await?;
        let (keys, by) = (self.keys_of(&run).await?, self.desk.login());
        let nothing = || body::parsed::<Nothing>(body).map(|_| ());
        let asked = match op {
            Op::Send => {
                let SendBody { text } = body::parsed(body)?;
                if text.trim().is_empty() {
                    return Err(bad("there is nothing to send: text is empty").into());
                }
                Asked::Send { run: run.clone(), text, keys }
            }
            Op::Signal => {
                let SignalBody { name, payload } = body::parsed(body)?;
                Asked::Signal { run: run.clone(), name, payload, by, keys }
            }
            Op::Cancel => {
                nothing()?;
                Asked::Cancel { run: run.clone(), by }
            }
            Op::Suspend => {
                nothing()?;
                Asked::Suspend { run: run.clone() }
            }
            _ => {
                nothing()?;
                Asked::Resume { run: run.clone(), keys, detach: true, screen: None }
            }
        };
        self.owner.ask(&asked, false).await?;
        Ok(taken(&run))
    }

    async fn list_approvals(&self, of: Option<String>) -> Result<Answer, Refusal> {
        let desk = Arc::clone(&self.desk);
        let found = self.log.read(move |reader| {
            let only = of.map(|text| reader.find(&text)).transpose()?;
            let mut all = Vec::new();
            for summary in reader.runs()? {
                let last = summary.last.as_ref().map(|record| &record.body);
                let done = matches!(last, Some(Body::RunEnded { status: EndStatus::Done, .. }));
                let meant = only.as_ref().is_none_or(|run| *run == summary.run);
                if summary.erased || done || !meant {
                    continue;
                }
                let records = reader.records(&summary.run, BRANCH_MAIN, 0)?;
                all.extend(desk.approvals(&summary.run, &State::of(&records), &records));
            }
            Ok(all)
        });
        Ok(ok(&json!({ "approvals": found.await? })))
    }

    /// What waits for a person in one run.
    pub(crate) async fn approvals_of(&self, run: &RunId) -> Result<Vec<Value>, Refusal> {
        let (desk, run) = (Arc::clone(&self.desk), run.clone());
        self.log
            .read(move |reader| {
                let records = reader.records(&run, BRANCH_MAIN, 0)?;
                Ok(desk.approvals(&run, &State::of(&records), &records))
            })
            .await
    }

    async fn answer_question(&self, op: Op, id: &str, body: &[u8]) -> Result<Answer, Refusal> {
        let id = self.approval(id).await?;
        let (run, keys) = (id.run.clone(), self.keys_of(&id.run).await?);
        let answer = |approve, for_run, reason, speaks_for, keys| Asked::Answer {
            id: id.clone(),
            approve,
            for_run,
            reason,
            speaks_for,
            resume: true,
            keys,
        };
        let asked = match op {
            Op::Approve => {
                let ApproveBody { for_run, speaks_for } = body::parsed(body)?;
                answer(true, for_run, String::new(), speaks_for, keys)
            }
            Op::Deny => {
                let DenyBody { reason, speaks_for } = body::parsed(body)?;
                answer(false, false, reason, speaks_for, keys)
            }
            _ => {
                let ResolveBody { resolution, result } = body::parsed(body)?;
                if result.is_some() && resolution != Resolution::Happened {
                    return Err(bad("only what happened has a result").into());
                }
                let by = self.desk.login();
                Asked::Resolve { id: id.clone(), resolution, result, by, resume: true, keys }
            }
        };
        self.owner.ask(&asked, false).await?;
        Ok(taken(&run))
    }

    async fn approval(&self, text: &str) -> Result<ApprovalId, Refusal> {
        let none = || runtime::RuntimeError::Approval {
            id: text.chars().take(80).collect(),
            reason: "it is no approval: an id is RUN-NUMBER".to_owned(),
        };
        let (run, number) = text.rsplit_once('-').ok_or_else(none)?;
        let seq = number.parse().map_err(|_| none())?;
        Ok(ApprovalId { run: self.log.find(run.to_owned()).await?, seq })
    }

    /// The results of a run, as its document lists them.
    async fn artifacts(&self, run: String) -> Result<(RunId, Vec<Value>), Refusal> {
        let (run, records) = self.whole(run).await?;
        let document = self.desk.document(&run, &State::of(&records), &records, false);
        Ok((run, document["artifacts"].as_array().cloned().unwrap_or_default()))
    }

    async fn list_artifacts(&self, run: String) -> Result<Answer, Refusal> {
        let (run, artifacts) = self.artifacts(run).await?;
        Ok(ok(&json!({ "run": run, "artifacts": artifacts })))
    }

    /// The bytes of one result. Only what the log names is opened.
    async fn get_artifact(&self, run: String, path: String) -> Result<Answer, Refusal> {
        let (run, artifacts) = self.artifacts(run).await?;
        let named = artifacts.iter().find(|artifact| artifact["path"] == path.as_str());
        let none = || bad(format!("run {run} has no result of this path"));
        let bytes = named.and_then(|artifact| artifact["bytes"].as_u64()).ok_or_else(none)?;
        let file = self.home.artifacts(&run).join(&path);
        let open = move || {
            let file = std::fs::File::open(&file)?;
            let meta = file.metadata()?;
            let fits = meta.is_file() && meta.len() <= ARTIFACT_BYTES_MAX;
            fits.then_some(file).ok_or_else(|| std::io::Error::other("it is no file, or too large"))
        };
        let opened = tokio::task::spawn_blocking(open).await.expect("opening does not panic");
        let file = opened.map_err(|error| bad(format!("the result cannot be read: {error}")))?;
        let (to, from_us) = mpsc::channel(PIECES_MAX);
        tokio::task::spawn_blocking(move || pass_on(file, &to));
        let mut answer = pieces("application/octet-stream", from_us);
        // A file that cannot be read to its end is then an answer that is cut off, not a short one.
        answer.headers_mut().insert(CONTENT_LENGTH, bytes.into());
        Ok(answer)
    }
}

/// Passes a file on until it ends or nobody reads.
pub(crate) fn pass_on(mut file: impl std::io::Read, to: &mpsc::Sender<Bytes>) {
    let mut piece = vec![0; ARTIFACT_PIECE_BYTES];
    while let Ok(count @ 1..) = file.read(&mut piece) {
        if to.blocking_send(Bytes::copy_from_slice(&piece[..count])).is_err() {
            return;
        }
    }
}

pub(crate) fn out_of_turn(reply: &Reply) -> Refusal {
    let reason = format!("it answered out of turn: {reply:?}");
    runtime::RuntimeError::Frame { reason }.into()
}

/// The part of a file that is wanted.
fn range_of(request: &Request<Incoming>) -> Result<Option<String>, Refusal> {
    let value = request.headers().get(RANGE).map(|value| value.to_str().map(str::to_owned));
    value.transpose().map_err(|_| bad("Range is no text").into())
}

/// What a client that was cut off has read, as it says in `Last-Event-ID`.
fn last_event(request: &Request<Incoming>) -> Result<Option<u64>, Refusal> {
    let Some(value) = request.headers().get("last-event-id") else {
        return Ok(None);
    };
    let number = value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match number.and_then(|text| text.parse().ok()) {
        Some(seq) => Ok(Some(seq)),
        None => Err(bad("Last-Event-ID is not a number").into()),
    }
}
