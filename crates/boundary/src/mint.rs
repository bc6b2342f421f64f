//! A short-lived token in the place of a client's secret: OAuth 2 client credentials (RFC 6749,
//! section 4.4).
//!
//! ```text
//!  permit with a client --> POST to its token address: a question of its own, judged and recorded
//!                           --permit, with the client's secret--> dialled, verified, sent
//!                       <-- a token: takes the placeholder's place in the first request
//! ```
//!
//! What always holds: the client's secret is in the one request to its token address, and the
//! token in the request it was made for; neither goes anywhere because a program says so, and no
//! redirect is followed. What the server says is read up to a limit, and only a token that can
//! stand in a header is one.

use crate::accept::Link;
use crate::body::Collected;
use crate::error::BoundaryError;
use crate::exchange::{self, Whose};
use crate::host::Host;
use crate::judge::{Client, How, SecretUse};
use crate::limits::{TOKEN_ANSWER_BYTES_MAX, TOKEN_BYTES_MAX};
use crate::mask::percent;
use crate::path;
use crate::request::{Checked, Origin};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::Deserialize;
use std::sync::Arc;
use zeroize::Zeroizing;

/// What a token's request is called among operations: policy sees it, and no program can make one.
pub const TOKEN_OPERATION: &str = "oauth token";

/// What a token server answers.
#[derive(Deserialize)]
struct Minted {
    access_token: String,
    token_type: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

const NO_TOKEN: BoundaryError = BoundaryError::Secret("no token was given for it");

/// The secret as it is put in: with a token in its place when it is a client.
pub(crate) async fn mint(link: &Arc<Link>, used: SecretUse) -> Result<SecretUse, BoundaryError> {
    let How::Token(client) = &used.how else { return Ok(used) };
    let host = Host::parse(&client.host).ok_or(BoundaryError::Misdirected)?;
    let origin = Origin { host, port: client.port, scheme: "https" };
    let (checked, body) = request(client, &used.placeholder)?;
    let beside = Arc::new(link.beside(origin));
    let response =
        exchange::carry(&beside, checked, body, None, Whose::Ours(TOKEN_OPERATION)).await?;
    let status = response.status();
    // Read to its end or its limit, so that its end is recorded.
    let answer = Limited::new(response.into_body(), TOKEN_ANSWER_BYTES_MAX).collect().await;
    let answer = Zeroizing::new(answer.map_err(|_| NO_TOKEN)?.to_bytes().to_vec());
    let (value, expires_s) = token(status, &answer).ok_or(NO_TOKEN)?;
    link.inner.judge.minted(&used.placeholder, &value, expires_s);
    Ok(SecretUse { placeholder: used.placeholder, value, how: How::Replace })
}

/// The token in an answer, and how long it is good, seconds; none unless it can stand in a header.
fn token(status: StatusCode, answer: &[u8]) -> Option<(Zeroizing<String>, Option<u64>)> {
    let minted: Minted = serde_json::from_slice(answer).ok()?;
    let value = Zeroizing::new(minted.access_token);
    let plain = value.bytes().all(|b| b.is_ascii_graphic());
    let fits = !value.is_empty() && value.len() <= TOKEN_BYTES_MAX && plain;
    let bearer = minted.token_type.eq_ignore_ascii_case("bearer");
    (status == StatusCode::OK && fits && bearer).then_some((value, minted.expires_in))
}

/// The request for a token, with the placeholder where the client's secret will stand.
fn request(client: &Client, placeholder: &str) -> Result<(Checked, Collected), BoundaryError> {
    let escape = |text: &str| percent(text.as_bytes(), true).to_string();
    let mut form = "grant_type=client_credentials".to_owned();
    for (key, value) in [("scope", &client.scope), ("audience", &client.audience)] {
        if let Some(value) = value {
            form.push_str(&format!("&{key}={}", escape(value)));
        }
    }
    let mut headers = HeaderMap::new();
    let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
    headers.insert(CONTENT_TYPE, kind);
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    if client.basic {
        let pair = STANDARD.encode(format!("{}:{placeholder}", escape(&client.id)));
        let value = HeaderValue::from_str(&format!("Basic {pair}"));
        headers.insert(AUTHORIZATION, value.map_err(|_| BoundaryError::Kind("its client"))?);
    } else {
        form.push_str(&format!("&client_id={}&client_secret={placeholder}", escape(&client.id)));
    }
    let checked = Checked {
        method: "POST".to_owned(),
        path: path::read(&client.path).map_err(BoundaryError::Path)?,
        query: String::new(),
        headers,
        websocket: false,
        two_way: false,
    };
    Ok((checked, Collected::whole(form.into_bytes().into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(basic: bool) -> Client {
        Client {
            host: "id.test".to_owned(),
            port: 443,
            path: "/token".to_owned(),
            id: "a b:c".to_owned(),
            basic,
            scope: Some("read write".to_owned()),
            audience: None,
        }
    }

    #[test]
    fn only_what_can_stand_in_a_header_is_a_token() {
        let of = |token: &str, kind: &str, status: StatusCode| {
            let answer = serde_json::json!({"access_token": token, "token_type": kind});
            super::token(status, answer.to_string().as_bytes()).is_some()
        };
        let ok = StatusCode::OK;
        assert!(of(&"x".repeat(TOKEN_BYTES_MAX), "bearer", ok));
        assert!(!of(&"x".repeat(TOKEN_BYTES_MAX + 1), "bearer", ok));
        assert!(!of("", "Bearer", ok));
        assert!(!of("a\r\nb", "Bearer", ok));
        assert!(!of("a", "mac", ok));
        assert!(!of("a", "Bearer", StatusCode::CREATED));
        assert!(super::token(ok, b"no json").is_none());
    }

    #[test]
    fn a_client_says_who_it_is_as_its_server_wants() {
        let (checked, body) = request(&client(true), "PLACE").unwrap();
        assert_eq!(body.data, "grant_type=client_credentials&scope=read%20write");
        let basic = STANDARD.encode("a%20b%3Ac:PLACE");
        assert_eq!(checked.headers[AUTHORIZATION], format!("Basic {basic}"));
        let (checked, body) = request(&client(false), "PLACE").unwrap();
        assert!(!checked.headers.contains_key(AUTHORIZATION));
        let expected = "grant_type=client_credentials&scope=read%20write\
                        &client_id=a%20b%3Ac&client_secret=PLACE";
        assert_eq!(body.data, expected);
    }
}
