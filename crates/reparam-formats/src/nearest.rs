//! What was probably meant by a name that does not exist.

/// How alike two names must be, by the measure of Jaro and Winkler in 0..1, for one to be offered for the other.
///
/// At 0.8 one or two wrong letters in a word of six still pass and unrelated names do not.
const ALIKE: f64 = 0.8;

/// Returns the candidate most like `name`, if one is alike enough to be a slip of the pen.
///
/// Case does not count, nor whether parts of a name are joined by `-` or `_`. Of equally similar candidates
/// the first one is returned.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let name = plain(name);
    let mut best = None;
    for candidate in candidates {
        let likeness = strsim::jaro_winkler(&name, &plain(candidate));
        if likeness >= ALIKE && best.is_none_or(|(found, _)| likeness > found) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_slip_of_the_pen_is_recognized_and_nothing_else() {
        let keys = ["learning_rate", "rank", "alpha", "Max-Steps"];
        assert_eq!(nearest("lerning-rate", keys), Some("learning_rate"));
        assert_eq!(nearest("RANK", keys), Some("rank"));
        assert_eq!(nearest("max_step", keys), Some("Max-Steps"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("x", []), None);
        // The first of equals.
        assert_eq!(nearest("layer.0", ["layer.1", "layer.2"]), Some("layer.1"));
    }
}
