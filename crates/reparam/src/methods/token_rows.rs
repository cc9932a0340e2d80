//! Rows of a table of token vectors, trained beside a frozen table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param, ParamId, Reparameterizer};
use burn::tensor::{DType, Device, Tensor, TensorData};
use reparam_formats::peft::{TOKEN_ROWS, TokenRows};
use reparam_ops::{LinearPlan, LowRank, embedding};

use super::attached::{Attached, NamedParam, OnLayer, PartOfLayer};
use super::method::{Base, Method, NewTensor};
use super::{MethodError, Result, Theta};
use crate::ForwardContext;
use crate::walk::{Part, container, walk};

/// What the method is called among those that are attached to a weight.
pub(super) const KIND: &str = "trainable_tokens";

/// What is known of a layer that rows are to be trained of: its path, and the values that its rows begin with.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainableRows {
    /// The path of the table, or of an output head of its own.
    pub module: String,
    /// The tokens, each once.
    pub indices: Vec<u32>,
    /// `[tokens, d]`, row-major; those of the table if absent.
    pub values: Option<Vec<f32>>,
}

impl TrainableRows {
    /// The rows of an adapter.
    pub fn of_adapter(module: &str, rows: &TokenRows) -> Self {
        Self {
            module: module.to_owned(),
            indices: rows.indices.clone(),
            values: Some(rows.rows.data.clone()),
        }
    }
}

/// Trains some rows of tables of token vectors, PEFT's `trainable_token_indices`; everything else stays as it is.
///
/// ```text
/// W[i] = theta[j]   for the j-th of the tokens i,   W[i] = W0[i]   for all others
/// ```
///
/// What an output head has that is the table itself follows: the weight is one. The table stays frozen, packed or not, and is
/// not formed anew: rows are put in place after they are looked up, and a head adds a term of the rank of the number of tokens,
/// `x (theta - W0[i])'`, to the logits of these tokens.
///
/// # Errors
///
/// [`MethodError::TokenRows`] if there is no such table, it has no such rows, or a method is attached to it already.
///
/// # Cost
///
/// In a forward pass two elementwise operations on the embedded tokens. Of a head `2 N n (d + V)` operations for `n` tokens.
///
/// # References
///
/// PEFT 0.21, `tuners/trainable_tokens`.
pub fn attach_rows<M: Module>(model: M, layers: &[TrainableRows]) -> Result<M> {
    let mut wanted = HashMap::new();
    for layer in layers {
        let refuse = |problem| MethodError::TokenRows {
            module: layer.module.clone(),
            problem,
        };
        let mut found = None;
        walk(&model, |entry, _| {
            if entry.module == layer.module
                && let Part::Own { field, methods } = &entry.part
                && field == "weight"
                && let [rows, width] = entry.shape[..]
            {
                found = Some((entry.id, rows, width, !methods.is_empty()));
            }
        });
        let (id, rows, width, is_taken) =
            found.ok_or_else(|| refuse("the model has no such table"))?;
        if is_taken {
            return Err(refuse("a method is attached to it"));
        }
        let each_once: HashSet<u32> = layer.indices.iter().copied().collect();
        if each_once.is_empty() || each_once.len() != layer.indices.len() {
            return Err(refuse("there has to be a token, and each once"));
        }
        if each_once.iter().any(|index| *index as usize >= rows) {
            return Err(refuse("it has fewer rows"));
        }
        let values = layer.values.as_ref();
        if values.is_some_and(|values| values.len() != each_once.len() * width) {
            return Err(refuse("its rows are of another width"));
        }
        wanted.insert(id, layer);
    }
    Ok(model.apply_reparameterization(AttachRows { wanted }))
}

/// Returns the tokens whose rows are trained, by the path of their layer.
pub fn trained_rows<M: Module>(model: &M) -> BTreeMap<String, Vec<u32>> {
    let mut find = FindRows::default();
    model.visit(&mut find);
    let mut paths = BTreeMap::new();
    if find.rows.is_empty() {
        return paths;
    }
    walk(model, |entry, _| {
        // One that is tied has the path of the table, which comes first.
        if let Some(rows) = find.rows.remove(&entry.id) {
            paths.insert(entry.module.clone(), rows);
        }
    });
    paths
}

/// Collects the rows of weights. Burn shows a visitor a weight without what is attached to it, which then says its rows.
#[derive(Default)]
struct FindRows {
    /// The weight that was seen last.
    last: Option<ParamId>,
    rows: HashMap<ParamId, Vec<u32>>,
}

impl ModuleVisitor for FindRows {
    fn enter_module(&mut self, name: &str, kind: &str) {
        if kind == container::ROW
            && let (Some(last), Ok(row)) = (self.last, name.parse())
        {
            self.rows.entry(last).or_default().push(row);
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.last = Some(param.id);
    }
}

struct AttachRows<'a> {
    wanted: HashMap<ParamId, &'a TrainableRows>,
}

impl Reparameterizer for AttachRows<'_> {
    type Reparam = Attached;

    fn reparameterize<const D: usize>(
        &mut self,
        _path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<Attached>) {
        let Some(layer) = self.wanted.get(&param.id) else {
            return (param, None);
        };
        let is_packed = !param.is_initialized();
        let device = param.lazy_device();
        let strategy = device.gradient_checkpointing_strategy();
        let device = device.inner();
        let base = param.base().inner();
        let dtype = match is_packed {
            true => DType::F32,
            false => base.dtype(),
        };
        let [n_rows, width] = [base.dims()[0], base.dims()[1]];
        let base: Tensor<2> = base.reshape([n_rows, width]);
        let old = layer.indices.iter().flat_map(|index| {
            let row = base.clone().narrow(0, *index as usize, 1).into_data();
            row.iter::<f64>().collect::<Vec<_>>()
        });
        let old: Vec<f64> = old.collect();
        let first = match &layer.values {
            Some(values) => values.iter().map(|value| f64::from(*value)).collect(),
            None => old.clone(),
        };
        let n = layer.indices.len();
        let first = TensorData::new(first, [n, width]).convert_dtype(dtype);
        let first = Tensor::<2>::from_data(first, (&device, dtype));
        let places = layer.indices.iter().copied().zip(0..).collect();
        let on_layer = OnLayer {
            kind: KIND,
            method: Arc::new(Rows {
                indices: layer.indices.clone(),
                places,
                n_rows,
                old,
            }),
            tensors: vec![NamedParam::new(
                NewTensor::matrix(TOKEN_ROWS, first),
                false,
                strategy,
            )],
        };
        let attached = Attached {
            part: PartOfLayer::Weight,
            is_transposed: false,
            base_name: None,
            methods: vec![on_layer],
        };
        (param, Some(attached))
    }
}

/// Rows in the place of those of a table.
#[derive(Debug)]
struct Rows {
    indices: Vec<u32>,
    /// Which row of theta a token has.
    places: HashMap<u32, u32>,
    n_rows: usize,
    /// The rows of the table, `[tokens, d]`, which a head has multiplied with already.
    old: Vec<f64>,
}

impl Rows {
    /// A constant beside a tensor.
    fn constant(values: Vec<f64>, dims: [usize; 2], like: &Tensor<2>) -> Tensor<2> {
        let (device, dtype): (Device, DType) = (like.device(), like.dtype());
        let data = TensorData::new(values, dims).convert_dtype(dtype);
        Tensor::from_data(data, (&device, dtype))
    }

    /// Which row of theta each row of the table takes, `[rows, tokens]`.
    fn choice(&self, like: &Tensor<2>) -> Tensor<2> {
        let n = self.indices.len();
        let mut values = vec![0.0; self.n_rows * n];
        for (place, index) in self.indices.iter().enumerate() {
            values[*index as usize * n + place] = 1.0;
        }
        Self::constant(values, [self.n_rows, n], like)
    }

    /// Keeps rows but for those that `is_new` says, `[rows, 1]`.
    fn kept(is_new: impl Iterator<Item = bool>, like: &Tensor<2>) -> Tensor<2> {
        let values: Vec<f64> = is_new.map(|is_new| f64::from(u8::from(!is_new))).collect();
        let n = values.len();
        Self::constant(values, [n, 1], like)
    }
}

impl Method for Rows {
    fn weight(&self, base: Tensor<2>, theta: &Theta<'_>) -> Tensor<2> {
        let theta = theta.matrix(TOKEN_ROWS);
        let is_new = (0..self.n_rows).map(|row| self.places.contains_key(&(row as u32)));
        // Products with ones and zeros and sums with zeros round nothing.
        let kept = Self::kept(is_new, &base);
        base * kept + self.choice(&theta).matmul(theta)
    }

    fn plan(
        &self,
        _base: &Base<'_>,
        theta: &Theta<'_>,
        _context: &ForwardContext,
    ) -> Option<LinearPlan> {
        let theta = theta.matrix(TOKEN_ROWS);
        let old = Self::constant(self.old.clone(), theta.dims(), &theta);
        let term = LowRank {
            b: self.choice(&theta),
            a: theta - old,
            scaling: 1.0,
            dropout: None,
        };
        Some(LinearPlan {
            low_rank: vec![term],
            ..LinearPlan::default()
        })
    }

    fn rows(&self, base: Tensor<2>, ids: &[u32], theta: &Theta<'_>) -> Option<Tensor<2>> {
        let kept = Self::kept(ids.iter().map(|id| self.places.contains_key(id)), &base);
        let places: Vec<u32> = ids
            .iter()
            .map(|id| self.places.get(id).copied().unwrap_or(0))
            .collect();
        let new = embedding(theta.matrix(TOKEN_ROWS), &places);
        Some(base * kept.clone() + new * (kept.neg() + 1.0))
    }

    fn trained_rows(&self) -> Option<&[u32]> {
        Some(&self.indices)
    }
}
