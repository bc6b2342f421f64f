//! TLS: which authorities are trusted.

use crate::error::ModelError;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// The host's authorities. Read them before confinement. A host without certificates can still
/// reach servers without TLS; with TLS the handshake fails and says so.
#[must_use]
pub fn host_authorities() -> Vec<CertificateDer<'static>> {
    rustls_native_certs::load_native_certs().certs
}

/// Authorities as TLS takes them; what is no certificate is left out.
pub(crate) fn roots(
    authorities: impl IntoIterator<Item = CertificateDer<'static>>,
) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities);
    roots
}

/// A TLS configuration that trusts the host's authorities and these PEM texts.
///
/// # Errors
/// [`ModelError::BadEndpoint`] when a text holds no certificate.
pub(crate) fn config(
    provider: &str,
    host: &RootCertStore,
    trust: &[String],
) -> Result<ClientConfig, ModelError> {
    let bad = |why: String| ModelError::BadEndpoint { provider: provider.to_owned(), why };
    let mut roots = host.clone();
    for text in trust {
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate =
                certificate.map_err(|error| bad(format!("a trusted certificate: {error:?}")))?;
            roots
                .add(certificate)
                .map_err(|error| bad(format!("a trusted certificate: {error}")))?;
            found += 1;
        }
        if found == 0 {
            return Err(bad("a file of [network] trust holds no PEM certificate".into()));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}
