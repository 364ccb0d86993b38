//! Pointers that can never match are refused, with what to write.

use super::mistakes::check;

#[test]
fn a_pointer_with_a_wildcard_is_refused_with_what_to_write() {
    let list = "write \"/items\" for all of it, or \"/items/0";
    for (pointer, advice) in [
        ("/items/*", format!("a JSON pointer has no \"*\"; {list}\" for one element")),
        ("/items/*/t", format!("a JSON pointer has no \"*\"; {list}/t\" for one element")),
        ("/items/**/t", format!("a JSON pointer has no \"**\"; {list}/t\" for one element")),
        ("/items/[*]/t", format!("a JSON pointer has no \"[*]\"; {list}/t\" for one element")),
        (
            "/items/-",
            format!("\"-\" stands for the place behind the last element; {list}\" for one element"),
        ),
        ("/*", "a JSON pointer has no \"*\"; name the members, such as \"/id\"".to_owned()),
        ("/*/t", "a JSON pointer has no \"*\"; name the members, such as \"/id/t\"".to_owned()),
    ] {
        for key in ["include", "exclude"] {
            let expected = format!("9:24: `{key}`: \"{pointer}\" can never match: {advice}");
            check(&format!("fingerprint.{key} = [\"{pointer}\"]"), &[&expected]);
        }
    }
    // Signs inside of names are names.
    check("fingerprint.exclude = [\"/a-b\", \"/a*\", \"/items/0\", \"/~1*\"]", &[]);
}
