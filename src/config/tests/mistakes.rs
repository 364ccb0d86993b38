//! Wrong configurations: every mistake at its line, in one go.

use super::{ROUTE, read};

/// Checks the messages for [`ROUTE`] followed by `more`, which starts on line 9.
#[track_caller]
pub(super) fn check(more: &str, expected: &[&str]) {
    check_whole(&format!("{ROUTE}{more}"), expected);
}

#[track_caller]
fn check_whole(text: &str, expected: &[&str]) {
    let messages = match read(text) {
        Ok(_) => String::new(),
        Err(mistakes) => mistakes.to_string(),
    };
    let messages: Vec<&str> =
        messages.lines().map(|line| line.strip_prefix("t.toml:").unwrap_or(line)).collect();
    assert_eq!(messages, expected, "{text}");
}

#[test]
fn unknown_keys_come_with_the_nearest_known_one() {
    check("[servr]", &["9:2: unknown key `servr`; did you mean `server`?"]);
    check(
        "[route.duplicates]\nwiat = \"5s\"",
        &["10:1: unknown key `wiat` in `route.duplicates`; did you mean `wait`?"],
    );
    check(
        "[server.limits]\nmax_heads = 1\nfoo = 2",
        &[
            "10:1: unknown key `max_heads` in `server.limits`; did you mean `max_head`?",
            "11:1: unknown key `foo` in `server.limits`; known here: `connections`, `idle_timeout`, `header_timeout`, `body_timeout`, `max_head`, `max_body`, `buffered`, `in_flight`, `in_flight_per_tenant`, `rate_per_tenant`, `burst_per_tenant`, `stored_keys_per_tenant` or `streams`",
        ],
    );
}

#[test]
fn a_misspelled_key_is_not_missing_as_well() {
    check_whole(
        "[[upstream]]\nnam = \"api\"\nurl = \"http://a\"\n[[route]]\nname = \"r\"\nmethod = [\"GET\"]\npath = \"/\"\nupstream = \"api\"\nmode = \"off\"",
        &[
            "2:1: unknown key `nam` in `upstream`; did you mean `name`?",
            "6:1: unknown key `method` in `route`; did you mean `methods`?",
        ],
    );
    check_whole(
        &ROUTE.replace("[[route]]", "[[routes]]"),
        &["4:3: unknown key `routes`; did you mean `route`?"],
    );
}

#[test]
fn what_is_needed_is_asked_for_at_its_table() {
    check_whole(
        "[[upstream]]\n\n[[route]]\n",
        &[
            "1:1: this [[upstream]] has no `name`; routes need it",
            "1:1: this [[upstream]] has no `url`; write url = \"http://host:port\"",
            "3:1: this [[route]] has no `methods`, such as [\"POST\"]",
            "3:1: this [[route]] has no `name`; logs and records need it",
            "3:1: this [[route]] has no `path`, such as \"/v1/orders/{id}\" or \"/{*rest}\"",
            "3:1: this [[route]] has no `upstream`; name an [[upstream]]",
        ],
    );
}

#[test]
fn values_of_another_type_are_told() {
    check(
        "max_body = true\n[server]\nlisten = \"0.0.0.0:80\"\ndrain = 30\n[server.limits]\nconnections = \"many\"\nin_flight = -1\n[store]\ncreate = 1",
        &[
            "9:12: `route.max_body` is a boolean, but must be a size such as \"1MiB\"",
            "11:10: `server.listen` is a string, but must be a list: [ … ]",
            "12:9: `server.drain` is an integer, but must be a duration such as \"5s\"",
            "14:15: `server.limits.connections`: \"many\" is not a whole number",
            "15:13: `server.limits.in_flight` is an integer, but must be a whole number, zero or more",
            "17:10: `store.create` is an integer, but must be true or false",
        ],
    );
    check_whole(
        "route = 5\n[[server]]\n[upstream]\nname = \"a\"",
        &[
            "1:9: `route` is an integer, but must be a list: [ … ]",
            "2:1: `server` is a list, but must be a table",
            "3:1: `upstream` is one table, but there may be several; write [[upstream]]",
        ],
    );
    check(
        "key = [\"X-Key\"]\n[admin]\nlisten = [\"0.0.0.0:9090\"]",
        &[
            "9:7: `route.key` is a list, but must be a table",
            "11:10: `admin.listen` is a list, but must be a string",
        ],
    );
}

#[test]
fn workers_are_one_at_least_and_not_too_many() {
    let message =
        |workers: &str, message: &str| check(&format!("[server]\nworkers = {workers}"), &[message]);
    message("0", "10:11: `workers` is 0, but must be 1 to 1024");
    message("1025", "10:11: `workers` is 1025, but must be 1 to 1024");
    let config = read(&format!("{ROUTE}[server]\nworkers = \"3\"")).unwrap();
    assert_eq!(config.server.workers, 3);
}

#[test]
fn units_are_needed_and_known() {
    check(
        "[route.duplicates]\nwait = \"5\"\nanswer_within = \"2 s\"\n[route.record]\nmax_stored_body = \"1MB\"\nretention = \"for ever\"\ntombstone = \"1y\"\n[server]\ndrain = \"40000d\"",
        &[
            "10:8: `route.duplicates.wait`: \"5\" is not a duration; write a whole number and its unit (ms, s, m, h, d), such as \"5s\"",
            "11:17: `route.duplicates.answer_within`: \"2 s\" is not a duration; write a whole number and its unit (ms, s, m, h, d), such as \"5s\"",
            "13:19: `route.record.max_stored_body`: \"1MB\" is not a size; write a whole number and its unit (B, KiB, MiB, GiB), such as \"1MiB\"",
            "14:13: `route.record.retention`: \"for ever\" is not a duration; write a whole number and its unit (ms, s, m, h, d), such as \"5s\"",
            "15:13: `route.record.tombstone`: \"1y\" is not a duration; write a whole number and its unit (ms, s, m, h, d), such as \"5s\"",
            "17:9: `server.drain`: \"40000d\" is longer than a hundred years (36500d)",
        ],
    );
}

#[test]
fn a_key_in_the_wrong_table_comes_with_the_right_one() {
    check(
        "wait = \"5s\"\nurls = []\npool = 3\nupstreams = 1\nzz = 1",
        &[
            "9:1: unknown key `wait` in `route`; it belongs to [route.duplicates]",
            "10:1: unknown key `urls` in `route`; it belongs to [store.redis] or [[upstream]]",
            "11:1: unknown key `pool` in `route`; it belongs to [store.postgres]",
            "12:1: unknown key `upstreams` in `route`; did you mean `upstream`?",
            "13:1: unknown key `zz` in `route`; known here: `name`, `methods`, `path`, `when`, `upstream`, `profile`, `mode`, `max_body`, `tenant`, `key`, `fingerprint`, `duplicates`, `outcome`, `probe`, `resend`, `already_done`, `reverse`, `record`, `suspect`, `items` or `errors`",
        ],
    );
}

#[test]
fn every_mistake_of_syntax_is_told() {
    check_whole(
        "[server]\ndrain = 5 s\nworkers = 2\nworkers = 3\n[admin]\nlisten: \"a\"\n",
        &[
            "2:9: this is not TOML: text stands in quotation marks; write \"…\" around the value",
            "4:1: this is not TOML: `workers` stands twice in this table; keep one of them",
            "6:7: this is not TOML: write `key = value`, with `=` in the place of `:`",
        ],
    );
}

#[test]
fn text_that_is_not_toml_is_told_once() {
    let message = read("[server]\nlisten = [\"a\"\ndrain = 5\n").unwrap_err();
    assert_eq!(message.list.len(), 1, "{message}");
    assert!(message.to_string().starts_with("t.toml:3:"), "{message}");
}

#[test]
fn listeners_are_checked() {
    check(
        "[server]\nlisten = [\":8080\", \"127.0.0.1:9090\", \"0.0.0.0:9090\"]\n[admin]\nlisten = \"127.0.0.1:9090\"",
        &[
            "10:11: `listen`: \":8080\" is not an IP address and a port, such as \"0.0.0.0:8080\" or \"[::]:8080\", and not a Unix socket, such as \"unix:/run/oncegate.sock\"",
            "10:38: `listen` names 0.0.0.0:9090 twice",
            "12:10: the admin listener on 127.0.0.1:9090 takes an address of [server] `listen`",
        ],
    );
    check("[server]\nlisten = []", &["10:10: `listen` is empty; name at least one address"]);
    check(
        "[admin]\nlisten = \"0.0.0.0:9090\"",
        &[
            "10:10: the admin listener is on 0.0.0.0:9090, which is not a loopback address; set `token_file`, or listen on 127.0.0.1",
        ],
    );
    check("[admin]\nlisten = \"0.0.0.0:9090\"\ntoken = \"${TOKEN}\"", &[]);
    check("[server]\nlisten = [\"127.0.0.1:0\"]\n[admin]\nlisten = \"127.0.0.1:0\"", &[]);
}

#[test]
fn secrets_never_stand_in_a_message() {
    for more in [
        "[admin]\ntoken = \"${TOKEN} ${TOKEN}\"",
        "[admin]\ntoken = [\"${TOKEN}\"]",
        "[admin]\ntoken = { s3cret = 1 }",
        "[admin]\ntokn = \"${TOKEN}\"",
        "[admin]\ntoken = \"${TOKEN} ${NO_SUCH}\"",
        "[[upstream]]\nname = \"b\"\nurl = \"http://user:${TOKEN}@host\"",
        "[[upstream]]\nname = \"b\"\nurl = \"http://host/?key=${TOKEN}\"",
        "admin = \"${TOKEN}\"",
    ] {
        let message = read(&format!("{ROUTE}{more}")).expect_err(more).to_string();
        assert!(!message.contains("s3cret"), "{more}: {message}");
    }
}

#[test]
fn the_environment_is_asked_for_what_is_missing() {
    check(
        "[store.embedded]\npath = \"${DATA}/x\"\n[admin]\nlisten = \"127.0.0.1:${9}\"\ntoken_file = \"${\"",
        &[
            "10:8: `store.embedded.path`: the environment variable DATA is not set; set it, or write \"${DATA:-default}\"",
            "12:10: `admin.listen`: \"${…}\" does not hold the name of an environment variable (letters, digits and \"_\"); write \"$${\" for the characters themselves",
            "13:14: `admin.token_file`: \"${\" without \"}\"; write \"${NAME}\", or \"$${\" for the characters themselves",
        ],
    );
    check_whole(
        &ROUTE.replace("[\"POST\"]", "[\"${METHOD}\"]"),
        &[
            "6:12: `route.methods`: the environment variable METHOD is not set; set it, or write \"${METHOD:-default}\"",
        ],
    );
}

#[test]
fn the_store_and_its_limits_are_checked() {
    check(
        "[store]\nretention = \"0s\"\nexpect_id = \"mine\"\n[store.embedded]\npath = \"\"\n[server.limits]\nmax_head = \"1KiB\"\nin_flight = 0\nbuffered = \"512KiB\"\nheader_timeout = \"0s\"",
        &[
            "10:13: `retention` is 0s, so that no answer could ever be replayed; write a time such as \"7d\"",
            "11:13: `expect_id` is not a UUID; `oncegate store info` prints the store's",
            "13:8: `path` is empty; name a directory",
            "15:12: `max_head` is 1KiB, but must be 8KiB to 1MiB",
            "16:13: `in_flight` is 0, but must be 1 to 10000000",
            "17:12: `buffered` (512KiB) is less than `max_body` (1MiB), so that no body of that size could ever be taken",
            "18:18: `header_timeout` is 0s, but must be 1ms to 1d",
        ],
    );
    check(
        "[server.limits]\nin_flight = 5\nin_flight_per_tenant = 6",
        &["11:24: `in_flight_per_tenant` is more than `in_flight` (5)"],
    );
    check(
        "[server.limits]\nrate_per_tenant = \"5\"\n",
        &[
            "10:19: `server.limits.rate_per_tenant`: \"5\" is not a rate; write a whole number and its time (/s, /m, /h), such as \"100/s\"",
        ],
    );
    check(
        "[server.limits]\nburst_per_tenant = 5\n",
        &[
            "10:20: `burst_per_tenant` has no use without `rate_per_tenant`; write a rate, such as rate_per_tenant = \"100/s\"",
        ],
    );
}

#[test]
fn upstreams_are_checked() {
    check(
        "[[upstream]]\nname = \"api\"\nurl = \"10.0.0.1:80\"\n[[upstream]]\nname = \"a b\"\nurls = [\"http://a\", \"http://a/\", \"http://u:p@a\", \"https://b/?x\", \"http://\", \"http://c:99999\"]\ntimeout = \"0s\"",
        &[
            "10:8: another [[upstream]] is named \"api\" already",
            "11:7: `url` must start with http://, https:// or unix:",
            "13:8: `name` must be 1 to 64 of the characters a-z, A-Z, 0-9, \"-\", \"_\" and \".\"",
            "14:21: `urls` names the same address twice",
            "14:34: `urls` may not hold a user name or password, which would not be sent",
            "14:50: `urls` may not have a query or a fragment",
            "14:66: `urls` has no host, or a port that is not one",
            "14:77: `urls` has no host, or a port that is not one",
            "15:11: `timeout` is 0s, but must be 1ms to 1d",
        ],
    );
    check(
        "[[upstream]]\nname = \"b\"\nurl = \"http://a\"\nurls = [\"http://b\"]\nca = \"ca.pem\"\nclient_cert = { cert = \"c.pem\" }",
        &[
            "11:7: `url` and `urls` are both given; keep one of them",
            "13:6: `ca` has no use: no url of this upstream is https://",
            "14:15: `client_cert` has no use: no url of this upstream is https://",
            "14:15: `client_cert` needs `key`, a PEM file",
        ],
    );
}

#[test]
fn routes_are_checked() {
    check(
        "[[route]]\nname = \"create\"\nmethods = [\"get\", \"PSOT\", \"CONNECT\", \"GET\", \"GET\", \"A B\"]\npath = \"v1\"\nupstream = \"apu\"\nmode = \"of\"\nprofile = \"strip\"",
        &[
            "10:8: another [[route]] is named \"create\" already",
            "11:12: `methods`: methods are upper-case; write \"GET\"",
            "11:19: `methods`: \"PSOT\" is not a method; did you mean \"POST\"?",
            "11:27: `methods`: CONNECT is never forwarded",
            "11:45: `methods` names GET twice",
            "11:52: `methods`: \"A B\" is not a method",
            "12:8: `path` \"v1\" must start with \"/\"",
            "13:12: there is no upstream \"apu\"; did you mean \"api\"?",
            "14:8: `mode` cannot be \"of\"; did you mean \"off\"?",
            "15:11: `profile` cannot be \"strip\"; did you mean \"stripe\"?",
        ],
    );
}

#[test]
fn paths_are_told_apart() {
    let route = |name: &str, method: &str, path: &str| {
        format!(
            "[[route]]\nname = \"{name}\"\nmethods = [\"{method}\"]\npath = \"{path}\"\nupstream = \"api\"\n"
        )
    };
    let check = |method: &str, path: &str, expected: &[&str]| {
        let first = route("one", "POST", "/v2/{id}");
        check(&format!("{first}{}", route("two", method, path)), expected);
    };
    check("GET", "/v2/{id}", &[]);
    check("POST", "/v2/x", &[]);
    check("POST", "/{*rest}", &[]);
    check(
        "POST",
        "/v2/{id}",
        &[
            "17:8: POST /v2/{id} belongs to route \"one\" already; to tell requests of one path apart, give one of the routes a `when`",
        ],
    );
    check(
        "GET",
        "/v2/{name}",
        &[
            "17:8: `path` \"/v2/{name}\" cannot be told from \"/v2/{id}\" of another route; give their parameters the same name",
        ],
    );
    for (path, what) in [
        (
            "/a{b",
            "has braces that are not a parameter; write \"{name}\" or \"{*name}\", and \"{{\" for the character itself",
        ),
        ("/{*rest}/a", "may have \"{*name}\" only as its last segment"),
        ("/{a}-{b}", "has two parameters in one segment; put a \"/\" between them"),
        ("/a?b=c", "must end before \"?\" and \"#\"; the query is not matched"),
        ("/a/../b", "may not hold the segments \".\" and \"..\""),
        ("/a//b", "may not hold an empty segment (\"//\")"),
        ("/a b", "may hold visible ASCII characters only, and no \"\\\""),
        ("/%41", "must write \"%41\" as \"A\""),
        ("/%4", "holds a \"%\" without two hexadecimal digits"),
        ("/.well-known/idempotency", "is the gateway's own; it publishes its contract there"),
    ] {
        check("GET", path, &[&format!("17:8: `path` \"{path}\" {what}")]);
    }
}

#[test]
fn an_off_route_has_nothing_keyed() {
    check(
        "mode = \"off\"\nprofile = \"ietf\"\n[route.key]\n[route.fingerprint]\n[route.duplicates]\n[route.outcome]\n[route.record]\n",
        &[
            "10:11: `profile` has no use on a route with mode = \"off\"; remove one of them",
            "11:1: `key` has no use on a route with mode = \"off\"; remove one of them",
            "12:1: `fingerprint` has no use on a route with mode = \"off\"; remove one of them",
            "13:1: `duplicates` has no use on a route with mode = \"off\"; remove one of them",
            "14:1: `outcome` has no use on a route with mode = \"off\"; remove one of them",
            "15:1: `record` has no use on a route with mode = \"off\"; remove one of them",
        ],
    );
}

#[test]
fn keys_are_checked() {
    check(
        "[route.key]\nheader = \"X Key\"\npointer = \"requestId\"\nscope = \"all\"\nsyntax = \"strict\"\nmin_length = 50\nmax_length = 40\nformat = \"uid\"",
        &[
            "10:10: `header` and `pointer` are both given; a key has one place",
            "10:10: `header`: \"X Key\" is not the name of a header",
            "11:11: `pointer`: \"requestId\": a JSON pointer is empty or starts with \"/\" (RFC 6901)",
            "12:9: `scope` cannot be \"all\"; use \"tenant\" or \"route\"",
            "13:10: `syntax` is about a key in a header; a key in another place has none",
            "14:14: `min_length` (50) is more than `max_length` (40)",
            "16:10: `format` cannot be \"uid\"; did you mean \"uuid\"?",
        ],
    );
    check(
        "[route.key]\nheader = \"X-Api-Key\"\nformat = \"uuid\"\nmax_length = 20",
        &[
            "10:10: x-api-key is one of [tenant] `headers`, so that every key would be another caller's",
            "11:10: a UUID has 36 characters, which `min_length` (1) and `max_length` (20) leave out",
        ],
    );
    check(
        "[route.key]\nheader = \"Content-Length\"\nmax_length = 2000\nmin_length = 0",
        &[
            "10:10: `header` cannot be Content-Length, which belongs to HTTP or to the gateway itself",
            "11:14: `max_length` is 2000, but must be 1 to 1024",
            "12:14: `min_length` is 0, but must be 1 to 1024",
        ],
    );
}

#[test]
fn fingerprint_duplicates_and_record_are_checked() {
    check(
        "[route.fingerprint]\nbody = \"raw\"\ninclude = [\"/a\"]\nexclude = [\"/b~\"]\nheaders = [\"x-a\", \"X-A\"]",
        &[
            "11:11: `include` and `exclude` are both given; keep one of them",
            "11:11: `include` has no use with body = \"raw\"; remove one of them",
            "12:11: `exclude` has no use with body = \"raw\"; remove one of them",
            "12:12: `exclude`: \"/b~\": in a JSON pointer \"~\" is written \"~0\" and \"/\" is written \"~1\"",
            "13:19: `headers` names x-a twice",
        ],
    );
    check(
        "[route.duplicates]\nanswer_within = \"61s\"\nwait = \"2d\"\nreplayed_header = \"Connection\"\n[route.record]\nsubject = \"/a~2\"\nmax_stored_body = \"2GiB\"",
        &[
            "10:17: `answer_within` (1m1s) is longer than the `timeout` of upstream \"api\" (1m) and would never matter",
            "11:8: `wait` is 2d, but must be 0s to 1d",
            "12:19: `replayed_header` cannot be Connection, which belongs to HTTP or to the gateway itself",
            "14:11: `subject`: \"/a~2\": in a JSON pointer \"~\" is written \"~0\" and \"/\" is written \"~1\"",
            "15:19: `max_stored_body` is 2GiB, but must be 0B to 256MiB",
        ],
    );
}

#[test]
fn outcomes_are_checked() {
    check(
        "[route.outcome]\nfinal = [\"2xx\", 404, \"6xx\"]\nretry = [404, \"2xx\", 700]\nunknown = [true]\non_unknown = \"wait\"",
        &[
            "10:22: `route.outcome.final`: \"6xx\" is not a status; write 408, or \"4xx\" for a whole class",
            "11:10: `retry` names 404, which stands in another list already",
            "11:15: `retry` names 2xx, but a client that saw a success must never run again",
            "11:22: `route.outcome.retry`: 700 is not the status of an answer (200 to 599)",
            "12:12: `route.outcome.unknown` is a boolean, but must be a status such as 408 or \"4xx\"",
            "13:14: `on_unknown` cannot be \"wait\"; use \"hold\", \"probe\", \"resend\" or \"reverse\"",
        ],
    );
    check(
        "[route.outcome]\nfinal = []",
        &["9:1: no answer is final, so that none could ever be replayed"],
    );
}

#[test]
fn a_file_that_an_admin_token_stands_in_must_be_there() {
    let message = read(&format!("{ROUTE}[admin]\ntoken_file = \"no/such/token\"")).unwrap_err();
    let message = message.to_string();
    assert!(
        message.starts_with("t.toml:10:14: `token_file`: cannot read no/such/token: "),
        "{message}"
    );
}

#[test]
fn places_are_counted_in_characters() {
    check(
        "[admin] # ÄÖ\n\"ü\" = 1",
        &[
            "10:1: unknown key `ü` in `admin`; known here: `listen`, `token`, `token_file` or `hosts`",
        ],
    );
    check(
        "admin = { \"üü\" = 1, listn = \"a\" }",
        &["9:1: unknown key `admin` in `route`; it is a table of its own, [admin]"],
    );
}

#[test]
fn any_bytes_are_read_to_an_end() {
    let text = include_str!("../../../config/full.toml");
    // Every prefix, and every line left out: many mistakes, no panic.
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)).step_by(7) {
        let _ = read(&text[..end]);
    }
    let lines: Vec<&str> = text.lines().collect();
    for out in 0..lines.len() {
        let rest: Vec<&str> =
            lines.iter().enumerate().filter(|(at, _)| *at != out).map(|(_, line)| *line).collect();
        let _ = read(&rest.join("\n"));
    }
}

#[test]
fn the_listeners_tls_and_peers_are_checked() {
    check(
        "[server]\ntls = { cert = \"a\", client_auth = \"optional\" }\nproxy_protocol = [\"10.0.0.1/8\"]\nlisten = [\"unix:\", \"unix:a\", \"unix:a\"]",
        &[
            "10:7: `tls` needs `key`, a PEM file",
            "10:35: `client_auth` has no use without `client_ca`, the PEM file of the authorities that sign the certificates of clients",
            "11:19: `proxy_protocol`: `10.0.0.1/8` has bits set beyond its first 8; write the first address of the network, or leave out `/8` for a single address",
            "12:11: `listen`: \"unix:\" names no file; write the path of a Unix socket, such as \"unix:/run/oncegate.sock\"",
            "12:30: `listen` names unix:a twice",
        ],
    );
}
