//! The network of a sandbox: everything outward arrives at listeners that are served outside.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use sandbox::layers::{LayerStore, Upper};
use sandbox::*;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

const HARNESS: &str = env!("CARGO_BIN_EXE_sandbox-harness");
const LIMIT: Duration = Duration::from_secs(20);

struct World {
    _home: tempfile::TempDir,
    spawner: Spawner,
    sandbox: SandboxId,
    _upper: Upper,
}

async fn world() -> (World, Listeners) {
    let home = tempfile::tempdir().unwrap();
    let store = LayerStore::open(home.path()).unwrap();
    let spawner = Spawner::start(Path::new(HARNESS), SpawnerConfig::default()).await.unwrap();
    let upper = store.begin(&store.empty().unwrap()).unwrap();
    let made = spawner.create_with_network(CreateSpec::new(upper.overlay())).await.unwrap();
    let (sandbox, listeners) = (made.0.id, made.1);
    (World { _home: home, spawner, sandbox, _upper: upper }, listeners)
}

impl World {
    /// What a Python program inside prints.
    async fn python(&self, program: &str) -> String {
        let program = format!("import socket, sys\nsocket.setdefaulttimeout(15)\n{program}");
        let spec = ExecSpec::new(["/usr/bin/python3", "-c", &program]);
        let running = self.spawner.exec(&self.sandbox, spec).await.unwrap();
        let done = tokio::time::timeout(LIMIT, running.finish()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(done.exit.ended, Ended::Code(0), "{}", text(&done.stderr));
        text(&done.stdout).trim().to_owned()
    }
}

/// Takes one connection, says where it was going, and sends its bytes back.
fn echo(listener: std::net::TcpListener) -> std::thread::JoinHandle<std::io::Result<SocketAddr>> {
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        let (mut connection, _): (TcpStream, _) = listener.accept().unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        let to = original_destination(&connection);
        let mut buffer = [0; 64];
        let count = connection.read(&mut buffer).unwrap();
        connection.write_all(&buffer[..count]).unwrap();
        to
    })
}

#[tokio::test]
async fn connections_outward_arrive_with_where_they_were_going() {
    let (world, listeners) = world().await;
    let [v4, v6] = listeners.tcp;
    for (listener, family, host, port) in
        [(v4, "AF_INET", "93.184.216.34", 443), (v6, "AF_INET6", "2606:2800:220::1", 80)]
    {
        let outside = echo(listener);
        let said = world
            .python(&format!(
                "s = socket.socket(socket.{family}, socket.SOCK_STREAM)\n\
                 s.connect(('{host}', {port})); s.sendall(b'hello'); print(s.recv(9).decode())\n\
                 print(s.getpeername()[0:2])"
            ))
            .await;
        assert_eq!(said, format!("hello\n('{host}', {port})"));
        let to = outside.join().unwrap().unwrap();
        assert_eq!(to, SocketAddr::new(host.parse().unwrap(), port));
    }
}

#[tokio::test]
async fn questions_for_names_arrive_whatever_server_is_asked() {
    let (world, listeners) = world().await;
    let servers = [
        (0, "AF_INET", "8.8.8.8"),
        (0, "AF_INET", "127.0.0.53"),
        (0, "AF_INET", "127.0.0.1"),
        (1, "AF_INET6", "2001:4860:4860::8888"),
        (1, "AF_INET6", "::1"),
    ];
    for (index, family, server) in servers {
        let socket = listeners.dns_udp[index].try_clone().unwrap();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        let outside = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            let (count, from) = socket.recv_from(&mut buffer).unwrap();
            socket.send_to(&buffer[..count], from).unwrap();
        });
        // A connected socket takes a reply only from whom it asked.
        let said = world
            .python(&format!(
                "s = socket.socket(socket.{family}, socket.SOCK_DGRAM)\n\
                 s.connect(('{server}', 53)); s.send(b'name?'); print(s.recv(9).decode())"
            ))
            .await;
        assert_eq!(said, "name?", "{server}");
        outside.join().unwrap();
    }
    let outside = echo(listeners.dns_tcp[0].try_clone().unwrap());
    let said = world
        .python(
            "s = socket.create_connection(('9.9.9.9', 53)); s.sendall(b'tcp'); \
             print(s.recv(9).decode())",
        )
        .await;
    assert_eq!(said, "tcp");
    assert_eq!(outside.join().unwrap().unwrap(), "9.9.9.9:53".parse().unwrap());
}

#[tokio::test]
async fn what_is_neither_is_refused_at_once_and_loopback_is_its_own() {
    let (world, listeners) = world().await;
    let said = world
        .python(
            "def udp(family, to):\n\
             \x20   s = socket.socket(family, socket.SOCK_DGRAM); s.connect(to)\n\
             \x20   try:\n\
             \x20       s.send(b'x'); s.settimeout(5); s.recv(1); return 'answered'\n\
             \x20   except PermissionError: return 'refused'\n\
             \x20   except OSError as e: return 'refused' if e.errno in (111, 113, 13) else repr(e)\n\
             print(udp(socket.AF_INET, ('1.2.3.4', 443)), udp(socket.AF_INET6, ('2606::1', 123)))\n\
             l = socket.create_server(('127.0.0.1', 0))\n\
             c = socket.create_connection(l.getsockname()); p, _ = l.accept()\n\
             p.send(b'own'); print(c.recv(9).decode())\n\
             l = socket.create_server(('::1', 0), family=socket.AF_INET6)\n\
             c = socket.create_connection(l.getsockname()[0:2]); p, _ = l.accept()\n\
             p.send(b'six'); print(c.recv(9).decode())",
        )
        .await;
    assert_eq!(said, "refused refused\nown\nsix");
    // A connection to the listener itself was redirected from nowhere.
    let outside = echo(listeners.tcp[0].try_clone().unwrap());
    world
        .python(&format!(
            "s = socket.create_connection(('127.0.0.1', {TCP_PORT})); s.sendall(b'x'); s.recv(1)"
        ))
        .await;
    let own = SocketAddr::from((Ipv4Addr::LOCALHOST, TCP_PORT));
    let found = outside.join().unwrap();
    assert!(found.as_ref().is_err() || found.as_ref().is_ok_and(|to| *to == own), "{found:?}");
}

#[tokio::test]
async fn with_nobody_listening_every_connection_is_refused() {
    let (world, listeners) = world().await;
    drop(listeners);
    let said = world
        .python(
            "try: socket.create_connection(('93.184.216.34', 443)); print('open')\n\
             except ConnectionRefusedError: print('refused')",
        )
        .await;
    assert_eq!(said, "refused");
}
