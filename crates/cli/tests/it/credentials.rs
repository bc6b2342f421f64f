//! Secrets with parts, through the binary: a token made outside the sandbox, a signature made
//! outside the sandbox, and the servers that check both by themselves.

use crate::network::Secure;
use crate::support::{Said, World, call, say};
use serde_json::Value;
use std::io::Write as _;
use std::process::Stdio;

const CLIENT_SECRET: &str = "client/secret+4711";
const AWS_SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// A server of tokens and of what they open. It says what it saw at `/seen`.
const TOKENS: &str = r#"
import base64, http.server, json, ssl, sys, urllib.parse
made, seen = [], []
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self, status, body, kind="application/json"):
        body = body.encode()
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        form = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        seen.append(self.headers["host"] + " POST " + self.path)
        pair = base64.b64decode(self.headers.get("authorization", "Basic ")[6:]).decode().split(":")
        good = [urllib.parse.unquote(part) for part in pair] == ["the client", "client/secret+4711"]
        fields = urllib.parse.parse_qs(form)
        if not good or fields != {"grant_type": ["client_credentials"], "scope": ["read all"]}:
            return self.answer(401, json.dumps({"error": "invalid_client"}))
        made.append("token-%d-of-the-server" % len(made))
        self.answer(200, json.dumps({"access_token": made[-1], "token_type": "Bearer", "expires_in": 3600}))
    def do_GET(self):
        if self.path == "/seen":
            return self.answer(200, json.dumps(seen))
        said = self.headers.get("authorization", "")
        seen.append(self.headers["host"] + " GET " + self.path)
        if self.path == "/v1/expired" or not made or said != "Bearer " + made[-1]:
            return self.answer(401, json.dumps({"said": said}))
        self.answer(200, json.dumps({"said": said}))
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

/// A server that checks signatures by the rules that AWS publishes, with nothing of ours.
const SIGNED: &str = r#"
import hashlib, hmac, http.server, ssl, sys, urllib.parse
KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
def mac(key, text): return hmac.new(key, text.encode(), hashlib.sha256).digest()
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def check(self, body):
        said = self.headers.get("authorization", "")
        scheme, _, rest = said.partition(" ")
        parts = dict(part.strip().split("=", 1) for part in rest.split(","))
        access, day, region, service, end = parts["Credential"].split("/")
        names = parts["SignedHeaders"].split(";")
        if scheme != "AWS4-HMAC-SHA256" or access != "AKIAIOSFODNN7EXAMPLE" or end != "aws4_request":
            return "scheme or key"
        must = {"host"} | {n.lower() for n in self.headers.keys() if n.lower().startswith("x-amz-")}
        if not must <= set(names) or names != sorted(names):
            return "signed headers " + ";".join(names)
        if self.headers["x-amz-content-sha256"] != hashlib.sha256(body).hexdigest():
            return "body"
        path, _, query = self.path.partition("?")
        quote = lambda text: urllib.parse.quote(text, safe="-_.~")
        pairs = sorted((quote(k), quote(v)) for k, v in urllib.parse.parse_qsl(query, keep_blank_values=True))
        lines = "".join("%s:%s\n" % (n, " ".join(self.headers[n].split())) for n in names)
        canonical = "\n".join([self.command, path, "&".join(k + "=" + v for k, v in pairs), lines,
            ";".join(names), hashlib.sha256(body).hexdigest()])
        scope = "/".join([day, region, service, end])
        text = "\n".join([scheme, self.headers["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
        key = ("AWS4" + KEY).encode()
        for part in (day, region, service, end):
            key = mac(key, part)
        good = hmac.compare_digest(mac(key, text).hex(), parts["Signature"])
        return "good %s %s %s" % (region, service, self.headers.get("x-amz-security-token")) if good else "signature"
    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try: said = self.check(body)
        except Exception as error: said = "unreadable: %r" % error
        said = said.encode()
        self.send_response(200 if said.startswith(b"good") else 403)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
    do_GET = do_PUT = answer
    def log_message(self, *a): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

fn set(world: &World, name: &str, kind: &str, document: &str) -> Said {
    let mut command = world.command(&["secret", "set", name, "--kind", kind]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it runs");
    let _ = child.stdin.take().expect("piped").write_all(document.as_bytes());
    Said::of(child.wait_with_output().expect("it ends"))
}

/// A world with an agent that runs one program in the sandbox.
fn world(secure: &Secure, permits: &str, secrets: &str, program: &str) -> World {
    let world = World::new();
    let port = secure.port;
    let manifest = format!(
        "[permissions]\npreset = \"observe\"\nallow = [\"shell\", {permits}]\n\
         [network]\ntrust = [\"ca.pem\"]\nresolve = {{ \"api.example.test\" = \"127.0.0.1:{port}\", \
         \"id.example.test\" = \"127.0.0.1:{port}\" }}\n\
         [sandbox]\nworkspace = \"w\"\n[secrets]\n{secrets}\n"
    );
    let turns = call("I try.", "shell", "command = \"sh try.sh\"") + &say("Tried.");
    world.agent(&manifest, &turns);
    world.write("ca.pem", &secure.authority);
    world.write("w/try.sh", program);
    world
}

fn records(world: &World, kind: &str) -> Vec<Value> {
    let shown = world.run(&["show", "last", "--json"]).exits(0).json();
    let records = shown["records"].as_array().expect("records");
    records.iter().filter(|record| record["kind"] == kind).cloned().collect()
}

fn printed(world: &World) -> Vec<String> {
    let finished = records(world, "action_finished");
    let text = finished[0]["output"]["text"].as_str().expect("text").to_owned();
    text.lines().map(str::to_owned).collect()
}

/// Whether any file below the home has these bytes.
fn anywhere(dir: &std::path::Path, bytes: &str) -> bool {
    // Overlayfs closes a directory of its own to everybody but root; it has no files.
    std::fs::read_dir(dir).into_iter().flatten().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return anywhere(&path, bytes);
        }
        let read = std::fs::read(&path).unwrap_or_default();
        read.windows(bytes.len()).any(|window| window == bytes.as_bytes())
    })
}

const CLIENT: &str = "token_url = \"https://id.example.test/token\"\nclient_id = \"the client\"\n\
                      client_secret = \"client/secret+4711\"\nscope = \"read all\"\n";

const ASK: &str = r#"
ask() { curl -s -H "authorization: Bearer $TOKEN" -w ' %{http_code}\n' "https://api.example.test$1"; }
"#;

#[test]
fn a_token_is_made_outside_once_and_reaches_its_host_only() {
    let keys = tempfile::tempdir().expect("a directory");
    let names = ["api.example.test", "id.example.test"];
    let secure = Secure::serving(keys.path(), TOKENS, &names);
    let program = format!(
        "{ASK}ask /v1/a\nask /v1/b\nask /v1/expired\nask /v1/c\n\
         curl -s -d grant_type=client_credentials -u \"the client:$TOKEN\" \
         -w ' %{{http_code}}\\n' https://id.example.test/token\n\
         echo \"$TOKEN\" | cut -c1-13\ncurl -s https://api.example.test/seen\n"
    );
    let permits = "\"GET api.example.test/*\", \"POST id.example.test/token\", \
                   \"secret:svc@api.example.test\", \"secret:svc@id.example.test\"";
    let world = world(&secure, permits, "TOKEN = \"svc\"", &program);
    set(&world, "svc", "oauth-client", CLIENT).exits(0);
    world.run(&["run"]).exits(0);
    let lines = printed(&world);
    let status = |at: usize| lines[at].rsplit(' ').next().map(str::to_owned);
    for (at, expected) in ["200", "200", "401", "200", "401"].iter().enumerate() {
        assert_eq!(status(at).as_deref(), Some(*expected), "{at}: {lines:?}");
    }
    assert_eq!(lines[5], "bpsecret-svc-", "{lines:?}");
    let seen: Vec<String> = serde_json::from_str(&lines[6]).expect("what the server saw");
    let tokens = seen.iter().filter(|line| line.ends_with("POST /token")).count();
    // One at first, one after the refusal; the program's own request, which had a token in it.
    assert_eq!(tokens, 3, "{seen:?}");
    // What the server echoes is masked on its way back.
    assert!(!lines[..5].iter().any(|line| line.contains("of-the-server")), "{lines:?}");
    let used: Vec<String> = records(&world, "secret_used")
        .iter()
        .map(|record| format!("{} {}", record["secret"], record["host"]).replace('"', ""))
        .collect();
    assert_eq!(used.iter().filter(|line| *line == "svc id.example.test").count(), 3, "{used:?}");
    assert_eq!(used.iter().filter(|line| *line == "svc api.example.test").count(), 4, "{used:?}");
    for secret in [CLIENT_SECRET, "token-0-of-the-server"] {
        assert!(!anywhere(&world.home(), secret), "{secret}");
    }
}

#[test]
fn without_a_rule_for_its_token_address_no_token_is_made() {
    let keys = tempfile::tempdir().expect("a directory");
    let names = ["api.example.test", "id.example.test"];
    let program = format!("{ASK}ask /v1/a\ncurl -s https://api.example.test/seen\n");
    let api = "\"GET api.example.test/*\", \"secret:svc@api.example.test\"";
    for (more, asked) in [
        ("", false),
        // Reached, but without the client's secret.
        (", \"POST id.example.test/token\"", true),
        (", \"secret:svc@id.example.test\"", false),
    ] {
        let secure = Secure::serving(keys.path(), TOKENS, &names);
        let world = world(&secure, &format!("{api}{more}"), "TOKEN = \"svc\"", &program);
        set(&world, "svc", "oauth-client", CLIENT).exits(0);
        world.run(&["run"]).exits(0);
        let lines = printed(&world);
        assert!(lines[0].ends_with("502") || lines[0].ends_with("403"), "{lines:?}");
        let seen = lines[1].contains("POST /token");
        assert_eq!(seen, asked, "{more}: {lines:?}");
        assert!(!lines[1].contains("/v1/a"), "what it was for did not leave: {lines:?}");
    }
}

#[test]
fn a_request_is_signed_outside_for_aws_and_its_server_agrees() {
    let keys = tempfile::tempdir().expect("a directory");
    let secure = Secure::serving(keys.path(), SIGNED, &["api.example.test"]);
    let curl = "curl -s --aws-sigv4 aws:amz:us-east-1:s3 \
                --user \"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY\" -w ' %{http_code}\\n'";
    let program = format!(
        "{curl} 'https://api.example.test/bucket/a%20b?list-type=2&prefix=x%2Fy'\n\
         {curl} -X PUT -H 'x-amz-meta-kind:  two   words' --data-binary 'a body' \
         https://api.example.test/bucket/key\n\
         {curl} https://id.example.test/bucket\n"
    );
    let permits = "\"GET api.example.test/*\", \"PUT api.example.test/*\", \
                   \"GET id.example.test/*\", \"secret:aws@api.example.test\"";
    let secrets = "AWS_ACCESS_KEY_ID = \"aws\"\nAWS_SECRET_ACCESS_KEY = \"aws\"";
    let world = world(&secure, permits, secrets, &program);
    let document = format!(
        r#"{{"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "{AWS_SECRET}",
            "session_token": "session/+=", "region": "eu-central-1", "service": "s3"}}"#
    );
    set(&world, "aws", "aws-sigv4", &document).exits(0);
    world.run(&["run"]).exits(0);
    let lines = printed(&world);
    // The server's echo of the token is masked on its way back.
    assert!(lines[0].starts_with("good eu-central-1 s3 "), "{lines:?}");
    assert!(lines[1].starts_with("good eu-central-1 s3 "), "{lines:?}");
    assert!(!lines[0].contains("session/+="), "{lines:?}");
    assert!(!lines[2].starts_with("good"), "no key for another host: {lines:?}");
    assert_eq!(records(&world, "secret_used").len(), 2);
    assert!(!anywhere(&world.home(), AWS_SECRET));
}

#[test]
fn a_document_that_does_not_fit_is_refused_and_its_kind_is_listed() {
    let world = World::new();
    let said = set(&world, "svc", "oauth-client", &CLIENT.replace("https", "http"));
    let said = said.fails(2, "BP-VAULT-003");
    assert!(!said.stderr.contains(CLIENT_SECRET), "{}", said.stderr);
    set(&world, "svc", "other", CLIENT).fails(2, "BP-CLI-001");
    set(&world, "svc", "oauth-client", CLIENT).exits(0);
    let listed = world.run(&["secret", "ls", "--json"]).exits(0).json();
    assert_eq!(listed["secrets"][0]["kind"], "oauth-client");
}
