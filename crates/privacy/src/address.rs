//! Addresses of machines: IPv4, IPv6, hardware.
//!
//! Loopback, unspecified and broadcast addresses say nothing about anyone and are not reported;
//! private ones are, for they describe a network from within.

use crate::detect::Found;
use crate::kind::{Confidence, Kind};
use crate::work;
use std::net::{IpAddr, Ipv4Addr};

/// Longest text of an IPv6 address with an IPv4 one at its end.
const IPV6_BYTES_MAX: usize = 45;
const MAC_BYTES: usize = 17;

/// Adds the address around the `:` at `at`, if there is one; returns the end of what was read.
pub(crate) fn colons(text: &str, at: usize, found: &mut Found) -> usize {
    let bytes = text.as_bytes();
    let belongs = |b: &u8| b.is_ascii_hexdigit() || *b == b':';
    let before = bytes[..at].iter().rev().take(IPV6_BYTES_MAX).take_while(|b| belongs(b)).count();
    let start = at - before;
    let after = bytes[at..].iter().take(IPV6_BYTES_MAX);
    let mut end = at + after.take_while(|b| belongs(b) || **b == b'.').count();
    let read = end;
    work::add(end - start);
    while end > at && matches!(bytes[end - 1], b'.') {
        end -= 1;
    }
    let letter = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    let alone =
        !letter(start.checked_sub(1).and_then(|at| bytes.get(at))) && !letter(bytes.get(end));
    // `address:port` and a sentence's colon leave one at the end.
    let trimmed = if end > start + 2 && bytes[end - 1] == b':' && bytes[end - 2] != b':' {
        end - 1
    } else {
        end
    };
    let token = &text[start..trimmed];
    if !alone || end - start < 6 {
        return read;
    }
    if token.len() == MAC_BYTES && is_mac(token.as_bytes(), b':') {
        found.add(start, trimmed, Kind::Mac, Confidence::Certain);
    } else if is_ipv6(token) {
        found.add(start, trimmed, Kind::Ipv6, Confidence::Certain);
    }
    read
}

/// The unicast ranges: `ab::cd` in a program's text is a path far more often than an address.
fn is_ipv6(token: &str) -> bool {
    let Ok(IpAddr::V6(address)) = token.parse() else { return false };
    let first = address.segments()[0];
    let mapped = address.to_ipv4_mapped().is_some_and(is_ipv4);
    let unicast = matches!(first, 0x2000..=0x3fff | 0xfc00..=0xfdff | 0xfe80..=0xfebf);
    mapped || first == 0x64 || (unicast && token.find(':') == Some(4))
}

pub(crate) fn is_ipv4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && !address.is_loopback() && !address.is_broadcast()
}

/// Adds the hardware address with dashes around the two characters at `at`.
pub(crate) fn dashes(text: &str, at: usize, found: &mut Found) -> Option<usize> {
    let bytes = text.as_bytes();
    for back in 0..6 {
        let start = at.checked_sub(back * 3)?;
        let end = start + MAC_BYTES;
        if bytes.len() < end || !is_mac(&bytes[start..end], b'-') {
            continue;
        }
        let letter = |at: Option<usize>| {
            at.and_then(|at| bytes.get(at)).is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'-')
        };
        if !letter(start.checked_sub(1)) && !letter(Some(end)) {
            found.add(start, end, Kind::Mac, Confidence::Certain);
            return Some(end);
        }
    }
    None
}

fn is_mac(token: &[u8], separator: u8) -> bool {
    let shape = token.iter().enumerate().all(|(at, b)| match at % 3 {
        2 => *b == separator,
        _ => b.is_ascii_hexdigit(),
    });
    let digits = || token.iter().filter(|b| **b != separator);
    shape && !digits().all(|b| *b == b'0') && !digits().all(|b| b.eq_ignore_ascii_case(&b'f'))
}
