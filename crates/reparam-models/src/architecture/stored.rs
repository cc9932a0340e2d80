//! How checkpoints name and lay out what a model holds otherwise.

use burn::tensor::Tensor;
use reparam::parameters::{NamedTensor, ParameterList};

use super::Architecture;

impl Architecture {
    /// Returns whether checkpoints store the tensor of this name as `[d_in, d_out]`.
    pub fn stores_transposed(&self, name: &str) -> bool {
        let weight = name.strip_suffix(".weight");
        self.linears()
            .any(|linear| linear.transposed && weight == Some(&*self.full_path(&linear.path)))
    }

    /// Returns tensors of a model as its checkpoint has them: under their names, and transposed where it stores them so.
    pub(crate) fn stored(&self, mut tensors: ParameterList) -> ParameterList {
        let names = self.stored_names();
        for tensor in &mut tensors {
            if self.stores_transposed(&tensor.name) {
                let [d_out, d_in] = [tensor.shape[0], tensor.shape[1]];
                let matrix: Tensor<2> = tensor.values.clone().reshape([d_out, d_in]);
                tensor.values = matrix.transpose().reshape([d_in * d_out]);
                tensor.shape = vec![d_in, d_out];
            }
            if let Some((_, stored)) = names.iter().find(|(name, _)| *name == tensor.name) {
                tensor.name.clone_from(stored);
            }
        }
        self.split_experts(tensors)
    }

    /// Gives the layers of each expert, of which a model holds those of all in one, names of their own.
    fn split_experts(&self, tensors: ParameterList) -> ParameterList {
        if !self.has_experts() {
            return tensors;
        }
        let mut split = ParameterList::new();
        for tensor in tensors {
            let found = self.experts().find_map(|(layer, experts)| {
                let layers = |gate_up: bool| {
                    let rows = match gate_up {
                        true => vec![layer.output.d_in; 2],
                        false => vec![layer.output.d_out],
                    };
                    let names = (0..experts.n_experts).flat_map(move |expert| {
                        let [gate, up, down] = experts.stored_layers(expert);
                        if gate_up { vec![gate, up] } else { vec![down] }
                    });
                    (rows, names.collect::<Vec<_>>())
                };
                match &*tensor.name {
                    name if name == self.full_path(&experts.gate_up()) => Some(layers(true)),
                    name if name == self.full_path(&experts.down()) => Some(layers(false)),
                    _ => None,
                }
            });
            let Some((rows, names)) = found else {
                split.push(tensor);
                continue;
            };
            let d_in = tensor.shape[1];
            let mut first = 0;
            for (at, name) in names.into_iter().enumerate() {
                let rows = rows[at % rows.len()];
                split.push(NamedTensor {
                    name: self.full_path(&name),
                    shape: vec![rows, d_in],
                    values: tensor.values.clone().narrow(0, first, rows * d_in),
                });
                first += rows * d_in;
            }
        }
        split
    }

    /// Names of tensors of which checkpoints have others, with those.
    fn stored_names(&self) -> Vec<(String, String)> {
        let linears = self.linears().filter_map(|linear| {
            let stored = linear.stored.as_ref()?;
            let path = self.full_path(&linear.path);
            let names = ["weight", "bias"].map(|name| format!("{path}.{name}"));
            Some(names.into_iter().zip(stored.iter()))
        });
        let routers = self.experts().map(|(_, experts)| {
            let name = self.full_path(&format!("{}.weight", experts.router.path));
            (name, self.full_path(&experts.stored_router()))
        });
        let linears = linears.flatten();
        linears
            .map(|(name, stored)| (name, self.full_path(stored)))
            .chain(routers)
            .collect()
    }
}
