use super::*;

fn canonical(text: &str) -> Option<Vec<u8>> {
    let document = Document::parse(text.as_bytes()).unwrap();
    let mut canonical = Vec::new();
    document.root().canonical(&mut canonical, &[]).then_some(canonical)
}

#[track_caller]
fn check_same(left: &str, right: &str, same: bool) {
    assert_eq!(canonical(left) == canonical(right), same, "{left} and {right}");
}

#[test]
fn member_order_white_space_and_escapes_do_not_matter() {
    check_same(r#"{"a":1,"b":[true,null]}"#, "{ \"b\" : [ true , null ] ,\n\"a\":1 }", true);
    check_same(r#""\u0041\n\ud83d\ude00\/""#, "\"A\\u000a😀/\"", true);
}

#[test]
fn number_text_kind_and_element_order_matter() {
    check_same("1", "1.0", false);
    check_same("1e2", "100", false);
    check_same("[1,2]", "[2,1]", false);
    check_same(r#"{"a":1}"#, r#"{"a":"1"}"#, false);
    check_same("[[1],2]", "[[1,2]]", false);
    check_same("90071992547409931", "90071992547409932", false);
}

#[test]
fn a_name_that_stands_twice_has_no_canonical_form() {
    assert_eq!(canonical(r#"{"a":1,"a":1}"#), None);
    assert_eq!(canonical(r#"[{"x":{"a":1,"\u0061":2}}]"#), None);
    assert!(Document::parse(br#"{"o":{"k":1,"k":2}}"#).unwrap().has_duplicates());
    assert!(!Document::parse(br#"{"o":{"k":1},"k":2}"#).unwrap().has_duplicates());
}

#[test]
fn pointers_find_members_and_elements() {
    let text = r#"{"a/b":{"~":[10,{"":"x"}]},"n":1.10}"#;
    let document = Document::parse(text.as_bytes()).unwrap();
    let raw = |pointer: &str| {
        document.find(&Pointer::parse(pointer).unwrap()).map(|value| value.raw().to_owned())
    };
    assert_eq!(raw(""), Some(text.to_owned()));
    assert_eq!(raw("/n"), Some("1.10".to_owned()));
    assert_eq!(raw("/a~1b/~0/0"), Some("10".to_owned()));
    assert_eq!(raw("/a~1b/~0/1/"), Some("\"x\"".to_owned()));
    assert_eq!(raw("/a~1b/~0/01"), None);
    assert_eq!(raw("/n/0"), None);
    assert_eq!(Pointer::parse("a"), Err(PointerError::NoLeadingSlash));
    assert_eq!(Pointer::parse("/~2"), Err(PointerError::Escape));
    assert_eq!(Pointer::parse("/a~1b/~0").unwrap().to_string(), "/a~1b/~0");
}

#[test]
fn what_is_not_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "[1,]",
        "[,1]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "01",
        "1.",
        ".5",
        "+1",
        "1e",
        "-",
        "nul",
        "truex",
        "\"a",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\u{1}\"",
        "1 2",
        "[1}",
        "{\"a\":1]",
        "1\u{feff}",
        "\"\\ud83dx\\u12\"",
        "NaN",
    ] {
        assert!(Document::parse(text.as_bytes()).is_err(), "{text:?} was taken");
    }
    assert_eq!(Document::parse(b"\"\xff\"").unwrap_err(), ParseError::Utf8);
}

/// RFC 8259 sections 8.1 and 8.2.
#[test]
fn halves_of_surrogate_pairs_and_a_byte_order_mark_are_read() {
    for (text, characters) in [
        (r#""cut \ud83d""#, "cut \u{fffd}d83d"),
        (r#""\uD83D\u0041""#, "\u{fffd}d83dA"),
        (r#""\ud83d\ud83d\ude00""#, "\u{fffd}d83d😀"),
        (r#""\ude00\ud83d""#, "\u{fffd}de00\u{fffd}d83d"),
        (r#""\ud83d\n""#, "\u{fffd}d83d\n"),
        (r#""\udc00\udc00""#, "\u{fffd}dc00\u{fffd}dc00"),
        ("\u{feff} \"a\"", "a"),
    ] {
        let document = Document::parse(text.as_bytes()).unwrap();
        assert_eq!(document.root().as_str().unwrap(), characters, "{text}");
    }
}

#[test]
fn depth_and_number_of_values_are_limited() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(Document::parse(nested(MAX_DEPTH).as_bytes()).is_ok());
    assert_eq!(Document::parse(nested(MAX_DEPTH + 1).as_bytes()).unwrap_err(), ParseError::TooDeep);
    let many = |count: usize| format!("[{}0]", "0,".repeat(count - 2));
    assert!(Document::parse(many(MAX_VALUES).as_bytes()).is_ok());
    assert_eq!(Document::parse(many(MAX_VALUES + 1).as_bytes()).unwrap_err(), ParseError::TooLarge);
}

#[test]
fn the_parser_agrees_with_serde_json_on_mutated_texts() {
    let seed = std::env::var("ONCEGATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(0x0e5e_ed01);
    println!("ONCEGATE_TEST_SEED={seed}");
    let mut state = seed | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let alphabet = b"{}[]\",:\\u0019aeE+-.tfn \xc3\xa9d8";
    let sample = br#"{"a":[1,-2.5e3,"x\u00e9\n",true,false,null,{}],"b":{"c":""}}"#;
    let mut taken = 0;
    for _ in 0..50_000 {
        let mut text = sample.to_vec();
        for _ in 0..=random(3) {
            let at = random(text.len());
            match random(3) {
                0 => text[at] = alphabet[random(alphabet.len())],
                1 => drop(text.remove(at)),
                _ => text.insert(at, alphabet[random(alphabet.len())]),
            }
        }
        let ours = Document::parse(&text).is_ok();
        // serde_json also refuses numbers too large for a float, which are JSON all the same.
        let theirs = match serde_json::from_slice::<serde_json::Value>(&text) {
            Ok(_) => true,
            Err(error) => error.to_string().starts_with("number out of range"),
        };
        assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(&text));
        taken += usize::from(ours);
    }
    assert!(taken > 100, "only {taken} texts were JSON: the test saw too little");
}
