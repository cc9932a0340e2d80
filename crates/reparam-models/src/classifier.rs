//! A body with a sequence-classification head.

use std::sync::Arc;

use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use reparam::parameters::{self, ParameterList};
use reparam::{ForwardContext, Linear, OutputHead};
use reparam_formats::checkpoint::Checkpoint;
use reparam_ops::segments_from_bounds;

use crate::architecture::{Architecture, ClassifierSpec, LinearSpec};
use crate::layers::dropped;
use crate::loader::Loader;
use crate::named::{Named, unnamed_module};
use crate::transformer::{Tokens, Transformer};
use crate::{ModelError, Precision};

/// A flat batch of rows, each a sequence of tokens.
#[derive(Debug, Clone, Copy)]
pub struct RowTokens<'a> {
    /// The tokens of all rows, one after the other.
    pub input_ids: &'a [u32],
    /// Which text of a pair each token belongs to. A model without token types does not look at it.
    pub token_type_ids: &'a [u32],
    /// The position of each token in its row.
    pub position_ids: &'a [u32],
    /// The cumulative starts of the rows; the last entry is the number of tokens. No row is empty.
    pub bounds: &'a [usize],
}

/// The classes of rows, by index.
#[derive(Debug, Clone, Copy)]
pub enum ClassTargets<'a> {
    /// One class each.
    One(&'a [usize]),
    /// Any number of classes each.
    Several(&'a [Vec<usize>]),
}

/// The last layer of a checkpoint that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewHead {
    /// What its weights are drawn from.
    pub seed: u64,
}

/// A model that gives a row of tokens a logit for each class.
///
/// ```text
/// logits = classifier(dropout(tanh(pooler(h_first))))
/// ```
///
/// where `h_first` is the last hidden state of the row's first token.
#[derive(Debug, Clone)]
pub struct SequenceClassifier {
    /// Everything but the head.
    pub body: Transformer,
    /// The layer over the hidden state of the first token.
    pub pooler: Named<Linear>,
    /// The last layer.
    pub classifier: Named<OutputHead<Linear>>,
    head: ClassifierSpec,
}

unnamed_module!(SequenceClassifier, modules: [body, pooler, classifier], data: [head]);

impl SequenceClassifier {
    /// Loads a model onto a device, frozen. A last layer that the checkpoint does not have is made as transformers does.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoClassifier`], [`ModelError::NoHead`] if the checkpoint has no last layer and none is to be made, and
    /// [`ModelError::UnsupportedPrecision`]; fails when the checkpoint's tensors are not exactly those of the description, or
    /// one of them holds NaN or infinity.
    pub fn load(
        checkpoint: &Checkpoint,
        architecture: Architecture,
        n_classes: usize,
        new_head: Option<NewHead>,
        (device, precision): (&Device, Precision),
    ) -> Result<Self, ModelError> {
        let Some(head) = architecture.classifier.clone() else {
            let model_type = architecture.model_type;
            return Err(ModelError::NoClassifier { model_type });
        };
        if precision != Precision::F32 {
            return Err(ModelError::UnsupportedPrecision {
                model_type: architecture.model_type,
                precision,
            });
        }
        let architecture = Arc::new(architecture);
        let prefix = &architecture.prefix;
        let spec = LinearSpec {
            bias: true,
            ..LinearSpec::new(&head.path, head.pooler.d_out, n_classes)
        };
        let new_head = match (Self::has_head(checkpoint, &head), new_head) {
            (true, _) => None,
            (false, Some(new_head)) => Some(new_head),
            (false, None) => return Err(ModelError::NoHead { path: head.path }),
        };
        let ignored = |name: &str| {
            let is_buffer = architecture.buffers.iter().any(|end| name.ends_with(end));
            is_buffer || head.other_heads.iter().any(|start| name.starts_with(start))
        };
        let loader = Loader::new(checkpoint, device, precision, prefix);
        let built = loader.load(&architecture.bias_keys, ignored, |loader| {
            let body = Transformer::load(loader, &architecture, prefix)?;
            loader.enter(prefix);
            let pooler = loader.linear(&head.pooler);
            loader.enter("");
            let stored = match new_head {
                None => Ok(loader.head(&spec)),
                Some(new_head) => Err(new_head),
            };
            Ok((body, pooler, stored))
        })?;
        let (body, pooler, stored) = built;
        let classifier = stored.unwrap_or_else(|NewHead { seed }| {
            let place = (seed, head.path.as_str());
            let layer = Linear::normal(spec.d_in, n_classes, head.std, place, device);
            Named::new(head.path.as_str(), OutputHead(layer))
        });
        let model = Self {
            body,
            pooler,
            classifier,
            head,
        };
        Ok(burn::module::Module::no_grad(model))
    }

    /// Returns whether a checkpoint has the last layer.
    pub fn has_head(checkpoint: &Checkpoint, head: &ClassifierSpec) -> bool {
        let name = format!("{}.weight", head.path);
        checkpoint.names().any(|known| known == name)
    }

    /// Has the last layer trained too, beside what a method trains.
    #[must_use]
    pub fn with_trained_head(self) -> Self {
        let Self { classifier, .. } = self;
        let path = classifier.path().to_owned();
        let layer = burn::module::Module::set_require_grad(classifier.module, true);
        Self {
            classifier: Named::new(path, layer),
            ..self
        }
    }

    /// Returns what the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.body.architecture
    }

    /// Returns what the head is made of.
    pub fn head(&self) -> &ClassifierSpec {
        &self.head
    }

    /// Returns the number of classes.
    pub fn n_classes(&self) -> usize {
        let [n_classes, _] = self.classifier.weight.dims();
        n_classes
    }

    /// Returns the effective weights under the names of transformers.
    pub fn to_tensors(&self) -> ParameterList {
        parameters::effective(self)
    }

    /// Returns the logits of every row, `[R, n_classes]`.
    pub fn logits(&self, rows: RowTokens<'_>, context: &ForwardContext) -> Tensor<2> {
        let tokens = Tokens {
            ids: rows.input_ids,
            positions: rows.position_ids,
            types: Some(rows.token_type_ids),
        };
        let segments = segments_from_bounds(rows.bounds);
        let h = self.body.forward(tokens, segments, None, context);
        let h = self.body.normalized(h);
        let firsts: Vec<i64> = rows.bounds.iter().map(|start| *start as i64).collect();
        let n_rows = firsts.len() - 1;
        let firsts = TensorData::new(firsts[..n_rows].to_vec(), [n_rows]);
        let firsts = h
            .clone()
            .select(0, Tensor::<1, Int>::from_data(firsts, &h.device()));
        let pooled = self.pooler.forward(firsts, context).tanh();
        let pooled = dropped(pooled, self.head.dropout, self.pooler.path(), context);
        self.classifier.forward(pooled, context)
    }

    /// Returns the scaled sum of the losses of the rows, `[1]`: of one class each the cross-entropy, of several the mean over
    /// classes of the binary cross-entropy.
    ///
    /// # Panics
    ///
    /// Panics unless there is a target for each row, with classes that the model has.
    pub fn loss(
        &self,
        rows: RowTokens<'_>,
        targets: ClassTargets<'_>,
        scale: f32,
        context: &ForwardContext,
    ) -> Tensor<1> {
        let logits = self.logits(rows, context);
        let [n_rows, n_classes] = logits.dims();
        let device = logits.device();
        match targets {
            ClassTargets::One(classes) => {
                let classes: Vec<i64> = classes.iter().map(|class| *class as i64).collect();
                let classes = TensorData::new(classes, [n_rows, 1]);
                let classes = Tensor::<2, Int>::from_data(classes, &device);
                let log_probabilities = activation::log_softmax(logits, 1);
                log_probabilities.gather(1, classes).sum() * (-scale)
            }
            ClassTargets::Several(classes) => {
                let mut wanted = vec![0f32; n_rows * n_classes];
                for (row, classes) in classes.iter().enumerate() {
                    for class in classes {
                        wanted[row * n_classes + class] = 1.0;
                    }
                }
                let wanted = TensorData::new(wanted, [n_rows, n_classes]);
                let wanted = wanted.convert_dtype(logits.dtype());
                let wanted = Tensor::<2>::from_data(wanted, (&device, logits.dtype()));
                // log(1 + exp(z)) - y z, written so that nothing overflows.
                let small = (-logits.clone().abs()).exp();
                let loss = activation::relu(logits.clone()) + small.log1p() - logits * wanted;
                loss.sum() * (scale / n_classes as f32)
            }
        }
    }
}
