//! `${NAME}` and `${NAME:-default}` in strings.

/// Reports whether a text is a variable as a shell writes it, `$NAME`, which stays as it is.
pub(super) fn looks_like_a_variable(text: &str) -> bool {
    let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    text.strip_prefix('$').is_some_and(|name| is_name(name) && name.chars().all(is_part))
}

/// The text with every reference replaced; `$${` stands for `${`.
///
/// # Errors
/// Which reference has no value or is not well formed. The text is not repeated, it may be secret.
pub(super) fn substitute(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = (&rest[..at], &rest[at + 2..]);
        if let Some(kept) = before.strip_suffix('$') {
            done.push_str(kept);
            done.push_str("${");
            rest = reference;
            continue;
        }
        done.push_str(before);
        let Some((reference, after)) = reference.split_once('}') else {
            return Err(String::from(
                "\"${\" without \"}\"; write \"${NAME}\", or \"$${\" for the characters themselves",
            ));
        };
        let (name, default) = match reference.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (reference, None),
        };
        if !is_name(name) {
            return Err(String::from(
                "\"${…}\" does not hold the name of an environment variable (letters, digits \
                 and \"_\"); write \"$${\" for the characters themselves",
            ));
        }
        match (variable(name), default) {
            (Some(value), Some(default)) if value.is_empty() => done.push_str(default),
            (Some(value), _) => done.push_str(&value),
            (None, Some(default)) => done.push_str(default),
            (None, None) => {
                return Err(format!(
                    "the environment variable {name} is not set; set it, or write \
                     \"${{{name}:-default}}\""
                ));
            }
        }
        rest = after;
    }
    done.push_str(rest);
    Ok(done)
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|character: char| character.is_ascii_digit())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_')
}
