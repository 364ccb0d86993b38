use super::*;

fn found(text: &str, path: &str) -> FoundXml<'static> {
    let document = XmlDocument::parse(text.as_bytes()).unwrap_or_else(|error| {
        panic!("{error}: {text}");
    });
    match document.find(&XmlPath::parse(path).unwrap()) {
        FoundXml::Text(text) => FoundXml::Text(text.into_owned().into()),
        FoundXml::Nothing => FoundXml::Nothing,
        FoundXml::Elements => FoundXml::Elements,
        FoundXml::Several => FoundXml::Several,
    }
}

#[track_caller]
fn check_text(text: &str, path: &str, expected: &str) {
    assert_eq!(found(text, path), FoundXml::Text(expected.to_owned().into()), "{path} of {text}");
}

#[test]
fn elements_and_attributes_are_found_by_local_name() {
    let soap = "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<!-- c -->\n\
        <s:Envelope xmlns:s=\"http://a\" xmlns:id=\"urn:x\">\r\n <s:Body>\n  \
        <r:Redeem xmlns:r='urn:r' r:requestId=' a&#x2F;b&amp;c ' store='7'>\n   <Code>  rsg:1\n</Code>\
        <Amount cur=\"SGD\">5&lt;<![CDATA[<&]]>6<!-- x -->7</Amount><Empty/>\n  \
        </r:Redeem></s:Body></s:Envelope>\n<!-- end -->";
    let redeem = "/Envelope/Body/Redeem";
    check_text(soap, &format!("{redeem}/@requestId"), " a/b&c ");
    check_text(soap, &format!("{redeem}/Code"), "rsg:1");
    check_text(soap, &format!("{redeem}/Amount"), "5<<&67");
    check_text(soap, &format!("{redeem}/Amount/@cur"), "SGD");
    check_text(soap, &format!("{redeem}/Empty"), "");
    assert_eq!(found(soap, redeem), FoundXml::Elements);
    for nothing in
        ["/Redeem", "/Envelope/Code", "/Envelope/@id", "/Envelope/@s", "/Envelope/Body/@x"]
    {
        assert_eq!(found(soap, nothing), FoundXml::Nothing, "{nothing}");
    }
}

#[test]
fn two_values_are_several() {
    assert_eq!(found("<a><b>1</b><b>1</b></a>", "/a/b"), FoundXml::Several);
    assert_eq!(found("<a><x><b>1</b></x><x><b>1</b></x></a>", "/a/x/b"), FoundXml::Several);
    assert_eq!(found("<a><b i='1'/><b i='1'/></a>", "/a/b/@i"), FoundXml::Several);
    assert_eq!(found("<a x:i='1' y:i='1'/>", "/a/@i"), FoundXml::Several);
    check_text("<a><b/><b i='1'/></a>", "/a/b/@i", "1");
    check_text("<a><x/><x><b>1</b></x></a>", "/a/x/b", "1");
}

#[test]
fn line_ends_and_white_space_are_normalized() {
    check_text("<a>x\r\ny\rz</a>", "/a", "x\ny\nz");
    check_text("<a>\r\n\t </a>", "/a", "");
    check_text("<a i='x\r\ny\tz&#10;'/>", "/a/@i", "x y z\n");
    check_text("<a>x&#13;</a>", "/a", "x");
}

#[test]
fn what_is_not_well_formed_is_refused() {
    for text in [
        "",
        " ",
        "x",
        "{}",
        "<a>",
        "</a>",
        "<a></b>",
        "<a/><b/>",
        "<a/>x",
        "x<a/>",
        "<a/>&#65;",
        "<a><b></a></b>",
        "<a i=1/>",
        "<a i/>",
        "<a i='1' i='2'/>",
        "<a i='<'/>",
        "<a>&</a>",
        "<a>&amp</a>",
        "<a>&#0;</a>",
        "<a>&#x1;</a>",
        "<a>&#xd800;</a>",
        "<a i='&#0;'/>",
        "<1/>",
        "<a><?xml version='1.0'?></a>",
        " <?xml version='1.0'?><a/>",
        "<a>\u{1}</a>",
        "<!-- <a/>",
        "<a><![CDATA[x</a>",
        "<![CDATA[x]]>",
        "<a b=\"1\"></a",
        "<a$/>",
        "<a>&#;</a>",
        // Some readers take these, each in its own way.
        "<a><!-- x -- ><b/>--></a>",
        "<a><!-- x---></a>",
        "<a><!--></a>",
        "<a b='1'c='2'/>",
        "<a>]]></a>",
        "<a b='<c>'/>",
        "<a><? p?></a>",
        "<a><?XML p?></a>",
        "<?xml?><a/>",
        "<?xml version='2.0'?><a/>",
        "<?xml encoding='utf-8'?><a/>",
        "<a>&amp",
        "<a></a",
        "<a></a x>",
    ] {
        assert_eq!(XmlDocument::parse(text.as_bytes()).err(), Some(XmlError::Syntax), "{text:?}");
    }
}

#[test]
fn entities_and_document_types_are_refused() {
    let bomb = "<!DOCTYPE lolz [<!ENTITY lol \"lol\"><!ENTITY lol2 \"&lol;&lol;\">]><a>&lol2;</a>";
    for text in [
        bomb,
        "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>",
        "<!DOCTYPE a><a/>",
        "<?xml version=\"1.0\"?><!DOCTYPE a PUBLIC \"x\" \"http://x/\"><a/>",
    ] {
        assert_eq!(XmlDocument::parse(text.as_bytes()).err(), Some(XmlError::Doctype), "{text}");
    }
    for text in ["<a>&lol;</a>", "<a i='&lol;'/>", "<a>&nbsp;</a>", "<a>&;</a>"] {
        assert_eq!(XmlDocument::parse(text.as_bytes()).err(), Some(XmlError::Entity), "{text}");
    }
}

#[test]
fn other_encodings_are_refused_unless_their_bytes_are_the_same() {
    let declared = |name: &str| format!("<?xml version='1.0' encoding='{name}'?><a>1</a>");
    check_text(&declared("ISO-8859-1"), "/a", "1");
    check_text(&declared("UTF-8").replace(">1<", ">é<"), "/a", "é");
    let latin = declared("ISO-8859-1").replace(">1<", ">é<");
    assert_eq!(XmlDocument::parse(latin.as_bytes()).err(), Some(XmlError::Encoding));
    assert_eq!(XmlDocument::parse(b"<a>\xe9</a>").err(), Some(XmlError::Encoding));
}

#[test]
fn depth_nodes_and_attributes_are_limited() {
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    assert!(XmlDocument::parse(nested(MAX_XML_DEPTH).as_bytes()).is_ok());
    let deep = nested(MAX_XML_DEPTH + 1);
    assert_eq!(XmlDocument::parse(deep.as_bytes()).err(), Some(XmlError::TooDeep));
    let many = |count: usize| format!("<a>{}</a>", "<b/>".repeat(count));
    assert!(XmlDocument::parse(many(MAX_XML_NODES - 1).as_bytes()).is_ok());
    let error = XmlDocument::parse(many(MAX_XML_NODES).as_bytes()).err();
    assert_eq!(error, Some(XmlError::TooLarge));
    let wide = |count: usize| {
        let attributes: String = (0..count).map(|at| format!(" i{at}='x'")).collect();
        format!("<a{attributes}/>")
    };
    assert!(XmlDocument::parse(wide(MAX_ATTRIBUTES).as_bytes()).is_ok());
    let error = XmlDocument::parse(wide(MAX_ATTRIBUTES + 1).as_bytes()).err();
    assert_eq!(error, Some(XmlError::TooLarge));
}

fn canonical(text: &str) -> (Vec<u8>, Vec<String>) {
    let mut canonical = Vec::new();
    let document = XmlDocument::parse(text.as_bytes()).unwrap();
    let pieces = document.canonical(&mut canonical);
    let names = pieces.iter().map(|piece| {
        assert!(piece.whole.start < piece.name.start && piece.name.end <= piece.whole.end);
        String::from_utf8(canonical[piece.name.clone()].to_vec()).unwrap()
    });
    let names = names.collect();
    (canonical, names)
}

#[test]
fn attribute_order_and_white_space_between_elements_do_not_matter() {
    let first = "<o id='1' at=\"x\"><q>rsg:1</q>\n <n a='1' b='2'>text <b>in</b> between</n></o>";
    for same in [
        "<?xml version='1.0'?>\n<o  at='x'\n id=\"1\" ><q>rsg:1</q><n b='2' a='1'>text <b>in</b> between</n>\n</o>\n",
        "<o id='1' at='x'><!-- c --><q>rsg&#58;<![CDATA[1]]></q><n a='1' b='2'>text <b>in</b> between</n></o>",
    ] {
        assert_eq!(canonical(first), canonical(same), "{same}");
    }
    assert_eq!(canonical(first).1, ["at", "id", "q", "n"]);
    for other in [
        first.replace("rsg:1", "rsg:2"),
        first.replace("rsg:1", " rsg:1"),
        first.replace("id='1'", "id='2'"),
        first.replace("text <b>", "text<b>"),
        first.replace("<q>rsg:1</q>\n ", ""),
        first.replace("<b>in</b>", "in"),
        first.replace("<q>", "<q><?p?>"),
        first.replace("<o ", "<x:o ").replace("</o>", "</x:o>"),
    ] {
        assert_ne!(canonical(first).0, canonical(&other).0, "{other}");
    }
}

#[test]
fn the_structure_is_part_of_the_canonical_form() {
    let texts = [
        "<a/>",
        "<a> </a>",
        "<a>b</a>",
        "<a><b/></a>",
        "<a><b/>c</a>",
        "<a><b>c</b></a>",
        "<a>c<b/></a>",
        "<a b=''/>",
        "<a b='c'/>",
        "<a><b/><c/></a>",
        "<a><b><c/></b></a>",
        "<a><b/><b/></a>",
        "<a><b> </b></a>",
        "<a><?b?></a>",
        "<a><?b c?></a>",
    ];
    for (at, left) in texts.iter().enumerate() {
        for right in &texts[..at] {
            assert_ne!(canonical(left).0, canonical(right).0, "{left} and {right}");
        }
    }
    assert_eq!(canonical("<a></a>"), canonical("<a/>"));
    assert_eq!(canonical("<a> <b/> </a>"), canonical("<a><b></b></a>"));
}

#[test]
fn paths_are_read_as_they_are_written() {
    for text in ["/a", "/StoredValueRedeemRequest/@requestId", "/a/b-c/d.e/@f", "/é"] {
        assert_eq!(XmlPath::parse(text).unwrap().to_string(), text);
    }
    for (text, error) in [
        ("", XmlPathError::NoLeadingSlash),
        ("a", XmlPathError::NoLeadingSlash),
        ("/", XmlPathError::EmptyName),
        ("//a", XmlPathError::EmptyName),
        ("/a/", XmlPathError::EmptyName),
        ("/a/@", XmlPathError::EmptyName),
        ("/@a", XmlPathError::Attribute),
        ("/a/@b/c", XmlPathError::Attribute),
        ("/a/*", XmlPathError::XPath),
        ("/a[1]/b", XmlPathError::XPath),
        ("/a/text()", XmlPathError::XPath),
        ("/a/..", XmlPathError::XPath),
        ("/child::a", XmlPathError::XPath),
        ("/s:Envelope", XmlPathError::Prefix),
        ("/a/@xml:id", XmlPathError::Prefix),
    ] {
        assert_eq!(XmlPath::parse(text), Err(error), "{text}");
    }
}

/// Random edits of a text never lead to a panic, and what is read twice is equal.
#[test]
fn mutated_texts_are_read_or_refused() {
    let seed = std::env::var("ONCEGATE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(0x0e5e_ed02);
    println!("ONCEGATE_TEST_SEED={seed}");
    let mut state = seed | 1;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let alphabet = b"<>/='\"&;#!?[]-abi \n:1x";
    let sample = b"<a i='1'><b>x&amp;y</b><!-- c --><![CDATA[z]]><?p q?></a>";
    let path = XmlPath::parse("/a/b").unwrap();
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
        let Ok(document) = XmlDocument::parse(&text) else { continue };
        document.find(&path);
        let (mut once, mut twice) = (Vec::new(), Vec::new());
        document.canonical(&mut once);
        XmlDocument::parse(&text).unwrap().canonical(&mut twice);
        assert_eq!(once, twice);
        taken += 1;
    }
    assert!(taken > 1000, "only {taken} texts were XML: the test saw too little");
}
