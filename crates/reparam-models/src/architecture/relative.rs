//! How attention knows how far apart tokens are.

use super::{LinearSpec, NormSpec};

/// What scores of self-attention are made of besides queries and keys; all layers of a stack share it.
#[derive(Debug, Clone, PartialEq)]
pub enum RelativeSpec {
    /// Each head looks less at what is farther away, by a slope of its own:
    ///
    /// ```text
    /// score_ij += slopes[head] (j - i)
    /// ```
    Slopes(Vec<f64>),
    /// A number by head and distance is added.
    Bias(RelativeBiasSpec),
    /// Distances have vectors, which each layer makes keys and queries of, as its [`PositionsSpec`] says.
    Vectors(RelativeVectorsSpec),
}

/// A bias of scores:
///
/// ```text
/// score_ij += table[bucket(j - i), head]
/// ```
///
/// Near distances have a bucket each, far ones share buckets whose widths grow with the distance.
#[derive(Debug, Clone, PartialEq)]
pub struct RelativeBiasSpec {
    /// The path of the table, `[buckets, heads]`.
    pub path: String,
    /// The number of buckets.
    pub buckets: usize,
    /// From this distance on, all are in the last bucket.
    pub max_distance: usize,
    /// Whether keys after the query have buckets of their own: half of them.
    pub bidirectional: bool,
    /// The standard deviation of a new table.
    pub std: f64,
}

/// A table of vectors of distances, of which that of a key is `norm(table[row(j - i)])`.
#[derive(Debug, Clone, PartialEq)]
pub struct RelativeVectorsSpec {
    /// The path of the table, `[2 span, d]`.
    pub path: String,
    /// The norm of its rows.
    pub norm: Option<NormSpec>,
    /// Half of its rows: keys after the query have the rows before this one, keys before it those after.
    pub span: usize,
    /// With it, distances beyond half of the span share rows whose widths grow, up to this distance, which has the last one; without it,
    /// each has a row up to the span.
    pub max_distance: Option<usize>,
}

/// What a layer makes of the [vectors of distances](RelativeVectorsSpec): with the keys and queries that it makes of a row,
///
/// ```text
/// score_ij = scale * (q_i . k_j + q_i . keys[row(j - i)] + k_j . queries[row(j - i)])
/// ```
///
/// What it has not is left out.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionsSpec {
    /// What makes the keys.
    pub keys: Option<PositionLayer>,
    /// What makes the queries.
    pub queries: Option<PositionLayer>,
    /// The probability of the dropout of the vectors.
    pub dropout: Option<f64>,
}

/// The layer that makes keys or queries of distances.
#[derive(Debug, Clone, PartialEq)]
pub enum PositionLayer {
    /// That which makes those of tokens.
    Shared,
    /// One of its own.
    Own(LinearSpec),
}

impl PositionsSpec {
    /// Returns the layers of its own: of keys, of queries.
    pub fn layers(&self) -> [Option<&LinearSpec>; 2] {
        [&self.keys, &self.queries].map(|layer| match layer {
            Some(PositionLayer::Own(linear)) => Some(linear),
            Some(PositionLayer::Shared) | None => None,
        })
    }
}

impl RelativeSpec {
    /// Returns the slopes of ALiBi for so many heads: with the largest power of two `n` up to their number, `factor` times
    ///
    /// ```text
    /// 2^(-8 (h + 1) / n)           for the first n heads
    /// 2^(-4 (2 (h - n) + 1) / n)   for those behind them
    /// ```
    ///
    /// # References
    ///
    /// Press et al., *Train Short, Test Long* (arXiv 2108.12409), section 3; numbers that are no power of two as in the authors'
    /// code and in BLOOM.
    pub fn alibi(n_heads: usize, factor: f64) -> Self {
        let whole = match n_heads {
            0 => 1,
            n_heads => 1_usize << n_heads.ilog2(),
        };
        let slope = |head: usize| {
            let power = match head.checked_sub(whole) {
                None => 8.0 * (head + 1) as f64,
                Some(behind) => 4.0 * (2 * behind + 1) as f64,
            };
            factor * (-power / whole as f64).exp2()
        };
        Self::Slopes((0..n_heads).map(slope).collect())
    }

    pub(super) fn check(&self) -> Option<String> {
        match self {
            Self::Slopes(_) => None,
            Self::Bias(spec) => spec.check(),
            Self::Vectors(spec) => spec.check(),
        }
    }
}

impl RelativeBiasSpec {
    /// Returns the bucket of a key that is `distance` after its query.
    ///
    /// # References
    ///
    /// Raffel et al., *Exploring the Limits of Transfer Learning* (arXiv 1910.10683), section 2.1; the rounding is that of
    /// transformers.
    pub fn bucket(&self, distance: isize) -> u32 {
        let (mut buckets, mut first) = (self.buckets, 0);
        if self.bidirectional {
            buckets /= 2;
            if distance > 0 {
                first = buckets;
            }
        }
        let distance = match self.bidirectional {
            true => distance.unsigned_abs(),
            false => distance.min(0).unsigned_abs(),
        };
        let exact = buckets / 2;
        let bucket = if distance < exact {
            distance
        } else {
            let share = (distance as f32 / exact as f32).ln();
            let whole = (self.max_distance as f64 / exact as f64).ln() as f32;
            let far = share / whole * (buckets - exact) as f32;
            // A distance beyond all numbers ends in the last bucket, too.
            exact
                .saturating_add(far as usize)
                .min(buckets.saturating_sub(1))
        };
        (first + bucket) as u32
    }

    fn check(&self) -> Option<String> {
        let sides = if self.bidirectional { 2 } else { 1 };
        let exact = self.buckets / sides / 2;
        let fits = exact > 0 && self.max_distance > exact && u32::try_from(self.buckets).is_ok();
        (!fits).then(|| "the buckets of its relative positions do not fit together".to_owned())
    }
}

impl RelativeVectorsSpec {
    /// Returns the row of a key that is `distance` after its query.
    ///
    /// # References
    ///
    /// He et al., *DeBERTa: Decoding-enhanced BERT with Disentangled Attention* (arXiv 2006.03654), equation 3; the shared rows and
    /// the rounding are those of transformers.
    pub fn row(&self, distance: isize) -> u32 {
        let far = distance.unsigned_abs();
        let half = self.span / 2;
        let place = match self.max_distance {
            Some(max_distance) if far > half => {
                let share = (far as f32 / half as f32).ln();
                let whole = ((max_distance as f64 / half as f64) as f32).ln();
                let shared = (share / whole * (half as f32 - 1.0)).ceil();
                half.saturating_add(shared as usize)
            }
            _ => far,
        };
        let place = place.min(self.span);
        let row = match distance > 0 {
            true => self.span - place,
            false => (self.span + place).min(2 * self.span - 1),
        };
        row as u32
    }

    fn check(&self) -> Option<String> {
        let half = self.span / 2;
        let fits = (1..=i32::MAX as usize).contains(&self.span);
        let shares = |max_distance| half > 0 && max_distance > half;
        let fits = fits && self.max_distance.is_none_or(shares);
        (!fits).then(|| "the rows of its relative positions do not fit together".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::RelativeSpec;

    /// The slopes of the paper for eight heads, and what its authors' code has for twelve.
    #[test]
    fn slopes_are_those_of_the_paper() {
        let halves = |n: i32| {
            (1..=n)
                .map(|power| 0.5_f64.powi(power))
                .collect::<Vec<f64>>()
        };
        assert_eq!(RelativeSpec::alibi(8, 1.0), RelativeSpec::Slopes(halves(8)));
        let mut twelve = halves(8);
        twelve.extend([0.5_f64, 1.5, 2.5, 3.5].map(|power| (-power).exp2()));
        assert_eq!(RelativeSpec::alibi(12, 1.0), RelativeSpec::Slopes(twelve));
        assert_eq!(
            RelativeSpec::alibi(0, 1.0),
            RelativeSpec::Slopes(Vec::new())
        );
    }
}
