//! How checkpoints name and lay out what a model holds otherwise.

use burn::tensor::Tensor;
use reparam::parameters::ParameterList;

use super::Architecture;

impl Architecture {
    /// Returns whether checkpoints store the tensor of this name as `[d_in, d_out]`.
    pub(crate) fn stores_transposed(&self, name: &str) -> bool {
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
        tensors
    }

    /// Names of tensors of which checkpoints have others, with those.
    fn stored_names(&self) -> Vec<(String, String)> {
        let linears = self.linears().filter_map(|linear| {
            let stored = linear.stored.as_ref()?;
            let path = self.full_path(&linear.path);
            let names = ["weight", "bias"].map(|name| format!("{path}.{name}"));
            Some(names.into_iter().zip(stored.iter()))
        });
        linears
            .flatten()
            .map(|(name, stored)| (name, self.full_path(stored)))
            .collect()
    }
}
