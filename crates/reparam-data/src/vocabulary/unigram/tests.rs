use super::*;

#[test]
fn digamma_has_its_known_values() {
    // digamma(1) is minus Euler's constant; digamma(1/2) = digamma(1) - 2 ln 2.
    let euler = 0.577_215_664_901_532_9;
    for (x, expected) in [
        (1.0, -euler),
        (0.5, -euler - 2.0 * 2_f64.ln()),
        (2.0, 1.0 - euler),
        (10.0, 2.251_752_589_066_721),
        (1e6, 13.815_510_057_964_191),
    ] {
        assert!((digamma(x) - expected).abs() < 1e-9, "{x}: {}", digamma(x));
    }
}

#[test]
fn expectations_are_sums_over_all_segmentations() {
    let parts: Vec<Scored> = [("a", 0.4), ("b", 0.3), ("ab", 0.2), ("ba", 0.1)]
        .map(|(part, p): (&str, f64)| (part.to_owned(), p.ln()))
        .to_vec();
    // aba: a|b|a 0.048, ab|a 0.08, a|ba 0.04.
    let expected = Parts::of(&parts).expected(&[("aba", 2.0)]);
    let total = 0.048 + 0.08 + 0.04;
    for (found, expected) in expected
        .iter()
        .zip([2.0 * 0.048 + 0.08 + 0.04, 0.048, 0.08, 0.04])
    {
        assert!((found - 2.0 * expected / total).abs() < 1e-12);
    }
    let lookup = Parts::of(&parts);
    assert_eq!(lookup.best("aba", None), [2, 0]);
    assert_eq!(lookup.best("ab", Some(2)), [0, 1]);
}

#[test]
fn seeds_are_repeated_parts_that_go_on_in_several_ways() {
    let words = [("abcx", 1.0), ("abcy", 2.0), ("zz", 1.0)];
    let seeds = seeds::seeds(&words, &[('a', 3)], 1);
    let texts: Vec<&str> = seeds.iter().map(|(part, _)| part.as_str()).collect();
    // "ab" is always followed by "c"; "abcy" occurs twice; "zz" once.
    assert_eq!(texts, ["a", "abc", "abcy", "bc", "bcy", "cy"]);
}
