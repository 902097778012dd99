//! One request: where it goes, what of it goes on, and what comes back.

use std::{fmt, future::pending, sync::Arc, time::Duration};

use http::{
    HeaderValue, Method, Request, Response, StatusCode, Uri, Version,
    header::{CONNECTION, HOST},
    request::Parts,
    uri::PathAndQuery,
};
use hyper::{body::Incoming, ext::on_informational, upgrade::OnUpgrade};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{
    Shared,
    asked::{PROXY_DEST, PROXY_HOST},
    audit::Audit,
    body::{Body, Upload},
    entrance::{Admitted, Entrance},
    headers::{self, add_forwarded_for, expects_continue},
    refusal::Refusal,
    tell,
    upgrade::Upgrading,
    upstream::{Key, Lease},
    users::strip_identity,
    visit::{Answering, Visit},
};
use crate::{model::printable, observability::metrics::HttpReason, tunnel::DialledBy};

/// How long a target may take to say whether it wants the body that a client holds back: many never do.
const GO_AHEAD_TIME: Duration = Duration::from_secs(1);

/// What the log says of a request. A query may hold secrets.
pub(super) struct Line {
    method: Method,
    host: String,
    path: String,
}

/// A target's answer.
struct Answer {
    response: Response<Incoming>,
    lease: Lease,
    /// Where its client asked for another protocol, and the target agrees.
    upgrade: Option<(OnUpgrade, OnUpgrade)>,
}

/// Answers a request, one way or the other.
pub(super) async fn answer(
    shared: &Shared,
    visit: &Arc<Visit>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (started, line) = (Instant::now(), Line::of(&request));
    let refuse = |refusal: Refusal| {
        tell(&refusal, visit.peer, Some(&line));
        (refusal.response(), refusal.reason())
    };
    let mut audit = None;
    let place = shared.entrance.lets_in(visit);
    let place = place.and_then(|()| visit.begin(&shared.active));
    let (mut response, reason) = match place.map(|answering| {
        answering.counted(shared.under_way.begin(&line.method, request.uri().path()))
    }) {
        Ok(answering) => match forward(shared, visit, request, &mut audit).await {
            Ok(mut answer) => {
                if let Entrance::Users(_) = shared.entrance {
                    headers::strip_site(answer.response.headers_mut());
                }
                (answer.into_response(visit, answering), HttpReason::Answered)
            }
            Err(refusal) => {
                let (mut response, reason) = refuse(refusal);
                if reason == HttpReason::Malformed {
                    // Where it ends is as unclear: what follows could be read as another request (RFC 9112, 6.1).
                    close_after(&mut response);
                }
                (response.map(|body| body.answering(answering)), reason)
            }
        },
        Err(refusal) => {
            visit.turn_away();
            let (mut response, reason) = refuse(refusal);
            close_after(&mut response);
            (response, reason)
        }
    };
    if let Entrance::Users(_) = shared.entrance {
        headers::disarm(response.headers_mut());
    }
    shared.requests.count(response.status(), reason);
    if let Some(audit) = audit {
        audit.tell(visit.peer, response.status(), started.elapsed());
    }
    tracing::debug!(
        peer = %visit.peer, request = %line, status = response.status().as_u16(),
        duration = ?started.elapsed(), "request",
    );
    response
}

fn close_after(response: &mut Response<Body>) {
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
}

async fn forward(
    shared: &Shared,
    visit: &Visit,
    mut request: Request<Incoming>,
    audit: &mut Option<Audit>,
) -> Result<Answer, Refusal> {
    let on_client = hyper::upgrade::on(&mut request);
    let (mut parts, body) = request.into_parts();
    let admitted = shared.admit(visit, &parts, audit).await?;
    let wants_upgrade = headers::upgrade(&parts.headers).is_some();
    let holds_back = expects_continue(&parts.headers);
    rewrite(&mut parts, &admitted, visit)?;
    let mut request = Request::from_parts(parts, Upload::new(body));
    if holds_back {
        request = hold_back(request);
    }
    let Admitted { route, user } = admitted;
    let key = Key {
        node: route.node,
        dst: route.dst.0,
        client: visit.client,
        user,
        is_kubelet: route.is_kubelet,
    };
    let by = DialledBy {
        client: visit.client,
        peer: visit.peer,
    };
    let (mut response, lease) = shared.upstreams.send(&key, by, request).await?;
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switches && !wants_upgrade {
        let cause = "it changes the protocol, and nobody has asked for that";
        return Err(shared.upstreams.no_answer(&key, cause.to_owned()));
    }
    let upgrade = switches.then(|| (on_client, hyper::upgrade::on(&mut response)));
    Ok(Answer {
        response,
        lease,
        upgrade,
    })
}

/// Makes of what the client said what its target is to hear.
fn rewrite(parts: &mut Parts, admitted: &Admitted, visit: &Visit) -> Result<(), Refusal> {
    headers::strip(&mut parts.headers);
    if admitted.user.is_some() {
        strip_identity(&mut parts.headers);
    }
    parts.headers.remove(PROXY_HOST);
    parts.headers.remove(PROXY_DEST);
    add_forwarded_for(&mut parts.headers, visit.peer.0.ip().to_canonical());
    let host = HeaderValue::from_str(&admitted.route.host).map_err(|_| Refusal::BadHead)?;
    parts.headers.insert(HOST, host);
    let path = parts.uri.path_and_query().cloned();
    parts.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    parts.version = Version::HTTP_11;
    Ok(())
}

/// Asks the client for the body when the target has asked for it, or does not say.
fn hold_back(mut request: Request<Upload>) -> Request<Upload> {
    let (go_ahead_tx, mut go_ahead) = watch::channel(false);
    on_informational(&mut request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            go_ahead_tx.send_replace(true);
        }
    });
    let asked = async move {
        let asked = timeout(GO_AHEAD_TIME, go_ahead.wait_for(|asked| *asked));
        if matches!(asked.await, Ok(Err(_))) {
            // Its answer is there already, so that it does not want the body.
            pending::<()>().await;
        }
    };
    request.map(|body| body.after(Box::pin(asked)))
}

impl Answer {
    /// What the client gets of it.
    fn into_response(self, visit: &Visit, answering: Answering) -> Response<Body> {
        let Self {
            response,
            lease,
            upgrade,
        } = self;
        let (mut parts, incoming) = response.into_parts();
        headers::strip(&mut parts.headers);
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        let body = match upgrade {
            Some((on_client, on_target)) => {
                visit.upgrade(Upgrading {
                    on_client,
                    on_target,
                    lease,
                    answering,
                });
                Body::empty()
            }
            None => Body::of_target(incoming, lease).answering(answering),
        };
        Response::from_parts(parts, body)
    }
}

impl Line {
    fn of(request: &Request<Incoming>) -> Self {
        let uri = request.uri();
        let host = request.headers().get(HOST);
        let host = host.map(|host| String::from_utf8_lossy(host.as_bytes()));
        let host = uri
            .authority()
            .map_or(host, |authority| Some(authority.as_str().into()));
        Self {
            method: request.method().clone(),
            host: printable(&host.unwrap_or_default()),
            path: printable(uri.path()),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}{}", self.method, self.host, self.path)
    }
}
