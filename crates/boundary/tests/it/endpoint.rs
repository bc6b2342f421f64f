//! The model endpoint: answered by the boundary itself, and by nobody when there is none.

use crate::net;
use crate::world::World;
use boundary::{Endpoint, EndpointAnswer, MODELS_HOST};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use std::net::SocketAddr;
use std::sync::Arc;

/// Says back what it was asked.
struct Echo;

impl Endpoint for Echo {
    fn answer(&self, request: Request<Incoming>) -> EndpointAnswer {
        Box::pin(async move {
            let line = format!("{} {} ", request.method(), request.uri());
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let text = [line.as_bytes(), &body].concat();
            let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
            Response::new(body.boxed_unsync())
        })
    }
}

const CALL: &[u8] = b"POST /v1/responses?x=1 HTTP/1.1\r\nhost: models.bedplate.internal\r\n\
                      content-length: 4\r\nconnection: close\r\n\r\nbody";

/// The status and text of an answer; none where the name has no address, or nothing came.
async fn call(world: &World, port: u16) -> Option<(u16, String)> {
    let ip = net::resolve(world, &format!("{MODELS_HOST}.")).await?;
    let mut stream = net::connect_to(world, SocketAddr::new(ip, port)).await;
    let reply = net::talk(&mut stream, CALL).await?;
    Some((reply.status, reply.text()))
}

#[tokio::test]
async fn the_endpoint_is_answered_here_and_nobody_is_asked() {
    let world = World::with_models(Arc::new(Echo)).await;
    let said = call(&world, 80).await;
    assert_eq!(said, Some((200, "POST /v1/responses?x=1 body".to_owned())));
    assert_eq!((world.witness(), world.asked()), ((0, 0, 0), 0));
    assert!(world.judge.seen.lock().unwrap().names.is_empty());
}

#[tokio::test]
async fn another_port_is_a_host_like_any_other() {
    let world = World::with_models(Arc::new(Echo)).await;
    let said = call(&world, 8080).await;
    assert!(said.is_none_or(|(status, _)| status == 403));
    assert_eq!(world.witness(), (0, 0, 0));
}

#[tokio::test]
async fn without_an_endpoint_the_name_is_a_name_like_any_other() {
    let world = World::start().await;
    assert_eq!(call(&world, 80).await, None);
    assert_eq!(world.judge.seen.lock().unwrap().names, [MODELS_HOST]);
}
