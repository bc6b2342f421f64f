//! The interception authority of one sandbox: its key never leaves this process.
//!
//! Each sandbox has its own, so that what one trusts says nothing to another. A leaf is made for a
//! name when a program first greets it; leaves share one key and are bounded in number.

use crate::boundary::{Clock, Config};
use crate::error::BoundaryError;
use crate::host::Host;
use crate::limits::LEAVES_MAX;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use types::Digest;
use zeroize::Zeroizing;

/// Days for which the authority vouches for itself.
const AUTHORITY_DAYS: u64 = 800;
/// Days for which a leaf is good; it is made again when half of them are over.
const LEAF_DAYS: u64 = 30;
const DAY_S: u64 = 86_400;

/// A leaf, ready to serve.
#[derive(Clone)]
struct Leaf {
    config: Arc<ServerConfig>,
    made_s: u64,
}

#[derive(Default)]
struct Leaves {
    by_host: HashMap<String, Leaf>,
    order: VecDeque<String>,
}

/// Signs for one sandbox.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pem: String,
    leaf_key: KeyPair,
    clock: Clock,
    leaves: Mutex<Leaves>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

fn failed(error: impl fmt::Display) -> BoundaryError {
    BoundaryError::Authority(error.to_string())
}

impl Authority {
    pub(crate) fn new(config: &Config) -> Result<Self, BoundaryError> {
        let key = match &config.authority {
            Some(der) => {
                let der = PrivatePkcs8KeyDer::from(der.as_slice());
                KeyPair::try_from(&der).map_err(failed)?
            }
            None => KeyPair::generate().map_err(failed)?,
        };
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let id = Digest::of(key.public_key_raw());
        params.distinguished_name = named(&format!("Bedplate sandbox {}", id.short()));
        params.serial_number = Some(serial(&[key.public_key_raw()]));
        validity(&mut params, (config.clock)(), AUTHORITY_DAYS);
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(failed)?;
        let (pem, leaf_key) = (issuer.pem(), KeyPair::generate().map_err(failed)?);
        let (clock, leaves) = (Arc::clone(&config.clock), Mutex::default());
        Ok(Self { issuer, pem, leaf_key, clock, leaves })
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    /// Its key, in PKCS #8.
    pub(crate) fn key(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.issuer.key().serialize_der())
    }

    /// What serves TLS as this host.
    pub(crate) fn server(&self, host: &Host) -> Result<Arc<ServerConfig>, BoundaryError> {
        let (text, now_s) = (host.to_string(), (self.clock)());
        let mut leaves = self.leaves.lock().expect("nothing panics while it is held");
        let fresh = |leaf: &&Leaf| now_s < leaf.made_s + LEAF_DAYS * DAY_S / 2;
        if let Some(leaf) = leaves.by_host.get(&text).filter(fresh) {
            return Ok(Arc::clone(&leaf.config));
        }
        let config = Arc::new(self.make(host, now_s)?);
        let leaf = Leaf { config: Arc::clone(&config), made_s: now_s };
        if leaves.by_host.insert(text.clone(), leaf).is_none() {
            leaves.order.push_back(text);
            if leaves.order.len() > LEAVES_MAX {
                let oldest = leaves.order.pop_front().expect("it is not empty");
                leaves.by_host.remove(&oldest);
            }
        }
        Ok(config)
    }

    fn make(&self, host: &Host, now_s: u64) -> Result<ServerConfig, BoundaryError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = named("Bedplate leaf");
        params.subject_alt_names = vec![match host {
            Host::Ip(ip) => SanType::IpAddress(*ip),
            Host::Name(name) => SanType::DnsName(name.as_ref().try_into().map_err(failed)?),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let text = host.to_string();
        params.serial_number = Some(serial(&[
            self.issuer.key().public_key_raw(),
            text.as_bytes(),
            &now_s.to_be_bytes(),
        ]));
        validity(&mut params, now_s, LEAF_DAYS);
        let leaf = params.signed_by(&self.leaf_key, &self.issuer).map_err(failed)?;
        let chain = vec![leaf.der().clone(), self.issuer.der().clone()];
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(failed)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Nothing of one connection is good for another.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// A serial number that no two certificates share.
fn serial(parts: &[&[u8]]) -> SerialNumber {
    let digest = Digest::of_parts("bedplate certificate serial", parts);
    let mut bytes = digest.0[..16].to_vec();
    // Positive, and without a leading zero.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&bytes)
}

/// Good from the day before, because clocks differ.
fn validity(params: &mut CertificateParams, now_s: u64, days: u64) {
    let today = now_s / DAY_S;
    let date = |day: u64| {
        let (year, month, day) = civil(day);
        date_time_ymd(year, month, day)
    };
    params.not_before = date(today.saturating_sub(1));
    params.not_after = date(today + days);
}

/// Year, month and day of a day since 1970.
pub(crate) fn civil(days: u64) -> (i32, u8, u8) {
    // Counted from 1 March 0000, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (i32::try_from(year).unwrap_or(9999), month as u8, day as u8)
}

/// The address in a host, if it is one.
pub(crate) fn ip_of(host: &Host) -> Option<IpAddr> {
    match host {
        Host::Ip(ip) => Some(*ip),
        Host::Name(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn authority() -> Authority {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = Config {
            resolve: BTreeMap::new(),
            nameservers: Vec::new(),
            roots: Vec::new(),
            seed: [0; 32],
            clock: Arc::new(|| 1_800_000_000),
            authority: None,
            body_bytes: 0,
            as_of: BTreeMap::new(),
            keep: false,
            models: None,
        };
        Authority::new(&config).unwrap()
    }

    #[test]
    fn days_have_dates() {
        for (days, expected) in [
            (0, (1970, 1, 1)),
            (58, (1970, 2, 28)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_818, (2026, 12, 31)),
            (20_819, (2027, 1, 1)),
        ] {
            assert_eq!(civil(days), expected);
        }
    }

    #[test]
    fn no_two_sandboxes_share_an_authority() {
        let (one, two) = (authority(), authority());
        assert_ne!(one.pem(), two.pem());
        assert!(one.pem().starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!one.pem().contains("PRIVATE"));
    }

    #[test]
    fn leaves_are_kept_up_to_their_limit() {
        let authority = authority();
        let host = |at: usize| Host::parse(&format!("n{at}.test")).unwrap();
        let first = authority.server(&host(0)).unwrap();
        for at in 1..LEAVES_MAX {
            authority.server(&host(at)).unwrap();
        }
        assert!(Arc::ptr_eq(&first, &authority.server(&host(0)).unwrap()));
        authority.server(&host(LEAVES_MAX)).unwrap();
        assert!(!Arc::ptr_eq(&first, &authority.server(&host(0)).unwrap()));
        assert_eq!(authority.leaves.lock().unwrap().by_host.len(), LEAVES_MAX);
    }
}
