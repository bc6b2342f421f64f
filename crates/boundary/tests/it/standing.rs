//! What is open when policy changes.

use crate::net;
use crate::world::World;
use boundary::{Event, Rechecked};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn an_open_stream_is_closed_when_it_may_not_go_on() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    stream.write_all(&net::get("ok.test", "/events")).await.unwrap();
    let mut bytes = vec![0u8; 1024];
    assert!(stream.read(&mut bytes).await.unwrap() > 0);
    assert_eq!(world.boundary.recheck().await, Rechecked { kept: 2, closed: 0 });
    world.judge.still.store(false, Ordering::SeqCst);
    assert_eq!(world.boundary.recheck().await, Rechecked { kept: 0, closed: 2 });
    let end = tokio::time::timeout(net::WAIT, stream.read_to_end(&mut bytes)).await;
    end.expect("the stream ends").ok();
    assert!(matches!(world.judge.end().await, Event::Failed { .. }));
}

#[tokio::test]
async fn an_opaque_connection_and_an_idle_one_are_closed_too() {
    let world = World::start().await;
    world.judge.opaque.lock().unwrap().push("raw.ok.test".to_owned());
    let mut opaque = net::connect(&world, "raw.ok.test", 22).await;
    let mut bytes = vec![0u8; 14];
    opaque.read_exact(&mut bytes).await.unwrap();
    let mut idle = net::connect(&world, "ok.test", 80).await;
    assert_eq!(net::talk(&mut idle, &net::get("ok.test", "/")).await.unwrap().status, 200);
    world.judge.end().await;
    world.judge.still.store(false, Ordering::SeqCst);
    assert_eq!(world.boundary.recheck().await, Rechecked { kept: 0, closed: 2 });
    for stream in [&mut opaque, &mut idle] {
        let end = tokio::time::timeout(net::WAIT, stream.read(&mut bytes)).await.expect("an end");
        assert!(!matches!(end, Ok(1..)));
    }
}

#[tokio::test]
async fn a_permit_from_before_the_change_does_not_slip_past_it() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    stream.write_all(&net::get("ok.test", "/wait")).await.unwrap();
    world.judge.wait(|seen| seen.requests.first().map(|_| ())).await;
    // The connection stays; the request that is being judged is asked about once it is permitted.
    assert_eq!(world.boundary.recheck().await, Rechecked { kept: 1, closed: 0 });
    world.judge.still.store(false, Ordering::SeqCst);
    world.judge.go.notify_one();
    let reply = net::read_reply(&mut stream).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (403, "BP-BOUNDARY-013"));
    assert_eq!(world.witness(), (0, 0, 0));
}

#[tokio::test]
async fn dropping_the_boundary_ends_everything() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    stream.write_all(&net::get("ok.test", "/events")).await.unwrap();
    let mut bytes = vec![0u8; 1024];
    assert!(stream.read(&mut bytes).await.unwrap() > 0);
    let World { boundary, .. } = world;
    drop(boundary);
    let end = tokio::time::timeout(net::WAIT, stream.read_to_end(&mut bytes)).await;
    end.expect("the stream ends").ok();
}

#[tokio::test]
async fn no_answer_in_time_means_no() {
    let world = World::start().await;
    let mut stream = net::connect(&world, "ok.test", 80).await;
    stream.write_all(&net::get("ok.test", "/events")).await.unwrap();
    let mut bytes = vec![0u8; 1024];
    assert!(stream.read(&mut bytes).await.unwrap() > 0);
    world.judge.hangs.store(true, Ordering::SeqCst);
    assert_eq!(world.boundary.recheck().await, Rechecked { kept: 0, closed: 2 });
    let end = tokio::time::timeout(net::WAIT, stream.read_to_end(&mut bytes)).await;
    end.expect("the stream ends").ok();
}
