//! What llama.cpp has to know of a model, for a file of its format.
//!
//! The names of tensors and most settings follow from what the [`Architecture`] says of its layers. A family adds a
//! [`GgufFamily`]: which of llama.cpp's architectures it is, and what that one takes for granted. A model that llama.cpp would compute
//! otherwise is refused, so that a file that is written means what the checkpoint means.

mod check;
mod rotary;
mod state_space;
mod weights;

use reparam_formats::gguf::{GgufModel, GgufValue};
use reparam_ops::Activation;

use crate::architecture::NormKind;
use crate::{Architecture, ModelError};

/// One of llama.cpp's architectures: what it computes, beyond what a file tells it.
#[derive(Debug, Clone, Copy)]
pub struct GgufFamily {
    /// `general.architecture`.
    pub architecture: &'static str,
    /// Whether it rotates elements that stand together, where checkpoints have those half a head apart.
    pub rotates_neighbours: bool,
    /// The activation function of its feed-forward layers.
    pub activation: Activation,
    /// What its layers may have biases of.
    pub biases: GgufBiases,
    /// Whether queries are as wide as the hidden states.
    pub square_queries: bool,
    /// Which layers have a window.
    pub windows: GgufWindows,
    /// Where its output head is.
    pub head: GgufHead,
    /// Whether it caps scores and logits, and needs both caps.
    pub soft_caps: bool,
    /// Whether it multiplies token vectors by the root of their width.
    pub scales_embedding: bool,
    /// How many layers are a group whose last one does not rotate; `None` if all do.
    pub unrotated: Option<usize>,
    /// Whether it reads factors of the frequencies.
    pub frequencies: GgufFrequencies,
    /// Whether both halves of a block read the input of the block, behind one norm; `None` if they may.
    pub parallel: Option<bool>,
    /// Which factors it reads.
    pub factors: GgufFactors,
    /// Whether it reads norms of the heads of queries and keys.
    pub head_norms: bool,
    /// Whether its output head has a bias.
    pub head_bias: bool,
    /// Whether it reads bounds of queries, keys and values.
    pub clips: bool,
    /// What the experts of its feed-forward layers are, which all have them then.
    pub experts: Option<GgufExperts>,
    /// What it multiplies scores by, where that is not one over the root of a head's width.
    pub scale: fn(&Architecture) -> f64,
}

impl GgufFamily {
    /// Most architectures: gated layers with SiLU, no biases, no windows.
    pub const fn new(architecture: &'static str) -> Self {
        Self {
            architecture,
            rotates_neighbours: false,
            activation: Activation::Silu,
            biases: GgufBiases::NONE,
            square_queries: false,
            windows: GgufWindows::None,
            head: GgufHead::OwnOrTable,
            soft_caps: false,
            scales_embedding: false,
            unrotated: None,
            frequencies: GgufFrequencies::Plain,
            parallel: Some(false),
            factors: GgufFactors::None,
            head_norms: true,
            head_bias: false,
            clips: false,
            experts: None,
            scale: root_of_head,
        }
    }
}

/// One over the root of a head's width.
pub fn root_of_head(architecture: &Architecture) -> f64 {
    let head_dim = architecture
        .blocks
        .first()
        .map(|block| block.attention.head_dim);
    1.0 / (head_dim.unwrap_or(1) as f64).sqrt()
}

/// The biases that an architecture of llama.cpp reads: `None` if there may be some or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgufBiases {
    /// Of queries, keys and values.
    pub inputs: Option<bool>,
    /// Of the layer behind attention.
    pub output: Option<bool>,
    /// Of the feed-forward layers.
    pub feed_forward: Option<bool>,
}

impl GgufBiases {
    /// No layer has one.
    pub const NONE: Self = Self {
        inputs: Some(false),
        output: Some(false),
        feed_forward: Some(false),
    };
    /// All layers have one.
    pub const ALL: Self = Self {
        inputs: Some(true),
        output: Some(true),
        feed_forward: Some(true),
    };
    /// All layers may have one.
    pub const ANY: Self = Self {
        inputs: None,
        output: None,
        feed_forward: None,
    };
    /// Queries, keys and values may have one.
    pub const INPUTS: Self = Self {
        inputs: None,
        ..Self::NONE
    };
}

/// What the experts of an architecture of llama.cpp are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GgufExperts {
    /// Whether the weights of those that a token goes through sum to one.
    pub normalize: bool,
    /// Whether there is one that all tokens go through.
    pub shared: bool,
}

/// Which layers of an architecture of llama.cpp have a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufWindows {
    /// None, whatever the file says.
    None,
    /// All but the last of every so many layers.
    Groups {
        /// How many, unless the file says another number.
        layers: usize,
        /// Whether a file without windows has none, and not those of a default.
        optional: bool,
        /// Whether these layers have a base of rotary positions of their own; else they have that of the others, and what stretches
        /// those does not stretch theirs.
        own_theta: bool,
    },
}

/// Where an architecture of llama.cpp looks for its output head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufHead {
    /// In a tensor of its own, else in the table of token vectors.
    OwnOrTable,
    /// In a tensor of its own.
    Own,
    /// In the table of token vectors.
    Table,
}

/// Which factors an architecture of llama.cpp reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufFactors {
    /// None.
    None,
    /// What logits are multiplied by.
    Logits,
    /// Of token vectors, of scores, of each half of a block, and what logits are divided by.
    All,
}

/// Which changes of the frequencies an architecture of llama.cpp reads as tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GgufFrequencies {
    /// None.
    Plain,
    /// A factor for each pair.
    Factors,
    /// Two for each pair, for short and for long sequences.
    ShortAndLong,
}

/// Describes a model for llama.cpp. `is_tied` says whether the head is the table of token vectors.
///
/// # Errors
///
/// [`ModelError::NotInGguf`] for a model that llama.cpp would compute otherwise.
pub(crate) fn describe(
    family: &GgufFamily,
    architecture: &Architecture,
    is_tied: bool,
) -> Result<GgufModel, ModelError> {
    let refuse = |reason: String| ModelError::NotInGguf {
        model_type: architecture.model_type.clone(),
        reason,
    };
    if let Some(spec) = &architecture.state_space {
        return state_space::describe(family, architecture, (spec, is_tied)).map_err(refuse);
    }
    let windows = check::check(family, architecture, is_tied).map_err(refuse)?;
    let mut settings = settings(architecture, windows.context);
    settings.extend(windows.settings);
    settings.extend(factors(family, architecture));
    let mut weights = weights::weights(family, architecture, is_tied);
    let rotary = rotary::settings(family, architecture, windows.sliding.as_deref());
    let rotary = rotary.map_err(refuse)?;
    settings.extend(rotary.settings);
    weights.extend(rotary.weights);
    let mut notes = windows.notes;
    notes.extend(rotary.notes);
    Ok(GgufModel {
        architecture: family.architecture.to_owned(),
        settings,
        weights,
        notes,
    })
}

/// The factors and bounds that an architecture reads; they are checked.
fn factors(family: &GgufFamily, architecture: &Architecture) -> Vec<(&'static str, GgufValue)> {
    let Some(block) = architecture.blocks.first() else {
        return Vec::new();
    };
    let mut settings = Vec::new();
    let of_logits = architecture.head.factor;
    match family.factors {
        GgufFactors::None => {}
        GgufFactors::Logits => settings.push(("logit_scale", of_logits)),
        GgufFactors::All => settings.extend([
            ("embedding_scale", architecture.embedding.factor),
            ("residual_scale", block.attention_norms.factor),
            ("attention.scale", Some(block.attention.scale)),
            ("logit_scale", of_logits.map(f64::recip)),
        ]),
    }
    settings.push(("attention.clamp_kqv", block.attention.clip));
    let settings = settings.into_iter();
    settings
        .filter_map(|(key, value)| Some((key, number(value?))))
        .collect()
}

/// The sizes, which all architectures have.
fn settings(architecture: &Architecture, context: usize) -> Vec<(&'static str, GgufValue)> {
    let count = |key, number: usize| {
        (
            key,
            GgufValue::U32(u32::try_from(number).unwrap_or(u32::MAX)),
        )
    };
    let mut settings = vec![
        count("context_length", context),
        count("embedding_length", architecture.width),
        count("block_count", architecture.blocks.len()),
        count("vocab_size", architecture.vocab_size),
    ];
    if let Some(block) = architecture.blocks.first() {
        let attention = &block.attention;
        settings.extend([
            count("feed_forward_length", block.feed_forward.output.d_in),
            count("attention.head_count", attention.n_heads),
            count("attention.head_count_kv", attention.n_kv_heads),
            count("attention.key_length", attention.head_dim),
            count("attention.value_length", attention.head_dim),
        ]);
        if let Some(experts) = &block.feed_forward.experts {
            settings.extend([
                count("expert_count", experts.n_experts),
                count("expert_used_count", experts.per_token),
                count("expert_feed_forward_length", block.feed_forward.output.d_in),
            ]);
            let shared = experts.shared.as_ref();
            settings.extend(shared.map(|shared| {
                let inner = shared.feed_forward.output.d_in;
                count("expert_shared_feed_forward_length", inner)
            }));
        }
        let caps = [
            ("attn_logit_softcapping", attention.soft_cap),
            ("final_logit_softcapping", architecture.head.soft_cap),
        ];
        settings.extend(
            caps.into_iter()
                .filter_map(|(key, cap)| Some((key, number(cap?)))),
        );
    }
    if let Some(norm) = &architecture.norm {
        let key = match norm.kind {
            NormKind::Rms | NormKind::RmsPlusOne => "attention.layer_norm_rms_epsilon",
            NormKind::Layer | NormKind::LayerWithoutBias | NormKind::LayerWithoutWeight => {
                "attention.layer_norm_epsilon"
            }
        };
        settings.push((key, number(norm.eps)));
    }
    settings
}

fn number(value: f64) -> GgufValue {
    GgufValue::F32(value as f32)
}
