//! A step of the server's clock ends every lease at once; calls of replicas that live stay theirs.

use crate::support::{Backend, Gate, Kind, Request, Setup, Shop, answer, eventually};

/// All leases end, as a step of the clock makes them.
const END_SQL: &str =
    "UPDATE oncegate.replica SET lease_until = clock_timestamp() - interval '1 minute'";
const LIVING_SQL: &str = "SELECT count(*) FROM oncegate.replica WHERE lease_until > now()";

/// The same on Redis: the time of a lease is its score, in milliseconds.
const END_LUA: &str = "for _, key in ipairs(redis.call('KEYS', 'oncegate:*:replicas')) do
  for _, owner in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZADD', key, 1, owner) end
end
return 0";
const LIVING_LUA: &str = "local count = 0
local now = redis.call('TIME')[1] * 1000
for _, key in ipairs(redis.call('KEYS', 'oncegate:*:replicas')) do
  count = count + redis.call('ZCOUNT', key, now, '+inf')
end
return count";

fn run(shop: &Shop, sql: &str, lua: &str) -> String {
    match (shop.postgres(), shop.redis()) {
        (Some((server, database)), _) => server.run_sql_in(database, sql),
        (_, Some(server)) => server.cli(&["EVAL", lua, "0"]),
        _ => panic!("neither PostgreSQL nor Redis"),
    }
}

#[test]
fn a_step_of_the_servers_clock_gives_up_no_call_of_a_replica_that_lives() {
    Kind::both(|kind| {
        let (backend, gate) = (Backend::start(), Gate::default());
        backend.always(answer(200, "{}").after(&gate));
        let shop = Shop::own(kind);
        let setup = Setup::before(&backend).redeem("duplicates.wait = \"50ms\"");
        // Half a lease is longer than any disk holds a heartbeat up.
        let [one, other] = [(); 2].map(|()| shop.replica(&setup, "lease = \"40s\""));
        let request = Request::redeem("k", r#"{"qr":"rsg:1"}"#);
        let mut client = request.begin(one.addr);
        backend.wait_calls(1);
        run(&shop, END_SQL, END_LUA);
        eventually("both replicas have renewed their leases", || {
            let again = request.send(other.addr);
            assert_eq!(again.error(), "request-in-progress", "{kind:?}: {again:?}");
            (run(&shop, LIVING_SQL, LIVING_LUA).trim() == "2").then_some(())
        });
        let again = request.send(other.addr);
        assert_eq!(again.error(), "request-in-progress", "{kind:?}: {again:?}");
        gate.open();
        client.read().is(200, "executed", "");
        request.send(other.addr).is(200, "replayed", "");
        assert_eq!(backend.calls(), 1);
    });
}
