//! The name of a caller outside of a running gateway.

use std::sync::Arc;

use http::{HeaderMap, Request};

use crate::caller::Caller;
use crate::config::{TenantConfig, UpstreamConfig};
use crate::proxy::callers::{CallerRefusal, Callers};
use crate::upstream::Upstream;

/// Names the caller of a request with these headers, as a gateway with this table would; a token's
/// keys are fetched, and an authorization service is asked about `GET /`.
///
/// # Errors
/// The reason the caller would be refused.
pub(crate) async fn name_caller(
    tenant: &TenantConfig,
    upstreams: &[UpstreamConfig],
    headers: HeaderMap,
) -> Result<Caller, String> {
    let upstream = |name: &str| {
        let found = upstreams.iter().find(|upstream| upstream.name == name)?;
        Some((Arc::new(Upstream::new(found).ok()?), found.timeout))
    };
    let callers = Callers::new(tenant, upstream, None)?;
    let (mut head, ()) = Request::new(()).into_parts();
    head.headers = headers;
    callers.identify(None, &mut head).await.map_err(|refusal| match refusal {
        CallerRefusal::Problem(problem) => {
            format!("this caller is refused ({}): {}", problem.slug.as_str(), problem.detail)
        }
        CallerRefusal::Answer(answer) => {
            format!("this caller is refused: the authorization service answered {}", answer.status)
        }
    })
}
