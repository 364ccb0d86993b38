//! The frame of every page, and the pages for who is not logged in.

use http::{Response, StatusCode};
use maud::{DOCTYPE, Markup, html};

use super::guard;
use crate::admin::session::Session;
use crate::body::Body;

/// A page for who is logged in.
pub(super) fn page(
    status: StatusCode,
    session: &Session,
    title: &str,
    content: &Markup,
) -> Response<Body> {
    let menu = html! {
        nav aria-label="Main" {
            a href="/" { "Overview" }
            a href="/records" { "Records" }
            form method="post" action="/logout" {
                input type="hidden" name="csrf" value=(session.csrf);
                button type="submit" class="quiet" { "Log out" }
            }
        }
    };
    framed(status, title, &menu, content)
}

/// The page that asks for the token. `over`: why it does.
pub(super) fn login(status: StatusCode, over: Option<&str>) -> Response<Body> {
    let content = html! {
        h1 { "Log in" }
        @if let Some(over) = over {
            p class="alert" role="alert" { (over) }
        }
        form method="post" action="/login" class="narrow" {
            label for="token" { "Token of " code { "[admin]" } }
            input id="token" name="token" type="password" required autocomplete="current-password";
            button type="submit" { "Log in" }
        }
    };
    framed(status, "Log in", &html! {}, &content)
}

/// A refusal.
pub(super) fn refusal(status: StatusCode, what: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or("Refused");
    let content = html! {
        h1 { (title) }
        p class="alert" role="alert" { (what) }
        p { a href="/" { "To the overview" } }
    };
    framed(status, title, &html! {}, &content)
}

fn framed(status: StatusCode, title: &str, menu: &Markup, content: &Markup) -> Response<Body> {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · oncegate" }
                link rel="stylesheet" href="/style.css";
            }
            body {
                a class="skip" href="#content" { "To the content" }
                header {
                    span class="brand" { "oncegate" }
                    (menu)
                }
                main id="content" { (content) }
            }
        }
    };
    guard::page(status, document.into_string())
}
