//! DoRA: the length of each row of a LoRA'd weight is trained apart.

use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use reparam_ops::LinearPlan;
use reparam_ops::fused::PackedWeight;
use serde_json::{Map, Value};

use super::lora::{self, A, B, LoraConfig};
use super::low_rank::LowRankPart;
use super::method::{NewTensor, selected};
use super::peft::{AdapterMeta, PeftFormat};
use super::weight_norm::{lengths, row_norms};
use super::{
    Base, Layer, LinearModule, Method, MethodConfig, MethodSpec, Result, Selection, Start,
    TensorSpec, Theta,
};
use crate::ForwardContext;

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "dora",
    summary: "Weight-decomposed low-rank adaptation: LoRA turns the rows of a weight, their lengths are trained apart",
    formula: "W = m (W0 + s B A) / |W0 + s B A|  for each row; the norm is a constant of the backward pass",
    source: "arXiv 2402.09353, equation 5 and section 4.3",
    settings: &lora::SETTINGS,
    tensors: &[
        TensorSpec::new(A, "A, [rank, d_in]"),
        TensorSpec::new(B, "B, [d_out, rank]"),
        TensorSpec::new(M, "m, [d_out]"),
    ],
    runs_packed: true,
    peft: Some(PeftFormat {
        peft_type: "LORA",
        is_own: |config| config.bool("use_dora").ok().flatten().unwrap_or(false),
        read: |files| {
            Ok(Arc::new(DoraConfig {
                lora: LoraConfig::read(files)?,
            }))
        },
        check: lora::check_files,
    }),
    build: |settings, _| {
        Ok(Arc::new(DoraConfig {
            lora: LoraConfig::from_settings(settings)?,
        }))
    },
    ..MethodSpec::DEFAULT
};

/// The lengths of the rows.
const M: &str = "lora_magnitude_vector";

/// The settings of DoRA: those of LoRA.
///
/// ```text
/// W_i = m_i V_i / |V_i|   for each row i,   V = W0 + s B A,   m starts at |W0|
/// ```
///
/// `A`, `B` and `m` are trained. `|V_i|` is a constant of the backward pass, as the paper proposes and PEFT does: the
/// gradient of `V_i` keeps its part along `V_i`. [Weight normalization over LoRA](super::WeightNormConfig) differentiates
/// the norm.
///
/// # References
///
/// Liu et al., *DoRA: Weight-Decomposed Low-Rank Adaptation* (arXiv 2402.09353), equation 5; section 4.3 for the constant
/// norm. PEFT's `use_dora`. Differs from PEFT: with dropout, the frozen product sees the whole input, and the low-rank
/// term alone the dropped-out one; PEFT drops out a part of both.
///
/// # Cost
///
/// Beside LoRA's, the norms of the rows once a pass: over a tensor by forming `V`; over a packed weight from
/// `|V_i|^2 = |W0_i|^2 + 2 s (W0 A')_i . B_i + s^2 |B_i A|^2`, whose product takes `2 rank d_in d_out` operations; and in the
/// backward pass over packed weights the layer's product once more.
#[derive(Debug, Clone, PartialEq)]
pub struct DoraConfig {
    /// Rank, alpha, dropout, targets.
    pub lora: LoraConfig,
}

impl MethodConfig for DoraConfig {
    selected!(SPEC, lora.selection);

    fn check(&self, layers: &[&LinearModule]) -> Result<()> {
        self.lora.check_layers(layers)
    }

    fn least_numbers(&self, layers: &[&LinearModule]) -> Result<Option<(&'static str, u128)>> {
        self.lora.least_numbers(layers)
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start> {
        let (part, start) = self.lora.start_factors(layer)?;
        let norms = lengths(layer, layer.base())?.reshape([layer.d_out]);
        let dora = Dora {
            part,
            #[cfg(test)]
            held: std::sync::Mutex::new(None),
        };
        let start = start.with(NewTensor::vector(M, norms));
        Ok(Start {
            method: Arc::new(dora),
            ..start
        })
    }

    fn scaling(&self) -> Option<f64> {
        Some(self.lora.scaling())
    }

    fn properties(&self) -> Result<Vec<(&'static str, Value)>> {
        self.lora.properties()
    }

    fn peft_config(&self, meta: &AdapterMeta) -> Option<Map<String, Value>> {
        Some(self.lora.peft_config_with(meta, true))
    }
}

/// DoRA on one weight.
#[derive(Debug)]
struct Dora {
    part: LowRankPart,
    /// The norm that central differences hold constant.
    #[cfg(test)]
    held: std::sync::Mutex<Option<Tensor<1>>>,
}

impl Dora {
    /// The norms of the rows of `W0 + s B A`, `[d_out]`, outside of the graph.
    fn norms(&self, base: &Base<'_>, theta: &Theta<'_>) -> Tensor<1> {
        let norms = match base {
            Base::Dense(base) => {
                let v = self.part.weight((*base).clone(), theta).detach();
                let d_out = v.dims()[0];
                row_norms(v).reshape([d_out])
            }
            Base::Packed(weight) => self.packed_norms(weight, theta),
        };
        #[cfg(test)]
        let norms = self.held(norms);
        norms
    }

    fn packed_norms(&self, weight: &PackedWeight, theta: &Theta<'_>) -> Tensor<1> {
        let [d_out, _] = weight.dims();
        let (a, b) = (theta.matrix(A).detach(), theta.matrix(B).detach());
        let rank = a.dims()[0];
        let device = b.device();
        let from = |values: Vec<f32>, dims: [usize; 2]| {
            Tensor::<2>::from_data(TensorData::new(values, dims), &device)
        };
        let a_values: Vec<f32> = a.to_data().iter::<f32>().collect();
        // A W0', [rank, d_out].
        let projected = from(weight.product_f32(&a_values), [rank, d_out]).transpose();
        let own = from(weight.row_square_norms().to_vec(), [d_out, 1]);
        let cross = (projected * b.clone()).sum_dim(1) * (2.0 * self.part.scaling);
        let gram = b.clone().matmul(a.clone().matmul(a.transpose()));
        let added = (gram * b).sum_dim(1) * self.part.scaling.powi(2);
        // Rounding must not make a row that nearly vanishes an imaginary one.
        (own + cross + added)
            .clamp_min(f32::MIN_POSITIVE)
            .sqrt()
            .reshape([d_out])
    }

    /// Returns the first norms that were asked for, if they are held.
    #[cfg(test)]
    fn held(&self, norms: Tensor<1>) -> Tensor<1> {
        if !hold::is_on() {
            *self.held.lock().expect("one thread") = None;
            return norms;
        }
        let mut held = self.held.lock().expect("one thread");
        held.get_or_insert(norms).clone()
    }
}

impl Method for Dora {
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        let scale = theta.vector(M) / self.norms(&Base::Dense(&base), theta);
        self.part.weight(base, theta) * scale.unsqueeze_dim::<2>(1)
    }

    fn plan(
        &self,
        base: &Base<'_>,
        theta: &Theta<'_>,
        context: &ForwardContext,
    ) -> Option<LinearPlan> {
        Some(LinearPlan {
            low_rank: vec![self.part.term(theta, context)],
            output_scale: Some(theta.vector(M) / self.norms(base, theta)),
            ..LinearPlan::default()
        })
    }

    fn has_dropout(&self) -> bool {
        self.part.has_dropout()
    }
}

/// What a definition holds constant in the backward pass is held constant in central differences, too.
#[cfg(test)]
pub(super) mod hold {
    use std::cell::Cell;

    thread_local! {
        static IS_ON: Cell<bool> = const { Cell::new(false) };
    }

    pub(super) fn is_on() -> bool {
        IS_ON.get()
    }

    /// Runs `f` with all norms held at those of the first pass in it.
    pub(in super::super) fn held<T>(f: impl FnOnce() -> T) -> T {
        IS_ON.set(true);
        let result = f();
        IS_ON.set(false);
        result
    }
}
