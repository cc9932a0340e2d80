//! A weight as its layer stores it.

use std::ops::Range;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param, ParamId, Reparameterizer,
};
use burn::tensor::{DType, Device, Shape, Tensor, TensorData};
use reparam_ops::fused::{FusedLinear, PackedWeight};
use thiserror::Error;

use crate::ForwardContext;
use crate::methods::{Attached, Base};

/// A weight `[rows, columns]`: a tensor, or numbers packed for the fused operations.
///
/// Methods attach to either. Who reads the numbers has to say which kind is meant: [`Weight::dense`] is an error for
/// a packed weight, and [`Weight::rows_f32`] decodes on purpose.
#[derive(Debug, Clone)]
pub enum Weight {
    /// An ordinary parameter.
    Dense(Param<Tensor<2>>),
    /// Frozen and packed.
    Packed(Packed),
}

/// A packed weight and the parameter that stands for it among Burn's traits.
#[derive(Debug, Clone)]
pub struct Packed {
    weight: PackedWeight,
    /// Has id, shape and what is attached; its values are decoded only by who asks Burn for them.
    anchor: Param<Tensor<2>>,
}

/// A packed weight was read as if it were a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the weight of shape [{}, {}] is packed and has no tensor", dims[0], dims[1])]
pub struct PackedError {
    /// The weight's shape.
    pub dims: [usize; 2],
}

impl PackedError {
    /// Says what to do about it.
    pub fn hint(&self) -> String {
        "load the model in f32, or decode the rows that are needed with `rows_f32`".into()
    }
}

impl Weight {
    /// Takes packed numbers; `device` is where the layer's other tensors are.
    pub fn packed(weight: PackedWeight, device: &Device) -> Self {
        Self::Packed(Packed::new(weight, ParamId::new(), device.clone(), None))
    }

    /// Returns the same numbers as a frozen weight of its own, with nothing attached.
    pub fn with_own_id(&self) -> Self {
        match self {
            Self::Dense(param) => {
                let weight = Param::from_tensor(param.base());
                Self::Dense(weight.set_require_grad(false))
            }
            Self::Packed(packed) => Self::packed(packed.weight.clone(), &packed.device()),
        }
    }

    /// Returns `[rows, columns]`.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(param) => {
                let shape = param.lazy_shape();
                [shape[0], shape[1]]
            }
            Self::Packed(packed) => packed.weight.dims(),
        }
    }

    /// Returns the parameter to which methods are attached.
    pub fn param(&self) -> &Param<Tensor<2>> {
        match self {
            Self::Dense(param) => param,
            Self::Packed(packed) => &packed.anchor,
        }
    }

    /// Returns the effective weight.
    ///
    /// # Errors
    ///
    /// [`PackedError`] for a packed weight.
    pub fn dense(&self) -> Result<Tensor<2>, PackedError> {
        match self {
            Self::Dense(param) => Ok(param.val()),
            Self::Packed(_) => Err(PackedError { dims: self.dims() }),
        }
    }

    /// Returns the packed numbers, if that is what they are.
    pub fn as_packed(&self) -> Option<&PackedWeight> {
        match self {
            Self::Dense(_) => None,
            Self::Packed(packed) => Some(&packed.weight),
        }
    }

    /// Returns stored rows, row-major: for norms, starts from singular vectors, a merge.
    ///
    /// # Panics
    ///
    /// Panics when the range is beyond the rows.
    pub fn rows_f32(&self, range: Range<usize>) -> Vec<f32> {
        match self {
            Self::Dense(param) => {
                let rows = param.base().inner().narrow(0, range.start, range.len());
                rows.into_data().iter::<f32>().collect()
            }
            Self::Packed(packed) => packed.weight.rows_f32(range),
        }
    }

    /// Returns the device of what is computed with the weight.
    pub fn device(&self) -> Device {
        self.param().lazy_device()
    }

    /// Returns the type of what is computed with the weight: bf16 if it is packed.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(param) => param.base().dtype(),
            Self::Packed(_) => DType::BF16,
        }
    }

    /// Returns a linear layer without a bias that has this weight, as fused operations take it, with the plan of what is attached.
    ///
    /// `None` if the weight is an ordinary parameter.
    pub fn fused(&self, context: &ForwardContext) -> Option<FusedLinear> {
        let weight = self.as_packed()?;
        let plan = self
            .attached()
            .map(|attached| attached.packed_plan(Base::Packed(weight), context));
        Some(FusedLinear {
            weight: weight.clone(),
            bias: None,
            plan: plan.unwrap_or_default(),
        })
    }

    /// Returns what is attached.
    pub fn attached(&self) -> Option<&Attached> {
        self.param().reparameterization::<Attached>()
    }
}

fn decode(weight: &PackedWeight, device: &Device) -> Tensor<2> {
    let [rows, cols] = weight.dims();
    let data = TensorData::new(weight.rows_f32(0..rows), [rows, cols]);
    Tensor::from_data(data, device)
}

impl From<Tensor<2>> for Weight {
    fn from(tensor: Tensor<2>) -> Self {
        Self::Dense(Param::from_tensor(tensor))
    }
}

impl Packed {
    fn new(weight: PackedWeight, id: ParamId, device: Device, attached: Option<Attached>) -> Self {
        let shape = Shape::from(weight.dims());
        let numbers = weight.clone();
        let decode = move |device: &Device, _| decode(&numbers, device);
        let anchor = Param::uninitialized(id, decode, device, false, shape);
        Self {
            weight,
            anchor: anchor.apply_reparameterization(Put(attached)),
        }
    }

    /// Returns the numbers.
    pub fn weight(&self) -> &PackedWeight {
        &self.weight
    }

    /// Returns the device of what is computed with them.
    pub fn device(&self) -> Device {
        self.anchor.lazy_device()
    }

    /// The same with an anchor of its own: clones of an anchor share what one of them decodes.
    fn fresh(&self) -> Self {
        self.rebuild(|device| device, |attached| attached)
    }

    /// Changes device and what is attached, and leaves the numbers as they are: Burn's own functions would decode them.
    fn rebuild(
        &self,
        device: impl FnOnce(Device) -> Device,
        attached: impl FnOnce(Attached) -> Attached,
    ) -> Self {
        let old = self.anchor.reparameterization::<Attached>().cloned();
        Self::new(
            self.weight.clone(),
            self.anchor.id,
            device(self.anchor.lazy_device()),
            old.map(attached),
        )
    }
}

/// Attaches something to the one parameter that it is applied to.
struct Put(Option<Attached>);

impl Reparameterizer for Put {
    type Reparam = Attached;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Attached>) {
        (param, self.0.take())
    }
}

impl Module for Weight {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        Module::visit(self.param(), visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(Module::map(param, mapper)),
            Self::Packed(packed) => {
                let Packed { weight, anchor } = packed.fresh();
                let anchor = Module::map(anchor, mapper);
                let mapped = Packed { weight, anchor };
                // What a method has decoded to start from is not kept.
                Self::Packed(if mapped.anchor.is_initialized() {
                    mapped.fresh()
                } else {
                    mapped
                })
            }
        }
    }

    fn to_device(self, device: &Device) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.to_device(device)),
            Self::Packed(packed) => {
                let moved = |attached: Attached| attached.to_device(device);
                Self::Packed(packed.rebuild(|_| device.clone(), moved))
            }
        }
    }

    fn fork(self, device: &Device) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.fork(device)),
            Self::Packed(packed) => {
                let forked = |attached: Attached| attached.fork(device);
                Self::Packed(packed.rebuild(|_| device.clone(), forked))
            }
        }
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.param().collect_devices(devices)
    }

    /// Folds what is attached into the weight; a packed one is decoded, since only a tensor has numbers to read.
    ///
    /// # Cost
    ///
    /// The weight as a tensor of `f32`. Of a whole model every packed weight is decoded, also those that nothing is attached to.
    fn materialize(self) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.materialize()),
            Self::Packed(packed) => Self::Dense(packed.fresh().anchor.materialize()),
        }
    }

    fn valid(&self) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(param.valid()),
            Self::Packed(packed) => {
                Self::Packed(packed.rebuild(Device::inner, |attached| attached.valid()))
            }
        }
    }

    fn train(self) -> Self {
        match self {
            Self::Dense(param) => Self::Dense(Module::train(param)),
            Self::Packed(packed) => Self::Packed(packed.rebuild(Device::autodiff, Module::train)),
        }
    }
}

impl ModuleDisplayDefault for Weight {
    fn content(&self, content: Content) -> Option<Content> {
        content
            .add_formatted(&format!("{:?}", self.dims()))
            .optional()
    }
}

impl ModuleDisplay for Weight {}
