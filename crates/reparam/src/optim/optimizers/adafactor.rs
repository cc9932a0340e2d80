//! Adafactor.

use crate::optim::entry::{TransformEntry, WEIGHT_DECAY, one, optimizer};
use crate::optim::error::Result;
use crate::optim::math::{as_matrix, global_norm, matrix_dims};
use crate::optim::rules::Placed;
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed};
use crate::parameters::{NamedTensor, ParameterList, flatten};
use crate::schema::{Range, number};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "adafactor",
    summary: "Adam's second moment kept as one number a row and one a column",
    formula: "u = rms(theta) g / sqrt(row col) clipped to rms d, at most 1/sqrt(t) relative",
    source: "arXiv 1804.04235, algorithms 4 and 6, as in torch.optim.Adafactor",
    optimizer: optimizer(1e-2),
    settings: &[
        number(
            "beta2_decay",
            Range::Negative,
            -0.8,
            "exponent of the second moment's horizon, negative",
        ),
        number(
            "eps1",
            Range::Positive,
            f32::EPSILON as f64,
            "minimum root of a second moment",
        ),
        number(
            "eps2",
            Range::Positive,
            1e-3,
            "minimum root mean square of a parameter",
        ),
        number(
            "d",
            Range::Positive,
            1.0,
            "root mean square above which an update is scaled down",
        ),
        WEIGHT_DECAY,
    ],
    build: |settings, _| {
        one(Adafactor::new(AdafactorSettings {
            beta2_decay: settings.number("beta2_decay")?,
            eps1: settings.number("eps1")?,
            eps2: settings.number("eps2")?,
            d: settings.number("d")?,
            weight_decay: settings.number("weight_decay")?,
        })?)
    },
};

/// Adam's second moment, kept for a matrix as one number a row and one a column.
///
/// With `s_t = t^beta2_decay` and `n` elements:
///
/// ```text
/// R_t  = R_{t-1} + s_t (mean_cols(G^2) - R_{t-1})
/// C_t  = C_{t-1} + s_t (mean_rows(G^2) - C_{t-1})
/// V    = R_t C_t' / max(mean(R_t), eps1)          vectors keep V itself
/// U    = G / sqrt(max(V, eps1^2))
/// u    = alpha / eta * U / max(1, rms(U) / d) + weight_decay * theta,
///        alpha = max(eps2, rms(theta)) * min(eta, 1 / sqrt(t))
/// ```
///
/// The step is relative to the size of the parameters: a learning rate of 0.01 moves them by about
/// one percent.
///
/// # References
///
/// Shazeer and Stern (arXiv 1804.04235), algorithms 4 and 6, with PyTorch's defaults and order of
/// operations.
///
/// # Cost
///
/// One number a row and column of a matrix; tensors of more axes count as matrices of their first axis
/// by all others, where PyTorch factors the last two.
#[derive(Debug, Clone)]
pub struct Adafactor {
    settings: AdafactorSettings,
    row_var: ParameterList,
    col_var: ParameterList,
    variance: ParameterList,
}

/// What [`Adafactor`] can be told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdafactorSettings {
    /// The exponent of the second moment's horizon, negative.
    pub beta2_decay: f64,
    /// The smallest root of a second moment; PyTorch's default is the machine epsilon of the type.
    pub eps1: f64,
    /// The least root mean square that a parameter counts as.
    pub eps2: f64,
    /// The root mean square of an update above which it is scaled down.
    pub d: f64,
    /// The decoupled decay.
    pub weight_decay: f64,
}

impl Default for AdafactorSettings {
    fn default() -> Self {
        Self {
            beta2_decay: -0.8,
            eps1: f64::from(f32::EPSILON),
            eps2: 1e-3,
            d: 1.0,
            weight_decay: 0.0,
        }
    }
}

impl Adafactor {
    /// Creates the transform.
    ///
    /// # Errors
    ///
    /// Fails unless `beta2_decay` is negative, the two `eps` and `d` are positive and the decay is
    /// not negative.
    pub fn new(settings: AdafactorSettings) -> Result<Self> {
        Range::Negative.check("beta2_decay", settings.beta2_decay)?;
        Range::Positive.check("eps1", settings.eps1)?;
        Range::Positive.check("eps2", settings.eps2)?;
        Range::Positive.check("d", settings.d)?;
        Range::NonNegative.check("weight_decay", settings.weight_decay)?;
        Ok(Self {
            settings,
            row_var: Vec::new(),
            col_var: Vec::new(),
            variance: Vec::new(),
        })
    }
}

fn rms(tensor: &NamedTensor) -> f64 {
    global_norm(std::slice::from_ref(tensor)) / (tensor.len() as f64).sqrt()
}

impl GradientTransform for Adafactor {
    fn name(&self) -> &'static str {
        "adafactor"
    }

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        let name = self.name();
        let rows = |tensor: &NamedTensor| Some(vec![matrix_dims(&tensor.shape)?.0]);
        let cols = |tensor: &NamedTensor| Some(vec![matrix_dims(&tensor.shape)?.1]);
        let vector = |tensor: &NamedTensor| match matrix_dims(&tensor.shape) {
            None => Some(tensor.shape.clone()),
            Some(_) => None,
        };
        state::ready(name, &mut self.row_var, &updates, context, 0.0, rows)?;
        state::ready(name, &mut self.col_var, &updates, context, 0.0, cols)?;
        state::ready(name, &mut self.variance, &updates, context, 0.0, vector)?;
        let AdafactorSettings {
            beta2_decay,
            eps1,
            eps2,
            d,
            weight_decay,
        } = self.settings;
        let step = context.step as f64;
        let share = step.powf(beta2_decay);
        // Divided by the learning rate, which is zero at the first step of a warm-up.
        let bounded = (1.0 / (step.sqrt() * context.learning_rate)).min(1.0);
        let mut row_vars = self.row_var.iter_mut();
        let mut col_vars = self.col_var.iter_mut();
        let mut variances = self.variance.iter_mut();
        let mut result = Vec::with_capacity(updates.len());
        for (gradient, parameter) in updates.into_iter().zip(context.parameters) {
            let factors = as_matrix(&gradient).and_then(|matrix| {
                let (row, col) = (row_vars.next()?, col_vars.next()?);
                Some((matrix.clone() * matrix, row, col))
            });
            let variance = if let Some((square, row, col)) = factors {
                let [n_rows, n_cols] = square.dims();
                let old = row.values.clone();
                row.values = old.clone() + (flatten(square.clone().mean_dim(1)) - old) * share;
                let old = col.values.clone();
                col.values = old.clone() + (flatten(square.mean_dim(0)) - old) * share;
                let rows = row.values.clone().reshape([n_rows, 1]);
                let cols = col.values.clone().reshape([1, n_cols]);
                let mean = rows.clone().mean_dim(0).clamp_min(eps1);
                flatten(rows.matmul(cols) / mean)
            } else if let Some(variance) = variances.next() {
                let square = gradient.values.clone() * gradient.values.clone();
                let old = variance.values.clone();
                variance.values = old.clone() + (square - old) * share;
                variance.values.clone()
            } else {
                // `ready` has made one of the two for every tensor.
                continue;
            };
            let direction = gradient.values.clone() / variance.clamp_min(eps1 * eps1).sqrt();
            let direction = gradient.with_values(direction);
            let relative = rms(parameter).max(eps2) * bounded;
            let factor = relative / (rms(&direction) / d).max(1.0);
            let mut u = direction.values.clone() * factor;
            if weight_decay != 0.0 {
                u = u + parameter.values.clone() * weight_decay;
            }
            result.push(direction.with_values(u));
        }
        Ok(result)
    }

    fn roles(&self) -> Vec<Placed> {
        let roles = Placed::preconditioner(self.name(), self.settings.weight_decay);
        Placed::relative(roles)
    }

    state::kept!(row_var, col_var, variance);
}
