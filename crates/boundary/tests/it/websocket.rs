//! WebSockets: judged as their opening request, carried as frames.

use crate::judge::{PLACEHOLDER, VALUE};
use crate::net;
use crate::world::World;
use boundary::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn open(world: &World, path: &str, headers: &str) -> (TcpStream, Option<net::Reply>) {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: ok.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Extensions: permessage-deflate\r\n{headers}\r\n"
    );
    let mut stream = net::connect(world, "ok.test", 80).await;
    let reply = net::talk(&mut stream, request.as_bytes()).await;
    (stream, reply)
}

#[tokio::test]
async fn frames_are_carried_both_ways() {
    let world = World::start().await;
    let (mut stream, reply) = open(&world, "/ws", "").await;
    let reply = reply.unwrap();
    assert_eq!(reply.status, 101);
    assert!(
        reply.head.contains("upgrade: websocket") && reply.head.contains("connection: upgrade")
    );
    assert!(!world.sink.last().headers.contains_key("sec-websocket-extensions"));
    assert!(world.judge.seen.lock().unwrap().requests[0].facts.websocket);
    let frame = b"\x81\x85\0\0\0\0hello";
    stream.write_all(frame).await.unwrap();
    let mut echo = [0u8; 11];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, frame);
    drop(stream);
    assert!(matches!(
        world.judge.end().await,
        Event::Answered { status: 101, bytes_up: 11, bytes_down: 11 }
    ));
}

#[tokio::test]
async fn a_denied_opening_opens_nothing() {
    let world = World::start().await;
    let (_, reply) = open(&world, "/denied", "").await;
    assert_eq!(reply.unwrap().status, 403);
    assert_eq!(world.witness(), (0, 0, 0));
}

#[tokio::test]
async fn what_is_no_frame_ends_it() {
    let world = World::start().await;
    for bad in [&b"GET /denied HTTP/1.1\r\n\r\n"[..], b"\xc1\x85\0\0\0\0hello"] {
        world.sink.raw.lock().unwrap().clear();
        let (mut stream, reply) = open(&world, "/ws", "").await;
        assert_eq!(reply.unwrap().status, 101);
        stream.write_all(bad).await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty() && world.sink.raw.lock().unwrap().is_empty());
        assert!(matches!(world.judge.end().await, Event::Failed { .. }));
    }
}

#[tokio::test]
async fn a_secret_of_the_opening_does_not_come_back_in_frames() {
    let world = World::start().await;
    let (mut stream, reply) =
        open(&world, "/ws", &format!("Authorization: {PLACEHOLDER}\r\n")).await;
    assert_eq!(reply.unwrap().status, 101);
    let mut frame = vec![0x81, 0x80 | u8::try_from(VALUE.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(VALUE.as_bytes());
    // The sink echoes it as the server's own frame would be: unmasked bytes behind a zero mask.
    stream.write_all(&frame).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!String::from_utf8_lossy(&rest).contains(VALUE));
    assert!(matches!(world.judge.end().await, Event::Failed { .. }));
}

#[tokio::test]
async fn it_ends_when_it_may_not_go_on() {
    let world = World::start().await;
    let (mut stream, reply) = open(&world, "/ws", "").await;
    assert_eq!(reply.unwrap().status, 101);
    world.judge.keep_links.store(true, std::sync::atomic::Ordering::SeqCst);
    world.judge.still.store(false, std::sync::atomic::Ordering::SeqCst);
    world.boundary.recheck().await;
    let mut rest = Vec::new();
    let end = tokio::time::timeout(net::WAIT, stream.read_to_end(&mut rest)).await;
    end.expect("the connection ends").ok();
    assert!(matches!(world.judge.end().await, Event::Failed { .. }));
}
