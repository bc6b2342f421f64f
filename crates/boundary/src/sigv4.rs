//! AWS Signature Version 4: the request is signed here, so that the key never enters a sandbox.
//!
//! Signed are the host, the body's type and every `x-amz-` header, as S3 wants it. A body whose
//! digest the program left out of its own signature stays out of ours; one whose pieces it signed
//! itself cannot be signed by anyone else.

use crate::authority::civil;
use crate::body::Collected;
use crate::error::BoundaryError;
use crate::judge::{How, SecretUse};
use crate::mask::percent;
use hmac::{Hmac, KeyInit, Mac};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use sha2::Sha256;
use types::Digest;
use zeroize::Zeroizing;

/// Signs a request that is otherwise as it will be sent; what the program signed is dropped.
pub(crate) fn sign(
    used: &SecretUse,
    method: &str,
    authority: &str,
    target: &str,
    headers: &mut HeaderMap,
    body: &Collected,
    now_s: u64,
) -> Result<(), BoundaryError> {
    let How::AwsSigV4 { access_key, region, service, session_token } = &used.how else {
        return Ok(());
    };
    if body.rest.is_some() {
        return Err(BoundaryError::Secret("a body that is streamed cannot be signed"));
    }
    let (time, content) = (timestamp(now_s), content_of(headers, body)?);
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| BoundaryError::Secret("its token is no header"))
    };
    headers.insert("x-amz-date", value(&time)?);
    headers.insert("x-amz-content-sha256", value(&content)?);
    headers.remove("x-amz-security-token");
    if let Some(token) = session_token {
        headers.insert("x-amz-security-token", value(token)?);
    }
    let signed = signed_headers(authority, headers)?;
    let names = signed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
    let lines: String = signed.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let path = canonical_path(path, service);
    let canonical =
        format!("{method}\n{path}\n{}\n{lines}\n{names}\n{content}", canonical_query(query));
    let scope = format!("{}/{region}/{service}/aws4_request", &time[..8]);
    let to_sign =
        format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", Digest::of(canonical.as_bytes()));
    let mut key = Zeroizing::new(format!("AWS4{}", used.value.as_str()).into_bytes());
    for part in [&time[..8], region, service, "aws4_request"] {
        key = mac(&key, part.as_bytes());
    }
    let signature: String =
        mac(&key, to_sign.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let text = format!(
        "AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    );
    headers.insert(AUTHORIZATION, value(&text)?);
    Ok(())
}

/// What the signature says of the body.
fn content_of(headers: &HeaderMap, body: &Collected) -> Result<String, BoundaryError> {
    let said = headers.get("x-amz-content-sha256").map(HeaderValue::as_bytes).unwrap_or_default();
    match said {
        b"UNSIGNED-PAYLOAD" | b"STREAMING-UNSIGNED-PAYLOAD-TRAILER" => {
            Ok(String::from_utf8_lossy(said).into_owned())
        }
        _ if said.starts_with(b"STREAMING-") => {
            Err(BoundaryError::Secret("the program signed its body in pieces"))
        }
        _ => Ok(Digest::of(&body.data).to_string()),
    }
}

/// Names and values that are signed, in order of name.
fn signed_headers(
    authority: &str,
    headers: &HeaderMap,
) -> Result<Vec<(String, String)>, BoundaryError> {
    let mut signed = vec![("host".to_owned(), authority.to_owned())];
    let wanted = |name: &str| name == "content-type" || name.starts_with("x-amz-");
    for name in headers.keys().filter(|name| wanted(name.as_str())) {
        let values = headers.get_all(name).iter().map(|value| {
            let text = value.to_str();
            let text = text.map_err(|_| BoundaryError::Secret("a header of it is no text"))?;
            Ok(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
        });
        let values: Vec<String> = values.collect::<Result<_, BoundaryError>>()?;
        signed.push((name.as_str().to_owned(), values.join(",")));
    }
    signed.sort_unstable();
    Ok(signed)
}

fn mac(key: &[u8], message: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length will do");
    mac.update(message);
    Zeroizing::new(mac.finalize().into_bytes().to_vec())
}

/// `20130524T000000Z`.
fn timestamp(now_s: u64) -> String {
    let (year, month, day) = civil(now_s / 86_400);
    let rest = now_s % 86_400;
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Each segment escaped once more, but for S3, which signs the path as it is sent.
fn canonical_path(path: &str, service: &str) -> String {
    if service == "s3" {
        return path.to_owned();
    }
    let escaped = path.split('/').map(|segment| percent(segment.as_bytes(), true).to_string());
    escaped.collect::<Vec<_>>().join("/")
}

/// Pairs in order, each escaped in one way.
fn canonical_query(query: &str) -> String {
    let escape = |text: &str| {
        let decoded = crate::facts::decode_form(&text.replace('+', "%2B"));
        percent(decoded.as_deref().unwrap_or(text).as_bytes(), true).to_string()
    };
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (escape(key), escape(value)))
        .collect();
    pairs.sort_unstable();
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(target: &str, service: &str) -> String {
        let used = SecretUse {
            placeholder: String::new(),
            value: Zeroizing::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned()),
            how: How::AwsSigV4 {
                access_key: "AKIAIOSFODNN7EXAMPLE".to_owned(),
                region: "us-east-1".to_owned(),
                service: service.to_owned(),
                session_token: None,
            },
        };
        let mut headers = HeaderMap::new();
        let body = Collected::default();
        let host = "examplebucket.s3.amazonaws.com";
        sign(&used, "GET", host, target, &mut headers, &body, 1_369_353_600).unwrap();
        let text = headers[AUTHORIZATION].to_str().unwrap();
        text.rsplit_once("Signature=").unwrap().1.to_owned()
    }

    #[test]
    fn published_examples_have_their_signatures() {
        // GET Bucket Lifecycle and GET Bucket (List Objects) of the S3 documentation.
        assert_eq!(
            signed("/?lifecycle", "s3"),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
        assert_eq!(
            signed("/?max-keys=2&prefix=J", "s3"),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
        assert_ne!(signed("/a%20b", "s3"), signed("/a%20b", "execute-api"));
    }
}
