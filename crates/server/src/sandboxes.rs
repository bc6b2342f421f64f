//! Kept sandboxes: made, listed, removed; their moments named, gone back to, forked at and compared.
//!
//! A sandbox is a run whose steps its user takes. What the command line does to it is done by the
//! command line's own functions ([`crate::Sandboxes`]); commands and files are in their own modules.

use crate::Refusal;
use crate::answer::{Answer, document};
use crate::body::{self, bad};
use crate::desk::{NewSandbox, Sandboxes};
use crate::handlers::{Nothing, ok};
use crate::routes::Op;
use crate::service::Service;
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A request about one sandbox, or about all of them.
pub(crate) struct OfSandbox {
    pub(crate) id: String,
    /// What else the address names: a command, or a file.
    pub(crate) second: String,
    pub(crate) query: BTreeMap<String, String>,
    pub(crate) range: Option<String>,
    pub(crate) body: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SnapshotBody {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForkBody {
    #[serde(default)]
    at: Option<String>,
    #[serde(default = "one")]
    count: u32,
}

const fn one() -> u32 {
    1
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RollbackBody {
    to: String,
}

impl Service {
    /// Has the command line's side do something, where blocking disturbs nobody.
    pub(crate) async fn sandboxes<T: Send + 'static>(
        &self,
        act: impl FnOnce(&dyn Sandboxes) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let desk = Arc::clone(&self.desk);
        let acted = tokio::task::spawn_blocking(move || act(desk.sandboxes())).await;
        acted.expect("what is done to a sandbox does not panic")
    }

    /// Does what an address below `/v1/sandboxes` is for.
    pub(crate) async fn of_sandbox(
        self: &Arc<Self>,
        op: Op,
        asked: OfSandbox,
    ) -> Result<Answer, Refusal> {
        match op {
            Op::CreateSandbox => self.create_sandbox(&asked.body).await,
            Op::ListSandboxes => {
                let all = self.sandboxes(|desk| desk.list()).await?;
                Ok(ok(&json!({ "sandboxes": all })))
            }
            Op::GetSandbox => Ok(ok(&self.sandboxes(move |desk| desk.get(&asked.id)).await?)),
            Op::DestroySandbox => {
                body::parsed::<Nothing>(&asked.body)?;
                let run = self.sandboxes(move |desk| desk.remove(&asked.id)).await?;
                Ok(ok(&json!({ "sandbox": run })))
            }
            Op::Snapshot | Op::Fork | Op::Rollback | Op::Diff => self.moment(op, asked).await,
            Op::Exec => self.exec(asked.id, &asked.body).await,
            Op::GetExec | Op::SendInput | Op::ResizeTerminal => self.of_exec(op, asked).await,
            Op::ListFiles => self.list_files(asked).await,
            Op::StatFile => {
                let stat = self.sandboxes(move |desk| desk.stat(&asked.id, &asked.second));
                Ok(ok(&stat.await?))
            }
            Op::ReadFile => self.read_file(asked).await,
            _ => self.write_file(asked).await,
        }
    }

    async fn create_sandbox(&self, body: &[u8]) -> Result<Answer, Refusal> {
        let asked: NewSandbox = body::parsed(body)?;
        let (run, new) = self.sandboxes(move |desk| desk.create(&asked)).await?;
        let status = if new { StatusCode::CREATED } else { StatusCode::OK };
        Ok(document(status, &json!({ "sandbox": run })))
    }

    /// Snapshot, fork, rollback, comparison.
    async fn moment(&self, op: Op, asked: OfSandbox) -> Result<Answer, Refusal> {
        let OfSandbox { id, query, body, .. } = asked;
        match op {
            Op::Snapshot => {
                let SnapshotBody { name } = body::parsed(&body)?;
                let (run, name) = self.sandboxes(move |desk| desk.snapshot(&id, name)).await?;
                let told = json!({ "sandbox": run, "snapshot": name });
                Ok(document(StatusCode::CREATED, &told))
            }
            Op::Fork => {
                let ForkBody { at, count } = body::parsed(&body)?;
                if !(1..=runtime::FORKS_MAX).contains(&count) {
                    return Err(bad(format!("count is from 1 to {}", runtime::FORKS_MAX)).into());
                }
                let forks =
                    self.sandboxes(move |desk| desk.fork(&id, at.as_deref(), count)).await?;
                Ok(document(StatusCode::CREATED, &json!({ "sandboxes": forks })))
            }
            Op::Rollback => {
                let RollbackBody { to } = body::parsed(&body)?;
                let run = self.sandboxes(move |desk| desk.roll_back(&id, &to)).await?;
                Ok(ok(&json!({ "sandbox": run })))
            }
            _ => {
                let text = flag(&query, "text")?;
                let (from, to) = (query.get("from").cloned(), query.get("to").cloned());
                let diff = self
                    .sandboxes(move |desk| desk.diff(&id, from.as_deref(), to.as_deref(), text));
                Ok(ok(&diff.await?))
            }
        }
    }
}

/// A yes or no of the query; no when it is absent.
pub(crate) fn flag(query: &BTreeMap<String, String>, name: &str) -> Result<bool, Refusal> {
    match query.get(name).map(String::as_str) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(bad(format!("{name} is true or false")).into()),
    }
}

/// What is told of a sandbox's command.
pub(crate) fn of_exec(sandbox: &types::RunId, exec: u64, more: Value) -> Value {
    let mut told = json!({ "sandbox": sandbox, "exec": exec });
    if let (Some(told), Value::Object(more)) = (told.as_object_mut(), more) {
        told.extend(more);
    }
    told
}
