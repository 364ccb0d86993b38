//! An operator, who asks the records API.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Gateway, Kind, Request, Response, Setup, Shop, eventually};

/// The token that [`AdminClient::guard`] configures.
pub(crate) const TOKEN: &str = "s3cret-of-the-operator";

/// An operator with the token.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdminClient(SocketAddr);

impl AdminClient {
    /// At this gateway's admin listener.
    pub(crate) fn of(gateway: &Gateway) -> Self {
        Self(gateway.admin)
    }

    /// The setup with the token.
    pub(crate) fn guard(setup: Setup) -> Setup {
        setup.admin(&format!("token = {TOKEN:?}"))
    }

    /// A request with the token.
    pub(crate) fn request(method: &str, target: &str) -> Request {
        Request::new(method, target).header("authorization", format!("Bearer {TOKEN}"))
    }

    /// Reads this.
    #[track_caller]
    pub(crate) fn get(self, target: &str) -> Response {
        Self::request("GET", target).send(self.0)
    }

    /// The records of a query, and the cursor.
    #[track_caller]
    pub(crate) fn list(self, query: &str) -> (Vec<Value>, Option<String>) {
        let reply = self.get(&format!("/api/records?{query}"));
        assert_eq!(reply.status, 200, "{reply:?}");
        let page = reply.json();
        let records = page["records"].as_array().expect("a list").clone();
        (records, page["next"].as_str().map(str::to_owned))
    }

    /// The id of the one record with this key.
    #[track_caller]
    pub(crate) fn id(self, key: &str) -> String {
        let (records, _) = self.list(&format!("key={key}"));
        let [record] = records.as_slice() else { panic!("not one: {records:?}") };
        record["id"].as_str().expect("an id").to_owned()
    }

    /// The record with this key.
    #[track_caller]
    pub(crate) fn show(self, key: &str) -> Value {
        let reply = self.get(&format!("/api/records/{}", self.id(key)));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// The record with this key, once it is in this state.
    #[track_caller]
    pub(crate) fn show_in(self, key: &str, state: &str) -> Value {
        eventually("the record is in its state", || {
            let shown = self.show(key);
            (shown["state"] == state).then_some(shown)
        })
    }

    /// Resolves a record with this body.
    #[track_caller]
    pub(crate) fn resolve(self, id: &str, body: &Value) -> Response {
        let target = format!("/api/records/{id}/resolve");
        Self::request("POST", &target).json(&body.to_string()).send(self.0)
    }

    /// Settles the record with this key.
    #[track_caller]
    pub(crate) fn settle(self, key: &str, how: &str) -> Value {
        let reply = self.resolve(&self.id(key), &json!({ "as": how, "reason": "looked" }));
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    /// Takes back the answer of a record with this body.
    #[track_caller]
    pub(crate) fn reopen(self, id: &str, body: &Value) -> Response {
        let target = format!("/api/records/{id}/reopen");
        Self::request("POST", &target).json(&body.to_string()).send(self.0)
    }

    /// Purges a record.
    #[track_caller]
    pub(crate) fn purge(self, id: &str) -> Response {
        Self::request("DELETE", &format!("/api/records/{id}?by=bob")).send(self.0)
    }
}

/// The steps in the history of a record.
pub(crate) fn steps(record: &Value) -> Vec<String> {
    let history = record["history"].as_array().expect("a history");
    history.iter().map(|entry| entry["what"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Where a test runs: on a directory, or with replicas on a server.
pub(crate) enum Place {
    Directory,
    Server(Shop),
}

impl Place {
    /// Runs `test` on a directory, on PostgreSQL, on Redis and on a Redis Cluster.
    pub(crate) fn each(mut test: impl FnMut(Place)) {
        println!("on a directory");
        test(Self::Directory);
        Kind::all(|kind| test(Self::Server(Shop::borrow(kind))));
    }

    /// One gateway on a directory, two on a server.
    pub(crate) fn start(&self, setup: &Setup) -> Vec<Gateway> {
        match self {
            Self::Directory => vec![setup.start()],
            Self::Server(shop) => shop.replicas(setup, 2),
        }
    }
}
