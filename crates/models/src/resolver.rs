//! Names to addresses, without the C library: the gate has no files after it is confined.

use hickory_resolver::TokioResolver;
use hyper_util::client::legacy::connect::dns::Name;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Resolves as the host's configuration said when it was made.
#[derive(Clone, Debug)]
pub(crate) struct Resolver {
    /// `Err` says why the host's configuration could not be read; addresses and `localhost` work
    /// all the same.
    inner: Arc<Result<TokioResolver, String>>,
}

impl Resolver {
    /// Reads the host's resolver configuration. Do this before confinement.
    pub(crate) fn from_host() -> Self {
        let inner = TokioResolver::builder_tokio()
            .and_then(|builder| builder.build())
            .map_err(|error| error.to_string());
        Self { inner: Arc::new(inner) }
    }

    async fn lookup(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        // Port 0: the connector puts in the one of the address.
        let socket = |ip: IpAddr| SocketAddr::new(ip, 0);
        if name.eq_ignore_ascii_case("localhost") {
            return Ok(vec![
                socket(Ipv4Addr::LOCALHOST.into()),
                socket(Ipv6Addr::LOCALHOST.into()),
            ]);
        }
        let resolver = self.inner.as_ref().as_ref().map_err(|why| io::Error::other(why.clone()))?;
        let found = resolver.lookup_ip(name).await.map_err(io::Error::other)?;
        Ok(found.iter().map(socket).collect())
    }
}

impl tower_service::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { Ok(resolver.lookup(name.as_str()).await?.into_iter()) })
    }
}
