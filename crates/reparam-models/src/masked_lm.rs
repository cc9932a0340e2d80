//! A body with the head of a masked language model.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use reparam::methods::planned;
use reparam::parameters::{self, ParameterList};
use reparam::{ForwardContext, Linear, OutputHead};
use reparam_formats::checkpoint::Checkpoint;
use reparam_ops::{LinearPlan, linear, linear_cross_entropy, segments_from_bounds};

use crate::architecture::{Architecture, LinearSpec, MaskedSpec};
use crate::layers::Norm;
use crate::loader::{Init, Loader};
use crate::named::{Named, unnamed_module};
use crate::precision::widened;
use crate::predictor::{RowTokens, is_of_heads, select};
use crate::transformer::{Tokens, Transformer};
use crate::{ModelError, Precision};

/// What is added to logits.
#[derive(Module, Debug)]
pub struct Bias {
    /// `[vocab]`.
    pub bias: Param<Tensor<1>>,
}

/// A model that says what stood where tokens are masked, as a [`MaskedSpec`] says.
#[derive(Debug, Clone)]
pub struct MaskedLm {
    /// Everything but the head.
    pub body: Transformer,
    /// The layer before the product with the table.
    pub transform: Named<Linear>,
    /// The norm behind it.
    pub norm: Option<Named<Norm>>,
    /// The table of token vectors, if it is another than that of the embedding.
    pub decoder: Option<Named<OutputHead<Linear>>>,
    /// What is added to the logits.
    pub bias: Named<Bias>,
    spec: MaskedSpec,
    /// Whether `decoder` is a copy of the embedding's table, which is packed.
    is_copy: bool,
}

unnamed_module!(
    MaskedLm,
    modules: [body, transform, norm, decoder, bias],
    data: [spec, is_copy]
);

impl MaskedLm {
    /// Loads a model onto a device, frozen.
    ///
    /// A stored table that differs from that of the embedding is used, as in [`CausalLm::load`](crate::CausalLm::load). The head is
    /// f32 in every precision; where the table is packed, the head has a copy of it.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoSuchHead`] if the family has no such class; fails when the checkpoint's tensors are not exactly those of the
    /// description, or one of them holds NaN or infinity.
    pub fn load(
        checkpoint: &Checkpoint,
        architecture: Architecture,
        (device, precision): (&Device, Precision),
    ) -> Result<Self, ModelError> {
        let spec = Self::head_of(&architecture)?;
        let architecture = Arc::new(architecture);
        let mut loader = Loader::new(checkpoint, device, precision, &architecture.prefix);
        let (_, table) = architecture.head_names();
        let stored = format!("{}.weight", spec.decoder);
        let is_own = loader.has(&stored) && !loader.are_equal(&stored, &table)?;
        let is_copy = precision != Precision::F32 && !is_own;
        if is_copy {
            loader.take_from(&stored, &table);
        }
        let ignored = |name: &str| {
            let mut buffers = architecture.buffers.iter();
            buffers.any(|end| name.ends_with(end)) || is_of_heads(name, &architecture)
        };
        let model = loader.load(&architecture.bias_keys, ignored, |loader| {
            Self::build(loader, &architecture, &spec, is_own || is_copy)
        })?;
        Ok(Self { is_copy, ..model }.no_grad())
    }

    /// Returns the path of the head where it is a copy of the embedding's table: no layer of the checkpoint.
    pub fn copy_path(&self) -> Option<String> {
        let decoder = self.decoder.as_ref().filter(|_| self.is_copy);
        decoder.map(|decoder| decoder.path().to_owned())
    }

    pub(crate) fn head_of(architecture: &Architecture) -> Result<MaskedSpec, ModelError> {
        let spec = architecture.heads.masked.clone();
        spec.ok_or_else(|| ModelError::NoSuchHead {
            model_type: architecture.model_type.clone(),
            head: "masked language model",
        })
    }

    /// Asks a loader for the parts.
    pub(crate) fn build(
        loader: &mut Loader<'_>,
        architecture: &Arc<Architecture>,
        spec: &MaskedSpec,
        has_own_table: bool,
    ) -> Result<Self, ModelError> {
        let body = Transformer::load(loader, architecture, &architecture.prefix)?;
        let (width, vocab_size) = (architecture.table_width(), architecture.vocab_size);
        let norm = spec.transform.norm.as_ref();
        let transform = loader.dense(|loader| loader.linear(&spec.transform.linear));
        let norm = norm.map(|norm| loader.norm(norm));
        let table = LinearSpec::new(spec.decoder, width, vocab_size);
        let bias = Bias {
            bias: loader.parameter(&format!("{}.bias", spec.bias), [vocab_size], Init::Zeros),
        };
        Ok(Self {
            body,
            transform,
            norm,
            decoder: has_own_table.then(|| loader.dense(|loader| loader.head(&table))),
            bias: Named::new(spec.bias, bias),
            spec: spec.clone(),
            is_copy: false,
        })
    }

    /// Returns what the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.body.architecture
    }

    /// Returns the class of transformers.
    pub fn class(&self) -> &'static str {
        self.spec.class
    }

    /// Returns the effective weights under the names of transformers.
    pub fn to_tensors(&self) -> ParameterList {
        self.architecture().stored(parameters::effective(self))
    }

    /// Returns the logits of the tokens at these places of the batch, `[places, vocab]`.
    pub fn logits_at(
        &self,
        rows: RowTokens<'_>,
        places: &[usize],
        context: &ForwardContext,
    ) -> Tensor<2> {
        let h = self.transformed(rows, places, context);
        let (table, plan) = self.table(context);
        linear(h, table, plan) + self.bias.bias.val().unsqueeze::<2>()
    }

    /// Returns the scaled sum of the negative log-likelihoods of what stood at these places of the batch, `[1]`.
    ///
    /// # Cost
    ///
    /// That of [`linear_cross_entropy`] over the places, of a table with one more column, for the bias, so that it is copied once.
    pub fn loss(
        &self,
        rows: RowTokens<'_>,
        (places, stood): (&[usize], &[u32]),
        scale: f32,
        context: &ForwardContext,
    ) -> Tensor<1> {
        let h = self.transformed(rows, places, context);
        let (table, plan) = self.table(context);
        let labels: Vec<i32> = stood.iter().map(|token| *token as i32).collect();
        let bias = Some(self.bias.bias.val());
        linear_cross_entropy(h, (table, bias), plan, None, &labels, scale)
    }

    /// The table that hidden states are multiplied with, with the plan of what is attached.
    fn table(&self, context: &ForwardContext) -> (Tensor<2>, LinearPlan) {
        let weight = match &self.decoder {
            Some(decoder) => &decoder.weight,
            None => &self.body.tokens.weight,
        };
        planned(weight.param(), context)
    }

    fn transformed(
        &self,
        rows: RowTokens<'_>,
        places: &[usize],
        context: &ForwardContext,
    ) -> Tensor<2> {
        let tokens = Tokens {
            ids: rows.input_ids,
            positions: rows.position_ids,
            types: Some(rows.token_type_ids),
        };
        let segments = segments_from_bounds(rows.bounds);
        let h = self.body.forward(tokens, segments, None, context);
        let h = select(self.body.normalized(h), places.iter().copied());
        let h = widened(h);
        let h = self.transform.forward(h, context);
        let h = self.spec.transform.activation.apply(h);
        match &self.norm {
            Some(norm) => norm.forward(h),
            None => h,
        }
    }
}
