//! Samples of a gateway's metrics.

use std::net::SocketAddr;

use super::{Gateway, Request};

impl Gateway {
    /// The value of a series, such as `oncegate_unknown_records`, with its labels as they are
    /// exposed; `None`: there is no such series.
    #[track_caller]
    pub(crate) fn metric(&self, series: &str) -> Option<u64> {
        let scraped = Request::get("/metrics").send(self.admin);
        assert_eq!(scraped.status, 200, "{scraped:?}");
        sample(&scraped.text(), series)
    }
}

/// The value of a series; `None`: the gateway did not answer, or has no such series.
pub(crate) fn try_metric(admin: SocketAddr, series: &str) -> Option<u64> {
    sample(&Request::get("/metrics").try_send(admin).ok()?.text(), series)
}

fn sample(text: &str, series: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(value.parse().expect("a whole number"))
}
