//! Heads: what a model gives besides hidden states.

use reparam_ops::{Activation, activation};

use burn::tensor::Tensor;

use super::{LinearSpec, NormSpec};

/// The heads of a family, by what they are for; `None` where the family has no such class.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HeadsSpec {
    /// Of a whole sequence: its class.
    pub sequence: Option<PredictorSpec>,
    /// Of each token: its class.
    pub token: Option<PredictorSpec>,
    /// Of each token: whether a span begins and whether it ends there.
    pub span: Option<PredictorSpec>,
    /// Of each token: what stood where it is masked.
    pub masked: Option<MaskedSpec>,
    /// How the names of tensors begin that belong to any of them, in a class with a head. A checkpoint may hold those of heads
    /// that it is not opened with.
    pub names: Vec<&'static str>,
}

impl HeadsSpec {
    pub(super) fn dropouts(&mut self) -> impl Iterator<Item = &mut Option<f64>> {
        let predictors = [&mut self.sequence, &mut self.token, &mut self.span];
        let predictors = predictors.into_iter().flatten();
        predictors.flat_map(|head| [&mut head.input_dropout, &mut head.dropout])
    }
}

/// A head of one number an output:
///
/// ```text
/// y = output(dropout(transform(input_dropout(pooled h))))
/// ```
///
/// What a head does not have is left out; one that has neither layer is of the class without a head.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictorSpec {
    /// The class of transformers, as in `architectures`.
    pub class: &'static str,
    /// Which hidden states it is of.
    pub pooling: Pooling,
    /// The probability of the dropout of its input; `None` if the family has none there.
    pub input_dropout: Option<f64>,
    /// What is before the last layer.
    pub transform: Option<TransformSpec>,
    /// The probability of the dropout before the last layer; `None` if the family has none there.
    pub dropout: Option<f64>,
    /// The path of the last layer, in the class with the head; without one, the outputs are what comes before it.
    pub output: Option<String>,
    /// Whether outputs are scaled to a length of 1.
    pub normalize: bool,
    /// The standard deviation of the weights of new layers.
    pub std: f64,
    /// The modules that PEFT saves whole beside an adapter, those that the head is made of.
    pub saved: Vec<&'static str>,
}

/// Which hidden states a head is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// That of the first token.
    First,
    /// The mean over the tokens of a sequence.
    Mean,
    /// Where recurrent layers end: of the first `forward` numbers those of the last token, of the rest, which come from reading
    /// backwards, those of the first token.
    Last {
        /// How many numbers come from reading forwards.
        forward: usize,
    },
    /// Each one.
    Each,
}

/// A layer before the last one of a head: `norm(act(linear(x)))`.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformSpec {
    /// The layer.
    pub linear: LinearSpec,
    /// Whether its path is inside of the body's class.
    pub in_body: bool,
    /// The function.
    pub activation: HeadActivation,
    /// The norm, whose path is where that of the layer is.
    pub norm: Option<NormSpec>,
}

/// What is applied in a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeadActivation {
    /// The hyperbolic tangent.
    Tanh,
    /// `max(x, 0)`
    Relu,
    /// One that blocks have, too.
    Of(Activation),
}

impl PredictorSpec {
    /// Returns the head of a model whose pooled hidden states are its outputs: no layer at all, of the class without a head.
    pub fn pooled(pooling: Pooling, normalize: bool) -> Self {
        Self {
            class: "",
            pooling,
            input_dropout: None,
            transform: None,
            dropout: None,
            output: None,
            normalize,
            std: 0.0,
            saved: Vec::new(),
        }
    }
}

impl HeadActivation {
    pub(crate) fn apply(self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Tanh => x.tanh(),
            Self::Relu => burn::tensor::activation::relu(x),
            Self::Of(function) => activation(x, function),
        }
    }
}

/// The head of a masked language model: `logits = transform(h) E' + bias`, `E` the table of token vectors.
#[derive(Debug, Clone, PartialEq)]
pub struct MaskedSpec {
    /// The class of transformers, as in `architectures`.
    pub class: &'static str,
    /// What is before the product.
    pub transform: TransformSpec,
    /// The path of the layer with the table and the bias; a checkpoint may have copies of both there.
    pub decoder: &'static str,
    /// The path of the module that the bias is stored in, as transformers saves it.
    pub bias: &'static str,
}
