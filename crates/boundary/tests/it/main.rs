//! The boundary on loopback: a judge that records what it is asked, an upstream that records what
//! it gets, a name server that records what is looked up, and programs that send raw bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod age;
mod careless;
mod codes;
mod corpus;
mod dns;
mod endpoint;
mod http1;
mod http2;
mod judge;
mod limits;
mod net;
mod secrets;
mod sink;
mod standing;
mod tls;
mod websocket;
mod world;
