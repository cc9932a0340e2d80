use proptest::prelude::*;

use super::*;

fn curve(label: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Curve {
    Curve {
        label: label.to_owned(),
        points: points.into_iter().collect(),
        kind: Kind::Exact,
    }
}

fn panel(curves: impl IntoIterator<Item = Curve>) -> Panel {
    Panel {
        title: "Training loss".to_owned(),
        x_label: "step".to_owned(),
        y_label: "mean squared error".to_owned(),
        curves: curves.into_iter().collect(),
        mark: None,
        bars: Vec::new(),
    }
}

fn draw_one(curves: impl IntoIterator<Item = Curve>) -> String {
    picture(&[panel(curves)]).unwrap()
}

/// The points of every line of more than two points, which are the curves, with what their stroke says.
fn strokes<'a>(svg: &'a str, stroke: &str) -> Vec<Vec<(i32, i32)>> {
    let point = |pair: &'a str| {
        let (x, y) = pair.split_once(',').unwrap();
        (x.parse().unwrap(), y.parse().unwrap())
    };
    svg.lines()
        .filter(|line| line.starts_with("<polyline") && line.contains(stroke))
        .map(|line| line.split("points=\"").nth(1).unwrap())
        .map(|line| line.split('"').next().unwrap())
        .map(|line| line.split_whitespace().map(point).collect::<Vec<_>>())
        .filter(|line| line.len() > 2)
        .collect()
}

fn lines(svg: &str) -> Vec<Vec<(i32, i32)>> {
    strokes(svg, "stroke-width=\"4\"")
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
    let svg = draw_one([curve("one", points)]);
    assert!(svg.starts_with("<svg width=\"880\" height=\""));
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
        "mean squared error (log scale)",
        "one",
        "0.01",
        "1e-4",
    ] {
        assert!(texts.contains(&text), "{text} is not in {texts:?}");
    }
}

#[test]
fn an_axis_is_logarithmic_where_values_span_a_decade() {
    for (values, is_log) in [
        (&[1.0, 9.0][..], false),
        (&[1.0, 11.0], true),
        (&[0.0, 1.0, 11.0], true),
        (&[-1.0, 1.0, 100.0], false),
        (&[f64::NAN, 1.0, 2.0, f64::INFINITY], false),
        (&[0.0, 5.0], false),
        (&[], false),
    ] {
        let points = values.iter().map(|y| (0.0, *y));
        assert_eq!(spans_decades(&[curve("a", points)]), is_log, "{values:?}");
    }
}

/// The mean of a line is the line, and noise to and fro is gone.
#[test]
fn a_noisy_curve_is_faint_below_its_running_mean() {
    let wave = |x: u32| 50.0 + f64::from(x) / 10.0 + if x.is_multiple_of(2) { 8.0 } else { -8.0 };
    let noisy = Curve {
        kind: Kind::Noisy,
        ..curve("a", (0..200).map(|x| (f64::from(x), wave(x))))
    };
    let svg = draw_one([noisy]);
    let (faint, mean) = (strokes(&svg, "opacity=\"0.25\""), lines(&svg));
    assert_eq!((faint.len(), mean.len()), (1, 1));
    assert!(svg.find("opacity=\"0.25\"") < svg.find("stroke-width=\"4\""));
    // The means move by as much as one value of eleven does; the values by sixteen.
    let span = |line: &[(i32, i32)]| {
        let steps = line[20..line.len() - 20].windows(2);
        steps
            .map(|pair| (pair[1].1 - pair[0].1).abs())
            .max()
            .unwrap()
    };
    assert!(span(&faint[0]) > 6 * span(&mean[0]));
    let straight: Vec<_> = (0..100)
        .map(|x| (f64::from(x), 3.0 * f64::from(x)))
        .collect();
    for (mean, point) in smoothed(&straight).iter().zip(&straight) {
        assert!((mean.0 - point.0).abs() < 1e-12 && (mean.1 - point.1).abs() < 1e-9);
    }
    assert_eq!(smoothed(&[(1.0, 2.0)]), [(1.0, 2.0)]);
    assert_eq!(smoothed(&[]), []);
}

#[test]
fn the_same_curves_give_the_same_bytes() {
    let draw = || {
        let points = (0..50).map(|x| (f64::from(x), f64::from(x * x % 17)));
        draw_one([curve("a", points.clone()), curve("b", points)])
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
    let none = draw_one([]);
    assert_eq!(lines(&none).len(), 0);
    assert!(texts(&none).contains(&"step") && texts(&none).contains(&"0.2"));
    let empty = draw_one([curve("nothing", [])]);
    assert!(texts(&empty).contains(&"nothing (none)"));
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
    let svg = draw_one([curve("a", points)]);
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn long_curves_are_thinned() {
    for count in [1usize, 2, 299, 300, 301, 599, 600, 601, 100_003] {
        let kept = places(count, MAX_POINTS);
        assert!(kept.len() <= MAX_POINTS && kept.len() >= count.min(MAX_POINTS / 2));
        assert_eq!((kept.first(), kept.last()), (Some(&0), Some(&(count - 1))));
        let steps: Vec<usize> = kept.windows(2).map(|pair| pair[1] - pair[0]).collect();
        if let Some((last, steps)) = steps.split_last() {
            assert!(steps.iter().all(|step| *step == steps[0]));
            assert!(steps.is_empty() || *last <= steps[0]);
        }
    }
    let wave = |k: u32| (0..100_000).map(move |x| (f64::from(x), f64::from(x * k % 1009)));
    let svg = draw_one([curve("a", wave(7)), curve("b", wave(11))]);
    assert!(svg.len() < 20_000, "{}", svg.len());
}

#[test]
fn one_point_is_a_marker_and_a_mark_is_a_ring() {
    let one = || panel([curve("a", [(3.0, 5.0)])]);
    let svg = picture(&[one()]).unwrap();
    // One on the plane, one in the legend.
    assert_eq!(svg.matches("<circle").count(), 2);
    let mark = Mark {
        at: (3.0, 5.0),
        label: "best: 5 after step 3".to_owned(),
    };
    let marked_too = Panel {
        mark: Some(mark),
        ..one()
    };
    let svg = picture(&[marked_too]).unwrap();
    assert_eq!(svg.matches("<circle").count(), 4);
    assert!(texts(&svg).contains(&"best: 5 after step 3"));
    assert_eq!(marked(1, 3).count(), 1);
    assert_eq!(marked(0, 0).count(), 0);
    assert!(marked(400, 5).all(|place| place < 400));
}

/// A bar is a line up and down with one across each end and has room within the axes.
#[test]
fn bars_go_as_far_as_they_say() {
    let with = |bars: &[(f64, f64, f64)]| {
        let bars = bars.iter().map(|(at, low, high)| Bar {
            at: *at,
            low: *low,
            high: *high,
        });
        let panel = Panel {
            bars: bars.collect(),
            ..panel([curve("a", [(1.0, 5.0), (2.0, 6.0)])])
        };
        picture(&[panel]).unwrap()
    };
    // No other line is as wide.
    let paths = |svg: &str| svg.matches("stroke-width=\"3\"").count();
    let plain = with(&[]);
    assert_eq!(paths(&plain), 0);
    let barred = with(&[(1.0, 4.0, 6.0), (2.0, -3.0, 15.0)]);
    assert_eq!(paths(&barred), 6);
    let labels = |svg: &str| {
        texts(svg)
            .iter()
            .filter_map(|text| text.parse().ok())
            .fold(0.0, f64::max)
    };
    assert!(labels(&plain) < 10.0 && labels(&barred) >= 10.0);
    assert!(!with(&[(1.0, f64::NAN, 6.0)]).contains("NaN"));
}

#[test]
fn panels_stand_below_each_other() {
    let height = |svg: &str| -> i32 {
        let rest = svg.split("height=\"").nth(1).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    };
    let points = || (0..9).map(|x| (f64::from(x), f64::from(x)));
    let one = draw_one([curve("a", points())]);
    let two = picture(&[panel([curve("a", points())]), panel([curve("b", points())])]).unwrap();
    assert_eq!(height(&two), 2 * height(&one));
    let (above, below) = (&lines(&two)[0], &lines(&two)[1]);
    assert_eq!(above, &lines(&one)[0]);
    for (above, below) in above.iter().zip(below) {
        assert_eq!((below.0 - above.0, below.1 - above.1), (0, height(&one)));
    }
}

#[test]
fn texts_are_escaped_and_legends_are_not_cut() {
    let nasty = "<script>&\"\u{1}\n\u{ffff}";
    let long = "é".repeat(100);
    let spaced = "kind=one, ".repeat(9);
    let svg = picture(&[Panel {
        title: nasty.repeat(9),
        x_label: long.clone(),
        y_label: nasty.to_owned(),
        curves: vec![
            curve(nasty, [(0.0, 0.0)]),
            curve(&long, [(1.0, 1.0)]),
            curve(&spaced, [(1.0, 1.0)]),
        ],
        mark: None,
        bars: Vec::new(),
    }])
    .unwrap();
    assert!(!svg.contains("<script") && !svg.contains('\u{1}') && !svg.contains('\u{ffff}'));
    let texts = texts(&svg);
    assert!(texts.contains(&"&lt;script&gt;&amp;&quot;  \u{fffd}"));
    assert!(texts.contains(&format!("{}\u{2026}", "é".repeat(X_CHARACTERS - 1)).as_str()));
    // All of it is there, over several lines that fit.
    let of = |start: char| -> Vec<&&str> {
        let lines = texts.iter().filter(|text| text.starts_with(start));
        lines.filter(|text| !text.contains('\u{2026}')).collect()
    };
    let whole: usize = of('é').iter().map(|line| line.chars().count()).sum();
    assert!(whole == 100 && of('é').len() == 2);
    assert_eq!(of('k').len(), 2);
    assert!(of('k').iter().all(|line| line.ends_with("one,")));
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
        points in prop::collection::vec(prop::collection::vec((value(), value()), 0..30), 0..4),
        noisy: bool,
    ) {
        let kind = if noisy { Kind::Noisy } else { Kind::Exact };
        let list: Vec<_> = points
            .into_iter()
            .map(|points| Curve { kind, ..curve("c", points) })
            .collect();
        let svg = draw_one(list);
        prop_assert!(!svg.contains("NaN") && !svg.contains("inf"));
        prop_assert_eq!(svg.matches("</svg>").count(), 1);
        // Everything lies on the picture.
        for (x, y) in lines(&svg).into_iter().flatten() {
            prop_assert!((0..880).contains(&x) && (0..900).contains(&y), "{} {}", x, y);
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
