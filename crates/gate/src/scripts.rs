//! Scripted models that run in the gate, on loopback.
//!
//! One server per name, text and instance, so that the fault counters of one run do not count for
//! another. At most [`SCRIPTS_MAX`]: the one not asked for longest makes room.

use crate::error::GateError;
use crate::limits::SCRIPTS_MAX;
use crate::message::Event;
use models::script;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use types::{Coded as _, Digest, Failure};

/// The servers, the one asked for last at the end.
#[derive(Default)]
pub(crate) struct Scripts {
    running: Mutex<Vec<Server>>,
}

struct Server {
    name: Digest,
    base_url: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Scripts {
    /// Starts a server, or finds the one that runs.
    pub(crate) async fn start(&self, name: &str, text: &[u8], instance: &str) -> Event {
        match self.base_url(name, text, instance).await {
            Ok(base_url) => Event::ScriptStarted { base_url },
            Err(failure) => Event::Failed { failure },
        }
    }

    async fn base_url(&self, name: &str, text: &[u8], instance: &str) -> Result<String, Failure> {
        let parts = [name.as_bytes(), text, instance.as_bytes()];
        let digest = Digest::of_parts("script server", &parts);
        if let Some(base_url) = self.find(digest) {
            return Ok(base_url);
        }
        let text = String::from_utf8_lossy(text);
        let script = script::parse(&text, name).map_err(|error| error.failure())?;
        let not_served = |error: std::io::Error| {
            let why = error.to_string();
            GateError::ScriptNotServed { why }.failure()
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(not_served)?;
        let address = listener.local_addr().map_err(not_served)?;
        let base_url = format!("http://{address}/v1");
        let task = tokio::spawn(async move {
            // It ends only when it is aborted, or refuses an address that is not loopback.
            let _ = script::serve(Arc::new(script), listener).await;
        });
        let server = Server { name: digest, base_url: base_url.clone(), task };
        let mut running = self.running.lock().expect("nothing panics while it holds the list");
        if running.len() >= SCRIPTS_MAX {
            running.remove(0);
        }
        running.push(server);
        Ok(base_url)
    }

    fn find(&self, name: Digest) -> Option<String> {
        let mut running = self.running.lock().expect("nothing panics while it holds the list");
        let at = running.iter().position(|server| server.name == name)?;
        let server = running.remove(at);
        let base_url = server.base_url.clone();
        running.push(server);
        Some(base_url)
    }
}
