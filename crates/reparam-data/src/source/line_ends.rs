//! Line ends of files that another system has written.

/// Turns `\r\n` into `\n`, and returns how often it was there.
///
/// The line end says how the file is written and is no part of the text: a model that has learned from texts with `\n`
/// knows nothing of the other, and its loss is much higher on it.
///
/// # Cost
///
/// No memory beside the text.
pub(crate) fn unix_line_ends(text: String) -> (String, usize) {
    if !text.contains("\r\n") {
        return (text, 0);
    }
    let before = text.len();
    let mut bytes = text.into_bytes();
    let mut next = 0;
    for at in 0..bytes.len() {
        if bytes[at..].starts_with(b"\r\n") {
            continue;
        }
        bytes[next] = bytes[at];
        next += 1;
    }
    bytes.truncate(next);
    // Without a character of its own, what was UTF-8 still is.
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    let n = before - text.len();
    (text, n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_of_windows_become_those_of_unix() {
        for (text, expected, n) in [
            ("", "", 0),
            ("a\nb\rc", "a\nb\rc", 0),
            ("a\r\nb\r\n", "a\nb\n", 2),
            ("\r\r\n\r", "\r\n\r", 1),
            ("é\r\n你", "é\n你", 1),
        ] {
            assert_eq!(
                unix_line_ends(text.to_owned()),
                (expected.to_owned(), n),
                "{text:?}"
            );
        }
    }
}
