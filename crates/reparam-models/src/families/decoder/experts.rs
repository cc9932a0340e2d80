//! Feed-forward layers with experts.

use reparam_formats::config::{ConfigError, JsonObject};

use super::super::unsupported;
use super::Decoder;
use crate::ModelError;
use crate::architecture::{ExpertsSpec, FeedForwardSpec, LinearSpec, SharedExpertSpec};

/// The most experts of a layer: eight times those of published models. A tensor is looked for for each.
const MOST_EXPERTS: usize = 4096;

/// What `config.json` says of the experts of all layers.
pub(in crate::families) struct ExpertSizes {
    pub(in crate::families) n_experts: usize,
    pub(in crate::families) per_token: usize,
    /// The width inside of an expert.
    pub(in crate::families) inner: usize,
    pub(in crate::families) normalize: bool,
}

/// How a family calls what layers with experts have.
pub(in crate::families) struct ExpertNames {
    /// What checkpoints call the place of router and experts; that of the module, `mlp`, if there is none.
    pub(in crate::families) place: Option<&'static str>,
    /// Gate, up and down of an expert.
    pub(in crate::families) layers: [&'static str; 3],
    /// See [`ExpertsSpec::taken_by_peft`].
    pub(in crate::families) taken_by_peft: bool,
}

impl ExpertNames {
    /// Those of Qwen.
    pub(in crate::families) const QWEN: Self = Self {
        place: None,
        layers: ["gate_proj", "up_proj", "down_proj"],
        taken_by_peft: false,
    };
}

/// Reads how many experts there are under one of the keys, and how many of them a token goes through.
pub(in crate::families) fn expert_counts(
    raw: &JsonObject,
    keys: &[&'static str],
    [experts, per_token]: [usize; 2],
) -> Result<[usize; 2], ModelError> {
    let found = keys.iter().copied().find(|key| raw.contains(key));
    let n_experts = match found {
        Some(key) => raw.required_size(key)?,
        None => experts,
    };
    if n_experts > MOST_EXPERTS {
        let reason = format!("the most is {MOST_EXPERTS}");
        let key = found.unwrap_or("num_experts");
        return Err(raw.invalid(key, reason).into());
    }
    let key = "num_experts_per_tok";
    let per_token = raw.size(key)?.unwrap_or(per_token);
    if per_token > n_experts {
        let reason = format!("there are {n_experts} experts");
        return Err(raw.invalid(key, reason).into());
    }
    Ok([n_experts, per_token])
}

/// Refuses the loss that balances experts: transformers adds it where the file asks for the router's logits.
pub(in crate::families) fn without_balancing(raw: &JsonObject) -> Result<(), ModelError> {
    let key = "output_router_logits";
    let is_asked = raw.bool(key)?.unwrap_or(false);
    let coefficient = raw.f64("router_aux_loss_coef")?;
    match is_asked && coefficient != Some(0.0) {
        true => Err(unsupported(key, "true", "false")),
        false => Ok(()),
    }
}

/// Reads which layers have experts: those of every `decoder_sparse_step`, but for `mlp_only_layers`.
pub(in crate::families) fn sparse_layers(
    raw: &JsonObject,
    n_layers: usize,
) -> Result<Vec<bool>, ConfigError> {
    let step = raw.size("decoder_sparse_step")?.unwrap_or(1);
    let key = "mlp_only_layers";
    let dense = raw.f64s(key)?.unwrap_or_default();
    let is_number = |layer: &f64| layer.fract() == 0.0 && *layer >= 0.0;
    if !dense.iter().all(is_number) {
        return Err(raw.invalid(key, "it has to be a list of layers, counted from 0"));
    }
    let layers = (0..n_layers).map(|layer| {
        let is_dense = dense.contains(&(layer as f64));
        !is_dense && (layer + 1).is_multiple_of(step)
    });
    Ok(layers.collect())
}

impl Decoder<'_> {
    /// Makes a feed-forward layer one with experts.
    pub(in crate::families) fn with_experts(
        &self,
        layer: usize,
        sizes: &ExpertSizes,
        names: &ExpertNames,
        feed_forward: &mut FeedForwardSpec,
    ) {
        let path = self.path(layer, "mlp.experts");
        let (width, inner) = (self.width, sizes.inner);
        let joined = inner.saturating_mul(2);
        feed_forward.inputs = vec![LinearSpec::new(
            format!("{path}.gate_up_proj"),
            width,
            joined,
        )];
        feed_forward.output = LinearSpec::new(format!("{path}.down_proj"), inner, width);
        let stored = names.place.map(|place| {
            [
                self.path(layer, &format!("{place}.gate.weight")),
                self.path(layer, &format!("{place}.experts")),
            ]
        });
        feed_forward.experts = Some(ExpertsSpec {
            n_experts: sizes.n_experts,
            per_token: sizes.per_token,
            normalize: sizes.normalize,
            router: self.linear(layer, "mlp.gate", [width, sizes.n_experts], false),
            path,
            stored,
            names: names.layers,
            taken_by_peft: names.taken_by_peft,
            shared: None,
        });
    }

    /// An expert of that width which all tokens go through.
    pub(in crate::families) fn shared_expert(
        &self,
        layer: usize,
        inner: usize,
        dense: &FeedForwardSpec,
    ) -> SharedExpertSpec {
        let width = self.width;
        let linear = |name: &str, sizes| {
            self.linear(layer, &format!("mlp.shared_expert.{name}"), sizes, false)
        };
        SharedExpertSpec {
            feed_forward: FeedForwardSpec {
                inputs: vec![
                    linear("gate_proj", [width, inner]),
                    linear("up_proj", [width, inner]),
                ],
                output: linear("down_proj", [inner, width]),
                experts: None,
                ..dense.clone()
            },
            gate: self.linear(layer, "mlp.shared_expert_gate", [width, 1], false),
        }
    }
}
