//! From a request's head to the question about it: checks, one form, digest.

use crate::body::Collected;
use crate::error::BoundaryError;
use crate::facts::{self, CREDENTIALS, Outline};
use crate::host::Host;
use crate::judge::{Judge, RequestAsk};
use crate::limits::HEADERS_MAX;
use crate::path::{self, Path};
use crate::secrets;
use http::header::{
    self, ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST,
    HeaderName, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Version};
use std::borrow::Cow;
use types::{BodyKind, Digest, HttpFacts};

/// Headers by which a server may take another method or path than the one that is judged.
const OVERRIDES: [&str; 7] = [
    "http2-settings",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-http-path-override",
];

/// Headers that end at each hop.
const HOPS: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// Headers that may not be lost on the way because the request is judged with them.
const KEPT: [&str; 5] = ["content-encoding", "content-length", "content-type", "expect", "host"];

/// The connection that a request came on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) scheme: &'static str,
}

impl Origin {
    pub(crate) fn default_port(&self) -> u16 {
        if self.scheme == "https" { 443 } else { 80 }
    }

    /// The text of `Host`.
    pub(crate) fn authority(&self) -> String {
        self.host.authority(self.port, self.default_port())
    }
}

/// A request that can be read in one way.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) method: String,
    pub(crate) path: Path,
    pub(crate) query: String,
    /// What is sent, without what ends at this hop.
    pub(crate) headers: HeaderMap,
    pub(crate) websocket: bool,
    /// A call that goes both ways at once: its body is not waited for.
    pub(crate) two_way: bool,
}

/// Checks a head against its connection.
pub(crate) fn check(origin: &Origin, parts: &Parts) -> Result<Checked, BoundaryError> {
    let method = parts.method.as_str();
    let plain = |b: u8| b.is_ascii_uppercase() || matches!(b, b'-' | b'_');
    if matches!(method, "CONNECT" | "TRACE" | "TRACK") || !method.bytes().all(plain) {
        return Err(BoundaryError::Kind("its method"));
    }
    if parts.headers.len() > HEADERS_MAX {
        return Err(BoundaryError::Limit("headers of one request"));
    }
    check_host(origin, parts)?;
    let path = path::read(parts.uri.path()).map_err(BoundaryError::Path)?;
    check_headers(&parts.headers)?;
    let websocket = check_upgrade(parts)?;
    let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    Ok(Checked {
        method: method.to_owned(),
        path,
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: forwarded(&parts.headers, websocket)?,
        websocket,
        two_way: kind.starts_with(b"application/grpc"),
    })
}

/// All that names the host must name that of the connection.
fn check_host(origin: &Origin, parts: &Parts) -> Result<(), BoundaryError> {
    let same = |text: &str| {
        let parsed = Host::parse_authority(text, origin.default_port());
        parsed.is_some_and(|(host, port)| host == origin.host && port == origin.port)
    };
    let mut hosts = parts.headers.get_all(HOST).iter();
    let (first, second) = (hosts.next(), hosts.next());
    let header = match (first, second) {
        (None, _) => true,
        (Some(host), None) => host.to_str().is_ok_and(same),
        (Some(_), Some(_)) => false,
    };
    let authority = parts.uri.authority().map(|authority| same(authority.as_str()));
    let named = first.is_some() || authority.is_some();
    let scheme = parts.uri.scheme_str().is_none_or(|scheme| scheme == origin.scheme);
    if named && header && authority.unwrap_or(true) && scheme {
        Ok(())
    } else {
        Err(BoundaryError::Misdirected)
    }
}

fn check_headers(headers: &HeaderMap) -> Result<(), BoundaryError> {
    if OVERRIDES.iter().any(|name| headers.contains_key(*name)) {
        return Err(BoundaryError::Kind("a header that overrides method or path"));
    }
    // Cookies may come in pieces; everything else that proves who asks is one.
    let twice = |name: &str| name != "cookie" && headers.get_all(name).iter().count() > 1;
    if CREDENTIALS.iter().any(|name| twice(name)) {
        return Err(BoundaryError::Kind("a credential that stands twice"));
    }
    let mut expects = headers.get_all(EXPECT).iter();
    if expects.any(|value| !value.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(BoundaryError::Kind("an expectation other than 100-continue"));
    }
    Ok(())
}

/// Whether the request asks for a WebSocket; any other upgrade is refused.
fn check_upgrade(parts: &Parts) -> Result<bool, BoundaryError> {
    let mut upgrades = parts.headers.get_all(UPGRADE).iter();
    let nominated = nominated(&parts.headers).any(|name| name == "upgrade");
    match (upgrades.next(), upgrades.next()) {
        (None, _) if !nominated => Ok(false),
        (Some(one), None) => {
            let websocket = one.as_bytes().eq_ignore_ascii_case(b"websocket");
            let has = |name| parts.headers.get_all(name).iter().count() == 1;
            let shaped = parts.method == http::Method::GET
                && parts.version == Version::HTTP_11
                && nominated
                && has(header::SEC_WEBSOCKET_KEY)
                && has(header::SEC_WEBSOCKET_VERSION);
            if websocket && shaped {
                Ok(true)
            } else {
                Err(BoundaryError::Kind("an upgrade that is no WebSocket"))
            }
        }
        _ => Err(BoundaryError::Kind("an upgrade that is no WebSocket")),
    }
}

/// The lower-case names that `Connection` gives.
fn nominated(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let values = headers.get_all(CONNECTION).iter();
    values.flat_map(|value| {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        text.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>()
    })
}

/// The headers that go on.
fn forwarded(headers: &HeaderMap, websocket: bool) -> Result<HeaderMap, BoundaryError> {
    let mut kept = stripped(headers)?;
    for name in [HOST, CONTENT_LENGTH, EXPECT] {
        kept.remove(name);
    }
    let cookies: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1 {
        // HTTP/2 cuts cookies into pieces; HTTP/1 wants one line.
        let whole = HeaderValue::from_bytes(&cookies.join(&b"; "[..]));
        kept.insert(COOKIE, whole.map_err(|_| BoundaryError::Kind("its cookies"))?);
    }
    let trailers = headers.get_all(TE).iter().any(|te| te.as_bytes() == b"trailers");
    if trailers {
        kept.insert(TE, HeaderValue::from_static("trailers"));
    }
    if websocket {
        // Without extensions, what is sent can be counted and looked at.
        kept.remove(header::SEC_WEBSOCKET_EXTENSIONS);
        kept.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        kept.insert(UPGRADE, HeaderValue::from_static("websocket"));
    }
    Ok(kept)
}

/// Headers without those that end at this hop, in either direction.
pub(crate) fn stripped(headers: &HeaderMap) -> Result<HeaderMap, BoundaryError> {
    let mut kept = headers.clone();
    for name in nominated(headers) {
        if KEPT.contains(&name.as_str()) || CREDENTIALS.contains(&name.as_str()) {
            return Err(BoundaryError::Kind("a `Connection` that takes away what is judged"));
        }
        if let Ok(name) = name.parse::<HeaderName>() {
            kept.remove(name);
        }
    }
    for name in HOPS {
        kept.remove(name);
    }
    debug_assert!(!kept.contains_key(TRANSFER_ENCODING));
    Ok(kept)
}

/// The question about a request.
pub(crate) fn ask(
    origin: &Origin,
    checked: &Checked,
    body: &Collected,
    salt: &[u8; 32],
) -> Result<RequestAsk, BoundaryError> {
    let host = origin.host.to_string();
    let outline = Outline {
        host: &host,
        method: &checked.method,
        path: &checked.path.decoded,
        query: &checked.query,
        headers: &checked.headers,
    };
    let placeholders = secrets::placeholders(&checked.headers, &checked.query, body)?;
    let mut names: Vec<String> = placeholders.iter().map(|one| one.name.clone()).collect();
    names.sort_unstable();
    names.dedup();
    let digest = digest(origin, checked, body.kind(), checked.query.as_bytes(), &body.data);
    let exchange = exchange(origin, checked, body, digest);
    let facts = HttpFacts {
        secrets: names,
        websocket: checked.websocket,
        digest: Some(digest),
        ..facts::read(&outline, body, salt)?
    };
    Ok(RequestAsk {
        host,
        port: origin.port,
        scheme: origin.scheme,
        method: checked.method.clone(),
        path: checked.path.decoded.clone(),
        raw_path: checked.path.raw.clone(),
        query: checked.query.clone(),
        facts,
        body: body.data.clone(),
        placeholders,
        leaked: Vec::new(),
        digest,
        exchange,
    })
}

/// All of a request in which the value of a secret could leave: each part alone, and the headers
/// together in the order they came in, should somebody have split it over them.
pub(crate) fn leaked(
    judge: &dyn Judge,
    ask: &RequestAsk,
    headers: &HeaderMap,
    body: &Collected,
) -> Vec<String> {
    let fields: Vec<(&HeaderName, &HeaderValue)> = headers.iter().collect();
    let trailers = body.trailers.iter().flat_map(HeaderMap::iter);
    let values = fields.iter().copied().chain(trailers).map(|(_, value)| value.as_bytes());
    let values: Vec<&[u8]> = values.collect();
    let (together, target) = (values.concat(), [&ask.raw_path, "?", &ask.query].concat());
    let mut parts: Vec<&[u8]> = vec![ask.host.as_bytes(), target.as_bytes(), &together, &body.data];
    parts.extend(fields.iter().map(|(name, _)| name.as_str().as_bytes()));
    parts.extend(values);
    let mut names = judge.leaked(&parts);
    names.sort_unstable();
    names.dedup();
    names
}

/// Over all that makes two requests the same one. Headers that vary by program (`accept`,
/// `user-agent`) are left out; those that say what the body is are in.
fn digest(origin: &Origin, checked: &Checked, kind: BodyKind, query: &[u8], data: &[u8]) -> Digest {
    let kind: &[u8] = match kind {
        BodyKind::Streamed => b"streamed",
        BodyKind::Buffered | BodyKind::None => b"whole",
    };
    let authority = format!("{}://{} {}", origin.scheme, origin.host, origin.port);
    let header = |name: HeaderName| {
        let values = checked.headers.get_all(name).iter().map(HeaderValue::as_bytes);
        values.collect::<Vec<_>>().join(&b"\n"[..])
    };
    let content_type = header(CONTENT_TYPE);
    let content_encoding = header(header::CONTENT_ENCODING);
    Digest::of_parts(
        "bedplate http request",
        &[
            checked.method.as_bytes(),
            authority.as_bytes(),
            checked.path.decoded.as_bytes(),
            query,
            kind,
            data,
            &content_type,
            &content_encoding,
        ],
    )
}

/// The digest that the same request has in every sandbox.
fn exchange(origin: &Origin, checked: &Checked, body: &Collected, own: Digest) -> Digest {
    let query = secrets::by_name(checked.query.as_bytes());
    let data = secrets::by_name(&body.data);
    match (&query, &data) {
        (Cow::Borrowed(_), Cow::Borrowed(_)) => own,
        _ => digest(origin, checked, body.kind(), &query, &data),
    }
}

/// Asks for plain bytes, so that a secret can be seen in them.
pub(crate) fn ask_for_plain_bytes(headers: &mut HeaderMap) {
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
}
