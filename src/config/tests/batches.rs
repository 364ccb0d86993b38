//! `mode = "items"`: the profile, and what is refused.

use super::{Mode, ROUTE, read};
use crate::config::catalog::KnownKey;
use crate::config::load::known_keys;
use crate::config::{Config, ItemsMode};
use crate::idempotency::retention::Keep;

/// What a route without a profile needs at least, from line 9 on.
const ITEMS: &str = r#"mode = "items"
[route.items]
at = "/list"
id = "/id"
[route.items.response]
match = ["id:/id"]
issued = { count = "/n" }
"#;

pub(super) fn items_mode(config: &Config) -> &ItemsMode {
    match &config.routes[0].mode {
        Mode::Items(mode) => mode,
        Mode::Request(_) | Mode::Off => panic!("the first route has another mode"),
    }
}

#[track_caller]
fn check(more: &str, expected: &[&str]) {
    let messages = match read(&format!("{ROUTE}{more}")) {
        Ok(_) => String::new(),
        Err(mistakes) => mistakes.to_string(),
    };
    let messages: Vec<&str> =
        messages.lines().map(|line| line.strip_prefix("t.toml:").unwrap_or(line)).collect();
    assert_eq!(messages, expected, "{more}");
}

#[test]
fn the_profile_is_the_block_of_the_reference() {
    let reference = include_str!("../../../docs/items.md");
    let (_, block) = reference.split_once("<!-- the profile -->\n```toml\n").unwrap();
    let (block, _) = block.split_once("```").unwrap();
    let written =
        read(&format!("{ROUTE}mode = \"items\"\n{block}")).unwrap_or_else(|it| panic!("{it}"));
    let preset = read(&format!("{ROUTE}mode = \"items\"\nprofile = \"capillary\"\n")).unwrap();
    assert_eq!(items_mode(&written).rules, items_mode(&preset).rules);
    assert_eq!(written.describe_json(), preset.describe_json());
    assert_eq!(items_mode(&preset).ledger, "create");
    assert_eq!(items_mode(&preset).record.retention.answer, Keep::Forever);
    assert!(preset.describe().contains("body /rewards/*/requestId"), "{}", preset.describe());
}

#[test]
fn the_reference_names_every_key() {
    let reference = include_str!("../../../docs/items.md");
    let mut seen = 0;
    let of_items = |table: &str| table.starts_with("[route.items");
    for KnownKey { key, .. } in known_keys().into_iter().filter(|known| of_items(&known.table)) {
        seen += 1;
        let named = [format!("`{key}`"), format!(".{key}]")];
        assert!(named.iter().any(|text| reference.contains(text)), "items.md lacks {key}");
    }
    assert!(seen > 40, "only {seen} keys were seen");
}

#[test]
fn a_short_description_is_enough() {
    check(ITEMS, &[]);
    let config = read(&format!("{ROUTE}{ITEMS}")).unwrap();
    let mode = items_mode(&config);
    assert_eq!(mode.rules.response.at.as_slice(), std::slice::from_ref(&mode.rules.at));
    assert_eq!((mode.rules.max_items, mode.rules.max_quantity), (1000, 1_000_000));
    assert_eq!((&mode.rules.same, &mode.rules.shared), (&None, &None));
    assert_eq!(mode.record.retention, config.store.retention);
}

#[test]
fn a_template_keeps_the_order_it_is_written_in() {
    let more = "[route.items.render]\nnone = { item = { \"/s\" = { z = 1.5, a = [true, \"é\\\"\"], m = { y = 1, b = 2 } }, \"/a\" = 1 } }\n";
    let config = read(&format!("{ROUTE}{ITEMS}{more}")).unwrap_or_else(|it| panic!("{it}"));
    let item = &items_mode(&config).rules.render.none.item;
    let texts: Vec<&str> = item.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(texts, [r#"{"z":1.5,"a":[true,"é\""],"m":{"y":1,"b":2}}"#, "1"]);
}

#[test]
fn what_would_freeze_a_partial_result_is_refused() {
    check(
        "mode = \"items\"\nprofile = \"capillary\"\n[route.key]\n[route.fingerprint]\n[route.suspect]\nwithin = \"1m\"\n",
        &[
            "11:1: `key` has no place on a route with mode = \"items\": the keys are the ids of the items, and a key for the whole request would replay a partial result for ever; remove it, and use [route.items]",
            "12:1: `fingerprint` has no place on a route with mode = \"items\": the keys are the ids of the items, and a key for the whole request would replay a partial result for ever; remove it, and use [route.items]",
            "13:1: `suspect` has no place on a route with mode = \"items\": it looks for another key of a whole request, and the items of a batch have keys of their own; remove it",
        ],
    );
    check(
        "[route.items]\nat = \"/a\"\n",
        &[
            "9:1: [route.items] needs mode = \"items\": with one key for each request, a partial result would be replayed for ever",
        ],
    );
    check(
        "profile = \"capillary\"\n",
        &[
            "9:11: profile = \"capillary\" is about batches whose items are fulfilled over several tries; write mode = \"items\"",
        ],
    );
    check(
        "mode = \"items\"\nprofile = \"stripe\"\n[route.items]\nat = \"\"\nid = \"/id\"\nresponse = { match = [\"position\"], issued = { count = \"/n\" } }\n",
        &[
            "10:11: profile = \"stripe\" is about one key for each request; with mode = \"items\" use \"capillary\", or none",
        ],
    );
    check(
        "mode = \"off\"\n[route.items]\n",
        &["10:1: `items` has no use on a route with mode = \"off\"; remove one of them"],
    );
    check(
        &format!(
            "{ITEMS}[[route]]\nname = \"put\"\nmethods = [\"PUT\"]\npath = \"/v1/orders\"\nupstream = \"api\"\n"
        ),
        &[
            "19:8: route \"create\" serves /v1/orders too, and one of the two has mode = \"items\", the other \"request\": a stored answer could freeze a partial result for ever; give both the same mode",
        ],
    );
    check(
        &format!(
            "{ITEMS}[[route]]\nname = \"get\"\nmethods = [\"GET\"]\npath = \"/v1/orders\"\nupstream = \"api\"\nmode = \"off\"\n"
        ),
        &[],
    );
    check(
        &format!("{ITEMS}append = [\"/b\"]\n")
            .replace("count = \"/n\"", "arrays = [\"/a\", \"/b\"]"),
        &[
            "16:10: `issued` counts /a, which `append` does not name: what earlier tries issued would be missing in the answer; add it to `append`",
        ],
    );
    check(
        &format!("{ITEMS}[route.record]\ntombstone = \"0s\"\n"),
        &[
            "17:13: after `retention` (7d) a `tombstone` of 0s would let complete items be issued again; keep one of them longer",
        ],
    );
}

#[test]
fn routes_that_share_a_ledger_compare_the_same() {
    let second = "[[route]]\nname = \"two\"\nmethods = [\"POST\"]\npath = \"/two\"\nupstream = \"api\"\nmode = \"items\"\n[route.items]\nledger = \"create\"\nat = \"\"\nsingle = true\nid = \"/id\"\nresponse = { match = [\"id:/id\"], issued = { count = \"/n\" } }\n";
    check(&format!("{ITEMS}{second}"), &[]);
    check(
        &format!("{ITEMS}{second}same = [\"/a\"]\n"),
        &[
            "22:1: route \"create\" shares the ledger \"create\", but has another `same`, `shared`, `echo` or groups, so that the same item would look changed; give both the same",
        ],
    );
    check(
        &format!("{ITEMS}{second}[route.record]\nretention = \"1s\"\n"),
        &[
            "28:1: route \"create\" shares the ledger \"create\", but has another `retention` or `tombstone`, so that one would forget what the other has to keep; give both the same",
        ],
    );
    check(
        &format!("{ITEMS}{second}")
            .replace("count = \"/n\" } }", "count = \"/n\" }, append = [\"/c\"] }"),
        &[
            "22:1: route \"create\" shares the ledger \"create\", but has another `append`, so that what one issued would be missing in the answers of the other; give both the same list",
        ],
    );
}

#[test]
fn routes_that_share_a_ledger_name_what_counts_alike() {
    let second = |path: &str, quantity: &str| {
        format!(
            "{ITEMS}[[route]]\nname = \"two\"\nmethods = [\"POST\"]\npath = \"{path}\"\nupstream = \"api\"\n{}",
            ITEMS.replace(
                "[route.items]\n",
                &format!("[route.items]\nledger = \"create\"\n{quantity}")
            )
        )
    };
    // Left out, a quantity counts under its usual name.
    check(&second("/two", "quantity = \"/quantity\"\n"), &[]);
    check(
        &second("/two", "quantity = \"/qty\"\n"),
        &[
            "22:1: route \"create\" shares the ledger \"create\", but has another `quantity`, so that the same item would look changed; give both the same",
        ],
    );
    check(
        &second("/two/{user}", ""),
        &[
            "19:8: route \"create\" shares the ledger \"create\", but has other parameters in its `path`, so that the same item would look changed; give them the same names, in the same order",
        ],
    );
}

#[test]
fn no_member_holds_two_things_and_no_answer_loses_its_rows() {
    check(
        &ITEMS.replace("id = \"/id\"\n", "id = \"/id\"\nquantity = \"/id\"\n"),
        &[
            "13:12: `quantity` and `id` name the same member: a smaller quantity would be sent as another id; give each its own",
        ],
    );
    check(
        &format!("{ITEMS}requested = \"/n\"\nappend = [\"/n\", \"/list\"]\n"),
        &[
            "13:1: `append` names /n, where a number is written: an answer can hold one of them only; give each its own",
            "13:1: `requested` and `count` name the same member: an answer can hold one of them only; give each its own",
        ],
    );
    check(
        &format!(
            "{ITEMS}[route.items.render]\ncomplete = {{ http = 204 }}\nmismatch = {{ http = 304, top = {{ \"/a\" = 1 }} }}\n"
        ),
        &[
            "17:21: an answer with the status 204 has no body, so that no row would reach the client; `http` is another, such as 200",
            "18:21: an answer with the status 304 has no body, so that no row would reach the client; `http` is another, such as 200",
        ],
    );
}

#[test]
fn what_is_needed_is_asked_for() {
    check(
        "mode = \"items\"\n",
        &[
            "4:1: mode = \"items\" needs [route.items], which says where the items, their ids and the rows of an answer stand",
        ],
    );
    check(
        "mode = \"items\"\n[route.items]\n",
        &[
            "10:1: [route.items] has no [route.items.response], which says how the backend's answer is read",
            "10:1: [route.items] has no `at`, a JSON pointer",
            "10:1: [route.items] has no `id`, a JSON pointer or \"position\"",
        ],
    );
    check(
        "mode = \"items\"\n[route.items]\nat = \"/a\"\nid = \"/i\"\n[route.items.response]\n",
        &[
            "13:1: [route.items.response] has no `match`, such as [\"id:/requestId\"] or [\"position\"]",
            "13:1: nothing says how many units were issued; give `issued` a `count`, `arrays` or `all`",
        ],
    );
}

#[test]
fn every_part_is_checked_at_its_place() {
    check(
        "mode = \"items\"\n[route.items]\nat = \"list\"\nid = \"\"\nsame = [\"/a\", \"/a\", \"b\"]\nmax_items = 0\nmax_quantity = \"9999999999999999999\"\nview = \"all\"\nledger = \"a b\"\nindivisible = { status = 200 }\n[route.items.response]\nmatch = [\"id:/a\", \"id:/b\", \"place\", \"position\", \"position\"]\nissued = { coun = \"/n\", all = { pointer = \"/a\" } }\nnot_issued = [{ equals = 1 }, { pointer = \"/a\", equals = 1, one_of = [2] }]\nretry = { pointer = \"/c\", one_of = [] }\nunknown = {}\nfinal = { pointer = \"/c\", absent_or_null = false }\n",
        &[
            "11:6: `at`: \"list\": a JSON pointer is empty or starts with \"/\" (RFC 6901)",
            "12:6: `id` names the whole item; name the member that holds its id",
            "13:15: `same` names /a twice",
            "13:21: `same`: \"b\": a JSON pointer is empty or starts with \"/\" (RFC 6901)",
            "14:13: `max_items` is 0, but must be 1 to 10000",
            "15:16: `max_quantity` is 9999999999999999999, but must be 1 to 9007199254740992",
            "16:8: `view` cannot be \"all\"; use \"cumulative\" or \"delta\"",
            "17:10: `ledger` must be 1 to 64 of the characters a-z, A-Z, 0-9, \"-\", \"_\" and \".\"",
            "18:26: `status` has no use here: a request has none",
            "20:19: `match` names two ids; a row has one",
            "20:28: `match` cannot be \"place\"; use \"id:/pointer\", \"member:/pointer\", \"index:/pointer\" or \"position\"",
            "20:49: `match` names \"position\" twice",
            "21:12: unknown key `coun` in `route.items.response.issued`; did you mean `count`?",
            "21:31: a matcher's `pointer` goes with one of `equals`, `one_of`, `class`, `present`, `absent_or_null` and `contains`",
            "22:15: `equals` tests the value of a place; name the place, as pointer = \"/error/code\"",
            "22:70: `equals` and `one_of` exclude each other; keep one of them",
            "23:9: `one_of` is empty, so that nothing could ever match",
            "24:11: a matcher needs a part: `status`, `contains`, or a place such as `pointer` with `equals`, `one_of`, `class`, `present` or `absent_or_null`",
            "25:44: `absent_or_null` can only be true; for the contrary write present = true",
        ],
    );
}

#[test]
fn templates_leave_the_ledger_its_own() {
    check(
        &format!(
            "{ITEMS}append = [\"/a/b\"]\n[route.items.render]\ncomplete = {{ item = {{ \"/n\" = 1, \"/a\" = 2, \"x\" = 3, \"\" = 4 }}, top = {{ \"/list/0\" = 1 }}, http = \"4xx\" }}\nmismatch = {{ top = {{}}, http = 200 }}\nduplicate = {{ top = {{ \"/a\" = inf }} }}\n"
        ),
        &[
            "17:1: a template puts /a into an item, which the ledger writes",
            "17:1: a template puts /list/0 into the answer, where the rows stand",
            "17:1: a template puts /n into an item, which the ledger writes",
            "18:49: `item`: \"x\": a JSON pointer is empty or starts with \"/\" (RFC 6901)",
            "18:57: `item` names the whole value; name a member",
            "18:94: `http` is one status, such as 409",
            "19:12: a refusal needs `top`, the members of its body",
            "19:31: a refusal cannot have the status of a success",
            "20:30: `route.items.render.duplicate.top./a`: JSON has no such number",
        ],
    );
}
