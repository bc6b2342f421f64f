//! Each code of the boundary, and what it stands for.

use boundary::{Boundary, BoundaryError, Config, Denial, Listeners};
use std::sync::Arc;
use types::Coded;

#[test]
fn every_error_has_its_code_and_a_next_step() {
    let denial = Denial { code: "BP-POLICY-001".into(), message: "no rule".into(), approval: None };
    for (error, code) in [
        (BoundaryError::Authority("x".into()), "BP-BOUNDARY-001"),
        (BoundaryError::Config("x".into()), "BP-BOUNDARY-002"),
        (BoundaryError::Framing("x"), "BP-BOUNDARY-003"),
        (BoundaryError::Misdirected, "BP-BOUNDARY-004"),
        (BoundaryError::Path("x"), "BP-BOUNDARY-005"),
        (BoundaryError::Kind("x"), "BP-BOUNDARY-006"),
        (BoundaryError::Body("x"), "BP-BOUNDARY-007"),
        (BoundaryError::Unreachable("x"), "BP-BOUNDARY-008"),
        (BoundaryError::Upstream("x".into()), "BP-BOUNDARY-009"),
        (BoundaryError::Limit("x"), "BP-BOUNDARY-010"),
        (BoundaryError::Secret("x"), "BP-BOUNDARY-011"),
        (BoundaryError::Denied(denial), "BP-BOUNDARY-012"),
        (BoundaryError::Revoked, "BP-BOUNDARY-013"),
    ] {
        assert_eq!(error.code(), code);
        assert!(!error.next().is_empty() && !error.to_string().is_empty());
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_refused() {
    let config = |name: &str, body_bytes| Config {
        resolve: [(name.to_owned(), "127.0.0.1:1".parse().unwrap())].into(),
        nameservers: Vec::new(),
        roots: Vec::new(),
        seed: [0; 32],
        clock: Arc::new(crate::net::now_s),
        authority: None,
        body_bytes,
        as_of: std::collections::BTreeMap::new(),
        keep: false,
        models: None,
    };
    let start = |config| {
        let judge = Arc::new(crate::judge::Fake::default());
        let original =
            Arc::new(|_: &tokio::net::TcpStream| Err(std::io::ErrorKind::NotFound.into()));
        Boundary::start(config, judge, original, Listeners::default()).map(|_| ())
    };
    let limit = boundary::limits::BODY_BYTES_MAX;
    assert_eq!(start(config("a.test", limit)), Ok(()));
    for bad in [
        config("A.test", limit),
        config("a test", limit),
        config("127.1", limit),
        config("a.test", limit + 1),
    ] {
        assert_eq!(start(bad).unwrap_err().code(), "BP-BOUNDARY-002");
    }
}
