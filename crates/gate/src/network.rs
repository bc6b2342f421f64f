//! The owner's side of one sandbox's network: what is asked of it, and its answers.

use crate::client::failure_of;
use crate::error::GateError;
use crate::frame::Attachment;
use crate::link::Link;
use crate::message::{Event, NetConfig, NetQuestion, NetVerdict, Request};
use boundary::Event as NetPassage;
use models::Secret;
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
        let request = Request::NetOpen { net, config };
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

    /// Answers a question. `secrets` are the values of the verdict's placeholders, in order.
    pub async fn answer(&self, ask: u64, verdict: NetVerdict, secrets: Vec<Zeroizing<String>>) {
        let attached = (!secrets.is_empty()).then(|| {
            let plain: Vec<&str> = secrets.iter().map(|value| value.as_str()).collect();
            Attachment::Secret(Secret::new(serde_json::to_vec(&plain).expect("strings are JSON")))
        });
        let request = Request::NetVerdict { ask, verdict };
        self.link.send(request, attached.into_iter().collect()).await;
    }

    /// Policy is another: everything that is open is asked about again, and closed when it may not
    /// go on. Does not wait; the questions come as others do.
    pub async fn recheck(&self) {
        self.link.send(Request::NetRecheck { net: self.net }, Vec::new()).await;
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.link.end_net(self.net);
        self.link.tell(Request::NetClose { net: self.net });
    }
}
