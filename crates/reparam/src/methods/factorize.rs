//! The low-rank factors that are nearest to a change of a weight.

use nalgebra::DMatrix;

use super::init;

/// How many factors more than asked for are looked at, and how often the change is applied to them (Halko et al. recommend
/// 5 to 10, and one or two): the more, the nearer to the best factors.
const OVERSAMPLING: usize = 10;
const ITERATIONS: usize = 3;

/// Up to this size the singular values are those of a full decomposition, which takes a fraction of a second.
const SMALL: usize = 256;

/// How large the factors are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum FactorSize {
    /// This many, or as many as the weight has rows or columns.
    Rank(usize),
    /// As few as have this share of the sum of all squares, in 0..1.
    Energy(f64),
}

/// Factors of a change, `[d_out, d_in] ~ B A`.
#[derive(Debug, Clone, PartialEq)]
pub struct Factors {
    /// How many there are.
    pub rank: usize,
    /// `A`, `[rank, d_in]`.
    pub a: Vec<f32>,
    /// `B`, `[d_out, rank]`.
    pub b: Vec<f32>,
    /// The largest singular values, as many as factors.
    pub singular_values: Vec<f64>,
    /// The root of the sum of squares of the change.
    pub norm: f64,
    /// The same of what `B A` leaves of it.
    pub error: f64,
    /// The largest number that it leaves.
    pub max_error: f64,
}

impl Factors {
    /// The error relative to the change.
    #[must_use]
    pub fn relative(&self) -> f64 {
        self.error / self.norm
    }
}

/// Returns the factors that are nearest to a change `D`, `[d_out, d_in]` row-major; `None` if it is zero everywhere, or if the sum
/// of its squares is not finite.
///
/// ```text
/// D ~ U_r S_r V_r',   B = U_r S_r^(1/2),   A = S_r^(1/2) V_r'
/// ```
///
/// With the `r` largest singular values this is the nearest product in the Frobenius norm (Eckart and Young). Of a weight with
/// more than 256 rows and columns they are found by randomized subspace iteration, exactly if `D` has no higher rank and else
/// up to a small part of the error.
///
/// # Numerics
///
/// All sums are in f64; the factors are rounded to f32, and the errors are those of the rounded ones, not estimates.
///
/// # Cost
///
/// About `4 d_out d_in (r + 10)` operations for each of three iterations, for an energy up to twice as many factors as are needed.
///
/// # References
///
/// Halko, Martinsson, Tropp, *Finding structure with randomness* (arXiv 0909.4061), algorithm 4.4.
#[must_use]
pub fn factorize(
    change: &[f64],
    [d_out, d_in]: [usize; 2],
    size: FactorSize,
    seed: u64,
) -> Option<Factors> {
    let total: f64 = change.iter().map(|value| value * value).sum();
    // A decomposition of what is not finite does not end.
    if total == 0.0 || !total.is_finite() || d_out == 0 || d_in == 0 {
        return None;
    }
    let change = DMatrix::from_row_slice(d_out, d_in, change);
    let most = d_out.min(d_in);
    let decomposed = match (size, most <= SMALL) {
        (_, true) => Decomposed::whole(&change),
        (FactorSize::Rank(rank), false) => {
            Decomposed::leading(&change, rank.saturating_add(OVERSAMPLING), seed)
        }
        (FactorSize::Energy(share), false) => {
            let mut looked_at = 32.min(most);
            loop {
                let found = Decomposed::leading(&change, looked_at, seed);
                if looked_at == most || found.energy() >= enough(share * total) {
                    break found;
                }
                looked_at = (2 * looked_at).min(most);
            }
        }
    };
    let rank = match size {
        FactorSize::Rank(rank) => rank.min(most),
        FactorSize::Energy(share) => decomposed.rank_of(share * total),
    };
    let rank = rank.min(decomposed.values.len()).max(1);
    let roots: Vec<f64> = decomposed.values[..rank]
        .iter()
        .map(|value| value.sqrt())
        .collect();
    let b = DMatrix::from_fn(d_out, rank, |row, at| {
        f64::from((decomposed.left[(row, at)] * roots[at]) as f32)
    });
    let a = DMatrix::from_fn(rank, d_in, |at, column| {
        f64::from((decomposed.right[(column, at)] * roots[at]) as f32)
    });
    let left = change - &b * &a;
    let narrow = |matrix: DMatrix<f64>| -> Vec<f32> {
        // nalgebra stores columns; the transpose's columns are the rows.
        let rows = matrix.transpose();
        rows.iter().map(|value| *value as f32).collect()
    };
    Some(Factors {
        rank,
        singular_values: decomposed.values[..rank].to_vec(),
        norm: total.sqrt(),
        error: left.norm(),
        max_error: left.amax(),
        a: narrow(a),
        b: narrow(b),
    })
}

/// Singular values from the largest down, with their vectors in columns.
struct Decomposed {
    left: DMatrix<f64>,
    values: Vec<f64>,
    right: DMatrix<f64>,
}

impl Decomposed {
    fn whole(matrix: &DMatrix<f64>) -> Self {
        let svd = matrix.clone().svd(true, true);
        let none = || DMatrix::zeros(0, 0);
        Self {
            left: svd.u.unwrap_or_else(none),
            values: svd.singular_values.iter().copied().collect(),
            right: svd.v_t.unwrap_or_else(none).transpose(),
        }
    }

    /// The leading ones, in a subspace of `count` dimensions.
    fn leading(matrix: &DMatrix<f64>, count: usize, seed: u64) -> Self {
        let count = count.min(matrix.nrows()).min(matrix.ncols());
        let start = init::normal(matrix.ncols() * count, 1.0, seed, "factorize");
        let start = DMatrix::from_iterator(
            matrix.ncols(),
            count,
            start.iter().map(|value| f64::from(*value)),
        );
        let mut basis = orthonormal(matrix * start);
        for _ in 0..ITERATIONS {
            let back = orthonormal(matrix.tr_mul(&basis));
            basis = orthonormal(matrix * back);
        }
        // `matrix = basis small`, whose transpose is tall.
        let small = matrix.tr_mul(&basis);
        let qr = small.qr();
        let Self {
            left,
            values,
            right,
        } = Self::whole(&qr.r());
        Self {
            left: basis * right,
            values,
            right: qr.q() * left,
        }
    }

    fn energy(&self) -> f64 {
        self.values.iter().map(|value| value * value).sum()
    }

    /// The fewest factors that have this sum of squares.
    fn rank_of(&self, wanted: f64) -> usize {
        let mut sum = 0.0;
        let wanted = enough(wanted);
        let last = self.values.iter().position(|value| {
            sum += value * value;
            sum >= wanted
        });
        last.map_or(self.values.len(), |at| at + 1)
    }
}

/// What counts as a sum of squares: what rounding leaves of the sum of all is no factor more.
fn enough(wanted: f64) -> f64 {
    wanted * (1.0 - 1e-12)
}

fn orthonormal(matrix: DMatrix<f64>) -> DMatrix<f64> {
    matrix.qr().q()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A product of factors of this rank with falling singular values, and noise on it.
    fn change(d_out: usize, d_in: usize, rank: usize, noise: f64) -> Vec<f64> {
        let drawn = |len, name| -> Vec<f64> {
            let drawn = init::normal(len, 1.0, 3, name);
            drawn.into_iter().map(f64::from).collect()
        };
        let b = DMatrix::from_vec(d_out, rank, drawn(d_out * rank, "b"));
        let mut a = DMatrix::from_vec(rank, d_in, drawn(rank * d_in, "a"));
        for (at, mut row) in a.row_iter_mut().enumerate() {
            row *= 0.5_f64.powi(at as i32);
        }
        let matrix = b * a + noise * DMatrix::from_vec(d_out, d_in, drawn(d_out * d_in, "noise"));
        matrix.transpose().iter().copied().collect()
    }

    /// The same rank by a full decomposition: no product of two factors is nearer.
    fn best(change: &[f64], [d_out, d_in]: [usize; 2], rank: usize) -> f64 {
        let matrix = DMatrix::from_row_slice(d_out, d_in, change);
        let values = matrix.singular_values();
        let mut left: Vec<f64> = values
            .iter()
            .skip(rank)
            .map(|value| value * value)
            .collect();
        left.reverse();
        left.iter().sum::<f64>().sqrt()
    }

    #[test]
    fn a_change_of_low_rank_is_found_and_what_is_left_is_the_least() {
        for shape @ [d_out, d_in] in [[40, 30], [300, 260], [260, 310]] {
            let exact = change(d_out, d_in, 4, 0.0);
            let found = factorize(&exact, shape, FactorSize::Rank(4), 0).expect("a change");
            assert_eq!(found.rank, 4);
            // Only the rounding of the factors to f32.
            assert!(found.relative() < 1e-6, "{shape:?}: {}", found.relative());
            let noisy = change(d_out, d_in, 6, 0.01);
            for rank in [2, 5] {
                let found = factorize(&noisy, shape, FactorSize::Rank(rank), 0);
                let found = found.expect("a change");
                let least = best(&noisy, shape, rank);
                assert!(
                    found.error < 1.001 * least,
                    "{shape:?}: {} {least}",
                    found.error
                );
                assert!(
                    found.error > 0.999 * least,
                    "{shape:?}: {} {least}",
                    found.error
                );
            }
        }
    }

    #[test]
    fn the_error_is_that_of_the_factors() {
        let (shape, noisy) = ([20, 31], change(20, 31, 5, 0.1));
        let found = factorize(&noisy, shape, FactorSize::Rank(3), 0).expect("a change");
        let (mut sum, mut most) = (0.0, 0.0_f64);
        for row in 0..20 {
            for column in 0..31 {
                let products = (0..3).map(|at| {
                    f64::from(found.b[row * 3 + at]) * f64::from(found.a[at * 31 + column])
                });
                let left = noisy[row * 31 + column] - products.sum::<f64>();
                sum += left * left;
                most = most.max(left.abs());
            }
        }
        assert!((found.error - sum.sqrt()).abs() < 1e-12);
        assert!((found.max_error - most).abs() < 1e-12);
    }

    #[test]
    fn an_energy_takes_as_few_as_have_it() {
        for shape @ [d_out, d_in] in [[40, 30], [300, 260]] {
            let noisy = change(d_out, d_in, 6, 0.001);
            let total: f64 = noisy.iter().map(|value| value * value).sum();
            for share in [0.5, 0.9, 0.999] {
                let found = factorize(&noisy, shape, FactorSize::Energy(share), 0);
                let found = found.expect("a change");
                let left = 1.0 - found.relative().powi(2);
                assert!(left >= share - 1e-6, "{share}: {left}");
                let fewer = best(&noisy, shape, found.rank - 1);
                assert!(
                    1.0 - fewer * fewer / total < share,
                    "{share}: {}",
                    found.rank
                );
            }
        }
        let whole = factorize(&change(9, 7, 7, 0.0), [9, 7], FactorSize::Energy(1.0), 0);
        assert_eq!(whole.expect("a change").rank, 7);
        // All of a low rank is that rank, of a large weight, too.
        let (low, shape) = (change(300, 290, 5, 0.0), [300, 290]);
        let whole = factorize(&low, shape, FactorSize::Energy(1.0), 0).expect("a change");
        assert_eq!(whole.rank, 5);
        assert!(whole.relative() < 1e-6, "{}", whole.relative());
    }

    #[test]
    fn what_is_not_finite_is_not_decomposed() {
        for shape @ [d_out, d_in] in [[3, 4], [300, 260]] {
            for value in [f64::NAN, f64::INFINITY, 1e200] {
                let mut one = change(d_out, d_in, 2, 0.0);
                one[5] = value;
                for size in [FactorSize::Rank(2), FactorSize::Energy(0.9)] {
                    assert_eq!(factorize(&one, shape, size, 0), None, "{value}");
                }
            }
        }
    }

    #[test]
    fn a_rank_beyond_the_weight_is_all_of_it() {
        let low = change(258, 257, 3, 0.0);
        let found = factorize(&low, [258, 257], FactorSize::Rank(usize::MAX), 0);
        assert_eq!(found.expect("a change").rank, 257);
    }

    #[test]
    fn nothing_has_no_factors() {
        assert_eq!(factorize(&[0.0; 12], [3, 4], FactorSize::Rank(2), 0), None);
        let small = factorize(&[1.0, 2.0], [1, 2], FactorSize::Rank(8), 0);
        assert_eq!(small.expect("a change").rank, 1);
    }
}
