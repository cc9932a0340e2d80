use proptest::prelude::*;

use super::*;

fn curve(label: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Curve {
    Curve {
        label: label.to_owned(),
        points: points.into_iter().collect(),
    }
}

fn axes(log_y: bool) -> Axes {
    Axes {
        title: "Training loss".to_owned(),
        x_label: "step".to_owned(),
        y_label: "mean squared error".to_owned(),
        log_y,
    }
}

/// The points of every line of more than two points, which are the curves.
fn lines(svg: &str) -> Vec<Vec<(i32, i32)>> {
    let point = |pair: &str| {
        let (x, y) = pair.split_once(',').unwrap();
        (x.parse().unwrap(), y.parse().unwrap())
    };
    svg.lines()
        .filter(|line| line.starts_with("<polyline") && line.contains("stroke-width=\"2\""))
        .map(|line| line.split("points=\"").nth(1).unwrap())
        .map(|line| line.split('"').next().unwrap())
        .map(|line| line.split_whitespace().map(point).collect::<Vec<_>>())
        .filter(|line| line.len() > 2)
        .collect()
}

/// The texts of a picture, as they are escaped.
fn texts(svg: &str) -> Vec<&str> {
    let texts = svg.split("<text").skip(1);
    let texts = texts.map(|text| text.split("</text>").next().unwrap());
    texts
        .map(|text| text.split_once('>').unwrap().1.trim())
        .collect()
}

fn tick_texts(axis: &Axis) -> Vec<&str> {
    axis.ticks.iter().map(|tick| tick.text.as_str()).collect()
}

#[test]
fn a_curve_runs_through_its_points() {
    // Down to the right, straight in log scale.
    let points = (0..100).map(|x| (f64::from(x), 10f64.powf(f64::from(-x) / 20.0)));
    let svg = curves(&[curve("one", points)], &axes(true)).unwrap();
    assert!(svg.starts_with("<svg width=\"720\" height=\"420\""));
    assert!(svg.trim_end().ends_with("</svg>"));
    let lines = lines(&svg);
    assert_eq!(lines.len(), 1);
    let (first, last) = (lines[0][0], lines[0][99]);
    assert!(first.0 < last.0 && first.1 < last.1, "{first:?} {last:?}");
    for (number, (x, y)) in lines[0].iter().enumerate() {
        let part = number as f64 / 99.0;
        let on_line = |from: i32, to: i32| f64::from(from) + part * f64::from(to - from);
        assert!((f64::from(*x) - on_line(first.0, last.0)).abs() <= 1.0);
        assert!((f64::from(*y) - on_line(first.1, last.1)).abs() <= 1.0);
    }
    let texts = texts(&svg);
    for text in [
        "Training loss",
        "step",
        "mean squared error",
        "one",
        "0.01",
        "1e-4",
    ] {
        assert!(texts.contains(&text), "{text} is not in {texts:?}");
    }
}

#[test]
fn the_same_curves_give_the_same_bytes() {
    let draw = || {
        let points = (0..50).map(|x| (f64::from(x), f64::from(x * x % 17)));
        curves(
            &[curve("a", points.clone()), curve("b", points)],
            &axes(false),
        )
        .unwrap()
    };
    assert_eq!(draw(), draw());
}

#[test]
fn curves_differ_in_colour_and_marker() {
    let looks: Vec<Look> = (0..42).map(Look::of).collect();
    for (number, a) in looks.iter().enumerate() {
        for b in &looks[..number] {
            assert!(a.colour != b.colour || a.shape != b.shape);
        }
    }
    for pair in looks.windows(2) {
        assert!(pair[0].colour != pair[1].colour && pair[0].shape != pair[1].shape);
    }
}

#[test]
fn without_points_there_are_axes() {
    for log_y in [false, true] {
        let none = curves(&[], &axes(log_y)).unwrap();
        assert_eq!(lines(&none).len(), 0);
        assert!(texts(&none).contains(&"step"));
        assert!(texts(&none).contains(&if log_y { "0.1" } else { "0.2" }));
        let empty = curves(&[curve("nothing", [])], &axes(log_y)).unwrap();
        assert!(texts(&empty).contains(&"nothing (none)"));
    }
}

#[test]
fn points_that_cannot_be_drawn_are_left_out() {
    let points = [
        (0.0, 4.0),
        (1.0, f64::NAN),
        (2.0, f64::INFINITY),
        (f64::NEG_INFINITY, 1.0),
        (3.0, 1e301),
        (4.0, 0.0),
        (5.0, -1.0),
        (6.0, 2.0),
    ];
    assert_eq!(drawable(&points, true), [(0.0, 4.0), (6.0, 2.0)]);
    assert_eq!(
        drawable(&points, false),
        [(0.0, 4.0), (4.0, 0.0), (5.0, -1.0), (6.0, 2.0)]
    );
    for log_y in [false, true] {
        let svg = curves(&[curve("a", points)], &axes(log_y)).unwrap();
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}

#[test]
fn long_curves_are_thinned() {
    for count in [1u32, 2, 399, 400, 401, 799, 800, 801, 100_003] {
        let points: Vec<_> = (0..count).map(|x| (f64::from(x), f64::from(x))).collect();
        let kept = drawable(&points, false);
        assert!(kept.len() <= MAX_POINTS && kept.len() >= points.len().min(MAX_POINTS / 2));
        assert_eq!((kept.first(), kept.last()), (points.first(), points.last()));
        let steps: Vec<f64> = kept.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        if let Some((last, steps)) = steps.split_last() {
            assert!(steps.iter().all(|step| *step == steps[0]));
            assert!(steps.is_empty() || *last <= steps[0]);
        }
    }
    let wave = |k: u32| (0..100_000).map(move |x| (f64::from(x), f64::from(x * k % 1009)));
    let svg = curves(&[curve("a", wave(7)), curve("b", wave(11))], &axes(false)).unwrap();
    assert!(svg.len() < 20_000, "{}", svg.len());
}

#[test]
fn one_point_is_a_marker() {
    let svg = curves(&[curve("a", [(3.0, 5.0)])], &axes(true)).unwrap();
    // One on the plane, one in the legend.
    assert_eq!(svg.matches("<circle").count(), 2);
    assert_eq!(marked(1, 3).count(), 1);
    assert_eq!(marked(0, 0).count(), 0);
    assert!(marked(400, 5).all(|place| place < 400));
}

#[test]
fn labels_are_escaped_and_cut() {
    let nasty = "<script>&\"\u{1}\n\u{ffff}";
    let long = "é".repeat(100);
    let svg = curves(
        &[curve(nasty, [(0.0, 0.0)]), curve(&long, [(1.0, 1.0)])],
        &Axes {
            title: nasty.repeat(9),
            x_label: long.clone(),
            y_label: nasty.to_owned(),
            log_y: false,
        },
    )
    .unwrap();
    assert!(!svg.contains("<script") && !svg.contains('\u{1}') && !svg.contains('\u{ffff}'));
    assert!(texts(&svg).contains(&"&lt;script&gt;&amp;&quot;  \u{fffd}"));
    assert!(
        texts(&svg).contains(&format!("{}\u{2026}", "é".repeat(LABEL_CHARACTERS - 1)).as_str())
    );
    assert!(texts(&svg).contains(&format!("{}\u{2026}", "é".repeat(X_CHARACTERS - 1)).as_str()));
}

#[test]
fn a_legend_that_is_too_long_says_so() {
    let many: Vec<Curve> = (0..60)
        .map(|n| curve(&format!("c{n}"), [(0.0, 1.0)]))
        .collect();
    let svg = curves(&many, &axes(false)).unwrap();
    let texts = texts(&svg);
    let shown = texts.iter().filter(|text| text.starts_with('c')).count();
    assert!(shown > 10);
    assert!(texts.contains(&format!("and {} more", 60 - shown).as_str()));
    // As many as there is room for are all shown.
    let svg = curves(&many[..=shown], &axes(false)).unwrap();
    assert!(!svg.contains(" more"));
}

#[test]
fn ticks_are_round_numbers() {
    let ticks = |low, high| Axis::linear([low, high].into_iter());
    assert_eq!(
        tick_texts(&ticks(0.0, 2000.0)),
        ["0", "500", "1000", "1500", "2000"]
    );
    assert_eq!(
        tick_texts(&ticks(-0.2, 0.3)),
        ["-0.2", "-0.1", "0", "0.1", "0.2", "0.3"]
    );
    assert_eq!(
        tick_texts(&ticks(0.0, 4e6)),
        ["0", "1e6", "2e6", "3e6", "4e6"]
    );
    assert_eq!(
        tick_texts(&ticks(1e9, 1e9 + 4.0)),
        [
            "1.000000000e9",
            "1.000000001e9",
            "1.000000002e9",
            "1.000000003e9",
            "1.000000004e9"
        ]
    );
    let ticks = |low, high| Axis::logarithmic([low, high].into_iter());
    assert_eq!(
        tick_texts(&ticks(1e-5, 20.0)),
        ["1e-5", "1e-4", "0.001", "0.01", "0.1", "1", "10"]
    );
    assert_eq!(
        tick_texts(&ticks(1.0, 50.0)),
        ["1", "2", "5", "10", "20", "50"]
    );
    assert_eq!(
        tick_texts(&ticks(2.8, 3.2)),
        ["2.8", "2.9", "3.0", "3.1", "3.2"]
    );
    assert_eq!(
        tick_texts(&ticks(1e-290, 1e290)),
        ["1e-300", "1e-200", "1e-100", "1", "1e100", "1e200", "1e300"]
    );
}

#[test]
fn the_page_escapes_its_texts_and_loads_nothing() {
    let svg = curves(&[curve("a", [(0.0, 1.0), (1.0, 2.0)])], &axes(false)).unwrap();
    let page = html(
        "Study <1> & \"2\"",
        &[("Loss & more".to_owned(), svg.clone())],
        &["method".to_owned(), "mse".to_owned(), "note".to_owned()],
        &[
            vec![
                "<b>full</b>".to_owned(),
                "1.5e-3".to_owned(),
                "it's".to_owned(),
            ],
            vec!["lora".to_owned(), "0.2".to_owned()],
            vec!["none".to_owned(), String::new(), "\u{7}".to_owned()],
        ],
    );
    assert!(page.starts_with("<!DOCTYPE html>\n<html lang=\"en\">"));
    assert!(page.contains("<title>Study &lt;1&gt; &amp; &quot;2&quot;</title>"));
    assert!(page.contains("<h2>Loss &amp; more</h2>"));
    assert!(page.contains(svg.trim_end()));
    assert!(page.contains(
        "<tr><th scope=\"row\">&lt;b&gt;full&lt;/b&gt;</th><td class=\"n\">1.5e-3</td><td>it&#39;s</td></tr>"
    ));
    assert!(page.contains("<tr><th scope=\"row\">lora</th><td class=\"n\">0.2</td><td></td></tr>"));
    assert!(page.contains("<th scope=\"col\" class=\"n\">mse</th>"));
    assert!(!page.contains("<b>") && !page.contains("<script") && !page.contains('\u{7}'));
    for load in ["src=", "href=", "url(", "@import"] {
        assert!(!page.contains(load), "{load}");
    }
    for tag in [
        "html", "head", "body", "main", "section", "figure", "table", "thead", "tbody", "tr", "div",
    ] {
        let open =
            page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(open, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
}

#[test]
fn a_page_may_have_no_table_and_no_pictures() {
    let page = html("Empty", &[], &[], &[]);
    assert!(page.contains("<h1>Empty</h1>"));
    assert!(!page.contains("<table") && !page.contains("<section"));
}

/// Any number, and often numbers that are close to each other.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<f64>(),
        -10.0f64..10.0,
        (0u8..4).prop_map(|n| 1e9 + f64::from(n)),
        prop::sample::select(vec![
            0.0,
            -0.0,
            1.0,
            f64::MIN_POSITIVE,
            5e-324,
            f64::NAN,
            1e300,
            -1e300
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_points_panic(
        points in prop::collection::vec(prop::collection::vec((value(), value()), 0..12), 0..4),
        log_y: bool,
    ) {
        let list: Vec<_> = points.into_iter().map(|points| curve("c", points)).collect();
        let svg = curves(&list, &axes(log_y)).unwrap();
        prop_assert!(!svg.contains("NaN") && !svg.contains("inf"));
        prop_assert_eq!(svg.matches("</svg>").count(), 1);
        // Everything lies on the picture.
        for (x, y) in lines(&svg).into_iter().flatten() {
            prop_assert!((0..720).contains(&x) && (0..420).contains(&y), "{} {}", x, y);
        }
    }

    #[test]
    fn ticks_lie_on_the_axis_and_differ(
        values in prop::collection::vec(value(), 0..6), log_y: bool,
    ) {
        let good = values.into_iter().filter(|v| v.abs() <= LARGEST && (!log_y || *v > 0.0));
        let good: Vec<f64> = good.collect();
        let axis = match log_y {
            true => Axis::logarithmic(good.iter().copied()),
            false => Axis::linear(good.iter().copied()),
        };
        prop_assert!(axis.low < axis.high && (axis.high - axis.low).is_finite());
        for value in &good {
            prop_assert!((axis.low..=axis.high).contains(&axis.place(*value)));
        }
        prop_assert!((2..=14).contains(&axis.ticks.len()), "{:?}", axis);
        for tick in &axis.ticks {
            prop_assert!((axis.low..=axis.high).contains(&tick.place), "{:?}", axis);
        }
        for pair in axis.ticks.windows(2) {
            prop_assert!(pair[0].place < pair[1].place && pair[0].text != pair[1].text, "{:?}", axis);
        }
    }

    #[test]
    fn a_tick_says_where_it_is(low in 1e-6f64..1e6, factor in 1.001f64..1e6, log_y: bool) {
        let values = [low, low * factor].into_iter();
        let axis = if log_y { Axis::logarithmic(values) } else { Axis::linear(values) };
        for tick in &axis.ticks {
            let value: f64 = tick.text.parse().unwrap();
            let off = (axis.place(value) - tick.place).abs();
            prop_assert!(off <= 1e-9 * (axis.high - axis.low), "{:?} {:?}", tick, axis);
        }
    }
}
