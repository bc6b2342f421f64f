//! Images pulled over HTTP: from the registry that Debian has, and from one that lies.

use crate::making::{Made, Packed, Thing, busybox, image, layer};
use crate::support::{HARNESS, World};
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use types::{Coded, Digest};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Debian's registry, on a port of its own.
struct Registry {
    child: Child,
    address: String,
    scheme: &'static str,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    fn start(dir: &Path, tls: Option<(&Path, &Path)>) -> Self {
        let storage = dir.join("registry");
        let config = dir.join("registry.yml");
        let mut text = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage:\n  filesystem:\n    rootdirectory: {}\n\
             http:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        if let Some((certificate, key)) = tls {
            let (certificate, key) = (certificate.display(), key.display());
            text.push_str(&format!("  tls:\n    certificate: {certificate}\n    key: {key}\n"));
        }
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .args(["serve", config.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is installed");
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = said.by_ref().map_while(Result::ok).find(|line| line.contains("listening on "));
        let line = line.expect("it says where it listens");
        let port = line.split("listening on ").nth(1).unwrap();
        let digits: String =
            port.split(':').nth(1).unwrap().chars().take_while(char::is_ascii_digit).collect();
        // What it says afterwards is read, so that it is never held up.
        std::thread::spawn(move || said.for_each(drop));
        let scheme = if tls.is_some() { "https" } else { "http" };
        Self { child, address: format!("localhost:{digits}"), scheme }
    }

    fn curl(&self, arguments: &[&str]) -> String {
        let done = Command::new("curl").args(["-sS", "-k", "-i"]).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(text.contains(" 201 ") || text.contains(" 202 "), "{arguments:?}: {text}");
        text
    }

    fn push(&self, dir: &Path, made: &Made, name: &str, tag: &str) {
        let base = format!("{}://{}/v2/{name}", self.scheme, self.address);
        let (manifest, blobs) = made.blobs.split_last().unwrap();
        let file = dir.join("pushed");
        let data = format!("@{}", file.display());
        for blob in blobs {
            std::fs::write(&file, blob).unwrap();
            let begun = self.curl(&["-X", "POST", &format!("{base}/blobs/uploads/")]);
            let place = begun.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
            });
            let join = |place: &str| if place.contains('?') { '&' } else { '?' };
            let place = place.unwrap();
            let url = format!("{place}{}digest=sha256:{}", join(&place), Digest::of(blob));
            let kind = "Content-Type: application/octet-stream";
            self.curl(&["-X", "PUT", "-H", kind, "--data-binary", &data, &url]);
        }
        std::fs::write(&file, manifest).unwrap();
        let kind = format!("Content-Type: {MANIFEST}");
        let url = format!("{base}/manifests/{tag}");
        self.curl(&["-X", "PUT", "-H", &kind, "--data-binary", &data, &url]);
    }
}

fn made(content: &'static [u8]) -> Made {
    let top = layer(&[Thing::File("version", content, 0o644)]);
    image(&[(busybox(), Packed::Gzip), (top, Packed::Zstd)], json!({}))
}

#[tokio::test]
async fn a_registry_gives_what_was_pushed_once() {
    let world = World::new();
    let registry = Registry::start(world.path(), None);
    let (first, second) = (made(b"1"), made(b"2"));
    registry.push(world.path(), &first, "team/app", "1");
    let source = format!("{}/team/app:1", registry.address);
    let held = world.pull(&source).await.unwrap();
    assert_eq!(held.image.digest, first.digest());
    assert_eq!(std::fs::read_to_string(held.root.layers[0].join("version")).unwrap(), "1");
    assert_eq!(world.kept(), [2, 1, 0]);
    // Somebody moves the tag: what is here stays what it is until it is pulled again.
    registry.push(world.path(), &second, "team/app", "1");
    let reference = source.parse().unwrap();
    let same = world.images.ensure(&reference, world.path()).await.unwrap();
    assert_eq!(same.image.digest, first.digest());
    let newer = world.pull(&source).await.unwrap();
    assert_eq!(newer.image.digest, second.digest());
    assert_eq!(world.kept(), [3, 2, 0], "the layer they share is there once");
    let by_digest = format!("{}/team/app@sha256:{}", registry.address, first.digest());
    assert_eq!(world.pull(&by_digest).await.unwrap().image.digest, first.digest());
    let missing = world.pull(&format!("{}/team/app:none", registry.address)).await.unwrap_err();
    assert_eq!(missing.code(), "BP-IMAGE-015");
    assert!(missing.to_string().contains("404"), "{missing}");
}

#[test]
fn a_registry_with_tls_is_trusted_by_its_certificate_only() {
    let world = World::new();
    let (certificate, key) = (world.path().join("c.pem"), world.path().join("k.pem"));
    let done = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args([Path::new("-keyout"), &key, Path::new("-out"), &certificate])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let registry = Registry::start(world.path(), Some((&certificate, &key)));
    registry.push(world.path(), &made(b"1"), "app", "latest");
    let pull = |trusted: &Path| {
        Command::new(HARNESS)
            .args(["pull", world.home().to_str().unwrap(), &format!("{}/app", registry.address)])
            .env("SSL_CERT_FILE", trusted)
            .status()
            .unwrap()
            .success()
    };
    assert!(!pull(Path::new("/dev/null")), "nobody vouches for it");
    assert_eq!(world.kept()[1..], [0, 0]);
    assert!(pull(&certificate));
    assert_eq!(world.kept(), [2, 1, 0]);
}

/// Answers by path; what is asked is written down. A registry that says what it is told to.
struct Liar {
    address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

type Answers = BTreeMap<String, (u16, String, Vec<u8>)>;

impl Liar {
    fn start(answers: impl FnOnce(&str) -> Answers) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answers = answers(&address);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &answers, &written);
            }
        });
        Self { address, asked }
    }
}

fn answer(
    mut stream: TcpStream,
    answers: &Answers,
    asked: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte)? == 0 || !head.is_ascii() {
            return Ok(());
        }
        head.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    let login = text.to_ascii_lowercase().contains("authorization: bearer");
    asked.lock().unwrap().push(format!("{path}{}", if login { " with a token" } else { "" }));
    let none = (404, String::new(), Vec::new());
    let key = if login { format!("{path} login") } else { path.clone() };
    let (status, headers, body) = answers.get(&key).or_else(|| answers.get(&path)).unwrap_or(&none);
    let size = if headers.contains("Content-Length") {
        String::new()
    } else {
        format!("Content-Length: {}\r\n", body.len())
    };
    write!(stream, "HTTP/1.1 {status} X\r\n{headers}{size}Connection: close\r\n\r\n")?;
    stream.write_all(body)
}

/// The answers of an honest registry of one image.
fn honest(made: &Made) -> Answers {
    let kind = format!("Content-Type: {MANIFEST}\r\n");
    let manifest = made.blobs.last().unwrap().clone();
    let mut answers = BTreeMap::from([
        ("/v2/".to_owned(), (200, String::new(), Vec::new())),
        ("/v2/x/manifests/1".to_owned(), (200, kind.clone(), manifest.clone())),
        (format!("/v2/x/manifests/sha256:{}", made.digest()), (200, kind, manifest)),
    ]);
    for blob in &made.blobs {
        answers.insert(blob_path(blob), (200, String::new(), blob.clone()));
    }
    answers
}

fn blob_path(blob: &[u8]) -> String {
    format!("/v2/x/blobs/sha256:{}", Digest::of(blob))
}

fn small() -> Made {
    image(&[(layer(&[Thing::File("a", b"1", 0o644)]), Packed::Gzip)], json!({}))
}

async fn pulled(version: &str, change: impl FnOnce(&mut Answers, &Made, &str)) -> (String, Liar) {
    let world = World::new();
    let made = small();
    let liar = Liar::start(|address| {
        let mut answers = honest(&made);
        change(&mut answers, &made, address);
        answers
    });
    let done = world.pull(&format!("{}/x{version}", liar.address)).await;
    let code = done.map_or_else(|error| error.code().to_owned(), |_| String::new());
    if !code.is_empty() {
        assert_eq!(world.kept(), [0, 0, 0], "{code}");
    }
    (code, liar)
}

#[tokio::test]
async fn a_registry_that_lies_is_found_out() {
    let check = async |code: &str, change: &dyn Fn(&mut Answers, &Made, &str)| {
        assert_eq!(pulled(":1", change).await.0, code);
    };
    check("", &|_, _, _| ()).await;
    for part in 0..2 {
        check("BP-IMAGE-004", &|answers, made, _| {
            let body = &mut answers.get_mut(&blob_path(&made.blobs[part])).unwrap().2;
            body[3] ^= 1;
        })
        .await;
        check("BP-IMAGE-004", &|answers, made, _| {
            answers.get_mut(&blob_path(&made.blobs[part])).unwrap().2.push(0);
        })
        .await;
        check("BP-IMAGE-004", &|answers, made, _| {
            answers.get_mut(&blob_path(&made.blobs[part])).unwrap().2.pop();
        })
        .await;
        check("BP-IMAGE-015", &|answers, made, _| {
            answers.remove(&blob_path(&made.blobs[part]));
        })
        .await;
    }
    check("BP-IMAGE-011", &|answers, _, _| {
        let long = vec![b' '; image::limits::DOCUMENT_BYTES_MAX as usize + 1];
        answers.get_mut("/v2/x/manifests/1").unwrap().2 = long;
    })
    .await;
    check("BP-IMAGE-006", &|answers, _, _| {
        answers.get_mut("/v2/x/manifests/1").unwrap().2 = b"{".to_vec();
    })
    .await;
    check("BP-IMAGE-006", &|answers, _, _| {
        answers.get_mut("/v2/x/manifests/1").unwrap().1 = "Content-Type: text/html\r\n".into();
    })
    .await;
    check("BP-IMAGE-015", &|answers, made, _| {
        // Sent away for a blob, to where there is no TLS.
        let away = "Location: http://registry.example/x\r\n".to_owned();
        answers.insert(blob_path(&made.blobs[0]), (307, away, Vec::new()));
    })
    .await;
    check("BP-IMAGE-015", &|answers, made, _| {
        // Sent round and round.
        let path = blob_path(&made.blobs[0]);
        let round = format!("Location: {path}\r\n");
        answers.insert(path, (307, round, Vec::new()));
    })
    .await;
    let digest = format!("@sha256:{}", small().digest());
    let other = |answers: &mut Answers, made: &Made, _: &str| {
        let path = format!("/v2/x/manifests/sha256:{}", made.digest());
        answers.get_mut(&path).unwrap().2.push(b' ');
    };
    assert_eq!(pulled(&digest, |_, _, _| ()).await.0, "");
    assert_eq!(pulled(&digest, other).await.0, "BP-IMAGE-004");
}

#[tokio::test]
async fn a_registry_that_wants_a_token_gets_an_anonymous_one() {
    let (code, liar) = pulled(":1", |answers, _, address| {
        let realm = format!("http://{address}/token");
        let wants = format!(
            "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"s\",scope=\"repository:x:pull\"\r\n"
        );
        let open: Vec<String> = answers.keys().cloned().collect();
        for path in open {
            let honest = answers.insert(path.clone(), (401, wants.clone(), Vec::new())).unwrap();
            answers.insert(format!("{path} login"), honest);
        }
        let token = br#"{"token":"abc"}"#.to_vec();
        let asked = "/token?service=s&scope=repository%3Ax%3Apull".to_owned();
        answers.insert(asked, (200, String::new(), token));
    })
    .await;
    let asked = liar.asked.lock().unwrap().clone();
    assert_eq!(code, "", "{asked:?}");
    assert_eq!(asked.iter().filter(|path| path.starts_with("/token")).count(), 1, "{asked:?}");
    let (code, _) = pulled(":1", |answers, _, _| {
        let login = "WWW-Authenticate: Basic realm=\"x\"\r\n".to_owned();
        answers.insert("/v2/x/manifests/1".into(), (401, login, Vec::new()));
    })
    .await;
    assert_eq!(code, "BP-IMAGE-015", "nobody's credentials are held");
}
