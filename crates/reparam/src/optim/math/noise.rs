//! How much of a sequence of vectors is signal, and how much noise.

use crate::optim::error::Result;
use crate::optim::math::global_norm;
use crate::optim::state;
use crate::optim::transform::StepContext;
use crate::parameters::{NamedTensor, ParameterList};

/// Running estimates of a mean and of the variance around it.
///
/// With `m_t` the running mean of the vectors and `s_t` that of their squared norms, both corrected for
/// their start, and `r_t` the sum of the squares of the mean's weights:
///
/// ```text
/// noise    N = (s_t - |m_t|^2) / (1 - r_t)
/// signal   S = s_t - N
/// ```
///
/// For a constant plus independent noise these are unbiased estimates of the constant's squared norm and
/// of the noise's variance, summed over all elements. A change of the mean within the window
/// `1 / (1 - beta)` counts as noise.
///
/// # References
///
/// Balles and Hennig, *Dissecting Adam* (arXiv 1705.07774), equations 12 to 14.
#[derive(Debug, Clone)]
pub(crate) struct Noise {
    beta: f64,
    /// How many vectors were seen: measuring may start in the middle of a run.
    seen: u64,
    mean: ParameterList,
    mean_square: f64,
}

/// What [`Noise::observe`] found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Estimate {
    /// The running mean of the squared norms, `s_t`.
    pub(crate) total: f64,
    /// The variance; `None` at the first step, which has nothing to vary from.
    pub(crate) noise: Option<f64>,
}

impl Noise {
    pub(crate) fn new(beta: f64) -> Self {
        Self {
            beta,
            seen: 0,
            mean: Vec::new(),
            mean_square: 0.0,
        }
    }

    pub(crate) fn observe(
        &mut self,
        vectors: &[NamedTensor],
        context: &StepContext<'_>,
        transform: &'static str,
    ) -> Result<Estimate> {
        let own = StepContext {
            step: self.seen + 1,
            ..*context
        };
        state::ready_zeros(transform, &mut self.mean, vectors, &own)?;
        self.seen += 1;
        let beta = self.beta;
        for (mean, vector) in self.mean.iter_mut().zip(vectors) {
            let old = mean.values.clone();
            mean.values = old.clone() + (vector.values.clone() - old) * (1.0 - beta);
        }
        let square = global_norm(vectors).powi(2);
        self.mean_square = beta * self.mean_square + (1.0 - beta) * square;

        let step = self.seen as f64;
        let correction = 1.0 - beta.powf(step);
        let total = self.mean_square / correction;
        if self.seen == 1 {
            return Ok(Estimate { total, noise: None });
        }
        let mean_norm = global_norm(&self.mean) / correction;
        // The sum of the squared weights (1 - beta) beta^(t - i) / correction.
        let weights =
            (1.0 - beta) / (1.0 + beta) * (1.0 - beta.powf(2.0 * step)) / (correction * correction);
        let noise = (total - mean_norm * mean_norm).max(0.0) / (1.0 - weights);
        Ok(Estimate {
            total,
            noise: Some(noise),
        })
    }

    pub(crate) fn state(&self) -> ParameterList {
        let mut state = state::groups(&[("mean", &self.mean)]);
        state.push(state::scalar("mean_square", self.mean_square));
        state.push(state::scalar("seen", self.seen as f64));
        state
    }

    pub(crate) fn load(&mut self, state: &mut state::Loaded) -> Result<()> {
        self.mean = state.take_group("mean");
        self.mean_square = state.take_scalar("mean_square")?;
        self.seen = state.take_scalar("seen")? as u64;
        Ok(())
    }
}
