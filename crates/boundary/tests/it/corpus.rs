//! Drives the bypass corpus on loopback, and watches that nothing of a denied case gets out.

#[path = "../corpus/mod.rs"]
mod cases;

use crate::careless;
use crate::net::{self, Reply};
use crate::world::World;
use cases::{Act, Case, End, Header};
use hickory_proto::op::{Message, ResponseCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;

/// What came of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Status(u16),
    Unreachable,
    Closed,
    Dns(ResponseCode, usize),
}

impl From<Option<Reply>> for Outcome {
    fn from(reply: Option<Reply>) -> Self {
        match reply {
            None => Self::Closed,
            Some(reply) if reply.code() == "BP-BOUNDARY-008" => Self::Unreachable,
            Some(reply) => Self::Status(reply.status),
        }
    }
}

async fn perform(world: &World, act: &Act) -> Outcome {
    match act {
        Act::Http { host, bytes } => net::http(world, host, bytes).await.into(),
        Act::HttpAt { ip, port, bytes } => {
            let destination = SocketAddr::new(ip.parse().unwrap(), *port);
            let mut stream = net::connect_to(world, destination).await;
            net::talk(&mut stream, bytes).await.into()
        }
        Act::Https { host, sni, bytes } => {
            let stream = net::connect(world, host, 443).await;
            match careless::secure(stream, sni, true).await {
                Ok(mut stream) => net::talk(&mut stream, bytes).await.into(),
                Err(_) => Outcome::Closed,
            }
        }
        Act::Http2 { host, uri, method, headers } => http2(world, host, uri, method, headers).await,
        Act::Dns { labels, kind } => dns(world, labels, *kind).await,
    }
}

async fn http2(world: &World, host: &str, uri: &str, method: &str, headers: &[Header]) -> Outcome {
    let stream = net::connect(world, host, 443).await;
    let stream = net::secure(world, stream, host, &[b"h2"]).await.unwrap();
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = made.await.unwrap();
    tokio::spawn(connection);
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    match sender.send_request(request).await {
        Ok(response) => Outcome::Status(response.status().as_u16()),
        Err(_) => Outcome::Closed,
    }
}

async fn dns(world: &World, labels: &[Vec<u8>], kind: u16) -> Outcome {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in labels {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label);
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&1u16.to_be_bytes());
    let reply = net::exchange_udp(world, &bytes).await.unwrap();
    let reply = Message::from_vec(&reply).unwrap();
    Outcome::Dns(reply.metadata.response_code, reply.answers.len())
}

fn is(outcome: &Outcome, end: End) -> bool {
    match (outcome, end) {
        (Outcome::Status(status), End::Status(expected)) => *status == expected,
        (Outcome::Closed, End::Closed) | (Outcome::Unreachable, End::Unreachable) => true,
        (Outcome::Dns(code, 0), End::Refused) => {
            matches!(*code, ResponseCode::Refused | ResponseCode::FormErr)
        }
        (Outcome::Dns(ResponseCode::NoError, 0), End::Empty) => true,
        _ => false,
    }
}

/// What is wrong with a case; nothing if it holds.
async fn check(world: &World, case: &Case) -> Option<String> {
    let before = world.witness();
    let outcome = perform(world, &case.attack).await;
    let after = world.witness();
    if !is(&outcome, case.end) {
        return Some(format!("{}: ended {outcome:?}, not {:?}", case.name, case.end));
    }
    // A host that was permitted is looked up, or greeted, before it turns out to be another.
    let quiet = match case.end {
        End::Unreachable => (after.0, after.1) == (before.0, before.1),
        End::Status(502) => after.0 == before.0,
        _ => after == before,
    };
    if !quiet {
        return Some(format!("{}: {before:?} became {after:?} outside", case.name));
    }
    let control = perform(world, &case.control).await;
    let fine = match control {
        Outcome::Status(status) => status == 200 && world.witness().0 == after.0 + 1,
        Outcome::Dns(code, answers) => code == ResponseCode::NoError && answers == 1,
        Outcome::Closed | Outcome::Unreachable => false,
    };
    (!fine).then(|| format!("{}: its control ended {control:?}", case.name))
}

async fn drive(cases: Vec<Case>) {
    let world = World::start().await;
    let mut wrong = Vec::new();
    for case in cases {
        wrong.extend(check(&world, &case).await);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn framing_that_two_servers_could_see_differently() {
    drive(cases::framing::cases()).await;
}

#[tokio::test]
async fn names_that_some_reader_takes_for_another() {
    drive(cases::names::cases()).await;
}

#[tokio::test]
async fn paths_that_servers_read_in_different_ways() {
    drive(cases::paths::cases()).await;
}

#[tokio::test]
async fn requests_that_ask_for_something_else_besides() {
    drive(cases::requests::cases()).await;
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let cases = cases::all();
    let names: std::collections::HashSet<_> = cases.iter().map(|case| &case.name).collect();
    assert_eq!(names.len(), cases.len());
    assert!(cases.len() >= 120, "{}", cases.len());
}
