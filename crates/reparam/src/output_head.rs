//! The role of an output head.

use std::ops::Deref;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

use crate::walk::container;

/// A layer that makes a model's outputs of its hidden states: logits of tokens, or of classes.
///
/// It adds nothing to paths. `target_modules = "all-linear"` leaves it out, as PEFT leaves out the output embeddings and the
/// heads of classifiers.
///
/// ```
/// use burn::module::Module;
/// use burn::tensor::{Device, Tensor};
/// use reparam::methods::linear_modules;
/// use reparam::{Linear, OutputHead};
///
/// #[derive(Module, Debug)]
/// struct Net {
///     inner: Linear,
///     logits: OutputHead<Linear>,
/// }
///
/// let linear = || Linear::new(Tensor::<2>::ones([3, 3], &Device::flex()), None);
/// let net = Net { inner: linear(), logits: OutputHead(linear()) };
/// let found = linear_modules(&net);
/// assert_eq!(found[1].path, "logits");
/// assert!(found[1].is_output_head && !found[0].is_output_head);
/// ```
#[derive(Debug, Clone)]
pub struct OutputHead<M>(pub M);

impl<M> Deref for OutputHead<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

/// The name that Burn is given for the container; the walk over parameters drops it.
const NAME: &str = "output_head";

impl<M: Module> Module for OutputHead<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.0.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self(self.0.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        Self(self.0.to_device(device))
    }

    fn train(self) -> Self {
        Self(self.0.train())
    }

    fn valid(&self) -> Self {
        Self(self.0.valid())
    }

    fn materialize(self) -> Self {
        Self(self.0.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.enter_module(NAME, container::OUTPUT_HEAD);
        self.0.visit(visitor);
        visitor.exit_module(NAME, container::OUTPUT_HEAD);
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        mapper.enter_module(NAME, container::OUTPUT_HEAD);
        let mapped = Self(self.0.map(mapper));
        mapper.exit_module(NAME, container::OUTPUT_HEAD);
        mapped
    }
}

impl<M: ModuleDisplay> ModuleDisplayDefault for OutputHead<M> {
    fn content(&self, content: Content) -> Option<Content> {
        self.0.content(content)
    }
}

impl<M: ModuleDisplay> ModuleDisplay for OutputHead<M> {}
