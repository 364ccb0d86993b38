//! A user of the store's server who loses a right, or gets no further connection, while a gateway is
//! at work.

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

#[test]
fn a_server_that_refuses_further_connections_serves_over_those_that_are_open() {
    let backend = Backend::start();
    backend.always(answer(200, "{}"));
    let shop = Shop::own(Kind::Postgres);
    let gateway = shop.replica(&Setup::before(&backend), "");
    let (server, database) = shop.postgres().expect("a PostgreSQL");
    Request::redeem("before", BODY).send(gateway.addr).is(200, "executed", "");
    let allow =
        |is: bool| server.run_sql(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS {is}"));
    allow(false);
    for number in 0..8 {
        let key = format!("during-{number}");
        Request::redeem(&key, BODY).send(gateway.addr).is(200, "executed", "");
        assert_eq!(Request::get("/readyz").send(gateway.admin).status, 200);
    }
    allow(true);
    Request::redeem("during-0", BODY).send(gateway.addr).is(200, "replayed", "");
    assert_eq!(backend.calls(), 9);
}
