use super::*;
use proptest::prelude::*;

#[test]
fn markup_goes_and_text_stays() {
    for (text, expected) in [
        ("no markup", "no markup"),
        ("<p>one</p><p>two</p>", "one two"),
        ("one<br>two<br/>three", "one two three"),
        ("<b>bo</b>ld and <span class=x>span</span>", "bold and span"),
        ("one <br> two", "one  two"),
        ("<!DOCTYPE html><html><body>x</body></html>", "x"),
        ("<?xml version='1.0'?>x", "x"),
        // What is no markup.
        ("a < b and c > d, <3, 1<2", "a < b and c > d, <3, 1<2"),
        ("a <b", "a <b"),
        ("<", "<"),
        ("</", "</"),
        ("<>x</>", "<>x</>"),
        // Nested and broken tags.
        ("<<b>>", "<>"),
        ("<div><div><ul><li>x</li></ul></div></div>", "x"),
        ("<scr<b>ipt>x", "ipt>x"),
        // Quotes hide what is in values, and nothing else.
        ("<a title=\"x > y\" href='z'>it</a>", "it"),
        ("<a title = 'a>b' >it", "it"),
        ("<i>it's</i> and 'so' > <i>on</i>", "it's and 'so' > on"),
        ("<a it's>b</a> isn't", "b isn't"),
        ("<a href=\"x>open", "open"),
        // Comments.
        ("a<!-- b <i> -- > c -->d", "ad"),
        ("a<!-->b", "ab"),
        ("a<!-- never", "a<!-- never"),
        ("<!-- a --> <!-- b", " <!-- b"),
        // Scripts and styles.
        ("a<script>if (a < b) { x = '<p>' }</script>b", "a b"),
        ("a<STYLE type=\"text/css\">p > i { }</Style >b", "a b"),
        ("a<script>never", "a never"),
        ("a<script/>b</scriptx>c", "a c"),
        ("<scripted>a</scripted>", "a"),
        // Entities come last.
        ("&lt;b&gt;x&lt;/b&gt;", "<b>x</b>"),
        ("<b>&amp;</b>", "&"),
        // Other scripts, NUL and line ends.
        ("<p>价格</p><p>很好</p>", "价格 很好"),
        ("<p>\0é\r\n</p>\r\n", "\0é\r\n\r\n"),
        ("é<é>é", "é<é>é"),
        ("", ""),
    ] {
        assert_eq!(strip_html(text), expected, "{text:?}");
    }
}

#[test]
fn hostile_texts_take_linear_time() {
    for unit in [
        "<!--",
        "<script>",
        "</script",
        "<style></",
        "<a =\"",
        "<a =\">\"",
        "<a ='>",
        "<a",
        "<",
        "&",
        "&#",
        "&a",
    ] {
        let text = unit.repeat(200_000);
        let text = match unit {
            "</script" => format!("<script>{text}"),
            _ => text,
        };
        let begin = std::time::Instant::now();
        let length = strip_html(&text).len() + strip_html(&(text.clone() + "='")).len();
        assert!(length <= 2 * text.len() + 2);
        // A tenth of a second is plenty; squared, it would be minutes.
        assert!(begin.elapsed().as_secs() < 10, "{unit}");
    }
}

proptest! {
    #[test]
    fn nothing_is_invented(text in "(<|>|/|!|--|\"|'|=|a|p|script|style|&|;|#|x|[0-9]| |é|\\n){0,60}") {
        let stripped = strip_html(&text);
        // A name of four characters at least becomes one or two.
        prop_assert!(stripped.chars().count() <= text.chars().count());
    }

    #[test]
    fn what_has_no_markup_is_not_copied(text in "[^<&]*") {
        prop_assert!(matches!(strip_html(&text), Cow::Borrowed(_)));
    }
}
