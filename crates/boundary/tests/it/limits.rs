//! Limits of connections, questions and bodies, each at its edge.

use crate::net;
use crate::world::World;
use boundary::limits::{ASKS_MAX, BODIES_BYTES_MAX, BODY_BYTES_MAX, CONNECTIONS_MAX};
use tokio::io::AsyncWriteExt;
use types::BodyKind;

#[tokio::test]
async fn connections_have_a_limit_at_its_edge() {
    let world = World::start().await;
    let address = net::resolve(&world, "ok.test").await.unwrap();
    let destination = std::net::SocketAddr::new(address, 80);
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = net::connect_to(&world, destination).await;
        let reply = net::talk(&mut stream, &net::get("ok.test", "/denied")).await;
        assert_eq!(reply.unwrap().status, 403);
        open.push(stream);
    }
    let mut over = net::connect_to(&world, destination).await;
    assert!(net::talk(&mut over, &net::get("ok.test", "/denied")).await.is_none());
    open.pop();
    let again = async {
        loop {
            let mut stream = net::connect_to(&world, destination).await;
            if net::talk(&mut stream, &net::get("ok.test", "/denied")).await.is_some() {
                break;
            }
        }
    };
    tokio::time::timeout(net::WAIT, again).await.expect("a place is free again");
}

#[tokio::test]
async fn questions_have_a_limit_at_its_edge() {
    let world = World::start().await;
    let address = net::resolve(&world, "ok.test").await.unwrap();
    let destination = std::net::SocketAddr::new(address, 80);
    // One connection more than may ask: whoever comes last is told so.
    let mut waiting = Vec::new();
    for _ in 0..=ASKS_MAX {
        let mut stream = net::connect_to(&world, destination).await;
        let reply = net::talk(&mut stream, &net::get("ok.test", "/denied")).await;
        assert_eq!(reply.unwrap().status, 403);
        waiting.push(stream);
    }
    let last = waiting.pop().unwrap();
    for (at, stream) in waiting.iter_mut().enumerate() {
        stream.write_all(&net::get("ok.test", "/wait")).await.unwrap();
        let expected = ASKS_MAX + 1 + at + 1;
        world.judge.wait(|seen| (seen.requests.len() == expected).then_some(())).await;
    }
    let mut last = last;
    let reply = net::talk(&mut last, &net::get("ok.test", "/wait")).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (503, "BP-BOUNDARY-010"));
    world.judge.go.notify_waiters();
    for stream in &mut waiting {
        assert_eq!(net::read_reply(stream).await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_body_is_read_whole_up_to_its_limit() {
    let world = World::start().await;
    for (bytes, kind) in
        [(BODY_BYTES_MAX, BodyKind::Buffered), (BODY_BYTES_MAX + 1, BodyKind::Streamed)]
    {
        let body = "x".repeat(bytes);
        let reply = net::http(&world, "ok.test", &net::post("ok.test", "/", "", &body)).await;
        assert_eq!(reply.unwrap().status, 200);
        let got = world.sink.last();
        assert_eq!(got.body.len(), bytes);
        assert_eq!(got.headers["content-length"], bytes.to_string());
        let seen = world.judge.seen.lock().unwrap();
        assert_eq!(seen.requests.last().unwrap().facts.body.kind, kind, "{bytes}");
    }
}

/// Opens a connection, sends what is there, and sees it end once its time is over.
async fn ends_by_itself(host: &str, port: u16, bytes: &[u8]) {
    let world = World::start().await;
    let mut stream = net::connect(&world, host, port).await;
    stream.write_all(bytes).await.unwrap();
    world.judge.wait(|seen| seen.connects.first().map(|_| ())).await;
    // From here on the clock runs when nothing else does.
    tokio::time::pause();
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    assert_eq!(String::from_utf8_lossy(&rest), "");
    assert_eq!(world.asked(), 0);
    tokio::time::resume();
}

#[tokio::test]
async fn slow_first_bytes_have_an_end() {
    ends_by_itself("ok.test", 80, b"").await;
    ends_by_itself("ok.test", 80, b"GE").await;
    ends_by_itself("tls.ok.test", 443, b"\x16").await;
}

#[tokio::test]
async fn a_slow_head_has_an_end() {
    ends_by_itself("ok.test", 80, b"GET / HTTP/1.1\r\nHost: ok.te").await;
}

#[tokio::test]
async fn a_slow_greeting_has_an_end() {
    ends_by_itself("tls.ok.test", 443, b"\x16\x03\x01\x02\x00\x01").await;
}

#[tokio::test]
async fn a_denied_connection_that_says_nothing_ends() {
    ends_by_itself("1.1.1.1", 22, b"").await;
}

#[tokio::test]
async fn a_body_that_stands_still_is_judged_as_a_stream() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    let head = "POST /echo HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 6\r\n\r\nabc";
    stream.write_all(head.as_bytes()).await.unwrap();
    world.judge.wait(|seen| seen.requests.first().map(|_| ())).await;
    {
        let seen = world.judge.seen.lock().unwrap();
        let body = &seen.requests[0].facts.body;
        assert_eq!((body.kind, body.bytes, body.understood), (BodyKind::Streamed, 3, false));
    }
    let reply = net::talk(&mut stream, b"def").await.unwrap();
    assert_eq!(reply.text(), "/echo  abcdef");
}

#[tokio::test]
async fn bodies_that_are_read_ahead_have_a_limit_at_its_edge() {
    let world = World::start().await;
    let body = "x".repeat(BODY_BYTES_MAX);
    let request = net::post("ok.test", "/wait", "", &body);
    let mut waiting = Vec::new();
    for at in 0..BODIES_BYTES_MAX / BODY_BYTES_MAX {
        let mut stream = net::connect(&world, "ok.test", 80).await;
        stream.write_all(&request).await.unwrap();
        world.judge.wait(|seen| (seen.requests.len() == at + 1).then_some(())).await;
        waiting.push(stream);
    }
    let one = net::post("ok.test", "/", "", "x");
    let reply = net::http(&world, "ok.test", &one).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (503, "BP-BOUNDARY-010"));
    let without = net::http(&world, "ok.test", &net::get("ok.test", "/")).await.unwrap();
    assert_eq!(without.status, 200);
    world.judge.go.notify_waiters();
    for stream in &mut waiting {
        assert_eq!(net::read_reply(stream).await.unwrap().status, 200);
    }
    drop(waiting);
    world
        .judge
        .wait(|seen| {
            (seen.events.len() == 2 * (BODIES_BYTES_MAX / BODY_BYTES_MAX) + 2).then_some(())
        })
        .await;
    assert_eq!(net::http(&world, "ok.test", &one).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_body_that_trickles_is_judged_as_a_stream_in_the_end() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    let head = "POST / HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    tokio::time::pause();
    let mut sent = 0;
    while world.asked() == 0 {
        stream.write_all(b"x").await.unwrap();
        tokio::time::advance(std::time::Duration::from_millis(900)).await;
        sent += 1;
    }
    assert!(sent < 100, "{sent}");
    tokio::time::resume();
}

#[tokio::test]
async fn an_idle_connection_has_an_end() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    assert_eq!(net::talk(&mut stream, &net::get("ok.test", "/")).await.unwrap().status, 200);
    tokio::time::pause();
    let mut rest = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
    assert!(rest.is_empty());
    tokio::time::resume();
}

#[tokio::test]
async fn dns_connections_have_a_limit_at_its_edge() {
    use tokio::io::AsyncReadExt;
    let world = World::start().await;
    // A message without a question is answered with an error, which is enough here.
    let message = [0u8, 12, 0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut open = Vec::new();
    for at in 0..=boundary::limits::DNS_CONNECTIONS_MAX {
        let mut stream = tokio::net::TcpStream::connect(world.dns_tcp).await.unwrap();
        let _ = stream.write_all(&message).await;
        let answered = stream.read_u16().await.is_ok();
        assert_eq!(answered, at < boundary::limits::DNS_CONNECTIONS_MAX, "{at}");
        open.push(stream);
    }
}

#[tokio::test]
async fn a_greeting_has_a_limit_at_its_edge() {
    let world = World::start().await;
    world.judge.opaque.lock().unwrap().push("rawtls.ok.test".to_owned());
    let mut stream = net::connect(&world, "rawtls.ok.test", 443).await;
    // A greeting that says it is as long as the limit, in records that go on.
    let mut record = vec![0x16, 0x03, 0x01, 0x3f, 0x00, 0x01, 0x00, 0xff, 0xff];
    record.resize(5 + 0x3f00, 0);
    for _ in 0..=boundary::limits::HELLO_BYTES_MAX / record.len() {
        let _ = stream.write_all(&record).await;
        record[5] = 0;
    }
    assert!(matches!(world.judge.end().await, boundary::Event::Failed { .. }));
    assert!(world.sink.raw.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_answer_that_never_comes_is_not_waited_for() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    stream.write_all(&net::get("ok.test", "/never")).await.unwrap();
    world.judge.wait(|seen| seen.events.first().map(|_| ())).await;
    tokio::time::pause();
    let mut bytes = vec![0u8; 1024];
    let read = tokio::io::AsyncReadExt::read(&mut stream, &mut bytes).await.unwrap();
    let text = String::from_utf8_lossy(&bytes[..read]).into_owned();
    assert!(text.starts_with("HTTP/1.1 502") && text.contains("BP-BOUNDARY-009"), "{text}");
    tokio::time::resume();
}

#[tokio::test]
async fn dns_messages_have_a_limit_at_its_edge() {
    let world = World::start().await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(world.dns_udp).await.unwrap();
    let message = |id: u8, bytes: usize| {
        let mut message = vec![0, id, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        message.resize(bytes, 0);
        message
    };
    let limit = boundary::limits::DNS_UDP_BYTES_MAX;
    socket.send(&message(1, limit + 1)).await.unwrap();
    socket.send(&message(2, limit)).await.unwrap();
    let mut reply = vec![0u8; 1500];
    socket.recv(&mut reply).await.unwrap();
    assert_eq!(reply[1], 2, "the first was not taken");
}
