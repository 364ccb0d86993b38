//! Errors in the words of RedeemSG's guide ("Idempotency").

use super::slug::Slug;

/// Members `code` and `type` of an error.
pub(super) fn code_and_type(slug: Slug) -> (&'static str, &'static str) {
    match slug {
        Slug::RequestInProgress => ("idempotent_request_in_progress", "idempotency_error"),
        Slug::KeyReused => (slug.as_str(), "idempotency_error"),
        Slug::KeyMissing
        | Slug::KeyInvalid
        | Slug::BodyInvalid
        | Slug::TooManyItems
        | Slug::DuplicateItem
        | Slug::QuantityInvalid => (slug.as_str(), "invalid_request_error"),
        Slug::UpstreamUnreachable
        | Slug::OutcomeUnknown
        | Slug::KeyExpired
        | Slug::ResponseNotRetained
        | Slug::Reversed
        | Slug::StoreUnavailable
        | Slug::SuspectedDuplicate
        | Slug::Overloaded
        | Slug::QuotaExceeded
        | Slug::CallerUnknown
        | Slug::AuthorizationUnavailable
        | Slug::BodyTooLarge
        | Slug::HeadTooLarge
        | Slug::UriTooLong
        | Slug::RequestTimeout
        | Slug::RequestInvalid
        | Slug::NoRoute
        | Slug::MethodNotAllowed
        | Slug::UpstreamFailed
        | Slug::NotFound => (slug.as_str(), "api_error"),
    }
}
