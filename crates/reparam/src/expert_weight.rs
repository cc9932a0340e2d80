//! The weights of several experts as one parameter.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, Tensor};
use reparam_ops::fused::packed_expert_linear;
use reparam_ops::{ExpertRows, LinearPlan, expert_linear};

use crate::methods::{self, Base};
use crate::walk::container;
use crate::{ForwardContext, Weight};

/// The weights of several experts, one below the other, `[E d_out, d_in]`: one parameter, as transformers holds them.
///
/// No linear layer, so `target_modules` does not reach it; `target_parameters` does, by the path of the parameter. It adds
/// nothing to paths.
#[derive(Debug, Clone)]
pub struct ExpertWeight {
    /// `[E d_out, d_in]`.
    pub weight: Weight,
    n_experts: usize,
}

impl ExpertWeight {
    /// Takes the weights of so many experts.
    ///
    /// # Panics
    ///
    /// Panics when there is no expert, or the rows are not as many for each.
    pub fn new(weight: Weight, n_experts: usize) -> Self {
        let [rows, _] = weight.dims();
        assert!(
            n_experts > 0 && (rows.is_multiple_of(n_experts) || rows == 1),
            "{rows} rows of {n_experts} experts"
        );
        Self { weight, n_experts }
    }

    /// Returns the number of experts.
    pub fn n_experts(&self) -> usize {
        self.n_experts
    }

    /// Applies to each row the layer of its expert, by the plan of what is attached.
    ///
    /// # Shapes
    ///
    /// - x: `[P, d_in]`, output: `[P, d_out]`
    ///
    /// # Panics
    ///
    /// Panics when the plan of what is attached is more than one low-rank term: a method that has `target_parameters` among its settings
    /// makes no other.
    pub fn forward(&self, x: Tensor<2>, rows: &ExpertRows, context: &ForwardContext) -> Tensor<2> {
        let one = |plan: LinearPlan| {
            let LinearPlan {
                input_scale,
                low_rank,
                output_scale,
            } = plan;
            let mut terms = low_rank.into_iter();
            let first = terms.next();
            let is_all = terms.next().is_none() && input_scale.is_none() && output_scale.is_none();
            assert!(is_all, "experts have one low-rank term, and no scales");
            first
        };
        if let Some(packed) = self.weight.as_packed() {
            let attached = self.weight.attached();
            let plan = attached
                .map(|attached| attached.packed_plan(Base::Packed(packed), context))
                .unwrap_or_default();
            return packed_expert_linear(x, packed, one(plan), rows);
        }
        let (weight, plan) = methods::planned(self.weight.param(), context);
        expert_linear(x, weight, one(plan), rows)
    }

    fn with(self, change: impl FnOnce(Weight) -> Weight) -> Self {
        Self {
            weight: change(self.weight),
            n_experts: self.n_experts,
        }
    }
}

impl Module for ExpertWeight {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.weight.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        self.with(|weight| weight.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.with(|weight| weight.to_device(device))
    }

    fn train(self) -> Self {
        self.with(Module::train)
    }

    fn valid(&self) -> Self {
        self.clone().with(|weight| weight.valid())
    }

    fn materialize(self) -> Self {
        self.with(Module::materialize)
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        let n_experts = self.n_experts.to_string();
        visitor.enter_module(&n_experts, container::EXPERTS);
        Module::visit(&self.weight, visitor);
        visitor.exit_module(&n_experts, container::EXPERTS);
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        let n_experts = self.n_experts.to_string();
        mapper.enter_module(&n_experts, container::EXPERTS);
        let mapped = self.with(|weight| Module::map(weight, mapper));
        mapper.exit_module(&n_experts, container::EXPERTS);
        mapped
    }
}

impl ModuleDisplayDefault for ExpertWeight {
    fn content(&self, content: Content) -> Option<Content> {
        self.weight.content(content)
    }
}

impl ModuleDisplay for ExpertWeight {}
