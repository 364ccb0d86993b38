//! `[route.items.response]`: the reading of a backend's answer.

use super::items_consistency as consistency;
use super::list_paths::list_kind;
use super::matcher::{MatchScope, matchers};
use super::table::{Located, TableReader};
use crate::items::rules::{IssuedRules, MatchBy, ResponseRules};

/// `[route.items.response]`
pub(super) fn response(table: &TableReader<'_>, preset: ResponseRules) -> ResponseRules {
    let row_matchers = |key| matchers(table, key, MatchScope::Row);
    let answer_matchers = |key| matchers(table, key, MatchScope::Answer);
    let rules = ResponseRules {
        at: table.one_or_more_list_paths("at").unwrap_or(preset.at),
        kind: list_kind(table, preset.kind),
        row: row_matchers("row").unwrap_or(preset.row),
        by: match_by(table).unwrap_or(preset.by),
        issued: table.optional_table("issued", issued).unwrap_or(preset.issued),
        requested: table.pointer("requested").or(preset.requested),
        append: table.pointers("append").unwrap_or(preset.append),
        echo: table.pointers("echo").unwrap_or(preset.echo),
        all_issued: answer_matchers("all_issued").unwrap_or(preset.all_issued),
        not_issued: answer_matchers("not_issued").unwrap_or(preset.not_issued),
        retry: row_matchers("retry").unwrap_or(preset.retry),
        finals: row_matchers("final").unwrap_or(preset.finals),
        unknown: row_matchers("unknown").unwrap_or(preset.unknown),
        meanings: Vec::new(),
    };
    consistency::response(table, &rules);
    rules
}

fn issued(table: &TableReader<'_>) -> IssuedRules {
    let rules = IssuedRules {
        count: table.pointer("count"),
        arrays: table.pointers("arrays").unwrap_or_default(),
        all: matchers(table, "all", MatchScope::Row).unwrap_or_default(),
    };
    if rules.count.is_none() && rules.arrays.is_empty() && !table.has("all") {
        table.missing(&["count", "arrays", "all"], consistency::NOTHING_COUNTED);
    }
    rules
}

/// The ways from a row to the item.
fn match_by(table: &TableReader<'_>) -> Option<Vec<MatchBy>> {
    let mut ways = Vec::new();
    for written in table.filled_list::<String>("match", "name at least one way")? {
        let text = written.value.as_str();
        let pointer =
            |at| table.parsed_pointer(&Located { key: "match", at: written.at, value: at });
        let way = match text.split_once(':') {
            Some(("id", at)) => pointer(at.to_owned()).map(MatchBy::Id),
            Some(("member", at)) => pointer(at.to_owned()).map(MatchBy::Member),
            Some(("index", at)) => pointer(at.to_owned()).map(MatchBy::Index),
            None if text == "position" => Some(MatchBy::ListPosition),
            Some(_) | None => {
                let what = format!(
                    "`match` cannot be \"{text}\"; use \"id:/pointer\", \"member:/pointer\", \
                     \"index:/pointer\" or \"position\""
                );
                table.wrong(&written, what);
                None
            }
        };
        let is_id = |way: &MatchBy| matches!(way, MatchBy::Id(_));
        let is_index = |way: &MatchBy| matches!(way, MatchBy::Index(_));
        let has_twin =
            |way: &MatchBy, kind: fn(&MatchBy) -> bool| kind(way) && ways.iter().any(kind);
        match way {
            None => {}
            Some(way) if has_twin(&way, is_id) => {
                table.wrong(&written, "`match` names two ids; a row has one");
            }
            Some(way) if has_twin(&way, is_index) => {
                table.wrong(&written, "`match` names two indexes; a row has one");
            }
            Some(way) if ways.contains(&way) => {
                table.wrong(&written, format!("`match` names \"{text}\" twice"));
            }
            Some(way) => ways.push(way),
        }
    }
    Some(ways)
}
