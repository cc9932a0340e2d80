//! The weights of a base with adapters in them, made one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use reparam::methods::{Merge, MethodError, Methods, TrainableRows};
use reparam_formats::checkpoint::{Checkpoint, Dtype, StoredTensor};
use reparam_formats::weights::Weights;
use reparam_models::Architecture;
use reparam_models::architecture::ExpertPart;

use super::{LoadedAdapter, MergeError};
use crate::model_files::ModelFiles;
use crate::new_tokens::is_tied;
use crate::{Result, TrainError};

/// The weights of a base with adapters in them, by the names of transformers' class.
#[derive(Debug)]
pub(crate) struct MergedWeights<'a> {
    base: &'a Checkpoint,
    /// What the checkpoint calls each tensor: one that was saved without a head lacks the name of the body.
    stored: BTreeMap<String, &'a str>,
    /// The layers that store their weight `[d_in, d_out]`.
    transposed: BTreeSet<String>,
    /// Tensors of routers and experts, with the part of a parameter that each is.
    experts: BTreeMap<String, ExpertPart>,
    adapters: Vec<(Merge, f64)>,
    /// The rows of tokens that an adapter has, by the weight, with what their change is multiplied by.
    rows: BTreeMap<String, (TrainableRows, f64)>,
    /// The weight of the head and that of the table that it is, where the base has one for both and an adapter changes the head.
    untied: Option<(String, String)>,
    is_tied: bool,
    /// The weight that was made last: it is read in parts.
    held: Option<(String, Vec<f64>)>,
}

impl<'a> MergedWeights<'a> {
    pub(crate) fn new(
        files: &'a ModelFiles,
        architecture: &Architecture,
        adapters: &[LoadedAdapter],
        methods: &Methods,
    ) -> Result<Self> {
        let base = files.weights();
        let prefix = format!("{}.", architecture.prefix);
        let lacks =
            !architecture.prefix.is_empty() && !base.names().any(|name| name.starts_with(&prefix));
        let (head, table) = architecture.head_names();
        let full = |name: &str| match lacks && name != head {
            true => format!("{prefix}{name}"),
            false => name.to_owned(),
        };
        let stored: BTreeMap<String, &str> = base.names().map(|name| (full(name), name)).collect();
        let transposed = architecture.linears().filter(|linear| linear.transposed);
        let transposed = transposed
            .map(|linear| architecture.full_path(&linear.path))
            .collect();
        let is_tied = is_tied(base, architecture)?;
        let mut weights = Self {
            base,
            stored,
            transposed,
            experts: architecture.expert_parts().into_iter().collect(),
            adapters: Vec::new(),
            rows: BTreeMap::new(),
            untied: None,
            is_tied,
            held: None,
        };
        let tied = is_tied.then_some([(head.as_str(), table.as_str())]);
        let module = head.strip_suffix(".weight").unwrap_or(&head);
        let parameters = architecture.expert_parameters();
        for (adapter, tokens, factor) in adapters {
            let adapter = adapter
                .clone()
                .over(base, tied.as_ref().map_or(&[][..], |tied| tied))?;
            let is_of_head = adapter.tensors.keys().any(|name| {
                name.strip_prefix(module)
                    .is_some_and(|rest| rest.starts_with('.'))
            });
            let names = is_tied.then(|| (head.clone(), table.clone()));
            if let Some(tokens) = tokens {
                tokens.check_head(&adapter, names.as_ref())?;
            }
            if is_tied && is_of_head {
                weights.untied = Some((head.clone(), table.clone()));
            }
            let merge = methods.merge(
                adapter,
                |path| weights.linear_shape(path),
                parameters.clone(),
            )?;
            weights.check_whole(&merge)?;
            weights.check_experts(&merge, &parameters)?;
            for rows in tokens.iter().map(|tokens| tokens.layers(names.as_ref())) {
                for rows in rows? {
                    if merge.adapts(&rows.module) {
                        return Err(MethodError::TokenRows {
                            module: rows.module,
                            problem: "a method is attached to it",
                        }
                        .into());
                    }
                    weights.add_rows(rows, *factor, names.as_ref())?;
                }
            }
            weights.adapters.push((merge, *factor));
        }
        Ok(weights)
    }

    /// The weights that an adapter has rows of tokens of.
    pub(crate) fn row_names(&self) -> BTreeSet<String> {
        self.rows.keys().cloned().collect()
    }

    /// Whether the head of the result is no longer the table that it is in the base.
    pub(crate) fn unties(&self) -> bool {
        self.untied.is_some()
    }

    /// Whether the head of the result is the table of token vectors.
    pub(crate) fn is_tied(&self) -> bool {
        self.is_tied && !self.unties()
    }

    /// Iterates over the tensors of the result: what the class and what the file calls each.
    pub(crate) fn names(&self) -> Vec<(String, String)> {
        let stored = self.stored.iter();
        let mut names: BTreeMap<String, String> = stored
            .map(|(name, stored)| (name.clone(), (*stored).to_owned()))
            .collect();
        if let Some((head, _)) = &self.untied {
            names.insert(head.clone(), head.clone());
        }
        names.into_iter().collect()
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.of_base(name).is_ok()
    }

    /// The tensor of the base that a name begins with.
    pub(crate) fn of_base(&self, name: &str) -> Result<StoredTensor<'a>> {
        let name = match &self.untied {
            Some((head, table)) if head == name && !self.stored.contains_key(head) => table,
            _ => name,
        };
        let stored = self.stored.get(name).copied().unwrap_or(name);
        Ok(self.base.require(stored)?)
    }

    /// Takes the rows of tokens of an adapter; a copy of the table has them too.
    fn add_rows(
        &mut self,
        rows: TrainableRows,
        factor: f64,
        tied: Option<&(String, String)>,
    ) -> Result<()> {
        let name = format!("{}.weight", rows.module);
        let stored = self.of_base(&name)?;
        let is_matrix = stored.shape.len() == 2;
        let fits = |index: &u32| is_matrix && (*index as usize) < stored.shape[0];
        let width = rows.values.as_ref().map_or(0, Vec::len) / rows.indices.len().max(1);
        if !is_matrix || stored.shape[1] != width || !rows.indices.iter().all(fits) {
            return Err(MergeError::Shape {
                name,
                base: stored.shape.to_vec(),
                adapter: vec![rows.indices.len(), width],
            }
            .into());
        }
        if let Some((head, table)) = tied
            && *table == name
        {
            self.rows.insert(head.clone(), (rows.clone(), factor));
        }
        self.rows.insert(name, (rows, factor));
        Ok(())
    }

    /// Whether an adapter changes a tensor.
    pub(crate) fn changes(&self, name: &str) -> bool {
        if self.rows.contains_key(name) {
            return true;
        }
        let mut adapters = self.adapters.iter();
        let part = self.experts.get(name);
        adapters.any(|(merge, _)| {
            if part.is_some_and(|part| merge.adapts_parameter(&part.parameter)) {
                return true;
            }
            let module = name.strip_suffix(".weight").or(name.strip_suffix(".bias"));
            module.is_some_and(|module| merge.adapts(module)) || merge.whole(name).is_some()
        })
    }

    /// Returns a tensor with the adapters in it, laid out as the checkpoint has it, beside that of the base.
    pub(crate) fn merged(&self, name: &str) -> Result<(Vec<f64>, Vec<f64>)> {
        let stored = self.of_base(name)?;
        let mut base = vec![0.0; stored.n_elements()];
        stored.read_finite_f64(0, &mut base)?;
        let mut sum: Option<Vec<f64>> = None;
        for (merge, factor) in &self.adapters {
            let Some(own) = self.with_one(merge, name, stored.shape, &base)? else {
                continue;
            };
            // One adapter as it is: what is subtracted and added again would be rounded.
            if self.adapters.len() == 1 && *factor == 1.0 {
                sum = Some(own);
                continue;
            }
            let into = sum.get_or_insert_with(|| base.clone());
            for ((into, own), base) in into.iter_mut().zip(own).zip(&base) {
                *into += factor * (own - base);
            }
        }
        let mut merged = sum.unwrap_or_else(|| base.clone());
        if let Some((rows, factor)) = self.rows.get(name) {
            let values = rows.values.as_deref().unwrap_or_default();
            let width = values.len() / rows.indices.len().max(1);
            for (index, row) in rows.indices.iter().zip(values.chunks_exact(width.max(1))) {
                let places = *index as usize * width..(*index as usize + 1) * width;
                for (place, value) in places.zip(row) {
                    let change = f64::from(*value) - base[place];
                    // What is subtracted and added again would be rounded.
                    merged[place] = match self.adapters.len() == 1 && *factor == 1.0 {
                        true => f64::from(*value),
                        false => merged[place] + factor * change,
                    };
                }
            }
        }
        match merged.iter().all(|value| value.is_finite()) {
            true => Ok((merged, base)),
            false => Err(MergeError::NotFinite {
                name: name.to_owned(),
            }
            .into()),
        }
    }

    /// What one adapter makes of a tensor; `None` if it leaves it.
    fn with_one(
        &self,
        merge: &Merge,
        name: &str,
        shape: &[usize],
        base: &[f64],
    ) -> Result<Option<Vec<f64>>> {
        let whole = merge.whole(name);
        let base = match whole {
            None => base.to_vec(),
            Some(tensor) if tensor.shape == shape => {
                tensor.data.iter().map(|value| f64::from(*value)).collect()
            }
            Some(tensor) => {
                return Err(MergeError::Shape {
                    name: name.to_owned(),
                    base: shape.to_vec(),
                    adapter: tensor.shape.clone(),
                }
                .into());
            }
        };
        if let Some(ExpertPart { parameter, rows }) = self.experts.get(name)
            && merge.adapts_parameter(parameter)
        {
            let mut merged = base;
            merge.add_to_rows(parameter, rows.start, &mut merged)?;
            return Ok(Some(merged));
        }
        if let Some(module) = name
            .strip_suffix(".weight")
            .filter(|module| merge.adapts(module))
        {
            let is_transposed = self.transposed.contains(module);
            let (base, shape) = match is_transposed {
                true => (transpose(&base, shape), [shape[1], shape[0]]),
                false => (base, [shape[0], shape[1]]),
            };
            let merged = merge.weight(module, base)?;
            return Ok(Some(match is_transposed {
                true => transpose(&merged, &shape),
                false => merged,
            }));
        }
        if let Some(module) = name
            .strip_suffix(".bias")
            .filter(|module| merge.adapts(module))
        {
            return Ok(Some(merge.bias(module, base)?));
        }
        Ok(whole.map(|_| base))
    }

    /// The `[d_out, d_in]` of a linear layer of the base.
    fn linear_shape(&self, path: &str) -> Option<[usize; 2]> {
        let tensor = self.of_base(&format!("{path}.weight")).ok()?;
        match *tensor.shape {
            [rows, columns] if self.transposed.contains(path) => Some([columns, rows]),
            [rows, columns] => Some([rows, columns]),
            _ => None,
        }
    }

    /// Checks the tensors of the base that adapted parameters of experts are made of: their shapes, and that no row is missing or there
    /// twice.
    fn check_experts(
        &self,
        merge: &Merge,
        parameters: &[(String, usize, [usize; 2])],
    ) -> Result<()> {
        let mut parts: BTreeMap<&str, Vec<(&str, Range<usize>)>> = BTreeMap::new();
        for (name, ExpertPart { parameter, rows }) in &self.experts {
            if self.stored.contains_key(name) {
                let own = parts.entry(parameter).or_default();
                own.push((name, rows.clone()));
            }
        }
        let adapted = parameters.iter();
        for (path, n_experts, [rows, d_in]) in
            adapted.filter(|(path, ..)| merge.adapts_parameter(path))
        {
            let mut own = parts.remove(path.as_str()).unwrap_or_default();
            own.sort_by_key(|(_, rows)| rows.start);
            let mut end = 0;
            let mut is_whole = true;
            for (name, part) in own {
                let stored = self.of_base(name)?.shape;
                let is_joined =
                    part.len() == *rows && *stored == [*n_experts, rows / n_experts, *d_in];
                if *stored != [part.len(), *d_in] && !is_joined {
                    return Err(MergeError::Shape {
                        name: name.to_owned(),
                        base: stored.to_vec(),
                        adapter: vec![part.len(), *d_in],
                    }
                    .into());
                }
                is_whole &= part.start == end;
                end = part.end;
            }
            if !is_whole || end != *rows {
                let name = path.clone();
                return Err(MergeError::Incomplete { name }.into());
            }
        }
        Ok(())
    }

    /// Refuses tensors that the base does not have: a new head needs another class than the base's.
    fn check_whole(&self, merge: &Merge) -> Result<()> {
        let mut names = merge.whole_names();
        match names.find(|name| self.of_base(name).is_err()) {
            None => Ok(()),
            Some(name) => Err(MergeError::NotInBase { name }.into()),
        }
    }
}

/// Turns a matrix of a shape over.
pub(super) fn transpose(values: &[f64], shape: &[usize]) -> Vec<f64> {
    let (rows, columns) = (shape[0], shape[1]);
    (0..rows * columns)
        .map(|at| values[(at % rows) * columns + at / rows])
        .collect()
}

impl Weights for MergedWeights<'_> {
    type Error = TrainError;

    fn shape(&mut self, name: &str) -> Result<Vec<usize>> {
        Ok(self.of_base(name)?.shape.to_vec())
    }

    fn dtype(&mut self, name: &str) -> Result<Dtype> {
        Ok(self.of_base(name)?.dtype)
    }

    fn read(&mut self, name: &str, first: usize, to: &mut [f64]) -> Result<()> {
        if !self.changes(name) {
            return Ok(self.of_base(name)?.read_finite_f64(first, to)?);
        }
        if self.held.as_ref().is_none_or(|(held, _)| held != name) {
            // What is no longer read goes before another takes its place.
            self.held = None;
            let (merged, _) = self.merged(name)?;
            self.held = Some((name.to_owned(), merged));
        }
        let held = self.held.as_ref().map(|(_, values)| values.as_slice());
        let part = held.and_then(|values| values.get(first..first + to.len()));
        if let Some(part) = part {
            to.copy_from_slice(part);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_turned_over_and_back() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let turned = transpose(&values, &[2, 3]);
        assert_eq!(turned, [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(transpose(&turned, &[3, 2]), values);
    }
}
