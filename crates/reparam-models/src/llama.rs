//! The Llama family.

use burn::tensor::Device;
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::config::ModelConfig;

use crate::layers::{Decoder, DecoderLayer, GatedMlp, SelfAttention};
use crate::loader::Loader;
use crate::{CausalLm, ModelError, Precision, rope};

/// A model family: how to fill its modules from a checkpoint.
#[derive(Debug)]
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    load: fn(&ModelConfig, &mut Loader<'_>) -> Result<CausalLm, ModelError>,
}

/// Every family.
pub static FAMILIES: &[Family] = &[Family {
    model_type: "llama",
    load: load_llama,
}];

impl CausalLm {
    /// Loads a model onto a device, frozen.
    ///
    /// # Errors
    ///
    /// Fails when the family is not supported, or the checkpoint's tensors are not exactly those
    /// of the configuration, or one of them holds NaN or infinity.
    pub fn load(
        checkpoint: &Checkpoint,
        config: &ModelConfig,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let family = FAMILIES
            .iter()
            .find(|family| family.model_type == config.model_type)
            .ok_or_else(|| ModelError::UnsupportedFamily {
                found: config.model_type.clone(),
                supported: FAMILIES.iter().map(|family| family.model_type).collect(),
            })?;
        let mut loader = Loader::new(checkpoint, device, precision);
        let model = (family.load)(config, &mut loader)?;
        let tied = config.tie_word_embeddings;
        // Older exporters wrote buffers and the tied head along.
        loader.finish(|name| {
            name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight")
        })?;
        Ok(model)
    }
}

fn load_llama(config: &ModelConfig, loader: &mut Loader<'_>) -> Result<CausalLm, ModelError> {
    if config.hidden_act != "silu" {
        return Err(ModelError::UnsupportedSetting {
            setting: "hidden_act",
            found: config.hidden_act.clone(),
            supported: "silu",
        });
    }
    let (d, eps) = (config.hidden_size, config.rms_norm_eps);
    let embed_tokens = loader.embedding("model.embed_tokens", config.vocab_size, d);
    let layers = (0..config.num_hidden_layers)
        .map(|layer_idx| load_layer(config, loader, &format!("model.layers.{layer_idx}")))
        .collect();
    let norm = loader.rms_norm("model.norm", d, eps);
    let lm_head = (!config.tie_word_embeddings)
        .then(|| loader.linear("lm_head", config.vocab_size, d, false));
    Ok(CausalLm {
        model: Decoder {
            embed_tokens,
            layers,
            norm,
        },
        lm_head,
        inverse_frequencies: rope::inverse_frequencies(config).into(),
        recompute: false,
    })
}

fn load_layer(config: &ModelConfig, loader: &mut Loader<'_>, path: &str) -> DecoderLayer {
    let (d, inner, eps) = (
        config.hidden_size,
        config.intermediate_size,
        config.rms_norm_eps,
    );
    let head_dim = config.head_dim;
    let q_width = config.num_attention_heads * head_dim;
    let kv_width = config.num_key_value_heads * head_dim;
    let name = |name: &str| format!("{path}.{name}");
    let bias = config.attention_bias;
    let (q, k, v) = (
        name("self_attn.q_proj"),
        name("self_attn.k_proj"),
        name("self_attn.v_proj"),
    );
    let [q_proj, k_proj, v_proj] =
        loader.linears([(&q, q_width), (&k, kv_width), (&v, kv_width)], d, bias);
    let self_attn = SelfAttention {
        q_proj,
        k_proj,
        v_proj,
        o_proj: loader.linear(&name("self_attn.o_proj"), d, q_width, bias),
        n_heads: config.num_attention_heads,
        n_kv_heads: config.num_key_value_heads,
        head_dim,
    };
    let (gate, up) = (name("mlp.gate_proj"), name("mlp.up_proj"));
    let [gate_proj, up_proj] = loader.linears([(&gate, inner), (&up, inner)], d, config.mlp_bias);
    let mlp = GatedMlp {
        gate_proj,
        up_proj,
        down_proj: loader.linear(&name("mlp.down_proj"), d, inner, config.mlp_bias),
    };
    DecoderLayer {
        self_attn,
        mlp,
        input_layernorm: loader.rms_norm(&format!("{path}.input_layernorm"), d, eps),
        post_attention_layernorm: loader.rms_norm(
            &format!("{path}.post_attention_layernorm"),
            d,
            eps,
        ),
    }
}
