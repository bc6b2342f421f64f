//! HTTP/1 in the clear: what is asked, what is sent, what comes back.

use crate::net;
use crate::world::World;
use boundary::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::BodyKind;

#[tokio::test]
async fn a_permitted_request_arrives_as_it_was_judged() {
    let world = World::start().await;
    let request = "GET /v1/../a%20b?q=1 HTTP/1.1\r\nHOST: OK.test\r\nAccept: */*\r\n\
        Connection: keep-alive, X-Hop\r\nX-Hop: gone\r\nProxy-Authorization: gone\r\nX-Kept: yes\r\n\r\n";
    let reply = net::http(&world, "ok.test", request.as_bytes()).await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "fine"));
    let got = world.sink.last();
    assert_eq!((got.method.as_str(), got.uri.as_str()), ("GET", "/a%20b?q=1"));
    assert_eq!(got.headers["host"], "ok.test");
    assert_eq!(got.headers["x-kept"], "yes");
    for gone in ["x-hop", "proxy-authorization", "connection"] {
        assert!(!got.headers.contains_key(gone), "{gone}");
    }
    let seen = world.judge.seen.lock().unwrap();
    let ask = &seen.requests[0];
    assert_eq!((ask.host.as_str(), ask.port, ask.scheme), ("ok.test", 80, "http"));
    assert_eq!((ask.path.as_str(), ask.raw_path.as_str()), ("/a b", "/a%20b"));
    assert_eq!(ask.query, "q=1");
    assert_eq!(ask.facts.headers, ["accept=*/*"]);
    assert_eq!(seen.connects[0].host, "ok.test");
}

#[tokio::test]
async fn events_tell_what_became_of_a_permit() {
    let world = World::start().await;
    net::http(&world, "ok.test", &net::post("ok.test", "/echo", "", "abc")).await.unwrap();
    let end = world.judge.end().await;
    assert_eq!(
        end,
        Event::Answered { status: 200, bytes_up: 3, bytes_down: "/echo  abc".len() as u64 }
    );
    assert_eq!(world.judge.seen.lock().unwrap().events[0].1, Event::Sent);
    net::http(&world, "dead.ok.test", &net::get("dead.ok.test", "/")).await.unwrap();
    assert!(matches!(world.judge.end().await, Event::Failed { .. }));
}

#[tokio::test]
async fn a_denied_request_is_told_why_and_reaches_nobody() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    let reply = net::talk(&mut stream, &net::get("ok.test", "/denied/x")).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (403, "BP-POLICY-001"));
    assert!(reply.text().contains("\"approval\":\"ap-1\""));
    assert_eq!(world.witness(), (0, 0, 0));
    let reply = net::talk(&mut stream, &net::get("ok.test", "/fine")).await.unwrap();
    assert_eq!(reply.status, 200, "the connection goes on");
}

#[tokio::test]
async fn a_denied_connection_is_told_why_where_it_speaks_in_the_clear() {
    let world = World::start().await;
    let reply = net::http(&world, "1.1.1.1", &net::get("1.1.1.1", "/")).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (403, "BP-POLICY-001"));
    assert!(net::https(&world, "1.1.1.1", &net::get("1.1.1.1", "/")).await.is_none());
    assert_eq!(world.asked(), 0);
}

#[tokio::test]
async fn each_request_of_a_connection_is_judged_and_upstream_is_kept() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    for at in 0..5 {
        let target = format!("/{at}");
        let reply = net::talk(&mut stream, &net::get("ok.test", &target)).await.unwrap();
        assert_eq!(reply.status, 200);
    }
    assert_eq!((world.asked(), world.sink.requests(), world.sink.connections()), (5, 5, 1));
}

#[tokio::test]
async fn pipelined_requests_are_judged_one_by_one() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    let three =
        [net::get("ok.test", "/1"), net::get("ok.test", "/denied"), net::get("ok.test", "/3")];
    stream.write_all(&three.concat()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = String::new();
    let _ = stream.read_to_string(&mut all).await;
    let statuses: Vec<_> = all.matches("HTTP/1.1 ").collect();
    assert!(!statuses.is_empty());
    assert!(world.sink.got.lock().unwrap().iter().all(|got| got.uri != "/denied"));
}

#[tokio::test]
async fn a_smuggled_request_is_never_seen_as_one() {
    let world = World::start().await;
    let inner = "GET /denied HTTP/1.1\r\nHost: ok.test\r\n\r\n";
    let reply = net::http(&world, "ok.test", &net::post("ok.test", "/", "", inner)).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!((world.asked(), world.sink.requests()), (1, 1));
    assert_eq!(world.sink.last().body, inner);
}

#[tokio::test]
async fn a_body_is_judged_before_it_is_sent_and_sent_as_judged() {
    let world = World::start().await;
    let body = r#"{"a":{"b":[1,true]}}"#;
    let json = "Content-Type: application/json\r\n";
    net::http(&world, "ok.test", &net::post("ok.test", "/", json, body)).await.unwrap();
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: ok.test\r\n{json}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        body.len()
    );
    net::http(&world, "ok.test", chunked.as_bytes()).await.unwrap();
    assert_eq!(world.sink.last().body, body);
    assert_eq!(world.sink.last().headers["content-length"], body.len().to_string());
    let seen = world.judge.seen.lock().unwrap();
    assert_eq!(seen.requests[0].facts.body.json, ["/a/b/0=1", "/a/b/1=true"]);
    assert_eq!(seen.requests[0].facts.body.kind, BodyKind::Buffered);
    assert_eq!(seen.requests[0].digest, seen.requests[1].digest, "the same request");
}

#[tokio::test]
async fn digests_differ_by_all_that_makes_a_request() {
    let world = World::start().await;
    for request in [
        net::get("ok.test", "/a"),
        net::get("ok.test", "/b"),
        net::get("ok.test", "/a?x"),
        net::post("ok.test", "/a", "", "x"),
        net::post("ok.test", "/a", "", "y"),
        net::post("ok.test", "/a", "Content-Type: text/plain\r\n", "y"),
    ] {
        net::http(&world, "ok.test", &request).await.unwrap();
    }
    net::http(&world, "plain.ok.test", &net::get("plain.ok.test", "/a")).await.unwrap();
    let accept = b"GET /a HTTP/1.1\r\nHost: ok.test\r\nAccept: text/html\r\n\r\n";
    net::http(&world, "ok.test", accept).await.unwrap();
    let seen = world.judge.seen.lock().unwrap();
    let digests: Vec<_> = seen.requests.iter().map(|ask| ask.digest).collect();
    let distinct: std::collections::HashSet<_> = digests.iter().collect();
    assert_eq!((digests.len(), distinct.len()), (8, 7));
    assert_eq!(digests[0], digests[7], "`accept` does not make it another");
}

#[tokio::test]
async fn an_expectation_is_answered() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    let head =
        "POST /echo HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut first = [0u8; 25];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 100 Continue\r\n\r\n");
    let reply = net::talk(&mut stream, b"abc").await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "/echo  abc"));
    assert!(!world.sink.last().headers.contains_key("expect"));
}

#[tokio::test]
async fn a_question_is_taken_back_when_the_program_leaves() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    stream.write_all(&net::get("ok.test", "/wait")).await.unwrap();
    world.judge.wait(|seen| seen.requests.first().map(|_| ())).await;
    drop(stream);
    let dropped = async {
        while world.judge.dropped.load(std::sync::atomic::Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(net::WAIT, dropped).await.expect("the question is dropped");
    assert_eq!(world.witness(), (0, 0, 0));
}

#[tokio::test]
async fn an_answer_that_takes_a_person_is_waited_for() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    stream.write_all(&net::get("ok.test", "/wait")).await.unwrap();
    world.judge.wait(|seen| seen.requests.first().map(|_| ())).await;
    assert_eq!(world.witness(), (0, 0, 0));
    world.judge.go.notify_one();
    assert_eq!(net::read_reply(&mut stream).await.unwrap().status, 200);
}

#[tokio::test]
async fn what_upstream_may_not_say_does_not_pass() {
    let world = World::start().await;
    let switch = net::http(&world, "ok.test", &net::get("ok.test", "/switch")).await.unwrap();
    assert_eq!((switch.status, switch.code().as_str()), (502, "BP-BOUNDARY-009"));
    let reply = net::http(&world, "ok.test", &net::get("ok.test", "/alternative")).await.unwrap();
    assert!(
        !reply.head.contains("alt-svc") && !reply.head.contains("keep-alive"),
        "{}",
        reply.head
    );
    let reply = net::http(&world, "ok.test", &net::get("ok.test", "/redirect")).await.unwrap();
    assert_eq!(reply.status, 302, "the program follows, and is judged again");
    assert!(reply.head.contains("location: http://elsewhere.test/"));
    let reply = net::http(&world, "ok.test", &net::get("ok.test", "/large")).await.unwrap();
    assert_eq!(reply.body.len(), 3 << 20);
    let head = b"HEAD /large HTTP/1.1\r\nHost: ok.test\r\nConnection: close\r\n\r\n";
    let mut stream = net::connect(&world, "ok.test", 80).await;
    stream.write_all(head).await.unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).await.unwrap();
    assert!(all.starts_with("HTTP/1.1 200") && all.ends_with("\r\n\r\n"), "{all}");
}

#[tokio::test]
async fn events_of_a_stream_come_as_they_are_sent() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    stream.write_all(&net::get("ok.test", "/events")).await.unwrap();
    let mut bytes = Vec::new();
    let read = async {
        while !bytes.ends_with(b"data: 1\n\n\r\n") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
    };
    tokio::time::timeout(net::WAIT, read).await.expect("the event comes, the stream stays open");
}

#[tokio::test]
async fn git_and_packages_are_told_by_name() {
    let world = World::start().await;
    let zero = "0".repeat(40);
    let line = format!("{zero} {} refs/heads/x\0caps", "1".repeat(40));
    let body = format!("{:04x}{line}0000", line.len() + 4);
    net::http(&world, "ok.test", &net::post("ok.test", "/o/r.git/git-receive-pack", "", &body))
        .await;
    let seen = world.judge.seen.lock().unwrap();
    let facts = &seen.requests[0].facts;
    assert_eq!(facts.operation, "git push");
    assert_eq!(facts.git.as_ref().unwrap().updates[0].name, "refs/heads/x");
}
