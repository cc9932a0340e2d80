//! Modules under the names of a checkpoint.
//!
//! Burn's derived modules are named as the fields that hold them. Here one struct serves all families, so a name is data: what
//! holds parameters is [`Named`], and what holds modules adds no name.

use std::ops::{Deref, Range};
use std::sync::Arc;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;

/// A module with its whole path.
#[derive(Debug, Clone)]
pub struct Named<M> {
    path: Arc<str>,
    /// The module.
    pub module: M,
}

impl<M> Named<M> {
    /// Puts a module at a path, whose names are joined by dots.
    pub fn new(path: impl Into<Arc<str>>, module: M) -> Self {
        Self {
            path: path.into(),
            module,
        }
    }

    /// Returns the path.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl<M> Deref for Named<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.module
    }
}

/// What Burn is told to be the kind of the containers on the way to a module.
const CONTAINER: &str = "Named";

impl<M: Module> Module for Named<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.module.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|module| module.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|module| module.to_device(device))
    }

    fn train(self) -> Self {
        self.with(M::train)
    }

    fn valid(&self) -> Self {
        Self::new(self.path.clone(), self.module.valid())
    }

    fn materialize(self) -> Self {
        self.with(M::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for name in self.path.split('.') {
            visitor.enter_module(name, CONTAINER);
        }
        self.module.visit(visitor);
        for name in self.path.rsplit('.') {
            visitor.exit_module(name, CONTAINER);
        }
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        let path = self.path.clone();
        for name in path.split('.') {
            mapper.enter_module(name, CONTAINER);
        }
        let mapped = self.with(|module| module.map(mapper));
        for name in path.rsplit('.') {
            mapper.exit_module(name, CONTAINER);
        }
        mapped
    }
}

impl<M> Named<M> {
    fn with(self, change: impl FnOnce(M) -> M) -> Self {
        Self {
            path: self.path,
            module: change(self.module),
        }
    }
}

/// Modules one after the other.
#[derive(Debug, Clone)]
pub struct List<M>(pub Vec<M>);

impl<M> Deref for List<M> {
    type Target = [M];

    fn deref(&self) -> &[M] {
        &self.0
    }
}

impl<M: Module> List<M> {
    fn with(self, change: impl FnMut(M) -> M) -> Self {
        Self(self.0.into_iter().map(change).collect())
    }
}

impl<M: Module> Module for List<M> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        let modules = self.iter();
        modules.fold(devices, |devices, module| module.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|module| module.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|module| module.to_device(device))
    }

    fn train(self) -> Self {
        self.with(M::train)
    }

    fn valid(&self) -> Self {
        Self(self.iter().map(M::valid).collect())
    }

    fn materialize(self) -> Self {
        self.with(M::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.iter().for_each(|module| module.visit(visitor));
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        self.with(|module| module.map(mapper))
    }
}

/// Makes a struct a module that adds no name: `modules` in order, and `data` that is none.
macro_rules! unnamed_module {
    ($type:ident, modules: [$($module:ident),*], data: [$($data:ident),*]) => {
        impl burn::module::Module for $type {
            fn collect_devices(
                &self,
                devices: burn::module::Devices,
            ) -> burn::module::Devices {
                $(let devices = self.$module.collect_devices(devices);)*
                devices
            }

            fn fork(self, device: &burn::tensor::Device) -> Self {
                Self { $($module: self.$module.fork(device),)* $($data: self.$data,)* }
            }

            fn to_device(self, device: &burn::tensor::Device) -> Self {
                Self { $($module: self.$module.to_device(device),)* $($data: self.$data,)* }
            }

            fn train(self) -> Self {
                Self { $($module: self.$module.train(),)* $($data: self.$data,)* }
            }

            fn valid(&self) -> Self {
                Self { $($module: self.$module.valid(),)* $($data: self.$data.clone(),)* }
            }

            fn materialize(self) -> Self {
                Self { $($module: self.$module.materialize(),)* $($data: self.$data,)* }
            }

            fn visit<V: burn::module::ModuleVisitor>(&self, visitor: &mut V) {
                $(burn::module::Module::visit(&self.$module, visitor);)*
            }

            fn map<T: burn::module::ModuleMapper>(self, mapper: &mut T) -> Self {
                Self {
                    $($module: burn::module::Module::map(self.$module, mapper),)*
                    $($data: self.$data,)*
                }
            }
        }
    };
}
pub(crate) use unnamed_module;

/// Returns the columns of parts that lie side by side.
pub(crate) fn side_by_side<const N: usize>(widths: [usize; N]) -> [Range<usize>; N] {
    let mut start = 0;
    widths.map(|width| {
        start += width;
        start - width..start
    })
}
