//! LoRA: a frozen weight plus a trainable product of two thin matrices.

use std::collections::HashMap;

use burn::module::{Module, Param, Reparameterization, Reparameterizer};
use burn::tensor::{Device, Tensor, TensorData};
use reparam_formats::peft::{
    self, InitLoraWeights, LayerIndices, LoraAdapterConfig, PeftAdapter, TargetModules,
};
use reparam_ops::fused::FusedLowRank;
use reparam_ops::{DropoutKey, LinearPlan, LowRank, dropout, linear};

use super::attach::{AttachReport, AttachedModule, TrainedBiases, freeze};
use super::targets::{self, Target, WeightLayout};
use super::{AttachMethod, Constant, Method, MethodError, ParameterName, Setting, init};
use crate::ForwardContext;

pub(super) const METHOD: Method = Method {
    kind: "lora",
    summary: "Low-rank adaptation: a product of two thin matrices is added to a frozen weight",
    formula: "W = W0 + s B A,  s = alpha / rank, or alpha / sqrt(rank) with use_rslora",
    settings: &[
        Setting {
            key: "rank",
            default: "16",
            meaning: "rows of A and columns of B",
        },
        Setting {
            key: "alpha",
            default: "32",
            meaning: "numerator of the scaling s",
        },
        Setting {
            key: "target_modules",
            default: "\"all-linear\"",
            meaning: "adapted modules: a list of names, or a regex",
        },
        Setting {
            key: "use_rslora",
            default: "false",
            meaning: "keep the size of the update as the rank grows",
        },
        Setting {
            key: "dropout",
            default: "0.0",
            meaning: "dropout on the input of A",
        },
        Setting {
            key: "bias",
            default: "\"none\"",
            meaning: "biases trained along: none, all, or lora_only",
        },
        Setting {
            key: "init",
            default: "\"kaiming\"",
            meaning: "how A starts: kaiming or gaussian; B starts at zero",
        },
    ],
    mergeable: true,
    source: "arXiv 2106.09685, equation 3; rsLoRA: arXiv 2312.03732",
    parameters: &[
        ParameterName {
            inner: "lora_a",
            public: "lora_A.weight",
            meaning: "A, [rank, d_in]",
        },
        ParameterName {
            inner: "lora_b",
            public: "lora_B.weight",
            meaning: "B, [d_out, rank]",
        },
    ],
    run,
    after_step: None,
};

/// How `A` starts; `B` starts at zero, so that the adapted model equals the base model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FactorInit {
    /// Uniform in `[-1/sqrt(d_in), 1/sqrt(d_in)]`: PEFT's Kaiming-uniform with `a = sqrt(5)`.
    #[default]
    Kaiming,
    /// Normal with standard deviation `1/rank`.
    Gaussian,
}

/// The settings of LoRA, in PEFT's terms.
///
/// ```text
/// W = W0 + s B A,   s = alpha / rank   or, with rsLoRA,   s = alpha / sqrt(rank)
/// ```
///
/// # References
///
/// Hu et al., *LoRA* (arXiv 2106.09685), equation 3; Kalajdzievski, *rsLoRA* (arXiv 2312.03732).
/// Differs from the paper: `A` starts uniform as in PEFT, where the paper says Gaussian; choose
/// [`FactorInit::Gaussian`] for that.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// The rank `r` of the product.
    pub rank: usize,
    /// The numerator of the scaling.
    pub alpha: f64,
    /// The probability with which an input element of the low-rank path is dropped in training.
    pub dropout: f64,
    /// Whether the scaling divides by the root of the rank.
    pub use_rslora: bool,
    /// Which linear layers are adapted.
    pub target_modules: TargetModules,
    /// Which of them are not, by the same rules.
    pub exclude_modules: Option<TargetModules>,
    /// Ranks of single modules, by the end of their path or a regular expression for it; the
    /// first that matches counts.
    pub rank_pattern: Vec<(String, usize)>,
    /// Alphas of single modules, likewise.
    pub alpha_pattern: Vec<(String, f64)>,
    /// The layer numbers to adapt; all if `None`.
    pub layers_to_transform: Option<Vec<usize>>,
    /// The name of the list of layers, when it is not one of the usual ones.
    pub layers_pattern: Vec<String>,
    /// Which existing biases are trained along.
    pub bias: peft::Bias,
    /// How `A` starts.
    pub init: FactorInit,
    /// In which order the model's linear layers store their weights.
    pub weight_layout: WeightLayout,
}

impl LoraConfig {
    /// Creates a configuration that adapts every linear layer but the output head.
    pub fn new(rank: usize, alpha: f64) -> Self {
        Self {
            rank,
            alpha,
            dropout: 0.0,
            use_rslora: false,
            target_modules: TargetModules::AllLinear,
            exclude_modules: None,
            rank_pattern: Vec::new(),
            alpha_pattern: Vec::new(),
            layers_to_transform: None,
            layers_pattern: Vec::new(),
            bias: peft::Bias::None,
            init: FactorInit::Kaiming,
            weight_layout: WeightLayout::OutIn,
        }
    }

    /// Sets which linear layers are adapted.
    pub fn with_target_modules(self, target_modules: TargetModules) -> Self {
        Self {
            target_modules,
            ..self
        }
    }

    /// Sets in which order the model's linear layers store their weights.
    pub fn with_weight_layout(self, weight_layout: WeightLayout) -> Self {
        Self {
            weight_layout,
            ..self
        }
    }

    /// Returns the effective multiplier of modules without a pattern of their own.
    pub fn scaling(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Returns the same settings as PEFT writes them.
    pub fn to_adapter_config(&self) -> LoraAdapterConfig {
        LoraAdapterConfig {
            r: self.rank,
            lora_alpha: self.alpha,
            lora_dropout: self.dropout,
            use_rslora: self.use_rslora,
            target_modules: Some(self.target_modules.clone()),
            exclude_modules: self.exclude_modules.clone(),
            layers_to_transform: self.layers_to_transform.clone().map(LayerIndices::List),
            layers_pattern: self.layers_pattern.clone(),
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
            bias: self.bias,
            init_lora_weights: match self.init {
                FactorInit::Kaiming => InitLoraWeights::Flag(true),
                FactorInit::Gaussian => InitLoraWeights::Named("gaussian".into()),
            },
            ..LoraAdapterConfig::default()
        }
    }
}

impl AttachMethod for LoraConfig {
    const KIND: &'static str = METHOD.kind;

    fn attach<M: Module>(&self, model: M, seed: u64) -> Result<(M, AttachReport), MethodError> {
        attach_lora(model, self, seed)
    }
}

/// The trainable state of one adapted weight.
#[derive(Module, Debug)]
pub struct Lora {
    /// `A`, `[rank, d_in]`.
    pub lora_a: Param<Tensor<2>>,
    /// `B`, `[d_out, rank]`.
    pub lora_b: Param<Tensor<2>>,
    /// The effective multiplier.
    pub scaling: Constant,
    /// The dropout probability.
    pub dropout: Constant,
    /// Tells this weight's dropout masks from others'; from the module's name.
    dropout_tensor: u64,
    /// One if the base is stored `[d_in, d_out]`, else zero.
    transposed: Constant,
}

impl Lora {
    /// Puts together what a visitor saw; `None` if a constant is missing.
    pub(super) fn from_parts(
        module: &str,
        lora_a: Param<Tensor<2>>,
        lora_b: Param<Tensor<2>>,
        constant: impl Fn(&str) -> Option<f64>,
    ) -> Option<Self> {
        Some(Self {
            lora_a,
            lora_b,
            scaling: Constant(constant("scaling")?),
            dropout: Constant(constant("dropout")?),
            dropout_tensor: dropout_tensor(module),
            transposed: Constant(constant("transposed")?),
        })
    }

    /// Returns the probability and the key of this pass's dropout, if there is any.
    fn dropout(&self, context: &ForwardContext) -> Option<(f32, DropoutKey)> {
        let key = context.dropout_key(self.dropout_tensor)?;
        // A probability just below one must not become one by rounding.
        let p = (self.dropout.0 as f32).min(1.0 - f32::EPSILON);
        (p > 0.0).then_some((p, key))
    }

    /// Returns whether the base is stored `[d_in, d_out]`.
    pub(super) fn is_transposed(&self) -> bool {
        self.transposed.0 != 0.0
    }
}

/// Returns the number that tells a module's dropout masks from others'.
fn dropout_tensor(module: &str) -> u64 {
    init::name_key(&PeftAdapter::a_name(module))
}

impl Reparameterization for Lora {
    const NAME: &'static str = "lora";

    /// Returns `base + s B A`, in the base's layout.
    ///
    /// Dropout acts on the layer's input and has no place in an effective weight: this is the
    /// weight of inference.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let delta = self.lora_b.val().matmul(self.lora_a.val()) * self.scaling.0;
        let delta = if self.is_transposed() {
            delta.transpose()
        } else {
            delta
        };
        let shape = base.shape();
        base + delta.reshape(shape)
    }
}

fn run(x: &Tensor<2>, weight: &Param<Tensor<2>>, context: &ForwardContext) -> Option<Tensor<2>> {
    let lora = weight.reparameterization::<Lora>()?;
    let (a, b) = (lora.lora_a.val(), lora.lora_b.val());
    let scaling = lora.scaling.0;
    let base = weight.base();
    let base = if lora.is_transposed() {
        base.transpose()
    } else {
        base
    };
    let input = lora
        .dropout(context)
        .map(|(p, key)| dropout(x.clone(), p, key));
    let plan = LinearPlan::LowRank(LowRank {
        a,
        b,
        scaling,
        input,
    });
    Some(linear(x.clone(), base, plan))
}

/// Returns the factors attached to a packed weight, which is `[d_out, d_in]`.
pub(super) fn fused(weight: &Param<Tensor<2>>, context: &ForwardContext) -> Option<FusedLowRank> {
    let lora = weight.reparameterization::<Lora>()?;
    assert!(!lora.is_transposed(), "packed weights are [d_out, d_in]");
    Some(FusedLowRank {
        a: lora.lora_a.val(),
        b: lora.lora_b.val(),
        scaling: lora.scaling.0,
        dropout: lora.dropout(context),
    })
}

/// Attaches LoRA to a model's linear layers and freezes everything else.
///
/// The factors start from `seed` and each module's name.
///
/// # Errors
///
/// Fails when a setting is out of range, a target pattern matches nothing, or a method is attached
/// already.
pub fn attach_lora<M: Module>(
    model: M,
    config: &LoraConfig,
    seed: u64,
) -> Result<(M, AttachReport), MethodError> {
    let adapter_config = config.to_adapter_config();
    adapter_config.validate()?;
    let linears = targets::unadapted_modules(&model, METHOD.kind)?;
    let selected = targets::select(&adapter_config, &linears)?;
    attach(
        model,
        &selected,
        AttachOptions {
            dropout: config.dropout,
            bias: config.bias,
            layout: config.weight_layout,
        },
        |target| Factors::random(config, target, seed),
    )
}

/// What attaching needs to know besides the factors.
#[derive(Debug, Clone, Copy)]
pub(super) struct AttachOptions {
    pub(super) dropout: f64,
    pub(super) bias: peft::Bias,
    pub(super) layout: WeightLayout,
}

pub(super) fn attach<M: Module>(
    model: M,
    selected: &[Target<'_>],
    options: AttachOptions,
    mut factors_of: impl FnMut(&Target<'_>) -> Result<Factors, MethodError>,
) -> Result<(M, AttachReport), MethodError> {
    if options.bias != peft::Bias::None && selected.iter().any(|target| target.module.is_packed) {
        return Err(MethodError::Setting {
            setting: "bias",
            expected: "`none` where weights are packed",
            found: format!("{:?}", options.bias).to_lowercase(),
        });
    }
    // The head and its loss are one operation, which knows no factors.
    let is_packed_head =
        |target: &&Target<'_>| target.module.is_packed && target.module.is_output_head();
    if let Some(head) = selected.iter().find(is_packed_head) {
        return Err(MethodError::PackedWeight {
            module: head.module.path.clone(),
            method: METHOD.kind,
        });
    }
    let mut factors = HashMap::new();
    let mut modules = Vec::new();
    for target in selected {
        factors.insert(target.module.weight_path(), factors_of(target)?);
        modules.push(AttachedModule {
            module: target.module.path.clone(),
            rank: Some(target.numbers.rank),
            scaling: Some(target.numbers.scaling),
        });
    }
    let (biases, setting) = match options.bias {
        peft::Bias::None => (TrainedBiases::None, "none"),
        peft::Bias::All => (TrainedBiases::All, "all"),
        peft::Bias::LoraOnly => {
            let targets = modules.iter().map(|target| target.module.clone());
            (TrainedBiases::Of(targets.collect()), "lora_only")
        }
    };
    let model = freeze(model, biases, setting)?;
    let model = model.apply_reparameterization(Attach { factors, options });
    Ok((model, AttachReport { modules }))
}

/// The first values of one layer's factors.
pub(super) struct Factors {
    a: TensorData,
    b: TensorData,
    scaling: f64,
    dropout_tensor: u64,
}

impl Factors {
    /// Takes given values, row-major, `A` `[rank, d_in]` and `B` `[d_out, rank]`.
    pub(super) fn given(
        target: &Target<'_>,
        layout: WeightLayout,
        a: Vec<f32>,
        b: Vec<f32>,
    ) -> Self {
        let (d_out, d_in) = target.module.dims(layout);
        let rank = target.numbers.rank;
        Self {
            a: TensorData::new(a, [rank, d_in]),
            b: TensorData::new(b, [d_out, rank]),
            scaling: target.numbers.scaling,
            dropout_tensor: dropout_tensor(&target.module.path),
        }
    }

    fn random(config: &LoraConfig, target: &Target<'_>, seed: u64) -> Result<Self, MethodError> {
        let (d_out, d_in) = target.module.dims(config.weight_layout);
        let rank = target.numbers.rank;
        let name = PeftAdapter::a_name(&target.module.path);
        let a = match config.init {
            FactorInit::Kaiming => {
                init::uniform(rank * d_in, 1.0 / (d_in as f64).sqrt(), seed, &name)
            }
            FactorInit::Gaussian => init::normal(rank * d_in, 1.0 / rank as f64, seed, &name),
        };
        let b = vec![0.0; d_out * rank];
        Ok(Self::given(target, config.weight_layout, a, b))
    }
}

struct Attach {
    factors: HashMap<String, Factors>,
    options: AttachOptions,
}

impl Reparameterizer for Attach {
    type Reparam = Lora;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Lora>) {
        let Some(factors) = self.factors.remove(path) else {
            return (param, None);
        };
        let base = param.base();
        let device: Device = base.device();
        // The factors keep the base's precision, so that an f64 model stays one.
        let factor = |data: TensorData| {
            let data = data.convert_dtype(base.dtype());
            Param::from_tensor(Tensor::<2>::from_data(data, (&device, base.dtype())))
        };
        let lora = Lora {
            lora_a: factor(factors.a),
            lora_b: factor(factors.b),
            scaling: Constant(factors.scaling),
            dropout: Constant(self.options.dropout),
            dropout_tensor: factors.dropout_tensor,
            transposed: Constant(f64::from(u8::from(
                self.options.layout == WeightLayout::InOut,
            ))),
        };
        (param, Some(lora))
    }
}
