//! Whether llama.cpp computes what an architecture says.

use reparam_formats::gguf::GgufValue;

use super::{GgufFactors, GgufFamily, GgufHead, GgufWindows};
use crate::Architecture;
use crate::architecture::{AttentionSpec, BlockSpec, FeedForwardSpec, HeadWeights, NormSpec};

/// What the windows of a model come to.
pub(super) struct Windows {
    /// The tokens for which llama.cpp computes the same.
    pub(super) context: usize,
    pub(super) settings: Vec<(&'static str, GgufValue)>,
    /// Which layers have a window, if llama.cpp's have.
    pub(super) sliding: Option<Vec<bool>>,
    pub(super) notes: Vec<String>,
}

/// Checks all that a file cannot say; an error is the reason why the model is refused.
pub(super) fn check(
    family: &GgufFamily,
    architecture: &Architecture,
    is_tied: bool,
) -> Result<Windows, String> {
    let Some(first) = architecture.blocks.first() else {
        return Err("it has no blocks".to_owned());
    };
    let is_decoder = architecture.is_causal()
        && architecture.recurrent.is_none()
        && architecture.state_space.is_none()
        && architecture.relative.is_none()
        && architecture.embedding.norm.is_none()
        && architecture.embedding.projection.is_none()
        && architecture.embedding.token_projection.is_none()
        && architecture.head.projection.is_none()
        && architecture.embedding.sinusoids.is_none()
        && architecture.embedding.token_types.is_none();
    if !is_decoder {
        return Err("it is no decoder of the kind that llama.cpp has".to_owned());
    }
    let positions = architecture.embedding.positions.as_ref();
    if positions.is_some_and(|table| table.offset != 0) {
        return Err("its table of positions does not begin with the first".to_owned());
    }
    check_tokens(family, architecture, is_tied)?;
    for (layer, block) in architecture.blocks.iter().enumerate() {
        check_block(family, architecture, block)
            .and_then(|()| check_alike(first, block))
            .map_err(|reason| format!("layer {layer}: {reason}"))?;
    }
    check_rotation(family, architecture)?;
    check_norms(architecture)?;
    windows(family, architecture)
}

/// The vectors of tokens and the head.
fn check_tokens(
    family: &GgufFamily,
    architecture: &Architecture,
    is_tied: bool,
) -> Result<(), String> {
    let wanted = family
        .scales_embedding
        .then(|| (architecture.width as f64).sqrt());
    if family.factors != GgufFactors::All && !is_near(architecture.embedding.factor, wanted) {
        return Err("its token vectors are multiplied by another factor".to_owned());
    }
    if family.head == GgufHead::Table && !is_tied {
        return Err("its output head is another table than that of token vectors".to_owned());
    }
    if architecture.head.soft_cap.is_some() != family.soft_caps {
        return Err(caps(family, "logits"));
    }
    if architecture.head.factor.is_some() && family.factors == GgufFactors::None {
        return Err("its logits are multiplied by a factor".to_owned());
    }
    if architecture.head.bias != family.head_bias {
        return Err(match family.head_bias {
            true => "its output head has no bias, which llama.cpp's has".to_owned(),
            false => "its output head has a bias".to_owned(),
        });
    }
    Ok(())
}

fn caps(family: &GgufFamily, of: &str) -> String {
    match family.soft_caps {
        true => format!("it does not cap {of}, which llama.cpp always does"),
        false => format!("it caps {of}, which llama.cpp does not"),
    }
}

fn is_near(found: Option<f64>, wanted: Option<f64>) -> bool {
    match (found, wanted) {
        (None, None) => true,
        (Some(a), Some(b)) => (a - b).abs() <= 1e-6 * b.abs(),
        _ => false,
    }
}

fn check_block(
    family: &GgufFamily,
    architecture: &Architecture,
    block: &BlockSpec,
) -> Result<(), String> {
    let (attention, feed_forward) = (&block.attention, &block.feed_forward);
    if family
        .parallel
        .is_some_and(|parallel| parallel != block.parallel)
    {
        return Err(match block.parallel {
            true => "both halves read the input of the block".to_owned(),
            false => "its halves follow one another, which llama.cpp's do not".to_owned(),
        });
    }
    if block.parallel && block.feed_forward_norms.before.is_some() {
        return Err("both halves have a norm of the input of the block".to_owned());
    }
    let norms_heads = attention.q_norm.is_some() || attention.k_norm.is_some();
    if norms_heads && !family.head_norms {
        return Err("it has norms of heads, which llama.cpp does not read".to_owned());
    }
    if attention.norm_weights != HeadWeights::Shared {
        return Err("its norms of heads have weights for each".to_owned());
    }
    if attention.clip.is_some() && !family.clips {
        return Err("queries, keys and values are kept within bounds".to_owned());
    }
    if attention.grouped {
        return Err("queries, keys and values lie head by head in one layer".to_owned());
    }
    let halves = [&block.attention_norms, &block.feed_forward_norms];
    let has_factor = halves.iter().any(|half| half.factor.is_some());
    if has_factor && family.factors != GgufFactors::All {
        return Err("what a half adds is multiplied by a factor".to_owned());
    }
    let scale = (family.scale)(architecture);
    if family.factors != GgufFactors::All && !is_near(Some(attention.scale), Some(scale)) {
        let found = attention.scale;
        return Err(format!(
            "scores are multiplied by {found}, by llama.cpp with {scale}"
        ));
    }
    if attention.soft_cap.is_some() != family.soft_caps {
        return Err(caps(family, "scores"));
    }
    if family.square_queries && attention.n_heads * attention.head_dim != architecture.width {
        return Err("its queries are not as wide as its hidden states".to_owned());
    }
    check_experts(family, feed_forward)?;
    if feed_forward.activation != family.activation {
        return Err("its activation function is another than llama.cpp's".to_owned());
    }
    let biases = family.biases;
    let has = |wanted: Option<bool>, found: bool| wanted.is_none_or(|wanted| wanted == found);
    let inputs = &attention.inputs;
    let layers = feed_forward.inputs.iter().chain([&feed_forward.output]);
    let fits = inputs.iter().all(|layer| has(biases.inputs, layer.bias))
        && has(biases.output, attention.output.bias)
        && layers
            .clone()
            .all(|layer| has(biases.feed_forward, layer.bias));
    if !fits {
        return Err("llama.cpp knows other biases of its layers".to_owned());
    }
    let mut layers = layers.chain(inputs).chain([&attention.output]);
    if layers.any(|layer| layer.stored.is_some()) {
        return Err("its layers are stored under names of torch's own".to_owned());
    }
    let norms = [&block.attention_norms, &block.feed_forward_norms];
    if norms.iter().any(|norms| norms.after.is_some()) || block.cross.is_some() {
        return Err("it has norms or layers that llama.cpp does not have".to_owned());
    }
    Ok(())
}

fn check_experts(family: &GgufFamily, layer: &FeedForwardSpec) -> Result<(), String> {
    let (found, wanted) = match (&layer.experts, family.experts) {
        (None, None) => return Ok(()),
        (Some(_), None) => return Err("its feed-forward layer has experts".to_owned()),
        (None, Some(_)) => {
            return Err("its feed-forward layer has no experts, and llama.cpp's all do".to_owned());
        }
        (Some(found), Some(wanted)) => (found, wanted),
    };
    if found.normalize != wanted.normalize {
        return Err(match found.normalize {
            true => "the weights of a token's experts sum to one, which llama.cpp's do not",
            false => {
                "the weights of a token's experts are probabilities, and llama.cpp's sum to one"
            }
        }
        .to_owned());
    }
    let Some(shared) = &found.shared else {
        return match wanted.shared {
            true => Err("it lacks the expert of all tokens".to_owned()),
            false => Ok(()),
        };
    };
    let own = &shared.feed_forward;
    let mut layers = own.inputs.iter().chain([&own.output, &shared.gate]);
    let is_plain = own.activation == family.activation && own.inputs.len() == 2;
    match wanted.shared && is_plain && layers.all(|layer| !layer.bias && !layer.transposed) {
        true => Ok(()),
        false => Err("llama.cpp has no such expert of all tokens".to_owned()),
    }
}

/// What a file says once for all layers.
fn check_alike(first: &BlockSpec, block: &BlockSpec) -> Result<(), String> {
    let sizes = |block: &BlockSpec| {
        let attention = &block.attention;
        let heads = [attention.n_heads, attention.n_kv_heads, attention.head_dim];
        let experts = block.feed_forward.experts.as_ref().map(|experts| {
            let shared = experts.shared.as_ref();
            let shared = shared.map(|shared| shared.feed_forward.output.d_in);
            (experts.n_experts, experts.per_token, shared)
        });
        (heads, block.feed_forward.output.d_in, experts)
    };
    let numbers = |block: &BlockSpec| {
        let AttentionSpec {
            soft_cap,
            clip,
            scale,
            ..
        } = &block.attention;
        (*soft_cap, *clip, *scale)
    };
    let factors = |block: &BlockSpec| {
        let halves = [&block.attention_norms, &block.feed_forward_norms];
        halves.map(|half| half.factor)
    };
    let [own, other] = factors(block);
    let is_alike = numbers(first) == numbers(block) && factors(first) == factors(block);
    match sizes(first) == sizes(block) && is_alike && own == other {
        true => Ok(()),
        false => Err("its sizes or factors are others than those of the first layer".to_owned()),
    }
}

/// Which layers rotate queries and keys.
fn check_rotation(family: &GgufFamily, architecture: &Architecture) -> Result<(), String> {
    if architecture.embedding.positions.is_some() {
        return Ok(());
    }
    for (layer, block) in architecture.blocks.iter().enumerate() {
        let is_last = family
            .unrotated
            .is_some_and(|group| (layer + 1).is_multiple_of(group));
        if block.attention.rotary.is_some() == is_last {
            return Err(format!(
                "layer {layer} rotates where llama.cpp does not, or the other way around"
            ));
        }
    }
    Ok(())
}

/// Norms share what they add to the mean square.
fn check_norms(architecture: &Architecture) -> Result<(), String> {
    let Some(last) = &architecture.norm else {
        return Err("it has no norm after its blocks".to_owned());
    };
    let of_block = |block: &BlockSpec| {
        let halves = [&block.attention_norms, &block.feed_forward_norms];
        let around = halves.map(|norms| [norms.before.clone(), norms.inside.clone()]);
        let heads = [
            block.attention.q_norm.clone(),
            block.attention.k_norm.clone(),
        ];
        around
            .into_iter()
            .flatten()
            .chain(heads)
            .flatten()
            .collect::<Vec<NormSpec>>()
    };
    let mut norms = architecture.blocks.iter().flat_map(of_block);
    match norms.any(|norm| norm.eps != last.eps || norm.kind != last.kind) {
        true => Err("its norms are of different kinds".to_owned()),
        false => Ok(()),
    }
}

/// What the windows of the layers come to.
fn windows(family: &GgufFamily, architecture: &Architecture) -> Result<Windows, String> {
    let most = architecture.max_positions;
    let blocks = architecture.blocks.iter();
    // A window that reaches over the whole context is none.
    let windows = blocks.map(|block| block.attention.window.filter(|window| *window < most));
    let windows: Vec<Option<usize>> = windows.collect();
    let mut found = Windows {
        context: most,
        settings: Vec::new(),
        sliding: None,
        notes: Vec::new(),
    };
    let (group, is_optional) = match family.windows {
        GgufWindows::None => {
            if let Some(window) = windows.iter().flatten().min() {
                found.context = *window;
                found.notes.push(format!(
                    "layers see at most {window} tokens, and in llama.cpp all of them: the file says a context of {window} tokens, up to \
                     which both are the same"
                ));
            }
            return Ok(found);
        }
        GgufWindows::Groups {
            layers, optional, ..
        } => (layers, optional),
    };
    // Layers with a window may have rotary positions of their own, also where the window reaches over all.
    let own = |block: &BlockSpec| block.attention.rotary.is_some_and(|kind| kind > 0);
    let sliding: Vec<bool> = architecture
        .blocks
        .iter()
        .zip(&windows)
        .map(|(block, window)| window.is_some() || own(block))
        .collect();
    let mut sizes = windows.iter().flatten();
    let size = sizes.next().copied();
    if sizes.any(|other| Some(*other) != size) {
        return Err("its layers have windows of different sizes".to_owned());
    }
    let is_plain = !sliding.contains(&true);
    if is_plain && is_optional {
        return Ok(found);
    }
    // With a window as long as the context it does not matter which layers have it.
    let count = |number: usize| GgufValue::U32(u32::try_from(number).unwrap_or(u32::MAX));
    found
        .settings
        .push(("attention.sliding_window", count(size.unwrap_or(most))));
    if is_plain && architecture.rotary.len() < 2 {
        return Ok(found);
    }
    let fits = |group: usize| {
        let mut layers = sliding.iter().enumerate();
        layers.all(|(layer, slides)| *slides == (layer % group < group - 1))
    };
    let groups = std::iter::once(group).chain(1..=sliding.len() + 1);
    match groups.into_iter().find(|group| fits(*group)) {
        None => return Err("its layers with a window follow no period".to_owned()),
        Some(own) if own != group => {
            found
                .settings
                .push(("attention.sliding_window_pattern", count(own)));
        }
        Some(_) => {}
    }
    found.sliding = Some(sliding);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_relatively() {
        assert!(is_near(Some(1.0 + 1e-9), Some(1.0)));
        assert!(!is_near(Some(1.1), Some(1.0)));
        assert!(!is_near(None, Some(1.0)));
    }
}
