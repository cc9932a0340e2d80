//! Norms of the heads of queries and keys.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use reparam_ops::fused::FusedNorm;

use super::Norm;
use super::norm::without_weight;
use crate::architecture::NormSpec;
use crate::named::{List, Named, unnamed_module};

/// The norm of each head of queries or keys, with the weights that
/// [`HeadWeights`](crate::architecture::HeadWeights) says.
#[derive(Debug, Clone)]
pub struct HeadNorm {
    /// The norm of all heads, or one for each.
    pub norms: List<Named<Norm>>,
    /// The weights of each head, in place of those.
    pub rows: Option<Named<HeadRows>>,
    /// What it is.
    pub spec: NormSpec,
}

unnamed_module!(HeadNorm, modules: [norms, rows], data: [spec]);

/// The weights of each head.
#[derive(Module, Debug)]
pub struct HeadRows {
    /// `[heads, head_dim]`
    pub weight: Param<Tensor<2>>,
}

impl HeadNorm {
    /// Normalizes each of the heads that lie side by side in a row.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [n, width] = x.dims();
        let weights = match (&self.rows, &self.norms[..]) {
            (None, [norm]) => return norm.forward_heads(x),
            (None, norms) => {
                let weights = norms.iter().filter_map(|norm| norm.weight.as_ref());
                Tensor::cat(weights.map(Param::val).collect(), 0)
            }
            (Some(rows), _) => rows.weight.val().reshape([width]),
        };
        let head_dim = self.spec.width;
        let heads = x.reshape([n * (width / head_dim), head_dim]);
        let heads = without_weight(heads, self.spec.kind, self.spec.eps as f32);
        heads.reshape([n, width]) * weights.unsqueeze::<2>()
    }

    /// The norm as fused operations take it; `None` if heads have weights of their own.
    pub(crate) fn fused(&self) -> Option<FusedNorm> {
        match (&self.rows, &self.norms[..]) {
            (None, [norm]) => Some(norm.fused()),
            _ => None,
        }
    }
}
