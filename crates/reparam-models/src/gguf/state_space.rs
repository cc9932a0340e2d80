//! State-space layers, as llama.cpp reads them.

use reparam_formats::gguf::{GgufModel, GgufValue, GgufWeight, Layout, Source};

use super::{GgufFamily, number, weights};
use crate::Architecture;
use crate::architecture::{MixerSpec, StateSpaceSpec};

/// Describes a model of state-space layers alone; an error is the reason why it is refused.
pub(super) fn describe(
    family: &GgufFamily,
    architecture: &Architecture,
    (spec, is_tied): (&StateSpaceSpec, bool),
) -> Result<GgufModel, String> {
    check(architecture, spec)?;
    let count = |key, number: usize| {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        (key, GgufValue::U32(number))
    };
    let rank = spec.layers.first().map_or(0, |layer| layer.step.d_in);
    let eps = architecture.norm.as_ref().map_or(0.0, |norm| norm.eps);
    let settings = vec![
        count("context_length", architecture.max_positions),
        count("embedding_length", architecture.width),
        count("block_count", spec.layers.len()),
        count("vocab_size", architecture.vocab_size),
        // It has neither, and llama.cpp asks.
        count("feed_forward_length", 0),
        count("attention.head_count", 0),
        count("ssm.conv_kernel", spec.taps),
        count("ssm.inner_size", spec.channels),
        count("ssm.state_size", spec.states),
        count("ssm.time_step_rank", rank),
        ("attention.layer_norm_rms_epsilon", number(eps)),
    ];
    let mut all = weights::weights(family, architecture, is_tied);
    for (layer, of) in spec.layers.iter().enumerate() {
        all.extend(layer_weights(architecture, layer, of));
    }
    Ok(GgufModel {
        architecture: family.architecture.to_owned(),
        settings,
        weights: all,
        notes: Vec::new(),
    })
}

fn check(architecture: &Architecture, spec: &StateSpaceSpec) -> Result<(), String> {
    if !architecture.blocks.is_empty() || architecture.recurrent.is_some() {
        return Err("it has layers of other kinds, too".to_owned());
    }
    if spec.channels != 2 * architecture.width {
        let (found, width) = (spec.channels, architecture.width);
        return Err(format!(
            "it has {found} channels, and llama.cpp two for each of its {width} hidden numbers"
        ));
    }
    let Some(last) = &architecture.norm else {
        return Err("it has no norm after its layers".to_owned());
    };
    let fits = |layer: &MixerSpec| {
        let is_plain = !layer.input.bias && !layer.output.bias && layer.conv_bias;
        is_plain && layer.norm.eps == last.eps && layer.norm.kind == last.kind
    };
    match spec.layers.iter().all(fits) {
        true => Ok(()),
        false => Err("llama.cpp knows other biases or norms of its layers".to_owned()),
    }
}

fn layer_weights(architecture: &Architecture, layer: usize, of: &MixerSpec) -> Vec<GgufWeight> {
    let weight = |name: &str, path: &str, layout, keeps_f32| GgufWeight {
        name: format!("blk.{layer}.{name}"),
        source: Source::Stored {
            name: architecture.full_path(path),
            layout,
            keeps_f32,
        },
    };
    let matrix =
        |name: &str, path: &str| weight(name, &format!("{path}.weight"), Layout::AsStored, false);
    let vector = |name: &str, path: &str| weight(name, path, Layout::AsStored, true);
    let conv = &of.conv;
    vec![
        vector("attn_norm.weight", &format!("{}.weight", of.norm.path)),
        matrix("ssm_in.weight", &of.input.path),
        weight(
            "ssm_conv1d.weight",
            &format!("{conv}.weight"),
            Layout::Squeezed,
            true,
        ),
        vector("ssm_conv1d.bias", &format!("{conv}.bias")),
        matrix("ssm_x.weight", &of.selection.path),
        matrix("ssm_dt.weight", &of.step.path),
        vector("ssm_dt.bias", &format!("{}.bias", of.step.path)),
        weight(
            "ssm_a",
            &format!("{}.A_log", of.path),
            Layout::MinusExp,
            true,
        ),
        vector("ssm_d", &format!("{}.D", of.path)),
        matrix("ssm_out.weight", &of.output.path),
    ]
}
