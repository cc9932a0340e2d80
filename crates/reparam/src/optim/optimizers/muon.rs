//! Muon: momentum with its singular values made equal.

use burn::tensor::{ElementConversion, Tensor};

use crate::optim::entry::{TransformEntry, WEIGHT_DECAY, optimizer};
use crate::optim::error::Result;
use crate::optim::math::{as_matrix, require_matrices};
use crate::optim::rules::Placed;
use crate::optim::state;
use crate::optim::transform::{GradientTransform, StepContext, Transformed};
use crate::parameters::{NamedTensor, ParameterList, flatten};
use crate::schema::{Range, at_least_one, count, flag, number, word};

pub(crate) const ENTRY: TransformEntry = TransformEntry {
    kind: "muon",
    summary: "Momentum with its singular values made equal; matrices only",
    formula: "u = scale orthogonal_factor(momentum(g)) + weight_decay theta",
    source: "Jordan et al. 2024, as in torch.optim.Muon",
    optimizer: optimizer(1e-3),
    settings: &[
        number("momentum", Range::BelowOne, 0.95, "decay of the momentum"),
        flag("nesterov", true, "take the gradient ahead of the momentum"),
        count("n_steps", 5, "iterations of Newton and Schulz"),
        number("eps", Range::Positive, 1e-7, "the least norm"),
        word(
            "scale",
            &["original", "match_adamw"],
            "original",
            "scale of a step: original, or match_adamw",
        ),
        WEIGHT_DECAY,
    ],
    build: |settings, _| {
        let words = [
            ("original", MuonScale::Original),
            ("match_adamw", MuonScale::MatchAdamW),
        ];
        let muon = Muon::new(
            settings.number("momentum")?,
            settings.flag("nesterov")?,
            settings.size("n_steps")?,
            settings.number("eps")?,
            settings.number("weight_decay")?,
            settings.choice("scale", &words)?,
        )?;
        Ok(vec![Box::new(muon)])
    },
};

/// Moves along the orthogonal factor of the momentum, found by Newton and Schulz's iteration.
///
/// ```text
/// b_t = momentum b_{t-1} + (1 - momentum) g_t
/// x   = b_t                                  or, with Nesterov,  (1 - momentum) g_t + momentum b_t
/// X_0 = x / max(|x|, eps),   X_{k+1} = a X_k + (b A + c A A) X_k,   A = X_k X_k'
/// u   = scale * X_n + weight_decay * theta
/// ```
///
/// with `(a, b, c) = (3.4445, -4.775, 2.0315)`, which drives the singular values to between 0.7 and
/// 1.2 rather than to 1. `scale` is that of [`MuonScale`].
///
/// It takes matrices only; biases, norms and embeddings want another optimizer in a
/// [`Group`](crate::optim::Group) of their own.
///
/// # References
///
/// Jordan et al., *Muon: an optimizer for hidden layers* (2024); momentum, decay and scale as in
/// `torch.optim.Muon`. PyTorch iterates in bf16; this iterates in the gradient's type.
///
/// # Cost
///
/// One number a parameter; `2 n_steps` products of the smaller Gram matrix and as many of the matrix.
#[derive(Debug, Clone)]
pub struct Muon {
    momentum: f64,
    nesterov: bool,
    n_steps: usize,
    eps: f64,
    weight_decay: f64,
    scale: MuonScale,
    momentum_buffer: ParameterList,
}

/// How a direction's size depends on the matrix, `[rows, cols]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MuonScale {
    /// `sqrt(max(1, rows / cols))`: the spectral norm suits the shape.
    #[default]
    Original,
    /// `0.2 sqrt(max(rows, cols))`: as large as AdamW's usual step, so that its learning rates hold
    /// (arXiv 2502.16982).
    MatchAdamW,
}

const COEFFICIENTS: (f64, f64, f64) = (3.4445, -4.775, 2.0315);

impl Muon {
    /// Creates the transform; PyTorch's values are 0.95, true, 5 steps, 1e-7 and 0.1.
    ///
    /// # Errors
    ///
    /// Fails unless `momentum` is in `[0, 1)`, there is a step, `eps` is positive and the decay not
    /// negative.
    pub fn new(
        momentum: f64,
        nesterov: bool,
        n_steps: usize,
        eps: f64,
        weight_decay: f64,
        scale: MuonScale,
    ) -> Result<Self> {
        at_least_one("n_steps", n_steps as u64)?;
        Range::Positive.check("eps", eps)?;
        Range::NonNegative.check("weight_decay", weight_decay)?;
        Ok(Self {
            momentum: Range::BelowOne.check("momentum", momentum)?,
            nesterov,
            n_steps,
            eps,
            weight_decay,
            scale,
            momentum_buffer: Vec::new(),
        })
    }

    fn orthogonalized(&self, matrix: Tensor<2>) -> Tensor<2> {
        let [rows, cols] = matrix.dims();
        // The Gram matrix of the shorter side is the smaller one.
        let is_tall = rows > cols;
        let x = if is_tall { matrix.transpose() } else { matrix };
        let norm: f64 = (x.clone() * x.clone())
            .sum()
            .sqrt()
            .into_scalar::<f64>()
            .elem();
        let mut x = x / norm.max(self.eps);
        let (a, b, c) = COEFFICIENTS;
        for _ in 0..self.n_steps {
            let gram = x.clone().matmul(x.clone().transpose());
            let update = gram.clone() * b + gram.clone().matmul(gram) * c;
            x = x.clone() * a + update.matmul(x);
        }
        if is_tall { x.transpose() } else { x }
    }
}

impl GradientTransform for Muon {
    fn name(&self) -> &'static str {
        "muon"
    }

    fn transform(&mut self, updates: ParameterList, context: &StepContext<'_>) -> Transformed {
        require_matrices(self.name(), &updates)?;
        state::ready_zeros(self.name(), &mut self.momentum_buffer, &updates, context)?;
        let mut result = Vec::with_capacity(updates.len());
        for (place, gradient) in updates.into_iter().enumerate() {
            let g = gradient.values.clone();
            let buffer = &mut self.momentum_buffer[place].values;
            *buffer = buffer.clone() + (g.clone() - buffer.clone()) * (1.0 - self.momentum);
            let mixed = if self.nesterov {
                g.clone() + (buffer.clone() - g) * self.momentum
            } else {
                buffer.clone()
            };
            let gradient = gradient.with_values(mixed);
            let Some(matrix) = as_matrix(&gradient) else {
                // `require_matrices` has refused it.
                continue;
            };
            let [rows, cols] = matrix.dims();
            let (rows, cols) = (rows as f64, cols as f64);
            let scale = match self.scale {
                MuonScale::Original => (rows / cols).max(1.0).sqrt(),
                MuonScale::MatchAdamW => 0.2 * rows.max(cols).sqrt(),
            };
            let mut u = flatten(self.orthogonalized(matrix)) * scale;
            if self.weight_decay != 0.0 {
                u = u + context.parameters[place].values.clone() * self.weight_decay;
            }
            result.push(gradient.with_values(u));
        }
        Ok(result)
    }

    fn check(&self, parameters: &[NamedTensor], _horizon: u64) -> Result<()> {
        require_matrices(self.name(), parameters)
    }

    fn roles(&self) -> Vec<Placed> {
        Placed::preconditioner(self.name(), self.weight_decay)
    }

    state::kept!(momentum_buffer);
}
