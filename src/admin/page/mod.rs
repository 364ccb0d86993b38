//! The operator's page: what happens now, the unknown outcomes, and every key that touched a
//! voucher; decisions with a reason.
//!
//! Pages are rendered here and need no script. `guard` refuses foreign requests and sets the
//! headers, `admin/session` keeps who is logged in, `form` reads forms, `layout` is the frame of a
//! page, and `overview`, `lookup` and `record` are the pages. Records are found, shown and changed
//! by `records`, as for the API.

mod chart;
mod form;
mod guard;
mod layout;
mod lookup;
mod observed;
mod overview;
mod record;
mod refusal;
mod text;

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{ALLOW, RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, request};
use hyper::body::Incoming;
use tokio::time::Instant;

use self::form::PageForm;
use self::guard::see_other;
use self::refusal::{PageError, PageResult};
use super::records::record_id;
use super::session;
use super::state::AdminState;
use crate::body::{Body, full};

/// The style of all pages.
const STYLE: &str = include_str!("style.css");
/// Bytes of a form without a response.
const SMALL_FORM: u64 = 16 << 10;

/// Returns true for a path of the page.
pub(super) fn is_page(path: &str) -> bool {
    matches!(path, "/" | "/style.css" | "/login" | "/logout" | "/records")
        || path.starts_with("/records/")
}

/// Answers a request for a path of the page.
pub(super) async fn answer(
    state: &Arc<AdminState>,
    request: Request<Incoming>,
    client: IpAddr,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    if !guard::is_own_host(&head, &state.settings().hosts) {
        let what = "This page is not served under this host name. Use an address or localhost, or \
                    name the host in `hosts` of [admin].";
        return layout::refusal(StatusCode::FORBIDDEN, what);
    }
    let reads = matches!(head.method, Method::GET | Method::HEAD);
    if head.uri.path() == "/style.css" && reads {
        return guard::answer(StatusCode::OK, "text/css; charset=utf-8", full(STYLE));
    }
    if state.settings().token.is_none() {
        let what = "This page shows keys and answers of customers, and there is no token to guard \
                    it. Set `token_file` in [admin].";
        return layout::refusal(StatusCode::FORBIDDEN, what);
    }
    let answered = match head.method {
        _ if reads => read_only(state, &head).await,
        Method::POST => change(state, &head, body, client).await,
        _ => Err(PageError::new(StatusCode::METHOD_NOT_ALLOWED, "Read this page with GET.")),
    };
    answered.unwrap_or_else(|error| {
        let mut response = layout::refusal(error.status, &error.what);
        if error.status == StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
        }
        response
    })
}

async fn read_only(state: &Arc<AdminState>, head: &request::Parts) -> PageResult {
    let path = head.uri.path();
    if path == "/login" || path == "/logout" {
        return Ok(see_other("/"));
    }
    let Some(session) = state.sessions.find(&head.headers, Instant::now()) else {
        // Without a cookie nobody has asked for more than the door.
        let first = path == "/" && !session::has_cookie(&head.headers);
        let status = if first { StatusCode::OK } else { StatusCode::UNAUTHORIZED };
        let over = (!first).then_some("Please log in: there is no session, or it has ended.");
        return Ok(layout::login(status, over));
    };
    let query = head.uri.query().unwrap_or_default();
    let id = path.strip_prefix("/records/");
    if let Some((id, action)) = id.and_then(|id| id.split_once('/'))
        && record::ACTIONS.contains(&action)
    {
        // The address of a refused decision, loaded anew.
        return Ok(see_other(&format!("/records/{}", record_id(id)?)));
    }
    match id {
        Some(id) => record::show(state, &session, id).await,
        None if path == "/records" => lookup::show(state, &session, query).await,
        None => overview::show(state, &session).await,
    }
}

async fn change(
    state: &Arc<AdminState>,
    head: &request::Parts,
    body: Incoming,
    client: IpAddr,
) -> PageResult {
    if !guard::is_own_form(&head.headers) {
        let what = "This form was sent by another page, and nothing was done.";
        return Err(PageError::new(StatusCode::FORBIDDEN, what));
    }
    let path = head.uri.path();
    if path == "/login" {
        let form = form::read(&head.headers, body, SMALL_FORM).await?;
        return Ok(log_in(state, &head.headers, &form, client));
    }
    let Some(session) = state.sessions.find(&head.headers, Instant::now()) else {
        let what = "Nothing was done. Please log in: there is no session, or it has ended.";
        return Ok(layout::login(StatusCode::UNAUTHORIZED, Some(what)));
    };
    let form = form::read(&head.headers, body, state.most_body()).await?;
    if form.get("csrf").is_none_or(|given| !text::is_same(given, &session.csrf)) {
        let what = "This form belongs to no page of your session, and nothing was done. Go back, \
                    load the page anew and try again.";
        return Err(PageError::new(StatusCode::FORBIDDEN, what));
    }
    if path == "/logout" {
        let mut response = see_other("/");
        set_cookie(&mut response, &state.sessions.end(&head.headers));
        return Ok(response);
    }
    let action = path.strip_prefix("/records/").and_then(|rest| rest.split_once('/'));
    match action {
        Some((id, action)) => record::change(state, &session, (id, action), &form).await,
        None => Err(PageError::new(StatusCode::METHOD_NOT_ALLOWED, "Read this page with GET.")),
    }
}

fn log_in(
    state: &AdminState,
    headers: &HeaderMap,
    form: &PageForm,
    client: IpAddr,
) -> Response<Body> {
    let (sessions, now) = (&state.sessions, Instant::now());
    if let Some(wait) = sessions.blocked(client, now) {
        let seconds = wait.as_secs() + 1;
        let what = format!("Too many wrong tokens. Try again in {seconds} s.");
        let mut response = layout::login(StatusCode::TOO_MANY_REQUESTS, Some(&what));
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        return response;
    }
    if !state.is_token(form.get("token").unwrap_or_default().trim().as_bytes()) {
        sessions.wrong(client, now);
        tracing::warn!(%client, "a wrong token was given on the operator's page");
        return layout::login(StatusCode::UNAUTHORIZED, Some("This is not the token of [admin]."));
    }
    tracing::info!(%client, "an operator logged in on the page");
    let mut response = see_other("/");
    set_cookie(&mut response, &sessions.begin(headers, now));
    response
}

fn set_cookie(response: &mut Response<Body>, cookie: &str) {
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
}
