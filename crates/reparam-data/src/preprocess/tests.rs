use super::*;
use proptest::prelude::*;

fn options(json: &str) -> TextOptions {
    serde_json::from_str(json).unwrap()
}

fn apply(json: &str, text: &str) -> String {
    let preprocessor = Preprocessor::new(&options(json)).unwrap();
    preprocessor.apply(text).into_owned()
}

/// The same thing said in ten scripts, and what else texts hold.
const SCRIPTS: [&str; 14] = [
    "The quick brown fox can't jump.",
    "Η γρήγορη αλεπού ΟΔΥΣΣΕΥΣ",
    "Быстрая лиса Ёж",
    "השועל המהיר",
    "الثعلب السريع می\u{200c}خواهم",
    "तेज़ लोमड़ी",
    "สวัสดีชาวโลก",
    "敏捷的狐狸跳过懒狗",
    "素早いキツネが犬を飛び越える",
    "빠른 갈색 여우",
    "👩\u{200d}🔬 🇩🇪 👍🏽 ❤\u{fe0f}",
    "a\r\nb\tc\u{a0}d\u{3000}e",
    "NUL\0 and \u{feff}mark",
    "",
];

#[test]
fn nothing_is_done_unless_it_is_asked_for() {
    assert!(options("{}").is_nothing());
    let preprocessor = Preprocessor::new(&TextOptions::default()).unwrap();
    for text in SCRIPTS {
        assert!(matches!(preprocessor.apply(text), Cow::Borrowed(same) if same == text));
        assert!(!preprocessor.is_short(text));
    }
}

#[test]
fn options_are_read_strictly_and_written_as_they_are_read() {
    assert!(serde_json::from_str::<TextOptions>(r#"{"lower_case": true}"#).is_err());
    assert!(serde_json::from_str::<TextOptions>(r#"{"normalize": "nfd"}"#).is_err());
    let all = options(
        r#"{"normalize": "nfkc", "strip_html": true, "strip_control": true, "lowercase": true,
            "segment": "auto", "stop_words": "both", "min_length": 3}"#,
    );
    let written = serde_json::to_string(&all).unwrap();
    assert_eq!(options(&written), all);
    // What prediction makes of the options of a model is what training made of them.
    let [trained, predicts] = [all, options(&written)].map(|o| Preprocessor::new(&o).unwrap());
    for text in SCRIPTS {
        assert_eq!(trained.apply(text), predicts.apply(text));
    }
}

#[test]
fn stop_words_need_words() {
    for (json, is_valid) in [
        (r#"{"stop_words": "en"}"#, false),
        (r#"{"stop_words": "en", "segment": "words"}"#, true),
        (r#"{"stop_words": "zh", "segment": "words"}"#, false),
        (r#"{"stop_words": "both", "segment": "words"}"#, false),
        (r#"{"stop_words": "zh", "segment": "chinese"}"#, true),
        (r#"{"stop_words": "both", "segment": "auto"}"#, true),
    ] {
        let checked = options(json).check();
        assert_eq!(checked.is_ok(), is_valid, "{json}");
        if let Err(error) = checked {
            assert!(error.hint().unwrap().starts_with("set segment = "));
        }
    }
}

/// Examples of Standard Annex 15, and of full-width and circled forms.
#[test]
fn normal_forms_are_those_of_unicode() {
    for (text, nfc, nfkc) in [
        ("e\u{301}", "é", "é"),
        ("\u{212b}", "Å", "Å"),
        ("A\u{30a}", "Å", "Å"),
        ("ﬁ", "ﬁ", "fi"),
        ("2⁵", "2⁵", "25"),
        ("ſ\u{323}\u{307}", "ẛ\u{323}", "ṩ"),
        ("\u{1100}\u{1161}\u{11a8}", "각", "각"),
        ("Ｆｕｌｌ　１２３", "Ｆｕｌｌ　１２３", "Full 123"),
        ("①㍿", "①㍿", "1株式会社"),
        ("ｶﾞ", "ｶﾞ", "ガ"),
        // Excluded from composition.
        ("\u{958}", "\u{915}\u{93c}", "\u{915}\u{93c}"),
    ] {
        assert_eq!(apply(r#"{"normalize": "nfc"}"#, text), nfc, "{text}");
        assert_eq!(apply(r#"{"normalize": "nfkc"}"#, text), nfkc, "{text}");
    }
}

#[test]
fn lower_case_keeps_the_normal_form() {
    let json = r#"{"normalize": "nfc", "lowercase": true}"#;
    for (text, expected) in [
        ("ÄÖÜ ẞ", "äöü ß"),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
        ("\u{3aa}\u{301}", "\u{390}"),
        ("İ", "i\u{307}"),
        ("价格 ABC", "价格 abc"),
    ] {
        assert_eq!(apply(json, text), expected, "{text}");
    }
}

#[test]
fn hidden_characters_go_and_what_scripts_need_stays() {
    for (text, expected) in [
        ("a\0b\u{1}\u{7f}\u{85}c", "abc"),
        ("a\r\nb\rc\nd\te\r", "a\nb\nc\nd\te\n"),
        ("\u{feff}so\u{ad}ft\u{200b}\u{2060}", "soft"),
        ("\u{202e}abc\u{202c}\u{200f}", "abc"),
        ("می\u{200c}خواهم", "می\u{200c}خواهم"),
        ("👩\u{200d}🔬 ❤\u{fe0f}", "👩\u{200d}🔬 ❤\u{fe0f}"),
        (
            "🏴\u{e0067}\u{e0062}\u{e007f}",
            "🏴\u{e0067}\u{e0062}\u{e007f}",
        ),
        ("\u{601}", "\u{601}"),
    ] {
        assert_eq!(strip_control(text), expected, "{text:?}");
    }
    // A letter and its accent meet once nothing is between them.
    let json = r#"{"strip_control": true, "normalize": "nfc"}"#;
    assert_eq!(apply(json, "e\u{200b}\u{301}"), "é");
}

#[test]
fn words_are_those_of_unicode() {
    for (text, expected) in [
        (
            "The quick (\"brown\") fox can't jump 32.3 feet, right?",
            "The quick ( \" brown \" ) fox can't jump 32.3 feet , right ?",
        ),
        ("敏捷的 fox", "敏 捷 的 fox"),
        ("キツネが", "キツネ が"),
        ("빠른 갈색", "빠른 갈색"),
        ("👩\u{200d}🔬🇩🇪", "👩\u{200d}🔬 🇩🇪"),
        (" \r\n a\u{3000}b ", "a b"),
        ("", ""),
    ] {
        assert_eq!(apply(r#"{"segment": "words"}"#, text), expected, "{text}");
    }
}

#[test]
fn chinese_words_are_those_of_the_dictionary() {
    for (segment, text, expected) in [
        ("chinese", "我来到北京清华大学", "我 来到 北京 清华大学"),
        (
            "chinese",
            "小明硕士毕业于中国科学院计算所",
            "小明 硕士 毕业 于 中国科学院 计算所",
        ),
        // A word that only the model over characters finds.
        (
            "chinese",
            "他来到了网易杭研大厦",
            "他 来到 了 网易 杭研 大厦",
        ),
        (
            "auto",
            "我来到北京清华大学, it's big!",
            "我 来到 北京 清华大学 , it's big !",
        ),
        ("auto", "送餐快,味道好", "送餐 快 , 味道 好"),
        (
            "auto",
            "e\u{301}价格👩\u{200d}🔬",
            "e\u{301} 价格 👩\u{200d}🔬",
        ),
    ] {
        let json = format!(r#"{{"segment": "{segment}"}}"#);
        assert_eq!(apply(&json, text), expected, "{text}");
    }
}

#[test]
fn a_report_counts_what_was_done() {
    let options = options(
        r#"{"strip_html": true, "lowercase": true, "segment": "words", "stop_words": "en", "min_length": 4}"#,
    );
    let preprocessor = Preprocessor::new(&options).unwrap();
    let mut report = TextReport::new(2);
    let texts = ["<b>The</b> Cat sat", "on <i>it</i>", "dogs"];
    let kept: Vec<Option<String>> = texts
        .iter()
        .map(|text| {
            preprocessor
                .apply_row(text, &mut report)
                .map(Cow::into_owned)
        })
        .collect();
    assert_eq!(
        kept,
        [Some("cat sat".to_owned()), None, Some("dogs".to_owned())]
    );
    assert_eq!(
        (report.texts, report.texts_changed, report.dropped_short),
        (3, 2, 1)
    );
    let steps: Vec<_> = report
        .steps
        .iter()
        .map(|s| {
            (
                s.step,
                s.texts_changed,
                s.characters_before - s.characters_after,
                s.words_removed,
            )
        })
        .collect();
    assert_eq!(
        steps,
        [
            (Step::StripHtml, 2, 14, 0),
            (Step::Lowercase, 1, 0, 0),
            (Step::Segment, 0, 0, 0),
            (Step::StopWords, 2, 9, 3),
        ]
    );
    assert_eq!(report.samples.len(), 2);
    assert!(report.samples[1].dropped);
    let json = serde_json::to_string(&report).unwrap();
    assert!(json.contains(r#""step":"strip_html""#), "{json}");
}

#[test]
fn rows_are_measured_without_the_white_space_around_them() {
    let preprocessor = Preprocessor::new(&options(r#"{"min_length": 3}"#)).unwrap();
    for (text, is_short) in [
        ("价格", true),
        ("价格好", false),
        ("  a  ", true),
        ("", true),
        ("a b", false),
    ] {
        assert_eq!(preprocessor.is_short(text), is_short, "{text}");
    }
}

#[test]
fn huge_lines_are_done_in_time() {
    let all = options(
        r#"{"normalize": "nfkc", "strip_html": true, "strip_control": true, "lowercase": true,
            "segment": "auto", "stop_words": "both"}"#,
    );
    let preprocessor = Preprocessor::new(&all).unwrap();
    for unit in ["a", "味道好", "<b>", "e\u{301}", " ", "\0", "👩\u{200d}"] {
        let text = unit.repeat(1 << 18);
        let begin = std::time::Instant::now();
        let _ = preprocessor.apply(&text);
        assert!(begin.elapsed().as_secs() < 60, "{unit:?}");
    }
}

proptest! {
    #[test]
    fn segmentation_removes_white_space_alone(text in "(\\PC|[a-c\\s\u{300}-\u{310}\u{200d}👩敏捷的狐狸]){0,40}") {
        let solid = |text: &str| text.split_whitespace().collect::<String>();
        let words = Segmenter::new(Segment::Words).segment(&text).into_owned();
        prop_assert_eq!(solid(&words), solid(&text));
        prop_assert!(!words.contains("  ") && words.trim() == words);
    }

    #[test]
    fn steps_that_were_done_have_nothing_left_to_do(text in "\\PC{0,20}[\u{0}-\u{3ff}\u{1e00}-\u{1fff}\u{200b}]{0,20}") {
        for form in ["none", "nfc", "nfkc"] {
            let json = format!(r#"{{"normalize": "{form}", "strip_control": true, "lowercase": true}}"#);
            let once = apply(&json, &text);
            prop_assert_eq!(apply(&json, &once), once);
        }
    }

    #[test]
    fn any_text_is_done(text in any::<String>()) {
        let _ = apply(r#"{"normalize": "nfkc", "strip_html": true, "strip_control": true, "lowercase": true, "segment": "words", "stop_words": "en"}"#, &text);
    }
}

/// Chinese segmentation shares one dictionary, which takes long to be made.
#[test]
fn chinese_segmentation_removes_white_space_alone() {
    let solid = |text: &str| text.split_whitespace().collect::<String>();
    for segment in [Segment::Chinese, Segment::Auto] {
        let segmenter = Segmenter::new(segment);
        let long = "味道好 ".repeat(50_000);
        for text in SCRIPTS.into_iter().chain([long.as_str()]) {
            assert_eq!(solid(&segmenter.segment(text)), solid(text), "{text:.20}");
        }
    }
}
