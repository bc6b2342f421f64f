//! HTTP/2 from the program: each stream judged, trailers carried, upstream by what it speaks.

use crate::net;
use crate::world::World;
use bytes::Bytes;
use http::{HeaderMap, Request, Version};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Full};
use hyper::body::Frame;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use types::BodyKind;

async fn open<B>(world: &World, host: &str) -> SendRequest<B>
where
    B: http_body::Body + Unpin + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = net::connect(world, host, 443).await;
    let stream = net::secure(world, stream, host, &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let made = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = made.await.unwrap();
    tokio::spawn(connection);
    sender
}

fn request(uri: &str, body: &str) -> Request<Full<Bytes>> {
    let builder = Request::post(uri).header("te", "trailers").header("x-kept", "yes");
    builder.body(Full::new(body.to_owned().into())).unwrap()
}

#[tokio::test]
async fn streams_are_judged_one_by_one_and_trailers_pass() {
    let world = World::start().await;
    let mut sender = open(&world, "tls.ok.test").await;
    let fine = sender.send_request(request("https://tls.ok.test/trailers", "abc"));
    let denied = sender.clone().send_request(request("https://tls.ok.test/denied", "abc")).await;
    assert_eq!(denied.unwrap().status(), 403);
    let response = fine.await.unwrap();
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "abc");
    let got = world.sink.last();
    assert_eq!((got.version, got.headers["te"].to_str().unwrap()), (Version::HTTP_2, "trailers"));
    assert_eq!(got.headers["x-kept"], "yes");
    assert_eq!((world.sink.requests(), world.sink.connections()), (1, 1));
}

#[tokio::test]
async fn an_upstream_without_http2_is_spoken_to_in_http1() {
    let world = World::start().await;
    let mut sender = open(&world, "h1.ok.test").await;
    for _ in 0..2 {
        let mut request = request("https://h1.ok.test/echo", "abc");
        for piece in ["a=1", "b=2"] {
            request.headers_mut().append("cookie", piece.parse().unwrap());
        }
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "/echo  abc");
    }
    let got = world.sink.last();
    assert_eq!(
        (got.version, got.headers["host"].to_str().unwrap()),
        (Version::HTTP_11, "h1.ok.test")
    );
    assert_eq!(got.headers["cookie"], "a=1; b=2");
}

#[tokio::test]
async fn a_two_way_call_is_judged_by_its_head_and_flows() {
    let world = World::start().await;
    let (mut send, body) = Channel::<Bytes, std::io::Error>::new(4);
    let mut sender = open(&world, "tls.ok.test").await;
    let call =
        Request::post("https://tls.ok.test/trailers").header("content-type", "application/grpc");
    let response = sender.send_request(call.body(body).unwrap());
    world.judge.wait(|seen| seen.requests.first().map(|_| ())).await;
    send.send(Frame::data(Bytes::from_static(b"later"))).await.unwrap();
    drop(send);
    let body = response.await.unwrap().into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "later");
    let seen = world.judge.seen.lock().unwrap();
    assert_eq!(seen.requests[0].facts.body.kind, BodyKind::Streamed);
    assert!(!seen.requests[0].facts.body.understood);
}

#[tokio::test]
async fn an_upload_is_cut_off_when_it_may_not_go_on() {
    for may in [true, false] {
        let world = World::start().await;
        let (mut send, body) = Channel::<Bytes, std::io::Error>::new(4);
        let mut sender = open(&world, "tls.ok.test").await;
        let call =
            Request::post("https://tls.ok.test/early").header("content-type", "application/grpc");
        let response = sender.send_request(call.body(body).unwrap()).await.unwrap();
        assert_eq!(response.status(), 200);
        send.send(Frame::data(Bytes::from_static(b"one"))).await.unwrap();
        world.sink.ends_with("one").await;
        world.judge.keep_links.store(true, std::sync::atomic::Ordering::SeqCst);
        world.judge.still.store(may, std::sync::atomic::Ordering::SeqCst);
        world.boundary.recheck().await;
        let _ = send.send(Frame::data(Bytes::from_static(b"two"))).await;
        drop(send);
        world.sink.ends_with(if may { "onetwo(whole)" } else { "one(broken off)" }).await;
    }
}

#[tokio::test]
async fn trailers_of_a_request_pass() {
    let world = World::start().await;
    let mut sender = open(&world, "tls.ok.test").await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    let (mut send, body) = Channel::<Bytes, std::io::Error>::new(4);
    send.send(Frame::data(Bytes::from_static(b"abc"))).await.unwrap();
    send.send(Frame::trailers(trailers)).await.unwrap();
    drop(send);
    let request = Request::post("https://tls.ok.test/a").body(body).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert_eq!(world.sink.last().body, "abc");
}

#[tokio::test]
async fn headers_have_a_limit_at_its_edge() {
    let world = World::start().await;
    let mut sender = open(&world, "tls.ok.test").await;
    for (count, status) in
        [(boundary::limits::HEADERS_MAX, 200), (boundary::limits::HEADERS_MAX + 1, 503)]
    {
        let mut request = Request::get("https://tls.ok.test/a");
        for at in 0..count {
            request = request.header(format!("x-{at}"), "y");
        }
        let request = request.body(Full::new(Bytes::new())).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), status, "{count}");
    }
}
