//! H1 to H14: requests whose end or meaning two servers could see differently.

use super::{Case, End, http};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: ok.test\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: ok.test\r\nContent-Length: 3\r\n\r\nabc";
const CHUNKED: &[u8] =
    b"POST / HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

/// Headers of a request whose body would hide another request.
const HEADERS: [(&str, &str); 33] = [
    ("H1 CL.TE", "Content-Length: 6\r\nTransfer-Encoding: chunked"),
    ("H2 TE.CL", "Transfer-Encoding: chunked\r\nContent-Length: 4"),
    ("H3 TE.TE twice", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
    ("H3 TE list", "Transfer-Encoding: chunked, identity"),
    ("H3 TE gzip", "Transfer-Encoding: gzip, chunked"),
    ("H3 TE x-word", "Transfer-Encoding: xchunked"),
    ("H3 TE quoted", "Transfer-Encoding: \"chunked\""),
    ("H3 TE vertical tab", "Transfer-Encoding: \x0bchunked"),
    ("H3 TE form feed", "Transfer-Encoding: chunked\x0c"),
    ("H3 TE empty", "Transfer-Encoding:"),
    ("H3 TE space before colon", "Transfer-Encoding : chunked"),
    ("H3 TE tab before colon", "Transfer-Encoding\t: chunked"),
    ("H3 TE underscore", "Transfer_Encoding: chunked"),
    ("H3 TE parameter", "Transfer-Encoding: chunked;x=1"),
    ("H4 CL and underscore CL", "Content-Length: 3\r\nContent_Length: 30"),
    ("H5 CL twice, other", "Content-Length: 3\r\nContent-Length: 4"),
    ("H5 CL twice, same", "Content-Length: 3\r\nContent-Length: 3"),
    ("H5 CL list", "Content-Length: 3, 3"),
    ("H5 CL plus", "Content-Length: +3"),
    ("H5 CL minus", "Content-Length: -3"),
    ("H5 CL hex", "Content-Length: 0x3"),
    ("H5 CL empty", "Content-Length:"),
    ("H5 CL space inside", "Content-Length: 3 3"),
    ("H5 CL overflow", "Content-Length: 18446744073709551619"),
    ("H5 CL fraction", "Content-Length: 3.0"),
    ("H6 folded with a space", "X-A: b\r\n Content-Length: 30"),
    ("H6 folded with a tab", "X-A: b\r\n\tContent-Length: 30"),
    ("H7 bare LF", "X-A: b\nContent-Length: 3"),
    ("H7 bare CR", "X-A: b\rContent-Length: 3"),
    ("H7 NUL in a value", "X-A: b\0c"),
    ("H7 header without a colon", "X-A b"),
    ("H7 empty header name", ": b"),
    ("H7 space in a name", "X A: b"),
];

/// Whole heads.
const HEADS: [(&str, &str); 16] = [
    ("H7 empty line first", "\r\nGET / HTTP/1.1\r\nHost: ok.test\r\n\r\n"),
    ("H7 LF after the request line", "GET / HTTP/1.1\nHost: ok.test\r\n\r\n"),
    ("H7 LF ends the head", "GET / HTTP/1.1\r\nHost: ok.test\r\n\n"),
    ("H7 two spaces", "GET  / HTTP/1.1\r\nHost: ok.test\r\n\r\n"),
    ("H7 tab in the request line", "GET /\tHTTP/1.1\r\nHost: ok.test\r\n\r\n"),
    ("H7 space in the target", "GET /a b HTTP/1.1\r\nHost: ok.test\r\n\r\n"),
    ("H7 version 2.0", "GET / HTTP/2.0\r\nHost: ok.test\r\n\r\n"),
    ("H7 version 1.10", "GET / HTTP/1.10\r\nHost: ok.test\r\n\r\n"),
    ("H7 version 0.9", "GET /\r\n\r\n"),
    ("H7 no host", "GET / HTTP/1.1\r\n\r\n"),
    ("H7 two hosts", "GET / HTTP/1.1\r\nHost: ok.test\r\nHost: ok.test\r\n\r\n"),
    ("H7 method not a word", "GE(T / HTTP/1.1\r\nHost: ok.test\r\n\r\n"),
    ("H7 fragment in the target", "GET /#/../denied HTTP/1.1\r\nHost: ok.test\r\n\r\n"),
    (
        "H1 chunked in 1.0",
        "POST / HTTP/1.0\r\nHost: ok.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("H19 CONNECT", "CONNECT ok.test:443 HTTP/1.1\r\nHost: ok.test\r\n\r\n"),
    ("H7 the stand-in's own method", "BEDPLATE-REFUSED / HTTP/1.1\r\nHost: ok.test\r\n\r\n"),
];

/// Chunked bodies.
const CHUNKS: [(&str, &str); 10] = [
    ("H8 chunk extension", "3;x=y\r\nabc\r\n0\r\n\r\n"),
    ("H8 chunk size overflow", "10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("H8 chunk size hex prefix", "0x3\r\nabc\r\n0\r\n\r\n"),
    ("H8 chunk size plus", "+3\r\nabc\r\n0\r\n\r\n"),
    ("H8 chunk size space", "3 \r\nabc\r\n0\r\n\r\n"),
    ("H8 chunk ends with LF", "3\nabc\r\n0\r\n\r\n"),
    ("H8 chunk too long for its size", "3\r\nabcd\r\n0\r\n\r\n"),
    ("H11 length in a trailer", "3\r\nabc\r\n0\r\nContent-Length: 9\r\n\r\n"),
    ("H11 transfer encoding in a trailer", "3\r\nabc\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ("H11 credential in a trailer", "3\r\nabc\r\n0\r\nAuthorization: x\r\n\r\n"),
];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (name, headers) in HEADERS {
        let bytes = format!("POST / HTTP/1.1\r\nHost: ok.test\r\n{headers}\r\n\r\nabc");
        cases.push(http(name, bytes, End::Status(400), POST));
    }
    for (name, head) in HEADS {
        // What does not even begin as HTTP is reset.
        let closed = head.starts_with('\r') || head.starts_with("GE(");
        let end = if closed { End::Closed } else { End::Status(400) };
        cases.push(http(name, head, end, GET));
    }
    for (name, body) in CHUNKS {
        let head = "POST / HTTP/1.1\r\nHost: ok.test\r\nTransfer-Encoding: chunked\r\n\r\n";
        // The request has begun: there is no telling where an answer would belong.
        cases.push(http(name, format!("{head}{body}"), End::Closed, CHUNKED));
    }
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    cases.push(http("H10 h2c prior knowledge", preface, End::Closed, GET));
    cases
}
