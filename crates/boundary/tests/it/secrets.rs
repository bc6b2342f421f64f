//! Secrets: put in for the hosts that may have them, and masked when they come back.

use crate::judge::{PLACEHOLDER, VALUE};
use crate::net;
use crate::world::World;
use boundary::{How, Place};

fn with(authorization: &str, target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: ok.test\r\nAuthorization: {authorization}\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    .into_bytes()
}

fn authorization(world: &World) -> String {
    world.sink.last().headers["authorization"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_placeholder_becomes_its_value_on_the_way_out_only() {
    let world = World::start().await;
    let bearer = format!("Bearer {PLACEHOLDER}");
    let reply = net::http(&world, "ok.test", &with(&bearer, "/echo")).await.unwrap();
    assert_eq!(authorization(&world), format!("Bearer {VALUE}"));
    assert_eq!(world.sink.last().headers["accept-encoding"], "identity");
    assert_eq!(reply.text(), "/echo Bearer [masked:api] ");
    assert!(reply.head.contains("x-echo: bearer [masked:api]"), "{}", reply.head);
    let seen = world.judge.seen.lock().unwrap();
    assert_eq!(seen.requests[0].placeholders[0].place, Place::Header);
    assert_eq!(seen.requests[0].facts.secrets, ["api"]);
}

#[tokio::test]
async fn a_value_that_drips_back_is_masked_across_frames() {
    let world = World::start().await;
    let bearer = format!("Bearer {PLACEHOLDER}");
    let reply = net::http(&world, "ok.test", &with(&bearer, "/dripping")).await.unwrap();
    assert_eq!(reply.text(), "Bearer [masked:api]");
}

#[tokio::test]
async fn query_body_and_basic_are_places_too_and_the_path_is_none() {
    use base64::Engine as _;
    let world = World::start().await;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("user:{PLACEHOLDER}"));
    let reply =
        net::http(&world, "ok.test", &with(&format!("Basic {basic}"), "/echo")).await.unwrap();
    let sent = base64::engine::general_purpose::STANDARD.encode(format!("user:{VALUE}"));
    assert_eq!(authorization(&world), format!("Basic {sent}"));
    assert!(
        reply.text().contains("[masked:api]") && !reply.text().contains(&sent),
        "{}",
        reply.text()
    );

    let query = format!("/echo?key={PLACEHOLDER}&x=1");
    let reply = net::http(&world, "ok.test", &net::get("ok.test", &query)).await.unwrap();
    assert_eq!(world.sink.last().uri, "/echo?key=hunter2%2Fwith%2Bodd%22chars&x=1");
    assert_eq!(reply.text(), "/echo?key=[masked:api]&x=1  ");

    let body = format!("{{\"key\":\"{PLACEHOLDER}\"}}");
    let request = net::post("ok.test", "/echo", "Content-Type: application/json\r\n", &body);
    let reply = net::http(&world, "ok.test", &request).await.unwrap();
    let sent = "{\"key\":\"hunter2/with+odd\\\"chars\"}";
    assert_eq!(world.sink.last().body, sent);
    assert_eq!(world.sink.last().headers["content-length"], sent.len().to_string());
    assert_eq!(reply.text(), "/echo  {\"key\":\"[masked:api]\"}");

    let path = format!("/echo/{PLACEHOLDER}");
    net::http(&world, "ok.test", &net::get("ok.test", &path)).await.unwrap();
    assert_eq!(world.sink.last().uri, path);
}

#[tokio::test]
async fn another_host_gets_the_placeholder_as_it_is() {
    let world = World::start().await;
    let request = format!(
        "GET /echo HTTP/1.1\r\nHost: plain.ok.test\r\nAuthorization: {PLACEHOLDER}\r\n\r\n"
    );
    let reply = net::http(&world, "plain.ok.test", request.as_bytes()).await.unwrap();
    assert_eq!(authorization(&world), PLACEHOLDER);
    assert!(reply.text().contains(PLACEHOLDER));
}

#[tokio::test]
async fn an_answer_in_which_it_could_hide_is_refused() {
    let world = World::start().await;
    let bearer = format!("Bearer {PLACEHOLDER}");
    let reply = net::http(&world, "ok.test", &with(&bearer, "/encoded")).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (502, "BP-BOUNDARY-011"));
    let reply = net::http(&world, "ok.test", &with("Bearer own", "/encoded")).await.unwrap();
    assert_eq!(reply.status, 200, "without a secret it passes");
}

#[tokio::test]
async fn a_placeholder_in_a_streamed_body_is_sent_as_it_is() {
    let world = World::start().await;
    let filling = "x".repeat(boundary::limits::BODY_BYTES_MAX + 1);
    let body = format!("{PLACEHOLDER}{filling}{PLACEHOLDER}");
    let header = format!("Authorization: {PLACEHOLDER}\r\n");
    let reply =
        net::http(&world, "ok.test", &net::post("ok.test", "/", &header, &body)).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(world.sink.last().body, body);
    assert_eq!(authorization(&world), VALUE, "beside it, the header has its value");
}

#[tokio::test]
async fn a_request_is_signed_for_aws() {
    let world = World::start().await;
    *world.judge.how.lock().unwrap() = How::AwsSigV4 {
        access_key: "AKID".to_owned(),
        region: "eu-central-1".to_owned(),
        service: "s3".to_owned(),
        session_token: None,
    };
    net::http(&world, "ok.test", &with("AWS4-HMAC-SHA256 made up", "/bucket?b=2&a=1"))
        .await
        .unwrap();
    let signed = authorization(&world);
    assert!(signed.starts_with("AWS4-HMAC-SHA256 Credential=AKID/"), "{signed}");
    assert!(signed.contains("SignedHeaders=host;x-amz-content-sha256;x-amz-date"), "{signed}");
    assert!(world.sink.last().headers.contains_key("x-amz-date"));
}
