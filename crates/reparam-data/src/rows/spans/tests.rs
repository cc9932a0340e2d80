use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::rows::testing::golden;
use crate::tokenizer::EncodedRow;

/// Windows over a context of tokens of two characters and a space, behind a question of two tokens.
fn windows(n_tokens: usize, room: usize, stride: usize) -> Vec<Window> {
    let mut windows = Vec::new();
    for begin in (0..n_tokens).step_by(room - stride) {
        let end = (begin + room).min(n_tokens);
        let n = 3 + end - begin;
        windows.push(Window {
            row: EncodedRow {
                ids: vec![0; n],
                type_ids: vec![0; n],
                truncated: end - begin < n_tokens,
            },
            context: 3..n,
            part: begin..end,
            characters: (begin..end).map(|token| 3 * token..3 * token + 2).collect(),
        });
        if end == n_tokens {
            break;
        }
    }
    windows
}

#[test]
fn targets_are_the_tokens_of_the_answer_where_all_of_it_is() {
    let windows = windows(6, 4, 2);
    for (answer, expected) in [
        (Some(3..8), [(4, 5), (0, 0)]),
        (Some(4..7), [(4, 5), (0, 0)]),
        (Some(6..11), [(5, 6), (3, 4)]),
        (Some(12..17), [(0, 0), (5, 6)]),
        // White space around an answer is of no token.
        (Some(2..6), [(4, 4), (0, 0)]),
        // Longer than what any window has.
        (Some(0..17), [(0, 0), (0, 0)]),
        // Nothing but white space.
        (Some(5..6), [(0, 0), (0, 0)]),
        (Some(17..18), [(0, 0), (0, 0)]),
        (None, [(0, 0), (0, 0)]),
    ] {
        assert_eq!(
            span_targets(&windows, answer.as_ref()),
            expected,
            "{answer:?}"
        );
    }
    assert_eq!(span_targets(&[], Some(&(0..1))), []);
}

/// The span that logits of zero choose, but for those given as (window, index in the row, start, end).
fn chosen(windows: &[Window], peaks: &[(usize, usize, f32, f32)], options: SpanOptions) -> Span {
    let mut logits: Vec<[Vec<f32>; 2]> = windows
        .iter()
        .map(|window| [(); 2].map(|()| vec![0.0; window.row.ids.len()]))
        .collect();
    for (window, index, start, end) in peaks {
        logits[*window][0][*index] += start;
        logits[*window][1][*index] += end;
    }
    let logits = logits.iter().map(|[start, end]| SpanLogits { start, end });
    best_span(windows.iter().zip(logits), options)
}

#[test]
fn the_best_span_of_all_windows_is_the_answer() {
    let windows = windows(6, 4, 2);
    let options = SpanOptions::default();
    let span = chosen(
        &windows,
        &[(0, 0, 2.0, 2.0), (1, 4, 3.0, 0.0), (1, 5, 0.0, 3.0)],
        options,
    );
    // Five tokens count: the first one and the four of the context, not those of the question.
    let e = 3f64.exp();
    assert_eq!(span.characters, Some(9..14));
    assert!(
        (span.score - (e / (e + 4.0)).powi(2)).abs() < 1e-15,
        "{span:?}"
    );

    // An end before its beginning is none, nor is one too far behind it.
    let peaks = [(0, 6, 9.0, 0.0), (0, 3, 0.0, 8.0)];
    assert_eq!(
        chosen(&windows[..1], &peaks, options).characters,
        Some(9..11)
    );
    let peaks = [(0, 3, 9.0, 0.0), (0, 6, 0.0, 9.0), (0, 5, 0.0, 8.0)];
    assert_eq!(chosen(&windows, &peaks, options).characters, Some(0..11));
    let short = SpanOptions {
        max_tokens: 3,
        ..options
    };
    assert_eq!(chosen(&windows, &peaks, short).characters, Some(0..8));
    // What the question's tokens say does not count.
    let peaks = [(0, 1, 99.0, 99.0), (0, 4, 3.0, 3.0)];
    assert_eq!(chosen(&windows, &peaks, options).characters, Some(3..5));
}

/// A question of the golden file.
#[derive(Deserialize)]
struct Case {
    most: usize,
    windows: Vec<CaseWindow>,
    window: Option<usize>,
    first: Option<usize>,
    last: Option<usize>,
    score: f64,
}

#[derive(Deserialize)]
struct CaseWindow {
    tokens: usize,
    before: usize,
    context: usize,
    start: Vec<f32>,
    end: Vec<f32>,
}

#[test]
fn answers_are_chosen_as_by_the_pipeline_of_transformers() {
    let cases: Vec<Case> = golden("spans.json", "cases");
    assert_eq!(cases.len(), 18);
    assert!(cases.iter().any(|case| case.window.is_none()));
    for case in &cases {
        // The characters of a token say its window and its number.
        let token = |window: usize, token: usize| 100 * window + token;
        let windows: Vec<Window> = case
            .windows
            .iter()
            .enumerate()
            .map(|(index, window)| Window {
                row: EncodedRow {
                    ids: vec![0; window.tokens],
                    type_ids: vec![0; window.tokens],
                    truncated: true,
                },
                context: window.before..window.before + window.context,
                part: 0..window.context,
                characters: (0..window.context)
                    .map(|at| token(index, at)..token(index, at + 1))
                    .collect(),
            })
            .collect();
        let logits = case.windows.iter().map(|window| SpanLogits {
            start: &window.start,
            end: &window.end,
        });
        let options = SpanOptions {
            max_tokens: case.most,
            no_answer: true,
        };
        let found = best_span(windows.iter().zip(logits), options);
        let expected = match (case.window, case.first, case.last) {
            (Some(window), Some(first), Some(last)) => {
                Some(token(window, first)..token(window, last + 1))
            }
            _ => None,
        };
        assert_eq!(found.characters, expected);
        // Both sides sum exponentials in f64, in different orders.
        assert!(
            (found.score - case.score).abs() < 1e-14,
            "{found:?} {}",
            case.score
        );
    }
}

#[test]
fn there_is_no_answer_if_every_window_says_so() {
    let windows = windows(6, 4, 2);
    let options = SpanOptions::default();
    let nothing = [(0, 0, 5.0, 5.0), (1, 0, 6.0, 6.0)];
    let span = chosen(&windows, &nothing, options);
    let e = 5f64.exp();
    assert_eq!(span.characters, None);
    assert!(
        (span.score - (e / (e + 4.0)).powi(2)).abs() < 1e-15,
        "{span:?}"
    );
    let always = SpanOptions {
        no_answer: false,
        ..options
    };
    assert_eq!(chosen(&windows, &nothing, always).characters, Some(0..2));
    let one = [(0, 0, 5.0, 5.0), (1, 5, 6.0, 6.0)];
    assert_eq!(chosen(&windows, &one, options).characters, Some(12..14));
    // Nothing to choose from.
    assert_eq!(
        best_span([], options),
        Span {
            characters: None,
            score: 0.0
        }
    );
    let empty = self::windows(1, 2, 1);
    let empty = Window {
        context: 3..3,
        part: 0..0,
        characters: vec![],
        ..empty[0].clone()
    };
    assert_eq!(chosen(&[empty], &[], always).characters, None);
}

proptest! {
    #[test]
    fn the_targets_of_an_answer_are_decoded_to_it(
        n_tokens in 1usize..40, room in 3usize..12, stride in 0usize..3, first in 0usize..40, length in 1usize..12,
    ) {
        let windows = windows(n_tokens, room, stride);
        let first = first % n_tokens;
        let last = (first + length - 1).min(n_tokens - 1);
        let answer = 3 * first..3 * last + 2;
        let targets = span_targets(&windows, Some(&answer));
        let fits = windows.iter().any(|window| window.part.start <= first && last < window.part.end);
        prop_assert_eq!(targets.iter().any(|target| *target != (0, 0)), fits);
        let peaks: Vec<_> = targets.iter().enumerate().flat_map(|(window, (start, end))| {
            [(window, *start, 9.0, 0.0), (window, *end, 0.0, 9.0)]
        }).collect();
        let span = chosen(&windows, &peaks, SpanOptions::default());
        prop_assert_eq!(span.characters, fits.then_some(answer));
    }
}
