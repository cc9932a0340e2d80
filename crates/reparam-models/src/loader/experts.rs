//! The weights of experts, which checkpoints hold one by one or all in one tensor.

use burn::module::Param;
use burn::tensor::Tensor;
use reparam::{ExpertWeight, Weight};
use reparam_ops::fused::{PackedDType, PackedWeight};

use super::{Described, Init, Loader, Source};
use crate::architecture::{ExpertsSpec, FeedForwardSpec, LinearSpec};
use crate::named::Named;

/// The modules of a layer with experts, but for its shared expert.
pub(crate) struct ExpertModules {
    pub(crate) router: Named<ExpertWeight>,
    pub(crate) gate_up: Named<ExpertWeight>,
    pub(crate) down: Named<ExpertWeight>,
}

/// The weights of all experts, and the tensors of which they are made, one below the other.
struct Joined {
    n_experts: usize,
    /// Of each expert.
    shape: [usize; 2],
    names: Vec<String>,
    /// Of each of these tensors.
    stored: Vec<usize>,
    init: Init,
}

impl<'a> Loader<'a> {
    /// Takes router and experts. A checkpoint has a tensor for each layer of each expert, or one for those of all, `[E, d_out, d_in]`.
    pub(crate) fn experts(&mut self, layer: &FeedForwardSpec, spec: &ExpertsSpec) -> ExpertModules {
        let (width, inner) = (layer.output.d_out, layer.output.d_in);
        let all_of = |loader: &Self, path: &str, each: [usize; 2]| {
            let name = loader.path(path);
            let is_joined = loader.has(&name);
            is_joined.then(|| (vec![name], vec![spec.n_experts, each[0], each[1]]))
        };
        let layers = |loader: &Self, places: &[usize]| -> Vec<String> {
            let experts = 0..spec.n_experts;
            let names = experts.flat_map(|expert| {
                let names = spec.stored_layers(expert);
                places.iter().map(move |place| names[*place].clone())
            });
            names.map(|name| loader.path(&name)).collect()
        };
        let joined = [2 * inner, width];
        let (names, stored) = all_of(self, &spec.gate_up(), joined)
            .unwrap_or_else(|| (layers(self, &[0, 1]), vec![inner, width]));
        let gate_up = Joined {
            n_experts: spec.n_experts,
            shape: joined,
            names,
            stored,
            init: self.linear_init(&layer.inputs[0]),
        };
        let each = [width, inner];
        let (names, stored) =
            all_of(self, &spec.down(), each).unwrap_or_else(|| (layers(self, &[2]), each.to_vec()));
        let down = Joined {
            n_experts: spec.n_experts,
            shape: each,
            names,
            stored,
            init: self.linear_init(&layer.output),
        };
        ExpertModules {
            router: self.router(spec),
            gate_up: self.expert_weight(&spec.gate_up(), &gate_up),
            down: self.expert_weight(&spec.down(), &down),
        }
    }

    /// The router stays dense: it is small, and which experts are chosen hangs on its last digits.
    fn router(&mut self, spec: &ExpertsSpec) -> Named<ExpertWeight> {
        let path = self.path(&format!("{}.weight", spec.router.path));
        let stored = self.path(&spec.stored_router());
        let name = match self.has(&path) && !self.has(&stored) {
            true => path.clone(),
            false => stored,
        };
        let LinearSpec { d_in, d_out, .. } = spec.router;
        let init = self.linear_init(&spec.router);
        let weight = Described::new(name, &LinearSpec::new("", d_in, d_out), init);
        let weight = self.matrix(&weight);
        Named::new(path, ExpertWeight::new(Weight::Dense(weight), 1))
    }

    fn expert_weight(&mut self, path: &str, joined: &Joined) -> Named<ExpertWeight> {
        let path = self.path(path);
        let weight = match self.precision.packed() {
            None => Weight::Dense(self.dense_experts(joined)),
            Some(numbers) => Weight::packed(self.packed_experts(joined, numbers), self.device),
        };
        Named::new(path, ExpertWeight::new(weight, joined.n_experts))
    }

    fn dense_experts(&mut self, joined: &Joined) -> Param<Tensor<2>> {
        let [d_out, d_in] = joined.shape;
        let shape = [joined.n_experts * d_out, d_in];
        let mut all = match self.plan {
            Some(_) => Vec::new(),
            None => Vec::with_capacity(shape[0] * d_in),
        };
        let mut is_there = false;
        for name in &joined.names {
            if let Some(values) = self.values(name, &joined.stored, joined.init) {
                all.extend(values);
                is_there = true;
            }
        }
        self.frozen(is_there.then_some(all), shape)
    }

    /// As [`Loader::packed`], over tensors that follow one another.
    fn packed_experts(&mut self, joined: &Joined, numbers: PackedDType) -> PackedWeight {
        let mut sources: Vec<Source<'_>> = Vec::new();
        for name in &joined.names {
            let tensor = self.find(name, &joined.stored, joined.init);
            sources.extend(tensor.map(|tensor| match tensor {
                Ok(_) if self.unusable.is_some() => Source::Nothing,
                Ok(tensor) => Source::Stored(tensor),
                Err(error) => self.unusable(error),
            }));
        }
        // Until the sizes have been compared with those of the files, no product of them need be a number.
        let (shape, each) = match self.plan {
            Some(_) => ([1, 1], 1),
            None => (joined.shape, joined.stored.iter().product()),
        };
        let size = shape[0] * shape[1];
        PackedWeight::pack_experts(joined.n_experts, shape, numbers, |expert, range, to| {
            if sources.is_empty() {
                return to.fill(0.0);
            }
            let mut at = expert * size + range.start;
            let mut rest = to;
            while !rest.is_empty() {
                let (tensor, first) = (at / each, at % each);
                let (part, others) = rest.split_at_mut(rest.len().min(each - first));
                at += part.len();
                let range = first..first + part.len();
                let (source, name) = (&sources[tensor], &joined.names[tensor]);
                if let Err(error) = self.read_checked(source, name, range, part) {
                    self.unusable(error);
                    sources.fill_with(|| Source::Nothing);
                }
                rest = others;
            }
        })
    }
}
