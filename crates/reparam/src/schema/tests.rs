//! Specs, values and ranges agree with each other.

use proptest::prelude::*;

use super::*;

static INNER: [SettingSpec; 2] = [
    required("samples", SettingKind::SIZE, "100", "rows"),
    number("noise", Range::NonNegative, 0.0, "its deviation"),
];

/// One setting of every kind.
static EVERY: [SettingSpec; 20] = [
    number("number", Range::Positive, 1.0, ""),
    SettingSpec {
        key: "word_or_number",
        kind: SettingKind::WordOrNumber(&["horizon"], Range::Positive),
        fallback: Fallback::Word("horizon"),
        meaning: "",
    },
    count("count", 3, ""),
    size("size", 16, ""),
    flag("flag", false, ""),
    word("word", &["a", "b"], "b", ""),
    required("text", SettingKind::Text, "\"x\"", ""),
    optional("pattern", SettingKind::Pattern, "all", ""),
    SettingSpec {
        key: "numbers",
        kind: SettingKind::Numbers(Range::Positive),
        fallback: Fallback::Numbers(&[1.0]),
        meaning: "",
    },
    SettingSpec {
        key: "counts",
        kind: SettingKind::Counts {
            noun: "width",
            least: 1,
            most: MOST,
        },
        fallback: Fallback::Counts(&[32]),
        meaning: "",
    },
    optional("texts", SettingKind::Texts, "", ""),
    optional("by_name", SettingKind::TextByName, "", ""),
    SettingSpec {
        key: "modules",
        kind: SettingKind::Modules { all_linear: true },
        fallback: Fallback::Word("all-linear"),
        meaning: "",
    },
    optional(
        "exclude",
        SettingKind::Modules { all_linear: false },
        "",
        "",
    ),
    optional(
        "ranks",
        SettingKind::CountByPattern {
            least: 1,
            most: MOST,
        },
        "",
        "",
    ),
    optional(
        "alphas",
        SettingKind::NumberByPattern(Range::Positive),
        "",
        "",
    ),
    optional(
        "weights",
        SettingKind::WordOrNumberByName(&["balanced"], Range::Positive),
        "",
        "",
    ),
    SettingSpec::new(
        "double",
        SettingKind::Number(Range::Positive),
        Fallback::Twice("size"),
        "",
    ),
    optional("table", SettingKind::Table(&INNER), "", ""),
    optional("chain", SettingKind::Chain, "", ""),
];

proptest! {
    #[test]
    fn what_is_drawn_is_accepted_as_it_is(seed: u64) {
        let chosen = Chosen::sample("every", &EVERY, &mut draws(seed));
        let settings = Settings::new("every", &EVERY, &chosen.settings);
        prop_assert_eq!(settings.map(Settings::into_values), Ok(chosen.settings));
    }

    #[test]
    fn a_range_contains_what_is_drawn_of_it(seed: u64) {
        let mut draw = draws(seed);
        for range in Range::ALL {
            let value = SettingKind::Number(range).sample(&mut draw);
            let SettingValue::Number(number) = value else { panic!("{value}") };
            prop_assert!(range.contains(number), "{range:?} {number:e}");
        }
    }
}

#[test]
fn ranges_end_where_they_say() {
    let numbers = [-1.0, 0.0, 0.5, 1.0, 2.0, f64::NAN, f64::INFINITY];
    let expected = [
        (Range::Finite, [true, true, true, true, true, false, false]),
        (
            Range::Positive,
            [false, false, true, true, true, false, false],
        ),
        (
            Range::Factor,
            [false, false, true, true, true, false, false],
        ),
        (
            Range::NonNegative,
            [false, true, true, true, true, false, false],
        ),
        (
            Range::Negative,
            [true, false, false, false, false, false, false],
        ),
        (
            Range::BelowOne,
            [false, true, true, false, false, false, false],
        ),
        (
            Range::InsideUnit,
            [false, false, true, false, false, false, false],
        ),
        (
            Range::UpToOne,
            [false, false, true, true, false, false, false],
        ),
        (Range::Unit, [false, true, true, true, false, false, false]),
    ];
    assert_eq!(expected.map(|(range, _)| range), Range::ALL);
    for (range, contained) in expected {
        assert_eq!(numbers.map(|x| range.contains(x)), contained, "{range:?}");
        assert_eq!(
            numbers.map(|x| range.check("x", x).is_ok()),
            contained,
            "{range:?}"
        );
    }
    assert!(!Range::Factor.contains(1e-38) && Range::Factor.contains(1.2e-38));
    assert!(Range::Factor.contains(3.4e38) && !Range::Factor.contains(3.5e38));
    assert!(at_least_one("steps", 0).is_err());
    assert_eq!(at_least_one("steps", 7), Ok(7));
}

#[test]
fn defaults_are_filled_in_and_read_back_typed() {
    let given = [("text".to_owned(), SettingValue::Word("x".into()))];
    let settings = Settings::new("every", &EVERY, &given).unwrap();
    assert_eq!(settings.number("number"), Ok(1.0));
    assert_eq!(settings.word("word_or_number"), Ok("horizon"));
    assert_eq!(
        (settings.count("count"), settings.size("size")),
        (Ok(3), Ok(16))
    );
    assert_eq!(settings.flag("flag"), Ok(false));
    assert_eq!(settings.choice("word", &[("a", 1), ("b", 2)]), Ok(2));
    assert_eq!(settings.numbers("numbers"), Ok(&[1.0][..]));
    assert_eq!(settings.counts("counts"), Ok(vec![32]));
    assert_eq!(settings.modules("modules"), Ok(&TargetModules::AllLinear));
    assert_eq!(settings.optional("exclude", Settings::modules), Ok(None));
    assert_eq!(settings.counts_by_pattern("ranks"), Ok(Vec::new()));
    assert_eq!(settings.numbers_by_pattern("alphas"), Ok(Vec::new()));
    assert_eq!(settings.number("double"), Ok(32.0));
    assert!(!settings.has("chain"));
    // A key of another type, or of none, is an error and no panic.
    assert!(settings.number("word").is_err());
    assert!(settings.number("no_such_key").is_err());

    let table = SettingValue::Table(vec![("samples".to_owned(), SettingValue::Count(9))]);
    let mut given = given.to_vec();
    given.push(("table".to_owned(), table));
    // Twice: the later one counts.
    given.push(("number".to_owned(), SettingValue::Count(2)));
    given.push(("number".to_owned(), SettingValue::Count(4)));
    given.push(("size".to_owned(), SettingValue::Count(8)));
    let settings = Settings::new("every", &EVERY, &given).unwrap();
    assert_eq!(settings.number("number"), Ok(4.0));
    // A default that follows another setting follows what is given.
    assert_eq!(settings.number("double"), Ok(16.0));
    given.push(("double".to_owned(), SettingValue::Number(3.0)));
    let settings = Settings::new("every", &EVERY, &given).unwrap();
    assert_eq!(settings.number("double"), Ok(3.0));
    let table = settings.table("table", &INNER).unwrap();
    assert_eq!(
        (table.size("samples"), table.number("noise")),
        (Ok(9), Ok(0.0))
    );
}

#[test]
fn wrong_settings_are_refused_by_name() {
    let refused = |key: &str, value: SettingValue| {
        let given = [
            ("text".to_owned(), SettingValue::Word("x".into())),
            (key.to_owned(), value),
        ];
        Settings::new("every", &EVERY, &given).unwrap_err()
    };
    use SettingValue as V;
    for (key, value, expected) in [
        (
            "number",
            V::Number(0.0),
            "`number` must be a finite number greater than 0, got 0",
        ),
        (
            "number",
            V::Flag(true),
            "`number` must be a finite number greater than 0, got true",
        ),
        (
            "word_or_number",
            V::Word("1/T".into()),
            "`word_or_number` must be \"horizon\" or a finite number greater than 0, got \"1/T\"",
        ),
        (
            "count",
            V::Count(0),
            "`count` must be a whole number of at least 1, got 0",
        ),
        (
            "size",
            V::Count(MOST + 1),
            "`size` must be a whole number from 1 to 65536, got 65537",
        ),
        (
            "count",
            V::Number(2.0),
            "`count` must be a whole number of at least 1, got 2",
        ),
        ("flag", V::Count(1), "`flag` must be true or false, got 1"),
        (
            "word",
            V::Word("c".into()),
            "`word` must be one of \"a\", \"b\", got \"c\"",
        ),
        (
            "text",
            V::Word(String::new()),
            "`text` must be a string that is not empty, got \"\"",
        ),
        (
            "pattern",
            V::Word("(".into()),
            "`(` for `pattern` is not a regular expression",
        ),
        (
            "numbers",
            V::Numbers(Vec::new()),
            "`numbers` must be a list of at least one number",
        ),
        (
            "counts",
            V::Counts(vec![0]),
            "`counts` must be a width or a list of at least one",
        ),
        (
            "texts",
            V::Texts(Vec::new()),
            "`texts` must be a string or a list",
        ),
        (
            "exclude",
            V::Modules(TargetModules::AllLinear),
            "`exclude` must be a list of names or a regular expression, got \"all-linear\"",
        ),
        (
            "ranks",
            V::CountByPattern(vec![("q".into(), 0)]),
            "`ranks` must be a table",
        ),
        (
            "alphas",
            V::NumberByPattern(vec![("(".into(), 1.0)]),
            "`(` for `alphas` is not",
        ),
        (
            "weights",
            V::NumberByName(vec![("spam".into(), 0.0)]),
            "`weights` must be \"balanced\" or a table of name = number, each a finite number greater than 0",
        ),
        (
            "weights",
            V::Word("equal".into()),
            "`weights` must be \"balanced\" or a table",
        ),
        (
            "table",
            V::Table(Vec::new()),
            "`table` needs the setting `samples`",
        ),
        ("chain", V::Flag(true), "`chain` must be a list of tables"),
        ("colour", V::Flag(true), "`every` has no setting `colour`"),
    ] {
        let error = refused(key, value);
        assert!(error.to_string().starts_with(expected), "{key}: {error}");
    }
    let missing = Settings::new("every", &EVERY, &[]).unwrap_err();
    assert_eq!(missing.to_string(), "`every` needs the setting `text`");
    assert_eq!(
        missing.hint().as_deref(),
        Some("give it, as in text = \"x\"")
    );
}
