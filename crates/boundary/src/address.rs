//! Which addresses nobody in a sandbox is taken to, whatever a name resolves to.
//!
//! Only the public Internet is left. An address that carries another inside (NAT64, 6to4) is as
//! good as the one inside.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why this address is not dialled; none if it may be.
#[must_use]
pub fn barred(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        IpAddr::V4(v4) => barred_v4(v4),
        IpAddr::V6(v6) => barred_v6(v6),
    }
}

fn barred_v4(ip: Ipv4Addr) -> Option<&'static str> {
    match ip.octets() {
        [0, ..] => Some("an unspecified address"),
        [127, ..] => Some("a loopback address"),
        [10, ..] | [192, 168, ..] => Some("a private address"),
        [172, b, ..] if b & 0xf0 == 16 => Some("a private address"),
        [100, b, ..] if b & 0xc0 == 64 => Some("a carrier's private address"),
        [169, 254, ..] => Some("a link-local address"),
        [168, 63, 129, 16] => Some("a cloud's metadata address"),
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [192, 88, 99, _] => {
            Some("a reserved address")
        }
        [198, 18 | 19, ..] => Some("a synthetic address"),
        [224..=239, ..] => Some("a multicast address"),
        [240..=255, ..] => Some("a reserved address"),
        _ => None,
    }
}

fn barred_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    let inner = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        barred_v4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        [0x2002, high, low, ..] => inner(high, low),
        [0xfc00..=0xfdff, ..] => Some("a private address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        // Protocol assignments, Teredo among them, and documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] => Some("a reserved address"),
        [0x3fff, b, ..] if b & 0xf000 == 0 => Some("a reserved address"),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_left() {
        for text in [
            "1.1.1.1",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.1.1",
            "223.255.255.255",
            "198.17.0.1",
            "198.20.0.1",
            "2606:4700::1",
            "64:ff9b::101:101",
            "2002:101:101::1",
            "::ffff:1.1.1.1",
            "2001:200::1",
        ] {
            assert_eq!(barred(text.parse().unwrap()), None, "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "100.100.100.200",
            "169.254.169.254",
            "168.63.129.16",
            "192.0.0.192",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001:0:1::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
        ] {
            assert!(barred(text.parse().unwrap()).is_some(), "{text}");
        }
    }
}
