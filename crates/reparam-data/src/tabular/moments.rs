//! Mean and standard deviation of a column.

/// Mean and spread of the numbers of a column.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moments {
    /// The mean.
    pub(super) mean: f64,
    /// The population standard deviation: the squares are divided by their number, not by one less.
    pub(super) scale: f64,
    /// The largest absolute value.
    pub(super) largest: f64,
    /// Whether the numbers are equal up to rounding: they span at most 8 units of rounding of the largest.
    pub(super) constant: bool,
}

/// Computes the moments of `values`, which are finite and at least one.
///
/// Two passes and a correction each. The mean is the first value plus the mean difference from it, plus what the
/// deviations from that still sum to (exact where the plain sum of large numbers would lose the small part). The
/// variance is `(sum d^2 - (sum d)^2 / n) / n` for the deviations `d` from the mean (Chan, Golub and LeVeque,
/// "Algorithms for computing the sample variance", 1983, equation 1.7: the second term is what rounding the mean
/// has done). The deviations are divided by the largest of them first, so that no square overflows or vanishes.
pub(super) fn moments(values: impl Iterator<Item = f64> + Clone) -> Moments {
    let n = values.clone().count() as f64;
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.clone() {
        low = low.min(value);
        high = high.max(value);
    }
    let largest = low.abs().max(high.abs());
    let constant = high - low <= 8.0 * f64::EPSILON * largest;
    let first = values.clone().next().unwrap_or(0.0);
    let mut mean = first + values.clone().map(|value| value - first).sum::<f64>() / n;
    mean += values.clone().map(|value| value - mean).sum::<f64>() / n;
    let widest = (high - mean).max(mean - low);
    let scale = if widest > 0.0 {
        let (mut sum, mut squares) = (0.0, 0.0);
        for value in values {
            let deviation = (value - mean) / widest;
            sum += deviation;
            squares += deviation * deviation;
        }
        ((squares - sum * sum / n) / n).sqrt() * widest
    } else {
        0.0
    };
    Moments {
        mean,
        scale,
        largest,
        constant,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_mean_does_not_hide_a_small_spread() {
        // Deviations -1, -1, 1, 1 around 1e9 and around 2^49, where the plain sum of squares has no digit left.
        for mean in [1e9, 562_949_953_421_312.0] {
            let values = [mean - 1.0, mean - 1.0, mean + 1.0, mean + 1.0];
            let moments = moments(values.into_iter());
            assert_eq!((moments.mean, moments.scale), (mean, 1.0));
            assert!(!moments.constant);
        }
    }

    #[test]
    fn neither_large_nor_small_squares_are_lost() {
        for unit in [1e-200, 1e200] {
            let moments = moments([-3.0 * unit, unit, 5.0 * unit, 5.0 * unit].into_iter());
            assert!((moments.mean / (2.0 * unit) - 1.0).abs() < 1e-15);
            assert!((moments.scale / (11f64.sqrt() * unit) - 1.0).abs() < 1e-15);
        }
    }

    #[test]
    fn equal_numbers_are_constant_also_where_rounding_parts_them() {
        assert!(moments([0.1; 3].into_iter()).constant);
        assert!(moments([0.3, 0.1 + 0.2].into_iter()).constant);
        assert!(moments([0.0; 3].into_iter()).constant);
        assert!(!moments([0.0, 1e-300].into_iter()).constant);
        assert_eq!(moments([7.5; 9].into_iter()).scale, 0.0);
    }
}
