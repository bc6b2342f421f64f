//! Asking the owner: a connection for each request, and another owner when one dies over it.

use crate::Refusal;
use crate::limits::OWNERS_MAX;
use runtime::client::Client;
use runtime::protocol::{Reply, Request};
use runtime::{Home, RuntimeError};
use std::collections::BTreeSet;
use std::path::PathBuf;
use types::RunId;

/// The way to the home's owner.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    home: Home,
    exe: PathBuf,
}

impl Owner {
    pub(crate) const fn of(home: Home, exe: PathBuf) -> Self {
        Self { home, exe }
    }

    /// A connection, to an owner that is started when there is none.
    pub(crate) async fn connect(&self) -> Result<Client, Refusal> {
        let (home, exe) = (self.home.clone(), self.exe.clone());
        // Starting an owner blocks until it listens.
        let handle = tokio::runtime::Handle::current();
        let connecting = tokio::task::spawn_blocking(move || {
            handle.block_on(Client::connect_or_start(&home, &exe))
        });
        Ok(connecting.await.expect("connecting does not panic")?)
    }

    /// Asks for one thing. A request that may be asked again survives the owner's death.
    pub(crate) async fn ask(&self, request: &Request, again: bool) -> Result<Reply, Refusal> {
        let mut last = None;
        for _ in 0..if again { OWNERS_MAX } else { 1 } {
            match self.ask_once(request).await {
                Err(refusal) if refusal.failure.code == OWNER_GONE => last = Some(refusal),
                other => return other,
            }
        }
        Err(last.expect("an owner was asked"))
    }

    async fn ask_once(&self, request: &Request) -> Result<Reply, Refusal> {
        let mut owner = self.connect().await?;
        owner.send(request).await?;
        reply(&mut owner).await
    }

    /// The runs that live now. No owner is started for it.
    pub(crate) async fn live(&self) -> BTreeSet<RunId> {
        let asked = async {
            let mut owner = Client::connect(&self.home).await.ok()??;
            owner.send(&Request::Live).await.ok()?;
            match owner.next().await.ok()?? {
                Reply::Live { runs } => Some(runs),
                _ => None,
            }
        };
        asked.await.into_iter().flatten().collect()
    }
}

/// The owner died over a request.
pub(crate) const OWNER_GONE: &str = "BP-OWNER-003";

/// The owner's next reply; its failures and its absence are refusals.
pub(crate) async fn reply(owner: &mut Client) -> Result<Reply, Refusal> {
    match owner.next().await? {
        Some(Reply::Failed { failure, usage }) => Err(Refusal::of(failure, usage)),
        Some(reply) => Ok(reply),
        None => {
            let reason = "it ended in the middle of a request".to_owned();
            Err(RuntimeError::OwnerGone { reason }.into())
        }
    }
}
