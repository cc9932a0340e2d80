//! Mamba: state-space layers in place of attention and feed-forward layers.

use reparam_formats::config::{ModelJson, SpecialTokens};

use super::{Family, deviation, epsilon, required_layers, residual_deviation, unsupported};
use crate::architecture::{
    EmbeddingSpec, HeadSpec, HeadsSpec, Initialization, LinearSpec, MixerSpec, NormKind, NormSpec,
    StateSpaceSpec, StepsSpec,
};
use crate::gguf::GgufFamily;
use crate::{Architecture, ModelError};

pub(super) const FAMILY: Family = Family {
    model_type: "mamba",
    describe,
    gguf: Some(GgufFamily::new("mamba")),
};

/// The longest sequence: nothing is stored for it, and no score ends it.
const MAX_POSITIONS: usize = 1 << 20;

fn describe(json: &ModelJson) -> Result<Architecture, ModelError> {
    let raw = &json.json;
    let width = raw.required_size("hidden_size")?;
    let n_layers = required_layers(json, "num_hidden_layers")?;
    let sizes = Sizes {
        width,
        channels: channels(json, width)?,
        states: raw.size("state_size")?.unwrap_or(16),
        rank: rank(json, width)?,
        eps: epsilon(raw, "layer_norm_epsilon", 1e-5)?,
        bias: raw.bool("use_bias")?.unwrap_or(false),
        conv_bias: raw.bool("use_conv_bias")?.unwrap_or(true),
        output_std: output_deviation(json, width, n_layers)?,
        steps: steps(json, rank(json, width)?)?,
    };
    match raw.str("hidden_act")? {
        None | Some("silu" | "swish") => {}
        Some(other) => return Err(unsupported("hidden_act", other, "silu")),
    }
    // Hidden states are f32 in every precision, whatever it says.
    raw.bool("residual_in_fp32")?;
    let tied = raw.bool("tie_word_embeddings")?.unwrap_or(true);
    let special = SpecialTokens {
        bos: Some(0),
        eos: vec![0],
        pad: Some(0),
    };
    Ok(Architecture {
        model_type: json.model_type.clone(),
        width,
        vocab_size: raw.required_size("vocab_size")?,
        max_positions: MAX_POSITIONS,
        special: json.special_tokens(special)?,
        prefix: "backbone".to_owned(),
        embedding: EmbeddingSpec {
            tokens: "embeddings".to_owned(),
            factor: None,
            positions: None,
            sinusoids: None,
            token_types: None,
            token_projection: None,
            norm: None,
            dropout: None,
            projection: None,
        },
        recurrent: None,
        state_space: Some(StateSpaceSpec {
            channels: sizes.channels,
            states: sizes.states,
            taps: raw.size("conv_kernel")?.unwrap_or(4),
            layers: (0..n_layers).map(|layer| sizes.layer(layer)).collect(),
        }),
        rotary: Vec::new(),
        relative: None,
        seq2seq: None,
        blocks: Vec::new(),
        norm: Some(sizes.norm("norm_f".to_owned())),
        head: HeadSpec::new("lm_head", tied),
        heads: HeadsSpec::default(),
        buffers: Vec::new(),
        bias_keys: vec![
            ("in_proj", "use_bias"),
            ("out_proj", "use_bias"),
            ("conv1d", "use_conv_bias"),
        ],
        init: Initialization::Normal(deviation(raw, "initializer_range", 0.1)?),
    })
}

/// What all layers share.
struct Sizes {
    width: usize,
    channels: usize,
    states: usize,
    rank: usize,
    eps: f64,
    bias: bool,
    conv_bias: bool,
    output_std: f64,
    steps: StepsSpec,
}

impl Sizes {
    fn norm(&self, path: String) -> NormSpec {
        NormSpec {
            path,
            kind: NormKind::Rms,
            width: self.width,
            eps: self.eps,
        }
    }

    fn layer(&self, layer: usize) -> MixerSpec {
        let path = format!("layers.{layer}.mixer");
        let linear = |name: &str, d_in: usize, d_out: usize, bias: bool| LinearSpec {
            bias,
            ..LinearSpec::new(format!("{path}.{name}"), d_in, d_out)
        };
        let channels = self.channels;
        let selected = self.states.saturating_mul(2).saturating_add(self.rank);
        MixerSpec {
            norm: self.norm(format!("layers.{layer}.norm")),
            input: linear("in_proj", self.width, channels.saturating_mul(2), self.bias),
            conv: format!("{path}.conv1d"),
            conv_bias: self.conv_bias,
            selection: linear("x_proj", channels, selected, false),
            step: linear("dt_proj", self.rank, channels, true),
            steps: self.steps,
            output: linear("out_proj", channels, self.width, self.bias).with_std(self.output_std),
            path,
        }
    }
}

/// Reads the number of channels, which two keys say.
fn channels(json: &ModelJson, width: usize) -> Result<usize, ModelError> {
    let raw = &json.json;
    let expand = raw.f64("expand")?.unwrap_or(2.0);
    let channels = (expand * width as f64) as usize;
    if !(expand.is_finite() && expand > 0.0) || channels == 0 {
        let reason = "hidden_size times it has to be at least 1";
        return Err(raw.invalid("expand", reason).into());
    }
    match raw.size("intermediate_size")? {
        Some(found) if found != channels => {
            let reason = format!("expand * hidden_size is {channels}");
            Err(raw.invalid("intermediate_size", reason).into())
        }
        _ => Ok(channels),
    }
}

/// Reads what the steps of a token are made of: numbers.
fn rank(json: &ModelJson, width: usize) -> Result<usize, ModelError> {
    let (raw, key) = (&json.json, "time_step_rank");
    let is_word = raw.str(key);
    match is_word {
        Ok(None | Some("auto")) => Ok(width.div_ceil(16)),
        Ok(Some(other)) => Err(unsupported(key, other, "auto, or a number")),
        Err(_) => Ok(raw.size(key)?.unwrap_or_else(|| width.div_ceil(16))),
    }
}

/// Reads what new layers begin with.
fn steps(json: &ModelJson, rank: usize) -> Result<StepsSpec, ModelError> {
    let raw = &json.json;
    match raw.str("time_step_init_scheme")? {
        None | Some("random") => {}
        Some(other) => return Err(unsupported("time_step_init_scheme", other, "random")),
    }
    let positive = |key: &'static str, default: f64| {
        let found = raw.f64(key)?.unwrap_or(default);
        match found.is_finite() && found > 0.0 {
            true => Ok(found),
            false => Err(ModelError::from(
                raw.invalid(key, "it has to be larger than 0"),
            )),
        }
    };
    Ok(StepsSpec {
        bound: (rank as f64).powf(-0.5) * positive("time_step_scale", 1.0)?,
        least: positive("time_step_min", 0.001)?,
        most: positive("time_step_max", 0.1)?,
        floor: positive("time_step_floor", 1e-4)?,
    })
}

/// The standard deviation of the layers that add to the hidden states: that of torch's uniform weights, in some the smaller the deeper
/// the model is.
fn output_deviation(json: &ModelJson, width: usize, n_layers: usize) -> Result<f64, ModelError> {
    let torch = (3.0 * channels(json, width)? as f64).powf(-0.5);
    let is_rescaled = json.json.bool("rescale_prenorm_residual")?.unwrap_or(false);
    Ok(match is_rescaled {
        // One layer adds to them, in place of a block's two.
        true => residual_deviation(torch, n_layers) * 2f64.sqrt(),
        false => torch,
    })
}
