//! Bringing an image from a registry into a layout, over HTTP as the distribution specification has
//! it.
//!
//! Runs in a confined process that shares the network and may write to one directory. What always
//! holds: TLS, but for a registry on this very machine that speaks none; every body is counted
//! against what was promised and hashed before it has a name; nobody's credentials are held, and an
//! anonymous token goes only to the registry that sent us for it. A registry may send us elsewhere
//! for a blob, never from TLS to none.

use crate::ImageError;
use crate::error::quoted;
use crate::limits::{
    BLOB_BYTES_MAX, DOCUMENT_BYTES_MAX, INDEX_DEPTH_MAX, REDIRECTS_MAX, SILENCE_MS_MAX,
    TOKEN_BYTES_MAX,
};
use crate::metadata::{self, ACCEPTED, Blob, Next, Platform};
use crate::order::Fetch;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, LOCATION, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};
use sandbox::OUT_INSIDE;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use types::Digest;

/// Where images without a registry of their own are.
const DOCKER_HUB: [&str; 2] = ["docker.io", "registry-1.docker.io"];
/// What a registry is told about us.
const USER_AGENT: &str = concat!("bedplate/", env!("CARGO_PKG_VERSION"));

/// A client made while the host's certificates can still be read.
pub(crate) struct Fetcher {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Fetcher {
    pub(crate) fn prepare() -> Result<Self, ImageError> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| ImageError::worker(format!("has no TLS: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Brings the image and all it needs but layers that are here.
    pub(crate) async fn fetch(self, order: &Fetch) -> Result<(), ImageError> {
        let mut registry = Registry {
            client: self.client,
            host: order.host.clone(),
            base: String::new(),
            name: order.name.clone(),
            token: None,
            out: PathBuf::from(OUT_INSIDE),
        };
        registry.find().await?;
        registry.bring(order).await
    }
}

/// One repository of one registry.
struct Registry {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// As the person wrote it.
    host: String,
    /// Scheme and authority.
    base: String,
    name: String,
    token: Option<String>,
    out: PathBuf,
}

/// What came, when it was not too much.
struct Body {
    bytes: Vec<u8>,
    headers: HeaderMap,
}

fn is_loopback(host: &str) -> bool {
    let name = host.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let name = name.unwrap_or_else(|| host.split(':').next().unwrap_or_default());
    name == "localhost"
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Registry {
    fn fail(&self, what: &str, why: impl ToString) -> ImageError {
        let (host, what, why) = (self.host.clone(), what.to_owned(), why.to_string());
        ImageError::Registry { host, what, why }
    }

    /// Finds out how the registry is spoken to: with TLS; without only on this machine.
    async fn find(&mut self) -> Result<(), ImageError> {
        let [name, real] = DOCKER_HUB;
        let host = if self.host == name { real.to_owned() } else { self.host.clone() };
        let mut last = None;
        let schemes: &[&str] = if is_loopback(&host) { &["https", "http"] } else { &["https"] };
        for scheme in schemes {
            self.base = format!("{scheme}://{host}");
            match self.send(&format!("{}/v2/", self.base), &[], None).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("one scheme was tried"))
    }

    async fn bring(&mut self, order: &Fetch) -> Result<(), ImageError> {
        let fail =
            |error: std::io::Error| ImageError::store("write", Path::new("the layout"), error);
        let blobs = self.out.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).map_err(fail)?;
        let top = self.manifest(&order.version, None).await?;
        let here = Platform::here();
        let (mut media, mut bytes) = (top.media.clone(), self.kept(&top)?);
        let mut at = top;
        for _ in 0..=INDEX_DEPTH_MAX {
            match metadata::document(&bytes, &media, None, &here)? {
                Next::Down(blob) => {
                    at = self.manifest(&format!("sha256:{}", blob.digest), Some(&blob)).await?;
                    bytes = self.kept(&at)?;
                    media.clone_from(&at.media);
                }
                Next::Image { config, layers } => {
                    self.blob(&config, DOCUMENT_BYTES_MAX, "the configuration").await?;
                    let read = metadata::config(&self.kept(&config)?, &here)?;
                    let mut brought = BTreeSet::new();
                    for (layer, diff_id) in layers.iter().zip(&read.diff_ids) {
                        if !order.have.contains(diff_id) && brought.insert(layer.digest) {
                            self.blob(layer, BLOB_BYTES_MAX, "a layer").await?;
                        }
                    }
                    let index = serde_json::json!({
                        "schemaVersion": 2,
                        "manifests": [{
                            "mediaType": at.media,
                            "digest": format!("sha256:{}", at.digest),
                            "size": at.size,
                        }],
                    });
                    let layout = br#"{"imageLayoutVersion":"1.0.0"}"#;
                    std::fs::write(self.out.join("oci-layout"), layout).map_err(fail)?;
                    return std::fs::write(self.out.join("index.json"), index.to_string())
                        .map_err(fail);
                }
            }
        }
        Err(ImageError::limit("indexes one behind the other", INDEX_DEPTH_MAX as u64))
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.out.join("blobs/sha256").join(digest.to_string())
    }

    /// What was brought before, of a checked digest.
    fn kept(&self, blob: &Blob) -> Result<Vec<u8>, ImageError> {
        let path = self.path(blob.digest);
        std::fs::read(&path).map_err(|error| ImageError::store("read", &path, error))
    }

    /// Brings a manifest or an index, and says what it is.
    async fn manifest(&mut self, version: &str, is: Option<&Blob>) -> Result<Blob, ImageError> {
        let what = format!("{}:{version}", self.name);
        let url = format!("{}/v2/{}/manifests/{version}", self.base, self.name);
        let response = self.get(&url, &ACCEPTED, &what).await?;
        let body = self.whole(response, DOCUMENT_BYTES_MAX, &what).await?;
        let digest = Digest::of(&body.bytes);
        let promised = is
            .map(|blob| blob.digest)
            .or_else(|| version.strip_prefix("sha256:").and_then(|digest| digest.parse().ok()));
        if let Some(expected) = promised.filter(|expected| *expected != digest) {
            return Err(ImageError::Mismatch {
                what: "a manifest".to_owned(),
                expected: expected.to_string(),
                found: digest.to_string(),
            });
        }
        let size = body.bytes.len() as u64;
        if let Some(blob) = is.filter(|blob| blob.size != size) {
            return Err(ImageError::Mismatch {
                what: "the size of a manifest".to_owned(),
                expected: blob.size.to_string(),
                found: size.to_string(),
            });
        }
        let media = match is {
            Some(blob) => blob.media.clone(),
            None => {
                let said = body.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
                let said = said.unwrap_or_default();
                said.split(';').next().unwrap_or_default().trim().to_owned()
            }
        };
        let path = self.path(digest);
        std::fs::write(&path, &body.bytes)
            .map_err(|error| ImageError::store("write", &path, error))?;
        Ok(Blob { digest, size, media })
    }

    /// Brings a blob to its place, which it gets when it is what was promised.
    async fn blob(&mut self, blob: &Blob, max: u64, what: &str) -> Result<(), ImageError> {
        if blob.size > max {
            return Err(ImageError::limit(&format!("bytes in {what}"), max));
        }
        let url = format!("{}/v2/{}/blobs/sha256:{}", self.base, self.name, blob.digest);
        let mut response = self.get(&url, &[], what).await?;
        let half = self.out.join("half");
        let fail = |error: std::io::Error| ImageError::store("write", &half, error);
        let mut file = std::fs::File::create(&half).map_err(fail)?;
        let (mut hasher, mut size) = (Sha256::new(), 0u64);
        while let Some(bytes) = self.chunk(&mut response, what).await? {
            size += bytes.len() as u64;
            if size > blob.size {
                break;
            }
            hasher.update(&bytes);
            file.write_all(&bytes).map_err(fail)?;
        }
        if size != blob.size {
            return Err(ImageError::Mismatch {
                what: format!("the size of {what}"),
                expected: blob.size.to_string(),
                found: if size > blob.size { "more".to_owned() } else { size.to_string() },
            });
        }
        let found = Digest(hasher.finalize().into());
        if found != blob.digest {
            return Err(ImageError::Mismatch {
                what: what.to_owned(),
                expected: blob.digest.to_string(),
                found: found.to_string(),
            });
        }
        std::fs::rename(&half, self.path(blob.digest)).map_err(fail)
    }

    /// The next bytes of a body.
    async fn chunk(
        &self,
        response: &mut Response<Incoming>,
        what: &str,
    ) -> Result<Option<Bytes>, ImageError> {
        loop {
            let silence = Duration::from_millis(SILENCE_MS_MAX);
            let frame = tokio::time::timeout(silence, response.body_mut().frame()).await;
            let frame = frame.map_err(|_| self.fail(what, "it fell silent"))?;
            match frame.transpose().map_err(|error| self.fail(what, error))? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
    }

    async fn whole(
        &self,
        mut response: Response<Incoming>,
        max: u64,
        what: &str,
    ) -> Result<Body, ImageError> {
        let mut bytes = Vec::new();
        while let Some(more) = self.chunk(&mut response, what).await? {
            if (bytes.len() + more.len()) as u64 > max {
                return Err(ImageError::limit("bytes in a document", max));
            }
            bytes.extend_from_slice(&more);
        }
        Ok(Body { bytes, headers: response.headers().clone() })
    }

    /// Asks the registry, with a token when it wants one, and follows where it sends us.
    async fn get(
        &mut self,
        url: &str,
        accept: &[&str],
        what: &str,
    ) -> Result<Response<Incoming>, ImageError> {
        let mut response = self.send(url, accept, self.token.clone()).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let token = self.authorise(response.headers()).await?;
            self.token = Some(token.clone());
            response = self.send(url, accept, Some(token)).await?;
        }
        let mut at = url.to_owned();
        for _ in 0..REDIRECTS_MAX {
            if !response.status().is_redirection() {
                break;
            }
            let to = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
            at = elsewhere(&at, to.unwrap_or_default()).map_err(|why| self.fail(what, why))?;
            // Where it sends us gets no token of its.
            response = self.send(&at, accept, None).await?;
        }
        match response.status() {
            StatusCode::OK => Ok(response),
            status => {
                let said = self.whole(response, TOKEN_BYTES_MAX, what).await;
                let said = said.map(|body| quoted(&body.bytes)).unwrap_or_default();
                Err(self.fail(what, format!("{status} {said}")))
            }
        }
    }

    async fn send(
        &self,
        url: &str,
        accept: &[&str],
        token: Option<String>,
    ) -> Result<Response<Incoming>, ImageError> {
        let mut request = Request::get(url).header(http::header::USER_AGENT, USER_AGENT);
        for media in accept {
            request = request.header(ACCEPT, *media);
        }
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::new()).map_err(|error| self.fail("an answer", error))?;
        let silence = Duration::from_millis(SILENCE_MS_MAX);
        match tokio::time::timeout(silence, self.client.request(request)).await {
            Ok(sent) => sent.map_err(|error| self.fail("an answer", chain(&error))),
            Err(_) => Err(self.fail("an answer", "it was silent")),
        }
    }

    /// Gets an anonymous token from where the registry says.
    async fn authorise(&self, headers: &HeaderMap) -> Result<String, ImageError> {
        #[derive(Deserialize)]
        struct Granted {
            token: Option<String>,
            access_token: Option<String>,
        }
        let what = "a token";
        let said = headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let url = token_url(said.unwrap_or_default(), &self.base, &self.name)
            .map_err(|why| self.fail(what, why))?;
        let response = self.send(&url, &[], None).await?;
        if response.status() != StatusCode::OK {
            return Err(self.fail(what, response.status()));
        }
        let body = self.whole(response, TOKEN_BYTES_MAX, what).await?;
        let granted: Granted =
            serde_json::from_slice(&body.bytes).map_err(|error| self.fail(what, error))?;
        let token = granted.token.or(granted.access_token).unwrap_or_default();
        match !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(token),
            false => Err(self.fail(what, "it granted none")),
        }
    }
}

/// An error with what it is about.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(inner) = next {
        text = format!("{text}: {inner}");
        next = inner.source();
    }
    text
}

/// Where a redirect leads.
fn elsewhere(from: &str, to: &str) -> Result<String, String> {
    let here: Uri = from.parse().map_err(|_| "its own address is none".to_owned())?;
    let authority = here.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    let scheme = here.scheme_str().unwrap_or_default();
    let to = match to.strip_prefix('/') {
        Some(rest) if !rest.starts_with('/') => format!("{scheme}://{authority}{to}"),
        _ => to.to_owned(),
    };
    let there: Uri = to.parse().map_err(|_| "it sends us to what is no address".to_owned())?;
    let plain = there.scheme_str() == Some("http");
    let local = is_loopback(there.host().unwrap_or_default());
    match there.scheme_str() {
        Some("https") => Ok(to),
        Some("http") if plain && scheme == "http" && local => Ok(to),
        _ => Err("it sends us where there is no TLS".to_owned()),
    }
}

/// The address of a token, from the header of a refusal.
fn token_url(said: &str, base: &str, name: &str) -> Result<String, String> {
    let (scheme, rest) = said.split_once(' ').unwrap_or((said, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err("it wants a login, and none is held here".to_owned());
    }
    let mut parts = std::collections::BTreeMap::new();
    for part in rest.split("\",") {
        if let Some((key, value)) = part.split_once("=\"") {
            parts.insert(key.trim().to_ascii_lowercase(), value.trim_end_matches('"'));
        }
    }
    let realm = *parts.get("realm").ok_or("it does not say where to get a token")?;
    let address: Uri = realm.parse().map_err(|_| "where to get a token is no address")?;
    let local = base.starts_with("http://") && is_loopback(address.host().unwrap_or_default());
    if address.scheme_str() != Some("https") && !(local && address.scheme_str() == Some("http")) {
        return Err("where to get a token has no TLS".to_owned());
    }
    let service = parts.get("service").copied().unwrap_or_default();
    let join = if address.query().is_some() { '&' } else { '?' };
    let scope = format!("repository:{name}:pull");
    Ok(format!("{realm}{join}service={}&scope={}", escaped(service), escaped(&scope)))
}

fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    let escape = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_may_go_without_tls() {
        for (host, local) in [
            ("localhost:5000", true),
            ("127.0.0.1", true),
            ("[::1]:5000", true),
            ("127.0.0.1.example.org", false),
            ("localhost.example.org:80", false),
            ("10.0.0.1:5000", false),
        ] {
            assert_eq!(is_loopback(host), local, "{host}");
        }
    }

    #[test]
    fn a_redirect_never_leaves_tls() {
        let check = |from: &str, to: &str, expected: Result<&str, ()>| {
            let got = elsewhere(from, to);
            assert_eq!(got.as_deref().map_err(|_| ()), expected, "{from} {to}");
        };
        let tls = "https://a.example/v2/x";
        check(tls, "/y", Ok("https://a.example/y"));
        check(tls, "https://b.example/y", Ok("https://b.example/y"));
        check(tls, "http://b.example/y", Err(()));
        check(tls, "http://127.0.0.1/y", Err(()));
        check(tls, "file:///etc/passwd", Err(()));
        check(tls, "", Err(()));
        check("http://127.0.0.1:5000/x", "http://127.0.0.1:6000/y", Ok("http://127.0.0.1:6000/y"));
        check("http://127.0.0.1:5000/x", "http://b.example/y", Err(()));
    }

    #[test]
    fn a_token_is_asked_for_where_the_registry_says() {
        let header =
            "Bearer realm=\"https://auth.example/token\",service=\"reg istry\",scope=\"x\"";
        assert_eq!(
            token_url(header, "https://r", "a/b").unwrap(),
            "https://auth.example/token?service=reg%20istry&scope=repository%3Aa%2Fb%3Apull"
        );
        for bad in [
            "",
            "Basic realm=\"x\"",
            "Bearer service=\"x\"",
            "Bearer realm=\"http://auth.example/token\"",
            "Bearer realm=\"http://127.0.0.1/token\"",
        ] {
            assert!(token_url(bad, "https://r", "a").is_err(), "{bad}");
        }
        let local = "Bearer realm=\"http://127.0.0.1:1/t\",service=\"s\"";
        assert!(token_url(local, "http://127.0.0.1:2", "a").is_ok());
    }
}
