//! GaLore: an optimizer that sees gradients in a small subspace.

use burn::tensor::Tensor;

use crate::optim::chain::{Chain, inner};
use crate::optim::entry::{CHAIN_EXAMPLE, TransformEntry, one};
use crate::optim::error::{OptimError, Result};
use crate::optim::math::{as_matrix, from_nalgebra, matrix_dims, to_nalgebra};
use crate::optim::rules::{Placed, Role};
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed};
use crate::parameters::{NamedTensor, ParameterList, flatten};
use crate::schema::{Range, SettingKind, at_least_one, count, number, required};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "galore",
    summary: "Run the transforms inside on gradients projected to a few singular directions",
    formula: "u = scale P chain(P'g),  P the top singular vectors of g, refreshed now and then",
    source: "arXiv 2403.03507, algorithm 2",
    optimizer: None,
    settings: &[
        required("rank", SettingKind::COUNT, "8", "directions that are kept"),
        count("refresh", 200, "steps between refreshes of the directions"),
        number("scale", Range::Positive, 0.25, "factor of the result"),
        required(
            "transforms",
            SettingKind::Chain,
            CHAIN_EXAMPLE,
            "transforms in the subspace, such as adam",
        ),
    ],
    build: |settings, context| {
        one(Galore::new(
            settings.size("rank")?,
            settings.count("refresh")?,
            settings.number("scale")?,
            context.build_all(settings.chain("transforms")?)?,
        )?)
    },
};

/// Projects the gradient of every matrix to its leading singular directions, applies a chain there, and
/// projects back.
///
/// For `G` `[rows, cols]`, of the singular vectors of the gradient at steps `1, 1 + refresh, ...`:
///
/// ```text
/// rows >= cols:   Q = first rank rows of V',      u = scale * chain(G Q') Q
/// rows <  cols:   P = first rank columns of U,    u = scale * P chain(P'G)
/// ```
///
/// The states of the chain are as small as the projected gradients; they are kept when the directions
/// change. Of the two signs of a singular pair the one is taken that makes the largest entry of the kept
/// vector positive, so that a run repeats to the bit. A matrix with fewer rows or columns than `rank` keeps all
/// its directions. Vectors go through the chain as they are, without the scale.
///
/// # References
///
/// Zhao et al. (arXiv 2403.03507), algorithm 2, with the choice of the side of its authors' package.
///
/// # Cost
///
/// `rank * min(rows, cols)` numbers a matrix for the directions. A refresh finds the eigenvectors of the
/// Gram matrix of the smaller side, in `f64`.
#[derive(Debug)]
pub struct Galore {
    rank: usize,
    refresh: u64,
    scale: f64,
    inner: Chain,
    /// For every matrix the directions, `[min(rank, rows, cols), min(rows, cols)]`.
    directions: ParameterList,
}

impl Galore {
    /// Creates the transform; the paper's values are 200 steps and a scale of 0.25.
    ///
    /// # Errors
    ///
    /// Fails when a number is not positive, the order of the parts breaks a law, or one of them needs the
    /// parameters themselves: a decay, a probe, an average, steps relative to the parameters' size.
    pub fn new(
        rank: usize,
        refresh: u64,
        scale: f64,
        parts: Vec<Box<dyn GradientTransform>>,
    ) -> Result<Self> {
        at_least_one("rank", rank as u64)?;
        at_least_one("refresh", refresh)?;
        Range::Positive.check("scale", scale)?;
        let of_parameters = |placed: &Placed| {
            placed.needs_parameters || matches!(placed.role, Role::MaskSgd | Role::MaskAdam)
        };
        let why = (
            "what is inside sees projections only",
            "put it outside of `galore`, or leave it out",
        );
        Ok(Self {
            rank,
            refresh,
            scale,
            inner: inner("galore", parts, of_parameters, why)?,
            directions: Vec::new(),
        })
    }

    /// Returns the shape of a matrix's directions.
    fn directions_shape(&self, tensor: &NamedTensor) -> Option<[usize; 2]> {
        let (rows, cols) = matrix_dims(&tensor.shape)?;
        let side = rows.min(cols);
        Some([self.rank.min(side), side])
    }

    /// Projects the tensors that have directions.
    fn project(&self, list: &[NamedTensor]) -> ParameterList {
        let mut directions = self.directions.iter();
        let mut project = |tensor: &NamedTensor| {
            let matrix = as_matrix(tensor)?;
            let basis = as_matrix(directions.next()?)?;
            let [rows, cols] = matrix.dims();
            let small = if rows >= cols {
                matrix.matmul(basis.transpose())
            } else {
                basis.matmul(matrix)
            };
            Some(NamedTensor {
                name: tensor.name.clone(),
                shape: small.dims().to_vec(),
                values: flatten(small),
            })
        };
        list.iter()
            .map(|tensor| project(tensor).unwrap_or_else(|| tensor.clone()))
            .collect()
    }
}

/// Returns the leading singular vectors of the shorter side, as rows.
fn leading_directions(matrix: &Tensor<2>, rank: usize) -> Option<Tensor<2>> {
    let values = to_nalgebra(matrix);
    let gram = if values.nrows() >= values.ncols() {
        values.transpose() * &values
    } else {
        &values * values.transpose()
    };
    let eigen = nalgebra::SymmetricEigen::try_new(gram, f64::EPSILON, 10_000)?;
    let mut order: Vec<usize> = (0..eigen.eigenvalues.len()).collect();
    order.sort_by(|a, b| eigen.eigenvalues[*b].total_cmp(&eigen.eigenvalues[*a]));
    let mut directions = nalgebra::DMatrix::zeros(rank, eigen.eigenvalues.len());
    for (row, place) in order.into_iter().take(rank).enumerate() {
        let vector = eigen.eigenvectors.column(place);
        let largest = vector[vector.iamax()];
        let sign = if largest < 0.0 { -1.0 } else { 1.0 };
        directions.set_row(row, &(vector.transpose() * sign));
    }
    Some(from_nalgebra(&directions, matrix))
}

impl GradientTransform for Galore {
    fn name(&self) -> &'static str {
        "galore"
    }

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        if (context.step - 1).is_multiple_of(self.refresh) {
            let mut directions = Vec::new();
            for update in &updates {
                let Some([rank, _]) = self.directions_shape(update) else {
                    continue;
                };
                let basis = as_matrix(update)
                    .and_then(|matrix| leading_directions(&matrix, rank))
                    .ok_or_else(|| OptimError::NoSingularVectors {
                        transform: "galore",
                        name: update.name.clone(),
                    })?;
                directions.push(NamedTensor {
                    name: update.name.clone(),
                    shape: basis.dims().to_vec(),
                    values: flatten(basis),
                });
            }
            self.directions = directions;
        } else {
            let mut directions = std::mem::take(&mut self.directions);
            let shape_of = |update: &NamedTensor| Some(self.directions_shape(update)?.to_vec());
            let checked = state::ready("galore", &mut directions, &updates, context, 0.0, shape_of);
            self.directions = directions;
            checked?;
        }
        let small = self.project(&updates);
        let parameters = self.project(context.parameters);
        let inner = StepContext {
            parameters: &parameters,
            ..*context
        };
        let small = self.inner.transform(small, &inner)?;
        let mut directions = self.directions.iter();
        let mut result = Vec::with_capacity(updates.len());
        for (update, small) in updates.into_iter().zip(small) {
            let matrices = matrix_dims(&update.shape)
                .zip(as_matrix(&small))
                .and_then(|(dims, small)| Some((dims, small, as_matrix(directions.next()?)?)));
            let values = match matrices {
                Some(((rows, cols), small, basis)) => {
                    let full = if rows >= cols {
                        small.matmul(basis)
                    } else {
                        basis.transpose().matmul(small)
                    };
                    flatten(full) * self.scale
                }
                None => small.values,
            };
            result.push(update.with_values(values));
        }
        Ok(result)
    }

    fn roles(&self) -> Vec<Placed> {
        let mut roles = Placed::everywhere(self.name(), Role::Project);
        roles.extend(self.inner.roles());
        roles
    }

    fn check(&self, parameters: &[NamedTensor], horizon: u64) -> Result<()> {
        if parameters
            .iter()
            .any(|parameter| matrix_dims(&parameter.shape).is_some())
        {
            return self.inner.check(parameters, horizon);
        }
        Err(OptimError::NoEffect {
            transform: self.name(),
            problem: "no parameter is a matrix".into(),
        })
    }

    fn state(&self) -> ParameterList {
        let mut state = state::groups(&[("directions", &self.directions)]);
        state.extend(state::prefixed("inner", &self.inner.state()));
        state
    }

    fn load_state(&mut self, state: ParameterList) -> Result<()> {
        let mut state = state::Loaded::new(self.name(), state);
        self.directions = state.take_group("directions");
        self.inner.load_state(state.take_group("inner"))?;
        state.finish()
    }
}
