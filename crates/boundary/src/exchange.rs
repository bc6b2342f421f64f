//! One request, from its head to its answer: checked, asked, dialled, sent, answered.
//!
//! Nothing is resolved or dialled before the judge permits. Upstream connections belong to one
//! connection of the sandbox and to one host; they are never shared.

use crate::accept::Link;
use crate::age::{self, Ahead};
use crate::body::{Collected, Download, Permit, Upload};
use crate::error::BoundaryError;
use crate::head::REFUSED;
use crate::judge::{How, RequestAsk, RequestVerdict, SecretUse, Standing};
use crate::kept::{Keeper, KeptAnswer};
use crate::limits::ANSWER_MS_MAX;
use crate::mask::{Masker, Masks};
use crate::request::{self, Checked};
use crate::secrets::Swap;
use crate::standing::Stands;
use crate::{mint, sigv4, websocket};
use http::header::{ALT_SVC, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Carries a request that may be sent.
struct Sending<'a> {
    link: &'a Arc<Link>,
    permit: Permit,
    stands: Arc<Stands>,
    masks: Option<Arc<Masks>>,
    /// The program's side of a WebSocket.
    upgrade: Option<OnUpgrade>,
}

/// The answer to one request, whatever becomes of it.
pub(crate) async fn answer(link: Arc<Link>, request: Request<Incoming>) -> Response<Download> {
    let closes = request.version() < Version::HTTP_2;
    match exchange(&link, request).await {
        Ok(response) => response,
        Err(error) => refusal(&error, closes),
    }
}

/// What a program is told when its request was not carried.
pub(crate) fn refusal(error: &BoundaryError, http1: bool) -> Response<Download> {
    let mut response = Response::new(Download::own(error.body()));
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // What is left of a body that was not read would be taken for the next request.
    let closes = !matches!(error, BoundaryError::Denied(_) | BoundaryError::Upstream(_));
    if http1 && closes {
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

async fn exchange(
    link: &Arc<Link>,
    mut request: Request<Incoming>,
) -> Result<Response<Download>, BoundaryError> {
    if request.method().as_str() == REFUSED {
        let why = link.shared.refused.lock().expect("nothing panics while it is held").take();
        return Err(BoundaryError::Framing(why.unwrap_or("its head")));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let (parts, body) = request.into_parts();
    let checked = request::check(&link.origin, &parts)?;
    let limit = link.inner.config.body_bytes;
    let body = if checked.two_way {
        Collected::streamed(body)
    } else {
        Collected::read(body, limit, &link.inner.bodies).await?
    };
    let scan = body.rest.is_some().then(|| link.inner.judge.scan()).flatten();
    let body = body.scanned(scan);
    let upgrade = checked.websocket.then_some(upgrade);
    carry(link, checked, body, upgrade, Whose::Program(&parts.headers)).await
}

/// Whose request is carried.
pub(crate) enum Whose<'a> {
    /// A program's, which sent these headers.
    Program(&'a HeaderMap),
    /// Our own; what it is called.
    Ours(&'a str),
}

/// Asks about a request and carries it.
pub(crate) async fn carry(
    link: &Arc<Link>,
    checked: Checked,
    body: Collected,
    upgrade: Option<OnUpgrade>,
    whose: Whose<'_>,
) -> Result<Response<Download>, BoundaryError> {
    let mut ask = request::ask(&link.origin, &checked, &body, &link.inner.config.seed)?;
    match whose {
        Whose::Program(headers) => {
            ask.leaked = request::leaked(&*link.inner.judge, &ask, headers, &body);
        }
        Whose::Ours(operation) => operation.clone_into(&mut ask.facts.operation),
    }
    let (mut permit, secrets, stands) = match judge(link, ask).await? {
        Judged::Sent(permit, secrets, stands) => (permit, secrets, stands),
        Judged::Answered(permit, answer) => return Ok(given(permit, answer)),
    };
    let secrets = match with_tokens(link, secrets).await {
        Ok(secrets) => secrets,
        Err(error) => {
            permit.failed(&error.to_string());
            return Err(error);
        }
    };
    let values = secrets.iter().flat_map(|used| {
        let more = match &used.how {
            How::AwsSigV4 { session_token, .. } => session_token.as_deref(),
            How::Replace | How::Token(_) => None,
        };
        let values = std::iter::once(used.value.as_str()).chain(more);
        values.map(|value| (name_of(used), value))
    });
    let masks = Masks::new(values);
    let sending = Sending { link, permit, stands: Arc::new(stands), masks, upgrade };
    sending.run(checked, body, &secrets).await
}

/// The secrets with tokens in the place of clients.
async fn with_tokens(
    link: &Arc<Link>,
    secrets: Vec<SecretUse>,
) -> Result<Vec<SecretUse>, BoundaryError> {
    let mut placed = Vec::with_capacity(secrets.len());
    for used in secrets {
        match used.how {
            // Boxed: a token's own request is carried like any other.
            How::Token(_) => placed.push(Box::pin(mint::mint(link, used)).await?),
            How::Replace | How::AwsSigV4 { .. } => placed.push(used),
        }
    }
    Ok(placed)
}

/// The name in a placeholder, for its mask.
fn name_of(used: &SecretUse) -> &str {
    let rest = used.placeholder.strip_prefix("bpsecret-").unwrap_or("secret");
    rest.rsplit_once('-').map_or(rest, |(name, _)| name)
}

/// What may be done with a request.
enum Judged {
    /// It is sent.
    Sent(Permit, Vec<SecretUse>, Stands),
    /// Its answer is there already.
    Answered(Permit, KeptAnswer),
}

/// An answer without the world: nothing is resolved, dialled or sent.
fn given(mut permit: Permit, answer: KeptAnswer) -> Response<Download> {
    permit.status = answer.status.as_u16();
    permit.down = answer.body.len() as u64;
    permit.answered();
    let mut response = Response::new(Download::kept(answer.body, answer.trailers));
    *response.status_mut() = answer.status;
    // What ends at each hop is no part of it; kept or not, it would be framing.
    *response.headers_mut() = request::stripped(&answer.headers).unwrap_or_default();
    response
}

async fn judge(link: &Link, ask: RequestAsk) -> Result<Judged, BoundaryError> {
    let inner = &link.inner;
    let asking = Arc::clone(&inner.asks).try_acquire_owned();
    let asking = asking.map_err(|_| BoundaryError::Limit("questions at once"))?;
    let epoch = inner.standings.epoch();
    let verdict = inner.judge.request(&ask).await;
    drop(asking);
    match verdict {
        RequestVerdict::Deny(denial) => Err(BoundaryError::Denied(denial)),
        RequestVerdict::Answered { id, answer } => {
            Ok(Judged::Answered(Permit::new(id, Arc::clone(&inner.judge)), *answer))
        }
        RequestVerdict::Permit { id, secrets } => {
            let mut permit = Permit::new(id, Arc::clone(&inner.judge));
            let placed: Vec<SecretUse> = secrets
                .into_iter()
                .filter(|used| matches!(used.how, How::AwsSigV4 { .. }) || stands_in(&ask, used))
                .collect();
            let standing = Standing::Request { id, ask: Box::new(ask) };
            match Stands::enter(inner, standing, epoch).await {
                Some(stands) => Ok(Judged::Sent(permit, placed, stands)),
                None => {
                    permit.failed(&BoundaryError::Revoked.to_string());
                    Err(BoundaryError::Revoked)
                }
            }
        }
    }
}

fn stands_in(ask: &RequestAsk, used: &SecretUse) -> bool {
    ask.placeholders.iter().any(|one| one.text == used.placeholder)
}

impl Sending<'_> {
    async fn run(
        mut self,
        checked: Checked,
        body: Collected,
        secrets: &[SecretUse],
    ) -> Result<Response<Download>, BoundaryError> {
        let closed = self.stands.switch.closed();
        let dated = age::field(self.link, &checked);
        let result = async {
            let request = self.request(checked, body, secrets, dated.is_some())?;
            let wait = Duration::from_millis(ANSWER_MS_MAX);
            let sending = self.link.pool.send(self.link, &mut self.permit, request);
            let answered = timeout(wait, sending).await;
            let late = || BoundaryError::Upstream("it takes too long to answer".to_owned());
            let mut response = self.checked(answered.map_err(|_| late())??)?;
            let mut ahead = Ahead::default();
            if let Some(field) = &dated {
                let (as_of, read) = age::read(self.link, field, &mut response).await;
                as_of.into_iter().for_each(|as_of| self.permit.dated(as_of));
                ahead = read;
            }
            Ok((response, ahead))
        };
        let result = tokio::select! {
            result = result => result,
            () = closed => Err(BoundaryError::Revoked),
        };
        match result {
            Ok((response, ahead)) => Ok(self.pass(response, ahead)),
            Err(error) => {
                self.permit.failed(&error.to_string());
                Err(error)
            }
        }
    }

    /// The request as it is sent, with its secrets.
    fn request(
        &self,
        checked: Checked,
        mut body: Collected,
        secrets: &[SecretUse],
        dated: bool,
    ) -> Result<Request<Upload>, BoundaryError> {
        let Checked { method, path, mut query, mut headers, .. } = checked;
        let swap = Swap::new(secrets);
        swap.query(&mut query);
        swap.body(&headers, &mut body);
        swap.headers(&mut headers)?;
        if !secrets.is_empty() || dated {
            request::ask_for_plain_bytes(&mut headers);
        }
        let authority = self.link.origin.authority();
        let target = if query.is_empty() { path.raw } else { format!("{}?{query}", path.raw) };
        for used in secrets.iter().filter(|used| used.how != How::Replace) {
            let clock = (self.link.inner.config.clock)();
            sigv4::sign(used, &method, &authority, &target, &mut headers, &body, clock)?;
        }
        let uri = format!("{}://{authority}{target}", self.link.origin.scheme);
        let uri: Uri = uri.parse().map_err(|_| BoundaryError::Path("it is not a URI"))?;
        let mut request = Request::new(());
        *request.method_mut() = method.parse().map_err(|_| BoundaryError::Kind("its method"))?;
        *request.uri_mut() = uri;
        let host = HeaderValue::from_str(&authority);
        headers.insert(HOST, host.map_err(|_| BoundaryError::Misdirected)?);
        *request.headers_mut() = headers;
        let stands = Arc::clone(&self.stands);
        Ok(request.map(|()| Upload::new(body, Arc::clone(&self.permit.up), stands)))
    }

    /// What an upstream may answer.
    fn checked(&self, response: Response<Incoming>) -> Result<Response<Incoming>, BoundaryError> {
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let bad = |why: &str| Err(BoundaryError::Upstream(why.to_owned()));
        if upgraded && (self.upgrade.is_none() || !websocket::accepted(response.headers())) {
            return bad("it switched to a protocol that was not asked for");
        }
        let encoded = response.headers().get_all(CONTENT_ENCODING).iter();
        let mut encoded =
            encoded.filter(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
        if self.masks.is_some() && encoded.next().is_some() {
            return Err(BoundaryError::Secret("the answer is encoded, and may hold it unseen"));
        }
        Ok(response)
    }

    /// The answer as the program gets it.
    fn pass(mut self, mut response: Response<Incoming>, ahead: Ahead) -> Response<Download> {
        self.permit.status = response.status().as_u16();
        let mut headers = request::stripped(response.headers()).unwrap_or_default();
        headers.remove(ALT_SVC);
        let masker = self.masks.as_ref().map(|masks| Masker::new(Arc::clone(masks)));
        if let Some(masker) = &masker {
            headers = masker.headers(headers);
            // Masks change lengths.
            headers.remove(CONTENT_LENGTH);
        }
        let status = response.status();
        let keeps = self.link.inner.config.keep;
        let download = match self.upgrade.take() {
            Some(program) if status == StatusCode::SWITCHING_PROTOCOLS => {
                if keeps {
                    self.permit.keeps_nothing();
                }
                websocket::put_back(&mut headers);
                let upstream = hyper::upgrade::on(&mut response);
                let link = Arc::clone(self.link);
                websocket::carry(link, program, upstream, self.permit, self.stands, masker);
                Download::own(String::new())
            }
            _ => {
                let body = response.into_body();
                let room = &self.link.inner.answers;
                let keeper = keeps.then(|| Keeper::new(status, headers.clone(), room));
                Download::theirs(body, ahead, (masker, keeper), self.permit, self.stands)
            }
        };
        let mut passed = Response::new(download);
        *passed.status_mut() = status;
        *passed.headers_mut() = headers;
        passed
    }
}
