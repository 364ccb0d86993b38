//! A user of the store's server who loses a right while a gateway is at work.

use crate::support::{Backend, Kind, Request, Setup, Shop, answer, eventually};

const BODY: &str = r#"{"qr":"rsg:1"}"#;

#[test]
fn a_gateway_that_may_not_read_records_is_not_ready() {
    let backend = Backend::start();
    backend.always(answer(200, "{}"));
    let shop = Shop::own(Kind::Redis);
    let gateway = shop.replica(&Setup::before(&backend), "lease = \"1s\"");
    let server = shop.redis().expect("a Redis of its own");
    Request::redeem("k", BODY).send(gateway.addr).is(200, "executed", "");
    let ready = || Request::get("/readyz").send(gateway.admin);
    assert_eq!(ready().status, 200);
    server.cli(&["ACL", "SETUSER", "default", "-get", "-mget"]);
    let refused = eventually("the probe fails", || Some(ready()).filter(|it| it.status == 503));
    assert!(refused.text().contains("grant what docs/stores.md lists"), "{refused:?}");
    assert_eq!(Request::get("/healthz").send(gateway.admin).status, 200);
    server.cli(&["ACL", "SETUSER", "default", "+get", "+mget"]);
    eventually("the probe passes", || (ready().status == 200).then_some(()));
    Request::redeem("k", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 1);
}
