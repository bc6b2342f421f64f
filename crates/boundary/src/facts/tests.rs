use super::*;
use crate::limits::{FACTS_MAX, JSON_DEPTH_MAX};
use types::{RefChange, RefUpdate};

const SALT: [u8; 32] = [1; 32];

fn facts(
    request: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Result<HttpFacts, BoundaryError> {
    let (method, rest) = request.split_once(' ').unwrap();
    let (host, rest) = rest.split_at(rest.find('/').unwrap());
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(*name, value.parse().unwrap());
    }
    let outline = Outline { host, method, path, query, headers: &map };
    read(&outline, &Collected::whole(body.to_owned().into_bytes().into()), &SALT)
}

fn json(body: &str) -> Result<BodyFacts, BoundaryError> {
    facts("POST a.test/", &[("content-type", "application/json")], body).map(|facts| facts.body)
}

#[test]
fn json_is_told_as_scalars() {
    let body = json(r#" {"a":{"b/c":[1,-2,null,true,"x"]},"~":1.5,"e":{},"u":"\u0041"} "#).unwrap();
    let expected = [
        "/a/b~1c/0=1",
        "/a/b~1c/1=-2",
        "/a/b~1c/2=null",
        "/a/b~1c/3=true",
        "/a/b~1c/4=x",
        "/~0=1.5",
        "/u=A",
    ];
    assert_eq!(body.json, expected);
    assert!(body.understood);
}

#[test]
fn a_key_that_stands_twice_is_refused_however_it_is_written() {
    for body in [r#"{"a":1,"a":2}"#, r#"{"a":1,"\u0061":2}"#, r#"{"x":[{"a":1,"b":2,"a":1}]}"#] {
        assert!(matches!(json(body), Err(BoundaryError::Body(_))), "{body}");
    }
    assert!(json(r#"{"a":1,"b":{"a":2}}"#).is_ok());
    let plain = facts("POST a.test/", &[("content-type", "text/plain")], r#"{"a":1,"a":2}"#);
    assert!(plain.is_err(), "servers do not look at the type");
}

#[test]
fn what_is_no_json_or_too_much_is_not_understood() {
    let deep = |levels: usize| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    let wide = |count: usize| format!("[{}]", vec!["1"; count].join(","));
    for (body, understood) in [
        ("{\"a\":1} x".to_owned(), false),
        ("{a:1}".to_owned(), false),
        (deep(JSON_DEPTH_MAX), true),
        (deep(JSON_DEPTH_MAX + 1), false),
        (wide(FACTS_MAX), true),
        (wide(FACTS_MAX + 1), false),
    ] {
        let facts = json(&body).unwrap();
        assert_eq!(facts.understood, understood, "{}", &body[..body.len().min(20)]);
        assert!(understood || facts.json.is_empty());
    }
    let encoded = facts("POST a.test/", &[("content-encoding", "gzip")], "{\"a\":1}").unwrap();
    assert!(!encoded.body.understood && encoded.body.json.is_empty());
}

#[test]
fn rpc_methods_are_those_of_the_whole_batch() {
    for (body, expected) in [
        (r#"{"jsonrpc":"2.0","method":"tools/call","params":{"method":"x"}}"#, vec!["tools/call"]),
        (r#"[{"jsonrpc":"2.0","method":"a"},{"method":"b","jsonrpc":"2.0"}]"#, vec!["a", "b"]),
        (r#"{"jsonrpc":"2.0","\u006dethod":"a"}"#, vec!["a"]),
        (r#"{"method":"no rpc"}"#, vec![]),
    ] {
        assert_eq!(json(body).unwrap().rpc_methods, expected, "{body}");
    }
}

#[test]
fn an_mcp_header_must_say_what_the_body_says() {
    let call = r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"read"}}"#;
    for (headers, fine) in [
        (vec![("mcp-method", "tools/call"), ("mcp-name", "read")], true),
        (vec![("mcp-method", "tools/list")], false),
        (vec![("mcp-method", "tools/call"), ("mcp-name", "write")], false),
        (vec![("mcp-method", "tools/call"), ("mcp-method", "tools/call")], false),
    ] {
        assert_eq!(facts("POST a.test/", &headers, call).is_ok(), fine, "{headers:?}");
    }
}

#[test]
fn forms_are_told_decoded() {
    let form = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let told = facts("POST a.test/", &form, "a=1&b=x%20y+z&c&a=2").unwrap().body;
    assert_eq!(told.form, ["a=1", "b=x y z", "c=", "a=2"]);
    assert!(told.understood);
    assert!(!facts("POST a.test/", &form, "a=%zz").unwrap().body.understood);
}

fn packet(line: &str) -> String {
    format!("{:04x}{line}", line.len() + 4)
}

#[test]
fn a_push_tells_what_it_changes() {
    let (zero, one, two) = ("0".repeat(40), "1".repeat(40), "2".repeat(40));
    let push = |body: &str| facts("POST h.test/o/r.git/git-receive-pack", &[], body).unwrap();
    let body = packet(&format!("{zero} {one} refs/heads/new\0 report-status\n"))
        + &packet(&format!("{one} {two} refs/heads/main"))
        + &packet(&format!("{one} {zero} refs/tags/v1"));
    let told = push(&format!("{body}0000PACK...."));
    let git = told.git.unwrap();
    assert_eq!((told.operation.as_str(), git.repository.as_str()), ("git push", "o/r"));
    let update = |name: &str, change| RefUpdate { name: name.to_owned(), change };
    assert_eq!(
        git.updates,
        [
            update("refs/heads/new", RefChange::Create),
            update("refs/heads/main", RefChange::Update),
            update("refs/tags/v1", RefChange::Delete),
        ]
    );
    assert!(git.complete);
    for broken in [body.as_str(), "", "zzzz", "0004", &packet("push-cert\0x"), &packet("a b c")] {
        assert!(!push(broken).git.unwrap().complete, "{broken}");
    }
}

#[test]
fn operations_are_known_by_their_shape() {
    for (request, body, expected) in [
        ("GET h.test/o/r/info/refs?service=git-upload-pack", "", "git fetch"),
        ("GET h.test/o/r/info/refs?service=git-receive-pack", "", "git push"),
        ("GET h.test/o/r/info/refs?service=git-upload-pack&service=git-receive-pack", "", ""),
        ("POST h.test/o/r.git/git-upload-pack", "0000", "git fetch"),
        ("GET registry.npmjs.org/left-pad", "", "package install"),
        ("PUT registry.npmjs.org/left-pad", "{}", "package publish"),
        ("PUT npm.corp.test/left-pad", r#"{"_attachments":{}}"#, "package publish"),
        ("GET npm.corp.test/left-pad/-/left-pad-1.0.0.tgz", "", "package install"),
        ("POST upload.pypi.org/legacy/", "x", "package publish"),
        ("GET pypi.org/simple/requests/", "", "package install"),
        ("PUT crates.io/api/v1/crates/new", "x", "package publish"),
        ("DELETE crates.io/api/v1/crates/x/1.0.0/yank", "", "package publish"),
        ("GET static.crates.io/crates/x/x-1.crate", "", "package install"),
        ("GET a.test/info", "", ""),
        ("PUT a.test/info", "{}", ""),
    ] {
        assert_eq!(facts(request, &[], body).unwrap().operation, expected, "{request}");
    }
}

#[test]
fn credentials_are_told_as_salted_digests() {
    let told = facts(
        "GET a.test/",
        &[("authorization", "Bearer hunter2"), ("accept", "*/*"), ("x-other", "y")],
        "",
    );
    let headers = told.unwrap().headers;
    assert_eq!(headers[0], "accept=*/*");
    assert!(headers[1].starts_with("authorization=sha256:") && headers.len() == 2, "{headers:?}");
    assert!(!headers.concat().contains("hunter2"));
    let unsalted = Digest::of(b"Bearer hunter2").to_string();
    assert!(!headers[1].contains(&unsalted));
}

#[test]
fn a_key_that_would_make_a_fact_ambiguous_is_not_understood() {
    let json = json(r#"{"to=x":"y","a":1}"#).unwrap();
    assert!(!json.understood && json.json.is_empty());
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let form = facts("POST a.test/", &form, "to%3Dx=y&a=1").unwrap().body;
    assert!(!form.understood && form.form.is_empty());
    let value = facts("POST a.test/", &[("content-type", "application/json")], r#"{"to":"x=y"}"#);
    assert_eq!(value.unwrap().body.json, ["/to=x=y"]);
}
