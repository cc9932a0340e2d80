//! Methods on one parameter, as the module that Burn sees.

use std::sync::Arc;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param, ParamId, Reparameterization,
};
use burn::tensor::{Device, GradientCheckpointingStrategy, Shape, Tensor};
use reparam_ops::LinearPlan;

use super::method::{Base, Method, NewTensor, NewValue};
use crate::ForwardContext;
use crate::walk::{container, on_graph};

/// The name that Burn puts before the tensors of what is attached.
pub(crate) const FRAME: &str = "reparam";

/// What is attached to a weight or a bias: a list of methods, each applied to what those before it return.
///
/// The only type of this crate that implements Burn's [`Reparameterization`]; what it does is said by the
/// [`Method`]s in it. The bias of a layer carries the same tensors as its weight, under the same ids.
#[derive(Debug, Clone)]
pub struct Attached {
    pub(super) part: PartOfLayer,
    /// Whether the layer stores its weight `[d_in, d_out]`.
    pub(super) is_transposed: bool,
    /// What the stored weight is called under the methods, if it has a name of its own.
    pub(super) base_name: Option<&'static str>,
    pub(super) methods: Vec<OnLayer>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartOfLayer {
    Weight,
    Bias,
}

/// One method with its tensors.
#[derive(Debug, Clone)]
pub(super) struct OnLayer {
    pub(super) kind: &'static str,
    pub(super) method: Arc<dyn Method>,
    pub(super) tensors: Vec<NamedParam>,
}

#[derive(Debug, Clone)]
pub(super) struct NamedParam {
    pub(super) name: String,
    pub(super) is_shared: bool,
    pub(super) value: Value,
}

#[derive(Debug, Clone)]
pub(super) enum Value {
    Vector(Param<Tensor<1>>),
    Matrix(Param<Tensor<2>>),
}

impl NamedParam {
    pub(super) fn new(
        tensor: NewTensor,
        is_shared: bool,
        strategy: Option<GradientCheckpointingStrategy>,
    ) -> Self {
        fn param<const D: usize>(
            tensor: Tensor<D>,
            is_trained: bool,
            strategy: Option<GradientCheckpointingStrategy>,
        ) -> Param<Tensor<D>> {
            Param::from_tensor(on_graph(tensor, strategy)).set_require_grad(is_trained)
        }
        let NewTensor {
            name,
            value,
            is_trained,
        } = tensor;
        let value = match value {
            NewValue::Vector(tensor) => Value::Vector(param(tensor, is_trained, strategy)),
            NewValue::Matrix(tensor) => Value::Matrix(param(tensor, is_trained, strategy)),
        };
        Self {
            name,
            is_shared,
            value,
        }
    }
}

/// The tensors of a method on one layer.
#[derive(Debug, Clone, Copy)]
pub struct Theta<'a> {
    tensors: &'a [NamedParam],
}

impl<'a> Theta<'a> {
    pub(super) fn of(tensors: &'a [NamedParam]) -> Self {
        Self { tensors }
    }
}

impl Theta<'_> {
    /// Returns a matrix by its name.
    ///
    /// # Panics
    ///
    /// Panics when the method did not start with such a matrix.
    pub fn matrix(&self, name: &str) -> Tensor<2> {
        match self.find(name) {
            Some(Value::Matrix(param)) => param.val(),
            _ => panic!("the method has no matrix `{name}`"),
        }
    }

    /// Returns a vector by its name.
    ///
    /// # Panics
    ///
    /// Panics when the method did not start with such a vector.
    pub fn vector(&self, name: &str) -> Tensor<1> {
        match self.find(name) {
            Some(Value::Vector(param)) => param.val(),
            _ => panic!("the method has no vector `{name}`"),
        }
    }

    /// Returns whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<&Value> {
        let mut tensors = self.tensors.iter();
        tensors
            .find(|tensor| tensor.name == name)
            .map(|tensor| &tensor.value)
    }
}

impl OnLayer {
    /// Returns the id of a tensor that no other layer has, if there is one.
    fn own_id(&self) -> Option<ParamId> {
        let own = self.tensors.iter().find(|tensor| !tensor.is_shared)?;
        Some(match &own.value {
            Value::Vector(param) => param.id,
            Value::Matrix(param) => param.id,
        })
    }

    pub(super) fn theta(&self) -> Theta<'_> {
        Theta {
            tensors: &self.tensors,
        }
    }
}

impl Attached {
    /// Returns the names of the methods, the one next to the stored weight first.
    pub fn kinds(&self) -> impl Iterator<Item = &'static str> {
        self.methods.iter().map(|on_layer| on_layer.kind)
    }

    /// Returns the effective weight of a stored one, both `[d_out, d_in]`.
    pub(super) fn effective(&self, base: Tensor<2>) -> Tensor<2> {
        self.methods.iter().fold(base, |weight, on_layer| {
            on_layer.method.weight(weight, &on_layer.theta())
        })
    }

    /// Returns rows of the effective weight, of those of the stored one, `[N, d_in]`, and their numbers; `None` if the weight has to
    /// be formed.
    pub fn rows(&self, base: Tensor<2>, ids: &[u32]) -> Option<Tensor<2>> {
        match self.methods.as_slice() {
            [on_layer] => on_layer.method.rows(base, ids, &on_layer.theta()),
            _ => None,
        }
    }

    /// Returns the numbers of the rows that are trained, if that is what is attached.
    pub(super) fn trained_rows(&self) -> Option<&[u32]> {
        match self.methods.as_slice() {
            [on_layer] => on_layer.method.trained_rows(),
            _ => None,
        }
    }

    /// Returns the plan of the layer: that of a single method.
    fn plan(&self, base: &Base<'_>, context: &ForwardContext) -> Option<LinearPlan> {
        match self.methods.as_slice() {
            [on_layer] => context.plan(on_layer.own_id(), || {
                on_layer.method.plan(base, &on_layer.theta(), context)
            }),
            _ => None,
        }
    }

    /// Returns the plan over a packed weight.
    ///
    /// # Panics
    ///
    /// Panics when there is none: such a method cannot be attached to a packed weight.
    pub(crate) fn packed_plan(&self, base: Base<'_>, context: &ForwardContext) -> LinearPlan {
        self.plan(&base, context)
            .unwrap_or_else(|| panic!("{:?} has no plan", self.kinds().collect::<Vec<_>>()))
    }

    /// [`planned`](super::planned) of the stored weight in the layer's own order.
    pub(super) fn planned(
        &self,
        base: Tensor<2>,
        context: &ForwardContext,
    ) -> (Tensor<2>, LinearPlan) {
        let base = self.oriented(base);
        match self.plan(&Base::Dense(&base), context) {
            Some(plan) => (base, plan),
            None => (self.effective(base), LinearPlan::default()),
        }
    }

    /// Turns a weight from the layer's order to `[d_out, d_in]`, or back.
    pub(super) fn oriented(&self, weight: Tensor<2>) -> Tensor<2> {
        if self.is_transposed {
            weight.transpose()
        } else {
            weight
        }
    }

    fn map_tensors(
        self,
        mut vector: impl FnMut(Param<Tensor<1>>) -> Param<Tensor<1>>,
        mut matrix: impl FnMut(Param<Tensor<2>>) -> Param<Tensor<2>>,
    ) -> Self {
        let methods = self.methods.into_iter().map(|on_layer| OnLayer {
            tensors: on_layer
                .tensors
                .into_iter()
                .map(|tensor| NamedParam {
                    value: match tensor.value {
                        Value::Vector(param) => Value::Vector(vector(param)),
                        Value::Matrix(param) => Value::Matrix(matrix(param)),
                    },
                    ..tensor
                })
                .collect(),
            ..on_layer
        });
        Self {
            methods: methods.collect(),
            ..self
        }
    }
}

impl Reparameterization for Attached {
    const NAME: &'static str = FRAME;

    /// Returns the effective weight or bias, in the layer's order.
    ///
    /// Dropout acts on the layer's input and has no place in an effective weight: this is that of
    /// inference.
    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        let shape = base.shape();
        match self.part {
            PartOfLayer::Weight => {
                assert_eq!(D, 2, "a method is attached to matrices");
                let matrix = base.reshape([shape[0], shape[1]]);
                let effective = self.effective(self.oriented(matrix));
                self.oriented(effective).reshape(shape)
            }
            PartOfLayer::Bias => {
                let bias: Tensor<1> = base.reshape(Shape::from([shape.num_elements()]));
                let bias = self.methods.iter().fold(bias, |bias, on_layer| {
                    on_layer.method.bias(bias, &on_layer.theta())
                });
                bias.reshape(shape)
            }
        }
    }
}

impl Module for Attached {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        let base = self.base_name.map(|name| (name, container::BASE));
        let is_transposed = self.is_transposed;
        let transposed = is_transposed.then_some(("transposed", container::TRANSPOSED));
        let listed = self.kinds().map(|kind| (kind, container::LISTED));
        // What is known of the weight is said before the first tensor.
        for (name, kind) in base.into_iter().chain(transposed).chain(listed) {
            visitor.enter_module(name, kind);
            visitor.exit_module(name, kind);
        }
        for row in self.trained_rows().unwrap_or_default() {
            let name = row.to_string();
            visitor.enter_module(&name, container::ROW);
            visitor.exit_module(&name, container::ROW);
        }
        for on_layer in &self.methods {
            visitor.enter_module(on_layer.kind, container::METHOD);
            for tensor in &on_layer.tensors {
                let kind = tensor.container();
                visitor.enter_module(&tensor.name, kind);
                match &tensor.value {
                    Value::Vector(param) => Module::visit(param, visitor),
                    Value::Matrix(param) => Module::visit(param, visitor),
                }
                visitor.exit_module(&tensor.name, kind);
            }
            visitor.exit_module(on_layer.kind, container::METHOD);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let methods = self.methods.into_iter().map(|on_layer| {
            mapper.enter_module(on_layer.kind, container::METHOD);
            let mut tensors = Vec::with_capacity(on_layer.tensors.len());
            for tensor in on_layer.tensors {
                let kind = tensor.container();
                mapper.enter_module(&tensor.name, kind);
                let value = match tensor.value {
                    Value::Vector(param) => Value::Vector(Module::map(param, mapper)),
                    Value::Matrix(param) => Value::Matrix(Module::map(param, mapper)),
                };
                mapper.exit_module(&tensor.name, kind);
                tensors.push(NamedParam { value, ..tensor });
            }
            mapper.exit_module(on_layer.kind, container::METHOD);
            OnLayer {
                tensors,
                ..on_layer
            }
        });
        Self {
            methods: methods.collect(),
            ..self
        }
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_tensors(
            |param| param.to_device(device),
            |param| param.to_device(device),
        )
    }

    fn fork(self, device: &Device) -> Self {
        self.map_tensors(|param| param.fork(device), |param| param.fork(device))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        let tensors = self.methods.iter().flat_map(|on_layer| &on_layer.tensors);
        tensors.fold(devices, |devices, tensor| match &tensor.value {
            Value::Vector(param) => param.collect_devices(devices),
            Value::Matrix(param) => param.collect_devices(devices),
        })
    }

    fn materialize(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
            .map_tensors(|param| param.valid(), |param| param.valid())
    }

    fn train(self) -> Self {
        self.map_tensors(Module::train, Module::train)
    }
}

impl NamedParam {
    fn container(&self) -> &'static str {
        if self.is_shared {
            container::SHARED
        } else {
            container::TENSOR
        }
    }
}

impl ModuleDisplayDefault for Attached {
    fn content(&self, content: Content) -> Option<Content> {
        let kinds: Vec<&str> = self.kinds().collect();
        content.add_formatted(&kinds.join(", ")).optional()
    }
}

impl ModuleDisplay for Attached {}
