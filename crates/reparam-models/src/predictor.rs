//! A body with a head that gives a sequence, or each of its tokens, some numbers: the logits of classes, or of the ends of a span.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use reparam::parameters::{self, ParameterList};
use reparam::{ForwardContext, Linear, OutputHead};
use reparam_formats::checkpoint::Checkpoint;
use reparam_formats::peft::is_inside;
use reparam_ops::segments_from_bounds;

use crate::architecture::{Architecture, LinearSpec, Pooling, PredictorSpec};
use crate::layers::{Norm, dropped};
use crate::loader::Loader;
use crate::named::{Named, unnamed_module};
use crate::precision::widened;
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

impl<'a> RowTokens<'a> {
    pub(crate) fn tokens(self) -> Tokens<'a> {
        Tokens {
            ids: self.input_ids,
            positions: self.position_ids,
            types: Some(self.token_type_ids),
        }
    }
}

/// The classes of rows or tokens, by index.
#[derive(Debug, Clone, Copy)]
pub enum ClassTargets<'a> {
    /// One class each.
    One(&'a [usize]),
    /// One class each, with what each row or token weighs.
    Weighted(&'a [usize], &'a [f32]),
    /// Any number of classes each.
    Several(&'a [Vec<usize>]),
}

/// The layers of a head that a checkpoint does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewHead {
    /// What their weights are drawn from.
    pub seed: u64,
    /// Whether the last layer is made although the checkpoint has one of its name: that of another class.
    pub replaces: bool,
}

/// A model that gives sequences or tokens a number for each of its outputs, as a [`PredictorSpec`] says.
#[derive(Debug, Clone)]
pub struct Predictor {
    /// Everything but the head.
    pub body: Transformer,
    /// The layer before the last one, where it is a part of the body.
    pub pooler: Option<Named<Linear>>,
    /// The layer before the last one, where it is a part of the head.
    pub transform: Option<Named<OutputHead<Linear>>>,
    /// The norm behind it.
    pub norm: Option<Named<Norm>>,
    /// The last layer.
    pub output: Option<Named<OutputHead<Linear>>>,
    /// What the head is.
    pub spec: PredictorSpec,
    /// The modules of the head that are trained whole: those that [`PredictorSpec::saved`] names, and those that were drawn.
    pub trained: Vec<String>,
}

unnamed_module!(Predictor, modules: [body, pooler, transform, norm, output], data: [spec, trained]);

impl Predictor {
    /// Loads a model onto a device, frozen. Layers of the head that the checkpoint does not have are drawn as transformers does; the
    /// head is f32 in every precision.
    ///
    /// # Errors
    ///
    /// [`ModelError::NoHead`] if the checkpoint has no last layer and none is to be made; fails when the checkpoint's tensors are not
    /// exactly those of the description, or one of them holds NaN or infinity.
    pub fn load(
        checkpoint: &Checkpoint,
        architecture: Architecture,
        (spec, n_outputs): (PredictorSpec, usize),
        new_head: Option<NewHead>,
        (device, precision): (&Device, Precision),
    ) -> Result<Self, ModelError> {
        let architecture = Arc::new(architecture);
        // The class without a head has no name for its body.
        let is_headless = spec.output.is_none() && spec.transform.is_none();
        let prefix: &str = if is_headless {
            ""
        } else {
            &architecture.prefix
        };
        let last = match &spec.transform {
            Some(transform) => transform.linear.d_out,
            None => architecture.width,
        };
        let output = spec.output.as_ref().map(|path| LinearSpec {
            bias: true,
            ..LinearSpec::new(path, last, n_outputs)
        });
        let new_head = match (&spec.output, new_head) {
            (None, _) => None,
            (Some(path), Some(new)) if new.replaces || !has_layer(checkpoint, path) => Some(new),
            (Some(path), None) if !has_layer(checkpoint, path) => {
                return Err(ModelError::NoHead { path: path.clone() });
            }
            (Some(_), _) => None,
        };
        let ignored = |name: &str| {
            let mut buffers = architecture.buffers.iter();
            buffers.any(|end| name.ends_with(end)) || is_of_heads(name, &architecture)
        };
        let loader = Loader::new(checkpoint, device, precision, &architecture.prefix);
        let loader = if is_headless {
            loader.without_prefix(&architecture.prefix)
        } else {
            loader
        };
        let built = loader.load(&architecture.bias_keys, ignored, |loader| {
            let body = Transformer::load(loader, &architecture, prefix)?;
            let layer = |loader: &mut Loader<'_>, of: &LinearSpec| {
                let path = loader.path(&of.path);
                let is_there = loader.has(&format!("{path}.weight"));
                let is_last = Some(&of.path) == spec.output.as_ref();
                match new_head.filter(|_| !is_there || is_last) {
                    None => Ok(loader.dense(|loader| loader.head(of))),
                    Some(_) => Err(path),
                }
            };
            let transform = spec.transform.as_ref().map(|transform| {
                loader.enter(if transform.in_body { prefix } else { "" });
                let linear = layer(loader, &transform.linear);
                let norm = transform.norm.as_ref().map(|norm| match &linear {
                    Ok(_) => Ok(loader.norm(norm)),
                    Err(_) => Err(loader.path(&norm.path)),
                });
                (linear, norm)
            });
            loader.enter("");
            let output = output.as_ref().map(|output| layer(loader, output));
            Ok((body, transform, output))
        })?;
        let (body, transform, stored) = built;
        let mut drawn = Vec::new();
        let mut draw = |layer: Result<Named<OutputHead<Linear>>, String>, of: &LinearSpec| {
            layer.unwrap_or_else(|path| {
                let seed = new_head.map_or(0, |new| new.seed);
                let linear = Linear::normal(of.d_in, of.d_out, spec.std, (seed, &path), device);
                let bias = linear.bias.clone().filter(|_| of.bias);
                drawn.push(path.clone());
                Named::new(path, OutputHead(Linear { bias, ..linear }))
            })
        };
        let (mut transformed, mut norm) = (None, None);
        if let (Some((linear, stored_norm)), Some(spec)) = (transform, &spec.transform) {
            transformed = Some(draw(linear, &spec.linear));
            norm = stored_norm
                .zip(spec.norm.as_ref())
                .map(|(stored, of)| stored.unwrap_or_else(|path| Norm::new(path, of, device)));
        }
        let output = stored.zip(output).map(|(stored, of)| draw(stored, &of));
        let is_drawn =
            |layer: &Named<OutputHead<Linear>>| drawn.iter().any(|path| path == layer.path());
        let is_new = transformed.as_ref().is_some_and(is_drawn);
        // A norm is drawn with its layer.
        drawn.extend(
            norm.iter()
                .filter(|_| is_new)
                .map(|norm| norm.path().to_owned()),
        );
        // A layer that was drawn belongs to the head, wherever it is.
        let in_body = spec.transform.as_ref().is_some_and(|spec| spec.in_body);
        let (pooler, transformed) = match transformed {
            Some(layer) if in_body && !is_new => {
                let path = layer.path().to_owned();
                (Some(Named::new(path, layer.module.0)), None)
            }
            other => (None, other),
        };
        let mut trained: Vec<String> = spec.saved.iter().map(|name| (*name).to_owned()).collect();
        for path in drawn {
            if !is_inside(&path, &trained) {
                trained.push(path);
            }
        }
        let model = Self {
            body,
            pooler,
            transform: transformed,
            norm,
            output,
            spec,
            trained,
        };
        Ok(model.no_grad())
    }

    /// Has the [head](Self::trained) trained too, beside what a method trains.
    #[must_use]
    pub fn with_trained_head(self) -> Self {
        let trained = &self.trained;
        let is_trained = |path: &str| is_inside(path, trained);
        Self {
            pooler: self.pooler.map(|layer| unfrozen(layer, is_trained)),
            transform: self.transform.map(|layer| unfrozen(layer, is_trained)),
            norm: self.norm.map(|norm| unfrozen(norm, is_trained)),
            output: self.output.map(|layer| unfrozen(layer, is_trained)),
            ..self
        }
    }

    /// Returns what the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.body.architecture
    }

    /// Returns the number of outputs.
    pub fn n_outputs(&self) -> usize {
        match (&self.output, self.before_last()) {
            (Some(layer), _) => layer.weight.dims()[0],
            (None, Some((_, layer))) => layer.weight.dims()[0],
            (None, None) => self.architecture().width,
        }
    }

    /// Returns the effective weights under the names of transformers.
    pub fn to_tensors(&self) -> ParameterList {
        self.architecture().stored(parameters::effective(self))
    }

    /// Returns the outputs of every row, `[R, n_outputs]`, or of every token, `[N, n_outputs]`: as the head pools.
    pub fn outputs(&self, rows: RowTokens<'_>, context: &ForwardContext) -> Tensor<2> {
        let h = self.hidden(rows, context);
        self.outputs_of(h, rows.bounds, context)
    }

    /// The outputs of every row or token, from the hidden states of all tokens.
    pub(crate) fn outputs_of(
        &self,
        h: Tensor<2>,
        bounds: &[usize],
        context: &ForwardContext,
    ) -> Tensor<2> {
        let pooled = match self.spec.pooling {
            Pooling::Each => h,
            Pooling::First => {
                let n_rows = bounds.len() - 1;
                select(h, bounds[..n_rows].iter().copied())
            }
            Pooling::Mean => means(h, bounds),
            Pooling::Last { forward } => ends(h, bounds, forward),
        };
        let outputs = self.head(pooled, context);
        match self.spec.normalize {
            true => normalized(outputs),
            false => outputs,
        }
    }

    /// The layer before the last one, with its path.
    fn before_last(&self) -> Option<(&str, &Linear)> {
        let pooler = self
            .pooler
            .as_ref()
            .map(|layer| (layer.path(), &layer.module));
        let transform = self.transform.as_ref();
        pooler.or(transform.map(|layer| (layer.path(), &layer.module.0)))
    }

    fn hidden(&self, rows: RowTokens<'_>, context: &ForwardContext) -> Tensor<2> {
        let segments = segments_from_bounds(rows.bounds);
        let h = self.body.forward(rows.tokens(), segments, None, context);
        widened(self.body.normalized(h))
    }

    fn head(&self, h: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let spec = &self.spec;
        let mut h = h;
        if let Some(output) = &self.output {
            // Named apart from that of the last layer.
            let input = format!("{}.input", output.path());
            h = dropped(h, spec.input_dropout, &input, context);
        }
        if let (Some((_, layer)), Some(of)) = (self.before_last(), &spec.transform) {
            h = of.activation.apply(layer.forward(h, context));
        }
        if let Some(norm) = &self.norm {
            h = norm.forward(h);
        }
        let Some(output) = &self.output else {
            return h;
        };
        let place = match self.before_last() {
            Some((path, _)) => path,
            None => output.path(),
        };
        let h = dropped(h, spec.dropout, place, context);
        output.forward(h, context)
    }
}

/// Returns whether a checkpoint has a layer.
fn has_layer(checkpoint: &Checkpoint, path: &str) -> bool {
    let name = format!("{path}.weight");
    checkpoint.names().any(|known| known == name)
}

/// Scales rows to a length of 1; one of zeros stays as it is.
pub fn normalized(x: Tensor<2>) -> Tensor<2> {
    let length = x.clone().powi_scalar(2).sum_dim(1).sqrt();
    x / length.clamp_min(1e-12)
}

fn unfrozen<M: Module>(module: Named<M>, is_trained: impl Fn(&str) -> bool) -> Named<M> {
    if !is_trained(module.path()) {
        return module;
    }
    let path = module.path().to_owned();
    Named::new(path, module.module.set_require_grad(true))
}

/// Returns whether a tensor belongs to a head, in a checkpoint of a class with a head or of the body alone.
pub(crate) fn is_of_heads(name: &str, architecture: &Architecture) -> bool {
    let in_body = format!("{}.", architecture.prefix);
    let mut names = architecture.heads.names.iter();
    names.any(|start| {
        let alone = start.strip_prefix(&in_body);
        name.starts_with(start) || alone.is_some_and(|start| name.starts_with(start))
    })
}

/// Takes rows of a matrix.
pub(crate) fn select(x: Tensor<2>, rows: impl Iterator<Item = usize>) -> Tensor<2> {
    let rows: Vec<i64> = rows.map(|row| row as i64).collect();
    let n = rows.len();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n]), &x.device());
    x.select(0, rows)
}

/// The mean of the hidden states of each sequence, `[R, d]`.
fn means(h: Tensor<2>, bounds: &[usize]) -> Tensor<2> {
    let means = bounds.windows(2).map(|pair| {
        let rows = h.clone().narrow(0, pair[0], pair[1] - pair[0]);
        rows.mean_dim(0)
    });
    Tensor::cat(means.collect(), 0)
}

/// The states in which both directions of a recurrent layer end, `[R, d]`.
fn ends(h: Tensor<2>, bounds: &[usize], forward: usize) -> Tensor<2> {
    let [_, width] = h.dims();
    let n_rows = bounds.len() - 1;
    let last = select(h.clone(), bounds[1..].iter().map(|end| end - 1));
    let last = last.slice([0..n_rows, 0..forward]);
    if forward == width {
        return last;
    }
    let first = select(h, bounds[..n_rows].iter().copied());
    Tensor::cat(vec![last, first.slice([0..n_rows, forward..width])], 1)
}

/// The logarithm of the probability of a class of each row, `[R, 1]`.
fn log_probabilities(logits: Tensor<2>, classes: &[usize]) -> Tensor<2> {
    let n_rows = classes.len();
    let classes: Vec<i64> = classes.iter().map(|class| *class as i64).collect();
    let classes = TensorData::new(classes, [n_rows, 1]);
    let classes = Tensor::<2, Int>::from_data(classes, &logits.device());
    activation::log_softmax(logits, 1).gather(1, classes)
}

/// Returns the scaled sum of the losses of rows or tokens, `[1]`: of one class each the cross-entropy, times the weight where there
/// is one; of several the mean over classes of the binary cross-entropy.
///
/// # Shapes
///
/// - logits: `[R, classes]`
/// - targets: one a row
///
/// # Panics
///
/// Panics unless there is a target for each row, with classes that there are.
pub fn class_loss(logits: Tensor<2>, targets: ClassTargets<'_>, scale: f32) -> Tensor<1> {
    let [n_rows, n_classes] = logits.dims();
    let device = logits.device();
    match targets {
        ClassTargets::One(classes) => log_probabilities(logits, classes).sum() * (-scale),
        ClassTargets::Weighted(classes, weights) => {
            let weights = TensorData::new(weights.to_vec(), [n_rows, 1]);
            let weights = weights.convert_dtype(logits.dtype());
            let weights = Tensor::<2>::from_data(weights, (&device, logits.dtype()));
            (log_probabilities(logits, classes) * weights).sum() * (-scale)
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

/// Returns the scaled sum over rows of the mean cross-entropy of the first and of the last token of a span, `[1]`.
///
/// ```text
/// loss = scale * sum_r ( -log softmax_r(y_start)[first_r] - log softmax_r(y_end)[last_r] ) / 2
/// ```
///
/// where the softmax is over the tokens of row `r`.
///
/// # Shapes
///
/// - logits: `[N, 2]`
/// - bounds: the cumulative starts of the rows
/// - spans: the places in their row of the first and the last token, one pair a row
///
/// # Panics
///
/// Panics unless there is a span for each row, inside of it.
pub fn span_loss(
    logits: Tensor<2>,
    bounds: &[usize],
    spans: &[(usize, usize)],
    scale: f32,
) -> Tensor<1> {
    let rows = bounds.windows(2).zip(spans).map(|(pair, (first, last))| {
        let row = logits.clone().narrow(0, pair[0], pair[1] - pair[0]);
        let log_probabilities = activation::log_softmax(row, 0);
        let first = log_probabilities.clone().slice([*first..first + 1, 0..1]);
        let last = log_probabilities.slice([*last..last + 1, 1..2]);
        (first + last).reshape([1])
    });
    let sum = rows.reduce(|sum, row| sum + row);
    sum.unwrap_or_else(|| unreachable!("a batch has rows")) * (-0.5 * scale)
}
