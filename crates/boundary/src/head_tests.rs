use super::*;
use proptest::prelude::*;

fn run(bytes: &[u8], step: usize) -> Result<Vec<u8>, (Ambiguity, bool)> {
    let (mut guard, mut out) = (Guard::new(), Vec::new());
    for piece in bytes.chunks(step) {
        guard.feed(piece, &mut out)?;
    }
    Ok(out)
}

#[track_caller]
fn passes(text: &str) {
    for step in [1, 7, usize::MAX] {
        assert_eq!(run(text.as_bytes(), step).as_deref(), Ok(text.as_bytes()), "{text:?}");
    }
}

#[track_caller]
fn refused(bytes: &[u8], in_head: bool) {
    for step in [1, usize::MAX] {
        let got = run(bytes, step).map_err(|(_, head)| head);
        assert_eq!(got, Err(in_head), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn plain_requests_pass_unchanged() {
    passes("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    passes("GET / HTTP/1.0\r\nHost: a\r\n\r\nHEAD /b HTTP/1.1\r\nhost:a\r\nX-Y:\t z \r\n\r\n");
    passes(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n\n\r\0GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    passes(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    passes(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\n\0\n\r\r\n0a\r\n0123456789\r\n\
         0\r\nX-Sum: 1\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    );
}

#[test]
fn ambiguous_heads_do_not_pass() {
    let get = |headers: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n").into_bytes();
    for headers in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: 1\r\nContent-Length: 1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: +1\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x1\r\n",
        "Content-Length: \r\n",
        "Content-Length: 1000000000000000000\r\n",
        "Content_Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tb\r\n",
        " X: a\r\n",
        "X : a\r\n",
        "X\r\n",
        ": a\r\n",
        "X: a\nY: b\r\n",
        "X: a\rY: b\r\n",
        "X: a\0b\r\n",
        "X: a\x7fb\r\n",
        "Host: b\r\n",
    ] {
        refused(&get(headers), true);
    }
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.12\r\nHost: a\r\n\r\n",
        "get / HTTP/1.1\r\nHost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\u{fc} HTTP/1.1\r\nHost: a\r\n\r\n",
        "CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "BEDPLATE-REFUSED / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        refused(head.as_bytes(), true);
    }
}

#[test]
fn ambiguous_chunks_do_not_pass() {
    for body in [
        "1;x=y\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        " 1\r\na\r\n0\r\n\r\n",
        "1 \r\na\r\n0\r\n\r\n",
        "\r\n",
        "1\na\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n",
        "10000000000000001\r\n",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\n folded\r\n\r\n",
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        refused(format!("{head}{body}").as_bytes(), false);
    }
}

#[test]
fn heads_have_limits_at_their_edge() {
    let of = |bytes: usize| {
        let fixed = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes - fixed))
    };
    passes(&of(HEAD_BYTES_MAX));
    refused(of(HEAD_BYTES_MAX + 1).as_bytes(), true);
    let of =
        |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1));
    passes(&of(HEADERS_MAX));
    refused(of(HEADERS_MAX + 1).as_bytes(), true);
    let of = |bytes: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(bytes - 1));
    passes(&of(TARGET_BYTES_MAX));
    refused(of(TARGET_BYTES_MAX + 1).as_bytes(), true);
    let of = |bytes: usize| {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n";
        format!("{head}X: {}\r\n\r\n", "x".repeat(bytes - 7))
    };
    passes(&of(TRAILER_BYTES_MAX));
    refused(of(TRAILER_BYTES_MAX + 1).as_bytes(), false);
}

#[test]
fn the_stand_in_is_a_request_for_the_library() {
    let text = String::from_utf8(stand_in()).unwrap();
    assert!(text.starts_with("BEDPLATE-REFUSED / HTTP/1.1\r\n") && text.ends_with("\r\n\r\n"));
}

proptest! {
    #[test]
    fn what_passes_is_a_prefix_of_what_came(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..9) {
        let (mut guard, mut out) = (Guard::new(), Vec::new());
        for piece in bytes.chunks(step) {
            if guard.feed(piece, &mut out).is_err() { break }
        }
        prop_assert!(bytes.starts_with(&out));
    }

    #[test]
    fn cutting_changes_nothing(cut in 1usize..60, length in 0usize..40) {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{}", "b".repeat(length));
        prop_assert_eq!(run(text.as_bytes(), cut), Ok(text.into_bytes()));
    }
}
