//! N, T, H9 to H26, A: who a request says it is for, and what it asks besides.

use super::{Act, Case, End, Header, http};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n";
const JSON: &[u8] =
    b"POST / HTTP/1.1\r\nHost: ok.test\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}";

/// Heads that name another host than their connection.
const HOSTS: [(&str, &str); 12] = [
    ("T2 other host", "GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n"),
    ("T2 other permitted host", "GET / HTTP/1.1\r\nHost: plain.ok.test\r\n\r\n"),
    ("T2 other port", "GET / HTTP/1.1\r\nHost: ok.test:8080\r\n\r\n"),
    (
        "H16 absolute form of another host",
        "GET http://evil.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    ),
    ("H16 absolute form, host differs", "GET http://ok.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n"),
    (
        "H16 absolute form of another scheme",
        "GET https://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
    ),
    ("H16 userinfo", "GET http://ok.test@evil.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n"),
    ("H16 userinfo of itself", "GET http://u:p@ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n"),
    ("D13 userinfo in host", "GET / HTTP/1.1\r\nHost: ok.test@evil.test\r\n\r\n"),
    ("D13 comma in host", "GET / HTTP/1.1\r\nHost: ok.test,evil.test\r\n\r\n"),
    ("N5 two trailing dots", "GET / HTTP/1.1\r\nHost: ok.test..\r\n\r\n"),
    ("N6 port over 65535", "GET / HTTP/1.1\r\nHost: ok.test:65616\r\n\r\n"),
];

/// Headers that ask for something past the judgement.
const HEADERS: [(&str, &str); 17] = [
    (
        "H10 h2c upgrade",
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    ),
    ("H10 h2c beside websocket", "Connection: Upgrade\r\nUpgrade: websocket, h2c"),
    ("H10 two upgrades", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c"),
    ("H14 upgrade to something else", "Connection: Upgrade\r\nUpgrade: foo"),
    ("H14 websocket without its key", "Connection: Upgrade\r\nUpgrade: websocket"),
    (
        "H14 upgrade that is not nominated",
        "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13",
    ),
    ("H14 nominated without an upgrade", "Connection: Upgrade"),
    ("H12 other expectation", "Expect: 200-ok"),
    ("H17 method override", "X-HTTP-Method-Override: DELETE"),
    ("H17 method override, short", "X-HTTP-Method: DELETE"),
    ("H17 method override, other", "X-Method-Override: DELETE"),
    ("H17 original URL", "X-Original-URL: /denied"),
    ("H17 rewritten URL", "X-Rewrite-URL: /denied"),
    ("H18 nominated host", "Connection: close, Host"),
    ("H18 nominated type", "Connection: Content-Type"),
    ("H18 nominated credential", "Connection: Authorization"),
    ("C2 credential twice", "Authorization: a\r\nAuthorization: b"),
];

/// Methods.
const METHODS: [&str; 3] = ["TRACE", "TRACK", "get"];

/// JSON that can be read in two ways, and headers that say something else.
const BODIES: [(&str, &str, &str); 8] = [
    ("A2 key twice", "", r#"{"method":"list","method":"delete"}"#),
    ("A2 key twice, escaped", "", r#"{"method":"list","\u006dethod":"delete"}"#),
    ("A2 key twice, deep", "", r#"{"a":[{"b":{"c":1,"c":2}}]}"#),
    ("A2 key twice in a batch", "", r#"[{"jsonrpc":"2.0","method":"a","method":"b"}]"#),
    ("A4 MCP method", "Mcp-Method: tools/list\r\n", r#"{"jsonrpc":"2.0","method":"tools/call"}"#),
    (
        "A4 MCP name",
        "Mcp-Method: tools/call\r\nMcp-Name: read\r\n",
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"write"}}"#,
    ),
    (
        "A4 MCP batch",
        "Mcp-Method: a\r\n",
        r#"[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0","method":"b"}]"#,
    ),
    ("A2 two types", "Content-Type: text/plain\r\n", r#"{"a":1}"#),
];

fn https(name: &str, host: &'static str, sni: &'static str, authority: &str, end: End) -> Case {
    let of = |authority: &str| format!("GET / HTTP/1.1\r\nHost: {authority}\r\n\r\n").into_bytes();
    Case {
        name: name.to_owned(),
        attack: Act::Https { host, sni, bytes: of(authority) },
        end,
        control: Act::Https { host: "tls.ok.test", sni: "tls.ok.test", bytes: of("tls.ok.test") },
    }
}

fn http2(
    name: &str,
    uri: &'static str,
    method: &'static str,
    headers: &[Header],
    status: u16,
) -> Case {
    let host = "tls.ok.test";
    let control = Act::Http2 { host, uri: "https://tls.ok.test/a", method: "GET", headers: vec![] };
    let attack = Act::Http2 { host, uri, method, headers: headers.to_vec() };
    Case { name: name.to_owned(), attack, end: End::Status(status), control }
}

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, head) in HOSTS {
        cases.push(http(name, head, End::Status(421), GET));
    }
    for (name, headers) in HEADERS {
        let head = format!("GET / HTTP/1.1\r\nHost: ok.test\r\n{headers}\r\n\r\n");
        cases.push(http(name, head, End::Status(400), GET));
    }
    for method in METHODS {
        let head = format!("{method} / HTTP/1.1\r\nHost: ok.test\r\n\r\n");
        let lower = method.starts_with(|c: char| c.is_ascii_lowercase());
        let end = if lower { End::Closed } else { End::Status(400) };
        cases.push(http(&format!("H19 {method}"), head, end, GET));
    }
    for (name, headers, body) in BODIES {
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: ok.test\r\nContent-Type: application/json\r\n{headers}\
             Content-Length: {length}\r\n\r\n{body}"
        );
        cases.push(http(name, head, End::Status(400), JSON));
    }
    let asterisk = "OPTIONS * HTTP/1.1\r\nHost: ok.test\r\n\r\n";
    cases.push(http("H15 asterisk form", asterisk, End::Status(400), GET));
    cases.extend(over_tls());
    cases.extend(over_http2());
    cases
}

fn over_tls() -> [Case; 7] {
    [
        https(
            "T1 SNI of another permitted name",
            "tls.ok.test",
            "other.ok.test",
            "tls.ok.test",
            End::Closed,
        ),
        https("T1 SNI of a denied name", "tls.ok.test", "evil.test", "tls.ok.test", End::Closed),
        https("T2 fronting", "tls.ok.test", "tls.ok.test", "evil.test", End::Status(421)),
        https(
            "T2 fronting to a permitted name",
            "tls.ok.test",
            "tls.ok.test",
            "other.ok.test",
            End::Status(421),
        ),
        https(
            "T11 upstream certificate of another name",
            "wrong.ok.test",
            "wrong.ok.test",
            "wrong.ok.test",
            End::Status(502),
        ),
        https(
            "T11 upstream certificate expired",
            "expired.ok.test",
            "expired.ok.test",
            "expired.ok.test",
            End::Status(502),
        ),
        https(
            "T11 upstream certificate of an unknown issuer",
            "foreign.ok.test",
            "foreign.ok.test",
            "foreign.ok.test",
            End::Status(502),
        ),
    ]
}

fn over_http2() -> [Case; 10] {
    [
        http2("T7 coalescing onto a permitted name", "https://other.ok.test/", "GET", &[], 421),
        http2("T7 coalescing onto a denied name", "https://evil.test/", "GET", &[], 421),
        http2("T7 authority with another port", "https://tls.ok.test:444/", "GET", &[], 421),
        http2(
            "T2 host beside authority",
            "https://tls.ok.test/",
            "GET",
            &[("host", "evil.test")],
            421,
        ),
        http2("H9 other scheme", "http://tls.ok.test/", "GET", &[], 421),
        http2(
            "H15 denied path over HTTP/2",
            "https://tls.ok.test/a/%2e%2e/denied",
            "GET",
            &[],
            403,
        ),
        http2("H15 escaped slash over HTTP/2", "https://tls.ok.test/a%2fdenied", "GET", &[], 400),
        http2(
            "H17 method override over HTTP/2",
            "https://tls.ok.test/",
            "GET",
            &[("x-http-method-override", "DELETE")],
            400,
        ),
        http2("H19 TRACE over HTTP/2", "https://tls.ok.test/", "TRACE", &[], 400),
        http2("H19 lower-case method over HTTP/2", "https://tls.ok.test/", "get", &[], 400),
    ]
}
