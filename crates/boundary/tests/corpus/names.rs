//! N and D: names and addresses in forms that some reader takes for another.

use super::{Act, Case, End};

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

fn labels(name: &str) -> Vec<Vec<u8>> {
    name.split('.').map(|label| label.as_bytes().to_vec()).collect()
}

fn dns(name: &str, labels: Vec<Vec<u8>>, kind: u16, end: End) -> Case {
    let control = Act::Dns { labels: vec![b"OK".to_vec(), b"test".to_vec()], kind: A };
    Case { name: name.to_owned(), attack: Act::Dns { labels, kind }, end, control }
}

const NAMES: [(&str, &str, u16); 16] = [
    ("D1 data in a denied label", "c2VjcmV0.evil.test", A),
    ("D1 denied name, AAAA", "evil.test", AAAA),
    ("D4 TXT of a denied name", "evil.test", 16),
    ("D4 NULL of a denied name", "evil.test", 10),
    ("D4 HTTPS of a denied name", "evil.test", 65),
    ("D4 ANY of a denied name", "evil.test", 255),
    ("D14 suffix that looks permitted", "notok.test", A),
    ("D14 permitted name as a prefix", "ok.test.evil.test", A),
    ("N4 octal address as a name", "0177.0.0.1", A),
    ("N4 hexadecimal address as a name", "0x7f000001", A),
    ("N4 decimal address as a name", "2130706433", A),
    ("N4 short address as a name", "127.1", A),
    ("N4 address as a name", "127.0.0.1", A),
    ("N27 metadata by name", "metadata.google.internal", A),
    ("D4 reverse lookup", "1.0.0.10.in-addr.arpa", PTR),
    ("D4 reverse lookup of v6", "1.0.ip6.arpa", PTR),
];

/// Labels with bytes that a reader may cut at or fold.
const LABELS: [(&str, &[u8]); 11] = [
    ("D12 NUL in a label", b"evil\0"),
    ("D13 line feed in a label", b"a\nb"),
    ("D13 carriage return in a label", b"a\rb"),
    ("D13 tab in a label", b"a\tb"),
    ("D13 space in a label", b"a b"),
    ("D13 dot in a label", b"evil.test"),
    ("D13 percent in a label", b"a%2eb"),
    ("D13 at sign in a label", b"ok@evil"),
    ("D13 slash in a label", b"evil/"),
    ("D14 UTF-8 in a label", "b\u{fc}cher".as_bytes()),
    ("D14 full-width letters in a label", "\u{ff4f}\u{ff4b}".as_bytes()),
];

/// Literal addresses, dialled directly.
const ADDRESSES: [(&str, &str, u16, End); 17] = [
    ("N1 public address", "1.1.1.1", 80, End::Status(403)),
    ("N1 private address", "10.0.0.1", 80, End::Status(403)),
    ("N2 v6", "2606:4700::1111", 80, End::Status(403)),
    ("N2 private v6", "fc00::1", 80, End::Status(403)),
    ("N3 v4-mapped", "::ffff:10.0.0.1", 80, End::Status(403)),
    ("N3 NAT64", "64:ff9b::a9fe:a9fe", 80, End::Status(403)),
    ("N3 6to4", "2002:7f00:1::", 80, End::Status(403)),
    ("N6 port 0", "93.184.216.34", 0, End::Closed),
    ("N7 port 443 on UDP's address", "1.1.1.1", 443, End::Status(403)),
    ("N9 DoT", "1.1.1.1", 853, End::Status(403)),
    ("N21 loopback dialled through our socket", "127.0.0.1", 80, End::Closed),
    ("N21 v6 loopback", "::1", 80, End::Closed),
    ("N21 unspecified", "0.0.0.0", 80, End::Closed),
    ("N27 metadata v4", "169.254.169.254", 80, End::Status(403)),
    ("N27 metadata v6", "fd00:ec2::254", 80, End::Closed),
    ("N30 multicast", "224.0.0.1", 80, End::Closed),
    ("D15 synthetic address of no name", "198.18.7.7", 80, End::Closed),
];

/// Permitted names whose addresses nobody is taken to.
const REBOUND: [(&str, &str); 7] = [
    ("D6 rebinding to private", "private.ok.test"),
    ("D6 rebinding to loopback", "loopback.ok.test"),
    ("D6 rebinding to metadata", "metadata.ok.test"),
    ("D7 mixed public and private", "mixed.ok.test"),
    ("D8 v4-mapped loopback", "mapped.ok.test"),
    ("D8 NAT64 of private", "nat64.ok.test"),
    ("D10 name that does not exist", "nothing.ok.test"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, text, kind) in NAMES {
        cases.push(dns(name, labels(text), kind, End::Refused));
    }
    for (name, label) in LABELS {
        let labels = vec![label.to_vec(), b"ok".to_vec(), b"test".to_vec()];
        cases.push(dns(name, labels, A, End::Refused));
    }
    cases.push(dns("D4 TXT of a permitted name", labels("ok.test"), 16, End::Empty));
    cases.push(dns("D4 SVCB of a permitted name", labels("ok.test"), 64, End::Empty));
    let get = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    for (name, ip, port, end) in ADDRESSES {
        let attack = Act::HttpAt { ip, port, bytes: get("93.184.216.34") };
        let control = Act::HttpAt { ip: "93.184.216.34", port: 80, bytes: get("93.184.216.34") };
        cases.push(Case { name: name.to_owned(), attack, end, control });
    }
    for (name, host) in REBOUND {
        let attack = Act::Http { host, bytes: get(host) };
        let control = Act::Http { host: "ok.test", bytes: get("ok.test") };
        cases.push(Case { name: name.to_owned(), attack, end: End::Unreachable, control });
    }
    cases
}
