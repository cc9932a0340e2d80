//! The border between Burn tensors and kernel slices.
//!
//! The operations downcast to Flex directly instead of going through `#[backend_extension]`:
//! that macro has no optional tensors and one implementation per backend, while here every other
//! backend runs the same composition of Burn operations, and inputs such as the low-rank factors
//! are there or not.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, NodeGuard, Ops};
use burn::backend::flex::FlexTensor;
use burn::backend::{Autodiff, DispatchDevice, Flex};
use burn::tensor::{DType, Tensor, TensorData, bf16};
use half::slice::HalfFloatSliceExt;
use reparam_kernels::Bf16;

/// Returns whether the native form can run on a tensor.
///
/// A device with gradient checkpointing is left to the reference: Burn's retro-forward would have
/// to know how to run our operations again.
pub(crate) fn is_native<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && runs_kernels(tensor)
}

/// Returns whether kernels can run on a tensor's device.
pub(crate) fn runs_kernels<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device();
    let checkpointing = device
        .gradient_checkpointing_strategy()
        .is_some_and(|strategy| strategy != Default::default());
    !checkpointing && is_flex(device.as_dispatch())
}

fn is_flex(device: &DispatchDevice) -> bool {
    match device {
        DispatchDevice::Flex(_) => true,
        DispatchDevice::Autodiff(inner) => is_flex(inner),
        #[allow(
            unreachable_patterns,
            reason = "other backends exist behind Cargo features"
        )]
        _ => false,
    }
}

/// Returns the contiguous primitive of a tensor, without its place in the graph.
pub(crate) fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    tensor
        .inner()
        .try_into_primitive::<Flex>()
        .expect("the caller has checked that the tensor is on Flex")
        .to_contiguous()
}

/// Returns the contiguous primitive of a tensor and the guard of its node in the graph.
pub(crate) fn primitive_and_node<const D: usize>(tensor: Tensor<D>) -> (FlexTensor, NodeGuard) {
    let (primitive, node) = tensor
        .autodiff()
        .try_into_primitive::<Autodiff<Flex>>()
        .expect("the caller has checked that the tensor is on Flex")
        .into_parts();
    (primitive.to_contiguous(), node)
}

/// As [`primitive_and_node`], without a node for a tensor that wants no gradient.
pub(crate) fn primitive_and_tracked_node<const D: usize>(
    tensor: Tensor<D>,
) -> (FlexTensor, Option<NodeGuard>) {
    if tensor.is_tracked() {
        let (primitive, node) = primitive_and_node(tensor);
        (primitive, Some(node))
    } else {
        (primitive(tensor), None)
    }
}

/// Returns a node, or one that wants no gradient in place of none: an operation has a fixed number of them.
pub(crate) fn or_nothing(node: Option<NodeGuard>) -> NodeGuard {
    node.unwrap_or_else(|| {
        let nothing = Tensor::<1>::from_primitive::<Flex>(from_values(vec![0.0], [1]));
        primitive_and_node(nothing).1
    })
}

/// Returns the values of a contiguous `f32` primitive.
pub(crate) fn values(tensor: &FlexTensor) -> &[f32] {
    tensor
        .as_slice::<f32>()
        .expect("native operations hold contiguous f32 tensors only")
}

/// Returns the numbers of a contiguous bf16 primitive.
pub(crate) fn halves(tensor: &FlexTensor) -> &[Bf16] {
    let values = tensor
        .as_slice::<bf16>()
        .expect("the caller has checked that the tensor is bf16");
    Bf16::from_bits_slice(values.reinterpret_cast())
}

/// Returns the numbers of a contiguous bf16 primitive for writing; they are copied first if someone else holds them.
pub(crate) fn halves_mut(tensor: &mut FlexTensor) -> &mut [Bf16] {
    let (start, len) = (
        tensor.layout().start_offset(),
        tensor.layout().num_elements(),
    );
    let storage = &mut tensor.storage_mut::<bf16>()[start..start + len];
    Bf16::from_bits_slice_mut(storage.reinterpret_cast_mut())
}

/// Returns a bf16 primitive of zeros.
pub(crate) fn zero_halves<const D: usize>(shape: [usize; D]) -> FlexTensor {
    let len = shape.iter().product();
    FlexTensor::from_data(TensorData::new(vec![bf16::ZERO; len], shape))
}

/// Wraps a vector, without copying it, as a primitive of the given shape.
pub(crate) fn from_values<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Returns a plain tensor: the result of an operation none of whose inputs is tracked.
///
/// `autodiff` says whether an input carried an autodiff association, which the result then keeps.
pub(crate) fn untracked<const D: usize>(output: FlexTensor, autodiff: bool) -> Tensor<D> {
    let tensor = Tensor::from_primitive::<Flex>(output);
    if autodiff { tensor.autodiff() } else { tensor }
}

/// Registers the backward step of an operation and returns its output as a tensor.
///
/// The step is given the gradient of the output and, for each input, the node that wants its
/// gradient, if any does.
pub(crate) fn tracked<const N: usize, const D: usize>(
    nodes: [NodeGuard; N],
    output: FlexTensor,
    backward: impl FnOnce(FlexTensor, [Option<NodeId>; N], &mut Gradients) + Send + 'static,
) -> Tensor<D> {
    let output = Step(backward)
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateless(output);
    Tensor::from_primitive::<Autodiff<Flex>>(output)
}

/// A backward step with what it keeps. Burn would have the latter apart and able to be cloned; a step
/// runs once, and it need not be.
struct Step<F>(F);

impl<F> std::fmt::Debug for Step<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::any::type_name::<F>())
    }
}

impl<F, const N: usize> Backward<Flex, N> for Step<F>
where
    F: FnOnce(FlexTensor, [Option<NodeId>; N], &mut Gradients) + Send + 'static,
{
    type State = ();

    fn backward(self, ops: Ops<(), N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<Flex>(&ops.node).to_contiguous();
        self.0(
            gradient,
            ops.parents.map(|node| node.map(|node| node.id)),
            grads,
        );
    }
}

/// An operation in the making: what is known of its inputs.
#[derive(Default)]
pub(crate) struct Operation {
    nodes: Vec<NodeGuard>,
    is_tracked: bool,
    autodiff: bool,
}

impl Operation {
    /// Takes the contiguous primitive of the next input.
    pub(crate) fn input<const D: usize>(&mut self, tensor: Tensor<D>) -> FlexTensor {
        self.is_tracked |= tensor.is_tracked();
        self.autodiff |= tensor.is_autodiff();
        let (primitive, node) = primitive_and_node(tensor);
        self.nodes.push(node);
        primitive
    }

    /// Takes an input that may be missing, and then wants no gradient.
    pub(crate) fn optional_input<const D: usize>(
        &mut self,
        tensor: Option<Tensor<D>>,
    ) -> Option<FlexTensor> {
        if tensor.is_none() {
            self.nodes.push(or_nothing(None));
        }
        tensor.map(|tensor| self.input(tensor))
    }

    /// Whether an input so far is tracked, so that there may be a backward pass.
    pub(crate) fn is_tracked(&self) -> bool {
        self.is_tracked
    }

    /// Returns the output as a tensor. `backward` makes the gradients of the inputs of that of the
    /// output; those that nobody wants, as it is told, may be missing and are dropped.
    pub(crate) fn output<const N: usize, const D: usize>(
        self,
        output: FlexTensor,
        backward: impl FnOnce(FlexTensor, [bool; N]) -> [Option<FlexTensor>; N] + Send + 'static,
    ) -> Tensor<D> {
        if !self.is_tracked {
            return untracked(output, self.autodiff);
        }
        let nodes = self.nodes.try_into().expect("a gradient for each input");
        tracked(nodes, output, |gradient, nodes, grads| {
            let gradients = backward(gradient, nodes.map(|node| node.is_some()));
            for (node, gradient) in nodes.into_iter().zip(gradients) {
                if let (Some(id), Some(gradient)) = (node, gradient) {
                    grads.register::<Flex>(id, gradient);
                }
            }
        })
    }
}

/// A kernel call that can only fail when a shape check above it was wrong.
pub(crate) fn run<T>(result: Result<T, reparam_kernels::KernelError>) -> T {
    result.unwrap_or_else(|error| panic!("tensor shapes do not fit: {error}"))
}
