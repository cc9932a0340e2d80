//! VeRA: fixed random projections that all layers share, and two trained vectors a layer.

use std::sync::Arc;

use burn::tensor::Tensor;
use reparam_formats::peft::{AdapterFiles, KeySpec, KeyUsage, check_keys, config_of};
use reparam_ops::{LinearPlan, LowRank};
use serde_json::{Map, Value, json};

use super::low_rank::dropout;
use super::method::{NewTensor, Place, selected};
use super::peft::{AdapterMeta, PeftFormat, key, targets_of};
use super::targets::{
    ADAPTER_BIAS, EXCLUDE_MODULES, LAYERS_PATTERN, LAYERS_TO_TRANSFORM, Selection, TARGET_MODULES,
};
use super::{
    Base, Layer, LinearModule, Method, MethodConfig, MethodError, MethodSpec, Result, Start,
    TensorSpec, Theta, init,
};
use crate::ForwardContext;
use crate::schema::{Range, number, size};

pub(super) static SPEC: MethodSpec = MethodSpec {
    kind: "vera",
    summary: "Vector-based random matrix adaptation: two trained vectors a layer scale projections that all layers share",
    formula: "W = W0 + diag(b) B diag(d) A,  A and B random, frozen and shared",
    source: "arXiv 2310.11454, equation 2",
    settings: &[
        size(
            "rank",
            256,
            "rows of A and columns of B; use more than for LoRA, since A and B are not trained",
        ),
        number(
            "d_initial",
            Range::Finite,
            0.1,
            "initial value of d; b starts at 0",
        ),
        number("dropout", Range::BelowOne, 0.0, "dropout on the input of A"),
        TARGET_MODULES,
        EXCLUDE_MODULES,
        LAYERS_TO_TRANSFORM,
        LAYERS_PATTERN,
        ADAPTER_BIAS,
    ],
    tensors: &[
        TensorSpec::new(LAMBDA_B, "b, [d_out]"),
        TensorSpec::new(LAMBDA_D, "d, [rank]"),
        TensorSpec::new(
            A,
            "A, [rank, the largest d_in], of the whole model; not trained",
        )
        .frozen(),
        TensorSpec::new(
            B,
            "B, [the largest d_out, rank], of the whole model; not trained",
        )
        .frozen(),
    ],
    runs_packed: true,
    peft: Some(PeftFormat {
        peft_type: "VERA",
        is_own: |_| true,
        read: |files| {
            let config = &files.config;
            check_keys(config, &KEYS)?;
            Ok(Arc::new(VeraConfig {
                rank: rank_of(files)?,
                d_initial: config.f64("d_initial")?.unwrap_or(0.1),
                dropout: config.f64("vera_dropout")?.unwrap_or(0.0),
                selection: targets_of(files, &[LAMBDA_B, LAMBDA_D])?,
            }))
        },
        check: |_| Ok(()),
    }),
    build: |settings, _| {
        Ok(Arc::new(VeraConfig {
            rank: settings.size("rank")?,
            d_initial: settings.number("d_initial")?,
            dropout: settings.number("dropout")?,
            selection: Selection::from_settings(settings)?,
        }))
    },
    ..MethodSpec::DEFAULT
};

const LAMBDA_B: &str = "vera_lambda_b";
const LAMBDA_D: &str = "vera_lambda_d";
const A: &str = "vera_A";
const B: &str = "vera_B";

const KEYS: [KeySpec; 12] = [
    key("bias", "\"none\"", KeyUsage::Honoured),
    key("d_initial", "0.1", KeyUsage::Honoured),
    key("fan_in_fan_out", "false", KeyUsage::WithoutEffect),
    key("init_weights", "true", KeyUsage::WithoutEffect),
    key("layers_pattern", "null", KeyUsage::WithoutEffect),
    key("layers_to_transform", "null", KeyUsage::WithoutEffect),
    key("modules_to_save", "null", KeyUsage::Honoured),
    // The projections are in the file.
    key("projection_prng_key", "0", KeyUsage::WithoutEffect),
    key("r", "256", KeyUsage::Honoured),
    key(
        "save_projection",
        "true",
        KeyUsage::Refused(
            "the projections are not in the file, and only PyTorch draws the same numbers",
        ),
    ),
    key("target_modules", "null", KeyUsage::Honoured),
    key("vera_dropout", "0.0", KeyUsage::Honoured),
];

/// The settings of VeRA.
///
/// ```text
/// W = W0 + diag(b) B diag(d) A,   b starts at 0, d at d_initial
/// ```
///
/// `A` `[rank, most d_in]` and `B` `[most d_out, rank]` are drawn once for the whole model, uniform in
/// `+-sqrt(6 / fan_in)`, and frozen; a smaller layer takes their first columns or rows. Trained are `rank + d_out`
/// numbers a layer.
///
/// # References
///
/// Kopiczko et al., *VeRA: Vector-based Random Matrix Adaptation* (arXiv 2310.11454), equation 2; names and files are PEFT's.
/// Differs from PEFT: the random numbers are this program's own, so the projections are always stored.
///
/// # Cost
///
/// A pass takes as long as LoRA of the same rank.
#[derive(Debug, Clone, PartialEq)]
pub struct VeraConfig {
    /// The rank of the projections.
    pub rank: usize,
    /// What every `d` starts at.
    pub d_initial: f64,
    /// The probability with which an input element of the projections is dropped in training.
    pub dropout: f64,
    /// Which layers are adapted.
    pub selection: Selection,
}

impl Default for VeraConfig {
    fn default() -> Self {
        Self {
            rank: 256,
            d_initial: 0.1,
            dropout: 0.0,
            selection: Selection::default(),
        }
    }
}

/// Returns the rank that an adapter says, which is that of its tensors: projections are made of it that the file need not have.
fn rank_of(files: &AdapterFiles) -> Result<usize> {
    let rank = files.config.usize("r")?.unwrap_or(256);
    let mut vectors = files.tensors.iter();
    match vectors.find(|(name, it)| name.ends_with(LAMBDA_D) && it.shape != [rank]) {
        None => Ok(rank),
        Some((name, vector)) => Err(MethodError::FactorShape {
            name: name.clone(),
            expected: vec![rank],
            found: vector.shape.clone(),
        }),
    }
}

impl MethodConfig for VeraConfig {
    selected!(SPEC, selection);

    fn check(&self, _layers: &[&LinearModule]) -> Result<()> {
        if self.rank == 0 {
            return Err(MethodError::Setting {
                setting: "rank",
                expected: "at least 1",
                found: "0".into(),
            });
        }
        Ok(())
    }

    fn shared(&self, layers: &[&LinearModule], place: &Place<'_>) -> Result<Vec<NewTensor>> {
        let layout = self.selection.weight_layout;
        let dims = layers.iter().map(|layer| layer.dims(layout));
        let (d_out, d_in) = dims.fold((0, 0), |most, dims| {
            (most.0.max(dims.0), most.1.max(dims.1))
        });
        let drawn = |rows: usize, cols: usize, name: &'static str| {
            let bound = (6.0 / cols as f64).sqrt();
            let values = init::uniform(rows * cols, bound, place.seed, name);
            NewTensor::matrix(name, place.tensor(values, [rows, cols])).frozen()
        };
        Ok(vec![drawn(self.rank, d_in, A), drawn(d_out, self.rank, B)])
    }

    fn least_numbers(&self, layers: &[&LinearModule]) -> Result<Option<(&'static str, u128)>> {
        let sizes = layers.iter().flat_map(|layer| layer.shape);
        // The projections have the widest layer on both sides.
        let most = sizes.max().unwrap_or(0) as u128;
        Ok(Some(("rank", (self.rank as u128).saturating_mul(most))))
    }

    fn start(&self, layer: &Layer<'_>) -> Result<Start> {
        let (d_out, d_in, rank) = (layer.d_out, layer.d_in, self.rank);
        let vera = Vera {
            d_out,
            d_in,
            dropout: self.dropout,
            dropout_tensor: init::name_key(&layer.module.tensor_name(LAMBDA_D)),
        };
        let b = layer.place.tensor(vec![0.0; d_out], [d_out]);
        let d = layer
            .place
            .tensor(vec![self.d_initial as f32; rank], [rank]);
        let start = Start::new(vera)
            .with(NewTensor::vector(LAMBDA_B, b))
            .with(NewTensor::vector(LAMBDA_D, d));
        Ok(Start {
            rank: Some(rank),
            ..start
        })
    }

    fn properties(&self) -> Result<Vec<(&'static str, Value)>> {
        Ok(vec![
            ("rank", json!(self.rank)),
            ("d_initial", json!(self.d_initial)),
            ("dropout", json!(self.dropout)),
        ])
    }

    fn peft_config(&self, meta: &AdapterMeta) -> Option<Map<String, Value>> {
        let mut given = meta.common(&self.selection, "vera_only");
        // PEFT's VeRA cannot leave out modules, so those that are left are named.
        if given.remove("exclude_modules") != Some(Value::Null) {
            given.insert("target_modules".into(), meta.modules.clone().into());
        }
        given.insert("r".into(), self.rank.into());
        given.insert("d_initial".into(), self.d_initial.into());
        given.insert("vera_dropout".into(), self.dropout.into());
        Some(config_of("VERA", &KEYS, given))
    }
}

/// VeRA on one weight.
#[derive(Debug)]
struct Vera {
    d_out: usize,
    d_in: usize,
    dropout: f64,
    dropout_tensor: u64,
}

impl Vera {
    /// `diag(d) A` and `diag(b) B` of this layer.
    fn factors(&self, theta: &Theta<'_>) -> (Tensor<2>, Tensor<2>) {
        let a = theta.matrix(A).narrow(1, 0, self.d_in);
        let b = theta.matrix(B).narrow(0, 0, self.d_out);
        let column = |vector: &str| theta.vector(vector).unsqueeze_dim::<2>(1);
        (a * column(LAMBDA_D), b * column(LAMBDA_B))
    }
}

impl Method for Vera {
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        let (a, b) = self.factors(theta);
        base + b.matmul(a)
    }

    fn plan(
        &self,
        _base: &Base<'_>,
        theta: &Theta<'_>,
        context: &ForwardContext,
    ) -> Option<LinearPlan> {
        let (a, b) = self.factors(theta);
        Some(LinearPlan {
            low_rank: vec![LowRank {
                a,
                b,
                scaling: 1.0,
                dropout: dropout(self.dropout, self.dropout_tensor, context),
            }],
            ..LinearPlan::default()
        })
    }

    fn has_dropout(&self) -> bool {
        self.dropout > 0.0
    }
}
