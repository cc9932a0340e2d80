//! Small networks to try methods on.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn;
use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::methods::{WeightLayout, after_step};
use crate::parameters;
use crate::{ForwardContext, Linear, OutputHead};

const WIDTH: usize = 6;
const INNER: usize = 5;
const OUTPUTS: usize = 7;

/// A network of two blocks and a head, all of linear layers with biases.
pub(super) trait Toy: Module {
    /// How its layers store their weights.
    const LAYOUT: WeightLayout;
    /// Whether its layers ask the method for a plan.
    const HAS_PLAN: bool;

    /// Creates the network; always the same one.
    fn build(dtype: DType) -> Self;

    /// Computes the output by the layers' own way.
    fn forward(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2>;

    /// Computes the output from the effective weights.
    fn forward_dense(&self, x: Tensor<2>) -> Tensor<2>;

    /// Returns the weights of all layers.
    fn weights(&self) -> Vec<&Param<Tensor<2>>>;
}

#[derive(Module, Debug)]
pub(super) struct Block {
    pub(super) q_proj: Linear,
    pub(super) down_proj: Linear,
}

/// A network of this crate's layers.
#[derive(Module, Debug)]
pub(super) struct Net {
    pub(super) layers: Vec<Block>,
    pub(super) lm_head: OutputHead<Linear>,
}

#[derive(Module, Debug)]
pub(super) struct BurnBlock {
    q_proj: nn::Linear,
    down_proj: nn::Linear,
}

/// The same network of Burn's layers.
#[derive(Module, Debug)]
pub(super) struct BurnNet {
    layers: Vec<BurnBlock>,
    lm_head: OutputHead<nn::Linear>,
}

/// Composes the network from what its layers compute, numbered in order.
fn compose(x: Tensor<2>, layer: impl Fn(usize, Tensor<2>) -> Tensor<2>) -> Tensor<2> {
    let mut h = x;
    for block_idx in 0..2 {
        let inner = layer(2 * block_idx, h.clone()).tanh();
        h = h + layer(2 * block_idx + 1, inner);
    }
    layer(4, h)
}

/// `(d_out, d_in)` of the layers, in order.
const DIMS: [(usize, usize); 5] = [
    (INNER, WIDTH),
    (WIDTH, INNER),
    (INNER, WIDTH),
    (WIDTH, INNER),
    (OUTPUTS, WIDTH),
];

impl Net {
    fn layers_in_order(&self) -> Vec<&Linear> {
        let blocks = self.layers.iter();
        let layers = blocks.flat_map(|block| [&block.q_proj, &block.down_proj]);
        layers.chain([&*self.lm_head]).collect()
    }
}

impl Toy for Net {
    const LAYOUT: WeightLayout = WeightLayout::OutIn;
    const HAS_PLAN: bool = true;

    fn build(dtype: DType) -> Self {
        let linear = |idx: usize| {
            let (d_out, d_in) = DIMS[idx];
            let weight = data(numbers(d_out * d_in, idx as u64), &[d_out, d_in], dtype);
            Linear::new(weight, Some(bias(d_out, dtype, idx as u64)))
        };
        let block = |block_idx: usize| Block {
            q_proj: linear(2 * block_idx),
            down_proj: linear(2 * block_idx + 1),
        };
        Self {
            layers: vec![block(0), block(1)],
            lm_head: OutputHead(linear(4)),
        }
    }

    fn forward(&self, x: Tensor<2>, context: &ForwardContext) -> Tensor<2> {
        let layers = self.layers_in_order();
        compose(x, |idx, x| layers[idx].forward(x, context))
    }

    fn forward_dense(&self, x: Tensor<2>) -> Tensor<2> {
        let layers = self.layers_in_order();
        compose(x, |idx, x| {
            let bias = layers[idx].bias.as_ref().expect("a bias").val();
            x.matmul(layers[idx].weight.param().val().transpose()) + bias.unsqueeze::<2>()
        })
    }

    fn weights(&self) -> Vec<&Param<Tensor<2>>> {
        let layers = self.layers_in_order().into_iter();
        layers.map(|layer| layer.weight.param()).collect()
    }
}

impl BurnNet {
    fn layers_in_order(&self) -> Vec<&nn::Linear> {
        let blocks = self.layers.iter();
        let layers = blocks.flat_map(|block| [&block.q_proj, &block.down_proj]);
        layers.chain([&*self.lm_head]).collect()
    }
}

impl Toy for BurnNet {
    const LAYOUT: WeightLayout = WeightLayout::InOut;
    const HAS_PLAN: bool = false;

    fn build(dtype: DType) -> Self {
        let linear = |idx: usize| {
            let (d_out, d_in) = DIMS[idx];
            burn_linear(d_out, d_in, dtype, idx as u64)
        };
        let block = |block_idx: usize| BurnBlock {
            q_proj: linear(2 * block_idx),
            down_proj: linear(2 * block_idx + 1),
        };
        Self {
            layers: vec![block(0), block(1)],
            lm_head: OutputHead(linear(4)),
        }
    }

    fn forward(&self, x: Tensor<2>, _context: &ForwardContext) -> Tensor<2> {
        let layers = self.layers_in_order();
        compose(x, |idx, x| layers[idx].forward(x))
    }

    fn forward_dense(&self, x: Tensor<2>) -> Tensor<2> {
        let layers = self.layers_in_order();
        compose(x, |idx, x| {
            let bias = layers[idx].bias.as_ref().expect("a bias").val();
            x.matmul(layers[idx].weight.val()) + bias.unsqueeze::<2>()
        })
    }

    fn weights(&self) -> Vec<&Param<Tensor<2>>> {
        let layers = self.layers_in_order().into_iter();
        layers.map(|layer| &layer.weight).collect()
    }
}

/// Creates a layer of Burn with the same values as one of ours, transposed.
pub(super) fn burn_linear(d_out: usize, d_in: usize, dtype: DType, seed: u64) -> nn::Linear {
    let weight = data::<2>(numbers(d_out * d_in, seed), &[d_out, d_in], dtype);
    // Transposed values, stored in that order: a view would be another test.
    let weight = data::<2>(values(&weight.transpose()), &[d_in, d_out], dtype);
    nn::Linear {
        weight: Param::from_tensor(weight),
        bias: Some(Param::from_tensor(bias(d_out, dtype, seed))),
    }
}

fn bias(d_out: usize, dtype: DType, seed: u64) -> Tensor<1> {
    data(numbers(d_out, 50 + seed), &[d_out], dtype)
}

/// Four rows to compute on.
pub(super) fn input(dtype: DType) -> Tensor<2> {
    data(numbers(4 * WIDTH, 77), &[4, WIDTH], dtype)
}

/// Numbers in `[-1, 1)` that look random and are the same everywhere.
pub(super) fn numbers(len: usize, seed: u64) -> Vec<f64> {
    (0..len as u64)
        .map(|i| {
            let mut x =
                (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd129_0d3f);
            x ^= x >> 31;
            x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x ^= x >> 27;
            (x >> 11) as f64 * 2f64.powi(-52) - 1.0
        })
        .collect()
}

/// Makes a tensor on the CPU with autodiff.
pub(super) fn data<const D: usize>(values: Vec<f64>, dims: &[usize], dtype: DType) -> Tensor<D> {
    let data = TensorData::new(values, dims.to_vec()).convert_dtype(dtype);
    Tensor::from_data(data, (&Device::flex().autodiff(), dtype))
}

/// Returns the values as `f64`.
pub(super) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    let data = tensor.clone().into_data().convert::<f64>();
    data.try_to_vec().expect("f64 data")
}

/// Returns the bits of the values; `f32` fits `f64` exactly.
pub(super) fn bits<const D: usize>(tensor: &Tensor<D>) -> Vec<u64> {
    values(tensor).into_iter().map(f64::to_bits).collect()
}

/// Gives every trainable parameter other numbers, so that nothing is zero or the identity.
pub(super) fn randomize<M: Module>(model: M, seed: u64) -> M {
    let list = parameters::trainable(&model)
        .into_iter()
        .enumerate()
        .map(|(idx, parameter)| {
            let numbers = numbers(parameter.len(), 1000 * seed + idx as u64);
            let dtype = parameter.values.dtype();
            let new = data::<1>(numbers, &[parameter.len()], dtype);
            parameter.with_values(new.inner())
        })
        .collect();
    let mut model = parameters::assign(model, list);
    // What follows the parameters, such as singular vectors, gets the time to.
    for _ in 0..10 {
        model = after_step(model);
    }
    model
}

/// Returns the bits of every parameter by its path inside the module, trained or not.
pub(super) fn parameters_of<M: Module>(model: &M) -> BTreeMap<String, Vec<u64>> {
    struct All {
        path: Vec<String>,
        found: BTreeMap<String, Vec<u64>>,
    }
    impl ModuleVisitor for All {
        fn enter_module(&mut self, name: &str, _container_type: &str) {
            self.path.push(name.to_owned());
        }
        fn exit_module(&mut self, _name: &str, _container_type: &str) {
            self.path.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let previous = self.found.insert(self.path.join("."), bits(&param.base()));
            assert!(previous.is_none(), "two parameters at {:?}", self.path);
        }
    }
    let mut all = All {
        path: Vec::new(),
        found: BTreeMap::new(),
    };
    model.visit(&mut all);
    all.found
}
