//! The way out: names are resolved, addresses checked and dialled here, after a permit only.
//!
//! The address that was checked is the one that is dialled. A name that resolves to any barred
//! address is not dialled at all: whoever answers for it mixes inside and outside.

use crate::address;
use crate::authority::ip_of;
use crate::boundary::Config;
use crate::error::BoundaryError;
use crate::host::Host;
use crate::limits::{ADDRESSES_MAX, DIAL_MS_MAX, HANDSHAKE_MS_MAX, RESOLVE_MS_MAX};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Dials for one sandbox.
pub(crate) struct Upstream {
    resolve: BTreeMap<String, SocketAddr>,
    resolver: Option<TokioResolver>,
    http1: TlsConnector,
    http2: TlsConnector,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("resolve", &self.resolve).finish_non_exhaustive()
    }
}

impl Upstream {
    pub(crate) fn new(config: &Config) -> Result<Self, BoundaryError> {
        let mut roots = RootCertStore::empty();
        for root in &config.roots {
            let bad = |error: rustls::Error| BoundaryError::Config(format!("`trust`: {error}"));
            roots.add(root.clone()).map_err(bad)?;
        }
        let roots = Arc::new(roots);
        Ok(Self {
            resolve: config.resolve.clone(),
            resolver: resolver(&config.nameservers)?,
            http1: connector(&roots, &[b"http/1.1"])?,
            http2: connector(&roots, &[b"h2", b"http/1.1"])?,
        })
    }

    /// A connection to a host that was permitted.
    pub(crate) async fn dial(&self, host: &Host, port: u16) -> Result<TcpStream, BoundaryError> {
        let addresses = self.addresses(host, port).await?;
        let mut why = "it has no address".to_owned();
        for address in addresses.into_iter().take(ADDRESSES_MAX) {
            let wait = Duration::from_millis(DIAL_MS_MAX);
            match timeout(wait, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => why = error.kind().to_string(),
                Err(_) => "it does not answer".clone_into(&mut why),
            }
        }
        Err(BoundaryError::Upstream(why))
    }

    /// TLS to a host, verified as this host. HTTP/2 is offered when `http2` says so.
    pub(crate) async fn secure(
        &self,
        stream: TcpStream,
        host: &Host,
        http2: bool,
    ) -> Result<TlsStream<TcpStream>, BoundaryError> {
        let name = match host {
            Host::Ip(ip) => ServerName::IpAddress((*ip).into()),
            Host::Name(name) => ServerName::try_from(name.to_string())
                .map_err(|_| BoundaryError::Unreachable("its name cannot be verified"))?,
        };
        let connector = if http2 { &self.http2 } else { &self.http1 };
        let wait = Duration::from_millis(HANDSHAKE_MS_MAX);
        match timeout(wait, connector.connect(name, stream)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(BoundaryError::Upstream(tls_reason(&error))),
            Err(_) => Err(BoundaryError::Upstream("its TLS handshake takes too long".to_owned())),
        }
    }

    async fn addresses(&self, host: &Host, port: u16) -> Result<Vec<SocketAddr>, BoundaryError> {
        if let Some(address) = self.resolve.get(&host.to_string()) {
            return Ok(vec![*address]);
        }
        let ips = match (host, ip_of(host)) {
            (_, Some(ip)) => vec![ip],
            (Host::Name(name), _) => self.lookup(name).await?,
            (Host::Ip(_), None) => Vec::new(),
        };
        checked(&ips)?;
        Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, BoundaryError> {
        let resolver = self.resolver.as_ref();
        let resolver = resolver.ok_or(BoundaryError::Unreachable("no name server is known"))?;
        // The dot keeps search domains out.
        let lookup = resolver.lookup_ip(format!("{name}."));
        match timeout(Duration::from_millis(RESOLVE_MS_MAX), lookup).await {
            Ok(Ok(found)) => Ok(found.iter().collect()),
            Ok(Err(_)) => Err(BoundaryError::Unreachable("its name does not resolve")),
            Err(_) => Err(BoundaryError::Unreachable("its name does not resolve in time")),
        }
    }
}

/// All addresses may be dialled, or none is.
fn checked(ips: &[IpAddr]) -> Result<(), BoundaryError> {
    match ips.iter().find_map(|ip| address::barred(*ip)) {
        Some(why) => Err(BoundaryError::Unreachable(why)),
        None if ips.is_empty() => Err(BoundaryError::Unreachable("its name has no address")),
        None => Ok(()),
    }
}

fn resolver(nameservers: &[SocketAddr]) -> Result<Option<TokioResolver>, BoundaryError> {
    if nameservers.is_empty() {
        return Ok(None);
    }
    let servers = nameservers.iter().map(|server| {
        let at_port = |mut connection: ConnectionConfig| {
            connection.port = server.port();
            connection
        };
        let connections = vec![at_port(ConnectionConfig::udp()), at_port(ConnectionConfig::tcp())];
        NameServerConfig::new(server.ip(), true, connections)
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = Duration::from_secs(2);
    options.attempts = 1;
    let failed = |error: hickory_resolver::net::NetError| BoundaryError::Config(error.to_string());
    builder.build().map(Some).map_err(failed)
}

fn connector(roots: &Arc<RootCertStore>, alpn: &[&[u8]]) -> Result<TlsConnector, BoundaryError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BoundaryError::Config(error.to_string()))?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Why a handshake failed, without the world's bytes.
fn tls_reason(error: &std::io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(why)) => {
            use rustls::CertificateError as E;
            let why = match why {
                E::Expired | E::ExpiredContext { .. } => "has expired",
                E::UnknownIssuer => "is of an unknown issuer",
                E::NotValidForName | E::NotValidForNameContext { .. } => "is not for this name",
                E::NotValidYet | E::NotValidYetContext { .. } => "is not valid yet",
                _ => "is not valid",
            };
            format!("its certificate {why}")
        }
        _ => "its TLS handshake failed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_answer_is_refused_whole() {
        let ips = |text: &str| text.split(' ').map(|ip| ip.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(checked(&ips("1.1.1.1 2606:4700::1")), Ok(()));
        for mixed in ["1.1.1.1 10.0.0.1", "127.0.0.1", "2606:4700::1 ::ffff:169.254.169.254"] {
            assert!(checked(&ips(mixed)).is_err(), "{mixed}");
        }
        assert!(checked(&[]).is_err());
    }
}
