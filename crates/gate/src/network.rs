//! The owner's side of one sandbox's network: what is asked of it, and its answers.

use crate::client::{NotPrepared, Prepared, failure_of};
use crate::error::GateError;
use crate::frame::Attachment;
use crate::link::Link;
use crate::message::{
    Event, NetConfig, NetQuestion, NetVerdict, PrivacyOrder, Request, SecretGiven,
};
use boundary::Event as NetPassage;
use models::{Answer, Endpoint, Secret};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use tokio::sync::mpsc;
use types::{Coded as _, Failure};
use zeroize::Zeroizing;

/// What the boundary of a sandbox says.
#[derive(Debug, Clone, PartialEq)]
pub enum NetMessage {
    /// Something wants to leave and waits for [`Network::answer`].
    Asked {
        /// Its number.
        ask: u64,
        /// What it is.
        question: NetQuestion,
    },
    /// Nobody waits for this answer any more.
    Withdrawn {
        /// Its number.
        ask: u64,
    },
    /// A token was made, for the secret behind this placeholder.
    Minted {
        /// The placeholder.
        placeholder: String,
        /// The token.
        token: Token,
        /// How long it is good, seconds, if that was said.
        expires_s: Option<u64>,
    },
    /// The answer to a permit's request, as the program got it; before its end.
    Kept {
        /// The permit.
        permit: u64,
        /// Its bytes, or why it is not kept.
        answer: Result<Vec<u8>, String>,
    },
    /// What became of a permit.
    Passed {
        /// The permit.
        permit: u64,
        /// What became of it.
        passage: NetPassage,
        /// Whether it was sent; said of a quiet permit.
        sent: Option<bool>,
    },
}

/// A token as it came: wiped when dropped, and shown by nothing but [`Token::expose`].
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    pub(crate) fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The token itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

/// One sandbox's network, served by the gate. Dropping it ends everything on it.
#[derive(Debug)]
pub struct Network {
    net: u64,
    link: Arc<Link>,
    messages: mpsc::UnboundedReceiver<NetMessage>,
    certificate: String,
    authority: Zeroizing<Vec<u8>>,
}

impl Network {
    pub(crate) async fn open(
        link: Arc<Link>,
        listeners: &sandbox::Listeners,
        config: NetConfig,
        authority: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Self, Failure> {
        let (net, messages) = link.new_net();
        let mut network = Self {
            net,
            link,
            messages,
            certificate: String::new(),
            authority: Zeroizing::default(),
        };
        let cannot =
            |error: std::io::Error| GateError::Network { why: error.to_string() }.failure();
        let fds: Vec<_> = listeners
            .tcp
            .iter()
            .map(|socket| socket.as_fd())
            .chain(listeners.dns_udp.iter().map(|socket| socket.as_fd()))
            .chain(listeners.dns_tcp.iter().map(|socket| socket.as_fd()))
            .collect();
        network.link.send_descriptors(net, &fds).map_err(cannot)?;
        let key = authority.map(|key| Attachment::Secret(Secret::new(key.to_vec())));
        let request = Request::NetOpen { net, config: Box::new(config) };
        let asked = network.link.ask(request, key.into_iter().collect()).await;
        let asked = asked.map_err(|error| error.failure())?;
        let (event, key) = asked.last().await.map_err(|error| error.failure())?;
        match event {
            Event::NetOpened { certificate } => {
                network.certificate = certificate;
                network.authority = Zeroizing::new(key.to_vec());
                Ok(network)
            }
            other => Err(failure_of(other)),
        }
    }

    /// The certificate that programs in the sandbox must trust: PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The authority's key, for the next gate when this one dies.
    #[must_use]
    pub fn authority(&self) -> Zeroizing<Vec<u8>> {
        self.authority.clone()
    }

    /// What comes next; `None` when the gate is gone, and nothing leaves until another serves.
    pub async fn next(&mut self) -> Option<NetMessage> {
        self.messages.recv().await
    }

    /// Answers a question. `secrets` belong to the verdict's placeholders, in order.
    pub async fn answer(&self, ask: u64, verdict: NetVerdict, secrets: Vec<SecretGiven>) {
        let attached = (!secrets.is_empty()).then(|| {
            let text = serde_json::to_vec(&secrets).expect("they are plain data");
            Attachment::Secret(Secret::new(text))
        });
        let request = Request::NetVerdict { ask, verdict };
        self.link.send(request, attached.into_iter().collect()).await;
    }

    /// Answers a request with an answer that was kept.
    pub async fn answer_kept(&self, ask: u64, permit: u64, answer: Vec<u8>) {
        let request = Request::NetVerdict { ask, verdict: NetVerdict::Answered { permit } };
        self.link.send(request, vec![Attachment::Plain(answer.into())]).await;
    }

    /// The way to the guests of this sandbox, for as long as this gate lives.
    #[must_use]
    pub fn guests(&self) -> GuestLink {
        GuestLink { link: Arc::clone(&self.link) }
    }

    /// Policy is another: everything that is open is asked about again, and closed when it may not
    /// go on. Does not wait; the questions come as others do.
    pub async fn recheck(&self) {
        self.link.send(Request::NetRecheck { net: self.net }, Vec::new()).await;
    }
}

/// How guests' calls of models are answered: each by its number, and each exactly once.
#[derive(Debug, Clone)]
pub struct GuestLink {
    link: Arc<Link>,
}

impl GuestLink {
    /// Encodes a guest's request for an endpoint; nothing leaves this machine. Then
    /// [`Gate::send`](crate::Gate::send) sends it and gives the guest what comes, but for its end.
    ///
    /// # Errors
    /// As [`Gate::prepare`](crate::Gate::prepare); a fault of class `Interrupted` when the guest
    /// has its answer already.
    pub async fn prepare(
        &self,
        ask: u64,
        endpoint: Endpoint,
        model: String,
        privacy: PrivacyOrder,
    ) -> Result<Prepared, NotPrepared> {
        let kept = Secret::new(privacy.kept.to_vec());
        let (endpoint, privacy) = (Box::new(endpoint), Box::new(privacy));
        let request = Request::GuestPrepare { ask, endpoint, model, privacy };
        Prepared::ask(Arc::clone(&self.link), request, kept).await
    }

    /// Says which record announced a call.
    pub async fn noted(&self, ask: u64, record: u64) {
        self.link.send(Request::GuestNoted { ask, record }, Vec::new()).await;
    }

    /// Lets the guest have the end of its answer, which is recorded now.
    pub async fn finish(&self, ask: u64) {
        self.link.send(Request::GuestFinish { ask }, Vec::new()).await;
    }

    /// Refuses a call, with an HTTP status from 400 to 599.
    pub async fn refuse(
        &self,
        ask: u64,
        status: u16,
        failure: Failure,
        retry_after_ms: Option<u64>,
    ) {
        let request = Request::GuestRefuse { ask, status, failure, retry_after_ms };
        self.link.send(request, Vec::new()).await;
    }

    /// Gives an answer of the log; `raw` are the provider's bytes, which a guest of its own dialect
    /// gets as they are.
    pub async fn serve(&self, ask: u64, answer: Answer, native: bool, raw: Vec<u8>) {
        let request = Request::GuestServe { ask, native, answer: Box::new(answer) };
        self.link.send(request, vec![Attachment::Plain(raw.into())]).await;
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.link.end_net(self.net);
        self.link.tell(Request::NetClose { net: self.net });
    }
}
