//! TLS: ended here as the host that was dialled, made anew and verified on the way out.

use crate::net;
use crate::world::World;
use boundary::Event;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test]
async fn https_is_read_judged_and_made_anew() {
    let world = World::start().await;
    let reply = net::https(&world, "tls.ok.test", &net::get("tls.ok.test", "/a")).await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (200, "fine"));
    let seen = world.judge.seen.lock().unwrap();
    let ask = &seen.requests[0];
    assert_eq!((ask.host.as_str(), ask.port, ask.scheme), ("tls.ok.test", 443, "https"));
}

#[tokio::test]
async fn two_sandboxes_do_not_trust_each_other() {
    let (one, two) = (World::start().await, World::start().await);
    assert_ne!(one.boundary.certificate_pem(), two.boundary.certificate_pem());
    let stream = net::connect(&one, "tls.ok.test", 443).await;
    assert!(net::secure(&two, stream, "tls.ok.test", &[]).await.is_err());
}

#[tokio::test]
async fn a_greeting_without_a_name_is_for_the_host_that_was_dialled() {
    let world = World::start().await;
    let stream = net::connect(&world, "tls.ok.test", 443).await;
    let mut stream = crate::careless::secure(stream, "evil.test", false).await.unwrap();
    let reply = net::talk(&mut stream, &net::get("evil.test", "/")).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (421, "BP-BOUNDARY-004"));
    let stream = net::connect(&world, "tls.ok.test", 443).await;
    let mut stream = crate::careless::secure(stream, "tls.ok.test", false).await.unwrap();
    let reply = net::talk(&mut stream, &net::get("tls.ok.test", "/")).await.unwrap();
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn an_address_without_a_name_has_a_certificate_too() {
    let world = World::start().await;
    let stream = net::connect(&world, "93.184.216.34", 443).await;
    let stream = net::secure(&world, stream, "93.184.216.34", &[]).await;
    assert!(stream.is_ok(), "{stream:?}");
}

#[tokio::test]
async fn a_greeting_may_come_in_pieces() {
    let world = World::start().await;
    let stream = net::connect(&world, "tls.ok.test", 443).await;
    let (near, far) = tokio::io::duplex(1);
    // One byte at a time.
    let pump = tokio::spawn(async move {
        let (mut near, mut stream) = (near, stream);
        let _ = tokio::io::copy_bidirectional(&mut near, &mut stream).await;
    });
    let mut roots = rustls::RootCertStore::empty();
    use rustls::pki_types::pem::PemObject;
    let pem = world.boundary.certificate_pem().as_bytes();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(pem).unwrap()).unwrap();
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(config));
    let name = rustls::pki_types::ServerName::try_from("tls.ok.test").unwrap();
    let mut stream = connector.connect(name, far).await.unwrap();
    let reply = net::talk(&mut stream, &net::get("tls.ok.test", "/")).await.unwrap();
    assert_eq!(reply.status, 200);
    pump.abort();
}

#[tokio::test]
async fn no_common_protocol_is_no_connection() {
    let world = World::start().await;
    let stream = net::connect(&world, "tls.ok.test", 443).await;
    assert!(net::secure(&world, stream, "tls.ok.test", &[b"ftp"]).await.is_err());
    let stream = net::connect(&world, "tls.ok.test", 443).await;
    assert!(net::secure(&world, stream, "tls.ok.test", &[]).await.is_ok());
}

#[tokio::test]
async fn what_speaks_first_is_carried_only_where_the_judge_said_so() {
    let world = World::start().await;
    world.judge.opaque.lock().unwrap().push("raw.ok.test".to_owned());
    let mut stream = net::connect(&world, "raw.ok.test", 22).await;
    let mut banner = [0u8; 14];
    stream.read_exact(&mut banner).await.unwrap();
    assert_eq!(&banner, b"SSH-2.0-sink\r\n");
    stream.write_all(b"SSH-2.0-me\r\n").await.unwrap();
    let mut echo = [0u8; 12];
    stream.read_exact(&mut echo).await.unwrap();
    drop(stream);
    let end = world.judge.end().await;
    assert_eq!(end, Event::Answered { status: 0, bytes_up: 12, bytes_down: 26 });
    assert_eq!(world.asked(), 0);

    let mut stream = net::connect(&world, "ok.test", 22).await;
    let _ = stream.write_all(b"SSH-2.0-me\r\n").await;
    assert!(!matches!(stream.read(&mut banner).await, Ok(1..)), "it is reset");
    assert_eq!(world.sink.connections(), 1);
}

/// The first bytes of a TLS client that asks for a name.
fn hello(name: &str) -> Vec<u8> {
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn an_opaque_connection_greets_its_own_host() {
    let world = World::start().await;
    world.judge.opaque.lock().unwrap().push("rawtls.ok.test".to_owned());
    for (name, passes) in [("rawtls.ok.test", true), ("RawTLS.ok.test", true), ("evil.test", false)]
    {
        world.sink.raw.lock().unwrap().clear();
        let mut stream = net::connect(&world, "rawtls.ok.test", 443).await;
        let mut banner = [0u8; 14];
        stream.read_exact(&mut banner).await.unwrap();
        let bytes = hello(name);
        for piece in bytes.chunks(40) {
            let _ = stream.write_all(piece).await;
        }
        let mut echo = vec![0u8; bytes.len()];
        let read = stream.read_exact(&mut echo).await;
        assert_eq!(read.is_ok(), passes, "{name}");
        assert_eq!(world.sink.raw.lock().unwrap().is_empty(), !passes, "{name}");
    }
}
