//! Numbers of a method that are not trained, in sight of a visitor.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::Device;

/// A number that shapes an effective weight and is no parameter.
///
/// Burn shows a visitor the parameters of a method and the names on the way to them, but neither
/// the method itself nor its other fields. A method that is to be composed with another one later
/// has to be taken apart and put together again; so this type puts its value among the names, as
/// a part of the tree that holds no parameter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Constant(pub f64);

/// What [`Constant`] calls its container.
pub(super) const CONSTANT: &str = "Constant";

impl Module for Constant {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        // A number prints as the shortest text that reads back as the same one.
        let value = self.0.to_string();
        visitor.enter_module(&value, CONSTANT);
        visitor.exit_module(&value, CONSTANT);
    }

    fn map<M: ModuleMapper>(self, _mapper: &mut M) -> Self {
        self
    }

    fn to_device(self, _device: &Device) -> Self {
        self
    }

    fn fork(self, _device: &Device) -> Self {
        self
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        devices
    }

    fn materialize(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        *self
    }

    fn train(self) -> Self {
        self
    }
}

impl ModuleDisplayDefault for Constant {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&self.0).optional()
    }
}

impl ModuleDisplay for Constant {}
