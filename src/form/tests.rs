use super::*;

fn fields(body: &str) -> Result<Vec<(String, String)>, FormError> {
    let fields = FormFields::parse(body.as_bytes())?;
    Ok(fields.iter().map(|field| (field.name.to_string(), field.value.to_string())).collect())
}

#[test]
fn fields_are_decoded_in_their_order() {
    let decoded =
        fields("METHOD=DoCapture&AMT=10.00&NOTE=a+b%26c%3D%C3%A9&empty=&flag&&=x").unwrap();
    let expected = [
        ("METHOD", "DoCapture"),
        ("AMT", "10.00"),
        ("NOTE", "a b&c=é"),
        ("empty", ""),
        ("flag", ""),
        ("", "x"),
    ];
    assert_eq!(decoded, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(fields(""), Ok(Vec::new()));
}

#[test]
fn what_is_not_a_form_is_refused() {
    for body in ["a=%", "a=%4", "%zz=1", "a=%ff"] {
        assert_eq!(fields(body), Err(FormError::Escape), "{body}");
    }
    assert_eq!(FormFields::parse(b"a=\xff").unwrap_err(), FormError::Escape);
    let many = |count: usize| vec!["a=1"; count].join("&");
    assert_eq!(fields(&many(MAX_FIELDS)).map(|all| all.len()), Ok(MAX_FIELDS));
    assert_eq!(fields(&many(MAX_FIELDS + 1)), Err(FormError::TooMany));
    assert_eq!(fields(&many(10_000)), Err(FormError::TooMany));
}

#[test]
fn a_parameter_of_a_query_has_one_value() {
    let value = |query, name| query_value(query, name);
    assert_eq!(value("transid=7&b=2", "transid"), QueryValue::Value("7".into()));
    assert_eq!(value("tr%61nsid=a%20b", "transid"), QueryValue::Value("a b".into()));
    assert_eq!(value("transid", "transid"), QueryValue::Value("".into()));
    assert_eq!(value("transid=1&transid=1", "transid"), QueryValue::Several);
    assert_eq!(value("transid=%zz", "transid"), QueryValue::Undecodable);
    assert_eq!(value("%zz=1&Transid=1", "transid"), QueryValue::Absent);
    assert_eq!(value("", "transid"), QueryValue::Absent);
}

#[test]
fn parameters_are_excluded_from_a_query_and_the_rest_keeps_its_bytes() {
    let without = |query: &str| query_without(query, &["token".to_owned(), "_".to_owned()]);
    assert_eq!(without("a=1&token=x&b=%20+"), "a=1&b=%20+");
    assert_eq!(without("t%6Fken=x&_=1"), "");
    assert_eq!(without("a&&token&b"), "a&&b");
    assert_eq!(without("tokens=1"), "tokens=1");
}

const BODY: &str = "preamble\r\n--XX\r\nContent-Disposition: form-data; name=\"qr\"\r\n\r\nrsg:1\r\n\
    --XX  \r\ncontent-disposition: form-data; filename=\"a.txt\"; name=note\r\n\
    Content-Type: text/plain\r\n\r\nline\r\n--XXnot a delimiter\r\n--X\r\n\r\n--XX\r\n\r\nbare\r\n\
    --XX--\r\nepilogue";

fn parts(body: &str, boundary: &str) -> Option<Vec<(Option<String>, String)>> {
    let parts = Multipart::parse(body.as_bytes(), boundary)?;
    let shown = |part: &FormPart<'_>| {
        let content = String::from_utf8(part.content.to_vec()).unwrap();
        (part.name().map(std::borrow::Cow::into_owned), content)
    };
    Some(parts.iter().map(shown).collect())
}

#[test]
fn parts_stand_between_delimiter_lines() {
    let expected = [
        (Some("qr"), "rsg:1"),
        (Some("note"), "line\r\n--XXnot a delimiter\r\n--X\r\n"),
        (None, "bare"),
    ];
    let expected = expected.map(|(name, text)| (name.map(str::to_owned), text.to_owned()));
    assert_eq!(parts(BODY, "XX").unwrap(), expected);
    assert_eq!(parts("--b\r\n\r\n\r\n--b--", "b").unwrap(), [(None, String::new())]);
}

#[test]
fn a_body_without_its_end_is_not_multipart() {
    for cut in 0..BODY.len() - "epilogue".len() - 4 {
        assert_eq!(parts(&BODY[..cut], "XX"), None, "{cut}");
    }
    for body in ["", "--b--", "--b\r\n--b--", "--b\r\nno end of head\r\n--b--", "{}"] {
        assert_eq!(parts(body, "b"), None, "{body:?}");
    }
    let many = format!("{}--b--", "--b\r\n\r\nx\r\n".repeat(MAX_PARTS));
    assert_eq!(parts(&many, "b").map(|parts| parts.len()), Some(MAX_PARTS));
    assert_eq!(parts(&format!("--b\r\n\r\nx\r\n{many}"), "b"), None);
}
