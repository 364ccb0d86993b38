//! Reading a body as XML ends for any bytes, has one canonical form, and never expands: a text that
//! was found is no longer than the body.
#![no_main]

use libfuzzer_sys::fuzz_target;
use oncegate::xml::{FoundXml, XmlDocument, XmlPath};

fuzz_target!(|bytes: &[u8]| {
    let Ok(document) = XmlDocument::parse(bytes) else { return };
    let (mut one, mut two) = (Vec::new(), Vec::new());
    let pieces = document.canonical(&mut one);
    assert_eq!(pieces, document.canonical(&mut two));
    assert_eq!(one, two);
    for piece in pieces {
        assert!(piece.whole.start < piece.name.start && piece.name.end <= piece.whole.end);
        assert!(std::str::from_utf8(&one[piece.name]).is_ok());
    }
    for path in ["/a", "/a/b", "/a/b/@i", "/a/@i"] {
        let path = XmlPath::parse(path).expect("a path");
        if let FoundXml::Text(text) = document.find(&path) {
            assert!(text.len() <= bytes.len());
        }
    }
});
