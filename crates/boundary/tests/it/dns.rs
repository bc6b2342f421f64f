//! Names: who has an address inside, and that nobody outside hears of it.

use crate::net;
use crate::world::World;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_permitted_name_has_the_same_synthetic_addresses_every_time() {
    let world = World::start().await;
    let one = net::resolve(&world, "a.ok.test.").await.unwrap();
    let two = net::resolve(&world, "A.oK.tEsT.").await.unwrap();
    let other = net::resolve(&world, "b.ok.test.").await.unwrap();
    assert_eq!(one, two);
    assert_ne!(one, other);
    let v6 = net::ask(&world, "a.ok.test.", RecordType::AAAA).await;
    assert!(matches!(v6.answers[0].data, RData::AAAA(aaaa) if aaaa.0.octets()[0] == 0xfd));
    assert!(v6.answers[0].ttl <= boundary::limits::DNS_TTL_S);
    assert_eq!(world.witness(), (0, 0, 0), "nobody outside was asked");
}

#[tokio::test]
async fn a_denied_name_is_refused_and_no_resolver_hears_of_it() {
    let world = World::start().await;
    for kind in [RecordType::A, RecordType::AAAA, RecordType::TXT] {
        let reply = net::ask(&world, "c2VjcmV0.evil.test.", kind).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
        assert!(reply.answers.is_empty());
    }
    assert_eq!(world.witness(), (0, 0, 0));
    assert_eq!(world.judge.seen.lock().unwrap().names, ["c2vjcmv0.evil.test"; 3]);
}

#[tokio::test]
async fn localhost_is_the_sandboxs_own_and_needs_no_judge() {
    let world = World::start().await;
    for name in ["localhost.", "db.localhost."] {
        let reply = net::ask(&world, name, RecordType::A).await;
        assert!(matches!(reply.answers[0].data, RData::A(a) if a.0 == Ipv4Addr::LOCALHOST));
        let reply = net::ask(&world, name, RecordType::AAAA).await;
        assert!(matches!(reply.answers[0].data, RData::AAAA(a) if a.0.is_loopback()));
    }
    assert!(world.judge.seen.lock().unwrap().names.is_empty());
}

#[tokio::test]
async fn questions_come_over_tcp_too() {
    let world = World::start().await;
    let mut query = Message::new(9, MessageType::Query, OpCode::Query);
    query.add_query(Query::query(Name::from_ascii("ok.test.").unwrap(), RecordType::A));
    let bytes = query.to_vec().unwrap();
    let mut stream = TcpStream::connect(world.dns_tcp).await.unwrap();
    for _ in 0..boundary::limits::DNS_CONNECTION_ASKS_MAX {
        stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(Message::from_vec(&reply).unwrap().answers.len(), 1);
    }
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    assert!(stream.read_u16().await.is_err(), "a connection has its share");
}

#[tokio::test]
async fn what_is_no_question_gets_no_answer_or_an_error() {
    let world = World::start().await;
    let broken = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63, b'x'];
    let reply = Message::from_vec(&net::exchange_udp(&world, &broken).await.unwrap()).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    let mut none = Message::new(7, MessageType::Query, OpCode::Query);
    let reply = net::exchange_udp(&world, &none.to_vec().unwrap()).await.unwrap();
    assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, ResponseCode::FormErr);
    none.metadata.op_code = OpCode::Update;
    let reply = net::exchange_udp(&world, &none.to_vec().unwrap()).await.unwrap();
    assert_eq!(Message::from_vec(&reply).unwrap().metadata.response_code, ResponseCode::NotImp);
}
