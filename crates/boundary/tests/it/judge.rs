//! A judge for tests: answers by simple rules and records every question and event.

use boundary::{
    Answer, ConnectAsk, ConnectVerdict, Denial, Event, How, Judge, RequestAsk, RequestVerdict,
    SecretUse, Standing,
};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::sync::{Notify, watch};

/// The placeholder of the one secret.
pub(crate) const PLACEHOLDER: &str = "bpsecret-api-0123456789abcdef0123456789abcdef";
/// Its value.
pub(crate) const VALUE: &str = "hunter2/with+odd\"chars";

/// What was asked, and what was said.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) names: Vec<String>,
    pub(crate) connects: Vec<ConnectAsk>,
    pub(crate) requests: Vec<RequestAsk>,
    pub(crate) events: Vec<(u64, Event)>,
}

/// Permits names under `.ok.test`, and requests to them whose path does not begin with `/denied`.
#[derive(Debug)]
pub(crate) struct Fake {
    pub(crate) seen: Mutex<Seen>,
    /// Grows with each question and event.
    pub(crate) moved: watch::Sender<u64>,
    ids: AtomicU64,
    /// What `still` answers.
    pub(crate) still: AtomicBool,
    /// Whether `still` never answers.
    pub(crate) hangs: AtomicBool,
    /// Whether inspected connections may go on whatever `still` says.
    pub(crate) keep_links: AtomicBool,
    /// Hosts whose connections are opaque.
    pub(crate) opaque: Mutex<Vec<String>>,
    /// Hosts that get the secret.
    pub(crate) trusted: Mutex<Vec<String>>,
    pub(crate) how: Mutex<How>,
    /// Requests whose path begins with `/wait` wait for this.
    pub(crate) go: Notify,
    /// Questions that were dropped before they were answered.
    pub(crate) dropped: AtomicU64,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            seen: Mutex::default(),
            moved: watch::Sender::new(0),
            ids: AtomicU64::new(1),
            still: AtomicBool::new(true),
            hangs: AtomicBool::new(false),
            keep_links: AtomicBool::new(false),
            opaque: Mutex::default(),
            trusted: Mutex::new(vec!["ok.test".to_owned()]),
            how: Mutex::new(How::Replace),
            go: Notify::new(),
            dropped: AtomicU64::new(0),
        }
    }
}

pub(crate) fn is_permitted(host: &str) -> bool {
    host == "ok.test" || host.ends_with(".ok.test") || host == "93.184.216.34"
}

fn denial() -> Denial {
    Denial {
        code: "BP-POLICY-001".to_owned(),
        message: "no rule permits it".to_owned(),
        approval: Some("ap-1".to_owned()),
    }
}

impl Fake {
    pub(crate) fn note(&self, what: impl FnOnce(&mut Seen)) {
        what(&mut self.seen.lock().unwrap());
        self.moved.send_modify(|count| *count += 1);
    }

    /// Waits until what was seen is as `until` wants it.
    pub(crate) async fn wait<T>(&self, mut until: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut moved = self.moved.subscribe();
        let waiting = async {
            loop {
                moved.borrow_and_update();
                if let Some(found) = until(&self.seen.lock().unwrap()) {
                    return found;
                }
                moved.changed().await.unwrap();
            }
        };
        let limit = std::time::Duration::from_secs(20);
        tokio::time::timeout(limit, waiting).await.expect("what is waited for happens")
    }

    /// The last event that ends a permit.
    pub(crate) async fn end(&self) -> Event {
        self.wait(|seen| {
            let mut events = seen.events.iter().rev().map(|(_, event)| event);
            let ends = |event: &&Event| !matches!(event, Event::Sent | Event::Dated { .. });
            events.find(ends).cloned()
        })
        .await
    }

    fn secrets(&self, ask: &RequestAsk) -> Vec<SecretUse> {
        let how = self.how.lock().unwrap().clone();
        let trusted = self.trusted.lock().unwrap().contains(&ask.host);
        let stands = ask.placeholders.iter().any(|one| one.text == PLACEHOLDER);
        let given = trusted && (stands || how != How::Replace);
        let one = || SecretUse {
            placeholder: PLACEHOLDER.to_owned(),
            value: VALUE.to_owned().into(),
            how: how.clone(),
        };
        given.then(one).into_iter().collect()
    }
}

/// Counts a question that nobody waits for any more.
struct Asked<'a>(&'a AtomicU64, bool);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Judge for Fake {
    fn name<'a>(&'a self, host: &'a str) -> Answer<'a, bool> {
        self.note(|seen| seen.names.push(host.to_owned()));
        Box::pin(async move { is_permitted(host) })
    }

    fn connect<'a>(&'a self, ask: &'a ConnectAsk) -> Answer<'a, ConnectVerdict> {
        self.note(|seen| seen.connects.push(ask.clone()));
        Box::pin(async move {
            if self.opaque.lock().unwrap().contains(&ask.host) {
                return ConnectVerdict::Opaque { id: self.ids.fetch_add(1, Ordering::SeqCst) };
            }
            match is_permitted(&ask.host) {
                true => ConnectVerdict::Inspect,
                false => ConnectVerdict::Deny(denial()),
            }
        })
    }

    fn request<'a>(&'a self, ask: &'a RequestAsk) -> Answer<'a, RequestVerdict> {
        self.note(|seen| seen.requests.push(ask.clone()));
        Box::pin(async move {
            let mut asked = Asked(&self.dropped, false);
            if ask.path.starts_with("/wait") {
                self.go.notified().await;
            }
            asked.1 = true;
            if !is_permitted(&ask.host) || ask.path.starts_with("/denied") {
                return RequestVerdict::Deny(denial());
            }
            let id = self.ids.fetch_add(1, Ordering::SeqCst);
            RequestVerdict::Permit { id, secrets: self.secrets(ask) }
        })
    }

    fn still<'a>(&'a self, standing: &'a Standing) -> Answer<'a, bool> {
        let link = matches!(standing, Standing::Inspected(_));
        let kept = link && self.keep_links.load(Ordering::SeqCst);
        Box::pin(async move {
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            kept || self.still.load(Ordering::SeqCst)
        })
    }

    fn event(&self, permit: u64, event: Event) {
        self.note(|seen| seen.events.push((permit, event)));
    }
}
