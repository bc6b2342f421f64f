//! The model endpoint: the one name that is answered here and never leads outside.
//!
//! A program of the sandbox that calls [`MODELS_HOST`] on port 80 speaks with the [`Endpoint`] that
//! the boundary was given; without one the name is a name like any other. Nothing is asked of the
//! judge: what the endpoint does with a request is its own business, and it decides nothing either.

use crate::boundary::Inner;
use crate::host::Host;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, IDLE_MS_MAX};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;

/// The endpoint's name inside a sandbox.
pub const MODELS_HOST: &str = "models.bedplate.internal";
/// The endpoint's port.
const MODELS_PORT: u16 = 80;

/// The body of an answer of the endpoint.
pub type EndpointBody = UnsyncBoxBody<Bytes, std::io::Error>;
/// An answer on its way.
pub type EndpointAnswer = Pin<Box<dyn Future<Output = Response<EndpointBody>> + Send>>;

/// Who answers a guest's calls of models.
pub trait Endpoint: Send + Sync + 'static {
    /// The answer to one request. Dropping it gives the request up.
    fn answer(&self, request: Request<Incoming>) -> EndpointAnswer;
}

impl Inner {
    /// Whether this name is the endpoint's.
    pub(crate) fn is_models(&self, name: &str) -> bool {
        self.config.models.is_some() && name == MODELS_HOST
    }

    /// The endpoint, when a connection goes there.
    pub(crate) fn endpoint(&self, host: &Host, port: u16) -> Option<Arc<dyn Endpoint>> {
        let Host::Name(name) = host else { return None };
        let called = port == MODELS_PORT && self.is_models(name);
        self.config.models.clone().filter(|_| called)
    }
}

/// Serves one connection to the endpoint.
pub(crate) async fn serve(endpoint: Arc<dyn Endpoint>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let answer = endpoint.answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(IDLE_MS_MAX))
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let _ = served.await;
}
