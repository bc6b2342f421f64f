//! A provider on loopback that misbehaves as told: a port that stays ours, and replies in order.

use rustix::net::{AddressFamily, SocketAddrAny, SocketType, sockopt};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A port of this test alone. Nobody answers there until it is served.
#[derive(Debug)]
pub(crate) struct Port {
    /// Bound and never listening: connecting is refused, and nobody else is given the port.
    _held: OwnedFd,
    address: SocketAddr,
}

/// What one request gets.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// These bytes, then the end of the connection.
    Once(Vec<u8>),
    /// The same, and the server is gone before they are on their way.
    Last(Vec<u8>),
    /// The same for every request from here on.
    Always(Vec<u8>),
}

/// Answers until it is dropped or was told to go.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None);
        let socket = socket.expect("a socket");
        sockopt::set_socket_reuseaddr(&socket, true).expect("set");
        let any = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);
        rustix::net::bind(&socket, &any).expect("bound");
        let bound: SocketAddrAny = rustix::net::getsockname(&socket).expect("bound");
        let address = SocketAddr::try_from(bound).expect("an address");
        Self { _held: socket, address }
    }

    /// The provider's table of a manifest, and nothing after it.
    pub(crate) fn provider(&self) -> String {
        format!(
            "[providers.local]\ndialect = \"chat\"\nbase_url = \"http://{}/v1\"\ntimeout = \"10s\"\n",
            self.address
        )
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn serve(&self, replies: Vec<Reply>) -> Server {
        let listener = TcpListener::bind(self.address).expect("the port is ours");
        let stopped = Arc::new(AtomicBool::new(false));
        let requests = Arc::new(AtomicUsize::new(0));
        let (stop, count) = (Arc::clone(&stopped), Arc::clone(&requests));
        let thread = std::thread::spawn(move || answer(listener, replies, &stop, &count));
        Server { address: self.address, stopped, requests, thread: Some(thread) }
    }
}

impl Server {
    /// Requests that came.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A provider on a port of its own that keeps what it gets and answers as a function says, given
/// the number of the request, from 0, and its body. Answers until the test is over.
#[derive(Debug)]
pub(crate) struct Echo {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Echo {
    pub(crate) fn start(reply: impl Fn(usize, &str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&seen);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let request = read_request(&mut stream);
                let text = String::from_utf8_lossy(&request).into_owned();
                let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
                let number = notes.lock().expect("no panic holds it").len();
                let reply = reply(number, &body);
                notes.lock().expect("no panic holds it").push(text);
                let _ = stream.write_all(&reply);
            }
        });
        Self { address, seen }
    }

    /// The provider's table of a manifest, under this name.
    pub(crate) fn provider(&self, name: &str) -> String {
        let address = self.address;
        format!("[providers.{name}]\ndialect = \"chat\"\nbase_url = \"http://{address}/v1\"\n")
    }

    /// Every request as it came, header and body.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.seen.lock().expect("no panic holds it").clone()
    }
}

fn answer(
    listener: TcpListener,
    replies: Vec<Reply>,
    stopped: &AtomicBool,
    requests: &AtomicUsize,
) {
    let mut listener = Some(listener);
    let mut replies = replies.into_iter().peekable();
    while let (Some(open), Some(next)) = (&listener, replies.peek()) {
        let (mut stream, _) = open.accept().expect("a client");
        if stopped.load(Ordering::SeqCst) {
            return;
        }
        read_request(&mut stream);
        requests.fetch_add(1, Ordering::SeqCst);
        let (Reply::Once(bytes) | Reply::Last(bytes) | Reply::Always(bytes)) = next.clone();
        match next {
            Reply::Always(_) => {}
            Reply::Once(_) => drop(replies.next()),
            Reply::Last(_) => listener = None,
        }
        // A client that has had enough hangs up.
        let _ = stream.write_all(&bytes);
    }
}

/// Header and as many bytes as it says.
fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut seen = Vec::new();
    let mut buffer = [0u8; 4096];
    loop {
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length =
                text.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let length: usize = length.and_then(|length| length.parse().ok()).unwrap_or(0);
            if seen.len() >= end + 4 + length {
                return seen;
            }
        }
        match stream.read(&mut buffer) {
            Ok(count @ 1..) => seen.extend_from_slice(&buffer[..count]),
            _ => return seen,
        }
    }
}

/// A whole reply: status, more header lines, body.
pub(crate) fn reply(status: &str, header: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{header}\r\n{body}").into_bytes()
}

/// A stream of these events, as it comes.
pub(crate) fn stream(events: &[serde_json::Value]) -> Vec<u8> {
    let mut body = String::new();
    for event in events {
        body.push_str(&format!("data: {event}\n\n"));
    }
    body.push_str("data: [DONE]\n\n");
    reply("200 OK", "content-type: text/event-stream\r\n", &body)
}

/// An answer that only speaks.
pub(crate) fn says(text: &str) -> Vec<u8> {
    stream(&[
        serde_json::json!({"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}]}),
        serde_json::json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    ])
}

/// An answer that calls `shell`.
pub(crate) fn calls_shell(command: &str) -> Vec<u8> {
    let arguments = serde_json::json!({ "command": command }).to_string();
    let call = serde_json::json!({
        "index": 0, "id": "call_1", "type": "function",
        "function": {"name": "shell", "arguments": arguments},
    });
    stream(&[
        serde_json::json!({"choices": [{"index": 0, "delta": {"role": "assistant", "tool_calls": [call]}}]}),
        serde_json::json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}),
    ])
}
