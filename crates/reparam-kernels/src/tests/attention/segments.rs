//! Segments that both kinds of attention are tested with.

use proptest::prelude::*;

use crate::attention::Segment;

/// First and number of the queries, first and number of the keys.
pub(super) fn segment(q: (usize, usize), k: (usize, usize)) -> Segment {
    Segment {
        q_start: q.0,
        q_len: q.1,
        k_start: k.0,
        k_len: k.1,
    }
}

/// One query and so many keys.
pub(super) fn decode(k_len: usize) -> Segment {
    segment((0, 1), (0, k_len))
}

/// Segments out of order, empty ones, and tokens between them.
pub(super) fn scattered_segments() -> [Segment; 4] {
    [
        segment((20, 10), (0, 12)),
        segment((5, 0), (40, 3)),
        segment((3, 1), (30, 9)),
        segment((7, 9), (15, 10)),
    ]
}

/// [`scattered_segments`] of which the third lies among the keys of the first.
pub(super) fn sharing_segments() -> [Segment; 4] {
    let mut segments = scattered_segments();
    segments[2].k_start = 2;
    segments
}

/// More queries than keys, which make sense without a mask only, and queries without a key.
pub(super) fn few_keys() -> [Segment; 2] {
    [segment((0, 9), (0, 4)), segment((9, 2), (4, 0))]
}

/// Segments of one query, of fewer queries than keys, and of both equal, apart from one another.
pub(super) fn mixed_segments() -> Vec<Segment> {
    let mut segments = vec![segment((1, 1), (2, 40))];
    for (q_len, k_len) in [(5, 150), (139, 139), (1, 1), (2, 2)] {
        let last = segments[segments.len() - 1];
        segments.push(segment(
            (last.q_start + last.q_len, q_len),
            (last.k_start + last.k_len + 1, k_len),
        ));
    }
    segments
}

/// Segments one after the other, with unused tokens between them.
pub(super) fn any_segments() -> impl Strategy<Value = Vec<Segment>> {
    prop::collection::vec((0_usize..3, 1_usize..40, 0_usize..3, 0_usize..40), 1..4).prop_map(
        |lens| {
            let (mut q_at, mut k_at) = (0, 0);
            lens.into_iter()
                .map(|(q_gap, q_len, k_gap, past)| {
                    let (q_start, k_start, k_len) = (q_at + q_gap, k_at + k_gap, q_len + past);
                    (q_at, k_at) = (q_start + q_len, k_start + k_len);
                    segment((q_start, q_len), (k_start, k_len))
                })
                .collect()
        },
    )
}
