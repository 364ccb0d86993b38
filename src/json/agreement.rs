//! The parser beside serde_json, on random texts: what both take has the same values, and what one
//! of them refuses has a known reason.

use serde_json::Value as Other;

use super::*;

/// A random text, and the state of its numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % most as u64).unwrap()
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.below(from.len())]
    }

    fn space(&mut self) -> &'static str {
        self.pick(&["", "", "", " ", "\n", "\t\r"])
    }

    fn string(&mut self) -> String {
        const PARTS: [&str; 22] = [
            "a",
            "b",
            "qr",
            "é",
            "😀",
            "\u{fffd}",
            "d83d",
            "\\u0061",
            "\\u00e9",
            "\\ud83d\\ude00",
            "\\uD83D",
            "\\ude00",
            "\\n",
            "\\\"",
            "\\\\",
            "\\/",
            "\\u0000",
            "/",
            "~",
            "\\b",
            "1",
            "\\\\ud83d",
        ];
        let parts: String = (0..self.below(4)).map(|_| self.pick(&PARTS)).collect();
        format!("\"{parts}\"")
    }

    fn value(&mut self, depth: usize) -> String {
        const SCALARS: [&str; 16] = [
            "null",
            "true",
            "false",
            "0",
            "-0",
            "5",
            "5.0",
            "1e2",
            "1E+2",
            "0.1",
            "1e400",
            "12345678901234567890",
            "01",
            "1.",
            "+1",
            "NaN",
        ];
        let (open, close) = (self.space(), self.space());
        let inside = match self.below(if depth > 3 { 2 } else { 4 }) {
            0 => {
                let most = if self.below(6) == 0 { SCALARS.len() } else { 12 };
                SCALARS[self.below(most)].to_owned()
            }
            1 => self.string(),
            2 => {
                let list: Vec<String> = (0..self.below(4)).map(|_| self.value(depth + 1)).collect();
                format!("[{}{}]", self.space(), list.join(","))
            }
            _ => {
                let member = |random: &mut Self| {
                    let (name, space) = (random.string(), random.space());
                    format!("{space}{name}{space}:{}", random.value(depth + 1))
                };
                let list: Vec<String> = (0..self.below(4)).map(|_| member(self)).collect();
                format!("{{{}{}}}", list.join(","), self.space())
            }
        };
        format!("{open}{inside}{close}")
    }

    fn text(&mut self) -> String {
        const SIGNS: &[u8] = b"{}[]\",:\\u0e-. 1a";
        let mut text = self.value(0).into_bytes();
        for _ in 0..self.below(5).saturating_sub(3) {
            let at = self.below(text.len());
            match self.below(3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, SIGNS[self.below(SIGNS.len())]),
                _ => text[at] = SIGNS[self.below(SIGNS.len())],
            }
            if text.is_empty() {
                break;
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Asserts that both readers see one value.
fn check(ours: Value<'_, '_>, other: &Other) {
    match other {
        Other::Null => assert_eq!(ours.kind(), JsonType::Null),
        Other::Bool(truth) => assert_eq!(ours.raw(), truth.to_string()),
        Other::Number(number) => {
            assert_eq!(ours.kind(), JsonType::Number);
            let (ours, other) = (ours.raw().parse::<f64>().unwrap(), number.as_f64().unwrap());
            assert!((ours - other).abs() <= other.abs() * 1e-12, "{ours} and {other}");
        }
        Other::String(text) => assert_eq!(ours.as_str().as_deref(), Some(text.as_str())),
        Other::Array(list) => {
            assert_eq!(ours.elements().count(), list.len());
            ours.elements().zip(list).for_each(|(ours, other)| check(ours, other));
        }
        Other::Object(members) => {
            assert_eq!(ours.members().count(), members.len());
            for (name, ours) in ours.members() {
                check(ours, &members[&*name]);
            }
        }
    }
}

#[test]
fn what_serde_json_reads_is_read_alike() {
    let seed = std::env::var("ONCEGATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(0x15e2_de05);
    println!("ONCEGATE_TEST_SEED={seed}");
    let mut random = Random(seed | 1);
    let (mut both, mut pointers, mut lone) = (0, 0, 0);
    for _ in 0..60_000 {
        let text = random.text();
        let (ours, other) =
            (Document::parse(text.as_bytes()), serde_json::from_str::<Other>(&text));
        match (&ours, &other) {
            (Ok(ours), Ok(other)) if !ours.has_duplicates() => {
                check(ours.root(), other);
                both += 1;
                // Pointers find the same.
                for pointer in ["/a", "/b/0", "/qr", "/0/a", "/~1", "/~0", "/", "/a/b", "/1"] {
                    let found = ours.find(&Pointer::parse(pointer).unwrap());
                    assert_eq!(
                        found.is_some(),
                        other.pointer(pointer).is_some(),
                        "{pointer} {text}"
                    );
                    if let Some(found) = found {
                        check(found, other.pointer(pointer).unwrap());
                        pointers += 1;
                    }
                }
            }
            (Ok(_), Ok(_)) | (Err(_), Err(_)) => {}
            (Ok(_), Err(error)) => {
                let error = error.to_string();
                let known = ["surrogate", "hex escape", "out of range"];
                assert!(known.iter().any(|it| error.contains(it)), "{error}: {text}");
                lone += 1;
            }
            (Err(error), Ok(_)) => panic!("{error}: {text}"),
        }
    }
    assert!(both > 20_000 && pointers > 1000 && lone > 500, "{both} {pointers} {lone}");
}

/// A text is canonical for its value alone: another spelling has the same form, another value
/// another one.
#[test]
fn texts_with_one_canonical_form_have_one_value() {
    let mut random = Random(0x0ca2_0216 | 1);
    let mut forms: std::collections::HashMap<Vec<u8>, Other> = std::collections::HashMap::new();
    let mut again = 0;
    for _ in 0..60_000 {
        let text = random.text();
        let (Ok(ours), Ok(other)) =
            (Document::parse(text.as_bytes()), serde_json::from_str::<Other>(&text))
        else {
            continue;
        };
        let mut form = Vec::new();
        if ours.root().canonical(&mut form, &[]) {
            let first = forms.entry(form).or_insert_with(|| other.clone());
            again += usize::from(*first == other);
            assert_eq!(*first, other, "{text}");
        }
    }
    assert!(forms.len() > 10_000 && again > forms.len(), "{} {again}", forms.len());
}

#[test]
fn a_lone_surrogate_is_no_other_character() {
    let form = |text: &str| {
        let mut form = Vec::new();
        Document::parse(text.as_bytes()).unwrap().root().canonical(&mut form, &[]);
        form
    };
    let texts = [
        r#"["\ud83d"]"#,
        "[\"\u{fffd}d83d\"]",
        r#"["\ufffdd83d"]"#,
        r#"["\ude00"]"#,
        r#"["\\ud83d"]"#,
        r#"["\ud83d\ude00"]"#,
    ];
    for (at, one) in texts.iter().enumerate() {
        for (other_at, other) in texts.iter().enumerate() {
            let is_same = at == other_at || (at.max(other_at), at.min(other_at)) == (2, 1);
            assert_eq!(form(one) == form(other), is_same, "{one} {other}");
        }
    }
    assert_eq!(form(r#"["\ud83dA"]"#), form(r#"["\uD83D\u0041"]"#));
    let id = |text: &str| {
        Document::parse(text.as_bytes()).unwrap().root().as_id().map(|id| id.into_owned())
    };
    assert_eq!(id(r#""\ud83d""#), None);
    assert_eq!(id(r#""\ud83d\ude00""#).as_deref(), Some("😀"));
    assert!(Document::parse(br#"{"\ud83d":1}"#).is_err(), "the name");
    assert!(Document::parse(br#"{"\ud83d\ude00":1}"#).is_ok());
}
