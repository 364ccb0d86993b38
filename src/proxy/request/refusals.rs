//! Refusals of requests that cannot be read: key, body, memory and time.

use std::time::Duration;

use crate::idempotency::key::{KeyError, KeyPlaces};
use crate::problem::{Problem, Slug};
use crate::proxy::reply;

pub(crate) fn refused_key(error: KeyError, places: &KeyPlaces) -> Problem {
    let what = match error {
        KeyError::Missing => {
            let detail =
                format!("This request needs an idempotency key in {places}. Nothing was sent.");
            return Problem::new(Slug::KeyMissing, detail);
        }
        KeyError::Incomplete => {
            let detail =
                format!("This request needs each of {places} for its key. Nothing was sent.");
            return Problem::new(Slug::KeyMissing, detail);
        }
        KeyError::Unreadable(format) => {
            let detail = format!(
                "The body cannot be read as {format}, in which the idempotency key is expected \
                 ({places}). Nothing was sent."
            );
            return Problem::new(Slug::BodyInvalid, detail);
        }
        KeyError::Several => "there must be exactly one",
        KeyError::DuplicateMember => "a name stands twice in an object of the body",
        KeyError::TooShort => "it is empty or too short",
        KeyError::TooLong => "it is too long",
        KeyError::Characters => "only visible ASCII characters are allowed",
        KeyError::Syntax => "it is not a well-formed quoted string",
        KeyError::Format => "it must be a UUID",
        KeyError::Type => "it must be a text or a number",
    };
    let detail =
        format!("The idempotency key in {places} cannot be accepted: {what}. Nothing was sent.");
    Problem::new(Slug::KeyInvalid, detail)
}

pub(crate) fn key_in_a_trailer() -> Problem {
    Problem::new(
        Slug::KeyInvalid,
        "The idempotency key stands in a trailer, where it cannot be accepted. Nothing was sent.",
    )
}

pub(crate) fn too_large(most: u64) -> Problem {
    Problem::new(
        Slug::BodyTooLarge,
        format!(
            "The request's body is larger than the {most} bytes that are accepted. \
             Nothing was sent."
        ),
    )
    .close()
}

pub(crate) fn out_of_memory() -> Problem {
    Problem::new(
        Slug::Overloaded,
        "Too much is being received at once. Nothing was sent; please try again shortly.",
    )
    .retry_after(reply::RETRY_LATER)
    .close()
}

pub(crate) fn too_slow() -> Problem {
    Problem::new(
        Slug::RequestTimeout,
        "The request's body did not arrive in time. Nothing was sent; please try again.",
    )
    .retry_after(Duration::from_secs(1))
    .close()
}

pub(crate) fn cut_short() -> Problem {
    Problem::new(
        Slug::RequestInvalid,
        "The request's body broke off before its end. Nothing was sent; please try again.",
    )
    .close()
}
