//! Profiles: presets for all keys of a route in request mode. A key in the file replaces the
//! preset.

use std::time::Duration;

use http::HeaderName;

use super::defaults;
use super::model::{DuplicateRules, RecordRules, RequestMode};
use super::policy::UnknownPolicy;
use crate::idempotency::fingerprint::{BodyCompare, FingerprintRules, Select};
use crate::idempotency::key::{KeyPlaces, KeyRules, Scope, Syntax};
use crate::idempotency::outcome::{OutcomeRules, Verdict};
use crate::idempotency::retention::{Keep, Retention};
use crate::matcher::StatusPattern;
use crate::place::Place;
use crate::problem::Dialect;

/// The published contract followed by a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// The IETF draft "The Idempotency-Key HTTP Header Field", with problem details (RFC 9457).
    #[default]
    Ietf,
    /// Stripe's API v1: a 5xx is final, keys are forgotten after a day.
    Stripe,
    /// RedeemSG's voucher API.
    RedeemSg,
}

const DAY: Keep = Keep::For(Duration::from_secs(86_400));
/// Its guide: a pruned key runs again.
const NO_TOMBSTONE: Keep = Keep::For(Duration::ZERO);
/// The reference client of RedeemSG gives up after 7 s.
const BEFORE_THE_TILL_GIVES_UP: Duration = Duration::from_secs(6);

impl Profile {
    /// The presets of the profile; `store` is the retention of profiles without a preset.
    pub fn request_mode(self, store: Retention) -> RequestMode {
        let a_day = Retention { answer: DAY, tombstone: NO_TOMBSTONE };
        let (retention, dialect, replayed_header) = match self {
            Self::Ietf => (store, Dialect::Problem, "idempotency-replayed"),
            Self::Stripe => (a_day, Dialect::Stripe, "idempotent-replayed"),
            Self::RedeemSg => (a_day, Dialect::RedeemSg, "idempotency-replayed"),
        };
        let (answer_within, subject) = match self {
            Self::Ietf | Self::Stripe => (None, Vec::new()),
            Self::RedeemSg => {
                (Some(BEFORE_THE_TILL_GIVES_UP), Place::parse("/qr").into_iter().collect())
            }
        };
        RequestMode {
            key: KeyRules {
                places: KeyPlaces::in_header(HeaderName::from_static("idempotency-key")),
                required: true,
                scope: Scope::Tenant,
                syntax: Syntax::Any,
                min_length: 1,
                max_length: 255,
                format: None,
                forward: false,
            },
            fingerprint: FingerprintRules::new(BodyCompare::ByMediaType, Select::All, Vec::new()),
            duplicates: DuplicateRules {
                wait: defaults::WAIT,
                max_waiters: defaults::MAX_WAITERS,
                answer_within,
                replayed_header: HeaderName::from_static(replayed_header),
                echo_headers: Vec::new(),
            },
            outcome: self.outcome(),
            on_unknown: UnknownPolicy::Hold,
            record: RecordRules {
                subject,
                max_stored_body: defaults::MAX_STORED_BODY,
                retention,
                keep_request: false,
            },
            suspect: None,
            observes: false,
            dialect,
        }
    }

    fn outcome(self) -> OutcomeRules {
        use StatusPattern::{Class, Exact};
        let fives = match self {
            Self::Ietf | Self::RedeemSg => Verdict::Unknown,
            Self::Stripe => Verdict::Final,
        };
        let mut entries = vec![
            (Class(2), Verdict::Final),
            (Class(3), Verdict::Final),
            (Class(4), Verdict::Final),
        ];
        entries.extend([401, 407, 425, 429].map(|status| (Exact(status), Verdict::Released)));
        entries.push((Class(5), fives));
        entries.extend([408, 409].map(|status| (Exact(status), Verdict::Unknown)));
        // No entry stands twice, so there is no conflict to report.
        OutcomeRules::new(entries).unwrap_or_default()
    }
}
