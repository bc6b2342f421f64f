//! Synthetic addresses: what a name resolves to inside a sandbox, and how it is found again.
//!
//! A name has the same addresses as long as the seed is the same; an address is never another
//! name's. The table is bounded and never forgets: a sandbox that wants more names is refused.

use crate::limits::NAMES_MAX;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use types::Digest;

/// Addresses in 198.18.0.0/15 but for its network and broadcast address.
const V4_ADDRESSES: u32 = (1 << 17) - 2;
const V4_FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);

/// The pair of addresses of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) v4: Ipv4Addr,
    pub(crate) v6: Ipv6Addr,
}

/// Names and their addresses in one sandbox.
#[derive(Debug)]
pub(crate) struct Synthetic {
    seed: [u8; 32],
    pairs: HashMap<Arc<str>, Pair>,
    names: HashMap<IpAddr, Arc<str>>,
}

impl Synthetic {
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { seed, pairs: HashMap::new(), names: HashMap::new() }
    }

    /// The addresses of a name; none when the table is full, or when an address would be another
    /// name's.
    pub(crate) fn of(&mut self, name: &Arc<str>) -> Option<Pair> {
        if let Some(pair) = self.pairs.get(name) {
            return Some(*pair);
        }
        if self.pairs.len() == NAMES_MAX {
            return None;
        }
        let digest = Digest::of_parts("bedplate synthetic address", &[&self.seed, name.as_bytes()]);
        let pair = Pair { v4: self.free_v4(&digest), v6: v6(&self.seed, &digest) };
        if self.names.contains_key(&IpAddr::V6(pair.v6)) {
            return None;
        }
        let before = self.names.insert(pair.v4.into(), Arc::clone(name));
        assert!(before.is_none(), "a free address has no name");
        self.names.insert(pair.v6.into(), Arc::clone(name));
        self.pairs.insert(Arc::clone(name), pair);
        Some(pair)
    }

    /// The name that has this address.
    pub(crate) fn name(&self, ip: IpAddr) -> Option<Arc<str>> {
        self.names.get(&ip.to_canonical()).cloned()
    }

    /// Whether an address can only be a synthetic one, of whatever sandbox.
    pub(crate) fn is_synthetic(&self, ip: IpAddr) -> bool {
        match ip.to_canonical() {
            IpAddr::V4(v4) => v4.octets()[0] == 198 && v4.octets()[1] & 0xfe == 18,
            IpAddr::V6(v6) => v6.octets()[0] == 0xfd,
        }
    }

    /// The first free address from where the digest points.
    fn free_v4(&self, digest: &Digest) -> Ipv4Addr {
        let start = u32::from_be_bytes([digest.0[0], digest.0[1], digest.0[2], digest.0[3]]);
        let tries = 0..V4_ADDRESSES;
        let candidates = tries
            .map(|step| Ipv4Addr::from(V4_FIRST + (start % V4_ADDRESSES + step) % V4_ADDRESSES));
        let mut free = candidates.filter(|v4| !self.names.contains_key(&IpAddr::V4(*v4)));
        free.next().expect("the range is far larger than the table")
    }
}

/// A unique local address: the network from the seed, the host from the name.
fn v6(seed: &[u8; 32], digest: &Digest) -> Ipv6Addr {
    let network = Digest::of_parts("bedplate synthetic network", &[seed]);
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    octets[1..8].copy_from_slice(&network.0[..7]);
    octets[8..].copy_from_slice(&digest.0[8..16]);
    octets.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn name(at: usize) -> Arc<str> {
        format!("n{at}.test").into()
    }

    #[test]
    fn addresses_are_stable_unique_and_found_again() {
        let mut table = Synthetic::new([7; 32]);
        let mut seen = HashSet::new();
        for at in 0..NAMES_MAX {
            let pair = table.of(&name(at)).unwrap();
            assert!(seen.insert(IpAddr::from(pair.v4)) && seen.insert(IpAddr::from(pair.v6)));
            assert!(table.is_synthetic(pair.v4.into()) && table.is_synthetic(pair.v6.into()));
            assert_eq!(table.name(pair.v6.into()), Some(name(at)));
        }
        assert_eq!(table.of(&name(NAMES_MAX)), None, "the table is full");
        let pair = table.of(&name(3)).unwrap();
        assert_eq!(table.name(pair.v4.into()), Some(name(3)));
        assert_eq!(table.name(pair.v4.to_ipv6_mapped().into()), Some(name(3)));
        assert_eq!(Synthetic::new([7; 32]).of(&name(0)), table.of(&name(0)));
        assert_ne!(Synthetic::new([8; 32]).of(&name(0)), table.of(&name(0)));
    }

    #[test]
    fn only_the_synthetic_ranges_are_synthetic() {
        let table = Synthetic::new([0; 32]);
        for (ip, expected) in [
            ("198.18.0.0", true),
            ("198.19.255.255", true),
            ("::ffff:198.18.0.1", true),
            ("198.17.255.255", false),
            ("198.20.0.0", false),
            ("fd00::1", true),
            ("fc00::1", false),
            ("2606:4700::1", false),
        ] {
            assert_eq!(table.is_synthetic(ip.parse().unwrap()), expected, "{ip}");
        }
    }
}
