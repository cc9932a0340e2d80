//! The heads of an attention layer, and which keys its queries see.

use std::ops::Range;

use crate::KernelError;

/// The heads of an attention layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads, a multiple of `n_kv_heads`: query head `h` uses key head `h / (n_heads /
    /// n_kv_heads)`.
    pub n_heads: usize,
    /// Key and value heads.
    pub n_kv_heads: usize,
    /// Numbers of one head.
    pub head_dim: usize,
    /// Factor of the scores, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Whether query `i` of a segment sees the keys `0..=k_len - q_len + i` only, or all keys of
    /// the segment. The last of them is the key at the position of the query.
    pub causal: bool,
    /// With a window `w` a query at position `p` sees only keys at positions above `p - w` and, if
    /// the shape is not causal, below `p + w`: a causal query sees at most `w` keys, its own among
    /// them. Segments then need at least as many keys as queries, as causal ones do.
    pub window: Option<usize>,
    /// With a cap `c` the scaled scores `s` become `c tanh(s / c)` before the mask, as in Gemma 2.
    pub soft_cap: Option<f32>,
}

impl AttentionShape {
    /// Numbers of all query heads of a token.
    pub(crate) fn q_width(&self) -> usize {
        self.n_heads * self.head_dim
    }

    /// Numbers of all key heads of a token.
    pub(crate) fn kv_width(&self) -> usize {
        self.n_kv_heads * self.head_dim
    }

    /// Query heads that share a key head.
    pub(crate) fn n_rep(&self) -> usize {
        self.n_heads / self.n_kv_heads
    }

    /// Whether the position of a query matters.
    fn has_mask(&self) -> bool {
        self.causal || self.window.is_some()
    }

    /// Keys of `segment` that its query `i` sees. Neither end ever moves back from one query to the
    /// next.
    #[inline(always)]
    pub(crate) fn visible(&self, segment: &Segment, i: usize) -> Range<usize> {
        if !self.has_mask() {
            return 0..segment.k_len;
        }
        let position = segment.k_len - segment.q_len + i;
        // As wide as the segment is no window.
        let window = self.window.unwrap_or(segment.k_len);
        let start = (position + 1).saturating_sub(window);
        let end = if self.causal {
            position + 1
        } else {
            position.saturating_add(window).min(segment.k_len)
        };
        start..end
    }

    /// Queries of `segment` that see any of the keys `keys`, which must not be empty.
    pub(crate) fn seeing(&self, segment: &Segment, keys: &Range<usize>) -> Range<usize> {
        if !self.has_mask() {
            return 0..segment.q_len;
        }
        let past = segment.k_len - segment.q_len;
        let window = self.window.unwrap_or(segment.k_len);
        // Positions at which a query sees the first and the last of the keys.
        let start = if self.causal {
            keys.start
        } else {
            (keys.start + 1).saturating_sub(window)
        };
        let end = (keys.end - 1).saturating_add(window);
        let end = end.saturating_sub(past).min(segment.q_len);
        start.saturating_sub(past).min(end)..end
    }

    pub(crate) fn check(&self) -> Result<(), KernelError> {
        for (name, value) in [
            ("n_heads", self.n_heads),
            ("n_kv_heads", self.n_kv_heads),
            ("head_dim", self.head_dim),
            ("window", self.window.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(KernelError::Zero { name });
            }
        }
        // Written so that NaN fails.
        if !self.soft_cap.is_none_or(|cap| cap > 0.0 && cap.is_finite()) {
            return Err(KernelError::NotPositive { name: "soft_cap" });
        }
        if !self.n_heads.is_multiple_of(self.n_kv_heads) {
            return Err(KernelError::Heads {
                n_heads: self.n_heads,
                n_kv_heads: self.n_kv_heads,
            });
        }
        crate::error::elements("head", &[self.n_heads, self.head_dim]).map(|_| ())
    }
}

/// Queries and the keys that they may see, usually one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// First query token.
    pub q_start: usize,
    /// Number of query tokens.
    pub q_len: usize,
    /// First key token.
    pub k_start: usize,
    /// Number of key tokens.
    pub k_len: usize,
}

impl Segment {
    /// A document whose queries and keys are the tokens `start..start + len`.
    pub fn document(start: usize, len: usize) -> Self {
        Self {
            q_start: start,
            q_len: len,
            k_start: start,
            k_len: len,
        }
    }
}

/// Checks the segments and writes those with queries and keys to `sorted`, in the order of their
/// queries.
pub(crate) fn sort_segments(
    shape: &AttentionShape,
    segments: &[Segment],
    n_queries: usize,
    n_keys: usize,
    sorted: &mut Vec<Segment>,
) -> Result<(), KernelError> {
    for (index, segment) in segments.iter().enumerate() {
        let q_end = segment.q_start.saturating_add(segment.q_len);
        let k_end = segment.k_start.saturating_add(segment.k_len);
        if q_end > n_queries || k_end > n_keys {
            return Err(KernelError::SegmentBounds {
                index,
                q_end,
                k_end,
                n_queries,
                n_keys,
            });
        }
        if shape.has_mask() && segment.q_len > segment.k_len {
            return Err(KernelError::SegmentLengths {
                index,
                q_len: segment.q_len,
                k_len: segment.k_len,
            });
        }
    }
    check_overlap(segments, "query", sorted, |segment| {
        (segment.q_start, segment.q_len)
    })?;
    sorted.retain(|segment| segment.k_len > 0);
    Ok(())
}

/// Refuses segments that share keys; leaves those with keys in `sorted`, in the order of the keys.
pub(crate) fn check_keys(
    segments: &[Segment],
    sorted: &mut Vec<Segment>,
) -> Result<(), KernelError> {
    check_overlap(segments, "key", sorted, |segment| {
        (segment.k_start, segment.k_len)
    })
}

/// Refuses segments whose ranges meet; leaves those with a range in `sorted`, in its order.
fn check_overlap(
    segments: &[Segment],
    what: &'static str,
    sorted: &mut Vec<Segment>,
    range: impl Fn(&Segment) -> (usize, usize),
) -> Result<(), KernelError> {
    sorted.clear();
    sorted.extend(segments.iter().filter(|segment| range(segment).1 > 0));
    sorted.sort_unstable_by_key(&range);
    let meet = |pair: &[Segment]| range(&pair[1]).0 < range(&pair[0]).0 + range(&pair[0]).1;
    if !sorted.windows(2).any(meet) {
        return Ok(());
    }
    // Only now is it of interest where in the list they were.
    let mut order: Vec<usize> = (0..segments.len())
        .filter(|&index| range(&segments[index]).1 > 0)
        .collect();
    order.sort_by_key(|&index| range(&segments[index]));
    let pair = order
        .windows(2)
        .find(|pair| meet(&[segments[pair[0]], segments[pair[1]]]));
    match pair {
        None => Ok(()),
        Some(pair) => Err(KernelError::SegmentOverlap {
            first: pair[0],
            second: pair[1],
            what,
            position: range(&segments[pair[1]]).0,
        }),
    }
}
