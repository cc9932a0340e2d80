//! What a method is: its settings, how it starts on a layer, and what it makes of the layer.

use std::fmt::Debug;
use std::sync::Arc;

use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam_ops::LinearPlan;
use reparam_ops::fused::PackedWeight;
use serde_json::{Map, Value};

use super::{AdapterMeta, LinearModule, MethodSpec, Result, Selection, Theta};
use crate::ForwardContext;

/// The settings of a method.
///
/// A method is a file with one type of settings that implements this, a type that implements [`Method`], and a
/// [`MethodSpec`]; [`Methods`](super::Methods) lists the spec.
pub trait MethodConfig: Debug + Send + Sync {
    /// Returns what the program knows about the method.
    fn spec(&self) -> &'static MethodSpec;

    /// Returns which layers it is attached to.
    fn selection(&self) -> &Selection;

    /// Replaces the selection.
    fn with_selection(&self, selection: Selection) -> Arc<dyn MethodConfig>;

    /// Checks the settings, and that they have an effect on the selected layers.
    ///
    /// # Errors
    ///
    /// Fails when a setting is out of range or changes nothing.
    fn check(&self, _layers: &[&LinearModule]) -> Result<()> {
        Ok(())
    }

    /// Returns the tensors that all layers share, such as VeRA's projections.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    fn shared(&self, _layers: &[&LinearModule], _place: &Place<'_>) -> Result<Vec<NewTensor>> {
        Ok(Vec::new())
    }

    /// Starts on one layer.
    ///
    /// # Errors
    ///
    /// Fails when the layer does not suit, such as a row without a direction for weight normalization.
    fn start(&self, layer: &Layer<'_>) -> Result<Start>;

    /// Returns the setting that decides how many numbers are made on these layers, and how many that are at least; `None` if the
    /// layers alone decide. A run that surely does not fit is refused with it before they are made.
    ///
    /// # Errors
    ///
    /// Fails when a setting cannot be used.
    fn least_numbers(&self, _layers: &[&LinearModule]) -> Result<Option<(&'static str, u128)>> {
        Ok(None)
    }

    /// Returns whether the effective weight is what is trained, so that descent on theta is descent on the weight.
    fn is_identity(&self) -> bool {
        false
    }

    /// Returns whether the caller goes on with an initialization from data, layer by layer.
    fn starts_from_data(&self) -> bool {
        false
    }

    /// Returns the constant that multiplies the trained part of layers without a pattern of their own, if there is one.
    fn scaling(&self) -> Option<f64> {
        None
    }

    /// Returns what is worth knowing of an adapter with these settings, by name, besides its modules.
    ///
    /// # Errors
    ///
    /// Fails when a setting cannot be used.
    fn properties(&self) -> Result<Vec<(&'static str, Value)>> {
        Ok(Vec::new())
    }

    /// Returns PEFT's `adapter_config.json`, if PEFT has the method.
    fn peft_config(&self, _meta: &AdapterMeta) -> Option<Map<String, Value>> {
        None
    }
}

/// The functions of [`MethodConfig`] that every type of settings has alike: its spec, and the selection in a field.
macro_rules! selected {
    ($spec:expr, $($field:ident).+) => {
        fn spec(&self) -> &'static MethodSpec {
            &$spec
        }

        fn selection(&self) -> &Selection {
            &self.$($field).+
        }

        fn with_selection(&self, selection: Selection) -> Arc<dyn MethodConfig> {
            let mut config = self.clone();
            config.$($field).+ = selection;
            Arc::new(config)
        }
    };
}
pub(super) use selected;

/// What a method makes of one layer. Weights are `[d_out, d_in]` here, whatever the layer stores.
pub trait Method: Debug + Send + Sync {
    /// Returns the effective weight, differentiable in the base and in theta.
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2>;

    /// Returns the effective bias. Asked only if the start says that the method acts on it.
    fn bias(&self, base: Tensor<1>, _theta: &Theta<'_>) -> Tensor<1> {
        base
    }

    /// Returns how the layer runs without forming the effective weight; `None` if it has to be formed.
    fn plan(
        &self,
        _base: &Base<'_>,
        _theta: &Theta<'_>,
        _context: &ForwardContext,
    ) -> Option<LinearPlan> {
        None
    }

    /// Returns rows of the effective weight, of those of the stored one, `[N, d_in]`, and their numbers: what a table looks up
    /// without forming all of it; `None` if the weight has to be formed.
    fn rows(&self, _base: Tensor<2>, _ids: &[u32], _theta: &Theta<'_>) -> Option<Tensor<2>> {
        None
    }

    /// Returns the numbers of the rows that are trained, if that is what the method does.
    fn trained_rows(&self) -> Option<&[u32]> {
        None
    }

    /// Returns whether training passes drop out a part of the layer's input, which no effective weight expresses.
    fn has_dropout(&self) -> bool {
        false
    }
}

/// The stored weight of a layer, `[d_out, d_in]`.
#[derive(Debug, Clone, Copy)]
pub enum Base<'a> {
    /// A tensor.
    Dense(&'a Tensor<2>),
    /// Packed numbers.
    Packed(&'a PackedWeight),
}

/// Where new tensors are made, and from which seed.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// The device, without autodiff.
    pub device: &'a Device,
    /// The type of the numbers.
    pub dtype: DType,
    /// What random values are drawn from, with the tensor's name.
    pub seed: u64,
}

impl Place<'_> {
    /// Makes a tensor of given values.
    pub fn tensor<const D: usize>(&self, values: Vec<f32>, dims: [usize; D]) -> Tensor<D> {
        let data = TensorData::new(values, dims).convert_dtype(self.dtype);
        Tensor::from_data(data, (self.device, self.dtype))
    }
}

/// A layer that a method starts on.
pub struct Layer<'a> {
    /// The layer.
    pub module: &'a LinearModule,
    /// Outputs.
    pub d_out: usize,
    /// Inputs.
    pub d_in: usize,
    /// Where new tensors are made.
    pub place: Place<'a>,
    pub(super) base: &'a dyn Fn() -> Tensor<2>,
}

impl Layer<'_> {
    /// Returns the weight that the method starts from, `[d_out, d_in]`, without autodiff: what is stored, or what the
    /// methods before this one make of it.
    pub fn base(&self) -> Tensor<2> {
        (self.base)()
    }
}

/// How a method starts on one layer.
#[derive(Debug)]
pub struct Start {
    /// The method on this layer.
    pub method: Arc<dyn Method>,
    /// What takes the place of the stored weight, `[d_out, d_in]` without autodiff, and is trained; `None` if the stored
    /// weight stays, frozen.
    pub base: Option<Tensor<2>>,
    /// The tensors beside the layer.
    pub tensors: Vec<NewTensor>,
    /// Whether the method acts on the layer's bias.
    pub acts_on_bias: bool,
    /// The rank of its low-rank part, for methods that have one.
    pub rank: Option<usize>,
    /// The constant that multiplies its trained part, for methods that have one.
    pub scaling: Option<f64>,
}

impl Start {
    /// A start with a frozen base and nothing else.
    pub fn new(method: impl Method + 'static) -> Self {
        Self {
            method: Arc::new(method),
            base: None,
            tensors: Vec::new(),
            acts_on_bias: false,
            rank: None,
            scaling: None,
        }
    }

    /// Trains `base` in place of the stored weight.
    pub fn with_base(self, base: Tensor<2>) -> Self {
        Self {
            base: Some(base),
            ..self
        }
    }

    /// Adds a tensor.
    pub fn with(mut self, tensor: NewTensor) -> Self {
        self.tensors.push(tensor);
        self
    }
}

/// A new tensor of a method, without autodiff.
#[derive(Debug, Clone)]
pub struct NewTensor {
    pub(super) name: String,
    pub(super) value: NewValue,
    pub(super) is_trained: bool,
}

#[derive(Debug, Clone)]
pub(super) enum NewValue {
    Vector(Tensor<1>),
    Matrix(Tensor<2>),
}

impl NewTensor {
    /// A trained vector; `name` is that in gradients, states and files, beside the layer.
    pub fn vector(name: impl Into<String>, value: Tensor<1>) -> Self {
        Self {
            name: name.into(),
            value: NewValue::Vector(value),
            is_trained: true,
        }
    }

    /// A trained matrix.
    pub fn matrix(name: impl Into<String>, value: Tensor<2>) -> Self {
        Self {
            name: name.into(),
            value: NewValue::Matrix(value),
            is_trained: true,
        }
    }

    /// Returns its name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns its shape.
    pub(super) fn shape(&self) -> Vec<usize> {
        match &self.value {
            NewValue::Vector(tensor) => tensor.dims().to_vec(),
            NewValue::Matrix(tensor) => tensor.dims().to_vec(),
        }
    }

    /// Gives it other values, as many as it has.
    pub(super) fn with_values(self, values: Vec<f64>, options: (&Device, DType)) -> Self {
        let value = match self.value {
            NewValue::Vector(tensor) => {
                let data = TensorData::new(values, tensor.dims());
                NewValue::Vector(Tensor::from_data(data, options))
            }
            NewValue::Matrix(tensor) => {
                let data = TensorData::new(values, tensor.dims());
                NewValue::Matrix(Tensor::from_data(data, options))
            }
        };
        Self { value, ..self }
    }

    /// Keeps it from being trained.
    pub fn frozen(self) -> Self {
        Self {
            is_trained: false,
            ..self
        }
    }
}
