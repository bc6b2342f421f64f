//! DNS inside a sandbox: answered from the judge and the table, never from a resolver.
//!
//! A name has addresses when some rule may permit it, and nothing is asked of anyone else. What is
//! refused leaves no trace of its labels. No answer carries anything of the world's.

use crate::boundary::Inner;
use crate::host;
use crate::limits::{
    DNS_ASKS_MAX, DNS_CONNECTION_ASKS_MAX, DNS_CONNECTIONS_MAX, DNS_PER_SECOND_MAX, DNS_TTL_S,
    DNS_UDP_BYTES_MAX, FIRST_BYTES_MS_MAX,
};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// How many questions may still be asked in this second.
#[derive(Debug)]
pub(crate) struct Rate {
    window: Mutex<(Option<Instant>, u32)>,
}

impl Rate {
    pub(crate) const fn new() -> Self {
        Self { window: Mutex::new((None, 0)) }
    }

    /// Whether one more is within the limit.
    fn take(&self) -> bool {
        let now = Instant::now();
        let mut window = self.window.lock().expect("nothing panics while it is held");
        let fresh = window.0.is_none_or(|start| now - start >= Duration::from_secs(1));
        if fresh {
            *window = (Some(now), 0);
        }
        window.1 = window.1.saturating_add(1);
        window.1 <= DNS_PER_SECOND_MAX
    }
}

/// Answers over UDP until the socket fails or the task is dropped.
pub(crate) async fn serve_udp(inner: Arc<Inner>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    let permits = Arc::new(Semaphore::new(DNS_ASKS_MAX));
    let mut buffer = vec![0u8; DNS_UDP_BYTES_MAX + 1];
    while let Ok((bytes, peer)) = socket.recv_from(&mut buffer).await {
        let too_long = bytes > DNS_UDP_BYTES_MAX;
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        if too_long || !inner.dns_rate.take() {
            continue;
        }
        let (inner, socket) = (Arc::clone(&inner), Arc::clone(&socket));
        let query = buffer[..bytes].to_vec();
        tokio::spawn(async move {
            let gone = inner.closing.closed();
            tokio::select! {
                () = gone => {}
                answer = answer(&inner, &query) => if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, peer).await;
                },
            }
            drop(permit);
        });
    }
}

/// Answers over TCP until the listener fails or the task is dropped.
pub(crate) async fn serve_tcp(inner: Arc<Inner>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(DNS_CONNECTIONS_MAX));
    while let Ok((stream, _)) = listener.accept().await {
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
        let inner = Arc::clone(&inner);
        tokio::spawn(async move {
            tokio::select! {
                () = inner.closing.closed() => {}
                _ = serve_connection(&inner, stream) => {}
            }
            drop(permit);
        });
    }
}

async fn serve_connection(inner: &Inner, mut stream: TcpStream) -> std::io::Result<()> {
    let wait = Duration::from_millis(FIRST_BYTES_MS_MAX);
    for _ in 0..DNS_CONNECTION_ASKS_MAX {
        let bytes = tokio::time::timeout(wait, stream.read_u16()).await??;
        let mut query = vec![0u8; usize::from(bytes)];
        tokio::time::timeout(wait, stream.read_exact(&mut query)).await??;
        if !inner.dns_rate.take() {
            break;
        }
        let Some(answer) = answer(inner, &query).await else { break };
        let length = u16::try_from(answer.len()).map_err(std::io::Error::other)?;
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}

/// The answer to one message; none when it deserves none.
pub(crate) async fn answer(inner: &Inner, bytes: &[u8]) -> Option<Vec<u8>> {
    let query = match Message::from_vec(bytes) {
        Ok(query) => query,
        Err(_) => return malformed(bytes),
    };
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(u16::try_from(DNS_UDP_BYTES_MAX).unwrap_or(u16::MAX));
        reply.set_edns(edns);
    }
    reply.metadata.response_code = if query.metadata.op_code != OpCode::Query {
        ResponseCode::NotImp
    } else if let [question] = query.queries.as_slice() {
        reply.add_query(question.clone());
        let (code, records) = judge(inner, question).await;
        reply.add_answers(records);
        code
    } else {
        ResponseCode::FormErr
    };
    reply.to_vec().ok()
}

/// A format error for what has at least the head of a question.
fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let (id, flags) = (bytes.get(..2)?, *bytes.get(2)?);
    if bytes.len() < 12 || flags & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([id[0], id[1]]);
    Message::error_msg(id, OpCode::Query, ResponseCode::FormErr).to_vec().ok()
}

async fn judge(inner: &Inner, question: &Query) -> (ResponseCode, Vec<Record>) {
    let refused = (ResponseCode::Refused, Vec::new());
    let Some(name) = text_of(&question.name).and_then(|text| host::name(&text)) else {
        return refused;
    };
    let reverse = name.ends_with(".arpa") || &*name == "arpa";
    if reverse || question.query_class != DNSClass::IN {
        return refused;
    }
    let record = |data| vec![Record::from_rdata(question.name.clone(), DNS_TTL_S, data)];
    if &*name == "localhost" || name.ends_with(".localhost") {
        let records = match question.query_type {
            RecordType::A => record(RData::A(A(Ipv4Addr::LOCALHOST))),
            RecordType::AAAA => record(RData::AAAA(AAAA(Ipv6Addr::LOCALHOST))),
            _ => Vec::new(),
        };
        return (ResponseCode::NoError, records);
    }
    if !inner.is_models(&name) && !inner.judge.name(&name).await {
        return refused;
    }
    let pair = inner.synthetic.lock().expect("nothing panics while it is held").of(&name);
    let Some(pair) = pair else { return (ResponseCode::ServFail, Vec::new()) };
    let records = match question.query_type {
        RecordType::A => record(RData::A(A(pair.v4))),
        RecordType::AAAA => record(RData::AAAA(AAAA(pair.v6))),
        _ => Vec::new(),
    };
    (ResponseCode::NoError, records)
}

/// The labels as text, exactly as they came; none when a byte would need an escape.
fn text_of(name: &Name) -> Option<String> {
    let mut text = String::new();
    for label in name {
        let plain = label.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if !plain {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(std::str::from_utf8(label).ok()?);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn questions_have_a_rate_at_its_edge() {
        let rate = Rate::new();
        assert!((0..DNS_PER_SECOND_MAX).all(|_| rate.take()));
        assert!(!rate.take());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(rate.take());
    }
}
