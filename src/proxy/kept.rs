//! The values of a request that are kept with its claim, for the settlement of a lost answer.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Mode, RouteConfig, UnknownPolicy};
use crate::idempotency::settling::{KeptValue, REQUEST};
use crate::json::Document;
use crate::place::{Place, RequestValues};
use crate::settle::SettleRoute;
use crate::template::Field;
use crate::upstream::Upstream;

/// A place whose value is kept, and the name under which templates ask for the value.
#[derive(Debug, Clone)]
pub(crate) struct KeptPlace {
    name: Arc<str>,
    place: Place,
}

impl KeptPlace {
    /// The places that the templates of a policy need from a request.
    pub(crate) fn of(policy: &UnknownPolicy) -> Vec<Self> {
        let place = |field: &Field| match field {
            Field::Place(place) => Place::parse(place).ok(),
            Field::Body(pointer) => Some(Place::Pointer(pointer.clone())),
            Field::Key | Field::Time { .. } | Field::Row(_) | Field::Answer(_) | Field::Name(_) => {
                None
            }
        };
        let fields = policy.kept_fields();
        let kept = fields.iter().filter_map(|field| {
            Some(Self { name: field.kept_name()?.into(), place: place(field)? })
        });
        kept.collect()
    }

    /// Reports a place in the path, whose parameters have to be read for it.
    pub(crate) fn is_path(&self) -> bool {
        matches!(self.place, Place::Path(_))
    }
}

/// The settlement of a route's unknown outcomes, and the places whose values it needs.
pub(crate) fn settling(
    route: &RouteConfig,
    upstream: &Arc<Upstream>,
    timeout: Duration,
) -> (Option<Arc<SettleRoute>>, Arc<[KeptPlace]>) {
    let (policy, retention, dialect) = match &route.mode {
        // The backend must see no call that clients did not make.
        Mode::Request(mode) if mode.observes => return (None, Arc::default()),
        Mode::Request(mode) => (&mode.on_unknown, mode.record.retention, mode.dialect),
        Mode::Items(mode) => (&mode.on_unknown, mode.record.retention, mode.dialect),
        Mode::Off => return (None, Arc::default()),
    };
    let policy = Arc::new(policy.clone());
    let kept = KeptPlace::of(&policy).into();
    let rules = (timeout, retention, dialect);
    (SettleRoute::new(route.name.clone(), upstream.clone(), &policy, rules), kept)
}

/// The values of an item of a batch: pointers start at the item, those of `{body:…}` at the body.
pub(crate) fn item_values(
    places: &[KeptPlace],
    item: &Document<'_>,
    request: &RequestValues<'_>,
) -> Vec<KeptValue> {
    let value = |KeptPlace { name, place }: &KeptPlace| match place {
        Place::Pointer(pointer) => {
            let document = match name.starts_with("body:") {
                true => request.body().json().ok()?,
                false => item,
            };
            document.find(pointer).map(|value| value.raw().to_owned())
        }
        Place::Header(_) | Place::Path(_) | Place::Query(_) | Place::Form(_) | Place::Xml(_) => {
            request.text(place).ok().flatten().map(|text| quoted(&text))
        }
    };
    let kept = |at: &KeptPlace| Some(KeptValue { name: at.name.clone(), json: value(at)?.into() });
    places.iter().filter_map(kept).collect()
}

/// The values of a request, with the whole body when `keep_request` is set. Values that are absent
/// or cannot be read are left out: templates that need them find none.
pub(crate) fn values(
    places: &[KeptPlace],
    request: &RequestValues<'_>,
    keep_request: bool,
) -> Vec<KeptValue> {
    let mut kept = Vec::with_capacity(places.len() + usize::from(keep_request));
    let bytes = request.body().bytes();
    let in_body = |at: &KeptPlace| matches!(at.place, Place::Pointer(_));
    let json = (keep_request || places.iter().any(in_body)).then(|| Document::parse(bytes).ok());
    let json = json.flatten();
    for KeptPlace { name, place } in places {
        let value = match place {
            Place::Pointer(pointer) => {
                json.as_ref().and_then(|json| json.find(pointer)).map(|it| it.raw().to_owned())
            }
            Place::Header(_)
            | Place::Path(_)
            | Place::Query(_)
            | Place::Form(_)
            | Place::Xml(_) => request.text(place).ok().flatten().map(|text| quoted(&text)),
        };
        kept.extend(value.map(|json| KeptValue { name: name.clone(), json: json.into() }));
    }
    if keep_request {
        let json = match (&json, std::str::from_utf8(bytes)) {
            (Some(document), _) => Some(document.root().raw().to_owned()),
            (None, Ok(text)) => Some(quoted(text)),
            (None, Err(_)) => None,
        };
        kept.extend(json.map(|json| KeptValue { name: REQUEST.into(), json: json.into() }));
    }
    kept
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
